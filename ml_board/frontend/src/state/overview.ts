// A grid search in one line: how far it is, how long it still takes, who is best, what failed. As mlgym/record/report.py. Pure.

import type { Experiment, State } from "./fold";
import { best, defaultScore, elapsed, smallerIsBetter, trained } from "./table";

export interface Overview {
  /** status -> how many experiments */
  counts: Map<string, number>;
  epochsDone: number;
  epochsTotal: number;
  /** Seconds until all have ended, by as many at a time as are running now; null when that cannot be said. */
  left: number | null;
  /** `split/tag` that is judged by; null before there is one. */
  score: string | null;
  best: Experiment | null;
  /** What went wrong, and with whom, the most frequent first. */
  failures: { error: string; experiments: number[] }[];
}

/** `by`: the score to judge by, if there is such a one. */
export function overview(state: State, now: number, by?: string): Overview {
  const score = by !== undefined && state.scoreKeys.has(by) ? by : defaultScore(state.scoreKeys);
  const sign = score && smallerIsBetter(score, state.scoreKeys.get(score) ?? false) ? 1 : -1;
  const counts = new Map<string, number>();
  const failures = new Map<string, number[]>();
  let [epochsDone, epochsTotal, seconds, epochs] = [0, 0, 0, 0];
  let winner: Experiment | null = null;
  let winning = Infinity;
  for (const experiment of state.experiments.values()) {
    const { status, experiment_id: id } = experiment;
    counts.set(status, (counts.get(status) ?? 0) + 1);
    epochsDone += experiment.epochs_done;
    epochsTotal += experiment.num_epochs;
    const spent = elapsed(experiment, now);
    if (spent !== null) {
      seconds += spent;
      epochs += trained(experiment);
    }
    if (status === "FAILED") {
      const error = experiment.error ?? experiment.reason ?? "no reason given";
      const others = failures.get(error);
      if (others) others.push(id);
      else failures.set(error, [id]);
    }
    const found = score && best(experiment, score);
    if (found && (sign * found.value < winning || (sign * found.value === winning && id < (winner?.experiment_id ?? 0)))) {
      [winner, winning] = [experiment, sign * found.value];
    }
  }
  // Those that are not in the log yet will be as long as the others are.
  const missing = Math.max(0, state.numExperiments - state.experiments.size);
  if (state.experiments.size) epochsTotal += (missing * epochsTotal) / state.experiments.size;
  return {
    counts,
    epochsDone,
    epochsTotal: Math.round(epochsTotal),
    left: leftOfAll(state, now, epochs ? seconds / epochs : null),
    score,
    best: winner,
    failures: [...failures]
      .map(([error, experiments]) => ({ error, experiments }))
      .sort((a, b) => b.experiments.length - a.experiments.length),
  };
}

/** `pace`: seconds an epoch, over all experiments; for those that have none of their own. */
function leftOfAll(state: State, now: number, pace: number | null): number | null {
  let [sum, longest, running, known] = [0, 0, 0, false];
  for (const experiment of state.experiments.values()) {
    const { status } = experiment;
    if (status === "RUNNING") running++;
    else if (status !== "INIT") continue;
    const done = trained(experiment);
    const own = elapsed(experiment, now);
    const each = own && done ? own / done : pace;
    if (each === null) continue;
    const left = each * (experiment.num_epochs - experiment.start_epoch - done);
    [sum, longest, known] = [sum + left, Math.max(longest, left), true];
  }
  return state.status === "STARTED" && running && known ? Math.max(sum / running, longest) : null;
}

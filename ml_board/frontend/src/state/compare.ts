// How the scores of a few experiments differ from those of one among them. Pure.

import type { Extreme } from "./column";
import type { Experiment, State } from "./fold";
import { best, smallerIsBetter } from "./table";

export const FEWEST = 2;
export const MOST = 8;

export interface ScoreLine {
  /** `split/tag` */
  key: string;
  which: "best" | "last";
  cells: ScoreCell[];
}

export interface ScoreCell {
  /** null: it has none */
  point: Extreme | null;
  /** What it is more than the baseline's; null where one of them is no finite number. */
  more: number | null;
  /** Positive: better than the baseline's, negative: worse. */
  better: number;
}

/** A line for the best and one for the last of each score that any of them has. `base`: index of the baseline. */
export function scoreLines(state: State, experiments: readonly Experiment[], base: number): ScoreLine[] {
  const lines: ScoreLine[] = [];
  for (const [key, loss] of state.scoreKeys) {
    if (!experiments.some(({ scores }) => scores.has(key))) continue;
    for (const which of ["best", "last"] as const) {
      const points = experiments.map((one) => (which === "best" ? best(one, key) : (one.scores.get(key)?.last ?? null)));
      const from = points[base]?.value ?? NaN;
      const cells = points.map((point, i): ScoreCell => {
        const more = point && i !== base && Number.isFinite(point.value - from) ? point.value - from : null;
        return { point, more, better: more ? Math.sign(more) * (smallerIsBetter(key, loss) ? -1 : 1) : 0 };
      });
      lines.push({ key, which, cells });
    }
  }
  return lines;
}

/** What a run ran on, with the packages by name instead of as a list of `name==version`. */
export function byPackage(info: unknown): unknown {
  const listed = (info as { all_packages?: unknown } | null)?.all_packages;
  if (!Array.isArray(listed)) return info;
  const all_packages = Object.fromEntries(listed.map((one) => `${one}`.split("==", 2)).map(([name, version]) => [name, version ?? null]));
  return { ...(info as object), all_packages };
}

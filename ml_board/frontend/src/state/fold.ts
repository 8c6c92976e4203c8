// What a log says, as a value: the same fold as mlgym/record/fold.py, over the same events, to the same end. One golden
// log is folded by both (tests/golden.test.ts). The state is updated in place; no DOM, no clock, no network.

import type { ExperimentRow, JobState, Point, Rows, ScoreRow, Warning } from "../wire/answers";
import { incoming, scalar } from "../wire/decode";
import type {
  CheckpointEvent,
  EvaluationResult,
  ExperimentConfig,
  ExperimentStatus,
  GridSearch,
  JobStatus,
  KnownEvent,
  Scalar,
} from "../wire/events";
import { Column, type Extreme, extreme } from "./column";

/** A job that is LOST has not ended: it is tried again, or FAILED follows. */
const RANK: Record<JobState, number> = { INIT: 0, RUNNING: 1, LOST: 2, DONE: 3, FAILED: 3, STOPPED: 3 };
const KEPT_WARNINGS = 200;

export interface Score {
  loss: boolean;
  /** How many epochs have one. */
  count: number;
  last: Extreme;
  lowest: Extreme | null;
  highest: Extreme | null;
  /** The points; null when the page has not asked for them yet. */
  column: Column | null;
}

export interface Progress {
  phase: string;
  epoch: number;
  split: string;
  batch: number;
  num_batches: number;
  seq: number;
}

export interface Experiment extends Omit<ExperimentRow, "scores" | "checkpoints" | "progress"> {
  progress: Progress;
  /** `split/tag` -> its score */
  scores: Map<string, Score>;
  /** epoch -> seq of the event that announced it */
  checkpoints: Map<number, number>;
  /** Bumped with each change, so that a view can tell what to draw anew. */
  version: number;
}

export class State {
  gridSearchId = "";
  seq = 0;
  /** Unix time in ms of the last event. */
  time = 0;
  status = "";
  reason: string | null = null;
  numExperiments = 0;
  startingTime: number | null = null;
  finishingTime: number | null = null;
  damaged = 0;
  warnings: Warning[] = [];
  experiments = new Map<number, Experiment>();
  /** `split/tag` of every score, in the order in which they were first seen; true for losses. */
  scoreKeys = new Map<string, boolean>();
  /** An epoch was run again whose neighbours are not here, so what is best must be asked for. */
  stale = false;

  experiment(id: number): Experiment {
    let found = this.experiments.get(id);
    if (!found) {
      found = emptyExperiment(id);
      this.experiments.set(id, found);
    }
    return found;
  }
}

function noProgress(): Progress {
  return { phase: "", epoch: 0, split: "", batch: 0, num_batches: 0, seq: 0 };
}

function emptyExperiment(id: number): Experiment {
  return {
    experiment_id: id,
    config_hash: "",
    config_seq: 0,
    swept: {},
    num_epochs: 0,
    attempt: 0,
    status: "INIT",
    status_seq: 0,
    starting_time: null,
    finishing_time: null,
    device: null,
    reason: null,
    error: null,
    start_epoch: 0,
    epochs_done: 0,
    train_batches: 0,
    changes: 0,
    progress: noProgress(),
    scores: new Map(),
    checkpoints: new Map(),
    facts: {},
    version: 0,
  };
}

/** `state` after an event, as JSON has it. Events of unknown types only move `seq`. */
export function fold(state: State, raw: unknown): void {
  const event = incoming(raw);
  if (event.known) take(state, event.known);
  if (event.seq > state.seq) state.seq = event.seq;
}

function take(state: State, event: KnownEvent): void {
  state.time = event.creation_ts;
  switch (event.event_type) {
    case "grid_search":
      return gridSearch(state, event.payload, event.creation_ts);
    case "experiment_config":
      return experimentConfig(state, event.payload, event.seq);
    case "job_status":
      return jobStatus(state, event.payload, event.attempt, event.seq);
    case "experiment_status":
      return experimentStatus(state, event.payload, event.attempt, event.seq);
    case "evaluation_result":
      return evaluationResult(state, event.payload, event.seq, event.creation_ts);
    case "checkpoint":
      return checkpoint(state, event.payload, event.seq);
    case "model_facts":
      return fact(state, event.payload.experiment_id, "model", event.seq);
    case "data_facts":
      return fact(state, event.payload.experiment_id, "data", event.seq);
    case "class_results":
      return fact(state, event.payload.experiment_id, `classes/${event.payload.epoch}`, event.seq);
    case "job_usage":
      return fact(state, event.payload.experiment_id, `usage/${event.attempt}`, event.seq);
    case "warning":
      state.warnings.push({
        seq: event.seq,
        time: event.creation_ts,
        message: event.payload.message,
        experiment_id: event.payload.experiment_id ?? null,
      });
      if (state.warnings.length > KEPT_WARNINGS) state.warnings.shift();
      return;
    default:
      return;
  }
}

/** What it says is read when somebody wants it. */
function fact(state: State, id: number, name: string, seq: number): void {
  const experiment = state.experiment(id);
  experiment.version++;
  experiment.facts = { ...experiment.facts, [name]: seq };
}

function gridSearch(state: State, payload: GridSearch, time: number): void {
  state.gridSearchId = payload.grid_search_id;
  state.status = payload.status;
  state.reason = payload.reason ?? null;
  if (payload.status === "STARTED") {
    state.numExperiments = payload.num_experiments ?? 0;
    state.startingTime = time;
    state.finishingTime = null;
  } else {
    state.finishingTime = time;
  }
}

function experimentConfig(state: State, payload: ExperimentConfig, seq: number): void {
  const experiment = state.experiment(payload.experiment_id);
  experiment.version++;
  experiment.config_hash = payload.config_hash ?? "";
  experiment.config_seq = seq;
  experiment.swept = payload.swept ?? {};
  experiment.num_epochs = payload.num_epochs ?? 0;
}

function jobStatus(state: State, payload: JobStatus, attempt: number, seq: number): void {
  const experiment = state.experiment(payload.experiment_id);
  if (attempt > experiment.attempt) {
    experiment.attempt = attempt;
    experiment.progress = noProgress();
    experiment.start_epoch = experiment.epochs_done = payload.start_epoch ?? 0;
    experiment.starting_time = experiment.finishing_time = null;
  } else if (attempt < experiment.attempt || RANK[payload.status] <= RANK[experiment.status]) {
    return; // news of an older attempt, or a state that would go back
  }
  experiment.version++;
  experiment.status = payload.status;
  experiment.status_seq = seq;
  experiment.reason = payload.reason ?? null;
  experiment.error = payload.error ?? null;
  experiment.starting_time = payload.starting_time || experiment.starting_time;
  experiment.finishing_time = payload.finishing_time ?? null;
  experiment.device = payload.device || experiment.device;
}

function experimentStatus(state: State, payload: ExperimentStatus, attempt: number, seq: number): void {
  const experiment = state.experiment(payload.experiment_id);
  if (attempt < experiment.attempt) return;
  experiment.version++;
  const progress = experiment.progress;
  progress.phase = payload.status;
  progress.epoch = payload.current_epoch;
  progress.split = payload.current_split ?? "";
  progress.batch = payload.current_batch ?? 0;
  progress.num_batches = payload.num_batches ?? 0;
  progress.seq = seq;
  if (payload.status === "train" && payload.num_batches) experiment.train_batches = payload.num_batches;
}

function evaluationResult(state: State, payload: EvaluationResult, seq: number, time: number): void {
  const experiment = state.experiment(payload.experiment_id);
  experiment.version++;
  if (payload.epoch > experiment.epochs_done) experiment.epochs_done = payload.epoch;
  for (const { metric, split, score } of payload.metric_scores ?? []) {
    put(state, experiment, `${split}/${metric}`, false, payload.epoch, scalar(score), seq, time);
  }
  for (const { loss, split, score } of payload.loss_scores ?? []) {
    put(state, experiment, `${split}/${loss}`, true, payload.epoch, scalar(score), seq, time);
  }
}

function put(
  state: State,
  experiment: Experiment,
  key: string,
  loss: boolean,
  epoch: number,
  value: number,
  seq: number,
  time: number,
): void {
  let score = experiment.scores.get(key);
  const here: Extreme = { epoch, value, seq };
  if (!score) {
    const column = new Column();
    column.put(epoch, value, seq, time);
    const finite = Number.isFinite(value) ? here : null;
    experiment.scores.set(key, { loss, count: 1, last: here, lowest: finite, highest: finite, column });
    if (!state.scoreKeys.has(key)) state.scoreKeys.set(key, loss);
    return;
  }
  const column = score.column;
  if (epoch > score.last.epoch) {
    column?.put(epoch, value, seq, time);
    score.count++;
    score.last = here;
    if (Number.isFinite(value)) {
      if (!score.lowest || value < score.lowest.value) score.lowest = here;
      if (!score.highest || value > score.highest.value) score.highest = here;
    }
    return;
  }
  // An epoch was run again.
  if (column?.complete) {
    const at = column.find(epoch);
    const before = at >= 0 ? (column.values[at] as number) : undefined;
    if (before !== undefined && !Object.is(before, value) && before !== value) experiment.changes++;
    column.put(epoch, value, seq, time);
    score.count = column.length;
    score.last = at >= 0 && epoch === score.last.epoch ? here : score.last;
    score.lowest = extreme(column, 1);
    score.highest = extreme(column, -1);
  } else {
    if (epoch === score.last.epoch) score.last = here;
    score.column = null;
    state.stale = true;
  }
}

function checkpoint(state: State, payload: CheckpointEvent, seq: number): void {
  if (payload.batch) return; // one within an epoch is for the next attempt, not for users
  const experiment = state.experiment(payload.experiment_id);
  experiment.version++;
  if (payload.action === "SAVED") experiment.checkpoints.set(payload.epoch, seq);
  else experiment.checkpoints.delete(payload.epoch);
}

/** The same state anew, to be gone on from. */
export function copy(state: State): State {
  const found = Object.assign(new State(), state);
  found.warnings = [...state.warnings];
  found.scoreKeys = new Map(state.scoreKeys);
  found.experiments = new Map(
    [...state.experiments].map(([id, experiment]) => [
      id,
      {
        ...experiment,
        progress: { ...experiment.progress },
        checkpoints: new Map(experiment.checkpoints),
        scores: new Map([...experiment.scores].map(([key, score]) => [key, { ...score, column: score.column?.copy() ?? null }])),
      },
    ]),
  );
  return found;
}

// --- to and from what the server answers ---

/** The state that a snapshot describes. */
export function fromRows(rows: Rows): State {
  const state = new State();
  state.gridSearchId = rows.grid_search_id;
  state.seq = rows.seq;
  state.time = rows.time;
  state.status = rows.status;
  state.reason = rows.reason;
  state.numExperiments = rows.num_experiments;
  state.startingTime = rows.starting_time;
  state.finishingTime = rows.finishing_time;
  state.damaged = rows.damaged;
  state.warnings = [...rows.warnings];
  for (const row of rows.experiments) {
    const scores = new Map<string, Score>();
    for (const [key, score] of Object.entries(row.scores)) {
      scores.set(key, {
        loss: score.loss,
        count: score.count,
        last: fromPoint(score.last) as Extreme,
        lowest: fromPoint(score.lowest),
        highest: fromPoint(score.highest),
        column: null,
      });
      if (!state.scoreKeys.has(key)) state.scoreKeys.set(key, score.loss);
    }
    const checkpoints = new Map(row.checkpoints.map(({ epoch, seq }) => [epoch, seq]));
    state.experiments.set(row.experiment_id, { ...row, scores, checkpoints, version: 0 });
  }
  return state;
}

function fromPoint(point: Point | null): Extreme | null {
  return point && { epoch: point[0], value: scalar(point[1]), seq: point[2] };
}

/** What a snapshot would say of this state. */
export function toRows(state: State): Rows {
  return {
    grid_search_id: state.gridSearchId,
    seq: state.seq,
    time: state.time,
    status: state.status,
    reason: state.reason,
    num_experiments: state.numExperiments,
    starting_time: state.startingTime,
    finishing_time: state.finishingTime,
    damaged: state.damaged,
    warnings: state.warnings,
    experiments: [...state.experiments.values()].map(({ version: _, scores, checkpoints, ...row }) => ({
      ...row,
      scores: Object.fromEntries([...scores].map(([key, score]) => [key, toScore(score)])),
      checkpoints: [...checkpoints].map(([epoch, seq]) => ({ epoch, seq })),
    })),
  };
}

function toScore({ loss, count, last, lowest, highest }: Score): ScoreRow {
  return { loss, count, last: toPoint(last), lowest: lowest && toPoint(lowest), highest: highest && toPoint(highest) };
}

function toPoint({ epoch, value, seq }: Extreme): Point {
  return [epoch, toScalar(value), seq];
}

function toScalar(value: number): Scalar {
  return Number.isFinite(value) ? value : (`${value}` as Scalar);
}

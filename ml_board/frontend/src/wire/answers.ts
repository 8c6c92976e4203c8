// What REST answers. docs/protocol.md is the contract.

import type { Scalar } from "./events";

export type JobState = "INIT" | "RUNNING" | "DONE" | "FAILED" | "LOST" | "STOPPED";

/** epoch, value, seq of the event it came with */
export type Point = [epoch: number, value: Scalar, seq: number];

export interface ScoreRow {
  loss: boolean;
  count: number;
  last: Point;
  lowest: Point | null;
  highest: Point | null;
}

export interface ExperimentRow {
  experiment_id: number;
  config_hash: string;
  config_seq: number;
  swept: Record<string, unknown>;
  num_epochs: number;
  attempt: number;
  status: JobState;
  status_seq: number;
  starting_time: number | null;
  finishing_time: number | null;
  device: string | null;
  reason: string | null;
  error: string | null;
  start_epoch: number;
  epochs_done: number;
  train_batches: number;
  progress: { phase: string; epoch: number; split: string; batch: number; num_batches: number; seq: number };
  scores: Record<string, ScoreRow>;
  checkpoints: { epoch: number; seq: number }[];
  changes: number;
  /** What else the log says, and in which event: `model`, `data`, `classes/EPOCH`, `usage/ATTEMPT`. */
  facts: Record<string, number>;
}

/** A combination on a fold, or with a seed; `missing` says which of its trainings have no score, and why. */
export interface FoldScore {
  value: Scalar | null;
  experiments: number[];
  missing: string[];
}

export interface Combination {
  number: number;
  swept: Record<string, unknown>;
  scores: Record<string, FoldScore>;
  epoch: number | null;
  mean: Scalar | null;
  std: Scalar | null;
  complete: boolean;
  rank: number | null;
}

export interface Report {
  kind: string;
  score: string | null;
  mode: "max" | "min";
  epoch: EpochRule;
  /** null when it is nested */
  ranking: Combination[] | null;
  outer: { fold: number; inner: Combination[]; chosen: Combination | null; score: FoldScore; epoch: number | null }[];
  mean: Scalar | null;
  std: Scalar | null;
  missing: string[];
}

export type EpochRule = "last" | "average" | "best";

export interface Warning {
  seq: number;
  time: number;
  message: string;
  experiment_id: number | null;
}

export interface Rows {
  grid_search_id: string;
  seq: number;
  time: number;
  status: string;
  reason: string | null;
  num_experiments: number;
  starting_time: number | null;
  finishing_time: number | null;
  damaged: number;
  warnings: Warning[];
  experiments: ExperimentRow[];
}

export interface Attempt {
  attempt: number;
  status: JobState;
  starting_time: number | null;
  finishing_time: number | null;
  device: string | null;
  host: string | null;
  reason: string | null;
  error: string | null;
  stacktrace: string | null;
  start_epoch: number;
  seq: number;
}

export interface ExperimentDetail extends Omit<ExperimentRow, "checkpoints" | "changes"> {
  attempts: Attempt[];
  checkpoints: { epoch: number; seq: number; files: { name: string; size: number }[] }[];
  changes: { epoch: number; score: string; before: Scalar; now: Scalar }[];
}

export interface Listed {
  grid_search_id: string;
  status: string | null;
  running: boolean;
  head: number | null;
  size: number;
  modified: number;
}

export interface Summary {
  grid_search_id: string;
  seq: number;
  time: number;
  status: string;
  reason: string | null;
  num_experiments: number;
  counts: Partial<Record<JobState, number>>;
  epochs_done: number;
  epochs_total: number;
  starting_time: number | null;
  finishing_time: number | null;
  best: { score: string; mode: "max" | "min"; experiment_id: number; epoch: number; value: Scalar; seq: number } | null;
}

export interface Series {
  experiment_id: number;
  score: string;
  loss: boolean;
  /** How many points there are; `epochs` may hold fewer. */
  of: number;
  epochs: number[];
  values: Scalar[];
  seqs: number[];
  times: number[];
}

export interface SeriesAnswer {
  seq: number;
  series: Series[];
}

export type MarkKind = string;

export interface Timeline {
  seq: number;
  time: number;
  first_time: number;
  of: number;
  marks: { seqs: number[]; times: number[]; kinds: MarkKind[]; experiments: number[] };
}

export interface EventPage {
  grid_search_id: string;
  head: number;
  events: unknown[];
  next?: number | null;
}

/** A component. `swept`: path from the component on -> the value taken. */
export interface PipelineNode {
  name: string;
  type: string;
  variant: string;
  config: unknown;
  swept: Record<string, unknown>;
  used: boolean;
  missing: boolean;
  group: string;
  x: number;
  y: number;
  width: number;
  height: number;
  lines: { kind: string; text: string; x: number; y: number }[];
}

/** `target` requires `source`; without a `path` it is not drawn. */
export interface PipelineEdge {
  source: string;
  target: string;
  requirement: string;
  subscription: unknown;
  label: string;
  x: number;
  y: number;
  path: string;
  head: string;
}

/** A picture, in pixels. */
export interface Pipeline {
  width: number;
  height: number;
  nodes: PipelineNode[];
  edges: PipelineEdge[];
}

export interface Output {
  offset: number;
  next_offset: number;
  size: number;
  text: string;
}

/** `/model-card`: as much of it as the page shows. */
export interface Card {
  model_details: {
    name: string;
    model_description: string | null;
    model_version: string | null;
    source_repo: string | null;
    stated: Record<string, unknown>;
    seq: number;
    type: string | null;
    trainable_parameters: number | null;
    total_parameters: number | null;
    size_bytes: number | null;
    layers: { name: string; type: string; parameters?: number; trainable?: number }[];
  };
  dataset_details: {
    datasets: string[];
    splits: {
      split: string;
      samples: number;
      percentage: number;
      uses: string[];
      sample_shape: number[] | null;
      sample_dtype: string;
      target_shape: number[] | null;
      target_dtype: string;
      label_distribution: { label: number; name: string; count: number; percentage: number }[];
      spread: Record<string, Scalar>;
      uncounted: string;
    }[];
  };
  training_details: {
    hyperparameters: { parameter: string; value: unknown; swept: boolean }[];
    loss: Record<string, unknown> | null;
    optimizer: Record<string, unknown> | null;
    lr_scheduler: Record<string, unknown> | null;
    seconds: number | null;
    training_seconds: number | null;
    evaluation_seconds: number | null;
    memory_bytes: number | null;
    device_memory_bytes: number | null;
  };
  eval_details: {
    score: string | null;
    best_epoch: number | null;
    scores: {
      tag: string;
      split: string;
      last: { epoch: number; value: Scalar };
      best: { epoch: number; value: Scalar } | null;
      at_best_epoch: Scalar | null;
    }[];
    class_results: {
      split: string;
      target: string;
      epoch: number;
      best: boolean;
      last: boolean;
      samples: number;
      accuracy: number;
      classes: { name: string; support: number; precision: number | null; recall: number | null; f1: number | null }[];
      confusion: number[][];
    }[];
  };
  experiment_environment: {
    carbon_and_cost: {
      basis: string | null;
      energy_kwh: number | null;
      carbon_g: number | null;
      cost: number | null;
      currency: string;
      explanation: string;
    };
  };
}

/** What one file with a grid search in it says of itself; ml_board/one_file.py writes it. */
export interface About {
  grid_search_id: string;
  /** Unix time in ms at which it was made. */
  made: number;
  version: string;
  /** `seq` of the last event of the log, which is here. */
  head: number;
  /** How many events the log had, and how many are here. */
  of: number;
  events: number;
  /** What was left out: one sentence each. `thinned`: what the charts show is less than there was. */
  left_out: string[];
  thinned: string | null;
}

export interface Endpoints {
  rest: string | null;
  ws: string | null;
  run_id: string | null;
  /** Other boards that the page may talk to. */
  allowed: string[];
}

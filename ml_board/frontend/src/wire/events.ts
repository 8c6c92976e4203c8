// Made by `python -m ml_board.wire_types` from mlgym/record/events.py; do not edit.

export type Scalar = number | "NaN" | "Infinity" | "-Infinity";

export interface Validation {
  combinations: number;
  outer_folds?: number;
  inner_folds?: number;
  seeds?: number[];
  selected_only?: boolean;
  metric?: string | null;
  mode?: "max" | "min" | null;
  epoch?: "last" | "best" | "average";
  dropped?: number[];
}

export interface GridSearch {
  grid_search_id: string;
  status: "STARTED" | "FINISHED" | "INTERRUPTED";
  num_experiments?: number | null;
  run_config?: string | null;
  grid_search_config?: string | null;
  reason?: string | null;
  validation?: Validation | null;
  model_info?: Record<string, unknown>;
}

export interface SystemInfo {
  grid_search_id: string;
  host: string;
  info?: Record<string, unknown>;
}

export interface ExperimentConfig {
  grid_search_id: string;
  experiment_id: number;
  job_id?: string | null;
  config?: unknown;
  config_hash?: string;
  swept?: Record<string, unknown>;
  seed?: number | null;
  num_epochs?: number | null;
}

export interface DataFold {
  grid_search_id: string;
  fold: string;
  samples: number;
  test?: number[];
  offset?: number;
}

export interface JobStatus {
  grid_search_id: string;
  job_id: string;
  experiment_id: number;
  status: "INIT" | "RUNNING" | "DONE" | "FAILED" | "LOST" | "STOPPED";
  job_type?: string;
  start_epoch?: number;
  starting_time?: number | null;
  finishing_time?: number | null;
  device?: string | null;
  host?: string | null;
  num_threads?: number | null;
  inexact?: string | null;
  reason?: string | null;
  error?: string | null;
  stacktrace?: string | null;
}

export interface ExperimentStatus {
  grid_search_id: string;
  experiment_id: number;
  status: "train" | "evaluation";
  num_epochs: number;
  current_epoch: number;
  splits?: string[];
  current_split?: string | null;
  num_batches?: number;
  current_batch?: number;
}

export interface MetricScore {
  metric: string;
  split: string;
  score: Scalar;
}

export interface LossScore {
  loss: string;
  split: string;
  score: Scalar;
}

export interface EvaluationResult {
  grid_search_id: string;
  experiment_id: number;
  epoch: number;
  metric_scores?: MetricScore[];
  loss_scores?: LossScore[];
}

export interface CheckpointFile {
  name: string;
  size: number;
  sha256: string;
}

export interface CheckpointEvent {
  grid_search_id: string;
  experiment_id: number;
  epoch: number;
  batch?: number;
  action: "SAVED" | "DELETED";
  files?: CheckpointFile[];
}

export interface JobOutput {
  grid_search_id: string;
  experiment_id: number;
  job_id: string;
  offset: number;
  text: string;
}

export interface Warned {
  grid_search_id: string;
  message: string;
  experiment_id?: number | null;
}

export interface ScoreChange {
  score: string;
  before: Scalar;
  now: Scalar;
}

export interface NondeterminismDetected {
  grid_search_id: string;
  experiment_id: number;
  epoch: number;
  changes?: ScoreChange[];
}

export interface Layer {
  name: string;
  type: string;
  parameters?: number;
  trainable?: number;
}

export interface ModelFacts {
  grid_search_id: string;
  experiment_id: number;
  type: string;
  parameters: number;
  trainable: number;
  size_bytes: number;
  modules?: number;
  layers?: Layer[];
}

export interface LabelCount {
  label: number;
  count: number;
}

export interface SplitFacts {
  split: string;
  samples: number;
  uses?: "training" | "evaluation"[];
  batch_size?: number;
  sample_shape?: number[] | null;
  sample_dtype?: string;
  target_shape?: number[] | null;
  target_dtype?: string;
  labels?: LabelCount[];
  multi_label?: boolean;
  spread?: Record<string, Scalar>;
  uncounted?: string;
}

export interface DataFacts {
  grid_search_id: string;
  experiment_id: number;
  splits?: SplitFacts[];
}

export interface ClassCounts {
  split: string;
  target: string;
  prediction: string;
  labels: number[];
  actual: number[];
  predicted: number[];
  correct: number[];
  confusion?: number[][];
  confusions?: number[][];
}

export interface ClassResults {
  grid_search_id: string;
  experiment_id: number;
  epoch: number;
  splits?: ClassCounts[];
}

export interface JobUsage {
  grid_search_id: string;
  experiment_id: number;
  job_id: string;
  training_seconds?: number;
  evaluation_seconds?: number;
  memory_bytes?: number;
  device_memory_bytes?: number | null;
  energy_joules?: number | null;
}

export interface Envelope {
  seq: number;
  creation_ts: number;
  source: string;
  n: number;
  attempt: number;
}

export type KnownEvent = Envelope &
  (
    | { event_type: "grid_search"; payload: GridSearch }
    | { event_type: "system_info"; payload: SystemInfo }
    | { event_type: "experiment_config"; payload: ExperimentConfig }
    | { event_type: "data_fold"; payload: DataFold }
    | { event_type: "job_status"; payload: JobStatus }
    | { event_type: "experiment_status"; payload: ExperimentStatus }
    | { event_type: "evaluation_result"; payload: EvaluationResult }
    | { event_type: "checkpoint"; payload: CheckpointEvent }
    | { event_type: "job_output"; payload: JobOutput }
    | { event_type: "warning"; payload: Warned }
    | { event_type: "nondeterminism_detected"; payload: NondeterminismDetected }
    | { event_type: "model_facts"; payload: ModelFacts }
    | { event_type: "data_facts"; payload: DataFacts }
    | { event_type: "class_results"; payload: ClassResults }
    | { event_type: "job_usage"; payload: JobUsage }
  );

/** What a value has to be: the name of a plain type or of a struct, one of some words, or a container. */
export type Shape = string | { words: string[] } | { list: Shape } | { map: Shape } | { any: Shape[] };

/** Field -> what it has to be; a name that ends in `?` may be left out. */
export const STRUCTS: Record<string, Record<string, Shape>> = {
  Validation: { "combinations": "int", "outer_folds?": "int", "inner_folds?": "int", "seeds?": { list: "int" }, "selected_only?": "boolean", "metric?": { any: ["string", "null"] }, "mode?": { any: [{ words: ["max", "min"] }, "null"] }, "epoch?": { words: ["last", "best", "average"] }, "dropped?": { list: "int" } },
  GridSearch: { "grid_search_id": "string", "status": { words: ["STARTED", "FINISHED", "INTERRUPTED"] }, "num_experiments?": { any: ["int", "null"] }, "run_config?": { any: ["string", "null"] }, "grid_search_config?": { any: ["string", "null"] }, "reason?": { any: ["string", "null"] }, "validation?": { any: ["Validation", "null"] }, "model_info?": { map: "anything" } },
  SystemInfo: { "grid_search_id": "string", "host": "string", "info?": { map: "anything" } },
  ExperimentConfig: { "grid_search_id": "string", "experiment_id": "int", "job_id?": { any: ["string", "null"] }, "config?": "anything", "config_hash?": "string", "swept?": { map: "anything" }, "seed?": { any: ["int", "null"] }, "num_epochs?": { any: ["int", "null"] } },
  DataFold: { "grid_search_id": "string", "fold": "string", "samples": "int", "test?": { list: "int" }, "offset?": "int" },
  JobStatus: { "grid_search_id": "string", "job_id": "string", "experiment_id": "int", "status": { words: ["INIT", "RUNNING", "DONE", "FAILED", "LOST", "STOPPED"] }, "job_type?": "string", "start_epoch?": "int", "starting_time?": { any: ["int", "null"] }, "finishing_time?": { any: ["int", "null"] }, "device?": { any: ["string", "null"] }, "host?": { any: ["string", "null"] }, "num_threads?": { any: ["int", "null"] }, "inexact?": { any: ["string", "null"] }, "reason?": { any: ["string", "null"] }, "error?": { any: ["string", "null"] }, "stacktrace?": { any: ["string", "null"] } },
  ExperimentStatus: { "grid_search_id": "string", "experiment_id": "int", "status": { words: ["train", "evaluation"] }, "num_epochs": "int", "current_epoch": "int", "splits?": { list: "string" }, "current_split?": { any: ["string", "null"] }, "num_batches?": "int", "current_batch?": "int" },
  MetricScore: { "metric": "string", "split": "string", "score": { any: ["number", { words: ["NaN", "Infinity", "-Infinity"] }] } },
  LossScore: { "loss": "string", "split": "string", "score": { any: ["number", { words: ["NaN", "Infinity", "-Infinity"] }] } },
  EvaluationResult: { "grid_search_id": "string", "experiment_id": "int", "epoch": "count", "metric_scores?": { list: "MetricScore" }, "loss_scores?": { list: "LossScore" } },
  CheckpointFile: { "name": "string", "size": "int", "sha256": "string" },
  CheckpointEvent: { "grid_search_id": "string", "experiment_id": "int", "epoch": "int", "batch?": "int", "action": { words: ["SAVED", "DELETED"] }, "files?": { list: "CheckpointFile" } },
  JobOutput: { "grid_search_id": "string", "experiment_id": "int", "job_id": "string", "offset": "int", "text": "string" },
  Warned: { "grid_search_id": "string", "message": "string", "experiment_id?": { any: ["int", "null"] } },
  ScoreChange: { "score": "string", "before": { any: ["number", { words: ["NaN", "Infinity", "-Infinity"] }] }, "now": { any: ["number", { words: ["NaN", "Infinity", "-Infinity"] }] } },
  NondeterminismDetected: { "grid_search_id": "string", "experiment_id": "int", "epoch": "int", "changes?": { list: "ScoreChange" } },
  Layer: { "name": "string", "type": "string", "parameters?": "int", "trainable?": "int" },
  ModelFacts: { "grid_search_id": "string", "experiment_id": "int", "type": "string", "parameters": "int", "trainable": "int", "size_bytes": "int", "modules?": "int", "layers?": { list: "Layer" } },
  LabelCount: { "label": "int", "count": "int" },
  SplitFacts: { "split": "string", "samples": "int", "uses?": { list: { words: ["training", "evaluation"] } }, "batch_size?": "int", "sample_shape?": { any: [{ list: "int" }, "null"] }, "sample_dtype?": "string", "target_shape?": { any: [{ list: "int" }, "null"] }, "target_dtype?": "string", "labels?": { list: "LabelCount" }, "multi_label?": "boolean", "spread?": { map: { any: ["number", { words: ["NaN", "Infinity", "-Infinity"] }] } }, "uncounted?": "string" },
  DataFacts: { "grid_search_id": "string", "experiment_id": "int", "splits?": { list: "SplitFacts" } },
  ClassCounts: { "split": "string", "target": "string", "prediction": "string", "labels": { list: "int" }, "actual": { list: "int" }, "predicted": { list: "int" }, "correct": { list: "int" }, "confusion?": { list: { list: "int" } }, "confusions?": { list: { list: "int" } } },
  ClassResults: { "grid_search_id": "string", "experiment_id": "int", "epoch": "count", "splits?": { list: "ClassCounts" } },
  JobUsage: { "grid_search_id": "string", "experiment_id": "int", "job_id": "string", "training_seconds?": "number", "evaluation_seconds?": "number", "memory_bytes?": "int", "device_memory_bytes?": { any: ["int", "null"] }, "energy_joules?": { any: ["number", "null"] } },
};

export const PAYLOADS: Record<string, string> = {
  grid_search: "GridSearch",
  system_info: "SystemInfo",
  experiment_config: "ExperimentConfig",
  data_fold: "DataFold",
  job_status: "JobStatus",
  experiment_status: "ExperimentStatus",
  evaluation_result: "EvaluationResult",
  checkpoint: "CheckpointEvent",
  job_output: "JobOutput",
  warning: "Warned",
  nondeterminism_detected: "NondeterminismDetected",
  model_facts: "ModelFacts",
  data_facts: "DataFacts",
  class_results: "ClassResults",
  job_usage: "JobUsage",
};

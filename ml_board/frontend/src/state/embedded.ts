// The board in one file: what REST would answer, made of the events that the page brought with it. Live is replay at the
// head, so a state is had by folding from the keyframe before it; what only the board can work out was put there as text.
//
//   lines ─► fold ─► keyframes ─► the state as of any event ─► rows, series
//     └─► those of one experiment ─► its attempts, checkpoints, changes

import type { About, Attempt, Endpoints, EpochRule, EventPage, ExperimentDetail, Output, Report, Rows, SeriesAnswer } from "../wire/answers";
import { incoming, isObject, scalar } from "../wire/decode";
import type { CheckpointFile, KnownEvent, Scalar } from "../wire/events";
import { type Take, unpack } from "../wire/packed";
import { Rest, RestError } from "../wire/rest";
import type { Messenger } from "../wire/socket";
import type { Means } from "./board";
import { copy, fold, State, toRows } from "./fold";
import { thin } from "./thin";

const KEPT_POINTS = 3_000_000; // of all keyframes, 32 bytes each

/** Where one experiment's output ends; `text` is what the file has of it, the end. */
interface Tail {
  size: number;
  text: string;
}

export class Embedded extends Rest implements Take {
  override file: About | null = null;
  private readonly lines: string[] = [];
  private readonly seqs: number[] = [];
  private readonly types: string[] = [];
  /** Of each event the experiment that it is about; -1: of none. */
  private readonly experiments: number[] = [];
  private readonly answers = new Map<string, string>();
  private keyframes: { count: number; points: number; state: State }[] = [];
  /** What was looked at last, and how many events went into it. */
  private working = new State();
  private count = 0;

  /** `spacing`: events between two keyframes, at first. */
  constructor(private spacing = 2000) {
    super("");
  }

  /** Take in what `unpack` finds. Raises what the browser says when it can't. */
  async load(base64: string): Promise<void> {
    await unpack(base64, this);
    const about = this.answers.get("");
    if (about === undefined) throw new Error("it ends too early");
    this.file = JSON.parse(about) as About;
  }

  // --- what comes out of the file ---

  answer(path: string, text: string): void {
    this.answers.set(path, text);
  }

  event(line: string): void {
    const event = parsed(line);
    const seq = Number(event.seq);
    const payload = isObject(event.payload) ? event.payload : {};
    this.lines.push(line);
    this.seqs.push(seq);
    this.types.push(`${event.event_type}`);
    this.experiments.push(typeof payload.experiment_id === "number" ? payload.experiment_id : -1);
    fold(this.working, event);
    this.count++;
    // The farther on, the larger is a state, and the rarer it is copied.
    if (this.count >= (this.keyframes.at(-1)?.count ?? 0) + Math.max(this.spacing, this.count >> 3)) this.keep();
  }

  private keep(): void {
    let points = 0;
    for (const { scores } of this.working.experiments.values()) for (const { column } of scores.values()) points += column?.length ?? 0;
    this.keyframes.push({ count: this.count, points, state: copy(this.working) });
    while (this.keyframes.length > 1 && this.keyframes.reduce((sum, one) => sum + one.points, 0) > KEPT_POINTS) {
      this.keyframes = this.keyframes.filter((_, i) => i % 2);
      this.spacing *= 2;
    }
  }

  // --- states ---

  /** How many events there are up to number `seq`. */
  private until(seq: number): number {
    let low = 0;
    let high = this.seqs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.seqs[middle] as number) <= seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The state after event `at`, or the newest. Not to be changed or kept: the next look goes on from it. */
  private state(at = Infinity): State {
    const count = this.until(at);
    const before = this.keyframes.findLast((one) => one.count <= count);
    if (count < this.count || (before && before.count > this.count)) {
      this.working = before ? copy(before.state) : new State();
      this.count = before?.count ?? 0;
    }
    while (this.count < count) fold(this.working, parsed(this.lines[this.count++] as string));
    return this.working;
  }

  private check(id: string): void {
    if (id !== this.file?.grid_search_id) throw new RestError(404, `this file holds ${this.file?.grid_search_id} and no other grid search`);
  }

  // --- as the board answers ---

  protected override async ask(method: string, url: string): Promise<Response> {
    const path = url.replace(/^(\/model-card\/.*)\?at=\d+$/, "$1"); // a card is as of the end
    const text = method === "GET" ? (this.answers.get(path) ?? this.recorded(path)) : undefined;
    if (text === undefined) throw new RestError(404, "it is not in this file");
    return new Response(text);
  }

  /** The configuration of an experiment as its event has it: for one whose file was not there. */
  private recorded(url: string): string | undefined {
    const experiment = /^\/grid_searches\/[^/]+\/(\d+)\/experiment_config$/.exec(url)?.[1];
    if (experiment === undefined) return undefined;
    let text: string | undefined;
    for (const event of this.known(Number(experiment))) {
      if (event.event_type === "experiment_config" && event.payload.config !== undefined) text = JSON.stringify(event.payload.config);
    }
    return text;
  }

  override rows = async (id: string, at?: number): Promise<Rows> => {
    this.check(id);
    return structuredClone(toRows(this.state(at))); // the state goes on
  };

  override series = async (
    id: string,
    experiments: readonly number[],
    scores: readonly string[],
    also: { at?: number | undefined; first?: number; last?: number; points?: number },
  ): Promise<SeriesAnswer> => {
    this.check(id);
    const state = this.state(also.at);
    const { first = 0, last = Infinity, points = 800 } = also;
    const series = [...state.experiments.values()].flatMap((experiment) => {
      if (!experiments.includes(experiment.experiment_id)) return [];
      return [...experiment.scores].flatMap(([score, { loss, column }]) => {
        if (!column || !scores.includes(score)) return [];
        const place = (epoch: number): number => {
          const found = column.find(epoch);
          return found < 0 ? -1 - found : found;
        };
        const start = place(first);
        const end = last === Infinity ? column.length : place(last + 1);
        const kept = thin(column.values.subarray(start, end), points).map((one) => start + one);
        const of = (numbers: Float64Array): number[] => kept.map((one) => numbers[one] as number);
        return [
          {
            experiment_id: experiment.experiment_id,
            score,
            loss,
            of: Math.max(0, end - start),
            epochs: of(column.epochs),
            values: of(column.values) as Scalar[],
            seqs: of(column.seqs),
            times: of(column.times),
          },
        ];
      });
    });
    return { seq: state.seq, series };
  };

  override experiment = async (id: string, experiment: number, at?: number): Promise<ExperimentDetail> => {
    this.check(id);
    const state = this.state(at);
    const row = toRows(state).experiments.find((one) => one.experiment_id === experiment);
    if (!row) throw new RestError(404, `there is no experiment ${experiment} in the log as of event ${state.seq}`);
    return { ...structuredClone(row), ...details(this.known(experiment, at)) };
  };

  /** The events of an experiment that say anything of its details. */
  private *known(experiment: number, at = Infinity): Generator<KnownEvent> {
    for (let i = 0; i < this.lines.length && (this.seqs[i] as number) <= at; i++) {
      if (this.experiments[i] !== experiment || this.types[i] === "experiment_status") continue;
      const { known } = incoming(parsed(this.lines[i] as string));
      if (known) yield known;
    }
  }

  override events = async (
    id: string,
    which: { after?: number; before?: number | undefined; limit?: number; type?: readonly string[]; experiment?: number | undefined },
  ): Promise<EventPage> => {
    this.check(id);
    const { after = 0, before, limit = 1000, type = [], experiment } = which;
    const backwards = before !== undefined;
    const found: unknown[] = [];
    let next: number | null = null;
    let last = 0;
    for (let i = backwards ? this.until(before - 1) - 1 : this.until(after); i >= 0 && i < this.lines.length; i += backwards ? -1 : 1) {
      if ((type.length && !type.includes(this.types[i] as string)) || (experiment !== undefined && this.experiments[i] !== experiment)) continue;
      if (found.length === limit) {
        next = last;
        break;
      }
      last = this.seqs[i] as number;
      found.push(parsed(this.lines[i] as string));
    }
    return { grid_search_id: id, head: this.file?.head ?? 0, events: backwards ? found.reverse() : found, next };
  };

  override manifest = async (id: string, experiment: number, epoch: number): Promise<{ files: CheckpointFile[] }> => {
    this.check(id);
    let files: CheckpointFile[] = [];
    for (const event of this.known(experiment)) {
      if (event.event_type !== "checkpoint" || event.payload.batch || event.payload.epoch !== epoch) continue;
      files = event.payload.files ?? files;
    }
    return { files };
  };

  override report = async (id: string, which: { metric: string | null; epoch: EpochRule | null; at?: number | undefined }): Promise<Report> => {
    this.check(id);
    if (which.at !== undefined) throw new RestError(404, "in this file it is only as of the end, and no part of the replay");
    const reports = JSON.parse(this.answers.get(`/grid_searches/${id}/report`) ?? "{}") as Record<string, Record<string, Report>>;
    const found = reports[which.metric ?? ""]?.[which.epoch ?? ""];
    if (!found) throw new RestError(404, `it is not in this file for ${which.metric}`);
    return found;
  };

  /** The end of what was printed: the file has no more of it. */
  override output = async (id: string, experiment: number, offset: number): Promise<Output> => {
    const text = this.answers.get(`/grid_searches/${id}/${experiment}/output`);
    const tail: Tail = text === undefined ? { size: 0, text: "" } : (JSON.parse(text) as Tail);
    if (offset >= tail.size) return { offset: tail.size, next_offset: tail.size, size: tail.size, text: "" };
    return { offset: tail.size - new TextEncoder().encode(tail.text).length, next_offset: tail.size, size: tail.size, text: tail.text };
  };
}

/** How a page works that is one file. */
export function means(embedded: Embedded): Means {
  const { file } = embedded;
  const id = file?.grid_search_id ?? "";
  return {
    endpoints: async (): Promise<Endpoints> => ({ rest: null, ws: null, run_id: id, allowed: [] }),
    rest: () => embedded,
    connect: (_, listener): Messenger => ({
      watch: (wanted) => {
        queueMicrotask(() => {
          listener.connected();
          if (wanted === id) listener.head(id, file?.head ?? 0);
        });
      },
      close: () => undefined,
    }),
  };
}

/** An event; one that is no JSON is one that nobody knows. */
function parsed(line: string): Record<string, unknown> {
  try {
    const event: unknown = JSON.parse(line);
    return isObject(event) ? event : {};
  } catch {
    return { seq: Number(/^\{"seq":(\d+)/.exec(line)?.[1] ?? 0) };
  }
}

type Details = Pick<ExperimentDetail, "attempts" | "checkpoints" | "changes"> & { evaluations: number };

const RANK = { INIT: 0, RUNNING: 1, LOST: 2, DONE: 3, FAILED: 3, STOPPED: 3 };

/** What a row does not say of an experiment: as the fold of mlgym/record/fold.py has it, of its events alone. */
export function details(events: Iterable<KnownEvent>): Details {
  const attempts: Attempt[] = [];
  const checkpoints = new Map<number, Details["checkpoints"][number]>();
  const changes: Details["changes"] = [];
  const values = new Map<string, number>();
  let evaluations = 0;
  const put = (epoch: number, score: string, value: Scalar): void => {
    const now = scalar(value);
    const key = `${epoch} ${score}`;
    const before = values.get(key);
    if (before !== undefined && before !== now && !(Number.isNaN(before) && Number.isNaN(now))) {
      changes.push({ epoch, score, before: words(before), now: words(now) });
    }
    values.set(key, now);
  };
  for (const event of events) {
    const { seq } = event;
    if (event.event_type === "job_status") {
      const { payload } = event;
      let last = attempts.at(-1);
      const [attempt, rank] = last ? [last.attempt, RANK[last.status]] : [0, 0];
      if (event.attempt < attempt || (event.attempt === attempt && RANK[payload.status] <= rank)) continue;
      if (!last || event.attempt > attempt) {
        last = {
          attempt: event.attempt,
          status: "INIT",
          starting_time: null,
          finishing_time: null,
          device: null,
          host: null,
          reason: null,
          error: null,
          stacktrace: null,
          start_epoch: event.attempt > attempt ? (payload.start_epoch ?? 0) : 0,
          seq,
        };
        attempts.push(last);
      }
      last.status = payload.status;
      last.reason = payload.reason ?? null;
      last.error = payload.error ?? null;
      last.stacktrace = payload.stacktrace ?? null;
      last.starting_time = payload.starting_time || last.starting_time;
      last.finishing_time = payload.finishing_time ?? null;
      last.device = payload.device || last.device;
      last.host = payload.host || last.host;
      last.seq = seq;
    } else if (event.event_type === "checkpoint") {
      const { payload } = event;
      if (payload.batch) continue;
      if (payload.action === "DELETED") checkpoints.delete(payload.epoch);
      else checkpoints.set(payload.epoch, { epoch: payload.epoch, seq, files: (payload.files ?? []).map(({ name, size }) => ({ name, size })) });
    } else if (event.event_type === "evaluation_result") {
      const { payload } = event;
      evaluations++;
      for (const { metric, split, score } of payload.metric_scores ?? []) put(payload.epoch, `${split}/${metric}`, score);
      for (const { loss, split, score } of payload.loss_scores ?? []) put(payload.epoch, `${split}/${loss}`, score);
    }
  }
  return { attempts, checkpoints: [...checkpoints.values()], changes, evaluations };
}

function words(value: number): Scalar {
  return Number.isFinite(value) ? value : (`${value}` as Scalar);
}

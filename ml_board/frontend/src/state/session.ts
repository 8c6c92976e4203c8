// One grid search as the page has it: a snapshot, then every later event exactly once, in order; or the same as of a
// past moment. Live is replay at the head: both are a state and a fold, and differ in where the next event comes from.
//
//   socket: head ─► pull events after `seq` ─► fold ─► changed ─► (at most once a frame) paint
//   replay: snapshot as of S ─► events after S, by their own clock ─► fold ─► the same

import { batch, computed, signal } from "@preact/signals";
import type { Series } from "../wire/answers";
import { scalar } from "../wire/decode";
import type { Scalar } from "../wire/events";
import { RestError, type Rest } from "../wire/rest";
import type { Listener, Messenger } from "../wire/socket";
import { Column } from "./column";
import { fold, fromRows, type Score, State } from "./fold";

const PAGE = 2000; // events a request
const PULL_EVERY = 100; // ms between two requests for news
const TOO_FAR = 20_000; // events behind: a snapshot is cheaper
const RETRY = 1000; // ms
const IDLE = 2000; // ms that a stretch without events lasts in replay, at most
const POINTS = 1000; // of a series, at most, unless zoomed in ...
const FEW_POINTS = 250; // ... or when there are very many series
const SERIES = 1000; // in one request
const PAINT_EVERY = 50; // ms
const CHECK_EVERY = 10; // seconds without events until it is asked whether anything still runs

export type Connection =
  | { kind: "connecting" }
  | { kind: "catching up"; done: number; of: number }
  | { kind: "live" }
  | { kind: "finished" }
  | { kind: "file"; made: number }
  | { kind: "lost"; since: number; why: string }
  | { kind: "absent"; why: string; status: number };

export interface Replay {
  playing: boolean;
  /** times as fast as it was */
  speed: number;
}

export class Session {
  /** What is shown. Replaced by each snapshot, updated in place in between: read `version` to hear of it. */
  state = new State();
  /** Bumped once for each paint that something has changed for. */
  readonly version = signal(0);
  /** Bumped when `state` is another one, so that nothing drawn before is worth keeping. */
  readonly generation = signal(0);
  readonly connection = signal<Connection>({ kind: "connecting" });
  /** null: live */
  readonly replay = signal<Replay | null>(null);
  readonly head = signal(0);
  /** The event that was gone to last. */
  sought = -1;
  /** Whether `state` holds a snapshot yet. */
  readonly ready = signal(false);
  readonly roundTrip = signal<number | null>(null);
  readonly eventsPerSecond = signal(0);
  /** It has begun and not ended, and no process runs it. */
  readonly dead = signal(false);
  /** Unix time in ms at which the last event came. */
  readonly heard = signal(0);
  readonly readonly = computed(() => this.replay.value !== null || this.rest.file !== null);

  private readonly link: Messenger;
  private pulling = false;
  private paintAsked = false;
  private painted = 0;
  private connected = false;
  /** Whether `state` is a live one, to be gone on from. */
  private fresh = false;
  private retrying: ReturnType<typeof setTimeout> | undefined;
  private applied = 0;
  private idle = CHECK_EVERY;
  private readonly rate: ReturnType<typeof setInterval>;
  private readonly stop = new AbortController();
  private seeking: AbortController | null = null;
  private running = false;
  // Series
  private wanted: { experiment: number; key: string; score: Score; column: Column }[] = [];
  private askingSoon = false;
  // Replay
  private buffer: Record<string, unknown>[] = [];
  private filling: Promise<void> | null = null;
  private clock = 0;
  private frame = 0;
  /** Whether the board has said where the log ends: a page that begins in the past does not know at first. */
  private headKnown = false;

  constructor(
    readonly id: string,
    readonly rest: Rest,
    connect: (listener: Listener) => Messenger,
    at: number | null = null,
  ) {
    this.link = connect({
      connected: () => {
        this.connected = true;
        void this.pull();
      },
      lost: (why) => {
        this.connected = false;
        this.lose(why);
      },
      head: (_, seq) => {
        this.head.value = seq;
        this.headKnown = true;
        void this.pull();
      },
      roundTrip: (ms) => (this.roundTrip.value = ms),
    });
    this.link.watch(id);
    this.rate = setInterval(() => {
      this.eventsPerSecond.value = this.applied;
      this.idle = this.applied ? 0 : this.idle + 1;
      this.applied = 0;
      if (this.idle >= CHECK_EVERY) void this.check();
    }, 1000);
    if (at === null) void this.pull();
    else void this.seek(at);
  }

  close(): void {
    this.stop.abort();
    this.seeking?.abort();
    cancelAnimationFrame(this.frame);
    clearInterval(this.rate);
    clearTimeout(this.retrying);
    this.link.close();
  }

  // --- live ---

  /** Fetch what is missing, in order, until nothing is. One at a time, however often it is called. */
  private async pull(): Promise<void> {
    if (this.pulling || this.replay.value || this.stop.signal.aborted) return;
    this.pulling = true;
    try {
      while (!this.replay.value && !this.stop.signal.aborted) {
        if (!this.fresh || this.head.value - this.state.seq > TOO_FAR) await this.takeSnapshot();
        const state = this.state;
        const page = await this.rest.events(this.id, { after: state.seq, limit: PAGE }, this.stop.signal);
        if (this.replay.value) break;
        if (this.state !== state || !this.fresh) continue; // to the past and back meanwhile
        if (page.head < this.state.seq) {
          this.head.value = 0; // another log of the same name
          await this.takeSnapshot();
          continue;
        }
        batch(() => {
          this.head.value = Math.max(this.head.value, page.head);
          for (const event of page.events) this.apply(event);
        });
        if (this.state.stale) await this.takeSnapshot();
        const behind = this.head.value - this.state.seq;
        if (behind > PAGE) this.connection.value = { kind: "catching up", done: this.state.seq, of: this.head.value };
        else this.settle();
        if (behind > 0 && !page.events.length) {
          this.retry(); // what was announced cannot be read yet
          break;
        }
        // The faster they come, the longer it lets them gather: few at once are seen at once.
        if (behind <= PAGE) await sleep(Math.min(PULL_EVERY, page.events.length));
        if (this.head.value <= this.state.seq) break;
      }
    } catch (error) {
      if (this.stop.signal.aborted) return;
      this.fail(error);
    } finally {
      this.pulling = false;
    }
  }

  private async takeSnapshot(): Promise<void> {
    const rows = await this.rest.rows(this.id, undefined, this.stop.signal);
    if (this.replay.value) return;
    this.adopt(fromRows(rows));
    this.fresh = true;
    this.head.value = Math.max(this.head.value, rows.seq);
  }

  /** Everything that there is, is here. Without the websocket nobody says when there is more, so it is asked for. */
  private settle(): void {
    const { file } = this.rest;
    if (file) this.connection.value = { kind: "file", made: file.made };
    else if (this.connected) this.connection.value = { kind: ["FINISHED", "INTERRUPTED"].includes(this.state.status) ? "finished" : "live" };
    else this.retry();
  }

  private retry(): void {
    clearTimeout(this.retrying);
    this.retrying = setTimeout(() => void this.pull(), RETRY);
  }

  /** Whether what has begun is still run by anybody. */
  private async check(): Promise<void> {
    this.idle = 0;
    try {
      const listed = (await this.rest.gridSearches()).find((one) => one.grid_search_id === this.id);
      this.dead.value = listed?.running === false && this.state.status === "STARTED";
    } catch {
      // the connection says so already
    }
  }

  private fail(error: unknown): void {
    const status = error instanceof RestError ? error.status : 0;
    const why = error instanceof Error ? error.message : String(error);
    if (status === 401 || status === 403 || status === 400 || (status === 404 && !this.ready.value)) {
      this.connection.value = { kind: "absent", why, status };
    } else {
      this.lose(why);
      if (!(error instanceof RestError)) console.error(error);
    }
    if (status !== 400) this.retry();
  }

  private lose(why: string): void {
    const now = this.connection.value;
    if (now.kind === "absent") return;
    this.connection.value = now.kind === "lost" ? { ...now, why } : { kind: "lost", since: Date.now(), why };
    this.retry();
  }

  /** Fold one event in, if it is the next; whether it was. */
  private apply(event: unknown): boolean {
    const seq = (event as { seq?: unknown }).seq;
    if (typeof seq !== "number" || seq <= this.state.seq) return false;
    fold(this.state, event);
    this.applied++;
    this.heard.value = Date.now();
    this.changed();
    return true;
  }

  private adopt(state: State): void {
    batch(() => {
      this.state = state;
      this.wanted = [];
      this.ready.value = true;
      this.generation.value++;
      this.changed();
    });
  }

  /** Something is new: paint with the next frame. */
  private changed(): void {
    if (this.paintAsked) return;
    this.paintAsked = true;
    const paint = (): void => {
      this.paintAsked = false;
      this.painted = performance.now();
      this.version.value++;
    };
    // A page in the background gets no frames, and must not fall behind.
    if (document.visibilityState === "hidden") setTimeout(paint, 500);
    else setTimeout(() => requestAnimationFrame(paint), this.painted + PAINT_EVERY - performance.now());
  }

  // --- series ---

  /** Have the points of these scores, sooner or later; `version` moves when they are there. */
  want(experiments: readonly number[], scores: readonly string[]): void {
    for (const experiment of experiments) {
      const known = this.state.experiments.get(experiment);
      for (const key of scores) {
        const score = known?.scores.get(key);
        if (!score || score.column) continue;
        score.column = Column.pending(); // events that come meanwhile are put there
        this.wanted.push({ experiment, key, score, column: score.column });
      }
    }
    if (this.wanted.length && !this.askingSoon) {
      this.askingSoon = true;
      setTimeout(() => void this.ask(), 0); // all charts of a paint in one request
    }
  }

  private async ask(): Promise<void> {
    this.askingSoon = false;
    const points = this.wanted.length > SERIES / 2 ? FEW_POINTS : POINTS;
    const wanted = this.wanted.splice(0, SERIES);
    if (!wanted.length) return; // there is another state since
    if (this.wanted.length) this.want([], []);
    const state = this.state;
    const experiments = wanted.map(({ experiment }) => experiment);
    const keys = [...new Set(wanted.map(({ key }) => key))];
    const at = this.replay.value ? state.seq : undefined;
    try {
      const answer = await this.rest.series(this.id, experiments, keys, { at, points }, this.stop.signal);
      if (this.state !== state) return;
      const found = new Map(answer.series.map((series) => [`${series.experiment_id} ${series.score}`, series]));
      for (const { experiment, key, score, column } of wanted) {
        const series = found.get(`${experiment} ${key}`);
        if (series && score.column === column) score.column = merged(series, column);
      }
      this.changed();
    } catch (error) {
      if (this.stop.signal.aborted) return;
      console.error(error);
      setTimeout(() => {
        for (const { score, column } of wanted) if (score.column === column) score.column = null;
        this.changed();
      }, RETRY);
    }
  }

  // --- replay ---

  /** Show the grid search as of event `seq`. */
  async seek(seq: number): Promise<void> {
    const at = Math.max(0, Math.round(seq));
    this.sought = at;
    this.seeking?.abort();
    const seeking = (this.seeking = new AbortController());
    this.pause();
    this.fresh = false;
    this.replay.value = { playing: false, speed: this.replay.value?.speed ?? 10 };
    try {
      const rows = await this.rest.rows(this.id, at, seeking.signal);
      if (seeking.signal.aborted) return;
      this.buffer = [];
      this.adopt(fromRows(rows));
      this.head.value = Math.max(this.head.value, rows.seq);
    } catch (error) {
      if (!seeking.signal.aborted && !this.stop.signal.aborted) this.fail(error);
    } finally {
      if (this.seeking === seeking) this.seeking = null;
    }
  }

  /** Fold in the next event, or go back to before the last. */
  async step(direction: 1 | -1): Promise<void> {
    this.pause();
    // What was gone to may be on its way: the next step goes on from there.
    if (this.seeking) return this.seek(this.sought + direction);
    if (!this.replay.value || direction < 0) return this.seek(this.state.seq - 1);
    await this.fill();
    const event = this.buffer.shift();
    if (event) this.apply(event);
    this.sought = this.state.seq;
  }

  play(speed: number): void {
    if (!this.replay.value) return;
    this.replay.value = { playing: true, speed };
    this.clock = this.state.time;
    if (this.running) return;
    this.running = true;
    let last = performance.now();
    const tick = (now: number): void => {
      const replay = this.replay.value;
      if (!replay?.playing) {
        this.running = false;
        return;
      }
      this.advance((now - last) * replay.speed, replay.speed);
      last = now;
      this.frame = requestAnimationFrame(tick);
    };
    this.frame = requestAnimationFrame(tick);
  }

  pause(): void {
    if (this.replay.value?.playing) this.replay.value = { ...this.replay.value, playing: false };
  }

  /** Back to the newest event. */
  live(): void {
    this.seeking?.abort();
    if (!this.replay.value) return;
    this.pause();
    batch(() => {
      this.replay.value = null;
      this.connection.value = { kind: "connecting" };
    });
    this.fresh = false;
    void this.pull();
  }

  private advance(ms: number, speed: number): void {
    const next = this.buffer[0];
    if (!next && this.state.seq >= this.head.value && this.headKnown) {
      this.sought = this.state.seq;
      return this.pause(); // the end
    }
    if (this.buffer.length < PAGE / 2) void this.fill();
    if (!next) return;
    this.clock += ms;
    const due = clock(next);
    if (due - this.clock > IDLE * speed) this.clock = due - IDLE * speed; // nobody waits for a night to pass
    const until = performance.now() + 8; // what does not fit into a frame is taken by the next
    while (this.buffer[0] && clock(this.buffer[0]) <= this.clock && performance.now() < until) {
      this.apply(this.buffer.shift());
    }
  }

  private async fill(): Promise<void> {
    if (this.buffer.length < PAGE) await (this.filling ??= this.fetchMore().finally(() => (this.filling = null)));
  }

  private async fetchMore(): Promise<void> {
    const after = Number(this.buffer.at(-1)?.seq ?? this.state.seq);
    const generation = this.generation.value;
    try {
      const page = await this.rest.events(this.id, { after, limit: PAGE }, this.stop.signal);
      if (generation !== this.generation.value) return;
      this.head.value = Math.max(this.head.value, page.head);
      this.headKnown = true;
      this.buffer.push(...(page.events as Record<string, unknown>[]));
    } catch (error) {
      if (!this.stop.signal.aborted) this.fail(error);
    }
  }
}

/** The points of an answer, and what came as events since it was made. */
export function merged(series: Series, since: Column): Column {
  const column = new Column();
  for (let i = 0; i < series.epochs.length; i++) {
    const [epoch, seq, time] = [series.epochs[i] as number, series.seqs[i] as number, series.times[i] as number];
    column.put(epoch, scalar(series.values[i] as Scalar), seq, time);
  }
  column.of = series.of;
  for (let i = 0; i < since.length; i++) {
    const [epoch, seq, time] = [since.epochs[i] as number, since.seqs[i] as number, since.times[i] as number];
    column.put(epoch, since.values[i] as number, seq, time);
  }
  return column;
}

/** When an event was made; one that does not say comes at once. */
function clock(event: Record<string, unknown>): number {
  return Number(event.creation_ts) || 0;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// The table of experiments: its columns, and which rows remain in which order. Pure.

import { duration, number, score as shownScore, shortNames, value as shownValue } from "./format";
import type { Experiment, State } from "./fold";

export type Kind = "number" | "text";

export interface Column {
  /** As it stands in the address: `lr` would not be unique, so `swept:optimizer.config.params.lr`. */
  id: string;
  title: string;
  /** What the header says when pointed at. */
  hint: string;
  kind: Kind;
  group: "experiment" | "swept" | "progress" | "best" | "last";
  /** What rows are sorted and filtered by. */
  value: (experiment: Experiment, now: number) => number | string | null;
  text: (experiment: Experiment, now: number) => string;
  /** The event that the cell comes from; 0: none. */
  seq: (experiment: Experiment) => number;
  /** Of a score: whether its smallest value is its best. */
  smaller?: boolean;
}

const SMALLER_IS_BETTER = ["loss", "error", "mae", "mse", "rmse", "brier", "calibration", "perplexity"];
const VALIDATION = ["val", "validation", "valid", "dev", "test"];
const ORDER: Record<string, number> = { RUNNING: 0, LOST: 1, FAILED: 2, INIT: 3, STOPPED: 4, DONE: 5 };

export const STATUS_WORDS: Record<string, string> = {
  INIT: "waiting",
  RUNNING: "running",
  DONE: "done",
  FAILED: "failed",
  LOST: "lost",
  STOPPED: "stopped",
};

/** Whether the best value of a score is its smallest: as `mlgym status` decides. */
export function smallerIsBetter(key: string, loss: boolean): boolean {
  return loss || SMALLER_IS_BETTER.some((word) => key.toLowerCase().includes(word));
}

/** The score that experiments are judged by unless told otherwise: the first metric on the validation split. */
export function defaultScore(keys: ReadonlyMap<string, boolean>): string | null {
  let best: string | null = null;
  let rank = Infinity;
  for (const [key, loss] of keys) {
    const place = VALIDATION.indexOf(key.split("/")[0] as string);
    const here = 2 * (place < 0 ? VALIDATION.length : place) + (loss ? 1 : 0);
    if (here < rank) [best, rank] = [key, here];
  }
  return best;
}

/** The best value of a score; null when it has no finite one. */
export function best(experiment: Experiment, key: string): { epoch: number; value: number; seq: number } | null {
  const score = experiment.scores.get(key);
  return score ? (smallerIsBetter(key, score.loss) ? score.lowest : score.highest) : null;
}

/** Seconds since its last attempt began, until it ended. */
export function elapsed(experiment: Experiment, now: number): number | null {
  const end = experiment.finishing_time ?? (experiment.status === "RUNNING" ? now : null);
  return experiment.starting_time === null || end === null ? null : Math.max(0, end - experiment.starting_time) / 1000;
}

/** The epochs of the current attempt, the begun one as a fraction. */
export function trained(experiment: Experiment): number {
  const { phase, epoch, batch, num_batches } = experiment.progress;
  const within = phase === "train" && epoch > experiment.epochs_done && num_batches > 0;
  return experiment.epochs_done - experiment.start_epoch + (within ? batch / num_batches : 0);
}

/** Seconds until it has trained all its epochs, were it to go on as it did; null when that cannot be said. */
export function left(experiment: Experiment, now: number): number | null {
  if (experiment.status !== "RUNNING") return null;
  const seconds = elapsed(experiment, now);
  const epochs = trained(experiment);
  return seconds && epochs > 0 ? (seconds / epochs) * (experiment.num_epochs - experiment.start_epoch - epochs) : null;
}

/** All columns that there are, in their order. */
export function columns(state: State): Column[] {
  const paths = new Set<string>();
  for (const experiment of state.experiments.values()) for (const path in experiment.swept) paths.add(path);
  const names = shortNames([...paths]);
  const found: Column[] = [
    column("id", "#", "number of the experiment", "number", "experiment", (e) => e.experiment_id, {
      seq: (e) => e.config_seq,
    }),
    column("status", "status", "what its last job is doing", "text", "experiment", (e) => STATUS_WORDS[e.status] ?? e.status, {
      seq: (e) => e.status_seq,
    }),
  ];
  for (const path of paths) {
    found.push(
      column(`swept:${path}`, names.get(path) as string, path, kindOf(state, path), "swept", (e) => sortable(swept(e, path)), {
        text: (e) => (Object.hasOwn(e.swept, path) ? shownValue(e.swept[path]) : ""),
        seq: (e) => e.config_seq,
      }),
    );
  }
  found.push(
    column("epochs", "epochs", "finished epochs of those planned", "number", "progress", (e) => e.epochs_done, {
      text: (e) => `${e.epochs_done}/${e.num_epochs || "?"}`,
      seq: (e) => e.progress.seq,
    }),
  );
  for (const [key, loss] of state.scoreKeys) {
    const smaller = smallerIsBetter(key, loss);
    const word = smaller ? "smallest" : "largest";
    found.push(
      column(`best:${key}`, `best ${key}`, `${word} value of any epoch`, "number", "best", (e) => best(e, key)?.value ?? null, {
        text: (e) => shown(best(e, key)?.value),
        seq: (e) => best(e, key)?.seq ?? 0,
        smaller,
      }),
      column(`last:${key}`, key, "value of the last epoch", "number", "last", (e) => e.scores.get(key)?.last.value ?? null, {
        text: (e) => shown(e.scores.get(key)?.last.value),
        seq: (e) => e.scores.get(key)?.last.seq ?? 0,
        smaller,
      }),
    );
  }
  found.push(
    column("batch", "batch", "batches of the split worked on", "number", "progress", (e) => (busy(e) ? e.progress.batch : null), {
      text: (e) => (busy(e) ? `${e.progress.batch}/${e.progress.num_batches}` : ""),
      seq: (e) => e.progress.seq,
    }),
    column("split", "split", "what it is doing, and on which split", "text", "progress", (e) => (busy(e) ? phase(e) : null), {
      seq: (e) => e.progress.seq,
    }),
    column("device", "device", "what it runs on", "text", "progress", (e) => e.device, { seq: (e) => e.status_seq }),
    column("attempt", "attempt", "how often it was begun", "number", "progress", (e) => e.attempt || null, {
      seq: (e) => e.status_seq,
    }),
    column("elapsed", "elapsed", "since its last attempt began", "number", "progress", elapsed, {
      text: (e, now) => (elapsed(e, now) === null ? "" : duration(elapsed(e, now))),
      seq: (e) => e.status_seq,
    }),
    column("left", "left", "until all epochs are trained, as it goes now", "number", "progress", left, {
      text: (e, now) => (left(e, now) === null ? "" : duration(left(e, now))),
      seq: (e) => e.progress.seq,
    }),
    column("error", "error", "why it failed or ended early", "text", "experiment", (e) => e.error ?? e.reason, {
      seq: (e) => e.status_seq,
    }),
  );
  return found;
}

/** What was swept can be called like what every object has. */
function swept(experiment: Experiment, path: string): unknown {
  return Object.hasOwn(experiment.swept, path) ? experiment.swept[path] : undefined;
}

function kindOf(state: State, path: string): Kind {
  for (const { swept } of state.experiments.values()) if (Object.hasOwn(swept, path) && typeof swept[path] !== "number") return "text";
  return "number";
}

function column(
  id: string,
  title: string,
  hint: string,
  kind: Kind,
  group: Column["group"],
  value: Column["value"],
  more: Partial<Pick<Column, "text" | "seq" | "smaller">> = {},
): Column {
  const text = (experiment: Experiment, now: number): string => {
    const found = value(experiment, now);
    return found === null ? "" : typeof found === "number" ? number(found) : found;
  };
  return { id, title, hint, kind, group, value, text, seq: () => 0, ...more };
}

function busy(experiment: Experiment): boolean {
  return experiment.status === "RUNNING" && experiment.progress.phase !== "";
}

function phase({ progress }: Experiment): string {
  return progress.phase === "train" ? "train" : `evaluate ${progress.split}`.trim();
}

function shown(value: number | undefined): string {
  return value === undefined ? "" : shownScore(value);
}

function sortable(value: unknown): number | string | null {
  if (typeof value === "number" || typeof value === "string") return value;
  return value === undefined || value === null ? null : shownValue(value);
}

// --- which, and in which order ---

export type Test = (value: number | string | null, text: string) => boolean;

/**
 * What a filter in a column's header means: `< 0.01`, `>= 3`, `= 16`, `!= sgd`, `0.1..1`, `adam|sgd`, or a part of the
 * text; of a number its beginning. `=` alone: no value.
 */
export function test(expression: string): Test {
  const text = expression.trim();
  if (text === "") return () => true;
  const range = /^(\S+?)\s*\.\.\s*(\S+)$/.exec(text);
  if (range) {
    const [low, high] = [Number(range[1]), Number(range[2])];
    if (!Number.isNaN(low) && !Number.isNaN(high)) return (value) => typeof value === "number" && value >= low && value <= high;
  }
  const match = /^(<=|>=|!=|<|>)\s*(.*)$/s.exec(text);
  if (match) {
    const operator = match[1] as string;
    const operand = match[2] as string;
    if (operator === "!=") return (value, shown) => !same(value, shown, operand);
    if (operand === "") return () => true; // it is being typed
    const bound = Number(operand);
    const compare = COMPARE[operator] as (a: number, b: number) => boolean;
    return (value) => typeof value === "number" && compare(value, bound);
  }
  const choices = alternatives(text);
  if (choices.length) return (value, shown) => choices.some((choice) => same(value, shown, choice));
  const part = text.toLowerCase();
  return (value, shown) =>
    typeof value === "number" ? shown.toLowerCase().startsWith(part) || value === Number(part) : shown.toLowerCase().includes(part);
}

/** The values that a filter names: those of `adam|sgd` and of `= adam`. `\|` is a bar within a value. */
export function alternatives(expression: string): string[] {
  const text = expression.trim();
  if (/^[<>!]/.test(text)) return [];
  if (text[0] === "=") return [text.replace(/^==?\s*/, "")];
  const found = [""];
  let escaped = false;
  for (const [piece] of text.matchAll(/\\[\\|<>=!]|[^]/g)) {
    if (piece === "|") found.push("");
    else found[found.length - 1] += piece.slice(-1);
    if (piece === "\\|") escaped = true;
  }
  return found.length > 1 || escaped ? found.map((choice) => choice.trim()) : [];
}

/** The filter that lets these values through, and no other. */
export function anyOf(values: readonly string[]): string {
  // What stands within a value for more than itself: the bar, what escapes it, and what a comparison begins with.
  return values.length === 1 ? `= ${values[0]}`.trim() : values.map((one) => one.replace(/\\|\||^[<>=!]/g, "\\$&")).join("|");
}

const COMPARE: Record<string, (a: number, b: number) => boolean> = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
};

function same(value: number | string | null, shown: string, operand: string): boolean {
  return (typeof value === "number" && operand !== "" && value === Number(operand)) || shown.trim().toLowerCase() === operand.trim().toLowerCase();
}

export interface Choice {
  /** Words that each have to be found in the row's names, values and errors; `lr<0.01` and `status=failed` are about a column. */
  text?: string;
  /** column id -> filter */
  filters?: ReadonlyMap<string, string>;
  /** column id, with `-` before it: largest first */
  sort?: string;
}

/** The experiments that remain, in their order. What has no value comes last, whichever way is up. */
export function rows(state: State, all: readonly Column[], choice: Choice, now: number): Experiment[] {
  const byId = new Map(all.map((one) => [one.id, one]));
  const tests: [Column, Test][] = [];
  for (const [id, expression] of choice.filters ?? []) {
    const found = byId.get(id);
    if (found && expression.trim()) tests.push([found, test(expression)]);
  }
  const words: string[] = [];
  for (const word of (choice.text ?? "").match(/[^\s<>=!]+\s*(?:<=|>=|!=|=|<|>)\s*\S+|\S+/g) ?? []) {
    const match = /^([^<>=!]+?)\s*((?:<=|>=|!=|=|<|>).+)$/.exec(word);
    const found = match && all.find(({ id, title }) => title === match[1] || id === match[1]);
    if (match && found) tests.push([found, test(match[2] as string)]);
    else words.push(...word.toLowerCase().split(/\s+/));
  }
  let kept = [...state.experiments.values()].filter((experiment) =>
    tests.every(([one, passes]) => passes(one.value(experiment, now), one.text(experiment, now))),
  );
  if (words.length) {
    // Numbers that move are found by the filters of their columns: as text any digit would find all of them.
    const read = all.filter(({ group, id }) => group === "experiment" || group === "swept" || id === "device" || id === "split");
    kept = kept.filter((experiment) => {
      const line = read.map((one) => one.text(experiment, now)).join("\n").toLowerCase();
      return words.every((word) => line.includes(word));
    });
  }
  const descending = choice.sort?.startsWith("-") ?? false;
  const by = byId.get((choice.sort ?? "").replace(/^-/, "")) ?? (byId.get("id") as Column);
  const keyed = kept.map((experiment) => ({
    experiment,
    key: by.id === "status" ? (ORDER[experiment.status] ?? 9) : by.value(experiment, now),
  }));
  keyed.sort((a, b) => compare(a.key, b.key, descending) || a.experiment.experiment_id - b.experiment.experiment_id);
  return keyed.map(({ experiment }) => experiment);
}

const WORDS = new Intl.Collator("en", { numeric: true });

function compare(a: number | string | null, b: number | string | null, descending: boolean): number {
  const missing = Number(isMissing(a)) - Number(isMissing(b));
  if (missing || isMissing(a)) return missing;
  const numbers = typeof a === "number" && typeof b === "number";
  const order = numbers
    ? a === b ? 0 : a < b ? -1 : 1
    : typeof a === typeof b
      ? WORDS.compare(String(a), String(b))
      : typeof a === "number" ? -1 : 1;
  return descending ? -order : order;
}

function isMissing(value: number | string | null): boolean {
  return value === null || Number.isNaN(value);
}

// --- which columns ---

/** The columns in which these experiments differ, and those that no configuration has decided. */
export function differing(all: readonly Column[], experiments: readonly Experiment[]): Column[] {
  return all.filter((one) => one.group !== "swept" || differs(one, experiments, 0));
}

function differs({ text }: Column, experiments: readonly Experiment[], now: number): boolean {
  const [first, ...others] = experiments;
  const expected = first && text(first, now);
  return others.some((experiment) => text(experiment, now) !== expected);
}

const MOST = 8; // columns of scores, unless more are asked for

/** The columns that are shown unless told otherwise: what was swept, how far it is, and how good by the default score's split. */
export function usual(state: State, all: readonly Column[]): Column[] {
  const experiments = [...state.experiments.values()];
  const score = defaultScore(state.scoreKeys);
  const bests = all.filter(({ id }) => score && id.startsWith(`best:${score.split("/")[0]}/`));
  bests.sort((a, b) => Number(b.id === `best:${score}`) - Number(a.id === `best:${score}`));
  const ids = new Set(["id", "status", "epochs", ...bests.slice(0, MOST).map(({ id }) => id)]);
  ids.add(experiments.some(({ status }) => status === "RUNNING") ? "left" : "elapsed");
  if (experiments.some(({ status, error }) => status === "FAILED" || error)) ids.add("error");
  const alone = experiments.length < 2;
  return all.filter((one) => ids.has(one.id) || (one.group === "swept" && (alone || differs(one, experiments, 0))));
}

/** Those of `columns` in which these rows differ; number and status stay. */
export function onlyDiffering(columns: readonly Column[], experiments: readonly Experiment[], now: number): Column[] {
  return columns.filter((one) => one.id === "id" || one.id === "status" || differs(one, experiments, now));
}

/** The values of a column with how often each is there, in their order; null when there are more than a dozen. */
export function values(one: Column, experiments: Iterable<Experiment>, now: number): [text: string, count: number][] | null {
  const counts = new Map<string, number>();
  for (const experiment of experiments) {
    const text = one.text(experiment, now);
    counts.set(text, (counts.get(text) ?? 0) + 1);
    if (counts.size > 12) return null;
  }
  return [...counts].sort((a, b) => WORDS.compare(a[0], b[0]));
}

/** The best of a column of scores among these rows; null for other columns, and where no row is better than another. */
export function bestOf({ smaller, value }: Column, experiments: readonly Experiment[]): number | null {
  if (smaller === undefined) return null;
  let found: number | null = null;
  let several = false;
  for (const experiment of experiments) {
    const here = value(experiment, 0);
    if (typeof here !== "number" || !Number.isFinite(here)) continue;
    if (found !== null && here !== found) several = true;
    if (found === null || (smaller ? here < found : here > found)) found = here;
  }
  return several ? found : null;
}

/** A cell of a CSV (RFC 4180). Text that a spreadsheet would take for a formula is quoted with an apostrophe. */
export function cell(one: number | string | null): string {
  if (one === null) return "";
  const text = typeof one === "string" && /^[=+\-@\t\r]/.test(one) && !Number.isFinite(Number(one)) ? `'${one}` : `${one}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Lines of cells as CSV. */
export function csv(lines: readonly (readonly (number | string | null)[])[]): string {
  return lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

// What was swept against what came of it: an axis for each parameter that differs, one for the score, and the
// experiments' places on them. A brush on an axis is a filter of the table, and the other way round. Pure.

import { number } from "./format";
import type { Experiment, State } from "./fold";
import type { Query } from "./selection";
import { anyOf, type Column, defaultScore, test } from "./table";

/** So many values of a parameter are told apart; more are a range. */
const FEW = 24;

export interface Axis {
  column: Column;
  kind: "linear" | "log" | "category";
  /** The different values, rising; of categories 0, 1, 2, ... */
  values: number[];
  /** How each of `values` is written; empty for scores, and for numbers that are more than FEW. */
  labels: string[];
  /** Of each experiment its value, of a category its place among `labels`; NaN: it has none. */
  numbers: Float64Array;
}

export interface Sweep {
  /** All experiments; what follows is in their order. */
  experiments: Experiment[];
  /** 1: the filters let it through */
  passes: Uint8Array;
  axes: Axis[];
  score: Axis;
  /** 0, the worst, to 1, the best; NaN: without score. */
  shades: Float64Array;
  /** The scores of shades 0 and 1. What is worse than the first, far off the others, has its shade. */
  ends: [worst: number, best: number];
  clipped: boolean;
  /** Places in `experiments`, by rising score; first those without. */
  order: number[];
  /** How many have a score. */
  scored: number;
  /** Moves when a configuration came. */
  configs: number;
}

/** The score that the address chooses, or else the usual one; null when there is none. */
export function scoreOf(state: State, query: Query): string | null {
  return query.by !== undefined && state.scoreKeys.has(query.by) ? query.by : defaultScore(state.scoreKeys);
}

/** `before`: what was found before; the axes that cannot have changed are taken from it. */
export function sweepOf(
  state: State,
  all: readonly Column[],
  kept: readonly Experiment[],
  query: Query,
  before: Sweep | null = null,
): Sweep | null {
  const column = all.find(({ id }) => id === `${query.of === "last" ? "last" : "best"}:${scoreOf(state, query)}`);
  if (!column) return null;
  const experiments = [...state.experiments.values()];
  const left = new Set(kept);
  const score = axisOf(column, experiments);
  const order = experiments.map((_, i) => i);
  const { numbers } = score;
  const at = (i: number): number => numbers[i] as number;
  order.sort((a, b) => Number(at(a) === at(a)) - Number(at(b) === at(b)) || at(a) - at(b) || a - b);
  const scored = numbers.filter((one) => one === one).length;
  // Tukey's fence: one that diverged shall not make all others look alike (Exploratory Data Analysis, 1977, p. 44).
  const ranked = (rank: number): number => at(order[experiments.length - scored + rank] as number);
  const [least, most] = [ranked(0), ranked(scored - 1)];
  const [low, high] = [ranked(Math.floor((scored - 1) / 4)), ranked(Math.ceil((3 * (scored - 1)) / 4))];
  const reach = 1.5 * (high - low) || Infinity;
  const ends: [number, number] = column.smaller ? [Math.min(most, high + reach), least] : [Math.max(least, low - reach), most];
  const [worst, best] = ends.map((one) => scale(score, one)) as [number, number];
  const configs = experiments.reduce((sum, one) => sum + one.config_seq, 0);
  const still = before?.configs === configs && alike(before.experiments, experiments);
  return {
    configs,
    experiments,
    passes: Uint8Array.from(experiments, (one) => Number(left.has(one))),
    axes: still
      ? before.axes
      : all.filter(({ group }) => group === "swept").map((one) => axisOf(one, experiments)).filter(({ values }) => values.length > 1),
    score,
    shades: numbers.map((one) => (worst === best ? one - one + 1 : Math.min(1, Math.max(0, (scale(score, one) - worst) / (best - worst))))),
    ends,
    clipped: ends[0] !== (column.smaller ? most : least),
    order,
    scored,
  };
}

/** Whether nothing that is drawn differs. */
export function same(a: Sweep, b: Sweep): boolean {
  return a.axes === b.axes && a.score.column.id === b.score.column.id && alike(a.score.numbers, b.score.numbers) && alike(a.passes, b.passes);
}

function alike<T>(a: ArrayLike<T>, b: ArrayLike<T>): boolean {
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i])) return false;
  return a.length === b.length;
}

// --- axes ---

const WORDS = new Intl.Collator("en", { numeric: true });

/** Numbers where all values are, else categories. Of a score only what is finite is a value. */
export function axisOf(column: Column, experiments: readonly Experiment[]): Axis {
  const raw = experiments.map((one) => column.value(one, 0));
  if (column.group === "swept" && column.kind === "text") {
    const texts = experiments.map((one) => column.text(one, 0));
    const labels = [...new Set(texts)].sort(WORDS.compare);
    const places = new Map(labels.map((label, i) => [label, i]));
    return { column, kind: "category", values: labels.map((_, i) => i), labels, numbers: Float64Array.from(texts, (text) => places.get(text) as number) };
  }
  const numbers = Float64Array.from(raw, (one) => (typeof one === "number" && Number.isFinite(one) ? one : NaN));
  const values = [...new Set(numbers)].filter((one) => one === one).sort((a, b) => a - b);
  return { column, kind: isLog(values) ? "log" : "linear", values, labels: column.group === "swept" && values.length <= FEW ? values.map(number) : [], numbers };
}

/** Positive, and over two decades or nearer to a geometric series than to an arithmetic one. `values` rise. */
function isLog(values: readonly number[]): boolean {
  const [first = 0, last = 0] = [values[0], values.at(-1)];
  if (!(first > 0)) return false;
  const wide = last / first >= 100 * (1 - 1e-9);
  if (values.length > 12) {
    // Drawn at random: the middle one tells from what. Evenly drawn ones may well begin near 0.
    const middle = values[values.length >> 1] as number;
    return wide && middle - first < (last - first) / 4;
  }
  if (wide || values.length < 3) return wide;
  const uneven = (of: readonly number[]): number => {
    const gaps = of.slice(1).map((one, i) => one - (of[i] as number));
    return Math.max(...gaps) / Math.min(...gaps);
  };
  return uneven(values) > 1.5 * uneven(values.map(Math.log));
}

function scale({ kind }: Axis, value: number): number {
  return kind === "log" ? Math.log(value) : value;
}

function bounds(axis: Axis): [low: number, high: number] {
  const edge = axis.kind === "category" ? 0.5 : 0;
  const [first = 0, last = 0] = [axis.values[0], axis.values.at(-1)];
  return [scale(axis, first) - edge, scale(axis, last) + edge];
}

/** Where a value lies: 0 at the bottom to 1 at the top, with the first category at the top. */
export function placeOf(axis: Axis, value: number): number {
  const [low, high] = bounds(axis);
  const place = high > low ? (scale(axis, value) - low) / (high - low) : 0.5 + 0 * value;
  return axis.kind === "category" ? 1 - place : place;
}

// --- brushes ---

/** The filter that lets through what lies between two places of an axis. */
export function brush(axis: Axis, from: number, to: number): string {
  const [bottom, top] = [Math.min(from, to), Math.max(from, to)];
  const { kind, values, labels } = axis;
  if (labels.length) {
    const place = (value: number): number => placeOf(axis, value);
    const far = (value: number): number => Math.abs(place(value) - (bottom + top) / 2);
    const inside = values.filter((value) => place(value) >= bottom && place(value) <= top);
    const some = inside.length ? inside : [values.reduce((a, b) => (far(b) < far(a) ? b : a))];
    const words = some.map((value) => labels[values.indexOf(value)] as string);
    const [first, last] = [words[0] as string, words.at(-1) as string];
    return kind === "category" || words.length === 1 || words.length === values.length ? among(axis, words) : `${first}..${last}`;
  }
  const [low, high] = bounds(axis);
  const at = (place: number): number => {
    if (place <= 0) return values[0] as number;
    if (place >= 1) return values.at(-1) as number;
    const exact = low + place * (high - low);
    const value = kind === "log" ? Math.exp(exact) : exact;
    // As many digits as a pixel is worth.
    const unit = 10 ** (Math.floor(Math.log10(kind === "log" ? value : high - low || 1)) - (kind === "log" ? 2 : 3));
    return Number((Math.round(value / unit) * unit).toPrecision(12));
  };
  return `${number(at(bottom))}..${number(at(top))}`;
}

/** The filter that lets these categories through; none when they are all. */
export function among({ labels }: Axis, some: readonly string[]): string {
  return some.length === labels.length ? "" : anyOf(some);
}

/** The categories that a filter lets through. */
export function within({ labels }: Axis, expression: string): string[] {
  const passes = test(expression);
  return labels.filter((label) => passes(label, label));
}

/** The range of numbers that a filter lets through; null when it is none. */
export function rangeOf(expression: string): [low: number, high: number] | null {
  const match = /^(?:(\S+?)\s*\.\.\s*(\S+)|(<=?|>=?|==?)\s*(\S+))$/.exec(expression.trim());
  if (!match) return null;
  const operator = match[3]?.[0];
  const [low, high] = operator ? [operator === "<" ? -Infinity : match[4], operator === ">" ? Infinity : match[4]] : [match[1], match[2]];
  const found: [number, number] = [Number(low), Number(high)];
  return Number.isNaN(found[0] + found[1]) ? null : found;
}

/** The filter for what two fields say, each of which may be empty. */
export function between(low: string, high: string): string {
  if (low && high) return `${low}..${high}`;
  return low ? `>= ${low}` : high ? `<= ${high}` : "";
}

/** The stretches of an axis, as places, that a filter lets through. */
export function brushed(axis: Axis, expression: string | undefined): [bottom: number, top: number][] {
  if (!expression) return [];
  if (axis.kind === "category") {
    const half = 0.5 / axis.labels.length;
    return within(axis, expression).map((label) => {
      const place = placeOf(axis, axis.labels.indexOf(label));
      return [place - half, place + half];
    });
  }
  const range = rangeOf(expression);
  if (!range) return [];
  // The logarithm of what is not positive is the bottom.
  const place = (value: number): number => Math.min(1, Math.max(0, axis.kind === "log" && value <= 0 ? 0 : placeOf(axis, value)));
  return [[place(range[0]), place(range[1])]];
}

// --- which axes, in which order ---

const nameOf = ({ column }: Axis): string => column.id.slice(6).replaceAll("|", "!"); // without `swept:`

/** The axes as the address `ax` orders them, `a|b|-c`: c is hidden. What it does not name comes last. */
export function arranged(axes: readonly Axis[], ax = ""): { shown: Axis[]; hidden: Axis[] } {
  const names = ax.split("|");
  // 0, 1, ...; -1 becomes the last
  const place = (axis: Axis): number => (names.indexOf(nameOf(axis)) + names.length + 1) % (names.length + 1);
  const hidden = axes.filter((axis) => names.includes(`-${nameOf(axis)}`));
  const shown = axes.filter((axis) => !hidden.includes(axis)).sort((a, b) => place(a) - place(b));
  return { shown, hidden };
}

export function arrangement(shown: readonly Axis[], hidden: readonly Axis[]): string {
  return [...shown.map(nameOf), ...hidden.map((axis) => `-${nameOf(axis)}`)].join("|");
}

// --- groups ---

export interface Groups {
  axis: Axis;
  labels: string[];
  /** The filters that let through one group each. */
  filters: string[];
  /** Of each experiment its group; -1: none. */
  of: Int16Array;
}

/**
 * The experiments by their value on an axis. Where there are too many values for that (a random search), by ranges
 * with about as many experiments each.
 */
export function groupsOf(axis: Axis): Groups {
  const found = grouped.get(axis) ?? group(axis);
  grouped.set(axis, found);
  return found;
}

const grouped = new WeakMap<Axis, Groups>();

function group(axis: Axis): Groups {
  const { values, labels, numbers } = axis;
  const sorted = numbers.filter((one) => one === one).sort();
  const few = axis.kind === "category" || values.length <= 6 || !!(labels.length && 2 * values.length <= sorted.length);
  const bins = Math.min(8, Math.max(2, Math.round(Math.sqrt(sorted.length))));
  const bin = new Map<number, number>();
  if (few) values.forEach((value, i) => bin.set(value, i));
  else sorted.forEach((value, i) => bin.has(value) || bin.set(value, Math.floor((i * bins) / sorted.length)));
  const used = [...new Set(bin.values())]; // equal values may have left a range empty
  const groups: Groups = { axis, labels: [], filters: [], of: Int16Array.from(numbers, (one) => used.indexOf(bin.get(one) ?? -1)) };
  for (const which of used) {
    const members = few ? [which] : values.flatMap((value, i) => (bin.get(value) === which ? [i] : []));
    const [low, high] = [members[0], members.at(-1)].map((i) => labels[i as number] ?? number(values[i as number] as number)) as [string, string];
    const one = members.length === 1;
    groups.labels.push(one ? low : `${short(low)} – ${short(high)}`);
    groups.filters.push(one ? among(axis, [low]) : `${low}..${high}`);
  }
  return groups;
}

function short(label: string): string {
  return label.length > 5 ? number(Number(Number(label).toPrecision(2))) : label;
}

export interface Cell {
  count: number;
  /** Mean or best score; NaN without any. */
  value: number;
  shade: number;
}

/** The experiments that pass, by two parameters: rows of y, cells of x. */
export function cellsOf(sweep: Sweep, x: Groups, y: Groups, bestOnly: boolean): Cell[][] {
  const cells = y.labels.map(() => x.labels.map((): Cell => ({ count: 0, value: NaN, shade: NaN })));
  const better = sweep.score.column.smaller ? Math.min : Math.max;
  sweep.score.numbers.forEach((score, i) => {
    const cell = cells[y.of[i] as number]?.[x.of[i] as number];
    if (!cell || score !== score || !sweep.passes[i]) return;
    cell.count++;
    cell.value = cell.count === 1 ? score : bestOnly ? better(cell.value, score) : cell.value + (score - cell.value) / cell.count;
  });
  const [worst, best] = sweep.ends.map((one) => scale(sweep.score, one)) as [number, number];
  for (const cell of cells.flat()) {
    cell.shade = worst === best ? 1 : Math.min(1, Math.max(0, (scale(sweep.score, cell.value) - worst) / (best - worst)));
  }
  return cells;
}

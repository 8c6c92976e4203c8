// From columns to what a chart draws, and its order among the charts. Pure.
//
//   column ─► against epoch, step or time ─► smooth ─► (mean) ─► cut to what is zoomed into ─► thin ─► line

import { Column, thin } from "./column";
import type { State } from "./fold";
import { type Entry, mean } from "./groups";
import { smooth } from "./smooth";
import { cell, defaultScore } from "./table";

export type Axis = "epoch" | "step" | "time";

/** How all lines of a chart are made. */
export interface View {
  axis: Axis;
  /** of smoothing; 0: none */
  weight: number;
  /** Around a mean: one standard deviation instead of the extremes. */
  deviation: boolean;
  /** What is zoomed into, in units of the axis. */
  from: number;
  to: number;
}

/** Points by rising x: epochs, steps, or seconds since the experiment's first point. */
export interface Line {
  entry: Entry;
  epochs: Float64Array;
  xs: Float64Array;
  ys: Float64Array;
  /** What `ys` was smoothed from. */
  raw: Float64Array | null;
  /** The band around a mean. */
  low: Float64Array | null;
  high: Float64Array | null;
  /** null for a mean, which no event has said */
  seqs: Float64Array | null;
  /** How many points are here where this line is cut out, and how many there are; of a mean, those of a member. */
  here: number;
  of: number;
}

const MOST = 2000; // points of a line

/** A line before it is cut; `here` of how many points; `per`: how many of the server each of them stands for. */
type Points = Omit<Line, "entry" | "of"> & { per: number };

/** The line of one experiment, whole. `main`: what all of its points are counted in. */
function points(column: Column, main: Column, per: number, { axis, weight }: View, batches: number): Points {
  const of = <T extends Float64Array>(whole: T): Float64Array => whole.subarray(0, column.length);
  const [epochs, values, seqs] = [of(column.epochs), of(column.values), of(column.seqs)];
  let xs = epochs;
  if (axis === "step") xs = epochs.map((epoch) => epoch * (batches || 1));
  if (axis === "time") {
    let last = 0;
    // An epoch that was run again has a later time than the next one of the first attempt.
    xs = of(column.times).map((time) => (last = Math.max(last, (time - (column.times[0] as number)) / 1000)));
  }
  const dense = (main.of - 1) / ((epochs.at(-1) ?? 0) - (epochs[0] ?? 0) || 1);
  const apart = (i: number): number => ((epochs[i] as number) - (epochs[i - 1] as number)) * dense;
  const smoothed = weight > 0;
  const ys = smoothed ? smooth(values, weight, main.complete ? undefined : apart) : values;
  return { epochs, xs, ys, raw: smoothed ? values : null, low: null, high: null, seqs, here: column.length, per };
}

/** Only some places of every array. */
function at(points: Points, pick: (of: Float64Array) => Float64Array): Points {
  const { raw, low, high, seqs } = points;
  return {
    epochs: pick(points.epochs),
    xs: pick(points.xs),
    ys: pick(points.ys),
    raw: raw && pick(raw),
    low: low && pick(low),
    high: high && pick(high),
    seqs: seqs && pick(seqs),
    here: points.here,
    per: points.per,
  };
}

/** The first place that is not below `x`. */
export function place(xs: Float64Array, x: number): number {
  let low = 0;
  let high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((xs[middle] as number) < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The place whose x is closest; -1 when there is none. */
export function nearest(xs: Float64Array, x: number): number {
  const after = place(xs, x);
  return after === xs.length || (after > 0 && x - (xs[after - 1] as number) < (xs[after] as number) - x) ? after - 1 : after;
}

/** What lies between `from` and `to` and one point to each side, so that the line goes on to the edge; no more than can be seen. */
function cut(entry: Entry, points: Points, from: number, to: number): Line {
  const { xs } = points;
  const begin = Math.max(0, place(xs, from) - 1);
  let end = place(xs, to);
  while (end < xs.length && (xs[end] as number) <= to) end++;
  end = Math.min(xs.length, end + 1);
  let found = begin > 0 || end < xs.length ? at(points, (all) => all.subarray(begin, end)) : points;
  const length = found.xs.length;
  const here = Math.round((points.here * length) / (xs.length || 1));
  if (length > MOST) {
    const kept = thin(found.xs, found.raw ?? found.ys, length, MOST);
    found = at(found, (all) => Float64Array.from(kept, (i) => all[i] as number));
  }
  return { entry, ...found, here: Math.min(here, MOST), of: Math.round(here * points.per) };
}

/** `main` with the points of `exact` in their place, which are those of epochs `first` to `last`. */
export function spliced(main: Column, exact: Column, first: number, last: number): Column {
  const found = new Column();
  const newest = exact.epochs[exact.length - 1] ?? last;
  const add = (column: Column, wanted: (epoch: number) => boolean): void => {
    for (let i = 0; i < column.length; i++) {
      const epoch = column.epochs[i] as number;
      if (wanted(epoch)) found.put(epoch, column.values[i] as number, column.seqs[i] as number, column.times[i] as number);
    }
  };
  add(main, (epoch) => epoch < first);
  add(exact, () => true);
  add(main, (epoch) => epoch > Math.min(last, newest));
  return found;
}

/** The points of a range of epochs that a zoom has asked for. */
export interface Exact {
  first: number;
  last: number;
  columns: ReadonlyMap<number, Column>;
}

/** What is known of an experiment's line, and what it was made from. */
interface Made {
  column: Column;
  length: number;
  seq: number;
  changes: number;
  points: Points;
}
export type Memory = Map<number, Made>;

export interface Collected {
  /** null: nothing differs from what `memory` knew, nor was it to be told anyway. */
  lines: Line[] | null;
  /** How many experiments' points are on their way. */
  loading: number;
  /** Those that nobody has asked for. */
  missing: number[];
  /** Those of which the server has more points. */
  thinned: number[];
}

/**
 * The lines of a score. `memory` keeps what has not changed since the last time: it belongs to one score, one view and
 * one `exact`.
 */
export function collect(state: State, entries: readonly Entry[], key: string, view: View, memory: Memory, exact: Exact | null, anyway: boolean): Collected {
  const found: Collected = { lines: null, loading: 0, missing: [], thinned: [] };
  const ids = new Set(entries.flatMap(({ experiments }) => experiments));
  let changed = anyway;
  for (const id of ids) {
    const experiment = state.experiments.get(id);
    const score = experiment?.scores.get(key);
    const column = score?.column;
    if (!experiment || !score) continue;
    if (!column || column.pending) {
      found.loading++;
      if (!column) found.missing.push(id);
      if (memory.delete(id)) changed = true;
      continue;
    }
    if (!column.complete) found.thinned.push(id);
    const known = memory.get(id);
    const { length } = column;
    const { seq } = score.last;
    const { changes } = experiment;
    if (known && known.column === column && known.length === length && known.seq === seq && known.changes === changes) continue;
    changed = true;
    const finer = exact?.columns.get(id);
    const drawn = finer && exact ? spliced(column, finer, exact.first, exact.last) : column;
    const per = finer ? finer.of / (finer.length || 1) : column.of / length;
    memory.set(id, { column, length, seq, changes, points: points(drawn, column, per, view, experiment.train_batches) });
  }
  for (const id of memory.keys()) {
    if (ids.has(id) && state.experiments.get(id)?.scores.has(key)) continue;
    memory.delete(id);
    changed = true;
  }
  if (!changed) return found;
  found.lines = entries.flatMap((entry) => {
    const members = entry.experiments.flatMap((id) => memory.get(id)?.points ?? []);
    const first = members[0];
    return first ? [cut(entry, entry.mean ? averaged(members, view) : first, view.from, view.to)] : [];
  });
  return found;
}

function averaged(members: readonly Points[], { weight, deviation }: View): Points {
  const raw = weight > 0 ? mean(members.map(({ epochs, xs, raw }) => ({ epochs, xs, ys: raw as Float64Array })), false).ys : null;
  const longest = members.reduce((best, one) => (one.here * one.per > best.here * best.per ? one : best));
  return { ...mean(members, deviation), raw, seqs: null, here: longest.here, per: longest.per };
}

/** Values beyond are as good as infinite, and those closer to 0 as good as 0 on a logarithmic axis. */
const HUGE = 1e280;
const TINY = 1e-280;

/** Where a value stands on its axis; NaN when it has no place there. */
export const height = (value: number, log: boolean): number =>
  !(Math.abs(value) < HUGE) || (log && value < TINY) ? NaN : log ? Math.log10(value) : value;

/** What is to be seen: the smallest and largest x and y of all lines, with room around the ys. */
export interface Box {
  x: [number, number];
  y: [number, number];
}

export function box(lines: readonly Line[], view: View, log: boolean): Box {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  const look = (xs: Float64Array, ys: Float64Array | null, everywhere: boolean): void => {
    for (let i = 0; ys && i < ys.length; i++) {
      const [x, y] = [xs[i] as number, ys[i] as number];
      if (!everywhere && (x < view.from || x > view.to)) continue;
      if (Number.isNaN(height(y, log))) continue;
      if (y < low) low = y;
      if (y > high) high = y;
    }
  };
  for (const everywhere of [false, true]) {
    for (const { xs, ys, raw, low: under, high: over } of lines) {
      if (xs.length) {
        left = Math.min(left, xs[0] as number);
        right = Math.max(right, xs.at(-1) as number);
      }
      for (const some of [ys, raw, under, over]) look(xs, some, everywhere);
    }
    if (low <= high) break; // a zoom to between two points still shows the line that leads from one to the other
  }
  if (view.from > -Infinity) [left, right] = [view.from, view.to];
  if (!(left <= right)) [left, right] = [0, 1];
  if (left === right) right = left + 1;
  if (!(low <= high)) [low, high] = [log ? 0.1 : 0, 1];
  if (log) {
    const decades = Math.log10(high) - Math.log10(low);
    const room = decades > 1e-9 ? 10 ** (0.04 * decades) : 2;
    return { x: [left, right], y: [low / room, high * room] };
  }
  // Marks of the axis have to differ as numbers do.
  const size = Math.max(Math.abs(low), Math.abs(high));
  const room = high - low > size * 1e-9 ? (high - low) * 0.04 : size * 0.1 || 1;
  return { x: [left, right], y: [low - room, high + room] };
}

/** Where the marks of a logarithmic axis stand: at powers of ten and some between them, or evenly within less than a decade. */
export function logTicks(low: number, high: number, most: number): number[] {
  const decades = Math.log10(high / low);
  const found: number[] = [];
  if (decades < 1.2) {
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = ([1, 2, 5, 10].find((one) => one * power >= rough) as number) * power;
    const first = Math.ceil(low / step);
    for (let i = 0; (first + i) * step <= high && i <= 2 * most; i++) found.push(Number(((first + i) * step).toPrecision(12)));
    return found;
  }
  const every = Math.max(1, Math.ceil(decades / most));
  const between = decades * 3 <= most ? [1, 2, 5] : [1];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    if (power % every) continue;
    for (const one of between) {
      const tick = Number(`${one}e${power}`);
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found;
}

const SPLITS = ["val", "validation", "valid", "dev", "train", "test"];

/**
 * Scores in the order of their charts: pinned ones, the one that experiments are judged by with the same of other
 * splits, metrics, losses; of one metric the validation split before training and test.
 */
export function order(keys: ReadonlyMap<string, boolean>, pinned: ReadonlySet<string>): string[] {
  const tag = (key: string): string => key.slice(key.indexOf("/") + 1);
  const first = defaultScore(keys);
  const tags = [...new Set([...keys.keys()].map(tag))];
  const rank = (key: string): number[] => {
    const split = SPLITS.indexOf(key.split("/")[0] as string);
    return [
      pinned.has(key) ? 0 : 1,
      key === first ? 0 : 1,
      first !== null && tag(key) === tag(first) && keys.get(key) === keys.get(first) ? 0 : 1,
      keys.get(key) ? 1 : 0,
      tags.indexOf(tag(key)),
      split < 0 ? SPLITS.length : split,
    ];
  };
  const ranked = [...keys.keys()].map((key) => ({ key, rank: rank(key) }));
  ranked.sort((a, b) => a.rank.map((one, i) => one - (b.rank[i] as number)).find(Boolean) ?? 0);
  return ranked.map(({ key }) => key);
}

/** Names as one value of the address, and back. */
export const pack = (names: Iterable<string>): string => [...names].map((name) => name.replace(/[%,]/g, encodeURIComponent)).join(",");
export const unpack = (text: string | undefined): string[] =>
  (text ?? "").split(",").filter(Boolean).map((name) => name.replace(/%(25|2C)/g, decodeURIComponent));

/** Every point that is here, also those that a zoom has brought, as comma-separated values (RFC 4180). */
export function csv(state: State, entries: readonly Entry[], key: string, exact: Exact | null = null): string {
  const lines = ["experiment,label,epoch,time,value"];
  const done = new Set<number>();
  for (const { experiments, label } of entries) {
    for (const id of experiments) {
      const main = state.experiments.get(id)?.scores.get(key)?.column;
      if (!main || done.has(id)) continue;
      done.add(id);
      const finer = exact?.columns.get(id);
      const column = finer && exact ? spliced(main, finer, exact.first, exact.last) : main;
      for (let i = 0; i < column.length; i++) {
        const time = new Date(column.times[i] as number);
        lines.push(`${id},${cell(label)},${column.epochs[i]},${time.getTime() ? time.toISOString() : ""},${column.values[i]}`);
      }
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}

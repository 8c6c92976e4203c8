// What is written along an axis of the parallel coordinates.

import { number } from "../state/format";
import { type Axis, placeOf } from "../state/sweep";

export interface Tick {
  /** 0 to 1 */
  place: number;
  label: string;
}

/** Each value where they are few, otherwise round numbers and both ends; at most one every so many places. */
export function ticks(axis: Axis, apart: number): Tick[] {
  const { values, labels, kind } = axis;
  const all = (some: readonly number[], words: readonly string[]): Tick[] =>
    some.map((value, i) => ({ place: placeOf(axis, value), label: words[i] || "none" }));
  const few = all(values, labels);
  if (kind === "category") return few.filter((_, i) => i % Math.ceil(apart * labels.length) === 0);
  if (labels.length && few.every(({ place }, i) => i === 0 || place - (few[i - 1] as Tick).place > 0.7 * apart)) return few;
  const [low, high] = [values[0] as number, values.at(-1) as number];
  const round = low === high ? [low] : kind === "log" ? decades(low, high) : steps(low, high, 2 * apart);
  return all(round, round.map(number));
}

/** Multiples of 1, 2 or 5 times a power of ten. `share` of the axis is the least between two. */
function steps(low: number, high: number, share: number): number[] {
  const rough = (high - low) * share;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((one) => one * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function decades(low: number, high: number): number[] {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const every = Math.ceil((last - first + 1) / 8);
  return Array.from({ length: Math.floor((last - first) / every) + 1 }, (_, i) => Number(`1e${first + i * every}`));
}

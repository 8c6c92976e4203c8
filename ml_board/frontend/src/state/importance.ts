// How much of a score each parameter explains by itself. Pure.
//
// The share is omega squared of the groups of its values (Hays, Statistics for Psychologists, 1963, ch. 12):
//
//   (SS_between - (k - 1) MS_within) / (SS_total + MS_within)      MS_within = SS_within / (N - k)
//
// eta squared, SS_between / SS_total, less what k groups of N experiments would explain by chance; below 0 it is 0.
// The direction is Spearman's rank correlation, equal ranks shared (Pearson's of the ranks).

import { type Axis, groupsOf, type Sweep } from "./sweep";

export interface Importance {
  axis: Axis;
  /** 0 to 1; null: it cannot be told, as no value occurs twice or all scores are the same. */
  share: number | null;
  /** -1 to 1; null for categories. */
  direction: number | null;
  /** The value with the best mean score, and how many experiments that is the mean of. */
  best: { label: string; filter: string; mean: number; count: number } | null;
}

/** The parameters, the most important first; of all experiments with a score, or of those that pass the filters. */
export function importances(sweep: Sweep, filtered: boolean): Importance[] {
  const numbers = filtered ? sweep.score.numbers.map((one, i) => (sweep.passes[i] ? one : NaN)) : sweep.score.numbers;
  const sign = sweep.score.column.smaller ? -1 : 1;
  const found = sweep.axes.map((axis): Importance => {
    const { of, labels, filters } = groupsOf(axis);
    const groups = sums(of, numbers);
    let best: Importance["best"] = null;
    for (const [group, { count, sum }] of groups) {
      const mean = sum / count;
      if (!best || sign * mean > sign * best.mean) best = { label: labels[group] as string, filter: filters[group] as string, mean, count };
    }
    return { axis, share: explained(of, numbers), direction: axis.kind === "category" ? null : spearman(axis.numbers, numbers), best };
  });
  const weight = ({ share, direction }: Importance): number => (share ?? -1) + 1e-6 * Math.abs(direction ?? 0);
  return found.sort((a, b) => weight(b) - weight(a));
}

type Numbers = ArrayLike<number>;

function sums(groups: Numbers, scores: Numbers): Map<number, { count: number; sum: number }> {
  const found = new Map<number, { count: number; sum: number }>();
  for (let i = 0; i < scores.length; i++) {
    const [group, score] = [groups[i] as number, scores[i] as number];
    if (group < 0 || !Number.isFinite(score)) continue;
    const one = found.get(group) ?? { count: 0, sum: 0 };
    one.count++;
    one.sum += score;
    found.set(group, one);
  }
  return found;
}

/** Sums of squares: in all, between the groups; and how many experiments and groups there are. */
function squares(groups: Numbers, scores: Numbers): { total: number; between: number; count: number; k: number } {
  const found = sums(groups, scores);
  let [count, sum, total, between] = [0, 0, 0, 0];
  for (const one of found.values()) [count, sum] = [count + one.count, sum + one.sum];
  const mean = sum / count;
  for (const one of found.values()) between += one.count * (one.sum / one.count - mean) ** 2;
  for (let i = 0; i < scores.length; i++) {
    if ((groups[i] as number) >= 0 && Number.isFinite(scores[i])) total += ((scores[i] as number) - mean) ** 2;
  }
  // What rounding has left of equal scores is no variance.
  return { total: total > count * (1e-12 * mean) ** 2 ? total : 0, between: Math.min(between, total), count, k: found.size };
}

/** The share of the variance of `scores` that `groups` explain, adjusted for chance: omega squared, at least 0. */
export function explained(groups: Numbers, scores: Numbers): number | null {
  const { total, between, count, k } = squares(groups, scores);
  if (k < 2 || count <= k || total === 0) return null;
  const error = (total - between) / (count - k);
  return Math.max(0, (between - (k - 1) * error) / (total + error));
}

/** Spearman's rank correlation of what has both; null when one of them does not differ. */
export function spearman(a: Numbers, b: Numbers): number | null {
  const both = Array.from({ length: a.length }, (_, i) => i).filter((i) => Number.isFinite(a[i]) && Number.isFinite(b[i]));
  const [x, y] = [ranks(both.map((i) => a[i] as number)), ranks(both.map((i) => b[i] as number))];
  const mean = (both.length - 1) / 2;
  let [xy, xx, yy] = [0, 0, 0];
  x.forEach((rank, i) => {
    const [dx, dy] = [rank - mean, (y[i] as number) - mean];
    [xy, xx, yy] = [xy + dx * dy, xx + dx * dx, yy + dy * dy];
  });
  return xx && yy ? xy / Math.sqrt(xx * yy) : null;
}

/** The place of each value among all, from 0; equal ones share the mean of theirs. */
function ranks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((a, b) => (values[a] as number) - (values[b] as number));
  const found: number[] = [];
  for (let i = 0; i < order.length; ) {
    let j = i;
    while (j + 1 < order.length && values[order[j + 1] as number] === values[order[i] as number]) j++;
    for (let k = i; k <= j; k++) found[order[k] as number] = (i + j) / 2;
    i = j + 1;
  }
  return found;
}

/**
 * What two parameters explain together, beyond what each does by itself: omega squared of their interaction. null
 * unless every pair of values has equally many scores, and more than one: only then do the squares add up.
 */
export function interaction(a: Numbers, b: Numbers, scores: Numbers): number | null {
  const cells = Float64Array.from(scores, (_, i) => ((a[i] as number) < 0 || (b[i] as number) < 0 ? -1 : (a[i] as number) * 2 ** 15 + (b[i] as number)));
  const counts = new Set([...sums(cells, scores).values()].map(({ count }) => count));
  if (counts.size !== 1 || counts.has(1)) return null;
  const [one, other, both] = [squares(a, scores), squares(b, scores), squares(cells, scores)];
  if (both.k !== one.k * other.k || one.count !== both.count || other.count !== both.count || one.k < 2 || other.k < 2 || both.total === 0) return null;
  const error = (both.total - both.between) / (both.count - both.k);
  const more = both.between - one.between - other.between - (one.k - 1) * (other.k - 1) * error;
  return Math.max(0, more / (both.total + error));
}

/** The pair that explains most together; null where the experiments are no full grid. */
export function strongest(sweep: Sweep): { pair: [Axis, Axis]; share: number } | null {
  const scores = sweep.score.numbers.map((one, i) => (sweep.passes[i] ? one : NaN));
  const groups = sweep.axes.slice(0, 10).map(groupsOf);
  let found: { pair: [Axis, Axis]; share: number } | null = null;
  groups.forEach((a, i) => {
    for (const b of groups.slice(i + 1)) {
      const share = interaction(a.of, b.of, scores);
      if (share !== null && (!found || share > found.share)) found = { pair: [a.axis, b.axis], share };
    }
  });
  return found;
}

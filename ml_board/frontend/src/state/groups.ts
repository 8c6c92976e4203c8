// Which lines a chart has: one for each experiment, or one for all experiments that differ only in seed or fold. Pure.

import { shortNames, value as shown } from "./format";
import type { Experiment } from "./fold";

/** One line of every chart. */
export interface Entry {
  /** Of its experiment; of a mean, its first experiment with `m` before it. */
  id: string;
  experiments: readonly number[];
  /** In what it differs from the others: `lr 0.01, batch_size 16`. */
  label: string;
  mean: boolean;
  /** A member of a mean, drawn behind it. */
  faint: boolean;
}

const LONGEST = 60; // characters of a label's value; whole sub-trees of a configuration can be swept

const text = (experiment: Experiment, path: string): string =>
  Object.hasOwn(experiment.swept, path) ? JSON.stringify(experiment.swept[path]) : "";

/** The swept paths in which these experiments differ. */
export function differing(experiments: readonly Experiment[]): string[] {
  const paths = new Set(experiments.flatMap(({ swept }) => Object.keys(swept)));
  return [...paths].filter((path) => experiments.some((one) => text(one, path) !== text(experiments[0] as Experiment, path)));
}

/** Experiments that agree in all of `paths`. */
function together(experiments: readonly Experiment[], paths: readonly string[]): Experiment[][] {
  const found = new Map<string, Experiment[]>();
  for (const experiment of experiments) {
    const key = JSON.stringify(paths.map((path) => text(experiment, path)));
    const group = found.get(key);
    if (group) group.push(experiment);
    else found.set(key, [experiment]);
  }
  return [...found.values()];
}

/**
 * What the mean is taken over unless told otherwise: seeds, folds and repeats, when some experiments differ in nothing
 * else. When all do, they are what is compared, and stay single.
 */
export function repeats(experiments: readonly Experiment[], paths = differing(experiments)): string[] {
  const found = paths.filter((path) => /seed|fold|repeat/i.test(path.slice(path.lastIndexOf(".") + 1)));
  const others = paths.filter((path) => !found.includes(path));
  const lines = together(experiments, others).length;
  return lines > 1 && lines < experiments.length ? found : [];
}

/** The lines of these experiments, with the mean taken over the paths `over`; `singly`: with its members behind it. */
export function entries(experiments: readonly Experiment[], over: readonly string[], singly = false): Entry[] {
  const paths = differing(experiments);
  const names = shortNames(paths);
  const others = over.length ? paths.filter((path) => !over.includes(path)) : paths;
  const groups = over.length ? together(experiments, others) : experiments.map((one) => [one]);
  const said = (experiment: Experiment, which: readonly string[]): string =>
    which
      .filter((path) => Object.hasOwn(experiment.swept, path))
      .map((path) => {
        const value = shown(experiment.swept[path]);
        return `${names.get(path)} ${value.length > LONGEST ? `${value.slice(0, LONGEST - 1)}…` : value}`;
      })
      .join(", ");
  const found: Entry[] = [];
  for (const group of groups) {
    const mean = group.length > 1;
    const single = (one: Experiment): Entry => ({
      id: `${one.experiment_id}`,
      experiments: [one.experiment_id],
      label: said(one, paths),
      mean: false,
      faint: mean,
    });
    if (!mean || singly) found.push(...group.map(single));
    if (!mean) continue;
    const ids = group.map(({ experiment_id }) => experiment_id);
    const label = [said(group[0] as Experiment, others), `mean of ${group.length}`].filter(Boolean).join(", ");
    found.push({ id: `m${ids[0]}`, experiments: ids, label, mean, faint: false });
  }
  const count = new Map<string, number>();
  for (const { label } of found) count.set(label, (count.get(label) ?? 0) + 1);
  for (const entry of found) {
    const own = `#${entry.experiments[0]}`;
    if (!entry.label) entry.label = own;
    else if ((count.get(entry.label) as number) > 1) entry.label += ` ${own}`;
  }
  return found;
}

/** What a mean is taken of: points by rising epoch. */
export interface Member {
  epochs: Float64Array;
  xs: Float64Array;
  ys: Float64Array;
}

export interface Mean extends Member {
  low: Float64Array;
  high: Float64Array;
}

/**
 * The mean at every epoch that a member has, and what surrounds it: the smallest and the largest value, or with
 * `deviation` one standard deviation (of a sample) to each side. A member that has no point of an epoch, but earlier and
 * later ones, counts with the value between them; before its first and after its last point it does not count.
 */
export function mean(members: readonly Member[], deviation: boolean): Mean {
  const epochs = Float64Array.from(new Set(members.flatMap(({ epochs }) => [...epochs]))).sort();
  const found = (): Float64Array => new Float64Array(epochs.length);
  const [xs, ys, low, high] = [found(), found(), found(), found()];
  const places = members.map(() => 0);
  for (let i = 0; i < epochs.length; i++) {
    const epoch = epochs[i] as number;
    let [here, count, x, middle, squares, smallest, largest] = [0, 0, 0, 0, 0, Infinity, -Infinity];
    for (let m = 0; m < members.length; m++) {
      const member = members[m] as Member;
      const length = member.epochs.length;
      let at = places[m] as number;
      while (at < length && (member.epochs[at] as number) < epoch) at++;
      places[m] = at;
      if (at === length) continue;
      const after = member.epochs[at] as number;
      if (at === 0 && after > epoch) continue;
      const before = after === epoch ? epoch : (member.epochs[at - 1] as number);
      const share = after === epoch ? 1 : (epoch - before) / (after - before);
      const between = (of: Float64Array): number =>
        share === 1 ? (of[at] as number) : share * (of[at] as number) + (1 - share) * (of[at - 1] as number);
      x += between(member.xs);
      here++;
      const y = between(member.ys);
      if (!Number.isFinite(y)) continue;
      count++;
      // Welford's way, because the values can be large and close to one another.
      const off = y - middle;
      middle += off / count;
      squares += off * (y - middle);
      smallest = Math.min(smallest, y);
      largest = Math.max(largest, y);
    }
    // Members end at different times, but a line does not go back.
    xs[i] = Math.max(x / here, i ? (xs[i - 1] as number) : -Infinity);
    const around = count > 1 ? Math.sqrt(squares / (count - 1)) : 0;
    ys[i] = count ? middle : NaN;
    low[i] = count ? (deviation ? middle - around : smallest) : NaN;
    high[i] = count ? (deviation ? middle + around : largest) : NaN;
  }
  return { epochs, xs, ys, low, high };
}

// One score of one experiment over the epochs: columns of numbers that grow, by rising epoch.

export class Column {
  length = 0;
  /** How many points there are on the server; fewer are here when they were thinned. */
  of = 0;
  epochs = new Float64Array(16);
  values = new Float64Array(16);
  seqs = new Float64Array(16);
  times = new Float64Array(16);

  /** One that is to be filled: it has only what has come since it was asked for. */
  static pending(): Column {
    const column = new Column();
    column.of = Infinity;
    return column;
  }

  copy(): Column {
    const column = new Column();
    column.length = this.length;
    column.of = this.of;
    column.epochs = this.epochs.slice(0, this.length);
    column.values = this.values.slice(0, this.length);
    column.seqs = this.seqs.slice(0, this.length);
    column.times = this.times.slice(0, this.length);
    return column;
  }

  get pending(): boolean {
    return this.of === Infinity;
  }

  /** Whether every point is here. */
  get complete(): boolean {
    return this.of === this.length;
  }

  /** The place of an epoch, or -1 - the place where it would stand. */
  find(epoch: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.epochs[middle] as number) < epoch) low = middle + 1;
      else high = middle;
    }
    return low < this.length && this.epochs[low] === epoch ? low : -1 - low;
  }

  /** Set the point of an epoch. */
  put(epoch: number, value: number, seq: number, time: number): void {
    let at = this.length;
    if (at > 0 && epoch <= (this.epochs[at - 1] as number)) {
      const found = this.find(epoch);
      if (found >= 0) {
        this.set(found, epoch, value, seq, time);
        return;
      }
      at = -1 - found;
    }
    this.reserve(this.length + 1);
    if (at < this.length) {
      for (const column of [this.epochs, this.values, this.seqs, this.times]) column.copyWithin(at + 1, at, this.length);
    }
    this.set(at, epoch, value, seq, time);
    this.length++;
    this.of++;
  }

  private set(at: number, epoch: number, value: number, seq: number, time: number): void {
    this.epochs[at] = epoch;
    this.values[at] = value;
    this.seqs[at] = seq;
    this.times[at] = time;
  }

  private reserve(length: number): void {
    if (length <= this.epochs.length) return;
    const size = Math.max(length, 16, 2 * this.epochs.length);
    const grown = (old: Float64Array): Float64Array<ArrayBuffer> => {
      const found = new Float64Array(size);
      found.set(old);
      return found;
    };
    this.epochs = grown(this.epochs);
    this.values = grown(this.values);
    this.seqs = grown(this.seqs);
    this.times = grown(this.times);
  }
}

/** A value among others, and where it stands. */
export interface Extreme {
  epoch: number;
  value: number;
  seq: number;
}

/** The smallest (`sign` 1) or largest (-1) finite value, the earliest of equals. */
export function extreme(column: Column, sign: 1 | -1): Extreme | null {
  let best = -1;
  for (let i = 0; i < column.length; i++) {
    const value = column.values[i] as number;
    if (Number.isFinite(value) && (best < 0 || sign * value < sign * (column.values[best] as number))) best = i;
  }
  return best < 0
    ? null
    : { epoch: column.epochs[best] as number, value: column.values[best] as number, seq: column.seqs[best] as number };
}

/**
 * Places to keep of points in rising order of `xs`: of each of so many stretches the smallest, the largest and the last
 * value, so that a spike never disappears. The same rule as ml_board/series.py.
 */
export function thin(xs: ArrayLike<number>, values: ArrayLike<number>, length: number, limit: number): number[] {
  if (length <= limit) return Array.from({ length }, (_, i) => i);
  const buckets = Math.max(1, Math.floor((limit - 2) / 3));
  const kept = new Set<number>([0, length - 1]);
  for (let bucket = 0; bucket < buckets; bucket++) {
    const start = Math.floor((bucket * length) / buckets);
    const end = Math.floor(((bucket + 1) * length) / buckets);
    let low = -1;
    let high = -1;
    for (let i = start; i < end; i++) {
      const value = values[i] as number;
      if (Number.isNaN(value)) continue;
      if (low < 0 || value < (values[low] as number)) low = i;
      if (high < 0 || value > (values[high] as number)) high = i;
    }
    kept.add(end - 1);
    if (low >= 0) kept.add(low).add(high);
  }
  return [...kept].sort((a, b) => (xs[a] as number) - (xs[b] as number) || a - b);
}

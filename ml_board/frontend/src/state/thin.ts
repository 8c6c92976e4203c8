// Which points of a series are shown when there are more than pixels: as ml_board/series.py does. Pure.

/** The places of up to `limit` of `values`, rising: the smallest, largest and last of each stretch, the first and the last. */
export function thin(values: Float64Array, limit: number): number[] {
  const count = values.length;
  if (count <= limit) return Array.from(values, (_, i) => i);
  const stretches = Math.floor((limit - 2) / 3);
  const found = new Set([0, count - 1]);
  let start = 0;
  for (let number = 1; number <= stretches; number++) {
    const end = Math.floor((count * number) / stretches);
    let [smallest, largest, last] = [-1, -1, -1];
    for (let i = start; i < end; i++) {
      const value = values[i] as number;
      if (Number.isNaN(value)) continue;
      if (smallest < 0 || value < (values[smallest] as number)) smallest = i;
      if (largest < 0 || value > (values[largest] as number)) largest = i;
      last = i;
    }
    for (const at of last < 0 ? [start] : [smallest, largest, last]) found.add(at);
    start = end;
  }
  return [...found].sort((a, b) => a - b);
}

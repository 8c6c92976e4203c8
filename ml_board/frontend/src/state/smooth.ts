// Smoothing of a line: the exponential moving average, corrected for its start, as TensorBoard draws it. Pure.

/**
 * The average up to each value, with `weight` (0 to 1) for what came before. What is not finite stays as it is and
 * counts for nothing.
 *
 * `distances(i)`: how many points lie between value i - 1 and value i on the server, that one included, where only some
 * are here; without it each is the next one.
 */
export function smooth(values: Float64Array, weight: number, distance: (i: number) => number = () => 1): Float64Array {
  const found = new Float64Array(values.length);
  let sum = 0;
  let mass = 0; // of the weights in `sum`: 1 - weight^n after n points
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (!Number.isFinite(value)) {
      found[i] = value;
      continue;
    }
    const kept = i ? weight ** distance(i) : weight;
    sum = kept * sum + (1 - kept) * value;
    mass = kept * mass + 1 - kept;
    found[i] = mass ? sum / mass : value;
  }
  return found;
}

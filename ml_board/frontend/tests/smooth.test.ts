import { describe, expect, it } from "vitest";
import { smooth } from "../src/state/smooth";

/** As TensorBoard's line chart does it (resampleOutput), written down independently. */
function tensorboard(values: number[], weight: number): number[] {
  let last = 0;
  let count = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    last = last * weight + (1 - weight) * value;
    count++;
    return last / (1 - weight ** count);
  });
}

const close = (found: Float64Array, expected: number[]): void => {
  expect(found.length).toBe(expected.length);
  expected.forEach((value, i) => {
    if (Number.isFinite(value)) expect(found[i]).toBeCloseTo(value, 10);
    else expect(found[i]).toBe(value);
  });
};

describe("smoothing", () => {
  const values = Array.from({ length: 200 }, (_, i) => Math.sin(i) + i / 50);

  it.each([0, 0.3, 0.6, 0.99])("is TensorBoard's at %d", (weight) => {
    close(smooth(Float64Array.from(values), weight), tensorboard(values, weight));
  });

  it("keeps what is not finite as it is, and counts it for nothing", () => {
    const some = [NaN, 1, Infinity, 2, NaN, -Infinity, 3];
    close(smooth(Float64Array.from(some), 0.9), tensorboard(some, 0.9));
    close(smooth(Float64Array.from([NaN, NaN]), 0.9), [NaN, NaN]);
  });

  it("begins at the first value and leaves a constant alone", () => {
    expect(smooth(Float64Array.from([5, 9]), 0.9)[0]).toBeCloseTo(5, 12);
    for (const value of smooth(new Float64Array(500).fill(0.1), 0.97)) expect(value).toBeCloseTo(0.1, 12);
    expect(smooth(new Float64Array(0), 0.5).length).toBe(0);
  });

  it("weighs by distance where only some points are here", () => {
    // A line that stays where it is between the points that are here is smoothed to the same places.
    const whole = Float64Array.from({ length: 101 }, (_, i) => (i === 0 ? 0 : 1));
    const all = smooth(whole, 0.95);
    const kept = [0, 10, 20, 50, 100];
    const some = smooth(Float64Array.from(kept, (i) => whole[i] as number), 0.95, (i) => (kept[i] as number) - (kept[i - 1] as number));
    kept.forEach((place, i) => expect(some[i]).toBeCloseTo(all[place] as number, 10));
  });
});

import { describe, expect, it } from "vitest";
import { State, type Experiment } from "../src/state/fold";
import { differing, entries, mean, repeats } from "../src/state/groups";

function some(...swept: Record<string, unknown>[]): Experiment[] {
  const state = new State();
  return swept.map((values, id) => Object.assign(state.experiment(id), { swept: values }));
}

const product = (lrs: unknown[], seeds: unknown[]): Experiment[] =>
  some(...lrs.flatMap((lr) => seeds.map((seed) => ({ "optimizer.lr": lr, "model.seed": seed, "model.depth": 3 }))));

describe("swept values in which experiments differ", () => {
  it("are told from those that are the same, missing ones too", () => {
    expect(differing(product([1, 2], [0, 1]))).toEqual(["optimizer.lr", "model.seed"]);
    expect(differing(product([1], [0]))).toEqual([]);
    expect(differing([])).toEqual([]);
    expect(differing(some({ a: 1 }, { b: 1 }))).toEqual(["a", "b"]);
    expect(differing(some({ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] }))).toEqual([]);
    expect(differing(some({ a: 1 }, { a: "1" }))).toEqual(["a"]);
    expect(differing(some({ a: null }, {}))).toEqual(["a"]);
  });
});

describe("what a mean is taken over by default", () => {
  it("are seeds, folds and repeats that leave experiments alike", () => {
    expect(repeats(product([1, 2], [0, 1]))).toEqual(["model.seed"]);
    const folds = some({ "cv.outer_fold": 0, "cv.Repeat": 0, a: 1 }, { "cv.outer_fold": 1, "cv.Repeat": 1, a: 1 }, { "cv.outer_fold": 0, "cv.Repeat": 0, a: 2 });
    expect(repeats(folds)).toEqual(["cv.outer_fold", "cv.Repeat"]);
  });

  it("is nothing when each has another seed and other values, or the word stands elsewhere", () => {
    expect(repeats(some({ lr: 1, seed: 1 }, { lr: 2, seed: 2 }))).toEqual([]);
    expect(repeats(some({ "seed.lr": 1 }, { "seed.lr": 2 }))).toEqual([]);
    expect(repeats(product([1], [0, 1, 2]))).toEqual([]); // one configuration: its seeds are compared
    expect(repeats([])).toEqual([]);
  });
});

describe("lines of a chart", () => {
  it("are one for each experiment, named by what differs", () => {
    expect(entries(product([0.01, 1e-5], [0, 1]), []).map(({ id, label }) => [id, label])).toEqual([
      ["0", "lr 0.01, seed 0"],
      ["1", "lr 0.01, seed 1"],
      ["2", "lr 1e-5, seed 0"],
      ["3", "lr 1e-5, seed 1"],
    ]);
    expect(entries(some({ lr: 1 }), []).map(({ label }) => label)).toEqual(["#0"]);
    expect(entries(some({ lr: 1 }, { lr: 1 }, { lr: 2 }, { lr: 2 }), []).map(({ label }) => label)).toEqual(["lr 1 #0", "lr 1 #1", "lr 2 #2", "lr 2 #3"]);
  });

  it("are means of those that agree in everything else", () => {
    const found = entries(product([1, 2], [0, 1, 2]), ["model.seed"]);
    expect(found.map(({ id, experiments, label, mean }) => [id, experiments, label, mean])).toEqual([
      ["m0", [0, 1, 2], "lr 1, mean of 3", true],
      ["m3", [3, 4, 5], "lr 2, mean of 3", true],
    ]);
    expect(entries(product([1], [0, 1]), ["model.seed"]).map(({ label }) => label)).toEqual(["mean of 2"]);
  });

  it("stay single where there is nothing to take a mean of, and show members on demand", () => {
    const lone = some({ lr: 1, seed: 0 }, { lr: 1, seed: 1 }, { lr: 2, seed: 0 });
    expect(entries(lone, ["seed"]).map(({ id, label, faint }) => [id, label, faint])).toEqual([
      ["m0", "lr 1, mean of 2", false],
      ["2", "lr 2, seed 0", false],
    ]);
    expect(entries(lone, ["seed"], true).map(({ id, faint }) => [id, faint])).toEqual([["0", true], ["1", true], ["m0", false], ["2", false]]);
  });

  it("have bounded names", () => {
    const [first] = entries(some({ a: "x".repeat(1000) }, { a: "<img src=x onerror=alert(1)>" }), []);
    expect(first?.label.length).toBeLessThan(70);
  });
});

describe("a mean", () => {
  const member = (points: [number, number][]): { epochs: Float64Array; xs: Float64Array; ys: Float64Array } => ({
    epochs: Float64Array.from(points, ([epoch]) => epoch),
    xs: Float64Array.from(points, ([epoch]) => 10 * epoch),
    ys: Float64Array.from(points, ([, value]) => value),
  });

  it("has the extremes around it, or one standard deviation of a sample", () => {
    const members = [member([[0, 1], [1, 2]]), member([[0, 3], [1, 4]]), member([[0, 8], [1, 9]])];
    const found = mean(members, false);
    expect([...found.ys]).toEqual([4, 5]);
    expect([...found.low]).toEqual([1, 2]);
    expect([...found.high]).toEqual([8, 9]);
    expect([...found.xs]).toEqual([0, 10]);
    const deviation = Math.sqrt((9 + 1 + 16) / 2);
    expect(mean(members, true).low[0]).toBeCloseTo(4 - deviation, 12);
    expect(mean(members, true).high[1]).toBeCloseTo(5 + deviation, 12);
  });

  it("is of those that have begun and not ended, with values between their points", () => {
    const found = mean([member([[0, 0], [4, 4]]), member([[1, 11], [2, 12]])], false);
    expect([...found.epochs]).toEqual([0, 1, 2, 4]);
    expect([...found.ys]).toEqual([0, 6, 7, 4]);
  });

  it("leaves out what is not finite, and is NaN where nothing is", () => {
    const found = mean([member([[0, NaN], [1, 1], [2, Infinity]]), member([[0, 2], [1, 3], [2, -Infinity]])], true);
    expect([...found.ys]).toEqual([2, 2, NaN]);
    expect([found.low[0], found.high[0]]).toEqual([2, 2]);
    expect(found.low[2]).toBeNaN();
  });

  it("never goes back along x, and is exact for large values close together", () => {
    const times = { epochs: Float64Array.of(1, 2), xs: Float64Array.of(100, 200), ys: Float64Array.of(1, 1) };
    const short = { epochs: Float64Array.of(1), xs: Float64Array.of(900), ys: Float64Array.of(1) };
    expect([...mean([times, short], false).xs]).toEqual([500, 500]);
    const large = [member([[0, 1e9 + 1]]), member([[0, 1e9 + 2]]), member([[0, 1e9 + 3]])];
    expect((mean(large, true).high[0] as number) - 1e9).toBeCloseTo(3, 6);
  });

  it("of one is that one, and of none nothing", () => {
    expect([...mean([member([[3, 5]])], true).high]).toEqual([5]);
    expect(mean([], false).epochs.length).toBe(0);
  });
});

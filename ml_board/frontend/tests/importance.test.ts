import { describe, expect, it } from "vitest";
import { explained, interaction, spearman } from "../src/state/importance";

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

const GROUPS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
const SCORES = [6.9, 5.4, 5.8, 4.6, 4.0, 8.3, 6.8, 7.8, 9.2, 8.0, 10.5, 8.1, 6.9, 9.3, 9.3];

describe("explained", () => {
  it("is omega squared", () => {
    // By hand: means 1 and 3 about 2, so SS_between 4, SS_within 4 * 0.25 = 1, MS_within 0.5: (4 - 0.5) / (5 + 0.5).
    expect(explained([0, 0, 1, 1], [0.5, 1.5, 2.5, 3.5])).toBeCloseTo(3.5 / 5.5, 12);
    // scikit-learn 1.9.1, f_classif: F = 12.21155504; omega squared = (k - 1)(F - 1) / ((k - 1)(F - 1) + N)
    expect(explained(GROUPS, SCORES)).toBeCloseTo(0.5991781557152646, 12);
  });

  it("is 1 where nothing is left, and 0 where there is less than by chance", () => {
    expect(explained([0, 0, 1, 1], [1, 1, 2, 2])).toBe(1);
    expect(explained([0, 0, 1, 1], [1, 2, 1, 2])).toBe(0);
  });

  it("takes what groups of that size explain by chance away", () => {
    let [sum, raw] = [0, 0];
    for (let seed = 0; seed < 300; seed++) {
      const draw = random(seed);
      const scores = Array.from({ length: 40 }, () => draw() + draw() + draw());
      const groups = scores.map((_, i) => i % 8);
      const share = explained(groups, scores) as number;
      expect(share).toBeGreaterThanOrEqual(0);
      expect(share).toBeLessThanOrEqual(1);
      sum += share;
      raw += 7 / 39; // eta squared of 8 groups among 40, on average
    }
    expect(sum).toBeLessThan(0.35 * raw);
  });

  it("cannot be told from one group, from values that occur once, or from equal scores", () => {
    expect(explained([0, 0, 0], [1, 2, 3])).toBeNull();
    expect(explained([0, 1, 2], [1, 2, 3])).toBeNull();
    expect(explained([], [])).toBeNull();
    const tenths = Array.from({ length: 9 }, () => 0.1); // whose mean is not quite 0.1
    expect(explained([0, 0, 0, 1, 1, 1, 2, 2, 2], tenths)).toBeNull();
  });

  it("leaves out what has no score or no group, and does not mind order, place or size", () => {
    const expected = explained(GROUPS, SCORES) as number;
    expect(explained([...GROUPS, 0, 1, -1, 2], [...SCORES, NaN, Infinity, 7, -Infinity])).toBe(expected);
    expect(explained([...GROUPS].reverse(), [...SCORES].reverse())).toBeCloseTo(expected, 12);
    expect(explained(GROUPS, SCORES.map((score) => 1e6 - 3e-3 * score))).toBeCloseTo(expected, 6);
    expect(explained(GROUPS.map((group) => 70 * group + 3), SCORES)).toBe(expected);
  });
});

describe("spearman", () => {
  it("shares equal ranks", () => {
    // scipy 1.17.1, stats.spearmanr
    expect(spearman([1, 2, 2, 3, 5, 8, 8, 8, 13, 21], [0.3, 0.1, 0.4, 0.4, 0.2, 0.9, 0.5, 0.9, 0.7, 0.6])).toBeCloseTo(0.733777780590516, 12);
  });

  it("is 1 for whatever rises, -1 for whatever falls", () => {
    const values = [1e-5, 1e-4, 1e-3, 10, 1e9];
    expect(spearman(values, values.map(Math.log))).toBe(1);
    expect(spearman(values, values.map((one) => -one))).toBe(-1);
  });

  it("takes only pairs, and says nothing of what does not differ", () => {
    expect(spearman([1, 2, NaN, 3], [1, 2, -9, 3])).toBe(1);
    expect(spearman([1, 2, 3], [1, NaN, NaN])).toBeNull();
    expect(spearman([1, 1, 1], [1, 2, 3])).toBeNull();
    expect(spearman([], [])).toBeNull();
  });
});

describe("interaction", () => {
  const a = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1];
  const b = [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2];
  const scores = [0.62, 0.66, 0.71, 0.74, 0.8, 0.79, 0.91, 0.88, 0.7, 0.73, 0.41, 0.47];

  it("is what two explain beyond each", () => {
    // numpy 2.4.6: residuals of least squares with and without the products of the dummies
    expect(interaction(a, b, scores)).toBeCloseTo(0.7650652024708305, 12);
    expect(explained(a, scores)).toBe(0); // -0.0744, by itself
    expect(explained(b, scores)).toBeCloseTo(0.013833617585749344, 12);
  });

  it("is all of an exclusive or, which neither explains alone", () => {
    const [x, y] = [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1]];
    expect(interaction(x, y, x.map((one, i) => one ^ (y[i] as number)))).toBe(1);
    expect(interaction(x, y, x.map((one, i) => one + 2 * (y[i] as number)))).toBe(0);
  });

  it("is told of full grids with more than one of each only", () => {
    expect(interaction(a, b, scores.with(3, NaN))).toBeNull();
    expect(interaction([0, 0, 1, 1], [0, 1, 0, 1], [1, 2, 3, 5])).toBeNull();
    expect(interaction([0, 0, 1, 1], [0, 0, 1, 1], [1, 2, 3, 5])).toBeNull(); // half of the pairs are not there
    expect(interaction(a, a.map(() => 0), scores)).toBeNull();
    expect(interaction(a, b.with(0, -1), scores)).toBeNull();
  });
});

import { describe, expect, it } from "vitest";
import { Column, extreme, thin } from "../src/state/column";

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

describe("Column", () => {
  it("holds what a map of epochs would hold, in order, whatever the order of arrival", () => {
    for (let seed = 0; seed < 50; seed++) {
      const draw = random(seed);
      const column = new Column();
      const expected = new Map<number, number>();
      for (let i = 0; i < 200; i++) {
        const epoch = Math.floor(draw() * 80);
        const value = draw();
        column.put(epoch, value, i, 2 * i);
        expected.set(epoch, value);
      }
      const epochs = [...expected.keys()].sort((a, b) => a - b);
      expect([...column.epochs.slice(0, column.length)]).toEqual(epochs);
      expect([...column.values.slice(0, column.length)]).toEqual(epochs.map((epoch) => expected.get(epoch)));
      expect(column.complete).toBe(true);
      for (const epoch of epochs) expect(column.epochs[column.find(epoch)]).toBe(epoch);
      expect(column.find(81)).toBeLessThan(0);
    }
  });

  it("is not complete while it is to be filled, or was thinned", () => {
    const pending = Column.pending();
    pending.put(3, 1, 1, 1);
    expect([pending.pending, pending.complete, pending.length]).toEqual([true, false, 1]);
    const thinned = new Column();
    thinned.put(0, 1, 1, 1);
    thinned.of = 100;
    thinned.put(100, 1, 1, 1);
    expect([thinned.of, thinned.complete]).toEqual([101, false]);
  });
});

describe("extreme", () => {
  it("is the earliest of the finite ones", () => {
    const column = new Column();
    [NaN, Infinity, 2, 1, -Infinity, 1, 2].forEach((value, epoch) => column.put(epoch, value, epoch + 10, 0));
    expect(extreme(column, 1)).toEqual({ epoch: 3, value: 1, seq: 13 });
    expect(extreme(column, -1)).toEqual({ epoch: 2, value: 2, seq: 12 });
    expect(extreme(new Column(), 1)).toBeNull();
  });
});

describe("thin", () => {
  it("keeps ends and spikes, in order, within the limit", () => {
    for (let seed = 0; seed < 100; seed++) {
      const draw = random(seed);
      const length = 1 + Math.floor(draw() * 3000);
      const limit = 5 + Math.floor(draw() * 200);
      const values = Array.from({ length }, () => (draw() < 0.05 ? NaN : draw()));
      values[Math.floor(draw() * length)] = 1e9;
      values[Math.floor(draw() * length)] = -1e9;
      const xs = values.map((_, i) => i);
      const kept = thin(xs, values, length, limit);
      expect(kept.length).toBeLessThanOrEqual(Math.max(limit, 2));
      expect(kept).toEqual([...new Set(kept)].sort((a, b) => a - b));
      expect([kept[0], kept.at(-1)]).toEqual([0, length - 1]);
      const finite = values.filter((value) => !Number.isNaN(value));
      const left = kept.map((i) => values[i] as number).filter((value) => !Number.isNaN(value));
      expect(Math.max(...left)).toBe(Math.max(...finite));
      expect(Math.min(...left)).toBe(Math.min(...finite));
    }
  });
});

import { describe, expect, it } from "vitest";
import { scoreLines } from "../src/state/compare";
import { State } from "../src/state/fold";
import { choiceOf, columnsAsText, columnsOf, nextSort, pick, select, selectedOf, unfiltered } from "../src/state/selection";
import type { Experiment, Score } from "../src/state/fold";

const order = [5, 3, 9, 1];

describe("pick", () => {
  const picked = (selected: number[], id: number, how: "one" | "toggle" | "through", anchor: number | null = null): number[] =>
    [...pick(new Set(selected), order, id, how, anchor)].sort((a, b) => a - b);

  it("takes one alone, and leaves it when it was alone", () => {
    expect(picked([1, 9], 3, "one")).toEqual([3]);
    expect(picked([1, 3], 3, "one")).toEqual([3]);
    expect(picked([3], 3, "one")).toEqual([]);
  });
  it("toggles one among others", () => {
    expect(picked([1], 3, "toggle")).toEqual([1, 3]);
    expect(picked([1, 3], 3, "toggle")).toEqual([1]);
  });
  it("goes through in the order that is shown, both ways", () => {
    expect(picked([], 9, "through", 5)).toEqual([3, 5, 9]);
    expect(picked([], 5, "through", 9)).toEqual([3, 5, 9]);
    expect(picked([7], 9, "through", 3)).toEqual([3, 7, 9]);
  });
  it("takes the one alone when where it began is not shown any more", () => {
    expect(picked([], 9, "through", 77)).toEqual([9]);
    expect(picked([], 9, "through")).toEqual([9]);
  });
  it("changes nothing that it was given", () => {
    const before = new Set([1]);
    pick(before, order, 3, "toggle");
    expect([...before]).toEqual([1]);
  });
});

describe("the address", () => {
  it("names filters by column, whatever its name holds", () => {
    const choice = choiceOf({ q: "adam", sort: "-id", "f.swept:a.b": "< 3", fx: "no", "f.": "odd" });
    expect([choice.text, choice.sort, [...(choice.filters ?? [])]]).toEqual(["adam", "-id", [["swept:a.b", "< 3"], ["", "odd"]]]);
    expect(unfiltered({ q: "adam", sort: "-id", "f.status": "failed", sel: "1" })).toEqual({ q: null, "f.status": null });
  });
  it("keeps columns, whatever their names hold", () => {
    const ids = ["id", "swept:a,b", "swept:100%", "swept:%2C", "best:val/f1"];
    expect(columnsOf({ cols: columnsAsText(ids) })).toEqual(ids);
    expect(columnsOf({})).toBeNull();
  });
  it("keeps the selection as ranges, and passes over what is none", () => {
    expect(select([3, 1, 2, 9, 9])).toEqual({ sel: "1-3,9" });
    expect(selectedOf({ sel: "1-3,9,x,-4,5-" })).toEqual([1, 2, 3, 9]);
    expect(selectedOf({})).toEqual([]);
  });
  it("sorts by what is best first, then the other way, then no more", () => {
    const clicks = (column: { id: string; smaller?: boolean }): (string | null)[] => {
      const found: (string | null)[] = [];
      for (let sort: string | null = "", i = 0; i < 3; i++) found.push((sort = nextSort(sort ?? undefined, column).sort));
      return found;
    };
    expect(clicks({ id: "best:acc", smaller: false })).toEqual(["-best:acc", "best:acc", null]);
    expect(clicks({ id: "best:loss", smaller: true })).toEqual(["best:loss", "-best:loss", null]);
    expect(clicks({ id: "swept:lr" })).toEqual(["swept:lr", "-swept:lr", null]);
    expect(clicks({ id: "id" })).toEqual(["-id", null, "-id"]);
  });
});

describe("scoreLines", () => {
  const state = new State();
  state.scoreKeys.set("val/accuracy", false).set("val/loss", true).set("val/nobody", false);
  const one = (accuracy: number, loss: number): Experiment => {
    const score = (value: number): Score => {
      const point = { epoch: 1, value, seq: 7 };
      const finite = Number.isFinite(value) ? point : null;
      return { loss: false, count: 1, last: point, lowest: finite, highest: finite, column: null };
    };
    return { scores: new Map([["val/accuracy", score(accuracy)], ["val/loss", { ...score(loss), loss: true }]]) } as unknown as Experiment;
  };
  it("says how far from the baseline, and whether that is better", () => {
    const [accuracy, , loss] = scoreLines(state, [one(0.5, 2), one(0.75, 3), one(0.25, 2)], 0);
    expect(accuracy?.cells.map(({ more, better }) => [more, better])).toEqual([[null, 0], [0.25, 1], [-0.25, -1]]);
    expect(loss?.cells.map(({ more, better }) => [more, better])).toEqual([[null, 0], [1, -1], [0, 0]]);
  });
  it("has no difference to what is no number", () => {
    const lines = scoreLines(state, [one(NaN, Infinity), one(0.5, 1)], 0);
    expect(lines.map(({ key, which, cells }) => [key, which, cells[1]?.more])).toEqual([
      ["val/accuracy", "best", null],
      ["val/accuracy", "last", null],
      ["val/loss", "best", null],
      ["val/loss", "last", null],
    ]);
  });
});

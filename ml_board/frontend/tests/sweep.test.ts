import { describe, expect, it } from "vitest";
import { ticks } from "../src/charts/axis";
import { colourOf, inkOn } from "../src/charts/heatmap";
import { fold, State } from "../src/state/fold";
import { importances, strongest } from "../src/state/importance";
import { choiceOf } from "../src/state/selection";
import * as sweep from "../src/state/sweep";
import { type Axis, type Sweep, sweepOf } from "../src/state/sweep";
import { columns, rows } from "../src/state/table";

type Swept = Record<string, unknown>;

/** A grid search whose experiments have these values, and this score after one epoch; null: none. */
function search(all: readonly [swept: Swept, score: number | string | null][]): State {
  const state = new State();
  let seq = 0;
  const put = (event_type: string, payload: object): void =>
    fold(state, { seq: ++seq, event_type, creation_ts: 0, source: "s", n: seq, attempt: 1, payload: { grid_search_id: "g", ...payload } });
  all.forEach(([swept, score], experiment_id) => {
    put("experiment_config", { experiment_id, swept, config: {} });
    if (score !== null) put("evaluation_result", { experiment_id, epoch: 1, metric_scores: [{ metric: "f1", split: "val", score }], loss_scores: [] });
  });
  return state;
}

function found(state: State, query: Record<string, string> = {}): Sweep {
  const all = columns(state);
  return sweepOf(state, all, rows(state, all, choiceOf(query), 0), query) as Sweep;
}

/** The axis of one parameter with these values. */
function axis(values: readonly unknown[]): Axis {
  return found(search(values.map((value) => [{ p: value }, 1]))).axes[0] as Axis;
}

/** Which experiments a filter leaves, by the table. */
function left(values: readonly unknown[], expression: string): unknown[] {
  const state = search(values.map((value) => [{ p: value }, 1]));
  return rows(state, columns(state), choiceOf({ "f.swept:p": expression }), 0).map(({ swept }) => swept.p);
}

describe("axes", () => {
  it("are of the parameters that differ", () => {
    const { axes, score } = found(search([[{ a: 1, same: 3, b: "x" }, 0.5], [{ a: 2, same: 3, b: "y" }, 0.7]]));
    expect(axes.map(({ column }) => column.id)).toEqual(["swept:a", "swept:b"]);
    expect(score.column.id).toBe("best:val/f1");
    expect([...score.numbers]).toEqual([0.5, 0.7]);
  });

  it.each([
    [[0.0001, 0.001, 0.01], "log"],
    [[16, 32, 64], "log"],
    [[16, 32, 64, 256], "log"],
    [[1, 2, 5, 10, 20, 50], "log"],
    [[0.001, 0.003, 0.01, 0.03], "log"],
    [[1, 100], "log"],
    [[1, 2], "linear"],
    [[1, 2, 3], "linear"],
    [[100, 110, 120], "linear"],
    [[0.1, 0.2, 0.3, 0.5], "linear"],
    [[0, 0.001, 1000], "linear"],
    [[-1, 10, 1000], "linear"],
    [["adam", "sgd"], "category"],
    [[1, "auto"], "category"],
    [[1, null], "category"],
    [[true, false], "category"],
    [["Infinity", 1], "category"],
    [[[64, 32], { deep: 1 }], "category"],
  ])("%j is %s", (values, kind) => {
    expect(axis(values).kind).toBe(kind);
  });

  it("of many drawn values are as these were drawn", () => {
    const draws = Array.from({ length: 200 }, (_, i) => (i + 0.5) / 200);
    expect(axis(draws).kind).toBe("linear"); // though over two decades
    expect(axis(draws.map((one) => 10 ** (-4 * one))).kind).toBe("log");
  });

  it("have categories in natural order, the first at the top", () => {
    const some = axis(["layer10", "layer9", "Layer1"]);
    expect(some.labels).toEqual(["Layer1", "layer9", "layer10"]);
    expect(some.labels.map((_, i) => sweep.placeOf(some, i))).toEqual([5 / 6, 0.5, 1 / 6].map((one) => expect.closeTo(one, 12)));
  });

  it("go from the smallest to the largest, also as logarithms", () => {
    const log = axis([0.001, 0.1, 0.01]);
    expect([0.001, 0.01, 0.1].map((one) => sweep.placeOf(log, one))).toEqual([0, 0.5, 1].map((one) => expect.closeTo(one, 12)));
    const one = found(search([[{ a: 1 }, 0.5], [{ a: 2 }, 0.5]])).score;
    expect(sweep.placeOf(one, 0.5)).toBe(0.5);
  });

  it("keep what has no value apart", () => {
    const { axes } = found(search([[{ a: 1 }, 1], [{}, 1], [{ a: 3 }, 1]]));
    expect([...(axes[0] as Axis).numbers]).toEqual([1, NaN, 3]);
    const { axes: words } = found(search([[{ a: "x" }, 1], [{}, 1]]));
    expect((words[0] as Axis).labels).toEqual(["", "x"]);
  });

  it("are ordered and hidden by the address, and come back from it", () => {
    const { axes } = found(search([[{ a: 1, b: 1, "c|d": 1 }, 1], [{ a: 2, b: 2, "c|d": 2 }, 1]]));
    const ids = (ax?: string): string[] => sweep.arranged(axes, ax).shown.map(({ column }) => column.id.slice(6));
    expect(ids()).toEqual(["a", "b", "c|d"]);
    expect(ids("c!d|a|-b")).toEqual(["c|d", "a"]);
    expect(ids("b")).toEqual(["b", "a", "c|d"]);
    expect(ids("nonsense||-")).toEqual(["a", "b", "c|d"]);
    const { shown, hidden } = sweep.arranged(axes, "c!d|a|-b");
    expect(sweep.arrangement(shown, hidden)).toBe("c!d|a|-b");
  });
});

describe("brushes", () => {
  it("are filters that the table reads", () => {
    const rates = [0.0001, 0.001, 0.01, 0.1];
    const of = axis(rates);
    expect(sweep.brush(of, 0.7, 0.3)).toBe("0.001..0.01");
    expect(left(rates, sweep.brush(of, 0.3, 0.7))).toEqual([0.001, 0.01]);
    expect(sweep.brush(of, 0.3, 0.4)).toBe("= 0.001");
    expect(sweep.brush(of, 0.4, 0.45)).toBe("= 0.001"); // the nearest
    expect(sweep.brush(of, 0, 1)).toBe("");
  });

  it("let through what they cover, of many values too", () => {
    const values = Array.from({ length: 50 }, (_, i) => 1000 + i * i);
    const of = axis(values);
    const expression = sweep.brush(of, 0.2, 0.6);
    const [low, high] = sweep.rangeOf(expression) as [number, number];
    expect([low, high].map((one) => Math.abs(sweep.placeOf(of, one) - (one === low ? 0.2 : 0.6)) < 0.002)).toEqual([true, true]);
    expect(left(values, expression)).toEqual(values.filter((one) => one >= low && one <= high));
    expect(left(values, sweep.brush(of, -1, 2))).toEqual(values);
    const tiny = Array.from({ length: 50 }, (_, i) => 10 ** (-9 - i / 10));
    expect(left(tiny, sweep.brush(axis(tiny), 0, 1))).toEqual(tiny);
  });

  it("of categories name them, whatever they are called", () => {
    const names = ["<img src=x onerror=alert(1)>", "= x", "adam", "adamw", ""];
    const of = axis(names);
    const [, second = "", third = "", fourth = ""] = of.labels;
    expect(left(names, sweep.brush(of, 0, 0.15))).toEqual([of.labels[4]]);
    for (const some of [["adam"], ["<img src=x onerror=alert(1)>"], [second, third, fourth], ["<img src=x onerror=alert(1)>", "adam"], [""]]) {
      expect(left(names, sweep.among(of, some)).sort()).toEqual([...some].sort());
      expect(sweep.within(of, sweep.among(of, some))).toEqual(of.labels.filter((label) => some.includes(label)));
    }
    expect(sweep.among(of, of.labels)).toBe("");
  });

  it("are read back from what was typed", () => {
    expect(sweep.rangeOf("0.001..0.01")).toEqual([0.001, 0.01]);
    expect(sweep.rangeOf(" < 1e-3 ")).toEqual([-Infinity, 0.001]);
    expect(sweep.rangeOf(">=5")).toEqual([5, Infinity]);
    expect(sweep.rangeOf("= 5")).toEqual([5, 5]);
    for (const none of ["", "!= 3", "adam", "adam|sgd", "= x", "a..b", "< x"]) expect(sweep.rangeOf(none)).toBeNull();
    expect(sweep.rangeOf(sweep.between("1", ""))).toEqual([1, Infinity]);
    expect(sweep.rangeOf(sweep.between("", "2"))).toEqual([-Infinity, 2]);
    expect(sweep.rangeOf(sweep.between("1", "2"))).toEqual([1, 2]);
    expect(sweep.between("", "")).toBe("");
  });

  it("are drawn within the axis", () => {
    const of = axis([0.001, 0.01, 0.1]);
    expect(sweep.brushed(of, "0..0.01")).toEqual([[0, expect.closeTo(0.5, 12)]]);
    expect(sweep.brushed(of, ">= 0.01")).toEqual([[expect.closeTo(0.5, 12), 1]]);
    expect(sweep.brushed(of, "!= 0.01")).toEqual([]);
    expect(sweep.brushed(of, undefined)).toEqual([]);
    expect(sweep.brushed(axis(["a", "b"]), "= b")).toEqual([[0, 0.5]]);
  });
});

describe("scores", () => {
  it("colour from the worst to the best, without those that are far off", () => {
    const scores = [0.9, 0.91, 0.92, 0.93, 0.94, 0.1];
    const of = found(search(scores.map((score, a) => [{ a }, score])));
    expect(of.clipped).toBe(true);
    expect(of.ends[1]).toBe(0.94);
    expect(of.ends[0]).toBeGreaterThan(0.8);
    expect([of.shades[4], of.shades[5]]).toEqual([1, 0]);
    expect(of.shades[0]).toBeGreaterThan(0);
    expect(of.order).toEqual([5, 0, 1, 2, 3, 4]);
  });

  it("are turned round where smaller is better", () => {
    const state = search([[{ a: 1 }, null], [{ a: 2 }, null]]);
    [0.2, 3].forEach((score, experiment_id) =>
      fold(state, { seq: 90 + experiment_id, event_type: "evaluation_result", creation_ts: 0, source: "s", n: 90, attempt: 1, payload: { grid_search_id: "g", experiment_id, epoch: 1, metric_scores: [], loss_scores: [{ loss: "nll", split: "val", score }] } }),
    );
    expect([...found(state).shades]).toEqual([1, 0]);
    expect(importances(found(state), false)[0]?.best?.label).toBe("1");
  });

  it("are all as good where they do not differ, and told apart where one does", () => {
    expect([...found(search([[{ a: 1 }, 0.5], [{ a: 2 }, 0.5]])).shades]).toEqual([1, 1]);
    expect([...found(search([0.1, 0.9, 0.9, 0.9, 0.9].map((score, a) => [{ a }, score]))).shades]).toEqual([0, 1, 1, 1, 1]);
  });

  it("that are missing or not finite are none", () => {
    const of = found(search([[{ a: 1 }, 0.5], [{ a: 2 }, null], [{ a: 3 }, "NaN"], [{ a: 4 }, "Infinity"]]), { of: "last" });
    expect([...of.score.numbers]).toEqual([0.5, NaN, NaN, NaN]);
    expect([...of.shades]).toEqual([1, NaN, NaN, NaN]);
    expect(of.scored).toBe(1);
    const none = found(search([[{ a: 1 }, "NaN"], [{ a: 2 }, null]]));
    expect(none.scored).toBe(0);
  });

  it("that the address names wrongly are the usual one", () => {
    expect(found(search([[{ a: 1 }, 1]]), { by: "constructor" }).score.column.id).toBe("best:val/f1");
    expect(sweepOf(new State(), columns(new State()), [], {})).toBeNull();
  });

  it("are told apart from before only when something differs", () => {
    const state = search([[{ a: 1 }, 0.5], [{ a: 2 }, 0.7]]);
    const all = columns(state);
    const kept = rows(state, all, choiceOf({}), 0);
    const before = sweepOf(state, all, kept, {}) as Sweep;
    expect(sweep.same(before, sweepOf(state, all, kept, {}, before) as Sweep)).toBe(true);
    expect(sweep.same(before, sweepOf(state, all, kept.slice(1), {}, before) as Sweep)).toBe(false);
    expect(sweep.same(before, sweepOf(state, all, kept, { of: "last" }, before) as Sweep)).toBe(false);
    fold(state, { seq: 99, event_type: "experiment_config", creation_ts: 0, source: "s", n: 99, attempt: 1, payload: { grid_search_id: "g", experiment_id: 2, swept: { a: 3 }, config: {} } });
    const after = sweepOf(state, all, kept, {}, before) as Sweep;
    expect(sweep.same(before, after)).toBe(false);
    expect(after.axes[0]?.values).toEqual([1, 2, 3]);
  });
});

describe("groups", () => {
  it("are values where they are few, and filters that let through just them", () => {
    const values = [0.1, 0.2, 0.1, 0.3];
    const { labels, filters, of } = sweep.groupsOf(axis(values));
    expect(labels).toEqual(["0.1", "0.2", "0.3"]);
    expect([...of]).toEqual([0, 1, 0, 2]);
    filters.forEach((filter, group) => expect(left(values, filter)).toEqual(values.filter((_, i) => of[i] === group)));
  });

  it("are ranges of about as many where values are many", () => {
    const values = Array.from({ length: 200 }, (_, i) => Math.sin(i) + (i % 3 === 0 ? 0 : 2));
    const { labels, filters, of } = sweep.groupsOf(axis(values));
    expect(labels.length).toBe(8);
    filters.forEach((filter, group) => {
      const within = values.filter((_, i) => of[i] === group);
      expect(within.length).toBeGreaterThan(20);
      expect(left(values, filter)).toEqual(within);
    });
  });

  it("of which equal values have left some empty are fewer", () => {
    const values = Array.from({ length: 100 }, (_, i) => (i < 60 ? 7 : i));
    const { filters, of } = sweep.groupsOf(axis(values));
    expect(new Set(of).size).toBe(filters.length);
    filters.forEach((filter, group) => expect(left(values, filter)).toEqual(values.filter((_, i) => of[i] === group)));
  });

  it("cross in cells, of what passes", () => {
    const state = search([
      [{ a: 1, b: "x" }, 0.2], [{ a: 1, b: "x" }, 0.4], [{ a: 2, b: "x" }, 0.9], [{ a: 2, b: "y" }, "NaN"], [{ a: 1, b: "y" }, null],
    ]);
    const cells = (query: Record<string, string>, best: boolean): [number, number][][] => {
      const of = found(state, query);
      const [a, b] = of.axes.map(sweep.groupsOf) as [sweep.Groups, sweep.Groups];
      return sweep.cellsOf(of, a, b, best).map((line) => line.map(({ count, value }) => [count, value]));
    };
    expect(cells({}, false)).toEqual([[[2, expect.closeTo(0.3, 12)], [1, 0.9]], [[0, NaN], [0, NaN]]]);
    expect(cells({}, true)[0]?.[0]).toEqual([2, 0.4]);
    expect(cells({ "f.best:val/f1": "< 0.3" }, false)[0]).toEqual([[1, 0.2], [0, NaN]]);
  });
});

describe("importance", () => {
  const grid: [Swept, number][] = [];
  for (const a of [1, 2, 3]) for (const b of ["x", "y"]) for (const c of [1, 2]) grid.push([{ a, b, c }, 3 * a + (b === "x" ? a : -a) + 0.01 * c * a]);

  it("sorts the parameters, says which way and which value", () => {
    const all = importances(found(search(grid)), false);
    expect(all.map(({ axis: { column } }) => column.title)).toEqual(["a", "b", "c"]);
    const [a, b, c] = all;
    expect(a?.share).toBeGreaterThan(0.4);
    expect(a?.direction).toBeGreaterThan(0.5);
    expect(a?.best).toEqual({ label: "3", filter: "= 3", mean: expect.closeTo(9.045, 9), count: 4 });
    expect([b?.direction, b?.best?.label]).toEqual([null, "x"]);
    expect(c?.share).toBe(0);
    expect(strongest(found(search(grid)))?.pair.map(({ column }) => column.title)).toEqual(["a", "b"]);
  });

  it("is of those that pass, where asked so", () => {
    const of = found(search(grid), { "f.swept:a": "= 2" });
    expect(importances(of, true).map(({ axis: { column }, share }) => [column.title, share !== null])).toEqual([["b", true], ["c", true], ["a", false]]);
    expect(importances(of, false)[0]?.axis.column.title).toBe("a");
  });
});

describe("ticks", () => {
  const words = (of: Axis): string[] => ticks(of, 0.075).map(({ label }) => label);

  it("are the values, or round numbers", () => {
    expect(words(axis([0.001, 0.01, 0.1]))).toEqual(["0.001", "0.01", "0.1"]);
    expect(words(axis(["b", "", "a"]))).toEqual(["none", "a", "b"]);
    expect(words(axis(Array.from({ length: 200 }, (_, i) => 10 ** (-4 * ((i + 0.5) / 200)))))).toEqual(["0.001", "0.01", "0.1"]);
    expect(words(axis(Array.from({ length: 200 }, (_, i) => 0.03 + i / 200)))).toEqual(["0.2", "0.4", "0.6", "0.8", "1"]);
  });

  it("lie on the axis, however strange it is", () => {
    for (const values of [[1e-300, 1], [0.1 + 0.2, 0.3], [-1e9, 1e-9], [1e15, 1e15 + 2], [5e-324, 1e308]]) {
      for (const { place } of ticks(axis([...values, ...Array.from({ length: 30 }, (_, i) => values[0] as number * (1 - i / 60) + (values[1] as number) * (i / 60))]), 0.075)) {
        expect(place).toBeGreaterThanOrEqual(-1e-9);
        expect(place).toBeLessThanOrEqual(1 + 1e-9);
      }
    }
  });
});

describe("colours", () => {
  const luminance = (colour: string): number => {
    const [r = 0, g = 0, b = 0] = (colour.startsWith("#") ? (colour === "#000" ? [0, 0, 0] : [255, 255, 255]) : colour.match(/\d+/g)?.map(Number) ?? []).map((one) =>
      one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a: number, b: number): number => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);

  it("rise in order, stand out from the paper, and can be written on", () => {
    for (const [theme, paper] of [["light", 1], ["dark", luminance("rgb(31 39 49)")]] as const) {
      let before = theme === "light" ? 2 : -1;
      for (let shade = 0; shade <= 1.0001; shade += 0.05) {
        const here = luminance(colourOf(Math.min(1, shade), theme));
        expect(theme === "light" ? here < before : here > before).toBe(true);
        expect(contrast(here, paper)).toBeGreaterThan(2.5);
        expect(contrast(here, luminance(inkOn(Math.min(1, shade), theme)))).toBeGreaterThan(4.5);
        before = here;
      }
    }
  });
});

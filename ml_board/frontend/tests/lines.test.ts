import { describe, expect, it } from "vitest";
import { Column } from "../src/state/column";
import { State } from "../src/state/fold";
import { entries as made } from "../src/state/groups";
import { box, collect, csv, height, type Line, logTicks, type Memory, nearest, order, pack, place, spliced, unpack, type View } from "../src/state/lines";

const WHOLE: View = { axis: "epoch", weight: 0, deviation: false, from: -Infinity, to: Infinity };

function column(points: [epoch: number, value: number, time?: number][], of = points.length): Column {
  const found = new Column();
  for (const [epoch, value, time] of points) found.put(epoch, value, 100 + epoch, time ?? 1000 * epoch);
  found.of = of;
  return found;
}

function state(...columns: (Column | null)[]): State {
  const found = new State();
  columns.forEach((one, id) => {
    const last = { epoch: 0, value: 0, seq: 0 };
    found.experiment(id).scores.set("val/a", { loss: false, count: 0, last, lowest: null, highest: null, column: one });
  });
  return found;
}

function drawn(of: State, view: Partial<View> = {}, memory: Memory = new Map(), anyway = true): ReturnType<typeof collect> {
  return collect(of, made([...of.experiments.values()], []), "val/a", { ...WHOLE, ...view }, memory, null, anyway);
}

const xs = (line: Line | undefined): number[] => [...(line as Line).xs];

describe("lines", () => {
  it("are against epochs, steps, or seconds that never go back", () => {
    const of = state(column([[0, 1, 5000], [1, 2, 9000], [2, 3, 7000], [3, 4, 11_000]]));
    expect(xs(drawn(of).lines?.[0])).toEqual([0, 1, 2, 3]);
    expect(xs(drawn(of, { axis: "step" }).lines?.[0])).toEqual([0, 1, 2, 3]); // nothing is known of its batches
    of.experiment(0).train_batches = 50;
    expect(xs(drawn(of, { axis: "step" }).lines?.[0])).toEqual([0, 50, 100, 150]);
    expect(xs(drawn(of, { axis: "time" }).lines?.[0])).toEqual([0, 4, 4, 6]);
  });

  it("wait for what nobody has asked for, and for what is on its way", () => {
    const pending = Column.pending();
    pending.put(7, 1, 1, 1);
    const found = drawn(state(null, pending, column([[0, 1]]), new Column()));
    expect([found.loading, found.missing, found.lines?.length]).toEqual([2, [0], 2]);
  });

  it("are made anew only when a point has come, was run again, or went", () => {
    const of = state(column([[0, 1]]), column([[0, 2]]));
    const memory: Memory = new Map();
    expect(drawn(of, {}, memory, false).lines?.length).toBe(2);
    expect(drawn(of, {}, memory, false).lines).toBeNull();
    of.experiment(0).version++; // progress
    expect(drawn(of, {}, memory, false).lines).toBeNull();
    of.experiment(0).scores.get("val/a")?.column?.put(1, 5, 200, 0);
    expect(xs(drawn(of, {}, memory, false).lines?.[0])).toEqual([0, 1]);
    of.experiment(1).changes++;
    expect(drawn(of, {}, memory, false).lines).not.toBeNull();
    of.experiments.delete(1);
    expect(drawn(of, {}, memory, false).lines?.length).toBe(1);
    expect(drawn(of, {}, memory, false).lines).toBeNull();
  });

  it("are cut to the zoom with one point to each side", () => {
    const of = state(column([[0, 0], [10, 1], [20, 2], [30, 3], [40, 4]]));
    expect(xs(drawn(of, { from: 15, to: 30 }).lines?.[0])).toEqual([10, 20, 30, 40]);
    expect(xs(drawn(of, { from: 21, to: 29 }).lines?.[0])).toEqual([20, 30]);
    expect(xs(drawn(of, { from: 50, to: 60 }).lines?.[0])).toEqual([40]);
    expect(xs(drawn(of, { from: -5, to: -1 }).lines?.[0])).toEqual([0]);
  });

  it("are thinned when they are long, without losing a spike, and say so", () => {
    const points = Array.from({ length: 10_000 }, (_, i): [number, number] => [i, i === 4321 ? 99 : i % 7]);
    const line = drawn(state(column(points))).lines?.[0] as Line;
    expect(line.xs.length).toBeLessThanOrEqual(2000);
    expect([line.here, line.of]).toEqual([2000, 10_000]);
    const at = [...line.ys].indexOf(99);
    expect([line.xs[at], line.seqs?.[at]]).toEqual([4321, 4421]);
    const zoomed = drawn(state(column(points)), { from: 4000, to: 4999 }).lines?.[0] as Line;
    expect([zoomed.xs.length, zoomed.here, zoomed.of]).toEqual([1002, 1002, 1002]);
  });

  it("say how many points the server has", () => {
    const found = drawn(state(column([[0, 1], [50, 2], [100, 3]], 101)));
    expect([found.thinned, found.lines?.[0]?.here, found.lines?.[0]?.of]).toEqual([[0], 3, 101]);
  });

  it("keep the raw values behind smoothed ones", () => {
    const line = drawn(state(column([[0, 0], [1, 1]])), { weight: 0.5 }).lines?.[0] as Line;
    expect([...(line.raw as Float64Array)]).toEqual([0, 1]);
    expect(line.ys[1]).toBeCloseTo(2 / 3, 12);
  });

  it("of several experiments are one with a band", () => {
    const of = state(column([[0, 1], [1, 3]]), column([[0, 3], [1, 5]]), null);
    [0, 1, 2].forEach((seed) => (of.experiment(seed).swept = { seed }));
    const found = collect(of, made([...of.experiments.values()], ["seed"]), "val/a", { ...WHOLE, weight: 0.5 }, new Map(), null, true);
    const line = found.lines?.[0] as Line;
    expect([found.lines?.length, found.loading, line.seqs, [...(line.raw as Float64Array)], line.of]).toEqual([1, 1, null, [2, 4], 2]);
    expect(line.low?.[0]).toBe(1);
  });

  it("take the finer points of a zoom, and go on with what came since", () => {
    const main = column([[0, 0], [10, 10], [20, 20], [30, 30]], 31);
    const exact = column([[10, 10], [11, 11], [12, 12]]);
    expect([...spliced(main, exact, 10, 12).epochs.subarray(0, 6)]).toEqual([0, 10, 11, 12, 20, 30]);
    // The zoom reached to the end, which has moved.
    const last = column([[20, 20], [21, 21]]);
    main.put(31, 31, 1, 1);
    const found = spliced(main, last, 20, 29);
    expect([...found.epochs.subarray(0, found.length)]).toEqual([0, 10, 20, 21, 30, 31]);
    const none = spliced(main, new Column(), 20, 29);
    expect([...none.epochs.subarray(0, none.length)]).toEqual([0, 10, 30, 31]);
    const of = state(main);
    const got = collect(of, made([of.experiment(0)], []), "val/a", { ...WHOLE, from: 10, to: 12 }, new Map(), { first: 10, last: 12, columns: new Map([[0, exact]]) }, true);
    expect([...(got.lines?.[0] as Line).ys]).toEqual([0, 10, 11, 12, 20]);
    expect(got.lines?.[0]?.of).toBe(got.lines?.[0]?.here);
  });
});

describe("what is to be seen", () => {
  const seen = (values: number[], log = false, view: Partial<View> = {}): ReturnType<typeof box> =>
    box(drawn(state(column(values.map((value, i) => [i, value]))), view).lines ?? [], { ...WHOLE, ...view }, log);

  it("are all finite values with some room, and the whole of x", () => {
    expect(seen([0, 1, NaN, Infinity, -Infinity])).toEqual({ x: [0, 4], y: [-0.04, 1.04] });
  });

  it.each([[[]], [[NaN]], [[0]], [[5, 5]], [[1e16, 1e16 + 2]], [[1e308, -1e308]], [[5e-324, 5e-324]], [[-3]], [[1e299, 1e-299]], [[0.1, 0.1 + 1e-17]]])(
    "is a range that an axis can show: %j",
    (values) => {
      for (const log of [false, true]) {
        const { x, y } = seen(values, log);
        for (const [low, high] of [x, y]) {
          expect(low).toBeLessThan(high);
          expect(Number.isFinite(high - low)).toBe(true);
          expect(high - low).toBeGreaterThan(1e-12 * Math.max(Math.abs(low), Math.abs(high)));
        }
        if (log) expect(y[0]).toBeGreaterThan(0);
        expect(logTicks(Math.abs(y[0]) || 1e-300, Math.abs(y[1]), 5).length).toBeLessThan(40);
      }
    },
  );

  it("is the zoom, and the values in it", () => {
    expect(seen([0, 100, 1, 2, 100], false, { from: 1.5, to: 3.5 })).toEqual({ x: [1.5, 3.5], y: [0.96, 2.04] });
    // between two points: the line from one to the other
    expect(seen([0, 100], false, { from: 0.2, to: 0.8 })).toEqual({ x: [0.2, 0.8], y: [-4, 104] });
  });

  it("has no place for what is not above 0 on a logarithmic axis", () => {
    expect([height(100, true), height(0, true), height(-1, true), height(-1, false), height(NaN, false), height(Infinity, false)]).toEqual([2, NaN, NaN, -1, NaN, NaN]);
    const { y } = seen([0, 1, 10, -5], true);
    expect(y[0]).toBeGreaterThan(0.8);
    expect(y[1]).toBeLessThan(12);
  });
});

describe("the marks of a logarithmic axis", () => {
  it.each([
    [0.001, 1000, 6, [0.001, 0.01, 0.1, 1, 10, 100, 1000]],
    [0.001, 1000, 5, [0.01, 1, 100]],
    [0.1, 100, 10, [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]],
    [0.31, 0.62, 4, [0.4, 0.5, 0.6]],
    [2, 9, 4, [2, 4, 6, 8]],
  ])("from %d to %d", (low, high, most, expected) => {
    expect(logTicks(low, high, most)).toEqual(expected);
  });
});

describe("the nearest point", () => {
  it.each([[-5, 0], [0, 0], [4, 0], [6, 1], [10, 1], [99, 2]])("to %d is %d", (x, expected) => {
    expect(nearest(Float64Array.of(0, 10, 20), x)).toBe(expected);
  });
  it("of none is none", () => {
    expect(nearest(new Float64Array(0), 1)).toBe(-1);
    expect(place(Float64Array.of(1, 2, 2, 3), 2)).toBe(1);
  });
});

describe("charts", () => {
  const keys = new Map([
    ["train/loss", true],
    ["train/f1", false],
    ["test/f1", false],
    ["val/loss", true],
    ["train/acc", false],
    ["val/f1", false],
    ["val/acc", false],
    ["x/y/z", false],
  ]);

  it("come in the order in which they are looked at", () => {
    expect(order(keys, new Set())).toEqual(["val/f1", "train/f1", "test/f1", "val/acc", "train/acc", "x/y/z", "val/loss", "train/loss"]);
    expect(order(keys, new Set(["train/loss", "gone"]))[0]).toBe("train/loss");
    expect(order(new Map(), new Set())).toEqual([]);
  });

  it("are named in the address, whatever their names", () => {
    const names = ["val/a", "a,b", "100%", "%2C", "ü", "%25,%"];
    expect(unpack(pack(names))).toEqual(names);
    expect(pack(["val/acc", "train/acc"])).toBe("val/acc,train/acc");
    expect(unpack(undefined)).toEqual([]);
    expect(unpack("%,%zz,,")).toEqual(["%", "%zz"]);
  });

  it("are written with every point that is here", () => {
    const of = state(column([[0, 0.5, 0], [1, NaN, 86_400_000]]), null, column([[0, 1, 1e20]]));
    of.experiment(0).swept = { a: 'say "x", y\n' };
    of.experiment(1).swept = { a: 1 };
    of.experiment(2).swept = { a: 2 };
    expect(csv(of, made([...of.experiments.values()], []), "val/a")).toBe(
      'experiment,label,epoch,time,value\r\n0,"a say ""x"", y\n",0,,0.5\r\n0,"a say ""x"", y\n",1,1970-01-02T00:00:00.000Z,NaN\r\n2,a 2,0,,1\r\n',
    );
  });
});

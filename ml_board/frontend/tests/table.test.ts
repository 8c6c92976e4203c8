// The table: columns, filters, order. Exact, and with what people and logs really bring.

import { expect, test as it, describe } from "vitest";
import { fold, State } from "../src/state/fold";
import { overview } from "../src/state/overview";
import {
  alternatives,
  anyOf,
  best,
  bestOf,
  columns,
  csv,
  defaultScore,
  differing,
  onlyDiffering,
  rows,
  smallerIsBetter,
  test,
  usual,
  values,
} from "../src/state/table";

let seq = 0;

function put(state: State, event_type: string, payload: Record<string, unknown>, attempt = 1): void {
  fold(state, { event_type, seq: ++seq, creation_ts: 1_000_000 + seq, source: "s", n: seq, attempt, payload: { grid_search_id: "g", ...payload } });
}

function grid(swept: Record<string, unknown>[], num_epochs = 10): State {
  const state = new State();
  put(state, "grid_search", { status: "STARTED", num_experiments: swept.length });
  swept.forEach((one, experiment_id) => put(state, "experiment_config", { experiment_id, swept: one, num_epochs, config_hash: "" }));
  return state;
}

function job(state: State, experiment_id: number, status: string, more: Record<string, unknown> = {}): void {
  put(state, "job_status", { experiment_id, job_id: `${experiment_id}`, status, ...more });
}

function scored(state: State, experiment_id: number, epoch: number, metric: unknown, loss: unknown = 1): void {
  put(state, "evaluation_result", {
    experiment_id,
    epoch,
    metric_scores: [{ metric: "accuracy", split: "val", score: metric }],
    loss_scores: [{ loss: "cross_entropy", split: "val", score: loss }],
  });
}

function ids(state: State, choice: { text?: string; filters?: Record<string, string>; sort?: string }): number[] {
  const { text = "", filters = {}, sort = "" } = choice;
  return rows(state, columns(state), { text, filters: new Map(Object.entries(filters)), sort }, 2_000_000).map((one) => one.experiment_id);
}

describe("test", () => {
  const passes = (expression: string, value: number | string | null, text = value === null ? "" : `${value}`): boolean => test(expression)(value, text);

  it("compares numbers", () => {
    expect(passes("< 0.01", 0.001)).toBe(true);
    expect(passes("<0.01", 0.01)).toBe(false);
    expect(passes("<=1e-2", 0.01)).toBe(true);
    expect(passes("> -1", 0)).toBe(true);
    expect(passes(">= 3", 2)).toBe(false);
    expect(passes("< 3", null)).toBe(false);
    expect(passes("< 3", "2")).toBe(false);
    expect(passes("< 3", NaN)).toBe(false);
    expect(passes("> 1", Infinity, "∞")).toBe(true);
  });

  it("lets everything through while a comparison is being typed, and nothing when it is none", () => {
    expect(passes("<", 5)).toBe(true);
    expect(passes(">=  ", 5)).toBe(true);
    expect(passes("< many", 5)).toBe(false);
  });

  it("takes = as the whole value, in any spelling of the number", () => {
    expect(passes("= 16", 16)).toBe(true);
    expect(passes("= 16", 160)).toBe(false);
    expect(passes("=1e-4", 0.0001, "1e-4")).toBe(true);
    expect(passes("== SGD", "sgd")).toBe(true);
    expect(passes("= sg", "sgd")).toBe(false);
    expect(passes("!= sgd", "adam")).toBe(true);
    expect(passes("!= 16", 16)).toBe(false);
  });

  it("takes = alone as no value, and not as zero", () => {
    expect(passes("=", null)).toBe(true);
    expect(passes("=", 0)).toBe(false);
    expect(passes("!=", 0)).toBe(true);
    expect(passes("!=", null)).toBe(false);
  });

  it("takes ranges with their ends", () => {
    expect(passes("0.1..1", 0.1)).toBe(true);
    expect(passes("1e-4 .. 1e-2", 0.01)).toBe(true);
    expect(passes("-1..-0.5", -0.75)).toBe(true);
    expect(passes("0.1..1", 1.01)).toBe(false);
    expect(passes("a..b", "xa..by")).toBe(true); // no numbers: a part of the text
  });

  it("takes choices", () => {
    expect(passes("adam|sgd", "SGD")).toBe(true);
    expect(passes("adam | sgd", "adamw")).toBe(false);
    expect(passes("|adam", null)).toBe(true);
    expect(passes("0.1|0.01", 0.01)).toBe(true);
  });

  it("takes anything else as a part of the text, or the beginning of a number", () => {
    expect(passes("dam", "ADAM")).toBe(true);
    expect(passes("0.97", 0.9712)).toBe(true);
    expect(passes("6", 16)).toBe(false);
    expect(passes(".*", "anything")).toBe(false);
    expect(passes("(", "f(x)")).toBe(true);
    expect(passes("  ", null)).toBe(true);
  });

  it("reads back the choices that it was made of", () => {
    for (const chosen of [["adam"], ["adam", "sgd"], ["", "adam"], ["=gelu"], ["1e-4", "0.1"], [""], ["a|b"], ["a|b", "c"], ["<b>", "!x"], ["=1", "=2|3", "> 4"]]) {
      expect(alternatives(anyOf(chosen))).toEqual(chosen);
    }
    for (const chosen of [["a|b", "c"], ["a", "b|c|"], ["|", ""], ["<pad>", "=1", "!x", ">"], ["a\\", "b"], ["\\|", "\\\\"], ["C:\\x", "D:\\y|z"], ["a<b", "größe 😀"]]) {
      expect(alternatives(anyOf(chosen))).toEqual(chosen);
      for (const one of chosen) expect(passes(anyOf(chosen), one)).toBe(true);
      expect(passes(anyOf(chosen), "another")).toBe(false);
    }
    expect(alternatives("a\\|b")).toEqual(["a|b"]);
    expect(alternatives("C:\\x|D:\\y")).toEqual(["C:\\x", "D:\\y"]);
    expect(anyOf([])).toBe("");
    expect(alternatives("< 3|4")).toEqual([]);
    expect(passes(anyOf(["a|b"]), "a|b")).toBe(true);
    expect(passes(anyOf(["line one\nline two"]), "line one\nline two")).toBe(true);
  });
});

describe("rows", () => {
  const state = grid([
    { "a.lr": 0.1, "a.name": "ADAM" },
    { "a.lr": 0.01, "a.name": "SGD" },
    { "a.lr": 1e-4, "a.name": "<img src=x>" },
    { "a.name": null },
  ]);
  job(state, 0, "RUNNING", { starting_time: 1_000_000, device: "cuda:3" });
  scored(state, 0, 1, 0.5);
  scored(state, 1, 1, 0.9);
  scored(state, 2, 1, "NaN");
  job(state, 2, "FAILED", { error: "ValueError: out of luck" });

  it("stand by number at first", () => expect(ids(state, {})).toEqual([0, 1, 2, 3]));

  it("are found by words, all of them, wherever they stand", () => {
    expect(ids(state, { text: "sgd" })).toEqual([1]);
    expect(ids(state, { text: "adam CUDA" })).toEqual([0]);
    expect(ids(state, { text: "luck" })).toEqual([2]);
    expect(ids(state, { text: "<img" })).toEqual([2]);
    expect(ids(state, { text: "adam sgd" })).toEqual([]);
    expect(ids(state, { text: "   " })).toEqual([0, 1, 2, 3]);
  });

  it("are found by expressions among the words", () => {
    expect(ids(state, { text: "lr<0.1" })).toEqual([1, 2]);
    expect(ids(state, { text: "lr < 0.1 sgd" })).toEqual([1]);
    expect(ids(state, { text: "status=failed" })).toEqual([2]);
    expect(ids(state, { text: "best:val/accuracy>=0.5" })).toEqual([0, 1]);
    expect(ids(state, { text: "nonsense<3" })).toEqual([]);
  });

  it("pass all filters of columns; those of columns that are gone stand for nothing", () => {
    expect(ids(state, { filters: { "swept:a.lr": "0.01..0.1", status: "waiting" } })).toEqual([1]);
    expect(ids(state, { filters: { "swept:a.lr": "=" } })).toEqual([3]);
    expect(ids(state, { filters: { "swept:gone": "< 3" } })).toEqual([0, 1, 2, 3]);
  });

  it("are ordered, and what has no value comes last whichever way is up", () => {
    expect(ids(state, { sort: "swept:a.lr" })).toEqual([2, 1, 0, 3]);
    expect(ids(state, { sort: "-swept:a.lr" })).toEqual([0, 1, 2, 3]);
    expect(ids(state, { sort: "-last:val/accuracy" })).toEqual([1, 0, 2, 3]);
    expect(ids(state, { sort: "last:val/accuracy" })).toEqual([0, 1, 2, 3]);
    expect(ids(state, { sort: "-id" })).toEqual([3, 2, 1, 0]);
    expect(ids(state, { sort: "gone" })).toEqual([0, 1, 2, 3]);
    expect(ids(state, { sort: "status" })).toEqual([0, 2, 1, 3]);
  });

  it("are ordered by number where text has numbers, and equals by their own number", () => {
    const other = grid(["b10", "b9", "b9", 3, "a"].map((name) => ({ name })));
    expect(ids(other, { sort: "swept:name" })).toEqual([3, 4, 1, 2, 0]);
    expect(ids(other, { sort: "-swept:name" })).toEqual([0, 1, 2, 4, 3]);
  });
});

describe("columns", () => {
  it("are by default those that differ, and how good by the split that is judged by", () => {
    const state = grid([
      { "a.lr": 0.1, "b.same": 1 },
      { "a.lr": 0.2, "b.same": 1 },
    ]);
    put(state, "evaluation_result", {
      experiment_id: 0,
      epoch: 1,
      metric_scores: ["train", "val"].map((split) => ({ metric: "f1", split, score: 0.5 })),
      loss_scores: ["train", "val"].map((split) => ({ loss: "nll", split, score: 0.5 })),
    });
    const all = columns(state);
    expect(usual(state, all).map(({ id }) => id)).toEqual(["id", "status", "swept:a.lr", "epochs", "best:val/f1", "best:val/nll", "elapsed"]);
    job(state, 1, "RUNNING", { starting_time: 1 });
    expect(usual(state, all).map(({ id }) => id)).toContain("left");
    job(state, 1, "FAILED", { error: "no" });
    expect(usual(state, all).at(-1)?.id).toBe("error");
    expect(differing(all, [...state.experiments.values()]).map(({ id }) => id)).not.toContain("swept:b.same");
    expect(onlyDiffering(all, [...state.experiments.values()], 0).map(({ id }) => id)).toEqual(expect.arrayContaining(["id", "status", "swept:a.lr", "epochs"]));
  });

  it("show all that was swept of a single experiment", () => {
    const state = grid([{ lr: 1 }]);
    expect(usual(state, columns(state)).map(({ id }) => id)).toContain("swept:lr");
  });

  it("have the shortest names that tell them apart", () => {
    const state = grid([{ "a.lr": 1, "b.lr": 2, "b.size": 3 }]);
    expect(columns(state).filter(({ group }) => group === "swept").map(({ title }) => title)).toEqual(["a.lr", "b.lr", "size"]);
  });

  it("name their values when they are few", () => {
    const state = grid([{ n: 10 }, { n: 9 }, { n: 10 }, {}]);
    const swept = columns(state).find(({ id }) => id === "swept:n");
    expect(values(swept!, state.experiments.values(), 0)).toEqual([["", 1], ["9", 1], ["10", 2]]);
    const many = grid(Array.from({ length: 13 }, (_, n) => ({ n })));
    expect(values(columns(many).find(({ id }) => id === "swept:n")!, many.experiments.values(), 0)).toBeNull();
  });

  it("mark the best only where one is better than another", () => {
    const state = grid([{}, {}, {}]);
    scored(state, 0, 1, 0.5, 0.3);
    const [accuracy, loss, id] = ["best:val/accuracy", "best:val/cross_entropy", "id"].map((name) => columns(state).find((one) => one.id === name)!);
    const all = [...state.experiments.values()];
    expect(bestOf(accuracy!, all)).toBeNull();
    scored(state, 1, 1, 0.7, 0.2);
    scored(state, 2, 1, "NaN", "-Infinity");
    expect(bestOf(accuracy!, all)).toBe(0.7);
    expect(bestOf(loss!, all)).toBe(0.2);
    expect(bestOf(id!, all)).toBeNull();
  });
});

it("judges by the first metric of the validation split, and knows what is better small", () => {
  expect(defaultScore(new Map([["train/f1", false], ["test/f1", false], ["val/nll", true], ["val/f1", false]]))).toBe("val/f1");
  expect(defaultScore(new Map())).toBeNull();
  expect(smallerIsBetter("val/RMSE", false)).toBe(true);
  expect(smallerIsBetter("val/accuracy", false)).toBe(false);
});

describe("csv", () => {
  it("quotes what has to be", () => {
    expect(csv([["a", 'say "x"'], [1.5, "two\nlines"], [null, "a,b"]])).toBe('a,"say ""x"""\r\n1.5,"two\nlines"\r\n,"a,b"\r\n');
  });
  it("hands no formula to a spreadsheet", () => {
    expect(csv([["=1+1", "-x", "-3", -3, "@a", "+1"]])).toBe("'=1+1,'-x,-3,-3,'@a,+1\r\n");
  });
});

describe("overview", () => {
  it("counts, and says how long it takes as the report does", () => {
    const state = grid([{}, {}, {}, {}], 10);
    state.numExperiments = 5;
    for (const id of [0, 1]) job(state, id, "RUNNING", { starting_time: 1_000_000 });
    scored(state, 0, 5, 0.5);
    scored(state, 1, 2, 0.8);
    job(state, 2, "FAILED", { error: "no luck" });
    // 100 s: experiment 0 takes 20 s an epoch, 1 takes 50 s; all together 200 s for 7 epochs.
    const found = overview(state, 1_100_000);
    expect(found.left).toBeCloseTo(Math.max((5 * 20 + 8 * 50 + (10 * 200) / 7) / 2, 400));
    expect([found.epochsDone, found.epochsTotal]).toEqual([7, 50]);
    expect(found.best?.experiment_id).toBe(1);
    expect(found.failures).toEqual([{ error: "no luck", experiments: [2] }]);
    expect(overview(state, 1_100_000, "val/cross_entropy").best?.experiment_id).toBe(0);
    expect(overview(state, 1_100_000, "gone").score).toBe("val/accuracy");
    state.status = "FINISHED";
    expect(overview(state, 1_100_000).left).toBeNull();
  });
  it("says nothing of an empty one", () => {
    const found = overview(new State(), 0);
    expect([found.left, found.best, found.score, found.epochsTotal]).toEqual([null, null, null, 0]);
  });
});

it("takes the earliest epoch of equals as the best, and no value that is not finite", () => {
  const state = grid([{}]);
  for (const [epoch, value] of [[1, "NaN"], [2, 0.5], [3, 0.5], [4, "Infinity"]] as const) scored(state, 0, epoch, value);
  expect(best(state.experiment(0), "val/accuracy")?.epoch).toBe(2);
});

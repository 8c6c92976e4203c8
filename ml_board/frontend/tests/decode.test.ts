import { describe, expect, it } from "vitest";
import { incoming } from "../src/wire/decode";

const good = {
  seq: 7,
  event_type: "evaluation_result",
  creation_ts: 1,
  source: "s",
  n: 1,
  attempt: 1,
  payload: { grid_search_id: "g", experiment_id: 1, epoch: 2, metric_scores: [{ metric: "a", split: "val", score: "NaN" }] },
};

describe("incoming", () => {
  it("knows an event by its type", () => {
    expect(incoming(good).known?.event_type).toBe("evaluation_result");
    expect(incoming({ ...good, more: 1, payload: { ...good.payload, more: {} } }).known).not.toBeNull();
    const { attempt: _, ...without } = good;
    expect(incoming(without).known?.attempt).toBe(1);
  });

  it.each([
    ["no object", 3],
    ["null", null],
    ["an unknown type", { ...good, event_type: "other" }],
    ["a type that objects inherit", { ...good, event_type: "constructor" }],
    ["no payload", { ...good, payload: undefined }],
    ["a text as epoch", { ...good, payload: { ...good.payload, epoch: "2" } }],
    ["half an epoch", { ...good, payload: { ...good.payload, epoch: 2.5 } }],
    ["an epoch below 0", { ...good, payload: { ...good.payload, epoch: -1 } }],
    ["no experiment", { ...good, payload: { grid_search_id: "g", epoch: 1 } }],
    ["another word as score", { ...good, payload: { ...good.payload, metric_scores: [{ metric: "a", split: "v", score: "nan" }] } }],
    ["scores that are none", { ...good, payload: { ...good.payload, metric_scores: { a: 1 } } }],
    ["a text as attempt", { ...good, attempt: "1" }],
  ])("passes over %s", (_, raw) => {
    expect(incoming(raw).known).toBeNull();
  });

  it("keeps the number of what it does not know", () => {
    expect(incoming({ seq: 9, event_type: "other" }).seq).toBe(9);
    expect(incoming({ seq: "9" }).seq).toBe(0);
  });
});

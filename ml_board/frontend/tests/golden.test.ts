// One log, folded by Python (tests/ml_board/golden/expected.json, kept true by tests/ml_board/test_golden.py) and here.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { fold, fromRows, State, toRows } from "../src/state/fold";
import type { Rows } from "../src/wire/answers";

const folder = new URL("../../../tests/ml_board/golden/", import.meta.url);
const events = readFileSync(new URL("log.jsonl", folder), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as { seq: number });
const expected = (JSON.parse(readFileSync(new URL("expected.json", folder), "utf8")) as { at: Record<string, Rows> }).at;
const moments = Object.keys(expected).map(Number).sort((a, b) => a - b);

function foldTo(state: State, seq: number): State {
  for (const event of events) if (event.seq > state.seq && event.seq <= seq) fold(state, event);
  return state;
}

describe("the golden log", () => {
  it.each(moments)("says at event %i what Python says", (seq) => {
    expect(toRows(foldTo(new State(), seq))).toEqual(expected[seq]);
  });

  it("says the same from any snapshot on, or that it must be asked", () => {
    let asked = 0;
    for (const start of moments) {
      for (const end of moments) {
        if (end <= start) continue;
        const state = foldTo(fromRows(expected[start] as Rows), end);
        if (state.stale) asked++;
        else expect(toRows(state)).toEqual(expected[end]);
      }
    }
    expect(asked).toBeGreaterThan(0); // epochs were run again in this log, so both ways were taken
  });

  it("says the same when events come twice", () => {
    const last = moments.at(-1) as number;
    const state = foldTo(new State(), last);
    const before = JSON.stringify(toRows(state));
    for (const event of events) if (event.seq > state.seq) fold(state, event);
    expect(JSON.stringify(toRows(state))).toBe(before);
  });
});

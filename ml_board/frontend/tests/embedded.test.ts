// The board in one file, over the golden log: it answers what the board does (tests/ml_board/golden/expected.json).

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Embedded } from "../src/state/embedded";
import { thin } from "../src/state/thin";
import type { ExperimentDetail, Rows, SeriesAnswer } from "../src/wire/answers";
import type { Scalar } from "../src/wire/events";

const folder = new URL("../../../tests/ml_board/golden/", import.meta.url);
const lines = readFileSync(new URL("log.jsonl", folder), "utf8").trim().split("\n");
const expected = JSON.parse(readFileSync(new URL("expected.json", folder), "utf8")) as {
  at: Record<string, Rows>;
  experiments: Record<string, (ExperimentDetail & { grid_search_id: string; seq: number })[]>;
  series: Record<string, SeriesAnswer>;
};
const moments = Object.keys(expected.at).map(Number);
const few = Object.keys(expected.series).map(Number);
const ID = "golden";

function embedded(spacing?: number): Embedded {
  const found = new Embedded(spacing);
  found.answer("/here", "text");
  for (const line of lines) found.event(line);
  found.file = { grid_search_id: ID, made: 0, version: "", head: lines.length, of: lines.length, events: lines.length, left_out: [], thinned: null };
  return found;
}

/** As the page has it: numbers that JSON has none of are words. */
const said = ({ seq, series }: SeriesAnswer): SeriesAnswer => ({
  seq,
  series: series.map((one) => ({ ...one, values: one.values.map((value) => (Number.isFinite(value) ? value : (`${value}` as Scalar))) })),
});

describe("the board in one file", () => {
  it.each([undefined, 50])("has the rows of any moment, in any order, with keyframes every %s events", async (spacing) => {
    const board = embedded(spacing);
    for (const at of [...moments, ...[...moments].reverse()]) expect(await board.rows(ID, at)).toEqual(expected.at[at]);
    expect((await board.rows(ID)).seq).toBe(lines.length);
  });

  it("has experiments in detail", async () => {
    const board = embedded();
    for (const at of few) {
      for (const { grid_search_id: _, seq: __, ...one } of expected.experiments[at] ?? []) {
        const { checkpoints, changes, ...rest } = await board.experiment(ID, one.experiment_id, at);
        expect({ ...rest, checkpoints, changes }).toEqual(one);
      }
    }
    await expect(board.experiment(ID, 99)).rejects.toThrow("there is no experiment 99");
  });

  it("has the points that the board would send", async () => {
    const board = embedded();
    for (const at of few) {
      const wanted = expected.series[at] as SeriesAnswer;
      const [ids, scores] = [wanted.series.map((one) => one.experiment_id), wanted.series.map((one) => one.score)];
      expect(said(await board.series(ID, ids, scores, { at, points: 8 }))).toEqual(wanted);
      const part = await board.series(ID, ids, scores, { at, first: 2, last: 4, points: 8 });
      expect(part.series.flatMap((one) => one.epochs).every((epoch) => epoch >= 2 && epoch <= 4)).toBe(true);
    }
  });

  it("finds events forwards and backwards", async () => {
    const board = embedded();
    const seqs = (page: { events: unknown[] }): number[] => page.events.map((one) => (one as { seq: number }).seq);
    expect(seqs(await board.events(ID, { after: 5, limit: 3 }))).toEqual([6, 7, 8]);
    expect(seqs(await board.events(ID, { before: 5, limit: 3 }))).toEqual([2, 3, 4]);
    const all = lines.map((line) => JSON.parse(line) as { seq: number; event_type: string; payload?: { experiment_id?: number } });
    const wanted = all.filter((one) => one.event_type === "job_status" && one.payload?.experiment_id === 1).map((one) => one.seq);
    const found: number[] = [];
    for (let next: number | null | undefined = 0; next !== null && next !== undefined; ) {
      const page = await board.events(ID, { after: next, limit: 2, type: ["job_status"], experiment: 1 });
      found.push(...seqs(page));
      next = page.next;
    }
    expect(found).toEqual(wanted);
  });

  it("says what it has not", async () => {
    const board = embedded();
    expect(await board.text("/here")).toBe("text");
    await expect(board.text("/there")).rejects.toThrow("it is not in this file");
    await expect(board.rows("another")).rejects.toThrow("this file holds golden and no other grid search");
    await expect(board.deleteCheckpoint(ID, 1, 1)).rejects.toThrow("it is not in this file");
    await expect(board.report(ID, { metric: "val/f1", epoch: null, at: 3 })).rejects.toThrow("only as of the end");
  });
});

describe("thinning", () => {
  it("keeps ends and spikes, and what is no number only where there is nothing else", () => {
    const values = Float64Array.from({ length: 1000 }, (_, i) => (i === 444 ? 99 : i === 445 ? -99 : i < 300 ? NaN : i % 7));
    const kept = thin(values, 50);
    expect(kept.length).toBeLessThanOrEqual(50);
    for (const one of [0, 444, 445, 999]) expect(kept).toContain(one);
    expect(kept.filter((one) => one < 290).length).toBeLessThanOrEqual(16);
    expect(thin(values.subarray(0, 50), 50)).toHaveLength(50);
  });
});

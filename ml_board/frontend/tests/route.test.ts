import { describe, expect, it } from "vitest";
import { format, link, parse, route } from "../src/state/route";
import { ranges, unranged } from "../src/wire/rest";

describe("the address", () => {
  it.each([
    ["", { id: null, page: "grids", query: {} }],
    ["#/", { id: null, page: "grids", query: {} }],
    ["#/settings", { id: null, page: "settings", query: {} }],
    ["#/g", { id: "g", page: "analysis", query: {} }],
    ["#/g/nowhere", { id: "g", page: "analysis", query: {} }],
    ["#/g/events?seq=3", { id: "g", page: "events", query: { seq: "3" } }],
    ["#/../etc", { id: null, page: "grids", query: {} }],
    ["#/<img>/events", { id: null, page: "grids", query: {} }],
  ])("%s is read", (hash, expected) => {
    expect(parse(hash)).toEqual(expected);
  });

  it("comes back as it went, whatever was chosen", () => {
    const query = { q: "a b&c=d#e?f/g", "f.swept:a.b": "< 0.01", sel: "1-3,7", "ü": "<b>" };
    const there = { id: "2026-11-21--10-26-58", page: "analysis" as const, query };
    expect(parse(format(there))).toEqual(there);
  });

  it("takes the moment along, and what was selected to pages about many", () => {
    route.value = { id: "g", page: "analysis", query: { at: "5", sel: "1,2", "f.status": "done", lay: "x" } };
    expect(parse(link("compare")).query).toEqual({ at: "5", sel: "1,2", "f.status": "done" });
    expect(parse(link("experiment", { exp: "3" })).query).toEqual({ at: "5", exp: "3" });
    expect(parse(link("analysis", {}, "h")).query).toEqual({});
    expect(link("grids")).toBe("#/");
  });
});

describe("ranges", () => {
  it.each([
    [[], ""],
    [[3], "3"],
    [[3, 1, 2, 7, 7], "1-3,7"],
    [[0, 1, 5, 6, 9], "0-1,5-6,9"],
  ])("of %j", (numbers, text) => {
    expect(ranges(numbers)).toBe(text);
    expect(unranged(text)).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  });

  it("pass over what is none", () => {
    expect(unranged("x,3,-4,5-2,1e3, 7,8")).toEqual([3, 8]);
    expect(unranged("0-99999999999").length).toBeLessThanOrEqual(100_001);
  });
});

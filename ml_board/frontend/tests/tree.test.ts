import { describe, expect, it } from "vitest";
import { byPackage } from "../src/state/compare";
import { diff, flatten, MISSING, same } from "../src/state/tree";

describe("flatten", () => {
  it("joins keys by dots, and counts the members of a list", () => {
    expect([...flatten({ a: { b: 1, c: { d: null } }, e: [{ f: true }, 2] })]).toEqual([["a.b", 1], ["a.c.d", null], ["e.0.f", true], ["e.1", 2]]);
  });
  it("keeps a list of plain values, and what is empty, whole", () => {
    expect([...flatten({ betas: [0.9, 0.999], none: {}, nothing: [] })]).toEqual([["betas", [0.9, 0.999]], ["none", {}], ["nothing", []]]);
  });
  it("has a plain value at the empty path", () => {
    expect([...flatten(3)]).toEqual([["", 3]]);
    expect([...flatten(null)]).toEqual([["", null]]);
  });
  it("confuses no key with a path", () => {
    const found = flatten({ "a.b": 1, a: { b: 2 }, "": 3, 'q"': 4, __proto__x: 5 });
    expect([...found]).toEqual([['"a.b"', 1], ["a.b", 2], ['""', 3], ['"q\\""', 4], ["__proto__x", 5]]);
  });
  it("takes any text as text, and JSON's own __proto__ as a key", () => {
    expect([...flatten(JSON.parse('{"__proto__": {"x": "<b>"}}'))]).toEqual([["__proto__.x", "<b>"]]);
  });
  it("bears depth", () => {
    let deep: unknown = 1;
    for (let i = 0; i < 500; i++) deep = { a: deep };
    expect(flatten(deep).size).toBe(1);
  });
});

describe("diff", () => {
  const of = (...all: unknown[]) => diff(all.map(flatten));
  it("has every path of any of them, and tells null from nothing", () => {
    expect(of({ a: 1, b: null }, { a: 1, c: 2 }, { a: 1, b: null })).toEqual([
      { path: "a", values: [1, 1, 1], differs: false },
      { path: "b", values: [null, MISSING, null], differs: true },
      { path: "c", values: [MISSING, 2, MISSING], differs: true },
    ]);
  });
  it("does not mind the order of keys, but that of lists", () => {
    expect(of({ a: 1, b: 2 }, { b: 2, a: 1 }).some(({ differs }) => differs)).toBe(false);
    expect(of({ a: [1, 2] }, { a: [2, 1] })[0]?.differs).toBe(true);
  });
  it("tells a value from what it is written like", () => {
    expect(of({ a: 1 }, { a: "1" })[0]?.differs).toBe(true);
    expect(of({ a: {} }, { a: [] })[0]?.differs).toBe(true);
    expect(of({ a: false }, { a: null })[0]?.differs).toBe(true);
  });
  it("sees what differs only in the last", () => expect(of({ a: 1 }, { a: 1 }, { a: 2 })[0]?.differs).toBe(true));
  it("finds nothing in nothing", () => {
    expect(diff([])).toEqual([]);
    expect(same(MISSING, MISSING)).toBe(true);
    expect(same(MISSING, null)).toBe(false);
  });
});

it("names packages instead of counting them", () => {
  expect(byPackage({ host: "a", all_packages: ["numpy==2.0", "odd"] })).toEqual({ host: "a", all_packages: { numpy: "2.0", odd: null } });
  expect(byPackage({ host: "a" })).toEqual({ host: "a" });
  expect(byPackage(null)).toBeNull();
});

it("compares with none what is not known", () => {
  expect(diff([null, flatten({ a: 1 }), flatten({ a: 1 })])).toEqual([{ path: "a", values: [undefined, 1, 1], differs: false }]);
  expect(diff([null, flatten({ a: 1 }), flatten({ a: 2 })])[0]?.differs).toBe(true);
  expect(diff([null, null])).toEqual([]);
});

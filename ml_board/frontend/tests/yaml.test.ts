// What is expected here was read back by PyYAML's SafeLoader, CSafeLoader and mlgym's loader (mlgym/plan/config.py) as
// the same data, together with 4,000 random documents by hypothesis, numbers by type.
import { describe, expect, it } from "vitest";
import { Exact, exact, isTree, json, yaml } from "../src/state/yaml";

const scalar = (value: unknown): string => yaml({ k: value }).slice(3, -1);

describe("strings", () => {
  it.each([
    "train", "val accuracy", "conv_net", "a-b.c/d+e@f", "größe", "日本", "/etc/x", "_x", "e5", "NaN", "Infinity", "nan", "inf", "yes sir",
  ])("%s stands bare", (text) => expect(scalar(text)).toBe(text));

  it.each([
    "", " ", " a", "a ", "yes", "No", "on", "OFF", "y", "N", "true", "False", "null", "NULL", "~", "1", "-1", "+1", "1.0", ".5", "1e5", "1e-05", "0x1f",
    "0o7", "017", "1_000", "1:30", "2026-01-01", "2026-01-01 10:00:00", ".inf", "-.INF", ".nan", "<<", "=", "-", "- a", "---", "...", "a: b", "a:", "a #b",
    "#", "!x", "&a", "*a", "%x", "@x", "`x", "|", ">", "{", "}", "[", "]", ",", "a,b", "?", "? a", ": a", "'", '"', "\\", "./x", "a\tb", "a\r\nb", "\u001b[31m",
  ])("%j is quoted as in JSON", (text) => expect(scalar(text)).toBe(JSON.stringify(text)));

  it.each([
    ["a\u2028b", '"a\\u2028b"'],
    ["\u0085", '"\\u0085"'],
    ["\u007f", '"\\u007f"'],
    ["\ufeff", '"\\ufeff"'],
    ["\u0000", '"\\u0000"'],
    ["😀", '"😀"'],
  ])("%j has no character that YAML cannot hold", (text, written) => expect(scalar(text)).toBe(written));

  it("of several lines stand as they are", () => {
    expect(scalar("a\n  b\n\nc: #d\n")).toBe("|\n  a\n    b\n\n  c: #d");
    expect(scalar("a\nb")).toBe("|-\n  a\n  b");
    expect(yaml("a\n---\nb")).toBe("|-\n  a\n  ---\n  b\n");
    expect(yaml([{ a: { b: "x\ny" } }])).toBe("- a:\n    b: |-\n      x\n      y\n");
  });

  it.each(["a\n\n", "\na", " a\nb", "a\n ", "a\n \n", "\n", "a\tb\nc", "a\nb\u2028"])("%j would not come back so", (text) =>
    expect(scalar(text)).toBe(JSON.stringify(text).replace("\u2028", "\\u2028")),
  );
});

describe("numbers and words", () => {
  it.each([
    [0, "0"], [-3, "-3"], [0.001, "0.001"], [1e-7, "1.0e-7"], [1.5e-7, "1.5e-7"], [1e21, "1.0e+21"], [-1.25e300, "-1.25e+300"],
    [true, "true"], [false, "false"], [null, "null"],
    [new Exact("1.0"), "1.0"], [new Exact("1e-05"), "1.0e-05"], [new Exact("1E5"), "1.0e+5"], [new Exact("-0.0"), "-0.0"],
    [new Exact("9223372036854775808"), "9223372036854775808"],
  ])("%s -> %s", (value, written) => expect(scalar(value)).toBe(written));

  it("are kept as they are written, where the browser tells", () => {
    expect(exact('{"a": [1, "1.0", null]}')).toEqual({ a: [1, "1.0", null] });
    const one = exact("1.0");
    expect(one === 1 || `${one as Exact}` === "1.0").toBe(true);
    expect(isTree(new Exact("1"))).toBe(false);
    expect(JSON.parse(json({ a: [new Exact("1e-05"), "x"] }))).toEqual({ a: [1e-5, "x"] });
  });
});

describe("containers", () => {
  it("that are empty", () => expect(yaml({ a: {}, b: [], c: [[], {}] })).toBe("a: {}\nb: []\nc:\n  - []\n  - {}\n"));
  it("alone", () => expect([yaml({}), yaml([]), yaml(null), yaml("x")]).toEqual(["{}\n", "[]\n", "null\n", "x\n"]));

  it("within each other", () =>
    expect(yaml({ req: [{ name: "x", sub: ["a", 1e-7] }, [[1, [{ k: 2 }]]]], split: { train: 0.7 } })).toBe(
      ["req:", "  - name: x", "    sub: [a, 1.0e-7]", "  - - - 1", "      - - k: 2", "split:", "  train: 0.7", ""].join("\n"),
    ));

  it("on one line while it is short", () => {
    expect(yaml([1, "a b", null])).toBe('[1, a b, null]\n');
    expect(yaml(["a\nb"])).toBe('["a\\nb"]\n');
    expect(yaml(Array(30).fill("word")).split("\n").length).toBe(31);
  });

  it("with any keys", () => {
    expect(yaml({ on: 1, "1": 2, "": 3, "<<": 4, "a: b": 5, "__proto__x": 6 })).toBe('"1": 2\n"on": 1\n"": 3\n"<<": 4\n"a: b": 5\n__proto__x: 6\n');
    expect(yaml(JSON.parse('{"__proto__": {"x": 1}}'))).toBe("__proto__:\n  x: 1\n");
    const long = "k".repeat(1100);
    expect(yaml([{ [long]: { a: 1 } }])).toBe(`- ? ${long}\n  :\n    a: 1\n`);
  });
});

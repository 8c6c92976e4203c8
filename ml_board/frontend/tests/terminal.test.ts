import { expect, it } from "vitest";
import { plain, print, type Printed } from "../src/state/terminal";

const nothing: Printed = { pieces: [], tail: "", cut: 0 };
const text = ({ pieces, tail }: Printed): string => [...pieces, tail].join("\n");

it.each([
  ["a\x1b[31mred\x1b[0m b", "ared b"],
  ["\x1b[2K\x1b[1;32mok\x1b]0;title\x07!", "ok!"],
  ["\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"],
  ["10%\r50%\r100%\nnext", "100%\nnext"],
  ["a\r\nb\r\r\nc", "a\nb\nc"],
  ["50%\r", "50%\r"],
  ["10%\r50%\r", "50%\r"],
  ["\r", ""],
  ["", ""],
])("%j looks like %j", (raw, seen) => expect(plain(raw)).toBe(seen));

it("does not depend on how it is cut", () => {
  const raw = "a\x1b[31mred\x1b[0m\r\nbar 1%\rbar 2%\rbar 3%\ndone \x1b]0;t\x07x\n\n\x1b[1A.\rend";
  const whole = text(print(nothing, raw));
  for (let size = 1; size < raw.length; size++) {
    let state = nothing;
    for (let at = 0; at < raw.length; at += size) state = print(state, raw.slice(at, at + size));
    expect(text(state)).toBe(whole);
  }
});

it("keeps the newest two million characters, and says how many went", () => {
  let state = nothing;
  const line = `${"x".repeat(99)}\n`;
  for (let i = 0; i < 300; i++) state = print(state, line.repeat(100));
  const kept = text(state).length;
  expect(kept).toBeLessThanOrEqual(2_000_100);
  expect(kept).toBeGreaterThan(1_900_000);
  expect(Math.abs(kept + state.cut - 3_000_000)).toBeLessThan(2000);
  expect(state.pieces.every((piece) => piece.length <= 30_000)).toBe(true);
});

it("survives a line without an end", () => {
  let state = nothing;
  for (let i = 0; i < 30; i++) state = print(state, "x".repeat(100_000));
  expect(state.tail.length).toBe(2_000_000);
  expect(state.cut).toBe(1_000_000);
  for (let i = 0; i < 30; i++) state = print(state, `\r${"y".repeat(100_000)}`);
  expect(text(state)).toBe("y".repeat(100_000));
});

import { expect, test } from "vitest";
import { figures } from "../src/state/format";

// mlgym.record.card_blocks.figures says the same.
test.each([
  [0, "0"],
  [0.25, "0.25"],
  [0.251234, "0.251"],
  [0.000123456, "1.23e-4"],
  [12.3456, "12.3"],
  [999.7, "1,000"],
  [9876.54, "9,877"],
  [1234567.8, "1,234,568"],
  [-0.25, "-0.25"],
])("a quantity: %s", (value, text) => {
  expect(figures(value)).toBe(text);
});

// What a terminal would show of what was printed, without colours. Pure.

const MOST = 2_000_000; // characters that are kept
const PIECE = 30_000;

export interface Printed {
  /** Whole lines that do not change any more, each piece without the newline at its end. */
  pieces: readonly string[];
  /** What may still change. */
  tail: string;
  /** About how many bytes are not here any more. */
  cut: number;
}

/** With what came next. */
export function print(before: Printed, text: string): Printed {
  const pieces = [...before.pieces];
  let tail = plain(before.tail + text);
  while (tail.length > PIECE) {
    const found = tail.lastIndexOf("\n", PIECE);
    const at = found < 0 ? tail.indexOf("\n") : found;
    if (at < 0) break;
    pieces.push(tail.slice(0, at));
    tail = tail.slice(at + 1);
  }
  let size = tail.length;
  for (const piece of pieces) size += piece.length;
  let { cut } = before;
  while (size > MOST && pieces.length) {
    const { length } = pieces.shift() as string;
    size -= length;
    cut += length;
  }
  if (size <= MOST) return { pieces, tail, cut };
  return { pieces, tail: tail.slice(-MOST), cut: cut + size - MOST }; // one line without an end
}

/** Without escape codes; what a carriage return has gone back over is gone. Whatever is not whole yet stays. */
export function plain(text: string): string {
  return text
    .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/g, "")
    .replace(/\r+\n/g, "\n")
    .split("\n")
    .map((line) => line.slice(line.lastIndexOf("\r", line.length - 2) + 1))
    .join("\n");
}

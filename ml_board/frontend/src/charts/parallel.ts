// Parallel coordinates on canvas (Inselberg, 1985): an axis for each parameter, a line for each experiment.
//
//   sweep ─► arrange (places in pixels, once) ─► paint (all lines) ─► paintOver (brushes and what is pointed at)

import type { Theme } from "../state/palette";
import { type Axis, placeOf, type Sweep } from "../state/sweep";
import { ticks } from "./axis";
import { colourOf } from "./heatmap";

const [TOP, BOTTOM, LEFT, RIGHT] = [14, 14, 26, 76];
const SHADES = 24;

export interface Layout {
  sweep: Sweep;
  axes: Axis[];
  width: number;
  height: number;
  xs: number[];
  /** Of each axis where each experiment crosses it; NaN: nowhere. */
  ys: Float64Array[];
}

export function arrange(sweep: Sweep, shown: readonly Axis[], width: number, height: number): Layout {
  const axes = [...shown, sweep.score];
  const xs = axes.map((_, i) => LEFT + (i * (width - LEFT - RIGHT)) / Math.max(1, axes.length - 1));
  return { sweep, axes, width, height, xs, ys: axes.map((axis) => crossings(sweep, axis, height)) };
}

/** y in pixels of a place of an axis, and back. */
export const yOf = (height: number, place: number): number => height - BOTTOM - place * (height - TOP - BOTTOM);
export const placeAt = (height: number, y: number): number => Math.min(1, Math.max(0, (height - BOTTOM - y) / (height - TOP - BOTTOM)));

/** Those that share a value are spread about it by rising score: a ribbon that shows how good the value is, not one line. */
function crossings(sweep: Sweep, axis: Axis, height: number): Float64Array {
  const ys = axis.numbers.map((value) => yOf(height, placeOf(axis, value)));
  const places = axis.values.map((value) => yOf(height, placeOf(axis, value)));
  if (!axis.labels.length) return ys;
  const gap = Math.min(...places.slice(1).map((place, i) => Math.abs(place - (places[i] as number))));
  const members = new Map<number, number[]>();
  for (const i of sweep.order) {
    const value = axis.numbers[i] as number;
    const found = members.get(value);
    if (found) found.push(i);
    else members.set(value, [i]);
  }
  for (const some of members.values()) {
    const step = Math.min(3, (0.7 * gap) / some.length);
    some.forEach((i, rank) => (ys[i] = Math.min(height - 4, Math.max(4, (ys[i] as number) - (rank - (some.length - 1) / 2) * step))));
  }
  return ys;
}

export interface Ink {
  theme: Theme;
  paper: string;
  ink: string;
  line: string;
  strong: string;
  accent: string;
  font: string;
}

export function inkOf(theme: Theme): Ink {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string): string => style.getPropertyValue(name);
  return {
    theme,
    paper: of("--raised"),
    ink: of("--ink"),
    line: of("--line"),
    strong: of("--line-strong"),
    accent: of("--accent"),
    font: `12px ${getComputedStyle(document.body).fontFamily}`,
  };
}

/** A clean canvas of this size, sharp on any screen; `head` pixels are left free above. */
function canvas(element: HTMLCanvasElement, { width, height }: Layout, head = 0): CanvasRenderingContext2D {
  const sharp = window.devicePixelRatio || 1;
  element.width = Math.round(width * sharp);
  element.height = Math.round((height + head) * sharp);
  const context = element.getContext("2d") as CanvasRenderingContext2D;
  context.scale(sharp, sharp);
  context.translate(0, head);
  return context;
}

/** Add the line of an experiment to the path. */
function trace(context: CanvasRenderingContext2D, { xs, ys }: Layout, i: number): void {
  let begun = false;
  for (let a = 0; a < xs.length; a++) {
    const y = (ys[a] as Float64Array)[i] as number;
    if (y !== y) continue;
    if (begun) context.lineTo(xs[a] as number, y);
    else context.moveTo(xs[a] as number, y);
    begun = true;
  }
}

export function paint(element: HTMLCanvasElement, layout: Layout, ink: Ink, head = 0): void {
  const context = canvas(element, layout, head);
  const { sweep, axes, xs, height } = layout;
  const lines = (which: (i: number) => boolean, colour: string, alpha: number): void => {
    context.strokeStyle = colour;
    context.globalAlpha = alpha;
    context.beginPath();
    for (const i of sweep.order) if (which(i)) trace(context, layout, i);
    context.stroke();
  };
  // The fewer the bolder; the best above the others, and those left out below all.
  const passing = sweep.passes.reduce((sum, one) => sum + one, 0);
  context.lineWidth = passing > 300 ? 1 : 1.5;
  lines((i) => !sweep.passes[i], ink.line, 0.6);
  context.setLineDash([4, 4]);
  lines((i) => sweep.passes[i] === 1 && sweep.shades[i] !== sweep.shades[i], ink.strong, 0.8);
  context.setLineDash([]);
  const bucket = Float64Array.from(sweep.shades, (shade, i) => (sweep.passes[i] ? Math.floor(shade * (SHADES - 1) + 0.5) : NaN));
  for (let b = 0; b < SHADES; b++) {
    lines((i) => bucket[i] === b, colourOf(b / (SHADES - 1), ink.theme), passing > 300 ? 0.7 : 0.9);
  }
  context.globalAlpha = 1;
  context.textBaseline = "middle";
  context.font = ink.font;
  axes.forEach((axis, a) => {
    const x = Math.round(xs[a] as number) + 0.5;
    context.lineWidth = 1;
    context.strokeStyle = ink.strong;
    context.beginPath();
    context.moveTo(x, yOf(height, 1) - 4);
    context.lineTo(x, yOf(height, 0) + 4);
    const marks = ticks(axis, 22 / (height - TOP - BOTTOM));
    for (const { place } of marks) {
      context.moveTo(x - 3, yOf(height, place));
      context.lineTo(x + 3, yOf(height, place));
    }
    context.stroke();
    const room = ((xs[1] ?? layout.width) as number) - LEFT - 16;
    for (const { place, label } of marks) {
      const text = clip(label, Math.max(6, Math.floor((axis === sweep.score ? RIGHT - 10 : room) / 7)));
      context.lineWidth = 4;
      context.lineJoin = "round";
      context.strokeStyle = ink.paper;
      context.strokeText(text, x + 8, yOf(height, place));
      context.fillStyle = ink.ink;
      context.fillText(text, x + 8, yOf(height, place));
    }
    if (head) {
      context.fillStyle = ink.ink;
      context.textAlign = a === 0 ? "left" : a === axes.length - 1 ? "right" : "center";
      context.fillText(clip(axis.column.title, 28), a === 0 ? 8 : a === axes.length - 1 ? layout.width - 8 : x, 8 - head / 2);
      context.textAlign = "left";
    }
  });
}

export function clip(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** What changes while one points: brushes, as places of axes, the selected experiments, and the one pointed at. */
export function paintOver(
  element: HTMLCanvasElement,
  layout: Layout,
  ink: Ink,
  brushes: readonly (readonly [axis: number, bottom: number, top: number])[],
  selected: readonly number[],
  hovered: number,
): void {
  const context = canvas(element, layout);
  const { sweep, height, xs } = layout;
  for (const i of hovered < 0 ? selected : [...selected, hovered]) {
    const shade = sweep.shades[i] as number;
    const rounds: [number, string][] = [
      [i === hovered ? 7 : 5, ink.paper],
      [i === hovered ? 5 : 3.5, ink.ink],
      [i === hovered ? 3 : 1.8, shade === shade ? colourOf(shade, ink.theme) : ink.strong],
    ];
    context.beginPath();
    trace(context, layout, i);
    context.lineJoin = "round";
    for (const [width, colour] of rounds) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }
  for (const [axis, bottom, top] of brushes) {
    const [x, y] = [(xs[axis] as number) - 7, yOf(height, top) - 2];
    const size = yOf(height, bottom) + 2 - y;
    context.fillStyle = ink.accent;
    context.globalAlpha = 0.22;
    context.fillRect(x, y, 14, size);
    context.globalAlpha = 1;
    context.strokeStyle = ink.accent;
    context.lineWidth = 1.5;
    context.strokeRect(x, y, 14, size);
  }
}

/** The experiment whose line is nearest to a point, at most a dozen pixels away; -1: none. What is left out is not found. */
export function nearest({ sweep, xs, ys }: Layout, x: number, y: number): number {
  let found = -1;
  let least = 12;
  if (xs.length < 2) return found;
  const a = Math.max(0, Math.min(xs.length - 2, xs.filter((one) => one <= x).length - 1));
  const share = Math.min(1, Math.max(0, (x - (xs[a] as number)) / ((xs[a + 1] as number) - (xs[a] as number))));
  const [from, to] = [ys[a] as Float64Array, ys[a + 1] as Float64Array];
  for (const i of sweep.order) {
    if (!sweep.passes[i]) continue;
    const [left, right] = [from[i] as number, to[i] as number];
    // Without a value on one of both axes it is only there where it crosses the other.
    const at = left !== left ? right : right !== right ? left : left + share * (right - left);
    // Across a steep line is nearer than up or down.
    const steep = (right - left) / ((xs[a + 1] as number) - (xs[a] as number)) || 0;
    const distance = Math.abs(at - y) / Math.hypot(1, steep);
    if (distance <= least) [found, least] = [i, distance];
  }
  return found;
}

/** The axis at most so many pixels beside x; -1: none. */
export function axisAt({ xs }: Layout, x: number): number {
  const reach = Math.min(18, ((xs[1] as number) - (xs[0] as number)) / 3);
  return xs.findIndex((one) => Math.abs(one - x) <= reach);
}

/** The picture as a PNG, with titles. */
export function png(layout: Layout, ink: Ink): Promise<Blob | null> {
  const element = document.createElement("canvas");
  paint(element, layout, ink, 28);
  const context = element.getContext("2d") as CanvasRenderingContext2D;
  context.globalCompositeOperation = "destination-over"; // the paper, below what is drawn
  context.fillStyle = ink.paper;
  context.fillRect(0, -28, layout.width, layout.height + 28);
  return new Promise((found) => element.toBlob(found));
}

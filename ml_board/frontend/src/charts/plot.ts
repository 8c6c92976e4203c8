// One chart on canvas. uPlot keeps scales, axes and the pointer; the lines are drawn here, because each has xs of its own,
// a band, gaps and marks where there is no number, and comes and goes while the chart stays.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { duration, number } from "../state/format";
import { type Axis, type Box, type Line, height as place, logTicks, nearest } from "../state/lines";

export interface Ink {
  colour: string;
  dash: number[] | null;
}

/** A point of a line under the pointer, in pixels from the upper left corner of the plot. */
export interface Read {
  line: Line;
  at: number;
  x: number;
  y: number;
}

export interface Reading {
  /** The closest of all. */
  nearest: Read;
  /** One of each line that has one there, the highest value first. */
  points: Read[];
  /** Where the plot begins and how wide it is, for what is shown beside the pointer. */
  left: number;
  width: number;
}

export interface Plot {
  show: (lines: readonly Line[], box: Box) => void;
  size: (width: number, height: number) => void;
  /** Bring one line to the front. */
  highlight: (id: string | null) => void;
  /** Read at a value of x, as if the pointer were there, `top` pixels below the upper edge; null: it has left. */
  point: (x: number | null, top?: number) => void;
  /** The xs that are to be seen. */
  range: () => [number, number];
  canvas: HTMLCanvasElement;
  destroy: () => void;
}

export interface Told {
  ink: (id: string) => Ink;
  zoom: (range: [number, number] | null) => void;
  read: (reading: Reading | null) => void;
  /** `count`: how many clicks in a row. */
  click: (count: number) => void;
}

const FONT = "11px system-ui, sans-serif";
/** Corners of lines on one canvas beyond which they are one pixel wide: those are drawn ten times as fast. */
const MANY = 4000;
const REACH = 40; // px beside the closest point within which other lines have a value too
const STEPS = Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();
const CLOCK = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, ...STEPS.map((one) => one * 86400)];

const token = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

/** A number of an axis. */
export function mark(value: number): string {
  const short = Number(value.toPrecision(7));
  return Math.abs(short) >= 1e6 ? short.toExponential().replace("e+", "e") : number(short);
}

export function plot(host: HTMLElement, axis: Axis, log: boolean, width: number, height: number, told: Told): Plot {
  let lines: readonly Line[] = [];
  let box: Box = { x: [0, 1], y: [0, 1] };
  let bright: string | null = null;
  let reading: Reading | null = null;
  const over = document.createElement("canvas");
  const muted = (): string => token("muted");
  const grid = { stroke: () => token("line"), width: 1 };

  const chart = new uPlot(
    {
      width,
      height,
      legend: { show: false },
      padding: [6, 18, 0, 0],
      scales: { x: { time: false }, y: { distr: log ? 3 : 1, range: () => box.y } },
      axes: [
        {
          stroke: muted,
          font: FONT,
          grid: { show: false },
          ticks: { ...grid, size: 4 },
          size: 26,
          gap: 4,
          space: axis === "time" ? 64 : 48,
          incrs: axis === "time" ? CLOCK : STEPS,
          values: (_, ticks) => ticks.map((tick) => (axis === "time" ? duration(tick) : mark(tick))),
        },
        {
          stroke: muted,
          font: FONT,
          grid,
          ticks: { show: false },
          gap: 6,
          space: 34,
          size: (_, texts) => 14 + 6.3 * Math.max(2, ...(texts ?? []).map(({ length }) => length)),
          values: (_, ticks) => ticks.map(mark),
          ...(log && {
            splits: (u: uPlot, _: number, low: number, high: number) => logTicks(low, high, Math.max(2, u.bbox.height / uPlot.pxRatio / 34)),
            filter: (_: uPlot, ticks: number[]) => ticks,
          }),
        },
      ],
      series: [{}, { paths: () => null, points: { show: false } }],
      cursor: {
        x: false,
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false, dist: 5 },
        bind: {
          dblclick: () => () => {
            told.zoom(null);
            return null;
          },
        },
      },
      hooks: {
        draw: [paint],
        setCursor: [(u) => read((u.cursor.left ?? -1) < 0 ? null : (u.cursor.left as number), u.cursor.top as number)],
        setSelect: [
          (u) => {
            const { left, width: wide } = u.select;
            if (wide > 0) told.zoom([u.posToVal(left, "x"), u.posToVal(left + wide, "x")]);
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
      },
    },
    [[0, 1], [0, 1]],
    host,
  );
  over.setAttribute("aria-hidden", "true");
  chart.over.append(over);
  // uPlot keeps the click that ends a drag to itself.
  chart.over.addEventListener("click", ({ detail }) => told.click(detail));

  /** From values to pixels of a canvas whose plot begins at (`left`, `top`). */
  function frame(left: number, top: number): Frame {
    const { width: wide, height: tall } = chart.bbox;
    const scale = log ? Math.log10 : Number;
    const [low, high] = [scale(box.y[0]), scale(box.y[1])];
    return { left, perX: wide / (box.x[1] - box.x[0]), first: box.x[0], bottom: top + tall, perY: tall / (high - low), low, log, tall, wide };
  }

  function paint(): void {
    const { ctx, bbox } = chart;
    const here = frame(bbox.left, bbox.top);
    // Whatever is set here is taken back: uPlot does not set again what it believes to be set.
    ctx.save();
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left - 2, bbox.top - 2, bbox.width + 4, bbox.height + 4);
    ctx.clip();
    for (const line of lines) if (line.low && line.high) fill(ctx, line, told.ink(line.entry.id).colour, here);
    // Of many points that share a pixel's column, four remain.
    const corners = lines.reduce((sum, { xs, raw }) => sum + (raw ? 2 : 1) * Math.min(xs.length, 4 * bbox.width), 0);
    for (const line of lines) stroke(ctx, line, told.ink(line.entry.id), here, corners > MANY ? 0 : 1.5);
    ctx.restore();
    for (const line of lines) marks(ctx, line, told.ink(line.entry.id).colour, here);
    ctx.restore();
    cover();
  }

  /** What lies over the lines: the highlighted one, and what is under the pointer. */
  function cover(): void {
    const { bbox } = chart;
    const ratio = uPlot.pxRatio;
    if (over.width !== bbox.width || over.height !== bbox.height) {
      over.width = bbox.width;
      over.height = bbox.height;
    }
    const ctx = over.getContext("2d") as CanvasRenderingContext2D;
    ctx.clearRect(0, 0, over.width, over.height);
    const here = frame(0, 0);
    if (bright !== null) {
      ctx.globalAlpha = 0.75;
      ctx.fillStyle = token("raised");
      ctx.fillRect(0, 0, over.width, over.height);
      ctx.globalAlpha = 1;
      for (const line of lines) {
        if (line.entry.id !== bright) continue;
        if (line.low) fill(ctx, line, told.ink(bright).colour, here);
        stroke(ctx, line, told.ink(bright), here, 2.5);
      }
    }
    if (!reading) return;
    const { nearest: closest, points } = reading;
    ctx.fillStyle = token("line-strong");
    ctx.fillRect(Math.round(closest.x * ratio), 0, 1, over.height);
    stroke(ctx, closest.line, told.ink(closest.line.entry.id), here, 2.2);
    ctx.lineWidth = 1.5 * ratio;
    ctx.strokeStyle = token("raised");
    for (const { line, x, y } of points.length > 40 ? [closest] : points) {
      ctx.fillStyle = told.ink(line.entry.id).colour;
      ctx.beginPath();
      ctx.arc(x * ratio, y * ratio, (line === closest.line ? 4.5 : 3) * ratio, 0, 7);
      ctx.fill();
      ctx.stroke();
    }
  }

  /** What is at `left`, and of that what is closest to `top`. */
  function read(left: number | null, top: number): void {
    const was = reading;
    reading = null;
    const ratio = uPlot.pxRatio;
    if (left !== null) {
      const here = frame(0, 0);
      const toX = (x: number): number => ((x - here.first) * here.perX) / ratio;
      const toY = (y: number): number => {
        const at = place(y, log);
        return Number.isNaN(at) ? (y > 1 ? 0 : here.tall / ratio) : (here.bottom - (at - here.low) * here.perY) / ratio;
      };
      const wide = chart.over.clientWidth;
      let points: Read[] = [];
      for (const line of lines) {
        const at = nearest(line.xs, here.first + (left * ratio) / here.perX);
        const x = toX(line.xs[at] as number);
        if (x >= -1 && x <= wide + 1) points.push({ line, at, x, y: toY(line.ys[at] as number) });
      }
      const x = points.reduce((best, one) => (Math.abs(one.x - left) < Math.abs(best - left) ? one.x : best), Infinity);
      points = points.filter((one) => Math.abs(one.x - x) <= REACH);
      const away = (one: Read): number => Math.hypot(0.3 * (one.x - x), one.y - top);
      const closest = points.reduce<Read | null>((best, one) => (best && away(best) <= away(one) ? best : one), null);
      if (closest) {
        points.sort((a, b) => a.y - b.y);
        reading = { nearest: closest, points, left: chart.bbox.left / ratio, width: wide };
      }
    }
    if (!reading && !was) return;
    cover();
    told.read(reading);
  }

  return {
    show(some, seen) {
      lines = some;
      box = seen;
      chart.setData([box.x, [0, 1]]);
    },
    size: (wide, tall) => chart.setSize({ width: wide, height: tall }),
    highlight(id) {
      bright = id;
      cover();
    },
    point(x, top = reading?.nearest.y ?? 0) {
      const { first, perX } = frame(0, 0);
      read(x === null ? null : ((x - first) * perX) / uPlot.pxRatio, top);
    },
    range: () => box.x,
    canvas: chart.ctx.canvas,
    destroy: () => chart.destroy(),
  };
}

/** How values become pixels: x = left + (value - first) * perX, y = bottom - (value - low) * perY. */
interface Frame {
  left: number;
  first: number;
  perX: number;
  bottom: number;
  low: number;
  perY: number;
  log: boolean;
  tall: number;
  wide: number;
}

/**
 * Put a line on a path: what is not finite is a gap. Of points that share a pixel's column the first, lowest, highest and
 * last are drawn, which looks the same as all of them and costs a fraction.
 */
function trace(path: CanvasRenderingContext2D, xs: Float64Array, ys: Float64Array, { left, first, perX, bottom, low, perY, log }: Frame): void {
  let column = 0;
  let [top, down, last] = [0, 0, 0];
  let count = 0; // points of this stretch
  let inside = 0; // of them in this column
  const flush = (): void => {
    if (inside > 1) {
      if (top !== last) path.lineTo(column, top);
      if (down !== last) path.lineTo(column, down);
      path.lineTo(column, last);
    }
    inside = 0;
  };
  const close = (): void => {
    flush();
    if (count === 1) path.rect(column - 1, last - 1, 2, 2); // one between two gaps
    count = 0;
  };
  for (let i = 0; i < xs.length; i++) {
    const value = place(ys[i] as number, log);
    if (value !== value) {
      close();
      continue;
    }
    const x = left + ((xs[i] as number) - first) * perX;
    const y = bottom - (value - low) * perY;
    count++;
    if (inside && x - column < 0.8) {
      if (y < top) top = y;
      if (y > down) down = y;
    } else {
      flush();
      column = x;
      top = down = y;
      if (count === 1) path.moveTo(x, y);
      else path.lineTo(x, y);
    }
    last = y;
    inside++;
  }
  close();
}

/** `width` in CSS pixels; 0: as thin as there is. */
function stroke(ctx: CanvasRenderingContext2D, line: Line, { colour, dash }: Ink, here: Frame, width: number): void {
  const ratio = uPlot.pxRatio;
  const draw = (ys: Float64Array, alpha: number, wide: number): void => {
    ctx.globalAlpha = alpha;
    ctx.lineWidth = Math.max(1, wide * ratio);
    ctx.beginPath();
    trace(ctx, line.xs, ys, here);
    ctx.stroke();
  };
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineJoin = "bevel";
  ctx.setLineDash([]);
  if (line.raw) draw(line.raw, 0.25, 0);
  ctx.setLineDash(dash?.map((length) => length * ratio) ?? []);
  draw(line.ys, line.entry.faint ? 0.35 : 1, line.entry.faint ? 0 : width);
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
}

/** Where there is no number to draw: a cross at the bottom for NaN, an arrow at the edge for what is infinite or, on a logarithmic axis, not above 0. */
function marks(ctx: CanvasRenderingContext2D, { xs, ys }: Line, colour: string, { left, first, perX, bottom, log, tall, wide }: Frame): void {
  const r = 3.5 * uPlot.pxRatio;
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5 * uPlot.pxRatio;
  ctx.beginPath();
  let last = -Infinity;
  for (let i = 0; i < xs.length; i++) {
    const y = ys[i] as number;
    if (!Number.isNaN(place(y, log))) continue;
    const x = left + ((xs[i] as number) - first) * perX;
    if (x - last < 2 * r || x < left - 1 || x > left + wide + 1) continue;
    last = x;
    if (Number.isNaN(y)) {
      ctx.moveTo(x - r, bottom - 2 * r);
      ctx.lineTo(x + r, bottom);
      ctx.moveTo(x - r, bottom);
      ctx.lineTo(x + r, bottom - 2 * r);
      continue;
    }
    const [edge, into] = y > 1 ? [bottom - tall, r] : [bottom, -r];
    ctx.moveTo(x - r, edge + 2 * into);
    ctx.lineTo(x, edge + into / 3);
    ctx.lineTo(x + r, edge + 2 * into);
  }
  ctx.stroke();
}

/** The band around a mean. */
function fill(ctx: CanvasRenderingContext2D, { xs, low, high }: Line, colour: string, { left, first, perX, bottom, low: base, perY, log, tall }: Frame): void {
  if (!low || !high) return;
  ctx.globalAlpha = 0.16;
  ctx.fillStyle = colour;
  const toY = (value: number): number => {
    const at = place(value, log);
    return Number.isNaN(at) ? (value > 1 ? bottom - tall : bottom + tall) : bottom - (at - base) * perY;
  };
  for (let i = 0; i < xs.length; ) {
    if (Number.isNaN(low[i] as number)) {
      i++;
      continue;
    }
    let end = i;
    while (end < xs.length && !Number.isNaN(low[end] as number)) end++;
    ctx.beginPath();
    for (let j = i; j < end; j++) ctx.lineTo(left + ((xs[j] as number) - first) * perX, toY(high[j] as number));
    for (let j = end - 1; j >= i; j--) ctx.lineTo(left + ((xs[j] as number) - first) * perX, toY(low[j] as number));
    ctx.fill();
    i = end;
  }
  ctx.globalAlpha = 1;
}

/** A chart as a picture to keep: title, plot, and the legend below, on the page's own paper. */
export function picture(canvas: HTMLCanvasElement, title: string, legend: readonly { label: string; ink: Ink }[]): Promise<Blob | null> {
  const ratio = uPlot.pxRatio;
  const room = 12;
  const row = 18;
  const width = canvas.width / ratio + 2 * room;
  const made = document.createElement("canvas");
  const ctx = made.getContext("2d") as CanvasRenderingContext2D;
  ctx.font = "12px system-ui, sans-serif";
  let [x, y] = [room, 44 + canvas.height / ratio];
  const places = legend.map(({ label }) => {
    const wide = Math.min(width - 2 * room, 30 + ctx.measureText(label).width + 16);
    if (x > room && x + wide > width - room) {
      x = room;
      y += row;
    }
    const place = { x, y };
    x += wide;
    return place;
  });
  made.width = width * ratio;
  made.height = (y + (legend.length ? row : 0)) * ratio;
  ctx.scale(ratio, ratio);
  ctx.fillStyle = token("paper");
  ctx.fillRect(0, 0, width, made.height);
  ctx.fillStyle = token("ink");
  ctx.font = "600 14px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  ctx.fillText(title, room, 17, width - 2 * room);
  ctx.drawImage(canvas, room, 30, canvas.width / ratio, canvas.height / ratio);
  ctx.font = "12px system-ui, sans-serif";
  ctx.lineWidth = 2;
  legend.forEach(({ label, ink }, i) => {
    const place = places[i] as { x: number; y: number };
    ctx.strokeStyle = ink.colour;
    ctx.setLineDash(ink.dash ?? []);
    ctx.beginPath();
    ctx.moveTo(place.x, place.y);
    ctx.lineTo(place.x + 24, place.y);
    ctx.stroke();
    ctx.fillText(label, place.x + 30, place.y, width - 2 * room - 30);
  });
  return new Promise((resolve) => made.toBlob(resolve));
}

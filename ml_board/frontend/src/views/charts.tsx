// The charts of a page: one for each score, of the experiments that are given; and how they are drawn, above them.

import { type Signal, signal, useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Chart, chart, type Drawn } from "../charts/chart";
import { type Ink, picture, type Reading } from "../charts/plot";
import * as format from "../state/format";
import { differing, entries as made, type Entry, repeats } from "../state/groups";
import { type Axis, csv, type Line, order, pack, place, unpack, type View } from "../state/lines";
import { colour, dash } from "../state/palette";
import { preferences, theme } from "../state/preferences";
import { choose, go, link, route } from "../state/route";
import type { Session } from "../state/session";
import { ranges } from "../wire/rest";
import "./charts.css";
import { download, Empty, Menu, Seq, useSession } from "./parts";

const AXES: Axis[] = ["epoch", "step", "time"];
const IN_LEGEND = 100;
const IN_TOOLTIP = [6, 10]; // on small charts, and on others
const CELLS = 1500; // of a table's page

/** How all charts of a page are drawn. */
interface Look {
  session: Session;
  entries: readonly Entry[];
  inks: ReadonlyMap<string, Ink>;
  axis: Axis;
  log: boolean;
  weight: number;
  deviation: boolean;
  /** The entry that the legend points at. */
  pointed: Signal<string | null>;
}

/** The smoothing while its slider is dragged: the address takes no more than a few changes a second. */
const dragged = signal<number | null>(null);

/** `note`: which experiments these are. */
export function Charts({ session, experiments, note }: { session: Session; experiments: readonly number[]; note?: string }): JSX.Element {
  useSession(session);
  const kept = useRef(experiments);
  if (kept.current.length !== experiments.length || experiments.some((id, i) => id !== kept.current[i])) kept.current = experiments;
  const ids = kept.current;
  // Rendered with each paint: what follows is made anew only when there is another experiment, score or sweep.
  let [configs, scores] = [0, 0];
  for (const id of ids) {
    const experiment = session.state.experiments.get(id);
    configs += experiment?.config_seq ?? 0;
    scores += experiment?.scores.size ?? 0;
  }
  const stamp = `${session.generation.value} ${configs} ${scores}`;
  return useMemo(() => <Board session={session} ids={ids} stamp={stamp} note={note} />, [session, ids, stamp, note]);
}

function Board({ session, ids, stamp, note }: { session: Session; ids: readonly number[]; stamp: string; note: string | undefined }): JSX.Element {
  const { query } = route.value;
  const pointed = useSignal<string | null>(null);
  const experiments = useMemo(() => ids.flatMap((id) => session.state.experiments.get(id) ?? []), [ids, stamp]);
  const paths = useMemo(() => differing(experiments), [experiments]);
  const over = useMemo(
    () => (query.mean === undefined ? repeats(experiments, paths) : unpack(query.mean).filter((path) => paths.includes(path))),
    [experiments, query.mean],
  );
  const all = useMemo(() => made(experiments, over, query.one === "1"), [experiments, over, query.one]);
  const entries = useMemo(() => all.filter(({ label, experiments }) => matches(`${label} #${experiments[0]}`, query.leg)), [all, query.leg]);
  const { palette } = preferences.value;
  const shade = theme.value;
  const inks = useMemo(
    () =>
      new Map(
        entries.map(({ id, experiments }) => {
          const first = experiments[0] as number;
          return [id, { colour: colour(first, shade, palette), dash: dash(first, palette) }];
        }),
      ),
    [entries, shade, palette],
  );
  const pinned = useMemo(() => new Set(unpack(query.pin)), [query.pin]);
  const hidden = useMemo(() => new Set(unpack(query.hide)), [query.hide]);
  const keys = useMemo(() => {
    const found = new Map<string, boolean>();
    for (const { scores } of experiments) for (const [key, { loss }] of scores) found.set(key, loss);
    // Their order is that of the log, whichever experiment has come first here.
    const sorted = [...session.state.scoreKeys.keys()].flatMap((key): [string, boolean][] => (found.has(key) ? [[key, found.get(key) as boolean]] : []));
    return order(new Map(sorted), pinned);
  }, [experiments, pinned]);
  const axis = AXES.find((one) => one === query.x) ?? "epoch";
  const weight = dragged.value ?? Math.min(0.99, Math.max(0, Number(query.smooth) || 0));
  const log = query.log === "1";
  const deviation = query.band === "sd";
  const look = useMemo<Look>(
    () => ({ session, entries, inks, axis, log, weight, deviation, pointed }),
    [session, entries, inks, axis, log, weight, deviation],
  );
  const shown = keys.filter((key) => !hidden.has(key) && matches(key, query.cq));
  const toggled = (name: string, set: Iterable<string>, key: string): void => {
    const next = new Set(set);
    if (!next.delete(key)) next.add(key);
    choose({ [name]: pack(next) });
  };
  const [big, tables] = [unpack(query.big), unpack(query.tab)];
  return (
    <div class="chart-board">
      <div class="charts-tools row">
        <Search name="cq" label="filter charts" />
        <span class="choice" role="group" aria-label="x axis">
          {AXES.map((one) => (
            <button key={one} type="button" aria-pressed={one === axis} onClick={() => choose({ ...unzoomed(query), x: one === "epoch" ? null : one })}>
              {one}
            </button>
          ))}
        </span>
        <label class="row">
          <input type="checkbox" checked={log} onChange={() => choose({ log: log ? null : "1" })} />
          log
        </label>
        <label class="row smoothing">
          smooth
          <input
            type="range"
            min={0}
            max={0.99}
            step={0.01}
            value={weight}
            onInput={(event) => (dragged.value = Number(event.currentTarget.value))}
            onChange={(event) => {
              choose({ smooth: Number(event.currentTarget.value) ? event.currentTarget.value : null });
              dragged.value = null;
            }}
          />
          <output>{weight.toFixed(2)}</output>
        </label>
        {paths.length > 0 && experiments.length > 1 && (
          <Menu label={over.length ? `mean over ${over.map(ending).join(", ")}` : "mean over …"}>
            <strong class="small">One line for experiments that differ only in</strong>
            {paths.map((path) => (
              <Check key={path} on={over.includes(path)} click={() => choose({ mean: pack(over.includes(path) ? over.filter((one) => one !== path) : [...over, path]) || "-" })}>
                <span title={path}>{ending(path)}</span>
              </Check>
            ))}
            <strong class="small">The band around it</strong>
            {[null, "sd"].map((band) => (
              <label key={band} class="row">
                <input type="radio" name="band" checked={deviation === (band === "sd")} onChange={() => choose({ band })} />
                {band ? "± 1 standard deviation" : "smallest to largest"}
              </label>
            ))}
            <Check on={query.one === "1"} click={() => choose({ one: query.one === "1" ? null : "1" })}>
              each one singly, too
            </Check>
          </Menu>
        )}
        <Menu label={`charts ${shown.length}/${keys.length}`}>
          <span class="row">
            <button type="button" onClick={() => choose({ hide: null })}>
              show all
            </button>
            <button type="button" onClick={() => choose({ hide: pack(keys) })}>
              hide all
            </button>
          </span>
          {keys.map((key) => (
            <Check key={key} on={!hidden.has(key)} click={() => toggled("hide", hidden, key)}>
              {key}
            </Check>
          ))}
        </Menu>
        {note && <span class="small muted">{note}</span>}
      </div>
      <Legend look={look} of={all} />
      {keys.length === 0 ? (
        <Empty title={ids.length ? "No scores yet" : "No experiments"}>
          <p>
            {ids.length
              ? "They come with the first evaluation, before any training; the page shows them by itself."
              : "Select experiments in the table, or clear its filter, to see their scores here."}
          </p>
        </Empty>
      ) : shown.length === 0 ? (
        <Empty title="No chart is left">
          <p>{keys.length} are hidden, or do not fit the filter.</p>
          <button type="button" onClick={() => choose({ hide: null, cq: null })}>
            show all charts
          </button>
        </Empty>
      ) : (
        <div class="charts-grid">
          {shown.map((key) => (
            <Card
              key={key}
              name={key}
              look={look}
              zoom={query[`z.${key}`]}
              big={big.includes(key)}
              table={tables.includes(key)}
              pinned={pinned.has(key)}
              toggle={(what) => toggled(what, { pin: pinned, hide: hidden, big, tab: tables }[what], key)}
            />
          ))}
        </div>
      )}
    </div>
  );
}

const ending = (path: string): string => path.slice(path.lastIndexOf(".") + 1);

/** Whether all words of `filter` are in `text`. */
function matches(text: string, filter = ""): boolean {
  const lower = text.toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => lower.includes(word));
}

/** Zooms are in units of the axis. */
function unzoomed(query: Readonly<Record<string, string>>): Record<string, null> {
  return Object.fromEntries(Object.keys(query).filter((key) => key.startsWith("z.")).map((key) => [key, null]));
}

function Search({ name, label }: { name: string; label: string }): JSX.Element {
  return (
    <input
      type="search"
      aria-label={label}
      placeholder={label}
      value={route.value.query[name] ?? ""}
      onInput={(event) => choose({ [name]: event.currentTarget.value })}
    />
  );
}

function Check({ on, click, children }: { on: boolean; click: () => void; children: ComponentChildren }): JSX.Element {
  return (
    <label class="row">
      <input type="checkbox" checked={on} onChange={click} />
      {children}
    </label>
  );
}

/** The page about an experiment, or for a mean the one that compares its members. */
function page({ experiments }: Entry): string {
  const [first] = experiments;
  return experiments.length > 1 ? link("compare", { sel: ranges(experiments) }) : link("experiment", { exp: `${first}` });
}

function Swatch({ ink }: { ink: Ink | undefined }): JSX.Element {
  return (
    <svg class="swatch" width="20" height="8" viewBox="0 0 20 8" aria-hidden="true">
      <path d="M0 4h20" stroke={ink?.colour} stroke-width="2.5" stroke-dasharray={ink?.dash?.join(" ")} />
    </svg>
  );
}

/** One legend for all charts: pointing at an entry brings its line to the front. */
function Legend({ look: { entries, inks, pointed }, of }: { look: Look; of: readonly Entry[] }): JSX.Element | null {
  const named = entries.filter(({ faint }) => !faint);
  const all = of.filter(({ faint }) => !faint).length;
  if (all < 2 && !of[0]?.mean) return null; // the page is about it
  return (
    <div class="legend small">
      {all > 1 && <Search name="leg" label="filter lines" />}
      <ul class={named.length > 12 ? "many" : ""} tabIndex={0} aria-label={`legend: ${named.length} of ${all} lines`} onPointerLeave={() => (pointed.value = null)}>
        {named.slice(0, IN_LEGEND).map((entry) => (
          <li key={entry.id}>
            <a
              href={page(entry)}
              title={`${entry.label} (${ranges(entry.experiments)})`}
              onPointerEnter={() => (pointed.value = entry.id)}
              onFocus={() => (pointed.value = entry.id)}
              onBlur={() => (pointed.value = null)}
            >
              <Swatch ink={inks.get(entry.id)} />
              <span class="clip">{entry.label}</span>
            </a>
          </li>
        ))}
        {named.length > IN_LEGEND && <li class="muted">and {named.length - IN_LEGEND} more: filter them</li>}
        {!named.length && <li class="muted">no line fits the filter</li>}
      </ul>
    </div>
  );
}

const ICONS = {
  pin: "M5 1.5h4l-.6 4.2 2.1 2.1h-7l2.1-2.1zM7 8v4.7",
  big: "M8.5 1.5h4v4M12.3 1.7 8.4 5.6M5.5 12.5h-4v-4M1.7 12.3l3.9-3.9",
  tab: "M1.5 2.5h11v9h-11zM1.5 5.5h11M5.5 5.5v6",
  hide: "m3 3 8 8M11 3l-8 8",
};

/** One chart: its head, and the plot or a table of the same. */
function Card({
  name,
  look,
  zoom,
  big,
  table,
  pinned,
  toggle,
}: {
  name: string;
  look: Look;
  zoom: string | undefined;
  big: boolean;
  table: boolean;
  pinned: boolean;
  toggle: (what: "pin" | "hide" | "big" | "tab") => void;
}): JSX.Element {
  const { session, entries, inks, axis, log, weight, deviation, pointed } = look;
  const host = useRef<HTMLDivElement>(null);
  const life = useRef<Chart>(null);
  const drawn = useSignal<Drawn>({ lines: [], loading: 0, trouble: "" });
  const reading = useSignal<Reading | null>(null);
  const range = parsed(zoom);
  const height = big ? 420 : 220;

  const zoomTo = (to: readonly [number, number] | null): void => choose({ [`z.${name}`]: to && to.map((one) => Number(one.toPrecision(7))).join("~") });
  const zooming = useRef(range);
  zooming.current = range;
  useEffect(() => {
    let opening: ReturnType<typeof setTimeout>;
    const started = chart(session, name, host.current as HTMLDivElement, {
      drawn: (now) => (drawn.value = now),
      read: (now) => (reading.value = now),
      zoom: zoomTo,
      click(count) {
        clearTimeout(opening);
        const at = reading.peek()?.nearest;
        // The first of two clicks that leave the zoom opens nothing.
        if (at && count === 1) opening = setTimeout(() => go(page(at.line.entry)), zooming.current ? 300 : 0);
      },
    });
    life.current = started;
    const stop = pointed.subscribe((id) => started.plot()?.highlight(id));
    return () => {
      clearTimeout(opening);
      stop();
      started.close();
    };
  }, [session, name]);
  useEffect(() => {
    const view: View = { axis, weight, deviation, from: range?.[0] ?? -Infinity, to: range?.[1] ?? Infinity };
    life.current?.wish({ entries, inks, view, log, height });
  }, [session, name, entries, inks, axis, log, weight, deviation, zoom, height, table]);

  const button = (what: keyof typeof ICONS, label: string, pressed?: boolean): JSX.Element => (
    <button type="button" class="plain" title={label} aria-label={`${label}: ${name}`} aria-pressed={pressed} onClick={() => toggle(what)}>
      <svg width="14" height="14" viewBox="0 0 14 14" fill="none" stroke="currentColor" stroke-width="1.3" aria-hidden="true">
        <path d={ICONS[what]} />
      </svg>
    </button>
  );
  const file = `${session.id}.${name.replace(/[^\w.-]+/g, "_")}`;
  return (
    <article class={`card chart ${big ? "big" : ""}`} aria-label={name}>
      <header>
        <h2 class="clip" title={name}>
          {name}
        </h2>
        {range && (
          <button type="button" class="small" aria-label={`reset zoom: ${name}`} onClick={() => zoomTo(null)}>
            reset zoom
          </button>
        )}
        <Told drawn={drawn} />
        <span class="buttons">
          {button("pin", pinned ? "unpin" : "pin", pinned)}
          {button("tab", "table", table)}
          <button
            type="button"
            class="plain small"
            title="all points that are here"
            aria-label={`CSV: ${name}`}
            onClick={() => download(`${file}.csv`, csv(session.state, entries, name, life.current?.exact()), "text/csv")}
          >
            CSV
          </button>
          <button
            type="button"
            class="plain small"
            disabled={table}
            aria-label={`PNG: ${name}`}
            onClick={() => {
              const canvas = life.current?.plot()?.canvas;
              const legend = entries.filter(({ faint }) => !faint).slice(0, IN_LEGEND);
              if (!canvas) return;
              void picture(canvas, name, legend.map(({ id, label }) => ({ label, ink: inks.get(id) as Ink }))).then(
                (blob) => blob && download(`${file}.png`, blob),
              );
            }}
          >
            PNG
          </button>
          {button("big", big ? "make smaller" : "enlarge", big)}
          {button("hide", "hide")}
        </span>
      </header>
      <div
        ref={host}
        class="plot"
        hidden={table}
        style={{ height: `${height}px` }}
        role="img"
        tabIndex={0}
        aria-label={`line chart of ${name} over ${axis === "time" ? "time" : `${axis}s`}${log ? ", logarithmic" : ""}: ${
          entries.length === 1 ? "1 line" : `${entries.length} lines`
        }${range ? `, zoomed to ${range.map(format.number).join(" to ")}` : ""}. Arrow keys read its points, + and - zoom; the same as a table: button table.`}
        onKeyDown={(event) => press(event)}
        onBlur={() => life.current?.plot()?.point(null)}
      />
      {table ? <Table name={name} drawn={drawn} axis={axis} /> : <Tooltip reading={reading} drawn={drawn} look={look} />}
    </article>
  );

  /** Read and zoom without a pointer. */
  function press(event: KeyboardEvent): void {
    const plot = life.current?.plot();
    const now = reading.peek();
    const line = now?.nearest.line ?? drawn.peek().lines[0];
    if (!plot || !line || event.ctrlKey || event.metaKey || event.altKey) return;
    const [left, right] = range ?? plot.range(); // the next key may come before the last zoom is drawn
    const middle = now ? (line.xs[now.nearest.at] as number) : (left + right) / 2;
    const read = (at: number): void => plot.point(line.xs[Math.max(0, Math.min(line.xs.length - 1, at))] as number);
    const zoomBy = (factor: number): void => zoomTo([middle - (middle - left) * factor, middle + (right - middle) * factor]);
    const beside = (by: number): void => {
      const found = now?.points[now.points.indexOf(now.points.find((one) => one.line === line) as Reading["nearest"]) + by];
      if (found) plot.point(found.line.xs[found.at] as number, found.y);
    };
    const keys: Record<string, () => void> = {
      ArrowLeft: () => read(now ? now.nearest.at - 1 : line.xs.length - 1),
      ArrowRight: () => read(now ? now.nearest.at + 1 : 0),
      Home: () => read(0),
      End: () => read(line.xs.length - 1),
      ArrowUp: () => beside(-1),
      ArrowDown: () => beside(1),
      "+": () => zoomBy(0.5),
      "-": () => zoomBy(2),
      Escape: () => zoomTo(null),
      Enter: () => now && go(page(line.entry)),
    };
    const run = keys[event.key];
    if (!run || (event.key === "Escape" && !range)) return;
    event.preventDefault();
    run();
  }
}

/** A zoom of the address; what cannot be one is none. */
function parsed(text: string | undefined): [number, number] | null {
  const [from = NaN, to = NaN] = (text ?? "").split("~").map((part) => (part.trim() ? Number(part) : NaN));
  return to - from > 1e-6 * Math.max(Math.abs(from), Math.abs(to)) && Math.max(Math.abs(from), Math.abs(to)) < 1e15 ? [from, to] : null;
}

/** What has to be said about what is drawn. */
function Told({ drawn }: { drawn: Signal<Drawn> }): JSX.Element {
  const { lines, loading, trouble } = drawn.value;
  let most: Line | null = null;
  for (const line of lines) if (line.of > line.here && line.of > (most?.of ?? 0)) most = line;
  const said = [
    most && `${format.count(most.here)} of ${format.count(most.of)} points`,
    loading > 0 && (lines.length ? `${loading} loading` : "loading …"),
  ].filter(Boolean);
  return (
    <span class="small muted clip told" title={trouble || (most ? "of its longest line; zoom in to see all" : undefined)}>
      {trouble ? <span class="bad">{trouble}</span> : said.join(", ")}
    </span>
  );
}

/** An x as people read it. */
function xText(axis: Axis, line: Line, at: number): string {
  const epoch = `epoch ${format.number(line.epochs[at] as number)}`;
  const x = line.xs[at] as number;
  return axis === "epoch" ? epoch : `${axis === "time" ? format.duration(x) : `step ${format.count(Math.round(x))}`}, ${epoch}`;
}

const band = ({ low, high }: Line, at: number): string => `${format.score(low?.[at] as number)} – ${format.score(high?.[at] as number)}`;

/** Values under the pointer: as many as fit, those closest to it, the highest first. */
function Tooltip({ reading, drawn, look: { axis, inks } }: { reading: Signal<Reading | null>; drawn: Signal<Drawn>; look: Look }): JSX.Element | null {
  const now = reading.value;
  if (!now || !drawn.value.lines.length) return null;
  const { nearest, points, left, width } = now;
  const at = points.findIndex(({ line }) => line === nearest.line);
  const most = IN_TOOLTIP[width < 420 ? 0 : 1] as number;
  const first = Math.max(0, Math.min(at - most / 2, points.length - most));
  const epoch = nearest.line.epochs[nearest.at];
  // On the side that has more room.
  const { x } = nearest;
  const beside = x > width / 2 ? { right: `${width - x + 36}px`, maxWidth: `${left + x - 10}px` } : { left: `${left + x + 16}px`, maxWidth: `${width - x}px` };
  return (
    <div class="tooltip small" role="status" style={beside}>
      <div class="muted">
        {xText(axis, nearest.line, nearest.at)}
        {nearest.line.low && `, ${band(nearest.line, nearest.at)}`}
      </div>
      {points.slice(first, first + most).map(({ line, at: i }) => (
        <div key={line.entry.id} class={line === nearest.line ? "near" : ""}>
          <Swatch ink={inks.get(line.entry.id)} />
          <span>
            {format.score(line.ys[i] as number)}
            {line.raw && <span class="muted"> ({format.score(line.raw[i] as number)})</span>}
          </span>
          <span class="clip">
            {line.entry.label}
            {line.epochs[i] !== epoch && <span class="muted"> at {line.epochs[i]}</span>}
          </span>
        </div>
      ))}
      {points.length > most && <div class="muted">and {points.length - most} more</div>}
    </div>
  );
}

/** What a chart shows as a table: a row for each epoch, a column for each line. */
function Table({ name, drawn, axis }: { name: string; drawn: Signal<Drawn>; axis: Axis }): JSX.Element {
  const [lines, setLines] = useState(drawn.peek().lines);
  const [page, setPage] = useState(0);
  useEffect(() => {
    // Numbers that change faster cannot be read.
    const timer = setInterval(() => setLines(drawn.peek().lines), 1000);
    setLines(drawn.peek().lines);
    return () => clearInterval(timer);
  }, [drawn]);
  const epochs = useMemo(() => Float64Array.from(new Set(lines.flatMap(({ epochs }) => [...epochs]))).sort(), [lines]);
  const size = Math.max(10, Math.floor(CELLS / Math.max(1, lines.length)));
  const pages = Math.max(1, Math.ceil(epochs.length / size));
  const here = Math.min(page, pages - 1);
  const rows = [...epochs.subarray(here * size, (here + 1) * size)];
  return (
    <>
      <div class="scroll chart-table" tabIndex={0} role="region" aria-label={`${name} as a table`}>
        <table class="small">
          <thead>
            <tr>
              <th class="number" scope="col">
                epoch
              </th>
              {lines.map(({ entry }) => (
                <th key={entry.id} class="number" scope="col">
                  {entry.label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((epoch) => (
              <tr key={epoch}>
                <th class="number" scope="row">
                  {epoch}
                </th>
                {lines.map((line) => (
                  <td key={line.entry.id} class="number">
                    <Cell line={line} epoch={epoch} axis={axis} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {pages > 1 && (
        <div class="row small">
          <button type="button" disabled={!here} onClick={() => setPage(here - 1)}>
            earlier
          </button>
          <button type="button" disabled={here === pages - 1} onClick={() => setPage(here + 1)}>
            later
          </button>
          <span class="muted">
            epochs {rows[0]} to {rows.at(-1)} of {epochs.at(-1)}
          </span>
        </div>
      )}
    </>
  );
}

function Cell({ line, epoch, axis }: { line: Line; epoch: number; axis: Axis }): JSX.Element | null {
  const { epochs, xs, ys, raw, seqs } = line;
  const at = place(epochs, epoch);
  if (epochs[at] !== epoch) return null;
  const value = <Seq of={seqs?.[at] ?? 0}>{format.score((raw ?? ys)[at] as number)}</Seq>;
  const also = [
    raw && `smoothed ${format.score(ys[at] as number)}`,
    line.low && band(line, at),
    axis !== "epoch" && (axis === "time" ? format.duration(xs[at] as number) : `step ${xs[at]}`),
  ].filter(Boolean);
  return (
    <>
      {value}
      {also.length > 0 && <span class="muted"> {also.join(", ")}</span>}
    </>
  );
}

// The parallel coordinates of a sweep. A brush on an axis is a filter of the table; each axis' title opens a menu that
// does the same without a mouse.

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ramp } from "../charts/heatmap";
import { arrange, axisAt, clip, inkOf, nearest, paint, paintOver, placeAt, png } from "../charts/parallel";
import { score as scoreText } from "../state/format";
import { theme } from "../state/preferences";
import { choose } from "../state/route";
import { type Query, select, selectedOf } from "../state/selection";
import type { Session } from "../state/session";
import * as state from "../state/sweep";
import type { Axis, Sweep } from "../state/sweep";
import { csv, STATUS_WORDS } from "../state/table";
import { download, Menu, useSize } from "./parts";

const HEIGHT = 320;
const SELECTED = 50; // lines drawn over the others, at most

/** What the drawing of a paint has cost, in ms. */
export interface Pace {
  at: number;
  cost: number;
}

/** From worst to best. */
function Legend({ sweep }: { sweep: Sweep }): JSX.Element {
  const [worst, best] = sweep.ends.map(scoreText);
  const { smaller, title } = sweep.score.column;
  return (
    <span class="legend small" role="img" aria-label={`colours: ${title} from ${worst} to ${best}, the best`}>
      {sweep.clipped ? (smaller ? "≥ " : "≤ ") : ""}
      {worst}
      <i style={{ background: ramp(theme.value, "to right") }} />
      {best}
    </span>
  );
}

interface Drag {
  axis: number;
  from: number;
  to: number;
}

export function Parallel({ session, sweep, query, pace }: { session: Session; sweep: Sweep; query: Query; pace: Pace }): JSX.Element {
  const [box, { width }] = useSize<HTMLDivElement>();
  const below = useRef<HTMLCanvasElement>(null);
  const above = useRef<HTMLCanvasElement>(null);
  const [hovered, setHovered] = useState(-1);
  const [drag, setDrag] = useState<Drag | null>(null);
  const said = useRef(0);
  const shade = theme.value;
  const { shown, hidden } = state.arranged(sweep.axes, query.ax);
  const layout = useMemo(
    () => arrange(sweep, shown, Math.max(width, 100 * shown.length + 110), HEIGHT),
    [sweep, width, query.ax],
  );
  const filterOf = (axis: Axis): string | undefined => query[`f.${axis.column.id}`];
  const filter = (axis: Axis, expression: string): void => choose({ [`f.${axis.column.id}`]: expression });

  useEffect(() => {
    if (!below.current || !width) return;
    const start = performance.now();
    paint(below.current, layout, inkOf(shade));
    pace.cost += performance.now() - start;
  }, [layout, shade, width]);
  useEffect(() => {
    if (!above.current || !width) return;
    const brushes = layout.axes.flatMap((axis, a) => {
      if (drag?.axis === a) return [[a, Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)] as const];
      return state.brushed(axis, filterOf(axis)).map(([bottom, top]) => [a, bottom, top] as const);
    });
    const chosen = new Set(selectedOf(query).slice(0, SELECTED));
    const selected = sweep.experiments.flatMap(({ experiment_id }, i) => (chosen.has(experiment_id) ? [i] : []));
    paintOver(above.current, layout, inkOf(shade), brushes, selected, hovered);
  }, [layout, shade, width, hovered, drag, query]);

  const point = (event: PointerEvent): [x: number, place: number, y: number] => {
    const { left, top } = (event.currentTarget as Element).getBoundingClientRect();
    return [event.clientX - left, placeAt(HEIGHT, event.clientY - top), event.clientY - top];
  };
  const down = (event: PointerEvent): void => {
    const [x, place] = point(event);
    const axis = axisAt(layout, x);
    // By finger the page scrolls; the axes' menus are there for it.
    if (axis < 0 || event.button !== 0 || event.pointerType === "touch") return;
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    setDrag({ axis, from: place, to: place });
  };
  const move = (event: PointerEvent): void => {
    const [x, place, y] = point(event);
    if (!drag) {
      setHovered(nearest(layout, x, y));
      (event.currentTarget as HTMLElement).style.cursor = axisAt(layout, x) >= 0 ? "crosshair" : "";
      return;
    }
    setDrag({ ...drag, to: place });
    // Browsers take a hundred changes of the address in half a minute, and each filters the table.
    if (event.timeStamp - said.current < 300 || Math.abs(place - drag.from) < 0.02) return;
    said.current = event.timeStamp;
    const axis = layout.axes[drag.axis];
    if (axis) filter(axis, state.brush(axis, drag.from, place));
  };
  const up = (event: PointerEvent): void => {
    const [x, place, y] = point(event);
    const axis = drag && layout.axes[drag.axis];
    setDrag(null);
    if (axis && Math.abs(place - drag.from) >= 0.02) filter(axis, state.brush(axis, drag.from, place));
    else if (axis && filterOf(axis)) filter(axis, "");
    else {
      const found = sweep.experiments[nearest(layout, x, y)]?.experiment_id;
      if (found === undefined) return;
      const chosen = new Set(selectedOf(query));
      if (!chosen.delete(found)) chosen.add(found);
      choose(select(chosen));
    }
  };
  const arrangeAs = (order: readonly Axis[], off: readonly Axis[]): void => choose({ ax: state.arrangement(order, off) });
  const name = `${session.id} ${sweep.score.column.title}`.replace(/[^\w.-]+/g, "_");
  return (
    <section class="card" aria-label="parallel coordinates">
      <div class="row spread">
        <h2>Parallel coordinates</h2>
        <div class="row">
          <Legend sweep={sweep} />
          {hidden.length > 0 && (
            <Menu label={`${hidden.length} hidden`}>
              {hidden.map((axis) => (
                <button key={axis.column.id} type="button" onClick={() => arrangeAs([...shown, axis], hidden.filter((one) => one !== axis))}>
                  show {axis.column.title}
                </button>
              ))}
            </Menu>
          )}
          <button type="button" class="plain" onClick={() => void png(layout, inkOf(shade)).then((blob) => blob && download(`${name}.png`, blob))}>
            PNG
          </button>
          <button type="button" class="plain" onClick={() => download(`${name}.csv`, asCsv(sweep), "text/csv")}>
            CSV
          </button>
        </div>
      </div>
      <div class="scroll" ref={box} tabIndex={0} role="region" aria-label="parallel coordinates, scrolls sideways">
        <div class="parallel" style={{ width: `${layout.width}px` }}>
          <div class="axes">
            {layout.axes.map((axis, a) => (
              <AxisTitle
                key={a} // not by axis: Chromium may not show what is in a details element that was moved
                axis={axis}
                at={a}
                last={shown.length - 1}
                x={layout.xs[a] as number}
                room={(layout.xs[1] ?? width) - (layout.xs[0] as number)}
                place={a === shown.length ? "end" : a === 0 ? "first" : a === shown.length - 1 ? "last" : ""}
                filter={filterOf(axis)}
                choose={(expression) => filter(axis, expression)}
                move={
                  a === shown.length
                    ? null
                    : (by) => {
                        const order = shown.filter((one) => one !== axis);
                        order.splice(Math.min(order.length, Math.max(0, a + by)), 0, axis);
                        arrangeAs(order, hidden);
                      }
                }
                hide={() => arrangeAs(shown.filter((one) => one !== axis), [...hidden, axis])}
              />
            ))}
          </div>
          <canvas
            ref={below}
            role="img"
            aria-label={`A line for each of ${sweep.experiments.length} experiments. The title of each axis opens its filter; the table below has the same values.`}
          />
          <canvas
            ref={above}
            aria-hidden="true"
            onPointerDown={down}
            onPointerMove={move}
            onPointerUp={up}
            onPointerCancel={() => setDrag(null)}
            onPointerLeave={() => setHovered(-1)}
          />
        </div>
      </div>
      <div class="below small">
        <p class="muted">
          Drag along an axis to filter the table, click there to clear; click a line to select its experiment. A title opens a menu, and is dragged,
          or moved with ← →, to order the axes.
        </p>
        {hovered >= 0 && !drag && <Pointed sweep={sweep} axes={layout.axes} i={hovered} />}
      </div>
    </section>
  );
}

/** The experiment that is pointed at. */
function Pointed({ sweep, axes, i }: { sweep: Sweep; axes: readonly Axis[]; i: number }): JSX.Element | null {
  const experiment = sweep.experiments[i];
  if (!experiment) return null;
  return (
    <div class="pointed" aria-hidden="true">
      <strong>#{experiment.experiment_id}</strong> {STATUS_WORDS[experiment.status]}
      {axes.map(({ column }) => (
        <span key={column.id}>
          <span class="muted">{column.title}</span> {clip(column.text(experiment, 0), 40) || "none"}
        </span>
      ))}
    </div>
  );
}

/** The title of an axis: its filter, and its place among the others. */
function AxisTitle(props: {
  axis: Axis;
  at: number;
  last: number;
  x: number;
  room: number;
  place: string;
  filter: string | undefined;
  choose: (expression: string) => void;
  /** By so many places; null: it stays. */
  move: ((by: number) => void) | null;
  hide: () => void;
}): JSX.Element {
  const { axis, at, last, x, room, place, filter = "", choose: put, move, hide } = props;
  const start = useRef<number | null>(null);
  const dragged = useRef(false);
  const [by, setBy] = useState(0);
  const { title, hint, group } = axis.column;
  const end = (): void => {
    start.current = null;
    setBy(0);
  };
  return (
    <div
      class={`axis ${place}${by ? " moving" : ""}`}
      style={{ left: `${x + by}px`, maxWidth: `${place === "first" ? room / 2 + 18 : room - 4}px` }}
      onPointerDown={(event) => {
        const summary = (event.target as Element).closest("summary");
        dragged.current = false;
        if (!move || !summary || event.button !== 0) return;
        summary.setPointerCapture(event.pointerId);
        start.current = event.clientX;
      }}
      onPointerMove={(event) => {
        const moved = event.clientX - (start.current ?? event.clientX);
        if (!by && Math.abs(moved) < 6) return;
        dragged.current = true;
        setBy(moved);
      }}
      onPointerUp={() => {
        if (by) move?.(Math.round(by / room));
        end();
      }}
      onPointerCancel={end}
      onClickCapture={(event) => dragged.current && event.preventDefault()}
      onKeyDown={(event) => {
        const here = event.currentTarget;
        if (event.key === "Escape" && here.querySelector("[open]")) event.preventDefault(); // it is the menu's, not the page's
        const places = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
        if (!places || !move || !(event.target as Element).matches("summary")) return;
        event.preventDefault();
        move(places);
        here.parentElement?.children[Math.min(last, Math.max(0, at + places))]?.querySelector("summary")?.focus();
      }}
    >
      <Menu
        title={`${hint}${filter && `\nfilter: ${filter}`}`}
        label={
          <span>
            <span class="clip">{title}</span>
            <span class={`clip small${filter ? " on" : " muted"}`}>{filter || (axis.kind === "log" ? "log" : group === "swept" ? "" : "score")}</span>
          </span>
        }
      >
        <strong class="small">{hint === title ? title : `${title}: ${hint}`}</strong>
        {axis.kind === "category" ? <Categories axis={axis} filter={filter} put={put} /> : <Between axis={axis} filter={filter} put={put} />}
        <div class="row">
          <button type="button" disabled={!filter} onClick={() => put("")}>
            clear
          </button>
          {move && (
            <button
              type="button"
              onClick={(event) => {
                (event.currentTarget.closest("details") as HTMLDetailsElement).open = false;
                hide();
              }}
            >
              hide
            </button>
          )}
        </div>
      </Menu>
    </div>
  );
}

function Between({ axis, filter, put }: { axis: Axis; filter: string; put: (expression: string) => void }): JSX.Element {
  const range = state.rangeOf(filter);
  const text = (i: 0 | 1): string => (range && Number.isFinite(range[i]) ? `${range[i]}` : "");
  const field = (i: 0 | 1, word: string): JSX.Element => (
    <label class="row spread">
      {word}
      <input
        type="number"
        step="any"
        value={text(i)}
        placeholder={`${axis.values.at(-i)}`}
        onChange={(event) => {
          const value = event.currentTarget.value;
          put(i ? state.between(text(0), value) : state.between(value, text(1)));
        }}
      />
    </label>
  );
  return (
    <>
      {field(0, "from")}
      {field(1, "to")}
    </>
  );
}

function Categories({ axis, filter, put }: { axis: Axis; filter: string; put: (expression: string) => void }): JSX.Element {
  const passes = new Set(state.within(axis, filter));
  return (
    <>
      {axis.labels.map((label) => (
        <label key={label} class="row">
          <input
            type="checkbox"
            checked={passes.has(label)}
            onChange={() => put(state.among(axis, axis.labels.filter((one) => passes.has(one) !== (one === label))))}
          />
          <span class="clip">{label || "none"}</span>
        </label>
      ))}
    </>
  );
}

/** The experiments that pass, their parameters and the score. */
function asCsv({ experiments, passes, axes, score }: Sweep): string {
  const all = [...axes, score].map(({ column }) => column);
  const cell = (value: number | string | null, text: string): number | string | null => (typeof value === "number" ? value : text);
  return csv([
    ["experiment", ...all.map(({ id, group, hint }) => (group === "swept" ? hint : id))],
    ...experiments.flatMap((one, i) => (passes[i] ? [[one.experiment_id, ...all.map(({ value, text }) => cell(value(one, 0), text(one, 0)))]] : [])),
  ]);
}

// The table of experiments. Only the rows that can be seen are in the document, and of those only the ones whose
// experiment has changed are drawn anew at a paint; order, filters and what is best follow at their own pace (shown.ts).

import { useSignal, useSignalEffect } from "@preact/signals";
import type { JSX } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Experiment } from "../state/fold";
import { count } from "../state/format";
import { colour, dash } from "../state/palette";
import { preferences, theme } from "../state/preferences";
import { choose, go, link, route } from "../state/route";
import { choiceOf, columnsAsText, nextSort, pick, select, selectedOf, unfiltered } from "../state/selection";
import type { Session } from "../state/session";
import { clock, type Shown, shownOf } from "../state/shown";
import { alternatives, anyOf, type Column, csv, STATUS_WORDS, usual, values } from "../state/table";
import { useKeys } from "./keys";
import { download, Empty, Menu, PRINTED, printing, Seq, Status, useNow, useSession, useSize } from "./parts";
import "./table.css";

const ROW = 28; // px, as in table.css
const BEYOND = 8; // rows above and below those in sight

/** What the table shows: renders again when that is something else. */
export function useShown(session: Session): Shown {
  const [shown, setShown] = useState(() => shownOf(session, route.peek().query).shown);
  useSignalEffect(() => {
    session.version.value; // read to hear of them
    session.dead.value;
    const { query } = route.value;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = (): void => {
      const found = shownOf(session, query);
      setShown(found.shown);
      if (found.due) timer = setTimeout(look, found.due);
    };
    look();
    return () => clearTimeout(timer);
  });
  return shown;
}

export function experimentLink(experiment: number): string {
  return link("experiment", { exp: `${experiment}` });
}

/** How the lines of an experiment look. */
export function Swatch({ of }: { of: number }): JSX.Element {
  const { palette } = preferences.value;
  return (
    <svg class="swatch" width="20" height="8" viewBox="0 0 20 8" aria-hidden="true">
      <line x1="0" y1="4" x2="20" y2="4" stroke={colour(of, theme.value, palette)} stroke-width="3" stroke-dasharray={dash(of, palette)?.join(" ")} />
    </svg>
  );
}

export function ExperimentTable({ session }: { session: Session }): JSX.Element {
  const shown = useShown(session);
  const { query } = route.value;
  const selected = useMemo(() => new Set(selectedOf(query)), [query.sel]);
  const cursor = useSignal<number | null>(null);
  const [filtering, setFiltering] = useState<{ column: Column; left: number; top: number } | null>(null);
  const search = useRef<HTMLInputElement>(null);
  const { order } = shown;
  // Keys may come faster than the page is drawn, so what they do begins with what is now.
  const compare = (): void => go(link("compare"));
  const move = (by: number): void => {
    const at = cursor.value === null ? -1 : order.indexOf(cursor.value);
    const to = order[Math.max(0, Math.min(order.length - 1, at < 0 ? (by > 0 ? 0 : order.length - 1) : at + by))];
    if (to !== undefined) cursor.value = to;
  };
  const click = (id: number | null, how: "one" | "toggle" | "through"): void => {
    if (id === null) return;
    choose(select(pick(new Set(selectedOf(route.value.query)), order, id, how, cursor.value)));
    cursor.value = id;
  };
  useKeys([
    { keys: "j", what: "next experiment", run: () => move(1) },
    { keys: "k", what: "experiment before", run: () => move(-1) },
    { keys: "x", what: "select it, or no longer", run: () => click(cursor.value, "toggle") },
    { keys: "a", what: "select all that are shown", run: () => choose(select([...selectedOf(route.value.query), ...order])) },
    { keys: "Enter", what: "open it", run: () => cursor.value !== null && go(experimentLink(cursor.value)) },
    { keys: "c", what: "compare the selected", run: () => selected.size > 1 && compare() },
    { keys: "/", what: "filter", run: () => search.current?.focus() },
    ...(selected.size && !session.readonly.value ? [{ keys: "Escape", what: "select none", run: () => choose({ sel: null }) }] : []),
  ]);
  if (!session.state.experiments.size) return <NoneYet session={session} />;
  return (
    <section class="experiments" aria-label="experiments">
      <div class="row">
        <input
          ref={search}
          type="search"
          placeholder="filter: words, or lr<0.01"
          aria-label="filter experiments"
          title="/"
          value={query.q ?? ""}
          onInput={(event) => choose({ q: event.currentTarget.value })}
        />
        <button type="button" disabled={selected.size < 2} title="c" onClick={compare}>
          compare
        </button>
        <Columns session={session} shown={shown} />
        <button type="button" title="these rows and columns as a file" onClick={() => download(`${session.id}.csv`, asCsv(shown, clock(session)), "text/csv")}>
          CSV
        </button>
      </div>
      <div class="row filters">
        <Counts shown={shown} selected={selected} session={session} />
        <Filters shown={shown} />
      </div>
      <Grid session={session} shown={shown} selected={selected} cursor={cursor.value} move={move} click={click} filter={setFiltering} filtering={filtering?.column.id} />
      {!order.length && (
        <Empty title="No experiment passes the filter">
          <button type="button" onClick={() => choose(unfiltered(query))}>
            clear the filters
          </button>
        </Empty>
      )}
      {filtering && <FilterBox key={filtering.column.id} {...filtering} session={session} close={() => setFiltering(null)} />}
    </section>
  );
}

export function NoneYet({ session }: { session: Session }): JSX.Element {
  const { status, numExperiments } = session.state;
  return (
    <Empty title="No experiments yet">
      <p>
        {status === "STARTED"
          ? `The grid search has started${numExperiments ? ` with ${count(numExperiments)} experiments` : ""}; they stand here as soon as the first of them is announced.`
          : status
            ? "It has ended before the first of them was announced: its events say why."
            : "The log holds nothing of a grid search at this moment. Live, wait for its first event; in replay, move on."}
      </p>
      <a class="button" href={link("events")}>
        events
      </a>
    </Empty>
  );
}

function asCsv({ columns, rows }: Shown, now: number): string {
  return csv([
    columns.map(({ group, hint, title, id }) => (group === "swept" ? hint : group === "last" ? `last ${title}` : id === "id" ? "experiment" : title)),
    ...rows.map((experiment) => columns.map(({ value }) => value(experiment, now))),
  ]);
}

/** How many there are, and of which status; each of these a filter. */
function Counts({ shown, selected, session }: { shown: Shown; selected: ReadonlySet<number>; session: Session }): JSX.Element {
  const { query } = route.value;
  const filter = query["f.status"] ?? "";
  const chosen = Object.values(STATUS_WORDS).includes(filter) ? [filter] : alternatives(filter);
  const all = session.state.experiments.size;
  const rows = new Set(shown.order);
  const hidden = [...selected].filter((id) => !rows.has(id)).length;
  return (
    <>
      <span class="small" role="status">
        {rows.size === all ? count(all) : `${count(rows.size)} of ${count(all)}`} experiment{all === 1 ? "" : "s"}
        {selected.size > 0 && `, ${count(selected.size)} selected${hidden ? ` (${count(hidden)} not shown)` : ""}`}
      </span>
      {selected.size > 0 && (
        <button type="button" class="plain small" title="Escape" onClick={() => choose({ sel: null })}>
          none
        </button>
      )}
      <span class="counts">
        {Object.entries(STATUS_WORDS).map(([status, word]) => {
          const number = shown.overview.counts.get(status) ?? 0;
          const on = chosen.includes(word);
          return number || on ? (
            <button
              key={status}
              type="button"
              class="plain small"
              aria-pressed={on}
              title={`show those that are ${word}`}
              onClick={() => choose({ "f.status": anyOf(on ? chosen.filter((one) => one !== word) : [...chosen, word]) })}
            >
              <Status of={status} /> {count(number)}
            </button>
          ) : null;
        })}
      </span>
    </>
  );
}

/** The filters of columns that are on, each with a way to drop it. */
function Filters({ shown }: { shown: Shown }): JSX.Element {
  const { query } = route.value;
  const filters = [...(choiceOf(query).filters ?? [])].filter(([id]) => id !== "status");
  return (
    <>
      {filters.map(([id, expression]) => {
        const title = shown.all.find((one) => one.id === id)?.title ?? id;
        return (
          <button key={id} type="button" class="small" title="drop this filter" onClick={() => choose({ [`f.${id}`]: null })}>
            {title} <b>{expression}</b> <span aria-hidden="true">✕</span>
          </button>
        );
      })}
    </>
  );
}

const GROUPS: [Column["group"], string][] = [
  ["experiment", "experiment"],
  ["swept", "swept"],
  ["progress", "progress"],
  ["best", "best of all epochs"],
  ["last", "last epoch"],
];

function Columns({ session, shown }: { session: Session; shown: Shown }): JSX.Element {
  const { query } = route.value;
  // Those that differ come and go, so what is ticked is what was asked for.
  const ticked = new Set((query.cols === undefined ? usual(session.state, shown.all) : shown.all.filter(({ id }) => `,${query.cols},`.includes(`,${columnsAsText([id])},`))).map(({ id }) => id));
  const toggle = (ids: string[], on: boolean): void => {
    for (const id of ids) if (on) ticked.add(id); else ticked.delete(id);
    choose({ cols: columnsAsText(shown.all.filter(({ id }) => ticked.has(id) || id === "id").map(({ id }) => id)) });
  };
  return (
    <Menu label="columns" title="which columns are shown">
      <label>
        <input type="checkbox" checked={query.diff === "1"} onChange={(event) => choose({ diff: event.currentTarget.checked ? "1" : null })} /> only
        columns that differ
      </label>
      <button type="button" disabled={query.cols === undefined} onClick={() => choose({ cols: null })}>
        the usual ones
      </button>
      {GROUPS.map(([group, title]) => {
        const here = shown.all.filter((one) => one.group === group && one.id !== "id");
        const every = here.every(({ id }) => ticked.has(id));
        return here.length ? (
          <fieldset key={group}>
            <legend>
              {title}{" "}
              <button type="button" class="plain small" aria-label={`${every ? "none" : "all"} of ${title}`} onClick={() => toggle(here.map(({ id }) => id), !every)}>
                {every ? "none" : "all"}
              </button>
            </legend>
            {here.map((one) => (
              <label key={one.id} title={one.hint}>
                <input type="checkbox" checked={ticked.has(one.id)} onChange={(event) => toggle([one.id], event.currentTarget.checked)} />{" "}
                {group === "best" ? one.title.slice(5) : one.title}
              </label>
            ))}
          </fieldset>
        ) : null;
      })}
    </Menu>
  );
}

/** The filter of one column: anything that `test` of table.ts reads, and its values to choose from when they are few. */
function FilterBox({ column, left, top, session, close }: { column: Column; left: number; top: number; session: Session; close: () => void }): JSX.Element {
  const key = `f.${column.id}`;
  const expression = route.value.query[key] ?? "";
  const box = useRef<HTMLDivElement>(null);
  const found = useMemo(() => values(column, session.state.experiments.values(), clock(session)), [column]);
  const chosen = alternatives(expression);
  const focus = (): void => box.current?.querySelector("input")?.focus();
  useLayoutEffect(() => {
    const opener = document.activeElement as HTMLElement | null;
    focus();
    const elsewhere = (event: Event): void => {
      if (!box.current?.contains(event.target as Node)) close();
    };
    document.addEventListener("pointerdown", elsewhere);
    return () => {
      document.removeEventListener("pointerdown", elsewhere);
      opener?.focus();
    };
  }, []);
  return (
    <div
      ref={box}
      class="menu-panel filter-box"
      role="dialog"
      aria-label={`filter by ${column.title}`}
      style={{ left: `${Math.max(8, Math.min(left, window.innerWidth - 260))}px`, top: `${Math.min(top, window.innerHeight - 220)}px` }}
      onKeyDown={(event) => {
        if (event.key !== "Escape" && !(event.key === "Enter" && (event.target as HTMLElement).matches("[type=text]"))) return;
        event.preventDefault();
        close();
      }}
    >
      <label>
        {column.hint}
        <input
          type="text"
          value={expression}
          placeholder={column.kind === "number" ? "< 0.01   0.1..1   = 16" : "part of it, or = all of it"}
          onInput={(event) => choose({ [key]: event.currentTarget.value })}
        />
      </label>
      {found?.map(([text, number]) => (
        <label key={text}>
          <input
            type="checkbox"
            checked={chosen.includes(text.trim())}
            onChange={(event) => choose({ [key]: anyOf(event.currentTarget.checked ? [...chosen, text] : chosen.filter((one) => one !== text.trim())) })}
          />{" "}
          {text || <i>nothing</i>} <span class="muted small">{count(number)}</span>
        </label>
      ))}
      <button
        type="button"
        disabled={!expression}
        onClick={() => {
          choose({ [key]: null });
          focus(); // the button loses it, being disabled now
        }}
      >
        clear
      </button>
    </div>
  );
}

interface GridProps {
  session: Session;
  shown: Shown;
  selected: ReadonlySet<number>;
  cursor: number | null;
  move: (by: number) => void;
  click: (id: number | null, how: "one" | "toggle" | "through") => void;
  filter: (box: { column: Column; left: number; top: number }) => void;
  filtering: string | undefined;
}

function track({ id }: Column, width: number): string {
  return id === "error" ? "minmax(30ch, 1fr)" : id === "id" ? "82px" : id === "status" ? "102px" : id === "epochs" ? `calc(${width}ch + 62px)` : `calc(${width}ch + 20px)`;
}

function Grid(props: GridProps): JSX.Element {
  const { shown, selected, cursor, move, click } = props;
  const [scroller, { height }] = useSize<HTMLDivElement>();
  const [top, setTop] = useState(0);
  // Each pinned cell is a layer of its own to a browser, and those cost most of a frame: pinned only when it matters.
  const [pinned, setPinned] = useState(false);
  const at = cursor === null ? -1 : shown.order.indexOf(cursor);
  // The cursor stays in sight when keys move it.
  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element || at < 0) return;
    const head = element.querySelector(".th")?.clientHeight ?? ROW;
    if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    else if ((at + 1) * ROW + head > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * ROW + head - element.clientHeight;
  }, [cursor]);
  const first = printing.value ? 0 : Math.max(0, top - BEYOND);
  const rows = shown.rows.slice(first, printing.value ? PRINTED : top + Math.ceil(height / ROW) + BEYOND);
  const template = `34px ${shown.columns.map((one, i) => track(one, shown.widths[i] as number)).join(" ")}`;
  return (
    <div
      ref={scroller}
      class={pinned ? "grid pinned" : "grid"}
      role="grid"
      tabIndex={0}
      aria-label="experiments"
      aria-multiselectable="true"
      aria-rowcount={shown.order.length + 1}
      aria-colcount={shown.columns.length + 1}
      aria-activedescendant={rows.some(({ experiment_id }) => experiment_id === cursor) ? `row-${cursor}` : undefined}
      onScroll={({ currentTarget: { scrollLeft, scrollTop } }) => {
        setTop(Math.floor(scrollTop / ROW));
        setPinned(scrollLeft > 0);
      }}
      onKeyDown={(event) => {
        if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
        const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity }[event.key];
        if (by !== undefined) move(by);
        else if (event.key === " ") click(cursor, "toggle");
        else return;
        event.preventDefault();
      }}
    >
      <div class="sheet" style={{ "--tracks": template }}>
        <Head {...props} />
        <div
          role="rowgroup"
          style={{ height: `${shown.order.length * ROW}px` }}
          onMouseDown={(event) => event.shiftKey && event.preventDefault()}
          onClick={(event) => {
            const target = event.target as HTMLElement;
            const id = target.closest<HTMLElement>("[data-id]")?.dataset.id;
            const box = target.closest(".pick");
            if (id === undefined || target.closest("a") || (!box && `${getSelection()}`)) return;
            click(Number(id), event.shiftKey ? "through" : box || event.ctrlKey || event.metaKey ? "toggle" : "one");
          }}
        >
          <Body session={props.session} shown={shown} rows={rows} first={first} selected={selected} cursor={cursor} />
        </div>
      </div>
    </div>
  );
}

function Head({ shown, selected, filter, filtering }: GridProps): JSX.Element {
  const { query } = route.value;
  const all = useRef<HTMLInputElement>(null);
  const some = shown.order.filter((id) => selected.has(id)).length;
  const every = some > 0 && some === shown.order.length;
  useLayoutEffect(() => {
    if (all.current) all.current.indeterminate = some > 0 && !every;
  });
  return (
    <div role="rowgroup" class="head">
      <div role="row" class="tr" aria-rowindex={1}>
        <div role="columnheader" class="th pick">
          <input
            ref={all}
            type="checkbox"
            aria-label="select all that are shown"
            checked={every}
            onChange={() => choose(select(every ? [...selected].filter((id) => !shown.order.includes(id)) : [...selected, ...shown.order]))}
          />
        </div>
        {shown.columns.map((one) => {
          const sort = query.sort === one.id ? "ascending" : query.sort === `-${one.id}` ? "descending" : one.id === "id" && !query.sort ? "ascending" : "none";
          return (
            <div key={one.id} role="columnheader" class={`th ${one.kind} c-${one.id.split(":")[0]}`} aria-sort={sort} title={one.hint === one.title ? undefined : `${one.title}: ${one.hint}`}>
              <button type="button" class="sort" onClick={() => choose(nextSort(query.sort, one))}>
                <span class="clip">{one.title}</span>
                {sort !== "none" && <span aria-hidden="true">{sort === "ascending" ? "↑" : "↓"}</span>}
              </button>
              <button
                type="button"
                class="funnel"
                aria-label={`filter ${one.title}`}
                aria-haspopup="dialog"
                aria-expanded={filtering === one.id}
                aria-pressed={Boolean(query[`f.${one.id}`])}
                onClick={(event) => {
                  const { left, bottom } = event.currentTarget.getBoundingClientRect();
                  filter({ column: one, left: left - 20, top: bottom + 4 });
                }}
              >
                <svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true">
                  <path d="M.8 1h8.4L6 5v4L4 7.6V5z" />
                </svg>
              </button>
            </div>
          );
        })}
      </div>
    </div>
  );
}

interface BodyProps {
  session: Session;
  shown: Shown;
  rows: Experiment[];
  first: number;
  selected: ReadonlySet<number>;
  cursor: number | null;
}

function Body({ session, shown, rows, first, selected, cursor }: BodyProps): JSX.Element {
  useSession(session);
  useNow(session);
  const now = clock(session);
  const look = `${theme.value} ${preferences.value.palette} ${shown.bests}`;
  return (
    <>
      {rows.map((experiment, i) => {
        const id = experiment.experiment_id;
        const second = experiment.status === "RUNNING" ? Math.floor(now / 1000) : 0;
        const at = first + i;
        const stamp = `${experiment.version} ${at} ${selected.has(id)} ${cursor === id} ${second} ${look}`;
        return <Row key={id} experiment={experiment} shown={shown} at={at} selected={selected.has(id)} cursor={cursor === id} now={now} stamp={stamp} />;
      })}
    </>
  );
}

interface RowProps {
  experiment: Experiment;
  shown: Shown;
  at: number;
  selected: boolean;
  cursor: boolean;
  now: number;
  /** Everything that the row looks different for. */
  stamp: string;
}

function Row({ experiment, shown: { columns, bests }, at, selected, cursor, now, stamp }: RowProps): JSX.Element {
  return useMemo(() => {
    const id = experiment.experiment_id;
    return (
      <div id={`row-${id}`} role="row" class={cursor ? "tr at" : "tr"} data-id={id} aria-rowindex={at + 2} aria-selected={selected} style={{ top: `${at * ROW}px` }}>
        <div role="gridcell" class="td pick">
          <input type="checkbox" tabIndex={-1} checked={selected} aria-label={`select experiment ${id}`} />
        </div>
        {columns.map((one, i) => (
          <div key={one.id} role={one.id === "id" ? "rowheader" : "gridcell"} class={`td ${one.kind} c-${one.id.split(":")[0]}`}>
            {/* Links on every cell would make a row heavy and hard to click: the row one is at has them. */}
            {cursor && one.id !== "id" ? <Seq of={one.seq(experiment)}>{cell(one, experiment, bests[i] ?? null, now)}</Seq> : cell(one, experiment, bests[i] ?? null, now)}
          </div>
        ))}
      </div>
    );
  }, [experiment, columns, stamp]);
}

function cell(column: Column, experiment: Experiment, best: number | null, now: number): JSX.Element | string {
  const text = column.text(experiment, now);
  switch (column.id) {
    case "id":
      return (
        <>
          <Swatch of={experiment.experiment_id} />
          <a href={experimentLink(experiment.experiment_id)} tabIndex={-1}>
            {text}
          </a>
        </>
      );
    case "status":
      return (
        <span title={experiment.error ?? experiment.reason ?? undefined}>
          <Status of={experiment.status} />
        </span>
      );
    case "epochs":
      return (
        <>
          <span class="bar" aria-hidden="true">
            <i style={{ width: `${Math.min(100, (100 * experiment.epochs_done) / (experiment.num_epochs || Infinity))}%` }} />
          </span>
          {text}
        </>
      );
    case "error":
      return (
        <span class={experiment.error ? "bad" : undefined} title={text}>
          {text}
        </span>
      );
    default:
      if (column.group === "swept" && text.length > 20) return <span title={text}>{text}</span>;
      return best !== null && column.value(experiment, now) === best ? (
        <b title="the best of these rows">
          <span aria-hidden="true">★ </span>
          {text}
        </b>
      ) : (
        text
      );
  }
}

// All grid searches of the event storage, the newest first; details are asked for as rows come into sight.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { refused, rest, taking } from "../state/board";
import * as format from "../state/format";
import { choose, link, route } from "../state/route";
import type { Listed, Summary } from "../wire/answers";
import { scalar } from "../wire/decode";
import { useKeys } from "./keys";
import { Bar, Empty, Status, useNow } from "./parts";
import { useWindow, WindowTable } from "./window";
import "./grids.css";

const EVERY = 2000; // ms between two looks at the list
const AT_ONCE = 4; // requests for details

interface Row extends Listed {
  summary: Summary | undefined;
  /** Why there is none. */
  why: string | undefined;
}

/** What is known of each grid search, and as of which state of its log. */
const known = new Map<string, { of: string; summary?: Summary; why?: string }>();

const key = (id: string): string => `${rest.peek().base}/${id}`;

function status(row: Row): string {
  const found = row.summary?.status || row.status || "";
  return found === "STARTED" && !row.running ? "DEAD" : found;
}

/** Seconds from its start to its end, to now, or to its last event if it died. */
function took({ summary, running }: Row, now: number): number | null {
  if (!summary?.starting_time) return null;
  return ((summary.finishing_time ?? (running ? now : summary.time)) - summary.starting_time) / 1000;
}

/** How many it has: earlier tools did not announce them. */
function experiments({ counts, num_experiments }: Summary): number {
  return Math.max(num_experiments, Object.values(counts).reduce((sum, one) => sum + one, 0));
}

interface Column {
  title: string;
  value: (row: Row, now: number) => string | number | null | undefined;
  cell: (row: Row, now: number) => JSX.Element | string | undefined;
  number?: boolean;
  /** Only details say it. */
  late?: boolean;
}

const COLUMNS: Record<string, Column> = {
  id: {
    title: "grid search",
    value: (row) => row.grid_search_id,
    cell: (row) => <a href={link("analysis", {}, row.grid_search_id)}>{row.grid_search_id}</a>,
  },
  status: {
    title: "status",
    value: status,
    cell: (row) => <Status of={status(row)} />,
  },
  progress: {
    title: "progress",
    late: true,
    value: ({ summary }) => (summary?.epochs_total ? summary.epochs_done / summary.epochs_total : null),
    cell: ({ summary, why, grid_search_id }) =>
      summary ? (
        <span class="progress" title={`${summary.epochs_done} of ${summary.epochs_total || "?"} epochs`}>
          <Bar done={summary.epochs_done} of={summary.epochs_total} label={`epochs of ${grid_search_id}`} />
          {summary.epochs_total ? `${Math.floor((100 * summary.epochs_done) / summary.epochs_total)}%` : "–"}
        </span>
      ) : (
        why && <span class="bad" title={why}>{why}</span>
      ),
  },
  done: {
    title: "done",
    late: true,
    number: true,
    value: ({ summary }) => summary && (summary.counts.DONE ?? 0),
    cell: ({ summary }) => (summary ? `${summary.counts.DONE ?? 0} of ${experiments(summary)}` : ""),
  },
  failed: {
    title: "failed",
    late: true,
    number: true,
    value: ({ summary }) => summary && (summary.counts.FAILED ?? 0),
    cell: ({ summary }) => (summary?.counts.FAILED ? <strong class="bad">{summary.counts.FAILED}</strong> : summary ? "0" : ""),
  },
  best: {
    title: "best score",
    late: true,
    value: ({ summary }) => summary?.best && scalar(summary.best.value),
    cell: ({ summary, grid_search_id: id }) => {
      const best = summary?.best;
      return best ? (
        <>
          <a href={link("events", { seq: `${best.seq}` }, id)} title={`event ${best.seq}`}>
            {format.score(scalar(best.value))}
          </a>{" "}
          <span class="muted">{best.score}</span> <a href={link("experiment", { exp: `${best.experiment_id}` }, id)}>#{best.experiment_id}</a>
        </>
      ) : (
        ""
      );
    },
  },
  started: { title: "started", late: true, value: ({ summary }) => summary?.starting_time, cell: ({ summary }) => (summary ? format.time(summary.starting_time) : "") },
  took: { title: "took", late: true, number: true, value: took, cell: (row, now) => (row.summary ? format.duration(took(row, now)) : "") },
  events: { title: "events", number: true, value: (row) => row.summary?.seq ?? row.head, cell: (row) => format.count(row.summary?.seq ?? row.head ?? 0) },
};

export function GridsView(): JSX.Element {
  const [found, setFound] = useState<{ list?: Listed[]; error?: string }>({});
  const from = rest.value;
  useEffect(() => {
    let gone = false;
    let timer = 0;
    const look = async (): Promise<void> => {
      if (document.visibilityState === "visible") {
        const since = taking();
        try {
          const list = (await from.gridSearches()).reverse();
          if (!gone) setFound({ list });
        } catch (error) {
          if (!gone) refused(error, since);
          if (!gone) setFound(({ list }) => ({ ...(list && { list }), error: (error as Error).message }));
        }
      }
      if (!gone) timer = window.setTimeout(look, EVERY);
    };
    void look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [from]);

  if (!found.list) {
    return found.error ? (
      <Empty whole title="The grid searches cannot be listed">
        <p>{found.error}. The page tries again by itself.</p>
        <p>
          If the board was stopped, start it again: <code>ml_board --event_storage_path event_storage</code>
        </p>
      </Empty>
    ) : (
      <p class="muted">looking …</p>
    );
  }
  return found.list.length ? <List list={found.list} error={found.error ?? ""} /> : <NoRun />;
}

function List({ list, error }: { list: readonly Listed[]; error: string }): JSX.Element {
  const [, render] = useState({});
  const filter = useRef<HTMLInputElement>(null);
  const now = useNow();
  useKeys([{ keys: "/", what: "filter", run: () => filter.current?.focus() }]);
  const { q = "", sort = "" } = route.value.query;
  const by = Object.entries(COLUMNS).find(([id]) => id === sort.replace("-", ""))?.[1];
  let rows: Row[] = list.map((one) => {
    const details = known.get(key(one.grid_search_id));
    return { ...one, summary: details?.summary, why: details?.why };
  });
  const words = q.toLowerCase().split(/\s+/);
  rows = rows.filter((row) => {
    const text = `${row.grid_search_id} ${status(row)} ${row.summary?.best?.score}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  if (by) {
    const sign = sort[0] === "-" ? -1 : 1;
    const keyed = rows.map((row) => [by.value(row, now) ?? null, row] as const);
    keyed.sort(([a], [b]) => (a === null || b === null ? Number(a === null) - Number(b === null) : sign * (a < b ? -1 : a > b ? 1 : 0)));
    rows = keyed.map(([, row]) => row);
  }
  const view = useWindow(rows.length, 32);
  const shown = rows.slice(view.first, view.end);

  // Those in sight; all of them if the order depends on it.
  const asking = useRef(0);
  useEffect(() => {
    for (const row of [...shown, ...(by?.late ? rows : [])]) {
      if (asking.current >= AT_ONCE) return;
      const id = row.grid_search_id;
      const of = `${row.head} ${row.size} ${row.running}`;
      const before = known.get(key(id));
      if (before?.of === of) continue;
      known.set(key(id), { ...before, of });
      asking.current++;
      rest
        .peek()
        .summary(id)
        .then(
          (summary) => void known.set(key(id), { of, summary }),
          (error: Error) => {
            known.set(key(id), { of, why: error.message });
            setTimeout(() => known.delete(key(id)), 3 * EVERY); // and then it is asked for again
          },
        )
        .finally(() => {
          asking.current--;
          render({});
        });
    }
  });

  return (
    <div class="full">
      <div class="row">
        <h1>Grid searches</h1>
        <span class="muted">{rows.length < list.length ? `${rows.length} of ${list.length}` : rows.length}</span>
        <input ref={filter} type="search" aria-label="filter grid searches" placeholder="filter  /" value={q} onInput={(event) => choose({ q: event.currentTarget.value })} />
        {error && (
          <span class="bad" role="alert">
            {error}; trying again
          </span>
        )}
      </div>
      {shown.some((row) => ["DEAD", "INTERRUPTED"].includes(status(row))) && (
        <p class="small muted">
          Dead: it has not ended, and no process runs it. That and what was interrupted goes on where it stood with <code>type: warmstart</code> and its{" "}
          <code>gridsearch_id</code> in the run configuration.
        </p>
      )}
      <WindowTable
        of={view}
        class="grids"
        label="grid searches"
        count={rows.length}
        head={
          <tr>
            {Object.entries(COLUMNS).map(([id, { title, number }]) => {
              const way = sort === id ? "ascending" : sort === `-${id}` ? "descending" : "none";
              return (
                <th key={id} class={`c-${id} ${number ? "number" : ""}`} aria-sort={way}>
                  <button type="button" class="plain" onClick={() => choose({ sort: way === "none" ? `-${id}` : way === "descending" ? id : null })}>
                    {title}
                    {way === "ascending" ? " ↑" : way === "descending" ? " ↓" : ""}
                  </button>
                </th>
              );
            })}
          </tr>
        }
      >
        {shown.map((row, i) => (
          <tr key={row.grid_search_id} aria-rowindex={view.first + i + 2}>
            {Object.entries(COLUMNS).map(([id, column]) => (
              <td key={id} class={column.number ? "number" : ""}>
                {column.cell(row, now)}
              </td>
            ))}
          </tr>
        ))}
      </WindowTable>
    </div>
  );
}

function NoRun(): JSX.Element {
  return (
    <Empty whole title="No grid search yet">
      <p>Start one where this board's event storage lies, and it appears here by itself:</p>
      <pre>mlgym run --config_path run_config.yml</pre>
      <p>or the example of a checkout:</p>
      <pre>cd example/digits_grid && python run.py --config_path run_config.yml</pre>
      <p class="muted">
        A run writes into <code>event_storage</code> in its working directory. The board looks into the folder that it was started with, which is the same unless{" "}
        <code>--event_storage_path</code> says otherwise: <code>ml_board --event_storage_path example/digits_grid/event_storage</code>
      </p>
    </Empty>
  );
}

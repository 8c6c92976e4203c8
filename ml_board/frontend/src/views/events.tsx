// The raw log, oldest first as in the file. Without a filter row i is event i + 1, and the rows in sight are fetched;
// with one, the pages that fit are fetched from the newest back, and on.

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { seek } from "../state/board";
import * as format from "../state/format";
import { choose, link, route } from "../state/route";
import type { Session } from "../state/session";
import { incoming, isObject, scalar } from "../wire/decode";
import { PAYLOADS } from "../wire/events";
import { useKeys } from "./keys";
import { useSession } from "./parts";
import { useWindow, WindowTable } from "./window";
import "./events.css";

const ROW = 28; // px
const PAGE = 200; // events a request
const KEPT = 4000; // that are kept to be scrolled back to
const RETRY = 2000; // ms
const MATTER = "job_status,grid_search,warning,nondeterminism_detected";

/** An event, and what its row says. */
interface Line {
  seq: number;
  time: number;
  type: string;
  experiment: number | undefined;
  attempt: number;
  source: string;
  text: string;
  raw: unknown;
}

function read(raw: unknown): Line {
  const { seq, known, raw: event } = incoming(raw);
  const payload = isObject(event.payload) ? event.payload : {};
  const experiment = payload.experiment_id;
  return {
    seq,
    time: Number(event.creation_ts) || 0,
    type: String(event.event_type ?? ""),
    experiment: typeof experiment === "number" ? experiment : undefined,
    attempt: Number(event.attempt) || 1,
    source: String(event.source ?? ""),
    text: summary(known, payload).slice(0, 300),
    raw,
  };
}

function summary(event: ReturnType<typeof incoming>["known"], payload: Record<string, unknown>): string {
  switch (event?.event_type) {
    case "experiment_config":
      return pairs(event.payload.swept ?? {});
    case "job_status": {
      const { status, device, reason, error } = event.payload;
      return [status, device, error, reason].filter(Boolean).join(" · ");
    }
    case "experiment_status": {
      const { status, current_split: split, current_epoch: epoch, num_epochs, current_batch: batch, num_batches } = event.payload;
      return `${status} ${split ?? ""} · epoch ${epoch}/${num_epochs} · batch ${batch ?? 0}/${num_batches ?? 0}`;
    }
    case "evaluation_result": {
      const { epoch, metric_scores = [], loss_scores = [] } = event.payload;
      const scores = [...metric_scores.map((one) => ({ ...one, tag: one.metric })), ...loss_scores.map((one) => ({ ...one, tag: one.loss }))];
      return [`epoch ${epoch}`, ...scores.map(({ split, tag, score }) => `${split}/${tag} ${format.score(scalar(score))}`)].join(" · ");
    }
    case "checkpoint": {
      const { action, epoch, batch, files = [] } = event.payload;
      const size = files.length ? ` · ${format.bytes(files.reduce((sum, file) => sum + file.size, 0))}` : "";
      return `${action} · epoch ${epoch}${batch ? `, batch ${batch}` : ""}${size}`;
    }
    case "job_output":
      return event.payload.text.trim();
    case "warning":
      return event.payload.message;
    case "nondeterminism_detected":
      return `epoch ${event.payload.epoch} · ${(event.payload.changes ?? []).map(({ score, before, now }) => `${score} was ${before}, is ${now}`).join(" · ")}`;
    default:
      return pairs(payload);
  }
}

function pairs(of: Record<string, unknown>): string {
  return Object.entries(of)
    .filter(([key]) => key !== "grid_search_id")
    .map(([key, value]) => `${key} ${format.value(value)}`)
    .join(" · ");
}

/** What has been fetched. `list`: of what fits the filter; `all`: of the log, with holes. */
interface Fetched {
  all: Map<number, Line>;
  list: Line[];
  /** Where to go on backwards; null: at the beginning. */
  back: number | null;
  /** Up to which event all that fits is in the list. */
  upto: number;
  busy: boolean;
  error: string;
}

export function EventsView({ session }: { session: Session }): JSX.Element {
  useSession(session);
  const { type = "", exp: asked = "", seq: chosen = "" } = route.value.query;
  const exp = /^\d{1,15}$/.test(asked) ? asked : ""; // what is no number is no filter
  const seq = Number(chosen) || 0;
  const head = session.state.seq; // in replay what came later has not happened
  const filter = type || exp || session.rest.file ? `${type}?${exp}` : ""; // one file may have gaps, so it is a list as well
  const [, render] = useState({});
  const fetched = useMemo<Fetched>(() => {
    const upto = Math.min(seq || head, head);
    return { all: new Map(), list: [], back: upto + 1, upto, busy: false, error: "" };
  }, [filter]);
  const { all, list } = fetched;
  const past = filter ? list.findIndex((line) => line.seq > head) : -1;
  const count = filter ? (past < 0 ? list.length : past) : head;
  const view = useWindow(count, ROW, true);
  const at = (row: number): Line | undefined => (filter ? list[row] : all.get(row + 1));

  // One request at a time; each render looks whether there is another to make.
  useEffect(() => {
    if (fetched.busy || fetched.error) return;
    const fits = { limit: PAGE, type: type ? type.split(",").map((one) => one.trim()) : [], experiment: exp ? Number(exp) : undefined };
    const ask = (which: { after?: number; before?: number }, take: (lines: Line[], next: number | null, newest: number) => void): void => {
      fetched.busy = true;
      session.rest
        .events(session.id, { ...fits, ...which })
        .then(
          (page) => take(page.events.map(read), page.next ?? null, page.head),
          (error: Error) => {
            fetched.error = error.message;
            setTimeout(() => {
              fetched.error = "";
              render({});
            }, RETRY);
          },
        )
        .finally(() => {
          fetched.busy = false;
          render({});
        });
    };
    if (filter) {
      if (fetched.back !== null && view.first < 50) {
        ask({ before: fetched.back }, (lines, next) => {
          list.unshift(...lines);
          fetched.back = next;
          if (!view.following) view.shift(lines.length);
        });
      } else if (fetched.upto < head && view.end >= list.length) {
        const { upto } = fetched;
        ask({ after: upto }, (lines, next, newest) => {
          list.push(...lines);
          fetched.upto = next ?? Math.max(newest, upto);
        });
      }
      return;
    }
    let missing = view.first + 1;
    while (missing <= view.end && all.has(missing)) missing++;
    if (missing > view.end) return;
    let after = missing - 1;
    while (after > 0 && missing - after < PAGE / 2 && !all.has(after)) after--;
    ask({ after }, (lines) => {
      const last = lines.at(-1)?.seq ?? after;
      for (const line of lines) all.set(line.seq, line);
      // What is not there among them is nowhere.
      for (let lost = after + 1; lost < last; lost++) if (!all.has(lost)) all.set(lost, { ...read({ seq: lost }), text: "cannot be read: the log is damaged here" });
      for (const key of all.keys()) {
        if (all.size <= KEPT) break;
        all.delete(key);
      }
      if (!lines.length) fetched.error = "the board has no events here; trying again";
    });
  });

  // The event of the address: gone to when it changes, and when its row is known.
  const row = filter ? list.findIndex((line) => line.seq === seq) : seq - 1;
  const gone = useRef("");
  useEffect(() => {
    const place = `${filter} ${chosen} ${view.fit}`; // where it is in sight also depends on the size of the box
    if (row < 0 || row >= count || gone.current === place) return;
    if (view.show(row)) gone.current = place;
  });

  const open = (to: number): void => {
    const line = filter ? list[to] : { seq: to + 1 };
    if (line && to >= 0 && to < count) choose({ seq: `${line.seq}` });
  };
  useKeys([
    { keys: "j", what: "next event", run: () => open(seq ? row + 1 : count - 1) },
    { keys: "k", what: "event before", run: () => open(seq ? row - 1 : count - 1) },
  ]);
  const opened = row >= 0 ? at(row) : undefined;
  const rows = Array.from({ length: view.end - view.first }, (_, i) => view.first + i);
  return (
    <div class="full">
      <div class="row">
        <h1>Events</h1>
        <span class="muted">{filter ? `${format.count(count)}${fetched.back === null ? "" : "+"} of ${format.count(head)}` : format.count(head)}</span>
        <input type="text" list="event-types" class="type" aria-label="type of events" placeholder="type" value={type} onChange={(event) => choose({ type: event.currentTarget.value.trim() })} />
        <datalist id="event-types">
          {Object.keys(PAYLOADS).map((one) => (
            <option key={one} value={one} />
          ))}
        </datalist>
        <input type="number" min="0" aria-label="experiment" placeholder="experiment" value={exp} onChange={(event) => choose({ exp: event.currentTarget.value })} />
        <button type="button" aria-pressed={type === MATTER} onClick={() => choose({ type: type === MATTER ? null : MATTER })}>
          only what matters
        </button>
        {filter && (
          <button type="button" class="plain" onClick={() => choose({ type: null, exp: null })}>
            all events
          </button>
        )}
        {!view.following && (
          <button type="button" onClick={() => view.show(Infinity)}>
            to the newest ↓
          </button>
        )}
        <span class="bad" role="alert">
          {fetched.error && `${fetched.error}; trying again`}
        </span>
      </div>
      {filter && !count && !fetched.busy && fetched.back === null && <p class="muted">No event fits these choices.</p>}
      <div class={`log ${opened ? "split" : ""}`}>
          <WindowTable
            of={view}
            class="events"
            label="events"
            count={count}
            head={
              <tr>
                {["seq", "time", "type", "exp", "attempt", "source", "what"].map((name) => (
                  <th key={name} class={`c-${name}`}>
                    {name}
                  </th>
                ))}
              </tr>
            }
          >
            {rows.map((i) => {
              const line = at(i);
              return (
                <tr
                  key={i}
                  aria-rowindex={i + 2}
                  aria-current={i === row ? "true" : undefined}
                  onClick={(event) => {
                    if (event.ctrlKey || event.metaKey) return;
                    event.preventDefault();
                    open(i);
                  }}
                >
                  {line ? (
                    <>
                      <td>
                        <a href={link("events", { seq: `${line.seq}`, type, exp })}>{line.seq}</a>
                      </td>
                      <td>{format.time(line.time).slice(5)}</td>
                      <td>{line.type}</td>
                      <td>{line.experiment}</td>
                      <td>{line.attempt > 1 ? line.attempt : ""}</td>
                      <td title={line.source}>{line.source.replace(/^[0-9a-f]{16}-/, "")}</td>
                      <td>{line.text}</td>
                    </>
                  ) : (
                    <td colSpan={7} class="muted">
                      {filter ? "" : i + 1} …
                    </td>
                  )}
                </tr>
              );
            })}
          </WindowTable>
        {opened && <Opened line={opened} />}
      </div>
    </div>
  );
}

function Opened({ line }: { line: Line }): JSX.Element {
  const text = useMemo(() => JSON.stringify(line.raw, null, 2), [line]);
  return (
    <section class="stack" aria-label={`event ${line.seq}`}>
      <div class="row spread">
        <h2>
          Event {line.seq} <span class="muted">{line.type}</span>
        </h2>
        <button type="button" class="plain" aria-label="close" onClick={() => choose({ seq: null })}>
          ✕
        </button>
      </div>
      <div class="row">
        {line.experiment !== undefined && (
          <a class="button" href={link("experiment", { exp: `${line.experiment}` })}>
            experiment {line.experiment}
          </a>
        )}
        <button type="button" onClick={() => seek(line.seq)}>
          replay from here
        </button>
        <span class="muted small">{format.time(line.time)}</span>
      </div>
      <pre tabIndex={0} aria-label="as JSON">
        {text}
      </pre>
    </section>
  );
}

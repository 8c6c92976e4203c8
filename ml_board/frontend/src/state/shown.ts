// What the table shows, for all who ask in the same paint; found anew no oftener than it is worth while events come in.

import type { Session } from "./session";
import type { Experiment } from "./fold";
import { overview, type Overview } from "./overview";
import { choiceOf, columnsOf, type Query } from "./selection";
import { bestOf, type Column, columns, onlyDiffering, rows, usual } from "./table";

export interface Shown {
  all: Column[];
  columns: Column[];
  /** How wide each of `columns` is, in characters. */
  widths: number[];
  /** The rows that remain, in their order. */
  rows: Experiment[];
  /** Their numbers. */
  order: number[];
  /** For each of `columns` the best of its values among the rows; null: none is marked. */
  bests: (number | null)[];
  overview: Overview;
}

interface Known {
  key: string;
  version: number;
  at: number;
  /** ms that it took */
  cost: number;
  names: string;
  widest: Map<string, number>;
  shown: Shown;
}

const known = new WeakMap<Session, Known>();

/** Unix time in ms; that of the log in replay, in one file, and when nobody writes it any more. */
export function clock(session: Session): number {
  const { time } = session.state;
  return session.replay.peek() || session.dead.peek() || session.rest.file ? time : Math.max(Date.now(), time);
}

/** What to show now, and in how many ms there is more to show; 0: this is all. */
export function shownOf(session: Session, query: Query): { shown: Shown; due: number } {
  const before = known.get(session);
  const version = session.version.peek();
  const kept = Object.entries(query).filter(([key]) => /^(q|f\..*|sort|cols|diff|by)$/.test(key));
  const key = JSON.stringify([session.generation.peek(), session.dead.peek(), session.state.experiments.size > 0, kept]);
  const start = performance.now();
  if (before?.key === key) {
    if (before.version === version) return { shown: before.shown, due: 0 };
    // Rows that change places twice a second are more than anybody can follow, and not to be clicked.
    const due = before.at + Math.max(/^-?(id|swept:.*)?$/.test(query.sort ?? "") ? 200 : 800, 20 * before.cost) - start;
    if (due > 0) return { shown: before.shown, due };
  }
  const found = find(session, query, before);
  known.set(session, { ...found, key, version, at: performance.now(), cost: performance.now() - start });
  return { shown: found.shown, due: 0 };
}

function find(session: Session, query: Query, before: Known | undefined): Pick<Known, "names" | "widest" | "shown"> {
  const { state } = session;
  const now = clock(session);
  let all = columns(state);
  const names = JSON.stringify(all.map(({ id, kind }) => id + kind));
  // The same columns stay the same objects, so that rows which have not changed need not be drawn again.
  if (before?.names === names) all = before.shown.all;
  const found = rows(state, all, choiceOf(query), now);
  const ids = columnsOf(query);
  let some = ids ? all.filter(({ id }) => id === "id" || ids.includes(id)) : usual(state, all);
  if (query.diff) some = onlyDiffering(some, found, now);
  const same = before && some.length === before.shown.columns.length && some.every((one, i) => one === before.shown.columns[i]);
  if (same) some = before.shown.columns;
  // They grow with what is in them, and do not shrink: a table that breathes cannot be read.
  const widest = before?.widest ?? new Map<string, number>();
  const widths = some.map((one) => {
    let width = Math.max(widest.get(one.id) ?? 0, one.title.length + 3);
    for (const experiment of found.slice(0, 60)) width = Math.max(width, one.text(experiment, now).length + (one.smaller === undefined ? 0 : 2));
    width = Math.min(width, 28);
    widest.set(one.id, width);
    return width;
  });
  return {
    names,
    widest,
    shown: {
      all,
      columns: some,
      widths: same && widths.every((width, i) => width === before.shown.widths[i]) ? before.shown.widths : widths,
      rows: found,
      order: found.map(({ experiment_id }) => experiment_id),
      bests: some.map((one) => bestOf(one, found)),
      overview: overview(state, now, query.by),
    },
  };
}

// What the address says about the table: filters, order, columns, and which experiments are selected. Pure.
//
//   q free text   f.<column> its filter   sort (`-`: descending)   cols shown   diff=1   sel selected   by judged by

import { ranges, unranged } from "../wire/rest";
import type { Choice } from "./table";

export type Query = Readonly<Record<string, string>>;

/** Which rows, in which order. */
export function choiceOf(query: Query): Choice {
  const filters = new Map<string, string>();
  for (const key in query) if (key.startsWith("f.")) filters.set(key.slice(2), query[key] as string);
  return { text: query.q ?? "", filters, sort: query.sort ?? "" };
}

/** What to choose so that no row is left out. */
export function unfiltered(query: Query): Record<string, null> {
  return Object.fromEntries(Object.keys(query).filter((key) => key === "q" || key.startsWith("f.")).map((key) => [key, null]));
}

/** What to choose for a click on a column's header: its best or smallest first, then the other way, then by number again. */
export function nextSort(sort: string | undefined, { id, smaller }: { id: string; smaller?: boolean }): { sort: string | null } {
  const both = smaller === false ? [`-${id}`, id] : [id, `-${id}`];
  if (id === "id") return { sort: sort === "-id" ? null : "-id" };
  return { sort: sort === both[0] ? (both[1] as string) : sort === both[1] ? null : (both[0] as string) };
}

/** The ids of columns; null: the usual ones. */
export function columnsOf(query: Query): string[] | null {
  return query.cols === undefined ? null : query.cols.split(",").map((id) => id.replace(/%2C/g, ",").replace(/%25/g, "%"));
}

export function columnsAsText(ids: readonly string[]): string {
  return ids.map((id) => id.replace(/%/g, "%25").replace(/,/g, "%2C")).join(",");
}

/** The numbers of the selected experiments. */
export function selectedOf(query: Query): number[] {
  return unranged(query.sel ?? "");
}

export function select(experiments: Iterable<number>): { sel: string } {
  return { sel: ranges([...experiments]) };
}

/**
 * The selection after a click on a row: `one` alone (none, if it was alone before), `toggle`d, or `through`: also all
 * between it and `anchor`, the row that was clicked before, in the order in which they are shown.
 */
export function pick(
  selected: ReadonlySet<number>,
  order: readonly number[],
  id: number,
  how: "one" | "toggle" | "through",
  anchor: number | null = null,
): Set<number> {
  if (how === "one") return selected.size === 1 && selected.has(id) ? new Set() : new Set([id]);
  const found = new Set(selected);
  const [from, to] = [anchor === null ? -1 : order.indexOf(anchor), order.indexOf(id)];
  if (how === "through" && from >= 0 && to >= 0) {
    for (const one of order.slice(Math.min(from, to), Math.max(from, to) + 1)) found.add(one);
  } else if (how === "toggle" && found.has(id)) {
    found.delete(id);
  } else {
    found.add(id);
  }
  return found;
}

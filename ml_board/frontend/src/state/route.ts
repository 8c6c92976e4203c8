// Where the page is: grid search, page and everything chosen on it stand in the address, so that any view can be
// bookmarked and sent to others.  #/<grid search>/<page>?key=value
//
// The address is read once, and afterwards written; `route` is what views read.

import { signal } from "@preact/signals";

export const PAGES = ["analysis", "sweep", "compare", "experiment", "events", "settings"] as const;
export type Page = "grids" | (typeof PAGES)[number];

export interface Route {
  /** null on the list of grid searches */
  id: string | null;
  page: Page;
  query: Readonly<Record<string, string>>;
}

export const route = signal<Route>({ id: null, page: "grids", query: {} });

export function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  const [id = "", page = ""] = path.split("/");
  const query = Object.fromEntries(new URLSearchParams(search));
  if (id === "settings" && !page) return { id: null, page: "settings", query };
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id)) return { id: null, page: "grids", query };
  return { id, page: (PAGES as readonly string[]).includes(page) ? (page as Page) : "analysis", query };
}

export function format({ id, page, query }: Route): string {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "")).toString();
  const path = id === null ? (page === "settings" ? "settings" : "") : `${id}/${page}`;
  return `#/${path}${search && `?${search}`}`;
}

/** The pages about all experiments, which go on with the same ones: filtered, sorted and selected. */
const OF_MANY: readonly Page[] = ["analysis", "sweep", "compare"];
const KEPT = /^(at|q|sel|sort|by|f\..*)$/;

/** The address of a page; on the same grid search the moment goes along, and what was selected. */
export function link(page: Page, query: Record<string, string> = {}, id: string | null = route.value.id): string {
  const here = page !== "grids" && id !== null && id === route.value.id;
  const kept = Object.entries(here ? route.value.query : {}).filter(
    ([key]) => key === "at" || (OF_MANY.includes(page) && KEPT.test(key)),
  );
  return format({ id: page === "grids" ? null : id, page, query: { ...Object.fromEntries(kept), ...query } });
}

/** Go to an address of `link`, as a click on it would. */
export function go(hash: string): void {
  window.location.hash = hash;
}

/** Change what is chosen on this page; empty values go. It is one entry of the history, however often it changes. */
export function choose(query: Record<string, string | null>): void {
  const changed = { ...route.value.query };
  for (const [key, value] of Object.entries(query)) {
    if (value === null || value === "") delete changed[key];
    else changed[key] = value;
  }
  route.value = { ...route.value, query: changed };
  window.history.replaceState(null, "", format(route.value));
}

/** Follow the address from now on. */
export function follow(): void {
  const read = (): void => {
    route.value = parse(window.location.hash);
  };
  window.addEventListener("hashchange", read);
  read();
}

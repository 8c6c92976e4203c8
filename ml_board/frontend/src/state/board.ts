// The board that the page talks to, and the grid search that is open: follows the address.

import { batch, effect, signal } from "@preact/signals";
import type { Endpoints } from "../wire/answers";
import { Rest, RestError } from "../wire/rest";
import type { Listener, Messenger } from "../wire/socket";
import { prefer, preferences } from "./preferences";
import { choose, follow, format, go, link, route } from "./route";
import { Session } from "./session";

/** How the page gets at what it shows: from a board, or from what is in its own file. */
export interface Means {
  endpoints(): Promise<Endpoints>;
  rest(base: string): Rest;
  connect(websocket: string, listener: Listener): Messenger;
}

/** What the page was told by where it came from. */
export const served = signal<Endpoints>({ rest: null, ws: null, run_id: null, allowed: [] });
export const rest = signal(new Rest(""));
export const session = signal<Session | null>(null);
/** Whether the board asks for a token that this browser has not brought. */
export const locked = signal(false);
/** Bumped to open the connection anew. */
const attempt = signal(0);

/** The address of `url` without a path, or why it cannot be used. */
export function endpoint(url: string): { ok: string } | { why: string } {
  if (url === "") return { ok: "" };
  let found: URL;
  try {
    found = new URL(url);
  } catch {
    return { why: "expected an address such as http://127.0.0.1:5001" };
  }
  if (!["http:", "https:"].includes(found.protocol)) return { why: "expected http:// or https://" };
  if (found.pathname !== "/" || found.search || found.hash) return { why: "expected an address without a path" };
  const { rest, ws, allowed } = served.value;
  const known = [window.location.origin, rest, ws, ...allowed].filter((one) => one !== null);
  if (!known.includes(found.origin)) {
    return {
      why: `this page may only talk to ${known.join(", ")}; start ml_board with --endpoints ${found.origin} to allow it`,
    };
  }
  return { ok: found.origin === window.location.origin ? "" : found.origin };
}

function chosen(url: string | null, otherwise: string | null): string {
  const found = endpoint(url ?? otherwise ?? "");
  return "ok" in found ? found.ok : "";
}

/** Where the websocket is. */
const websocket = (): string => chosen(preferences.value.ws, served.value.ws);

/** Begin: learn where the board is, trade a token from the address for a cookie, and follow the address. */
export async function open(means: Means): Promise<void> {
  try {
    served.value = { ...served.value, ...(await means.endpoints()) };
  } catch {
    // the board has gone meanwhile: the page says so, and what it was told before may still be right
  }
  const base = (): Rest => means.rest(chosen(preferences.value.rest, served.value.rest));
  rest.value = base();
  let first = window.location.hash === "";
  const token = taken("#/");
  if (token !== null) {
    first = true;
    await bring(token).catch(() => false);
  }
  // The printed address may also be opened where the page is open: the view stays. Before `follow`, which reads what is left.
  window.addEventListener("hashchange", () => {
    const later = taken(format(route.peek()));
    if (later !== null) void bring(later).catch(() => false);
  });
  follow();
  if (first && served.value.run_id) go(link("analysis", {}, served.value.run_id));
  let opened = "";
  let talking = "";
  effect(() => {
    const next = base();
    if (next.base !== rest.peek().base) rest.value = next;
    const ws = websocket();
    if (talking && talking !== `${next.base} ${ws}`) locked.value = false; // another one may know this browser
    talking = `${next.base} ${ws}`;
    const id = route.value.id;
    const key = JSON.stringify([next.base, ws, id, attempt.value]);
    if (key === opened) return;
    opened = key;
    session.peek()?.close();
    const at = route.peek().query.at;
    session.value = id === null ? null : new Session(id, rest.peek(), (listener) => means.connect(ws, listener), at === undefined ? null : moment(at));
  });
  effect(() => {
    const connection = session.value?.connection.value;
    if (connection?.kind === "absent" && connection.status === 401) locked.value = true;
  });
  // A moment in the address that somebody has come to, by a link or back and forth.
  effect(() => {
    const at = route.value.query.at;
    const open = session.peek();
    if (!open?.ready.peek()) return;
    if (at === undefined) open.live();
    else if (!open.replay.peek() || (!open.replay.peek()?.playing && open.sought !== moment(at))) void open.seek(moment(at));
  });
}

/** The token of the address. Out of there first: it is no part of what is shared, and must not stay in the history. */
function taken(rather: string): string | null {
  const token = new URLSearchParams(window.location.hash.slice(1)).get("token");
  if (token !== null) window.history.replaceState(null, "", rather);
  return token;
}

/** How often a token was taken, to tell `refused` when a request was made. */
export const taking = (): number => attempt.peek();

/** Ask for the token if that is why a request was refused; not if one was taken since, because the answer may be late. */
export function refused(error: unknown, since: number): void {
  if (error instanceof RestError && error.status === 401 && since === attempt.peek()) locked.value = true;
}

/** The event that the address names; what is none is the beginning. */
function moment(at: string): number {
  return Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.round(Number(at)) || 0));
}

/** Show the token; whether the board takes it. */
export async function bring(token: string): Promise<boolean> {
  const since = taking();
  try {
    // Each server has a cookie of its own.
    for (const base of new Set([rest.value.base, websocket()])) await new Rest(base).session(token.trim());
  } catch (error) {
    refused(error, since);
    if (error instanceof RestError && error.status === 401) return false;
    throw error;
  }
  batch(() => {
    locked.value = false;
    attempt.value++;
  });
  return true;
}

/** Drop connection and data, and forget endpoints that were chosen. */
export function clear(): void {
  batch(() => {
    session.value?.close();
    session.value = null;
    route.value = { id: null, page: "settings", query: {} };
    prefer({ rest: null, ws: null });
    attempt.value++;
  });
  go("#/settings");
}

// --- replay, kept in the address ---

export function seek(seq: number): void {
  const open = session.value;
  if (!open) return;
  choose({ at: `${Math.max(0, Math.round(seq))}` });
}

export function live(): void {
  choose({ at: null });
}

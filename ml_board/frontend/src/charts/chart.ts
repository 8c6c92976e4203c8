// The life of a chart: it asks for points once it is on screen, draws when they have changed, and fetches more where it is
// zoomed into.
//
//   session paints ─► schedule ─► collect lines ─► (nothing new: done) ─► draw ─► tell the view

import { Column } from "../state/column";
import type { Entry } from "../state/groups";
import { box, type Collected, collect, type Exact, type Line, type Memory, type View } from "../state/lines";
import { merged, type Session } from "../state/session";
import { type Ink, type Plot, plot, type Reading } from "./plot";
import { drawing } from "./schedule";

export interface Wish {
  entries: readonly Entry[];
  inks: ReadonlyMap<string, Ink>;
  view: View;
  log: boolean;
  height: number;
}

/** What has been drawn. */
export interface Drawn {
  lines: readonly Line[];
  loading: number;
  /** Why finer points could not be had. */
  trouble: string;
}

export interface Teller {
  drawn: (drawn: Drawn) => void;
  read: (reading: Reading | null) => void;
  zoom: (range: [number, number] | null) => void;
  click: (count: number) => void;
}

export interface Chart {
  wish: (wish: Wish) => void;
  plot: () => Plot | null;
  /** The points that a zoom has brought. */
  exact: () => Exact | null;
  close: () => void;
}

const FINEST = 100_000; // points that a zoom asks for, of all experiments together
const SETTLED = 200; // ms that a zoom has to stay before its points are asked for

/** A chart of score `key` in `host`, which has a width of its own. */
export function chart(session: Session, key: string, host: HTMLElement, tell: Teller): Chart {
  let wish: Wish | null = null;
  let made: { plot: Plot; axis: string; log: boolean; width: number; height: number } | null = null;
  let memory: Memory = new Map();
  let exact: Exact | null = null;
  let asked = ""; // what `exact` is, or will be
  let asking: AbortController | null = null;
  let generation = -1;
  let visible = false;
  let anyway = true; // draw even if no point is new
  /** To be drawn out of sight as well, once: one file has its points at hand, and all of it may be printed. */
  let unseen = false;
  let trouble = "";
  let before = "";

  const turn = drawing(draw);
  const watcher = new IntersectionObserver(
    (entries) => {
      visible = entries.at(-1)?.isIntersecting ?? false;
      if (visible) turn.ask(true);
    },
    { rootMargin: "100px" },
  );
  const sizes = new ResizeObserver(() => again());
  // The whole card, because the host is not there while a table takes its place.
  watcher.observe(host.parentElement as HTMLElement);
  sizes.observe(host);
  const unsubscribe = session.version.subscribe(() => (visible || unseen) && turn.ask());

  function again(): void {
    anyway = true;
    if (visible) turn.ask(true);
  }

  function forget(): void {
    asking?.abort();
    asking = exact = null;
    asked = trouble = "";
    memory = new Map();
  }

  function draw(): void {
    if ((!visible && !unseen) || !wish) return;
    if (generation !== session.generation.peek()) {
      generation = session.generation.peek();
      forget();
    }
    const { entries, view, log, height, inks } = wish;
    const found = collect(session.state, entries, key, view, memory, exact, anyway);
    if (found.missing.length) session.want(found.missing, [key]);
    refine(found, view);
    const { lines, loading } = found;
    if (!lines) return;
    // Another moment of the log: what is there stays until its points have come.
    if (!lines.length && loading && made && !anyway) return tell.drawn({ lines, loading, trouble });
    anyway = false;
    if (!loading) unseen = false;
    const width = host.clientWidth;
    if (made && (made.axis !== view.axis || made.log !== log)) {
      made.plot.destroy();
      made = null;
    }
    if (width > 0) {
      if (!made) {
        const ink = (id: string): Ink => wish?.inks.get(id) ?? inks.get(id) ?? { colour: "gray", dash: null };
        made = { plot: plot(host, view.axis, log, width, height, { ...tell, ink }), axis: view.axis, log, width, height };
      } else if (made.width !== width || made.height !== height) {
        made.plot.size(width, height);
        Object.assign(made, { width, height });
      }
      made.plot.show(lines, box(lines, view, log));
    }
    tell.drawn({ lines, loading, trouble });
  }

  /** Ask for the points that the zoom shows and that are not here. */
  function refine({ thinned }: Collected, { from, to, axis }: View): void {
    if (from === -Infinity || !thinned.length) return;
    const wanted = `${from} ${to} ${axis} ${thinned}`;
    if (wanted === asked) return;
    asked = wanted;
    asking?.abort();
    const stop = (asking = new AbortController());
    const { state } = session;
    let [first, last] = [Infinity, 0];
    for (const id of thinned) {
      const points = memory.get(id)?.points;
      if (!points) continue;
      const { xs, epochs } = points;
      for (let i = 0; i < xs.length; i++) {
        if ((xs[i + 1] ?? Infinity) >= from) first = Math.min(first, epochs[i] as number);
        if ((xs[i - 1] ?? -Infinity) <= to) last = Math.max(last, epochs[i] as number);
      }
    }
    if (first > last) return;
    const most = Math.max(200, Math.min(10_000, Math.floor(FINEST / thinned.length)));
    const at = session.readonly.peek() ? state.seq : undefined;
    setTimeout(() => {
      if (stop.signal.aborted) return;
      session.rest.series(session.id, thinned, [key], { at, first, last, points: most }, stop.signal).then(
        ({ series }) => {
          if (stop.signal.aborted || session.state !== state) return;
          exact = { first, last, columns: new Map(series.map((one) => [one.experiment_id, merged(one, new Column())])) };
          memory = new Map();
          trouble = "";
          again();
        },
        (error: unknown) => {
          if (stop.signal.aborted) return;
          trouble = `finer points did not come: ${error instanceof Error ? error.message : String(error)}`;
          again();
        },
      );
    }, SETTLED);
  }

  return {
    wish(next) {
      wish = next;
      unseen = session.rest.file !== null;
      // Whatever decides how lines are made.
      const now = JSON.stringify(next.view);
      if (now !== before) {
        before = now;
        if (wish.view.from === -Infinity) forget();
        memory = new Map();
      }
      again();
    },
    plot: () => made?.plot ?? null,
    exact: () => exact,
    close() {
      asking?.abort();
      turn.cancel();
      watcher.disconnect();
      sizes.disconnect();
      unsubscribe();
      made?.plot.destroy();
    },
  };
}

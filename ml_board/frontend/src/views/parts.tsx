// Small pieces that every view uses.

import { signal, useSignalEffect } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { link } from "../state/route";
import type { Session } from "../state/session";
import { STATUS_WORDS } from "../state/table";

/** Whether all rows of a list are to be there, not only those in sight; how many at most. */
export const printing = signal(false);
export const PRINTED = 1000;
window.addEventListener("beforeprint", () => (printing.value = true));
window.addEventListener("afterprint", () => (printing.value = false));

const SHAPES: Record<string, JSX.Element> = {
  INIT: <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 1.6" />,
  RUNNING: <path d="M3 1.5 10.5 6 3 10.5z" fill="currentColor" />,
  DONE: <path d="M1.8 6.4 4.8 9.4 10.4 2.8" fill="none" stroke="currentColor" stroke-width="2" />,
  FAILED: <path d="M2.2 2.2 9.8 9.8M9.8 2.2 2.2 9.8" stroke="currentColor" stroke-width="2" />,
  LOST: <path d="M3.6 4.2a2.5 2.5 0 1 1 3.4 2.4c-.7.3-1 .7-1 1.4M6 10.2v.9" fill="none" stroke="currentColor" stroke-width="1.7" />,
  STOPPED: <path d="M2.2 2.2h7.6v7.6H2.2z" fill="currentColor" />,
};
const GRID: Record<string, [shape: string, word: string]> = {
  STARTED: ["RUNNING", "running"],
  FINISHED: ["DONE", "finished"],
  INTERRUPTED: ["STOPPED", "interrupted"],
};

/** What a job or a grid search is doing, by shape and word. */
export function Status({ of, note }: { of: string; note?: string | null }): JSX.Element {
  const [shape, word] = GRID[of] ?? [of, STATUS_WORDS[of] ?? of.toLowerCase()];
  return (
    <span class={`status ${of}`}>
      <svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">
        {SHAPES[shape] ?? SHAPES.INIT}
      </svg>
      {word}
      {note ? <span class="muted"> ({note})</span> : null}
    </span>
  );
}

/** Anything that an event has said, linked to that event. */
export function Seq({ of, children }: { of: number; children: ComponentChildren }): JSX.Element {
  if (!of) return <>{children}</>;
  return (
    <a class="seq" href={link("events", { seq: `${of}` })} title={`event ${of}`}>
      {children}
    </a>
  );
}

export function Bar({ done, of, label }: { done: number; of: number; label: string }): JSX.Element {
  const share = of > 0 ? Math.min(1, done / of) : 0;
  return (
    <div class="bar" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(100 * share)}>
      <i style={{ width: `${100 * share}%` }} />
    </div>
  );
}

/** There is nothing, or something went wrong: what, and what to do next. `whole`: the page shows nothing else. */
export function Empty({ title, whole, children }: { title: string; whole?: boolean; children?: ComponentChildren }): JSX.Element {
  const Heading = whole ? "h1" : "h2";
  return (
    <div class="empty">
      <Heading>{title}</Heading>
      {children}
    </div>
  );
}

/** A dialog over the page while it is in the tree; `close` is called for Escape and a click beside it. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const opener = document.activeElement as HTMLElement | null;
    const dialog = ref.current;
    dialog?.showModal();
    return () => {
      dialog?.close();
      opener?.focus();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      aria-label={title}
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onClick={(event) => event.target === ref.current && close()}
    >
      <div class="stack">
        <div class="row spread">
          <h2>{title}</h2>
          <button type="button" class="plain" aria-label="close" onClick={close}>
            ✕
          </button>
        </div>
        {children}
      </div>
    </dialog>
  );
}

/** Move an open panel to where there is room for it. */
function place(menu: HTMLDetailsElement | null): void {
  const panel = menu?.open && menu.querySelector<HTMLElement>(".menu-panel");
  if (!panel) return;
  panel.style.translate = "";
  const { left, right } = panel.getBoundingClientRect();
  const over = right - (document.documentElement.clientWidth - 8);
  if (over > 0) panel.style.translate = `${-Math.min(over, left - 8)}px`;
}

/** A button with a panel below it, which closes by Escape, a click elsewhere, or the button. */
export function Menu({ label, title, children }: { label: ComponentChildren; title?: string; children: ComponentChildren }): JSX.Element {
  const ref = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const shut = (event: Event): void => {
      const menu = ref.current;
      if (!menu?.open) return;
      if (event instanceof KeyboardEvent ? event.key === "Escape" : !menu.contains(event.target as Node)) {
        menu.open = false;
        if (event instanceof KeyboardEvent) {
          event.preventDefault(); // it means nothing else at the same time
          menu.querySelector("summary")?.focus();
        }
      }
    };
    document.addEventListener("pointerdown", shut);
    document.addEventListener("keydown", shut, true);
    const again = (): void => place(ref.current);
    window.addEventListener("resize", again);
    return () => {
      window.removeEventListener("resize", again);
      document.removeEventListener("pointerdown", shut);
      document.removeEventListener("keydown", shut, true);
    };
  }, []);
  return (
    <details ref={ref} class="menu" onToggle={() => place(ref.current)}>
      <summary class="button" title={title}>
        {label}
      </summary>
      <div class="menu-panel">{children}</div>
    </details>
  );
}

/** Hand a file to the user. */
export function download(name: string, content: string | Blob, type = "text/plain"): void {
  const url = URL.createObjectURL(typeof content === "string" ? new Blob([content], { type: `${type};charset=utf-8` }) : content);
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Render again with each paint of a session. Reading `session.state` afterwards is what a view does. */
export function useSession(session: Session): number {
  const [version, setVersion] = useState(session.version.peek());
  useSignalEffect(() => setVersion(session.version.value));
  return version;
}

/** The clock, for ages and elapsed times: renders again every second. In replay it is the log's. */
export function useNow(session?: Session): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return session?.replay.value ? session.state.time : Math.max(now, session?.state.time ?? 0);
}

/** The size of an element, as it changes. */
export function useSize<T extends HTMLElement>(): [preact.RefObject<T | null>, { width: number; height: number }] {
  const ref = useRef<T>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  useEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setSize({ width: element.clientWidth, height: element.clientHeight }));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [ref, size];
}

/** What a promise has come to; asked again when `key` changes. */
export function useAsked<T>(ask: () => Promise<T>, key: unknown): { value?: T; error?: Error } {
  const [found, setFound] = useState<{ value?: T; error?: Error }>({});
  useEffect(() => {
    let current = true;
    ask().then(
      (value) => current && setFound({ value }),
      (error: unknown) => current && setFound({ error: error instanceof Error ? error : new Error(String(error)) }),
    );
    return () => {
      current = false;
    };
  }, [key]);
  return found;
}

export type Fact = [name: string, value: ComponentChildren];

/** Names and what is known of them; what is not known is left out. */
export function Facts({ rows }: { rows: Fact[] }): JSX.Element | null {
  const told = rows.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  if (!told.length) return null;
  return (
    <dl class="facts">
      {told.map(([name, value]) => (
        <>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </>
      ))}
    </dl>
  );
}

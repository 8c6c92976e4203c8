// The keyboard. A view registers what its keys do while it is on screen; help lists what there is.

import { useLayoutEffect } from "preact/hooks";

export interface Key {
  /** As help shows it: `/`, `j`, `g a`, `Space`. */
  keys: string;
  what: string;
  run: () => void;
}

const active: Key[][] = [];
let prefix = "";
let prefixAt = 0;

/** All keys that do something now, the most specific view last. */
export function activeKeys(): Key[] {
  return active.flat();
}

export function useKeys(keys: Key[]): void {
  // With the drawing, not after it: the next key may come before that, and is about what is there now.
  useLayoutEffect(() => {
    active.push(keys);
    return () => {
      active.splice(active.indexOf(keys), 1);
    };
  });
}

/** Listen. Typing into a field is typing, but for Escape, which leaves the field. */
export function listenToKeys(): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    if (document.querySelector("dialog[open]")) return; // wherever the focus is
    if (target.matches("input:not([type=checkbox], [type=range], [type=radio]), textarea, select")) {
      if (event.key === "Escape") {
        event.preventDefault(); // a search field would lose its text as well
        target.blur();
      }
      return;
    }
    const key = event.key === " " ? "Space" : event.key;
    // What a focused button, link or slider does with these keys stays its own.
    if ((key === "Space" || key === "Enter") && target.matches("button, a, summary, input")) return;
    const typed = prefix && event.timeStamp - prefixAt < 1500 ? `${prefix} ${key}` : key;
    const keys = activeKeys();
    const found = keys.findLast((one) => one.keys === typed) ?? keys.findLast((one) => one.keys === key);
    prefix = "";
    if (found) {
      event.preventDefault();
      found.run();
    } else if (keys.some((one) => one.keys.startsWith(`${key} `))) {
      prefix = key;
      prefixAt = event.timeStamp;
    }
  });
}

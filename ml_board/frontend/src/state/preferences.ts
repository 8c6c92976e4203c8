// What this browser's user likes: kept here, not in the address, because a link is for others.

import { computed, effect, signal } from "@preact/signals";
import type { Palette, Theme } from "./palette";

export interface Preferences {
  theme: Theme | "system";
  palette: Palette;
  /** The endpoints that were chosen in place of those that the server names. */
  rest: string | null;
  ws: string | null;
}

const KEY = "ml_board";
const DEFAULT: Preferences = { theme: "system", palette: "safe", rest: null, ws: null };

function load(): Preferences {
  try {
    return { ...DEFAULT, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Preferences>) };
  } catch {
    return DEFAULT;
  }
}

export const preferences = signal<Preferences>(load());

export function prefer(some: Partial<Preferences>): void {
  preferences.value = { ...preferences.value, ...some };
}

const systemIsDark = signal(false);

/** The theme that is to be seen. */
export const theme = computed<Theme>(() =>
  preferences.value.theme === "system" ? (systemIsDark.value ? "dark" : "light") : preferences.value.theme,
);

/** Keep preferences, and hear of the system's theme. */
export function keepPreferences(): void {
  const query = window.matchMedia("(prefers-color-scheme: dark)");
  systemIsDark.value = query.matches;
  query.addEventListener("change", (event) => (systemIsDark.value = event.matches));
  effect(() => {
    try {
      localStorage.setItem(KEY, JSON.stringify(preferences.value));
    } catch {
      // without storage they last as long as the page
    }
  });
  effect(() => {
    document.documentElement.dataset.theme = theme.value;
  });
}

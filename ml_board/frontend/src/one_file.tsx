// The page begins here when it is one file with its data inside: no board, no network, nothing that can be changed.

import { render } from "preact";
import { open } from "./state/board";
import { Embedded, means } from "./state/embedded";
import { keepPreferences } from "./state/preferences";
import "./style.css";
import { App, loadAll } from "./views/app";
import { listenToKeys } from "./views/keys";

/** Unpack what the file holds, and show it. */
async function begin(): Promise<void> {
  const embedded = new Embedded();
  await embedded.load(data.textContent ?? "");
  data.remove();
  await loadAll();
  await open(means(embedded));
  listenToKeys();
  root.textContent = "";
  render(<App />, root);
}

const root = document.getElementById("page") as HTMLElement;
const data = document.getElementById("data") as HTMLElement;
keepPreferences();
begin().catch((error: unknown) => {
  root.textContent = `This file cannot be shown: ${error instanceof Error ? error.message : String(error)}. It needs a browser of 2023 or later, and all of the file.`;
});

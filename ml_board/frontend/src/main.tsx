// The page begins here.

import { render } from "preact";
import { open } from "./state/board";
import { keepPreferences } from "./state/preferences";
import "./style.css";
import { App, loadAll } from "./views/app";
import { listenToKeys } from "./views/keys";

const root = document.getElementById("page") as HTMLElement;
keepPreferences();
await open();
listenToKeys();
render(<App />, root);
setTimeout(() => void loadAll(), 3000);

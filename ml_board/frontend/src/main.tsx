// The page begins here.

import { render } from "preact";
import { open } from "./state/board";
import { keepPreferences } from "./state/preferences";
import "./style.css";
import { App, loadAll } from "./views/app";
import { listenToKeys } from "./views/keys";
import { endpoints, Rest } from "./wire/rest";
import { Link } from "./wire/socket";

const root = document.getElementById("page") as HTMLElement;
keepPreferences();
await open({
  endpoints,
  rest: (base) => new Rest(base),
  connect: (websocket, listener) => new Link(websocket, listener),
});
listenToKeys();
render(<App />, root);
setTimeout(() => void loadAll(), 3000);

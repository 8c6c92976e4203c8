// Stands in for the entry of engine.io-client (see vite.config.ts), which brings long polling along: the board speaks
// websocket and nothing else (docs/protocol.md).

import { Socket as Engine } from "../../node_modules/engine.io-client/build/esm/socket.js";
import { WS } from "../../node_modules/engine.io-client/build/esm/transports/websocket.js";

export { parse } from "../../node_modules/engine.io-client/build/esm/contrib/parseuri.js";
export { nextTick } from "../../node_modules/engine.io-client/build/esm/globals.js";
export { installTimerFunctions } from "../../node_modules/engine.io-client/build/esm/util.js";

export class Socket extends Engine {
  constructor(uri, options) {
    super(uri, { ...options, transports: [WS] });
  }
}

// What socket.io-client passes on, and nobody here asks for.
export { WS as Fetch, WS as NodeWebSocket, WS as NodeXHR, WS as WebSocket, WS as WebTransport, WS as XHR };

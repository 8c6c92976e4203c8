"use strict";
// The list of grid searches; the token of the address becomes a cookie that no script can read.

async function start() {
  const endpoints = await (await fetch("endpoints.json")).json();
  const rest = endpoints.rest ?? "";
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    await fetch(`${rest}/session`, {
      method: "POST", credentials: "include", headers: { Authorization: `Bearer ${token}` },
    });
    history.replaceState(null, "", location.pathname);
  }
  for (;;) {
    await show(rest);
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

async function show(rest) {
  const message = document.querySelector("#message");
  const table = document.querySelector("table");
  try {
    const answer = await fetch(`${rest}/grid_searches`, { credentials: "include" });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error.message);
    table.hidden = found.length === 0;
    message.textContent = found.length ? "" : "There are none yet.";
    table.tBodies[0].replaceChildren(...found.reverse().map(row));
  } catch (error) {
    message.textContent = `${error.message}`;
  }
}

function row(grid) {
  const line = document.createElement("tr");
  const status = grid.status === "STARTED" && !grid.running ? "STARTED (no longer running)" : grid.status ?? "";
  for (const text of [grid.grid_search_id, status, grid.head ?? "", new Date(grid.modified).toLocaleString()]) {
    line.append(Object.assign(document.createElement("td"), { textContent: `${text}` }));
  }
  return line;
}

start();

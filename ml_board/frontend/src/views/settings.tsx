// Which grid search and which board, their configurations, how the page looks, and its keys.

import { Fragment, type JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { clear, endpoint, locked, refused, rest, served, taking } from "../state/board";
import { count, time } from "../state/format";
import { dash, PALETTES, type Palette } from "../state/palette";
import { prefer, preferences, theme } from "../state/preferences";
import { choose, go, link, route } from "../state/route";
import type { About } from "../wire/answers";
import { RestError } from "../wire/rest";
import { activeKeys } from "./keys";
import { download, useAsked } from "./parts";
import "./settings.css";

const CONFIGS = { grid_search_config: "grid search", run_config: "run", validation_strategy_config: "validation" };

export function SettingsView(): JSX.Element {
  const { id } = route.value;
  const { file } = rest.value;
  return (
    <div class="settings">
      <h1>Settings</h1>
      <section class="card stack">
        <h2>Grid search</h2>
        {file ? <p>{file.grid_search_id}</p> : <GridChooser />}
        {id !== null && Object.entries(CONFIGS).map(([name, title]) => <Config key={id + name} id={id} name={name} title={title} />)}
        {id !== null && !file && <Export id={id} />}
      </section>
      <section class="card stack">
        <h2>{file ? "This file" : "Board"}</h2>
        {file ? <AboutFile of={file} /> : <Endpoints />}
      </section>
      <section class="card stack">
        <h2>Appearance</h2>
        <Appearance />
      </section>
      <section class="card stack">
        <h2>Keys</h2>
        <Keys />
      </section>
    </div>
  );
}

function GridChooser(): JSX.Element {
  const { id } = route.value;
  const { value, error } = useAsked(() => {
    const since = taking();
    return rest.value.gridSearches().catch((problem: unknown) => {
      refused(problem, since);
      throw problem;
    });
  }, `${rest.value.base} ${locked.value}`);
  const ids = (value ?? []).map((one) => one.grid_search_id).reverse();
  if (id !== null && !ids.includes(id)) ids.unshift(id);
  return (
    <>
      <label class="field">
        run id
        <select value={id ?? ""} onChange={({ currentTarget: { value: to } }) => go(to ? link("settings", {}, to) : "#/settings")}>
          <option value="">none</option>
          {ids.map((one) => (
            <option key={one} value={one}>
              {one}
            </option>
          ))}
        </select>
      </label>
      {error && <p class="bad">The grid searches cannot be listed: {error.message}. Is the REST endpoint below right?</p>}
    </>
  );
}

function Config({ id, name, title }: { id: string; name: string; title: string }): JSX.Element {
  const { value, error } = useAsked(() => rest.value.config(id, name), `${id} ${rest.value.base} ${locked.value}`);
  const open = route.value.query.show === name;
  if (error) {
    const none = error instanceof RestError && error.status === 404;
    return <p class={none ? "muted" : "bad"}>{none ? `There is no ${title} configuration.` : `${title} configuration: ${error.message}`}</p>;
  }
  return (
    <details open={open} onToggle={({ currentTarget }) => currentTarget.open !== open && choose({ show: open ? null : name })}>
      <summary>
        <h3>{title} configuration</h3>
      </summary>
      <button type="button" disabled={value === undefined} onClick={() => download(`${id}-${name}.yml`, value ?? "", "application/yaml")}>
        download
      </button>
      <pre tabIndex={0} aria-label={`${title} configuration`}>
        {value}
      </pre>
    </details>
  );
}

/** The whole of it for somebody who has no board. */
function Export({ id }: { id: string }): JSX.Element {
  return (
    <p>
      <a class="button" href={rest.value.exportUrl(id)} download={`${id}.html`}>
        download as one file
      </a>{" "}
      <span class="muted small">this dashboard with all of its data, to be opened anywhere without a server</span>
    </p>
  );
}

/** What it is that somebody was sent. */
function AboutFile({ of }: { of: About }): JSX.Element {
  return (
    <>
      <p>
        Made {time(of.made)} by mlgym {of.version}, with {count(of.events)} of the {count(of.of)} events that there were. It shows them as the board did, asks nobody for anything, and
        can change nothing.
      </p>
      <ul>
        {of.left_out.map((one) => (
          <li key={one}>{one}</li>
        ))}
      </ul>
    </>
  );
}

/** The endpoints: chosen here, named by the board, or where the page came from. */
const FIELDS = { rest: "REST endpoint", ws: "websocket endpoint" } as const;

function Endpoints(): JSX.Element {
  const [said, setSaid] = useState<Partial<Record<keyof typeof FIELDS | "all", string>>>({});
  // What is being typed, also what was refused: it is to be corrected.
  const [typed, setTyped] = useState<Partial<Record<keyof typeof FIELDS, string>>>({});
  const { allowed, run_id } = served.value;
  const own = window.location.origin;
  const save = (form: FormData): void => {
    const chosen: { rest: string | null; ws: string | null } = { rest: null, ws: null };
    const wrong: typeof said = {};
    for (const key of Object.keys(FIELDS) as (keyof typeof FIELDS)[]) {
      const text = `${form.get(key)}`.trim().replace(/\/$/, "");
      const found = endpoint(text);
      if ("why" in found) wrong[key] = found.why;
      else chosen[key] = text && (found.ok || own);
      if (!text) chosen[key] = null;
    }
    if (!wrong.rest && !wrong.ws) {
      prefer(chosen);
      setTyped({});
      wrong.all = "saved";
    }
    setSaid(wrong);
  };
  return (
    <form
      class="stack"
      onSubmit={(event) => {
        event.preventDefault();
        save(new FormData(event.currentTarget));
      }}
    >
      {(Object.keys(FIELDS) as (keyof typeof FIELDS)[]).map((key) => (
        <Fragment key={key}>
          <label class="field">
            {FIELDS[key]}
            <input
              type="text"
              inputMode="url"
              name={key}
              value={typed[key] ?? preferences.value[key] ?? ""}
              onInput={({ currentTarget: { value } }) => setTyped((before) => ({ ...before, [key]: value }))}
              placeholder={served.value[key] ?? own}
              spellcheck={false}
              aria-invalid={said[key] ? "true" : undefined}
              aria-describedby={`${key}-why`}
            />
          </label>
          <p id={`${key}-why`} class="bad" role="alert">
            {said[key]}
          </p>
        </Fragment>
      ))}
      <div class="row">
        <button type="submit" class="primary">
          save
        </button>
        <button
          type="button"
          title="drop connection and data, and forget these endpoints"
          onClick={() => {
            clear();
            setTyped({});
            setSaid({ all: "connection, data and endpoints are dropped" });
          }}
        >
          clear
        </button>
        <span role="status" class="muted">
          {said.all}
        </span>
      </div>
      <p class="muted small">
        Left empty: {served.value.rest ? "as the board names them" : "where this page came from"}. This page came from {own}
        {served.value.rest && `, with REST at ${served.value.rest} and the websocket at ${served.value.ws}`}
        {run_id && `, to show ${run_id}`}. {allowed.length ? `It may also talk to ${allowed.join(", ")}.` : "It may talk to no other board; ml_board --endpoints URL allows more."}
      </p>
    </form>
  );
}

function Appearance(): JSX.Element {
  const { theme: chosen, palette } = preferences.value;
  return (
    <>
      <fieldset class="row">
        <legend>theme</legend>
        {(["system", "light", "dark"] as const).map((one) => (
          <label key={one}>
            <input type="radio" name="theme" checked={chosen === one} onChange={() => prefer({ theme: one })} /> {one}
          </label>
        ))}
      </fieldset>
      <fieldset class="row">
        <legend>palette</legend>
        {(Object.keys(PALETTES) as Palette[]).map((one) => (
          <label key={one}>
            <input type="radio" name="palette" checked={palette === one} onChange={() => prefer({ palette: one })} /> {one}{" "}
            <svg width="208" height="26" viewBox="0 0 208 26" aria-hidden="true">
              {PALETTES[one][theme.value].map((colour, i) => (
                <g key={colour} stroke={colour} stroke-width="3">
                  <path d={`M${4 + 20 * i} 7h16`} />
                  <path d={`M${4 + 20 * i} 19h16`} stroke-width="2" stroke-dasharray={dash(PALETTES[one].light.length, one)?.join(" ")} />
                </g>
              ))}
            </svg>
          </label>
        ))}
      </fieldset>
      <p class="muted small">{palette === "safe" ? "Eight colours that can be told apart with any kind of colour vision." : "Ten brighter colours."} Experiments that share one differ in their dashes.</p>
    </>
  );
}

function Keys(): JSX.Element {
  const [keys, setKeys] = useState(activeKeys);
  useEffect(() => void setTimeout(() => setKeys(activeKeys())), []); // with those of what is drawn together with this
  return (
    <div class="keys">
      {keys.map(({ keys: names, what }) => (
        <Fragment key={names}>
          <span>
            {names.split(" ").map((name) => (
              <kbd key={name}>{name}</kbd>
            ))}
          </span>
          <span>{what}</span>
        </Fragment>
      ))}
    </div>
  );
}

// JSON data as a tree to open, search and take along.

import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { choose, route } from "../state/route";
import { isTree, json, yaml } from "../state/yaml";
import { download } from "./parts";
import "./config-tree.css";

interface Shared {
  /** What is looked for, in lower case. */
  find: string;
  /** dotted path of what was swept */
  swept: Record<string, unknown>;
}

/** `name`: of the files without ending, and with `key` of the place in the address of what is looked for. */
export function ConfigTree({ of, name, param, swept = {} }: { of: unknown; name: string; param: string; swept?: Record<string, unknown> }): JSX.Element {
  const [copied, setCopied] = useState("");
  const find = (route.value.query[param] ?? "").toLowerCase();
  const tree = useMemo(() => <Branch of={of} path="" shared={{ find, swept }} all={false} />, [of, find, swept]);
  return (
    <div class="stack">
      <div class="row">
        <input type="search" aria-label={`search ${name}`} placeholder="key or value" value={find} onInput={(event) => choose({ [param]: event.currentTarget.value })} />
        <button type="button" onClick={() => download(`${name}.yml`, yaml(of), "application/yaml")}>
          download YAML
        </button>
        <button type="button" onClick={() => download(`${name}.json`, json(of), "application/json")}>
          download JSON
        </button>
        <button
          type="button"
          onClick={async () => {
            try {
              await navigator.clipboard.writeText(yaml(of));
              setCopied("copied");
            } catch {
              setCopied("this browser does not let the page copy; download it instead");
            }
          }}
        >
          copy
        </button>
        <span role="status" class="small muted">
          {copied}
        </span>
      </div>
      {find && !hit(of, find) ? <p class="muted">Neither a key nor a value has “{find}” in it.</p> : <div class="tree mono">{tree}</div>}
    </div>
  );
}

/** Whether a key or a value below has it. */
function hit(of: unknown, find: string): boolean {
  if (!isTree(of)) return shown(of).toLowerCase().includes(find);
  return Object.entries(of).some(([key, value]) => (!Array.isArray(of) && key.toLowerCase().includes(find)) || hit(value, find));
}

function shown(value: unknown): string {
  return typeof value === "string" ? value : isTree(value) ? (Array.isArray(value) ? "[]" : "{}") : String(value);
}

/** `all`: everything is shown, because the key above is what was looked for. */
function Branch({ of, path, shared, all }: { of: unknown; path: string; shared: Shared; all: boolean }): JSX.Element {
  const { find, swept } = shared;
  if (!isTree(of)) return <Marked text={shown(of)} find={find} />;
  return (
    <ul>
      {Object.entries(of).map(([key, value]) => {
        const here = path ? `${path}.${key}` : key;
        const named = find !== "" && key.toLowerCase().includes(find);
        const below = find !== "" && hit(value, find);
        if (find && !all && !named && !below) return null;
        const label = (
          <>
            <span class="key">
              <Marked text={key} find={find} />
            </span>
            {Object.hasOwn(swept, here) && <em>swept</em>}
          </>
        );
        return (
          <li key={`${key}${below}`}>
            {isTree(value) && Object.keys(value).length ? (
              <details open={below || (!find && !path.includes("."))}>
                <summary>
                  {label} <span class="muted">{Array.isArray(value) ? `[${value.length}]` : ""}</span>
                </summary>
                <Branch of={value} path={here} shared={shared} all={all || named} />
              </details>
            ) : (
              <>
                {label}: <Marked text={shown(value)} find={find} />
              </>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function Marked({ text, find }: { text: string; find: string }): JSX.Element {
  const at = find ? text.toLowerCase().indexOf(find) : -1;
  if (at < 0) return <>{text}</>;
  return (
    <>
      {text.slice(0, at)}
      <mark>{text.slice(at, at + find.length)}</mark>
      {text.slice(at + find.length)}
    </>
  );
}

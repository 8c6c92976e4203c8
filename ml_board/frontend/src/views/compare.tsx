// A few experiments beside each other: in what they were set up differently, what it came to, and where they ran.

import type { ComponentChildren, JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { byPackage, FEWEST, MOST, type ScoreLine, scoreLines } from "../state/compare";
import { count, score, shortNames, value } from "../state/format";
import type { Experiment } from "../state/fold";
import { choose, link, route } from "../state/route";
import { select, selectedOf } from "../state/selection";
import type { Session } from "../state/session";
import { csv } from "../state/table";
import { type Difference, diff, flatten, MISSING, same } from "../state/tree";
import { Charts } from "./charts";
import "./compare.css";
import { download, Empty, Seq, Status, useAsked, useSession } from "./parts";
import { experimentLink, Swatch } from "./table";

export function CompareView({ session }: { session: Session }): JSX.Element {
  useSession(session);
  const { query } = route.value;
  const { experiments } = session.state;
  const asked = selectedOf(query);
  const found = asked.filter((id) => experiments.has(id));
  if (found.length < FEWEST || found.length > MOST) return <Choose session={session} found={found} asked={asked.length} />;
  return <Compared session={session} chosen={found.map((id) => experiments.get(id) as Experiment)} />;
}

function Choose({ session, found, asked }: { session: Session; found: number[]; asked: number }): JSX.Element {
  return (
    <Empty whole title={found.length > MOST ? `${count(found.length)} experiments are too many to compare` : "Choose what to compare"}>
      <p>
        {found.length > MOST
          ? `Up to ${MOST} fit beside each other.`
          : `Select ${FEWEST} to ${MOST} rows of the table by click, ctrl-click or x, then press c.`}
        {asked > found.length && ` Of the ${count(asked)} that the address names, ${session.id} has ${count(found.length)}.`}
      </p>
      <div class="row">
        {found.length > MOST && (
          <button type="button" class="primary" onClick={() => choose(select(found.slice(0, MOST)))}>
            take the first {MOST}
          </button>
        )}
        <a class="button" href={link("analysis")}>
          to the table
        </a>
      </div>
    </Empty>
  );
}

function Compared({ session, chosen }: { session: Session; chosen: Experiment[] }): JSX.Element {
  const ids = chosen.map(({ experiment_id }) => experiment_id);
  const key = ids.join();
  const stable = useMemo(() => ids, [key]);
  const base = Math.max(0, ids.indexOf(Number(route.value.query.base)));
  return (
    <div class="stack compare">
      <h1 class="visually-hidden">Compare</h1>
      <Chosen chosen={chosen} />
      <Configurations session={session} ids={stable} base={base} />
      <Scores session={session} chosen={chosen} base={base} />
      <Environments session={session} ids={stable} base={base} />
      <h2 class="visually-hidden">Charts</h2>
      <Charts session={session} experiments={stable} note={`the ${ids.length} compared`} />
    </div>
  );
}

function Chosen({ chosen }: { chosen: Experiment[] }): JSX.Element {
  const names = shortNames([...new Set(chosen.flatMap(({ swept }) => Object.keys(swept)))]);
  return (
    <ul class="row chosen" aria-label="compared experiments">
      {chosen.map(({ experiment_id: id, status, swept, error }) => (
        <li key={id} class="card row" title={error ?? undefined}>
          <Swatch of={id} />
          <a href={experimentLink(id)}>#{id}</a>
          <Status of={status} />
          <span class="muted small clip">
            {Object.entries(swept)
              .map(([path, one]) => `${names.get(path)}=${value(one)}`)
              .join("  ")}
          </span>
          <button
            type="button"
            class="plain"
            aria-label={`remove experiment ${id}`}
            onClick={() => choose(select(chosen.map(({ experiment_id }) => experiment_id).filter((other) => other !== id)))}
          >
            ✕
          </button>
        </li>
      ))}
    </ul>
  );
}

/** A table with a column for each experiment. A click on its head makes it the one that the others are compared with. */
function Beside({ label, first, ids, base, children }: { label: string; first: string[]; ids: readonly number[]; base: number; children: ComponentChildren }): JSX.Element {
  return (
    <div class="scroll beside" role="region" aria-label={label} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {first.map((one) => (
              <th key={one} scope="col">
                {one}
              </th>
            ))}
            {ids.map((id, i) => (
              <th key={id} scope="col">
                <button type="button" class="plain" aria-pressed={i === base} title="compare the others with this one" onClick={() => choose({ base: i ? `${id}` : null })}>
                  <Swatch of={id} /> #{id}
                  {i === base && <span class="small"> baseline</span>}
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

interface Answer {
  ids: readonly number[];
  found: unknown[];
}

function useConfigurations(session: Session, ids: readonly number[], ask: (id: string, experiment: number) => Promise<unknown>): { lines?: Difference[]; missing: number[] } {
  const answer = async (): Promise<Answer> => ({ ids, found: await Promise.all(ids.map((id) => ask(session.id, id).catch(() => null))) });
  const { value: answered } = useAsked(answer, `${session.id} ${ids}`);
  return useMemo(() => {
    if (answered?.ids !== ids) return { missing: [] }; // what was asked for other experiments is no answer for these
    const { found } = answered;
    return { lines: diff(found.map((one) => (one === null ? null : flatten(byPackage(one))))), missing: ids.filter((_, i) => found[i] === null) };
  }, [answered, ids]);
}

function Configurations({ session, ids, base }: { session: Session; ids: readonly number[]; base: number }): JSX.Element {
  const { lines: found, missing } = useConfigurations(session, ids, session.rest.experimentConfig);
  // The log itself says what was swept, also where there are no files.
  const lines = found && missing.length === ids.length ? diff(ids.map((id) => new Map(Object.entries(session.state.experiments.get(id)?.swept ?? {})))) : found;
  const { query } = route.value;
  const needle = (query.find ?? "").toLowerCase();
  const differing = lines?.filter(({ differs }) => differs) ?? [];
  const shown = (query.all === "1" ? (lines ?? []) : differing).filter(({ path, values }) => !needle || [path, ...values.map(written)].join("\n").toLowerCase().includes(needle));
  return (
    <section class="stack" aria-label="configuration">
      <div class="row">
        <h2>Configuration</h2>
        {lines && (
          <span class="muted">
            {count(differing.length)} of {count(lines.length)} values differ
          </span>
        )}
        <input type="search" placeholder="filter paths and values" aria-label="filter the configuration" value={query.find ?? ""} onInput={(event) => choose({ find: event.currentTarget.value })} />
        <label>
          <input type="checkbox" checked={query.all === "1"} onChange={(event) => choose({ all: event.currentTarget.checked ? "1" : null })} /> show all
        </label>
        <button type="button" disabled={!shown.length} onClick={() => download(`${session.id}-configuration.csv`, differencesAsCsv(shown, ids), "text/csv")}>
          CSV
        </button>
      </div>
      {missing.length > 0 && (
        <p class="notice warned">
          The board has no configuration of {missing.map((id) => `#${id}`).join(", ")}: it is not on this machine, or not yet.
          {missing.length === ids.length && " What was swept stands in the log, and is compared."}
        </p>
      )}
      {!lines ? (
        <p class="muted">asking for the configurations …</p>
      ) : shown.length ? (
        <Beside label="configuration differences" first={["path"]} ids={ids} base={base}>
          <Lines lines={shown} base={base} />
        </Beside>
      ) : (
        <p class="muted">{needle ? "Nothing matches the filter." : "They are configured alike: what differs is chance, or where they ran."}</p>
      )}
    </section>
  );
}

function Lines({ lines, base }: { lines: readonly Difference[]; base: number }): JSX.Element {
  return (
    <>
      {lines.map(({ path, values, differs }) => {
        const at = path.lastIndexOf(".") + 1;
        return (
          <tr key={path} class={differs ? undefined : "alike"}>
            <th scope="row" class="mono">
              {path.slice(0, at)}
              <b>{path.slice(at)}</b>
            </th>
            {values.map((one, i) => (
              <td key={i} class={`mono${one === undefined || values[base] === undefined || same(one, values[base]) ? "" : " other"}`}>
                {one === MISSING || one === undefined ? <span class="muted">{one ? "not set" : "unknown"}</span> : written(one)}
              </td>
            ))}
          </tr>
        );
      })}
    </>
  );
}

/** A value so that text is told from what looks like it. */
function written(of: unknown): string {
  if (of === MISSING || of === undefined) return "";
  return typeof of === "string" && (of.trim() !== of || /^(|-?[\d.].*|true|false|null)$/.test(of)) ? JSON.stringify(of) : value(of);
}

function differencesAsCsv(lines: readonly Difference[], ids: readonly number[]): string {
  return csv([["path", ...ids.map((id) => `experiment ${id}`)], ...lines.map(({ path, values }) => [path, ...values.map(written)])]);
}

function Scores({ session, chosen, base }: { session: Session; chosen: readonly Experiment[]; base: number }): JSX.Element {
  const lines = scoreLines(session.state, chosen, base);
  const ids = chosen.map(({ experiment_id }) => experiment_id);
  return (
    <section class="stack" aria-label="scores">
      <div class="row">
        <h2>Scores</h2>
        <span class="muted">and their difference to #{ids[base]}</span>
        <button type="button" disabled={!lines.length} onClick={() => download(`${session.id}-scores.csv`, scoresAsCsv(lines, ids), "text/csv")}>
          CSV
        </button>
      </div>
      {lines.length ? (
        <Beside label="score differences" first={["score", "of"]} ids={ids} base={base}>
          {lines.map(({ key, which, cells }) => (
            <tr key={key + which} class={which}>
              {which === "best" && (
                <th scope="rowgroup" rowSpan={2}>
                  {key}
                </th>
              )}
              <th scope="row">{which}</th>
              {cells.map(({ point, more, better }, i) => (
                <td key={i}>
                  {point ? (
                    <Seq of={point.seq}>
                      <span title={`epoch ${point.epoch}, event ${point.seq}`}>{score(point.value)}</span>
                    </Seq>
                  ) : (
                    <span class="muted">none</span>
                  )}
                  {more !== null && (
                    <span class={`small more ${better > 0 ? "better" : better < 0 ? "worse" : "muted"}`}>
                      {more ? `${more > 0 ? "+" : "−"}${score(Math.abs(more))} ${better > 0 ? "better" : "worse"}` : "same"}
                    </span>
                  )}
                </td>
              ))}
            </tr>
          ))}
        </Beside>
      ) : (
        <p class="muted">None of them has a score yet: the first come at the end of an epoch.</p>
      )}
    </section>
  );
}

function scoresAsCsv(lines: readonly ScoreLine[], ids: readonly number[]): string {
  return csv([
    ["score", "of", ...ids.flatMap((id) => [`experiment ${id}`, `epoch of ${id}`])],
    ...lines.map(({ key, which, cells }) => [key, which, ...cells.flatMap(({ point }) => [point?.value ?? null, point?.epoch ?? null])]),
  ]);
}

function Environments({ session, ids, base }: { session: Session; ids: readonly number[]; base: number }): JSX.Element {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <h2>Environment</h2>
      </summary>
      {open && <Environment session={session} ids={ids} base={base} />}
    </details>
  );
}

function Environment({ session, ids, base }: { session: Session; ids: readonly number[]; base: number }): JSX.Element {
  const { lines, missing } = useConfigurations(session, ids, session.rest.systemInfo);
  const differing = lines?.filter(({ differs }) => differs) ?? [];
  if (!lines) return <p class="muted">asking what they ran on …</p>;
  if (missing.length === ids.length) return <p class="muted">The board knows nothing about what they ran on.</p>;
  if (!differing.length) return <p class="muted">They ran on the same machine, with the same packages and the same commit.</p>;
  return (
    <Beside label="environment differences" first={["what"]} ids={ids} base={base}>
      <Lines lines={differing} base={base} />
    </Beside>
  );
}

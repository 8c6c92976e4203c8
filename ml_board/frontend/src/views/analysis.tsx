// What a grid search has come to: how far it is, what failed, who is best; all experiments, and the charts of some.

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { bytes, count, duration, score as shownScore, time } from "../state/format";
import type { Experiment } from "../state/fold";
import type { Overview } from "../state/overview";
import { choose, route } from "../state/route";
import { selectedOf } from "../state/selection";
import type { Session } from "../state/session";
import type { Shown } from "../state/shown";
import { anyOf, best, type Column } from "../state/table";
import { ranges } from "../wire/rest";
import "./analysis.css";
import { Charts } from "./charts";
import { Bar, Seq, Status } from "./parts";
import { ExperimentTable, experimentLink, NoneYet, Swatch, useShown } from "./table";

const LAYOUTS = ["table", "beside", "below", "charts"] as const;
const DRAWN = 20; // when none are selected

export function AnalysisView({ session }: { session: Session }): JSX.Element {
  const shown = useShown(session);
  const { query } = route.value;
  const layout = LAYOUTS.find((one) => one === query.lay) ?? "beside";
  if (!session.state.experiments.size) {
    return (
      <>
        <h1 class="visually-hidden">Analysis</h1>
        <Damage session={session} />
        <Warnings session={session} />
        <NoneYet session={session} />
      </>
    );
  }
  return (
    <div class={`analysis ${layout}`}>
      <h1 class="visually-hidden">Analysis</h1>
      <div class="row spread">
        <Summary session={session} shown={shown} />
        <div class="row layouts" role="group" aria-label="layout">
          {LAYOUTS.map((one) => (
            <button key={one} type="button" class="small" aria-pressed={one === layout} onClick={() => choose({ lay: one === "beside" ? null : one })}>
              {one}
            </button>
          ))}
        </div>
      </div>
      <Failures of={shown.overview} />
      <Damage session={session} />
      <Warnings session={session} />
      <div class="panes">
        {layout !== "charts" && <ExperimentTable session={session} />}
        {layout !== "table" && <Drawn session={session} shown={shown} />}
      </div>
    </div>
  );
}

/** The charts of the selected experiments, or of the first ones of the table. */
function Drawn({ session, shown }: { session: Session; shown: Shown }): JSX.Element {
  const { query } = route.value;
  const selected = selectedOf(query).filter((id) => session.state.experiments.has(id));
  const drawn = selected.length ? selected : shown.order.slice(0, DRAWN);
  const key = drawn.join();
  const experiments = useMemo(() => drawn, [key]);
  const id = (query.sort ?? "").replace("-", "");
  const by = shown.all.find((one) => one.id === id);
  const order = !by ? "" : by.smaller !== undefined && query.sort === (by.smaller ? id : `-${id}`) ? ` by ${by.title.replace(/^(?!best )/, "last ")}` : ` by ${by.title}`;
  const { length } = shown.order;
  const note = selected.length
    ? selected.length > 1
      ? `the ${count(selected.length)} selected`
      : "the selected one"
    : !length ? "" : `${length > DRAWN ? `the first ${DRAWN} of ${count(length)}` : `all ${length}`}${order}; select rows to choose`;
  return (
    <div class="drawn" role="group" aria-label="what is drawn" tabIndex={0}>
      <h2 class="visually-hidden">Charts</h2>
      <Charts session={session} experiments={experiments} note={note} />
    </div>
  );
}

function Summary({ session, shown: { overview: of, columns } }: { session: Session; shown: Shown }): JSX.Element {
  const { state } = session;
  const dead = session.dead.value && !session.replay.value;
  const total = Math.max(state.numExperiments, state.experiments.size);
  const ended = of.counts.get("DONE") ?? 0;
  const rest = [["FAILED", "failed"], ["RUNNING", dead ? "cut off" : "running"], ["LOST", "lost"], ["STOPPED", "stopped"]].flatMap(([status, word]) => {
    const number = of.counts.get(status as string);
    return number ? [`${count(number)} ${word}`] : [];
  });
  return (
    <div class="summary row">
      {state.reason && <Status of={state.status} note={state.reason} />}
      <span>
        <b>{count(ended)}</b> of {count(total)} done{rest.length > 0 && `, ${rest.join(", ")}`}
      </span>
      <span class="row epochs">
        <Bar done={of.epochsDone} of={of.epochsTotal} label="epochs of all experiments" />
        <span>
          {count(of.epochsDone)} of {of.epochsTotal ? count(of.epochsTotal) : "?"} epochs
        </span>
      </span>
      {of.left !== null && !dead && (
        <span title="were it to go on as it does, and nobody to stop early">
          about <b>{duration(of.left)}</b> left
        </span>
      )}
      {state.status !== "STARTED" && state.startingTime !== null && state.finishingTime !== null && (
        <span class="muted" title={`${time(state.startingTime)} to ${time(state.finishingTime)}`}>
          in {duration((state.finishingTime - state.startingTime) / 1000)}
        </span>
      )}
      {of.score && (
        <span class="row winner">
          <label>
            best{" "}
            <select aria-label="score to judge by" value={of.score} onChange={(event) => choose({ by: event.currentTarget.value })}>
              {[...state.scoreKeys.keys()].map((key) => (
                <option key={key} value={key}>
                  {key}
                </option>
              ))}
            </select>
          </label>
          {of.best ? <Winner of={of.best} score={of.score} columns={columns} /> : <span class="muted">has no finite value yet</span>}
        </span>
      )}
    </div>
  );
}

function Winner({ of, score, columns }: { of: Experiment; score: string; columns: readonly Column[] }): JSX.Element | null {
  const found = best(of, score);
  return (
    found && (
      <>
        <Seq of={found.seq}>
          <b>{shownScore(found.value)}</b>
        </Seq>
        <span>
          <Swatch of={of.experiment_id} /> <a href={experimentLink(of.experiment_id)}>#{of.experiment_id}</a> in epoch {found.epoch}
        </span>
        <span class="swept">
          {columns
            .filter(({ group, id }) => group === "swept" && Object.hasOwn(of.swept, id.slice(6)))
            .map((one) => (
              <span key={one.id} title={one.hint}>
                {one.title}=<b>{one.text(of, 0)}</b>
              </span>
            ))}
        </span>
      </>
    )
  );
}

const TOLD = 3;

/** What failed first: it is what somebody has to do something about. */
function Failures({ of: { failures } }: { of: Overview }): JSX.Element | null {
  if (!failures.length) return null;
  const more = failures.slice(TOLD).reduce((sum, { experiments }) => sum + experiments.length, 0);
  return (
    <div class="notice failed told" role="region" aria-label="failures">
      {failures.slice(0, TOLD).map(({ error, experiments }) => (
        <div key={error} class="clip" title={error}>
          {experiments.length === 1 ? (
            <a href={experimentLink(experiments[0] as number)}>#{experiments[0]} failed</a>
          ) : (
            <button type="button" class="link" onClick={() => choose({ "f.error": anyOf([error]) })}>
              {count(experiments.length)} failed (#{brief(ranges(experiments))})
            </button>
          )}
          : {error}
        </div>
      ))}
      {more > 0 && (
        <button type="button" class="link" onClick={() => choose({ "f.status": "= failed" })}>
          and {count(more)} more
        </button>
      )}
    </div>
  );
}

function brief(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40).replace(/,[^,]*$/, "")}, …` : text;
}

/** Whoever reads around something says so. */
function Damage({ session }: { session: Session }): JSX.Element | null {
  const { damaged } = session.state;
  if (!damaged) return null;
  return <p class="notice warned">{bytes(damaged)} of the log cannot be read: what stood there is missing here.</p>;
}

/** The warnings, the newest first; the board keeps the last 200. */
function Warnings({ session }: { session: Session }): JSX.Element | null {
  const { warnings } = session.state;
  const newest = warnings.at(-1);
  if (!newest) return null;
  return (
    <details class="notice warned told">
      <summary class="clip">
        {count(warnings.length)} warning{warnings.length > 1 && "s"}: {newest.message}
      </summary>
      <ul>
        {warnings.toReversed().map((one) => (
          <li key={one.seq}>
            <Seq of={one.seq}>{time(one.time)}</Seq> {one.experiment_id !== null && <a href={experimentLink(one.experiment_id)}>#{one.experiment_id}</a>}{" "}
            {one.message}
          </li>
        ))}
      </ul>
    </details>
  );
}

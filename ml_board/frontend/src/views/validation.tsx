// What cross validation has come to: combinations by their mean over folds and seeds, or the nested estimate. The board
// works it out, as `mlgym report` does.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { score as shown, shortNames, value as text } from "../state/format";
import { choose, route } from "../state/route";
import type { Session } from "../state/session";
import { scoreOf } from "../state/sweep";
import type { Combination, EpochRule, FoldScore, Report } from "../wire/answers";
import { scalar } from "../wire/decode";
import type { Scalar } from "../wire/events";
import { useSession } from "./parts";
import { experimentLink } from "./table";

const AXES = ["fold", "outer_fold", "inner_fold", "seed"];
const RULES: Record<EpochRule, string> = { last: "last epoch", average: "best on average", best: "best of each (too good)" };
const TOP = 20; // combinations that are shown

/** Nothing, unless folds or seeds are axes of the grid. */
export function Validation({ session }: { session: Session }): JSX.Element | null {
  useSession(session);
  const { query } = route.value;
  const { state } = session;
  const experiments = [...state.experiments.values()];
  const folded = experiments.some(({ swept }) => AXES.some((axis) => Object.hasOwn(swept, axis)));
  // Only what has ended counts, so only that is news.
  const ended = experiments.filter(({ status }) => status !== "INIT" && status !== "RUNNING").length;
  const metric = scoreOf(state, query);
  const epoch = Object.hasOwn(RULES, query.rule ?? "") ? (query.rule as EpochRule) : null;
  const [report, setReport] = useState<Report | string | null>(null);
  const at = session.replay.value ? state.seq : undefined;
  useEffect(() => {
    if (!folded || !metric) return undefined;
    const stop = new AbortController();
    const late = setTimeout(() => {
      session.rest.report(session.id, { metric, epoch, at }, stop.signal).then(setReport, (error: unknown) => {
        if (!stop.signal.aborted) setReport(error instanceof Error ? error.message : `${error}`);
      });
    }, 200);
    return () => {
      clearTimeout(late);
      stop.abort();
    };
  }, [session, session.generation.value, folded, ended, metric, epoch, at === undefined]);
  if (!folded || report === null) return null;
  if (typeof report === "string") return <p class="notice warned">The report could not be had: {report}</p>;
  return (
    <section class="card" aria-label="validation">
      <div class="row spread">
        <h2>
          {report.kind[0]?.toUpperCase()}
          {report.kind.slice(1)}: {report.score}
        </h2>
        <label class="row small">
          what counts
          <select value={report.epoch} onChange={(event) => choose({ rule: event.currentTarget.value })}>
            {Object.entries(RULES).map(([rule, words]) => (
              <option key={rule} value={rule}>
                {words}
              </option>
            ))}
          </select>
        </label>
      </div>
      {report.ranking ? <Ranking of={report.ranking} /> : <Outer report={report} />}
      {report.missing.length > 0 && (
        <details class="small">
          <summary>
            incomplete: {report.missing.length} {report.missing.length === 1 ? "score is" : "scores are"} missing
          </summary>
          <ul>
            {report.missing.slice(0, 50).map((one) => (
              <li key={one}>{one}</li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

function Ranking({ of }: { of: Combination[] }): JSX.Element {
  const names = shortNames([...new Set(of.flatMap(({ swept }) => Object.keys(swept)))]);
  const units = [...new Set(of.flatMap(({ scores }) => Object.keys(scores)))];
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="combinations, scrolls">
      <table class="shares small">
        <thead>
          <tr>
            <th scope="col">rank</th>
            {[...names].map(([path, name]) => (
              <th key={path} scope="col" title={path}>
                {name}
              </th>
            ))}
            <th scope="col" class="number" title="over the folds or seeds, and their standard deviation">
              mean
            </th>
            {units.map((unit) => (
              <th key={unit} scope="col" class="number">
                {unit.replace("_", " ")}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {of.slice(0, TOP).map(({ number, rank, swept, mean, std, scores }) => (
            <tr key={number}>
              <th scope="row">{rank ?? "–"}</th>
              {[...names.keys()].map((path) => (
                <td key={path}>{text(swept[path])}</td>
              ))}
              <td class="number">
                {number_(mean)} <span class="muted">± {number_(std)}</span>
              </td>
              {units.map((unit) => (
                <td key={unit} class="number">
                  <Cell of={scores[unit]} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {of.length > TOP && <p class="muted small">and {of.length - TOP} more; `mlgym report` prints them all</p>}
    </div>
  );
}

function Outer({ report }: { report: Report }): JSX.Element {
  const names = shortNames([...new Set(report.outer.flatMap(({ chosen }) => Object.keys(chosen?.swept ?? {})))]);
  return (
    <>
      <p>
        {report.mean === null ? (
          "The estimate comes once every outer fold has its score."
        ) : (
          <>
            <strong>
              {number_(report.mean)} ± {number_(report.std)}
            </strong>{" "}
            <span class="muted">estimated for a training that is chosen like this, over {report.outer.length} outer folds</span>
          </>
        )}
      </p>
      <div class="scroll" tabIndex={0} role="region" aria-label="outer folds, scrolls">
        <table class="shares small">
          <thead>
            <tr>
              <th scope="col">outer fold</th>
              {[...names].map(([path, name]) => (
                <th key={path} scope="col" title={path}>
                  {name}
                </th>
              ))}
              <th scope="col" class="number">
                mean of its inner folds
              </th>
              <th scope="col" class="number">
                score on it
              </th>
            </tr>
          </thead>
          <tbody>
            {report.outer.map(({ fold, chosen, score }) => (
              <tr key={fold}>
                <th scope="row">{fold}</th>
                {[...names.keys()].map((path) => (
                  <td key={path}>{chosen ? text(chosen.swept[path]) : "–"}</td>
                ))}
                <td class="number">{number_(chosen?.mean ?? null)}</td>
                <td class="number">
                  <Cell of={score} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

/** A score, which leads to the (first) training that it is of. */
function Cell({ of }: { of: FoldScore | undefined }): JSX.Element {
  const [experiment] = of?.experiments ?? [];
  const words = <span title={of?.missing.join("; ") || undefined}>{number_(of?.value ?? null)}</span>;
  return experiment === undefined ? words : <a href={experimentLink(experiment)}>{words}</a>;
}

function number_(value: Scalar | null): string {
  return value === null ? "–" : shown(scalar(value));
}

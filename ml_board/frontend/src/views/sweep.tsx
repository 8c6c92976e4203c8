// The sweep: what was varied against what came of it. Parallel coordinates whose brushes are the table's filters, a
// heatmap of two parameters, how much each explains, and the table.

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { theme } from "../state/preferences";
import { choose, link, route } from "../state/route";
import { type Query, unfiltered } from "../state/selection";
import type { Session } from "../state/session";
import { shownOf } from "../state/shown";
import { same, scoreOf, type Sweep, sweepOf } from "../state/sweep";
import { Explained } from "./explained";
import { type Pace, Parallel } from "./parallel";
import { Empty } from "./parts";
import "./sweep.css";
import { ExperimentTable } from "./table";
import { Validation } from "./validation";

export function SweepView({ session }: { session: Session }): JSX.Element {
  const pace = useRef<Pace>({ at: 0, cost: 0 }).current;
  const sweep = useSweep(session, pace);
  const { query } = route.value;
  const shade = theme.value;
  const page = useMemo(() => <Page session={session} sweep={sweep} query={query} pace={pace} />, [session, sweep, query, shade]);
  const table = useMemo(() => <ExperimentTable session={session} />, [session]);
  return (
    <div class="sweep stack">
      <h1 class="visually-hidden">Sweep</h1>
      {page}
      <Validation session={session} />
      {table}
    </div>
  );
}

/** The sweep as it is now, but while events come in no oftener than can be followed and than drawing it leaves time for. */
function useSweep(session: Session, pace: Pace): Sweep | null {
  const [tick, setTick] = useState(0);
  const { query } = route.value;
  const asked = [query, session.generation.value, session];
  const seen = [session.version.value, tick];
  const known = useRef({ asked: [] as unknown[], seen, sweep: null as Sweep | null, again: 0 }).current;
  const differs = (a: readonly unknown[], b: readonly unknown[]): boolean => a.some((one, i) => one !== b[i]);
  const start = performance.now();
  const chosen = differs(asked, known.asked);
  if (chosen || differs(seen, known.seen)) {
    const due = pace.at + Math.max(150, 8 * pace.cost);
    if (!chosen && due > start) known.again = due;
    else {
      const { shown, due: more } = shownOf(session, query);
      const next = sweepOf(session.state, shown.all, shown.rows, query, known.sweep);
      if (!next || !known.sweep || !same(known.sweep, next)) known.sweep = next;
      pace.at = performance.now();
      pace.cost = pace.at - start;
      Object.assign(known, { asked, seen, again: more && pace.at + more });
    }
  }
  useEffect(() => {
    if (!known.again) return undefined;
    const timer = setTimeout(() => setTick((one) => one + 1), known.again - performance.now());
    return () => clearTimeout(timer);
  });
  return known.sweep;
}

function Page({ session, sweep, query, pace }: { session: Session; sweep: Sweep | null; query: Query; pace: Pace }): JSX.Element {
  const keys = [...session.state.scoreKeys.keys()];
  if (!sweep || (!sweep.axes.length && sweep.experiments.length < 2)) {
    return (
      <Empty title="There are no scores yet">
        <p>They come with the first evaluation of an experiment. This page fills by itself; the analysis shows how far each experiment is.</p>
        <a class="button" href={link("analysis")}>
          analysis
        </a>
      </Empty>
    );
  }
  if (!sweep.axes.length) {
    return (
      <Empty title="No parameter differs between these experiments">
        <p>Give a parameter several values in the grid search's configuration, and run it again:</p>
        <pre>{"lr: {sweep: absolute, values: [0.001, 0.01, 0.1]}"}</pre>
      </Empty>
    );
  }
  const passing = sweep.passes.reduce((sum, one) => sum + one, 0);
  const chooser = (
    <div class="row">
      <label class="row">
        score
        <select value={scoreOf(session.state, query) ?? ""} onChange={(event) => choose({ by: event.currentTarget.value })}>
          {keys.map((key) => (
            <option key={key} value={key}>
              {key}
            </option>
          ))}
        </select>
      </label>
      <select aria-label="of which epoch" value={query.of === "last" ? "last" : ""} onChange={(event) => choose({ of: event.currentTarget.value })}>
        <option value="">best epoch</option>
        <option value="last">last epoch</option>
      </select>
      <span class="muted small" role="status">
        {passing} of {sweep.experiments.length} experiments, {sweep.scored} with this score
      </span>
      {passing < sweep.experiments.length && (
        <button type="button" onClick={() => choose(unfiltered(query))}>
          show all
        </button>
      )}
    </div>
  );
  if (sweep.scored < 2) {
    return (
      <>
        {chooser}
        <Empty title="Fewer than two experiments have this score">
          <p>Two are needed to compare. Wait for the next evaluations, go on in the log if this is a replay, or choose another score above.</p>
        </Empty>
      </>
    );
  }
  return (
    <>
      {chooser}
      <Parallel session={session} sweep={sweep} query={query} pace={pace} />
      <Explained sweep={sweep} query={query} />
    </>
  );
}

// What explains the score of a sweep: a heatmap of two parameters, and how much each does by itself.

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { colourOf, inkOn } from "../charts/heatmap";
import { clip } from "../charts/parallel";
import { score as scoreText } from "../state/format";
import { type Importance, importances, strongest } from "../state/importance";
import { theme } from "../state/preferences";
import { choose } from "../state/route";
import type { Query } from "../state/selection";
import { type Axis, cellsOf, groupsOf, type Sweep } from "../state/sweep";

export function Explained({ sweep, query }: { sweep: Sweep; query: Query }): JSX.Element {
  const all = useMemo(() => importances(sweep, false), [sweep]);
  const some = useMemo(() => (sweep.passes.includes(0) ? importances(sweep, true) : all), [sweep]);
  return (
    <div class="explained">
      {sweep.axes.length > 1 && <Heatmap sweep={sweep} query={query} usual={all.map(({ axis }) => axis)} />}
      <Shares sweep={sweep} all={some} />
    </div>
  );
}

function Heatmap({ sweep, query, usual }: { sweep: Sweep; query: Query; usual: readonly Axis[] }): JSX.Element {
  const find = (id: string | undefined): Axis | undefined => sweep.axes.find(({ column }) => column.id === id);
  const x = find(query.hx) ?? (usual.find(({ column }) => column.id !== query.hy) as Axis);
  const y = (query.hy === x.column.id ? undefined : find(query.hy)) ?? (usual.find((axis) => axis !== x) as Axis);
  const bestOnly = query.agg === "best";
  const [across, down] = [groupsOf(x), groupsOf(y)];
  const cells = cellsOf(sweep, across, down, bestOnly);
  const shade = theme.value;
  const [fx, fy] = [`f.${x.column.id}`, `f.${y.column.id}`];
  const chooser = (key: string, word: string, axis: Axis, other: Axis): JSX.Element => (
    <label class="row small">
      {word}
      <select value={axis.column.id} onChange={(event) => choose({ hx: x.column.id, hy: y.column.id, [key]: event.currentTarget.value })}>
        {sweep.axes.map((one) => (
          <option key={one.column.id} value={one.column.id} disabled={one === other}>
            {one.column.title}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <section class="card" aria-label="heatmap">
      <div class="row spread">
        <h2>Heatmap</h2>
        <div class="row">
          {chooser("hx", "across", x, y)}
          {chooser("hy", "down", y, x)}
          <select aria-label="a cell shows" value={bestOnly ? "best" : ""} onChange={(event) => choose({ agg: event.currentTarget.value })}>
            <option value="">mean</option>
            <option value="best">best</option>
          </select>
        </div>
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="heatmap, scrolls">
        <table class={across.labels.length > 10 ? "heatmap tight" : "heatmap"}>
          <thead>
            <tr>
              <th class="corner">
                {clip(y.column.title, 16)} ↓ {clip(x.column.title, 16)} →
              </th>
              {across.labels.map((label) => (
                <th key={label} scope="col" title={label}>
                  {clip(label, 16) || "none"}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {cells.map((line, j) => (
              <tr key={down.labels[j]}>
                <th scope="row" title={down.labels[j]}>
                  {clip(down.labels[j] as string, 20) || "none"}
                </th>
                {line.map(({ count, value, shade: at }, i) => {
                  const here = { [fx]: across.filters[i] as string, [fy]: down.filters[j] as string };
                  const on = query[fx] === here[fx] && query[fy] === here[fy];
                  const words = `${bestOnly ? "best" : "mean"} ${scoreText(value)} of ${count} experiment${count === 1 ? "" : "s"}`;
                  return (
                    <td key={across.labels[i]}>
                      {count > 0 && (
                        <button
                          type="button"
                          aria-pressed={on}
                          title={`${x.column.title} ${across.labels[i]}, ${y.column.title} ${down.labels[j]}: ${words}`}
                          style={{ background: colourOf(at, shade), color: inkOn(at, shade) }}
                          onClick={() => choose(on ? { [fx]: null, [fy]: null } : here)}
                        >
                          <span>{scoreText(value)}</span>
                          <small>n={count}</small>
                        </button>
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="muted small">
        {bestOnly ? "Best" : "Mean"} {sweep.score.column.title} of the experiments in a cell. A click filters to them.
      </p>
    </section>
  );
}

function Shares({ sweep, all }: { sweep: Sweep; all: readonly Importance[] }): JSX.Element {
  const pair = useMemo(() => strongest(sweep), [sweep]);
  const count = sweep.shades.filter((shade, i) => shade === shade && sweep.passes[i]).length;
  const percent = (share: number): string => `${(100 * share).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`;
  return (
    <section class="card" aria-label="importance">
      <h2>What each parameter explains</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="importance, scrolls">
        <table class="shares small">
          <thead>
            <tr>
              <th scope="col">parameter</th>
              <th scope="col" title="omega squared: the share of the score's variance that its values explain, adjusted for chance">
                explains
              </th>
              <th scope="col" title="Spearman's rank correlation: 1, the score rises with the value; -1, it falls">
                direction
              </th>
              <th scope="col">best value</th>
              <th scope="col" class="number">
                mean there
              </th>
            </tr>
          </thead>
          <tbody>
            {all.map(({ axis, share, direction, best }) => (
              <tr key={axis.column.id}>
                <th scope="row" title={axis.column.hint}>
                  {clip(axis.column.title, 30)}
                </th>
                <td>
                  <div class="share">
                    <span>{share === null ? "–" : percent(share)}</span>
                    {share !== null && (
                      <span class="bar">
                        <i style={{ width: `${100 * share}%` }} />
                      </span>
                    )}
                  </div>
                </td>
                <td>
                  {direction === null ? "–" : `${Math.abs(direction) < 0.1 ? "→" : direction > 0 ? "↗" : "↘"} ${direction.toFixed(2).replace("-", "−")}`}
                </td>
                <td>
                  {best && (
                    <button type="button" class="plain" title="filter to it" onClick={() => choose({ [`f.${axis.column.id}`]: best.filter })}>
                      {clip(best.label, 24) || "none"}
                    </button>
                  )}
                </td>
                <td class="number">
                  {best && (
                    <>
                      {scoreText(best.mean)} <span class="muted">n={best.count}</span>
                    </>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="muted small">
        Share of the variance of {sweep.score.column.title} that a parameter explains by itself (ω², adjusted for chance), over the {count} experiments
        shown that have it. What parameters do only together is not in it
        {pair ? `: most by ${pair.pair.map(({ column }) => column.title).join(" with ")}, ${percent(pair.share)} more.` : "."}
        {all.some(({ share }) => share === null) && " –: every value occurs once, or the scores do not differ."}
      </p>
    </section>
  );
}

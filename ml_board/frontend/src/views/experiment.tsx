// One experiment: how it goes, why it failed, what it is made of, what it left behind.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as format from "../state/format";
import type { Experiment } from "../state/fold";
import { choose, link, route } from "../state/route";
import type { Session } from "../state/session";
import { best, elapsed, left } from "../state/table";
import { exact } from "../state/yaml";
import type { ExperimentDetail } from "../wire/answers";
import { scalar } from "../wire/decode";
import { Charts } from "./charts";
import { Checkpoints, checkpointsKey } from "./checkpoints";
import { ConfigTree } from "./config-tree";
import { useKeys } from "./keys";
import { OutputView } from "./output";
import { Bar, Empty, type Fact, Facts, Seq, Status, useAsked, useNow, useSession } from "./parts";
import { PipelineView } from "./pipeline";
import { useWindow, WindowTable } from "./window";
import "./experiment.css";

const AGAIN = 1500; // ms between two requests for details, at least

export function ExperimentView({ session }: { session: Session }): JSX.Element {
  useSession(session);
  const { exp = "" } = route.value.query;
  const { state } = session;
  const ids = useMemo(() => [...state.experiments.keys()].sort((a, b) => a - b), [state, state.experiments.size]);
  const id = exp === "" ? -1 : Number(exp);
  const at = ids.indexOf(id);
  const step = (by: number): void => {
    const next = ids[at < 0 ? 0 : at + by];
    if (next !== undefined) choose({ exp: `${next}` });
  };
  useKeys([
    { keys: "j", what: "next experiment", run: () => step(1) },
    { keys: "k", what: "experiment before", run: () => step(-1) },
  ]);
  const chooser = useMemo(
    () => (
      <select aria-label="experiment" value={exp} onChange={(event) => choose({ exp: event.currentTarget.value })}>
        {at < 0 && <option value={exp}>choose …</option>}
        {ids.map((one) => (
          <option key={one} value={`${one}`}>
            #{one} {swept(state.experiments.get(one)).slice(0, 60)}
          </option>
        ))}
      </select>
    ),
    [ids, exp],
  );
  const experiment = state.experiments.get(id);
  const head = (
    <div class="row">
      <h1>{experiment ? `Experiment ${id}` : "Experiments"}</h1>
      <button type="button" class="plain" aria-label="experiment before" title="k" disabled={at <= 0} onClick={() => step(-1)}>
        ◂
      </button>
      {chooser}
      <button type="button" class="plain" aria-label="next experiment" title="j" disabled={at < 0 || at === ids.length - 1} onClick={() => step(1)}>
        ▸
      </button>
      {experiment && <Status of={experiment.status} note={session.dead.value && experiment.status === "RUNNING" ? "no process runs it" : null} />}
    </div>
  );
  if (!experiment) {
    return (
      <div class="full experiment">
        {head}
        {exp !== "" && <p class="notice warned">There is no experiment {exp} {session.replay.value ? "as of this moment" : "yet"}.</p>}
        {ids.length ? <List session={session} ids={ids} /> : <Empty title="No experiment yet">The run announces its experiments before the first one begins.</Empty>}
      </div>
    );
  }
  return (
    <div class="stack experiment">
      {head}
      <One key={id} session={session} experiment={experiment} />
    </div>
  );
}

function swept(experiment: Experiment | undefined): string {
  const values = experiment?.swept ?? {};
  const names = format.shortNames(Object.keys(values));
  return Object.entries(values)
    .map(([path, value]) => `${names.get(path)} ${format.value(value)}`)
    .join(" · ");
}

function List({ session, ids }: { session: Session; ids: readonly number[] }): JSX.Element {
  useSession(session);
  const view = useWindow(ids.length, 32);
  return (
    <WindowTable
      of={view}
      class="chooser"
      label="experiments"
      count={ids.length}
      head={
        <tr>
          {["experiment", "status", "swept values", "error"].map((name) => (
            <th key={name}>{name}</th>
          ))}
        </tr>
      }
    >
      {ids.slice(view.first, view.end).map((id, i) => {
        const experiment = session.state.experiments.get(id) as Experiment;
        return (
          <tr key={id} aria-rowindex={view.first + i + 2}>
            <td>
              <a href={link("experiment", { exp: `${id}` })}>experiment {id}</a>
            </td>
            <td>
              <Status of={experiment.status} />
            </td>
            <td>{swept(experiment)}</td>
            <td class="bad">{experiment.error}</td>
          </tr>
        );
      })}
    </WindowTable>
  );
}

function One({ session, experiment }: { session: Session; experiment: Experiment }): JSX.Element {
  useSession(session);
  const id = experiment.experiment_id;
  const { detail, error } = useDetail(session, experiment);
  const attempts = [...(detail?.attempts ?? [])].reverse();
  const last = attempts[0];
  const warnings = session.state.warnings.filter((one) => one.experiment_id === id);
  const charts = useMemo(() => <Charts session={session} experiments={[id]} />, [session, id]);
  const config = useMemo(() => <Config session={session} experiment={id} swept={experiment.swept} />, [session, id, experiment.swept]);
  const pipeline = useMemo(() => <PipelineView session={session} experiment={id} />, [session, id]);
  const running = experiment.status === "RUNNING";
  return (
    <>
      {experiment.error !== null && (
        <section class="notice failed" aria-label="error">
          <h2>
            <Seq of={experiment.status_seq}>{experiment.error}</Seq>
          </h2>
          {experiment.reason && <p>{experiment.reason}</p>}
          {last?.stacktrace && <Trace of={last.stacktrace} open />}
        </section>
      )}
      {error && (
        <p class="notice warned" role="alert">
          Details are missing: {error}. The page asks again when the experiment goes on.
        </p>
      )}
      <div class="overview">
        <ProgressCard session={session} experiment={experiment} host={last?.host ?? null} />
        <Scores experiment={experiment} version={experiment.version} />
      </div>
      <Section name="charts" title="Charts">
        {charts}
      </Section>
      <Section name="pipeline" title="Components">
        {pipeline}
      </Section>
      <Section name="config" title="Configuration" note={swept(experiment)}>
        {config}
      </Section>
      <Section name="card" title="Model card" note="to be read, and as a file">
        <Later session={session} experiment={experiment} />
      </Section>
      <Section name="checkpoints" title="Checkpoints" note={experiment.checkpoints.size}>
        <Checkpoints session={session} experiment={experiment} detail={detail} />
      </Section>
      <Section name="attempts" title="Job attempts" note={experiment.attempt}>
        <Attempts of={attempts} />
      </Section>
      <Section name="output" title="Output">
        <OutputView session={session} experiment={id} running={running} />
      </Section>
      {warnings.length > 0 && (
        <Section name="warnings" title="Warnings" note={warnings.length}>
          <ul>
            {warnings.map(({ seq, time, message }) => (
              <li key={seq}>
                <Seq of={seq}>{format.time(time)}</Seq> {message}
              </li>
            ))}
          </ul>
        </Section>
      )}
      {experiment.changes > 0 && (
        <Section name="changes" title="Scores that changed when an epoch was run again" note={experiment.changes}>
          <Table
            head={["epoch", "score", "before", "now"]}
            rows={(detail?.changes ?? []).slice(0, 200).map(({ epoch, score, before, now }) => [epoch, score, format.score(scalar(before)), format.score(scalar(now))])}
          />
          {experiment.changes > 200 && <p class="muted">and {experiment.changes - 200} more</p>}
        </Section>
      )}
      <Section name="environment" title="Environment and hardware">
        <SystemInfo session={session} experiment={id} />
      </Section>
    </>
  );
}

/** What a row of the table does not say. Asked again after what changes it, one request at a time. */
function useDetail(session: Session, experiment: Experiment): { detail?: ExperimentDetail; error?: string } {
  const [found, setFound] = useState<{ detail?: ExperimentDetail; error?: string }>({});
  const { attempt, status_seq, changes, experiment_id: id } = experiment;
  const past = session.replay.value !== null;
  const key = `${past} ${attempt} ${status_seq} ${changes} ${checkpointsKey(experiment)}`;
  const wanted = useRef("");
  wanted.current = key;
  const busy = useRef(false);
  const gone = useRef(false);
  useEffect(() => () => void (gone.current = true), []);
  useEffect(() => {
    if (busy.current) return;
    busy.current = true;
    const ask = async (): Promise<void> => {
      const asked = wanted.current;
      try {
        const detail = await session.rest.experiment(session.id, id, session.replay.peek() ? session.state.seq : undefined);
        if (!gone.current) setFound({ detail });
      } catch (error) {
        if (!gone.current) setFound(({ detail }) => ({ ...(detail && { detail }), error: (error as Error).message }));
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
      busy.current = false;
      if (wanted.current !== asked && !gone.current) void ask();
    };
    void ask();
  }, [key]);
  return found;
}

/** A part that opens and closes; which are not as they are by default stands in the address. */
function Section({ name, title, note, children }: { name: string; title: string; note?: string | number; children: ComponentChildren }): JSX.Element {
  const flipped = new Set((route.value.query.flip ?? "").split(",").filter(Boolean));
  const open = flipped.has(name) === ["pipeline", "config", "card", "environment"].includes(name);
  return (
    <details
      class="card"
      open={open}
      onToggle={(event) => {
        if (event.currentTarget.open === open) return;
        if (!flipped.delete(name)) flipped.add(name);
        choose({ flip: [...flipped].join(",") });
      }}
    >
      <summary>
        <h2>{title}</h2> <span class="muted">{note}</span>
      </summary>
      {open && <div class="stack">{children}</div>}
    </details>
  );
}

/** The model card is a script of its own: most visits do not open it. */
function Later(props: { session: Session; experiment: Experiment }): JSX.Element {
  const { value: card, error } = useAsked(() => import("./card"), 0);
  if (error) return <p class="bad">{error.message}</p>;
  return card ? <card.CardView {...props} /> : <p class="muted">reading …</p>;
}

function ProgressCard({ session, experiment, host }: { session: Session; experiment: Experiment; host: string | null }): JSX.Element {
  useSession(session);
  const clock = useNow(session);
  const now = session.dead.value || session.rest.file ? session.state.time : clock;
  const { epochs_done, num_epochs, progress, status, status_seq } = experiment;
  const busy = status === "RUNNING" && progress.phase !== "";
  const facts: Fact[] = [
    ["attempt", <Seq of={status_seq}>{experiment.attempt || "–"}</Seq>],
    ["device", [experiment.device, host].filter(Boolean).join(" on ") || "–"],
    ["elapsed", format.duration(elapsed(experiment, now))],
    ["left", format.duration(left(experiment, now))],
    ["started", format.time(experiment.starting_time)],
    ["ended", experiment.finishing_time ? `${format.time(experiment.finishing_time)}${experiment.reason ? `, ${experiment.reason}` : ""}` : "–"],
    ["configuration", <Seq of={experiment.config_seq}>{experiment.config_hash.slice(0, 12) || "–"}</Seq>],
  ];
  return (
    <section class="card stack" aria-label="progress">
      <div>
        <div class="row spread">
          <span>
            epoch <strong>{epochs_done}</strong> of {num_epochs || "?"}
          </span>
          <span class="muted">{num_epochs > 0 && `${Math.floor((100 * epochs_done) / num_epochs)}%`}</span>
        </div>
        <Bar done={epochs_done} of={num_epochs} label="epochs" />
      </div>
      {busy && (
        <div>
          <Seq of={progress.seq}>
            {progress.phase === "train" ? "training" : "evaluating"} {progress.split} · batch {progress.batch} of {progress.num_batches}
          </Seq>
          <Bar done={progress.batch} of={progress.num_batches} label="batches" />
        </div>
      )}
      <Facts rows={facts} />
    </section>
  );
}

function Scores({ experiment, version }: { experiment: Experiment; version: number }): JSX.Element {
  const rows = useMemo(
    () =>
      [...experiment.scores].map(([key, { last }]) => {
        const top = best(experiment, key);
        return [
          key,
          <Seq of={last.seq}>{format.score(last.value)}</Seq>,
          top && <Seq of={top.seq}>{format.score(top.value)}</Seq>,
          top?.epoch,
        ];
      }),
    [experiment, version],
  );
  return (
    <section class="card scroll" tabIndex={0} aria-label="scores">
      {rows.length ? <Table head={["score", "last", "best", "of epoch"]} rows={rows} /> : <p class="muted">No score yet: the first ones come with the evaluation before training.</p>}
    </section>
  );
}

function Table({ head, rows }: { head: readonly string[]; rows: readonly (readonly ComponentChildren[])[] }): JSX.Element {
  return (
    <table class="plain">
      <thead>
        <tr>
          {head.map((name) => (
            <th key={name}>{name}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((cells, i) => (
          <tr key={i}>
            {cells.map((cell, j) => (
              <td key={j}>{cell}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Attempts({ of }: { of: ExperimentDetail["attempts"] }): JSX.Element {
  if (!of.length) return <p class="muted">None yet: it waits for a device.</p>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="job attempts">
      <Table
        head={["attempt", "status", "from epoch", "started", "took", "device", "why it ended"]}
        rows={of.map((one) => [
          <Seq of={one.seq}>{one.attempt}</Seq>,
          <Status of={one.status} />,
          one.start_epoch,
          format.time(one.starting_time),
          one.starting_time && one.finishing_time ? format.duration((one.finishing_time - one.starting_time) / 1000) : "–",
          [one.device, one.host].filter(Boolean).join(" on "),
          <>
            {one.reason}
            {one.error && <div class="bad">{one.error}</div>}
            {one.stacktrace && <Trace of={one.stacktrace} />}
          </>,
        ])}
      />
    </div>
  );
}

/** What went wrong stands at its end. */
function Trace({ of, open = false }: { of: string; open?: boolean }): JSX.Element {
  const box = useRef<HTMLPreElement>(null);
  const toEnd = (): void => box.current?.scrollTo(0, box.current.scrollHeight);
  useEffect(toEnd, [of]);
  return (
    <details open={open} onToggle={toEnd}>
      <summary>stack trace</summary>
      <pre ref={box} tabIndex={0} aria-label="stack trace">
        {of}
      </pre>
    </details>
  );
}

function Config({ session, experiment, swept }: { session: Session; experiment: number; swept: Record<string, unknown> }): JSX.Element {
  const { value, error } = useAsked(() => session.rest.config(session.id, `${experiment}/experiment_config`).then(exact), experiment);
  if (error) return <p class="bad">{error.message}: the event of its configuration has it as well.</p>;
  return value === undefined ? <p class="muted">reading …</p> : <ConfigTree of={value} name={`experiment_${experiment}`} param="find" swept={swept} />;
}

function SystemInfo({ session, experiment }: { session: Session; experiment: number }): JSX.Element {
  const { value, error } = useAsked(() => session.rest.systemInfo(session.id, experiment), experiment);
  if (error) return <p class="muted">{error.message}: it is written when a job begins.</p>;
  return value === undefined ? <p class="muted">reading …</p> : <ConfigTree of={value} name={`system_info_${experiment}`} param="env" />;
}

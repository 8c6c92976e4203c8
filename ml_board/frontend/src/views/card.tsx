// The model card of an experiment, as of the event that is shown, and as files. Charts, components, configuration and
// environment are in the experiment's other parts; the files have all of it.

import type { ComponentChildren, JSX } from "preact";
import * as format from "../state/format";
import type { Experiment } from "../state/fold";
import type { Session } from "../state/session";
import type { Card } from "../wire/answers";
import { scalar } from "../wire/decode";
import { type Fact, Facts, useAsked } from "./parts";
import "./card.css";

const FILES = { html: "HTML", markdown: "Markdown", json: "JSON" };
const MOST = 50; // rows of a table of classes

export function CardView({ session, experiment }: { session: Session; experiment: Experiment }): JSX.Element {
  const { experiment_id: id, status_seq, config_seq, facts } = experiment;
  const at = session.replay.value ? session.state.seq : undefined;
  const key = `${id} ${at === undefined} ${status_seq} ${config_seq} ${Object.values(facts).join()}`;
  const { value, error } = useAsked(() => session.rest.card(session.id, id, at), key);
  if (error) return <p class="bad">{error.message}</p>;
  if (!value) return <p class="muted">reading …</p>;
  const { seq } = value.model_details;
  return (
    <div class="model-card stack">
      <div class="row spread">
        <span class="small muted">
          As of event {format.count(seq)}.{!session.rest.file && " The files have charts, components and environment as well."}
        </span>
        {!session.rest.file && (
          <span class="row">
            {Object.entries(FILES).map(([kind, name]) => (
              <a key={kind} class="button" href={session.rest.cardUrl(session.id, id, kind, at)} download={`model-card-${session.id}-${id}.${kind === "markdown" ? "md" : kind}`}>
                {name}
              </a>
            ))}
          </span>
        )}
      </div>
      <Model of={value} />
      <Data of={value} />
      <Training of={value} />
      <Evaluation of={value} />
    </div>
  );
}

/** `words`: how many columns hold words. */
function Table({ label, head, rows, words = 1 }: { label: string; head: string[]; rows: ComponentChildren[][]; words?: number }): JSX.Element {
  const kind = (i: number): string | undefined => (i < words ? undefined : "number");
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table class="plain">
        <thead>
          <tr>
            {head.map((name, i) => (
              <th key={i} class={kind(i)}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((cells, i) => (
            <tr key={i}>
              {cells.map((cell, j) => (
                <td key={j} class={kind(j)}>
                  {cell}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Model({ of }: { of: Card }): JSX.Element {
  const { name, model_description, model_version, source_repo, stated, type, total_parameters, trainable_parameters, size_bytes, layers } = of.model_details;
  return (
    <>
      <h3>{name}</h3>
      {model_description ? <p class="told">{model_description}</p> : <p class="muted">No description: `model_info` of the grid search config has none.</p>}
      <Facts
        rows={[
          ["version", model_version],
          ["source", source_repo],
          ...Object.entries(stated).map(([key, value]): Fact => [key.replaceAll("_", " "), text(value)]),
          ["class", type],
          ["parameters", total_parameters !== null && `${format.count(total_parameters)}, ${format.count(trainable_parameters ?? 0)} trainable`],
          ["size", size_bytes !== null && format.bytes(size_bytes)],
        ]}
      />
      {layers.length > 0 ? (
        <Table
          label="layers"
          head={["layer", "type", "parameters", "trainable"]}
          rows={layers.map((layer) => [layer.name, layer.type, format.count(layer.parameters ?? 0), format.count(layer.trainable ?? 0)])}
          words={2}
        />
      ) : (
        <p class="muted">What the model consists of is not recorded (yet).</p>
      )}
    </>
  );
}

function Data({ of }: { of: Card }): JSX.Element {
  const { datasets, splits } = of.dataset_details;
  const counted = splits.filter((split) => split.label_distribution.length);
  const labels = new Map(counted.flatMap((split) => split.label_distribution.map(({ label, name }) => [label, name] as const)));
  const shown = [...labels].sort(([a], [b]) => a - b).slice(0, MOST);
  const counts = counted.map((split) => new Map(split.label_distribution.map((one) => [one.label, one])));
  return (
    <>
      <h3>Data</h3>
      <Facts rows={[["data set", datasets.join(", ")]]} />
      {splits.length > 0 ? (
        <Table
          label="splits"
          head={["split", "used for", "sample", "target", "samples", "share"]}
          rows={splits.map((split) => [
            split.split,
            split.uses.join(" and "),
            shape(split.sample_shape, split.sample_dtype),
            shape(split.target_shape, split.target_dtype),
            format.count(split.samples),
            percent(split.percentage / 100),
          ])}
          words={4}
        />
      ) : (
        <p class="muted">What the data consist of is not recorded (yet).</p>
      )}
      {shown.length > 0 && (
        <Table
          label="label distribution"
          head={["label", ...counted.map(({ split }) => split)]}
          rows={shown.map(([label, name]) => [name, ...counts.map((of) => share(of.get(label)))])}
        />
      )}
      {labels.size > MOST && <p class="muted">and {labels.size - MOST} more labels</p>}
      {splits.map(
        ({ split, spread, uncounted }) =>
          (uncounted || Object.keys(spread).length > 0) && (
            <p key={split} class="small muted">
              targets of {split}: {uncounted ? `not counted, ${uncounted}` : Object.entries(spread).map(([name, value]) => `${name} ${format.score(scalar(value))}`).join(", ")}
            </p>
          ),
      )}
    </>
  );
}

function share(of: { count: number; percentage: number } | undefined): string {
  return of ? `${format.count(of.count)} (${percent(of.percentage / 100)})` : "–";
}

function shape(of: number[] | null, dtype: string): string {
  return of ? `${of.join(" × ") || "scalar"} ${dtype}` : "–";
}

function Training({ of }: { of: Card }): JSX.Element {
  const { hyperparameters, loss, optimizer, lr_scheduler, seconds, training_seconds, evaluation_seconds, memory_bytes, device_memory_bytes } = of.training_details;
  const { basis, energy_kwh, carbon_g, cost, currency, explanation } = of.experiment_environment.carbon_and_cost;
  return (
    <>
      <h3>Training</h3>
      <Facts
        rows={[
          ["loss", text(loss?.key)],
          ["optimizer", text(optimizer?.key)],
          ["schedule", text(lr_scheduler?.key)],
          ["took", seconds !== null && format.duration(seconds) + (training_seconds === null ? "" : ` (training ${format.duration(training_seconds)}, evaluation ${format.duration(evaluation_seconds)})`)],
          ["peak memory", memory_bytes !== null && format.bytes(memory_bytes)],
          ["peak GPU memory", device_memory_bytes !== null && format.bytes(device_memory_bytes)],
          ["energy", energy_kwh === null ? "not known" : `${format.figures(energy_kwh)} kWh, ${basis}`],
          ["carbon", carbon_g !== null && `${format.figures(carbon_g)} g CO2eq`],
          ["cost", cost !== null && `${format.figures(cost)} ${currency}`],
          ["how", explanation],
        ]}
      />
      {hyperparameters.length > 0 && (
        <Table
          label="hyperparameters"
          head={["parameter", "value", "in the grid"]}
          rows={hyperparameters.map(({ parameter, value, swept }) => [parameter.replace(".config.", "."), text(value), swept && <strong>swept</strong>])}
          words={3}
        />
      )}
    </>
  );
}

function Evaluation({ of }: { of: Card }): JSX.Element | null {
  const { score, best_epoch, scores, class_results } = of.eval_details;
  if (!scores.length) return null;
  return (
    <>
      <h3>Evaluation</h3>
      {best_epoch !== null && (
        <p class="small muted">
          {score} was best at epoch {best_epoch}. What is best for each score itself is a little too good.
        </p>
      )}
      <Table
        label="scores of the card"
        head={["score", "split", `at epoch ${best_epoch ?? "–"}`, "last", "of epoch", "best", "of epoch"]}
        rows={scores.map(({ tag, split, last, best, at_best_epoch }) => [
          tag,
          split,
          at_best_epoch === null ? "–" : format.score(scalar(at_best_epoch)),
          format.score(scalar(last.value)),
          last.epoch,
          best ? format.score(scalar(best.value)) : "–",
          best?.epoch ?? "–",
        ])}
        words={2}
      />
      {class_results.map((one, i) => (
        <Classes key={i} of={one} />
      ))}
    </>
  );
}

function Classes({ of }: { of: Card["eval_details"]["class_results"][number] }): JSX.Element {
  const { split, epoch, samples, accuracy, classes, confusion } = of;
  const which = [of.best && "best", of.last && "last"].filter(Boolean).join(" and ");
  const name = `${split}, ${which} epoch (${epoch})`;
  return (
    <section class="stack">
      <h4>
        By class: {name} <span class="muted small">{`${percent(accuracy)} of ${format.count(samples)} right`}</span>
      </h4>
      <div class="by-class">
        {confusion.length > 0 && (
          <div class="scroll" tabIndex={0} role="region" aria-label={`confusion matrix of ${name}`}>
            <table class="confusion">
              <caption class="small muted">actual (rows), predicted (columns)</caption>
              <thead>
                <tr>
                  <td />
                  {classes.map((one, i) => (
                    <th key={i} scope="col">
                      {one.name}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {confusion.map((row, i) => (
                  <tr key={i}>
                    <th scope="row">{classes[i]?.name}</th>
                    {row.map((count, j) => (
                      <td key={j} class={i === j ? "right" : "wrong"} style={{ "--share": `${Math.round((100 * count) / (classes[i]?.support || 1))}%` }}>
                        {count || ""}
                      </td>
                    ))}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
        <Table
          label={`classes of ${name}`}
          head={["class", "precision", "recall", "F1", "samples"]}
          rows={classes.slice(0, MOST).map((one) => [one.name, ratio(one.precision), ratio(one.recall), ratio(one.f1), format.count(one.support)])}
        />
      </div>
      {classes.length > MOST && <p class="muted">and {classes.length - MOST} more classes</p>}
    </section>
  );
}

function ratio(value: number | null): string {
  return value === null ? "–" : value.toFixed(3);
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)}%`;
}

function text(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map(text).join(", ");
  return typeof value === "string" ? value : format.value(value);
}

// The components of an experiment and what they require: a picture, or a table. Where things go is the server's work.

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { choose, route } from "../state/route";
import type { Session } from "../state/session";
import { exact } from "../state/yaml";
import type { Pipeline, PipelineEdge, PipelineNode } from "../wire/answers";
import { ConfigTree } from "./config-tree";
import { useAsked } from "./parts";
import "./pipeline.css";

const LEAST = 0.85; // of its size: smaller could not be read, so it scrolls

export function PipelineView({ session, experiment }: { session: Session; experiment: number }): JSX.Element {
  const { value, error } = useAsked(() => session.rest.pipeline(session.id, experiment), experiment);
  const found = useMemo(() => value !== undefined && { drawn: JSON.parse(value) as Pipeline, written: exact(value) as Pipeline }, [value]);
  if (error) return <p class="bad">{error.message}</p>;
  if (!found) return <p class="muted">reading …</p>;
  const { node, as } = route.value.query;
  const at = found.drawn.nodes.findIndex(({ name }) => name === node);
  return (
    <>
      <div class="row spread">
        <span class="small muted">An arrow runs to the component that requires another, and says which part of it. A click shows a component's own configuration.</span>
        <button type="button" onClick={() => choose({ as: as === "table" ? null : "table" })}>
          as a {as === "table" ? "picture" : "table"}
        </button>
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="components, scrolls">
        {as === "table" ? <Table of={found.drawn} chosen={node} /> : <Picture of={found.drawn} chosen={node} />}
      </div>
      {at >= 0 && <Chosen node={found.written.nodes[at] as PipelineNode} edges={found.drawn.edges} name={`experiment_${experiment}`} />}
    </>
  );
}

interface Shown {
  of: Pipeline;
  chosen: string | undefined;
}

function Picture({ of, chosen }: Shown): JSX.Element {
  const { width, height } = of;
  const nodes = [...of.nodes].sort((a, b) => a.x - b.x || a.y - b.y); // the keys go through them as the arrows do
  return (
    <svg class="pipeline" viewBox={`0 0 ${width} ${height}`} role="group" aria-label="components" style={{ minWidth: `${LEAST * width}px`, maxWidth: `${width}px` }}>
      <g aria-hidden="true">
        {of.edges.map((edge, i) => (
          <g key={i} class={chosen === edge.source || chosen === edge.target ? "edge on" : "edge"}>
            <title>{`${edge.target} requires ${required(edge)}`}</title>
            <path d={edge.path} />
            <path class="head" d={edge.head} />
            <text x={edge.x} y={edge.y}>
              {edge.label}
            </text>
          </g>
        ))}
      </g>
      {nodes.map((node) => (
        <g key={node.name} class={`node ${node.used ? "" : "unused"} ${node.missing ? "missing" : ""}`}>
          <g
            role="button"
            tabindex={0} // in SVG the other spelling is another attribute
            aria-pressed={node.name === chosen}
            aria-label={[title(node), node.type, node.variant].filter(Boolean).join(", ")}
            onClick={() => toggle(node.name, chosen)}
            onKeyDown={(event) => {
              if (event.key !== "Enter" && event.key !== " ") return;
              event.preventDefault();
              toggle(node.name, chosen);
            }}
          >
            <title>{title(node)}</title>
            <rect class="box" x={node.x} y={node.y} width={node.width} height={node.height} rx={6} />
            <rect class={node.group} x={node.x + 4} y={node.y + 7} width={3} height={node.height - 14} rx={1.5} />
          </g>
          <g aria-hidden="true">
            {node.lines.map((line, i) => (
              <text key={i} class={line.kind} x={line.x} y={line.y}>
                {line.text}
              </text>
            ))}
          </g>
        </g>
      ))}
    </svg>
  );
}

function toggle(name: string, chosen: string | undefined): void {
  choose({ node: name === chosen ? null : name, part: null });
}

function title({ name, used, missing }: PipelineNode): string {
  return `${name}${missing ? " (missing)" : used ? "" : " (not used)"}`;
}

/** The component, as what, and which part of it. */
function required({ source, requirement, subscription }: PipelineEdge): string {
  const part = subscription === null ? "" : ` (${[subscription].flat().join(", ")})`;
  return `${source}${requirement === source ? "" : ` as ${requirement}`}${part}`;
}

function Table({ of, chosen }: Shown): JSX.Element {
  return (
    <table class="components">
      <thead>
        <tr>
          {["component", "type", "variant", "requires (subscription)", "swept"].map((name) => (
            <th key={name}>{name}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {of.nodes.map((node) => (
          <tr key={node.name}>
            <td>
              <button type="button" class="plain" aria-pressed={node.name === chosen} onClick={() => toggle(node.name, chosen)}>
                {title(node)}
              </button>
            </td>
            <td>{node.type}</td>
            <td>{node.variant}</td>
            <td>
              {of.edges
                .filter(({ target }) => target === node.name)
                .map((edge, i) => (
                  <div key={i}>{required(edge)}</div>
                ))}
            </td>
            <td>
              {node.lines
                .filter(({ kind }) => kind === "swept")
                .map(({ text }) => (
                  <div key={text}>{text}</div>
                ))}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Chosen({ node, edges, name }: { node: PipelineNode; edges: readonly PipelineEdge[]; name: string }): JSX.Element {
  const requires = edges.filter(({ target }) => target === node.name).map(required);
  const by = edges.filter(({ source }) => source === node.name).map(({ target }) => target);
  const swept = Object.fromEntries(Object.entries(node.swept).map(([path, value]) => [path.replace(/^config\./, ""), value]));
  const facts: [string, string][] = [
    ["type", [node.type, node.variant].filter(Boolean).join(" · ")],
    ["requires", requires.join("; ")],
    ["required by", [...new Set(by)].join("; ")],
  ];
  const empty = typeof node.config !== "object" || node.config === null || !Object.keys(node.config).length;
  return (
    <section class="card stack" aria-label={`component ${node.name}`}>
      <div class="row spread">
        <h3>{title(node)}</h3>
        <button type="button" class="plain" aria-label="close" onClick={() => choose({ node: null, part: null })}>
          ✕
        </button>
      </div>
      <dl class="facts">
        {facts
          .filter(([, text]) => text)
          .map(([word, text]) => (
            <>
              <dt>{word}</dt>
              <dd>{text}</dd>
            </>
          ))}
      </dl>
      {empty ? <p class="muted">It has no configuration of its own.</p> : <ConfigTree of={node.config} name={`${name}_${node.name}`} param="part" swept={swept} />}
    </section>
  );
}

"""A model card as one HTML file that asks for nothing and runs nothing: to be read, printed and sent. Pure.

Imports errors, card_schema, card_blocks, card_svg, pipeline, pipeline_text.
"""

from __future__ import annotations

import re
from string import Template

from mlgym.errors import InputError
from mlgym.record.card_blocks import (
    Block,
    Distribution,
    Document,
    Facts,
    Folded,
    Graph,
    Heading,
    Matrix,
    Subheading,
    Table,
    Text,
    count,
    document,
)
from mlgym.record.card_schema import ModelCard
from mlgym.record.card_svg import chart, matrix, text
from mlgym.record.pipeline import pipeline
from mlgym.record.pipeline_text import svg

_ADDRESS = re.compile(r"https?://[^\s<>\"']{1,2000}")

_BESIDE = 14
"""Classes up to which there is room for a table beside the confusion matrix."""
_JOINT = re.compile(r"([_.](?=[A-Za-z])|[^\s_.&;<>]{20})")


def as_html(card: ModelCard) -> str:
    """The whole file."""
    found = document(card)
    return Template(_PAGE).substitute(
        title=text(f"{found.title}: model card"),
        heading=text(found.title),
        subtitle=text(found.subtitle),
        highlights="".join(
            f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in found.highlights
        ),
        contents=_contents(found),
        body="\n".join(_sections(found)),
        seq=card.model_details.seq,
    )


def _contents(found: Document) -> str:
    headings = [block for block in found.blocks if isinstance(block, Heading)]
    return "".join(f'<li><a href="#{one.anchor}">{text(one.text)}</a></li>' for one in headings)


def _sections(found: Document) -> list[str]:
    parts: list[str] = []
    before: Block | None = None
    for block in found.blocks:
        if isinstance(block, Heading):
            parts += ["</section>"] if parts else []
            parts.append(f'<section aria-labelledby="{block.anchor}"><h2 id="{block.anchor}">{text(block.text)}</h2>')
        elif isinstance(before, Matrix) and len(before.names) <= _BESIDE:
            parts[-1] = f'<div class="beside">{parts[-1]}{_block(block)}</div>'
        else:
            parts.append(_block(block))
        before = block
    return [*parts, "</section>"]


def _block(block: Block) -> str:
    match block:
        case Subheading():
            return f"<h3>{text(block.text)}</h3>"
        case Text():
            kind = ' class="muted"' if block.muted else ""
            return "".join(f"<p{kind}>{_linked(one)}</p>" for one in re.split(r"\n\s*\n", block.text.strip()))
        case Facts():
            rows = "".join(f"<dt>{text(name)}</dt><dd>{_linked(value)}</dd>" for name, value in block.rows)
            return f"<dl>{rows}</dl>"
        case Table():
            return _table(block)
        case Distribution():
            return _distribution(block)
        case Matrix():
            return f'<figure class="matrix">{matrix(block)}</figure>'
        case Folded():
            lines = "\n".join(text(line) for line in block.lines)
            return f"<details><summary>{text(block.title)}</summary><pre>{lines}</pre></details>"
        case Graph():
            return _graph(block)
        case list():
            figures = [f"<figure><figcaption>{text(one.title)}</figcaption>{chart(one)}</figure>" for one in block]
            return f'<div class="charts">{"".join(figures)}</div>'
    return ""


def _graph(of: Graph) -> str:
    """The picture, if it is not too large for one; the table comes after it anyway."""
    try:
        drawn = pipeline(of.config, of.swept)
    except InputError:
        return ""
    return f'<figure class="graph">{svg(drawn, inline=True)}</figure>'


def _linked(value: str) -> str:
    """An address that stands for itself can be followed; inside of other text it is text."""
    if _ADDRESS.fullmatch(value):
        return f'<a href="{text(value)}" rel="noopener noreferrer nofollow">{text(value)}</a>'
    return text(value)


def _table(of: Table) -> str:
    kinds = ["" if i < of.words else ' class="number"' for i in range(len(of.head))]
    head = "".join(f"<th scope='col'{kind}>{text(name)}</th>" for name, kind in zip(of.head, kinds, strict=True))
    rows = [
        "<tr>" + "".join(f"<td{kind}>{_cell(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in of.rows
    ]
    note = f'<p class="muted">{text(of.note)}</p>' if of.note else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{note}'
    )


def _cell(cell: str) -> str:
    """Long names may be broken where they have joints, and digests anywhere."""
    return f"<mark>{cell}</mark>" if cell == "swept" else _JOINT.sub(r"\1<wbr>", text(cell))


def _distribution(of: Distribution) -> str:
    head = "".join(f"<th scope='col'>{text(name)}</th>" for name in ("label", *of.splits))
    largest = max((one[1] for row in of.counts for one in row if one), default=1) or 1
    rows = []
    for label, row in zip(of.labels, of.counts, strict=True):
        cells = "".join(
            f'<td class="bar"><span style="width:{94 * one[1] / largest:.1f}%"></span>'
            f"<b>{count(one[0])}</b> <small>{one[1]:.1f}%</small></td>"
            if one
            else "<td class='bar'>-</td>"
            for one in row
        )
        rows.append(f"<tr><th scope='row'>{text(label)}</th>{cells}</tr>")
    note = f'<p class="muted">{text(of.note)}</p>' if of.note else ""
    table = f"<table class='bars'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{table}</div>{note}'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none';
  form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="mlgym">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #17202b; --soft: #5b6675; --rule: #dfe4ea; --wash: #f5f7fa; --accent: #1f66b3;
  --line-1: #1f6fbf; --line-2: #c8541b; --line-3: #1d8a5f; --line-4: #8a4fb0; --line-5: #a67a00; --line-6: #c23b6d;
  --heat: #1f6fbf; --heat-wrong: #c8541b; --on-heat: #ffffff;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11151b; --ink: #e6ebf1; --soft: #9aa6b5; --rule: #2b333e; --wash: #1a2029; --accent: #79b3f0;
    --line-1: #5aa7f0; --line-2: #f08a55; --line-3: #4cc796; --line-4: #c08ae6; --line-5: #d9ac33; --line-6: #f07ba8;
    --heat: #3d86d1; --heat-wrong: #d97742; --on-heat: #ffffff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); }
main, header, footer { max-width: 920px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 40px; }
h1 { font-size: 2.1rem; line-height: 1.15; margin: 0.15em 0; letter-spacing: -0.02em; overflow-wrap: anywhere; }
.kind { margin: 0; color: var(--accent); font-weight: 600; font-size: 0.8rem; letter-spacing: 0.08em;
  text-transform: uppercase; }
.subtitle { margin: 0 0 22px; color: var(--soft); overflow-wrap: anywhere; }
.highlights { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); gap: 1px; margin: 0;
  padding: 0;
  background: var(--rule); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.highlights div { background: var(--wash); padding: 12px 16px; display: flex; flex-direction: column-reverse;
  justify-content: flex-end; }
.highlights dt { color: var(--soft); font-size: 0.8rem; font-weight: 400; overflow-wrap: anywhere; }
.highlights dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 18px 0 0;
  font-size: 0.9rem; }
a { color: var(--accent); overflow-wrap: anywhere; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { margin-top: 38px; }
h2 { font-size: 1.3rem; margin: 0 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--rule);
  letter-spacing: -0.01em; }
h3 { font-size: 1rem; margin: 26px 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 10px; white-space: pre-line; overflow-wrap: anywhere; max-width: 72ch; }
.muted { color: var(--soft); font-size: 0.9rem; }
section > dl { display: grid; grid-template-columns: minmax(110px, 190px) 1fr; gap: 4px 20px; margin: 0 0 10px; }
dl > dt { color: var(--soft); }
dl > dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums;
  margin: 4px 0 6px; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: 600; }
thead th { white-space: nowrap; color: var(--soft); font-size: 0.82rem; border-bottom-color: var(--soft);
  overflow-wrap: normal; }
.number { text-align: right; white-space: nowrap; }
td:first-child, th:first-child { padding-left: 0; }
mark { background: color-mix(in srgb, var(--accent) 16%, transparent); color: var(--accent); border-radius: 4px;
  padding: 1px 7px;
  font-size: 0.8rem; font-weight: 600; white-space: nowrap; }
.bars td { position: relative; white-space: nowrap; min-width: 110px; }
.bars td span { position: absolute; left: 0; top: 3px; bottom: 3px; background: var(--line-1); opacity: 0.2;
  border-radius: 3px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bars b { font-weight: 500; position: relative; }
.bars small { position: relative; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 18px 24px; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: 0.9rem; font-weight: 600; margin-bottom: 4px; overflow-wrap: anywhere; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
.charts text, .matrix text { font: 11px system-ui, -apple-system, "Segoe UI", Arial, "DejaVu Sans", sans-serif;
  fill: var(--soft); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg circle { fill: var(--paper); stroke-width: 2; }
svg .grid { stroke: var(--rule); }
svg .axis { stroke: var(--soft); }
svg .key { stroke-width: 2.5; stroke-linecap: round; }
.beside { display: flex; flex-wrap: wrap; gap: 8px 32px; align-items: flex-start; }
.beside .matrix { flex: 0 1 auto; min-width: min(100%, 300px); }
.beside .scroll { flex: 1 1 330px; }
.matrix { margin: 10px 0 16px; }
.matrix text { fill: var(--ink); }
.matrix .right { fill: var(--heat); }
.matrix .wrong { fill: var(--heat-wrong); }
.matrix .on { fill: var(--on-heat); }
.graph { overflow-x: auto; margin: 6px 0 16px; }
.graph svg { max-width: 100%; width: auto; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--accent); }
pre { font-size: 0.8rem; line-height: 1.45; columns: 3 190px; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 48px; padding-top: 14px; padding-bottom: 40px; color: var(--soft); font-size: 0.85rem;
  border-top: 1px solid var(--rule); }
@media (max-width: 560px) {
  main, header, footer { padding-left: 16px; padding-right: 16px; }
  section > dl { grid-template-columns: 1fr; gap: 0; }
  section > dl dd { margin-bottom: 8px; }
}
@page { size: A4; margin: 16mm 15mm; }
@media print {
  :root { color-scheme: light; font-size: 9.5pt; --paper: #ffffff; --ink: #17202b; --soft: #56606d; --rule: #d5dbe2;
    --wash: #f5f7fa; --accent: #1f5a9c; --line-1: #1f6fbf; --line-2: #c8541b; --line-3: #1d8a5f; --line-4: #8a4fb0;
    --line-5: #a67a00; --line-6: #c23b6d; --heat: #1f6fbf; --heat-wrong: #c8541b; }
  main, header, footer { max-width: none; padding-left: 0; padding-right: 0; }
  header { padding-top: 0; }
  nav, details { display: none; }
  section { margin-top: 24px; }
  .scroll, .graph { overflow: visible; }
  h2, h3, h3 + .muted, figcaption { break-after: avoid; }
  tr, dt, dd, .highlights, figure { break-inside: avoid; }
  thead { display: table-header-group; }
  .highlights, .highlights div, mark { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  th, td { padding-top: 3px; padding-bottom: 3px; }
  .charts { grid-template-columns: 1fr 1fr; }
  .beside { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); break-inside: avoid; }
  a { color: inherit; }
}
</style>
</head>
<body>
<header>
<p class="kind">Model card</p>
<h1>$heading</h1>
<p class="subtitle">$subtitle</p>
<dl class="highlights">$highlights</dl>
<nav aria-label="contents"><ul>$contents</ul></nav>
</header>
<main>
$body
</main>
<footer>Made by mlgym from the event log as of event $seq. What is not stated or was not recorded is left out or
  said to be so.</footer>
</body>
</html>
"""

"""The graph of components as SVG, as Mermaid and as a table. Pure; of ours imports pipeline and report."""

from __future__ import annotations

import re
from html import escape

from mlgym.record.pipeline import FONT, SIZES, Edge, Node, Pipeline, part, taken
from mlgym.record.report import aligned

COLOURS = {"data": "#3987c9", "model": "#d08700", "training": "#2e9e73", "evaluation": "#b5679b", "other": "#8a8f98"}
"""The stripe at the left of a box, by its group; seen on white and on black. The dashboard's are the same."""

_STYLES = {
    "name": 'font-weight="600"',
    "type": 'opacity=".75"',
    "variant": 'opacity=".75"',
    "swept": 'font-weight="600" font-style="italic"',
}
_LABEL = 'text-anchor="end" opacity=".85"'
_NO_XML = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]"
)
"""What XML cannot hold, and what turns the direction of the text after it."""
_THEME = (
    "<style>:root{color:#17202b;background:#fff;max-width:100%;height:auto}"
    "@media (prefers-color-scheme:dark){:root{color:#e6ebf1;background:#11151b}}"
    "@media print{:root{color:#000;background:none}}</style>"
)


def svg(of: Pipeline, title: str = "Components and what they require", *, inline: bool = False) -> str:
    """The picture: no scripts, no links, no fonts of its own, text as text.

    `inline`: to stand in a page, in the colour of the page's text and without a style sheet; else a file of its own,
    which has a dark side as well. A page gives it `max-width: 100%; height: auto`, as the file does itself.
    """
    alone = "" if inline else _THEME
    width, height = f"{of.width:g}", f"{of.height:g}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{_xml(title)}" font-family="{_xml(FONT)}" fill="currentColor">',
        f"<title>{_xml(title)}</title><desc>{_xml(sentence(of))}</desc>{alone}",
        '<g fill="none" stroke="currentColor" stroke-width="1.2" opacity=".6">',  # together: arrows share ways
        *map(_edge, of.edges),
        "</g>",
        *(_write(edge.label, edge.x, edge.y, SIZES["label"], _LABEL) for edge in of.edges if edge.path and edge.label),
        *map(_node, of.nodes),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def sentence(of: Pipeline) -> str:
    """What there is, for those who do not see it."""
    used = sum(node.used for node in of.nodes)
    left_out = f", {len(of.nodes) - used} of them not used" if used < len(of.nodes) else ""
    edges = "; ".join(
        f"{edge.target} requires {edge.source}" + (f" ({edge.label})" if edge.label else "") for edge in of.edges
    )
    return f"{len(of.nodes)} components{left_out}. {edges}"


def _edge(edge: Edge) -> str:
    if not edge.path:
        return ""
    what = f"{edge.target} requires {edge.source} as {edge.requirement}"
    if edge.subscription is not None:
        what += f": {part(edge.subscription)}"
    head = f'<path d="{edge.head}" fill="currentColor" stroke="none"/>'
    return f'<g><title>{_xml(what)}</title><path d="{edge.path}"/>{head}</g>'


def _node(node: Node) -> str:
    x, y, width, height = node.x, node.y, node.width, node.height
    state = "missing" if node.missing else "" if node.used else "not used"
    dashed = "" if node.used and not node.missing else ' stroke-dasharray="4 3"'
    faint = "" if node.used else ' opacity=".65"'
    what = " ".join(filter(None, (node.name, node.type, node.variant, state and f"({state})")))
    return (
        f"<g{faint}><title>{_xml(what)}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
        f'fill-opacity=".05" stroke="currentColor" stroke-opacity=".55"{dashed}/>'
        f'<rect x="{x + 4:g}" y="{y + 7:g}" width="3" height="{height - 14:g}" rx="1.5" fill="{COLOURS[node.group]}"/>'
        + "".join(_write(line.text, line.x, line.y, SIZES[line.kind], _STYLES[line.kind]) for line in node.lines)
        + "</g>"
    )


def _write(text: str, x: float, y: float, size: float, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" {style}>{_xml(text)}</text>'


def _xml(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))


# --- Mermaid ------------------------------------------------------------------------------------------------


def mermaid(of: Pipeline) -> str:
    """A flowchart that Mermaid draws, in Markdown on code hosts for example."""
    number = {node.name: i for i, node in enumerate(of.nodes)}
    lines = ["flowchart LR"]
    for node in of.nodes:
        below = " · ".join(filter(None, (node.type, node.variant)))
        swept = [line.text for line in node.lines if line.kind == "swept"]
        text = "<br/>".join(_entities(part) for part in (node.name, below, *swept) if part)
        lines.append(f'    n{number[node.name]}["{text or " "}"]')
    for edge in of.edges:
        label = f'|"{_entities(part(edge.subscription))}"|' if edge.label else ""
        lines.append(f"    n{number[edge.source]} -->{label} n{number[edge.target]}")
    if unused := [f"n{number[node.name]}" for node in of.nodes if not node.used or node.missing]:
        lines += ["    classDef unused stroke-dasharray: 4 3,opacity:0.65", f"    class {','.join(unused)} unused"]
    return "\n".join(lines) + "\n"


def _entities(text: str) -> str:
    """Nothing that Mermaid, or the Markdown or HTML in its labels, could take for more than a letter."""
    text = _NO_XML.sub("\ufffd", " ".join(text.split())).replace("$$", "$ $")  # a formula, also when spelled otherwise
    return re.sub(r"[^\w ,:·…-]|(?<!\w)_|_(?!\w)|^-", lambda match: f"#{ord(match[0])};", text)


# --- table --------------------------------------------------------------------------------------------------


def rows(of: Pipeline) -> list[list[str]]:
    """Component, type, variant, what it requires (with its subscription), what is swept; the first row says so."""
    found = [["component", "type", "variant", "requires", "swept"]]
    for node in of.nodes:
        requires = [
            edge.source
            + (f" as {edge.requirement}" if edge.requirement != edge.source else "")
            + (f" ({part(edge.subscription)})" if edge.subscription is not None else "")
            for edge in of.edges
            if edge.target == node.name
        ]
        found.append(
            [
                node.name + ("" if node.used else " (not used)") + (" (missing)" if node.missing else ""),
                node.type,
                node.variant,
                "; ".join(requires),
                "; ".join(f"{path}: {taken(value)}" for path, value in node.swept.items()),
            ]
        )
    return found


def table(of: Pipeline) -> str:
    """That as text in columns."""
    found = [[re.sub(r"\s+", " ", _NO_XML.sub("\ufffd", cell)) for cell in row] for row in rows(of)]
    return "\n".join(aligned(found)) + "\n"

"""The components of a configuration as a graph to be drawn: what each is, what it requires, and where it goes. Pure.

The arrows run from a component to those that require it, as the data do. Imports errors, specs, and of this room report
(how a swept value is shown) and layered (where things go).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlgym.errors import InputError
from mlgym.record.layered import Arrow, layout
from mlgym.record.report import shown
from mlgym.specs import ROOTS, SECTIONS

MAX_COMPONENTS = 500
MAX_REQUIREMENTS = 5_000

FONT = 'system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
SIZES = {"name": 13.0, "type": 10.5, "variant": 10.5, "swept": 10.5, "label": 10.5}
"""Pixels of each kind of text."""
HEAD = 7.0
"""Pixels that the head of an arrow is long."""

_LINE = {"name": 18.0, "type": 15.0, "variant": 15.0, "swept": 15.0}
_PADDING = (14.0, 8.0)
_PORT = 17.0
_MAX_WIDTH = 270.0
_MAX_LABEL = 150.0
_MAX_SWEPT = 4
_MAX_LETTERS = 300
"""No more of a text are looked at: a log may hold a name of megabytes."""
_MARGIN = 8.0


class Sweep(NamedTuple):
    """What stands for the value of a parameter that has not been taken yet: one of so many."""

    values: int


class Line(NamedTuple):
    """A text in a box: what it is (`name`, `type`, `variant` or `swept`), and where in the picture it begins."""

    kind: str
    text: str
    x: float
    y: float


class Node(NamedTuple):
    """A component. `swept` maps the paths of what is swept, from the component on, to the value taken or a `Sweep`.

    `used`: the engine asks for it, or something that is used requires it; others are not built. `missing`: it is
    required, and there is none. `group` is what its type has to do with: data, model, training, evaluation or other.
    """

    name: str
    type: str
    variant: str
    config: Any
    swept: dict[str, Any]
    used: bool
    missing: bool
    group: str
    x: float
    y: float
    width: float
    height: float
    lines: list[Line]


class Edge(NamedTuple):
    """`target` requires `source` (names of nodes) as `requirement`; `subscription`: what it takes of it, None for all.

    `label` is that in short, right-aligned at `x`, `y`. `path` and `head` are what SVG takes for a path; empty for a
    requirement that closes a circle, which no component that is built can do.
    """

    source: str
    target: str
    requirement: str
    subscription: Any
    label: str
    x: float
    y: float
    path: str
    head: str


class Pipeline(NamedTuple):
    """The picture, in pixels."""

    width: float
    height: float
    nodes: list[Node]
    edges: list[Edge]


def pipeline(config: Any, swept: Mapping[str, Any] | None = None) -> Pipeline:
    """The graph of a configuration, expanded or not; `swept` maps dotted paths in it to the value taken or a `Sweep`.

    What is no component is passed over: a log may hold anything. Raises `InputError` for more than anybody could read.
    """
    components = {
        str(name): entry
        for name, entry in (config.items() if isinstance(config, Mapping) else ())
        if isinstance(entry, Mapping) and name not in SECTIONS
    }
    required = {name: _requirements(entry) for name, entry in components.items()}
    missing = dict.fromkeys(other for found in required.values() for _, other, _ in found if other not in components)
    used = _used(required)
    names = sorted([*components, *missing], key=lambda name: name not in used)  # stable: as written otherwise
    count = sum(map(len, required.values()))
    if len(names) > MAX_COMPONENTS or count > MAX_REQUIREMENTS:
        raise InputError(
            f"{len(names):,} components with {count:,} requirements are too many to draw; "
            f"at most {MAX_COMPONENTS:,} with {MAX_REQUIREMENTS:,}"
        )
    number = {name: i for i, name in enumerate(names)}
    requirements = [
        (other, name, requirement, subscription)
        for name in names
        for requirement, other, subscription in required.get(name, ())
    ]
    of = {name: _swept(name, swept or {}) for name in names}
    texts = [_texts(name, components.get(name), of[name]) for name in names]
    ports = [len(required.get(name, ())) for name in names]
    labels = [fit(part(subscription), "label", _MAX_LABEL) for *_, subscription in requirements]
    found = layout(
        [_size(lines, count) for lines, count in zip(texts, ports, strict=True)],
        [
            Arrow(number[source], number[target], measure(label, "label") + 8 if label else 0)
            for (source, target, _, _), label in zip(requirements, labels, strict=True)
        ],
    )
    nodes = []
    for name, lines, (x, y, width, height) in zip(names, texts, found.boxes, strict=True):
        entry = components.get(name, {})
        type_, variant = _text(entry.get("component_type_key")), _text(entry.get("variant_key"))
        x, y = x + _MARGIN, y + _MARGIN  # noqa: PLW2901
        nodes.append(
            Node(
                name=name,
                type=type_,
                variant=variant,
                config=entry.get("config", {}),
                swept=of[name],
                used=name in used,
                missing=name in missing,
                group=_group(type_),
                x=round(x, 1),
                y=round(y, 1),
                width=round(width, 1),
                height=round(height, 1),
                lines=_lines(lines, x, y, height),
            )
        )
    edges = []
    for required_, label, route in zip(requirements, labels, found.routes, strict=True):
        points = [(x + _MARGIN, y + _MARGIN) for x, y in route]
        x, y = points[-1] if points else (0.0, 0.0)
        path, head = (_path(points), f"M{x:.1f} {y:.1f}l{-HEAD:g} -4v8z") if points else ("", "")
        edges.append(Edge(*required_, label, round(x - HEAD - 3, 1), round(y - 4, 1), path, head))
    return Pipeline(round(found.width + 2 * _MARGIN, 1), round(found.height + 2 * _MARGIN, 1), nodes, edges)


def as_json(of: Pipeline) -> dict[str, Any]:
    """The graph as plain data; a `Sweep` becomes `{"sweep": how many values}`."""
    return {
        "width": of.width,
        "height": of.height,
        "nodes": [
            {
                **node._asdict(),
                "swept": {
                    path: {"sweep": value.values} if isinstance(value, Sweep) else value
                    for path, value in node.swept.items()
                },
                "lines": [line._asdict() for line in node.lines],
            }
            for node in of.nodes
        ],
        "edges": [edge._asdict() for edge in of.edges],
    }


# --- what is required ---------------------------------------------------------------------------------------


def _requirements(entry: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Name, component and subscription of each."""
    found = entry.get("requirements")
    return [
        (_text(one.get("name")), str(one["component_name"]), one.get("subscription"))
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, Mapping) and one.get("component_name") is not None
    ]


def _used(required: Mapping[str, list[tuple[str, str, Any]]]) -> set[str]:
    found: set[str] = set()
    waiting = [name for name in ROOTS if name in required]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for _, other, _ in required.get(name, ())]
    return found


def _swept(name: str, swept: Mapping[str, Any]) -> dict[str, Any]:
    """What is swept in a component, by path from there on."""
    return {path[len(name) + 1 :]: value for path, value in swept.items() if path.startswith(f"{name}.")}


_GROUPS = (
    ("model", r"^MODEL"),
    ("evaluation", r"EVAL|METRIC"),
    ("data", r"DATA|ITERATOR|COLLATOR|LOADER"),
    ("training", r"TRAIN|OPTIMIZER|SCHEDULER|LOSS|STOPPING|CHECKPOINT"),
)


def _group(type_: str) -> str:
    return next((group for group, pattern in _GROUPS if re.search(pattern, type_.upper())), "other")


# --- what is written ----------------------------------------------------------------------------------------


def _texts(name: str, entry: Mapping[str, Any] | None, swept: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and text of each line in a box, short enough for it."""
    lines = [("name", name)]
    if entry is None:
        lines.append(("type", "there is no such component"))
    else:
        lines += [("type", _text(entry.get("component_type_key"))), ("variant", _text(entry.get("variant_key")))]
    values = [f"{short(path)}: {taken(value)}" for path, value in swept.items()]
    more = len(values) - _MAX_SWEPT + 1
    lines += [("swept", text) for text in (values if more < 2 else [*values[:-more], f"and {more} more"])]
    return [(kind, fit(text, kind, _MAX_WIDTH - 2 * _PADDING[0])) for kind, text in lines if text]


def taken(value: Any) -> str:
    """A swept value, or how many there are."""
    return f"sweep of {value.values}" if isinstance(value, Sweep) else shown(value)


def short(path: str) -> str:
    """The end of a swept path that says what it is: `lr` of `config.params.lr`, `betas.0` of `config.betas.0`."""
    parts = path.split(".")
    length = next((k for k in range(1, len(parts) + 1) if not parts[-k].isdigit()), len(parts))
    return ".".join(parts[-length:])


def part(subscription: Any) -> str:
    """What a subscription takes; nothing for all."""
    if subscription is None:
        return ""
    return ", ".join(map(str, subscription)) if isinstance(subscription, list) else str(subscription)


def _text(value: Any) -> str:
    """Anything as one line."""
    return "" if value is None else " ".join(str(value).split())


def _size(lines: list[tuple[str, str]], ports: int) -> tuple[float, float]:
    width = max((measure(text, kind) for kind, text in lines), default=0.0) + 2 * _PADDING[0]
    height = sum(_LINE[kind] for kind, _ in lines) + 2 * _PADDING[1]
    return max(110.0, width), max(height, _PORT * ports + 6)


def _lines(lines: list[tuple[str, str]], x: float, y: float, height: float) -> list[Line]:
    """In the middle of the box, from above."""
    at = y + (height - sum(_LINE[kind] for kind, _ in lines)) / 2
    found = []
    for kind, text in lines:
        at += _LINE[kind]
        found.append(Line(kind, text, round(x + _PADDING[0], 1), round(at - 4.5, 1)))
    return found


def _path(route: list[tuple[float, float]]) -> str:
    """Straight across columns, a curve from one to the next. It ends within the head, which is wider than the line."""
    end, down = route[-1]
    (x, y), *rest = [*route[:-1], (end - HEAD + 1, down)]
    found = [f"M{x:.1f} {y:.1f}"]
    for i, (to, at) in enumerate(rest):
        middle = (x + to) / 2
        found.append(f"H{to:.1f}" if i % 2 else f"C{middle:.1f} {y:.1f} {middle:.1f} {at:.1f} {to:.1f} {at:.1f}")
        x, y = to, at
    return "".join(found)


# --- how wide text is ---------------------------------------------------------------------------------------

_EMS = {
    c: width
    for width, letters in (
        (0.36, "iljI.,:;'|-"),
        (0.46, 'ftr()[]/\\ !"J'),
        (0.54, "`*?_"),
        (0.84, "<>=+~#^w"),
        (0.79, "DGHNOQU&"),
        (1.0, "mMW@%…"),
    )
    for c in letters
}
"""How wide letters are, in parts of the font's size; those that are not named: see `measure`."""


def measure(text: str, kind: str) -> float:
    """About as many pixels as the widest of usual fonts (DejaVu Sans) needs: nobody knows which one will draw it."""
    ems = 0.0
    for c in text:
        if c in _EMS:
            ems += _EMS[c]
        elif unicodedata.combining(c):
            continue
        elif unicodedata.east_asian_width(c) in "WF":
            ems += 1.05
        else:
            ems += 0.72 if c.isupper() else 0.64 if c.isascii() else 0.8
    return ems * SIZES[kind] * (1.13 if kind in ("name", "swept") else 1.0)


def fit(text: str, kind: str, width: float) -> str:
    """`text` on one line, cut to so many pixels."""
    text = _text(text)[:_MAX_LETTERS]
    if measure(text, kind) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[:middle] + "…", kind) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"

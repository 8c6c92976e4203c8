"""Write docs/components.md from the registry: signatures, docstrings and the examples of docs/components.yml.

`python -m docs.make_components`; a test fails when the page differs from what this writes.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlgym.build.catalog import built_in
from mlgym.build.registry import Registry
from mlgym.plan.config import read
from mlgym.schema import parameters

HERE = Path(__file__).parent
EXAMPLES = HERE / "components.yml"
PAGE = HERE / "components.md"

INTRODUCTION = """# Components

Written by `docs/make_components.py` from the registry and `docs/components.yml`, whose examples a test builds. A value
after `=` is the default; a `seed` that is left out is derived from the run's seed and the component's name. What a
component requires stands in brackets; a registry that it requires is given to it when no requirement names it.
"""


def page() -> str:
    """The whole page."""
    registry = built_in()
    examples = _examples()
    text = [INTRODUCTION]
    for (type_key, variant), builder in registry.components().items():
        name = f"{type_key} / {variant}"
        text += [f"## {name}", "", *_reference(builder, brackets=True)]
        if name in examples:
            text += ["```yaml", examples[name], "```", ""]
    for table_name, table in registry.tables.items():
        if not len(table):
            continue
        kind = table.kind[0].upper() + table.kind[1:]
        text += [f"# {kind}: names", ""]
        for name in table:
            text += [f"## {name}", "", *_reference(table[name], brackets=False)]
            if f"{table_name}: {name}" in examples:
                text += ["```yaml", examples[f"{table_name}: {name}"], "```", ""]
    return "\n".join(text).rstrip() + "\n"


def _examples() -> dict[str, str]:
    """The text below each top-level key of components.yml, indented no more."""
    text = read(EXAMPLES).text
    parts = re.findall(r'^"(.+)": ?(.*(?:\n(?!["#]).*)*)', text, flags=re.MULTILINE)
    return {name: "\n".join(line.removeprefix("  ") for line in body.strip("\n").splitlines()) for name, body in parts}


def _reference(builder: Callable[..., Any], brackets: bool) -> list[str]:
    known = parameters(builder)
    requires = [n for n, p in known.items() if p.kind is p.POSITIONAL_OR_KEYWORD] if brackets else []
    configured = {n: p for n, p in known.items() if n not in requires and p.kind is not p.VAR_KEYWORD}
    if any(p.kind is p.VAR_KEYWORD for p in known.values()) and brackets:
        requires.append("any number, by name")
    lines = []
    if requires:
        lines += [f"[{', '.join(requires)}]", ""]
    doc = inspect.getdoc(builder)
    if doc and (builder.__module__ or "").startswith("mlgym"):
        lines += [doc, ""]
    elif (builder.__module__ or "").startswith("torch"):
        lines += [f"`{builder.__module__}.{builder.__qualname__}`: see torch's documentation.", ""]
    rows = [f"- `{name}: {_type(p.annotation)}`{_default(p)}" for name, p in configured.items()]
    return [*lines, *rows, ""] if rows else lines


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ""
    value = parameter.default
    return f" = `{value.__name__ if isinstance(value, type) else 'null' if value is None else value}`"


def _type(annotation: Any) -> str:
    """A type as one would say it of YAML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or annotation is inspect.Parameter.empty:
        return "any"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if hasattr(annotation, "__struct_fields__"):
        hints = typing.get_type_hints(annotation)
        return "{" + ", ".join(f"{name}: {_type(hints[name])}" for name in annotation.__struct_fields__) + "}"
    if origin is not None:
        return getattr(origin, "__name__", str(origin)).lower()
    return str(getattr(annotation, "__name__", annotation))


def undocumented(registry: Registry) -> list[str]:
    """Components without an example."""
    examples = _examples()
    names = [f"{type_key} / {variant}" for type_key, variant in registry.components()]
    names += [f"{table}: {name}" for table, entries in registry.tables.items() for name in entries]
    return [name for name in names if name not in examples]


if __name__ == "__main__":
    PAGE.write_text(page())

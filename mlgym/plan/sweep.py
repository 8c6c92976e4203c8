"""Sweeps: one configuration with `{sweep: ...}` nodes becomes the list of all its points. Pure.

A sweep node is one axis, its list the values of that axis; the grid is the product of all axes in the order
written, the last one fastest. A sweep inside a sweep's value adds its own cells to the list of the outer one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from mlgym.errors import ConfigError, ConfigPath, one_of
from mlgym.plan.config import components
from mlgym.plan.folds import Part
from mlgym.record.events import plain
from mlgym.schema import bind

MAX_CELLS = 1_000_000
MAX_VALUES = 100_000


class Cell(NamedTuple):
    """One point of the grid.

    `swept` maps each axis to the value taken, in the order written; `sources` maps a path in `config` to the
    path of the same value in the file, for error messages.
    """

    config: Any
    swept: dict[ConfigPath, Any]
    sources: dict[ConfigPath, ConfigPath]
    combination: int = 0
    """Its number among the points that differ in more than a fold or a seed."""
    part: Part | None = None
    seed: int | None = None

    @property
    def hash(self) -> str:
        """What tells the experiment from all others, in this grid and any other."""
        return config_hash(self.config, self.part and self.part.name, self.seed)

    @property
    def values(self) -> list[tuple[ConfigPath, Any]]:
        """What tells its combination from others: the values of all axes but folds and seeds."""
        return [(path, value) for path, value in self.swept.items() if len(path) > 1]

    def source(self, path: ConfigPath) -> ConfigPath:
        """Where the value at `path` of the expanded configuration stands in the file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.sources:
                return self.sources[path[:length]] + path[length:]
        return path


# --- sweep nodes --------------------------------------------------------------------------------------------


def _absolute(*, values: list[Any]) -> list[Any]:
    return values


def _range(*, stop: int | float, start: int | float = 0, step: int | float = 1) -> list[Any]:
    if step == 0:
        raise ConfigError("must not be 0", ("step",))
    count = math.ceil((stop - start) / step)
    _refuse_length(count, "step")
    return [_round(start + i * step) for i in range(count)]


def _linspace(*, start: float, stop: float, num: int) -> list[Any]:
    _refuse_length(num, "num")
    return [_round(start + (stop - start) * i / max(num - 1, 1)) for i in range(num)]


def _logspace(*, start: float, stop: float, num: int, base: float = 10) -> list[Any]:
    try:
        return [float(f"{base**exponent:.15g}") for exponent in _linspace(start=start, stop=stop, num=num)]
    except (OverflowError, TypeError, ValueError, ZeroDivisionError):
        raise ConfigError(f"base {base} to the powers {start} to {stop} are not all numbers") from None


def _refuse_length(count: int, key: str) -> None:
    if count > MAX_VALUES:
        raise ConfigError(f"gives {count:,} values; at most {MAX_VALUES:,} are taken", (key,))


def _round(value: float) -> float:
    """Without the last bits that adding steps leaves behind: 0.3, not 0.30000000000000004."""
    return value if isinstance(value, int) else float(f"{value:.15g}")


_KINDS: dict[str, Callable[..., list[Any]]] = {
    "absolute": _absolute,
    "range": _range,
    "linspace": _linspace,
    "logspace": _logspace,
}


def _values(node: dict[str, Any]) -> list[Any]:
    """The values of a sweep node, sweeps inside them not yet expanded."""
    kind = node["sweep"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(f"unknown sweep {kind!r}; {one_of(kind, _KINDS)}", ("sweep",))
    arguments = bind(_KINDS[kind], {key: value for key, value in node.items() if key != "sweep"})
    for key, value in arguments.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"must be finite, not {value}", (key,))
    try:
        values = _KINDS[kind](**arguments)
    except OverflowError:
        raise ConfigError("the bounds are too far apart") from None
    if kind != "absolute" and not all(math.isfinite(value) for value in values):
        raise ConfigError("not all its values are finite numbers")
    if not values:
        raise ConfigError("the sweep has no values", ("values",) if kind == "absolute" else ())
    return values


# --- expansion ----------------------------------------------------------------------------------------------


def _alternatives(node: Any, path: ConfigPath, source: ConfigPath) -> list[Cell]:
    """All cells of the subtree `node`, which stands at `path` of the result and at `source` of the file."""
    if isinstance(node, dict) and "sweep" in node:
        try:
            values = _values(node)
        except ConfigError as error:
            raise error.inside(*source) from None
        cells = []
        for i, value in enumerate(values):
            inner = (*source, "values", i) if node["sweep"] == "absolute" else source
            for cell in _alternatives(value, path, inner):
                cells.append(Cell(cell.config, {path: cell.config}, {path: inner, **cell.sources}))
            _refuse_product([cells])
        return cells
    items: list[tuple[Any, Any]]
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    else:
        return [Cell(node, {}, {})]
    axes = [_alternatives(value, (*path, key), (*source, key)) for key, value in items]
    if not any(cell.swept for cells in axes for cell in cells):
        return [Cell(node, {}, {})]
    _refuse_product(axes)
    return [_joined(node, items, row) for row in itertools.product(*axes)]


def _refuse_product(axes: list[list[Cell]]) -> None:
    count = math.prod(map(len, axes))
    if count > MAX_CELLS:
        raise ConfigError(f"the grid has {count:,} experiments; at most {MAX_CELLS:,} are taken")


def _joined(node: Any, items: list[tuple[Any, Any]], row: tuple[Cell, ...]) -> Cell:
    swept: dict[ConfigPath, Any] = {}
    sources: dict[ConfigPath, ConfigPath] = {}
    for cell in row:
        swept |= cell.swept
        sources |= cell.sources
    values = [cell.config for cell in row]
    config = dict(zip((key for key, _ in items), values, strict=True)) if isinstance(node, dict) else values
    return Cell(config, swept, sources)


def expand(grid_search_config: Any) -> list[Cell]:
    """All points of the grid that a grid search config describes, in order.

    Sweeps are looked for under the `config` of every component. Cells share the parts in which they do not
    differ: treat them as frozen. Raises `ConfigError` for a sweep that is malformed.
    """
    names = components(grid_search_config)
    axes = []
    for name, component in names.items():
        if isinstance(component, dict) and "config" in component:
            configs = _alternatives(component["config"], (name, "config"), (name, "config"))
            axes.append([Cell({**component, "config": c.config}, c.swept, c.sources) for c in configs])
        else:
            axes.append([Cell(component, {}, {})])
    _refuse_product(axes)
    items = list(names.items())
    return [_joined(names, items, row) for row in itertools.product(*axes)]


# --- identity -----------------------------------------------------------------------------------------------


def config_hash(config: Any, fold: str | None = None, repeat: int | None = None) -> str:
    """16 hex digits that stay the same as long as configuration, fold and seed do, whatever else the grid holds."""
    text = json.dumps(
        {"config": plain(config), "fold": fold, "repeat": repeat},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]

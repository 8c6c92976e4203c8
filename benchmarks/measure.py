"""Taking turns, medians, and the machine in a line."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

from mlgym.engine.provenance import _processor


@dataclass
class Result:
    """The measurements of one variant, in `unit`."""

    name: str
    unit: str
    values: list[float]
    goal: str = ""

    def line(self) -> str:
        return f"{self.name}: {self.median:.4g} {self.unit}" + (f" (goal: {self.goal})" if self.goal else "")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def row(self) -> str:
        spread = f"{min(self.values):.4g} to {max(self.values):.4g}"
        return f"| {self.name} | {self.median:.4g} {self.unit} | {spread} | {len(self.values)} | {self.goal} |"

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def in_turns(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round; a first round is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, function in variants.items():
            start = time.perf_counter()
            function()
            if round_:
                taken[name].append(time.perf_counter() - start)
    return taken


def ratios(taken: dict[str, list[float]], name: str, base: str) -> list[float]:
    """`name` over `base`, round by round."""
    return [a / b for a, b in zip(taken[name], taken[base], strict=True)]


def machine() -> str:
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"

"""Meet mistakes before anything is written: build a few experiments, evaluate one batch and take one step in each."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mlgym.errors import DamagedError, MLgymError
from mlgym.plan.config import required
from mlgym.plan.sweep import Cell
from mlgym.record.checkpoint_folder import verified
from mlgym.specs import ComponentSpec, ExperimentSpec

if TYPE_CHECKING:
    import torch

    from mlgym.build.registry import Registry
    from mlgym.parts.backend import Backend

_DATA = ("DATASET_REPOSITORY", "DATASET_ITERATORS")


class Checked(NamedTuple):
    """What a check met: the first mistake in the configuration, and exceptions of the experiments' own code."""

    error: MLgymError | None = None
    experiment_id: int = -1
    """Where `error` is."""
    own: Sequence[tuple[int, str]] = ()
    """(experiment_id, stack trace)"""
    modules: Sequence[str] = ()
    """What had to be imported."""
    scores: Sequence[str] = ()
    """`split/tag` of what is evaluated."""


def check(specs: list[ExperimentSpec], registry: Registry, on: torch.device | Callable[[], Backend]) -> Checked:
    """Try each of `specs` once, up to the first mistake, on a device or on a backend made for it.

    An exception that is not an `MLgymError` is the experiment's own: the others can still run.
    """
    from mlgym.engine import experiment
    from mlgym.engine.training_state import restore

    own: list[tuple[int, str]] = []
    scores: dict[str, None] = {}
    for spec in specs:
        try:
            parts = experiment.build(spec, registry, on() if callable(on) else on)
            experiment.try_once(parts)
            scores |= dict.fromkeys(parts.evaluator.component.score_keys)
            if spec.start:  # after the step: at the end of a training there may be none left
                with suppress(DamagedError):  # its job will use the one before it
                    verified(spec.start)
                    restore(parts, spec.start)
        except MLgymError as error:
            return Checked(error, spec.experiment_id, own)
        except (Exception, SystemExit):
            own.append((spec.experiment_id, traceback.format_exc()))
    return Checked(own=own, scores=list(scores))


def covering(cells: Mapping[int, Cell]) -> list[int]:
    """The ids of a few cells in which every value of every sweep occurs."""
    seen: set[tuple[object, str]] = set()
    chosen: list[int] = []
    for i, cell in cells.items():
        values = {(path, repr(value)) for path, value in cell.values}
        if not chosen or not values <= seen:
            seen |= values
            chosen.append(i)
    return chosen


def before_a_run(cells: Mapping[int, Cell], at_most: int = 16) -> list[int]:
    """The cells to check: the first of `covering`, and one for each way in which the grid reads its data.

    So what many jobs share is downloaded and prepared once, before they start.
    """
    chosen = covering(cells)[:at_most]
    seen: set[str] = set()
    for i in [*chosen, *cells]:
        data = _data(cells[i])
        if data not in seen:
            seen.add(data)
            if i not in chosen:
                chosen.append(i)
    return chosen


def _data(cell: Cell) -> str:
    """The components that read data sets (they require no other data), as text."""
    used = required(cell.config)

    def reads(spec: ComponentSpec) -> bool:
        above = (used[requirement.component_name].component_type_key for requirement in spec.requirements)
        return spec.component_type_key in _DATA and "DATASET_ITERATORS" not in above

    return json.dumps({name: spec.config for name, spec in used.items() if reads(spec)}, default=repr)

"""What each fold is tested on: the component that a validation config names is built, and its split divided."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mlgym.errors import ConfigError, ConfigPath, InputError, MLgymError, one_of
from mlgym.plan import folds
from mlgym.plan.config import required
from mlgym.plan.experiments import Folds
from mlgym.plan.folds import CrossValidation, CrossValidationConfig, Data, NestedCrossValidation
from mlgym.specs import ExperimentSpec

if TYPE_CHECKING:
    from mlgym.build.registry import Registry


class Divided(NamedTuple):
    """The folds, or why there are none: a mistake in the validation config or, with `experiment_id`, in the grid."""

    folds: Folds | None = None
    error: MLgymError | None = None
    experiment_id: int | None = None


def divide(specs: list[ExperimentSpec], wanted: CrossValidation | NestedCrossValidation, registry: Registry) -> Divided:
    """Divide the data as each of `specs` has them; they must all come out alike."""
    from mlgym.build.graph import Graph
    from mlgym.parts.seeds import derive

    found: Folds | None = None
    for spec in specs:
        try:
            graph = Graph(required(spec.config, [wanted.iterator_key]), registry, spec.seed)
            splits = graph[wanted.iterator_key]
        except MLgymError as error:
            return Divided(error=error, experiment_id=spec.experiment_id)
        except Exception:
            return Divided(error=InputError(f"{wanted.iterator_key} cannot be built:\n{traceback.format_exc()}"))
        try:
            data = _facts(splits, wanted)
            try:
                here = Folds(data.samples, folds.split(wanted, data, derive(spec.seed, "validation")))
            except ConfigError as error:
                raise error.inside("config") from None
            if found and found != here:
                raise ConfigError(
                    "the folds would differ between experiments, because what is swept changes the data",
                    ("iterator_key",),
                )
        except MLgymError as error:
            return Divided(error=error)
        except Exception:  # of the user's data set
            return Divided(error=InputError(f"{wanted.iterator_key} cannot be read:\n{traceback.format_exc()}"))
        found = here
    return Divided(found)


def _facts(splits: Any, wanted: CrossValidation | NestedCrossValidation) -> Data:
    if not isinstance(splits, Mapping):
        raise ConfigError(f"{wanted.iterator_key!r} has no splits", ("iterator_key",))
    if wanted.split_key not in splits:
        raise ConfigError(
            f"{wanted.iterator_key!r} has no split {wanted.split_key!r}; {one_of(wanted.split_key, splits)}",
            ("split_key",),
        )
    dataset = splits[wanted.split_key]
    config = wanted.config
    stratified = (
        config.stratification
        if isinstance(config, CrossValidationConfig)
        else config.inner_stratification or config.outer_stratification
    )
    labels = _values(dataset, config.target_pos, ("config", "target_pos")) if stratified else None
    groups = config.groups
    if isinstance(groups, int):
        groups = _values(dataset, groups, ("config", "groups"))
    elif groups is not None and len(groups) != len(dataset):
        raise ConfigError(
            f"there are {len(groups)} groups for the {len(dataset)} samples of {wanted.split_key!r}",
            ("config", "groups"),
        )
    return Data(len(dataset), labels, groups)


def _values(dataset: Any, position: int, where: ConfigPath) -> list[Any]:
    """What stands at `position` of each item, each a single value."""
    from mlgym.parts.datasets import Columns, labels

    item = dataset[0] if len(dataset) else ()
    if not isinstance(item, tuple | list) or position >= len(item):
        size = len(item) if isinstance(item, tuple | list) else 1
        raise ConfigError(f"an item has the places 0 to {size - 1}, not {position}", where)
    _value(item[position], position, where)
    in_memory = isinstance(dataset, Columns) and position in (1, 2)
    if in_memory or (position == 1 and callable(getattr(dataset, "labels", None))):
        return list(labels(dataset).tolist())
    return [_value(dataset[i][position], position, where) for i in range(len(dataset))]


def _value(found: Any, position: int, where: ConfigPath) -> Any:
    value = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(value, int | str | float):
        raise ConfigError(f"place {position} of an item holds no label but {type(found).__name__}", where)
    return value

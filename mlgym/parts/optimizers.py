"""Optimizers and learning-rate schedulers by their torch names. A component is made before what it works on
exists, so each is a function that the engine calls with the model's parameters (or the optimizer)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from mlgym.errors import ConfigError
from mlgym.parts.table import Table
from mlgym.schema import bind

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler | None]


def torch_optimizers() -> Mapping[str, Any]:
    return _classes(torch.optim, Optimizer)


def torch_schedulers() -> Mapping[str, Any]:
    return _classes(torch.optim.lr_scheduler, LRScheduler)


def _classes(module: Any, base: type) -> dict[str, Any]:
    return {
        name: entry
        for name, entry in vars(module).items()
        if isinstance(entry, type) and issubclass(entry, base) and entry is not base and not name.startswith("_")
    }


def optimizer(optimizer_registry: Table, *, optimizer_key: str, params: dict[str, Any] | None = None) -> MakeOptimizer:
    """An optimizer of torch.optim by its name, whatever its case (`Adam`, `ADAM`), or a registered one."""
    return _later(optimizer_registry, "optimizer_key", optimizer_key, params or {})


def lr_scheduler(
    lr_scheduler_registry: Table, *, lr_scheduler_key: str, params: dict[str, Any] | None = None
) -> MakeScheduler:
    """A scheduler of torch.optim.lr_scheduler by its name, stepped after each epoch; `dummy` does nothing."""
    if lr_scheduler_key == "dummy":
        return lambda _: None
    return _later(lr_scheduler_registry, "lr_scheduler_key", lr_scheduler_key, params or {})


def _later(table: Table, key: str, name: str, params: dict[str, Any]) -> Callable[[Any], Any]:
    """The class `name` with `params` checked now, to be called with its first argument later."""
    try:
        builder = table[name]
    except ConfigError as error:
        raise error.inside(key) from None
    try:
        arguments = bind(builder, params, positional=1)
    except ConfigError as error:
        raise error.inside("params") from None

    def make(first: Any) -> Any:
        try:
            return builder(first, **arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}: {error}", ("params",)) from error

    return make

"""Optimizers and learning-rate schedulers by their torch names. A component is made before what it works on
exists, so each is a function that the engine calls with the model (or the optimizer)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import Optimizer

from mlgym.errors import ConfigError, one_of
from mlgym.parts.table import Table
from mlgym.schema import bind, convert

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer], "Schedule | None"]


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


# --- optimizers ---------------------------------------------------------------------------------------------


def optimizer(optimizer_registry: Table, *, optimizer_key: str, params: dict[str, Any] | None = None) -> MakeOptimizer:
    """An optimizer of torch.optim by its name, whatever its case (`Adam`, `ADAM`), or a registered one."""
    make = _later(optimizer_registry, "optimizer_key", optimizer_key, params or {})

    def make_for(model: nn.Module) -> Optimizer:
        made: Optimizer = make(model.parameters())
        return made

    return make_for


class OptimizerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    optimizer_key: str
    params: dict[str, Any] = {}


class OptimizerBundle(Optimizer):
    """Several optimizers, each for its part of the model, that step together; schedulers see all groups."""

    def __init__(self, optimizers: dict[str, Optimizer]) -> None:
        # Not the base's __init__: groups and state belong to the parts, this only shows them.
        self.optimizers = optimizers
        self.defaults = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for part in self.optimizers.values() for group in part.param_groups]

    @property
    def state(self) -> Any:  # type: ignore[override]
        return {parameter: entry for part in self.optimizers.values() for parameter, entry in part.state.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.optimizers.values():
            part.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.optimizers.values():
            part.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.optimizers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self.optimizers.items():
            part.load_state_dict(state_dict[name])


def bundle(
    optimizer_registry: Table,
    *,
    optimizers_config: dict[str, OptimizerConfig],
    optimizer_key_to_param_key_filters: dict[str, list[str]],
) -> MakeOptimizer:
    """Several optimizers: a parameter belongs to the one of whose filters its name contains a part.

    A parameter that belongs to none, or to two, is an error.
    """
    if not optimizers_config:
        raise ConfigError("name at least one optimizer", ("optimizers_config",))
    makers = {}
    for name, config in optimizers_config.items():
        try:
            makers[name] = _later(optimizer_registry, "optimizer_key", config.optimizer_key, config.params)
        except ConfigError as error:
            raise error.inside("optimizers_config", name) from None
    filters_key = "optimizer_key_to_param_key_filters"
    for name in optimizer_key_to_param_key_filters:
        if name not in makers:
            raise ConfigError(f"there is no optimizer {name!r}; {one_of(name, makers)}", (filters_key, name))

    def make_for(model: nn.Module) -> Optimizer:
        parts: dict[str, list[nn.Parameter]] = {name: [] for name in makers}
        for parameter_name, parameter in model.named_parameters():
            owners = [
                name
                for name, parts_of_names in optimizer_key_to_param_key_filters.items()
                if any(part in parameter_name for part in parts_of_names)
            ]
            if len(owners) != 1:
                which = f"two optimizers: {', '.join(owners)}" if owners else "no optimizer"
                raise ConfigError(f"the parameter {parameter_name!r} belongs to {which}", (filters_key,))
            parts[owners[0]].append(parameter)
        for name, parameters_ in parts.items():
            if not parameters_:
                raise ConfigError(f"no parameter belongs to the optimizer {name!r}", (filters_key,))
        made = {}
        for name, make in makers.items():
            try:
                made[name] = make(parts[name])
            except ConfigError as error:
                raise error.inside("optimizers_config", name) from None
        return OptimizerBundle(made)

    return make_for


# --- learning-rate schedulers -------------------------------------------------------------------------------

Interval = Literal["epoch", "batch"]
_BY_BATCH = ("OneCycleLR", "CyclicLR", "hugging_face_scheduler")


class Schedule:
    """A scheduler and when it is stepped. `monitored` is the score it is fed with, None when it needs none."""

    def __init__(self, scheduler: LRScheduler, interval: Interval, monitored: str | None) -> None:
        self.scheduler = scheduler
        self.interval = interval
        self.monitored = monitored

    def after_optimizer_step(self) -> None:
        if self.interval == "batch":
            self.scheduler.step()

    def after_epoch(self, scores: Mapping[str, float]) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            assert self.monitored is not None
            self.scheduler.step(scores[self.monitored])
        elif self.interval == "epoch":
            self.scheduler.step()


def lr_scheduler(
    lr_scheduler_registry: Table,
    *,
    lr_scheduler_key: str,
    params: dict[str, Any] | None = None,
    interval: Interval | None = None,
    split_name: str | None = None,
    monitoring_key: str | None = None,
) -> MakeSchedule:
    """A scheduler of torch.optim.lr_scheduler by its name; `dummy` does nothing.

    `hugging_face_scheduler` takes `name, num_warmup_steps, num_training_steps` and needs transformers. Stepped
    after each epoch, or after each optimizer step with `interval: batch`, which is what OneCycleLR, CyclicLR and
    Hugging Face's count in (and their default). ReduceLROnPlateau is fed with the score `monitoring_key` on
    `split_name`. ChainedScheduler and SequentialLR take `schedulers: [{lr_scheduler_key, params}, ...]`.
    """
    if lr_scheduler_key == "dummy":
        return lambda _: None
    make = _scheduler(lr_scheduler_registry, lr_scheduler_key, params or {})
    plateau = lr_scheduler_key.lower() == "reducelronplateau"
    if plateau and (split_name is None or monitoring_key is None):
        raise ConfigError("ReduceLROnPlateau needs the keys 'split_name' and 'monitoring_key' of the score to watch")
    if plateau and interval == "batch":
        raise ConfigError("ReduceLROnPlateau is stepped after each epoch", ("interval",))
    by_default: Interval = "batch" if lr_scheduler_key.lower() in map(str.lower, _BY_BATCH) else "epoch"
    monitored = f"{split_name}/{monitoring_key}" if plateau else None
    return lambda optimizer: Schedule(make(optimizer), interval or by_default, monitored)


class _SchedulerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lr_scheduler_key: str
    params: dict[str, Any] = {}


def _scheduler(table: Table, name: str, params: dict[str, Any]) -> Callable[[Optimizer], Any]:
    """A scheduler, to be called with the optimizer later; those inside it are made of the same optimizer first."""
    inner = params.get("schedulers")
    if not isinstance(inner, list):
        return _later(table, "lr_scheduler_key", name, params)
    makers = []
    for i, entry in enumerate(inner):
        try:
            config: _SchedulerConfig = convert(entry, _SchedulerConfig)
            makers.append(_scheduler(table, config.lr_scheduler_key, config.params))
        except ConfigError as error:
            raise error.inside("params", "schedulers", i) from None
    builder = table[name]
    bind(builder, {**params, "schedulers": []}, {"optimizer": None} if name != "ChainedScheduler" else {})

    def make(optimizer: Optimizer) -> Any:
        schedulers = [maker(optimizer) for maker in makers]
        try:
            if name.lower() == "chainedscheduler":
                return builder(**{**params, "schedulers": schedulers})
            return builder(optimizer, **{**params, "schedulers": schedulers})
        except (TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"{name}: {error}", ("params",)) from error

    return make


def hugging_face_scheduler(optimizer: Optimizer, *, name: str, num_warmup_steps: int, num_training_steps: int) -> Any:
    """A scheduler of transformers.get_scheduler."""
    try:
        from transformers import get_scheduler
    except ImportError:
        raise ConfigError("hugging_face_scheduler needs the package transformers: pip install transformers") from None
    return get_scheduler(name, optimizer, num_warmup_steps, num_training_steps)


# --- both ---------------------------------------------------------------------------------------------------


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

"""What names in YAML stand for. `blueprint(registry)` adds a user's own; they replace built-ins of the same name.

A builder's signature is the schema of its component: what stands before `*` are requirements, what stands after
it is configured. A parameter `seed` that the configuration leaves out is derived from the run's seed; a parameter
named as one of the tables (`metric_registry`) is given that table when no requirement names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgym.errors import ConfigError, one_of
from mlgym.parts.loss_functions import torch_losses
from mlgym.parts.optimizers import torch_optimizers, torch_schedulers
from mlgym.parts.table import Table
from mlgym.schema import import_path, is_dotted_path

Builder = Callable[..., Any]


class Registry:
    """Tables of named things, components by type and variant, and injectables."""

    def __init__(self) -> None:
        self.tables = {
            "model_registry": Table("model"),
            "dataset_registry": Table("data set"),
            "loss_function_registry": Table("loss", torch_losses),
            "metric_registry": Table("metric"),
            "prediction_postprocessing_registry": Table("post-processor"),
            "optimizer_registry": Table("optimizer", torch_optimizers),
            "lr_scheduler_registry": Table("learning-rate scheduler", torch_schedulers),
            "early_stopping_strategy_registry": Table("early stopping strategy"),
            "checkpointing_strategy_registry": Table("checkpointing strategy"),
        }
        self._components: dict[tuple[str, str], Builder] = {}
        self.injectables: dict[str, Any] = {}

    def model(self, name: str, builder: Builder) -> None:
        """A model: a class or function that `model_definition` configures and that gives a torch module."""
        self.tables["model_registry"].add(name, builder)

    def dataset(self, name: str, reader: Builder) -> None:
        """A data set: `reader(storage: Path, split: str, **options)` gives items (sample, target, tag)."""
        self.tables["dataset_registry"].add(name, reader)

    def loss(self, name: str, builder: Builder) -> None:
        """A loss: configured, it is called with (prediction, target) and gives the mean over the batch."""
        self.tables["loss_function_registry"].add(name, builder)

    def metric(self, name: str, builder: Builder) -> None:
        """A metric: configured, it has `update(prediction, target)`, `compute()` and `reset()`."""
        self.tables["metric_registry"].add(name, builder)

    def postprocessor(self, name: str, builder: Builder) -> None:
        """A post-processor: configured, it is called with the predictions and adds to them."""
        self.tables["prediction_postprocessing_registry"].add(name, builder)

    def optimizer(self, name: str, builder: Builder) -> None:
        """An optimizer: called with the model's parameters and `params`."""
        self.tables["optimizer_registry"].add(name, builder)

    def lr_scheduler(self, name: str, builder: Builder) -> None:
        """A learning-rate scheduler: called with the optimizer and `params`."""
        self.tables["lr_scheduler_registry"].add(name, builder)

    def early_stopping(self, name: str, builder: Builder) -> None:
        """An early stopping strategy: configured, it has `monitored` and `should_stop(epoch, scores)`."""
        self.tables["early_stopping_strategy_registry"].add(name, builder)

    def checkpointing(self, name: str, builder: Builder) -> None:
        """A checkpointing strategy: configured, it has `decide(epoch, scores)`."""
        self.tables["checkpointing_strategy_registry"].add(name, builder)

    def injectable(self, name: str, value: Any) -> None:
        """What `{injectable: {id: name}}` in a configuration stands for."""
        self.injectables[name] = value

    def component(self, component_type_key: str, variant_key: str, builder: Builder) -> None:
        """A component of any type."""
        self._components[component_type_key, variant_key] = builder

    def components(self) -> dict[tuple[str, str], Builder]:
        """Every component's builder, by type and variant, in the order registered."""
        return dict(self._components)

    def builder(self, component_type_key: str, variant_key: str) -> Builder:
        """The builder of a component. Raises `ConfigError` at the key that is unknown."""
        found = self._components.get((component_type_key, variant_key))
        if found is not None:
            return found
        if is_dotted_path(variant_key):
            try:
                built: Builder = import_path(variant_key)
            except ConfigError as error:
                raise error.inside("variant_key") from None
            return built
        types = {type_key for type_key, _ in self._components}
        if component_type_key not in types:
            raise ConfigError(
                f"unknown component type {component_type_key!r}; {one_of(component_type_key, types)}",
                ("component_type_key",),
            )
        variants = [variant for type_key, variant in self._components if type_key == component_type_key]
        raise ConfigError(
            f"{component_type_key} has no variant {variant_key!r}; {one_of(variant_key, variants)}", ("variant_key",)
        )

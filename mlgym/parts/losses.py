"""Losses: (prediction, target) -> a mean over the batch. Imports batch, postprocessing, table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mlgym.errors import ConfigError
from mlgym.parts.batch import Batch
from mlgym.parts.postprocessing import subscribed
from mlgym.parts.table import Table

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_OWN = ("tag", "prediction_subscription_key", "target_subscription_key")


class Loss(NamedTuple):
    """A loss function and what it is applied to, logged under `tag`."""

    tag: str
    prediction_key: str
    target_key: str
    function: LossFunction

    def __call__(self, batch: Batch) -> torch.Tensor:
        prediction = subscribed(batch.predictions, self.prediction_key)
        return self.function(prediction, subscribed(batch.targets, self.target_key))


def loss(table: Table, entry: Any, at: tuple[str | int, ...]) -> Loss:
    """The loss that `{key, tag, prediction_subscription_key, target_subscription_key, ...}` describes."""
    function = table.build_keyed(entry, at, _OWN)
    if getattr(function, "reduction", "mean") != "mean":
        raise ConfigError("the loss must be the mean over the batch: leave `reduction` out", (*at, "reduction"))
    return Loss(
        string(entry, "tag", at, entry["key"]),
        string(entry, "prediction_subscription_key", at),
        string(entry, "target_subscription_key", at),
        function,
    )


def string(entry: dict[str, Any], key: str, at: tuple[str | int, ...], default: str | None = None) -> str:
    """The string under `key` of an entry that a table has built from."""
    value = entry.get(key, default)
    if value is None:
        raise ConfigError(f"the key {key!r} is missing", at)
    if not isinstance(value, str):
        raise ConfigError(f"expected a string, got {value!r}", (*at, key))
    return value

"""Losses and their means over many batches. Imports batch, loss_functions, postprocessing, table.

The functions themselves are in loss_functions. `loss` reads an entry of the configuration and gives a `Loss`, which
also knows what it is applied to; `LossMean` takes in batch after batch and gives what the loss is over all at once.

All of ours are the mean over the batch, or with `average_batch_loss: false` torch's sum over it. That is for
training only: a score that grew with the size of a split would compare to nothing, so in evaluation the score is
the mean either way. Predictions in half precision are taken to single precision first.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlgym.errors import ConfigError, one_of
from mlgym.parts.batch import Batch
from mlgym.parts.loss_functions import (
    ELEMENTWISE,
    LossFunction,
    Weight,
    aligning,
    class_weight,
    samples_in,
    unless_nothing_counts,
)
from mlgym.parts.postprocessing import subscribed
from mlgym.parts.table import Table

_OWN = ("tag", "prediction_subscription_key", "target_subscription_key")
_SUM = ("tag", "terms")


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss function and what it is applied to, logged under `tag`; or, with `terms`, their weighted sum."""

    tag: str
    prediction_key: str = ""
    target_key: str = ""
    function: LossFunction | None = None
    selection_key: str | None = None
    """The target that selects samples, for a function that is called with one."""
    terms: tuple[Loss, ...] = ()
    weight: float = 1.0
    """What it is multiplied by as a term of a sum; its own score is without it."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """What training minimises: a scalar. Raises `ConfigError` where shapes or keys do not fit."""
        if self.function is None:
            return self._sum(lambda term: term(batch))
        value = self.function(*self._arguments(batch))
        return value if value.ndim == 0 else value.mean()

    def of_part(self, batch: Batch, size: int, total: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The same where `batch` is but a part, one of `size`: the mean of this over all parts is the loss of the
        whole batch. `total` adds a number up over the parts."""
        if self.function is None:
            return self._sum(lambda term: term.of_part(batch, size, total))
        own: Callable[..., tuple[torch.Tensor, Weight | None]] | None = getattr(self.function, "sum_and_weight", None)
        if own is None:
            return self(batch) * batch.share
        value, weight = own(*self._arguments(batch))
        counts = size if batch.share else 0.0
        if weight is None:
            return value * counts
        if isinstance(weight, torch.Tensor):
            whole = total(weight * bool(batch.share))
            return value * counts / whole.masked_fill(whole == 0, 1)  # where nothing counts, the sum is 0 as well
        return value * (batch.share / weight)

    def _arguments(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        prediction = subscribed(batch.predictions, self.prediction_key)
        target = subscribed(batch.targets, self.target_key)
        further = () if self.selection_key is None else (subscribed(batch.targets, self.selection_key),)
        return (prediction, target, *further)

    def _sum(self, of: Callable[[Loss], torch.Tensor]) -> torch.Tensor:
        total: torch.Tensor | None = None
        for i, term in enumerate(self.terms):
            try:
                value = of(term) * term.weight
            except ConfigError as error:
                raise error.inside("terms", i) from None
            total = value if total is None else total + value
        assert total is not None
        return total

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags it gives scores for: its own, then those of its terms."""
        return (self.tag, *(term.tag for term in self.terms))

    def mean_and_weight(self, batch: Batch) -> tuple[torch.Tensor, Weight]:
        """The mean over the batch, and the weight with which such means are averaged to be the mean over all.

        The weight is the number of samples, unless the function has a method `mean_and_weight` of its own
        (called with what the function is called with). Where nothing counts both are 0. The terms of a sum may
        weigh differently, so a sum has no such weight: `LossMean` takes its terms one by one.
        """
        if self.function is None:
            raise TypeError(f"the sum {self.tag!r} has no weight of its own; use LossMean")
        prediction, target, *further = self._arguments(batch)
        own: Callable[..., tuple[torch.Tensor, Weight]] | None = getattr(self.function, "mean_and_weight", None)
        if own is not None:
            return own(prediction, target, *further)
        mean = self.function(prediction, target).mean()
        weight: Weight = samples_in(target)
        if isinstance(self.function, nn.CrossEntropyLoss | nn.NLLLoss):  # registered as they are
            weight = class_weight(prediction, target, self.function.weight, self.function.ignore_index)
        return unless_nothing_counts(mean, weight)


class LossMean:
    """The score of a loss over batches of any size, the same as if they were one batch."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self._parts = loss.terms or (loss,)
        self._sums: list[torch.Tensor | float] = [0.0 for _ in self._parts]
        self._weights: list[Weight] = [0.0 for _ in self._parts]

    def add(self, batch: Batch) -> None:
        """Take in a batch; the device is not waited for. Call it under `torch.no_grad()`."""
        for i, part in enumerate(self._parts):
            try:
                mean, weight = part.mean_and_weight(batch)
            except ConfigError as error:
                raise (error.inside("terms", i) if self.loss.terms else error) from None
            self._sums[i] = self._sums[i] + mean.double() * weight
            self._weights[i] = self._weights[i] + weight

    def compute(self) -> dict[str, float]:
        """Scores by tag: the loss, then its terms (each without its weight in the sum). 0 where nothing counted."""
        scores = []
        for total, weight in zip(self._sums, self._weights, strict=True):
            divisor = float(weight)
            scores.append(float(total) / divisor if divisor else 0.0)
        if not self.loss.terms:
            return {self.loss.tag: scores[0]}
        weighted = sum(term.weight * score for term, score in zip(self.loss.terms, scores, strict=True))
        return {self.loss.tag: weighted, **{term.tag: s for term, s in zip(self.loss.terms, scores, strict=True)}}


# --- from configuration -------------------------------------------------------------------------------------


def loss(table: Table, entry: Any, at: tuple[str | int, ...]) -> Loss:
    """The loss that `{key, tag, prediction_subscription_key, target_subscription_key, ...}` describes.

    `{tag, terms: [{weight, key, tag, ...}, ...]}` describes a weighted sum. In a term `weight` is the number that
    it is multiplied by (default 1); class weights are written under its `params`.
    """
    if isinstance(entry, dict) and "terms" in entry:
        return _weighted_sum(table, entry, at)
    function = table.build_keyed(entry, at, _OWN)
    params_at = (*at, "params") if "reduction" in (entry.get("params") or {}) else at
    if getattr(function, "reduction", "mean") not in ("mean", "batchmean"):  # both are means over samples
        raise ConfigError("the loss must be the mean over the batch: leave `reduction` out", (*params_at, "reduction"))
    if isinstance(function, nn.Module):
        _check_module(function, at)
        if type(function) in ELEMENTWISE:
            function = aligning(function)
    return Loss(
        string(entry, "tag", at, entry["key"]),
        string(entry, "prediction_subscription_key", at),
        string(entry, "target_subscription_key", at),
        function,
        getattr(function, "selection_key", None),
    )


def _weighted_sum(table: Table, entry: dict[str, Any], at: tuple[str | int, ...]) -> Loss:
    if "key" in entry:
        raise ConfigError("give either `key`, for one loss, or `terms`, for a sum of losses", (*at, "terms"))
    if unknown := {str(key) for key in entry} - set(_SUM):
        name = min(unknown)
        raise ConfigError(f"unknown key {name!r}; {one_of(name, _SUM)}", (*at, name))
    if not isinstance(entry["terms"], list) or not entry["terms"]:
        raise ConfigError(f"expected a list of losses, got {entry['terms']!r}", (*at, "terms"))
    total = Loss(string(entry, "tag", at), terms=tuple(_terms(table, entry["terms"], (*at, "terms"))))
    for i, term in enumerate(total.terms):
        if total.tags.count(term.tag) > 1:
            raise ConfigError(f"the tag {term.tag!r} is given twice; every score needs its own", (*at, "terms", i))
    return total


def _terms(table: Table, entries: list[Any], at: tuple[str | int, ...]) -> list[Loss]:
    terms = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or "key" not in entry:
            raise ConfigError("expected a mapping with the key 'key' that names a loss", (*at, i))
        weight = entry.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigError(
                f"the weight of a term is a number, got {weight!r}; class weights belong under `params`",
                (*at, i, "weight"),
            )
        one = loss(table, {key: value for key, value in entry.items() if key != "weight"}, (*at, i))
        terms.append(
            Loss(one.tag, one.prediction_key, one.target_key, one.function, one.selection_key, weight=float(weight))
        )
    return terms


def _check_module(module: nn.Module, at: tuple[str | int, ...]) -> None:
    """Some losses of torch.nn are not functions of a prediction and a target."""
    name = type(module).__name__
    taken = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(taken) > 2:
        raise ConfigError(
            f"{name} takes {', '.join(taken)}, not a prediction and a target; register a loss that calls it",
            (*at, "key"),
        )
    if type(module).__module__.startswith("torch.nn") and any(True for _ in module.parameters()):
        raise ConfigError(f"{name} has parameters to train: make it a part of the model", (*at, "key"))


def string(entry: dict[str, Any], key: str, at: tuple[str | int, ...], default: str | None = None) -> str:
    """The string under `key` of an entry that a table has built from."""
    value = entry.get(key, default)
    if value is None:
        raise ConfigError(f"the key {key!r} is missing", at)
    if not isinstance(value, str):
        raise ConfigError(f"expected a string, got {value!r}", (*at, key))
    return value

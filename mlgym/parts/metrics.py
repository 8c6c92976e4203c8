"""Metrics, computed by torchmetrics in few large updates. Imports postprocessing, losses (for its helper), table.

Averages are named as in scikit-learn. The number of classes is one more than the largest label seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import torch

from mlgym.errors import ConfigError
from mlgym.parts import torchvision_ops  # noqa: F401 (first: see there)
from mlgym.parts.losses import string
from mlgym.parts.table import Table

Average = Literal["binary", "micro", "macro", "weighted"]


class Accumulator(Protocol):
    """What a metric is made of; `compute` gives a number, `reset` begins anew."""

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None: ...
    def compute(self) -> float: ...
    def reset(self) -> None: ...


class LabelMetric:
    """A torchmetrics metric over predicted labels whose counts grow with the labels they meet.

    `create(num_classes)` makes the torchmetrics object. Its states are counts by class, so going to more
    classes means copying them into a larger object. (True negatives of a late class are then too few; no
    metric made here reads them.)
    """

    def __init__(self, create: Callable[[int], Any], binary: bool = False) -> None:
        self._create = create
        self._binary = binary
        self._metric: Any = None
        self._num_classes = 0

    def reset(self) -> None:
        if self._metric is not None:  # with its classes: those that do not occur again count for nothing
            self._metric.reset()

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Take in labels of any equal shape."""
        if prediction.shape != target.shape:
            raise ConfigError(
                f"the metric compares labels, but predictions have the shape {list(prediction.shape)} and "
                f"targets {list(target.shape)}; is a post-processor (ARG_MAX) missing?"
            )
        prediction, target = prediction.flatten().long(), target.flatten().long()
        largest = int(torch.maximum(prediction.max(), target.max())) if len(target) else 0
        if self._binary and largest > 1:
            raise ConfigError(f"average 'binary' needs the labels 0 and 1, but there is {largest}")
        if self._metric is None or largest >= self._num_classes:
            self._grow(max(largest + 1, 2), target.device)
        self._metric.update(prediction, target)

    def _grow(self, num_classes: int, device: torch.device) -> None:
        old, self._metric = self._metric, self._create(num_classes).to(device)
        self._num_classes = num_classes
        if old is not None:
            for name, state in old.metric_state.items():
                getattr(self._metric, name)[: len(state)] = state
            self._metric._update_count = old._update_count  # otherwise compute() warns that there was none

    def compute(self) -> float:
        return float(self._metric.compute()) if self._metric is not None and self._metric.update_called else math.nan


def accuracy() -> LabelMetric:
    """The fraction of labels that are right."""
    from torchmetrics.classification import MulticlassAccuracy

    return LabelMetric(lambda n: MulticlassAccuracy(n, average="micro", validate_args=False))


def f1_score(*, average: Average = "binary") -> LabelMetric:
    """The harmonic mean of precision and recall."""
    from torchmetrics.classification import BinaryF1Score, MulticlassF1Score

    return _averaged(BinaryF1Score, MulticlassF1Score, average)


def precision(*, average: Average = "binary") -> LabelMetric:
    """Of what was predicted as a class, the fraction that is."""
    from torchmetrics.classification import BinaryPrecision, MulticlassPrecision

    return _averaged(BinaryPrecision, MulticlassPrecision, average)


def recall(*, average: Average = "binary") -> LabelMetric:
    """Of what is of a class, the fraction that was predicted so."""
    from torchmetrics.classification import BinaryRecall, MulticlassRecall

    return _averaged(BinaryRecall, MulticlassRecall, average)


def _averaged(binary: Callable[..., Any], multiclass: Callable[..., Any], average: Average) -> LabelMetric:
    if average == "binary":
        return LabelMetric(lambda _: binary(validate_args=False), binary=True)
    return LabelMetric(lambda n: multiclass(n, average=average, validate_args=False))


class Metric(NamedTuple):
    """An accumulator factory and what it is applied to, logged under `tag`."""

    tag: str
    prediction_key: str
    target_key: str
    create: Callable[[], Accumulator]


def metric(table: Table, entry: Any, at: tuple[str | int, ...]) -> Metric:
    """The metric that `{key, params, tag, prediction_subscription_key, target_subscription_key}` describes."""
    own = ("tag", "prediction_subscription_key", "target_subscription_key")

    def create() -> Accumulator:
        accumulator: Accumulator = table.build_keyed(entry, at, own)
        return accumulator

    create()  # wrong parameters are found now, not after an epoch
    return Metric(
        string(entry, "tag", at, entry["key"]),
        string(entry, "prediction_subscription_key", at),
        string(entry, "target_subscription_key", at),
        create,
    )

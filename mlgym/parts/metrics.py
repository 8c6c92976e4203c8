"""Metrics, computed by torchmetrics in few large updates. Imports postprocessing, losses (for its helper), table.

Averages are named as in scikit-learn. The number of classes is one more than the largest label seen. What has
no value (no samples, a prediction that is not a number) is NaN. Scores by class are in class_metrics.
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
ClassAverage = Literal["micro", "macro", "weighted"]

Score = float | dict[str, float]
"""One number, or several by suffix: `{"10": 0.5}` of the metric `tag` is logged as `tag@10`."""


class Accumulator(Protocol):
    """What a metric is made of; `compute` gives the score, `reset` begins anew.

    `update(prediction, target)` takes in a batch, or `update(prediction, prediction, ..., target)` where the
    metric subscribes to several predictions. Two attributes are read where there are any: `suffixes`, a list
    of those that `compute` gives, and `num_predictions`, how many `update` takes.
    """

    @property
    def update(self) -> Callable[..., None]: ...
    def compute(self) -> Score: ...
    def reset(self) -> None: ...


def named_scores(tag: str, score: Score) -> dict[str, float]:
    """The score under its tag, or each of its entries under `tag@suffix`."""
    if isinstance(score, dict):
        return {f"{tag}@{suffix}": float(value) for suffix, value in score.items()}
    return {tag: float(score)}


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """[n, 1] as [n]."""
    return tensor[:, 0] if tensor.ndim == 2 and tensor.shape[1] == 1 else tensor


# --- predicted labels against labels ------------------------------------------------------------------------


class LabelMetric:
    """A torchmetrics metric over predicted labels whose counts grow with the labels they meet.

    `create(num_classes)` makes the torchmetrics object, `read` takes the score from it. Its states are counts
    by class, so going to more classes means copying them into a larger object. (True negatives of a late class
    are then too few; no metric made here reads them.)
    """

    num_predictions = 1

    def __init__(
        self,
        create: Callable[[int], Any],
        binary: bool = False,
        read: Callable[[Any], Any] = lambda metric: metric.compute(),
    ) -> None:
        self._create = create
        self._binary = binary
        self._read = read
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
        if not target.numel():
            return
        prediction, target = prediction.flatten().long(), target.flatten().long()
        largest = int(torch.maximum(prediction.max(), target.max()))
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
        return float(self._read(self._metric)) if self._metric is not None and self._metric.update_called else math.nan


def accuracy() -> LabelMetric:
    """The fraction of labels that are right."""
    from torchmetrics.classification import MulticlassAccuracy

    return LabelMetric(lambda n: MulticlassAccuracy(n, average="micro", validate_args=False))


def balanced_accuracy() -> LabelMetric:
    """The mean recall over the classes that occur in the targets.

    torchmetrics' macro recall counts a class that is predicted but never occurs as 0; scikit-learn's balanced
    accuracy, and this, leave it out.
    """
    from torchmetrics.classification import MulticlassStatScores

    def read(metric: Any) -> float:
        counts = metric.compute().double()  # by class: true and false positives and negatives, occurrences
        right, occurrences = counts[:, 0], counts[:, 4]
        return float((right / occurrences)[occurrences > 0].mean())

    return LabelMetric(lambda n: MulticlassStatScores(n, average=None, validate_args=False), read=read)


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


# --- numbers against numbers --------------------------------------------------------------------------------


class RegressionMetric:
    """A torchmetrics metric of numbers whose sums are kept in double precision.

    With `from_first`, numbers are counted from the first target on, for a metric that squares them.
    """

    num_predictions = 1

    def __init__(
        self,
        create: Callable[[], Any],
        read: Callable[[Any], Any] = lambda metric: metric.compute(),
        from_first: bool = False,
    ) -> None:
        self._metric = create().set_dtype(torch.float64)
        self._read = read
        self._from_first = from_first
        self._first: torch.Tensor | None = None

    def reset(self) -> None:
        self._metric.reset()
        self._first = None

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Take in numbers [n] or [n, 1], or of any equal shape."""
        shapes = f"predictions have the shape {list(prediction.shape)} and targets {list(target.shape)}"
        prediction, target = flat(prediction), flat(target)
        if prediction.shape != target.shape:
            raise ConfigError(f"the metric compares as many predictions as targets, but {shapes}")
        if not target.numel():
            return
        prediction, target = prediction.detach().flatten().double(), target.flatten().double()
        if self._from_first:
            self._first = target[0] if self._first is None else self._first
            prediction, target = prediction - self._first, target - self._first
        if self._metric.device != target.device:
            self._metric.to(target.device)
        self._metric.update(prediction, target)

    def compute(self) -> float:
        return float(self._read(self._metric)) if self._metric.update_called else math.nan


def mean_absolute_error() -> RegressionMetric:
    """The mean of |prediction - target|."""
    from torchmetrics.regression import MeanAbsoluteError

    return RegressionMetric(MeanAbsoluteError)


def mean_squared_error() -> RegressionMetric:
    """The mean of (prediction - target)^2."""
    from torchmetrics.regression import MeanSquaredError

    return RegressionMetric(MeanSquaredError)


def root_mean_squared_error() -> RegressionMetric:
    """The square root of the mean of (prediction - target)^2, in the unit of the target."""
    from torchmetrics.regression import MeanSquaredError

    return RegressionMetric(lambda: MeanSquaredError(squared=False))


def r2_score() -> RegressionMetric:
    """The coefficient of determination: 1 - sum (target - prediction)^2 / sum (target - mean target)^2.

    As in scikit-learn, for equal targets it is 1 if every prediction is right, else 0. NaN for one sample.
    """
    from torchmetrics.regression import R2Score

    def read(metric: Any) -> float:
        """From its sums: torchmetrics' own last step takes every sum of squares below 1e-4 for 0."""
        count, residual = float(metric.total), float(metric.residual)
        spread = float(metric.sum_squared_error) - float(metric.sum_error) ** 2 / count
        if count < 2 or math.isnan(residual):
            return math.nan
        return 1 - residual / spread if spread > 0 else float(residual == 0)

    return RegressionMetric(R2Score, read, from_first=True)


# --- from configuration -------------------------------------------------------------------------------------

_KEY = "prediction_subscription_key"
_NUMBERED_KEYS = (f"{_KEY}_0", f"{_KEY}_1")


class Metric(NamedTuple):
    """An accumulator factory and what it is applied to, logged under `tag`, or `tag@suffix` for each suffix."""

    tag: str
    prediction_keys: tuple[str, ...]
    target_key: str
    create: Callable[[], Accumulator]
    suffixes: tuple[str, ...] | None = None

    @property
    def prediction_key(self) -> str:
        """The first, and mostly the only one."""
        return self.prediction_keys[0]

    @property
    def tags(self) -> list[str]:
        """The names of the scores that it will give."""
        return [self.tag] if self.suffixes is None else [f"{self.tag}@{suffix}" for suffix in self.suffixes]


def metric(table: Table, entry: Any, at: tuple[str | int, ...]) -> Metric:
    """The metric that `{key, params, tag, prediction_subscription_key, target_subscription_key}` describes.

    `prediction_subscription_key` is a list of keys for a metric of several predictions.
    """
    own = ("tag", _KEY, *_NUMBERED_KEYS, "target_subscription_key")

    def create() -> Accumulator:
        accumulator: Accumulator = table.build_keyed(entry, at, own)
        return accumulator

    accumulator = create()  # wrong parameters are found now, not after an epoch
    prediction_keys = _prediction_keys(entry, at)
    expected = getattr(accumulator, "num_predictions", len(prediction_keys))
    if len(prediction_keys) != expected:
        raise ConfigError(f"{entry['key']} takes {expected} predictions, got {list(prediction_keys)}", (*at, _KEY))
    suffixes = getattr(accumulator, "suffixes", None)
    return Metric(
        string(entry, "tag", at, entry["key"]),
        prediction_keys,
        string(entry, "target_subscription_key", at),
        create,
        None if suffixes is None else tuple(suffixes),
    )


def _prediction_keys(entry: dict[str, Any], at: tuple[str | int, ...]) -> tuple[str, ...]:
    keys = entry.get(_KEY)
    if any(name in entry for name in _NUMBERED_KEYS):
        if keys is not None:
            raise ConfigError(f"{_KEY!r} is given twice: as it is and with a number", (*at, _KEY))
        return tuple(string(entry, name, at) for name in _NUMBERED_KEYS)
    if not isinstance(keys, list):
        return (string(entry, _KEY, at),)
    for i, key in enumerate(keys):
        if not isinstance(key, str):
            raise ConfigError(f"expected a string, got {key!r}", (*at, _KEY, i))
    if not keys:
        raise ConfigError("expected at least one key, got none", (*at, _KEY))
    return tuple(keys)

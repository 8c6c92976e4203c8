"""Metrics, computed by torchmetrics in few large updates. Imports postprocessing, losses (for its helper), table.

Averages are named as in scikit-learn. The number of classes is one more than the largest label seen, or the
width of the predictions. Only AUROC and AUPR keep all predictions (they are exact, not binned).
What has no value (no samples, no sample of the class, a prediction that is not a number) is NaN.
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


# --- scores by class against labels -------------------------------------------------------------------------


def _checked(prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions [n] or [n, classes] and labels [n] in [0, classes), of what may also be [n, 1]."""
    shapes = f"predictions have the shape {list(prediction.shape)} and targets {list(target.shape)}"
    prediction, target = _flat(prediction).detach(), _flat(target).long()
    if prediction.ndim not in (1, 2) or target.ndim != 1 or len(prediction) != len(target):
        raise ConfigError(f"the metric compares predictions [n] or [n, classes] with targets [n], but {shapes}")
    out_of_range = target < 0
    if prediction.ndim == 2:
        out_of_range |= target >= prediction.shape[1]
    if out_of_range.any():
        label = int(target[out_of_range][0])
        raise ConfigError(f"there is the label {label}, but {shapes}")
    return prediction, target


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """[n, 1] as [n]."""
    return tensor[:, 0] if tensor.ndim == 2 and tensor.shape[1] == 1 else tensor


def _of_class(
    prediction: torch.Tensor, target: torch.Tensor, class_label: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The score [n] of a class and where the target is this class; of 1 where the targets are 0 and 1."""
    if class_label is None:
        if (target > 1).any():
            raise ConfigError(
                f"one score for each sample needs the labels 0 and 1, but there is {int(target.max())}; "
                "is 'class_label' missing?"
            )
        class_label = 1
    if prediction.ndim == 1:
        return prediction, target == class_label
    if class_label >= prediction.shape[1]:
        raise ConfigError(f"class_label is {class_label}, but predictions have the shape {list(prediction.shape)}")
    return prediction[:, class_label], target == class_label


def _check_probabilities(prediction: torch.Tensor) -> None:
    """Raise `ConfigError` where there is none, up to the rounding of half precision; NaN passes."""
    if ((prediction < -1e-2) | (prediction > 1 + 1e-2)).any():
        raise ConfigError(
            f"the metric needs probabilities, but predictions go from {float(prediction.min()):.3g} to "
            f"{float(prediction.max()):.3g}; is a post-processor (SOFT_MAX, SIGMOIDAL) missing?"
        )


def _check_class(class_label: int | None, *path: str | int) -> None:
    if class_label is not None and class_label < 0:
        raise ConfigError(f"expected a label, which is 0 or more, got {class_label}", path or ("class_label",))


class RankingMetric:
    """A function of (scores [n], whether of the class [n]) of all samples: the scores are kept until `compute`.

    `area` sees ranks in [0, 1] instead of scores. That changes no ranking, while torchmetrics, given scores
    outside of [0, 1], applies a sigmoid that makes large ones equal.
    """

    num_predictions = 1

    def __init__(
        self, area: Callable[[torch.Tensor, torch.Tensor], float], average: ClassAverage, class_label: int | None
    ) -> None:
        _check_class(class_label)
        self._area = area
        self._average = average
        self._class_label = class_label
        self.reset()

    def reset(self) -> None:
        self._predictions: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Take in scores [n], [n, 1] or [n, classes] and labels [n]."""
        prediction, target = _checked(prediction, target)
        if self._class_label is not None or prediction.ndim == 1 or prediction.shape[1] == 2:
            prediction, target = _of_class(prediction, target, self._class_label)
        if self._predictions and self._predictions[0].shape[1:] != prediction.shape[1:]:
            widths = [max(math.prod(p.shape[1:]), 1) for p in (self._predictions[0], prediction)]
            raise ConfigError(f"predictions have {widths[0]} scores for a sample, and later {widths[1]}")
        self._predictions.append(prediction.contiguous())
        self._targets.append(target)

    def compute(self) -> float:
        if not self._predictions:
            return math.nan
        prediction, target = torch.cat(self._predictions).double(), torch.cat(self._targets)
        if prediction.isnan().any() or not len(target):
            return math.nan
        if prediction.ndim == 1:
            return self._area(_ranks(prediction), target)
        classes = torch.arange(prediction.shape[1], device=target.device)
        if self._average == "micro":
            return self._area(_ranks(prediction.flatten()), (target[:, None] == classes).flatten())
        total = weights = 0.0
        for label in classes:
            of_class = target == label
            area = self._area(_ranks(prediction[:, label]), of_class)
            if not math.isnan(area):
                weight = float(of_class.sum()) if self._average == "weighted" else 1.0
                total, weights = total + weight * area, weights + weight
        return total / weights if weights else math.nan


def _ranks(scores: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1] in the order of the scores, equal where they are."""
    distinct: torch.Tensor
    ranks: torch.Tensor
    distinct, ranks = torch.unique(scores, return_inverse=True)
    return ranks.double() / max(len(distinct) - 1, 1)


def auroc(*, average: ClassAverage = "macro", class_label: int | None = None) -> RankingMetric:
    """The area under the receiver operating characteristic curve, exact.

    Of scores [n] of class 1, of the second column of [n, 2], or of [n, classes]: each class against the rest,
    then `average`d over the classes for which there is a curve: those that some, but not all targets are. With
    `class_label`, of this class against the rest: of its column, or of the scores [n], which are then its.
    """
    from torchmetrics.functional.classification import binary_auroc

    def area(ranks: torch.Tensor, of_class: torch.Tensor) -> float:
        if of_class.all() or not of_class.any():
            return math.nan
        return float(binary_auroc(ranks, of_class.long(), validate_args=False))

    return RankingMetric(area, average, class_label)


def aupr(*, average: ClassAverage = "macro", class_label: int | None = None) -> RankingMetric:
    """The area under the precision-recall curve as average precision: sum of (R_n - R_(n-1)) P_n, exact.

    Of scores [n] of class 1, of the second column of [n, 2], or of [n, classes]: each class against the rest,
    then `average`d over the classes that occur. With `class_label`, of this class against the rest: of its
    column, or of the scores [n], which are then its.
    """
    from torchmetrics.functional.classification import binary_average_precision

    def area(ranks: torch.Tensor, of_class: torch.Tensor) -> float:
        if not of_class.any():
            return math.nan
        return float(binary_average_precision(ranks, of_class.long(), validate_args=False))

    return RankingMetric(area, average, class_label)


class RecallAtK:
    """Recall among the first k samples in the order of their scores; the best max(k_vals) are kept.

    Of equal scores, what comes first stays first: the result does not depend on batches.
    """

    num_predictions = 1

    def __init__(self, class_label: int, k_vals: list[int], sort_descending: bool, normalize: bool) -> None:
        _check_class(class_label)
        if not k_vals:
            raise ConfigError("expected at least one k, got none", ("k_vals",))
        for i, k in enumerate(k_vals):
            if k < 0 or k in k_vals[:i]:
                raise ConfigError(f"expected different numbers of samples, 0 or more, got {k_vals}", ("k_vals", i))
        self.suffixes: list[str] | None = [str(k) for k in k_vals]
        self._class_label = class_label
        self._k_vals = k_vals
        self._descending = sort_descending
        self._normalize = normalize
        self.reset()

    def reset(self) -> None:
        self._scores: torch.Tensor | None = None
        self._of_class: torch.Tensor | None = None
        self._occurrences = 0
        self._nan = False

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Take in scores [n], [n, 1] or [n, classes] and labels [n]."""
        scores, of_class = _of_class(*_checked(prediction, target), self._class_label)
        scores = scores.double()
        self._nan = self._nan or bool(scores.isnan().any())
        self._occurrences += int(of_class.sum())
        if self._scores is not None and self._of_class is not None:
            scores, of_class = torch.cat([self._scores, scores]), torch.cat([self._of_class, of_class])
        order = torch.sort(scores, stable=True, descending=self._descending).indices[: max(self._k_vals)]
        self._scores, self._of_class = scores[order], of_class[order]

    def compute(self) -> Score:
        return dict(zip(self.suffixes or [], self.recalls(self._normalize), strict=True))

    def recalls(self, normalize: bool) -> list[float]:
        """For each k, divided by the recall of a perfect ranking if `normalize`."""
        if self._of_class is None or self._nan or not self._occurrences:
            return [math.nan for _ in self._k_vals]
        found = [0, *self._of_class.long().cumsum(0).tolist()]
        reached = [found[min(k, len(found) - 1)] / self._occurrences for k in self._k_vals]
        return [r / (p or 1.0) for r, p in zip(reached, self.perfect(), strict=True)] if normalize else reached

    def perfect(self) -> list[float]:
        """The recall of a perfect ranking for each k: min(k, occurrences of the class) / occurrences."""
        return [min(k, self._occurrences) / self._occurrences for k in self._k_vals]


class AreaUnderRecallAtK(RecallAtK):
    """The trapezoids under recall at k."""

    def __init__(self, class_label: int, k_vals: list[int], sort_descending: bool, normalize: bool) -> None:
        super().__init__(class_label, sorted(k_vals), sort_descending, normalize)
        if len(k_vals) < 2:
            raise ConfigError(f"an area needs two k or more, got {k_vals}", ("k_vals",))
        self.suffixes = None

    def compute(self) -> float:
        recalls = self.recalls(normalize=False)
        if any(map(math.isnan, recalls)):
            return math.nan
        return self._area(recalls) / (self._area(self.perfect()) if self._normalize else 1.0)

    def _area(self, heights: list[float]) -> float:
        at = self._k_vals
        return sum((at[i] - at[i - 1]) * (heights[i] + heights[i - 1]) / 2 for i in range(1, len(at)))


def recall_at_k(
    *, class_label: int, k_vals: list[int], sort_descending: bool = True, normalize: bool = False
) -> RecallAtK:
    """Of the samples of `class_label`, the fraction that is among the first k, for each k: one score `@k` each.

    Samples are sorted by their score, highest first unless `sort_descending` is false: predictions [n], or the
    column `class_label` of [n, classes]. A k beyond the number of samples means all of them. With `normalize`
    it is divided by what a perfect ranking reaches: min(k, P) / P, where P samples are of the class.
    """
    return RecallAtK(class_label, k_vals, sort_descending, normalize)


def area_under_recall_at_k(
    *, class_label: int, k_vals: list[int], sort_descending: bool = True, normalize: bool = False
) -> AreaUnderRecallAtK:
    """The area under recall at k over `k_vals`, by the trapezoidal rule; see RECALL_AT_K.

    With k_1 < ... < k_m and recall r(k): A(r) = sum over i of (k_(i+1) - k_i) (r(k_i) + r(k_(i+1))) / 2. With
    `normalize` it is A(r) / A(p), p(k) = min(k, P) / P being the recall of a perfect ranking of P samples of
    the class: 1 is the best there is.
    """
    return AreaUnderRecallAtK(class_label, k_vals, sort_descending, normalize)


# --- probabilities against labels ---------------------------------------------------------------------------


class BrierScore:
    """A sum of squares and a count (torchmetrics has no Brier score)."""

    num_predictions = 1

    def __init__(self, class_label: int | None) -> None:
        _check_class(class_label)
        self._class_label = class_label
        self.reset()

    def reset(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._count = 0

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Take in probabilities [n], [n, 1] or [n, classes] and labels [n]."""
        prediction, target = _checked(prediction, target)
        if prediction.ndim == 1 or self._class_label is not None:
            prediction, truth = _of_class(prediction, target, self._class_label)
        else:
            truth = torch.nn.functional.one_hot(target, prediction.shape[1])
        _check_probabilities(prediction)
        self._sum = self._sum + (prediction.double() - truth.double()).square().sum()
        self._count += len(target)

    def compute(self) -> float:
        return float(self._sum) / self._count if self._count else math.nan


def brier_score(*, class_label: int | None = None) -> BrierScore:
    """The mean squared distance of the predicted probabilities to the truth (Brier, 1950).

    Of probabilities [n] of class 1: the mean of (p - t)^2, from 0 to 1. Of [n, classes]: the same summed over
    the classes, t being one-hot, from 0 to 2. With `class_label`: of this class alone, as for [n].
    """
    return BrierScore(class_label)


class CalibrationError:
    """Sums by bin; torchmetrics keeps every prediction, and counts a probability of 1 in a bin of its own."""

    num_predictions = 1

    def __init__(self, num_bins: int, class_label: int | None, sum_up_bins: bool = True) -> None:
        _check_class(class_label)
        if num_bins < 1:
            raise ConfigError(f"expected a number of bins, 1 or more, got {num_bins}", ("num_bins",))
        self.suffixes = None if sum_up_bins else [str(i) for i in range(num_bins)]
        self._num_bins = num_bins
        self._class_label = class_label
        self.reset()

    def reset(self) -> None:
        self._sums = torch.zeros(3, self._num_bins, dtype=torch.float64)  # samples, probabilities, of the class

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Take in probabilities [n], [n, 1] or [n, classes] and labels [n]."""
        prediction, target = _checked(prediction, target)
        if prediction.ndim == 2 and self._class_label is None:
            probability, top = prediction.max(1)
            of_class = top == target
        else:
            probability, of_class = _of_class(prediction, target, self._class_label)
        _check_probabilities(probability)
        probability = probability.double().contiguous()
        edges = torch.arange(1, self._num_bins, dtype=torch.float64, device=probability.device) / self._num_bins
        bins = torch.bucketize(probability, edges, right=True)
        values = torch.stack([torch.ones_like(probability), probability, of_class.double()])
        self._sums = self._sums.to(values.device).index_add(1, bins, values)

    def compute(self) -> Score:
        if self.suffixes is None:
            return self.summed_up()
        samples, probabilities, of_class = self._sums
        if not samples.any():
            return dict.fromkeys(self.suffixes, math.nan)
        gaps = (of_class - probabilities).abs() / samples.clamp(min=1)
        return dict(zip(self.suffixes, gaps.tolist(), strict=True))

    def summed_up(self) -> float:
        """The gaps weighted by samples; 0 / 0 is NaN."""
        samples, probabilities, of_class = self._sums
        return float((of_class - probabilities).abs().sum() / samples.sum())


class ClasswiseCalibrationError:
    """The mean of a calibration error for each class, each with its own prediction."""

    def __init__(self, num_bins: int, class_labels: list[int]) -> None:
        if len(class_labels) != 2:
            raise ConfigError(f"expected the labels of two classes, got {class_labels}", ("class_labels",))
        for i, class_label in enumerate(class_labels):
            _check_class(class_label, "class_labels", i)
        self.num_predictions = len(class_labels)
        self._errors = [CalibrationError(num_bins, class_label) for class_label in class_labels]

    def reset(self) -> None:
        for error in self._errors:
            error.reset()

    def update(self, *predictions_and_target: torch.Tensor) -> None:
        """Take in a prediction for each class, then the target."""
        *predictions, target = predictions_and_target
        for error, prediction in zip(self._errors, predictions, strict=True):
            error.update(prediction, target)

    def compute(self) -> float:
        return sum(error.summed_up() for error in self._errors) / len(self._errors)


def expected_calibration_error(
    *, num_bins: int = 10, class_label: int | None = None, sum_up_bins: bool = True
) -> CalibrationError:
    """How far predicted probabilities are from observed frequencies (Naeini et al., 2015).

    `num_bins` bins of equal width over the predicted probability, each with its lower edge (the last one with
    both): sum over the bins of (samples in the bin / samples) |accuracy - confidence|. Confidence is the mean
    predicted probability of `class_label`, accuracy the frequency of that class. Without `class_label` they are
    those of the most probable class of [n, classes]; for predictions [n] of class 1.
    With `sum_up_bins: false`, |accuracy - confidence| of each bin, unweighted, 0 where a bin is empty: scores
    `@0`, `@1`, ...
    """
    return CalibrationError(num_bins, class_label, sum_up_bins)


def binary_classwise_expected_calibration_error(
    *, class_labels: list[int], num_bins: int = 10
) -> ClasswiseCalibrationError:
    """The mean of EXPECTED_CALIBRATION_ERROR for the first and for the second of `class_labels`.

    `prediction_subscription_key` is a list: the key of the probabilities of the first class, that of the second
    (or `prediction_subscription_key_0` and `prediction_subscription_key_1` in its place). Each is [n], or
    [n, classes], of which the column of the class is taken.
    """
    return ClasswiseCalibrationError(num_bins, class_labels)


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
        prediction, target = _flat(prediction), _flat(target)
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

"""Metrics of scores and probabilities by class against labels: ranking and calibration. Imports metrics.

Only AUROC and AUPR keep all predictions (they are exact, not binned). What has no value (no samples, no sample of
the class, a prediction that is not a number) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mlgym.errors import ConfigError
from mlgym.parts import torchvision_ops  # noqa: F401 (first: see there)
from mlgym.parts.metrics import ClassAverage, Score, flat

# --- scores by class against labels -------------------------------------------------------------------------


def _checked(prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions [n] or [n, classes] and labels [n] in [0, classes), of what may also be [n, 1]."""
    shapes = f"predictions have the shape {list(prediction.shape)} and targets {list(target.shape)}"
    prediction, target = flat(prediction).detach(), flat(target).long()
    if prediction.ndim not in (1, 2) or target.ndim != 1 or len(prediction) != len(target):
        raise ConfigError(f"the metric compares predictions [n] or [n, classes] with targets [n], but {shapes}")
    out_of_range = target < 0
    if prediction.ndim == 2:
        out_of_range |= target >= prediction.shape[1]
    if out_of_range.any():
        label = int(target[out_of_range][0])
        raise ConfigError(f"there is the label {label}, but {shapes}")
    return prediction, target


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

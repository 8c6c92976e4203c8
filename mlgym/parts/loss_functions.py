"""The functions behind losses: (prediction, target) -> a scalar, and what such a mean weighs. Imports errors only.

What a builder is configured with stands in its signature. All of ours are the mean over the batch, or with
`average_batch_loss: false` torch's sum over it (in training; a score is the mean either way).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch
from torch import nn
from torch.nn import functional

from mlgym.errors import ConfigError

LossFunction = Callable[..., torch.Tensor]
"""Called with (prediction, target), or with (prediction, target, classes) where a class is selected."""

Weight = torch.Tensor | float
"""What the mean over a part counts for; a tensor where knowing it would make the device wait."""

_HALF = (torch.float16, torch.bfloat16)
ELEMENTWISE = (  # of torch.nn: they would broadcast [n, 1] against [n] to [n, n]
    nn.HingeEmbeddingLoss,
    nn.HuberLoss,
    nn.KLDivLoss,
    nn.L1Loss,
    nn.MSELoss,
    nn.MultiLabelSoftMarginLoss,
    nn.PoissonNLLLoss,
    nn.SmoothL1Loss,
    nn.SoftMarginLoss,
)


# --- classification -----------------------------------------------------------------------------------------


class Function:
    """A loss of ours: `compute(prediction, target, reduction)` with the reduction `mean` or `sum`.

    `weigh(prediction, target)` gives what the mean weighs; without it, the number of samples.
    """

    def __init__(
        self,
        compute: Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor],
        average_batch_loss: bool,
        reduction: str = "mean",
        weigh: Callable[[torch.Tensor, torch.Tensor], Weight] | None = None,
    ) -> None:
        self.reduction = reduction  # as configured; `loss` refuses all but the mean
        self._compute = compute
        self._in_training = "mean" if average_batch_loss else "sum"
        self._weigh = weigh

    def __call__(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self._compute(prediction, target, self._in_training)

    def sum_and_weight(self, prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, Weight | None]:
        """For training on a part of a batch: what adds up over the parts, and what the whole is divided by; None: by
        nothing."""
        if self._in_training == "sum":
            return self._compute(prediction, target, "sum"), None
        if self._weigh:
            return self._compute(prediction, target, "sum"), self._weigh(prediction, target)
        count = samples_in(target)
        return self._compute(prediction, target, "mean") * count, count

    def mean_and_weight(self, prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, Weight]:
        mean = self._compute(prediction, target, "mean")
        return unless_nothing_counts(mean, self._weigh(prediction, target) if self._weigh else samples_in(target))


def cross_entropy(
    *,
    weight: list[float] | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    average_batch_loss: bool = True,
) -> Function:
    """Cross entropy of logits [n, classes, ...] and targets, as torch.nn.CrossEntropyLoss.

    Targets are class indices [n, ...], or one-hot vectors or probabilities of the shape of the logits.
    `weight` is one number per class. With class indices the mean is over what is not ignored, weighted by class.
    """
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"must lie between 0 and 1, got {label_smoothing}", ("label_smoothing",))
    weights = _Weights.of("weight", weight)

    def compute(prediction: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        prediction = prediction.float() if prediction.dtype in _HALF else prediction
        target = _classes(prediction, target)
        if ignore_index >= 0 and target.is_floating_point():
            raise ConfigError("the targets are probabilities; ignore_index can only be used with class indices")
        try:
            return functional.cross_entropy(
                prediction,
                target,
                _for_classes(weights, prediction),
                ignore_index=ignore_index,
                reduction=reduction,
                label_smoothing=label_smoothing,
            )
        except IndexError as error:  # on the CPU; a GPU stops the process
            raise ConfigError(
                f"{error} Predictions have {prediction.shape[1]} classes, the first is 0".replace("Target", "target", 1)
            ) from None

    def weigh(prediction: torch.Tensor, target: torch.Tensor) -> Weight:
        prediction = prediction.float() if prediction.dtype in _HALF else prediction
        class_weights = _for_classes(weights, prediction)
        return class_weight(prediction, _classes(prediction, target), class_weights, ignore_index)

    return Function(compute, average_batch_loss, reduction, weigh)


def nll(
    *,
    weight: list[float] | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    average_batch_loss: bool = True,
) -> Function:
    """Negative log likelihood of targets as in CrossEntropyLoss under logits [n, classes, ...].

    Unlike torch.nn.NLLLoss it takes logits: the log-softmax is inside.
    """
    return cross_entropy(
        weight=weight, ignore_index=ignore_index, reduction=reduction, average_batch_loss=average_batch_loss
    )


def bce_with_logits(
    *,
    weight: list[float] | None = None,
    pos_weight: list[float] | float | None = None,
    flatten_predictions: bool = False,
    reduction: str = "mean",
    average_batch_loss: bool = True,
) -> Function:
    """Binary cross entropy of logits and targets of equal shape, as torch.nn.BCEWithLogitsLoss.

    `weight` and `pos_weight` are one number per column, or one for all. `flatten_predictions` takes logits of
    [n, 1] as [n].
    """
    weights = _Weights.of("weight", weight)
    pos_weights = _Weights.of("pos_weight", [pos_weight] if isinstance(pos_weight, float | int) else pos_weight)

    def compute(prediction: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        prediction, target = _aligned(prediction.flatten() if flatten_predictions else prediction, target)
        return functional.binary_cross_entropy_with_logits(
            prediction,
            target,
            _for_columns(weights, prediction),
            reduction=reduction,
            pos_weight=_for_columns(pos_weights, prediction),
        )

    return Function(compute, average_batch_loss, reduction)


def bce(*, weight: list[float] | None = None, reduction: str = "mean", average_batch_loss: bool = True) -> Function:
    """Binary cross entropy of probabilities and targets of equal shape, as torch.nn.BCELoss.

    `weight` is one number per column, or one for all.
    """
    weights = _Weights.of("weight", weight)

    def compute(prediction: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        prediction, target = _aligned(prediction, target)
        if torch.is_autocast_enabled(prediction.device.type):  # torch refuses it under autocast; it is float32 here
            with torch.autocast(prediction.device.type, enabled=False):
                return score(prediction, target, reduction)
        return score(prediction, target, reduction)

    def score(prediction: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        column_weights = _for_columns(weights, prediction)
        try:
            return functional.binary_cross_entropy(prediction, target, column_weights, reduction=reduction)
        except RuntimeError as error:  # on the CPU; a GPU stops the process
            if "between 0 and 1" not in str(error):
                raise
            raise ConfigError(
                "predictions and targets must lie between 0 and 1; logits go into BCEWithLogitsLoss"
            ) from None

    return Function(compute, average_batch_loss, reduction)


# --- regression ---------------------------------------------------------------------------------------------


def mse(*, reduction: str = "mean", average_batch_loss: bool = True) -> Function:
    """Mean squared error of predictions and targets of equal shape ([n, 1] is taken as [n])."""
    return _elementwise(functional.mse_loss, average_batch_loss, reduction)


def l1(*, reduction: str = "mean", average_batch_loss: bool = True) -> Function:
    """Mean absolute error of predictions and targets of equal shape ([n, 1] is taken as [n])."""
    return _elementwise(functional.l1_loss, average_batch_loss, reduction)


def huber(*, delta: float = 1.0, reduction: str = "mean", average_batch_loss: bool = True) -> Function:
    """Huber loss, as torch.nn.HuberLoss: d^2 / 2 for an error d up to `delta`, delta (|d| - delta / 2) above."""
    if not delta > 0:
        raise ConfigError(f"must be greater than 0, got {delta}", ("delta",))

    def function(prediction: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        return functional.huber_loss(prediction, target, reduction=reduction, delta=delta)

    return _elementwise(function, average_batch_loss, reduction)


def _elementwise(function: Callable[..., torch.Tensor], average_batch_loss: bool, reduction: str) -> Function:
    def compute(prediction: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        prediction, target = _aligned(prediction, target)
        return function(prediction, target, reduction=reduction)

    return Function(compute, average_batch_loss, reduction)


class ClassSelection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The samples whose target under a key, class indices [n], is the selected class."""

    target_subscription_key: str
    selected_class: int


class LP:
    """Mean over samples of `(sum |p - t|^exponent)^(1/root)`, the sum over all but the first dimension.

    Predictions and targets have the same shape. `class_selection_fun_params` restricts the mean to samples of one
    class; without such a sample it is 0. Where prediction and target are equal the gradient is taken to be 0.
    """

    def __init__(
        self,
        *,
        root: float = 1.0,
        exponent: float = 2.0,
        class_selection_fun_params: ClassSelection | None = None,
        average_batch_loss: bool = True,
    ) -> None:
        for name, value in (("root", root), ("exponent", exponent)):
            if not 0 < value < math.inf:
                raise ConfigError(f"must be greater than 0, got {value}", (name,))
        self._root = root
        self._exponent = exponent
        self._average = average_batch_loss
        self._selected_class = class_selection_fun_params.selected_class if class_selection_fun_params else 0
        self.selection_key = class_selection_fun_params.target_subscription_key if class_selection_fun_params else None

    def __call__(
        self, prediction: torch.Tensor, target: torch.Tensor, classes: torch.Tensor | None = None
    ) -> torch.Tensor:
        total, count = self._total(prediction, target, classes)
        return total / _at_least_one(count) if self._average else total

    def sum_and_weight(
        self, prediction: torch.Tensor, target: torch.Tensor, classes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Weight | None]:
        """As that of `Function`."""
        total, count = self._total(prediction, target, classes)
        return total, count if self._average else None

    def mean_and_weight(
        self, prediction: torch.Tensor, target: torch.Tensor, classes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Weight]:
        total, count = self._total(prediction, target, classes)
        return total / _at_least_one(count), count

    def _total(
        self, prediction: torch.Tensor, target: torch.Tensor, classes: torch.Tensor | None
    ) -> tuple[torch.Tensor, Weight]:
        """The sum over samples that count, and their number. Selects by masking: indexing makes a GPU wait."""
        if prediction.shape != target.shape:
            raise _shapes(prediction, target, "equal shapes")
        prediction, target = _aligned(prediction, target)
        difference = prediction - target
        count: Weight = samples_in(target)
        if classes is not None:
            if classes.numel() != len(difference):
                raise ConfigError(
                    f"expected a class for each of {len(difference)} samples under {self.selection_key!r}, "
                    f"got the shape {list(classes.shape)}"
                )
            selected = classes.flatten() == self._selected_class
            count = selected.sum()
            difference = difference.where(selected.view(-1, *[1] * (difference.ndim - 1)), 0.0)
        powers = _power(difference.abs(), self._exponent)
        if powers.ndim > 1:
            powers = powers.flatten(1).sum(1)
        return _power(powers, 1 / self._root).sum(), count


def _power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """`base ** exponent` for base >= 0, with the gradient 0 at 0, where for exponents below 1 it is infinite."""
    if exponent == 1:
        return base
    if exponent > 1:
        return base**exponent
    zero = base == 0
    return (base.masked_fill(zero, 1.0) ** exponent).masked_fill(zero, 0.0)


def _at_least_one(count: Weight) -> Weight:
    return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)


# --- all of torch.nn ----------------------------------------------------------------------------------------


def torch_losses() -> Mapping[str, Callable[..., Any]]:
    """Every loss of torch.nn by its name; ours where there is one of that name."""
    found = {name: getattr(nn, name) for name in dir(nn) if name.endswith("Loss")}
    return found | {
        "BCELoss": bce,
        "BCEWithLogitsLoss": bce_with_logits,
        "CrossEntropyLoss": cross_entropy,
        "HuberLoss": huber,
        "L1Loss": l1,
        "MSELoss": mse,
        "NLLLoss": nll,
    }


def aligning(module: nn.Module) -> LossFunction:
    def function(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = module(*_aligned(prediction, target))
        return value

    return function


# --- shapes, weights ----------------------------------------------------------------------------------------


def _aligned(prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the same shape and floating-point type; a last dimension of 1 that the other lacks is dropped."""
    if prediction.shape != target.shape:
        if prediction.shape == (*target.shape, 1):
            prediction = prediction.squeeze(-1)
        elif target.shape == (*prediction.shape, 1):
            target = target.squeeze(-1)
        else:
            raise _shapes(prediction, target, "equal shapes")
    if prediction.dtype in _HALF or not prediction.is_floating_point():
        prediction = prediction.float()
    return prediction, target if target.dtype == prediction.dtype else target.to(prediction.dtype)


def _classes(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Targets as class indices (int64) or as probabilities (of the predictions' type)."""
    if prediction.ndim > 1:
        if target.shape == prediction.shape:
            return target if target.dtype == prediction.dtype else target.to(prediction.dtype)
        shape = prediction.shape
        indices = target if target.ndim < len(shape) else target.squeeze(1)
        if indices.shape == (shape[0], *shape[2:]):
            if indices.dtype == torch.int64:
                return indices
            if not indices.is_floating_point():
                return indices.long()
            raise ConfigError(f"class indices must be integers, but the targets are {indices.dtype}")
    raise _shapes(prediction, target, "[n, classes] against class indices [n] or probabilities [n, classes]")


def _shapes(prediction: torch.Tensor, target: torch.Tensor, expected: str) -> ConfigError:
    return ConfigError(
        f"predictions have the shape {list(prediction.shape)} and targets {list(target.shape)}; expected {expected}"
    )


def samples_in(target: torch.Tensor) -> int:
    return len(target) if target.ndim else 1


def class_weight(
    prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int
) -> Weight:
    """What torch divides by in the mean of cross entropy: with class indices, the weights of those not ignored."""
    if target.shape == prediction.shape:
        return samples_in(target)
    counts = target != ignore_index
    if weight is None:
        return counts.sum()
    return (weight[target.where(counts, 0)] * counts).sum()


def unless_nothing_counts(mean: torch.Tensor, weight: Weight) -> tuple[torch.Tensor, Weight]:
    """The mean with its weight; 0 where the weight is 0 and the mean, 0 / 0, is not a number."""
    if isinstance(weight, torch.Tensor):
        return mean.masked_fill(weight == 0, 0.0), weight
    return mean if weight else torch.zeros_like(mean), weight


class _Weights:
    """Numbers from the configuration as a tensor of the device and type of what they are used with."""

    def __init__(self, name: str, values: list[float]) -> None:
        for i, value in enumerate(values):
            if not 0 <= value < math.inf:
                raise ConfigError(f"a weight must not be negative or infinite, got {value}", (name, i))
        self._name = name
        self._values = values
        self._tensors: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    @staticmethod
    def of(name: str, values: list[float] | None) -> _Weights | None:
        return None if values is None else _Weights(name, values)

    def like(self, prediction: torch.Tensor, wanted: int, one_for_all: bool) -> torch.Tensor:
        """The numbers, of which there must be `wanted`. Raises `ConfigError`."""
        if len(self._values) != wanted and not (one_for_all and len(self._values) == 1):
            raise ConfigError(
                f"`{self._name}` has {len(self._values)} entries, but predictions of the shape "
                f"{list(prediction.shape)} need {wanted}"
            )
        key = (prediction.device, prediction.dtype)
        found = self._tensors.get(key)
        if found is None:
            found = self._tensors[key] = torch.tensor(self._values, dtype=key[1], device=key[0])
        return found


def _for_classes(weights: _Weights | None, prediction: torch.Tensor) -> torch.Tensor | None:
    """One for each class of logits [n, classes, ...]."""
    return None if weights is None else weights.like(prediction, prediction.shape[1], one_for_all=False)


def _for_columns(weights: _Weights | None, prediction: torch.Tensor) -> torch.Tensor | None:
    """One for all, or one for each column of [n, ..., columns]; [n] is one column."""
    columns = prediction.shape[-1] if prediction.ndim > 1 else 1
    return None if weights is None else weights.like(prediction, columns, one_for_all=True)

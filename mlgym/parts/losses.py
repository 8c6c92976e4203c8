"""Losses: (prediction, target) -> a scalar, and their means over many batches. Imports batch, postprocessing, table.

A builder (`cross_entropy`, `lp`, ...) takes what is configured and gives a `Function` of prediction and target;
`loss` reads an entry of the configuration and gives a `Loss`, which also knows what it is applied to; `LossMean`
takes in batch after batch and gives what the loss is over all of them at once.

All of ours are the mean over the batch, or with `average_batch_loss: false` torch's sum over it. That is for
training only: a score that grew with the size of a split would compare to nothing, so in evaluation the score is
the mean either way. Predictions in half precision are taken to single precision first.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import nn
from torch.nn import functional

from mlgym.errors import ConfigError, one_of
from mlgym.parts.batch import Batch
from mlgym.parts.postprocessing import subscribed
from mlgym.parts.table import Table

LossFunction = Callable[..., torch.Tensor]
"""Called with (prediction, target), or with (prediction, target, classes) where a class is selected."""

Weight = torch.Tensor | float
"""What the mean over a part counts for; a tensor where knowing it would make the device wait."""

_OWN = ("tag", "prediction_subscription_key", "target_subscription_key")
_SUM = ("tag", "terms")
_HALF = (torch.float16, torch.bfloat16)
_ELEMENTWISE = (  # of torch.nn: they would broadcast [n, 1] against [n] to [n, n]
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
            return self._sum(batch)
        prediction = subscribed(batch.predictions, self.prediction_key)
        target = subscribed(batch.targets, self.target_key)
        if self.selection_key is None:
            value = self.function(prediction, target)
        else:
            value = self.function(prediction, target, subscribed(batch.targets, self.selection_key))
        return value if value.ndim == 0 else value.mean()

    def _sum(self, batch: Batch) -> torch.Tensor:
        total: torch.Tensor | None = None
        for i, term in enumerate(self.terms):
            try:
                value = term(batch) * term.weight
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
        prediction = subscribed(batch.predictions, self.prediction_key)
        target = subscribed(batch.targets, self.target_key)
        further = () if self.selection_key is None else (subscribed(batch.targets, self.selection_key),)
        own: Callable[..., tuple[torch.Tensor, Weight]] | None = getattr(self.function, "mean_and_weight", None)
        if own is not None:
            return own(prediction, target, *further)
        mean = self.function(prediction, target).mean()
        weight: Weight = _samples(target)
        if isinstance(self.function, nn.CrossEntropyLoss | nn.NLLLoss):  # registered as they are
            weight = _class_weight(prediction, target, self.function.weight, self.function.ignore_index)
        return _unless_nothing_counts(mean, weight)


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
        if type(function) in _ELEMENTWISE:
            function = _aligning(function)
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

    def mean_and_weight(self, prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, Weight]:
        mean = self._compute(prediction, target, "mean")
        return _unless_nothing_counts(mean, self._weigh(prediction, target) if self._weigh else _samples(target))


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
        return _class_weight(prediction, _classes(prediction, target), class_weights, ignore_index)

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
        count: Weight = _samples(target)
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


def _aligning(module: nn.Module) -> LossFunction:
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


def _samples(target: torch.Tensor) -> int:
    return len(target) if target.ndim else 1


def _class_weight(
    prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int
) -> Weight:
    """What torch divides by in the mean of cross entropy: with class indices, the weights of those not ignored."""
    if target.shape == prediction.shape:
        return _samples(target)
    counts = target != ignore_index
    if weight is None:
        return counts.sum()
    return (weight[target.where(counts, 0)] * counts).sum()


def _unless_nothing_counts(mean: torch.Tensor, weight: Weight) -> tuple[torch.Tensor, Weight]:
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

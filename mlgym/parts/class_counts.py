"""Which classes were predicted for which, counted beside the scores. Imports torch only.

It costs an argmax and a bincount for each chunk that is scored. Counted are predicted labels (integers, as ARG_MAX
gives them) or one score a class, against one integer label or a one-hot vector for each sample. Whatever else comes is
no task that this is about, and is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

MAX_CLASSES = 1000
"""The table of counts has so many rows and columns at most; with more classes nothing is counted."""

Pair = tuple[str, str]
"""The keys of a prediction and of the target that it is compared to."""

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


class ClassCounter:
    """Counts of one split, for the first of `pairs` with each target that can be counted.

    Labels below 0, which losses ignore, are ignored here as well.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs: list[Pair] | None = None
        self._all = list(dict.fromkeys(pairs))
        self.counts: dict[Pair, torch.Tensor] = {}
        """[classes, classes], by actual label and then by predicted one."""

    def add(self, predictions: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> None:
        """Take in a chunk."""
        if self._pairs is None:
            self._pairs = _chosen(self._all, predictions, targets)
        for pair in list(self._pairs):
            labels = _labels(predictions[pair[0]], targets[pair[1]])
            if labels is None or not self._count(pair, *labels):
                self._pairs.remove(pair)  # of what only a part would be counted, nothing is
                self.counts.pop(pair, None)

    def _count(self, pair: Pair, predicted: torch.Tensor, actual: torch.Tensor) -> bool:
        if not actual.numel():
            return True
        lowest, highest = (int(value) for value in torch.aminmax(torch.stack([predicted, actual])))
        if lowest < 0:
            counted = (predicted >= 0) & (actual >= 0)
            predicted, actual = predicted[counted], actual[counted]
        if highest >= MAX_CLASSES:
            return False
        before = self.counts.get(pair)
        classes = max(highest + 1, 2, 0 if before is None else len(before))
        found = torch.bincount(actual * classes + predicted, minlength=classes * classes).view(classes, classes)
        if before is not None:
            found[: len(before), : len(before)] += before
        self.counts[pair] = found
        return True


def _chosen(
    pairs: list[Pair], predictions: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]
) -> list[Pair]:
    """For each target the first pair that can be counted, labels before scores."""
    found: dict[str, Pair] = {}
    for by_label in (True, False):
        for prediction, target in pairs:
            if prediction in predictions and target in targets and target not in found:
                values = predictions[prediction]
                if (values.dtype in _INTEGERS) is by_label and _labels(values, targets[target]) is not None:
                    found[target] = prediction, target
    return list(found.values())


def _labels(prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Predicted and actual labels, each [n]; None where there is not one of each for each sample."""
    if prediction.ndim == 2 and prediction.shape[1] > 1 and prediction.dtype not in _INTEGERS:
        prediction = prediction.argmax(1)
    if target.ndim == 2 and target.shape[1] > 1:
        if not bool(((target == 0) | (target == 1)).all() & (target.sum(1) == 1).all()):
            return None
        target = target.argmax(1)
    prediction, target = _flat(prediction), _flat(target)
    if prediction.ndim != 1 or prediction.shape != target.shape:
        return None
    if prediction.dtype not in _INTEGERS or target.dtype not in _INTEGERS:
        return None
    return prediction.long(), target.long()


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """[n, 1] as [n]."""
    return tensor[:, 0] if tensor.ndim == 2 and tensor.shape[1] == 1 else tensor

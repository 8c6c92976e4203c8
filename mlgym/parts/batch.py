"""What flows through an experiment: one batch. Imports torch only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch


@dataclass(slots=True)
class Batch:
    """Samples with their targets and, once a model has seen them, its predictions.

    `samples` is what the model is called with: a tensor [batch, ...] or anything made of tensors.
    `targets` and `predictions` map publication keys to tensors [batch, ...].
    """

    samples: Any
    targets: dict[str, torch.Tensor]
    tags: Any = None
    predictions: dict[str, torch.Tensor] = field(default_factory=dict)
    share: float = 1.0
    """Where processes divide a batch: what the mean over this part counts for in the mean over the parts, so that it
    is that over all samples. 0 is a part without samples, which holds one of another's for its shape."""

    def __len__(self) -> int:
        return len(next(iter(self.targets.values()))) if self.targets else len(self.samples)

    def to(self, device: torch.device) -> Batch:
        """This batch on `device`; on the CPU, itself."""
        if device.type == "cpu":
            return self
        return Batch(
            move(self.samples, device),
            move(self.targets, device),
            self.tags,
            move(self.predictions, device),
            self.share,
        )


class Part(NamedTuple):
    """Which of the processes that divide every batch among themselves."""

    rank: int = 0
    size: int = 1

    def bounds(self, count: int) -> tuple[int, int]:
        """Which of `count` samples are this part's: from, to. Parts differ by one sample at most."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def share(self, count: int) -> float:
        """As `Batch.share`, of a batch of `count` samples."""
        start, stop = self.bounds(count)
        return (stop - start) * self.size / count


WHOLE = Part()


def move(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it, at any depth of dicts, lists and tuples, on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: move(entry, device) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(move(entry, device) for entry in value)
    return value

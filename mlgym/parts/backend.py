"""How a step runs on its device, so that there is one trainer and one evaluator whatever the environment."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mlgym.parts.batch import Batch


class Backend:
    """One process, one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model, moved to the device in place."""
        return model.to(self.device)

    def batch(self, batch: Any) -> Batch:
        """The batch on the device."""
        if not isinstance(batch, Batch):
            raise TypeError(f"the collator must return a mlgym.parts.batch.Batch, not {type(batch).__name__}")
        return batch.to(self.device)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

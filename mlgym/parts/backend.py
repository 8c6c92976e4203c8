"""How a step runs on its device, so that there is one trainer and one evaluator whatever the environment.

`Backend` is one process with one device; `accelerated.Accelerated` is one of several that train together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mlgym.parts.batch import WHOLE, Batch, Part
from mlgym.parts.losses import Loss

Precision = Literal["fp32", "bf16", "fp16"]

Published = dict[str, torch.Tensor]
Predicted = list[tuple[Published, Published]]
"""(predictions, targets) of batch after batch."""


class Backend:
    """One process, one device."""

    part: Part = WHOLE
    """Which part of every batch is this process's."""
    is_sharded = False
    """Whether each process has but a part of the model."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._scaler: torch.amp.GradScaler | None = None

    @classmethod
    def on(cls, device: torch.device | Self) -> Self:
        """A backend for `device`, or the one that is given."""
        return cls(device) if isinstance(device, torch.device) else device

    def __str__(self) -> str:
        """The device, or devices, for people."""
        return str(self.device)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that records, saves and decides."""
        return self.part.rank == 0

    # --- training ---

    def place(self, model: nn.Module) -> nn.Module:
        """The model, moved to the device in place."""
        return model.to(self.device)

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Get both ready to be trained."""

    def trained(self, model: nn.Module) -> nn.Module:
        """What is called in place of the model while it is trained."""
        return model

    def batch(self, batch: Any) -> Batch:
        """The batch on the device."""
        if not isinstance(batch, Batch):
            raise TypeError(f"the collator must return a mlgym.parts.batch.Batch, not {type(batch).__name__}")
        return batch.to(self.device)

    def accumulated(self, batches: int) -> int:
        """Over how many batches gradients are gathered, where the configuration says `batches`."""
        return batches

    def precision(self, wanted: Precision) -> Precision:
        """What the trainer has to see to itself, where the configuration says `wanted`."""
        return wanted

    def autocast(self, precision: Precision) -> torch.autocast:
        """The forward pass inside it runs in `precision`; fp16 also turns the gradient scaler on."""
        if precision == "fp16" and self._scaler is None:
            self._scaler = torch.amp.GradScaler(self.device.type)
        return torch.autocast(self.device.type, torch.bfloat16 if precision == "bf16" else torch.float16)

    def loss(self, loss: Loss, batch: Batch) -> torch.Tensor:
        """What is minimised on the batch, a scalar; or this part's share of it."""
        return loss(batch)

    def last_of_step(self, last: bool) -> None:
        """Whether a step follows the next backward pass, or further ones."""

    def backward(self, loss: torch.Tensor) -> None:
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        loss.backward()

    def step(self, optimizer: Optimizer, max_grad_norm: float | None) -> None:
        """One optimizer step with the gradients there are, unscaled and clipped."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        if max_grad_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    # --- what processes tell each other ---

    def agreed(self, value: Any) -> Any:
        """The main process's `value`, plain data; every process has to ask."""
        return value

    def agreeing(self, asked: Callable[[], bool]) -> Callable[[], bool]:
        """The main process's `asked`, once True always True, to be called by all as often."""
        return asked

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Of a scalar, over the processes."""
        return value

    def gathered(self, predicted: Predicted) -> Predicted:
        """On the main process, batch after batch of all; on the others nothing."""
        return predicted

    def collected(self, state: bytes) -> list[bytes]:
        """On the main process, the state of every other; on the others nothing."""
        return []

    def same_buffers(self, model: nn.Module) -> None:
        """The model's buffers (running means, say) become those of the main process."""

    # --- checkpoints ---

    def state_dict(self) -> dict[str, Any]:
        """The gradient scaler's, when there is one."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self._scaler = self._scaler or torch.amp.GradScaler(self.device.type)
            self._scaler.load_state_dict(state)

"""How a step runs on its device, so that there is one trainer and one evaluator whatever the environment."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mlgym.parts.batch import Batch

Precision = Literal["fp32", "bf16", "fp16"]


class Backend:
    """One process, one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._scaler: torch.amp.GradScaler | None = None

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model, moved to the device in place."""
        return model.to(self.device)

    def batch(self, batch: Any) -> Batch:
        """The batch on the device."""
        if not isinstance(batch, Batch):
            raise TypeError(f"the collator must return a mlgym.parts.batch.Batch, not {type(batch).__name__}")
        return batch.to(self.device)

    def autocast(self, precision: Precision) -> torch.autocast:
        """The forward pass inside it runs in `precision`; fp16 also turns the gradient scaler on."""
        if precision == "fp16" and self._scaler is None:
            self._scaler = torch.amp.GradScaler(self.device.type)
        return torch.autocast(self.device.type, torch.bfloat16 if precision == "bf16" else torch.float16)

    def state_dict(self) -> dict[str, Any]:
        """The gradient scaler's, when there is one."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self._scaler = self._scaler or torch.amp.GradScaler(self.device.type)
            self._scaler.load_state_dict(state)

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

"""Training steps. Imports backend, batch, data, losses, models, postprocessing, table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mlgym.errors import ConfigError
from mlgym.parts.backend import Backend, Precision
from mlgym.parts.batch import Batch
from mlgym.parts.data import Loader
from mlgym.parts.losses import Loss, loss
from mlgym.parts.models import publisher
from mlgym.parts.postprocessing import PostProcessor
from mlgym.parts.table import Table


@dataclass
class TrainComponent:
    """What is minimised: the loss, after the post-processors (if it needs any)."""

    loss: Loss
    post_processors: list[PostProcessor]
    max_grad_norm: float | None = None
    accumulate_batches: int = 1
    precision: Precision = "fp32"
    compile: bool = False

    def state_dict(self) -> dict[str, Any]:
        """The states of losses and post-processors that have one."""
        return {name: part.state_dict() for name, part in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        functions = {"loss": self.loss.function} | {f"loss.{i}": t.function for i, t in enumerate(self.loss.terms)}
        parts = functions | {f"post_processor.{i}": part for i, part in enumerate(self.post_processors)}
        return {name: part for name, part in parts.items() if hasattr(part, "load_state_dict")}


def train_component(
    loss_function_registry: Table,
    prediction_postprocessing_registry: Table,
    *,
    loss_fun_config: dict[str, Any],
    post_processors_config: list[dict[str, Any]] | None = None,
    max_grad_norm: float | None = None,
    accumulate_batches: int = 1,
    precision: Precision = "fp32",
    compile: bool = False,
    show_progress: bool = True,
) -> TrainComponent:
    """The training loss, and how its gradients become a step.

    Gradients are clipped to the norm `max_grad_norm`, and gathered over `accumulate_batches` batches (fewer at the
    end of an epoch, which always ends in a step) as if these were one batch. `precision` is that of the forward
    pass: bf16 and fp16 by autocast, fp16 with a gradient scaler. `compile` runs the model through torch.compile.
    `show_progress` is accepted; progress is always recorded.
    """
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ConfigError(f"must be positive, not {max_grad_norm}", ("max_grad_norm",))
    if accumulate_batches < 1:
        raise ConfigError(f"must be at least 1, not {accumulate_batches}", ("accumulate_batches",))
    processors = [
        prediction_postprocessing_registry.build_keyed(entry, ("post_processors_config", i))
        for i, entry in enumerate(post_processors_config or [])
    ]
    return TrainComponent(
        loss(loss_function_registry, loss_fun_config, ("loss_fun_config",)),
        processors,
        max_grad_norm,
        accumulate_batches,
        precision,
        compile,
    )


class Trainer:
    """Steps through an endless stream of passes over the loader; the position in it is (pass, batch)."""

    def __init__(self, train_component: TrainComponent, model: nn.Module, data_loaders: Loader) -> None:
        if not isinstance(data_loaders, Loader):
            raise ConfigError("subscribe data_loaders to the one split to train on, such as `subscription: train`")
        self.component = train_component
        self.model = model
        self.loader = data_loaders
        self.passes = 0
        self.batches = 0
        self.stepped = False
        """Whether the last batch ended in an optimizer step."""
        self._forward: Callable[..., Any] | None = None
        self._publish = publisher(model)

    def state_dict(self) -> dict[str, int]:
        """The position in the data."""
        over, batches = divmod(self.batches, len(self.loader))  # the end of a pass is the beginning of the next
        return {"passes": self.passes + over, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.passes, self.batches = state["passes"], state["batches"]

    def epoch(
        self, backend: Backend, optimizer: Optimizer, num_batches: int | None = None, start: int = 0
    ) -> Iterator[int]:
        """Train for `num_batches` (default: one pass), yielding the number of each finished batch, from 1.

        `start` of them have been trained on before, and ended in an optimizer step.
        """
        self.model.train()
        if self._forward is None:
            trained = backend.trained(self.model)
            self._forward = torch.compile(trained, dynamic=False) if self.component.compile else trained
        accumulated = backend.accumulated(self.component.accumulate_batches)
        done = last = start
        group = 0
        wanted = num_batches or len(self.loader)
        while done < wanted:
            for batch in self.loader.training_batches(self.passes, self.batches, backend.part):
                if done == last:
                    group = min(accumulated, wanted - done)
                    last = done + group
                    optimizer.zero_grad(set_to_none=True)
                done += 1
                self.stepped = done == last
                if accumulated > 1:
                    backend.last_of_step(self.stepped)
                if isinstance(optimizer, torch.optim.LBFGS):
                    self._step_with_closure(backend.batch(batch), backend, optimizer)
                else:
                    self._backward(backend.batch(batch), backend, group)
                    if self.stepped:
                        backend.step(optimizer, self.component.max_grad_norm)
                self.batches += 1
                yield done
                if done == wanted:
                    break
            if self.batches == len(self.loader):
                self.passes, self.batches = self.passes + 1, 0

    def _backward(self, batch: Batch, backend: Backend, group: int) -> torch.Tensor:
        """Add the gradients of one batch out of `group`; returns its loss."""
        precision = backend.precision(self.component.precision)
        if precision == "fp32":
            loss = self.loss(batch, backend)
        else:
            with backend.autocast(precision):
                loss = self.loss(batch, backend)
        backend.backward(loss if group == 1 else loss / group)
        return loss

    def _step_with_closure(self, batch: Batch, backend: Backend, optimizer: torch.optim.LBFGS) -> None:
        """LBFGS evaluates the loss of one batch several times in one step."""
        component = self.component
        if (
            backend.accumulated(component.accumulate_batches) > 1
            or component.max_grad_norm is not None
            or component.precision == "fp16"
        ):
            raise ConfigError("LBFGS goes with neither accumulate_batches, max_grad_norm nor fp16")

        def closure() -> float:
            optimizer.zero_grad(set_to_none=True)
            return float(backend.mean(self._backward(batch, backend, 1).detach()))

        optimizer.step(closure)  # type: ignore[no-untyped-call, unused-ignore]

    def loss(self, batch: Batch, backend: Backend) -> torch.Tensor:
        """The loss of the model on `batch`, a scalar. Raises `ConfigError` where the configuration does not fit."""
        assert self._forward is not None
        batch.predictions = self._publish(self._forward(batch.samples))
        for process in self.component.post_processors:
            process(batch.predictions)
        return backend.loss(self.component.loss, batch)

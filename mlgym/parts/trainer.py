"""Training steps. Imports backend, batch, data, losses, models, postprocessing, table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mlgym.errors import ConfigError
from mlgym.parts.backend import Backend
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


def train_component(
    loss_function_registry: Table,
    prediction_postprocessing_registry: Table,
    *,
    loss_fun_config: dict[str, Any],
    post_processors_config: list[dict[str, Any]] | None = None,
    show_progress: bool = True,
) -> TrainComponent:
    """The training loss. `show_progress` is accepted; progress is always recorded."""
    processors = [
        prediction_postprocessing_registry.build_keyed(entry, ("post_processors_config", i))
        for i, entry in enumerate(post_processors_config or [])
    ]
    return TrainComponent(loss(loss_function_registry, loss_fun_config, ("loss_fun_config",)), processors)


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
        self._publish = publisher(model)

    def epoch(self, backend: Backend, optimizer: Optimizer, num_batches: int | None = None) -> Iterator[int]:
        """Train for `num_batches` (default: one pass), yielding the number of each finished batch, from 1."""
        self.model.train()
        done = 0
        wanted = num_batches or len(self.loader)
        while done < wanted:
            for batch in self.loader.training_batches(self.passes, self.batches):
                self._step(backend.batch(batch), backend, optimizer)
                self.batches += 1
                done += 1
                yield done
                if done == wanted:
                    break
            if self.batches == len(self.loader):
                self.passes, self.batches = self.passes + 1, 0

    def _step(self, batch: Batch, backend: Backend, optimizer: Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        backend.backward(self.loss(batch))
        optimizer.step()

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of the model on `batch`, a scalar. Raises `ConfigError` where the configuration does not fit."""
        batch.predictions = self._publish(self.model(batch.samples))
        for process in self.component.post_processors:
            process(batch.predictions)
        return self.component.loss(batch)

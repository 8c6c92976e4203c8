"""An experiment in which everything that can go wrong with a resume is at work, small enough to be killed often.

Dropout, batch normalisation, AdamW, OneCycleLR, weighted sampling, and samples that draw from the generators of
python, numpy and torch. Also a run.py for tests.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from mlgym import run
from mlgym.build.catalog import built_in
from mlgym.build.registry import Registry
from mlgym.specs import ExperimentSpec
from tests.engine.grids import config

EPOCHS = 3
BATCHES = 6


class Noisy(Dataset[Any]):
    """48 samples of 8 numbers, each drawn anew from three generators whenever it is read."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.samples = torch.rand(48, 8, generator=generator)
        self.targets = (self.samples.sum(1) > 4.5).long().tolist()
        self.read = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        time.sleep(float(os.environ.get("MLGYM_TEST_SLEEP", "0")))  # time to be killed in
        self.read += 1
        if hold := os.environ.get("MLGYM_TEST_HOLD"):  # by default in the evaluation of the first epoch
            while self.read > int(os.environ.get("MLGYM_TEST_HOLD_AFTER", "100")) and Path(hold).exists():
                time.sleep(0.01)
        noise = random.random() + np.random.rand() + torch.rand(8)
        return self.samples[index] + 0.1 * noise, self.targets[index], self.targets[index]


def noisy(storage: Path, split: str) -> Noisy:
    return Noisy()


class Net(nn.Module):
    def __init__(self, number: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def blueprint(registry: Registry) -> None:
    registry.model("net", Net)
    registry.dataset("noisy", noisy)


def prepare(_: object = None) -> Registry:
    registry = built_in()
    blueprint(registry)
    return registry


def grid_config(number: Any = 0, workers: int = 0) -> dict[str, Any]:
    found = config({"number": number}, workers)
    found["iterators"]["config"]["dataset_identifier"] = "noisy"
    found["loaders"]["config"] |= {"batch_size": 48 // BATCHES, "weighted_sampling_split_name": "train"}
    found["optimizer"]["config"] = {"optimizer_key": "AdamW", "params": {"lr": 0.01}}
    found["lr_scheduler"] = {
        "component_type_key": "LR_SCHEDULER",
        "variant_key": "DEFAULT",
        "config": {
            "lr_scheduler_key": "OneCycleLR",
            "params": {"max_lr": 0.05, "total_steps": EPOCHS * BATCHES},
        },
    }
    return found


def spec(workers: int = 0, **changes: Any) -> ExperimentSpec:
    values: dict[str, Any] = {"seed": 3, "num_epochs": EPOCHS, **changes}
    return ExperimentSpec("g", 0, grid_config(workers=workers), "hash", {}, **values)


if __name__ == "__main__":
    run(blueprint)

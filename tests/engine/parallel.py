"""A run.py for tests: trainings whose results do not depend on how many processes share them, but for rounding.

37 samples in batches of 12: processes have parts of different sizes, and with three of them the last one, of a single
sample, leaves two without any.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlgym import run
from mlgym.build.registry import Registry
from mlgym.parts.datasets import Columns
from tests.engine.grids import config

BATCH = 12


def blobs(storage: Path, split: str) -> Columns:
    generator = torch.Generator().manual_seed(len(split))
    targets = torch.randint(0, 3, (37,), generator=generator)
    return Columns(torch.randn(37, 6, generator=generator) + targets[:, None], targets)


class Net(nn.Module):
    """`kind` says what is special about it."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        self.kind = kind
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        self.unused = nn.Linear(6, 3) if kind == "unused" else None
        if kind == "lazy":
            self.layers[0] = nn.LazyLinear(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(float(os.environ.get("MLGYM_TEST_SLEEP", "0")))
        out: torch.Tensor = self.layers(x)
        rank = os.environ.get("RANK")
        if self.training and self.kind == "second_raises" and rank == "1":
            raise ValueError("not me")
        return out


def blueprint(registry: Registry) -> None:
    registry.model("net", Net)
    registry.dataset("blobs", blobs)


CROSS_ENTROPY = {
    "tag": "ce",
    "key": "CrossEntropyLoss",
    "prediction_subscription_key": "logits",
    "target_subscription_key": "target_key",
}
WEIGHTED = {**CROSS_ENTROPY, "tag": "weighted", "params": {"weight": [0.2, 1.0, 5.0], "ignore_index": 1}}
SUMMED = {**CROSS_ENTROPY, "tag": "summed", "params": {"average_batch_loss": False}}
TERMS = {"tag": "terms", "terms": [{**CROSS_ENTROPY, "weight": 0.5}, {**WEIGHTED, "weight": 2.0}]}
LOSSES = [CROSS_ENTROPY, WEIGHTED, SUMMED, TERMS]


def grid_config(kinds: Any = "plain", losses: list[Any] | None = None, **changes: dict[str, Any]) -> dict[str, Any]:
    """A gs_config; `changes` are those to the configs of components, by name."""
    found = config({"kind": kinds}, 0)
    found["iterators"]["config"] = {
        "dataset_identifier": "blobs",
        "split_configs": [{"split": "train"}, {"split": "test"}],
    }
    found["loaders"]["config"]["batch_size"] = BATCH
    found["train_component"]["config"]["loss_fun_config"] = (
        losses[0] if losses and len(losses) == 1 else {"sweep": "absolute", "values": losses or LOSSES}
    )
    found["optimizer"]["config"] = {"optimizer_key": "AdamW", "params": {"lr": 0.02}}
    found["eval_component"]["config"] |= {
        "loss_funs_config": [CROSS_ENTROPY, WEIGHTED],
        "post_processors_config": [
            {"key": "ARG_MAX", "prediction_subscription_key": "logits", "prediction_publication_key": "class"}
        ],
        "metrics_config": [
            {
                "key": key,
                "tag": key,
                "prediction_subscription_key": prediction,
                "target_subscription_key": "target_key",
                "params": params,
            }
            for key, prediction, params in (
                ("F1_SCORE", "class", {"average": "macro"}),
                ("ACCURACY", "class", {}),
                ("AUROC", "logits", {}),
            )
        ],
    }
    found["lr_scheduler"] = {
        "component_type_key": "LR_SCHEDULER",
        "variant_key": "DEFAULT",
        "config": {
            "lr_scheduler_key": "ReduceLROnPlateau",
            "params": {"patience": 0, "factor": 0.3},
            "split_name": "test",
            "monitoring_key": "ce",
        },
    }
    for name, values in changes.items():
        found[name]["config"] |= values
    for name in ("train_component", "trainer", "eval_component", "evaluator"):
        found[name]["variant_key"] = "ACCELERATE"
    return found


if __name__ == "__main__":
    run(blueprint)

"""Data sets and models for tests of cross validation; also a run.py for them. What they are given is noted in a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from mlgym import run
from mlgym.build.registry import Registry
from mlgym.parts.datasets import Columns
from tests.engine.grids import config


def note(**values: Any) -> None:
    """One line, if a test asks for it."""
    if path := os.environ.get("MLGYM_TEST_NOTES"):
        with Path(path).open("a") as file:
            file.write(json.dumps(values) + "\n")


def flowers() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's iris, in double precision, scaled by fixed numbers so that every solver converges."""
    from sklearn.datasets import load_iris

    values, targets = load_iris(return_X_y=True)
    samples = torch.from_numpy(values)
    return (samples - torch.tensor([5.8, 3.1, 3.8, 1.2])) / torch.tensor([0.8, 0.4, 1.8, 0.8]), torch.from_numpy(
        targets
    )


def iris(storage: Path, split: str) -> Columns:
    note(built="iris")
    return Columns(*flowers())


class Slow(Dataset[Any]):
    """48 samples of 4 numbers and 3 classes; reading takes time to be killed in, when a test asks for it."""

    def __init__(self) -> None:
        self.samples = torch.rand(48, 4, generator=torch.Generator().manual_seed(0))
        self.targets = [i % 3 for i in range(48)]

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        time.sleep(float(os.environ.get("MLGYM_TEST_SLEEP", "0")))
        return self.samples[index], self.targets[index], self.targets[index]


def slow(storage: Path, split: str) -> Slow:
    return Slow()


class Linear(nn.Module):
    """Logistic regression, from zero."""

    def __init__(self, ids: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        note(ids=ids)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


class Net(nn.Module):
    """Something that draws: its weights, and dropout. It fails where `ids` are one of `fails`."""

    def __init__(self, width: int = 8, ids: Any = None, fails: Any = ()) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))
        self.fails = ids in fails

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fails and self.training:
            raise RuntimeError("as asked")
        out: torch.Tensor = self.layers(x)
        return out


class Penalised(torch.optim.LBFGS):
    """LBFGS with `weight_decay` on everything but biases."""

    def __init__(self, params: Any, weight_decay: float = 0.0) -> None:
        options: dict[str, Any] = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-9, "tolerance_change": 1e-12}
        super().__init__(params, max_iter=500, **options)
        self.penalty = weight_decay
        self.weights = [p for group in self.param_groups for p in group["params"] if p.ndim > 1]

    def step(self, closure: Callable[[], float]) -> Any:  # type: ignore[override]
        def penalised() -> float:
            loss = float(closure())
            for weight in self.weights:
                assert weight.grad is not None
                weight.grad.add_(weight.detach(), alpha=self.penalty)
                loss += 0.5 * self.penalty * float(weight.detach().square().sum())
            return loss

        return super().step(penalised)  # type: ignore[no-untyped-call, unused-ignore]


def blueprint(registry: Registry) -> None:
    registry.dataset("iris", iris)
    registry.dataset("slow", slow)
    registry.model("linear", Linear)
    registry.model("net", Net)
    registry.optimizer("PENALISED", Penalised)


def sweep(*values: Any) -> dict[str, Any]:
    return {"sweep": "absolute", "values": list(values)}


def injectable(name: str) -> dict[str, Any]:
    return {"injectable": {"id": name}}


def folded(definition: dict[str, Any], split: str = "val") -> dict[str, Any]:
    """A gs_config over `slow` and the model `net` that trains on one part of each fold and evaluates on `split`."""
    found = config(definition, 0)
    found["iterators"]["config"]["dataset_identifier"] = "slow"
    found["folds"] = {
        "component_type_key": "ITERATOR_VIEW",
        "variant_key": "DEFAULT",
        "requirements": [{"name": "iterators", "component_name": "iterators"}],
        "config": {"applicable_split": "train", "split_indices": injectable("id_split_indices")},
    }
    found["loaders"]["requirements"][0]["component_name"] = "folds"
    found["eval_component"]["requirements"][1]["subscription"] = [split]
    found["eval_component"]["config"] |= {
        "metrics_config": [
            {
                "key": "ACCURACY",
                "tag": "accuracy",
                "prediction_subscription_key": "class",
                "target_subscription_key": "target_key",
            }
        ],
        "post_processors_config": [
            {"key": "ARG_MAX", "prediction_subscription_key": "logits", "prediction_publication_key": "class"}
        ],
    }
    return found


def regression(penalties: list[float], split: str = "val", **ids: str) -> dict[str, Any]:
    """A gs_config of logistic regressions on `iris`, trained until they no longer move; `ids` are noted."""
    found = folded({"ids": {key: injectable(name) for key, name in ids.items()}}, split)
    found["iterators"]["config"]["dataset_identifier"] = "iris"
    found["loaders"]["config"]["batch_size"] = 200
    found["model"]["requirements"][0]["subscription"] = "linear"
    found["optimizer"]["config"] = {"optimizer_key": "PENALISED", "params": {"weight_decay": sweep(*penalties)}}
    return found


if __name__ == "__main__":
    run(blueprint)

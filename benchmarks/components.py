"""Training steps of the digits network with one component more, against the same written by hand in torch: same data
in memory, same batches (index whole batches), same torch objects. No evaluation, no events. One torch thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.epoch import DIGITS
from benchmarks.measure import Result, in_turns, ratios
from mlgym.build.catalog import built_in
from mlgym.engine import experiment
from mlgym.plan.config import read
from mlgym.plan.sweep import expand
from mlgym.schema import import_path
from mlgym.specs import ExperimentSpec

PASSES = 4


def _parts(**changes: dict[str, Any]) -> experiment.Parts:
    sys.path.insert(0, str(DIGITS))
    config = expand(read(DIGITS / "gs_config.yml").value)[5].config
    config["early_stopping_strategy"]["config"] = {"early_stopping_key": "NONE"}
    for name, change in changes.items():
        config[name] = {**config[name], **change, "config": {**config[name]["config"], **change.get("config", {})}}
    registry = built_in()
    registry.model("conv_net", import_path("conv_net:ConvNet"))
    return experiment.build(ExperimentSpec("g", 0, config, "", {}, 0, 1), registry, torch.device("cpu"))


def _ours(parts: experiment.Parts) -> Callable[[], None]:
    def run() -> None:
        for _ in range(PASSES):
            for _ in parts.trainer.epoch(parts.backend, parts.optimizer):
                if parts.schedule and parts.trainer.stepped:
                    parts.schedule.after_optimizer_step()

    return run


def _by_hand(
    parts: experiment.Parts,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
    clip: float | None = None,
    schedulers: list[Any] | None = None,
) -> Callable[[], None]:
    model, loader = parts.model, parts.trainer.loader
    samples, targets = loader.dataset.take(slice(None))

    def run() -> None:
        model.train()
        for _ in range(PASSES):
            for rows in loader._order(0).split(loader.batch_size):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss(model(samples[rows]), targets[rows]).backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                for optimizer in optimizers:
                    optimizer.step()
                for scheduler in schedulers or []:
                    scheduler.step()

    return run


def run() -> list[Result]:
    torch.set_num_threads(1)
    cross_entropy = nn.CrossEntropyLoss()

    def adam(parts: experiment.Parts) -> torch.optim.Optimizer:
        return torch.optim.Adam(parts.model.parameters(), lr=1e-3)

    def bundle(parts: experiment.Parts) -> list[torch.optim.Optimizer]:
        layers: Any = parts.model.layers
        features = [*layers[0].parameters(), *layers[3].parameters()]
        return [torch.optim.SGD(features, lr=0.1), torch.optim.Adam(layers[7].parameters(), lr=1e-3)]

    bundled = {
        "optimizers_config": {
            "features": {"optimizer_key": "SGD", "params": {"lr": 0.1}},
            "classifier": {"optimizer_key": "ADAM", "params": {"lr": 1e-3}},
        },
        "optimizer_key_to_param_key_filters": {"features": ["layers.0", "layers.3"], "classifier": ["layers.7"]},
    }
    smooth = {
        "key": "CrossEntropyLoss",
        "prediction_subscription_key": "logits",
        "target_subscription_key": "target_key",
        "label_smoothing": 0.1,
        "params": {"weight": [1.0] * 10},
    }
    one_cycle = {"lr_scheduler_key": "OneCycleLR", "params": {"max_lr": 0.01, "total_steps": 10**6}}
    cases: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}

    base = _parts()
    base.schedule = None
    cases["cross entropy, Adam"] = _ours(base), _by_hand(base, cross_entropy, [adam(base)])
    parts = _parts(train_component={"config": {"loss_fun_config": smooth}})
    parts.schedule = None
    weighted = nn.CrossEntropyLoss(weight=torch.ones(10), label_smoothing=0.1)
    cases["class weights, label smoothing"] = _ours(parts), _by_hand(parts, weighted, [adam(parts)])
    parts = _parts(train_component={"config": {"max_grad_norm": 1.0}})
    parts.schedule = None
    cases["gradient clipping"] = _ours(parts), _by_hand(parts, cross_entropy, [adam(parts)], clip=1.0)
    parts = _parts(lr_scheduler={"config": one_cycle})
    own = adam(parts)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(own, max_lr=0.01, total_steps=10**6)
    cases["one cycle, by batch"] = _ours(parts), _by_hand(parts, cross_entropy, [own], schedulers=[scheduler])
    parts = _parts(data_loaders={"config": {"weighted_sampling_split_name": "train"}})
    parts.schedule = None
    cases["weighted sampling"] = _ours(parts), _by_hand(parts, cross_entropy, [adam(parts)])
    config = expand(read(DIGITS / "gs_config.yml").value)[5].config
    config["optimizer"] = {"component_type_key": "OPTIMIZER", "variant_key": "BUNDLE", "config": bundled}
    registry = built_in()
    registry.model("conv_net", import_path("conv_net:ConvNet"))
    parts = experiment.build(ExperimentSpec("g", 0, config, "", {}, 0, 1), registry, torch.device("cpu"))
    parts.schedule = None
    cases["a bundle of two optimizers"] = _ours(parts), _by_hand(parts, cross_entropy, bundle(parts))

    results = []
    for name, (ours, by_hand) in cases.items():
        taken = in_turns({"ours": ours, "by hand": by_hand}, rounds=11)
        results.append(Result(name, "times by hand", ratios(taken, "ours", "by hand"), "at most 1.05"))
    return results

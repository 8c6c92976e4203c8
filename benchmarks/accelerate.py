"""An epoch of the digits example (batch size 32, evaluation of three splits included), by the times of its scores in
the log, start-up left out: `environment: accelerate` with one process, and with two, against `multiprocessing` with
one. Whole runs of `python run.py`, in turns, one thread a process. On two cores, two processes gain nothing with a
network this small: they wait for each other after every batch. Where there is a GPU: training steps there in bf16, on
images of the digits' and of CIFAR's shape, against a plain loop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Result, in_turns, ratios
from mlgym.plan.config import read
from mlgym.plan.sweep import expand
from mlgym.record.log import read_state

ROOT = Path(__file__).parent.parent
EPOCHS = 30
ROUNDS = 3
FIRST = 4
"""Scores before the one from which on it is measured."""

VARIANTS: dict[str, dict[str, Any]] = {
    "multiprocessing": {"type": "multiprocessing", "config": {"process_count": 1}},
    "accelerate, one process": {"type": "accelerate", "config": {"num_processes": 1}},
    "accelerate, two processes": {"type": "accelerate", "config": {"num_processes": 2}},
}


def _epoch(environment: dict[str, Any]) -> float:
    """Seconds of an epoch."""
    config = expand(read(ROOT / "example/digits_grid/gs_config.yml").value)[5].config
    config.pop("early_stopping_strategy")
    config["checkpointing_strategy"]["config"] = {"checkpointing_key": "NONE"}
    train = {"gs_config_path": "gs_config.yml", "num_epochs": EPOCHS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "gs_config.yml").write_text(json.dumps(config))
        what = {"run_configuration": {"type": "train", "config": train}, "environment": environment}
        (folder / "run_config.yml").write_text(json.dumps({**what, "logging": {"board": False}}))
        script = str(ROOT / "example/digits_grid/run.py")
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, script, "--config_path", "run_config.yml"]
        subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True)
        (log,) = folder.glob("event_storage/*/event_storage.log")
        times = read_state(log).experiments[0].evaluations.times
    return (times[-1] - times[FIRST]) / 1000 / (EPOCHS - FIRST)


def run() -> list[Result]:
    taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name, environment in VARIANTS.items():
            taken[name].append(_epoch(environment))
    results = [Result("multiprocessing", "s an epoch", taken["multiprocessing"])]
    for name, goal in (("accelerate, one process", "at most 1.05"), ("accelerate, two processes", "")):
        results.append(Result(f"{name} / multiprocessing", "times", ratios(taken, name, "multiprocessing"), goal))
    import torch

    return results + (on_a_gpu() if torch.cuda.is_available() else [])


def on_a_gpu() -> list[Result]:
    """Steps in bf16, where Accelerate finds a GPU (or, for want of one, on the CPU)."""
    results = []
    for name, shape, channels in (("digits", (1, 8, 8), 16), ("CIFAR-shaped", (3, 32, 32), 64)):
        taken = in_turns(
            {"plain": _steps(shape, channels, ours=False), "ours": _steps(shape, channels, ours=True)}, ROUNDS
        )
        results.append(Result(f"{name}, bf16 / plain loop", "times", ratios(taken, "ours", "plain")))
    return results


def _steps(shape: tuple[int, int, int], channels: int, ours: bool, batches: int = 100) -> Callable[[], None]:
    import torch
    from torch import nn

    from mlgym.build.catalog import built_in
    from mlgym.parts.accelerated import Accelerated
    from mlgym.parts.data import Collator, Loader
    from mlgym.parts.datasets import Columns
    from mlgym.parts.models import model
    from mlgym.parts.trainer import Trainer, train_component

    size = shape[1] // 2

    def network() -> nn.Module:
        layers = [nn.Conv2d(shape[0], channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1)]
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(channels * size * size, 10))

    data = Columns(torch.rand(64 * batches, *shape), torch.randint(0, 10, (64 * batches,)))
    backend = Accelerated()
    device = backend.device
    net = backend.place(model(network, model_definition={}, prediction_publication_keys="p", seed=0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loader = Loader(data, Collator("t"), 64, seed=0)
    if ours:
        tables = built_in().tables
        keys = {"prediction_subscription_key": "p", "target_subscription_key": "t"}
        component = train_component(
            tables["loss_function_registry"],
            tables["prediction_postprocessing_registry"],
            loss_fun_config={"key": "CrossEntropyLoss", "tag": "loss", **keys},
            precision="bf16",
        )
        trainer = Trainer(component, net, loader)
        backend.prepare(net, optimizer)

        def train() -> None:
            for _ in trainer.epoch(backend, optimizer):
                pass
            _settled(device)

        return train
    loss_function = nn.CrossEntropyLoss()

    def plain() -> None:
        for rows in torch.randperm(len(data)).split(64):
            x, y = data.samples[rows].to(device, non_blocking=True), data.targets[rows].to(device, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_function(net(x), y)
            loss.backward()
            optimizer.step()
        _settled(device)

    return plain


def _settled(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)

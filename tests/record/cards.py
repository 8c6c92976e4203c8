"""Logs for tests of model cards, with everything in them that a card can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlgym.plan.config import read
from mlgym.plan.sweep import expand
from mlgym.record.card import card
from mlgym.record.card_schema import ModelCard
from mlgym.record.card_sources import sources
from mlgym.record.events import (
    ClassCounts,
    ClassResults,
    DataFacts,
    JobUsage,
    LabelCount,
    Layer,
    ModelFacts,
    SplitFacts,
    SystemInfo,
)
from mlgym.record.log import Log
from tests.conftest import DIGITS
from tests.ml_board.page.logs import Script

HOST: dict[str, Any] = {
    "operating_system": "Linux-6.1",
    "architecture": "x86_64",
    "processor": "A processor",
    "cores": 8,
    "memory_bytes": 2**34,
    "python": "3.11.7",
    "packages": {"torch": "2.13.0"},
    "all_packages": ["torch==2.13.0", "numpy==2.4.6"],
    "git": {"commit": "0123abcd", "dirty": True},
    "gpus": [{"name": "A GPU", "memory_bytes": 2**36, "cuda": "12.8", "cudnn": 91002}],
    "command_line": ["run.py", "--config_path", "run_config.yml"],
    "working_directory": "/home/somebody/secret",
}
INFO: dict[str, Any] = {
    "model_description": "Reads digits.",
    "model_version": "1.2",
    "source_repo": "https://example.org/digits",
    "license": "apache-2.0",
    "tags": ["digits"],
    "intended_use": "Tests.",
    "limitations": "Small pictures only.",
    "class_names": ["zero", "one", "two"],
    "power_watts": 250,
    "carbon_intensity_g_per_kwh": 400,
    "price_per_kwh": 0.5,
    "currency": "EUR",
    "funding": "none",
}
CONFUSION = [[5, 1, 0], [0, 6, 0], [2, 0, 4]]


def announced(gs: str, info: dict[str, Any] = INFO, host: dict[str, Any] = HOST) -> Script:
    """Experiment 0 of the digits example begins."""
    script = Script(gs)
    script.grid(num_experiments=1, model_info=info)
    script.put(SystemInfo(grid_search_id=gs, host="node-1", info=host))
    cell = expand(read(DIGITS / "gs_config.yml").value)[1]
    script.config(0, {".".join(map(str, path)): value for path, value in cell.swept.items()}, 3, cell.config)
    script.job(0, "RUNNING", num_threads=2)
    return script


def told(script: Script, text: str = "") -> Script:
    """What a training says of itself; `text` is in all of its texts."""
    gs = script.id
    layers = [Layer(f"first{text}", f"Linear{text}", 20, 16), Layer(f"last{text}", "ReLU")]
    script.put(
        ModelFacts(
            grid_search_id=gs,
            experiment_id=0,
            type=f"nets.Net{text}",
            parameters=20,
            trainable=16,
            size_bytes=80,
            modules=2,
            layers=layers,
        )
    )
    labels = [LabelCount(0, 6), LabelCount(1, 6), LabelCount(2, 6)]
    split = SplitFacts(
        split=f"train{text}",
        samples=72,
        uses=["training"],
        batch_size=8,
        sample_shape=[1, 8, 8],
        sample_dtype=f"float32{text}",
        uncounted=f"it would take reading every item{text}",
    )
    val = SplitFacts(split=f"val{text}", samples=18, uses=["evaluation"], batch_size=8, labels=labels)
    script.put(DataFacts(grid_search_id=gs, experiment_id=0, splits=[split, val]))
    for epoch in range(4):
        script.wait(900)
        accuracy, loss = (0.3, 0.7, 0.9, 15 / 18)[epoch], (1.1, 0.4, 0.3, 0.2)[epoch]
        script.scores(0, epoch, {f"val{text}/accuracy": accuracy, f"val{text}/cross_entropy_loss": loss})
    counts = ClassCounts(
        split=f"val{text}",
        target=f"target{text}",
        prediction=f"class{text}",
        labels=[0, 1, 2],
        actual=[6, 6, 6],
        predicted=[7, 7, 4],
        correct=[5, 6, 4],
        confusion=CONFUSION,
    )
    for epoch in (2, 3):
        script.put(ClassResults(grid_search_id=gs, experiment_id=0, epoch=epoch, splits=[counts]))
    script.checkpoint(0, 3, {"model.safetensors": b"weights"})
    script.put(
        JobUsage(
            grid_search_id=gs,
            experiment_id=0,
            job_id="0-1",
            training_seconds=3000,
            evaluation_seconds=500,
            memory_bytes=2**30,
        )
    )
    script.job(0, "DONE")
    return script


def carded(script: Script, folder: Path) -> ModelCard:
    """The card of experiment 0, from a log on disk."""
    script.write(folder)
    log = Log.load(folder / script.id / "event_storage.log")
    return card(sources(log, log.state, 0))

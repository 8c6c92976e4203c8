"""An epoch of the digits example (batch size 32) through mlgym, progress events included, against the same model
in a plain PyTorch loop with the same DataLoader and the same batches. Both evaluate three splits after it: loss,
accuracy and macro F1 by torchmetrics. `item by item` goes through torch's DataLoader; `in memory` indexes whole
batches, as the example does. One torch thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Result, in_turns, ratios
from mlgym.build.catalog import built_in
from mlgym.engine import experiment
from mlgym.parts.batch import Batch
from mlgym.parts.data import Collator
from mlgym.parts.datasets import Item
from mlgym.plan.config import read
from mlgym.plan.sweep import expand
from mlgym.record.spool import Spool
from mlgym.schema import import_path
from mlgym.specs import ExperimentSpec

DIGITS = Path(__file__).parent.parent / "example" / "digits_grid"
EPOCHS = 5
ROUNDS = 11


class ItemByItem:
    """The built-in collator without its way to take whole batches."""

    def __init__(self) -> None:
        self._collate = Collator()

    def __call__(self, batch: list[Item]) -> Batch:
        return self._collate(batch)


def _spec() -> ExperimentSpec:
    config = expand(read(DIGITS / "gs_config.yml").value)[5].config
    config["early_stopping_strategy"]["config"] = {"early_stopping_key": "NONE"}
    return ExperimentSpec("g", 0, config, "", {}, 0, EPOCHS)


def _parts(spec: ExperimentSpec, collate: Any) -> experiment.Parts:
    import sys

    sys.path.insert(0, str(DIGITS))
    registry = built_in()
    registry.model("conv_net", import_path("conv_net:ConvNet"))
    parts = experiment.build(spec, registry, torch.device("cpu"))
    if collate is not None:
        for loader in parts.graph["data_loaders"].values():
            loader._collate, loader._columns = collate, None
    return parts


def _mlgym(folder: Path, collate: Any = None) -> Callable[[], None]:
    spec = _spec()
    parts = _parts(spec, collate)
    spool = Spool(folder / f"{id(parts)}.jsonl", "bench")

    def run() -> None:
        experiment.run(spec, parts, spool.emit, lambda: False)

    return run


def _plain() -> Callable[[], None]:
    """What one would write by hand, with the same data, order, model and scores."""
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    parts = _parts(_spec(), None)
    model, optimizer, scheduler = parts.model, parts.optimizer, parts.schedule
    loaders = parts.graph["data_loaders"]
    loss_function = nn.CrossEntropyLoss()

    def collate(items: list[Item]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([item[0] for item in items]), torch.stack([item[1] for item in items])

    def torch_loader(loader: Any, order: list[int]) -> Any:
        return torch.utils.data.DataLoader(loader.dataset, loader.batch_size, sampler=order, collate_fn=collate)

    evaluation = {split: torch_loader(loader, list(range(len(loader.dataset)))) for split, loader in loaders.items()}

    def evaluate() -> dict[str, list[float]]:
        model.eval()
        scores = {}
        for split, loader in evaluation.items():
            with torch.no_grad():
                pairs = [(model(x), y) for x, y in loader]
            logits, targets = torch.cat([p for p, _ in pairs]), torch.cat([y for _, y in pairs])
            classes = logits.argmax(1)
            scores[split] = [
                float(loss_function(logits, targets)),
                float(multiclass_accuracy(classes, targets, 10, average="micro")),
                float(multiclass_f1_score(classes, targets, 10, average="macro")),
            ]
        return scores

    def run() -> None:
        evaluate()
        for epoch in range(EPOCHS):
            train = loaders["train"]
            generator = torch.Generator().manual_seed(epoch)
            order = torch.randperm(len(train.dataset), generator=generator).tolist()
            model.train()
            for x, y in torch_loader(train, order):
                optimizer.zero_grad()
                loss_function(model(x), y).backward()
                optimizer.step()
            evaluate()
            assert scheduler
            scheduler.scheduler.step()

    return run


def run() -> list[Result]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        taken = in_turns(
            {
                "plain": _plain(),
                "item by item": _mlgym(Path(folder), ItemByItem()),
                "in memory": _mlgym(Path(folder)),
            },
            ROUNDS,
        )
    return [
        Result("plain PyTorch loop", "s for 5 epochs", taken["plain"]),
        Result("mlgym, item by item / plain", "times", ratios(taken, "item by item", "plain"), "at most 1.05"),
        Result("mlgym, in memory / plain", "times", ratios(taken, "in memory", "plain"), "at most 0.85"),
    ]

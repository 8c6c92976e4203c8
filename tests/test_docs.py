"""What the documentation shows is what the code does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from docs.make_components import EXAMPLES, PAGE, page, undocumented
from mlgym.build.catalog import built_in
from mlgym.build.graph import Graph
from mlgym.engine import experiment
from mlgym.parts.datasets import Columns
from mlgym.parts.losses import loss
from mlgym.parts.metrics import metric
from mlgym.plan.config import Document, read, required
from mlgym.plan.sweep import expand
from mlgym.record.events import EvaluationResult, Payload
from mlgym.record.log import read_state
from mlgym.schema import import_path
from mlgym.specs import ExperimentSpec
from tests.conftest import DIGITS, ROOT, Run

DOCUMENTED: dict[str, Any] = read(EXAMPLES).value


def test_the_reference_is_what_the_registry_says() -> None:
    assert PAGE.read_text() == page(), "run `python -m docs.make_components`"


def test_every_component_has_an_example() -> None:
    assert [name for name in undocumented(built_in()) if "REGISTRY" not in name] == []


def measurements() -> dict[str, Columns]:
    samples = torch.tensor([[1.0, 2.0, 0.0], [3.0, 5.0, 1.0], [4.0, 4.0, 2.0]])
    return {split: Columns(samples, torch.tensor([0, 1, 0])) for split in ("train", "val")}


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if " / " in name])
def test_examples_of_components_are_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    registry = built_in()
    registry.model("conv_net", import_path("conv_net:ConvNet"))
    registry.component("DATASET_ITERATORS", "MEASUREMENTS", measurements)
    base = expand(read(DIGITS / "gs_config.yml").value)[0].config
    base["measurements"] = {"component_type_key": "DATASET_ITERATORS", "variant_key": "MEASUREMENTS"}
    (component,) = DOCUMENTED[name]
    config = base | DOCUMENTED[name]
    built = Graph(required(config, [component]), registry, 0)[component]
    if component == "optimizer":
        built(Graph(required(config, ["model"]), registry, 0)["model"])
    elif isinstance(built, dict):  # splits: their items can be read
        for dataset in built.values():
            assert len(dataset) > 0
            if not hasattr(dataset, "training_batches"):
                assert len(dataset[0]) == 3


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if ": " in name])
def test_examples_of_named_parts_are_built(name: str) -> None:
    table_name, _, key = name.partition(": ")
    table = built_in().tables[table_name]
    entry = DOCUMENTED[name]
    if table_name == "loss_function_registry":
        assert entry.get("key") == key
        loss(table, entry, ())
    elif table_name == "metric_registry":
        assert entry["key"] == key
        metric(table, entry, ())
    elif table_name == "prediction_postprocessing_registry":
        assert entry["key"] == key
        table.build_keyed(entry, ())
    elif table_name in ("early_stopping_strategy_registry", "checkpointing_strategy_registry"):
        (kind,) = (k.removesuffix("_key") for k in entry if k.endswith("_key"))
        assert entry[f"{kind}_key"] == key
        table.build(key, entry.get(f"{kind}_config", {}), (), ())
    else:
        assert callable(table[key])


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_extending_runs() -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    names: dict[str, Any] = {"__name__": "extending"}
    for block in blocks(text, "python"):
        exec(compile(block, "docs/extending.md", "exec"), names)
    (config,) = blocks(text, "yaml")
    registry = built_in()
    names["blueprint"](registry)
    spec = ExperimentSpec("g", 0, expand(Document(Path("extending.yml"), config).value)[0].config, "", {}, 0, 3)
    parts = experiment.build(spec, registry, torch.device("cpu"))
    events: list[Payload] = []
    assert experiment.run(spec, parts, events.append, lambda: False) == experiment.Outcome("DONE")
    results = [event for event in events if isinstance(event, EvaluationResult)]
    assert [result.epoch for result in results] == [0, 1, 2, 3]
    assert {score.metric for score in results[-1].metric_scores} == {"top_three"}
    assert parts.optimizer.param_groups[0]["lr"] == 0.005


@pytest.mark.parametrize(
    ("name", "score", "least"),
    [
        ("tabular", "val/balanced_accuracy", 0.85),
        ("regression", "val/R2", 0.2),
        ("ray", "val/R2", 0.2),
        ("cross_validation", "val/accuracy", 0.8),
        ("ddp", "val/accuracy", 0.8),
        ("nested_cross_validation", "test/accuracy", 0.8),
    ],
)
def test_examples_learn(name: str, score: str, least: float, tmp_path: Path, python: Run) -> None:
    folder = tmp_path / name
    shutil.copytree(ROOT / "example" / name, folder, ignore=shutil.ignore_patterns("event_storage", "__pycache__"))
    ended = python("run.py", "--config_path", "run_config.yml", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    (log,) = folder.glob("event_storage/*/event_storage.log")
    best = [max(experiment.scores[score].values()) for experiment in read_state(log).experiments.values()]
    assert min(best) > least


@pytest.mark.long
def test_the_warm_start_example(tmp_path: Path, python: Run) -> None:
    ended = python(ROOT / "example" / "warm_start" / "warm_start.py", tmp_path / "runs")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("the same scores, to the last bit\n")
    assert "goes on after epoch" in ended.stdout


def test_the_readme_is_short_and_its_files_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / target).exists(), target

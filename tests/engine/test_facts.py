"""What a training says of itself beside its scores, for all kinds of tasks: real trainings, read back from their spools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from mlgym.build.catalog import built_in
from mlgym.engine.worker import run_job
from mlgym.parts.class_counts import ClassCounter
from mlgym.parts.datasets import Columns
from mlgym.plan.config import read
from mlgym.plan.sweep import expand
from mlgym.record.events import (
    ClassCounts,
    ClassResults,
    DataFacts,
    EvaluationResult,
    JobStatus,
    JobUsage,
    ModelFacts,
    Payload,
    SplitFacts,
    Warned,
    decode_lines,
)
from mlgym.specs import ExperimentSpec, RunPaths
from tests.conftest import DIGITS

SPLITS = {"train": 60, "val": 20, "test": 20}


class Net(nn.Module):
    """Two layers that share their weights, a frozen one, and a buffer."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4)
        self.again.weight = self.first.weight
        self.head = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, outputs))
        self.first.bias.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.again(self.first(x.flatten(1))))
        return out


class Unlabelled(Dataset[Any]):
    """Items that have to be read to be known; it says how many were."""

    reads = 0

    def __init__(self, samples: torch.Tensor, targets: torch.Tensor) -> None:
        self.pairs = list(zip(samples, targets, strict=True))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        Unlabelled.reads += 1
        sample, target = self.pairs[index]
        return sample, target, target


def train(
    folder: Path,
    targets: torch.Tensor,
    loss: str = "CrossEntropyLoss",
    metrics: list[dict[str, Any]] | None = None,
    outputs: int = 3,
    epochs: int = 3,
    dataset: Callable[[torch.Tensor, torch.Tensor], Any] = Columns,
    evaluated: list[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
    model: Callable[..., nn.Module] = Net,
) -> list[Payload]:
    """Everything that a training on 100 samples with these targets records."""
    samples = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(1))
    registry = built_in()
    registry.dataset("made", lambda storage, split: dataset(samples, targets))
    registry.model("conv_net", model)
    config = expand(read(DIGITS / "gs_config.yml").value)[0].config
    keys = {"prediction_subscription_key": "logits", "target_subscription_key": "target_key"}
    fun = {"key": loss, "tag": "loss", **keys}
    changes: dict[str, dict[str, Any]] = {
        "dataset_iterators": {"dataset_identifier": "made"},
        "splitted_dataset_iterators": {
            "split_configs": {"train": {name: count / 100 for name, count in SPLITS.items()}},
            "stratified": False,
        },
        "model": {"model_definition": {"outputs": outputs}},
        "train_component": {"loss_fun_config": fun},
        "eval_component": {
            "post_processors_config": [
                {"key": "ARG_MAX", "prediction_subscription_key": "logits", "prediction_publication_key": "labels"}
            ],
            "metrics_config": metrics or [],
            "loss_funs_config": [fun],
        },
    }
    for name, values in changes.items():
        config[name] = {**config[name], "config": {**config[name]["config"], **values}}
    del config["early_stopping_strategy"]
    if evaluated:
        requirements = config["eval_component"]["requirements"]
        loaders = {"name": "data_loaders", "component_name": "data_loaders", "subscription": evaluated}
        config["eval_component"]["requirements"] = [requirements[0], loaders]
    spec = ExperimentSpec("g", 3, config, "hash", {}, 0, epochs)
    run_job(spec, RunPaths(folder, "g"), "s", registry, torch.device("cpu"), stop)
    (spool,) = (folder / "g" / "spool").iterdir()
    return [event.payload for event in decode_lines(spool.read_bytes())]  # type: ignore[union-attr]


def only(events: list[Payload], kind: Any) -> Any:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def splits(events: list[Payload]) -> dict[str, SplitFacts]:
    return {split.split: split for split in only(events, DataFacts).splits}


def classes(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 3, (100,), generator=torch.Generator().manual_seed(seed))


ACCURACY = {
    "key": "ACCURACY",
    "tag": "accuracy",
    "prediction_subscription_key": "labels",
    "target_subscription_key": "target_key",
}


def test_the_model_is_counted_once_however_it_is_shared(tmp_path: Path) -> None:
    facts: ModelFacts = only(train(tmp_path, classes()), ModelFacts)
    assert facts.type == f"{Net.__module__}.Net"
    assert facts.parameters == 16 + 4 + 4 + 8 + 15
    assert facts.trainable == facts.parameters - 4
    buffers = 4 * 4 + 4 * 4 + 8  # of the normalisation: two vectors of floats, and a count
    assert facts.size_bytes == 4 * facts.parameters + buffers
    assert [(layer.name, layer.type, layer.parameters, layer.trainable) for layer in facts.layers] == [
        ("first", "Linear", 20, 16),
        ("again", "Linear", 4, 4),
        ("head.0", "ReLU", 0, 0),
        ("head.1", "BatchNorm1d", 8, 8),
        ("head.2", "Linear", 15, 15),
    ]


def test_layers_of_a_deep_model_are_summed_up(tmp_path: Path) -> None:
    class Deep(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(nn.Sequential(*(nn.Identity() for _ in range(9))) for _ in range(30)))
            self.head = nn.Linear(4, outputs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.blocks(x))
            return out

    facts: ModelFacts = only(train(tmp_path, classes(), epochs=1, model=Deep), ModelFacts)
    assert facts.modules == 271
    assert len(facts.layers) == 31
    assert facts.layers[-1].name == "head"
    assert sum(layer.parameters for layer in facts.layers) == facts.parameters == 15


def test_classification(tmp_path: Path) -> None:
    targets = classes()
    events = train(tmp_path, targets, metrics=[ACCURACY])
    found = splits(events)
    assert {name: split.samples for name, split in found.items()} == SPLITS
    assert found["train"].uses == ["training", "evaluation"]
    assert found["val"].uses == ["evaluation"]
    assert (found["val"].sample_shape, found["val"].sample_dtype) == ([4], "float32")
    assert (found["val"].target_shape, found["val"].target_dtype) == ([], "int64")
    total = {
        label: sum({one.label: one.count for one in s.labels}[label] for s in found.values()) for label in range(3)
    }
    assert total == dict(enumerate(targets.bincount().tolist()))

    scores = {e.epoch: e for e in events if isinstance(e, EvaluationResult)}
    results = [event for event in events if isinstance(event, ClassResults)]
    value = {(epoch, s.split): s.score for epoch, e in scores.items() for s in e.metric_scores}
    best = max(range(1, 4), key=lambda epoch: (float(value[epoch, "val"]), -epoch))
    assert {best, 3} <= {result.epoch for result in results}
    for result in results:
        for counts in result.splits:
            assert sum(counts.actual) == SPLITS[counts.split]
            assert [sum(row) for row in counts.confusion] == counts.actual
            assert [sum(column) for column in zip(*counts.confusion, strict=True)] == counts.predicted
            accuracy = sum(counts.correct) / sum(counts.actual)
            assert accuracy == pytest.approx(value[result.epoch, counts.split])


def test_without_metrics_the_largest_score_is_the_label(tmp_path: Path) -> None:
    events = train(tmp_path, classes(), epochs=1)
    result: ClassResults = only(events, ClassResults)
    assert {(c.prediction, c.target) for c in result.splits} == {("logits", "target_key")}
    assert [c.split for c in result.splits] == ["train", "val", "test"]


def test_regression_has_a_spread_and_no_classes(tmp_path: Path) -> None:
    targets = torch.randn(100, 1)
    events = train(tmp_path, targets, loss="MSELoss", outputs=1)
    assert not [event for event in events if isinstance(event, ClassResults)]
    found = splits(events)
    assert all(not split.labels for split in found.values())
    lowest = min(float(split.spread["min"]) for split in found.values())
    assert lowest == pytest.approx(float(targets.min()))
    mean = sum(float(split.spread["mean"]) * split.samples for split in found.values()) / 100
    assert mean == pytest.approx(float(targets.mean()), abs=1e-5)


def test_several_labels_a_sample(tmp_path: Path) -> None:
    targets = torch.randint(0, 2, (100, 3), generator=torch.Generator().manual_seed(0)).float()
    events = train(tmp_path, targets, loss="BCEWithLogitsLoss")
    found = splits(events)
    assert all(split.multi_label for split in found.values())
    total = [sum(split.labels[i].count for split in found.values()) for i in range(3)]
    assert total == targets.sum(0).long().tolist()
    assert not [event for event in events if isinstance(event, ClassResults)]


def test_nothing_is_read_to_count_labels(tmp_path: Path) -> None:
    Unlabelled.reads = 0
    events = train(tmp_path, classes(), epochs=1, dataset=Unlabelled)
    assert Unlabelled.reads == 100 + 60 + 100  # before, in and after the only epoch
    found = splits(events)
    assert found["val"].uncounted == "it would take reading every item"
    assert (found["val"].sample_shape, found["val"].target_dtype) == ([4], "int64")
    result: ClassResults = only(events, ClassResults)
    assert sum(sum(counts.actual) for counts in result.splits) == 100


def test_a_split_that_is_only_trained_on(tmp_path: Path) -> None:
    found = splits(train(tmp_path, classes(), epochs=1, evaluated=["val"]))
    assert {name: split.uses for name, split in found.items()} == {"train": ["training"], "val": ["evaluation"]}
    assert found["train"].sample_shape == [4]


def test_a_data_set_that_cannot_be_described_is_a_warning(tmp_path: Path) -> None:
    class Odd(Unlabelled):
        def labels(self) -> torch.Tensor:
            raise RuntimeError("ask somebody else")

    events = train(tmp_path, classes(), epochs=1, dataset=Odd)
    assert "RuntimeError: ask somebody else" in only(events, Warned).message
    assert [event.status for event in events if isinstance(event, JobStatus)] == ["RUNNING", "DONE"]


def test_a_job_that_is_stopped_says_what_it_took_and_where_it_was(tmp_path: Path) -> None:
    calls = iter(range(10**6))
    events = train(tmp_path, classes(), epochs=50, metrics=[ACCURACY], stop=lambda: next(calls) > 150)
    assert [event.status for event in events if isinstance(event, JobStatus)] == ["RUNNING", "STOPPED"]
    last = max(event.epoch for event in events if isinstance(event, EvaluationResult))
    assert 0 < last < 50
    assert last in [event.epoch for event in events if isinstance(event, ClassResults)]
    usage: JobUsage = only(events, JobUsage)
    assert usage.training_seconds > 0
    assert usage.evaluation_seconds > 0
    assert usage.memory_bytes > 10 << 20
    assert isinstance(events[-1], JobStatus)  # its end stays the last word


# --- counting -----------------------------------------------------------------------------------------------


def counted(*chunks: tuple[torch.Tensor, torch.Tensor]) -> list[list[int]] | None:
    counter = ClassCounter([("p", "t")])
    for prediction, target in chunks:
        counter.add({"p": prediction}, {"t": target})
    table = counter.counts.get(("p", "t"))
    return None if table is None else table.tolist()


def test_counts_grow_with_the_labels_and_leave_ignored_ones_out() -> None:
    first = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    second = torch.tensor([2, 0]), torch.tensor([2, -100])
    assert counted(first) == [[1, 1], [0, 1]]
    assert counted(first, second) == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_one_hot_targets_are_labels() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    assert counted((scores, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))) == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        (torch.rand(4), torch.rand(4)),
        (torch.rand(4, 3), torch.rand(4, 3)),
        (torch.rand(4, 3), torch.ones(4, 3)),
        (torch.rand(4, 3, 5), torch.zeros(4, 5).long()),
        (torch.zeros(4).long(), torch.rand(4)),
        (torch.zeros(3).long(), torch.zeros(4).long()),
        (torch.zeros(4).long(), torch.full((4,), 10**6)),
    ],
)
def test_what_is_no_classification_is_not_counted(prediction: torch.Tensor, target: torch.Tensor) -> None:
    assert counted((prediction, target)) is None


def test_of_what_only_a_part_could_be_counted_nothing_is() -> None:
    one_hot = torch.eye(2)
    assert counted((one_hot, one_hot), (one_hot, torch.ones(2, 2))) is None


def test_labels_go_before_scores_and_every_target_has_its_own() -> None:
    counter = ClassCounter([("scores", "a"), ("labels", "a"), ("scores", "b")])
    zeros = torch.zeros(2).long()
    counter.add({"scores": torch.rand(2, 2), "labels": zeros}, {"a": zeros, "b": zeros})
    assert set(counter.counts) == {("labels", "a"), ("scores", "b")}


def test_many_classes_have_their_confusions_listed() -> None:
    from mlgym.engine.facts import class_counts

    labels = torch.arange(60)
    predicted = labels.clone()
    predicted[:2] = 59
    counter = ClassCounter([("p", "t")])
    counter.add({"p": predicted}, {"t": labels})
    found: ClassCounts
    (found,) = class_counts("val", counter)
    assert found.confusion == []
    assert sorted(found.confusions) == [[0, 59, 1], [1, 59, 1]]
    assert (len(found.labels), sum(found.correct)) == (60, 58)

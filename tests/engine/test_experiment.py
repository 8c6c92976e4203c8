"""The loop and the worker: what is emitted, and that numbers follow from the config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlgym.build.catalog import built_in
from mlgym.build.registry import Registry
from mlgym.engine import experiment
from mlgym.engine.checking import covering
from mlgym.engine.worker import run_job
from mlgym.errors import ConfigError
from mlgym.plan.config import read
from mlgym.plan.sweep import Cell, expand
from mlgym.record.events import (
    EvaluationResult,
    ExperimentStatus,
    JobStatus,
    JobStatusEvent,
    Payload,
    decode_lines,
)
from mlgym.record.files import write_once
from mlgym.specs import ExperimentSpec, RunPaths
from tests.conftest import DIGITS

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """A model with dropout, so that training draws random numbers."""

    def __init__(self, fail: str | None = None) -> None:
        super().__init__()
        self.fail = fail
        if fail == "constructor":
            raise RuntimeError("no such layer")
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fail == "training" and self.training:
            raise RuntimeError("not today")
        if self.fail == "interrupt" and self.training:
            raise KeyboardInterrupt
        out: torch.Tensor = self.layers(x)
        return out


def registry() -> Registry:
    found = built_in()
    found.model("conv_net", Tiny)
    return found


def spec(seed: int = 0, epochs: int = 2, batches: int | None = None, **changes: Any) -> ExperimentSpec:
    config = expand(read(DIGITS / "gs_config.yml").value)[5].config
    config["model"] = {**config["model"], "config": {**config["model"]["config"], "model_definition": {}}}
    for name, values in changes.items():
        config[name] = {**config[name], "config": {**config[name]["config"], **values}}
    return ExperimentSpec("g", 3, config, "hash", {}, seed, epochs, batches)


def run(found: ExperimentSpec, stop_after: int = 10**9) -> tuple[experiment.Outcome, list[Payload], experiment.Parts]:
    parts = experiment.build(found, registry(), CPU)
    events: list[Payload] = []
    outcome = experiment.run(found, parts, events.append, lambda: parts.trainer.batches >= stop_after)
    return outcome, events, parts


def results(events: list[Payload]) -> list[EvaluationResult]:
    return [event for event in events if isinstance(event, EvaluationResult)]


def test_every_epoch_is_evaluated_and_epoch_0_before_any_training() -> None:
    outcome, events, parts = run(spec())
    assert outcome == experiment.Outcome("DONE")
    found = results(events)
    assert [result.epoch for result in found] == [0, 1, 2]
    assert {(score.metric, score.split) for score in found[0].metric_scores} == {
        (tag, split) for tag in ("accuracy", "F1_SCORE_macro") for split in ("train", "val", "test")
    }
    assert {score.split for score in found[0].loss_scores} == {"train", "val", "test"}
    accuracy = [result.metric_scores[0].score for result in found]
    assert float(accuracy[0]) < 0.3 < float(accuracy[2])
    assert parts.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.9**2)


def test_two_runs_of_one_config_give_the_same_numbers() -> None:
    torch.rand(7)  # whatever the process drew before
    first = run(spec())
    assert results(first[1]) == results(run(spec())[1])
    assert results(first[1]) != results(run(spec(seed=1))[1])


def test_progress_is_thinned() -> None:
    _, events, _ = run(spec(epochs=1))
    progress = [event for event in events if isinstance(event, ExperimentStatus)]
    by_place: dict[Any, int] = {}
    for event in progress:
        place = (event.status, event.current_epoch, event.current_split)
        by_place[place] = by_place.get(place, 0) + 1
        assert 1 <= event.current_batch <= event.num_batches
    assert progress
    assert max(by_place.values()) <= 10


def test_epochs_of_a_given_number_of_batches() -> None:
    _, _, parts = run(spec(batches=30))
    assert (parts.trainer.passes, parts.trainer.batches) == (1, 60 - len(parts.trainer.loader))


def test_stopping_early_is_done() -> None:
    early = {
        "early_stopping_config": {
            "patience": 1,
            "split_name": "val",
            "monitoring_key": "accuracy",
            "is_increase_task": False,
        }
    }
    outcome, events, _ = run(spec(epochs=9, early_stopping_strategy=early))
    assert outcome == experiment.Outcome("DONE", "early stopping")
    assert len(results(events)) < 9


def test_a_stop_is_obeyed_after_the_batch() -> None:
    outcome, events, parts = run(spec(), stop_after=5)
    assert outcome == experiment.Outcome("STOPPED", "interrupted")
    assert parts.trainer.batches == 5
    assert [result.epoch for result in results(events)] == [0]


def test_a_stop_is_obeyed_during_an_evaluation() -> None:
    outcome, events, parts = run(spec(), stop_after=0)
    assert outcome == experiment.INTERRUPTED
    assert parts.trainer.batches == 0
    assert results(events) == []


def test_monitoring_what_is_not_evaluated() -> None:
    config = {"patience": 1, "split_name": "val", "monitoring_key": "acuracy", "is_increase_task": True}
    with pytest.raises(
        ConfigError, match="monitors 'val/acuracy', which is not evaluated; did you mean 'val/accuracy'"
    ):
        run(spec(early_stopping_strategy={"early_stopping_config": config}))


def test_keys_are_tried_before_training() -> None:
    wrong = {
        "loss_fun_config": {
            "key": "CrossEntropyLoss",
            "prediction_subscription_key": "logit",
            "target_subscription_key": "target_key",
        }
    }
    with pytest.raises(
        ConfigError, match="nothing is published under the key 'logit'; did you mean 'logits'"
    ) as caught:
        experiment.try_once(experiment.build(spec(train_component=wrong), registry(), CPU))
    assert caught.value.path == ("train_component", "config", "loss_fun_config")


# --- worker -------------------------------------------------------------------------------------------------


def job(tmp_path: Path, found: ExperimentSpec) -> tuple[str, list[JobStatus]]:
    paths = RunPaths(tmp_path, "g")
    state = run_job(found, paths, "s", registry(), CPU, lambda: False)
    return state, statuses(tmp_path)


def statuses(tmp_path: Path) -> list[JobStatus]:
    (spool,) = (tmp_path / "g" / "spool").iterdir()
    return [event.payload for event in decode_lines(spool.read_bytes()) if isinstance(event, JobStatusEvent)]


def test_a_job_begins_and_ends_in_its_spool(tmp_path: Path) -> None:
    state, (running, done) = job(tmp_path, spec())
    assert (state, running.status, done.status) == ("DONE", "RUNNING", "DONE")
    assert (done.device, done.job_id, done.experiment_id) == ("cpu", "3-1", 3)
    assert running.starting_time == done.starting_time
    assert done.starting_time <= done.finishing_time  # type: ignore[operator]
    assert (tmp_path / "g" / "3" / "experiment_config.json").exists()


@pytest.mark.parametrize(("fail", "words"), [("constructor", "no such layer"), ("training", "not today")])
def test_a_failure_is_recorded_with_its_stack_trace(tmp_path: Path, fail: str, words: str) -> None:
    state, found = job(tmp_path, spec(model={"model_definition": {"fail": fail}}))
    assert state == found[-1].status == "FAILED"
    assert found[-1].error == f"RuntimeError: {words}"
    assert "in forward" in str(found[-1].stacktrace) or "in __init__" in str(found[-1].stacktrace)


def test_an_interrupt_is_recorded_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, spec(model={"model_definition": {"fail": "interrupt"}}))
    assert statuses(tmp_path)[-1].status == "STOPPED"


def test_files_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_once(path, b"1")
    write_once(path, b"2")
    assert path.read_bytes() == b"1"
    assert list(path.parent.iterdir()) == [path]


def test_check_covers_every_swept_value() -> None:
    cells = expand({"c": {"config": {name: {"sweep": "range", "stop": 4} for name in "xyz"}}})
    chosen = covering(dict(enumerate(cells)))
    assert len(chosen) < 12 < len(cells)
    for name in "xyz":
        assert {cells[i].config["c"]["config"][name] for i in chosen} == set(range(4))
    assert covering({7: Cell({}, {}, {})}) == [7]


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    found = spec()
    parts = experiment.build(found, registry(), torch.device("cuda", 0))
    events: list[Payload] = []
    assert experiment.run(found, parts, events.append, lambda: False).status == "DONE"
    assert float(results(events)[-1].metric_scores[0].score) > 0.3

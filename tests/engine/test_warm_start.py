"""Warm start as a user does it: kill the run, start it again, and get what one would have got."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import mlgym
from mlgym.errors import InputError
from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.events import (
    ExperimentConfigEvent,
    GridSearchEvent,
    NondeterminismDetectedEvent,
    WarnedEvent,
)
from tests.engine.exact import EPOCHS, Net, blueprint, grid_config
from tests.engine.grids import Grid

MAIN: dict[str, Any] = {"type": "main_process"}
MANY: dict[str, Any] = {"type": "multiprocessing", "config": {"process_count": 2, "retry_delay": 0}}


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    found = Grid(tmp_path)
    yield found
    found.kill_all()


def train(grid: Grid, environment: dict[str, Any], numbers: Any = (1, 2, 3), workers: int = 0, **train_: Any) -> None:
    swept = {"sweep": "absolute", "values": list(numbers)}
    config = grid_config(swept, workers)
    grid.train("exact.py", environment, config, **{"num_epochs": EPOCHS, "seed": 3, **train_})


def results(grid: Grid) -> list[Any]:
    """Scores and the digests of the last checkpoint of every experiment."""
    found = []
    for experiment in grid.state.experiments.values():
        newest = available(grid.root / str(experiment.experiment_id))[0]
        files = {file.name: file.sha256 for file in verified(newest).files}
        found.append((experiment.scores, newest.epoch, newest.batch, files))
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    grid = Grid(tmp_path_factory.mktemp("uninterrupted"))
    train(grid, MANY)
    assert grid.run().returncode == 0
    return results(grid)


# --- kill it, go on -----------------------------------------------------------------------------------------


def killed(grid: Grid, seed: int) -> None:
    """Kill the parent at random moments, of the first run and of warm starts, until one gets through."""
    rng = random.Random(seed)
    grid.environment["MLGYM_TEST_SLEEP"] = "0.01"
    train(grid, MANY, checkpoint_every_n_batches=2)
    process = grid.start()
    grid.wait_for("INIT")
    for _ in range(rng.randrange(1, 4)):
        time.sleep(rng.uniform(0, 1))
        process.kill()
        process.communicate(timeout=30)
        grid.warm_start(MANY, num_epochs=EPOCHS)
        process = grid.start()
        time.sleep(rng.choice([rng.uniform(0, 3), rng.uniform(2.5, 5)]))
    process.kill()
    process.communicate(timeout=30)


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.long) for i in range(1, 20))])
def test_killed_and_started_again(grid: Grid, uninterrupted: list[Any], seed: int) -> None:
    killed(grid, seed)
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert results(grid) == uninterrupted
    assert {e.status for e in grid.state.experiments.values()} == {"DONE"}
    assert all(e.changes == [] for e in grid.state.experiments.values())
    assert [e.seq for e in grid.events] == list(range(1, len(grid.events) + 1))
    assert not [e for e in grid.events if isinstance(e, WarnedEvent)]
    assert not list((grid.root / "spool").iterdir())
    assert not list(grid.root.rglob(".*"))
    grid.gone()


@pytest.mark.parametrize("environment", [MAIN, MANY], ids=["main_process", "multiprocessing"])
def test_stopped_and_started_again(grid: Grid, uninterrupted: list[Any], environment: dict[str, Any]) -> None:
    if environment is MAIN:  # sums depend on the number of threads
        grid.environment["OMP_NUM_THREADS"] = "1"
    grid.environment["MLGYM_TEST_SLEEP"] = "0.01"
    train(grid, environment)
    process = grid.start()
    grid.wait_for("train")  # so that there is something to save
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    grid.environment.clear()  # what goes on uses the number of threads that it began with
    grid.warm_start(environment, num_epochs=EPOCHS)
    planned = grid.run("plan")
    assert "interrupted: goes on after epoch " in planned.stdout, planned.stdout + planned.stderr
    assert "was never started" in planned.stdout
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert "warm start: " in ended.stderr
    begun = 1 if environment is MAIN else 3
    assert results(grid)[:begun] == uninterrupted[:begun]
    again = grid.run()
    assert (again.returncode, again.stderr) == (0, "mlgym: there is nothing left to do\n")
    assert again.stdout == ended.stdout


def test_a_job_that_dies_goes_on_from_its_checkpoint(grid: Grid, uninterrupted: list[Any]) -> None:
    grid.environment["MLGYM_TEST_SLEEP"] = "0.01"
    train(grid, MANY, checkpoint_every_n_batches=1)
    process = grid.start()
    grid.wait_for("train", 2)
    for pid in grid.jobs():
        os.kill(pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert results(grid) == uninterrupted


# --- what is run --------------------------------------------------------------------------------------------


def test_more_epochs(grid: Grid) -> None:
    train(grid, MANY, [1])
    (grid.folder / "gs_config.yml").write_text(
        (grid.folder / "gs_config.yml").read_text().replace(f'"total_steps": {EPOCHS * 6}', '"total_steps": 600')
    )
    assert grid.run().returncode == 0
    grid.warm_start(MANY, num_epochs=EPOCHS + 2)
    assert "more epochs: goes on after epoch 3" in grid.run("plan").stdout
    assert grid.run().returncode == 0
    experiment = grid.state.experiments[0]
    assert (experiment.epochs_done, experiment.num_epochs, experiment.start_epoch) == (5, 5, 3)
    longer = results(grid)
    (grid.folder / "whole").mkdir()
    whole = Grid(grid.folder / "whole")
    whole.train("exact.py", MANY, json.loads((grid.folder / "gs_config.yml").read_text()), num_epochs=5, seed=3)
    assert whole.run().returncode == 0
    assert results(whole) == longer  # as if it had been asked for from the beginning


def test_another_grid(grid: Grid) -> None:
    """Cells are the same experiment when their config is the same: kept, added, removed, and it is all in the log."""
    train(grid, MANY, [1, 2, 3])
    assert grid.run().returncode == 0
    hashes = {e.experiment_id: e.config_hash for e in grid.state.experiments.values()}
    before = results(grid)
    config = json.loads((grid.folder / "gs_config.yml").read_text())
    config["model"]["config"]["model_definition"]["number"]["values"] = [7, 3, 1]
    (grid.folder / "other.yml").write_text(json.dumps(config))
    grid.warm_start(MANY, num_epochs=EPOCHS, gs_config_path="other.yml")
    plan = json.loads(grid.run("plan", "--json").stdout)
    assert [(row["experiment_id"], row["action"], row["why"]) for row in plan] == [
        *((0, "keep", "done"), (1, "keep", "no longer in the grid"), (2, "keep", "done"), (3, "run", "new")),
    ]
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    state = grid.state
    assert {i: state.experiments[i].config_hash for i in range(3)} == hashes
    assert [e.status for e in state.experiments.values()] == ["DONE"] * 4
    assert results(grid)[:3] == before
    assert state.experiments[3].swept == {"model.config.model_definition.number": 7}
    started = [e.payload for e in grid.events if isinstance(e, GridSearchEvent) and e.payload.status == "STARTED"]
    assert started[1].reason == "warm start: 1 start, 3 kept (the grid has changed)"
    assert json.loads(str(started[1].grid_search_config)) == config
    assert sum(isinstance(e, ExperimentConfigEvent) for e in grid.events) == 4
    # Without naming a grid again, it is still that one.
    grid.warm_start(MANY, num_epochs=EPOCHS)
    assert "nothing left to do" in grid.run().stderr


def test_a_cell_that_is_removed_stays_so(grid: Grid) -> None:
    grid.write(MANY, {"kind": ["fine", "raise"]})
    assert grid.run().returncode == 1
    config = json.loads((grid.folder / "gs_config.yml").read_text())
    config["model"]["config"]["model_definition"]["kind"]["values"] = ["fine"]
    (grid.folder / "other.yml").write_text(json.dumps(config))
    grid.warm_start(MANY, num_epochs=1, gs_config_path="other.yml")
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert grid.state.experiments[1].status == "STOPPED"
    assert grid.state.experiments[1].reason == "removed"
    assert "STOPPED (attempt 2, removed)" in ended.stdout
    grid.warm_start(MANY, num_epochs=1)
    assert "nothing left to do" in grid.run().stderr


def test_what_failed_is_tried_again(grid: Grid) -> None:
    grid.write(MANY, {"kind": ["fine", "raise_once"]})
    assert grid.run().returncode == 1
    grid.warm_start(MANY, num_epochs=1)
    assert "was FAILED: starts again, there is no checkpoint" in grid.run("plan").stdout
    assert grid.run().returncode == 0
    assert [e.attempt for e in grid.state.experiments.values()] == [1, 2]
    assert grid.ended_once() == {"DONE": 2}


def test_nondeterminism_is_detected(grid: Grid) -> None:
    grid.write(MANY, {"kind": ["chance"]}, epochs=2)
    config = json.loads((grid.folder / "gs_config.yml").read_text())
    config["checkpointing_strategy"] = {
        "component_type_key": "CHECKPOINTING_STRATEGY",
        "variant_key": "DEFAULT",
        "config": {"checkpointing_key": "NONE"},
    }
    (grid.folder / "gs_config.yml").write_text(json.dumps(config))
    assert grid.run().returncode == 0
    grid.warm_start(MANY, num_epochs=3)
    assert grid.run().returncode == 0
    found = [e.payload for e in grid.events if isinstance(e, NondeterminismDetectedEvent)]
    assert [payload.epoch for payload in found] == [1, 2]  # before any training, it is the same
    (change,) = found[0].changes
    assert change.score == "train/loss"
    assert change.before != change.now
    *_, last = grid.events
    assert isinstance(last, GridSearchEvent)


# --- bad input ----------------------------------------------------------------------------------------------


def test_two_launches(grid: Grid) -> None:
    grid.write(MANY, {"number": [1, 2], "sleep": 0.02}, epochs=10_000)
    process = grid.start()
    grid.wait_for("RUNNING")
    grid.warm_start(MANY, num_epochs=1)
    size = (grid.root / "event_storage.log").stat().st_size
    second = grid.run()
    assert second.returncode == 3
    assert f"the grid search {grid.root.name} is being run by process {process.pid} on " in second.stderr
    assert (grid.root / "event_storage.log").stat().st_size >= size
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_an_unknown_grid_search(grid: Grid) -> None:
    train(grid, MAIN, [1], num_epochs=0)
    assert grid.run().returncode == 0
    name = grid.root.name
    grid.warm_start(MAIN, num_epochs=1)
    path = grid.folder / "run_config.yml"
    path.write_text(path.read_text().replace(name, name[:-1] + "x"))
    for command in ([], ["plan"], ["check"]):
        ended = grid.run(*command)
        assert ended.returncode == 2
        assert f"there is no grid search '{name[:-1]}x' in event_storage; did you mean '{name}'?" in ended.stderr


def test_a_model_that_no_longer_fits(grid: Grid) -> None:
    train(grid, MANY, [1], checkpoint_every_n_batches=1)
    process = grid.start()
    grid.wait_for("RUNNING")
    while not available(grid.root / "0"):
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    grid.gone()
    script = grid.folder / "parts.py"
    grid.warm_start(MANY, num_epochs=EPOCHS + 1)
    script.write_text(script.read_text().replace("nn.Linear(16, 2)", "nn.Linear(16, 2), nn.Linear(2, 2)"))
    before = (grid.root / "event_storage.log").stat().st_size
    for command in (["check"], []):
        ended = grid.run(*command)
        assert ended.returncode == 2
        assert "model: the model no longer fits the checkpoint in " in ended.stderr
        assert "layers.5.weight is new" in ended.stderr
        assert "grid_search_config.yml:1:" in ended.stderr
    assert {e.payload.status for e in grid.events if isinstance(e, GridSearchEvent)} == {"STARTED"}
    assert (grid.root / "event_storage.log").stat().st_size >= before


def test_a_damaged_log_is_not_gone_on_with(grid: Grid) -> None:
    train(grid, MAIN, [1])
    assert grid.run().returncode == 0
    log = grid.root / "event_storage.log"
    log.write_bytes(log.read_bytes().replace(b'"epoch":1', b'"epoch":7', 1))
    before = log.read_bytes()
    grid.warm_start(MAIN, num_epochs=EPOCHS + 1)
    ended = grid.run()
    assert ended.returncode == 2
    assert "bytes in its middle are damaged; it can be read (status, load_model), but the grid search" in ended.stderr
    assert log.read_bytes() == before


def test_a_run_that_died_before_it_could_say_finished(grid: Grid) -> None:
    train(grid, MAIN, [1])
    assert grid.run().returncode == 0
    log = grid.root / "event_storage.log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    (grid.root / "spool").rmdir()  # empty folders are lost by some ways of copying
    assert grid.state.status == "STARTED"
    grid.warm_start(MAIN, num_epochs=EPOCHS)
    assert grid.run().returncode == 0
    assert grid.state.status == "FINISHED"


# --- the model ----------------------------------------------------------------------------------------------


def test_load_model(grid: Grid) -> None:
    train(grid, MANY, [1, 2])
    assert grid.run().returncode == 0
    storage = grid.folder / "event_storage"
    best_is_gone = pytest.warns(UserWarning, match="train/loss was best at epoch .*; this is epoch 3")
    with best_is_gone if best(grid) != EPOCHS else nullcontext():
        model = mlgym.load_model(storage, grid.root.name, 1, blueprint=blueprint)
    assert isinstance(model, Net)
    assert not model.training
    torch.testing.assert_close(
        model.state_dict(), mlgym.load_model(storage, grid.root.name, 1, "last", blueprint).state_dict(), rtol=0, atol=0
    )
    for epoch, words in ((1, "has no checkpoint of epoch 1; there is: 3"),):
        with pytest.raises(InputError, match=words):
            mlgym.load_model(storage, grid.root.name, 1, epoch, blueprint)
    with pytest.raises(InputError, match="there is no experiment 5"):
        mlgym.load_model(storage, grid.root.name, 5, blueprint=blueprint)
    with pytest.raises(InputError, match=f"did you mean '{grid.root.name}'"):
        mlgym.load_model(storage, grid.root.name + "0", 1, blueprint=blueprint)


def best(grid: Grid) -> int:
    scores = grid.state.experiments[1].scores["train/loss"]
    return min(scores, key=lambda epoch: scores[epoch])

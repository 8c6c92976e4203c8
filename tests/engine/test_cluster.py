"""Machines and processes of a Ray cluster die at any moment, and the log says what it would have said without."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlgym.record.events import CheckpointChange
from tests.engine.clusters import Nodes
from tests.engine.exact import BATCHES, EPOCHS
from tests.engine.grids import Grid
from tests.engine.test_warm_start import MANY, results, train
from tests.ml_board.boards import wait_until

NUMBERS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    found = Nodes([1, 1, 1])
    yield found
    found.close()


@pytest.fixture
def grid(tmp_path: Path, cluster: Nodes) -> Iterator[Grid]:
    found = Grid(tmp_path, dict(cluster.environment))
    yield found
    found.kill_all()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the same grid comes to without a cluster."""
    grid = Grid(tmp_path_factory.mktemp("uninterrupted"))
    train(grid, MANY, NUMBERS)
    assert grid.run().returncode == 0
    return results(grid)


def held(grid: Grid, cluster: Nodes, at_once: int = 3, **ray: Any) -> Any:
    """Start a grid whose jobs wait in the evaluation of their first epoch while the file `hold` is there."""
    hold = grid.folder / "hold"
    hold.touch()
    runtime_env = {"working_dir": None, "env_vars": {"MLGYM_TEST_HOLD": str(hold)}}
    train(grid, cluster.config(runtime_env=runtime_env, **ray), NUMBERS, checkpoint_every_n_batches=1)
    process = grid.start()
    grid.wait_for("RUNNING", at_once)
    wait_until(lambda: trained(grid) >= {*range(at_once)}, "an epoch")
    return process


def trained(grid: Grid) -> set[int]:
    """The experiments whose checkpoint at the end of an epoch's training is in the log."""
    saved = [event.payload for event in grid.events if isinstance(event, CheckpointChange)]
    return {event.experiment_id for event in saved if event.batch == BATCHES}


def go_on(grid: Grid, process: Any) -> None:
    (grid.folder / "hold").unlink()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr


def lost(grid: Grid) -> list[tuple[str, str | None]]:
    return [(s.job_id, s.error) for s in grid.statuses() if s.status == "LOST"]


def as_if_nothing_had_happened(grid: Grid, uninterrupted: list[Any]) -> None:
    assert grid.ended_once() == {"DONE": len(NUMBERS)}
    assert Counter(s.experiment_id for s in grid.statuses() if s.status == "DONE") == dict.fromkeys(range(4), 1)
    assert results(grid) == uninterrupted
    assert all(e.changes == [] for e in grid.state.experiments.values())
    assert [e.seq for e in grid.events] == list(range(1, len(grid.events) + 1))


def test_a_machine_goes_down(grid: Grid, cluster: Nodes, uninterrupted: list[Any]) -> None:
    process = held(grid, cluster)
    gone = cluster.busy()[0]
    cluster.remove(gone)
    go_on(grid, process)
    cluster.add(1)
    as_if_nothing_had_happened(grid, uninterrupted)
    (entry,) = lost(grid)
    assert entry[1] == "its process died" or f"({gone[:8]}) is gone" in str(entry[1])  # whoever is heard first
    begun = {s.job_id: s.start_epoch for s in grid.statuses() if s.status == "RUNNING"}
    assert len(begun) == len(NUMBERS) + 1
    grid.gone()


def test_a_process_dies(grid: Grid, cluster: Nodes, uninterrupted: list[Any]) -> None:
    process = held(grid, cluster)
    for pid in cluster.jobs():
        os.kill(pid, signal.SIGKILL)
    go_on(grid, process)
    as_if_nothing_had_happened(grid, uninterrupted)
    assert sorted(lost(grid)) == [(f"{i}-1", "its process died") for i in range(3)]
    grid.gone()


def test_whatever_a_job_dies_of(grid: Grid, cluster: Nodes) -> None:
    grid.write(cluster.config(max_retries=1), {"kind": ["kill", "os_exit", "kill_once", "fine"]})
    ended = grid.run()
    assert ended.returncode == 1, ended.stderr
    assert grid.ended_once() == {"FAILED": 2, "DONE": 2}
    errors = [e.error for e in grid.state.experiments.values()]
    assert errors == [*["lost 2 times, the last time: its process died"] * 2, None, None]
    assert sorted(lost(grid)) == [(job, "its process died") for job in ("0-1", "0-2", "1-1", "1-2", "2-1")]
    assert "--- attempt 2, " in grid.output(0)
    assert "Ray" not in ended.stdout + ended.stderr.replace("started again by Ray", "")
    assert "raylet" not in ended.stdout + ended.stderr


def test_stopped_and_started_again(grid: Grid, cluster: Nodes, uninterrupted: list[Any]) -> None:
    process = held(grid, cluster, 2, max_concurrent=2)
    process.send_signal(signal.SIGINT)
    assert any("stopping after this batch" in line for line in process.stderr)
    (grid.folder / "hold").unlink()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert [e.status for e in grid.state.experiments.values()] == ["STOPPED", "STOPPED", "INIT", "INIT"]
    grid.warm_start(cluster.config(), num_epochs=EPOCHS)
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert results(grid) == uninterrupted


def test_killed_by_the_user(grid: Grid, cluster: Nodes) -> None:
    grid.write(cluster.config(), {"kind": "hang", "number": [1, 2, 3, 4]})
    process = grid.start()
    grid.wait_for("RUNNING", 3)
    assert process.stderr
    process.send_signal(signal.SIGINT)
    assert any("once more to kill" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert sorted(e.status for e in grid.state.experiments.values()) == ["INIT", "LOST", "LOST", "LOST"]
    assert {how for _, how in lost(grid)} == {"killed by the user"}
    assert grid.state.status == "INTERRUPTED"
    wait_until(lambda: not cluster.jobs(), "the end of the jobs")


def test_the_driver_is_killed(grid: Grid, cluster: Nodes, uninterrupted: list[Any]) -> None:
    """What the machines had not handed over comes with the warm start."""
    process = held(grid, cluster)
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: not cluster.jobs(), "the end of the jobs")
    grid.warm_start(cluster.config(), num_epochs=EPOCHS)
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert results(grid) == uninterrupted
    assert all(e.changes == [] for e in grid.state.experiments.values())

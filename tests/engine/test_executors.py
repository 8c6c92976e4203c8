"""What every environment must do alike: one suite over all of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlgym.record.events import ExperimentConfigEvent, GridSearchEvent
from tests.engine.clusters import Nodes
from tests.engine.grids import Grid

ENVIRONMENTS: list[dict[str, Any]] = [
    {"type": "main_process"},
    {"type": "multiprocessing", "config": {"process_count": 2}},
    {"type": "accelerate"},
    {"type": "ray"},
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """One for all tests: a run that starts its own takes seconds longer."""
    found = Nodes([2])
    yield found
    found.close()


@pytest.fixture(params=ENVIRONMENTS, ids=[str(e["type"]) for e in ENVIRONMENTS])
def environment(request: pytest.FixtureRequest, grid: Grid) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    if found["type"] == "ray":
        cluster: Nodes = request.getfixturevalue("cluster")
        grid.environment |= cluster.environment
        return cluster.config()
    return found


def one_at_a_time(environment: dict[str, Any]) -> dict[str, Any]:
    """The same environment with a single job on all cores."""
    one = {"multiprocessing": {"process_count": 1}, "ray": {"max_concurrent": 1, "num_cpus_per_job": 2}}
    return {**environment, "config": {**environment.get("config", {}), **one.get(environment["type"], {})}}


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    found = Grid(tmp_path)
    yield found
    found.kill_all()


def test_everything_ends_as_it_should(grid: Grid, environment: dict[str, Any]) -> None:
    grid.write(environment, {"kind": ["fine", "raise", "sys_exit", "memory", "prints"]}, epochs=2)
    ended = grid.run()
    assert ended.returncode == 1, ended.stderr
    assert grid.ended_once() == {"DONE": 2, "FAILED": 3}
    state = grid.state
    assert state.status == "FINISHED"
    assert [e.error for e in state.experiments.values()] == [
        *(None, "ValueError: not today", "SystemExit: 3", "MemoryError", None),
    ]
    assert all(e.attempt == 1 for e in state.experiments.values())  # an exception is not tried again
    assert "in misbehave" in str(state.experiments[1].stacktrace)
    assert 'raise ValueError("not today")' in grid.output(1)  # the full trace
    summary = f"experiment 1 FAILED: ValueError: not today\n  the end of event_storage/{grid.root.name}/1/output.log:"
    assert summary in ended.stdout
    assert ended.stderr.count("experiment 1 FAILED after 0 epochs (kind=raise): ValueError: not today") == 1
    assert [e.epochs_done for e in state.experiments.values()] == [2, 0, 0, 0, 2]
    configs = [e.payload.experiment_id for e in grid.events if isinstance(e, ExperimentConfigEvent)]
    assert configs == [0, 1, 2, 3, 4]
    first, *_, last = grid.events
    assert isinstance(first, GridSearchEvent)
    assert isinstance(last, GridSearchEvent)
    assert {s.device for s in grid.statuses() if s.status == "RUNNING"} == {"cpu"}
    assert all(s.num_threads and s.host for s in grid.statuses() if s.status == "RUNNING")
    grid.gone()


def test_a_signal_finishes_the_batch_and_stops(grid: Grid, environment: dict[str, Any]) -> None:
    grid.write(environment, {"number": [1, 2, 3], "sleep": 0.02}, epochs=10_000)
    process = grid.start()
    grid.wait_for("RUNNING")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after this batch" in stderr
    state = grid.state
    assert (state.status, state.reason) == ("INTERRUPTED", "stopped by a signal")
    stopped = [e for e in state.experiments.values() if e.status == "STOPPED"]
    assert stopped
    assert all(e.reason == "interrupted" for e in stopped)
    assert {e.status for e in state.experiments.values()} == {"STOPPED", "INIT"}
    grid.ended_once()
    grid.gone()


def test_what_has_priority_goes_first(grid: Grid, environment: dict[str, Any]) -> None:
    grid.write(one_at_a_time(environment), {"number": [1, 2, 3, 4]}, priority=[{"number": 3}, {"number": 4}])
    assert grid.run().returncode == 0
    assert [s.experiment_id for s in grid.statuses() if s.status == "RUNNING"] == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("priority", "words"),
    [
        ([{"numbr": 3}], "nothing called 'numbr' is swept; did you mean 'number'?"),
        ([{"number": 9}], "no experiment has these values"),
        ([3], "expected object, got int"),
    ],
)
def test_a_priority_that_fits_nothing(grid: Grid, priority: Any, words: str) -> None:
    grid.write(ENVIRONMENTS[1], {"number": [1, 2, 3]}, priority=priority)
    ended = grid.run()
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "run_config.yml:1:" in ended.stderr


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The scores of `test_all_give_the_same_numbers`, from one process."""
    grid = Grid(tmp_path_factory.mktemp("numbers"))
    grid.write(ENVIRONMENTS[0], {"number": [1, 2]}, epochs=3)
    assert grid.run().returncode == 0
    return [e.scores for e in grid.state.experiments.values()]


def test_all_give_the_same_numbers(grid: Grid, environment: dict[str, Any], numbers: list[Any]) -> None:
    grid.write(one_at_a_time(environment), {"number": [1, 2]}, epochs=3)  # one job at a time has all threads
    assert grid.run().returncode == 0
    assert [e.scores for e in grid.state.experiments.values()] == numbers


def test_check_and_a_mistake(grid: Grid, environment: dict[str, Any]) -> None:
    grid.write(environment, {"number": [1, "one"]})
    for command in (["check"], []):
        ended = grid.run(*command)
        assert ended.returncode == 2
        assert "expected int, got str 'one'" in ended.stderr
        assert "gs_config.yml:1:" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (grid.folder / "event_storage").exists()
    grid.write(environment, {"number": [1, 2]})
    assert grid.run("check").stdout.endswith("2 experiments, nothing wrong found\n")
    grid.gone()


def test_data_is_prepared_once_before_the_jobs_start(grid: Grid, environment: dict[str, Any]) -> None:
    grid.write(environment, {"number": 1})
    path = grid.folder / "gs_config.yml"
    marks = ", ".join(f'"{grid.folder}/marks{i}"' for i in range(20))  # more kinds of data than are checked
    swept = f'"marks": {{"sweep": "absolute", "values": [{marks}]}}'
    path.write_text(path.read_text().replace('"split": "train"', f'"split": "train", {swept}'))
    assert grid.run().returncode == 0
    prepared = [(grid.folder / f"marks{i}").read_text().split() for i in range(20)]
    assert all(len(pids) == 2 for pids in prepared)
    assert len({first for first, _ in prepared}) == 1  # all of them by one process, one after the other

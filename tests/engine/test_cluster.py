"""Machines and processes of a Ray cluster die at any moment, and the log says what it would have said without."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.events import CheckpointChange
from mlgym.record.log import read_state
from tests.engine.clusters import Nodes, hidden
from tests.engine.exact import BATCHES, EPOCHS
from tests.engine.grids import Grid
from tests.engine.test_warm_start import MANY, results, train
from tests.ml_board.boards import Board, wait_until

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


def holding(grid: Grid, **variables: str) -> dict[str, str]:
    """What makes jobs wait in the evaluation of their first epoch while the file `hold` is there."""
    hold = grid.folder / "hold"
    hold.touch()
    return {"MLGYM_TEST_HOLD": str(hold), **variables}


def held(grid: Grid, cluster: Nodes, at_once: int = 3, **ray: Any) -> Any:
    """Start a grid whose jobs wait."""
    runtime_env = {"working_dir": None, "env_vars": holding(grid)}
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


@pytest.mark.long
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


@pytest.mark.long
def test_stopped_and_started_again(grid: Grid, cluster: Nodes, uninterrupted: list[Any]) -> None:
    """After all stations have died, too, which nobody notices."""
    process = held(grid, cluster, 2, max_concurrent=2)
    for pid in cluster.jobs(b"Station"):
        os.kill(pid, signal.SIGKILL)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: cluster.stopping() >= {*cluster.nodes}, "the message")  # which the next stations get
    (grid.folder / "hold").unlink()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert [e.status for e in grid.state.experiments.values()] == ["STOPPED", "STOPPED", "INIT", "INIT"]
    grid.warm_start(cluster.config(), num_epochs=EPOCHS)
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert results(grid) == uninterrupted


@pytest.mark.long
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


@pytest.mark.long
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


# --- without a shared disk ----------------------------------------------------------------------------------


@pytest.fixture
def distant(tmp_path: Path) -> Iterator[tuple[Grid, Nodes]]:
    """A grid, and a cluster whose machines do not see its event storage."""
    folder = tmp_path / "distant"
    if subprocess.run([*hidden(tmp_path), "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces, to hide a folder from some processes")
    (folder / "event_storage").mkdir(parents=True)
    nodes = Nodes([1, 1], without=folder / "event_storage")
    grid = Grid(folder, {**nodes.environment, "XDG_CONFIG_HOME": str(tmp_path / "config")})
    yield grid, nodes
    grid.kill_all()
    nodes.close()


def test_machines_that_share_no_disk(distant: tuple[Grid, Nodes], tmp_path: Path, uninterrupted: list[Any]) -> None:
    """Ray brings the code, REST the checkpoints, also to another machine; without REST it is told at once."""
    grid, nodes = distant
    runtime_env = {"env_vars": holding(grid, MLGYM_TEST_HOLD_AFTER="200")}  # in the second epoch's evaluation
    environment = nodes.config(runtime_env=runtime_env)
    train(grid, environment, NUMBERS[:2])
    refused = grid.run()
    assert refused.returncode == 2
    assert "run_config.yml:1:" in refused.stderr
    assert f"does not see {grid.folder}/event_storage: put the event storage where" in refused.stderr
    assert "gs_rest_api_endpoint" in refused.stderr
    assert not list((grid.folder / "event_storage").iterdir())
    with Board(tmp_path / "board", environment={"XDG_CONFIG_HOME": str(tmp_path / "config")}) as board:
        grid.logging = {"websocket_logging_servers": [board.url], "gs_rest_api_endpoint": board.url}
        train(grid, environment, NUMBERS[:2])
        process = grid.start()
        wait_until(lambda: len([*board.storage.glob("*/[01]/1/manifest.json")]) == 2, "checkpoints", 120)
        nodes.remove(nodes.busy()[0])
        go_on(grid, process)
        board.stop()
        state = read_state(board.log(grid.root.name))
        assert state.status == "FINISHED"
        assert sorted(e.attempt for e in state.experiments.values()) == [1, 2]
        for i, experiment in state.experiments.items():
            (checkpoint,) = available(board.storage / grid.root.name / str(i))
            files = {file.name: file.sha256 for file in verified(checkpoint).files}
            assert (experiment.scores, checkpoint.epoch, checkpoint.batch, files) == uninterrupted[i]
            assert (experiment.attempt == 1) == (experiment.start_epoch == 0)  # fetched, not begun again
    assert not [*(grid.root / "spool").iterdir()]


# --- a cluster of its own -----------------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Grid]:
    found = Grid(tmp_path)
    yield found
    found.kill_all()


@pytest.mark.long
def test_a_cluster_of_its_own_ends_with_its_run(alone: Grid, uninterrupted: list[Any]) -> None:
    environment = {"type": "ray", "config": {"runtime_env": {"env_vars": holding(alone)}}}
    train(alone, environment, NUMBERS, checkpoint_every_n_batches=1)
    process = alone.start()
    alone.wait_for("RUNNING")
    wait_until(lambda: trained(alone), "an epoch")
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: not alone.processes(), "the end of all processes")
    (alone.folder / "hold").unlink()
    alone.warm_start({"type": "ray"}, num_epochs=EPOCHS)
    ended = alone.run()
    assert ended.returncode == 0, ended.stderr
    assert results(alone) == uninterrupted
    assert not (alone.root / "machines").exists()
    alone.gone()


def test_without_ray(alone: Grid) -> None:
    """mlgym is there, and says what is not."""
    alone.write({"type": "ray"}, {"number": 1})
    code = "import runpy, sys; sys.modules['ray'] = None; sys.argv[:] = sys.argv[1:]; "
    command = alone.command("check")
    command["args"][1:1] = ["-c", code + "runpy.run_path('run.py', run_name='__main__')"]
    ended = subprocess.run(**command, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "environment.type: `type: ray` needs Ray: pip install 'mlgym[ray]'" in ended.stderr
    assert "run_config.yml:1:" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"address": "ray://10.0.0.1:10001"},
            "address: expected null (a cluster of this run's own), auto or host:port",
        ),
        ({"num_cpus_per_job": -1}, "num_cpus_per_job: must be at least 0, not -1"),
        ({"num_gpus_per_job": 1.5}, "num_gpus_per_job: more than one is a whole number, not 1.5"),
        ({"max_concurrent": 0}, "max_concurrent: must be at least 1, not 0"),
        ({"max_retries": -1}, "max_retries: must be at least 0, not -1"),
        ({"num_cpu_per_job": 1}, "did you mean 'num_cpus_per_job'?"),
        ({"num_cpus_per_job": 999}, "num_cpus_per_job: a job needs 999 CPUs, and no machine has more than"),
        ({"runtime_env": {"env_vars": 3}}, "runtime_env: Ray refuses it: "),
        ({"address": "127.0.0.1:1"}, "address: no Ray cluster answers"),
    ],
)
def test_a_bad_environment_is_told_before_anything_starts(alone: Grid, config: dict[str, Any], words: str) -> None:
    alone.write({"type": "ray", "config": config}, {"number": 1})
    ended = alone.run()
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "run_config.yml:1:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (alone.folder / "event_storage").exists()
    alone.gone()


@pytest.mark.long
def test_five_hundred_jobs_end_once(grid: Grid, cluster: Nodes) -> None:
    grid.write(cluster.config(), {"number": list(range(500))})
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert Counter(s.experiment_id for s in grid.statuses() if s.status == "DONE") == dict.fromkeys(range(500), 1)
    assert grid.ended_once() == {"DONE": 500}

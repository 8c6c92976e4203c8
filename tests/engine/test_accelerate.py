"""Several processes with one experiment: the numbers of one process, and every way to lose one of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlgym
from mlgym.engine.ranks import Launched, launched
from mlgym.errors import InputError
from mlgym.record.checkpoint_folder import available
from mlgym.record.events import WarnedEvent
from tests.engine import exact, parallel
from tests.engine.grids import Grid
from tests.engine.parallel import CROSS_ENTROPY, grid_config
from tests.engine.test_warm_start import results

EPOCHS = 4
MANY: dict[str, Any] = {"type": "multiprocessing", "config": {"process_count": 1}}


def accelerate(num_processes: int | None = 2, **config: Any) -> dict[str, Any]:
    named = {} if num_processes is None else {"num_processes": num_processes}
    return {"type": "accelerate", "config": {"retry_delay": 0, **named, **config}}


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    found = new_grid(tmp_path)
    yield found
    found.kill_all()


def new_grid(folder: Path) -> Grid:
    # Sums depend on the number of threads, and each of two processes on two cores has one.
    return Grid(folder, {"OMP_NUM_THREADS": "1"})


def scores(grid: Grid) -> list[dict[str, dict[int, float]]]:
    return [{key: dict(s.items()) for key, s in e.scores.items()} for e in grid.state.experiments.values()]


def trained(folder: Path, environment: dict[str, Any], gs_config: dict[str, Any], **variables: str) -> Grid:
    """A grid that has run to its end."""
    folder.mkdir(exist_ok=True)
    grid = new_grid(folder)
    grid.environment |= variables
    grid.train("parallel.py", environment, gs_config, num_epochs=EPOCHS, seed=5)
    ended = grid.run()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    grid.gone()
    return grid


def close(found: Grid, expected: Grid, tolerance: float = 1e-5) -> bool:
    ours, theirs = scores(found), scores(expected)
    assert [list(e) for e in ours] == [list(e) for e in theirs]
    assert len(ours[0]["train/ce"]) == EPOCHS + 1
    return all(
        e[key] == pytest.approx(other[key], rel=tolerance, abs=tolerance)
        for e, other in zip(ours, theirs, strict=True)
        for key in e
    )


# --- the same numbers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """One process, trained by each loss, without Accelerate."""
    return trained(tmp_path_factory.mktemp("alone"), MANY, grid_config())


def test_one_process_gives_the_same_bits(tmp_path: Path, alone: Grid) -> None:
    assert results(trained(tmp_path, accelerate(1), grid_config())) == results(alone)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_several_processes_give_the_same_scores(tmp_path: Path, alone: Grid, size: int) -> None:
    grid = trained(tmp_path, accelerate(size), grid_config())
    assert close(grid, alone)
    assert results(grid) != results(alone)  # or it would have been one process
    for ours, theirs in zip(grid.state.experiments.values(), alone.state.experiments.values(), strict=True):
        assert ours.facts.keys() == theirs.facts.keys()  # what model cards are made of
    assert {e.device for e in grid.state.experiments.values()} == {f"cpu x {size}"}
    model = mlgym.load_model(grid.folder / "event_storage", grid.root.name, 0, "last", parallel.blueprint)
    assert next(name for name, _ in model.named_parameters()) == "layers.0.weight"


@pytest.mark.long
def test_accumulated_and_in_mixed_precision(tmp_path: Path) -> None:
    """As Accelerate is told by the environment, which is what its launcher sets."""
    one = [CROSS_ENTROPY]
    config = grid_config(losses=one, train_component={"accumulate_batches": 2})
    expected = trained(tmp_path / "alone", MANY, config)
    steps = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2"}
    assert close(trained(tmp_path / "two", accelerate(), grid_config(losses=one), **steps), expected)
    bf16 = trained(tmp_path / "bf16", accelerate(), grid_config(losses=one), ACCELERATE_MIXED_PRECISION="bf16", **steps)
    assert not close(bf16, expected)
    assert close(bf16, expected, 0.1)


@pytest.mark.long
def test_models_and_optimizers_of_other_kinds(tmp_path: Path) -> None:
    """Parameters that are not used, or that get their shape later; LBFGS, which asks for the loss several times."""
    kinds = {"sweep": "absolute", "values": ["unused", "lazy"]}
    optimizers = {
        "sweep": "absolute",
        "values": [
            {"optimizer_key": "SGD", "params": {"lr": 0.1, "momentum": 0.9}},
            {"optimizer_key": "LBFGS", "params": {"max_iter": 3, "lr": 0.1}},  # a line search magnifies rounding
        ],
    }
    config = grid_config(kinds, [CROSS_ENTROPY])
    config["optimizer"]["config"] = optimizers
    expected = trained(tmp_path / "alone", MANY, config)
    assert close(trained(tmp_path / "two", accelerate(find_unused_parameters=True), config), expected, 1e-3)


# --- going on -----------------------------------------------------------------------------------------------


def train_exact(grid: Grid, environment: dict[str, Any], workers: int = 0) -> None:
    swept = {"sweep": "absolute", "values": [1, 2]}
    grid.train("exact.py", environment, exact.grid_config(swept, workers), num_epochs=exact.EPOCHS, seed=3)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    grid = new_grid(tmp_path_factory.mktemp("uninterrupted"))
    train_exact(grid, accelerate())
    assert grid.run().returncode == 0
    return results(grid)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_stopped_and_started_again(grid: Grid, uninterrupted: list[Any], workers: int) -> None:
    """Within an epoch; generators of both processes, batch normalisation and weighted sampling go on as they were."""
    grid.environment["MLGYM_TEST_SLEEP"] = "0.01"
    train_exact(grid, accelerate(), workers)
    process = grid.start()
    grid.wait_for("train")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert available(grid.root / "0")
    grid.environment.pop("MLGYM_TEST_SLEEP")
    grid.warm_start(accelerate(), num_epochs=exact.EPOCHS)
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert results(grid) == uninterrupted
    assert not [e for e in grid.events if isinstance(e, WarnedEvent)]
    grid.gone()


@pytest.mark.long
def test_going_on_with_another_number_of_processes_says_so(tmp_path: Path) -> None:
    grid = trained(tmp_path, accelerate(), grid_config(losses=[CROSS_ENTROPY]))
    for size in (1, 3):
        grid.warm_start(accelerate(size), num_epochs=EPOCHS + size)
        ended = grid.run()
        assert ended.returncode == 0, ended.stderr
        assert grid.state.experiments[0].epochs_done == EPOCHS + size
    first, second = [e.payload.message for e in grid.events if isinstance(e, WarnedEvent)]
    assert first.startswith("2 processes have trained it so far, now it is 1: ")
    assert second.startswith("1 processes have trained it so far, now it is 3: ")


# --- losing one ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, *(pytest.param(i, marks=pytest.mark.long) for i in range(2, 20))])
def test_one_process_is_killed(grid: Grid, uninterrupted: list[Any], seed: int) -> None:
    rng = random.Random(seed)
    grid.environment["MLGYM_TEST_SLEEP"] = "0.01"
    train_exact(grid, accelerate(max_retries=3))
    process = grid.start()
    grid.wait_for("train")
    while len(jobs := grid.jobs()) != 2:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    number = seed % 2
    os.kill(jobs[number], signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert results(grid) == uninterrupted
    assert grid.ended_once() == {"DONE": 2}
    lost = [s.error for s in grid.statuses() if s.status == "LOST"]
    assert lost == [f"process {number} of 2: killed by SIGKILL (out of memory?)"]
    grid.gone()


def test_whatever_happens_to_one(grid: Grid) -> None:
    """An exception is no loss, whichever process has it; a death is one, whatever the others say of it."""
    grid.write(accelerate(max_retries=1), {"kind": ["raise", "kill", "raise_once", "fine"]})
    ended = grid.run()
    assert ended.returncode == 1, ended.stderr
    assert grid.ended_once() == {"FAILED": 3, "DONE": 1}
    errors = [e.error for e in grid.state.experiments.values()]
    assert errors[0] == "ValueError: not today"
    assert "killed by SIGKILL" in str(errors[1])
    assert errors[2:] == ["ValueError: only once", None]
    assert [e.attempt for e in grid.state.experiments.values()] == [1, 2, 1, 1]
    assert 'raise ValueError("not today")' in grid.output(0)
    grid.gone()


@pytest.mark.long
def test_all_that_hang_are_ended(grid: Grid) -> None:
    grid.write(accelerate(max_retries=0, progress_timeout=10), {"kind": "hang"})
    assert grid.run().returncode == 1
    assert "no batch was finished in progress_timeout (10 s)" in str(grid.state.experiments[0].error)
    grid.gone()


def test_an_exception_in_the_second_process_is_told_as_it_is(grid: Grid) -> None:
    grid.train("parallel.py", accelerate(), grid_config("second_raises", [CROSS_ENTROPY]), num_epochs=1)
    ended = grid.run()
    assert ended.returncode == 1, ended.stderr
    (experiment,) = grid.state.experiments.values()
    assert (experiment.status, experiment.error) == ("FAILED", "ValueError: not me")
    assert 'raise ValueError("not me")' in str(experiment.stacktrace)
    grid.gone()


# --- launchers ----------------------------------------------------------------------------------------------


def launch(grid: Grid, *launcher: str, config: str = "run_config.yml") -> subprocess.CompletedProcess[str]:
    command = grid.command()
    arguments = [sys.executable, "-m", *launcher, "run.py", "--config_path", config]
    return subprocess.run(**{**command, "args": arguments}, capture_output=True, timeout=250, check=False)


@pytest.mark.parametrize(
    "launcher",
    [
        ("accelerate.commands.launch", "--cpu", "--num_processes", "2"),
        pytest.param(("torch.distributed.run", "--nproc_per_node=2", "--standalone"), marks=pytest.mark.long),
    ],
    ids=["accelerate", "torchrun"],
)
def test_a_launcher_says_how_many(grid: Grid, launcher: tuple[str, ...]) -> None:
    grid.environment["ACCELERATE_USE_CPU"] = "true"
    grid.train("parallel.py", accelerate(None), grid_config(losses=[CROSS_ENTROPY]), num_epochs=1)
    ended = launch(grid, *launcher)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("1 done") == 1  # one of them is the run
    assert {e.device for e in grid.state.experiments.values()} == {"cpu x 2"}
    grid.train("parallel.py", accelerate(3), grid_config(losses=[CROSS_ENTROPY]), num_epochs=1)
    ended = launch(grid, *launcher)
    assert "num_processes: is 3, but 2 processes were launched" in ended.stderr
    assert "run_config.yml:1:" in ended.stderr
    if launcher[0].startswith("torch"):
        grid.train("parallel.py", MANY, grid_config(losses=[CROSS_ENTROPY]), num_epochs=1)
        assert (
            "2 processes were launched, which is for `environment: {type: accelerate}`"
            in launch(grid, *launcher).stderr
        )


def test_a_config_file_of_accelerate_says_how_many(grid: Grid) -> None:
    file = grid.folder / "accelerate.yml"
    file.write_text("{distributed_type: MULTI_CPU, use_cpu: true, num_processes: 2, mixed_precision: bf16}")
    grid.train("parallel.py", accelerate(None), grid_config(losses=[CROSS_ENTROPY]), num_epochs=1)
    ended = launch(grid, "accelerate.commands.launch", "--config_file", str(file))
    assert ended.returncode == 0, ended.stderr
    assert {e.device for e in grid.state.experiments.values()} == {"cpu x 2"}


def test_what_launchers_leave_in_the_environment() -> None:
    assert launched({}) == launched({"RANK": "0", "WORLD_SIZE": "1"}) == Launched(0, None)
    one = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert launched(one) == Launched(1, 2)
    assert launched({"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "4"}) == Launched(3, 4)
    with pytest.raises(InputError, match="4 processes were launched, 2 of them on this machine"):
        launched({**one, "WORLD_SIZE": "4"})
    with pytest.raises(InputError, match="an unknown number of them"):
        launched({"RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(InputError, match="write `num_processes` under"):
        launched({"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"})


# --- GPUs ---------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_on_gpus(tmp_path: Path) -> None:
    """In bf16 on as many as there are, up to two, near to what the CPU gives."""
    import torch

    size = min(2, torch.cuda.device_count())
    expected = trained(tmp_path / "cpu", MANY, grid_config(losses=[CROSS_ENTROPY]))
    found = trained(
        tmp_path / "gpu", accelerate(size), grid_config(losses=[CROSS_ENTROPY]), ACCELERATE_MIXED_PRECISION="bf16"
    )
    assert found.state.experiments[0].device == ("cuda:0, cuda:1" if size == 2 else "cuda:0")
    assert close(found, expected, 0.1)


@pytest.mark.gpu
def test_sharded_on_gpus(tmp_path: Path) -> None:
    """FSDP as Accelerate's launcher sets it."""
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU has nobody to share with")
    variables = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP",
        "FSDP_MIN_NUM_PARAMS": "10",
    }
    expected = trained(tmp_path / "alone", MANY, grid_config(losses=[CROSS_ENTROPY]))
    assert close(trained(tmp_path / "two", accelerate(2), grid_config(losses=[CROSS_ENTROPY]), **variables), expected)


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "changes", "words"),
    [
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            {"train_component": {"precision": "fp16"}},
            "train_component.config.precision: is fp16, but Accelerate's mixed_precision is bf16",
        ),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, {}, "Accelerate's mixed_precision is fp16, which takes a GPU"),
        (
            {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "3"},
            {"train_component": {"accumulate_batches": 2}},
            "accumulate_batches: is 2, but Accelerate's gradient_accumulation_steps is 3",
        ),
        ({"ACCELERATE_MIXED_PRECISION": "fp7"}, {}, "there is no mixed_precision 'fp7'"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "Accelerate cannot be used as it is set up: DeepSpeed is not"),
    ],
)
def test_settings_that_contradict(grid: Grid, variables: dict[str, str], changes: Any, words: str) -> None:
    grid.environment |= variables
    grid.train("parallel.py", accelerate(), grid_config(losses=[CROSS_ENTROPY], **changes), num_epochs=1)
    ended = grid.run()
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (grid.folder / "event_storage").exists()
    grid.gone()

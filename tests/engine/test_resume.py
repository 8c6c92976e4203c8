"""The law of this package: whatever happens to a training, its scores and weights are those it would have had."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from mlgym.engine import experiment, state_files, training_state
from mlgym.engine.checkpoints import Checkpoints
from mlgym.engine.forkserver import ForkServer
from mlgym.errors import ConfigError, DamagedError
from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.events import CheckpointChange, JobStatusEvent, Payload, Warned, WarnedEvent, decode_lines
from mlgym.record.fold import Experiment, State, fold_all
from mlgym.record.journal import read_blocks
from mlgym.record.spool import new_source
from mlgym.specs import ExperimentSpec, RunPaths
from tests.engine.exact import BATCHES, EPOCHS, prepare, spec

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads; jobs of the fork server have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, found: ExperimentSpec, stop_after: int | None = None) -> experiment.Outcome:
    """Run in this process, to the end or until so many batches of training are over."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = experiment.build(found, prepare(), CPU)
    seen = 0
    kept: list[Payload] = []
    checkpoints = Checkpoints(folder, found, kept.append)

    def stop_requested() -> bool:
        nonlocal seen
        seen += 1
        return stop_after is not None and seen > stop_after

    try:
        return experiment.run(found, parts, kept.append, stop_requested, checkpoints)
    finally:
        checkpoints.wait()


def resumed(found: ExperimentSpec, folder: Path) -> ExperimentSpec:
    return msgspec.structs.replace(found, start=next(iter(available(folder)), None), attempt=found.attempt + 1)


def final(folder: Path) -> dict[str, str]:
    """The digest of every file of the last checkpoint: weights, optimizer, schedule, generators, position."""
    newest = available(folder)[0]
    assert (newest.epoch, newest.batch) == (EPOCHS, 0)
    return {file.name: file.sha256 for file in verified(newest).files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(folder, spec()).status == "DONE"
    return final(folder)


# Every moment at which a stop is looked at: 6 batches of training, 6 of evaluation, three times, and the first
# evaluation before them.
MOMENTS = range(1, 6 + 12 * EPOCHS, 1)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stop_at_any_moment(tmp_path: Path, uninterrupted: dict[str, str], moment: int) -> None:
    first = spec()
    outcome = run(tmp_path, first, moment)
    if outcome.status == "STOPPED":
        assert run(tmp_path, resumed(first, tmp_path)).status == "DONE"
    assert final(tmp_path) == uninterrupted


@pytest.mark.parametrize("moment", [8, 15, 20, 27])
def test_loader_workers_change_nothing(tmp_path: Path, uninterrupted: dict[str, str], moment: int) -> None:
    first = spec(workers=2)
    assert run(tmp_path, first, moment).status == "STOPPED"
    assert run(tmp_path, resumed(first, tmp_path)).status == "DONE"
    assert final(tmp_path) == uninterrupted


@pytest.mark.parametrize("batches", [4, 9])
def test_epochs_that_are_no_passes(tmp_path: Path, batches: int) -> None:
    whole = spec(num_batches_per_epoch=batches)
    whole.config["lr_scheduler"]["config"]["params"]["total_steps"] = EPOCHS * batches
    run(tmp_path / "whole", whole)
    for moment in range(7, 24, 3):
        folder = tmp_path / str(moment)
        run(folder, whole, moment)
        run(folder, resumed(whole, folder))
        assert final(folder) == final(tmp_path / "whole")


def test_only_at_optimizer_steps(tmp_path: Path) -> None:
    accumulating = spec()
    accumulating.config["train_component"]["config"]["accumulate_batches"] = 4
    run(tmp_path / "whole", accumulating)
    for moment in range(7, 14):
        folder = tmp_path / str(moment)
        run(folder, accumulating, moment)
        assert available(folder)[0].batch in (4, 6)
        run(folder, resumed(accumulating, folder))
        assert final(folder) == final(tmp_path / "whole")


CONTROLS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "generators": lambda patch: patch.setattr(training_state, "set_generators", lambda *_: None),
    "schedule": lambda patch: patch.setattr(torch.optim.lr_scheduler.OneCycleLR, "load_state_dict", lambda *_: None),
    "optimizer": lambda patch: patch.setattr(torch.optim.AdamW, "load_state_dict", lambda *_: None),
    "position": lambda patch: patch.setattr("mlgym.parts.trainer.Trainer.load_state_dict", lambda *_: None),
    "statistics": lambda patch: patch.setattr(torch.nn.BatchNorm1d, "_load_from_state_dict", lambda *_: None),
}


@pytest.mark.parametrize("ingredient", CONTROLS)
def test_without_an_ingredient_it_is_another_training(
    tmp_path: Path, uninterrupted: dict[str, str], ingredient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spec()
    run(tmp_path, first, 20)
    CONTROLS[ingredient](monkeypatch)
    run(tmp_path, resumed(first, tmp_path))
    assert final(tmp_path)["model.safetensors"] != uninterrupted["model.safetensors"]


@pytest.mark.parametrize("name", ["NAdam", "ASGD", "Adam"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_optimizers_keep_the_types_of_their_states(name: str, dtype: torch.dtype) -> None:
    """torch casts a loaded state to the type of the parameter."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.rand(3).to(dtype)) for _ in "ab"]
    one, other = (getattr(torch.optim, name)([weight], lr=0.1) for weight in weights)
    for _ in range(3):
        weights[0].grad = torch.ones(3, dtype=dtype)
        one.step()
    frozen = state_files.freeze(one.state_dict())
    training_state._load_optimizer(other, state_files.thaw(frozen.tree, frozen.tensors))
    saved, loaded = one.state[weights[0]], other.state[weights[1]]
    assert {key: getattr(v, "dtype", v) for key, v in saved.items()} == {
        key: getattr(v, "dtype", v) for key, v in loaded.items()
    }


# --- damage -------------------------------------------------------------------------------------------------


def keeping_all(tmp_path: Path) -> ExperimentSpec:
    found = spec()
    found.config["checkpointing_strategy"] = {
        "component_type_key": "CHECKPOINTING_STRATEGY",
        "variant_key": "DEFAULT",
        "config": {"checkpointing_key": "SAVE_ALL_CHECKPOINTING_STRATEGY"},
    }
    run(tmp_path, found)
    return found


FILES = (training_state.MODEL, training_state.OPTIMIZER, training_state.SCHEDULE, training_state.COMPONENTS)


def test_any_damage_is_noticed_and_the_one_before_is_used(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    found = keeping_all(whole)
    expected = final(whole)
    random_ = random.Random(0)
    for name in (*FILES, "manifest.json"):
        size = (whole / "3" / name).stat().st_size
        damages: list[Callable[[Path], Any]] = [
            Path.unlink,
            lambda path: os.truncate(path, 0),
            lambda path: os.truncate(path, size - 1),  # noqa: B023 (used before the next turn)
            lambda path: os.truncate(path, random_.randrange(size)),  # noqa: B023
            lambda path: flip(path, random_.randrange(size)),  # noqa: B023
            lambda path: path.write_bytes(path.read_bytes() + b" " if path.suffix == ".safetensors" else b"{}"),
        ]
        for damage in damages:
            folder = tmp_path / "damaged"
            shutil.copytree(whole, folder)
            damage(folder / "3" / name)
            newest = available(folder)[0]
            if newest.epoch == 3:
                with pytest.raises(DamagedError):
                    verified(newest)
            again = resumed(found, folder)
            told: list[Payload] = []
            checkpoints = Checkpoints(folder, again, told.append)
            parts = experiment.build(again, prepare(), CPU)
            at = experiment.resume(parts, checkpoints)
            assert at is not None
            assert at.epoch == 2
            assert experiment.run(again, parts, told.append, lambda: False, checkpoints).status == "DONE"
            checkpoints.wait()
            assert final(folder) == expected  # and it has taken the place of the damaged one
            shutil.rmtree(folder)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_model_that_no_longer_fits(tmp_path: Path) -> None:
    first = spec()
    run(tmp_path, first, 15)
    again = resumed(first, tmp_path)
    parts = experiment.build(again, prepare(), CPU)
    layers: Any = parts.model.layers
    layers[4] = torch.nn.Linear(16, 3)
    parts.model.extra = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError) as caught:
        training_state.restore(parts, available(tmp_path)[0])
    assert "extra.weight is new, extra.bias is new" in str(caught.value)
    assert "layers.4.weight was 2x16 and is 3x16" in str(caught.value)


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on with the last checkpoint kept, and it is said."""
    written = 0
    real = os.fsync

    def full(fd: int) -> None:
        nonlocal written
        written += 1
        if written == 8:  # the first of the second checkpoint
            raise OSError(28, "No space left on device")
        real(fd)

    found = spec()
    told: list[Payload] = []
    checkpoints = Checkpoints(tmp_path, found, told.append)
    monkeypatch.setattr(os, "fsync", full)
    parts = experiment.build(found, prepare(), CPU)
    assert experiment.run(found, parts, told.append, lambda: False, checkpoints).status == "DONE"
    checkpoints.wait()
    warnings = [payload.message for payload in told if isinstance(payload, Warned)]
    assert warnings
    assert "could not be written, the one before it stays: [Errno 28] No space left on device" in warnings[0]
    assert [(c.epoch, c.batch) for c in available(tmp_path)] == [(3, 0)]  # those overdue went with the next
    assert not list(tmp_path.glob(".*"))


# --- kills --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer("tests.engine.exact:prepare") as found:
        found.wait_ready()
        yield found


def job(server: ForkServer, paths: RunPaths, found: ExperimentSpec, kill_after: float | None) -> int | None:
    """Run one job in a process of its own; None when it was killed."""
    child = server.start("mlgym.engine.worker:job", found, paths, new_source("job"), None, 1, 1.0)
    end = time.monotonic() + (kill_after if kill_after is not None else 60)
    while not child.ended:
        ready, _, _ = select.select([server], [], [], max(0, end - time.monotonic()))
        server.update()
        if not ready:
            server.signal(child, signal.SIGKILL)
            end = time.monotonic() + 1
    child.channel.close()
    return child.exit_status


def folded(paths: RunPaths) -> tuple[State, list[Any]]:
    """All spools in the order in which they were begun."""
    state = State()
    events = []
    for spool in sorted(paths.spools.glob("*.jsonl")):
        for block in read_blocks(spool):
            events += decode_lines(block.lines)
    fold_all(state, events)
    return state, events


def killed_often(server: ForkServer, tmp_path: Path, first: ExperimentSpec, kills: int, seed: int) -> None:
    """Kill at random moments, from the fork to the exit, and resume, until there have been so many kills."""
    rng = random.Random(seed)
    whole = RunPaths(tmp_path, "whole")
    started = time.monotonic()
    assert job(server, whole, first, None) == 0
    taken = time.monotonic() - started
    expected = final(whole.experiment(0))
    scores = folded(whole)[0].experiments[0].scores
    done = rounds = 0
    while done < kills:
        rounds += 1
        paths = RunPaths(tmp_path, f"killed-{rounds}")
        found = first
        while True:
            after = rng.uniform(0, 0.7 * taken) if done < kills else None
            status = job(server, paths, found, after)
            if status == 0:
                break
            assert status == -signal.SIGKILL
            done += 1
            found = resumed(found, paths.experiment(0))
        assert final(paths.experiment(0)) == expected
        state, events = folded(paths)
        experiment_: Experiment = state.experiments[0]
        assert experiment_.scores == scores
        assert experiment_.changes == []
        assert sum(isinstance(e, JobStatusEvent) and e.payload.status == "DONE" for e in events) >= 1
        assert not [e for e in events if isinstance(e, WarnedEvent)]
        assert list(experiment_.checkpoints) == [EPOCHS]
        names = {path.name for path in paths.experiment(0).iterdir()}
        assert names == {"experiment_config.json", "output.log", str(EPOCHS)}
        shutil.rmtree(paths.root)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments(server: ForkServer, tmp_path: Path, workers: int) -> None:
    killed_often(server, tmp_path, spec(workers, checkpoint_every_n_batches=2), kills=15, seed=workers)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [0, 2])
def test_a_thousand_kills(server: ForkServer, tmp_path: Path, workers: int, seed: int) -> None:
    killed_often(server, tmp_path, spec(workers, checkpoint_every_n_batches=1 + seed % 3), 100, 100 + seed)


def test_checkpoint_events_tell_what_is_there(server: ForkServer, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path, "g")
    assert job(server, paths, spec(checkpoint_every_n_batches=4), None) == 0
    changes = [e.payload for e in folded(paths)[1] if isinstance(e, CheckpointChange)]
    assert [(c.action, c.epoch, c.batch) for c in changes] == [
        *(("SAVED", 0, 4), ("SAVED", 1, 0), ("DELETED", 0, 4)),
        *(("SAVED", 1, 4), ("SAVED", 2, 0), ("DELETED", 1, 0), ("DELETED", 1, 4)),
        *(("SAVED", 2, 4), ("SAVED", 3, 0), ("DELETED", 2, 0), ("DELETED", 2, 4)),
    ]
    assert {file.name for file in changes[1].files} == set(FILES)
    assert BATCHES == 6

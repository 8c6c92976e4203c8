"""What a checkpoint costs. *Blocked*: how long the training waits for `Checkpoints.save` (a copy in memory; hashing,
writing and fsync go on beside it, and are waited for before the next turn, outside of the measurement); the first save
of a training gets its memory from the kernel, later ones use it again. Beside it `torch.save` of the same state,
which neither hashes nor syncs, and `clone` of every tensor, the floor of whatever copies. *Read*: verifying the sha256
and loading, beside `torch.load`. *Epoch*: the digits example (batches of 32) saving after each epoch over the same
without saving.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.epoch import _parts, _spec
from benchmarks.measure import Result, in_turns, ratios
from mlgym.engine import experiment, state_files
from mlgym.engine.checkpoints import Checkpoints
from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.events import Payload
from mlgym.record.spool import Spool

SIZES = {1: 21, 50: 11, 500: 7}
"""MB -> rounds"""


def _nothing(payload: Payload) -> None:
    """Events are not what is measured."""


def _state(megabytes: int) -> dict[str, Any]:
    """Weights, and twice as much of Adam's, in tensors of at most 10 MB."""
    third = megabytes * 1_000_000 // 4 // 3
    sizes = [2_500_000] * (third // 2_500_000) + [third % 2_500_000]

    def tensors() -> list[torch.Tensor]:
        return [torch.rand(size) for size in sizes if size]

    names = [f"layers.{i}.weight" for i in range(len(tensors()))]
    state = {
        i: {"step": torch.tensor(7.0), "exp_avg": a, "exp_avg_sq": b}
        for i, (a, b) in enumerate(zip(tensors(), tensors(), strict=True))
    }
    groups = [{"lr": 0.1, "params": list(range(len(names)))}]
    return {
        "model.safetensors": dict(zip(names, tensors(), strict=True)),
        "optimizer.safetensors": {"state": state, "param_groups": groups},
    }


def run() -> list[Result]:
    results = []
    for megabytes, rounds in SIZES.items():
        results += _sizes(megabytes, rounds)
    return [*results, _epoch()]


def _sizes(megabytes: int, rounds: int) -> list[Result]:
    state = _state(megabytes)
    spec = _spec()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        later = Checkpoints(folder / "later", spec, _nothing)
        blocked: dict[str, list[float]] = {"first": [], "later": []}
        number = 0

        def save(kind: str, checkpoints: Checkpoints) -> None:
            nonlocal number
            number += 1
            start = time.perf_counter()
            checkpoints.save(number, 0, state, [number - 1])
            blocked[kind].append(time.perf_counter() - start)
            checkpoints.wait()

        def first() -> None:
            shutil.rmtree(folder / "first", ignore_errors=True)
            save("first", Checkpoints(folder / "first", spec, _nothing))

        def torch_save() -> None:
            torch.save(state, folder / "state.pt")

        def clone() -> None:
            for tree in state.values():
                _cloned(tree)

        taken = in_turns(
            {"first": first, "later": lambda: save("later", later), "torch.save": torch_save, "clone": clone}, rounds
        )
        taken |= {kind: values[1:] for kind, values in blocked.items()}
        goal = "less than 0.5" if megabytes == 500 else ""
        names = {"later": "blocked", "first": "blocked by the first", "clone": "one copy in memory"}
        found = [
            Result(
                f"{megabytes} MB: {label} / torch.save",
                "times",
                ratios(taken, key, "torch.save"),
                goal if key == "later" else "",
            )
            for key, label in names.items()
        ]
        found.append(Result(f"{megabytes} MB: blocked", "ms", [s * 1e3 for s in taken["later"]]))
        found.append(Result(f"{megabytes} MB: torch.save", "ms", [s * 1e3 for s in taken["torch.save"]]))

        def read() -> None:
            checkpoint = available(folder / "later")[0]
            verified(checkpoint)
            for file in state:
                state_files.read(Path(checkpoint.directory) / file)

        reading = in_turns({"read": read, "torch.load": lambda: torch.load(folder / "state.pt")}, rounds)
        found.append(Result(f"{megabytes} MB: verified and read", "ms", [s * 1e3 for s in reading["read"]]))
        found.append(Result(f"{megabytes} MB: torch.load", "ms", [s * 1e3 for s in reading["torch.load"]]))
    return found


def _cloned(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {key: _cloned(value) for key, value in tree.items()}
    return tree


def _epoch() -> Result:
    spec = _spec()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)

        def training(saving: bool) -> Callable[[], None]:
            parts = _parts(spec, None)
            spool = Spool(folder / f"{saving}.jsonl", "bench")

            def run() -> None:
                checkpoints = Checkpoints(folder / "0", spec, spool.emit) if saving else None
                experiment.run(spec, parts, spool.emit, lambda: False, checkpoints)
                if checkpoints:
                    checkpoints.wait()

            return run

        taken = in_turns({"saving": training(True), "not": training(False)}, 15)
    return Result("epoch that saves / epoch that does not", "times", ratios(taken, "saving", "not"), "at most 1.03")

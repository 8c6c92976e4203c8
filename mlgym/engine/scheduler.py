"""Which experiment runs when, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from mlgym.build.registry import Registry
from mlgym.engine.worker import run_job
from mlgym.errors import InputError
from mlgym.specs import ExperimentSpec, RunPaths


def device(index: int | None) -> torch.device:
    """CUDA device `index`, or the CPU. Raises `InputError` when there is no such device: never a silent CPU."""
    if index is None:
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= index < count:
        raise InputError(f"there is no CUDA device {index}: this machine has {count}; leave it out to use the CPU")
    return torch.device("cuda", index)


def run_in_process(
    specs: Iterable[ExperimentSpec],
    paths: RunPaths,
    registry: Registry,
    on: torch.device,
    stop_requested: Callable[[], bool],
) -> bool:
    """Run the experiments one after the other in this process; one that fails does not stop the others.

    False when a stop was asked for before all of them had ended.
    """
    for spec in specs:
        if stop_requested() or run_job(spec, paths, registry, on, stop_requested) == "STOPPED":
            return False
    return True

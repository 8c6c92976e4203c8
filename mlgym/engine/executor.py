"""What runs experiments, whatever the environment: the face that the process, the machine and the cluster share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mlgym.engine.checking import Checked
from mlgym.engine.dividing import Divided
from mlgym.plan.folds import CrossValidation, NestedCrossValidation
from mlgym.record.events import Payload
from mlgym.specs import ExperimentSpec, RunPaths

if TYPE_CHECKING:
    from mlgym.build.registry import Registry

Blueprint = Callable[["Registry"], None]
"""Adds a user's own parts to the registry."""

DEVICE_ERROR = "device error"
"""The reason of a job that FAILED because of its device, not of its code."""


BY_SIGNAL = "stopped by a signal"
"""Why a grid search was INTERRUPTED when the user asked for it."""


class Failure(NamedTuple):
    """An exception in a job: its last line, all of it, and whether it was the device's."""

    error: str
    stacktrace: str
    reason: str | None = None


class Emit(Protocol):
    """Record an event of an attempt."""

    def __call__(self, payload: Payload, attempt: int = 1) -> None: ...


class Stop(Protocol):
    """What the user has asked for with signals."""

    def requested(self) -> bool:
        """Finish the batch, record the end, stop."""

    def kill_requested(self) -> bool:
        """Now."""


class Executor(Protocol):
    """Runs experiments in some environment. Errors in the configuration are `InputError`s."""

    kills_after: int
    """The number of signals after which the run's own process ends without a word."""

    def gpus(self) -> list[dict[str, Any]]:
        """The CUDA devices; an error when one that the configuration names does not exist."""

    def check(self, specs: list[ExperimentSpec]) -> Checked:
        """Build each of `specs`, evaluate a batch and take a step, on parts that are then thrown away."""

    def divide(self, specs: list[ExperimentSpec], wanted: CrossValidation | NestedCrossValidation) -> Divided:
        """What each fold is tested on, by the data of `specs`, which are then thrown away."""

    def run(self, specs: list[ExperimentSpec], paths: RunPaths, emit: Emit, stop: Stop) -> str | None:
        """Run the experiments, in this order; None when all have ended, otherwise why not."""

    def close(self) -> None:
        """Leave nothing behind."""

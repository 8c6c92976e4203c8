"""One job: a spec and a device in, a spool full of events out. Never raises for what the experiment does."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from mlgym.build.registry import Registry
from mlgym.engine import experiment
from mlgym.engine.provenance import host
from mlgym.errors import StorageError
from mlgym.record.events import JobState, JobStatus, Payload, plain
from mlgym.record.spool import Spool, new_source
from mlgym.specs import ExperimentSpec, RunPaths


def run_job(
    spec: ExperimentSpec,
    paths: RunPaths,
    registry: Registry,
    device: torch.device,
    stop_requested: Callable[[], bool],
) -> JobState:
    """Run the experiment and record everything, its end as the last event. Returns how it ended.

    An exception of the experiment becomes FAILED with its stack trace. `KeyboardInterrupt` and the like end the
    job as STOPPED and are raised again; so is a `StorageError`, when nothing can be recorded any more.
    """
    source = new_source(f"job-{spec.experiment_id}-{spec.attempt}")
    started = _now()

    def status(
        state: JobState,
        finished: int | None = None,
        reason: str | None = None,
        error: str | None = None,
        stacktrace: str | None = None,
    ) -> Payload:
        return JobStatus(
            grid_search_id=spec.grid_search_id,
            experiment_id=spec.experiment_id,
            job_id=spec.job_id,
            status=state,
            starting_time=started,
            finishing_time=finished,
            device=str(device),
            host=host(),
            num_threads=torch.get_num_threads(),
            reason=reason,
            error=error,
            stacktrace=stacktrace,
        )

    with Spool(paths.spool(source), source, spec.attempt) as spool:
        spool.emit(status("RUNNING"))
        state: JobState
        try:
            write_once(
                paths.experiment(spec.experiment_id) / "experiment_config.json",
                msgspec.json.format(msgspec.json.encode(plain(spec.config)), indent=2),
            )
            parts = experiment.build(spec, registry, device)
            outcome = experiment.run(spec, parts, spool.emit, stop_requested)
        except (Exception, SystemExit) as error:  # sys.exit() in user code is a failure of that experiment
            if isinstance(error, StorageError):
                raise
            state = "FAILED"
            stacktrace = encodable(traceback.format_exc())
            spool.emit(status("FAILED", _now(), error=stacktrace.strip().rpartition("\n")[2], stacktrace=stacktrace))
        except BaseException:
            spool.emit(status("STOPPED", _now(), reason="interrupted"))
            raise
        else:
            state = outcome.status
            spool.emit(status(state, _now(), reason=outcome.reason))
    return state


def encodable(text: str) -> str:
    """`text` without the lone surrogates that a file name can bring into it."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_once(path: Path, content: bytes) -> None:
    """Write a file that is either whole or absent; one that exists is left as it is. Raises `StorageError`."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None


def _now() -> int:
    return time.time_ns() // 1_000_000

"""What happens in the process that runs a job: a spec in, a spool full of events out.

`run_job` is the job itself, in whichever process. The functions below it are what the fork server's children call.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from mlgym.build.catalog import built_in
from mlgym.build.registry import Registry
from mlgym.engine import channel as channels
from mlgym.engine import experiment
from mlgym.engine.checking import Checked, check
from mlgym.engine.checkpoints import Checkpoints
from mlgym.engine.dividing import divide
from mlgym.engine.executor import DEVICE_ERROR, Blueprint, Failure
from mlgym.engine.facts import Facts
from mlgym.engine.provenance import gpus, host
from mlgym.engine.ranks import Rank, join, leave
from mlgym.errors import InputError, StorageError, tell
from mlgym.parts.backend import Backend
from mlgym.plan.folds import CrossValidation, NestedCrossValidation
from mlgym.processes import line_buffer_c_output
from mlgym.record.events import JobState, JobStatus, Payload, plain
from mlgym.record.files import write_once
from mlgym.record.spool import Spool
from mlgym.specs import ExperimentSpec, RunPaths


def registry_of(blueprint: Blueprint | None) -> Registry:
    """The built-in components and what `blueprint` adds."""
    registry = built_in()
    if blueprint:
        blueprint(registry)
    return registry


def device(index: int | None) -> torch.device:
    """CUDA device `index`, or the CPU. Raises `InputError` when there is no such device: never a silent CPU."""
    if index is None:
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= index < count:
        raise InputError(f"there is no CUDA device {index}: this machine has {count}; leave it out to use the CPU")
    return torch.device("cuda", index)


def run_job(
    spec: ExperimentSpec,
    paths: RunPaths,
    source: str,
    registry: Registry,
    on: torch.device | Backend,
    stop_requested: Callable[[], bool],
    opened: Callable[[Spool], None] = lambda _: None,
) -> JobState:
    """Run the experiment and record everything in the spool `source`, its end as the last event; returns how it ended.

    An exception of the experiment becomes FAILED with its stack trace; where several processes train together it is
    raised again, as it may be about another's death. `KeyboardInterrupt` and the like end the job as STOPPED and are
    raised again; so is a `StorageError`, when nothing can be recorded any more.
    """
    backend = Backend.on(on)
    started = _now()
    if spec.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS refuses
        torch.use_deterministic_algorithms(True)
    inexact = (
        "CUDA kernels that are not deterministic" if backend.device.type == "cuda" and not spec.deterministic else None
    )

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
            start_epoch=spec.start.epoch if spec.start else 0,
            starting_time=started,
            finishing_time=finished,
            device=str(backend),
            host=host(),
            num_threads=torch.get_num_threads(),
            inexact=inexact if state == "RUNNING" else None,
            reason=reason,
            error=error,
            stacktrace=stacktrace,
        )

    with Spool(paths.spool(source), source) as spool:
        opened(spool)
        emit = partial(spool.emit, attempt=spec.attempt)
        emit(status("RUNNING"))
        state: JobState
        try:
            write_once(
                paths.experiment(spec.experiment_id) / "experiment_config.json",
                msgspec.json.format(msgspec.json.encode(plain(spec.config)), indent=2),
            )
            checkpoints = Checkpoints(paths.experiment(spec.experiment_id), spec, emit)
            parts = experiment.build(spec, registry, backend)
            facts = Facts(spec, parts, emit)
            try:
                outcome = experiment.run(spec, parts, facts.emit, stop_requested, checkpoints)
            finally:
                checkpoints.wait()
                facts.ended()
        except (Exception, SystemExit) as error:  # sys.exit() in user code is a failure of that experiment
            if isinstance(error, StorageError) or backend.part.size > 1:
                raise
            state = "FAILED"
            failure = failure_of(error, paths.output(spec.experiment_id))
            emit(status("FAILED", _now(), reason=failure.reason, error=failure.error, stacktrace=failure.stacktrace))
        except BaseException:
            emit(status("STOPPED", _now(), reason="interrupted"))
            raise
        else:
            state = outcome.status
            emit(status(state, _now(), reason=outcome.reason))
    return state


def failure_of(error: BaseException, output: Path) -> Failure:
    """What the exception being handled says; its stack trace goes to the end of `output` as well."""
    stacktrace = encodable(traceback.format_exc())
    with suppress(OSError), output.open("ab") as file:
        file.write(stacktrace.encode())
    last = stacktrace.strip().rpartition("\n")[2]
    return Failure(last, stacktrace, DEVICE_ERROR if is_device_error(error) else None)


def is_device_error(error: BaseException) -> bool:
    """Whether a CUDA device has failed. An assertion in a kernel and memory that ran out are the code's doing."""
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, torch.cuda.OutOfMemoryError)
        and text.startswith(("CUDA error:", "CUDA driver error:"))
        and not any(phrase in text for phrase in ("device-side assert", "out of memory", "invalid device ordinal"))
    )


def encodable(text: str) -> str:
    """`text` without the lone surrogates that a file name can bring into it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _now() -> int:
    return time.time_ns() // 1_000_000


# --- children of the fork server ----------------------------------------------------------------------------


def job(
    channel: socket.socket,
    registry: Registry,
    spec: ExperimentSpec,
    paths: RunPaths,
    source: str,
    device_index: int | None,
    num_threads: int,
    beat: float,
) -> int:
    """Run a job; talk to the scheduler in single bytes.

    s (with the spool's descriptor): begun; h: alive, every `beat` seconds if batches end; e: its end is recorded;
    from there, q: stop.
    """
    settle(spec.num_threads or num_threads)
    redirect_output(paths.output(spec.experiment_id), spec.attempt)
    channel.setblocking(False)
    talk = _Talk(channel, beat)
    try:
        run_job(spec, paths, source, registry, device(device_index), talk.stop_requested, talk.opened)
    except StorageError as error:
        tell(f"nothing can be recorded any more: {error}")
        return 74  # EX_IOERR
    with suppress(OSError):  # no room: the scheduler has not listened for long
        channel.send(b"e")
    return 0


def rank_job(
    channel: socket.socket,
    registry: Registry,
    spec: ExperimentSpec,
    paths: RunPaths,
    source: str,
    num_threads: int,
    beat: float,
    rank: Rank,
) -> int:
    """As `job`, in one of several processes that train together; only the first records, and talks of getting on.

    x and a `Failure`: an exception in this process. The scheduler judges what it means, because it knows which other
    process has died.
    """
    settle(spec.num_threads or num_threads)
    output = paths.output(spec.experiment_id)
    redirect_output(output, 1 if rank.number else spec.attempt)
    try:
        join(rank, channel)
        channel.setblocking(False)
        talk = _Talk(channel, beat)
        backend = accelerated(rank)
        if backend.is_main:
            run_job(spec, paths, source, registry, backend, talk.stop_requested, talk.opened)
        else:
            experiment.run(spec, experiment.build(spec, registry, backend), lambda _: None, lambda: False)
    except StorageError as error:
        tell(f"nothing can be recorded any more: {error}")
        return 74  # EX_IOERR
    except (Exception, SystemExit) as error:
        channel.settimeout(5)
        channel.sendall(b"x" + msgspec.json.encode(failure_of(error, output)))
        return 70  # EX_SOFTWARE
    leave()
    with suppress(OSError):
        channel.send(b"e")
    return 0


def accelerated(rank: Rank) -> Backend:
    """Where this process trains, which Accelerate decides."""
    from mlgym.parts.accelerated import Accelerated

    return Accelerated(rank.find_unused_parameters)


class _Talk:
    """The job's end of its channel. A byte that finds no room is dropped: training never waits for the scheduler."""

    def __init__(self, channel: socket.socket, beat: float) -> None:
        self._channel = channel
        self._beat = beat
        self._next_look = self._next_beat = 0.0
        self._stopping = False

    def opened(self, spool: Spool) -> None:
        """With the descriptor the scheduler reads how the job ended, whoever has deleted the spool by then."""
        socket.send_fds(self._channel, [b"s"], [spool.fileno()])

    def stop_requested(self) -> bool:
        """Called after each batch, which is also the sign that the job is getting on."""
        now = time.monotonic()
        if now < self._next_look or self._stopping:
            return self._stopping
        self._next_look = now + 0.05
        if now >= self._next_beat:
            self._next_beat = now + self._beat
            with suppress(OSError):
                self._channel.send(b"h")
        with suppress(OSError):  # nothing there, or nobody
            self._stopping = bool(self._channel.recv(1))
        return self._stopping


def settle(num_threads: int) -> None:
    """For a process that runs experiments and may start loader workers."""
    torch.set_num_threads(num_threads)
    # A forkserver inside a forked job would start a second, empty server for the DataLoader.
    multiprocessing.set_start_method("fork", force=True)


def redirect_output(path: Path, attempt: int) -> None:
    """Everything this process and its children print goes to `path`: Python, C, and the last words of a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    line_buffer_c_output()
    # The script may have replaced them, or they may be buffered: what is lost on a kill helps nobody.
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if attempt > 1:
        sys.stderr.write(f"--- attempt {attempt}, {time.strftime('%Y-%m-%d %H:%M:%S')} ---\n")
    faulthandler.enable(2)
    faulthandler.register(signal.SIGTERM, 2, all_threads=True, chain=True)  # says where a hung job hung


def check_job(channel: socket.socket, registry: Registry, specs: list[ExperimentSpec], on: int | Rank | None) -> None:
    """`check` on throw-away parts, so that the server never touches a device. Sends a `Checked`."""
    settle(1)
    before = set(sys.modules)
    try:
        if isinstance(on, Rank):
            join(on, channel)
            found = check(specs, registry, partial(accelerated, on))
        else:
            found = check(specs, registry, device(on))
    except InputError as error:
        found = Checked(error=error)
    channels.send(channel, found._replace(modules=_shareable(set(sys.modules) - before)))


def divide_job(
    channel: socket.socket,
    registry: Registry,
    specs: list[ExperimentSpec],
    wanted: CrossValidation | NestedCrossValidation,
) -> None:
    """Sends a `Divided`."""
    settle(1)
    channels.send(channel, divide(specs, wanted, registry))


_SHAREABLE = sys.stdlib_module_names | {
    *("accelerate", "mlgym", "numpy", "PIL", "safetensors", "scipy", "sklearn", "torch", "torchmetrics", "torchvision"),
    *("joblib", "threadpoolctl"),
}


def _shareable(modules: set[str]) -> list[str]:
    """Those that the server may import for all jobs: only libraries that we know to start nothing when imported."""
    return sorted(name for name in modules if name.partition(".")[0] in _SHAREABLE)


def probe_job(channel: socket.socket, registry: Registry, indices: list[int]) -> None:
    """Sends the error about a device that is missing, or None, and the GPUs of this machine."""
    error: InputError | None = None
    for index in indices:
        try:
            device(index)
        except InputError as found:
            error = error or found
    answer: tuple[InputError | None, list[dict[str, Any]]] = (error, gpus())
    channels.send(channel, answer)

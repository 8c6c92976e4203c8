"""The composition root: a plan in, a finished grid search out.

plan -> check -> directory, lock -> hub <- forwarder <- spools <- jobs -> report
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mlgym.engine.checking import Checked, before_a_run, covering
from mlgym.engine.executor import BY_SIGNAL, Executor
from mlgym.engine.forkserver import Blueprint
from mlgym.engine.progress import Progress
from mlgym.engine.provenance import host, system_info
from mlgym.errors import ConfigError, StorageError, tell
from mlgym.plan.config import MainProcess, RunConfig
from mlgym.plan.experiments import Plan
from mlgym.record.events import ExperimentConfig, GridSearch, JobStatus, SystemInfo, plain
from mlgym.record.files import write_once
from mlgym.record.forwarder import Forwarder
from mlgym.record.hub import Hub
from mlgym.record.journal import flock
from mlgym.record.report import report
from mlgym.record.spool import Spool, new_source
from mlgym.record.summary import summary
from mlgym.specs import ExperimentSpec, RunPaths

INTERRUPTED = 130


@contextmanager
def executor(run_config: RunConfig, blueprint: Blueprint | None) -> Iterator[Executor]:
    """The executor for the environment of a run config; it may begin to load while the grid is being planned."""
    environment = run_config.environment
    found: Executor
    if isinstance(environment, MainProcess):
        from mlgym.engine.in_process import InProcess

        found = InProcess(environment.config, blueprint)
    else:
        from mlgym.engine.scheduler import Multiprocessing

        found = Multiprocessing(environment.config, blueprint)
    try:
        yield found
    finally:
        found.close()


def check(plan: Plan, executor: Executor, cells: list[int] | None = None) -> Checked:
    """Try experiments: by default as many as it takes to see every swept value once.

    Raises `MLgymError` for the first mistake in the configuration, with its place.
    """
    specs = plan.specs("check")
    found = executor.check([specs[i] for i in (covering(plan.cells) if cells is None else cells)])
    if isinstance(found.error, ConfigError):
        raise found.error.locate(partial(plan.place, found.experiment_id))
    if found.error:
        raise found.error
    return found


def launch(plan: Plan, executor: Executor) -> int:
    """Run the whole grid; prints the table and returns the exit code. Raises `MLgymError` before anything began."""
    storage = Path(plan.run_config.logging.event_storage_path).absolute()  # whatever user code makes the current one
    try:
        gpus = executor.gpus()
    except ConfigError as error:
        raise error.locate(plan.run_document.place) from None
    check(plan, executor, before_a_run(plan.cells))
    info = system_info(gpus)
    with ExitStack() as stack:
        paths = _new_grid_search(plan, storage)
        lock = stack.enter_context(paths.lock.open("w"))
        flock(lock.fileno(), paths.lock)
        hub = Hub(paths.log)
        stack.callback(hub.close)
        progress = Progress(len(plan.cells))
        hub.subscribe(progress)
        forwarder = Forwarder(paths.spools, hub.accept)
        try:
            unfinished = _run_all(plan, paths, executor, info)
        finally:
            delivered = forwarder.close()
            progress.close()
        shown = RunPaths(Path(plan.run_config.logging.event_storage_path), paths.grid_search_id)
        sys.stdout.write(f"{summary(report(hub.state), shown)}\n")
        sys.stdout.flush()
        if not delivered:
            raise StorageError(
                f"some events could not be written to the log; what is left of them is in {paths.spools}"
            )
        if unfinished == BY_SIGNAL:
            return INTERRUPTED
        return int(any(found.status != "DONE" for found in hub.state.experiments.values()))


def _run_all(plan: Plan, paths: RunPaths, executor: Executor, info: dict[str, Any]) -> str | None:
    """Announce every experiment, run them, record the end; None, or why some have not been run."""
    source = new_source("run")
    specs = plan.specs(paths.grid_search_id)
    unfinished: str | None = "an error"
    with _signals(executor.kills_after) as stop:
        try:
            with Spool(paths.spool(source), source) as spool:
                _announce(plan, specs, paths, info, spool)
                unfinished = executor.run(plan.start_order(specs), paths, spool.emit, stop)
        except KeyboardInterrupt:  # from user code: our signals raise nothing
            unfinished = BY_SIGNAL
        finally:
            end = GridSearch(
                grid_search_id=paths.grid_search_id,
                status="INTERRUPTED" if unfinished else "FINISHED",
                reason=unfinished,
            )
            source = new_source("run")  # begun after all others, and so the last in the log
            with Spool(paths.spool(source), source) as spool:
                spool.emit(end)
        return unfinished


def _announce(plan: Plan, specs: list[ExperimentSpec], paths: RunPaths, info: dict[str, Any], spool: Spool) -> None:
    grid_search_id = paths.grid_search_id
    spool.emit(
        GridSearch(
            grid_search_id=grid_search_id,
            status="STARTED",
            num_experiments=len(specs),
            run_config=plan.run_document.text,
        )
    )
    info = plain(info)
    spool.emit(SystemInfo(grid_search_id=grid_search_id, host=host(), info=info))
    text = msgspec.json.format(msgspec.json.encode(info), indent=2)
    for spec in specs:
        write_once(paths.experiment(spec.experiment_id) / "system_info.json", text)
        spool.emit(
            ExperimentConfig(
                grid_search_id=grid_search_id,
                experiment_id=spec.experiment_id,
                job_id=spec.job_id,
                config=msgspec.Raw(msgspec.json.encode(plain(spec.config))),
                config_hash=spec.config_hash,
                swept=plain(spec.swept),
                seed=spec.seed,
                num_epochs=spec.num_epochs,
            )
        )
        spool.emit(
            JobStatus(
                grid_search_id=grid_search_id, experiment_id=spec.experiment_id, job_id=spec.job_id, status="INIT"
            )
        )


class _Stop:
    """How often the user has asked for an end. Killing outright is `os._exit`: an exception could come out of the
    middle of a write, where a death does no harm."""

    def __init__(self, at_once: int) -> None:
        self._asked = 0
        self._at_once = at_once

    def requested(self) -> bool:
        return self._asked >= 1

    def kill_requested(self) -> bool:
        return self._asked >= 2

    def __call__(self, signum: int, frame: object) -> None:
        self._asked += 1
        if self._asked == self._at_once:
            os._exit(INTERRUPTED)
        tell("stopping after this batch; once more to kill" if self._asked == 1 else "killing")


@contextmanager
def _signals(at_once: int) -> Iterator[_Stop]:
    """Count the signals that ask for an end; the process ends outright at number `at_once`."""
    stop = _Stop(at_once)
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN or signum == signal.SIGINT:  # nohup stays nohup
            signal.signal(signum, stop)
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _new_grid_search(plan: Plan, storage: Path) -> RunPaths:
    """A directory of its own for this launch, with copies of the configuration. Raises `StorageError`."""
    stem = time.strftime("%Y-%m-%d--%H-%M-%S")
    try:
        storage.mkdir(parents=True, exist_ok=True)
        paths = _first_free(storage, stem)
        paths.spools.mkdir()
        paths.lock.touch()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"{storage}: the event storage cannot be written: {reason}") from None
    write_once(paths.grid_search_config, plan.grid_document.text.encode())
    write_once(paths.run_config, plan.run_document.text.encode())
    return paths


def _first_free(storage: Path, stem: str) -> RunPaths:
    """The directory is made here, so that two launches in one second cannot both have it."""
    number = 1
    while True:
        paths = RunPaths(storage, stem if number == 1 else f"{stem}-{number}")
        try:
            paths.root.mkdir()
            return paths
        except FileExistsError:
            number += 1

"""The composition root: a plan in, a finished grid search out.

plan -> check -> directory, lock -> hub <- forwarder <- spools <- jobs -> report
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from mlgym.build.catalog import built_in
from mlgym.build.registry import Registry
from mlgym.engine import experiment, scheduler
from mlgym.engine.progress import Progress
from mlgym.engine.provenance import host, system_info
from mlgym.engine.worker import write_once
from mlgym.errors import ConfigError, MLgymError, StorageError, tell
from mlgym.plan.experiments import Plan
from mlgym.plan.sweep import Cell
from mlgym.record.events import ExperimentConfig, GridSearch, JobStatus, SystemInfo, plain
from mlgym.record.forwarder import Forwarder
from mlgym.record.hub import Hub
from mlgym.record.journal import flock
from mlgym.record.report import as_text, report
from mlgym.record.spool import Spool, new_source
from mlgym.specs import ExperimentSpec, RunPaths

Blueprint = Callable[[Registry], None]
INTERRUPTED = 130


def registry_of(blueprint: Blueprint | None) -> Registry:
    """The built-in components and what `blueprint` adds."""
    registry = built_in()
    if blueprint:
        blueprint(registry)
    return registry


# --- check --------------------------------------------------------------------------------------------------


def check(plan: Plan, registry: Registry, at_most: int | None = None) -> list[tuple[int, str]]:
    """Build as many experiments as it takes to see every swept value once (or `at_most`), and take a step in each.

    Raises `MLgymError` for the first mistake in the configuration, with its place. Any other exception is the
    experiment's own: it is returned as (experiment_id, stack trace), because the others can still run.
    """
    own: list[tuple[int, str]] = []
    specs = plan.specs("check")
    on = scheduler.device(plan.run_config.environment.config.computation_device_id)
    for experiment_id in covering(plan.cells)[:at_most]:
        try:
            experiment.try_once(experiment.build(specs[experiment_id], registry, on))
        except ConfigError as error:
            raise error.locate(partial(plan.place, experiment_id)) from None
        except MLgymError:
            raise
        except (Exception, SystemExit):
            own.append((experiment_id, traceback.format_exc()))
    return own


def covering(cells: list[Cell]) -> list[int]:
    """A few cells in which every value of every sweep occurs."""
    seen: set[tuple[object, str]] = set()
    chosen = []
    for i, cell in enumerate(cells):
        values = {(path, repr(value)) for path, value in cell.swept.items()}
        if i == 0 or not values <= seen:
            seen |= values
            chosen.append(i)
    return chosen


# --- run ----------------------------------------------------------------------------------------------------


def launch(plan: Plan, blueprint: Blueprint | None) -> int:
    """Run the whole grid; prints the table and returns the exit code. Raises `MLgymError` before anything began."""
    storage = Path(plan.run_config.logging.event_storage_path).absolute()  # whatever user code makes the current one
    registry = registry_of(blueprint)
    check(plan, registry, at_most=16)
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
            finished = _run_all(plan, plan.specs(paths.grid_search_id), paths, registry)
        finally:
            delivered = forwarder.close()
            progress.close()
        shown = RunPaths(Path(plan.run_config.logging.event_storage_path), paths.grid_search_id)
        sys.stdout.write(f"{as_text(report(hub.state))}\n\nlog: {shown.log}\n")
        sys.stdout.flush()
        if not delivered:
            raise StorageError(
                f"some events could not be written to the log; what is left of them is in {paths.spools}"
            )
        if not finished:
            return INTERRUPTED
        return int(any(found.status != "DONE" for found in hub.state.experiments.values()))


def _run_all(plan: Plan, specs: list[ExperimentSpec], paths: RunPaths, registry: Registry) -> bool:
    """Announce every experiment, run them, record the end. False when a signal came before the end."""
    source = new_source("run")
    with Spool(paths.spool(source), source) as spool, _signals() as stopped:
        _announce(plan, specs, paths, spool)
        on = scheduler.device(plan.run_config.environment.config.computation_device_id)
        finished = False
        try:
            finished = scheduler.run_in_process(specs, paths, registry, on, stopped.is_set)
        except KeyboardInterrupt:  # from user code: ours only sets `stopped`
            pass
        finally:
            spool.emit(
                GridSearch(
                    grid_search_id=paths.grid_search_id,
                    status="FINISHED" if finished else "INTERRUPTED",
                    reason=None if finished else "stopped by a signal" if stopped.is_set() else "an error",
                )
            )
        return finished


def _announce(plan: Plan, specs: list[ExperimentSpec], paths: RunPaths, spool: Spool) -> None:
    grid_search_id = paths.grid_search_id
    spool.emit(
        GridSearch(
            grid_search_id=grid_search_id,
            status="STARTED",
            num_experiments=len(specs),
            run_config=plan.run_document.text,
        )
    )
    info = plain(system_info())
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


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets: finish the batch, then stop. The second one kills.

    Killing is `os._exit`: an exception could come out of the middle of a write, where a death does no harm.
    """
    stopped = threading.Event()

    def stop(signum: int, frame: object) -> None:
        if stopped.is_set():
            os._exit(INTERRUPTED)
        stopped.set()
        tell("stopping after this batch; once more to kill")

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
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

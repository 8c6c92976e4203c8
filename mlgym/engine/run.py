"""The composition root: a plan in, a finished grid search out.

plan -> check -> directory, lock -> hub <- forwarder <- spools <- jobs -> report
"""

from __future__ import annotations

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
from mlgym.errors import ConfigError, MLgymError, StorageError
from mlgym.plan.experiments import Plan
from mlgym.plan.sweep import Cell
from mlgym.record.events import ExperimentConfig, GridSearch, JobStatus, SystemInfo, plain
from mlgym.record.fold import State
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


def check(plan: Plan, registry: Registry) -> list[tuple[int, str]]:
    """Build as many experiments as it takes to see every swept value once, and evaluate one batch of each.

    Raises `MLgymError` for the first mistake in the configuration, with its place. Any other exception is the
    experiment's own: it is returned as (experiment_id, stack trace), because the others can still run.
    """
    own: list[tuple[int, str]] = []
    specs = plan.specs("check")
    on = scheduler.device(plan.run_config.environment.config.computation_device_id)
    for experiment_id in covering(plan.cells):
        try:
            experiment.try_once(experiment.build(specs[experiment_id], registry, on))
        except ConfigError as error:
            raise error.locate(partial(plan.place, experiment_id)) from None
        except MLgymError:
            raise
        except Exception:
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
    registry = registry_of(blueprint)
    check(plan, registry)
    with ExitStack() as stack:
        paths = _new_grid_search(plan)
        lock = stack.enter_context(paths.lock.open("w"))
        flock(lock.fileno(), paths.lock)
        hub = Hub(paths.log)
        stack.callback(hub.close)
        progress = Progress(len(plan.cells))
        hub.subscribe(progress)
        paths.spools.mkdir()
        forwarder = Forwarder(paths.spools, hub.accept)
        try:
            code = _run_all(plan, plan.specs(paths.grid_search_id), paths, registry)
        finally:
            delivered = forwarder.close()
            progress.close()
        if not delivered:
            sys.stderr.write(f"mlgym: warning: some events could not be delivered; they stay in {paths.spools}\n")
        return max(code, _summary(hub.state, paths))


def _run_all(plan: Plan, specs: list[ExperimentSpec], paths: RunPaths, registry: Registry) -> int:
    """Announce every experiment, run them, record the end. Returns 0 or 130."""
    source = new_source("run")
    with Spool(paths.spool(source), source) as spool, _signals() as stopped:
        _announce(plan, specs, paths, spool)
        on = scheduler.device(plan.run_config.environment.config.computation_device_id)
        try:
            scheduler.run_in_process(specs, paths, registry, on, stopped.is_set)
        except KeyboardInterrupt:
            stopped.set()
        ended: dict[str, str] = {"status": "FINISHED"}
        if stopped.is_set():
            ended = {"status": "INTERRUPTED", "reason": "stopped by a signal"}
        spool.emit(msgspec.convert({"grid_search_id": paths.grid_search_id, **ended}, GridSearch))
        return INTERRUPTED if stopped.is_set() else 0


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
    """An event that the first SIGINT or SIGTERM sets: finish the batch, then stop. The second one interrupts."""
    stopped = threading.Event()

    def stop(signum: int, frame: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        sys.stderr.write("\nmlgym: stopping after this batch; once more to stop now\n")

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _new_grid_search(plan: Plan) -> RunPaths:
    """A directory of its own for this launch, with copies of the configuration. Raises `StorageError`."""
    storage = Path(plan.run_config.logging.event_storage_path)
    stem = time.strftime("%Y-%m-%d--%H-%M-%S")
    try:
        storage.mkdir(parents=True, exist_ok=True)
        paths = _first_free(storage, stem)
    except OSError as error:
        raise StorageError(f"{storage.absolute()}: the event storage cannot be written: {error.strerror}") from None
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


def _summary(state: State, paths: RunPaths) -> int:
    """Print the table; 1 when an experiment failed."""
    sys.stdout.write(f"{as_text(report(state))}\n\nlog: {paths.log}\n")
    sys.stdout.flush()
    return int(any(found.status in ("FAILED", "LOST") for found in state.experiments.values()))

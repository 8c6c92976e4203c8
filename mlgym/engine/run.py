"""The composition root: a plan in, a finished grid search out.

fresh: plan -> check -> directory -> recording <- spools <- jobs -> report
warm start: recording <- what the dead run left in its spools -> state, checkpoints -> plan -> check -> jobs -> report
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mlgym.engine.announce import Todo, announce, announce_experiments, tell_changes
from mlgym.engine.checking import Checked, before_a_run, covering
from mlgym.engine.executor import BY_SIGNAL, Blueprint, Executor
from mlgym.engine.progress import Progress
from mlgym.engine.provenance import system_info
from mlgym.engine.ranks import launched
from mlgym.engine.recording import Recording, recording, remote_log, remote_of
from mlgym.engine.signals import INTERRUPTED, listening
from mlgym.errors import ConfigError, InputError, StorageError, one_of, tell
from mlgym.plan.config import (
    Accelerate,
    Document,
    MainProcess,
    RayCluster,
    RunConfig,
    Train,
    WarmstartConfig,
    read_run_config,
    required,
)
from mlgym.plan.experiments import Plan, read_grid, stated
from mlgym.plan.folds import NestedCrossValidation
from mlgym.plan.resume import Resumption, finished, recorded_grid, recorded_validation, resume
from mlgym.record.checkpoint_folder import newest
from mlgym.record.events import GridSearch, plain
from mlgym.record.files import write_once
from mlgym.record.fold import REMOVED, State
from mlgym.record.log import grid_search, read_state
from mlgym.record.remote import Remote, newer_checkpoint
from mlgym.record.report import report
from mlgym.record.spool import Spool, new_source
from mlgym.record.summary import summary
from mlgym.record.validation import OUTER_FOLD, selected, swept_values, validated
from mlgym.specs import GRID_SEARCH_ID, Checkpoint, ExperimentSpec, RunPaths

Specs = list[ExperimentSpec]


@contextmanager
def executor(run_document: Document, run_config: RunConfig, blueprint: Blueprint | None) -> Iterator[Executor]:
    """The executor for the environment of a run config; it may begin to load while the grid is being planned."""
    try:
        found = _executor(run_config, blueprint)
    except ConfigError as error:
        raise error.locate(run_document.place) from None
    try:
        yield found
    finally:
        found.close()


def _executor(run_config: RunConfig, blueprint: Blueprint | None) -> Executor:
    if threading.current_thread() is not threading.main_thread():
        raise InputError("a run needs the main thread: that is where signals arrive")
    environment = run_config.environment
    processes = launched(os.environ).num_processes or 1
    if processes > 1 and not isinstance(environment, Accelerate):
        raise InputError(f"{processes} processes were launched, which is for `environment: {{type: accelerate}}`")
    if isinstance(environment, MainProcess):
        from mlgym.engine.in_process import InProcess

        return InProcess(environment.config, blueprint)
    if isinstance(environment, RayCluster):
        from mlgym.engine.cluster import Ray

        return Ray(environment.config, run_config.logging, blueprint)
    from mlgym.engine import scheduler

    if isinstance(environment, Accelerate):
        return scheduler.Accelerate(environment.config, blueprint)
    return scheduler.Multiprocessing(environment.config, blueprint)


def check(plan: Plan, executor: Executor, ids: list[int] | None = None, specs: Specs | None = None) -> Checked:
    """Try experiments: by default as many as it takes to see every swept value once.

    Raises `MLgymError` for the first mistake in the configuration, with its place.
    """
    wanted = covering(plan.cells) if ids is None else ids
    by_id = {spec.experiment_id: spec for spec in specs or plan.specs("check")}
    found = executor.check([by_id[i] for i in wanted])
    if isinstance(found.error, ConfigError):
        raise found.error.locate(partial(plan.place, found.experiment_id))
    if found.error:
        raise found.error
    if found.scores:
        _refuse_unknown_metric(plan, found.scores)
    return found


def _refuse_unknown_metric(plan: Plan, known: Sequence[str]) -> None:
    folds = plan.validation and plan.validation.folds
    if not plan.validation or not isinstance(folds, NestedCrossValidation) or folds.config.metric in (None, *known):
        return
    metric = folds.config.metric
    assert plan.validation_document
    raise ConfigError(
        f"{metric!r} is not evaluated; {one_of(metric, known)}", (*plan.validation.where, "config", "metric")
    ).locate(plan.validation_document.place)


# --- folds --------------------------------------------------------------------------------------------------


def divided(plan: Plan, executor: Executor) -> Plan:
    """The plan with its folds, which takes the data. Raises `InputError` for data that cannot be divided so."""
    if plan.validation is None or plan.validation.folds is None or plan.folds:
        return plan
    wanted = plan.validation.folds
    alike: dict[str, ExperimentSpec] = {}
    for spec in plan.specs("folds"):
        try:
            data = required(spec.config, [wanted.iterator_key])
        except ConfigError as error:
            raise error.locate(partial(plan.place, spec.experiment_id)) from None
        alike.setdefault(repr(data), spec)
    found = executor.divide(list(alike.values()), wanted)
    if found.folds:
        return plan._replace(folds=found.folds)
    wrong = found.error or InputError("the data could not be divided")
    if isinstance(wrong, ConfigError) and found.experiment_id is not None:
        raise wrong.locate(partial(plan.place, found.experiment_id))
    if isinstance(wrong, ConfigError) and plan.validation_document:
        raise wrong.inside(*plan.validation.where).locate(plan.validation_document.place)
    raise wrong


def stages(plan: Plan, specs: Specs) -> tuple[Specs, Specs]:
    """What to run now, and what to choose from once that has ended."""
    now: Specs = []
    later: Specs = []
    for spec in specs:
        (later if plan.waits(spec.experiment_id) else now).append(spec)
    return now, later


def chosen(later: Specs, state: State) -> Specs:
    """Those on the outer folds whose combination the inner folds have chosen."""
    found = selected(state)
    return [spec for spec in later if plain(swept_values(spec.swept)) == found.get(spec.swept[OUTER_FOLD])]


# --- run ----------------------------------------------------------------------------------------------------


def launch(plan: Plan, executor: Executor) -> int:
    """Run a whole grid; prints the table and returns the exit code. Raises `MLgymError` before anything began."""
    storage = Path(plan.run_config.logging.event_storage_path).absolute()  # whatever user code makes the current one
    plan = divided(plan, executor)
    info = _prepared(plan, executor, before_a_run(plan.cells), None)
    paths = _new_grid_search(plan, storage)
    specs, later = stages(plan, plan.specs(paths.grid_search_id))
    with recording(paths, plan.run_config.logging, fresh=True) as to:
        began = GridSearch(
            grid_search_id=paths.grid_search_id,
            status="STARTED",
            num_experiments=plan.num_experiments,
            run_config=plan.run_document.text,
            validation=plan.recorded(),
            model_info=stated(plan.grid_document),
        )
        todo = Todo(plan, specs, info, began, later=later)
        return _run(todo, paths, executor, to)


def warm_start(run_document: Document, run_config: RunConfig, executor: Executor) -> int:
    """Go on with what a grid search has not finished. Raises `MLgymError` before anything began."""
    paths = existing(run_document, run_config)
    with recording(paths, run_config.logging) as to:
        if not to.forwarder.drain():
            raise StorageError(f"what the run before has left in {paths.spools} could not be delivered")
        _refuse_other_place(run_document, run_config, paths)
        found = resumption(run_document, run_config, paths, to.hub.state, to.remote)
        new_folds = found.plan.folds is None
        found = found._replace(plan=divided(found.plan, executor))
        plan = found.plan
        specs, later = stages(plan, found.specs(paths.grid_search_id))
        if not specs and later:
            specs, later = chosen(later, to.hub.state), []
        removed = [choice for choice in found.choices if choice.action == "remove"]
        if not specs and not removed and not found.changed and to.hub.state.status == "FINISHED":
            tell("there is nothing left to do")
            return _end(to, paths, plan.run_config, None)
        to_run = {spec.experiment_id: plan.cells[spec.experiment_id] for spec in specs}
        info = _prepared(plan, executor, before_a_run(to_run) if to_run else [], specs)
        tell(found.summary())
        began = GridSearch(
            grid_search_id=paths.grid_search_id,
            status="STARTED",
            num_experiments=plan.num_experiments + len(found.choices) - len(plan.cells),
            run_config=run_document.text,
            grid_search_config=plan.grid_document.text if found.changed else None,
            reason=found.summary(),
            validation=found.recorded(),
            model_info=stated(plan.grid_document),
        )
        return _run(Todo(plan, specs, info, began, removed, later, new_folds), paths, executor, to)


def existing(run_document: Document, run_config: RunConfig) -> RunPaths:
    """The grid search that a warm start names. Raises `ConfigError` when there is none."""
    storage = Path(run_config.logging.event_storage_path)
    wanted = run_config.run_configuration.config
    assert isinstance(wanted, WarmstartConfig)
    paths = RunPaths(storage.absolute(), wanted.gridsearch_id)
    where = ("run_configuration", "config", "gridsearch_id")
    try:
        if not run_config.logging.websocket_logging_servers:
            grid_search(storage, wanted.gridsearch_id)
            return paths
    except InputError as error:
        raise ConfigError(str(error), where).locate(run_document.place) from None
    if not re.fullmatch(GRID_SEARCH_ID, wanted.gridsearch_id):
        raise ConfigError(f"{wanted.gridsearch_id!r} is no id of a grid search", where).locate(run_document.place)
    if paths.log.is_file():
        raise ConfigError(
            f"{wanted.gridsearch_id} began with its log in {storage}, and goes on there: name no servers. "
            f"`mlgym sync {wanted.gridsearch_id} --server URL` copies it to a server",
            ("logging", "websocket_logging_servers"),
        ).locate(run_document.place)
    paths.root.mkdir(parents=True, exist_ok=True)  # what a server has is brought here
    return paths


def _refuse_other_place(run_document: Document, run_config: RunConfig, paths: RunPaths) -> None:
    """A grid search stays where it began. Raises `ConfigError`."""
    _, first = read_run_config(paths.run_config)
    before, now = (config.logging.websocket_logging_servers for config in (first, run_config))
    if set(before) != set(now):
        raise ConfigError(
            f"{paths.grid_search_id} began with {', '.join(before) or 'none'}, and stays there; "
            f"`mlgym sync {paths.grid_search_id} --server URL` copies it to another server",
            ("logging", "websocket_logging_servers"),
        ).locate(run_document.place)


def would_resume(run_document: Document, run_config: RunConfig, paths: RunPaths) -> tuple[State, Resumption]:
    """What has been recorded of a grid search so far, wherever its log is, and what a warm start would do."""
    if not run_config.logging.websocket_logging_servers:
        state = read_state(paths.log, paths.spools)
        return state, resumption(run_document, run_config, paths, state)
    state = remote_log(paths, run_config.logging).state
    with remote_of(run_config.logging) as remote:
        return state, resumption(run_document, run_config, paths, state, remote, fetch=False)


def resumption(
    run_document: Document,
    run_config: RunConfig,
    paths: RunPaths,
    state: State,
    remote: Remote | None = None,
    fetch: bool = True,
) -> Resumption:
    """What a warm start of the grid search in `paths` and `state` does.

    Checkpoints that are newer on the server `remote` are brought here, or (`fetch`) only counted on.
    """
    _, first = read_run_config(paths.run_config)
    wanted = run_config.run_configuration.config
    assert isinstance(first.run_configuration, Train)
    assert isinstance(wanted, WarmstartConfig)
    grid, validation = recorded_grid(paths, state), recorded_validation(paths)
    now = read_grid(run_document, wanted.gs_config_path) if wanted.gs_config_path else None

    def newest_of(experiment_id: int) -> Checkpoint | None:
        experiment = state.experiments.get(experiment_id)
        here = newest(paths.experiment(experiment_id))
        if remote and experiment and not finished(experiment, wanted.num_epochs):
            return newer_checkpoint(remote, paths, experiment_id, here, fetch)
        return here

    before = first.run_configuration.config
    return resume(run_document, run_config, before, grid, now, state, newest_of, validation)


def _prepared(plan: Plan, executor: Executor, ids: list[int], specs: Specs | None) -> dict[str, Any]:
    """The configuration and the devices are fine; what this machine is."""
    if sys.stderr.isatty():
        tell(f"loading, then trying {len(ids)} of {len(specs or plan.cells)} experiments for a step")
    try:
        gpus = executor.gpus()
    except ConfigError as error:
        raise error.locate(plan.run_document.place) from None
    if ids:
        check(plan, executor, ids, specs)
    return system_info(gpus)


def _run(todo: Todo, paths: RunPaths, executor: Executor, to: Recording) -> int:
    progress = Progress(todo.began.num_experiments or 0)
    to.hub.subscribe(progress)
    try:
        unfinished = _run_all(todo, paths, executor, to)
        to.forwarder.drain()
    finally:
        progress.close()
    return _end(to, paths, todo.plan.run_config, unfinished)


def _end(to: Recording, paths: RunPaths, run_config: RunConfig, unfinished: str | None) -> int:
    """Print the table, wait until everything is delivered; returns the exit code."""
    hub = to.hub
    delivered = to.end()
    elsewhere = run_config.logging.websocket_logging_servers
    shown = RunPaths(Path(run_config.logging.event_storage_path), paths.grid_search_id)
    try:
        ranked = validated(hub.state) if hub.state.validation else None
        sys.stdout.write(f"{summary(report(hub.state), shown, elsewhere, ranked)}\n")
        sys.stdout.flush()
    except (OSError, ValueError) as error:  # nobody reads it: what has been recorded is what counts
        tell(f"the table could not be printed ({error}); `mlgym status {paths.grid_search_id}` prints it")
    if run_config.logging.board and not elsewhere:
        tell(f"the dashboard again: ml_board --event_storage_path {shown.event_storage}")
    if not elsewhere and not paths.log.exists():
        raise StorageError(f"{paths.log}: was deleted while the grid search was running")
    if not delivered and not elsewhere:
        raise StorageError(f"some events could not be written to the log; what is left of them is in {paths.spools}")
    if unfinished == BY_SIGNAL:
        return INTERRUPTED
    ended = [e for e in hub.state.experiments.values() if e.reason != REMOVED]
    return int(any(experiment.status != "DONE" for experiment in ended))


def _run_all(todo: Todo, paths: RunPaths, executor: Executor, to: Recording) -> str | None:
    """Announce every experiment, run them, record the end; None, or why some have not been run."""
    hub = to.hub
    source = new_source("run")
    unfinished: str | None = "an error"
    with listening(executor.kills_after) as stop:
        try:
            with Spool(paths.spool(source), source) as spool:
                known = {e.experiment_id: len(e.changes) for e in hub.state.experiments.values()}
                hub.subscribe(partial(tell_changes, spool, known))
                announce(todo, paths, spool)
                unfinished = executor.run(todo.plan.start_order(todo.specs), paths, spool.emit, stop)
                to.forwarder.drain()  # what `tell_changes` has to say comes before the end
                if todo.later and not unfinished:
                    specs = chosen(todo.later, hub.state)
                    announce_experiments(specs, todo.info, paths, spool)
                    unfinished = executor.run(todo.plan.start_order(specs), paths, spool.emit, stop)
                    to.forwarder.drain()
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
    if plan.validation_document:
        write_once(paths.validation_config, plan.validation_document.text.encode())
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

"""What the run itself records: that it begins, what it is about to run, and that scores have changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from mlgym.engine.provenance import host
from mlgym.plan.experiments import Plan
from mlgym.plan.resume import Choice
from mlgym.record.events import (
    DataFold,
    EvaluationResultEvent,
    Event,
    ExperimentConfig,
    GridSearch,
    JobStatus,
    NondeterminismDetected,
    ScoreChange,
    SystemInfo,
    number,
    plain,
)
from mlgym.record.files import write_once
from mlgym.record.fold import REMOVED, State
from mlgym.record.spool import Spool
from mlgym.specs import ExperimentSpec, RunPaths

_PIECE = 20_000  # numbers in one event, which a batch still has room for


@dataclass
class Todo:
    """What is to be recorded when a run begins, and what is to be run."""

    plan: Plan
    specs: list[ExperimentSpec]
    info: dict[str, Any]
    began: GridSearch
    removed: list[Choice] = field(default_factory=list)
    later: list[ExperimentSpec] = field(default_factory=list)
    """On the outer folds, of which those are run that the inner folds choose."""
    new_folds: bool = True
    """Whether the log does not have the folds yet."""


def tell_changes(spool: Spool, told: dict[int, int], events: list[Event], state: State) -> None:
    """A subscriber: record when an epoch that was run again gave other scores."""
    for event in events:
        if not isinstance(event, EvaluationResultEvent):
            continue
        experiment = state.experiments[event.payload.experiment_id]
        before = told.setdefault(experiment.experiment_id, 0)
        told[experiment.experiment_id] = len(experiment.changes)
        by_epoch: dict[int, list[ScoreChange]] = {}
        for epoch, key, was, now in experiment.changes[before:]:
            by_epoch.setdefault(epoch, []).append(ScoreChange(key, number(was), number(now)))
        for epoch, changes in by_epoch.items():
            spool.emit(
                NondeterminismDetected(
                    grid_search_id=state.grid_search_id,
                    experiment_id=experiment.experiment_id,
                    epoch=epoch,
                    changes=changes,
                )
            )


def announce(todo: Todo, paths: RunPaths, spool: Spool) -> None:
    grid_search_id = paths.grid_search_id
    spool.emit(todo.began)
    spool.emit(SystemInfo(grid_search_id=grid_search_id, host=host(), info=plain(todo.info)))
    folds = todo.plan.folds if todo.new_folds else None
    for part, test in folds.tests.items() if folds else ():
        assert folds
        for offset in range(0, len(test), _PIECE):
            spool.emit(
                DataFold(
                    grid_search_id=grid_search_id,
                    fold=part.name,
                    samples=folds.samples,
                    test=test[offset : offset + _PIECE],
                    offset=offset,
                )
            )
    for choice in todo.removed:
        removed = JobStatus(
            grid_search_id=grid_search_id,
            experiment_id=choice.experiment_id,
            job_id=f"{choice.experiment_id}-{choice.attempt}",
            status="STOPPED",
            start_epoch=choice.epochs_done,
            reason=REMOVED,
        )
        spool.emit(removed, choice.attempt)
    announce_experiments(todo.specs, todo.info, paths, spool)


def announce_experiments(specs: list[ExperimentSpec], info: dict[str, Any], paths: RunPaths, spool: Spool) -> None:
    """What they consist of, and that they wait."""
    grid_search_id = paths.grid_search_id
    text = msgspec.json.format(msgspec.json.encode(plain(info)), indent=2)
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
        waiting = JobStatus(
            grid_search_id=grid_search_id,
            experiment_id=spec.experiment_id,
            job_id=spec.job_id,
            status="INIT",
            start_epoch=spec.start.epoch if spec.start else 0,
        )
        spool.emit(waiting, spec.attempt)

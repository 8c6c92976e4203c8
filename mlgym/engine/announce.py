"""What the run itself records: that it begins, what it is about to run, and that scores have changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from mlgym.engine.provenance import host
from mlgym.plan.experiments import Plan
from mlgym.plan.resume import REMOVED, Choice
from mlgym.record.events import (
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
from mlgym.record.fold import State
from mlgym.record.spool import Spool
from mlgym.specs import ExperimentSpec, RunPaths


@dataclass
class Todo:
    """What is to be recorded when a run begins, and what is to be run."""

    plan: Plan
    specs: list[ExperimentSpec]
    info: dict[str, Any]
    began: GridSearch
    removed: list[Choice] = field(default_factory=list)


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
    info = plain(todo.info)
    spool.emit(SystemInfo(grid_search_id=grid_search_id, host=host(), info=info))
    text = msgspec.json.format(msgspec.json.encode(info), indent=2)
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
    for spec in todo.specs:
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

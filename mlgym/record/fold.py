"""What a log says, as a value: `fold(state, event)` takes in one event. No clock, no I/O.

The state belongs to the fold: it is updated in place and returned, which is what lets a million events be
folded in seconds. The law is fold(a + b) = fold(fold(a), b). Warm start, status, dashboard and report all
read this one state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlgym.record.events import (
    CheckpointChange,
    EvaluationResultEvent,
    Event,
    ExperimentConfigEvent,
    ExperimentStatusEvent,
    GridSearchEvent,
    JobStatusEvent,
    SystemInfoEvent,
)
from mlgym.record.scores import Scores

_RANK = {"INIT": 0, "RUNNING": 1, "LOST": 2, "DONE": 3, "FAILED": 3, "STOPPED": 3}
"""A job that is LOST has not ended: it is tried again, or FAILED follows."""


@dataclass(slots=True)
class Progress:
    """How far the current attempt has come."""

    phase: str = ""
    epoch: int = 0
    split: str = ""
    batch: int = 0
    num_batches: int = 0


class Change(NamedTuple):
    """A score that came out differently when its epoch was run again."""

    epoch: int
    key: str
    before: float
    now: float


@dataclass(slots=True)
class Experiment:
    """One experiment as of the last event folded. Times are unix time in ms."""

    experiment_id: int
    config_hash: str = ""
    swept: dict[str, Any] = field(default_factory=dict)
    num_epochs: int = 0
    attempt: int = 0
    status: str = "INIT"
    starting_time: int | None = None
    finishing_time: int | None = None
    device: str | None = None
    reason: str | None = None
    error: str | None = None
    stacktrace: str | None = None
    start_epoch: int = 0
    """How many epochs were finished before the current attempt."""
    epochs_done: int = 0
    progress: Progress = field(default_factory=Progress)
    scores: dict[str, Scores] = field(default_factory=dict)
    """`split/tag` -> epoch -> score, in the order in which they were first seen."""
    losses: set[str] = field(default_factory=set)
    """The keys of `scores` that are losses."""
    checkpoints: dict[int, list[str]] = field(default_factory=dict)
    """epoch -> file names"""
    num_threads: int | None = None
    changes: list[Change] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """A whole grid search as of event `seq`."""

    grid_search_id: str = ""
    status: str = ""
    reason: str | None = None
    num_experiments: int = 0
    seq: int = 0
    starting_time: int | None = None
    finishing_time: int | None = None
    experiments: dict[int, Experiment] = field(default_factory=dict)
    grid_search_config: str | None = None
    """The text of the newest one, when a warm start changed it."""
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: int = 0
    """Bytes of the log that could not be read."""

    def experiment(self, experiment_id: int) -> Experiment:
        found = self.experiments.get(experiment_id)
        if found is None:
            found = self.experiments[experiment_id] = Experiment(experiment_id)
        return found


def _grid_search(state: State, event: GridSearchEvent) -> None:
    payload = event.payload
    state.grid_search_id = payload.grid_search_id
    state.status = payload.status
    state.reason = payload.reason
    state.grid_search_config = payload.grid_search_config or state.grid_search_config
    if payload.status == "STARTED":
        state.num_experiments = payload.num_experiments or 0
        state.starting_time = event.creation_ts
        state.finishing_time = None
    else:
        state.finishing_time = event.creation_ts


def _system_info(state: State, event: SystemInfoEvent) -> None:
    state.hosts[event.payload.host] = event.payload.info


def _experiment_config(state: State, event: ExperimentConfigEvent) -> None:
    payload = event.payload
    experiment = state.experiment(payload.experiment_id)
    experiment.config_hash = payload.config_hash
    experiment.swept = payload.swept
    experiment.num_epochs = payload.num_epochs or 0


def _job_status(state: State, event: JobStatusEvent) -> None:
    payload = event.payload
    experiment = state.experiment(payload.experiment_id)
    if event.attempt > experiment.attempt:
        experiment.attempt = event.attempt
        experiment.progress = Progress()
        experiment.start_epoch = experiment.epochs_done = payload.start_epoch
        experiment.starting_time = experiment.finishing_time = None
    elif event.attempt < experiment.attempt or _RANK[payload.status] <= _RANK[experiment.status]:
        return  # news of an older attempt, or a state that would go back
    experiment.status = payload.status
    experiment.reason = payload.reason
    experiment.error = payload.error
    experiment.stacktrace = payload.stacktrace
    experiment.starting_time = payload.starting_time or experiment.starting_time
    experiment.finishing_time = payload.finishing_time
    experiment.device = payload.device or experiment.device
    experiment.num_threads = payload.num_threads or experiment.num_threads


def _experiment_status(state: State, event: ExperimentStatusEvent) -> None:
    payload = event.payload
    experiment = state.experiment(payload.experiment_id)
    if event.attempt < experiment.attempt:
        return
    progress = experiment.progress
    progress.phase = payload.status
    progress.epoch = payload.current_epoch
    progress.split = payload.current_split or ""
    progress.batch = payload.current_batch
    progress.num_batches = payload.num_batches


def _evaluation_result(state: State, event: EvaluationResultEvent) -> None:
    payload = event.payload
    experiment = state.experiment(payload.experiment_id)
    epoch = payload.epoch
    if epoch > experiment.epochs_done:
        experiment.epochs_done = epoch
    scores = experiment.scores
    for metric in payload.metric_scores:
        key = f"{metric.split}/{metric.metric}"
        found = scores.get(key)
        if found is None:
            found = scores[key] = Scores()
        _put(experiment, key, found, epoch, float(metric.score))
    for loss in payload.loss_scores:
        key = f"{loss.split}/{loss.loss}"
        found = scores.get(key)
        if found is None:
            found = scores[key] = Scores()
            experiment.losses.add(key)
        _put(experiment, key, found, epoch, float(loss.score))


def _put(experiment: Experiment, key: str, scores: Scores, epoch: int, now: float) -> None:
    """When an epoch was run again, equal values are one, others are remembered."""
    before = scores.put(epoch, now)
    if before is not None and before != now and not (math.isnan(before) and math.isnan(now)):
        experiment.changes.append(Change(epoch, key, before, now))


def _checkpoint(state: State, event: CheckpointChange) -> None:
    payload = event.payload
    if payload.batch:  # one within an epoch is for the next attempt, not for users
        return
    checkpoints = state.experiment(payload.experiment_id).checkpoints
    if payload.action == "SAVED":
        checkpoints[payload.epoch] = [file.name for file in payload.files]
    else:
        checkpoints.pop(payload.epoch, None)


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    GridSearchEvent: _grid_search,
    SystemInfoEvent: _system_info,
    ExperimentConfigEvent: _experiment_config,
    JobStatusEvent: _job_status,
    ExperimentStatusEvent: _experiment_status,
    EvaluationResultEvent: _evaluation_result,
    CheckpointChange: _checkpoint,
}


def fold(state: State, event: Event) -> State:
    """`state` after `event`. Events of unknown types only move `seq`."""
    handler = _HANDLERS.get(type(event))
    if handler is not None:
        handler(state, event)
    if event.seq > state.seq:
        state.seq = event.seq
    return state


def fold_all(state: State, events: Iterable[Event]) -> State:
    """`state` after all of `events`."""
    for event in events:
        fold(state, event)
    return state

"""What a log says, as a value: `fold(state, event)` takes in one event. No clock, no I/O.

The state belongs to the fold: it is updated in place and returned, which is what lets a million events be
folded in seconds. The law is fold(a + b) = fold(fold(a), b). Warm start, status, dashboard and report all
read this one state. The dashboard's page folds the same way (tests/ml_board/golden is read by both): whoever changes
what a field means here changes it there.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mlgym.record.events import (
    CheckpointChange,
    ClassResultsEvent,
    DataFactsEvent,
    DataFoldEvent,
    EvaluationResultEvent,
    Event,
    ExperimentConfigEvent,
    ExperimentStatusEvent,
    GridSearchEvent,
    JobOutputEvent,
    JobStatusEvent,
    JobUsageEvent,
    KnownEvent,
    ModelFactsEvent,
    NondeterminismDetectedEvent,
    SystemInfoEvent,
    Validation,
    WarnedEvent,
)
from mlgym.record.scores import Scores

if TYPE_CHECKING:
    Numbers = array[int]
else:
    Numbers = array  # which says what it holds only from Python 3.12 on

_RANK = {"INIT": 0, "RUNNING": 1, "LOST": 2, "DONE": 3, "FAILED": 3, "STOPPED": 3}
"""A job that is LOST has not ended: it is tried again, or FAILED follows."""

KINDS = (
    "started",
    "ended",
    "running",
    "done",
    "failed",
    "lost",
    "stopped",
    "checkpoint",
    "warning",
    "nondeterminism",
)
"""What marks are of. `started` and `ended` are of the grid search, the next five of a job."""
_KIND = {kind: number for number, kind in enumerate(KINDS)}
_JOB_KIND = {status: _KIND[status.lower()] for status in ("RUNNING", "DONE", "FAILED", "LOST", "STOPPED")}

MAX_WARNINGS = 200

REMOVED = "removed"
"""The reason of an experiment that was STOPPED because its cell is no longer in the grid."""


@dataclass(slots=True)
class Progress:
    """How far the current attempt has come: what event `seq` says. Empty again with the first news of an attempt."""

    phase: str = ""
    epoch: int = 0
    split: str = ""
    batch: int = 0
    num_batches: int = 0
    seq: int = 0


@dataclass(slots=True)
class Attempt:
    """One job of an experiment. Within it a new status replaces `reason`, `error`, `stacktrace` and `finishing_time`,
    also by nothing; `starting_time`, `device` and `host` stay until they are said anew."""

    attempt: int
    start_epoch: int = 0
    """As the first news of the attempt had it."""
    status: str = "INIT"
    starting_time: int | None = None
    finishing_time: int | None = None
    device: str | None = None
    host: str | None = None
    reason: str | None = None
    error: str | None = None
    stacktrace: str | None = None
    seq: int = 0
    """Of the last `job_status` that was taken."""


@dataclass(slots=True)
class Evaluations:
    """When the evaluation results of an experiment came: two columns, in the order of the log."""

    seqs: Numbers = field(default_factory=lambda: array("q"))
    times: Numbers = field(default_factory=lambda: array("q"))
    """`creation_ts` of each; 0 for one that has more than 64 bits."""


class Kept(NamedTuple):
    """A checkpoint of a whole epoch that is there. `seq` is that of the event that said so last."""

    seq: int
    files: list[tuple[str, int]]
    """name, size in bytes"""


class Change(NamedTuple):
    """A score that came out differently when its epoch was run again."""

    epoch: int
    key: str
    before: float
    now: float


class Notice(NamedTuple):
    """A `warning`."""

    seq: int
    time: int
    message: str
    experiment_id: int | None


@dataclass(slots=True)
class Marks:
    """Moments that somebody who scrolls through a grid search looks for, in four columns, in the order of the log.

    A job's state makes a mark when it was taken: news of an older attempt, and a state that would go back, make none.
    """

    seqs: Numbers = field(default_factory=lambda: array("q"))
    times: Numbers = field(default_factory=lambda: array("q"))
    kinds: Numbers = field(default_factory=lambda: array("b"))
    """Places in `KINDS`."""
    experiments: Numbers = field(default_factory=lambda: array("q"))
    """-1 for the grid search as a whole."""

    def put(self, event: KnownEvent, kind: int, experiment_id: int = -1) -> None:
        """Numbers of more than 64 bits, which only a log made by hand has, become 0 and -1."""
        self.seqs.append(event.seq)
        self.times.append(event.creation_ts if -(2**63) <= event.creation_ts < 2**63 else 0)
        self.kinds.append(kind)
        self.experiments.append(experiment_id if -(2**63) <= experiment_id < 2**63 else -1)


@dataclass(slots=True)
class TestItems:
    """What a fold is tested on: places in a split of `samples` items, ascending."""

    samples: int = 0
    test: Numbers = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class Experiment:
    """One experiment as of the last event folded. Times are unix time in ms.

    `status` and what follows it are those of the current attempt: the highest that a `job_status` has had.
    """

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
    train_batches: int = 0
    """How many batches an epoch has: `num_batches` of the last progress in training that said so, of any attempt."""
    scores: dict[str, Scores] = field(default_factory=dict)
    """`split/tag` -> epoch -> score, in the order in which they were first seen."""
    losses: set[str] = field(default_factory=set)
    """The keys of `scores` that were a loss when they were first seen."""
    checkpoints: dict[int, Kept] = field(default_factory=dict)
    """epoch -> what is there, in the order in which the epochs were first saved (or again, after they were deleted)."""
    num_threads: int | None = None
    changes: list[Change] = field(default_factory=list)
    config_seq: int = 0
    """Of the last `experiment_config`; 0 before there is one."""
    status_seq: int = 0
    """Of the last `job_status` that was taken; 0 before there is one."""
    attempts: list[Attempt] = field(default_factory=list)
    """One for each number that was taken, so by rising number. The last is the current one."""
    evaluations: Evaluations = field(default_factory=Evaluations)
    facts: dict[str, int] = field(default_factory=dict)
    """`model`, `data`, `classes/EPOCH`, `usage/ATTEMPT` -> seq of the last event that says it. What they say is read
    from the log when somebody wants it: thousands of layer tables are nothing to keep in memory."""


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
    model_info: dict[str, Any] = field(default_factory=dict)
    """What the user states about the model."""
    validation: Validation | None = None
    folds: dict[str, TestItems] = field(default_factory=dict)
    """By the name of the fold, as `DataFold` has it."""
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: int = 0
    """Bytes of the log that could not be read."""
    time: int = 0
    """`creation_ts` of the last event that is known here (see `fold`)."""
    marks: Marks = field(default_factory=Marks)
    warnings: list[Notice] = field(default_factory=list)
    """The last 200."""

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
        state.validation = payload.validation
        state.model_info = payload.model_info
        state.starting_time = event.creation_ts
        state.finishing_time = None
    else:
        state.finishing_time = event.creation_ts
    state.marks.put(event, _KIND["started"] if payload.status == "STARTED" else _KIND["ended"])


def _system_info(state: State, event: SystemInfoEvent) -> None:
    state.hosts[event.payload.host] = event.payload.info


def _experiment_config(state: State, event: ExperimentConfigEvent) -> None:
    payload = event.payload
    experiment = state.experiment(payload.experiment_id)
    experiment.config_hash = payload.config_hash
    experiment.swept = payload.swept
    experiment.num_epochs = payload.num_epochs or 0
    experiment.config_seq = event.seq


def _data_fold(state: State, event: DataFoldEvent) -> None:
    """The pieces of a list come in their order; one that comes again, or out of order, changes nothing."""
    payload = event.payload
    found = state.folds.setdefault(payload.fold, TestItems(payload.samples))
    if payload.offset == len(found.test):
        try:
            found.test.extend(payload.test)
        except OverflowError:
            del found.test[payload.offset :]


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
    experiment.status_seq = event.seq
    if not experiment.attempts or experiment.attempts[-1].attempt != event.attempt:
        experiment.attempts.append(Attempt(event.attempt, experiment.start_epoch))
    attempt = experiment.attempts[-1]
    attempt.status = payload.status
    attempt.reason = payload.reason
    attempt.error = payload.error
    attempt.stacktrace = payload.stacktrace
    attempt.starting_time = experiment.starting_time
    attempt.finishing_time = payload.finishing_time
    attempt.device = payload.device or attempt.device
    attempt.host = payload.host or attempt.host
    attempt.seq = event.seq
    if payload.status != "INIT":
        state.marks.put(event, _JOB_KIND[payload.status], payload.experiment_id)


def _experiment_status(state: State, event: ExperimentStatusEvent) -> None:
    payload = event.payload
    experiment = state.experiments.get(payload.experiment_id) or state.experiment(payload.experiment_id)
    if event.attempt < experiment.attempt:
        return
    progress = experiment.progress
    progress.phase = phase = payload.status
    progress.epoch = payload.current_epoch
    progress.split = payload.current_split or ""
    progress.batch = payload.current_batch
    progress.num_batches = num_batches = payload.num_batches
    progress.seq = event.seq
    if phase == "train" and num_batches:
        experiment.train_batches = num_batches


def _evaluation_result(state: State, event: EvaluationResultEvent) -> None:
    payload = event.payload
    experiment = state.experiments.get(payload.experiment_id) or state.experiment(payload.experiment_id)
    epoch = payload.epoch
    if epoch > experiment.epochs_done:
        experiment.epochs_done = epoch
    seq = event.seq
    evaluations = experiment.evaluations
    evaluations.seqs.append(seq)
    try:
        evaluations.times.append(event.creation_ts)
    except OverflowError:
        evaluations.times.append(0)
    scores = experiment.scores
    for metric in payload.metric_scores:
        key = f"{metric.split}/{metric.metric}"
        found = scores.get(key)
        if found is None:
            found = scores[key] = Scores()
        before = found.put(epoch, value := float(metric.score), seq)
        if before is not None:
            _run_again(experiment, epoch, key, before, value)
    for loss in payload.loss_scores:
        key = f"{loss.split}/{loss.loss}"
        found = scores.get(key)
        if found is None:
            found = scores[key] = Scores()
            experiment.losses.add(key)
        before = found.put(epoch, value := float(loss.score), seq)
        if before is not None:
            _run_again(experiment, epoch, key, before, value)


def _run_again(experiment: Experiment, epoch: int, key: str, before: float, now: float) -> None:
    """The later score of an epoch counts; that it is another one is remembered."""
    if before != now and not (math.isnan(before) and math.isnan(now)):
        experiment.changes.append(Change(epoch, key, before, now))


def _checkpoint(state: State, event: CheckpointChange) -> None:
    payload = event.payload
    if payload.batch:  # one within an epoch is for the next attempt, not for users
        return
    checkpoints = state.experiment(payload.experiment_id).checkpoints
    if payload.action == "SAVED":
        checkpoints[payload.epoch] = Kept(event.seq, [(file.name, file.size) for file in payload.files])
        state.marks.put(event, _KIND["checkpoint"], payload.experiment_id)
    else:
        checkpoints.pop(payload.epoch, None)


def _warned(state: State, event: WarnedEvent) -> None:
    payload = event.payload
    experiment_id = payload.experiment_id
    state.warnings.append(Notice(event.seq, event.creation_ts, payload.message, experiment_id))
    del state.warnings[:-MAX_WARNINGS]
    state.marks.put(event, _KIND["warning"], -1 if experiment_id is None else experiment_id)


def _nondeterminism_detected(state: State, event: NondeterminismDetectedEvent) -> None:
    state.marks.put(event, _KIND["nondeterminism"], event.payload.experiment_id)


def _model_facts(state: State, event: ModelFactsEvent) -> None:
    state.experiment(event.payload.experiment_id).facts["model"] = event.seq


def _data_facts(state: State, event: DataFactsEvent) -> None:
    state.experiment(event.payload.experiment_id).facts["data"] = event.seq


def _class_results(state: State, event: ClassResultsEvent) -> None:
    state.experiment(event.payload.experiment_id).facts[f"classes/{event.payload.epoch}"] = event.seq


def _job_usage(state: State, event: JobUsageEvent) -> None:
    state.experiment(event.payload.experiment_id).facts[f"usage/{event.attempt}"] = event.seq


def _job_output(state: State, event: JobOutputEvent) -> None:
    """What jobs print is no state."""


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    GridSearchEvent: _grid_search,
    SystemInfoEvent: _system_info,
    ExperimentConfigEvent: _experiment_config,
    DataFoldEvent: _data_fold,
    JobStatusEvent: _job_status,
    ExperimentStatusEvent: _experiment_status,
    EvaluationResultEvent: _evaluation_result,
    CheckpointChange: _checkpoint,
    JobOutputEvent: _job_output,
    WarnedEvent: _warned,
    NondeterminismDetectedEvent: _nondeterminism_detected,
    ModelFactsEvent: _model_facts,
    DataFactsEvent: _data_facts,
    ClassResultsEvent: _class_results,
    JobUsageEvent: _job_usage,
}


def fold(state: State, event: Event) -> State:
    """`state` after `event`. Events of unknown types, or whose payload does not fit their type, only move `seq`."""
    return fold_all(state, (event,))


def fold_all(state: State, events: Iterable[Event]) -> State:
    """`state` after all of `events`."""
    handler_of = _HANDLERS.get
    known = None
    newest = state.seq
    for event in events:
        handler = handler_of(type(event))
        if handler is not None:
            handler(state, event)
            known = event
        if event.seq > newest:
            newest = event.seq
    state.seq = newest
    if known is not None:
        state.time = known.creation_ts  # type: ignore[union-attr]
    return state

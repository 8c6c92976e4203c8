"""A state as JSON for those who only look. Pure; imports series, and of ours otherwise only `mlgym.record`."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Container
from typing import Any, NamedTuple

from ml_board.series import thin
from mlgym.record.events import Number, number, plain
from mlgym.record.fold import KINDS, Experiment, Kept, Marks, State
from mlgym.record.report import judged_by
from mlgym.record.scores import Scores
from mlgym.record.validation import as_json, validated

# --- a grid search as a whole ---


def snapshot(state: State) -> dict[str, Any]:
    """Everything that the log says as of event `seq`, scores in columns."""
    return _grid_search(
        state,
        lambda experiment: {
            **_experiment(experiment),
            "scores": _columns(experiment),
            **_details(experiment, traces=False),
        },
    )


def rows(state: State) -> dict[str, Any]:
    """The same without the columns: of each score how many there are, and which is the last, lowest and highest."""
    return _grid_search(
        state,
        lambda experiment: {
            **_experiment(experiment),
            "scores": _scores(experiment),
            "checkpoints": [{"epoch": epoch, "seq": kept.seq} for epoch, kept in experiment.checkpoints.items()],
            "changes": len(experiment.changes),
        },
    )


def _grid_search(state: State, row: Callable[[Experiment], dict[str, Any]]) -> dict[str, Any]:
    return {
        **_head(state),
        "starting_time": state.starting_time,
        "finishing_time": state.finishing_time,
        "damaged": state.damaged,
        "warnings": [warning._asdict() for warning in state.warnings],
        "experiments": [row(experiment) for experiment in state.experiments.values()],
    }


def _head(state: State) -> dict[str, Any]:
    return {
        "grid_search_id": state.grid_search_id,
        "seq": state.seq,
        "time": state.time,
        "status": state.status,
        "reason": state.reason,
        "num_experiments": state.num_experiments,
    }


def report(state: State, metric: str | None, mode: Any, epoch: Any) -> dict[str, Any]:
    """What `mlgym report --json` prints. Raises `InputError` for a score that nothing has."""
    found: dict[str, Any] = plain(as_json(validated(state, metric, mode or None, epoch or None)))
    return found


def summary(state: State) -> dict[str, Any]:
    """A grid search on one line: how far it is, and what is best so far by the score that a report goes by.

    Experiments that were announced and are not in the log yet count as INIT, and with as many epochs as the others.
    """
    experiments = list(state.experiments.values())
    missing = max(0, state.num_experiments - len(experiments))
    counts = Counter(experiment.status for experiment in experiments)
    counts["INIT"] += missing
    epochs = [experiment.num_epochs for experiment in experiments]
    return {
        **_head(state),
        "counts": {status: count for status, count in counts.items() if count},
        "epochs_done": sum(experiment.epochs_done for experiment in experiments),
        "epochs_total": sum(epochs) + missing * max(epochs, default=0),
        "starting_time": state.starting_time,
        "finishing_time": state.finishing_time,
        "best": _best(experiments),
    }


def _best(experiments: list[Experiment]) -> dict[str, Any] | None:
    experiments = sorted(experiments, key=lambda experiment: experiment.experiment_id)
    score, mode = judged_by(experiments)
    found = []
    for experiment in experiments:
        scores = experiment.scores.get(score or "", Scores())
        at = scores.highest() if mode == "max" else scores.lowest()
        if at is not None:
            found.append((scores.values_[at], scores.epochs[at], scores.seqs[at], experiment.experiment_id))
    if not found:
        return None
    best = max if mode == "max" else min
    value, epoch, seq, experiment_id = best(found, key=lambda one: one[0])
    return {
        "score": score,
        "mode": mode,
        "experiment_id": experiment_id,
        "epoch": epoch,
        "value": value,
        "seq": seq,
    }


# --- experiments ---


def experiment(state: State, experiment_id: int) -> dict[str, Any] | None:
    """All that is known of one experiment but for its points; None when there is none."""
    found = state.experiments.get(experiment_id)
    if found is None:
        return None
    return {
        "grid_search_id": state.grid_search_id,
        "seq": state.seq,
        **_experiment(found),
        "scores": _scores(found),
        **_details(found, traces=True),
        "evaluations": len(found.evaluations.seqs),
    }


def _experiment(experiment: Experiment) -> dict[str, Any]:
    progress = experiment.progress
    return {
        "experiment_id": experiment.experiment_id,
        "config_hash": experiment.config_hash,
        "config_seq": experiment.config_seq,
        "swept": plain(experiment.swept),
        "num_epochs": experiment.num_epochs,
        "attempt": experiment.attempt,
        "status": experiment.status,
        "status_seq": experiment.status_seq,
        "starting_time": experiment.starting_time,
        "finishing_time": experiment.finishing_time,
        "device": experiment.device,
        "reason": experiment.reason,
        "error": experiment.error,
        "start_epoch": experiment.start_epoch,
        "epochs_done": experiment.epochs_done,
        "train_batches": experiment.train_batches,
        "facts": dict(experiment.facts),
        "progress": {
            "phase": progress.phase,
            "epoch": progress.epoch,
            "split": progress.split,
            "batch": progress.batch,
            "num_batches": progress.num_batches,
            "seq": progress.seq,
        },
    }


def _details(experiment: Experiment, traces: bool) -> dict[str, Any]:
    """What a row only counts, or leaves out."""
    return {
        "attempts": [
            {
                "attempt": attempt.attempt,
                "status": attempt.status,
                "starting_time": attempt.starting_time,
                "finishing_time": attempt.finishing_time,
                "device": attempt.device,
                "host": attempt.host,
                "reason": attempt.reason,
                "error": attempt.error,
                **({"stacktrace": attempt.stacktrace} if traces else {}),
                "start_epoch": attempt.start_epoch,
                "seq": attempt.seq,
            }
            for attempt in experiment.attempts
        ],
        "checkpoints": [_checkpoint(epoch, kept) for epoch, kept in experiment.checkpoints.items()],
        "changes": [
            {"epoch": c.epoch, "score": c.key, "before": number(c.before), "now": number(c.now)}
            for c in experiment.changes
        ],
    }


def _checkpoint(epoch: int, kept: Kept) -> dict[str, Any]:
    return {"epoch": epoch, "seq": kept.seq, "files": [{"name": name, "size": size} for name, size in kept.files]}


def _scores(experiment: Experiment) -> dict[str, Any]:
    """`split/tag` -> its last, lowest and highest point, each as [epoch, value, seq]."""

    def point(scores: Scores, at: int | None) -> tuple[int, Number, int] | None:
        return None if at is None else (scores.epochs[at], number(scores.values_[at]), scores.seqs[at])

    return {
        key: {
            "loss": key in experiment.losses,
            "count": len(scores),
            "last": point(scores, -1),
            "lowest": point(scores, scores.lowest()),
            "highest": point(scores, scores.highest()),
        }
        for key, scores in experiment.scores.items()
    }


def _columns(experiment: Experiment) -> dict[str, Any]:
    """`split/tag` -> all of its points."""
    return {
        key: {
            "loss": key in experiment.losses,
            "epochs": scores.epochs.tolist(),
            "values": _numbers(scores.values_.tolist()),
            "seqs": scores.seqs.tolist(),
        }
        for key, scores in experiment.scores.items()
    }


def _numbers(values: list[float]) -> list[Number]:
    """As strict JSON has them; that all are finite is the rule."""
    return list(values) if all(map(math.isfinite, values)) else [number(value) for value in values]


# --- points ---


class Which(NamedTuple):
    """Which points are wanted; None: of all experiments, of all scores."""

    experiments: Container[int] | None = None
    scores: Container[str] | None = None
    first: int = 0
    last: int = 2**53
    """Epochs, both included."""
    points: int = 800
    """At most so many of each series."""


def series(state: State, which: Which) -> dict[str, Any]:
    """Points in columns. `times` are those of the events that they came with."""
    return {"seq": state.seq, "series": [_series(*one, which) for one in _wanted(state, which)]}


def size(state: State, which: Which) -> int:
    """At most how many points `series` would answer."""
    return sum(min(which.points, len(scores)) for _, _, scores in _wanted(state, which))


def _wanted(state: State, which: Which) -> list[tuple[Experiment, str, Scores]]:
    return [
        (experiment, key, scores)
        for experiment in state.experiments.values()
        if which.experiments is None or experiment.experiment_id in which.experiments
        for key, scores in experiment.scores.items()
        if which.scores is None or key in which.scores
    ]


def _series(experiment: Experiment, key: str, scores: Scores, which: Which) -> dict[str, Any]:
    start, end = bisect_left(scores.epochs, which.first), bisect_right(scores.epochs, which.last)
    values = scores.values_[start:end]
    kept = [start + at for at in thin(values, which.points)]
    seqs = [scores.seqs[at] for at in kept]
    known, times = experiment.evaluations.seqs, experiment.evaluations.times
    return {
        "experiment_id": experiment.experiment_id,
        "score": key,
        "loss": key in experiment.losses,
        "of": len(values),
        "epochs": [scores.epochs[at] for at in kept],
        "values": _numbers([scores.values_[at] for at in kept]),
        "seqs": seqs,
        "times": [times[bisect_left(known, seq)] for seq in seqs],
    }


# --- the timeline ---


def timeline(state: State, points: int = 1000) -> dict[str, Any]:
    """What happened when: about `points` of the marks, of which `of` were made, failures first."""
    marks = state.marks
    kept = _kept(marks, points)
    return {
        "seq": state.seq,
        "time": state.time,
        "first_time": marks.times[0] if marks.times else state.time,
        "of": len(marks.seqs),
        "marks": {
            "seqs": [marks.seqs[at] for at in kept],
            "times": [marks.times[at] for at in kept],
            "kinds": [KINDS[marks.kinds[at]] for at in kept],
            "experiments": [marks.experiments[at] for at in kept],
        },
    }


_FAILURES = array("b", [KINDS.index("failed"), KINDS.index("lost")])


def _kept(marks: Marks, points: int) -> list[int]:
    """The places of marks to show: the last of each kind in each of equal stretches of the log, and then failures."""
    count = len(marks.seqs)
    if count <= points:
        return list(range(count))
    stretches = max(1, points // 2 // len(set(marks.kinds)))
    width = (marks.seqs[-1] - marks.seqs[0]) // stretches + 1
    shown = {((marks.seqs[at] - marks.seqs[0]) // width, marks.kinds[at]): at for at in range(count)}
    kept = set(shown.values())
    failures = [at for at in range(count) if marks.kinds[at] in _FAILURES and at not in kept]
    step = -(-len(failures) // max(1, points - len(kept)))
    return sorted(kept.union(failures[:: max(1, step)]))

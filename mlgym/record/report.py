"""The table of a grid search, from its state. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from mlgym.errors import InputError, one_of
from mlgym.record.fold import Experiment, State
from mlgym.record.scores import Scores

Mode = Literal["max", "min"]
_VALIDATION = ("val", "validation", "valid", "dev", "test")
_WORDS = {
    "RUNNING": "running",
    "INIT": "waiting",
    "DONE": "done",
    "FAILED": "failed",
    "LOST": "lost",
    "STOPPED": "stopped",
}
_SMALLER_IS_BETTER = ("loss", "error", "mae", "mse", "rmse", "brier", "calibration", "perplexity")


class Score(NamedTuple):
    epoch: int
    value: float


class Row(NamedTuple):
    """One experiment as the table shows it."""

    experiment_id: int
    swept: dict[str, Any]
    status: str
    attempt: int
    device: str | None
    epochs_done: int
    num_epochs: int
    elapsed: float | None
    """Seconds since its last attempt began, until it ended."""
    left: float | None
    """Estimated seconds until it ends; None when it has, or nothing is known yet."""
    best: Score | None
    last: Score | None
    reason: str | None
    error: str | None


class Report(NamedTuple):
    """Every experiment, judged by one score. `winner` is the id of the best one."""

    grid_search_id: str
    status: str
    seq: int
    num_experiments: int
    score: str | None
    mode: Mode
    winner: int | None
    counts: dict[str, int]
    """How many experiments are running, waiting, done, failed, lost, stopped."""
    left: float | None
    """Estimated seconds until the whole grid ends, were nobody to stop early."""
    rows: list[Row]


def report(state: State, score: str | None = None, mode: Mode | None = None, now: int | None = None) -> Report:
    """The report on `state`.

    `score` is `split/tag`; without it, the first metric on the validation split, else the first loss there.
    `now`, unix time in ms, is what running experiments are timed by. Raises `InputError` for a score that nothing has.
    """
    experiments = sorted(state.experiments.values(), key=lambda experiment: experiment.experiment_id)
    score, natural = judged_by(experiments, score)
    mode = mode or natural
    pace = _pace(experiments, now)
    rows = [_row(experiment, score, mode, now, pace) for experiment in experiments]
    judged = [row for row in rows if row.best]
    sign = -1 if mode == "max" else 1
    winner = min(judged, key=lambda row: (sign * row.best.value, row.experiment_id), default=None)  # type: ignore[union-attr]
    return Report(
        state.grid_search_id,
        state.status,
        state.seq,
        state.num_experiments,
        score,
        mode,
        winner.experiment_id if winner else None,
        _counts(experiments),
        _left(state, rows),
        rows,
    )


def judged_by(experiments: Iterable[Experiment], score: str | None = None) -> tuple[str | None, Mode]:
    """The score that experiments are compared by, as `report` chooses it, and which of its values are the better."""
    keys = {key: key in experiment.losses for experiment in experiments for key in experiment.scores}
    if score is None:
        score = _default_score(keys)
    elif score not in keys and keys:
        raise InputError(f"there is no score {score!r}; {one_of(score, keys)}")
    return score, "min" if score and _smaller_is_better(score, keys.get(score, False)) else "max"


def _default_score(keys: dict[str, bool]) -> str | None:
    def preference(key: str) -> tuple[int, bool]:
        split = key.partition("/")[0]
        return (_VALIDATION.index(split) if split in _VALIDATION else len(_VALIDATION), keys[key])

    return min(keys, key=preference, default=None)


def _smaller_is_better(score: str, is_loss: bool) -> bool:
    return is_loss or any(word in score.lower() for word in _SMALLER_IS_BETTER)


def _counts(experiments: list[Experiment]) -> dict[str, int]:
    counts = Counter(_WORDS[experiment.status] for experiment in experiments)
    return {word: counts[word] for word in _WORDS.values() if counts[word]}


def _elapsed(experiment: Experiment, now: int | None) -> float | None:
    """Seconds."""
    end = experiment.finishing_time or (now if experiment.status == "RUNNING" else None)
    if experiment.starting_time is None or end is None:
        return None
    return max(0, end - experiment.starting_time) / 1000


def _trained(experiment: Experiment) -> float:
    """The epochs of the current attempt, the begun one as a fraction."""
    progress = experiment.progress
    within = progress.phase == "train" and progress.epoch > experiment.epochs_done and progress.num_batches
    begun = progress.batch / progress.num_batches if within else 0
    return experiment.epochs_done - experiment.start_epoch + begun


def _pace(experiments: list[Experiment], now: int | None) -> float | None:
    """Seconds an epoch, over all experiments."""
    timed = [(seconds, _trained(e)) for e in experiments if (seconds := _elapsed(e, now)) is not None]
    epochs = sum(trained for _, trained in timed)
    return sum(seconds for seconds, _ in timed) / epochs if epochs else None


def _left(state: State, rows: list[Row]) -> float | None:
    """Seconds for the whole grid: what is left to do, by as many at a time as are running now."""
    left = [row.left for row in rows if row.left is not None]
    running = sum(row.status == "RUNNING" for row in rows)
    if state.status != "STARTED" or not left or not running:
        return None
    return max(sum(left) / running, *left)


def _row(experiment: Experiment, score: str | None, mode: Mode, now: int | None, pace: float | None) -> Row:
    scores = experiment.scores.get(score or "", Scores())
    sign = -1 if mode == "max" else 1
    best = min(
        (Score(epoch, value) for epoch, value in scores.items() if not math.isnan(value)),
        key=lambda entry: (sign * entry.value, entry.epoch),
        default=None,
    )
    last = Score(max(scores), scores[max(scores)]) if scores else None
    elapsed = _elapsed(experiment, now)
    left = None
    if experiment.status in ("INIT", "RUNNING"):
        trained = _trained(experiment)
        own = elapsed / trained if elapsed and trained else pace
        left = own and own * (experiment.num_epochs - experiment.start_epoch - trained)
    return Row(
        experiment.experiment_id,
        experiment.swept,
        experiment.status,
        experiment.attempt,
        experiment.device,
        experiment.epochs_done,
        experiment.num_epochs,
        elapsed,
        left,
        best,
        last,
        experiment.reason,
        experiment.error,
    )


def as_json(found: Report) -> dict[str, Any]:
    """The report as plain data."""
    return {
        **found._asdict(),
        "rows": [
            {**row._asdict(), "best": row.best and row.best._asdict(), "last": row.last and row.last._asdict()}
            for row in found.rows
        ],
    }


def as_text(found: Report) -> str:
    """The report as a table and, below it, the winner."""
    paths = list(dict.fromkeys(path for row in found.rows for path in row.swept))
    names = short_names(paths)
    timed = any(row.left is not None for row in found.rows)
    header = ["#", *(names[path] for path in paths), "status", "device", "epochs", "elapsed"]
    header += [*(["left"] if timed else []), "best", "at epoch", "last"]
    lines = [
        [
            str(row.experiment_id),
            *(shown(row.swept[path]) if path in row.swept else "" for path in paths),
            _status(row),
            row.device or "-",
            f"{row.epochs_done}/{row.num_epochs}",
            duration(row.elapsed),
            *([duration(row.left)] if timed else []),
            f"{row.best.value:.4f}" + (" *" if row.experiment_id == found.winner else "") if row.best else "-",
            str(row.best.epoch) if row.best else "-",
            f"{row.last.value:.4f}" if row.last else "-",
        ]
        for row in found.rows
    ]
    waiting = found.num_experiments - len(found.rows)
    counts = ", ".join(f"{number} {word}" for word, number in found.counts.items())
    left = f"; about {duration(found.left)} left" if found.left is not None else ""
    text = [f"grid search {found.grid_search_id}: {found.status}", *([counts + left] if counts else []), ""]
    text += aligned([header, *lines])
    if waiting > 0:
        text.append(f"... and {waiting} more that are not in the log yet")
    if found.winner is not None:
        winner = next(row for row in found.rows if row.experiment_id == found.winner)
        assert winner.best is not None
        values = ", ".join(f"{names[path]}={shown(value)}" for path, value in winner.swept.items())
        text += [
            "",
            f"best {found.score} ({found.mode}): {winner.best.value:.4f} at epoch {winner.best.epoch} "
            f"of experiment {winner.experiment_id}" + (f" ({values})" if values else ""),
        ]
    return "\n".join(text)


def duration(seconds: float | None) -> str:
    """`7.2s`, `3m 07s`, `2h 05m`, or `-`."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}m {seconds:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def _status(row: Row) -> str:
    notes = [f"attempt {row.attempt}"] if row.attempt > 1 else []
    notes += [row.reason] if row.reason else []
    return f"{row.status} ({', '.join(notes)})" if notes else row.status


def aligned(rows: list[list[str]]) -> list[str]:
    """`rows` as lines of columns of equal width, the first row underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def shown(value: Any) -> str:
    """A swept value in a table: short, on one line."""
    text = (
        "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}" if isinstance(value, dict) else str(value)
    )
    text = text.replace("\n", " ")
    return text if len(text) <= 40 else text[:37] + "..."


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """The shortest endings of dotted paths that still tell them apart: `lr`, or `params.lr`."""
    split = [path.split(".") for path in paths]
    names = {}
    for path in split:
        ending = path
        for length in range(1, len(path) + 1):
            ending = path[-length:]
            if sum(other[-length:] == ending for other in split) == 1:
                break
        names[".".join(path)] = ".".join(ending)
    return names

"""The table of a grid search, from its state. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from mlgym.errors import InputError, one_of
from mlgym.record.fold import Experiment, State

Mode = Literal["max", "min"]
_VALIDATION = ("val", "validation", "valid", "dev", "test")
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
    epochs_done: int
    num_epochs: int
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
    rows: list[Row]


def report(state: State, score: str | None = None, mode: Mode | None = None) -> Report:
    """The report on `state`.

    `score` is `split/tag`; without it, the first metric on the validation split, else the first loss there.
    Raises `InputError` for a score that nothing has.
    """
    experiments = sorted(state.experiments.values(), key=lambda experiment: experiment.experiment_id)
    keys = {key: key in experiment.losses for experiment in experiments for key in experiment.scores}
    if score is None:
        score = _default_score(keys)
    elif score not in keys and keys:
        raise InputError(f"there is no score {score!r}; {one_of(score, keys)}")
    if mode is None:
        mode = "min" if score and _smaller_is_better(score, keys.get(score, False)) else "max"
    rows = [_row(experiment, score, mode) for experiment in experiments]
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
        rows,
    )


def _default_score(keys: dict[str, bool]) -> str | None:
    def preference(key: str) -> tuple[int, bool]:
        split = key.partition("/")[0]
        return (_VALIDATION.index(split) if split in _VALIDATION else len(_VALIDATION), keys[key])

    return min(keys, key=preference, default=None)


def _smaller_is_better(score: str, is_loss: bool) -> bool:
    return is_loss or any(word in score.lower() for word in _SMALLER_IS_BETTER)


def _row(experiment: Experiment, score: str | None, mode: Mode) -> Row:
    scores = experiment.scores.get(score or "", {})
    sign = -1 if mode == "max" else 1
    best = min(
        (Score(epoch, value) for epoch, value in scores.items() if not math.isnan(value)),
        key=lambda entry: (sign * entry.value, entry.epoch),
        default=None,
    )
    last = Score(max(scores), scores[max(scores)]) if scores else None
    return Row(
        experiment.experiment_id,
        experiment.swept,
        experiment.status,
        experiment.attempt,
        experiment.epochs_done,
        experiment.num_epochs,
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
    """The report as a table and, below it, the winner and the failures."""
    paths = list(dict.fromkeys(path for row in found.rows for path in row.swept))
    names = short_names(paths)
    header = ["#", *(names[path] for path in paths), "status", "epochs", "best", "at epoch", "last"]
    lines = [
        [
            str(row.experiment_id),
            *(shown(row.swept[path]) if path in row.swept else "" for path in paths),
            _status(row),
            f"{row.epochs_done}/{row.num_epochs}",
            f"{row.best.value:.4f}" + (" *" if row.experiment_id == found.winner else "") if row.best else "-",
            str(row.best.epoch) if row.best else "-",
            f"{row.last.value:.4f}" if row.last else "-",
        ]
        for row in found.rows
    ]
    waiting = found.num_experiments - len(found.rows)
    text = [f"grid search {found.grid_search_id}: {found.status}", "", *aligned([header, *lines])]
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
    failed = [row for row in found.rows if row.status in ("FAILED", "LOST")]
    for row in failed:
        text += ["", f"experiment {row.experiment_id} {row.status}: {row.error or 'no reason recorded'}"]
    return "\n".join(text)


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

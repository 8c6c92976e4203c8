"""What cross validation has found, from a state alone: scores over folds and seeds, and the nested estimate. Pure.

Nested: in each outer fold the combination with the best mean over the inner folds is chosen, and judged by its score on
the outer fold, which had no part in the choice. The estimate is the mean of these scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any, Literal, NamedTuple

from mlgym.errors import InputError
from mlgym.record.events import Validation
from mlgym.record.fold import REMOVED, Experiment, State
from mlgym.record.report import Mode, judged_by, short_names
from mlgym.record.scores import Scores

Epoch = Literal["last", "best", "average"]

RULES: dict[Epoch, str] = {
    "last": "the last epoch of each training",
    "best": "the best epoch of each training (chosen by the score itself, so too good)",
    "average": "the epoch that is best on average over the folds",
}
"""Which epoch's score counts."""

FOLD, OUTER_FOLD, INNER_FOLD, SEED = AXES = ("fold", "outer_fold", "inner_fold", "seed")
"""The axes of the grid that are no values of a combination."""

_MOST = 1_000_000  # points of a grid

OUTER = -1
"""The inner fold of what is trained on all of an outer fold."""


class Score(NamedTuple):
    """A combination's score on a fold, or with a seed: the mean over its trainings, of which `missing` have none."""

    value: float | None
    experiments: list[int]
    missing: list[str]
    """Why, for each: `experiment 3 FAILED`."""


class Combination(NamedTuple):
    """Values of all sweeps, and how they did."""

    number: int
    swept: dict[str, Any]
    scores: dict[str, Score]
    """By fold, or by seed without folds."""
    epoch: int | None
    """The epoch that counts, where it is the same in all folds."""
    mean: float | None
    std: float | None
    """Over the folds (or the seeds), divided by their number, as scikit-learn has it."""
    complete: bool
    rank: int | None


class Ranking(NamedTuple):
    """All combinations, the best first; those that are not complete come last and are not chosen."""

    combinations: list[Combination]

    @property
    def best(self) -> Combination | None:
        return next((one for one in self.combinations if one.rank == 1), None)


class OuterFold(NamedTuple):
    """What the inner folds chose, and its score on the outer fold."""

    fold: int
    inner: Ranking
    chosen: Combination | None
    score: Score
    epoch: int | None


class Validated(NamedTuple):
    """The report. Without validation each combination has one training."""

    grid_search_id: str
    status: str
    seq: int
    kind: Literal["nested cross validation", "cross validation", "seeds", "grid search"]
    score: str | None
    mode: Mode
    epoch: Epoch
    outer_folds: int
    inner_folds: int
    seeds: list[int]
    ranking: Ranking | None
    """None when it is nested."""
    outer: list[OuterFold]
    mean: float | None
    """The nested estimate, once every outer fold has a score."""
    std: float | None
    missing: list[str]
    """What keeps it from being complete."""


def validated(
    state: State, score: str | None = None, mode: Mode | None = None, epoch: Epoch | None = None
) -> Validated:
    """The report on `state`. What is not given is as the validation config has it, or as in `report`.

    Raises `InputError` for a score that nothing has, and for more folds than any grid has.
    """
    plan = state.validation or Validation(combinations=0)
    if plan.outer_folds * max(1, plan.inner_folds) * max(1, len(plan.seeds)) > _MOST:
        raise InputError("the log names more folds than a grid can have")
    experiments = sorted(state.experiments.values(), key=lambda experiment: experiment.experiment_id)
    experiments = [
        one
        for one in experiments
        if one.experiment_id not in plan.dropped and not (one.status == "STOPPED" and one.reason == REMOVED)
    ]
    default = plan.metric or judged_by(experiments)[0]
    score, natural = judged_by(experiments, score or default)
    mode = mode or (plan.mode if score == default else None) or natural
    epoch = epoch or plan.epoch
    by = _By(score or "", mode, epoch)
    numbers: dict[str, int] = {}
    for experiment in experiments:
        numbers.setdefault(_key(experiment), len(numbers))
    seeds: list[int | None] = list(plan.seeds) or [None]
    ranking: Ranking | None = None
    outer: list[OuterFold] = []
    if plan.inner_folds:
        kind: Any = "nested cross validation"
        outer = [_outer_fold(fold, plan, experiments, numbers, by) for fold in range(plan.outer_folds)]
    else:
        kind = "cross validation" if plan.outer_folds else "seeds" if plan.seeds else "grid search"
        units: list[Unit] = [(FOLD, fold) for fold in range(plan.outer_folds)] or [(SEED, seed) for seed in seeds]
        ranking = _ranking(experiments, numbers, units, len(seeds) if plan.outer_folds else 1, by)
    found = [one.score.value for one in outer]
    values = [value for value in found if value is not None]
    whole = bool(outer) and len(values) == len(outer)
    missing = _missing(plan, ranking, outer)
    return Validated(
        state.grid_search_id,
        state.status,
        state.seq,
        kind,
        score,
        mode,
        epoch,
        plan.outer_folds,
        plan.inner_folds,
        plan.seeds,
        ranking,
        outer,
        _mean(values) if whole else None,
        _std(values) if whole else None,
        missing,
    )


Unit = tuple[str, int | None]
"""An axis and a value on it, which a combination has one score for; None: there is no axis."""


class _By(NamedTuple):
    """How trainings are judged."""

    score: str
    mode: Mode
    epoch: Epoch

    def better(self, value: float) -> tuple[bool, float]:
        """Ascending from the best; NaN is the worst."""
        return (True, 0.0) if math.isnan(value) else (False, -value if self.mode == "max" else value)


def _mean(values: Sequence[float]) -> float:
    try:
        return fmean(values)
    except (OverflowError, ValueError):  # infinities of both signs, or numbers that almost are
        return sum(values) / len(values)


def _std(values: Sequence[float]) -> float | None:
    """Divided by their number; None where it would be no number."""
    return pstdev(values) if all(map(math.isfinite, values)) else None


def _key(experiment: Experiment) -> str:
    """What the experiments of one combination have in common."""
    return json.dumps(swept_values(experiment.swept), sort_keys=True, default=repr)


def swept_values(swept: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a combination: what is swept, but for folds and seeds."""
    return {path: value for path, value in swept.items() if path not in AXES}


def _ranking(
    experiments: Iterable[Experiment],
    numbers: Mapping[str, int],
    units: Sequence[Unit],
    trainings: int,
    by: _By,
) -> Ranking:
    """All combinations over `units`, of `trainings` each."""
    grouped: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        grouped.setdefault(_key(experiment), []).append(experiment)
    found = []
    for key, members in grouped.items():
        epoch = _best_on_average(members, by) if by.epoch == "average" else None
        scores = {
            _named(axis, value): _score(
                [e for e in members if value is None or e.swept.get(axis) == value], trainings, epoch, by
            )
            for axis, value in units
        }
        values = [score.value for score in scores.values() if score.value is not None]
        complete = len(values) == len(units) and not any(score.missing for score in scores.values())
        mean, std = (_mean(values), _std(values)) if values else (None, None)
        found.append(
            Combination(numbers[key], swept_values(members[0].swept), scores, epoch, mean, std, complete, None)
        )
    found.sort(key=lambda one: (not one.complete, by.better(math.nan if one.mean is None else one.mean), one.number))
    return Ranking([one._replace(rank=i if one.complete else None) for i, one in enumerate(found, 1)])


def _named(axis: str, value: int | None) -> str:
    return "score" if value is None else f"{axis} {value}"


def _score(members: list[Experiment], trainings: int, epoch: int | None, by: _By) -> Score:
    values, missing = [], []
    for experiment in members:
        value = _value(experiment, epoch, by)
        if value is None:
            why = "has no such score" if experiment.status == "DONE" else f"is {experiment.status}"
            missing.append(f"experiment {experiment.experiment_id} {why}")
        else:
            values.append(value)
    if len(members) < trainings:
        missing.append(f"{trainings - len(members)} of {trainings} trainings are not there")
    return Score(None if missing else _mean(values), [e.experiment_id for e in members], missing)


def _value(experiment: Experiment, epoch: int | None, by: _By) -> float | None:
    """The score that counts of a training that has ended; `epoch`: that one, or the last before it."""
    scores = experiment.scores.get(by.score) or Scores()
    if experiment.status != "DONE" or not scores:
        return None
    if by.epoch == "best" and epoch is None:
        return min(scores.values(), key=by.better)
    last = max((at for at in scores if epoch is None or at <= epoch), default=None)
    return None if last is None else scores[last]


def _best_on_average(members: list[Experiment], by: _By) -> int | None:
    """The epoch, of those that all have, at which their mean score is best."""
    found = [scores for e in members if e.status == "DONE" and (scores := e.scores.get(by.score))]
    common = set(found[0]) if found else set()
    for scores in found[1:]:
        common &= set(scores)
    return min(sorted(common), key=lambda epoch: by.better(_mean([scores[epoch] for scores in found])), default=None)


def _outer_fold(
    fold: int, plan: Validation, experiments: list[Experiment], numbers: Mapping[str, int], by: _By
) -> OuterFold:
    here = [e for e in experiments if e.swept.get(OUTER_FOLD) == fold]
    inner = [e for e in here if e.swept.get(INNER_FOLD) != OUTER]
    trainings = len(plan.seeds) or 1
    ranking = _ranking(inner, numbers, [(INNER_FOLD, i) for i in range(plan.inner_folds)], trainings, by)
    chosen = ranking.best
    if chosen is None:
        return OuterFold(fold, ranking, None, Score(None, [], ["no combination is complete on its inner folds"]), None)
    members = [e for e in here if e.swept.get(INNER_FOLD) == OUTER and numbers[_key(e)] == chosen.number]
    # The epoch is the inner folds' choice, or the last: were it chosen by the outer score, that would be too good.
    score = _score(members, trainings, chosen.epoch, by._replace(epoch="last"))
    return OuterFold(fold, ranking, chosen, score, chosen.epoch)


def _missing(plan: Validation, ranking: Ranking | None, outer: list[OuterFold]) -> list[str]:
    found = []
    for one in ranking.combinations if ranking else ():
        for name, score in one.scores.items():
            found += [f"{name} of combination {one.number}: {why}" for why in score.missing]
    for fold in outer:
        for one in fold.inner.combinations:
            for name, score in one.scores.items():
                found += [f"outer fold {fold.fold}, {name} of combination {one.number}: {why}" for why in score.missing]
        chosen = f", combination {fold.chosen.number} on it" if fold.chosen else ""
        found += [f"outer fold {fold.fold}{chosen}: {why}" for why in fold.score.missing]
    seen = ranking.combinations if ranking else outer[0].inner.combinations if outer else []
    if plan.combinations > len(seen):
        found.append(f"{plan.combinations - len(seen)} of {plan.combinations} combinations are not in the log yet")
    return found


def selected(state: State) -> dict[int, dict[str, Any]]:
    """For each outer fold that can choose: the swept values of what it chose."""
    return {fold.fold: fold.chosen.swept for fold in validated(state).outer if fold.chosen}


# --- as tables ----------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """Cells are numbers, texts or None; from column `scores` on they are scores."""

    title: str
    header: list[str]
    rows: list[list[Any]]
    scores: int


def tables(found: Validated) -> list[Table]:
    """The report as tables: of combinations, or of outer folds and then what their inner folds say."""
    if found.ranking:
        return [_table(f"{found.kind}: {found.score} ({found.mode})", found.ranking)]
    names = short_names(dict.fromkeys(p for fold in found.outer for one in fold.inner.combinations for p in one.swept))
    rows = [
        [
            fold.fold,
            fold.chosen and fold.chosen.number,
            *(fold.chosen.swept.get(path) if fold.chosen else None for path in names),
            fold.chosen and fold.chosen.mean,
            fold.epoch,
            fold.score.value,
        ]
        for fold in found.outer
    ]
    header = ["outer fold", "chosen", *names.values(), "mean of inner folds", "epoch", "score"]
    outer = Table(f"{found.kind}: {found.score} ({found.mode})", header, rows, 2 + len(names))
    if found.epoch != "average":
        at = header.index("epoch")
        rows = [row[:at] + row[at + 1 :] for row in rows]
        outer = outer._replace(header=header[:at] + header[at + 1 :], rows=rows)
    return [outer, *(_table(f"inner folds of outer fold {fold.fold}", fold.inner) for fold in found.outer)]


def _table(title: str, ranking: Ranking) -> Table:
    several = any(len(one.scores) > 1 for one in ranking.combinations)
    names = short_names(dict.fromkeys(path for one in ranking.combinations for path in one.swept))
    units = list(dict.fromkeys(name for one in ranking.combinations for name in one.scores))
    epochs = any(one.epoch is not None for one in ranking.combinations)
    rows = [
        [
            one.rank,
            one.number,
            *(one.swept.get(path) for path in names),
            *([one.mean, one.std] if several else []),
            *([one.epoch] if epochs else []),
            *(one.scores[unit].value if unit in one.scores else None for unit in units),
        ]
        for one in ranking.combinations
    ]
    header = ["rank", "combination", *names.values(), *(["mean", "std"] if several else [])]
    return Table(title, [*header, *(["epoch"] if epochs else []), *units], rows, 2 + len(names))


def as_json(found: Validated) -> dict[str, Any]:
    """The report as plain data."""
    return {key: _plain(value) for key, value in found._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Ranking):
        return _plain(value.combinations)
    if hasattr(value, "_asdict"):
        return {key: _plain(entry) for key, entry in value._asdict().items()}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value

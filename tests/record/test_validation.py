"""The report on cross validation, from logs made by hand: what counts, what is chosen, what is missing."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from html import unescape
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.errors import InputError
from mlgym.record.events import (
    EvaluationResult,
    EvaluationResultEvent,
    Event,
    ExperimentConfig,
    ExperimentConfigEvent,
    GridSearch,
    GridSearchEvent,
    JobState,
    JobStatus,
    JobStatusEvent,
    LossScore,
    MetricScore,
    Validation,
    number,
    plain,
)
from mlgym.record.fold import REMOVED, State, fold_all
from mlgym.record.log import packed, unpacked
from mlgym.record.tables import as_csv, as_html, as_text
from mlgym.record.validation import RULES, Epoch, Validated, as_json, selected, validated

G = "g"
LR = "optimizer.config.params.lr"


class Log:
    """Events of a grid search, one experiment after the other."""

    def __init__(self, plan: Validation | None = None, grid_search_id: str = G) -> None:
        self.events: list[Event] = []
        self.ids = 0
        self.id = grid_search_id
        began = GridSearch(grid_search_id=self.id, status="STARTED", num_experiments=0, validation=plan)
        self.events.append(GridSearchEvent(seq=1, payload=began))

    def add(
        self,
        swept: dict[str, Any],
        scores: Iterable[float],
        status: JobState = "DONE",
        reason: str | None = None,
        losses: Iterable[float] = (),
    ) -> int:
        """An experiment and its scores, from epoch 0 on."""
        i, self.ids = self.ids, self.ids + 1
        config = ExperimentConfig(grid_search_id=self.id, experiment_id=i, swept=swept, num_epochs=9)
        self.events.append(ExperimentConfigEvent(seq=self.seq, payload=config))
        self.status(i, "INIT")
        for epoch, value in enumerate(scores):
            metric = [MetricScore("accuracy", "val", number(value))]
            self.result(i, epoch, metric_scores=metric)
        for epoch, value in enumerate(losses):
            self.result(i, epoch, loss_scores=[LossScore("loss", "val", number(value))])
        if status != "INIT":
            self.status(i, status, reason)
        return i

    def result(self, i: int, epoch: int, **scores: Any) -> None:
        payload = EvaluationResult(grid_search_id=self.id, experiment_id=i, epoch=epoch, **scores)
        self.events.append(EvaluationResultEvent(seq=self.seq, payload=payload))

    def status(self, i: int, status: JobState, reason: str | None = None, attempt: int = 1) -> None:
        payload = JobStatus(
            grid_search_id=self.id, job_id=f"{i}-{attempt}", experiment_id=i, status=status, reason=reason
        )
        self.events.append(JobStatusEvent(seq=self.seq, attempt=attempt, payload=payload))

    @property
    def seq(self) -> int:
        return len(self.events) + 1

    @property
    def state(self) -> State:
        return fold_all(State(), self.events)


def cross(table: Any, plan: Validation | None = None) -> Log:
    """A cross validation with `table[combination][fold][epoch]`, in the order in which one is run."""
    log = Log(plan or Validation(combinations=len(table), outer_folds=len(table[0])))
    for fold in range(len(table[0])):
        for combination, scores in enumerate(table):
            log.add({LR: combination, "fold": fold}, scores[fold])
    return log


def nested(inner: Any, outer: Any, plan: Validation | None = None) -> Log:
    """`inner[combination][outer fold][inner fold][epoch]` and `outer[combination][outer fold][epoch]`."""
    combinations, folds, inner_folds = len(inner), len(inner[0]), len(inner[0][0])
    log = Log(plan or Validation(combinations=combinations, outer_folds=folds, inner_folds=inner_folds))
    for fold in range(folds):
        for i in range(inner_folds):
            for combination in range(combinations):
                log.add({LR: combination, "outer_fold": fold, "inner_fold": i}, inner[combination][fold][i])
        for combination in range(combinations):
            log.add({LR: combination, "outer_fold": fold, "inner_fold": -1}, outer[combination][fold])
    return log


def ranked(found: Validated) -> list[int]:
    """The numbers of the complete combinations, the best first."""
    assert found.ranking is not None
    return [one.number for one in found.ranking.combinations if one.rank is not None]


# --- which epoch counts -------------------------------------------------------------------------------------

_scores = st.floats(-100, 100)


def _tables(*shape: int) -> st.SearchStrategy[Any]:
    found: st.SearchStrategy[Any] = _scores
    for size in reversed(shape):
        found = st.lists(found, min_size=size, max_size=size)
    return found


@settings(deadline=None, max_examples=60)
@given(_tables(3, 4, 5), st.sampled_from(["max", "min"]))
def test_what_counts_by_each_rule(table: list[Any], mode: Literal["max", "min"]) -> None:
    values = np.asarray(table)
    state = cross(table).state
    most = np.max if mode == "max" else np.min
    at = (np.argmax if mode == "max" else np.argmin)(values.mean(1), 1)
    wanted: dict[Epoch, Any] = {
        "last": values[:, :, -1],
        "best": most(values, 2),
        "average": np.stack([values[i, :, epoch] for i, epoch in enumerate(at)]),
    }
    for epoch, theirs in wanted.items():
        found = validated(state, mode=mode, epoch=epoch)
        assert (found.kind, found.score, found.missing) == ("cross validation", "val/accuracy", [])
        assert found.ranking is not None
        for one in found.ranking.combinations:
            ours = [one.scores[f"fold {i}"].value for i in range(4)]
            if epoch == "average" and one.epoch != at[one.number]:  # equal but for rounding
                assert one.mean == pytest.approx(values[one.number, :, at[one.number]].mean())
                continue
            assert ours == theirs[one.number].tolist()
            assert one.mean == pytest.approx(theirs[one.number].mean())
            assert one.std == pytest.approx(theirs[one.number].std(), abs=1e-9)
            assert (one.epoch is None) == (epoch != "average")
        means = [one.mean for one in found.ranking.combinations]
        assert means == sorted(means, key=lambda mean: mean or 0.0, reverse=mode == "max")
        assert [one.rank for one in found.ranking.combinations] == [1, 2, 3]


def test_trainings_of_different_lengths() -> None:
    """What has stopped early counts with its last epoch; on average over folds, epochs count that all have."""
    log = cross([[[0.1, 0.9, 0.2, 0.8], [0.3, 0.7]]])
    wanted: dict[Epoch, list[float]] = {"last": [0.8, 0.7], "best": [0.9, 0.7], "average": [0.9, 0.7]}
    for epoch, values in wanted.items():
        found = validated(log.state, epoch=epoch)
        assert found.ranking is not None
        (one,) = found.ranking.combinations
        assert [score.value for score in one.scores.values()] == values
        assert one.epoch == (1 if epoch == "average" else None)
    falling = validated(cross([[[0.9, 0.1, 0.99], [0.8, 0.1]]]).state, epoch="average").ranking
    assert falling is not None
    assert falling.combinations[0].epoch == 0  # not 2, which one of them does not have


# --- ties, NaN, infinity ------------------------------------------------------------------------------------


def test_of_equal_combinations_the_first_is_better() -> None:
    # In floating point, these sums differ with the order in which they are added.
    found = validated(cross([[[0.1], [0.7], [0.2]], [[0.7], [0.2], [0.1]], [[0.2], [0.1], [0.7]]]).state)
    assert ranked(found) == [0, 1, 2]
    assert ranked(validated(cross([[[0.5]], [[0.6]], [[0.6]]]).state)) == [1, 2, 0]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nan_is_never_best(mode: Literal["max", "min"]) -> None:
    nan, inf = math.nan, math.inf
    table = [[[nan], [1.0]], [[nan], [nan]], [[0.1], [0.2]], [[inf], [0.0]], [[-inf], [0.0]], [[inf], [-inf]]]
    found = validated(cross(table).state, mode=mode)
    assert ranked(found) == ([3, 2, 4, 0, 1, 5] if mode == "max" else [4, 2, 3, 0, 1, 5])
    assert found.ranking is not None
    for one in found.ranking.combinations:
        values = [table[one.number][i][0] for i in range(2)]
        with np.errstate(invalid="ignore"):
            np.testing.assert_equal(one.mean, np.mean(values))
        assert (one.std is None) == (one.number != 2)
    assert validated(cross([[[nan, 0.3, nan]]]).state, epoch="best").ranking.best.mean == 0.3  # type: ignore[union-attr]
    assert validated(cross([[[nan, 0.3], [nan, 0.1]]]).state, epoch="average").ranking.best.epoch == 1  # type: ignore[union-attr]
    for text in (as_text(found), as_csv(found), as_html(found)):
        assert "nan" in text
    json.dumps(plain(as_json(found)), allow_nan=False)


def test_a_nested_estimate_that_is_no_number() -> None:
    found = validated(nested([[[[1.0]], [[1.0]]]], [[[math.nan], [0.5]]]).state)
    assert found.mean is not None
    assert math.isnan(found.mean)
    assert found.std is None
    assert "nan +- -" in as_text(found)


# --- what is missing ----------------------------------------------------------------------------------------

PLAN = Validation(combinations=2, outer_folds=2)


@pytest.mark.parametrize("status", ["FAILED", "LOST", "RUNNING", "INIT", "STOPPED"])
def test_what_has_not_ended_is_named_and_does_not_count(status: JobState) -> None:
    log = Log(PLAN)
    log.add({LR: 1, "fold": 0}, [0.5])
    log.add({LR: 2, "fold": 0}, [0.1])
    bad = log.add({LR: 1, "fold": 1}, [0.9], status)
    log.add({LR: 2, "fold": 1}, [0.2])
    found = validated(log.state)
    assert found.missing == [f"fold 1 of combination 0: experiment {bad} is {status}"]
    assert ranked(found) == [1]  # though the other would be better
    assert found.ranking is not None
    last = found.ranking.combinations[-1]
    assert (last.number, last.complete, last.mean, last.scores["fold 1"].value) == (0, False, 0.5, None)
    text = as_text(found)
    assert "this report is incomplete (1 missing):\n  fold 1 of combination 0: experiment 2 is" in text
    assert "best: combination 1, 0.1500 +- 0.0500 (mean and standard deviation over 2 folds)" in text


def test_what_has_not_begun_is_named() -> None:
    log = Log(Validation(combinations=3, outer_folds=2))
    assert validated(log.state).missing == ["3 of 3 combinations are not in the log yet"]
    log.add({LR: 1, "fold": 0}, [0.5])
    log.add({LR: 2, "fold": 0}, [], losses=[1.0])
    found = validated(log.state, "val/accuracy")
    assert found.missing == [
        "fold 1 of combination 0: 1 of 1 trainings are not there",
        "fold 0 of combination 1: experiment 1 has no such score",
        "fold 1 of combination 1: 1 of 1 trainings are not there",
        "1 of 3 combinations are not in the log yet",
    ]
    assert ranked(found) == []
    with pytest.raises(InputError, match="there is no score 'val/acuracy'; did you mean 'val/accuracy'"):
        validated(log.state, "val/acuracy")


def test_an_attempt_that_is_made_again_counts_with_its_end() -> None:
    log = Log(Validation(combinations=1, outer_folds=1))
    i = log.add({"fold": 0}, [0.5], "FAILED")
    log.status(i, "RUNNING", attempt=2)
    assert validated(log.state).missing == ["fold 0 of combination 0: experiment 0 is RUNNING"]
    log.result(i, 0, metric_scores=[MetricScore("accuracy", "val", 0.7)])
    log.status(i, "DONE", attempt=2)
    found = validated(log.state)
    assert (found.missing, ranked(found)) == ([], [0])
    assert found.ranking.best.mean == 0.7  # type: ignore[union-attr]


def test_what_is_no_longer_in_the_grid_does_not_count() -> None:
    log = cross([[[0.1], [0.2]], [[0.8], [0.9]]], PLAN)
    log.add({LR: 7, "fold": 0}, [1.0], "STOPPED", REMOVED)
    dropped = Validation(combinations=1, outer_folds=2, dropped=[1, 3])
    assert ranked(validated(log.state)) == [1, 0]
    began = GridSearch(grid_search_id=G, status="STARTED", validation=dropped)
    log.events.append(GridSearchEvent(seq=log.seq, payload=began))
    found = validated(log.state)
    assert (ranked(found), found.missing) == ([0], [])
    assert "0.8500" not in as_text(found)


# --- seeds and repetitions ----------------------------------------------------------------------------------


def test_seeds_alone() -> None:
    log = Log(Validation(combinations=2, seeds=[5, 9]))
    for seed, values in ((5, [0.1, 0.6]), (9, [0.3, 0.4])):
        for lr, value in enumerate(values):
            log.add({LR: lr, "seed": seed}, [value])
    found = validated(log.state)
    assert (found.kind, ranked(found), found.seeds, found.missing) == ("seeds", [1, 0], [5, 9], [])
    assert found.ranking is not None
    best = found.ranking.combinations[0]
    assert {name: score.value for name, score in best.scores.items()} == {"seed 5": 0.6, "seed 9": 0.4}
    assert [best.mean, best.std] == pytest.approx([0.5, 0.1])
    assert "(mean and standard deviation over 2 seeds)" in as_text(found)


def test_seeds_and_folds() -> None:
    """A fold's score is the mean over seeds; the spread is over folds; one seed that is missing leaves a gap."""
    values = np.random.default_rng(0).random((2, 3, 2))  # combination, fold, seed
    log = Log(Validation(combinations=2, outer_folds=3, seeds=[1, 2]))
    for fold in range(3):
        for i, seed in enumerate((1, 2)):
            for lr in range(2):
                log.add({LR: lr, "fold": fold, "seed": seed}, [values[lr, fold, i]])
    found = validated(log.state)
    assert found.missing == []
    assert found.ranking is not None
    for one in found.ranking.combinations:
        folds = values[one.number].mean(1)
        assert [score.value for score in one.scores.values()] == pytest.approx(folds.tolist())
        assert [one.mean, one.std] == pytest.approx([folds.mean(), folds.std()])
    assert "each score is the mean over 2 seeds" in as_text(found)
    log.events = [e for e in log.events if not isinstance(e, JobStatusEvent) or e.payload.experiment_id != 11]
    found = validated(log.state)
    assert found.missing == ["fold 2 of combination 1: experiment 11 is INIT"]
    assert ranked(found) == [0]


def test_nested_with_seeds_and_repetitions() -> None:
    rng = np.random.default_rng(1)
    inner, outer = rng.random((3, 4, 2, 2)), rng.random((3, 4, 2))  # combination, 2 repetitions of 2 folds, ..., seed
    log = Log(Validation(combinations=3, outer_folds=4, inner_folds=2, seeds=[1, 2]))
    for fold in range(4):
        for i in (0, 1, -1):
            for s, seed in enumerate((1, 2)):
                for lr in range(3):
                    value = outer[lr, fold, s] if i == -1 else inner[lr, fold, i, s]
                    log.add({LR: lr, "outer_fold": fold, "inner_fold": i, "seed": seed}, [value])
    found = validated(log.state)
    chosen = inner.mean((2, 3)).argmax(0)
    assert [fold.chosen.number for fold in found.outer if fold.chosen] == chosen.tolist()
    scores = np.asarray([outer[lr, fold].mean() for fold, lr in enumerate(chosen)])
    assert [found.mean, found.std] == pytest.approx([scores.mean(), scores.std()])
    assert found.missing == []
    assert all(len(fold.score.experiments) == 2 for fold in found.outer)


def test_more_folds_than_a_grid_has_are_refused() -> None:
    """A log can say what it likes; whoever reads it must not count to a billion."""
    with pytest.raises(InputError, match="more folds"):
        validated(Log(Validation(combinations=1, outer_folds=10**9)).state)
    with pytest.raises(InputError, match="more folds"):
        validated(Log(Validation(combinations=1, outer_folds=2000, inner_folds=2000)).state)


def test_a_grid_without_any() -> None:
    log = Log()
    log.add({LR: 0.1}, [0.5, 0.6])
    log.add({LR: 0.2}, [0.7, 0.4])
    found = validated(log.state)
    assert (found.kind, ranked(found), found.missing) == ("grid search", [0, 1], [])
    assert ranked(validated(log.state, epoch="best")) == [1, 0]
    assert "best: combination 0, 0.6000\n" in as_text(found)
    assert validated(State()).missing == []
    assert as_text(validated(State()))


# --- nested -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(_tables(3, 2, 2, 1), _tables(3, 2, 1), _tables(3, 2, 1), st.sampled_from(["max", "min"]))
def test_inner_scores_alone_decide(inner: Any, outer: Any, others: Any, mode: Literal["max", "min"]) -> None:
    """Whatever combinations that were not chosen score on outer folds, choice and estimate stay, and are those by hand."""
    found = validated(nested(inner, outer).state, mode=mode)
    chosen = [fold.chosen.number for fold in found.outer if fold.chosen]
    means = np.asarray(inner)[..., 0].mean(2)
    for fold, number_ in enumerate(chosen):
        most = means[:, fold].max() if mode == "max" else means[:, fold].min()
        assert means[number_, fold] == pytest.approx(most)
    scores = [outer[number_][fold][0] for fold, number_ in enumerate(chosen)]
    assert [fold.score.value for fold in found.outer] == scores
    assert found.mean == pytest.approx(np.mean(scores))
    assert found.std == pytest.approx(np.std(scores), abs=1e-9)

    changed = [[others[i][fold] if i != chosen[fold] else outer[i][fold] for fold in range(2)] for i in range(3)]
    same = validated(nested(inner, changed).state, mode=mode)
    assert as_json(same) == as_json(found)
    anything = validated(nested(inner, others).state, mode=mode)
    assert [fold.chosen.number for fold in anything.outer if fold.chosen] == chosen


def test_the_best_epoch_on_an_outer_fold_is_not_chosen_there() -> None:
    inner = [[[[0.1, 0.9, 0.2], [0.2, 0.8, 0.1]]]]
    outer = [[[0.99, 0.5, 0.3]]]
    state = nested(inner, outer).state
    wanted: dict[Epoch, float] = {"last": 0.3, "best": 0.3, "average": 0.5}
    for epoch, value in wanted.items():
        found = validated(state, epoch=epoch)
        assert found.mean == value
        assert found.outer[0].epoch == (1 if epoch == "average" else None)
        assert as_text(found).endswith(
            {
                "last": f"what counts is {RULES['last']}",
                "best": f"what counts is {RULES['best']}; on the outer folds the last epoch",
                "average": "the epoch that is best on average over the inner folds, also on the outer fold",
            }[epoch]
        )
    short = nested(inner, [[[0.99]]]).state  # stopped before the epoch that was chosen: the last one
    assert validated(short, epoch="average").mean == 0.99


def test_a_choice_needs_all_inner_folds() -> None:
    log = Log(Validation(combinations=2, outer_folds=2, inner_folds=2, selected_only=True))
    for fold in range(2):
        for i in range(2):
            for lr in range(2):
                status: JobState = "FAILED" if (fold, i, lr) == (0, 1, 1) else "DONE"
                log.add({LR: lr, "outer_fold": fold, "inner_fold": i}, [float(lr)], status)
    assert selected(log.state) == {0: {LR: 0}, 1: {LR: 1}}
    found = validated(log.state)
    assert (found.mean, found.std) == (None, None)
    assert found.missing == [
        "outer fold 0, inner_fold 1 of combination 1: experiment 3 is FAILED",
        "outer fold 0, combination 0 on it: 1 of 1 trainings are not there",
        "outer fold 1, combination 1 on it: 1 of 1 trainings are not there",
    ]
    log.add({LR: 0, "outer_fold": 0, "inner_fold": -1}, [0.3])
    assert validated(log.state).mean is None  # one fold is no estimate
    log.add({LR: 1, "outer_fold": 1, "inner_fold": -1}, [0.5])
    found = validated(log.state)
    assert found.mean == 0.4
    assert found.missing == ["outer fold 0, inner_fold 1 of combination 1: experiment 3 is FAILED"]
    assert "this report is incomplete (1 missing)" in as_text(found)


def test_nothing_to_choose_from() -> None:
    log = Log(Validation(combinations=1, outer_folds=1, inner_folds=2))
    log.add({"outer_fold": 0, "inner_fold": 0}, [0.5], "FAILED")
    found = validated(log.state)
    assert selected(log.state) == {}
    assert found.missing[-1] == "outer fold 0: no combination is complete on its inner folds"
    assert "estimate" not in as_text(found)


def test_what_the_validation_config_says_counts_unless_asked_otherwise() -> None:
    plan = Validation(combinations=2, outer_folds=1, inner_folds=1, metric="val/loss", mode="min", epoch="best")
    log = Log(plan)
    for i in (0, -1):
        for lr in (0, 1):
            log.add({LR: lr, "outer_fold": 0, "inner_fold": i}, [0.2 + lr, 0.1 + lr], losses=[1.0 + lr, 2.0 + lr])
    found = validated(log.state)
    assert (found.score, found.mode, found.epoch) == ("val/loss", "min", "best")
    assert selected(log.state) == {0: {LR: 0}}
    other = validated(log.state, "val/accuracy")  # what is best of the loss is not best of this
    assert (other.mode, [fold.chosen.number for fold in other.outer if fold.chosen]) == ("max", [1])
    assert validated(log.state, mode="max", epoch="last")[5:7] == ("max", "last")


# --- a state of any moment ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 200))
def test_a_report_of_any_moment(upto: int) -> None:
    """A log that ends anywhere has a report, which a saved state has as well."""
    log = nested(np.random.default_rng(0).random((2, 2, 2, 2)), np.random.default_rng(1).random((2, 2, 2)))
    state = fold_all(State(), log.events[:upto])
    found = validated(state)
    assert validated(unpacked(packed(state))) == found
    for epoch in RULES:
        for text in (as_text, as_csv, as_html):
            assert text(validated(state, epoch=epoch))
    whole = validated(log.state)
    assert whole.missing == []
    if upto and not found.missing:  # what is not there yet has no say
        assert (found.mean, found.std) == (whole.mean, whole.std)
        assert [fold.inner for fold in found.outer] == [fold.inner for fold in whole.outer]


# --- forms --------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert('x')</script>&\"$body$title"


def test_a_page_escapes_what_others_have_named() -> None:
    log = Log(Validation(combinations=1, outer_folds=2), "BODY-TITLE")
    for fold in range(2):
        log.add({f"model.config.{HOSTILE}": HOSTILE, "fold": fold}, [0.5])
    found = validated(log.state)
    text = as_html(found)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert text.count("<title>BODY-TITLE: cross validation</title>") == 1
    assert text.count("<table>") == 1
    cells = [unescape(cell.partition("<")[0]) for cell in text.split("<td>")[1:]]
    assert cells == ["1", "0", HOSTILE, "0.5000", "0.0000", "0.5000", "0.5000"]
    assert unescape(text).count(f"<th scope='col'>{HOSTILE}</th>") == 1


def test_csv_has_all_digits_and_no_formulas() -> None:
    log = Log(Validation(combinations=2, outer_folds=2))
    values = iter([0.1 + 0.2, 1 / 3, 1e-17, 2 / 3])
    for fold in range(2):
        for name in ("=1+1", ["a, b", 1]):
            log.add({"model.config.=cmd": name, "fold": fold}, [next(values)])
    found = validated(log.state)
    header, *rows = csv.reader(io.StringIO(as_csv(found)))
    assert header == ["rank", "combination", "'=cmd", "mean", "std", "fold 0", "fold 1"]
    assert [row[:3] for row in rows] == [["1", "1", '["a, b", 1]'], ["2", "0", "'=1+1"]]
    assert [float(cell) for cell in rows[1][5:]] == [0.1 + 0.2, 1e-17]
    assert [float(cell) for cell in rows[0][3:]] == [0.5, pytest.approx(1 / 6), 1 / 3, 2 / 3]


def test_json_is_strict_and_says_it_all() -> None:
    log = nested([[[[math.nan], [0.5]]], [[[0.5], [math.inf]]]], [[[0.25]], [[0.75]]])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(json.dumps(plain(as_json(validated(log.state))), allow_nan=False), parse_constant=refuse)
    assert found.keys() == set(Validated._fields)
    (outer,) = found["outer"]
    assert outer["chosen"] == outer["inner"][0]
    assert outer["chosen"]["swept"] == {LR: 1}
    assert outer["chosen"]["mean"] == "Infinity"
    assert outer["score"] == {"value": 0.75, "experiments": [5], "missing": []}
    assert outer["inner"][1]["mean"] == "NaN"
    assert (found["mean"], found["std"]) == (0.75, 0.0)


def test_text_of_many_combinations_is_short_when_asked() -> None:
    found = validated(cross([[[i / 100]] for i in range(50)]).state)
    lines = as_text(found, 20).splitlines()
    assert lines[0] == "cross validation: val/accuracy (max)"
    assert lines[1].split() == ["rank", "combination", "lr", "fold", "0"]
    assert lines[3].split() == ["1", "49", "49", "0.4900"]
    assert lines[23] == "... and 30 more"
    assert len(as_text(found).splitlines()) == len(lines) + 29


def test_only_the_first_of_what_is_missing_are_shown() -> None:
    log = Log(Validation(combinations=1, outer_folds=12))
    log.add({LR: 1, "fold": 0}, [0.5])
    text = as_text(validated(log.state))
    assert "this report is incomplete (11 missing):" in text
    assert text.endswith("\n  and 3 more")

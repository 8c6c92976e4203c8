"""What readers are told of a state: the golden log, which the page folds as well, and each projection by itself."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_board.projections import Which, experiment, rows, series, size, snapshot, summary, timeline
from mlgym.record.events import GridSearchEvent, Unknown, decode_lines
from mlgym.record.fold import KINDS, Experiment, Marks, State, fold_all
from mlgym.record.report import as_json, report
from mlgym.record.scores import Scores
from tests.ml_board.golden import write


@pytest.fixture(scope="module")
def golden() -> State:
    return fold_all(State(), decode_lines(b"".join(write.lines())))


def test_the_golden_log_amounts_to_what_it_did() -> None:
    """When it is meant to change: python -m tests.ml_board.golden.write, and the page's tests."""
    log = (write.HERE / "log.jsonl").read_bytes()
    assert log == b"".join(write.lines())
    assert (write.HERE / "expected.json").read_text(encoding="utf-8") == write.text(write.expected(log))


def test_the_golden_log_has_everything_in_it(golden: State) -> None:
    events = decode_lines(b"".join(write.lines()))
    assert sum(isinstance(event, Unknown) for event in events) > 15
    assert len({type(event) for event in events}) == 15
    assert set(golden.marks.kinds) == set(range(len(KINDS)))
    assert sum(isinstance(event, GridSearchEvent) for event in events) == 4
    assert {each.status for each in golden.experiments.values()} == {"INIT", "RUNNING", "DONE", "FAILED", "STOPPED"}
    assert max(len(each.attempts) for each in golden.experiments.values()) == 2


def plain(value: Any) -> Any:
    """As a reader has it."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_all_say_the_same(golden: State) -> None:
    """Rows, details and columns are views of one thing."""
    whole, short = plain(snapshot(golden)), plain(rows(golden))
    assert {**whole, "experiments": 0} == {**short, "experiments": 0}
    for full, row in zip(whole["experiments"], short["experiments"], strict=True):
        found = plain(experiment(golden, row["experiment_id"]))
        assert found["evaluations"] >= max([len(s["epochs"]) for s in full["scores"].values()], default=0)
        differing = ("scores", "checkpoints", "changes")
        for key in row.keys() - {*differing}:
            assert row[key] == full[key] == found[key]
        assert found["scores"] == row["scores"]
        assert (found["checkpoints"], found["changes"]) == (full["checkpoints"], full["changes"])
        assert len(found["changes"]) == row["changes"]
        assert [(c["epoch"], c["seq"]) for c in found["checkpoints"]] == [
            (c["epoch"], c["seq"]) for c in row["checkpoints"]
        ]
        assert [{**attempt, "stacktrace": 0} for attempt in found["attempts"]] == [
            {**attempt, "stacktrace": 0} for attempt in full["attempts"]
        ]
        assert all("stacktrace" not in attempt for attempt in full["attempts"])
        for key, score in row["scores"].items():
            points = list(zip(*(full["scores"][key][column] for column in ("epochs", "values", "seqs")), strict=True))
            assert score["count"] == len(points)
            assert tuple(score["last"]) == points[-1]
            for extreme in ("lowest", "highest"):
                assert score[extreme] is None or tuple(score[extreme]) in points
    assert experiment(golden, 77) is None


def test_every_point_has_the_number_and_the_time_of_its_event(golden: State) -> None:
    events = {event.seq: event for event in decode_lines(b"".join(write.lines()))}
    found = series(golden, Which())
    assert found["seq"] == golden.seq
    assert len(found["series"]) == sum(len(each.scores) for each in golden.experiments.values())
    for one in plain(found)["series"]:
        for epoch, seq, time in zip(one["epochs"], one["seqs"], one["times"], strict=True):
            event = events[seq]
            assert not isinstance(event, Unknown)
            assert (event.payload.experiment_id, event.payload.epoch) == (one["experiment_id"], epoch)  # type: ignore[union-attr]
            assert event.creation_ts == time


def test_series_of_some(golden: State) -> None:
    def of(**which: Any) -> list[tuple[int, str, list[int], int]]:
        found = series(golden, Which(**which))["series"]
        return [(one["experiment_id"], one["score"], one["epochs"], one["of"]) for one in found]

    assert [one[:2] for one in of(scores={"val/loss"})] == [(0, "val/loss"), (1, "val/loss")]
    assert of(experiments={1, 77}, scores={"val/loss", "nothing"}, first=2, last=4) == [(1, "val/loss", [2, 3, 4], 3)]
    assert of(experiments={1}, scores={"val/loss"}, first=99) == [(1, "val/loss", [], 0)]
    assert of(experiments=set()) == of(scores=set()) == []
    (thinned,) = of(experiments={0}, scores={"val/loss"}, points=5)
    assert thinned[2:] == ([0, 12], 13)  # it falls all the time
    assert size(golden, Which(experiments={0}, points=5)) == 20
    assert size(golden, Which(experiments={0})) == 52


def test_a_summary(golden: State) -> None:
    found = summary(golden)
    assert found["counts"] == {"DONE": 3, "FAILED": 1, "STOPPED": 1, "RUNNING": 1, "INIT": 5}
    assert found["epochs_done"] == sum(each.epochs_done for each in golden.experiments.values())
    best = as_json(report(golden))
    winner = next(row for row in best["rows"] if row["experiment_id"] == best["winner"])
    assert found["best"] == {
        "score": best["score"],
        "mode": best["mode"],
        "experiment_id": best["winner"],
        **winner["best"],
        "seq": golden.experiments[best["winner"]].scores[best["score"]].seqs[4],
    }
    assert summary(State())["best"] is None


def test_who_is_not_in_the_log_yet_is_waiting() -> None:
    state = State(num_experiments=5)
    state.experiments[3] = Experiment(3, num_epochs=10, epochs_done=4, status="RUNNING")
    found = summary(state)
    assert (found["counts"], found["epochs_done"], found["epochs_total"]) == ({"RUNNING": 1, "INIT": 4}, 4, 50)


@pytest.mark.parametrize(("key", "best"), [("val/accuracy", (3, 1, 0.5)), ("val/loss", (2, 0, -1.0))])
def test_the_first_of_equal_ones_is_best(key: str, best: tuple[int, int, float]) -> None:
    values = {9: [0.5, -1.0, math.nan], 3: [0.25, 0.5, 0.5], 2: [-1.0, math.inf, math.nan]}
    state = State()
    for experiment_id, of_epochs in values.items():
        scores = {key: Scores(dict(enumerate(of_epochs)))}
        state.experiments[experiment_id] = Experiment(experiment_id, scores=scores, losses={"val/loss"})
    found = summary(state)["best"]
    assert (found["experiment_id"], found["epoch"], found["value"]) == best


@settings(deadline=None)
@given(
    kinds=st.lists(st.sampled_from([*range(len(KINDS)), *[KINDS.index("checkpoint")] * 30]), max_size=400),
    points=st.integers(10, 200),
)
def test_marks_are_thinned_so_that_nothing_rare_disappears(kinds: list[int], points: int) -> None:
    marks = Marks()
    for seq, kind in enumerate(kinds, 1):
        marks.seqs.append(3 * seq)
        marks.times.append(1000 * seq)
        marks.kinds.append(kind)
        marks.experiments.append(seq % 5)
    found = timeline(State(marks=marks, seq=5000, time=7), points)
    assert (found["of"], found["first_time"]) == (len(kinds), 1000 if kinds else 7)
    shown = found["marks"]
    entries = list(zip(shown["seqs"], shown["times"], shown["kinds"], shown["experiments"], strict=True))
    every = [(3 * seq, 1000 * seq, KINDS[kind], seq % 5) for seq, kind in enumerate(kinds, 1)]
    assert [entry for entry in every if entry in set(entries)] == entries
    assert len(entries) <= points
    assert {entry[2] for entry in entries} == {KINDS[kind] for kind in kinds}
    if len(kinds) <= points:
        assert entries == every
    failures = [entry for entry in every if entry[2] in ("failed", "lost")]
    if len(failures) <= points // 2:
        assert set(failures) <= set(entries)

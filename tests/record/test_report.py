from __future__ import annotations

import pytest

from mlgym.errors import InputError
from mlgym.record.fold import Experiment, State
from mlgym.record.report import as_json, as_text, report, short_names, shown


def state() -> State:
    scores = [{1: 0.5, 2: 0.9, 3: 0.8}, {1: float("nan")}, {1: 0.6}]
    found = State(grid_search_id="g", status="FINISHED", num_experiments=3)
    for i, values in enumerate(scores):
        found.experiments[i] = Experiment(
            i,
            swept={"optimizer.config.params.lr": 10.0**-i},
            num_epochs=3,
            attempt=1,
            status="DONE",
            epochs_done=max(values),
            scores={"train/f1": values, "val/loss": {1: 3.0 - i}, "val/f1": values},
            losses={"val/loss"},
        )
    return found


def test_the_first_validation_metric_decides() -> None:
    found = report(state())
    assert (found.score, found.mode, found.winner) == ("val/f1", "max", 0)
    assert found.rows[0].best == (2, 0.9)
    assert found.rows[0].last == (3, 0.8)
    assert found.rows[1].best is None  # NaN is never best


def test_losses_are_minimised() -> None:
    found = report(state(), "val/loss")
    assert (found.mode, found.winner) == ("min", 2)
    assert report(state(), "val/loss", "max").winner == 0


def test_unknown_score() -> None:
    with pytest.raises(InputError, match="there is no score 'val/f2'; did you mean 'val/f1'"):
        report(state(), "val/f2")


def test_text_names_winner_and_failures() -> None:
    found = state()
    found.experiments[1].status = "FAILED"
    found.experiments[1].error = "ValueError: no"
    text = as_text(report(found))
    assert "best val/f1 (max): 0.9000 at epoch 2 of experiment 0 (lr=1.0)" in text
    assert "experiment 1 FAILED: ValueError: no" in text
    assert "0.9000 *" in text
    assert as_json(report(found))["rows"][0]["best"] == {"epoch": 2, "value": 0.9}


def test_an_empty_log_has_a_table_too() -> None:
    assert report(State()).winner is None
    assert "#" in as_text(report(State()))


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names(["a.lr", "b.c"]) == {"a.lr": "lr", "b.c": "c"}
    assert short_names(["x.a.lr", "x.b.lr"]) == {"x.a.lr": "a.lr", "x.b.lr": "b.lr"}
    assert short_names(["lr", "a.lr"]) == {"lr": "lr", "a.lr": "a.lr"}
    assert shown({"a": [1, 2], "b": "x\ny"}) == "{a: [1, 2], b: x y}"

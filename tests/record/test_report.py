from __future__ import annotations

from pathlib import Path

import pytest

from mlgym.errors import InputError
from mlgym.record.fold import Experiment, State
from mlgym.record.report import as_json, as_text, duration, report, short_names, shown
from mlgym.record.scores import Scores
from mlgym.record.summary import summary
from mlgym.specs import RunPaths


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
            scores={"train/f1": Scores(values), "val/loss": Scores({1: 3.0 - i}), "val/f1": Scores(values)},
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


def test_text_names_winner_and_failures(tmp_path: Path) -> None:
    found = state()
    found.experiments[1].status = "FAILED"
    found.experiments[1].error = "ValueError: no"
    paths = RunPaths(tmp_path, "g")
    paths.experiment(1).mkdir(parents=True)
    paths.output(1).write_text("".join(f"line {i}\n" for i in range(20)) + "\x1b[31mValueError: no\n")
    text = summary(report(found), paths)
    assert "best val/f1 (max): 0.9000 at epoch 2 of experiment 0 (lr=1.0)" in text
    assert f"experiment 1 FAILED: ValueError: no\n  the end of {paths.output(1)}:\n  | line 13\n" in text
    assert "|  [31mValueError: no\n" in text  # what a job prints cannot command the terminal
    assert "0.9000 *" in text
    assert as_json(report(found))["rows"][0]["best"] == {"epoch": 2, "value": 0.9}


def test_what_runs_is_timed_and_what_is_left_estimated() -> None:
    found = state()
    found.status = "STARTED"
    done, running, waiting = found.experiments.values()
    done.starting_time, done.finishing_time = 1_000, 7_000  # three epochs in 6 s
    done.epochs_done = 3
    running.status, running.starting_time, running.epochs_done = "RUNNING", 10_000, 1
    running.progress.phase, running.progress.epoch, running.progress.batch, running.progress.num_batches = (
        "train",
        2,
        5,
        10,
    )
    waiting.status, waiting.epochs_done = "INIT", 0
    table = report(found, now=16_000)  # half of the second epoch after 6 s
    assert table.counts == {"running": 1, "waiting": 1, "done": 1}
    assert [(row.elapsed, row.left) for row in table.rows[:2]] == [(6.0, None), (6.0, 6.0)]
    assert table.rows[2].left == pytest.approx(3 * 12 / 4.5)  # at the pace of all
    assert table.left == pytest.approx(6 + 8)
    assert "1 running, 1 waiting, 1 done; about 14.0s left" in as_text(table)
    assert report(found).rows[1].elapsed is None  # nobody says what time it is
    assert [duration(s) for s in (None, 59.94, 61, 3_660)] == ["-", "59.9s", "1m 01s", "1h 01m"]


def test_an_empty_log_has_a_table_too() -> None:
    assert report(State()).winner is None
    assert "#" in as_text(report(State()))


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names(["a.lr", "b.c"]) == {"a.lr": "lr", "b.c": "c"}
    assert short_names(["x.a.lr", "x.b.lr"]) == {"x.a.lr": "a.lr", "x.b.lr": "b.lr"}
    assert short_names(["lr", "a.lr"]) == {"lr": "lr", "a.lr": "a.lr"}
    assert shown({"a": [1, 2], "b": "x\ny"}) == "{a: [1, 2], b: x y}"

"""Cross validation on the page of the sweep: what `mlgym report` says, live and as of any moment."""

from __future__ import annotations

import re
from itertools import product
from statistics import fmean

from playwright.sync_api import Locator, Page, expect

from mlgym.record.events import Validation
from tests.ml_board.boards import Board
from tests.ml_board.browser import Pages, address, deliver
from tests.ml_board.page.logs import Script

LR = "optimizer.config.params.lr"


def accuracy(combination: int, fold: int, epoch: int) -> float:
    """Combination 1 is the better one in the end, and 0 was on the way."""
    return 0.5 + 0.1 * combination * epoch + 0.01 * fold + (0.3 if (combination, epoch) == (0, 1) else 0)


def card(page: Page) -> Locator:
    return page.get_by_role("region", name="validation", exact=True)


def cells(page: Page) -> list[list[str]]:
    return [row.get_by_role("cell").all_inner_texts() for row in card(page).get_by_role("row").all()[1:]]


def train(script: Script, experiment: int, combination: int, fold: int) -> None:
    script.job(experiment, "RUNNING")
    for epoch in range(3):
        script.scores(experiment, epoch, {"val/accuracy": accuracy(combination, fold, epoch)})
    script.job(experiment, "DONE")


def test_combinations_over_folds(board: Board, gs: str, pages: Pages) -> None:
    """Those that have all their folds are ranked; what counts can be chosen; a score leads to its training."""
    script = Script(gs)
    script.grid(num_experiments=4, validation=Validation(combinations=2, outer_folds=2))
    for experiment, (fold, combination) in enumerate(product(range(2), range(2))):
        script.config(experiment, {LR: (0.1, 0.01)[combination], "fold": fold}, num_epochs=2)
        script.job(experiment, "INIT")
    for experiment, (fold, combination) in enumerate(product(range(2), range(2))):
        if experiment < 3:
            train(script, experiment, combination, fold)
    deliver(board, script.drain(), gs)
    page = pages.open(board, address(gs, "sweep"))
    expect(card(page).get_by_role("heading")).to_have_text("Cross validation: val/accuracy")
    expect(card(page).get_by_text("incomplete: 1 score is missing")).to_be_visible()
    assert [row[0] for row in cells(page)] == ["0.1", "0.01"]  # the one that is complete

    train(script, 3, 1, 1)
    deliver(board, script.drain(), gs)
    expect(card(page).get_by_text("incomplete")).to_have_count(0)
    mean = fmean(accuracy(1, fold, 2) for fold in range(2))
    assert cells(page)[0] == ["0.01", f"{mean:.4f} ± 0.0050", "0.7000", "0.7100"]

    page.get_by_role("combobox", name="what counts").select_option(label="best of each (too good)")
    expect(card(page).get_by_role("row").nth(1)).to_contain_text("0.8050 ± 0.0050")
    assert "rule=best" in page.url
    card(page).get_by_role("link", name="0.8100").click()
    expect(page.get_by_role("heading", name="Experiment 2", exact=True)).to_be_visible()

    page.goto(f"{board.url}/{address(gs, 'sweep', at=19)}")  # the first two of four have ended
    expect(card(page).get_by_text("incomplete: 2 scores are missing")).to_be_visible()


def test_the_nested_estimate(board: Board, gs: str, pages: Pages) -> None:
    """It comes with the last outer fold, and what its inner folds did not choose has no part in it."""
    script = Script(gs)
    script.grid(num_experiments=12, validation=Validation(combinations=2, outer_folds=2, inner_folds=2))
    points = list(product(range(2), (0, 1, -1), range(2)))
    for experiment, (outer, inner, combination) in enumerate(points):
        swept = {LR: (0.1, 0.01)[combination], "outer_fold": outer, "inner_fold": inner}
        script.config(experiment, swept, num_epochs=2)
    for experiment, (outer, inner, combination) in enumerate(points[:-1]):
        train(script, experiment, combination, outer + inner)
    deliver(board, script.drain(), gs)
    page = pages.open(board, address(gs, "sweep"))
    expect(card(page)).to_contain_text("The estimate comes once every outer fold has its score.")
    train(script, 11, 1, 0)
    deliver(board, script.drain(), gs)
    expected = fmean([accuracy(1, -1, 2), accuracy(1, 0, 2)])
    expect(card(page).get_by_text(re.compile(rf"^{expected:.4f} ± 0\.0050$"))).to_be_visible()
    assert [row[0] for row in cells(page)] == ["0.01", "0.01"]


def test_without_folds_there_is_none(board: Board, gs: str, pages: Pages) -> None:
    script = Script(gs)
    script.grid(num_experiments=2)
    for experiment in range(2):
        script.config(experiment, {LR: (0.1, 0.01)[experiment]}, num_epochs=2)
        train(script, experiment, experiment, 0)
    deliver(board, script.drain(), gs)
    page = pages.open(board)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{board.url}/{address(gs, 'sweep')}")
    expect(page.get_by_role("region", name="importance", exact=True)).to_be_visible()
    # What comes later than a report would be asked for.
    expect(page.get_by_role("banner")).to_contain_text("no process runs it")
    assert not [url for url in asked if "/report" in url]
    expect(card(page)).to_have_count(0)

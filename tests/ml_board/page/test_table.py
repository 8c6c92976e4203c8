"""The table of experiments: filters, order, selection, columns, and an address that says all of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.ml_board.boards import Board
from tests.ml_board.browser import (
    Pages,
    address,
    chart,
    downloaded,
    number,
    parse_csv,
    query_of,
    rows,
    settled,
    table_csv,
    until,
)
from tests.ml_board.page.logs import EPOCHS, ERROR, LRS, OPTIMIZERS, accuracy, loss, scores, sweep, swept

GS = "sweep"
ALL = set(range(12))
LR, OPTIMIZER, SEED = "swept:optimizer.params.lr", "swept:optimizer.optimizer_key", "swept:model.seed"
COLUMNS = ",".join(
    [
        "status",
        LR,
        OPTIMIZER,
        SEED,
        "epochs",
        "best:val/accuracy",
        "last:val/accuracy",
        "best:val/cross_entropy_loss",
        "last:val/cross_entropy_loss",
        "error",
    ]
)


@pytest.fixture(scope="module", autouse=True)
def _sweep(board: Board) -> None:
    sweep(GS).write(board.storage)


@pytest.fixture
def page(board: Board, pages: Pages) -> Page:
    page = pages.open(board, address(GS, lay="table", cols=COLUMNS), width=1600)
    shows(page, ALL)
    return page


def ids(page: Page) -> list[int]:
    return [int(row["#"]) for row in rows(page)]


def shows(page: Page, expected: set[int] | list[int]) -> None:
    """The rows are these, in this order if it is one."""
    found: list[int] = []

    def same() -> bool:
        found[:] = ids(page)
        return (sorted(found) == sorted(expected)) if isinstance(expected, set) else found == expected

    until(page, same, lambda: f"rows {expected}, there are {found}")


def header(page: Page, title: str) -> Locator:
    return page.get_by_role("columnheader").filter(has=page.get_by_role("button", name=f"filter {title}", exact=True))


def filter_box(page: Page, title: str) -> Locator:
    header(page, title).get_by_role("button", name=f"filter {title}", exact=True).click()
    return page.get_by_role("dialog", name=f"filter by {title}", exact=True)


def selected(page: Page) -> set[int]:
    found = page.get_by_role("row", selected=True).evaluate_all("all => all.map(row => Number(row.dataset.id))")
    return set(found)


def row(page: Page, experiment: int) -> Locator:
    return page.get_by_role("row").filter(
        has=page.get_by_role("checkbox", name=f"select experiment {experiment}", exact=True)
    )


# --- what it says ---


def test_numbers_are_those_of_the_log(page: Page) -> None:
    found = {int(line["experiment"]): line for line in table_csv(page)}
    assert set(found) == ALL
    for experiment in range(11):
        last = {9: 2, 10: 3}.get(experiment, EPOCHS)
        line = found[experiment]
        assert float(line["optimizer.params.lr"]) == swept(experiment)["optimizer.params.lr"]
        assert line["optimizer.optimizer_key"] == swept(experiment)["optimizer.optimizer_key"]
        assert float(line["last val/accuracy"]) == accuracy(experiment, last)
        assert float(line["last val/cross_entropy_loss"]) == loss(experiment, last)
        assert float(line["best val/accuracy"]) == max(accuracy(experiment, epoch) for epoch in range(last + 1))
        assert float(line["best val/cross_entropy_loss"]) == min(loss(experiment, epoch) for epoch in range(last + 1))
        assert int(line["epochs"]) == (2 if experiment == 10 else last)  # an attempt counts from where it began
    assert found[11]["best val/accuracy"] == ""
    assert found[9]["error"] == ERROR
    for line in rows(page)[:11]:
        expected = found[int(line["#"])]
        assert math.isclose(number(line["val/accuracy"]), float(expected["last val/accuracy"]), abs_tol=1e-4)
        assert math.isclose(number(line["best val/accuracy"]), float(expected["best val/accuracy"]), abs_tol=1e-4)
    statuses = [line["status"] for line in rows(page)]
    assert statuses == ["done"] * 9 + ["failed", "running", "waiting"]
    best = max(range(9), key=lambda one: max(accuracy(one, epoch) for epoch in range(EPOCHS + 1)))
    assert [int(line["#"]) for line in rows(page) if "★" in line["best val/accuracy"]] == [best]


def test_a_cell_leads_to_its_event(page: Page) -> None:
    row(page, 3).get_by_role("gridcell").nth(1).click()  # so that it is where one is at
    cell = row(page, 3).get_by_role("gridcell").filter(has_text=f"{accuracy(3, EPOCHS):.4f}")
    link = cell.get_by_role("link").first
    link.click()
    opened = page.get_by_role("region", name=re.compile(r"^event \d+$"))
    expect(opened).to_contain_text("evaluation_result")
    expect(opened).to_contain_text(str(accuracy(3, EPOCHS)))
    expect(opened).to_contain_text('"experiment_id": 3')


# --- filter ---


def of(test: Callable[[int], bool]) -> set[int]:
    return {experiment for experiment in ALL if test(experiment)}


def best_accuracy(experiment: int) -> float:
    last = {9: 2, 10: 3, 11: -1}.get(experiment, EPOCHS)
    return max((accuracy(experiment, epoch) for epoch in range(last + 1)), default=-math.inf)


FILTERS: list[tuple[str, str, set[int]]] = [
    ("lr", "< 0.01", of(lambda one: LRS[one // 4] < 0.01)),
    ("lr", "<= 1e-2", of(lambda one: LRS[one // 4] <= 0.01)),
    ("lr", "0.005..0.5", of(lambda one: LRS[one // 4] >= 0.01)),
    ("lr", "= .1", of(lambda one: LRS[one // 4] == 0.1)),
    ("lr", "!= 0.1", of(lambda one: LRS[one // 4] != 0.1)),
    ("optimizer_key", "ada", of(lambda one: OPTIMIZERS[one // 2 % 2] == "adam")),
    ("optimizer_key", "= ada", set()),
    ("status", "failed|running", {9, 10}),
    ("best val/accuracy", "> 0.9", of(lambda one: best_accuracy(one) > 0.9)),
    ("best val/accuracy", "=", {11}),
    ("error", "not finite", {9}),
]  # fmt: skip


def test_filter_on_a_header(page: Page) -> None:
    for title, expression, expected in FILTERS:
        box = filter_box(page, title)
        box.get_by_role("textbox").fill(expression)
        if expected:
            shows(page, expected)
            if expected != ALL:
                assert {int(line["experiment"]) for line in table_csv(page)} == expected
            filter_box(page, title).get_by_role("button", name="clear").click()
            page.keyboard.press("Escape")
        else:
            expect(page.get_by_role("heading", name="No experiment passes the filter")).to_be_visible()
            page.keyboard.press("Escape")
            page.get_by_role("button", name="clear the filters").click()
        shows(page, ALL)


def test_filter_by_choices(page: Page) -> None:
    box = filter_box(page, "optimizer_key")
    box.get_by_role("checkbox", name="adam").check()
    shows(page, of(lambda one: one // 2 % 2 == 0))
    box.get_by_role("checkbox", name="sgd").check()
    shows(page, ALL)
    box.get_by_role("checkbox", name="adam").uncheck()
    shows(page, of(lambda one: one // 2 % 2 == 1))
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    filter_box(page, "lr").get_by_role("textbox").fill("> 0.01")
    shows(page, of(lambda one: one // 2 % 2 == 1 and one >= 8))
    box = filter_box(page, "optimizer_key")
    box.get_by_role("button", name="clear").click()
    shows(page, of(lambda one: one >= 8))
    expect(box.get_by_role("textbox")).to_be_focused()
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)


WORDS: list[tuple[str, set[int]]] = [
    ("adam", of(lambda one: one // 2 % 2 == 0)),
    ("SGD 0.001", of(lambda one: one // 2 % 2 == 1 and one < 4)),
    ("lr<0.01 adam", of(lambda one: one // 2 % 2 == 0 and one < 4)),
    ("status=failed", {9}),
    ("not finite", {9}),
    ("nobody", set()),
]


def test_filter_by_free_text(page: Page) -> None:
    field = page.get_by_role("searchbox", name="filter experiments")
    for text, expected in WORDS:
        field.fill(text)
        if expected:
            shows(page, expected)
            said = page.get_by_role("region", name="experiments").get_by_role("status").first
            expect(said).to_contain_text(f"{len(expected)} of 12")
        else:
            expect(page.get_by_role("heading", name="No experiment passes the filter")).to_be_visible()


def test_counts_of_statuses_filter(page: Page) -> None:
    page.get_by_role("button", name="failed 1", exact=True).click()
    shows(page, {9})
    page.get_by_role("button", name="done 9", exact=True).click()
    shows(page, set(range(10)))
    page.get_by_role("button", name="failed 1", exact=True).click()
    shows(page, set(range(9)))


# --- order ---


ORDERS: list[tuple[str, Callable[[int], Any], bool | None]] = [
    ("best val/accuracy", best_accuracy, False),
    ("val/cross_entropy_loss", lambda one: loss(one, {9: 2, 10: 3}.get(one, EPOCHS)), True),
    ("lr", lambda one: LRS[one // 4], None),
    ("optimizer_key", lambda one: OPTIMIZERS[one // 2 % 2], None),
]
"""title of a column, what it is sorted by, and whether less is better"""


def test_order_both_ways(page: Page) -> None:
    """What has no value comes last, either way; equal ones stay in the order of their numbers."""
    for title, key, better_is_less in ORDERS:
        missing = [11] if "val/" in title else []
        there = sorted(ALL - set(missing))
        rising = sorted(there, key=key) + missing
        falling = sorted(there, key=key, reverse=True) + missing
        sort = header(page, title).get_by_role("button").first
        sort.click()
        shows(page, falling if better_is_less is False else rising)
        expect(header(page, title)).to_have_attribute(
            "aria-sort", "descending" if better_is_less is False else "ascending"
        )
        sort.click()
        shows(page, rising if better_is_less is False else falling)
        sort.click()
        shows(page, sorted(ALL))
        assert "sort" not in query_of(page)


# --- selection and comparison ---


def test_select_by_click_keys_and_filter(page: Page) -> None:
    def cell(experiment: int) -> Locator:
        return row(page, experiment).get_by_role("gridcell").nth(1)

    cell(2).click()
    until(page, lambda: selected(page) == {2}, "one row")
    cell(5).click(modifiers=["Shift"])
    until(page, lambda: selected(page) == {2, 3, 4, 5}, "a range")
    cell(3).click(modifiers=["Control"])
    until(page, lambda: selected(page) == {2, 4, 5}, "all but one")
    page.get_by_role("checkbox", name="select experiment 9", exact=True).click()
    until(page, lambda: selected(page) == {2, 4, 5, 9}, "a box")
    cell(0).click()
    until(page, lambda: selected(page) == {0}, "that one only")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("x")
    until(page, lambda: selected(page) == {0, 1, 3}, "by keys")
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("x")
    until(page, lambda: selected(page) == {0, 3}, "by keys, back")
    page.get_by_role("searchbox", name="filter experiments").fill("sgd")
    shows(page, of(lambda one: one // 2 % 2 == 1))
    page.get_by_role("checkbox", name="select all that are shown").click()
    page.get_by_role("searchbox", name="filter experiments").fill("")
    shows(page, ALL)
    expected = {0, *of(lambda one: one // 2 % 2 == 1)}
    until(page, lambda: selected(page) == expected, "all that were shown")
    assert query_of(page)["sel"] == "0,2-3,6-7,10-11"
    page.get_by_role("grid", name="experiments").focus()
    page.keyboard.press("Escape")
    until(page, lambda: not selected(page), "none")


def test_compare_two_to_eight(board: Board, page: Page) -> None:
    compare = page.get_by_role("button", name="compare", exact=True)
    expect(compare).to_be_disabled()
    row(page, 1).get_by_role("gridcell").nth(1).click()
    until(page, lambda: selected(page) == {1}, "one row")
    expect(compare).to_be_disabled()
    row(page, 8).get_by_role("gridcell").nth(1).click(modifiers=["Control"])
    expect(compare).to_be_enabled()
    compare.click()
    settled(page)
    differences = page.get_by_role("region", name="score differences")
    for experiment in (1, 8):
        expect(differences).to_contain_text(f"{accuracy(experiment, EPOCHS):.4f}")
    more = accuracy(8, EPOCHS) - accuracy(1, EPOCHS)
    expect(differences).to_contain_text(f"{abs(more):.4f} {'better' if more > 0 else 'worse'}")
    expect(page.get_by_role("list", name="compared experiments").get_by_role("listitem")).to_have_count(2)
    _, content = downloaded(page, page.get_by_role("region", name="scores").get_by_role("button", name="CSV").click)
    lines = {(line["score"], line["of"]): line for line in parse_csv(content)}
    for experiment in (1, 8):
        for key, value in scores(experiment, EPOCHS).items():
            assert float(lines[key, "last"][f"experiment {experiment}"]) == value
    page.goto(f"{board.url}/{address(GS, 'compare', sel='0-7')}")
    expect(page.get_by_role("list", name="compared experiments").get_by_role("listitem")).to_have_count(8)
    page.goto(f"{board.url}/{address(GS, 'compare', sel='0-8')}")
    expect(page.get_by_role("heading", name="9 experiments are too many to compare")).to_be_visible()
    page.get_by_role("button", name="take the first 8").click()
    expect(page.get_by_role("list", name="compared experiments").get_by_role("listitem")).to_have_count(8)
    page.goto(f"{board.url}/{address(GS, 'compare', sel='3')}")
    expect(page.get_by_role("heading", name="Choose what to compare")).to_be_visible()


# --- columns ---


def titles(page: Page) -> list[str]:
    return [title for title in rows(page)[0] if title]


def test_columns_are_chosen(board: Board, pages: Pages) -> None:
    page = pages.open(board, address(GS, lay="table"), width=1600)
    shows(page, ALL)
    usual = titles(page)
    assert {"#", "status", "lr", "optimizer_key", "seed", "epochs", "best val/accuracy", "error"} <= set(usual)
    page.get_by_text("columns", exact=True).click()
    page.get_by_role("checkbox", name="device").check()
    page.get_by_role("checkbox", name="seed").uncheck()
    until(page, lambda: "device" in titles(page) and "seed" not in titles(page), "other columns")
    page.get_by_role("button", name="all of last epoch").click()
    until(page, lambda: set(scores(0, 0)) <= set(titles(page)), "all last scores")
    page.get_by_role("button", name="the usual ones").click()
    until(page, lambda: titles(page) == usual, "the usual columns")


def test_only_columns_that_differ(page: Page) -> None:
    page.get_by_text("columns", exact=True).click()
    page.get_by_role("checkbox", name="only columns that differ").check()
    page.keyboard.press("Escape")
    until(page, lambda: "lr" in titles(page), "the table")
    page.get_by_role("searchbox", name="filter experiments").fill("adam lr=0.1")
    until(page, lambda: titles(page)[:3] == ["#", "status", "seed"], "what differs of 8 and 9")
    assert "optimizer_key" not in titles(page)
    shows(page, {8, 9})


# --- the address ---


def test_the_address_says_it_all(board: Board, pages: Pages, page: Page) -> None:
    """Another browser that is sent there shows the same."""
    filter_box(page, "lr").get_by_role("textbox").fill("<= 0.01")
    page.keyboard.press("Escape")
    page.get_by_role("searchbox", name="filter experiments").fill("adam")
    header(page, "best val/accuracy").get_by_role("button").first.click()
    expected = sorted([0, 1, 4, 5], key=best_accuracy, reverse=True)
    shows(page, expected)
    row(page, 4).get_by_role("gridcell").nth(1).click()
    page.get_by_role("group", name="layout").get_by_role("button", name="beside").click()
    card = chart(page, "val/accuracy")  # its keys are about the points that are drawn
    smoothing = page.get_by_role("slider", name="smooth")
    smoothing.focus()
    for _ in range(5):
        page.keyboard.press("PageUp")
    plot = card.get_by_role("img", name="line chart of val/accuracy")
    plot.focus()
    page.keyboard.press("+")
    expect(card.get_by_role("button", name="reset zoom: val/accuracy")).to_be_visible()
    card.get_by_role("button", name="pin: val/accuracy").click()
    page.get_by_role("checkbox", name="log", exact=True).check()
    page.get_by_role("button", name="step", exact=True).click()
    plot.focus()
    page.keyboard.press("+")
    card.get_by_role("button", name="table: val/accuracy").click()
    expect(card.get_by_role("region", name="val/accuracy as a table")).to_be_visible()
    query = query_of(page)
    assert query["sel"] == "4"
    assert float(query["smooth"]) > 0
    look = "main => main.innerText"

    other = pages.open(board, page.url.partition("/#")[2].join(["#", ""]), width=1600)
    shows(other, expected)
    until(other, lambda: selected(other) == {4}, "the same selection")
    expect(
        other.get_by_role("article", name="val/accuracy", exact=True).get_by_role(
            "region", name="val/accuracy as a table"
        )
    ).to_be_visible()
    expect(other.get_by_role("slider", name="smooth")).to_have_value(query["smooth"])
    expect(other.get_by_role("checkbox", name="log", exact=True)).to_be_checked()
    expect(other.get_by_role("button", name="step", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(other.get_by_role("button", name="reset zoom: val/accuracy")).to_be_visible()
    until(other, lambda: other.locator("main").evaluate(look) == page.locator("main").evaluate(look), "the same text")
    assert query_of(other) == query


def test_what_is_no_address_shows_something(board: Board, pages: Pages) -> None:
    page = pages.open(
        board,
        f"#/{GS}/analysis?sort=nothing&f.nothing=1&cols=nothing&sel=a,-,9-3,99999&smooth=x&z.val/accuracy=7~3&x=y&hide=%25",
    )
    shows(page, ALL)
    page.goto(f"{board.url}/#/{GS}/nothing?a=b#c")
    shows(page, ALL)
    for hash_ in ("#/../..", "#/%00/analysis", "#//", "#?at=1", "#/<img src=x>/analysis"):
        page.goto(f"{board.url}/{hash_}")
        expect(page.get_by_role("heading", name="Grid searches")).to_be_visible()

"""Series of more points than pixels, and of several seeds: what is drawn, what is to be had of it, and that no spike is lost."""

from __future__ import annotations

import json
import math
import re
import statistics
from array import array
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from playwright.sync_api import Locator, Page, expect

from ml_board.series import thin
from mlgym.record.events import seal
from tests.ml_board.boards import Board
from tests.ml_board.browser import Pages, address, chart, chart_csv, deliver, downloaded, picture, query_of, rows, until
from tests.ml_board.page.logs import START, Script

GS = "long"
KEY = "val/accuracy"
POINTS = 200_000
SPIKE = 123_457
OTHER = 61_000
"""Where there is a value like no other, and one below all."""
DRAWN = 1000
"""Of a series, unless it is zoomed into."""


def value(epoch: int) -> float:
    if epoch == SPIKE:
        return 17.5
    return -9.25 if epoch == OTHER else 0.5 + 0.25 * math.sin(epoch / 9000) + epoch * 7919 % 1000 / 1e5


def long_log(grid_search_id: str, count: int) -> Iterator[bytes]:
    """Numbered lines, as a hub writes them."""
    script = Script(grid_search_id)
    script.grid(num_experiments=1)
    script.config(1, {"lr": 0.1}, count)
    script.job(1, "RUNNING")
    head = script.drain().splitlines()
    for seq, line in enumerate(head, 1):
        yield seal(b'{"seq":%d,%b' % (seq, line[1 : line.rindex(b',"crc"')]))
    for epoch in range(count):
        yield seal(
            b'{"seq":%d,"event_type":"evaluation_result","creation_ts":%d,"source":"script","n":%d,"attempt":1,"payload":'
            b'{"grid_search_id":"%b","experiment_id":1,"epoch":%d,"metric_scores":[{"metric":"accuracy","split":"val","score":%b}]}'
            % (
                len(head) + 1 + epoch,
                START + 10 * epoch,
                len(head) + 1 + epoch,
                grid_search_id.encode(),
                epoch,
                repr(value(epoch)).encode(),
            )
        )


HEAD = 3
"""Events before the first score."""


@pytest.fixture(scope="module", autouse=True)
def _long(board: Board) -> None:
    board.log(GS).parent.mkdir(parents=True)
    with board.log(GS).open("wb") as log:
        log.writelines(long_log(GS, POINTS))


def expected(count: int) -> list[tuple[int, int, float]]:
    """The points of the first `count` epochs that a chart has before it is zoomed into."""
    values = array("d", (value(epoch) for epoch in range(count)))
    return [(1, at, values[at]) for at in thin(values, DRAWN)]


def told(card: Locator) -> Locator:
    """What a chart says about its points."""
    return card.locator(".told")


def card_of(page: Page) -> Locator:
    """The chart, whatever takes its place."""
    return page.get_by_role("article", name=KEY, exact=True)


def in_table(card: Locator) -> dict[int, str]:
    """epoch -> value, as the table that takes the place of a chart has them."""
    found: list[list[str]] = card.locator("tbody tr").evaluate_all(
        "all => all.map(row => [...row.children].map(cell => cell.innerText.trim()))"
    )
    return {int(line[0]): line[1] for line in found}


# --- of one experiment ---


def test_some_of_many_points(board: Board, pages: Pages) -> None:
    """It says how many there are; what is far off the others is among those that are shown, in every form."""
    page = pages.open(board, address(GS, lay="charts"))
    card = chart(page, KEY)
    points = expected(POINTS)
    assert len(points) <= DRAWN
    assert {(1, SPIKE, 17.5), (1, OTHER, -9.25), (1, 0, value(0)), (1, POINTS - 1, value(POINTS - 1))} <= set(points)
    expect(told(card)).to_have_text(f"{len(points):,} of 200,000 points")
    assert chart_csv(page, KEY) == points
    spikes_drawn(page, card)
    card.get_by_role("button", name=f"table: {KEY}").click()
    until(page, lambda: len(in_table(card)) == len(points), "the table")
    found = in_table(card)
    assert found[SPIKE] == "17.500"
    assert found[OTHER] == "-9.2500"
    assert list(found) == [epoch for _, epoch, _ in points]


INK = "#c14a00"
"""Of experiment 1 in the light."""

INSIDE = """one => {
    const host = one.closest(".plot").getBoundingClientRect(), at = one.getBoundingClientRect();
    return [at.left - host.left, at.top - host.top, at.width, at.height];
}"""


def spikes_drawn(page: Page, card: Locator) -> None:
    """In the picture of the chart the line goes up and down just where they are."""
    _, content = downloaded(page, card.get_by_role("button", name=f"PNG: {KEY}").click)
    seen = picture(page, content, INK, off=120)
    left, top, width, height = card.locator(".u-over").evaluate(INSIDE)
    left, top = left + 12, top + 30  # of the plot in the picture
    # The axis goes from -9.25 to 17.5, with some room: what is in the upper or lower quarter is a spike.
    upper = {x for x, y in seen.places if top + 2 < y < top + height / 4}
    lower = {x for x, y in seen.places if top + height * 3 / 4 < y < top + height - 2}
    for xs, epoch in ((upper, SPIKE), (lower, OTHER)):
        at = left + width * epoch / (POINTS - 1)
        assert xs, "the spike is not drawn"
        assert all(abs(x - at) <= 3 for x in xs), (xs, at)


def test_zoom_brings_every_point(board: Board, pages: Pages) -> None:
    """By pointer, by key and by address; the file has them as well; and back again."""
    page = pages.open(board, address(GS, lay="charts", big=KEY))
    card = chart(page, KEY)
    some = len(expected(POINTS))
    expect(told(card)).to_have_text(f"{some:,} of 200,000 points")
    over = card.locator(".u-over")
    box = over.bounding_box()
    assert box is not None
    at = box["x"] + box["width"] * SPIKE / (POINTS - 1)
    page.mouse.move(at - 20, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(at, box["y"] + 80, steps=4)
    page.mouse.move(at + 20, box["y"] + 60, steps=4)
    page.mouse.up()
    page.mouse.move(0, 0)  # what it points at would be the middle of the next zoom
    until(page, lambda: f"z.{KEY}" in query_of(page), "the zoom")
    first, last = zoomed(page)
    assert first < SPIKE < last
    assert last - first < POINTS / 10
    # Further in by key, around the middle, until every point has its own.
    plot = card.get_by_role("img", name="line chart of")
    while last - first > 1500:
        plot.focus()
        page.keyboard.press("+")
        first, last = until(page, partial(other_zoom, page, (first, last)), "the next zoom")
    expect(told(card)).to_have_text("")
    every(page, card, math.ceil(first), math.floor(last))
    card.get_by_role("button", name=f"reset zoom: {KEY}").click()
    expect(told(card)).to_have_text(f"{some:,} of 200,000 points")
    assert chart_csv(page, KEY) == expected(POINTS)
    # By address, in a page of its own.
    other = pages.open(board, address(GS, lay="charts", **{f"z.{KEY}": f"{SPIKE - 300}~{SPIKE + 300}"}))
    card = chart(other, KEY)
    expect(told(card)).to_have_text("")
    every(other, card, SPIKE - 300, SPIKE + 300)
    card.locator(".u-over").dblclick()
    expect(told(card)).to_have_text(f"{some:,} of 200,000 points")
    assert f"z.{KEY}" not in query_of(other)


def zoomed(page: Page) -> tuple[float, float]:
    first, _, last = query_of(page)[f"z.{KEY}"].partition("~")
    return float(first), float(last)


def other_zoom(page: Page, before: tuple[float, float]) -> tuple[float, float] | None:
    return None if zoomed(page) == before else zoomed(page)


def every(page: Page, card: Locator, first: int, last: int) -> None:
    """Each epoch from `first` to `last` is in the chart's table and in its file, and the spike where it belongs."""
    table = card.get_by_role("button", name=f"table: {KEY}")
    table.click()

    def there() -> dict[int, str] | None:
        found = in_table(card)
        # And one to each side; of the zoom before there are more.
        return found if set(range(first, last + 1)) <= set(found) and len(found) <= last - first + 3 else None

    found = until(page, there, "every epoch, and no other")
    assert all(math.isclose(float(found[epoch]), value(epoch), abs_tol=1e-4) for epoch in range(first, last + 1))
    assert [epoch for epoch, text in found.items() if text == "17.500"] == [SPIKE]
    exact = [point for point in chart_csv(page, KEY) if first <= point[1] <= last]
    assert exact == [(1, epoch, value(epoch)) for epoch in range(first, last + 1)]
    table.click()
    expect(card.get_by_role("table")).to_have_count(0)


def test_a_wide_zoom_says_that_it_is_not_all(board: Board, pages: Pages) -> None:
    """More points than a line has, though many more than before."""
    page = pages.open(board, address(GS, lay="charts", **{f"z.{KEY}": "100000~150000"}))
    card = chart(page, KEY)
    expect(told(card)).to_have_text(re.compile(r"^[12],\d{3} of 50,0\d\d points$"))
    points = [point for point in chart_csv(page, KEY) if 100_000 <= point[1] <= 150_000]
    assert 5_000 < len(points) <= 10_000
    assert (1, SPIKE, 17.5) in points


def test_no_later_point_in_replay(board: Board, pages: Pages) -> None:
    count = SPIKE  # the spike is the next one
    page = pages.open(board, address(GS, lay="charts", at=HEAD + count))
    card = chart(page, KEY)
    points = expected(count)
    expect(told(card)).to_have_text(f"{len(points):,} of {count:,} points")
    assert chart_csv(page, KEY) == points
    page.goto(
        f"{board.url}/{address(GS, lay='charts', at=HEAD + count, tab=KEY, **{f'z.{KEY}': f'{SPIKE - 200}~{SPIKE + 200}'})}"
    )
    until(page, lambda: set(range(SPIKE - 200, SPIKE)) <= set(in_table(card)), "every epoch until then")
    assert max(in_table(card)) == SPIKE - 1
    page.get_by_role("button", name="one event on").click()
    until(page, lambda: in_table(card).get(SPIKE) == "17.500", "the spike")
    assert max(in_table(card)) == SPIKE
    page.get_by_role("button", name="one event back").click()
    until(page, lambda: max(in_table(card), default=0) == SPIKE - 1, "no spike")


def test_points_that_come_are_added(board: Board, gs: str, pages: Pages) -> None:
    """To those that are some of many, and to those that are zoomed into."""
    count = 5000
    board.log(gs).parent.mkdir(parents=True)
    with board.log(gs).open("wb") as log:
        log.writelines(long_log(gs, count))
    page = pages.open(board, address(gs, lay="charts"))
    near = pages.open(board, address(gs, lay="charts", tab=KEY, **{f"z.{KEY}": f"{count - 100}~{count + 100}"}))
    points = expected(count)
    expect(told(chart(page, KEY))).to_have_text(f"{len(points):,} of {count:,} points")
    until(near, lambda: len(in_table(card_of(near))) >= 100, "the last epochs")
    script = Script(gs, source="later")
    for epoch in range(count, count + 25):
        script.scores(1, epoch, {KEY: 10 + (epoch - count) / 4})
        deliver(board, script.drain(), gs)
    new = [(1, epoch, 10 + (epoch - count) / 4) for epoch in range(count, count + 25)]
    expect(told(chart(page, KEY))).to_have_text(f"{len(points) + 25:,} of {count + 25:,} points")
    assert chart_csv(page, KEY) == [*points, *new]
    until(near, lambda: max(in_table(card_of(near)), default=0) == count + 24, "the newest epoch")
    found = in_table(card_of(near))
    assert [found[epoch] for _, epoch, _ in new] == [f"{there:.3f}" for *_, there in new]
    assert set(range(count - 100, count)) <= set(found)


# --- of several seeds ---

SEEDS = 4
EPOCHS = 6


def fold_value(lr: float, seed: int, epoch: int) -> float:
    return 1.25 + math.sin(seed * 3 + epoch) * lr + seed / 3


@pytest.fixture(scope="module")
def _seeds(board: Board) -> Iterator[str]:
    """Two configurations of four seeds; the last seed of the second has ended early."""
    script = Script("seeds")
    script.grid(num_experiments=2 * SEEDS)
    for one in range(2 * SEEDS):
        script.config(one, {"optimizer.lr": LRS[one // SEEDS], "model.seed": one % SEEDS}, EPOCHS)
        script.job(one, "RUNNING")
        for epoch in range(EPOCHS if one < 2 * SEEDS - 1 else 3):
            script.scores(one, epoch, {KEY: fold_value(LRS[one // SEEDS], one % SEEDS, epoch)})
    script.write(board.storage)
    yield "seeds"


LRS = (0.5, 2.0)


def members(lr: float, epoch: int) -> list[float]:
    return [
        fold_value(lr, seed, epoch) for seed in range(SEEDS) if not (lr == LRS[1] and seed == SEEDS - 1 and epoch >= 3)
    ]


def test_seeds_are_a_mean_with_a_band(board: Board, pages: Pages, _seeds: str) -> None:
    """Without being asked for, because they differ in nothing else; the band is the extremes, or the deviation."""
    page = pages.open(board, address(_seeds, lay="charts", tab=KEY))
    titles = ["lr 0.5, mean of 4", "lr 2, mean of 4"]
    until(page, lambda: len(rows(page, f"{KEY} as a table")) == EPOCHS, "the table")
    assert list(rows(page, f"{KEY} as a table")[0]) == ["epoch", *titles]
    banded(page, titles, lambda values: (min(values), max(values)))
    page.goto(f"{board.url}/{address(_seeds, lay='charts', tab=KEY, band='sd')}")
    banded(
        page,
        titles,
        lambda values: (
            statistics.mean(values) - statistics.stdev(values),
            statistics.mean(values) + statistics.stdev(values),
        ),
    )
    # The file has what the mean is made of.
    card_of(page).get_by_role("button", name=f"table: {KEY}").click()
    assert chart_csv(page, KEY) == [
        (one, epoch, fold_value(LRS[one // SEEDS], one % SEEDS, epoch))
        for one in range(2 * SEEDS)
        for epoch in range(EPOCHS if one < 2 * SEEDS - 1 else 3)
    ]


def banded(page: Page, titles: list[str], around: Callable[[list[float]], tuple[float, float]]) -> None:
    """Mean and band of both lines, epoch for epoch."""

    def right() -> bool:
        for row in rows(page, f"{KEY} as a table"):
            for lr, title in zip(LRS, titles, strict=True):
                values = members(lr, int(row["epoch"]))
                found = [float(text) for text in re.findall(r"-?\d+\.\d+", row[title])]
                wanted = [statistics.mean(values), *around(values)]
                if not all(math.isclose(one, two, abs_tol=6e-5) for one, two in zip(found, wanted, strict=True)):
                    return False
        return bool(rows(page, f"{KEY} as a table"))

    until(page, right, "mean and band")


def test_each_singly_on_demand(board: Board, pages: Pages, _seeds: str) -> None:
    page = pages.open(board, address(_seeds, lay="charts", tab=KEY))
    table = f"{KEY} as a table"
    until(page, lambda: len(rows(page, table)) == EPOCHS, "the table")
    page.get_by_text("mean over seed", exact=True).click()
    page.get_by_role("checkbox", name="each one singly, too").check()
    until(page, lambda: len(rows(page, table)[0]) == 1 + 2 + 2 * SEEDS, "all lines")
    page.get_by_role("checkbox", name="seed", exact=True).uncheck()
    until(page, lambda: len(rows(page, table)[0]) == 1 + 2 * SEEDS, "no mean")
    assert "mean" not in json.dumps(rows(page, table)[0])
    page.get_by_role("checkbox", name="lr", exact=True).check()
    page.get_by_role("checkbox", name="each one singly, too").uncheck()
    until(
        page,
        lambda: list(rows(page, table)[0]) == ["epoch", *(f"seed {seed}, mean of 2" for seed in range(SEEDS))],
        "means over the other one",
    )
    row = rows(page, table)[1]
    assert math.isclose(
        float(row["seed 1, mean of 2"].split()[0]), statistics.mean(fold_value(lr, 1, 1) for lr in LRS), abs_tol=6e-5
    )

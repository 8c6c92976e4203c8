"""The components of an experiment as a picture and as a table, by mouse and by keys, and what `mlgym graph` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from mlgym.plan.config import read
from mlgym.record.pipeline import Sweep, pipeline
from mlgym.record.pipeline_text import svg
from tests.conftest import DIGITS
from tests.ml_board.boards import Board
from tests.ml_board.browser import Pages, address, query_of
from tests.ml_board.page.logs import HOSTILE_NAME, components

GS = "components"

OUTSIDE = """() => [...document.querySelectorAll("rect.box, rect[stroke]")].flatMap(box => {
    const room = box.getBoundingClientRect();
    return [...(box.closest(".node") ?? box.parentNode).querySelectorAll("text")].filter(text => {
        const {left, right, top, bottom} = text.getBoundingClientRect();
        return left < room.left || right > room.right || top < room.top || bottom > room.bottom;
    }).map(text => text.textContent);
})"""
"""What is written beyond its box."""


@pytest.fixture(scope="module", autouse=True)
def _log(board: Board) -> None:
    components(GS).write(board.storage)


def opened(board: Board, pages: Pages, experiment: int, **query: str | int) -> Page:
    page = pages.open(board, address(GS, "experiment", exp=experiment, flip="pipeline", **query))
    expect(page.get_by_role("region", name="components, scrolls")).to_be_visible()
    return page


def chosen(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=f"component {name}", exact=True)


def test_a_component_is_looked_at(board: Board, pages: Pages) -> None:
    page = opened(board, pages, 1)
    picture = page.get_by_role("group", name="components")
    expect(picture.get_by_role("button")).to_have_count(15)
    assert page.evaluate(OUTSIDE) == []
    expect(picture.get_by_text("train, val, test", exact=True)).to_be_visible()
    picture.get_by_role("button", name="optimizer, OPTIMIZER, DEFAULT").click()
    expect(chosen(page, "optimizer")).to_contain_text("lrswept: 0.001")
    assert query_of(page)["node"] == "optimizer"
    picture.get_by_role("button", name="data_loaders").click()
    expect(chosen(page, "data_loaders")).to_contain_text("splitted_dataset_iterators as iterators; data_collator")
    expect(chosen(page, "data_loaders")).to_contain_text("trainer; eval_component")
    expect(picture.locator(".edge.on")).to_have_count(4)
    chosen(page, "data_loaders").get_by_role("button", name="close").click()
    expect(chosen(page, "data_loaders")).to_have_count(0)


def test_by_keys_in_the_order_of_the_arrows(board: Board, pages: Pages) -> None:
    page = opened(board, pages, 0)
    page.get_by_role("region", name="components, scrolls").focus()
    seen = []
    for _ in range(15):
        page.keyboard.press("Tab")
        seen.append(str(page.evaluate("document.activeElement.getAttribute('aria-label')")).partition(",")[0])
    order = {name: i for i, name in enumerate(seen)}
    config = read(DIGITS / "gs_config.yml").value
    edges = pipeline(config).edges
    assert set(seen) == set(config) - {"global_config", "model_info"}
    assert all(order[edge.source] < order[edge.target] for edge in edges)
    last = seen[-1]
    page.keyboard.press("Enter")
    expect(chosen(page, last)).to_be_visible()
    page.keyboard.press("Space")
    expect(chosen(page, last)).to_have_count(0)


def test_as_a_table_of_what_may_be_hostile(board: Board, pages: Pages) -> None:
    page = opened(board, pages, 2)
    names = page.get_by_role("group", name="components").get_by_role("button")
    labels = [str(names.nth(i).get_attribute("aria-label")) for i in range(names.count())]
    assert f"{HOSTILE_NAME} (not used), <b>, </svg><script>" in labels
    assert "data_collator (missing)" in labels
    assert page.evaluate(OUTSIDE) == []
    page.get_by_role("button", name="as a table").click()
    table = page.get_by_role("region", name="components, scrolls").get_by_role("table")
    expect(table.get_by_role("row")).to_have_count(len(labels) + 1)
    row = table.get_by_role("row").filter(has=page.get_by_role("button", name="eval_component", exact=True))
    expect(row).to_contain_text("data_loaders (train, val, test)")
    table.get_by_role("button", name=HOSTILE_NAME).click()
    expect(chosen(page, HOSTILE_NAME)).to_contain_text("<i>: 1.0")
    page.reload()
    expect(chosen(page, HOSTILE_NAME)).to_be_visible()


@pytest.mark.parametrize("inline", [False, True])
def test_the_file_holds_its_text(browser: Browser, tmp_path: Path, inline: bool) -> None:
    """Texts stay in their boxes, in whatever font there is; nothing is asked of anybody."""
    found = pipeline(read(DIGITS / "gs_config.yml").value, {"optimizer.config.params.lr": Sweep(4)})
    drawn = svg(found, inline=inline)
    path = tmp_path / ("page.html" if inline else "graph.svg")
    path.write_text(f"<!doctype html><title>card</title>{drawn}" if inline else drawn, encoding="utf-8")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.evaluate("document.querySelectorAll('text').length") > 40
    assert page.evaluate(OUTSIDE) == []
    assert [url for url in asked if "favicon" not in url] == [path.as_uri()]
    page.close()

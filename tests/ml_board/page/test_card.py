"""The model card in a browser: on the page, and as the file that is handed to others, also when its texts are hostile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from mlgym.record.card import card
from mlgym.record.card_html import as_html
from mlgym.record.card_markdown import as_markdown
from mlgym.record.card_schema import ModelCard, as_json
from mlgym.record.card_sources import sources
from mlgym.record.log import Log
from tests.ml_board.boards import Board
from tests.ml_board.browser import Pages, address, downloaded
from tests.ml_board.page.test_accessible import ALL, AXE, RUN
from tests.ml_board.page.test_hostile import TEXTS
from tests.record.cards import HOST, INFO, announced, told

GS = "cards"
MARKUP = [text for text in TEXTS if "<" in text or "javascript" in text]


@pytest.fixture(scope="module", autouse=True)
def _log(board: Board) -> None:
    told(announced(GS)).write(board.storage)


def made(storage: Path, gs: str = GS) -> ModelCard:
    log = Log.load(storage / gs / "event_storage.log")
    return card(sources(log, log.state, 0))


@pytest.fixture
def reader(browser: Browser) -> Iterator[Page]:
    """A page without a board, which may neither ask for anything nor complain."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda asked: None if asked.url.startswith("file:") else wrong.append(asked.url))
    yield page
    context.close()
    assert not wrong, wrong


def test_the_page_shows_it_and_hands_it_out(board: Board, pages: Pages) -> None:
    page = pages.open(board, address(GS, "experiment", exp=0, flip="card,charts"))
    shown = page.locator(".model-card")
    expect(shown.get_by_role("heading", name="Net")).to_be_visible()
    for words in ("Reads digits.", "first", "zero", "swept", "val, best epoch (2)", "0.25 kWh, stated"):
        expect(shown.get_by_text(words).first).to_be_visible()
    expect(
        shown.get_by_role("region", name="confusion matrix of val, best epoch (2)").get_by_role("row")
    ).to_have_count(4)
    page.evaluate(AXE.read_text())
    assert page.evaluate(RUN, ALL) == []
    wanted = made(board.storage)
    name, content = downloaded(page, shown.get_by_role("link", name="JSON").click)
    assert (name, json.loads(content)) == (f"model-card-{GS}-0.json", json.loads(as_json(wanted)))
    name, content = downloaded(page, shown.get_by_role("link", name="HTML").click)
    assert (name, content.decode()) == (f"model-card-{GS}-0.html", as_html(wanted))
    name, content = downloaded(page, shown.get_by_role("link", name="Markdown").click)
    assert (name, content.decode()) == (f"model-card-{GS}-0.md", as_markdown(wanted))


def test_the_page_shows_the_card_of_the_moment(board: Board, pages: Pages) -> None:
    early = pages.open(board, address(GS, "experiment", exp=0, flip="card,charts", at=5))
    expect(early.get_by_text("As of event 5.")).to_be_visible()
    expect(early.get_by_text("What the data consist of is not recorded (yet).")).to_be_visible()


def test_the_file_opens_from_disk_and_is_accessible(board: Board, reader: Page, tmp_path: Path) -> None:
    file = tmp_path / "card.html"
    file.write_text(as_html(made(board.storage)))
    for theme in ("light", "dark"):
        reader.emulate_media(color_scheme=theme)
        reader.goto(file.as_uri())
        expect(reader.get_by_role("heading", name="Net", level=1)).to_be_visible()
        expect(reader.get_by_role("img", name="Confusion matrix of val at epoch 2", exact=False)).to_be_visible()
        reader.evaluate(AXE.read_text())  # the debugger's, which the page's own policy does not bind
        assert reader.evaluate(RUN, ALL) == []
    reader.set_viewport_size({"width": 360, "height": 800})
    assert reader.evaluate("document.documentElement.scrollWidth <= 360")
    printed = reader.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/MediaBox [0 0 595") or printed.count(b"/MediaBox [0 0 594")  # A4


LEFT = """() => {
    const bad = [...document.querySelectorAll("script, img, iframe, object, embed, x-foreign, [onload], [onerror], [srcdoc]")];
    for (const one of document.querySelectorAll("[href]"))
        if (!one.getAttribute("href").startsWith("#")) bad.push(one);
    if (document.querySelectorAll("style").length !== 1) bad.push(document.body);
    if (window.pwned !== undefined) bad.push(document.body);
    return bad.map(one => one.outerHTML.slice(0, 300));
}"""


def _everywhere(value: Any, text: str) -> Any:
    """`text` in the place of all texts, and in all keys that nobody knows."""
    if isinstance(value, dict):
        return {**{key: _everywhere(inner, text) for key, inner in value.items()}, text: text}
    if isinstance(value, list):
        return [text, *(_everywhere(inner, text) for inner in value)]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("number", range(len(MARKUP)))
def test_texts_are_texts_in_the_file(reader: Page, tmp_path: Path, number: int) -> None:
    text = MARKUP[number]
    gs = "hostile"
    script = told(announced(gs, _everywhere(INFO, text), _everywhere(HOST, text)), text)
    config = {
        text: {"component_type_key": text, "variant_key": text, "config": {text: text}},
        "model": {
            "requirements": [{"name": text, "component_name": text, "subscription": [text]}],
            "config": {text: [text]},
        },
    }
    script.config(0, {f"model.config.{text}": text}, 3, config)
    script.job(0, "RUNNING", attempt=2, device=text, host="node-1", reason=text)
    script.write(tmp_path)
    found = made(tmp_path, gs)
    file = tmp_path / "card.html"
    # Without the policy: nothing but the escaping protects the reader.
    file.write_text(as_html(found).replace("Content-Security-Policy", "x"))
    reader.goto(file.as_uri())
    assert reader.evaluate(LEFT) == []
    shown = reader.locator("body").text_content() or ""
    assert shown.count(text) > 20
    assert "<script" not in as_markdown(found)
    markdown_it = pytest.importorskip("markdown_it")
    body = as_markdown(found).split("\n---\n", 1)[1]
    file.write_text(markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(body) + "<style></style>")
    reader.goto(file.as_uri())
    assert reader.evaluate(LEFT) == []
    assert (reader.locator("body").text_content() or "").count(text) > 20

"""Settings: which grid search, which board, how it looks; and the token, which is asked for and kept nowhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Locator, Page, Route, WebSocket, expect

from mlgym.record.token import VARIABLE
from tests.ml_board.boards import Board
from tests.ml_board.browser import SERVER_GONE, Pages, Theme, address, chart, connection, query_of, rows, settled, until
from tests.ml_board.page.logs import Script, sweep

HERE, THERE, ELSEWHERE = "here", "another", "there"
OTHER = {VARIABLE: "b" * 32}
NONE = "404.*_config"  # not every grid search has every configuration


def small(gs: str) -> Script:
    script = Script(gs)
    script.grid(num_experiments=2)
    for experiment in range(2):
        script.config(experiment, {"width": 8 * (experiment + 1)})
        script.job(experiment, "RUNNING")
        script.scores(experiment, 0, {"test/f1": 0.25 + experiment / 4})
    return script


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Another board, with another log and another token."""
    with Board(tmp_path_factory.mktemp("second"), environment=OTHER) as second:
        small(ELSEWHERE).write(second.storage)
        yield second


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, second: Board) -> Iterator[Board]:
    """One whose page may also talk to the second."""
    with Board(tmp_path_factory.mktemp("board"), "--endpoints", second.url) as board:
        sweep(HERE).write(board.storage)
        small(THERE).write(board.storage)
        yield board
        assert "Traceback" not in board.stderr(), board.stderr()


@pytest.fixture
def page(board: Board, second: Board, pages: Pages) -> Page:
    """The settings, from inside a grid search."""
    pages.announce(NONE)
    page = pages.open(board, address(HERE, "settings"), also=(second.url,))
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    return page


def to(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="pages").get_by_role("link", name=name).click()


def field(page: Page, name: str) -> Locator:
    return page.get_by_role("textbox", name=f"{name} endpoint")


def save(page: Page, rest: str, websocket: str) -> None:
    field(page, "REST").fill(rest)
    field(page, "websocket").fill(websocket)
    page.get_by_role("button", name="save").click()


def listed(page: Page) -> set[str]:
    options = page.get_by_label("run id").get_by_role("option").all_inner_texts()
    return set(options) - {"none"}


def kept(page: Page) -> str:
    """Whatever this browser keeps, and every address in its history."""
    return json.dumps(
        page.evaluate(
            "[{...localStorage}, {...sessionStorage}, document.cookie, location.href, navigation.entries().map(one => one.url)]"
        )
    )


def asked(page: Page) -> None:
    expect(page.get_by_role("heading", name="This board asks for its token")).to_be_visible()


def give(page: Page, token: str) -> None:
    page.get_by_label("token").fill(token)
    page.get_by_role("button", name="open").click()


# --- the grid search ---


def test_another_run_id(page: Page) -> None:
    chosen = page.get_by_label("run id")
    until(page, lambda: listed(page) == {HERE, THERE}, "all of this board, and none of another")
    expect(chosen).to_have_value(HERE)
    chosen.select_option(THERE)
    expect(page.get_by_text("There is no run configuration.")).to_be_visible()
    to(page, "analysis")
    until(page, lambda: [row["width"] for row in rows(page)] == ["8", "16"], "the other grid search")
    to(page, "settings")
    chosen.select_option("")
    expect(page.get_by_text("There is no run configuration.")).to_have_count(0)
    assert page.url.endswith("#/settings")
    expect(connection(page)).to_have_count(0)


# --- the board ---

REFUSED = [
    ("nonsense", "expected an address such as http://127.0.0.1:5001"),
    ("ftp://127.0.0.1", "expected http:// or https://"),
    ("javascript:alert(1)", "expected http:// or https://"),
    ("http://127.0.0.1:9/path", "expected an address without a path"),
    ("http://127.0.0.1:9", "start ml_board with --endpoints http://127.0.0.1:9 to allow it"),
    ("https://evil.example", "this page may only talk to"),
]


def test_endpoints_that_nobody_allowed_are_refused(page: Page, board: Board) -> None:
    """Each field says why, keeps what was typed, and nothing else changes."""
    before = kept(page)
    for wrong, why in REFUSED:
        save(page, wrong, board.url)
        told = page.get_by_role("alert").filter(has_text=why)
        expect(told).to_be_visible()
        expect(field(page, "REST")).to_have_attribute("aria-invalid", "true")
        expect(field(page, "REST")).to_have_attribute("aria-describedby", str(told.get_attribute("id")))
        expect(field(page, "REST")).to_have_value(wrong)
        save(page, board.url, wrong)
        expect(field(page, "websocket")).to_have_attribute("aria-invalid", "true")
        expect(field(page, "websocket")).to_have_value(wrong)
        assert field(page, "REST").get_attribute("aria-invalid") is None
    assert kept(page) == before
    settled(page)
    until(page, lambda: listed(page) == {HERE, THERE}, "those of the first")
    save(page, f" {board.url}/ ", "")
    expect(page.get_by_text("saved")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="e")).to_have_count(0)


def test_another_board(page: Page, board: Board, second: Board, pages: Pages) -> None:
    """It is asked for its own token; then all is of it, and nothing of the first, until it is cleared."""
    pages.announce("401")
    pages.announce(f"404.*{HERE}")
    pages.announce("WebSocket connection to")
    sockets: list[WebSocket] = []

    def opened(socket: WebSocket) -> None:
        sockets.append(socket)

    def open_to_second() -> list[bool]:
        """Of each connection that is open."""
        return [one.url.startswith(second.url.replace("http", "ws")) for one in sockets if not one.is_closed()]

    page.on("websocket", opened)
    save(page, second.url, second.url)
    asked(page)  # beside the settings, which lead back
    expect(page.get_by_text(f"It is the one at {second.url}.")).to_be_visible()
    give(page, board.token)
    expect(page.get_by_role("alert").filter(has_text="That is not the token of this board.")).to_be_visible()
    give(page, second.token)
    expect(page.get_by_role("heading", name="This board asks for its token")).to_have_count(0)
    until(page, lambda: listed(page) == {HERE, ELSEWHERE}, "those of the second, and the one that is open")
    to(page, "analysis")
    expect(page.get_by_role("heading", name="This cannot be shown")).to_be_visible()
    page.get_by_role("link", name="all grid searches").click()
    until(page, lambda: [row["grid search"] for row in rows(page, "grid searches")] == [ELSEWHERE], "the second's list")
    page.get_by_role("link", name=ELSEWHERE, exact=True).click()
    until(page, lambda: [row["width"] for row in rows(page)] == ["8", "16"], "the second's table")
    settled(page)
    assert HERE not in page.inner_text("main").split()
    # The last one: of those that were refused on the way the browser does not always say that they are closed.
    until(page, lambda: open_to_second()[-1:] == [True], lambda: f"a connection to the second, not {open_to_second()}")
    sockets.clear()  # nobody says that those of a page that is gone are closed
    page.reload()
    settled(page)
    until(page, lambda: [row["width"] for row in rows(page)] == ["8", "16"], "the second's table, still")
    # Should it have needed several, the same holds for them; but none goes to the first.
    until(
        page,
        lambda: open_to_second() and all(open_to_second()),
        lambda: f"connections to the second only, not {open_to_second()}",
    )
    assert second.token not in kept(page)
    assert board.token not in kept(page)

    to(page, "settings")
    expect(field(page, "REST")).to_have_value(second.url)
    page.get_by_role("button", name="clear").click()
    expect(page.get_by_text("connection, data and endpoints are dropped")).to_be_visible()
    assert page.url == f"{board.url}/#/settings"
    expect(field(page, "REST")).to_have_value("")
    expect(field(page, "websocket")).to_have_value("")
    expect(connection(page)).to_have_count(0)
    until(page, lambda: all(one.is_closed() for one in sockets), "no connection")
    until(page, lambda: listed(page) == {HERE, THERE}, "those of the first")
    assert ELSEWHERE not in page.inner_text("body").split()


def test_back_from_a_board_whose_token_nobody_has(page: Page, second: Board, pages: Pages) -> None:
    pages.announce("401")
    pages.announce("WebSocket connection to")
    save(page, second.url, second.url)
    asked(page)
    to(page, "analysis")
    asked(page)
    expect(page.get_by_role("grid")).to_have_count(0)
    to(page, "settings")
    page.get_by_role("button", name="clear").click()
    expect(page.get_by_role("heading", name="This board asks for its token")).to_have_count(0)
    until(page, lambda: listed(page) == {HERE, THERE}, "those of the first")
    page.go_back()
    page.go_back()
    page.go_back()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    to(page, "analysis")
    until(page, lambda: len(rows(page)) == 12, "the table")


# --- how it looks ---

PAPER = "getComputedStyle(document.body).backgroundColor"
INK = "getComputedStyle(document.body).color"
HEARS = """() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    window.heard = new Promise(done => query.addEventListener("change", () => done(true), {once: true}));
}"""
"""`heard` is kept when the system's theme has changed."""


@pytest.mark.parametrize("system", ["light", "dark"])
def test_theme(page: Page, system: Theme) -> None:
    """At once and for good; unless told otherwise it is the system's."""
    page.emulate_media(color_scheme=system)
    html = page.locator("html")
    other: Theme = "dark" if system == "light" else "light"
    expect(html).to_have_attribute("data-theme", system)
    papers = {system: page.evaluate(PAPER)}
    page.get_by_role("radio", name=other).check()
    expect(html).to_have_attribute("data-theme", other)
    papers[other] = page.evaluate(PAPER)
    assert papers[other] != papers[system]
    assert page.evaluate(INK) != papers[other]
    page.reload()
    expect(page.get_by_role("radio", name=other)).to_be_checked()
    assert page.evaluate(PAPER) == papers[other]
    for scheme in (other, system):
        page.evaluate(HEARS)
        page.emulate_media(color_scheme=scheme)
        page.evaluate("window.heard")  # the page has heard of it before
        assert page.evaluate(PAPER) == papers[other]
    page.get_by_role("radio", name="system").check()
    page.emulate_media(color_scheme=system)
    expect(html).to_have_attribute("data-theme", system)
    assert page.evaluate(PAPER) == papers[system]


PAINTED = """(canvas, colours) => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
    return colours.map(colour => {
        const [r, g, b] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
        let count = 0;
        for (let i = 0; i < data.length; i += 4)
            if (data[i + 3] > 250 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 12) count++;
        return count;
    });
}"""


def colours(of: Locator) -> list[str]:
    """Colour and dashes of each line that stands for an experiment."""
    return [
        str(text)
        for text in of.locator(".swatch > *").evaluate_all(
            "all => all.map(one => `${one.getAttribute('stroke')} ${one.getAttribute('stroke-dasharray') ?? ''}`)"
        )
    ]


@pytest.mark.parametrize("palette", ["safe", "vivid"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_belong_to_experiments(page: Page, board: Board, palette: str, theme: Theme) -> None:
    """In the table however it is filtered and sorted, in the legend, on the canvas, and where they are compared."""
    page.get_by_role("radio", name=theme).check()
    page.get_by_role("radio", name=palette).check()
    page.reload()
    expect(page.get_by_role("radio", name=palette)).to_be_checked()
    to(page, "analysis")
    until(page, lambda: len(rows(page)) == 12, "the table")
    grid = page.get_by_role("grid", name="experiments")
    found = dict(enumerate(colours(grid)))
    assert len(set(found.values())) == 12
    page.goto(f"{board.url}/{address(HERE, q='sgd', sort='-id', mean='-')}")
    until(page, lambda: [row["#"] for row in rows(page)] == ["11", "10", "7", "6", "3", "2"], "some, backwards")
    assert colours(grid) == [found[one] for one in (11, 10, 7, 6, 3, 2)]
    legend = page.get_by_role("list", name=re.compile("^legend"))
    expect(legend.get_by_role("listitem")).to_have_count(6)
    assert sorted(colours(legend)) == sorted(colours(grid))
    page.goto(f"{board.url}/{address(HERE, 'compare', sel='2,9')}")
    chosen = page.get_by_role("list", name="compared experiments")
    expect(chosen.get_by_role("listitem")).to_have_count(2)
    assert colours(chosen) == [found[2], found[9]]
    scores = page.get_by_role("region", name="score differences")
    assert colours(scores.get_by_role("columnheader")) == [found[2], found[9]]
    page.goto(f"{board.url}/{address(HERE, 'experiment', exp=3)}")
    canvas = chart(page, "val/accuracy").locator("canvas").first
    inks = [found[one].split()[0] for one in (3, 4)]
    until(page, lambda: canvas.evaluate(PAINTED, inks)[0] > 5, "its line in its colour")
    assert canvas.evaluate(PAINTED, inks)[1] == 0


def test_palettes_differ(page: Page, board: Board) -> None:
    """At once, also in what is drawn."""
    expect(page.get_by_role("radio", name="safe")).to_be_checked()
    page.goto(f"{board.url}/{address(HERE, 'experiment', exp=3)}")
    swatch = "document.querySelector('[aria-label^=\"line chart of val/accuracy\"] canvas').toDataURL()"
    chart(page, "val/accuracy")
    before = page.evaluate(swatch)
    to(page, "settings")
    page.get_by_role("radio", name="vivid").check()
    page.go_back()
    chart(page, "val/accuracy")
    until(page, lambda: page.evaluate(swatch) != before, "another colour")


# --- the token ---


def test_the_list_asks_for_it_too(board: Board, pages: Pages) -> None:
    pages.announce("401")
    for where in ("#/", "#/settings"):
        page = pages.open(board, where, token=False)
        asked(page)
        give(page, "wrong")
        expect(page.get_by_role("alert").filter(has_text="That is not the token of this board.")).to_be_visible()
        expect(page.get_by_text(HERE, exact=True)).to_have_count(0)
        give(page, board.token)
        expect(page.get_by_role("heading", name="This board asks for its token")).to_have_count(0)
        expect(page.get_by_text(HERE, exact=True)).not_to_have_count(0)
        assert page.url == f"{board.url}/{where}"
        assert board.token not in kept(page)
        assert board.token not in page.content()


def test_the_printed_address_opens_where_the_page_is_open(board: Board, pages: Pages) -> None:
    """Without being loaded again; the view stays, and the token is nowhere."""
    pages.announce("401")
    where = address(HERE, lay="table", q="adam")
    page = pages.open(board, where, token=False)
    asked(page)
    page.evaluate("window.same = true")
    with page.expect_response(f"{board.url}/session") as answer:
        page.goto(f"{board.url}/#token=wrong")
    assert answer.value.status == 401
    until(page, lambda: "token" not in page.url, "an address without it")
    asked(page)
    page.goto(f"{board.url}/#token={board.token}")
    until(page, lambda: len(rows(page)) == 6, "the table, filtered")
    assert page.evaluate("window.same")
    assert page.url == f"{board.url}/{where}"
    assert board.token not in kept(page)
    assert "token=" not in kept(page)


def test_a_late_refusal_takes_nothing_back(board: Board, pages: Pages) -> None:
    """A wrong token whose answer comes after the right one was taken."""
    pages.announce("401")
    pages.announce(NONE)
    page = pages.open(board, address(HERE, lay="table", q="adam"), token=False)
    asked(page)
    late: list[tuple[Route, APIResponse]] = []
    page.route("**/session", lambda route: route.continue_() if late else late.append((route, route.fetch())))
    page.goto(f"{board.url}/#token=wrong")
    until(page, lambda: late, "an answer to hold back")
    [[route, refusal]] = late
    assert refusal.status == 401
    page.goto(f"{board.url}/#token={board.token}")
    until(page, lambda: len(rows(page)) == 6, "the table, filtered")
    with page.expect_response("**/session"):
        route.fulfill(response=refusal)
    to(page, "settings")
    expect(page.get_by_text("There is no validation configuration.")).to_be_visible()  # asked for later
    expect(page.get_by_role("heading", name="This board asks for its token")).to_have_count(0)
    to(page, "analysis")
    until(page, lambda: len(rows(page)) == 12, "the table, still")


def test_another_token_is_asked_for_in_place(tmp_path: Path, pages: Pages) -> None:
    """The board comes back with another one: the view waits until it is brought."""
    pages.announce(SERVER_GONE)
    pages.announce("401")
    with Board(tmp_path, environment={VARIABLE: "a" * 32}) as board:
        sweep("g").write(board.storage)
        port = board.port
        page = pages.open(board, address("g", lay="table", q="adam", sel="1,4"))
        listing = pages.open(board)
        until(page, lambda: len(rows(page)) == 6, "the table, filtered")
        expect(listing.get_by_role("link", name="g", exact=True)).to_be_visible()
        before = page.url
        board.stop()
        board.environment.update(OTHER)
        board.start(port)
        for one in (page, listing):
            asked(one)
            assert not rows(one)
        give(page, "a" * 32)
        expect(page.get_by_role("alert")).to_have_text("That is not the token of this board.")
        for one in (page, listing):
            give(one, board.token)
        until(page, lambda: len(rows(page)) == 6, "the same again")
        settled(page)
        assert page.url == before
        assert query_of(page)["sel"] == "1,4"
        expect(page.get_by_role("row", selected=True)).to_have_count(2)
        expect(listing.get_by_role("link", name="g", exact=True)).to_be_visible()
        assert board.token not in kept(page)

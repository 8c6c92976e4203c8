"""The page for everybody: what axe finds (WCAG 2.1 A and AA), in both themes, wide and narrow; nothing sticks out; what moves
stands still for those who ask for it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.ml_board.boards import Board
from tests.ml_board.browser import SERVER_GONE, Pages, Theme, address, chart, connection, rows, until
from tests.ml_board.conftest import FRONTEND
from tests.ml_board.page.logs import Script, components, scores, sweep, swept

GS = "sweep"
WIDE, NARROW = 1280, 400
THEMES: tuple[Theme, ...] = ("light", "dark")
AXE = FRONTEND / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async ([type, values]) => {
    const {violations} = await axe.run(document, {runOnly: {type, values}, resultTypes: ["violations"]});
    return violations.flatMap(({id, nodes}) => nodes.map(({html, failureSummary}) => `${id}: ${html.slice(0, 300)}: ${failureSummary}`));
}"""

ALL: list[Any] = ["tag", ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]]
COLOURS: list[Any] = ["rule", ["color-contrast", "link-in-text-block"]]
SIDEWAYS = """() => [...document.querySelectorAll("html, body, main")]
    .filter(one => one.scrollWidth > one.clientWidth)
    .map(one => `${one.localName} has room for ${one.clientWidth} px and scrolls to ${one.scrollWidth} px`)"""


def troubled(gs: str) -> Script:
    """Failures of more than one kind and one of several experiments, warnings, and an end before the end."""
    script = Script(gs)
    script.grid(num_experiments=6)
    for experiment in range(6):
        script.config(experiment, swept(experiment))
        script.job(experiment, "RUNNING")
        for epoch in range(3):
            script.scores(experiment, epoch, scores(experiment, epoch))
            script.wait(1)
    for experiment, error in enumerate(["out of memory", "out of memory", "no such file", "bad luck", "worse luck"]):
        script.job(experiment, "FAILED", error=error)
    script.job(5, "STOPPED", reason="early stopping")
    for one in range(2):
        script.raw("warning", {"grid_search_id": gs, "experiment_id": one, "message": f"only {one} workers."})
    script.grid("INTERRUPTED", reason="Ctrl-C")
    return script


@pytest.fixture(scope="module", autouse=True)
def _logs(board: Board) -> None:
    sweep(GS).write(board.storage)
    troubled("troubled").write(board.storage)
    components("components").write(board.storage)


def table(page: Page) -> None:
    until(page, lambda: rows(page), "the table")


def filtering(page: Page) -> None:
    table(page)
    page.get_by_role("button", name="filter optimizer_key", exact=True).click()
    expect(page.get_by_role("dialog", name="filter by optimizer_key")).to_be_visible()


def choosing_columns(page: Page) -> None:
    table(page)
    page.get_by_text("columns", exact=True).click()
    expect(page.get_by_role("button", name="the usual ones")).to_be_visible()


def chart_table(page: Page) -> None:
    box = page.get_by_role("region", name="val/accuracy as a table")
    box.scroll_into_view_if_needed()
    expect(box.get_by_role("row")).to_have_count(7)


def reading(page: Page) -> None:
    chart(page, "val/accuracy").get_by_role("img").press("ArrowRight")
    expect(page.locator(".tooltip")).to_contain_text("epoch 0")


def help_open(page: Page) -> None:
    table(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def events(page: Page) -> None:
    until(page, lambda: any(row["type"] for row in rows(page, "events")), "events")


def opened(page: Page) -> None:
    events(page)
    expect(page.get_by_role("region", name="event 20")).to_be_visible()


def heading(name: str) -> Callable[[Page], None]:
    return lambda page: expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()


def all_open(page: Page) -> None:
    expect(page.get_by_role("region", name="output", exact=True)).to_contain_text("epoch 2")
    expect(page.get_by_role("region", name="job attempts")).to_be_visible()


def component(page: Page) -> None:
    expect(page.get_by_role("region", name="component optimizer")).to_contain_text("optimizer_key")


def axis_menu(page: Page) -> None:
    found = page.get_by_role("region", name="parallel coordinates", exact=True)
    found.locator(".axis summary").filter(has_text="optimizer_key").click()
    expect(found.get_by_role("checkbox", name="adam")).to_be_visible()


def configurations(page: Page) -> None:
    expect(page.get_by_label("run configuration")).to_contain_text("num_epochs")


VIEWS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "grids": ("#/", lambda page: until(page, lambda: rows(page, "grid searches"), "the list")),
    "beside": (address(GS), table),
    "filter-box": (address(GS, lay="table", sel="1,3", **{"f.status": "= done"}), filtering),
    "columns": (address(GS, lay="table"), choosing_columns),
    "failures": (address("troubled"), table),
    "none-passes": (address(GS, q="nobody"), heading("No experiment passes the filter")),
    "chart-as-table": (address(GS, lay="charts", tab="val/accuracy"), chart_table),
    "chart-read": (address(GS, lay="charts", smooth="0.5", **{"z.val/accuracy": "0~3"}), reading),
    "sweep": (address(GS, "sweep", sel="1"), heading("Heatmap")),
    "sweep-axis": (address(GS, "sweep", **{"f.swept:model.seed": "= 1"}), axis_menu),
    "compare": (address(GS, "compare", sel="0,5,9"), lambda page: expect(page.get_by_role("region", name="configuration differences")).to_be_visible()),
    "compare-none": (address(GS, "compare"), heading("Choose what to compare")),
    "experiment": (address(GS, "experiment", exp=1, flip="config,environment"), all_open),
    "components": (address("components", "experiment", exp=2, flip="pipeline", node="optimizer"), component),
    "components-table": (address("components", "experiment", exp=2, flip="pipeline", node="optimizer", **{"as": "table"}), component),
    "failed": (address(GS, "experiment", exp=9), heading("Job attempts")),
    "experiments": (address(GS, "experiment"), heading("Experiments")),
    "events": (address(GS, "events"), events),
    "event": (address(GS, "events", seq=20), opened),
    "settings": (address(GS, "settings", show="run_config"), configurations),
    "replay": (address(GS, at=60), heading("Charts")),
    "help": (address(GS), help_open),
    "absent": (address("nobody"), heading("This cannot be shown")),
}  # fmt: skip

LOOKS: list[tuple[int, Theme, list[Any]]] = [
    (WIDE, "light", ALL),
    (WIDE, "dark", COLOURS),
    (NARROW, "light", COLOURS),
    (NARROW, "dark", ALL),
]
"""Places and names do not depend on the theme, so that all is looked at once in each width, and colours in each of both."""


def fits(page: Page, width: int) -> None:
    """There is no scrolling sideways, once what is drawn is as wide as the page is now."""
    wide: list[str] = []

    def room() -> bool:
        wide[:] = page.evaluate(SIDEWAYS)
        return not wide and page.evaluate("innerWidth") == width

    until(page, room, lambda: f"a page of {width} px: {wide}")


def accessible(page: Page) -> None:
    """Axe has nothing to say in either theme and width, and there is no scrolling sideways."""
    page.evaluate(AXE.read_text())
    found: dict[str, str] = {}
    for width, theme, rules in LOOKS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=theme)
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        fits(page, width)
        for text in page.evaluate(RUN, rules):
            found.setdefault(text, f"{width} px, {theme}: {text}")
    assert not found, "\n\n".join(found.values())


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(packages: None, board: Board, pages: Pages, view: str) -> None:
    where, ready = VIEWS[view]
    pages.announce("404")
    page = pages.open(board, where, csp=False)
    ready(page)
    accessible(page)


def test_axe_finds_nothing_where_nothing_is(packages: None, tmp_path: Path, pages: Pages) -> None:
    """An empty storage, the question for the token, and a board that has ended."""
    pages.announce(SERVER_GONE)
    pages.announce("401")
    with Board(tmp_path) as empty:
        page = pages.open(empty, csp=False)
        heading("No grid search yet")(page)
        accessible(page)
        stranger = pages.open(empty, address("g"), token=False, csp=False)
        heading("This board asks for its token")(stranger)
        stranger.get_by_label("token").fill("wrong")
        stranger.get_by_role("button", name="open").click()
        expect(stranger.get_by_role("alert")).to_be_visible()
        accessible(stranger)
        sweep("g").write(empty.storage)
        page.goto(f"{empty.url}/{address('g')}")
        table(page)
        empty.kill()
        expect(connection(page)).to_have_text("lost")
        accessible(page)


def test_axe_finds_nothing_when_the_board_is_not_there(packages: None, tmp_path: Path, pages: Pages) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}"
        pages.announce(SERVER_GONE)
        with Board(tmp_path, "--rest_endpoint", gone, "--ws_endpoint", gone) as page_only:
            page = pages.open(page_only, address("g"), token=False, also=(gone,), csp=False)
            heading("The board does not answer")(page)
            accessible(page)
            page.goto(f"{page_only.url}/#/")
            heading("The grid searches cannot be listed")(page)
            accessible(page)


# --- without a wide screen, a mouse, colours ---

REACHED = """() => {
    const missed = [];
    let seen = 0;
    for (const one of document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")) {
        if (!one.checkVisibility() || one.closest("[hidden]")) continue;
        seen++;
        one.scrollIntoView({block: "center", inline: "center"});
        const {left, right, top, height, width} = one.getBoundingClientRect();
        const [x, y] = [(Math.max(0, left) + Math.min(innerWidth, right)) / 2, top + Math.min(height, innerHeight) / 2];
        const hit = document.elementFromPoint(x, y);
        const label = one.closest("label");
        if (right < 8 || left > innerWidth - 8 || !width || !(one.contains(hit) || hit?.contains(one) || label?.contains(hit)))
            missed.push(`${one.outerHTML.slice(0, 200)}: ${left} to ${right}, there is ${hit?.outerHTML.slice(0, 100)}`);
    }
    return [seen, missed];
}"""


@pytest.mark.parametrize(
    "view", ["grids", "beside", "sweep", "compare", "experiment", "components", "event", "settings", "replay"]
)
def test_everything_is_reached_on_a_narrow_screen(board: Board, pages: Pages, view: str) -> None:
    pages.announce("404")
    where, ready = VIEWS[view]
    page = pages.open(board, where, width=NARROW)
    ready(page)
    fits(page, NARROW)
    seen, missed = page.evaluate(REACHED)
    assert seen > 10
    assert not missed, "\n".join(missed)


def test_nothing_moves(board: Board, pages: Pages) -> None:
    """For those who do not want it, which every page of these tests says."""
    page = pages.open(board, address(GS))
    table(page)
    assert page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    moving = "[...document.querySelectorAll('*')].filter(one => ['transitionDuration', 'animationDuration'].some(key => parseFloat(getComputedStyle(one)[key])) || getComputedStyle(one).scrollBehavior === 'smooth').map(one => one.outerHTML.slice(0, 200))"
    assert page.evaluate(moving) == []
    assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize("theme", THEMES)
def test_the_focus_is_seen(board: Board, pages: Pages, theme: Theme) -> None:
    """By an outline in the accent colour, whatever has it."""
    page = pages.open(board, address(GS), theme=theme)
    chart(page, "val/accuracy")
    accent = "(() => { const probe = document.createElement('i'); probe.style.color = 'var(--accent)'; document.body.append(probe); const found = getComputedStyle(probe).color; probe.remove(); return found; })()"
    outline = f"(() => {{ const {{outlineStyle, outlineWidth, outlineColor}} = getComputedStyle(document.activeElement); return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 && outlineColor === {accent}; }})()"
    seen: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        if name.startswith("<body"):
            break
        assert page.evaluate(outline), name
        seen.append(name)
    assert len(set(seen)) > 40


WORDS = {"waiting", "running", "done", "failed", "lost", "stopped", "finished", "interrupted", "dead"}


@pytest.mark.parametrize("view", ["grids", "beside", "failures", "compare", "failed", "experiments"])
def test_a_status_is_a_word(board: Board, pages: Pages, view: str) -> None:
    """Besides its shape and its colour."""
    where, ready = VIEWS[view]
    page = pages.open(board, where)
    ready(page)
    texts = page.locator(".status").all_inner_texts()
    assert texts
    assert {text.split("(")[0].strip() for text in texts} <= WORDS

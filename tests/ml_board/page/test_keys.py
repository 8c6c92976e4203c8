"""The page without a mouse: every key that the help names, none while somebody types, and all of the page by Tab, arrows and
Enter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.ml_board.boards import Board
from tests.ml_board.browser import Pages, address, chart, query_of, rows, until
from tests.ml_board.page.logs import EPOCHS, OPTIMIZERS, Script, accuracy, sweep

GS = "sweep"
UNANNOUNCED = "404.*validation_strategy_config"  # the page of settings asks for what this grid search has not


@pytest.fixture(scope="module", autouse=True)
def _logs(board: Board) -> None:
    sweep(GS).write(board.storage)


def table(page: Page, count: int = 12) -> None:
    """All rows are there, and the keys of replay, which come with the paint after the first rows."""
    until(page, lambda: len(rows(page)) == count, "the table")
    expect(page.get_by_role("slider", name="event", exact=True)).not_to_have_value("0")


@pytest.fixture
def page(board: Board, pages: Pages) -> Page:
    page = pages.open(board, address(GS))
    table(page)
    return page


def go(board: Board, page: Page, where: str) -> None:
    page.goto(f"{board.url}/{where}")


def listed(page: Page) -> dict[str, str]:
    """What the help says here: keys, and what they do."""
    page.keyboard.press("?")
    box = page.get_by_role("dialog", name="Keys")
    expect(box).to_be_visible()
    found = box.locator(".keys > span").evaluate_all(
        "all => all.map(one => [...one.querySelectorAll('kbd')].map(key => key.textContent).join(' ') || one.textContent)"
    )
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    assert len(set(found[::2])) == len(found[::2]), found
    return dict(zip(found[::2], found[1::2], strict=True))


def in_settings(page: Page, keys: list[str]) -> None:
    """The settings name these, once all that is drawn with them has said its own."""
    found = page.locator(".settings .keys kbd")
    until(page, lambda: sorted(found.all_text_contents()) == sorted(keys), f"{keys} in the settings")


def at_row(page: Page, experiment: int | None) -> None:
    """The row that keys are about."""
    found = page.locator("[role=row].at")
    if experiment is None:
        expect(found).to_have_count(0)
    else:
        expect(found).to_have_attribute("data-id", str(experiment))


def selected(page: Page, *experiments: int) -> None:
    chosen = page.get_by_role("row", selected=True)
    until(
        page,
        lambda: chosen.evaluate_all("all => all.map(row => Number(row.dataset.id))") == list(experiments),
        f"{experiments} selected",
    )


def on(page: Page, name: str) -> None:
    """That page is there, says so, and has the focus."""
    current = page.get_by_role("navigation", name="pages").locator("[aria-current=page]")
    expect(current).to_have_text(name)
    expect(page.get_by_role("main")).to_be_focused()


def theme(page: Page) -> str:
    return str(page.locator("html").get_attribute("data-theme"))


# --- what the help says ---

EVERYWHERE = {"?", "g g", "g o", "t"}
IN_A_GRID_SEARCH = EVERYWHERE | {"g a", "g s", "g c", "g x", "g e", "Space", ","}
TABLE = {"j", "k", "x", "a", "Enter", "c", "/"}
HELP: list[tuple[str, str, set[str]]] = [
    ("#/", "Grid searches", EVERYWHERE | {"/"}),
    ("#/settings", "Settings", EVERYWHERE),
    (address(GS), "Analysis", IN_A_GRID_SEARCH | TABLE),
    (address(GS, sel="1"), "Analysis", IN_A_GRID_SEARCH | TABLE | {"Escape"}),
    (address(GS, lay="charts"), "Analysis", IN_A_GRID_SEARCH),
    (address(GS, "sweep"), "Sweep", IN_A_GRID_SEARCH | TABLE),
    (address(GS, "compare", sel="0-2"), "Compare", IN_A_GRID_SEARCH),
    (address(GS, "experiment", exp=3), "Experiment 3", IN_A_GRID_SEARCH | {"j", "k"}),
    (address(GS, "events"), "Events", IN_A_GRID_SEARCH | {"j", "k"}),
    (address(GS, "settings"), "Settings", IN_A_GRID_SEARCH),
    (address(GS, at=60), "Analysis", IN_A_GRID_SEARCH | TABLE | {".", "Escape"}),
    (address(GS, sel="1", at=60), "Analysis", IN_A_GRID_SEARCH | TABLE | {".", "Escape"}),
]  # fmt: skip


def test_help_says_what_there_is(board: Board, pages: Pages) -> None:
    """On each page its own keys, and no others; the settings say the same as the help."""
    pages.announce(UNANNOUNCED)
    page = pages.open(board)
    for where, title, keys in HELP:
        go(board, page, where)
        expect(page.get_by_role("heading", name=title, exact=True, level=1)).to_be_attached()
        banner = page.get_by_role("region", name="replay", exact=True)
        if "at=" in where:
            expect(banner).to_contain_text("as of event 60")
        else:
            expect(banner).to_have_count(0)
        if "analysis" in where and "lay=charts" not in where:
            table(page)
        found = listed(page)
        assert set(found) == keys, where
        if title == "Settings":
            in_settings(page, [key for keys in found for key in keys.split()])


def test_help_opens_and_closes(page: Page) -> None:
    """It takes the focus and gives it back; while it is open no other key does anything, wherever the focus is."""
    box = page.get_by_role("dialog", name="Keys")
    opener = page.get_by_role("button", name="help")
    opener.focus()
    page.keyboard.press("Enter")
    expect(box.get_by_role("button", name="close")).to_be_focused()
    for _ in range(4):  # no way out of it by Tab, but into the browser's own
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
    box.get_by_role("heading", name="Keys").click()
    here, before = theme(page), page.url
    for key in ("t", "g", "e", "j", "Space", "?", "/"):
        page.keyboard.press(key)
    at_row(page, None)
    assert (theme(page), page.url) == (here, before)
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    box.get_by_role("button", name="close").press("Enter")
    expect(box).to_have_count(0)
    expect(opener).to_be_focused()
    grid = page.get_by_role("grid", name="experiments")
    grid.focus()
    page.keyboard.press("?")
    expect(box).to_be_visible()
    page.mouse.click(5, 400)  # beside it
    expect(box).to_have_count(0)
    expect(grid).to_be_focused()


# --- keys of the table ---


def test_keys_of_the_table(page: Page) -> None:
    at_row(page, None)
    page.keyboard.press("j")
    at_row(page, 0)
    page.keyboard.press("j")
    page.keyboard.press("j")
    at_row(page, 2)
    page.keyboard.press("k")
    at_row(page, 1)
    page.keyboard.press("c")  # there is nothing to compare
    page.keyboard.press("x")
    selected(page, 1)
    page.keyboard.press("c")
    page.keyboard.press("x")
    selected(page)
    for _ in range(20):
        page.keyboard.press("j")
    at_row(page, 11)
    page.keyboard.press("a")
    selected(page, *range(12))
    page.keyboard.press("Escape")
    selected(page)
    for key in ("x", "k", "k", "x"):
        page.keyboard.press(key)
    selected(page, 9, 11)
    page.keyboard.press("c")
    on(page, "compare")
    assert query_of(page)["sel"] == "9,11"
    expect(page.get_by_role("list", name="compared experiments").get_by_role("listitem")).to_have_count(2)


def test_open_by_enter(page: Page) -> None:
    page.keyboard.press("Enter")  # no row is meant
    on_analysis = page.get_by_role("navigation", name="pages").locator("[aria-current=page]")
    expect(on_analysis).to_have_text("analysis")
    for key in ("j", "j", "Enter"):
        page.keyboard.press(key)
    on(page, "experiment")
    expect(page.get_by_role("heading", name="Experiment 1", exact=True)).to_be_visible()
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="Experiment 2", exact=True)).to_be_visible()
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(page.get_by_role("heading", name="Experiment 0", exact=True)).to_be_visible()
    page.keyboard.press("k")  # there is none before
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="Experiment 1", exact=True)).to_be_visible()


def test_filter_and_leave_the_field(board: Board, page: Page) -> None:
    """What was typed stays."""
    field = page.get_by_role("searchbox", name="filter experiments")
    page.keyboard.press("/")
    expect(field).to_be_focused()
    assert field.input_value() == ""
    page.keyboard.type("sgd")
    until(page, lambda: len(rows(page)) == 6, "those with sgd")
    page.keyboard.press("Escape")
    expect(field).not_to_be_focused()
    expect(field).to_have_value("sgd")
    page.keyboard.press("j")
    at_row(page, 2)
    assert len(rows(page)) == 6
    go(board, page, "#/")
    until(page, lambda: rows(page, "grid searches"), "the list")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="filter grid searches")).to_be_focused()


def test_the_grid_by_arrows(page: Page) -> None:
    """What a screen reader is told is the row at hand."""
    grid = page.get_by_role("grid", name="experiments")
    grid.focus()
    last = 11
    for key, row in (
        ("ArrowDown", 0),
        ("ArrowDown", 1),
        ("End", last),
        ("ArrowUp", last - 1),
        ("Home", 0),
        ("PageDown", last),
        ("PageUp", 0),
    ):
        grid.press(key)
        at_row(page, row)
        expect(grid).to_have_attribute("aria-activedescendant", f"row-{row}")
        expect(page.locator(f"#row-{row}")).to_be_in_viewport()
    grid.press("Space")
    selected(page, 0)
    grid.press("ArrowDown")
    grid.press("Space")
    selected(page, 0, 1)
    grid.press("Space")
    selected(page, 0)
    expect(page.get_by_role("region", name="replay", exact=True)).to_have_count(0)  # it is the grid's key here
    # The values of that row are links to their events.
    grid.press("Tab")
    until(page, lambda: page.evaluate("document.activeElement.closest('[role=grid]') !== null"), "into the grid")
    grid.focus()
    grid.press("Enter")
    on(page, "experiment")


# --- keys of all pages ---


def test_go_to_each_page(pages: Pages, page: Page) -> None:
    pages.announce(UNANNOUNCED)
    letters = {"s": "sweep", "c": "compare", "x": "experiment", "e": "events", "o": "settings", "a": "analysis"}
    for letter, name in letters.items():
        page.keyboard.press("g")
        page.keyboard.press(letter)
        on(page, name)
    page.keyboard.press("g")
    page.keyboard.press("q")  # no page: nothing, and the next key is one of its own
    page.keyboard.press("e")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    on(page, "analysis")
    page.keyboard.press("g")
    page.keyboard.press("g")
    on(page, "grid searches")
    page.keyboard.press("g")
    page.keyboard.press("o")
    on(page, "settings")
    assert page.url.endswith("/#/settings")


def test_the_focus_goes_along(page: Page) -> None:
    """To the page that a link opens, and back with the history; a choice on the same page leaves it where it is."""
    page.get_by_role("navigation", name="pages").get_by_role("link", name="events").press("Enter")
    on(page, "events")
    page.go_back()
    on(page, "analysis")
    layout = page.get_by_role("group", name="layout").get_by_role("button", name="below")
    layout.press("Enter")
    expect(layout).to_have_attribute("aria-pressed", "true")
    expect(layout).to_be_focused()


def test_replay_by_keys(page: Page) -> None:
    slider = page.get_by_role("slider", name="event", exact=True)
    banner = page.get_by_role("region", name="replay", exact=True)
    head = int(str(slider.get_attribute("max")))
    page.keyboard.press(".")  # there is nothing later
    page.keyboard.press("t")
    expect(banner).to_have_count(0)
    page.keyboard.press(",")
    expect(slider).to_have_value(str(head - 1))
    expect(banner).to_be_visible()
    page.keyboard.press(",")
    expect(slider).to_have_value(str(head - 2))
    page.keyboard.press(".")
    expect(slider).to_have_value(str(head - 1))
    page.keyboard.press("Escape")
    expect(banner).to_have_count(0)
    page.keyboard.press("Space")
    expect(slider).to_have_value("1")
    page.get_by_role("combobox", name="speed").select_option("\N{MULTIPLICATION SIGN}1000")
    page.get_by_role("main").focus()
    page.keyboard.press("Space")
    until(page, lambda: int(slider.input_value()) > 1, "playing")
    page.keyboard.press("Space")
    until(page, lambda: query_of(page)["at"] != "1" or int(slider.input_value()) == head, "a pause")
    page.keyboard.press("Escape")
    expect(banner).to_have_count(0)
    slider.focus()
    for key, seq in (("Home", 0), ("ArrowRight", 1), ("ArrowUp", 2), ("ArrowLeft", 1), ("End", head)):
        slider.press(key)
        expect(slider).to_have_value(str(seq))
        expect(slider).to_have_attribute("aria-valuetext", f"event {seq} of {head}")


def test_theme_by_key(page: Page) -> None:
    assert theme(page) == "light"
    for expected in ("dark", "light"):
        page.keyboard.press("t")
        expect(page.locator("html")).to_have_attribute("data-theme", expected)


def test_keys_of_the_events(board: Board, page: Page) -> None:
    go(board, page, address(GS, "events", seq=20))
    for key, seq in (("j", 21), ("j", 22), ("k", 21)):
        expect(page.get_by_role("region", name=re.compile(r"^event \d+$"))).to_be_visible()
        page.keyboard.press(key)
        expect(page.get_by_role("region", name=f"event {seq}")).to_be_visible()


# --- when a key is none ---

ALL = ["?", "/", "j", "k", "x", "a", "c", "g", "s", "g", "e", "Space", ",", ".", "t"]


def nothing(page: Page, work: Callable[[], None]) -> None:
    """Page, choice, theme and row stay as they are."""
    before = (page.url.partition("?")[0], theme(page), page.locator("[role=row].at").count())
    work()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("region", name="replay", exact=True)).to_have_count(0)
    assert (page.url.partition("?")[0], theme(page), page.locator("[role=row].at").count()) == before
    assert "sel" not in query_of(page)


def test_typing_is_typing(page: Page) -> None:
    text = "?/jkxacgsge ,.t"
    for field in (
        page.get_by_role("searchbox", name="filter experiments"),
        page.get_by_role("searchbox", name="filter charts"),
        page.get_by_role("searchbox", name="filter lines"),
    ):

        def type_(field: Locator = field) -> None:
            field.focus()
            page.keyboard.type(text)
            expect(field).to_have_value(text)

        nothing(page, type_)
        field.fill("")
    page.get_by_role("combobox", name="speed").focus()
    nothing(page, lambda: page.keyboard.type("jtgex"))
    page.get_by_role("button", name="filter lr", exact=True).click()
    box = page.get_by_role("dialog", name="filter by lr")
    page.keyboard.type(text)
    expect(box.get_by_role("textbox")).to_have_value(text)
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    expect(page.get_by_role("button", name="filter lr", exact=True)).to_be_focused()


def test_with_a_modifier_they_are_the_browsers(page: Page) -> None:
    page.get_by_role("main").focus()

    def press() -> None:
        for modifier in ("Control", "Alt", "Meta"):
            for key in ("j", "x", "c", "a", "/", ",", ".", "Enter"):
                page.keyboard.press(f"{modifier}+{key}")
        for key in ("J", "X", "T", "C"):
            page.keyboard.press(f"Shift+{key}")

    nothing(page, press)
    page.keyboard.press("j")  # and without one it is the page's
    at_row(page, 0)


# --- all of it by keys ---


def walk(page: Page, most: int = 300) -> Iterator[str]:
    """What Tab comes to, as it is called, until it leaves the page."""
    page.evaluate("document.activeElement.blur()")
    for _ in range(most):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
                const one = document.activeElement;
                if (one === document.body) return null;
                const label = one.ariaLabel ?? one.labels?.[0]?.innerText ?? one.innerText ?? "";
                return `${one.getAttribute("role") ?? one.localName} ${label.trim()}`.trim();
            }"""
        )
        if found is None:
            return
        yield str(found)
    raise AssertionError("Tab does not leave the page")


def test_tab_comes_to_everything_in_order(board: Board, page: Page) -> None:
    go(board, page, address(GS, mean="-"))
    chart(page, "val/accuracy")
    page.get_by_role("main").evaluate("main => main.scrollTo(0, 0)")
    found = list(walk(page))
    expected = [
        "a ml_board",
        "a analysis",
        "a settings",
        "button help",
        "select score to judge by",
        "button beside",
        "input filter experiments",
        "summary columns",
        "button CSV",
        "grid experiments",
        "input select all that are shown",
        "button lr",
        "button filter lr",
        "button filter error",
        "input filter charts",
        "button epoch",
        "ul legend: 12 of 12 lines",
        "button pin: val/accuracy",
        "button table: val/accuracy",
        "button hide: val/accuracy",
        "button replay from the start",
        "button one event back",
        "select speed",
        "input event",
    ]  # fmt: skip
    places = [found.index(one) for one in expected]
    assert places == sorted(places)
    plots = [one for one in found if one.startswith("img line chart of ")]
    assert len(plots) == 4
    assert len(set(plots)) == 4


def test_menus_by_keys(page: Page) -> None:
    columns = page.get_by_text("columns", exact=True)
    columns.press("Enter")
    usual = page.get_by_role("button", name="all of last epoch")
    expect(usual).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("checkbox", name="only columns that differ")).to_be_focused()
    page.keyboard.press("Space")
    until(page, lambda: query_of(page).get("diff") == "1", "only what differs")
    page.keyboard.press("Space")
    until(page, lambda: "diff" not in query_of(page), "all of them")
    page.keyboard.press("Escape")
    expect(usual).to_be_hidden()
    expect(columns).to_be_focused()
    sort = page.get_by_role("columnheader").filter(has_text="lr").get_by_role("button").first
    sort.press("Enter")
    expect(page.get_by_role("columnheader").filter(has_text="lr")).to_have_attribute("aria-sort", "ascending")
    funnel = page.get_by_role("button", name="filter optimizer_key", exact=True)
    funnel.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("textbox")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("dialog").get_by_role("checkbox", name="adam")).to_be_focused()
    page.keyboard.press("Space")
    until(page, lambda: len(rows(page)) == 6, "those with adam")
    page.keyboard.press("Escape")
    expect(funnel).to_be_focused()


def zoomed(page: Page, name: str) -> tuple[float, float]:
    left, _, right = query_of(page)[f"z.{name}"].partition("~")
    return float(left), float(right)


def test_a_chart_by_keys(board: Board, pages: Pages) -> None:
    """Points are read out, lines changed, zoomed, and the line at hand opened."""
    name = "val/accuracy"
    page = pages.open(board, address(GS, mean="-"))
    card = chart(page, name)
    plot = card.get_by_role("img", name=f"line chart of {name}")
    said = card.get_by_role("status")
    plot.focus()
    page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("epoch 0")
    for key, epoch in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", EPOCHS),
        ("ArrowRight", EPOCHS),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        expect(said).to_contain_text(f"epoch {epoch}")
    highest = sorted(range(11), key=lambda one: -accuracy(one, 0))
    near = card.locator(".tooltip .near")
    for _ in range(11):
        page.keyboard.press("ArrowUp")
    for experiment in highest[:4]:
        expect(near).to_contain_text(f"{accuracy(experiment, 0):.4f}")
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(near).to_contain_text(f"{accuracy(highest[3], 0):.4f}")
    reset = card.get_by_role("button", name=f"reset zoom: {name}")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    expect(reset).to_be_visible()
    expect(plot).to_be_focused()
    left, right = zoomed(page, name)
    assert left < 1 < right
    assert right - left < EPOCHS
    page.keyboard.press("-")
    until(page, lambda: zoomed(page, name)[1] - zoomed(page, name)[0] > right - left, "less of a zoom")
    page.keyboard.press("Escape")
    expect(reset).to_have_count(0)
    page.keyboard.press("Tab")
    expect(said).to_have_count(0)

    def at_the_end() -> int:
        plot.press("End")
        return near.count()

    until(page, at_the_end, "its last points, which are there when it is drawn without the zoom")
    last = near.inner_text()
    page.keyboard.press("Enter")
    on(page, "experiment")
    experiment = int(query_of(page)["exp"])
    assert f"{accuracy(experiment, EPOCHS):.4f}" in last


def test_zooms_come_faster_than_pictures(board: Board, pages: Pages) -> None:
    """The second begins with the first, though that is not drawn yet."""
    name = "val/accuracy"
    page = pages.open(board, address(GS, mean="-"))
    card = chart(page, name)
    card.get_by_role("img", name=f"line chart of {name}").evaluate(
        """async one => {
            for (let i = 0; i < 2; i++) {
                one.dispatchEvent(new KeyboardEvent("keydown", {key: "+", bubbles: true}));
                await new Promise(done => setTimeout(done));
            }
        }"""
    )
    expect(card.get_by_role("button", name=f"reset zoom: {name}")).to_be_visible()
    assert zoomed(page, name) == (EPOCHS * 3 / 8, EPOCHS * 5 / 8)


def test_parallel_coordinates_by_keys(board: Board, page: Page) -> None:
    """The title of an axis opens its filter, which is the table's; arrows move it."""
    go(board, page, address(GS, "sweep"))
    table(page)
    coordinates = page.get_by_role("region", name="parallel coordinates", exact=True)

    def titles() -> list[str]:
        return [text.split("\n")[0] for text in coordinates.locator(".axis summary").all_inner_texts()]

    title = coordinates.locator(".axis summary").filter(has_text="optimizer_key")
    title.press("Enter")
    box = coordinates.get_by_role("checkbox", name=OPTIMIZERS[0])
    expect(box).to_be_visible()
    page.keyboard.press("Tab")
    expect(box).to_be_focused()
    page.keyboard.press("Space")
    until(page, lambda: {row["optimizer_key"] for row in rows(page)} == {OPTIMIZERS[1]}, "the others")
    assert query_of(page)["f.swept:optimizer.optimizer_key"] == f"= {OPTIMIZERS[1]}"
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    expect(title).to_be_focused()
    lr = coordinates.locator(".axis summary").filter(has_text="lr").first
    lr.press("Enter")
    page.keyboard.press("Tab")
    before = titles()
    if page.evaluate("document.activeElement.type") == "number":
        page.keyboard.type("0.05")
        page.keyboard.press("Tab")
        until(page, lambda: {row["lr"] for row in rows(page)} == {"0.1"}, "the largest")
    page.keyboard.press("Escape")
    expect(lr).to_be_focused()
    place = before.index("lr")
    page.keyboard.press("ArrowRight" if place == 0 else "ArrowLeft")
    until(page, lambda: titles() != before and sorted(titles()) == sorted(before), "another order")
    assert page.evaluate("document.activeElement.innerText").startswith("lr")


def test_choices_with_a_bar_in_them(board: Board, gs: str, pages: Pages) -> None:
    """And with whatever else a filter could take for more than itself."""
    values = ["a|b", "a", "b", "<pad>", "= x", "c\\|d", "!", "back\\slash"]
    script = Script(gs)
    script.grid(num_experiments=len(values))
    for experiment, value in enumerate(values):
        script.config(experiment, {"token": value})
        script.job(experiment, "RUNNING")
    script.write(board.storage)
    page = pages.open(board, address(gs, lay="table"))
    table(page, len(values))
    page.get_by_role("button", name="filter token", exact=True).click()
    box = page.get_by_role("dialog", name="filter by token")
    chosen: set[str] = set()
    for value in ("<pad>", "a|b", "c\\|d", "= x", "back\\slash", "!"):
        box.get_by_role("checkbox", name=re.compile(rf"^{re.escape(value)} 1$")).check()
        chosen.add(value)
        until(page, lambda: {row["token"] for row in rows(page)} == chosen, f"only {chosen}")
        expect(box.get_by_role("checkbox", checked=True)).to_have_count(len(chosen))
    page.reload()
    until(page, lambda: {row["token"] for row in rows(page)} == chosen, f"only {chosen}")

"""The page in a real Chromium: opening it, reading it, and hearing of everything that goes wrong in it.

Playwright keeps an event loop running in its thread while a browser is open, so what brings a loop of its own (`deliver`
of boards.py) is run in another thread here.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    StorageState,
    WebSocket,
    expect,
    sync_playwright,
)
from playwright.sync_api import Error as BrowserError

from tests.ml_board import boards
from tests.ml_board.boards import Board

PATIENCE = 60_000  # ms for anything that should take none
expect.set_options(timeout=PATIENCE)

Theme = Literal["light", "dark"]

SERVER_GONE = r"net::ERR_|WebSocket connection to|the board does not answer"
"""What a browser says while there is no board."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Without one the test is skipped, and fails where `CI` is set."""
    path = shutil.which("chromium")
    if path is None:
        reason = "no Chromium: the page is not tested in a browser (apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        try:
            yield browser
        finally:
            browser.close()


class Pages:
    """Opens pages, each in a browser context of its own, and listens to all of them.

    What a page complains of, whatever script fails on it, and every request to anybody but the board are `problems`,
    unless they were announced.
    """

    _cookies: ClassVar[dict[tuple[str, str], StorageState]] = {}
    """What boards gave for their tokens."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._announced: list[str] = []
        self._problems: list[str] = []
        self._close: list[Callable[[], None]] = []

    def open(
        self,
        board: Board,
        address: str = "#/",
        *,
        theme: Theme = "light",
        width: int = 1280,
        height: int = 800,
        token: bool = True,
        csp: bool = True,
        also: tuple[str, ...] = (),
    ) -> Page:
        """The page at `address`, newly loaded. `token`: it was brought before. `also`: whom it may talk to besides."""
        known = self._cookies.get((board.url, board.token)) if token else None
        context = self._browser.new_context(
            storage_state=known,
            locale="en-US",
            timezone_id="UTC",
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",
            bypass_csp=not csp,
        )
        self._close.append(context.close)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        self._listen(page, (board.url, *also))
        if token and board.token and not known:
            page.goto(f"{board.url}/#token={board.token}")
            expect(page.get_by_role("navigation", name="pages")).to_be_visible()
            assert board.token not in page.url
            page.goto("about:blank")
            self._cookies[board.url, board.token] = {"cookies": context.storage_state()["cookies"], "origins": []}
        page.goto(f"{board.url}/{address}")
        return page

    def open_file(self, path: Path, address: str = "", *, theme: Theme = "light", csp: bool = True) -> Page:
        """The page that a file is, in a browser without network; it asks for no other file either."""
        context = self._browser.new_context(
            locale="en-US",
            timezone_id="UTC",
            viewport={"width": 1280, "height": 800},
            color_scheme=theme,
            reduced_motion="reduce",
            bypass_csp=not csp,
            offline=True,
        )
        self._close.append(context.close)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        self._listen(page, ())

        def asked(request: Request) -> None:
            if request.url.startswith("file:") and request.url.partition("#")[0] != path.as_uri():
                self._problems.append(f"request to {request.url[:300]}")

        page.on("request", asked)
        page.goto(f"{path.as_uri()}{address}")
        return page

    def announce(self, pattern: str) -> None:
        """Complaints that this is found in are expected, from now on and before."""
        self._announced.append(pattern)

    @property
    def problems(self) -> list[str]:
        return [text for text in self._problems if not any(re.search(one, text) for one in self._announced)]

    def close(self) -> None:
        for close in self._close:
            close()

    def _listen(self, page: Page, allowed: tuple[str, ...]) -> None:
        known = {urlsplit(url).netloc for url in allowed}

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning", "assert"):
                self._problems.append(f"console {message.type}: {message.text} ({message.location['url']})")

        def failed(error: BrowserError) -> None:
            self._problems.append(f"page error: {error.stack or error.message}")

        def asked(request: Request | WebSocket) -> None:
            scheme, host = urlsplit(request.url)[:2]
            if scheme not in ("blob", "data", "about", "file") and host not in known:
                self._problems.append(f"request to {request.url[:300]}")

        def dialog(found: Dialog) -> None:
            self._problems.append(f"dialog: {found.message[:300]}")
            found.dismiss()

        page.on("console", said)
        page.on("pageerror", failed)
        page.on("request", asked)
        page.on("websocket", asked)
        page.on("dialog", dialog)
        page.on("crash", lambda _: self._problems.append("the page has crashed"))
        page.on("popup", lambda popup: self._problems.append(f"another page: {popup.url}"))


def aside(work: Callable[[], Any]) -> Any:
    """Do something in another thread, where no event loop runs."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def deliver(board: Board, lines: bytes, grid_search_id: str = "g") -> None:
    """Hand over a batch; all of it is taken."""
    answer = aside(lambda: boards.deliver(board, lines, grid_search_id))
    assert answer["rejected"] == 0, answer
    assert not answer["expected"], answer


def until(page: Page, found: Callable[[], Any], what: str | Callable[[], str], seconds: float = PATIENCE / 1000) -> Any:
    """The first true answer of `found`, while the page goes on. `what`: called when it has not come."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, (
            f"waited {seconds:g} s for {what if isinstance(what, str) else what()}; "
            f"the page shows:\n{page.inner_text('body')[:3000]}"
        )
        page.wait_for_timeout(50)
    return answer


# --- where the page is ---


def address(grid_search_id: str, page: str = "analysis", **query: str | int) -> str:
    """As the page writes it."""
    return f"#/{grid_search_id}/{page}" + (f"?{urlencode(query)}" if query else "")


def query_of(page: Page) -> dict[str, str]:
    """What is chosen, by the address of the page."""
    return {key: values[0] for key, values in parse_qs(page.url.partition("?")[2], keep_blank_values=True).items()}


def connection(page: Page) -> Locator:
    """How the page stands with the board, as it is told to a screen reader."""
    return page.locator(".connection").get_by_role("status")


def settled(page: Page, kind: str | re.Pattern[str] = re.compile("^(live|finished|replay)$")) -> None:
    expect(connection(page)).to_have_text(kind)


# --- what the page shows ---

Row = dict[str, str]


def rows(page: Page, name: str = "experiments") -> list[Row]:
    """The rows of a grid or table that are in the document, in their order: title of the column -> text."""
    lines: list[list[str]] = page.evaluate(
        """name => {
            const named = one => one.closest("[aria-label]").ariaLabel === name;
            const grid = [...document.querySelectorAll("[role=grid], table")].find(named);
            if (!grid) return [];
            const rows = [...grid.querySelectorAll("[role=row], tr")].filter(row => row.children.length > 1);
            rows.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex);
            return rows.map(row => [...row.children].map(cell => cell.innerText.trim()));
        }""",
        name,
    )
    if not lines:
        return []
    titles = [title.rstrip("↑↓ \n") for title in lines[0]]
    return [dict(zip(titles, line, strict=True)) for line in lines[1:]]


def rows_when(page: Page, fit: Callable[[list[Row]], Any], what: str, name: str = "experiments") -> list[Row]:
    """The rows as they were when they first were as `fit` says: read once more, they may be others."""

    def there() -> list[list[Row]]:
        found = rows(page, name)
        return [found] if fit(found) else []

    found: list[list[Row]] = until(page, there, what)
    return found[0]


def number(text: str) -> float:
    """A score as the page shows it; the best one is starred."""
    return float(text.replace("★", "").replace("∞", "inf").strip())


def downloaded(page: Page, click: Callable[[], None]) -> tuple[str, bytes]:
    """The name and the content of the file that a click brings."""
    with page.expect_download() as waiting:
        click()
    download = waiting.value
    return download.suggested_filename, Path(download.path()).read_bytes()


def table_csv(page: Page) -> list[Row]:
    """The table of experiments as its button brings it."""
    button = page.get_by_role("region", name="experiments").get_by_role("button", name="CSV")
    _, content = downloaded(page, button.click)
    return parse_csv(content)


def chart(page: Page, score: str) -> Locator:
    """The chart of a score, in sight, with all its points."""
    found = page.get_by_role("article", name=score, exact=True)
    found.scroll_into_view_if_needed()
    expect(found.locator("canvas").first).to_be_attached()
    expect(found.get_by_text("loading")).to_have_count(0)
    return found


def chart_csv(page: Page, score: str) -> list[tuple[int, int, float]]:
    """Experiment, epoch and value of all points that a chart's CSV has, in their order."""
    _, content = downloaded(page, chart(page, score).get_by_role("button", name=f"CSV: {score}", exact=True).click)
    return sorted((int(line["experiment"]), int(line["epoch"]), float(line["value"])) for line in parse_csv(content))


def parse_csv(content: bytes) -> list[Row]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))


PIXELS = """async ([content, wanted, off]) => {
    const bytes = Uint8Array.from(atob(content), one => one.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], {type: "image/png"}));
    const {width, height} = image;
    const ctx = new OffscreenCanvas(width, height).getContext("2d");
    ctx.drawImage(image, 0, 0);
    const {data} = ctx.getImageData(0, 0, width, height);
    const [red, green, blue] = [1, 3, 5].map(i => parseInt(wanted.slice(i, i + 2), 16));
    const colours = new Set(), places = [];
    let opaque = true;
    for (let i = 0; i < data.length; i += 4) {
        colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
        opaque &&= data[i + 3] === 255;
        const far = Math.abs(data[i] - red) + Math.abs(data[i + 1] - green) + Math.abs(data[i + 2] - blue);
        if (far <= off) places.push([i / 4 % width, Math.floor(i / 4 / width)]);
    }
    return {width, height, colours: colours.size, opaque, places};
}"""


@dataclass
class Picture:
    width: int
    height: int
    colours: int
    """How many there are."""
    opaque: bool
    places: list[tuple[int, int]]
    """x and y from the upper left corner of the pixels of one colour."""


def picture(page: Page, png: bytes, colour: str, off: int = 0) -> Picture:
    """What a browser makes of a PNG. `colour`: `#0072b2`; `off`: by how much red, green and blue may differ in sum."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found = page.evaluate(PIXELS, [base64.b64encode(png).decode(), colour, off])
    found["places"] = [(x, y) for x, y in found["places"]]
    return Picture(**found)

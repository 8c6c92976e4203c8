"""Whatever a log says is text on every page: no script runs, no element comes into being, no link leads elsewhere, and
what stands beside it is right. The page's own policy is off here, so that nothing but the page protects it."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.ml_board.boards import Board
from tests.ml_board.browser import (
    Pages,
    address,
    chart,
    downloaded,
    number,
    parse_csv,
    rows,
    settled,
    table_csv,
    until,
)
from tests.ml_board.page.logs import Script

GS = "constructor"
"""The most awkward name that a grid search can have."""

TEXTS = [
    "<img src=x onerror=\"window.pwned='img'\">",
    "</script><script>window.pwned='script'</script><!--",
    "\"'><svg onload=\"window.pwned='svg'\"><x-foreign>",
    "<iframe srcdoc=\"<script>parent.pwned='frame'</script>\"></iframe><style>*{display:none}</style>",
    "javascript:window.pwned='link'",
    "{{constructor.constructor('window.pwned=1')()}}${window.pwned=1}",
    "__proto__",
    "constructor",
    "toString",
    "=1+1",
    "@SUM(A1:A9)",
    '+cmd|" /C calc"!A0',
    "-2+3",
    "\u202eright to left\u202c and \u200b\u200dnothing\ufeff",
    "\0\a\x1b[31mred\x7f\u0085\u2028\u2029",
    "  around  and  between  ",
    "new\nline\r\n\ttab",
    "a,b;c|d&e=f?g#h%2C%25+i/j\\k",
    "größe \U0001f600 日本 ع",
    "NaN",
    "null",
    "1e999",
    "é" * 1000,
    "x" * 2000,
]
MANY = len(TEXTS)
SCORES: list[float] = [
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    5e-324,
    -0.0,
    123456789.125,
    *(one / 7 for one in range(7, MANY)),
]
FILES = ["__proto__", "constructor", "_.-._", "A" * 128, "0"]
"""Names that a file of a checkpoint can have."""


def key(text: str) -> str:
    """Of the score that is called so and is of a split that is called so."""
    return f"{text}/{text}"


def hostile(grid_search_id: str) -> Script:
    """Each text wherever an event or a file has one: as experiment of its own, whose plain score is known."""
    script = Script(grid_search_id, source=TEXTS[0])
    script.grid(num_experiments=MANY, run_config=TEXTS[1], grid_search_config=TEXTS[3], reason=TEXTS[0])
    script.file("run_config.yml", "\n".join(TEXTS).encode())
    script.file("grid_search_config.yml", TEXTS[0].encode())
    for one, text in enumerate(TEXTS):
        config = {text: [text, {text: text}], "__proto__": {"polluted": text}, "nested": {"constructor": {text: None}}}
        script.config(one, {text: text, "all.of them": text, "plain": one + 0.5}, 3, config)
        script.file(
            f"{one}/system_info.json", json.dumps({text: text, "all_packages": [f"{text}=={text}", text]}).encode()
        )
        script.file(f"{one}/output.log", f"{text}\n".encode() * 3)
        script.job(one, "RUNNING", device=text, host=text)
        script.progress(one, 1, split=text)
        for epoch in range(3):
            script.scores(one, epoch, {"val/plain": SCORES[one]})
            entry = {"metric": text, "split": text, "score": one + epoch / 8}
            script.raw(
                "evaluation_result",
                {"grid_search_id": grid_search_id, "experiment_id": one, "epoch": epoch, "metric_scores": [entry]},
            )
        script.raw("warning", {"grid_search_id": grid_search_id, "experiment_id": one, "message": text})
        script.raw(
            "nondeterminism_detected",
            {
                "grid_search_id": grid_search_id,
                "experiment_id": one,
                "epoch": 1,
                "changes": [{"score": text, "before": 1, "now": "NaN"}],
            },
        )
        script.raw("system_info", {"grid_search_id": grid_search_id, "host": text, "info": {text: text}})
        script.raw(
            "job_output",
            {"grid_search_id": grid_search_id, "experiment_id": one, "job_id": text, "offset": 0, "text": text},
        )
        script.raw(text, {"grid_search_id": grid_search_id, text: text})
        named = [{"name": name, "size": 7, "sha256": text} for name in (text, "../../../etc/passwd", "..")]
        script.raw(
            "checkpoint",
            {"grid_search_id": grid_search_id, "experiment_id": one, "epoch": 1, "action": "SAVED", "files": named},
        )
        if one % 3 == 0:
            script.job(one, "FAILED", error=text, stacktrace=f"{text}\n{text}", reason=text)
        elif one % 3 == 1:
            script.job(one, "STOPPED", reason=text)
    script.checkpoint(0, 2, {name: name.encode() for name in FILES})
    for payload in (None, 1, "text", [], [None], {"grid_search_id": grid_search_id, "experiment_id": {}}):
        for event_type in ("job_status", "__proto__", "constructor"):
            script.raw(
                event_type, payload if isinstance(payload, dict) else {"grid_search_id": grid_search_id, "x": payload}
            )
    return script


@pytest.fixture(scope="module", autouse=True)
def _hostile(board: Board) -> None:
    hostile(GS).write(board.storage)


@pytest.fixture
def page(board: Board, pages: Pages) -> Page:
    """The table with all columns; whoever comes by another way is led there first."""
    page = pages.open(
        board,
        address(GS, lay="table", cols=f"status,device,last:val/plain,best:val/plain,error,{columns()}"),
        csp=False,
        width=1900,
    )
    until(page, lambda: len(rows(page)) > 5, "the table")
    return page


def columns() -> str:
    """Those of what was swept and of all scores, as the address has them."""
    names = [f"swept:{text}" for text in [*TEXTS, "all.of them", "plain"]] + [f"last:{key(text)}" for text in TEXTS]
    return ",".join(name.replace("%", "%25").replace(",", "%2C") for name in names)


FOREIGN = """() => {
    const bad = [];
    const origin = location.origin;
    for (const one of document.querySelectorAll("*")) {
        const name = one.localName;
        if (/^(img|image|iframe|frame|object|embed|base|applet|marquee|video|audio|math|style|foreignobject|x-foreign)$/.test(name) && one.getAttribute("src") !== "./icon.svg")
            bad.push(one.outerHTML);
        if (name === "script" && !one.src.startsWith(origin + "/")) bad.push(one.outerHTML);
        for (const {name: key, value} of one.attributes) {
            if (key.startsWith("on") || key === "srcdoc") bad.push(`${name} ${key}=${value}`);
        }
        if (one.href && typeof one.href === "string" && !one.href.startsWith(origin + "/")) bad.push(`${name} ${one.href}`);
        if (one.getAttribute("xlink:href") || one.getAttribute("formaction") || one.getAttribute("action")) bad.push(`${name} leads elsewhere`);
    }
    if (window.pwned !== undefined) bad.push(`pwned: ${window.pwned}`);
    if ({}.polluted !== undefined) bad.push("the prototype of all objects");
    return bad.map(text => text.slice(0, 300));
}"""


def harmless(page: Page) -> None:
    found = page.evaluate(FOREIGN)
    assert not found, found


def says(page: Page, text: str, where: str = "main") -> None:
    """It is there character for character, but for what HTML takes out of any text."""
    until(
        page,
        lambda: text.replace("\r", "") in (page.locator(where).first.text_content() or "").replace("\r", ""),
        repr(text[:80]),
    )


# --- the pages ---


def test_the_table(page: Page) -> None:
    harmless(page)
    found = {int(line["experiment"]): line for line in table_csv(page)}
    assert set(found) == set(range(MANY))
    for one, text in enumerate(TEXTS):
        line = found[one]
        assert line[formula_proof(text)] == formula_proof(text), (one, line[formula_proof(text)])
        assert line["all.of them"] == formula_proof(text)
        assert line["device"] == formula_proof(text)
        assert float(line["plain"]) == one + 0.5
        value = float(line["last val/plain"].replace("Infinity", "inf"))
        assert value == SCORES[one] or (math.isnan(value) and math.isnan(SCORES[one]))
        assert (line["best val/plain"] == "") == (not math.isfinite(SCORES[one]))
        assert float(line[f"last {key(text)}"]) == one + 2 / 8
        # What was swept elsewhere was not swept here: not even `constructor`, which every object has.
        for other in TEXTS:
            if other != text:
                assert line[formula_proof(other)] == "", (text, other)
                assert line[f"last {key(other)}"] == ""
        if one % 3 < 2:
            assert line["error"] == formula_proof(text)


def formula_proof(text: str) -> str:
    """As a cell of a CSV has it: what a spreadsheet would run begins with an apostrophe there."""
    return f"'{text}" if text[0] in "=+-@\t\r" and text != "-2" else text


def test_what_the_rows_show(page: Page) -> None:
    shown = {int(row["#"]): row for row in rows(page)}
    for one, row in shown.items():
        text = TEXTS[one]
        assert row["status"] == ("failed", "stopped", "running")[one % 3]
        found = number(row["val/plain"])
        assert math.isclose(found, SCORES[one], rel_tol=1e-3) or math.isnan(found) is math.isnan(SCORES[one]) is True
        if text == " ".join(text.split()) and text.isprintable():
            assert row["device"] == text
            assert row["of them"] == text
    page.get_by_role("searchbox", name="filter experiments").fill("window.pwned='img'")
    until(page, lambda: [row["#"] for row in rows(page)] == ["0"], "the row that has it")
    page.get_by_role("searchbox", name="filter experiments").fill("constructor=constructor")
    until(page, lambda: [row["#"] for row in rows(page)] == [str(TEXTS.index("constructor"))], "the row that has it")
    harmless(page)


def test_the_notices_and_the_best(board: Board, page: Page) -> None:
    page.goto(f"{board.url}/{address(GS)}")
    page.locator("details").filter(has_text="warnings:").locator("summary").click()
    for text in TEXTS:
        says(page, text)
    page.get_by_role("combobox", name="score to judge by").select_option(value=key("constructor"))
    expect(page.locator(".winner")).to_contain_text(f"{TEXTS.index('constructor') + 2 / 8:.4f}")
    assert key("  around  and  between  ") in page.get_by_role("combobox", name="score to judge by").locator(
        "option"
    ).evaluate_all("all => all.map(one => one.value)")
    harmless(page)


def test_the_charts(board: Board, page: Page) -> None:
    """One of each score, with its points; also as table, and as CSV whose labels are no formulas."""
    page.goto(f"{board.url}/{address(GS, lay='charts', sel=f'0-{MANY - 1}')}")
    articles = page.locator("article.chart")
    expect(articles).to_have_count(1 + MANY)
    names = articles.evaluate_all("all => all.map(one => one.ariaLabel)")
    assert set(names) == {"val/plain", *(key(text) for text in TEXTS)}
    for one, text in enumerate(TEXTS):
        card = articles.nth(names.index(key(text)))
        card.scroll_into_view_if_needed()
        expect(card.locator("canvas").first).to_be_attached()
        expect(card.get_by_text("loading")).to_have_count(0)
        name, content = downloaded(page, card.get_by_role("button", name="CSV").click)
        assert name.isprintable()
        assert not set('<>"/\\:|?*') & set(name)
        found = parse_csv(content)
        assert [(int(line["experiment"]), int(line["epoch"]), float(line["value"])) for line in found] == [
            (one, epoch, one + epoch / 8) for epoch in range(3)
        ]
        for line in found:
            assert line["label"][0] not in "=+-@\t\r"
            assert text[:20].strip("=+-@ ") in line["label"]
    harmless(page)
    card = articles.nth(names.index("val/plain"))
    card.get_by_role("button", name="table").first.click()
    expect(card.get_by_role("table")).to_contain_text("∞")
    # A line under the pointer, and the legend.
    expect(page.locator(".legend")).to_contain_text(TEXTS[0][:30])
    other = articles.nth(names.index(key(TEXTS[0])))
    other.get_by_role("img").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tooltip")).to_contain_text(TEXTS[0][:30])
    other.get_by_role("button", name="enlarge").click()
    other.get_by_role("button", name="pin").click()
    page.reload()
    expect(page.locator("article.chart").first).to_have_attribute("aria-label", key(TEXTS[0]))
    harmless(page)
    # Of fewer experiments, whose lines are called otherwise: what begins like a formula is none.
    page.goto("about:blank")
    page.goto(f"{board.url}/{address(GS, lay='charts', sel='9,11')}")
    _, content = downloaded(page, chart(page, "val/plain").get_by_role("button", name="CSV").click)
    assert {line["label"].split(",")[0] for line in parse_csv(content)} == {"'=1+1 =1+1", 'of them +cmd|" /C calc"!A0'}


def test_all_charts_at_once(board: Board, pages: Pages) -> None:
    """In a window that shows all of them, the points of all are asked for together, however long their names are."""
    page = pages.open(board, address(GS, lay="charts", sel=f"0-{MANY - 1}"), width=1900, height=12_000)
    expect(page.locator("article.chart")).to_have_count(1 + MANY)
    expect(page.locator("article.chart canvas")).to_have_count(2 * (1 + MANY))
    expect(page.locator("article.chart").get_by_text("loading")).to_have_count(0)


def test_the_sweep(board: Board, page: Page) -> None:
    page.goto(f"{board.url}/{address(GS, 'sweep')}")
    section = page.get_by_role("region", name="parallel coordinates", exact=True)
    expect(section).to_be_visible()
    for name in ("heatmap", "importance"):
        expect(page.get_by_role("region", name=name, exact=True)).to_be_visible()
    _, content = downloaded(page, section.get_by_role("button", name="CSV").click)
    lines = {int(line["experiment"]): line for line in parse_csv(content)}
    for one, text in enumerate(TEXTS):
        assert lines[one]["all.of them"] == formula_proof(text)
        assert float(lines[one]["plain"]) == one + 0.5
    # A category filters, whatever it is called.
    axis = section.locator(".axis").filter(has_text="them").first
    axis.locator("summary").click()
    for text in ("constructor", TEXTS[0], "=1+1", "a,b;c|d&e=f?g#h%2C%25+i/j\\k"):
        box = axis.locator("label").filter(has=page.locator(".clip", has_text=text)).get_by_role("checkbox").first
        box.uncheck()
        expect(box).not_to_be_checked()
        box.check()
        expect(box).to_be_checked()
    harmless(page)


def test_compared(board: Board, page: Page) -> None:
    for chosen in ("0-7", "8-15", f"16-{MANY - 1}"):
        page.goto("about:blank")
        page.goto(f"{board.url}/{address(GS, 'compare', sel=chosen)}")
        first, _, last = chosen.partition("-")
        differences = page.get_by_role("region", name="configuration differences")
        for text in TEXTS[int(first) : int(last) + 1]:
            says(page, text if text.strip() == text and text not in ("null", "1e999") else json.dumps(text)[1:9])
        expect(differences).to_contain_text("polluted")
        page.get_by_text("Environment", exact=True).click()
        expect(page.get_by_role("region", name="environment differences")).to_be_visible()
        harmless(page)


@pytest.mark.parametrize("one", [*range(4), TEXTS.index("__proto__"), TEXTS.index("constructor"), 13, 14, 16, MANY - 1])
def test_an_experiment(board: Board, page: Page, one: int) -> None:
    text = TEXTS[one]
    page.goto(f"{board.url}/{address(GS, 'experiment', exp=one, flip='config,environment')}")
    expect(page.get_by_role("heading", name=f"Experiment {one}", exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="output", exact=True)).to_be_attached()
    for part in ("progress", "scores"):
        if part == "scores" or one % 3 == 0 or part == "progress":
            says(page, text, f"[aria-label={part}]")
    says(page, text, "[aria-label='job attempts']")
    if one % 3 == 0:
        says(page, text, "[aria-label=error]")
        says(page, text, "[aria-label='stack trace']")
    says(page, text, "[aria-label=checkpoints]")
    until(page, lambda: page.locator(".tree").count() == 2, "configuration and environment")
    trees = page.locator(".tree").all_text_contents()
    assert all(text.replace("\r", "") in tree.replace("\r", "") for tree in trees)
    swept = page.locator(".tree em").evaluate_all(
        "all => all.map(one => one.parentElement.querySelector('.key').textContent)"
    )
    assert swept == [text]  # and not whatever every object has
    links = page.locator("[aria-label=checkpoints] a[download]").evaluate_all("all => all.map(one => one.href)")
    assert all(link.startswith(f"{board.url}/") for link in links)
    harmless(page)


def test_files_of_a_checkpoint_by_awkward_names(board: Board, page: Page) -> None:
    page.goto(f"{board.url}/{address(GS, 'experiment', exp=0)}")
    table = page.get_by_role("region", name="checkpoints")
    for name in FILES:
        found, content = downloaded(page, table.get_by_role("link", name=name, exact=True).first.click)
        assert content == name.encode()
        assert found.endswith(name) or name == "A" * 128
    table.get_by_role("button", name="show sha256").first.click()
    expect(table.locator("code")).to_have_count(len(FILES))
    assert all(len(text) == 64 for text in table.locator("code").all_text_contents())


def test_the_events(board: Board, page: Page) -> None:
    """In their rows, and each as JSON."""
    lines = [json.loads(line) for line in board.lines(GS)]
    for one in (0, 3, TEXTS.index("constructor"), TEXTS.index("__proto__"), 14):
        text = TEXTS[one]
        for event in lines:
            payload = event["payload"]
            if event["event_type"] != text and not (
                event["event_type"] in ("warning", "job_status", "checkpoint", "experiment_config")
                and payload.get("experiment_id") == one
            ):
                continue
            seq = event["seq"]
            page.goto(f"{board.url}/{address(GS, 'events', seq=seq)}")
            opened = page.get_by_role("region", name=f"event {seq}", exact=True).get_by_label("as JSON")
            expect(opened).to_have_count(1)
            assert json.loads(opened.text_content() or "") == event
            harmless(page)
    page.goto(f"{board.url}/{address(GS, 'events', type='constructor')}")
    until(page, lambda: {row["type"] for row in rows(page, "events")} == {"constructor"}, "the events of that type")
    harmless(page)


def test_settings_and_the_list(board: Board, pages: Pages, page: Page) -> None:
    pages.announce("404.*validation_strategy_config")  # there is none
    page.goto(f"{board.url}/{address(GS, 'settings', show='run_config')}")
    for text in TEXTS:
        says(page, text, "[aria-label='run configuration']")
    harmless(page)
    for name in ("toString", "0", "x" * 64, "a..b--c__d"):
        hostile(name).write(board.storage)
    page.goto(f"{board.url}/#/")
    for name in (GS, "toString", "0", "x" * 64, "a..b--c__d"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    harmless(page)
    page.get_by_role("link", name="toString", exact=True).click()
    until(page, lambda: len(rows(page)) > 5, "its table")


def test_in_replay(board: Board, page: Page) -> None:
    head = len(board.lines(GS))
    for at in (head // 3, head - 1):
        for view in ("analysis", "sweep", "events"):
            page.goto(f"{board.url}/{address(GS, view, at=at)}")
            settled(page, "replay")
            expect(page.get_by_role("region", name="replay", exact=True)).to_contain_text(f"{at:,}")
            harmless(page)
        page.goto(f"{board.url}/{address(GS, 'experiment', exp=3, at=at)}")
        says(page, TEXTS[3], "[aria-label='job attempts']")
        harmless(page)


# --- addresses ---

ADDRESSES = [
    "#/?sort=constructor",
    "#/?sort=-__proto__&q=<img src=x onerror=window.pwned=1>",
    f"#/{GS}/analysis?sort=constructor&by=constructor&lay=constructor&x=constructor&f.constructor=constructor",
    f"#/{GS}/analysis?sort=-__proto__&cols=__proto__,constructor&z.__proto__=1~2&tab=__proto__&pin=constructor&lay=beside",
    f"#/{GS}/analysis?q={quote(TEXTS[0])}&cq={quote(TEXTS[0])}&leg={quote(TEXTS[0])}",
    f"#/{GS}/sweep?ax=constructor|-__proto__&by=toString&of=constructor&hx=constructor&hy=__proto__&f.swept:constructor=constructor",
    f"#/{GS}/compare?sel=0-3&base=constructor&find={quote(TEXTS[1])}",
    f"#/{GS}/experiment?exp=constructor",
    f"#/{GS}/experiment?exp=0&find={quote(TEXTS[2])}&env=constructor&flip=config,constructor",
    f"#/{GS}/events?type=__proto__&exp=constructor&seq=toString",
    f"#/{GS}/settings?show=constructor",
    f"#/{GS}/constructor?at=constructor",
    f"#/{GS}/analysis?at=-5",
    f"#/{GS}/analysis?at=1.5",
    f"#/{GS}/analysis?at=1e999",
    f"#/{GS}/__proto__",
    "#/<script>window.pwned=1</script>/analysis",
    "#/javascript:window.pwned=1",
    "#/%22%3E%3Cimg%20src=x%20onerror=window.pwned=1%3E",
]  # fmt: skip


def test_whatever_the_address_says(board: Board, pages: Pages, page: Page) -> None:
    """Something is shown, and the next page as if nothing had been."""
    pages.announce("404.*validation_strategy_config")  # there is none
    for one in ADDRESSES:
        page.goto(f"{board.url}/{one}")
        expect(page.get_by_role("main")).not_to_be_empty()
        expect(page.get_by_role("main").get_by_role("heading").first).to_be_attached()
        harmless(page)
        page.goto(f"{board.url}/{address(GS, lay='table')}")
        until(page, lambda: len(rows(page)) > 5, f"the table after {one}")


def test_output_with_markup_and_escapes(board: Board, page: Page) -> None:
    page.goto(f"{board.url}/{address(GS, 'experiment', exp=0)}")
    output: Any = page.get_by_role("region", name="output", exact=True)
    output.scroll_into_view_if_needed()
    expect(output).to_have_text(f"{TEXTS[0]}\n" * 3)
    page.goto(f"{board.url}/{address(GS, 'experiment', exp=14)}")
    output.scroll_into_view_if_needed()
    expect(output).to_contain_text("red")
    assert "\x1b" not in (output.text_content() or "")
    harmless(page)

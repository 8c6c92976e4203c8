"""Replay: the page as of any event shows what Python makes of the same events, and nothing can be changed there.

The log is that of tests/ml_board/golden, which has everything in it: failures, jobs that were lost and tried again, epochs
that were run again, scores that are no numbers, and events that nobody knows.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from ml_board.projections import rows as rows_of
from mlgym.record.events import decode_lines
from mlgym.record.fold import State, fold_all
from mlgym.record.report import judged_by
from tests.ml_board.boards import Board
from tests.ml_board.browser import (
    Pages,
    address,
    connection,
    deliver,
    number,
    query_of,
    rows,
    settled,
    table_csv,
    until,
)
from tests.ml_board.golden import write as golden
from tests.ml_board.page.logs import EPOCHS, Script, scores, sweep

GS = golden.GS
LOG = (golden.HERE / "log.jsonl").read_bytes()
HEAD = LOG.count(b"\n")
SEQS = [2, 17, 60, 130, 170, 215, 300, HEAD]
WORDS = {
    "INIT": "waiting",
    "RUNNING": "running",
    "DONE": "done",
    "FAILED": "failed",
    "LOST": "lost",
    "STOPPED": "stopped",
}
COLUMNS = ["status", "epochs", "attempt", "error"]


@pytest.fixture(scope="module", autouse=True)
def _golden(board: Board) -> None:
    board.log(GS).parent.mkdir(parents=True)
    board.log(GS).write_bytes(LOG)


def folded(seq: int) -> State:
    return fold_all(State(), [event for event in decode_lines(LOG) if event.seq <= seq])


def columns(seq: int = HEAD) -> list[str]:
    keys = dict.fromkeys(key for experiment in folded(seq).experiments.values() for key in experiment.scores)
    return [*COLUMNS, *(f"{which}:{key}" for key in keys for which in ("best", "last"))]


def expected(seq: int) -> dict[str, dict[str, Any]]:
    """What the table is to say as of an event: experiment -> title of a column -> value; numbers as they are."""
    state = folded(seq)
    found: dict[str, dict[str, Any]] = {}
    for row in rows_of(state)["experiments"]:
        experiment = state.experiments[row["experiment_id"]]
        line = found[str(row["experiment_id"])] = {
            "status": WORDS[row["status"]],
            "epochs": float(row["epochs_done"]),
            "attempt": float(row["attempt"]) if row["attempt"] else None,
            "error": row["error"] if row["error"] is not None else row["reason"],
        }
        for key, score in row["scores"].items():
            _, mode = judged_by([experiment], key)
            best = score["lowest"] if mode == "min" else score["highest"]
            line[f"last {key}"] = value(score["last"][1])
            line[f"best {key}"] = None if best is None else value(best[1])
    return found


def value(score: Any) -> float:
    return (
        {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[score]
        if isinstance(score, str)
        else float(score)
    )


def same(found: str, wanted: Any) -> bool:
    if wanted is None or isinstance(wanted, str):
        return found.removeprefix("'") == (wanted or "")
    if found == "":
        return False
    got = float(found.replace("Infinity", "inf"))
    return (math.isnan(got) and math.isnan(wanted)) or got == wanted


def agrees(page: Page, seq: int) -> None:
    """The table says, to the last bit, what Python makes of the events up to `seq`."""
    wanted = expected(seq)
    if not wanted:
        expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()
        return
    until(page, lambda: {row["#"] for row in rows(page)} == set(wanted), f"the experiments {sorted(wanted)}")
    # Banner and slider say a moment as soon as it is here, the table with the paint after that.
    wrong: list[Any] = []

    def right() -> bool:
        wrong[:] = disagreements(page, wanted)
        return not wrong

    until(page, right, lambda: f"what is as of event {seq}, and not {wrong[:5]}")


def disagreements(page: Page, wanted: dict[str, dict[str, Any]]) -> list[Any]:
    """What the table says otherwise: experiment, title, what stands there, and what should."""
    found = {line["experiment"]: line for line in table_csv(page)}
    shown = {row["#"]: row for row in rows(page)}
    if set(found) != set(wanted) or set(shown) != set(wanted):
        return [("experiments", sorted(found), sorted(shown), sorted(wanted))]
    wrong: list[Any] = []
    for experiment, line in wanted.items():
        for title, here in found[experiment].items():
            if title != "experiment" and not same(here, line.get(title)):
                wrong.append((experiment, title, here, line.get(title)))
        # What is to be seen is that, rounded.
        if shown[experiment]["status"] != line["status"]:
            wrong.append((experiment, "status", shown[experiment]["status"], line["status"]))
        for title, here in line.items():
            cell = shown[experiment].get(title.removeprefix("last "))
            if cell and isinstance(here, float) and "/" in title:
                got = number(cell)
                close = math.isclose(got, here, rel_tol=1e-3, abs_tol=1e-4)
                if not (close or math.isnan(got) is math.isnan(here) is True or min(got, here) > 1e308):
                    wrong.append((experiment, title, cell, here))
    return wrong


def banner(page: Page) -> Locator:
    return page.get_by_role("region", name="replay", exact=True)


def at(page: Page, seq: int) -> None:
    expect(banner(page)).to_contain_text(re.compile(rf"as of event {seq:,}\b"))
    expect(page.get_by_role("slider", name="event", exact=True)).to_have_value(str(seq))


def view(seq: int | None = None, **more: str) -> str:
    """With every column that there is at the end."""
    query = {"lay": "table", "cols": ",".join(columns()), **more}
    return address(GS, **query, **({} if seq is None else {"at": str(seq)}))


def test_by_address(board: Board, pages: Pages) -> None:
    page = pages.open(board, view(SEQS[0]), width=1900)
    for seq in SEQS:
        page.goto(f"{board.url}/{view(seq)}")
        at(page, seq)
        agrees(page, seq)
        expect(connection(page)).to_have_text("replay")
    # As of the newest event is what it is live.
    page.goto(f"{board.url}/{view()}")
    expect(banner(page)).to_have_count(0)
    agrees(page, HEAD)


def test_by_slider_and_steps(board: Board, pages: Pages) -> None:
    page = pages.open(board, view(), width=1900)
    agrees(page, HEAD)
    slider = page.get_by_role("slider", name="event", exact=True)
    slider.focus()
    slider.press("ArrowLeft")
    at(page, HEAD - 1)
    agrees(page, HEAD - 1)
    slider.press("Home")
    at(page, 0)
    agrees(page, 0)
    slider.fill("150")
    at(page, 150)
    agrees(page, 150)
    assert query_of(page)["at"] == "150"
    back, on = page.get_by_role("button", name="one event back"), page.get_by_role("button", name="one event on")
    for seq in (149, 148):
        back.click()
        at(page, seq)
    agrees(page, 148)
    for seq in range(149, 172):
        on.click()
        at(page, seq)
    agrees(page, 171)
    page.get_by_role("grid", name="experiments").focus()
    page.keyboard.press(".")
    at(page, 172)
    page.keyboard.press(",")
    page.keyboard.press(",")
    at(page, 170)
    agrees(page, 170)
    page.reload()
    at(page, 170)
    agrees(page, 170)
    slider.fill(str(HEAD))
    at(page, HEAD)
    expect(on).to_be_disabled()
    agrees(page, HEAD)


def test_by_playing(board: Board, pages: Pages) -> None:
    """From the start to the end, as fast as it goes; and paused on the way."""
    page = pages.open(board, view(1), width=1900)
    at(page, 1)
    page.get_by_role("combobox", name="speed").select_option("\N{MULTIPLICATION SIGN}1")
    page.get_by_role("button", name="play", exact=True).click()
    slider = page.get_by_role("slider", name="event", exact=True)
    until(page, lambda: int(slider.input_value()) >= 5, "some events")
    page.get_by_role("button", name="pause", exact=True).click()
    here = until(page, lambda: query_of(page)["at"] != "1" and query_of(page)["at"], "where it was paused")
    at(page, int(here))
    agrees(page, int(here))
    page.get_by_role("combobox", name="speed").select_option("\N{MULTIPLICATION SIGN}1000")
    page.get_by_role("main").focus()
    page.keyboard.press("Space")
    at(page, HEAD)
    expect(page.get_by_role("button", name="play", exact=True)).to_be_visible()  # it has stopped by itself
    until(page, lambda: query_of(page)["at"] == str(HEAD), "the address of the end")
    agrees(page, HEAD)
    page.get_by_role("button", name="back to live").click()
    expect(banner(page)).to_have_count(0)
    settled(page, "finished")
    agrees(page, HEAD)


def test_charts_show_no_later_point(board: Board, gs: str, pages: Pages) -> None:
    script = sweep(gs)
    script.write(board.storage)
    lines = board.lines(gs)
    seq = next(
        i for i, line in enumerate(lines, 1) if b'"experiment_id":1,"epoch":3' in line and b"evaluation_result" in line
    )
    page = pages.open(board, address(gs, "experiment", exp=1, tab="val/accuracy", at=seq))
    chart = page.get_by_role("article", name="val/accuracy", exact=True)
    table = chart.get_by_role("region", name="val/accuracy as a table")
    expect(table.get_by_role("row")).to_have_count(1 + 4)
    page.get_by_role("button", name="one event back").click()
    expect(table.get_by_role("row")).to_have_count(1 + 3)
    page.get_by_role("button", name="back to live").click()
    expect(table.get_by_role("row")).to_have_count(1 + EPOCHS + 1)


def test_nothing_changes_there(board: Board, gs: str, pages: Pages) -> None:
    """Neither by what comes, nor by a button; and back to live everything is there."""
    script = sweep(gs)
    deliver(board, script.drain(), gs)
    head = len(board.lines(gs))
    page = pages.open(board, address(gs, lay="table", cols="status,last:val/accuracy", at=head))
    at(page, head)
    until(page, lambda: len(rows(page)) == 12, "the table")
    before = rows(page)
    script.job(11, "RUNNING")
    for epoch in range(4):
        script.scores(11, epoch, scores(11, epoch))
    deliver(board, script.drain(), gs)
    expect(page.get_by_role("slider", name="event", exact=True)).to_have_attribute("max", str(head + 5))
    assert rows(page) == before
    at(page, head)
    for name in ("sweep", "compare", "experiment", "events", "analysis"):
        page.get_by_role("navigation", name="pages").get_by_role("link", name=name).click()
        at(page, head)
        assert query_of(page)["at"] == str(head)
    page.goto(f"{board.url}/{address(gs, 'experiment', exp=1, at=head)}")
    delete = page.get_by_role("region", name="checkpoints").get_by_role("button", name=re.compile("delete"))
    expect(delete).to_have_count(EPOCHS)
    for one in delete.all():
        expect(one).to_be_disabled()
    page.get_by_role("button", name="back to live").click()
    expect(banner(page)).to_have_count(0)
    expect(delete).to_have_count(EPOCHS)
    for one in delete.all():
        expect(one).to_be_enabled()
    page.get_by_role("navigation", name="pages").get_by_role("link", name="analysis").click()
    settled(page)
    until(page, lambda: [row["status"] for row in rows(page)][11:] == ["running"], "the newest status")


def test_events_end_there(board: Board, pages: Pages) -> None:
    page = pages.open(board, address(GS, "events", at=60))
    at(page, 60)
    table = page.get_by_role("region", name="events", exact=True)
    expect(table.get_by_role("link", name="60", exact=True)).to_be_visible()
    assert max(int(row["seq"]) for row in rows(page, "events") if row["seq"].isdigit()) == 60
    table.get_by_role("link", name="60", exact=True).click()
    page.get_by_role("region", name="event 60").get_by_role("button", name="replay from here").click()
    at(page, 60)


def test_a_moment_that_is_none(board: Board, pages: Pages) -> None:
    """Beyond the end is the end; what is no number is the beginning; before the beginning is the beginning."""
    page = pages.open(board, view(10**9), width=1900)
    at(page, HEAD)
    agrees(page, HEAD)
    page.goto("about:blank")
    page.goto(f"{board.url}/{address(GS, at='x')}")
    at(page, 0)
    page.goto("about:blank")
    page.goto(f"{board.url}/{address(GS, at='-5')}")
    at(page, 0)
    expect(page.get_by_role("button", name="one event back")).to_be_disabled()


def test_a_log_of_nothing(board: Board, tmp_path: Path, pages: Pages) -> None:
    script = Script("empty")
    script.raw("dream", {"grid_search_id": "empty"})
    script.write(board.storage)
    page = pages.open(board, address("empty", at=0))
    at(page, 0)
    expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()

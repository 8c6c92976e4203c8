"""Logs that are not as they should be: of the earlier tool, of a later one, cut, damaged, empty, or of a run that died.
Each shows what it has, says what it lacks, and breaks nothing."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from typing import Any

from playwright.sync_api import Page, expect

from tests.conftest import ROOT
from tests.ml_board.boards import Board
from tests.ml_board.browser import (
    Pages,
    address,
    chart_csv,
    connection,
    deliver,
    number,
    rows,
    rows_when,
    settled,
    table_csv,
    until,
)
from tests.ml_board.page.logs import Script, accuracy, sweep

COLUMNS = "status,epochs,attempt,device,last:val/f1,best:val/f1,last:val/ce,error"
SECONDS = 1_700_000_000


def old(event_type: str, ts: float, **payload: Any) -> str:
    """A line of the earlier tool."""
    return json.dumps({"event_type": event_type, "creation_ts": ts, "payload": {"grid_search_id": "old", **payload}})


def old_job(experiment: int, status: str, begin: float, end: float = -1, **more: Any) -> str:
    return old("job_status", begin, job_id=f"{experiment}", job_type="CALC", experiment_id=experiment, status=status, starting_time=begin, finishing_time=end, device="cuda:1", **{"error": "", "stacktrace": "", **more})  # fmt: skip


def old_scores(experiment: int | str, epoch: int, f1: Any, ce: Any) -> str:
    return old("evaluation_result", SECONDS + epoch, experiment_id=experiment, epoch=epoch, metric_scores=[{"metric": "f1", "split": "val", "score": f1}], loss_scores=[{"loss": "ce", "split": "val", "score": ce}])  # fmt: skip


def old_log() -> str:
    """Everything that the earlier tool has written so or otherwise: cut lines, NaN, numbers as text, a warm start."""
    lines = [
        old("experiment_config", SECONDS * 1e6, experiment_id=1, job_id="1", config={"lr": 0.25}),
        old("experiment_config", SECONDS * 1e6, experiment_id=2, job_id="2", config={"lr": 0.5}),
        old_job(1, "INIT", -1),
        old_job(1, "RUNNING", SECONDS + 1.5),
        old("experiment_status", SECONDS + 2, experiment_id=1, status="train", num_epochs=3, current_epoch=1, splits=["val"], current_split="val", num_batches=8, current_batch=4),
        old_scores(1, 0, 0.125, 3.5),
        old_scores(1, 1, 0.625, math.nan),
        old_scores("1", 2, "0.5", math.inf),
        '{"event_type": "evaluation_result", "creation_ts": 17000, "payl' + old_scores(1, 3, 0.375, 1.5),
        "nobody knows what this is",
        old_job(1, "DONE", SECONDS + 1.5, SECONDS + 9),
        old_job(2, "RUNNING", SECONDS + 3),
        old_scores(2, 0, None, 2.5),
        old_job(2, "DONE", SECONDS + 3, SECONDS + 4, error="out of memory", stacktrace="in step\nout of memory"),
        old_job(2, "INIT", -1),
        old_job(2, "RUNNING", SECONDS + 13),
        old("dream", SECONDS + 14, of="sheep"),
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def put(board: Board, gs: str, content: bytes) -> None:
    board.log(gs).parent.mkdir(parents=True)
    board.log(gs).write_bytes(content)


def go(page: Page, board: Board, gs: str, **query: str) -> None:
    """To a grid search, from another one that is to be seen until then."""
    page.goto(f"{board.url}/{address(gs, **query)}")
    expect(page.get_by_role("banner").get_by_text(gs, exact=True)).to_be_visible()


def table(page: Page, board: Board, gs: str) -> list[dict[str, str]]:
    """The table of experiments, exactly."""
    go(page, board, gs, lay="table", cols=COLUMNS)
    until(page, lambda: rows(page), "the table")
    return table_csv(page)


# --- of the earlier tool ---


def test_an_old_log_says_all_that_it_has(board: Board, gs: str, pages: Pages) -> None:
    put(board, gs, old_log().encode())
    before = board.log(gs).read_bytes()
    page = pages.open(board, width=1600)
    listed = page.get_by_role("row").filter(has=page.get_by_role("link", name=gs, exact=True))
    expect(listed).to_contain_text("1 of 2")
    expect(listed).not_to_contain_text("%")  # of how many epochs it does not say
    first, second = table(page, board, gs)
    assert (first["status"], second["status"]) == ("done", "running")
    assert (first["attempt"], second["attempt"]) == ("1", "2")
    assert (first["device"], first["epochs"]) == ("cuda:1", "3")
    assert (float(first["last val/f1"]), float(first["best val/f1"])) == (0.375, 0.625)
    assert (float(first["last val/ce"]), second["last val/f1"]) == (1.5, "NaN")
    page.goto(f"{board.url}/{address(gs, lay='charts')}")
    found = chart_csv(page, "val/ce")
    assert [(one, epoch) for one, epoch, _ in found] == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert [str(value) for *_, value in found] == ["3.5", "nan", "inf", "1.5", "2.5"]
    page.goto(f"{board.url}/{address(gs, 'experiment', exp=2)}")
    until(page, lambda: len(rows(page, "job attempts")) == 2, "the attempts")
    newest, failed = rows(page, "job attempts")
    assert (newest["status"], failed["status"]) == ("running", "failed")
    assert "out of memory" in failed["why it ended"]
    page.goto(f"{board.url}/{address(gs, 'events', type='dream')}")
    until(page, lambda: [row["what"] for row in rows(page, "events")] == ["of sheep"], "what nobody knows")
    page.goto(f"{board.url}/{address(gs)}")
    expect(page.get_by_role("main")).to_contain_text(re.compile(r"\d+ B of the log cannot be read"))
    assert board.log(gs).read_bytes() == before


def test_an_imported_log_is_the_same(board: Board, gs: str, pages: Pages) -> None:
    """Served as it is, and made into today's."""
    put(board, gs, old_log().encode())
    command = [sys.executable, "-m", "mlgym", "import", str(board.log(gs)), "--event_storage_path", str(board.storage)]
    subprocess.run(
        [*command, "--grid_search_id", f"{gs}-imported"],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    page = pages.open(board, width=1600)
    served, imported = table(page, board, gs), table(page, board, f"{gs}-imported")
    assert served == imported
    charts = []
    for name in (gs, f"{gs}-imported"):
        go(page, board, name, lay="charts")
        charts.append(str(chart_csv(page, "val/f1")))
    assert charts[0] == charts[1]


def test_an_old_log_is_followed(board: Board, gs: str, pages: Pages) -> None:
    """Whoever still writes it, line by line or half a line."""
    put(board, gs, old_log().encode())
    page = pages.open(board, address(gs, lay="table", cols=COLUMNS), width=1600)
    until(page, lambda: len(rows(page)) == 2, "the table")
    line = f"{old_scores(2, 1, 0.75, 0.25)}\n"
    with board.log(gs).open("a") as log:
        log.write(line[:50])
        log.flush()
        log.write(line[50:])
        log.flush()
        until(page, lambda: number(rows(page)[1]["val/f1"]) == 0.75, "the new score")
        log.write(old_scores(2, 2, 0.875, 0.125))  # without an end
        log.flush()
        until(page, lambda: number(rows(page)[1]["val/f1"]) == 0.875, "the one after")


# --- of a later tool ---


def test_unknown_types_and_fields(board: Board, gs: str, pages: Pages) -> None:
    """What is known counts; what is not is kept, shown among the events, and changes nothing else."""
    script = sweep(gs)
    script.raw("dream", {"grid_search_id": gs, "about": {"sheep": 1}})
    script.raw("evaluation_result", {"grid_search_id": gs, "experiment_id": 0, "epoch": 6, "weather": "rain", "metric_scores": [{"metric": "accuracy", "split": "val", "score": 0.8125, "unit": "%"}]})  # fmt: skip
    script.raw("evaluation_result", {"grid_search_id": gs, "experiment_id": 1, "epoch": 7, "metric_scores": [{"metric": "accuracy", "split": "val", "score": "great"}]})  # fmt: skip
    script.raw("job_status", {"grid_search_id": gs, "experiment_id": 2, "job_id": "2-1", "status": "DREAMING"})
    script.raw("grid_search", {"grid_search_id": gs, "status": "PAUSED"})
    script.raw("checkpoint", {"grid_search_id": gs, "experiment_id": 5, "epoch": 1, "action": "FROZEN"})
    script.write(board.storage)
    head = len(board.lines(gs))
    page = pages.open(board, address(gs, lay="table", cols="status,epochs,last:val/accuracy"), width=1600)
    until(page, lambda: len(rows(page)) == 12, "the table")
    settled(page, "live")
    found = {int(line["experiment"]): line for line in table_csv(page)}
    assert float(found[0]["last val/accuracy"]) == 0.8125
    assert found[0]["epochs"] == "6"
    assert float(found[1]["last val/accuracy"]) == accuracy(1, 5)
    assert found[2]["status"] == "done"
    page.goto(f"{board.url}/{address(gs, 'experiment', exp=5)}")
    expect(page.get_by_text("There is none.")).to_be_visible()
    page.goto(f"{board.url}/{address(gs, 'events', seq=head)}")
    last = {str(head - back) for back in range(6)}
    there = rows_when(page, lambda found: last <= {row["seq"] for row in found}, "the last events", "events")
    shown = {row["seq"]: row for row in there}
    assert there[-1]["type"] == "checkpoint"
    assert "DREAMING" in shown[str(head - 2)]["what"]
    assert "sheep:1" in shown[str(head - 5)]["what"]
    expect(page.get_by_role("region", name=f"event {head}", exact=True)).to_contain_text('"FROZEN"')
    # As of each of them.
    page.goto(f"{board.url}/{address(gs, lay='table', cols='status,epochs,last:val/accuracy', at=head - 5)}")
    until(page, lambda: rows(page) and rows(page)[0]["val/accuracy"] == f"{accuracy(0, 5):.4f}", "what was before")


# --- cut and damaged ---


def test_a_last_line_that_is_torn(board: Board, gs: str, pages: Pages) -> None:
    """What came before it is there, and it itself once it is whole."""
    script = sweep(gs)
    script.scores(0, 6, {"val/accuracy": 0.0625})
    script.write(board.storage)
    whole = board.log(gs).read_bytes()
    head = whole.count(b"\n")
    cut = len(whole) - 20
    board.log(gs).write_bytes(whole[:cut])
    page = pages.open(board, address(gs, lay="table", cols="last:val/accuracy"), width=1600)
    until(page, lambda: len(rows(page)) == 12, "the table")
    settled(page, "live")
    assert rows(page)[0]["val/accuracy"] == f"{accuracy(0, 5):.4f}"
    expect(page.get_by_role("slider", name="event", exact=True)).to_have_value(str(head - 1))
    expect(page.get_by_role("main")).not_to_contain_text("cannot be read")
    with board.log(gs).open("ab") as log:
        log.write(whole[cut:])
    until(page, lambda: rows(page)[0]["val/accuracy"] == "0.0625", "the last event")
    expect(page.get_by_role("slider", name="event", exact=True)).to_have_value(str(head))


def test_a_log_that_is_damaged(board: Board, gs: str, pages: Pages) -> None:
    """Some lines in its middle are gone: the others count, the page says so, and asks for what is not there only once."""
    sweep(gs).write(board.storage)
    lines = board.log(gs).read_bytes().splitlines(keepends=True)
    head = len(lines)
    at = next(i for i, line in enumerate(lines) if b'"experiment_id":3,"epoch":5' in line)
    lost = len(lines[at]) + len(lines[at - 1])
    lines[at] = b"\xff" * (len(lines[at]) - 1) + b"\n"
    lines[at - 1] = lines[at - 1].replace(b'"', b"'")
    board.log(gs).write_bytes(b"".join(lines))
    page = pages.open(board, address(gs, cols="last:val/accuracy"), width=1600)
    until(page, lambda: len(rows(page)) == 12, "the table")
    assert rows(page)[3]["val/accuracy"] == f"{accuracy(3, 4):.4f}"
    assert rows(page)[4]["val/accuracy"] == f"{accuracy(4, 5):.4f}"
    expect(page.get_by_role("main")).to_contain_text(f"{lost} B of the log cannot be read")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{board.url}/{address(gs, 'events', seq=at)}")
    around = {str(seq) for seq in range(at - 1, at + 3)}
    there = rows_when(page, lambda found: around <= {row["seq"] for row in found}, "the events around it", "events")
    shown = {row["seq"]: row for row in there}
    for seq in (at, at + 1):
        assert "cannot be read" in shown[str(seq)]["what"]
    assert shown[str(at + 2)]["type"]
    page.get_by_role("button", name="one event back").click()  # whatever it asks for now, comes after the events
    expect(connection(page)).to_have_text("replay")
    expect(page.get_by_role("slider", name="event", exact=True)).to_have_value(str(head - 1))
    assert sum("/events?" in url for url in asked) < 10, asked
    # On both sides of the gap.
    page.goto(f"{board.url}/{address(gs, lay='table', cols='last:val/accuracy', at=at + 2)}")
    expect(page.get_by_role("slider", name="event", exact=True)).to_have_value(str(at + 2))
    there = rows_when(page, lambda found: len(found) == 12 and not found[4]["val/accuracy"], "the table as of then")
    assert there[3]["val/accuracy"] == f"{accuracy(3, 4):.4f}"


# --- nothing, and nobody ---


def test_an_empty_log(board: Board, gs: str, pages: Pages) -> None:
    """It is listed and can be opened; what comes is shown."""
    put(board, gs, b"")
    page = pages.open(board)
    page.get_by_role("link", name=gs, exact=True).click()
    expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()
    for name, heading in (
        ("sweep", "No experiments yet"),
        ("compare", "Choose what to compare"),
        ("experiment", "No experiment yet"),
    ):
        page.get_by_role("navigation", name="pages").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    page.get_by_role("navigation", name="pages").get_by_role("link", name="events").click()
    expect(page.get_by_role("heading", name="Events")).to_be_visible()
    page.get_by_role("navigation", name="pages").get_by_role("link", name="analysis").click()
    script = Script(gs)
    script.grid(num_experiments=1)
    script.config(7, {"lr": 0.5})
    deliver(board, script.drain(), gs)
    until(page, lambda: [row["#"] for row in rows(page)] == ["7"], "the first experiment")


def test_a_grid_search_that_died(board: Board, gs: str, pages: Pages) -> None:
    """It has begun, has not ended, and nobody runs it: the page does not say that it runs, nor when it will be done."""
    sweep(gs).write(board.storage)
    page = pages.open(board, address(gs))
    expect(page.get_by_role("banner")).to_contain_text("interrupted (no process runs it)")
    expect(page.get_by_role("main")).to_contain_text("1 cut off")
    expect(page.get_by_role("main")).not_to_contain_text("1 running")
    expect(page.get_by_role("main")).not_to_contain_text(re.compile(r"about .* left"))
    until(page, lambda: len(rows(page)) == 12, "the table")
    before = table_csv(page)
    page.goto(f"{board.url}/{address(gs, 'experiment', exp=10)}")
    expect(page.get_by_role("main")).to_contain_text("running (no process runs it)")
    facts = page.locator("dl.facts").inner_text().split()
    assert facts[facts.index("left") + 1] == "\N{EN DASH}"
    page.goto(f"{board.url}/{address(gs)}")
    until(page, lambda: len(rows(page)) == 12, "the table")
    assert table_csv(page) == before  # time does not go on there
    page.goto(f"{board.url}/#/")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=gs, exact=True))
    expect(row).to_contain_text("dead")
    expect(page.get_by_text("no process runs it")).to_contain_text("type: warmstart")


def test_one_that_was_interrupted_says_why(board: Board, gs: str, pages: Pages) -> None:
    script = sweep(gs)
    script.grid("INTERRUPTED", reason="ctrl-c")
    script.write(board.storage)
    page = pages.open(board, address(gs))
    expect(page.get_by_role("banner")).to_contain_text("interrupted")
    expect(page.get_by_role("main")).to_contain_text("ctrl-c")
    settled(page, "finished")

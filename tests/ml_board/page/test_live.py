"""The page while something happens: a real training from start to end, and a board that dies under it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from mlgym.record.log import read_state
from mlgym.record.report import report
from tests.conftest import DIGITS, ROOT, replace
from tests.ml_board.boards import Board
from tests.ml_board.browser import (
    SERVER_GONE,
    Pages,
    address,
    chart_csv,
    connection,
    number,
    rows,
    rows_when,
    settled,
    table_csv,
    until,
)
from tests.ml_board.page.logs import Script, scores

# Everything that rows and the connection have ever said, however short it was to be seen.
RECORD = """() => {
    const seen = window.seen = {connection: [], rows: {}};
    const look = () => {
        const kind = document.querySelector(".connection [role=status]")?.textContent;
        if (kind && seen.connection.at(-1) !== kind) seen.connection.push(kind);
        for (const row of document.querySelectorAll("[role=row][data-id]")) {
            const said = (seen.rows[row.dataset.id] ??= []);
            const cells = [...row.children].map(cell => cell.textContent.trim());
            if (cells.join() !== said.at(-1)?.join()) said.push(cells);
        }
    };
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
    look();
}"""


# --- a training ---

TRAINED = 30
"""Epochs at most: enough for somebody to see something happen."""


@contextmanager
def training(folder: Path, board: Board) -> Iterator[subprocess.Popen[str]]:
    """Four experiments of `TRAINED` epochs on handwritten digits, two at a time, which deliver to `board`."""
    folder.mkdir()
    for file in DIGITS.iterdir():
        if file.is_file():
            (folder / file.name).write_text(file.read_text())
    replace(folder / "run_config.yml", "num_epochs: 12", f"num_epochs: {TRAINED}")
    replace(folder / "gs_config.yml", "values: [16, 32, 64]", "values: [16, 32]")
    replace(folder / "gs_config.yml", "values: [1e-4, 1e-3, 1e-2, 1e-1]", "values: [1e-3, 1e-2]")
    with (folder / "run_config.yml").open("a") as config:
        config.write(f"logging:\n  websocket_logging_servers: [{board.url}]\n  gs_rest_api_endpoint: {board.url}\n")
    process = subprocess.Popen(
        [sys.executable, "run.py", "--config_path", "run_config.yml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": board.environment["XDG_CONFIG_HOME"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_training_from_start_to_end(tmp_path: Path, pages: Pages) -> None:
    with Board(tmp_path) as board:
        page = pages.open(board, width=1600)
        expect(page.get_by_role("heading", name="No grid search yet")).to_be_visible()
        page.evaluate(RECORD)
        with training(tmp_path / "digits", board) as process:
            listed = page.get_by_role("cell").get_by_role("link", name=re.compile(r"^\d{4}-\d\d-\d\d--"))
            # It loads all that it needs first, which takes a while where others do the same.
            until(page, lambda: listed.count() or process.poll() is not None, "a training", seconds=240)
            listed.click()
            grid = page.get_by_role("grid", name="experiments")
            expect(grid.get_by_role("row")).to_have_count(1 + 4)
            output = process.communicate(timeout=240)[0]
            assert process.returncode == 0, output
        gs = page.url.partition("/#/")[2].partition("/")[0]
        settled(page, "finished")
        until(page, lambda: [row["status"] for row in rows(page)] == ["done"] * 4, "the end of all experiments")
        seen: dict[str, Any] = page.evaluate("seen")
        assert [kind for kind in seen["connection"] if kind in ("live", "finished", "lost", "absent")][-2:] == [
            "live",
            "finished",
        ]
        assert not {"lost", "absent"} & set(seen["connection"])
        progressed(seen["rows"], list(rows(page)[0]))
        expect(page.get_by_role("banner")).to_contain_text("finished")
        agrees_with_status(page, board, gs)
        all_points(page, board, gs)


def progressed(seen: dict[str, list[list[str]]], titles: list[str]) -> None:
    """Every row has gone through its states in their order, and its epochs never went back; some were seen all the way."""
    status, epochs = titles.index("status"), titles.index("epochs")
    assert sorted(seen) == ["0", "1", "2", "3"]
    whole = 0
    for lines in seen.values():
        states = list(dict.fromkeys(line[status] for line in lines))
        assert states == [one for one in ("waiting", "running", "done") if one in states]
        assert states[-1] == "done"
        # Columns come and go with what is known, but these two stay before them.
        counts = [
            int(found[1])
            for line in lines
            for cell in line[epochs:]
            if (found := re.fullmatch(rf"(\d+)/{TRAINED}", cell))
        ]
        assert counts == sorted(counts)
        whole += "running" in states and len({count for count in counts if count > 0}) > 1
    assert whole >= 2


def agrees_with_status(page: Page, board: Board, gs: str) -> None:
    """The table says what `mlgym status --json` says, and what a snapshot says."""
    command = [sys.executable, "-m", "mlgym", "status", gs, "--event_storage_path", str(board.storage), "--json"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    found = json.loads(ended.stdout)
    assert found["status"] == "FINISHED"
    key = found["score"]
    page.goto(f"{board.url}/{address(gs, lay='table', cols=f'status,epochs,best:{key},last:{key}')}")
    # The rows were there before, with other columns.
    titles = ["", "#", "status", "epochs", f"best {key}", key]
    there = rows_when(page, lambda found: len(found) == 4 and list(found[0]) == titles, "the table")
    shown = {int(row["#"]): row for row in there}
    table = {int(line["experiment"]): line for line in table_csv(page)}
    for row in found["rows"]:
        line, seen = table[row["experiment_id"]], shown[row["experiment_id"]]
        assert line["status"].upper() == row["status"]
        assert int(line["epochs"]) == row["epochs_done"] > 1
        assert float(line[f"best {key}"]) == row["best"]["value"]
        assert float(line[f"last {key}"]) == row["last"]["value"]
        assert abs(number(seen[f"best {key}"]) - row["best"]["value"]) < 1e-4
        assert abs(number(seen[key]) - row["last"]["value"]) < 1e-4
        assert ("★" in seen[f"best {key}"]) == (
            row["best"]["value"] == max(one["best"]["value"] for one in found["rows"])
        )
    snapshot = board.get(f"/grid_searches/{gs}/snapshot?scores=summary").json()
    assert {one["experiment_id"]: one["scores"][key]["last"][1] for one in snapshot["experiments"]} == {
        one: float(line[f"last {key}"]) for one, line in table.items()
    }


def all_points(page: Page, board: Board, gs: str) -> None:
    """Each chart has every epoch of every experiment once."""
    state = read_state(board.log(gs))
    page.goto(f"{board.url}/{address(gs, lay='charts')}")
    for key in report(state).score or "", "val/cross_entropy_loss":
        found = chart_csv(page, key)
        assert found == [
            (one, epoch, value)
            for one, experiment in sorted(state.experiments.items())
            for epoch, value in sorted(experiment.scores[key].items())
        ]
        assert {one for one, *_ in found} == {0, 1, 2, 3}


# --- a board that dies ---

EXPERIMENTS, EPOCHS = 4, 150


class Producer(threading.Thread):
    """Delivers batches one after the other, each again until it was taken, as a run does; `allowed` of them."""

    def __init__(self, board: Board, gs: str, batches: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.left = batches
        self._board = board
        self._gs = gs
        self.failures = 0
        self.allowed = 0
        self.stop = False

    def run(self) -> None:
        while self.left and not self.stop:
            if self.allowed == 0:
                time.sleep(0.01)
                continue
            try:
                answer = asyncio.run(self._deliver())
            except Exception:  # whatever a board says that dies
                self.failures += 1
                time.sleep(0.05)
                continue
            assert not answer["rejected"], answer
            self.left = self.left[1:]
            self.allowed -= 1

    async def _deliver(self) -> dict[str, Any]:
        async with self._board.client() as client:
            message = {"grid_search_id": self._gs, "events": self.left[0]}
            answer: dict[str, Any] = await client.call("mlgym_events", message, timeout=3)
            return answer


def batches(gs: str) -> list[bytes]:
    """Every epoch of every experiment, with numbered warnings between them, of which a page keeps each."""
    script = Script(gs)
    script.grid(num_experiments=EXPERIMENTS)
    for experiment in range(EXPERIMENTS):
        script.config(experiment, {"lr": 10.0**-experiment}, EPOCHS)
        script.job(experiment, "RUNNING")
    found = [script.drain()]
    for epoch in range(EPOCHS + 1):
        for experiment in range(EXPERIMENTS):
            script.progress(experiment, epoch, 40, num_epochs=EPOCHS)
            script.scores(experiment, epoch, scores(experiment, epoch))
        script.raw("warning", {"grid_search_id": gs, "message": f"warning number {epoch}."})
        if epoch % 2:
            found.append(script.drain())
    for experiment in range(EXPERIMENTS):
        script.job(experiment, "DONE")
    script.grid("FINISHED")
    return [*found, script.drain()]


def test_a_board_that_is_killed_under_the_page(tmp_path: Path, pages: Pages) -> None:
    """While events come in: no event is shown twice, none is missing."""
    gs = "killed"
    pages.announce(SERVER_GONE)
    with Board(tmp_path) as board:
        port = board.port
        every = batches(gs)
        total = sum(lines.count(b"\n") for lines in every)
        producer = Producer(board, gs, every)
        page = pages.open(board, address(gs), width=1600)
        pages.announce("404.*snapshot|404.*events")  # it is not there yet
        producer.start()
        try:
            producer.allowed = 3
            expect(page.get_by_role("grid", name="experiments")).to_be_visible()
            page.evaluate(RECORD)
            for _ in range(2):
                producer.allowed = 35
                until(page, lambda: producer.allowed < 32, "some more batches")
                board.kill()
                expect(connection(page)).to_have_text("lost")
                expect(page.get_by_role("banner")).to_contain_text(re.compile("lost .*, retrying"))
                assert rows(page), "what was there is to be seen still"
                assert producer.allowed > 0, "it was killed too late"
                board.start(port)
                settled(page)
            producer.allowed = len(every)
            until(page, lambda: not producer.left, "the last batch", seconds=240)  # there are many, one at a time
        finally:
            producer.stop = True
            producer.join(60)
        assert producer.failures
        settled(page, "finished")
        until(page, lambda: [row["status"] for row in rows(page)] == ["done"] * EXPERIMENTS, "the end")
        kinds = page.evaluate("seen.connection")
        assert kinds.count("lost") >= 2, kinds
        assert kinds[-1] == "finished"
        assert len(board.lines(gs)) == total  # contiguous, each once

        # The page's own state, without having been loaded again.
        expect(page.get_by_role("slider", name="event", exact=True)).to_have_value(str(total))
        every_warning_once(page)
        for key in ("val/accuracy", "train/cross_entropy_loss"):
            assert chart_csv(page, key) == [
                (one, epoch, scores(one, epoch)[key]) for one in range(EXPERIMENTS) for epoch in range(EPOCHS + 1)
            ]
        every_event_once(page, total)


def every_warning_once(page: Page) -> None:
    told = page.locator("details").filter(has_text=re.compile(r"^\d+ warnings"))
    told.locator("summary").click()

    def numbers() -> list[int]:
        texts = told.get_by_role("listitem").all_inner_texts()
        return [int(re.search(r"warning number (\d+)\.", text)[1]) for text in texts]  # type: ignore[index]

    until(page, lambda: max(numbers(), default=0) == EPOCHS, "the last one to be painted")
    assert numbers() == list(range(EPOCHS, -1, -1))


def every_event_once(page: Page, total: int) -> None:
    """The page of events, scrolled through from its beginning to its end."""
    page.get_by_role("navigation", name="pages").get_by_role("link", name="events").click()
    box = page.get_by_role("region", name="events", exact=True)
    expect(box.get_by_role("link", name=str(total), exact=True)).to_be_visible()
    found: dict[int, str] = {}
    while len(found) < total:
        following = max(found, default=0) + 1
        box.evaluate(
            "(box, top) => { box.scrollTop = top }",
            (following - 1) * (box.evaluate("box => box.scrollHeight") / (total + 1)),
        )

        def there(following: int = following) -> list[dict[str, str]]:
            here = rows(page, "events")
            return here if any(row["seq"] == str(following) and row["type"] for row in here) else []

        for row in until(page, there, f"event {following}"):
            if row["type"]:
                assert found.setdefault(int(row["seq"]), row["what"]) == row["what"]
        assert sorted(found) == list(range(1, len(found) + 1))
    assert sum("warning number" in text for text in found.values()) == EPOCHS + 1

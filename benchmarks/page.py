"""The dashboard's page in a real Chromium, over a real `python -m ml_board`, all on this machine's cores. The
browser draws in software (`--disable-gpu`).

`paint`: a log of 1,000,000 events of 500 experiments (100 epochs, nine scores). The server has read it already. From
the beginning of the navigation until the table shows scores, and until the first chart is drawn.

`live`: 1,000 experiments of 100 epochs, 5,000 events a second over a websocket for 20 seconds, table and four charts
of 20 lines on screen. How busy the page's main thread is (Chromium's TaskDuration over the wall clock), the time its
longest task took (0 when none took over 50 ms, which is what Chromium reports), and how far it was behind in the end.

`pixel`: from before an event is emitted in another process, through spool, forwarder, server and websocket, until the
frame after the one in which the table shows it. Ten events a second.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.boards import TOKEN, Board, helper, say
from benchmarks.emit import PROGRESS
from benchmarks.measure import Result
from mlgym.record.delivery import Server
from mlgym.record.events import (
    EvaluationResult,
    ExperimentConfig,
    GridSearch,
    JobStatus,
    LossScore,
    MetricScore,
    Payload,
)
from mlgym.record.forwarder import Forwarder
from mlgym.record.spool import Spool, new_source

ROUNDS = 5
EVENTS, EXPERIMENTS, EPOCHS = 1_000_000, 500, 100
LIVE_EXPERIMENTS, LIVE_RATE, LIVE_SECONDS = 1_000, 5_000, 20
PIXELS, PIXEL_RATE = 60, 10
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
GOALS = {
    "paint: table": "under 2.5",
    "paint: first chart": "",
    "live: main thread busy": "under 40",
    "live: longest task": "under 100",
    "pixel: median": "under 400",
    "pixel: 95th percentile": "under 400",
}

# Notes when the table first shows scores, and a chart its lines.
WATCH = """
window.seen = {};
window.longest = 0;
const scored = (row) => /0\\.\\d{3}/.test(row.textContent);
const look = () => {
  const rows = [...document.querySelectorAll("[role=row]")].filter(scored);
  if (rows.length > 5) requestAnimationFrame(() => (seen.table ??= performance.now()));
  if (document.querySelector(".u-over")) requestAnimationFrame(() => (seen.chart ??= performance.now()));
  if (!seen.table || !seen.chart) requestAnimationFrame(look);
};
requestAnimationFrame(look);
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) longest = Math.max(longest, entry.duration);
}).observe({ type: "longtask" });
"""

# Notes when the row of experiment 0 shows another number of epochs.
PIXEL = """
() => {
  window.shown = {};
  const look = () => {
    const cells = [...document.querySelectorAll('[role=row][aria-rowindex="2"] > *')].map((cell) => cell.textContent);
    const epoch = cells.map((text) => /^(\\d+)\\/100000$/.exec(text)?.[1]).find(Boolean);
    if (epoch && !(epoch in shown)) {
      shown[epoch] = 0;
      requestAnimationFrame(() => (shown[epoch] = Date.now()));
    }
    requestAnimationFrame(look);
  };
  look();
}
"""


def run() -> list[Result]:
    results = [*_paint(), *_live(), *_pixel()]
    for result in results:
        result.goal = GOALS.get(result.name, "")
    return results


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium of the system's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        try:
            yield found
        finally:
            found.close()


@contextmanager
def opened(of: Any, board: Board, hash_: str) -> Iterator[Any]:
    """A page of a context of its own that is let in already."""
    # The page's policy forbids what the benchmark does: to wait for an expression.
    context = of.new_context(viewport={"width": 1400, "height": 900}, locale="en-US", bypass_csp=True)
    try:
        context.request.post(f"{board.url}/session", headers={"Authorization": f"Bearer {TOKEN}"})
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(f"{board.url}/{hash_}", wait_until="commit")
        yield page
    finally:
        context.close()


# --- logs ---------------------------------------------------------------------------------------------------


def _beginning(experiments: int, epochs: int) -> Iterator[Payload]:
    now = time.time_ns() // 1_000_000
    yield GridSearch(grid_search_id="g", status="STARTED", num_experiments=experiments)
    for i in range(experiments):
        swept = {
            "optimizer.config.params.lr": 10 ** -(1 + i % 4),
            "data_loaders.config.batch_size": 2 ** (4 + i // 4 % 4),
        }
        swept["seed"] = i // 16
        yield ExperimentConfig(grid_search_id="g", experiment_id=i, swept=swept, num_epochs=epochs)
        yield JobStatus(
            grid_search_id="g", experiment_id=i, job_id=f"{i}-1", status="RUNNING", starting_time=now, device="cuda:0"
        )


def _training(experiments: int, epochs: int, progress: int) -> Iterator[Payload]:
    """Of each epoch of each experiment so many progress events and one evaluation."""
    noise = random.Random(0)
    for epoch in range(1, epochs + 1):
        for i in range(experiments):
            done = replace(PROGRESS, grid_search_id="g", experiment_id=i, num_epochs=epochs, current_epoch=epoch)
            for step in range(progress):
                yield replace(done, current_batch=400 * (step + 1) // progress)
            reached = 1 - math.exp(-epoch / (10 + i % 16)) - 0.05 * noise.random()
            yield EvaluationResult(
                grid_search_id="g",
                experiment_id=i,
                epoch=epoch,
                metric_scores=[
                    MetricScore(tag, split, reached - noise.random() / 50)
                    for tag in ("accuracy", "f1")
                    for split in ("train", "val", "test")
                ],
                loss_scores=[LossScore("cross_entropy", split, 2 - 2 * reached) for split in ("train", "val", "test")],
            )


def _deliver(folder: Path, board: Board, payloads: Iterator[Payload]) -> None:
    folder.mkdir()
    source = new_source("job")
    with Spool(folder / f"{source}.jsonl", source) as spool:
        for payload in payloads:
            spool.emit(payload)
    server = Server(board.url, "g", TOKEN, by="benchmark")
    server.connect()
    assert Forwarder(folder, server).close(300)
    server.close()


# --- measured -----------------------------------------------------------------------------------------------


def _paint() -> list[Result]:
    tables, charts = [], []
    with tempfile.TemporaryDirectory() as name, Board(Path(name)) as board, browser() as chromium:
        _deliver(Path(name) / "begin", board, _beginning(EXPERIMENTS, EPOCHS))
        _deliver(Path(name) / "train", board, _training(EXPERIMENTS, EPOCHS, EVENTS // EXPERIMENTS // EPOCHS - 1))
        board.get("/grid_searches/g/summary")
        for round_ in range(ROUNDS + 1):
            with opened(chromium, board, "#/g/analysis") as page:
                page.wait_for_function("seen.table && seen.chart", timeout=60_000)
                if round_:
                    tables.append(page.evaluate("seen.table") / 1000)
                    charts.append(page.evaluate("seen.chart") / 1000)
    return [Result("paint: table", "s", tables), Result("paint: first chart", "s", charts)]


def _live() -> list[Result]:
    busy, longest, behind = [], [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as name, Board(Path(name)) as board, browser() as chromium:
            _deliver(Path(name) / "begin", board, _beginning(LIVE_EXPERIMENTS, EPOCHS))
            _deliver(Path(name) / "warm", board, _training(LIVE_EXPERIMENTS, 2, 0))
            with opened(chromium, board, "#/g/analysis") as page, helper("page", "produce", board.url, name) as read:
                page.wait_for_function("seen.table && seen.chart", timeout=60_000)
                read()
                time.sleep(2)
                session = page.context.new_cdp_session(page)
                session.send("Performance.enable")
                page.evaluate("longest = 0")
                before = _metrics(session)
                time.sleep(LIVE_SECONDS - 6)
                after = _metrics(session)
                longest.append(page.evaluate("longest"))
                share = (after["TaskDuration"] - before["TaskDuration"]) / (after["Timestamp"] - before["Timestamp"])
                busy.append(100 * share)
                head = json.loads(board.get("/grid_searches"))[0]["head"]
                start = time.perf_counter()
                page.wait_for_function(f"Number(document.querySelector('footer input[type=range]').value) >= {head}")
                behind.append(1000 * (time.perf_counter() - start))
    return [
        Result("live: main thread busy", "%", busy),
        Result("live: longest task", "ms", longest),
        Result("live: behind", "ms", behind),
    ]


def _metrics(session: Any) -> dict[str, float]:
    return {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}


def produce(url: str, folder: str) -> None:
    """In a process of its own: deliver events of a training at a steady rate."""
    spools = Path(folder) / "live"
    spools.mkdir()
    source = new_source("job")
    server = Server(url, "g", TOKEN, by="benchmark")
    server.connect()
    forwarder = Forwarder(spools, server)
    events = (event for event in _training(LIVE_EXPERIMENTS, EPOCHS, 9) if getattr(event, "epoch", 3) > 2)
    with Spool(spools / f"{source}.jsonl", source) as spool:
        begun = time.monotonic()
        for number, payload in enumerate(events):
            spool.emit(payload)
            if number == LIVE_RATE:
                say("producing")
            if number % 50 == 0:
                time.sleep(max(0.0, begun + number / LIVE_RATE - time.monotonic()))
            if number == LIVE_RATE * LIVE_SECONDS:
                break
    forwarder.close(30)
    server.close()


def _pixel() -> list[Result]:
    with tempfile.TemporaryDirectory() as name, Board(Path(name)) as board, browser() as chromium:
        _deliver(Path(name) / "begin", board, _beginning(20, 100_000))
        with opened(chromium, board, "#/g/analysis") as page:
            page.wait_for_selector('[role=row][aria-rowindex="2"]')
            page.evaluate(PIXEL)
            emitted: dict[str, float] = {}
            thread = threading.Thread(target=_emit, args=(Path(name) / "late", board.url, emitted))
            thread.start()
            while thread.is_alive():
                page.wait_for_timeout(100)
            page.wait_for_function(f"shown['{PIXELS}']", timeout=10_000)
            shown = page.evaluate("shown")
    delays = [shown[epoch] - at for epoch, at in emitted.items() if shown.get(epoch)]
    assert len(delays) > 0.9 * PIXELS, "the page has left out what it should have shown"
    return [
        Result("pixel: median", "ms", [statistics.median(delays)]),
        Result("pixel: 95th percentile", "ms", [statistics.quantiles(delays, n=20)[-1]]),
    ]


def _emit(folder: Path, url: str, emitted: dict[str, float]) -> None:
    folder.mkdir()
    source = new_source("job")
    server = Server(url, "g", TOKEN, by="benchmark")
    server.connect()
    forwarder = Forwarder(folder, server)
    with Spool(folder / f"{source}.jsonl", source) as spool:
        for epoch in range(1, PIXELS + 1):
            emitted[f"{epoch}"] = time.time() * 1000
            spool.emit(
                EvaluationResult(
                    grid_search_id="g",
                    experiment_id=0,
                    epoch=epoch,
                    metric_scores=[MetricScore("accuracy", "val", epoch / PIXELS)],
                )
            )
            time.sleep(1 / PIXEL_RATE)
    forwarder.close(30)
    server.close()


if __name__ == "__main__":
    for result in {"paint": _paint, "live": _live, "pixel": _pixel}[sys.argv[1]]():
        print(result.line(), [round(value, 2) for value in result.values])

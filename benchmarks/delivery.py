"""The way of an event from a job to a server's disk and on to a dashboard, over a real `python -m ml_board`.

`durable`: events a second, from the first that leaves to the last acknowledgement. mlgym's come from a spool of
200,000 that lies there (nine progress events for each evaluation of nine scores), through the forwarder and one
websocket, and each acknowledgement follows an fdatasync. Beside it, with one scalar an event and fewer of them:
python-socketio, one event a message, to a server of its own that appends a line and flushes it (no fsync);
`mlflow server` on sqlite, without its job runners; TensorBoard's SummaryWriter and its flush (no fsync, and no
server either).

`call`: what one event costs the caller. mlgym's is `emit` in a process of its own that does nothing else, alone and
while a forwarder and a server take the events away: everything at once on the machine's cores, the worst case.

`delay`: from before `emit` in one process until a dashboard in another (protocol 1, python-socketio) has the event,
50 events a second.

`board`: a server takes in 1,000,000 events of 1,000 experiments over the websocket, the last 50,000 of them while 20
dashboards (protocol 1) are attached, one of which never reads. Then servers start on that log: seconds from the
start of the process until each of three requests, one after the other, is answered, with the saved state of the log
and without; the memory is that of such a server after the answers.

Which of MLflow and TensorBoard are not installed is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.boards import TOKEN, Board, helper, say
from benchmarks.emit import PROGRESS, SCORES
from benchmarks.measure import Result
from mlgym.record.delivery import Server
from mlgym.record.events import ExperimentConfig, GridSearch, JobStatus
from mlgym.record.forwarder import Forwarder
from mlgym.record.spool import Spool, new_source

ROUNDS = 5
EVENTS, EMITTED, MESSAGES, SCALARS, CALLS, METRICS = 200_000, 20_000, 5_000, 20_000, 40, 2_000
DELAY_ROUNDS, DELAY_EVENTS, DELAY_RATE = 3, 200, 50
LOG_EVENTS, LATE_EVENTS, LOG_EXPERIMENTS, DASHBOARDS = 1_000_000, 50_000, 1_000, 20
STARTS = 3
GOALS = {
    "durable: mlgym": "at least 100,000",
    "call: mlgym, while delivered": "",
    "delay: median": "under 100",
    "board: after taking in 1,000,000 events": "under 300",
    "board: at most, meanwhile": "under 300",
    "board: at most, 20 dashboards attached": "under 300",
    "start with the saved state: GET /grid_searches": "under 1",
    "start with the saved state: then events?after=999990": "under 1",
    "start with the saved state: then snapshot": "under 1",
    "start without it: GET /grid_searches": "under 6",
    "start without it: then events?after=999990": "under 6",
    "start without it: then snapshot": "under 6",
}


def run() -> list[Result]:
    results = [*_deliveries(), *_delays(), *_board()]
    for result in results:
        result.goal = GOALS.get(result.name, "")
    return results


# --- until durable, and what that costs the caller ------------------------------------------------------------

Measured = dict[str, float]
"""What one variant found in one round, by the name of the result."""

_numbers = count()


def _deliveries() -> list[Result]:
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        board = stack.enter_context(Board(folder))
        emitting = [lambda: _emitted(folder, None), lambda: _emitted(folder, board.url)]
        variants: list[Callable[[], Measured]] = [lambda: _durable(folder, board.url), *emitting]
        port = stack.enter_context(helper("delivery", "line_server", folder / "lines"))()
        variants.append(lambda: asyncio.run(_messages(f"http://127.0.0.1:{port}")))
        variants += stack.enter_context(_mlflow(folder))
        variants += _tensorboard(folder)
        for round_ in range(ROUNDS + 1):
            for variant in variants:
                for name, value in variant().items():
                    found.setdefault(name, [])
                    if round_:
                        found[name].append(value)
    units = {"durable": "events/s", "call": "us an event"}
    results = [Result(name, units[name.partition(":")[0]], values) for name, values in found.items()]
    return sorted(results, key=lambda result: result.name.startswith("call"))


def _write_spool(path: Path, grid_search_id: str, events: int, experiments: int = 4) -> None:
    """What a job of each experiment would say, mixed: nine progress events, one evaluation."""
    with Spool(path, path.stem) as spool:
        epoch = written = 0
        while written < events:
            epoch += 1
            for i in range(experiments):
                for batch in range(0, 360, 40):
                    progress = replace(PROGRESS, grid_search_id=grid_search_id, experiment_id=i)
                    spool.emit(replace(progress, current_epoch=epoch, current_batch=batch))
                spool.emit(replace(SCORES, grid_search_id=grid_search_id, experiment_id=i, epoch=epoch))
                written += 10
                if written >= events:
                    return


def _durable(folder: Path, url: str) -> Measured:
    number = next(_numbers)
    spools = folder / f"spools-{number}"
    _write_spool(spools / f"{new_source('job')}.jsonl", f"g{number}", EVENTS)
    server = Server(url, f"g{number}", TOKEN, by="benchmark")
    server.connect()
    start = time.perf_counter()
    assert Forwarder(spools, server).close()
    seconds = time.perf_counter() - start
    server.close()
    return {"durable: mlgym": EVENTS / seconds}


def _emitted(folder: Path, url: str | None) -> Measured:
    number = next(_numbers)
    spools = folder / f"spools-{number}"
    with ExitStack() as stack:
        if url:
            spools.mkdir()
            server = Server(url, f"g{number}", TOKEN)
            stack.callback(server.close)
            stack.callback(Forwarder(spools, server).close)
        read = stack.enter_context(helper("delivery", "emit_all", spools, f"g{number}"))
        return {f"call: mlgym, {'while delivered' if url else 'alone'}": read()}


def emit_all(folder: str, grid_search_id: str) -> None:
    """In a process of its own: what an `emit` takes there, in microseconds."""
    source = new_source("job")
    progress = replace(PROGRESS, grid_search_id=grid_search_id)
    with Spool(Path(folder) / f"{source}.jsonl", source) as spool:
        start = time.perf_counter()
        for _ in range(EMITTED):
            spool.emit(progress)
        say((time.perf_counter() - start) / EMITTED * 1e6)


def line_server(path: str) -> None:
    """In a process of its own: the plain logger's server."""
    import socketio
    from aiohttp import web

    sio = socketio.AsyncServer(async_mode="aiohttp", async_handlers=False, transports=["websocket"])
    app = web.Application()
    sio.attach(app)
    listening = socket.create_server(("127.0.0.1", 0))
    written = 0
    with Path(path).open("w") as file:

        async def event(sid: str, data: object) -> None:
            nonlocal written
            file.write(json.dumps(data) + "\n")
            file.flush()
            written += 1

        async def done(sid: str) -> int:
            return written

        sio.on("event", event)
        sio.on("done", done)
        say(listening.getsockname()[1])
        web.run_app(app, sock=listening, print=None, access_log=None)


async def _messages(url: str) -> Measured:
    import socketio

    client = socketio.AsyncClient(handle_sigint=False)
    await client.connect(url, transports=["websocket"])
    before = await client.call("done")
    event = {"event_type": "score", "payload": {"experiment_id": 3, "epoch": 7, "metric": "accuracy", "score": 0.9123}}
    start = time.perf_counter()
    for _ in range(MESSAGES):
        await client.emit("event", event)
    called = time.perf_counter()
    assert await client.call("done", timeout=60) == before + MESSAGES
    seconds = time.perf_counter() - start
    await client.disconnect()
    name = "python-socketio, one event a message"
    return {f"durable: {name}": MESSAGES / seconds, f"call: {name}": (called - start) / MESSAGES * 1e6}


@contextmanager
def _mlflow(folder: Path) -> Iterator[list[Callable[[], Measured]]]:
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # or nobody else has a quiet core
    try:
        mlflow = importlib.import_module("mlflow")
        metric_type = importlib.import_module("mlflow.entities").Metric
    except ImportError:
        print("  MLflow is not installed: its rows are left out")
        yield []
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    backend = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "art")]
    with (folder / "mlflow.out").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *backend],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it starts others
        )
    try:
        end = time.monotonic() + 90
        while not _answers(f"{url}/health"):
            assert process.poll() is None and time.monotonic() < end, (folder / "mlflow.out").read_text()
            time.sleep(0.1)
        client = mlflow.MlflowClient(url)
        run_id = client.create_run(client.create_experiment("benchmark")).info.run_id
        steps = count()

        def log_metric() -> Measured:
            start = time.perf_counter()
            for _ in range(CALLS):
                client.log_metric(run_id, "accuracy", 0.9123, step=next(steps))
            seconds = (time.perf_counter() - start) / CALLS
            return {"durable: MLflow server, log_metric": 1 / seconds, "call: MLflow server, log_metric": seconds * 1e6}

        def log_batch() -> Measured:
            start = time.perf_counter()
            for _ in range(METRICS // 500):
                now = int(time.time() * 1000)
                metrics = [metric_type("accuracy", 0.9123, now, next(steps)) for _ in range(500)]
                client.log_batch(run_id, metrics)
            seconds = (time.perf_counter() - start) / METRICS
            name = "MLflow server, log_batch of 500"
            return {f"durable: {name}": 1 / seconds, f"call: {name}": seconds * 1e6}

        yield [log_metric, log_batch]
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _tensorboard(folder: Path) -> list[Callable[[], Measured]]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        writer_type = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        print("  TensorBoard is not installed: its rows are left out")
        return []

    def add_scalar() -> Measured:
        writer = writer_type(str(folder / f"tensorboard-{next(_numbers)}"))
        start = time.perf_counter()
        for step in range(SCALARS):
            writer.add_scalar("accuracy", 0.9123, step)
        called = time.perf_counter()
        writer.flush()
        seconds = time.perf_counter() - start
        writer.close()
        name = "TensorBoard, add_scalar"
        return {f"durable: {name}": SCALARS / seconds, f"call: {name}": (called - start) / SCALARS * 1e6}

    return [add_scalar]


# --- on to a dashboard ----------------------------------------------------------------------------------------


def _delays() -> list[Result]:
    medians, slow = [], []
    with tempfile.TemporaryDirectory() as name, Board(Path(name)) as board:
        for number in range(DELAY_ROUNDS):
            delays = _delay(Path(name) / f"spools-{number}", board.url, f"g{number}")
            medians.append(statistics.median(delays) * 1000)
            slow.append(statistics.quantiles(delays, n=20)[-1] * 1000)
    return [Result("delay: median", "ms", medians), Result("delay: 95th percentile", "ms", slow)]


def _delay(spools: Path, url: str, grid_search_id: str) -> list[float]:
    """Seconds from before `emit` until the other process has the event, for each."""
    spools.mkdir()
    source = new_source("job")
    server = Server(url, grid_search_id, TOKEN)
    with ExitStack() as stack:
        stack.callback(server.close)
        stack.callback(Forwarder(spools, server).close)
        read = stack.enter_context(helper("delivery", "follow", url, grid_search_id, source))
        spool = stack.enter_context(Spool(spools / f"{source}.jsonl", source))
        assert read() == "joined"
        sent = []
        next_at = time.monotonic()
        for batch in range(DELAY_EVENTS):
            time.sleep(max(0.0, next_at - time.monotonic()))
            next_at += 1 / DELAY_RATE
            sent.append(time.monotonic())  # one clock for all processes
            spool.emit(replace(PROGRESS, grid_search_id=grid_search_id, current_batch=batch))
        received: list[float] = read()
    return [after - before for before, after in zip(sent, received, strict=True)]


def follow(url: str, grid_search_id: str, source: str) -> None:
    """In a process of its own: when each event of `source` came."""
    import socketio

    received: dict[int, float] = {}

    async def main() -> None:
        client = socketio.AsyncClient(handle_sigint=False)
        complete = asyncio.Event()

        def event(message: dict[str, Any]) -> None:
            now = time.monotonic()
            events = message["data"] if message["event_id"] == "batched_events" else [message]
            for entry in events:
                if entry["data"]["source"] == source:
                    received.setdefault(entry["data"]["n"], now)
            if len(received) == DELAY_EVENTS:
                complete.set()

        client.on("mlgym_event", event)
        await client.connect(url, transports=["websocket"], auth={"token": TOKEN})
        await client.call("join", {"rooms": [grid_search_id]})
        say("joined")
        await complete.wait()
        await client.disconnect()

    asyncio.run(main())
    say([received[n] for n in sorted(received)])


# --- a million events -----------------------------------------------------------------------------------------


def _board() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        early, late = folder / "early", folder / "late"
        written = LOG_EVENTS - LATE_EVENTS
        _begin(early / f"{new_source('run')}.jsonl")
        for spools, events in ((early, written - 2 * LOG_EXPERIMENTS - 1), (late, LATE_EVENTS)):
            _write_spool(spools / f"{new_source('job')}.jsonl", "g", events, LOG_EXPERIMENTS)
        with Board(folder) as board:
            server = Server(board.url, "g", TOKEN, by="benchmark")
            server.connect()
            assert Forwarder(early, server).close(120)
            head = json.loads(board.get("/grid_searches"))[0]["head"]
            peak = board.memory("VmHWM")
            board.forget_peak()
            with helper("delivery", "watch", board.url, head, head + LATE_EVENTS) as read:
                assert read() == "joined"
                start = time.perf_counter()
                assert Forwarder(late, server).close(120)
                read()
                seconds = time.perf_counter() - start
            attached = board.memory("VmHWM")
            server.close()
            after = board.memory()
        results = [
            Result("board: after taking in 1,000,000 events", "MB", [after]),
            Result("board: at most, meanwhile", "MB", [peak]),
            Result("board: at most, 20 dashboards attached", "MB", [attached]),
            Result("board: to each of 20 dashboards meanwhile", "events/s", [LATE_EVENTS / seconds]),
        ]
        return results + _starts(folder)


def _begin(path: Path) -> None:
    with Spool(path, path.stem) as spool:
        spool.emit(GridSearch(grid_search_id="g", status="STARTED", num_experiments=LOG_EXPERIMENTS))
        for i in range(LOG_EXPERIMENTS):
            spool.emit(ExperimentConfig(grid_search_id="g", experiment_id=i, swept={"lr": i}, num_epochs=200))
            spool.emit(JobStatus(grid_search_id="g", experiment_id=i, job_id=str(i), status="RUNNING"))


def watch(url: str, after: str, until: str) -> None:
    """In a process of its own: dashboards that read everything, as bytes, and one that reads nothing."""
    import aiohttp

    async def dashboard(session: aiohttp.ClientSession, joined: asyncio.Semaphore, reads: bool) -> None:
        async with session.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket", max_msg_size=0) as connection:
            await connection.receive_str()
            await connection.send_str("40" + json.dumps({"token": TOKEN}))
            await connection.receive_str()
            await connection.send_str("42" + json.dumps(["join", {"rooms": ["g"], "after": {"g": int(after)}}]))
            joined.release()
            if not reads:
                await asyncio.sleep(3600)
            while True:
                message = await connection.receive_str()
                if message == "2":  # ping
                    await connection.send_str("3")
                at = message.rfind('{"seq":')
                if at >= 0 and int(message[at + 7 : message.index(",", at)]) >= int(until):
                    return

    async def main() -> None:
        joined = asyncio.Semaphore(0)
        async with aiohttp.ClientSession() as session:
            stalled = asyncio.create_task(dashboard(session, joined, reads=False))
            reading = [asyncio.create_task(dashboard(session, joined, reads=True)) for _ in range(DASHBOARDS - 1)]
            for _ in range(DASHBOARDS):
                await joined.acquire()
            say("joined")
            await asyncio.gather(*reading)
            say("done")
            stalled.cancel()
            await asyncio.wait([stalled])

    asyncio.run(main())


def _starts(folder: Path) -> list[Result]:
    saved = folder / "storage" / "g" / "event_storage.snapshot"
    found: dict[str, list[float]] = {}
    for _ in range(STARTS):
        assert saved.is_file()
        for how in ("with the saved state", "without it"):
            if how == "without it":
                saved.unlink()
            with Board(folder) as board:
                for path, name in (
                    ("/grid_searches", "GET /grid_searches"),
                    ("/grid_searches/g/events?after=999990", "then events?after=999990"),
                    ("/grid_searches/g/snapshot", "then snapshot"),
                ):
                    assert board.get(path)
                    found.setdefault(f"start {how}: {name}", []).append(time.perf_counter() - board.started)
                found.setdefault(f"board: started {how}", []).append(board.memory())
    return [Result(name, "s" if name.startswith("start") else "MB", values) for name, values in found.items()]

"""What large grids cost: processor seconds, bytes and memory, which other work on the machine hardly changes.
`docs/scaling.md` goes on from here to 10,000 experiments and 10^8 events.

`line`: bytes of one event in the log. Configuration: that of `example/digits_grid`; output: 80 characters.

`log`: a hub takes in 10,000,000 events of 1,000 experiments (nine progress events for each evaluation of nine scores,
1,000 epochs), saving included; then a board opens that log, without the saved state and with it, and answers one
request after the other. `SCALING_EVENTS=1000000 python -m benchmarks scaling` is shorter; the disk needs 600 bytes
an event.

`wide`: 10,000 experiments of five epochs, each with a configuration, checkpoints saved and deleted, and an end.

`hubs`: 200,000 events through one hub, and through each of two at the same time, in processes of their own.

`dashboards`: a board takes in 1,000 events a second and is watched by dashboards (protocol 2) that ask for news as
the page does, at most ten times a second. In percent of one core. `followed`: boards without the flock on the same
storage, each with its own dashboards. `behind`: the median dashboard, at the end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import count, islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from benchmarks.boards import ROOT, TOKEN, Board, end, helper, say
from benchmarks.emit import PROGRESS, SCORES
from benchmarks.measure import Result
from mlgym.record.delivery import Server
from mlgym.record.events import (
    EVENT_TYPES,
    CheckpointEvent,
    CheckpointFile,
    ExperimentConfig,
    GridSearch,
    JobOutput,
    JobStatus,
    Payload,
    seal,
)
from mlgym.record.forwarder import Forwarder
from mlgym.record.hub import Hub
from mlgym.record.spool import Spool, new_source

EVENTS = int(os.environ.get("SCALING_EVENTS", "10_000_000"))
EXPERIMENTS = 1_000
WIDE, WIDE_EPOCHS = 10_000, 5
HUB_EVENTS, HUB_ROUNDS = 200_000, 3
ROUNDS, REQUESTS = 5, 200
RATE, SECONDS = 1_000, 10
BATCH = 5_000  # events
PULL_EVERY = 0.1  # seconds, as in ml_board/frontend/src/state/session.ts


def run() -> list[Result]:
    return [*_lines(), *_log(), *_wide(), *_hubs(), *_dashboards()]


# --- events -----------------------------------------------------------------------------------------------------


def _configuration() -> bytes:
    """That of one experiment of the digits example."""
    from mlgym.plan.config import read
    from mlgym.plan.sweep import expand

    config = expand(read(ROOT / "example" / "digits_grid" / "gs_config.yml").value)[0].config
    return msgspec.json.encode(config)


FILES = [
    CheckpointFile(f"{name}.safetensors", 1_234_567, "0123456789abcdef" * 4)
    for name in ("model", "optimizer", "stateful_components")
] + [CheckpointFile("lr_scheduler.json", 321, "0123456789abcdef" * 4)]
GS = PROGRESS.grid_search_id


def _announced(i: int, config: bytes) -> ExperimentConfig:
    swept = {
        "optimizer.config.params.lr": 10.0 ** -(1 + i % 4),
        "data_loaders.config.batch_size": 2 ** (4 + i // 4 % 4),
    }
    return ExperimentConfig(
        grid_search_id=GS,
        experiment_id=i,
        config=msgspec.Raw(config),
        config_hash="0123456789abcdef",
        swept={**swept, "seed": i // 16},
        num_epochs=WIDE_EPOCHS,
    )


def _status(i: int, status: Any) -> JobStatus:
    now = time.time_ns() // 1_000_000
    return JobStatus(
        grid_search_id=GS,
        experiment_id=i,
        job_id=f"{i}-1",
        status=status,
        starting_time=now,
        device="cuda:0",
        host="node",
    )


def _saved(i: int, epoch: int) -> CheckpointEvent:
    return CheckpointEvent(grid_search_id=GS, experiment_id=i, epoch=epoch, action="SAVED", files=FILES)


def _epoch(i: int, epoch: int, epochs: int) -> Iterator[Payload]:
    progress = replace(PROGRESS, experiment_id=i, current_epoch=epoch, num_epochs=epochs)
    for batch in range(40, 400, 40):
        yield replace(progress, current_batch=batch)
    yield replace(SCORES, experiment_id=i, epoch=epoch)


def _long() -> Iterator[tuple[int, Payload]]:
    """(number of the source, event): few experiments of many epochs, without end."""
    yield 0, GridSearch(grid_search_id=GS, status="STARTED", num_experiments=EXPERIMENTS)
    for i in range(EXPERIMENTS):
        yield i, ExperimentConfig(grid_search_id=GS, experiment_id=i, swept={"lr": i}, num_epochs=1_000)
        yield i, _status(i, "RUNNING")
    for epoch in count(1):
        for i in range(EXPERIMENTS):
            for payload in _epoch(i, epoch, 1_000):
                yield i, payload


def _wide_grid() -> Iterator[tuple[int, Payload]]:
    """Many experiments of few epochs: all are announced, then each runs to its end."""
    config = _configuration()
    yield 0, GridSearch(grid_search_id=GS, status="STARTED", num_experiments=WIDE)
    for i in range(WIDE):
        yield i, _announced(i, config)
        yield i, _status(i, "INIT")
    for i in range(WIDE):
        yield i, _status(i, "RUNNING")
        for epoch in range(1, WIDE_EPOCHS + 1):
            for payload in _epoch(i, epoch, WIDE_EPOCHS):
                yield i, payload
            yield i, _saved(i, epoch)
            if epoch > 1:
                yield i, CheckpointEvent(grid_search_id=GS, experiment_id=i, epoch=epoch - 1, action="DELETED")
        yield i, _status(i, "DONE")


def _batches(events: Iterator[tuple[int, Payload]]) -> Iterator[tuple[bytes, int]]:
    """What spools would hold, a source for each experiment, in batches of lines, and how many those are."""
    encode = msgspec.json.Encoder().encode
    numbers: dict[int, int] = {}
    head = b'{"event_type":"%b","creation_ts":%d,"source":"18b9f3a2c1d4e5f6-job-%d-1-5f0c12ab","n":%d,"attempt":1'
    for some in batched(events):
        lines = []
        for i, payload in some:
            n = numbers[i] = numbers.get(i, 0) + 1
            envelope = head % (EVENT_TYPES[type(payload)], time.time_ns() // 1_000_000, i, n)
            lines.append(seal(b'%b,"payload":%b' % (envelope, encode(payload))))
        yield b"".join(lines), len(lines)


def batched(events: Iterator[tuple[int, Payload]]) -> Iterator[list[tuple[int, Payload]]]:
    while some := list(islice(events, BATCH)):
        yield some


def fill(folder: str, shape: str, until: str, milestone: str = "0") -> None:
    """In a process of its own: a hub takes in a log. Says what it took, at the milestone and at the end."""
    log = Path(folder) / "storage" / GS / "event_storage.log"
    log.parent.mkdir(parents=True)
    hub = Hub(log)
    before = _memory()
    taken, total = 0.0, 0
    say("opened")
    sys.stdin.readline()  # until all are ready

    def tell() -> None:
        memory = _memory() - before
        start = time.process_time()
        hub.log._save()  # whether it is worth it or not
        say(
            {
                "events": total,
                "hub": taken / total * 1e6,
                "log": hub.log.end,
                "memory": memory,
                "saving": time.process_time() - start,
                "saved": log.with_suffix(".snapshot").stat().st_size,
            }
        )

    for batch, size in _batches({"long": _long, "wide": _wide_grid}[shape]()):
        start = time.process_time()
        assert not hub.accept(batch).rejected
        taken += time.process_time() - start
        total += size
        if total - size < int(milestone) <= total:
            tell()
        if total >= int(until) > 0:
            break
    tell()
    sys.stdin.readline()  # until it has been looked at
    hub.close()


def _memory() -> float:
    """Of this process, in MB, without what its garbage holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- measured ---------------------------------------------------------------------------------------------------


def _lines() -> list[Result]:
    output = JobOutput(grid_search_id=GS, experiment_id=3, job_id="3-1", offset=1_000, text="x" * 79 + "\n")
    kinds: dict[str, Payload] = {
        "progress": PROGRESS,
        "nine scores": SCORES,
        "state of a job": _status(3, "RUNNING"),
        "checkpoint": _saved(3, 7),
        "configuration": _announced(3, _configuration()),
        "output": output,
    }
    with tempfile.TemporaryDirectory() as folder:
        hub = Hub(Path(folder) / "event_storage.log")
        results = []
        for number, (name, payload) in enumerate(kinds.items()):
            before = hub.log.end
            ((batch, _),) = _batches(iter([(1_000 + number, payload)]))
            assert not hub.accept(batch).rejected
            results.append(Result(f"line: {name}", "bytes", [hub.log.end - before]))
        hub.close()
    return results


class Filling:
    """A process that runs `fill`."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from benchmarks import scaling; scaling.fill(*sys.argv[1:])"]
            + [str(argument) for argument in (folder, *arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.read() == "opened"

    def read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "a hub has ended"
        return json.loads(line)

    def go(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def files(self, below: Path) -> set[Path]:
        """What it has open there."""
        found = {fd.readlink() for fd in Path(f"/proc/{self._process.pid}/fd").iterdir()}
        return {path for path in found if path.is_relative_to(below)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)


def _log() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Filling(folder, "long", EVENTS, EVENTS // 10) as filling:
            filling.go()
            results = []
            for _ in range(2):
                results += _told("log", filling.read())
        return results + _opened(folder, "log", saved_too=True)


def _told(name: str, said: dict[str, float]) -> list[Result]:
    of = f"{name} of {said['events']:,} events"
    return [
        Result(f"{of}: size", "MB", [said["log"] / 1e6]),
        Result(f"{of}: hub", "us of CPU an event", [said["hub"]]),
        Result(f"{of}: state in memory", "MB", [said["memory"]]),
        Result(f"{of}: saved state", "MB", [said["saved"] / 1e6]),
        Result(f"{of}: saving it once", "s of CPU", [said["saving"]]),
    ]


def _opened(folder: Path, name: str, saved_too: bool) -> list[Result]:
    """What a board needs to open a log, and for its answers."""
    log = folder / "storage" / GS / "event_storage.log"
    results = []
    if saved_too:
        log.with_suffix(".snapshot").unlink()
        with Board(folder) as board:
            results += _asked(board, f"{name}, opened without the saved state", {"summary": "/summary"})
        assert log.with_suffix(".snapshot").is_file()
    with Board(folder) as board:
        requests = {
            "summary": "/summary",
            "then summary again": "/summary",
            "then snapshot?scores=summary": "/snapshot?scores=summary",
            "then series of 20 experiments": "/series?experiments=0-19&score=val/accuracy",
            "then the last 1,000 events": "/events?before=99999999&limit=1000",
        }
        opened = f"{name}, opened with the saved state"
        results += _asked(board, opened, requests)
        half = json.loads(board.get(f"/grid_searches/{GS}/summary"))["seq"] // 2
        past = {
            f"then {what}": f"/snapshot?scores=summary&at={half + i}" for i, what in enumerate(["half", "half + 1"])
        }
        results += _asked(board, f"{opened}, the past", past)
        results += _asked(board, f"{opened}, all points", {"then snapshot": "/snapshot"})
    return results


def _asked(board: Board, name: str, requests: dict[str, str]) -> list[Result]:
    results = []
    board.forget_peak()
    for what, path in requests.items():
        before, start = board.cpu(), time.perf_counter()
        answer = board.get(f"/grid_searches/{GS}{path}", timeout=900)
        results.append(Result(f"{name}: {what}", "s of CPU", [board.cpu() - before]))
        results.append(Result(f"{name}: {what}, waited", "s", [time.perf_counter() - start]))
        if len(answer) > 100_000:
            results.append(Result(f"{name}: {what}, answer", "MB", [len(answer) / 1e6]))
    results.append(Result(f"{name}: memory after it", "MB", [board.memory()]))
    results.append(Result(f"{name}: memory at most", "MB", [board.memory("VmHWM")]))
    return results


def _wide() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Filling(folder, "wide", 0) as filling:
            filling.go()
            results = _told("wide", filling.read())
        return results + _opened(folder, "wide", saved_too=False)


def _hubs() -> list[Result]:
    alone: list[float] = []
    together: list[float] = []
    for _ in range(HUB_ROUNDS):
        for values, number in ((alone, 1), (together, 2)):
            with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
                hubs = []
                for i in range(number):
                    (Path(name) / str(i)).mkdir()
                    hubs.append(stack.enter_context(Filling(Path(name) / str(i), "long", HUB_EVENTS)))
                for hub in hubs:
                    hub.go()
                values += [hub.read()["hub"] for hub in hubs]
                files = [hub.files(Path(name)) for hub in hubs]
                assert all(files) and (number == 1 or not files[0] & files[1])
    return [
        Result("hubs: one", "us of CPU an event", alone),
        Result("hubs: two at the same time, each", "us of CPU an event", together),
    ]


# --- dashboards -------------------------------------------------------------------------------------------------


def _answers() -> list[Result]:
    """What a request for news takes, by how many events it is answered with."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Filling(folder, "long", 20_000) as filling:
            filling.go()
            filling.read()
        with Board(folder) as board, ExitStack() as stack:
            for role in ("who follows", "who writes"):
                if role == "who writes":
                    source = new_source("job")
                    with Spool(folder / "spools" / f"{source}.jsonl", source) as spool:
                        spool.emit(PROGRESS)
                    server = Server(board.url, GS, TOKEN)
                    stack.callback(server.close)
                    stack.callback(Forwarder(folder / "spools", server).close)
                    while json.loads(board.get(f"/grid_searches/{GS}/summary"))["seq"] == 20_000:
                        time.sleep(0.05)
                for events in (1, 100, 1_000):
                    taken = [_request(board, events) for _ in range(ROUNDS)]
                    results.append(Result(f"request for {events:,} events: {role}", "ms of CPU", taken))
    return results


def _request(board: Board, events: int) -> float:
    """Milliseconds of processor time, over one connection."""
    connection = HTTPConnection(urlsplit(board.url).netloc, timeout=60)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    before = board.cpu()
    for i in range(REQUESTS):
        connection.request("GET", f"/grid_searches/{GS}/events?after={10_000 + i}&limit={events}", headers=headers)
        assert connection.getresponse().read().count(b'"seq":') == events
    connection.close()
    return (board.cpu() - before) / REQUESTS * 1000


def _dashboards() -> list[Result]:
    results = _answers()
    for here, followers in ((0, []), (1, []), (20, []), (100, []), (0, [1, 1, 1]), (0, [100])):
        results += _watched(here, followers)
    return results


def _watched(here: int, followers: list[int]) -> list[Result]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        writing = stack.enter_context(Board(folder))
        boards = [writing] + [stack.enter_context(Board(folder)) for _ in followers]
        producing = stack.enter_context(helper("scaling", "produce", writing.url, folder / "spools"))
        assert producing() == "begun"
        watching = []
        for board, dashboards in zip(boards, [here, *followers], strict=True):
            if dashboards:
                watching.append(stack.enter_context(helper("scaling", "watch", board.url, dashboards)))
        for read in watching:
            assert read() == "joined"
        before, start = [board.cpu() for board in boards], time.perf_counter()
        time.sleep(SECONDS)
        seconds = time.perf_counter() - start
        busy = [100 * (board.cpu() - cpu) / seconds for board, cpu in zip(boards, before, strict=True)]
        said = [read() for read in watching]
    if not followers:
        name = f"dashboards: {here}"
        results = [Result(name, "% of a core", busy)]
    else:
        name = f"followed: {' + '.join(map(str, followers))} dashboards"
        results = [
            Result(f"{name}, who writes", "% of a core", busy[:1]),
            Result(f"{name}, each who follows", "% of a core", busy[1:]),
        ]
    if said:
        results += [
            Result(f"{name}: events to each", "events/s", [one["events"] for one in said]),
            Result(f"{name}: requests of all", "requests/s", [one["requests"] for one in said]),
            Result(f"{name}: news of a head to all", "messages/s", [one["heads"] for one in said]),
            Result(f"{name}: behind", "events", [one["behind"] for one in said]),
        ]
    return results


def produce(url: str, folder: str) -> None:
    """In a process of its own: a training of some experiments at a steady rate, until it is ended."""
    Path(folder).mkdir()
    source = new_source("job")
    server = Server(url, GS, TOKEN, by="benchmark")
    server.connect()
    forwarder = Forwarder(Path(folder), server)
    with Spool(Path(folder) / f"{source}.jsonl", source) as spool:
        begun = time.monotonic()
        for number, (_, payload) in enumerate(_long()):
            spool.emit(payload)
            if number == 2 * EXPERIMENTS:
                assert forwarder.drain()
                say("begun")
                begun = time.monotonic() - number / RATE
            if number % 20 == 0 and number > 2 * EXPERIMENTS:
                time.sleep(max(0.0, begun + number / RATE - time.monotonic()))


def watch(url: str, dashboards: str) -> None:
    """In a process of its own: dashboards that ask for what is new when they hear that there is something."""
    asyncio.run(_watch(url, int(dashboards)))


async def _watch(url: str, dashboards: int) -> None:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        watching = [Dashboard(url, session) for _ in range(dashboards)]
        tasks = [asyncio.create_task(work) for one in watching for work in (one.listen(), one.pull())]

        def counted() -> list[int]:
            return [sum(getattr(one, what) for one in watching) for what in ("seq", "requests", "heads")]

        for one in watching:
            await one.joined.wait()
        say("joined")
        before = counted()
        begun = time.monotonic()
        await asyncio.sleep(SECONDS)
        seconds = time.monotonic() - begun
        events, requests, heads = ((now - then) / seconds for then, now in zip(before, counted(), strict=True))
        _, head = await watching[0].ask("after=0&limit=1")
        say(
            {
                "events": events / dashboards,
                "requests": requests,
                "heads": heads,
                "behind": head - statistics.median(one.seq for one in watching),
            }
        )
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class Dashboard:
    """What the page does on the wire: it is told of a newer head, and asks for the events up to it."""

    def __init__(self, url: str, session: Any) -> None:
        self.url = url
        self.session = session
        self.seq = self.head = self.requests = self.heads = 0
        self.joined, self.news = asyncio.Event(), asyncio.Event()

    async def listen(self) -> None:
        async with self.session.ws_connect(f"{self.url}/socket.io/?EIO=4&transport=websocket") as connection:
            await connection.receive_str()
            await connection.send_str("40" + json.dumps({"token": TOKEN}))
            await connection.receive_str()
            await connection.send_str("42" + json.dumps(["join", {"rooms": [GS], "protocol": 2}]))
            while True:
                message = await connection.receive_str()
                if message == "2":  # ping
                    await connection.send_str("3")
                elif message.startswith('42["head"'):
                    self.head = json.loads(message[2:])[1]["head"]
                    self.heads += 1
                    self.news.set()

    async def pull(self) -> None:
        await self.news.wait()
        self.seq = self.head  # where a snapshot would have brought it
        self.joined.set()
        while True:
            await self.news.wait()
            self.news.clear()
            begun = time.monotonic()
            while self.seq < self.head:
                self.requests += 1
                last, _ = await self.ask(f"after={self.seq}&limit=2000")
                if not last:
                    break  # too many requests: again with the next news
                self.seq = last
            await asyncio.sleep(max(0.0, begun + PULL_EVERY - time.monotonic()))

    async def ask(self, what: str) -> tuple[int, int]:
        """The numbers of the last event in an answer, and of the newest."""
        url = f"{self.url}/grid_searches/{GS}/events?{what}"
        async with self.session.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            answer = await response.read()
        if response.status != 200:
            return 0, 0
        head = int(answer[answer.index(b'"head":') + 7 :].partition(b",")[0])
        return int(answer[answer.rindex(b'{"seq":') + 7 :].partition(b",")[0]), head


if __name__ == "__main__":
    parts = {"line": _lines, "log": _log, "wide": _wide, "hubs": _hubs, "dashboards": _dashboards}
    for result in parts[sys.argv[1]]():
        print(result.line(), [round(value, 2) for value in result.values], flush=True)

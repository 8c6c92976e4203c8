"""What dashboards see: every event once, in order, however they come and go; and what one that does not read costs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import socketio

from mlgym.record.hub import Hub
from tests.conftest import ROOT
from tests.ml_board.boards import Board, batch, new_client

MIB = 1 << 20


async def eventually(found: Callable[[], object], what: str = "", seconds: float = 20) -> None:
    """Wait until `found` says something true."""
    end = asyncio.get_running_loop().time() + seconds
    while not found():
        assert asyncio.get_running_loop().time() < end, f"waited {seconds:g} s for {what or found}"
        await asyncio.sleep(0.01)


class StrictJson:
    """JSON as browsers read it."""

    @staticmethod
    def _refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    dumps = staticmethod(json.dumps)
    loads = staticmethod(partial(json.loads, parse_constant=_refuse))


class Dashboard:
    """Keeps all that it is told. To be used with `async with`; `connect` and `disconnect` as often as wanted."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.events: dict[str, list[Any]] = defaultdict(list)
        """grid search -> its events, as they came"""
        self.messages: list[int] = []
        """How many events each message held; 0 for one that is a single event."""
        self.heads: dict[str, list[int]] = defaultdict(list)
        self.pongs: list[tuple[Any, ...]] = []
        self.errors: list[Any] = []

    async def connect(self) -> None:
        self.client = new_client(json=StrictJson)
        self.client.on("mlgym_event", self._event)
        self.client.on("head", lambda head: self.heads[head["grid_search_id"]].append(head["head"]))
        self.client.on("pong", lambda *data: self.pongs.append(data))
        self.client.on("mlgym_error", self.errors.append)
        await self.board.connect(self.client)

    async def disconnect(self) -> None:
        await self.client.disconnect()

    def _event(self, message: Any) -> None:
        batched = message["event_id"] == "batched_events"
        self.messages.append(len(message["data"]) if batched else 0)
        for entry in message["data"] if batched else [message]:
            assert set(entry) == {"event_id", "data"}
            assert entry["event_id"] == entry["data"]["seq"]
            self.events[entry["data"]["payload"]["grid_search_id"]].append(entry["data"])

    async def join(self, *rooms: str, **options: Any) -> dict[str, int]:
        """Returns the heads."""
        answer = await self.client.call("join", {"rooms": list(rooms), **options}, timeout=60)
        assert set(answer) == {"head"}, answer
        heads: dict[str, int] = answer["head"]
        return heads

    def seqs(self, room: str) -> list[int]:
        return [event["seq"] for event in self.events[room]]

    def last(self, room: str) -> int:
        return self.events[room][-1]["seq"] if self.events[room] else 0

    async def has(self, room: str, seq: int) -> None:
        await eventually(lambda: self.last(room) >= seq, f"event {seq}; there is {self.last(room)}")

    async def pull(self, room: str, limit: int = 300) -> None:
        """Fetch what is missing through REST, as the second protocol has it."""
        while True:
            path = f"/grid_searches/{room}/events?after={self.last(room)}&limit={limit}"
            events = (await asyncio.to_thread(self.board.get, path)).json()["events"]
            if not events:
                return
            self.events[room] += events

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()
        assert not self.errors


class Producer:
    """Delivers events to a board, numbered on and on."""

    def __init__(self, client: socketio.AsyncClient) -> None:
        self._client = client
        self._sent: dict[str, int] = defaultdict(int)

    async def send(self, room: str, events: int) -> None:
        lines = batch(events, "s", room, self._sent[room] + 1)
        self._sent[room] += events
        answer = await self._client.call("mlgym_events", {"grid_search_id": room, "events": lines}, timeout=60)
        assert answer["durable"] == {"s": self._sent[room]}, answer

    async def send_all(self, room: str, events: int, random_: random.Random) -> None:
        """So many, in batches of any size."""
        while events:
            size = min(events, random_.choice([1, 2, 5, 30, 400]))
            await self.send(room, size)
            events -= size


@asynccontextmanager
async def producing(board: Board) -> AsyncIterator[Producer]:
    async with board.client() as client:
        yield Producer(client)


def logged(board: Board, room: str) -> list[Any]:
    return [json.loads(line) for line in board.lines(room)]


# --- the first protocol: events are pushed ---


def test_history_and_live_without_gap_or_double(board: Board, gs: str) -> None:
    async def run() -> None:
        async with producing(board) as producer, Dashboard(board) as dashboard, Dashboard(board) as second:
            await producer.send(gs, 1200)
            sending = asyncio.create_task(producer.send_all(gs, 3000, random.Random(1)))
            heads = await dashboard.join(gs)
            assert 1200 <= heads[gs] <= 4200
            await eventually(lambda: dashboard.last(gs) > 2000)
            await second.join(gs)
            await sending
            for one in (dashboard, second):
                await one.has(gs, 4200)
                assert one.events[gs] == logged(board, gs)
                assert max(one.messages) > 100  # the history came in batches
            for i in (1, 2, 3):
                await producer.send(gs, 1)
                await dashboard.has(gs, 4200 + i)
                assert dashboard.messages[-1] == 0  # and then each for itself
            await second.has(gs, 4203)
        assert dashboard.seqs(gs) == second.seqs(gs) == list(range(1, 4204))

    asyncio.run(run())


def test_a_room_that_is_left_is_silent(board: Board, gs: str) -> None:
    other = f"{gs}-other"

    async def run() -> None:
        async with producing(board) as producer, Dashboard(board) as dashboard:
            for room in (gs, other):
                await producer.send(room, 5)
            await dashboard.join(gs, other)
            await dashboard.has(gs, 5)
            await dashboard.client.call("leave", {"rooms": [gs]})
            await dashboard.client.call("leave", {"rooms": ["never joined"]})
            for room in (gs, other):
                await producer.send(room, 5)
            await dashboard.has(other, 10)
            assert dashboard.last(gs) == 5
            await dashboard.join(gs, after={gs: 5})
            await dashboard.has(gs, 10)
        assert dashboard.seqs(gs) == dashboard.seqs(other) == list(range(1, 11))

    asyncio.run(run())


def test_each_ping_is_answered_by_a_pong(board: Board) -> None:
    async def run() -> None:
        async with Dashboard(board) as dashboard:
            for n, data in enumerate((None, 1, "zwei", {"three": [3.5, None]}), 1):
                await dashboard.client.emit("ping", data)
                await eventually(lambda n=n: len(dashboard.pongs) == n)  # type: ignore[misc]

    asyncio.run(run())


def test_joining_twice_does_not_double(board: Board, gs: str) -> None:
    """It starts anew, from the beginning or wherever it is told to."""

    async def run() -> None:
        async with producing(board) as producer, Dashboard(board) as dashboard:
            await producer.send(gs, 700)
            await dashboard.join(gs, gs)
            await dashboard.has(gs, 700)
            await dashboard.join(gs, after={gs: 700})
            await producer.send(gs, 100)
            await dashboard.has(gs, 800)
            assert dashboard.seqs(gs) == list(range(1, 801))
            dashboard.events.clear()
            await dashboard.join(gs)
            await dashboard.has(gs, 800)
            await producer.send(gs, 1)
            await dashboard.has(gs, 801)
            assert dashboard.seqs(gs) == list(range(1, 802))

    asyncio.run(run())


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_room_can_be_joined_before_there_is_a_grid_search(board: Board, gs: str, protocol: int) -> None:
    async def run() -> None:
        async with Dashboard(board) as dashboard, producing(board) as producer:
            assert await dashboard.join(gs, protocol=protocol) == {gs: 0}
            await producer.send(gs, 3)
            if protocol == 2:
                await eventually(lambda: dashboard.heads[gs][-1:] == [3])
                await dashboard.pull(gs)
            await dashboard.has(gs, 3)
        assert dashboard.events[gs] == logged(board, gs)

    asyncio.run(run())


@pytest.mark.parametrize("after", [0, 1, 499, 500, 501, 1199, 1200, 1300])
def test_after_goes_on_from_there(board: Board, gs: str, after: int) -> None:
    async def run() -> None:
        async with producing(board) as producer, Dashboard(board) as dashboard:
            await producer.send(gs, 1200)
            assert await dashboard.join(gs, after={gs: after}) == {gs: 1200}
            await producer.send(gs, 200)
            await dashboard.has(gs, 1400)
        assert dashboard.events[gs] == logged(board, gs)[after:]

    asyncio.run(run())


def test_several_rooms_do_not_mix(board: Board, gs: str) -> None:
    rooms = [f"{gs}-{i}" for i in range(30)]

    async def run() -> None:
        async with producing(board) as producer, Dashboard(board) as dashboard:
            for room in rooms[::2]:
                await producer.send(room, 600)
            heads = await dashboard.join(*rooms, after={rooms[0]: 590})
            assert heads == {room: 600 * (i % 2 == 0) for i, room in enumerate(rooms)}
            for i, room in enumerate(rooms):
                await producer.send_all(room, 10 + i, random.Random(i))
            for i, room in enumerate(rooms):
                await dashboard.has(room, heads[room] + 10 + i)
        for room in rooms[1:]:
            assert dashboard.events[room] == logged(board, room)
        assert dashboard.events[rooms[0]] == logged(board, rooms[0])[590:]

    asyncio.run(run())


def test_reconnecting_with_the_last_seq_misses_nothing(board: Board, gs: str) -> None:
    async def run() -> None:
        random_ = random.Random(5)
        async with producing(board) as producer, Dashboard(board) as dashboard:
            sending = asyncio.create_task(producer.send_all(gs, 6000, random_))
            connections = 1
            while dashboard.last(gs) < 6000:
                await dashboard.join(gs, after={gs: dashboard.last(gs)})
                wanted = min(6000, dashboard.last(gs) + random_.randrange(900))
                await dashboard.has(gs, wanted)
                await dashboard.disconnect()
                await dashboard.connect()
                connections += 1
            await sending
        assert connections > 5
        assert dashboard.events[gs] == logged(board, gs)

    asyncio.run(run())


@pytest.mark.parametrize(
    "data", [None, 7, [], {}, {"rooms": 7}, {"rooms": [7]}, {"rooms": ["../x"]}, {"rooms": ["a"], "after": 7}]
)
def test_a_join_that_is_none_says_what_was_expected(board: Board, data: Any) -> None:
    async def run() -> None:
        async with board.client() as client:
            answer = await client.call("join", data)
            assert answer["error"]["status"] == 400
            assert "expected" in answer["error"]["message"]

    asyncio.run(run())


# --- the second protocol: the newest number is told, events are pulled ---


def test_heads_are_told_and_events_pulled(board: Board, gs: str) -> None:
    async def run() -> None:
        async with producing(board) as producer, Dashboard(board) as dashboard:
            await producer.send(gs, 700)
            assert await dashboard.join(gs, protocol=2) == {gs: 700}
            sending = asyncio.create_task(producer.send_all(gs, 2000, random.Random(2)))
            while dashboard.last(gs) < 2700:
                await eventually(lambda: dashboard.heads[gs][-1:] > [dashboard.last(gs)])
                await dashboard.pull(gs)
            await sending
            await eventually(lambda: dashboard.heads[gs][-1:] == [2700])
            heads = dashboard.heads[gs]
            assert heads == sorted(set(heads))  # never twice, never backwards
            assert not dashboard.messages
            await dashboard.disconnect()
            await dashboard.connect()
            heads.clear()
            assert await dashboard.join(gs, protocol=2, after={gs: 2700}) == {gs: 2700}
            await producer.send(gs, 1)
            await eventually(lambda: heads)
            assert heads == [2701]  # what it knows already is not told again
            await dashboard.pull(gs)
        assert dashboard.events[gs] == logged(board, gs)

    asyncio.run(run())


# --- logs that others write ---

WRITER = """
import sys, time
from pathlib import Path
from mlgym.record.hub import Hub
from tests.ml_board.boards import batch
path, room, events = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
hub = Hub(path)
first = hub.state.seq + 1
for n in range(first, first + events, 7):
    hub.accept(batch(7, "w", room, n))
    time.sleep(0.002)
hub.close()
"""


def test_a_log_that_another_process_writes_is_followed(board: Board, gs: str) -> None:
    board.log(gs).parent.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def write(events: int) -> None:
        command = [sys.executable, "-c", WRITER, str(board.log(gs)), gs, str(events)]
        subprocess.run(command, env=environment, check=True, timeout=60)

    async def run() -> None:
        async with Dashboard(board) as pushed, Dashboard(board) as pulled:
            await pushed.join(gs)
            await pulled.join(gs, protocol=2)
            writing = asyncio.create_task(asyncio.to_thread(write, 1400))
            while pulled.last(gs) < 1400:
                await eventually(lambda: pulled.heads[gs][-1:] > [pulled.last(gs)])
                await pulled.pull(gs)
            await writing
            await pushed.has(gs, 1400)
            await asyncio.to_thread(write, 70)  # and by the next one
            await pushed.has(gs, 1470)
            await eventually(lambda: pulled.heads[gs][-1:] == [1470])
            await pulled.pull(gs)
        assert pushed.events[gs] == pulled.events[gs] == logged(board, gs)

    asyncio.run(run())


def test_who_asks_does_not_take_the_news_from_who_watches(board: Board, gs: str) -> None:
    """A log that others write is read on by whoever needs it first; everybody must hear of it."""
    board.log(gs).parent.mkdir(parents=True)
    hub = Hub(board.log(gs))

    async def run() -> None:
        async with Dashboard(board) as dashboard, Dashboard(board) as second:
            await dashboard.join(gs)
            await second.join(gs)
            for n in range(1, 11):
                hub.accept(batch(1, "s", gs, n))
                await asyncio.to_thread(board.get, f"/grid_searches/{gs}/events")
                await dashboard.has(gs, n)
                await second.has(gs, n)

    try:
        asyncio.run(run())
    finally:
        hub.close()


def write_log(path: Path, room: str, events: int, source: str) -> None:
    """Another run's log, beside `path` or instead of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hub = Hub(path)
    hub.accept(batch(events, source, room))
    hub.close()


def delete(log: Path) -> None:
    log.unlink()


def delete_folder(log: Path) -> None:
    shutil.rmtree(log.parent)


def leave(log: Path) -> None:
    """To be written over: it stays the same inode, which a new file after a deletion often has as well."""


@pytest.mark.parametrize("clear", [delete, delete_folder, leave])
@pytest.mark.parametrize("events", [5, 200, 2000], ids=["shorter", "a bit longer", "longer"])
def test_a_log_may_be_put_there_anew_while_it_is_watched(
    board: Board, gs: str, clear: Callable[[Path], None], events: int
) -> None:
    """Whoever asks from then on gets the new one, and nothing of the old."""
    log, new = board.log(gs), board.folder / gs / "log"
    write_log(log, gs, 100, "old")
    write_log(new, gs, events, "another")

    def whole(one: Dashboard) -> bool:
        return one.events[gs][-events:] == logged(board, gs)

    async def run() -> None:
        async with Dashboard(board) as watching, Dashboard(board) as pulling:
            await watching.join(gs)
            await watching.has(gs, 100)
            await pulling.join(gs, protocol=2)
            await eventually(lambda: pulling.heads[gs] == [100])
            clear(log)
            log.parent.mkdir(exist_ok=True)
            shutil.copyfile(new, log)
            await eventually(lambda: pulling.heads[gs][-1] == events, f"head {events}; told were {pulling.heads[gs]}")
            async with Dashboard(board) as fresh:
                for one in (watching, fresh):
                    one.events.clear()
                    assert await one.join(gs) == {gs: events}
                    # What was under way to it before it joined again may come first, of the new log too.
                    await eventually(partial(whole, one))
                    assert {event["source"] for event in one.events[gs]} == {"another"}
                assert fresh.events[gs] == logged(board, gs)
            pulling.events.clear()
            await pulling.pull(gs)
            assert pulling.events[gs] == logged(board, gs)
            snapshot = (await asyncio.to_thread(board.get, f"/grid_searches/{gs}/snapshot")).json()
            assert (snapshot["seq"], snapshot["damaged"]) == (events, 0)

    asyncio.run(run())


def test_a_log_that_comes_and_goes_is_still_followed(board: Board, gs: str) -> None:
    async def run() -> None:
        async with Dashboard(board) as watching:
            await watching.join(gs, protocol=2)
            for i in range(300):
                await asyncio.to_thread(write_log, board.log(gs), gs, 1 + i % 3, f"s{i}")
                await asyncio.to_thread(board.get, f"/grid_searches/{gs}/events")
                delete(board.log(gs))
            await asyncio.to_thread(write_log, board.log(gs), gs, 1000, "last")
            await eventually(lambda: watching.heads[gs][-1:] == [1000])

    asyncio.run(run())


@pytest.mark.parametrize("damage", [b"q", b"\0", b"9", b",", b"-", b"\xff", b"\n"])
def test_around_a_damaged_line_everything_is_shown(tmp_path: Path, damage: bytes) -> None:
    """Wherever the damage is: here in the number of event 50, or right before it."""
    with Board(tmp_path) as board:
        write_log(board.log(), "g", 100, "s")
        content = board.log().read_bytes()
        at = content.index(b'{"seq":50,') + 7
        board.log().write_bytes(content[:at] + damage + content[at + 1 :])

        async def run() -> None:
            answer = await asyncio.to_thread(board.get, "/grid_searches/g/events")
            async with Dashboard(board) as dashboard:
                await dashboard.join("g")
                await dashboard.has("g", 100)
            assert dashboard.seqs("g") == [*range(1, 50), *range(51, 101)]
            assert answer.json()["events"] == dashboard.events["g"]

        asyncio.run(run())
        assert "Traceback" not in board.stderr()


def old_line(room: str, epoch: int, score: float) -> str:
    payload = {"grid_search_id": room, "experiment_id": 12345678901234567890, "epoch": epoch, "loss_scores": []}
    scores = [{"metric": "a", "split": "val", "score": score}]
    event = {"event_type": "evaluation_result", "creation_ts": 1_600_000_000_000_000}
    return json.dumps(event | {"payload": payload | {"metric_scores": scores}})


def test_an_old_log_is_shown_in_strict_json_and_followed(board: Board, gs: str) -> None:
    log = board.log(gs)
    log.parent.mkdir(parents=True)
    scores = [float("nan"), float("-inf"), 0.25]
    lines = [old_line(gs, i, scores[i % 3]) for i in range(900)]
    # some lines merged, and one cut
    log.write_text("\n".join(lines[:600]) + "\n" + "".join(lines[600:603]) + "\n" + lines[0][:70] + "\n")

    async def run() -> None:
        async with Dashboard(board) as dashboard:
            assert await dashboard.join(gs) == {gs: 603}
            await dashboard.has(gs, 603)
            for line in lines[603:]:  # an earlier tool, at work
                with log.open("a") as file:
                    file.write(line[:50])
                    file.flush()
                    file.write(line[50:] + "\n")
            await dashboard.has(gs, 900)
        assert dashboard.seqs(gs) == list(range(1, 901))
        for i, event in enumerate(dashboard.events[gs]):
            assert event["payload"]["epoch"] == i
            assert event["payload"]["experiment_id"] == 12345678901234567890
            assert event["payload"]["metric_scores"][0]["score"] == ["NaN", "-Infinity", 0.25][i % 3]
        await dashboard.connect()
        await dashboard.join(gs, protocol=2)
        await eventually(lambda: dashboard.heads[gs] == [900])
        pushed = dashboard.events.pop(gs)
        await dashboard.pull(gs)
        assert dashboard.events[gs] == pushed
        await dashboard.disconnect()

    asyncio.run(run())


# --- those that do not read ---


class Browser:
    """A bare websocket that says what socket.io wants to hear, and reads only when it is asked to."""

    def __init__(self, board: Board, receive_buffer: int | None = None) -> None:
        self._board = board
        self._receive_buffer = receive_buffer
        self.last = 0

    async def __aenter__(self) -> Self:
        def new_socket(info: Any) -> socket.socket:
            made = socket.socket(info[0], info[1], info[2])
            if self._receive_buffer:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            return made

        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=new_socket))
        url = f"{self._board.url}/socket.io/?EIO=4&transport=websocket"
        self._socket = await self._session.ws_connect(url, max_msg_size=0, autoclose=False)
        assert (await self._socket.receive_str()).startswith("0{")
        await self._socket.send_str("40" + json.dumps({"token": self._board.token}))
        assert (await self._socket.receive_str()).startswith("40{")
        return self

    async def __aexit__(self, *_: object) -> None:
        response = self._socket._response
        if response.connection and response.connection.transport:
            response.connection.transport.abort()  # it just goes, without a word
        response.close()
        await self._session.close()

    async def send(self, event: str, data: Any) -> None:
        await self._socket.send_str("42" + json.dumps([event, data]))

    async def join(self, *rooms: str, **options: Any) -> None:
        await self.send("join", {"rooms": list(rooms), **options})

    async def read(self) -> None:
        """One message; of the only room that has been joined."""
        text = await self._socket.receive_str()
        if text == "2":
            await self._socket.send_str("3")
        for found in re.findall(r'"event_id":(\d+)', text):
            assert int(found) == self.last + 1
            self.last += 1


async def intake(board: Board, events: int, room: str = "g") -> None:
    async with producing(board) as producer:
        for _ in range(0, events, 500):
            await producer.send(room, 500)


async def come_and_go(board: Board, events: int, random_: random.Random) -> int:
    """Until each event has come exactly once; how often it has connected."""
    last = 0
    for connections in count(1):
        async with Browser(board) as browser:
            browser.last = last
            await browser.join("g", after={"g": last})
            for _ in range(random_.randint(1, events // 1500)):
                await browser.read()
                if browser.last == events:
                    return connections
            last = browser.last
    raise AssertionError


@pytest.mark.parametrize("events", [60_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_dashboards_that_stall_or_come_and_go_cost_nothing_that_lasts(tmp_path: Path, events: int) -> None:
    with Board(tmp_path / "alone") as alone:
        asyncio.run(intake(alone, events))
        expected = alone.memory("VmHWM")

    with Board(tmp_path / "watched") as board:

        async def run() -> list[int]:
            async with AsyncExitStack() as stack:
                stalled = [
                    await stack.enter_async_context(Browser(board, receive_buffer=2048 if i % 2 else None))
                    for i in range(20)
                ]
                for i, browser in enumerate(stalled):
                    await browser.join("g", protocol=2 if i % 5 == 0 else 1)
                browsers = [come_and_go(board, events, random.Random(i)) for i in range(20)]
                connections, _ = await asyncio.gather(asyncio.gather(*browsers), intake(board, events))
                return connections

        assert min(asyncio.run(run())) > 2
        # What 40 connections have in flight, and what malloc keeps of it. All that the stalled ones have not read
        # would be 250 MB of 60,000 events.
        assert board.memory("VmHWM") < expected + 100 * MIB
        assert len(board.lines()) == events
        assert "Traceback" not in board.stderr()


def test_many_rooms_that_nobody_reads_cost_little(tmp_path: Path) -> None:
    rooms = [f"g{i}" for i in range(50)]
    with Board(tmp_path) as board:
        for room in rooms:
            write_log(board.log(room), room, 2000, "s")

        async def run() -> None:
            async with Dashboard(board) as dashboard:
                await dashboard.join(rooms[0])
                await dashboard.has(rooms[0], 2000)
            before = board.memory()
            board.forget_peak()
            async with Browser(board, receive_buffer=2048) as stalled, Dashboard(board) as dashboard:
                await stalled.join(*rooms)
                await dashboard.join(*rooms)
                for room in rooms:
                    await dashboard.has(room, 2000)
            assert board.memory("VmHWM") < before + 100 * MIB

        asyncio.run(run())


FLOODS = {
    "ping": ("ping", "x"),
    "long ping": ("ping", "x" * (4 * MIB)),
    "join": ("join", {"rooms": ["g"]}),
    "join of many": ("join", {"rooms": [f"g{i:060d}" for i in range(90)]}),
    "join of heads": ("join", {"rooms": ["g"], "protocol": 2}),
    "bad join": ("join", {"rooms": "/" * 100}),
    "nonsense": ("join", 7),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_who_asks_and_does_not_read_is_not_asked_again(tmp_path: Path, flood: str) -> None:
    event, data = FLOODS[flood]
    with Board(tmp_path) as board:
        asyncio.run(intake(board, 5000))

        async def run() -> None:
            async with Browser(board, receive_buffer=2048) as browser:
                await browser.join("g")
                before = board.memory()
                board.forget_peak()
                size = len(json.dumps(data))
                try:
                    for _ in range(min(20_000, 400 * MIB // size)):
                        await asyncio.wait_for(browser.send(event, data), 3)
                except (TimeoutError, ConnectionError):
                    pass  # the board has stopped listening, or hung up
                async with Dashboard(board) as other:
                    await other.join("g")
                    await other.has("g", 5000)
                assert board.memory("VmHWM") < before + 60 * MIB

        asyncio.run(run())
        assert "Traceback" not in board.stderr()

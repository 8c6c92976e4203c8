"""Whatever arrives, the board goes on: no answer is a 5xx, nothing but whole events gets into a log, nothing else is
written anywhere, memory stays bounded, and who behaves is served as before. Random, from fixed seeds."""

from __future__ import annotations

import asyncio
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from mlgym.record.events import MAX_EVENT, seal
from tests.ml_board.boards import Board, answered, batch, deliver, form, until

Frames = list[str | bytes]

GS = "g"
DEEP = "@deep@"  # stands for what json.dumps could not write
MEMORY = 200 << 20

PAYLOADS: dict[str, dict[str, Any]] = {
    "grid_search": {"status": "STARTED", "num_experiments": 3, "run_config": "a: 1", "reason": "none"},
    "system_info": {"host": "h", "info": {"cpu": "fast"}},
    "experiment_config": {"experiment_id": 1, "job_id": "1-1", "config": {"a": [1]}, "config_hash": "x", "swept": {"lr": 0.1}, "num_epochs": 3},
    "job_status": {"job_id": "1-1", "experiment_id": 1, "status": "RUNNING", "start_epoch": 0, "starting_time": 1, "device": "cpu", "error": "e"},
    "experiment_status": {"experiment_id": 1, "status": "train", "num_epochs": 3, "current_epoch": 1, "splits": ["a"], "current_split": "a", "num_batches": 4, "current_batch": 2},
    "evaluation_result": {"experiment_id": 1, "epoch": 1, "metric_scores": [{"metric": "a", "split": "v", "score": 0.5}], "loss_scores": [{"loss": "l", "split": "v", "score": "NaN"}]},
    "checkpoint": {"experiment_id": 1, "epoch": 1, "action": "SAVED", "files": [{"name": "a", "size": 1, "sha256": "x"}]},
    "job_output": {"experiment_id": 1, "job_id": "1-1", "offset": 0, "text": "hello"},
    "warning": {"message": "m", "experiment_id": 1},
    "nondeterminism_detected": {"experiment_id": 1, "epoch": 1, "changes": [{"score": "v/a", "before": 1, "now": "NaN"}]},
    "dream": {"x": 1},
}  # fmt: skip
VALUES: list[Any] = [None, True, False, 0, -1, 1, 0.5, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, -(10**400), 1e308, 5e-324, float("nan"), float("inf"), "", "NaN", "0", "\0", "\ud800", "\udfff\ud800", "x" * 5000, "<script>", "../../etc/passwd", "größe", "\u2028", [], {}, [[]], {"": {}}, DEEP, [DEEP], {"__proto__": 1}, {"_placeholder": True, "num": 9}]  # fmt: skip
NAMES = ["mlgym_event", "mlgym_events", "mlgym_lease", "join", "leave", "ping", "connect", "connect_error", "message", "*", "", "nobody", "__class__", "\ud800"]  # fmt: skip


def text(value: Any, rng: random.Random) -> str:
    """As JSON, with all that Python writes although it is none."""
    depth = rng.choice((70, 500, 5000, 100_000))
    deep = rng.choice(("[" * depth, "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth))
    return json.dumps(value, ensure_ascii=rng.random() < 0.7).replace(f'"{DEEP}"', deep, 1)


def value(rng: random.Random, depth: int = 3) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.7:
        return rng.choice(VALUES)
    if kind < 0.85:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {str(rng.choice(VALUES))[:20]: value(rng, depth - 1) for _ in range(rng.randrange(5))}


def event(rng: random.Random) -> dict[str, Any]:
    """One that is fine but for a few fields; whichever of them, sooner or later."""
    event_type = rng.choice(list(PAYLOADS))
    payload: dict[str, Any] = {"grid_search_id": GS, **PAYLOADS[event_type]}
    found: dict[str, Any] = {"event_type": event_type, "creation_ts": 1, "source": f"s{rng.randrange(99)}", "n": 1, "attempt": 1, "payload": payload}  # fmt: skip
    for _ in range(rng.randrange(4)):
        part = rng.choice((found, payload))
        key = rng.choice([*part, "seq", "crc", "extra"])
        change = rng.random()
        if change < 0.15:
            part.pop(key, None)
        elif change < 0.3 and isinstance(part.get(key), list) and part[key]:
            part[key] = [value(rng), *part[key]]
        else:
            part[key] = rng.choice(("other", "../g", value(rng))) if key == "grid_search_id" else value(rng)
    return found


def line(rng: random.Random) -> bytes:
    """One of a spool, not always as it should be."""
    content = text(event(rng), rng).encode(errors=rng.choice(("surrogatepass", "replace")))
    kind = rng.random()
    if kind < 0.1:
        at = rng.randrange(len(content))
        content = content[:at] + rng.randbytes(3) + content[at:]
    elif kind < 0.2:
        content = rng.choice((b" ", b"\r", b"\t", b"\xef\xbb\xbf", b"[", b'{"a":1}', b'{"seq":7,')) + content
    elif kind < 0.25:
        content = content.replace(b"{", b'{"seq":%d,' % rng.choice((0, 1, 99, 10**20)), 1)
    elif kind < 0.3:
        content = content.replace(b"{", b'{"source":"twice","n":1,', 1)
    elif kind < 0.35:
        return content + b"\n"
    sealed = seal(content[: content.rfind(b"}")])
    if kind > 0.9:
        sealed = sealed.replace(b'"crc":"', b'"crc":"' + rng.choice((b"0", b"", b"g")))
    return sealed


def lines(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(300))
    if kind < 0.2:
        return rng.choice((b"", b"\n", b" \n", b"\r\n", b"\t \n\n", b"\0\n", b"{}\n", b"null\n", b"[]\n", b'"' * 99, b"\n" * 20_000, seal(b"{"), seal(b""), seal(b"[" * 65 + b'"' + b'\\"' * 500)))  # fmt: skip
    if kind < 0.202:
        return seal(
            b'{"event_type":"x","source":"long","n":1,"payload":{"grid_search_id":"g","x":"%b"}' % (b"x" * 5_000_000)
        )
    joined = b"".join(line(rng) for _ in range(rng.choice((1, 1, 2, 5))))
    return joined[: rng.randrange(len(joined) + 1)] if kind < 0.3 else joined + rng.choice((b"", b"", b" ", b"\n"))


def message(rng: random.Random) -> Frames:
    """As a client of socket.io sends it, whatever is in it."""
    kind = rng.random()
    ack = rng.choice(("", "7"))
    if kind < 0.35:
        return [f"42{ack}{text(['mlgym_event', event(rng)], rng)}"]
    if kind < 0.4:
        return [f"42{ack}{text(['mlgym_event', value(rng)], rng)}"]
    if kind < 0.8:
        data = {"grid_search_id": GS, "events": {"_placeholder": True, "num": 0}}
        return [f"451-{ack}{json.dumps(['mlgym_events', data])}", lines(rng)]
    rooms = {"rooms": value(rng), "after": value(rng), "protocol": rng.choice((1, 2, None))}
    lease = {"grid_search_id": "leased", "by": value(rng)}
    data = rng.choice((value(rng), rooms, lease, event(rng), {"grid_search_id": value(rng), "events": value(rng)}))
    return [f"42{ack}{text([rng.choice(NAMES), *([data] if rng.random() < 0.9 else [data, data])], rng)}"]


def _each(*packets: str) -> list[Frames]:
    return [[packet] for packet in packets]


PACKETS: list[Frames] = [
    *_each("", "0", "0{}", "1", "2probe", "3", "5", "6", "7", "9", "x", "\0", "44", "45", "46", "47", "4", "4x", "4\ud83d\ude00"),
    *_each("42", "42[]", "42null", "421", '42"x"', "42{}", "42[{}]", "42[[]]", "42[null]", "42[1]", '42["join"', '42["join",]', "42[" * 3000, '42["a"]x'),
    *_each("43", "43[]", "4399[]", '4399["x"]', '43{"a":1}', "40", "40{}", "40/other,", '40/other,{"token":"x"}', '42/other,["join"]', "42/,,", "41/other,", "44{}", "40{" * 99),
    *_each("42" + "9" * 99 + '["ping"]', "42" + "9" * 200 + '["ping"]', "42" + "9" * 5000 + '["ping"]', "42" + "9" * 500_000, "45" + "9" * 5000 + "-[]", "42/" + "x" * 100_000 + ',["ping"]'),
    *_each('452-["mlgym_events"]', '4599999999-["x"]', '450-["mlgym_events"]', '45-1["x"]', '451-["ping"]', '451-"x"', "451-[]", "451-", '461-["x"]', '451-["x",{"_placeholder":true}]'),
    ['451-["mlgym_events",{"_placeholder":true,"num":5}]', b"x"],
    ['451-["mlgym_events",{"_placeholder":true,"num":-1}]', b"x"],
    ['451-["mlgym_events",{"_placeholder":true,"num":"x"}]', b"x"],
    ['451-["mlgym_events",{"_placeholder":true,"num":null}]', b"x"],
    ['451-["mlgym_events",{"_placeholder":true,"num":0}]', '42["ping"]', b"x"],
    ['451-["connect",{"aiohttp.request":"x"}]', b"x"],
    ['42["connect",{"aiohttp.request":"x"}]'],
    ['42["disconnect","x"]', '42["join",{"rooms":["g"]}]'],
    ['42["disconnect"]', "41", '42["ping"]'],
    [b""], [b"x"], [b"2" * 1000], [b'42["ping"]'], [b"\xff" * 1000], [b"b4AAAA"], ["b4AAAA"], ["b4!!"], ["b"],
    ["4" + "[" * 2_000_000], ["42" + "[" * 2_000_000], ["x" * 9_000_000], [b"x" * 9_000_000],
    ['42["ping","\\ud800"]'], ['42["ping",1e999]'], [f'42["ping",{10**400}]'], ['42["ping",NaN]'],
    ['42["mlgym_lease",{"grid_search_id":"leased","by":"\\ud800"}]'],
]  # fmt: skip


def packet(rng: random.Random) -> Frames:
    """No packet, or none that fits."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice([frames for frames in PACKETS if sum(map(len, frames)) < 10_000])
    if kind < 0.6:
        return [rng.randbytes(rng.randrange(200))]
    characters = "0123456789-,/[]{}\"'\\:ab _\0\u00e9" + "4" * 20
    return ["".join(rng.choice(("4", "42", "45", "451-", ""))) + "".join(rng.choices(characters, k=rng.randrange(60)))]


async def talk(board: Board, messages: Iterable[Frames]) -> None:
    """Send one after the other, each when the one before has been dealt with, on as few connections as it takes."""
    left = iter(messages)
    closed = True
    while closed:
        async with board.websocket() as websocket:
            await websocket.send_str(f'40{{"token":"{board.token}"}}')
            assert await answered(websocket, "40{"), "the board hangs up on who knows the token"
            closed = False
            for frames in left:
                try:
                    closed = not await asyncio.wait_for(_dealt_with(websocket, frames), 60)
                except TimeoutError:
                    raise AssertionError(f"no answer to {frames}") from None
                if closed:
                    break


async def _dealt_with(websocket: aiohttp.ClientWebSocketResponse, frames: Frames) -> bool:
    """Whether the board, having taken a message, is still on the line."""
    if not await _sent(websocket, [*frames, '42992["ping",0]']):
        return False
    async for answer in websocket:
        if answer.type is aiohttp.WSMsgType.TEXT:
            assert '"status":500' not in answer.data, frames
            if answer.data == "2":
                await websocket.send_str("3")
            elif answer.data.startswith("43992["):
                return True
    return False


async def interrupt(board: Board, packets: Iterable[Frames], token: bool = True) -> None:
    """Send each on a connection of its own, and hang up once the board has read it."""
    for frames in packets:
        async with board.websocket() as websocket:
            if token:
                await websocket.send_str(f'40{{"token":"{board.token}"}}')
                assert await answered(websocket, "40{")
            await _sent(websocket, frames)


async def _sent(websocket: aiohttp.ClientWebSocketResponse, frames: Frames) -> bool:
    for frame in frames:
        try:
            await (websocket.send_bytes(frame) if isinstance(frame, bytes) else websocket.send_str(frame))
        except UnicodeEncodeError:  # no websocket can carry this
            pass
        except (ConnectionError, aiohttp.ClientError):  # the board has hung up, as it may
            return False
    return True


def still_well(board: Board, before: set[str]) -> None:
    """It complains of nothing, wrote what it may, serves who behaves, and would again after a start."""
    assert board.running
    assert "Traceback" not in board.stderr(), board.stderr()[-5000:]
    assert "exception" not in board.stderr(), board.stderr()[-5000:]
    new = {str(path.relative_to(board.folder)) for path in board.folder.rglob("*")} - before
    allowed = re.compile(r"event_storage(/[A-Za-z0-9][\w.-]{0,63}(/spool|/event_storage\.(log|snapshot))?)?", re.ASCII)
    assert not [path for path in new if not allowed.fullmatch(path)]
    heads: dict[str, int] = {}
    for restart in (False, True):
        if restart:
            board.kill()
            board.start()
        for folder in board.storage.iterdir():
            found = board.lines(folder.name)
            heads.setdefault(folder.name, len(found))
            assert heads[folder.name] == len(found)
            for what in ("events", "snapshot", "experiments"):
                assert board.get(f"/grid_searches/{folder.name}/{what}").status == (200 if found or what == "experiments" else 404)  # fmt: skip
        source = f"behaves{restart}"
        assert deliver(board, batch(20, source))["durable"] == {source: 20}
        heads[GS] = heads.get(GS, 0) + 20
        after = board.get(f"/grid_searches/{GS}/events?after={heads[GS] - 20}").json()
        assert (after["head"], [e["n"] for e in after["events"]]) == (heads[GS], list(range(1, 21)))
    listed = {entry["grid_search_id"]: entry["head"] for entry in board.get("/grid_searches").json()}
    assert listed == {name: head for name, head in heads.items() if head}


def files(board: Board) -> set[str]:
    return {str(path.relative_to(board.folder)) for path in board.folder.rglob("*")}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10))])
def test_malformed_events(tmp_path: Path, seed: int) -> None:
    """2,000 of them, or 20,000 in `make test-long`."""
    rng = random.Random(seed)
    with Board(tmp_path) as board:
        deliver(board, batch(5))
        before, memory = files(board), board.memory()
        asyncio.run(talk(board, (message(rng) for _ in range(1800))))
        asyncio.run(interrupt(board, (packet(rng) for _ in range(200))))
        assert board.memory() - memory < MEMORY
        assert len(board.lines()) > 100  # not all of it was nonsense
        still_well(board, before)


@pytest.mark.parametrize("token", [True, False])
def test_packets_that_are_none(tmp_path: Path, token: bool) -> None:
    with Board(tmp_path) as board:
        deliver(board, batch(1))
        before = files(board)
        asyncio.run(interrupt(board, PACKETS, token))
        still_well(board, before)


# --- one by one, what has a name ---

EVENT = b'"source":"%b","n":1,"event_type":"x","payload":{"grid_search_id":"g"}'


@pytest.mark.parametrize(
    ("name", "start"),
    [("its own number", b'{"seq":99,'), ("its own number at the end", b'{"seq":1,'), ("its own number in disguise", b'{"\\u0073eq":99,'), ("its own crc in disguise", b'{"cr\\u0063":"0",'), ("a space", b" {"), ("a tab", b"\t{"), ("a return", b"\r{"), ("two sources", b'{"source":"o","n":1,')],
)  # fmt: skip
def test_a_line_cannot_disturb_the_order(board: Board, gs: str, name: str, start: bytes) -> None:
    """Whatever the hub makes of it, the log stays JSON and contiguous, also for who opens it next."""
    body = start + EVENT.replace(b'"g"', b'"%b"' % gs.encode()) % b"s"
    if "end" in name:
        body = body.replace(b'"seq":1,', b"") + b',"seq":7'
    answer = deliver(board, batch(2, "before", gs) + seal(body) + batch(2, "after", gs), gs)
    assert (answer["durable"]["before"], answer["durable"]["after"]) == (2, 2)
    count = len(board.lines(gs))
    assert board.get(f"/grid_searches/{gs}/events").json()["head"] == count
    deliver(board, batch(3, "later", gs), gs)
    assert len(board.lines(gs)) == count + 3
    assert board.get(f"/grid_searches/{gs}/snapshot").json()["seq"] == count + 3


@pytest.mark.parametrize(
    "line",
    [
        b'{"event_type":"warning","source":"s","n":1,"payload":{"grid_search_id":"%b","message":"m"},"extra":"\xff"',
        b'{"event_type":"warning","source":"s","n":1,"payload":{"grid_search_id":"%b","message":"m","x":"\xed\xa0\x80"}',
        b'{"event_type":"experiment_config","source":"s","n":1,"payload":{"grid_search_id":"%b","experiment_id":1,"config":{"a":"\xff"}}',
        b'{"event_type":"dream","source":"s","n":1,"payload":{"grid_search_id":"%b"},"\xff":1',
    ],
)
def test_what_is_no_text_is_refused(board: Board, gs: str, line: bytes) -> None:
    """Also where nobody looks; or whoever reads the log stops there, the dashboards first."""
    answer = deliver(board, seal(line % gs.encode()) + batch(2, "t", gs), gs)
    assert (answer["durable"], answer["rejected"]) == ({"t": 2}, 1)

    async def run() -> None:
        async with board.client() as client:
            got: list[Any] = []
            client.on("mlgym_event", got.append)
            await client.call("join", {"rooms": [gs]})
            await until(lambda: got, "the events")

    asyncio.run(run())
    assert board.get(f"/grid_searches/{gs}/events").json()["head"] == 2


@pytest.mark.parametrize("blank", [b" \n", b"\r\n", b"\t\n", b" \n \n"])
def test_a_blank_line_is_none(board: Board, gs: str, blank: bytes) -> None:
    lines = batch(2, grid_search_id=gs)
    answer = deliver(board, blank + lines + blank, gs)
    assert answer.get("durable") == {"s": 2}


def test_an_event_may_be_4_mib_long(board: Board, gs: str) -> None:
    """A longer one is refused, alone and in a batch, and holds up nothing."""
    head = b'{"event_type":"x","source":"s","n":1,"payload":{"grid_search_id":"%b","x":"' % gs.encode()
    answer = deliver(board, seal(head + b"x" * 5_000_000 + b'"}') + batch(1, "t", gs), gs)
    assert (answer["durable"], answer["rejected"]) == ({"t": 1}, 1)

    async def run() -> None:
        async with board.client() as client:
            for size in (5_000_000, 100_000):
                event = {"event_type": "x", "payload": {"grid_search_id": gs, "x": "x" * size}}
                answer = await client.call("mlgym_event", event)
                assert ("error" in answer) == (size > MAX_EVENT), answer

    asyncio.run(run())
    assert deliver(board, seal(head + b"x" * 4_000_000 + b'"}'), gs)["durable"] == {"s": 1}
    assert len(board.lines(gs)) == 3


@pytest.mark.parametrize("start", [b"[" * 65, b'{"a":' + b"[" * 65, b'{"a":"' + b"[" * 65 + b'",'])
def test_depth_is_measured_in_no_time(board: Board, gs: str, start: bytes) -> None:
    """Of a line that is as long as it may be, and made of quotes."""
    hard = seal(start + b'"' + b'\\"' * (MAX_EVENT // 2 - 100))
    assert deliver(board, hard + batch(1, grid_search_id=gs), gs)["durable"] == {"s": 1}


@pytest.mark.parametrize("depth", [65, 900, 5_000, 1_000_000])
@pytest.mark.parametrize("more", [b"", b',"seq":1', b',"crc":"x"'])
def test_depth_is_limited(board: Board, gs: str, depth: int, more: bytes) -> None:
    deep = b'{"event_type":"x","source":"s","n":1,"payload":{"x":%b%b}%b' % (b"[" * depth, b"]" * depth, more)
    answer = deliver(board, seal(deep) + batch(1, "t", gs), gs)
    assert (answer.get("durable"), answer.get("rejected")) == ({"t": 1}, 1), answer


def test_many_rooms_cost_nothing(board: Board) -> None:
    """More than one may watch are refused before anything is made for them."""
    board.forget_peak()
    before = board.memory()

    async def run() -> None:
        async with board.client() as client:
            answer = await client.call("join", {"rooms": [f"{i:x}" for i in range(500_000)]}, timeout=60)
            assert answer["error"]["status"] == 429

    asyncio.run(run())
    assert board.memory("VmHWM") - before < MEMORY


def test_what_nobody_can_encode_harms_nobody_else(board: Board, gs: str) -> None:
    """Half a character in a name: who meets it later must not pay for it."""

    async def run() -> None:
        async with board.websocket() as websocket:
            await websocket.send_str(f'40{{"token":"{board.token}"}}')
            await answered(websocket, "40{")
            await websocket.send_str(f'421["mlgym_lease",{{"grid_search_id":"{gs}","by":"\\ud800"}}]')
            await answered(websocket, "431[")
            async with board.client() as client:
                answer = await client.call("mlgym_events", {"grid_search_id": gs, "events": b""})
                assert answer["error"]["status"] == 423
                assert client.connected

    asyncio.run(run())


# --- connections that do not say who they are ---


def test_strangers_do_not_stay(tmp_path: Path) -> None:
    """They take all the places there are, for a moment, and no memory with what they send."""
    big = '42["mlgym_event",{"payload":{"grid_search_id":"g","x":"%s"}}]' % ("x" * 100_000)

    async def stranger(session: aiohttp.ClientSession, board: Board, number: int) -> bool:
        """Whether it was let in; returns when it is out again."""
        address = f"{board.url}/socket.io/?EIO=4&transport=websocket"
        try:
            async with session.ws_connect(address, max_msg_size=0) as websocket:
                if number % 5 == 0:
                    await websocket.send_str(big)
                if number % 5 == 1:
                    await websocket.send_str('40{"token":"wrong"}')
                async for answer in websocket:
                    if answer.data == "2":
                        await websocket.send_str("3")
                return True
        except aiohttp.WSServerHandshakeError as error:
            assert error.status == 503
            return False
        except (ConnectionError, aiohttp.ClientError):
            return True

    async def run(board: Board) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            strangers = [asyncio.create_task(stranger(session, board, i)) for i in range(600)]
            await until(lambda: sum(task.done() and not task.result() for task in strangers) >= 100, "refusals")
            found = Counter(await asyncio.wait_for(asyncio.gather(*strangers), 120))
            assert found[True] >= 400
        async with board.client() as client:
            assert "durable" in await client.call("mlgym_events", {"grid_search_id": GS, "events": batch(1)})

    with Board(tmp_path) as board:
        deliver(board, b"")
        board.forget_peak()
        before, at_first = files(board), board.memory()
        asyncio.run(run(board))
        assert board.memory("VmHWM") - at_first < MEMORY
        still_well(board, before)


def test_strangers_cannot_make_the_board_hold_memory(tmp_path: Path) -> None:
    """With messages that are announced as large and never end."""
    frame = b"\x81\xff" + (8_000_000).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 7_900_000
    with Board(tmp_path) as board:
        board.forget_peak()
        before = board.memory()
        connections = [board.half_open()[0] for _ in range(60)]
        try:
            for connection in connections:
                try:
                    connection.sendall(frame)
                except OSError:
                    pass  # the better answer
            assert board.get("/grid_searches").status == 200
            assert board.memory("VmHWM") - before < MEMORY
        finally:
            for connection in connections:
                connection.close()


# --- REST ---

WELL_KNOWN = ["/grid_searches", "/grid_searches/kept/events", "/grid_searches/kept/snapshot", "/grid_searches/kept/experiments", "/grid_searches/kept/run_config", "/grid_searches/kept/1/experiment_config", "/grid_searches/kept/1/output", "/grid_searches/kept/1/pipeline", "/checkpoints/kept/1/1", "/checkpoints/kept/1/1/manifest.json", "/checkpoint_list/kept/1", "/openapi.json", "/session", "/", "/socket.io/"]  # fmt: skip
METHODS = ["GET", "GET", "GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "G\0T", "", "X" * 300]  # fmt: skip
SEGMENTS = ["grid_searches", "checkpoints", "checkpoint_list", "system-info", "model-card", "session", "openapi.json", "socket.io", "kept", "kept", "kept", "1", "0", "2", "99", "-1", "01", "1e3", str(2**63), "9" * 5000, "events", "snapshot", "experiments", "output", "run_config", "run_config.yml", "experiment_config", "system_info.json", "manifest.json", "model.safetensors", "event_storage.log", "lock", "spool", "", ".", "..", "...", "%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "%00", "%", "%zz", "%ff%fe", "%ed%a0%80", "\xff", "größe", "a b", "~root", "x" * 64, "x" * 65, "x" * 8000, "{gs}", "<script>", "a;b", "a?b", "a#b", "\\", "C:\\x", "con", ".git", ".upload-1", "*", "'", '"']  # fmt: skip
QUERIES = ["", "", "", "after=0", "after=-1", "after=" + "9" * 30, "after=%00", "limit=1", "limit=x", "limit=10000", "offset=5", "offset=" + "1" * 400, "after=1&after=2", "&&&===", "%", "a" * 7000, "EIO=4&transport=websocket", "EIO=4&transport=polling&j=0", "EIO=4&transport=polling&sid=x", "after[]=1", "after=\u0661"]  # fmt: skip
HEADERS: list[tuple[str, list[str]]] = [
    ("Host", ["localhost", "evil.example", "", "[", "localhost:99999", "localhost:x"]),
    ("Origin", ["null", "http://[", "http://evil.example", "http://localhost", "\xff", "x" * 5000]),
    ("Range", ["bytes=0-0", "bytes=", "bytes=-", "bytes=9-1", "bytes=" + "9" * 40 + "-", "bytes=0-1,2-3", "x=1-2", "bytes=1-x", "bytes=\u0663-", "bytes=\u00b2-", "bytes=-" + "9" * 40, "bytes=--1"]),
    ("If-Range", ['"x"', "x", "", "Wed, 21 Oct 2015 07:28:00 GMT", "W/", "\xff"]),
    ("If-None-Match", ["*", '"x"', "x", '"', "W/", ",,,", '"' * 999]),
    ("If-Modified-Since", ["Wed, 99 Oct 2015 07:28:00 GMT", "x"]),
    ("Content-Type", ["application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=cut", "multipart/form-data; boundary=" + "x" * 71, "multipart/form-data; boundary=\xff", 'multipart/form-data; boundary="', "multipart/mixed; boundary=cut", "text/html", "", "application/json; charset=utf-7", "application/json; charset=nonsense", ";;;", "/", "x" * 5000]),
    ("Content-Encoding", ["gzip", "deflate", "br", "zstd", "x", "gzip, gzip"]),
    ("Transfer-Encoding", ["chunked", "identity", "gzip, chunked", "x"]),
    ("Content-Length", ["0", "-1", "x", "99", "9" * 30, "1, 2"]),
    ("Expect", ["100-continue", "200-ok", "x"]),
    ("Upgrade", ["websocket", "h2c", "x"]),
    ("Connection", ["Upgrade", "keep-alive", "close", "x"]),
    ("Sec-WebSocket-Version", ["13", "99", "x"]),
    ("Sec-WebSocket-Key", ["dGhlIHNhbXBsZSBub25jZQ==", "x"]),
    ("Sec-WebSocket-Extensions", ["permessage-deflate; server_max_window_bits=99", "x;;"]),
    ("Cookie", ["mlgym_board_1=x", "=", ";;;", "a=b; a=c", "x" * 5000, "\xff=\xff", '$Version=1; a="']),
    ("Authorization", ["Bearer x", "Bearer", "Basic =", "\xff", "Digest " + "x" * 5000]),
    ("Access-Control-Request-Method", ["PUT", "\xff"]),
    ("X" * 3000, ["x"]),
    ("X", ["\0", "\x7f", "a\rb", "x" * 9000]),
    ("bad name", ["x"]),
    ("", ["x"]),
]  # fmt: skip
PART = '--cut\r\nContent-Disposition: form-data; name="checkpoint_file"; filename="{}"\r\n{}\r\n{}\r\n--cut--\r\n'
# fmt: off
BODIES: list[bytes] = [b"", b"x", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b'{"file_format":"YAML","content":"a: 1"}', b'{"file_format":"JSON","content":"{}"}', b'{"file_format":"JSON","content":{"a":1e999}}', b'{"file_format":"JSON","content":{"a":%d}}' % 10**400, b'{"file_format":"JSON","content":"\\ud800"}', b'{"file_format":1,"content":null}', b'{"file_format":"YAML","content":"\\u0000"}', b'{"file_format":"YAML","content":"&a [*a,*a]"}', b"--cut", b"--cut--", b"--cut\r\n", b"--cut\r\n\r\n\r\n", b"--cut\r\n\r\n--cut--\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffffffff\r\n", b"x" * 300_000] + [
    PART.format(name, headers, body).encode("latin-1")
    for name, headers, body in (
        ("model.safetensors", "", "x"), ("manifest.json", "", "{}"), ("manifest.json", "", "[" * 9999), ("../x", "", "x"), ("", "", "x"), ("a\0", "", "x"), ("x" * 300, "", "x"), ('"', "", "x"), ("a", "Content-Length: 99\r\n", "x"), ("a", "Content-Length: -1\r\n", "x"), ("a", "Content-Length: x\r\n", "x"), ("a", "Content-Transfer-Encoding: base64\r\n", "!!!"), ("a", "Content-Transfer-Encoding: x\r\n", "x"), ("a", "Content-Encoding: gzip\r\n", "x"), ("a", "Content-Type: multipart/mixed; boundary=b\r\n", "--b\r\n\r\n--b--"), ("a", "Content-Type: multipart/mixed\r\n", ""), ("a", "X: " + "x" * 20_000 + "\r\n", ""), ("a", "bad header\r\n", ""), ("a", "X\x7f: \x7f\r\n", ""), ("\xff", "", "x"), ("a", "X: y\r\n" * 500, ""), ("*=utf-8''%ff", "", "x"),
        ("manifest.json", "", json.dumps({"epoch": 1, "batch": 0, "files": [{"name": "\0", "size": 1, "sha256": ""}], "delete": []})),
    )
]
# fmt: on


def request(rng: random.Random, token: str) -> bytes:
    """One, whole, but for what is wrong with it."""
    path = "/" + "/".join(rng.choice(SEGMENTS) for _ in range(rng.randrange(1, 6)))
    kind = rng.random()
    if kind < 0.3:
        path = rng.choice(WELL_KNOWN)
    elif kind < 0.6:
        checkpoint = f"/checkpoints/{rng.choice(SEGMENTS)}/{rng.choice(SEGMENTS)}/{rng.choice(SEGMENTS)}"
        config = f"/grid_searches/{rng.choice(SEGMENTS)}/run_config"
        path = rng.choice((checkpoint, f"{checkpoint}/{rng.choice(SEGMENTS)}", config, "/checkpoints/kept/1/1"))
    if rng.random() < 0.5:
        path = quote(path, safe="/%")
    if query := rng.choice(QUERIES):
        path += "?" + query
    body = rng.choice(BODIES) if rng.random() < 0.95 else rng.randbytes(rng.randrange(2000))
    headers = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))}
    if rng.random() < 0.9:
        headers["Authorization"] = f"Bearer {token}"
    if rng.random() < 0.6:
        headers["Content-Type"] = rng.choice(("application/json", "multipart/form-data; boundary=cut"))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        name, values = rng.choice(HEADERS)
        headers[name] = rng.choice(values)
    start = rng.choice((path, path, path, path, f"http://localhost{path}", f"//evil.example{path}", "*", ""))
    version = rng.choice(("HTTP/1.1",) * 12 + ("HTTP/1.0", "HTTP/2.0", "HTTP/9", ""))
    method = "GET" if kind < 0.2 else rng.choice(METHODS)
    head = f"{method} {start} {version}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    found = head.encode("utf-8", errors="surrogateescape") + b"\r\n" + body
    return found if rng.random() < 0.95 else rng.randbytes(rng.randrange(1, 400))


def status(answer: bytes) -> int:
    """0: the board hung up without a word, as is its right with what is no HTTP."""
    found = re.match(rb"HTTP/\d\.\d (\d{3}) ", answer)
    assert found or not answer, answer[:200]
    return int(found[1]) if found else 0


NO_REQUESTS = [b"\r\n\r\n", b"\0\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET", b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000, b"CONNECT  \r\nHost: localhost\r\n\r\n", b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET  \r\n\r\n"]  # fmt: skip
WRITTEN = re.compile(
    r"event_storage(/[A-Za-z0-9][\w.-]{0,63}(/(run_config|grid_search_config|validation_strategy_config)\.yml|/[0-9]{1,19}"
    r"(/(experiment_config|system_info)\.json|/(\.upload-)?[0-9]{1,19}(/[A-Za-z0-9_][\w.-]{0,127})?)?)?)?",
    re.ASCII,
)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10))])
def test_hostile_requests(tmp_path: Path, seed: int) -> None:
    """500 of them, or 5,000 in `make test-long`."""
    rng = random.Random(seed)
    with Board(tmp_path) as board:
        deliver(board, batch(5, grid_search_id="kept"), "kept")
        log = board.log("kept").read_bytes()
        before, memory = files(board), board.memory()
        statuses: Counter[int] = Counter()
        for sent in (*NO_REQUESTS, *_requests(rng, board.token)):
            found = status(board.raw(sent, seconds=0.3))
            statuses[found] += 1
            assert found < 500, sent[:3000]
        assert statuses[200] > 5
        assert {400, 401, 403, 404} <= set(statuses)
        assert board.memory() - memory < MEMORY
        assert board.log("kept").read_bytes() == log
        new = files(board) - before
        assert not [path for path in new if not WRITTEN.fullmatch(path)]
        still_well(board, files(board))


def _requests(rng: random.Random, token: str) -> Iterator[bytes]:
    for _ in range(500):
        yield request(rng, token)


def test_small_bodies_that_grow(board: Board, gs: str) -> None:
    """A few kB that decompress to a hundred MB."""
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(b"x" * (1 << 20)) for _ in range(100)) + packer.flush()
    board.forget_peak()
    before = board.memory()
    for method, path, content_type in (
        ("PUT", f"/grid_searches/{gs}/run_config", "application/json"),
        ("POST", f"/checkpoints/{gs}/1/1", form("", b"")[1]),
    ):
        headers = {"Content-Encoding": "gzip", "Content-Type": content_type}
        assert board.request(method, path, packed, headers).status in (400, 413, 415)
    assert board.memory("VmHWM") - before < MEMORY

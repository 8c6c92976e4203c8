"""socket.io: producers deliver batches, dashboards follow grid searches. docs/protocol.md is the contract.

A dashboard is never sent anything before what went to it earlier has left, so that one which does not read costs
the server two messages and not a queue. Imports refusal, security, settings and store.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import socketio
from aiohttp import web
from socketio.packet import Packet

from ml_board.refusal import Refusal
from ml_board.security import Bucket, Guard
from ml_board.settings import Limits
from ml_board.store import Grid, Store
from mlgym.record.events import plain, seal
from mlgym.record.spool import new_source

_MAX_EVENTS = 500  # in a message to a dashboard
_MAX_BYTES = 256 * 1024
_MAX_BATCH = 10_000  # events in a message from a producer
_STALLED = 60.0  # seconds that a client may take to read one message
_AUTHENTICATED_WITHIN = 10.0  # seconds
_HEADS = 0.03  # seconds between two `head` messages


class _Json:
    """JSON as socket.io wants it, with events passed through as the bytes they are."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        try:
            return msgspec.json.encode(value).decode()
        except UnicodeEncodeError:  # half a character, out of what a client sent
            return json.dumps(value)

    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        except RecursionError:
            raise ValueError("nested too deep") from None
        try:
            return json.loads(text)  # a Python client writes NaN
        except RecursionError:
            raise ValueError("nested too deep") from None


class _Packet(Packet):  # type: ignore[misc]
    """A message with more than one attachment is none of ours, and would be collected without end."""

    json = _Json

    def decode(self, encoded_packet: str) -> int:
        count = int(super().decode(encoded_packet))
        if count > 1:
            raise ValueError("more than one attachment")
        return count


class _WebSocket:
    """What engine.io runs a connection on: aiohttp's, without compression, and with an end to patience."""

    def __init__(
        self,
        handler: Callable[[_WebSocket], Awaitable[None]],
        server: Any,
        is_known: Callable[[str], bool],
        limit: Callable[[web.Request], int],
    ) -> None:
        self._handler = handler
        self._is_known = is_known
        self._limit = limit
        self._connection: Any = handler.__self__  # type: ignore[attr-defined]

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        request: web.Request = environ["aiohttp.request"]
        self._transport = request.transport
        self._socket = web.WebSocketResponse(max_msg_size=self._limit(request), compress=False)
        await self._socket.prepare(request)
        self.environ = environ
        expected = asyncio.get_running_loop().call_later(_AUTHENTICATED_WITHIN, self._expect_known)
        try:
            await self._handler(self)
        except (ValueError, TypeError, KeyError, IndexError, OSError, AssertionError):  # what it sent is no packet
            await self._connection.queue.put(None)
            await self._connection.close(wait=False, abort=True, reason="malformed packet")
        finally:
            expected.cancel()
        return self._socket

    def _expect_known(self) -> None:
        """Who does not say who they are does not stay."""
        if not self._is_known(self._connection.sid):
            self._abort()

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._socket.close(), 5)
        except (TimeoutError, OSError):
            self._abort()

    async def send(self, message: str | bytes) -> None:
        send = self._socket.send_bytes(message) if isinstance(message, bytes) else self._socket.send_str(message)
        try:
            await asyncio.wait_for(send, _STALLED)
        except TimeoutError:
            self._abort()
            raise OSError("the client does not read") from None

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def wait(self) -> str | bytes:
        while self._connection.queue.qsize() > 32:  # who does not read our answers is not asked for more questions
            await asyncio.sleep(0.05)
        message = await self._socket.receive()
        if not isinstance(message.data, str | bytes):
            raise OSError
        return message.data


@dataclass
class _Client:
    """One connection."""

    sid: str
    bucket: Bucket
    connection: Any
    """What engine.io knows of it."""
    rooms: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    producing: set[str] = field(default_factory=set)
    source: str = field(default_factory=lambda: new_source("connection"))
    """Of events that come without one."""
    numbers: dict[str, int] = field(default_factory=dict)


class Sockets:
    """The socket.io server over a store."""

    def __init__(self, store: Store, guard: Guard, limits: Limits) -> None:
        self._store = store
        self._guard = guard
        self._limits = limits
        self._clients: dict[str, _Client] = {}
        silent = logging.Logger("socketio", logging.CRITICAL + 1)  # what clients do wrong is told to them
        self._sio = socketio.AsyncServer(
            async_mode="aiohttp",
            async_handlers=False,  # or a client's messages are taken in any order
            cors_allowed_origins=[],  # the guard has looked at the origin
            transports=["websocket"],
            http_compression=False,
            max_http_buffer_size=limits.message,
            serializer=_Packet,
            json=_Json,
            logger=silent,
            engineio_logger=silent,
        )
        web_socket = partial(_WebSocket, is_known=self._is_known, limit=self._limit)
        self._sio.eio._async = {**self._sio.eio._async, "websocket": web_socket}
        self._sio.on("connect", self._connect)
        self._sio.on("disconnect", self._disconnect)
        for name, handler in (
            ("join", self._join),
            ("leave", self._leave),
            ("ping", self._ping),
            ("mlgym_event", self._event),
            ("mlgym_events", self._events),
            ("mlgym_lease", self._lease),
        ):
            self._sio.on(name, self._answered(handler))

    def attach(self, app: web.Application) -> None:
        self._sio.attach(app)

    async def close(self) -> None:
        for client in list(self._clients.values()):
            await self._disconnect(client.sid, "server")
        await self._sio.shutdown()

    def check_room(self) -> None:
        """Whether one more connection may come. Raises `Refusal`."""
        if len(self._sio.eio.sockets) >= self._limits.connections:
            raise Refusal(503, f"there are {self._limits.connections} connections already")

    # --- connections ---

    def _limit(self, request: web.Request) -> int:
        """How long a message may be: what strangers send is held in memory before it can be looked at."""
        try:
            self._guard.check_token(request.headers, request.cookies)
        except Refusal:
            return self._limits.unknown_message
        return self._limits.message

    def _is_known(self, eio_sid: str) -> bool:
        return any(client.connection.sid == eio_sid for client in self._clients.values())

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object) -> None:
        request: web.Request = environ["aiohttp.request"]
        try:
            self._guard.check_token(request.headers, request.cookies, auth)
        except Refusal as refusal:
            raise socketio.exceptions.ConnectionRefusedError(refusal.message) from None
        self._clients[sid] = _Client(sid, Bucket(self._limits.events), self._connection_of(sid))

    async def _disconnect(self, sid: str, reason: str) -> None:
        client = self._clients.pop(sid, None)
        if client is None:
            return
        for task in client.rooms.values():
            task.cancel()
        for grid_search_id in client.producing:
            await self._store.grid(grid_search_id).left(sid)

    def _answered(self, handler: Callable[[_Client, Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """A handler whose refusals become the acknowledgement, or a message to who asks for none."""

        async def answered(sid: str, data: Any = None, *_: Any) -> Any:
            client = self._clients.get(sid)
            if client is None:
                return None
            try:
                return await handler(client, data)
            except Refusal as refusal:
                error = {"status": refusal.status, "message": refusal.message}
            except Exception:
                traceback.print_exc(file=sys.stderr)
                error = {"status": 500, "message": "internal error"}
            await self._sio.emit("mlgym_error", error, to=sid)
            return {"error": error}

        return answered

    # --- dashboards ---

    async def _join(self, client: _Client, data: Any) -> dict[str, Any]:
        rooms = data.get("rooms") if isinstance(data, dict) else None
        if isinstance(rooms, str):
            rooms = [rooms]
        if not isinstance(rooms, list) or not all(isinstance(room, str) for room in rooms):
            raise Refusal(400, 'expected {"rooms": [grid search id, ...]}')
        after = data.get("after", {})
        if not isinstance(after, dict) or not all(isinstance(n, int) for n in after.values()):
            raise Refusal(400, 'expected {"rooms": [...], "after": {grid search id: seq}}')
        if len(client.rooms.keys() | set(rooms)) > self._limits.rooms:
            raise Refusal(429, f"more than {self._limits.rooms} rooms")
        grids = [(room, self._store.grid(room)) for room in dict.fromkeys(rooms)]
        for room, grid in grids:
            if room in client.rooms:
                client.rooms.pop(room).cancel()
            send = self._tell_head if data.get("protocol") == 2 else self._push
            client.rooms[room] = asyncio.create_task(send(client, room, grid, max(0, after.get(room, 0))))
            client.rooms[room].add_done_callback(_tell_crash)
        return {"head": {room: await grid.head() for room, grid in grids}}

    async def _leave(self, client: _Client, data: Any) -> dict[str, Any]:
        rooms = data.get("rooms", []) if isinstance(data, dict) else data
        for room in rooms if isinstance(rooms, list) else [rooms]:
            if isinstance(room, str) and (task := client.rooms.pop(room, None)):
                task.cancel()
        return {}

    async def _ping(self, client: _Client, data: Any) -> None:
        short = data is not None and len(_Json.dumps(data)) <= 1024  # or it would fill our memory
        await self._sio.emit("pong", data if short else None, to=client.sid)

    async def _push(self, client: _Client, room: str, grid: Grid, after: int) -> None:
        """Everything after `after`, then whatever comes: what has piled up in batches, new events one by one."""
        with grid.watched() as changed:
            caught_up = False
            while True:
                changed.clear()
                lines = await grid.lines(after, _MAX_EVENTS, _MAX_BYTES)
                if not lines:
                    caught_up = True
                    await changed.wait()
                    continue
                await self._sent(client)
                events = [{"event_id": _seq(line), "data": msgspec.Raw(line)} for line in lines]
                if caught_up and len(events) <= 20:
                    for event in events:
                        await self._sio.emit("mlgym_event", event, to=client.sid)
                else:
                    await self._sio.emit("mlgym_event", {"event_id": "batched_events", "data": events}, to=client.sid)
                after = _seq(lines[-1])

    async def _tell_head(self, client: _Client, room: str, grid: Grid, told: int) -> None:
        """The newest number, whenever there is a newer one and the client has read the one before."""
        with grid.watched() as changed:
            while True:
                changed.clear()
                head = await grid.head()
                if head != told:
                    await self._sent(client)
                    await self._sio.emit("head", {"grid_search_id": room, "head": head}, to=client.sid)
                    told = head
                await changed.wait()
                await asyncio.sleep(_HEADS)

    async def _sent(self, client: _Client) -> None:
        """Until what was sent to the client before has left."""
        while not client.connection.closed and not client.connection.queue.empty():
            await asyncio.sleep(0.01)

    def _connection_of(self, sid: str) -> Any:
        return self._sio.eio.sockets[self._sio.manager.eio_sid_from_sid(sid, "/")]

    # --- producers ---

    def _grid_of(self, data: Any) -> tuple[str, Grid]:
        found = data.get("grid_search_id") if isinstance(data, dict) else None
        if not isinstance(found, str):
            raise Refusal(400, 'expected {"grid_search_id": id, ...}')
        return found, self._store.grid(found)

    async def _events(self, client: _Client, data: Any) -> dict[str, Any]:
        """A batch, as the spool has it."""
        grid_search_id, grid = self._grid_of(data)
        batch = data.get("events")
        if not isinstance(batch, bytes):
            raise Refusal(400, 'expected {"grid_search_id": id, "events": lines of a spool, as binary}')
        if batch.count(b"\n") > _MAX_BATCH:
            raise Refusal(413, f"more than {_MAX_BATCH:,} events in a batch")
        return await self._accept(client, grid_search_id, grid, batch)

    async def _accept(self, client: _Client, grid_search_id: str, grid: Grid, batch: bytes) -> dict[str, Any]:
        _refuse_leased(client, grid_search_id, grid)
        answer = await grid.accept(client.sid, batch)
        client.producing.add(grid_search_id)
        return answer._asdict()

    async def _event(self, client: _Client, data: Any) -> dict[str, Any]:
        """One event, as plain data."""
        if not isinstance(data, dict) or not isinstance(data.get("event_type"), str):
            raise Refusal(400, 'expected {"event_type": ..., "payload": {"grid_search_id": ...}}')
        if (pause := client.bucket.wait()) > 0:
            await asyncio.sleep(pause)
        client.bucket.take()
        payload = data.get("payload")
        grid_search_id, grid = self._grid_of(payload)
        own = not isinstance(data.get("source"), str) or not isinstance(data.get("n"), int)
        n = client.numbers.get(grid_search_id, 0) + 1
        envelope = {
            "event_type": data["event_type"],
            "creation_ts": data.get("creation_ts", 0),
            "source": client.source if own else data["source"],
            "n": n if own else data["n"],
            "attempt": data.get("attempt", 1),
            "payload": payload,
        }
        kept = {key: value for key, value in data.items() if key not in (*envelope, "seq", "crc")}
        try:
            body = msgspec.json.encode(plain(envelope | kept))
        except (RecursionError, ValueError, TypeError, OverflowError):
            raise Refusal(400, "the event is no plain data, or nested too deep") from None
        answer = await self._accept(client, grid_search_id, grid, seal(body[:-1]))
        if answer["rejected"]:
            raise Refusal(400, "no event: `n` from 1, up to 4 MiB, nested up to 64 deep")
        if own:
            client.numbers[grid_search_id] = n
        return answer

    async def _lease(self, client: _Client, data: Any) -> dict[str, Any]:
        """A run says that a grid search is its own, for as long as it is connected."""
        grid_search_id, grid = self._grid_of(data)
        _refuse_leased(client, grid_search_id, grid)
        grid.lease = (client.sid, str(data.get("by", "another process"))[:200])
        client.producing.add(grid_search_id)
        return {"head": await grid.head()}


def _refuse_leased(client: _Client, grid_search_id: str, grid: Grid) -> None:
    if grid.lease and grid.lease[0] != client.sid:
        raise Refusal(423, f"the grid search {grid_search_id} is being run by {grid.lease[1]}")


def _tell_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        traceback.print_exception(error, file=sys.stderr)


def _seq(line: bytes) -> int:
    return int(line[7 : line.find(b",")])  # {"seq":7,

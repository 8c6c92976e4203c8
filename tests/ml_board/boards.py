"""Boards for tests: real processes with a folder, a token and a port of their own, and what it takes to talk to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import socketio

from mlgym.record.events import body_of, seal
from mlgym.record.journal import read_blocks
from mlgym.record.token import VARIABLE
from tests.conftest import ROOT

_PATIENCE = 60.0  # seconds for anything that should take none


T = TypeVar("T")


def wait_until(found: Callable[[], T], what: str = "", seconds: float = _PATIENCE) -> T:
    """The first true answer of `found`."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what or found}"
        time.sleep(0.01)
    return answer


async def until(found: Callable[[], T], what: str = "", seconds: float = _PATIENCE) -> T:
    """`wait_until` while other tasks go on."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what or found}"
        await asyncio.sleep(0.01)
    return answer


@dataclass
class Response:
    """What a board answered. The names of `headers` are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What an error says; every error has the same form."""
        found = self.json()
        assert found == {"error": {"status": self.status, "message": found["error"]["message"]}}, found
        return str(found["error"]["message"])


class Board:
    """`python -m ml_board` over `folder/event_storage`, or another of its commands.

    command: "main", "ws_endpoint" or "rest_endpoint" of ml_board.cli. program: a script that is run instead, with the
    same arguments. environment: variables to set, or with None to unset.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        command: str = "main",
        program: Path | None = None,
        storage: Path | None = None,
        environment: Mapping[str, str | None] | None = None,
        start: bool = True,
    ) -> None:
        self.folder = folder
        self.storage = storage or folder / "event_storage"
        self.port = 0
        self.printed = ""
        """The line that it began with."""
        self._flags = flags
        code = f"import sys; from ml_board import cli; sys.argv[0] = {command!r}; sys.exit(cli.{command}())"
        self._command = [str(program)] if program else ["-m", "ml_board"] if command == "main" else ["-c", code]
        variables = {
            **os.environ,
            VARIABLE: None,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        }
        self.environment = {key: value for key, value in variables.items() if value is not None}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if start:
            self.start()

    @property
    def arguments(self) -> list[str]:
        """The command line, but for the port."""
        return [sys.executable, *self._command, "--event_storage_path", str(self.storage), *self._flags]

    def start(self, port: int | None = None) -> None:
        """Start it (again), on any free port unless told which, and wait until it listens."""
        assert self._process is None
        with (self.folder / "stdout").open("wb") as stdout, (self.folder / "stderr").open("ab") as stderr:
            self._process = process = subprocess.Popen(
                [*self.arguments, "--port", str(port or 0)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.folder,
                env=self.environment,
            )
        wait_until(lambda: b"\n" in (self.folder / "stdout").read_bytes() or process.poll() is not None, "a board")
        self.printed = (self.folder / "stdout").read_text()
        if process.poll() is not None:
            self._process = None
            raise AssertionError(f"the board has ended with {process.returncode}: {self.stderr()}")
        self.port = int(self.url.rpartition(":")[2])

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it to its end, where a start is to fail."""
        return subprocess.run(
            [*self.arguments, "--port", "0"],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )

    @property
    def url(self) -> str:
        return self.printed.partition(": ")[2].partition("/#")[0].strip()

    @property
    def token(self) -> str:
        """The token that it asks for; empty when it asks for none."""
        file = Path(self.environment["XDG_CONFIG_HOME"]) / "mlgym" / "board_token"
        if "--no-token" in self._flags:
            return ""
        return self.environment.get(VARIABLE) or file.read_text().strip()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> int:
        """Send it a signal that ends it; its exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        return process.wait(_PATIENCE)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def stop(self) -> int:
        return self.signal(signal.SIGTERM)

    def stderr(self) -> str:
        """All that it ever said there, over all starts."""
        return (self.folder / "stderr").read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes that it holds; "VmHWM": at most, since `forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(status.partition(f"{what}:")[2].split()[0])

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    # --- REST ---

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        token: bool | str = True,
    ) -> Response:
        """`body`: bytes (or an iterable of them) as they are, anything else as JSON. `token`: its own, another or none."""
        sent = dict(headers or {})
        if body is not None and isinstance(body, dict | list | str | int):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if token:
            sent.setdefault("Authorization", f"Bearer {self.token if token is True else token}")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        try:
            connection.request(method, path, body, sent)
            return _read(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Response:
        """GET; in the names of headers '_' stands for '-'."""
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def upload(self, path: str, name: str, content: bytes, field: str = "checkpoint_file") -> Response:
        """POST one file as a form."""
        body, content_type = form(name, content, field)
        return self.request("POST", path, body, {"Content-Type": content_type})

    def raw(self, data: bytes, seconds: float = 10) -> bytes:
        """Send bytes as they are; what came back until the board hung up or was silent for so long."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            try:
                connection.sendall(data)
                while chunk := connection.recv(1 << 16):
                    found += chunk
            except (TimeoutError, ConnectionError):
                pass
        return found

    # --- socket.io ---

    def handshake(self, **headers: str) -> int:
        """The status that answers the beginning of a websocket."""
        connection, status = self.half_open(**headers)
        connection.close()
        return status

    def half_open(self, **headers: str) -> tuple[socket.socket, int]:
        """A connection that has asked to be a websocket, to be handled badly, and the status of the answer."""
        sent = {
            "Host": f"127.0.0.1:{self.port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        found = socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE)
        found.sendall(f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n{lines}\r\n".encode())
        return found, int(found.recv(4096).split()[1])

    @asynccontextmanager
    async def client(self, token: str | None = None) -> AsyncIterator[socketio.AsyncClient]:
        """A connection that does not come back by itself."""
        client = new_client()
        try:
            await self.connect(client, token)
            yield client
        finally:
            await client.disconnect()

    @asynccontextmanager
    async def websocket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A bare connection, which may send what no client would: engine.io is open, socket.io is not."""
        address = f"{self.url}/socket.io/?EIO=4&transport=websocket"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as websocket:
            assert (await websocket.receive_str()).startswith("0{")
            yield websocket

    async def connect(self, client: socketio.AsyncClient, token: str | None = None) -> None:
        auth = {"token": self.token if token is None else token}
        headers = {"Authorization": f"Bearer {auth['token']}"}
        await client.connect(self.url, headers, auth, transports=["websocket"])

    # --- what it has written ---

    def log(self, grid_search_id: str = "g") -> Path:
        return self.storage / grid_search_id / "event_storage.log"

    def lines(self, grid_search_id: str = "g") -> list[bytes]:
        """The lines of a log, which are whole, good and numbered without a gap."""
        content = self.log(grid_search_id).read_bytes() if self.log(grid_search_id).exists() else b""
        blocks = list(read_blocks(self.log(grid_search_id)))
        assert b"".join(block.lines for block in blocks) == content
        lines = content.splitlines()
        assert all(body_of(line) for line in lines)
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
        return lines


def _read(answer: HTTPResponse) -> Response:
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Response(answer.status, headers, answer.read())


def new_client(**options: Any) -> socketio.AsyncClient:
    return socketio.AsyncClient(
        **{
            "handle_sigint": False,
            "reconnection": False,
            "websocket_extra_options": {"max_msg_size": 0},
            **options,
        }
    )


def form(name: str, content: bytes, field: str = "checkpoint_file") -> tuple[bytes, str]:
    """A file as multipart/form-data, and its content type."""
    head = f'--cut\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode(errors="surrogateescape") + content + b"\r\n--cut--\r\n", "multipart/form-data; boundary=cut"


def batch(count: int, source: str = "s", grid_search_id: str = "g", first: int = 1) -> bytes:
    """The lines of a spool: `count` evaluation results of experiment 1, numbered from `first`."""
    return b"".join(
        seal(
            b'{"event_type":"evaluation_result","creation_ts":%d,"source":"%b","n":%d,"attempt":1,"payload":'
            b'{"grid_search_id":"%b","experiment_id":1,"epoch":%d,'
            b'"metric_scores":[{"metric":"a","split":"val","score":0.5}]}'
            % (1_790_000_000_000 + n, source.encode(), n, grid_search_id.encode(), n)
        )
        for n in range(first, first + count)
    )


async def answered(websocket: aiohttp.ClientWebSocketResponse, begin: str) -> str:
    """The first message that begins so, whatever comes before it; empty when the board hangs up instead."""
    async for message in websocket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        if message.data == "2":
            await websocket.send_str("3")
        elif message.data.startswith(begin):
            return str(message.data)
    return ""


def deliver(board: Board, lines: bytes, grid_search_id: str = "g") -> dict[str, Any]:
    """Hand a batch to a board over a connection of its own; the acknowledgement."""

    async def run() -> dict[str, Any]:
        async with board.client() as client:
            answer: dict[str, Any] = await client.call(
                "mlgym_events", {"grid_search_id": grid_search_id, "events": lines}, timeout=_PATIENCE
            )
            return answer

    return asyncio.run(run())

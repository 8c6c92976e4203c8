"""A server's REST as a run uses it: configurations and checkpoints go there, and come back for a warm start.

Imports errors, events, forwarder, checkpoint_folder and specs.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeGuard
from urllib.parse import urlsplit

import msgspec

from mlgym.errors import DamagedError, StorageError
from mlgym.record.checkpoint_folder import MANIFEST, Manifest, remove, verified
from mlgym.record.events import CheckpointChange, Event, ExperimentConfigEvent, decode_lines
from mlgym.record.forwarder import Destination
from mlgym.record.hub import Acknowledgement
from mlgym.record.journal import sync
from mlgym.specs import Checkpoint, RunPaths

_TIMEOUT = 30.0  # seconds without a byte
_PIECE = 256 * 1024
_CONFIGS = ("grid_search_config.yml", "run_config.yml", "validation_strategy_config.yml")


class Refused(StorageError):
    """The server answered, and not with what was asked for."""

    def __init__(self, url: str, status: int, body: bytes) -> None:
        try:
            message = msgspec.json.decode(body)["error"]["message"]
        except (msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError, RecursionError):
            message = f"status {status}"
        super().__init__(f"{url}: {message}")
        self.status = status


class Remote:
    """The REST endpoint at `url`. Every method raises `StorageError`; may be used by several threads."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        found = urlsplit(url)
        self._https = found.scheme == "https"
        self._address = (found.hostname or "", found.port)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._lock = threading.RLock()
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> bytes:
        with self._lock, self._ask("GET", path) as answer:
            return self._rest_of(answer)

    def put(self, path: str, content: str) -> None:
        """Store a configuration; one that is there already, the same or another, stays."""
        file_format = "JSON" if path.endswith(".json") else "YAML"
        body = msgspec.json.encode({"file_format": file_format, "content": content})
        try:
            self._done("PUT", path, body, {"Content-Type": "application/json"})
        except Refused as refused:
            if refused.status != 409:
                raise

    def delete(self, path: str) -> None:
        """Delete a checkpoint; one that is not there is deleted already."""
        try:
            self._done("DELETE", path)
        except Refused as refused:
            if refused.status != 404:
                raise

    def post(self, path: str, file: Path) -> None:
        """Add a file to a checkpoint. Raises `FileNotFoundError` when it is gone."""
        boundary = os.urandom(16).hex()
        disposition = f'form-data; name="checkpoint_file"; filename="{file.name}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head) + size + len(tail)),
            }
            self._done("POST", path, _Pieces(head, opened, tail), headers)

    def download(self, path: str, target: Path) -> None:
        with self._lock, self._ask("GET", path) as answer, target.open("wb") as file:
            try:
                while piece := answer.read(_PIECE):
                    file.write(piece)
            except (OSError, http.client.HTTPException) as error:
                raise self._lost(error) from None

    def lines(self, grid_search_id: str) -> Iterator[bytes]:
        """The whole log, in pieces of whole lines."""
        after = 0
        while True:
            body = self.get(f"/grid_searches/{grid_search_id}/events?after={after}&limit=10000")
            try:
                page = msgspec.json.decode(body, type=_Page)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise StorageError(f"{self.url} does not answer as a board does: {error}") from None
            if not page.events:
                return
            yield b"".join(bytes(event) + b"\n" for event in page.events)
            after = msgspec.json.decode(page.events[-1], type=_Numbered).seq

    # --- requests ---

    def _done(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> None:
        with self._lock, self._ask(method, path, body, headers) as answer:
            self._rest_of(answer)

    def _rest_of(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None

    def _ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The answer to a request, its body not yet read. A connection that has gone idle is made anew once."""
        for again in (True, False):
            fresh = self._connection is None
            connection = self._connection or self._connect()
            self._connection = connection
            try:
                connection.request(method, path, body, self._headers | (headers or {}))
                answer = connection.getresponse()
                break
            except FileNotFoundError:
                raise
            except (OSError, http.client.HTTPException) as error:
                lost = self._lost(error)
                if fresh or not again or isinstance(body, _Pieces):
                    raise lost from None
        if answer.status >= 300:
            raise Refused(self.url + path, answer.status, self._rest_of(answer))
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._https:
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT)

    def _lost(self, error: BaseException) -> StorageError:
        self.close()
        return StorageError(f"{self.url} cannot be reached: {str(error) or type(error).__name__}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Page(msgspec.Struct):
    events: list[msgspec.Raw]


class _Numbered(msgspec.Struct):
    seq: int


class _Pieces:
    """A multipart body that is read from its file as it is sent."""

    def __init__(self, head: bytes, file: IO[bytes], tail: bytes) -> None:
        self._parts = (head, file, tail)

    def __iter__(self) -> Iterator[bytes]:
        head, file, tail = self._parts
        yield head
        while piece := file.read(_PIECE):
            yield piece
        yield tail


class Keeper:
    """Keeps a server's REST in step with the events that are delivered: files first, then the event, then deletions."""

    def __init__(self, remote: Remote, paths: RunPaths) -> None:
        self._remote = remote
        self._paths = paths
        self._grid = f"/grid_searches/{paths.grid_search_id}"
        self._lock = threading.Lock()
        self._configured = False
        self._done: set[str] = set()

    def before(self, events: list[Event]) -> None:
        """What these events speak of is on the server. Raises `StorageError`."""
        with self._lock:
            if not self._configured:
                for name in _CONFIGS:
                    self._put(f"{self._grid}/{name}", self._paths.root / name)
                self._configured = True
            for event in events:
                if isinstance(event, ExperimentConfigEvent):
                    self._experiment(event)
                elif _of_epoch(event, "SAVED"):
                    self._upload(event.payload.experiment_id, event.payload.epoch)

    def after(self, events: list[Event]) -> None:
        """What these events say is gone, is gone from the server. Raises `StorageError`."""
        for event in events:
            if _of_epoch(event, "DELETED"):
                path = f"{event.payload.experiment_id}/{event.payload.epoch}"
                self._remote.delete(f"/checkpoints/{self._paths.grid_search_id}/{path}")

    def _experiment(self, event: ExperimentConfigEvent) -> None:
        path = f"{self._grid}/{event.payload.experiment_id}"
        if path in self._done:
            return
        config = msgspec.json.format(bytes(event.payload.config), indent=2)
        self._remote.put(f"{path}/experiment_config.json", config.decode())
        self._put(f"{path}/system_info.json", self._paths.experiment(event.payload.experiment_id) / "system_info.json")
        self._done.add(path)

    def _put(self, path: str, file: Path) -> None:
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return
        self._remote.put(path, content)

    def _upload(self, experiment_id: int, epoch: int) -> None:
        """A checkpoint; one that has been deleted here since is not sent any more."""
        folder = self._paths.experiment(experiment_id) / str(epoch)
        path = f"/checkpoints/{self._paths.grid_search_id}/{experiment_id}/{epoch}"
        try:
            content = (folder / MANIFEST).read_bytes()
            manifest = msgspec.json.decode(content, type=Manifest)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        try:
            if self._remote.get(path) == content:
                return
        except Refused as refused:
            if refused.status != 404:
                raise
        try:
            for name in (*(file.name for file in manifest.files), MANIFEST):
                self._remote.post(path, folder / name)
        except FileNotFoundError:
            return


def _of_epoch(event: Event, action: str) -> TypeGuard[CheckpointChange]:
    """Those within epochs are for the next attempt on this machine."""
    return isinstance(event, CheckpointChange) and event.payload.action == action and not event.payload.batch


def with_files(destination: Destination, keeper: Keeper | None) -> Destination:
    """The files that an event names are on the server before the event is; what it says is gone, goes after it."""
    if keeper is None:
        return destination

    def deliver(batch: bytes) -> Acknowledgement:
        events = decode_lines(batch)
        keeper.before(events)
        answer = destination(batch)
        keeper.after(events)
        return answer

    return deliver


def newer_checkpoint(
    remote: Remote, paths: RunPaths, experiment_id: int, here: Checkpoint | None, fetch: bool
) -> Checkpoint | None:
    """The newest checkpoint of an experiment: `here`, or a newer one of the server, which is brought here (`fetch`).

    Raises `StorageError`.
    """
    path = f"{paths.grid_search_id}/{experiment_id}"
    try:
        listed = msgspec.json.decode(remote.get(f"/checkpoint_list/{path}"), type=list[_Listed])
    except msgspec.MsgspecError as error:
        raise StorageError(f"{remote.url} does not answer as a board does: {error}") from None
    folder = paths.experiment(experiment_id)
    newest = max(listed, key=lambda entry: entry.epoch, default=None)
    if newest is None or (here is not None and newest.epoch <= here.epoch):
        return here
    found = Checkpoint(newest.epoch, str(folder / str(newest.epoch)))
    if not fetch:
        return found
    new = folder / f".new-{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name in newest.checkpoints:
        if Path(name).name != name:
            raise StorageError(f"{remote.url} names the file {name!r} in a checkpoint")
        remote.download(f"/checkpoints/{path}/{newest.epoch}/{name}", new / name)
        sync(new / name)
    try:
        verified(Checkpoint(newest.epoch, str(new)))
    except DamagedError as error:
        raise StorageError(f"a checkpoint on {remote.url} is damaged: {error}") from None
    remove(folder / str(newest.epoch))
    new.rename(found.directory)
    sync(folder)
    return found


class _Listed(msgspec.Struct):
    epoch: int
    checkpoints: list[str]

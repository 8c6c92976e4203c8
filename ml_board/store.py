"""The grid searches in an event storage, for many clients at once: logs read and followed, written under their flock.

What touches the disk happens in threads; everything else in the one event loop. Imports refusal and history.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ml_board.history import History
from ml_board.refusal import Refusal
from mlgym.errors import DamagedError, InUseError, MLgymError, StorageError
from mlgym.record.events import GridSearchEvent, Payload, decode
from mlgym.record.fold import State
from mlgym.record.forwarder import Forwarder
from mlgym.record.hub import Acknowledgement, Hub
from mlgym.record.journal import is_held, last_line
from mlgym.record.log import Log
from mlgym.record.spool import Spool, new_source
from mlgym.specs import GRID_SEARCH_ID, RunPaths

T = TypeVar("T")

_ID = re.compile(GRID_SEARCH_ID)
_FOLLOW = 0.2  # seconds between two looks at a log that another process writes
_IDLE = 16  # logs that are kept although nobody watches or writes them


class Store:
    """Everything below `root`. To be used in one event loop."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._grids: dict[str, Grid] = {}

    def paths(self, grid_search_id: str) -> RunPaths:
        """Where a grid search is, or would be. Raises `Refusal`: 400 for what is no id, 403 for a link out."""
        if not _ID.fullmatch(grid_search_id):
            raise Refusal(
                400,
                f"{grid_search_id[:80]!r} is no id of a grid search: expected up to 64 letters, digits, '.', '_' or "
                "'-', a letter or digit first",
            )
        paths = RunPaths(self.root, grid_search_id)
        self.inside(paths.root)
        return paths

    def inside(self, path: Path) -> Path:
        """`path`, if there is no link on the way from the root to it. Raises `Refusal`."""
        return without_links(self.root, path)

    def existing(self, grid_search_id: str) -> RunPaths:
        """Where a grid search is. Raises `Refusal`: 404 when there is none."""
        paths = self.paths(grid_search_id)
        if not paths.root.is_dir():
            raise Refusal(404, f"there is no grid search {grid_search_id!r}")
        return paths

    def grid(self, grid_search_id: str) -> Grid:
        """The grid search of this id, there already or not. Raises `Refusal` for what is no id."""
        found = self._grids.pop(grid_search_id, None) or Grid(self.paths(grid_search_id))
        self._grids[grid_search_id] = found  # the one used last stands last
        idle = [key for key, grid in self._grids.items() if grid.idle()]
        for key in idle[: max(0, len(idle) - _IDLE)]:
            if key != grid_search_id:
                del self._grids[key]
        return found

    def listing(self) -> list[dict[str, Any]]:
        """Every grid search, the newest last, by what its folder and the last line of its log say."""
        found = []
        for log in self.root.glob("*/event_storage.log"):
            paths = RunPaths(self.root, log.parent.name)
            if not _ID.fullmatch(paths.grid_search_id) or paths.root.is_symlink() or log.is_symlink():
                continue
            try:
                with log.open("rb") as file:
                    size = os.fstat(file.fileno())
                    line = last_line(file.fileno())
            except OSError:
                continue
            event = decode(line) if line else None
            status = event.payload.status if isinstance(event, GridSearchEvent) else "STARTED"
            old = event is None and size.st_size > 0  # that of an earlier tool: only reading it would tell
            found.append(
                {
                    "grid_search_id": paths.grid_search_id,
                    "status": None if old else status,
                    "running": is_held(paths.lock) or self._leased(paths.grid_search_id),
                    "head": None if old else event.seq if event else 0,
                    "size": size.st_size,
                    "modified": int(size.st_mtime * 1000),
                }
            )
        return sorted(found, key=lambda entry: (entry["modified"], entry["grid_search_id"]))

    def _leased(self, grid_search_id: str) -> bool:
        grid = self._grids.get(grid_search_id)
        return grid is not None and grid.lease is not None

    async def close(self) -> None:
        for grid in self._grids.values():
            await grid.close()


def without_links(root: Path, path: Path) -> Path:
    """`path`, which is below `root`. Raises `Refusal` when a link is on the way."""
    for part in (path, *path.parents):
        if part == root:
            return path
        if part.is_symlink():
            raise Refusal(403, "links are not followed")
    raise Refusal(403, "this is outside of the event storage")


@contextmanager
def _printed() -> Iterator[None]:
    """What goes wrong in the background is told, and tried again."""
    try:
        yield
    except Refusal:
        pass
    except Exception:
        traceback.print_exc(file=sys.stderr)


class Grid:
    """The log of one grid search.

    The first batch of a producer opens it for writing, which takes its flock; when the last producer has left, it is
    given back. Until then, and for everybody else, it is followed.
    """

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        self.lease: tuple[str, str] | None = None
        """The connection of the run that this grid search belongs to, and what it says of itself."""
        self._log: Log | None = None
        self._hub: Hub | None = None
        self._spools: Forwarder | None = None
        self._producers: set[str] = set()
        self._watchers: set[asyncio.Event] = set()
        self._follower: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._history: tuple[Log, History] | None = None
        self._remembering = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    def idle(self) -> bool:
        return not (self._producers or self._watchers or self._hub or self.lease or self._opening.locked())

    # --- reading ---

    async def log(self) -> Log:
        """The log, as it is now. Raises `Refusal`: 404 when there is none."""
        async with self._opening:
            if self._hub is None and await self._refresh():
                self._changed()  # whoever looks first must not keep the news from those who watch
            if self._log is None:
                raise Refusal(404, f"there is no grid search {self.paths.grid_search_id!r}")
            return self._log

    async def past(self, seq: int) -> State:
        """The state as of event `seq`, not to be changed. Raises `Refusal`: 404 when there is no log."""
        async with self._remembering:  # one at a time, which may take seconds: the other threads are for others
            log = await self.log()
            if self._history is None or self._history[0] is not log:
                self._history = log, History(log)
            try:
                return await asyncio.to_thread(self._history[1].state_at, seq)
            except OSError:
                raise Refusal(404, f"there is no grid search {self.paths.grid_search_id!r}") from None

    async def _refresh(self) -> bool:
        """Read on; whether there was something."""
        without_links(self.paths.event_storage, self.paths.log)
        try:
            if self._log is not None:
                return await asyncio.to_thread(self._log.refresh)
        except StorageError:  # deleted, or put there anew
            self._log = None
        try:
            self._log = await asyncio.to_thread(Log.load, self.paths.log)
        except MLgymError:
            return False
        return True

    async def head(self) -> int:
        """The number of the newest event; 0 when there is none."""
        try:
            return (await self.log()).state.seq
        except Refusal:
            return 0

    async def lines(self, after: int, limit: int, max_bytes: int) -> list[bytes]:
        """See `Log.lines`; none when there is no log."""
        try:
            return (await self.page(after, limit, max_bytes))[0]
        except Refusal:
            return []

    async def page(self, after: int, limit: int, max_bytes: int) -> tuple[list[bytes], int]:
        """See `Log.lines`, and the number of the newest event. Raises `Refusal`: 404 when there is no log."""
        log = self._log if self._hub and self._log else await self.log()
        try:
            return await asyncio.to_thread(log.lines, after, limit, max_bytes), log.state.seq
        except OSError:
            return [], log.state.seq

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever there may be something new."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        if self._follower is None:
            self._follower = asyncio.create_task(self._follow())
        try:
            yield changed
        finally:
            self._watchers.discard(changed)
            if not self._watchers and self._follower:
                self._follower.cancel()
                self._follower = None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW)
            async with self._opening:
                with _printed():
                    if self._hub is None and await self._refresh():
                        self._changed()

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    # --- writing ---

    async def accept(self, producer: str, batch: bytes) -> Acknowledgement:
        """Take in a batch of spool lines.

        Raises `Refusal`: 409 when another process writes this log, 507 when the disk does not take it.
        """
        try:
            async with self._opening:
                hub = self._hub or await self._open()
                self._producers.add(producer)
                answer = await asyncio.to_thread(hub.accept, batch, self.paths.grid_search_id)
                self._changed()
                return answer
        except InUseError as error:
            raise Refusal(409, f"{error}: it has a hub of its own") from None
        except DamagedError as error:
            raise Refusal(409, str(error)) from None
        except (StorageError, OSError) as error:
            async with self._opening:
                await self._release()  # what could not be written must be read again before more is acknowledged
            raise Refusal(507, str(error)) from None

    async def left(self, producer: str) -> None:
        """A producer has gone."""
        if self.lease and self.lease[0] == producer:
            self.lease = None
        self._producers.discard(producer)
        async with self._opening:
            if not self._producers:  # nor has one come meanwhile
                await self._release()

    async def _open(self) -> Hub:
        hub = await asyncio.to_thread(self._opened)
        self._hub, self._log = hub, hub.log

        def own(batch: bytes) -> Acknowledgement:
            answer = hub.accept(batch)
            self._loop.call_soon_threadsafe(self._changed)
            return answer

        # What a server without the flock has to say lies in spools of its own.
        self._spools = Forwarder(self.paths.spools, own, interval=0.5, pattern="*-board-*.jsonl")
        self._changed()
        return hub

    def _opened(self) -> Hub:
        for path in (self.paths.log, self.paths.spools):
            without_links(self.paths.event_storage, path)
        try:
            self.paths.spools.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.paths.spools}: cannot be written: {error.strerror}") from None
        return Hub(self.paths.log)

    async def _release(self) -> None:
        hub, spools = self._hub, self._spools
        self._hub = self._spools = None
        if spools:
            await asyncio.to_thread(spools.close)
        if hub:
            await asyncio.to_thread(hub.close)

    async def record(self, payload: Payload) -> None:
        """Write an event of the server's own, into a spool for whoever has the hub: we, if the log is free.

        Raises `Refusal`: 507 when the disk does not take it.
        """
        source = new_source("board")
        path = without_links(self.paths.event_storage, self.paths.spools) / f"{source}.jsonl"

        def write() -> None:
            with Spool(path, source) as spool:
                spool.emit(payload)

        try:
            await asyncio.to_thread(write)
        except (StorageError, OSError) as error:
            raise Refusal(507, str(error)) from None
        if self._hub is None:
            try:
                await self.accept(source, b"")
            except Refusal:
                return
            await self.left(source)

    async def close(self) -> None:
        if self._follower:
            self._follower.cancel()
        async with self._opening:
            await self._release()

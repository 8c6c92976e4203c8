"""Where a run's events go: to a hub in this process, to a board of its own, or to servers that the run config names.

spools ─► forwarder ─┬► hub                                          `board: false`
                     ├► mirror of the log, for the terminal and the table; and
                     └► server(s), over the websocket, with configs and checkpoints through REST
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from mlgym.engine.board import Board
from mlgym.engine.provenance import host
from mlgym.errors import DamagedError, InUseError, StorageError, tell
from mlgym.plan.config import LoggingConfig
from mlgym.record.delivery import Server
from mlgym.record.events import decode_lines
from mlgym.record.files import write_once
from mlgym.record.forwarder import Forwarder
from mlgym.record.hub import Hub
from mlgym.record.journal import flock, is_held
from mlgym.record.log import Log
from mlgym.record.remote import Keeper, Refused, Remote, with_files
from mlgym.record.token import board_token
from mlgym.specs import RunPaths

_SECONDS_FOR_THE_BOARD = 10.0  # to take the last events; then this process writes them itself


class Recording(NamedTuple):
    """The state of the log, and what brings events there."""

    hub: Hub
    forwarder: Forwarder
    end: Callable[[], bool]
    """Deliver what there is, and stop; whether all of it has been delivered."""
    remote: Remote | None = None


@contextmanager
def recording(paths: RunPaths, logging: LoggingConfig, fresh: bool = False) -> Iterator[Recording]:
    """The grid search is this process's: nobody else runs it, and nothing of an earlier run is alive.

    Raises `InUseError` when it is another's. Unless it is `fresh`, its state is that of its log.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(paths.lock.open("a+"))
        try:
            flock(lock.fileno(), paths.lock)
        except InUseError:
            lock.seek(0)
            raise InUseError(
                f"the grid search {paths.grid_search_id} is being run by {lock.read().strip() or 'another process'}"
            ) from None
        me = f"process {os.getpid()} on {host()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        lock.truncate(0)
        lock.write(me + "\n")
        lock.flush()
        paths.spools.mkdir(exist_ok=True)
        left = list(paths.machines.glob("*/*.jsonl"))
        _wait_for_orphans([*paths.spools.iterdir(), *left], paths)
        for spool in left:  # what is in `spools` under this name is a part of it
            spool.rename(paths.spools / spool.name)
        shutil.rmtree(paths.machines, ignore_errors=True)
        if logging.websocket_logging_servers:
            yield _on_servers(paths, logging, me, stack, fresh)
            return
        _wait_for_orphans([paths.log], paths)
        if logging.board and (board := _board(paths)):
            stack.callback(board.close)
            yield _on_board(paths, board, stack)
        else:
            yield _in_process(paths, stack)


def _in_process(paths: RunPaths, stack: ExitStack) -> Recording:
    hub = Hub(paths.log)
    stack.callback(hub.close)
    _refuse_damage(paths, hub)
    forwarder = Forwarder(paths.spools, hub.accept)
    stack.callback(forwarder.close)
    return Recording(hub, forwarder, forwarder.close)


# --- a board of its own ---


def _board(paths: RunPaths) -> Board | None:
    try:
        return Board(paths)
    except OSError as error:
        tell(f"warning: no dashboard: a port cannot be opened ({error.strerror}); events go straight to the log")
        return None


def _on_board(paths: RunPaths, board: Board, stack: ExitStack) -> Recording:
    hub = Hub.mirror(Log.load(paths.log) if paths.log.is_file() else Log(paths.log))
    _refuse_damage(paths, hub)
    server = Server(board.url, paths.grid_search_id, board.token)
    stack.callback(server.close)
    forwarder = Forwarder(paths.spools, hub.accept, server)
    stack.callback(forwarder.close)
    tell(f"dashboard: {board.page}")

    def end() -> bool:
        delivered = forwarder.close(patience=_SECONDS_FOR_THE_BOARD)
        server.close()
        board.close()
        if not delivered:  # the log is free now
            last = Hub(paths.log)
            delivered = Forwarder(paths.spools, last.accept).close()
            last.close()
        return delivered

    return Recording(hub, forwarder, end)


# --- servers ---


def _on_servers(paths: RunPaths, logging: LoggingConfig, me: str, stack: ExitStack, fresh: bool) -> Recording:
    token = _token()
    servers = [Server(url, paths.grid_search_id, token, me) for url in logging.websocket_logging_servers]
    for server in servers:
        stack.callback(server.close)
    if not fresh:
        _patiently(servers[0].connect, logging.delivery_timeout)
    hub = Hub.mirror(Log(paths.log) if fresh else remote_log(paths, logging))
    remote = stack.enter_context(remote_of(logging))
    keeper = Keeper(remote, paths) if remote else None
    forwarder = Forwarder(paths.spools, hub.accept, *(with_files(server, keeper) for server in servers))
    stack.callback(forwarder.close)

    def end() -> bool:
        return _wait(forwarder, [server.url for server in servers], logging.delivery_timeout, paths)

    return Recording(hub, forwarder, end, remote)


def _token() -> str | None:
    """The user's; made here if the board on this machine has yet to be started for the first time."""
    try:
        return board_token(make=True)
    except StorageError:
        return None


@contextmanager
def remote_of(logging: LoggingConfig) -> Iterator[Remote | None]:
    """REST, if the run config names it."""
    remote = Remote(logging.gs_rest_api_endpoint, _token()) if logging.gs_rest_api_endpoint else None
    try:
        yield remote
    finally:
        if remote:
            remote.close()


def remote_log(paths: RunPaths, logging: LoggingConfig) -> Log:
    """The log as the server has it; its configurations are brought here. Raises `StorageError`."""
    remote = Remote(logging.gs_rest_api_endpoint or logging.websocket_logging_servers[0], _token())
    log = Log(paths.log)

    def read() -> None:
        for lines in remote.lines(paths.grid_search_id):
            log.take(lines, log.end + len(lines), decode_lines(lines))

    try:
        _patiently(read, logging.delivery_timeout)
        for path in (paths.grid_search_config, paths.run_config):
            if not path.exists():
                write_once(path, remote.get(f"/grid_searches/{paths.grid_search_id}/{path.name}"))
    finally:
        remote.close()
    return log


def _patiently(action: Callable[[], None], seconds: float) -> None:
    """Do what needs a server, which may be about to come. Raises `StorageError` when it does not come in time."""
    end = time.monotonic() + seconds
    told = False
    while True:
        try:
            return action()
        except (InUseError, Refused):
            raise
        except StorageError as error:
            if time.monotonic() > end:
                raise
            if not told:
                tell(f"waiting up to {seconds:.0f} s: {error}")
                told = True
            time.sleep(0.5)


def _wait(forwarder: Forwarder, urls: list[str], seconds: float, paths: RunPaths) -> bool:
    """Until the servers have everything, visibly, and not for ever."""
    if forwarder.close(timeout=2, patience=seconds):
        return True
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        missing = {url: left for url, left in zip(urls, forwarder.undelivered()[1:], strict=True) if left}
        waiting = ", ".join(f"{left:,} bytes for {url}" for url, left in missing.items()) or "the last answers"
        tell(f"waiting for {waiting}; {deadline - time.monotonic():.0f} s at most")
        if forwarder.close(timeout=min(5, deadline - time.monotonic()), patience=deadline - time.monotonic()):
            return True
    missing_urls = [url for url, left in zip(urls, forwarder.undelivered()[1:], strict=True) if left] or urls
    servers = " ".join(f"--server {url}" for url in missing_urls)
    tell(
        f"warning: not everything could be delivered; what is missing stays in {paths.spools}. Later: "
        f"mlgym sync {paths.grid_search_id} {servers} --event_storage_path {paths.event_storage}"
    )
    return False


# --- what an earlier run has left ---


def _refuse_damage(paths: RunPaths, hub: Hub) -> None:
    if hub.damaged:
        raise DamagedError(
            f"{paths.log}: {hub.damaged} bytes in its middle are damaged; it can be read (status, load_model), but "
            "the grid search cannot be gone on with"
        )


def _wait_for_orphans(files: Iterable[Path], paths: RunPaths, seconds: float = 10) -> None:
    """Jobs and boards whose run was killed end by themselves, soon; until then they hold their files."""
    end = time.monotonic() + seconds
    for file in files:
        while is_held(file):
            if time.monotonic() > end:
                raise InUseError(f"{paths.grid_search_id}: a process of an earlier run is still alive, it holds {file}")
            time.sleep(0.05)
        if file.suffix == ".new":  # killed before it got its name: there is nothing in it
            file.unlink(missing_ok=True)

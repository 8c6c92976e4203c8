"""Where a run's events go: its own board, named servers that come and go, and what is done about those that do not."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import socketio
from aiohttp import web

from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.log import Log, read_state
from tests.engine.exact import EPOCHS, grid_config
from tests.engine.grids import Grid
from tests.ml_board.boards import Board, wait_until

MAIN: dict[str, Any] = {"type": "main_process"}
MANY: dict[str, Any] = {"type": "multiprocessing", "config": {"process_count": 2, "retry_delay": 0}}


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    (tmp_path / "grid").mkdir()
    found = Grid(tmp_path / "grid", {"XDG_CONFIG_HOME": str(tmp_path / "config"), "OMP_NUM_THREADS": "1"})
    yield found
    found.kill_all()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with Board(tmp_path / "board", environment={"XDG_CONFIG_HOME": str(tmp_path / "config")}) as board:
        yield board


def to(*urls: str, rest: str | None = None, timeout: float = 60) -> dict[str, Any]:
    logging = {"websocket_logging_servers": list(urls), "delivery_timeout": timeout}
    return logging | ({"gs_rest_api_endpoint": rest} if rest else {})


def identities(log: Path) -> list[tuple[str, int]]:
    """(source, n) of every event, once each and in order for each source; `seq` without a gap."""
    events = [json.loads(line) for line in Log.load(log).lines(0, 10**9, 10**12)]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    found = [(event["source"], event["n"]) for event in events]
    for source in {source for source, _ in found}:
        numbers = [n for name, n in found if name == source]
        assert numbers == list(range(1, len(numbers) + 1))
    return found


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return int(listening.getsockname()[1])


# --- its own board ------------------------------------------------------------------------------------------


def dashboard(stderr: Path) -> tuple[str, str]:
    """URL and token, once the run has printed them."""
    found = wait_until(lambda: re.search(r"dashboard: (http://\S+)/#token=(\S+)", stderr.read_text()), "its dashboard")
    assert found
    return found[1], found[2]


def get(url: str, token: str, path: str) -> Any:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    with closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())


@contextmanager
def started(grid: Grid) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run whose first experiment waits for the file `enough`, and what it prints to stderr."""
    stderr = grid.folder / "stderr"
    with stderr.open("w") as file:
        process = subprocess.Popen(**grid.command(), stdout=subprocess.DEVNULL, stderr=file)
        yield process, stderr
        process.kill()
        process.wait()


def boards(grid: Grid) -> list[int]:
    return [pid for pid, line in grid.processes().items() if "-m ml_board" in line]


def test_a_board_of_its_own_by_default(grid: Grid) -> None:
    """It shows the run while it runs, is started again when it dies, and ends with it."""
    grid.logging = {}
    grid.write(MANY, {"kind": ["wait", "fine"]})
    with started(grid) as (process, stderr):
        url, token = dashboard(stderr)
        (entry,) = wait_until(lambda: get(url, token, "/grid_searches"))
        assert (entry["grid_search_id"], entry["running"]) == (grid.root.name, True)
        grid.wait_for("DONE")
        (pid,) = boards(grid)
        os.kill(pid, signal.SIGKILL)
        snapshot = get(
            url, token, f"/grid_searches/{grid.root.name}/snapshot"
        )  # from the next one, at the same address
        assert [e["status"] for e in snapshot["experiments"]] == ["RUNNING", "DONE"]
        (grid.folder / "enough").touch()
        assert process.wait(60) == 0
    assert stderr.read_text().count("the board has died") == 1
    assert "ml_board --event_storage_path event_storage" in stderr.read_text()
    assert grid.ended_once() == {"DONE": 2}
    assert grid.state.status == "FINISHED"
    identities(grid.root / "event_storage.log")
    grid.gone()


def test_a_board_does_not_outlive_its_run(grid: Grid) -> None:
    grid.logging = {}
    grid.write(MANY, {"kind": "wait"})
    with started(grid) as (process, stderr):
        dashboard(stderr)
        grid.wait_for("RUNNING")
        process.kill()
    wait_until(lambda: not boards(grid), "the end of the board")


@pytest.mark.long
def test_a_board_that_hangs_does_not_keep_events(grid: Grid) -> None:
    """In the end the run writes them itself."""
    grid.logging = {}
    grid.write(MANY, {"kind": "wait"})
    with started(grid) as (process, stderr):
        dashboard(stderr)
        grid.wait_for("RUNNING")
        os.kill(boards(grid)[0], signal.SIGSTOP)
        (grid.folder / "enough").touch()
        assert process.wait(200) == 0
    assert grid.ended_once() == {"DONE": 1}
    grid.gone()


@pytest.mark.parametrize("how", ["flag", "config", "no port"])
def test_without_a_board(grid: Grid, how: str) -> None:
    grid.logging = {"board": False} if how == "config" else {}
    grid.write(MAIN, {"kind": "fine"})
    if how == "no port":
        script = grid.folder / "run.py"
        patch = "import socket\ndef refuse(*_):\n    raise PermissionError(13, 'Permission denied')\n"
        script.write_text(f"{patch}socket.create_server = refuse\n{script.read_text()}")
    ended = grid.run(*(["run", "--no-board"] if how == "flag" else []))
    assert ended.returncode == 0, ended.stderr
    assert "dashboard: http" not in ended.stderr
    assert ("a port cannot be opened" in ended.stderr) == (how == "no port")
    assert grid.ended_once() == {"DONE": 1}


# --- servers ------------------------------------------------------------------------------------------------


def test_servers_have_everything(grid: Grid, board: Board, tmp_path: Path) -> None:
    with Board(tmp_path / "other", environment={"XDG_CONFIG_HOME": str(tmp_path / "config")}) as other:
        grid.logging = to(board.url, other.url, rest=board.url)
        grid.write(MANY, {"kind": ["fine", "fine"]}, epochs=2)
        ended = grid.run()
        assert ended.returncode == 0, ended.stderr
        assert f"log: {board.url}, {other.url}" in ended.stdout
        assert board.stop() == other.stop() == 0
    here, there = grid.root, board.storage / grid.root.name
    assert sorted(identities(there / "event_storage.log")) == sorted(identities(other.log(grid.root.name)))
    assert read_state(there / "event_storage.log").status == "FINISHED"
    assert not (here / "event_storage.log").exists()
    assert not list((here / "spool").iterdir())
    for name in ("run_config.yml", "grid_search_config.yml", "0/experiment_config.json", "1/system_info.json"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    for experiment in ("0", "1"):
        assert (
            [c.epoch for c in available(there / experiment)] == [c.epoch for c in available(here / experiment)] == [2]
        )
        assert verified(available(there / experiment)[0]) == verified(available(here / experiment)[0])


def test_a_server_that_is_late_goes_and_comes_back(grid: Grid, tmp_path: Path) -> None:
    port = free_port()
    grid.logging = to(f"http://127.0.0.1:{port}")
    grid.write(MANY, {"kind": ["fine", "wait", "fine"]})
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    with started(grid) as (process, stderr), Board(tmp_path / "board", environment=environment, start=False) as board:
        wait_until(lambda: "waiting on disk" in stderr.read_text(), "the warning")
        for word in ("STARTED", "DONE"):
            board.start(port)
            needle = f'"{word}"'.encode()
            wait_until(lambda needle=needle: any(needle in line for line in board.lines(grid.root.name)), word)  # type: ignore[misc]
            board.kill()
        (grid.folder / "enough").touch()
        wait_until(lambda: "[3/3]" in stderr.read_text(), "the end of the training")
        board.start(port)
        assert process.wait(90) == 0
        board.stop()
    assert stderr.read_text().count("warning") == 1
    identities(board.log(grid.root.name))
    assert [e.status for e in read_state(board.log(grid.root.name)).experiments.values()] == ["DONE"] * 3
    assert not list((grid.root / "spool").iterdir())


@pytest.mark.long
def test_another_machine_goes_on(grid: Grid, board: Board, tmp_path: Path) -> None:
    """The log, the configuration and the checkpoints come from the server, and the result is the same to the bit."""
    (tmp_path / "plain").mkdir()
    plain, other = Grid(tmp_path / "plain", grid.environment), Grid(_made(tmp_path / "other"), dict(grid.environment))
    numbers = {"sweep": "absolute", "values": [1, 2]}
    for one in (plain, grid):
        one.train("exact.py", MANY, grid_config(numbers), num_epochs=EPOCHS, seed=3)
    assert plain.run().returncode == 0

    grid.environment["MLGYM_TEST_SLEEP"] = "0.1"
    grid.logging = to(board.url, rest=board.url)
    grid.train("exact.py", MANY, grid_config(numbers), num_epochs=EPOCHS, seed=3)
    with started(grid) as (process, _):
        id_ = wait_until(lambda: [p.name for p in board.storage.glob("*")], "the log")[0]
        wait_until(lambda: all((board.storage / id_ / e / "1").is_dir() for e in "01"), "checkpoints")

        for name in ("run.py", "parts.py"):
            (other.folder / name).write_text((grid.folder / name).read_text())
        other.logging = grid.logging
        other._run_config("warmstart", MANY, {"gridsearch_id": id_, "num_epochs": EPOCHS})
        refused = other.run()
        assert (refused.returncode, "is being run by process" in refused.stderr) == (3, True), refused.stderr
        process.kill()
        process.wait()
    planned = other.run("plan")
    assert "warm start: 2 go on" in planned.stdout, planned.stderr
    ended = other.run()
    assert ended.returncode == 0, ended.stderr
    board.stop()
    identities(board.log(id_))
    state = read_state(board.log(id_))
    assert state.status == "FINISHED"
    for experiment_id, experiment in plain.state.experiments.items():
        assert state.experiments[experiment_id].scores == experiment.scores
        assert state.experiments[experiment_id].attempt == 2
        there = verified(available(board.storage / id_ / str(experiment_id))[0])
        here = verified(available(plain.root / str(experiment_id))[0])
        # One file says which attempt it was.
        assert {f.name: f.sha256 for f in there.files} == {f.name: f.sha256 for f in here.files}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_grid_search_stays_where_it_began(grid: Grid, board: Board) -> None:
    grid.write(MAIN, {"kind": "fine"})
    assert grid.run().returncode == 0
    grid.logging = to(board.url, timeout=1)
    grid.warm_start(MAIN, num_epochs=2)
    ended = grid.run()
    assert (ended.returncode, "mlgym sync" in ended.stderr) == (2, True), ended.stderr
    sent = mlgym(grid, "sync", grid.root.name, "--server", board.url)
    assert sent.returncode == 0, sent.stderr
    assert sorted(identities(board.log(grid.root.name))) == sorted(identities(grid.root / "event_storage.log"))
    assert (board.storage / grid.root.name / "0" / "1" / "manifest.json").exists()
    assert mlgym(grid, "sync", grid.root.name, "--server", board.url).returncode == 0  # and again: nothing changes
    assert sorted(identities(board.log(grid.root.name))) == sorted(identities(grid.root / "event_storage.log"))


def test_what_is_on_a_server_is_not_begun_anew_elsewhere(grid: Grid, board: Board) -> None:
    grid.logging = to(board.url, timeout=1)
    grid.write(MAIN, {"kind": "fine"})
    assert grid.run().returncode == 0
    url = board.url
    board.stop()
    grid.warm_start(MAIN, num_epochs=2)
    ended = grid.run()
    assert (ended.returncode, "cannot be reached" in ended.stderr) == (2, True), ended.stderr
    for logging in ({"board": False}, {}):
        grid.logging = logging
        grid.warm_start(MAIN, num_epochs=2)
        ended = grid.run()
        assert (ended.returncode, "is on the servers" in ended.stderr) == (2, True), ended.stderr
    assert "is on the servers" in mlgym(grid, "status", grid.root.name).stderr
    assert url in (grid.root / "run_config.yml").read_text()


def mlgym(grid: Grid, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = grid.command() | {"args": [sys.executable, "-m", "mlgym", *arguments]}
    return subprocess.run(**command, capture_output=True, timeout=120, check=False)


# --- what answers is no board -------------------------------------------------------------------------------


def _garbage(connection: socket.socket) -> None:
    connection.sendall(os.urandom(1000))


def _http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def _closes(connection: socket.socket) -> None:
    connection.recv(65536)


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that answers every connection so."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        answer(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def acknowledging(answer: Any) -> Iterator[str]:
    """A socket.io server that answers every batch so."""
    loop = asyncio.new_event_loop()
    server = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"])
    app = web.Application()
    server.attach(app)

    async def events(sid: str, data: Any) -> Any:
        return answer

    server.on("mlgym_events", events)
    server.on("mlgym_lease", events)
    listening = socket.create_server(("127.0.0.1", 0))
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, listening).start()

    async def end() -> None:
        await server.shutdown()
        await runner.cleanup()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


NONSENSE: dict[str, Callable[[], Any]] = {
    "garbage": lambda: serving(_garbage),
    "http": lambda: serving(_http),
    "closes": lambda: serving(_closes),
    "nothing": lambda: acknowledging({}),
    "wrong types": lambda: acknowledging({"durable": {"a": "b"}, "expected": [], "rejected": None}),
    "acknowledges too little": lambda: acknowledging({"durable": {}, "expected": {}, "rejected": 0}),
    "a string": lambda: acknowledging("fine"),
    "an error": lambda: acknowledging({"error": {"status": 507, "message": "the disk is full"}}),
    "half an error": lambda: acknowledging({"error": {}}),
}


@pytest.mark.parametrize(
    "what",
    [pytest.param([*NONSENSE], id="all"), *(pytest.param([one], id=one, marks=pytest.mark.long) for one in NONSENSE)],
)
def test_nonsense_costs_nothing(grid: Grid, board: Board, what: list[str]) -> None:
    """Training goes on, there is a warning for each server, and `sync` brings what was not taken to one that does."""
    with ExitStack() as stack:
        urls = [stack.enter_context(NONSENSE[one]()) for one in what]
        grid.logging = to(*urls, timeout=1)
        grid.write(MAIN, {"kind": "fine"})
        ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("events are waiting on disk") == len(urls), ended.stderr
    servers = " ".join(f"--server {url}" for url in urls)
    assert f"mlgym sync {grid.root.name} {servers}" in ended.stderr
    kept = sorted((grid.root / "spool").iterdir())
    sent = mlgym(grid, "sync", grid.root.name, "--server", board.url)
    assert sent.returncode == 0, sent.stderr
    assert read_state(board.log(grid.root.name)).status == "FINISHED"
    identities(board.log(grid.root.name))
    assert sorted((grid.root / "spool").iterdir()) == kept  # for the server that was named


def test_sync_of_a_running_grid_search_and_of_none(grid: Grid, board: Board) -> None:
    grid.write(MANY, {"kind": "wait"})
    with started(grid):
        grid.wait_for("RUNNING")
        ended = mlgym(grid, "sync", grid.root.name, "--server", board.url)
        assert (ended.returncode, "is running" in ended.stderr) == (3, True), ended.stderr
    ended = mlgym(grid, "sync", grid.root.name + "x", "--server", board.url)
    assert (ended.returncode, f"did you mean '{grid.root.name}'" in ended.stderr) == (2, True), ended.stderr
    wait_until(lambda: not grid.processes())
    ended = mlgym(grid, "sync", grid.root.name, "--server", f"http://127.0.0.1:{free_port()}")
    assert (ended.returncode, "cannot be reached" in ended.stderr) == (2, True), ended.stderr

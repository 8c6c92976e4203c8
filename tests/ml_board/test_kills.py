"""SIGKILL, at random moments, of everything between an event and the log: worker, forwarder and server."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Self

import pytest

from ml_board.projections import snapshot
from mlgym.record.checkpoint_folder import Manifest
from mlgym.record.events import CheckpointFile, decode_lines
from mlgym.record.fold import State, fold_all
from mlgym.record.journal import read_blocks
from mlgym.record.log import Log, last_numbers
from tests.conftest import ROOT
from tests.ml_board.boards import Board, Response, form, wait_until

WORKERS = 3

WORKER = """
import os, sys, time
from pathlib import Path
from mlgym.record.events import EvaluationResult, ExperimentStatus, MetricScore
from mlgym.record.spool import Spool
folder, source = sys.argv[1:]
with Spool(Path(folder) / f"{source}.jsonl", source) as spool:
    n = 0
    while True:
        n += 1
        if n % 3:
            scores = [MetricScore("a", "val", n / 7)]
            event = EvaluationResult(grid_search_id="g", experiment_id=n % 5, epoch=n % 40, metric_scores=scores)
        else:
            event = ExperimentStatus(
                grid_search_id="g", experiment_id=n % 5, status="train", num_epochs=40, current_epoch=n % 40
            )
        spool.emit(event, attempt=1 + n // 500)
        os.write(1, b"%d\\n" % n)  # what has been told, has been emitted
        if n % 8 == 0:
            time.sleep(0.005)
"""

FORWARDER = """
import json, os, sys
from pathlib import Path
from mlgym.record.delivery import Server
from mlgym.record.forwarder import Forwarder
folder, url, token = sys.argv[1:]
server = Server(url, "g", token)

def deliver(batch):
    answer = server(batch)
    os.write(1, json.dumps(answer.durable).encode() + b"\\n")
    return answer

forwarder = Forwarder(Path(folder), deliver, interval=0.01)
sys.stdin.read()
delivered = forwarder.close(60, patience=60)
server.close()
sys.exit(not delivered)
"""


class Process:
    """A program that tells, line by line, in a file of its own."""

    def __init__(self, folder: Path, name: str, program: str, *arguments: str | Path) -> None:
        self.name = name
        self._told = folder / f"{name}.told"
        self._stderr = folder / f"{name}.stderr"
        with self._told.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def told(self) -> list[bytes]:
        """Its lines so far, but for one that it was killed in."""
        return self._told.read_bytes().split(b"\n")[:-1]

    def stderr(self) -> str:
        return self._stderr.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> int:
        """Tell it to end, which it sees at the end of its stdin."""
        assert self._process.stdin
        self._process.stdin.close()
        return self._process.wait(180)


class Site:
    """A board, a forwarder and some workers; each can be killed, and is then replaced."""

    def __init__(self, folder: Path) -> None:
        self.spools = folder / "spool"
        self.spools.mkdir()
        self.board = Board(folder / "board")
        self._folder = folder
        self._offset = 0
        self._written: dict[str, int] = {}
        self.forwarders: list[Process] = []
        self.workers: list[Process] = []
        self.start_forwarder()
        for _ in range(WORKERS):
            self.start_worker()

    def start_forwarder(self) -> None:
        name = f"forwarder-{len(self.forwarders)}"
        process = Process(self._folder, name, FORWARDER, self.spools, self.board.url, self.board.token)
        self.forwarders.append(process)

    def start_worker(self) -> None:
        source = f"worker-{len(self.workers):03d}"
        self.workers.append(Process(self._folder, source, WORKER, self.spools, source))

    def kill(self, victim: str, random_: random.Random) -> None:
        if victim == "server":
            assert self.board.running, self.board.stderr()
            self.board.kill()
            self.check()
            self.board.start(self.board.port)
        elif victim == "forwarder":
            assert self.forwarders[-1].running, self.forwarders[-1].stderr()
            self.forwarders[-1].kill()
            self.start_forwarder()
        else:
            worker = random_.choice([worker for worker in self.workers if worker.running])
            worker.kill()
            self.start_worker()

    def check(self) -> None:
        """What is acknowledged by now is in the log already."""
        acknowledged = self.acknowledged()
        written = self.written()
        for source, n in acknowledged.items():
            assert written.get(source, 0) >= n, (source, n, written)

    def acknowledged(self) -> dict[str, int]:
        """source -> its last event that any forwarder knows to be safe."""
        found: dict[str, int] = {}
        for forwarder in self.forwarders:
            for line in forwarder.told():
                for source, n in json.loads(line).items():
                    found[source] = max(n, found.get(source, 0))
        return found

    def written(self) -> dict[str, int]:
        """source -> its last event in the log."""
        for block in read_blocks(self.board.log(), self._offset):
            assert not block.damaged
            self._offset = block.end
            self._written |= last_numbers(decode_lines(block.lines))
        return self._written

    def drain(self) -> None:
        """Kill the workers; deliver what they have left behind."""
        for worker in self.workers:
            if worker.running:
                worker.kill()
        assert self.forwarders[-1].end() == 0, self.forwarders[-1].stderr()
        assert not list(self.spools.glob("*.jsonl"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, *self.forwarders):
            if process.running:
                process.kill()
        self.board.__exit__()


@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.long)])
def test_no_event_is_lost_or_doubled_whoever_is_killed(tmp_path: Path, kills: int) -> None:
    random_ = random.Random(kills)
    victims = [("server", "forwarder", "worker")[i % 3] for i in range(kills)]
    random_.shuffle(victims)
    with Site(tmp_path) as site:
        for victim in victims:
            if random_.random() < 0.7:  # else it may be killed before it has done anything at all
                size = _size(site.board)
                wait_until(lambda size=size: _size(site.board) > size, "events to flow")  # type: ignore[misc]
            time.sleep(random_.uniform(0, 0.05))
            site.kill(victim, random_)
            site.check()
        site.drain()
        site.check()

        events = [json.loads(line) for line in site.board.lines()]  # which looks at seq
        numbers: dict[str, list[int]] = {}
        for event in events:
            numbers.setdefault(event["source"], []).append(event["n"])
        for worker in site.workers:
            emitted = len(worker.told())
            found = numbers.pop(worker.name, [])
            assert found == list(range(1, len(found) + 1))
            assert emitted <= len(found) <= emitted + 1  # it may have died before it could tell of the last one
        assert not numbers

        afresh = State()
        for block in read_blocks(site.board.log()):
            fold_all(afresh, decode_lines(block.lines))
        assert Log.load(site.board.log()).state == afresh
        assert site.board.get("/grid_searches/g/snapshot").json() == json.loads(json.dumps(snapshot(afresh)))
        assert "Traceback" not in site.board.stderr()
        for process in (*site.workers, *site.forwarders):
            warnings = process.stderr().splitlines()
            assert len(warnings) <= 1, warnings  # that events are waiting on disk
            assert all("events are waiting on disk" in warning for warning in warnings)


def _size(board: Board) -> int:
    return board.log().stat().st_size if board.log().exists() else 0


# --- checkpoints ---

FILES = {f"part-{i}": os.urandom(3 << 20) for i in range(3)}
PATH = "/checkpoints/g/0/1"


def manifest() -> bytes:
    files = [CheckpointFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()]
    return Manifest(epoch=1, batch=0, files=files, delete=[]).sealed()


def test_a_server_killed_in_an_upload_goes_on_where_it_was(tmp_path: Path) -> None:
    """What has been acknowledged is kept; half a file is none; and no trace of it stays."""
    with Board(tmp_path) as board:
        first, second, third = FILES
        assert board.upload(PATH, first, FILES[first]).status == 200
        body, content_type = form(second, FILES[second])
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{board.port}\r\nAuthorization: Bearer {board.token}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        folder = board.storage / "g" / "0" / ".upload-1"
        with socket.create_connection(("127.0.0.1", board.port)) as connection:
            connection.sendall(head.encode() + body[: len(body) // 2])
            wait_until(lambda: any(f.name.startswith(".") and f.stat().st_size for f in folder.iterdir()))
            board.kill()
        board.start(board.port)
        assert board.get(PATH).status == 404
        assert board.get("/checkpoint_list/g/0").json() == []
        assert board.upload(PATH, second, FILES[second]).status == 200
        assert board.upload(PATH, "manifest.json", manifest()).status == 409  # the third is missing
        assert board.upload(PATH, third, FILES[third]).status == 200
        assert board.upload(PATH, "manifest.json", manifest()).status == 200
        _check_uploaded(board)


@pytest.mark.parametrize("round_", [0, *(pytest.param(i, marks=pytest.mark.long) for i in range(1, 30))])
def test_an_upload_sent_again_after_kills_is_whole(tmp_path: Path, round_: int) -> None:
    random_ = random.Random(round_)
    with Board(tmp_path) as board:
        for _ in range(2):
            killer = threading.Timer(random_.uniform(0, 0.15), os.kill, (board.pid, signal.SIGKILL))
            killer.start()
            for _ in _uploads(board):
                pass
            killer.join()
            board.kill()
            assert not _wrong(board)
            board.start(board.port)
        assert all(answer.status == 200 for answer in _uploads(board))
        _check_uploaded(board)


def _uploads(board: Board) -> Iterator[Response]:
    """Send every file, as long as there is a server."""
    try:
        for name, data in [*FILES.items(), ("manifest.json", manifest())]:
            yield board.upload(PATH, name, data)
    except (OSError, HTTPException):
        return


def _wrong(board: Board) -> list[str]:
    """What is missing of, or wrong with, a checkpoint that can be seen."""
    folder = board.storage / "g" / "0" / "1"
    if not folder.exists():
        return []
    return [
        name for name, data in FILES.items() if not (folder / name).exists() or (folder / name).read_bytes() != data
    ]


def _check_uploaded(board: Board) -> None:
    for name, data in [*FILES.items(), ("manifest.json", manifest())]:
        assert board.get(f"{PATH}/{name}").body == data
    assert [entry.name for entry in (board.storage / "g" / "0").iterdir()] == ["1"]
    assert {entry.name for entry in (board.storage / "g" / "0" / "1").iterdir()} == {*FILES, "manifest.json"}
    assert "Traceback" not in board.stderr()

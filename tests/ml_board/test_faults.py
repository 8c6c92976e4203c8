"""Disks that are full, broken or lie, and a server killed in the middle of it: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlgym.record.events import CheckpointEvent
from mlgym.record.spool import Spool
from tests.ml_board.boards import Board, batch, deliver, new_client, wait_until
from tests.ml_board.test_rest import FILES, manifest, upload

FAULTY = '''
"""ml_board on a disk that fails as the file `fault` beside this program says: {call: [errors], "chance": ..., "only": ...}."""
import errno, io, json, os, pathlib, random, sys

here = pathlib.Path(__file__).parent
write, fdatasync, fsync, rename, open_ = os.write, os.fdatasync, os.fsync, os.rename, io.open
chance = random.Random(os.getpid())
synced = {}  # log -> how much of it is on disk


def fault(call, path):
    path = os.fspath(path)
    if "event_storage/" not in path:
        return None
    try:
        with open_(here / "fault") as file:
            rules = json.load(file)
    except FileNotFoundError:
        return None
    if rules.get("only", "") not in path or chance.random() > rules.get("chance", 1):
        return None
    return chance.choice(rules[call]) if call in rules else None


def fail(kind):
    raise OSError(getattr(errno, kind), os.strerror(getattr(errno, kind)))


def name(fd):
    return os.readlink(f"/proc/self/fd/{fd}")


def faulty_write(fd, data):
    kind = fault("write", name(fd))
    if kind in ("short", "torn"):
        written = write(fd, bytes(data)[: max(1, len(data) // 2)])
        return written if kind == "short" else fail("ENOSPC")
    return fail(kind) if kind else write(fd, data)


def faulty_fdatasync(fd):
    """One that fails has lost what it was to save, though it can still be read."""
    path = name(fd)
    size = os.fstat(fd).st_size
    if kind := fault("fdatasync", path):
        lost = size - synced.get(path, size)
        if lost > 0:
            with open_(path, "r+b") as file:
                file.seek(size - lost)
                file.write(bytes(lost))
        fail(kind)
    fdatasync(fd)
    synced[path] = size
    if path.endswith(".log"):
        with open_(here / "synced.new", "w") as file:
            file.write(str(size))
        rename(here / "synced.new", here / "synced")


def faulty_fsync(fd):
    if kind := fault("fsync", name(fd)):
        fail(kind)
    fsync(fd)
    with open_(here / "fsyncs", "a") as file:
        file.write(name(fd) + chr(10))


def faulty_rename(self, target):
    if kind := fault("rename", target):
        fail(kind)
    rename(self, target)
    return pathlib.Path(target)


class File:
    def __init__(self, file, path):
        self.file, self.path = file, path
    def __getattr__(self, name):
        return getattr(self.file, name)
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.close()
    def write(self, data):
        if kind := fault("file", self.path):
            self.file.write(bytes(data)[: len(data) // 2])
            fail(kind)
        return self.file.write(data)


def faulty_open(self, mode="r", *more, **named):
    file = open_(self, mode, *more, **named)
    return File(file, self) if set(mode) & set("wxa") and "b" in mode else file


os.write, os.fdatasync, os.fsync = faulty_write, faulty_fdatasync, faulty_fsync
pathlib.Path.rename, pathlib.Path.open = faulty_rename, faulty_open

from ml_board.cli import main

sys.exit(main())
'''


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Board]:
    """A board on a disk that can fail."""
    program = tmp_path / "faulty.py"
    program.write_text(FAULTY)
    with Board(tmp_path, program=program) as board:
        yield board
        assert board.running
        assert "Traceback" not in board.stderr(), board.stderr()


@contextmanager
def fault(board: Board, **rules: Any) -> Iterator[None]:
    """`call=[errors]`: while it lasts, each such call fails with one of them."""
    temporary = board.folder / "fault.new"
    temporary.write_text(json.dumps(rules))
    temporary.rename(board.folder / "fault")
    try:
        yield
    finally:
        (board.folder / "fault").unlink()


def left(board: Board, grid_search_id: str = "g") -> list[str]:
    """The files of a grid search, but for its log and spools."""
    root = board.storage / grid_search_id
    found = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(name for name in found if not name.startswith(("event_storage.log", "spool/")))


# --- batches ---


@pytest.mark.parametrize(
    ("call", "kind"),
    [("write", "ENOSPC"), ("write", "EIO"), ("write", "EDQUOT"), ("write", "torn"), ("fdatasync", "EIO"), ("fdatasync", "ENOSPC")],
)  # fmt: skip
def test_what_cannot_be_stored_is_not_acknowledged(faulty: Board, call: str, kind: str) -> None:
    """It is answered with an error, leaves nothing in the log, and is taken once the disk is well again."""
    assert deliver(faulty, batch(10))["durable"] == {"s": 10}
    before = faulty.log().read_bytes()

    async def run() -> None:
        async with faulty.client() as client:
            sent = {"grid_search_id": "g", "events": batch(10, first=11)}
            with fault(faulty, **{call: [kind]}):
                for _ in range(3):
                    answer = await client.call("mlgym_events", sent)
                    assert answer["error"]["status"] == 507, answer
                    assert faulty.log().read_bytes() == before
                assert faulty.get("/grid_searches/g/events").json()["head"] == 10
            assert (await client.call("mlgym_events", sent))["durable"] == {"s": 20}

    asyncio.run(run())
    faulty.kill()
    faulty.start()
    assert faulty.get("/grid_searches/g/events").json()["head"] == 20
    assert len(faulty.lines()) == 20


def test_short_writes_are_finished(faulty: Board) -> None:
    with fault(faulty, write=["short"]):
        assert deliver(faulty, batch(10))["durable"] == {"s": 10}
    assert len(faulty.lines()) == 10


@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync"])
def test_a_log_that_cannot_be_begun(faulty: Board, call: str) -> None:
    with fault(faulty, **{call: ["EIO"]}):
        assert deliver(faulty, batch(3))["error"]["status"] == 507
    assert deliver(faulty, batch(3))["durable"] == {"s": 3}
    assert len(faulty.lines()) == 3


def test_a_new_log_is_there_after_a_power_cut(faulty: Board) -> None:
    """Its name, too, and that of each folder on the way that was made for it; a sync that failed is made up for."""
    with fault(faulty, fsync=["EIO"]):
        assert deliver(faulty, batch(3))["error"]["status"] == 507
    assert deliver(faulty, batch(3))["durable"] == {"s": 3}
    synced = (faulty.folder / "fsyncs").read_text().splitlines()
    assert {str(faulty.log().parent), str(faulty.storage), str(faulty.folder)} <= set(synced)


def test_an_event_storage_that_is_a_file(tmp_path: Path) -> None:
    """Found out at the start, or when it is to be written."""
    with Board(tmp_path) as board:
        board.storage.write_text("not a folder")
        assert deliver(board, batch(3))["error"]["status"] == 507
        body = {"file_format": "YAML", "content": "a: 1"}
        assert board.request("PUT", "/grid_searches/g/run_config", body).status == 507
        assert board.upload("/checkpoints/g/1/1", "a", b"x").status == 507
        assert board.get("/grid_searches").json() == []
        assert "Traceback" not in board.stderr()
    assert Board(tmp_path, start=False).run().returncode == 2


def test_a_saved_state_that_cannot_be_saved(faulty: Board) -> None:
    """It only saves time: the board ends well and starts well without it."""

    async def run() -> None:
        async with faulty.client() as client:
            for first in range(1, 21_001, 7000):
                sent = {"grid_search_id": "g", "events": batch(7000, first=first)}
                assert (await client.call("mlgym_events", sent))["durable"] == {"s": first + 6999}
            with fault(faulty, file=["ENOSPC"], rename=["EIO"]):
                assert await asyncio.to_thread(faulty.stop) == 0

    asyncio.run(run())
    assert left(faulty) == []
    faulty.start()
    assert faulty.get("/grid_searches/g/snapshot").json()["seq"] == 21_000


# --- everything at once ---


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 40))])
def test_acknowledged_is_acknowledged(tmp_path: Path, seed: int) -> None:
    """Three producers that send again what is refused, on a disk that fails every third time, under a server that is
    killed again and again, at times with the power: all that was acknowledged is there, once and in order."""
    rng = random.Random(seed)
    program = tmp_path / "faulty.py"
    program.write_text(FAULTY)
    board = Board(tmp_path, program=program)
    acknowledged: Counter[str] = Counter()
    refused: Counter[int] = Counter()
    rules = {"write": ["ENOSPC", "EIO", "short", "torn"], "fdatasync": ["EIO"], "fsync": ["EIO"], "chance": 0.2}

    async def produce(source: str) -> None:
        """Until the board dies."""
        client = new_client()
        try:
            await board.connect(client)
            while True:
                sent = batch(rng.randrange(1, 30), source, first=acknowledged[source] + 1)
                answer = await client.call("mlgym_events", {"grid_search_id": "g", "events": sent}, timeout=5)
                if "error" in answer:
                    refused[answer["error"]["status"]] += 1
                else:
                    assert not answer["expected"]
                    acknowledged[source] = max(acknowledged[source], answer["durable"][source])
        except Exception as error:
            if board.running:  # only the death of the board is an excuse
                raise AssertionError(f"{source}: {error!r}") from error
        finally:
            await client.shutdown()

    async def round_() -> None:
        goal = sum(acknowledged.values()) + rng.randrange(20, 400)
        producers = [asyncio.create_task(produce(source)) for source in ("a", "b", "c")]
        while sum(acknowledged.values()) < goal and not any(task.done() for task in producers):
            await asyncio.sleep(0.005)
        board.kill()
        for task in producers:
            task.cancel()
        for ended in await asyncio.gather(*producers, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                assert ended is None, ended

    with board:
        for _ in range(4):
            with fault(board, **rules):
                asyncio.run(round_())
            if rng.random() < 0.5:
                lose_power(board, rng)
            board.start()
        for source, count in acknowledged.items():
            assert deliver(board, batch(1, source, first=count + 1))["durable"].get(source, 0) > count
        numbers: dict[str, list[int]] = {}
        for line in board.lines():
            event = json.loads(line)
            numbers.setdefault(event["source"], []).append(event["n"])
        for source, count in acknowledged.items():
            assert numbers[source] == list(range(1, len(numbers[source]) + 1))
            assert len(numbers[source]) > count
        assert "Traceback" not in board.stderr(), board.stderr()
        assert set(refused) == {507}


def lose_power(board: Board, rng: random.Random) -> None:
    """What was not synced yet is there, or not, or in part, or as nothing."""
    log = board.log()
    size, synced = log.stat().st_size, int((board.folder / "synced").read_text())
    kept = rng.randrange(synced, size + 1) if size > synced else size
    os.truncate(log, min(size, kept))
    if rng.random() < 0.5:
        os.truncate(log, max(size, kept))  # blocks of zeros, as file systems leave them


# --- files ---


def put(board: Board) -> int:
    return board.request("PUT", "/grid_searches/g/run_config", {"file_format": "YAML", "content": "a: 1"}).status


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO", "EDQUOT"])
@pytest.mark.parametrize("call", ["file", "rename"])
def test_a_config_is_stored_or_not(faulty: Board, call: str, kind: str) -> None:
    with fault(faulty, **{call: [kind]}):
        assert put(faulty) == 507
        assert faulty.get("/grid_searches/g/run_config").status == 404
        assert left(faulty) == []
    assert put(faulty) == 200
    assert left(faulty) == ["run_config.yml"]


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("call", ["file", "rename", "fsync"])
def test_a_file_is_stored_or_not(faulty: Board, call: str, kind: str) -> None:
    with fault(faulty, **{call: [kind]}):
        answer = faulty.upload("/checkpoints/g/1/1", "model.safetensors", b"x" * 1_000_000)
        assert answer.status == 507
        assert "could not be stored" in answer.message
        assert left(faulty) == []
    upload(faulty, "/checkpoints/g/1/1", FILES)
    assert left(faulty) == sorted(f"1/1/{name}" for name in (*FILES, "manifest.json"))


@pytest.mark.parametrize("only", ["/1/.upload-1", "/1/1", "/1/.gone-1", "/1"])
@pytest.mark.parametrize("call", ["rename", "fsync"])
@pytest.mark.parametrize("again", [False, True])
def test_a_checkpoint_is_committed_or_not(faulty: Board, call: str, only: str, again: bool) -> None:
    """Whatever fails on the way, also where one stood before: it is whole, or it can be sent again."""
    path = "/checkpoints/g/1/1"
    if again:
        upload(faulty, path, {"model.safetensors": b"before"})
    for name, data in FILES.items():
        faulty.upload(path, name, data)
    with fault(faulty, only=only, **{call: ["EIO"]}):
        status = faulty.upload(path, "manifest.json", manifest(FILES)).status
        assert status in (200, 507)
        assert faulty.get("/checkpoint_list/g/1").status == 200
    if faulty.get(path).status == 200:
        names = [file["name"] for file in faulty.get(path).json()["files"]]
        assert {name: faulty.get(f"{path}/{name}").body for name in names} in (FILES, {"model.safetensors": b"before"})
    if status == 507:
        upload(faulty, path, FILES)
    assert faulty.get(f"{path}/model.safetensors").body == FILES["model.safetensors"]


def test_a_checkpoint_is_deleted_or_not(faulty: Board) -> None:
    upload(faulty, "/checkpoints/g/1/1", FILES)
    with fault(faulty, rename=["EIO"]):
        assert faulty.request("DELETE", "/checkpoints/g/1/1").status == 507
        assert faulty.get("/checkpoints/g/1/1").status == 200
    assert faulty.request("DELETE", "/checkpoints/g/1/1").status == 200


def test_a_deletion_that_cannot_be_recorded(faulty: Board) -> None:
    """The disk is full: that is said, and when it is not any more, a second try brings the log up to date."""
    with Spool(faulty.folder / "s.jsonl", "s") as spool:
        spool.emit(CheckpointEvent(grid_search_id="g", experiment_id=1, epoch=1, action="SAVED"))
    deliver(faulty, (faulty.folder / "s.jsonl").read_bytes())
    upload(faulty, "/checkpoints/g/1/1", FILES)
    with fault(faulty, only="spool/", write=["ENOSPC"]):
        assert faulty.request("DELETE", "/checkpoints/g/1/1").status == 507
    assert faulty.request("DELETE", "/checkpoints/g/1/1").status in (200, 404)
    wait_until(lambda: b'"DELETED"' in faulty.log().read_bytes(), "the event")
    assert len(faulty.lines()) == 2


# --- a limit that the kernel enforces ---


@contextmanager
def full(board: Board, size: int) -> Iterator[None]:
    """No file of the board may become larger than this: a write goes as far as it can, the next one fails."""
    resource.prlimit(board.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(board.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_log_that_is_full(board: Board, gs: str) -> None:
    with full(board, 100_000):
        taken = 0
        while "durable" in (answer := deliver(board, batch(100, grid_search_id=gs, first=taken + 1), gs)):
            taken += 100
        assert answer["error"]["status"] == 507
        assert len(board.lines(gs)) == taken >= 100
        assert board.get(f"/grid_searches/{gs}/events").json()["head"] == taken
        assert deliver(board, batch(1, "small", gs), gs)["durable"] == {"small": 1}  # which still fits
    assert deliver(board, batch(100, grid_search_id=gs, first=taken + 1), gs)["durable"] == {"s": taken + 100}
    assert len(board.lines(gs)) == taken + 101


def test_an_upload_that_does_not_fit(board: Board, gs: str) -> None:
    path = f"/checkpoints/{gs}/1/1"
    with full(board, 1_000_000):
        answer = board.upload(path, "model.safetensors", b"x" * 3_000_000)
        assert answer.status == 507
        assert board.upload(path, "small", b"x").status == 200
        body = {"file_format": "YAML", "content": "x" * 1_500_000}
        assert board.request("PUT", f"/grid_searches/{gs}/run_config", body).status == 507
        assert left(board, gs) == ["1/.upload-1/small"]
    assert board.upload(path, "model.safetensors", b"x" * 3_000_000).status == 200

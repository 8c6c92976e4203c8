"""docs/protocol.md is enough to write a client: its examples are run as they stand there, against a real board."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ml_board import rest
from ml_board.settings import Limits, Settings
from ml_board.store import Store
from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.events import MAX_EVENT, body_of, seal
from mlgym.record.hub import Hub
from mlgym.record.log import read_state
from mlgym.record.token import VARIABLE
from tests.conftest import ROOT
from tests.ml_board.boards import Board, deliver, wait_until

PAGE = (ROOT / "docs" / "protocol.md").read_text()
TOKEN = "protocol-" * 5


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@contextmanager
def started(program: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program of the page, with nothing of ours to import and no more than the token in its environment."""
    command = [sys.executable, "-I"] if program.suffix == ".py" else ["node"]
    with (
        (program.parent / "stderr").open("w") as stderr,
        subprocess.Popen(
            [*command, program.name, *arguments],
            cwd=program.parent,
            env={"PATH": os.environ["PATH"], VARIABLE: TOKEN},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def client(folder: Path) -> Path:
    (source,) = blocks("python")
    assert not re.search(r"\b(import|from)\s+(mlgym|ml_board|msgspec)", source)
    path = folder / "client.py"
    path.write_text(source)
    return path


def recorded(board: Board) -> int:
    """How many events there are by now."""
    log = board.log("my-grid")
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_the_line_has_the_crc_that_the_page_says(tmp_path: Path) -> None:
    sent, logged, _ = blocks("json")
    body = sent.rstrip("\n")[: -len(',"crc":"01234567"}')].encode()
    assert f"has {len(body)} bytes" in PAGE
    assert f"`{zlib.crc32(body):08x}`" in PAGE
    assert sent.encode() == seal(body)
    assert body_of(logged.rstrip("\n").encode())
    hub = Hub(tmp_path / "event_storage.log")
    assert hub.accept(sent.encode(), "g").durable == {"demo": 1}
    hub.close()
    assert (tmp_path / "event_storage.log").read_text() == logged


def test_the_manifest_has_the_crc_that_the_page_says(tmp_path: Path) -> None:
    *_, manifest = blocks("json")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.safetensors").write_text("weights")
    (tmp_path / "1" / "manifest.json").write_text(json.dumps(json.loads(manifest), indent=2))  # spaces do not count
    (checkpoint,) = available(tmp_path)
    assert verified(checkpoint).epoch == 1


def test_the_tables_have_the_numbers_and_the_routes_of_the_code(tmp_path: Path) -> None:
    limits = Settings(event_storage=tmp_path).limits
    assert limits == Limits(
        message=8 << 20, config=4 << 20, upload=64 << 30, connections=500, requests=1000, events=20_000, rooms=100
    )
    assert MAX_EVENT == 4 << 20
    for row in (
        "| an event | 4 MiB, 64 deep |",
        "| a websocket message | 8 MiB,",
        "| single events (`mlgym_event`) | 20,000 a second",
        "| rooms | 100 ",
        "| connections | 500 ",
        "| requests | 1,000 a second from an address, 10,000 at once;",
        "| a configuration | 4 MiB |",
        "| a file of a checkpoint | 64 GiB |",
    ):
        assert row in PAGE
    described = set()
    for method, path in re.findall(r"^\| `(GET|PUT|POST|DELETE) ([^`?]+)", PAGE, re.MULTILINE):
        described |= {(method, re.sub(r"\[.*]", "", path)), (method, re.sub(r"[][]", "", path))}
    assert described == {(route.method, route.path) for route in rest.Rest(Store(tmp_path), limits).routes()}


def test_the_producer_and_dashboard(tmp_path: Path) -> None:
    """It is there before the board, and the board is killed meanwhile: every event arrives once, and is shown once."""
    environment = {VARIABLE: TOKEN}
    with Board(tmp_path / "board", environment=environment) as board:
        port = board.port
        board.kill()
        with started(client(tmp_path), board.url, "my-grid") as process:
            wait_until(lambda: "waiting for the board" in (tmp_path / "stderr").read_text(), "it to wait")
            board.start(port)
            wait_until(lambda: recorded(board) > 5, "events")
            board.kill()
            board.start(port)
            printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, (tmp_path / "stderr").read_text()
        lines = board.lines("my-grid")
        assert [json.loads(line)["n"] for line in lines] == list(range(1, 37))
        assert len({json.loads(line)["source"] for line in lines}) == 1
        shown = re.findall(r"^(\d+): epoch (\d+): accuracy [\d.]+$", printed, re.MULTILINE)
        assert [(int(seq), int(epoch)) for seq, epoch in shown] == [(epoch + 4, epoch) for epoch in range(31)]
        state = read_state(board.log("my-grid"))
        assert (state.status, state.num_experiments) == ("FINISHED", 1)
        experiment = state.experiments[1]
        assert (experiment.status, experiment.epochs_done, experiment.num_epochs) == ("DONE", 30, 30)
        assert set(experiment.scores) == {"val/accuracy", "val/cross_entropy"}
        assert "Traceback" not in board.stderr()


def test_it_follows_a_grid_search_that_has_other_producers(tmp_path: Path) -> None:
    """History first; a source of its own keeps it apart from what was there."""
    line = '{"event_type":"dream","source":"other","n":1,"payload":{"grid_search_id":"my-grid","of":"sheep"}'
    with Board(tmp_path / "board", environment={VARIABLE: TOKEN}) as board:
        assert deliver(board, seal(line.encode()), "my-grid")["durable"] == {"other": 1}
        with started(client(tmp_path), board.url, "my-grid") as process:
            printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, (tmp_path / "stderr").read_text()
        assert len(board.lines("my-grid")) == 37
        assert re.match(r"5: epoch 0: ", printed)


def _node() -> tuple[int, ...]:
    if shutil.which("node") is None:
        return ()
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, version.strip().removeprefix("v").split(".")))


@pytest.mark.skipif(_node() < (20, 15), reason="needs Node 20.15")
def test_the_checkpoint_over_rest(tmp_path: Path) -> None:
    (source,) = blocks("javascript")
    program = tmp_path / "checkpoint.mjs"
    program.write_text(source)
    with Board(tmp_path / "board", environment={VARIABLE: TOKEN}) as board:
        with started(client(tmp_path), board.url, "my-grid") as process:
            assert process.wait(60) == 0
        for _ in range(2):  # the second time nothing is new, and nothing is an error
            with started(program, board.url, "my-grid") as process:
                printed, _ = process.communicate(timeout=60)
            assert process.returncode == 0, (tmp_path / "stderr").read_text()
            first, *scores = printed.splitlines()
            assert first == "checkpoint 30: lr_scheduler.json, manifest.json, model.safetensors"
            assert scores[0] == "4: val/accuracy 0.000 after epoch 0"
            assert len(scores) == 31
        (checkpoint,) = available(board.storage / "my-grid" / "1")
        assert {file.name: file.sha256 for file in verified(checkpoint).files} == {
            name: hashlib.sha256(data).hexdigest()
            for name, data in (("model.safetensors", b"weights"), ("lr_scheduler.json", b"{}"))
        }
        assert (board.storage / "my-grid" / "run_config.yml").read_text() == "run_configuration: {}\n"
        assert "Traceback" not in board.stderr()


def test_the_tests_that_the_page_on_security_names_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    there = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"\btest_\w+\b(?!\.py)", page))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in there} == set()
    for path in re.findall(r"\btests/[\w/]+\.py", page):
        assert (ROOT / path).is_file(), path

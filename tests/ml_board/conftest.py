"""A board that the tests of a file share, a grid search for each of them, and what the page is built and tested with."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count

import pytest

from tests.conftest import ROOT
from tests.ml_board.boards import Board

FRONTEND = ROOT / "ml_board" / "frontend"

_numbers = count(1)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Runs all the while, and has nothing to complain of in the end."""
    with Board(tmp_path_factory.mktemp("board")) as board:
        yield board
        assert board.running
        assert "Traceback" not in board.stderr(), board.stderr()


@pytest.fixture
def gs() -> str:
    """The id of a grid search that is not there yet."""
    return f"grid-{next(_numbers)}"


@pytest.fixture(scope="module")
def packages() -> None:
    """What the page is built and tested with, as package-lock.json says. Without Node the test is skipped, and fails
    where `CI` is set."""
    if shutil.which("npm") is None:
        reason = "no Node: the page is neither built nor tested with it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    stamp = FRONTEND / "node_modules" / ".package-lock.json"
    with (FRONTEND / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not stamp.exists() or stamp.stat().st_mtime < (FRONTEND / "package-lock.json").stat().st_mtime:
            npm("ci", "--no-audit", "--no-fund")
            stamp.touch()


def npm(*arguments: str) -> None:
    ended = subprocess.run(["npm", *arguments], cwd=FRONTEND, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"

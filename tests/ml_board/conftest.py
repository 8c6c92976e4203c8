"""A board that the tests of a file share, and a grid search for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.ml_board.boards import Board

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

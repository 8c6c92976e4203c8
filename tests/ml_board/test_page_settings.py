"""What the page is told by the board that it comes from, and which boards it may talk to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ml_board.boards import Board


def _connect(board: Board) -> list[str]:
    """Where the page may connect to."""
    policy = board.request("GET", "/", token=False).headers["content-security-policy"]
    return next(rule.split()[1:] for rule in policy.split(";") if rule.split()[0] == "connect-src")


def _told(board: Board) -> object:
    return board.request("GET", "/endpoints.json", token=False).json()


def test_the_page_knows_of_no_other_board(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        assert _told(board) == {"rest": None, "ws": None, "run_id": None, "allowed": []}
        assert _connect(board) == ["'self'"]


def test_boards_that_the_page_may_choose(tmp_path: Path) -> None:
    """As browsers write them, each once, whatever separates them; without loosening who may use this one."""
    named = ("http://127.0.0.1:5001,https://LAB.example:443/", "http://[::1]:5001", "http://127.0.0.1:5001/")
    with Board(tmp_path, "--endpoints", *named, "--run_id", "g") as board:
        allowed = ["http://127.0.0.1:5001", "https://lab.example", "http://[::1]:5001"]
        assert _told(board) == {"rest": None, "ws": None, "run_id": "g", "allowed": allowed}
        assert _connect(board) == ["'self'", *(url for one in allowed for url in (one, f"ws{one[4:]}"))]
        assert board.get("/grid_searches", Origin="https://lab.example").status == 403


def test_together_with_the_endpoints_of_the_page(tmp_path: Path) -> None:
    flags = ("--rest_endpoint", "http://a:1", "--ws_endpoint", "http://a:2", "--endpoints", "http://b:3", "http://a:1")
    with Board(tmp_path, *flags) as board:
        told = {"rest": "http://a:1", "ws": "http://a:2", "run_id": None, "allowed": ["http://b:3", "http://a:1"]}
        assert _told(board) == told
        assert " ".join(_connect(board)) == "'self' http://a:1 ws://a:1 http://a:2 ws://a:2 http://b:3 ws://b:3"


WRONG = ["*", "lab.example", "http://", "http://*", "ws://a:1", "http://a:1/path", "http://a?b", "http://a#b", "http://u@a", "http://a:b", "http://a:99999", "http://[", "http://a;script-src", "http://a'", "javascript:alert(1)"]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_address_is_refused(tmp_path: Path, wrong: str) -> None:
    ended = Board(tmp_path, "--endpoints", "http://127.0.0.1:1", wrong, start=False).run()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"ml_board: --endpoints: expected an address such as http://127.0.0.1:5001, not {wrong!r}\n"


def test_only_the_page_has_settings(tmp_path: Path) -> None:
    for command in ("ws_endpoint", "rest_endpoint"):
        ended = Board(tmp_path, "--endpoints", "http://a", command=command, start=False).run()
        assert ended.returncode == 2
        assert "unrecognized arguments: --endpoints" in ended.stderr

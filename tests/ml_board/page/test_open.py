"""Opening the page: the token, boards that are empty or gone, grid searches that do not exist, and logs of all ages."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.ml_board.boards import Board
from tests.ml_board.browser import SERVER_GONE, Pages, address, connection, rows, settled, until
from tests.ml_board.page.logs import Script, sweep

COMMAND = "mlgym run --config_path run_config.yml"


def locked(page: Page) -> None:
    expect(page.get_by_role("heading", name="This board asks for its token")).to_be_visible()


# --- the token ---


def test_without_the_token_it_is_asked_for(board: Board, gs: str, pages: Pages) -> None:
    sweep(gs).write(board.storage)
    pages.announce("401")
    page = pages.open(board, address(gs), token=False)
    locked(page)
    assert gs not in page.inner_text("main")
    field = page.get_by_label("token")
    expect(field).to_have_attribute("type", "password")
    field.fill("not the token")
    page.get_by_role("button", name="open").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token of this board.")
    field.fill(f"  {board.token}\n")
    field.press("Enter")
    expect(page.get_by_role("grid", name="experiments")).to_be_visible()
    settled(page)
    assert page.url == f"{board.url}/{address(gs)}"


def test_the_token_of_the_address_opens_and_is_gone_from_it(board: Board, gs: str, pages: Pages) -> None:
    sweep(gs).write(board.storage)
    page = pages.open(board, f"#token={board.token}", token=False)
    expect(page.get_by_role("link", name=gs, exact=True)).to_be_visible()
    assert page.url == f"{board.url}/#/"
    assert page.evaluate("history.length") == 2  # about:blank and this
    assert board.token not in json.dumps(page.evaluate("[{...localStorage}, {...sessionStorage}, document.cookie]"))
    assert board.token not in page.content()
    page.reload()
    expect(page.get_by_role("link", name=gs, exact=True)).to_be_visible()


@pytest.mark.parametrize("token", ["wrong", "", "größe", "x" * 5000], ids=lambda token: token[:6])
def test_a_wrong_token_in_the_address_opens_nothing(board: Board, pages: Pages, token: str) -> None:
    pages.announce("401")
    page = pages.open(board, f"#token={token}", token=False)
    locked(page)
    assert "token=" not in page.url


def test_without_a_guard_nothing_is_asked(tmp_path: Path, pages: Pages) -> None:
    with Board(tmp_path, "--no-token") as open_board:
        page = pages.open(open_board)
        expect(page.get_by_role("heading", name="No grid search yet")).to_be_visible()


# --- nothing there ---


def test_an_empty_storage_says_how_to_fill_it(tmp_path: Path, pages: Pages) -> None:
    """And shows what comes, without having been asked again."""
    with Board(tmp_path) as empty:
        page = pages.open(empty)
        expect(page.get_by_role("heading", name="No grid search yet")).to_be_visible()
        expect(page.locator("main")).to_contain_text(COMMAND)
        sweep("first").write(empty.storage)
        expect(page.get_by_role("link", name="first", exact=True)).to_be_visible()


def test_a_grid_search_that_is_not_there_says_so(board: Board, pages: Pages) -> None:
    pages.announce("404")
    page = pages.open(board, address("nobody"))
    expect(page.get_by_role("heading", name="This cannot be shown")).to_be_visible()
    expect(page.locator("main")).to_contain_text(re.compile("no grid search|there is no", re.IGNORECASE))
    page.get_by_role("main").get_by_role("link", name="all grid searches").click()
    expect(page.get_by_role("heading", name=re.compile("grid search", re.IGNORECASE))).to_be_visible()


def test_it_is_shown_once_it_is_there(board: Board, gs: str, pages: Pages) -> None:
    """Opened before the first event: nothing has to be reloaded."""
    pages.announce("404")
    page = pages.open(board, address(gs))
    expect(page.get_by_role("heading", name="This cannot be shown")).to_be_visible()
    sweep(gs).write(board.storage)
    until(page, lambda: len(rows(page)) == 12, "all rows, once there is room for them")


def test_no_experiment_yet_says_so(board: Board, gs: str, pages: Pages) -> None:
    script = Script(gs)
    script.grid(num_experiments=3)
    script.write(board.storage)
    page = pages.open(board, address(gs))
    expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()
    expect(page.locator("main")).to_contain_text("with 3 experiments")


def test_a_board_that_is_gone_says_how_to_start_it(tmp_path: Path, pages: Pages) -> None:
    """The page comes from a server of its own; the one that it is to talk to is not there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}"
        pages.announce(SERVER_GONE)
        with Board(tmp_path, "--rest_endpoint", gone, "--ws_endpoint", gone) as page_only:
            page = pages.open(page_only, address("g"), token=False, also=(gone,))
            expect(page.get_by_role("heading", name="The board does not answer")).to_be_visible()
            expect(page.locator("main")).to_contain_text("ml_board --event_storage_path")
            expect(connection(page)).to_have_text("lost")
            page.goto(f"{page_only.url}/#/")
            expect(page.locator("main")).to_contain_text("the board does not answer")


def test_three_servers(tmp_path: Path, pages: Pages) -> None:
    """Page, REST and websocket each from a server of its own."""
    storage = tmp_path / "event_storage"
    sweep("first").write(storage)
    config = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    with (
        Board(tmp_path / "rest", command="rest_endpoint", storage=storage, environment=config) as rest,
        Board(tmp_path / "ws", command="ws_endpoint", storage=storage, environment=config) as ws,
        Board(
            tmp_path / "page",
            "--rest_endpoint",
            rest.url,
            "--ws_endpoint",
            ws.url,
            "--run_id",
            "first",
            environment=config,
        ) as served,
    ):
        page = pages.open(served, f"#token={served.token}", token=False, also=(rest.url, ws.url))
        expect(page.get_by_role("grid", name="experiments")).to_be_visible()
        assert "first/analysis" in page.url
        settled(page, "live")
        until(page, lambda: len(rows(page)) == 12, "all rows, once there is room for them")


# --- logs of all ages ---

OLD = [
    ("job_status", {"job_id": "1", "job_type": "CALC", "status": "INIT", "grid_search_id": "old", "experiment_id": 1}),
    ("experiment_config", {"grid_search_id": "old", "experiment_id": 1, "job_id": "1", "config": {"lr": 0.25}}),
    ("job_status", {"job_id": "1", "job_type": "CALC", "status": "RUNNING", "grid_search_id": "old", "experiment_id": 1, "starting_time": 1_700_000_001.5, "finishing_time": -1, "device": "cuda:1", "error": "", "stacktrace": ""}),
    ("experiment_status", {"grid_search_id": "old", "experiment_id": 1, "status": "train", "num_epochs": 3, "current_epoch": 1, "splits": ["val"], "current_split": "val", "num_batches": 8, "current_batch": 4}),
    ("evaluation_result", {"grid_search_id": "old", "experiment_id": 1, "epoch": 1, "metric_scores": [{"metric": "f1", "split": "val", "score": 0.625}], "loss_scores": [{"loss": "ce", "split": "val", "score": float("nan")}]}),
    ("job_status", {"job_id": "1", "job_type": "CALC", "status": "DONE", "grid_search_id": "old", "experiment_id": 1, "starting_time": 1_700_000_001.5, "finishing_time": 1_700_000_009.0, "device": "cuda:1", "error": "", "stacktrace": ""}),
]  # fmt: skip


def test_a_log_of_the_earlier_tool_is_shown(board: Board, gs: str, pages: Pages) -> None:
    board.log(gs).parent.mkdir(parents=True)
    lines = [
        json.dumps({"event_type": kind, "creation_ts": 1_700_000_000 + i, "payload": payload})
        for i, (kind, payload) in enumerate(OLD)
    ]
    board.log(gs).write_text("".join(f"{line}\n" for line in lines))
    page = pages.open(board, address(gs, cols="status,epochs,device,last:val/f1,last:val/ce"))
    expect(page.get_by_role("grid", name="experiments")).to_be_visible()
    [row] = rows(page)
    assert row["status"] == "done"
    assert row["val/f1"] == "0.6250"
    assert row["val/ce"] == "NaN"
    assert row["device"] == "cuda:1"
    page.get_by_role("navigation", name="pages").get_by_role("link", name="events").click()
    expect(page.get_by_role("cell", name="evaluation_result", exact=True)).to_be_visible()


def test_events_of_unknown_types_are_passed_over_and_shown(board: Board, gs: str, pages: Pages) -> None:
    script = sweep(gs)
    script.raw("dream", {"grid_search_id": gs, "about": ["electric", {"sheep": None}]})
    script.raw("job_status", {"grid_search_id": gs, "experiment_id": "not a number"})
    script.scores(0, 6, {"val/accuracy": 0.125})
    script.write(board.storage)
    head = len(board.lines(gs))
    page = pages.open(board, address(gs, cols="last:val/accuracy"))
    expect(page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="0", exact=True))).to_contain_text(
        "0.1250"
    )
    page.goto(f"{board.url}/{address(gs, 'events', seq=head - 2)}")
    opened = page.get_by_role("region", name=f"event {head - 2}")
    expect(opened).to_contain_text("dream")
    expect(opened).to_contain_text("electric")

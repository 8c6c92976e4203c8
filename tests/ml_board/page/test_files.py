"""What lies beside the log: configurations, charts and checkpoints to take along, checkpoints to delete, and what jobs
have printed and where they ran."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

from tests.ml_board.boards import Board
from tests.ml_board.browser import (
    Pages,
    Theme,
    address,
    chart,
    downloaded,
    parse_csv,
    picture,
    query_of,
    rows,
    settled,
    table_csv,
    until,
)
from tests.ml_board.page.logs import (
    EPOCHS,
    ERROR,
    GRID_CONFIG,
    RUN_CONFIG,
    STACKTRACE,
    START,
    Script,
    accuracy,
    configuration,
    scores,
    sweep,
    weights,
)

GS = "files"
THEMES: list[Theme] = ["light", "dark"]


@pytest.fixture(scope="module", autouse=True)
def _sweep(board: Board) -> None:
    sweep(GS).write(board.storage)


def experiment(board: Board, pages: Pages, number: int, gs: str = GS, **query: str | int) -> Page:
    page = pages.open(board, address(gs, "experiment", exp=number, flip="config", **query))
    expect(page.get_by_role("heading", name=f"Experiment {number}", exact=True)).to_be_visible()
    return page


# --- configurations ---


@pytest.mark.parametrize("number", [0, 7])
def test_a_configuration_as_yaml_and_json(board: Board, pages: Pages, number: int) -> None:
    """What is read back is what the experiment was made of: `no` stays a text, 1e-7 a number."""
    page = experiment(board, pages, number)
    name, content = downloaded(page, page.get_by_role("button", name="download YAML").first.click)
    assert name == f"experiment_{number}.yml"
    assert yaml.safe_load(content) == configuration(number)
    name, content = downloaded(page, page.get_by_role("button", name="download JSON").first.click)
    assert name == f"experiment_{number}.json"
    assert json.loads(content) == configuration(number)


AWKWARD: dict[str, Any] = {
    "floats": [1.0, 1e-05, 1e22, -0.0, 5e-324, 0.1],
    "whole": [2**53 + 1, 2**63, -(2**63), 0],
    "texts": ["no", "~", "null", "1.0", "0x10", "1_000", "12:30:45", "2020-01-01", "", " ", "a: b", "# a", "- a", "*a", "&a", "!a", "%a", "@a", "`a", "'", '"', "{", "[", "a\nb\n", "a\n\nb", "\ta", "a ", "\x07", "\u2028", "größe", "<<", "="],
    "keys": {"no": 1, "1": 2, "": 3, "a: b": 4, "a.b": 5, "__proto__": 6, "x" * 1500: 7},
    "lists": [[], [[]], [{}], [{"a": [1, {"b": None}]}], [1, [2, [3]]]],
    "long": ["word " * 60, "x" * 5000],
    "lines": {"code": "def f():\n    return 1\n", "two": ["a\nb", {"c": "d\ne\n\n"}]},
}  # fmt: skip


def written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def test_an_awkward_configuration_comes_back_exactly(board: Board, gs: str, pages: Pages) -> None:
    script = Script(gs)
    script.config(1, {"lr": 1}, config=AWKWARD)
    script.write(board.storage)
    page = experiment(board, pages, 1, gs)
    _, content = downloaded(page, page.get_by_role("button", name="download YAML").first.click)
    found = yaml.safe_load(content)
    assert found == AWKWARD
    assert written(found) == written(AWKWARD)  # 1.0 is not 1, and -0.0 not 0.0
    _, content = downloaded(page, page.get_by_role("button", name="download JSON").first.click)
    assert written(json.loads(content)) == written(AWKWARD)


def test_configurations_of_the_grid_search(board: Board, pages: Pages) -> None:
    """As they were written, comments and all."""
    pages.announce("404.*validation_strategy_config")  # there is none
    page = pages.open(board, address(GS, "settings"))
    for title, name, written in (
        ("grid search", "grid_search_config", GRID_CONFIG),
        ("run", "run_config", RUN_CONFIG),
    ):
        part = page.get_by_role("group").filter(
            has=page.get_by_role("heading", name=f"{title} configuration", exact=True)
        )
        part.get_by_role("heading").click()
        found, content = downloaded(page, part.get_by_role("button", name="download").click)
        assert found == f"{GS}-{name}.yml"
        assert content.decode() == written
        shown = page.get_by_label(f"{title} configuration")
        expect(shown).to_be_visible()
        assert shown.text_content() == written
        assert query_of(page)["show"] == name
    expect(page.get_by_text("There is no validation configuration.")).to_be_visible()


# --- tables and charts ---


def test_a_chart_as_csv(board: Board, gs: str, pages: Pages) -> None:
    """Every point to the last bit, those that are no numbers too, and when it came."""
    values = [0.1 + 0.2, -1e-300, math.nan, math.inf, -math.inf, 1 / 3, 123456789.123456789]
    script = Script(gs)
    for one in (1, 2):
        script.config(one, {"lr": one / 7, "name": f'a "{one}", b'})
    for epoch, value in enumerate(values):
        script.wait(1.5)
        script.scores(1, epoch, {"val/a": value})
        script.scores(2, epoch, {"val/a": -value})
    script.write(board.storage)
    page = pages.open(board, address(gs, lay="charts"))
    name, content = downloaded(page, chart(page, "val/a").get_by_role("button", name="CSV: val/a", exact=True).click)
    assert name == f"{gs}.val_a.csv"
    found = parse_csv(content)
    assert [(line["experiment"], line["epoch"]) for line in found] == [
        (str(one), str(epoch)) for one in (1, 2) for epoch in range(len(values))
    ]
    for line in found:
        expected = values[int(line["epoch"])] * (1 if line["experiment"] == "1" else -1)
        value = float(line["value"])
        assert value == expected or (math.isnan(value) and math.isnan(expected))
        assert line["label"] == f'lr {1 / 7 if line["experiment"] == "1" else 2 / 7}, name a "{line["experiment"]}", b'
        seconds = (START + 1500 * (int(line["epoch"]) + 1)) / 1000
        assert (
            line["time"]
            == f"2026-09-21T{seconds % 86400 // 3600:02.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:06.3f}Z"
        )
    # The same numbers in the table of experiments.
    page.goto(f"{board.url}/{address(gs, lay='table', cols='last:val/a,best:val/a')}")
    until(page, lambda: len(rows(page)) == 2, "the table")
    lines = table_csv(page)
    assert [float(line["last val/a"]) for line in lines] == [values[-1], -values[-1]]
    assert [float(line["best val/a"]) for line in lines] == [values[-1], 1e-300]


def test_a_chart_as_a_picture(board: Board, pages: Pages) -> None:
    """Title, lines and legend, on paper of its own."""
    for theme in THEMES:
        page = pages.open(board, address(GS, lay="charts", sel="0-3", mean="-"), theme=theme)
        card = chart(page, "val/accuracy")
        name, content = downloaded(page, card.get_by_role("button", name="PNG: val/accuracy", exact=True).click)
        assert name == f"{GS}.val_accuracy.png"
        width, height = card.locator("canvas").first.evaluate("one => [one.width, one.height]")
        inks = page.locator(".legend .swatch path").evaluate_all("all => all.map(one => one.getAttribute('stroke'))")
        assert len(set(inks)) == 4
        for ink in inks:
            found = picture(page, content, ink)
            assert found.width == width + 24
            assert found.height > height + 44
            assert found.opaque
            assert found.colours > 20  # letters
            xs = [x for x, _ in found.places]
            assert len(xs) > 100
            assert max(xs) - min(xs) > found.width / 2  # from the first epoch to the last
            assert any(y > height + 30 for _, y in found.places), "not in the legend"


# --- checkpoints ---


def listed(page: Page) -> list[int]:
    return [int(row["epoch"]) for row in rows(page, "checkpoints")]


def delete(page: Page, epoch: int) -> Locator:
    """Ask for it; the question that is asked back."""
    row = (
        page.get_by_role("region", name="checkpoints")
        .get_by_role("row")
        .filter(has=page.get_by_role("link", name=str(epoch), exact=True))
    )
    row.get_by_role("button", name="delete …").click()
    question = page.get_by_role("dialog", name=f"Delete the checkpoint of epoch {epoch}?")
    expect(question).to_be_visible()
    return question


def own(board: Board, gs: str) -> Path:
    """A grid search whose checkpoints may go; its folder."""
    sweep(gs).write(board.storage)
    return board.storage / gs


def test_a_file_of_a_checkpoint(board: Board, pages: Pages) -> None:
    page = experiment(board, pages, 2)
    until(page, lambda: listed(page) == [5, 4, 3, 2, 1], "the checkpoints")
    for epoch in (5, 1):
        link = (
            page.get_by_role("region", name="checkpoints")
            .get_by_role("row")
            .filter(has=page.get_by_role("link", name=str(epoch), exact=True))
            .get_by_role("link", name="model.safetensors")
        )
        name, content = downloaded(page, link.click)
        assert name == f"{GS}-2-{epoch}-model.safetensors"
        assert content == weights(2, epoch)
    [first, *_] = rows(page, "checkpoints")
    assert first["size"] == "5.00 kB"
    page.get_by_role("button", name="show sha256").first.click()
    digest = json.loads((board.storage / GS / "2" / "5" / "manifest.json").read_text())["files"][0]["sha256"]
    expect(page.get_by_role("region", name="checkpoints")).to_contain_text(digest)


def test_to_keep_a_checkpoint_does_nothing(board: Board, gs: str, pages: Pages) -> None:
    folder = own(board, gs)
    before = board.lines(gs)
    page = experiment(board, pages, 1, gs)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    delete(page, 5).get_by_role("button", name="keep").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    delete(page, 5)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    question = delete(page, 5)
    expect(question).to_contain_text("2 files, 5.00 kB")
    expect(question).to_contain_text("newest one")
    question.get_by_role("button", name="close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(delete(page, 4)).not_to_contain_text("newest one")
    page.keyboard.press("Escape")
    assert set(asked) <= {"GET"}
    assert listed(page) == [5, 4, 3, 2, 1]
    assert (folder / "1" / "5" / "model.safetensors").read_bytes() == weights(1, 5)
    assert board.lines(gs) == before


def test_a_checkpoint_is_deleted(board: Board, gs: str, pages: Pages) -> None:
    """On disk, in the log, on this page, and on another one that is open."""
    folder = own(board, gs)
    before = len(board.lines(gs))
    other = experiment(board, pages, 1, gs)
    until(other, lambda: listed(other) == [5, 4, 3, 2, 1], "the checkpoints")
    page = experiment(board, pages, 1, gs)
    delete(page, 3).get_by_role("button", name="delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    until(page, lambda: listed(page) == [5, 4, 2, 1], "one less")
    until(other, lambda: listed(other) == [5, 4, 2, 1], "one less there as well")
    assert not (folder / "1" / "3").exists()
    assert (folder / "1" / "4" / "model.safetensors").read_bytes() == weights(1, 4)
    assert (folder / "2" / "3" / "model.safetensors").read_bytes() == weights(2, 3)
    [line] = board.lines(gs)[before:]
    event = json.loads(line)
    assert event["event_type"] == "checkpoint"
    assert event["payload"] == {"grid_search_id": gs, "experiment_id": 1, "epoch": 3, "action": "DELETED"}
    page.goto(f"{board.url}/{address(gs, 'events', type='checkpoint', seq=before + 1)}")
    expect(page.get_by_role("region", name=f"event {before + 1}")).to_contain_text('"DELETED"')
    # Replay still knows that it was there.
    page.goto(f"{board.url}/{address(gs, 'experiment', exp=1, at=before)}")
    until(page, lambda: listed(page) == [5, 4, 3, 2, 1], "what was there then")


def test_what_the_board_refuses_to_delete(board: Board, gs: str, pages: Pages) -> None:
    """It says why, the question stays, and nothing is changed."""
    folder = own(board, gs)
    before = board.lines(gs)
    pages.announce(r"404 \(Not Found\)|401 \(Unauthorized\)")
    page = experiment(board, pages, 1, gs)
    shutil.rmtree(folder / "1" / "2")
    question = delete(page, 2)
    question.get_by_role("button", name="delete", exact=True).click()
    expect(question.get_by_role("alert")).to_have_text(re.compile(r"It was not deleted: .*(no|not).*\."))
    question.get_by_role("button", name="keep").click()
    page.context.clear_cookies()
    question = delete(page, 5)
    question.get_by_role("button", name="delete", exact=True).click()
    expect(question.get_by_role("alert")).to_have_text(re.compile(r"It was not deleted: .*token.*\."))
    expect(question.get_by_role("button", name="delete", exact=True)).to_be_enabled()
    question.get_by_role("button", name="keep").click()
    assert listed(page) == [5, 4, 3, 2, 1]
    assert (folder / "1" / "5" / "model.safetensors").read_bytes() == weights(1, 5)
    assert board.lines(gs) == before


# --- what a job leaves behind ---


def output(page: Page) -> Locator:
    return page.get_by_role("region", name="output", exact=True)


def section(page: Page, title: str) -> Locator:
    """A part of the page about an experiment, opened if it was not."""
    found = page.get_by_role("group").filter(has=page.get_by_role("heading", name=title, exact=True)).last
    if found.get_attribute("open") is None:
        found.get_by_role("heading", name=title, exact=True).click()
    return found


def test_output_is_followed(board: Board, gs: str, pages: Pages) -> None:
    """While the job runs, whatever a terminal would have been told; and no longer once it has ended."""
    folder = own(board, gs)
    file = folder / "10" / "output.log"
    file.write_bytes(b"epoch 1\n")
    page = experiment(board, pages, 10, gs)
    settled(page, "live")
    output(page).scroll_into_view_if_needed()
    expect(output(page)).to_have_text("epoch 1\n")
    with file.open("ab") as printed:
        printed.write(b"\x1b[31mepoch 2\x1b[0m loss \x1b[1;38;5;200m0.5\x1b[m\n   0%\r  50%\r 100%\ngr\xc3")
        printed.flush()
        expect(output(page)).to_have_text("epoch 1\nepoch 2 loss 0.5\n 100%\ngr")
        printed.write(b"\xb6\xc3\x9fe <b>bold</b> \x1b]0;title\x07\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07\n")
        printed.flush()
        expect(output(page)).to_have_text("epoch 1\nepoch 2 loss 0.5\n 100%\ngröße <b>bold</b> link\n")
    # Another file of that name.
    file.write_bytes(b"again\n")
    expect(output(page)).to_have_text("again\n")


def test_much_output(board: Board, gs: str, pages: Pages) -> None:
    """Its end is shown, and what more comes; the page says where all of it is."""
    folder = own(board, gs)
    file = folder / "10" / "output.log"
    file.write_bytes(b"".join(b"line %d of a great many\n" % one for one in range(150_000)) + b"x" * 300_000)
    page = experiment(board, pages, 10, gs)
    expect(page.get_by_text("are not shown; all of it is in")).to_contain_text(f"{gs}/10/output.log")
    output(page).scroll_into_view_if_needed()
    with file.open("ab") as printed:
        printed.write(b"\nthe last line\n")
    pieces = "one => [...one.firstElementChild.children].map(piece => piece.textContent).join('\\n')"
    until(page, lambda: output(page).evaluate(pieces).endswith("xxx\nthe last line\n"), "the end")
    text = output(page).evaluate(pieces)
    assert 900_000 < len(text) < 1_100_000
    assert "line 149999 of a great many" in text
    assert "line 1 of a great many" not in text


def test_no_output(board: Board, gs: str, pages: Pages) -> None:
    folder = own(board, gs)
    (folder / "11" / "output.log").unlink()
    page = experiment(board, pages, 11, gs)
    expect(section(page, "Output")).to_contain_text("It has printed nothing.")


def test_a_failure_stands_first(board: Board, pages: Pages) -> None:
    """Error and stack trace, to be read without another click, and once more with its attempt."""
    page = experiment(board, pages, 9)
    error = page.get_by_role("region", name="error", exact=True)
    expect(error).to_contain_text(ERROR)
    expect(error.get_by_label("stack trace")).to_have_text(STACKTRACE)
    expect(error.get_by_label("stack trace")).to_be_in_viewport()
    progress = page.get_by_role("region", name="progress", exact=True)
    above, below = error.bounding_box(), progress.bounding_box()
    assert above is not None
    assert below is not None
    assert above["y"] + above["height"] <= below["y"]
    [attempt] = rows_of_attempts(page)
    assert attempt["attempt"] == "1"
    assert attempt["status"] == "failed"
    assert attempt["device"] == "cpu on node-1"
    assert ERROR in attempt["why it ended"]


def rows_of_attempts(page: Page) -> list[dict[str, str]]:
    section(page, "Job attempts")
    return until(page, lambda: rows(page, "job attempts"), "the attempts")  # type: ignore[no-any-return]


def test_attempts_one_after_the_other(board: Board, pages: Pages) -> None:
    """The newest first; what has become of the first one stands with it, and not over the page."""
    page = experiment(board, pages, 10)
    second, first = rows_of_attempts(page)
    assert (second["attempt"], second["status"], second["from epoch"]) == ("2", "running", "2")
    assert (first["attempt"], first["status"], first["from epoch"]) == ("1", "lost", "0")
    assert "killed by signal 9" in first["why it ended"]
    expect(page.get_by_role("region", name="error", exact=True)).to_have_count(0)


def test_environment(board: Board, pages: Pages) -> None:
    page = experiment(board, pages, 3)
    found = section(page, "Environment and hardware")
    for text in ("node-1", "cores", "8"):
        expect(found).to_contain_text(text)
    _, content = downloaded(page, found.get_by_role("button", name="download YAML").click)
    assert yaml.safe_load(content) == {"host": "node-1", "cpu": {"cores": 8}}


def test_scores_of_the_experiment(board: Board, pages: Pages) -> None:
    """Beside its files, and leading to their events."""
    page = experiment(board, pages, 4)
    found = {row["score"]: row for row in rows(page, "scores")}
    assert set(found) == set(scores(4, 0))
    best = max(range(EPOCHS + 1), key=lambda epoch: accuracy(4, epoch))
    assert found["val/accuracy"]["last"] == f"{accuracy(4, EPOCHS):.4f}"
    assert found["val/accuracy"]["best"] == f"{accuracy(4, best):.4f}"
    assert found["val/accuracy"]["of epoch"] == str(best)

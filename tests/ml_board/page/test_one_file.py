"""A grid search in one file, opened from the disk in a real Chromium without network: every page, deep links, replay; what
it cannot have it says; no text of a log runs or becomes markup; on paper all of it is there.

Whatever it asks for, and whatever the browser complains of, fails the test (see browser.py).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ml_board import one_file, packing
from mlgym.record.events import Validation
from mlgym.record.log import read_state
from mlgym.specs import RunPaths
from tests.ml_board.boards import Board
from tests.ml_board.browser import (
    Pages,
    address,
    chart,
    chart_csv,
    connection,
    downloaded,
    number,
    query_of,
    rows,
    until,
)
from tests.ml_board.golden import write as golden
from tests.ml_board.page import logs
from tests.ml_board.page.logs import Script, sweep
from tests.ml_board.page.test_hostile import GS as HOSTILE
from tests.ml_board.page.test_hostile import MANY, SCORES, TEXTS, columns, hostile, key, says
from tests.ml_board.page.test_replay import SEQS, agrees, at, view
from tests.ml_board.test_one_file import write_large

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("storage")
    sweep("sweep").write(storage)
    hostile(HOSTILE).write(storage)
    (storage / golden.GS).mkdir()
    (storage / golden.GS / "event_storage.log").write_bytes((golden.HERE / "log.jsonl").read_bytes())
    return storage


@pytest.fixture
def make(storage: Path, tmp_path: Path) -> Make:
    def make(name: str, limit: int = one_file.LIMIT) -> Path:
        target = tmp_path / f"a {name}.html"  # a space, as files have them
        one_file.write_file(RunPaths(storage, name), target, limit=limit)
        return target

    return make


def shown(page: Page) -> None:
    expect(connection(page)).to_have_text(re.compile("^(file|replay)$"))


def test_every_page(make: Make, pages: Pages) -> None:
    path = make("sweep")
    page = pages.open_file(path)
    until(page, lambda: len(rows(page)) == 12, "the table")
    until(page, lambda: page.url == f"{path.as_uri()}{address('sweep')}", "the way to what there is")
    for name, title in (
        ("sweep", "Sweep"),
        ("compare", "Choose what to compare"),
        ("experiment", "Experiments"),
        ("events", "Events"),
        ("settings", "Settings"),
    ):
        page.get_by_role("navigation", name="pages").get_by_role("link", name=name, exact=True).click()
        expect(page.locator("main h1")).to_have_text(title)
        expect(page.locator("main").get_by_text(re.compile("cannot be|could not|trying again"))).to_have_count(0)
    page.get_by_role("link", name="ml_board").click()
    until(
        page,
        # Its state is read after its name is there.
        lambda: [(row["grid search"], row["done"]) for row in rows(page, "grid searches")] == [("sweep", "9 of 12")],
        "the only one",
    )
    page.get_by_role("link", name="sweep", exact=True).click()
    until(page, lambda: len(rows(page)) == 12, "the table")


def test_scores_are_those_of_the_log(storage: Path, make: Make, pages: Pages) -> None:
    state = read_state(storage / "sweep" / "event_storage.log")
    page = pages.open_file(make("sweep"), address("sweep", lay="charts", sel="0-10"))
    for score in ("val/accuracy", "train/cross_entropy_loss"):
        wanted = [
            (one.experiment_id, *point)
            for one in state.experiments.values()
            for point in one.scores.get(score, {}).items()
        ]
        assert chart_csv(page, score) == wanted


def test_replay_is_that_of_the_log(make: Make, pages: Pages) -> None:
    """As of any event, by address and by steps, what Python makes of the events until then."""
    path = make(golden.GS)
    page = pages.open_file(path, view(SEQS[0]))
    for seq in [*SEQS, SEQS[3]]:
        page.goto(f"{path.as_uri()}{view(seq)}")
        at(page, seq)
        agrees(page, seq)
    page.get_by_role("button", name="one event back").click()
    at(page, SEQS[3] - 1)
    agrees(page, SEQS[3] - 1)
    page.get_by_role("button", name="one event on").click()
    at(page, SEQS[3])
    page.get_by_role("contentinfo", name="replay").get_by_role("button", name="end").click()
    expect(connection(page)).to_have_text("file")
    agrees(page, SEQS[-1])


def test_replay_plays_to_the_end(make: Make, pages: Pages) -> None:
    page = pages.open_file(make("sweep"), address("sweep", at=1))
    page.get_by_role("combobox", name="speed").select_option("1000")
    page.get_by_role("button", name="play", exact=True).click()
    until(page, lambda: query_of(page).get("at") == "176", "the end")
    until(page, lambda: len(rows(page)) == 12, "the table")


def test_replay_goes_over_what_was_left_out(
    storage: Path, make: Make, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is one to the next event that there is."""
    monkeypatch.setattr(packing, "WHOLE", 100)
    script = Script("gaps")
    script.grid(num_experiments=1)
    script.config(0, {"lr": 1})
    script.job(0, "RUNNING")
    for batch in range(40):
        script.progress(0, 1, batch)
    script.scores(0, 1, {"val/accuracy": 0.5})
    script.write(storage)
    page = pages.open_file(make("gaps"))
    back = page.get_by_role("button", name="one event back")
    for seq in (43, 3, 2):
        back.click()
        at(page, seq)
    for seq in (3, 43, 44):
        page.get_by_role("button", name="one event on").click()
        at(page, seq)
    page.goto(page.url.partition("#")[0] + address("gaps", "events"))
    until(page, lambda: [row["seq"] for row in rows(page, "events")] == ["1", "2", "3", "43", "44"], "the events")


def test_an_experiment_in_detail(make: Make, pages: Pages) -> None:
    path = make("sweep")
    page = pages.open_file(path, address("sweep", "experiment", exp=9))
    expect(page.get_by_role("region", name="error")).to_contain_text(logs.ERROR)
    says(page, logs.STACKTRACE)
    page.goto(f"{path.as_uri()}{address('sweep', 'experiment', exp=2, flip='config,environment')}")
    checkpoints = page.get_by_role("region", name="checkpoints")
    expect(checkpoints).to_contain_text("model.safetensors")
    expect(checkpoints.get_by_role("link", name="model.safetensors")).to_have_count(0)
    expect(checkpoints.get_by_role("button", name="delete")).to_have_count(0)
    checkpoints.get_by_role("button", name="show sha256").first.click()
    expect(checkpoints.locator(".digest").first).to_have_text(re.compile("^[0-9a-f]{64}$"))
    says(page, "epoch 2", ".output")
    expect(page.get_by_text("norway", exact=False).first).to_be_visible()
    expect(page.get_by_text("node-1").first).to_be_visible()
    page.goto(f"{path.as_uri()}{address('sweep', 'settings', show='run_config')}")
    says(page, logs.RUN_CONFIG)
    expect(page.get_by_role("heading", name="This file")).to_be_visible()
    expect(page.get_by_role("textbox", name="REST endpoint")).to_have_count(0)
    name, content = downloaded(page, page.get_by_role("button", name="download").click)
    assert (name, content.decode()) == ("sweep-run_config.yml", logs.RUN_CONFIG)


def test_another_grid_search_is_not_there(make: Make, pages: Pages) -> None:
    page = pages.open_file(make("sweep"), address("other"))
    expect(page.locator("main")).to_contain_text("this file holds sweep and no other grid search")


def test_the_report_of_cross_validation(storage: Path, make: Make, pages: Pages) -> None:
    script = Script("folds")
    script.grid(num_experiments=4, validation=Validation(combinations=2, outer_folds=2))
    for experiment, (fold, lr) in enumerate(product(range(2), (0.1, 0.01))):
        script.config(experiment, {"optimizer.lr": lr, "fold": fold}, num_epochs=2)
        script.job(experiment, "RUNNING")
        for epoch in range(3):
            script.scores(experiment, epoch, {"val/accuracy": 0.5 + 0.1 * epoch * fold + lr})
        script.job(experiment, "DONE")
    script.write(storage)
    page = pages.open_file(make("folds"), address("folds", "sweep"))
    card = page.get_by_role("region", name="validation", exact=True)
    expect(card.get_by_role("heading")).to_have_text("Cross validation: val/accuracy")
    expect(card.get_by_role("row").nth(1)).to_contain_text("0.7000 ±")
    card.get_by_role("combobox").select_option("average")
    expect(card.get_by_role("combobox")).to_have_value("average")
    page.get_by_role("button", name="one event back").click()
    expect(page.get_by_text("only as of the end, and no part of the replay")).to_be_visible()


FOREIGN = """() => {
    const bad = [];
    for (const one of document.querySelectorAll("*")) {
        const name = one.localName;
        if (/^(iframe|frame|object|embed|base|applet|marquee|video|audio|math|foreignobject|x-foreign)$/.test(name)) bad.push(one.outerHTML);
        if (name === "img" && !/^data:image\\/svg\\+xml;base64,/.test(one.src)) bad.push(one.outerHTML);
        for (const {name: key, value} of one.attributes) {
            if (key.startsWith("on") || key === "srcdoc") bad.push(`${name} ${key}=${value}`);
        }
        const href = name === "link" ? "" : one.href;
        if (href && typeof href === "string" && !href.startsWith(location.href.split("#")[0] + "#")) bad.push(`${name} ${href}`);
    }
    if (document.scripts.length !== 1) bad.push(`${document.scripts.length} scripts`);
    if (document.querySelectorAll("style").length !== 1) bad.push("another sheet");
    if (window.pwned !== undefined) bad.push(`pwned: ${window.pwned}`);
    if ({}.polluted !== undefined) bad.push("the prototype of all objects");
    return bad.map(text => text.slice(0, 300));
}"""


def test_whatever_a_log_says_is_text(make: Make, pages: Pages) -> None:
    """Also without the file's policy, so that nothing but the page protects it."""
    path = make(HOSTILE)
    page = pages.open_file(path, address(HOSTILE, lay="table", cols=f"status,last:val/plain,{columns()}"), csp=False)
    until(page, lambda: len(rows(page)) > 5, "the table")
    assert page.evaluate(FOREIGN) == []
    for row in rows(page):
        found, wanted = number(row["val/plain"]), SCORES[int(row["#"])]
        assert abs(found - wanted) <= 1e-3 * abs(wanted) or str(found) == str(wanted)
    _, content = downloaded(
        page, page.get_by_role("region", name="experiments").get_by_role("button", name="CSV").click
    )
    lines = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
    assert [line["all.of them"].removeprefix("'") for line in lines] == TEXTS
    for one, text in enumerate(TEXTS):
        page.goto(f"{path.as_uri()}{address(HOSTILE, 'experiment', exp=one, flip='config,environment')}")
        expect(page.get_by_role("heading", name=f"Experiment {one}", exact=True)).to_be_visible()
        says(page, text)
    assert page.evaluate(FOREIGN) == []
    page.goto(f"{path.as_uri()}{address(HOSTILE, 'settings', show='run_config')}")
    says(page, "\n".join(TEXTS))
    page.goto(f"{path.as_uri()}{address(HOSTILE, 'events')}")
    until(page, lambda: rows(page, "events"), "the events")
    page.goto(f"{path.as_uri()}{address(HOSTILE, 'compare', sel='0-3')}")
    expect(page.get_by_role("heading", name="Scores")).to_be_visible()
    page.goto(f"{path.as_uri()}{address(HOSTILE, lay='charts', sel=f'0-{MANY - 1}')}")
    assert len(chart_csv(page, key("constructor"))) == 3
    assert page.evaluate(FOREIGN) == []


def test_its_policy_lets_nothing_else_run(make: Make, pages: Pages) -> None:
    pages.announce("Content Security Policy")
    page = pages.open_file(make("sweep"))
    shown(page)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.pwned = 1";
            document.body.append(script);
            const button = document.createElement("button");
            button.setAttribute("onclick", "window.pwned = 2");
            document.body.append(button);
            button.click();
            button.remove();
            script.remove();
        }"""
    )
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("fetch('data:text/plain,x').then(() => 'came', () => 'refused')") == "refused"


def test_what_was_thinned_is_told(storage: Path, make: Make, pages: Pages) -> None:
    write_large(storage, "thinned", 2, 150, 1)
    limit = len(b"".join(one_file._frame("thinned"))) + 40_000
    page = pages.open_file(make("thinned", limit=limit), address("thinned", lay="charts"))
    expect(page.get_by_text("This search is too large for one file.").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"[\d,]+ of 2,718 in all"))).to_be_visible()
    state = read_state(storage / "thinned" / "event_storage.log")
    points = chart_csv(page, "val/accuracy")
    assert 20 <= len(points) < 302
    for experiment, epoch, value in points:
        assert state.experiments[experiment].scores["val/accuracy"][epoch] == value
    assert {epoch for _, epoch, _ in points} >= {0, 150}


def test_a_file_that_was_cut_off_says_so(make: Make, pages: Pages) -> None:
    path = make("sweep")
    text = path.read_text()
    begin = text.index('id="data">') + len('id="data">')
    end = text.index("</script>", begin)
    path.write_text(text[: begin + (end - begin) // 8 * 4] + text[end:])
    page = pages.open_file(path)
    expect(page.get_by_text("This file cannot be shown")).to_be_visible()


def test_on_paper_all_rows_are_there(storage: Path, make: Make, pages: Pages) -> None:
    """And what is only to be clicked is not; charts are drawn, also those that were out of sight."""
    script = Script("long")
    script.grid(num_experiments=120)
    for one in range(120):
        script.config(one, {"lr": one})
        script.scores(one, 0, {f"val/score{number}": number for number in range(9)})
    script.write(storage)
    page = pages.open_file(make("long"), theme="dark")
    until(page, lambda: 5 < len(rows(page)) < 120, "the table")
    until(page, lambda: page.locator("article.chart canvas").count() >= 9, "every chart")
    page.evaluate("""() => {
        addEventListener("beforeprint", () => queueMicrotask(() => {
            window.printed = document.querySelectorAll(".experiments [data-id]").length;
        }));
    }""")
    content = page.pdf(format="A4")
    assert content.startswith(b"%PDF")
    assert page.evaluate("window.printed") == 120
    until(page, lambda: len(rows(page)) < 120, "the table as it was")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    expect(page.get_by_role("navigation", name="pages")).to_be_hidden()
    expect(page.get_by_role("slider", name="event")).to_be_hidden()
    expect(page.get_by_text("120 experiments")).to_be_visible()


def test_the_board_has_a_button_for_it(board: Board, gs: str, pages: Pages, tmp_path: Path) -> None:
    sweep(gs).write(board.storage)
    pages.announce("404.*validation_strategy_config")  # there is none
    page = pages.open(board, address(gs, "settings"))
    name, content = downloaded(page, page.get_by_role("link", name="download as one file").click)
    assert name == f"{gs}.html"
    (tmp_path / name).write_bytes(content)
    page = pages.open_file(tmp_path / name, address(gs, "experiment", exp=1))
    expect(page.get_by_role("heading", name="Experiment 1", exact=True)).to_be_visible()
    found = chart(page, "val/accuracy")
    expect(found).to_be_visible()
    assert query_of(page) == {"exp": "1"}

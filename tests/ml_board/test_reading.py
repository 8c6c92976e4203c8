"""Reading logs over REST: filtered events, summaries, points and the past. Real boards, real files."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ml_board import projections, search
from ml_board.projections import Which
from mlgym.plan.config import read
from mlgym.plan.sweep import expand
from mlgym.record.card import card
from mlgym.record.card_html import as_html
from mlgym.record.card_markdown import as_markdown
from mlgym.record.card_schema import as_json as card_as_json
from mlgym.record.card_sources import sources
from mlgym.record.events import body_of, decode_lines, seal
from mlgym.record.fold import State, fold_all
from mlgym.record.hub import Hub
from mlgym.record.log import Log
from mlgym.record.pipeline import as_json, pipeline
from tests.conftest import DIGITS
from tests.ml_board.boards import Board, batch, deliver
from tests.ml_board.golden import write
from tests.ml_board.page.logs import components
from tests.record.cards import announced, told

GOLDEN = write.lines()
END = len(GOLDEN)
EVENTS = [json.loads(line) for line in GOLDEN]


@pytest.fixture
def golden(board: Board) -> str:
    """The path of a grid search that has the golden log."""
    if not board.log("golden").exists():
        board.log("golden").parent.mkdir(parents=True)
        board.log("golden").write_bytes(b"".join(GOLDEN))
    return "/grid_searches/golden"


def of(seq: int) -> State:
    return fold_all(State(), decode_lines(b"".join(GOLDEN[:seq])))


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


# --- model cards ---


def test_a_model_card_of_any_moment(board: Board, gs: str) -> None:
    told(announced(gs)).write(board.storage)
    log = Log.load(board.log(gs))
    path = f"/model-card/{gs}/0"
    wanted = card(sources(log, log.state, 0))
    assert board.get(path).json() == json.loads(card_as_json(wanted))
    for at in range(4, log.state.seq):
        state = fold_all(State(), decode_lines(b"".join(line + b"\n" for line in log.lines(0, at))))
        assert board.get(f"{path}?at={at}").json() == json.loads(card_as_json(card(sources(log, state, 0))))
    for kind, ending, content in (("html", "html", as_html(wanted)), ("markdown", "md", as_markdown(wanted))):
        answer = board.get(f"{path}?format={kind}")
        assert answer.body.decode() == content
        assert answer.headers["content-type"] == f"text/{kind}; charset=utf-8"
        assert answer.headers["content-disposition"] == f'attachment; filename="model-card-{gs}-0.{ending}"'
        assert answer.headers["content-security-policy"] == "sandbox"


def test_a_model_card_that_is_not_there(board: Board, gs: str) -> None:
    told(announced(gs)).write(board.storage)
    for asked, status, words in (
        (f"/model-card/{gs}/7", 404, "there is no experiment 7"),
        (f"/model-card/{gs}/0?at=1", 404, "there is no experiment 0"),
        (f"/model-card/{gs}/0?format=pdf", 400, "json, html, markdown"),
        ("/model-card/nowhere/0", 404, "'nowhere'"),
    ):
        refused = board.get(asked)
        assert (refused.status, words in refused.json()["error"]["message"]) == (status, True)


# --- what an experiment consists of ---


def test_a_pipeline(board: Board, gs: str) -> None:
    """Of the last configuration that the log has of an experiment, with the files beside it or without."""
    script = components(gs)
    script.write(board.storage)
    (board.storage / gs / "0" / "experiment_config.json").unlink()
    answer = board.get(f"/grid_searches/{gs}/0/pipeline")
    cell = expand(read(DIGITS / "gs_config.yml").value)[0]
    expected = pipeline(cell.config, {".".join(map(str, path)): value for path, value in cell.swept.items()})
    assert answer.json() == plain(as_json(expected))
    script.config(0, {"model.config.x": 1}, config={"model": {"component_type_key": "M", "config": {"x": 1}}})
    deliver(board, script.drain(), gs)
    (node,) = board.get(f"/grid_searches/{gs}/0/pipeline").json()["nodes"]
    assert (node["name"], node["type"], node["swept"]) == ("model", "M", {"config.x": 1})
    many: dict[str, Any] = {f"c{i}": {} for i in range(501)}
    script.config(1, {}, config=many)
    script.config(5, {}, config=[1, "two"])
    script.job(6, "INIT")
    deliver(board, script.drain(), gs)
    assert board.get(f"/grid_searches/{gs}/5/pipeline").json()["nodes"] == []
    for experiment, status, words in (
        (1, 400, "501 components"),
        (6, 404, "no configuration"),
        (7, 404, "no configura"),
    ):
        refused = board.get(f"/grid_searches/{gs}/{experiment}/pipeline")
        assert (refused.status, words in refused.json()["error"]["message"]) == (status, True)


# --- now and then ---


@pytest.mark.parametrize("seq", [0, 1, 100, 150, END - 1, END, END + 1, 10**6, None])
def test_a_snapshot_of_any_moment(board: Board, golden: str, seq: int | None) -> None:
    at = "" if seq is None else f"at={seq}"
    state = of(len(GOLDEN) if seq is None else seq)
    assert board.get(f"{golden}/snapshot?{at}").json() == plain(projections.snapshot(state))
    assert board.get(f"{golden}/snapshot?{at}&scores=all").json() == plain(projections.snapshot(state))
    assert board.get(f"{golden}/snapshot?{at}&scores=summary").json() == plain(projections.rows(state))
    assert board.get(f"{golden}/timeline?{at}").json() == plain(projections.timeline(state))
    assert board.get(f"{golden}/series?{at}").json() == plain(projections.series(state, Which()))


@pytest.mark.parametrize("seq", [0, 100, END, None])
def test_a_report(board: Board, golden: str, seq: int | None) -> None:
    """As `mlgym report --json` prints it, of any moment."""
    at = "" if seq is None else f"at={seq}"
    state = of(len(GOLDEN) if seq is None else seq)
    assert board.get(f"{golden}/report?{at}").json() == plain(projections.report(state, None, None, None))
    if seq is None:
        metric = next(key for one in state.experiments.values() for key in one.scores)
        found = board.get(f"{golden}/report?metric={metric}&mode=min&epoch=best").json()
        assert found == plain(projections.report(state, metric, "min", "best"))
        assert (found["score"], found["mode"], found["epoch"]) == (metric, "min", "best")
        refused = board.get(f"{golden}/report?metric=nothing")
        assert (refused.status, "'nothing'" in refused.json()["error"]["message"]) == (400, True)
        assert board.get(f"{golden}/report?epoch=first").status == 400


def test_the_files_that_the_page_is_tested_with_are_what_it_is_sent(board: Board, golden: str) -> None:
    expected = json.loads((write.HERE / "expected.json").read_text(encoding="utf-8"))
    for seq, rows in expected["at"].items():
        assert board.get(f"{golden}/snapshot?scores=summary&at={seq}").json() == rows
        assert board.get(f"{golden}/timeline?at={seq}").json() == expected["timeline"][seq]


def test_one_experiment(board: Board, golden: str) -> None:
    found = board.get(f"{golden}/experiments/2").json()
    assert found == plain(projections.experiment(of(len(GOLDEN)), 2))
    assert found["attempts"][0]["stacktrace"] == "Traceback ..."
    assert board.get(f"{golden}/experiments/2?at=140").json()["attempts"][0]["status"] == "RUNNING"
    assert "no experiment 2 in the log as of event 4" in board.get(f"{golden}/experiments/2?at=4").message
    assert "no experiment 77 in the log" in board.get(f"{golden}/experiments/77").message
    assert board.get(f"{golden}/experiments/{2**40}").json()["checkpoints"][0]["files"][0]["size"] == 2**40 + 3


@pytest.mark.parametrize(
    ("asked", "which"),
    [
        ("score=val/loss&experiments=0-1", Which(experiments={0, 1}, scores={"val/loss"})),
        ("score=val/loss&score=val/top/5&points=10", Which(scores={"val/loss", "val/top/5"}, points=10)),
        ("experiments=3,0-0,1-1&first=2&last=5", Which(experiments={0, 1, 3}, first=2, last=5)),
        ("experiments=5-3", Which(experiments=set())),
        ("experiments=0-999999999999999999&at=110", Which()),
        ("score=", Which(scores={""})),
        ("score=val/odd/%E6%97%A5%E6%9C%AC/%E7%B2%BE%E5%BA%A6", Which(scores={"val/odd/日本/精度"})),
    ],
)
def test_points(board: Board, golden: str, asked: str, which: Which) -> None:
    state = of(110 if "at=" in asked else len(GOLDEN))
    assert board.get(f"{golden}/series?{asked}").json() == plain(projections.series(state, which))


def test_more_points_than_anybody_may_ask_for(board: Board, gs: str) -> None:
    path = board.log(gs)
    path.parent.mkdir(parents=True)
    scores = ",".join(f'{{"metric":"m{i}","split":"s","score":0.5}}' for i in range(3000)).encode()
    with path.open("wb") as file:
        for seq in range(1, 401):
            payload = b'{"grid_search_id":"%b","experiment_id":1,"epoch":%d,"metric_scores":[%b]}' % (
                gs.encode(),
                seq,
                scores,
            )
            file.write(
                seal(
                    b'{"seq":%d,"event_type":"evaluation_result","source":"s","n":%d,"payload":%b' % (seq, seq, payload)
                )
            )
    refused = board.get(f"/grid_searches/{gs}/series")
    assert refused.status == 400
    assert refused.message == "1,200,000 points are more than 1,000,000; ask for fewer, or fewer experiments"
    assert len(board.get(f"/grid_searches/{gs}/series?points=10").json()["series"]) == 3000
    assert len(board.get(f"/grid_searches/{gs}/series?at=300").json()["series"]) == 3000


def test_the_past_of_a_log_that_is_written(board: Board, gs: str) -> None:
    for first in range(1, 1000, 100):
        deliver(board, batch(100, grid_search_id=gs, first=first), gs)
        for at in (first, first + 50, 1):
            assert board.get(f"/grid_searches/{gs}/snapshot?at={at}").json()["experiments"][0]["epochs_done"] == at


def test_the_past_of_a_log_that_is_put_there_anew(board: Board, gs: str) -> None:
    path, other = board.log(gs), board.folder / f"{gs}.log"
    for file, epochs in ((path, 30), (other, 40)):
        file.parent.mkdir(parents=True, exist_ok=True)
        hub = Hub(file)
        hub.accept(batch(epochs, file.name[0], gs, 1))
        hub.close()
    assert board.get(f"/grid_searches/{gs}/events?before=31&limit=1").json()["events"][0]["source"] == "e"
    assert board.get(f"/grid_searches/{gs}/snapshot?at=20").json()["seq"] == 20
    other.replace(path)
    assert board.get(f"/grid_searches/{gs}/snapshot?at=35").json()["seq"] == 35
    path.unlink()
    assert board.get(f"/grid_searches/{gs}/snapshot?at=35").status == 404
    assert board.get(f"/grid_searches/{gs}/summary").status == 404


# --- summaries ---


def test_a_summary_is_made_anew_only_when_there_is_something_new(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        for name, count in (("g", 3), *((f"other-{i}", 1) for i in range(20))):
            deliver(board, batch(count, grid_search_id=name), name)
        names = [entry["grid_search_id"] for entry in board.get("/grid_searches").json()]
        assert len(names) == 21
        found = {name: board.get(f"/grid_searches/{name}/summary").json() for name in names}
        assert (found["g"]["epochs_done"], found["other-3"]["epochs_done"]) == (3, 1)
        for name in names:  # who reads these again will not find what was there
            status = board.log(name).stat()
            with board.log(name).open("r+b") as log:
                log.write(b"x" * status.st_size)
            os.utime(board.log(name), ns=(status.st_atime_ns, status.st_mtime_ns))
        assert {name: board.get(f"/grid_searches/{name}/summary").json() for name in names} == found
        board.log("g").unlink()
        deliver(board, batch(5), "g")
        assert board.get("/grid_searches/g/summary").json()["epochs_done"] == 5


def test_a_summary_of_a_log_that_another_process_writes(board: Board, gs: str) -> None:
    board.log(gs).parent.mkdir(parents=True)
    hub = Hub(board.log(gs))
    for first in range(1, 30, 3):
        hub.accept(batch(3, grid_search_id=gs, first=first))
        assert board.get(f"/grid_searches/{gs}/summary").json()["seq"] == first + 2
        with board.log(gs).open("ab") as log:  # a line that is being written
            log.write(b'{"seq":99,"event')
        assert board.get(f"/grid_searches/{gs}/summary").json()["seq"] == first + 2
        os.truncate(board.log(gs), board.log(gs).stat().st_size - 16)
    hub.close()


# --- events ---


def matching(before: int, types: list[str], experiment: int | None) -> list[dict[str, Any]]:
    def about(event: dict[str, Any]) -> Any:
        return event["payload"].get("experiment_id") if isinstance(event.get("payload"), dict) else None

    return [
        event
        for event in EVENTS
        if event["seq"] < before
        and (not types or event.get("event_type") in types)
        and (experiment is None or (type(about(event)) is int and about(event) == experiment))
    ]


GOLDEN_FILTERS: list[tuple[list[str], int | None]] = [
    ([], None),
    (["warning"], None),
    (["job_status", "checkpoint"], None),
    (["dream"], None),
    (["nobody knows"], None),
    ([""], None),
    ([], 1),
    (["job_status"], 1),
    (["dream", "warning"], 0),
    ([], 77),
]


@pytest.mark.parametrize(("types", "experiment"), GOLDEN_FILTERS)
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_events_that_fit(board: Board, golden: str, types: list[str], experiment: int | None, limit: int) -> None:
    """Page by page in both directions, each event comes once, byte for byte as it is in the log."""
    asked = "".join(f"&type={name}" for name in types) + (f"&experiment={experiment}" if experiment is not None else "")
    asked = asked.replace(" ", "%20")
    forwards: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = board.get(f"{golden}/events?limit={limit}&after={after}{asked}").json()
        forwards += page["events"]
        assert (page["grid_search_id"], page["head"]) == ("golden", len(GOLDEN))
        assert len(page["events"]) <= limit
        if not asked:  # as it always was
            assert set(page) == {"grid_search_id", "head", "events"}
        after = page["next"] if asked else (page["events"] or [{"seq": None}])[-1]["seq"]
    assert forwards == matching(10**6, types, experiment)
    backwards: list[dict[str, Any]] = []
    before: int | None = 10**6
    while before is not None:
        page = board.get(f"{golden}/events?limit={limit}&before={before}{asked}").json()
        backwards = page["events"] + backwards
        assert len(page["events"]) <= limit
        before = page["next"]
    assert backwards == forwards
    for seq in (0, 1, 2, 150, END, END + 1):
        page = board.get(f"{golden}/events?limit={limit}&before={seq}{asked}").json()
        assert page["events"] == matching(seq, types, experiment)[-limit:]


def test_events_are_told_as_they_are(board: Board, golden: str) -> None:
    answer = board.get(f"{golden}/events?type=dream").body
    lines = [line.rstrip(b"\n") for line in GOLDEN if b'"dream"' in line]
    assert answer == b'{"grid_search_id":"golden","head":%d,"events":[%b],"next":null}' % (
        len(GOLDEN),
        b",".join(lines),
    )


def test_a_name_may_be_spelled_in_many_ways(board: Board, gs: str) -> None:
    """A look at the bytes saves work; it must not decide."""
    said = [
        b'"event_type":"dream","payload":{"experiment_id":7}',
        b'"event_type" : "dream","payload":{"experiment_id" :\t7}',
        b'"event_type":"dr\\u0065am","payload":{"experiment_\\u0069d":7}',
        b'"event_typ\\u0065":"dream","payload":{"experiment_id":-0,"experiment_id":7}',
    ]
    other = [
        b'"event_type":"dreams","payload":{"experiment_id":7}',
        b'"event_type":"dream","payload":{"experiment_id":77}',
        b'"event_type":"dream","payload":{"experiment_id":7.0}',
        b'"event_type":"dream","payload":{"experiment_id":"7"}',
        b'"event_type":"dream","payload":{"x":{"experiment_id":7}}',
        b'"event_type":"dream","experiment_id":7,"payload":[7]',
        b'"event_type":["dream"],"payload":{"experiment_id":7}',
        b'"event_type":"nightmare","payload":{"experiment_id":7,"of":{"event_type":"dream"}}',
        b'"payload":{"experiment_id":7}',
    ]
    content = b"".join(seal(b'{"source":"s","n":%d,%b' % (n, line)) for n, line in enumerate([*said, *other], 1))
    assert deliver(board, content, gs)["durable"] == {"s": len(said) + len(other)}
    for asked in ("after=0", "before=99"):
        page = board.get(f"/grid_searches/{gs}/events?{asked}&type=dream&experiment=7").json()
        assert [event["seq"] for event in page["events"]] == [*range(1, len(said) + 1)]


def test_a_request_looks_through_a_bounded_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says where to go on, also when there was nothing in it; damage is no reason to stand still."""
    path = tmp_path / "event_storage.log"
    hub = Hub(path)
    for first in range(1, 6000, 500):
        hub.accept(batch(500, first=first))
    hub.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join(line.replace(b"0.5", b"0.6") if 2000 < i < 4000 else line for i, line in enumerate(lines))
    )
    monkeypatch.setattr(search, "_MAX_SCAN", 10_000)
    monkeypatch.setattr("mlgym.record.log._PIECE", 70_000)
    log = Log.load(path)
    assert body_of(lines[2500].replace(b"0.5", b"0.6")[:-1]) is None
    good = [seq for seq in range(1, 6001) if not 2001 < seq <= 4000]

    def seqs(found: search.Found) -> list[int]:
        return [json.loads(line)["seq"] for line in found.lines]

    for wanted, expected in (
        (search.Filter(["dream"], None), []),
        (search.Filter(["evaluation_result"], 1), good),
        (search.Filter([], None), good),
    ):
        pages, seen, after = 0, list[int](), 0
        while True:
            found = search.after(log, wanted, after, 900)
            seen += seqs(found)
            pages += 1
            if found.next is None:
                break
            assert found.next > after
            after = found.next
        assert seen == expected
        assert pages > 5
        pages, seen, before = 0, list[int](), 10**6
        while True:
            found = search.before(log, wanted, before, 900)
            seen = seqs(found) + seen
            pages += 1
            if found.next is None:
                break
            assert found.next < before
            before = found.next
        assert seen == expected
        assert pages > 5


def test_large_events_come_in_pages(board: Board, gs: str) -> None:
    text = b"x" * (3 << 20)
    for n in range(1, 6):
        body = b'{"event_type":"dream","source":"s","n":%d,"payload":{"text":"%b"}' % (n, text)
        assert deliver(board, seal(body), gs)["durable"] == {"s": n}
    assert [e["seq"] for e in board.get(f"/grid_searches/{gs}/events?type=dream").json()["events"]] == [1, 2]
    page = board.get(f"/grid_searches/{gs}/events?before=6").json()
    assert ([e["seq"] for e in page["events"]], page["next"]) == ([4, 5], 4)


def test_old_logs_are_searched_and_have_a_past(board: Board, gs: str) -> None:
    from tests.record.test_old_log import job, scores

    board.log(gs).parent.mkdir(parents=True)
    board.log(gs).write_bytes(job("RUNNING") + b"".join(scores(epoch, 0.5) for epoch in range(9)) + job("DONE"))
    path = f"/grid_searches/{gs}"
    assert [e["seq"] for e in board.get(f"{path}/events?type=job_status&experiment=0").json()["events"]] == [1, 11]
    assert [e["seq"] for e in board.get(f"{path}/events?before=9&limit=2").json()["events"]] == [7, 8]
    assert board.get(f"{path}/snapshot?at=5").json()["experiments"][0]["epochs_done"] == 3
    assert board.get(f"{path}/summary").json()["counts"] == {"DONE": 1}


# --- together ---


def test_many_readers_while_it_is_written(board: Board, gs: str) -> None:
    """Whoever reads at any moment gets what belongs together."""
    hub_side = Thread(
        target=lambda: [deliver(board, batch(200, grid_search_id=gs, first=1 + 200 * i), gs) for i in range(15)]
    )
    deliver(board, batch(1, "first", gs), gs)
    wrong: list[Any] = []

    def read(seed: int) -> None:
        rng = random.Random(seed)
        end = time.monotonic() + 60
        while hub_side.is_alive() and time.monotonic() < end:
            head = board.get(f"/grid_searches/{gs}/summary").json()["seq"]
            at = rng.randrange(1, head + 1)
            found = board.get(f"/grid_searches/{gs}/snapshot?at={at}").json()
            points = board.get(f"/grid_searches/{gs}/series?points=100000&at={at}").json()["series"][0]
            epochs = max(1, at - 1)
            if (found["seq"], found["experiments"][0]["epochs_done"]) != (at, epochs) or points["of"] != epochs:
                wrong.append((at, found, points))

    readers = [Thread(target=read, args=(seed,)) for seed in range(4)]
    hub_side.start()
    for reader in readers:
        reader.start()
    for thread in (hub_side, *readers):
        thread.join()
    assert not wrong
    assert board.get(f"/grid_searches/{gs}/summary").json()["seq"] == 3001

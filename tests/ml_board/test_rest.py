"""Every route of REST by hand; then the description of them all, held against the routes and tried out by a machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from ml_board.app import application
from ml_board.projections import snapshot
from ml_board.rest import Rest
from ml_board.security import Guard
from ml_board.settings import Limits, Settings
from ml_board.store import Store
from mlgym.record.checkpoint_folder import Manifest
from mlgym.record.events import CheckpointEvent, CheckpointFile, JobStatus, seal
from mlgym.record.hub import Hub
from mlgym.record.log import read_state
from mlgym.record.spool import Spool
from tests.ml_board.boards import Board, batch, deliver, form, wait_until

FILES = {"model.safetensors": b"weights" * 1000, "lr_scheduler.json": b"{}"}


def manifest(files: dict[str, bytes], epoch: int = 1) -> bytes:
    described = [CheckpointFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()]
    return Manifest(epoch=epoch, batch=0, files=described, delete=[]).sealed()


def upload(board: Board, checkpoint: str, files: dict[str, bytes], epoch: int = 1) -> None:
    """A whole checkpoint, the manifest last."""
    for name, data in [*files.items(), ("manifest.json", manifest(files, epoch))]:
        answer = board.upload(checkpoint, name, data)
        assert answer.status == 200, answer
        assert answer.json() == {"name": name, "sha256": hashlib.sha256(data).hexdigest()}


def saved(board: Board, gs: str, epoch: int = 1) -> None:
    """The log says that there is a checkpoint of experiment 1."""
    spool = board.folder / "of_a_worker" / f"{gs}.jsonl"
    with Spool(spool, gs) as opened:
        files = [CheckpointFile("model.safetensors", 7, "")]
        opened.emit(
            CheckpointEvent(grid_search_id=gs, experiment_id=1, epoch=epoch, action="SAVED", files=files),
        )
    assert deliver(board, spool.read_bytes(), gs)["rejected"] == 0


def deletions(board: Board, gs: str) -> int:
    return sum(b'"DELETED"' in line for line in board.lines(gs))


# --- grid searches, events and state ---


def test_grid_searches_are_listed(board: Board, gs: str) -> None:
    deliver(board, batch(3, grid_search_id=gs), gs)
    other = f"{gs}-ended"
    deliver(
        board,
        seal(
            b'{"event_type":"grid_search","source":"s","n":1,"payload":{"grid_search_id":"%b","status":"FINISHED"}'
            % other.encode()
        ),
        other,
    )
    found = {entry["grid_search_id"]: entry for entry in board.get("/grid_searches").json()}
    assert set(found[gs]) == {"grid_search_id", "status", "running", "head", "size", "modified"}
    assert (found[gs]["status"], found[gs]["head"], found[gs]["running"]) == ("STARTED", 3, False)
    assert found[gs]["size"] == board.log(gs).stat().st_size
    assert found[other]["status"] == "FINISHED"
    assert list(found)[-1] == other  # the newest last


def test_a_held_lock_means_running(board: Board, gs: str) -> None:
    deliver(board, batch(1, grid_search_id=gs), gs)
    with Spool(board.storage / gs / "lock", "x"):  # whoever holds the flock; a spool does
        (entry,) = (e for e in board.get("/grid_searches").json() if e["grid_search_id"] == gs)
        assert entry["running"]


def test_events_are_the_lines_of_the_log(board: Board, gs: str) -> None:
    """Byte for byte, whatever the pages: nobody encodes them again, so what nobody knows is kept as well."""
    deliver(board, batch(1200, grid_search_id=gs), gs)
    dream = seal(b'{"event_type":"dream","source":"d","n":1,"x": [1.50, "\\u0041"],"payload":{}')
    deliver(board, dream, gs)
    lines = board.lines(gs)
    assert len(lines) == 1201
    assert board.get(f"/grid_searches/{gs}/events").json()["events"] == [json.loads(line) for line in lines[:1000]]
    for limit in (1, 7, 500, 10_000):
        for after in (0, 1, 499, 1194, 1200, 1201, 9999):
            answer = board.get(f"/grid_searches/{gs}/events?after={after}&limit={limit}")
            page = lines[after : after + limit]
            head = b'{"grid_search_id":"%b","head":1201,"events":[' % gs.encode()
            assert (answer.status, answer.body) == (200, head + b",".join(page) + b"]}")
    after, pages = 0, []
    while page := board.get(f"/grid_searches/{gs}/events?after={after}&limit=333").json()["events"]:
        pages += page
        after = page[-1]["seq"]
    assert pages == [json.loads(line) for line in lines]


def test_events_of_a_log_that_another_process_writes(board: Board, gs: str) -> None:
    """Without a line that is being written just now."""
    board.log(gs).parent.mkdir(parents=True)
    hub = Hub(board.log(gs))
    for first in (1, 6):
        hub.accept(batch(5, grid_search_id=gs, first=first))
        with board.log(gs).open("ab") as log:
            log.write(b'{"seq":99,"event')
        answer = board.get(f"/grid_searches/{gs}/events?after={first - 1}")
        assert [event["n"] for event in answer.json()["events"]] == list(range(first, first + 5))
        os.truncate(board.log(gs), board.log(gs).stat().st_size - 16)
    assert deliver(board, batch(1, "t", gs), gs)["error"]["status"] == 409
    hub.close()
    assert deliver(board, batch(1, "t", gs), gs)["durable"] == {"t": 1}
    assert len(board.lines(gs)) == 11


def test_the_snapshot_is_the_fold(board: Board, gs: str) -> None:
    payload = JobStatus(grid_search_id=gs, job_id="1-1", experiment_id=1, status="RUNNING", starting_time=5)
    path = board.folder / f"{gs}.jsonl"
    with Spool(path, "worker") as spool:
        spool.emit(payload)
    deliver(board, path.read_bytes() + batch(30, grid_search_id=gs), gs)
    found = board.get(f"/grid_searches/{gs}/snapshot").json()
    assert found == json.loads(json.dumps(snapshot(read_state(board.log(gs)))))
    (experiment,) = found["experiments"]
    assert (found["seq"], experiment["status"], experiment["epochs_done"]) == (31, "RUNNING", 30)
    scores = {"loss": False, "epochs": [*range(1, 31)], "values": [0.5] * 30, "seqs": [*range(2, 32)]}
    assert experiment["scores"] == {"val/a": scores}


def test_scores_that_json_does_not_know(board: Board, gs: str) -> None:
    score = b'{"metric_scores":[{"metric":"a","split":"val","score":"NaN"}],"grid_search_id":"%b","experiment_id":0,"epoch":1}'
    line = seal(b'{"event_type":"evaluation_result","source":"s","n":1,"payload":' + score % gs.encode())
    deliver(board, line, gs)
    (experiment,) = board.get(f"/grid_searches/{gs}/snapshot").json()["experiments"]
    assert experiment["scores"]["val/a"]["values"] == ["NaN"]


@pytest.mark.parametrize(
    "what", ["events", "events?before=9", "snapshot", "snapshot?scores=summary", "snapshot?at=2", "experiments"]
)
def test_numbers_of_any_size_are_shown(board: Board, gs: str, what: str) -> None:
    """What is in a log must come out of it: integers of JSON have no end."""
    for n, payload in enumerate(
        (
            {"experiment_id": 10**30, "status": "train", "num_epochs": 1, "current_epoch": -(10**30)},
            {"experiment_id": 10**400, "status": "train", "num_epochs": 1, "current_epoch": 1},
            {"experiment_id": -1, "status": "train", "num_epochs": 10**19, "current_epoch": 1},
        ),
        1,
    ):
        body = json.dumps({"grid_search_id": gs, **payload}).encode()
        deliver(board, seal(b'{"event_type":"experiment_status","source":"s","n":%d,"payload":%b' % (n, body)), gs)
    answer = board.get(f"/grid_searches/{gs}/{what}")
    assert answer.status == 200
    assert str(10**30) in answer.body.decode()


def test_experiments_come_from_the_log_and_the_disk(board: Board, gs: str) -> None:
    deliver(board, batch(1, grid_search_id=gs), gs)
    board.request("PUT", f"/grid_searches/{gs}/7/experiment_config", {"file_format": "JSON", "content": {"lr": 0.1}})
    for epoch in (1, 12, 2):
        upload(board, f"/checkpoints/{gs}/7/{epoch}", FILES, epoch)
    assert board.get(f"/grid_searches/{gs}/experiments").json() == [
        {"experiment_id": 1, "last_checkpoint_id": -1, "experiment_config": None},
        {"experiment_id": 7, "last_checkpoint_id": 12, "experiment_config": {"lr": 0.1}},
    ]


# --- configurations ---

CONFIGS = [
    ("grid_search_config", "yml"),
    ("run_config", "yml"),
    ("validation_strategy_config", "yml"),
    ("1/experiment_config", "json"),
    ("0/system_info", "json"),
]


@pytest.mark.parametrize(("name", "suffix"), CONFIGS)
def test_configs_are_written_once_and_read_as_they_are(board: Board, gs: str, name: str, suffix: str) -> None:
    text = '{"größe":  1.50}' if suffix == "json" else "# größe\na:  1\n"
    path = f"/grid_searches/{gs}/{name}"
    body = {"file_format": "JSON" if suffix == "json" else "YAML", "content": text}
    assert board.get(path).status == 404
    file = name.rpartition("/")[2]
    for spelling in (path, path, f"{path}.{suffix}"):
        answer = board.request("PUT", spelling, body)
        assert (answer.status, answer.json()) == (200, {"name": f"{file}.{suffix}", "size": len(text.encode())})
    for spelling in (path, f"{path}.{suffix}"):
        answer = board.get(spelling)
        assert (answer.status, answer.body) == (200, text.encode())
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    other = board.request("PUT", f"{path}.{suffix}", {**body, "content": text + " "})
    assert other.status == 409
    assert f"another {file}.{suffix}" in other.message
    assert board.get(path).body == text.encode()
    assert sorted(p.name for p in (board.storage / gs).rglob("*") if p.is_file()) == [f"{file}.{suffix}"]


@pytest.mark.parametrize(("name", "form_"), [("run_config", "YAML"), ("run_config", "yml"), ("3/system_info", "JSON")])
def test_a_config_may_come_as_data(board: Board, gs: str, name: str, form_: str) -> None:
    content = {"a": [1, None, "ü"], "b": {"c": 1.5}, "big": 10**30}
    assert board.request("PUT", f"/grid_searches/{gs}/{name}", {"file_format": form_, "content": content}).status == 200
    assert board.get(f"/grid_searches/{gs}/{name}").json() == content


def test_system_info(board: Board, gs: str) -> None:
    assert board.get(f"/system-info/{gs}/2").status == 404
    board.request("PUT", f"/grid_searches/{gs}/2/system_info", {"file_format": "JSON", "content": '{"cpu": "fast"}'})
    answer = board.get(f"/system-info/{gs}/2")
    assert (answer.status, answer.body) == (200, b'{"cpu": "fast"}')
    assert answer.headers["content-type"] == "application/json"


def test_output_from_an_offset(board: Board, gs: str) -> None:
    folder = board.storage / gs / "4"
    folder.mkdir(parents=True)
    nothing = {"offset": 0, "next_offset": 0, "size": 0, "text": ""}
    assert board.get(f"/grid_searches/{gs}/4/output?offset=7").json() == nothing
    text = "x" + "ö" * 1_200_000 + "\n"  # a piece of 1 MiB ends within one
    (folder / "output.log").write_text(text)
    size = len(text.encode())
    offset, found = 0, ""
    while offset < size:
        answer = board.get(f"/grid_searches/{gs}/4/output?offset={offset}").json()
        assert (answer["offset"], answer["size"]) == (offset, size)
        assert offset < answer["next_offset"] <= offset + (1 << 20)
        offset = answer["next_offset"]
        found += answer["text"]
    assert found == text  # no character was cut in two
    beyond = {"offset": size, "next_offset": size, "size": size, "text": ""}
    assert board.get(f"/grid_searches/{gs}/4/output?offset={size + 5}").json() == beyond
    # One that is half written yet comes when it is whole.
    with (folder / "output.log").open("ab", buffering=0) as file:
        file.write("größe".encode()[:3])
        answer = board.get(f"/grid_searches/{gs}/4/output?offset={size}").json()
        assert answer == {"offset": size, "next_offset": size + 2, "size": size + 3, "text": "gr"}
        file.write("größe".encode()[3:])
        assert board.get(f"/grid_searches/{gs}/4/output?offset={size + 2}").json()["text"] == "öße"


# --- checkpoints ---


def test_a_checkpoint_comes_file_by_file(board: Board, gs: str) -> None:
    checkpoint, list_ = f"/checkpoints/{gs}/3/1", f"/checkpoint_list/{gs}/3"
    for name, data in FILES.items():
        assert board.upload(checkpoint, name, data).status == 200
        assert board.get(list_).json() == []
        assert [board.get(path).status for path in (checkpoint, f"{checkpoint}/{name}")] == [404, 404]
    assert board.get(f"/grid_searches/{gs}/experiments").json()[0]["last_checkpoint_id"] == -1
    assert board.upload(f"{checkpoint}/manifest.json", "manifest.json", manifest(FILES)).status == 200
    listed = [{"experiment_id": 3, "epoch": 1, "checkpoints": sorted([*FILES, "manifest.json"])}]
    assert board.get(list_).json() == listed
    assert board.get(f"{list_}/1").json() == listed
    assert board.get(f"{list_}/2").json() == []
    assert board.get(checkpoint).body == manifest(FILES)
    for name, data in FILES.items():
        answer = board.get(f"{checkpoint}/{name}")
        assert (answer.status, answer.body) == (200, data)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert "there is: lr_scheduler.json, model.safetensors" in board.get(f"{checkpoint}/nothing").message
    assert not list((board.storage / gs).rglob(".*"))


def test_a_manifest_that_does_not_fit_commits_nothing(board: Board, gs: str) -> None:
    checkpoint = f"/checkpoints/{gs}/1/1"
    board.upload(checkpoint, "model.safetensors", b"one")
    other = {"model.safetensors": b"two"}
    wrong = {
        "another digest": manifest(other),
        "a file that was not sent": manifest({"model.safetensors": b"one", "optimizer.safetensors": b""}),
        "another epoch": manifest({"model.safetensors": b"one"}, epoch=2),
        "changed": manifest({"model.safetensors": b"one"}).replace(b'"batch":0', b'"batch":1'),
        "no manifest": b"[]",
    }
    for what, content in wrong.items():
        answer = board.upload(checkpoint, "manifest.json", content)
        assert answer.status == 409, what
        assert "the manifest does not fit" in answer.message
        assert board.get(f"/checkpoint_list/{gs}/1").json() == []
    upload(board, checkpoint, other)
    assert board.get(f"{checkpoint}/model.safetensors").body == b"two"


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/etc/passwd", "../../event_storage.log", "../1", "sub/x", "", ".", "..", "a\0b"]
)
def test_a_manifest_can_name_only_what_was_sent(board: Board, gs: str, name: str) -> None:
    """What other files hold, and even whether they are there, is nobody's business."""
    deliver(board, batch(1, grid_search_id=gs), gs)
    target = board.storage / gs / "1" / "x" / name if "\0" not in name else Path("/dev/null")
    data = target.read_bytes() if target.is_file() else b""
    answer = board.upload(f"/checkpoints/{gs}/1/1", "manifest.json", manifest({name: data}))
    assert answer.status in (400, 409)
    assert "No such file" not in answer.message
    assert "sha256" not in answer.message
    assert board.get(f"/checkpoint_list/{gs}/1").json() == []


def test_a_checkpoint_may_be_sent_again(board: Board, gs: str) -> None:
    checkpoint = f"/checkpoints/{gs}/1/1"
    for files in (FILES, FILES, {"model.safetensors": b"better"}):
        upload(board, checkpoint, files)
        (listed,) = board.get(f"/checkpoint_list/{gs}/1").json()
        assert listed["checkpoints"] == sorted([*files, "manifest.json"])
    assert board.get(f"{checkpoint}/model.safetensors").body == b"better"


def test_what_a_crash_left_is_not_in_the_way(board: Board, gs: str) -> None:
    """Of a deletion and of an upload that were not finished."""
    folder = board.storage / gs / "1"
    for left in (".gone-1", ".upload-1"):
        (folder / left).mkdir(parents=True)
        (folder / left / "file").write_bytes(b"x")
    for _ in range(2):
        upload(board, f"/checkpoints/{gs}/1/1", FILES)
    assert board.request("DELETE", f"/checkpoints/{gs}/1/1").status == 200
    assert board.get(f"/checkpoint_list/{gs}/1").json() == []


DATA = FILES["model.safetensors"]
ETAG = f'"{hashlib.sha256(DATA).hexdigest()}"'


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        ({"If-None-Match": ETAG}, 304, b""),
        ({"If-None-Match": f'"x", {ETAG}'}, 304, b""),
        ({"If-None-Match": f"W/{ETAG}"}, 304, b""),
        ({"If-None-Match": "*"}, 304, b""),
        ({"If-None-Match": '"other"'}, 200, DATA),
        ({"Range": "bytes=0-0"}, 206, DATA[:1]),
        ({"Range": "bytes=10-19"}, 206, DATA[10:20]),
        ({"Range": "bytes=6990-"}, 206, DATA[6990:]),
        ({"Range": "bytes=6990-99999999"}, 206, DATA[6990:]),
        ({"Range": "bytes=-5"}, 206, DATA[-5:]),
        ({"Range": "bytes=-99999"}, 206, DATA),
        ({"Range": "bytes=7000-"}, 416, b""),
        ({"Range": "bytes=-0"}, 416, b""),
        ({"Range": "bytes=x"}, 416, b""),
        ({"Range": "lines=1-2"}, 200, DATA),
        ({"Range": "bytes=0-1,5-6"}, 200, DATA),
        ({"Range": "bytes=10-19", "If-Range": ETAG}, 206, DATA[10:20]),
        ({"Range": "bytes=10-19", "If-Range": '"other"'}, 200, DATA),
        ({"Range": "bytes=10-19", "If-Range": f"W/{ETAG}"}, 200, DATA),
        ({"Range": "bytes=10-19", "If-None-Match": ETAG}, 304, b""),
    ],
)
def test_parts_of_a_file(board: Board, headers: dict[str, str], status: int, part: bytes) -> None:
    path = "/checkpoints/ranges/1/1"
    if board.get(f"{path}/model.safetensors").status == 404:
        upload(board, path, FILES)
    answer = board.request("GET", f"{path}/model.safetensors", headers=headers)
    assert answer.status == status
    if status == 416:
        assert "7000 bytes" in answer.message
        return
    assert answer.body == part
    assert answer.headers["etag"] == ETAG
    assert answer.headers["accept-ranges"] == "bytes"
    if status == 206:
        start = DATA.index(part) if len(part) > 7 else int(answer.headers["content-range"].split()[1].split("-")[0])
        assert DATA[start : start + len(part)] == part
        assert answer.headers["content-range"].endswith("/7000")
        assert len(part) == int(answer.headers["content-length"])


SIZE = 200 << 20


def test_large_files_pass_through(board: Board, gs: str) -> None:
    """In both directions, without being held in memory."""
    block = random.Random(1).randbytes(1 << 20)
    digest = hashlib.sha256(block * (SIZE >> 20)).hexdigest()
    head, tail = form("model.safetensors", b"|")[0].split(b"|")
    length = {"Content-Length": str(len(head) + SIZE + len(tail)), "Content-Type": form("", b"")[1]}

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(SIZE >> 20):
            yield block
        yield tail

    checkpoint = f"/checkpoints/{gs}/1/1"
    upload(board, f"/checkpoints/{gs}/1/2", FILES, 2)
    board.forget_peak()
    before = board.memory()
    assert board.request("POST", checkpoint, pieces(), length).json()["sha256"] == digest
    whole = Manifest(epoch=1, batch=0, files=[CheckpointFile("model.safetensors", SIZE, digest)], delete=[])
    assert board.upload(checkpoint, "manifest.json", whole.sealed()).status == 200

    connection = HTTPConnection("127.0.0.1", board.port)
    connection.request("GET", f"{checkpoint}/model.safetensors", headers={"Authorization": f"Bearer {board.token}"})
    answer, received = connection.getresponse(), hashlib.sha256()
    while piece := answer.read(1 << 20):
        received.update(piece)
    connection.close()
    assert received.hexdigest() == digest
    assert board.memory("VmHWM") - before < 32 << 20
    assert board.request("DELETE", checkpoint).status == 200


def test_an_upload_that_breaks_off_leaves_no_file(board: Board, gs: str) -> None:
    head = form("model.safetensors", b"")[0].partition(b"\r\n--cut--")[0]
    request = (
        f"POST /checkpoints/{gs}/1/1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {board.token}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=cut\r\nContent-Length: {{}}\r\n\r\n"
    )
    board.raw(request.format(10_000_000).encode() + head + b"x" * 1_000_000, seconds=0.5)  # hangs up in the middle
    incomplete = head + b"x" * 1000  # the length fits, the end of the form is missing
    assert board.raw(request.format(len(incomplete)).encode() + incomplete, 5).startswith(b"HTTP/1.1 400 ")
    folder = board.storage / gs
    wait_until(lambda: not [path for path in folder.rglob("*") if path.is_file()], "the files to go")
    upload(board, f"/checkpoints/{gs}/1/1", FILES)


def test_deleting_is_an_event(board: Board, gs: str) -> None:
    saved(board, gs)
    checkpoint = f"/checkpoints/{gs}/1/1"
    upload(board, checkpoint, FILES)
    answer = board.request("DELETE", checkpoint)
    assert (answer.status, answer.json()) == (200, {"experiment_id": 1, "epoch": 1})
    for path in (checkpoint, f"{checkpoint}/model.safetensors"):
        assert board.get(path).status == 404
    assert board.request("DELETE", checkpoint).status == 404
    assert board.get(f"/checkpoint_list/{gs}/1").json() == []
    wait_until(lambda: deletions(board, gs) == 1, "the event")
    event = json.loads(board.lines(gs)[-1])
    assert event["event_type"] == "checkpoint"
    assert event["payload"] == {"grid_search_id": gs, "experiment_id": 1, "epoch": 1, "action": "DELETED"}
    wait_until(lambda: not list((board.storage / gs / "spool").iterdir()), "the spool to go")


def test_deleting_while_another_writes_the_log(board: Board, gs: str) -> None:
    """The event waits in a spool for whoever opens the log next."""
    saved(board, gs)
    upload(board, f"/checkpoints/{gs}/1/1", FILES)
    hub = Hub(board.log(gs))
    assert board.request("DELETE", f"/checkpoints/{gs}/1/1").status == 200
    assert board.get(f"/checkpoint_list/{gs}/1").json() == []
    hub.close()
    assert deletions(board, gs) == 0
    (spool,) = (board.storage / gs / "spool").iterdir()
    assert "-board-" in spool.name
    deliver(board, batch(1, "later", gs), gs)
    wait_until(lambda: deletions(board, gs) == 1, "the event")
    assert len(board.lines(gs)) == 3
    wait_until(lambda: not spool.exists(), "the spool to go")


def test_only_checkpoints_are_deleted(board: Board, gs: str) -> None:
    deliver(board, batch(1, grid_search_id=gs), gs)
    folder = board.storage / gs / "1"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "thesis.tex").write_text("all of it")
    (folder / "2").write_text("a file")
    for path in (f"{gs}/1/1", f"{gs}/1/2", f"{gs}/1/3", "nobody/1/1"):
        assert board.request("DELETE", f"/checkpoints/{path}").status == 404, path
    for path in (f"{gs}/1", f"{gs}", f"{gs}/1/1/thesis.tex"):
        assert board.request("DELETE", f"/checkpoints/{path}").status in (404, 405), path
    assert (folder / "1" / "thesis.tex").exists()
    assert (folder / "2").exists()
    assert len(board.lines(gs)) == 1


# --- what is refused ---

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=cut"}
CONFIG, EXPERIMENT, CHECKPOINT = "/grid_searches/refused/run_config", "/grid_searches/refused/5/experiment_config", "/checkpoints/refused/1/1"  # fmt: skip
REFUSED: list[tuple[str, str, Any, dict[str, str], int, str]] = [
    ("GET", "/nowhere", None, {}, 404, ""),
    ("GET", "/grid_searches/", None, {}, 404, ""),
    ("GET", "/grid_searches/unknown/experiments", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/events", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/snapshot", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/snapshot?at=5&scores=summary", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/summary", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/series", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/timeline", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/experiments/1", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/events?type=warning", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/refused/summary", None, {}, 404, "there is no grid search"),
    ("GET", "/grid_searches/unknown/run_config", None, {}, 404, "'unknown'"),
    ("GET", "/grid_searches/unknown/1/output", None, {}, 404, "'unknown'"),
    ("GET", "/checkpoint_list/unknown/1", None, {}, 404, "'unknown'"),
    ("GET", "/checkpoints/unknown/1/1", None, {}, 404, "'unknown'"),
    ("GET", "/system-info/unknown/1", None, {}, 404, "'unknown'"),
    ("GET", "/model-card/unknown/1", None, {}, 404, "'unknown'"),
    ("GET", "/model-card/refused/1", None, {}, 404, "there is no grid search"),
    ("GET", "/model-card/refused/one", None, {}, 400, "expected digits"),
    ("GET", "/system-info/refused/1", None, {}, 404, "system_info.json"),
    ("GET", "/grid_searches/refused/run_config", None, {}, 404, "run_config.yml"),
    ("GET", "/grid_searches/refused/run_config.json", None, {}, 404, "there is: grid_search_config, run_config, "),
    ("GET", "/grid_searches/refused/event_storage.log", None, {}, 404, "there is: grid_search_config, run_config, "),
    ("GET", "/grid_searches/refused/1/nothing", None, {}, 404, "there is: experiment_config, system_info"),
    ("GET", "/grid_searches/refused/x/output", None, {}, 400, "'x' is no number; expected digits"),
    ("GET", "/grid_searches/refused/1/output?offset=-1", None, {}, 400, "offset: expected one number from 0"),
    ("GET", "/grid_searches/refused/events?after=x", None, {}, 400, "after: expected one number from 0"),
    ("GET", "/grid_searches/refused/events?after=1&after=2", None, {}, 400, "after: expected one number"),
    ("GET", "/grid_searches/refused/events?limit=0", None, {}, 400, "limit: expected one number from 1 to 10000"),
    ("GET", "/grid_searches/refused/events?limit=10001", None, {}, 400, "limit: expected one number from 1 to 10000"),
    ("GET", "/grid_searches/refused/events?after=1&before=2", None, {}, 400, "expected `after` or `before`, not both"),
    ("GET", "/grid_searches/refused/events?before=x", None, {}, 400, "before: expected one number from 0"),
    ("GET", "/grid_searches/refused/events?experiment=-1", None, {}, 400, "experiment: expected one number from 0"),
    ("GET", f"/grid_searches/refused/events?{'type=a&' * 51}", None, {}, 400, "type: expected up to 50, not 51"),
    ("GET", "/grid_searches/refused/snapshot?at=-1", None, {}, 400, "at: expected one number from 0"),
    ("GET", "/grid_searches/refused/snapshot?scores=few", None, {}, 400, "scores: expected one of all, summary, not 'few'"),
    ("GET", "/grid_searches/refused/snapshot?scores=all&scores=all", None, {}, 400, "scores: expected one word, not 2"),
    ("GET", "/grid_searches/refused/series?experiments=", None, {}, 400, "experiments: expected numbers and ranges such as 1-50,52"),
    ("GET", "/grid_searches/refused/series?experiments=1,", None, {}, 400, "not '1,'"),
    ("GET", "/grid_searches/refused/series?experiments=1-2-3", None, {}, 400, "not '1-2-3'"),
    ("GET", f"/grid_searches/refused/series?experiments={'1,' * 2000}1", None, {}, 400, "experiments: expected"),
    ("GET", "/grid_searches/refused/series?points=9", None, {}, 400, "points: expected one number from 10 to 100000"),
    ("GET", "/grid_searches/refused/timeline?points=100001", None, {}, 400, "points: expected one number from 10 to 100000"),
    ("GET", "/grid_searches/refused/experiments/x", None, {}, 400, "'x' is no number"),
    ("GET", "/grid_searches/refused/experiments/1?at=x", None, {}, 400, "at: expected one number from 0"),
    ("GET", "/grid_searches/.hidden/summary", None, {}, 400, "expected up to 64 letters, digits"),
    ("GET", "/grid_searches/.hidden/events", None, {}, 400, "expected up to 64 letters, digits"),
    ("GET", f"/grid_searches/{'x' * 65}/events", None, {}, 400, "expected up to 64 letters, digits"),
    ("GET", "/checkpoint_list/refused/01", None, {}, 400, "expected digits"),
    ("GET", f"/checkpoint_list/refused/{2**63}", None, {}, 400, "expected digits"),
    ("GET", "/checkpoint_list/refused/1/-1", None, {}, 400, "expected digits"),
    ("GET", "/checkpoints/refused/1/1", None, {}, 404, "no checkpoint of epoch 1"),
    ("GET", "/checkpoints/refused/1/1/model.safetensors", None, {}, 404, "no checkpoint of epoch 1"),
    ("PUT", CONFIG, "a: 1", {"Content-Type": "text/yaml"}, 415, "expected application/json"),
    ("PUT", CONFIG, b"{}", {}, 415, "expected application/json"),
    ("PUT", CONFIG, b"{", JSON, 400, 'expected {"file_format": "YAML", "content": ...}'),
    ("PUT", CONFIG, b"\xff", JSON, 400, 'expected {"file_format": "YAML", "content": ...}'),
    ("PUT", CONFIG, [], {}, 400, 'expected {"file_format": "YAML", "content": ...}'),
    ("PUT", CONFIG, {"file_format": "YAML"}, {}, 400, "missing required field `content`"),
    ("PUT", CONFIG, {"file_format": "YAML", "content": "", "x": 1}, {}, 400, "unknown field `x`"),
    ("PUT", CONFIG, {"file_format": "JSON", "content": ""}, {}, 400, "file_format: expected 'YAML', not 'JSON'"),
    ("PUT", CONFIG, {"file_format": "YAML", "content": [1]}, {}, 400, "content: expected the text of the file"),
    ("PUT", CONFIG, {"file_format": "YAML", "content": "x" * (4 << 20)}, {}, 413, "up to 4,194,304 bytes"),
    ("PUT", CONFIG, b"[" * 100_000, JSON, 400, 'expected {"file_format": "YAML", "content": ...}'),
    ("PUT", CONFIG, b"nonsense", {**JSON, "Content-Encoding": "gzip"}, 400, ""),
    ("PUT", "/grid_searches/refused/secrets", {"file_format": "YAML", "content": ""}, {}, 404, "there is: "),
    ("PUT", "/grid_searches/refused/events", {"file_format": "YAML", "content": ""}, {}, 404, "there is: "),
    ("PUT", "/grid_searches/a b/run_config".replace(" ", "%20"), {"file_format": "YAML", "content": ""}, {}, 400, "is no id"),
    ("PUT", EXPERIMENT, {"file_format": "YAML", "content": ""}, {}, 400, "file_format: expected 'JSON', not 'YAML'"),
    ("PUT", EXPERIMENT, {"file_format": "JSON", "content": "{"}, {}, 400, "content: this is not JSON"),
    ("PUT", EXPERIMENT, {"file_format": "JSON", "content": "[" * 100_000}, {}, 400, "content: this is not JSON"),
    ("PUT", EXPERIMENT, b'{"file_format":"JSON","content":{"a":1e999}}', JSON, 400, "expected {"),
    ("PUT", EXPERIMENT, b'{"file_format":"JSON","content":{"a":"\\ud800"}}', JSON, 400, "expected {"),
    ("POST", CHECKPOINT, b"x", {}, 415, "expected multipart/form-data with a field `checkpoint_file`"),
    ("POST", CHECKPOINT, b"x", {"Content-Type": "multipart/form-data"}, 400, "this is not multipart"),
    ("POST", CHECKPOINT, b"x", {"Content-Type": f"multipart/form-data; boundary={'x' * 99}"}, 400, "not multipart"),
    ("POST", CHECKPOINT, b"x", FORM, 400, "multipart"),
    ("POST", CHECKPOINT, b"", FORM, 400, "multipart"),
    ("POST", CHECKPOINT, form("a", b"x", "file")[0], FORM, 400, "one field `checkpoint_file` with a file name"),
    ("POST", CHECKPOINT, form("", b"x")[0], FORM, 400, "one field `checkpoint_file` with a file name"),
    ("POST", CHECKPOINT, form(".hidden", b"x")[0], FORM, 400, "is no name of a file"),
    ("POST", CHECKPOINT, form("a/b", b"x")[0], FORM, 400, "is no name of a file"),
    ("POST", CHECKPOINT, form("../../../run_config.yml", b"x")[0], FORM, 400, "is no name of a file"),
    ("POST", CHECKPOINT, form("x" * 129, b"x")[0], FORM, 400, "is no name of a file"),
    ("POST", f"{CHECKPOINT}/a", form("b", b"x")[0], FORM, 400, "called 'b' in its header and 'a' in the path"),
    ("POST", CHECKPOINT, form("a", b"x")[0][:-9], FORM, 400, "multipart"),
    ("POST", CHECKPOINT, form("a", b"x")[0], {**FORM, "Content-Encoding": "deflate"}, 400, ""),
    ("DELETE", CHECKPOINT, None, {}, 404, "no checkpoint of epoch 1"),
    ("DELETE", "/checkpoints/refused/1/x", None, {}, 400, "expected digits"),
    ("POST", "/grid_searches", {}, {}, 405, "Method Not Allowed"),
    ("DELETE", "/grid_searches/refused/run_config", None, {}, 405, "Method Not Allowed"),
    ("DELETE", "/checkpoints/refused/1/1/manifest.json", None, {}, 405, "Method Not Allowed"),
    ("PATCH", CHECKPOINT, None, {}, 405, "Method Not Allowed"),
    ("OPTIONS", CHECKPOINT, None, {}, 405, "Method Not Allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "words"), REFUSED)
def test_what_is_refused(
    board: Board, gs: str, method: str, path: str, body: Any, headers: dict[str, str], status: int, words: str
) -> None:
    """With the right status and a message that says what was expected; and no file is left of it."""
    (board.storage / gs).mkdir(parents=True)
    answer = board.request(method, path.replace("refused", gs), body, headers)
    assert answer.status == status, answer
    assert words in answer.message
    assert answer.headers["content-type"].startswith("application/json")
    assert ("allow" in answer.headers) == (status == 405)
    assert not [path for path in (board.storage / gs).rglob("*") if path.is_file()]
    assert not list(board.storage.glob("unknown"))


def test_head_is_for_the_page(board: Board) -> None:
    page = board.request("HEAD", "/", token=False)
    assert (page.status, page.body) == (200, b"")
    rest = board.request("HEAD", "/grid_searches")
    assert (rest.status, rest.body, rest.headers["allow"]) == (405, b"", "GET")


def test_more_requests_than_one_address_may_make() -> None:
    """Nobody waits for ten thousand requests here: the limit itself is small."""
    guard = Guard(Settings(event_storage=Path(), limits=Limits(requests=0.001)), 1)

    class Request:
        remote = "192.0.2.1"

    with pytest.raises(Exception, match=r"more than 0\.001 requests a second") as refused:
        guard.check_rate(Request())  # type: ignore[arg-type]
    assert refused.value.status == 429  # type: ignore[attr-defined]


# --- the description ---


def test_every_route_is_described(board: Board, tmp_path: Path) -> None:
    async def routes() -> set[tuple[str, str]]:
        settings = Settings(event_storage=tmp_path)
        app = application(settings, Guard(settings, 1), Rest(Store(tmp_path), settings.limits), None)
        return {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}

    files = {f"/{path.name}" for path in (Path(application.__code__.co_filename).parent / "static").iterdir()}
    served = {(m, p) for m, p in asyncio.run(routes()) if p not in {"/", *files}}
    document = board.request("GET", "/openapi.json", token=False).json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    undescribed = {("GET", "/openapi.json"), ("HEAD", "/openapi.json"), ("GET", "/endpoints.json"), ("HEAD", "/endpoints.json"), ("POST", "/session")}  # fmt: skip
    assert served - described == undescribed
    assert described <= served
    assert all(op["security"] == [{"token": []}] for item in document["paths"].values() for op in item.values())


@pytest.mark.parametrize("flags", [(), pytest.param(("--no-token",), marks=pytest.mark.long)])
def test_a_machine_reads_the_description(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """What it thinks of by itself is answered as described."""
    with Board(tmp_path, *flags) as board:
        deliver(board, batch(5))
        config = SchemathesisConfig.from_dict(
            {
                "seed": 1,
                "headers": {"Authorization": f"Bearer {board.token}"} if board.token else {},
                "generation": {"max-examples": 50, "no-shrink": True, "database": "none"},
                "phases": {"examples": {"fill-missing": True}, "stateful": {"enabled": False}},
                # `events` is a config_name to the router, which therefore allows to PUT it (and is then told: 404).
                "checks": {"allow_header_conformance": {"enabled": False}},
                "operations": [
                    # That the file has the name in the path, and that a text is JSON, a schema cannot say.
                    {"include-method": ["PUT", "POST"], "checks": {"positive_data_acceptance": {"enabled": False}}},
                    # Nor that of two parameters only one may be there.
                    {
                        "include-path": "/grid_searches/{gs}/events",
                        "checks": {"positive_data_acceptance": {"enabled": False}},
                    },
                ],
            }
        )
        schema = schemathesis.openapi.from_url(f"{board.url}/openapi.json", config=config)
        cases, failures, phases = 0, [], set()
        for event in from_schema(schema).execute():
            assert not isinstance(event, events.NonFatalError | events.FatalError), event
            if isinstance(event, events.ScenarioFinished):
                phases.add(event.phase.name)
                cases += len(event.recorder.cases)
                failures += [
                    f"{event.recorder.label}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                    for checks in event.recorder.checks.values()
                    for check in checks
                    if check.failure_info
                ]
        assert not failures, "\n\n".join(failures)
        assert phases >= {"EXAMPLES", "COVERAGE", "FUZZING"}
        assert cases > 1000
        assert "Traceback" not in board.stderr()
        assert len(board.lines()) == 5

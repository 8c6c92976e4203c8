"""One HTML file of a grid search: what is in it, how large it is, and what is left out of one that would be too large."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ml_board import one_file, packing
from ml_board.projections import rows
from mlgym.errors import InputError
from mlgym.record.events import (
    CheckpointEvent,
    CheckpointFile,
    JobOutputEvent,
    decode_lines,
    seal,
)
from mlgym.record.fold import State, fold_all
from mlgym.record.hub import Hub
from mlgym.record.log import Log, read_state
from mlgym.specs import RunPaths
from tests.conftest import ROOT
from tests.ml_board.boards import Board
from tests.ml_board.golden import write as golden
from tests.ml_board.page.logs import Script, sweep
from tests.ml_board.page.test_hostile import hostile


class Parts(HTMLParser):
    """The elements of a file with their text, as a parser of HTML finds them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", {}, ""))

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


class Content:
    """What is in a file: lines of events, answers by path, and what it says of itself."""

    def __init__(self, path: Path) -> None:
        self.parts = Parts(path.read_text())
        ((_, data),) = [one for one in self.parts.of("script") if one[0].get("id") == "data"]
        lines = gzip.decompress(base64.b64decode(data, validate=True)).splitlines(keepends=True)
        self.events = [line for line in lines if line.startswith(b"{")]
        answers = [json.loads(line) for line in lines if line.startswith(b"[")]
        self.answers: dict[str, str] = dict(answers)
        assert len(self.answers) == len(answers)
        self.about: dict[str, Any] = json.loads(self.answers.pop(""))
        assert lines[: len(self.events)] == self.events
        assert answers[-1][0] == ""

    @property
    def state(self) -> State:
        return fold_all(State(), decode_lines(b"".join(self.events)))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("storage")
    sweep("sweep").write(storage)
    hostile("hostile").write(storage)
    (storage / "golden").mkdir()
    (storage / "golden" / "event_storage.log").write_bytes((golden.HERE / "log.jsonl").read_bytes())
    return storage


def written(storage: Path, name: str, target: Path, **more: Any) -> Content:
    packed = one_file.write_file(RunPaths(storage, name), target / f"{name}.html", **more)
    content = Content(target / f"{name}.html")
    assert packed.size == (target / f"{name}.html").stat().st_size
    assert packed.events == len(content.events) == content.about["events"]
    return content


@pytest.mark.parametrize("name", ["sweep", "golden", "hostile"])
def test_a_small_log_goes_in_whole(storage: Path, tmp_path: Path, name: str) -> None:
    """All but what jobs have printed: the same fold, byte for byte the same events."""
    content = written(storage, name, tmp_path)
    log = (storage / name / "event_storage.log").read_bytes()
    events = decode_lines(log)
    wanted = [
        re.sub(rb',"crc":"[0-9a-f]{8}"}$', b"}", line)
        for line, event in zip(log.splitlines(), events, strict=True)
        if not isinstance(event, JobOutputEvent) or event.seq == events[-1].seq
    ]
    assert [line.rstrip(b"\n") for line in content.events] == wanted
    assert rows(content.state) == rows(read_state(storage / name / "event_storage.log"))
    assert content.about["head"] == content.about["of"] == events[-1].seq
    assert content.about["thinned"] is None


@pytest.mark.parametrize("name", ["sweep", "golden", "hostile"])
def test_of_the_largest_last_and_best_are_the_same(storage: Path, name: str) -> None:
    log = Log.load(storage / name / "event_storage.log")
    for keep, *_, thinned in packing._ways(log, log.state, 0, 0):
        bodies = [keep(body, event) for body, event in packing._lines(log, log.state.seq)]
        found, whole = (
            rows(state)
            for state in (
                fold_all(State(), decode_lines(b"".join(body + b"}\n" for body in bodies if body))),
                log.state,
            )
        )
        for one in (*found["experiments"], *whole["experiments"]):
            if thinned:  # what was replaced, and so what is counted, is not there
                one.pop("changes")
                for score in one["scores"].values():
                    score.pop("count")
        assert found == whole, thinned


@pytest.mark.parametrize("name", ["sweep", "golden", "hostile"])
def test_of_a_larger_one_the_end_is_the_same(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Progress that was overtaken is left out, and digests of what is gone; no score, no state of a job."""
    monkeypatch.setattr(packing, "WHOLE", 100)
    content = written(storage, name, tmp_path)
    assert rows(content.state) == rows(read_state(storage / name / "event_storage.log"))
    assert len(content.about["left_out"]) == 4
    assert content.about["thinned"] is None


def test_what_lies_beside_the_log(storage: Path, tmp_path: Path) -> None:
    content = written(storage, "sweep", tmp_path)
    folder = storage / "sweep"
    for experiment in range(12):
        config = (folder / f"{experiment}/experiment_config.json").read_text()
        assert content.answers[f"/grid_searches/sweep/{experiment}/experiment_config"] == config
        assert json.loads(content.answers[f"/system-info/sweep/{experiment}"])["host"] == "node-1"
        output = json.loads(content.answers[f"/grid_searches/sweep/{experiment}/output"])
        assert output == {"size": 16, "text": "epoch 1\nepoch 2\n"}
    assert content.answers["/grid_searches/sweep/run_config"] == (folder / "run_config.yml").read_text()
    assert "/grid_searches/sweep/validation_strategy_config" not in content.answers
    (listed,) = json.loads(content.answers["/grid_searches"])
    assert (listed["grid_search_id"], listed["status"], listed["running"]) == ("sweep", "STARTED", False)
    assert "/grid_searches/sweep/report" not in content.answers  # without folds there is nothing to ask for


def test_of_output_the_end(storage: Path, tmp_path: Path) -> None:
    script = sweep("long-output")
    text = "".join(f"line {number} é\n" for number in range(5000))
    script.file("3/output.log", text.encode())
    script.write(tmp_path)
    found = json.loads(written(tmp_path, "long-output", tmp_path).answers["/grid_searches/long-output/3/output"])
    assert found["size"] == len(text.encode())
    assert text.endswith(found["text"])
    assert found["text"].startswith("line ")
    assert 16_000 < len(found["text"].encode()) <= 16 << 10


def test_no_link_is_followed(tmp_path: Path) -> None:
    sweep("links").write(tmp_path)
    (tmp_path / "secret").write_text("secret words")
    folder = tmp_path / "links"
    (folder / "0" / "output.log").unlink()
    (folder / "0" / "output.log").symlink_to(tmp_path / "secret")
    (folder / "run_config.yml").unlink()
    (folder / "run_config.yml").symlink_to(tmp_path / "secret")
    content = written(tmp_path, "links", tmp_path)
    assert "/grid_searches/links/0/output" not in content.answers
    assert "secret words" not in json.dumps(content.answers)


def test_its_policy_lets_its_own_script_and_sheet_run_and_nothing_else(storage: Path, tmp_path: Path) -> None:
    parts = written(storage, "hostile", tmp_path).parts
    ((policy, _),) = [one for one in parts.of("meta") if one[0].get("http-equiv") == "Content-Security-Policy"]
    said = dict(part.strip().split(" ", 1) for part in str(policy["content"]).split(";"))
    ((_, sheet),) = parts.of("style")
    data, (kind, script) = parts.of("script")
    assert data[0] == {"type": "text/plain", "id": "data"}
    assert kind == {}
    for text, directive in ((script, "script-src"), (sheet, "style-src")):
        assert said[directive] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert {key: said[key] for key in said if not key.endswith("-src") or said[key] == "'none'"} == {
        "default-src": "'none'",
        "connect-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert re.fullmatch(r"[A-Za-z0-9+/]+=*", data[1])
    assert [name for name, attributes, _ in parts.found for key in attributes if key.startswith("on")] == []


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    sweep("damaged").write(tmp_path)
    log = tmp_path / "damaged" / "event_storage.log"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[20] = lines[20].replace(b'"seq":21', b'"seq":99')
    log.write_bytes(b"".join(lines))
    content = written(tmp_path, "damaged", tmp_path)
    assert len(content.events) == len(lines) - 1


# --- size ---


def write_large(storage: Path, name: str, experiments: int, epochs: int, progress: int) -> None:
    """Scores that do not pack, checkpoints that come and go, reports of progress."""
    chance = random.Random(1)
    script = Script(name)
    (storage / name).mkdir()
    hub = Hub(storage / name / "event_storage.log")
    splits = ("train", "val", "test")
    script.grid(num_experiments=experiments)
    for one in range(experiments):
        script.config(one, {"optimizer.lr": one, "model.width": 2**one}, epochs)
        script.job(one, "RUNNING")
    for epoch in range(epochs + 1):
        for one in range(experiments):
            script.wait(chance.random())
            for split in splits if epoch else ():
                for part in range(progress):
                    script.progress(one, epoch, 40 * (part + 1) // progress, split=split)
            tags = ("accuracy", "f1_macro", "cross_entropy_loss")
            script.scores(one, epoch, {f"{split}/{tag}": chance.random() for split in splits for tag in tags})
            files = [CheckpointFile(f"{part}.safetensors", 1000, chance.randbytes(32).hex()) for part in "abcd"]
            for action, of in (("SAVED", epoch), ("DELETED", epoch - 1)):
                if of >= 0:
                    change: Any = {"action": action, "files": files if action == "SAVED" else []}
                    script.put(CheckpointEvent(grid_search_id=name, experiment_id=one, epoch=of, **change))
        assert not hub.accept(script.drain(), name).rejected
    for one in range(experiments):
        script.job(one, "DONE")
    script.grid("FINISHED")
    assert not hub.accept(script.drain(), name).rejected
    hub.close()


def page_of(name: str) -> int:
    """Bytes of a file without data."""
    return len(b"".join(one_file._frame(name)))


@pytest.mark.long
def test_a_hundred_experiments_of_a_hundred_epochs(tmp_path: Path) -> None:
    """Below 5 MB, with every score; of progress the last of each pass, so all is as it was in the end."""
    write_large(tmp_path, "large", 100, 100, 2)
    content = written(tmp_path, "large", tmp_path)
    assert (tmp_path / "large.html").stat().st_size < 5_000_000
    assert content.about["thinned"] is None
    assert content.about["events"] < content.about["of"]
    assert any("Progress within an epoch" in one for one in content.about["left_out"])
    state = read_state(tmp_path / "large" / "event_storage.log")
    assert rows(content.state) == rows(state)
    assert all(len(one.scores["val/accuracy"]) == 101 for one in content.state.experiments.values())


def test_what_is_too_large_is_thinned_and_says_so(tmp_path: Path) -> None:
    """Every first, last, smallest and largest score is there, where it was."""
    write_large(tmp_path, "thinned", 3, 200, 1)
    assert written(tmp_path, "thinned", tmp_path).about["thinned"] is None  # it needs not be
    limit = page_of("thinned") + 70_000
    content = written(tmp_path, "thinned", tmp_path, limit=limit, force=True)
    assert (tmp_path / "thinned.html").stat().st_size <= limit
    assert re.search(r"[\d,]+ of 5,427 in all", content.about["thinned"])
    assert content.about["left_out"].count(content.about["thinned"]) == 1
    whole = rows(read_state(tmp_path / "thinned" / "event_storage.log"))
    found = rows(content.state)
    for state in (whole, found):
        for experiment in state["experiments"]:
            for score in experiment["scores"].values():
                score.pop("count")
    assert found == whole
    for scores in content.state.experiments[0].scores.values():
        assert scores.epochs[0] == 0
        assert 10 <= len(scores) < 201


def test_what_cannot_be_small_enough_is_refused(storage: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sweep does not fit into"):
        one_file.write_file(RunPaths(storage, "sweep"), tmp_path / "sweep.html", limit=page_of("sweep") + 1500)
    assert list(tmp_path.iterdir()) == []


def test_answers_are_left_out_when_there_is_no_room(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(packing.OF_EXPERIMENTS, "/notes/{gs}/{exp}", lambda paths, state, one: "x" * (5 << 20))
    content = written(storage, "sweep", tmp_path)
    assert not any(path.startswith("/notes") for path in content.answers)
    assert "For want of room, 12 experiments are without what /notes/{gs}/{exp} answers." in content.about["left_out"]


# --- the command and the board ---


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ml_board.one_file", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command(storage: Path, tmp_path: Path) -> None:
    where = ("--event_storage_path", str(storage))
    ended = command("sweep", *where, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"sweep\.html: 0\.\d MB, 176 of 176 events\n", ended.stdout), ended.stdout
    before = (tmp_path / "sweep.html").read_bytes()
    ended = command("sweep", *where, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "ml_board.one_file: sweep.html is there already; --force replaces it\n"
    assert (tmp_path / "sweep.html").read_bytes() == before
    assert command("sweep", *where, "--force", cwd=tmp_path).returncode == 0
    ended = command("swep", *where, cwd=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "did you mean 'sweep'?" in ended.stderr
    ended = command("sweep", *where, "-o", "nowhere/x.html", cwd=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.html"]


def test_the_board_gives_it(board: Board, gs: str, tmp_path: Path) -> None:
    sweep(gs).write(board.storage)
    answer = board.get(f"/grid_searches/{gs}/export")
    assert answer.status == 200
    assert answer.headers["content-disposition"] == f'attachment; filename="{gs}.html"'
    assert answer.headers["content-type"].startswith("text/html")
    (tmp_path / "got.html").write_bytes(answer.body)
    assert rows(Content(tmp_path / "got.html").state) == rows(read_state(board.log(gs)))
    answer = board.get("/grid_searches/nothing/export")
    assert (answer.status, answer.message) == (404, "there is no grid search 'nothing'")


def test_a_log_that_was_made_by_hand(tmp_path: Path) -> None:
    """Lines that are no events that a hub would take: none stops it, none becomes two."""
    (tmp_path / "odd").mkdir()
    bodies = [
        b'{"seq":1,"event_type":"grid_search","payload":{"grid_search_id":"odd","status":"STARTED"}',
        b'{"seq":2,"event_type":"evaluation_result","payload":{"experiment_id":{}}',
        b'{"seq":3,"event_type":"x","payload":"\xff\xfe\xe2\x80\xa8"',
        b'{"seq":4,"no":"type"',
    ]
    log = tmp_path / "odd" / "event_storage.log"
    log.write_bytes(b"".join(seal(body) for body in bodies))
    content = written(tmp_path, "odd", tmp_path)
    assert content.events == [body + b"}\n" for body in bodies]


def test_mlgym_export(storage: Path, tmp_path: Path) -> None:
    """The same as a format of `mlgym export`, with its own name in what it says."""

    def export(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from mlgym.cli import main; sys.exit(main())"
        where = ["--event_storage_path", str(storage)]
        return subprocess.run(
            [sys.executable, "-c", program, "export", "sweep", *where, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert export("-o", "search.html").returncode == 0
    assert len(Content(tmp_path / "search.html").events) == 176
    ended = export("-o", "search.html")
    assert (ended.returncode, ended.stderr) == (2, "mlgym: search.html is there already; --force replaces it\n")
    assert export("-o", "search.html", "--force").returncode == 0

"""Reading logs: what is folded once is saved, and what is saved is never believed when it does not fit."""

from __future__ import annotations

import json
import math
import os
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.cli import main
from mlgym.errors import DamagedError, InputError, StorageError
from mlgym.record import hub as hub_module
from mlgym.record import log as log_module
from mlgym.record.events import EvaluationResult, LossScore, MetricScore, decode_lines, number
from mlgym.record.fold import State, fold_all
from mlgym.record.hub import Hub
from mlgym.record.journal import Block, read_blocks
from mlgym.record.log import Log, grid_search, read_state
from mlgym.record.scores import Scores
from mlgym.record.spool import Spool
from mlgym.record.transfer import import_log


def spooled(folder: Path, count: int, source: str = "s") -> bytes:
    path = folder / f"{source}.jsonl"
    with Spool(path, source) as spool:
        for i in range(count):
            scores = [MetricScore("a", "val", number(math.nan if i % 7 == 0 else i / 3))]
            losses = [LossScore("l", "train", 1 / (i + 1))]
            spool.emit(
                EvaluationResult(
                    grid_search_id="g",
                    experiment_id=i % 5,
                    epoch=i // 5,
                    metric_scores=scores,
                    loss_scores=losses,
                )
            )
    return path.read_bytes()


def written(folder: Path, count: int) -> Path:
    """A log with `count` events."""
    folder.mkdir(exist_ok=True)
    hub = Hub(folder / "event_storage.log")
    hub.accept(spooled(folder, count))
    hub.close()
    return folder / "event_storage.log"


@pytest.fixture
def saves_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_WORTH_SAVING", 1)


def snapshot_of(log: Path) -> Path:
    return log.with_name("event_storage.snapshot")


def plainly(log: Path) -> State:
    return fold_all(State(), decode_lines(log.read_bytes()))


@pytest.mark.usefixtures("saves_always")
def test_what_is_saved_is_what_would_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(tmp_path, 300)
    first = Log.load(log)
    assert snapshot_of(log).exists()
    blocks: list[int] = []

    def counted(path: Path, offset: int = 0) -> Iterator[Block]:
        blocks.append(offset)
        return read_blocks(path, offset)

    monkeypatch.setattr(log_module, "read_blocks", counted)
    again = Log.load(log)
    assert blocks == [log.stat().st_size]  # nothing is read a second time
    assert again.state == first.state == plainly(log)
    assert (again.last, again.end) == (first.last, first.end)
    assert again.lines(0, 1000) == first.lines(0, 1000) == log.read_bytes().splitlines()


def _truncated(snapshot: Path) -> None:
    snapshot.write_bytes(snapshot.read_bytes()[:-100])


def _flipped(snapshot: Path) -> None:
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)


def _of_another_log(snapshot: Path) -> None:
    other = written(snapshot.parent / "other", 10)
    Log.load(other)
    snapshot.write_bytes(snapshot_of(other).read_bytes())


def _unreadable(snapshot: Path) -> None:
    snapshot.unlink()
    snapshot.mkdir()


@pytest.mark.usefixtures("saves_always")
@pytest.mark.parametrize(
    "damage", [Path.unlink, _truncated, _flipped, _of_another_log, _unreadable, lambda p: p.write_bytes(b"")]
)
def test_what_does_not_fit_is_not_believed(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    log = written(tmp_path, 300)
    damage(snapshot_of(log))
    assert Log.load(log).state == plainly(log)


@pytest.mark.usefixtures("saves_always")
def test_what_other_code_has_folded_is_folded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(tmp_path, 30)
    hub = Hub(log)
    hub.state.status = "nonsense"
    hub.log._save()
    hub.close()
    assert Log.load(log).state.status == "nonsense"
    monkeypatch.setattr(log_module, "_code", lambda: 1)
    assert Log.load(log).state == plainly(log)


@pytest.mark.usefixtures("saves_always")
def test_a_log_that_was_cut_back_or_changed_is_read_anew(tmp_path: Path) -> None:
    log = written(tmp_path, 300)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:200]))
    assert Log.load(log).state.seq == 200
    snapshot = snapshot_of(log).read_bytes()
    log.write_bytes(b"".join(lines[:199]) + lines[250])  # as long, but another end
    snapshot_of(log).write_bytes(snapshot)
    assert Log.load(log).state == plainly(log)


@settings(max_examples=60, deadline=None)
@given(after=st.integers(0, 420), limit=st.integers(1, 500), max_bytes=st.integers(1, 200_000))
def test_lines_in_pages(tmp_path_factory: pytest.TempPathFactory, after: int, limit: int, max_bytes: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "pages"
    path = folder / "event_storage.log"
    log = Log.load(path if path.exists() else written(folder, 400))
    all_ = path.read_bytes().splitlines()
    found = log.lines(after, limit, max_bytes)
    assert found == all_[after : after + len(found)]
    assert len(found) <= limit
    assert len(found) == 1 or sum(map(len, found)) <= max_bytes
    if after < 400:
        assert found
        more = all_[after + len(found)] if after + len(found) < 400 else b"x" * (max_bytes + 1)
        assert len(found) == limit or sum(map(len, found)) + len(more) > max_bytes


def test_a_log_is_followed_while_it_is_written(tmp_path: Path) -> None:
    """Batches, single events and torn writes: whatever is whole is seen, once, and can be found again."""
    lines = spooled(tmp_path, 2000)
    hub = Hub(tmp_path / "log")
    hub.accept(lines[: lines.index(b"\n") + 1])
    follower = Log.load(tmp_path / "log")
    seen = [event.seq for event in decode_lines(b"".join(line + b"\n" for line in follower.lines(0, 10)))]
    rng = random.Random(0)
    whole = lines.splitlines(keepends=True)[1:]
    while whole:
        piece, whole = whole[: (count := rng.choice([1, 1, 3, 200]))], whole[count:]
        hub.accept(b"".join(piece))
        if rng.random() < 0.5:
            follower.refresh(lambda events: seen.extend(event.seq for event in events))
    assert follower.refresh(lambda events: seen.extend(event.seq for event in events)) or seen[-1] == 2000
    assert not follower.refresh()
    assert seen == list(range(1, 2001))
    assert follower.state == hub.state
    assert follower.last == hub.log.last
    for _ in range(50):
        after = rng.randrange(2000)
        assert follower.lines(after, 3) == (tmp_path / "log").read_bytes().splitlines()[after : after + 3]
    hub.close()
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"seq":2001,"torn')
    assert not follower.refresh()


@pytest.mark.usefixtures("saves_always")
def test_what_saving_costs_is_linear_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is known is written each time, so it must be written ever less often: by the hub and by who follows."""
    monkeypatch.setattr(hub_module, "_SAVE_EVERY", 1)
    lines = spooled(tmp_path, 2000).splitlines(keepends=True)
    hub = Hub(tmp_path / "event_storage.log")
    follower = Log(tmp_path / "event_storage.log")
    saved: list[set[int]] = [set(), set()]
    for start in range(0, 2000, 10):
        hub.accept(b"".join(lines[start : start + 10]))
        follower.refresh()
        for log, found in zip((hub.log, follower), saved, strict=True):
            found.add(log._saved)
    hub.close()
    for found in saved:
        assert sum(found) < 12 * 2000  # that of every batch would be 100 * 2000
        assert max(found) > 2000 * 10 // 11 - 10  # and little has to be folded again


def test_a_log_that_is_replaced_is_said_to_be(tmp_path: Path) -> None:
    log = Log.load(written(tmp_path, 10))
    content = log.path.read_bytes().replace(b"s", b"t")
    log.path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        log.refresh()
    (tmp_path / "new").write_bytes(content + b"more")
    os.rename(tmp_path / "new", log.path)  # noqa: PTH104
    with pytest.raises(StorageError, match="has been replaced"):
        log.refresh()


@pytest.mark.usefixtures("saves_always")
def test_what_an_earlier_version_has_saved_is_not_even_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(tmp_path, 30)
    content = msgspec.msgpack.encode([1, 2, 3, {}, [b"", b""], {"experiments": {0: {"scores": {"val/a": [b"", b""]}}}}])
    snapshot_of(log).write_bytes(b"%08x" % zlib.crc32(content) + content)
    assert Log.load(log).state == plainly(log)


@settings(max_examples=40, deadline=None)
@given(after=st.integers(0, 2100), until=st.integers(0, 2100), piece=st.sampled_from([100, 5000, 70_000, 1 << 20]))
def test_events_of_any_stretch(tmp_path_factory: pytest.TempPathFactory, after: int, until: int, piece: int) -> None:
    """Decoded forwards, and as lines in both directions, whatever is read at once."""
    folder = tmp_path_factory.getbasetemp() / "stretches"
    path = folder / "event_storage.log"
    log = Log.load(path if path.exists() else written(folder, 2000))
    content = path.read_bytes()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(log_module, "_PIECE", piece)
        found = [event.seq for events in log.events(after, until) for event in events]
        assert found == list(range(after + 1, min(until, 2000) + 1))
        forwards = b"".join(log.forwards(after))
        backwards = b"".join(reversed(list(log.backwards(until))))
    assert content.endswith(forwards)
    assert content.startswith(backwards)
    if after < 2000:
        assert decode_lines(forwards)[0].seq <= after + 1
    if 1 < until <= 2000:
        assert decode_lines(backwards)[-1].seq >= until - 1


def test_a_stretch_with_damage(tmp_path: Path) -> None:
    path = written(tmp_path, 300)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line.replace(b'"n"', b'"m"') if i % 7 == 3 else line for i, line in enumerate(lines)))
    log = Log.load(path)
    good = [i + 1 for i in range(300) if i % 7 != 3]
    assert [event.seq for events in log.events(0, 300) for event in events] == good
    assert [event.seq for events in log.events(17, 40) for event in events] == [seq for seq in good if 17 < seq <= 40]


# --- scores ---

_points = st.lists(st.tuples(st.integers(0, 30), st.floats()))


@settings(max_examples=100, deadline=None)
@given(_points)
def test_scores_are_a_mapping(points: list[tuple[int, float]]) -> None:
    scores, expected, seqs = Scores(), dict[int, float](), dict[int, int]()
    for seq, (epoch, value) in enumerate(points):
        before = scores.put(epoch, value, seq)
        assert repr(before) == repr(expected.get(epoch))
        expected[epoch], seqs[epoch] = value, seq
    assert list(scores) == sorted(expected)
    assert repr(dict(scores)) == repr(dict(sorted(expected.items())))
    assert scores.seqs.tolist() == [seq for _, seq in sorted(seqs.items())]
    assert Scores.unpacked(scores.packed()).packed() == scores.packed()
    assert 31 not in scores


def test_when_a_score_came_does_not_make_it_another() -> None:
    one, other = Scores(), Scores()
    one.put(1, 0.5, 7)
    other.put(1, 0.25, 8)
    assert one != other
    other.put(1, 0.5, 9)
    assert one == other


@settings(max_examples=200, deadline=None)
@given(points=_points, more=_points)
def test_extremes(points: list[tuple[int, float]], more: list[tuple[int, float]]) -> None:
    """Of finite scores, the earliest of equal ones; also when they are asked for in between."""
    scores = Scores()
    for part in (points, more):
        for epoch, value in part:
            scores.put(epoch, value)
        values = scores.values_.tolist()
        finite = [at for at, value in enumerate(values) if math.isfinite(value)]
        assert scores.lowest() == min(finite, key=lambda at: (values[at], at), default=None)
        assert scores.highest() == min(finite, key=lambda at: (-values[at], at), default=None)


@settings(max_examples=200, deadline=None)
@given(points=st.lists(st.tuples(st.integers(0, 9), st.floats(), st.integers(0, 2))), then=st.integers(0, 40))
def test_scores_know_their_past(points: list[tuple[int, float, int]], then: int) -> None:
    """Also where an epoch was run again or came late; several scores may come with one event."""
    seq, scores, expected = 0, Scores(), Scores()
    for epoch, value, step in points:
        seq += step
        scores.put(epoch, value, seq)
        if seq <= then:
            expected.put(epoch, value, seq)
    assert repr(scores.as_of(then).packed()) == repr(expected.packed())


# --- old logs -----------------------------------------------------------------------------------------------

OLD = [
    {
        "event_type": "evaluation_result",
        "creation_ts": 1_640_000_000_000_000 + i,
        "payload": {
            "grid_search_id": "2021-12-20--10-00-00",
            "experiment_id": 10**25 if i == 3 else 1,
            "epoch": i,
            "metric_scores": [{"metric": "F1", "split": "val", "score": math.nan if i == 2 else i / 10}],
            "loss_scores": [],
        },
    }
    for i in range(10)
]


def old_log(folder: Path) -> Path:
    """With a merged line, a cut one, and one that is no JSON."""
    lines = [json.dumps(event) for event in OLD]
    path = folder / "2021-12-20--10-00-00" / "event_storage.log"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([*lines[:4], lines[4] + lines[5], "garbage", lines[6][:30] + lines[7], *lines[8:]]))
    return path


def test_old_logs_are_read_as_they_are(tmp_path: Path) -> None:
    path = old_log(tmp_path)
    before = path.read_bytes()
    log = Log.load(path)
    assert log.old
    events = [json.loads(line, parse_constant=pytest.fail) for line in log.lines(0, 100)]
    assert [event["payload"]["epoch"] for event in events] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert [event["seq"] for event in events] == list(range(1, 10))
    assert events[2]["payload"]["metric_scores"][0]["score"] == "NaN"
    assert log.state.damaged > 0
    assert set(log.state.experiments) == {1, 10**25}
    assert log.lines(7, 1) == [log.lines(0, 100)[7]]
    with path.open("a") as file:  # the earlier tool is still at it
        file.write("\n" + json.dumps(OLD[0] | {"payload": OLD[0]["payload"] | {"epoch": 77}}) + "\n")  # type: ignore[operator]
    assert log.refresh()
    assert json.loads(log.lines(9, 10)[-1])["payload"]["epoch"] == 77
    assert path.read_bytes().startswith(before)
    with pytest.raises(DamagedError, match="mlgym import"):
        Hub(path)


def test_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = old_log(tmp_path / "old")
    storage = tmp_path / "storage"
    paths, converter = import_log(path, storage)
    assert paths.grid_search_id == "2021-12-20--10-00-00"
    assert converter.seq == 9
    state = read_state(paths.log)
    assert state.experiments[1].scores["val/F1"][9] == 0.9
    assert state.damaged == 0
    hub = Hub(paths.log)  # it is a log like any other
    assert hub.accept(spooled(tmp_path, 1)).durable == {"s": 1}
    hub.close()
    with pytest.raises(InputError, match="is there already"):
        import_log(path, storage)
    with pytest.raises(InputError, match="no log of the old format"):
        import_log(paths.log, storage, "again")
    with pytest.raises(StorageError, match="No such file"):
        import_log(tmp_path / "nothing", storage, "again")
    assert sorted(entry.name for entry in storage.iterdir()) == [paths.grid_search_id]
    assert main(["import", str(path), "--event_storage_path", str(storage), "--grid_search_id", "other"]) == 0
    printed = capsys.readouterr().out
    assert "9 events are now in" in printed
    assert "no events, such as" in printed
    assert grid_search(storage, "other").log.exists()
    assert main(["import", str(path), "--event_storage_path", str(storage), "--grid_search_id", "../out"]) == 2

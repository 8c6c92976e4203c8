"""Events, spools, the hub and the forwarder together: in order, exactly once, whatever is sent how often."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.errors import StorageError
from mlgym.record.events import (
    EVENT_TYPES,
    CheckpointEvent,
    CheckpointFile,
    EvaluationResult,
    ExperimentConfig,
    ExperimentStatus,
    GridSearch,
    JobState,
    JobStatus,
    MetricScore,
    NondeterminismDetected,
    Payload,
    Unknown,
    Warned,
    decode,
    decode_lines,
    number,
    plain,
    seal,
)
from mlgym.record.fold import KINDS, Attempt, Kept, Notice, State, fold_all
from mlgym.record.forwarder import MAX_BYTES, MAX_EVENTS, Forwarder, batches
from mlgym.record.hub import Acknowledgement, Hub
from mlgym.record.journal import Journal, read_blocks
from mlgym.record.log import packed, read_state, unpacked
from mlgym.record.spool import Spool, new_source
from tests.conftest import ROOT


def spooled(folder: Path, source: str, count: int, attempt: int = 1) -> bytes:
    """The bytes of a closed spool with `count` events."""
    path = folder / f"{source}.jsonl"
    with Spool(path, source) as spool:
        for i in range(count):
            spool.emit(
                EvaluationResult(
                    grid_search_id="g", experiment_id=1, epoch=i, metric_scores=[MetricScore("a", "val", i / 2)]
                ),
                attempt,
            )
    return path.read_bytes()


def log_events(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_line_is_what_the_contract_says(tmp_path: Path) -> None:
    before = time.time_ns() // 1_000_000
    line = spooled(tmp_path, "s", 1)
    event = json.loads(line)
    assert list(event) == ["event_type", "creation_ts", "source", "n", "attempt", "payload", "crc"]
    assert event["event_type"] == "evaluation_result"
    assert before <= event["creation_ts"] <= time.time_ns() // 1_000_000
    assert (event["source"], event["n"], event["attempt"]) == ("s", 1, 1)
    assert event["crc"] == f"{zlib.crc32(line[: line.rindex(b',')]):08x}"

    hub = Hub(tmp_path / "log")
    hub.accept(line)
    hub.close()
    numbered = (tmp_path / "log").read_bytes()
    found = json.loads(numbered)
    assert next(iter(found)) == "seq"
    assert found == {"seq": 1, **event, "crc": f"{zlib.crc32(numbered[: numbered.rindex(b',')]):08x}"}


def test_strict_json() -> None:
    assert [number(x) for x in (1.5, float("nan"), float("inf"), float("-inf"))] == [
        1.5,
        "NaN",
        "Infinity",
        "-Infinity",
    ]
    assert plain({1: (float("nan"), [None]), "a": True}) == {"1": ["NaN", [None]], "a": True}


def test_unknown_events_are_kept(tmp_path: Path) -> None:
    foreign = [
        b'{"event_type":"dream","source":"s","n":1,"payload":{"x":1}',
        b'{"event_type":"job_status","source":"s","n":2,"payload":"nonsense","extra":[1]',
        b'{"source":"s","n":3,"creation_ts":"yesterday"',
    ]
    hub = Hub(tmp_path / "log")
    assert hub.accept(b"".join(map(seal, foreign))).durable == {"s": 3}
    hub.close()
    events = log_events(tmp_path / "log")
    assert [event["seq"] for event in events] == [1, 2, 3]
    assert events[1]["extra"] == [1]
    assert [type(event) for event in decode_lines((tmp_path / "log").read_bytes())] == [Unknown] * 3
    assert read_state(tmp_path / "log").seq == 3


def test_hub_refuses_what_is_no_event(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "log")
    good = spooled(tmp_path, "s", 1)
    damaged = good.replace(b'"epoch":0', b'"epoch":9')
    nonsense = seal(b'{"source":7,"n":1') + b"not json\n" + seal(b"[1") + damaged
    assert hub.accept(nonsense) == Acknowledgement({}, {}, 4)
    assert hub.accept(nonsense + good).durable == {"s": 1}
    assert hub.state.seq == 1
    hub.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), counts=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_exactly_once_however_it_is_sent(
    data: st.DataObject, counts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Resending, overlapping and skipping ahead, with restarts of the hub, never lose, double or reorder."""
    folder = tmp_path_factory.mktemp("hub")
    lines = {f"s{i}": spooled(folder, f"s{i}", count).splitlines(keepends=True) for i, count in enumerate(counts)}
    hub = Hub(folder / "log")
    acknowledged = dict.fromkeys(lines, 0)
    for _ in range(data.draw(st.integers(1, 25))):
        source = data.draw(st.sampled_from(sorted(lines)))
        start = data.draw(st.integers(0, len(lines[source]) - 1))
        stop = data.draw(st.integers(start + 1, len(lines[source])))
        answer = hub.accept(b"".join(lines[source][start:stop]))
        if start > acknowledged[source]:
            assert answer.expected == {source: acknowledged[source] + 1}
        else:
            acknowledged[source] = max(acknowledged[source], stop)
            assert not answer.expected
        assert answer.durable == {source: acknowledged[source]}
        if data.draw(st.booleans()):
            state = hub.state
            hub.close()
            hub = Hub(folder / "log")
            assert hub.state == state
    hub.close()
    events = log_events(folder / "log")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    for source, count in acknowledged.items():
        assert [event["n"] for event in events if event["source"] == source] == list(range(1, count + 1))


def test_hub_repairs_a_torn_log(tmp_path: Path) -> None:
    lines = spooled(tmp_path, "s", 5)
    hub = Hub(tmp_path / "log")
    hub.accept(lines)
    hub.close()
    whole = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(whole[:-20])
    hub = Hub(tmp_path / "log")
    assert hub.accept(lines).durable == {"s": 5}
    hub.close()
    assert (tmp_path / "log").read_bytes() == whole


def test_subscribers_see_each_event_once(tmp_path: Path) -> None:
    lines = spooled(tmp_path, "s", 5)
    seen: list[int] = []
    hub = Hub(tmp_path / "log")
    hub.subscribe(lambda events, state: seen.extend(event.seq for event in events))
    hub.accept(lines)
    hub.accept(lines)
    hub.close()
    assert seen == [1, 2, 3, 4, 5]


def test_a_subscriber_that_fails_cannot_stop_the_log(tmp_path: Path) -> None:
    def fail(events: object, state: object) -> None:
        raise BrokenPipeError

    hub = Hub(tmp_path / "log")
    hub.subscribe(fail)
    assert hub.accept(spooled(tmp_path, "s", 2)).durable == {"s": 2}
    assert hub.accept(spooled(tmp_path, "t", 2)).durable == {"t": 2}
    hub.close()
    assert len(log_events(tmp_path / "log")) == 4


def test_what_is_no_json_does_not_get_into_the_log(tmp_path: Path) -> None:
    """A line can have a fitting crc, a source and a number, and still be malformed behind them."""
    bad = seal(b'{"source":"s","n":1,"event_type":"x","payload":"\xff"')
    hub = Hub(tmp_path / "log")
    good = spooled(tmp_path, "t", 2)
    assert hub.accept(bad + good) == Acknowledgement({"t": 2}, {}, 1)
    hub.close()
    assert [event["source"] for event in log_events(tmp_path / "log")] == ["t", "t"]


# --- forwarder ----------------------------------------------------------------------------------------------


def test_forwarder_delivers_what_appears_and_clears_up(tmp_path: Path) -> None:
    spools = tmp_path / "spool"
    spools.mkdir()
    hub = Hub(tmp_path / "log")
    forwarder = Forwarder(spools, hub.accept, interval=0.01)
    spooled(spools, "early", 700)
    with Spool(spools / "late.jsonl", "late") as spool:
        for i in range(5):
            spool.emit(GridSearch(grid_search_id="g", status="STARTED", num_experiments=i))
        while hub.state.seq < 705:  # an open spool is delivered as well, and stays
            time.sleep(0.01)
        assert (spools / "late.jsonl").exists()
        spool.emit(GridSearch(grid_search_id="g", status="FINISHED"))
    assert forwarder.close()
    assert not any(spools.iterdir())
    assert hub.state.seq == 706
    assert hub.state.status == "FINISHED"
    hub.close()


def test_forwarder_keeps_what_it_cannot_deliver(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spools = tmp_path / "spool"
    spools.mkdir()
    lines = spooled(spools, "s", 3)

    def refuse(batch: bytes) -> Acknowledgement:
        raise StorageError("the disk is full")

    assert not Forwarder(spools, refuse).close()
    assert (spools / "s.jsonl").read_bytes() == lines
    assert capfd.readouterr().err.count("the disk is full") == 1


def test_forwarder_rewinds_to_what_the_hub_lacks(tmp_path: Path) -> None:
    """The hub forgets everything once (as one restored from a backup does) and gets it again."""
    spools = tmp_path / "spool"
    spools.mkdir()
    hubs = [Hub(tmp_path / "first")]

    def newest(batch: bytes) -> Acknowledgement:
        return hubs[-1].accept(batch)

    forwarder = Forwarder(spools, newest, interval=0.01)
    with Spool(spools / "s.jsonl", "s") as spool:
        for status in ("STARTED", "FINISHED"):
            spool.emit(GridSearch(grid_search_id="g", status=status))
            while hubs[-1].state.seq < (1 if status == "STARTED" else 2):
                time.sleep(0.01)
            if status == "STARTED":
                hubs.append(Hub(tmp_path / "second"))
    assert forwarder.close()
    assert [event["n"] for event in log_events(tmp_path / "second")] == [1, 2]
    for hub in hubs:
        hub.close()


def test_a_folder_that_vanishes_is_not_called_delivered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spools = tmp_path / "spool"
    spools.mkdir()
    hub = Hub(tmp_path / "log")
    forwarder = Forwarder(spools, hub.accept, interval=0.01)
    spools.rmdir()
    assert not forwarder.close()
    assert "events are waiting on disk" in capfd.readouterr().err
    hub.close()


def test_one_broken_spool_does_not_hold_up_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spools = tmp_path / "spool"
    spools.mkdir()
    spooled(spools, "a", 3)
    damaged = (spools / "a.jsonl").read_bytes().replace(b'"epoch":1', b'"epoch":7')
    (spools / "a.jsonl").write_bytes(damaged)
    spooled(spools, "b", 3)
    hub = Hub(tmp_path / "log")
    assert not Forwarder(spools, hub.accept).close()
    hub.close()
    assert (spools / "a.damaged").read_bytes() == damaged
    assert [event["source"] for event in log_events(tmp_path / "log")].count("b") == 3
    assert "a.jsonl stays undelivered" in capfd.readouterr().err
    hub = Hub(tmp_path / "log")
    assert Forwarder(spools, hub.accept).close()  # it is not in the way of the next run
    hub.close()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3000), max_size=1200))
def test_batches_are_bounded_and_complete(sizes: list[int]) -> None:
    lines = [b"z" * size + b"\n" for size in [*sizes, MAX_BYTES + 5, 3]]
    cut = batches(b"".join(lines))
    assert b"".join(cut) == b"".join(lines)
    for batch in cut:
        count = batch.count(b"\n")
        assert count <= MAX_EVENTS
        assert len(batch) <= MAX_BYTES or count == 1


EMITTER = """
import sys
from pathlib import Path
from mlgym.record.events import GridSearch
from mlgym.record.spool import Spool
with Spool(Path(sys.argv[1]), "victim") as spool:
    n = 0
    while True:
        spool.emit(GridSearch(grid_search_id="g", status="STARTED", num_experiments=n))
        n += 1
        if n % 50 == 0:
            sys.stdout.write(f"{n}\\n"); sys.stdout.flush()
"""


@pytest.mark.parametrize("round_", [*range(5), *(pytest.param(i, marks=pytest.mark.long) for i in range(5, 100))])
def test_what_was_emitted_survives_sigkill(tmp_path: Path, round_: int) -> None:
    """Every event whose `emit` returned before the kill is in the log, and the forwarder tidies up after it."""
    spools = tmp_path / "spool"
    spools.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", EMITTER, str(spools / "victim.jsonl")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    hub = Hub(tmp_path / "log")
    forwarder = Forwarder(spools, hub.accept, interval=0.01)
    for _ in range(1 + round_ % 7):
        process.stdout.readline()
    time.sleep(0.001 * (round_ % 11))
    process.send_signal(signal.SIGKILL)
    emitted = int(([*process.stdout] or ["50"])[-1])
    process.wait()
    process.stdout.close()
    assert forwarder.close()
    hub.close()
    numbers = [event["n"] for event in log_events(tmp_path / "log")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= emitted
    assert not any(spools.iterdir())


# --- fold ---------------------------------------------------------------------------------------------------

_status = st.sampled_from(["INIT", "RUNNING", "DONE", "FAILED", "LOST", "STOPPED"])
_payloads = st.one_of(
    st.builds(GridSearch, grid_search_id=st.just("g"), status=st.sampled_from(["STARTED", "FINISHED", "INTERRUPTED"])),
    st.builds(
        JobStatus, grid_search_id=st.just("g"), job_id=st.just("j"), experiment_id=st.integers(0, 2), status=_status
    ),
    st.builds(
        ExperimentStatus,
        grid_search_id=st.just("g"),
        experiment_id=st.integers(0, 2),
        status=st.sampled_from(["train", "evaluation"]),
        num_epochs=st.just(3),
        current_epoch=st.integers(0, 3),
        current_split=st.sampled_from([None, "val"]),
        num_batches=st.integers(0, 5),
    ),
    st.builds(
        ExperimentConfig,
        grid_search_id=st.just("g"),
        experiment_id=st.integers(0, 2),
        swept=st.dictionaries(
            st.text(max_size=3),
            st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False),  # what `packed` takes
            max_size=2,
        ),
    ),
    st.builds(
        CheckpointEvent,
        grid_search_id=st.just("g"),
        experiment_id=st.integers(0, 2),
        epoch=st.integers(0, 3),
        batch=st.integers(0, 1),
        action=st.sampled_from(["SAVED", "DELETED"]),
        files=st.just([CheckpointFile("model.safetensors", 7, "")]),
    ),
    st.builds(
        Warned, grid_search_id=st.just("g"), message=st.text(max_size=5), experiment_id=st.none() | st.integers(0, 2)
    ),
    st.builds(
        NondeterminismDetected,
        grid_search_id=st.just("g"),
        experiment_id=st.integers(0, 2),
        epoch=st.integers(0, 3),
    ),
    st.builds(
        EvaluationResult,
        grid_search_id=st.just("g"),
        experiment_id=st.integers(0, 2),
        epoch=st.integers(0, 3),
        metric_scores=st.lists(st.builds(MetricScore, st.just("a"), st.just("val"), st.floats(0, 1)), max_size=1),
    ),
)


@settings(deadline=None, max_examples=60)
@given(payloads=st.lists(st.tuples(_payloads, st.integers(1, 3)), max_size=25), cut=st.integers(0, 25))
def test_fold_is_a_fold(
    payloads: list[tuple[GridSearch, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """fold(a + b) = fold(fold(a), b), and an experiment's state never goes back."""
    folder = tmp_path_factory.mktemp("fold")
    hub = Hub(folder / "log")
    for i, (payload, attempt) in enumerate(payloads):
        path = folder / f"s{i}.jsonl"
        with Spool(path, f"s{i}") as spool:
            spool.emit(payload, attempt)
        hub.accept(path.read_bytes())
    hub.close()
    events = [event for block in read_blocks(folder / "log") for event in decode_lines(block.lines)]
    whole = fold_all(State(), events)
    assert fold_all(fold_all(State(), events[:cut]), events[cut:]) == whole == hub.state
    assert unpacked(packed(fold_all(State(), events[:cut]))) == fold_all(State(), events[:cut])
    assert packed(fold_all(unpacked(packed(fold_all(State(), events[:cut]))), events[cut:])) == packed(whole)

    rank = {"INIT": 0, "RUNNING": 1, "LOST": 2}
    state, before = State(), {0: (0, 0), 1: (0, 0), 2: (0, 0)}
    for event in events:
        fold_all(state, [event])
        for experiment in state.experiments.values():
            now = (experiment.attempt, rank.get(experiment.status, 3))
            assert now >= before[experiment.experiment_id]
            before[experiment.experiment_id] = now


def folded(*payloads: Payload | tuple[Payload, int]) -> State:
    """The state after these payloads as events 1, 2, 3, ..., which come a second after each other."""
    lines = []
    for seq, entry in enumerate(payloads, 1):
        payload, attempt = entry if isinstance(entry, tuple) else (entry, 1)
        name, body = EVENT_TYPES[type(payload)], msgspec.json.encode(payload)
        head = b'{"seq":%d,"event_type":"%b","creation_ts":%d,"attempt":%d,"payload":%b'
        lines.append(seal(head % (seq, name, 1000 * seq, attempt, body)))
    return fold_all(State(), decode_lines(b"".join(lines)))


def job(status: JobState, **more: Any) -> JobStatus:
    return JobStatus(grid_search_id="g", job_id="1", experiment_id=1, status=status, **more)


def test_every_attempt_is_kept() -> None:
    state = folded(
        job("INIT"),
        job("RUNNING", starting_time=5, device="cpu", host="a"),
        (job("INIT", start_epoch=2), 2),
        (job("RUNNING", start_epoch=9, host="b"), 2),
        job("FAILED", error="late news"),
        (job("FAILED", error="ValueError", stacktrace="...", finishing_time=9), 2),
        (job("DONE"), 2),
        (job("RUNNING"), 7),
    )
    experiment = state.experiments[1]
    assert experiment.attempts == [
        Attempt(1, status="RUNNING", starting_time=5, device="cpu", host="a", seq=2),
        Attempt(2, 2, "FAILED", finishing_time=9, host="b", error="ValueError", stacktrace="...", seq=6),
        Attempt(7, status="RUNNING", seq=8),
    ]
    assert (experiment.attempt, experiment.status, experiment.status_seq) == (7, "RUNNING", 8)
    assert experiment.device == "cpu"  # as before: the last that was said of any attempt
    assert [KINDS[kind] for kind in state.marks.kinds] == ["running", "running", "failed", "running"]


def test_what_carries_which_number() -> None:
    score = [MetricScore("a", "val", 0.5)]
    state = folded(
        GridSearch(grid_search_id="g", status="STARTED"),
        ExperimentConfig(grid_search_id="g", experiment_id=1),
        ExperimentStatus(
            grid_search_id="g", experiment_id=1, status="train", num_epochs=2, current_epoch=1, num_batches=40
        ),
        ExperimentStatus(
            grid_search_id="g", experiment_id=1, status="evaluation", num_epochs=2, current_epoch=1, num_batches=5
        ),
        EvaluationResult(grid_search_id="g", experiment_id=1, epoch=1, metric_scores=score),
        EvaluationResult(grid_search_id="g", experiment_id=1, epoch=2),
        EvaluationResult(grid_search_id="g", experiment_id=1, epoch=2, metric_scores=score),
        CheckpointEvent(
            grid_search_id="g", experiment_id=1, epoch=1, action="SAVED", files=[CheckpointFile("m", 7, "")]
        ),
        CheckpointEvent(grid_search_id="g", experiment_id=1, epoch=1, batch=3, action="SAVED"),
        Warned(grid_search_id="g", message="m"),
        NondeterminismDetected(grid_search_id="g", experiment_id=1, epoch=1),
        GridSearch(grid_search_id="g", status="INTERRUPTED"),
    )
    experiment = state.experiments[1]
    assert (experiment.config_seq, experiment.progress.seq, experiment.train_batches) == (2, 4, 40)
    assert experiment.scores["val/a"].seqs.tolist() == [5, 7]
    assert (experiment.evaluations.seqs.tolist(), experiment.evaluations.times.tolist()) == (
        [5, 6, 7],
        [5000, 6000, 7000],
    )
    assert experiment.checkpoints == {1: Kept(8, [("m", 7)])}
    assert state.warnings == [Notice(10, 10_000, "m", None)]
    marks = state.marks
    assert list(
        zip(marks.seqs, marks.times, (KINDS[kind] for kind in marks.kinds), marks.experiments, strict=True)
    ) == [
        (1, 1000, "started", -1),
        (8, 8000, "checkpoint", 1),
        (10, 10_000, "warning", -1),
        (11, 11_000, "nondeterminism", 1),
        (12, 12_000, "ended", -1),
    ]
    assert state.time == 12_000


def test_the_last_warnings_are_kept() -> None:
    state = folded(*(Warned(grid_search_id="g", message=str(i)) for i in range(250)))
    assert [warning.message for warning in state.warnings] == [str(i) for i in range(50, 250)]
    assert len(state.marks.seqs) == 250


def test_times_and_ids_that_fit_no_column() -> None:
    """JSON's integers have no end; what cannot be kept as it is must not stop the fold."""
    lines = [
        b'{"seq":%d,"event_type":"%b","creation_ts":%d,"payload":{"grid_search_id":"g","experiment_id":%d,%b}'
        % (seq, name, 10**30, 10**25, rest)
        for seq, (name, rest) in enumerate([(b"evaluation_result", b'"epoch":1'), (b"warning", b'"message":"m"')], 1)
    ]
    state = fold_all(State(), decode_lines(b"".join(map(seal, lines))))
    assert state.experiments[10**25].evaluations.times.tolist() == [0]
    assert (state.marks.times.tolist(), state.marks.experiments.tolist()) == ([0], [-1])
    assert (state.time, state.warnings) == (10**30, [Notice(2, 10**30, "m", 10**25)])
    with pytest.raises(OverflowError):
        packed(state)


def test_nan_scores_come_back(tmp_path: Path) -> None:
    with Spool(tmp_path / "s.jsonl", "s") as spool:
        spool.emit(
            EvaluationResult(
                grid_search_id="g",
                experiment_id=0,
                epoch=1,
                metric_scores=[MetricScore("a", "val", number(float("nan")))],
            )
        )
    state = fold_all(State(), [decode((tmp_path / "s.jsonl").read_bytes())])
    assert str(state.experiments[0].scores["val/a"][1]) == "nan"


def test_sources_differ() -> None:
    assert new_source("job-1-1") != new_source("job-1-1")


def test_a_spool_cannot_be_opened_twice(tmp_path: Path) -> None:
    with Spool(tmp_path / "s.jsonl", "s"), pytest.raises(StorageError):
        Journal(tmp_path / "s.jsonl")

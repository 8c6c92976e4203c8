"""Old logs come over whole: whatever can be read is, in its order, in the words that the fold knows."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.record import old_log
from mlgym.record.events import (
    EvaluationResultEvent,
    Event,
    ExperimentConfigEvent,
    ExperimentStatusEvent,
    GridSearchEvent,
    JobStatusEvent,
    Unknown,
    WarnedEvent,
    body_of,
    decode,
    plain,
    seal,
)
from mlgym.record.fold import State, fold_all
from mlgym.record.old_log import MAX_DEPTH, MAX_UNREAD, Converter, Unread, is_old

MICROSECONDS = 1_700_000_000_123_456


def old(event_type: str, **payload: Any) -> bytes:
    """A line as the earlier tool wrote it."""
    event = {"event_type": event_type, "creation_ts": MICROSECONDS, "payload": {"grid_search_id": "g", **payload}}
    return json.dumps(event).encode() + b"\n"


def job(status: str, experiment_id: Any = 0, **payload: Any) -> bytes:
    """As its pool wrote it: a time that has not come is -1."""
    return old(
        "job_status",
        **{
            "job_id": 7,
            "job_type": 1,
            "status": status,
            "experiment_id": experiment_id,
            "starting_time": -1,
            "finishing_time": -1,
            "device": "None",
            "error": None,
            "stacktrace": None,
            **payload,
        },
    )


def progress(experiment_id: Any = 0, **payload: Any) -> bytes:
    return old(
        "experiment_status",
        **{
            "experiment_id": experiment_id,
            "status": "train",
            "num_epochs": 3,
            "current_epoch": 1,
            "splits": ["train", "val"],
            "current_split": "train",
            "num_batches": 10,
            "current_batch": 5,
            **payload,
        },
    )


def scores(epoch: Any, score: Any, experiment_id: Any = 0) -> bytes:
    return old(
        "evaluation_result",
        experiment_id=experiment_id,
        epoch=epoch,
        metric_scores=[{"metric": "f1", "split": "val", "score": score}],
        loss_scores=[{"loss": "bce", "split": "val", "score": 0.5}],
    )


def converted(data: bytes, converter: Converter | None = None) -> list[bytes]:
    """The new lines for a whole old log; each must be whole, sealed and strict JSON, and numbered in order."""
    converter = converter or Converter("old")
    before = converter.seq
    new = converter.feed(data) + converter.finish()
    lines = new.split(b"\n")
    assert lines.pop() == b""
    for seq, line in enumerate(lines, before + 1):
        assert body_of(line) is not None
        found = json.loads(line, parse_constant=pytest.fail)
        assert next(iter(found)) == "seq"
        assert (found["seq"], found["n"]) == (seq, seq)
        event = decode(line)
        assert event.seq == seq
        assert not isinstance(event, Unknown) or event.data is not None
    assert converter.seq == before + len(lines)
    return lines


def events(data: bytes) -> list[Event]:
    return [decode(line) for line in converted(data)]


def folded(data: bytes) -> State:
    return fold_all(State(), events(data))


def kinds(data: bytes, converter: Converter | None = None) -> str:
    """The types of the events found, in their order."""
    return " ".join(json.loads(line)["event_type"] for line in converted(data, converter))


# --- what an event says -------------------------------------------------------------------------------------


def test_a_line_is_what_the_contract_says() -> None:
    (line,) = converted(scores(1, 0.25), Converter("old-log", seq=41))
    event = json.loads(line)
    assert list(event) == ["seq", "event_type", "creation_ts", "source", "n", "attempt", "payload", "crc"]
    assert {key: event[key] for key in event if key not in ("payload", "crc")} == {
        "seq": 42,
        "event_type": "evaluation_result",
        "creation_ts": 1_700_000_000_123,
        "source": "old-log",
        "n": 42,
        "attempt": 1,
    }
    assert event["payload"] == json.loads(scores(1, 0.25))["payload"]


def test_a_whole_log_folds_to_what_it_says() -> None:
    log = b"".join(
        [
            job("INIT", 0),
            old("experiment_config", experiment_id=0, job_id=7, config={"lr": float("nan"), "é": [1]}),
            job("INIT", 1),
            job("RUNNING", 0, starting_time=1_700_000_001.5, device="cuda:0"),
            scores(0, float("nan")),
            progress(0),
            progress(0, status="EVALUATING", current_epoch=1, current_split="val", current_batch=10),
            scores(1, 0.25),
            job("DONE", 0, starting_time=1_700_000_001.5, finishing_time=1_700_000_009.25, device="cuda:0"),
            job("RUNNING", 1, starting_time=1_700_000_002.5, device="cpu"),
            job("DONE", 1, starting_time=1_700_000_002.5, finishing_time=1_700_000_003.5, error="no", stacktrace="at"),
        ]
    )
    assert not [event for event in events(log) if isinstance(event, Unknown)]
    state = folded(log)
    assert state.seq == 11
    assert list(state.experiments) == [0, 1]
    first, second = state.experiments.values()
    assert (first.status, first.attempt, first.epochs_done, first.device) == ("DONE", 1, 1, "cuda:0")
    assert (first.starting_time, first.finishing_time) == (1_700_000_001_500, 1_700_000_009_250)
    assert (first.progress.phase, first.progress.split, first.progress.batch) == ("evaluation", "val", 10)
    assert math.isnan(first.scores["val/f1"][0])
    assert first.scores["val/f1"][1] == 0.25
    assert dict(first.scores["val/bce"]) == {0: 0.5, 1: 0.5}
    assert first.losses == {"val/bce"}
    assert (second.status, second.error, second.stacktrace) == ("FAILED", "no", "at")  # it called a crash DONE
    config = next(event for event in events(log) if isinstance(event, ExperimentConfigEvent))
    assert json.loads(bytes(config.payload.config)) == {"lr": "NaN", "é": [1]}
    assert config.payload.job_id == "7"
    assert folded(job("INIT")).experiments[0].device is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (old("grid_search", status="started", num_experiments="4", reason=None), GridSearchEvent),
        (old("experiment_config", experiment_id=1.0, job_id=None, config={}, seed=3.0), ExperimentConfigEvent),
        (job("done", "12", finishing_time="1700000000.5", num_threads=4.0), JobStatusEvent),
        (job("Running", -3, job_type="CALC", job_id=None, device=None, start_epoch=None), JobStatusEvent),
        (job("INIT", starting_time="yesterday", finishing_time=float("nan"), error=["a", 1]), JobStatusEvent),
        (progress("1", status="Training", num_epochs=3.0, current_epoch="2", splits=None), ExperimentStatusEvent),
        (progress(current_split=None, num_batches=None, current_batch=2.0), ExperimentStatusEvent),
        (old("evaluation_result", experiment_id=1, epoch="3.0", metric_scores=None), EvaluationResultEvent),
        (scores(3.0, None), EvaluationResultEvent),
        (old("warning", message="low on disk", experiment_id=None), WarnedEvent),
        (b'{"event_type":"job_status","payload":{"experiment_id":1,"status":"DONE"}}', JobStatusEvent),
        (b'{"event_type":"evaluation_result","payload":{"experiment_id":1,"epoch":2}}', EvaluationResultEvent),
    ],
)
def test_what_was_meant_is_understood(line: bytes, expected: type) -> None:
    assert [type(event) for event in events(line)] == [expected]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000.1234, 1_700_000_000_123),
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000_123_999, 1_700_000_000_123),
        ("1700000000123456", 1_700_000_000_123),
        *((nonsense, None) for nonsense in [-1, 0, None, True, "soon", math.inf, math.nan, 10**400, [1]]),
    ],
)
def test_times_become_ms(given: Any, expected: int | None) -> None:
    line = job("DONE", starting_time=given, finishing_time=given)
    line = line.replace(b'"creation_ts": %d' % MICROSECONDS, b'"creation_ts": ' + json.dumps(given).encode())
    (event,) = events(line)
    assert isinstance(event, JobStatusEvent)
    assert event.creation_ts == (expected or 0)
    assert (event.payload.starting_time, event.payload.finishing_time) == (expected, expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, 1.0),
        ("0.5", 0.5),
        (None, math.nan),
        ("nan", math.nan),
        (float("nan"), math.nan),
        (float("-inf"), -math.inf),
        (10**400, math.inf),
        (-(10**400), -math.inf),
    ],
)
def test_scores_become_numbers(given: Any, expected: float) -> None:
    found = folded(scores(1, given)).experiments[0].scores["val/f1"][1]
    assert found == expected or (math.isnan(found) and math.isnan(expected))


@pytest.mark.parametrize("experiment_id", [2**53 + 1, 2**64, -(2**70), 10**300])
def test_ids_have_any_size(experiment_id: int) -> None:
    log = job("INIT", experiment_id) + job("RUNNING", str(experiment_id)) + scores(1, float("nan"), experiment_id)
    state = folded(log)
    assert list(state.experiments) == [experiment_id]
    assert state.experiments[experiment_id].status == "RUNNING"
    assert state.experiments[experiment_id].epochs_done == 1


def test_a_job_that_goes_back_is_another_attempt() -> None:
    """A warm start runs what was killed or had failed again, and the log does not say so."""
    run = job("INIT") + job("RUNNING", starting_time=1000.0)
    again = job("INIT") + job("RUNNING", starting_time=2000.0)
    assert [event.attempt for event in events(run + run) if isinstance(event, JobStatusEvent)] == [1, 1, 2, 2]
    log = run + scores(1, 0.5) + job("DONE", error="out of memory") + job("INIT", 1) + again + scores(2, 0.75)
    attempts = [json.loads(line)["attempt"] for line in converted(log)]
    assert attempts == [1, 1, 1, 1, 1, 2, 2, 2]
    experiment = folded(log).experiments[0]
    assert (experiment.attempt, experiment.status, experiment.error) == (2, "RUNNING", None)
    assert (experiment.starting_time, experiment.epochs_done) == (2_000_000, 2)
    without_init = run + job("DONE") + job("RUNNING", starting_time=2000.0) + job("DONE") + job("DONE")
    assert [json.loads(line)["attempt"] for line in converted(without_init)] == [1, 1, 1, 2, 2, 2]


def test_what_is_not_known_is_kept() -> None:
    lines = [
        b'{"event_type": "dream", "creation_ts": 1, "payload": {"status": "Done", "x": null, "y": NaN}, "mood": [1]}',
        b'{"event_type": "job_status", "payload": "nonsense", "event_id": -Infinity}',
        b'{"event_type": "evaluation_result"}',
        progress(colour="red", device=None).strip(),
    ]
    found = [json.loads(line) for line in converted(b"\n".join(lines))]
    assert found[0]["payload"] == {"status": "Done", "x": None, "y": "NaN"}
    assert found[0]["mood"] == [1]
    assert (found[1]["payload"], found[1]["event_id"]) == ("nonsense", "-Infinity")
    assert "payload" not in found[2]
    assert found[3]["payload"]["colour"] == "red"
    assert found[3]["payload"]["device"] is None  # nothing that progress has


def test_numbers_and_crc_of_today_are_given_anew() -> None:
    body = b'{"seq": 9, "event_type": "dream", "creation_ts": 5, "source": "s", "n": 3, "attempt": 2, "payload": {"experiment_id": 1}'
    for line in (body + b"}", body + b',"crc":"00000000"}', seal(body)):
        (found,) = [json.loads(line) for line in converted(line)]
        assert (found["seq"], found["source"], found["n"], found["attempt"]) == (1, "old", 1, 2)
        assert list(found).count("crc") == 1
    assert kinds(body + b"}" + body + b"}") == "dream dream"


def test_half_a_surrogate_pair_can_be_written() -> None:
    line = rb'{"event_type": "warning", "payload": {"message": "\ud83d\ude00 \ud83d!", "\udc80": 1}}'
    (event,) = events(line)
    assert isinstance(event, WarnedEvent)
    assert event.payload.message == "\N{GRINNING FACE} ?!"


# --- damage -------------------------------------------------------------------------------------------------

A, B, C = (
    b'{"event_type": "%b", "creation_ts": 1, "payload": {"x": "{\\"}", "y": [1]}}' % name for name in (b"a", b"b", b"c")
)


@pytest.mark.parametrize(
    ("log", "expected", "unread"),
    [
        (b"", "", []),
        (b"\n \n\r\n", "", []),
        (A + b"\r\n\n" + B, "a b", []),
        (A + B + b"\n" + C + b"\n", "a b c", []),
        (A + b" \t" + B + b", " + C, "a b c", [b","]),
        (A[:23] + B + b"\n" + C, "b c", [A[:23]]),
        (b'{"event_type": "eval' + A, "a", [b'{"event_type": "eval']),
        (A[:-5] + B, "b", [A[:-5]]),
        (A[1:] + B, "b", [A[1:]]),
        (A + b"\n" + B[:-1], "a", [B[:-1]]),
        (b"hello \" world [{" + A + b"}}\n", "a", [b"hello \" world [{", b"}}"]),
        (b"\xff\xfe\x00" + A + b"\x80\n\x80\n" + B, "a b", [b"\xff\xfe\x00", b"\x80", b"\x80"]),
        (A.replace(b"[1]", b'"\xff"') + b"\n" + B, "b", [A.replace(b"[1]", b'"\xff"')]),
        (A.replace(b"[1]", b"[1}") + B, "b", [A.replace(b"[1]", b"[1}")]),
        (A.replace(b"[1]", B) + C.replace(b'"y"', b"'y'") + B, "a b", [C.replace(b'"y"', b"'y'")]),
        (A.replace(b"[1]", B)[:-1] + b"\n", "b", None),
        (A.replace(b"[1]", B + b"?") + C, "b c", None),
        (b'{"event_type": ?, "y": ' + B + b"}" + C, "b c", None),
        (A.replace(b'"x"', b'"' + b"\xc3\xa9" * 40 + b'"').replace(b"[1]", B) + C, "a c", []),
        (A.replace(b'"x"', b'"' + b"\xc3\xa9" * 40 + b'"').replace(b"[1]", B + b"?") + C, "b c", None),
        (A[:23] + b'{"seq": 1, "event_type": "second"}' + C, "second c", [A[:23]]),
        (b'{"event_type": ' * 200 + A, "a", [b'{"event_type": ' * 199 + b'{"event_type":']),
        (A.replace(b'{"e', b'{ \t"e') + B[:9] + C.replace(b'{"e', b'{ "e'), "a c", [B[:9]]),
        (b'{"creation_ts": 1, "event_type": "first"}{"seq": 1, "event_type": "second"}', "first second", []),
        (b"[" + A + b"," + B + b"]", "a b", [b"[", b",", b"]"]),
        (b'{"event_type": 3}\n["event_type"]\n"event_type"\n{"type": "event"}\n7\nnull', "", None),
        (A.replace(b"[1]", b"1" * 5000) + B, "b", [A.replace(b"[1]", b"1" * 5000)]),
    ],
)  # fmt: skip
def test_events_are_found_whatever_stands_around_them(log: bytes, expected: str, unread: list[bytes] | None) -> None:
    converter = Converter("old")
    assert kinds(log, converter) == expected
    stretches = [log[found.offset : found.offset + found.length] for found in converter.unread]
    if unread is not None:
        assert [stretch.rstrip() for stretch in stretches] == [stretch.rstrip() for stretch in unread]
    assert converter.unread_count == len(stretches)
    assert converter.unread_bytes == sum(map(len, stretches))


def test_a_line_cut_anywhere_costs_no_other() -> None:
    escapes = A.replace(b"[1]", rb'"\\ \u0041 \" {\"event_type\" \n"')
    for line in (scores(1, float("nan")).strip(), A, escapes, progress().strip()):
        for cut in range(len(line)):
            assert kinds(line[:cut] + B) == "b"
            assert kinds(C + line[:cut] + B + b"\n" + A) == "c b a"
            if cut:
                converter = Converter("old")
                assert kinds(line[:cut], converter) == ""
                assert converter.unread_bytes == len(line[:cut].rstrip())


@pytest.mark.parametrize("inner", [b"[]", b'{"a":1}'])
def test_what_nests_too_deep_is_no_event(inner: bytes) -> None:
    for depth, expected in ((MAX_DEPTH - 1, "a deep b"), (MAX_DEPTH, "a b"), (1000, "a b"), (1_000_000, "a b")):
        deep = b'{"event_type": "deep", "payload": ' + b"[" * (depth - 1) + inner + b"]" * (depth - 1) + b"}"
        for log in (A + b"\n" + deep + b"\n" + B, A + deep + B):
            assert kinds(log) == expected
        assert kinds(A + deep[:-3] + B) == "a b"  # and never closed
        assert kinds(A + b"\n" + deep.replace(b"deep", b"deep\x00").replace(b"1", b"NaN") + b"\n" + B) == "a b"


def test_what_was_not_read_is_told() -> None:
    converter = Converter("old")
    junk = "caf\xe9 \x00\x1b[31m".encode() + b"\xff" + b"x" * 100
    log = A + b"\n  " + junk + b" \n" + B + b"rest"
    assert kinds(log, converter) == "a b"
    assert converter.unread == [
        Unread(len(A) + 3, len(junk), "caf\xe9 ??[31m\ufffd" + "x" * 48),
        Unread(len(log) - 4, 4, "rest"),
    ]
    assert (converter.unread_count, converter.unread_bytes) == (2, len(junk) + 4)


def test_the_report_is_bounded() -> None:
    converter = Converter("old")
    assert converted(b"junk\n" * (MAX_UNREAD + 500) + A, converter)
    assert converter.unread == [Unread(5 * i, 4, "junk") for i in range(MAX_UNREAD)]
    assert (converter.unread_count, converter.unread_bytes) == (MAX_UNREAD + 500, 4 * (MAX_UNREAD + 500))


def test_a_line_that_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_log, "MAX_LINE", 1000)
    long = A.replace(b"[1]", b'"%b"' % (b"z" * 2000))
    fits = A.replace(b"[1]", b'"%b"' % (b"z" * (1000 - len(A) + 1)))
    assert len(fits) == 1000
    log = B + b"\n" + long + b"\n" + fits + b"\n" + fits + b" \n" + C + b"\n" + long
    whole = Converter("old")
    assert kinds(log, whole) == "b a c"
    assert [(stretch.offset, stretch.length) for stretch in whole.unread] == [
        (log.index(long), len(long)),
        (log.rindex(fits), 1001),
        (log.rindex(long), len(long)),
    ]
    for size in (1, 7, 250, 999):
        pieces = Converter("old")
        assert fed(pieces, log, list(range(size, len(log), size))) == b"".join(line + b"\n" for line in converted(log))
        assert pieces.unread == whole.unread
    endless = Converter("old")
    for _ in range(1000):
        assert endless.feed(b"[" * 300) == b""
    assert len(endless._line) <= 1000
    assert endless.finish() == b""
    assert [stretch.length for stretch in endless.unread] == [300_000]


# --- laws ---------------------------------------------------------------------------------------------------


def fed(converter: Converter, data: bytes, cuts: list[int]) -> bytes:
    """What a converter makes of `data` when it comes in pieces."""
    edges = [0, *sorted(cuts), len(data)]
    return b"".join([converter.feed(data[i:j]) for i, j in pairwise(edges)] + [converter.finish()])


_plain_lines = st.sampled_from(
    [
        A,
        job("INIT"),
        job("RUNNING", "0"),
        job("DONE", 2**70, error="x"),
        scores(1, float("nan")),
        scores(2, None, 1.0),
        progress(),
        old("experiment_config", experiment_id=3, config={"event_type": {"event_type": "inner"}}),
        rb'{"event_type": "warning", "payload": {"message": "\ud83d \\ \" {"}}',
    ]
).map(bytes.strip)


@st.composite
def damaged_logs(draw: st.DrawFn) -> bytes:
    """Logs with lines cut, merged, overwritten and doubled, and bytes changed anywhere."""
    log = bytearray()
    for line in draw(st.lists(_plain_lines, max_size=8)):
        log += line + draw(st.sampled_from([b"\n", b"\n", b"\n", b"", b"\r\n", b"  ", b"\n\n"]))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(log)))
        end = min(len(log), start + draw(st.integers(0, 30)))
        junk = st.sampled_from(
            [b"", b"\n", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b"NaN", b'{"event_type":', b"\xff"]
        )
        log[start:end] = draw(st.one_of(junk, st.binary(max_size=8)))
    return bytes(log)


@settings(deadline=None, max_examples=300)
@given(log=damaged_logs(), data=st.data())
def test_pieces_make_the_whole(log: bytes, data: st.DataObject) -> None:
    """In whatever pieces a log comes, byte by byte too, it is converted alike; and no damage is too much."""
    whole = Converter("old", seq=5)
    lines = b"".join(line + b"\n" for line in converted(log, whole))
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=8))
    for some in (cuts, list(range(len(log)))):
        pieces = Converter("old", seq=5)
        assert fed(pieces, log, some) == lines
        assert (pieces.seq, pieces.unread) == (whole.seq, whole.unread)
        assert (pieces.unread_count, pieces.unread_bytes) == (whole.unread_count, whole.unread_bytes)
    stretches = [(stretch.offset, stretch.offset + stretch.length) for stretch in whole.unread]
    assert stretches == sorted(stretches)
    assert all(end <= start for (_, end), (start, _) in pairwise(stretches))
    for start, end in stretches:
        assert log[start:end].strip()
    if not whole.unread:
        assert log.count(b'"event_type"') >= whole.seq - 5


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_junk = st.binary(max_size=12).filter(lambda junk: b"\n" not in junk) | st.builds(
    lambda line, cut: line[: cut % len(line)], _plain_lines, st.integers(0, 1000)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(_json, _junk, st.sampled_from([b"\n", b"", b"\n\n", b" "])), max_size=8))
def test_nothing_that_can_be_read_is_lost(entries: list[tuple[Any, bytes, bytes]]) -> None:
    """Each event comes back, as strict JSON has it and in its order, with junk and cut lines between them."""
    log = b""
    for i, (payload, junk, end) in enumerate(entries):
        log += junk + json.dumps({"event_type": f"type {i}", "creation_ts": i, "payload": payload}).encode() + end
    found = [json.loads(line) for line in converted(log)]
    found = [event for event in found if event["event_type"] != "inner"]  # in a configuration that was cut
    assert [event["event_type"] for event in found] == [f"type {i}" for i in range(len(entries))]
    assert [event["payload"] for event in found] == [encodable(plain(payload)) for payload, _, _ in entries]


def encodable(value: Any) -> Any:
    return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "log",
    [
        b"{" * MEGABYTE,
        b'{"event_type":' * (MEGABYTE // 14),
        b'{"event_type"' * (MEGABYTE // 13),
        b'{"event_type":"' * (MEGABYTE // 15),
        b'{"event_type":[' * (MEGABYTE // 15) + b"]}" * (MEGABYTE // 15),
        b'{"event_type":' * (MEGABYTE // 15) + b"x" + b"}" * (MEGABYTE // 15),
        b'{"event_type":"x","p":' + b"[" * MEGABYTE,
        b'{"event_type":"x","p":[' + b"{}," * (MEGABYTE // 3),
        b'{"event_type":[' + b'{"event_type":1},' * (MEGABYTE // 17),
        b'{"event_type":"' + b'\\"' * MEGABYTE,
        b'{"event_type":"' + b"\\" * MEGABYTE,
        b'{"event_type":"' + b"{" * MEGABYTE,
        b'{"event_type":' + b"1" * MEGABYTE + b"}",
        b'{"event_type":' + b" " * MEGABYTE + b'{"event_type"' + b" " * MEGABYTE,
        b'"event_type"' * (MEGABYTE // 12),
        b"".join(b'{"event_type":[' + b"[]," * 4000 for _ in range(64)) + b"?" + b"]}" * 64,
        b"".join(b'{"event_type":[' + b"[]," * 4000 for _ in range(64)) + b"1" * 5000 + b"]}" * 64,
        b"\x00" * MEGABYTE,
        b'{"event_type"\n' * (MEGABYTE // 14),
    ],
    ids=lambda log: repr(log[:30])[2:-1],
)
def test_hostile_lines_take_linear_work(log: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take hours if the work grew with the square of the length."""
    read, work = old_log._read, 0

    def counted(data: bytes) -> Any:
        nonlocal work
        work += len(data)
        return read(data)

    monkeypatch.setattr(old_log, "_read", counted)
    converter = Converter("old")
    assert kinds(A + b"\n" + log + b"\n" + B, converter) == "a b"
    assert converter.unread_bytes >= len(log) - MEGABYTE
    assert work <= 6 * len(log) or b"1" * 5000 in log  # of too many digits, json does not say where they are


def test_many_events_on_one_line() -> None:
    count = 20_000
    assert len(converted(A * count)) == count
    assert len(converted((A[:30] + B) * count)) == count


# --- is it one? ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", False),
        (b"hello\n", False),
        (b"{}\n[]\n", False),
        (A + b"\n", True),
        (A, True),
        (b"garbage\n" + A[:20] + scores(1, float("nan")), True),
        (A[:30], False),
        (seal(A[:-1]), False),
        (A + b"\n" + seal(A[:-1]), False),
        (seal(A[:-1]).replace(b'"creation_ts": 1', b'"creation_ts": 2'), False),  # damaged, but not old
        (seal(A[:-1]) + A, False),
        (b'{"seq":1,"source":"s","n":1,' + A[1:], True),
        ((b'{"event_type": "experiment_config", "payload": {"config": "' + b"z" * 70_000)[: 1 << 16], True),
        ((b'{"seq":1,"event_type":"experiment_config","payload":{"config":"' + b"z" * 70_000)[: 1 << 16], False),
    ],
)
def test_is_old(head: bytes, expected: bool) -> None:
    assert is_old(head) is expected


def test_what_was_converted_is_not_old() -> None:
    log = scores(1, float("nan")) + job("INIT") + job("DONE", starting_time=1_700_000_001.5) + progress()
    new = b"".join(line + b"\n" for line in converted(log))
    assert not is_old(new)
    again = b"".join(line + b"\n" for line in converted(new))
    assert again == new  # reading it once more would change nothing

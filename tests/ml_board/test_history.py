"""The past of a log is the fold of what had happened, and nothing of what came later, whatever was asked before."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from ml_board import history as module
from ml_board import projections
from ml_board.history import History
from ml_board.projections import snapshot, timeline
from mlgym.record.events import EvaluationResult, MetricScore, body_of, decode_lines, seal
from mlgym.record.fold import State, fold_all
from mlgym.record.hub import Hub
from mlgym.record.log import Log
from mlgym.record.spool import Spool
from tests.ml_board.boards import batch
from tests.ml_board.golden.write import lines
from tests.record.test_old_log import job, old, scores


@pytest.fixture(params=[(1, 7), (3, 7), (10, 40), (10_000, 40)])
def distances(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keyframes after so many events, and so many of them: from all the time to never."""
    monkeypatch.setattr(module, "_SPACING", request.param[0])
    monkeypatch.setattr(module, "_KEYFRAMES", request.param[1])


def plainly(log: bytes, seq: int) -> State:
    return fold_all(State(), [event for event in decode_lines(log) if event.seq <= seq])


def told(state: State) -> bytes:
    """All that a state holds that anybody may see; a set of it has no order."""
    more = {
        experiment_id: [experiment.evaluations.seqs.tolist(), experiment.evaluations.times.tolist()]
        for experiment_id, experiment in state.experiments.items()
    }
    details = [projections.experiment(state, experiment_id) for experiment_id in state.experiments]
    return msgspec.json.encode([snapshot(state), timeline(state, 10**6), details, more])


def golden(folder: Path) -> Log:
    """Without the number beyond 64 bits that is in it: with that there are no keyframes."""
    path = folder / "event_storage.log"
    bodies = [body_of(line[:-1]) or pytest.fail() for line in lines()]
    path.write_bytes(b"".join(seal(body.replace(b"%d" % 10**30, b"1")) for body in bodies))
    return Log.load(path)


@pytest.mark.usefixtures("distances")
@pytest.mark.parametrize("seed", range(3))
def test_the_past_is_the_fold_of_it(tmp_path: Path, seed: int) -> None:
    log = golden(tmp_path)
    content = log.path.read_bytes()
    history = History(log)
    order = [*range(log.state.seq + 1)]
    random.Random(seed).shuffle(order)
    for seq in order[:150]:
        state, expected = history.state_at(seq), plainly(content, seq)
        assert told(state) == told(expected), seq
        assert history.state_at(seq) is state  # several are asked for at the same moment


@pytest.mark.usefixtures("distances")
def test_the_past_of_a_log_that_grows(tmp_path: Path) -> None:
    """Epochs are run again all the time, so that what is newest says little of what was."""
    rng = random.Random(1)
    with Spool(tmp_path / "s.jsonl", "s") as spool:
        for _ in range(600):
            scores = [MetricScore("a", "val", rng.choice([0.5, rng.random()])) for _ in range(rng.randrange(3))]
            result = EvaluationResult(
                grid_search_id="g", experiment_id=rng.randrange(3), epoch=rng.randrange(9), metric_scores=scores
            )
            spool.emit(result)
    hub = Hub(tmp_path / "event_storage.log")
    sent = (tmp_path / "s.jsonl").read_bytes().splitlines(keepends=True)
    history = History(hub.log)
    while sent:
        count = rng.randrange(1, 40)
        hub.accept(b"".join(sent[:count]))
        sent = sent[count:]
        content = hub.log.path.read_bytes()
        for _ in range(5):
            seq = rng.randrange(hub.state.seq + 1)
            assert told(history.state_at(seq)) == told(plainly(content, seq))
    hub.close()


@pytest.mark.usefixtures("distances")
def test_the_past_of_an_old_log(tmp_path: Path) -> None:
    path = tmp_path / "event_storage.log"
    path.write_bytes(
        old("experiment_config", experiment_id=0, config={})
        + job("RUNNING")
        + b"".join(scores(epoch, epoch / 9) for epoch in range(9))
        + b"garbage\n"
        + job("DONE", error="no")
        + job("RUNNING")
        + b"".join(scores(epoch, epoch / 7) for epoch in range(9))
    )
    log = Log.load(path)
    assert log.old
    converted = b"".join(line + b"\n" for line in log.lines(0, 1000, 1 << 30))
    history = History(log)
    for seq in (5, log.state.seq, 1, 15, 7):
        expected = plainly(converted, seq)
        expected.damaged = log.state.damaged
        assert told(history.state_at(seq)) == told(expected)


def test_a_log_with_numbers_beyond_64_bits_has_a_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPACING", 2)
    events = [
        b'{"seq":%d,"event_type":"warning","creation_ts":%d,"payload":{"grid_search_id":"g","message":"m"}'
        % (seq, 10**30)
        for seq in range(1, 20)
    ]
    path = tmp_path / "event_storage.log"
    path.write_bytes(b"".join(map(seal, events)))
    history = History(Log.load(path))
    for seq in (15, 4, 9):
        state = history.state_at(seq)
        assert (state.seq, state.time, len(state.warnings)) == (seq, 10**30, seq)


def test_damage_is_read_around_and_told(tmp_path: Path) -> None:
    path = tmp_path / "event_storage.log"
    hub = Hub(path)
    hub.accept(batch(30))
    hub.close()
    content = path.read_bytes().replace(b'"n":7,', b'"n":8,')
    path.write_bytes(content)
    history = History(Log.load(path))
    assert list(history.state_at(9).experiments[1].scores["val/a"]) == [1, 2, 3, 4, 5, 6, 8, 9]
    assert history.state_at(9).damaged == history.state_at(3).damaged > 0
    assert history.state_at(7).seq == 6


@pytest.mark.parametrize("limit", ["_KEYFRAMES", "_BYTES"])
def test_keyframes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(module, "_SPACING", 1)
    monkeypatch.setattr(module, "_EACH", 0)
    monkeypatch.setattr(module, limit, 8 if limit == "_KEYFRAMES" else 30_000)
    history = History(golden(tmp_path))
    history.state_at(400)
    keyframes = history._keyframes
    assert len(keyframes) >= 2
    assert limit != "_KEYFRAMES" or len(keyframes) <= 8
    history._file.seek(0, 2)
    assert history._file.tell() == sum(keyframe.size for keyframe in keyframes)
    assert limit != "_BYTES" or history._file.tell() <= 30_000
    distances = {after.seq - before.seq for before, after in pairwise(keyframes)}
    assert distances == {history._spacing}
    assert keyframes[-1].seq + history._spacing > 400


def test_the_more_experiments_the_fewer_keyframes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds all experiments: 10,000 of them every 5,000 events would cost ten times what folding does."""
    monkeypatch.setattr(module, "_SPACING", 1)
    history = History(golden(tmp_path))
    history.state_at(400)
    keyframes = history._keyframes
    known = [len(history.state_at(keyframe.seq).experiments) for keyframe in keyframes]
    assert known[-2] > 1
    for (before, after), experiments in zip(pairwise(keyframes), known, strict=False):
        assert after.seq - before.seq >= module._EACH * experiments


def test_threads_share_a_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPACING", 10)
    log = golden(tmp_path)
    content, history = log.path.read_bytes(), History(log)
    wrong: list[int] = []

    def ask(seed: int) -> Callable[[], None]:
        def run() -> None:
            rng = random.Random(seed)
            for _ in range(40):
                seq = rng.randrange(400)
                if told(history.state_at(seq)) != told(plainly(content, seq)):
                    wrong.append(seq)

        return run

    threads = [threading.Thread(target=ask(seed)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_of_a_history_stays(tmp_path: Path) -> None:
    history = History(golden(tmp_path))
    history.state_at(50)
    file = history._file
    del history
    assert file.closed

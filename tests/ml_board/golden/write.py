"""A log with everything in it, and what it amounts to: python -m tests.ml_board.golden.write

`log.jsonl` is a log as a hub writes it; `expected.json` holds `{"at": {seq: rows}, "timeline": {seq: timeline},
"experiments": {seq: all of them in detail}, "series": {seq: few points of each}}`. The page's fold is tested against the
same two files, so what is written here is a change of the protocol.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_board.projections import Which, experiment, rows, series, timeline
from mlgym.record.events import decode_lines, seal
from mlgym.record.fold import State, fold_all

HERE = Path(__file__).parent
AT = (0, 1, 2, 17, 60, 100, 101, 130, 150, 170, 190, 215, 240, 300, 420, 10_000)
"""Numbers of events; the last is beyond the end."""

IN_DETAIL = (101, 190, 300, 10_000)
FEW = 8
"""Points of a series, at most."""

GS = "golden"


class _Log:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def raw(self, **event: Any) -> None:
        """An event as it is."""
        found = {"seq": len(self.lines) + 1, **event}
        body = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
        self.lines.append(seal(body))

    def put(self, event_type: str, attempt: int = 1, **payload: Any) -> None:
        n = len(self.lines) + 1
        self.raw(
            event_type=event_type,
            creation_ts=1_790_000_000_000 + 250 * n,
            source="golden",
            n=n,
            attempt=attempt,
            payload={"grid_search_id": GS, **payload},
        )

    def job(self, experiment_id: int, status: str, attempt: int = 1, **more: Any) -> None:
        job_id = f"{experiment_id}-{attempt}"
        self.put("job_status", attempt, experiment_id=experiment_id, job_id=job_id, status=status, **more)

    def progress(self, experiment_id: int, epoch: int, attempt: int = 1, **more: Any) -> None:
        fields: dict[str, Any] = {
            "status": "train",
            "num_epochs": 12,
            "splits": ["train", "val"],
            "num_batches": 40,
            **more,
        }
        self.put("experiment_status", attempt, experiment_id=experiment_id, current_epoch=epoch, **fields)

    def scores(self, experiment_id: int, epoch: int, metrics: list[Any], losses: list[Any], attempt: int = 1) -> None:
        """Each as (split, tag, score)."""
        self.put(
            "evaluation_result",
            attempt,
            experiment_id=experiment_id,
            epoch=epoch,
            metric_scores=[{"metric": tag, "split": split, "score": score} for split, tag, score in metrics],
            loss_scores=[{"loss": tag, "split": split, "score": score} for split, tag, score in losses],
        )

    def checkpoint(self, experiment_id: int, epoch: int, action: str = "SAVED", **more: Any) -> None:
        if action == "SAVED":
            more["files"] = [{"name": "model.safetensors", "size": 2**40 + epoch, "sha256": "0" * 64}]
        self.put("checkpoint", experiment_id=experiment_id, epoch=epoch, action=action, **more)


def score(experiment_id: int, epoch: int, salt: int = 0) -> float:
    """Some number from 0 to 1."""
    return (experiment_id * 53 + epoch * 37 + salt * 17) % 101 / 101


def _begin(log: _Log) -> None:
    log.put("grid_search", status="STARTED", num_experiments=7, run_config="a: 1\n")
    log.put("system_info", host="höst", info={"cpu": "fast"})
    for i in range(4):
        swept = {"optimizer.params.lr": 10.0**-i, "model.größe": i, "data": {"a/b": [None, True, 10**30, 2**53 + 1]}}
        log.put(
            "experiment_config",
            experiment_id=i,
            job_id=f"{i}-1",
            config={"lr": 10.0**-i},
            config_hash=f"hash{i}",
            swept=swept,
            num_epochs=12,
        )
    log.put("experiment_config", experiment_id=5)  # planned, and never run
    for i in (3, 1, 0, 2):
        log.job(i, "INIT")


def _ordinary(log: _Log) -> None:
    """Experiment 0: twelve epochs, the newest checkpoint is kept."""
    log.job(0, "RUNNING", starting_time=1_790_000_003_000, device="cuda:0", host="höst", num_threads=2)
    for epoch in range(13):
        if epoch:
            for batch in (0, 20, 40):
                log.progress(0, epoch, current_batch=batch, current_split="train")
            log.progress(0, epoch, status="evaluation", current_split="val", num_batches=5, current_batch=5)
        metrics = [("val", "accuracy", score(0, epoch)), ("train", "accuracy", score(0, epoch, 1))]
        log.scores(0, epoch, metrics, [("val", "loss", 1 / (1 + epoch)), ("train", "loss", 0.5)])
        if epoch:
            log.checkpoint(0, epoch)
        if epoch > 1:
            log.checkpoint(0, epoch - 1, "DELETED")
    log.checkpoint(0, 3)
    log.checkpoint(0, 12)  # again: keeps its place
    log.job(0, "DONE", finishing_time=1_790_000_040_000)
    log.job(0, "RUNNING", starting_time=7)  # a state never goes back


def _lost(log: _Log) -> None:
    """Experiment 1: its worker dies, the next attempt runs two epochs again, one of them with other scores."""
    log.job(1, "RUNNING", starting_time=1_790_000_041_000, device="cpu", host="a")
    for epoch in range(6):
        log.progress(1, epoch + 1, num_batches=33)
        log.scores(1, epoch, [("val", "accuracy", score(1, epoch))], [("val", "loss", 2.0 - epoch)])
    log.checkpoint(1, 3)
    log.checkpoint(1, 5, batch=17)  # within an epoch: for the next attempt only
    log.progress(1, 6, attempt=2, current_batch=1)  # of an attempt that nobody has announced yet
    log.job(1, "LOST", error="the worker was killed", finishing_time=1_790_000_050_000)
    log.job(1, "INIT", attempt=2, start_epoch=3)
    log.job(1, "RUNNING", attempt=2, start_epoch=9, starting_time=1_790_000_051_000, host="b")
    log.job(1, "FAILED", error="late news", stacktrace="of the first attempt")
    log.progress(1, 99, num_batches=99)
    log.scores(1, 4, [("val", "accuracy", score(1, 4))], [("val", "loss", -2.0)], attempt=2)
    log.put(
        "nondeterminism_detected",
        2,
        experiment_id=1,
        epoch=5,
        changes=[{"score": "val/accuracy", "before": score(1, 5), "now": "NaN"}],
    )
    log.scores(1, 5, [("val", "accuracy", "NaN")], [("val", "loss", 1.5)], attempt=2)
    log.scores(1, 5, [("val", "accuracy", "NaN")], [("val", "loss", 1.5)], attempt=2)  # equal ones are one
    for epoch in (8, 7):  # out of order
        log.scores(1, epoch, [("val", "accuracy", score(1, epoch))], [("val", "loss", float(epoch))], attempt=2)
    log.job(1, "DONE", attempt=2, reason="", device="")


def _not_finite(log: _Log) -> None:
    """Experiment 2: scores that JSON does not know, and equal ones; then it fails."""
    log.job(2, "RUNNING", starting_time=0)
    strange = ["NaN", "Infinity", 0.0, -0.0, "-Infinity", 5e-324, 0, 1.7976931348623157e308, 3, 10**20, -7.25, "NaN"]
    for epoch, value in enumerate(strange):
        metrics = [("val", "strange", value), ("val", "never", "NaN"), ("val", "zero", -0.0 if epoch % 2 else 0)]
        log.scores(2, epoch, metrics, [("val", "strange", 1.0)] if epoch == 4 else [])
    log.scores(2, 9, [("val", "strange", 1)], [])  # what was the highest is no more
    log.scores(2, 10, [("val", "strange", "-Infinity")], [])  # nor what was the lowest
    log.job(2, "FAILED", error="ValueError: größe\nsecond line", stacktrace="Traceback ...", finishing_time=5)
    log.job(2, "DONE")
    log.job(2, "LOST")


def _partly(log: _Log) -> None:
    """Experiment 3: not every score every time, names with slashes; and others that nobody has configured."""
    log.job(3, "RUNNING")
    for epoch in range(10):
        metrics = [("val", "top/5", score(3, epoch))] if epoch % 2 else []
        if epoch % 3 == 0:
            metrics.append(("val/odd", "日本/精度", score(3, epoch)))
        log.scores(3, epoch, metrics, [("", "", 0.25)] if epoch == 9 else [])
    log.scores(3, 10, [], [])
    log.scores(3, 11, [("val", "both", 1.0)], [("val", "both", 2.0)])
    log.put("evaluation_result", experiment_id=3, epoch=2**53)
    log.job(4, "RUNNING", device="cpu")
    log.job(4, "STOPPED", reason="removed")
    log.job(6, "RUNNING", attempt=0)
    log.job(6, "FAILED", attempt=-1)
    log.progress(2**40, 3, num_batches=2**53 - 1, current_split=None)
    log.checkpoint(2**40, 3)
    log.checkpoint(9, 1, "DELETED")


def _strange(log: _Log) -> None:
    """What a reader does not know, or what does not fit its type, changes nothing."""
    log.put("dream", experiment_id=0, epoch=5, x=[1, {"y": None}])
    log.raw(event_type="dream", payload="nothing")
    log.raw(source="nobody")
    log.raw(event_type=7, payload={})
    log.put("job_status", experiment_id=0, status="RUNNING")  # no job_id
    log.job(0, "SLEEPING", attempt=5)
    log.job(0, "RUNNING", attempt=5, device=7)
    log.put("job_status", 5, experiment_id="0", job_id="0", status="RUNNING")
    log.put("evaluation_result", experiment_id=0, epoch=-1)
    log.put("evaluation_result", experiment_id=0, epoch=50.5)
    log.put("evaluation_result", experiment_id=0)
    log.put("evaluation_result", experiment_id=0, epoch=50, metric_scores=None)
    log.scores(0, 50, [("val", "accuracy", None)], [])
    log.scores(0, 51, [("val", "accuracy", True)], [])
    log.scores(0, 52, [("val", "accuracy", "1.0")], [])
    log.scores(0, 53, [("val", "accuracy", 1.0)], [("val", None, 1.0)])
    log.put("checkpoint", experiment_id=0, epoch=1, action="LOST")
    log.put("grid_search", status="DONE")
    log.put("warning", message=["not", "a", "text"])
    log.raw(event_type="warning", payload=[])
    log.raw(event_type="warning", payload=None)
    log.raw(event_type="warning")
    fits = {"grid_search_id": GS, "message": "fits"}
    log.raw(event_type="warning", creation_ts="yesterday", payload=fits)
    log.raw(event_type="warning", creation_ts=1, attempt="2", payload=fits)
    log.raw(event_type="warning", payload=fits, extra={"a": 1})  # no time: 0
    log.put("warning", message="of an experiment", experiment_id=3, unknown=1)
    log.put("job_output", experiment_id=0, job_id="0-1", offset=0, text="hello\n")


def _facts(log: _Log) -> None:
    """What a model card is made of; of each, the last event counts."""
    layers = [{"name": "a", "type": "Linear", "parameters": 6, "trainable": 6}, {"name": "b", "type": "größe"}]
    for size in (8, 24):
        log.put(
            "model_facts", experiment_id=0, type="net.Net", parameters=6, trainable=6, size_bytes=size, layers=layers
        )
    split = {"split": "val", "samples": 3, "uses": ["training", "evaluation"], "sample_shape": [2], "sample_dtype": "f"}
    labels = [{"label": 0, "count": 1}, {"label": 5, "count": 2}]
    spread = {"min": -1.5, "max": "Infinity", "mean": "NaN", "std": 0}
    log.put("data_facts", experiment_id=0, splits=[{**split, "labels": labels}, {**split, "spread": spread}])
    log.put("data_facts", experiment_id=1, splits=[{"split": "val", "samples": 3, "uses": ["sleep"]}])
    counts = {"split": "val", "target": "t", "prediction": "p", "labels": [0, 5], "actual": [1, 2], "predicted": [2, 1]}
    classes = [{**counts, "correct": [1, 1], "confusion": [[1, 0], [1, 1]]}]
    for epoch in (7, 12, 7):
        log.put("class_results", experiment_id=0, epoch=epoch, splits=classes)
    log.put("class_results", experiment_id=0, epoch=13, splits=[{**counts, "correct": [1, "1"]}])
    log.put("class_results", experiment_id=0, epoch=14, splits=[{**counts, "correct": [1, 1], "confusion": [[1], 2]}])
    for attempt in (1, 2):
        usage = {"training_seconds": 1.5, "memory_bytes": 2**40, "energy_joules": None if attempt == 1 else 7}
        log.put("job_usage", attempt, experiment_id=1, job_id=f"1-{attempt}", **usage)
    log.put("model_facts", experiment_id=2**41, type="", parameters=0, trainable=0, size_bytes=0)


def _restart(log: _Log) -> None:
    """Interrupted, and started again with another grid; then warnings that are more than are kept."""
    log.put("grid_search", status="INTERRUPTED", reason="Ctrl-C")
    log.put("grid_search", status="STARTED", grid_search_config="b: 2\n", reason="1 more", model_info={"a": [{"b": 1}]})
    log.put("experiment_config", experiment_id=3, config_hash="hash3", swept={"lr": 0}, num_epochs=20)
    log.put("experiment_config", experiment_id=7, config_hash="hash7", num_epochs=20)
    log.job(3, "RUNNING", attempt=3, start_epoch=10)
    for epoch in range(11, 21):
        log.progress(3, epoch, attempt=3, num_batches=0 if epoch == 20 else 10)
        log.scores(3, epoch, [("val", "top/5", score(3, epoch))], [], attempt=3)
    log.job(3, "DONE", attempt=3, finishing_time=1_790_000_100_000)
    for i in range(205):
        log.put("warning", message=f"warning {i}")
    log.put("grid_search", status="FINISHED")


def lines() -> list[bytes]:
    """The log."""
    log = _Log()
    for part in (_begin, _ordinary, _lost, _not_finite, _partly, _facts, _strange, _restart):
        part(log)
    return log.lines


def expected(log: bytes) -> dict[str, Any]:
    """What it amounts to at some moments."""
    found: dict[str, Any] = {"at": {}, "timeline": {}, "experiments": {}, "series": {}}
    for seq in AT:
        events = [event for event in decode_lines(log) if event.seq <= seq]
        state = fold_all(State(), events)
        found["at"][str(state.seq)] = rows(state)
        found["timeline"][str(state.seq)] = timeline(state)
        if seq in IN_DETAIL:
            found["experiments"][str(state.seq)] = [experiment(state, one) for one in state.experiments]
            found["series"][str(state.seq)] = series(state, Which(points=FEW))
    return found


def text(found: dict[str, Any]) -> str:
    """As JSON, one moment a line."""
    parts = [
        f"{json.dumps(part)}:{{\n"
        + ",\n".join(f"{json.dumps(at)}:{_compact(one)}" for at, one in entries.items())
        + "\n}"
        for part, entries in found.items()
    ]
    return "{" + ",\n".join(parts) + "}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


if __name__ == "__main__":
    log = b"".join(lines())
    (HERE / "log.jsonl").write_bytes(log)
    (HERE / "expected.json").write_text(text(expected(log)), encoding="utf-8")

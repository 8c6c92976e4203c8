"""What recording one event costs the training process. mlgym's `emit` returns when the event survives SIGKILL of
the process: it is encoded, sealed with a crc and written. Beside it: only encoding the same event, and one line
by the standard library (json.dumps, write, flush), which is no safer.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.measure import Result, in_turns
from mlgym.record.events import EvaluationResult, ExperimentStatus, LossScore, MetricScore
from mlgym.record.spool import Spool

COUNT = 20_000
PROGRESS = ExperimentStatus(
    grid_search_id="2026-11-21--10-26-58",
    experiment_id=3,
    status="train",
    num_epochs=50,
    current_epoch=7,
    splits=["train", "val", "test"],
    current_split="train",
    num_batches=400,
    current_batch=123,
)
SCORES = EvaluationResult(
    grid_search_id="2026-11-21--10-26-58",
    experiment_id=3,
    epoch=7,
    metric_scores=[MetricScore(tag, split, 0.9123) for tag in ("accuracy", "f1") for split in ("train", "val", "test")],
    loss_scores=[LossScore("cross_entropy", split, 0.3321) for split in ("train", "val", "test")],
)


def run() -> list[Result]:
    encoder = msgspec.json.Encoder()
    plain = msgspec.to_builtins(PROGRESS)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "plain").open("w") as file:
        spool = Spool(Path(folder) / "s.jsonl", "19aa3f2c1d4-job-3-1-5f0c12ab")

        def emit_progress() -> None:
            for _ in range(COUNT):
                spool.emit(PROGRESS)

        def emit_scores() -> None:
            for _ in range(COUNT):
                spool.emit(SCORES)

        def encode() -> None:
            for _ in range(COUNT):
                encoder.encode(PROGRESS)

        def standard_library() -> None:
            for n in range(COUNT):
                event = {"event_type": "experiment_status", "creation_ts": time.time_ns(), "n": n, "payload": plain}
                file.write(json.dumps(event) + "\n")
                file.flush()

        taken = in_turns(
            {
                "emit a progress event": emit_progress,
                "emit nine scores": emit_scores,
                "encode the progress event, no more": encode,
                "json.dumps, write, flush": standard_library,
            },
            rounds=9,
        )
    goals = {"emit a progress event": "at most 8, aim 5"}
    return [
        Result(name, "us an event", [seconds / COUNT * 1e6 for seconds in values], goals.get(name, ""))
        for name, values in taken.items()
    ]

"""Reading back and folding a recorded log of 1,000,000 mixed events: crc checked, decoded into typed events, folded
into the state of 500 experiments. Beside it: `json.loads` of every line, and no more.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.measure import Result, in_turns
from mlgym.record.events import ExperimentConfig, GridSearch, JobStatus, Payload
from mlgym.record.hub import Hub
from mlgym.record.journal import Journal, read_blocks
from mlgym.record.log import read_state
from mlgym.record.spool import Spool

COUNT = 1_000_000
EXPERIMENTS = 500


def record(folder: Path) -> Path:
    """A log as a grid of 500 experiments writes it: nine progress events for each evaluation of nine scores."""
    from msgspec.structs import replace

    from benchmarks.emit import PROGRESS, SCORES

    spool = Spool(folder / "s.jsonl", "s")
    spool.emit(GridSearch(grid_search_id="g", status="STARTED", num_experiments=EXPERIMENTS))
    emitted = 1

    def emit(payload: Payload) -> None:
        nonlocal emitted
        spool.emit(payload)
        emitted += 1

    for i in range(EXPERIMENTS):
        emit(ExperimentConfig(grid_search_id="g", experiment_id=i, swept={"lr": i}, num_epochs=200))
        emit(JobStatus(grid_search_id="g", experiment_id=i, job_id=str(i), status="RUNNING"))
    epoch = 0
    while emitted < COUNT:
        for i in range(EXPERIMENTS):
            for batch in range(0, 360, 40):
                emit(replace(PROGRESS, experiment_id=i, current_epoch=epoch, current_batch=batch))
            emit(replace(SCORES, experiment_id=i, epoch=epoch))
        epoch += 1
    spool.close()
    hub = Hub(folder / "log")
    for block in read_blocks(folder / "s.jsonl"):
        hub.accept(block.lines)
    hub.close()
    return folder / "log"


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        log = record(Path(folder))
        size = log.stat().st_size
        count = read_state(log).seq

        def fold() -> None:
            assert read_state(log).seq == count

        def verify() -> None:
            Journal(log).close()

        def standard_library() -> None:
            with log.open("rb") as file:
                for line in file:
                    json.loads(line)

        taken = in_turns(
            {"fold": fold, "check the crc of every line": verify, "json.loads": standard_library}, rounds=5
        )
    return [
        Result("events", "events", [count]),
        Result("size of the log", "MB", [size / 1e6]),
        Result("fold the log", "events/s", [count / s for s in taken["fold"]], "at least 200,000"),
        Result(
            "check the crc of every line, no more",
            "events/s",
            [count / s for s in taken["check the crc of every line"]],
        ),
        Result("json.loads of every line, no more", "events/s", [count / s for s in taken["json.loads"]]),
    ]

"""A log for the tests of exports: five experiments that differ in all that an export has to say."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from mlgym.record.events import ExperimentConfig, SystemInfo
from tests.ml_board.page.logs import START, Script

ID = "2026-11-21--10-26-58"
HOSTILE = "</script><script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://127.0.0.1/","x")'
LINES = 'one\r\ntwo, "three"\ttab\nÄ 漢字 🙂 '
LONG = "x" * 300

SWEPT: list[dict[str, Any]] = [
    {"opt.lr": 0.1, "opt.name": FORMULA, "model.layers": [8, 8], "model.bias": True, "fold": 0, "seed": 0, "status": 1},
    {"opt.lr": 1, "opt.name": LINES, "model.layers": "deep", "model.bias": False, "fold": 0, "seed": 1, "status": 2},
    {"opt.lr": "Infinity", "opt.name": HOSTILE, "model.layers": None, "model.bias": True, "fold": 1, "seed": 0},
    {"opt.lr": 1e-07, "opt.name": "adam", "model.layers": {"a": "NaN"}, "model.bias": True, "fold": 1, "seed": 1},
    {"opt.lr": 0.0, "opt.name": "-1", "model.layers": 10**30, "model.bias": False, "fold": 2, "seed": 0},
]
NAN, INF = math.nan, math.inf
SERIES = {  # of experiment 0
    "val/f1": [0.1, NAN, 0.7, INF, 0.5],
    "val/x_loss": [3.0, 1.5, -INF, 1e-300, 1e300],
    "train/=cmd()": [0.0, 1.0, 2.0, 3.0, 4.0],
    "train/_cmd__": [5.0, 6.0, 7.0, 8.0, 9.0],
    f"train/{LONG}": [1.0] * 5,
    "test/../../up": [0.25] * 5,
}


def script() -> Script:
    """0 is done, 1 lost and running again, 2 failed, 3 removed from the grid, 4 waiting."""
    found = Script(ID)
    found.grid(num_experiments=5, grid_search_config=f"# {HOSTILE}\nopt: {{}}\n")
    found.file("grid_search_config.yml", f"# {HOSTILE}\nopt: {{}}\n".encode())
    found.file("run_config.yml", b"run_configuration: {}\n")
    info = {"git": {"commit": "c0ffee", "dirty": False}}
    found.put(SystemInfo(grid_search_id=ID, host="node-1", info=info))
    for i, swept in enumerate(SWEPT):
        config = {
            "opt": {
                "component_type_key": "OPTIMIZER",
                "config": {"lr": swept["opt.lr"], "note": FORMULA, HOSTILE: LINES, "long": "y" * 7000},
                "requirements": [{"name": "model", "component_name": "model"}],
            }
        }
        payload = ExperimentConfig(
            grid_search_id=ID,
            experiment_id=i,
            config=msgspec.Raw(json.dumps(config).encode()),
            config_hash=f"hash{i}",
            swept=swept,
            seed=40 + i,
            num_epochs=4,
        )
        found.raw("experiment_config", json.loads(msgspec.json.encode(payload)))
        found.job(i, "INIT")
    found.wait(1)
    for i in range(3):
        found.job(i, "RUNNING")
    for epoch in range(5):
        found.wait(0.25)
        found.scores(0, epoch, {key: values[epoch] for key, values in SERIES.items()})
    found.checkpoint(0, 4, {"model.safetensors": bytes(range(256)), "lr_scheduler.json": b"{}"})
    found.job(0, "DONE")
    for epoch in range(3):
        found.scores(1, epoch, {"val/f1": 0.3})
    found.job(1, "LOST", error="the worker was killed by signal 9")
    found.job(1, "RUNNING", attempt=2, start_epoch=1)
    found.wait(1)
    found.scores(1, 2, {"val/f1": 0.4}, attempt=2)  # the epoch again, and another score
    found.job(2, "FAILED", error=f"@ValueError: {HOSTILE}", stacktrace=f"Traceback\n  {LINES}")
    found.job(3, "STOPPED", reason="removed")
    return found


def goes_on() -> Script:
    """What comes later: experiment 1 finishes, 4 is run."""
    found = Script(ID, source="later", now=START + 60_000)
    for epoch in (3, 4):
        found.scores(1, epoch, {"val/f1": 0.1 * epoch}, attempt=2)
    found.job(1, "DONE", attempt=2)
    found.job(4, "RUNNING")
    found.scores(4, 0, {"val/f1": 0.9})
    found.job(4, "DONE")
    found.grid("FINISHED")
    return found

"""The price of a job on Ray, through mlgym and through Ray Tune, on one cluster of two CPUs on this machine: for how
many milliseconds a job keeps one of the two CPUs, less what its work alone takes: (wall seconds * 2 / jobs) - work.

The job is the same function: `run_job`, a whole experiment with its spool (the digits example cut down to 64 images and
one step, three splits evaluated before and after it). `mlgym` is `environment: ray` as it stands: the spools are
brought to the driver, the delivery of events from there is left out. `Ray Tune, reused` are trials with `reuse_actors`
as many as there are jobs; without it each trial is a new process that imports torch, so there are only four of those.
The cluster and its workers are up, and have run jobs, before time is taken. The trials keep their results in a
temporary folder; nothing is printed. Needs `ray[tune]`; without it only mlgym is measured.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.jobs import PREPARE, PROCESSES, Variants, _Never, _nothing_to_say, _prices, _spec, _work, blueprint
from benchmarks.measure import Result
from mlgym.engine.cluster import Ray
from mlgym.engine.forkserver import ForkServer
from mlgym.plan.config import LoggingConfig, RayConfig
from mlgym.specs import ExperimentSpec, RunPaths

JOBS, TRIALS, ROUNDS = 30, 4, 5


def run() -> list[Result]:
    specs = [_spec(i) for i in range(JOBS)]
    number = count()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one ignores verbose=0
    cpus = len(os.sched_getaffinity(0)) / PROCESSES  # two jobs at a time
    executor = Ray(RayConfig(num_cpus_per_job=cpus), LoggingConfig(), blueprint)
    with closing(executor), ForkServer(PREPARE, blueprint) as server, tempfile.TemporaryDirectory() as folder:
        server.wait_ready()
        assert not executor.check(specs[:1]).error

        def grid() -> None:
            paths = RunPaths(Path(folder), f"grid-{next(number)}")
            paths.spools.mkdir(parents=True)
            paths.lock.touch()
            assert executor.run(specs, paths, _nothing_to_say, _Never()) is None
            done = [spool for spool in paths.spools.iterdir() if b'"status":"DONE"' in spool.read_bytes()]
            assert len(done) == JOBS

        variants: Variants = {"mlgym": (JOBS, grid)}
        if tune := _tune():
            variants["Ray Tune, reused"] = JOBS, partial(fit, tune, specs, Path(folder), JOBS, cpus, True)
            variants["Ray Tune"] = TRIALS, partial(fit, tune, specs, Path(folder), TRIALS, cpus, False)
        work = partial(_work, server, "benchmarks.jobs:experiment", specs[0], RunPaths(Path(folder), "work"))
        return _prices("experiment on Ray", variants, work, ROUNDS)


def fit(tune: Any, specs: list[ExperimentSpec], folder: Path, jobs: int, cpus: float, reuse: bool) -> None:
    """Run experiments as trials of Ray Tune."""
    tuner = tune.Tuner(
        tune.with_resources(trial(specs, folder), {"cpu": cpus}),
        param_space={"experiment_id": tune.grid_search([*range(jobs)])},
        tune_config=tune.TuneConfig(reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    )
    assert not tuner.fit().errors


def trial(specs: list[ExperimentSpec], folder: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def train(config: dict[str, Any]) -> dict[str, Any]:
        from mlgym.engine.worker import device, registry_of, run_job
        from mlgym.record.spool import new_source

        source = new_source("bench")
        spec = specs[config["experiment_id"]]
        state = run_job(spec, RunPaths(folder, source), source, registry_of(blueprint), device(None), lambda: False)
        assert state == "DONE"
        return {"score": 0.0}

    return train


def _tune() -> Any:
    try:
        return importlib.import_module("ray.tune")
    except ImportError:
        print("  ray[tune] is not installed: its rows are left out")
        return None

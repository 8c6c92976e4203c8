"""The price of a job, two at a time on two processes: for how many milliseconds a job keeps one of the two places,
less what its work alone takes, (wall seconds * 2 / jobs) - work. The work is the same function called over and over
in two warm processes at once, so that neither the first call in a process nor two jobs sharing the machine hide in
it. Whatever a job needs that a warm process has already is price: starting, importing, first calls, page faults,
the way back, the end. What is paid once is not: the fork server, the reused processes of a pool and Ray are up, and
have run jobs, before time is taken.

`trivial` returns at once. `torch` takes ten SGD steps of a small network, on one thread. `experiment` is a whole
experiment of the digits example's kind (64 images, one epoch of one batch, three splits evaluated before and after)
through the scheduler, the spool included and the delivery of its events not; its work is `run_job` without the
processes. 200 trivial jobs, 30 of the others; fewer where each of them starts an interpreter: 24 and 8 by spawn, 16
and 8 as trials of Ray Tune. `fresh` means a new process for each job, `reused` that jobs follow each other in the same
ones, and inherit what the last one left. concurrent.futures and joblib are as they come: spawn is
`max_tasks_per_child=1`, joblib puts short jobs into batches. Ray Tune is there when it can be imported.

`ready` is the time from starting the fork server until it takes jobs, beside an interpreter that imports torch.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Result, in_turns
from mlgym.engine.forkserver import ForkServer, receive, send
from mlgym.schema import import_path
from mlgym.specs import ExperimentSpec, RunPaths

if TYPE_CHECKING:
    import socket

    from mlgym.build.registry import Registry
    from mlgym.parts.datasets import Columns
    from mlgym.record.events import Payload

# Spawned processes import this file: torch is imported where a job needs it, so that trivial ones do without.

DIGITS = Path(__file__).parent.parent / "example" / "digits_grid"
PROCESSES = 2
TRIVIAL, TORCH = 200, 30
SPAWNED = {"trivial": 24, "torch": 8}
TRIALS = {"trivial": 16, "torch": 8}
ROUNDS = 3
GOAL = "at most 50, aim 20"


# --- jobs -----------------------------------------------------------------------------------------------------


def trivial(*_: object) -> None:
    """Nothing. Takes the arguments of a fork server's child, the configuration of a trial, or none."""


def train(*_: object) -> None:
    """Ten steps."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    samples, targets = torch.rand(32, 64), torch.zeros(32, dtype=torch.long)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(samples), targets).backward()
        optimizer.step()


def experiment(_: socket.socket, registry: Registry, spec: ExperimentSpec, paths: RunPaths) -> None:
    """An experiment, without a process of its own."""
    from mlgym.engine.worker import device, run_job
    from mlgym.record.spool import new_source

    assert run_job(spec, paths, new_source("bench"), registry, device(None), lambda: False) == "DONE"


def steady(channel: socket.socket, registry: Registry, function: str, times: int, *arguments: Any) -> None:
    """Sends how many seconds a job takes in a process that has run others."""
    job = import_path(function)
    for _ in range(5):
        job(channel, registry, *arguments)
    start = time.perf_counter()
    for _ in range(times):
        job(channel, registry, *arguments)
    send(channel, (time.perf_counter() - start) / times)


def blueprint(registry: Registry) -> None:
    sys.path.insert(0, str(DIGITS))
    registry.model("conv_net", import_path("conv_net:ConvNet"))
    registry.dataset("tiny", tiny)


def tiny(storage: Path, split: str) -> Columns:
    import torch

    from mlgym.parts.datasets import Columns

    return Columns(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 10)


def _spec(experiment_id: int = 0) -> ExperimentSpec:
    from mlgym.plan.config import read
    from mlgym.plan.sweep import expand

    config = expand(read(DIGITS / "gs_config.yml").value)[5].config
    config["dataset_iterators"]["config"]["dataset_identifier"] = "tiny"
    return ExperimentSpec("g", experiment_id, config, "", {}, 0, num_epochs=1, num_batches_per_epoch=1)


# --- those who run them ---------------------------------------------------------------------------------------


def _fork(server: ForkServer, function: str, jobs: int, *arguments: Any) -> None:
    """Fresh processes of the fork server, two at a time, until all have ended."""
    running = []
    started = 0
    while started < jobs or running:
        while started < jobs and len(running) < PROCESSES:
            running.append(server.start(function, *arguments))
            started += 1
        select.select([server], [], [])
        server.update()
        for child in [child for child in running if child.ended]:
            running.remove(child)
            child.channel.close()
            assert child.exit_status == 0, child.failure


def _spawn(function: Callable[[], None], jobs: int) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, max_tasks_per_child=1) as pool:
        _submit(pool, function, jobs)


def _submit(pool: ProcessPoolExecutor, function: Callable[[], None], jobs: int) -> None:
    for future in [pool.submit(function) for _ in range(jobs)]:
        future.result()


def _joblib(parallel: Any, function: Callable[[], None], jobs: int) -> None:
    parallel((function, (), {}) for _ in range(jobs))  # what joblib.delayed makes of a call


@contextmanager
def _ray() -> Iterator[Callable[[Callable[[], None], int], None] | None]:
    """What runs jobs as trials of Ray Tune; None where it is not installed."""
    try:
        ray, tune = importlib.import_module("ray"), importlib.import_module("ray.tune")
    except ImportError:
        print("  Ray Tune is not installed: its rows are left out")
        yield None
        return

    def fit(function: Callable[[], None], jobs: int) -> None:
        def trial(_: dict[str, Any]) -> dict[str, Any]:
            function()
            return {"score": 0.0}

        with tempfile.TemporaryDirectory() as folder:
            tuner = tune.Tuner(
                tune.with_resources(trial, {"cpu": 1}),
                tune_config=tune.TuneConfig(num_samples=jobs),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            )
            assert not tuner.fit().errors

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield fit
    finally:
        ray.shutdown()


# --- measure --------------------------------------------------------------------------------------------------


def run() -> list[Result]:
    return [*_jobs(), *_experiments(), *_ready()]


def _jobs() -> list[Result]:
    joblib: Any = importlib.import_module("joblib")  # comes with scikit-learn, without types
    context = multiprocessing.get_context("spawn")
    functions = {"trivial": trivial, "torch": train}
    variants: dict[str, tuple[int, Callable[[], None]]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(ForkServer())
        server.wait_ready()
        pool = stack.enter_context(ProcessPoolExecutor(PROCESSES, context))
        parallel = stack.enter_context(joblib.Parallel(PROCESSES))
        tune = stack.enter_context(_ray())
        for kind, jobs in (("trivial", TRIVIAL), ("torch", TORCH)):
            function = functions[kind]
            path = f"{__name__}:{function.__name__}"
            variants[f"{kind}, fresh: fork server"] = jobs, partial(_fork, server, path, jobs)
            variants[f"{kind}, fresh: spawn"] = SPAWNED[kind], partial(_spawn, function, SPAWNED[kind])
            variants[f"{kind}, reused: concurrent.futures"] = jobs, partial(_submit, pool, function, jobs)
            variants[f"{kind}, reused: joblib"] = jobs, partial(_joblib, parallel, function, jobs)
            if tune:
                variants[f"{kind}, Ray Tune"] = TRIALS[kind], partial(tune, function, TRIALS[kind])
        work = {kind: _work(server, f"{__name__}:{function.__name__}") for kind, function in functions.items()}
        taken = in_turns({name: run for name, (_, run) in variants.items()}, ROUNDS)
    results = [Result("torch: the work itself", "ms a job", work["torch"])]
    for name, (jobs, _) in variants.items():
        kind = name.partition(",")[0]
        goal = GOAL if name == "torch, fresh: fork server" else ""
        results.append(_price(name, taken[name], jobs, work[kind], goal))
    return results


def _work(server: ForkServer, function: str, times: int = 20, *arguments: Any) -> list[float]:
    """ms of the same job over and over, in as many processes at once as there will be."""
    found = []
    for _ in range(5):
        children = [server.start(f"{__name__}:steady", function, times, *arguments) for _ in range(PROCESSES)]
        found += [receive(child.channel) * 1000 for child in children]
        for child in children:
            child.channel.close()
    return found


def _price(name: str, taken: list[float], jobs: int, work: list[float], goal: str = "") -> Result:
    alone = statistics.median(work)
    return Result(name, "ms a job", [seconds * 1000 * PROCESSES / jobs - alone for seconds in taken], goal)


def _experiments() -> list[Result]:
    from mlgym.engine.scheduler import Multiprocessing
    from mlgym.plan.config import MultiprocessingConfig

    specs = [_spec(i) for i in range(TORCH)]
    number = count()
    with tempfile.TemporaryDirectory() as folder, ForkServer(blueprint) as server:
        executor = Multiprocessing(MultiprocessingConfig(process_count=PROCESSES), blueprint)
        try:
            server.wait_ready()
            work = _work(server, f"{__name__}:experiment", 5, _spec(), RunPaths(Path(folder), "work"))
            assert not executor.check(specs[:1]).error  # as `mlgym run` does, and the first job after it

            def grid() -> None:
                paths = RunPaths(Path(folder), f"grid-{next(number)}")
                assert executor.run(specs, paths, _nothing_to_say, _Never()) is None
                assert len(list(paths.root.glob("*/experiment_config.json"))) == TORCH

            taken = in_turns({"grid": grid}, ROUNDS)["grid"]
        finally:
            executor.close()
    return [
        Result("experiment: the work itself", "ms a job", work),
        _price("experiment, fresh: mlgym", taken, TORCH, work, GOAL),
    ]


def _nothing_to_say(payload: Payload, attempt: int = 1) -> None:
    """The scheduler speaks of jobs that were lost or are tried again."""
    raise AssertionError(payload)


class _Never:
    """Nobody asks the scheduler to stop."""

    def requested(self) -> bool:
        return False

    kill_requested = requested


def _ready() -> list[Result]:
    def server() -> None:
        with ForkServer() as found:
            found.wait_ready()

    def torch() -> None:
        subprocess.run([sys.executable, "-c", "import torch"], check=True)

    taken = in_turns({"server": server, "torch": torch}, ROUNDS)
    return [
        Result("ready: fork server", "s", taken["server"], "under 7"),
        Result("ready: an interpreter that imports torch, no more", "s", taken["torch"]),
    ]

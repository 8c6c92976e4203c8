"""The price of a job, two at a time on two processes: for how many milliseconds a job keeps one of the two places,
less what its work alone takes: (wall seconds * 2 / jobs) - work. The work is the same function called over and over
in two warm processes at once, measured in the same round. So whatever a job needs that a warm process has already is
price: starting, importing, first calls, page faults, handing over, the end. What is paid once is not: the fork
server, the processes of pools and Ray are up, and have run jobs, before time is taken.

`trivial` jobs (200) return at once. `torch` jobs (30) take ten SGD steps of a small network on one thread.
`experiment` jobs (30) are whole experiments through the scheduler, spools included, the delivery of events not: the
digits example cut down to 64 images and one step, three splits evaluated before and after it; their work is `run_job`.

`fresh` is a new process for each job, `reused` the same processes for all, each job with what the last one left
behind. concurrent.futures and joblib are as they come (joblib sends short jobs in batches), and so is Ray Tune, if
it is installed. Where each job starts an interpreter (spawn: `max_tasks_per_child=1`; a trial of Ray Tune) there are
fewer jobs, 20 and 4 by spawn and 2 trials, in fewer rounds after the others, so that Ray's own processes disturb none.

`ready` is the time from starting the fork server until it takes jobs, beside an interpreter that only imports torch.
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
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Result, in_turns
from mlgym.engine.channel import receive, send
from mlgym.engine.forkserver import Child, ForkServer
from mlgym.schema import import_path
from mlgym.specs import ExperimentSpec, RunPaths

if TYPE_CHECKING:
    import socket

    from mlgym.build.registry import Registry
    from mlgym.parts.datasets import Columns
    from mlgym.record.events import Payload

# Spawned processes import this file: torch is imported where a job needs it, so that trivial ones do without.

DIGITS = Path(__file__).parent.parent / "example" / "digits_grid"
PREPARE = "mlgym.engine.worker:registry_of"
PROCESSES = 2
JOBS = {"trivial": 200, "torch": 30}
SPAWNED = {"trivial": 20, "torch": 4}
TRIALS = 2
EXPERIMENTS = 30
ROUNDS, SLOW_ROUNDS, READY_ROUNDS = 9, 3, 5
GOALS = {"torch, fresh: fork server": "at most 50, aim 20"}


# --- jobs -----------------------------------------------------------------------------------------------------


def trivial(*arguments: object) -> None:
    """Nothing. Takes the arguments of a fork server's child, the configuration of a trial, or none."""


def train(*arguments: object) -> None:
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


def experiment(channel: socket.socket, registry: Registry, spec: ExperimentSpec, paths: RunPaths) -> None:
    """An experiment, without a process of its own."""
    from mlgym.engine.worker import device, run_job
    from mlgym.record.spool import new_source

    source = new_source("bench")
    own = RunPaths(paths.event_storage, source)  # as in a grid, nobody else writes to an experiment's folder
    assert run_job(spec, own, source, registry, device(None), lambda: False) == "DONE"


def steady(channel: socket.socket, registry: Registry, function: str, *arguments: Any) -> None:
    """Sends how many seconds a job takes in a process that has run others: the mean of what fits in a moment."""
    job = import_path(function)
    for _ in range(5):
        job(channel, registry, *arguments)
    done = 0
    start = now = time.perf_counter()
    while now < start + 0.3:
        job(channel, registry, *arguments)
        done += 1
        now = time.perf_counter()
    send(channel, (now - start) / done)


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
    running: list[Child] = []
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

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}  # the new one ignores verbose=0
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
    results = []
    with ExitStack() as stack:
        server = stack.enter_context(ForkServer(PREPARE, blueprint))  # which imports this file, as it would a user's
        server.wait_ready()
        pool = stack.enter_context(ProcessPoolExecutor(PROCESSES, context))
        parallel = stack.enter_context(joblib.Parallel(PROCESSES))
        for kind, function in functions.items():
            jobs = JOBS[kind]
            path = f"{__name__}:{function.__name__}"
            variants: Variants = {
                f"{kind}, fresh: fork server": (jobs, partial(_fork, server, path, jobs)),
                f"{kind}, reused: concurrent.futures": (jobs, partial(_submit, pool, function, jobs)),
                f"{kind}, reused: joblib": (jobs, partial(_joblib, parallel, function, jobs)),
            }
            results += _prices(kind, variants, partial(_work, server, path), ROUNDS)
        tune = stack.enter_context(_ray())
        for kind, function in functions.items():
            path = f"{__name__}:{function.__name__}"
            variants = {f"{kind}, fresh: spawn": (SPAWNED[kind], partial(_spawn, function, SPAWNED[kind]))}
            if tune:
                variants[f"{kind}, fresh: Ray Tune"] = TRIALS, partial(tune, function, TRIALS)
            results += _prices(kind, variants, partial(_work, server, path), SLOW_ROUNDS)[1:]
    return sorted(results, key=lambda result: result.name.startswith("torch"))


def _experiments() -> list[Result]:
    from mlgym.engine.scheduler import Multiprocessing
    from mlgym.plan.config import MultiprocessingConfig

    specs = [_spec(i) for i in range(EXPERIMENTS)]
    number = count()
    executor = Multiprocessing(MultiprocessingConfig(process_count=PROCESSES), blueprint)
    with closing(executor), ForkServer(PREPARE, blueprint) as server, tempfile.TemporaryDirectory() as folder:
        server.wait_ready()
        assert not executor.check(specs[:1]).error  # from here on it has what the jobs import, as in every grid

        def grid() -> None:
            paths = RunPaths(Path(folder), f"grid-{next(number)}")
            assert executor.run(specs, paths, _nothing_to_say, _Never()) is None
            done = [spool for spool in paths.spools.iterdir() if b'"status":"DONE"' in spool.read_bytes()]
            assert len(done) == EXPERIMENTS

        work = partial(_work, server, f"{__name__}:experiment", specs[0], RunPaths(Path(folder), "work"))
        return _prices("experiment", {"experiment, fresh: mlgym": (EXPERIMENTS, grid)}, work, ROUNDS)


def _nothing_to_say(payload: Payload, attempt: int = 1) -> None:
    """The scheduler speaks of jobs that were lost or are tried again."""
    raise AssertionError(payload)


class _Never:
    """Nobody asks the scheduler to stop."""

    def requested(self) -> bool:
        return False

    kill_requested = requested


def _work(server: ForkServer, function: str, *arguments: Any) -> float:
    """Seconds of a job among many in a process, in as many processes at once as there will be."""
    children = [server.start(f"{__name__}:steady", function, *arguments) for _ in range(PROCESSES)]
    found: list[float] = [receive(child.channel) for child in children]
    while not all(child.ended for child in children):
        select.select([server], [], [])
        server.update()
    for child in children:
        child.channel.close()
    return statistics.mean(found)


Variants = dict[str, tuple[int, Callable[[], None]]]
"""How many jobs it runs, and what runs them."""


def _prices(kind: str, variants: Variants, work: Callable[[], float], rounds: int) -> list[Result]:
    """The work itself, then what each variant takes beyond it."""
    alone: list[float] = []
    turns: dict[str, Callable[[], None]] = {"work": lambda: alone.append(work())}
    taken = in_turns(turns | {name: run for name, (_, run) in variants.items()}, rounds)
    del alone[0]  # of the round that is not counted
    results = [Result(f"{kind}, the work itself", "ms", [seconds * 1000 for seconds in alone])]
    for name, (jobs, _) in variants.items():
        prices = [(wall * PROCESSES / jobs - own) * 1000 for wall, own in zip(taken[name], alone, strict=True)]
        results.append(Result(name, "ms a job", prices, GOALS.get(name, "")))
    return results


def _ready() -> list[Result]:
    def server() -> None:
        with ForkServer(PREPARE) as found:
            found.wait_ready()

    def torch() -> None:
        subprocess.run([sys.executable, "-c", "import torch"], check=True)

    taken = in_turns({"server": server, "torch": torch}, READY_ROUNDS)
    return [
        Result("ready: fork server", "s", taken["server"], "under 7"),
        Result("ready: an interpreter with torch, no more", "s", taken["torch"]),
    ]

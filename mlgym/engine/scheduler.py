"""Which experiment runs when, and where: fresh processes on device slots, watched until each has ended.

    waiting ──start──► running ──exit──► read its spool: an end state? ──yes──► ended
       ▲                                        │ no
       └────── back-off, next attempt ◄──── LOST ──── too often ──► FAILED

The scheduler never waits for a job: it sleeps until the fork server reports an exit, a job says that it is alive, or
a deadline comes.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import msgspec

from mlgym.engine.channel import receive
from mlgym.engine.checking import Checked
from mlgym.engine.dividing import Divided
from mlgym.engine.executor import BY_SIGNAL, DEVICE_ERROR, Blueprint, Emit, Failure, Stop
from mlgym.engine.forkserver import Child, ForkServer
from mlgym.engine.ranks import Rank, launched, meeting_point, on_cpu
from mlgym.engine.slots import Device, Slots
from mlgym.errors import ConfigError, InputError, tell
from mlgym.plan.config import AccelerateConfig, JobsConfig, MultiprocessingConfig
from mlgym.plan.folds import CrossValidation, NestedCrossValidation
from mlgym.processes import exit_text
from mlgym.record.checkpoint_folder import newest, remove_unfinished
from mlgym.record.events import JobState, JobStatus, JobStatusEvent, decode
from mlgym.record.journal import last_line
from mlgym.record.spool import new_source
from mlgym.specs import ExperimentSpec, RunPaths

_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""

_LEAVE = 15.0
"""Seconds for a job to leave once its end is recorded: threads and exit handlers of user code may have work to do."""

_WORDS = 1.0
"""Seconds from the first exception in one of several processes to the end of the others, which wait for it in vain: in
these it may come out that it was about the death of one of them."""

_ANSWER = 30.0
"""Seconds in which the fork server, asked for a process, says which; later it counts as hung."""

_BY_USER = "killed by the user"


class ForkedJobs:
    """What executors share that run jobs in fresh processes. Starting one starts to load the fork server."""

    kills_after = 3  # the second signal kills the jobs

    def __init__(self, config: JobsConfig, slots: Slots, blueprint: Blueprint | None, group: Rank | None) -> None:
        self._config = config
        self._slots = slots
        self._group = group
        self._num_threads = max(1, len(os.sched_getaffinity(0)) // (group.size if group else slots.count))
        self._server = ForkServer("mlgym.engine.worker:registry_of", blueprint, self._num_threads)

    def _gpus(self, indices: list[int], where: str) -> list[dict[str, Any]]:
        """The CUDA devices. Raises `ConfigError` when one of `indices`, which the key `where` asks for, is missing."""
        error, found = self._ask("mlgym.engine.worker:probe_job", indices)
        if error is not None:
            raise ConfigError(str(error), ("environment", "config", where))
        gpus: list[dict[str, Any]] = found
        return gpus

    def _check(self, specs: list[ExperimentSpec], on: int | Rank | None) -> Checked:
        """Try each of `specs` in a throw-away process; what it had to import is then loaded for every job."""
        found: Checked = self._ask("mlgym.engine.worker:check_job", specs, on)
        if not found.error:
            self._server.preload(found.modules)
        return found

    def divide(self, specs: list[ExperimentSpec], wanted: CrossValidation | NestedCrossValidation) -> Divided:
        """Divide the data in a throw-away process."""
        found: Divided = self._ask("mlgym.engine.worker:divide_job", specs, wanted)
        return found

    def _ask(self, function: str, *arguments: Any) -> Any:
        """The answer of a child that calls `function`."""
        self._server.wait_ready()
        child = self._server.start(function, *arguments)
        child.channel.settimeout(self._config.progress_timeout)
        try:
            with child.channel:
                return receive(child.channel)
        except TimeoutError:
            raise InputError(
                f"trying the configuration took longer than progress_timeout ({self._config.progress_timeout:g} s)"
            ) from None
        except (EOFError, ConnectionError):
            while not child.ended:
                wait([self._server.fileno()], 1)
                self._server.update()
            how = child.failure or exit_text(child.exit_status or 0)
            raise InputError(f"the process that tried the configuration ended before it could answer: {how}") from None

    def run(self, specs: list[ExperimentSpec], paths: RunPaths, emit: Emit, stop: Stop) -> str | None:
        """Run the experiments, in this order; None when all have ended, otherwise why not."""
        grid = _Grid(self._config, self._slots, self._group, self._num_threads, self._server, paths, emit, stop)
        return grid.run(specs)

    def close(self) -> None:
        """End every process that was started, at once."""
        self._server.close()


class Multiprocessing(ForkedJobs):
    """The executor for many processes, each with an experiment of its own."""

    def __init__(self, config: MultiprocessingConfig, blueprint: Blueprint | None) -> None:
        self._devices = config.computation_device_ids
        per_device = len(self._devices) * (config.jobs_per_device or 1)
        count = config.process_count or per_device or len(os.sched_getaffinity(0))
        super().__init__(config, Slots(count, self._devices, config.jobs_per_device), blueprint, None)

    def gpus(self) -> list[dict[str, Any]]:
        return self._gpus(self._devices, "computation_device_ids")

    def check(self, specs: list[ExperimentSpec]) -> Checked:
        return self._check(specs, next(iter(self._devices), None))


class Accelerate(ForkedJobs):
    """The executor for several processes with one experiment, which Accelerate has train together."""

    def __init__(self, config: AccelerateConfig, blueprint: Blueprint | None) -> None:
        asked = launched(os.environ).num_processes
        if config.num_processes and asked not in (None, config.num_processes):
            raise ConfigError(
                f"is {config.num_processes}, but {asked} processes were launched",
                ("environment", "config", "num_processes"),
            )
        self._group: Rank = Rank(0, config.num_processes or asked or 1, 0, config.find_unused_parameters)
        super().__init__(config, Slots(1, []), blueprint, self._group)

    def gpus(self) -> list[dict[str, Any]]:
        found = self._gpus([], "num_processes")
        if found and not on_cpu() and len(found) < self._group.size:
            raise ConfigError(
                f"{self._group.size} processes take a GPU each, and this machine has {len(found)}",
                ("environment", "config", "num_processes"),
            )
        return found

    def check(self, specs: list[ExperimentSpec]) -> Checked:
        return self._check(specs, msgspec.structs.replace(self._group, size=1))


@dataclass
class _Job:
    """A running job. Times are those of `time.monotonic`, except `starting_time` (unix time in ms)."""

    order: int
    spec: ExperimentSpec
    source: str
    children: list[Child]
    """Its processes; the first is the one that records, and says that it is alive."""
    device: Device
    starting_time: int
    started: float
    alive: float
    spool: int | None = None
    """The spool's own descriptor: a name may be gone once its events are delivered, and a flock is held for us."""
    heard: set[socket.socket] = field(default_factory=set)
    """The channels that are open."""
    said: dict[int, bytes] = field(default_factory=dict)
    """What processes, by their numbers, have said of an exception, in the order of the first words."""
    fell: int | None = None
    """The process that ended first without a word, and not because it was told to: the others then cannot go on."""
    ending: str | None = None
    """Why it is being ended."""
    retry: bool = True
    kill_at: float | None = None
    kills: int = 0


@dataclass
class _Grid:
    """One run of the scheduler."""

    config: JobsConfig
    slots: Slots
    group: Rank | None
    num_threads: int
    server: ForkServer
    paths: RunPaths
    emit: Emit
    stop: Stop
    ready: list[tuple[int, ExperimentSpec]] = field(default_factory=list)
    """A heap by place in the order, so that a retry goes before what came later."""
    delayed: list[tuple[float, int, ExperimentSpec]] = field(default_factory=list)
    running: list[_Job] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)
    """The attempt that each experiment began this run with."""
    stopping: bool = False

    def run(self, specs: list[ExperimentSpec]) -> str | None:
        self.ready = list(enumerate(specs))
        self.first = {spec.experiment_id: spec.attempt for spec in specs}
        while self.running or not (self.stopping or self._nothing_to_start()):
            self._obey()
            self._start()
            self._wait()
            self._enforce_deadlines()
        if self.stopping:
            return BY_SIGNAL
        if self.ready or self.delayed:
            return "every device is in quarantine"
        return None

    def _nothing_to_start(self) -> bool:
        return not (self.ready or self.delayed) or not self.slots.devices

    def _obey(self) -> None:
        """Pass on what the user wants."""
        if self.stop.requested() and not self.stopping:
            self.stopping = True
            for job in self.running:
                try:
                    job.children[0].channel.send(b"q")
                except OSError:
                    pass
        if self.stop.kill_requested():
            for job in self.running:
                if job.ending == _BY_USER and time.monotonic() < (job.kill_at or 0):
                    continue
                self._end(job, _BY_USER, retry=False, at_once=True)

    # --- start --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        now = time.monotonic()
        while self.delayed and self.delayed[0][0] <= now:
            _, order, spec = heapq.heappop(self.delayed)
            heapq.heappush(self.ready, (order, spec))
        started = 0
        while (
            self.ready
            and self.server.ready  # one that is loading lets them wait, and their time would run
            and started < 32  # it has to be listened to as well
            and not self.stopping
            and (taken := self.slots.take())
        ):
            started += 1
            (device,) = taken
            order, spec = heapq.heappop(self.ready)
            source = new_source(f"job-{spec.experiment_id}-{spec.attempt}")
            beat = min(1.0, (self.config.progress_timeout or 4) / 4)
            if self.group:
                children = self._start_group(self.group, spec, self.paths, source, self.num_threads, beat)
            else:
                arguments = (spec, self.paths, source, device, self.num_threads, beat)
                children = [self.server.start("mlgym.engine.worker:job", *arguments)]
            for child in children:
                child.channel.setblocking(False)
            now = time.monotonic()
            job = _Job(order, spec, source, children, device, time.time_ns() // 1_000_000, now, now)
            job.heard = {child.channel for child in children}
            self.running.append(job)

    def _start_group(self, group: Rank, *arguments: Any) -> list[Child]:
        with meeting_point() as socket_:
            group = msgspec.structs.replace(group, port=socket_.getsockname()[1])
            ranks = [msgspec.structs.replace(group, number=number) for number in range(group.size)]
            children = [self.server.start("mlgym.engine.worker:rank_job", *arguments, rank) for rank in ranks]
            if group.size > 1:
                try:
                    socket.send_fds(children[0].channel, [b"p"], [socket_.fileno()])
                except OSError:  # it is gone already
                    pass
        return children

    # --- wait ---------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        by_channel = {channel: job for job in self.running for channel in job.heard}
        due = max(0, self.delayed[0][0] - time.monotonic()) if self.delayed else 0.2
        sources: list[Any] = [self.server, *by_channel]
        readable: list[Any] = wait(sources, min(due, 0.2))
        for channel in readable:
            if isinstance(channel, socket.socket):
                self._listen(by_channel[channel], channel)
        if self.server in readable and not self.server.update():
            tell("warning: the process that starts jobs has died; starting another")
        for job in list(self.running):
            if any(child.ended for child in job.children):
                self._fallen(job)
            if all(child.ended for child in job.children):
                self.running.remove(job)
                self._ended(job)

    def _listen(self, job: _Job, channel: socket.socket) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(channel, 4096, 1)
        except OSError:  # nothing there, or the other end is gone
            return
        if fds:
            job.spool = fds[0]
        if not data:
            job.heard.discard(channel)
            return
        now = time.monotonic()
        number = next(number for number, child in enumerate(job.children) if child.channel is channel)
        if number in job.said:
            job.said[number] += data
        elif b"x" in data:  # the letters before it are no longer of interest
            if not job.said and job.kill_at is None:
                job.kill_at = now + _WORDS
            job.said[number] = data.partition(b"x")[2]
        elif number == 0:
            job.alive = now
            if data.endswith(b"e"):  # its end is recorded; now it has to leave
                job.kill_at = now + _LEAVE

    def _fallen(self, job: _Job) -> None:
        """Some of its processes have ended: hear their last words; without any, the others are ended as well."""
        for number, child in enumerate(job.children):
            while child.ended and child.channel in job.heard and wait([child.channel], 0):
                self._listen(job, child.channel)
            fell = child.ended and child.exit_status != 0 and number not in job.said
            if fell and job.fell is None and not job.kills:
                job.fell = number
                if len(job.children) > 1:
                    job.kills += 1
                    job.kill_at = time.monotonic() + 0.5  # again, should one not be known by its pid yet
                    self._signal(job, signal.SIGKILL)

    # --- deadlines ----------------------------------------------------------------------------------------------

    def _enforce_deadlines(self) -> None:
        config = self.config
        now = time.monotonic()
        for job in self.running:
            if now - job.started > _ANSWER and any(child.pid is None for child in job.children):
                self.server.kill()
                return
            if job.kill_at is not None:
                if now >= job.kill_at:
                    self._end(job, job.ending or "", job.retry, at_once=True)
            elif config.job_timeout is not None and now - job.started > config.job_timeout:
                self._end(job, f"it took longer than job_timeout ({config.job_timeout:g} s)", retry=False)
            elif config.progress_timeout is not None and now - job.alive > config.progress_timeout:
                self._end(job, f"no batch was finished in progress_timeout ({config.progress_timeout:g} s)")

    def _end(self, job: _Job, why: str, retry: bool = True, at_once: bool = False) -> None:
        job.ending, job.retry = why, retry
        job.kill_at = time.monotonic() + _GRACE
        job.kills += at_once
        if job.kills > 3:  # it hangs in the kernel; or the server does, which the next start will show
            for child in job.children:
                child.failure = child.failure or "it does not even die of SIGKILL"
        self._signal(job, signal.SIGKILL if at_once else signal.SIGTERM)

    def _signal(self, job: _Job, signum: int) -> None:
        for child in job.children:
            self.server.signal(child, signum)

    # --- end ----------------------------------------------------------------------------------------------------

    def _ended(self, job: _Job) -> None:
        for child in job.children:
            child.channel.close()
        end = self._end_state(job) or self._failure(job)
        self._tidy(job)
        self.slots.free(job.device)
        if end is None:
            self._lost(job)
        elif end.status == "FAILED":
            self._failed(job, end)
        else:
            self.slots.worked(job.device)

    def _end_state(self, job: _Job) -> JobStatus | None:
        """What the job's spool says of its end."""
        if job.spool is None:  # it ended before there was one
            return None
        try:
            line = last_line(job.spool)
            event = decode(line) if line is not None else None
        finally:
            fcntl.flock(job.spool, fcntl.LOCK_UN)  # also for what the job may have left behind
            os.close(job.spool)
        if isinstance(event, JobStatusEvent) and event.payload.status in ("DONE", "FAILED", "STOPPED"):
            return event.payload
        return None

    def _failure(self, job: _Job) -> JobStatus | None:
        """Where several processes train together, the exception that came first; recorded here.

        None when one has ended without a word: what the others met then is its death.
        """
        if job.fell is not None or job.ending or not job.said:
            return None
        try:
            first = msgspec.json.decode(next(iter(job.said.values())), type=Failure)
        except msgspec.DecodeError:  # it was killed while it spoke
            return None
        return self._status(job, "FAILED", first.error, stacktrace=first.stacktrace, reason=first.reason)

    def _tidy(self, job: _Job) -> None:
        """Files that a killed job was about to give their names."""
        _unlink(self.paths.spool(job.source).with_suffix(".new"))
        main = job.children[0]
        if main.exit_status != 0:
            for path in self.paths.experiment(job.spec.experiment_id).glob(f".*.{main.pid}"):
                _unlink(path)
            remove_unfinished(self.paths.experiment(job.spec.experiment_id))

    def _failed(self, job: _Job, end: JobStatus) -> None:
        if end.reason == DEVICE_ERROR:
            if self.slots.failed(job.device):
                tell(f"warning: device cuda:{job.device} failed twice in a row and gets no more jobs")
            self._try_again(job)
        else:
            self.slots.worked(job.device)
            if self.config.retry_failed:
                self._try_again(job)

    def _lost(self, job: _Job) -> None:
        number = job.fell or 0
        how = job.children[number].failure or exit_text(job.children[number].exit_status or 0)
        if len(job.children) > 1 and job.fell is not None:
            how = f"process {number} of {len(job.children)}: {how}"
        if job.ending:
            how = f"{job.ending}: {how.removesuffix(' (out of memory?)')}"
        self._status(job, "LOST", how)
        if not (self.stopping or self._try_again(job)):  # when stopping, a warm start tries again
            times = self._tries(job)
            lost = f"lost {times} times, the last time: " if times > 1 else "lost: "
            self._status(job, "FAILED", lost + how)

    def _tries(self, job: _Job) -> int:
        return job.spec.attempt - self.first[job.spec.experiment_id] + 1

    def _try_again(self, job: _Job) -> bool:
        """Queue the next attempt, unless there have been enough."""
        spec = job.spec
        if not job.retry or self.stopping or self._tries(job) > self.config.max_retries:
            return False
        delay = min(60.0, self.config.retry_delay * 2 ** min(self._tries(job) - 1, 10))
        start = newest(self.paths.experiment(spec.experiment_id))
        spec = msgspec.structs.replace(spec, attempt=spec.attempt + 1, start=start)
        heapq.heappush(self.delayed, (time.monotonic() + delay, job.order, spec))
        self._emit(spec, "INIT", start_epoch=start.epoch if start else 0, reason=f"tried again after {delay:g} s")
        return True

    def _status(self, job: _Job, state: JobState, why: str, **more: Any) -> JobStatus:
        return self._emit(
            job.spec,
            state,
            starting_time=job.starting_time,
            finishing_time=time.time_ns() // 1_000_000,
            device=None if self.group else "cpu" if job.device is None else f"cuda:{job.device}",
            num_threads=job.spec.num_threads or self.num_threads,
            error=why,
            **more,
        )

    def _emit(self, spec: ExperimentSpec, state: JobState, **more: Any) -> JobStatus:
        status = JobStatus(
            grid_search_id=spec.grid_search_id,
            experiment_id=spec.experiment_id,
            job_id=spec.job_id,
            status=state,
            **more,
        )
        self.emit(status, spec.attempt)
        return status


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass

"""One run of a grid on a Ray cluster: the loop of the driver. Ray places the jobs, keeps the queue, and starts a job
again whose process or machine died.

    job ─► spool on its machine ─► station ─► `read` ─► copy of the spool here ─► forwarder ─► hub, board or servers

A job's end is what its spool says. One whose writer is gone without an end, or whose machine is gone, is LOST; when
Ray has started it again it asks which attempt it is, and is told once all that is known of the one before has been
read. Ray itself is asked only about what it knows best: that it gave up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mlgym.engine.executor import BY_SIGNAL, Emit, Stop
from mlgym.engine.station import Grant, News, allowed
from mlgym.errors import InputError, StorageError, tell
from mlgym.record.checkpoint_folder import remove_unfinished
from mlgym.record.events import EvaluationResultEvent, JobState, JobStatus, JobStatusEvent, decode
from mlgym.record.journal import Journal
from mlgym.record.spool import begin, new_source
from mlgym.specs import ExperimentSpec, RunPaths

_GRACE = 5.0
"""Seconds for killed jobs, and for stations at the end."""


@dataclass
class _Job:
    """An experiment that is to be run. An attempt is begun when a spool of it is seen."""

    spec: ExperimentSpec
    first: int
    scored: int
    """The last epoch whose scores are in the log."""
    attempt: int
    source: str = ""
    ref: Any = None
    tries: int = 0
    """How often Ray has started it again, by its last question."""
    asks: tuple[_Machine, str] | None = None
    """The machine and the name of a question that waits for its answer."""
    grant: Grant | None = None
    """The answer to the last question."""
    error: Exception | None = None
    """Ray has given up on it."""
    lost: int = 0
    over: bool = False
    known_after: dict[str, int] | None = None
    """For each machine the reading after which all spools of the last attempt have been seen."""


@dataclass
class _Copy:
    """A spool that is being copied from a machine."""

    node: str
    journal: Journal | None = None
    offset: int = 0
    ended: bool = False
    end: JobStatus | None = None


@dataclass
class _Machine:
    """A node with its station."""

    node: str
    actor: Any
    ref: Any = None
    begun: int = 0
    finished: int = 0
    done: list[str] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    failures: int = 0


@dataclass
class Driver:
    """One run of a grid."""

    ray: Any
    paths: RunPaths
    emit: Emit
    stop: Stop
    submit: Callable[[ExperimentSpec, str, int], Any]
    place: Callable[[str], Any]
    most: int
    num_threads: int
    jobs: dict[int, _Job] = field(default_factory=dict)
    waiting: deque[_Job] = field(default_factory=deque)
    sources: dict[str, tuple[_Job, int]] = field(default_factory=dict)
    """Of which job, and which attempt, a spool is."""
    copies: dict[str, _Copy] = field(default_factory=dict)
    ended: dict[str, _Copy] = field(default_factory=dict)
    """Copies of spools that nothing more is expected of."""
    machines: dict[str, _Machine] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    stopping: bool = False
    killed_at: float | None = None
    in_haste: bool = False
    next_look: float = 0.0
    warned: bool = False

    def run(self, specs: list[ExperimentSpec]) -> str | None:
        for spec in specs:
            job = _Job(spec, spec.attempt, spec.start.epoch if spec.start else -1, spec.attempt)
            self.jobs[spec.experiment_id] = job
            self.waiting.append(job)
        try:
            while True:
                self._obey()
                self._start()
                self._look_around()
                self._settle()
                if self._finished():
                    break
                self._listen()
        finally:
            self._leave()
        return BY_SIGNAL if self.stopping else None

    def _finished(self) -> bool:
        if self.killed_at and time.monotonic() > self.killed_at + _GRACE:
            for job in self._open():
                if self._copy(job) and job.lost < job.attempt:
                    self._lost(job, job.attempt, "killed by the user")
            return True
        return not (self._open() or (self.waiting and not self.stopping))

    def _open(self) -> list[_Job]:
        return [job for job in self.jobs.values() if job.source and not job.over]

    def _obey(self) -> None:
        """Pass on what the user wants."""
        if self.stop.requested() and not self.stopping:
            self.stopping = True
            for machine in self.machines.values():
                machine.actor.stop.remote()
            for job in self._open():
                if job.ref is not None and self._copy(job) is None:
                    self.ray.cancel(job.ref)  # if it has begun after all, it takes no notice
        if self.stop.kill_requested() and self.killed_at is None:
            self.killed_at = time.monotonic()
            for job in self._open():
                if job.ref is not None:
                    self.ray.cancel(job.ref, force=True)

    def _start(self) -> None:
        """Give Ray what is waiting: all of it, unless there is a limit."""
        if self.stopping or not self.waiting:
            return
        running = len(self._open())
        while self.waiting and running < self.most:
            running += 1
            job = self.waiting.popleft()
            job.source = self._source(job)
            spec = msgspec.structs.replace(job.spec, attempt=job.attempt)
            job.ref = self.submit(spec, job.source, job.scored)

    def _source(self, job: _Job) -> str:
        source = new_source(f"job-{job.spec.experiment_id}-{job.attempt}")
        self.sources[source] = job, job.attempt
        return source

    def _copy(self, job: _Job) -> _Copy | None:
        """What there is of the job's last attempt; None when it has not begun."""
        return self.copies.get(job.source) or self.ended.get(job.source)

    # --- what has become of machines and tasks ------------------------------------------------------------------

    def _look_around(self) -> None:
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + (0.1 if self.stopping else 0.5)
        alive = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        for node in self.machines.keys() - alive.keys():
            del self.machines[node]
        for node in {copy.node for copy in self.copies.values()} - alive.keys():
            self._gone(node)
        for node, about in alive.items():
            self.names[node] = name_of(about)
            if node not in self.machines:
                machine = self.machines[node] = _Machine(node, self.place(node))
                if self.stopping:
                    machine.actor.stop.remote()
        by_ref = {job.ref: job for job in self.jobs.values() if job.ref is not None}
        for ref in self._ready(by_ref, 0, len(by_ref)):
            job = by_ref[ref]
            job.ref = None
            try:
                if self.ray.get(ref) is None:  # told to leave, or stopped before it began
                    job.over = True
            except Exception as error:  # whatever Ray wraps it in
                job.error = error

    def _ready(self, refs: Iterable[Any], seconds: float, at_most: int = 1) -> list[Any]:
        """Those that have an answer, or the first that comes."""
        if not (waited := [*refs]):
            time.sleep(seconds)
            return []
        ready: list[Any] = self.ray.wait(waited, num_returns=at_most, timeout=seconds, fetch_local=False)[0]
        return ready

    def _gone(self, node: str) -> None:
        """Nothing more will come from a machine; what was running there is lost."""
        for source, copy in list(self.copies.items()):
            if copy.node == node:
                self._ended(source, copy, f"its machine {self.names[node]} is gone")

    # --- spools -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Wait for news of any machine, and take them in."""
        for machine in self.machines.values():
            if machine.ref is None:
                offsets = {s: c.offset for s, c in self.copies.items() if c.node == machine.node}
                machine.begun += 1
                wait = 0.0 if self.in_haste else 1.0
                machine.ref = machine.actor.read.remote(offsets, machine.done, machine.grants, machine.asked, wait)
                machine.done, machine.grants = [], {}
        self.in_haste = False
        by_ref = {machine.ref: machine for machine in self.machines.values()}
        for ref in self._ready(by_ref, 0.1):
            machine = by_ref[ref]
            machine.ref = None
            try:
                news: News = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                self._unanswered(machine, error)
                continue
            machine.finished, machine.failures = machine.begun, 0
            self._take(machine, news)

    def _unanswered(self, machine: _Machine, error: Exception) -> None:
        """A station has died, and another takes its place; or its machine is gone, or cannot be reached."""
        machine.failures += 1
        unreachable = isinstance(error, self.ray.exceptions.ActorUnavailableError)
        if unreachable and machine.failures == 1:
            return  # asked once more
        if unreachable:
            self._gone(machine.node)
        del self.machines[machine.node]

    def _take(self, machine: _Machine, news: News) -> None:
        for source, (lines, offset) in news.lines.items():
            copy = self.copies.setdefault(source, _Copy(machine.node))
            try:
                if copy.journal is None:
                    copy.journal = begin(self.paths.spool(source))
                copy.journal.append(lines)
            except StorageError as error:  # it is read again
                if not self.warned:
                    tell(f"warning: events wait on {self.names[machine.node]}: {error}")
                self.warned = True
                return
            copy.node, copy.offset = machine.node, offset
            self._learn(source, copy, lines)
        for source in news.ended:
            self._ended(source, self.copies.setdefault(source, _Copy(machine.node)), "its process died")
            machine.done.append(source)
        for name in news.asks:
            machine.asked.add(name)
            experiment_id, _, tries = name.partition("-")
            job = self.jobs.get(int(experiment_id))
            if job is None or int(tries) < job.tries:  # the question of a process that has died since
                continue
            if int(tries) > job.tries:
                job.tries, job.grant, job.known_after = int(tries), None, None
            if job.grant:  # it was lost with the station before
                machine.grants[name] = job.grant
            else:
                job.asks = machine, name

    def _learn(self, source: str, copy: _Copy, lines: bytes) -> None:
        """The scores in these lines, and the end state if it is there."""
        job, _ = self.sources.get(source, (None, 0))
        for line in lines.splitlines():
            if line.startswith(b'{"event_type":"evaluation_result"') and job:
                event = decode(line)
                if isinstance(event, EvaluationResultEvent):
                    job.scored = max(job.scored, event.payload.epoch)
        last = decode(lines[lines.rfind(b"\n", 0, -1) + 1 : -1])
        if isinstance(last, JobStatusEvent) and last.payload.status in ("DONE", "FAILED", "STOPPED"):
            copy.end = last.payload

    def _ended(self, source: str, copy: _Copy, how: str) -> None:
        """Nothing more will come of a spool."""
        self.copies.pop(source, None)
        self.ended[source] = copy
        copy.ended = True
        if copy.journal:
            copy.journal.close()
            copy.journal = None
        job, attempt = self.sources.get(source, (None, 0))
        if job is None:  # an earlier run's
            return
        if copy.end:
            job.over = True
        elif not job.over and attempt > job.lost:
            self._lost(job, attempt, "killed by the user" if self.killed_at else how)

    # --- jobs that were lost ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        for job in self._open():
            if not (job.asks or job.error or job.ref is None):
                continue
            copy = self._copy(job)
            known = copy.ended if copy else self._all_read(job)
            if not known:
                self.in_haste = True
            elif job.asks:
                self._grant(job)
            elif isinstance(job.error, self.ray.exceptions.TaskCancelledError) and copy is None:
                job.over = True
            elif job.error:
                self._given_up(job, job.error)
            else:  # Ray says that it ended, but its last events went with its machine
                self._again(job)
        for job in [job for job in self.jobs.values() if job.over and job.asks]:
            self._answer(job, Grant("", 0, 0, go=False))

    def _all_read(self, job: _Job) -> bool:
        """Whether every machine has been read since the question, so that no spool can be there unseen."""
        if job.known_after is None:
            job.known_after = {node: machine.begun + 1 for node, machine in self.machines.items()}
        return all(
            self.machines[node].finished >= number for node, number in job.known_after.items() if node in self.machines
        )

    def _grant(self, job: _Job) -> None:
        self._next_attempt(job, "started again by Ray", "its process died before it began")
        job.source = self._source(job)
        self._answer(job, Grant(job.source, job.attempt, job.scored))

    def _answer(self, job: _Job, grant: Grant) -> None:
        assert job.asks
        machine, name = job.asks
        job.asks, job.grant = None, grant
        machine.grants[name] = grant

    def _again(self, job: _Job) -> None:
        self._next_attempt(job, "its last events were lost with its machine", "its machine is gone")
        job.source = ""
        self.waiting.appendleft(job)

    def _next_attempt(self, job: _Job, why: str, how: str) -> None:
        if job.lost < job.attempt:
            self._lost(job, job.attempt, how)
        job.attempt += 1
        job.known_after = None
        start = allowed(self.paths.experiment(job.spec.experiment_id), job.scored)
        self._emit(job, job.attempt, "INIT", start_epoch=start.epoch if start else max(job.scored, 0), reason=why)

    def _given_up(self, job: _Job, error: Exception) -> None:
        """Ray does not start it again."""
        job.over = True
        how = gist(error)
        if isinstance(error, self.ray.exceptions.RayTaskError):  # not the experiment's: its own are caught
            self._emit(job, job.attempt, "FAILED", error=how)
            return
        if job.lost < job.attempt:
            self._lost(job, job.attempt, "killed by the user" if self.killed_at else how)
        if not self.stopping:  # when stopping, a warm start tries again
            times = job.attempt - job.first + 1
            lost = f"lost {times} times, the last time: " if times > 1 else "lost: "
            self._emit(job, job.attempt, "FAILED", error=lost + how)

    def _lost(self, job: _Job, attempt: int, how: str) -> None:
        job.lost = max(job.lost, attempt)
        folder = self.paths.experiment(job.spec.experiment_id)
        for left in folder.glob(".*.json.*"):
            left.unlink(missing_ok=True)
        remove_unfinished(folder)
        self._emit(job, attempt, "LOST", error=how)

    def _emit(self, job: _Job, attempt: int, state: JobState, **more: Any) -> None:
        status = JobStatus(
            grid_search_id=job.spec.grid_search_id,
            experiment_id=job.spec.experiment_id,
            job_id=msgspec.structs.replace(job.spec, attempt=attempt).job_id,
            status=state,
            finishing_time=None if state == "INIT" else time.time_ns() // 1_000_000,
            **more,
        )
        self.emit(status, attempt)

    def _leave(self) -> None:
        for copy in self.copies.values():
            if copy.journal:
                copy.journal.close()
        finished = not self.stopping and not self._open()
        refs = []
        for machine in self.machines.values():
            with suppress(Exception):  # it may be gone
                refs.append(machine.actor.read.remote({}, machine.done, {}, set(), 0.0))
                refs.append(machine.actor.close.remote(finished))
        if refs:
            self.ray.wait(refs, num_returns=len(refs), timeout=_GRACE)
        for machine in self.machines.values():
            with suppress(Exception):
                self.ray.kill(machine.actor)


def name_of(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"


def gist(error: Exception) -> str:
    """The gist of what Ray says."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return str(cause) if isinstance(cause, InputError) else f"{type(cause).__name__}: {cause}"
    kind = type(error).__name__
    if kind == "WorkerCrashedError":
        return "its process died"
    if kind == "OutOfMemoryError":
        return "out of memory: Ray ended its process"
    return next(iter(str(error).strip().splitlines()), kind)

"""What runs on the machines of a Ray cluster: jobs, which write their spools to the machine's own disk, and on each
machine one station, which hands them on to the driver and keeps nothing in memory that a file does not say.

    <name>.jsonl      the spool of a job; its flock says that the job is alive
    <id>-<try>.ask    a job that Ray has started again asks which attempt it is, and from where
    <id>-<try>.go     the driver's answer
    stop              jobs finish their batch and end

Importing this imports neither torch nor Ray: a station needs no torch, and the functions below run where Ray has
brought them.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mlgym.engine.checking import Checked, check
from mlgym.engine.dividing import Divided, divide
from mlgym.engine.fork_service import find
from mlgym.errors import InputError, StorageError, tell
from mlgym.plan.folds import CrossValidation, NestedCrossValidation
from mlgym.processes import flush_c_output
from mlgym.record.checkpoint_folder import MANIFEST, available
from mlgym.record.events import decode_lines
from mlgym.record.journal import is_held, read_blocks
from mlgym.record.remote import Keeper, Remote, newer_checkpoint
from mlgym.specs import Checkpoint, ExperimentSpec, RunPaths

if TYPE_CHECKING:
    import torch

    from mlgym.build.registry import Registry

_LOOK = 0.02
"""Seconds between two looks at the folder."""

_MOST = 4 << 20
"""Bytes of one spool in one answer."""


class Code(NamedTuple):
    """How a process on another machine becomes one that could run the user's script."""

    blueprint: dict[str, str] | None
    argv: list[str]
    path: list[str]
    folder: str
    shipped: bool
    """Whether Ray has brought a copy of `folder` to each machine; otherwise they all see it."""


class Home(NamedTuple):
    """Where a grid search is, and how a machine finds out whether it sees it."""

    paths: RunPaths
    mark: str
    """What stands in the grid search's lock."""
    own: bool
    """Whether all of the cluster is this one machine, and ends with the run."""
    rest: tuple[str, str | None] | None
    """URL and token of the server that has the checkpoints."""

    @property
    def machines(self) -> Path:
        """The folder with a folder for each node that lives on this machine (in tests: several)."""
        if self.own:
            return self.paths.machines
        name = hashlib.sha256(str(self.paths.root).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mlgym-{os.getuid()}" / name

    def here(self, node: str) -> NodePaths:
        """The paths as a node has them."""
        local = self.machines / node
        try:
            shared = self.own or self.paths.lock.read_text() == self.mark
        except OSError:
            shared = False
        storage = self.paths.event_storage if shared else local / "storage"
        return NodePaths(storage, self.paths.grid_search_id, local, shared)

    def make(self, node: str) -> NodePaths:
        """The same, and the node's folder is there. Raises `StorageError` when others could write to it."""
        paths = self.here(node)
        parent = self.machines.parent
        try:
            if not self.own:
                parent.mkdir(mode=0o700, exist_ok=True)
                about = parent.lstat()
                if about.st_uid != os.getuid() or not S_ISDIR(about.st_mode) or about.st_mode & 0o077:
                    raise StorageError(f"{parent}: others can write there: delete it, or name another place in TMPDIR")
            paths.local.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{paths.local}: cannot be written: {error.strerror}") from None
        return paths


class NodePaths(RunPaths, frozen=True):
    """The spools are on the machine's own disk; the rest is where all see it or, if not `shared`, here as well."""

    local: Path
    shared: bool

    @property
    def spools(self) -> Path:
        return self.local

    @property
    def stop(self) -> Path:
        return self.local / "stop"


class Grant(msgspec.Struct):
    """What a job that was started again is told."""

    source: str
    attempt: int
    scored: int
    """The last epoch whose scores the driver has: what a checkpoint knows beyond it would be missing in the log."""
    go: bool = True
    """False when the experiment has ended already."""


class News(NamedTuple):
    """What a station has found."""

    lines: dict[str, tuple[bytes, int]]
    """New lines of a spool, and the offset after them."""
    ended: list[str]
    """Spools that have been read to their end, whose writers are gone."""
    asks: list[str]


# --- stations -----------------------------------------------------------------------------------------------


class Station:
    """Ray runs it as an actor, with a second thread for `stop`."""

    def __init__(self, home: Home, node: str, others: list[str]) -> None:
        """`others`: the living nodes. What the dead have left on this machine is taken over."""
        self._paths = home.make(node)
        self._home = home
        self._looked = 0.0
        self._warned = False
        self._paths.stop.unlink(missing_ok=True)
        keeps = home.rest and not self._paths.shared
        self._keeper = Keeper(Remote(*home.rest), self._paths) if home.rest and keeps else None
        for spool in home.machines.glob("*/*.jsonl"):
            if spool.parent.name not in others and not is_held(spool):
                with suppress(OSError):
                    spool.rename(self._paths.local / spool.name)

    def read(
        self, offsets: dict[str, int], done: list[str], grants: dict[str, Grant], asked: set[str], wait: float
    ) -> News:
        """What is new beyond `offsets`, at the latest after `wait` seconds. Spools that are `done` are deleted,
        `grants` are handed out; questions in `asked` are known."""
        for name in done:
            self._paths.spool(name).unlink(missing_ok=True)
        for name, grant in grants.items():
            new = self._paths.local / f"{name}.new-go"
            new.write_bytes(msgspec.json.encode(grant))
            new.rename(self._paths.local / f"{name}.go")
        end = time.monotonic() + wait
        while True:
            time.sleep(max(0.0, self._looked + _LOOK - time.monotonic()))
            self._looked = time.monotonic()
            news = self._look(offsets, asked)
            if news.lines or news.ended or news.asks or time.monotonic() >= end:
                return news

    def _look(self, offsets: dict[str, int], asked: set[str]) -> News:
        news = News({}, [], [])
        for entry in sorted(os.listdir(self._paths.local)):  # noqa: PTH208 (names are all it takes)
            name, _, kind = entry.rpartition(".")
            if kind == "jsonl":
                self._read(name, offsets.get(name, 0), news)
            elif kind == "ask" and name not in asked:
                news.asks.append(name)
        return news

    def _read(self, name: str, offset: int, news: News) -> None:
        path = self._paths.spool(name)
        ended = not is_held(path)  # asked before reading: nothing can be written after a "yes"
        lines = b""
        for block in read_blocks(path, offset):
            lines += block.lines
            offset = block.end
            if len(lines) > _MOST:
                ended = False
                break
        if lines:
            try:
                if self._keeper:
                    self._keeper.before(decode_lines(lines))
            except StorageError as error:  # the events wait, the job does not
                if not self._warned:
                    tell(f"warning: checkpoints wait: {error}")
                self._warned = True
                return
            news.lines[name] = (lines, offset)
        if ended:
            news.ended.append(name)

    def stop(self) -> None:
        """Have the jobs of this machine finish their batch and end."""
        self._paths.stop.touch()

    def close(self, finished: bool) -> None:
        """The run is over. What the jobs printed stays, and if it is not `finished`, so do checkpoints."""
        for entry in self._paths.local.iterdir():
            if entry.is_file():
                entry.unlink(missing_ok=True)
        if finished and not self._paths.shared:
            for manifest in self._paths.root.glob(f"*/*/{MANIFEST}"):
                shutil.rmtree(manifest.parent, ignore_errors=True)
        for folder in (self._paths.local, self._home.machines):
            with suppress(OSError):  # not empty
                folder.rmdir()


def sees(path: str, content: str) -> bool:
    """Whether a file is here as well."""
    try:
        return Path(path).read_text() == content
    except OSError:
        return False


# --- tasks --------------------------------------------------------------------------------------------------

_loaded: dict[str, Registry] = {}
_began_in = ""


def _registry(code: Code) -> Registry:
    """The user's parts. Ray may use a process for many jobs: what was loaded for the first serves all."""
    global _began_in  # noqa: PLW0603 (a process has one current directory as well)
    from mlgym.engine import worker

    _began_in = _began_in or os.getcwd()  # noqa: PTH109 (where Ray has put the copy)
    folder = _began_in if code.shipped else code.folder
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder} is not on this machine ({error.strerror}); leave out `working_dir: null` and Ray brings it"
        ) from None

    def moved(path: str) -> str:
        inside = code.shipped and Path(path).is_relative_to(code.folder)
        return str(Path(folder) / Path(path).relative_to(code.folder)) if inside else path

    key = repr(code)
    if key not in _loaded:
        sys.argv = list(code.argv)
        sys.path[:0] = [path for path in map(moved, code.path) if path not in sys.path and Path(path).exists()]
        where = dict(code.blueprint) if code.blueprint else None
        if where and "script" in where:
            where["script"] = moved(where["script"])
            if not Path(where["script"]).exists():
                raise InputError(f"{where['script']} is not on this machine; start the run in the script's folder")
        _loaded[key] = worker.registry_of(find(where) if where else None)
    return _loaded[key]


def _device(on_gpu: bool) -> torch.device:
    from mlgym.engine import worker

    return worker.device(0 if on_gpu else None)  # Ray hides the other GPUs


def probe_task() -> tuple[InputError | None, list[dict[str, Any]]]:
    """The error about a GPU that cannot be used, or None, and the GPUs that a job sees."""
    from mlgym.engine.provenance import gpus

    try:
        _device(True)
    except InputError as error:
        return error, []
    return None, gpus()


def check_task(code: Code, specs: list[ExperimentSpec], on_gpu: bool, num_threads: int) -> Checked:
    """Try `specs`, on parts that are thrown away."""
    try:
        registry = _registry(code)
        _prepare(num_threads)
        return check(specs, registry, _device(on_gpu))
    except InputError as error:
        return Checked(error=error)


def divide_task(code: Code, specs: list[ExperimentSpec], wanted: CrossValidation | NestedCrossValidation) -> Divided:
    """Divide the data."""
    try:
        return divide(specs, wanted, _registry(code))
    except InputError as error:
        return Divided(error=error)


def job_task(
    code: Code, home: Home, spec: ExperimentSpec, source: str, scored: int, on_gpu: bool, num_threads: int
) -> str | None:
    """Run an experiment; how it ended, None when it was not begun."""
    import ray

    # A task that waits is cancelled by Ray; one that has begun ends by itself, and not in the middle of a write.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    paths = home.make(ray.get_runtime_context().get_node_id())
    if not paths.shared and not home.rest:
        raise InputError(f"{paths.event_storage} is not on this machine, and no gs_rest_api_endpoint is named")
    from mlgym.engine import worker

    registry = _registry(code)
    process: Any = ray._private.worker.global_worker
    tries: int = process.core_worker.get_current_task_attempt_number()
    if tries:
        grant = _ask(paths, f"{spec.experiment_id}-{tries}")
        if grant is None or not grant.go:
            return None
        source, scored = grant.source, grant.scored
        spec = msgspec.structs.replace(spec, attempt=grant.attempt)
    if paths.stop.exists():
        return None
    with _output(paths.output(spec.experiment_id), spec.attempt):
        if tries or (spec.start and not paths.shared):
            remote = Remote(*home.rest) if home.rest and not paths.shared else None
            spec = msgspec.structs.replace(spec, start=_start(paths, spec.experiment_id, scored, remote))
        _prepare(spec.num_threads or num_threads)
        try:
            return worker.run_job(spec, paths, source, registry, _device(on_gpu), _stop_requested(paths.stop))
        except StorageError as error:
            tell(f"nothing can be recorded any more: {error}")
            os._exit(74)  # EX_IOERR; Ray starts it again, perhaps elsewhere


def _prepare(num_threads: int) -> None:
    from mlgym.engine import worker

    worker.settle(num_threads)
    if "torch._dynamo" in sys.modules:  # what was compiled for one experiment must not matter to the next
        sys.modules["torch._dynamo"].reset()


def _ask(paths: NodePaths, name: str) -> Grant | None:
    """What the driver says; None when there is to be a stop first."""
    question, answer = (paths.local / f"{name}.{kind}" for kind in ("ask", "go"))
    question.touch()
    while not paths.stop.exists():
        with suppress(FileNotFoundError):
            found = msgspec.json.decode(answer.read_bytes(), type=Grant)
            question.unlink(missing_ok=True)
            answer.unlink()
            return found
        time.sleep(_LOOK)
    question.unlink(missing_ok=True)
    return None


def _start(paths: RunPaths, experiment_id: int, scored: int, remote: Remote | None) -> Checkpoint | None:
    """The newest checkpoint to go on from, here or on the server, from which it is then fetched."""
    here = allowed(paths.experiment(experiment_id), scored)
    if remote:
        try:
            there = newer_checkpoint(remote, paths, experiment_id, here, fetch=False)
            if there and there != here and _fits(there, scored):
                return newer_checkpoint(remote, paths, experiment_id, here, fetch=True)
        finally:
            remote.close()
    return here


def allowed(folder: Path, scored: int) -> Checkpoint | None:
    """The newest checkpoint that knows no scores which the log would miss; None when there is none."""
    return next((checkpoint for checkpoint in available(folder) if _fits(checkpoint, scored)), None)


def _fits(checkpoint: Checkpoint, scored: int) -> bool:
    """The one at the end of an epoch brings the scores of that epoch itself."""
    return checkpoint.epoch <= scored + (not checkpoint.batch)


def _stop_requested(file: Path) -> Callable[[], bool]:
    """Called after each batch; looks every 50 ms."""
    next_look = 0.0
    stopping = False

    def requested() -> bool:
        nonlocal next_look, stopping
        now = time.monotonic()
        if not stopping and now >= next_look:
            next_look = now + 0.05
            stopping = file.exists()
        return stopping

    return requested


@contextmanager
def _output(path: Path, attempt: int) -> Iterator[None]:
    """What is printed goes to `path`, until the process is Ray's again."""
    from mlgym.engine import worker

    streams = sys.stdout, sys.stderr
    descriptors = os.dup(1), os.dup(2)
    worker.redirect_output(path, attempt)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # whatever the job has put there
                stream.flush()
        flush_c_output()
        for number, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdout, sys.stderr = streams
        faulthandler.unregister(signal.SIGTERM)

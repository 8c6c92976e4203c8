"""Fresh processes at the price of a fork: a server that has imported torch and the user's module, and forks on request.

Both ends live here. `ForkServer` is the parent's; it never imports torch. `serve` is the server's: one thread, no
CUDA, no jobs of its own. It forks children, each in a session of its own, says when one has ended, and takes with it
whatever that one left behind. When the parent is gone it kills its children and leaves; when it is gone itself, the
kernel kills them.

    parent -> server   F + a socket: fork, the child talks on that socket     K: signal a child     I: import modules
    server -> parent   R: ready, or why not     S: the pid of a child     E: why not     X: pid and exit status
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import json
import os
import pickle
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlgym.errors import InputError, MLgymError, StorageError
from mlgym.processes import adopt_orphans, children, die_with_parent, exit_text, prefer_for_oom, use_huge_pages
from mlgym.schema import import_path

if TYPE_CHECKING:
    from mlgym.build.registry import Registry

Blueprint = Callable[["Registry"], None]

_PID = struct.Struct("<ii")
_LENGTH = struct.Struct("<Q")
_LONGEST_FOLDER = 50  # the path of a socket, which loader workers put below it, can have 107 characters
_MARK = "MLGYM_SCRATCH"
_MESSAGE = 1 << 17  # of a control message; a socket takes twice that


# --- objects between a process and its own child ------------------------------------------------------------


def send(channel: socket.socket, value: Any) -> None:
    """Send an object to the process at the other end. Pickle never comes from anywhere but our own child or parent."""
    data = pickle.dumps(value)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket) -> Any:
    """The object that the other end sent. Raises `EOFError` when it has gone."""
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
    return pickle.loads(_exactly(channel, length))  # noqa: S301 (an inherited socket, no disk, no network)


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = channel.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# --- the parent's end ---------------------------------------------------------------------------------------


class Child:
    """A process that the server forked; `channel` leads to it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pid: int | None = None
        self.exit_status: int | None = None
        """As `os.waitstatus_to_exitcode` says it, once it has ended."""
        self.failure: str | None = None
        """Why there is no exit status: it could not be forked, or the server has died."""

    @property
    def ended(self) -> bool:
        return self.exit_status is not None or self.failure is not None


class ForkServer:
    """Starts the server and asks it for children. Loading goes on in the background until `wait_ready`."""

    def __init__(self, prepare: str, blueprint: Blueprint | None = None, num_threads: int = 1) -> None:
        """`prepare`, the dotted path of a function, is called once in the server, with the blueprint. What it returns
        is handed to every child."""
        if called_with is not None:
            raise InputError("the script starts a run whenever it is loaded: put it below `if __name__ == '__main__':`")
        whereabouts = _whereabouts(blueprint)
        folder = tempfile.gettempdir()
        if len(folder) > _LONGEST_FOLDER:
            folder = "/tmp"
        self._scratch = f"{folder}/mlgym-{os.urandom(4).hex()}"
        self._settings = {
            "parent": os.getpid(),
            "argv": sys.argv,
            "blueprint": whereabouts,
            "prepare": prepare,
            "scratch": self._scratch,
        }
        self._num_threads = num_threads
        self._modules: Sequence[str] = ()
        self._spawn()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [entry or str(Path.cwd()) for entry in sys.path if isinstance(entry, str)]
        code = (
            f"import sys; sys.path[:] = {path!r}; from mlgym.engine.forkserver import serve; serve({theirs.fileno()})"
        )
        options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *options, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what the user's module prints, the parent has printed already
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent to pass on
                env={**dict.fromkeys(limits, str(self._num_threads)), **os.environ, _MARK: self._scratch},
            )
        self._control = ours
        self.ready = False
        self._starting: deque[Child] = deque()
        self._children: dict[int, Child] = {}
        ours.send(json.dumps(self._settings).encode())

    def fileno(self) -> int:
        """To wait on: readable when `update` has something to do."""
        return self._control.fileno()

    def wait_ready(self) -> None:
        """Wait until the server has loaded everything. Raises `InputError` when the user's module cannot be loaded."""
        while not self.ready:
            self._take_ready()

    def _take_ready(self) -> None:
        data = self._receive()
        if not data:
            how = exit_text(self._process.wait())
            raise StorageError(f"the process that starts jobs died while it was loading: {how}")
        failure = json.loads(data[1:])
        if failure:
            raise InputError(f"the run's module could not be loaded for its jobs: {failure}")
        self.ready = True
        if self._modules:
            self.preload(self._modules)

    def preload(self, modules: Sequence[str]) -> None:
        """Have the server import these as well; one that cannot be imported is left for the jobs to meet."""
        self._modules = modules
        message = b"I" + json.dumps(modules).encode()
        if len(message) < _MESSAGE:
            self._send(message)

    def start(self, function: str, *arguments: Any) -> Child:
        """Fork a child that calls `function`, a dotted path, with (channel, what `prepare` returned, *arguments)."""
        ours, theirs = socket.socketpair()
        child = Child(ours)
        with theirs:
            self._starting.append(child)
            self._send(b"F", [theirs.fileno()])
        try:
            send(ours, (function, arguments))
        except OSError:  # it is gone already; `update` will say how
            pass
        return child

    def signal(self, child: Child, signum: int) -> None:
        """Send a signal to the child, and with SIGKILL to everything it has started."""
        if child.pid is not None and not child.ended:
            self._send(b"K" + _PID.pack(child.pid, signum))

    def kill(self) -> None:
        """Kill a server that does not answer; the kernel kills its children."""
        _kill_group(self._process.pid, signal.SIGKILL)

    def _send(self, message: bytes, fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._control, [message], fds or [])
        except OSError:  # the server has died: `update` sees the end of its messages
            pass

    def _receive(self) -> bytes:
        try:
            return self._control.recv(_MESSAGE)
        except OSError:
            return b""

    def update(self) -> bool:
        """Take in what the server says. False when it had died: its children are lost, another is being loaded."""
        while wait([self._control], 0):
            if not self.ready:
                self._take_ready()
                continue
            data = self._receive()
            if not data:
                self._died()
                return False
            kind, rest = data[:1], data[1:]
            if kind == b"S":
                child = self._starting.popleft()
                child.pid, _ = _PID.unpack(rest)
                self._children[child.pid] = child
            elif kind == b"E":
                self._starting.popleft().failure = f"no process could be started: {rest.decode()}"
            elif kind == b"X":
                pid, status = _PID.unpack(rest)
                self._children.pop(pid).exit_status = status
        return True

    def _died(self) -> None:
        for child in self._starting:
            child.failure = "the process that starts jobs has died"
        for pid, child in self._children.items():
            child.failure = "the process that starts jobs has died"
            _kill_group(pid, signal.SIGKILL)  # the kernel has killed it; here goes what it had started
        for path in Path("/proc").glob("[0-9]*/environ"):  # also in sessions of its own
            try:
                if self._scratch.encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:
                continue
        self._control.close()
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._spawn()

    def close(self) -> None:
        """End the server and every child, at once."""
        if not self.ready:
            self.kill()
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _whereabouts(blueprint: Blueprint | None) -> dict[str, str] | None:
    """How another process finds the blueprint: the script to load, and the function's module and name."""
    if blueprint is None:
        return None
    name = getattr(blueprint, "__qualname__", None)
    if not isinstance(name, str):
        raise InputError(f"the blueprint must be a function, so that other processes can find it, not {blueprint!r}")
    found = {"module": blueprint.__module__, "name": name}
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":
        return found | {"script_module": spec.name}
    if file is not None:
        return found | {"script": str(Path(file).absolute())}
    if blueprint.__module__ == "__main__":
        raise InputError("a blueprint typed at a prompt cannot be found by other processes; use `type: main_process`")
    return found


# --- the server's end ---------------------------------------------------------------------------------------

called_with: list[Blueprint | None] | None = None
"""While the user's script is being loaded here: what it calls `mlgym.run` with, should it not ask for `__main__`."""


def serve(fd: int) -> None:
    """The whole life of the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    settings = json.loads(control.recv(_MESSAGE))
    die_with_parent(settings["parent"])  # only while loading: afterwards the end of `control` tells
    sys.argv = settings["argv"]
    prepared, failure = None, ""
    try:
        prepared = _load(settings)
    except BaseException as error:
        failure = str(error) if isinstance(error, MLgymError) else f"it raised\n{traceback.format_exc()}"
    die_with_parent(0, 0)
    try:
        control.send(b"R" + json.dumps(failure[-_MESSAGE // 4 :]).encode())
        if not failure:
            _Server(control, prepared, settings["scratch"]).run()
    except OSError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _load(settings: dict[str, Any]) -> Any:
    import torch

    torch.set_num_threads(1)  # a pool of threads would be lost in the fork, and the child wait for it for ever
    where = settings["blueprint"]
    prepared = import_path(settings["prepare"])(_find(where) if where else None)
    # The first optimizer step imports half of torch again; the jobs inherit it.
    weight = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)
    weight(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    _settle()
    return prepared


def _settle() -> None:
    """Before children are forked: what they share stays shared, and is quick to share."""
    gc.collect()
    gc.freeze()  # the collector of a child leaves these pages alone
    use_huge_pages()


def _find(where: dict[str, str]) -> Blueprint | None:
    """Load the script as jobs see it, under another name than `__main__`, and find the blueprint."""
    global called_with  # noqa: PLW0603 (`mlgym.run`, called by the script, has no other way to reach us)
    called_with = []
    module = ModuleType("__mp_main__")
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module  # where pickled objects of the script look
    try:
        if "script_module" in where:
            spec = importlib.util.find_spec(where["script_module"])
            assert spec is not None
            assert spec.loader is not None
            module.__spec__, module.__package__, module.__file__ = spec, spec.parent, spec.origin
            code = spec.loader.get_code(spec.name)  # type: ignore[attr-defined]
        elif "script" in where:
            path = Path(where["script"])
            module.__file__ = str(path)
            code = compile((path / "__main__.py" if path.is_dir() else path).read_bytes(), path, "exec")
        else:
            code = compile("", "", "exec")
        exec(code, module.__dict__)
    except SystemExit:
        if called_with:
            return called_with[0]
        raise
    finally:
        called_with = None
    if where["module"] != "__main__":
        found: Blueprint = import_path(f"{where['module']}:{where['name']}")
        return found
    if where["name"] not in module.__dict__:
        raise InputError(
            f"the blueprint {where['name']!r} cannot be found by other processes: define it with `def` at the top "
            "level of the script"
        )
    blueprint: Blueprint = module.__dict__[where["name"]]
    return blueprint


class _Server:
    def __init__(self, control: socket.socket, prepared: Any, scratch: str) -> None:
        self._control = control
        self._prepared = prepared
        self._scratch = scratch
        self._children: set[int] = set()

    def run(self) -> None:
        adopt_orphans()
        os.makedirs(self._scratch, 0o700)  # noqa: PTH103
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whoever started us may have blocked SIGCHLD
        woken, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            while True:
                ready, _, _ = select.select([self._control, woken], [], [])
                if woken in ready:
                    woken.recv(4096)
                    self._reap()
                if self._control in ready:
                    data, fds, _, _ = socket.recv_fds(self._control, _MESSAGE, 1)
                    if not data:
                        return
                    self._obey(data, fds, (woken, wake))
        finally:
            signal.set_wakeup_fd(-1)
            woken.close()
            wake.close()
            end = time.monotonic() + 3
            while (left := _others()) and time.monotonic() < end:  # the orphans of the dead become ours
                for pid in left:
                    _kill_group(pid, signal.SIGKILL)
                for pid in left:
                    _bury(pid)
                time.sleep(0.002)
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _obey(self, data: bytes, fds: list[int], sockets: tuple[socket.socket, ...]) -> None:
        kind, rest = data[:1], data[1:]
        if kind == b"F":
            self._fork(fds[0], sockets)
        elif kind == b"K":
            pid, signum = _PID.unpack(rest)
            if pid in self._children:
                _kill_group(pid, signum)
        elif kind == b"I":
            for name in json.loads(rest):
                try:
                    __import__(name)
                except BaseException:
                    continue
            _settle()

    def _fork(self, fd: int, sockets: tuple[socket.socket, ...]) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(fd)
            self._control.send(b"E" + str(error.strerror).encode())
            return
        if pid == 0:
            try:
                die_with_parent(server)
                signal.set_wakeup_fd(-1)
                adopt_orphans()  # its own are its own, while it lives
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for inherited in (self._control, *sockets):
                    inherited.close()
                os.setsid()
                tempfile.tempdir = os.environ["TMPDIR"] = self._folder(os.getpid())
                os.makedirs(tempfile.tempdir, 0o700)  # noqa: PTH103
                _live(socket.socket(fileno=fd), self._prepared)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        os.close(fd)
        self._children.add(pid)
        self._control.send(b"S" + _PID.pack(pid, 0))

    def _folder(self, pid: int) -> str:
        """A child's own folder for temporary files: the sockets of killed loader workers would stay for ever."""
        return f"{self._scratch}/{pid}"

    def _reap(self) -> None:
        for pid in list(self._children):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                continue
            _kill_group(pid, signal.SIGKILL)  # before its number is free for others
            if found.si_code != os.CLD_EXITED:
                _sweep(pid)
            _, status = os.waitpid(pid, 0)
            self._children.remove(pid)
            shutil.rmtree(self._folder(pid), ignore_errors=True)
            self._control.send(b"X" + _PID.pack(pid, os.waitstatus_to_exitcode(status)))
        for pid in _others() - self._children:  # left behind by the dead, perhaps in a session of its own
            _kill_group(pid, signal.SIGKILL)
            _bury(pid)


def _others() -> set[int]:
    """The server's children, without Python's own that looks after shared memory: that ends by itself, last of all."""
    return children() - {resource_tracker._resource_tracker._pid}  # type: ignore[attr-defined]


def _bury(pid: int) -> None:
    """Wait for a killed process, if it is dead already."""
    try:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            _sweep(pid)
            os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def _sweep(pid: int) -> None:
    """Remove what torch may have left of a killed process in shared memory."""
    for left in Path("/dev/shm").glob(f"torch_{pid}_*"):
        left.unlink(missing_ok=True)


def _kill_group(pid: int, signum: int) -> None:
    """A child, with SIGKILL its whole group. It may not have its own session yet, so it is named as well."""
    for end in (os.killpg, os.kill) if signum == signal.SIGKILL else (os.kill,):
        try:
            end(pid, signum)
        except OSError:
            pass


def _live(channel: socket.socket, prepared: Any) -> None:
    """The whole life of a child."""
    atexit._clear()  # what the server registered is for the server to do
    prefer_for_oom()
    status = 1
    try:
        function, arguments = receive(channel)
        status = import_path(function)(channel, prepared, *arguments) or 0
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined] # the end of threads that were begun
            atexit._run_exitfuncs()  # temporary folders of user code, say
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except Exception:  # whatever the script has put there
                    pass
            os._exit(status)

"""Fresh processes at the price of a fork: the parent's end. Does not import torch.

The other end (`fork_service`) is a process that has imported torch and the user's script, and forks on request.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mlgym.engine.channel import MESSAGE, PID, send
from mlgym.engine.executor import Blueprint
from mlgym.errors import InputError, StorageError
from mlgym.processes import exit_text, kill_group

_LONGEST_FOLDER = 50  # the path of a socket, which loader workers put below it, can have 107 characters
_MARK = "MLGYM_SCRATCH"


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
        service = sys.modules.get("mlgym.engine.fork_service")
        if service is not None and service.called_with is not None:
            raise InputError("the script starts a run whenever it is loaded: put it below `if __name__ == '__main__':`")
        where = whereabouts(blueprint)
        folder = tempfile.gettempdir()
        if len(folder) > _LONGEST_FOLDER:
            folder = "/tmp"
        self._scratch = f"{folder}/mlgym-{os.urandom(4).hex()}"
        self._settings = {
            "parent": os.getpid(),
            "argv": sys.argv,
            "blueprint": where,
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
            f"import sys; sys.path[:] = {path!r}; from mlgym.engine.fork_service import serve; serve({theirs.fileno()})"
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
        if len(message) < MESSAGE:
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
            self._send(b"K" + PID.pack(child.pid, signum))

    def kill(self) -> None:
        """Kill a server that does not answer; the kernel kills its children."""
        kill_group(self._process.pid, signal.SIGKILL)

    def _send(self, message: bytes, fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._control, [message], fds or [])
        except OSError:  # the server has died: `update` sees the end of its messages
            pass

    def _receive(self) -> bytes:
        try:
            return self._control.recv(MESSAGE)
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
                child.pid, _ = PID.unpack(rest)
                self._children[child.pid] = child
            elif kind == b"E":
                self._starting.popleft().failure = f"no process could be started: {rest.decode()}"
            elif kind == b"X":
                pid, status = PID.unpack(rest)
                self._children.pop(pid).exit_status = status
        return True

    def _died(self) -> None:
        for child in self._starting:
            child.failure = "the process that starts jobs has died"
        for pid, child in self._children.items():
            child.failure = "the process that starts jobs has died"
            kill_group(pid, signal.SIGKILL)  # the kernel has killed it; here goes what it had started
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


def whereabouts(blueprint: Blueprint | None) -> dict[str, str] | None:
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

"""Fresh processes at the price of a fork: the server's end, and the life of what it forks.

One thread, no CUDA, no jobs of its own. It forks children, each in a session of its own, says when one has ended, and
takes with it whatever that one left behind. When the parent is gone it kills its children and leaves; when it is gone
itself, the kernel kills them.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing import process, resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Any

from mlgym.engine.channel import MESSAGE, PID, receive
from mlgym.engine.executor import Blueprint
from mlgym.errors import InputError, MLgymError
from mlgym.processes import adopt_orphans, children, die_with_parent, kill_group, prefer_for_oom, use_huge_pages
from mlgym.schema import import_path

called_with: list[Blueprint | None] | None = None
"""While the user's script is being loaded here: what it calls `mlgym.run` with, should it not ask for `__main__`."""


def serve(fd: int) -> None:
    """The whole life of the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    settings = json.loads(control.recv(MESSAGE))
    die_with_parent(settings["parent"])  # only while loading: afterwards the end of `control` tells
    sys.argv = settings["argv"]
    prepared, failure = None, ""
    try:
        prepared = _load(settings)
    except BaseException as error:
        failure = str(error) if isinstance(error, MLgymError) else f"it raised\n{traceback.format_exc()}"
    die_with_parent(0, 0)
    try:
        control.send(b"R" + json.dumps(failure[-MESSAGE // 4 :]).encode())
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
    prepared = import_path(settings["prepare"])(find(where) if where else None)
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


def find(where: dict[str, str]) -> Blueprint | None:
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
                    data, fds, _, _ = socket.recv_fds(self._control, MESSAGE, 1)
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
                    kill_group(pid, signal.SIGKILL)
                for pid in left:
                    _bury(pid)
                time.sleep(0.002)
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _obey(self, data: bytes, fds: list[int], sockets: tuple[socket.socket, ...]) -> None:
        kind, rest = data[:1], data[1:]
        if kind == b"F":
            self._fork(fds[0], sockets)
        elif kind == b"K":
            pid, signum = PID.unpack(rest)
            if pid in self._children:
                kill_group(pid, signum)
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
        self._control.send(b"S" + PID.pack(pid, 0))

    def _folder(self, pid: int) -> str:
        """A child's own folder for temporary files: the sockets of killed loader workers would stay for ever."""
        return f"{self._scratch}/{pid}"

    def _reap(self) -> None:
        for pid in list(self._children):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                continue
            kill_group(pid, signal.SIGKILL)  # before its number is free for others
            if found.si_code != os.CLD_EXITED:
                _sweep(pid)
            _, status = os.waitpid(pid, 0)
            self._children.remove(pid)
            shutil.rmtree(self._folder(pid), ignore_errors=True)
            self._control.send(b"X" + PID.pack(pid, os.waitstatus_to_exitcode(status)))
        for pid in _others() - self._children:  # left behind by the dead, perhaps in a session of its own
            kill_group(pid, signal.SIGKILL)
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
    """Remove what a killed process may have left in shared memory: tensors, and semaphores just made."""
    for pattern in (f"torch_{pid}_*", f"sem.mlgym-{pid}-*"):
        for left in Path("/dev/shm").glob(pattern):
            left.unlink(missing_ok=True)


def _live(channel: socket.socket, prepared: Any) -> None:
    """The whole life of a child."""
    atexit._clear()  # what the server registered is for the server to do
    prefer_for_oom()
    process.current_process()._config["semprefix"] = f"/mlgym-{os.getpid()}"  # type: ignore[attr-defined] # for `_sweep`
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

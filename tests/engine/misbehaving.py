"""A run.py for tests: a tiny model on tiny data that does whatever `kind` says in its first training step.

Only once the grid runs: the check before it trains a step as well, and must pass.
"""

import atexit
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn

from mlgym import run
from mlgym.parts.datasets import Columns

print("printed by the script itself")


def tiny(storage: Path, split: str, marks: str = "") -> Columns:
    if marks:  # how often it is prepared, and by how many at a time
        with Path(marks).open("a") as file:
            file.write(f"{os.getpid()}\n")
    samples = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    return Columns(samples, (samples.sum(1) > 2).long())


def first_time(name: str) -> bool:
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def pid_of(name: str, process: "subprocess.Popen[bytes]") -> None:
    Path(name).write_text(str(process.pid))


def misbehave(kind: str) -> None:
    if kind == "raise":
        raise ValueError("not today")
    if kind == "chance":
        torch.manual_seed(int.from_bytes(os.urandom(4)))
    if kind == "raise_once" and first_time("raised"):
        raise ValueError("only once")
    if kind == "device" and first_time("device"):
        raise RuntimeError("CUDA error: unspecified launch failure")
    if kind == "sys_exit":
        sys.exit(3)
    if kind == "os_exit":
        os._exit(7)
    if kind == "segfault":
        faulthandler._sigsegv()  # type: ignore[attr-defined]
    if kind == "abort":
        os.abort()
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "kill_once" and first_time("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        raise MemoryError
    if kind == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    if kind == "wait":
        while not Path("enough").exists():
            time.sleep(0.01)
    if kind == "hang":
        time.sleep(1000)
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctypes.CDLL(None).sleep(1000)
    if kind == "stops_server" and first_time("stopped"):
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(1000)
    if kind == "frozen":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "at_exit":
        atexit.register(time.sleep, 1000)
    if kind == "closes_all":
        os.closerange(3, 1000)
        os._exit(0)
    if kind == "prints":
        print("from python")
        os.system("echo from a shell")
        libc = ctypes.CDLL(None)
        libc.printf(b"from C\n")
        sys.stderr.write("to stderr, \udcff and all")
    if kind == "last_words":
        ctypes.CDLL(None).printf(b"last words from C\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "background":
        os.system("(sleep 1; touch background) &")
        while not Path("background").exists():
            time.sleep(0.01)
    if kind == "fork_exit" and os.fork() == 0:
        sys.exit(0)
    if kind == "fork_raise" and os.fork() == 0:
        raise ValueError("in a fork")
    if kind == "thread":
        threading.Timer(0.7, Path("thread").touch).start()
    if kind == "foreign":
        raise ValueError("größe \udcff")
    if kind == "children":
        subprocess.Popen(["sleep", "1000"])
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        subprocess.Popen(["sh", "-c", "setsid sleep 1000 & exit"]).wait()
    if kind == "children_kill":
        misbehave("children")
        misbehave("kill")


class Net(nn.Module):
    def __init__(self, kind: str = "fine", number: int = 0, sleep: float = 0.0) -> None:
        super().__init__()
        self.kind = kind
        self.sleep = sleep
        self.layer = nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and Path("event_storage").exists():
            time.sleep(self.sleep)
            kind, self.kind = self.kind, "fine"
            misbehave(kind)
        out: torch.Tensor = self.layer(x)
        return out


def blueprint(registry):  # type: ignore[no-untyped-def]
    registry.model("net", Net)
    registry.dataset("tiny", tiny)


if __name__ == "__main__":
    run(blueprint)

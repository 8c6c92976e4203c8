"""Boards for benchmarks, and helpers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from mlgym.record.token import VARIABLE

ROOT = Path(__file__).parent.parent
TOKEN = "benchmark" * 5


class Board:
    """A board over `folder/storage`. `started`: when its process was."""

    def __init__(self, folder: Path) -> None:
        storage = folder / "storage"
        storage.mkdir(exist_ok=True)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ml_board", "--event_storage_path", str(storage), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, VARIABLE: TOKEN, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout
        self.url = self.process.stdout.readline().partition(": ")[2].partition("/#")[0].strip()
        assert self.url, "the board did not start"

    def get(self, path: str, timeout: float = 60) -> bytes:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            return answer.read()
        finally:
            connection.close()

    def memory(self, what: str = "VmRSS") -> float:
        """In MB; "VmHWM": at most, since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) * 1024 / 1e6

    def cpu(self) -> float:
        """Seconds of processor time, user and system, since it began."""
        return cpu(self.process.pid)

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)


def cpu(pid: int) -> float:
    """Seconds of processor time, user and system, that a process has taken: what others do hardly changes it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


@contextmanager
def helper(module: str, function: str, *arguments: object) -> Iterator[Callable[[], Any]]:
    """A process that runs a function of a benchmark; what is yielded reads the next line of JSON that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; from benchmarks import {module}; {module}.{function}(*sys.argv[1:])"]
        + [str(argument) for argument in arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    def read() -> Any:
        assert process.stdout
        line = process.stdout.readline()
        assert line, f"{function} has ended"
        return json.loads(line)

    try:
        yield read
    finally:
        end(process)


def say(value: object) -> None:
    """To the process that started this one."""
    print(json.dumps(value), flush=True)

"""What Linux can say about processes and Python's library cannot. Imports nothing of ours."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MADV_COLLAPSE = 25

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send `signum` when the thread that started this process ends; 0 takes it back.

    `parent` is the pid it should have: when that is gone already, this process ends here.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if signum and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every process that a process below this one leaves behind."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """The pids of this process's children, dead ones that nobody has waited for included."""
    me = os.getpid()
    try:
        return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}
    except OSError:  # the kernel was built without it: look at every process
        return {pid for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()) if _parent(pid) == me}


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def prefer_for_oom() -> None:
    """Out of memory, the kernel should take this process rather than the one that looks after it."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        pass


def use_huge_pages() -> None:
    """Have the kernel gather this process's memory in pages of 2 MiB (Linux 6.1), which makes a fork twice as fast."""
    size = 2 << 20
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, access, *_, inode_and_name = line.split(None, 4)
        if access == "rw-p" and inode_and_name.split()[1:] in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in place.split("-"))
            start, end = -(-start // size) * size, end // size * size
            if end > start:  # an older kernel refuses, and a busy one may: then it stays as it is
                _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)


def line_buffer_c_output() -> None:
    """What C code prints leaves the process line by line: it would be lost in libc's buffer on a kill."""
    _libc.setvbuf(ctypes.c_void_p.in_dll(_libc, "stdout"), None, 1, 0)  # 1: _IOLBF


def flush_c_output() -> None:
    _libc.fflush(None)


def exit_text(status: int) -> str:
    """What became of a process, from `os.waitstatus_to_exitcode`: a negative number is a signal."""
    if status >= 0:
        return f"exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}" + (" (out of memory?)" if -status == signal.SIGKILL else "")


def kill_group(pid: int, signum: int) -> None:
    """A child, with SIGKILL its whole group. It may not have its own session yet, so it is named as well."""
    for end in (os.killpg, os.kill) if signum == signal.SIGKILL else (os.kill,):
        try:
            end(pid, signum)
        except OSError:
            pass

"""A process that outlives a run for a moment: when the run is gone, however it went, it kills what is left of the
run's own Ray cluster and removes its folder. `python guard.py FOLDER`, with a pipe from the run.

Every process of the cluster has the folder's name in its environment. Imports nothing of ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

VARIABLE = "MLGYM_CLUSTER"


def main() -> None:
    folder = Path(sys.argv[1])
    sys.stdin.buffer.read()
    end = time.monotonic() + 10
    while _kill(f"{VARIABLE}={folder}\0".encode()) and time.monotonic() < end:
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(mark: bytes) -> bool:
    """Whether there was something to kill."""
    found = False
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes() + b"\0":
                os.kill(int(path.parent.name), signal.SIGKILL)
                found = True
        except OSError:  # another user's, or gone
            continue
    return found


if __name__ == "__main__":
    main()

"""What the user asks for with signals while a grid runs. Imports errors and executor."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlgym.errors import tell_at_once

INTERRUPTED = 130
"""The exit code of a run that was asked to stop."""

_PASSED_ON = "TORCHELASTIC_RUN_ID"
"""Set by torchrun and `accelerate launch`, which send us the signals of the terminal once more."""

_TOGETHER = 2.0  # seconds


class Asked:
    """How often the user has asked for an end. Killing outright is `os._exit`: an exception could come out of the
    middle of a write, where a death does no harm."""

    def __init__(self, at_once: int) -> None:
        self._asked = 0
        self._at = 0.0
        self._at_once = at_once

    def requested(self) -> bool:
        return self._asked >= 1

    def kill_requested(self) -> bool:
        return self._asked >= 2

    def __call__(self, signum: int, frame: object) -> None:
        now = time.monotonic()
        if self._asked and _PASSED_ON in os.environ and now - self._at < _TOGETHER:
            return
        self._at = now
        self._asked += 1
        if self._asked == self._at_once:
            os._exit(INTERRUPTED)
        tell_at_once(f"mlgym: {'stopping after this batch; once more to kill' if self._asked == 1 else 'killing'}\n")


@contextmanager
def listening(at_once: int) -> Iterator[Asked]:
    """Count the signals that ask for an end; the process ends outright at number `at_once`."""
    stop = Asked(at_once)
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN or signum == signal.SIGINT:  # nohup stays nohup
            signal.signal(signum, stop)
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)

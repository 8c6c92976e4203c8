"""The board that a run starts for itself: `python -m ml_board` as a child, which ends with the run.

The run opens the port and hands it over, so that its number is known at once and stays the same when the board dies
and is started again. Imports errors, token and specs; the board is a command, never imported.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time

from mlgym.errors import MLgymError, tell
from mlgym.record.token import VARIABLE, board_token
from mlgym.specs import RunPaths

_MAX_PAUSE = 30.0  # seconds before it is started again, if it keeps dying


class Board:
    """A running board over the event storage of a run. Raises `OSError` when no port can be opened."""

    def __init__(self, paths: RunPaths) -> None:
        self._arguments = ["--event_storage_path", str(paths.event_storage), "--run_id", paths.grid_search_id]
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        try:
            self.token = board_token(make=True) or ""
        except MLgymError:  # no place to keep one: then it is for this run
            self.token = secrets.token_urlsafe(32)
        self._closing = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, name="board", daemon=True)
        self._keeper.start()

    @property
    def page(self) -> str:
        """The address that opens the dashboard."""
        return f"{self.url}/#token={self.token}"

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [*self._arguments, "--fd", str(self._listening.fileno()), "--until_eof"]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ml_board", *arguments],  # -P: no module of the user's replaces one of ours
            stdin=subprocess.PIPE,  # its end tells the board that the run is gone
            stdout=subprocess.DEVNULL,
            pass_fds=[self._listening.fileno()],
            env={**os.environ, VARIABLE: self.token},
            start_new_session=True,  # Ctrl-C is for the run
        )

    def _keep(self) -> None:
        """Start it again when it dies."""
        pause = 0.0
        while True:
            began = time.monotonic()
            code = self._process.wait()
            if self._closing.is_set():
                return
            pause = 0.0 if time.monotonic() - began > _MAX_PAUSE else min(max(2 * pause, 0.2), _MAX_PAUSE)
            tell(f"warning: the board has died ({code}); it is started again")
            if self._closing.wait(pause):
                return
            if self._process.stdin:
                self._process.stdin.close()
            self._process = self._start()

    def close(self) -> None:
        """End it; what it has acknowledged is on disk."""
        self._closing.set()
        process = self._process
        try:
            if process.stdin:
                process.stdin.close()
            process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        self._keeper.join(5)
        if process is not self._process:  # it was being started again at this very moment
            self._process.kill()
            self._process.wait()
        self._listening.close()

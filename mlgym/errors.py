"""What can go wrong and is not our bug. Imports nothing.

    MLgymError
    ├── InputError            what the user gave cannot be used             exit code 2
    │   └── ConfigError       ... at a place inside a configuration file
    └── StorageError          the event storage cannot be written or read   exit code 2
        ├── DamagedError      ... because bytes in its middle have changed
        └── InUseError        ... because another process holds it          exit code 3

A message is one or a few lines, names what is at fault, says what was expected and, where there is one,
the nearest valid name.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches

ConfigPath = tuple[str | int, ...]
"""Where a value stands in a configuration: the keys and indices that lead to it from the top."""


class MLgymError(Exception):
    """Base of every error that a user can cause."""

    exit_code = 2


class InputError(MLgymError):
    """What the user asked for cannot be done as asked."""


class ConfigError(InputError):
    """A mistake at a place in a configuration.

    Code that meets the mistake knows the path inside the part it was given; callers put their own part of
    the path in front with `inside` (unless it is `whole` already), and whoever knows the file turns the path
    into a place with `locate`.
    """

    def __init__(self, message: str, path: ConfigPath = (), place: str | None = None, *, whole: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.place = place
        self.whole = whole

    def inside(self, *prefix: str | int) -> ConfigError:
        """The same mistake, seen from one level further out."""
        return self if self.whole else ConfigError(self.message, prefix + self.path, self.place)

    def locate(self, place_of: Callable[[ConfigPath], str]) -> ConfigError:
        """The same mistake with its file, line and column."""
        return ConfigError(self.message, self.path, self.place or place_of(self.path))

    def __str__(self) -> str:
        where = ".".join(map(str, self.path))
        prefix = ": ".join(part for part in (self.place, where) if part)
        return f"{prefix}: {self.message}" if prefix else self.message


class StorageError(MLgymError):
    """The event storage cannot be written or read."""


class DamagedError(StorageError):
    """Bytes in the middle of a journal have changed: it can be read, but is never written again."""


class InUseError(StorageError):
    """Another process holds the file or the grid search."""

    exit_code = 3


def tell(message: str, program: str = "mlgym") -> None:
    """A line to the user on stderr. A terminal that has gone away is no reason to fail."""
    try:
        sys.stderr.write(f"{program}: {message}\n")
    except (OSError, ValueError):
        pass


def tell_at_once(line: str) -> None:
    """A line on stderr, or nothing when nobody reads there: for signal handlers, and for whoever must not wait."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode(errors="replace"))
    except (OSError, ValueError):
        pass


def one_of(name: object, known: Iterable[object]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    names = sorted(str(entry) for entry in known)
    by_lower = {known_name.lower(): known_name for known_name in names}
    if near := get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6):
        return f"did you mean {by_lower[near[0]]!r}?"
    if not names:
        return "there are none"
    shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return f"there is: {shown}"

"""The events of a log that fit a filter, forwards or backwards, a bounded piece of the log at a time.

Imports mlgym.record only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from mlgym.record.events import body_of
from mlgym.record.log import Log

MAX_ANSWER = 8 << 20  # bytes
_MAX_SCAN = 16 << 20
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


class Found(NamedTuple):
    """Lines without newline in the order of the log, and where to go on; None: there is nothing more."""

    lines: list[bytes]
    next: int | None


class Filter:
    """Events of one of `types` (of any, if there are none) that are about `experiment` (None: about whatever)."""

    def __init__(self, types: list[str], experiment: int | None) -> None:
        self._types = frozenset(types)
        self._experiment = experiment
        self._hint: re.Pattern[bytes] | None = None
        if experiment is not None:
            self._hint = re.compile(rb'"experiment_id"\s*:\s*-?%d(?![0-9])' % experiment)
        if types and all(map(_PLAIN.fullmatch, types)):  # rarer than the other
            names = "|".join(map(re.escape, sorted(self._types)))
            self._hint = re.compile(rb'"event_type"\s*:\s*"(?:%b)"' % names.encode())

    def __bool__(self) -> bool:
        return bool(self._types) or self._experiment is not None

    def candidates(self, piece: bytes) -> list[bytes]:
        """The lines of `piece` that may fit: most others are passed over without a look at each."""
        if self._hint is None or b"\\u" in piece:  # escapes, by which a name can be spelled otherwise
            return piece.split(b"\n")[:-1]
        found, end = [], 0
        for match in self._hint.finditer(piece):
            if match.start() >= end:
                start = piece.rfind(b"\n", 0, match.start()) + 1
                end = piece.index(b"\n", match.end())
                found.append(piece[start:end])
        return found

    def fits(self, line: bytes) -> bool:
        if not self:
            return True
        try:
            event = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        name, payload = event.get("event_type"), event.get("payload")
        if self._types and not (isinstance(name, str) and name in self._types):
            return False
        experiment = payload.get("experiment_id") if isinstance(payload, dict) else None
        return self._experiment is None or (type(experiment) is int and experiment == self._experiment)


def after(log: Log, wanted: Filter, seq: int, limit: int) -> Found:
    """The first `limit` events that fit after number `seq`; `next` is the `seq` to go on with."""
    head, found, size, read = log.state.seq, list[bytes](), 0, 0
    if seq >= head:
        return Found(found, None)
    for piece in log.forwards(seq):
        for line in wanted.candidates(piece):
            if _number(line) <= seq or not wanted.fits(line):
                continue
            size += len(line)
            if len(found) == limit or (found and size > MAX_ANSWER):
                return Found(found, _number(found[-1]))
            found.append(line)
        read += len(piece)
        if read >= _MAX_SCAN and seq < (reached := _first(reversed(piece.split(b"\n")))) < head:
            return Found(found, reached)
    return Found(found, None)


def before(log: Log, wanted: Filter, seq: int, limit: int) -> Found:
    """The last `limit` events that fit before number `seq`; `next` is the `seq` to go on with."""
    found, size, read = list[bytes](), 0, 0
    for piece in log.backwards(seq):
        for line in reversed(wanted.candidates(piece)):
            if not 0 < _number(line) < seq or not wanted.fits(line):
                continue
            size += len(line)
            if len(found) == limit or (found and size > MAX_ANSWER):
                return Found(found[::-1], _number(found[-1]))
            found.append(line)
        read += len(piece)
        if read >= _MAX_SCAN and 1 < (reached := _first(piece.split(b"\n"))) < seq:
            return Found(found[::-1], reached)
    return Found(found[::-1], None)


def _first(lines: Iterable[bytes]) -> int:
    """The `seq` of the first line that is whole."""
    return next((number for line in lines if (number := _number(line))), 0)


def _number(line: bytes) -> int:
    """The `seq` of a line; 0 for one that is damaged."""
    if body_of(line) is None or not line.startswith(b'{"seq":'):
        return 0
    return int(line[7 : line.find(b",")])

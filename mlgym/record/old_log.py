"""Old event logs, made into today's lines piece by piece. Imports events only; no clock, no I/O.

An earlier tool wrote `{"event_type", "creation_ts", "payload"}` lines with Python's json: no numbers, no checksum, NaN
as a bare word, times in µs or in seconds. A crash of it could leave a line cut, and the next event on the same line.
Whatever stands around an event, the event is found; what is no event is told of in `Converter.unread`.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from mlgym.record.events import EVENT_TYPES, body_of, number, plain, seal, too_deep

MAX_LINE = 16 << 20
"""Bytes; a longer line is not read, so that memory stays bounded."""

MAX_DEPTH = 64  # as `too_deep` has it
MAX_UNREAD = 1000
_HEAD = 1 << 16
_SHOWN = 60

Object = dict[str, Any]


class Unread(NamedTuple):
    """A stretch of bytes that is no event, and how it begins (up to 60 printable characters)."""

    offset: int
    length: int
    beginning: str


def is_old(head: bytes) -> bool:
    """Whether a log that begins with `head` (up to 64 KiB) is an old one: it has events, and none has a crc."""
    lines = head.split(b"\n")
    if any(body_of(line) is not None for line in lines):
        return False
    if len(lines) == 1 and len(head) >= _HEAD:  # one event with a huge configuration; today's lines begin with seq
        return _OLD.match(head) is not None
    return any("crc" not in event for line in lines for event, _, _ in _events(line))


class Converter:
    """Turns an old log into numbered, sealed lines, the same ones in whatever pieces it is fed.

    `seq` is the number of the last event converted. `unread` holds the first 1,000 stretches that are no events;
    `unread_count` and `unread_bytes` count all of them.
    """

    def __init__(self, source: str, seq: int = 0) -> None:
        self.seq = seq
        self.unread: list[Unread] = []
        self.unread_count = 0
        self.unread_bytes = 0
        self._source = _encode(source)
        self._jobs: dict[int, tuple[int, str]] = {}  # experiment_id -> its attempt, and the last status of that
        self._offset = 0  # where the line begins that is not complete yet
        self._length = 0
        self._line = bytearray()  # all of it, or only its beginning once it is too long

    def feed(self, data: bytes) -> bytes:
        """The new lines for what is complete with the next bytes of the file; an incomplete last line is kept."""
        first, *others = data.split(b"\n")
        self._keep(first)
        if not others:
            return b""
        new = [self.finish()]
        for line in others[:-1]:
            new += self._convert(line, len(line))
        self._keep(others[-1])
        return b"".join(new)

    def finish(self) -> bytes:
        """The new lines for what is kept: the line, or the file, ends here."""
        line, length = bytes(self._line), self._length
        self._line.clear()
        self._length = 0
        return b"".join(self._convert(line, length))

    def finish_whole(self) -> bytes:
        """The new line for what is kept, if that is an event already and only its line has no end yet."""
        line = bytes(self._line)
        if not line.endswith(b"}") or self._length > MAX_LINE or [(0, len(line))] != [e[1:] for e in _events(line)]:
            return b""
        new = self.finish()
        self._offset -= 1  # its end comes with what is fed next
        return new

    def _keep(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length <= MAX_LINE:
            self._line += piece
        else:
            self._line[4 * _SHOWN :] = piece[: 4 * _SHOWN]

    def _convert(self, line: bytes, length: int) -> list[bytes]:
        """The new lines for an old one; of one that is too long, the beginning will do."""
        offset = self._offset
        self._offset += length + 1
        if length > MAX_LINE:
            self._skip(offset, length, line)
            return []
        new = []
        position = 0
        for event, start, end in _events(line):
            if position < start:
                self._skip_gap(offset, line, position, start)
            new.append(self._converted(event))
            position = end
        if position < length:
            self._skip_gap(offset, line, position, length)
        return new

    def _skip_gap(self, offset: int, line: bytes, start: int, end: int) -> None:
        stretch = line[start:end].strip()
        if stretch:
            self._skip(offset + line.index(stretch, start), len(stretch), stretch)

    def _skip(self, offset: int, length: int, stretch: bytes) -> None:
        self.unread_count += 1
        self.unread_bytes += length
        if len(self.unread) < MAX_UNREAD:
            text = stretch[: 4 * _SHOWN].decode(errors="replace")[:_SHOWN]
            shown = "".join(character if character.isprintable() else "?" for character in text)
            self.unread.append(Unread(offset, length, shown))

    def _converted(self, event: Object) -> bytes:
        event_type, payload = event["event_type"], event.get("payload")
        if isinstance(payload, dict):
            _normalise(event_type, payload)
            attempt = self._attempt(event_type, payload, event.get("attempt"))
        else:
            attempt = 1
        creation_ts = _time(event.get("creation_ts")) or 0
        self.seq += 1
        head = b'{"seq":%d,"event_type":%b,"creation_ts":%d,"source":%b,"n":%d,"attempt":%d' % (
            self.seq,
            _encode(event_type),
            creation_ts,
            self._source,
            self.seq,
            attempt,
        )
        for name in event.keys() & _ENVELOPE:
            del event[name]
        return seal(head + b"," + _encode(event)[1:-1] if event else head)

    def _attempt(self, event_type: str, payload: Object, given: Any) -> int:
        """Which attempt the event belongs to. A job only goes forward: one that goes back is a warm start."""
        experiment_id = payload.get("experiment_id")
        if type(experiment_id) is not int:
            return 1
        attempt, before = self._jobs.get(experiment_id, (1, "INIT"))
        if isinstance(given, int) and 0 < given <= 2**53:
            attempt = int(given)
        status = payload.get("status")
        if event_type == "job_status" and isinstance(status, str) and status in _STAGES:
            if given is None and _STAGES[status] < _STAGES[before]:
                attempt += 1
            self._jobs[experiment_id] = attempt, status
        return attempt


_ENVELOPE = {"seq", "event_type", "creation_ts", "source", "n", "attempt", "crc"}
_STAGES = {"INIT": 0, "RUNNING": 1, "LOST": 2, "DONE": 2, "FAILED": 2, "STOPPED": 2}


# --- finding events -----------------------------------------------------------------------------------------

# An object that begins like an event. It cannot stand in a string, where the quotes would be escaped: wherever it is
# met, whatever was open before has been cut.
_BEGINNING = rb'\{[ \t\r]*"(?:event_type|seq)"'
_STRING = rb'"[^"\\{]*+(?:(?:\\[^{]|\{(?!%b))[^"\\{]*+)*+(?P<quote>"?)' % _BEGINNING.removeprefix(rb"\{")
_TOKEN = re.compile(rb"%b|(?P<open>%b|[{[])|(?P<close>[]}])" % (_STRING, _BEGINNING))
_OLD = re.compile(rb'\s*\{\s*"event_type"')


def _events(line: bytes) -> Iterable[tuple[Object, int, int]]:
    """The events on a line in their order, and from where to where they stand."""
    if b'"event_type"' not in line:
        return ()
    event, _ = _read(line)
    return _scattered(line) if event is None else ((event, 0, len(line)),)


def _scattered(line: bytes) -> Iterator[tuple[Object, int, int]]:
    """The events on a line that is not just one. Takes linear time: what failed to be read is not read again."""
    position = wrong = 0
    for start, end in _objects(line):
        if start < position or start < wrong < end:
            continue
        event, length = _read(line[start:end])
        if event is not None:
            yield event, start, end
        if start + length == end:
            position = end
        else:
            wrong = start + length


def _objects(line: bytes) -> Iterator[tuple[int, int]]:
    """Where on a damaged line there may be events: in their order, an outer one before those within it.

    One pass, and none within more than 64 others, so that reading them all takes linear time as well.
    """
    opened: deque[int] = deque(maxlen=MAX_DEPTH)  # where they begin, or -1; forgets the outermost, it is too deep
    found: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(line):
        if token.lastgroup == "open":
            start, text = token.start(), token[0]
            opened.append(start if len(text) > 1 or (text == b"{" and not opened) else -1)
        elif token.lastgroup == "close":
            if opened and (start := opened.pop()) >= 0:
                found.append((start, token.end()))
        elif not token["quote"]:  # a string that was cut: nothing around it can be whole
            opened.clear()
        if found and not opened:
            yield from sorted(found)
            found.clear()
    yield from sorted(found)


def _read(data: bytes) -> tuple[Object | None, int]:
    """The event that `data` is, as strict JSON would have it, or None; and how many bytes of it are JSON."""
    length = len(data)
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        try:
            event = json.loads(data.decode())  # knows NaN, numbers beyond all floats, half surrogate pairs
        except json.JSONDecodeError as error:
            return None, len(error.doc[: error.pos].encode())
        except UnicodeDecodeError as error:
            return None, error.start
        except (ValueError, RecursionError):  # thousands of digits, or brackets
            return None, 0
        if not too_deep(data):
            event = plain(event)
    if not isinstance(event, dict) or not isinstance(event.get("event_type"), str) or too_deep(data):
        return None, length
    return event, length


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


# --- payloads -----------------------------------------------------------------------------------------------


def _normalise(event_type: str, payload: Object) -> None:
    """Say in today's words what an old payload says; what it says beyond that stays as it is."""
    optional = _OPTIONAL.get(event_type)
    if optional is None:
        return
    for name, value in payload.items():
        if name in _FIELDS:
            payload[name] = _FIELDS[name](value)
    for name in [name for name, value in payload.items() if value is None and name in optional]:
        del payload[name]
    if payload.get("grid_search_id") is None:  # the first versions did not say
        payload["grid_search_id"] = ""
    if event_type == "job_status":
        if payload.get("job_id") is None:
            payload["job_id"] = ""
        if payload.get("status") == "DONE" and (payload.get("error") or payload.get("stacktrace")):
            payload["status"] = "FAILED"  # a job that had crashed was done as well


def _integer(value: Any) -> Any:
    if isinstance(value, str) and (digits := _DIGITS.fullmatch(value)):
        return int(digits[1])
    return int(value) if isinstance(value, float) and value.is_integer() else value


_DIGITS = re.compile(r"\s*([+-]?[0-9]{1,600})(?:\.0*)?\s*")


def _time(value: Any) -> int | None:
    """Unix time in ms, given in seconds, ms or µs: which one shows in its size. None for what is no time."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e17:
        return None
    return round(value // 1000 if value > 1e14 else value * 1000 if value < 1e11 else value)


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _device(value: Any) -> Any:
    return None if value == "None" else _text(value)


def _status(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    name = value.upper()
    return _PHASES.get(name, name)


_PHASES = {"TRAIN": "train", "TRAINING": "train", "EVALUATION": "evaluation", "EVALUATING": "evaluation"}


def _job_type(value: Any) -> Any:
    name = _text(value)
    return {"1": "CALC", "2": "TERMINATE"}.get(name, name)


def _scores(value: Any) -> Any:
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, dict) and not isinstance(entry.get("score"), float):
            entry["score"] = _score(entry.get("score"))
    return value


def _score(value: Any) -> Any:
    if value is None:
        return "NaN"
    try:
        return number(float(str(value))) if isinstance(value, int | str) else value
    except ValueError:
        return value


_FIELDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("experiment_id", "epoch", "batch", "num_epochs", "current_epoch", "start_epoch"), _integer),
    **dict.fromkeys(("num_batches", "current_batch", "num_experiments", "num_threads", "seed", "offset"), _integer),
    **dict.fromkeys(("grid_search_id", "job_id", "host", "current_split", "error", "stacktrace", "reason"), _text),
    **dict.fromkeys(("starting_time", "finishing_time"), _time),
    **dict.fromkeys(("metric_scores", "loss_scores"), _scores),
    "device": _device,
    "status": _status,
    "job_type": _job_type,
}

_OPTIONAL: dict[str, frozenset[str]] = {
    tag.decode(): frozenset(field.name for field in msgspec.structs.fields(struct) if not field.required)
    for struct, tag in EVENT_TYPES.items()
}

"""What of a log goes into one file, and how: gzipped lines of JSON, read by ml_board/frontend/src/wire/packed.ts.

    {"seq":1,...}                      the events, in their order, as the log has them but for their checksums
    ["/grid_searches/ID/...", "..."]   what REST answers and a page cannot work out from events, by its path
    ["", "{...}"]                      last: what was left out, and why

A small log goes in whole. Of a larger one progress is reduced to the last report of each pass over a split, and of one
that is larger still the scores are thinned, as charts thin them. Nothing is held in memory but what decides that.
Imports series and projections.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from ml_board import projections
from ml_board.series import thin
from mlgym.errors import InputError
from mlgym.record.card import card
from mlgym.record.card_sources import sources
from mlgym.record.events import (
    CheckpointChange,
    DataFoldEvent,
    EvaluationResultEvent,
    Event,
    ExperimentStatusEvent,
    JobOutputEvent,
    body_of,
    decode_lines,
)
from mlgym.record.fold import State
from mlgym.record.journal import is_held
from mlgym.record.log import Log
from mlgym.record.pipeline import as_json, pipeline
from mlgym.specs import RunPaths

WHOLE = 3_000_000  # bytes, packed: a log of up to so many goes in as it is
_THINNED = (1000, 500, 250, 100, 30, 10)  # points of a series, at most: the first that fits
_MOST_POINTS = 1_000_000  # that are chosen among, in memory
_FOR_EVENTS = 0.8  # of the limit; the rest is left for answers
_TAIL = 16 << 10  # bytes of what an experiment has printed
_FOR_THE_LAST = 4 << 10  # bytes of the limit for what the file says of itself
_MOST_OF_ONE = 4 << 20  # bytes of one answer
_MOST_SCORES = 40  # that there are reports by
_AXES = {"fold", "outer_fold", "inner_fold", "seed"}


class Packed(NamedTuple):
    """What was written. `events`: how many of `of`; `left_out`: sentences for whoever looks at it."""

    size: int
    events: int
    of: int
    left_out: list[str]
    thinned: str | None


Keep = Callable[[bytes, Event], bytes | None]
"""The body of an event as it is to be written, or None."""


def pack(log: Log, paths: RunPaths, about: dict[str, Any], limit: int, out: IO[bytes]) -> Packed:
    """Write `log`, and what lies beside it, into `out` in at most `limit` bytes.

    `about` is what the file says of itself already. Raises `InputError` when it cannot be so small.
    """
    state, head = log.state, log.state.seq
    whole, events_limit = min(WHOLE, limit), int(limit * _FOR_EVENTS)
    always = ["What jobs have printed is here only as the last 16 KiB of each experiment, and outside of the replay."]
    for keep, most, because, thinned in _ways(log, state, whole, events_limit):
        out.seek(0)
        out.truncate()
        writer = _Writer(out)
        count = _write_events(log, head, keep, writer, most)
        if count is None:
            continue
        left_out = [*always, *because, *_write_answers(log, paths, writer, limit)]
        about = {
            **about,
            "head": head,
            "of": head,
            "events": count,
            "left_out": left_out,
            "thinned": thinned,
        }
        writer.line(_answer("", msgspec.json.encode(about).decode()))
        return Packed(writer.close(), count, head, left_out, thinned)
    raise InputError(f"{paths.grid_search_id} does not fit into {limit:,} bytes, however few points are kept")


def _ways(log: Log, state: State, whole: int, limit: int) -> Iterator[tuple[Keep, int, list[str], str | None]]:
    """What to keep, in how many bytes, and what to say about it: less and less."""
    head = state.seq

    def everything(body: bytes, event: Event) -> bytes | None:
        return None if isinstance(event, JobOutputEvent) and event.seq != head else body

    yield everything, whole, [], None
    last = _last_progress(log, head, _pass_of)

    def is_kept(event: CheckpointChange) -> bool:
        experiment = state.experiments.get(event.payload.experiment_id)
        kept = experiment and experiment.checkpoints.get(event.payload.epoch)
        return bool(kept and kept.seq == event.seq)

    def stays(event: CheckpointChange) -> bool:
        """Whether the checkpoint is there in the end. All of its events are kept then, and so the order of all."""
        experiment = state.experiments.get(event.payload.experiment_id)
        return experiment is None or event.payload.epoch in experiment.checkpoints or not experiment.config_seq

    def without_batches(body: bytes, event: Event) -> bytes | None:
        match event:
            case ExperimentStatusEvent():
                return body if event.seq in last else None
            case DataFoldEvent() if event.seq != head:
                return None
            case CheckpointChange() if event.payload.action == "SAVED":
                return body if is_kept(event) else _without_digests(body)
        return everything(body, event)

    fewer = [
        "Progress within an epoch is here only as the last report of each split.",
        "Digests are here only of checkpoints that are kept.",
        "Which items a fold is tested on is not here.",
    ]
    yield without_batches, limit, fewer, None
    only = _last_progress(log, head, _phase_of)
    total = sum(len(scores) for experiment in state.experiments.values() for scores in experiment.scores.values())
    series = sum(len(experiment.scores) for experiment in state.experiments.values())
    for points in _THINNED:
        if points > _THINNED[-1] and series * points > _MOST_POINTS:
            continue
        chosen, kept = _chosen(state, points)
        if kept == total and points != _THINNED[-1]:
            continue

        def thinned(body: bytes, event: Event, chosen: _Chosen = chosen) -> bytes | None:
            if isinstance(event, EvaluationResultEvent) and event.seq != head:
                return _only(body, event, chosen[event.payload.experiment_id].get(event.seq))
            if isinstance(event, ExperimentStatusEvent):
                return body if event.seq in only or event.seq == head else None
            if isinstance(event, CheckpointChange) and not event.payload.batch and event.seq != head:
                return body if stays(event) else None
            return without_batches(body, event)

        words = (
            "This search is too large for one file. Of each series only the first, the last, and the smallest and the "
            f"largest points of every stretch are here, {kept:,} of {total:,} in all; of progress only the last, "
            "and of checkpoints those that were kept."
        )
        yield thinned, limit, [words, *fewer[1:]], words


def _lines(log: Log, head: int) -> Iterator[tuple[bytes, Event]]:
    """The bodies of the lines up to event `head`, decoded; what is damaged is passed over."""
    for piece in log.forwards(0):
        bodies, lines = [], []
        for line in piece.split(b"\n"):
            body = body_of(line)
            if body is not None and body.startswith(b'{"seq":'):
                bodies.append(body)
                lines.append(line)
        for body, event in zip(bodies, decode_lines(b"".join(line + b"\n" for line in lines)), strict=True):
            if event.seq > head:
                return
            yield body, event


def _last_progress(log: Log, head: int, kind: Callable[[ExperimentStatusEvent], Any]) -> set[int]:
    """The last one of each unbroken row of an experiment's progress that is of one kind; `kind` of a str: of all."""
    found: set[int] = set()
    latest: dict[Any, tuple[Any, int]] = {}
    for _, event in _lines(log, head):
        if not isinstance(event, ExperimentStatusEvent):
            continue
        of = kind(event)
        key = (event.payload.experiment_id, of if isinstance(of, str) else None)
        before = latest.get(key)
        if before and before[0] != of:
            found.add(before[1])
        latest[key] = (of, event.seq)
    found.update(seq for _, seq in latest.values())
    found.add(head)
    return found


def _pass_of(event: ExperimentStatusEvent) -> tuple[object, ...]:
    payload = event.payload
    return event.attempt, payload.status, payload.current_epoch, payload.current_split


def _phase_of(event: ExperimentStatusEvent) -> str:
    """What the fold remembers the last one of."""
    return f"{event.attempt} {event.payload.status} {event.payload.num_batches > 0}"


# --- fewer points ---

_Chosen = defaultdict[int, dict[int, set[str]]]
"""experiment -> seq -> the scores that are kept of that event"""


def _chosen(state: State, points: int) -> tuple[_Chosen, int]:
    """Which scores are kept, about `points` of each series, and how many that are."""
    found: _Chosen = defaultdict(dict)
    count = 0
    for experiment in state.experiments.values():
        of = found[experiment.experiment_id]
        for key, scores in experiment.scores.items():
            places = set(thin(scores.values_, points))
            places.update(at for at in (scores.lowest(), scores.highest()) if at is not None)
            count += len(places)
            for at in places:
                of.setdefault(scores.seqs[at], set()).add(key)
    return found, count


def _only(body: bytes, event: EvaluationResultEvent, keys: set[str] | None) -> bytes | None:
    """An evaluation with some of its scores."""
    if not keys:
        return None
    metrics = [one for one in event.payload.metric_scores if f"{one.split}/{one.metric}" in keys]
    losses = [one for one in event.payload.loss_scores if f"{one.split}/{one.loss}" in keys]
    if len(metrics) == len(event.payload.metric_scores) and len(losses) == len(event.payload.loss_scores):
        return body
    return _changed(body, lambda payload: payload.update(metric_scores=metrics, loss_scores=losses))


def _without_digests(body: bytes) -> bytes:
    """The event of a checkpoint that is gone: its digests are most of it, and nobody can compare them with anything."""

    def forget(payload: dict[str, Any]) -> None:
        for file in payload.get("files", []):
            file["sha256"] = ""

    return _changed(body, forget)


def _changed(body: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    try:
        raw = msgspec.json.decode(body + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError):  # in a field that nobody knows, so nobody has looked at it yet
        return body
    change(raw["payload"])
    return msgspec.json.encode(raw)[:-1]


# --- writing ---


class _Writer:
    """Lines into a gzip stream, and how large it is so far."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        self.size = 0
        self._waiting = 0
        """Bytes that went in since `size` was true."""

    def line(self, text: bytes) -> None:
        self.lines([text])

    def lines(self, texts: list[bytes]) -> None:
        joined = b"".join(text + b"\n" for text in texts)
        self._waiting += len(joined)
        self._wrote(self._packer.compress(joined))

    def flush(self) -> None:
        """So that `size` is true."""
        self._wrote(self._packer.flush(zlib.Z_SYNC_FLUSH))
        self._waiting = 0

    def fits(self, text: str, limit: int) -> bool:
        """Whether all is within `limit` bytes with `text`, even if that cannot be packed."""
        if self.size + self._waiting + len(text) > limit:
            self.flush()
        return self.size + len(text) <= limit

    def close(self) -> int:
        self._wrote(self._packer.flush())
        return self.size

    def _wrote(self, packed: bytes) -> None:
        self._out.write(packed)
        self.size += len(packed)


def _write_events(log: Log, head: int, keep: Keep, writer: _Writer, limit: int) -> int | None:
    """How many events were written; None: they are more than `limit` bytes."""
    count = 0
    buffer: list[bytes] = []
    for body, event in _lines(log, head):
        kept = keep(body, event)
        if kept is None:
            continue
        buffer.append(kept + b"}")
        count += 1
        if len(buffer) == 1000:
            writer.lines(buffer)
            buffer.clear()
            if writer.size > limit:
                return None
    writer.lines(buffer)
    writer.flush()
    return count if writer.size <= limit else None


def _answer(path: str, text: str) -> bytes:
    return msgspec.json.encode([path, text])


# --- what events do not say ---

Answer = Callable[[Log, RunPaths, int], str | None]


def _file(name: str) -> Answer:
    return lambda log, paths, experiment_id: _text(paths, paths.experiment(experiment_id) / name)


def _output(log: Log, paths: RunPaths, experiment_id: int) -> str | None:
    found = _read(paths, paths.output(experiment_id), _TAIL)
    if found is None:
        return None
    size, data = found
    if size > len(data):  # from the beginning of a line on
        data = data.partition(b"\n")[2] or data
    return msgspec.json.encode({"size": size, "text": data.decode(errors="replace")}).decode()


def _pipeline(log: Log, paths: RunPaths, experiment_id: int) -> str | None:
    found = sources(log, log.state, experiment_id)
    if not found.config:
        return None
    try:
        return _json(as_json(pipeline(found.config, found.experiment.swept)))
    except InputError:  # too large to be laid out
        return None


def _card(log: Log, paths: RunPaths, experiment_id: int) -> str | None:
    return _json(card(sources(log, log.state, experiment_id)))


OF_EXPERIMENTS: dict[str, Answer] = {
    "/grid_searches/{gs}/{exp}/experiment_config": _file("experiment_config.json"),
    "/system-info/{gs}/{exp}": _file("system_info.json"),
    "/grid_searches/{gs}/{exp}/pipeline": _pipeline,
    "/model-card/{gs}/{exp}": _card,
    "/grid_searches/{gs}/{exp}/output": _output,
}
"""What is asked about an experiment, and its text; None where there is none. One kind after the other: those of one
kind are alike, and pack to almost nothing. What comes first is kept when there is no room for all."""


def _write_answers(log: Log, paths: RunPaths, writer: _Writer, limit: int) -> list[str]:
    """What to say of those that did not fit."""
    state = log.state
    missing: dict[str, int] = {}
    of_grid = "/grid_searches/" + paths.grid_search_id
    for path, text in _of_grid(state, paths):
        if text is not None:
            writer.line(_answer(of_grid + path if path != "/grid_searches" else path, text))
    for path, answer in OF_EXPERIMENTS.items():
        for experiment_id in state.experiments:
            text = answer(log, paths, experiment_id)
            if text is None:
                continue
            if len(text) > _MOST_OF_ONE or not writer.fits(text, limit - _FOR_THE_LAST):
                missing[path] = missing.get(path, 0) + 1
                continue
            writer.line(_answer(path.format(gs=paths.grid_search_id, exp=experiment_id), text))
    return [
        f"For want of room, {count:,} experiments are without what {path} answers." for path, count in missing.items()
    ]


def _of_grid(state: State, paths: RunPaths) -> Iterator[tuple[str, str | None]]:
    summary = projections.summary(state)
    listed = {
        "grid_search_id": paths.grid_search_id,
        "status": state.status or None,
        "running": is_held(paths.lock),
        "head": state.seq,
        "size": 0,
        "modified": state.time,
    }
    yield "/grid_searches", _json([listed])
    yield "/summary", _json({**summary, "grid_search_id": paths.grid_search_id})
    yield "/timeline?points=1000", _json(projections.timeline(state))
    yield "/grid_search_config", _text(paths, paths.grid_search_config) or state.grid_search_config
    yield "/run_config", _text(paths, paths.run_config)
    yield "/validation_strategy_config", _text(paths, paths.validation_config)
    if any(_AXES & experiment.swept.keys() for experiment in state.experiments.values()):
        yield "/report", _json(_reports(state))


def _reports(state: State) -> dict[str, dict[str, Any]]:
    """score -> which epoch counts (empty: as was configured) -> the report."""
    keys = dict.fromkeys(key for experiment in state.experiments.values() for key in experiment.scores)
    found: dict[str, dict[str, Any]] = {}
    for key in list(keys)[:_MOST_SCORES]:
        for rule in ("", "last", "average", "best"):
            try:
                found.setdefault(key, {})[rule] = projections.report(state, key, None, rule)
            except InputError:
                break
    return found


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _text(paths: RunPaths, path: Path) -> str | None:
    found = _read(paths, path, _MOST_OF_ONE + 1)
    return None if found is None else found[1].decode(errors="replace")


def _read(paths: RunPaths, path: Path, most: int) -> tuple[int, bytes] | None:
    """The size of a file and its last bytes; None when there is none, or a link is on the way to it."""
    if any(part.is_symlink() for part in (path, path.parent, paths.root)):
        return None
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            return size, file.read(most)
    except OSError:
        return None

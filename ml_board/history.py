"""A log as of any past event: what is newest, cut off there, and the rest folded from the keyframe before.

    event 0 ────── keyframe ────── keyframe ────── keyframe ── ... ── the newest
                       └─ columns as of there ── fold ──► event `seq`

Columns (scores, when they came, marks) say themselves what they were, so a keyframe is all of a state but these.
Keyframes are written as folding first passes where they belong: the first look at a moment reads the log up to there,
and no other does again. Imports mlgym.record only.
"""

from __future__ import annotations

import tempfile
import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import replace
from typing import IO, NamedTuple

from mlgym.record.fold import Evaluations, Marks, State, fold_all
from mlgym.record.log import Log, packed, unpacked

_KEYFRAMES = 100
_BYTES = 128 << 20  # of all keyframes, on disk
_SPACING = 5_000  # events between two keyframes, at first ...
_EACH = 5  # ... and at least so many for each experiment: packing one takes as long as folding them
_STATES = 4  # that are kept as they are: what is asked for at one moment comes in several requests


class _Keyframe(NamedTuple):
    seq: int
    offset: int
    size: int


class History:
    """The past of `log`. Methods may be called from several threads; who gets a state must not change it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._spacing = _SPACING
        self._keyframes: list[_Keyframe] = []
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="mlgym-")  # noqa: SIM115 (it has no name, and goes with us)
        self._states: OrderedDict[int, State] = OrderedDict()
        """What was asked for, the latest last."""

    def __del__(self) -> None:
        self._file.close()

    def state_at(self, seq: int) -> State:
        """The fold of all events up to number `seq`, and of no other."""
        with self._lock:
            state = self._states.pop(seq, None) or self._folded(seq)
            self._states[seq] = state
            while len(self._states) > _STATES:
                self._states.popitem(last=False)
            return state

    def _folded(self, seq: int) -> State:
        state = self._base(seq)
        for piece in self._log.events(state.seq, seq):
            events = piece
            while events and events[-1].seq >= (due := self._due(state)):
                cut = next(at for at, event in enumerate(events) if event.seq >= due) + 1
                fold_all(state, events[:cut])
                self._save(state)
                events = events[cut:]
            fold_all(state, events)
        state.damaged = self._log.state.damaged  # of the file: it has no moment
        return state

    def _base(self, seq: int) -> State:
        """The newest keyframe, with its columns."""
        at = bisect_right(self._keyframes, seq, key=lambda keyframe: keyframe.seq) - 1
        if at < 0:
            return State()
        keyframe = self._keyframes[at]
        self._file.seek(keyframe.offset)
        state = unpacked(self._file.read(keyframe.size))
        self._log.look(lambda newest: _add_columns(state, newest))
        return state

    def _due(self, state: State) -> int:
        """Where the next keyframe belongs."""
        spacing = max(self._spacing, _EACH * len(state.experiments))
        return (self._keyframes[-1].seq if self._keyframes else 0) + spacing

    def _save(self, state: State) -> None:
        try:
            content = packed(_without_columns(state))
        except OverflowError:  # numbers beyond 64 bits: this log has no keyframes
            self._spacing = 2**62
            return
        end = sum(self._keyframes[-1][1:]) if self._keyframes else 0
        self._file.seek(end)
        self._file.write(content)
        self._keyframes.append(_Keyframe(state.seq, end, len(content)))
        while len(self._keyframes) > _KEYFRAMES or (len(self._keyframes) > 1 and sum(self._keyframes[-1][1:]) > _BYTES):
            self._thin()

    def _thin(self) -> None:
        """Double the distances; what is kept moves to the front."""
        kept, self._keyframes, end = self._keyframes[1::2], [], 0
        for keyframe in kept:
            self._file.seek(keyframe.offset)
            content = self._file.read(keyframe.size)
            self._file.seek(end)
            self._file.write(content)
            self._keyframes.append(_Keyframe(keyframe.seq, end, keyframe.size))
            end += keyframe.size
        self._file.truncate(end)
        self._spacing *= 2


def _without_columns(state: State) -> State:
    rest = {
        experiment_id: replace(experiment, scores={}, evaluations=Evaluations())
        for experiment_id, experiment in state.experiments.items()
    }
    return replace(state, experiments=rest, marks=Marks())


def _add_columns(state: State, newest: State) -> None:
    """Those that `state` had, from a later state of the same log."""
    seq = state.seq
    for experiment_id, experiment in state.experiments.items():
        later = newest.experiments[experiment_id]
        for key, scores in later.scores.items():
            found = scores.as_of(seq)
            if found:
                experiment.scores[key] = found
        end = bisect_right(later.evaluations.seqs, seq)
        experiment.evaluations = Evaluations(later.evaluations.seqs[:end], later.evaluations.times[:end])
    marks = newest.marks
    end = bisect_right(marks.seqs, seq)
    state.marks = Marks(marks.seqs[:end], marks.times[:end], marks.kinds[:end], marks.experiments[:end])

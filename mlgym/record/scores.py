"""Scores by epoch, as three columns, now and as of any event. Imports nothing of ours."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Before(NamedTuple):
    """What event `seq` found in place of the score that it had for an epoch; `value` is None where there was none."""

    seq: int
    epoch: int
    value: float | None
    seq_before: int


Packed = tuple[bytes, bytes, bytes, list[Before]]


class Scores(Mapping[int, float]):
    """epoch -> score, by rising epoch: 24 bytes a point, where a dict takes a hundred.

    `seqs` holds the number of the event that each score came with. What an epoch that was run again has replaced is
    remembered as well, so that the past can be had from the present.
    """

    __slots__ = ("_extremes", "_replaced", "epochs", "seqs", "values_")

    def __init__(self, points: Mapping[int, float] | None = None) -> None:
        self.epochs = array("q")
        self.values_ = array("d")
        self.seqs = array("q")
        self._replaced: list[Before] = []
        self._extremes: tuple[int, int | None, int | None] = (0, None, None)
        """How many points were looked at, and where the lowest and the highest of them are."""
        for epoch, value in (points or {}).items():
            self.put(epoch, value)

    def put(self, epoch: int, value: float, seq: int = 0) -> float | None:
        """Set the score of an epoch; what it was before, if it had one."""
        epochs = self.epochs
        if not epochs or epoch > epochs[-1]:
            self.values_.append(value)
            self.seqs.append(seq)
            epochs.append(epoch)
            return None
        self._extremes = (0, None, None)
        at = bisect_left(epochs, epoch)
        if epochs[at] == epoch:
            before = self.values_[at]
            self._replaced.append(Before(seq, epoch, before, self.seqs[at]))
            self.values_[at] = value
            self.seqs[at] = seq
            return before
        self._replaced.append(Before(seq, epoch, None, 0))
        epochs.insert(at, epoch)
        self.values_.insert(at, value)
        self.seqs.insert(at, seq)
        return None

    def as_of(self, seq: int) -> Scores:
        """What there was after event `seq`, if the events were put in their order."""
        found = Scores()
        found.epochs, found.values_, found.seqs = self.epochs[:], self.values_[:], self.seqs[:]
        found._replaced = self._replaced[: bisect_right(self._replaced, seq, key=lambda before: before.seq)]
        for before in reversed(self._replaced[len(found._replaced) :]):
            at = bisect_left(found.epochs, before.epoch)
            if before.value is None:
                del found.epochs[at], found.values_[at], found.seqs[at]
            else:
                found.values_[at], found.seqs[at] = before.value, before.seq_before
        # What is later now was appended later, so it stands behind all that is not.
        end = bisect_right(found.seqs, False, key=lambda number: number > seq)
        del found.epochs[end:], found.values_[end:], found.seqs[end:]
        return found

    def lowest(self) -> int | None:
        """Where the smallest finite score is, the earliest of equal ones; None when none is finite."""
        return self._looked()[1]

    def highest(self) -> int | None:
        """Where the largest finite score is, the earliest of equal ones; None when none is finite."""
        return self._looked()[2]

    def _looked(self) -> tuple[int, int | None, int | None]:
        """Looks only at what has come since the last time: putting is far more frequent than asking."""
        seen, low, high = found = self._extremes
        if seen == len(self.values_):
            return found
        values = self.values_[seen:]
        smallest, largest = min(values), max(values)  # ignore a NaN that is not the first
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            finite = [value for value in values if math.isfinite(value)]
            smallest, largest = min(finite, default=math.nan), max(finite, default=math.nan)
        if math.isfinite(smallest):
            if low is None or smallest < self.values_[low]:
                low = seen + values.index(smallest)
            if high is None or largest > self.values_[high]:
                high = seen + values.index(largest)
        self._extremes = found = (seen + len(values), low, high)  # at once: others may be looking
        return found

    def __getitem__(self, epoch: int) -> float:
        at = bisect_left(self.epochs, epoch)
        if at < len(self.epochs) and self.epochs[at] == epoch:
            return self.values_[at]
        raise KeyError(epoch)

    def __iter__(self) -> Iterator[int]:
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Scores):  # bit for bit: NaN is itself. When a score came does not matter
            return self.packed()[:2] == other.packed()[:2]
        return dict(self) == other if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Scores({dict(self)})"

    def packed(self) -> Packed:
        """The columns as bytes, and what was replaced."""
        return self.epochs.tobytes(), self.values_.tobytes(), self.seqs.tobytes(), self._replaced

    @classmethod
    def unpacked(cls, packed: Packed) -> Scores:
        """What `packed` gave. Raises `ValueError` when it cannot have."""
        found = cls()
        found.epochs.frombytes(packed[0])
        found.values_.frombytes(packed[1])
        found.seqs.frombytes(packed[2])
        if not len(found.epochs) == len(found.values_) == len(found.seqs):
            raise ValueError("columns of different lengths")
        found._replaced = [Before(*before) for before in packed[3]]
        return found

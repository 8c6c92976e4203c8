"""Which points of a series are drawn when there are more than pixels. Pure; imports nothing of ours."""

from __future__ import annotations

import math
from array import array


def thin(values: array[float], limit: int) -> list[int]:
    """The places of up to `limit` (at least 5) of `values`, rising: all of them if there are no more than that.

    The values are cut into stretches of equal length, and each shows its smallest, its largest and its last one, so
    that no spike disappears. Infinities are values like others; of NaNs only one is kept of a stretch that has nothing
    else. The first and the last value are always there.
    """
    count = len(values)
    if count <= limit:
        return list(range(count))
    stretches = (limit - 2) // 3
    found = {0, count - 1}
    start = 0
    for number in range(1, stretches + 1):
        end = count * number // stretches
        stretch = values[start:end]
        smallest, largest, last = min(stretch), max(stretch), end - 1
        if math.isnan(smallest) or math.isnan(values[last]):  # a NaN at the beginning hides what comes after it
            known = [at for at in range(start, end) if not math.isnan(values[at])]
            if not known:
                found.add(start)
                start = end
                continue
            last = known[-1]
            shown = [values[at] for at in known]
            smallest, largest = min(shown), max(shown)
        found.update((start + stretch.index(smallest), start + stretch.index(largest), last))
        start = end
    return sorted(found)

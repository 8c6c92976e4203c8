"""Thinning: what a reader would miss is never left out."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_board.series import thin

_values = st.lists(
    st.floats(0, 1) | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e308]) | st.integers(-3, 3).map(float),
    max_size=400,
)


@settings(deadline=None, max_examples=500)
@given(values=_values, limit=st.integers(5, 120))
@example(values=[math.nan] * 50, limit=10)
@example(values=[math.nan, *range(50)], limit=10)
@example(values=[*range(50), math.nan], limit=10)
def test_what_is_kept(values: list[float], limit: int) -> None:
    kept = thin(array("d", values), limit)
    assert kept == sorted(set(kept))
    assert len(kept) <= limit
    assert set(kept) <= set(range(len(values)))
    if len(values) <= limit:
        assert kept == list(range(len(values)))
        return
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    known = [value for value in values if not math.isnan(value)]
    shown = [values[at] for at in kept if not math.isnan(values[at])]
    if known:
        assert (min(shown), max(shown)) == (min(known), max(known))


@given(at=st.integers(0, 9_999), spike=st.sampled_from([2.0, -2.0, math.inf, -math.inf]))
def test_a_spike_never_disappears(at: int, spike: float) -> None:
    values = array("d", [math.sin(i) for i in range(10_000)])
    values[at] = spike
    assert at in thin(values, 100)


def test_every_stretch_is_shown() -> None:
    """Also one that holds nothing but NaN, and the course within the others."""
    values = array("d", [i if i < 400 or i > 600 else math.nan for i in range(1000)])
    kept = thin(values, 62)
    assert max(after - before for before, after in pairwise(kept)) <= 100
    assert any(400 < at < 600 for at in kept)
    assert len(kept) > 30

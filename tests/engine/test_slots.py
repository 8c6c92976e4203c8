"""Slots: the law that no device ever holds more than it may, and that devices are filled evenly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mlgym.engine.slots import Device, Slots


@given(
    processes=st.integers(1, 12),
    devices=st.lists(st.integers(0, 7), unique=True, max_size=4),
    per_device=st.none() | st.integers(1, 4),
    choices=st.lists(st.integers(0, 100), max_size=60),
)
def test_a_slot_belongs_to_a_device(
    processes: int, devices: list[int], per_device: int | None, choices: list[int]
) -> None:
    slots = Slots(processes, devices, per_device)
    used: list[Device] = []
    for choice in choices:
        if choice % 3 and (taken := slots.take()):
            used.append(taken[0])
        elif used:
            slots.free(used.pop(choice % len(used)))
        counts = Counter(used)
        assert set(used) <= {*devices} or not devices
        assert len(used) <= slots.count <= processes
        if per_device:
            assert max(counts.values(), default=0) <= per_device
    while taken := slots.take():
        used.append(taken[0])
    assert len(used) == slots.count  # nothing is ever lost


def test_processes_are_shared_evenly() -> None:
    slots = Slots(5, [0, 1])
    taken = [slots.take() for _ in range(6)]
    assert taken == [(0,), (1,), (0,), (1,), (0,), None]
    slots.free(1)
    assert slots.take() == (1,)
    assert Slots(4, [3, 2], jobs_per_device=1).count == 2
    assert [Slots(2, [3, 2]).take(), Slots(2, []).take()] == [(3,), (None,)]


def test_a_device_that_fails_twice_is_quarantined() -> None:
    slots = Slots(2, [0, 1])
    assert not slots.failed(0)
    slots.worked(0)  # it was not the device after all
    assert [slots.failed(0), slots.failed(0)] == [False, True]
    slots.worked(0)
    assert slots.devices == [1]
    assert [slots.take(), slots.take()] == [(1,), None]
    assert [Slots(1, []).failed(None) for _ in range(3)] == [False] * 3

"""Which device a job may run on: slots that are taken, freed and reused by device. Pure; imports nothing of ours."""

from __future__ import annotations

from collections import Counter

QUARANTINE_AFTER = 2

Device = int | None
"""The index of a CUDA device; None is the CPU."""


class Slots:
    """`process_count` places for jobs, spread evenly over `devices` (the CPU when there are none).

    No more than `jobs_per_device` share a device. The place given next is always one on the least loaded device,
    so that processes are balanced whichever jobs end first.
    """

    def __init__(self, process_count: int, devices: list[int], jobs_per_device: int | None = None) -> None:
        self._devices: list[Device] = list(devices) or [None]
        self._process_count = process_count
        # Without a limit of the user's: as many as an even share makes it on the fullest device.
        self._limit = jobs_per_device or -(-process_count // len(self._devices))
        self._used: Counter[Device] = Counter()
        self._failures: Counter[Device] = Counter()

    @property
    def count(self) -> int:
        """How many jobs can run at a time, while no device is in quarantine."""
        return min(self._process_count, self._limit * len(self._devices))

    @property
    def devices(self) -> list[Device]:
        """Those that are not in quarantine."""
        return [device for device in self._devices if self._failures[device] < QUARANTINE_AFTER]

    def take(self) -> tuple[Device] | None:
        """The device for one more job, or None when every place is taken."""
        if self._used.total() >= self._process_count or not self.devices:
            return None
        device = min(self.devices, key=lambda device: (self._used[device], self._devices.index(device)))
        if self._used[device] >= self._limit:
            return None
        self._used[device] += 1
        return (device,)

    def free(self, device: Device) -> None:
        """A job on `device` has ended."""
        self._used[device] -= 1

    def failed(self, device: Device) -> bool:
        """The device itself made a job fail; True when that puts it into quarantine. The CPU never is."""
        if device is None:
            return False
        self._failures[device] += 1
        return self._failures[device] == QUARANTINE_AFTER

    def worked(self, device: Device) -> None:
        """A job came to its own end there: earlier failures are forgotten, unless it is in quarantine already."""
        if self._failures[device] < QUARANTINE_AFTER:
            self._failures[device] = 0

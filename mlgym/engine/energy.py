"""The energy meter of a GPU, through NVIDIA's management library where there is one. Imports torch only."""

from __future__ import annotations

import ctypes
from functools import cache

import torch


@cache
def _library() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL("libnvidia-ml.so.1")
        return found if found.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None


def joules(device: torch.device) -> float | None:
    """What `device` has used since its driver was loaded, all that ran on it together; None where nothing counts it."""
    library = _library() if device.type == "cuda" else None
    if library is None:
        return None
    # By its UUID: the library numbers all devices, CUDA those that are visible.
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    handle = ctypes.c_void_p()
    millijoules = ctypes.c_ulonglong()
    try:
        if library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)) != 0:
            return None
        if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) != 0:
            return None
    except AttributeError:  # an old driver
        return None
    return millijoules.value / 1000

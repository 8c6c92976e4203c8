"""What a run ran on: versions, commit, hardware, command line. Recorded once for each host."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

_PACKAGES = ("mlgym", "torch", "torchvision", "torchmetrics", "numpy", "scikit-learn", "accelerate", "safetensors")


def host() -> str:
    return socket.gethostname()


def system_info(gpus_found: list[dict[str, Any]]) -> dict[str, Any]:
    """Facts about this machine and this process, as plain data; `gpus_found` by whoever may touch them."""
    return {
        "host": host(),
        "command_line": sys.argv,
        "working_directory": str(Path.cwd()),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "all_packages": sorted({f"{d.name}=={d.version}" for d in distributions()}),
        "git": _git(),
        "operating_system": platform.platform(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus_found,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the current directory, and whether files differ from it; None outside a repository."""

    def ask(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def gpus() -> list[dict[str, Any]]:
    """The CUDA devices of this machine. A process that is to fork must not ask."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shared = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory, **shared} for gpu in found]

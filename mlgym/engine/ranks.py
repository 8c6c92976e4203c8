"""The processes that train one experiment together: how many were asked for, and how they find each other.

Whatever launches us (`accelerate launch`, torchrun, mpirun) starts its processes for good, and ends all when one dies.
So the first of them is the run, the others leave at once, and the run starts those of each job itself.
Imports errors; torch where it is used.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from mlgym.errors import InputError

_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")
_OF_A_GROUP = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"}


class Launched(NamedTuple):
    """What a launcher has made of this process; `num_processes` is None where it does not say."""

    rank: int = 0
    num_processes: int | None = None


def launched(environment: Mapping[str, str]) -> Launched:
    """What the environment says of a launcher. Raises `InputError` for one that reaches over several machines."""

    def first(names: tuple[str, ...]) -> int | None:
        return next((int(environment[name]) for name in names if environment.get(name, "").isdigit()), None)

    rank, size, local = first(_RANKS), first(_SIZES), first(_LOCAL_SIZES)
    if rank is not None and size is not None and size > 1:
        if local != size:
            raise InputError(
                f"{size} processes were launched, {'an unknown number' if local is None else local} of them on this "
                "machine: an experiment is trained on one; `environment: {type: ray}` runs a grid on several"
            )
        return Launched(rank, size)
    if "ACCELERATE_USE_CPU" in environment and "MASTER_PORT" in environment:
        # On the CPU, Accelerate's launcher starts one process whatever it was asked for, and does not pass it on.
        asked = _asked_of_the_launcher()
        if asked is None:
            raise InputError(
                "`accelerate launch` starts one process on the CPU and does not say how many it was asked for: "
                "write `num_processes` under environment.config in the run config"
            )
        return Launched(0, asked)
    return Launched()


def _asked_of_the_launcher() -> int | None:
    """`num_processes` by the command line of the process that started us, or by the config file that it has read."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        return None
    options = _options(words)
    if options.get("num_processes", "").isdigit():
        return int(options["num_processes"])
    folder = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    files = [options["config_file"]] if "config_file" in options else []
    files += [str(folder.expanduser() / "accelerate" / f"default_config.{end}") for end in ("json", "yaml")]
    for file in files:
        try:
            found = yaml.safe_load(Path(file).read_text())["num_processes"]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            continue
        return found if isinstance(found, int) else None
    return None


def _options(words: list[str]) -> dict[str, str]:
    """`--num_processes 2`, `--num-processes=2`: by name, up to the script."""
    found = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.endswith(".py"):
            break
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name.replace("-", "_")] = value or following
    return found


class Rank(msgspec.Struct, frozen=True):
    """Which of the processes of a job one is."""

    number: int = 0
    size: int = 1
    port: int = 0
    find_unused_parameters: bool = False


def meeting_point() -> socket.socket:
    """A socket at which the processes of a job will meet; the first of them is to be sent it."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen(128)
    return found


def join(rank: Rank, channel: socket.socket) -> None:
    """Make this process the one that `rank` says; returns when all of them are there."""
    for name in _OF_A_GROUP:
        os.environ.pop(name, None)
    if rank.size == 1:
        return
    import torch
    from torch import distributed

    names = {"RANK": rank.number, "WORLD_SIZE": rank.size, "LOCAL_RANK": rank.number, "LOCAL_WORLD_SIZE": rank.size}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(rank.port))
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")  # all of them are on this machine
    listening = None
    if rank.number == 0:
        _, (listening,), _, _ = socket.recv_fds(channel, 1, 1)
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", rank.port, rank.size, rank.number == 0, master_listen_fd=listening
    )
    use_cpu = on_cpu() or not torch.cuda.is_available()
    distributed.init_process_group("gloo" if use_cpu else "nccl", store=store, rank=rank.number, world_size=rank.size)


def on_cpu() -> bool:
    """Whether Accelerate is told to leave GPUs alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes", "on", "y", "t")


def leave() -> None:
    """The job is done, for this process."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()

"""Everything random follows from the run's seed. Imports torch only."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from numpy.random import mtrand


def derive(*parts: int | str) -> int:
    """A seed of 32 bits that depends on all of `parts`: `derive(run_seed, component_name)`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def repeated(seed: int, repeat: int | None) -> int:
    """`seed` in the repetition of a cell under another seed; None: there is none."""
    return seed if repeat is None else derive(seed, "repeat", repeat)


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch (every device that is in use)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the global one, which users' code draws from
    torch.default_generator.manual_seed(seed)  # 2 us; torch.manual_seed takes 600
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def diverge(rank: int) -> None:
    """Let process `rank` of several, whose generators are all in one state, draw other numbers than the others do."""
    if rank:
        seed_everything(derive(random.getrandbits(62), rank))


_for_drawing = np.random.MT19937(0)


class drawing:
    """`with drawing(seed):` python, numpy and torch draw from `seed`; afterwards as if nothing had been drawn."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._python, self._torch = random.getstate(), torch.default_generator.get_state()
        self._numpy = mtrand.get_bit_generator()
        random.seed(self._seed)
        mtrand.set_bit_generator(_for_drawing)  # copying the state of numpy's own takes 70 us
        np.random.seed(self._seed)
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        random.setstate(self._python)
        mtrand.set_bit_generator(self._numpy)
        torch.default_generator.set_state(self._torch)


def generator(*parts: int | str) -> torch.Generator:
    """A generator of one's own, seeded from `parts`."""
    return torch.Generator().manual_seed(derive(*parts))

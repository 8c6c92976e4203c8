"""From data sets to batches. Imports batch, datasets, seeds.

The order of a pass is a function of (seed, pass), so that a position in the data is two numbers.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from mlgym.errors import ConfigError, one_of
from mlgym.parts.batch import Batch
from mlgym.parts.datasets import Columns, Item, Splits
from mlgym.parts.seeds import derive, generator
from mlgym.schema import bind


class Collate(Protocol):
    """Makes a batch of items (sample, target, tag)."""

    def __call__(self, batch: list[Item]) -> Batch: ...


class Collator:
    """For ordinary items: samples are stacked, targets published under one key."""

    def __init__(self, target_publication_key: str = "target_key") -> None:
        self.target_publication_key = target_publication_key

    def __call__(self, batch: list[Item]) -> Batch:
        return self.columns(_stacked([item[0] for item in batch]), _stacked([item[1] for item in batch]))

    def columns(self, samples: torch.Tensor, targets: torch.Tensor) -> Batch:
        """The same batch from samples and targets that are stacked already."""
        return Batch(samples, {self.target_publication_key: targets}, targets)


def _stacked(values: list[Any]) -> torch.Tensor:
    if isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    return torch.stack([torch.as_tensor(value) for value in values])


def collator(
    *, collator_type: Callable[..., Collate] = Collator, collator_params: dict[str, Any] | None = None
) -> Collate:
    """What makes a batch of items: `collator_type`, an injected class, or the built-in one."""
    try:
        return collator_type(**bind(collator_type, collator_params or {}))
    except ConfigError as error:
        raise error.inside("collator_params") from None


class Loader:
    """Batches of one split.

    In-memory data with a collator that knows `columns` is batched by indexing whole batches; everything else
    goes through torch's DataLoader. Both give the same batches in the same order.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Collate,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self._collate = collate
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._options = options or {}
        self._columns: Callable[..., Batch] | None = (
            getattr(collate, "columns", None) if isinstance(dataset, Columns) else None
        )

    def __len__(self) -> int:
        """The number of training batches in one pass."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self._drop_last)

    @property
    def num_evaluation_batches(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def training_batches(self, pass_: int, start: int = 0) -> Iterator[Batch]:
        """The batches of pass `pass_` (counted from 0), from number `start` on."""
        size = len(self.dataset)
        order = torch.randperm(size, generator=generator(self.seed, pass_)) if self._shuffle else torch.arange(size)
        return self._batches(list(order.split(self.batch_size))[start : len(self)], derive(self.seed, "workers", pass_))

    def evaluation_batches(self) -> Iterator[Batch]:
        """Every sample once, in the order of the split."""
        if self._columns:
            for start in range(0, len(self.dataset), self.batch_size):
                yield self._columns(*self.dataset.take(slice(start, start + self.batch_size)))
        else:
            yield from self._batches(list(torch.arange(len(self.dataset)).split(self.batch_size)), self.seed)

    def _batches(self, batches: list[torch.Tensor], worker_seed: int) -> Iterator[Batch]:
        if self._columns:
            return (self._columns(*self.dataset.take(rows)) for rows in batches)
        return iter(
            DataLoader(
                self.dataset,
                batch_sampler=[rows.tolist() for rows in batches],
                collate_fn=self._collate,
                generator=torch.Generator().manual_seed(worker_seed),
                worker_init_fn=_ignore_interrupts,
                **self._options,
            )
        )


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches the workers as well, but when they end is for the job to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def loaders(
    iterators: Splits,
    data_collator: Collate,
    *,
    batch_size: int,
    seed: int,
    seeds: dict[str, int] | list[int] | None = None,
    drop_last: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> dict[str, Loader]:
    """A loader for each split. Training shuffles anew in every pass, evaluation reads in order and drops nothing.

    `seeds` gives the shuffling seed of each split: by name, or as a list in the order of the splits.
    """
    if batch_size < 1:
        raise ConfigError(f"must be at least 1, not {batch_size}", ("batch_size",))
    if num_workers < 0:
        raise ConfigError(f"must not be negative, not {num_workers}", ("num_workers",))
    if isinstance(seeds, list):
        if len(seeds) < len(iterators):
            raise ConfigError(f"{len(seeds)} seeds for {len(iterators)} splits: {', '.join(iterators)}", ("seeds",))
        seeds = dict(zip(iterators, seeds, strict=False))
    for split in seeds or {}:
        if split not in iterators:
            raise ConfigError(f"there is no split {split!r}; {one_of(split, iterators)}", ("seeds", split))
    for split, dataset in iterators.items():
        if len(dataset) == 0:
            raise ConfigError(f"split {split!r} is empty")
        if drop_last and len(dataset) < batch_size:
            raise ConfigError(f"split {split!r} has {len(dataset)} samples: not one whole batch", ("drop_last",))
    return {
        split: Loader(
            dataset,
            data_collator,
            batch_size,
            (seeds or {}).get(split, derive(seed, split)),
            drop_last=drop_last,
            options={"num_workers": num_workers, "pin_memory": pin_memory},
        )
        for split, dataset in iterators.items()
    }

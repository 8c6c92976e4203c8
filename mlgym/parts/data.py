"""From data sets to batches. Imports batch, datasets, seeds.

The order of a pass is a function of (seed, pass), so that a position in the data is two numbers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import torch
from torch.utils.data import DataLoader, Dataset

from mlgym.errors import ConfigError, ConfigPath, one_of
from mlgym.parts.batch import WHOLE, Batch, Part
from mlgym.parts.datasets import Columns, Item, Splits, labels
from mlgym.parts.seeds import derive, drawing, generator
from mlgym.processes import die_with_parent
from mlgym.schema import bind

Strategy = Literal["random", "weighted_random", "in_order"]


def balanced_weights(dataset: Any, label_pos: int | None = None) -> torch.Tensor:
    """A weight for each item, [n], under which every class is drawn equally often.

    The label is the item's target (also at position 2, where items hold it again), or stands at `label_pos`.
    """
    if label_pos in (None, 1, 2):
        classes = labels(dataset)
    else:
        classes = torch.as_tensor([int(dataset[i][label_pos]) for i in range(len(dataset))])
    if classes.ndim != 1:
        raise ConfigError(
            f"weighted sampling needs one label for each item, but targets have {classes.ndim - 1} more axes"
        )
    _, inverse, counts = classes.unique(return_inverse=True, return_counts=True)
    weights: torch.Tensor = (1 / counts.double())[inverse]
    return weights


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
        strategy: Strategy = "random",
        drop_last: bool = False,
        label_pos: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self._collate = collate
        self._strategy = strategy
        self._label_pos = label_pos
        self._cumulated: torch.Tensor | None = None
        self._kept: dict[str, Any] = {}
        """DataLoaders whose workers live on from pass to pass, one for training and one for evaluation."""
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

    def training_batches(self, pass_: int, start: int = 0, part: Part = WHOLE) -> Iterator[Batch]:
        """The batches of pass `pass_` (counted from 0), from number `start` on; of each, `part`."""
        batches = list(self._order(pass_).split(self.batch_size))[start : len(self)]
        return self._divided("training", pass_, batches, start, part)

    def _order(self, pass_: int) -> torch.Tensor:
        size = len(self.dataset)
        if self._strategy == "in_order":
            return torch.arange(size)
        if self._strategy == "random":
            return torch.randperm(size, generator=generator(self.seed, pass_))
        if self._cumulated is None:
            self._cumulated = balanced_weights(self.dataset, self._label_pos).cumsum(0)
        # As torch.multinomial with replacement, which refuses more than 2^24 items.
        drawn = torch.rand(size, generator=generator(self.seed, pass_), dtype=torch.float64) * self._cumulated[-1]
        return torch.searchsorted(self._cumulated, drawn, right=True).clamp_(max=size - 1)

    def evaluation_batches(self, part: Part = WHOLE) -> Iterator[Batch]:
        """Every sample once, in the order of the split; of each batch, `part`."""
        if self._columns and part.size == 1:
            slices = [slice(i, i + self.batch_size) for i in range(0, len(self.dataset), self.batch_size)]
            return self._taken(self._columns, "evaluation", 0, slices, 0, 0)
        batches = list(torch.arange(len(self.dataset)).split(self.batch_size))
        return self._divided("evaluation", 0, batches, 0, part)

    def _divided(self, kind: str, pass_: int, batches: list[torch.Tensor], start: int, part: Part) -> Iterator[Batch]:
        if part.size == 1:
            return self._batches(kind, pass_, batches, start, 0)
        return self._parts(kind, pass_, batches, start, part)

    def _parts(self, kind: str, pass_: int, batches: list[torch.Tensor], start: int, part: Part) -> Iterator[Batch]:
        parts = []
        for rows in batches:
            first, end = part.bounds(len(rows))
            parts.append(rows[first:end] if first < end else rows[:1])
        shares = [part.share(len(rows)) for rows in batches]
        for batch, share in zip(self._batches(kind, pass_, parts, start, part.rank), shares, strict=True):
            batch.share = share
            yield batch

    def _batches(self, kind: str, pass_: int, batches: list[torch.Tensor], start: int, rank: int) -> Iterator[Batch]:
        if self._columns:
            return self._taken(self._columns, kind, pass_, batches, start, rank)
        keys: list[Any] = [_Key(kind, pass_, start + i, rank, rows.tolist()) for i, rows in enumerate(batches)]
        fetch = _Fetch(self.dataset, self._collate, self.seed)
        if not self._options.get("num_workers") and not self._options.get("pin_memory"):
            return map(fetch.__getitems__, keys)  # what a DataLoader does as well, 30 us a batch faster
        kept = self._kept.get(kind)
        if kept is None:
            kept = DataLoader(
                fetch,
                batch_sampler=keys,
                collate_fn=_as_it_is,
                generator=torch.Generator(),
                worker_init_fn=_as_worker,
                **self._options,
            )
            if self._options.get("persistent_workers"):
                self._kept[kind] = kept
        else:  # its workers are told which rows to read, so they need not know that the list is another
            kept.batch_sampler[:] = keys
        return iter(kept)

    def _taken(
        self,
        columns: Callable[..., Batch],
        kind: str,
        pass_: int,
        batches: Sequence[torch.Tensor | slice],
        start: int,
        rank: int,
    ) -> Iterator[Batch]:
        """Whole batches by indexing."""
        if type(self._collate) is Collator:  # which draws nothing
            for rows in batches:
                yield columns(*self.dataset.take(rows))
            return
        for i, rows in enumerate(batches):
            with drawing(_seed(self.seed, kind, pass_, start + i, rank)):
                batch = columns(*self.dataset.take(rows))
            yield batch


class _Key(NamedTuple):
    """A batch: its kind, pass and number, whose part of it this is, and the rows that it consists of."""

    kind: str
    pass_: int
    number: int
    rank: int
    rows: list[int]


def _seed(seed: int, kind: str, pass_: int, number: int, rank: int) -> int:
    """For what is drawn in a batch; every part of it draws something else."""
    return derive(seed, kind, pass_, number, *([rank] if rank else []))


class _Fetch(Dataset[Batch]):
    """Fetches a whole batch, in whichever process. What is drawn at random on the way, by transforms or by the
    collator, follows from the batch's place alone: neither from other batches nor from the number of workers."""

    def __init__(self, dataset: Any, collate: Collate, seed: int) -> None:
        self._dataset = dataset
        self._collate = collate
        self._seed = seed

    def __getitems__(self, key: _Key) -> Batch:
        with drawing(_seed(self._seed, key.kind, key.pass_, key.number, key.rank)):
            many = getattr(self._dataset, "__getitems__", None)
            return self._collate(many(key.rows) if many else [self._dataset[row] for row in key.rows])


def _as_it_is(batch: Any) -> Any:
    return batch


def _as_worker(_: int) -> None:
    """Ctrl-C reaches the workers as well, but when they end is for the job to say; a killed job takes them along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(os.getppid())


class SamplingStrategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the training batches of one split are drawn."""

    strategy: Strategy = "random"
    seed: int | None = None
    label_pos: int | None = None


def loaders(
    iterators: Splits,
    data_collator: Collate,
    *,
    batch_size: int,
    seed: int,
    seeds: dict[str, int] | list[int] | None = None,
    weighted_sampling_split_name: str | None = None,
    weigthed_sampling_split_name: str | None = None,
    label_pos: int | None = None,
    drop_last: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool = False,
    prefetch_factor: int | None = None,
) -> dict[str, Loader]:
    """A loader for each split. Training shuffles anew in every pass, evaluation reads in order and drops nothing.

    `seeds` gives the shuffling seed of each split: by name, or as a list in the order of the splits. The split
    `weighted_sampling_split_name` is drawn with replacement, every class equally often. `persistent_workers` keeps
    the loader's workers from pass to pass.
    """
    if isinstance(seeds, list):
        if len(seeds) < len(iterators):
            raise ConfigError(f"{len(seeds)} seeds for {len(iterators)} splits: {', '.join(iterators)}", ("seeds",))
        seeds = dict(zip(iterators, seeds, strict=False))
    for split in seeds or {}:
        _known(split, iterators, ("seeds", split))
    weighted = weighted_sampling_split_name or weigthed_sampling_split_name
    if weighted is not None:
        key = "weighted_sampling_split_name" if weighted_sampling_split_name else "weigthed_sampling_split_name"
        _known(weighted, iterators, (key,))
    strategies = {
        split: SamplingStrategy(
            "weighted_random" if split == weighted else "random", (seeds or {}).get(split), label_pos
        )
        for split in iterators
    }
    options = _options(num_workers, pin_memory, persistent_workers, prefetch_factor)
    return _loaders(iterators, data_collator, batch_size, seed, strategies, drop_last, options)


def strategy_loaders(
    iterators: Splits,
    data_collator: Collate,
    *,
    batch_size: int,
    seed: int,
    sampling_strategies: dict[str, SamplingStrategy] | None = None,
    drop_last: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool = False,
    prefetch_factor: int | None = None,
) -> dict[str, Loader]:
    """A loader for each split, with a sampling strategy of its own for training; `random` where none is named.

    `weighted_random` draws with replacement, every class equally often. Evaluation reads in order, whatever the
    strategy. `persistent_workers` keeps the loader's workers from pass to pass.
    """
    strategies = sampling_strategies or {}
    for split in strategies:
        _known(split, iterators, ("sampling_strategies", split))
    options = _options(num_workers, pin_memory, persistent_workers, prefetch_factor)
    return _loaders(iterators, data_collator, batch_size, seed, strategies, drop_last, options)


def _known(split: str, iterators: Splits, at: ConfigPath) -> None:
    if split not in iterators:
        raise ConfigError(f"there is no split {split!r}; {one_of(split, iterators)}", at)


def _options(
    num_workers: int, pin_memory: bool, persistent_workers: bool, prefetch_factor: int | None
) -> dict[str, Any]:
    if num_workers < 0:
        raise ConfigError(f"must not be negative, not {num_workers}", ("num_workers",))
    if prefetch_factor is not None and (num_workers == 0 or prefetch_factor < 1):
        raise ConfigError("needs num_workers, and to be at least 1", ("prefetch_factor",))
    if persistent_workers and num_workers == 0:
        raise ConfigError("needs num_workers", ("persistent_workers",))
    return {
        "num_workers": num_workers,
        "pin_memory": pin_memory,
        "persistent_workers": persistent_workers,
        "prefetch_factor": prefetch_factor,
    }


def _loaders(
    iterators: Splits,
    collate: Collate,
    batch_size: int,
    seed: int,
    strategies: Mapping[str, SamplingStrategy],
    drop_last: bool,
    options: dict[str, Any],
) -> dict[str, Loader]:
    if batch_size < 1:
        raise ConfigError(f"must be at least 1, not {batch_size}", ("batch_size",))
    if options["num_workers"]:
        for part in (collate, *iterators.values()):
            if hasattr(part, "load_state_dict"):
                raise ConfigError(
                    f"{type(part).__name__} has a state, which would be that of each worker for itself: use 0",
                    ("num_workers",),
                )
    found = {}
    for split, dataset in iterators.items():
        if len(dataset) == 0:
            raise ConfigError(f"split {split!r} is empty")
        if drop_last and len(dataset) < batch_size:
            raise ConfigError(f"split {split!r} has {len(dataset)} samples: not one whole batch", ("drop_last",))
        sampling = strategies.get(split, SamplingStrategy())
        own_seed = derive(seed, split) if sampling.seed is None else sampling.seed
        found[split] = Loader(
            dataset, collate, batch_size, own_seed, sampling.strategy, drop_last, sampling.label_pos, options
        )
    return found

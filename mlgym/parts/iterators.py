"""Splits made of splits: joined, shuffled, filtered, relabelled, transformed, encoded, viewed.

Every component is a function (iterators, **config) and leaves what it is given as it was. In-memory data stays
in memory; other data is changed item by item as it is read. Imports datasets, seeds, table, torchvision_ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
import torch
from torch.utils.data import ConcatDataset, Dataset

from mlgym.errors import ConfigError, ConfigPath, one_of
from mlgym.parts import datasets, torchvision_ops  # noqa: F401 (torchvision_ops comes before torchvision: see there)
from mlgym.parts.datasets import Columns, Item, Splits, subset
from mlgym.parts.seeds import derive, generator
from mlgym.parts.table import Table
from mlgym.schema import convert

# --- data sets ----------------------------------------------------------------------------------------------


class TaggedColumns(Columns):
    """In-memory data whose tags [n] are not its targets: the labels of one-hot vectors, for one.

    Without `pixels`, bytes are given as they are instead of as floats in [0, 1].
    """

    def __init__(
        self,
        samples: torch.Tensor,
        targets: torch.Tensor,
        tags: torch.Tensor,
        rows: torch.Tensor | None = None,
        pixels: bool = True,
    ) -> None:
        super().__init__(samples, targets, rows)
        self.tags = tags
        self._image = self._image and pixels

    def __getitem__(self, index: int) -> Item:
        sample, target, _ = super().__getitem__(index)
        return sample, target, self.tags[index if self.rows is None else int(self.rows[index])]

    def subset(self, index: torch.Tensor) -> TaggedColumns:
        """The items at `index`, a copy or a view as `Columns.subset` has it."""
        part = super().subset(index)
        copied = part.rows is None
        tags = self.tags[index if self.rows is None else self.rows[index]] if copied else self.tags
        return TaggedColumns(part.samples, part.targets, tags, part.rows, self._image)

    def labels(self) -> torch.Tensor:
        """The label of each item, [n]."""
        return self.tags if self.rows is None else self.tags[self.rows]


class Joined(ConcatDataset[Item]):
    """The items of several data sets one after the other."""

    def labels(self) -> torch.Tensor:
        """The label of each item, [n]."""
        return torch.cat([datasets.labels(part) for part in self.datasets])


class Relabelled(Dataset[Item]):
    """The items of `base` with mapped labels, each a tensor without axes."""

    def __init__(self, base: Any, mappings: list[LabelMapping]) -> None:
        self.base = base
        self.mappings = mappings

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Item:
        sample, target = self.base[index][:2]
        label = _mapped(torch.as_tensor(target), self.mappings)
        return sample, label, label

    def labels(self) -> torch.Tensor:
        """The label of each item, [n]."""
        return _mapped(datasets.labels(self.base), self.mappings)


class OneHot(Dataset[Item]):
    """The items of `base` with one-hot vectors of `size` as targets; the tags are `classes` [n]."""

    def __init__(self, base: Any, classes: torch.Tensor, size: int) -> None:
        self.base = base
        self.classes = classes
        self.size = size

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Item:
        label = self.classes[index]
        return self.base[index][0], _one_hot(label.unsqueeze(0), self.size)[0], label

    def labels(self) -> torch.Tensor:
        """The label of each item, [n]."""
        return self.classes


class Transformed(Dataset[Item]):
    """The items of `base` with `transforms` applied to the sample, one after the other, whenever it is read."""

    def __init__(self, base: Any, transforms: list[Callable[[Any], Any]]) -> None:
        self.base = base
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Item:
        sample, target, tag = self.base[index]
        for transform in self.transforms:
            sample = transform(sample)
        return sample, target, tag

    def labels(self) -> torch.Tensor:
        """The label of each item, [n]; transforms nothing."""
        return datasets.labels(self.base)


# --- components ---------------------------------------------------------------------------------------------


class OldSplits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Splits of one of the required iterators."""

    iterators_name: str
    splits: list[str]


class Combination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A split and what it is made of."""

    new_split: str
    old_splits: list[OldSplits]


def combined(*, combine_configs: list[Combination], **iterators: Splits) -> Splits:
    """New splits, each made of the items of old ones one after the other.

    Any number of requirements, under names of your choice; `iterators_name` is one of these names. Splits that
    no entry names are left behind.
    """
    _all_splits(iterators)
    if not combine_configs:
        raise ConfigError("name at least one new split", ("combine_configs",))
    result: Splits = {}
    for i, entry in enumerate(combine_configs):
        at: ConfigPath = ("combine_configs", i)
        if entry.new_split in result:
            raise ConfigError(f"there are two splits named {entry.new_split!r}", (*at, "new_split"))
        parts = []
        for j, old in enumerate(entry.old_splits):
            if old.iterators_name not in iterators:
                raise ConfigError(
                    f"there is no requirement {old.iterators_name!r}; {one_of(old.iterators_name, iterators)}",
                    (*at, "old_splits", j, "iterators_name"),
                )
            found = iterators[old.iterators_name]
            for k, split in enumerate(old.splits):
                _known(split, found, (*at, "old_splits", j, "splits", k))
                parts.append(found[split])
        if not parts:
            raise ConfigError(f"the split {entry.new_split!r} is made of no splits", (*at, "old_splits"))
        result[entry.new_split] = _joined(parts)
    return result


def in_memory(iterators: Splits) -> Splits:
    """Read every item once and keep it. Samples of one split must agree in shape and type."""
    return {split: _read(dataset, split) for split, dataset in iterators.items()}


def shuffled(
    iterators: Splits,
    *,
    seeds: dict[str, int] | None = None,
    applicable_splits: list[str] | None = None,
    seed: int,
) -> Splits:
    """Put the items into a random order, the same in every epoch, in `applicable_splits` (by default all) only.

    `seeds` gives a seed for each split; one that is not named there has its own, derived from `seed`.
    """
    seeds = seeds or {}
    for split in seeds:
        _known(split, iterators, ("seeds", split))

    def shuffle(split: str, dataset: Any) -> Any:
        draw = generator(seeds.get(split, derive(seed, split)))
        return subset(dataset, torch.randperm(len(dataset), generator=draw))

    return _changed(iterators, applicable_splits, shuffle)


def filtered_labels(
    iterators: Splits, *, filtered_labels: list[int], applicable_splits: list[str] | None = None
) -> Splits:
    """Keep the items with one of the labels `filtered_labels`, in `applicable_splits` (by default all) only."""

    def keep(split: str, dataset: Any) -> Any:
        found = _labels_of(dataset, split)
        rows = torch.isin(found, torch.tensor(filtered_labels, dtype=torch.double)).nonzero().flatten()
        if len(rows) == 0:
            known = one_of("", [_shown(label) for label in found.unique()])
            raise ConfigError(
                f"nothing is left of split {split!r}: no item has one of the labels {filtered_labels}; {known}",
                ("filtered_labels",),
            )
        return subset(dataset, rows)

    return _changed(iterators, applicable_splits, keep)


class LabelMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Labels and the one they become."""

    previous_labels: list[int]
    new_label: int


def mapped_labels(
    iterators: Splits, *, mappings: list[LabelMapping], applicable_splits: list[str] | None = None
) -> Splits:
    """Replace labels by others, all at once, in `applicable_splits` (by default all) only; labels not named stay."""
    seen: set[int] = set()
    for i, mapping in enumerate(mappings):
        for j, label in enumerate(mapping.previous_labels):
            if label in seen:
                raise ConfigError(f"the label {label} is mapped twice", ("mappings", i, "previous_labels", j))
            seen.add(label)

    def relabel(split: str, dataset: Any) -> Any:
        if len(dataset) and torch.as_tensor(dataset[0][1]).ndim:
            raise ConfigError(f"the targets of split {split!r} are vectors; map labels before encoding them")
        if not isinstance(dataset, Columns):
            return Relabelled(dataset, mappings)
        targets = _mapped(dataset.targets, mappings)
        if not isinstance(dataset, TaggedColumns):
            return Columns(dataset.samples, targets, dataset.rows)
        return TaggedColumns(dataset.samples, targets, targets, dataset.rows, dataset._image)

    return _changed(iterators, applicable_splits, relabel)


class TransformConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class of torchvision.transforms.v2, or a dotted path `package.module:Name`, and its parameters."""

    name: str
    params: dict[str, Any] | None = None


def transformed(
    iterators: Splits, *, transforms: list[TransformConfig], applicable_splits: list[str] | None = None
) -> Splits:
    """Apply transforms to each sample whenever it is read, in `applicable_splits` (by default all) only.

    A transform is a class of torchvision.transforms.v2 or a dotted path to anything that, called with `params`,
    gives a callable. One that holds others (RandomApply, RandomChoice) lists them under `transforms`, likewise.
    Random ones draw anew each time. They are tried on the first sample of each split, so that a transform that
    does not fit the samples is found at once.
    """
    built = [_transform(entry, ("transforms", i)) for i, entry in enumerate(transforms)]

    def transform(split: str, dataset: Any) -> Transformed:
        _try(built, dataset, split)
        return Transformed(dataset, built)

    return _changed(iterators, applicable_splits, transform)


class FeatureEncoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Features, by their indices, that are encoded alike, with what the split `train_split` says about them."""

    feature_type: Literal["categorical", "continuous"]
    feature_names: list[int]
    train_split: str


def feature_encoded(
    iterators: Splits, *, feature_encoding_configs: list[FeatureEncoding], applicable_splits: list[str] | None = None
) -> Splits:
    """Encode the features of samples that are vectors, in `applicable_splits` (by default all) only.

    Continuous features become (value - mean) / standard deviation (1 where it is 0), categorical ones one-hot
    vectors over their sorted categories. Mean, deviation and categories are those of `train_split` alone; a
    category that is not in it becomes zeros. The new columns stand in the order of the entries, and in the order
    of the features within an entry; features that no entry names are appended unchanged, in their order.
    """
    chosen = _applicable(iterators, applicable_splits)
    if not feature_encoding_configs:
        raise ConfigError("name at least one feature", ("feature_encoding_configs",))
    for i, entry in enumerate(feature_encoding_configs):
        _known(entry.train_split, iterators, ("feature_encoding_configs", i, "train_split"))
    needed = {*chosen, *(entry.train_split for entry in feature_encoding_configs)}
    columns = {split: _read(dataset, split) for split, dataset in iterators.items() if split in needed}
    vectors = {split: _vectors(found, split) for split, found in columns.items()}
    width = _width(vectors)
    rest = _unnamed_features(feature_encoding_configs, width)
    encoders = [_fitted(entry, vectors[entry.train_split], i) for i, entry in enumerate(feature_encoding_configs)]

    def encode(split: str, dataset: Any) -> Columns:
        values = vectors[split]
        pieces = []
        for i, (entry, encoder) in enumerate(zip(feature_encoding_configs, encoders, strict=True)):
            try:
                pieces.append(torch.as_tensor(encoder.transform(values[:, entry.feature_names].numpy())))
            except ValueError as error:
                raise ConfigError(f"split {split!r}: {error}", ("feature_encoding_configs", i)) from None
        samples = torch.cat([*pieces, values[:, rest]], 1).float()
        source = columns[split]
        targets = source.take(slice(None))[1]
        if isinstance(source, TaggedColumns):
            return TaggedColumns(samples, targets, source.labels())
        return Columns(samples, targets)

    return _changed(iterators, chosen, encode)


def one_hot_targets(
    iterators: Splits, *, target_vector_size: int, applicable_splits: list[str] | None = None
) -> Splits:
    """Make targets one-hot vectors of floats, in `applicable_splits` (by default all) only; tags stay the labels."""
    if target_vector_size < 1:
        raise ConfigError(f"must be at least 1, not {target_vector_size}", ("target_vector_size",))

    def encode(split: str, dataset: Any) -> Any:
        found = _labels_of(dataset, split)
        wrong = (found < 0) | (found >= target_vector_size) | (found != found.long())
        if wrong.any():
            raise ConfigError(
                f"split {split!r} has the label {_shown(found[wrong][0])}, expected 0 to {target_vector_size - 1}",
                ("target_vector_size",),
            )
        if not isinstance(dataset, Columns):
            return OneHot(dataset, found, target_vector_size)
        if dataset.rows is None:
            targets, tags = _one_hot(found, target_vector_size), found
        else:  # rows outside this view may hold any label: their vectors are zero and nobody sees them
            every = dataset.tags if isinstance(dataset, TaggedColumns) else dataset.targets
            targets, tags = torch.zeros(len(every), target_vector_size), every
            targets[dataset.rows] = _one_hot(found, target_vector_size)
        return TaggedColumns(dataset.samples, targets, tags, dataset.rows, dataset._image)

    return _changed(iterators, applicable_splits, encode)


def view(
    iterators: Splits,
    *,
    split_indices: dict[str, list[int]],
    applicable_split: str,
    view_tags: dict[str, Any] | None = None,
) -> Splits:
    """New splits that hold the items of `applicable_split` at the given indices, in the given order.

    They replace all the splits there were. `view_tags` are notes of yours and change nothing.
    """
    _known(applicable_split, iterators, ("applicable_split",))
    if not split_indices:
        raise ConfigError("name at least one split", ("split_indices",))
    dataset = iterators[applicable_split]
    size = len(dataset)
    for split, indices in split_indices.items():
        if not indices:
            raise ConfigError(f"the split {split!r} would be empty", ("split_indices", split))
        for i, index in enumerate(indices):
            if not 0 <= index < size:
                raise ConfigError(
                    f"index {index} is out of bounds: split {applicable_split!r} has items 0 to {size - 1}",
                    ("split_indices", split, i),
                )
    return {split: subset(dataset, torch.tensor(indices)) for split, indices in split_indices.items()}


# --- splits -------------------------------------------------------------------------------------------------


def _known(split: str, iterators: Iterable[str], at: ConfigPath) -> None:
    if split not in iterators:
        raise ConfigError(f"there is no split {split!r}; {one_of(split, iterators)}", at)


def _applicable(iterators: Splits, names: list[str] | None) -> list[str]:
    if names is None:
        return list(iterators)
    if not names:
        raise ConfigError("name at least one split, or leave the key out for all of them", ("applicable_splits",))
    for i, name in enumerate(names):
        _known(name, iterators, ("applicable_splits", i))
    return names


def _changed(iterators: Splits, names: list[str] | None, change: Callable[[str, Any], Any]) -> Splits:
    """The splits in their order, with `change(split, dataset)` in place of those that `names` names."""
    chosen = set(_applicable(iterators, names))
    return {split: change(split, dataset) if split in chosen else dataset for split, dataset in iterators.items()}


def _all_splits(iterators: Mapping[str, Any]) -> None:
    """Whatever `combined` is called with beside its own key must be splits; a misspelt key ends up there too."""
    for name, value in iterators.items():
        if isinstance(value, Mapping):
            continue
        if isinstance(value, Dataset):
            raise ConfigError(f"the requirement {name!r} is one data set; subscribe to a list of splits: [train]")
        raise ConfigError(f"unknown key {name!r}; {one_of(name, ['combine_configs'])}", (name,))


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if len({_layout(part) for part in parts}) > 1 or _layout(parts[0]) is None:
        return Joined(parts)
    # Bytes stay bytes: the stored rows are joined, not what is read from them.
    samples = torch.cat([_seen(part, part.samples) for part in parts])
    targets = torch.cat([_seen(part, part.targets) for part in parts])
    if isinstance(parts[0], TaggedColumns):
        return TaggedColumns(samples, targets, torch.cat([part.labels() for part in parts]), None, parts[0]._image)
    return Columns(samples, targets)


def _layout(dataset: Any) -> tuple[Any, ...] | None:
    """What in-memory data must agree in to be joined in memory; None for other data."""
    if type(dataset) not in (Columns, TaggedColumns):
        return None
    kept = [dataset.samples, dataset.targets, *([dataset.tags] if isinstance(dataset, TaggedColumns) else [])]
    return (type(dataset), dataset._image, *((values.shape[1:], values.dtype) for values in kept))


def _seen(dataset: Columns, values: torch.Tensor) -> torch.Tensor:
    return values if dataset.rows is None else values[dataset.rows]


# --- items --------------------------------------------------------------------------------------------------


def _read(dataset: Any, split: str) -> Columns:
    """All items of `dataset` in memory."""
    if isinstance(dataset, Columns):
        return dataset
    if len(dataset) == 0:
        raise ConfigError(f"split {split!r} is empty")
    samples = torch.empty(0)
    targets: list[torch.Tensor] = []
    tags: list[torch.Tensor] = []
    for i in range(len(dataset)):
        item = dataset[i]
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise ConfigError(f"split {split!r}, item {i}: expected (sample, target, tag), got {type(item).__name__}")
        sample, target, tag = (
            _tensor(value, f"split {split!r}, item {i}: the {name}")
            for value, name in zip(item, ("sample", "target", "tag"), strict=True)
        )
        if i == 0:  # filled as it is read: a list to be stacked would take the memory twice
            samples = torch.empty((len(dataset), *sample.shape), dtype=sample.dtype)
        for name, value, first in (
            ("sample", sample, samples[0]),
            ("target", target, targets[0] if targets else target),
            ("tag", tag, tags[0] if tags else tag),
        ):
            if value.shape != first.shape or value.dtype != first.dtype:
                raise ConfigError(
                    f"split {split!r}, item {i}: the {name} is {_kind(value)}, but that of item 0 is {_kind(first)}"
                )
        samples[i] = sample
        targets.append(target)
        tags.append(tag)
    answers, labels = torch.stack(targets), torch.stack(tags)
    if torch.equal(answers, labels) and samples.dtype != torch.uint8:
        return Columns(samples, answers)
    return TaggedColumns(samples, answers, labels, pixels=False)


def _tensor(value: Any, what: str) -> torch.Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"{what} is of type {type(value).__name__}, not numbers to keep in a tensor") from None


def _kind(value: torch.Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _labels_of(dataset: Any, split: str) -> torch.Tensor:
    try:
        found = datasets.labels(dataset)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"split {split!r}: the targets cannot be read as labels: {error}") from error
    if found.ndim != 1:
        raise ConfigError(
            f"split {split!r}: expected one label for each item, but targets have shape {list(found.shape[1:])}"
        )
    return found.long() if found.dtype == torch.bool else found


def _shown(label: torch.Tensor) -> str:
    return f"{label.item():g}"


def _mapped(values: torch.Tensor, mappings: list[LabelMapping]) -> torch.Tensor:
    """`values` of any shape; all are looked up before any is replaced."""
    values = values if values.is_floating_point() else values.long()
    result = values.clone()
    for mapping in mappings:
        result[torch.isin(values, torch.tensor(mapping.previous_labels, dtype=values.dtype))] = mapping.new_label
    return result


def _one_hot(classes: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(classes.long(), size).float()


# --- transforms ---------------------------------------------------------------------------------------------


def _torchvision_transforms() -> Mapping[str, Any]:
    from torchvision.transforms import v2

    return {
        name: found
        for name, found in vars(v2).items()
        if isinstance(found, type) and issubclass(found, v2.Transform) and found is not v2.Transform
    }


_TRANSFORMS = Table("transform", _torchvision_transforms)


def _transform(entry: TransformConfig, at: ConfigPath) -> Callable[[Any], Any]:
    params = dict(entry.params or {})
    inner = params.get("transforms")
    if isinstance(inner, list):
        params["transforms"] = [_inner(value, (*at, "params", "transforms", i)) for i, value in enumerate(inner)]
    built = _TRANSFORMS.build(entry.name, params, (*at, "params"), (*at, "name"))
    if not callable(built):
        raise ConfigError(f"{entry.name} gives a {type(built).__name__}, nothing to call a sample with", (*at, "name"))
    function: Callable[[Any], Any] = built
    return function


def _inner(value: Any, at: ConfigPath) -> Any:
    try:
        entry = convert(value, TransformConfig)
    except ConfigError as error:
        raise error.inside(*at) from None
    return _transform(entry, at)


def _try(transforms: list[Callable[[Any], Any]], dataset: Any, split: str) -> None:
    """Transform the first sample; what that draws is given back to the generator."""
    if len(dataset) == 0:
        return
    sample = dataset[0][0]
    with torch.random.fork_rng(devices=[]):
        for i, transform in enumerate(transforms):
            before = _kind(sample) if isinstance(sample, torch.Tensor) else type(sample).__name__
            try:
                sample = transform(sample)
            except Exception as error:  # a transform may raise anything about a sample that does not suit it
                raise ConfigError(
                    f"does not fit the samples of split {split!r} ({before}): {type(error).__name__}: {error}",
                    ("transforms", i),
                ) from error


# --- features -----------------------------------------------------------------------------------------------


def _vectors(columns: Columns, split: str) -> torch.Tensor:
    samples = columns.take(slice(None))[0]
    if samples.ndim != 2:
        raise ConfigError(f"split {split!r}: expected samples that are vectors, got shape {list(samples.shape[1:])}")
    if len(samples) == 0:
        raise ConfigError(f"split {split!r} is empty")
    return samples.double()


def _width(vectors: dict[str, torch.Tensor]) -> int:
    first = next(iter(vectors))
    width = vectors[first].shape[1]
    for split, values in vectors.items():
        if values.shape[1] != width:
            raise ConfigError(f"split {split!r} has {values.shape[1]} features, but split {first!r} has {width}")
    return width


def _unnamed_features(configs: list[FeatureEncoding], width: int) -> list[int]:
    """The features that no entry names. Raises `ConfigError` for one that is not there or is named twice."""
    named: set[int] = set()
    for i, entry in enumerate(configs):
        at = ("feature_encoding_configs", i, "feature_names")
        if not entry.feature_names:
            raise ConfigError("name at least one feature", at)
        for j, feature in enumerate(entry.feature_names):
            if not 0 <= feature < width:
                raise ConfigError(f"index {feature} is out of bounds: there are features 0 to {width - 1}", (*at, j))
            if feature in named:
                raise ConfigError(f"the feature {feature} is named twice", (*at, j))
            named.add(feature)
    return [feature for feature in range(width) if feature not in named]


def _fitted(entry: FeatureEncoding, values: torch.Tensor, number: int) -> Any:
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encoder: Any = StandardScaler()
    if entry.feature_type == "categorical":
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    try:
        return encoder.fit(values[:, entry.feature_names].numpy())
    except ValueError as error:  # an infinite value
        raise ConfigError(
            f"split {entry.train_split!r}: {error}", ("feature_encoding_configs", number, "train_split")
        ) from None

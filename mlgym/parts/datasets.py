"""Data sets by name, and a user's own files. Every reader is a function (storage, split, **options).

An item is (sample, target, tag); the tag is the target again, as existing configurations count on.
In-memory data is a `Columns`: two tensors and the rows taken from them.
"""

from __future__ import annotations

import contextlib
import csv as csv_files
import fcntl
import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from mlgym.errors import ConfigError, InputError, one_of
from mlgym.parts import torchvision_ops  # noqa: F401 (first: see there)

Item = tuple[Any, Any, Any]
Splits = dict[str, Any]
"""Split name -> data set (what requirements called `iterators` carry)."""


_SMALL = 64 << 20


class Columns(Dataset[Item]):
    """Samples [n, ...] and targets [n] in memory, seen through `rows` (all of them when None).

    Images are kept as bytes and become floats in [0, 1] as they are read, which holds four times as many.
    """

    def __init__(self, samples: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        self.samples = samples
        self.targets = targets
        self.rows = rows
        self._image = samples.dtype == torch.uint8

    def __len__(self) -> int:
        return len(self.samples if self.rows is None else self.rows)

    def __getitem__(self, index: int) -> Item:
        row = index if self.rows is None else int(self.rows[index])
        target = self.targets[row]
        return self._floats(self.samples[row]), target, target

    def take(self, index: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples and targets of many items at once: the same values as item by item, stacked."""
        rows = index if self.rows is None else self.rows[index]
        return self._floats(self.samples[rows]), self.targets[rows]

    def subset(self, index: torch.Tensor) -> Columns:
        """The items at `index`: a copy when it is small, which saves one look-up a batch; otherwise a view."""
        rows = index if self.rows is None else self.rows[index]
        if self.samples[:1].nbytes * len(rows) <= _SMALL:
            return Columns(self.samples[rows], self.targets[rows])
        return Columns(self.samples, self.targets, rows)

    def _floats(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.float().div_(255) if self._image else samples


def subset(dataset: Any, index: torch.Tensor) -> Any:
    """The items of `dataset` at `index`, in that order; in-memory data stays in memory."""
    return dataset.subset(index) if isinstance(dataset, Columns) else Subset(dataset, index.tolist())


def labels(dataset: Any) -> torch.Tensor:
    """The labels of all items, [n], from wherever they can be had without reading samples; else by reading all.

    A data set can say them with a method `labels()` or a list `targets`.
    """
    if callable(getattr(dataset, "labels", None)):
        found: torch.Tensor = dataset.labels()
        return found
    if isinstance(dataset, Columns):
        return dataset.targets if dataset.rows is None else dataset.targets[dataset.rows]
    if isinstance(getattr(dataset, "targets", None), list):
        return torch.as_tensor(dataset.targets)
    inner = getattr(dataset, "dataset", None)
    if isinstance(dataset, Subset) and any(hasattr(inner, name) for name in ("labels", "targets", "dataset")):
        return labels(inner)[torch.as_tensor(list(dataset.indices))]
    return torch.as_tensor([int(dataset[i][1]) for i in range(len(dataset))])


# --- readers ------------------------------------------------------------------------------------------------

Reader = Callable[..., Any]


def digits(storage: Path, split: str) -> Columns:
    """1,797 handwritten digits of 1x8x8 pixels in 10 classes, in one split `train`. Ships with scikit-learn."""
    _known_split("digits", split, ("train",))
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    samples = torch.from_numpy(images).float().div_(16).reshape(-1, 1, 8, 8)
    return Columns(samples, torch.from_numpy(targets).long())


def mnist(storage: Path, split: str) -> Columns:
    """70,000 handwritten digits of 1x28x28 pixels in 10 classes: `train` (60,000) and `test`. Downloaded once."""
    return _idx_images("MNIST", "mnist", storage, split)


def fashion_mnist(storage: Path, split: str) -> Columns:
    """70,000 pictures of clothes of 1x28x28 pixels in 10 classes: `train` (60,000) and `test`. Downloaded once."""
    return _idx_images("FashionMNIST", "fashion_mnist", storage, split)


def _idx_images(class_name: str, name: str, storage: Path, split: str) -> Columns:
    _known_split(name, split, ("train", "test"))
    import torchvision.datasets

    reader = getattr(torchvision.datasets, class_name)
    with _downloading(name, storage, storage / class_name / "raw"):
        found = reader(str(storage), train=split == "train", download=True)
    return Columns(found.data.unsqueeze(1), found.targets.long())


_CIFAR10 = "cifar-10-binary.tar.gz"
_CIFAR10_URL = f"https://www.cs.toronto.edu/~kriz/{_CIFAR10}"
_CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_CIFAR10_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


def cifar10(storage: Path, split: str) -> Columns:
    """60,000 pictures of 3x32x32 pixels in 10 classes: `train` (50,000) and `test`. Downloaded once.

    Read from the binary version of the archive (a label byte and 3,072 pixel bytes a record), because the
    python version, which torchvision reads, is a pickle.
    """
    _known_split("cifar10", split, tuple(_CIFAR10_FILES))
    archive = storage / _CIFAR10
    if not archive.is_file():
        from torchvision.datasets.utils import download_url

        with _downloading("cifar10", storage, archive):
            download_url(_CIFAR10_URL, str(storage), _CIFAR10, _CIFAR10_MD5)
    try:
        with tarfile.open(archive) as files:
            members = [files.extractfile(f"cifar-10-batches-bin/{name}") for name in _CIFAR10_FILES[split]]
            records = b"".join(member.read() for member in members if member)
        table = torch.from_numpy(np.frombuffer(records, np.uint8).reshape(-1, 3073).copy())
    except (tarfile.TarError, KeyError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{archive}: not the CIFAR-10 binary archive ({error}); delete it to fetch it again") from None
    return Columns(table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0].long())


def npz(storage: Path, split: str, *, path: str, samples: str = "samples", targets: str = "targets") -> Columns:
    """Two arrays of a numpy archive: `samples` [n, ...] and `targets` [n]. `split` is any name you like."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key, name in (("samples", samples), ("targets", targets)):
                if name not in arrays:
                    raise ConfigError(f"{path} has no array {name!r}; {one_of(name, arrays.files)}", (key,))
            x, y = arrays[samples], arrays[targets]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (paths are relative to {Path.cwd()})", ("path",)) from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        raise ConfigError(
            f"{path}: not a numpy archive of plain arrays, as `numpy.savez` writes it", ("path",)
        ) from None
    for name, array in ((samples, x), (targets, y)):
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise ConfigError(f"{path}: the array {name!r} does not hold a row of numbers for each sample", ("path",))
    if len(x) != len(y) or len(x) == 0:
        raise ConfigError(f"{path}: {len(x)} samples do not go with {len(y)} targets", ("path",))
    values = torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float32))
    return Columns(values, _targets(y))


def csv(
    storage: Path, split: str, *, path: str, target: str | int = -1, header: bool = True, delimiter: str = ","
) -> Columns:
    """A table of numbers; `target` names (or counts) the column to predict. `split` is any name you like.

    Targets that are whole numbers are classes; words become classes in alphabetical order; others are values.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv_files.reader(file, delimiter=delimiter) if row]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (paths are relative to {Path.cwd()})", ("path",)) from None
    except (OSError, ValueError, TypeError, csv_files.Error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", ("path",)) from None
    names = rows.pop(0) if header and rows else [str(i) for i in range(len(rows[0]) if rows else 0)]
    if not rows:
        raise ConfigError(f"{path}: there are no rows", ("path",))
    if isinstance(target, str) and target not in names:
        raise ConfigError(f"{path} has no column {target!r}; {one_of(target, names)}", ("target",))
    column = names.index(target) if isinstance(target, str) else target
    if not -len(names) <= column < len(names):
        raise ConfigError(f"{path} has {len(names)} columns, there is no number {target}", ("target",))
    column %= len(names)
    if len(names) < 2:
        raise ConfigError(f"{path} has one column only; is the delimiter {delimiter!r}?", ("delimiter",))
    values = np.empty((len(rows), len(names) - 1), np.float32)
    answers: list[str] = []
    for i, row in enumerate(rows):
        line = i + 1 + header
        if len(row) != len(names):
            raise ConfigError(f"{path}:{line}: {len(row)} values, but {len(names)} columns", ("path",))
        answers.append(row.pop(column).strip())
        for j, text in enumerate(row):
            try:
                values[i, j] = float(text)
            except ValueError:
                name = [*names[:column], *names[column + 1 :]][j]
                raise ConfigError(f"{path}:{line}: column {name!r}: {text!r} is not a number", ("path",)) from None
    return Columns(torch.from_numpy(values), _answers(answers))


def _answers(texts: list[str]) -> torch.Tensor:
    try:
        return _targets(np.array([float(text) for text in texts]))
    except ValueError:
        classes = {text: i for i, text in enumerate(sorted(set(texts)))}
        return torch.tensor([classes[text] for text in texts])


def _targets(values: np.ndarray[Any, Any]) -> torch.Tensor:
    whole = values.dtype.kind in "iub" or (
        values.ndim == 1 and bool(np.all(np.abs(values) < 2**31) and np.all(values == np.round(values)))
    )
    return torch.from_numpy(values.astype(np.int64 if whole else np.float32))


class ImageFolder(Dataset[Item]):
    """Pictures read from disk as they are asked for. `targets` lists the classes."""

    def __init__(self, files: Any, size: list[int] | None) -> None:
        self._files = files
        self._size = size
        self.targets: list[int] = files.targets

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Item:
        try:
            image, target = self._files[index]
        except OSError as error:
            raise InputError(f"{self._files.samples[index][0]}: not a picture: {error}") from None
        if self._size:
            image = image.resize((self._size[1], self._size[0]))
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)
        return pixels.permute(2, 0, 1).contiguous(), target, target


def image_folder(storage: Path, split: str, *, path: str, size: list[int] | None = None) -> ImageFolder:
    """Pictures in one folder a class, as RGB [3, height, width] in [0, 1]; `size: [height, width]` resizes."""
    import torchvision.datasets

    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(f"expected [height, width], got {size}", ("size",))
    if not Path(path).is_dir():
        raise ConfigError(f"{path}: no such folder (paths are relative to {Path.cwd()})", ("path",))
    try:
        return ImageFolder(torchvision.datasets.ImageFolder(path), size)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: expected one folder for each class with pictures in it: {error}", ("path",)
        ) from None


# --- help for the readers -----------------------------------------------------------------------------------


def _known_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    if split not in splits:
        raise ConfigError(f"data set {name!r} has no split {split!r}; {one_of(split, splits)}", ("split",))


@contextlib.contextmanager
def _downloading(name: str, storage: Path, target: Path) -> Iterator[None]:
    """One process at a time downloads (the others wait and then find the files); errors say what to do."""
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with (storage / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"data set {name!r} is not in {storage} and could not be downloaded ({error}); "
            f"without a network, put its files into {target}"
        ) from None


# --- components ---------------------------------------------------------------------------------------------


class Repository:
    """Data sets by name, kept below one folder."""

    def __init__(self, readers: Any, storage: Path) -> None:
        self.readers = readers
        self.storage = storage


def repository(dataset_registry: Any, *, storage_connector_path: str = "datasets") -> Repository:
    """Where downloaded data sets are kept; the folder is made when it is needed."""
    return Repository(dataset_registry, Path(storage_connector_path))


def iterators(repository: Repository, *, dataset_identifier: str, split_configs: list[dict[str, Any]]) -> Splits:
    """Splits of a data set: `split_configs` names each, and gives the options of the data set's reader."""
    from mlgym.schema import bind

    try:
        reader: Reader = repository.readers[dataset_identifier]
    except ConfigError as error:
        raise error.inside("dataset_identifier") from None
    if not split_configs:
        raise ConfigError("name at least one split", ("split_configs",))
    splits: Splits = {}
    for i, options in enumerate(split_configs):
        try:
            arguments = bind(reader, options, {"storage": repository.storage})
            if arguments["split"] in splits:
                raise ConfigError(f"the split {arguments['split']!r} is given twice", ("split",))
            splits[arguments["split"]] = reader(**arguments)
        except ConfigError as error:
            raise error.inside("split_configs", i) from None
        except InputError as error:
            raise ConfigError(str(error), ("dataset_identifier",)) from None
    return splits


def random_splits(
    iterators: Splits, *, split_configs: dict[str, dict[str, float]], seed: int, stratified: bool = False
) -> Splits:
    """Divide splits at random: `{train: {train: 0.7, val: 0.3}}`; splits not named pass through.

    Stratified, each part holds its fraction of every class to within one sample.
    """
    result = {name: dataset for name, dataset in iterators.items() if name not in split_configs}
    for name, fractions in split_configs.items():
        where = ("split_configs", name)
        if name not in iterators:
            raise ConfigError(f"there is no split {name!r}; {one_of(name, iterators)}", where)
        total = math.fsum(fractions.values())
        if not abs(total - 1) <= 1e-6:
            raise ConfigError(f"the fractions must sum to 1, not {total:g}", where)
        if min(fractions.values()) < 0:
            raise ConfigError("a fraction must not be negative", where)
        dataset = iterators[name]
        shuffle = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(dataset), generator=shuffle)
        groups = [order]
        if stratified:
            classes = labels(dataset)[order]
            groups = [order[classes == label] for label in classes.unique()]
        for part, rows in zip(fractions, _cut(groups, list(fractions.values())), strict=True):
            if part in result:
                raise ConfigError(f"there are two splits named {part!r}", (*where, part))
            if len(rows) == 0:
                raise ConfigError(f"the split {part!r} would be empty: {len(dataset)} samples to share", (*where, part))
            result[part] = subset(dataset, rows)
    return result


def _cut(groups: list[torch.Tensor], fractions: list[float]) -> list[torch.Tensor]:
    """Each group cut at the rounded sums of `fractions`; the first pieces of all groups joined, and so on."""
    pieces: list[list[torch.Tensor]] = [[] for _ in fractions]
    for rows in groups:
        ends = [round(math.fsum(fractions[: i + 1]) * len(rows)) for i in range(len(fractions))]
        for i, end in enumerate(ends):
            pieces[i].append(rows[ends[i - 1] if i else 0 : end])
    return [torch.cat(piece) for piece in pieces]

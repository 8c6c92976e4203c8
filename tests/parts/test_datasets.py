"""Readers on files as the test writes them, and the laws of splitting."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlgym.build.catalog import built_in
from mlgym.errors import ConfigError, InputError
from mlgym.parts.datasets import Columns, Repository, iterators, labels, random_splits, subset


def read(name: str, storage: Path, *configs: dict[str, Any]) -> dict[str, Any]:
    repository = Repository(built_in().tables["dataset_registry"], storage)
    return iterators(repository, dataset_identifier=name, split_configs=list(configs))


def test_digits(tmp_path: Path) -> None:
    digits = read("digits", tmp_path, {"split": "train"})["train"]
    assert len(digits) == 1797
    image, target, tag = digits[0]
    assert image.shape == (1, 8, 8)
    assert (image.dtype, image.min(), image.max()) == (torch.float32, 0, 15 / 16)
    assert target == tag == 0
    assert not any(tmp_path.iterdir())


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())
    with gzip.open(path.with_name(path.name + ".gz"), "wb") as file:
        file.write(header + array.tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_files(tmp_path: Path, name: str, folder: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)
    targets = np.arange(7, dtype=np.uint8)
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / folder / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(tmp_path / folder / "raw" / f"{prefix}-labels-idx1-ubyte", targets)
    found = read(name, tmp_path, {"split": "train"}, {"split": "test"})
    samples, labels_ = found["test"].take(slice(None))
    assert torch.equal(samples, torch.from_numpy(images).unsqueeze(1).float() / 255)
    assert labels_.tolist() == list(range(7))


def test_cifar10_archive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for i, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
            records = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
            records[:, 0] = i
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = records.size
            archive.addfile(info, io.BytesIO(records.tobytes()))
            last = records
    found = read("cifar10", tmp_path, {"split": "train"}, {"split": "test"})
    assert labels(found["train"]).tolist() == [i for i in range(5) for _ in range(4)]
    image, target, _ = found["test"][2]
    assert target == 5
    assert torch.equal(image, torch.from_numpy(last[2, 1:]).reshape(3, 32, 32).float() / 255)

    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="not the CIFAR-10 binary archive"):
        read("cifar10", tmp_path, {"split": "test"})


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_network(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the test machine reaches: the name of the server does not resolve."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(InputError, match=f"data set '{name}' is not in .* and could not be downloaded"):
        read(name, tmp_path, {"split": "test"})


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(
        path, x=np.eye(3), y=np.array([0, 1, 2]), images=np.full((3, 1, 2, 2), 255, np.uint8), z=np.array([0.5, 1, 2])
    )
    found = read(
        "npz",
        tmp_path,
        {"split": "a", "path": str(path), "samples": "x", "targets": "y"},
        {"split": "b", "path": str(path), "samples": "images", "targets": "z"},
    )
    assert found["a"].take(slice(None))[0].dtype == torch.float32
    assert labels(found["a"]).tolist() == [0, 1, 2]
    assert found["b"][0][0].tolist() == [[[1, 1], [1, 1]]]
    assert labels(found["b"]).dtype == torch.float32
    for options, words, key in (
        ({"path": str(path), "samples": "X"}, "has no array 'X'", "samples"),
        ({"path": str(tmp_path / "absent.npz")}, "no such file", "path"),
        ({"path": __file__}, "not a numpy archive", "path"),
        ({"pth": "x"}, "unknown key 'pth'; did you mean 'path'", "pth"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            read("npz", tmp_path, {"split": "a", **options})
        assert caught.value.path == ("split_configs", 0, key)


def test_npz_with_a_pickle_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", samples=np.array([{}], dtype=object), targets=np.array([0]))
    with pytest.raises(ConfigError, match="not a numpy archive of plain arrays"):
        read("npz", tmp_path, {"split": "a", "path": str(tmp_path / "p.npz")})


@pytest.mark.parametrize(
    ("text", "options", "samples", "targets"),
    [
        ("a,b,y\n1,2,0\n3,4,1\n", {}, [[1, 2], [3, 4]], [0, 1]),
        ("y;a\nhen;1\negg;2\n", {"target": "y", "delimiter": ";"}, [[1], [2]], [1, 0]),
        ("1,0.5\n2,1.5\n", {"header": False, "target": 1}, [[1], [2]], [0.5, 1.5]),
    ],
)
def test_csv(tmp_path: Path, text: str, options: dict[str, Any], samples: list[Any], targets: list[Any]) -> None:
    (tmp_path / "t.csv").write_text(text)
    found = read("csv", tmp_path, {"split": "all", "path": str(tmp_path / "t.csv"), **options})["all"]
    assert found.take(slice(None))[0].tolist() == samples
    assert labels(found).tolist() == targets


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a,b\n1,x\nz,1\n", {}, r"t\.csv:3: column 'a': 'z' is not a number"),
        ("a,b\n1,2\n1\n", {}, r"t\.csv:3: 1 values, but 2 columns"),
        ("a,b\n", {}, "there are no rows"),
        ("", {}, "there are no rows"),
        ("a,b\n1,2\n", {"target": "c"}, "has no column 'c'"),
        ("a,b\n1,2\n", {"target": 2}, "there is no number 2"),
    ],
)
def test_csv_errors(tmp_path: Path, text: str, options: dict[str, Any], words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read("csv", tmp_path, {"split": "all", "path": str(tmp_path / "t.csv"), **options})


def test_image_folder(tmp_path: Path) -> None:
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4 + i, 2), (255, 0, 51 * i)).save(tmp_path / name / "1.png")
    found = read("image_folder", tmp_path, {"split": "all", "path": str(tmp_path), "size": [3, 5]})["all"]
    pixels, target, _ = found[1]
    assert target == 1
    assert pixels.shape == (3, 3, 5)
    assert pixels[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    assert labels(subset(found, torch.tensor([1, 0]))).tolist() == [1, 0]
    with pytest.raises(ConfigError, match="no such folder"):
        read("image_folder", tmp_path, {"split": "all", "path": str(tmp_path / "x")})
    with pytest.raises(ConfigError, match="one folder for each class"):
        read("image_folder", tmp_path, {"split": "all", "path": str(tmp_path / "cat")})


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set 'digit'; did you mean 'digits'"):
        read("digit", tmp_path, {"split": "train"})
    with pytest.raises(ConfigError, match="has no split 'test'; there is: train"):
        read("digits", tmp_path, {"split": "test"})
    with pytest.raises(ConfigError, match="given twice"):
        read("digits", tmp_path, {"split": "train"}, {"split": "train"})


def columns(classes: list[int]) -> Columns:
    return Columns(torch.arange(len(classes)).float().unsqueeze(1), torch.tensor(classes))


@settings(deadline=None, max_examples=80)
@given(
    classes=st.lists(st.integers(0, 3), min_size=12, max_size=80),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 9),
    stratified=st.booleans(),
)
def test_laws_of_splitting(classes: list[int], cuts: list[int], seed: int, stratified: bool) -> None:
    """Disjoint, complete, the same for the same seed, each fraction within one sample (of each class, stratified)."""
    fractions = {f"p{i}": cut / sum(cuts) for i, cut in enumerate(cuts)}
    data = columns(classes)
    try:
        parts = random_splits(
            {"all": data, "t": data}, split_configs={"all": fractions}, seed=seed, stratified=stratified
        )
    except ConfigError as error:
        assert "would be empty" in error.message
        return
    assert parts.pop("t") is data
    rows = {name: part.take(slice(None))[0].flatten().int().tolist() for name, part in parts.items()}
    assert sorted(row for part in rows.values() for row in part) == list(range(len(classes)))
    again = random_splits({"all": data}, split_configs={"all": fractions}, seed=seed, stratified=stratified)
    assert {name: part.take(slice(None))[0].flatten().int().tolist() for name, part in again.items()} == rows
    for name, fraction in fractions.items():
        for label in set(classes) if stratified else {None}:
            share = [classes[row] for row in rows[name] if label is None or classes[row] == label]
            whole = classes.count(label) if label is not None else len(classes)
            assert abs(len(share) - fraction * whole) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"all": {"a": 0.5, "b": 0.4}}, "sum to 1, not 0.9"),
        ({"all": {"a": 1.5, "b": -0.5}}, "must not be negative"),
        ({"al": {"a": 1.0}}, "there is no split 'al'; did you mean 'all'"),
        ({"all": {"a": 0.99, "b": 0.01}}, "the split 'b' would be empty"),
        ({"all": {"t": 1.0}}, "there are two splits named 't'"),
    ],
)
def test_splits_that_are_wrong(splits: dict[str, dict[str, float]], words: str) -> None:
    data = columns([0, 1] * 6)
    with pytest.raises(ConfigError, match=words):
        random_splits({"all": data, "t": data}, split_configs=splits, seed=0)


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_columns_agree_with_items(monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    monkeypatch.setattr("mlgym.parts.datasets._SMALL", small)
    data = Columns(torch.randint(0, 256, (20, 1, 2, 2), dtype=torch.uint8), torch.arange(20))
    view = data.subset(torch.tensor([5, 3, 11])).subset(torch.tensor([2, 0]))
    samples, targets = view.take(torch.tensor([1, 0]))
    assert targets.tolist() == [5, 11]
    assert torch.equal(samples, torch.stack([view[1][0], view[0][0]]))
    assert len(view) == 2

"""Splits made of splits: what each component keeps, changes and refuses, for data in memory and data that is not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from mlgym.build.graph import Graph
from mlgym.build.registry import Registry
from mlgym.errors import ConfigError
from mlgym.parts import iterators as parts
from mlgym.parts.data import Collator, Loader
from mlgym.parts.datasets import Columns, Item, Splits, random_splits, subset
from mlgym.parts.iterators import TaggedColumns
from mlgym.schema import bind
from mlgym.specs import ComponentSpec, Requirement


def build(component: Callable[..., Splits], given: Splits, **config: Any) -> Splits:
    """As the graph does it: the configuration is checked against the signature first."""
    return component(**bind(component, config, {"iterators": given}))


class Lazy(Dataset[Item]):
    """Items that are made when they are read, and counted."""

    def __init__(self, samples: list[Any], classes: list[Any], tags: list[Any] | None = None) -> None:
        self.samples = samples
        self.classes = classes
        self.tags = tags or classes
        self.reads = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        self.reads += 1
        return self.samples[index], self.classes[index], self.tags[index]


class Listed(Lazy):
    """As a picture folder: the labels are at hand."""

    def __init__(self, samples: list[Any], classes: list[int]) -> None:
        super().__init__(samples, classes)
        self.targets = classes


def columns(classes: list[int]) -> Columns:
    return Columns(torch.arange(len(classes)).float().unsqueeze(1), torch.tensor(classes))


def lazy(classes: list[int]) -> Lazy:
    return Lazy(list(torch.arange(len(classes)).float().unsqueeze(1)), classes)


def listed(classes: list[int]) -> Listed:
    return Listed(list(torch.arange(len(classes)).float().unsqueeze(1)), classes)


def seen_through_rows(classes: list[int]) -> Columns:
    """Rows of a larger table in reverse order; the rows between hold labels that must not matter."""
    size = len(classes)
    samples = torch.full((2 * size, 1), -1.0)
    targets = torch.full((2 * size,), 99)
    rows = torch.arange(2 * size - 1, 0, -2)
    samples[rows, 0] = torch.arange(size).float()
    targets[rows] = torch.tensor(classes)
    return Columns(samples, targets, rows)


KINDS = [columns, seen_through_rows, lazy, listed]
every_kind = pytest.mark.parametrize("make", KINDS)
kinds = st.sampled_from(KINDS)
some_labels = st.lists(st.integers(0, 4), min_size=1, max_size=30)


def items(dataset: Any) -> list[tuple[Any, Any, Any]]:
    """Every item as plain lists and numbers."""
    read = [[torch.as_tensor(part).tolist() for part in dataset[i]] for i in range(len(dataset))]
    return [(sample, target, tag) for sample, target, tag in read]


def positions(dataset: Any) -> list[int]:
    return [int(sample[0]) for sample, _, _ in items(dataset)]


def agrees_with_its_items(dataset: Any) -> None:
    """Whole batches are the items stacked; labels and tags agree; a pickled copy is the same."""
    expected = items(dataset)
    if isinstance(dataset, Columns):
        samples, targets = dataset.take(torch.arange(len(dataset)))
        assert samples.tolist() == [sample for sample, _, _ in expected]
        assert targets.tolist() == [target for _, target, _ in expected]
    if hasattr(dataset, "labels"):
        assert dataset.labels().tolist() == [tag for _, _, tag in expected]
    assert items(pickle.loads(pickle.dumps(dataset))) == expected  # noqa: S301 (our own)
    order = torch.arange(len(dataset) - 1, -1, -1)
    assert items(subset(dataset, order)) == expected[::-1]


def fails(
    path: tuple[str | int, ...], words: str, component: Callable[..., Splits], given: Splits, **config: Any
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build(component, given, **config)
    assert caught.value.path == path


# --- which splits -------------------------------------------------------------------------------------------

CHANGES: list[tuple[Callable[..., Splits], dict[str, Any]]] = [
    (parts.shuffled, {"seed": 1}),
    (parts.filtered_labels, {"filtered_labels": [0]}),
    (parts.mapped_labels, {"mappings": [{"previous_labels": [0], "new_label": 5}]}),
    (parts.transformed, {"transforms": [{"name": "Identity"}]}),
    (
        parts.feature_encoded,
        {
            "feature_encoding_configs": [
                {"feature_type": "continuous", "feature_names": [0], "train_split": "train"},
            ]
        },
    ),
    (parts.one_hot_targets, {"target_vector_size": 3}),
]


@every_kind
@pytest.mark.parametrize(("component", "config"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_splits_not_named_pass_through(
    make: Callable[[list[int]], Any], component: Callable[..., Splits], config: dict[str, Any]
) -> None:
    given = {"val": make([0, 1]), "train": make([1, 0, 2]), "test": make([0])}
    before = {split: items(dataset) for split, dataset in given.items()}
    found = build(component, given, applicable_splits=["train"], **config)
    assert list(found) == ["val", "train", "test"]
    assert found["val"] is given["val"]
    assert found["test"] is given["test"]
    assert found["train"] is not given["train"]
    assert {split: items(dataset) for split, dataset in given.items()} == before
    everything = build(component, given, **config)
    assert not any(everything[split] is given[split] for split in given)
    for dataset in everything.values():
        agrees_with_its_items(dataset)
        stays = make in (columns, seen_through_rows) and component is not parts.transformed
        assert isinstance(dataset, Columns) == (stays or component is parts.feature_encoded)


@pytest.mark.parametrize(("component", "config"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_applicable_splits_that_are_wrong(component: Callable[..., Splits], config: dict[str, Any]) -> None:
    given = {"train": columns([0, 1])}
    fails(("applicable_splits",), "name at least one split", component, given, applicable_splits=[], **config)
    fails(
        ("applicable_splits", 1),
        "there is no split 'trian'; did you mean 'train'",
        component,
        given,
        applicable_splits=["train", "trian"],
        **config,
    )


# --- combined -----------------------------------------------------------------------------------------------


def combine(given: dict[str, Any], *configs: Any) -> Splits:
    return parts.combined(**bind(parts.combined, {"combine_configs": list(configs)}, given))


def old(name: str, *splits: str) -> dict[str, Any]:
    return {"iterators_name": name, "splits": list(splits)}


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.tuples(kinds, some_labels), min_size=1, max_size=4))
def test_combined_is_complete_and_in_order(sizes: list[tuple[Callable[[list[int]], Any], list[int]]]) -> None:
    given_ = {f"s{i}": make(classes) for i, (make, classes) in enumerate(sizes)}
    found = combine(
        {"a": given_, "b": {"x": columns([7])}}, {"new_split": "n", "old_splits": [old("a", *given_), old("b", "x")]}
    )
    assert list(found) == ["n"]
    assert items(found["n"]) == [item for dataset in given_.values() for item in items(dataset)] + [([0.0], 7, 7)]
    agrees_with_its_items(found["n"])
    in_memory = all(make in (columns, seen_through_rows) for make, _ in sizes)
    assert isinstance(found["n"], Columns) == in_memory


def test_combined_keeps_bytes_and_tags() -> None:
    images = Columns(torch.full((3, 1, 2, 2), 255, dtype=torch.uint8), torch.arange(3))
    found = combine({"a": {"x": images}}, {"new_split": "n", "old_splits": [old("a", "x", "x")]})["n"]
    assert found.samples.dtype == torch.uint8
    assert found[5][0].max() == 1
    encoded = build(parts.one_hot_targets, {"x": images}, target_vector_size=3)
    again = combine({"a": encoded}, {"new_split": "n", "old_splits": [old("a", "x", "x")]})["n"]
    assert isinstance(again, TaggedColumns)
    assert again.labels().tolist() == [0, 1, 2] * 2
    agrees_with_its_items(again)
    mixed = combine(
        {"a": encoded, "b": {"x": images}}, {"new_split": "n", "old_splits": [old("a", "x"), old("b", "x")]}
    )
    assert not isinstance(mixed["n"], Columns)
    assert mixed["n"].labels().tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize(
    ("configs", "path", "words"),
    [
        ([], ("combine_configs",), "name at least one"),
        ([{"new_split": "n", "old_splits": []}], ("combine_configs", 0, "old_splits"), "'n' is made of no splits"),
        ([{"new_split": "n", "old_splits": [old("a")]}], ("combine_configs", 0, "old_splits"), "made of no splits"),
        (
            [{"new_split": "n", "old_splits": [old("a", "train"), old("digit", "train")]}],
            ("combine_configs", 0, "old_splits", 1, "iterators_name"),
            "no requirement 'digit'; did you mean 'digits'",
        ),
        (
            [{"new_split": "n", "old_splits": [old("a", "train", "trian")]}],
            ("combine_configs", 0, "old_splits", 0, "splits", 1),
            "no split 'trian'; did you mean 'train'",
        ),
        (
            [{"new_split": "n", "old_splits": [old("a", "train")]}] * 2,
            ("combine_configs", 1, "new_split"),
            "two splits",
        ),
        (
            [{"new_spilt": "n", "old_splits": []}],
            ("combine_configs", 0, "new_spilt"),
            "unknown key 'new_spilt'; did you mean 'new_split'",
        ),
        ([{"new_split": "n", "old_splits": ["a"]}], ("combine_configs", 0, "old_splits", 0), "expected object"),
    ],
)
def test_combinations_that_are_wrong(configs: list[Any], path: tuple[str | int, ...], words: str) -> None:
    given_ = {"a": {"train": columns([0])}, "digits": {"train": columns([0])}}
    with pytest.raises(ConfigError, match=words) as caught:
        combine(given_, *configs)
    assert caught.value.path == path


def test_combined_tells_splits_from_misspelt_keys() -> None:
    config = {"combine_configs": [{"new_split": "n", "old_splits": [old("a", "train")]}], "combine_config": 1}
    with pytest.raises(ConfigError, match="unknown key 'combine_config'; did you mean 'combine_configs'") as caught:
        parts.combined(**bind(parts.combined, config, {"a": {"train": columns([0])}}))
    assert caught.value.path == ("combine_config",)
    with pytest.raises(ConfigError, match="'a' is one data set; subscribe to a list of splits"):
        combine({"a": columns([0])}, {"new_split": "n", "old_splits": [old("a", "train")]})


def test_combined_in_a_graph_takes_requirements_of_any_name() -> None:
    registry = Registry()
    registry.component("COMBINED_DATASET_ITERATORS", "DEFAULT", parts.combined)
    registry.component("SOURCE", "DEFAULT", lambda: {"train": columns([0, 1])})
    source = ComponentSpec(component_type_key="SOURCE", variant_key="DEFAULT")
    joined = ComponentSpec(
        component_type_key="COMBINED_DATASET_ITERATORS",
        variant_key="DEFAULT",
        requirements=[
            Requirement(name="first", component_name="source"),
            Requirement(name="iterators", component_name="source", subscription=["train"]),
        ],
        config={
            "combine_configs": [{"new_split": "n", "old_splits": [old("first", "train"), old("iterators", "train")]}]
        },
    )
    graph = Graph({"source": source, "joined": joined}, registry, seed=0)
    assert positions(graph["joined"]["n"]) == [0, 1, 0, 1]


# --- in memory ----------------------------------------------------------------------------------------------


@every_kind
def test_in_memory_reads_once_and_keeps_the_items(make: Callable[[list[int]], Any]) -> None:
    dataset = make([3, 1, 2])
    found = parts.in_memory({"train": dataset})["train"]
    assert type(found) is Columns
    if isinstance(dataset, Columns):
        assert found is dataset
    else:
        assert dataset.reads == 3
    assert items(found) == items(dataset)
    if isinstance(dataset, Lazy):
        assert found.targets.dtype == torch.int64


def test_in_memory_keeps_tags_and_bytes() -> None:
    tokens = Lazy([torch.tensor([1, 255], dtype=torch.uint8)] * 2, [0.5, 1.5], [4, 5])
    found = parts.in_memory({"train": tokens})["train"]
    assert isinstance(found, TaggedColumns)
    assert found[0][0].dtype == torch.uint8
    assert items(found) == [([1, 255], 0.5, 4), ([1, 255], 1.5, 5)]
    agrees_with_its_items(found)
    agrees_with_its_items(found.subset(torch.tensor([1])))


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Lazy([torch.zeros(2), torch.zeros(3)], [0, 1]), r"'val', item 1: the sample is float32 \[3\], but .* \[2\]"),
        (Lazy([torch.zeros(2), torch.zeros(2).int()], [0, 1]), r"item 1: the sample is int32 \[2\], but .* float32"),
        (Lazy([torch.zeros(2)] * 2, [[0], [0, 1]]), r"item 1: the target is int64 \[2\]"),
        (Lazy([torch.zeros(2)] * 2, [0, 1], [[0], [0, 1]]), r"item 1: the tag is int64 \[2\]"),
        (Lazy([{}], [0]), "item 0: the sample is of type dict, not numbers"),
        (Lazy([0.5], ["cat"]), "item 0: the target is of type str, not numbers"),
        (Lazy([], []), "split 'val' is empty"),
        ([(1, 2)], r"item 0: expected \(sample, target, tag\)"),
    ],
)
def test_in_memory_refuses(dataset: Any, words: str) -> None:
    fails((), words, parts.in_memory, {"train": columns([0]), "val": dataset})


# --- shuffled -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(make=kinds, size=st.integers(1, 40), seed=st.integers(0, 99), own=st.none() | st.integers(0, 10**30))
def test_shuffled_is_a_fixed_permutation(
    make: Callable[[list[int]], Any], size: int, seed: int, own: int | None
) -> None:
    given_ = {"train": make(list(range(size)))}
    seeds = None if own is None else {"train": own}
    found = parts.shuffled(given_, seeds=seeds, seed=seed)["train"]
    again = parts.shuffled(given_, seeds=seeds, seed=seed)["train"]
    assert sorted(positions(found)) == list(range(size))
    assert positions(found) == positions(again) == positions(found)
    assert all(position == target == tag for (position,), target, tag in items(found))


def test_shuffling_depends_on_the_splits_own_seed() -> None:
    given_ = {"train": columns([0] * 50), "val": columns([0] * 50)}
    derived = parts.shuffled(given_, seed=1)
    assert positions(derived["train"]) != positions(derived["val"]) != list(range(50))
    assert positions(derived["train"]) != positions(parts.shuffled(given_, seed=2)["train"])
    named = parts.shuffled(given_, seeds={"val": 3}, seed=1)
    assert positions(named["train"]) == positions(derived["train"])
    assert positions(named["val"]) == positions(parts.shuffled(given_, seeds={"val": 3}, seed=2)["val"])
    alone = parts.shuffled({"train": given_["train"]}, seed=1)
    assert positions(alone["train"]) == positions(derived["train"])
    fails(("seeds", "vall"), "no split 'vall'; did you mean 'val'", parts.shuffled, given_, seeds={"vall": 1}, seed=1)


# --- labels -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(make=kinds, classes=some_labels, kept=st.lists(st.integers(0, 5), max_size=3))
def test_filtered_holds_exactly_the_items_with_these_labels(
    make: Callable[[list[int]], Any], classes: list[int], kept: list[int]
) -> None:
    expected = [i for i, label in enumerate(classes) if label in kept]
    given_ = {"train": make(classes)}
    if expected:
        found = build(parts.filtered_labels, given_, filtered_labels=kept)["train"]
        assert items(found) == [([float(i)], classes[i], classes[i]) for i in expected]
        agrees_with_its_items(found)
    else:
        words = "nothing is left of split 'train'.*there is: "
        fails(("filtered_labels",), words, parts.filtered_labels, given_, filtered_labels=kept)


@settings(deadline=None, max_examples=80)
@given(make=kinds, classes=some_labels, new=st.dictionaries(st.integers(0, 4), st.integers(-3, 300)))
def test_mapped_labels_are_all_looked_up_at_once(
    make: Callable[[list[int]], Any], classes: list[int], new: dict[int, int]
) -> None:
    mappings = [
        {"previous_labels": [label for label in new if new[label] == target], "new_label": target}
        for target in set(new.values())
    ]
    found = build(parts.mapped_labels, {"train": make(classes)}, mappings=mappings)["train"]
    expected = [new.get(label, label) for label in classes]
    assert items(found) == [([float(i)], label, label) for i, label in enumerate(expected)]
    agrees_with_its_items(found)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, torch.bool])
def test_mapped_and_filtered_labels_of_any_type(dtype: torch.dtype) -> None:
    given_ = {"train": Columns(torch.zeros(3, 1), torch.tensor([0, 1, 1], dtype=dtype))}
    config = {"mappings": [{"previous_labels": [1], "new_label": -1000}]}
    assert build(parts.mapped_labels, given_, **config)["train"].targets.tolist() == [0, -1000, -1000]
    assert len(build(parts.filtered_labels, given_, filtered_labels=[1])["train"]) == 2


def test_labels_in_two_mappings() -> None:
    mappings = [{"previous_labels": [0, 1], "new_label": 0}, {"previous_labels": [2, 1], "new_label": 1}]
    fails(
        ("mappings", 1, "previous_labels", 1),
        "the label 1 is mapped twice",
        parts.mapped_labels,
        {"train": columns([0])},
        mappings=mappings,
    )
    fails(
        ("mappings", 0, "new_labels"),
        "did you mean 'new_label'",
        parts.mapped_labels,
        {"train": columns([0])},
        mappings=[{"previous_labels": [0], "new_labels": 0}],
    )


def test_labels_at_hand_are_not_read_item_by_item() -> None:
    dataset = listed([0, 1, 2, 1])
    given_ = {"train": dataset}
    mapped = build(parts.mapped_labels, given_, mappings=[{"previous_labels": [2], "new_label": 1}])
    transformed = build(parts.transformed, mapped, transforms=[{"name": "Identity"}])
    view = build(parts.view, transformed, split_indices={"train": [3, 2, 0]}, applicable_split="train")
    view = build(parts.view, view, split_indices={"train": [2, 1, 0]}, applicable_split="train")
    joined = combine({"a": view}, {"new_split": "train", "old_splits": [old("a", "train", "train")]})
    filtered = build(parts.filtered_labels, joined, filtered_labels=[1])["train"]
    assert dataset.reads <= 2  # one for the mapping, one to try the transform
    assert positions(filtered) == [2, 3, 2, 3]


@every_kind
def test_one_hot_targets(make: Callable[[list[int]], Any]) -> None:
    classes = [2, 0, 1, 2]
    found = build(parts.one_hot_targets, {"train": make(classes)}, target_vector_size=3)["train"]
    assert items(found) == [([float(i)], np.eye(3)[label].tolist(), label) for i, label in enumerate(classes)]
    assert found[0][1].dtype == torch.float32
    agrees_with_its_items(found)
    batch = next(iter(Loader(found, Collator("y"), 4, seed=0).evaluation_batches()))
    assert batch.targets["y"].tolist() == np.eye(3)[classes].tolist()
    kept = build(parts.filtered_labels, {"train": found}, filtered_labels=[2])["train"]
    assert items(kept) == [items(found)[0], items(found)[3]]
    small = parts.in_memory({"train": found})["train"]
    assert isinstance(small, TaggedColumns)
    assert items(small) == items(found)
    words = "targets of split 'train' are vectors"
    fails((), words, parts.mapped_labels, {"train": found}, mappings=[])
    wider = build(parts.one_hot_targets, {"train": found}, target_vector_size=5)["train"]
    assert items(wider)[0] == ([0.0], [0, 0, 1, 0, 0], 2)


def test_one_hot_targets_that_are_wrong() -> None:
    at = ("target_vector_size",)
    for make in (columns, lazy):
        given_ = {"train": make([0, 1]), "val": make([0, 3])}
        words = "split 'val' has the label 3, expected 0 to 2"
        fails(at, words, parts.one_hot_targets, given_, target_vector_size=3)
        words = "split 'train' has the label -1"
        fails(at, words, parts.one_hot_targets, {"train": make([-1])}, target_vector_size=3)
    halves = Columns(torch.zeros(1, 1), torch.tensor([0.5]))
    fails(at, "has the label 0.5", parts.one_hot_targets, {"train": halves}, target_vector_size=3)
    fails(at, "at least 1, not 0", parts.one_hot_targets, {"train": halves}, target_vector_size=0)
    vectors = Columns(torch.zeros(1, 1), torch.zeros(1, 2))
    words = r"expected one label for each item, but targets have shape \[2\]"
    fails((), words, parts.one_hot_targets, {"train": vectors}, target_vector_size=3)
    words = "split 'train': the targets cannot be read as labels"
    fails((), words, parts.one_hot_targets, {"train": Lazy([0], ["cat"])}, target_vector_size=3)


def test_mapped_tags_follow_targets() -> None:
    found = parts.in_memory({"train": Lazy([0.0, 1.0], [0, 1], [5, 6])})
    mapped = build(parts.mapped_labels, found, mappings=[{"previous_labels": [1], "new_label": 3}])["train"]
    assert items(mapped) == [(0.0, 0, 0), (1.0, 3, 3)]


# --- transformed --------------------------------------------------------------------------------------------


class Shift:
    """A user's own transform."""

    def __init__(self, amount: float = 1.0) -> None:
        self.amount = amount

    def __call__(self, sample: torch.Tensor) -> torch.Tensor:
        return sample + self.amount


NO_TRANSFORM = "nothing to call"


def not_a_transform() -> str:
    return NO_TRANSFORM


def images() -> Columns:
    return Columns(torch.arange(0, 48, dtype=torch.uint8).reshape(3, 1, 4, 4), torch.arange(3))


def test_transforms_in_order() -> None:
    given_ = {"train": images(), "val": images()}
    config = [
        {"name": "CenterCrop", "params": {"size": 2}},
        {"name": "Normalize", "params": {"mean": [0.5], "std": [0.5]}},
        {"name": f"{__name__}:Shift", "params": {"amount": 2}},
    ]
    found = build(parts.transformed, given_, transforms=config, applicable_splits=["train"])
    assert found["val"] is given_["val"]
    expected = (given_["train"][1][0][:, 1:3, 1:3] - 0.5) / 0.5 + 2
    sample, target, tag = found["train"][1]
    assert torch.allclose(sample, expected)
    assert (target, tag) == (1, 1)
    agrees_with_its_items(found["train"])
    batch = next(iter(Loader(found["train"], Collator("y"), 3, seed=0).evaluation_batches()))
    assert torch.equal(batch.samples[1], sample)


def test_transforms_may_hold_transforms() -> None:
    flips = [{"name": "RandomHorizontalFlip", "params": {"p": 1.0}}]
    config = [{"name": "RandomApply", "params": {"p": 1.0, "transforms": flips}}]
    found = build(parts.transformed, {"train": images()}, transforms=config)["train"]
    assert torch.equal(found[0][0], images()[0][0].flip(-1))


def test_random_transforms_draw_when_read() -> None:
    state = torch.get_rng_state()
    config = [{"name": "RandomRotation", "params": {"degrees": 90, "interpolation": "bilinear"}}]
    found = build(parts.transformed, {"train": images()}, transforms=config)["train"]
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(found[0][0], found[0][0])
    torch.manual_seed(3)
    first = found[0][0]
    torch.manual_seed(3)
    assert torch.equal(found[0][0], first)


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({"name": "RandomRotatio"}, ("name",), "unknown transform 'RandomRotatio'; did you mean 'RandomRotation'"),
        ({"name": "RandomRotation", "params": {"degres": 1}}, ("params", "degres"), "did you mean 'degrees'"),
        ({"name": "RandomRotation"}, ("params",), "the key 'degrees' is missing"),
        ({"name": "RandomRotation", "params": {"degrees": -1}}, ("params",), "RandomRotation: .*must be positive"),
        ({"name": "Normalize", "params": {"mean": "x", "std": [1]}}, ("params", "mean"), "expected array, got str 'x'"),
        ({"name": f"{__name__}:Shif"}, ("name",), "did you mean 'Shift'"),
        ({"name": f"{__name__}:not_a_transform"}, ("name",), "gives a str, nothing to call"),
        ({"nam": "Identity"}, ("nam",), "unknown key 'nam'; did you mean 'name'"),
        (
            {"name": "RandomApply", "params": {"transforms": [{"name": "CentreCrop"}]}},
            ("params", "transforms", 0, "name"),
            "did you mean 'CenterCrop'",
        ),
        (
            {"name": "RandomApply", "params": {"transforms": [3]}},
            ("params", "transforms", 0),
            "expected object, got int",
        ),
        (
            {"name": "LinearTransformation", "params": {"transformation_matrix": [[1.0]], "mean_vector": [0.0]}},
            ("params", "transformation_matrix"),
            "expected Tensor",
        ),
        ({"name": "RandomCrop", "params": {"size": 9}}, (), r"does not fit .* split 'train' \(float32 \[1, 4, 4\]\)"),
    ],
)
def test_transforms_that_are_wrong(config: dict[str, Any], path: tuple[str | int, ...], words: str) -> None:
    fails(("transforms", 0, *path), words, parts.transformed, {"train": images()}, transforms=[config])


# --- features -----------------------------------------------------------------------------------------------


def encoding(kind: str, *features: int, split: str = "train") -> dict[str, Any]:
    return {"feature_type": kind, "feature_names": list(features), "train_split": split}


def table(rows: list[list[float]], in_memory: bool = True) -> Any:
    answers = list(range(len(rows)))
    return Columns(torch.tensor(rows), torch.tensor(answers)) if in_memory else Lazy(rows, answers)


def encode(given_: Splits, *configs: dict[str, Any], **config: Any) -> Splits:
    return build(parts.feature_encoded, given_, feature_encoding_configs=list(configs), **config)


@pytest.mark.parametrize("in_memory", [True, False])
def test_columns_stand_in_the_order_of_the_entries(in_memory: bool) -> None:
    train = table([[7.0, 1.0, 5.0, 2.0], [8.0, 3.0, 5.0, 4.0]], in_memory)
    val = table([[9.0, 2.0, 6.0, 2.0]], in_memory)
    found = encode({"train": train, "val": val}, encoding("categorical", 3, 1), encoding("continuous", 2))
    assert type(found["train"]) is type(found["val"]) is Columns
    assert found["train"].samples.dtype == torch.float32
    # feature 3 in {2, 4}, feature 1 in {1, 3}, feature 2 (constant 5: deviation 1), feature 0 as it was
    assert found["train"].samples.tolist() == [[1, 0, 1, 0, 0, 7], [0, 1, 0, 1, 0, 8]]
    assert found["val"].samples.tolist() == [[1, 0, 0, 0, 1, 9]]
    assert found["train"].targets.tolist() == [0, 1]


rows_of_three = st.lists(
    st.tuples(st.integers(0, 3), st.floats(-100, 100, width=32), st.integers(-2, 2)), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=60)
@given(train=rows_of_three, val=rows_of_three)
def test_encoders_know_the_train_split_only(train: list[tuple[float, ...]], val: list[tuple[float, ...]]) -> None:
    configs = [encoding("continuous", 1), encoding("categorical", 0)]
    given_ = {
        "train": table([list(map(float, row)) for row in train]),
        "val": table([list(map(float, r)) for r in val]),
    }
    found = encode(given_, *configs)
    alone = encode({"train": given_["train"]}, *configs)
    assert torch.equal(found["train"].samples, alone["train"].samples)
    values = np.array([row[1] for row in train], np.float64)
    categories = sorted({row[0] for row in train})
    if values.std() > 1e-3:
        for rows, split in ((train, "train"), (val, "val")):
            expected = (np.array([row[1] for row in rows]) - values.mean()) / values.std()
            assert found[split].samples[:, 0].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    for rows, split in ((train, "train"), (val, "val")):
        one_hot = found[split].samples[:, 1:-1]
        assert one_hot.tolist() == [[float(row[0] == category) for category in categories] for row in rows]
        assert found[split].samples[:, -1].tolist() == [row[2] for row in rows]
        assert found[split].targets.tolist() == list(range(len(rows)))


def test_features_keep_tags_and_views() -> None:
    view = random_splits({"all": table([[float(i)] for i in range(9)])}, split_configs={"all": {"train": 1.0}}, seed=1)
    one_hot = build(parts.one_hot_targets, view, target_vector_size=9)
    found = encode(one_hot, encoding("categorical", 0))["train"]
    assert isinstance(found, TaggedColumns)
    assert torch.equal(found.samples, found.targets)
    assert found.samples.argmax(1).tolist() == found.labels().tolist() != list(range(9))
    small = table([[float(i)] for i in range(4)])
    rows = Columns(small.samples, small.targets, torch.tensor([3, 1]))
    assert encode({"train": rows}, encoding("continuous", 0))["train"].samples.tolist() == [[1], [-1]]
    assert encode({"train": rows}, encoding("continuous", 0))["train"].targets.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("configs", "path", "words"),
    [
        ([], (), "name at least one feature"),
        ([encoding("continuous")], (0, "feature_names"), "name at least one feature"),
        ([encoding("continuous", 0, 2)], (0, "feature_names", 1), "index 2 is out of bounds: .* 0 to 1"),
        ([encoding("continuous", -1)], (0, "feature_names", 0), "index -1 is out of bounds"),
        ([encoding("continuous", 1, 1)], (0, "feature_names", 1), "feature 1 is named twice"),
        (
            [encoding("continuous", 1), encoding("categorical", 0, 1)],
            (1, "feature_names", 1),
            "feature 1 is named twice",
        ),
        ([encoding("continuous", 1, split="trian")], (0, "train_split"), "no split 'trian'; did you mean 'train'"),
        ([encoding("continous", 1)], (0, "feature_type"), "unknown value 'continous'; did you mean 'continuous'"),
    ],
)
def test_encodings_that_are_wrong(configs: list[dict[str, Any]], path: tuple[str | int, ...], words: str) -> None:
    given_ = {"train": table([[1.0, 2.0], [3.0, 4.0]])}
    at = ("feature_encoding_configs", *path)
    fails(at, words, parts.feature_encoded, given_, feature_encoding_configs=configs)


def test_samples_that_cannot_be_encoded() -> None:
    config = {"feature_encoding_configs": [encoding("continuous", 0)]}
    good = table([[1.0, 2.0]])
    words = r"split 'train': expected samples that are vectors, got shape \[1, 4, 4\]"
    fails((), words, parts.feature_encoded, {"train": images()}, **config)
    words = "split 'val' has 1 features, but split 'train' has 2"
    fails((), words, parts.feature_encoded, {"train": good, "val": table([[1.0]])}, **config)
    words = "split 'train' is empty"
    fails((), words, parts.feature_encoded, {"train": Columns(torch.zeros(0, 2), torch.zeros(0))}, **config)
    endless = table([[float("inf"), 2.0]])
    at = ("feature_encoding_configs", 0)
    fails((*at, "train_split"), "split 'train': .*infinity", parts.feature_encoded, {"train": endless}, **config)
    fails(at, "split 'val': .*infinity", parts.feature_encoded, {"train": good, "val": endless}, **config)


# --- view ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(make=kinds, classes=some_labels, data=st.data())
def test_views_hold_the_items_at_their_indices(
    make: Callable[[list[int]], Any], classes: list[int], data: st.DataObject
) -> None:
    index = st.lists(st.integers(0, len(classes) - 1), min_size=1)
    indices = data.draw(st.dictionaries(st.sampled_from(["train", "val", "all"]), index, min_size=1))
    found = build(
        parts.view,
        {"all": make(classes), "other": make([0])},
        split_indices=indices,
        applicable_split="all",
        view_tags={"a": 1},
    )
    assert list(found) == list(indices)
    for split, chosen in indices.items():
        assert items(found[split]) == [([float(i)], classes[i], classes[i]) for i in chosen]
        assert isinstance(found[split], Columns) == (make in (columns, seen_through_rows))


@pytest.mark.parametrize(
    ("indices", "split", "path", "words"),
    [
        ({"a": [0, 3]}, "train", ("split_indices", "a", 1), "index 3 is out of bounds: split 'train' has items 0 to 2"),
        ({"a": [-1]}, "train", ("split_indices", "a", 0), "index -1 is out of bounds"),
        ({"a": [0], "b": []}, "train", ("split_indices", "b"), "the split 'b' would be empty"),
        ({}, "train", ("split_indices",), "name at least one split"),
        ({"a": [0]}, "trian", ("applicable_split",), "no split 'trian'; did you mean 'train'"),
    ],
)
def test_views_that_are_wrong(indices: Any, split: str, path: tuple[str | int, ...], words: str) -> None:
    fails(path, words, parts.view, {"train": columns([0, 1, 2])}, split_indices=indices, applicable_split=split)

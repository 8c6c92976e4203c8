from __future__ import annotations

from typing import Any

import pytest
import torch

from mlgym.errors import ConfigError
from mlgym.parts.batch import Batch
from mlgym.parts.data import (
    Collator,
    Loader,
    SamplingStrategy,
    balanced_weights,
    collator,
    loaders,
    strategy_loaders,
)
from mlgym.parts.datasets import Columns, Item, labels, subset
from mlgym.parts.iterators import one_hot_targets


class Plain:
    """The built-in collator without its fast path: everything goes through torch's DataLoader."""

    def __init__(self) -> None:
        self._collate = Collator()

    def __call__(self, batch: list[Item]) -> Batch:
        return self._collate(batch)


def data(size: int = 23) -> Columns:
    return Columns(torch.randn(size, 3), torch.arange(size)).subset(torch.randperm(size))


def same(left: Batch, right: Batch) -> bool:
    return torch.equal(left.samples, right.samples) and torch.equal(
        left.targets["target_key"], right.targets["target_key"]
    )


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_whole_batches_equal_the_plain_loader(workers: int, persistent: bool) -> None:
    dataset = data()
    fast = Loader(dataset, Collator(), 4, seed=1)
    plain = Loader(dataset, Plain(), 4, seed=1, options={"num_workers": workers, "persistent_workers": persistent})
    next(plain.training_batches(7))  # a pass that is left half-way
    for pass_ in range(2):
        pairs = list(zip(fast.training_batches(pass_), plain.training_batches(pass_), strict=True))
        assert len(pairs) == len(fast) == 6
        assert all(same(a, b) for a, b in pairs)
    pairs = list(zip(fast.evaluation_batches(), plain.evaluation_batches(), strict=True))
    assert len(pairs) == fast.num_evaluation_batches
    assert all(same(a, b) for a, b in pairs)


def targets(batches: Any) -> list[list[int]]:
    return [batch.targets["target_key"].tolist() for batch in batches]


def test_a_pass_is_a_function_of_seed_and_number() -> None:
    loader = Loader(data(), Collator(), 4, seed=1)
    first = targets(loader.training_batches(0))
    assert sorted(target for batch in first for target in batch) == list(range(23))
    assert targets(loader.training_batches(0)) == first
    assert targets(loader.training_batches(1)) != first
    assert targets(loader.training_batches(0, start=4)) == first[4:]
    assert targets(Loader(loader.dataset, Collator(), 4, seed=2).training_batches(0)) != first


def test_drop_last_is_for_training_only() -> None:
    loader = Loader(data(), Collator(), 4, seed=1, drop_last=True)
    assert len(loader) == 5
    assert [len(batch) for batch in targets(loader.training_batches(0))] == [4] * 5
    assert sum(len(batch) for batch in targets(loader.evaluation_batches())) == 23


def test_loaders() -> None:
    splits = {"train": data(), "val": data(5)}
    found = loaders(splits, Collator(), batch_size=4, seed=0)
    assert list(found) == ["train", "val"]
    assert found["train"].seed != found["val"].seed
    assert loaders(splits, Collator(), batch_size=4, seed=0, seeds=[7, 8])["val"].seed == 8
    assert loaders(splits, Collator(), batch_size=4, seed=0, seeds={"val": 9})["val"].seed == 9
    for options, words in (
        ({"batch_size": 0}, "must be at least 1"),
        ({"seeds": [1]}, "1 seeds for 2 splits"),
        ({"seeds": {"vla": 1}}, "there is no split 'vla'; did you mean 'val'"),
        ({"batch_size": 6, "drop_last": True}, "split 'val' has 5 samples"),
        ({"num_workers": -1}, "must not be negative"),
    ):
        with pytest.raises(ConfigError, match=words):
            loaders(splits, Collator(), **{"batch_size": 4, "seed": 0, **options})  # type: ignore[arg-type]


def test_collators() -> None:
    assert isinstance(collator(), Collator)
    assert collator(collator_params={"target_publication_key": "t"})([(torch.ones(2), 1, 1)]).targets["t"].tolist() == [
        1
    ]
    assert isinstance(collator(collator_type=Plain), Plain)
    with pytest.raises(ConfigError, match="unknown key 'x'"):
        collator(collator_params={"x": 1})


def test_batches_move_between_devices() -> None:
    batch = Batch({"a": [torch.ones(2)]}, {"t": torch.zeros(2)})
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert moved.samples["a"][0].device.type == moved.targets["t"].device.type == "meta"
    assert len(batch) == 2


def test_weighted_sampling_draws_every_class_equally_often() -> None:
    classes = torch.tensor([0] * 900 + [1] * 90 + [7] * 10)
    dataset = Columns(torch.arange(1000).float(), classes)
    loader = Loader(dataset, Collator(), 100, seed=3, strategy="weighted_random")
    drawn = torch.cat([batch.targets["target_key"] for pass_ in range(30) for batch in loader.training_batches(pass_)])
    assert len(drawn) == 30_000
    for label in (0, 1, 7):
        assert abs(float((drawn == label).float().mean()) - 1 / 3) < 0.015  # 5 standard deviations
    assert targets(loader.training_batches(4)) == targets(loader.training_batches(4))
    assert targets(loader.training_batches(4)) != targets(loader.training_batches(5))
    evaluated = [target for batch in targets(loader.evaluation_batches()) for target in batch]
    assert evaluated == classes.tolist()  # scores are of the split, not of the sample drawn


def test_weights_by_a_label_at_any_position() -> None:
    items = [(0.0, 5, 5, i % 2) for i in range(3)]
    assert balanced_weights(items, 3).tolist() == pytest.approx([0.5, 1, 0.5])
    assert balanced_weights(items, 2).tolist() == pytest.approx([1 / 3] * 3)
    one_hot = Columns(torch.ones(3), torch.eye(3))
    with pytest.raises(ConfigError, match="one label for each item"):
        balanced_weights(one_hot)


def test_one_hot_targets_are_weighted_by_their_label() -> None:
    splits = {"train": Columns(torch.ones(4), torch.tensor([0, 0, 0, 2]))}
    encoded = one_hot_targets(splits, target_vector_size=3)["train"]
    assert balanced_weights(encoded).tolist() == pytest.approx([1 / 3] * 3 + [1])
    nested = subset(subset(encoded, torch.tensor([3, 1, 0])), torch.tensor([0, 2]))
    assert labels(nested).tolist() == [2, 0]


@pytest.mark.parametrize("key", ["weighted_sampling_split_name", "weigthed_sampling_split_name"])
def test_the_weighted_split_by_either_spelling(key: str) -> None:
    splits = {"train": data(), "val": data(5)}
    found = loaders(splits, Collator(), batch_size=4, seed=0, **{key: "train"})  # type: ignore[arg-type]
    assert (found["train"]._strategy, found["val"]._strategy) == ("weighted_random", "random")
    with pytest.raises(ConfigError, match="there is no split 'trian'; did you mean 'train'") as caught:
        loaders(splits, Collator(), batch_size=4, seed=0, **{key: "trian"})  # type: ignore[arg-type]
    assert caught.value.path == (key,)


def test_a_strategy_for_each_split() -> None:
    splits = {"train": data(), "val": data(5), "test": data(6)}
    strategies = {"train": SamplingStrategy("weighted_random", 7), "val": SamplingStrategy("in_order")}
    found = strategy_loaders(splits, Collator(), batch_size=4, seed=0, sampling_strategies=strategies)
    assert [loader._strategy for loader in found.values()] == ["weighted_random", "in_order", "random"]
    assert found["train"].seed == 7
    assert targets(found["val"].training_batches(0)) == targets(found["val"].evaluation_batches())
    with pytest.raises(ConfigError, match="there is no split 'x'"):
        strategy_loaders(splits, Collator(), batch_size=4, seed=0, sampling_strategies={"x": SamplingStrategy()})
    with pytest.raises(ConfigError, match="needs num_workers"):
        strategy_loaders(splits, Collator(), batch_size=4, seed=0, prefetch_factor=2)
    with pytest.raises(ConfigError, match="needs num_workers"):
        strategy_loaders(splits, Collator(), batch_size=4, seed=0, persistent_workers=True)
    with pytest.raises(ConfigError, match="split 'val' is empty"):
        strategy_loaders({"val": data().subset(torch.arange(0))}, Collator(), batch_size=4, seed=0)

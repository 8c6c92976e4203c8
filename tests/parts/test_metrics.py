"""Metrics equal scikit-learn's, batch by batch and at once, however the labels appear."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.build.catalog import built_in
from mlgym.errors import ConfigError
from mlgym.parts.metrics import Accumulator

SKLEARN = {
    "F1_SCORE": sklearn.metrics.f1_score,
    "PRECISION": sklearn.metrics.precision_score,
    "RECALL": sklearn.metrics.recall_score,
}


def accumulator(key: str, **params: str) -> Accumulator:
    found: Accumulator = built_in().tables["metric_registry"].build_keyed({"key": key, "params": params}, ())
    return found


def score(metric: Accumulator, prediction: list[int], target: list[int], cuts: list[int]) -> float:
    for p, t in zip(np.split(np.array(prediction), cuts), np.split(np.array(target), cuts), strict=True):
        if len(p):
            metric.update(torch.from_numpy(p), torch.from_numpy(t))
    return metric.compute()


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    average=st.sampled_from(["micro", "macro", "weighted", "binary"]),
    key=st.sampled_from(sorted(SKLEARN)),
)
def test_averages_equal_scikit_learn(data: st.DataObject, average: str, key: str) -> None:
    size = data.draw(st.integers(1, 40))
    label = st.integers(0, 1 if average == "binary" else 6)
    prediction = data.draw(st.lists(label, min_size=size, max_size=size))
    target = data.draw(st.lists(label, min_size=size, max_size=size))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    expected = SKLEARN[key](target, prediction, average=average, zero_division=0)
    metric = accumulator(key, average=average)
    assert score(metric, prediction, target, cuts) == pytest.approx(expected, abs=1e-6)
    metric.reset()
    assert score(metric, prediction, target, []) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=50), st.integers(0, 50))
def test_accuracy(pairs: list[tuple[int, int]], cut: int) -> None:
    prediction, target = map(list, zip(*pairs, strict=True))
    found = score(accumulator("ACCURACY"), prediction, target, [min(cut, len(pairs))])
    assert found == pytest.approx(sklearn.metrics.accuracy_score(target, prediction), abs=1e-6)


def test_labels_of_any_shape() -> None:
    """Segmentation masks, say."""
    metric = accumulator("ACCURACY")
    metric.update(torch.zeros(2, 3, 3), torch.eye(3).expand(2, 3, 3))
    assert metric.compute() == pytest.approx(2 / 3)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ConfigError, match="is a post-processor"):
        accumulator("ACCURACY").update(torch.zeros(4, 10), torch.zeros(4))
    with pytest.raises(ConfigError, match="average 'binary' needs the labels 0 and 1, but there is 2"):
        accumulator("F1_SCORE").update(torch.tensor([2]), torch.tensor([0]))
    with pytest.raises(ConfigError, match="unknown value 'makro'; did you mean 'macro'"):
        accumulator("F1_SCORE", average="makro")
    assert np.isnan(accumulator("ACCURACY").compute())

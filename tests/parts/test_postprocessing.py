"""Each post-processor publishes what its formula says and leaves the rest as it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.errors import ConfigError
from mlgym.parts import postprocessing
from mlgym.parts.postprocessing import PostProcessor
from mlgym.parts.table import Table

TABLE = Table("post-processor")
TABLE.add("SOFT_MAX", postprocessing.soft_max)
TABLE.add("ARG_MAX", postprocessing.arg_max)
TABLE.add("MIN_OR_MAX", postprocessing.min_or_max)
TABLE.add("SIGMOIDAL", postprocessing.sigmoidal)
TABLE.add("BINARIZATION", postprocessing.binarization)
TABLE.add("DUMMY", postprocessing.dummy)

KEYS = {"prediction_subscription_key": "logits", "prediction_publication_key": "out"}


def build(key: str, **params: Any) -> PostProcessor:
    found: PostProcessor = TABLE.build_keyed({"key": key, "params": {**KEYS, **params}}, ())
    return found


def applied(key: str, prediction: torch.Tensor, **params: Any) -> torch.Tensor:
    predictions = {"logits": prediction, "other": torch.zeros(1)}
    before = prediction.clone()
    build(key, **params)(predictions)
    assert set(predictions) == {"logits", "other", "out"}
    torch.testing.assert_close(predictions["logits"], before, rtol=0, atol=0, equal_nan=True)
    return predictions["out"]


rows = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-50, 50, width=32), min_size=width, max_size=width), min_size=1, max_size=5
    )
)


@settings(deadline=None, max_examples=40)
@given(rows)
def test_formulas(values: list[list[float]]) -> None:
    logits = torch.tensor(values, dtype=torch.float64)
    out = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in values]
    torch.testing.assert_close(applied("SOFT_MAX", logits), torch.tensor(out, dtype=torch.float64))
    assert applied("ARG_MAX", logits).tolist() == [row.index(max(row)) for row in values]
    assert applied("MIN_OR_MAX", logits, agg_fun="max").tolist() == [max(row) for row in values]
    assert applied("MIN_OR_MAX", logits, agg_fun="min").tolist() == [min(row) for row in values]
    sigmoid = torch.tensor([[1 / (1 + math.exp(-x)) for x in row] for row in values], dtype=torch.float64)
    torch.testing.assert_close(applied("SIGMOIDAL", logits), sigmoid)
    torch.testing.assert_close(applied("SIGMOIDAL", logits, threshold=0.9), sigmoid)
    assert applied("BINARIZATION", logits).tolist() == [[int(x > 0.5) for x in row] for row in values]
    assert torch.equal(applied("DUMMY", logits), logits)


def test_binarization_is_strict_and_gives_labels() -> None:
    found = applied("BINARIZATION", torch.tensor([0.4, 0.5, 0.6, math.nan]))
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 0, 1, 0]
    assert applied("BINARIZATION", torch.tensor([[0.4], [0.5]]), threshold=0.4).tolist() == [[0], [1]]
    assert applied("BINARIZATION", torch.tensor([-1, 1]), threshold=0).tolist() == [0, 1]


def test_dimensions() -> None:
    cube = torch.rand(2, 3, 4)
    assert applied("SOFT_MAX", cube).sum(-1) == pytest.approx(torch.ones(2, 3))
    assert applied("SOFT_MAX", cube, dim=1).sum(1) == pytest.approx(torch.ones(2, 4))
    assert applied("ARG_MAX", cube, dim=1).shape == (2, 4)
    assert applied("MIN_OR_MAX", cube, agg_fun="max").shape == (2, 3)
    for key in ("SOFT_MAX", "ARG_MAX"):
        with pytest.raises(ConfigError, match=r"there is no dimension 3 in predictions of the shape \[2, 3, 4\]"):
            applied(key, cube, dim=3)
    with pytest.raises(ConfigError, match=r"there is no dimension -1 in predictions of the shape \[\]"):
        applied("MIN_OR_MAX", torch.tensor(1.0), agg_fun="max")


def test_one_after_the_other() -> None:
    predictions = {"logits": torch.tensor([[0.0, 2.0]])}
    build("SOFT_MAX", prediction_publication_key="probabilities")(predictions)
    build("MIN_OR_MAX", prediction_subscription_key="probabilities", agg_fun="max")(predictions)
    assert float(predictions["out"]) == pytest.approx(1 / (1 + math.exp(-2)))


def test_dummy_without_keys_does_nothing() -> None:
    predictions = {"p": torch.ones(1)}
    processor: PostProcessor = TABLE.build_keyed({"key": "DUMMY"}, ())
    processor(predictions)
    assert list(predictions) == ["p"]
    with pytest.raises(ConfigError, match="expected both"):
        TABLE.build_keyed({"key": "DUMMY", "prediction_subscription_key": "p"}, ())


def test_mistakes() -> None:
    for key in TABLE:
        params = {"agg_fun": "max"} if key == "MIN_OR_MAX" else {}
        with pytest.raises(ConfigError, match="nothing is published under the key 'logist'; did you mean 'logits'"):
            applied(key, torch.zeros(2, 2), prediction_subscription_key="logist", **params)
    with pytest.raises(ConfigError, match="unknown value 'mean'") as caught:
        build("MIN_OR_MAX", agg_fun="mean")
    assert caught.value.path == ("params", "agg_fun")
    with pytest.raises(ConfigError, match="the key 'agg_fun' is missing"):
        build("MIN_OR_MAX")
    with pytest.raises(ConfigError, match="'high'") as caught:
        build("BINARIZATION", threshold="high")
    assert caught.value.path == ("params", "threshold")
    with pytest.raises(ConfigError, match="the key 'prediction_publication_key' is missing"):
        TABLE.build_keyed({"key": "SOFT_MAX", "prediction_subscription_key": "p"}, ())

"""Losses against torch and the formulas; chunks against the whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mlgym.errors import ConfigError
from mlgym.parts import loss_functions, losses
from mlgym.parts.batch import Batch
from mlgym.parts.loss_functions import torch_losses
from mlgym.parts.losses import LossMean, loss
from mlgym.parts.table import Table

N, C = 40, 4
KEYS = {"prediction_subscription_key": "p", "target_subscription_key": "t"}
CLASS_WEIGHTS = [0.5, 2.0, 1.0, 0.25]
SELECTION = {"class_selection_fun_params": {"target_subscription_key": "class", "selected_class": 2}}

G = torch.Generator().manual_seed(0)
LOGITS = torch.randn(N, C, generator=G, dtype=torch.float64)
LABELS = torch.randint(0, C, (N,), generator=G)
SOFT = torch.rand(N, C, generator=G, dtype=torch.float64).softmax(1)
BITS = torch.randint(0, 2, (N, C), generator=G)
VALUES = torch.randn(N, C, generator=G, dtype=torch.float64)


def table() -> Table:
    made = Table("loss", torch_losses)
    builders: dict[str, Callable[..., Any]] = {
        "CrossEntropyLoss": loss_functions.cross_entropy,
        "NLLLoss": loss_functions.nll,
        "BCEWithLogitsLoss": loss_functions.bce_with_logits,
        "BCELoss": loss_functions.bce,
        "LPLoss": loss_functions.LP,
        "LPPredictionLoss": loss_functions.LP,
        "MSE": loss_functions.mse,
        "L1": loss_functions.l1,
        "Huber": loss_functions.huber,
    }
    for name, builder in builders.items():
        made.add(name, builder)
    return made


TABLE = table()


def made(key: str, **config: Any) -> losses.Loss:
    return loss(TABLE, {"key": key, "tag": "x", **KEYS, **config}, ())


def batch(prediction: torch.Tensor, target: torch.Tensor, classes: torch.Tensor | None = None) -> Batch:
    targets = {"t": target} if classes is None else {"t": target, "class": classes}
    return Batch(None, targets, None, {"p": prediction})


def lp(root: float, exponent: float) -> Callable[..., torch.Tensor]:
    def formula(p: torch.Tensor, t: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        values = torch.stack([(abs(a - b) ** exponent).sum() ** (1 / root) for a, b in zip(p, t, strict=True)])
        return values.sum() if reduction == "sum" else values.mean()

    return formula


def with_(function: Callable[..., torch.Tensor], **fixed: Any) -> Callable[..., torch.Tensor]:
    return lambda p, t, reduction="mean": function(p, t, reduction=reduction, **fixed)


W = torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
ce, bce_logits = functional.cross_entropy, functional.binary_cross_entropy_with_logits

# key, config, prediction, target, the same in torch
CASES: dict[str, tuple[str, dict[str, Any], torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]] = {
    "ce": ("CrossEntropyLoss", {}, LOGITS, LABELS, ce),
    "ce int32": ("CrossEntropyLoss", {}, LOGITS, LABELS.int(), lambda p, t, reduction="mean": ce(p, t.long(), reduction=reduction)),
    "ce column": ("CrossEntropyLoss", {}, LOGITS, LABELS[:, None], lambda p, t, reduction="mean": ce(p, t[:, 0], reduction=reduction)),
    "ce weights": ("CrossEntropyLoss", {"weight": CLASS_WEIGHTS}, LOGITS, LABELS, with_(ce, weight=W)),
    "ce ignore": ("CrossEntropyLoss", {"ignore_index": 1}, LOGITS, LABELS, with_(ce, ignore_index=1)),
    "ce all": (
        "CrossEntropyLoss",
        {"params": {"weight": CLASS_WEIGHTS, "ignore_index": 1, "label_smoothing": 0.2}},
        LOGITS,
        LABELS,
        with_(ce, weight=W, ignore_index=1, label_smoothing=0.2),
    ),
    "ce smooth ignore": ("CrossEntropyLoss", {"label_smoothing": 0.2, "ignore_index": 0}, LOGITS, LABELS, with_(ce, ignore_index=0, label_smoothing=0.2)),
    "ce soft": ("CrossEntropyLoss", {"weight": CLASS_WEIGHTS, "label_smoothing": 0.1}, LOGITS, SOFT, with_(ce, weight=W, label_smoothing=0.1)),
    "ce one-hot": ("CrossEntropyLoss", {}, LOGITS, functional.one_hot(LABELS, C), lambda p, t, reduction="mean": ce(p, t.argmax(1), reduction=reduction)),
    "ce pixels": ("CrossEntropyLoss", {"weight": [1.0, 3.0], "ignore_index": 0}, LOGITS.view(N, 2, 2), BITS[:, :2], with_(ce, weight=W.new_tensor([1, 3]), ignore_index=0)),
    "nll": ("NLLLoss", {}, LOGITS, LABELS, lambda p, t, reduction="mean": functional.nll_loss(p.log_softmax(1), t, reduction=reduction)),
    "nll all": (
        "NLLLoss",
        {"weight": CLASS_WEIGHTS, "ignore_index": 2},
        LOGITS,
        LABELS,
        lambda p, t, reduction="mean": functional.nll_loss(p.log_softmax(1), t, W, ignore_index=2, reduction=reduction),
    ),
    "bce logits": ("BCEWithLogitsLoss", {}, LOGITS, BITS.double(), bce_logits),
    "bce logits bits": ("BCEWithLogitsLoss", {"weight": CLASS_WEIGHTS, "pos_weight": [1.0, 2.0, 3.0, 4.0]}, LOGITS, BITS, lambda p, t, reduction="mean": bce_logits(p, t.double(), W, reduction=reduction, pos_weight=W.new_tensor([1, 2, 3, 4]))),
    "bce logits flat": ("BCEWithLogitsLoss", {"flatten_predictions": True, "pos_weight": 2.0}, LOGITS[:, :1], BITS[:, 0], lambda p, t, reduction="mean": bce_logits(p[:, 0], t.double(), reduction=reduction, pos_weight=W.new_tensor(2))),
    "bce": ("BCELoss", {}, LOGITS.sigmoid(), BITS.double(), functional.binary_cross_entropy),
    "bce weights": ("BCELoss", {"weight": CLASS_WEIGHTS}, LOGITS.sigmoid(), BITS, lambda p, t, reduction="mean": functional.binary_cross_entropy(p, t.double(), W, reduction=reduction)),
    "lp": ("LPLoss", {"root": 2, "exponent": 2}, LOGITS, VALUES, lp(2, 2)),
    "lp default": ("LPLoss", {}, LOGITS, VALUES, lp(1, 2)),
    "lp cubic": ("LPPredictionLoss", {"root": 3, "exponent": 3}, LOGITS, VALUES, lp(3, 3)),
    "lp odd": ("LPLoss", {"root": 0.5, "exponent": 0.5}, LOGITS, VALUES, lp(0.5, 0.5)),
    "lp images": ("LPLoss", {"root": 2, "exponent": 1}, LOGITS.view(N, 2, 2), VALUES.view(N, 2, 2), lp(2, 1)),
    "lp numbers": ("LPLoss", {"root": 2, "exponent": 2}, LOGITS[:, 0], BITS[:, 0], lp(2, 2)),
    "mse": ("MSE", {}, LOGITS, VALUES, functional.mse_loss),
    "mse column": ("MSELoss", {}, LOGITS[:, :1], VALUES[:, 0], lambda p, t, reduction="mean": functional.mse_loss(p[:, 0], t, reduction=reduction)),
    "mse target column": ("mseloss", {"reduction": "mean"}, LOGITS[:, 0], VALUES[:, :1], lambda p, t, reduction="mean": functional.mse_loss(p, t[:, 0], reduction=reduction)),
    "mse integers": ("MSE", {}, LOGITS, BITS, lambda p, t, reduction="mean": functional.mse_loss(p, t.double(), reduction=reduction)),
    "l1": ("L1", {}, LOGITS, VALUES, functional.l1_loss),
    "l1 loss": ("L1Loss", {}, LOGITS, VALUES, functional.l1_loss),
    "huber": ("Huber", {"delta": 0.3}, LOGITS, VALUES, with_(functional.huber_loss, delta=0.3)),
    "huber loss": ("HuberLoss", {}, LOGITS, VALUES, functional.huber_loss),
}  # fmt: skip
# of torch.nn by name
FALLBACK: dict[str, tuple[str, dict[str, Any], torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]] = {
    "smooth l1": ("SmoothL1Loss", {"beta": 0.5}, LOGITS[:, :1], VALUES[:, 0], lambda p, t: functional.smooth_l1_loss(p[:, 0], t, beta=0.5)),
    "margin": ("MultiMarginLoss", {"p": 2}, LOGITS, LABELS, lambda p, t: functional.multi_margin_loss(p, t, p=2)),
    "multi-label": ("multilabelsoftmarginloss", {}, LOGITS, BITS, lambda p, t: functional.multilabel_soft_margin_loss(p, t.double())),
    "poisson": ("PoissonNLLLoss", {}, LOGITS, BITS, lambda p, t: functional.poisson_nll_loss(p, t.double())),
    "divergence": ("KLDivLoss", {"reduction": "batchmean"}, LOGITS.log_softmax(1), SOFT, lambda p, t: functional.kl_div(p, t, reduction="batchmean")),
}  # fmt: skip
ALL = CASES | FALLBACK


@pytest.mark.parametrize("name", ALL)
def test_a_loss_is_what_torch_or_the_formula_says(name: str) -> None:
    key, config, prediction, target, expected = ALL[name]
    found = made(key, **config)(batch(prediction, target))
    assert found.ndim == 0
    assert float(found) == pytest.approx(float(expected(prediction, target)), abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_sums_are_for_training_only(name: str) -> None:
    key, config, prediction, target, expected = CASES[name]
    summed, mean = made(key, **config, average_batch_loss=False), made(key, **config)
    one = batch(prediction, target)
    assert float(summed(one)) == pytest.approx(float(expected(prediction, target, reduction="sum")), abs=1e-6)
    assert summed.mean_and_weight(one) == mean.mean_and_weight(one)
    assert float(mean.mean_and_weight(one)[0]) == pytest.approx(float(mean(one)), abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_gradients(name: str) -> None:
    key, config, prediction, target, expected = ALL[name]
    ours, theirs = prediction.clone().requires_grad_(), prediction.clone().requires_grad_()
    made(key, **config)(batch(ours, target)).backward()
    expected(theirs, target).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-9, rtol=1e-6)


# --- chunks -------------------------------------------------------------------------------------------------

cuts = st.sets(st.integers(0, N), max_size=8).map(lambda inner: sorted({0, N} | inner))
TERMS = {
    "terms": [
        {"key": "CrossEntropyLoss", "tag": "ce", "weight": 0.7, **KEYS, "target_subscription_key": "class", "params": {"weight": CLASS_WEIGHTS, "ignore_index": 0}},
        {"key": "LPLoss", "tag": "lp", "weight": -2, **KEYS, **SELECTION, "root": 2, "average_batch_loss": False},
        {"key": "MSE", "tag": "mse", **KEYS},
    ]
}  # fmt: skip


def chunked(one: losses.Loss, prediction: torch.Tensor, target: torch.Tensor, cut: list[int]) -> dict[str, float]:
    mean = LossMean(one)
    for start, end in pairwise(cut):
        mean.add(batch(prediction[start:end], target[start:end], LABELS[start:end]))
    return mean.compute()


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(cut=cuts)
def test_chunks_of_any_cut_combine_to_the_whole(name: str, cut: list[int]) -> None:
    key, config, prediction, target, expected = ALL[name]
    order = torch.argsort(LABELS)  # so that some chunks have nothing but ignored targets
    prediction, target = prediction[order], target[order]
    found = chunked(made(key, **config), prediction, target, cut)
    assert found == {"x": pytest.approx(float(expected(prediction, target)), abs=1e-6)}


@settings(max_examples=40, deadline=None)
@given(cut=cuts)
def test_selections_and_sums_combine_to_the_whole(cut: list[int]) -> None:
    chosen = LABELS == 2
    selected = float(lp(2, 2)(LOGITS[chosen], VALUES[chosen]))
    one = made("LPLoss", root=2, **SELECTION)
    assert chunked(one, LOGITS, VALUES, cut) == {"x": pytest.approx(selected, abs=1e-6)}
    expected = {
        "ce": float(ce(LOGITS, LABELS, W, ignore_index=0)),
        "lp": selected,
        "mse": float(functional.mse_loss(LOGITS, VALUES)),
    }
    expected["total"] = 0.7 * expected["ce"] - 2 * selected + expected["mse"]
    found = chunked(loss(TABLE, {"tag": "total", **TERMS}, ()), LOGITS, VALUES, cut)
    assert list(found) == ["total", "ce", "lp", "mse"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_nothing_counts() -> None:
    for one, prediction, target in (
        (made("CrossEntropyLoss", ignore_index=1), LOGITS[:3], torch.ones(3, dtype=torch.long)),
        (made("CrossEntropyLoss", weight=[0.0, 1, 1, 1]), LOGITS[:3], torch.zeros(3, dtype=torch.long)),
        (made("NLLLoss", ignore_index=1), LOGITS[:3], torch.ones(3, dtype=torch.long)),
        (made("LPLoss", **SELECTION), LOGITS[:3], VALUES[:3]),
        (made("MSE"), LOGITS[:0], VALUES[:0]),
        (made("BCELoss"), LOGITS[:0], BITS[:0]),
        (made("SmoothL1Loss"), LOGITS[:0], BITS[:0]),
    ):
        mean, weight = one.mean_and_weight(batch(prediction, target, torch.zeros(len(target))))
        assert (float(mean), float(weight)) == (0, 0)
        assert LossMean(one).compute() == {"x": 0.0}


def test_a_mean_that_is_not_a_number_stays_so() -> None:
    assert made("MSE").mean_and_weight(batch(LOGITS * float("nan"), VALUES))[0].isnan()


def test_losses_of_torch_registered_as_they_are() -> None:
    """A user's `registry.loss(name, nn.CrossEntropyLoss)` is combined exactly as well, and so is any function."""
    TABLE.add("theirs", nn.CrossEntropyLoss)
    TABLE.add("mine", lambda: lambda p, t: (p - t).abs().mean(1))
    found = chunked(made("theirs", ignore_index=1), LOGITS, LABELS, [0, 3, 7, N])
    assert found["x"] == pytest.approx(float(ce(LOGITS, LABELS, ignore_index=1)), abs=1e-6)
    mine = made("mine")
    assert float(mine(batch(LOGITS, VALUES))) == pytest.approx(float(functional.l1_loss(LOGITS, VALUES)))
    found = chunked(mine, LOGITS, VALUES, [0, 3, 7, N])
    assert found["x"] == pytest.approx(float(functional.l1_loss(LOGITS, VALUES)), abs=1e-6)


# --- class selection, sums ----------------------------------------------------------------------------------


def test_class_selection() -> None:
    prediction = LOGITS.clone().requires_grad_()
    chosen = LABELS == 2
    value = made("LPLoss", root=2, **SELECTION)(batch(prediction, VALUES, LABELS[:, None]))
    assert float(value.detach()) == pytest.approx(float(lp(2, 2)(LOGITS[chosen], VALUES[chosen])), abs=1e-6)
    value.backward()
    assert prediction.grad is not None
    assert bool((prediction.grad[~chosen] == 0).all())
    assert bool((prediction.grad[chosen] != 0).all())
    nobody = made("LPLoss", root=2, **SELECTION)(batch(prediction, VALUES, LABELS * 0))
    assert float(nobody.detach()) == 0
    summed = made("LPLoss", root=2, average_batch_loss=False, **SELECTION)(batch(LOGITS, VALUES, LABELS))
    assert float(summed) == pytest.approx(float(lp(2, 2)(LOGITS[chosen], VALUES[chosen], "sum")), abs=1e-6)


@pytest.mark.parametrize(("root", "exponent"), [(2, 2), (3, 3), (2, 0.5), (1, 1)])
def test_where_prediction_is_target_the_gradient_is_zero(root: float, exponent: float) -> None:
    prediction = VALUES.clone().requires_grad_()
    made("LPLoss", root=root, exponent=exponent)(batch(prediction, VALUES)).backward()
    assert torch.equal(torch.zeros_like(VALUES), prediction.grad)  # type: ignore[arg-type]


def test_sums_of_terms() -> None:
    total = loss(TABLE, {"tag": "total", **TERMS}, ())
    one = batch(LOGITS, VALUES, LABELS)
    assert total.tags == ("total", "ce", "lp", "mse")
    assert [term.weight for term in total.terms] == [0.7, -2.0, 1.0]
    expected = sum(term.weight * float(term(one)) for term in total.terms)
    assert float(total(one)) == pytest.approx(expected, abs=1e-6)
    chosen = LABELS == 2
    assert float(total.terms[1](one)) == pytest.approx(float(lp(2, 2)(LOGITS[chosen], VALUES[chosen], "sum")))
    with pytest.raises(TypeError, match="use LossMean"):
        total.mean_and_weight(one)
    assert made("MSE").terms == ()
    assert made("MSE").tags == ("x",)


# --- types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_predictions_in_any_precision(name: str, dtype: torch.dtype) -> None:
    key, config, prediction, target, expected = CASES[name]
    prediction = prediction.to(dtype)
    found = made(key, **config)(batch(prediction.clone().requires_grad_(), target))
    found.backward()
    assert found.dtype is torch.float32
    assert float(found.detach()) == pytest.approx(float(expected(prediction.double(), target)), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_under_autocast(name: str) -> None:
    key, config, prediction, target, expected = CASES[name]
    with torch.autocast("cpu", torch.bfloat16):
        found = made(key, **config)(batch(prediction.bfloat16(), target))
    assert float(found) == pytest.approx(float(expected(prediction.bfloat16().double(), target)), rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_on_a_gpu(name: str) -> None:
    key, config, prediction, target, expected = ALL[name]
    one = made(key, **config)
    for device in ("cuda", "cpu"):
        found = one(batch(prediction.to(device), target.to(device)))
        assert float(found) == pytest.approx(float(expected(prediction, target)), abs=1e-6)


# --- torch.nn -----------------------------------------------------------------------------------------------


def test_every_loss_of_torch_is_there() -> None:
    found = torch_losses()
    assert set(found) == {name for name in dir(nn) if name.endswith("Loss")}
    assert found["MSELoss"] is loss_functions.mse
    assert found["TripletMarginLoss"] is nn.TripletMarginLoss


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "config", "words", "path"),
    [
        ("MSE", {"reduction": "sum"}, "leave `reduction` out", ("reduction",)),
        ("MSE", {"params": {"reduction": "none"}}, "leave `reduction` out", ("params", "reduction")),
        ("SmoothL1Loss", {"reduction": "sum"}, "leave `reduction` out", ("reduction",)),
        ("CrossEntropyLoss", {"reduction": "sum"}, "leave `reduction` out", ("reduction",)),
        ("CrossEntropyLoss", {"label_smoothing": 1.5}, "must lie between 0 and 1, got 1.5", ("label_smoothing",)),
        ("CrossEntropyLoss", {"weight": [1.0, -1.0]}, "must not be negative or infinite, got -1.0", ("weight", 1)),
        ("CrossEntropyLoss", {"weight": "balanced"}, "expected array | null, got str", ("weight",)),
        ("CrossEntropyLoss", {"label_smothing": 0.5}, "did you mean 'label_smoothing'", ("label_smothing",)),
        ("Huber", {"delta": 0}, "must be greater than 0, got 0", ("delta",)),
        ("LPLoss", {"root": 0}, "must be greater than 0, got 0", ("root",)),
        ("LPLoss", {"exponent": -1}, "must be greater than 0, got -1", ("exponent",)),
        ("LPLoss", {"class_selection_fun_params": {"selected_class": 1}}, "the key 'target_subscription_key' is missing", ("class_selection_fun_params",)),
        ("MSEE", {}, "unknown loss 'MSEE'; did you mean 'MSE'", ("key",)),
        ("SmoothL1Loss", {"average_batch_loss": False}, "unknown key 'average_batch_loss'", ("average_batch_loss",)),
        ("TripletMarginLoss", {}, "takes anchor, positive, negative, not a prediction and a target", ("key",)),
        ("AdaptiveLogSoftmaxWithLoss", {"in_features": 4, "n_classes": 4, "cutoffs": [2]}, "has parameters to train", ("key",)),
        ("MSE", {"terms": []}, "give either `key`, for one loss, or `terms`", ("terms",)),
    ],
)  # fmt: skip
def test_mistakes_in_a_configuration(key: str, config: dict[str, Any], words: str, path: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        made(key, **config)
    assert words in caught.value.message
    assert caught.value.path == path


TERM: dict[str, Any] = {"key": "MSE", "tag": "mse", **KEYS}


@pytest.mark.parametrize(
    ("entry", "words", "path"),
    [
        ({"terms": [TERM]}, "the key 'tag' is missing", ("at",)),
        ({"tag": "x", "terms": []}, "expected a list of losses, got []", ("at", "terms")),
        ({"tag": "x", "terms": TERM}, "expected a list of losses, got {", ("at", "terms")),
        ({"tag": "x", "term": 1, "terms": [TERM]}, "unknown key 'term'; did you mean 'terms'", ("at", "term")),
        ({"tag": "x", "terms": [TERM, TERM]}, "the tag 'mse' is given twice", ("at", "terms", 0)),
        ({"tag": "mse", "terms": [TERM]}, "the tag 'mse' is given twice", ("at", "terms", 0)),
        ({"tag": "x", "terms": [TERM, 3]}, "expected a mapping with the key 'key'", ("at", "terms", 1)),
        ({"tag": "x", "terms": [{"tag": "y", "terms": [TERM]}]}, "expected a mapping with the key 'key'", ("at", "terms", 0)),
        ({"tag": "x", "terms": [{**TERM, "weight": [1.0]}]}, "class weights belong under `params`", ("at", "terms", 0, "weight")),
        ({"tag": "x", "terms": [{**TERM, "weight": float("nan")}]}, "the weight of a term is a number, got nan", ("at", "terms", 0, "weight")),
        ({"tag": "x", "terms": [{**TERM, "key": "MES"}]}, "unknown loss 'MES'", ("at", "terms", 0, "key")),
    ],
)  # fmt: skip
def test_mistakes_in_a_sum(entry: dict[str, Any], words: str, path: tuple[str | int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        loss(TABLE, entry, ("at",))
    assert words in caught.value.message
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("key", "config", "prediction", "target", "words"),
    [
        ("MSE", {}, LOGITS, VALUES[:, 0], "shape [40, 4] and targets [40]; expected equal shapes"),
        ("L1", {}, LOGITS[:, 0], VALUES, "shape [40] and targets [40, 4]; expected equal shapes"),
        ("Huber", {}, LOGITS, VALUES[:, :2], "shape [40, 4] and targets [40, 2]"),
        ("SmoothL1Loss", {}, LOGITS, VALUES[:, 0], "shape [40, 4] and targets [40]"),
        ("LPLoss", {}, LOGITS[:, :1], VALUES[:, 0], "shape [40, 1] and targets [40]; expected equal shapes"),
        ("LPLoss", SELECTION, LOGITS, VALUES, "a class for each of 40 samples under 'class', got the shape [40, 4]"),
        ("BCELoss", {}, LOGITS.sigmoid(), BITS[:, 0], "shape [40, 4] and targets [40]"),
        ("BCELoss", {}, LOGITS, BITS, "must lie between 0 and 1; logits go into BCEWithLogitsLoss"),
        ("BCEWithLogitsLoss", {}, LOGITS, BITS[:, 0], "shape [40, 4] and targets [40]"),
        ("BCEWithLogitsLoss", {"flatten_predictions": True}, LOGITS, BITS[:, 0], "shape [160] and targets [40]"),
        ("BCEWithLogitsLoss", {"pos_weight": [1.0, 2.0]}, LOGITS, BITS, "`pos_weight` has 2 entries, but predictions of the shape [40, 4] need 4"),
        ("BCEWithLogitsLoss", {"weight": [1.0] * N}, LOGITS[:, 0], BITS[:, 0], "`weight` has 40 entries, but predictions of the shape [40] need 1"),
        ("CrossEntropyLoss", {"weight": [1.0]}, LOGITS, LABELS, "`weight` has 1 entries, but predictions of the shape [40, 4] need 4"),
        ("CrossEntropyLoss", {}, LOGITS, BITS[:, :3], "shape [40, 4] and targets [40, 3]; expected [n, classes] against"),
        ("CrossEntropyLoss", {}, LOGITS, LABELS[:3], "shape [40, 4] and targets [3]"),
        ("CrossEntropyLoss", {}, LOGITS[:, 0], LABELS, "shape [40] and targets [40]"),
        ("CrossEntropyLoss", {}, LOGITS, LABELS.double(), "class indices must be integers, but the targets are torch.float64"),
        ("CrossEntropyLoss", {}, LOGITS, LABELS * 0 + 7, "target 7 is out of bounds. Predictions have 4 classes"),
        ("CrossEntropyLoss", {"weight": CLASS_WEIGHTS}, LOGITS, LABELS * 0 + 7, "target 7 is out of bounds. Predictions have 4"),
        ("CrossEntropyLoss", {"ignore_index": 0}, LOGITS, SOFT, "ignore_index can only be used with class indices"),
    ],
)  # fmt: skip
def test_mistakes_in_data(
    key: str, config: dict[str, Any], prediction: torch.Tensor, target: torch.Tensor, words: str
) -> None:
    one = made(key, **config)
    total = loss(TABLE, {"tag": "total", "terms": [{"key": key, "tag": "x", **KEYS, "params": config}]}, ())
    data = batch(prediction, target, target)
    for call, path in (
        (one, ()),
        (one.mean_and_weight, ()),
        (total, ("terms", 0)),
        (LossMean(total).add, ("terms", 0)),
    ):
        with pytest.raises(ConfigError) as caught:
            call(data)
        assert words in caught.value.message
        assert caught.value.path == path


def test_keys_that_nobody_publishes_are_named() -> None:
    with pytest.raises(ConfigError, match="nothing is published under the key 'class'; there is: t"):
        made("LPLoss", **SELECTION)(batch(LOGITS, VALUES))

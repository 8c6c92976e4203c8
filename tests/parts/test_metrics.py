"""Metrics equal scikit-learn's, or their formula, batch by batch and at once, however the labels appear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlgym.errors import ConfigError
from mlgym.parts import class_metrics, metrics
from mlgym.parts.metrics import Accumulator, Metric, named_scores
from mlgym.parts.table import Table

Numbers = NDArray[Any]

TABLE = Table("metric")
TABLE.add("ACCURACY", metrics.accuracy)
TABLE.add("BALANCED_ACCURACY", metrics.balanced_accuracy)
TABLE.add("F1_SCORE", metrics.f1_score)
TABLE.add("PRECISION", metrics.precision)
TABLE.add("RECALL", metrics.recall)
TABLE.add("AUROC", class_metrics.auroc)
TABLE.add("AUPR", class_metrics.aupr)
TABLE.add("RECALL_AT_K", class_metrics.recall_at_k)
TABLE.add("AREA_UNDER_RECALL_AT_K", class_metrics.area_under_recall_at_k)
TABLE.add("BRIER_SCORE", class_metrics.brier_score)
TABLE.add("EXPECTED_CALIBRATION_ERROR", class_metrics.expected_calibration_error)
TABLE.add("BINARY_CLASSWISE_EXPECTED_CALIBRATION_ERROR", class_metrics.binary_classwise_expected_calibration_error)
TABLE.add("MAE", metrics.mean_absolute_error)
TABLE.add("MSE", metrics.mean_squared_error)
TABLE.add("RMSE", metrics.root_mean_squared_error)
TABLE.add("R2", metrics.r2_score)

SKLEARN = {
    "F1_SCORE": sklearn.metrics.f1_score,
    "PRECISION": sklearn.metrics.precision_score,
    "RECALL": sklearn.metrics.recall_score,
}
RANKING = {"AUROC": sklearn.metrics.roc_auc_score, "AUPR": sklearn.metrics.average_precision_score}
REGRESSION = {
    "MAE": sklearn.metrics.mean_absolute_error,
    "MSE": sklearn.metrics.mean_squared_error,
    "RMSE": sklearn.metrics.root_mean_squared_error,
    "R2": sklearn.metrics.r2_score,
}

seeds = st.integers(0, 2**32 - 1)


def accumulator(key: str, **params: Any) -> Accumulator:
    found: Accumulator = TABLE.build_keyed({"key": key, "params": params}, ())
    return found


def feed(metric: Accumulator, *columns: Any, cuts: list[int] | None = None) -> Any:
    """The score after updates with the columns cut into batches."""
    parts = [np.split(np.asarray(column), cuts or []) for column in columns]
    for batch in zip(*parts, strict=True):
        if len(batch[0]):
            metric.update(*map(torch.from_numpy, batch))
    return metric.compute()


def check(key: str, expected: Any, *columns: Any, cuts: list[int], **params: Any) -> None:
    """Batch by batch, then, after a reset, at once."""
    metric = accumulator(key, **params)
    assert feed(metric, *columns, cuts=cuts) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    metric.reset()
    assert feed(metric, *columns) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def draw_cuts(rng: np.random.Generator, size: int) -> list[int]:
    return sorted(rng.integers(0, size + 1, rng.integers(0, 5)).tolist())


def draw_probabilities(rng: np.random.Generator, size: int, classes: int) -> Numbers:
    """Rows that sum to one; few distinct values, so that there are ties."""
    counts = rng.integers(0, 4, (size, classes)) + 0.25
    return np.asarray(counts / counts.sum(1, keepdims=True))


# --- labels -------------------------------------------------------------------------------------------------


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
    check(key, expected, prediction, target, cuts=cuts, average=average)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=50), st.integers(0, 50))
def test_accuracy(pairs: list[tuple[int, int]], cut: int) -> None:
    prediction, target = map(list, zip(*pairs, strict=True))
    expected = sklearn.metrics.accuracy_score(target, prediction)
    check("ACCURACY", expected, prediction, target, cuts=[min(cut, len(pairs))])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=50), st.integers(0, 50))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy(pairs: list[tuple[int, int]], cut: int) -> None:
    """Classes are met one by one, and some are only predicted."""
    prediction, target = map(list, zip(*pairs, strict=True))
    expected = sklearn.metrics.balanced_accuracy_score(target, prediction)
    check("BALANCED_ACCURACY", expected, prediction, target, cuts=[min(cut, len(pairs))])


def test_classes_grow() -> None:
    metric = accumulator("BALANCED_ACCURACY")
    metric.update(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert metric.compute() == pytest.approx(1 / 2)
    metric.update(torch.tensor([7, 9]), torch.tensor([7, 7]))
    assert metric.compute() == pytest.approx((1 + 0 + 1 / 2) / 3)


def test_labels_of_any_shape() -> None:
    """Segmentation masks, say."""
    metric = accumulator("ACCURACY")
    metric.update(torch.zeros(2, 3, 3), torch.eye(3).expand(2, 3, 3))
    assert metric.compute() == pytest.approx(2 / 3)


# --- rankings -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(seed=seeds, size=st.integers(2, 60), scale=st.sampled_from([1, 5, 1000]), key=st.sampled_from(sorted(RANKING)))
def test_ranking_of_two_classes_equals_scikit_learn(seed: int, size: int, scale: int, key: str) -> None:
    """Logits as well, however large: 500 and 1000 are not the same although their sigmoids are."""
    rng = np.random.default_rng(seed)
    target = rng.permutation([0, 1, *rng.integers(0, 2, size - 2)])
    scores = rng.integers(-scale, scale + 1, size) / rng.choice([1, 3])
    cuts = draw_cuts(rng, size)
    expected = RANKING[key](target, scores)
    check(key, expected, scores, target, cuts=cuts)
    check(key, expected, scores[:, None], target[:, None], cuts=cuts)
    check(key, expected, np.stack([np.zeros(size), scores], 1), target, cuts=cuts)
    check(key, RANKING[key](1 - target, scores), scores, target, cuts=cuts, class_label=0)


@settings(deadline=None, max_examples=40)
@given(
    seed=seeds,
    size=st.integers(6, 60),
    classes=st.integers(3, 6),
    average=st.sampled_from(["macro", "weighted", "micro"]),
    key=st.sampled_from(sorted(RANKING)),
)
def test_ranking_of_classes_equals_scikit_learn(seed: int, size: int, classes: int, average: str, key: str) -> None:
    rng = np.random.default_rng(seed)
    target = rng.permutation([*range(classes), *rng.integers(0, classes, size - classes)])
    scores = draw_probabilities(rng, size, classes)
    cuts = draw_cuts(rng, size)
    params = {"multi_class": "ovr"} if key == "AUROC" else {}
    expected = RANKING[key](target, scores, average=average, **params)
    check(key, expected, scores, target, cuts=cuts, average=average)
    label = int(rng.integers(classes))
    expected = RANKING[key](target == label, scores[:, label])
    check(key, expected, scores, target, cuts=cuts, class_label=label)


def test_ranking_where_there_is_none() -> None:
    scores = [0.1, 0.2, 0.3]
    check("AUROC", math.nan, scores, [1, 1, 1], cuts=[])
    check("AUROC", math.nan, scores, [0, 0, 0], cuts=[])
    check("AUPR", math.nan, scores, [0, 0, 0], cuts=[])
    check("AUPR", 1.0, scores, [1, 1, 1], cuts=[1])
    wide = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]])
    check("AUROC", 1.0, wide, [0, 1, 0], cuts=[2])  # the mean of the two classes that there are
    check("AUROC", math.nan, wide, [0, 0, 0], cuts=[2])
    for key in RANKING:
        check(key, math.nan, [0.1, math.nan, 0.3], [0, 1, 0], cuts=[2])


def reference_recalls(
    scores: Numbers, of_class: Numbers, k_vals: list[int], descending: bool, normalize: bool
) -> list[float]:
    order = np.argsort(-scores if descending else scores, kind="stable")
    total = of_class.sum()
    recalls = [of_class[order[:k]].sum() / total for k in k_vals]
    return (
        [r / (min(k, total) / total) if k else 0.0 for r, k in zip(recalls, k_vals, strict=True)]
        if normalize
        else recalls
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=seeds,
    size=st.integers(1, 50),
    k_vals=st.lists(st.integers(0, 80), min_size=2, max_size=6, unique=True),
    descending=st.booleans(),
    normalize=st.booleans(),
)
def test_recall_at_k(seed: int, size: int, k_vals: list[int], descending: bool, normalize: bool) -> None:
    rng = np.random.default_rng(seed)
    target = rng.permutation([2, *rng.integers(0, 4, size - 1)])
    scores = draw_probabilities(rng, size, 4)
    cuts = draw_cuts(rng, size)
    params: dict[str, Any] = {"class_label": 2, "k_vals": k_vals, "sort_descending": descending, "normalize": normalize}
    column, of_class = scores[:, 2], target == 2
    recalls = reference_recalls(column, of_class, k_vals, descending, normalize)
    expected = {str(k): recall for k, recall in zip(k_vals, recalls, strict=True)}
    for prediction in (scores, column, column[:, None]):
        check("RECALL_AT_K", expected, prediction, target, cuts=cuts, **params)

    at = sorted(k_vals)
    area = np.trapezoid(reference_recalls(column, of_class, at, descending, False), at)
    best = np.trapezoid(reference_recalls(of_class.astype(float), of_class, at, True, False), at)
    for prediction in (scores, column):
        check("AREA_UNDER_RECALL_AT_K", area / best if normalize else area, prediction, target, cuts=cuts, **params)


def test_recall_at_k_by_hand() -> None:
    scores, target = [0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]
    params: dict[str, Any] = {"class_label": 1, "k_vals": [1, 2, 100]}
    check("RECALL_AT_K", {"1": 0.5, "2": 0.5, "100": 1.0}, scores, target, cuts=[3], **params)
    check("RECALL_AT_K", {"1": 1.0, "2": 0.5, "100": 1.0}, scores, target, cuts=[3], normalize=True, **params)
    check("RECALL_AT_K", {"1": 0.0, "2": 0.5, "100": 1.0}, scores, target, cuts=[3], sort_descending=False, **params)
    check("RECALL_AT_K", {"0": 0.0}, scores, target, cuts=[3], class_label=1, k_vals=[0])
    check("AREA_UNDER_RECALL_AT_K", 0.5 * 1 + 0.75 * 98, scores, target, cuts=[1], **params)
    check("AREA_UNDER_RECALL_AT_K", 1.0, scores, [1, 1, 0, 0], cuts=[1], normalize=True, **params)
    for key in ("RECALL_AT_K", "AREA_UNDER_RECALL_AT_K"):  # no sample of the class; a diverged model
        for values, labels in ((scores, [0, 0, 0, 0]), ([0.1, math.nan, 0.3, 0.4], target)):
            found = named_scores("t", feed(accumulator(key, **params), values, labels, cuts=[2]))
            assert all(map(math.isnan, found.values()))


def test_recall_at_k_keeps_the_best_only() -> None:
    metric = class_metrics.recall_at_k(class_label=1, k_vals=[2, 5])
    for _ in range(3):
        metric.update(torch.rand(100), torch.ones(100))
    assert metric._scores is not None
    assert len(metric._scores) == 5


# --- probabilities ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(seed=seeds, size=st.integers(1, 50), classes=st.integers(3, 6))
def test_brier_score(seed: int, size: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, size)
    probabilities = draw_probabilities(rng, size, classes)
    cuts = draw_cuts(rng, size)
    expected = sklearn.metrics.brier_score_loss(target, probabilities, labels=range(classes), scale_by_half=False)
    check("BRIER_SCORE", expected, probabilities, target, cuts=cuts)
    for label in (1, classes - 1):
        expected = np.mean((probabilities[:, label] - (target == label)) ** 2)
        check("BRIER_SCORE", expected, probabilities, target, cuts=cuts, class_label=label)
        check("BRIER_SCORE", expected, probabilities[:, label], target, cuts=cuts, class_label=label)
    binary = (target == 0).astype(int)
    expected = sklearn.metrics.brier_score_loss(binary, probabilities[:, 0], labels=[0, 1], pos_label=1)
    check("BRIER_SCORE", expected, probabilities[:, :1], binary, cuts=cuts)
    check("BRIER_SCORE", math.nan, [0.5, math.nan], [0, 1], cuts=cuts[:0])


def reference_gaps(probability: Numbers, of_class: Numbers, num_bins: int) -> tuple[list[float], list[float]]:
    """|accuracy - confidence| and the fraction of samples, bin by bin."""
    bins = np.digitize(probability, np.arange(1, num_bins) / num_bins)
    inside = [bins == i for i in range(num_bins)]
    gaps = [abs(of_class[b].mean() - probability[b].mean()) if b.any() else 0.0 for b in inside]
    return gaps, [b.mean() for b in inside]


@settings(deadline=None, max_examples=60)
@given(seed=seeds, size=st.integers(1, 60), classes=st.integers(2, 5), num_bins=st.integers(1, 12))
def test_calibration_errors(seed: int, size: int, classes: int, num_bins: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, size)
    probabilities = draw_probabilities(rng, size, classes)
    cuts = draw_cuts(rng, size)
    label = int(rng.integers(classes))
    top = probabilities.argmax(1)
    key = "EXPECTED_CALIBRATION_ERROR"
    cases: list[tuple[Numbers, int | None, Numbers, Numbers]] = [
        (probabilities, None, probabilities.max(1), top == target),
        (probabilities, label, probabilities[:, label], target == label),
        (probabilities[:, label], label, probabilities[:, label], target == label),
    ]
    by_class = []
    for prediction, class_label, probability, of_class in cases:
        gaps, weights = reference_gaps(probability, of_class, num_bins)
        params = {"num_bins": num_bins, "class_label": class_label}
        check(key, np.dot(gaps, weights), prediction, target, cuts=cuts, **params)
        expected = {str(i): gap for i, gap in enumerate(gaps)}
        check(key, expected, prediction, target, cuts=cuts, sum_up_bins=False, **params)
    for c in (1, label):
        by_class.append(np.dot(*reference_gaps(probabilities[:, c], target == c, num_bins)))
    key = "BINARY_CLASSWISE_EXPECTED_CALIBRATION_ERROR"
    params2: dict[str, Any] = {"num_bins": num_bins, "class_labels": [1, label]}
    check(key, np.mean(by_class), probabilities[:, 1], probabilities[:, label], target, cuts=cuts, **params2)
    check(key, np.mean(by_class), probabilities, probabilities, target, cuts=cuts, **params2)


def test_calibration_error_equals_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error  # after ours: see torchvision_ops

    torch.manual_seed(0)
    probabilities, target = torch.randn(200, 4).double().softmax(1), torch.randint(4, (200,))
    metric = class_metrics.expected_calibration_error(num_bins=15)
    metric.update(probabilities, target)
    expected = float(multiclass_calibration_error(probabilities, target, num_classes=4, n_bins=15))
    assert metric.compute() == pytest.approx(expected, abs=1e-6)


def test_calibration_at_the_edges() -> None:
    """A bin has its lower edge, the last one both; of one column, class 1 is meant; NaN stays visible."""
    key = "EXPECTED_CALIBRATION_ERROR"
    expected = {"0": 0.0, "1": abs(0.5 - 0.75)}
    check(key, expected, [0.5, 1.0], [0, 1], cuts=[1], num_bins=2, sum_up_bins=False)
    check(key, 0.25, [0.5, 1.0], [0, 1], cuts=[1], num_bins=2)
    check(key, math.nan, [0.5, math.nan], [0, 1], cuts=[1], num_bins=2)
    assert math.isnan(named_scores("t", accumulator(key, sum_up_bins=False).compute())["t@9"])


# --- numbers ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    seed=seeds,
    size=st.integers(2, 50),
    scale=st.sampled_from([1e-4, 1.0, 100.0]),
    shift=st.sampled_from([0.0, 1e4]),
    key=st.sampled_from(sorted(REGRESSION)),
)
def test_regression_equals_scikit_learn(seed: int, size: int, scale: float, shift: float, key: str) -> None:
    rng = np.random.default_rng(seed)
    target = rng.normal(shift, scale, size)
    prediction = target + rng.normal(0, scale, size)
    expected = pytest.approx(REGRESSION[key](target, prediction), abs=1e-6, rel=1e-6)
    for column in (prediction, prediction[:, None]):
        metric = accumulator(key)
        assert feed(metric, column, target, cuts=draw_cuts(rng, size)) == expected
        metric.reset()
        assert feed(metric, column, target[:, None]) == expected


def test_r2_of_equal_targets() -> None:
    check("R2", 1.0, [0.1, 0.1, 0.1], [0.1, 0.1, 0.1], cuts=[1])
    check("R2", 0.0, [0.1, 0.1, 0.2], [0.1, 0.1, 0.1], cuts=[1])
    check("R2", math.nan, [0.1], [0.2], cuts=[])
    check("R2", math.nan, [0.1, math.nan], [0.2, 0.1], cuts=[])


def test_regression_of_single_precision_and_integers() -> None:
    metric = accumulator("MSE")
    metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1, 4]))
    assert metric.compute() == pytest.approx(2.0)


# --- configuration and mistakes -----------------------------------------------------------------------------

ENTRY = {"target_subscription_key": "t"}


def build(key: str, prediction: Any, **params: Any) -> Metric:
    entry = {**ENTRY, "key": key, "params": params, "prediction_subscription_key": prediction}
    return metrics.metric(TABLE, entry, ("metrics_config", 0))


def test_tags_are_known_before_an_evaluation() -> None:
    assert build("MAE", "p").tags == ["MAE"]
    assert build("RECALL_AT_K", "p", class_label=1, k_vals=[10, 5]).tags == ["RECALL_AT_K@10", "RECALL_AT_K@5"]
    assert build("AREA_UNDER_RECALL_AT_K", "p", class_label=1, k_vals=[5, 10]).tags == ["AREA_UNDER_RECALL_AT_K"]
    wanted = build("EXPECTED_CALIBRATION_ERROR", "p", num_bins=2, sum_up_bins=False)
    assert wanted.tags == ["EXPECTED_CALIBRATION_ERROR@0", "EXPECTED_CALIBRATION_ERROR@1"]
    empty = wanted.create()
    empty.update(torch.tensor([0.5]), torch.tensor([1]))
    assert named_scores(wanted.tag, empty.compute()) == {wanted.tags[0]: 0.0, wanted.tags[1]: 0.5}
    assert named_scores("MAE", 0.5) == {"MAE": 0.5}


def test_prediction_keys() -> None:
    one = build("MAE", "p")
    assert (one.prediction_key, one.prediction_keys, one.target_key) == ("p", ("p",), "t")
    key = "BINARY_CLASSWISE_EXPECTED_CALIBRATION_ERROR"
    two = build(key, ["a", "b"], class_labels=[0, 1])
    assert two.prediction_keys == ("a", "b")
    entry = {**ENTRY, "key": key, "class_labels": [0, 1], "tag": "ece"}
    numbered = {"prediction_subscription_key_0": "a", "prediction_subscription_key_1": "b"}
    assert metrics.metric(TABLE, {**entry, **numbered}, ()).prediction_keys == ("a", "b")
    with pytest.raises(ConfigError, match="is given twice"):
        metrics.metric(TABLE, {**entry, **numbered, "prediction_subscription_key": "a"}, ())
    with pytest.raises(ConfigError, match="'prediction_subscription_key' is missing"):
        metrics.metric(TABLE, entry, ())
    with pytest.raises(ConfigError, match=r"CALIBRATION_ERROR takes 2 predictions, got \['a'\]") as caught:
        build(key, "a", class_labels=[0, 1])
    assert caught.value.path == ("metrics_config", 0, "prediction_subscription_key")
    with pytest.raises(ConfigError, match="MAE takes 1 predictions"):
        build("MAE", ["a", "b"])
    with pytest.raises(ConfigError, match="expected a string, got 3") as caught:
        build("MAE", ["a", 3])
    assert caught.value.path == ("metrics_config", 0, "prediction_subscription_key", 1)
    with pytest.raises(ConfigError, match="at least one key"):
        build("MAE", [])


def test_a_metric_of_a_user_needs_no_more_than_three_methods() -> None:
    class Largest:
        def __init__(self) -> None:
            self.reset()

        def reset(self) -> None:
            self._found = -math.inf

        def update(self, first: torch.Tensor, second: torch.Tensor, target: torch.Tensor) -> None:
            self._found = max(self._found, float((first + second - target).max()))

        def compute(self) -> float:
            return self._found

    table = Table("metric")
    table.add("LARGEST", Largest)
    found = metrics.metric(table, {**ENTRY, "key": "LARGEST", "prediction_subscription_key": ["a", "b"]}, ())
    assert found.tags == ["LARGEST"]
    created = found.create()
    created.update(torch.ones(2), torch.ones(2), torch.zeros(2))
    assert created.compute() == 2.0


@pytest.mark.parametrize(
    ("key", "params", "words", "path"),
    [
        ("F1_SCORE", {"average": "makro"}, "unknown value 'makro'; did you mean 'macro'", ("average",)),
        ("AUROC", {"average": "binary"}, "unknown value 'binary'", ("average",)),
        ("AUPR", {"class_label": -1}, "expected a label, which is 0 or more, got -1", ("class_label",)),
        ("BRIER_SCORE", {"class_label": -1}, "expected a label", ("class_label",)),
        ("RECALL_AT_K", {"class_label": 1, "k_vals": []}, "at least one k, got none", ("k_vals",)),
        ("RECALL_AT_K", {"class_label": 1}, "the key 'k_vals' is missing", ()),
        ("RECALL_AT_K", {"class_label": 1, "k_vals": [3, -1]}, r"0 or more, got \[3, -1\]", ("k_vals", 1)),
        ("RECALL_AT_K", {"class_label": 1, "k_vals": [3, 3]}, "expected different numbers", ("k_vals", 1)),
        ("RECALL_AT_K", {"class_label": -1, "k_vals": [3]}, "expected a label", ("class_label",)),
        ("AREA_UNDER_RECALL_AT_K", {"class_label": 1, "k_vals": []}, "at least one k, got none", ("k_vals",)),
        ("AREA_UNDER_RECALL_AT_K", {"class_label": 1, "k_vals": [3]}, "needs two k or more", ("k_vals",)),
        ("EXPECTED_CALIBRATION_ERROR", {"num_bins": 0}, "1 or more, got 0", ("num_bins",)),
        ("EXPECTED_CALIBRATION_ERROR", {"class_label": -2}, "expected a label", ("class_label",)),
        ("MAE", {"squared": True}, "unknown key 'squared'", ("squared",)),
    ],
)  # fmt: skip
def test_wrong_parameters(key: str, params: dict[str, Any], words: str, path: tuple[str | int, ...]) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build(key, "p", **params)
    assert caught.value.path == ("metrics_config", 0, "params", *path)


def test_wrong_class_labels() -> None:
    key = "BINARY_CLASSWISE_EXPECTED_CALIBRATION_ERROR"
    with pytest.raises(ConfigError, match=r"the labels of two classes, got \[1\]") as caught:
        build(key, ["a", "b"], class_labels=[1])
    assert caught.value.path == ("metrics_config", 0, "params", "class_labels")
    with pytest.raises(ConfigError, match="expected a label") as caught:
        build(key, ["a", "b"], class_labels=[1, -1])
    assert caught.value.path == ("metrics_config", 0, "params", "class_labels", 1)


SCORED: dict[str, dict[str, Any]] = {
    "AUROC": {},
    "AUPR": {},
    "RECALL_AT_K": {"k_vals": [1]},
    "AREA_UNDER_RECALL_AT_K": {"k_vals": [1, 2]},
    "BRIER_SCORE": {},
    "EXPECTED_CALIBRATION_ERROR": {},
}


@pytest.mark.parametrize("key", SCORED)
def test_scores_that_do_not_fit_their_targets(key: str) -> None:
    metric = accumulator(key, **{"class_label": 1, **SCORED[key]})
    for prediction, target in [
        (torch.zeros(4), torch.zeros(3)),
        (torch.zeros(4, 2, 2), torch.zeros(4)),
        (torch.zeros(4, 2), torch.zeros(4, 2)),
        (torch.tensor(0.5), torch.tensor(1)),
    ]:
        with pytest.raises(ConfigError, match=r"predictions \[n\] or \[n, classes\] with targets \[n\], but"):
            metric.update(prediction, target)
    with pytest.raises(ConfigError, match=r"the label 3, but predictions have the shape \[4, 3\]"):
        metric.update(torch.zeros(4, 3), torch.tensor([0, 1, 3, 2]))
    with pytest.raises(ConfigError, match="the label -1"):
        metric.update(torch.zeros(2), torch.tensor([0, -1]))
    with pytest.raises(ConfigError, match=r"class_label is 3, but predictions have the shape \[4, 3\]"):
        accumulator(key, **{"class_label": 3, **SCORED[key]}).update(torch.zeros(4, 3), torch.zeros(4))


@pytest.mark.parametrize("key", ["AUROC", "AUPR", "BRIER_SCORE", "EXPECTED_CALIBRATION_ERROR"])
def test_one_score_needs_two_labels(key: str) -> None:
    with pytest.raises(ConfigError, match="needs the labels 0 and 1, but there is 2; is 'class_label' missing"):
        accumulator(key).update(torch.zeros(3), torch.tensor([0, 1, 2]))
    with pytest.raises(ConfigError, match="needs the labels 0 and 1, but there is 2"):
        accumulator(key).update(torch.zeros(3, 1), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("key", ["BRIER_SCORE", "EXPECTED_CALIBRATION_ERROR"])
def test_probabilities_are_asked_for(key: str) -> None:
    with pytest.raises(ConfigError, match=r"needs probabilities, but predictions go from -3 to 2.5; is a post-proc"):
        accumulator(key, class_label=1).update(torch.tensor([-3.0, 2.5]), torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="needs probabilities"):
        accumulator(key).update(torch.tensor([[4.0, 2.5]]), torch.tensor([0]))


def test_what_cannot_be_scored() -> None:
    for key in ("ACCURACY", "BALANCED_ACCURACY"):
        with pytest.raises(ConfigError, match="is a post-processor"):
            accumulator(key).update(torch.zeros(4, 10), torch.zeros(4))
    with pytest.raises(ConfigError, match="average 'binary' needs the labels 0 and 1, but there is 2"):
        accumulator("F1_SCORE").update(torch.tensor([2]), torch.tensor([0]))
    metric = accumulator("AUROC")
    metric.update(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="predictions have 3 scores for a sample, and later 4"):
        metric.update(torch.zeros(2, 4), torch.tensor([0, 1]))
    for key in REGRESSION:
        with pytest.raises(ConfigError, match=r"as many predictions as targets, but .* \[4, 2\] and targets \[4\]"):
            accumulator(key).update(torch.zeros(4, 2), torch.zeros(4))


NEEDED: dict[str, Any] = {
    "RECALL_AT_K": {"class_label": 1, "k_vals": [1]},
    "AREA_UNDER_RECALL_AT_K": {"class_label": 1, "k_vals": [1, 2]},
    "BINARY_CLASSWISE_EXPECTED_CALIBRATION_ERROR": {"class_labels": [0, 1]},
}


@pytest.mark.parametrize("key", list(TABLE))
def test_nothing_scores_nan(key: str) -> None:
    """Neither does a batch without samples."""
    metric = accumulator(key, **NEEDED.get(key, {}))
    for _ in range(2):
        assert all(math.isnan(value) for value in named_scores(key, metric.compute()).values())
        metric.reset()
    predictions = [torch.empty(0)] * getattr(metric, "num_predictions", 1)
    metric.update(*predictions, torch.empty(0))
    assert all(math.isnan(value) for value in named_scores(key, metric.compute()).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("key", ["AUROC", "AUPR", "BRIER_SCORE", "EXPECTED_CALIBRATION_ERROR", "R2", "RMSE", *NEEDED])
def test_sums_are_kept_in_double_precision(key: str, dtype: torch.dtype) -> None:
    """The score of rounded predictions is that of the same numbers in double precision."""
    torch.manual_seed(0)
    scores, target = torch.rand(300).to(dtype), torch.randint(2, (300,))
    found = []
    for prediction in (scores, scores.double()):
        metric = accumulator(key, **NEEDED.get(key, {}))
        predictions = [prediction] * getattr(metric, "num_predictions", 1)
        metric.update(*predictions, target)
        found.append(named_scores(key, metric.compute()))
    assert found[0] == pytest.approx(found[1], abs=1e-12)

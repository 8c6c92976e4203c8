"""Models, losses, optimizers, policies, trainer and evaluator."""

from __future__ import annotations

from typing import Any

import pytest
import sklearn.metrics
import torch
from torch import nn

from mlgym.build.catalog import built_in
from mlgym.errors import ConfigError
from mlgym.parts.backend import Backend
from mlgym.parts.batch import Batch
from mlgym.parts.data import Collator, Loader
from mlgym.parts.datasets import Columns
from mlgym.parts.evaluator import EvalComponent, Evaluation, Evaluator, Step, eval_component
from mlgym.parts.losses import loss
from mlgym.parts.models import NNModel, model, publisher
from mlgym.parts.optimizers import lr_scheduler, optimizer
from mlgym.parts.policies import (
    Decision,
    LastEpochsImprovement,
    NeverStop,
    Patience,
    SaveAll,
    SaveBestK,
    SaveEveryNEpochs,
    SaveLastEpochOnly,
    SaveNone,
)
from mlgym.parts.seeds import derive
from mlgym.parts.trainer import Trainer, train_component

TABLES = built_in().tables
CPU = Backend(torch.device("cpu"))
KEYS = {"prediction_subscription_key": "p", "target_subscription_key": "target_key"}


# --- models -------------------------------------------------------------------------------------------------


class Net(NNModel):
    def __init__(self, width: int, prediction_publication_keys: Any = None, seed: int | None = None) -> None:
        super().__init__(prediction_publication_keys, seed)
        self.layer = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def test_models_are_drawn_under_their_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        built = model(nn.Linear, model_definition={"in_features": 3, "out_features": 2}, seed=seed)
        assert isinstance(built, nn.Linear)
        return built.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_model_is_given_what_it_names() -> None:
    built = model(
        Net, model_definition={"width": 3}, prediction_publication_keys={"prediction_publication_key": "p"}, seed=4
    )
    assert list(publisher(built)(torch.ones(1))) == ["p"]
    with pytest.raises(ConfigError, match="unknown key 'widht'; did you mean 'width'") as caught:
        model(Net, model_definition={"widht": 3}, seed=0)
    assert caught.value.path == ("model_definition", "widht")
    with pytest.raises(ConfigError, match="expected a torch module, got dict"):
        model(dict, seed=0)  # type: ignore[arg-type]


def test_publishing() -> None:
    layer = nn.Linear(1, 1)
    assert publisher(layer)({"a": torch.ones(1)}) == {"a": torch.ones(1)}
    with pytest.raises(ConfigError, match="exactly one of prediction_publication_keys; there are 0"):
        publisher(layer)(torch.ones(1))


# --- losses, optimizers, schedulers -------------------------------------------------------------------------


def test_losses() -> None:
    entry = {"key": "CrossEntropyLoss", "tag": "ce", **KEYS, "label_smoothing": 0.1}
    built = loss(TABLES["loss_function_registry"], entry, ())
    batch = Batch(None, {"target_key": torch.tensor([0, 1])}, predictions={"p": torch.randn(2, 3)})
    expected = nn.CrossEntropyLoss(label_smoothing=0.1)(batch.predictions["p"], batch.targets["target_key"])
    assert torch.equal(built(batch), expected)
    with pytest.raises(ConfigError, match="nothing is published under the key 'p'; there is: q"):
        built(Batch(None, batch.targets, predictions={"q": torch.ones(1)}))
    for change, words in (
        ({"key": "CrossEntropy"}, "unknown loss 'CrossEntropy'; did you mean 'CrossEntropyLoss'"),
        ({"label_smothing": 0.1}, "unknown key 'label_smothing'; did you mean 'label_smoothing'"),
        ({"prediction_subscription_key": None}, "the key 'prediction_subscription_key' is missing"),
        ({"tag": 3}, "expected a string, got 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            loss(TABLES["loss_function_registry"], {**entry, **change}, ())


@pytest.mark.parametrize("key", ["Adam", "ADAM", "AdamW", "SGD", "sgd", "RMSprop"])
def test_optimizers_by_any_case(key: str) -> None:
    made = optimizer(TABLES["optimizer_registry"], optimizer_key=key, params={"lr": 0.5})(nn.Linear(1, 1))
    assert type(made).__name__.lower() == key.lower()
    assert made.defaults["lr"] == 0.5


def test_optimizers_that_are_wrong() -> None:
    table = TABLES["optimizer_registry"]
    with pytest.raises(ConfigError, match="unknown optimizer 'ADAN'; did you mean"):
        optimizer(table, optimizer_key="ADAN")
    with pytest.raises(ConfigError, match="expected float, got str 'fast'"):
        optimizer(table, optimizer_key="SGD", params={"lr": "fast"})
    with pytest.raises(ConfigError, match="unknown key 'lrr'; did you mean 'lr'"):
        optimizer(table, optimizer_key="SGD", params={"lrr": 0.1})
    with pytest.raises(ConfigError, match="SGD: Invalid learning rate: -1"):
        optimizer(table, optimizer_key="SGD", params={"lr": -1.0})(nn.Linear(1, 1))


def test_schedulers() -> None:
    made = optimizer(TABLES["optimizer_registry"], optimizer_key="SGD", params={"lr": 1.0})(nn.Linear(1, 1))
    scheduler = lr_scheduler(TABLES["lr_scheduler_registry"], lr_scheduler_key="ExponentialLR", params={"gamma": 0.5})(
        made
    )
    assert scheduler
    made.step()
    scheduler.after_optimizer_step()
    assert made.param_groups[0]["lr"] == 1.0
    scheduler.after_epoch({})
    assert made.param_groups[0]["lr"] == 0.5
    assert lr_scheduler(TABLES["lr_scheduler_registry"], lr_scheduler_key="dummy")(made) is None
    with pytest.raises(ConfigError, match="the key 'gamma' is missing"):
        lr_scheduler(TABLES["lr_scheduler_registry"], lr_scheduler_key="ExponentialLR")


# --- policies -----------------------------------------------------------------------------------------------


def stops(policy: Any, scores: list[float]) -> int | None:
    for epoch, score in enumerate(scores, 1):
        if policy.should_stop(epoch, {"val/f1": score}):
            return epoch
    return None


@pytest.mark.parametrize(
    ("scores", "increase", "window", "minimum", "end"),
    [
        ([0.5, 0.6, 0.7, 0.8], True, 3, 0.01, None),
        ([0.5, 0.6, 0.6, 0.6], True, 3, 0.01, 4),
        ([0.5, 0.502, 0.504], True, 3, 0.01, 3),  # too small a step, twice
        ([0.5, 0.4, 0.41], True, 3, 0.01, None),  # one step upward is an improvement
        ([0.5, 0.5], True, 3, 0.01, None),  # the window is not full
        ([0.5, 0.4, 0.3], False, 3, 0.01, None),
        ([0.5, 0.6, 0.7], False, 3, 0.01, 3),
        ([0.0, 0.0, 0.1], True, 2, 0.01, 2),
        ([-1.0, -0.9], True, 2, 0.05, None),
        ([float("nan")] * 2, True, 2, 0.0, 2),
    ],
)
def test_last_epochs_improvement(
    scores: list[float], increase: bool, window: int, minimum: float, end: int | None
) -> None:
    policy = LastEpochsImprovement(
        min_relative_improvement=minimum,
        epochs_window=window,
        split_name="val",
        monitoring_key="f1",
        is_increase_task=increase,
    )
    assert stops(policy, scores) == end


@pytest.mark.parametrize(
    ("scores", "patience", "delta", "end"),
    [([1, 2, 2, 2], 2, 0, 4), ([1, 2, 1, 3, 1, 1], 2, 0, 6), ([1, 1.05, 1.09], 2, 0.1, 3), ([1, 2, 3], 1, 0, None)],
)
def test_patience(scores: list[float], patience: int, delta: float, end: int | None) -> None:
    policy = Patience(patience=patience, min_delta=delta, split_name="val", monitoring_key="f1", is_increase_task=True)
    assert stops(policy, scores) == end


def test_policies_that_are_wrong() -> None:
    table = TABLES["early_stopping_strategy_registry"]
    config = {"patience": 0, "split_name": "val", "monitoring_key": "f1", "is_increase_task": True}
    with pytest.raises(ConfigError, match="must be at least 1") as caught:
        table.build("PATIENCE", config, ("early_stopping_config",), ("early_stopping_key",))
    assert caught.value.path == ("early_stopping_config", "patience")
    assert stops(NeverStop(), [0.0] * 50) is None


def test_checkpointing_policies() -> None:
    last = SaveLastEpochOnly()
    assert [last.decide(epoch, {}) for epoch in (1, 2)] == [Decision(True), Decision(True, (1,))]
    assert SaveAll().decide(3, {}) == Decision(True)
    every = SaveEveryNEpochs(n=2)
    assert [every.decide(epoch, {}).delete for epoch in (1, 2, 3, 4, 5)] == [(), (1,), (), (3,), ()]
    best = SaveBestK(k=2, split_name="val", monitoring_key="f1", is_increase_task=True)
    scores = [0.5, 0.7, 0.6, 0.1, float("nan"), 0.9]
    deleted = [best.decide(epoch, {"val/f1": score}).delete for epoch, score in enumerate(scores, 1)]
    assert deleted == [(), (), (1,), (), (4,), (3, 5)]
    assert sorted(best.saved) == [2, 6]
    for policy, words in (
        (lambda: SaveEveryNEpochs(n=0), "must be at least 1"),
        (lambda: SaveBestK(k=0, split_name="v", monitoring_key="f", is_increase_task=True), "must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            policy()
    assert SaveNone().decide(3, {}) == Decision(False)


# --- trainer and evaluator ----------------------------------------------------------------------------------


def data(size: int = 50) -> Columns:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(size, 4, generator=generator)
    return Columns(samples, (samples.sum(1) > 0).long() + (samples[:, 0] > 1).long())


def net() -> nn.Module:
    return model(
        nn.Linear, model_definition={"in_features": 4, "out_features": 3}, prediction_publication_keys="p", seed=0
    )


def make_trainer(batch_size: int = 8) -> Trainer:
    component = train_component(
        TABLES["loss_function_registry"],
        TABLES["prediction_postprocessing_registry"],
        loss_fun_config={"key": "CrossEntropyLoss", "tag": "ce", **KEYS},
    )
    return Trainer(component, net(), Loader(data(), Collator(), batch_size, seed=3))


def test_training_equals_a_plain_loop() -> None:
    trainer = make_trainer()
    sgd = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    reference = net()
    reference_sgd = torch.optim.SGD(reference.parameters(), lr=0.1)
    for pass_ in range(2):
        assert list(trainer.epoch(CPU, sgd)) == list(range(1, 8))
        for batch in trainer.loader.training_batches(pass_):
            reference_sgd.zero_grad()
            nn.functional.cross_entropy(reference(batch.samples), batch.targets["target_key"]).backward()
            reference_sgd.step()
    for ours, theirs in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_epochs_of_any_length_are_one_stream() -> None:
    """Five epochs of 3 batches, and one of 15, end at the same weights and the same position."""
    ended = []
    for epochs, length in ((5, 3), (1, 15)):
        trainer = make_trainer()
        sgd = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
        for _ in range(epochs):
            assert len(list(trainer.epoch(CPU, sgd, length))) == length
        ended.append((trainer.passes, trainer.batches, [p.tolist() for p in trainer.model.parameters()]))
    assert ended[0] == ended[1]
    assert ended[0][:2] == (2, 1)


def make_evaluator(batch_size: int = 8, **changes: Any) -> EvalComponent:
    config: dict[str, Any] = {
        "post_processors_config": [
            {"key": "ARG_MAX", "prediction_subscription_key": "p", "prediction_publication_key": "c"}
        ],
        "metrics_config": [
            {
                "key": "F1_SCORE",
                "params": {"average": "macro"},
                "tag": "f1",
                "prediction_subscription_key": "c",
                "target_subscription_key": "target_key",
            }
        ],
        "loss_funs_config": [{"key": "CrossEntropyLoss", "tag": "ce", **KEYS}],
    }
    splits = {"train": Loader(data(), Collator(), batch_size, 0), "val": Loader(data(9), Collator(), batch_size, 0)}
    tables = [TABLES[f"{name}_registry"] for name in ("loss_function", "metric", "prediction_postprocessing")]
    return eval_component(net(), splits, *tables, **config | changes)


def evaluate(component: EvalComponent) -> tuple[list[Step], Evaluation]:
    steps = []
    running = Evaluator(component).evaluate(CPU)
    while True:
        try:
            steps.append(next(running))
        except StopIteration as end:
            return steps, end.value


def test_evaluation_equals_scikit_learn() -> None:
    component = make_evaluator()
    steps, found = evaluate(component)
    assert steps == [Step("train", i, 7) for i in range(1, 8)] + [Step("val", i, 2) for i in range(1, 3)]
    assert component.score_keys == ["train/f1", "train/ce", "val/f1", "val/ce"]
    assert list(found.scores()) == ["train/f1", "val/f1", "train/ce", "val/ce"]
    for split, loader in component.loaders.items():
        samples, targets = loader.dataset.take(slice(None))
        logits = component.model(samples).detach()
        assert found.losses["ce", split] == pytest.approx(float(nn.functional.cross_entropy(logits, targets)), abs=1e-6)
        expected = sklearn.metrics.f1_score(targets, logits.argmax(1), average="macro", zero_division=0)
        assert found.metrics["f1", split] == pytest.approx(expected, abs=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    together = evaluate(make_evaluator())[1]
    monkeypatch.setattr("mlgym.parts.evaluator._CHUNK", 1)
    apart = evaluate(make_evaluator(batch_size=3))[1]
    assert apart.scores() == pytest.approx(together.scores(), abs=1e-6)


def test_scores_on_some_splits_only() -> None:
    component = make_evaluator(
        metrics_computation_config=[{"metric_tag": "f1", "applicable_splits": ["val"]}],
        loss_computation_config=[{"loss_tag": "ce", "applicable_splits": ["train"]}],
    )
    assert sorted(evaluate(component)[1].scores()) == ["train/ce", "val/f1"]
    for change, words in (
        ({"metrics_computation_config": [{"metric_tag": "f2"}]}, "there is no 'f2'"),
        (
            {"metrics_computation_config": [{"metric_tag": "f1", "applicable_splits": ["vla"]}]},
            "no split 'vla'; did you",
        ),
        ({"metrics_computation_config": [{"tag": "f1"}]}, "unknown key 'tag'"),
        ({"loss_funs_config": [{"key": "CrossEntropyLoss", "tag": "f1", **KEYS}]}, "the tag 'f1' is given twice"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_evaluator(**change)


def test_missing_predictions_are_named() -> None:
    component = make_evaluator(post_processors_config=[])
    with pytest.raises(ConfigError, match="nothing is published under the key 'c'; there is: p") as caught:
        evaluate(component)
    assert caught.value.path == ("metrics_config", 0)


def test_seeds_are_stable() -> None:
    """Two versions of mlgym must give the same numbers for one config."""
    assert derive(0, "model") == 874792090
    assert derive(0, "model") != derive("0/m", "odel")

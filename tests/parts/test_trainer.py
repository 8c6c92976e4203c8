"""Clipping, accumulation, precision, compilation: each against the plain form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mlgym.build.catalog import built_in
from mlgym.errors import ConfigError
from mlgym.parts.backend import Backend
from mlgym.parts.data import Collator, Loader
from mlgym.parts.datasets import Columns
from mlgym.parts.models import model
from mlgym.parts.trainer import Trainer, train_component

TABLES = built_in().tables


def data() -> Columns:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(50, 4, generator=generator)
    return Columns(samples, (samples.sum(1) > 0).long())


def net() -> nn.Module:
    return model(
        nn.Linear, model_definition={"in_features": 4, "out_features": 2}, prediction_publication_keys="p", seed=0
    )


def trained(
    batch_size: int = 8, num_batches: int | None = None, **options: Any
) -> tuple[Trainer, torch.optim.Optimizer]:
    component = train_component(
        TABLES["loss_function_registry"],
        TABLES["prediction_postprocessing_registry"],
        loss_fun_config={
            "key": "CrossEntropyLoss",
            "tag": "ce",
            "prediction_subscription_key": "p",
            "target_subscription_key": "target_key",
        },
        **options,
    )
    trainer = Trainer(component, net(), Loader(data(), Collator(), batch_size, seed=3, strategy="in_order"))
    sgd = torch.optim.SGD(trainer.model.parameters(), lr=0.5)
    backend = Backend(torch.device("cpu"))
    stepped = []
    for _ in trainer.epoch(backend, sgd, num_batches):
        stepped.append(trainer.stepped)
    assert stepped[-1]
    trainer.history = stepped  # type: ignore[attr-defined]
    return trainer, sgd


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_clipping() -> None:
    trainer, _ = trained(max_grad_norm=0.01)
    reference = net()
    sgd = torch.optim.SGD(reference.parameters(), lr=0.5)
    for batch in trainer.loader.training_batches(0):
        sgd.zero_grad()
        nn.functional.cross_entropy(reference(batch.samples), batch.targets["target_key"]).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.01)
        sgd.step()
    assert torch.equal(weights(trainer), torch.cat([p.detach().flatten() for p in reference.parameters()]))


def test_accumulated_batches_are_one_batch() -> None:
    """2 x 4 samples and 8 samples give the same steps; the rest of an epoch is a smaller group."""
    accumulated, _ = trained(batch_size=4, num_batches=12, accumulate_batches=2)
    whole, _ = trained(batch_size=8, num_batches=6)
    assert torch.allclose(weights(accumulated), weights(whole), atol=1e-6)
    uneven, _ = trained(batch_size=4, num_batches=5, accumulate_batches=3)
    assert uneven.history == [False, False, True, False, True]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.02), ("fp16", 0.005)])
def test_lower_precision_stays_near(precision: str, tolerance: float) -> None:
    low, full = weights(trained(precision=precision)[0]), weights(trained()[0])
    assert not torch.equal(low, full)
    assert torch.allclose(low, full, atol=tolerance)
    assert low.dtype == torch.float32


def test_compiled_training_equals_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the backend that only traces: the real one needs a C++ compiler on the machine."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: compile_(module, backend="eager", dynamic=dynamic))
    assert torch.equal(weights(trained(compile=True)[0]), weights(trained()[0]))


def test_lbfgs() -> None:
    def fresh() -> tuple[Trainer, torch.optim.LBFGS]:
        trainer, _ = trained(num_batches=1)
        return trainer, torch.optim.LBFGS(trainer.model.parameters(), lr=0.1, max_iter=4)

    ours, optimizer = fresh()
    reference, reference_optimizer = fresh()
    ours.passes = ours.batches = 0
    assert list(ours.epoch(Backend(torch.device("cpu")), optimizer)) == list(range(1, 8))
    for batch in reference.loader.training_batches(0):

        def closure(batch: Any = batch) -> float:
            reference_optimizer.zero_grad()
            loss = nn.functional.cross_entropy(reference.model(batch.samples), batch.targets["target_key"])
            loss.backward()
            return float(loss.detach())

        reference_optimizer.step(closure)
    assert torch.equal(weights(ours), weights(reference))


def test_options_that_are_wrong() -> None:
    for options, words in (
        ({"max_grad_norm": 0.0}, "must be positive"),
        ({"max_grad_norm": float("nan")}, "must be positive"),
        ({"accumulate_batches": 0}, "must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            trained(**options)

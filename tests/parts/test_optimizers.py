"""Bundles and schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as torch_schedulers

from mlgym.build.catalog import built_in
from mlgym.errors import ConfigError
from mlgym.parts.optimizers import OptimizerConfig, Schedule, bundle, lr_scheduler, optimizer

TABLES = built_in().tables


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 1)})


CONFIG = {"slow": OptimizerConfig("SGD", {"lr": 0.1}), "fast": OptimizerConfig("ADAM", {"lr": 0.5})}


def make_bundle(filters: dict[str, list[str]], config: dict[str, OptimizerConfig] | None = None) -> Any:
    make = bundle(
        TABLES["optimizer_registry"],
        optimizers_config=CONFIG if config is None else config,
        optimizer_key_to_param_key_filters=filters,
    )
    return make(net())


def take_steps(model: nn.Module, optimizer: Any, schedulers: list[Any]) -> list[torch.Tensor]:
    for i in range(5):
        optimizer.zero_grad()
        x = torch.full((2, 3), float(i))
        model["head"](model["body"](x)).square().sum().backward()  # type: ignore[index]
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return [p.detach() for p in model.parameters()]


def test_a_bundle_steps_like_its_parts() -> None:
    ours, theirs = net(), net()
    bundled = bundle(
        TABLES["optimizer_registry"],
        optimizers_config=CONFIG,
        optimizer_key_to_param_key_filters={"slow": ["body"], "fast": ["head.w", "head.b"]},
    )(ours)
    schedule = lr_scheduler(TABLES["lr_scheduler_registry"], lr_scheduler_key="ExponentialLR", params={"gamma": 0.9})(
        bundled
    )
    assert schedule
    sgd = torch.optim.SGD(theirs["body"].parameters(), lr=0.1)  # type: ignore[index]
    adam = torch.optim.Adam(theirs["head"].parameters(), lr=0.5)  # type: ignore[index]

    class Both:
        def zero_grad(self) -> None:
            sgd.zero_grad(), adam.zero_grad()

        def step(self) -> None:
            sgd.step(), adam.step()

    expected = take_steps(theirs, Both(), [torch_schedulers.ExponentialLR(o, 0.9) for o in (sgd, adam)])
    for a, b in zip(take_steps(ours, bundled, [schedule.scheduler]), expected, strict=True):
        assert torch.equal(a, b)
    again = make_bundle({"slow": ["body"], "fast": ["head"]})
    again.load_state_dict(bundled.state_dict())
    assert again.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**5)


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"slow": ["body"], "fast": ["head.weight"]}, "the parameter 'head.bias' belongs to no optimizer"),
        (
            {"slow": ["body", "head"], "fast": ["head"]},
            "the parameter 'head.weight' belongs to two optimizers: slow, fast",
        ),
        ({"slow": ["body", "head"]}, "no parameter belongs to the optimizer 'fast'"),
        ({"slow": ["body"], "fats": ["head"]}, "there is no optimizer 'fats'; did you mean 'fast'"),
    ],
)
def test_bundles_that_do_not_fit(filters: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make_bundle(filters)
    assert caught.value.path[0] == "optimizer_key_to_param_key_filters"


def test_bundles_with_bad_parts() -> None:
    with pytest.raises(ConfigError, match="unknown optimizer 'SDG'; did you mean 'SGD'") as caught:
        make_bundle({"a": ["body"]}, {"a": OptimizerConfig("SDG")})
    assert caught.value.path == ("optimizers_config", "a", "optimizer_key")
    with pytest.raises(ConfigError, match="Invalid learning rate"):
        make_bundle({"a": ["body", "head"]}, {"a": OptimizerConfig("SGD", {"lr": -1.0})})
    with pytest.raises(ConfigError, match="name at least one optimizer"):
        make_bundle({}, {})


# --- schedules ----------------------------------------------------------------------------------------------


def schedule(key: str, params: dict[str, Any] | None = None, **more: Any) -> tuple[Any, Schedule]:
    made = optimizer(TABLES["optimizer_registry"], optimizer_key="SGD", params={"lr": 1.0})(nn.Linear(1, 1))
    found = lr_scheduler(TABLES["lr_scheduler_registry"], lr_scheduler_key=key, params=params, **more)(made)
    assert found
    made.step()
    return made, found


def rate(made: Any) -> float:
    return float(made.param_groups[0]["lr"])


def test_intervals() -> None:
    made, found = schedule("ExponentialLR", {"gamma": 0.5}, interval="batch")
    found.after_epoch({})
    assert rate(made) == 1.0
    found.after_optimizer_step()
    assert rate(made) == 0.5
    assert schedule("OneCycleLR", {"max_lr": 1.0, "total_steps": 10})[1].interval == "batch"
    assert schedule("onecyclelr", {"max_lr": 1.0, "total_steps": 10}, interval="epoch")[1].interval == "epoch"


def test_plateau_is_fed_with_the_score() -> None:
    made, found = schedule("ReduceLROnPlateau", {"patience": 0, "factor": 0.1}, split_name="val", monitoring_key="ce")
    assert found.monitored == "val/ce"
    for score, expected in ((1.0, 1.0), (0.5, 1.0), (0.6, 0.1)):
        found.after_epoch({"val/ce": score})
        assert rate(made) == pytest.approx(expected)
    with pytest.raises(ConfigError, match="needs the keys 'split_name' and 'monitoring_key'"):
        schedule("ReduceLROnPlateau")
    with pytest.raises(ConfigError, match="is stepped after each epoch"):
        schedule("ReduceLROnPlateau", split_name="val", monitoring_key="ce", interval="batch")


def test_schedulers_of_schedulers() -> None:
    inner = [
        {"lr_scheduler_key": "ConstantLR", "params": {"factor": 0.1, "total_iters": 2}},
        {"lr_scheduler_key": "ExponentialLR", "params": {"gamma": 0.9}},
    ]
    for key, params in (("SequentialLR", {"milestones": [2]}), ("ChainedScheduler", {})):
        made, found = schedule(key, {"schedulers": inner, **params})
        reference = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
        parts = [torch_schedulers.ConstantLR(reference, 0.1, 2), torch_schedulers.ExponentialLR(reference, 0.9)]
        expected: Any = (
            torch_schedulers.SequentialLR(reference, parts, [2])
            if key == "SequentialLR"
            else torch_schedulers.ChainedScheduler(parts)
        )
        reference.step()
        for _ in range(5):
            assert rate(made) == rate(reference)
            found.after_epoch({})
            expected.step()
    with pytest.raises(ConfigError, match="the key 'gamma' is missing") as caught:
        schedule("ChainedScheduler", {"schedulers": [{"lr_scheduler_key": "ExponentialLR"}]})
    assert caught.value.path[:3] == ("params", "schedulers", 0)


def test_hugging_face_needs_transformers() -> None:
    params = {"name": "linear", "num_warmup_steps": 1, "num_training_steps": 4}
    try:
        import transformers  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="needs the package transformers"):
            schedule("hugging_face_scheduler", params)
    else:
        made, found = schedule("hugging_face_scheduler", params)
        assert found.interval == "batch"
        found.after_optimizer_step()
        assert rate(made) == 1.0

"""What is frozen thaws equal to the last bit: the law of the files that checkpoints are made of."""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from mlgym.engine import state_files
from mlgym.errors import DamagedError, InputError
from mlgym.parts.backend import Backend
from mlgym.parts.optimizers import OptimizerBundle


class Named(NamedTuple):
    a: int


def there_and_back(tree: Any, folder: Path) -> Any:
    path = folder / "state.safetensors"
    path.unlink(missing_ok=True)
    state_files.write(path, state_files.chunks(state_files.freeze(tree)))
    return state_files.read(path)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        raw = [torch.view_as_real(t) if t.is_complex() else t for t in (one.detach(), other)]
        return all(
            torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))
            for a, b in [raw]
        )
    if isinstance(one, np.ndarray | np.generic):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (
            math.isnan(one) and math.isnan(other)
        )
    return bool(one == other)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=8)
keys = st.text(max_size=5) | st.integers() | st.booleans() | st.tuples(st.integers(), st.text(max_size=2))
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4).map(OrderedDict)
        | st.dictionaries(st.integers(), st.integers(), max_size=4).map(Counter)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(tree=trees)
def test_any_plain_tree(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert same(there_and_back(tree, tmp_path_factory.getbasetemp()), tree)
    frozen = state_files.freeze(tree)
    assert same(state_files.thaw(frozen.tree, frozen.tensors), tree)


DTYPES = [dtype for dtype in state_files._NAMES if dtype not in (torch.float8_e4m3fn, torch.float8_e5m2)]


def test_any_tensor(tmp_path: Path) -> None:
    raw = torch.randint(0, 256, (64,), dtype=torch.uint8)
    tree: dict[Any, Any] = {str(dtype): (raw % 2 == 0 if dtype is torch.bool else raw.view(dtype)) for dtype in DTYPES}
    base = torch.arange(12.0).reshape(3, 4)
    tree |= {
        "scalar": torch.tensor(7.5),
        "empty": torch.empty(0, 3),
        "view": base[:, 1],
        "transposed": base.T,
        "expanded": torch.ones(1).expand(5),
        "parameter": nn.Parameter(base.clone()),
        "complex": torch.tensor([1 + 2j, float("nan")]),
        "twice": [base, base],
        7: {"exp_avg": torch.tensor(float("-inf"), dtype=torch.bfloat16)},
        "numpy": [np.arange(4, dtype=">i2"), np.float32(0.1), np.random.rand(2, 0), np.array(3)],
        "a.b": torch.ones(1),
        "a": {"b": torch.zeros(1)},  # the same name for a file
    }
    back = there_and_back(tree, tmp_path)
    tree["parameter"] = tree["parameter"].detach()
    assert same(back, tree)
    assert back["twice"][0].data_ptr() != base.data_ptr()


def test_the_model_is_under_its_own_names(tmp_path: Path) -> None:
    """So that anything that reads safetensors can read it."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    there_and_back(dict(model.state_dict()), tmp_path)
    found = load_file(tmp_path / "state.safetensors")
    assert set(found) == set(model.state_dict())
    model.load_state_dict(found)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "LBFGS", "bundle"])
def test_optimizers_go_on_alike(name: str, tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
        if name == "bundle":
            parts = {
                "a": torch.optim.Adam(model[0].parameters()),
                "b": torch.optim.SGD(model[1].parameters(), 0.1, 0.9),
            }
            return model, OptimizerBundle(dict(parts))
        options = {"lr": 0.1, **({"momentum": 0.9} if name == "SGD" else {})}
        return model, getattr(torch.optim, name)(model.parameters(), **options)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for i in range(count):
            x = torch.full((2, 4), float(i))

            def closure() -> Any:
                optimizer.zero_grad()
                loss = (model(x) - 1).square().sum()  # noqa: B023 (called in this turn)
                loss.backward()
                return loss

            if name != "bundle":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()

    model, optimizer = made()
    steps(model, optimizer, 3)
    saved = there_and_back([dict(model.state_dict()), optimizer.state_dict()], tmp_path)
    steps(model, optimizer, 3)
    other, other_optimizer = made()
    other.load_state_dict(saved[0])
    other_optimizer.load_state_dict(saved[1])
    steps(other, other_optimizer, 3)
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_generators_and_the_gradient_scaler(tmp_path: Path) -> None:
    states = [random.getstate(), np.random.get_state(), torch.get_rng_state()]
    back = there_and_back(states, tmp_path)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.setstate(back[0])
    np.random.set_state(back[1])
    torch.set_rng_state(back[2])
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected

    backend = Backend(torch.device("cpu"))
    assert there_and_back(backend.state_dict(), tmp_path) == {}
    backend.autocast("fp16")
    assert backend._scaler is not None
    backend._scaler.scale(torch.ones(1))
    backend._scaler.update(1024.0)
    other = Backend(torch.device("cpu"))
    other.load_state_dict(there_and_back(backend.state_dict(), tmp_path))
    assert other.state_dict() == backend.state_dict()


def test_memory_is_used_again() -> None:
    state = {"a": torch.zeros(5), "b": torch.zeros(3)}
    first = state_files.freeze(state)
    kept = first.tensors["a"].data_ptr()
    state["a"] += 1
    state["b"] = torch.ones(4)
    again = state_files.freeze(state, first)
    assert again.tensors["a"].data_ptr() == kept
    assert same(state_files.thaw(again.tree, again.tensors), state)
    state["a"] += 1  # training goes on
    assert again.tensors["a"].tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: 1, "state.x is a function, which a checkpoint cannot hold: give its owner the methods state_dict and"),
        (np.array(["a"], dtype=object), "state.x is a ndarray"),
        (defaultdict(int), "state.x is a defaultdict"),  # it would come back as another type
        (Named(1), "state.x is a Named"),
        (frozenset(), "state.x is a frozenset"),
        (torch.eye(2).to_sparse(), "state.x is a tensor of torch.float32"),
    ],
)
def test_what_cannot_be_held(value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        state_files.freeze({"state": {"x": value}})


@settings(deadline=None, max_examples=200)
@given(cut=st.integers(0, 2_000), flip=st.integers(0, 2_000))
def test_damage_never_ends_in_anything_but_an_error(
    cut: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Digests catch damage before; whoever reads without them must not crash either."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    whole = b"".join(state_files.chunks(state_files.freeze({"a": torch.arange(4.0), "b": [1, (2.5, None)], 3: "x"})))
    data = bytearray(whole[: max(1, len(whole) - cut)])
    data[flip % len(data)] ^= 0x55
    path.write_bytes(data)
    try:
        state_files.read(path)
    except DamagedError as error:
        assert "not a file of a checkpoint" in str(error)

"""A batch divided among processes: every sample once, and the loss of the whole from its parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.build.catalog import built_in
from mlgym.parts.batch import Batch, Part
from mlgym.parts.data import Collator, Loader
from mlgym.parts.datasets import Columns
from mlgym.parts.losses import Loss, loss
from tests.conftest import ROOT

TABLE = built_in().tables["loss_function_registry"]

parts = st.integers(1, 6).flatmap(lambda size: st.just([Part(rank, size) for rank in range(size)]))


@settings(deadline=None, max_examples=50)
@given(parts, st.integers(1, 40))
def test_parts_are_the_whole(found: list[Part], count: int) -> None:
    bounds = [part.bounds(count) for part in found]
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) - min(sizes) <= 1
    assert sum(part.share(count) for part in found) == pytest.approx(len(found))


class Items(torch.utils.data.Dataset[Any]):
    """Not in memory, so read item by item."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, index: int) -> Any:
        return self._columns[index]


@pytest.mark.parametrize("in_memory", [True, False])
@settings(deadline=None, max_examples=50)
@given(found=parts, count=st.integers(1, 20), batch_size=st.integers(1, 7), start=st.integers(0, 3))
def test_loaders_divide_each_batch(in_memory: bool, found: list[Part], count: int, batch_size: int, start: int) -> None:
    columns = Columns(torch.arange(count)[:, None], torch.arange(count))
    loader = Loader(columns if in_memory else Items(columns), Collator("t"), batch_size, seed=1)
    for whole, divided in (
        (loader.training_batches(3, start), [loader.training_batches(3, start, part) for part in found]),
        (loader.evaluation_batches(), [loader.evaluation_batches(part) for part in found]),
    ):
        for batch, *of_processes in zip(whole, *divided, strict=True):
            assert all(len(part) >= 1 for part in of_processes)  # a model is never called without a sample
            counted = [part for part in of_processes if part.share]
            assert torch.cat([part.samples for part in counted]).equal(batch.samples)
            assert torch.cat([part.targets["t"] for part in counted]).equal(batch.targets["t"])


def of(**entry: Any) -> dict[str, Any]:
    return {"prediction_subscription_key": "p", "target_subscription_key": "t", "tag": entry["key"], **entry}


WEIGHTED = of(key="CrossEntropyLoss", params={"weight": [0.1, 1.0, 4.0], "ignore_index": 1, "label_smoothing": 0.1})
CLASS = {"target_subscription_key": "t", "selected_class": 2}
ENTRIES: list[dict[str, Any]] = [
    of(key="CrossEntropyLoss"),
    WEIGHTED,
    of(key="CrossEntropyLoss", params={"average_batch_loss": False}),
    of(key="LPLoss", target_subscription_key="v"),
    of(key="LPLoss", target_subscription_key="v", params={"class_selection_fun_params": CLASS}),
    of(key="LPLoss", target_subscription_key="v", params={"average_batch_loss": False, "root": 2.0}),
    of(key="BCEWithLogitsLoss", target_subscription_key="v", params={"pos_weight": 3.0}),
    of(key="MSELoss", target_subscription_key="v"),
    of(key="SmoothL1Loss", target_subscription_key="v"),
    {"tag": "sum", "terms": [{**WEIGHTED, "weight": 2.0}, of(key="MSELoss", target_subscription_key="v", weight=0.5)]},
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['tag']} {entry.get('params', '')}")
@settings(deadline=None, max_examples=50)
@given(parts, st.integers(1, 9), st.integers(0, 1000))
def test_the_mean_over_parts_is_the_loss_of_the_whole(
    entry: dict[str, Any], found: list[Part], count: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    targets = {
        "t": torch.randint(0, 3, (count,), generator=generator),
        "v": torch.rand(count, 3, generator=generator, dtype=torch.float64),
    }
    if not (targets["t"] != 1).any():  # nothing counts: torch's mean is 0 / 0
        targets["t"][0] = 0
    function = loss(TABLE, entry, ())
    whole = predictions.clone().requires_grad_()
    expected = function(Batch(None, targets, None, {"p": whole}))
    expected.backward()  # type: ignore[no-untyped-call, unused-ignore]

    divided = predictions.clone().requires_grad_()
    batches = [_part(part, divided, targets, count) for part in found]
    values = [
        function.of_part(batch, len(found), lambda w, i=i: _total(function, batches, i, w))  # type: ignore[misc]
        for i, batch in enumerate(batches)
    ]
    mean = torch.stack(values).mean()
    mean.backward()  # type: ignore[no-untyped-call, unused-ignore]
    assert float(mean.detach()) == pytest.approx(float(expected.detach()), rel=1e-9, abs=1e-12)
    assert whole.grad is not None
    assert divided.grad is not None
    assert torch.allclose(divided.grad, whole.grad, rtol=1e-9, atol=1e-12)


def _part(part: Part, predictions: torch.Tensor, targets: dict[str, torch.Tensor], count: int) -> Batch:
    start, stop = part.bounds(count)
    rows = slice(start, stop) if start < stop else slice(0, 1)
    share = part.share(count)
    return Batch(None, {k: v[rows] for k, v in targets.items()}, None, {"p": predictions[rows]}, share)


def _total(function: Loss, batches: list[Batch], asking: int, number: torch.Tensor) -> torch.Tensor:
    """What the processes add up: each in turn says its number when the others ask for the same one."""
    asked: list[list[torch.Tensor]] = []
    for batch in batches:
        asked.append([])
        function.of_part(batch, len(batches), lambda w, seen=asked[-1]: seen.append(w) or torch.ones_like(w))  # type: ignore[misc]
    place = next(i for i, w in enumerate(asked[asking]) if w.equal(number))
    return torch.stack([numbers[place] for numbers in asked]).sum()


def test_the_state_of_a_divided_model(tmp_path: Path) -> None:
    """What FSDP has divided between two processes is saved as one process would save it, and comes back."""
    script = str(ROOT / "tests/parts/sharding.py")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    ended = subprocess.run(
        [sys.executable, *launcher, script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("equal") == 2

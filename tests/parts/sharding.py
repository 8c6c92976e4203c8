"""One of two processes with half a model each, run by test_processes."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mlgym.parts import sharded


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()


def new(divided: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = net()
    if divided:
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    groups: list[dict[str, Any]] = [{"params": list(model[0].parameters()), "lr": 0.1}]  # type: ignore[index]
    groups += [{"params": list(model[1].parameters()) + list(model[2].parameters()), "weight_decay": 0.1}]  # type: ignore[index]
    return model, torch.optim.AdamW(groups)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.allclose(a, b, atol=1e-6)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


distributed.init_process_group("gloo")
torch.use_deterministic_algorithms(True)
model, optimizer = new(divided=True)
train(model, optimizer, range(3))
found = sharded.state(model, optimizer)
file = Path(sys.argv[1]) / "state"
if distributed.get_rank() == 0:
    alone, of_alone = new(divided=False)
    train(alone, of_alone, range(3))
    assert equal(dict(alone.state_dict()), dict(found[0]))
    assert equal(of_alone.state_dict(), found[1]), (of_alone.state_dict(), found[1])
    torch.save(found, file)
distributed.barrier()
saved = torch.load(file)
other, of_other = new(divided=True)
sharded.load_model(other, saved[0])
sharded.load_optimizer(other, of_other, saved[1])
for pair in ((model, optimizer), (other, of_other)):
    train(*pair, range(3, 6))
for name, value in model.named_parameters():
    now = dict(other.named_parameters())[name]
    assert isinstance(value, DTensor)
    assert isinstance(now, DTensor)
    assert torch.equal(value.to_local(), now.to_local()), name
print("equal")
distributed.destroy_process_group()

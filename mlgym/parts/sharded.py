"""The whole state of what is divided among processes by FSDP, in the form that one process has; and back.

Every function is a collective: all processes call it. Imports torch only.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.optimizer import Optimizer

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def state(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's by name, and the optimizer's as its `state_dict` has it. Empty but on the main process."""
    return get_model_state_dict(model, options=_WHOLE), _optimizer_state(model, optimizer)


def load_model(model: nn.Module, state: dict[str, Any]) -> None:
    set_model_state_dict(model, state, options=_WHOLE)


def _optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Parameters by number, as one process has them."""
    named: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=_WHOLE)
    if not named:
        return {}
    numbers: dict[str, int] = {}
    groups = []
    for group in named["param_groups"]:
        params = [numbers.setdefault(name, len(numbers)) for name in group["params"]]
        groups.append({**group, "params": params})
    return {"state": {numbers[name]: entry for name, entry in named["state"].items()}, "param_groups": groups}


def load_optimizer(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Each process takes its part of what every process has read."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    named: dict[str, Any] = {
        "state": {ordered[number]: entry for number, entry in state["state"].items()},
        "param_groups": [
            {**group, "params": [ordered[number] for number in group["params"]]} for group in state["param_groups"]
        ],
    }
    set_optimizer_state_dict(model, optimizer, named, options=_WHOLE)

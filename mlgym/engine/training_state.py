"""Everything that the rest of a training depends on, as trees of plain data and tensors; and back again.

The position in the data is two numbers (pass, batch), because the order of a pass and whatever is drawn in it follow
from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer

from mlgym.engine import state_files
from mlgym.errors import ConfigError, DamagedError, MLgymError
from mlgym.parts.evaluator import Evaluation
from mlgym.parts.optimizers import OptimizerBundle
from mlgym.parts.seeds import diverge
from mlgym.specs import Checkpoint

if TYPE_CHECKING:
    from mlgym.engine.experiment import Parts

MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
SCHEDULE = "lr_scheduler.json"
COMPONENTS = "stateful_components.safetensors"


class Resumed(NamedTuple):
    """Where a training goes on: after `epoch` whole epochs and `batch` batches of the next."""

    epoch: int
    batch: int
    stopped: bool
    """Early stopping had ended it."""
    evaluation: Evaluation | None
    """The scores of `epoch`; None within an epoch."""
    processes: int
    """That have trained it so far."""


def generators(device: torch.device) -> dict[str, Any]:
    """The states of the global generators: python's, numpy's, torch's, and the device's."""
    version, words, rest = random.getstate()
    found = {
        "python": (version, np.array(words, np.uint32), rest),  # 625 numbers, which JSON takes its time for
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def set_generators(states: Mapping[str, Any], device: torch.device) -> None:
    version, words, rest = states["python"]
    random.setstate((version, tuple(words.tolist()), rest))
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def capture(
    parts: Parts,
    epoch: int,
    batch: int,
    drawn: Mapping[str, Any],
    evaluation: Evaluation | None = None,
    stopped: bool = False,
) -> dict[str, Any]:
    """A tree for each file of a checkpoint; `drawn` are the generators' states to go on with.

    Where several processes train together all call it, and the main process's tree is the one that holds everything.
    """
    own = {
        "generators": dict(drawn),
        "components": {name: component.state_dict() for name, component in parts.stateful().items()},
    }
    several = parts.backend.part.size > 1
    others = parts.backend.collected(state_files.packed(own)) if several else []
    if parts.backend.is_sharded:
        from mlgym.parts import sharded

        model, optimizer = sharded.state(parts.model, parts.optimizer)
    else:
        model, optimizer = dict(parts.model.state_dict()), parts.optimizer.state_dict()
    return {
        MODEL: model,
        OPTIMIZER: optimizer,
        SCHEDULE: parts.schedule.scheduler.state_dict() if parts.schedule else None,
        COMPONENTS: {
            "epoch": epoch,
            "batch": batch,
            "stopped": stopped,
            "evaluation": evaluation and [list(evaluation.losses.items()), list(evaluation.metrics.items())],
            "backend": parts.backend.state_dict(),
            "trainer": parts.trainer.state_dict(),
            "early_stopping": _state(parts.early_stopping),
            "checkpointing": _state(parts.checkpointing),
            **own,
            **({"others": [state_files.unpacked(state) for state in others]} if several else {}),
        },
    }


def _state(policy: Any) -> Any:
    """A policy is a few numbers, unless it says otherwise."""
    return policy.state_dict() if hasattr(policy, "state_dict") else dict(vars(policy))


def _set_state(policy: Any, state: Any) -> None:
    if hasattr(policy, "load_state_dict"):
        policy.load_state_dict(state)
    else:
        vars(policy).update(state)


def restore(parts: Parts, checkpoint: Checkpoint) -> Resumed:
    """Put `parts` into the state of a (verified) checkpoint.

    Raises `ConfigError` when the model or another part no longer fits it.
    """
    folder = Path(checkpoint.directory)
    model = state_files.read(folder / MODEL)
    _refuse_other_parameters(parts.model.state_dict(), model, folder)
    state = state_files.read(folder / COMPONENTS)
    try:
        if parts.backend.is_sharded:
            from mlgym.parts import sharded

            sharded.load_model(parts.model, model)
        else:
            parts.model.load_state_dict(model)
        if parts.schedule:  # before the optimizer's: loading it writes learning rates into the optimizer
            schedule = (folder / SCHEDULE).read_text()
            parts.schedule.scheduler.load_state_dict(state_files.thaw(schedule, {}))
        optimizer = state_files.read(folder / OPTIMIZER)
        if parts.backend.is_sharded:
            sharded.load_optimizer(parts.model, parts.optimizer, optimizer)
        else:
            _load_optimizer(parts.optimizer, optimizer)
        parts.backend.load_state_dict(state["backend"])
        parts.trainer.load_state_dict(state["trainer"])
        _set_state(parts.early_stopping, state["early_stopping"])
        _set_state(parts.checkpointing, state["checkpointing"])
        of_process = [state, *state.get("others", [])]
        rank = parts.backend.part.rank
        own = of_process[rank if rank < len(of_process) else 0]
        for name, component in parts.stateful().items():
            component.load_state_dict(own["components"][name])
        set_generators(own["generators"], parts.backend.device)  # last: loading may draw
        if rank >= len(of_process):  # fewer have trained it so far
            diverge(rank)
        scores = state["evaluation"]
        evaluation = Evaluation(losses=dict(scores[0]), metrics=dict(scores[1])) if scores else None
        return Resumed(state["epoch"], state["batch"], state["stopped"], evaluation, len(of_process))
    except MLgymError:
        raise
    except OSError as error:
        raise DamagedError(f"{folder}: cannot be read: {error.strerror}") from None
    except Exception as error:
        raise ConfigError(
            f"the configuration no longer fits the checkpoint in {folder}: {type(error).__name__}: {error}"
        ) from error


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load, and give back to each tensor the type that it was saved with: torch casts to that of the parameter."""
    optimizer.load_state_dict(saved)
    pairs = [(optimizer, saved)]
    if isinstance(optimizer, OptimizerBundle):
        pairs = [(part, saved[name]) for name, part in optimizer.optimizers.items()]
    for part, state in pairs:
        parameters = [parameter for group in part.param_groups for parameter in group["params"]]
        for i, entry in state.get("state", {}).items():
            for key, value in entry.items():
                now = part.state[parameters[i]].get(key)
                if isinstance(value, torch.Tensor) and isinstance(now, torch.Tensor) and now.dtype != value.dtype:
                    part.state[parameters[i]][key] = value.to(now.device)


def _refuse_other_parameters(now: Mapping[str, Any], saved: Mapping[str, Any], folder: Path) -> None:
    def shape(value: Any) -> str:
        return "x".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else "no tensor"

    wrong = [f"{name} is new" for name in now if name not in saved]
    wrong += [f"{name} is gone" for name in saved if name not in now]
    wrong += [
        f"{name} was {shape(saved[name])} and is {shape(now[name])}"
        for name in now
        if name in saved and not is_lazy(now[name]) and shape(saved[name]) != shape(now[name])
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ConfigError(
            f"the model no longer fits the checkpoint in {folder}: {', '.join(wrong[:5])}{more}", ("model",)
        )

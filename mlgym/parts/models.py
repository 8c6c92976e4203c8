"""Models: any torch module, and `NNModel` for those that like their configuration kept. Imports batch, seeds, table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mlgym.errors import ConfigError
from mlgym.parts.seeds import seed_everything
from mlgym.schema import bind, parameters

PublicationKeys = dict[str, str] | list[str] | str | None


class NNModel(nn.Module):
    """A module that knows under which keys its predictions are published.

    `forward` returns a tensor [batch, ...], or a mapping of publication keys to tensors.
    """

    def __init__(self, prediction_publication_keys: PublicationKeys = None, seed: int | None = None) -> None:
        super().__init__()
        if seed is not None:
            seed_everything(seed)
        self.prediction_publication_keys = prediction_publication_keys


def model(
    model_registry: Callable[..., nn.Module],
    *,
    model_definition: dict[str, Any] | None = None,
    prediction_publication_keys: PublicationKeys = None,
    seed: int,
) -> nn.Module:
    """A model: `model_registry` is subscribed to its key, `model_definition` holds its arguments.

    Its weights are drawn under `seed`. The model is given `prediction_publication_keys` and `seed` if it takes
    them; a bare tensor is published under the only publication key.
    """
    given: dict[str, Any] = {"prediction_publication_keys": prediction_publication_keys, "seed": seed}
    named = parameters(model_registry)  # by itself: `**kwargs` may be handed on to one that does not take them
    given = {name: value for name, value in given.items() if name in named}
    seed_everything(seed)
    try:
        built = model_registry(**bind(model_registry, model_definition or {}, given))
    except ConfigError as error:
        raise error.inside("model_definition") from None
    if not isinstance(built, nn.Module):
        raise ConfigError(f"expected a torch module, got {type(built).__name__}")
    built.prediction_publication_keys = prediction_publication_keys  # type: ignore[assignment]
    return built


def publisher(module: nn.Module) -> Callable[[Any], dict[str, torch.Tensor]]:
    """A function from what `module` returns to a mapping of publication keys to tensors."""
    keys: Any = getattr(module, "prediction_publication_keys", None)
    names = list(keys.values()) if isinstance(keys, dict) else [keys] if isinstance(keys, str) else list(keys or [])

    def publish(output: Any) -> dict[str, torch.Tensor]:
        if isinstance(output, dict):
            return output
        if len(names) != 1:
            raise ConfigError(
                f"the model returns a bare {type(output).__name__}, so it needs exactly one of "
                f"prediction_publication_keys; there are {len(names)}",
                ("model", "config"),
                whole=True,
            )
        if not isinstance(output, torch.Tensor):
            raise ConfigError(
                f"the model must return a tensor or a mapping of keys to tensors, not {type(output).__name__}",
                ("model",),
                whole=True,
            )
        return {names[0]: output}

    return publish

"""Functions of predictions, applied before metrics see them. Each publishes a prediction under a new key."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mlgym.errors import ConfigError, one_of

Predictions = dict[str, torch.Tensor]
PostProcessor = Callable[[Predictions], None]
"""Adds to the predictions, in place."""


def arg_max(*, prediction_subscription_key: str, prediction_publication_key: str, dim: int = -1) -> PostProcessor:
    """The index of the largest entry along `dim`: logits [batch, classes] to classes [batch]."""

    def apply(predictions: Predictions) -> None:
        predictions[prediction_publication_key] = subscribed(predictions, prediction_subscription_key).argmax(dim)

    return apply


def subscribed(published: Predictions, key: str) -> torch.Tensor:
    """What is published under `key`. Raises `ConfigError` naming what there is."""
    try:
        return published[key]
    except KeyError:
        raise ConfigError(f"nothing is published under the key {key!r}; {one_of(key, published)}") from None

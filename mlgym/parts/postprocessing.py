"""Functions of predictions, applied before metrics see them. Each publishes a prediction under a new key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from mlgym.errors import ConfigError, one_of

Predictions = dict[str, torch.Tensor]
PostProcessor = Callable[[Predictions], None]
"""Adds to the predictions, in place."""


def soft_max(*, prediction_subscription_key: str, prediction_publication_key: str, dim: int = -1) -> PostProcessor:
    """exp(x_i) / sum of exp(x_j) along `dim`: logits [batch, classes] to probabilities [batch, classes]."""
    return _along(dim, torch.softmax, prediction_subscription_key, prediction_publication_key)


def arg_max(*, prediction_subscription_key: str, prediction_publication_key: str, dim: int = -1) -> PostProcessor:
    """The index of the largest entry along `dim`: logits [batch, classes] to classes [batch]."""
    return _along(dim, torch.argmax, prediction_subscription_key, prediction_publication_key)


def min_or_max(
    *, prediction_subscription_key: str, prediction_publication_key: str, agg_fun: Literal["max", "min"]
) -> PostProcessor:
    """The largest or the smallest entry of the last dimension: [batch, classes] to [batch]."""
    function = torch.amax if agg_fun == "max" else torch.amin
    return _along(-1, function, prediction_subscription_key, prediction_publication_key)


def sigmoidal(
    *, prediction_subscription_key: str, prediction_publication_key: str, threshold: float = 0.5
) -> PostProcessor:
    """1 / (1 + exp(-x)) of every entry. `threshold` is accepted and has no effect; see BINARIZATION."""
    return _each(torch.sigmoid, prediction_subscription_key, prediction_publication_key)


def binarization(
    *, prediction_subscription_key: str, prediction_publication_key: str, threshold: float = 0.5
) -> PostProcessor:
    """The label 1 where an entry is above `threshold`, 0 where it is equal or below (and where it is NaN)."""
    return _each(lambda x: (x > threshold).long(), prediction_subscription_key, prediction_publication_key)


def dummy(
    *, prediction_subscription_key: str | None = None, prediction_publication_key: str | None = None
) -> PostProcessor:
    """The prediction as it is under a second key; without the two keys, nothing."""
    if prediction_subscription_key is None and prediction_publication_key is None:
        return lambda predictions: None
    if prediction_subscription_key is None or prediction_publication_key is None:
        raise ConfigError("expected both 'prediction_subscription_key' and 'prediction_publication_key', or neither")
    return _each(lambda x: x, prediction_subscription_key, prediction_publication_key)


def _each(function: Callable[[torch.Tensor], torch.Tensor], subscription: str, publication: str) -> PostProcessor:
    def apply(predictions: Predictions) -> None:
        predictions[publication] = function(subscribed(predictions, subscription))

    return apply


def _along(dim: int, function: Callable[..., torch.Tensor], subscription: str, publication: str) -> PostProcessor:
    """`function` along a dimension that the prediction must have."""

    def checked(prediction: torch.Tensor) -> torch.Tensor:
        if not -prediction.ndim <= dim < prediction.ndim:
            raise ConfigError(f"there is no dimension {dim} in predictions of the shape {list(prediction.shape)}")
        return function(prediction, dim)

    return _each(checked, subscription, publication)


def subscribed(published: Predictions, key: str) -> torch.Tensor:
    """What is published under `key`. Raises `ConfigError` naming what there is."""
    try:
        return published[key]
    except KeyError:
        raise ConfigError(f"nothing is published under the key {key!r}; {one_of(key, published)}") from None

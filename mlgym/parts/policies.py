"""When to stop, and what to keep: small state machines fed with the scores of each epoch. Imports table only.

Scores are a mapping of `split/tag` to numbers. Policies see epochs 1, 2, ... but not epoch 0 (before training).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from mlgym.errors import ConfigError
from mlgym.parts.table import Table

Scores = Mapping[str, float]


class EarlyStopping(Protocol):
    """`monitored` is the score it reads, None when it reads none."""

    monitored: str | None

    def should_stop(self, epoch: int, scores: Scores) -> bool: ...


class NeverStop:
    """Train for the epochs asked for."""

    monitored: str | None = None

    def should_stop(self, epoch: int, scores: Scores) -> bool:
        return False


class LastEpochsImprovement:
    """Stop when no step between two of the last `epochs_window` epochs improved the score enough.

    A step improves when the score changes in the right direction by at least `min_relative_improvement` of
    its magnitude before.
    """

    def __init__(
        self,
        *,
        min_relative_improvement: float,
        epochs_window: int,
        split_name: str,
        monitoring_key: str,
        is_increase_task: bool,
    ) -> None:
        if epochs_window < 2:
            raise ConfigError(
                f"must be at least 2 (there must be a step to judge), not {epochs_window}", ("epochs_window",)
            )
        self.monitored: str | None = f"{split_name}/{monitoring_key}"
        self._minimum = min_relative_improvement
        self._window = epochs_window
        self._sign = 1 if is_increase_task else -1
        self.recent: list[float] = []

    def should_stop(self, epoch: int, scores: Scores) -> bool:
        assert self.monitored is not None
        self.recent = [*self.recent, scores[self.monitored]][-self._window :]
        steps = zip(self.recent, self.recent[1:], strict=False)
        return len(self.recent) == self._window and not any(self._improved(old, new) for old, new in steps)

    def _improved(self, old: float, new: float) -> bool:
        gain = self._sign * (new - old)
        return gain > 0 and gain >= self._minimum * abs(old)


class Patience:
    """Stop when the best score is `patience` epochs old; better means by more than `min_delta`."""

    def __init__(
        self, *, patience: int, split_name: str, monitoring_key: str, is_increase_task: bool, min_delta: float = 0.0
    ) -> None:
        if patience < 1:
            raise ConfigError(f"must be at least 1, not {patience}", ("patience",))
        self.monitored: str | None = f"{split_name}/{monitoring_key}"
        self._patience = patience
        self._min_delta = min_delta
        self._sign = 1 if is_increase_task else -1
        self.best = -math.inf
        self.waited = 0

    def should_stop(self, epoch: int, scores: Scores) -> bool:
        assert self.monitored is not None
        score = self._sign * scores[self.monitored]
        if score > self.best + self._min_delta:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        return self.waited >= self._patience


class Decision(NamedTuple):
    """What to do with the state after an epoch, and which saved epochs to delete once that is committed."""

    save: bool
    delete: tuple[int, ...] = ()


class Checkpointing(Protocol):
    """`monitored` is the score it reads, None when it reads none. All but `SaveNone` keep the newest epoch."""

    monitored: str | None

    def decide(self, epoch: int, scores: Scores) -> Decision: ...


class SaveLastEpochOnly:
    """Keep the newest epoch."""

    monitored: str | None = None

    def __init__(self) -> None:
        self.saved: int | None = None

    def decide(self, epoch: int, scores: Scores) -> Decision:
        before, self.saved = self.saved, epoch
        return Decision(True, () if before is None else (before,))


class SaveAll:
    """Keep every epoch."""

    monitored: str | None = None

    def decide(self, epoch: int, scores: Scores) -> Decision:
        return Decision(True)


class SaveEveryNEpochs:
    """Keep every n-th epoch, and the newest."""

    monitored: str | None = None

    def __init__(self, *, n: int) -> None:
        if n < 1:
            raise ConfigError(f"must be at least 1, not {n}", ("n",))
        self._n = n
        self.newest: int | None = None

    def decide(self, epoch: int, scores: Scores) -> Decision:
        before, self.newest = self.newest, epoch
        return Decision(True, () if before is None or before % self._n == 0 else (before,))


class SaveBestK:
    """Keep the k epochs with the best score (of equal ones the earlier), and the newest."""

    def __init__(self, *, k: int, split_name: str, monitoring_key: str, is_increase_task: bool) -> None:
        if k < 1:
            raise ConfigError(f"must be at least 1, not {k}", ("k",))
        self.monitored: str | None = f"{split_name}/{monitoring_key}"
        self._k = k
        self._sign = 1 if is_increase_task else -1
        self.saved: dict[int, float] = {}
        """epoch -> signed score; NaN counts as the worst"""

    def decide(self, epoch: int, scores: Scores) -> Decision:
        assert self.monitored is not None
        score = self._sign * scores[self.monitored]
        self.saved[epoch] = -math.inf if math.isnan(score) else score
        ranked = sorted(self.saved, key=lambda saved: (-self.saved[saved], saved))
        delete = tuple(sorted(set(ranked[self._k :]) - {epoch}))
        for gone in delete:
            del self.saved[gone]
        return Decision(True, delete)


class SaveNone:
    """Keep nothing."""

    monitored: str | None = None

    def decide(self, epoch: int, scores: Scores) -> Decision:
        return Decision(False)


def early_stopping(
    early_stopping_strategy_registry: Table,
    *,
    early_stopping_key: str,
    early_stopping_config: dict[str, Any] | None = None,
) -> EarlyStopping:
    """The strategy named by `early_stopping_key`, with `early_stopping_config` as its parameters."""
    built: EarlyStopping = early_stopping_strategy_registry.build(
        early_stopping_key, early_stopping_config or {}, ("early_stopping_config",), ("early_stopping_key",)
    )
    return built


def checkpointing(
    checkpointing_strategy_registry: Table,
    *,
    checkpointing_key: str,
    checkpointing_config: dict[str, Any] | None = None,
) -> Checkpointing:
    """The strategy named by `checkpointing_key`, with `checkpointing_config` as its parameters."""
    built: Checkpointing = checkpointing_strategy_registry.build(
        checkpointing_key, checkpointing_config or {}, ("checkpointing_config",), ("checkpointing_key",)
    )
    return built

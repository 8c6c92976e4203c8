"""Scores of every split. Imports backend, batch, class_counts, data, losses, metrics, models, postprocessing, table.

Predictions of many batches are joined before losses and metrics see them: the cost is in the number of calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from mlgym.errors import ConfigError, ConfigPath, one_of
from mlgym.parts.backend import Backend, Predicted, Published
from mlgym.parts.batch import Batch
from mlgym.parts.class_counts import ClassCounter, Pair
from mlgym.parts.data import Loader
from mlgym.parts.losses import Loss, LossMean, loss
from mlgym.parts.metrics import Accumulator, Metric, metric, named_scores
from mlgym.parts.models import publisher
from mlgym.parts.postprocessing import PostProcessor, subscribed
from mlgym.parts.table import Table

_CHUNK = 1 << 20  # elements of predictions and targets that wait to be scored together: 4 MB of floats


Layout = tuple[list[int], str]


class Step(NamedTuple):
    """One batch of a split was evaluated."""

    split: str
    batch: int
    num_batches: int


class Evaluation(NamedTuple):
    """Scores by (tag, split)."""

    metrics: dict[tuple[str, str], float]
    losses: dict[tuple[str, str], float]

    def scores(self) -> dict[str, float]:
        """`split/tag` -> score."""
        return {f"{split}/{tag}": score for (tag, split), score in (self.metrics | self.losses).items()}


class Applied(NamedTuple):
    """Something that is computed on some splits; `at` is its place in the configuration."""

    part: Any
    splits: frozenset[str]
    at: ConfigPath


class Evaluator:
    """Evaluates the model on the splits of an eval component."""

    def __init__(self, eval_component: EvalComponent) -> None:
        self.component = eval_component
        self.seconds = 0.0
        """Spent in evaluation so far."""

    def evaluate(self, backend: Backend, one_batch: bool = False) -> Generator[Step, None, Evaluation]:
        """Evaluate every split (or only its first batch), yielding after each batch; returns the scores."""
        began = time.perf_counter()
        result = Evaluation({}, {})
        backend.same_buffers(self.component.model)
        for split in self.component.loaders:
            yield from self.component.evaluate(split, backend, result, one_batch)
        metrics, losses = backend.agreed([list(result.metrics.items()), list(result.losses.items())])
        self.seconds += time.perf_counter() - began
        return Evaluation({(t, s): score for (t, s), score in metrics}, {(t, s): score for (t, s), score in losses})


class EvalComponent:
    """The model, the splits to evaluate it on, and what to compute on each."""

    def __init__(
        self,
        model: nn.Module,
        loaders: dict[str, Loader],
        post_processors: list[Applied],
        metrics: list[Applied],
        losses: list[Applied],
    ) -> None:
        self.model = model
        self.loaders = loaders
        self.post_processors = post_processors
        self.metrics = metrics
        self.losses = losses
        self._publish = publisher(model)
        self._accumulators: dict[tuple[str, str], Accumulator] = {}
        self.classes: dict[str, ClassCounter] = {}
        """By split: the labels of the last evaluation."""
        self.layouts: dict[str, tuple[Layout | None, Layout | None]] = {}
        """By split: shape of one sample and of one target, and their types."""

    @property
    def score_keys(self) -> list[str]:
        """`split/tag` of every score that an evaluation gives."""
        return [
            f"{split}/{tag}"
            for split in self.loaders
            for applied in [*self.metrics, *self.losses]
            if split in applied.splits
            for tag in applied.part.tags
        ]

    def accumulator(self, metric: Metric, split: str) -> Accumulator:
        """The accumulator of a metric on a split, empty; they are kept, as making one costs more than using it."""
        found = self._accumulators.get((metric.tag, split))
        if found is None:
            found = self._accumulators[metric.tag, split] = metric.create()
        found.reset()
        return found

    def evaluate(
        self, split: str, backend: Backend, result: Evaluation, one_batch: bool
    ) -> Generator[Step, None, None]:
        """Add the scores of `split` to `result`, yielding after each batch."""
        self.model.eval()
        scoring = _Scoring(self, split, backend)
        loader = self.loaders[split]
        num_batches = loader.num_evaluation_batches
        for number, read in enumerate(loader.evaluation_batches(backend.part), 1):
            batch = backend.batch(read)
            with torch.no_grad():
                predictions = self._publish(self.model(batch.samples))
            scoring.add(*((predictions, batch.targets) if batch.share else (_none(predictions), _none(batch.targets))))
            if number == 1:
                self.layouts[split] = _layout(batch.samples), _layout(next(iter(batch.targets.values()), None))
            yield Step(split, number, num_batches)
            if one_batch:
                break
        scoring.finish(result)


class _Scoring:
    """Losses and metrics of one split while its batches come in."""

    def __init__(self, component: EvalComponent, split: str, backend: Backend) -> None:
        self.split = split
        self._backend = backend
        self._processors = [applied for applied in component.post_processors if split in applied.splits]
        self._losses = [applied for applied in component.losses if split in applied.splits]
        self._metrics = [applied for applied in component.metrics if split in applied.splits]
        self._accumulators = [component.accumulator(applied.part, split) for applied in self._metrics]
        self._means = [LossMean(applied.part) for applied in self._losses]
        self._waiting: Predicted = []
        self._classes = component.classes[split] = ClassCounter(_compared(self._metrics, self._losses))
        self._size = 0
        self._at_most: int | None = None
        """Where there are several processes, the number of batches that wait: all must come here together."""

    def add(self, predictions: Published, targets: Published) -> None:
        self._waiting.append((predictions, targets))
        for tensor in (*predictions.values(), *targets.values()):
            self._size += tensor.numel()
        if self._backend.part.size == 1:
            full = self._size >= _CHUNK
        else:
            if self._at_most is None:
                self._at_most = self._backend.agreed(max(1, _CHUNK // max(1, self._size * self._backend.part.size)))
            full = len(self._waiting) == self._at_most
        if full:
            self._score_waiting()

    @torch.no_grad()
    def _score_waiting(self) -> None:
        waiting, self._waiting, self._size = self._waiting, [], 0
        if not waiting:
            return
        waiting = self._backend.gathered(waiting)
        if not waiting:  # the main process has them
            return
        try:
            predictions, targets = _joined([p for p, _ in waiting]), _joined([t for _, t in waiting])
        except RuntimeError:  # shapes differ from batch to batch: as sequences padded to the longest do
            for one_predictions, one_targets in waiting:
                self._score(Batch(None, one_targets, None, one_predictions))
        else:
            self._score(Batch(None, targets, None, predictions))

    def _score(self, batch: Batch) -> None:
        """Process, then compute losses and update metrics."""
        for applied in self._processors:
            _at(applied, applied.part, batch.predictions)
        for applied, mean in zip(self._losses, self._means, strict=True):
            _at(applied, mean.add, batch)
        for applied, accumulator in zip(self._metrics, self._accumulators, strict=True):
            _at(applied, _update, accumulator, applied.part, batch)
        self._classes.add(batch.predictions, batch.targets)

    def finish(self, result: Evaluation) -> None:
        self._score_waiting()
        if not self._backend.is_main:
            return
        for mean in self._means:
            for tag, score in mean.compute().items():
                result.losses[tag, self.split] = score
        for applied, accumulator in zip(self._metrics, self._accumulators, strict=True):
            for tag, score in named_scores(applied.part.tag, _at(applied, accumulator.compute)).items():
                result.metrics[tag, self.split] = score


def _layout(batch: Any) -> Layout | None:
    if not isinstance(batch, torch.Tensor):
        return None
    return list(batch.shape[1:]), str(batch.dtype).removeprefix("torch.")


def _compared(metrics: list[Applied], losses: list[Applied]) -> list[Pair]:
    """Which predictions are compared to which targets."""
    pairs = [(key, applied.part.target_key) for applied in metrics for key in applied.part.prediction_keys]
    for applied in losses:
        pairs += [(part.prediction_key, part.target_key) for part in applied.part.terms or (applied.part,)]
    return pairs


def _update(accumulator: Accumulator, wanted: Metric, batch: Batch) -> None:
    predictions = [subscribed(batch.predictions, key) for key in wanted.prediction_keys]
    accumulator.update(*predictions, subscribed(batch.targets, wanted.target_key))


def _at(applied: Applied, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ConfigError as error:
        raise error.inside(*applied.at) from None


def _none(published: Published) -> Published:
    """The same without a sample: they were another process's."""
    return {key: value[:0] for key, value in published.items()}


def _joined(parts: list[Published]) -> Published:
    if len(parts) == 1:
        return dict(parts[0])
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


# --- from configuration -------------------------------------------------------------------------------------


def eval_component(
    model: nn.Module,
    data_loaders: dict[str, Loader],
    loss_function_registry: Table,
    metric_registry: Table,
    prediction_postprocessing_registry: Table,
    *,
    metrics_config: list[dict[str, Any]] | None = None,
    loss_funs_config: list[dict[str, Any]] | None = None,
    post_processors_config: list[dict[str, Any]] | None = None,
    metrics_computation_config: list[dict[str, Any]] | None = None,
    loss_computation_config: list[dict[str, Any]] | None = None,
    cpu_target_subscription_keys: list[str] | None = None,
    cpu_prediction_subscription_keys: list[str] | None = None,
    train_split_name: str | None = None,
    show_progress: bool = True,
) -> EvalComponent:
    """What to compute, on which of the subscribed splits (all of them, unless the `..._computation_config` says less).

    `cpu_..._subscription_keys`, `train_split_name` and `show_progress` are accepted and need not be given:
    scores are computed on the device, for every split alike, and progress is always recorded.
    """
    if not isinstance(data_loaders, dict):
        raise ConfigError("subscribe data_loaders to a list of splits, such as `subscription: [train, val]`")
    splits = frozenset(data_loaders)
    processors = []
    for i, entry in enumerate(post_processors_config or []):
        at: ConfigPath = ("post_processors_config", i)
        processor: PostProcessor = prediction_postprocessing_registry.build_keyed(entry, at, ("applicable_splits",))
        processors.append(Applied(processor, _splits(entry.get("applicable_splits"), splits, at), at))
    metrics = [metric(metric_registry, e, ("metrics_config", i)) for i, e in enumerate(metrics_config or [])]
    losses = [loss(loss_function_registry, e, ("loss_funs_config", i)) for i, e in enumerate(loss_funs_config or [])]
    scored: list[Metric | Loss] = [*metrics, *losses]
    tags = [tag for part in scored for tag in part.tags]
    for tag in tags:
        if tags.count(tag) > 1:
            raise ConfigError(f"the tag {tag!r} is given twice; every score needs its own")
    return EvalComponent(
        model,
        data_loaders,
        processors,
        _applied(
            metrics, "metrics_config", metrics_computation_config, "metrics_computation_config", "metric_tag", splits
        ),
        _applied(losses, "loss_funs_config", loss_computation_config, "loss_computation_config", "loss_tag", splits),
    )


def _applied(
    parts: Sequence[Metric | Loss],
    parts_key: str,
    computation: list[dict[str, Any]] | None,
    key: str,
    tag_key: str,
    splits: frozenset[str],
) -> list[Applied]:
    """Each part with the splits that its entry in the computation config names."""
    chosen: dict[str, frozenset[str]] = {}
    for i, entry in enumerate(computation or []):
        if unknown := set(entry) - {tag_key, "applicable_splits"}:
            name = min(unknown)
            raise ConfigError(f"unknown key {name!r}; {one_of(name, (tag_key, 'applicable_splits'))}", (key, i, name))
        tag = entry.get(tag_key)
        if tag not in [part.tag for part in parts]:
            raise ConfigError(f"there is no {tag!r}; {one_of(tag, [p.tag for p in parts])}", (key, i, tag_key))
        chosen[str(tag)] = _splits(entry.get("applicable_splits"), splits, (key, i))
    return [Applied(part, chosen.get(part.tag, splits), (parts_key, i)) for i, part in enumerate(parts)]


def _splits(names: Any, splits: frozenset[str], at: ConfigPath) -> frozenset[str]:
    if names is None:
        return splits
    for i, name in enumerate(names if isinstance(names, list) else [names]):
        if not isinstance(name, str) or name not in splits:
            raise ConfigError(f"there is no split {name!r}; {one_of(name, splits)}", (*at, "applicable_splits", i))
    return frozenset(names if isinstance(names, list) else [names])

"""What the model card needs beside scores: the model, the data, results by class, what a job took. Recorded as events.

A job's events pass through `Facts.emit`. After the first evaluation it says what the model and the data are, which
costs a walk over the modules and a count of labels that are in memory; after the others, results by class if the
score had a peak. `Facts.ended` says the rest. None of this may end an experiment: what cannot be told is a warning.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from mlgym.engine.energy import joules
from mlgym.engine.experiment import Emit, Parts
from mlgym.errors import StorageError
from mlgym.parts.class_counts import MAX_CLASSES, ClassCounter
from mlgym.parts.data import Loader
from mlgym.parts.datasets import Columns, labels
from mlgym.parts.iterators import OneHot, Relabelled, Transformed
from mlgym.record.events import (
    ClassCounts,
    ClassResults,
    DataFacts,
    EvaluationResult,
    JobUsage,
    LabelCount,
    Layer,
    ModelFacts,
    Payload,
    SplitFacts,
    Warned,
    number,
)
from mlgym.record.fold import Experiment
from mlgym.record.report import judged_by
from mlgym.record.scores import Scores
from mlgym.specs import ExperimentSpec

_MOST_LAYERS = 200  # rows of the layer table: about 16 KB in the log of each experiment
_WHOLE_TABLE = 40  # classes up to which the confusion matrix is recorded as it is
_MOST_CONFUSIONS = 100
_MOST_VALUES = 50_000_000  # of targets, that are looked at


class Facts:
    """Stands between an experiment and `emit`, and adds what it sees."""

    def __init__(self, spec: ExperimentSpec, parts: Parts, emit: Emit) -> None:
        self._spec = spec
        self._parts = parts
        self._emit = emit
        self._described = False
        self._score: tuple[str, float] | None = None
        """The score that is judged by, and 1 or -1: what it is multiplied by to be better when larger."""
        self._best = -float("inf")
        self._peak: ClassResults | None = None
        """Not recorded yet: the next epoch may be better still."""
        self._last: ClassResults | None = None
        self._training = 0.0
        self._since = time.perf_counter()
        self._evaluating = parts.evaluator.seconds
        self._device = parts.backend.device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._joules = joules(self._device)

    def emit(self, payload: Payload) -> None:
        """Pass an event on, and record what can be said after it."""
        self._emit(payload)
        if isinstance(payload, EvaluationResult):
            self._try("results by class", lambda: self._evaluated(payload))
            if not self._described and self._parts.evaluator.seconds > 0:
                self._described = True  # also if it cannot be
                self._try("what the model consists of", lambda: self._emit(model_facts(self._spec, self._parts)))
                self._try("what the data consist of", lambda: self._emit(data_facts(self._spec, self._parts)))
            self._pause(payload.epoch > 0)

    def ended(self) -> None:
        """The experiment has ended, however it did."""
        self._try("what the job took", self._ended)

    def _ended(self) -> None:
        self._pause(True)
        if self._peak is not None and self._peak is not self._last:
            self._emit(self._peak)
        if self._last is not None:
            self._emit(self._last)
        cuda = self._device.type == "cuda"
        now = joules(self._device)
        self._emit(
            JobUsage(
                grid_search_id=self._spec.grid_search_id,
                experiment_id=self._spec.experiment_id,
                job_id=self._spec.job_id,
                training_seconds=round(self._training, 3),
                evaluation_seconds=round(self._parts.evaluator.seconds, 3),
                memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                device_memory_bytes=torch.cuda.max_memory_allocated(self._device) if cuda else None,
                energy_joules=None if now is None or self._joules is None else round(now - self._joules, 1),
            )
        )

    def _pause(self, training: bool) -> None:
        """Since the last evaluation the time went into training, but for what the evaluation itself took."""
        now, evaluating = time.perf_counter(), self._parts.evaluator.seconds
        if training:
            self._training += max(0.0, now - self._since - (evaluating - self._evaluating))
        self._since, self._evaluating = now, evaluating

    def _try(self, what: str, function: Callable[[], None]) -> None:
        try:
            function()
        except StorageError:
            raise
        except Exception as error:  # data sets and models are anybody's code
            self._emit(
                Warned(
                    grid_search_id=self._spec.grid_search_id,
                    experiment_id=self._spec.experiment_id,
                    message=f"{what} could not be recorded: {type(error).__name__}: {error}"[:1000],
                )
            )

    def _evaluated(self, result: EvaluationResult) -> None:
        """Keep the results of this epoch; those of a peak are recorded once an epoch was not better."""
        component = self._parts.evaluator.component
        found = [counts for split, counter in component.classes.items() for counts in class_counts(split, counter)]
        component.classes.clear()  # a resumed experiment tells scores that it did not compute
        if not found:
            return
        self._last = ClassResults(
            grid_search_id=self._spec.grid_search_id,
            experiment_id=self._spec.experiment_id,
            epoch=result.epoch,
            splits=found,
        )
        value = self._judged(result)
        if result.epoch > 0 and value > self._best:
            self._best, self._peak = value, self._last
        elif self._peak is not None:
            self._emit(self._peak)
            self._peak = None

    def _judged(self, result: EvaluationResult) -> float:
        """The score that the table judges by, larger if better; NaN without one."""
        scores = {f"{s.split}/{s.metric}": float(s.score) for s in result.metric_scores}
        losses = {f"{s.split}/{s.loss}": float(s.score) for s in result.loss_scores}
        scores |= losses
        if self._score is None:
            dummy = Experiment(0, scores={key: Scores() for key in scores}, losses=set(losses))
            key, mode = judged_by([dummy])
            self._score = key or "", 1.0 if mode == "max" else -1.0
        key, sign = self._score
        return sign * scores.get(key, float("nan"))


# --- the model ----------------------------------------------------------------------------------------------


def model_facts(spec: ExperimentSpec, parts: Parts) -> ModelFacts:
    """Counts of the model's parameters, each once, wherever it is used."""
    model: nn.Module = parts.graph["model"]
    parameters = list(model.parameters())
    return ModelFacts(
        grid_search_id=spec.grid_search_id,
        experiment_id=spec.experiment_id,
        type=_name(type(model)),
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        size_bytes=sum(tensor.nbytes for tensor in (*parameters, *model.buffers())),
        modules=sum(1 for _ in _leaves(model)),
        layers=_layers(model),
    )


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _leaves(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if next(module.children(), None) is None)


def _layers(model: nn.Module) -> list[Layer]:
    """The leaves; where these are too many, modules as deep inside as there is room for."""
    names = [name for name, _ in model.named_modules()]
    depth = max(name.count(".") + 1 for name in names)
    while depth > 1 and sum(_is_row(name, module, depth) for name, module in model.named_modules()) > _MOST_LAYERS:
        depth -= 1
    seen: set[int] = set()
    rows = []
    for name, module in model.named_modules():
        if not _is_row(name, module, depth):
            continue
        within = _depth(name) < depth
        own = [p for p in module.parameters(recurse=not within) if id(p) not in seen]
        seen.update(map(id, own))
        rows.append(
            Layer(
                name or "(model)",
                type(module).__name__,
                sum(parameter.numel() for parameter in own),
                sum(parameter.numel() for parameter in own if parameter.requires_grad),
            )
        )
    return rows[:_MOST_LAYERS]


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _is_row(name: str, module: nn.Module, depth: int) -> bool:
    """A leaf, one with parameters of its own, or one at the depth where the table ends."""
    if _depth(name) >= depth:
        return _depth(name) == depth
    return next(module.children(), None) is None or next(module.parameters(recurse=False), None) is not None


# --- the data -----------------------------------------------------------------------------------------------


def data_facts(spec: ExperimentSpec, parts: Parts) -> DataFacts:
    """The splits that are trained on and evaluated."""
    evaluated = parts.evaluator.component.loaders
    trained = parts.trainer.loader
    name = next((split for split, loader in evaluated.items() if loader is trained), None) or _subscribed(spec)
    loaders = evaluated if name in evaluated else {name: trained, **evaluated}
    return DataFacts(
        grid_search_id=spec.grid_search_id,
        experiment_id=spec.experiment_id,
        splits=[
            split_facts(parts, split, loader, split == name, split in evaluated) for split, loader in loaders.items()
        ],
    )


def _subscribed(spec: ExperimentSpec) -> str:
    """The split that the trainer asks for."""
    for requirement in spec.config["trainer"].get("requirements", ()):
        if requirement.get("name") == "data_loaders" and isinstance(requirement.get("subscription"), str):
            return str(requirement["subscription"])
    return "training"


def split_facts(parts: Parts, split: str, loader: Loader, trained: bool, evaluated: bool) -> SplitFacts:
    """One split: its size, what an item looks like to the model, and how its targets are distributed."""
    dataset = loader.dataset
    uses: list[Literal["training", "evaluation"]] = []
    uses += ["training"] if trained else []
    uses += ["evaluation"] if evaluated else []
    sample, target = parts.evaluator.component.layouts.get(split, (None, None))
    if sample is None and isinstance(dataset, Columns):
        samples, targets = dataset.take(slice(0, 1))
        sample, target = (list(samples.shape[1:]), _kind(samples)), (list(targets.shape[1:]), _kind(targets))
    found = SplitFacts(
        split=split,
        samples=len(dataset),
        uses=uses,
        batch_size=loader.batch_size,
        sample_shape=sample and sample[0],
        sample_dtype=sample[1] if sample else "",
        target_shape=target and target[0],
        target_dtype=target[1] if target else "",
    )
    return _counted(found, dataset)


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _counted(facts: SplitFacts, dataset: Any) -> SplitFacts:
    """With labels counted, or the spread of numbers. Nothing is read for it that is not in memory."""
    from msgspec.structs import replace

    if not _at_hand(dataset):
        return replace(facts, uncounted="it would take reading every item")
    found = labels(dataset)
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if not found.numel() or found.ndim > 2 or found.numel() > _MOST_VALUES:
        return replace(facts, uncounted=f"targets have the shape {list(found.shape)}")
    if found.ndim == 2 and found.shape[1] <= MAX_CLASSES and bool(((found == 0) | (found == 1)).all()):
        return replace(facts, labels=_listed(found.long().sum(0)), multi_label=True)
    if found.ndim == 1 and not found.is_floating_point():
        values, counts = _unique(found.long())
        if len(values) <= MAX_CLASSES:
            return replace(facts, labels=[LabelCount(*one) for one in zip(values, counts, strict=True)])
    numbers = found.double()
    spread = {
        "min": float(numbers.min()),
        "max": float(numbers.max()),
        "mean": float(numbers.mean()),
        "std": float(numbers.std(correction=0)),
    }
    return replace(facts, spread={name: number(value) for name, value in spread.items()})


def _listed(counts: torch.Tensor) -> list[LabelCount]:
    return [LabelCount(label, count) for label, count in enumerate(counts.tolist())]


def _unique(values: torch.Tensor) -> tuple[list[int], list[int]]:
    lowest, highest = (int(value) for value in values.aminmax())
    if lowest < 0 or highest > 10 * MAX_CLASSES:  # sorting takes twenty times as long as counting
        found, counts = values.unique(return_counts=True)
        return found.tolist(), counts.tolist()
    counts = torch.bincount(values)
    found = counts.nonzero()[:, 0]
    return found.tolist(), counts[found].tolist()


def _at_hand(dataset: Any) -> bool:
    """Whether `labels` finds the labels without reading items."""
    match dataset:
        case Columns() | OneHot():
            return True
        case Relabelled() | Transformed():
            return _at_hand(dataset.base)
        case Subset():
            return _at_hand(dataset.dataset)
        case ConcatDataset():
            return all(_at_hand(part) for part in dataset.datasets)
    return callable(getattr(dataset, "labels", None)) or isinstance(getattr(dataset, "targets", None), list)


# --- results by class ---------------------------------------------------------------------------------------


def class_counts(split: str, counter: ClassCounter) -> list[ClassCounts]:
    """What was counted on a split, without the labels that do not occur."""
    found = []
    for (prediction, target), table in counter.counts.items():
        counts = table.cpu()
        actual, predicted = counts.sum(1), counts.sum(0)
        occurs = (actual + predicted).nonzero()[:, 0]
        whole = len(occurs) <= _WHOLE_TABLE
        found.append(
            ClassCounts(
                split=split,
                target=target,
                prediction=prediction,
                labels=occurs.tolist(),
                actual=actual[occurs].tolist(),
                predicted=predicted[occurs].tolist(),
                correct=counts.diagonal()[occurs].tolist(),
                confusion=counts[occurs][:, occurs].tolist() if whole else [],
                confusions=[] if whole else _confusions(counts),
            )
        )
    return found


def _confusions(counts: torch.Tensor) -> list[list[int]]:
    wrong = counts.clone().fill_diagonal_(0).flatten()
    values, places = wrong.topk(min(_MOST_CONFUSIONS, len(wrong)))
    size = len(counts)
    return [[p // size, p % size, v] for v, p in zip(values.tolist(), places.tolist(), strict=True) if v]

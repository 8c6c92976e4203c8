"""One experiment: build its parts, then the loop. Only this file and its callers in engine/ emit events."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mlgym.build.graph import Graph
from mlgym.build.registry import Registry
from mlgym.errors import ConfigError, one_of
from mlgym.parts.backend import Backend
from mlgym.parts.evaluator import Evaluation, Evaluator, Step
from mlgym.parts.optimizers import Schedule
from mlgym.parts.policies import EarlyStopping, NeverStop
from mlgym.parts.seeds import derive, seed_everything
from mlgym.parts.trainer import Trainer
from mlgym.plan.config import required
from mlgym.record.events import EvaluationResult, ExperimentStatus, LossScore, MetricScore, Payload, number
from mlgym.specs import ExperimentSpec

Emit = Callable[[Payload], None]


class Outcome(NamedTuple):
    """How an experiment ended. STOPPED can be gone on with, DONE cannot."""

    status: Literal["DONE", "STOPPED"]
    reason: str | None = None


INTERRUPTED = Outcome("STOPPED", "interrupted")


def run(spec: ExperimentSpec, parts: Parts, emit: Emit, stop_requested: Callable[[], bool]) -> Outcome:
    """Train and evaluate. `epoch` counts finished epochs: epoch 0 is the evaluation before any training."""
    report = _Reporter(spec, parts, emit)
    seed_everything(derive(spec.seed, "experiment"))
    evaluation = report.evaluation(0, parts.evaluator.evaluate(parts.backend), stop_requested)
    if evaluation is None:
        return INTERRUPTED
    report.scores(0, evaluation)

    for epoch in range(1, spec.num_epochs + 1):
        for batch in parts.trainer.epoch(parts.backend, parts.optimizer, spec.num_batches_per_epoch):
            if parts.schedule and parts.trainer.stepped:
                parts.schedule.after_optimizer_step()
            report.trained(epoch, batch)
            if stop_requested():
                return INTERRUPTED
        evaluation = report.evaluation(epoch, parts.evaluator.evaluate(parts.backend), stop_requested)
        if evaluation is None:
            return INTERRUPTED
        report.scores(epoch, evaluation)
        if parts.schedule:
            parts.schedule.after_epoch(evaluation.scores())
        if parts.early_stopping.should_stop(epoch, evaluation.scores()):
            return Outcome("DONE", "early stopping")
    return Outcome("DONE")


# --- parts --------------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """What an experiment is made of, ready to run."""

    graph: Graph
    backend: Backend
    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule | None
    trainer: Trainer
    evaluator: Evaluator
    early_stopping: EarlyStopping


def build(spec: ExperimentSpec, registry: Registry, device: torch.device) -> Parts:
    """The parts of `spec`. Raises `ConfigError` with the path in the experiment's configuration."""
    graph = Graph(required(spec.config), registry, spec.seed)
    backend = Backend(device)
    model = backend.prepare(graph["model"])
    evaluator: Evaluator = graph["evaluator"]
    make_optimizer = graph["optimizer"]
    try:
        optimizer: Optimizer = make_optimizer(model)
    except ConfigError as error:
        raise error.inside("optimizer", "config") from None
    parts = Parts(
        graph=graph,
        backend=backend,
        model=model,
        optimizer=optimizer,
        schedule=_schedule(graph, optimizer, evaluator),
        trainer=graph["trainer"],
        evaluator=evaluator,
        early_stopping=_early_stopping(graph, evaluator),
    )
    if "checkpointing_strategy" in graph:
        _refuse_unknown_score(graph["checkpointing_strategy"].monitored, evaluator, "checkpointing_strategy", "config")
    return parts


def _schedule(graph: Graph, optimizer: Optimizer, evaluator: Evaluator) -> Schedule | None:
    if "lr_scheduler" not in graph:
        return None
    make_schedule = graph["lr_scheduler"]
    try:
        schedule: Schedule | None = make_schedule(optimizer)
    except ConfigError as error:
        raise error.inside("lr_scheduler", "config") from None
    if schedule:
        _refuse_unknown_score(schedule.monitored, evaluator, "lr_scheduler", "config", "monitoring_key")
    return schedule


def _early_stopping(graph: Graph, evaluator: Evaluator) -> EarlyStopping:
    if "early_stopping_strategy" not in graph:
        return NeverStop()
    strategy: EarlyStopping = graph["early_stopping_strategy"]
    _refuse_unknown_score(strategy.monitored, evaluator, "early_stopping_strategy", "config", "early_stopping_config")
    return strategy


def _refuse_unknown_score(monitored: str | None, evaluator: Evaluator, *where: str) -> None:
    known = evaluator.component.score_keys
    if monitored is not None and monitored not in known:
        raise ConfigError(f"it monitors {monitored!r}, which is not evaluated; {one_of(monitored, known)}", where)


def try_once(parts: Parts) -> None:
    """Evaluate one batch of each split and take one step, to see that everything fits; the parts are used up."""
    steps = parts.evaluator.evaluate(parts.backend, one_batch=True)
    try:
        for _ in steps:
            pass
    except ConfigError as error:
        raise error.inside(parts.graph.name_of(parts.evaluator.component), "config") from None
    try:
        for _ in parts.trainer.epoch(parts.backend, parts.optimizer, 1):
            pass
    except ConfigError as error:
        where = (parts.graph.name_of(parts.trainer.component), "config", "loss_fun_config")
        raise error.inside(*where) from None
    if parts.schedule:
        parts.schedule.after_optimizer_step()
        parts.schedule.after_epoch(dict.fromkeys(parts.evaluator.component.score_keys, 0.0))


# --- events -------------------------------------------------------------------------------------------------


class _Reporter:
    """Turns steps into events: progress at most ten times per split and epoch, and five times a second."""

    def __init__(self, spec: ExperimentSpec, parts: Parts, emit: Emit) -> None:
        self._spec = spec
        self._emit = emit
        self._splits = list(parts.evaluator.component.loaders)
        self._num_batches = spec.num_batches_per_epoch or len(parts.trainer.loader)
        self._next_time = 0.0
        self._next_batch = 0
        self._where: tuple[int, str | None] = (-1, None)

    def trained(self, epoch: int, batch: int) -> None:
        self._progress("train", epoch, None, batch, self._num_batches)

    def evaluation(
        self, epoch: int, steps: Generator[Step, None, Evaluation], stop_requested: Callable[[], bool]
    ) -> Evaluation | None:
        """Run `steps` to their end and give what they return; None when a stop was asked for on the way."""
        while not stop_requested():
            try:
                step = next(steps)
            except StopIteration as end:
                result: Evaluation = end.value
                return result
            self._progress("evaluation", epoch, step.split, step.batch, step.num_batches)
        return None

    def _progress(
        self, status: Literal["train", "evaluation"], epoch: int, split: str | None, batch: int, num_batches: int
    ) -> None:
        if (epoch, split) != self._where:
            self._where, self._next_batch = (epoch, split), 0
        if batch < self._next_batch:
            return
        now = time.monotonic()
        if now < self._next_time:
            return
        self._next_time = now + 0.2
        self._next_batch = batch + max(1, -(-num_batches // 9))
        self._emit(
            ExperimentStatus(
                grid_search_id=self._spec.grid_search_id,
                experiment_id=self._spec.experiment_id,
                status=status,
                num_epochs=self._spec.num_epochs,
                current_epoch=epoch,
                splits=self._splits,
                current_split=split,
                num_batches=num_batches,
                current_batch=batch,
            )
        )

    def scores(self, epoch: int, evaluation: Evaluation) -> None:
        self._emit(
            EvaluationResult(
                grid_search_id=self._spec.grid_search_id,
                experiment_id=self._spec.experiment_id,
                epoch=epoch,
                metric_scores=[MetricScore(tag, split, number(v)) for (tag, split), v in evaluation.metrics.items()],
                loss_scores=[LossScore(tag, split, number(v)) for (tag, split), v in evaluation.losses.items()],
            )
        )

"""One experiment: build its parts, then the loop. Only this file and its callers in engine/ emit events."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mlgym.build.graph import Graph
from mlgym.build.registry import Registry
from mlgym.engine.checkpoints import Checkpoints, refuse_tensors_in_json
from mlgym.engine.state_files import freeze
from mlgym.engine.training_state import Resumed, capture, generators, restore
from mlgym.errors import ConfigError, one_of
from mlgym.parts.backend import Backend
from mlgym.parts.evaluator import Evaluation, Evaluator, Step
from mlgym.parts.optimizers import Schedule
from mlgym.parts.policies import Checkpointing, EarlyStopping, NeverStop, SaveLastEpochOnly, SaveNone
from mlgym.parts.seeds import derive, diverge, repeated, seed_everything
from mlgym.parts.trainer import Trainer
from mlgym.plan.config import required
from mlgym.record.events import EvaluationResult, ExperimentStatus, LossScore, MetricScore, Payload, number
from mlgym.specs import Checkpoint, ExperimentSpec

Emit = Callable[[Payload], None]


class Outcome(NamedTuple):
    """How an experiment ended. STOPPED can be gone on with, DONE cannot."""

    status: Literal["DONE", "STOPPED"]
    reason: str | None = None


INTERRUPTED = Outcome("STOPPED", "interrupted")


EARLY = Outcome("DONE", "early stopping")


def run(
    spec: ExperimentSpec,
    parts: Parts,
    emit: Emit,
    stop_requested: Callable[[], bool],
    checkpoints: Checkpoints | None = None,
) -> Outcome:
    """Train and evaluate, from the newest checkpoint if the spec names one.

    `epoch` counts finished epochs: epoch 0 is the evaluation before any training. Where several processes train
    together, each runs this; `emit`, `stop_requested` and `checkpoints` are the main process's.
    """
    report = _Reporter(spec, parts, emit)
    backend = parts.backend
    stop_requested = backend.agreeing(stop_requested)
    seed_everything(derive(repeated(spec.seed, spec.repeat_seed), "experiment"))
    at = resume(parts, checkpoints)
    if at is None:
        first = report.evaluation(0, parts.evaluator.evaluate(backend), stop_requested)
        if first is None:
            return INTERRUPTED
        at = Resumed(0, 0, False, first, backend.part.size)
        diverge(backend.part.rank)
    if at.evaluation:
        report.scores(at.epoch, at.evaluation)  # again, when resumed: equal scores are one
    if at.stopped:
        return EARLY

    keep = _Keeper(spec, parts, checkpoints)
    start = at.batch
    for epoch in range(at.epoch + 1, spec.num_epochs + 1):
        batch = start
        for batch in parts.trainer.epoch(backend, parts.optimizer, spec.num_batches_per_epoch, start):
            if parts.schedule and parts.trainer.stepped:
                parts.schedule.after_optimizer_step()
            report.trained(epoch, batch)
            stop = stop_requested()
            if parts.trainer.stepped:
                keep.within(epoch - 1, batch, stop)
                if stop:
                    return INTERRUPTED
        start = 0
        drawn = generators(backend.device)  # evaluation may draw as well, and be run again
        evaluation = report.evaluation(epoch, parts.evaluator.evaluate(backend), stop_requested)
        if evaluation is None:
            keep.within(epoch - 1, batch, True, drawn)
            return INTERRUPTED
        report.scores(epoch, evaluation)
        if parts.schedule:
            parts.schedule.after_epoch(evaluation.scores())
        stopped = backend.agreed(backend.is_main and parts.early_stopping.should_stop(epoch, evaluation.scores()))
        keep.after(epoch, evaluation, stopped)
        if stopped:
            return EARLY
    return Outcome("DONE")


class _Keeper:
    """Saves what the policy says after each epoch, and within epochs every so many batches and on a stop."""

    def __init__(self, spec: ExperimentSpec, parts: Parts, checkpoints: Checkpoints | None) -> None:
        self._parts = parts
        self._checkpoints = checkpoints
        self._saves = parts.backend.agreed(bool(checkpoints) and not isinstance(parts.checkpointing, SaveNone))
        self._every = spec.checkpoint_every_n_batches
        self._due = self._every or 0

    def within(self, epoch: int, batch: int, stop: bool, drawn: Mapping[str, Any] | None = None) -> None:
        if not self._saves or not (stop or (self._every and batch >= self._due)):
            return
        self._due = batch + (self._every or 0)
        state = capture(self._parts, epoch, batch, drawn or generators(self._parts.backend.device))
        if self._checkpoints:
            self._checkpoints.save(epoch, batch, state)

    def after(self, epoch: int, evaluation: Evaluation, stopped: bool) -> None:
        self._due = self._every or 0
        backend = self._parts.backend
        decision = self._parts.checkpointing.decide(epoch, evaluation.scores()) if backend.is_main else None
        if self._saves and backend.agreed(bool(decision and decision.save)):
            state = capture(self._parts, epoch, 0, generators(backend.device), evaluation, stopped)
            if self._checkpoints and decision:
                self._checkpoints.save(epoch, 0, state, decision.delete)


def resume(parts: Parts, checkpoints: Checkpoints | None) -> Resumed | None:
    """Put `parts` into the state of the newest whole checkpoint; None when there is none, or none is asked for."""
    backend = parts.backend
    found = checkpoints.newest() if checkpoints else None
    named = backend.agreed(found and [found[0].epoch, found[0].directory, found[0].batch])
    if named is None:
        return None
    at = restore(parts, Checkpoint(*named))
    if checkpoints and found:
        checkpoints.resumed(*found)
        if at.processes != backend.part.size:
            checkpoints.warn(
                f"{at.processes} processes have trained it so far, now it is {backend.part.size}: what is drawn at "
                "random from here on is something else"
            )
    return at


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
    checkpointing: Checkpointing

    def stateful(self) -> dict[str, Any]:
        """The other components with a state of their own, by name."""
        known = (self.model, self.optimizer, self.trainer, self.early_stopping, self.checkpointing)
        return {
            name: component
            for name, component in self.graph.built().items()
            if hasattr(component, "state_dict")
            and hasattr(component, "load_state_dict")
            and not any(component is other for other in known)
        }


def build(spec: ExperimentSpec, registry: Registry, on: torch.device | Backend) -> Parts:
    """The parts of `spec`. Raises `ConfigError` with the path in the experiment's configuration."""
    graph = Graph(required(spec.config), registry, spec.seed, spec.injected, spec.repeat_seed)
    backend = Backend.on(on)
    model = backend.place(graph["model"])
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
        checkpointing=graph["checkpointing_strategy"] if "checkpointing_strategy" in graph else SaveLastEpochOnly(),
    )
    _refuse_unknown_score(parts.checkpointing.monitored, evaluator, "checkpointing_strategy", "config")
    component = parts.trainer.component
    try:
        backend.precision(component.precision)
        backend.accumulated(component.accumulate_batches)
    except ConfigError as error:
        raise error.inside(graph.name_of(component), "config") from None
    backend.prepare(model, optimizer)
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
    """Evaluate one batch of each split, take one step and copy the state, to see that everything fits.

    The parts are used up.
    """
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
    state = capture(parts, 0, 0, generators(parts.backend.device))
    refuse_tensors_in_json({name: freeze(tree) for name, tree in state.items()})


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

"""What is left to do of a grid search, and from where: from its state, its grid and the checkpoints that there are."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from mlgym.plan.config import Document, RunConfig, TrainConfig, WarmstartConfig, read
from mlgym.plan.experiments import Plan, cells_of, points, read_validation, recorded_folds
from mlgym.record.events import Validation
from mlgym.record.fold import REMOVED, Experiment, State
from mlgym.specs import Checkpoint, ExperimentSpec, RunPaths


class Choice(NamedTuple):
    """What a warm start does with an experiment, and why."""

    experiment_id: int
    action: Literal["run", "choose", "keep", "remove"]
    """`choose`: run it if the inner folds choose it."""
    why: str
    attempt: int = 1
    start: Checkpoint | None = None
    num_threads: int | None = None
    epochs_done: int = 0


class Resumption(NamedTuple):
    """A warm start. `plan` holds the cells that are in the grid now, `choices` every experiment there ever was."""

    plan: Plan
    choices: list[Choice]
    changed: bool
    """Whether the grid is another than before."""

    def specs(self, grid_search_id: str) -> list[ExperimentSpec]:
        """The experiments to run."""
        specs = {spec.experiment_id: spec for spec in self.plan.specs(grid_search_id)}
        return [
            msgspec.structs.replace(
                specs[choice.experiment_id],
                attempt=choice.attempt,
                start=choice.start,
                num_threads=choice.num_threads,
            )
            for choice in self.choices
            if choice.action in ("run", "choose")
        ]

    def recorded(self) -> Validation | None:
        """What the log is told of the validation."""
        found = self.plan.recorded()
        gone = [choice.experiment_id for choice in self.choices if choice.experiment_id not in self.plan.cells]
        return found and msgspec.structs.replace(found, dropped=gone)

    def summary(self) -> str:
        """`warm start: 3 go on, 2 start, 7 kept, 1 removed`."""
        started = sum(choice.action == "run" and choice.start is None for choice in self.choices)
        counts = {
            "go on": sum(choice.start is not None for choice in self.choices),
            "start": started,
            "to choose from": sum(choice.action == "choose" for choice in self.choices),
            "kept": sum(choice.action == "keep" for choice in self.choices),
            "removed": sum(choice.action == "remove" for choice in self.choices),
        }
        found = [f"{number} {what}" for what, number in counts.items() if number]
        return "warm start: " + ", ".join(found) + (" (the grid has changed)" if self.changed else "")


def resume(
    run_document: Document,
    run_config: RunConfig,
    before: TrainConfig,
    grid_before: Document,
    grid_now: Document | None,
    state: State,
    newest: Callable[[int], Checkpoint | None],
    validation_document: Document | None = None,
) -> Resumption:
    """The warm start of the grid search in `state`; `newest` gives an experiment's newest checkpoint.

    `grid_now` is another grid than `grid_before`: cells are the same experiment when their `config_hash` is the
    same, so that cells can be added and removed.
    """
    wanted = run_config.run_configuration.config
    assert isinstance(wanted, WarmstartConfig)
    train = msgspec.structs.replace(
        before,
        num_epochs=wanted.num_epochs,
        priority=wanted.priority,
        num_batches_per_epoch=wanted.num_batches_per_epoch or before.num_batches_per_epoch,
        checkpoint_every_n_batches=wanted.checkpoint_every_n_batches or before.checkpoint_every_n_batches,
    )
    ids: dict[str, deque[int]] = defaultdict(deque)
    for experiment in sorted(state.experiments.values(), key=lambda experiment: experiment.experiment_id):
        ids[experiment.config_hash].append(experiment.experiment_id)
    grid = grid_now or grid_before
    changed = grid.text != grid_before.text
    validation = read_validation(validation_document, grid) if validation_document else None
    here = points(cells_of(grid), validation)
    # In the same grid, what has not been announced yet keeps the id that it had from the beginning.
    new = max([*state.experiments, *([] if changed else [len(here) - 1])], default=-1) + 1
    cells = {}
    for number, cell in enumerate(here):
        same = ids[cell.hash]
        if same:
            cells[same.popleft()] = cell
        elif not changed and number not in state.experiments:
            cells[number] = cell
        else:
            cells[new] = cell
            new += 1
    plan = Plan(
        run_document,
        run_config,
        train,
        grid,
        dict(sorted(cells.items())),
        validation_document,
        validation,
        recorded_folds(validation, state),
    )
    plan.start_order([])
    choices = []
    for experiment_id in sorted({*cells, *state.experiments}):
        found = state.experiments.get(experiment_id)
        if experiment_id in cells:
            if found is None and plan.waits(experiment_id):
                choices.append(Choice(experiment_id, "choose", "if the inner folds choose it"))
            else:
                choices.append(_choice(experiment_id, found, train.num_epochs, newest(experiment_id)))
        else:
            assert found is not None
            gone = finished(found, found.num_epochs) or (found.status == "STOPPED" and found.reason == REMOVED)
            action: Literal["keep", "remove"] = "keep" if gone else "remove"
            done = found.epochs_done
            choices.append(Choice(experiment_id, action, "no longer in the grid", found.attempt + 1, epochs_done=done))
    return Resumption(plan, choices, changed)


def recorded_grid(paths: RunPaths, state: State) -> Document:
    """The grid search config as the last launch had it."""
    if state.grid_search_config:
        return Document(paths.grid_search_config, state.grid_search_config)
    return read(paths.grid_search_config)


def recorded_validation(paths: RunPaths) -> Document | None:
    """The validation config of the first launch, which stays."""
    return read(paths.validation_config) if paths.validation_config.is_file() else None


def finished(experiment: Experiment, num_epochs: int) -> bool:
    """DONE with as many epochs, or stopped early: there is nothing left to do."""
    return experiment.status == "DONE" and (
        experiment.epochs_done >= num_epochs or experiment.reason == "early stopping"
    )


def _choice(experiment_id: int, found: Experiment | None, num_epochs: int, start: Checkpoint | None) -> Choice:
    if found is None:
        return Choice(experiment_id, "run", "new")
    if finished(found, num_epochs):
        return Choice(experiment_id, "keep", found.reason or "done")
    if found.status == "INIT" and found.attempt <= 1 and start is None:
        return Choice(experiment_id, "run", "was never started")
    was = "waiting" if found.status == "INIT" else found.status
    why = "more epochs" if found.status == "DONE" else found.reason or f"was {was}"
    if start is None:
        why += ": starts again, there is no checkpoint"
    else:
        why += f": goes on after epoch {start.epoch}" + (f" and {start.batch} batches" if start.batch else "")
    return Choice(experiment_id, "run", why, found.attempt + 1, start, found.num_threads)

"""The frozen values that the rooms hand to each other. Imports nothing of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

GRID_SEARCH_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

SECTIONS = ("global_config", "model_info")
"""Top-level entries of a grid search config that are not components."""

ROOTS = (
    "model",
    "trainer",
    "optimizer",
    "lr_scheduler",
    "evaluator",
    "early_stopping_strategy",
    "checkpointing_strategy",
)
"""The components that the engine asks for by name."""


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a component's `requirements`."""

    name: str
    component_name: str
    subscription: str | int | list[str | int] | None = None


class ComponentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One component as the expanded configuration describes it."""

    component_type_key: str
    variant_key: str
    config: dict[str, Any] = {}
    requirements: list[Requirement] = []


class Checkpoint(msgspec.Struct, frozen=True):
    """The state to resume from: what lies in `directory` after `epoch` finished epochs and `batch` batches more."""

    epoch: int
    directory: str
    batch: int = 0


class ExperimentSpec(msgspec.Struct, frozen=True):
    """One point of the grid: everything that a job needs to know, and nothing that changes.

    `config` is the expanded configuration before injection; `swept` maps the path of each sweep in it,
    joined by dots, to the value taken.
    """

    grid_search_id: str
    experiment_id: int
    config: dict[str, Any]
    config_hash: str
    swept: dict[str, Any]
    seed: int
    num_epochs: int
    num_batches_per_epoch: int | None = None
    checkpoint_every_n_batches: int | None = None
    deterministic: bool = False
    attempt: int = 1
    start: Checkpoint | None = None
    num_threads: int | None = None
    """Those it was begun with, when it goes on; None: as the environment has it."""
    repeat_seed: int | None = None
    """Mixed into all seeds but those of components that divide or order the data."""
    injected: dict[str, Any] = {}
    """What `{injectable: {id: X}}` stands for in this experiment only."""

    @property
    def job_id(self) -> str:
        return f"{self.experiment_id}-{self.attempt}"


class RunPaths(msgspec.Struct, frozen=True):
    """Every path of a grid search, in one place."""

    event_storage: Path
    grid_search_id: str

    @property
    def root(self) -> Path:
        return self.event_storage / self.grid_search_id

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def log(self) -> Path:
        return self.root / "event_storage.log"

    @property
    def spools(self) -> Path:
        return self.root / "spool"

    @property
    def machines(self) -> Path:
        """Spools of jobs on a cluster of the run's own, by machine, until they are copied."""
        return self.root / "machines"

    @property
    def grid_search_config(self) -> Path:
        return self.root / "grid_search_config.yml"

    @property
    def run_config(self) -> Path:
        return self.root / "run_config.yml"

    @property
    def validation_config(self) -> Path:
        return self.root / "validation_strategy_config.yml"

    def spool(self, source: str) -> Path:
        return self.spools / f"{source}.jsonl"

    def experiment(self, experiment_id: int) -> Path:
        return self.root / str(experiment_id)

    def output(self, experiment_id: int) -> Path:
        """What the experiment's jobs printed, and the stack trace of one that failed."""
        return self.experiment(experiment_id) / "output.log"

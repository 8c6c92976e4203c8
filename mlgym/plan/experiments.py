"""What is to be run: a plan from a run config. Pure, apart from reading the two files."""

from __future__ import annotations

from typing import NamedTuple

from mlgym.errors import ConfigError, ConfigPath, InputError, one_of
from mlgym.plan.config import Document, RunConfig, TrainConfig, read, required
from mlgym.plan.sweep import Cell, config_hash, expand
from mlgym.record.report import short_names
from mlgym.specs import ExperimentSpec


class Plan(NamedTuple):
    """Both files, and every experiment that they describe by its id."""

    run_document: Document
    run_config: RunConfig
    train: TrainConfig
    grid_document: Document
    cells: dict[int, Cell]

    def place(self, experiment_id: int, path: ConfigPath) -> str:
        """File, line and column of the value at `path` of an experiment's configuration."""
        return self.grid_document.place(self.cells[experiment_id].source(path))

    def specs(self, grid_search_id: str) -> list[ExperimentSpec]:
        """The experiments of a fresh grid search."""
        return [
            ExperimentSpec(
                grid_search_id=grid_search_id,
                experiment_id=experiment_id,
                config=cell.config,
                config_hash=config_hash(cell.config),
                swept={".".join(map(str, path)): value for path, value in cell.swept.items()},
                seed=self.train.seed,
                num_epochs=self.train.num_epochs,
                num_batches_per_epoch=self.train.num_batches_per_epoch,
                checkpoint_every_n_batches=self.train.checkpoint_every_n_batches,
                deterministic=self.train.deterministic,
            )
            for experiment_id, cell in self.cells.items()
        ]

    def start_order(self, specs: list[ExperimentSpec]) -> list[ExperimentSpec]:
        """`specs` in the order in which they should start: what `priority` names first, then by number.

        Each entry of `priority` gives values of sweeps: `{lr: 0.01}`. Raises `ConfigError` for one that fits nothing.
        """
        first: dict[int, ExperimentSpec] = {}
        paths = {path for spec in specs for path in spec.swept}
        for i, wanted in enumerate(self.train.priority):
            where = ("run_configuration", "config", "priority", i)
            try:
                values = {_axis(name, paths): value for name, value in wanted.items()}
            except ConfigError as error:
                raise error.inside(*where).locate(self.run_document.place) from None
            fitting = [
                spec
                for spec in specs
                if all(path in spec.swept and spec.swept[path] == value for path, value in values.items())
            ]
            if not fitting:
                raise ConfigError("no experiment has these values", where).locate(self.run_document.place)
            first |= {spec.experiment_id: spec for spec in fitting if spec.experiment_id not in first}
        return [*first.values(), *(spec for spec in specs if spec.experiment_id not in first)]


def read_plan(run_document: Document, run_config: RunConfig) -> Plan:
    """The plan of a run config that trains afresh. Raises `InputError`, with file, line and column."""
    train = run_config.run_configuration.config
    assert isinstance(train, TrainConfig)
    grid_document = read_grid(run_document, train.gs_config_path)
    cells = dict(enumerate(cells_of(grid_document)))
    plan = Plan(run_document, run_config, train, grid_document, cells)
    if train.priority:
        plan.start_order(plan.specs(""))  # one that fits nothing is a mistake
    return plan


def read_grid(run_document: Document, gs_config_path: str) -> Document:
    """The grid search config that a run config names."""
    try:
        return read(run_document.path.parent / gs_config_path)
    except ConfigError:
        raise
    except InputError as error:
        where = ("run_configuration", "config", "gs_config_path")
        raise ConfigError(str(error), where).locate(run_document.place) from None


def cells_of(grid_document: Document) -> list[Cell]:
    """The points of the grid, in the order written."""
    try:
        cells = expand(grid_document.value)
        required(cells[0].config)  # the same in every cell: requirements cannot be swept
    except ConfigError as error:
        raise error.locate(grid_document.place) from None
    return cells


def _axis(name: str, paths: set[str]) -> str:
    """The one swept path that `name` is the end of, at a dot."""
    fitting = [path for path in paths if path == name or path.endswith(f".{name}")]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ConfigError(f"{name!r} can be each of {', '.join(sorted(fitting))}", (name,))
    raise ConfigError(f"nothing called {name!r} is swept; {one_of(name, short_names(paths).values())}", (name,))

"""What is to be run: a plan from a run config. Pure, apart from reading the two files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mlgym.errors import ConfigError, ConfigPath, InputError
from mlgym.plan.config import Document, RunConfig, read, read_run_config, required
from mlgym.plan.sweep import Cell, config_hash, expand
from mlgym.specs import ExperimentSpec


class Plan(NamedTuple):
    """Both files and every experiment they describe; `cells[i]` belongs to experiment i."""

    run_document: Document
    run_config: RunConfig
    grid_document: Document
    cells: list[Cell]

    def place(self, experiment_id: int, path: ConfigPath) -> str:
        """File, line and column of the value at `path` of an experiment's configuration."""
        return self.grid_document.place(self.cells[experiment_id].source(path))

    def specs(self, grid_search_id: str) -> list[ExperimentSpec]:
        """The experiments of a fresh grid search."""
        train = self.run_config.run_configuration.config
        return [
            ExperimentSpec(
                grid_search_id=grid_search_id,
                experiment_id=i,
                config=cell.config,
                config_hash=config_hash(cell.config),
                swept={".".join(map(str, path)): value for path, value in cell.swept.items()},
                seed=train.seed,
                num_epochs=train.num_epochs,
                num_batches_per_epoch=train.num_batches_per_epoch,
            )
            for i, cell in enumerate(self.cells)
        ]


def read_plan(run_config_path: Path) -> Plan:
    """The plan for the run config at `run_config_path`. Raises `InputError`, with file, line and column."""
    run_document, run_config = read_run_config(run_config_path)
    gs_config_path = run_config_path.parent / run_config.run_configuration.config.gs_config_path
    try:
        grid_document = read(gs_config_path)
    except ConfigError:
        raise
    except InputError as error:
        where = ("run_configuration", "config", "gs_config_path")
        raise ConfigError(str(error), where).locate(run_document.place) from None
    try:
        cells = expand(grid_document.value)
        required(cells[0].config)  # the same in every cell: requirements cannot be swept
    except ConfigError as error:
        raise error.locate(grid_document.place) from None
    return Plan(run_document, run_config, grid_document, cells)

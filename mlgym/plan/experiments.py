"""What is to be run: a plan from a run config. Pure, apart from reading the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from mlgym.errors import ConfigError, ConfigPath, InputError, one_of
from mlgym.plan import folds
from mlgym.plan.config import Document, RunConfig, TrainConfig, components, read, required
from mlgym.plan.folds import NestedCrossValidation, Part, Validation
from mlgym.plan.sweep import MAX_CELLS, Cell, expand
from mlgym.record.events import Validation as Recorded
from mlgym.record.events import plain, too_deep
from mlgym.record.fold import State
from mlgym.record.report import short_names
from mlgym.record.validation import OUTER, SEED
from mlgym.specs import ExperimentSpec

_MOST_STATED = 100_000  # bytes of `model_info`


class Folds(NamedTuple):
    """What each part is tested on, of a split of so many samples."""

    samples: int
    tests: Mapping[Part, list[int]]

    def indices(self) -> dict[Part, dict[str, list[int]]]:
        """What each part trains on and is tested on."""
        return {part: folds.indices(part, self.tests, self.samples) for part in self.tests}


class Plan(NamedTuple):
    """The files, and every experiment that they describe by its id."""

    run_document: Document
    run_config: RunConfig
    train: TrainConfig
    grid_document: Document
    cells: dict[int, Cell]
    validation_document: Document | None = None
    validation: Validation | None = None
    folds: Folds | None = None
    """None until the data are known, and without cross validation."""

    def place(self, experiment_id: int, path: ConfigPath) -> str:
        """File, line and column of the value at `path` of an experiment's configuration."""
        return self.grid_document.place(self.cells[experiment_id].source(path))

    def specs(self, grid_search_id: str) -> list[ExperimentSpec]:
        """The experiments of a fresh grid search."""
        indices = self.folds.indices() if self.folds else {}
        return [
            ExperimentSpec(
                grid_search_id=grid_search_id,
                experiment_id=experiment_id,
                config=cell.config,
                config_hash=cell.hash,
                swept=_dotted(cell),
                seed=self.train.seed,
                num_epochs=self.train.num_epochs,
                num_batches_per_epoch=self.train.num_batches_per_epoch,
                checkpoint_every_n_batches=self.train.checkpoint_every_n_batches,
                deterministic=self.train.deterministic,
                repeat_seed=cell.seed,
                injected=injected(experiment_id, cell, indices) if self.validation else {},
            )
            for experiment_id, cell in self.cells.items()
        ]

    @property
    def num_experiments(self) -> int:
        """How many will be run."""
        waiting = [cell for experiment_id, cell in self.cells.items() if self.waits(experiment_id)]
        return len(self.cells) - len(waiting) + len(waiting) // max(1, len({cell.combination for cell in waiting}))

    def waits(self, experiment_id: int) -> bool:
        """Whether it is run only once the inner folds have chosen its combination."""
        wanted = self.validation.folds if self.validation else None
        if not isinstance(wanted, NestedCrossValidation) or not wanted.config.outer_only_for_selected:
            return False
        part = self.cells[experiment_id].part
        return part is not None and part.inner == OUTER

    def start_order(self, specs: list[ExperimentSpec]) -> list[ExperimentSpec]:
        """`specs`, some of the plan's, in the order in which they should start: what `priority` names first.

        Each entry of `priority` gives values of sweeps: `{lr: 0.01}`. Raises `ConfigError` for one that fits nothing in
        the plan.
        """
        place: dict[int, int] = {}
        swept = {i: _dotted(cell) for i, cell in self.cells.items()} if self.train.priority else {}
        paths = {path for values in swept.values() for path in values}
        for i, wanted in enumerate(self.train.priority):
            where = ("run_configuration", "config", "priority", i)
            try:
                values = {_axis(name, paths): value for name, value in wanted.items()}
            except ConfigError as error:
                raise error.inside(*where).locate(self.run_document.place) from None
            fitting = [
                experiment_id
                for experiment_id, found in swept.items()
                if all(path in found and found[path] == value for path, value in values.items())
            ]
            if not fitting:
                raise ConfigError("no experiment has these values", where).locate(self.run_document.place)
            for experiment_id in fitting:
                place.setdefault(experiment_id, len(place))
        return sorted(specs, key=lambda spec: place.get(spec.experiment_id, len(place)))

    def recorded(self) -> Recorded | None:
        """What the log is told of the validation."""
        if self.validation is None:
            return None
        wanted = self.validation.folds
        found = Recorded(
            combinations=len({repr(cell.values) for cell in self.cells.values()}),
            outer_folds=len({part.outer for part in folds.parts(wanted)}) if wanted else 0,
            seeds=list(self.validation.seeds),
        )
        if not isinstance(wanted, NestedCrossValidation):
            return found
        config = wanted.config
        return replace(
            found,
            inner_folds=config.num_inner_loop_folds,
            selected_only=config.outer_only_for_selected,
            metric=config.metric,
            mode=config.mode,
            epoch=config.epoch,
        )


def read_plan(run_document: Document, run_config: RunConfig) -> Plan:
    """The plan of a run config that trains afresh. Raises `InputError`, with file, line and column."""
    train = run_config.run_configuration.config
    assert isinstance(train, TrainConfig)
    grid_document = read_grid(run_document, train.gs_config_path)
    document = _named(run_document, "validation_config_path", train.validation_config_path)
    validation = read_validation(document, grid_document) if document else None
    cells = dict(enumerate(points(cells_of(grid_document), validation)))
    plan = Plan(run_document, run_config, train, grid_document, cells, document, validation)
    plan.start_order([])  # a priority that fits nothing is a mistake
    return plan


def read_grid(run_document: Document, gs_config_path: str) -> Document:
    """The grid search config that a run config names."""
    found = _named(run_document, "gs_config_path", gs_config_path)
    assert found
    return found


def _named(run_document: Document, key: str, path: str | None) -> Document | None:
    """The file that a run config names."""
    if path is None:
        return None
    try:
        return read(run_document.path.parent / path)
    except ConfigError:
        raise
    except InputError as error:
        where = ("run_configuration", "config", key)
        raise ConfigError(str(error), where).locate(run_document.place) from None


def read_validation(document: Document, grid_document: Document) -> Validation:
    """What a validation config asks for, of that grid. Raises `ConfigError`, with its place."""
    found = folds.validation(document)
    if found.folds:
        try:
            names = components(grid_document.value)
        except ConfigError as error:
            raise error.locate(grid_document.place) from None
        if found.folds.iterator_key not in names:
            raise ConfigError(
                f"there is no component named {found.folds.iterator_key!r}; {one_of(found.folds.iterator_key, names)}",
                (*found.where, "iterator_key"),
            ).locate(document.place)
    return found


def cells_of(grid_document: Document) -> list[Cell]:
    """The points of the grid, in the order written."""
    try:
        cells = expand(grid_document.value)
        required(cells[0].config)  # the same in every cell: requirements cannot be swept
        stated(grid_document)
    except ConfigError as error:
        raise error.locate(grid_document.place) from None
    return cells


def stated(grid_document: Document) -> dict[str, Any]:
    """What `model_info` says about the model. Raises `ConfigError` for more than an event can hold."""
    found = grid_document.value.get("model_info") or {}
    if not isinstance(found, dict):
        found = {"model_description": found}
    try:
        text = msgspec.json.encode(plain(found))
    except UnicodeEncodeError:
        raise ConfigError("holds characters that are none", ("model_info",)) from None
    if len(text) > _MOST_STATED or too_deep(text):
        raise ConfigError(f"expected up to {_MOST_STATED:,} bytes, nested up to 60 deep", ("model_info",))
    result: dict[str, Any] = msgspec.json.decode(text)
    return result


def points(cells: list[Cell], validation: Validation | None) -> list[Cell]:
    """Every cell on every fold with every seed: by fold, then by seed, then by cell."""
    if validation is None:
        return cells
    parts = folds.parts(validation.folds) if validation.folds else [None]
    seeds = validation.seeds or [None]
    count = len(cells) * len(parts) * len(seeds)
    if count > MAX_CELLS:
        raise InputError(f"the grid has {count:,} experiments, with folds and seeds; at most {MAX_CELLS:,} are taken")
    return [
        cell._replace(
            swept=cell.swept
            | {(name,): number for name, number in (part.swept.items() if part else ())}
            | ({} if seed is None else {(SEED,): seed}),
            combination=combination,
            part=part,
            seed=seed,
        )
        for part in parts
        for seed in seeds
        for combination, cell in enumerate(cells)
    ]


def recorded_folds(validation: Validation | None, state: State) -> Folds | None:
    """The folds as a log has them; None if it has not all of each."""
    if not validation or not validation.folds or not state.folds:
        return None
    tests = {
        part: state.folds[part.name].test.tolist() for part in folds.parts(validation.folds) if part.name in state.folds
    }
    samples = next(iter(state.folds.values())).samples
    found = Folds(samples, tests)
    return found if folds.whole(validation.folds, tests, samples) else None


def injected(experiment_id: int, cell: Cell, indices: Mapping[Part, dict[str, list[int]]]) -> dict[str, Any]:
    """What the configuration of an experiment of a validation may ask for."""
    found: dict[str, Any] = {
        "id_experiment_id": experiment_id,
        "id_hyper_paramater_combination_id": cell.combination,
        "id_hyper_parameter_combination_id": cell.combination,
    }
    if cell.part:
        found |= cell.part.ids
        if cell.part in indices:
            found["id_split_indices"] = indices[cell.part]
    return found


def _dotted(cell: Cell) -> dict[str, Any]:
    """What is swept, by path as it is recorded."""
    return {".".join(map(str, path)): value for path, value in cell.swept.items()}


def _axis(name: str, paths: set[str]) -> str:
    """The one swept path that `name` is the end of, at a dot."""
    fitting = [path for path in paths if path == name or path.endswith(f".{name}")]
    if name in paths:
        return name
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ConfigError(f"{name!r} can be each of {', '.join(sorted(fitting))}", (name,))
    raise ConfigError(f"nothing called {name!r} is swept; {one_of(name, short_names(paths).values())}", (name,))

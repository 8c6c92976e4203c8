"""The model card as data: its six sections. What was not recorded is None or empty. Imports events, report."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from mlgym.record.events import CheckpointFile, Layer, Number
from mlgym.record.report import Mode


class _Part(Struct, frozen=True, kw_only=True):
    pass


class Checkpoint(_Part, frozen=True, kw_only=True):
    epoch: int
    files: list[CheckpointFile]


class ModelDetails(_Part, frozen=True, kw_only=True):
    """What the model is. `stated` is the rest of what the user says in `model_info`."""

    name: str
    model_description: str | None
    model_version: str | None
    source_repo: str | None
    stated: dict[str, Any]
    grid_search_id: str
    experiment_id: int
    config_hash: str
    seq: int
    """The card is as of this event of the log."""
    status: str
    training_date: int | None
    """Unix time in ms: when the training ended, or else when it began."""
    type: str | None
    trainable_parameters: int | None
    total_parameters: int | None
    size_bytes: int | None
    modules: int | None
    layers: list[Layer]
    checkpoint: Checkpoint | None


class Label(_Part, frozen=True, kw_only=True):
    label: int
    name: str
    count: int
    percentage: float
    """Of the samples of the split."""


class Split(_Part, frozen=True, kw_only=True):
    """`percentage`: of the samples of all splits listed."""

    split: str
    samples: int
    percentage: float
    uses: list[str]
    batch_size: int
    sample_shape: list[int] | None
    sample_dtype: str
    target_shape: list[int] | None
    target_dtype: str
    label_distribution: list[Label]
    multi_label: bool
    spread: dict[str, Number]
    uncounted: str


class DatasetDetails(_Part, frozen=True, kw_only=True):
    datasets: list[str]
    """As the configuration names them."""
    splits: list[Split]
    fold: dict[str, Any]
    """Which fold, of cross validation, and which seed."""


class Hyperparameter(_Part, frozen=True, kw_only=True):
    """`parameter` is a path in the configuration; with `swept`, the grid has several values for it."""

    parameter: str
    value: Any
    swept: bool


class Run(_Part, frozen=True, kw_only=True):
    """An attempt at the training."""

    attempt: int
    status: str
    start_epoch: int
    starting_time: int | None
    finishing_time: int | None
    seconds: float | None
    device: str | None
    host: str | None
    reason: str | None


class TrainingDetails(_Part, frozen=True, kw_only=True):
    """Seconds are summed over all attempts; None where nothing says how long one took."""

    hyperparameters: list[Hyperparameter]
    loss: dict[str, Any] | None
    optimizer: dict[str, Any] | None
    lr_scheduler: dict[str, Any] | None
    early_stopping: dict[str, Any] | None
    seed: int | None
    epochs_done: int
    num_epochs: int
    starting_time: int | None
    finishing_time: int | None
    seconds: float | None
    training_seconds: float | None
    evaluation_seconds: float | None
    devices: list[str]
    num_threads: int | None
    memory_bytes: int | None
    device_memory_bytes: int | None
    runs: list[Run]


class At(_Part, frozen=True, kw_only=True):
    epoch: int
    value: Number


class ScoreDetails(_Part, frozen=True, kw_only=True):
    """A score on a split: the last, the best by `mode`, and what it was when the score that is judged by was best."""

    tag: str
    split: str
    loss: bool
    mode: Mode
    last: At
    best: At | None
    at_best_epoch: Number | None
    epochs: list[int]
    values: list[Number]


class ClassScore(_Part, frozen=True, kw_only=True):
    """None where it is not defined: nothing was predicted as the class, or nothing is of it."""

    label: int
    name: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


class Confusion(_Part, frozen=True, kw_only=True):
    actual: str
    predicted: str
    count: int


class ClassDetails(_Part, frozen=True, kw_only=True):
    """Results by class on a split. `confusion` has a row for each actual class; empty with more than 40 of them."""

    split: str
    target: str
    prediction: str
    epoch: int
    best: bool
    last: bool
    samples: int
    accuracy: float
    classes: list[ClassScore]
    confusion: list[list[int]]
    confusions: list[Confusion]
    """The most frequent mistakes."""


class EvalDetails(_Part, frozen=True, kw_only=True):
    """`score` is what experiments are compared by, `best_epoch` the one where it is best."""

    score: str | None
    mode: Mode
    best_epoch: int | None
    metrics: list[dict[str, Any]]
    losses: list[dict[str, Any]]
    scores: list[ScoreDetails]
    class_results: list[ClassDetails]


class Energy(_Part, frozen=True, kw_only=True):
    """`basis`: the energy was measured, or is the duration times a power that was stated or is an estimate.

    `explanation` says of what.
    """

    hours: float | None
    basis: Literal["measured", "stated", "estimate"] | None
    power_watts: float | None
    energy_kwh: float | None
    carbon_g: float | None
    cost: float | None
    currency: str
    explanation: str


class Environment(_Part, frozen=True, kw_only=True):
    """`hosts`: what each machine that took part says of itself."""

    hosts: list[dict[str, Any]]
    carbon_and_cost: Energy


class Component(_Part, frozen=True, kw_only=True):
    """`swept`: the paths in its configuration that the grid has several values for."""

    name: str
    component_type_key: str
    variant_key: str
    config: dict[str, Any]
    requirements: list[dict[str, Any]]
    swept: list[str]


class PipelineDetails(_Part, frozen=True, kw_only=True):
    components: list[Component]


class ModelCard(_Part, frozen=True, kw_only=True):
    model_details: ModelDetails
    dataset_details: DatasetDetails
    training_details: TrainingDetails
    eval_details: EvalDetails
    experiment_environment: Environment
    pipeline_details: PipelineDetails


def as_json(found: ModelCard) -> bytes:
    """The card as JSON."""
    return msgspec.json.encode(found)

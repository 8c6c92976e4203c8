"""The model card of an experiment as data: its six sections, from what the log says. Pure, apart from `sources`.

Nothing is made up: what was not recorded is None or empty, what the user did not state is not there, and an estimate
says what it is of. Sections follow Mitchell et al., Model Cards for Model Reporting (2019), and the template of the
Hugging Face hub. Imports errors, events, fold, log, report, scores, validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from mlgym.errors import InputError, one_of
from mlgym.record.events import (
    CheckpointEvent,
    CheckpointFile,
    ClassCounts,
    ClassResults,
    DataFacts,
    ExperimentConfig,
    JobUsage,
    Layer,
    ModelFacts,
    Number,
    SplitFacts,
    decode,
    number,
)
from mlgym.record.fold import Attempt, Experiment, State
from mlgym.record.log import Log
from mlgym.record.report import Mode, judged_by
from mlgym.record.scores import Scores
from mlgym.record.validation import AXES
from mlgym.specs import ROOTS

T = TypeVar("T")

MAX_POINTS = 400
"""Of each score by epoch; of more, the extremes and the last of each stretch are kept."""

CPU_WATTS = 10.0
GPU_WATTS = 300.0
"""What is taken for the power of one CPU thread and of one GPU when it was neither measured nor stated."""

_LED = ("model_description", "model_version", "source_repo")
_POWER = ("power_watts", "carbon_intensity_g_per_kwh", "price_per_kwh", "currency")

# --- what a card is made of ---------------------------------------------------------------------------------


class Sources(NamedTuple):
    """All that a card is made of; None and empty where the log has nothing."""

    state: State
    experiment: Experiment
    info: Mapping[str, Any]
    """What the user states: `model_info`."""
    config: dict[str, Any]
    seed: int | None
    model: ModelFacts | None
    data: DataFacts | None
    classes: list[ClassResults]
    """By rising epoch."""
    usages: dict[int, JobUsage]
    """By attempt."""
    files: list[CheckpointFile]
    """Of the newest checkpoint."""


def sources(log: Log, state: State, experiment_id: int, info: Mapping[str, Any] | None = None) -> Sources:
    """What the log has about an experiment as of `state`, which is that of now or an earlier one. Reads a few lines.

    `info` takes the place of what the grid search config stated. Raises `InputError` when there is no such experiment.
    """
    experiment = state.experiments.get(experiment_id)
    if experiment is None:
        known = [str(number) for number in sorted(state.experiments)]
        which = one_of(str(experiment_id), known) if len(known) <= 20 else f"there are {known[0]} to {known[-1]}"
        raise InputError(f"there is no experiment {experiment_id} in {state.grid_search_id}; {which}")

    def said(name: str, kind: type[T]) -> T | None:
        return _payload(log, experiment.facts.get(name, 0), kind)

    told = _payload(log, experiment.config_seq, ExperimentConfig)
    config = msgspec.json.decode(told.config) if told else {}
    classes = [said(name, ClassResults) for name in _numbered(experiment.facts, "classes")]
    usages = {number: said(name, JobUsage) for name, number in _numbered(experiment.facts, "usage").items()}
    newest = experiment.checkpoints[max(experiment.checkpoints)] if experiment.checkpoints else None
    saved = _payload(log, newest.seq, CheckpointEvent) if newest else None
    return Sources(
        state,
        experiment,
        state.model_info if info is None else info,
        config if isinstance(config, dict) else {},
        told.seed if told else None,
        said("model", ModelFacts),
        said("data", DataFacts),
        [one for one in classes if one],
        {number: one for number, one in usages.items() if one},
        saved.files if saved else [],
    )


def _payload(log: Log, seq: int, kind: type[T]) -> T | None:
    """The payload of event `seq`, if it is of that kind."""
    for line in log.lines(seq - 1, 1) if seq > 0 else ():
        event = decode(line)
        payload = getattr(event, "payload", None)
        if event.seq == seq and isinstance(payload, kind):
            return payload
    return None


def _numbered(facts: Mapping[str, int], kind: str) -> dict[str, int]:
    """`kind/12` -> 12, by rising number."""
    found = {name: int(name.partition("/")[2]) for name in facts if name.startswith(f"{kind}/")}
    return dict(sorted(found.items(), key=lambda item: item[1]))


# --- the card -----------------------------------------------------------------------------------------------


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


def card(of: Sources) -> ModelCard:
    """The model card."""
    evaluation = _evaluation(of)
    training = _training(of)
    return ModelCard(
        model_details=_model(of),
        dataset_details=_dataset(of),
        training_details=training,
        eval_details=evaluation,
        experiment_environment=Environment(hosts=_hosts(of), carbon_and_cost=_energy(of, training)),
        pipeline_details=PipelineDetails(components=_components(of)),
    )


def as_json(found: ModelCard) -> bytes:
    """The card as JSON."""
    return msgspec.json.encode(found)


# --- sections -----------------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    """What the user states, if it is anything."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _model(of: Sources) -> ModelDetails:
    state, experiment, info, facts = of.state, of.experiment, of.info, of.model
    name = _text(info.get("model_name")) or (facts.type.rpartition(".")[2] if facts else None) or _model_key(of)
    return ModelDetails(
        name=name or f"experiment {experiment.experiment_id} of {state.grid_search_id}",
        model_description=_text(info.get("model_description")),
        model_version=_text(info.get("model_version")),
        source_repo=_text(info.get("source_repo")),
        stated={
            str(key): value
            for key, value in info.items()
            if key not in (*_LED, *_POWER, "model_name", "class_names") and value not in (None, "", [], {})
        },
        grid_search_id=state.grid_search_id,
        experiment_id=experiment.experiment_id,
        config_hash=experiment.config_hash,
        seq=state.seq,
        status=experiment.status,
        training_date=experiment.finishing_time or experiment.starting_time,
        type=facts.type if facts else None,
        trainable_parameters=facts.trainable if facts else None,
        total_parameters=facts.parameters if facts else None,
        size_bytes=facts.size_bytes if facts else None,
        modules=facts.modules if facts else None,
        layers=facts.layers if facts else [],
        checkpoint=Checkpoint(epoch=max(experiment.checkpoints), files=of.files) if experiment.checkpoints else None,
    )


def _model_key(of: Sources) -> str | None:
    """The name under which the model is registered."""
    for requirement in _requirements(of.config.get("model")):
        if isinstance(requirement.get("subscription"), str):
            return str(requirement["subscription"])
    return None


def _requirements(entry: Any) -> list[dict[str, Any]]:
    found = entry.get("requirements") if isinstance(entry, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _of_type(of: Sources, *types: str) -> Iterable[dict[str, Any]]:
    """The configurations of the components of these types."""
    for entry in of.config.values():
        if (
            isinstance(entry, dict)
            and entry.get("component_type_key") in types
            and isinstance(entry.get("config"), dict)
        ):
            yield entry["config"]


def _dataset(of: Sources) -> DatasetDetails:
    facts = of.data.splits if of.data else []
    total = sum(split.samples for split in facts)
    return DatasetDetails(
        datasets=[
            str(config["dataset_identifier"])
            for config in _of_type(of, "DATASET_ITERATORS")
            if "dataset_identifier" in config
        ],
        splits=[_split(of, split, total) for split in facts],
        fold={name: value for name, value in of.experiment.swept.items() if name in AXES},
    )


def _split(of: Sources, facts: SplitFacts, total: int) -> Split:
    counts = [(one.label, one.count) for one in facts.labels]
    if not counts and not facts.spread:  # an evaluation has seen every label once
        seen = [counted for found in of.classes[:1] for counted in found.splits if counted.split == facts.split]
        counts = [pair for counted in seen[:1] for pair in zip(counted.labels, counted.actual, strict=False) if pair[1]]
    return Split(
        split=facts.split,
        samples=facts.samples,
        percentage=_percent(facts.samples, total),
        uses=list(facts.uses),
        batch_size=facts.batch_size,
        sample_shape=facts.sample_shape,
        sample_dtype=facts.sample_dtype,
        target_shape=facts.target_shape,
        target_dtype=facts.target_dtype,
        label_distribution=[
            Label(label=label, name=_named(of, label), count=count, percentage=_percent(count, facts.samples))
            for label, count in counts
        ],
        multi_label=facts.multi_label,
        spread=facts.spread,
        uncounted="" if counts else facts.uncounted,
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _named(of: Sources, label: int) -> str:
    """As `class_names` has it: a list, or a mapping from labels."""
    names = of.info.get("class_names")
    if isinstance(names, list) and 0 <= label < len(names):
        return str(names[label])
    return str(names.get(str(label), label)) if isinstance(names, dict) else str(label)


def _training(of: Sources) -> TrainingDetails:
    experiment = of.experiment
    runs = [_run(of, attempt) for attempt in experiment.attempts]
    train = next(iter(_of_type(of, "TRAIN_COMPONENT")), {})
    known = all(run.seconds is not None for run in runs) and runs
    usages = of.usages.values()
    told = bool(usages) and len(usages) == len(runs)
    device_memory = [usage.device_memory_bytes for usage in usages if usage.device_memory_bytes is not None]
    return TrainingDetails(
        hyperparameters=_hyperparameters(of),
        loss=_part(train.get("loss_fun_config")),
        optimizer=_part(_config(of, "optimizer")),
        lr_scheduler=_part(_config(of, "lr_scheduler")),
        early_stopping=_part(_config(of, "early_stopping_strategy")),
        seed=of.seed,
        epochs_done=experiment.epochs_done,
        num_epochs=experiment.num_epochs,
        starting_time=min((run.starting_time for run in runs if run.starting_time), default=None),
        finishing_time=experiment.finishing_time,
        seconds=sum(run.seconds or 0 for run in runs) if known else None,
        training_seconds=sum(usage.training_seconds for usage in usages) if told else None,
        evaluation_seconds=sum(usage.evaluation_seconds for usage in usages) if told else None,
        devices=list(dict.fromkeys(run.device for run in runs if run.device)),
        num_threads=experiment.num_threads,
        memory_bytes=max((usage.memory_bytes for usage in usages), default=None),
        device_memory_bytes=max(device_memory, default=None),
        runs=runs,
    )


def _run(of: Sources, attempt: Attempt) -> Run:
    """A job that was lost has said no end; one that runs has come as far as the log."""
    begin, end = attempt.starting_time, attempt.finishing_time
    end = end or (of.state.time if attempt.status == "RUNNING" else None)
    seconds = None if begin is None or end is None else max(0, end - begin) / 1000
    return Run(
        attempt=attempt.attempt,
        status=attempt.status,
        start_epoch=attempt.start_epoch,
        starting_time=attempt.starting_time,
        finishing_time=attempt.finishing_time,
        seconds=seconds,
        device=attempt.device,
        host=attempt.host,
        reason=attempt.reason,
    )


def _config(of: Sources, name: str) -> Any:
    entry = of.config.get(name)
    return entry.get("config") if isinstance(entry, dict) else None


def _part(config: Any) -> dict[str, Any] | None:
    """`{optimizer_key: ADAM, ...}` as `{key: ADAM, ...}`."""
    if not isinstance(config, dict):
        return None
    key = "key" if "key" in config else next((name for name in config if str(name).endswith("_key")), None)
    return {"key": config[key], **{name: v for name, v in config.items() if name != key}} if key else dict(config)


def _hyperparameters(of: Sources) -> list[Hyperparameter]:
    """Values of the configuration: swept ones first, folds not at all, and not what only evaluation needs."""
    swept = {path: value for path, value in of.experiment.swept.items() if path not in AXES}
    found = [Hyperparameter(parameter=path, value=value, swept=True) for path, value in swept.items()]
    for name in _used(of.config):
        if of.config[name].get("component_type_key") == "EVAL_COMPONENT":
            continue
        for path, value in _leaves(f"{name}.config", _config(of, name)):
            if not any(path == taken or path.startswith(f"{taken}.") for taken in swept):
                found.append(Hyperparameter(parameter=path, value=value, swept=False))
    return found


def _leaves(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for i, inner in enumerate(value):
            yield from _leaves(f"{path}.{i}", inner)
    elif value is not None and not path.endswith(("_subscription_key", "_publication_key", ".tag")):
        yield path, value


def _used(config: Mapping[str, Any]) -> list[str]:
    """The components that are built, in the order written; all of them, should there be no such as are asked for."""
    found: set[str] = set()
    left = [name for name in ROOTS if name in config]
    while left:
        name = left.pop()
        if name not in found and isinstance(config.get(name), dict):
            found.add(name)
            left += [str(one.get("component_name")) for one in _requirements(config[name])]
    return [name for name, entry in config.items() if isinstance(entry, dict) and (name in found or not found)]


def _components(of: Sources) -> list[Component]:
    return [
        Component(
            name=name,
            component_type_key=str(of.config[name].get("component_type_key", "")),
            variant_key=str(of.config[name].get("variant_key", "")),
            config=config if isinstance(config := of.config[name].get("config"), dict) else {},
            requirements=_requirements(of.config[name]),
            swept=[path for path in of.experiment.swept if path.startswith(f"{name}.")],
        )
        for name in _used(of.config)
    ]


# --- evaluation ---


def _evaluation(of: Sources) -> EvalDetails:
    experiment = of.experiment
    try:
        score, mode = judged_by(of.state.experiments.values(), _validated_by(of))
    except InputError:
        score, mode = judged_by(of.state.experiments.values())
    if score is not None and of.state.validation and of.state.validation.mode:
        mode = of.state.validation.mode
    judged = experiment.scores.get(score or "", Scores())
    at = judged.highest() if mode == "max" else judged.lowest()
    best = None if at is None else judged.epochs[at]
    scores = [_score(experiment, key, score, mode, best) for key, found in experiment.scores.items() if found]
    evaluated = next(iter(_of_type(of, "EVAL_COMPONENT")), {})
    return EvalDetails(
        score=score,
        mode=mode,
        best_epoch=best,
        metrics=_parts(evaluated.get("metrics_config")),
        losses=_parts(evaluated.get("loss_funs_config")),
        scores=scores,
        class_results=_class_results(of, best),
    )


def _validated_by(of: Sources) -> str | None:
    return of.state.validation.metric if of.state.validation else None


def _parts(entries: Any) -> list[dict[str, Any]]:
    return [found for entry in entries if (found := _part(entry))] if isinstance(entries, list) else []


def _score(experiment: Experiment, key: str, judged: str | None, mode: Mode, best: int | None) -> ScoreDetails:
    scores = experiment.scores[key]
    split, _, tag = key.partition("/")
    own = mode if key == judged else judged_by([experiment], key)[1]
    at = scores.highest() if own == "max" else scores.lowest()
    kept = _kept(scores)
    return ScoreDetails(
        tag=tag,
        split=split,
        loss=key in experiment.losses,
        mode=own,
        last=At(epoch=scores.epochs[-1], value=number(scores.values_[-1])),
        best=None if at is None else At(epoch=scores.epochs[at], value=number(scores.values_[at])),
        at_best_epoch=number(scores[best]) if best is not None and best in scores else None,
        epochs=[scores.epochs[i] for i in kept],
        values=[number(scores.values_[i]) for i in kept],
    )


def _kept(scores: Scores) -> list[int]:
    """The places of all points, or of the smallest, largest and last of each stretch."""
    count = len(scores)
    if count <= MAX_POINTS:
        return list(range(count))
    kept = {0, count - 1}
    stretches = MAX_POINTS // 3
    for i in range(stretches):
        places = range(count * i // stretches, count * (i + 1) // stretches)
        known = [at for at in places if math.isfinite(scores.values_[at])] or list(places)
        kept |= {min(known, key=scores.values_.__getitem__), max(known, key=scores.values_.__getitem__), known[-1]}
    return sorted(kept)


def _class_results(of: Sources, best: int | None) -> list[ClassDetails]:
    """Those of the best epoch, if they were recorded, and of the last one that was; what was trained on comes last."""
    trained = [split.split for split in (of.data.splits if of.data else ()) if "training" in split.uses]
    last = of.classes[-1].epoch if of.classes else None
    return [
        _class_details(of, counted, found.epoch, found.epoch == best, found.epoch == last)
        for found in reversed(of.classes)
        if found.epoch in (best, last)
        for counted in sorted(found.splits, key=lambda counted: counted.split in trained)
    ]


def _class_details(of: Sources, counted: ClassCounts, epoch: int, best: bool, last: bool) -> ClassDetails:
    samples = sum(counted.actual)
    return ClassDetails(
        split=counted.split,
        target=counted.target,
        prediction=counted.prediction,
        epoch=epoch,
        best=best,
        last=last,
        samples=samples,
        accuracy=sum(counted.correct) / samples if samples else 0.0,
        classes=[
            ClassScore(
                label=label,
                name=_named(of, label),
                support=actual,
                predicted=predicted,
                precision=_ratio(correct, predicted),
                recall=_ratio(correct, actual),
                f1=_ratio(2 * correct, actual + predicted),
            )
            for label, actual, predicted, correct in zip(
                counted.labels, counted.actual, counted.predicted, counted.correct, strict=False
            )
        ],
        confusion=counted.confusion if all(len(row) == len(counted.labels) for row in counted.confusion) else [],
        confusions=[
            Confusion(actual=_named(of, one[0]), predicted=_named(of, one[1]), count=one[2])
            for one in counted.confusions
            if len(one) == 3
        ],
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


# --- where it ran ---


def _hosts(of: Sources) -> list[dict[str, Any]]:
    """Those of the attempts, or all that took part; without the folder that the run was started in."""
    named = [attempt.host for attempt in of.experiment.attempts if attempt.host in of.state.hosts]
    names = list(dict.fromkeys(named)) or list(of.state.hosts)
    return [
        {"host": name, **{key: value for key, value in of.state.hosts[name].items() if key != "working_directory"}}
        for name in names
        if name is not None
    ]


def _energy(of: Sources, training: TrainingDetails) -> Energy:
    """Duration times power, or what was measured; carbon and cost only with what the user states."""
    info, runs = of.info, training.runs
    hours = None if training.seconds is None else training.seconds / 3600
    stated = _positive(info.get("power_watts"))
    measured = [usage.energy_joules for usage in of.usages.values() if usage.energy_joules is not None]
    basis: Literal["measured", "stated", "estimate"] | None = None
    power = energy = None
    if runs and len(measured) == len(runs):
        basis, energy = "measured", sum(measured) / 3.6e6
        power = energy * 1000 / hours if hours else None
        explanation = (
            "the energy counter of the GPU, with all that ran on it meanwhile; without the rest of the machine"
        )
    elif hours is None:
        explanation = "not known: of at least one attempt nothing says how long it took" if runs else "nothing has run"
    elif stated is not None:
        basis, power = "stated", stated
        explanation = f"{hours:.3g} h x {stated:g} W, the power that model_info states"
    else:
        basis, (power, explanation) = "estimate", _guess(training)
        explanation = f"estimate: {hours:.3g} h x {explanation}; without memory, cooling and the rest of the machine"
    if energy is None and power is not None and hours is not None:
        energy = power * hours / 1000
    intensity, price = _positive(info.get("carbon_intensity_g_per_kwh")), _positive(info.get("price_per_kwh"))
    return Energy(
        hours=hours,
        basis=basis,
        power_watts=power,
        energy_kwh=energy,
        carbon_g=None if energy is None or intensity is None else energy * intensity,
        cost=None if energy is None or price is None else energy * price,
        currency=_text(info.get("currency")) or "",
        explanation=explanation,
    )


def _guess(training: TrainingDetails) -> tuple[float, str]:
    if any(device.startswith("cuda") for device in training.devices):
        return GPU_WATTS, f"{GPU_WATTS:g} W, a guess for one GPU"
    threads = training.num_threads or 1
    return threads * CPU_WATTS, f"{threads} x {CPU_WATTS:g} W, a guess for each CPU thread"


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(value)

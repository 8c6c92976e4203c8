"""The model card of an experiment, from what the log says. Pure.

Nothing is made up: what was not recorded is None or empty, what the user did not state is not there, and an estimate
says what it is of. Sections follow Mitchell et al., Model Cards for Model Reporting (2019), and the template of the
Hugging Face hub. Imports card_evaluation, card_schema, card_sources, events, fold, specs, validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from mlgym.record.card_evaluation import evaluation
from mlgym.record.card_schema import (
    Checkpoint,
    Component,
    DatasetDetails,
    Energy,
    Environment,
    Hyperparameter,
    Label,
    ModelCard,
    ModelDetails,
    PipelineDetails,
    Run,
    Split,
    TrainingDetails,
)
from mlgym.record.card_sources import Sources, as_text, config_of, keyed, named, of_type, requirements
from mlgym.record.events import SplitFacts
from mlgym.record.fold import Attempt
from mlgym.record.validation import AXES
from mlgym.specs import ROOTS

CPU_WATTS = 10.0
GPU_WATTS = 300.0
"""What is taken for the power of one CPU thread and of one GPU when it was neither measured nor stated."""

_LED = ("model_description", "model_version", "source_repo")
_POWER = ("power_watts", "carbon_intensity_g_per_kwh", "price_per_kwh", "currency")


def card(of: Sources) -> ModelCard:
    """The model card."""
    training = _training(of)
    return ModelCard(
        model_details=_model(of),
        dataset_details=_dataset(of),
        training_details=training,
        eval_details=evaluation(of),
        experiment_environment=Environment(hosts=_hosts(of), carbon_and_cost=_energy(of, training)),
        pipeline_details=PipelineDetails(components=_components(of)),
    )


def _model(of: Sources) -> ModelDetails:
    state, experiment, info, facts = of.state, of.experiment, of.info, of.model
    name = as_text(info.get("model_name")) or (facts.type.rpartition(".")[2] if facts else None) or _model_key(of)
    return ModelDetails(
        name=name or f"experiment {experiment.experiment_id} of {state.grid_search_id}",
        model_description=as_text(info.get("model_description")),
        model_version=as_text(info.get("model_version")),
        source_repo=as_text(info.get("source_repo")),
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
    for requirement in requirements(of.config.get("model")):
        if isinstance(requirement.get("subscription"), str):
            return str(requirement["subscription"])
    return None


def _dataset(of: Sources) -> DatasetDetails:
    facts = of.data.splits if of.data else []
    total = sum(split.samples for split in facts)
    return DatasetDetails(
        datasets=[
            str(config["dataset_identifier"])
            for config in of_type(of, "DATASET_ITERATORS")
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
            Label(label=label, name=named(of, label), count=count, percentage=_percent(count, facts.samples))
            for label, count in counts
        ],
        multi_label=facts.multi_label,
        spread=facts.spread,
        uncounted="" if counts else facts.uncounted,
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _training(of: Sources) -> TrainingDetails:
    experiment = of.experiment
    runs = [_run(of, attempt) for attempt in experiment.attempts]
    train = next(iter(of_type(of, "TRAIN_COMPONENT")), {})
    known = all(run.seconds is not None for run in runs) and runs
    usages = of.usages.values()
    told = bool(usages) and len(usages) == len(runs)
    device_memory = [usage.device_memory_bytes for usage in usages if usage.device_memory_bytes is not None]
    return TrainingDetails(
        hyperparameters=_hyperparameters(of),
        loss=keyed(train.get("loss_fun_config")),
        optimizer=keyed(config_of(of, "optimizer")),
        lr_scheduler=keyed(config_of(of, "lr_scheduler")),
        early_stopping=keyed(config_of(of, "early_stopping_strategy")),
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


def _hyperparameters(of: Sources) -> list[Hyperparameter]:
    """Values of the configuration: swept ones first, folds not at all, and not what only evaluation needs."""
    swept = {path: value for path, value in of.experiment.swept.items() if path not in AXES}
    found = [Hyperparameter(parameter=path, value=value, swept=True) for path, value in swept.items()]
    for name in _used(of.config):
        if of.config[name].get("component_type_key") == "EVAL_COMPONENT":
            continue
        for path, value in _leaves(f"{name}.config", config_of(of, name)):
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
            left += [str(one.get("component_name")) for one in requirements(config[name])]
    return [name for name, entry in config.items() if isinstance(entry, dict) and (name in found or not found)]


def _components(of: Sources) -> list[Component]:
    return [
        Component(
            name=name,
            component_type_key=str(of.config[name].get("component_type_key", "")),
            variant_key=str(of.config[name].get("variant_key", "")),
            config=config if isinstance(config := of.config[name].get("config"), dict) else {},
            requirements=requirements(of.config[name]),
            swept=[path for path in of.experiment.swept if path.startswith(f"{name}.")],
        )
        for name in _used(of.config)
    ]


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
        currency=as_text(info.get("currency")) or "",
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

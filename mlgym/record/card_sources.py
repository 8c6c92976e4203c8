"""What a model card is made of: all that the log says of an experiment. Imports errors, events, fold, log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from mlgym.errors import InputError, one_of
from mlgym.record.events import (
    CheckpointEvent,
    CheckpointFile,
    ClassResults,
    DataFacts,
    ExperimentConfig,
    JobUsage,
    ModelFacts,
    decode,
)
from mlgym.record.fold import Experiment, State
from mlgym.record.log import Log

T = TypeVar("T")


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


def as_text(value: Any) -> str | None:
    """What the user states, if it is anything."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def requirements(entry: Any) -> list[dict[str, Any]]:
    found = entry.get("requirements") if isinstance(entry, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def of_type(of: Sources, *types: str) -> Iterable[dict[str, Any]]:
    """The configurations of the components of these types."""
    for entry in of.config.values():
        if (
            isinstance(entry, dict)
            and entry.get("component_type_key") in types
            and isinstance(entry.get("config"), dict)
        ):
            yield entry["config"]


def named(of: Sources, label: int) -> str:
    """As `class_names` has it: a list, or a mapping from labels."""
    names = of.info.get("class_names")
    if isinstance(names, list) and 0 <= label < len(names):
        return str(names[label])
    return str(names.get(str(label), label)) if isinstance(names, dict) else str(label)


def config_of(of: Sources, name: str) -> Any:
    entry = of.config.get(name)
    return entry.get("config") if isinstance(entry, dict) else None


def keyed(config: Any) -> dict[str, Any] | None:
    """`{optimizer_key: ADAM, ...}` as `{key: ADAM, ...}`."""
    if not isinstance(config, dict):
        return None
    key = "key" if "key" in config else next((name for name in config if str(name).endswith("_key")), None)
    return {"key": config[key], **{name: v for name, v in config.items() if name != key}} if key else dict(config)

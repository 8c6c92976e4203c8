"""A grid search as TensorBoard reads it: a folder for each experiment with its scores, hyperparameters and
configuration. Written with TensorBoard's own writer, without torch. Imports fold, log, export.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from mlgym.errors import InputError, StorageError
from mlgym.record.export import announced, as_text, ordered, replacing, series, swept_columns
from mlgym.record.fold import Experiment
from mlgym.record.log import Log

_ENDED = {"DONE": "STATUS_SUCCESS", "FAILED": "STATUS_FAILURE", "LOST": "STATUS_FAILURE", "STOPPED": "STATUS_FAILURE"}

HParam = bool | float | str


def write_tensorboard(log: Log, target: Path, force: bool = False) -> list[Path]:
    """One run folder `experiment_ID` for each experiment, and in `target` itself what describes all of them.

    Steps are epochs, wall times those of the evaluations. TensorBoard keeps scores as 32-bit floats. Raises
    `InputError` when `target` has files already; with `force`, those of an earlier export are replaced and all others
    stay. Raises `StorageError`.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file; TensorBoard reads folders")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise InputError(f"{target}: is not empty; --force replaces what an earlier export wrote there, and adds to it")
    experiments = ordered(log)
    swept = _hparams(experiments)
    # Always the same name, so that a second export replaces the first, and nothing else.
    file = f"events.out.tfevents.mlgym.{log.path.parent.name}"
    if text := log.state.grid_search_config:
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[_text("grid_search_config", text)])
        _write(target / file, [_event(_seconds(log.state.starting_time), summary)])
    for at, experiment in enumerate(experiments):
        values = {path: value for path, values in swept.items() if (value := values[at]) is not None}
        events = [*_start(log, experiment, values), *_scores(experiment), *_end(experiment)]
        _write(target / f"experiment_{experiment.experiment_id}" / file, events)
    return [target]


def _write(path: Path, events: list[Any]) -> None:
    """One file of events, written whole or not at all."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    try:
        with replacing([path], force=True) as (temporary,), temporary.open("wb") as file:
            writer = RecordWriter(file)
            first = Event(file_version="brain.Event:2", wall_time=events[0].wall_time if events else 0)
            for event in (first, *events):
                writer.write(event.SerializeToString())
    except ValueError as error:  # of protobuf: more than 2 GB in one event, or a number that fits no field
        raise StorageError(f"{path}: cannot be written: {error}") from None


def _hparams(experiments: list[Experiment]) -> dict[str, list[HParam | None]]:
    """What is swept, by path, as numbers, booleans or texts: one type for all experiments. None: it has no value."""
    found: dict[str, list[HParam | None]] = {}
    for column in swept_columns(experiments):
        plain = column.kind in ("integer", "number", "boolean")
        found[column.name] = [
            value if plain else as_text(value) if column.name in experiment.swept else None
            for experiment, value in zip(experiments, column.values, strict=True)
        ]
    return found


def _start(log: Log, experiment: Experiment, values: dict[str, HParam]) -> list[Any]:
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    seconds = _seconds(experiment.attempts[0].starting_time if experiment.attempts else None)
    trial = f"experiment_{experiment.experiment_id} ({log.path.parent.name})"  # trials of one name are taken for one
    summary = hparams_pb(values, trial_id=trial, start_time_secs=seconds)
    config = bytes(announced(log, experiment).config)
    summary.value.append(_text("experiment_config", msgspec.json.format(config, indent=2).decode()))
    for name in ("reason", "error", "stacktrace"):
        if text := getattr(experiment, name):
            summary.value.append(_text(name, text))
    return [_event(seconds, summary)]


def _scores(experiment: Experiment) -> list[Any]:
    """An event for each evaluation, by rising epoch."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    found: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for one in series(experiment):
        tag = f"{one.split}/{one.tag}"
        for epoch, time, value in zip(one.scores.epochs, one.times, one.scores.values_, strict=True):
            found[epoch, time].append(Summary.Value(tag=tag, simple_value=value))
    return [_event(_seconds(time), Summary(value=values), epoch) for (epoch, time), values in sorted(found.items())]


def _end(experiment: Experiment) -> list[Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    if experiment.status not in _ENDED:
        return []
    seconds = _seconds(experiment.finishing_time)
    info = plugin_data_pb2.SessionEndInfo(status=getattr(api_pb2, _ENDED[experiment.status]), end_time_secs=seconds)
    content = plugin_data_pb2.HParamsPluginData(session_end_info=info, version=metadata.PLUGIN_DATA_VERSION)
    described = SummaryMetadata(
        plugin_data={"plugin_name": metadata.PLUGIN_NAME, "content": content.SerializeToString()}
    )
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=described, tensor=metadata.NULL_TENSOR)
    return [_event(seconds, Summary(value=[value]))]


def _text(tag: str, text: str) -> Any:
    """For the Text tab, which takes Markdown: indented, everything is shown as it is."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    lines = "\n".join(f"    {line}" for line in text.splitlines())
    return Summary.Value(
        tag=tag,
        metadata=SummaryMetadata(plugin_data={"plugin_name": "text"}),
        tensor=TensorProto(dtype=DT_STRING, string_val=[lines.encode()]),
    )


def _event(seconds: float, summary: Any, step: int = 0) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=seconds, step=step, summary=summary)


def _seconds(time: int | None) -> float:
    return (time or 0) / 1000

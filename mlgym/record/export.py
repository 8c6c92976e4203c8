"""A grid search as two tables, experiments and scores, for other tools: CSV, Parquet, one JSON document.

Imports events, fold, report, scores, tables, log; pyarrow where it is used.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import msgspec

from mlgym.errors import InputError, StorageError
from mlgym.record.events import ExperimentConfig, ExperimentConfigEvent, decode, number, plain
from mlgym.record.fold import Experiment
from mlgym.record.log import Log
from mlgym.record.report import judged_by
from mlgym.record.scores import Scores
from mlgym.record.tables import cell

Kind = Literal["integer", "number", "boolean", "text", "time", "mixed"]

SCORES = ("experiment_id", "split", "tag", "kind", "epoch", "value", "time")
"""The columns of the second table."""

_ROWS = 1 << 20  # of a row group of a Parquet file: about 40 MB before they are compressed


class Column(NamedTuple):
    """One of the experiments' table; None where an experiment has no value. Times are unix time in ms."""

    name: str
    kind: Kind
    values: list[Any]


class Series(NamedTuple):
    """A score of an experiment at every epoch. `times`, unix time in ms, are those of the events; 0 is unknown."""

    experiment_id: int
    split: str
    tag: str
    kind: Literal["metric", "loss"]
    scores: Scores
    times: list[int]


# --- what is exported ---------------------------------------------------------------------------------------


def ordered(log: Log) -> list[Experiment]:
    """All experiments, by rising id."""
    return [experiment for _, experiment in sorted(log.state.experiments.items())]


def announced(log: Log, experiment: Experiment) -> ExperimentConfig:
    """What the log says that an experiment consists of; the state does not keep configurations."""
    if experiment.config_seq:
        for line in log.lines(experiment.config_seq - 1, 1):
            event = decode(line)
            if isinstance(event, ExperimentConfigEvent):
                return event.payload
    return ExperimentConfig(grid_search_id=log.state.grid_search_id, experiment_id=experiment.experiment_id)


def series(experiment: Experiment) -> Iterator[Series]:
    """Its scores, in the order in which they were first seen."""
    time_of = dict(zip(experiment.evaluations.seqs, experiment.evaluations.times, strict=False))
    for key, scores in experiment.scores.items():
        split, _, tag = key.partition("/")
        kind: Literal["metric", "loss"] = "loss" if key in experiment.losses else "metric"
        times = [time_of.get(seq, 0) for seq in scores.seqs]
        yield Series(experiment.experiment_id, split, tag, kind, scores, times)


def swept_columns(experiments: Sequence[Experiment]) -> list[Column]:
    """What is swept, folds and seeds included, by its path as it is recorded."""
    paths = dict.fromkeys(path for experiment in experiments for path in experiment.swept)
    return [_column(path, [experiment.swept.get(path) for experiment in experiments]) for path in paths]


def experiments_table(log: Log) -> list[Column]:
    """One row for each experiment, by rising id; no two columns have the same name."""
    found = ordered(log)

    def each(name: str, kind: Kind, value: Callable[[Experiment], Any]) -> Column:
        return Column(name, kind, [value(experiment) for experiment in found])

    columns = [
        each("experiment_id", "integer", lambda e: e.experiment_id),
        each("config_hash", "text", lambda e: e.config_hash or None),
        each("status", "text", lambda e: e.status),
        each("reason", "text", lambda e: e.reason),
        each("attempt", "integer", lambda e: e.attempt),
        each("run_seed", "integer", lambda e: announced(log, e).seed),
        *swept_columns(found),
        each("num_epochs", "integer", lambda e: e.num_epochs),
        each("epochs_done", "integer", lambda e: e.epochs_done),
        each("device", "text", lambda e: e.device),
        each("started", "time", lambda e: e.starting_time),
        each("finished", "time", lambda e: e.finishing_time),
    ]
    for key in dict.fromkeys(key for experiment in found for key in experiment.scores):
        columns += _score_columns(found, key)
    columns.append(each("error", "text", lambda e: e.error))
    taken: set[str] = set()
    for at, column in enumerate(columns):
        name, count = column.name, 1
        while name in taken:
            count += 1
            name = f"{column.name} ({count})"
        taken.add(name)
        columns[at] = column._replace(name=name)
    return columns


def _score_columns(experiments: Sequence[Experiment], key: str) -> list[Column]:
    """The last and the best value with their epochs. The best is finite, and the earliest of equal ones."""
    _, mode = judged_by(experiments, key)
    last: list[tuple[float | None, int | None]] = []
    best: list[tuple[float | None, int | None]] = []
    for experiment in experiments:
        scores = experiment.scores.get(key) or Scores()
        at = scores.highest() if mode == "max" else scores.lowest()
        last.append((scores.values_[-1], scores.epochs[-1]) if scores else (None, None))
        best.append((None, None) if at is None else (scores.values_[at], scores.epochs[at]))
    return [
        Column(f"{key} last", "number", [value for value, _ in last]),
        Column(f"{key} last epoch", "integer", [epoch for _, epoch in last]),
        Column(f"{key} best", "number", [value for value, _ in best]),
        Column(f"{key} best epoch", "integer", [epoch for _, epoch in best]),
    ]


_NOT_FINITE = {"NaN", "Infinity", "-Infinity"}  # numbers, as strict JSON has them


def _column(name: str, values: list[Any]) -> Column:
    """A column of the narrowest kind that holds all values, None apart."""
    given = [value for value in values if value is not None]
    types = {type(value) for value in given}
    if types == {bool}:
        return Column(name, "boolean", values)
    if types == {int} and all(-(2**63) <= value < 2**63 for value in given):
        return Column(name, "integer", values)
    strings = {value for value in given if isinstance(value, str)}
    numbers = types & {int, float} and types <= {int, float, str} and strings <= _NOT_FINITE
    if numbers and all(type(value) is not int or abs(value) <= 2**53 for value in given):
        return Column(name, "number", [None if value is None else float(value) for value in values])
    return Column(name, "text" if types <= {str} else "mixed", values)


def as_text(value: Any) -> str:
    """A value of any kind as one text: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


# --- files --------------------------------------------------------------------------------------------------


def needs(format_: str, *modules: str) -> None:
    """Raises `InputError` for the first of the modules that is not installed; the extra is called like the format."""
    for module in modules:
        if find_spec(module) is None:
            raise InputError(f"--format {format_} needs {module}: pip install 'mlgym[{format_}]'")


@contextmanager
def replacing(targets: Sequence[Path], force: bool) -> Iterator[list[Path]]:
    """Paths to write to; at the end they become `targets`, all that is written before is gone if anything fails.

    Raises `InputError` for a target that is there already (unless `force`), `StorageError` when one cannot be written.
    """
    for target in targets:
        if target.is_dir():
            raise InputError(f"{target}: is a folder")
        if target.exists() and not force:
            raise InputError(f"{target}: is there already; --force replaces it")
    temporary = [target.with_name(f".{target.name}.{os.getpid()}") for target in targets]
    try:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for path, target in zip(temporary, targets, strict=True):
            path.replace(target)
    except OSError as error:
        raise StorageError(f"{targets[0]}: cannot be written: {error.strerror}") from None
    finally:
        for path in temporary:
            with suppress(OSError):
                path.unlink()


def table_paths(target: Path, format_: str) -> tuple[Path, Path]:
    """Where the two tables go: `x.csv` and `x-scores.csv`, or into a folder, which has no such suffix."""
    if target.suffix.lower() == f".{format_}" and not target.is_dir():
        return target, target.with_name(f"{target.stem}-scores{target.suffix}")
    return target / f"experiments.{format_}", target / f"scores.{format_}"


def write_csv(log: Log, target: Path, force: bool = False) -> list[Path]:
    """Both tables as CSV, UTF-8. Texts that a spreadsheet would take for formulas get an apostrophe in front."""
    paths = table_paths(target, "csv")
    with (
        replacing(paths, force) as (first, second),
        first.open("w", encoding="utf-8", newline="") as rows,
        second.open("w", encoding="utf-8", newline="") as points,
    ):
        columns = experiments_table(log)
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow([cell(column.name) for column in columns])
        writer.writerows(zip(*map(_cells, columns), strict=True))
        writer = csv.writer(points, lineterminator="\n")
        writer.writerow(SCORES)
        for experiment in ordered(log):
            shown = {time: _iso(time) for time in experiment.evaluations.times}
            for one in series(experiment):
                names = (one.experiment_id, cell(one.split), cell(one.tag), one.kind)
                times = [shown.get(time) for time in one.times]
                writer.writerows(zip(*map(repeat, names), one.scores.epochs, one.scores.values_, times, strict=False))
    return list(paths)


def _cells(column: Column) -> list[Any]:
    if column.kind == "time":
        return [_iso(value) for value in column.values]
    if column.kind == "mixed":
        return [None if value is None else cell(as_text(value)) for value in column.values]
    return [cell(value) for value in column.values]


def _iso(time: int | None) -> str | None:
    """Unix time in ms as UTC: `2026-11-21T10:26:58.123Z`. None for what no calendar holds."""
    try:
        return f"{(_EPOCH + timedelta(milliseconds=time)).isoformat(timespec='milliseconds')}Z" if time else None
    except OverflowError:
        return None


_EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)


def write_parquet(log: Log, target: Path, force: bool = False) -> list[Path]:
    """Both tables as Parquet, every column with its type; lists, mappings and mixed values are JSON texts."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    time = pa.timestamp("ms", tz="UTC")
    types = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_(), "text": pa.string(), "time": time}
    word = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(zip(SCORES, (pa.int64(), word, word, word, pa.int64(), pa.float64(), time), strict=True))

    def batch(one: Series) -> Any:
        count = len(one.scores)
        texts = [
            pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array([text], pa.string()))
            for text in (one.split, one.tag, one.kind)
        ]
        times = np.asarray(one.times, np.int64)
        return pa.record_batch(
            [
                pa.array(np.full(count, one.experiment_id, np.int64)),
                *texts,
                pa.array(np.asarray(one.scores.epochs, np.int64)),
                pa.array(np.asarray(one.scores.values_, np.float64)),  # NaN stays NaN, it is no null
                pa.array(times, time, mask=times == 0),
            ],
            schema=schema,
        )

    paths = table_paths(target, "parquet")
    with replacing(paths, force) as (first, second):
        columns = experiments_table(log)
        try:
            parquet.write_table(
                pa.table({column.name: _array(pa, column, types) for column in columns}),
                first,
            )
            with parquet.ParquetWriter(second, schema) as writer:
                waiting: list[Any] = []
                rows = 0
                for experiment in ordered(log):
                    for one in series(experiment):
                        waiting.append(batch(one))
                        rows += len(one.scores)
                    if rows >= _ROWS:
                        writer.write_table(pa.Table.from_batches(waiting, schema).unify_dictionaries())
                        waiting, rows = [], 0
                writer.write_table(pa.Table.from_batches(waiting, schema).unify_dictionaries())
        except OverflowError:
            raise InputError(f"{log.path}: has numbers of more than 64 bits, which Parquet cannot hold") from None
    return list(paths)


def _array(pa: Any, column: Column, types: dict[str, Any]) -> Any:
    if column.kind == "mixed":
        return pa.array([None if value is None else as_text(value) for value in column.values], pa.string())
    return pa.array(column.values, types[column.kind], from_pandas=False)


def write_json(log: Log, target: Path, force: bool = False) -> list[Path]:
    """One document: strict JSON, so NaN and infinities are strings. Each score of an experiment is one object with a
    list for each column; times are unix time in ms, null where unknown."""
    state = log.state
    head = {
        "format": 1,
        "grid_search_id": state.grid_search_id,
        "status": state.status,
        "seq": state.seq,
        "damaged_bytes": state.damaged,
    }
    columns = experiments_table(log)
    rows = (
        plain(dict(zip([column.name for column in columns], values, strict=True)))
        for values in zip(*[column.values for column in columns], strict=True)
    )
    points = (
        {
            "experiment_id": one.experiment_id,
            "split": one.split,
            "tag": one.tag,
            "kind": one.kind,
            "epochs": list(one.scores.epochs),
            "values": [number(value) for value in one.scores.values_],
            "times": [time or None for time in one.times],
        }
        for experiment in ordered(log)
        for one in series(experiment)
    )
    with replacing([target], force) as (path,), path.open("wb") as file:
        file.write(_json(head)[:-1])
        _write_list(file, "experiments", rows)
        _write_list(file, "scores", points)
        file.write(b"}\n")
    return [target]


def _write_list(file: IO[bytes], name: str, entries: Iterator[Any]) -> None:
    """One more member of the document, an entry a line, so that no more than one is in memory."""
    file.write(b',\n"%b":[' % name.encode())
    for at, entry in enumerate(entries):
        file.write((b",\n" if at else b"\n") + _json(entry))
    file.write(b"\n]")


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except OverflowError:  # an integer of more than 64 bits
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()

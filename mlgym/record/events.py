"""The events of the log: one struct for each type, and the envelope line that carries it.

A line is strict JSON: `seq` first (given by the hub), `crc` last (crc32 of the bytes before it). Unknown fields
are ignored here and kept in the log; unknown event types decode to `Unknown`. The structs are left out of garbage
collection (`gc=False`): JSON holds no cycles, and walking a million events costs more than decoding them.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct

# --- payloads -----------------------------------------------------------------------------------------------

Number = float | Literal["NaN", "Infinity", "-Infinity"]
"""A score; JSON has no NaN and no infinities, so these are strings."""


Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Payload(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    grid_search_id: str


class Validation(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How combinations of swept values are compared: what the report needs to know of the validation config.

    `outer_folds` counts those of all repetitions; `inner_folds` is 0 without nesting; without folds both are 0.
    """

    combinations: int
    outer_folds: int = 0
    inner_folds: int = 0
    seeds: list[int] = []
    selected_only: bool = False
    """Only what the inner folds chose is trained on an outer fold."""
    metric: str | None = None
    mode: Literal["max", "min"] | None = None
    epoch: Literal["last", "best", "average"] = "last"
    dropped: list[int] = []
    """Experiments that are no longer in the grid, whatever has become of them."""


class GridSearch(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The whole grid search begins (again) or ends. `reason` says why it was INTERRUPTED, or what has changed."""

    status: Literal["STARTED", "FINISHED", "INTERRUPTED"]
    num_experiments: int | None = None
    run_config: str | None = None
    grid_search_config: str | None = None
    reason: str | None = None
    validation: Validation | None = None
    model_info: dict[str, Any] = {}
    """What the user states about the model, for its card."""


class SystemInfo(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a machine that takes part consists of; once for each host."""

    host: str
    info: dict[str, Any] = {}


class ExperimentConfig(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an experiment consists of; `swept` maps each sweep's path to the value taken.

    Folds and seeds are axes without a dot in their names: `fold`, or `outer_fold` and `inner_fold`; `seed`.
    """

    experiment_id: int
    job_id: str | None = None
    config: msgspec.Raw = msgspec.Raw(b"{}")  # the fold has no use for it, so it is not decoded
    config_hash: str = ""
    swept: dict[str, Any] = {}
    seed: int | None = None
    num_epochs: int | None = None


class DataFold(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Which of the `samples` items a fold is tested on: from place `offset` of that list, `test`, ascending.

    `fold` is named as the experiments' `fold`, or `outer_fold/inner_fold`. What is not in it is trained on; in an inner
    fold, what is not in its outer fold `outer_fold/-1` either.
    """

    fold: str
    samples: int
    test: list[int] = []
    offset: int = 0


JobState = Literal["INIT", "RUNNING", "DONE", "FAILED", "LOST", "STOPPED"]


class JobStatus(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where a job stands. Times are unix time in ms; `start_epoch` epochs were finished before it began.

    `inexact` says why running it again may give other bits.
    """

    job_id: str
    experiment_id: int
    status: JobState
    job_type: str = "CALC"
    start_epoch: int = 0
    starting_time: int | None = None
    finishing_time: int | None = None
    device: str | None = None
    host: str | None = None
    num_threads: int | None = None
    inexact: str | None = None
    reason: str | None = None
    error: str | None = None
    stacktrace: str | None = None


class ExperimentStatus(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Progress. `current_epoch` is the one worked on; batches are counted within the split."""

    experiment_id: int
    status: Literal["train", "evaluation"]
    num_epochs: int
    current_epoch: int
    splits: list[str] = []
    current_split: str | None = None
    num_batches: int = 0
    current_batch: int = 0


class MetricScore(Struct, frozen=True, gc=False):
    metric: str
    split: str
    score: Number


class LossScore(Struct, frozen=True, gc=False):
    loss: str
    split: str
    score: Number


class EvaluationResult(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Every score after `epoch` finished epochs; epoch 0 is before any training."""

    experiment_id: int
    epoch: Epoch
    metric_scores: list[MetricScore] = []
    loss_scores: list[LossScore] = []


class CheckpointFile(Struct, frozen=True, gc=False):
    name: str
    size: int
    sha256: str


class CheckpointEvent(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A checkpoint was committed, or is gone; with `batch`, one within the epoch after `epoch`."""

    experiment_id: int
    epoch: int
    batch: int = 0
    action: Literal["SAVED", "DELETED"]
    files: list[CheckpointFile] = []


class JobOutput(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A piece of what a job printed, from byte `offset` of its output."""

    experiment_id: int
    job_id: str
    offset: int
    text: str


class Warned(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Something that the user should know went wrong, and the run went on."""

    message: str
    experiment_id: int | None = None


class ScoreChange(Struct, frozen=True, gc=False):
    score: str
    before: Number
    now: Number


class NondeterminismDetected(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An epoch that was run again gave other scores (`split/tag`) than before."""

    experiment_id: int
    epoch: int
    changes: list[ScoreChange] = []


class Layer(Struct, frozen=True, omit_defaults=True, gc=False):
    """A module without children, or one whose children are counted with it. Parameters that are shared count once."""

    name: str
    type: str
    parameters: int = 0
    trainable: int = 0


class ModelFacts(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the model consists of. `size_bytes` is that of parameters and buffers in memory."""

    experiment_id: int
    type: str
    parameters: int
    trainable: int
    size_bytes: int
    modules: int = 0
    """How many modules without children there are; `layers` may sum some of them up."""
    layers: list[Layer] = []


class LabelCount(Struct, frozen=True, gc=False):
    label: int
    count: int


class SplitFacts(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A split of the data that the experiment uses. Shapes are those of one item; None where an item has none."""

    split: str
    samples: int
    uses: list[Literal["training", "evaluation"]] = []
    batch_size: int = 0
    sample_shape: list[int] | None = None
    sample_dtype: str = ""
    target_shape: list[int] | None = None
    target_dtype: str = ""
    labels: list[LabelCount] = []
    multi_label: bool = False
    """An item may have several labels, or none."""
    spread: dict[str, Number] = {}
    """min, max, mean and std of targets that are no labels."""
    uncounted: str = ""
    """Why neither labels nor a spread are given."""


class DataFacts(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The data of an experiment, counted when its training begins."""

    experiment_id: int
    splits: list[SplitFacts] = []


class ClassCounts(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How labels were predicted on a split. Lists are by `labels`: those that occur, rising.

    `confusion` has a row for each actual label and a column for each predicted one. With more than 40 labels it is left
    out, and `confusions` holds [actual, predicted, count] of the most frequent mistakes.
    """

    split: str
    target: str
    prediction: str
    labels: list[int]
    actual: list[int]
    predicted: list[int]
    correct: list[int]
    confusion: list[list[int]] = []
    confusions: list[list[int]] = []


class ClassResults(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Results by class after `epoch` finished epochs: at the end, and at peaks of the score that is judged by."""

    experiment_id: int
    epoch: Epoch
    splits: list[ClassCounts] = []


class JobUsage(_Payload, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an attempt took, said as it ends. Seconds of wall time; memory at its peak, in bytes.

    `energy_joules` was read from the device, whatever else ran on it meanwhile.
    """

    experiment_id: int
    job_id: str
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    memory_bytes: int = 0
    device_memory_bytes: int | None = None
    energy_joules: float | None = None


# --- envelopes ----------------------------------------------------------------------------------------------


class _Envelope(Struct, frozen=True, kw_only=True, gc=False, tag_field="event_type"):
    seq: int = 0
    creation_ts: int = 0
    source: str = ""
    n: int = 0
    attempt: int = 1


class GridSearchEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="grid_search"):
    payload: GridSearch


class SystemInfoEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="system_info"):
    payload: SystemInfo


class ExperimentConfigEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="experiment_config"):
    payload: ExperimentConfig


class DataFoldEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="data_fold"):
    payload: DataFold


class JobStatusEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="job_status"):
    payload: JobStatus


class ExperimentStatusEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="experiment_status"):
    payload: ExperimentStatus


class EvaluationResultEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="evaluation_result"):
    payload: EvaluationResult


class CheckpointChange(_Envelope, frozen=True, kw_only=True, gc=False, tag="checkpoint"):
    payload: CheckpointEvent


class JobOutputEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="job_output"):
    payload: JobOutput


class WarnedEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="warning"):
    payload: Warned


class NondeterminismDetectedEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="nondeterminism_detected"):
    payload: NondeterminismDetected


class ModelFactsEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="model_facts"):
    payload: ModelFacts


class DataFactsEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="data_facts"):
    payload: DataFacts


class ClassResultsEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="class_results"):
    payload: ClassResults


class JobUsageEvent(_Envelope, frozen=True, kw_only=True, gc=False, tag="job_usage"):
    payload: JobUsage


class Unknown(Struct, frozen=True, kw_only=True):
    """An event of a type, or with a payload, that this version does not know: `data` is all of it.

    None when the line is not JSON at all.
    """

    seq: int
    data: Any


KnownEvent = (
    GridSearchEvent
    | SystemInfoEvent
    | ExperimentConfigEvent
    | DataFoldEvent
    | JobStatusEvent
    | ExperimentStatusEvent
    | EvaluationResultEvent
    | CheckpointChange
    | JobOutputEvent
    | WarnedEvent
    | NondeterminismDetectedEvent
    | ModelFactsEvent
    | DataFactsEvent
    | ClassResultsEvent
    | JobUsageEvent
)
Event = KnownEvent | Unknown
Payload = (
    GridSearch
    | SystemInfo
    | ExperimentConfig
    | DataFold
    | JobStatus
    | ExperimentStatus
    | EvaluationResult
    | CheckpointEvent
    | JobOutput
    | Warned
    | NondeterminismDetected
    | ModelFacts
    | DataFacts
    | ClassResults
    | JobUsage
)

EVENT_TYPES: dict[type, bytes] = {
    GridSearch: b"grid_search",
    SystemInfo: b"system_info",
    ExperimentConfig: b"experiment_config",
    DataFold: b"data_fold",
    JobStatus: b"job_status",
    ExperimentStatus: b"experiment_status",
    EvaluationResult: b"evaluation_result",
    CheckpointEvent: b"checkpoint",
    JobOutput: b"job_output",
    Warned: b"warning",
    NondeterminismDetected: b"nondeterminism_detected",
    ModelFacts: b"model_facts",
    DataFacts: b"data_facts",
    ClassResults: b"class_results",
    JobUsage: b"job_usage",
}

_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_known: msgspec.json.Decoder[KnownEvent] = msgspec.json.Decoder(KnownEvent)


def decode(line: bytes) -> Event:
    """The event on one line (with or without its newline); `Unknown` without data if it is not JSON."""
    try:
        return _known.decode(line)
    except _MALFORMED:
        try:
            data = msgspec.json.decode(line)
        except _MALFORMED:
            return Unknown(seq=0, data=None)
        seq = data.get("seq") if isinstance(data, dict) else None
        return Unknown(seq=seq if isinstance(seq, int) else 0, data=data)


def decode_lines(lines: bytes) -> list[Event]:
    """The events on many lines, each ended by a newline."""
    try:
        events: list[Event] = list(_known.decode_lines(lines))
        if len(events) == lines.count(b"\n"):
            return events
    except _MALFORMED:
        pass
    return [decode(line) for line in lines.split(b"\n")[:-1]]  # slower, but it says of each line what it is


class Identity(Struct, frozen=True, gc=False):
    """What the hub needs to know of a line: who sent it, as which of its events."""

    source: str
    n: int


MAX_EVENT = 4 << 20
"""Bytes of the longest line that a hub takes."""

_MAX_DEPTH = 64


def too_deep(line: bytes) -> bool:
    """Whether the JSON on a line is nested more than 64 deep; others who read it may have less patience than we."""
    if line.count(b"{") + line.count(b"[") <= _MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", line)):
        depth += 1 if bracket in b"{[" else -1
        if depth > _MAX_DEPTH:
            return True
    return False


_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKETS = re.compile(rb"[][{}]")


# --- lines --------------------------------------------------------------------------------------------------

_TAIL = 18  # len(b',"crc":"01234567"}')


def seal(body: bytes) -> bytes:
    """The line for `body`, a JSON object without its closing brace: the crc and a newline are added."""
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def body_of(line: bytes) -> bytes | None:
    """The part of a line (without newline) that its crc covers, or None when the crc does not fit."""
    body = line[:-_TAIL]
    if line[-_TAIL:] == b',"crc":"%08x"}' % zlib.crc32(body):
        return body
    return None


def number(value: float) -> Number:
    """`value` as strict JSON can hold it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def plain(value: Any) -> Any:
    """YAML data as strict JSON data: keys are strings, numbers as `number` writes them."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return number(value) if isinstance(value, float) else value

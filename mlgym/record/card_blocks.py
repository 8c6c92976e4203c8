"""A model card as a text to be read: headings, facts, tables and pictures, in their order. Pure.

HTML and Markdown are two ways to write the same blocks. All strings in them are plain text, and whoever writes them
escapes them. Imports card_schema, report.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mlgym.record.card_schema import ClassDetails, Energy, ModelCard, ScoreDetails, Split
from mlgym.record.report import duration

MAX_LABELS = 50
"""Rows of a table of labels; of more, the most frequent ones are shown."""

NOT_STATED = "Not stated."

GROUPS: dict[str, dict[str, str]] = {
    "model": {
        "developed_by": "developed by",
        "authors": "authors",
        "organization": "organization",
        "contact": "contact",
        "license": "license",
        "model_type": "kind of model",
        "pipeline_tag": "task",
        "language": "language",
        "finetuned_from": "fine-tuned from",
        "paper": "paper",
        "demo": "demo",
        "tags": "tags",
    },
    "use": {
        "intended_use": "intended use",
        "intended_users": "intended users",
        "downstream_use": "downstream use",
        "out_of_scope_use": "out of scope",
    },
    "data": {
        "dataset_description": "description",
        "dataset_source": "source",
        "dataset_license": "license of the data",
        "preprocessing": "preprocessing",
    },
    "evaluation": {
        "evaluation_data": "evaluation data",
        "factors": "factors",
    },
    "considerations": {
        "limitations": "limitations",
        "bias_and_risks": "bias and risks",
        "ethical_considerations": "ethical considerations",
        "sensitive_data": "sensitive data",
        "recommendations": "recommendations",
    },
}
"""What of `model_info` is shown where, and under which name. Everything else comes at the end."""


class Heading(NamedTuple):
    text: str
    anchor: str


class Subheading(NamedTuple):
    text: str


class Text(NamedTuple):
    """Paragraphs; `muted`: an aside of the card itself."""

    text: str
    muted: bool = False


class Facts(NamedTuple):
    rows: list[tuple[str, str]]


class Table(NamedTuple):
    """`words`: how many columns hold words; the others hold numbers."""

    head: list[str]
    rows: list[list[str]]
    words: int = 1
    note: str = ""


class Distribution(NamedTuple):
    """How many samples have each label: a row a label, a column a split; None where there are none."""

    labels: list[str]
    splits: list[str]
    counts: list[list[tuple[int, float] | None]]
    note: str


class Line(NamedTuple):
    name: str
    epochs: list[int]
    values: list[float]
    best: tuple[int, float] | None


class Chart(NamedTuple):
    """A score by epoch, a line a split."""

    title: str
    lines: list[Line]


class Matrix(NamedTuple):
    """A row for each actual class, a column for each predicted one."""

    title: str
    names: list[str]
    counts: list[list[int]]


class Folded(NamedTuple):
    """A long list that few will read."""

    title: str
    lines: list[str]


class Graph(NamedTuple):
    """The components as they require each other: a picture where there can be one, then the table."""

    config: dict[str, Any]
    swept: dict[str, Any]


Block = Heading | Subheading | Text | Facts | Table | Distribution | list[Chart] | Matrix | Folded | Graph


class Document(NamedTuple):
    title: str
    subtitle: str
    highlights: list[tuple[str, str]]
    """The four or so numbers that most people look for: what, how much."""
    blocks: list[Block]


def document(card: ModelCard) -> Document:
    """The card in its order."""
    model = card.model_details
    blocks: list[Block] = [
        *_model(card),
        *_use(card),
        *_data(card),
        *_training(card),
        *_evaluation(card),
        *_considerations(card),
        *_pipeline(card),
        *_environment(card),
        *_energy(card.experiment_environment.carbon_and_cost),
        *_further(card),
    ]
    version = f"version {model.model_version} · " if model.model_version else ""
    return Document(
        title=model.name,
        subtitle=f"{version}experiment {model.experiment_id} of grid search {model.grid_search_id}",
        highlights=_highlights(card),
        blocks=blocks,
    )


def _highlights(card: ModelCard) -> list[tuple[str, str]]:
    found = []
    evaluation, model = card.eval_details, card.model_details
    for one in evaluation.scores:
        if f"{one.split}/{one.tag}" == evaluation.score and one.best:
            found.append((f"best {one.split} {one.tag}", score(one.best.value)))
    if model.total_parameters is not None:
        found.append(("parameters", short_count(model.total_parameters)))
    if samples := [split.samples for split in card.dataset_details.splits if "training" in split.uses]:
        found.append(("training samples", count(sum(samples))))
    training = card.training_details
    found.append(("epochs", f"{training.epochs_done}"))
    if training.seconds is not None:
        found.append(("training time", duration(training.seconds)))
    return found


# --- sections -----------------------------------------------------------------------------------------------


def _stated(card: ModelCard, group: str) -> list[tuple[str, str]]:
    names = GROUPS[group]
    stated = card.model_details.stated
    return [(name, words(stated[key])) for key, name in names.items() if key in stated]


def _facts(*rows: tuple[str, str | None]) -> Facts:
    return Facts([(name, value) for name, value in rows if value])


def _model(card: ModelCard) -> Iterable[Block]:
    model = card.model_details
    yield Heading("Model details", "model")
    yield Text(model.model_description) if model.model_description else Text(f"Description: {NOT_STATED.lower()}", True)
    yield _facts(
        ("version", model.model_version),
        ("source", model.source_repo),
        *_stated(card, "model"),
        ("trained", date(model.training_date)),
        ("grid search", model.grid_search_id),
        ("experiment", f"{model.experiment_id} ({model.status}), configuration {model.config_hash or 'unknown'}"),
        ("class", model.type),
        ("parameters", None if model.total_parameters is None else _parameters(card)),
        ("size", None if model.size_bytes is None else f"{size(model.size_bytes)} in memory"),
    )
    if "citation" in model.stated:
        yield Subheading("Citation")
        yield Text(words(model.stated["citation"]))
    if model.type is None:
        yield Text("What the model consists of was not recorded.", True)
    elif model.layers:
        yield Subheading("Layers")
        shown = model.modules and model.modules > len(model.layers)
        yield Table(
            ["layer", "type", "parameters", "trainable"],
            [[layer.name, layer.type, count(layer.parameters), count(layer.trainable)] for layer in model.layers],
            2,
            f"{count(model.modules or 0)} modules, summed up." if shown else "",
        )
    if model.checkpoint and model.checkpoint.files:
        yield Subheading(f"Checkpoint of epoch {model.checkpoint.epoch}")
        yield Table(
            ["file", "SHA-256", "size"],
            [[file.name, file.sha256, size(file.size)] for file in model.checkpoint.files],
            2,
        )


def _parameters(card: ModelCard) -> str:
    total, trainable = card.model_details.total_parameters or 0, card.model_details.trainable_parameters or 0
    return f"{count(total)}, all trainable" if total == trainable else f"{count(total)}, {count(trainable)} trainable"


def _use(card: ModelCard) -> Iterable[Block]:
    yield Heading("Intended use", "use")
    stated = _stated(card, "use")
    yield Facts(stated) if stated else Text(NOT_STATED, True)


def _data(card: ModelCard) -> Iterable[Block]:
    data = card.dataset_details
    yield Heading("Data", "data")
    fold = ", ".join(f"{name} {value}" for name, value in data.fold.items())
    yield _facts(("data set", ", ".join(data.datasets)), ("fold", fold), *_stated(card, "data"))
    if not data.splits:
        yield Text("What the data consist of was not recorded.", True)
        return
    yield Table(
        ["split", "used for", "sample", "target", "samples", "share", "batch"],
        [
            [
                split.split,
                " and ".join(split.uses),
                _shape(split.sample_shape, split.sample_dtype),
                _shape(split.target_shape, split.target_dtype),
                count(split.samples),
                f"{split.percentage:.1f}%",
                str(split.batch_size or "-"),
            ]
            for split in data.splits
        ],
        4,
    )
    yield from _distribution(data.splits)


def _shape(shape: list[int] | None, dtype: str) -> str:
    if shape is None:
        return "not recorded"
    return f"{' x '.join(map(str, shape)) or 'scalar'} {dtype}"


def _distribution(splits: Sequence[Split]) -> Iterable[Block]:
    spread = [split for split in splits if split.spread]
    if spread:
        yield Subheading("Targets")
        names = ["min", "max", "mean", "std"]
        yield Table(
            ["split", *names],
            [[split.split, *(score(split.spread.get(name, "NaN")) for name in names)] for split in spread],
        )
    counted = [split for split in splits if split.label_distribution]
    if counted:
        yield Subheading("Label distribution")
        totals: dict[int, int] = {}
        names_of: dict[int, str] = {}
        for split in counted:
            for label in split.label_distribution:
                totals[label.label] = totals.get(label.label, 0) + label.count
                names_of[label.label] = label.name
        shown = sorted(sorted(totals, key=lambda label: (-totals[label], label))[:MAX_LABELS])
        by_split = [{one.label: (one.count, one.percentage) for one in split.label_distribution} for split in counted]
        notes = []
        if len(totals) > len(shown):
            notes.append(f"The {len(shown)} most frequent of {count(len(totals))} labels.")
        if any(split.multi_label for split in counted):
            notes.append("A sample may have several labels, or none.")
        yield Distribution(
            [names_of[label] for label in shown],
            [split.split for split in counted],
            [[found.get(label) for found in by_split] for label in shown],
            " ".join(notes),
        )
    for split in splits:
        if split.uncounted:
            yield Text(f"Labels of {split.split} were not counted: {split.uncounted}.", True)


def _training(card: ModelCard) -> Iterable[Block]:
    training = card.training_details
    yield Heading("Training", "training")
    parts = (training.training_seconds, training.evaluation_seconds)
    of_which = (
        f", of which training {duration(parts[0])} and evaluation {duration(parts[1])}" if None not in parts else ""
    )
    yield _facts(
        ("loss", part(training.loss)),
        ("optimizer", part(training.optimizer)),
        ("learning rate schedule", part(training.lr_scheduler)),
        ("early stopping", part(training.early_stopping)),
        ("epochs", f"{training.epochs_done} of {training.num_epochs}"),
        ("seed", None if training.seed is None else str(training.seed)),
        ("began", date(training.starting_time)),
        ("ended", date(training.finishing_time)),
        ("took", None if training.seconds is None else duration(training.seconds) + of_which),
        ("device", ", ".join(training.devices)),
        ("CPU threads", str(training.num_threads) if training.num_threads else None),
        ("memory at its peak", size(training.memory_bytes) if training.memory_bytes else None),
        ("GPU memory at its peak", size(training.device_memory_bytes) if training.device_memory_bytes else None),
    )
    if len(training.runs) > 1:
        yield Subheading("Attempts")
        yield Table(
            ["attempt", "ended as", "device", "host", "began", "from epoch", "took"],
            [
                [
                    str(run.attempt),
                    run.status + (f" ({run.reason})" if run.reason else ""),
                    run.device or "-",
                    run.host or "-",
                    date(run.starting_time) or "-",
                    str(run.start_epoch),
                    duration(run.seconds),
                ]
                for run in training.runs
            ],
            5,
        )
    if training.hyperparameters:
        yield Subheading("Hyperparameters")
        yield Table(
            ["parameter", "value", "in the grid"],
            [
                [readable_path(one.parameter), words(one.value), "swept" if one.swept else ""]
                for one in training.hyperparameters
            ],
            3,
        )
    else:
        yield Text("The configuration was not recorded.", True)


def _evaluation(card: ModelCard) -> Iterable[Block]:
    evaluation = card.eval_details
    yield Heading("Evaluation", "evaluation")
    if stated := _stated(card, "evaluation"):
        yield Facts(stated)
    if not evaluation.scores:
        yield Text("There are no scores yet.", True)
        return
    direction = "larger" if evaluation.mode == "max" else "smaller"
    if evaluation.score:
        found = f", which was best at epoch {evaluation.best_epoch}" if evaluation.best_epoch is not None else ""
        yield Text(f"Experiments are compared by {evaluation.score} ({direction} is better){found}.", True)
    chosen = [] if evaluation.best_epoch is None else [f"at epoch {evaluation.best_epoch}"]
    yield Table(
        ["score", "split", *chosen, "last", "at epoch", "best", "at epoch"],
        [
            [
                one.tag,
                one.split,
                *(["-" if one.at_best_epoch is None else score(one.at_best_epoch)] if chosen else []),
                score(one.last.value),
                str(one.last.epoch),
                score(one.best.value) if one.best else "-",
                str(one.best.epoch) if one.best else "-",
            ]
            for one in evaluation.scores
        ],
        2,
        "Best is the largest of scores and the smallest of losses, each chosen for itself, and so a little too good.",
    )
    definitions = [*(("metric", one) for one in evaluation.metrics), *(("loss", one) for one in evaluation.losses)]
    if definitions:
        yield Subheading("Metrics and losses")
        yield Table(
            ["tag", "kind", "computed by", "parameters"],
            [
                [words(one.get("tag", one.get("key"))), kind, words(one.get("key")), _params(one)]
                for kind, one in definitions
            ],
            4,
        )
    if charts := _charts(evaluation.scores):
        yield Subheading("Scores by epoch")
        yield charts
    for found_class in evaluation.class_results:
        yield from _classes(found_class)


def _params(config: dict[str, Any]) -> str:
    own = ("key", "tag", "prediction_subscription_key", "target_subscription_key")
    params = config.get("params")
    rest = {name: value for name, value in config.items() if name not in (*own, "params")}
    return words({**(params if isinstance(params, dict) else {}), **rest}) or "-"


def _charts(scores: Sequence[ScoreDetails]) -> list[Chart]:
    charts: dict[str, Chart] = {}
    for one in scores:
        points = [(e, float(v)) for e, v in zip(one.epochs, one.values, strict=False) if math.isfinite(float(v))]
        if len(points) < 2:
            continue
        best = (one.best.epoch, float(one.best.value)) if one.best else None
        line = Line(one.split, [epoch for epoch, _ in points], [value for _, value in points], best)
        charts.setdefault(one.tag, Chart(one.tag, [])).lines.append(line)
    return list(charts.values())


def _classes(found: ClassDetails) -> Iterable[Block]:
    which = " and ".join(word for word, fits in (("best", found.best), ("last", found.last)) if fits)
    yield Subheading(f"By class: {found.split}, {which} epoch ({found.epoch})")
    yield Text(
        f"{count(found.samples)} samples, {100 * found.accuracy:.2f}% predicted right "
        f"({found.prediction} against {found.target}).",
        True,
    )
    if found.confusion:
        yield Matrix(
            f"Confusion matrix of {found.split} at epoch {found.epoch}",
            [one.name for one in found.classes],
            found.confusion,
        )
    shown = sorted(sorted(found.classes, key=lambda one: -one.support)[:MAX_LABELS], key=lambda one: one.label)
    rest = len(found.classes) - len(shown)
    yield Table(
        ["class", "precision", "recall", "F1", "samples", "predicted"],
        [
            [one.name, ratio(one.precision), ratio(one.recall), ratio(one.f1), count(one.support), count(one.predicted)]
            for one in shown
        ],
        1,
        f"The {len(shown)} most frequent of {len(found.classes)} classes." if rest > 0 else "",
    )
    if found.confusions:
        yield Table(
            ["actual", "predicted as", "samples"],
            [[one.actual, one.predicted, count(one.count)] for one in found.confusions[:20]],
            2,
            "The most frequent mistakes.",
        )


def _considerations(card: ModelCard) -> Iterable[Block]:
    yield Heading("Limitations and ethical considerations", "considerations")
    stated = _stated(card, "considerations")
    yield Facts(stated) if stated else Text(NOT_STATED, True)


def _pipeline(card: ModelCard) -> Iterable[Block]:
    components = card.pipeline_details.components
    yield Heading("Pipeline", "pipeline")
    if not components:
        yield Text("The configuration was not recorded.", True)
        return
    swept = {one.parameter: one.value for one in card.training_details.hyperparameters if one.swept}
    config = {
        one.name: {
            "component_type_key": one.component_type_key,
            "variant_key": one.variant_key,
            "config": one.config,
            "requirements": one.requirements,
        }
        for one in components
    }
    yield Graph(config, swept)
    yield Table(
        ["component", "type", "variant", "requires"],
        [
            [
                one.name,
                one.component_type_key,
                one.variant_key,
                ", ".join(_requirement(requirement) for requirement in one.requirements) or "-",
            ]
            for one in components
        ],
        4,
    )


def _requirement(of: dict[str, Any]) -> str:
    subscription = of.get("subscription")
    return str(of.get("component_name")) + ("" if subscription is None else f" ({words(subscription)})")


def _environment(card: ModelCard) -> Iterable[Block]:
    yield Heading("Environment", "environment")
    hosts = card.experiment_environment.hosts
    if not hosts:
        yield Text("It was not recorded.", True)
    for info in hosts:
        if len(hosts) > 1:
            yield Subheading(f"Host {words(info.get('host'))}")
        git = info.get("git")
        commit = words(git.get("commit")) if isinstance(git, dict) else "no repository"
        dirty = isinstance(git, dict) and git.get("dirty")
        packages = info.get("packages")
        gpus = info.get("gpus")
        gpus = [gpu for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
        cuda = {words(gpu.get("cuda")) for gpu in gpus if gpu.get("cuda")}
        cudnn = {words(gpu.get("cudnn")) for gpu in gpus if gpu.get("cudnn")}
        memory = info.get("memory_bytes")
        yield _facts(
            ("operating system", words(info.get("operating_system"))),
            ("architecture", words(info.get("architecture"))),
            ("processor", words(info.get("processor"))),
            ("cores", words(info.get("cores"))),
            ("memory", size(memory) if isinstance(memory, int) else None),
            *((f"GPU {number}", _gpu(gpu)) for number, gpu in enumerate(gpus)),
            ("GPU", None if gpus else "none"),
            ("CUDA", ", ".join(sorted(cuda))),
            ("cuDNN", ", ".join(sorted(cudnn))),
            ("Python", words(info.get("python"))),
            ("packages", words(packages) if isinstance(packages, dict) else None),
            ("git commit", commit + (", with changes that were not committed" if dirty else "")),
            ("command line", _command(info.get("command_line"))),
        )
        everything = info.get("all_packages")
        if isinstance(everything, list) and everything:
            yield Folded(f"All {len(everything)} Python packages", [words(one) for one in everything])


def _gpu(gpu: dict[str, Any]) -> str:
    memory = gpu.get("memory_bytes")
    return words(gpu.get("name")) + (f", {size(memory)}" if isinstance(memory, int) else "")


def _command(line: Any) -> str:
    return " ".join(words(one) for one in line) if isinstance(line, list) else words(line)


def _energy(found: Energy) -> Iterable[Block]:
    yield Heading("Carbon and cost", "energy")
    kinds = {"measured": "measured", "stated": "from a stated power", "estimate": "an estimate", None: "not known"}
    missing = " (state {} in model_info)"
    carbon = f"not stated{missing.format('carbon_intensity_g_per_kwh')}"
    cost = f"not stated{missing.format('price_per_kwh')}"
    yield _facts(
        (
            "energy",
            f"{figures(found.energy_kwh)} kWh, {kinds[found.basis]}" if found.energy_kwh is not None else "not known",
        ),
        ("how", found.explanation),
        ("power", f"{figures(found.power_watts)} W" if found.power_watts is not None else None),
        ("duration", f"{figures(found.hours)} h" if found.hours is not None else None),
        ("carbon", f"{figures(found.carbon_g)} g CO2eq" if found.carbon_g is not None else carbon),
        ("cost of electricity", f"{figures(found.cost)} {found.currency}".strip() if found.cost is not None else cost),
    )


def _further(card: ModelCard) -> Iterable[Block]:
    known = {"citation"}.union(*GROUPS.values())
    rest = [
        (key.replace("_", " "), words(value)) for key, value in card.model_details.stated.items() if key not in known
    ]
    if rest:
        yield Heading("Further statements", "further")
        yield Facts(rest)


# --- words for values ---------------------------------------------------------------------------------------


def count(value: int) -> str:
    """`1,258`."""
    return f"{value:,}"


def short_count(value: int) -> str:
    """`9,930`, `11.7 M`."""
    for limit, unit in ((10**9, "B"), (10**6, "M")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return count(value)


def size(value: float) -> str:
    """Bytes in units of 1,024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def score(value: float | str) -> str:
    """Four digits; what is no number as it is."""
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if not value or 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def figures(value: float) -> str:
    """At least three significant figures, of one below 1,000 no more."""
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def date(milliseconds: int | None) -> str | None:
    """In UTC; None for none, and for one that no calendar has."""
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return None


def words(value: Any) -> str:
    """A value on one line (a text as it is): lists by commas, mappings as `name: value`."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(words(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {words(one)}" for name, one in value.items())
    return json.dumps(value)


def part(config: dict[str, Any] | None) -> str | None:
    """`ADAM (lr: 0.01)`."""
    if not config:
        return None
    rest = {name: value for name, value in config.items() if name not in ("key", "tag") and not name.endswith("_key")}
    inner = ", ".join(
        words(value) if isinstance(value, dict) else f"{name}: {words(value)}"
        for name, value in rest.items()
        if value != {}
    )
    return words(config.get("key", "")) + (f" ({inner})" if inner else "") or None


def readable_path(path: str) -> str:
    """`optimizer.params.lr` for `optimizer.config.params.lr`."""
    name, _, rest = path.partition(".")
    return f"{name}.{rest.removeprefix('config.')}" if rest else name

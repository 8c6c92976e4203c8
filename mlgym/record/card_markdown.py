"""A model card as Markdown, with the front matter that the Hugging Face hub reads. Pure.

Text is escaped, so that nothing in it is markup or HTML, whoever renders it. Imports card_schema, card_blocks, card_svg
(for what cannot be seen).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from mlgym.record.card_blocks import (
    Block,
    Chart,
    Distribution,
    Facts,
    Folded,
    Heading,
    Matrix,
    Subheading,
    Table,
    Text,
    count,
    document,
    score,
)
from mlgym.record.card_schema import ModelCard
from mlgym.record.card_svg import NOT_SHOWN

_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&'*+,;=%-]{1,2000}")
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_BEGINNING = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=[-+#]))")
"""Where a line would begin a list, a rule or a heading."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}")
_MOST_EPOCHS = 12
_MOST_CLASSES = 20


def as_markdown(card: ModelCard) -> str:
    """The whole file."""
    found = document(card)
    highlights = " · ".join(f"{text(name)} **{text(value)}**" for name, value in found.highlights)
    parts = [_front_matter(card), f"# {text(found.title)}", text(found.subtitle), highlights]
    parts += [written for block in found.blocks if (written := _block(block))]
    seq = card.model_details.seq
    parts.append(f"---\n\nMade by mlgym from the event log as of event {seq}.")
    return "\n\n".join(parts) + "\n"


def text(value: str) -> str:
    """Plain text on one line."""
    value = " ".join(NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", value).split())
    value = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _BEGINNING.sub(r"\1\\", _SPECIAL.sub(r"\\\1", value))


def _paragraphs(value: str) -> str:
    return "\n\n".join(text(one) for one in re.split(r"\n\s*\n", value.strip()) if one.strip())


def _fact(value: str) -> str:
    return f"<{value}>" if _ADDRESS.fullmatch(value) else text(value)


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"## {text(block.text)}"
        case Subheading():
            return f"### {text(block.text)}"
        case Text():
            return f"*{text(block.text)}*" if block.muted else _paragraphs(block.text)
        case Facts():
            return "\n".join(f"- **{text(name)}:** {_fact(value)}" for name, value in block.rows)
        case Table():
            return _table(block.head, block.rows, block.words) + (f"\n\n*{text(block.note)}*" if block.note else "")
        case Distribution():
            cells = [[f"{count(one[0])} ({one[1]:.1f}%)" if one else "-" for one in row] for row in block.counts]
            rows = [[label, *row] for label, row in zip(block.labels, cells, strict=True)]
            return _table(["label", *block.splits], rows, 1) + (f"\n\n*{text(block.note)}*" if block.note else "")
        case Matrix():
            return _matrix(block)
        case Folded():
            return f"**{text(block.title)}:** " + ", ".join(map(text, block.lines))
        case list():
            return "\n\n".join(_chart(one) for one in block)
    return ""  # the picture of the components: their table comes next


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    rule = [":--" if i < words else "--:" for i in range(len(head))]
    lines = [[text(name) or " " for name in head], rule, *([text(cell) or " " for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _matrix(of: Matrix) -> str:
    """Rows are what samples are, columns what they were taken for."""
    if len(of.names) > _MOST_CLASSES:
        return ""
    rows = [[name, *map(count, row)] for name, row in zip(of.names, of.counts, strict=True)]
    return _table(["actual \\ predicted", *of.names], rows, 1)


def _chart(of: Chart) -> str:
    """Some of the epochs, the first and the last among them."""
    epochs = sorted({epoch for line in of.lines for epoch in line.epochs})
    step = max(1, -(-(len(epochs) - 1) // (_MOST_EPOCHS - 1)))
    shown = sorted({*epochs[::step], epochs[-1]})
    values = [dict(zip(line.epochs, line.values, strict=True)) for line in of.lines]
    rows = [[str(epoch), *(score(found[epoch]) if epoch in found else "-" for found in values)] for epoch in shown]
    return _table([f"{of.title}, epoch", *(line.name for line in of.lines)], rows, 0)


# --- front matter -------------------------------------------------------------------------------------------


def _front_matter(card: ModelCard) -> str:
    """YAML; a JSON value is one, so strings need no other quoting."""
    model, stated = card.model_details, card.model_details.stated
    lines = [
        f"{key}: {_json(stated[key])}" for key in ("license", "language", "pipeline_tag") if _named(stated.get(key))
    ]
    lines += ["library_name: pytorch"]
    tags = stated.get("tags")
    tags = [tag for tag in (tags if isinstance(tags, list) else [tags]) if isinstance(tag, str) and tag]
    lines += [f"tags: {_json(['mlgym', *(tag for tag in tags if tag != 'mlgym')])}"]
    if metrics := list(dict.fromkeys(str(one.get("key", "")).lower() for one in card.eval_details.metrics)):
        lines.append(f"metrics: {_json([metric for metric in metrics if metric])}")
    if datasets := card.dataset_details.datasets:
        lines.append(f"datasets: {_json(datasets)}")
    if results := _results(card):
        name = stated.get("model_index_name", model.name)
        lines.append(f"model-index: {_json([{'name': str(name), 'results': results}])}")
    return "\n".join(["---", *lines, "---"])


def _results(card: ModelCard) -> list[dict[str, Any]]:
    """What the hub shows beside the card: the last value of each metric on each split that was not trained on."""
    trained = {split.split for split in card.dataset_details.splits if "training" in split.uses}
    datasets = card.dataset_details.datasets or ["data"]
    kinds = {str(one.get("tag", one.get("key"))): str(one.get("key", "")).lower() for one in card.eval_details.metrics}
    kind = "classification" if card.eval_details.class_results else "regression" if _is_regression(card) else "other"
    stated = card.model_details.stated.get("pipeline_tag")
    task = stated if _named(stated) else kind
    return [
        {
            "task": {"type": task},
            "dataset": {"name": ", ".join(datasets), "type": datasets[0], "split": split},
            "metrics": [
                {"type": kinds.get(one.tag, one.tag), "value": one.last.value, "name": f"{one.tag} on {split}"}
                for one in card.eval_details.scores
                if one.split == split and not one.loss and isinstance(one.last.value, float | int)
            ],
        }
        for split in dict.fromkeys(one.split for one in card.eval_details.scores if not one.loss)
        if split not in trained
    ]


def _is_regression(card: ModelCard) -> bool:
    return any(split.spread for split in card.dataset_details.splits)


def _named(value: Any) -> bool:
    """Whether it is such as the hub takes: a name, or several."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str) and _PLAIN.fullmatch(one) for one in values)


def _json(value: Any) -> str:
    """Without tags also for those who take front matter for text."""
    written = json.dumps(value, ensure_ascii=False).replace("\u2028", " ").replace("\u2029", " ")
    written = written.replace("<", "\\u003c").replace(">", "\\u003e")
    return NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", written)

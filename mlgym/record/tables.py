"""The report on a validation as text, CSV and a page. Imports report, validation."""

from __future__ import annotations

import csv
import io
import json
from html import escape
from string import Template
from typing import Any

from mlgym.record.report import aligned, shown
from mlgym.record.validation import RULES, Table, Validated, tables

_NAMED = 8  # of what is missing


def as_text(found: Validated, rows: int | None = None) -> str:
    """The report to be read; of the combinations at most `rows`."""
    if found.score is None:
        return f"{found.kind}: there are no scores yet"
    first, *inner = tables(found)
    lines = [first.title, *_aligned(first, rows), ""]
    for table in inner if rows is None else ():
        lines += [table.title, *_aligned(table, rows), ""]
    return "\n".join([*lines, *sentences(found)])


def sentences(found: Validated) -> list[str]:
    """What the tables come to, by which rule, and what is missing."""
    lines = []
    if found.ranking is None:
        if found.mean is not None:
            lines.append(
                f"estimate for training chosen like this: {_number(found.mean)} +- {_number(found.std)} "
                f"(mean and standard deviation over {len(found.outer)} outer folds)"
            )
    elif (best := found.ranking.best) and best.mean is not None:
        over = len(best.scores)
        of = "folds" if found.outer_folds else "seeds"
        spread = f" +- {_number(best.std)} (mean and standard deviation over {over} {of})" if over > 1 else ""
        lines.append(f"best: combination {best.number}, {_number(best.mean)}{spread}")
    if found.seeds and (found.outer_folds or found.inner_folds):
        lines.append(f"each score is the mean over {len(found.seeds)} seeds")
    rule = RULES[found.epoch]
    if found.ranking is None and found.epoch == "best":
        rule += "; on the outer folds the last epoch"
    if found.ranking is None and found.epoch == "average":
        rule = "the epoch that is best on average over the inner folds, also on the outer fold"
    lines.append(f"what counts is {rule}")
    if found.missing:
        lines.append(f"this report is incomplete ({len(found.missing)} missing):")
        lines += [f"  {one}" for one in found.missing[:_NAMED]]
        if len(found.missing) > _NAMED:
            lines.append(f"  and {len(found.missing) - _NAMED} more")
    return lines


def as_csv(found: Validated) -> str:
    """The first table: combinations, or outer folds. Numbers with all their digits."""
    first = tables(found)[0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell, first.header))
    writer.writerows([[cell(value) for value in row] for row in first.rows])
    return text.getvalue()


def as_html(found: Validated) -> str:
    """A page of its own, which asks for nothing and runs nothing."""
    title = f"{found.grid_search_id}: {found.kind}"
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(line)}</p>" for line in sentences(found))]
    for table in tables(found):
        head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in table.header)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _texts(table))
        body.append(f"<h2>{escape(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return Template(_PAGE).substitute(title=escape(title), body="\n".join(body))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; border-bottom: 1px solid #8885; text-align: right; }
h2 { margin-top: 2em; font-size: 1.1em; }
p { margin: 0.3em 0; white-space: pre-wrap; }
</style>
</head>
<body>
$body
</body>
</html>
"""


def _aligned(table: Table, rows: int | None) -> list[str]:
    lines = aligned([table.header, *_texts(table)[:rows]])
    more = 0 if rows is None else len(table.rows) - rows
    return [*lines, f"... and {more} more"] if more > 0 else lines


def _texts(table: Table) -> list[list[str]]:
    """The cells as they are shown: scores with four digits."""
    return [
        [_number(cell) if isinstance(cell, float) and i >= table.scores else _text(cell) for i, cell in enumerate(row)]
        for row in table.rows
    ]


def _text(value: Any) -> str:
    return "-" if value is None else shown(value)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or not value else f"{value:.4g}"


def cell(value: Any) -> Any:
    """As a spreadsheet should see it in a CSV file: texts that would be formulas there stay texts."""
    if isinstance(value, list | dict):
        value = json.dumps(value)
    return f"'{value}" if isinstance(value, str) and value[:1] in _BEGIN_FORMULAS else value


_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")  # white space in front of one is dropped

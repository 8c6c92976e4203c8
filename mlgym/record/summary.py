"""The report as text, with what lies beside the log: the last lines that a failed job printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from mlgym.record import tables
from mlgym.record.report import Report, as_text
from mlgym.record.validation import Validated
from mlgym.specs import RunPaths

_SHOWN = 10
_LINES = 8
_RANKED = 20


def summary(found: Report, paths: RunPaths, servers: Sequence[str] = (), validation: Validated | None = None) -> str:
    """The table, the winner or what `validation` says, every failure with its last lines (of the first ten), and where
    to see more."""
    text = [as_text(found if validation is None else found._replace(winner=None))]
    if validation is not None:
        text += ["", tables.as_text(validation, _RANKED), f"more: mlgym report {paths.grid_search_id}"]
    failed = [row for row in found.rows if row.status in ("FAILED", "LOST")]
    for i, row in enumerate(failed):
        text += ["", f"experiment {row.experiment_id} {row.status}: {_printable(row.error or 'no reason recorded')}"]
        if i >= _SHOWN:
            text.pop(-2)
            continue
        output = paths.output(row.experiment_id)
        if lines := _last_lines(output):
            text += [f"  the end of {output}:", *(f"  | {line}" for line in lines)]
    if servers:
        return "\n".join([*text, "", f"log: {', '.join(servers)}"])
    board = f"ml_board --event_storage_path {quote(str(paths.event_storage))} --run_id {paths.grid_search_id}"
    return "\n".join([*text, "", f"dashboard: {board}", f"log: {paths.log}"])


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [_printable(line) for line in lines[-_LINES:]]


def _printable(line: str) -> str:
    """What a job prints must not be able to command the terminal."""
    return "".join(c if c.isprintable() else " " for c in line)[:160]

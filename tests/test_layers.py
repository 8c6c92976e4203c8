"""A file imports only from the rows above its own, or from files left of it in its row (docs/design.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROWS = [
    ["errors", "specs", "schema", "processes"],
    [
        "record.events",
        "record.journal",
        "record.spool",
        "record.scores",
        "record.fold",
        "record.report",
        "record.layered",
        "record.pipeline",
        "record.pipeline_text",
        "record.validation",
        "record.tables",
        "record.files",
        "record.summary",
        "record.checkpoint_folder",
        "record.token",
        "record.old_log",
        "record.log",
        "record.export",
        "record.to_tensorboard",
        "record.to_mlflow",
        "record.hub",
        "record.forwarder",
        "record.delivery",
        "record.remote",
        "record.card_schema",
        "record.card_sources",
        "record.card_evaluation",
        "record.card",
        "record.card_blocks",
        "record.card_svg",
        "record.card_html",
        "record.card_markdown",
        "record.transfer",
    ],
    ["plan.config", "plan.folds", "plan.sweep", "plan.experiments", "plan.resume"],
    [
        "parts.torchvision_ops",
        "parts.seeds",
        "parts.table",
        "parts.batch",
        "parts.datasets",
        "parts.iterators",
        "parts.data",
        "parts.models",
        "parts.postprocessing",
        "parts.loss_functions",
        "parts.losses",
        "parts.metrics",
        "parts.class_metrics",
        "parts.class_counts",
        "parts.optimizers",
        "parts.policies",
        "parts.backend",
        "parts.sharded",
        "parts.accelerated",
        "parts.trainer",
        "parts.evaluator",
    ],
    ["build.registry", "build.graph", "build.catalog"],
    [
        "engine.provenance",
        "engine.state_files",
        "engine.checkpoints",
        "engine.training_state",
        "engine.experiment",
        "engine.energy",
        "engine.facts",
        "engine.checking",
        "engine.dividing",
        "engine.executor",
        "engine.ranks",
        "engine.channel",
        "engine.forkserver",
        "engine.fork_service",
        "engine.worker",
        "engine.trained",
        "engine.in_process",
        "engine.slots",
        "engine.scheduler",
        "engine.guard",
        "engine.station",
        "engine.driver",
        "engine.cluster",
        "engine.board",
        "engine.recording",
        "engine.progress",
        "engine.signals",
        "engine.announce",
        "engine.run",
    ],
    ["cli"],
]
BOARD = [
    "refusal",
    "settings",
    "series",
    "history",
    "store",
    "security",
    "sockets",
    "uploads",
    "projections",
    "packing",
    "one_file",
    "openapi",
    "wire_types",
    "requests",
    "search",
    "reading",
    "rest",
    "app",
    "cli",
]
"""The server stands beside the rest, on the ground and on `record`."""

ORDER = {f"mlgym.{name}": (i, j) for i, row in enumerate(ROWS) for j, name in enumerate(row)}
ORDER |= {f"ml_board.{name}": (len(ROWS), j) for j, name in enumerate(BOARD)}
FILES = sorted(
    path
    for package in ("mlgym", "ml_board")
    for path in (ROOT / package).rglob("*.py")
    if path.stem not in ("__init__", "__main__")
)


def imported(path: Path) -> set[str]:
    """Every module of ours that a file imports, anywhere in it, except for type checkers."""
    found = set()
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name in ORDER}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_or_left(path: Path) -> None:
    name = name_of(path)
    assert name in ORDER, f"{name} has no place in the table"
    for other in imported(path):
        assert ORDER[other] < ORDER[name], f"{name} must not import {other}"
        if name.startswith("ml_board."):
            assert other.startswith("ml_board.") or ORDER[other][0] <= 1, f"{name} must not import {other}"


def test_every_row_names_files_that_exist() -> None:
    assert {name_of(path) for path in FILES} == set(ORDER)

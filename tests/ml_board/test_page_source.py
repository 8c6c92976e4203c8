"""The page's source: its types are those of the events, its layers hold, it is strict TypeScript, and its build is the
one that is committed."""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ml_board.wire_types import typescript
from tests.conftest import ROOT

FRONTEND = ROOT / "ml_board" / "frontend"
STATIC = ROOT / "ml_board" / "static"
SOURCES = sorted(path for path in (FRONTEND / "src").rglob("*") if path.suffix in (".ts", ".tsx", ".js"))
LAYERS = ["wire", "state", "charts", "views", "main.tsx"]
"""From the ground up: a file imports from its own layer and from those before it."""

# With no Node the page cannot be built; CI has one, and there these tests fail rather than being skipped.
needs_node = pytest.mark.skipif(
    shutil.which("npm") is None and not os.environ.get("CI"), reason="no Node: the page is neither built nor tested"
)


def test_types_are_those_of_the_events() -> None:
    """`python -m ml_board.wire_types > ml_board/frontend/src/wire/events.ts` was run after the last change."""
    assert (FRONTEND / "src" / "wire" / "events.ts").read_text() == typescript()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FRONTEND / "src")))
def test_imports_only_from_lower_layers(path: Path) -> None:
    def layer(of: Path) -> int:
        return LAYERS.index(of.relative_to(FRONTEND / "src").parts[0])

    for found in re.findall(r'(?:from|import)\s+"(\.[^"]+)"', path.read_text()):
        target = (path.parent / found).resolve()
        if target.is_relative_to(FRONTEND / "src") and target.suffix != ".css":
            assert layer(target) <= layer(path), f"{path.name} imports {found}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FRONTEND / "src")))
def test_text_is_never_markup(path: Path) -> None:
    """Nothing in the source could turn text from an event into elements, or into code."""
    forbidden = r"dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert not re.search(forbidden, path.read_text())


def test_asks_nobody_but_the_board() -> None:
    """No address of another machine stands in what is served, but as text that is shown."""
    for path in STATIC.iterdir():
        for url in re.findall(r"https?://[^\s\"'`)<]+", path.read_text()):
            known = r"http://www\.w3\.org/|https://socket\.io/docs/|http://127\.0\.0\.1|http://localhost|https?://\$"
            assert re.match(known, url), (path, url)


def test_script_does_not_grow() -> None:
    """Gzipped: what the page of an analysis needs, which is the largest, and all there is. docs/design.md says what the
    bytes are spent on."""

    def size(*names: str) -> int:
        return sum(len(gzip.compress((STATIC / f"{name}.js").read_bytes(), 9)) for name in names)

    first = size("page", "keys", "session", "board", "palette", "analysis", "table", "charts")
    assert first <= 84_000
    assert size(*(path.stem for path in STATIC.glob("*.js"))) <= 114_000


@pytest.fixture(scope="module")
def packages() -> None:
    """What the page is built with, as package-lock.json says."""
    stamp = FRONTEND / "node_modules" / ".package-lock.json"
    with (FRONTEND / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not stamp.exists() or stamp.stat().st_mtime < Path(lock.name).stat().st_mtime:
            _npm("ci", "--no-audit", "--no-fund")
            stamp.touch()


@needs_node
def test_compiles(packages: None) -> None:
    _npm("run", "check")


@needs_node
def test_store(packages: None) -> None:
    """The tests of the page's own parts."""
    _npm("test")


@needs_node
def test_build_is_the_one_that_is_committed(packages: None, tmp_path: Path) -> None:
    """`make page` was run after the last change."""
    _npm("run", "build", "--", "--outDir", str(tmp_path / "static"), "--emptyOutDir")
    built = {path.name: path.read_bytes() for path in (tmp_path / "static").iterdir()}
    assert sorted(built) == sorted(path.name for path in STATIC.iterdir())
    changed = [name for name, content in built.items() if (STATIC / name).read_bytes() != content]
    assert changed == []


def _npm(*arguments: str) -> None:
    ended = subprocess.run(["npm", *arguments], cwd=FRONTEND, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"

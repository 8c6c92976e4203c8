"""The page's source: its types are those of the events, its layers hold, it is strict TypeScript, and its build is the
one that is committed."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from ml_board.wire_types import typescript
from tests.conftest import ROOT
from tests.ml_board.conftest import FRONTEND, npm

STATIC = ROOT / "ml_board" / "static"
ONE_FILE = ROOT / "ml_board" / "one_file_page"
SOURCES = sorted(path for path in (FRONTEND / "src").rglob("*") if path.suffix in (".ts", ".tsx", ".js"))
LAYERS = ["wire", "state", "charts", "views", "main.tsx", "one_file.tsx"]
"""From the ground up: a file imports from its own layer and from those before it."""


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
    for path in (*STATIC.iterdir(), *ONE_FILE.iterdir()):
        for url in re.findall(r"https?://[^\s\"'`)<]+", path.read_text()):
            known = r"http://www\.w3\.org/|https://socket\.io/docs/|http://127\.0\.0\.1|http://localhost|https?://\$"
            assert re.match(known, url), (path, url)


def test_script_does_not_grow() -> None:
    """Gzipped: what the page of an analysis needs, which is the largest, and all there is. docs/design.md says what the
    bytes are spent on."""

    def size(*names: str) -> int:
        return sum(len(gzip.compress((STATIC / f"{name}.js").read_bytes(), 9)) for name in names)

    first = size(
        "page", "preload-helper", "parts", "keys", "session", "board", "palette", "analysis", "table", "charts"
    )
    assert first <= 84_000
    assert size(*(path.stem for path in STATIC.glob("*.js"))) <= 118_000


def test_one_file_stands_alone() -> None:
    """One script that loads no other, talks to no server, and does not end where it is put into a page; one sheet."""
    assert sorted(path.name for path in ONE_FILE.iterdir()) == ["page.css", "page.js"]
    script, sheet = ((ONE_FILE / name).read_text() for name in ("page.js", "page.css"))
    assert not re.search(r"\bimport\s*[({*\"']|\bimport\.meta|socket\.io|WebSocket", script)
    assert not re.search(r"</script|<!--", script, re.IGNORECASE)
    assert not re.search(r"@import|url\((?!data:)|</style", sheet, re.IGNORECASE)
    assert len(gzip.compress(script.encode(), 9)) <= 100_000


def test_compiles(packages: None) -> None:
    npm("run", "check")


def test_store(packages: None) -> None:
    """The tests of the page's own parts."""
    npm("test")


def test_build_is_the_one_that_is_committed(packages: None, tmp_path: Path) -> None:
    """`make page` was run after the last change."""
    for script, committed in (("build", STATIC), ("build:one_file", ONE_FILE)):
        npm("run", script, "--", "--outDir", str(tmp_path / committed.name), "--emptyOutDir")
        built = {path.name: path.read_bytes() for path in (tmp_path / committed.name).iterdir()}
        assert sorted(built) == sorted(path.name for path in committed.iterdir())
        changed = [name for name, content in built.items() if (committed / name).read_bytes() != content]
        assert changed == []

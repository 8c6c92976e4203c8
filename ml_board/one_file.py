"""A whole grid search in one HTML file: the page with the data inside, which needs no server and asks nobody.

    python -m ml_board.one_file --event_storage_path event_storage ID -o search.html

The file's own policy lets it run this script and use this sheet, known by their digests, and nothing else. The data is
base64 in an element that no browser runs, so there is nothing in it that could be markup. Imports packing.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import os
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from ml_board.packing import Packed, pack
from mlgym.errors import InputError, MLgymError, StorageError, tell
from mlgym.record.log import Log, grid_search
from mlgym.specs import RunPaths

LIMIT = 20_000_000
"""Bytes of a file, at most: above it, scores are thinned."""

_PAGE = Path(__file__).parent / "one_file_page"
_ICON = Path(__file__).parent / "static" / "icon.svg"
_CHUNK = 3 << 18  # bytes; a multiple of three, so that base64 needs no padding in between


def write_file(paths: RunPaths, target: Path, *, force: bool = False, limit: int = LIMIT) -> Packed:
    """Write the grid search into `target`, whole or not at all.

    Raises `InputError` when there is something already (unless `force`), and `StorageError` when it cannot be written.
    """
    if target.exists() and not force:
        raise InputError(f"{target} is there already; --force replaces it")
    log = Log.load(paths.log)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
            temporary = Path(file.name)
            packed = write(log, paths, file, limit)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error.strerror}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return packed


def write(log: Log, paths: RunPaths, out: IO[bytes], limit: int = LIMIT) -> Packed:
    """Write the file into `out`. Raises `InputError` when it cannot be as small as `limit` bytes."""
    head, foot = _frame(paths.grid_search_id)
    with tempfile.TemporaryFile(prefix="mlgym-") as data:
        about = {"grid_search_id": paths.grid_search_id, "made": int(time.time() * 1000), "version": _version()}
        room = (limit - len(head) - len(foot)) * 3 // 4
        packed = pack(log, paths, about, room, data)
        data.seek(0)
        out.write(head)
        while chunk := data.read(_CHUNK):
            out.write(base64.b64encode(chunk))
        out.write(foot)
    return packed._replace(size=len(head) + 4 * -(-packed.size // 3) + len(foot))


def _frame(title: str) -> tuple[bytes, bytes]:
    """What stands before the data, and after it."""
    # An end tag, or the beginning of a comment, would end the script; inside of strings they may be written so.
    script = (_PAGE / "page.js").read_text().replace("</script", r"<\/script").replace("<!--", r"<\!--")
    sheet = (_PAGE / "page.css").read_text()
    icon = base64.b64encode(_ICON.read_bytes()).decode()
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(sheet)}; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    head = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{html.escape(title)} · ml_board</title>
<link rel="icon" href="data:image/svg+xml;base64,{icon}" type="image/svg+xml">
<style>{sheet}</style>
</head>
<body>
<div id="page">unpacking …</div>
<noscript>This page needs JavaScript.</noscript>
<script type="text/plain" id="data">"""
    foot = f"""</script>
<script>{script}</script>
</body>
</html>
"""
    return head.encode(), foot.encode()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _version() -> str:
    try:
        return version("mlgym")
    except PackageNotFoundError:
        return "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m ml_board.one_file", description="Write a grid search into one HTML file."
    )
    parser.add_argument("grid_search_id", metavar="ID")
    parser.add_argument("-o", "--output", type=Path, help="default: ID.html")
    parser.add_argument("--event_storage_path", type=Path, default=Path("event_storage"), help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--max_bytes", type=int, default=LIMIT, help="above it, scores are thinned; default: %(default)s"
    )
    parser.add_argument("--program", default="ml_board.one_file", help=argparse.SUPPRESS)  # who says what went wrong
    parsed = parser.parse_args()
    target = parsed.output or Path(f"{parsed.grid_search_id}.html")
    try:
        paths = grid_search(parsed.event_storage_path, parsed.grid_search_id)
        packed = write_file(paths, target, force=parsed.force, limit=parsed.max_bytes)
    except MLgymError as error:
        tell(str(error), parsed.program)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(told(target, packed))  # noqa: T201
    return 0


def told(target: Path, packed: Packed) -> str:
    """What was written, for the user."""
    lines = [f"{target}: {packed.size / 1e6:.1f} MB, {packed.events:,} of {packed.of:,} events"]
    return "\n".join([*lines, *([packed.thinned] if packed.thinned else [])])


if __name__ == "__main__":
    sys.exit(main())

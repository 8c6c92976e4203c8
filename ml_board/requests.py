"""What is asked for in the path and the query of a request. Everything here raises `Refusal` 400 for what is malformed.

Imports refusal.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Container

from aiohttp import web

from ml_board.openapi import Parameter
from ml_board.refusal import Refusal
from mlgym.specs import GRID_SEARCH_ID

MAX_INT = 2**63 - 1
_RANGES = r"[0-9]{1,18}(-[0-9]{1,18})?(,[0-9]{1,18}(-[0-9]{1,18})?)*"
_MAX_RANGES = 4000  # characters

COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_INT}
RANGES = {"type": "string", "pattern": f"^{_RANGES}$", "maxLength": _MAX_RANGES}
GS = Parameter("gs", "path", {"type": "string", "pattern": f"^{GRID_SEARCH_ID}$"}, "id of a grid search")
EXP = Parameter("exp", "path", COUNT, "id of an experiment")


def grid_search_id(request: web.Request) -> str:
    return request.match_info["gs"]


def number(request: web.Request, name: str) -> int:
    """A number in the path."""
    text = request.match_info[name]
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_INT or str(int(text)) != text:
        raise Refusal(400, f"{text[:80]!r} is no number; expected digits, as in /checkpoints/ID/3/12")
    return int(text)


def query(request: web.Request, name: str, default: int, least: int = 0, most: int = MAX_INT) -> int:
    """A number in the query."""
    text = _single(request, name, "number")
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise Refusal(400, f"{name}: expected one number from {least} to {most}, not {text[:80]!r}")
    return int(text)


def word(request: web.Request, name: str) -> str | None:
    """A text in the query, up to 1,000 characters."""
    text = _single(request, name, "text")
    if text is not None and len(text) > 1000:
        raise Refusal(400, f"{name}: expected up to 1,000 characters, not {len(text):,}")
    return text


def choice(request: web.Request, name: str, words: tuple[str, ...]) -> str:
    """One of some words in the query; the first, if none is there."""
    text = _single(request, name, "word")
    if text is not None and text not in words:
        raise Refusal(400, f"{name}: expected one of {', '.join(filter(None, words))}, not {text[:80]!r}")
    return text or words[0]


def ranges(request: web.Request, name: str) -> Container[int] | None:
    """Numbers such as `1-50,52` in the query."""
    text = _single(request, name, "list")
    if text is None:
        return None
    if len(text) > _MAX_RANGES or not re.fullmatch(_RANGES, text):
        raise Refusal(400, f"{name}: expected numbers and ranges such as 1-50,52, not {text[:80]!r}")
    parts = [part.partition("-") for part in text.split(",")]
    return _Numbers([(int(first), int(last or first)) for first, _, last in parts])


class _Numbers(Container[int]):
    """The numbers in some ranges, both ends included."""

    def __init__(self, found: list[tuple[int, int]]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(found):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(self._lasts[-1], last)
            elif first <= last:
                self._firsts.append(first)
                self._lasts.append(last)

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]


def _single(request: web.Request, name: str, what: str) -> str | None:
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise Refusal(400, f"{name}: expected one {what}, not {len(values)}")
    return values[0] if values else None

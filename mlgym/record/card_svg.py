"""The pictures of a model card as SVG text: scores by epoch, and the confusion matrix. Pure; imports card_blocks.

Colours and fonts come from the page around them (`--line-1` to `--line-6`, `--heat`, `currentColor`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

from mlgym.record.card_blocks import Chart, Line, Matrix, score

_WIDTH, _HEIGHT = 400.0, 230.0
_LEFT, _TOP, _BOTTOM = 48.0, 12.0, 30.0
_LETTER = 6.2  # pixels of a letter of 11 px, at most on average
_COLOURS = 6

NOT_SHOWN = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]")
"""Control characters, and what turns the direction of the text after it."""


def text(value: str) -> str:
    """Plain text in HTML and SVG: nothing in it is markup, and nothing in it is invisible."""
    return escape(NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", value))


def chart(of: Chart) -> str:
    """Lines with axes; each line has its name at its end, and a ring where it is best."""
    epochs = [epoch for line in of.lines for epoch in line.epochs]
    values = [value for line in of.lines for value in line.values]
    first, last = min(epochs), max(epochs)
    ticks = _ticks(min(values), max(values), 5)
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    margin = max(60.0, min(150.0, 22 + _LETTER * max(len(line.name) for line in of.lines)))
    right, bottom = _WIDTH - margin, _HEIGHT - _BOTTOM

    def x(epoch: float) -> float:
        return _LEFT + (epoch - first) / (last - first or 1) * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value / 2 - low / 2) / (high / 2 - low / 2 or 1) * (bottom - _TOP)  # halves: no overflow

    parts = [f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{text(_told(of))}">']
    for tick in ticks:
        at = y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT:g} {at:.1f}H{right:g}"/>')
        parts.append(_label(_LEFT - 6, at + 3.5, _short(tick, ticks), "end"))
    for epoch in _epochs(first, last):
        parts.append(_label(x(epoch), bottom + 15, str(epoch), "middle"))
    parts.append(_label(right, _HEIGHT - 2, "epoch", "end"))
    parts.append(f'<path class="axis" d="M{_LEFT:g} {bottom:g}H{right:g}"/>')
    for number, line in enumerate(of.lines):
        colour = f"var(--line-{number % _COLOURS + 1})"
        points = " ".join(f"{x(e):.1f},{y(v):.1f}" for e, v in zip(line.epochs, line.values, strict=True))
        parts.append(f'<polyline points="{points}" style="stroke:{colour}"/>')
        if line.best and math.isfinite(line.best[1]):
            parts.append(
                f'<circle cx="{x(line.best[0]):.1f}" cy="{y(line.best[1]):.1f}" r="3.5" style="stroke:{colour}"/>'
            )
    for number, (line, at) in enumerate(_apart(of.lines, [y(line.values[-1]) for line in of.lines], bottom)):
        colour = f"var(--line-{number % _COLOURS + 1})"
        parts.append(f'<path d="M{right + 5:.1f} {at:.1f}h8" class="key" style="stroke:{colour}"/>')
        parts.append(_label(right + 17, at + 3.5, _cut(line.name, margin - 18), "start"))
    return "".join([*parts, "</svg>"])


def _told(of: Chart) -> str:
    ends = "; ".join(f"{line.name}: from {score(line.values[0])} to {score(line.values[-1])}" for line in of.lines)
    return f"{of.title} by epoch. {ends}"


def _label(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(words)}</text>'


def _cut(words: str, width: float) -> str:
    room = int(width / _LETTER)
    return words if len(words) <= room else words[: room - 1] + "…"


def _apart(lines: Sequence[Line], at: list[float], bottom: float) -> list[tuple[Line, float]]:
    """Labels beside the ends of their lines, and none on another."""
    height = min(13.0, (bottom - _TOP) / len(lines))
    order = sorted(range(len(lines)), key=lambda i: at[i])
    places = dict.fromkeys(order, 0.0)
    above = _TOP - height
    for i in order:
        above = places[i] = max(at[i], above + height)
    below = bottom + height
    for i in reversed(order):
        below = places[i] = min(places[i], below - height)
    return [(line, places[i]) for i, line in enumerate(lines)]


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers that span the values."""
    if high == low:
        low, high = low - abs(low or 1) / 2, high + abs(high or 1) / 2
    raw = (high / 2 - low / 2) / wanted * 2
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    begin, end = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    found = [number * step for number in range(begin, end + 1)]
    return found if len(found) <= 3 * wanted and all(map(math.isfinite, found)) else [low, high]


def _short(tick: float, ticks: list[float]) -> str:
    largest = max(abs(ticks[0]), abs(ticks[-1]))
    if largest >= 1e5 or 0 < largest < 1e-3:
        return f"{tick:.2g}"
    step = ticks[1] - ticks[0]
    decimals = max(0, min(6, math.ceil(-math.log10(step) - 1e-9) + (f"{step:e}"[:3] == "2.5")))
    return f"{tick:.{decimals}f}"


def _epochs(first: int, last: int) -> list[int]:
    step = max(1, round(_ticks(first, last, 6)[1] - _ticks(first, last, 6)[0])) if last > first else 1
    return list(range(-(-first // step) * step, last + 1, step))


# --- the confusion matrix -----------------------------------------------------------------------------------


def matrix(of: Matrix) -> str:
    """A heat map: the darker a field, the more of its row's class were predicted as its column's."""
    size = len(of.names)
    longest = max(len(name) for name in of.names)
    cell = max(14.0, min(34.0, 560.0 / size))
    letter = min(11.0, cell * 0.42)
    side = min(120.0, longest * _LETTER) + 30
    turned = longest * _LETTER > cell
    top = (min(120.0, longest * _LETTER) + 22) if turned else 36.0
    width, height = side + size * cell + 4, top + size * cell + 4
    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" '
        f'aria-label="{text(_told_matrix(of))}">',
        _label(side + size * cell / 2, 12, "predicted", "middle"),
        f'<text transform="translate(11 {top + size * cell / 2:.0f}) rotate(-90)" text-anchor="middle">actual</text>',
    ]
    for i, name in enumerate(of.names):
        middle = i * cell + cell / 2
        short = _cut(name, 120)
        parts.append(_label(side - 6, top + middle + 3.5, short, "end"))
        if turned:
            parts.append(
                f'<text transform="translate({side + middle + 3.5:.1f} {top - 6:.1f}) rotate(-90)">{text(short)}</text>'
            )
        else:
            parts.append(_label(side + middle, top - 6, short, "middle"))
    for i, row in enumerate(of.counts):
        total = sum(row) or 1
        for j, value in enumerate(row):
            x, y = side + j * cell, top + i * cell
            tip = f"{of.names[i]} predicted as {of.names[j]}: {value:,} of {sum(row):,}"
            shade = value / total
            parts.append(
                f'<g><title>{text(tip)}</title><rect x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{cell - 1:.1f}" '
                f'height="{cell - 1:.1f}" class="{"right" if i == j else "wrong"}" '
                f'style="fill-opacity:{max(0.04, shade):.3f}"/>'
            )
            digits = f"{value:,}" if value < 10_000 else f"{value:.0e}".replace("e+0", "e")
            font = min(letter, (cell - 3) / (0.62 * len(digits)))
            if value and font >= 4:
                tone = ' class="on"' if shade > 0.55 else ""
                parts.append(
                    f'<text x="{x + cell / 2:.1f}" y="{y + cell / 2 + font * 0.36:.1f}" text-anchor="middle"{tone} '
                    f'style="font-size:{font:.1f}px">{digits}</text>'
                )
            parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _told_matrix(of: Matrix) -> str:
    right = sum(row[i] for i, row in enumerate(of.counts))
    total = sum(map(sum, of.counts))
    return f"{of.title}: {right:,} of {total:,} on the diagonal. The numbers by class are in the table after it."

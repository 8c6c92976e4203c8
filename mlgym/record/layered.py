"""Where the boxes of a directed graph go so that its arrows run from left to right and cross little. Pure.

    rank ─► lead ─► order ─► place
    columns  long    rows     y by least squares, x by columns
             arrows

The four steps are those of Sugiyama, Tagawa and Toda (1981). An arrow over several columns is led through a place of
its own in each of them; arrows from one box share these places, as they leave from one point. Boxes without arrows
stand in rows below. The same graph always gives the same picture. Imports nothing of ours.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_WORK = 100_000
"""Vertices and segments that each of the slow steps looks at, in all its rounds: a large graph is drawn less well."""
_STRAIGHT = (1.0, 2.0, 8.0)
"""What it is worth to keep a segment straight that has so many ends on the way of a long arrow."""

Point = tuple[float, float]

_BETWEEN = 22.0
"""Pixels between two boxes above each other; arrows keep less distance."""
_LANE = 12.0
_CURVE = 46.0
"""Pixels between two columns, besides what is written on the arrows between them."""
_ROW = 860.0
"""How wide rows of boxes without arrows may become in any case."""


class Arrow(NamedTuple):
    """From one box to another, by their numbers; `label`: pixels that its label takes before its head."""

    source: int
    target: int
    label: float = 0


class Layout(NamedTuple):
    """In pixels from the upper left corner. `boxes`: x, y, width and height of each; all in a column are as wide.

    `routes`: where each arrow passes: two points a column that it crosses, and between columns it bends; the last two
    are where its label begins and its head. An arrow that would close a circle has none.
    """

    width: float
    height: float
    boxes: list[tuple[float, float, float, float]]
    routes: list[list[Point]]
    crossings: int


def layout(sizes: Sequence[tuple[float, float]], arrows: Sequence[Arrow]) -> Layout:
    """Place boxes of these widths and heights; what is connected stays together, in the order given."""
    circles = closing(len(sizes), arrows)
    drawn = [i for i, arrow in enumerate(arrows) if i not in circles]
    boxes: list[tuple[float, float, float, float]] = [(0.0, 0.0, 0.0, 0.0)] * len(sizes)
    routes: list[list[Point]] = [[] for _ in arrows]
    width = top = 0.0
    crossed = 0
    alone = []
    for members in _connected(len(sizes), [arrows[i] for i in drawn]):
        if len(members) == 1:
            alone += members
            continue
        number = {node: i for i, node in enumerate(members)}
        mine = [i for i in drawn if arrows[i].source in number]
        part = _Part(
            [sizes[node] for node in members],
            [Arrow(number[a.source], number[a.target], a.label) for a in (arrows[i] for i in mine)],
        ).placed()
        for node, (x, y, w, h) in zip(members, part.boxes, strict=True):
            boxes[node] = (x, y + top, w, h)
        for i, route in zip(mine, part.routes, strict=True):
            routes[i] = [(x, y + top) for x, y in route]
        width, top, crossed = max(width, part.width), top + part.height + 2 * _BETWEEN, crossed + part.crossings
    if alone:
        wide = max(sizes[node][0] for node in alone)
        in_row = max(1, int((max(width, _ROW) + _BETWEEN) // (wide + _BETWEEN)))
        for first in range(0, len(alone), in_row):
            row = alone[first : first + in_row]
            for i, node in enumerate(row):
                boxes[node] = (i * (wide + _BETWEEN), top, wide, sizes[node][1])
            width = max(width, len(row) * (wide + _BETWEEN) - _BETWEEN)
            top += max(sizes[node][1] for node in row) + _BETWEEN
    height = max((y + h for _, y, _, h in boxes), default=0.0)
    height = max([height, *(y for route in routes for _, y in route)])
    return Layout(width, height, boxes, routes, crossed)


def closing(count: int, arrows: Sequence[Arrow]) -> set[int]:
    """The arrows without which nothing goes in a circle."""
    out: list[list[int]] = [[] for _ in range(count)]
    for i, arrow in enumerate(arrows):
        out[arrow.source].append(i)
    found: set[int] = set()
    state = [0] * count  # 1: on the way here, 2: done
    for start in range(count):
        if state[start]:
            continue
        state[start] = 1
        way = [(start, iter(out[start]))]
        while way:
            node, rest = way[-1]
            for i in rest:
                target = arrows[i].target
                if state[target] == 1:
                    found.add(i)
                elif not state[target]:
                    state[target] = 1
                    way.append((target, iter(out[target])))
                    break
            else:
                state[node] = 2
                way.pop()
    return found


def _connected(count: int, arrows: Sequence[Arrow]) -> list[list[int]]:
    """What hangs together, by first member."""
    of = list(range(count))

    def root(node: int) -> int:
        while of[node] != node:
            of[node] = of[of[node]]
            node = of[node]
        return node

    for arrow in arrows:
        a, b = root(arrow.source), root(arrow.target)
        of[max(a, b)] = min(a, b)
    found: dict[int, list[int]] = {}
    for node in range(count):
        found.setdefault(root(node), []).append(node)
    return list(found.values())


class _Part:
    """A connected graph without circles, of two boxes or more. Vertices are boxes and, after them, places of arrows."""

    def __init__(self, sizes: list[tuple[float, float]], arrows: list[Arrow]) -> None:
        self._sizes = sizes
        self._arrows = arrows
        self._rank = ranks(len(sizes), arrows)
        self._columns: list[list[int]] = [[] for _ in range(max(self._rank) + 1)]
        self._ways: list[list[int]] = []
        """The vertices of each arrow, in each column one."""
        self._segments: list[tuple[int, int]] = []
        self._height: list[float] = []
        self._port: dict[int, float] = {}
        """How far from the middle of its target an arrow ends."""
        self._offset: dict[tuple[int, int], float] = {}
        self._lead()

    def placed(self) -> Layout:
        self._columns = ordered(self._columns, self._segments)
        self._ports()
        y = self._rows()
        return self._drawn(y, crossings(self._columns, self._segments))

    # --- long arrows ---

    def _lead(self) -> None:
        """Give arrows a vertex in each column that they cross."""
        led: dict[tuple[int, int], int] = {}
        through: dict[int, set[int]] = {}
        for arrow in self._arrows:
            for rank in range(self._rank[arrow.source] + 1, self._rank[arrow.target]):
                through.setdefault(arrow.source, set()).add(rank)
        vertices = len(self._sizes)
        for node, rank in enumerate(self._rank):  # in the order written, each place beside the box that it is of
            self._columns[rank].append(node)
            for other in sorted(through.get(node, ())):
                led[node, other] = vertices
                self._columns[other].append(vertices)
                vertices += 1
        self._ways = [
            [
                arrow.source,
                *(led[arrow.source, r] for r in range(self._rank[arrow.source] + 1, self._rank[arrow.target])),
                arrow.target,
            ]
            for arrow in self._arrows
        ]
        self._segments = sorted({pair for way in self._ways for pair in pairwise(way)})
        self._height = [height for _, height in self._sizes] + [0.0] * (vertices - len(self._sizes))

    # --- ports ---

    def _ports(self) -> None:
        """Where on the left side of its target each arrow ends: in the order of where they come from."""
        place = {vertex: i for column in self._columns for i, vertex in enumerate(column)}
        into: dict[int, list[int]] = {}
        for i, arrow in enumerate(self._arrows):
            into.setdefault(arrow.target, []).append(i)
        for node, found in into.items():
            found.sort(key=lambda i: (place[self._ways[i][-2]], i))
            for k, i in enumerate(found):
                self._port[i] = self._height[node] * ((k + 0.5) / len(found) - 0.5)
        offsets: dict[tuple[int, int], list[float]] = {}
        for i, way in enumerate(self._ways):
            for pair in pairwise(way):
                offsets.setdefault(pair, []).append(self._port[i] if pair[1] == self._arrows[i].target else 0.0)
        self._offset = {pair: sum(found) / len(found) for pair, found in offsets.items()}

    # --- y ---

    def _rows(self) -> list[float]:
        """The middle of each vertex: as near to what it is connected with as the order of its column allows."""
        count = len(self._sizes)
        left: list[list[tuple[int, float, float]]] = [[] for _ in self._height]  # neighbour, how far off, how heavy
        right: list[list[tuple[int, float, float]]] = [[] for _ in self._height]
        for u, v in self._segments:
            heavy = _STRAIGHT[(u >= count) + (v >= count)]
            left[v].append((u, -self._offset[u, v], heavy))
            right[u].append((v, self._offset[u, v], heavy))
        y = [0.0] * len(self._height)
        for column in self._columns:
            together = self._spread(column, [0.0] * len(column), [1.0] * len(column))
            for vertex, place in zip(column, together, strict=True):
                y[vertex] = place
        turns = max(4, min(32, _WORK // len(y)))
        for turn in range(turns):
            for column in self._columns if turn % 2 == 0 else reversed(self._columns):
                wanted, weights = [], []
                for v in column:
                    near = (left[v] or right[v]) if turn % 2 == 0 else (right[v] or left[v])
                    if turn >= turns // 2:  # from one side at first, so that what is far apart can come together
                        near = left[v] + right[v]
                    weights.append(sum(heavy for *_, heavy in near))
                    wanted.append(sum((y[u] + offset) * heavy for u, offset, heavy in near) / weights[-1])
                for vertex, place in zip(column, self._spread(column, wanted, weights), strict=True):
                    y[vertex] = place
        return y

    def _spread(self, column: list[int], wanted: list[float], weights: list[float]) -> list[float]:
        """The places nearest to those wanted that leave everything in order and apart: weighted isotonic regression."""
        down = [0.0]
        for above, below in pairwise(column):
            boxes = above < len(self._sizes) and below < len(self._sizes)
            down.append(down[-1] + (self._height[above] + self._height[below]) / 2 + (_BETWEEN if boxes else _LANE))
        blocks: list[tuple[float, float, int]] = []  # value, weight, how many
        for want, weight, offset in zip(wanted, weights, down, strict=True):
            value, total, many = want - offset, weight, 1
            while blocks and blocks[-1][0] >= value:
                other, heavy, more = blocks.pop()
                value = (value * total + other * heavy) / (total + heavy)
                total, many = total + heavy, many + more
            blocks.append((value, total, many))
        values = [value for value, _, many in blocks for _ in range(many)]
        return [value + offset for value, offset in zip(values, down, strict=True)]

    # --- x ---

    def _drawn(self, y: list[float], crossed: int) -> Layout:
        widths = [
            max((self._sizes[v][0] for v in column if v < len(self._sizes)), default=0.0) for column in self._columns
        ]
        labels = [0.0] * len(widths)
        for arrow in self._arrows:
            rank = self._rank[arrow.target]
            labels[rank] = max(labels[rank], arrow.label)
        left = [0.0]
        for rank in range(1, len(widths)):
            left.append(left[-1] + widths[rank - 1] + _CURVE + labels[rank])
        top = min(y[v] - self._height[v] / 2 for v in range(len(y)))
        y = [value - top for value in y]
        boxes = [
            (left[rank], y[v] - self._height[v] / 2, widths[rank], self._height[v]) for v, rank in enumerate(self._rank)
        ]
        routes = []
        for i, way in enumerate(self._ways):
            rank = self._rank[way[0]]
            route = [(left[rank] + widths[rank], y[way[0]])]
            for vertex in way[1:-1]:
                rank += 1
                route += [(left[rank], y[vertex]), (left[rank] + widths[rank], y[vertex])]
            rank, end = rank + 1, y[way[-1]] + self._port[i]
            routes.append([*route, (left[rank] - labels[rank], end), (left[rank], end)])
        height = max(value + self._height[v] / 2 for v, value in enumerate(y))
        return Layout(left[-1] + widths[-1], height, boxes, routes, crossed)


def ranks(count: int, arrows: Sequence[Arrow]) -> list[int]:
    """The column of each box of a graph without circles: every arrow goes to the right, and not far."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for arrow in arrows:
        before[arrow.target].append(arrow.source)
        after[arrow.source].append(arrow.target)
    waiting = [len(found) for found in before]
    ready = [node for node in range(count) if not waiting[node]]
    for node in ready:  # grows as it goes
        for target in after[node]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    rank = [0] * count
    for node in ready:
        rank[node] = max((rank[source] + 1 for source in before[node]), default=0)
    for _ in range(count):  # each move makes all arrows together shorter; a few rounds do
        moved = False
        for node in reversed(ready):
            pull = len(after[node]) - len(before[node])
            if pull > 0:
                best = min(rank[target] for target in after[node]) - 1
            elif pull < 0:
                best = max(rank[source] for source in before[node]) + 1
            else:
                continue
            moved, rank[node] = moved or best != rank[node], best
        if not moved:
            break
    least = min(rank, default=0)
    return [value - least for value in rank]


# --- order --------------------------------------------------------------------------------------------------


def crossings(columns: Sequence[Sequence[int]], segments: Sequence[tuple[int, int]]) -> int:
    """How many pairs of segments between neighbouring columns cross."""
    place = {vertex: (i, k) for i, column in enumerate(columns) for k, vertex in enumerate(column)}
    found = 0
    between: list[list[tuple[int, int]]] = [[] for _ in columns]
    for u, v in segments:
        between[place[u][0]].append((place[u][1], place[v][1]))
    for pairs in between:
        seen: list[int] = []
        for _, end in sorted(pairs):  # those that begin further up and end further down
            found += len(seen) - bisect_right(seen, end)
            insort(seen, end)
    return found


def ordered(columns: list[list[int]], segments: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The columns in the order with the fewest crossings that was found, never more than as they are given.

    Sweeps that sort each column by the mean place of the neighbours on one side, then exchanges of two that stand next
    to each other.
    """
    before: dict[int, list[int]] = {vertex: [] for column in columns for vertex in column}
    after: dict[int, list[int]] = {vertex: [] for column in columns for vertex in column}
    for u, v in segments:
        after[u].append(v)
        before[v].append(u)
    best, fewest = [list(column) for column in columns], crossings(columns, segments)
    rounds = max(1, min(24, _WORK // 2 // (len(segments) + 1)))
    for down_first in (True, False):
        now = [list(column) for column in columns]
        place = {vertex: k for column in now for k, vertex in enumerate(column)}
        for turn in range(rounds):
            if not fewest:
                return best
            right = (turn % 2 == 0) == down_first
            near = before if right else after
            for column in now if right else reversed(now):
                _sort(column, near, place)
            _exchange(now, before, after, place)
            if (count := crossings(now, segments)) < fewest:
                best, fewest = [list(column) for column in now], count
    return best


def _sort(column: list[int], near: dict[int, list[int]], place: dict[int, int]) -> None:
    """By the mean of the neighbours' places; what has none stays where it is."""
    mean = {v: sum(place[u] for u in near[v]) / len(near[v]) for v in column if near[v]}
    moving = iter(sorted(mean, key=lambda v: (mean[v], place[v])))
    column[:] = [next(moving) if v in mean else v for v in column]
    for k, v in enumerate(column):
        place[v] = k


def _exchange(
    columns: list[list[int]], before: dict[int, list[int]], after: dict[int, list[int]], place: dict[int, int]
) -> None:
    for _ in range(4):
        better = False
        for column in columns:
            for k in range(len(column) - 1):
                u, v = column[k], column[k + 1]
                gain = sum(_saved(near[u], near[v], place) for near in (before, after))
                if gain > 0:
                    column[k], column[k + 1] = v, u
                    place[u], place[v] = k + 1, k
                    better = True
        if not better:
            return


def _saved(upper: list[int], lower: list[int], place: dict[int, int]) -> int:
    """How many crossings fewer there are when two that stand next to each other change places."""
    a, b = [place[u] for u in upper], [place[v] for v in lower]
    return sum((i > j) - (i < j) for i in a for j in b)

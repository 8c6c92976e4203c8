"""The part of REST that reads logs: events, and what they amount to now or as of any of them.

Imports refusal, store, projections, requests and search.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from ml_board import projections, search
from ml_board.refusal import Refusal
from ml_board.requests import MAX_INT, choice, grid_search_id, number, query, ranges, word
from ml_board.store import Store
from mlgym.errors import InputError
from mlgym.record.card import card
from mlgym.record.card_html import as_html
from mlgym.record.card_markdown import as_markdown
from mlgym.record.card_schema import ModelCard
from mlgym.record.card_sources import sources
from mlgym.record.fold import State
from mlgym.record.pipeline import as_json, pipeline

MAX_POINTS = 1_000_000
MAX_TYPES = 50

_WRITTEN = {"html": (as_html, "text/html", "html"), "markdown": (as_markdown, "text/markdown", "md")}


class Reading:
    """The handlers, over a store. Whatever is large is made and encoded in threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._summaries: dict[str, tuple[tuple[int, ...], bytes]] = {}
        """The file that it was made of, and the answer: a page asks for all of them again and again."""

    async def events(self, request: web.Request) -> web.Response:
        limit = query(request, "limit", 1000, 1, 10_000)
        types = request.query.getall("type", [])
        if len(types) > MAX_TYPES:
            raise Refusal(400, f"type: expected up to {MAX_TYPES}, not {len(types)}")
        experiment = query(request, "experiment", -1)
        wanted = search.Filter(types, experiment if experiment >= 0 else None)
        before = query(request, "before", 0)
        if "before" in request.query and "after" in request.query:
            raise Refusal(400, "expected `after` or `before`, not both")
        after = query(request, "after", 0)
        grid = self._store.grid(grid_search_id(request))
        if not wanted and "before" not in request.query:
            lines, head = await grid.page(after, limit, search.MAX_ANSWER)
            return self._events(request, lines, head, b"")
        log = await grid.log()
        find = (search.before, before) if "before" in request.query else (search.after, after)
        head = log.state.seq
        try:
            found = await asyncio.to_thread(find[0], log, wanted, find[1], limit)
        except OSError:
            found = search.Found([], None)
        more = b"null" if found.next is None else b"%d" % found.next
        return self._events(request, found.lines, head, b',"next":' + more)

    @staticmethod
    def _events(request: web.Request, lines: list[bytes], head: int, rest: bytes) -> web.Response:
        """The lines as they are: nobody encodes them again."""
        begin = b'{"grid_search_id":"%b","head":%d,"events":[' % (grid_search_id(request).encode(), head)
        return _encoded(begin + b",".join(lines) + b"]" + rest + b"}")

    async def snapshot(self, request: web.Request) -> web.Response:
        scores = choice(request, "scores", ("all", "summary"))
        return await self._seen(request, projections.snapshot if scores == "all" else projections.rows)

    async def experiment(self, request: web.Request) -> web.Response:
        experiment_id = number(request, "exp")

        def found(state: State) -> dict[str, Any]:
            experiment = projections.experiment(state, experiment_id)
            if experiment is None:
                raise Refusal(404, f"there is no experiment {experiment_id} in the log as of event {state.seq}")
            return experiment

        return await self._seen(request, found)

    async def pipeline(self, request: web.Request) -> web.Response:
        """What an experiment consists of, as a graph with places: a configuration does not change with time."""
        experiment_id = number(request, "exp")
        grid = self._store.grid(grid_search_id(request))
        log = await grid.log()
        experiment = log.look(lambda state: state.experiments.get(experiment_id))
        if experiment is None or not experiment.config_seq:
            raise Refusal(404, f"the log has no configuration of experiment {experiment_id}")
        lines, _ = await grid.page(experiment.config_seq - 1, 1, search.MAX_ANSWER)

        def found() -> bytes:
            payload = msgspec.json.decode(lines[0]).get("payload") if lines else None
            config = payload.get("config") if isinstance(payload, dict) else None
            try:
                return msgspec.json.encode(as_json(pipeline(config, experiment.swept)))
            except InputError as error:
                raise Refusal(400, str(error)) from None

        return _encoded(await asyncio.to_thread(found))

    async def model_card(self, request: web.Request) -> web.Response:
        """As data, or as a file to be kept."""
        experiment_id = number(request, "exp")
        written = choice(request, "format", ("json", "html", "markdown"))
        at = query(request, "at", MAX_INT)
        grid = self._store.grid(grid_search_id(request))
        log = await grid.log()

        def found(state: State) -> ModelCard:
            try:
                return card(sources(log, state, experiment_id))
            except InputError as error:
                raise Refusal(404, str(error)) from None

        past = await grid.past(at) if at < log.state.seq else None
        made = await asyncio.to_thread(lambda: found(past) if past else log.look(found))
        if written == "json":
            return _encoded(await asyncio.to_thread(msgspec.json.encode, made))
        write, kind, ending = _WRITTEN[written]
        name = f"model-card-{grid_search_id(request)}-{experiment_id}.{ending}"
        return web.Response(
            text=await asyncio.to_thread(write, made),
            content_type=kind,
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Content-Security-Policy": "sandbox"},
        )

    async def series(self, request: web.Request) -> web.Response:
        which = projections.Which(
            ranges(request, "experiments"),
            frozenset(request.query.getall("score")) if "score" in request.query else None,
            query(request, "first", 0),
            query(request, "last", MAX_INT),
            query(request, "points", 800, 10, 100_000),
        )

        def found(state: State) -> dict[str, Any]:
            if (size := projections.size(state, which)) > MAX_POINTS:
                raise Refusal(400, f"{size:,} points are more than {MAX_POINTS:,}; ask for fewer, or fewer experiments")
            return projections.series(state, which)

        return await self._seen(request, found)

    async def timeline(self, request: web.Request) -> web.Response:
        points = query(request, "points", 1000, 10, 100_000)
        return await self._seen(request, lambda state: projections.timeline(state, points))

    async def report(self, request: web.Request) -> web.Response:
        metric = word(request, "metric")
        mode = choice(request, "mode", ("", "max", "min"))
        epoch = choice(request, "epoch", ("", "last", "best", "average"))

        def found(state: State) -> dict[str, Any]:
            try:
                return projections.report(state, metric, mode, epoch)
            except InputError as error:
                raise Refusal(400, str(error)) from None

        return await self._seen(request, found)

    async def _seen(self, request: web.Request, function: Callable[[State], Any]) -> web.Response:
        """What `function` finds in the state of now, or as of event `at`."""
        at = query(request, "at", MAX_INT)
        grid = self._store.grid(grid_search_id(request))
        log = await grid.log()
        if at >= log.state.seq:
            return _encoded(await asyncio.to_thread(lambda: msgspec.json.encode(log.look(function))))
        state = await grid.past(at)
        return _encoded(await asyncio.to_thread(lambda: msgspec.json.encode(function(state))))

    async def summary(self, request: web.Request) -> web.Response:
        gs = grid_search_id(request)
        try:
            status = await asyncio.to_thread(os.lstat, self._store.paths(gs).log)
        except OSError:
            raise Refusal(404, f"there is no grid search {gs!r}") from None
        file = (status.st_ino, status.st_size, status.st_mtime_ns)
        made_of, answer = self._summaries.get(gs, ((), b""))
        if made_of != file:
            log = await self._store.grid(gs).log()
            answer = await asyncio.to_thread(lambda: msgspec.json.encode(log.look(projections.summary)))
            if log.end == status.st_size:  # all that was there then is in the answer, and nothing else
                self._summaries[gs] = (file, answer)
        return _encoded(answer)


def _encoded(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")

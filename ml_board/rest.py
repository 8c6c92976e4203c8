"""REST: configurations, checkpoints, events and state of grid searches; every route is listed once, in `Rest.routes`.

Imports refusal, settings, store, uploads, openapi, requests and reading.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from ml_board.openapi import Body, Parameter, Route
from ml_board.reading import MAX_TYPES, Reading
from ml_board.refusal import Refusal
from ml_board.requests import COUNT, EXP, GS, RANGES, grid_search_id, number, query
from ml_board.settings import Limits
from ml_board.store import Store
from ml_board.uploads import Uploads, manifest_of
from mlgym.errors import StorageError
from mlgym.record.checkpoint_folder import MANIFEST, RESOURCE, available, remove
from mlgym.record.events import CheckpointEvent
from mlgym.record.files import write_once
from mlgym.record.log import Log
from mlgym.specs import Checkpoint, RunPaths

_GRID_CONFIGS = {
    "grid_search_config": "grid_search_config.yml",
    "run_config": "run_config.yml",
    "validation_strategy_config": "validation_strategy_config.yml",
}
_EXPERIMENT_CONFIGS = {"experiment_config": "experiment_config.json", "system_info": "system_info.json"}
_CHUNK = 256 * 1024
_MAX_OUTPUT = 1 << 20
_EXPORTS = 2  # that are made at a time

_EPOCH = Parameter("epoch", "path", COUNT, "finished epochs")
_NAME = Parameter("resource", "path", {"type": "string", "pattern": f"^{RESOURCE}$"}, "name of a file")


def _config(names: dict[str, str]) -> Parameter:
    values = [*names, *names.values()]
    return Parameter("config_name", "path", {"type": "string", "enum": values}, "with or without its extension")


class Rest:
    """The handlers, over a store."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._reading = Reading(store)
        self._uploads = Uploads(store, limits.upload)
        self._putting = asyncio.Lock()
        self._exporting = asyncio.Semaphore(_EXPORTS)

    def routes(self) -> list[Route]:
        reading = self._reading
        after = Parameter("after", "query", COUNT, "only events with a larger seq; default 0")
        before = Parameter("before", "query", COUNT, "the last events with a smaller seq; not together with `after`")
        limit = Parameter("limit", "query", {**COUNT, "minimum": 1, "maximum": 10_000}, "default 1,000")
        names = {"type": "array", "items": {"type": "string"}}
        of_type = Parameter("type", "query", {**names, "maxItems": MAX_TYPES}, "only events of these types")
        experiment = Parameter("experiment", "query", COUNT, "only events about this experiment")
        at = Parameter("at", "query", COUNT, "as of the event with this seq; default the newest")
        columns = Parameter("scores", "query", {"type": "string", "enum": ["all", "summary"]}, "default all")
        experiments = Parameter("experiments", "query", RANGES, "ids, such as 1-50,52; default all")
        score = Parameter("score", "query", names, "`split/tag`; default all")
        first = Parameter("first", "query", COUNT, "epoch; default 0")
        last = Parameter("last", "query", COUNT, "epoch; default the last")
        some = {**COUNT, "minimum": 10, "maximum": 100_000}
        points = Parameter("points", "query", some, "at most so many of each series; default 800")
        marks = Parameter("points", "query", some, "about so many; default 1,000")
        metric = Parameter("metric", "query", {"type": "string", "maxLength": 1000}, "the score to judge by")
        mode = Parameter("mode", "query", {"type": "string", "enum": ["max", "min"]}, "which of its values are better")
        rules = {"type": "string", "enum": ["last", "best", "average"]}
        epoch = Parameter("epoch", "query", rules, "whose score counts; default last")
        words = {"type": "string", "enum": ["json", "html", "markdown"]}
        written = Parameter("format", "query", words, "default json; the others are files to be kept")
        offset = Parameter("offset", "query", COUNT, "in bytes; default 0")
        grid_config, experiment_config = _config(_GRID_CONFIGS), _config(_EXPERIMENT_CONFIGS)
        text, octets = "text/plain", "application/octet-stream"
        body = Body("application/json", {"$ref": "#/components/schemas/Config"})
        file = Body(
            "multipart/form-data",
            {
                "type": "object",
                "required": ["checkpoint_file"],
                "properties": {"checkpoint_file": {"type": "string", "format": "binary"}},
            },
        )
        gs, exp = "/grid_searches/{gs}", "/grid_searches/{gs}/{exp}"
        checkpoint = "/checkpoints/{gs}/{exp}/{epoch}"
        of_experiment, of_epoch, of_file = (GS, EXP), (GS, EXP, _EPOCH), (GS, EXP, _EPOCH, _NAME)
        conflict, full = (409,), (409, 413, 507)
        return [
            Route("GET", "/grid_searches", self.grid_searches, "All grid searches, the newest last"),
            Route("GET", f"{gs}/experiments", self.experiments, "The experiments of a grid search", (GS,)),
            Route(
                "GET",
                f"{gs}/events",
                reading.events,
                "Events in their order",
                (GS, after, before, limit, of_type, experiment),
            ),
            Route("GET", f"{gs}/snapshot", reading.snapshot, "What the events amount to", (GS, at, columns)),
            Route("GET", f"{gs}/summary", reading.summary, "The same on one line", (GS,)),
            Route(
                "GET",
                f"{gs}/report",
                reading.report,
                "Combinations over folds and seeds",
                (GS, at, metric, mode, epoch),
            ),
            Route(
                "GET",
                f"{gs}/series",
                reading.series,
                "Scores by epoch",
                (GS, at, experiments, score, first, last, points),
            ),
            Route("GET", f"{gs}/timeline", reading.timeline, "What happened when", (GS, at, marks)),
            Route("GET", f"{gs}/experiments/{{exp}}", reading.experiment, "One experiment", (GS, EXP, at)),
            Route(
                "GET", f"{gs}/export", self.export, "All of it as one HTML file", (GS,), answer="text/html", also=(507,)
            ),
            Route("GET", f"{gs}/{{config_name}}", self.get_config, "A file's text", (GS, grid_config), answer=text),
            Route(
                "PUT", f"{gs}/{{config_name}}", self.put_config, "Store it", (GS, grid_config), body, also=(*full, 415)
            ),
            Route(
                "GET",
                f"{exp}/output",
                self.output,
                "What an experiment printed, up to 1 MiB",
                (*of_experiment, offset),
            ),
            Route(
                "GET", f"{exp}/pipeline", reading.pipeline, "What an experiment consists of, as a graph", of_experiment
            ),
            Route(
                "GET",
                f"{exp}/{{config_name}}",
                self.get_experiment_config,
                "A file's text",
                (*of_experiment, experiment_config),
                answer=text,
            ),
            Route(
                "PUT",
                f"{exp}/{{config_name}}",
                self.put_experiment_config,
                "Store it",
                (*of_experiment, experiment_config),
                body,
                also=(*full, 415),
            ),
            Route("GET", "/checkpoint_list/{gs}/{exp}", self.checkpoint_list, "Its checkpoints", of_experiment),
            Route("GET", "/checkpoint_list/{gs}/{exp}/{epoch}", self.checkpoint_list, "That of an epoch", of_epoch),
            Route("GET", checkpoint, self.get_checkpoint, "The manifest", of_epoch),
            Route("POST", checkpoint, self.post_checkpoint, "Add a file", of_epoch, file, also=(*full, 415)),
            Route("DELETE", checkpoint, self.delete_checkpoint, "Delete a checkpoint", of_epoch, also=(*conflict, 507)),
            Route(
                "GET",
                f"{checkpoint}/{{resource}}",
                self.get_file,
                "A file, or a range of its bytes",
                of_file,
                answer=octets,
                also=(206, 304, 416),
            ),
            Route(
                "POST",
                f"{checkpoint}/{{resource}}",
                self.post_checkpoint,
                "Add a file",
                of_file,
                file,
                also=(*full, 415),
            ),
            Route("GET", "/model-card/{gs}/{exp}", reading.model_card, "Its model card", (*of_experiment, at, written)),
            Route("GET", "/system-info/{gs}/{exp}", self.system_info, "What it ran on", of_experiment),
        ]

    # --- grid searches ---

    async def grid_searches(self, request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._store.listing))

    async def experiments(self, request: web.Request) -> web.Response:
        paths = self._store.existing(grid_search_id(request))
        log = await self._log(request)

        def found() -> list[dict[str, Any]]:
            of_log = log.look(lambda state: set(state.experiments)) if log else set()
            on_disk = {int(p.name) for p in paths.root.iterdir() if re.fullmatch(r"\d{1,19}", p.name) and p.is_dir()}
            return [self._experiment(paths, experiment_id) for experiment_id in sorted(of_log | on_disk)]

        return _json(await asyncio.to_thread(found))

    def _experiment(self, paths: RunPaths, experiment_id: int) -> dict[str, Any]:
        folder = paths.experiment(experiment_id)
        try:
            config: Any = msgspec.Raw(self._store.inside(folder / "experiment_config.json").read_bytes())
            msgspec.json.decode(config)
        except (OSError, ValueError, msgspec.MsgspecError, RecursionError, Refusal):
            config = None
        newest = next((found.epoch for found in self._checkpoints(folder)), -1)
        return {"experiment_id": experiment_id, "last_checkpoint_id": newest, "experiment_config": config}

    async def _log(self, request: web.Request) -> Log | None:
        try:
            return await self._store.grid(grid_search_id(request)).log()
        except Refusal:
            return None

    async def export(self, request: web.Request) -> web.StreamResponse:
        gs = grid_search_id(request)
        log = self._store.inside(self._store.existing(gs).log)
        if not log.is_file():
            raise Refusal(404, f"there is no log of {gs!r}")
        async with self._exporting:
            with tempfile.TemporaryDirectory(prefix="mlgym-") as folder:
                target = Path(folder) / f"{gs}.html"
                await self._export(gs, target)
                headers = {"Content-Disposition": f'attachment; filename="{target.name}"'}
                response = web.FileResponse(target, headers=headers)
                response.content_type = "text/html"
                await response.prepare(request)  # which sends it; afterwards it is not there any more
                return response

    async def _export(self, gs: str, target: Path) -> None:
        """In a process of its own, which a large log may keep busy for a while."""
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-P", "-m", "ml_board.one_file", gs, "--event_storage_path", str(self._store.root)],
            *["--output", str(target)],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:  # the client has gone
                process.kill()
                await process.wait()
        if process.returncode != 0:
            lines = said.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
            raise Refusal(507, f"the file could not be made: {lines[-1]}")

    # --- configurations ---

    async def get_config(self, request: web.Request) -> web.StreamResponse:
        paths = self._store.existing(grid_search_id(request))
        return await self._file(request, paths.root / _chosen(request, _GRID_CONFIGS), "text/plain")

    async def get_experiment_config(self, request: web.Request) -> web.StreamResponse:
        paths = self._store.existing(grid_search_id(request))
        name = _chosen(request, _EXPERIMENT_CONFIGS)
        return await self._file(request, paths.experiment(number(request, "exp")) / name, "text/plain")

    async def put_config(self, request: web.Request) -> web.Response:
        paths = self._store.paths(grid_search_id(request))
        return await self._put(request, paths.root / _chosen(request, _GRID_CONFIGS))

    async def put_experiment_config(self, request: web.Request) -> web.Response:
        paths = self._store.paths(grid_search_id(request))
        name = _chosen(request, _EXPERIMENT_CONFIGS)
        return await self._put(request, paths.experiment(number(request, "exp")) / name)

    async def _put(self, request: web.Request, path: Path) -> web.Response:
        """Written once: the same again changes nothing, something else is a conflict."""
        if request.content_type != "application/json":
            raise Refusal(415, "expected application/json")
        content = _content(await self._body(request), path.suffix)
        async with self._putting:
            try:
                self._store.inside(path.parent)
                self._store.inside(path)
                await asyncio.to_thread(write_once, path, content)
                if await asyncio.to_thread(path.read_bytes) != content:
                    raise Refusal(409, f"there is another {path.name} already, and it does not change")
            except (OSError, StorageError) as error:
                raise Refusal(507, f"{path.name} could not be stored: {error}") from None
        return _json({"name": path.name, "size": len(content)})

    async def _body(self, request: web.Request) -> bytes:
        body = bytearray()
        async for chunk in request.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > self._limits.config:
                raise Refusal(413, f"a configuration may have up to {self._limits.config:,} bytes")
        return bytes(body)

    async def system_info(self, request: web.Request) -> web.StreamResponse:
        path = self._store.existing(grid_search_id(request)).experiment(number(request, "exp")) / "system_info.json"
        return await self._file(request, path, "application/json")

    async def output(self, request: web.Request) -> web.Response:
        paths = self._store.existing(grid_search_id(request))
        path = self._store.inside(paths.output(number(request, "exp")))
        offset = query(request, "offset", 0)

        def read() -> dict[str, Any]:
            try:
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    file.seek(min(offset, size))
                    data = file.read(_MAX_OUTPUT)
                    decoder = codecs.getincrementaldecoder("utf-8")("replace")
                    text = decoder.decode(data)  # the end of a character may still be on its way
            except FileNotFoundError:  # it has printed nothing (yet), or elsewhere
                return {"offset": 0, "next_offset": 0, "size": 0, "text": ""}
            except OSError:
                raise Refusal(404, "what this experiment has printed cannot be read") from None
            return {
                "offset": min(offset, size),
                "next_offset": min(offset, size) + len(data) - len(decoder.getstate()[0]),
                "size": size,
                "text": text,
            }

        return _json(await asyncio.to_thread(read))

    # --- checkpoints ---

    async def checkpoint_list(self, request: web.Request) -> web.Response:
        folder = self._store.existing(grid_search_id(request)).experiment(number(request, "exp"))
        epoch = number(request, "epoch") if "epoch" in request.match_info else None

        def found() -> list[dict[str, Any]]:
            return [
                {"experiment_id": number(request, "exp"), "epoch": found.epoch, "checkpoints": _names(found)}
                for found in reversed(self._checkpoints(folder))
                if epoch in (None, found.epoch)
            ]

        return _json(await asyncio.to_thread(found))

    def _checkpoints(self, folder: Path) -> list[Checkpoint]:
        """Those of whole epochs, the newest first."""

        def here(path: Path) -> bool:
            try:
                return self._store.inside(path).is_file()
            except Refusal:
                return False

        try:
            return [c for c in available(folder) if not c.batch and here(Path(c.directory) / MANIFEST)]
        except OSError:  # the id is a number that no folder can be named by
            return []

    def _checkpoint(self, request: web.Request) -> Path:
        paths = self._store.existing(grid_search_id(request))
        folder = paths.experiment(number(request, "exp")) / str(number(request, "epoch"))
        self._store.inside(folder / MANIFEST)
        return folder

    async def get_checkpoint(self, request: web.Request) -> web.StreamResponse:
        folder = self._checkpoint(request)
        manifest_of(folder)
        return await self._file(request, folder / MANIFEST, "application/json")

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        folder = self._checkpoint(request)
        name = request.match_info["resource"]
        manifest = await asyncio.to_thread(manifest_of, folder)
        digests = {file.name: file.sha256 for file in manifest.files}
        if not re.fullmatch(RESOURCE, name) or (name != MANIFEST and name not in digests):
            raise Refusal(404, f"there is no {name[:80]!r} in this checkpoint; there is: {', '.join(sorted(digests))}")
        return await self._file(request, folder / name, "application/octet-stream", digests.get(name))

    async def post_checkpoint(self, request: web.Request) -> web.Response:
        paths = self._store.paths(grid_search_id(request))
        experiment_id, epoch = number(request, "exp"), number(request, "epoch")
        if request.content_type != "multipart/form-data":
            raise Refusal(415, "expected multipart/form-data with a field `checkpoint_file`")
        try:
            form = await request.multipart()
            part = await form.next()
        except (ValueError, BadHttpMessage) as error:
            raise Refusal(400, f"this is not multipart: {error}") from None
        if not isinstance(part, BodyPartReader) or part.name != "checkpoint_file" or not part.filename:
            raise Refusal(400, "expected one field `checkpoint_file` with a file name")
        name = request.match_info.get("resource", part.filename)
        if name != part.filename:
            raise Refusal(400, f"the file is called {part.filename[:80]!r} in its header and {name[:80]!r} in the path")

        async def chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
            empty = 0
            try:
                while not part.at_eof():
                    chunk = await part.read_chunk(_CHUNK)
                    empty = 0 if chunk else empty + 1
                    if empty > 2:
                        raise Refusal(400, "the form has no end")
                    yield chunk
                if await form.next() is not None:
                    raise Refusal(400, "expected one field `checkpoint_file`, and nothing after it")
            except (ValueError, AssertionError, BadHttpMessage) as error:
                raise Refusal(400, f"this is not multipart: {error}") from None

        digest = await self._uploads.receive(paths, experiment_id, epoch, name, chunks(part))
        return _json({"name": name, "sha256": digest})

    async def delete_checkpoint(self, request: web.Request) -> web.Response:
        folder = self._checkpoint(request)
        experiment_id, epoch = number(request, "exp"), number(request, "epoch")
        await asyncio.to_thread(manifest_of, folder)  # nothing else is deleted
        log = await self._log(request)

        def listed(state: Any) -> bool:
            return experiment_id in state.experiments and epoch in state.experiments[experiment_id].checkpoints

        if log is not None and not log.old and await asyncio.to_thread(log.look, listed):
            gs = grid_search_id(request)
            event = CheckpointEvent(grid_search_id=gs, experiment_id=experiment_id, epoch=epoch, action="DELETED")
            await self._store.grid(gs).record(event)
        try:
            await asyncio.to_thread(remove, folder)
        except OSError as error:
            raise Refusal(507, f"the checkpoint could not be deleted: {error.strerror}") from None
        return _json({"experiment_id": experiment_id, "epoch": epoch})

    # --- files ---

    async def _file(
        self, request: web.Request, path: Path, content_type: str, sha256: str | None = None
    ) -> web.StreamResponse:
        """A file in pieces: what has the same digest is not sent again, and a range of it may be asked for."""
        self._store.inside(path)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError:
            raise Refusal(404, f"there is no {path.name}") from None
        with file:
            size = os.fstat(file.fileno()).st_size
            headers = {"Accept-Ranges": "bytes"}
            if sha256:
                headers["ETag"] = f'"{sha256}"'
                if any(tag.value in (sha256, "*") for tag in request.if_none_match or ()):
                    return web.Response(status=304, headers=headers)
            start, stop, status = self._range(request, size, sha256)
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            response = web.StreamResponse(status=status, headers=headers)
            response.content_type = content_type
            if content_type.startswith("text/"):
                response.charset = "utf-8"
            response.content_length = stop - start
            await response.prepare(request)
            file.seek(start)
            while start < stop:
                chunk = await asyncio.to_thread(file.read, min(_CHUNK, stop - start))
                if not chunk:
                    break
                start += len(chunk)
                await response.write(chunk)
            return response

    @staticmethod
    def _range(request: web.Request, size: int, sha256: str | None) -> tuple[int, int, int]:
        """First byte, byte after the last, and status."""
        header = request.headers.get("Range")
        if header is None or not header.startswith("bytes=") or "," in header:
            return 0, size, 200  # what we do not know may be ignored
        if (condition := request.headers.get("If-Range")) is not None and condition != f'"{sha256}"':
            return 0, size, 200
        match = re.fullmatch(r"bytes=(\d{0,19})-(\d{0,19})", header.replace(" ", ""))
        if not match or match[1] == match[2] == "":
            raise Refusal(416, f"expected a range such as bytes=0-99 of {size} bytes")
        start = int(match[1]) if match[1] else max(0, size - int(match[2]))
        stop = min(size, int(match[2]) + 1) if match[1] and match[2] else size
        if start >= stop:
            raise Refusal(416, f"the file has {size} bytes")
        return start, stop, 206


def _names(checkpoint: Checkpoint) -> list[str]:
    return sorted(p.name for p in Path(checkpoint.directory).iterdir() if p.is_file() and not p.is_symlink())


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _chosen(request: web.Request, names: dict[str, str]) -> str:
    name = request.match_info["config_name"]
    found = names.get(name) or (name if name in names.values() else None)
    if found is None:
        raise Refusal(404, f"there is no {name[:80]!r}; there is: {', '.join(names)}")
    return found


class _Put(msgspec.Struct, forbid_unknown_fields=True):
    file_format: str
    content: Any


def _content(body: bytes, suffix: str) -> bytes:
    """The file that a PUT describes."""
    expected = "JSON" if suffix == ".json" else "YAML"
    try:
        found = msgspec.json.decode(body, type=_Put)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f'expected {{"file_format": "{expected}", "content": ...}}: {error}') from None
    if found.file_format.upper() not in (("JSON",) if expected == "JSON" else ("YAML", "YML")):
        raise Refusal(400, f"file_format: expected {expected!r}, not {found.file_format[:80]!r}")
    if isinstance(found.content, str):
        if expected == "JSON":
            try:
                msgspec.json.decode(found.content)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise Refusal(400, f"content: this is not JSON: {error}") from None
        return found.content.encode()
    if not isinstance(found.content, dict):
        raise Refusal(400, "content: expected the text of the file, or an object")
    return msgspec.json.format(msgspec.json.encode(found.content), indent=2)  # JSON is YAML, too

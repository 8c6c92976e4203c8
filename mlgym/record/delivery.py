"""A server as a destination: one websocket, one batch in flight, a new connection whenever that is needed.

Imports errors and hub; socket.io is imported by the thread that uses it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import msgspec

from mlgym.errors import InUseError, StorageError
from mlgym.record.hub import Acknowledgement

_TIMEOUT = 30.0  # seconds for an answer
_CONNECT = 10.0  # seconds


class Server:
    """Delivers batches of a grid search to the server at `url`.

    With `by`, what the run says of itself, the grid search is claimed: no other run can deliver to it while this one
    is connected. To be called from one thread at a time; raises `StorageError`, or `InUseError` when the grid search
    is another's.
    """

    def __init__(self, url: str, grid_search_id: str, token: str | None, by: str | None = None) -> None:
        self.url = url
        self._grid_search_id = grid_search_id
        self._token = token
        self._by = by
        self._client: Any = None
        self._gone: asyncio.Event | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"delivery to {url}", daemon=True)
        self._thread.start()

    def __call__(self, batch: bytes) -> Acknowledgement:
        answer = self._run(self._ask("mlgym_events", {"grid_search_id": self._grid_search_id, "events": batch}))
        try:
            found = msgspec.convert(answer, _Answer)
        except msgspec.ValidationError as error:
            raise StorageError(f"{self.url} does not answer as a board does: {error}") from None
        return Acknowledgement(found.durable, found.expected, found.rejected)

    def connect(self) -> None:
        """Connect now, and claim the grid search."""
        self._run(self._connected())

    def close(self) -> None:
        """Leave the server; the grid search is free again."""
        if self._thread.is_alive():
            try:
                self._run(self._disconnect())
            except StorageError:
                pass
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            if not self._thread.is_alive():
                self._loop.close()

    def _run(self, coroutine: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(_CONNECT + 2 * _TIMEOUT)
        except FutureTimeoutError:
            future.cancel()
            raise StorageError(f"{self.url} does not answer") from None

    async def _ask(self, event: str, data: dict[str, Any]) -> dict[str, Any]:
        await self._connected()
        return await self._call(event, data)

    async def _connected(self) -> None:
        if self._client is not None and self._gone is not None and not self._gone.is_set():
            return
        import socketio

        await self._disconnect()
        client = socketio.AsyncClient(
            reconnection=False,  # the forwarder knows when to try again
            handle_sigint=False,
            logger=False,
            engineio_logger=False,
            request_timeout=_CONNECT,
            websocket_extra_options={"max_msg_size": 0},
        )
        gone = asyncio.Event()
        client.on("disconnect", lambda *_: gone.set())
        auth = {"token": self._token} if self._token else None
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}  # known from the first byte on
        self._client, self._gone = client, gone
        try:
            await asyncio.wait_for(
                client.connect(self.url, headers, auth, transports=["websocket"], wait_timeout=_CONNECT), _CONNECT
            )
        except (TimeoutError, socketio.exceptions.ConnectionError, OSError, ValueError) as error:
            gone.set()
            why = _reason(client, error)
            raise StorageError(f"{self.url} cannot be reached: {why}") from None
        except Exception as error:  # what answers there speaks something else
            gone.set()
            raise StorageError(f"{self.url} does not answer as a board does: {error!r}") from None
        if self._by is not None:
            await self._call("mlgym_lease", {"grid_search_id": self._grid_search_id, "by": self._by})

    async def _call(self, event: str, data: dict[str, Any]) -> dict[str, Any]:
        """Send, and wait for the acknowledgement or the end of the connection."""
        assert self._gone is not None
        call = asyncio.ensure_future(self._client.call(event, data, timeout=_TIMEOUT))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((call, gone), return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise StorageError(f"{self.url} has closed the connection")
            answer = call.result()
        except StorageError:
            raise
        except Exception as error:
            self._gone.set()
            raise StorageError(f"{self.url} does not answer: {type(error).__name__} {error}".rstrip()) from None
        finally:
            call.cancel()
            gone.cancel()
        if isinstance(answer, dict) and isinstance(refusal := answer.get("error"), dict):
            self._gone.set()
            raise _refused(self.url, refusal)
        if not isinstance(answer, dict):
            raise StorageError(f"{self.url} does not answer as a board does: {answer!r:.80}")
        return answer

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await asyncio.wait_for(client.disconnect(), 2)
                await asyncio.wait_for(client.eio.disconnect(), 2)
            except Exception:  # whatever it was, it is over
                pass
            if (session := client.eio.http) is not None and not session.closed:
                await session.close()


class _Answer(msgspec.Struct):
    durable: dict[str, int]
    expected: dict[str, int]
    rejected: int = 0


def _refused(url: str, error: dict[str, Any]) -> StorageError:
    message = f"{url}: {error.get('message')}"
    return InUseError(message) if error.get("status") == 423 else StorageError(message)


def _reason(client: Any, error: BaseException) -> str:
    text = str(error) or type(error).__name__
    if "namespaces failed" in text:  # this is how a refusal shows: most of the time it is the token
        return "it refuses the token (MLGYM_BOARD_TOKEN gives that of another machine)"
    return text

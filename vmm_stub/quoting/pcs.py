# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The collateral of a lab over HTTP, for tools that fetch theirs from a PCS: GET and HEAD."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import h11

from vmm_stub import failures
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.material import QuotingMaterial
from vmm_stub.quoting.pcs_answers import PcsAnswer, pcs_answer

MAX_CONNECTIONS: Final = 64
"""Clients at a time; more are dropped."""
REQUEST_TIMEOUT: Final = 30.0
"""Seconds that a client has for a request, and between two of them."""
_MAX_HEADER: Final = 16 << 10
_MAX_TARGET: Final = 2048
_MAX_DROPPED: Final = 1 << 20
_DROP_TIMEOUT: Final = 1.0


class PcsServer:
    """Serves the collateral of one material, which is public. `start` and `stop` belong to one event loop."""

    def __init__(self, material: QuotingMaterial, host: str = "127.0.0.1", port: int = 0) -> None:
        self._material = material
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens, once started: `http://HOST:PORT`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises QuotingError (VMM-PCS-ADDRESS) on an address in use, or one that this machine has not."""
        try:
            self._server = await asyncio.start_server(self._connected, self._host, self._port)
        except (OSError, OverflowError) as error:
            raise QuotingError(failures.PCS_ADDRESS, f"{self._host}:{self._port}: {error}") from error
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop all clients."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._clients.add(task)
        try:
            await _serve(self._material, reader, writer)
            await _end(reader, writer)
        except (ConnectionError, TimeoutError):
            pass  # the client is gone, or too slow
        except asyncio.CancelledError:
            pass  # by `stop`, which is all that cancels this task: asyncio would report it as an error
        finally:
            writer.transport.abort()
            self._clients.discard(task)


async def _serve(material: QuotingMaterial, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests one after the other until either side ends it."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADER)
    while True:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            try:
                request = await _next_request(http, reader)
            except h11.RemoteProtocolError as error:
                request, answer = None, PcsAnswer(error.error_status_hint)
            else:
                if request is None:
                    return
                answer = _dispatch(material, request)
            await _send(http, writer, answer, head_only=request is not None and request.method == b"HEAD")
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return
        http.start_next_cycle()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End our half and read on, within bounds: to close at once would cost the client the last answer."""
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DROP_TIMEOUT):
            for _ in range(_MAX_DROPPED // _MAX_HEADER):
                if not await reader.read(_MAX_HEADER):
                    return


async def _next_request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The next request; None if the client ended. A body is no part of any request here: the connection ends behind it.

    Raises h11.RemoteProtocolError.
    """
    while (event := http.next_event()) is h11.NEED_DATA:
        data = await reader.read(_MAX_HEADER)
        http.receive_data(data)
        if not data and http.their_state is h11.IDLE:
            return None
    if not isinstance(event, h11.Request):
        return None
    # The end of a request without body is there already; one with a body leaves the connection in another state.
    with contextlib.suppress(h11.RemoteProtocolError):
        http.next_event()
    return event


def _dispatch(material: QuotingMaterial, request: h11.Request) -> PcsAnswer:
    if request.method not in (b"GET", b"HEAD"):
        return PcsAnswer(405, {"allow": "GET, HEAD"})
    if len(request.target) > _MAX_TARGET:
        return PcsAnswer(414)
    return pcs_answer(material, request.target.decode("ascii"))


async def _send(http: h11.Connection, writer: asyncio.StreamWriter, answer: PcsAnswer, *, head_only: bool) -> None:
    headers = [*answer.headers.items(), ("content-length", str(len(answer.body)))]
    events: list[h11.Event] = [h11.Response(status_code=answer.status, headers=headers)]
    if not head_only:
        events.append(h11.Data(data=answer.body))
    events.append(h11.EndOfMessage())
    writer.write(b"".join(filter(None, map(http.send, events))))
    await writer.drain()

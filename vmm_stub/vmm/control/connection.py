# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One client of the control API: HTTP/1.1 with keep-alive on a pair of streams, by h11, with bounds on everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import h11

from vmm_stub import failures
from vmm_stub.vmm.control.dispatch import dispatch, problem
from vmm_stub.vmm.control.route import Answer, Json, Lines
from vmm_stub.vmm.errors import VmmError
from vmm_stub.vmm.vmm import Vmm

MAX_HEADER: Final = 16 << 10
MAX_BODY: Final = 64 << 10
REQUEST_TIMEOUT: Final = 30.0
"""Seconds for a request to arrive once its first byte is there."""
IDLE_TIMEOUT: Final = 3600.0
"""Seconds that a connection may be kept without a request."""

_READ: Final = MAX_HEADER
_MAX_DROPPED: Final = 1 << 20
_DROP_TIMEOUT: Final = 1.0


class Refused(Exception):
    """The request cannot be read; the answer is given and the connection ends."""

    def __init__(self, answer: Json) -> None:
        super().__init__(answer)
        self.answer = answer


class ControlConnection:
    """Serves one client until either side ends it."""

    def __init__(self, vmm: Vmm, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._vmm = vmm
        self._reader = reader
        self._writer = writer
        self._head_only = False
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)

    async def serve(self) -> None:
        """Answer requests one after the other. Raises ConnectionError if the client is gone in the middle of one."""
        while await self._serve_one():
            self._http.start_next_cycle()

    async def _serve_one(self) -> bool:
        """Answer one request. False: it was the last on this connection."""
        self._head_only = False
        try:
            request = await self._next_request()
            if request is None:
                return False
            head, body = request
            answer = await dispatch(self._vmm, head.method.decode(), head.target.decode(), body)
        except Refused as refused:
            answer = refused.answer
        await self._answer(answer)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            return True
        await self._drop_rest()
        return False

    async def _next_request(self) -> tuple[h11.Request, bytes] | None:
        """The next request with its body, or None if the client ended the connection instead."""
        if not await self._request_begins():
            return None
        try:
            # One limit for all of it: a client that sends a byte now and then is no better than a silent one.
            async with asyncio.timeout(REQUEST_TIMEOUT):
                head = await self._next_event()
                if not isinstance(head, h11.Request):
                    return None
                self._head_only = head.method == b"HEAD"
                return head, await self._body()
        except TimeoutError:
            raise Refused(problem(408, VmmError(failures.API_TIMEOUT))) from None
        except h11.RemoteProtocolError as error:
            raise Refused(self._malformed(error)) from error

    async def _request_begins(self) -> bool:
        """Wait for the first byte of the next request. False: the client ended the connection, or was idle too long."""
        if self._http.trailing_data[0]:
            return True
        try:
            async with asyncio.timeout(IDLE_TIMEOUT):
                data = await self._reader.read(_READ)
        except TimeoutError:
            return False
        self._http.receive_data(data)
        return bool(data)

    async def _body(self) -> bytes:
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise Refused(problem(413, VmmError(failures.API_TOO_LARGE, f"more than {MAX_BODY} bytes")))
        return bytes(body)

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """The next part of a request. Raises h11.RemoteProtocolError, or Refused if the client ends inside of one."""
        ended = False
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if ended:
                raise Refused(problem(400, VmmError(failures.API_MALFORMED, "it ended in the middle")))
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self._reader.read(_READ)
            self._http.receive_data(data)
            # From now on the reader returns at once: asking it again and again would leave nobody else a turn.
            ended = not data
        return event

    async def _drop_rest(self) -> None:
        """End our half and read on, within bounds: to close at once would cost the client the answer."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        try:
            async with asyncio.timeout(_DROP_TIMEOUT):
                for _ in range(_MAX_DROPPED // _READ):
                    if not await self._reader.read(_READ):
                        return
        except TimeoutError:
            return  # it had its time

    def _malformed(self, error: h11.RemoteProtocolError) -> Json:
        status = error.error_status_hint
        if status == 431:  # noqa: PLR2004 - Request Header Fields Too Large, as h11 says it
            return problem(431, VmmError(failures.API_TOO_LARGE, f"header of more than {MAX_HEADER} bytes"))
        return problem(400, VmmError(failures.API_MALFORMED, str(error)))

    async def _answer(self, answer: Answer) -> None:
        match answer:
            case Json(status, body):
                content = body.model_dump_json().encode()
                headers = [("content-type", "application/json"), ("content-length", str(len(content)))]
                data = [] if self._head_only else [h11.Data(data=content)]
                await self._send(h11.Response(status_code=status, headers=headers), *data, h11.EndOfMessage())
            case Lines():
                headers = [("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked")]
                await self._send(h11.Response(status_code=200, headers=headers))
                await self._stream(answer)

    async def _stream(self, lines: Lines) -> None:
        """Send batches until there are no more. One that follows also ends when the client ends its half."""
        sending = asyncio.ensure_future(self._send_batches(lines.batches))
        # A follower may have nothing to send for hours: the end of the client is only seen by reading.
        watching = asyncio.ensure_future(self._client_ends())
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if lines.follows and watching.done():
                watching.result()
            else:
                await sending
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)

    async def _client_ends(self) -> None:
        """Return when the client ended its half, or sent so much meanwhile that it cannot have meant it."""
        room = MAX_HEADER
        while room > 0 and (data := await self._reader.read(_READ)):
            self._http.receive_data(data)
            room -= len(data)

    async def _send_batches(self, batches: AsyncGenerator[bytes, None]) -> None:
        async with aclosing(batches):
            async for batch in batches:
                await self._send(h11.Data(data=batch))
        await self._send(h11.EndOfMessage())

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(filter(None, map(self._http.send, events)))
        self._writer.write(data)
        await self._writer.drain()

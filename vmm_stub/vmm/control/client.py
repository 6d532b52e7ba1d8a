# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A client of the control API over any pair of streams: a unix socket, or a `control-stdio` at the other end of a pipe.

ControlError          carries a FailureKind
 +-- ApiRefused       the host answered with a Problem; `status` is the HTTP status
 +-- ControlLost      the connection ended in the middle (VMM-CONTROL-LOST)
 +-- AnswerMalformed  the answer is not what the API describes (VMM-API-ANSWER)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import h11
from pydantic import BaseModel, TypeAdapter, ValidationError

from migtd.errors import FailureKind, LabFailure
from vmm_stub import failures
from vmm_stub.vmm.control.models import (
    Health,
    MigrationModel,
    MigrationRequest,
    Model,
    Problem,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    TargetTdModel,
    TargetTdRequest,
)

MAX_ANSWER: Final = 64 << 20
"""Most bytes of one JSON answer."""
MAX_LINE: Final = 1 << 20
_READ: Final = 64 << 10
_FIRST_ERROR: Final = 400
_MIGRATIONS: Final = TypeAdapter(list[MigrationModel])
_TARGET_TDS: Final = TypeAdapter(list[TargetTdModel])
M = TypeVar("M", bound=BaseModel)


class ControlError(LabFailure):
    """Something went wrong between the client and the host; never raised itself."""


class ApiRefused(ControlError):
    """The host refused: its own id, sentence and advice."""

    def __init__(self, status: int, problem: Problem) -> None:
        error = problem.error
        super().__init__(FailureKind(error.id, error.message, error.advice))
        self.status = status


class ControlLost(ControlError):
    """The connection ended before the answer did."""


class AnswerMalformed(ControlError):
    """The answer does not fit the API's description."""


class ControlClient:
    """One connection to one host. Requests go one after the other, also when several tasks ask.

    A stream (`events`, `logs`) takes the connection for itself until it ends; one that is left early, or a request
    that is cancelled, ends the connection. Every method raises a ControlError.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self._turn = asyncio.Lock()
        self._broken = False

    async def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the host."""
        return _parse_object(await self._request("GET", "/openapi.json"))

    async def health(self, wait: float = 0.0) -> Health:
        """Health of the host: once it is ready, or after `wait` seconds."""
        return _parse(Health, await self._request("GET", "/v1/health", {"wait": wait}))

    async def create_target_td(self, request: TargetTdRequest) -> TargetTdModel:
        """Create a target TD and bind a MigTD to it."""
        return _parse(TargetTdModel, await self._request("POST", "/v1/target-tds", body=request))

    async def target_tds(self) -> list[TargetTdModel]:
        """All target TDs."""
        return _parse_list(_TARGET_TDS, await self._request("GET", "/v1/target-tds"))

    async def start_migration(self, request: MigrationRequest) -> MigrationModel:
        """Start one side; a destination listens when this returns."""
        return _parse(MigrationModel, await self._request("POST", "/v1/migrations", body=request))

    async def finalize_rebinding(self, request: RebindFinalizeRequest) -> RebindFinalizeModel:
        """Move the binding of a target TD to the MigTD that prepared it."""
        return _parse(RebindFinalizeModel, await self._request("POST", "/v1/rebindings/finalize", body=request))

    async def migrations(self) -> list[MigrationModel]:
        """All migrations of the host."""
        return _parse_list(_MIGRATIONS, await self._request("GET", "/v1/migrations"))

    async def migration(self, migtd: str, request_id: int) -> MigrationModel:
        """One migration as it is."""
        return _parse(MigrationModel, await self._request("GET", _path(migtd, request_id)))

    async def outcome(self, migtd: str, request_id: int, timeout: float) -> MigrationModel:  # noqa: ASYNC109 - the host waits, not this task
        """One migration once it ended, or as it is after `timeout` seconds."""
        path = _path(migtd, request_id) + "/outcome"
        return _parse(MigrationModel, await self._request("GET", path, {"timeout": timeout}))

    async def cancel(self, migtd: str, request_id: int) -> MigrationModel:
        """Cancel a migration; its end comes later."""
        return _parse(MigrationModel, await self._request("POST", _path(migtd, request_id) + "/cancel"))

    def events(self, after: int = 0, *, follow: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """The recorded history above sequence number `after`, with `follow` without end."""
        return self._lines("/v1/events", {"after": after, "follow": int(follow)})

    def logs(self, *, follow: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """Entries of the MigTDs' log areas, with `follow` without end."""
        return self._lines("/v1/logs", {"follow": int(follow)})

    async def close(self) -> None:
        """End the connection."""
        self._broken = True
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return  # ended by the host, which is an end too

    async def _request(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Model | None = None
    ) -> bytes:
        async with self._turn:
            complete = False
            try:
                response = await self._send(method, path, query, body)
                answer = await self._whole_body()
                complete = True
            finally:
                self._end_cycle(complete=complete)
        if response.status_code >= _FIRST_ERROR:
            raise ApiRefused(response.status_code, _parse(Problem, answer))
        return answer

    async def _lines(self, path: str, query: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        async with self._turn:
            complete = False
            try:
                response = await self._send("GET", path, query, None)
                if response.status_code >= _FIRST_ERROR:
                    answer = await self._whole_body()
                    complete = True
                    raise ApiRefused(response.status_code, _parse(Problem, answer))
                rest = b""
                async with aclosing(self._body()) as chunks:
                    async for chunk in chunks:
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            yield _parse_object(line)
                        if len(rest) > MAX_LINE:
                            raise AnswerMalformed(failures.API_ANSWER, f"a line of more than {MAX_LINE} bytes")
                complete = True
            finally:
                self._end_cycle(complete=complete)

    async def _send(self, method: str, path: str, query: Mapping[str, Any] | None, body: Model | None) -> h11.Response:
        if self._broken:
            raise ControlLost(failures.CONTROL_LOST, "the connection was ended")
        content = body.model_dump_json().encode() if body is not None else b""
        target = f"{path}?{urlencode(query)}" if query else path
        headers = [("host", "migtd-lab"), ("content-length", str(len(content)))]
        if content:
            headers.append(("content-type", "application/json"))
        events = (
            h11.Request(method=method, target=target, headers=headers),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        try:
            self._writer.write(b"".join(filter(None, map(self._http.send, events))))
            await self._writer.drain()
        except OSError as error:
            raise ControlLost(failures.CONTROL_LOST, str(error)) from error
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise AnswerMalformed(failures.API_ANSWER, f"{type(event).__name__} instead of an answer")

    async def _whole_body(self) -> bytes:
        answer = bytearray()
        async with aclosing(self._body()) as chunks:
            async for chunk in chunks:
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise AnswerMalformed(failures.API_ANSWER, f"more than {MAX_ANSWER} bytes")
        return bytes(answer)

    async def _body(self) -> AsyncGenerator[bytes, None]:
        while True:
            event = await self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def _next_event(self) -> h11.Event:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(_READ)
                if not data:
                    raise ControlLost(failures.CONTROL_LOST, "the host ended it")
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise AnswerMalformed(failures.API_ANSWER, str(error)) from error
        except OSError as error:
            raise ControlLost(failures.CONTROL_LOST, str(error)) from error
        if not isinstance(event, h11.Event):
            raise ControlLost(failures.CONTROL_LOST, "the host ended it")
        return event

    def _end_cycle(self, *, complete: bool) -> None:
        """Make ready for the next request, or give the connection up if this one was not seen to its end."""
        if complete and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self._broken = True
            self._writer.close()


def _path(migtd: str, request_id: int) -> str:
    return f"/v1/migrations/{quote(migtd, safe='')}/{request_id}"


def _parse(model: type[M], answer: bytes) -> M:
    try:
        return model.model_validate_json(answer)
    except ValidationError as error:
        raise AnswerMalformed(failures.API_ANSWER, str(error)) from error


def _parse_list(adapter: TypeAdapter[list[M]], answer: bytes) -> list[M]:
    try:
        return adapter.validate_json(answer)
    except ValidationError as error:
        raise AnswerMalformed(failures.API_ANSWER, str(error)) from error


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnswerMalformed(failures.API_ANSWER, str(error)) from error
    if not isinstance(value, dict):
        raise AnswerMalformed(failures.API_ANSWER, "no JSON object")
    return value

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The control API's one route table: paths with their models, and what each does (design.md, contract 5).

The server looks requests up here, and the OpenAPI document is made from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import unquote

from pydantic import Field, JsonValue, RootModel

from vmm_stub.vmm.control.models import (
    Health,
    MigrationModel,
    MigrationRequest,
    Model,
    Name,
    TargetTdModel,
    TargetTdRequest,
)
from vmm_stub.vmm.vmm import Vmm

Wait: TypeAlias = Annotated[float, Field(ge=0, le=3600, description="seconds")]
Follow: TypeAlias = Annotated[int, Field(ge=0, le=1, description="1: go on with what comes until the client ends it")]
MAX_SEQUENCE: Final = 2**63 - 1


class NoQuery(Model):
    """No query parameters."""


class HealthQuery(Model):
    """Wait at most so long for the host to be ready."""

    wait: Wait = 0.0


class OutcomeQuery(Model):
    """Wait at most so long for the migration to end."""

    timeout: Wait = 0.0


class EventsQuery(Model):
    """Which events: those with a sequence number above `after`."""

    after: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)] = 0
    follow: Follow = 0


class LogsQuery(Model):
    """Which entries: those still held, and with `follow` those to come."""

    follow: Follow = 0


class NoPath(Model):
    """No path parameters."""


class MigrationPath(Model):
    """Which migration."""

    migtd: Name
    request_id: Annotated[int, Field(ge=0, lt=2**62)]


class Migrations(RootModel[list[MigrationModel]]):
    """Migrations, in the order of their end, then those under way."""


class TargetTds(RootModel[list[TargetTdModel]]):
    """Target TDs, oldest first."""


class OpenApi(RootModel[dict[str, JsonValue]]):
    """An OpenAPI 3.1 document."""


@dataclass(frozen=True, slots=True)
class Json:
    """An answer with a JSON body."""

    status: int
    body: Model | RootModel[Any]


@dataclass(frozen=True, slots=True)
class Lines:
    """An answer of JSON lines, in batches of whole lines, for as long as there are any."""

    batches: AsyncGenerator[bytes, None]


Answer: TypeAlias = Json | Lines


@dataclass(frozen=True, slots=True)
class Call:
    """One request: parameters and body already checked against the route's models."""

    path: Any
    query: Any
    body: Any


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `answers` are the models by status of what it gives; None stands for JSON lines."""

    method: str
    path: str
    name: str
    summary: str
    handler: Callable[[Vmm, Call], Awaitable[Answer]]
    answers: Mapping[int, type[Model | RootModel[Any]] | None]
    path_model: type[Model] = NoPath
    query: type[Model] = NoQuery
    body: type[Model] | None = None
    problems: Mapping[int, str] = field(default_factory=dict)


async def _openapi(_vmm: Vmm, _call: Call) -> Answer:
    # Imported here: the document is made of the table in this module.
    from vmm_stub.vmm.control.openapi import document  # noqa: PLC0415

    return Json(200, OpenApi(document(ROUTES)))


async def _health(vmm: Vmm, call: Call) -> Answer:
    return Json(200, await vmm.ready(call.query.wait) if call.query.wait else vmm.health())


async def _create_target_td(vmm: Vmm, call: Call) -> Answer:
    return Json(201, vmm.create_target_td(call.body))


async def _target_tds(vmm: Vmm, _call: Call) -> Answer:
    return Json(200, TargetTds(vmm.target_tds()))


async def _start_migration(vmm: Vmm, call: Call) -> Answer:
    migration = await vmm.start_migration(call.body)
    return Json(201, migration.model())


async def _migrations(vmm: Vmm, _call: Call) -> Answer:
    return Json(200, Migrations([migration.model() for migration in vmm.migrations()]))


async def _migration(vmm: Vmm, call: Call) -> Answer:
    return Json(200, vmm.migration(call.path.migtd, call.path.request_id).model())


async def _outcome(vmm: Vmm, call: Call) -> Answer:
    migration = vmm.migration(call.path.migtd, call.path.request_id)
    try:
        async with asyncio.timeout(call.query.timeout):
            await migration.ended.wait()
    except TimeoutError:
        pass  # the state in the answer tells that it has not ended
    return Json(200, migration.model())


async def _cancel(vmm: Vmm, call: Call) -> Answer:
    migration = vmm.migration(call.path.migtd, call.path.request_id)
    migration.cancel()
    return Json(202, migration.model())


async def _events(vmm: Vmm, call: Call) -> Answer:
    return Lines(vmm.history.follow(call.query.after, forever=bool(call.query.follow)))


async def _logs(vmm: Vmm, call: Call) -> Answer:
    return Lines(vmm.logs.follow(forever=bool(call.query.follow)))


_MIGRATION: Final = "/v1/migrations/{migtd}/{request_id}"
_INVALID: Final = {400: "body, query or path is invalid"}
_UNKNOWN: Final = {404: "no such MigTD or migration"}

_REFUSED: Final = {409: "not in the state that the host is in"}

ROUTES: Final = (
    Route("GET", "/openapi.json", "openapi", "This description", _openapi, {200: OpenApi}),
    Route(
        "GET",
        "/v1/health",
        "health",
        "Health of the host and its MigTDs; with `wait`, once it is ready",
        _health,
        {200: Health},
        query=HealthQuery,
        problems=_INVALID,
    ),
    Route(
        "POST",
        "/v1/target-tds",
        "create_target_td",
        "Create a target TD and bind a MigTD to it",
        _create_target_td,
        {201: TargetTdModel},
        body=TargetTdRequest,
        problems=_INVALID | _UNKNOWN | _REFUSED,
    ),
    Route("GET", "/v1/target-tds", "target_tds", "All target TDs", _target_tds, {200: TargetTds}),
    Route(
        "POST",
        "/v1/migrations",
        "start_migration",
        "Start one side of a migration; a destination listens when this is answered",
        _start_migration,
        {201: MigrationModel},
        body=MigrationRequest,
        problems=_INVALID | _UNKNOWN | _REFUSED,
    ),
    Route("GET", "/v1/migrations", "migrations", "All migrations of this host", _migrations, {200: Migrations}),
    Route(
        "GET",
        _MIGRATION,
        "migration",
        "One migration",
        _migration,
        {200: MigrationModel},
        path_model=MigrationPath,
        problems=_INVALID | _UNKNOWN,
    ),
    Route(
        "GET",
        _MIGRATION + "/outcome",
        "outcome",
        "One migration once it ended, or as it is after `timeout`",
        _outcome,
        {200: MigrationModel},
        path_model=MigrationPath,
        query=OutcomeQuery,
        problems=_INVALID | _UNKNOWN,
    ),
    Route(
        "POST",
        _MIGRATION + "/cancel",
        "cancel",
        "Cancel a migration; its MigTD reports the end",
        _cancel,
        {202: MigrationModel},
        path_model=MigrationPath,
        problems=_INVALID | _UNKNOWN,
    ),
    Route(
        "GET",
        "/v1/events",
        "events",
        "The recorded history, one JSON object a line",
        _events,
        {200: None},
        query=EventsQuery,
        problems=_INVALID,
    ),
    Route(
        "GET",
        "/v1/logs",
        "logs",
        "Entries of the MigTDs' log areas, one JSON object a line",
        _logs,
        {200: None},
        query=LogsQuery,
        problems=_INVALID,
    ),
)


class NoSuchPath(LookupError):
    """No route has this path."""


class NoSuchMethod(LookupError):
    """The path is known, but not with this method; `allowed` lists those it has."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(allowed)
        self.allowed = allowed


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request, and the path's parameters as text. Raises NoSuchPath or NoSuchMethod."""
    matches = [(route, found) for route in ROUTES if (found := _match(route.path, path)) is not None]
    if not matches:
        raise NoSuchPath(path)
    for route, found in matches:
        if route.method == method:
            return route, found
    raise NoSuchMethod(tuple(route.method for route, _ in matches))


def _match(pattern: str, path: str) -> dict[str, str] | None:
    wanted, given = pattern.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    found = {}
    for want, have in zip(wanted, given, strict=True):
        if want.startswith("{"):
            found[want[1:-1]] = unquote(have)
        elif want != have:
            return None
    return found

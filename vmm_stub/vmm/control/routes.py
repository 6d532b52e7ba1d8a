# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The control API's one route table: paths with their models, and what each does (design.md, contract 5).

The server looks requests up here, and the OpenAPI document is made from it.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import unquote

from pydantic import JsonValue, RootModel

from vmm_stub.vmm.control.models import (
    Health,
    MigrationModel,
    MigrationRequest,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    TargetTdModel,
    TargetTdRequest,
)
from vmm_stub.vmm.control.openapi import document
from vmm_stub.vmm.control.parameters import EventsQuery, HealthQuery, LogsQuery, MigrationPath, OutcomeQuery
from vmm_stub.vmm.control.route import Answer, Call, Json, Lines, Route
from vmm_stub.vmm.vmm import Vmm


class Migrations(RootModel[list[MigrationModel]]):
    """Migrations, in the order of their end, then those under way."""


class TargetTds(RootModel[list[TargetTdModel]]):
    """Target TDs, oldest first."""


class OpenApi(RootModel[dict[str, JsonValue]]):
    """An OpenAPI 3.1 document."""


async def _openapi(_vmm: Vmm, _call: Call) -> Answer:
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


async def _finalize_rebinding(vmm: Vmm, call: Call) -> Answer:
    return Json(200, vmm.finalize_rebinding(call.body))


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
    follows = bool(call.query.follow)
    return Lines(vmm.history.follow(call.query.after, forever=follows), follows)


async def _logs(vmm: Vmm, call: Call) -> Answer:
    follows = bool(call.query.follow)
    return Lines(vmm.logs.follow(forever=follows), follows)


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
        "Start one side of a migration, or of a rebinding; a destination listens when this is answered",
        _start_migration,
        {201: MigrationModel},
        body=MigrationRequest,
        problems=_INVALID | _UNKNOWN | _REFUSED,
    ),
    Route(
        "POST",
        "/v1/rebindings/finalize",
        "finalize_rebinding",
        "Move the binding of a target TD to the MigTD that prepared it",
        _finalize_rebinding,
        {200: RebindFinalizeModel},
        body=RebindFinalizeRequest,
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

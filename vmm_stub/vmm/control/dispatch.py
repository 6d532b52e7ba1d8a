# SPDX-License-Identifier: BSD-2-Clause-Patent
"""From a request of the control API to its answer, without HTTP: route, models, handler, problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import structlog
from pydantic import BaseModel, ValidationError

from migtd.errors import LabFailure
from vmm_stub import failures
from vmm_stub.vmm.control.models import Problem
from vmm_stub.vmm.control.route import Answer, Call, Json
from vmm_stub.vmm.control.routes import NoSuchMethod, NoSuchPath, find_route
from vmm_stub.vmm.errors import Conflict, Invalid, NotKnown, VmmError, error_model
from vmm_stub.vmm.vmm import Vmm

_STATUS: Final[Mapping[type[LabFailure], int]] = {Invalid: 400, NotKnown: 404, Conflict: 409}
_INTERNAL: Final = 500
_MAX_DETAILS: Final = 8
_MAX_PARAMETERS: Final = 16
_log: Final = structlog.get_logger()
M = TypeVar("M", bound=BaseModel)


def problem(status: int, failure: LabFailure) -> Json:
    """The answer that tells of a failure."""
    return Json(status, Problem(error=error_model(failure)))


async def dispatch(vmm: Vmm, method: str, target: str, body: bytes) -> Answer:
    """Answer one request. `target` is path and query as they stand in the request line. Never raises."""
    try:
        path, query = _split(target)
        route, parameters = find_route(method, path)
        call = Call(
            path=_check(route.path_model, parameters, "path"),
            query=_check(route.query, _query(query), "query"),
            body=_check_json(route.body, body) if route.body is not None else None,
        )
        return await route.handler(vmm, call)
    except NoSuchPath:
        return problem(404, VmmError(failures.API_NOT_FOUND, f"{method} {target[:200]}"))
    except NoSuchMethod as error:
        return problem(405, VmmError(failures.API_METHOD, f"{method}; served: {', '.join(error.allowed)}"))
    except VmmError as error:
        return problem(_STATUS.get(type(error), _INTERNAL), error)
    except Exception:  # noqa: BLE001 - a defect of a handler must not take the host with it; it is logged
        _log.exception("a control request failed", method=method, target=target[:200])
        return problem(_INTERNAL, VmmError(failures.API_INTERNAL))


def _split(target: str) -> tuple[str, str]:
    """Path and query of a request target."""
    try:
        parts = urlsplit(target)
    except ValueError as error:
        raise Invalid(failures.API_INVALID, f"target: {error}") from error
    return parts.path, parts.query


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise Invalid(failures.API_INVALID, f"query: {error}") from error
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise Invalid(failures.API_INVALID, "query: a parameter is given twice")
    return dict(pairs)


def _check(model: type[M], values: Mapping[str, Any], place: str) -> M:
    try:
        return model.model_validate_strings(values)
    except ValidationError as error:
        raise _invalid(place, error) from error


def _check_json(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid("body", error) from error


def _invalid(place: str, error: ValidationError) -> Invalid:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, (place, *each['loc'])))}: {each['msg']}" for each in details[:_MAX_DETAILS]]
    return Invalid(failures.API_INVALID, "; ".join(lines))

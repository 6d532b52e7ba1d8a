# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The OpenAPI 3.1 document of the control API, made from the route table and its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vmm_stub.vmm.control.models import Problem
from vmm_stub.vmm.control.route import Route

VERSION: Final = "1"
_REF: Final = "#/components/schemas/{model}"
_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"
_Mode: TypeAlias = Literal["validation", "serialization"]
_References: TypeAlias = Mapping[tuple[Any, _Mode], Any]
"""`$ref` by model and mode."""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document, as JSON values."""
    references, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MigTD Lab host control",
            "version": VERSION,
            "description": "Controls one emulated host: target TDs, migrations, history and logs.",
            "license": {"name": "BSD-2-Clause-Patent", "identifier": "BSD-2-Clause-Patent"},
        },
        "servers": [{"url": "http://localhost", "description": "over the host's unix socket"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schemas(routes: Sequence[Route]) -> tuple[_References, dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], _Mode], None] = {(Problem, "serialization"): None}
    for route in routes:
        if route.body is not None:
            wanted[route.body, "validation"] = None
        for answer in route.answers.values():
            if answer is not None:
                wanted[answer, "serialization"] = None
    references, definitions = models_json_schema(list(wanted), ref_template=_REF)
    return references, definitions.get("$defs", {})


def _operation(route: Route, references: _References) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [*_parameters(route.path_model, "path"), *_parameters(route.query, "query")],
        "responses": {
            **{
                str(status): _response(
                    "as asked",
                    {_LINES: {}} if model is None else {_JSON: {"schema": references[model, "serialization"]}},
                )
                for status, model in route.answers.items()
            },
            **{str(status): _problem(text, references) for status, text in sorted(route.problems.items())},
            "default": _problem("any other failure", references),
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": references[route.body, "validation"]}},
        }
    return operation


def _parameters(model: type[BaseModel], place: str) -> list[dict[str, Any]]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": place, "required": place == "path" or name in required, "schema": each}
        for name, each in schema.get("properties", {}).items()
    ]


def _problem(text: str, references: _References) -> dict[str, Any]:
    return _response(text, {_JSON: {"schema": references[Problem, "serialization"]}})


def _response(text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": content}

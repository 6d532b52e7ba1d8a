# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The schemas in docs/, generated from the models of the code (generated.py writes them)."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, JsonValue, TypeAdapter

from lab.labfile import LabFile
from lab.outcome import Failure, Outcome
from vmm_stub.vmm.control.models import Model, Name
from vmm_stub.vmm.control.openapi import document as openapi
from vmm_stub.vmm.control.routes import ROUTES
from vmm_stub.vmm.history import HistoryKind

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class HistoryEvent(Model):
    """One line of `./inv events`: something that happened on a host."""

    seq: Annotated[int, Field(ge=1, description="counts up from 1 on each host")]
    time: Annotated[float, Field(description="seconds since 1970, by the host's clock")]
    host: Name
    migtd: Annotated[Name | None, Field(description="null: of the host as a whole")]
    request_id: Annotated[int | None, Field(description="null: of no request")]
    kind: HistoryKind
    data: Annotated[dict[str, JsonValue], Field(description="what happened; its keys depend on `kind`")]


def schemas() -> dict[str, str]:
    """The text of each generated file by its path in the checkout."""
    return {
        "docs/lab.schema.json": _text(
            LabFile.model_json_schema(by_alias=True, mode="validation"), "MigTD Lab: lab file (lab.yaml)"
        ),
        "docs/outcome.schema.json": _text(
            TypeAdapter(Outcome | Failure).json_schema(by_alias=True, mode="serialization"),
            "MigTD Lab: outcome of a migration",
        ),
        "docs/events.schema.json": _text(
            HistoryEvent.model_json_schema(mode="serialization"), "MigTD Lab: a line of the history"
        ),
        "docs/openapi.json": json.dumps(openapi(ROUTES), indent=2, ensure_ascii=False) + "\n",
    }


def _text(schema: dict[str, Any], title: str) -> str:
    return json.dumps({"$schema": DIALECT, **schema, "title": title}, indent=2, ensure_ascii=False) + "\n"

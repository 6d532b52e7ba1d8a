# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a route of the control API is: one method on one path, with the models of all that goes in and out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import RootModel

from vmm_stub.vmm.control.models import Model
from vmm_stub.vmm.control.parameters import NoPath, NoQuery
from vmm_stub.vmm.vmm import Vmm


@dataclass(frozen=True, slots=True)
class Json:
    """An answer with a JSON body."""

    status: int
    body: Model | RootModel[Any]


@dataclass(frozen=True, slots=True)
class Lines:
    """An answer of JSON lines, in batches of whole lines, for as long as there are any.

    One that `follows` has no end of its own: it ends with the client's half of the connection.
    """

    batches: AsyncGenerator[bytes, None]
    follows: bool


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

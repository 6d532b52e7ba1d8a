# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Path and query parameters of the control API's routes, one model for each set."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from pydantic import Field

from vmm_stub.vmm.control.models import Model, Name

MAX_SEQUENCE: Final = 2**63 - 1
Wait: TypeAlias = Annotated[float, Field(ge=0, le=3600, description="seconds")]
Follow: TypeAlias = Annotated[int, Field(ge=0, le=1, description="1: go on with what comes until the client ends it")]


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

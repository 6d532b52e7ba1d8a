# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The machine under a host in a lab file: what the lab's PKI vouches for, what its collateral says, what fails."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from vmm_stub.vmm.control.models import Model


def _written_date(value: object) -> object:
    """YAML makes a date of `2025-05-14`; what a file says is the text."""
    return value.isoformat() if isinstance(value, dt.date) else value


PlatformStatus: TypeAlias = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
]
PartStatus: TypeAlias = Literal["UpToDate", "OutOfDate", "Revoked"]
Svn16: TypeAlias = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{32}$", description="16 bytes as hex, in quotes")]
Date: TypeAlias = Annotated[
    str, BeforeValidator(_written_date), Field(pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}$", description="YYYY-MM-DD, UTC")
]


class QuotingEntry(Model):
    """What goes wrong at the quoting service of a host: its first `fail_first` GetQuote calls end in the error status.

    A MigTD takes that as busy and asks again, up to 5 times. The calls of all MigTDs of the host count, from its start.
    """

    fail_first: Annotated[int, Field(ge=0, le=1000)] = 0


class PlatformEntry(Model):
    """One machine. SVNs that are left out fit the statuses: the worse the status, the lower the SVN."""

    fmspc: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{12}$", description="6 bytes as hex, in quotes")] | None = None
    pcesvn: Annotated[int, Field(ge=0, le=0xFFFF)] | None = None
    cpusvn: Svn16 | None = None
    tee_tcb_svn: Svn16 | None = None
    tcb_status: PlatformStatus | None = None
    tcb_date: Date | None = None
    module_status: PartStatus | None = None
    qe_status: PartStatus | None = None
    pck_revoked: bool = False
    collateral_issued: Date | None = None
    collateral_expires: Date | None = None

    def settings(self, machine: str) -> dict[str, Any]:
        """What was said, as the keywords of vmm_stub.quoting.settings.PlatformSettings."""
        said = self.model_dump(exclude_none=True)
        for key in ("tcb_date", "collateral_issued", "collateral_expires"):
            if key in said:
                said[key] = dt.datetime.fromisoformat(said[key]).replace(tzinfo=dt.UTC)
        return {"machine": machine, **said}

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the collateral of a lab shall say of one machine: its FMSPC, its SVNs and the verdict on them."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_CPUSVN: Final = bytes.fromhex("0606131503ff00030000000000000000")
_TEE_TCB_SVN: Final = bytes.fromhex("07010300000000000000000000000000")
_QE_ISVSVN: Final = 6
_STATUS_AT: Final = 3
"""CPUSVN byte that is lower the worse the status is."""
_DATE_AT: Final = 8
_WEEKS_FROM: Final = datetime(2016, 1, 1, tzinfo=UTC)
"""From the CPUSVN byte of _DATE_AT on stand the weeks up to the TCB date, the next byte counting once one is full: SVNs
are compared byte by byte, and an older date shall be lower, or equal, in each of them."""
_FULL: Final = 0xFF
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_DAYS: Final = 0xFFFF
_DATE: Final = datetime(2025, 5, 14, tzinfo=UTC)


class TcbStatus(enum.StrEnum):
    """tcbStatus of a platform's TCB level, best first (policy.md 2.5)."""

    UpToDate = "UpToDate"
    SWHardeningNeeded = "SWHardeningNeeded"
    ConfigurationNeeded = "ConfigurationNeeded"
    ConfigurationAndSWHardeningNeeded = "ConfigurationAndSWHardeningNeeded"
    OutOfDate = "OutOfDate"
    OutOfDateConfigurationNeeded = "OutOfDateConfigurationNeeded"
    Revoked = "Revoked"


class ComponentStatus(enum.StrEnum):
    """tcbStatus of a TDX module or of the quoting enclave, best first."""

    UpToDate = "UpToDate"
    OutOfDate = "OutOfDate"
    Revoked = "Revoked"


@dataclass(frozen=True, slots=True)
class HexBytes:
    """Annotation of a bytes field that is written as `size` bytes of hex, either case."""

    size: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate text or bytes; write text."""
        return core_schema.no_info_plain_validator_function(
            self._pull,
            serialization=core_schema.plain_serializer_function_ser_schema(bytes.hex, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A string with a pattern."""
        return {"type": "string", "pattern": f"^[0-9A-Fa-f]{{{2 * self.size}}}$"}

    def _pull(self, value: object) -> bytes:
        if isinstance(value, str) and re.fullmatch(f"[0-9A-Fa-f]{{{2 * self.size}}}", value):
            return bytes.fromhex(value)
        if isinstance(value, bytes) and len(value) == self.size:
            return value
        raise ValueError(f"{self.size} bytes as {2 * self.size} hex digits, in quotes, are needed")


def _whole_second_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    value = value.astimezone(UTC)
    if value.microsecond or value < _EPOCH or (value - _EPOCH).days > _MAX_DAYS:
        raise ValueError("a date of 2000 or later in whole seconds is needed")
    return value


Date = Annotated[datetime, AfterValidator(_whole_second_utc)]
"""A point in time in UTC and whole seconds; without a zone it is UTC."""
Svn = Annotated[int, Field(ge=0, le=0xFFFF)]


class PlatformSettings(BaseModel):
    """One machine, as the lab's PKI sees it.

    The collateral gets one TCB level for each machine, at its very SVNs, with its status and date. SVNs that are left
    out are chosen so that a machine with a worse status or a date that is a week older has lower ones, none of them
    higher; machines with the same SVNs must agree on status, date and advisories.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: str = Field(default="machine", min_length=1, max_length=64, description="whose PCK certificate it is")
    fmspc: Annotated[bytes, HexBytes(6)] = bytes.fromhex("4D4C41420000")
    pceid: Annotated[bytes, HexBytes(2)] = bytes(2)
    pcesvn: Svn = 13
    cpusvn: Annotated[bytes, HexBytes(16)] | None = Field(default=None, description="also the 16 SGX components")
    tee_tcb_svn: Annotated[bytes, HexBytes(16)] | None = Field(
        default=None, description="byte 0 SVN and byte 1 major version of the TDX module, then the TDX components"
    )
    mrseam: Annotated[bytes, HexBytes(48)] | None = None
    mrsignerseam: Annotated[bytes, HexBytes(48)] = bytes(48)
    tcb_status: TcbStatus = TcbStatus.UpToDate
    tcb_date: Date = _DATE
    advisory_ids: tuple[str, ...] = ()
    module_status: ComponentStatus = ComponentStatus.UpToDate
    module_date: Date = _DATE
    qe_status: ComponentStatus = ComponentStatus.UpToDate
    qe_date: Date = _DATE
    pck_revoked: bool = False
    tcb_evaluation_number: Annotated[int, Field(ge=0, le=2**32 - 1)] = 18
    collateral_issued: Date | None = Field(
        default=None, description="of the collateral that this machine's host serves; default: when the PKI was made"
    )
    collateral_expires: Date | None = Field(default=None, description="default: a year after collateral_issued")

    @property
    def sgx_components(self) -> bytes:
        """CPUSVN, 16 bytes; here it equals the 16 SGX component SVNs."""
        if self.cpusvn is not None:
            return self.cpusvn
        svn = bytearray(_CPUSVN)
        svn[_STATUS_AT] -= list(TcbStatus).index(self.tcb_status)
        weeks = max(self.tcb_date - _WEEKS_FROM, timedelta()) // timedelta(weeks=1)
        for at in range(_DATE_AT, len(svn)):
            svn[at] = min(weeks, _FULL)
            weeks -= svn[at]
        return bytes(svn)

    @property
    def module_svn(self) -> bytes:
        """TEE_TCB_SVN, 16 bytes."""
        if self.tee_tcb_svn is not None:
            return self.tee_tcb_svn
        svn = bytearray(_TEE_TCB_SVN)
        svn[0] -= list(ComponentStatus).index(self.module_status)
        return bytes(svn)

    @property
    def qe_isvsvn(self) -> int:
        """ISVSVN of the quoting enclave."""
        return _QE_ISVSVN - list(ComponentStatus).index(self.qe_status)

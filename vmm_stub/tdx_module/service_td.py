# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A service TD as the TDX module knows it: what it is measured as, and the metadata it may write of itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from migtd.guest.abi import Field
from vmm_stub.tdx_module.metadata import SERVICE_TD_FIELDS, StagedField, staged_fields, writable
from vmm_stub.tdx_module.report import TdInfo
from vmm_stub.tdx_module.rtmr import Rtmrs

MIGTD_XFAM: Final = int.from_bytes(bytes.fromhex("e71a060000000000"), "little")
"""XFAM of MigTD's own manifest (policy.md 6.1)."""


def emulated_mrtd(label: str) -> bytes:
    """MRTD, 48 bytes, of a TD that has no image: SHA-384 of a text that names what runs in it."""
    return hashlib.sha384(label.encode()).digest()


@dataclass(frozen=True, slots=True)
class ServiceTdParams:
    """What the host builds a service TD with. `tdinfo` is its TDINFO at start: RTMRs in it are ignored."""

    tdinfo: TdInfo = field(default_factory=lambda: TdInfo(xfam=MIGTD_XFAM, mrtd=emulated_mrtd("MigTD")))
    vcpus: int = 1


class ServiceTd:
    """One running TD. A MigTD that starts again is a new one, with a new `instance` number and fresh RTMRs."""

    def __init__(self, name: str, params: ServiceTdParams, instance: int) -> None:
        params.tdinfo.push()  # says now, not at the first report, that a field has the wrong size
        self.name = name
        self.vcpus = params.vcpus
        self.instance = instance
        self.rtmrs = Rtmrs()
        self._tdinfo = params.tdinfo
        self._metadata = staged_fields(SERVICE_TD_FIELDS)

    def __repr__(self) -> str:
        return f"ServiceTd({self.name!r}, instance={self.instance}, metadata={self._metadata})"

    @property
    def attributes(self) -> int:
        """TD attributes, u64."""
        return self._tdinfo.attributes

    def tdinfo(self) -> TdInfo:
        """TDINFO with the RTMRs as they are now."""
        rtmr0, rtmr1, rtmr2, rtmr3 = self.rtmrs.values
        return replace(self._tdinfo, rtmr0=rtmr0, rtmr1=rtmr1, rtmr2=rtmr2, rtmr3=rtmr3)

    def metadata(self, field: Field) -> StagedField:
        """What this TD wrote to REBIND_ACCEPT_TOKEN, REBIND_ATTR or ACCEPT_SERVTD_EXT_HASH (TDG.VM.WR)."""
        return self._metadata[field]

    def clear_rebinding(self) -> None:
        """Forget the accepted token and REBIND_ATTR."""
        self._metadata[Field.REBIND_ACCEPT_TOKEN].clear()
        self._metadata[Field.REBIND_ATTR].clear()

    def write(self, field: int, value: int, mask: int) -> None:
        """TDG.VM.WR of one element. Raises OperandInvalid (RDX, R8, R9)."""
        element = writable(SERVICE_TD_FIELDS, field, value, mask)
        self._metadata[element.layout.field].write(element.index, value)

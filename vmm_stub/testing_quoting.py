# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests of quoting, and of what consumes quotes: a lab PKI that is always the same, machines, reports, quotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vmm_stub.quoting.interface import Quoting
from vmm_stub.quoting.maker import V4, QuoteFormat, make_quote
from vmm_stub.quoting.material import QuotingMaterial, material_for, platform_for
from vmm_stub.quoting.pki import LabPki
from vmm_stub.quoting.service import LabQuoting
from vmm_stub.quoting.settings import PlatformSettings
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.report import TdInfo, make_report
from vmm_stub.testing import host_config
from vmm_stub.vmm import factory
from vmm_stub.vmm.vmm import Vmm

PKI = LabPki.from_seed("tests")
REPORT_DATA = bytes(range(64))


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the lab of `PKI`: its material, and a platform that agrees with it."""

    material: QuotingMaterial
    platform: Platform

    def report(self, report_data: bytes = REPORT_DATA, tdinfo: TdInfo | None = None) -> bytes:
        """A TDREPORT that its TDX module made."""
        return make_report(self.platform, tdinfo or TdInfo(xfam=0x618E7), report_data).push()

    def quote(self, shape: QuoteFormat = V4, report: bytes | None = None) -> bytes:
        """A quote over a TDREPORT."""
        return make_quote(self.material, self.platform, self.report() if report is None else report, shape)


def machine(
    settings: PlatformSettings | None = None, others: Sequence[PlatformSettings] = (), **changes: Any
) -> Machine:
    """A machine of those settings, or of the default ones with changes."""
    settings = settings or PlatformSettings(**changes)
    material = material_for(PKI, settings, others)
    return Machine(material, platform_for(material, settings.machine.encode().ljust(32, b"k")[:32]))


def quoting_vmm(own: Machine, quoting: Quoting | None = None) -> Vmm:
    """A VMM on that machine with its lab quotes, or another service."""
    service = quoting or LabQuoting(own.material, lambda: own.platform)
    return factory.make_vmm(host_config(), machine=factory.Machine(own.platform, service))

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated TDX module of one host: its TDs, and who may reach whom.

What a host asks of it (SEAMCALL on hardware) are methods here; what a guest asks (TDCALL) goes through calls.py. All
is synchronous and free of IO, and is meant for one event loop: it takes no lock.
"""

from __future__ import annotations

import itertools
import struct
from typing import Final

from migtd.guest.abi import Field
from migtd.guest.interfaces import TargetTd, Uuid
from migtd.migration.data import VersionRange
from vmm_stub import failures
from vmm_stub.tdx_module.errors import (
    Operand,
    OperandInvalid,
    ServiceTdExists,
    ServiceTdUnknown,
    TargetTdExists,
    TargetTdUnknown,
)
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.randomness import RandomSource, draw
from vmm_stub.tdx_module.report import REPORT_CPUSVN, REPORT_TEE_TCB_SVN, TDINFO_SIZE, TdInfo
from vmm_stub.tdx_module.service_td import ServiceTd, ServiceTdParams
from vmm_stub.tdx_module.tdcs import Measured, Tdcs

KEY_SIZE: Final = 32
"""MIG_ENC_KEY and MIG_DEC_KEY, in bytes."""
_UUID: Final = struct.Struct("<4Q")
_HANDLE: Final = struct.Struct("<Q")


class TdxModule:
    """The TDX module of one emulated host.

    `versions` is the range of migration versions that it exports and imports. As on hardware it is one for all target
    TDs of the host: TDG.SYS.RD has no target. `fixed_report`, 1024 bytes, is what every TDG.MR.REPORT answers where
    quotes come from elsewhere (policy.md 6.4): its REPORTDATA is not the one asked for, and no MAC of ours is on it.
    """

    def __init__(
        self, platform: Platform, versions: VersionRange, random: RandomSource, *, fixed_report: bytes | None = None
    ) -> None:
        self.platform = platform
        self.fixed_report = fixed_report
        self.versions = versions
        self._random = random
        self._instances = itertools.count(1)
        self._service_tds: dict[str, ServiceTd] = {}
        self._targets: dict[TargetTd, Tdcs] = {}

    def create_service_td(self, name: str, params: ServiceTdParams) -> ServiceTd:
        """Start a TD with fresh RTMRs. Raises ServiceTdExists if one of that name runs; ValueError on bad `params`."""
        if name in self._service_tds:
            raise ServiceTdExists(failures.SERVICE_TD_EXISTS, name)
        service_td = ServiceTd(name, params, next(self._instances))
        self._service_tds[name] = service_td
        return service_td

    def service_td(self, name: str) -> ServiceTd:
        """The running service TD of that name. Raises ServiceTdUnknown."""
        try:
            return self._service_tds[name]
        except KeyError:
            raise ServiceTdUnknown(failures.SERVICE_TD_UNKNOWN, name) from None

    def service_tds(self) -> list[ServiceTd]:
        """All running service TDs, oldest first."""
        return list(self._service_tds.values())

    def remove_service_td(self, name: str) -> None:
        """End a TD. Its target TDs stay: the next service TD of that name serves them. Raises ServiceTdUnknown."""
        del self._service_tds[self.service_td(name).name]

    def create_target(
        self,
        service_td: str,
        *,
        uuid: Uuid | None = None,
        binding_handle: int | None = None,
        servtd_attr: int = 0,
    ) -> Tdcs:
        """Create a target TD for the MigTD of that name, with a MIG_ENC_KEY of its own.

        The MigTD need not run yet (pre-binding). UUID and binding handle (u64) are random unless given. Raises
        TargetTdExists if there is one with both.
        """
        target = TargetTd(
            _HANDLE.unpack(draw(self._random, _HANDLE.size))[0] if binding_handle is None else binding_handle,
            self._random_uuid() if uuid is None else uuid,
        )
        if target in self._targets:
            raise TargetTdExists(failures.TARGET_TD_EXISTS, _describe(target))
        tdcs = Tdcs(target, service_td, servtd_attr, draw(self._random, KEY_SIZE))
        self._targets[target] = tdcs
        return tdcs

    def restore_target(self, tdcs: Tdcs) -> None:
        """Take over a target TD that another TDX module of the same platform kept. Raises TargetTdExists."""
        if tdcs.target in self._targets:
            raise TargetTdExists(failures.TARGET_TD_EXISTS, _describe(tdcs.target))
        self._targets[tdcs.target] = tdcs

    def target(self, target: TargetTd) -> Tdcs:
        """The target TD with that binding handle and UUID. Raises TargetTdUnknown."""
        try:
            return self._targets[target]
        except KeyError:
            raise TargetTdUnknown(failures.TARGET_TD_UNKNOWN, _describe(target)) from None

    def targets(self, service_td: str | None = None) -> list[Tdcs]:
        """All target TDs, or those of one MigTD, oldest first."""
        return [each for each in self._targets.values() if service_td in (None, each.service_td)]

    def remove_target(self, target: TargetTd) -> None:
        """Forget a target TD and its keys. Raises TargetTdUnknown."""
        del self._targets[self.target(target).target]

    def bound_target(self, service_td: ServiceTd, target: TargetTd) -> Tdcs:
        """The target TD that a running service TD names, bound to it.

        A target TD may be older than the run of its MigTD, and a MigTD measures itself after it started: so the
        binding is made when the service TD first reaches for the target, with the RTMRs as they are then. On hardware
        the VMM makes it in between, and a restarted MigTD with other measurements would need rebinding; here it is
        bound anew, and only the initial binding stays what it was.

        Raises OperandInvalid: RCX if no target TD of this MigTD has the handle, R10 if one has but the UUID differs.
        What other service TDs are bound to makes no difference to the answer.
        """
        tdcs = self._targets.get(target)
        if tdcs is None or tdcs.service_td != service_td.name:
            handles = {each.target.binding_handle for each in self.targets(service_td.name)}
            raise OperandInvalid(Operand.R10 if target.binding_handle in handles else Operand.RCX)
        if tdcs.binding is None or tdcs.binding.instance != service_td.instance:
            tdcs.bind(self.measured(service_td))
        return tdcs

    def measured(self, service_td: ServiceTd) -> Measured:
        """What a TDREPORT of this service TD says now: where all reports are one fixed one, what that says."""
        if self.fixed_report is None:
            platform = self.platform
            return Measured(service_td.instance, service_td.tdinfo(), platform.cpusvn, platform.tee_tcb_svn)
        report = self.fixed_report
        tdinfo = TdInfo.pull(report[-TDINFO_SIZE:])
        return Measured(service_td.instance, tdinfo, report[REPORT_CPUSVN], report[REPORT_TEE_TCB_SVN])

    def finalize_rebinding(self, target: TargetTd, service_td: str) -> Tdcs:
        """Bind a target TD to the MigTD of that name, which prepared it together with the MigTD bound until now.

        The token that it accepted (REBIND_ACCEPT_TOKEN) must be the one that the other approved, and the SERVTD_EXT
        that it accepted this target TD's. Raises TargetTdUnknown, ServiceTdUnknown or RebindRefused
        (VMM-REBIND-REFUSED: nothing changed; TdxModuleError to those who count in results).
        """
        tdcs, new = self.target(target), self.service_td(service_td)
        tdcs.rebind(new, self.measured(new))
        return tdcs

    def read_global(self, field: int) -> int:
        """TDG.SYS.RD: a global-scope field. Raises OperandInvalid (RDX) if there is no such field."""
        values: dict[int, int] = {
            Field.MIN_EXPORT_VERSION: self.versions.minimum,
            Field.MAX_EXPORT_VERSION: self.versions.maximum,
            Field.MIN_IMPORT_VERSION: self.versions.minimum,
            Field.MAX_IMPORT_VERSION: self.versions.maximum,
        }
        found = values.get(field)
        if found is None:
            raise OperandInvalid(Operand.RDX)
        return found

    def _random_uuid(self) -> Uuid:
        first, second, third, fourth = _UUID.unpack(draw(self._random, _UUID.size))
        return first, second, third, fourth


def _describe(target: TargetTd) -> str:
    words = " ".join(f"{word:#x}" for word in target.uuid)
    return f"binding handle {target.binding_handle:#x}, UUID {words}"

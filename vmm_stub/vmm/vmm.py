# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated VMM: TDX module, MigTDs, target TDs, migrations of one host. It opens no socket but the wire's.

Used by the host with its channels and control API (host.py), and in-process by the stand-alone mode and tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from pydantic_core import to_json

from migtd import __version__
from migtd.errors import LabFailure
from migtd.guest.ghci import NO_REQUEST
from migtd.guest.interfaces import TargetTd
from migtd.migration.logging import LogEntry
from vmm_stub import failures
from vmm_stub.quoting.interface import Quoting
from vmm_stub.tdx_module.errors import RebindRefused, ServiceTdUnknown, TargetTdExists, TargetTdUnknown
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.tdcs import TdcsState
from vmm_stub.vmm.address import parse_address
from vmm_stub.vmm.control.models import (
    Health,
    MigrationRequest,
    MigTdConfig,
    MigTdState,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    SessionOperation,
    TargetTdModel,
    TargetTdRequest,
    VersionRangeModel,
)
from vmm_stub.vmm.errors import Conflict, Invalid, MigTdLost, NotKnown
from vmm_stub.vmm.history import History, HistoryKind, MigTdHistory
from vmm_stub.vmm.managed_migtd import ManagedMigTd
from vmm_stub.vmm.migration import HostMigration, MigrationSettings
from vmm_stub.vmm.side_record import finalize_outcome
from vmm_stub.vmm.tail import Tail

LOG_BYTES: Final = 4 << 20
LOG_LINES: Final = 20_000
FINALIZE: Final = "rebind-finalize"
"""Operation of the history event that tells of a finalized rebinding: it is no request of any MigTD."""


class Vmm:
    """One emulated host without its sockets. Everything runs in one event loop."""

    def __init__(
        self,
        name: str,
        migtds: Sequence[MigTdConfig],
        *,
        tdx_module: TdxModule,
        settings: MigrationSettings,
        history: History,
        quoting: Quoting | None = None,
    ) -> None:
        self.name = name
        self.tdx_module = tdx_module
        self.history = history
        self.quoting = quoting
        """The quoting service of all its TDs; without one, every GetQuote ends in the error status."""
        self.logs = Tail(max_bytes=LOG_BYTES, max_lines=LOG_LINES)
        """Entries of all log areas, one JSON object a line."""
        self._settings = settings
        self._changed = asyncio.Event()
        self._migtds = {
            config.name: ManagedMigTd(
                config,
                tdx_module=tdx_module,
                history=MigTdHistory(history, config.name),
                on_log=self._keep_log,
                on_changed=self._changed.set,
                quoting=lambda: self.quoting,
            )
            for config in migtds
        }

    # --- MigTDs ---

    @property
    def migtds(self) -> list[ManagedMigTd]:
        """All MigTDs of the host."""
        return list(self._migtds.values())

    def migtd(self, name: str) -> ManagedMigTd:
        """The MigTD of that name. Raises NotKnown (VMM-MIGTD-UNKNOWN)."""
        try:
            return self._migtds[name]
        except KeyError:
            raise NotKnown(failures.MIGTD_UNKNOWN, name) from None

    def health(self) -> Health:
        """`ready` when every MigTD waits for requests, `degraded` when one was lost, else `starting`."""
        states = {migtd.state for migtd in self.migtds}
        status = "degraded" if MigTdState.LOST in states else "ready" if states == {MigTdState.READY} else "starting"
        return Health.model_validate(
            {
                "host": self.name,
                "status": status,
                "version": __version__,
                "migtds": [migtd.model() for migtd in self.migtds],
            }
        )

    async def ready(self, seconds: float) -> Health:
        """Health once it is `ready`, or as it is after that time."""
        try:
            async with asyncio.timeout(seconds):
                while self.health().status != "ready":
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass  # whoever asked learns from the answer how far it is
        return self.health()

    # --- target TDs ---

    def create_target_td(self, request: TargetTdRequest) -> TargetTdModel:
        """Create a target TD and bind a MigTD to it.

        Raises NotKnown (VMM-MIGTD-UNKNOWN) or Conflict (VMM-TARGET-TD-EXISTS).
        """
        migtd = self.migtd(request.migtd)
        try:
            tdcs = self.tdx_module.create_target(
                migtd.name,
                uuid=request.uuid,
                binding_handle=request.binding_handle,
                servtd_attr=request.servtd_attr,
            )
        except TargetTdExists as error:
            raise Conflict(error.kind, error.detail) from error
        return self._describe(tdcs.state())

    def target_tds(self) -> list[TargetTdModel]:
        """All target TDs, oldest first."""
        return [self._describe(tdcs.state()) for tdcs in self.tdx_module.targets()]

    # --- migrations ---

    async def start_migration(self, request: MigrationRequest) -> HostMigration:
        """Start one side of a migration, or of the preparation of a rebinding.

        Returns once a destination listens; what fails later is in its outcome.

        The target TD need not exist: the MigTD will find out. Raises NotKnown (VMM-MIGTD-UNKNOWN), Invalid
        (VMM-API-INVALID) or Conflict (VMM-MIGTD-ABSENT, VMM-MIGRATION-EXISTS).
        """
        migtd = self.migtd(request.migtd)
        if request.peer is not None:
            try:
                parse_address(request.peer)
            except ValueError as error:
                raise Invalid(failures.API_INVALID, f"peer: {error}") from error
        target = TargetTd(request.binding_handle, request.uuid)
        writes_key = request.operation is SessionOperation.MIGRATION
        td = migtd.ready_for(request.request_id)
        migration = HostMigration(
            request,
            td=td,
            settings=self._settings,
            history=migtd.history,
            look=lambda: self._look(target) if writes_key else None,
            on_ended=self._ended,
        )
        migtd.begin(migration)
        try:
            await migration.start()
        except BaseException:
            migration.lost(MigTdLost(failures.HOST_STOPPED))
            raise
        return migration

    def finalize_rebinding(self, request: RebindFinalizeRequest) -> RebindFinalizeModel:
        """Let the TDX module move the binding of a target TD to the MigTD that prepared it (ghci-ratls.md 6).

        Raises NotKnown (VMM-MIGTD-UNKNOWN) or Conflict (VMM-MIGTD-ABSENT). What the TDX module refuses is the outcome.
        """
        migtd = self.migtd(request.migtd)
        target = TargetTd(request.binding_handle, request.uuid)
        before = self._look(target)
        refusal: LabFailure | None = None
        try:
            self.tdx_module.finalize_rebinding(target, migtd.name)
        except ServiceTdUnknown as error:
            raise Conflict(failures.MIGTD_ABSENT, migtd.name) from error
        except (TargetTdUnknown, RebindRefused) as error:
            refusal = error
        after = self._look(target)
        outcome = finalize_outcome(refusal)
        data = {
            "operation": FINALIZE,
            "result": outcome.result,
            "code": outcome.code,
            "binding_handle": hex(request.binding_handle),
            "uuid": [hex(word) for word in request.uuid],
            "from": before.service_td if before else None,
            "to": after.service_td if after else None,
        }
        migtd.history.record(HistoryKind.RESULT, data)
        return RebindFinalizeModel(
            migtd=after.service_td if after else None,
            uuid=request.uuid,
            binding_handle=request.binding_handle,
            outcome=outcome,
        )

    def migration(self, migtd: str, request_id: int) -> HostMigration:
        """The migration of that MigTD and request id. Raises NotKnown (VMM-MIGTD-UNKNOWN, VMM-MIGRATION-UNKNOWN)."""
        return self.migtd(migtd).migration(request_id)

    def migrations(self) -> list[HostMigration]:
        """All migrations of all MigTDs that are remembered."""
        return [migration for migtd in self.migtds for migration in migtd.migrations()]

    async def stop(self) -> None:
        """End every TD and every migration, and wait until nothing of them is left."""
        for migtd in self.migtds:
            migtd.detach(MigTdLost(failures.HOST_STOPPED))
        for migration in self.migrations():
            await migration.closed()

    def _ended(self, migration: HostMigration) -> None:
        self.migtd(migration.request.migtd).finish(migration)

    def _look(self, target: TargetTd) -> TdcsState | None:
        try:
            return self.tdx_module.target(target).state()
        except TargetTdUnknown:
            return None

    def _describe(self, state: TdcsState) -> TargetTdModel:
        versions = self.tdx_module.versions
        return TargetTdModel(
            migtd=state.service_td,
            uuid=state.target.uuid,
            binding_handle=state.target.binding_handle,
            versions=VersionRangeModel(minimum=versions.minimum, maximum=versions.maximum),
            servtd_attr=state.servtd_attr,
            enc_key_fingerprint=state.enc_key_fingerprint,
            dec_key_fingerprint=state.dec_key_fingerprint,
            mig_version=state.mig_version,
        )

    def _keep_log(self, migtd: str, vcpu: int, entry: LogEntry) -> None:
        line = {
            "time": round(self._settings.clock(), 6),
            "host": self.name,
            "migtd": migtd,
            "vcpu": vcpu,
            "id": entry.id,
            "request_id": None if entry.request_id == NO_REQUEST else entry.request_id,
            "level": entry.level.name.lower(),
            "text": entry.text,
        }
        self.logs.append(to_json(line) + b"\n")

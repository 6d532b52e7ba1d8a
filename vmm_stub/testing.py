# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests of a VMM, and of what talks to one: a VMM without sockets, and a guest whose steps a test writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult
from migtd.guest.abi import MSK_ELEMENTS, Field
from migtd.guest.configuration import FileConfiguration
from migtd.guest.emulated import ChannelObserver, emulated_guest
from migtd.guest.ghci import (
    EnableLogArea,
    GetMigtdData,
    GetTdReport,
    PolicyVersion,
    Request,
    Start,
    StartMigration,
    pull_operation,
    pull_request,
    push_log_area_answer,
)
from migtd.guest.interfaces import TargetTd
from migtd.guest.services import GhciServices
from migtd.migration.logging import LogLevel, MigTdLog
from migtd.migration.rebinding import own_tdinfo
from vmm_stub.vmm.control.models import (
    HostConfig,
    MigrationRequest,
    MigTdConfig,
    Role,
    TargetTdModel,
    TargetTdRequest,
)
from vmm_stub.vmm.factory import make_vmm
from vmm_stub.vmm.in_process import InProcessChannel
from vmm_stub.vmm.vmm import Vmm

MIGTD = "migtd"
SMALL_MEMORY = 16 << 20
FAST = Deadlines(pre_session=2, session=2, read=2, write=2, report=2, connect=2)


def host_config(name: str = "host", **changes: Any) -> HostConfig:
    """Configuration of a host with one MigTD, `MIGTD`, and no paths: only the wire could be opened."""
    migtds = [MigTdConfig(name=MIGTD, channel="", shared_memory=SMALL_MEMORY)]
    return HostConfig(**{"name": name, "migtds": migtds, "control": "", **changes})


def quiet_vmm(name: str = "host", *, history: Path | None = None, **changes: Any) -> Vmm:
    """A VMM for `host_config`."""
    return make_vmm(host_config(name, history=str(history) if history else None, **changes))


def target_td(vmm: Vmm, **changes: Any) -> TargetTdModel:
    """A new target TD, bound to `MIGTD`."""
    return vmm.create_target_td(TargetTdRequest(migtd=MIGTD, **changes))


def migration_request(target: TargetTdModel, request_id: int = 1, peer: str | None = None) -> MigrationRequest:
    """To start a migration of that target TD: to `peer` as the source, else as a destination on any port."""
    return MigrationRequest(
        migtd=target.migtd,
        role=Role.DESTINATION if peer is None else Role.SOURCE,
        request_id=request_id,
        uuid=target.uuid,
        binding_handle=target.binding_handle,
        peer=peer,
    )


class ScriptedGuest:
    """A TD of `MIGTD` in this process and event loop. Making one starts the TD; `channel.close` ends it.

    `services` are the GHCI calls, `observer` sends events to the host, `log` is its log area, on one page.
    """

    def __init__(self, vmm: Vmm, migtd: str = MIGTD, deadlines: Deadlines = FAST) -> None:
        self.channel = InProcessChannel(vmm.migtd(migtd))
        self.guest = emulated_guest(self.channel, FileConfiguration())
        self.services = GhciServices(self.guest, deadlines)
        self.observer = ChannelObserver(self.channel)
        self.log = MigTdLog(self.guest.memory, vmm.migtd(migtd).config.vcpus, ceiling=LogLevel.TRACE)

    async def next_request(self) -> Request:
        """The next request of the host; those of policy v2 are understood too."""
        status, payload = await self.services.wait_for_request()
        return pull_request(pull_operation(status), payload, PolicyVersion.V2)

    async def answer(self, request: EnableLogArea | GetTdReport | GetMigtdData) -> None:
        """Serve one of the requests that go with a migration, as a MigTD does."""
        if isinstance(request, EnableLogArea):
            data = push_log_area_answer(self.log.enable(request.max_level))
        elif isinstance(request, GetMigtdData):
            data = own_tdinfo(self.guest.tdcall)
        else:
            data = self.guest.tdcall.mr_report(bytes(64))
        await self.services.report_status(request.request_id, MigrationResult.Success, data)

    async def start_migration(self) -> StartMigration:
        """Serve requests up to the next StartMigration, and return that."""
        request = await self.start()
        assert isinstance(request, StartMigration)  # noqa: S101 - a test's own mistake
        return request

    async def start(self) -> Start:
        """Serve requests up to the next StartMigration or StartRebinding, and return that."""
        while not isinstance(request := await self.next_request(), Start):
            await self.answer(request)
        return request

    async def report(self, request_id: int, result: MigrationResult = MigrationResult.Success) -> None:
        """Report the end of a request without data."""
        await self.services.report_status(request_id, result)

    def write_key(self, target: TargetTd, key: tuple[int, ...] = (1, 2, 3, 4), version: int = 1) -> None:
        """Write MIG_DEC_KEY and MIG_VERSION of a target TD."""
        assert len(key) == MSK_ELEMENTS  # noqa: S101 - a test's own mistake
        for index, element in enumerate(key):
            self.guest.tdcall.servtd_wr(target, Field.MIG_DEC_KEY + index, element)
        self.guest.tdcall.servtd_wr(target, Field.MIG_VERSION, version)

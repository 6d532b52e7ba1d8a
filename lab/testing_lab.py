# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: a lab without engine. Its hosts and MigTDs are tasks of this process, and meet over TCP on the loopback.

Everything else is what an engine would start: the plan's configurations, the real MigTD, the migrations' own runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Final

from lab.migrations import MigrationRunner
from lab.outcome import Outcome
from lab.plan import ResolvedLab
from migtd.choices import attestation_choice, session_factory
from migtd.guest.configuration import FileConfiguration, GivenConfiguration
from migtd.guest.emulated import ChannelObserver, emulated_guest
from migtd.guest.interfaces import ConfigurationVolume as Volume
from migtd.td import serve
from vmm_stub.vmm.control.models import (
    ConfigurationVolume,
    MigrationModel,
    MigrationRequest,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    TargetTdModel,
    TargetTdRequest,
)
from vmm_stub.vmm.factory import make_vmm
from vmm_stub.vmm.in_process import InProcessChannel
from vmm_stub.vmm.vmm import Vmm

ENGINE: Final = "in-process"
READY_LIMIT: Final = 30.0
"""Seconds that hosts have to become ready."""


class VmmHost:
    """A VMM of this process as lab.migrations.HostApi."""

    def __init__(self, vmm: Vmm) -> None:
        self._vmm = vmm

    async def target_tds(self) -> list[TargetTdModel]:
        """All target TDs."""
        return self._vmm.target_tds()

    async def create_target_td(self, request: TargetTdRequest) -> TargetTdModel:
        """Create one."""
        return self._vmm.create_target_td(request)

    async def migrations(self) -> list[MigrationModel]:
        """All migrations that the host remembers."""
        return [each.model() for each in self._vmm.migrations()]

    async def start_migration(self, request: MigrationRequest) -> MigrationModel:
        """Start one side."""
        return (await self._vmm.start_migration(request)).model()

    async def outcome(self, migtd: str, request_id: int, timeout: float) -> MigrationModel:  # noqa: ASYNC109 - the API's
        """The migration once it ended, or as it is after that time."""
        migration = self._vmm.migration(migtd, request_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await migration.ended.wait()
        return migration.model()

    async def finalize_rebinding(self, request: RebindFinalizeRequest) -> RebindFinalizeModel:
        """Move a binding."""
        return self._vmm.finalize_rebinding(request)

    async def cancel(self, migtd: str, request_id: int) -> None:
        """Cancel one side."""
        self._vmm.migration(migtd, request_id).cancel()


@contextlib.asynccontextmanager
async def lab_in_process(resolved: ResolvedLab) -> AsyncGenerator[dict[str, Vmm], None]:
    """The hosts of a lab by name, with every MigTD ready, for the length of the block."""
    async with contextlib.AsyncExitStack() as running:
        vmms = {}
        for host in resolved.plan().hosts:
            vmm = vmms[host.name] = make_vmm(host.config)
            running.callback(vmm.history.close)
            running.push_async_callback(vmm.stop)
            for migtd, config in zip(host.migtds, host.config.migtds, strict=True):
                volume = _volume(config.configuration or host.config.configuration)
                channel = InProcessChannel(vmm.migtd(migtd.name))
                running.callback(channel.close)
                clock = time.time if migtd.refuse_expired else None
                attestation = attestation_choice(migtd.attestation, clock, migtd.quote_form)
                serving = serve(
                    emulated_guest(channel, volume),
                    attestation,
                    session_factory(migtd.session),
                    migtd.deadlines,
                    ChannelObserver(channel),
                )
                task = asyncio.create_task(serving, name=f"{host.name}/{migtd.name}")
                running.push_async_callback(_ended, task)
        for name, vmm in vmms.items():
            health = await vmm.ready(READY_LIMIT)
            if health.status != "ready":
                raise AssertionError(f"{name}: {health}")
        yield vmms


async def outcomes_in_process(resolved: ResolvedLab) -> list[Outcome]:
    """Run all migrations and rebindings of a lab; outcomes in the order of the lab file."""
    async with lab_in_process(resolved) as vmms:
        hosts = {name: VmmHost(vmm) for name, vmm in vmms.items()}
        runner = MigrationRunner(resolved, ENGINE, hosts, monotonic=time.monotonic, say=lambda _: None)
        jobs = (*resolved.jobs(), *resolved.rebindings())
        ended = [pair async for pair in runner.run(jobs)]
        return [outcome for _, outcome in sorted(ended, key=lambda pair: jobs.index(pair[0]))]


def _volume(files: ConfigurationVolume | None) -> Volume:
    if files is None:
        return FileConfiguration()
    return GivenConfiguration(files.policy, files.root_ca, files.policy_issuer_chain)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

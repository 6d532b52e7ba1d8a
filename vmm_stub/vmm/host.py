# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One emulated host as a process: VMM, channels of its MigTDs, control API; from its configuration to its clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from migtd.deadlines import Deadlines
from migtd.migration.data import VersionRange
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.vmm.channel_server import ChannelServer
from vmm_stub.vmm.control.models import HostConfig
from vmm_stub.vmm.control.server import ControlServer
from vmm_stub.vmm.history import History
from vmm_stub.vmm.migration import MigrationSettings
from vmm_stub.vmm.vmm import Vmm

_log: Final = structlog.get_logger()


def make_vmm(
    config: HostConfig,
    *,
    random: Callable[[int], bytes] = os.urandom,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Vmm:
    """The VMM of a host with a TDX module on a platform of its own. Raises HistoryFileError."""
    versions = VersionRange(config.versions.minimum, config.versions.maximum)
    settings = MigrationSettings(
        wire_address=config.wire_address,
        wire_name=config.wire_name,
        deadlines=Deadlines(**config.deadlines.model_dump()),
        log_level=config.log_level,
        clock=clock,
        monotonic=monotonic,
    )
    return Vmm(
        config.name,
        config.migtds,
        tdx_module=TdxModule(Platform.generate(random), versions, random),
        settings=settings,
        history=History(config.name, clock, Path(config.history) if config.history else None),
    )


class Host:
    """A VMM with its sockets. `start` and `stop` belong to one event loop; `run` does both, until a signal."""

    def __init__(self, config: HostConfig) -> None:
        self.config = config
        self.vmm = make_vmm(config)
        self._channels = [ChannelServer(migtd) for migtd in self.vmm.migtds]
        self._control = ControlServer(self.vmm, Path(config.control), config.control_tcp)

    async def start(self) -> None:
        """Listen for the MigTDs and for the control API. Raises AddressInvalid; then nothing is left behind."""
        try:
            for channel in self._channels:
                channel.start()
            await self._control.start()
        except BaseException:
            await self.stop()
            raise
        _log.info("the host is up", host=self.config.name, control=self.config.control)

    async def stop(self) -> None:
        """End everything and remove the sockets. Migrations under way end with result Unknown."""
        for channel in self._channels:
            channel.stop()
        await self.vmm.stop()
        await self._control.stop()
        self.vmm.history.close()
        _log.info("the host is down", host=self.config.name)

    async def run(self) -> None:
        """Start, wait for SIGTERM or SIGINT, stop."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await self.start()
        try:
            await stopped.wait()
        finally:
            await self.stop()

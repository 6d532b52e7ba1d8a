# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One emulated host as a process: VMM, channels of its MigTDs, control API; from its configuration to its clean end."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

import structlog

from vmm_stub.vmm.channel_server import ChannelServer
from vmm_stub.vmm.control.models import HostConfig
from vmm_stub.vmm.control.server import ControlServer
from vmm_stub.vmm.factory import make_vmm

_log: Final = structlog.get_logger()


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

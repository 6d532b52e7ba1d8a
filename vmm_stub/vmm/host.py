# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One emulated host as a process: VMM, channels, control API, collateral; from its configuration to its clean end."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from vmm_stub import failures
from vmm_stub.vmm.address import parse_address
from vmm_stub.vmm.channel_server import ChannelServer
from vmm_stub.vmm.control.models import HostConfig, LabQuotingConfig
from vmm_stub.vmm.control.server import ControlServer
from vmm_stub.vmm.factory import make_vmm

if TYPE_CHECKING:
    from vmm_stub.quoting.pcs import PcsServer

_log: Final = structlog.get_logger()


class Host:
    """A VMM with its sockets. `start` and `stop` belong to one event loop; `run` does both, until a signal."""

    def __init__(self, config: HostConfig) -> None:
        self.config = config
        self.vmm = make_vmm(config)
        self._channels = [ChannelServer(migtd, config.configuration) for migtd in self.vmm.migtds]
        self._pcs = _collateral_service(config)
        self._control = ControlServer(self.vmm, Path(config.control), config.control_tcp)

    async def start(self) -> None:
        """Listen for the MigTDs, for those who fetch collateral, and for the control API.

        Raises AddressInvalid and QuotingError (VMM-PCS-ADDRESS); then nothing is left behind.
        """
        try:
            for channel in self._channels:
                channel.start()
            if self._pcs is not None:
                await self._pcs.start()
                _log.info("the collateral is served", host=self.config.name, url=self._pcs.url)
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
        if self._pcs is not None:
            await self._pcs.stop()
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


def _collateral_service(config: HostConfig) -> PcsServer | None:
    """The HTTP service that the configuration asks for. Raises QuotingError (VMM-PCS-ADDRESS, VMM-QUOTING-MATERIAL)."""
    if config.pcs is None or not isinstance(config.quoting, LabQuotingConfig):
        return None
    # Loaded by the hosts that serve it only.
    from vmm_stub.quoting.errors import QuotingError  # noqa: PLC0415
    from vmm_stub.quoting.material import pull_material  # noqa: PLC0415
    from vmm_stub.quoting.pcs import PcsServer  # noqa: PLC0415

    try:
        address, port = parse_address(config.pcs)
    except ValueError as error:
        raise QuotingError(failures.PCS_ADDRESS, str(error)) from error
    return PcsServer(pull_material(config.quoting.material), address, port)

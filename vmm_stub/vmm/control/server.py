# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The control API's sockets: a unix socket of the host's user, and a loopback port when asked for."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from pathlib import Path
from typing import Final

import structlog

from vmm_stub import failures
from vmm_stub.vmm.address import parse_address
from vmm_stub.vmm.control.connection import ControlConnection
from vmm_stub.vmm.errors import AddressInvalid
from vmm_stub.vmm.unix_socket import bind_private
from vmm_stub.vmm.vmm import Vmm

MAX_CONNECTIONS: Final = 128
"""Clients at a time; more are dropped."""
FLUSH_TIMEOUT: Final = 30.0
"""Seconds that a client has to take the last answer on a connection that the host ends."""
_LOOPBACK_NAMES: Final = {"localhost"}
_log: Final = structlog.get_logger()


class ControlServer:
    """Serves the control API on `path` (mode 0600) and, with `tcp` (`host:port`), on the loopback."""

    def __init__(self, vmm: Vmm, path: Path, tcp: str | None = None) -> None:
        self._vmm = vmm
        self._path = path
        self._tcp = tcp
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. A socket left over from another run is removed. Raises AddressInvalid (VMM-CONTROL-ADDRESS)."""
        try:
            bound = bind_private(self._path, socket.SOCK_STREAM)
            self._servers.append(await asyncio.start_unix_server(self._connected, sock=bound))
            if self._tcp is not None:
                host, port = _loopback(self._tcp)
                self._servers.append(await asyncio.start_server(self._connected, host, port))
        except (OSError, ValueError) as error:
            where = self._tcp if self._servers else self._path
            await self.stop()
            raise AddressInvalid(failures.CONTROL_ADDRESS, f"{where}: {error}") from error

    async def stop(self) -> None:
        """Stop listening, drop all clients, remove the socket."""
        for server in self._servers:
            server.close()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients)
        # One turn of the event loop, in which the transports let go of their sockets.
        await asyncio.sleep(0)
        if self._servers:
            self._path.unlink(missing_ok=True)
        self._servers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._clients.add(task)
        try:
            await ControlConnection(self._vmm, reader, writer).serve()
            await _close(writer)
        except ConnectionError as error:
            _log.debug("a control client went away", detail=str(error))
        except asyncio.CancelledError:
            pass  # by `stop`, which is all that cancels this task: asyncio would report it as an error
        finally:
            writer.transport.abort()
            self._clients.discard(task)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Send what is buffered, for as long as a client may take for that, and end the connection."""
    writer.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_TIMEOUT):
            await writer.wait_closed()


def _loopback(text: str) -> tuple[str, int]:
    """Host and port of a loopback address. Raises ValueError on any other: the API has no users and no passwords."""
    host, port = parse_address(text)
    if host not in _LOOPBACK_NAMES and not ipaddress.ip_address(host).is_loopback:
        raise ValueError("the control API listens on loopback addresses only")
    return host, port

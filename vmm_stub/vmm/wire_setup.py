# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How two hosts find each other for one migration: the destination listens, the source tries (ghci-ratls.md 4)."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from vmm_stub import failures
from vmm_stub.vmm.address import format_address
from vmm_stub.vmm.link import Link
from vmm_stub.vmm.wire import WireError

_FIRST_RETRY: Final = 0.01
_LAST_RETRY: Final = 0.25


class Listener:
    """A port that takes one connection, then is closed."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.port: int = listening.getsockname()[1]

    async def accept(self, make_link: Callable[[], Link], deadline: float) -> Link:
        """The one connection. Raises WireError (VMM-WIRE-CONNECT) if none came within `deadline` seconds."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline):
                connection, _ = await loop.sock_accept(self._socket)
        except TimeoutError:
            raise WireError(
                failures.WIRE_CONNECT, f"nobody connected to port {self.port} within {deadline:g} s"
            ) from None
        finally:
            self.close()
        return await _wrap(connection, make_link)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


async def listen(address: str, port: int) -> Listener:
    """Listen on `address` (empty: all of them) and `port` (0: any free one).

    Raises WireError (VMM-WIRE-PORT-IN-USE, VMM-WIRE-LISTEN).
    """
    where = format_address(address, port)
    try:
        family, socket_address = (await _resolve(address, port, socket.AI_PASSIVE))[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise WireError(failures.WIRE_LISTEN, f"{where}: {error.strerror}") from error
    try:
        listening.settimeout(0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(socket_address)
        listening.listen(1)
    except OSError as error:
        listening.close()
        kind = failures.WIRE_PORT_IN_USE if error.errno == errno.EADDRINUSE else failures.WIRE_LISTEN
        raise WireError(kind, f"{where}: {error.strerror}") from error
    return Listener(listening)


async def connect(address: tuple[str, int], make_link: Callable[[], Link], deadline: float) -> Link:
    """Connect, trying again while that fails. Raises WireError (VMM-WIRE-CONNECT) after `deadline` seconds."""
    reason = "no answer"
    delay = _FIRST_RETRY
    try:
        async with asyncio.timeout(deadline):
            while True:
                try:
                    connection = await _connect_once(address)
                    break
                except OSError as error:
                    reason = error.strerror or str(error)
                # Nothing announces that the other host has begun to listen.
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)
    except TimeoutError:
        where = format_address(*address)
        raise WireError(failures.WIRE_CONNECT, f"{where} not reached within {deadline:g} s: {reason}") from None
    return await _wrap(connection, make_link)


async def _resolve(host: str, port: int, flags: int = 0) -> list[tuple[socket.AddressFamily, Any]]:
    """Families and socket addresses of a name; a number needs no resolver, whose thread costs more than to connect.

    Raises OSError, also for what can be no name at all.
    """
    kind, wanted = socket.SOCK_STREAM, host or None
    try:
        try:
            found = socket.getaddrinfo(wanted, port, type=kind, flags=flags | socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await asyncio.get_running_loop().getaddrinfo(wanted, port, type=kind, flags=flags)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"no name of a host: {error}") from error
    return [(family, socket_address) for family, _, _, _, socket_address in found]


async def _wrap(connection: socket.socket, make_link: Callable[[], Link]) -> Link:
    try:
        _, link = await asyncio.get_running_loop().create_connection(make_link, sock=connection)
    except BaseException:
        connection.close()
        raise
    return link


async def _connect_once(address: tuple[str, int]) -> socket.socket:
    loop = asyncio.get_running_loop()
    host, port = address
    failure = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    for family, socket_address in await _resolve(host, port):
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(0)
        try:
            await loop.sock_connect(connection, socket_address)
            if connection.getsockname() != connection.getpeername():
                return connection
            # On the loopback a free port can be reached from itself, when the kernel picks it as the local one.
            failure = OSError(errno.ECONNREFUSED, "nobody listens there")
        except OSError as error:
            failure = error
        except BaseException:
            connection.close()
            raise
        connection.close()
    raise failure

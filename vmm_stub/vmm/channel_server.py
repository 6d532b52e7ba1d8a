# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The host's end of one MigTD's vmcall channel: a listening SOCK_SEQPACKET socket, a shared memory file (channel.py).

One TD at a time; whoever connects meanwhile waits. Each connection is a new TD with a shared memory file of its own,
which is there before the connection is accepted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Final

import structlog

from migtd.guest.channel import (
    POLICY_ISSUER_CHAIN_NAME,
    POLICY_NAME,
    ROOT_CA_NAME,
    SHARED_MEMORY_NAME,
    SOCKET_NAME,
)
from vmm_stub import failures
from vmm_stub.vmm.channel_connection import TdConnection
from vmm_stub.vmm.control.models import ConfigurationVolume
from vmm_stub.vmm.errors import AddressInvalid, MigTdLost
from vmm_stub.vmm.managed_migtd import ManagedMigTd
from vmm_stub.vmm.memory_file import MemoryFile
from vmm_stub.vmm.unix_socket import bind_private

_BACKLOG: Final = 8

_log: Final = structlog.get_logger()


class ChannelServer:
    """Serves the channel of one MigTD in the folder that its configuration names, from `start` to `stop`.

    `configuration` is the host's configuration volume, for a MigTD that has none of its own.
    """

    def __init__(self, migtd: ManagedMigTd, configuration: ConfigurationVolume | None = None) -> None:
        self._migtd = migtd
        self._configuration = migtd.config.configuration or configuration
        self._directory = Path(migtd.config.channel)
        self._listening: socket.socket | None = None
        self._memory: MemoryFile | None = None
        self._connection: TdConnection | None = None
        self._made: list[Path] = []

    def start(self) -> None:
        """Make the folder, the shared memory, the configuration volume's files and the socket (each mode 0600).

        Needs a running event loop.

        A socket left over from another run is removed. Raises AddressInvalid (VMM-CHANNEL-ADDRESS).
        """
        path = self._directory / SOCKET_NAME
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._memory = self._make_memory()
            self._write_configuration()
            listening = bind_private(path, socket.SOCK_SEQPACKET)
            self._made.append(path)
            listening.listen(_BACKLOG)
        except OSError as error:
            raise AddressInvalid(failures.CHANNEL_ADDRESS, f"{path}: {error.strerror or error}") from error
        self._listening = listening
        self._accept_next()

    def stop(self) -> None:
        """End the TD and remove what was made here, and nothing else."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
        if self._connection is not None:
            self._connection.end(MigTdLost(failures.HOST_STOPPED))
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        for path in self._made:
            self._remove(path)
        self._made.clear()

    def _make_memory(self) -> MemoryFile:
        """A new file for each TD: what an earlier one still has mapped is another file."""
        path = self._directory / SHARED_MEMORY_NAME
        path.unlink(missing_ok=True)
        memory = MemoryFile(path, self._migtd.config.shared_memory)
        if path not in self._made:
            self._made.append(path)
        return memory

    def _write_configuration(self) -> None:
        volume = self._configuration
        if volume is None:
            return
        files = {
            POLICY_NAME: volume.policy,
            ROOT_CA_NAME: volume.root_ca,
            POLICY_ISSUER_CHAIN_NAME: volume.policy_issuer_chain,
        }
        for name, content in files.items():
            if content is None:
                continue
            path = self._directory / name
            # What another run left there, or the guest put there, is not written through.
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
            self._made.append(path)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            # The folder is the guest's too. Whatever it did there must not keep the host from ending.
            _log.warning("a file of a channel stays behind", path=str(path), detail=str(error))

    def _accept_next(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        if self._listening is None:
            return
        try:
            self._memory = self._memory or self._make_memory()
            accepted, _ = self._listening.accept()
        except BlockingIOError:
            return  # whoever wanted to connect has given up
        except OSError as error:
            # Without memory there is no TD. Whoever waits is told so by the end of its connection.
            _log.error("a TD cannot be made", migtd=self._migtd.name, detail=str(error))
            self.stop()
            return
        asyncio.get_running_loop().remove_reader(self._listening)
        memory, self._memory = self._memory, None
        self._connection = TdConnection(self._migtd, accepted, memory, self._ended)

    def _ended(self) -> None:
        self._connection = None
        self._accept_next()

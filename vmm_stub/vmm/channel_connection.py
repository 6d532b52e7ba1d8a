# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One TD on the vmcall channel: its connection and its memory, from accept to end (channel.py)."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from migtd.errors import LabFailure, VmmInternalError
from migtd.guest.channel import MAX_MESSAGE, Kind, Message, Registers, pull_message, push_message
from vmm_stub import failures
from vmm_stub.vmm.errors import MigTdLost
from vmm_stub.vmm.managed_migtd import ManagedMigTd
from vmm_stub.vmm.memory_file import MemoryFile

MAX_OUTGOING: Final = 1024
"""Messages that wait for a guest that does not read; one more, and it is ended."""
READS_PER_TURN: Final = 32
TURN: Final = 0.005
"""Messages taken, and seconds spent on them, in one turn of the event loop: a busy guest must not starve the others."""


class TdConnection:
    """Moves messages between a TD and its `TdVm`. Owns socket and memory; `on_end` is told once both are closed.

    A message that breaks the channel's layout, or a guest that does not read what it is sent, ends the TD
    (VMM-CHANNEL-BROKEN).
    """

    def __init__(
        self, migtd: ManagedMigTd, connection: socket.socket, memory: MemoryFile, on_end: Callable[[], None]
    ) -> None:
        connection.settimeout(0)
        self._migtd = migtd
        self._socket = connection
        self._memory = memory
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[Message] = deque()
        self._waiting_vectors: set[int] = set()
        """Vectors among the outgoing messages: firing one again adds nothing, interrupts carry no data."""
        self._failure: LabFailure | None = None
        self._ended = False
        memory.on_failure = self._memory_failed
        self._td = migtd.attach(memory, self._interrupt, self._end_soon)
        self._loop.add_reader(connection, self._on_readable)

    def end(self, failure: LabFailure) -> None:
        """End the TD. `failure` is what its host says of it, unless it said something itself."""
        if self._ended:
            return
        self._ended = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._migtd.detach(failure)
        self._memory.close()
        self._on_end()

    def _on_readable(self) -> None:
        turn_ends = self._loop.time() + TURN
        for _ in range(READS_PER_TURN):
            if self._ended or self._failure is not None:
                return
            try:
                datagram = self._socket.recv(MAX_MESSAGE + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self.end(MigTdLost(failures.MIGTD_GONE, error.strerror or str(error)))
                return
            if not datagram:
                self.end(MigTdLost(failures.MIGTD_GONE))
                return
            try:
                self._handle(pull_message(datagram))
            except VmmInternalError as error:
                self.end(MigTdLost(failures.CHANNEL_BROKEN, str(error)))
                return
            if self._loop.time() >= turn_ends:
                return

    def _handle(self, message: Message) -> None:
        match message.kind:
            case Kind.CALL:
                registers, data = self._td.handle_call(message.registers, message.data)
                self._send(Message(Kind.RETURN, message.sequence, registers, data))
            case Kind.EVENT:
                self._td.handle_event(message.data)
            case _:
                self._end_soon(MigTdLost(failures.CHANNEL_BROKEN, f"{message.kind.name} from the guest"))

    def _interrupt(self, vector: int) -> None:
        if vector not in self._waiting_vectors:
            self._send(Message(Kind.INTERRUPT, registers=Registers(rax=vector)))

    def _send(self, message: Message) -> None:
        """Send one message, now or when the guest has read enough. Nothing once the TD is about to end."""
        if (not self._outgoing and self._send_now(message)) or self._failure is not None:
            return
        if len(self._outgoing) >= MAX_OUTGOING:
            self._end_soon(MigTdLost(failures.CHANNEL_BROKEN, f"{MAX_OUTGOING} messages were not read"))
            return
        self._outgoing.append(message)
        if message.kind is Kind.INTERRUPT:
            self._waiting_vectors.add(message.registers.rax)
        self._loop.add_writer(self._socket, self._on_writable)

    def _send_now(self, message: Message) -> bool:
        try:
            self._socket.send(push_message(message))
        except BlockingIOError:
            return False
        except OSError as error:
            self._end_soon(MigTdLost(failures.MIGTD_GONE, error.strerror or str(error)))
            return False
        return True

    def _on_writable(self) -> None:
        while self._outgoing and self._send_now(self._outgoing[0]):
            sent = self._outgoing.popleft()
            if sent.kind is Kind.INTERRUPT:
                self._waiting_vectors.discard(sent.registers.rax)
        if not self._outgoing or self._failure is not None:
            self._loop.remove_writer(self._socket)

    def _memory_failed(self, error: OSError) -> None:
        self._end_soon(MigTdLost(failures.CHANNEL_BROKEN, f"shared memory: {error.strerror or error}"))

    def _end_soon(self, failure: LabFailure | None = None) -> None:
        """End the TD behind what goes on now: this may be the middle of its own call."""
        if self._failure is None and not self._ended:
            self._failure = failure or MigTdLost(failures.MIGTD_GONE)
            self._loop.call_soon(self.end, self._failure)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The vmcall channel to a host in another process: a SOCK_SEQPACKET socket and a shared memory file (channel.py).

A call is one send and one receive of a blocking socket; the kernel keeps its time limits. Between calls the event loop
watches the same socket for interrupts. Everything here runs in the thread of that loop.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from migtd import failures
from migtd.deadlines import Deadlines
from migtd.errors import VmmInternalError
from migtd.guest.abi import PAGE_SIZE, TdCallLeaf
from migtd.guest.channel import (
    MAX_DATA,
    MAX_MESSAGE,
    SHARED_MEMORY_NAME,
    SOCKET_NAME,
    Kind,
    Message,
    Registers,
    pull_message,
    push_message,
)

CONNECT_INTERVAL: Final = 0.02
"""Seconds between two attempts while the host does not listen yet."""

_MAX_VECTOR: Final = 0xFF
_READS_PER_TURN: Final = 64
"""Interrupts taken in one turn of the event loop: a host that floods its guest must not starve the guest's tasks."""
_NOT_THERE_YET: Final = {errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN}


def connect_channel(
    directory: Path,
    deadlines: Deadlines,
    *,
    connect_timeout: float | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> SocketChannel:
    """Start the TD whose channel lives in `directory`: connect, then map the shared memory.

    Retries for `connect_timeout` seconds (None: `deadlines.call`) while nobody listens. Blocks: call it before the
    event loop runs. Raises VmmInternalError (MIGTD-CHANNEL-LOST, MIGTD-CHANNEL-MALFORMED).
    """
    patience = deadlines.call if connect_timeout is None else connect_timeout
    connection = _connect(directory / SOCKET_NAME, patience, monotonic, pause)
    channel = SocketChannel(connection, memoryview(b""), deadlines.call, monotonic=monotonic)
    try:
        # A connection stands before the host accepts it. Its first answer says that the host made this TD, and with it
        # the shared memory.
        channel.call(Registers(rax=TdCallLeaf.VP_INFO))
        channel.shared_memory = _map(directory / SHARED_MEMORY_NAME)
    except BaseException:
        channel.close()
        raise
    return channel


class SocketChannel:
    """Implements `migtd.guest.channel.Channel` over a connected SOCK_SEQPACKET socket, which it owns.

    `call_deadline` is in seconds. The first malformed message, time-out or loss ends the channel: every later call
    raises the same failure, and `on_lost` is told once.
    """

    def __init__(
        self,
        connection: socket.socket,
        shared_memory: memoryview,
        call_deadline: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shared_memory = shared_memory
        self._socket = connection
        self._deadline = call_deadline
        self._monotonic = monotonic
        self._sequence = 0
        self._pending: dict[int, None] = {}
        """Vectors that arrived during a call, in order. A vector that fires twice before it is delivered is one."""
        self._failure: VmmInternalError | None = None
        self._listener: _Listener | None = None
        self._events: list[bytes] = []
        """Told, but not sent yet: to wake the host for each of them would cost more than all of them."""
        _limit_blocking(connection, call_deadline)

    def call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        """Leave the TD with these registers and come back with the host's. Blocks, as TDCALL does.

        Raises VmmInternalError: MIGTD-CHANNEL-LOST if the host is gone or did not answer within the deadline,
        MIGTD-CHANNEL-MALFORMED if it broke the channel's layout or answered another call.
        """
        self._sequence = sequence = (self._sequence + 1) & 0xFFFFFFFF
        try:
            self._send_events()
            self._send(Message(Kind.CALL, sequence, registers, data))
            answer = self._receive_return(sequence)
        except VmmInternalError as error:
            self._end(error)
            raise
        if self._pending and self._listener is not None:
            self._listener.loop.call_soon(self._deliver)
        return answer.registers, answer.data

    def event(self, data: bytes) -> None:
        """Send one event before the next call, and at the latest at the end of this turn of the event loop.

        At once while nobody listens yet. Waits only for room in the socket. Raises VmmInternalError
        (MIGTD-CHANNEL-LOST) if the channel is known to be lost.
        """
        self._expect_open()
        if len(data) > MAX_DATA:
            raise ValueError(f"an event of {len(data)} bytes does not fit into one channel message")
        if self._listener is not None and not self._events:
            self._listener.loop.call_soon(self._send_last_events)
        self._events.append(data)
        if self._listener is None:
            self._send_events()

    def listen(self, on_interrupt: Callable[[int], None], on_lost: Callable[[], None]) -> None:
        """Deliver interrupts, those queued before included, from the running event loop; say once if the host is gone.

        Called once. Neither callback is called before this returns.
        """
        loop = asyncio.get_running_loop()
        self._listener = _Listener(loop, on_interrupt, on_lost)
        if self._failure is not None:
            loop.call_soon(on_lost)
            return
        loop.add_reader(self._socket, self._on_readable)
        loop.call_soon(self._deliver)

    def close(self) -> None:
        """End the TD. Later calls raise MIGTD-CHANNEL-LOST; the listener is not told, for it asked for this."""
        self._send_last_events()
        self._stop_reading()
        self._listener = None
        self._failure = self._failure or VmmInternalError(failures.CHANNEL_LOST, "the channel was closed")
        self._socket.close()

    def _send_events(self) -> None:
        """Send what was told of, in as few messages as it takes."""
        events, self._events = self._events, []
        while events:
            count = _fitting(events)
            self._send(Message(Kind.EVENT, data=b"\n".join(events[:count])))
            del events[:count]

    def _send_last_events(self) -> None:
        try:
            self._send_events()
        except VmmInternalError as error:
            self._end(error)

    def _expect_open(self) -> None:
        if self._failure is not None:
            raise VmmInternalError(self._failure.kind, self._failure.detail)

    def _send(self, message: Message) -> None:
        self._expect_open()
        try:
            self._socket.send(push_message(message))
        except BlockingIOError as error:
            raise self._timeout() from error
        except OSError as error:
            raise _lost(error) from error

    def _receive_return(self, sequence: int) -> Message:
        started = self._monotonic()
        while True:
            try:
                message = _pull(self._socket.recv(MAX_MESSAGE + 1))
            except BlockingIOError as error:
                raise self._timeout() from error
            except OSError as error:
                raise _lost(error) from error
            if message.kind is Kind.INTERRUPT:
                self._pending[_vector(message)] = None
                # The kernel limits each receive; a host that only sends interrupts is limited here.
                if self._monotonic() - started > self._deadline:
                    raise self._timeout()
            elif message.kind is not Kind.RETURN:
                raise VmmInternalError(failures.CHANNEL_MALFORMED, f"{message.kind.name} from the host")
            elif message.sequence != sequence:
                raise VmmInternalError(
                    failures.CHANNEL_MALFORMED, f"RETURN of call {message.sequence} instead of {sequence}"
                )
            else:
                return message

    def _on_readable(self) -> None:
        try:
            for _ in range(_READS_PER_TURN):
                message = _pull(self._socket.recv(MAX_MESSAGE + 1, socket.MSG_DONTWAIT))
                if message.kind is not Kind.INTERRUPT:
                    raise VmmInternalError(failures.CHANNEL_MALFORMED, f"{message.kind.name} outside a call")  # noqa: TRY301 - one place ends the channel
                self._pending[_vector(message)] = None
        except BlockingIOError:
            pass  # all was read
        except OSError as error:
            self._end(_lost(error))
        except VmmInternalError as error:
            self._end(error)
        self._deliver()

    def _deliver(self) -> None:
        vectors, self._pending = self._pending, {}
        for vector in vectors:
            if self._listener is not None:
                self._listener.on_interrupt(vector)

    def _end(self, failure: VmmInternalError) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        self._stop_reading()
        if self._listener is not None:
            # Behind what arrived before it, and never inside a call of the guest.
            self._listener.loop.call_soon(self._deliver)
            self._listener.loop.call_soon(self._listener.on_lost)

    def _stop_reading(self) -> None:
        if self._listener is not None and self._socket.fileno() >= 0 and not self._listener.loop.is_closed():
            self._listener.loop.remove_reader(self._socket)

    def _timeout(self) -> VmmInternalError:
        return VmmInternalError(failures.CHANNEL_LOST, f"no answer within {self._deadline:g} s")


class _Listener:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_interrupt: Callable[[int], None], on_lost: Callable[[], None]
    ) -> None:
        self.loop = loop
        self.on_interrupt = on_interrupt
        self.on_lost = on_lost


def _fitting(events: list[bytes]) -> int:
    """How many of these fit into one message, at least one."""
    size = -1
    for count, event in enumerate(events):
        size += 1 + len(event)
        if size > MAX_DATA:
            return count
    return len(events)


def _pull(datagram: bytes) -> Message:
    if not datagram:
        raise VmmInternalError(failures.CHANNEL_LOST, "the host closed the channel")
    return pull_message(datagram)


def _vector(message: Message) -> int:
    if message.sequence or message.data or message.registers.rax > _MAX_VECTOR:
        raise VmmInternalError(failures.CHANNEL_MALFORMED, f"INTERRUPT with vector {message.registers.rax:#x}")
    return message.registers.rax


def _lost(error: OSError) -> VmmInternalError:
    return VmmInternalError(failures.CHANNEL_LOST, error.strerror or str(error))


def _limit_blocking(connection: socket.socket, seconds: float) -> None:
    # The kernel's own limits cost nothing per call; those of Python's socket timeouts cost a poll for each.
    connection.settimeout(None)
    whole = int(seconds)
    # 0 would mean without limit.
    value = struct.pack("@ll", whole, max(int((seconds - whole) * 1_000_000), 0 if whole else 1))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _connect(
    path: Path, deadline: float, monotonic: Callable[[], float], pause: Callable[[float], None]
) -> socket.socket:
    started = monotonic()
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            _limit_blocking(connection, deadline)
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if error.errno not in _NOT_THERE_YET or monotonic() - started >= deadline:
                raise VmmInternalError(failures.CHANNEL_LOST, f"{path}: {error.strerror or error}") from error
            pause(CONNECT_INTERVAL)
        else:
            return connection


def _map(path: Path) -> memoryview:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise VmmInternalError(failures.CHANNEL_LOST, f"{path}: {error.strerror}") from error
    try:
        size = os.fstat(file).st_size
        if size == 0 or size % PAGE_SIZE:
            raise VmmInternalError(failures.CHANNEL_MALFORMED, f"{path}: {size} bytes of shared memory")
        return memoryview(mmap.mmap(file, size))
    except OSError as error:
        raise VmmInternalError(failures.CHANNEL_LOST, f"{path}: {error.strerror}") from error
    finally:
        os.close(file)

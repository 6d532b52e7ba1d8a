# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The wire of one migration: a TCP connection to the other host, over asyncio (ghci-ratls.md 4).

A `Link` moves frames between the connection and the migration's `Delivery`, with bounds on both sides. How the
connection comes about is wire_setup.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Final, Protocol

from vmm_stub import failures
from vmm_stub.vmm.delivery import RECEIVE_BOUND, Delivery
from vmm_stub.vmm.wire import FrameDecoder, WireError, push_frame

SEND_BOUND: Final = 256 << 10
"""Bytes that wait for the kernel, from which on a Send stays pending."""
LINGER: Final = 2.0
"""Seconds that a finished link waits for the peer to end its stream: closing earlier may cost the peer data."""
READ_PER_TURN: Final = 16 << 10
"""Bytes taken in one turn of the event loop: that many frames of a byte each must not hold up other migrations."""


class LinkObserver(Protocol):
    """Told of what crosses the wire. Must not raise."""

    def frame_sent(self, payload: bytes) -> None:
        """A frame was handed to the kernel or to the buffer in front of it."""

    def frame_received(self, payload: bytes) -> None:
        """A frame came."""

    def wire_ended(self, error: WireError | None) -> None:
        """The peer's stream is over: in order, or with the error that ended it. Once."""


class Link(asyncio.BufferedProtocol):
    """One connection. Implements `delivery.Outlet`."""

    def __init__(self, delivery: Delivery, observer: LinkObserver) -> None:
        self._delivery = delivery
        self._observer = observer
        self._decoder = FrameDecoder()
        self._buffer = bytearray(READ_PER_TURN)
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._reading = True
        self._peer_ended = False
        self._finished = False
        self._linger: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()

    # --- Outlet ---

    def send(self, payload: bytes) -> bool:
        """Write one frame. False if the buffer is full now: the delivery is told when it is not."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(push_frame(payload))
            self._observer.frame_sent(payload)
        return self._writable

    def resume_reading(self) -> None:
        """Go on reading after the delivery was full."""
        if self._transport is not None and not self._reading and not self._peer_ended:
            self._reading = True
            self._transport.resume_reading()

    # --- end ---

    def finish(self) -> None:
        """Send what is buffered, then end our stream; read and drop until the peer ended its own, at most LINGER."""
        self._finished = True
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._linger = asyncio.get_running_loop().call_later(LINGER, transport.abort)
        if self._peer_ended:
            transport.close()
        else:
            transport.write_eof()
            self.resume_reading()

    def close(self) -> None:
        """End both streams without waiting for the peer: nobody here will be able to say how it went."""
        self._finished = True
        if self._transport is not None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
            self._transport.close()

    async def closed(self) -> None:
        """Return when nothing of the connection is left. For after `finish` or `close`, which bound it."""
        if self._transport is not None:
            await self._closed.wait()

    # --- asyncio.BufferedProtocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: no delays, and a bound for what is written."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's own promise for stream sockets
        self._transport = transport
        transport.set_write_buffer_limits(high=SEND_BOUND)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._finished:
            transport.abort()
        else:
            self._delivery.open(self)

    def get_buffer(self, _sizehint: int) -> bytearray:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the peer are there."""
        self._take(bytes(memoryview(self._buffer)[:nbytes]))

    def _take(self, data: bytes) -> None:
        if self._finished or self._peer_ended:
            return
        self._decoder.receive_data(data)
        try:
            while (payload := self._decoder.next_frame()) is not None:
                self._observer.frame_received(payload)
                self._delivery.received(payload)
        except WireError as error:
            self._end(error)
            self._drop()
            return
        if self._delivery.full and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer ended its stream; ours stays open until `finish`."""
        if self._finished:
            return False
        try:
            self._decoder.end()
        except WireError as error:
            self._end(error)
        else:
            self._end(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing of the connection is left."""
        if self._linger is not None:
            self._linger.cancel()
        if exc is not None:
            self._take_what_came()
        self._end(WireError(failures.WIRE_LOST, str(exc)) if exc is not None else None)
        # A host remembers many migrations that ended, and with them this object.
        self._buffer, self._decoder = bytearray(), FrameDecoder()
        self._closed.set()

    def pause_writing(self) -> None:
        """The buffer in front of the kernel is full."""
        self._writable = False

    def resume_writing(self) -> None:
        """There is room again."""
        self._writable = True
        self._delivery.writable()

    def _take_what_came(self) -> None:
        """Take from the kernel what came before the connection broke: an alert, where it was a Send that found out."""
        connection = self._transport.get_extra_info("socket") if self._transport is not None else None
        if connection is None:
            return
        with socket.socket(fileno=os.dup(connection.fileno())) as rest, contextlib.suppress(OSError):
            for _ in range(RECEIVE_BOUND // READ_PER_TURN):
                data = rest.recv(READ_PER_TURN, socket.MSG_DONTWAIT)
                if not data:
                    return
                self._take(data)

    def _drop(self) -> None:
        self._finished = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self, error: WireError | None) -> None:
        if not self._peer_ended and not self._finished:
            self._peer_ended = True
            self._observer.wire_ended(error)
            self._delivery.peer_gone()

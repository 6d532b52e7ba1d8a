# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Send and Receive of one request: between the guest's buffers and the wire, sans-IO (ghci-ratls.md 3).

At most one Send and one Receive are pending. The wire takes one frame at a time (`Outlet`), and gets told when the
guest has taken enough of what came. Once the peer is gone the guest first gets all that was received.
"""

from __future__ import annotations

from typing import Final, Protocol

from migtd.guest.abi import TDG_VP_VMCALL_GPA_INUSE
from migtd.guest.ghci import MAX_SEND, STATUS_SUCCESS
from vmm_stub.vmm.guest_buffer import STATUS_CANCELED, STATUS_PEER_GONE, CallRefused, GuestBuffer

RECEIVE_BOUND: Final = 256 << 10
"""Received bytes that wait for the guest, from which on the wire is no longer read."""


class Outlet(Protocol):
    """The wire, as far as a delivery needs it."""

    def send(self, payload: bytes) -> bool:
        """Take one frame. False: taken, but full; `Delivery.writable` is called once there is room again."""

    def resume_reading(self) -> None:
        """The guest took so much that reading may go on."""


class Delivery:
    """One request's transport. Without an outlet it refuses every call: the transport could not be opened."""

    def __init__(self) -> None:
        self._outlet: Outlet | None = None
        self._send: GuestBuffer | None = None
        self._receive: GuestBuffer | None = None
        self._received = bytearray()
        self._peer_gone = False
        self._canceled = False

    @property
    def full(self) -> bool:
        """Whether the wire should pause reading."""
        return len(self._received) >= RECEIVE_BOUND

    def open(self, outlet: Outlet) -> None:
        """The transport stands."""
        self._outlet = outlet

    # --- from the guest ---

    def post_send(self, buffer: GuestBuffer) -> None:
        """Service.MigTD.Send. Raises CallRefused: no transport, no payload or too much, or a Send is pending."""
        outlet = self._usable(pending=self._send)
        payload = buffer.take()
        if not payload:
            raise CallRefused
        if self._canceled:
            buffer.complete(STATUS_CANCELED)
        elif self._peer_gone:
            # As with a socket, what is sent before the end of the stream was read counts as taken and is lost.
            buffer.complete(STATUS_SUCCESS if self._received else STATUS_PEER_GONE)
        elif outlet is not None and outlet.send(payload):
            buffer.complete()
        else:
            self._send = buffer

    def post_receive(self, buffer: GuestBuffer) -> None:
        """Service.MigTD.Receive. Raises CallRefused: no transport, no room, or a Receive is pending."""
        self._usable(pending=self._receive)
        if buffer.capacity == 0:
            raise CallRefused
        self._receive = buffer
        self._serve_receive()

    # --- from the wire ---

    def writable(self) -> None:
        """The outlet has room again: the pending Send is done."""
        self._complete_send()

    def received(self, payload: bytes) -> None:
        """One frame's payload came. Its boundaries carry no meaning."""
        self._received += payload
        self._serve_receive()

    def peer_gone(self) -> None:
        """Nothing more will come, and nothing more will arrive there."""
        self._peer_gone = True
        self._serve_receive()
        # Behind bytes that nobody takes while this Send is pending it would never end: it counts as taken, see above.
        self._complete_send()

    # --- from the host ---

    def cancel(self) -> None:
        """The VMM cancels the request: the pending and every later Send and Receive says so."""
        self._canceled = True
        self._received.clear()
        self._complete_send(STATUS_CANCELED)
        self._serve_receive()

    def forget(self) -> None:
        """The TD ended, or the request did: its buffers must not be touched any more."""
        self._send = self._receive = self._outlet = None
        self._received.clear()

    def _usable(self, pending: GuestBuffer | None) -> Outlet | None:
        if self._outlet is None and not self._canceled:
            raise CallRefused
        if pending is not None:
            raise CallRefused(TDG_VP_VMCALL_GPA_INUSE)
        return self._outlet

    def _serve_receive(self) -> None:
        if self._canceled:
            self._complete_receive(STATUS_CANCELED)
            return
        if self._received and self._receive is not None:
            self._hand_out(self._receive)
        if self._peer_gone and not self._received:
            self._complete_receive(STATUS_PEER_GONE)
            self._complete_send(STATUS_PEER_GONE)

    def _hand_out(self, buffer: GuestBuffer) -> None:
        was_full = self.full
        payload = bytes(self._received[: min(buffer.capacity, MAX_SEND)])
        del self._received[: len(payload)]
        self._receive = None
        buffer.complete(payload=payload)
        if was_full and not self.full and self._outlet is not None:
            self._outlet.resume_reading()

    def _complete_receive(self, status: int) -> None:
        if self._receive is not None:
            buffer, self._receive = self._receive, None
            buffer.complete(status)

    def _complete_send(self, status: int = STATUS_SUCCESS) -> None:
        if self._send is not None:
            buffer, self._send = self._send, None
            buffer.complete(status)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated guest: everything a MigTD needs of its platform, over one vmcall channel (channel.py)."""

from __future__ import annotations

from migtd.checks import Check
from migtd.errors import LabFailure, VmmInternalError
from migtd.guest import firmware
from migtd.guest.calls import ChannelTdCall, ChannelTdVmCall
from migtd.guest.channel import Channel
from migtd.guest.events import CheckEvent, GuestEvent, NoteEvent, PhaseEvent, failed_event, push_event
from migtd.guest.interfaces import ConfigurationVolume, Guest
from migtd.guest.interrupts import InterruptController
from migtd.guest.shared_memory import SharedPages
from migtd.observer import Phase


def emulated_guest(channel: Channel, configuration: ConfigurationVolume) -> Guest:
    """Start the TD behind `channel`: its firmware runs, and interrupts are delivered to the running event loop.

    Call it inside the loop that serves the MigTD, once for a channel. Raises InitializationError
    (MIGTD-TDCALL-FAILED) or VmmInternalError (MIGTD-CHANNEL-LOST, MIGTD-CHANNEL-MALFORMED).
    """
    tdcall = ChannelTdCall(channel.call)
    memory = SharedPages(channel.shared_memory)
    interrupts = InterruptController()
    log_area = firmware.boot(tdcall)
    channel.listen(interrupts.fire, interrupts.lose)
    return Guest(tdcall, ChannelTdVmCall(channel.call, memory), memory, interrupts, configuration, log_area)


class ChannelObserver:
    """Implements `migtd.observer.Observer`: each step becomes an EVENT message to the host."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def phase(self, request_id: int, phase: Phase) -> None:
        """The request entered `phase`."""
        self._tell(PhaseEvent(request_id, phase))

    def check(self, request_id: int, check: Check) -> None:
        """A check was made, or left out with its reason."""
        self._tell(CheckEvent(request_id, check))

    def failed(self, request_id: int, error: LabFailure) -> None:
        """The request will end in this error."""
        self._tell(failed_event(request_id, error))

    def note(self, request_id: int, text: str) -> None:
        """Something worth a line in the history."""
        self._tell(NoteEvent(request_id, text))

    def _tell(self, event: GuestEvent) -> None:
        try:
            self._channel.event(push_event(event))
        except VmmInternalError:
            # An observer must not raise. The channel is lost: its listener and the next call say so to all who wait.
            return

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated guest as its host and its MigTD see it."""

from __future__ import annotations

import hashlib

import pytest

from migtd import event_log, failures
from migtd.checks import Check, CheckName, CheckStatus
from migtd.errors import InitializationError, NetworkError, VmmInternalError
from migtd.guest.abi import PAGE_SIZE, TDX_OPERAND_INVALID, TdCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.configuration import FileConfiguration
from migtd.guest.emulated import ChannelObserver, emulated_guest
from migtd.guest.events import CheckEvent, FailedEvent, NoteEvent, PhaseEvent, pull_event
from migtd.guest.firmware import CcelArea
from migtd.observer import Phase

SEPARATED = bytes.fromhex(
    "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4"
)


class RecordingChannel:
    """A host that has RTMRs and remembers events."""

    def __init__(self, status: int = 0) -> None:
        self.shared_memory = memoryview(bytearray(4 * PAGE_SIZE))
        self.status = status
        self.rtmrs = [bytes(48)] * 4
        self.events: list[bytes] = []

    def call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        if registers.rax == TdCallLeaf.MR_RTMR_EXTEND and not self.status:
            self.rtmrs[registers.rdx] = hashlib.sha384(self.rtmrs[registers.rdx] + data).digest()
        return Registers(rax=self.status), b""

    def event(self, data: bytes) -> None:
        self.events.append(data)

    def listen(self, on_interrupt, on_lost) -> None:
        self.interrupt, self.lose = on_interrupt, on_lost

    def close(self) -> None:
        raise AssertionError


async def test_the_firmware_leaves_a_log_that_explains_the_rtmrs():
    channel = RecordingChannel()
    guest = emulated_guest(channel, FileConfiguration())
    assert guest.event_log is not None
    log = guest.event_log.read()
    assert len(log) == 1 << 20
    assert channel.rtmrs == [SEPARATED, SEPARATED, bytes(48), bytes(48)]
    assert list(event_log.replay(log)) == channel.rtmrs
    assert [(event.mr_index, event.type) for event in event_log.read_events(log)] == [(1, 4), (2, 4)]


async def test_a_refused_extension_stops_the_start():
    with pytest.raises(InitializationError) as caught:
        emulated_guest(RecordingChannel(TDX_OPERAND_INVALID), FileConfiguration())
    assert caught.value.kind is failures.TDCALL_FAILED


async def test_interrupts_and_loss_reach_those_who_wait():
    channel = RecordingChannel()
    interrupts = emulated_guest(channel, FileConfiguration()).interrupts
    channel.interrupt(0x50)
    assert await interrupts.wait(0x50, 0) == 1
    channel.lose()
    with pytest.raises(VmmInternalError):
        await interrupts.wait(0x50, 1)


def test_the_log_area_is_written_only_within_its_bounds():
    area = CcelArea(100)
    area.write(98, b"ab")
    assert area.read() == b"\xff" * 98 + b"ab"
    for offset in (-1, 99):
        with pytest.raises(ValueError, match="not within"):
            area.write(offset, b"ab")


def test_the_observer_sends_every_step_as_an_event():
    channel = RecordingChannel()
    observer = ChannelObserver(channel)
    check = Check(CheckName.CERTIFICATE, CheckStatus.PASSED, "found")
    observer.phase(7, Phase.HANDSHAKE)
    observer.check(7, check)
    observer.failed(7, NetworkError(failures.DEADLINE_READ, "60 s"))
    observer.note(7, "text \ud800 \U0001f600")
    kind = failures.DEADLINE_READ
    assert [pull_event(data) for data in channel.events] == [
        PhaseEvent(7, Phase.HANDSHAKE),
        CheckEvent(7, check),
        FailedEvent(7, kind.id, f"{kind.summary}: 60 s", kind.advice),
        NoteEvent(7, "text ? \U0001f600"),
    ]


def test_the_observer_does_not_raise_when_the_host_is_gone():
    class LostChannel(RecordingChannel):
        def event(self, data: bytes) -> None:
            super().event(data)
            raise VmmInternalError(failures.CHANNEL_LOST)

    channel = LostChannel()
    ChannelObserver(channel).note(1, "x")
    assert len(channel.events) == 1

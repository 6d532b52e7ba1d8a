# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Frames between hosts, addresses, and the delivery between guest buffers and the wire, without any socket."""

import pytest

from migtd.guest.abi import TDG_VP_VMCALL_GPA_INUSE, TDG_VP_VMCALL_INVALID_OPERAND
from migtd.guest.ghci import HEADER, MAX_SEND
from vmm_stub.vmm.address import format_address, parse_address
from vmm_stub.vmm.delivery import RECEIVE_BOUND, Delivery
from vmm_stub.vmm.guest_buffer import STATUS_CANCELED, STATUS_PEER_GONE, CallRefused, GuestBuffer, GuestMemory
from vmm_stub.vmm.wire import MAX_FRAME, FrameDecoder, WireError, push_frame

BUFFER = 65536


class Slot:
    """A guest's buffer in a memory of its own."""

    def __init__(self, payload=b"", size=BUFFER):
        self.memory = bytearray(size)
        HEADER.pack_into(self.memory, 0, 0, len(payload))
        self.memory[HEADER.size : HEADER.size + len(payload)] = payload
        self.fired: list[int] = []
        self.buffer = GuestBuffer(GuestMemory(memoryview(self.memory)), 0, size, 0x52, self.fired.append)

    @property
    def answer(self):
        status, length = HEADER.unpack_from(self.memory)
        return status, bytes(self.memory[HEADER.size : HEADER.size + length])


class FakeOutlet:
    def __init__(self):
        self.sent = []
        self.room = True
        self.resumed = 0

    def send(self, payload):
        self.sent.append(payload)
        return self.room

    def resume_reading(self):
        self.resumed += 1


@pytest.fixture
def outlet():
    return FakeOutlet()


@pytest.fixture
def delivery(outlet):
    made = Delivery()
    made.open(outlet)
    return made


def test_a_frame_is_length_and_payload():
    assert push_frame(b"abc") == b"\3\0\0\0abc"


@pytest.mark.parametrize("size", [0, MAX_FRAME + 1])
def test_no_frame_of_impossible_length_is_made(size):
    with pytest.raises(ValueError, match="frame"):
        push_frame(bytes(size))


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused_before_its_payload_comes(length):
    decoder = FrameDecoder()
    decoder.receive_data(length.to_bytes(4, "little"))
    with pytest.raises(WireError) as refused:
        decoder.next_frame()
    assert refused.value.kind.id == "VMM-WIRE-FRAME-LENGTH"


def test_the_largest_frame_is_accepted():
    decoder = FrameDecoder()
    decoder.receive_data(push_frame(bytes(MAX_FRAME)))
    assert decoder.next_frame() == bytes(MAX_FRAME)
    decoder.end()


def test_an_end_inside_a_frame_is_told_apart():
    decoder = FrameDecoder()
    decoder.receive_data(b"\3\0\0\0ab")
    assert decoder.next_frame() is None
    with pytest.raises(WireError) as refused:
        decoder.end()
    assert refused.value.kind.id == "VMM-WIRE-TRUNCATED"


@pytest.mark.parametrize("text", ["host:1", "10.0.0.1:8001", "[::1]:65535"])
def test_addresses_are_read_and_written_alike(text):
    assert format_address(*parse_address(text)) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:٣", "::1:8001"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        parse_address(text)


def test_a_send_is_done_at_once_while_there_is_room(delivery, outlet):
    slot = Slot(b"abc")
    delivery.post_send(slot.buffer)
    assert outlet.sent == [b"abc"]
    assert slot.answer == (1, b"")
    assert slot.fired == [0x52]


def test_a_send_stays_pending_until_there_is_room_again(delivery, outlet):
    outlet.room = False
    first, second = Slot(b"abc"), Slot(b"def")
    delivery.post_send(first.buffer)
    assert first.fired == []
    with pytest.raises(CallRefused) as refused:
        delivery.post_send(second.buffer)
    assert refused.value.status == TDG_VP_VMCALL_GPA_INUSE
    delivery.writable()
    assert first.answer == (1, b"")


@pytest.mark.parametrize("announced", [0, BUFFER - HEADER.size + 1, 2**32 - 1])
def test_a_send_of_impossible_length_is_refused(delivery, outlet, announced):
    slot = Slot()
    HEADER.pack_into(slot.memory, 0, 0, announced)
    with pytest.raises(CallRefused) as refused:
        delivery.post_send(slot.buffer)
    assert refused.value.status == TDG_VP_VMCALL_INVALID_OPERAND
    assert outlet.sent == []


def test_a_receive_gets_what_fits_and_the_next_one_the_rest(delivery):
    delivery.received(b"x" * 10)
    delivery.received(b"y" * 10)
    small, rest = Slot(size=HEADER.size + 15), Slot()
    delivery.post_receive(small.buffer)
    assert small.answer == (1, b"x" * 10 + b"y" * 5)
    delivery.post_receive(rest.buffer)
    assert rest.answer == (1, b"y" * 5)


def test_a_receive_never_gets_more_than_one_send_can_carry(delivery):
    delivery.received(bytes(MAX_FRAME))
    delivery.received(bytes(MAX_FRAME))
    slot = Slot(size=4 * BUFFER)
    delivery.post_receive(slot.buffer)
    assert len(slot.answer[1]) == MAX_SEND


def test_reading_pauses_when_the_guest_does_not_take_and_resumes_when_it_does(delivery, outlet):
    for _ in range(RECEIVE_BOUND // MAX_FRAME):
        assert not delivery.full
        delivery.received(bytes(MAX_FRAME))
    assert delivery.full
    delivery.post_receive(Slot().buffer)
    assert not delivery.full
    assert outlet.resumed == 1


def test_after_the_peer_is_gone_what_came_is_delivered_first(delivery):
    delivery.received(b"rest")
    delivery.peer_gone()
    sent, first, second, late = Slot(b"x"), Slot(), Slot(), Slot(b"x")
    delivery.post_send(sent.buffer)
    delivery.post_receive(first.buffer)
    delivery.post_receive(second.buffer)
    delivery.post_send(late.buffer)
    assert [each.answer for each in (sent, first, second, late)] == [
        (1, b""),
        (1, b"rest"),
        (STATUS_PEER_GONE, b""),
        (STATUS_PEER_GONE, b""),
    ]


def test_pending_calls_end_when_the_peer_goes(delivery, outlet):
    outlet.room = False
    sending, receiving = Slot(b"x"), Slot()
    delivery.post_send(sending.buffer)
    delivery.post_receive(receiving.buffer)
    delivery.peer_gone()
    assert sending.answer == receiving.answer == (STATUS_PEER_GONE, b"")


def test_cancel_ends_pending_and_later_calls_and_drops_what_came(delivery, outlet):
    outlet.room = False
    sending = Slot(b"x")
    delivery.post_send(sending.buffer)
    delivery.received(b"never read")
    delivery.cancel()
    later = [Slot(b"y"), Slot()]
    delivery.post_send(later[0].buffer)
    delivery.post_receive(later[1].buffer)
    assert [each.answer for each in (sending, *later)] == [(STATUS_CANCELED, b"")] * 3
    assert outlet.sent == [b"x"]


def test_without_a_transport_every_call_is_refused():
    delivery = Delivery()
    for post in (delivery.post_send, delivery.post_receive):
        with pytest.raises(CallRefused) as refused:
            post(Slot(b"x").buffer)
        assert refused.value.status == TDG_VP_VMCALL_INVALID_OPERAND


def test_buffers_of_an_ended_request_are_not_touched(delivery):
    receiving = Slot()
    delivery.post_receive(receiving.buffer)
    delivery.forget()
    delivery.received(b"late")
    delivery.peer_gone()
    assert receiving.answer == (0, b"")
    assert receiving.fired == []


def test_a_pending_send_ends_with_the_peer_though_received_bytes_wait(delivery, outlet):
    outlet.room = False
    sending, receiving, later = Slot(b"x"), Slot(), Slot()
    delivery.post_send(sending.buffer)
    delivery.received(b"alert")
    delivery.peer_gone()
    # a guest that sends before it receives would otherwise wait for itself
    assert sending.answer == (1, b"")
    delivery.post_receive(receiving.buffer)
    delivery.post_receive(later.buffer)
    assert [receiving.answer, later.answer] == [(1, b"alert"), (STATUS_PEER_GONE, b"")]


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".", "\ud800"])
def test_what_can_be_no_name_is_no_address(name):
    with pytest.raises(ValueError, match=r".+"):
        parse_address(f"{name}:1")

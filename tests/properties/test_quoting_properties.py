# SPDX-License-Identifier: BSD-2-Clause-Patent
"""No buffer of a guest makes the host's GetQuote raise, or write anywhere but into that buffer."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.guest.abi import SHARED_BIT, VmCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.quote_messages import CollateralRequest, QuoteRequest, push_request
from vmm_stub.testing import MIGTD
from vmm_stub.testing_quoting import machine, quoting_vmm
from vmm_stub.vmm.in_process import InProcessChannel

PAGE = 4096
AREA = 16 * PAGE
OWN = machine()
REQUESTS = [push_request(QuoteRequest(OWN.report())), push_request(CollateralRequest(b"FMSPC!")), OWN.report()]
CHANNEL = InProcessChannel(quoting_vmm(OWN).migtd(MIGTD))
"""One TD for all examples: what one leaves behind must not matter to the next."""


@st.composite
def requests(draw):
    """A good request with some bytes overwritten, or anything."""
    data = bytearray(draw(st.sampled_from(REQUESTS)))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3)):
        data[at % len(data)] = value
    return draw(st.just(bytes(data)) | st.binary(max_size=2000))


@settings(max_examples=200)
@given(
    request=requests(),
    version=st.sampled_from([0, 1, 1, 1, 2]),
    in_len=st.none() | st.integers(0, 2**32 - 1),
    first_page=st.integers(0, 17),
    size=st.integers(0, 18 * PAGE),
)
def test_a_call_stays_within_its_buffer(request, version, in_len, first_page, size):
    memory, at = CHANNEL.shared_memory, first_page * PAGE
    memory[: 2 * AREA] = b"\xa5" * (2 * AREA)
    length = len(request) if in_len is None else in_len
    memory[at : at + 24 + len(request)] = struct.pack("<QQII", version, 0, length, 0) + request
    before = bytes(memory[: 4 * AREA])
    call = Registers(r11=VmCallLeaf.GET_QUOTE, r12=SHARED_BIT | at, r13=size)
    after, data = CHANNEL.call(call)
    assert (after.rax, data) == (0, b"")
    assert memory[:at] == before[:at]
    assert memory[at + size : 4 * AREA] == before[at + size :]
    if after.r10 == 0:
        status, kept_length, out_len = struct.unpack("<QII", memory[at + 8 : at + 24])
        assert status in (0, 0x8000000000000000)
        assert (kept_length, out_len <= size - 24) == (length, True)
        assert (out_len == 0) == (status != 0)
    else:
        assert memory[: 4 * AREA] == before

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The bytes of the SPDM messages that are not vendor-defined, and what is not accepted in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from migtd.spdm import handshake, negotiation
from migtd.spdm.errors import Malformed
from migtd.spdm.handshake import EndSession, Error, Finish, FinishResponse, KeyExchange, KeyExchangeResponse
from migtd.spdm.negotiation import Code, GetVersion
from tests.unit.spdm_pairs import PART_A

CONSTANTS = [
    GetVersion().push(),
    negotiation.PROFILE_VERSION.push(),
    negotiation.PROFILE_GET_CAPABILITIES.push(),
    negotiation.PROFILE_CAPABILITIES.push(),
    negotiation.PROFILE_NEGOTIATE.push(),
    negotiation.PROFILE_ALGORITHMS.push(),
]

Pull = Callable[[bytes], Any]
MESSAGES: list[tuple[Any, Pull, int]] = [
    (GetVersion(), negotiation.pull_get_version, 4),
    (negotiation.PROFILE_VERSION, negotiation.pull_version, 8),
    (negotiation.PROFILE_GET_CAPABILITIES, lambda d: negotiation.pull_capabilities(d, Code.GET_CAPABILITIES), 20),
    (negotiation.PROFILE_CAPABILITIES, lambda d: negotiation.pull_capabilities(d, Code.CAPABILITIES), 20),
    (negotiation.PROFILE_NEGOTIATE, lambda d: negotiation.pull_algorithms(d, Code.NEGOTIATE_ALGORITHMS), 48),
    (negotiation.PROFILE_ALGORITHMS, lambda d: negotiation.pull_algorithms(d, Code.ALGORITHMS), 52),
    (KeyExchange(bytes(range(32)), bytes(range(96))), handshake.pull_key_exchange, 154),
    (
        KeyExchangeResponse(bytes(range(32)), bytes(range(96)), bytes(range(100, 196))),
        handshake.pull_key_exchange_response,
        246,
    ),
    (Finish(bytes(range(96)), bytes(range(48))), handshake.pull_finish, 148),
    (FinishResponse(bytes(range(48))), handshake.pull_finish_response, 52),
    (EndSession(Code.END_SESSION), lambda d: handshake.pull_end_session(d, Code.END_SESSION), 4),
    (EndSession(Code.END_SESSION_ACK), lambda d: handshake.pull_end_session(d, Code.END_SESSION_ACK), 4),
    (Error(0xFF, 8), handshake.pull_error, 4),
    (Error(0x0F, 0, handle=1), handshake.pull_error, 5),
]
BY_NAME = pytest.mark.parametrize(
    ("message", "pull", "size"), MESSAGES, ids=[f"{type(each[0]).__name__}-{each[2]}" for each in MESSAGES]
)
FREE = {
    "KeyExchange": range(8, 136),
    "KeyExchangeResponse": [*range(8, 136), *range(150, 246)],
    "Finish": range(4, 148),
    "FinishResponse": range(4, 52),
}
"""Offsets whose bytes are the peer's choice: a later check must find what is wrong there."""


def test_negotiation_is_the_constants_of_the_specification() -> None:
    assert [bytes.fromhex(each) for each in PART_A] == CONSTANTS
    part_a = b"".join(CONSTANTS)
    assert len(part_a) == 152
    assert hashlib.sha384(part_a).hexdigest() == (
        "3a36c2910ca4f64987d9db59b978b386ca4e9bde566a0952728b26b8a47828686f273aa89aa04741702e946861f03fd3"
    )


@BY_NAME
def test_a_message_reads_back_as_it_was_written(message: Any, pull: Pull, size: int) -> None:
    data = message.push()
    assert len(data) == size
    assert pull(data) == message


@BY_NAME
def test_a_message_of_another_length_is_refused(message: Any, pull: Pull, size: int) -> None:
    data = message.push()
    for wrong in (*(data[:end] for end in range(size)), data + b"\0"):
        with pytest.raises(Malformed):
            pull(wrong)


@BY_NAME
def test_no_other_bytes_read_as_the_same_message(message: Any, pull: Pull, size: int) -> None:
    data = message.push()
    for offset in range(size):
        changed = bytearray(data)
        changed[offset] ^= 0x10
        try:
            found = pull(bytes(changed))
        except Malformed:
            assert offset not in FREE.get(type(message).__name__, ())
        else:
            assert found != message
            assert found.push() == bytes(changed)


def test_key_exchange_lays_out_its_constants() -> None:
    request = KeyExchange(b"r" * 32, b"s" * 96).push()
    assert request[:8].hex() == "12e400fffdff0000"
    assert request[136:].hex() == "100001000000000005000101010012000000"
    response = KeyExchangeResponse(b"r" * 32, b"s" * 96, b"g" * 96).push()
    assert response[:8].hex() == "12640000fdff010f"
    assert response[136:150].hex() == "0c00010000000000040001000012"


def test_large_response_is_the_only_error_with_a_handle() -> None:
    assert Error(0x0F, 0, handle=3).push().hex() == "127f0f0003"
    for wrong in ("127f0f00", "127f0f0103", "127f010003", "117f0100"):
        with pytest.raises(Malformed):
            handshake.pull_error(bytes.fromhex(wrong))

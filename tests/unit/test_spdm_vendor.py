# SPDX-License-Identifier: BSD-2-Clause-Patent
"""MigTD's vendor-defined messages: known bytes, exact elements, and everything else refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384

from migtd.migration.data import ExchangeInformation
from migtd.spdm import vendor_messages as messages
from migtd.spdm.errors import Malformed, SpdmRefusal, VendorMalformed
from migtd.spdm.signing import Signer
from migtd.spdm.vendor import ELEMENTS, MAX_PAYLOAD, Opcode, VendorEnvelope, pull_elements, push_elements
from migtd.spdm.vendor_messages import (
    EvidenceRequest,
    EvidenceResponse,
    MigrationInformation,
    Mode,
    PublicKey,
    RebindingTaken,
    RebindingToken,
)

R4 = bytes.fromhex(
    "12fe0000040004570100008200000001010100780000003076301006072a8648ce3d020106052b8104002203620004"
    "f7bb31f516983c179376ff08f9ce89b933c8d2f22358a6ffd9053544fe2a21c88d3e9f053fe85f49b661b9614fda9eba"
    "968d4a55c68e66550339cb42e754f7139a6410f7d904efc5758df5e4a5a9b115a4c12e12744e50afdc2b8e156067faca"
)
INFORMATION = ExchangeInformation(bytes(range(32)), 1, 0x0203)
R = Opcode
MESSAGES: list[tuple[Any, Callable[[bytes], Any], int]] = [
    (PublicKey(R.PUBLIC_KEY_REQUEST, b"k" * 120), lambda d: messages.pull_public_key_message(d, R(1)), 143),
    (PublicKey(R.PUBLIC_KEY_RESPONSE, b"k" * 120), lambda d: messages.pull_public_key_message(d, R(2)), 143),
    (
        EvidenceRequest(Mode.MIGRATION, b"q" * 822, b"e" * 177, b"p" * 48, b"s" * 272, b"i" * 512),
        lambda d: messages.pull_evidence_request(d, Mode.MIGRATION),
        1878,
    ),
    (
        EvidenceResponse(Mode.MIGRATION, b"q" * 822, b"e" * 177, b"p" * 48),
        lambda d: messages.pull_evidence_response(d, Mode.MIGRATION),
        1082,
    ),
    (
        EvidenceRequest(Mode.REBINDING, b"q" * 1024, b"e" * 177, b"p" * 48, b"s" * 272, b"i" * 512),
        lambda d: messages.pull_evidence_request(d, Mode.REBINDING),
        2080,
    ),
    (
        EvidenceResponse(Mode.REBINDING, b"q" * 1024, b"e" * 177, b"p" * 48),
        lambda d: messages.pull_evidence_response(d, Mode.REBINDING),
        1284,
    ),
    (MigrationInformation(R(5), INFORMATION), lambda d: messages.pull_migration_information(d, R(5)), 65),
    (MigrationInformation(R(6), INFORMATION), lambda d: messages.pull_migration_information(d, R(6)), 65),
    (RebindingToken(b"t" * 32), messages.pull_rebinding_token, 55),
    (RebindingTaken(), messages.pull_rebinding_taken, 17),
]
BY_NAME = pytest.mark.parametrize(
    ("message", "pull", "size"),
    MESSAGES,
    ids=[f"{type(each[0]).__name__}-{each[2]}-{i}" for i, each in enumerate(MESSAGES)],
)
ENVELOPE = 13


def element(kind: int, value: bytes, length: int | None = None) -> bytes:
    return kind.to_bytes(2, "little") + (len(value) if length is None else length).to_bytes(4, "little") + value


def message(opcode: int, count: int, *elements: bytes, version: bytes = b"\0\0") -> bytes:
    code = Opcode(opcode).code
    return VendorEnvelope(code, version + bytes((opcode, count)) + b"".join(elements)).push()


VERSIONS, KEY = element(0x81, bytes(4)), element(0x83, bytes(32))


def test_the_public_key_message_has_its_known_bytes() -> None:
    def signer(scalar: int) -> Signer:
        return Signer(ec.derive_private_key(scalar, ec.SECP384R1()), ec.ECDSA(SHA384()))

    request = PublicKey(Opcode.PUBLIC_KEY_REQUEST, signer(0x1111).public_key).push()
    assert request == R4
    assert hashlib.sha384(request).hexdigest() == (
        "769e38ac4806e1b4abec582cbe5355846ca944e1527eeda3469e836680e5e88b3a465957be15311f12bc9be75001dff5"
    )
    response = PublicKey(Opcode.PUBLIC_KEY_RESPONSE, signer(0x3333).public_key).push()
    assert hashlib.sha384(response).hexdigest() == (
        "bb98a2cacd37267f2a6c0b7e4526ed2f849ee71fbd2a35787c133ef1fbb8ec746da4f3a4403b996731047d21293b4492"
    )


@BY_NAME
def test_a_message_reads_back_as_it_was_written(message: Any, pull: Callable[[bytes], Any], size: int) -> None:
    data = message.push()
    assert len(data) == size
    assert pull(data) == message


@BY_NAME
def test_a_message_of_another_length_is_refused(message: Any, pull: Callable[[bytes], Any], size: int) -> None:
    data = message.push()
    for wrong in (*(data[:end] for end in range(size)), data + b"\0"):
        with pytest.raises(Malformed):
            pull(wrong)


@BY_NAME
def test_every_byte_but_those_of_values_is_fixed(message: Any, pull: Callable[[bytes], Any], size: int) -> None:
    data = message.push()
    for offset in range(size):
        changed = bytearray(data)
        changed[offset] ^= 1
        try:
            found = pull(bytes(changed))
        except SpdmRefusal:
            continue
        assert found != message
        assert found.push() == bytes(changed)
        assert offset > ENVELOPE + 4


@BY_NAME
def test_the_envelope_fails_as_a_standard_message_and_the_payload_as_ours(
    message: Any, pull: Callable[[bytes], Any], size: int
) -> None:
    data = message.push()
    for offset in range(min(size, ENVELOPE + 4)):
        changed = bytearray(data)
        changed[offset] ^= 1
        with pytest.raises(Malformed if offset < ENVELOPE else VendorMalformed):
            pull(bytes(changed))


@pytest.mark.parametrize(
    "wrong",
    [
        message(5, 2, KEY, VERSIONS),
        message(5, 1, VERSIONS),
        message(5, 2, VERSIONS),
        message(5, 3, VERSIONS, KEY),
        message(5, 3, VERSIONS, KEY, KEY),
        message(5, 2, VERSIONS, KEY, KEY),
        message(5, 2, VERSIONS, VERSIONS),
        message(5, 2, VERSIONS, KEY, b"\0"),
        message(5, 2, VERSIONS, element(0x83, bytes(31))),
        message(5, 2, VERSIONS, element(0x83, bytes(33))),
        message(5, 2, element(0x81, bytes(3)), KEY),
        message(5, 2, VERSIONS, element(0x83, bytes(32), 0xFFFFFFFF)),
        message(5, 2, VERSIONS, element(0x84, bytes(32))),
        message(5, 2, VERSIONS, element(0, bytes(32))),
        message(5, 3, VERSIONS, KEY, element(0x7F01, b"azure")),
        message(5, 2, VERSIONS, KEY, version=b"\1\0"),
        message(5, 2, VERSIONS, KEY, version=b"\0\1"),
        message(9, 1, element(0x85, bytes(32))),
    ],
)
def test_elements_come_in_their_order_number_and_size(wrong: bytes) -> None:
    with pytest.raises(VendorMalformed):
        pull_elements(wrong, Opcode.MIGRATION_INFORMATION_REQUEST)


@pytest.mark.parametrize("size", [0, 100, 271, 273])
def test_servtd_ext_and_tdinfo_have_their_sizes_with_policy_v1_too(size: int) -> None:
    values = [element(3, b"q"), element(4, b"e"), element(5, bytes(48)), element(0x10, bytes(272))]
    for wrong in (
        [*values[:3], element(0x10, bytes(size)), element(0x12, bytes(512))],
        [*values, element(0x12, bytes(512 - 272 + size))],
    ):
        with pytest.raises(VendorMalformed):
            messages.pull_evidence_request(message(3, 5, *wrong), Mode.MIGRATION)


def test_a_value_of_the_wrong_size_is_not_sent() -> None:
    with pytest.raises(ValueError, match="FORWARD_KEY of 31 bytes"):
        push_elements(Opcode.MIGRATION_INFORMATION_REQUEST, bytes(4), bytes(31))
    room = MAX_PAYLOAD - 4 - 3 * 6 - 48 - 1
    assert len(push_elements(Opcode.MIGRATION_EVIDENCE_RESPONSE, bytes(room), b"e", bytes(48))) == 65_536
    with pytest.raises(ValueError, match="payload"):
        push_elements(Opcode.MIGRATION_EVIDENCE_RESPONSE, bytes(room + 1), b"e", bytes(48))


def test_no_opcode_shares_its_bytes_with_another() -> None:
    for opcode in ELEMENTS:
        data = next(each.push() for each, _, _ in MESSAGES if each.push()[ENVELOPE + 2] == opcode)
        for other in ELEMENTS:
            if other is not opcode:
                with pytest.raises(SpdmRefusal):
                    pull_elements(data, other)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Negotiation with requesters other than MigTDs: the cases of the standard's conformance suite that apply (12.5)."""

from __future__ import annotations

import struct

import pytest

from migtd.checks import CheckRunner
from migtd.migration.session import SessionContext
from migtd.spdm.accepted import StandardRequests
from migtd.spdm.framing import BodyType, push_frame
from migtd.spdm.migration import DestinationOfMigration, StepsV1
from migtd.spdm.responder import Responder
from migtd.spdm.session import commit_later
from migtd.spdm.testing import KNOWN_RESPONDER, SpdmSide
from tests.unit.spdm_pairs import ACCEPT_ALL, DESTINATION, DESTINATION_EVIDENCE, PART_A

R1, ANSWER_1, R2, ANSWER_2, R3, ANSWER_3 = (bytes.fromhex(each) for each in PART_A)
INVALID, MISMATCH, UNEXPECTED = "127f0100", "127f4100", "127f0400"
CHUNK, PSK = 1 << 17, 1 << 10
FLAGS = 0x000383C0


def answers(*requests: bytes) -> list[str]:
    """What a responder that takes any standard requester says to these."""
    context = SessionContext(is_source=False, local=DESTINATION, mode=ACCEPT_ALL, checks=CheckRunner({}, print))
    application = DestinationOfMigration(context, StepsV1(context, b""), commit_later)
    session = Responder(KNOWN_RESPONDER, application, StandardRequests())
    side = SpdmSide(session, DESTINATION_EVIDENCE).start()
    for request in requests:
        side.receive(push_frame(BodyType.PLAIN, request))
    side.take()
    return [body.hex() for _, body in side.sent]


def capabilities(flags: int, transfer: int = 4032, most: int = 65_536) -> bytes:
    return R2[:8] + struct.pack("<III", flags, transfer, most)


def algorithms(
    external: tuple[int, int] = (0, 0), counts: int = 0x20, length: int = 0, asymmetric: int = 0x80, extra: bytes = b""
) -> bytes:
    structures = b"".join(
        bytes((kind, counts if kind == 2 else 0x20)) + value.to_bytes(2, "little") + (extra if kind == 2 else b"")
        for kind, value in ((2, 0x3F), (3, 0x0F), (4, 0x81), (5, 0x01))
    )
    body = bytes((1, 2)) + struct.pack("<II", asymmetric, 0xFF) + bytes(12) + bytes(external) + bytes(2)
    body += bytes(4 * sum(external) if sum(external) <= 20 else 0) + structures
    return bytes.fromhex("12e30400") + struct.pack("<H", len(body) + 6 + length) + body


def with_structures(structures: bytes, count: int) -> bytes:
    return R3[:2] + bytes((count, 0)) + struct.pack("<H", 32 + len(structures)) + R3[6:32] + structures


@pytest.mark.parametrize(
    "request_", [R2, capabilities(FLAGS & ~CHUNK, 4096, 4096), capabilities(0, 42, 42), capabilities(FLAGS | PSK)]
)
def test_consistent_capabilities_are_answered_with_the_profiles(request_: bytes) -> None:
    assert answers(R1, request_) == [ANSWER_1.hex(), ANSWER_2.hex()]


@pytest.mark.parametrize("version", [0x10, 0x11, 0x13])
def test_capabilities_of_another_version_are_a_mismatch(version: int) -> None:
    assert answers(R1, bytes((version,)) + R2[1:])[1:] == ["107f4100"]


@pytest.mark.parametrize(
    "request_",
    [
        capabilities(FLAGS & ~(1 << 6)),
        capabilities(FLAGS & ~(1 << 7)),
        capabilities(FLAGS & ~(1 << 9)),
        capabilities((FLAGS & ~(1 << 9) & ~(1 << 6)) | PSK),
        capabilities(1 << 6),
        capabilities(1 << 7),
        capabilities(FLAGS, 41),
        capabilities(FLAGS, 65_537),
        capabilities(FLAGS & ~CHUNK),
    ],
)
def test_inconsistent_capabilities_are_refused(request_: bytes) -> None:
    assert answers(R1, request_)[1:] == [INVALID]


def test_second_capabilities_are_unexpected() -> None:
    assert answers(R1, R2, capabilities(FLAGS, 4096))[2:] == [UNEXPECTED]


@pytest.mark.parametrize(
    "request_",
    [
        R3,
        algorithms(),
        algorithms(asymmetric=0xFFF),
        algorithms((1, 2)),
        algorithms(counts=0x22, extra=bytes(8)),
    ],
)
def test_one_algorithm_of_many_is_chosen(request_: bytes) -> None:
    assert answers(R1, R2, request_)[2:] == [ANSWER_3.hex()]


@pytest.mark.parametrize("version", [0x11, 0x13])
def test_algorithms_of_another_version_are_a_mismatch(version: int) -> None:
    assert answers(R1, R2, bytes((version,)) + R3[1:])[2:] == [MISMATCH]


@pytest.mark.parametrize(
    "request_",
    [
        algorithms(length=-1),
        algorithms(length=1),
        algorithms((21, 0)),
        algorithms((0, 21)),
        algorithms(counts=0x10),
        algorithms(counts=0x30),
        algorithms(counts=0x2F),
        algorithms(asymmetric=0x01),
        algorithms()[:-1],
        algorithms() + b"\0",
        algorithms()[:2] + b"\x03" + algorithms()[3:],
        algorithms()[:32] + b"\x03" + algorithms()[33:],
        with_structures(R3[32:] + bytes(4), 4),
        with_structures(R3[32:] + R3[44:], 5),
        with_structures(R3[36:40] + R3[32:36] + R3[40:], 4),
        with_structures(R3[32:44], 3),
    ],
)
def test_malformed_algorithms_are_refused(request_: bytes) -> None:
    assert answers(R1, R2, request_)[2:] == [INVALID]


def test_second_algorithms_are_unexpected() -> None:
    assert answers(R1, R2, R3, algorithms())[3:] == [UNEXPECTED]

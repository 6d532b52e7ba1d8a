# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a responder answers and reports for everything that does not belong where it comes (spdm.md 9.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from migtd import failures as migtd_failures
from migtd.attestation.mode import Evidence
from migtd.errors import (
    InvalidParameter,
    MigrationResult,
    MigTDError,
    MutualAttestationError,
    SecureSessionError,
    TdxModuleError,
)
from migtd.migration.data import ExchangeInformation
from migtd.migration.session import TargetHistory
from migtd.spdm import failures
from migtd.spdm.chunking import ChunkAck, ChunkGet
from migtd.spdm.errors import peer_error
from migtd.spdm.framing import MAX_BODY, BodyType, push_frame
from migtd.spdm.handshake import EndSession
from migtd.spdm.negotiation import REQUESTS, Code
from migtd.spdm.responder import TABLE, ResponderState
from migtd.spdm.signing import Signer
from migtd.spdm.testing import KNOWN_REQUESTER, KNOWN_RESPONDER, Body, bodies
from migtd.spdm.vendor import ELEMENTS, Opcode, push_elements
from migtd.spdm.vendor_messages import MigrationInformation
from tests.unit.spdm_pairs import (
    SOURCE,
    Committed,
    End,
    at_responder,
    make_end,
    make_ends,
    opened,
    sealed,
    told,
)

S = ResponderState
PLAIN, SECURED = BodyType.PLAIN, BodyType.SECURED
LARGE = Evidence(b"Q" * 5006, b"E" * 300)
CLEAR = [S.START, S.VERSIONED, S.CAPABLE, S.NEGOTIATED, S.KEYED, S.HANDSHAKE, S.TRANSFER, S.STAGED, S.ATTESTED]
IN_RECORDS = [S.ESTABLISHED, S.INFORMED]


def reached(state: ResponderState, **settings: object) -> tuple[End, End, Body]:
    """A destination in `state`, the source that took it there, and what that one would say next."""
    if state in (S.TRANSFER, S.STAGED):
        settings = {"evidence": LARGE, **settings}
    source, destination = make_ends(**settings)
    return source, destination, at_responder(state, source, destination)


def refused(destination: End, body: Body, answer: str, result: MigrationResult = MigrationResult.SecureSessionError):
    """The destination answers exactly that, reports exactly that, and writes nothing."""
    written = len(destination.committed.keys)
    said = told(destination, body)
    assert [(kind, message.hex()) for kind, message in said] == ([(PLAIN, answer)] if answer else [])
    assert destination.side.error is not None
    assert destination.side.error.result is result
    assert len(destination.committed.keys) == written


def vendor(opcode: Opcode) -> bytes:
    sizes = {1: 120, 2: 1024, 3: 822, 4: 177, 5: 48, 0x10: 272, 0x12: 512, 0x81: 4, 0x82: 4, 0x83: 32, 0x84: 32}
    return push_elements(opcode, *(bytes(sizes.get(kind, 32)) for kind in ELEMENTS[opcode]))


def error_version(state: ResponderState) -> str:
    return "10" if state in (S.START, S.VERSIONED) else "12"


def wrong_place() -> Iterator[tuple[ResponderState, Code]]:
    for state in CLEAR:
        for code in sorted(REQUESTS - set(TABLE[state])):
            if code is not Code.VENDOR_DEFINED_REQUEST:
                yield state, code


@pytest.mark.parametrize(("state", "code"), list(wrong_place()))
def test_a_known_request_in_the_wrong_state_is_unexpected(state: ResponderState, code: Code) -> None:
    _, destination, _ = reached(state)
    version = "10" if code is Code.GET_VERSION else "12"
    # GET_CAPABILITIES is what VERSIONED waits for, so no request here changes the version of the answer.
    body = bytes.fromhex(f"{version}{code:02x}0000")
    refused(destination, (PLAIN, body), f"{error_version(state)}7f0400")
    assert destination.side.error is not None
    assert destination.side.error.kind is failures.SPDM_UNEXPECTED


@pytest.mark.parametrize("state", [S.VERSIONED, S.CAPABLE, S.KEYED, S.TRANSFER, S.STAGED, S.ATTESTED])
@pytest.mark.parametrize("opcode", [Opcode(1), Opcode(3), Opcode(5), Opcode(7), Opcode(9)])
def test_an_exchange_in_the_wrong_state_or_for_the_second_time_is_refused(
    state: ResponderState, opcode: Opcode
) -> None:
    _, destination, _ = reached(state)
    refused(destination, (PLAIN, vendor(opcode)), f"{error_version(state)}7fff06")


@pytest.mark.parametrize(("state", "opcodes"), [(S.NEGOTIATED, [3, 5, 7, 9]), (S.HANDSHAKE, [1, 5, 7, 9])])
def test_another_exchange_than_the_one_that_belongs_there_is_refused(state: ResponderState, opcodes: list[int]) -> None:
    for opcode in opcodes:
        _, destination, _ = reached(state)
        refused(destination, (PLAIN, vendor(Opcode(opcode))), "127fff06")
        assert destination.side.error is not None
        assert destination.side.error.kind is failures.SPDM_VENDOR


def test_anything_but_get_version_is_unexpected_at_the_start() -> None:
    _, destination, _ = reached(S.START)
    refused(destination, (PLAIN, vendor(Opcode(1))), "107f0400")


@pytest.mark.parametrize("state", [*CLEAR, *IN_RECORDS])
@pytest.mark.parametrize("code", [0x81, 0x83, 0xE0, 0xE8, 0x7F, 0x04, 0x00, 0xFF])
def test_a_code_outside_the_profile_is_unsupported(state: ResponderState, code: int) -> None:
    _, destination, _ = reached(state)
    refused(destination, (PLAIN, bytes((0x12, code, 0, 0))), f"{error_version(state)}7f07{code:02x}")


@pytest.mark.parametrize("state", IN_RECORDS)
@pytest.mark.parametrize("code", sorted(REQUESTS))
def test_nothing_in_clear_is_taken_after_finish(state: ResponderState, code: Code) -> None:
    source, destination, request = reached(state)
    version = "10" if code is Code.GET_VERSION else "12"
    refused(destination, (PLAIN, bytes.fromhex(f"{version}{code:02x}0000")), "127f0400")
    assert request[0] is SECURED
    assert source.side.end is None


@pytest.mark.parametrize(
    ("state", "version", "answer"),
    [
        (S.START, 0x11, "107f4100"),
        (S.START, 0x12, "107f4100"),
        (S.VERSIONED, 0x10, "107f4100"),
        (S.VERSIONED, 0x11, "107f4100"),
        (S.VERSIONED, 0x13, "107f4100"),
        (S.CAPABLE, 0x11, "127f4100"),
        (S.CAPABLE, 0x13, "127f4100"),
        (S.NEGOTIATED, 0x11, "127f4100"),
        (S.KEYED, 0x13, "127f4100"),
        (S.HANDSHAKE, 0x10, "127f4100"),
        (S.TRANSFER, 0x13, "127f4100"),
        (S.STAGED, 0x13, "127f4100"),
        (S.ATTESTED, 0x13, "127f4100"),
    ],
)
def test_another_version_is_a_mismatch(state: ResponderState, version: int, answer: str) -> None:
    _, destination, (kind, request) = reached(state)
    refused(destination, (kind, bytes((version,)) + request[1:]), answer)
    assert destination.side.error is not None
    assert destination.side.error.kind is failures.SPDM_VERSION


@pytest.mark.parametrize(
    ("state", "change", "answer"),
    [
        (S.START, lambda m: m + b"\0", "107f0100"),
        (S.START, lambda m: m[:1], "107f0100"),
        (S.VERSIONED, lambda m: m[:-1], "127f0100"),
        (S.VERSIONED, lambda m: m[:8] + b"\xc1" + m[9:], "127f0100"),
        (S.CAPABLE, lambda m: m + b"\0", "127f0100"),
        (S.CAPABLE, lambda m: m[:8] + b"\x90" + m[9:], "127f0100"),
        (S.NEGOTIATED, lambda m: m[:7] + b"\x58" + m[8:], "127f0100"),
        (S.NEGOTIATED, lambda m: m[:-1], "127f0100"),
        (S.NEGOTIATED, lambda m: m[:-1] + bytes((m[-1] ^ 1,)), "127fff06"),
        (S.NEGOTIATED, lambda m: m[:23] + b"\x31" + m[24:], "127fff06"),
        (S.KEYED, lambda m: m[:4] + b"\0\0" + m[6:], "127f0100"),
        (S.KEYED, lambda m: m[:40] + bytes(96) + m[136:], "127f0100"),
        (S.HANDSHAKE, lambda m: m + b"\0", "127f0100"),
        (S.HANDSHAKE, lambda m: m[:16] + b"\x04" + m[17:], "127fff06"),
        (S.TRANSFER, lambda m: m[:3] + b"\x09" + m[4:], "127f0100"),
        (S.TRANSFER, lambda m: m[:4] + b"\x02" + m[5:], "127f0100"),
        (S.STAGED, lambda m: m[:4] + b"\x01" + m[5:], "127f0100"),
        (S.STAGED, lambda m: m[:3] + b"\x02" + m[4:], "127f0100"),
        (S.ATTESTED, lambda m: m[:-1], "127f0100"),
        (S.ATTESTED, lambda m: m[:10] + bytes((m[10] ^ 1,)) + m[11:], "127f0600"),
        (S.ATTESTED, lambda m: m[:-1] + bytes((m[-1] ^ 1,)), "127f0600"),
    ],
)
def test_a_malformed_request_is_answered_by_what_is_wrong_with_it(state, change, answer: str) -> None:
    _, destination, (kind, request) = reached(state)
    refused(destination, (kind, change(request)), answer)


@pytest.mark.parametrize(
    "frame",
    [
        b"SPDX" + push_frame(PLAIN, b"\x10\x84\0\0")[4:],
        bytes.fromhex("5350444d 0002 01 00 04000000 10840000"),
        bytes.fromhex("5350444d 0001 03 00 04000000 10840000"),
        bytes.fromhex("5350444d 0001 00 00 04000000 10840000"),
        bytes.fromhex("5350444d 0001 01 01 04000000 10840000"),
        bytes.fromhex("5350444d 0001 01 00 00000000"),
        bytes.fromhex("5350444d 0001 01 00") + (MAX_BODY + 1).to_bytes(4, "little"),
        bytes.fromhex("5350444d 0001 01 00 ffffffff"),
    ],
)
@pytest.mark.parametrize("is_source", [True, False])
def test_a_wrong_transport_header_is_met_with_silence(frame: bytes, is_source: bool) -> None:  # noqa: FBT001
    end = make_end(is_source=is_source)
    end.side.take()
    end.side.receive(frame[:12])
    assert isinstance(end.side.error, SecureSessionError)
    assert end.side.error.kind is failures.SPDM_TRANSPORT
    assert end.side.take() == b""


def test_the_largest_body_is_read_before_it_is_judged() -> None:
    end = make_end(is_source=False)
    refused(end, (PLAIN, b"\x10\x84" + bytes(MAX_BODY - 2)), "107f0100")


@pytest.mark.parametrize("state", [*CLEAR, *IN_RECORDS])
def test_the_end_of_the_stream_is_a_failure_everywhere(state: ResponderState) -> None:
    source, destination, _ = reached(state)
    for end in (source, destination):
        end.side.receive(b"")
        assert end.side.error is not None
        assert (end.side.error.result, end.side.error.kind) == (6, failures.SPDM_ENDED)
        assert end.side.take() == b""


@pytest.mark.parametrize("state", CLEAR)
def test_a_record_before_finish_is_met_with_silence(state: ResponderState) -> None:
    _, destination, _ = reached(state)
    refused(destination, (SECURED, bytes.fromhex("fdfffdff") + bytes(60)), "")


@pytest.mark.parametrize("state", IN_RECORDS)
def test_a_record_that_cannot_be_opened_is_met_with_silence(state: ResponderState) -> None:
    _, _, (_, record) = reached(state)
    for offset in (0, 4, 12, 14, len(record) - 1):
        _, destination, (_, record) = reached(state)
        changed = bytearray(record)
        changed[offset] ^= 1
        refused(destination, (SECURED, bytes(changed)), "")


def test_a_record_is_taken_once() -> None:
    source, destination, record = reached(S.ESTABLISHED)
    destination.side.receive(push_frame(*record))
    assert destination.committed.keys == [SOURCE]
    destination.side.take()
    refused(destination, record, "")
    assert source.side.end is None


@pytest.mark.parametrize(
    ("state", "message", "answer"),
    [
        (S.ESTABLISHED, EndSession(Code.END_SESSION).push(), "127f0400"),
        (S.ESTABLISHED, vendor(Opcode(9)), "127fff06"),
        (S.ESTABLISHED, vendor(Opcode(3)), "127fff06"),
        (S.ESTABLISHED, vendor(Opcode(1)), "127fff06"),
        (S.ESTABLISHED, vendor(Opcode(5))[:-1], "127f0100"),
        (S.ESTABLISHED, b"\x11" + vendor(Opcode(5))[1:], "127f4100"),
        (S.ESTABLISHED, bytes.fromhex("12e90000"), "127f07e9"),
        (S.ESTABLISHED, ChunkGet(1, 0).push(), "127f0400"),
        (S.INFORMED, vendor(Opcode(5)), "127fff06"),
        (S.INFORMED, vendor(Opcode(9)), "127fff06"),
        (S.INFORMED, bytes.fromhex("12ec0100"), "127f0100"),
        (S.INFORMED, bytes.fromhex("12ec000000"), "127f0100"),
        (S.INFORMED, bytes.fromhex("12e50000"), "127f0400"),
    ],
)
def test_a_wrong_message_in_a_record_is_answered_in_a_record(state: ResponderState, message: bytes, answer: str):
    source, destination, _ = reached(state)
    session = source.side.session
    # The record of the honest request was taken off the wire: its sequence number is free again.
    session._sealer._sequence -= 1  # type: ignore[attr-defined]
    written = len(destination.committed.keys)
    ((kind, record),) = told(destination, sealed(source, message))
    assert kind is SECURED
    assert opened(source, record).hex() == answer
    assert destination.side.error is not None
    assert destination.side.error.result == 6
    assert len(destination.committed.keys) == written


@pytest.mark.parametrize(
    "error", [InvalidParameter(migtd_failures.VERSION_RANGE), TdxModuleError(migtd_failures.TDCALL_FAILED)]
)
def test_a_key_that_cannot_be_taken_is_told_to_the_source(error: MigTDError) -> None:
    source = make_end(is_source=True)
    destination = make_end(is_source=False, commit=Committed(error))
    record = at_responder(S.ESTABLISHED, source, destination)
    ((kind, answer),) = told(destination, record)
    assert kind is SECURED
    assert destination.side.error is error
    source.side.receive(push_frame(kind, answer))
    assert source.side.error is not None
    assert source.side.error.result is error.result
    assert source.committed.keys == []


@pytest.mark.parametrize("result", [r for r in MigrationResult if r])
@pytest.mark.parametrize("size", [822, 5006])
def test_missing_evidence_is_told_with_its_own_result(result: MigrationResult, size: int) -> None:
    error = peer_error(0xFF, result)
    source = make_end(is_source=True, evidence=Evidence(b"Q" * size, b"E"))
    destination = make_end(is_source=False, evidence=error)
    request = at_responder(S.HANDSHAKE if size == 822 else S.TRANSFER, source, destination)
    answer = f"127fff{result:02x}"
    if size != 822:
        answer = ChunkAck(1, 1, bytes.fromhex(answer)).push().hex()
    refused(destination, request, answer, result)
    source.side.receive(push_frame(PLAIN, bytes.fromhex(answer)))
    assert source.side.error is not None
    assert source.side.error.result is result


def test_a_target_td_with_attributes_is_refused_after_the_checks() -> None:
    history = TargetHistory(bytes(160) + b"\1" + bytes(111), bytes(512))
    source, destination = make_end(is_source=True, history=history), make_end(is_source=False)
    request = at_responder(S.HANDSHAKE, source, destination)
    refused(destination, request, "127fff01", MigrationResult.InvalidParameter)
    assert destination.side.error is not None
    assert destination.side.error.kind is migtd_failures.SERVTD_ATTR


def test_the_destination_keeps_what_it_was_shown_of_the_target_td() -> None:
    history = TargetHistory(bytes(range(48)) + bytes(224), bytes(512))
    source, destination = make_end(is_source=True, history=history), make_end(is_source=False)
    record = at_responder(S.ESTABLISHED, source, destination)
    destination.side.receive(push_frame(*record))
    assert destination.committed.servtd_ext == [history.servtd_ext]
    assert destination.committed.keys == [ExchangeInformation(SOURCE.msk, SOURCE.min_version, SOURCE.max_version)]


def test_evidence_that_fits_no_message_is_a_failure_of_its_own_side() -> None:
    source = make_end(is_source=True, evidence=Evidence(b"Q" * 65_000, b"E"))
    at = make_end(is_source=False, evidence=Evidence(b"q" * 65_500, b"e"))
    request = at_responder(S.HANDSHAKE, make_end(is_source=True), at)
    refused(at, request, "127fff06")
    with pytest.raises(RuntimeError):
        at_responder(S.HANDSHAKE, source, make_end(is_source=False))
    assert source.side.error is not None
    assert source.side.error.kind is failures.SPDM_MESSAGE_TOO_LARGE


def test_finish_waits_until_the_evidence_was_fetched() -> None:
    source, destination, _ = reached(S.STAGED)
    other, honest, finish = reached(S.ATTESTED)
    refused(destination, finish, "127f0400")
    assert source.side.end is other.side.end is honest.side.end is None


class LyingSigner(Signer):
    """Shows one key and signs with another."""

    def sign(self, context: bytes, digest: bytes) -> bytes:
        return KNOWN_RESPONDER.signer.sign(context, digest)


def test_finish_signed_with_another_key_is_refused_though_its_mac_is_right() -> None:
    """The reference answers so, and reports Success."""
    signer = LyingSigner(KNOWN_REQUESTER.signer.key, KNOWN_REQUESTER.signer.algorithm)
    source = make_end(is_source=True, material=replace(KNOWN_REQUESTER, signer=signer))
    destination = make_end(is_source=False)
    finish = at_responder(S.ATTESTED, source, destination)
    refused(destination, finish, "127f0600")


def test_chunks_may_carry_the_evidence_only() -> None:
    # Whatever came before, the last chunk makes the whole: put other messages in place of it.
    for code, answer in ((0x85, "127f0100"), (0x86, "127f0100"), (0xE5, "127f0400"), (0xEC, "127f0400")):
        _, destination, request = reached(S.TRANSFER)
        session = destination.side.session
        session._assembler._data[:4] = bytes((0x12, code, 0, 0))  # type: ignore[attr-defined]
        refused(destination, request, "120500010100" + answer)


def test_a_failed_evidence_has_its_class() -> None:
    error = MutualAttestationError(migtd_failures.GET_QUOTE_REFUSED)
    end = make_end(is_source=True, evidence=error)
    destination = make_end(is_source=False)
    with pytest.raises(RuntimeError):
        at_responder(S.HANDSHAKE, end, destination)
    assert end.side.error is error
    assert bodies(end.side.session.data_to_send()) == []


def test_information_in_clear_is_refused() -> None:
    _, destination, _ = reached(S.ATTESTED)
    message = MigrationInformation(Opcode.MIGRATION_INFORMATION_REQUEST, SOURCE).push()
    refused(destination, (PLAIN, message), "127fff06")

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Peers that break TLS 1.3 in the middle of a session, played by tlslite-ng, against either role of ours.

Each is refused with the alert that RFC 8446 names, the peer gets nothing of our key where it broke the handshake, and
our side has nothing to write. What RFC 8446 allows is accepted, however unusual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tlslite.constants import (
    TLS_1_3_HRR,
    AlertLevel,
    ContentType,
    GroupName,
    HandshakeType,
    KeyUpdateMessageType,
    SignatureScheme,
)
from tlslite.extensions import HRRKeyShareExtension, SrvSupportedVersionsExtension, TLSExtension
from tlslite.messages import Alert as AlertMessage
from tlslite.messages import (
    ApplicationData,
    CertificateRequest,
    ChangeCipherSpec,
    KeyUpdate,
    Message,
    NewSessionTicket,
    ServerHello,
)
from tlslite.tlsrecordlayer import TLSRecordLayer

from migtd import failures
from migtd.errors import MigrationResult
from migtd.ratls.testing import Side
from migtd.ratls.tls import Alert
from tests.interop.ours import (
    BOTH_ROLES,
    OUR_40,
    THEIR_40,
    assert_accepted,
    assert_failed,
    assert_refused_by_us,
    converse,
    our_side,
)
from tests.interop.tlslite_peer import (
    Act,
    Steps,
    Tamper,
    TlslitePeer,
    close_notify,
    handshake,
    say,
    send,
)

MAX_PLAINTEXT = 2**14
GARBAGE_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)
HELLOS = {True: HandshakeType.server_hello, False: HandshakeType.client_hello}
"""The peer's first message, by whether our side is the source."""

Replace = Callable[[Any], Iterable[Any]]


def instead_of(kind: int, replace: Replace, *, then_silent: bool = False) -> Tamper:
    """Replace the first handshake message of a type by others; `then_silent` swallows all that would follow."""
    seen = False

    def tamper(_peer: TlslitePeer, message: Any) -> Iterable[Any]:
        nonlocal seen
        if seen:
            return () if then_silent else (message,)
        if getattr(message, "handshakeType", None) != kind:
            return (message,)
        seen = True
        return replace(message)

    return tamper


def meet(
    *, is_source: bool, tamper: Tamper | None = None, script: Iterable[Act] | None = None
) -> tuple[Side, TlslitePeer]:
    options: dict[str, Any] = {} if tamper is None else {"tamper": tamper}
    if script is not None:
        options["script"] = script
    peer = TlslitePeer(is_client=not is_source, **options)
    return converse(our_side(is_source=is_source), peer), peer


def assert_handshake_refused(side: Side, peer: TlslitePeer, alert: Alert) -> None:
    assert_refused_by_us(side)
    assert peer.alert == alert
    assert peer.received == b""


def assert_session_refused(side: Side, peer: TlslitePeer, alert: Alert) -> None:
    """Refused behind the handshake: the peer may have our 40 bytes, we take nothing from it."""
    assert_failed(side, MigrationResult.SecureSessionError, failures.TLS_PROTOCOL)
    assert peer.alert == alert


# --- proofs that do not hold ------------------------------------------------------------------------------------------


def broken_signature(message: Any) -> Iterable[Any]:
    message.signature = bytearray(message.signature)
    message.signature[-1] ^= 1
    return (message,)


def signature_of_another_scheme(message: Any) -> Iterable[Any]:
    message.signatureAlgorithm = SignatureScheme.ecdsa_secp256r1_sha256
    return (message,)


def broken_finished(message: Any) -> Iterable[Any]:
    message.verify_data[0] ^= 1
    return (message,)


def short_finished(message: Any) -> Iterable[Any]:
    return (handshake(b"\x14\x00\x00\x20" + bytes(message.verify_data[:32])),)


@BOTH_ROLES
@pytest.mark.parametrize(
    ("kind", "replace", "alert"),
    [
        (HandshakeType.certificate_verify, broken_signature, Alert.decrypt_error),
        (HandshakeType.certificate_verify, signature_of_another_scheme, Alert.illegal_parameter),
        (HandshakeType.finished, broken_finished, Alert.decrypt_error),
        (HandshakeType.finished, short_finished, Alert.decode_error),
    ],
    ids=["certificate-verify", "certificate-verify-scheme", "finished", "short-finished"],
)
def test_a_wrong_proof_is_refused(kind: int, replace: Replace, alert: Alert, *, is_source: bool) -> None:
    side, peer = meet(is_source=is_source, tamper=instead_of(kind, replace))
    assert_handshake_refused(side, peer, alert)


# --- messages that are missing, early, double or empty ----------------------------------------------------------------


def left_out(_message: Any) -> Iterable[Any]:
    return ()


def twice(message: Any) -> Iterable[Any]:
    return (message, message)


def behind_application_data(message: Any) -> Iterable[Any]:
    return (ApplicationData().create(bytearray(THEIR_40)), message)


def behind_a_key_update(message: Any) -> Iterable[Any]:
    return (KeyUpdate().create(KeyUpdateMessageType.update_not_requested), message)


def behind_an_empty_record(message: Any) -> Iterable[Any]:
    return (Message(ContentType.handshake, bytearray()), message)


def behind_an_unknown_message(message: Any) -> Iterable[Any]:
    return (handshake(b"\x63\x00\x00\x02hi"), message)


def behind_an_unknown_record(message: Any) -> Iterable[Any]:
    return (Message(99, bytearray(b"hi")), message)


@BOTH_ROLES
@pytest.mark.parametrize("replace", [left_out, twice], ids=lambda replace: replace.__name__.replace("_", "-"))
@pytest.mark.parametrize(
    "kind", [HandshakeType.certificate, HandshakeType.certificate_verify], ids=["certificate", "verify"]
)
def test_a_proof_that_is_left_out_or_given_twice_is_refused(replace: Replace, kind: int, *, is_source: bool) -> None:
    side, peer = meet(is_source=is_source, tamper=instead_of(kind, replace))
    assert_handshake_refused(side, peer, Alert.unexpected_message)


@BOTH_ROLES
@pytest.mark.parametrize(
    "replace",
    [
        behind_application_data,
        behind_a_key_update,
        behind_an_empty_record,
        behind_an_unknown_message,
        behind_an_unknown_record,
    ],
    ids=lambda replace: replace.__name__.replace("_", "-"),
)
@pytest.mark.parametrize("kind", [HandshakeType.certificate, HandshakeType.finished], ids=["certificate", "finished"])
def test_what_has_no_place_before_finished_is_refused(replace: Replace, kind: int, *, is_source: bool) -> None:
    side, peer = meet(is_source=is_source, tamper=instead_of(kind, replace))
    assert_handshake_refused(side, peer, Alert.unexpected_message)


@BOTH_ROLES
def test_application_data_before_the_first_hello_is_refused(*, is_source: bool) -> None:
    plain = b"\x17\x03\x03\x00\x28" + THEIR_40
    side, peer = meet(is_source=is_source, tamper=instead_of(HELLOS[is_source], lambda message: (plain, message)))
    assert_handshake_refused(side, peer, Alert.unexpected_message)


@BOTH_ROLES
def test_an_empty_certificate_list_with_a_signature_behind_it_is_refused(*, is_source: bool) -> None:
    empty = handshake(b"\x0b\x00\x00\x04\x00\x00\x00\x00")
    side, peer = meet(is_source=is_source, tamper=instead_of(HandshakeType.certificate, lambda _: (empty,)))
    assert_handshake_refused(side, peer, Alert.decode_error if is_source else Alert.certificate_required)


# --- extensions that nobody asked for, hellos that lead nowhere -------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [HandshakeType.server_hello, HandshakeType.encrypted_extensions],
    ids=["server-hello", "encrypted-extensions"],
)
@pytest.mark.parametrize("extension", [0, 1, 16], ids=["server-name", "max-fragment-length", "alpn"])
def test_a_server_that_answers_an_extension_that_was_not_offered_is_refused(kind: int, extension: int) -> None:
    def extend(message: Any) -> Iterable[Any]:
        message.extensions = [*(message.extensions or []), TLSExtension(extType=extension).create(bytearray())]
        return (message,)

    side, peer = meet(is_source=True, tamper=instead_of(kind, extend))
    assert_handshake_refused(side, peer, Alert.unsupported_extension)


@pytest.mark.parametrize("group", [GroupName.secp384r1, GroupName.x25519], ids=["the-one-we-sent", "one-we-lack"])
def test_a_server_that_asks_for_another_hello_without_need_is_refused(group: int) -> None:
    def retry(hello: Any) -> Iterable[Any]:
        extensions = [SrvSupportedVersionsExtension().create((3, 4)), HRRKeyShareExtension().create(group)]
        request = ServerHello()
        request.create((3, 3), TLS_1_3_HRR, hello.session_id, hello.cipher_suite, extensions=extensions)
        return (request,)

    side, peer = meet(is_source=True, tamper=instead_of(HandshakeType.server_hello, retry, then_silent=True))
    assert_handshake_refused(side, peer, Alert.illegal_parameter)


# --- records --------------------------------------------------------------------------------------------------------


def with_a_flipped_bit(peer: TlslitePeer, act: Steps) -> Steps:
    yield from act
    peer.sock.flush()
    peer.pipe.outgoing[-1] ^= 1


def twice_on_the_wire(peer: TlslitePeer, act: Steps) -> Steps:
    peer.sock.flush()
    before = len(peer.pipe.outgoing)
    yield from act
    peer.sock.flush()
    peer.pipe.outgoing += peer.pipe.outgoing[before:]


def on_the_wire(kind: int, change: Callable[[TlslitePeer, Steps], Steps]) -> Tamper:
    """Change the record of a handshake message behind its encryption."""

    def tamper(peer: TlslitePeer, message: Any) -> Iterable[Any]:
        if getattr(message, "handshakeType", None) != kind:
            return (message,)
        for _ in change(peer, TLSRecordLayer._sendMsg(peer, message)):
            pass
        return ()

    return tamper


@BOTH_ROLES
@pytest.mark.parametrize("change", [with_a_flipped_bit, twice_on_the_wire], ids=["flipped-bit", "replayed"])
@pytest.mark.parametrize(
    "kind", [HandshakeType.certificate, HandshakeType.certificate_verify, HandshakeType.finished],
    ids=["certificate", "certificate-verify", "finished"],
)  # fmt: skip
def test_a_record_of_the_handshake_that_does_not_decrypt_is_refused(
    kind: int, change: Callable[[TlslitePeer, Steps], Steps], *, is_source: bool
) -> None:
    side, peer = meet(is_source=is_source, tamper=on_the_wire(kind, change))
    assert_failed(side, MigrationResult.SecureSessionError, failures.TLS_PROTOCOL)
    assert peer.alert == Alert.bad_record_mac


@BOTH_ROLES
def test_a_record_of_the_exchange_that_does_not_decrypt_is_refused(*, is_source: bool) -> None:
    script = (lambda peer: with_a_flipped_bit(peer, peer.writeAsync(THEIR_40)),)
    side, peer = meet(is_source=is_source, script=script)
    assert_session_refused(side, peer, Alert.bad_record_mac)


@BOTH_ROLES
def test_a_replayed_half_of_the_exchange_is_refused(*, is_source: bool) -> None:
    script = (lambda peer: twice_on_the_wire(peer, peer.writeAsync(THEIR_40[:20])),)
    side, peer = meet(is_source=is_source, script=script)
    assert_session_refused(side, peer, Alert.bad_record_mac)


@BOTH_ROLES
@pytest.mark.parametrize("size", [MAX_PLAINTEXT + 256 + 1, 0xFFFF])
def test_an_oversized_record_is_refused_in_the_handshake(size: int, *, is_source: bool) -> None:
    record = b"\x17\x03\x03" + size.to_bytes(2) + bytes(size)
    side, peer = meet(is_source=is_source, tamper=instead_of(HandshakeType.certificate, lambda _: (record,)))
    assert_handshake_refused(side, peer, Alert.record_overflow)


@BOTH_ROLES
def test_an_oversized_first_record_is_refused(*, is_source: bool) -> None:
    record = b"\x16\x03\x03\x40\x01" + bytes(MAX_PLAINTEXT + 1)
    side, peer = meet(is_source=is_source, tamper=instead_of(HELLOS[is_source], lambda _: (record,)))
    assert_handshake_refused(side, peer, Alert.record_overflow)


@BOTH_ROLES
def test_a_record_with_too_much_in_it_is_refused_in_the_exchange(*, is_source: bool) -> None:
    too_much = Message(ContentType.application_data, bytearray(MAX_PLAINTEXT + 1))
    side, peer = meet(is_source=is_source, script=(lambda peer: peer._sendMsgThroughSocket(too_much),))
    assert_session_refused(side, peer, Alert.record_overflow)


# --- behind the handshake ---------------------------------------------------------------------------------------------


@BOTH_ROLES
@pytest.mark.parametrize("request_ours", [0, 1], ids=["alone", "asking-for-ours"])
@pytest.mark.parametrize("said_before", [0, 20])
def test_a_key_update_is_followed(request_ours: int, said_before: int, *, is_source: bool) -> None:
    first = (say(THEIR_40[:said_before]),) if said_before else ()
    script = (*first, lambda peer: peer.send_keyupdate_request(request_ours), say(THEIR_40[said_before:]))
    side, peer = meet(is_source=is_source, script=script)
    assert_accepted(side)
    assert peer.received == OUR_40


@BOTH_ROLES
def test_a_key_update_of_an_unknown_kind_is_refused(*, is_source: bool) -> None:
    side, peer = meet(is_source=is_source, script=(send(KeyUpdate().create(2)), say(THEIR_40)))
    assert_session_refused(side, peer, Alert.illegal_parameter)


@BOTH_ROLES
def test_data_under_the_old_key_behind_a_key_update_is_refused(*, is_source: bool) -> None:
    script = (send(KeyUpdate().create(KeyUpdateMessageType.update_not_requested)), say(THEIR_40))
    side, peer = meet(is_source=is_source, script=script)
    assert_session_refused(side, peer, Alert.bad_record_mac)


def test_a_session_ticket_from_a_client_is_refused() -> None:
    ticket = NewSessionTicket().create(60, 1, bytearray(8), bytearray(32), [])
    side, peer = meet(is_source=False, script=(send(ticket), say(THEIR_40)))
    assert_session_refused(side, peer, Alert.unexpected_message)


def test_a_server_that_asks_for_a_certificate_once_more_is_refused() -> None:
    request = CertificateRequest((3, 4))
    request.create(context=b"again", sig_algs=[SignatureScheme.ecdsa_secp384r1_sha384])
    side, peer = meet(is_source=True, script=(send(request), say(THEIR_40)))
    assert_session_refused(side, peer, Alert.unexpected_message)


@BOTH_ROLES
@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        (ContentType.handshake, b"\x14\x00\x00\x30" + bytes(48)),
        (ContentType.handshake, b"\x00\x00\x00\x00"),
        (ContentType.handshake, b""),
        (99, b"hi"),
    ],
    ids=["finished", "hello-request", "empty-handshake", "unknown-record"],
)
def test_what_has_no_place_behind_the_handshake_is_refused(
    content_type: int, message: bytes, *, is_source: bool
) -> None:
    script = (send(Message(content_type, bytearray(message))), say(THEIR_40))
    side, peer = meet(is_source=is_source, script=script)
    assert_session_refused(side, peer, Alert.unexpected_message)


def test_a_change_cipher_spec_behind_the_handshake_is_refused_by_our_server() -> None:
    side, peer = meet(is_source=False, script=(send(ChangeCipherSpec().create()), say(THEIR_40)))
    assert_session_refused(side, peer, Alert.unexpected_message)


@BOTH_ROLES
@pytest.mark.parametrize(
    "act", [say(b""), send(ChangeCipherSpec().create())], ids=["empty-record", "change-cipher-spec"]
)
def test_a_flood_of_records_that_carry_nothing_is_refused(act: Act, *, is_source: bool) -> None:
    side, peer = meet(is_source=is_source, script=(*[act] * 200, say(THEIR_40)))
    assert_session_refused(side, peer, Alert.unexpected_message)


@BOTH_ROLES
def test_empty_records_of_application_data_are_skipped(*, is_source: bool) -> None:
    script = (*[say(b"")] * 5, say(THEIR_40[:1]), *[say(b"")] * 5, say(THEIR_40[1:]))
    side, peer = meet(is_source=is_source, script=script)
    assert_accepted(side)
    assert peer.received == OUR_40


# --- ends and alerts --------------------------------------------------------------------------------------------------


def stages(*, is_source: bool) -> list[int]:
    """Handshake messages of the peer in order."""
    if is_source:
        return [
            HandshakeType.server_hello,
            HandshakeType.encrypted_extensions,
            HandshakeType.certificate_request,
            HandshakeType.certificate,
            HandshakeType.certificate_verify,
            HandshakeType.finished,
        ]
    return [
        HandshakeType.client_hello,
        HandshakeType.certificate,
        HandshakeType.certificate_verify,
        HandshakeType.finished,
    ]


def every_stage(*, without: int | None = None) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("is_source", "kind"),
        [
            pytest.param(each, kind, id=f"{'our-client' if each else 'our-server'}-{HandshakeType.toStr(kind)}")
            for each in (True, False)
            for kind in stages(is_source=each)
            if kind != without
        ],
    )


EVERY_STAGE = every_stage()
EVERY_STAGE_BUT_A_FIRST_HELLO = every_stage(without=HandshakeType.client_hello)


@EVERY_STAGE_BUT_A_FIRST_HELLO
def test_close_notify_in_the_handshake_is_the_end_of_the_stream(kind: int, *, is_source: bool) -> None:
    tamper = instead_of(kind, lambda _: (close_notify(),), then_silent=True)
    side, peer = meet(is_source=is_source, tamper=tamper)
    assert_failed(side, MigrationResult.NetworkError, failures.TRANSPORT_ENDED)
    assert peer.received == b""


@EVERY_STAGE
def test_a_peer_that_falls_silent_in_the_handshake_is_the_end_of_the_stream(kind: int, *, is_source: bool) -> None:
    side, peer = meet(is_source=is_source, tamper=instead_of(kind, left_out, then_silent=True))
    assert_failed(side, MigrationResult.NetworkError, failures.TRANSPORT_ENDED)
    assert peer.received == b""


@EVERY_STAGE_BUT_A_FIRST_HELLO
def test_a_fatal_alert_in_the_handshake_is_a_refusal(kind: int, *, is_source: bool) -> None:
    alert = AlertMessage().create(Alert.internal_error)
    side, peer = meet(is_source=is_source, tamper=instead_of(kind, lambda _: (alert,), then_silent=True))
    error = assert_failed(side, MigrationResult.SecureSessionError, failures.TLS_ALERT)
    assert error.detail == "internal_error (80)"
    assert peer.received == b""


@BOTH_ROLES
def test_an_alert_is_fatal_in_tls_1_3_although_it_says_warning(*, is_source: bool) -> None:
    alert = AlertMessage().create(Alert.internal_error, AlertLevel.warning)
    tamper = instead_of(HandshakeType.certificate, lambda _: (alert,), then_silent=True)
    side, peer = meet(is_source=is_source, tamper=tamper)
    assert_failed(side, MigrationResult.SecureSessionError, failures.TLS_ALERT)
    assert peer.received == b""


@pytest.mark.parametrize(
    "alert", [close_notify(), AlertMessage().create(Alert.internal_error)], ids=["close-notify", "fatal"]
)
def test_an_alert_instead_of_the_first_hello_is_out_of_place(alert: Any) -> None:
    side, peer = meet(
        is_source=False, tamper=instead_of(HandshakeType.client_hello, lambda _: (alert,), then_silent=True)
    )
    assert_handshake_refused(side, peer, Alert.unexpected_message)


@BOTH_ROLES
@pytest.mark.parametrize("size", [0, 1, 39])
def test_close_notify_before_the_40_bytes_is_the_end_of_the_stream(size: int, *, is_source: bool) -> None:
    first = (say(THEIR_40[:size]),) if size else ()
    side, _ = meet(is_source=is_source, script=(*first, send(close_notify())))
    assert_failed(side, MigrationResult.NetworkError, failures.TRANSPORT_ENDED)


@BOTH_ROLES
def test_close_notify_behind_the_40_bytes_is_a_good_end(*, is_source: bool) -> None:
    side, peer = meet(is_source=is_source, script=(say(THEIR_40), send(close_notify())))
    assert_accepted(side)
    assert peer.received == OUR_40


@BOTH_ROLES
def test_a_fatal_alert_in_the_exchange_is_a_refusal(*, is_source: bool) -> None:
    alert = AlertMessage().create(Alert.access_denied)
    side, _ = meet(is_source=is_source, script=(say(THEIR_40[:20]), send(alert)))
    error = assert_failed(side, MigrationResult.SecureSessionError, failures.TLS_ALERT)
    assert error.detail == "access_denied (49)"

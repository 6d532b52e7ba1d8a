# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Peers that break TLS 1.3 in the middle of a session, played by tlslite-ng, against either role of ours.

Each is refused with the alert that RFC 8446 names, the peer gets nothing of our key where it broke the handshake, and
our side has nothing to write (misbehaviours.py). What RFC 8446 allows is accepted, however unusual.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from tlslite.constants import AlertLevel, HandshakeType
from tlslite.messages import Alert as AlertMessage

from migtd import failures
from migtd.errors import MigrationResult
from migtd.observer import Phase
from migtd.ratls.testing import Side, converse
from migtd.ratls.tls import Alert
from tests.interop.misbehaviours import MISBEHAVIOURS, PAGE, Misbehaviour, page_with_table
from tests.interop.ours import BOTH_ROLES, OUR_40, THEIR_40, assert_accepted, assert_failed, our_side
from tests.interop.tampering import instead_of, left_out
from tests.interop.tlslite_peer import Act, Tamper, TlslitePeer, close_notify, say, send


def meet(
    *, is_source: bool, tamper: Tamper | None = None, script: Iterable[Act] | None = None
) -> tuple[Side, TlslitePeer]:
    options: dict[str, Any] = {} if tamper is None else {"tamper": tamper}
    if script is not None:
        options["script"] = script
    peer = TlslitePeer(is_client=not is_source, **options)
    return converse(our_side(is_source=is_source), peer), peer


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "is_source"),
    [
        pytest.param(row, is_source, id=f"{row.what} - our {'client' if is_source else 'server'}")
        for row in MISBEHAVIOURS
        for is_source in row.ours
    ],
)
def test_a_wrong_peer_is_refused_with_the_right_alert_and_gets_no_key(row: Misbehaviour, *, is_source: bool) -> None:
    peer = TlslitePeer(is_client=not is_source, **row.options(is_source))
    side = converse(our_side(is_source=is_source), peer)
    error = assert_failed(side, row.result, row.kind)
    if row.by_peer:
        assert peer.alert is None
        assert row.kind is not failures.TLS_ALERT or error.detail == f"{row.alert.name} ({row.alert.value})"  # type: ignore[union-attr]
    else:
        assert peer.alert == row.alert
        assert peer.complaint is None
    if not row.too_late:
        assert peer.received == b""
        if is_source or not row.by_peer:
            assert Phase.EXCHANGE not in [getattr(event, "phase", None) for event in side.events]


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page_with_table(text) == text, "run `python -m tests.interop.misbehaviours`"


# --- what is allowed --------------------------------------------------------------------------------------------------


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
    assert_failed(side, MigrationResult.SecureSessionError, failures.TLS_PROTOCOL)
    assert (peer.alert, peer.received) == (Alert.unexpected_message, b"")


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

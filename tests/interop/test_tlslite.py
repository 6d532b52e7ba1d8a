# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Our RA-TLS and tlslite-ng: the right peer is accepted in either role (wrong ones: test_tlslite_misbehaviour.py)."""

from __future__ import annotations

from typing import Any

import pytest
from tlslite.constants import CipherSuite, GroupName, HandshakeType
from tlslite.extensions import TLSExtension

from migtd import failures
from migtd.errors import MigrationResult
from migtd.migration.data import pull_exchange_information
from migtd.ratls.certificate import make_certificate, migration_extensions
from migtd.ratls.testing import converse
from migtd.ratls.tls import Alert
from tests.interop.certificates import CLIENT_AUTH, SERVER_AUTH, builder_certificate, reference_certificate
from tests.interop.ours import (
    BOTH_ROLES,
    OUR_40,
    THEIR_40,
    assert_accepted,
    assert_refused_by_us,
    meet_process,
    our_side,
)
from tests.interop.tampering import with_settings
from tests.interop.tlslite_peer import KEY, NONE, Credentials, TlslitePeer

# --- the right peer -------------------------------------------------------------------------------------------------


@BOTH_ROLES
def test_a_peer_with_the_profile_is_accepted_and_both_get_the_40_bytes(*, is_source: bool) -> None:
    peer = TlslitePeer(is_client=not is_source)
    side = converse(our_side(is_source=is_source), peer)
    assert_accepted(side)
    assert peer.received == OUR_40
    assert (peer.version, peer.session.cipherSuite) == ((3, 4), CipherSuite.TLS_AES_256_GCM_SHA384)
    assert peer.ecdhCurve == GroupName.secp384r1
    assert (peer.alert, peer.complaint) == (None, None)


@BOTH_ROLES
@pytest.mark.parametrize("encoding", ["our-own", "the-references"])
def test_the_certificate_profile_is_accepted_in_strict_der_and_with_explicit_critical_false(
    encoding: str, *, is_source: bool
) -> None:
    own = make_certificate(KEY, migration_extensions(our_evidence()))
    shown = own if encoding == "our-own" else reference_certificate(KEY)
    assert (b"\x01\x01\x00\x04" in shown) == (encoding == "the-references")
    peer = TlslitePeer(is_client=not is_source, credentials=Credentials(KEY, (shown,)))
    assert_accepted(converse(our_side(is_source=is_source), peer))
    assert peer.received == OUR_40


def our_evidence() -> Any:
    return our_side(is_source=True).evidence


@BOTH_ROLES
def test_tlslite_reads_our_certificate_and_holds_us_to_its_key(*, is_source: bool) -> None:
    peer = TlslitePeer(is_client=not is_source)
    converse(our_side(is_source=is_source), peer)
    chain = peer.session.clientCertChain if is_source else peer.session.serverCertChain
    assert chain.getNumCerts() == 1
    assert chain.getEndEntityPublicKey().curve_name == "NIST384p"


def test_a_client_that_first_offers_another_groups_share_is_asked_again_and_accepted() -> None:
    settings = with_settings(eccCurves=["x25519", "secp256r1", "secp384r1"], keyShares=["x25519", "secp256r1"])
    hellos: list[Any] = []

    def count(_peer: TlslitePeer, message: Any) -> tuple[Any, ...]:
        if getattr(message, "handshakeType", None) == HandshakeType.client_hello:
            hellos.append([share.group for share in message.getExtension(51).client_shares])
        return (message,)

    peer = TlslitePeer(is_client=True, settings=settings, tamper=count)
    assert_accepted(converse(our_side(is_source=False), peer))
    assert peer.received == OUR_40
    assert hellos == [[GroupName.x25519, GroupName.secp256r1], [GroupName.secp384r1]]


@BOTH_ROLES
@pytest.mark.parametrize("size", [1, 7, 100])
def test_messages_may_come_in_many_small_records(size: int, *, is_source: bool) -> None:
    peer = TlslitePeer(is_client=not is_source, record_size=size)
    assert_accepted(converse(our_side(is_source=is_source), peer))
    assert peer.received == OUR_40


def test_a_client_that_offers_unknown_values_everywhere_is_accepted() -> None:
    def grease(_peer: TlslitePeer, message: Any) -> tuple[Any, ...]:
        if getattr(message, "handshakeType", None) == HandshakeType.client_hello:
            message.cipher_suites = [0x1A1A, *message.cipher_suites, 0xEEEE]
            message.getExtension(43).versions.insert(0, (0x2A, 0x2A))
            message.getExtension(10).groups.insert(0, 0x3A3A)
            message.getExtension(13).sigalgs.insert(0, (0x4A, 0x4A))
            message.extensions.insert(0, TLSExtension(extType=0x5A5A).create(bytearray()))
            message.extensions.append(TLSExtension(extType=0xFF77).create(bytearray(b"private use" * 30)))
        return (message,)

    peer = TlslitePeer(is_client=True, tamper=grease)
    assert_accepted(converse(our_side(is_source=False), peer))
    assert peer.received == OUR_40


def test_a_server_that_asks_for_the_certificate_with_unknown_extensions_is_accepted() -> None:
    def extend(_peer: TlslitePeer, message: Any) -> tuple[Any, ...]:
        if getattr(message, "handshakeType", None) == HandshakeType.certificate_request:
            message.extensions.append(TLSExtension(extType=0xFF77).create(bytearray(b"anything")))
        return (message,)

    peer = TlslitePeer(is_client=False, tamper=extend)
    assert_accepted(converse(our_side(is_source=True), peer))
    assert peer.received == OUR_40


def test_session_tickets_of_a_server_are_ignored() -> None:
    settings = with_settings(ticketKeys=[bytearray(32)], ticket_count=3)
    sent: list[Any] = []

    def extend(_peer: TlslitePeer, message: Any) -> tuple[Any, ...]:
        if getattr(message, "handshakeType", None) == HandshakeType.new_session_ticket:
            message.extensions.append(TLSExtension(extType=0xFF77).create(bytearray(b"anything")))
            sent.append(message)
        return (message,)

    peer = TlslitePeer(is_client=False, settings=settings, tamper=extend)
    assert_accepted(converse(our_side(is_source=True), peer))
    assert len(sent) == 3


def test_a_ticket_of_our_server_resumes_nothing() -> None:
    first = TlslitePeer(is_client=True)
    assert_accepted(converse(our_side(is_source=False), first))
    assert first.tickets
    offered: list[bool] = []

    def note(_peer: TlslitePeer, message: Any) -> tuple[Any, ...]:
        if getattr(message, "handshakeType", None) == HandshakeType.client_hello:
            offered.append(message.getExtension(41) is not None)
        return (message,)

    # The same session as before, this time without anything to show for it.
    again = TlslitePeer(is_client=True, credentials=NONE, resume=first.session, tamper=note)
    side = converse(our_side(is_source=False), again)
    assert offered == [True]
    assert_refused_by_us(side)
    assert again.alert == Alert.certificate_required
    assert again.received == b""


# --- over TCP, our side as `python -m migtd` ------------------------------------------------------------------------


@pytest.mark.engine
@BOTH_ROLES
async def test_our_process_migrates_with_tlslite(*, is_source: bool) -> None:
    peer = TlslitePeer(is_client=not is_source)
    outcome = await meet_process(peer, is_source=is_source)
    assert (outcome["result"], outcome["key_written"], outcome["version"]) == ("Success", True, 1)
    theirs = pull_exchange_information(peer.received)
    assert (theirs.min_version, theirs.max_version) == (0, 1)
    assert theirs.msk != pull_exchange_information(THEIR_40).msk


@pytest.mark.engine
@BOTH_ROLES
async def test_our_process_refuses_tlslite_with_a_wrong_certificate(*, is_source: bool) -> None:
    wrong = Credentials(KEY, (builder_certificate(KEY, eku=(SERVER_AUTH, CLIENT_AUTH)),))
    peer = TlslitePeer(is_client=not is_source, credentials=wrong)
    outcome = await meet_process(peer, is_source=is_source)
    assert outcome["code"] == MigrationResult.SecureSessionError
    assert (outcome["error"]["id"], outcome["key_written"]) == (failures.CERTIFICATE_NO_EKU.id, False)
    assert (peer.alert, peer.received) == (Alert.unknown_ca, b"")

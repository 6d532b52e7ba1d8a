# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Our RA-TLS and GnuTLS: the right peer is accepted in either role, one with other parameters refused.

Alerts are looked at where they arrive: what we send by what GnuTLS read, what it sends by our failure's detail.
"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from migtd import failures
from migtd.errors import FailureKind, MigrationResult
from migtd.migration.data import pull_exchange_information
from migtd.ratls.certificate import make_certificate, migration_extensions
from migtd.ratls.testing import converse
from migtd.ratls.tls import Alert
from tests.interop.certificates import CLIENT_AUTH, SERVER_AUTH, builder_certificate, chain, reference_certificate
from tests.interop.gnutls_peer import KEY, MISSING, ONE_KEY_SHARE, PROFILE, GnutlsPeer
from tests.interop.ours import (
    BOTH_ROLES,
    OUR_40,
    assert_accepted,
    assert_refused_by_peer,
    assert_refused_by_us,
    meet_process,
    our_side,
)

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "it is there")

P256_KEY = ec.generate_private_key(ec.SECP256R1())
WRONG_EKU = builder_certificate(KEY, eku=(SERVER_AUTH, CLIENT_AUTH))
PLAIN_UNKNOWN_CA = bytes((0x15, 3, 3, 0, 2, 2, Alert.unknown_ca))
"""How OpenSSL's client says no to a server's certificate: in plain, where the other side decrypts already."""


def instead(old: str, new: str) -> str:
    assert old in PROFILE
    return PROFILE.replace(old, new)


# --- the right peer -------------------------------------------------------------------------------------------------


@BOTH_ROLES
@pytest.mark.parametrize("priority", [PROFILE, "NORMAL", "SECURE256"])
def test_a_peer_that_speaks_the_profile_or_more_is_accepted_and_both_get_the_40_bytes(
    priority: str, *, is_source: bool
) -> None:
    peer = GnutlsPeer(is_client=not is_source, priority=priority)
    assert_accepted(converse(our_side(is_source=is_source), peer))
    assert peer.received == OUR_40
    assert peer.agreed == "(TLS1.3)-(ECDHE-SECP384R1)-(ECDSA-SECP384R1-SHA384)-(AES-256-GCM)"
    assert (peer.alert, peer.complaint) == (None, None)


@BOTH_ROLES
@pytest.mark.parametrize("encoding", ["our-own", "the-references"])
def test_the_certificate_profile_is_accepted_in_strict_der_and_with_explicit_critical_false(
    encoding: str, *, is_source: bool
) -> None:
    evidence: Any = our_side(is_source=True).evidence
    own = make_certificate(KEY, migration_extensions(evidence))
    shown = own if encoding == "our-own" else reference_certificate(KEY)
    peer = GnutlsPeer(is_client=not is_source, certificates=(shown,))
    assert_accepted(converse(our_side(is_source=is_source), peer))
    assert peer.received == OUR_40


@BOTH_ROLES
def test_gnutls_reads_our_one_certificate(*, is_source: bool) -> None:
    peer = GnutlsPeer(is_client=not is_source)
    converse(our_side(is_source=is_source), peer)
    (shown,) = peer.our_certificates
    key = x509.load_der_x509_certificate(shown).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)


def test_a_client_that_first_offers_another_groups_share_is_asked_again_and_accepted() -> None:
    both = instead("+GROUP-SECP384R1", "+GROUP-X25519:+GROUP-SECP384R1")
    peer = GnutlsPeer(is_client=True, priority=both, flags=ONE_KEY_SHARE)
    side = our_side(is_source=False)
    side.start()
    side.receive(peer.turn(b""))
    retry = side.take()
    assert not peer.done
    side.receive(peer.turn(retry))
    assert_accepted(converse(side, peer))
    assert peer.received == OUR_40


@BOTH_ROLES
@pytest.mark.parametrize("count", [1, 3])
def test_key_updates_amid_the_exchange_are_followed(count: int, *, is_source: bool) -> None:
    peer = GnutlsPeer(is_client=not is_source, key_updates=count)
    assert_accepted(converse(our_side(is_source=is_source), peer))
    assert peer.received == OUR_40


@BOTH_ROLES
def test_a_peer_that_closes_its_side_behind_the_40_bytes_is_accepted(*, is_source: bool) -> None:
    peer = GnutlsPeer(is_client=not is_source, closes=True)
    assert_accepted(converse(our_side(is_source=is_source), peer))
    assert peer.received == OUR_40


# --- wrong peers ----------------------------------------------------------------------------------------------------

OTHER_PARAMETERS = pytest.mark.parametrize(
    ("priority", "alert"),
    [
        (instead("TLS1.3", "TLS1.2"), Alert.protocol_version),
        (instead("AES-256-GCM", "AES-128-GCM"), Alert.handshake_failure),
        (instead("AES-256-GCM", "CHACHA20-POLY1305"), Alert.handshake_failure),
        (instead("SECP384R1", "X25519"), Alert.handshake_failure),
        (instead("SECP384R1", "SECP256R1"), Alert.handshake_failure),
    ],
    ids=["tls-1.2", "aes-128", "chacha20", "x25519", "p-256"],
)


@OTHER_PARAMETERS
def test_a_client_with_other_parameters_is_refused(priority: str, alert: Alert) -> None:
    peer = GnutlsPeer(is_client=True, priority=priority)
    assert_refused_by_us(converse(our_side(is_source=False), peer))
    assert peer.alert == alert
    assert peer.received == b""


@OTHER_PARAMETERS
def test_a_server_with_other_parameters_refuses_us(priority: str, alert: Alert) -> None:
    peer = GnutlsPeer(is_client=False, priority=priority)
    side = converse(our_side(is_source=True), peer)
    # It finds no suite in common before it looks at the version, or the other way round: by its release.
    expected = {alert, Alert.handshake_failure}
    assert peer.complaint in expected
    assert_refused_by_peer(side, Alert(peer.complaint))


WRONG_CERTIFICATES = pytest.mark.parametrize(
    ("key", "certificates", "kind"),
    [
        (KEY, (WRONG_EKU,), failures.CERTIFICATE_NO_EKU),
        (P256_KEY, (builder_certificate(P256_KEY),), failures.CERTIFICATE_MALFORMED),
        (KEY, chain(KEY), failures.CERTIFICATE_COUNT),
    ],
    ids=["wrong-eku", "p-256-certificate", "two-certificates"],
)


@WRONG_CERTIFICATES
def test_a_client_with_a_wrong_certificate_is_refused_before_it_gets_our_key(
    key: ec.EllipticCurvePrivateKey, certificates: tuple[bytes, ...], kind: FailureKind
) -> None:
    peer = GnutlsPeer(is_client=True, key=key, certificates=certificates)
    assert_refused_by_us(converse(our_side(is_source=False), peer), kind)
    assert peer.alert == Alert.unknown_ca
    assert peer.received == b""


@WRONG_CERTIFICATES
def test_a_server_with_a_wrong_certificate_is_refused_with_a_plain_alert(
    key: ec.EllipticCurvePrivateKey, certificates: tuple[bytes, ...], kind: FailureKind
) -> None:
    peer = GnutlsPeer(is_client=False, key=key, certificates=certificates)
    side = converse(our_side(is_source=True), peer)
    assert_refused_by_us(side, kind)
    assert side.sent.endswith(PLAIN_UNKNOWN_CA)
    # What it makes of the plain alert depends on its release; up to 3.7 it tries to decrypt it.
    assert peer.alert == Alert.unknown_ca or peer.complaint in {Alert.bad_record_mac, Alert.unexpected_message}
    assert peer.received == b""


def test_a_client_without_a_certificate_is_refused() -> None:
    peer = GnutlsPeer(is_client=True, certificates=())
    assert_refused_by_us(converse(our_side(is_source=False), peer))
    assert peer.alert == Alert.certificate_required
    assert peer.received == b""


def test_a_server_without_a_certificate_refuses_us() -> None:
    peer = GnutlsPeer(is_client=False, certificates=())
    assert_refused_by_peer(converse(our_side(is_source=True), peer), Alert.handshake_failure)
    assert peer.complaint == Alert.handshake_failure


# --- over TCP, our side as `python -m migtd` ------------------------------------------------------------------------


@pytest.mark.engine
@BOTH_ROLES
async def test_our_process_migrates_with_gnutls(*, is_source: bool) -> None:
    peer = GnutlsPeer(is_client=not is_source)
    outcome = await meet_process(peer, is_source=is_source)
    assert (outcome["result"], outcome["key_written"], outcome["version"]) == ("Success", True, 1)
    theirs = pull_exchange_information(peer.received)
    assert (theirs.min_version, theirs.max_version) == (0, 1)
    assert theirs.msk != bytes(32)


@pytest.mark.engine
@BOTH_ROLES
async def test_our_process_refuses_gnutls_with_a_wrong_certificate(*, is_source: bool) -> None:
    peer = GnutlsPeer(is_client=not is_source, certificates=(WRONG_EKU,))
    outcome = await meet_process(peer, is_source=is_source)
    assert outcome["code"] == MigrationResult.SecureSessionError
    assert (outcome["error"]["id"], outcome["key_written"]) == (failures.CERTIFICATE_NO_EKU.id, False)
    assert peer.received == b""


@pytest.mark.engine
async def test_our_process_reports_what_gnutls_refused_as_a_server() -> None:
    peer = GnutlsPeer(is_client=False, priority=instead("SECP384R1", "X25519"))
    outcome = await meet_process(peer, is_source=True)
    assert outcome["code"] == MigrationResult.SecureSessionError
    assert (outcome["error"]["id"], outcome["key_written"]) == (failures.TLS_ALERT.id, False)
    assert "handshake_failure (40)" in outcome["error"]["message"]

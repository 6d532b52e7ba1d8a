# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Peers that break the TLS profile, over TCP against a real host and MigTD, in both roles (ghci-ratls.md 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult
from migtd.migration.data import push_exchange_information
from migtd.ratls.certificate import OID_EKU_MIGTD
from migtd.ratls.testing import stranger_certificate
from migtd.ratls.tls import Alert
from vmm_stub.testing_live import LiveSide, live_side
from vmm_stub.testing_peer import (
    ALERT,
    APPLICATION_DATA,
    HANDSHAKE,
    INFORMATION,
    KEY,
    TlsPeer,
    TlsProfile,
    WirePeer,
    migtd_profile,
)
from vmm_stub.vmm.control.models import Role

BOTH_ROLES = pytest.mark.parametrize("role", list(Role), ids=lambda role: f"our-{role.value}")
NETWORK, SECURE = MigrationResult.NetworkError, MigrationResult.SecureSessionError
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Act: TypeAlias = Callable[[TlsPeer], Any]
RSA_KEY = rsa.generate_private_key(65537, 2048)
P256_KEY = ec.generate_private_key(ec.SECP256R1())


async def good(end: TlsPeer) -> None:
    """What a MigTD does."""
    await end.handshake()
    await end.exchange()
    await end.until_end()


async def stubborn(end: TlsPeer) -> None:
    """Say everything, whatever the other side thinks of it, and hear its last words."""
    try:
        await end.handshake()
        await end.exchange()
    finally:
        await end.until_end()


class Meeting:
    """One migration of our side against a TLS peer; `peer` and `side` stay for a look."""

    def __init__(self, role: Role, act: Act, profile: TlsProfile | None = None, deadlines: Deadlines | None = None):
        self.role, self.act, self.profile = role, act, profile
        self.deadlines = deadlines or Deadlines().with_all(2.0)
        self.peer: TlsPeer

    async def play(self, wire: WirePeer) -> None:
        self.peer = TlsPeer(wire, self.profile, is_client=self.role is Role.DESTINATION)
        await self.act(self.peer)

    async def expect(self, result: MigrationResult, *identities: str) -> None:
        """Run it. A refusal leaves no key, and the peer got nothing of ours."""
        async with live_side(self.role, self.deadlines) as side:
            outcome = await side.meet(self.play)
            told = outcome.error.id if outcome.error else ""
            assert (outcome.result, told in identities) == (result.name, bool(identities)), (outcome.result, told)
            await self._expect_state(side, written=result is MigrationResult.Success)

    async def _expect_state(self, side: LiveSide, *, written: bool) -> None:
        side.expect_key(written=written)
        side.expect_one_report()
        await side.expect_nothing_left()
        await side.still_serves()


async def expect_refusal(role: Role, profile: TlsProfile, *identities: str) -> None:
    """Our side refuses with a fatal alert, before it has said anything of its key."""
    meeting = Meeting(role, stubborn, profile)
    await meeting.expect(SECURE, *identities)
    assert meeting.peer.received == b""
    assert meeting.peer.alerts
    assert Alert.close_notify not in meeting.peer.alerts


# --- certificates --------------------------------------------------------------------------------------------------
ACCEPTED = {
    "a general builder's": stranger_certificate(KEY),
    # Validity is not among the checks of ghci-ratls.md 5: a MigTD has no clock that it could trust.
    "expired": stranger_certificate(KEY, until=1980),
    "not yet valid": stranger_certificate(KEY, since=2090, until=2099),
    "60 KB": stranger_certificate(KEY, log=bytes(60_000)),
    "95 KB": stranger_certificate(KEY, log=bytes(95_000)),
    "more usages": stranger_certificate(KEY, eku=("1.3.6.1.5.5.7.3.1", OID_EKU_MIGTD, "1.3.6.1.5.5.7.3.4")),
    "one byte of evidence": stranger_certificate(KEY, quote=b"q", log=b"l"),
}


@pytest.mark.parametrize("certificate", ACCEPTED.values(), ids=ACCEPTED)
@BOTH_ROLES
async def test_a_certificate_of_the_profile_is_accepted_whatever_else_it_says(role: Role, certificate: bytes) -> None:
    await Meeting(role, good, TlsProfile(certificate=certificate)).expect(MigrationResult.Success)


TLS_USAGES = ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")
REFUSED = {
    "without the MigTD usage": (
        stranger_certificate(KEY, eku=TLS_USAGES),
        "MIGTD-CERTIFICATE-NO-EKU",
    ),
    "without usages": (stranger_certificate(KEY, eku=()), "MIGTD-CERTIFICATE-NO-EKU"),
    "a usage like it": (stranger_certificate(KEY, eku=(OID_EKU_MIGTD + ".1",)), "MIGTD-CERTIFICATE-NO-EKU"),
    "without a quote": (stranger_certificate(KEY, quote=None), "MIGTD-CERTIFICATE-NO-EVIDENCE"),
    "with an empty quote": (stranger_certificate(KEY, quote=b""), "MIGTD-CERTIFICATE-NO-EVIDENCE"),
    "without a log": (stranger_certificate(KEY, log=None), "MIGTD-CERTIFICATE-NO-EVIDENCE"),
    "with an empty log": (stranger_certificate(KEY, log=b""), "MIGTD-CERTIFICATE-NO-EVIDENCE"),
    "110 KB": (stranger_certificate(KEY, log=bytes(110_000)), "MIGTD-TLS-PROTOCOL"),
    "1 MB": (stranger_certificate(KEY, log=bytes(1_000_000)), "MIGTD-TLS-PROTOCOL"),
}


@pytest.mark.parametrize(("certificate", "identity"), REFUSED.values(), ids=REFUSED)
@BOTH_ROLES
async def test_a_certificate_that_lacks_something_is_refused(role: Role, certificate: bytes, identity: str) -> None:
    await expect_refusal(role, TlsProfile(certificate=certificate), identity)


@pytest.mark.parametrize("key", [RSA_KEY, P256_KEY], ids=["rsa", "p-256"])
@BOTH_ROLES
async def test_a_key_of_another_kind_is_refused(role: Role, key: PrivateKey) -> None:
    await expect_refusal(
        role, TlsProfile(key=key, certificate=stranger_certificate(key)), "MIGTD-CERTIFICATE-MALFORMED"
    )


@pytest.mark.parametrize("more", [1, 5])
@BOTH_ROLES
async def test_more_than_one_certificate_is_refused(role: Role, more: int) -> None:
    await expect_refusal(role, TlsProfile(chain=(stranger_certificate(KEY),) * more), "MIGTD-CERTIFICATE-COUNT")


async def test_a_client_without_a_certificate_is_refused() -> None:
    await expect_refusal(Role.DESTINATION, TlsProfile(key=None), "MIGTD-TLS-PROTOCOL")


async def test_a_server_without_a_certificate_cannot_even_begin() -> None:
    await Meeting(Role.SOURCE, stubborn, TlsProfile(key=None)).expect(SECURE, "MIGTD-TLS-ALERT")


async def test_a_server_that_asks_for_no_certificate_is_refused() -> None:
    def configure(context: SSL.Context) -> None:
        migtd_profile(context)
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)

    meeting = Meeting(Role.SOURCE, stubborn, TlsProfile(configure=configure))
    await meeting.expect(SECURE, "MIGTD-CERTIFICATE-UNASKED")
    assert meeting.peer.received == b""


@BOTH_ROLES
async def test_a_peer_that_refuses_us_is_a_secure_session_error(role: Role) -> None:
    def configure(context: SSL.Context) -> None:
        migtd_profile(context)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: False)

    await Meeting(role, stubborn, TlsProfile(configure=configure)).expect(SECURE, "MIGTD-TLS-ALERT")


# --- version, suite, group -----------------------------------------------------------------------------------------
def only_tls_1_2(context: SSL.Context) -> None:
    context.set_max_proto_version(SSL.TLS1_2_VERSION)


def only_another_suite(context: SSL.Context) -> None:
    migtd_profile(context)
    context.set_tls13_ciphersuites(b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")


def only_another_group(context: SSL.Context) -> None:
    migtd_profile(context)
    context.set_tmp_ecdh(ec.SECP256R1())


@pytest.mark.parametrize("configure", [only_tls_1_2, only_another_suite, only_another_group])
@BOTH_ROLES
async def test_other_parameters_are_refused_by_whoever_sees_them_first(
    role: Role, configure: Callable[[SSL.Context], None]
) -> None:
    # A server answers what it cannot take with an alert; a client only hears of it.
    identity = "MIGTD-TLS-PROTOCOL" if role is Role.DESTINATION else "MIGTD-TLS-ALERT"
    meeting = Meeting(role, stubborn, TlsProfile(configure=configure))
    await meeting.expect(SECURE, identity)
    assert meeting.peer.received == b""


@BOTH_ROLES
async def test_a_peer_that_can_do_more_ends_up_with_our_parameters(role: Role) -> None:
    """A client that first guesses another group is asked again (HelloRetryRequest)."""
    await Meeting(role, good, TlsProfile(configure=lambda _: None)).expect(MigrationResult.Success)


# --- behind the handshake ------------------------------------------------------------------------------------------
def key_update(request: int) -> bytes:
    return b"\x18\0\0\x01" + bytes([request])


def injecting(content_type: int, content: bytes) -> Act:
    async def act(end: TlsPeer) -> None:
        try:
            await end.handshake()
            await end.inject(content_type, content)
        finally:
            await end.until_end()

    return act


@pytest.mark.parametrize("request_", [0, 1], ids=["not-requested", "requested"])
@pytest.mark.parametrize("times", [1, 10])
@BOTH_ROLES
async def test_a_key_update_is_part_of_tls_and_changes_nothing(role: Role, request_: int, times: int) -> None:
    async def act(end: TlsPeer) -> None:
        await end.handshake()
        for _ in range(times):
            await end.inject(HANDSHAKE, key_update(request_))
            end.update_key()
        await end.inject(APPLICATION_DATA, push_exchange_information(INFORMATION))
        await end.read()
        await end.until_end()

    await Meeting(role, act).expect(MigrationResult.Success)


BAD_MESSAGES = {
    "key update that is none": (HANDSHAKE, key_update(2)),
    "key update too short": (HANDSHAKE, b"\x18\0\0\0"),
    "client hello again": (HANDSHAKE, b"\x01\0\0\x26\x03\x03" + bytes(36)),
    "hello request": (HANDSHAKE, b"\0\0\0\0"),
    "finished again": (HANDSHAKE, b"\x14\0\0\x30" + bytes(48)),
    "certificate request": (HANDSHAKE, b"\x0d\0\0\x0b\x01\x01\0\x08\0\x0d\0\x04\0\x02\x05\x03"),
    "certificate": (HANDSHAKE, b"\x0b\0\0\x04\0\0\0\0"),
    "end of early data": (HANDSHAKE, b"\x05\0\0\0"),
    "unknown handshake message": (HANDSHAKE, b"\xfe\0\0\x01\0"),
    "handshake message of 16 MB": (HANDSHAKE, b"\x18\xff\xff\xff" + bytes(1000)),
    "empty handshake record": (HANDSHAKE, b""),
    "nothing but padding": (0, b""),
    "unknown content type": (99, b"hello"),
    "change cipher spec under the key": (20, b"\x01"),
    "record too large": (APPLICATION_DATA, bytes(16_385)),
    "alert of one byte": (ALERT, b"\x02"),
    "two alerts in one": (ALERT, b"\x02\x28\x02\x28"),
}


@pytest.mark.parametrize(("content_type", "content"), BAD_MESSAGES.values(), ids=BAD_MESSAGES)
@BOTH_ROLES
async def test_any_other_message_behind_the_handshake_is_a_secure_session_error(
    role: Role, content_type: int, content: bytes
) -> None:
    meeting = Meeting(role, injecting(content_type, content))
    await meeting.expect(SECURE, "MIGTD-TLS-PROTOCOL", "MIGTD-TLS-ALERT")


async def test_a_ticket_from_a_client_is_a_secure_session_error() -> None:
    ticket = b"\x04\0\0\x15" + bytes(8) + b"\x01\0" + b"\0\x08" + bytes(8) + b"\0\0"
    await Meeting(Role.DESTINATION, injecting(HANDSHAKE, ticket)).expect(SECURE, "MIGTD-TLS-PROTOCOL")


@pytest.mark.parametrize("description", [*(each for each in Alert if each not in (0, 90)), 255])
@BOTH_ROLES
async def test_an_alert_instead_of_the_key_is_a_secure_session_error(role: Role, description: int) -> None:
    await Meeting(role, injecting(ALERT, bytes([2, description]))).expect(SECURE, "MIGTD-TLS-ALERT")


@pytest.mark.parametrize("alerts", [b"\x01\0", b"\x02\0"], ids=["warning", "fatal"])
@BOTH_ROLES
async def test_close_notify_instead_of_the_key_is_a_network_error(role: Role, alerts: bytes) -> None:
    await Meeting(role, injecting(ALERT, alerts)).expect(NETWORK, "MIGTD-TRANSPORT-ENDED")


@pytest.mark.parametrize("record", [b"\x17\x03\x03\0\x20" + bytes(32), b"\x17\x03\x03\0\0", b"\x16\x03\x03\0\x01\0"])
@BOTH_ROLES
async def test_a_record_that_no_key_decrypts_is_a_secure_session_error(role: Role, record: bytes) -> None:
    async def act(end: TlsPeer) -> None:
        try:
            await end.handshake()
            await end.wire.send_frames(record)
        finally:
            await end.until_end()

    await Meeting(role, act).expect(SECURE, "MIGTD-TLS-PROTOCOL")


@pytest.mark.parametrize("request_", [0, 1], ids=["not-requested", "requested"])
@BOTH_ROLES
async def test_key_updates_for_ever_end_with_the_session_and_hold_up_nobody(role: Role, request_: int) -> None:
    async def act(end: TlsPeer) -> None:
        await end.handshake()
        while True:
            records = b""
            for _ in range(50):
                records += end.record(HANDSHAKE, key_update(request_))
                end.update_key()
            await end.wire.send_frames(records)

    limits = Deadlines(session=0.5, read=0.4, write=0.4, report=1, connect=1)
    meeting = Meeting(role, act, deadlines=limits)
    await meeting.expect(NETWORK, "MIGTD-DEADLINE-SESSION", "MIGTD-DEADLINE-WRITE")


@BOTH_ROLES
async def test_empty_records_for_ever_end_with_the_session(role: Role) -> None:
    async def act(end: TlsPeer) -> None:
        await end.handshake()
        while True:
            await end.wire.send_frames(b"".join(end.record(APPLICATION_DATA, b"") for _ in range(50)))

    limits = Deadlines(session=0.5, read=0.4, write=0.4, report=1, connect=1)
    async with live_side(role, limits) as side:
        outcome = await side.meet(Meeting(role, act).play)
        assert outcome.result in (NETWORK.name, SECURE.name)
        side.expect_key(written=False)
        side.expect_one_report()
        await side.expect_nothing_left()

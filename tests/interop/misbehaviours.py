# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What wrong peers do, each with the alert and the result that it leads to: the table of docs/interop.md.

test_tlslite_misbehaviour.py plays every row; `python -m tests.interop.misbehaviours` writes the table into the page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from tlslite.constants import ContentType, GroupName, HandshakeType, KeyUpdateMessageType, SignatureScheme
from tlslite.messages import ApplicationData, ChangeCipherSpec, Message, NewSessionTicket

from migtd import failures
from migtd.errors import FailureKind, MigrationResult
from migtd.ratls.tls import Alert
from tests.interop.certificates import CLIENT_AUTH, SERVER_AUTH, builder_certificate
from tests.interop.ours import ROOT, THEIR_40
from tests.interop.tampering import (
    EMPTY_LIST,
    MAX_PLAINTEXT,
    OVERSIZED,
    OVERSIZED_PLAIN,
    Options,
    acting,
    another_hello_wanted,
    behind,
    broken_finished,
    broken_signature,
    fatal,
    in_handshake,
    key_update,
    left_out,
    offering_other_signatures,
    on_the_wire,
    one,
    only_group,
    replacing,
    replacing_its_hello,
    request,
    short_finished,
    showing,
    signature_of_another_scheme,
    speaking,
    twice,
    twice_on_the_wire,
    with_a_flipped_bit,
    with_extension,
)
from tests.interop.tlslite_peer import KEY, NONE, RIGHT, Credentials, close_notify, handshake, say, send

PAGE: Final = ROOT / "docs" / "interop.md"
BEGIN: Final = "<!-- written by `python -m tests.interop.misbehaviours` -->\n"
END: Final = "<!-- end -->\n"
BOTH: Final = (True, False)
SOURCE: Final = (True,)
DESTINATION: Final = (False,)
_OURS: Final = {BOTH: "either", SOURCE: "source", DESTINATION: "destination"}
P256_KEY: Final = ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """One row. `ours` says which sides of ours meet it, by `is_source`.

    `alert` is ours, or the peer's if `by_peer`, or None where nobody sends one. `too_late` is what comes when our 40
    bytes may be under way already; everything else leaves the peer without a byte of them.
    """

    what: str
    options: Options
    alert: Alert | None
    ours: tuple[bool, ...] = BOTH
    kind: FailureKind = failures.TLS_PROTOCOL
    result: MigrationResult = MigrationResult.SecureSessionError
    by_peer: bool = False
    too_late: bool = False

    def row(self) -> str:
        """As a line of the table."""
        alert = "none" if self.alert is None else f"`{self.alert.name}`, {'its' if self.by_peer else 'ours'}"
        return f"| {self.what} | {_OURS[self.ours]} | {alert} | {self.result.name} ({self.result}) | {self.kind.id} |\n"


def table() -> str:
    """The table in Markdown."""
    head = "| the peer | our side | alert | our MigrationResult | our failure |\n|---|---|---|---|---|\n"
    return head + "".join(each.row() for each in MISBEHAVIOURS)


NO_DATA: Final = MigrationResult.NetworkError
SERVER_HELLO, EXTENSIONS = HandshakeType.server_hello, HandshakeType.encrypted_extensions
REQUEST, CERTIFICATE = HandshakeType.certificate_request, HandshakeType.certificate
VERIFY, FINISHED = HandshakeType.certificate_verify, HandshakeType.finished


def _parameters() -> list[Misbehaviour]:
    """A server of ours refuses what a client cannot do; a client of ours hears of it."""
    found = []
    for what, changes, alert in (
        ("speaks TLS 1.2 only", {"minVersion": (3, 3), "maxVersion": (3, 3)}, Alert.protocol_version),
        ("has TLS_AES_128_GCM_SHA256 only", {"cipherNames": ["aes128gcm"]}, Alert.handshake_failure),
        ("has TLS_CHACHA20_POLY1305_SHA256 only", {"cipherNames": ["chacha20-poly1305"]}, Alert.handshake_failure),
        ("has group x25519 only", only_group("x25519"), Alert.handshake_failure),
        ("has group secp256r1 only", only_group("secp256r1"), Alert.handshake_failure),
        ("has group secp521r1 only", only_group("secp521r1"), Alert.handshake_failure),
    ):
        found += [
            Misbehaviour(what, speaking(**changes), alert, DESTINATION),
            Misbehaviour(what, speaking(**changes), alert, SOURCE, failures.TLS_ALERT, by_peer=True),
        ]
    return found


def _certificates() -> list[Misbehaviour]:
    wrong_usage = Credentials(KEY, (builder_certificate(KEY, eku=(SERVER_AUTH, CLIENT_AUTH)),))
    p256 = Credentials(P256_KEY, (builder_certificate(P256_KEY),))
    double = showing(Credentials(KEY, RIGHT.certificates * 2))
    unusable = SignatureScheme.rsa_pss_rsae_sha256
    return [
        Misbehaviour(
            "shows a certificate without the MigTD usage", showing(wrong_usage), Alert.unknown_ca,
            kind=failures.CERTIFICATE_NO_EKU,
        ),
        Misbehaviour(
            "shows a P-256 certificate", showing(p256), Alert.unknown_ca, kind=failures.CERTIFICATE_MALFORMED
        ),
        Misbehaviour("shows two certificates", double, Alert.unknown_ca, SOURCE, failures.CERTIFICATE_COUNT),
        # A server sees the second certificate only when the handshake is done.
        Misbehaviour("shows two certificates", double, Alert.bad_record_mac, DESTINATION, failures.CERTIFICATE_COUNT),
        Misbehaviour(
            "shows no certificate", lambda _: {"credentials": NONE}, Alert.certificate_required, DESTINATION
        ),
        Misbehaviour(
            "shows an empty list and signs", replacing(CERTIFICATE, one(lambda: handshake(EMPTY_LIST))),
            Alert.certificate_required, DESTINATION,
        ),
        Misbehaviour(
            "shows an empty list and signs", replacing(CERTIFICATE, one(lambda: handshake(EMPTY_LIST))),
            Alert.decode_error, SOURCE,
        ),
        Misbehaviour(
            "asks for no certificate", lambda _: {"asks_for_certificate": False}, Alert.bad_record_mac, SOURCE,
            failures.CERTIFICATE_UNASKED,
        ),
        Misbehaviour(
            "asks for a certificate with signatures that our key cannot make",
            replacing(REQUEST, one(lambda: request(b"", unusable))), Alert.bad_record_mac, SOURCE,
            failures.CERTIFICATE_UNASKED,
        ),
        Misbehaviour(
            "does so with the longest context",
            replacing(REQUEST, one(lambda: request(bytes(255), unusable))), Alert.bad_record_mac, SOURCE,
            failures.CERTIFICATE_UNASKED,
        ),
        Misbehaviour(
            "takes no signature that our key can make",
            replacing(HandshakeType.client_hello, offering_other_signatures), Alert.handshake_failure, DESTINATION,
        ),
    ]  # fmt: skip


def _handshakes() -> list[Misbehaviour]:
    misplaced: list[tuple[str, Callable[[], Any]]] = [
        ("application data", lambda: ApplicationData().create(bytearray(THEIR_40))),
        ("a KeyUpdate", lambda: key_update(KeyUpdateMessageType.update_not_requested)),
        ("an empty handshake record", lambda: in_handshake(b"")),
        ("an unknown handshake message", lambda: handshake(b"\x63\x00\x00\x02hi")),
        ("a record of an unknown type", lambda: Message(99, bytearray(b"hi"))),
    ]
    plain = b"\x17\x03\x03\x00\x28" + THEIR_40
    return [
        Misbehaviour("signs with a wrong CertificateVerify", replacing(VERIFY, broken_signature), Alert.decrypt_error),
        Misbehaviour(
            "signs by another scheme", replacing(VERIFY, signature_of_another_scheme), Alert.illegal_parameter
        ),
        Misbehaviour("sends a wrong Finished", replacing(FINISHED, broken_finished), Alert.decrypt_error),
        Misbehaviour("sends a short Finished", replacing(FINISHED, short_finished), Alert.decode_error),
        *(
            Misbehaviour(f"{how} {name}", replacing(kind, replace), Alert.unexpected_message)
            for kind, name in ((CERTIFICATE, "its Certificate"), (VERIFY, "its CertificateVerify"))
            for how, replace in (("leaves out", left_out), ("repeats", twice))
        ),
        *(
            Misbehaviour(f"sends {what} before its {name}", replacing(kind, behind(extra)), Alert.unexpected_message)
            for kind, name in ((CERTIFICATE, "Certificate"), (FINISHED, "Finished"))
            for what, extra in misplaced
        ),
        Misbehaviour(
            "sends application data before its hello", replacing_its_hello(behind(lambda: plain)),
            Alert.unexpected_message,
        ),
        *(
            Misbehaviour(
                f"answers {name}, which was not offered, in {where}", replacing(kind, with_extension(extension)),
                Alert.unsupported_extension, SOURCE,
            )
            for kind, where in ((SERVER_HELLO, "ServerHello"), (EXTENSIONS, "EncryptedExtensions"))
            for extension, name in ((0, "server_name"), (1, "max_fragment_length"), (16, "ALPN"))
        ),
        *(
            Misbehaviour(
                f"asks for another hello with {what}",
                replacing(SERVER_HELLO, another_hello_wanted(group), then_silent=True), Alert.illegal_parameter, SOURCE,
            )
            for group, what in ((GroupName.secp384r1, "the same group"), (GroupName.x25519, "a group we lack"))
        ),
    ]  # fmt: skip


def _records() -> list[Misbehaviour]:
    mac = Alert.bad_record_mac
    too_much = Message(ContentType.application_data, bytearray(MAX_PLAINTEXT + 1))
    return [
        *(
            Misbehaviour(f"{how} its {name}", on_the_wire(kind, change), mac, too_late=True)
            for kind, name in ((CERTIFICATE, "Certificate"), (VERIFY, "CertificateVerify"), (FINISHED, "Finished"))
            for how, change in (("flips a bit in", with_a_flipped_bit), ("replays the record of", twice_on_the_wire))
        ),
        Misbehaviour(
            "flips a bit in its 40 bytes", acting(lambda peer: with_a_flipped_bit(peer, peer.writeAsync(THEIR_40))),
            mac, too_late=True,
        ),
        Misbehaviour(
            "replays half of its 40 bytes",
            acting(lambda peer: twice_on_the_wire(peer, peer.writeAsync(THEIR_40[:20]))), mac, too_late=True,
        ),
        Misbehaviour(
            "sends a record that is too long, in place of its hello", replacing_its_hello(one(lambda: OVERSIZED_PLAIN)),
            Alert.record_overflow,
        ),
        Misbehaviour(
            "sends a record that is too long, in place of its Certificate",
            replacing(CERTIFICATE, one(lambda: OVERSIZED)), Alert.record_overflow,
        ),
        Misbehaviour(
            "sends a record with too much in it", acting(lambda peer: peer._sendMsgThroughSocket(too_much)),
            Alert.record_overflow, too_late=True,
        ),
    ]  # fmt: skip


def _behind_the_handshake() -> list[Misbehaviour]:
    misplaced: list[tuple[str, Any, tuple[bool, ...]]] = [
        ("a Finished", in_handshake(b"\x14\x00\x00\x30" + bytes(48)), BOTH),
        ("a HelloRequest", in_handshake(b"\x00\x00\x00\x00"), BOTH),
        ("an empty handshake record", in_handshake(b""), BOTH),
        ("a record of an unknown type", Message(99, bytearray(b"hi")), BOTH),
        ("a session ticket", NewSessionTicket().create(60, 1, bytearray(8), bytearray(32), []), DESTINATION),
        ("a ChangeCipherSpec", ChangeCipherSpec().create(), DESTINATION),
        ("a CertificateRequest", request(b"again", SignatureScheme.ecdsa_secp384r1_sha384), SOURCE),
    ]
    say_all = say(THEIR_40)
    return [
        *(
            Misbehaviour(
                f"sends {what} behind the handshake", acting(send(message), say_all), Alert.unexpected_message, ours,
                too_late=True,
            )
            for what, message, ours in misplaced
        ),
        *(
            Misbehaviour(f"sends 200 {what}", acting(*[act] * 200, say_all), Alert.unexpected_message, too_late=True)
            for what, act in (("empty records", say(b"")), ("ChangeCipherSpecs", send(ChangeCipherSpec().create())))
        ),
        Misbehaviour(
            "sends a KeyUpdate of an unknown kind", acting(send(key_update(2)), say_all), Alert.illegal_parameter,
            too_late=True,
        ),
        Misbehaviour(
            "goes on under the old key behind a KeyUpdate",
            acting(send(key_update(KeyUpdateMessageType.update_not_requested)), say_all), Alert.bad_record_mac,
            too_late=True,
        ),
    ]  # fmt: skip


def _ends() -> list[Misbehaviour]:
    ended = failures.TRANSPORT_ENDED
    return [
        Misbehaviour(
            "refuses us with an alert in place of its Finished",
            replacing(FINISHED, one(lambda: fatal(Alert.internal_error)), then_silent=True), Alert.internal_error,
            kind=failures.TLS_ALERT, by_peer=True,
        ),
        Misbehaviour(
            "refuses us with an alert in the middle of its 40 bytes",
            acting(say(THEIR_40[:20]), send(fatal(Alert.access_denied))), Alert.access_denied,
            kind=failures.TLS_ALERT, by_peer=True, too_late=True,
        ),
        Misbehaviour(
            "falls silent in place of its Finished", replacing(FINISHED, left_out, then_silent=True), None,
            kind=ended, result=NO_DATA,
        ),
        Misbehaviour(
            "sends close_notify in place of its Finished", replacing(FINISHED, one(close_notify), then_silent=True),
            Alert.close_notify, kind=ended, result=NO_DATA, by_peer=True,
        ),
        Misbehaviour(
            "sends close_notify behind 39 bytes", acting(say(THEIR_40[:39]), send(close_notify())),
            Alert.close_notify, kind=ended, result=NO_DATA, by_peer=True, too_late=True,
        ),
    ]  # fmt: skip


MISBEHAVIOURS: Final = [
    *_parameters(),
    *_certificates(),
    *_handshakes(),
    *_records(),
    *_behind_the_handshake(),
    *_ends(),
]


def page_with_table(text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


def main() -> int:
    """Write the table into the page."""
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

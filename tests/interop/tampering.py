# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Ways in which a peer on tlslite-ng can misbehave: messages replaced as they go out, records changed, odd settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from tlslite.constants import TLS_1_3_HRR, ContentType, HandshakeType, SignatureScheme
from tlslite.extensions import HRRKeyShareExtension, SrvSupportedVersionsExtension, TLSExtension
from tlslite.messages import Alert as AlertMessage
from tlslite.messages import CertificateRequest, KeyUpdate, Message, ServerHello
from tlslite.tlsrecordlayer import TLSRecordLayer

from migtd.ratls.tls import Alert
from tests.interop.tlslite_peer import Act, Credentials, Steps, Tamper, TlslitePeer, handshake, profile

Replace: TypeAlias = Callable[[Any], Iterable[Any]]
"""Takes a message on its way out, returns those that go out in its place."""
Options: TypeAlias = Callable[[bool], dict[str, Any]]
"""By whether our side is the source: how the peer is made (TlslitePeer), anew for each meeting."""

MAX_PLAINTEXT: Final = 2**14
OVERSIZED: Final = b"\x17\x03\x03" + (MAX_PLAINTEXT + 257).to_bytes(2) + bytes(MAX_PLAINTEXT + 257)
OVERSIZED_PLAIN: Final = b"\x16\x03\x03\x40\x01" + bytes(MAX_PLAINTEXT + 1)
EMPTY_LIST: Final = b"\x0b\x00\x00\x04\x00\x00\x00\x00"


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


def first_hello(*, is_source: bool) -> int:
    """Type of the peer's first message."""
    hello: int = HandshakeType.server_hello if is_source else HandshakeType.client_hello
    return hello


def replacing(kind: int, replace: Replace, *, then_silent: bool = False) -> Options:
    return lambda _: {"tamper": instead_of(kind, replace, then_silent=then_silent)}


def replacing_its_hello(replace: Replace) -> Options:
    return lambda is_source: {"tamper": instead_of(first_hello(is_source=is_source), replace)}


def on_the_wire(kind: int, change: Callable[[TlslitePeer, Steps], Steps]) -> Options:
    """Change the record of a handshake message behind its encryption."""

    def tamper(peer: TlslitePeer, message: Any) -> Iterable[Any]:
        if getattr(message, "handshakeType", None) != kind:
            return (message,)
        for _ in change(peer, TLSRecordLayer._sendMsg(peer, message)):
            pass
        return ()

    return lambda _: {"tamper": tamper}


def acting(*script: Act) -> Options:
    """Behind the handshake."""
    return lambda _: {"script": script}


def speaking(**changes: Any) -> Options:
    return lambda _: {"settings": with_settings(**changes)}


def showing(credentials: Credentials) -> Options:
    return lambda _: {"credentials": credentials, "settings": with_settings(eccCurves=["secp384r1", "secp256r1"])}


def with_settings(**changes: Any) -> Any:
    """The profile's settings, changed."""
    settings = profile()
    for name, value in changes.items():
        setattr(settings, name, value)
    return settings


def only_group(name: str) -> dict[str, Any]:
    return {"eccCurves": [name], "keyShares": [name], "defaultCurve": name}


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


def left_out(_message: Any) -> Iterable[Any]:
    return ()


def twice(message: Any) -> Iterable[Any]:
    return (message, message)


def behind(extra: Callable[[], Any]) -> Replace:
    return lambda message: (extra(), message)


def one(made: Callable[[], Any]) -> Replace:
    return lambda _: (made(),)


def with_extension(extension: int) -> Replace:
    def extend(message: Any) -> Iterable[Any]:
        message.extensions = [*(message.extensions or []), TLSExtension(extType=extension).create(bytearray())]
        return (message,)

    return extend


def another_hello_wanted(group: int) -> Replace:
    def retry(hello: Any) -> Iterable[Any]:
        extensions = [SrvSupportedVersionsExtension().create((3, 4)), HRRKeyShareExtension().create(group)]
        request = ServerHello()
        request.create((3, 3), TLS_1_3_HRR, hello.session_id, hello.cipher_suite, extensions=extensions)
        return (request,)

    return retry


def request(context: bytes, scheme: tuple[int, int]) -> Any:
    made = CertificateRequest((3, 4))
    made.create(context=context, sig_algs=[scheme])
    return made


def offering_other_signatures(hello: Any) -> Iterable[Any]:
    hello.getExtension(13).sigalgs = [SignatureScheme.rsa_pss_rsae_sha256]
    return (hello,)


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


def key_update(kind: int) -> Any:
    return KeyUpdate().create(kind)


def fatal(description: Alert) -> Any:
    return AlertMessage().create(description)


def in_handshake(content: bytes) -> Any:
    return Message(ContentType.handshake, bytearray(content))

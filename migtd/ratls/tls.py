# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One end of a TLS connection with the profile of ghci-ratls.md 5, over memory: a thin wrapper of pyOpenSSL.

TLS 1.3, TLS_AES_256_GCM_SHA384 and secp384r1 only; both sides must present a certificate; no SNI, no ALPN, no session
cache, no early data. The caller's check of the peer certificate runs inside OpenSSL's verify callback, so that a
refusal sends an alert and nothing else.

The server cannot be kept from sending two session tickets (about 80 bytes each) behind the handshake: OpenSSL does so
whenever the client offers psk_dhe_ke, and pyOpenSSL has no call for their number. They name a session that is not
kept, so nothing can be resumed with them.
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from migtd import failures
from migtd.errors import MigTDError, NetworkError, SecureSessionError
from migtd.ratls.certificate import public_point

P = ParamSpec("P")
T = TypeVar("T")

CIPHER_SUITE: Final = "TLS_AES_256_GCM_SHA384"
GROUP: Final = "secp384r1"

_READ_SIZE: Final = 65_536
_RECORD_HEADER: Final = 5
_NO_CERTIFICATE: Final = 6 + (5 + 4 + 1 + 255 + 3 + 1 + 16) + (5 + 4 + 48 + 1 + 16)
"""Most bytes of a client's last flight without a certificate: ChangeCipherSpec, a record with an empty list behind the
longest context that a server can ask for, and one with Finished under SHA-384."""
_UNDECIPHERABLE: Final = b"\x17\x03\x03\x00\x11" + bytes(17)
"""A record that no key decrypts; see TlsEndpoint.refuse."""


class TlsRole(enum.Enum):
    """Which end: the source of a migration is the client (ghci-ratls.md 5)."""

    CLIENT = SSL.TLS_CLIENT_METHOD
    SERVER = SSL.TLS_SERVER_METHOD


class Alert(enum.IntEnum):
    """AlertDescription (RFC 8446 6)."""

    close_notify = 0
    unexpected_message = 10
    bad_record_mac = 20
    record_overflow = 22
    handshake_failure = 40
    bad_certificate = 42
    unsupported_certificate = 43
    certificate_revoked = 44
    certificate_expired = 45
    certificate_unknown = 46
    illegal_parameter = 47
    unknown_ca = 48
    access_denied = 49
    decode_error = 50
    decrypt_error = 51
    protocol_version = 70
    insufficient_security = 71
    internal_error = 80
    inappropriate_fallback = 86
    user_canceled = 90
    missing_extension = 109
    unsupported_extension = 110
    unrecognized_name = 112
    bad_certificate_status_response = 113
    unknown_psk_identity = 115
    certificate_required = 116
    no_application_protocol = 120


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What the two ends agreed on: protocol version number, suite and group by name."""

    version: int
    suite: str | None
    group: str | None


PROFILE: Final = Negotiated(SSL.TLS1_3_VERSION, CIPHER_SUITE, GROUP)
"""The only agreement that the profile allows."""


@dataclass(frozen=True, slots=True)
class PresentedCertificate:
    """The peer's certificate as the TLS library took it.

    `der` is the encoding (the signed part byte for byte as sent), `public_point` the key that the library will hold
    the peer to, uncompressed, or None if it is no elliptic curve key. `count` is the number of certificates as far as
    it is known at this moment: OpenSSL shows a server the others only after the callback (`peer_certificate_count`).
    """

    der: bytes = field(repr=False)
    public_point: bytes | None = field(repr=False)
    count: int


class TlsEndpoint:
    """One end. Feed it what `cut_at_records` gives, one piece after the other, and look what became possible.

    `verify_peer` is called once, inside the verify callback, before this end has finished its handshake; the MigTDError
    that it raises refuses the peer. Methods that take input raise it again, or
    SecureSessionError (MIGTD-TLS-ALERT: the peer refused; MIGTD-TLS-PROTOCOL: this end found the peer's messages bad)
    or NetworkError (MIGTD-TRANSPORT-ENDED: the peer closed the session).
    """

    def __init__(
        self,
        role: TlsRole,
        key: ec.EllipticCurvePrivateKey,
        certificate: bytes,
        verify_peer: Callable[[PresentedCertificate], None],
    ) -> None:
        self._role = role
        self._verify_peer = verify_peer
        self._verified: bytes | None = None
        self._refusal: MigTDError | None = None
        self._alert: int | None = None
        self._done = False
        self._out = b""
        self._last_flight_size = 0
        self._connection = SSL.Connection(_context(role, key, certificate, weakly(self._on_certificate)))
        self._connection.set_info_callback(weakly(self._on_info))
        if role is TlsRole.CLIENT:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()

    @property
    def handshake_done(self) -> bool:
        """Whether this end has finished its handshake: the peer passed `verify_peer` and proved to hold its key."""
        return self._done

    @property
    def negotiated(self) -> Negotiated:
        """What was agreed on; meaningful from the verify callback on."""
        return Negotiated(
            self._connection.get_protocol_version(),
            self._connection.get_cipher_name(),
            self._connection.get_group_name(),
        )

    @property
    def peer_certificate_count(self) -> int:
        """How many certificates the peer sent; known to a server only once the handshake is done."""
        chain = self._connection.get_peer_cert_chain() or []
        # OpenSSL counts the peer's own certificate into the chain on a client, and not on a server.
        return len(chain) if self._role is TlsRole.CLIENT else 1 + len(chain)

    @property
    def peer_saw_certificate(self) -> bool:
        """Whether this end has shown its certificate; meaningful once the handshake is done.

        A server always has. A client has not if it was not asked, or asked for signatures that its key cannot make.
        OpenSSL tells neither, but the size does of what the client sent last: a P-384 key and two signatures alone, be
        they compressed, take more than all that can be there without them.
        """
        return self._role is TlsRole.SERVER or self._last_flight_size > _NO_CERTIFICATE

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; nothing is looked at before `handshake` or `read`."""
        if data:
            self._connection.bio_write(data)

    def handshake(self) -> bool:
        """Go on with the handshake as far as the input allows. Returns `handshake_done`.

        A client begins with a first call without input.
        """
        if not self._done and self._attempt(self._finish_handshake):
            self._done = True
            self._out = self._drain()
            self._last_flight_size = len(self._out)
        return self._done

    def read(self, size: int) -> bytes:
        """At most `size` bytes of application data; `b""` if there are none yet."""
        return self._attempt(lambda: self._connection.recv(size)) or b""

    def write(self, data: bytes) -> None:
        """Encrypt application data, up to one record; it comes out of `data_to_send`."""
        self._attempt(lambda: self._connection.send(data))

    def data_to_send(self) -> bytes:
        """Everything that waits to go to the peer, once."""
        data, self._out = self._out + self._drain(), b""
        return data

    def refuse(self) -> None:
        """End a session whose handshake is done with a fatal alert (bad_record_mac), whatever the peer sent since.

        OpenSSL has no call for that, but it sends one when a record does not decrypt: so it gets such a record.
        Application data that is found on the way is dropped.
        """
        self._connection.bio_write(_UNDECIPHERABLE)
        try:
            while self._connection.recv(_READ_SIZE):
                pass
        except SSL.Error:
            return

    def _drain(self) -> bytes:
        portions = []
        while True:
            try:
                portions.append(self._connection.bio_read(_READ_SIZE))
            except SSL.WantReadError:
                return b"".join(portions)

    def _finish_handshake(self) -> bool:
        self._connection.do_handshake()
        if self._verified is None:
            # Cannot happen with these settings; if it does, a peer that nobody looked at must not get through.
            raise SecureSessionError(failures.TLS_PROTOCOL, "the handshake ended without a verified certificate")
        return True

    def _attempt(self, operation: Callable[[], T]) -> T | None:
        """What `operation` returns, None if it needs more input, or its failure as a MigTDError."""
        try:
            return operation()
        except SSL.WantReadError:
            return None
        except SSL.ZeroReturnError as error:
            raise NetworkError(failures.TRANSPORT_ENDED, "the peer closed the TLS session") from error
        except SSL.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: SSL.Error) -> MigTDError:
        if self._refusal is not None:
            # Not kept any longer: raised, it knows its way through this very object.
            refusal, self._refusal = self._refusal, None
            return refusal
        if self._alert == Alert.close_notify:
            return NetworkError(failures.TRANSPORT_ENDED, "the peer closed the TLS session")
        if self._alert is not None:
            return SecureSessionError(failures.TLS_ALERT, _alert_name(self._alert))
        return SecureSessionError(failures.TLS_PROTOCOL, _reasons(error))

    def _on_info(self, _connection: SSL.Connection, where: int, code: int) -> None:
        # `code` is the alert's level in the upper byte and its description in the lower one.
        description = code & 0xFF
        if where == SSL.SSL_CB_READ_ALERT and description != Alert.user_canceled:
            self._alert = description

    def _on_certificate(
        self, connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _accepted: int
    ) -> bool:
        """OpenSSL's verify callback. It comes once for each thing that OpenSSL has to say of each certificate.

        Its own verdicts (self-signed, unknown issuer) are expected and mean nothing here.
        """
        if self._refusal is not None:
            return False
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        if depth == 0 and der == self._verified:
            return True
        chain = connection.get_peer_cert_chain() or []
        try:
            self._verify_peer(PresentedCertificate(der, _public_point(certificate), max(1 + depth, len(chain))))
        except MigTDError as error:
            self._refusal = error
            return False
        self._verified = der
        return True


def weakly(method: Callable[P, T]) -> Callable[P, T]:
    """A bound method that does not keep its object: for callbacks of what the object itself holds.

    A session is then gone once nobody uses it, with its keys and OpenSSL's memory, of which Python's collector knows
    nothing. Raises ReferenceError if it is called after that.
    """
    held = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = held()
        if bound is None:
            raise ReferenceError("the session is gone")
        return bound(*args, **kwargs)

    return call


class RecordCutter:
    """Cuts a stream of TLS records so that no piece reaches over the end of a record.

    With that, what happens between two records happens at the same place of the stream however the bytes arrived
    (design.md, I5), and at most one record of the peer is taken in before this side looks.
    """

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def cut(self, data: bytes) -> Iterator[bytes]:
        """The same bytes in pieces: each the rest of a record, or as much of it as there is."""
        position = 0
        while position < len(data):
            size = self._left or _RECORD_HEADER - len(self._header)
            piece = data[position : position + size]
            position += len(piece)
            if self._left:
                self._left -= len(piece)
            else:
                self._take_header(piece)
            yield piece

    def _take_header(self, piece: bytes) -> None:
        self._header += piece
        if len(self._header) == _RECORD_HEADER:
            self._left = int.from_bytes(self._header[3:], "big")
            self._header = b""


def _context(
    role: TlsRole,
    key: ec.EllipticCurvePrivateKey,
    certificate: bytes,
    on_certificate: Callable[[SSL.Connection, crypto.X509, int, int, int], bool],
) -> SSL.Context:
    context = SSL.Context(role.value)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER_SUITE.encode())
    # Despite its name this sets the whole list of groups, for both roles and for TLS 1.3.
    context.set_tmp_ecdh(ec.SECP384R1())
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(x509.load_der_x509_certificate(certificate))
    context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, on_certificate)
    return context


def _public_point(certificate: crypto.X509) -> bytes | None:
    try:
        key = certificate.get_pubkey().to_cryptography_key()
    except (crypto.Error, ValueError, TypeError):
        # A key that the library cannot even load is no P-384 key: the caller refuses it for that.
        return None
    return public_point(key) if isinstance(key, ec.EllipticCurvePublicKey) else None


def _alert_name(description: int) -> str:
    name = Alert(description).name if description in Alert.__members__.values() else "unknown"
    return f"{name} ({description})"


def _reasons(error: SSL.Error) -> str:
    """OpenSSL's reasons, first cause first."""
    queue = error.args[0] if error.args else ()
    return "; ".join(str(entry[-1]) for entry in queue) if isinstance(queue, list) else str(queue)

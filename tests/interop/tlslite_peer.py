# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A peer on tlslite-ng, a TLS stack in pure Python that shares nothing with OpenSSL, over memory.

It follows the profile of ghci-ratls.md 5 unless told otherwise: by its settings, by a `tamper` that replaces messages
as they go out, and by a `script` of what it does behind the handshake.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tlslite.constants import AlertDescription, AlertLevel, ContentType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert
from tlslite.handshakesettings import HandshakeSettings
from tlslite.messages import Alert as AlertMessage
from tlslite.messages import Message
from tlslite.tlsconnection import TLSConnection
from tlslite.utils.keyfactory import parsePEMKey
from tlslite.x509 import X509
from tlslite.x509certchain import X509CertChain

from tests.interop.certificates import builder_certificate
from tests.interop.ours import THEIR_40

KEY = ec.generate_private_key(ec.SECP384R1())

Steps: TypeAlias = Iterator[object]
"""What tlslite-ng's operations are: a generator that yields 0 where it waits for input."""
Act: TypeAlias = Callable[["TlslitePeer"], Steps]
Tamper: TypeAlias = Callable[["TlslitePeer", Any], Iterable[Any]]
"""Called with each message on its way out; returns the messages to send in its place, raw records as bytes."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and the certificates to show for it; both may be absent."""

    key: ec.EllipticCurvePrivateKey | None
    certificates: tuple[bytes, ...]


RIGHT = Credentials(KEY, (builder_certificate(KEY),))
NONE = Credentials(None, ())


def profile() -> HandshakeSettings:
    """Settings that allow what ghci-ratls.md 5 allows, and nothing else."""
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = (3, 4)
    settings.cipherNames = ["aes256gcm"]
    settings.eccCurves = settings.keyShares = ["secp384r1"]
    settings.defaultCurve = "secp384r1"
    settings.dhGroups = []
    settings.ticket_count = 0
    settings.use_heartbeat_extension = False
    settings.record_size_limit = None
    # Its client compresses without having been asked to.
    settings.certificate_compression_send = []
    return settings


def untouched(_peer: TlslitePeer, message: Any) -> Iterable[Any]:
    """The tamper of an honest peer."""
    return (message,)


def say(data: bytes) -> Act:
    """Send application data, in one record."""
    return lambda peer: peer.writeAsync(data)


def send(message: Any) -> Act:
    """Send a message of any kind under the keys of the moment."""
    return lambda peer: peer._sendMsg(message)


def close_notify() -> Any:
    """The alert that ends a stream."""
    return AlertMessage().create(AlertDescription.close_notify, AlertLevel.warning)


MIGRATE = (say(THEIR_40),)
"""What an honest peer does: its 40 bytes."""


class TlslitePeer(TLSConnection):  # type: ignore[misc] # tlslite-ng has no types
    """One end. After `turn` says no more: what it read, and how it ended.

    `received` is the application data; `alert` the description of the alert that our side sent, `complaint` of the one
    that it sent itself, if any.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        credentials: Credentials = RIGHT,
        settings: HandshakeSettings | None = None,
        tamper: Tamper = untouched,
        script: Iterable[Act] = MIGRATE,
        record_size: int | None = None,
        resume: Any = None,
        asks_for_certificate: bool = True,
    ) -> None:
        self.pipe = _Pipe()
        super().__init__(self.pipe)
        # A closed connection stays readable to the test; nobody else holds the pipe.
        self.closeSocket = False
        if record_size is not None:
            self.recordSize = record_size
        self.received = b""
        self.alert: int | None = None
        self.complaint: int | None = None
        self._tamper = tamper
        self._script = script
        self._settings = profile() if settings is None else settings
        self._credentials = credentials
        self._resume = resume
        self._asks_for_certificate = asks_for_certificate
        self._life: Steps | None = self._live(is_client=is_client)

    def turn(self, data: bytes) -> bytes:
        """Take bytes and go on as far as they lead; `b""` is no end of the stream."""
        self.pipe.incoming += data
        while self._life is not None:
            try:
                waits = next(self._life) == 0
            except (StopIteration, TLSAbruptCloseError):
                self._life = None
            except TLSRemoteAlert as alert:
                self.alert = alert.description
                self._life = None
            except TLSLocalAlert as alert:
                self.complaint = alert.description
                self._life = None
            else:
                if waits and not self.pipe.incoming:
                    break
        out, self.pipe.outgoing = bytes(self.pipe.outgoing), bytearray()
        return out

    def _live(self, *, is_client: bool) -> Steps:
        chain, key = _chain(self._credentials.certificates), _key(self._credentials.key)
        if is_client:
            yield from self.handshakeClientCert(chain, key, session=self._resume, settings=self._settings, async_=True)
        else:
            yield from self.handshakeServerAsync(
                certChain=chain, privateKey=key, reqCert=self._asks_for_certificate, settings=self._settings
            )
        for act in self._script:
            yield from act(self)
        while not self.closed:
            for result in self.readAsync():
                if isinstance(result, bytes):
                    self.received += result
                else:
                    yield result

    def _sendMsg(self, msg: Any, randomizeFirstBlock: bool = True, update_hashes: bool = True) -> Steps:  # noqa: FBT001, FBT002, N802, N803 - tlslite-ng's own
        for each in self._tamper(self, msg):
            if isinstance(each, bytes):
                self.pipe.outgoing += each
            else:
                yield from super()._sendMsg(each, randomizeFirstBlock, update_hashes)

    def _queue_message(self, msg: Any) -> None:
        # The server gathers its messages into one record. Sent one by one they can be tampered with one by one; a
        # pipe of memory never makes a sender wait.
        for _ in self._sendMsg(msg):
            pass

    def _queue_flush(self) -> Steps:
        return iter(())


@dataclass(slots=True)
class _Pipe:
    """As much of a socket as tlslite-ng uses."""

    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError(errno.EWOULDBLOCK, "nothing came yet")
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def send(self, data: bytes) -> int:
        self.outgoing += data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.outgoing += data


def _chain(certificates: tuple[bytes, ...]) -> X509CertChain | None:
    if not certificates:
        return None
    parsed = [X509() for _ in certificates]
    for each, der in zip(parsed, certificates, strict=True):
        each.parseBinary(bytearray(der))
    return X509CertChain(parsed)


def _key(key: ec.EllipticCurvePrivateKey | None) -> Any:
    if key is None:
        return None
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return parsePEMKey(pem.decode(), private=True, implementations=["python"])


def handshake(message: bytes) -> Message:
    """A handshake message from its bytes, header included."""
    return Message(ContentType.handshake, bytearray(message))

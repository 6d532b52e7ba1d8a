# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: peers on the wire that keep to nothing. Frames as a test wants them, and TLS by OpenSSL or against it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

from migtd.attestation.mode import Evidence
from migtd.migration.data import EXCHANGE_SIZE, ExchangeInformation, push_exchange_information
from migtd.ratls.certificate import make_certificate, migration_extensions
from migtd.ratls.tls import CIPHER_SUITE
from vmm_stub.vmm.wire import MAX_FRAME, push_frame

T = TypeVar("T")

_LENGTH: Final = struct.Struct("<I")
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_CHUNK: Final = 65_536

HANDSHAKE: Final = 22
ALERT: Final = 21
APPLICATION_DATA: Final = 23
"""ContentType (RFC 8446 5.1)."""
_TICKETS: Final = 2
"""Records that OpenSSL's server sends behind the handshake by itself."""

KEY: Final = ec.generate_private_key(ec.SECP384R1())
GOOD_EVIDENCE: Final = Evidence(bytes(822), bytes(200))
INFORMATION: Final = ExchangeInformation(bytes(range(32)), 1, 1)


class WirePeer:
    """One end of the TCP connection of a migration. Methods raise ConnectionError once the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = b""

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.connection, data)
        # A peer that never has to wait must not keep the other side, in the same loop, from its work.
        await asyncio.sleep(0)

    async def send_frames(self, data: bytes, size: int = MAX_FRAME) -> None:
        """Frames of at most `size` bytes each, in one go."""
        await self.send(b"".join(push_frame(data[at : at + size]) for at in range(0, len(data), size)))

    async def receive(self) -> bytes:
        """The payload of the next frame; `b""` if the other end ended its stream."""
        while True:
            if len(self._received) >= _LENGTH.size:
                end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
                if len(self._received) >= end:
                    payload, self._received = self._received[_LENGTH.size : end], self._received[end:]
                    return payload
            data = await asyncio.get_running_loop().sock_recv(self.connection, _CHUNK)
            if not data:
                return b""
            self._received += data

    async def until_end(self) -> bytes:
        """Read all there is, to the end of the other end's stream."""
        portions = []
        while portion := await self.receive():
            portions.append(portion)
        return b"".join(portions)

    async def silence(self) -> None:
        """Neither read nor write, for as long as the other side takes it."""
        await asyncio.Event().wait()

    def end(self) -> None:
        """End this end's stream; the other direction stays open."""
        self.connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close at once: what is under way is lost, and the other end sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.connection.close()

    def close(self) -> None:
        """Close in order."""
        self.connection.close()


def migtd_profile(context: SSL.Context) -> None:
    """Version, suite and group of ghci-ratls.md 5 and no other."""
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER_SUITE.encode())
    context.set_tmp_ecdh(ec.SECP384R1())
    # Tickets that hold the session would hold the client's certificate, and OpenSSL takes 64 KiB for that at most.
    context.set_options(SSL.OP_NO_TICKET)


@dataclass(frozen=True, slots=True)
class TlsProfile:
    """How a peer speaks TLS; the defaults are a MigTD's. `configure` changes the context, `chain` follows the leaf."""

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = KEY
    certificate: bytes = make_certificate(KEY, migration_extensions(GOOD_EVIDENCE))
    chain: tuple[bytes, ...] = ()
    configure: Callable[[SSL.Context], None] = migtd_profile


class TlsPeer:
    """A TLS endpoint over a WirePeer. `alerts` is what the other end sent, `received` its application data.

    After `handshake`, `inject` sends any record under the real traffic key; `write` must not be used behind that.
    """

    def __init__(self, wire: WirePeer, profile: TlsProfile | None = None, *, is_client: bool) -> None:
        profile = profile or TlsProfile()
        self.wire = wire
        self.alerts: list[int] = []
        self.received = b""
        self._label = b"CLIENT_TRAFFIC_SECRET_0" if is_client else b"SERVER_TRAFFIC_SECRET_0"
        self._secret = b""
        self._sequence = 0 if is_client else _TICKETS
        context = SSL.Context(SSL.TLS_CLIENT_METHOD if is_client else SSL.TLS_SERVER_METHOD)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        context.set_keylog_callback(self._on_secret)
        if profile.key is not None:
            context.use_certificate(x509.load_der_x509_certificate(profile.certificate))
            context.use_privatekey(profile.key)
            for each in profile.chain:
                context.add_extra_chain_cert(x509.load_der_x509_certificate(each))
        profile.configure(context)
        self.connection = SSL.Connection(context)
        self.connection.set_info_callback(self._on_info)
        (self.connection.set_connect_state if is_client else self.connection.set_accept_state)()

    async def handshake(self) -> None:
        """Finish the handshake as far as this end sees it. Raises ConnectionError where it fails, after its alert."""
        await self._until(self.connection.do_handshake)
        await self.flush()

    async def first_flight(self) -> bytes:
        """What this end has to say first, instead of sending it: a ClientHello, or a server's flight behind one."""
        while True:
            with contextlib.suppress(SSL.WantReadError):
                self.connection.do_handshake()
            if flight := self._pending():
                return flight
            await self._feed()

    async def exchange(self, data: bytes | None = None) -> bytes:
        """Send the exchange information (or `data`), then read the other end's 40 bytes."""
        await self.write(push_exchange_information(INFORMATION) if data is None else data)
        return await self.read()

    async def write(self, data: bytes) -> None:
        """Send application data."""
        self.connection.send(data)
        self._sequence += 1
        await self.flush()

    async def read(self, size: int = EXCHANGE_SIZE) -> bytes:
        """Application data, `size` bytes in all. Raises ConnectionError if the stream ends before."""
        while len(self.received) < size:
            self.received += await self._until(lambda: self.connection.recv(_CHUNK))
        return self.received

    async def until_end(self) -> None:
        """Take what comes until the other end's stream is over."""
        try:
            while True:
                self.received += await self._until(lambda: self.connection.recv(_CHUNK))
        except ConnectionError:
            return

    async def flush(self) -> None:
        """Send what OpenSSL has to say."""
        if data := self._pending():
            await self.wire.send_frames(data)

    # --- records of our own (RFC 8446 5.2, 7.3) ---

    async def inject(self, content_type: int, content: bytes) -> None:
        """Send one record."""
        await self.wire.send_frames(self.record(content_type, content))

    def record(self, content_type: int, content: bytes) -> bytes:
        """Encrypt one record with this end's traffic key."""
        plain = content + bytes([content_type])
        header = struct.pack(">BHH", APPLICATION_DATA, 0x0303, len(plain) + 16)
        vector = int.from_bytes(_expand(self._secret, b"iv", 12), "big") ^ self._sequence
        self._sequence += 1
        key = AESGCM(_expand(self._secret, b"key", 32))
        return header + key.encrypt(vector.to_bytes(12, "big"), plain, header)

    def update_key(self) -> None:
        """Go on with the next traffic key, as behind an own KeyUpdate."""
        self._secret = _expand(self._secret, b"traffic upd", SHA384.digest_size)
        self._sequence = 0

    # --- inside ---

    async def _until(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except SSL.WantReadError:
                await self.flush()
                await self._feed()
            except SSL.Error as error:
                await self.flush()
                raise ConnectionAbortedError(f"TLS: {error!r}") from error

    async def _feed(self) -> None:
        data = await self.wire.receive()
        if not data:
            raise ConnectionResetError("the stream ended")
        self.connection.bio_write(data)

    def _pending(self) -> bytes:
        portions = []
        while True:
            try:
                portions.append(self.connection.bio_read(_CHUNK))
            except SSL.WantReadError:
                return b"".join(portions)

    def _on_secret(self, _connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.split()
        if label == self._label:
            self._secret = bytes.fromhex(secret.decode())

    def _on_info(self, _connection: SSL.Connection, where: int, code: int) -> None:
        if where == SSL.SSL_CB_READ_ALERT:
            self.alerts.append(code & 0xFF)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label without context."""
    name = b"tls13 " + label
    info = struct.pack(">HB", size, len(name)) + name + b"\0"
    return HKDFExpand(SHA384(), size, info).derive(secret)

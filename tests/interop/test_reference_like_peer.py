# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Our stand-alone MigTD against a peer that speaks as the reference was observed to speak (ghci-ratls.md 4 and 5).

The peer shares no code with our session: OpenSSL straight over TCP frames, a certificate with an explicit
`critical FALSE` (not DER), 822 zero bytes as quote, versions 0..0, an all-zero key, one frame per TLS record, no
close_notify. The reference's binary itself cannot be built here; what was observed of it is what this peer does.
"""

import asyncio
import hashlib
import os
import struct
import sys
from pathlib import Path

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto

ROOT = Path(__file__).parents[2]
ZERO_EXCHANGE = bytes(32) + struct.pack("<HHI", 0, 0, 0)

pytestmark = pytest.mark.engine


def der(tag, *parts):
    content = b"".join(parts)
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes(-(-len(content).bit_length() // 8), "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def oid(dotted):
    return bytes(core.ObjectIdentifier(dotted).dump())


def extension(dotted, value, *, critical=False):
    return der(0x30, oid(dotted), b"\x01\x01" + (b"\xff" if critical else b"\0"), der(0x04, value))


def reference_certificate(key):
    algorithm = der(0x30, oid("1.2.840.10045.4.3.3"))
    name = der(
        0x30,
        der(0x31, der(0x30, oid("2.5.4.6"), der(0x13, b"XX"))),
        der(0x31, der(0x30, oid("2.5.4.7"), der(0x0C, b"Default City"))),
        der(0x31, der(0x30, oid("2.5.4.10"), der(0x0C, b"Default Company Ltd"))),
    )
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    usages = der(
        0x30, oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.2"), oid("1.2.840.113741.1.5.5.1.1")
    )  # fmt: skip
    tbs = der(
        0x30,
        b"\xa0\x03\x02\x01\x02\x02\x01\x01",
        algorithm,
        name,
        der(0x30, der(0x18, b"19700101000000Z"), der(0x18, b"99991231235959Z")),
        name,
        der(0x30, der(0x30, oid("1.2.840.10045.2.1"), oid("1.3.132.0.34")), der(0x03, b"\0", point)),
        der(
            0xA3,
            der(
                0x30,
                extension("2.5.29.15", b"\x03\x02\x07\x80", critical=True),
                extension("2.5.29.37", usages),
                extension("1.2.840.113741.1.5.5.1.3", bytes(200)),
                extension("1.2.840.113741.1.5.5.1.2", bytes(822)),
            ),
        ),
    )
    return der(0x30, tbs, algorithm, der(0x03, b"\0", key.sign(tbs, ec.ECDSA(SHA384()))))


class ReferenceLikePeer:
    """One end of the wire, from the first frame to the 40 bytes of the other side."""

    def __init__(self, reader, writer, *, is_source):
        self.reader, self.writer = reader, writer
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(b"TLS_AES_256_GCM_SHA384")
        context.set_tmp_ecdh(ec.SECP384R1())
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        key = ec.generate_private_key(ec.SECP384R1())
        certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, reference_certificate(key))
        with pytest.warns(DeprecationWarning, match="pyOpenSSL X509"):  # no other type takes a certificate so odd
            context.use_certificate(certificate)
        context.use_privatekey(key)
        self.tls = SSL.Connection(context)
        (self.tls.set_connect_state if is_source else self.tls.set_accept_state)()

    async def migrate(self):
        await self.until(self.tls.do_handshake)
        self.certificate = self.tls.get_peer_certificate(as_cryptography=True)
        self.tls.send(ZERO_EXCHANGE)
        await self.flush()
        received = b""
        while len(received) < 40:
            received += await self.until(lambda: self.tls.recv(40))
        self.writer.close()
        return received

    async def until(self, step):
        while True:
            try:
                result = step()
            except SSL.WantReadError:
                await self.flush()
                (length,) = struct.unpack("<I", await self.reader.readexactly(4))
                self.tls.bio_write(await self.reader.readexactly(length))
            else:
                await self.flush()
                return result

    async def flush(self):
        pending = b""
        while True:
            try:
                pending += self.tls.bio_read(65536)
            except SSL.WantReadError:
                break
        while pending:
            record = pending[: 5 + int.from_bytes(pending[3:5], "big")]
            pending = pending[len(record) :]
            self.writer.write(struct.pack("<I", len(record)) + record)
        await self.writer.drain()


async def start_ours(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "migtd", "--deadline", "20", "--json", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


async def meet_as_destination():
    """Our source against the reference-like destination."""
    met = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        peer = ReferenceLikePeer(reader, writer, is_source=False)
        met.set_result((peer, await peer.migrate()))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    process = await start_ours("--role", "source", "-t", str(server.sockets[0].getsockname()[1]))
    peer, received = await asyncio.wait_for(met, 40)
    out, err = await process.communicate()
    server.close()
    return peer, received, process.returncode, out.decode(), err.decode()


async def meet_as_source():
    """Our destination against the reference-like source."""
    process = await start_ours("--role", "destination", "-t", "0")
    line = b""
    while b"listening" not in line:
        line = await asyncio.wait_for(process.stderr.readline(), 30)
    port = int(line.rsplit(b":", 1)[1].split()[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    peer = ReferenceLikePeer(reader, writer, is_source=True)
    received = await asyncio.wait_for(peer.migrate(), 40)
    out, err = await process.communicate()
    return peer, received, process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("meet", [meet_as_destination, meet_as_source])
async def test_a_migration_with_a_reference_like_peer_succeeds_and_carries_our_key(meet):
    _, received, status, out, err = await meet()
    assert status == 0, out + err
    assert received[:32] != bytes(32)
    assert struct.unpack("<HHI", received[32:]) == (0, 1, 0)
    assert '"version":0' in out


@pytest.mark.parametrize("meet", [meet_as_destination, meet_as_source])
async def test_our_certificate_reads_as_strict_der_with_the_extensions_in_order(meet):
    peer, *_ = await meet()
    oids = [each.oid.dotted_string for each in peer.certificate.extensions]
    private = "1.2.840.113741.1.5.5.1."
    assert oids == ["2.5.29.15", "2.5.29.37", private + "3", private + "2"]
    log = peer.certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(private + "3")).value.value
    assert hashlib.sha384(b"test_disable_ra_and_accept_all").digest() in log

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
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from tests.interop.certificates import reference_certificate

ROOT = Path(__file__).parents[2]
ZERO_EXCHANGE = bytes(32) + struct.pack("<HHI", 0, 0, 0)

pytestmark = pytest.mark.engine


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
        sys.executable, "-m", "migtd", "--attestation", "accept-all", "--deadline", "20", "--json", *arguments,
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

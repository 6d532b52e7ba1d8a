# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests of the policy tools: keys, issuer chains, and images that are made up but whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from lab.policy_tools.firmware_volume import POLICY, POLICY_ISSUER_CHAIN, ROOT_CA, make_volume
from lab.policy_tools.image_hash import CONFIGURATION_BASE, CONFIGURATION_SIZE

MANIFEST = (
    '{"attributes":"0000000000000000","xfam":"e71a060000000000","mrconfigid":"' + "00" * 48 + '",'
    '"mrowner":"' + "0a" * 48 + '","mrownerconfig":"' + "01" + "00" * 47 + '"}'
).encode()
FILES = {POLICY: b'{"policy":1}', ROOT_CA: b"root", POLICY_ISSUER_CHAIN: b"chain"}
_BORN = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Signer:
    """A leaf key under a root: PKCS#8 PEM, SPKI PEM, chain PEM leaf first."""

    private: bytes
    public: bytes
    chain: bytes


def make_signer(name: str = "Policy Issuer") -> Signer:
    root, leaf = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    root_certificate = _certificate("Root", root, "Root", root, ca=True)
    leaf_certificate = _certificate(name, leaf, "Root", root, ca=False)
    private = leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = leaf.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (leaf_certificate, root_certificate))
    return Signer(private, public, chain)


def volume(files: dict[UUID, bytes] | None = None) -> bytes:
    return make_volume((FILES if files is None else files).items(), CONFIGURATION_SIZE)


def bin_image(sections: Sequence[tuple[int, ...]], body: bytes, *, table: bool = True) -> bytes:
    """Configuration volume, then `body`, then metadata; sections as the structure has them."""
    head = volume() + body
    descriptor = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(sections), 1, len(sections))
    descriptor += b"".join(struct.pack("<IIQQII", *section) for section in sections)
    before = head + UUID("E9EAF9F3-168E-44D5-A8EB-7F4D8738F6AE").bytes_le + descriptor
    offset = len(before) - len(descriptor)
    if not table:
        return before + struct.pack("<I", offset) + bytes(28)
    tail = len(descriptor) + 26 + 22 + 18 + 32
    other = b"\1\2\3\4" + struct.pack("<H", 22) + bytes(16)
    entry = struct.pack("<IH", tail, 22) + UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
    footer = struct.pack("<H", 18 + 22 + 22) + UUID("96b582de-1fb2-45f7-beaa-a366c55a082d").bytes_le
    filler = bytes(tail - len(descriptor) - len(other) - len(entry) - len(footer) - 32)
    return before + filler + entry + other + footer + bytes(32)


def igvm_image(pages: list[tuple[int, bytes, int]], files: dict[UUID, bytes] | None = None) -> bytes:
    """The volume's pages that are in use first, then `pages`: address, data (empty: none), flags."""
    content = volume(files)
    used = -(-len(content.rstrip(b"\xff")) // 4096)
    listed = [(CONFIGURATION_BASE + n * 4096, content[n * 4096 : n * 4096 + 4096], 2) for n in range(used)]
    listed += pages
    size = 32 * len(listed)
    offset = 24 + size
    headers, data = b"", b""
    for address, page, flags in listed:
        at = offset + len(data) if page else 0
        headers += struct.pack("<IIQIIIHH", 0x302, 24, address, 1, at, flags, 0, 0)
        data += page
    total = offset + len(data)
    fixed = struct.pack("<4sIIIII", b"IGVM", 1, 24, size, total, 0)
    return fixed[:20] + struct.pack("<I", zlib.crc32(fixed + headers)) + headers + data


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (subject, issuer)]
    builder = x509.CertificateBuilder(names[1], names[0], key.public_key(), 7, _BORN, _BORN + timedelta(days=3650))
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    else:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(bytes(20)), critical=False)
    return builder.sign(issuer_key, SHA384())

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The issuer chains that sign a lab's policies v2: P-384 keys and certificates, all made of the secret of its PKI.

So they need no place of their own: who has the PKI, a later `up` or the other stand-alone side, makes the same again.
What a chain must be for a MigTD and its peers: policy.md 2.1 and 2.7.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lab.policy_tools.signer import signed_document
from vmm_stub.quoting.certificates import name_of
from vmm_stub.quoting.keys import derive, deterministic
from vmm_stub.quoting.pki import LIFETIME

if TYPE_CHECKING:
    from vmm_stub.quoting.pki import LabPki

POLICY: Final = "Policy"
IDENTITY: Final = "ServTD Identity"
MAPPING: Final = "ServTD TCB Mapping"

_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_WIDE: Final = 64
"""Bytes drawn for a scalar: reduced modulo the order, they are as good as even."""
_SERIAL_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Signer:
    """A leaf key with its chain, PEM, leaf first."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: bytes

    @property
    def owner(self) -> bytes:
        """SHA-384 of the leaf key's uncompressed point: MROWNER of a MigTD whose policy it signed (policy.md 2.9)."""
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return hashlib.sha384(point).digest()

    def sign(self, name: str, text: bytes) -> bytes:
        """The signed document of `text`, which is JSON, under `name`; the same each time."""
        algorithm = ec.ECDSA(SHA384(), deterministic_signing=deterministic())
        return signed_document(name, text, self.key.sign(text, algorithm))


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def make_signer(pki: LabPki, purpose: str, key: str, *, root: str, intermediate: bool) -> Signer:
    """The signer for a purpose with the key of that name, below the root of that name.

    Leaf certificates of one purpose have one subject, whatever their key: so keys can be rotated (policy.md 2.7).
    """
    root_key = _key(pki, f"root {root}")
    authority = _Authority(_certificate(pki, "MigTD Lab Policy Root CA", f"root {root}", root_key, None, 1), root_key)
    chain = [authority.certificate]
    if intermediate:
        label = f"intermediate {purpose} {root}"
        middle_key = _key(pki, label)
        name = f"MigTD Lab {purpose} Signing CA"
        authority = _Authority(_certificate(pki, name, label, middle_key, authority, 0), middle_key)
        chain.insert(0, authority.certificate)
    leaf_key = _key(pki, f"leaf {purpose} {key}")
    leaf = _certificate(pki, f"MigTD Lab {purpose} Signing", f"leaf {purpose} {key}", leaf_key, authority, None)
    return Signer(leaf_key, b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, *chain)))


def _key(pki: LabPki, label: str) -> ec.EllipticCurvePrivateKey:
    wide = int.from_bytes(derive(pki.secret, f"policy key {label}", _WIDE), "big")
    return ec.derive_private_key(wide % (_ORDER - 1) + 1, ec.SECP384R1())


def _certificate(
    pki: LabPki,
    name: str,
    label: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: _Authority | None,
    path_length: int | None,
) -> x509.Certificate:
    """A certificate of version 3; `path_length` None: it issues nothing; `issuer` None: self-signed."""
    subject = name_of(name)
    issuer_key = issuer.key if issuer else key
    serial = int.from_bytes(derive(pki.secret, f"policy serial {label}", _SERIAL_SIZE), "big") >> 1 | 1
    is_ca = path_length is not None
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(pki.issued)
        .not_valid_after(pki.issued + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(_usage(is_ca=is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, SHA384(), ecdsa_deterministic=deterministic())
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )

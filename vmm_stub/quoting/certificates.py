# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Certificates and CRLs of the lab PKI, in the shape of the SGX PKI (policy.md 4.3, 4.8). All ECDSA P-256/SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from vmm_stub.quoting.keys import deterministic
from vmm_stub.quoting.settings import PlatformSettings

SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
ORGANIZATION: Final = "MigTD Lab (emulation, no trust in it)"
_SGX_TYPE_SCALABLE: Final = 1


@dataclass(frozen=True, slots=True)
class Authority:
    """Who issues: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Profile:
    """One certificate to be made. `path_length` is None for a certificate that issues nothing; `sgx` as DER."""

    common_name: str
    serial: int
    not_before: datetime
    not_after: datetime
    crl_url: str
    path_length: int | None = None
    sgx: bytes | None = None


def make_certificate(
    profile: Profile, key: ec.EllipticCurvePrivateKey, issuer: Authority | None = None
) -> x509.Certificate:
    """A certificate for `key`; without an issuer it is self-signed."""
    subject = name_of(profile.common_name)
    issuer_key = issuer.key if issuer else key
    is_ca = profile.path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(profile.serial)
        .not_valid_before(profile.not_before)
        .not_valid_after(profile.not_after)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_distribution_point(profile.crl_url), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_usage(is_ca=is_ca), critical=True)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=profile.path_length), critical=True)
    )
    if profile.sgx is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_EXTENSION), profile.sgx)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, SHA256(), ecdsa_deterministic=deterministic())


def make_crl(issuer: Authority, revoked: Sequence[int], issued: datetime, expires: datetime) -> bytes:
    """A CRL over these serial numbers, PEM; its CRL number is 1."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(issued)
        .next_update(expires)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.certificate.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued)
        entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, SHA256(), ecdsa_deterministic=deterministic()).public_bytes(Encoding.PEM)


def name_of(common_name: str) -> x509.Name:
    """The distinguished name, which says where it is from."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )


def sgx_extension(settings: PlatformSettings, ppid: bytes) -> bytes:
    """DER of extension 1.2.840.113741.1.13.1 of a platform's PCK certificate; `ppid` 16 bytes."""
    components = settings.sgx_components
    tcb = [_pair(f"2.{at}", core.Integer(svn)) for at, svn in enumerate(components, start=1)]
    tcb.append(_pair("2.17", core.Integer(settings.pcesvn)))
    tcb.append(_pair("2.18", core.OctetString(components)))
    configuration = [_pair(f"7.{at}", core.Boolean(at == 1)) for at in (1, 2, 3)]
    return _sequence(
        _pair("1", core.OctetString(ppid)),
        _sequence(_oid("2"), _sequence(*tcb)),
        _pair("3", core.OctetString(settings.pceid)),
        _pair("4", core.OctetString(settings.fmspc)),
        _sequence(_oid("5"), b"\x0a\x01" + bytes([_SGX_TYPE_SCALABLE])),
        _pair("6", core.OctetString(ppid)),
        _sequence(_oid("7"), _sequence(*configuration)),
    )


def _pair(suffix: str, value: core.Asn1Value) -> bytes:
    return _sequence(_oid(suffix), value.dump())


def _oid(suffix: str) -> bytes:
    encoded: bytes = core.ObjectIdentifier(f"{SGX_EXTENSION}.{suffix}").dump()
    return encoded


def _sequence(*parts: bytes) -> bytes:
    encoded: bytes = core.Sequence(contents=b"".join(parts)).dump()
    return encoded


def _distribution_point(url: str) -> x509.CRLDistributionPoints:
    full_name = [x509.UniformResourceIdentifier(url)]
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint(full_name=full_name, relative_name=None, reasons=None, crl_issuer=None)]
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=not is_ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )

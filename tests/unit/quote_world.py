# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A platform, its PKI and its collateral in the making: every field may be changed before they are put together.

Independent of the lab's own quoting, so that the verifier is not only tested against what the same hands made.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.layout import (
    BodyType,
    QeReport,
    QuoteBody,
    QuoteHeader,
    SignatureData,
    push_qe_report,
    push_quote,
    push_signed_part,
)

SGX = "1.2.840.113741.1.13.1"
YEAR_2025, YEAR_2030 = datetime(2025, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
FMSPC = bytes.fromhex("A0B1C2D3E4F5")
TEE_TCB_SVN = bytes((5, 1, 4, *(0,) * 13))
TDX_COMPONENTS = (5, 0, 3, *(0,) * 13)
SGX_COMPONENTS = (7, 7, 2, 2, 3, 1, 0, 5, *(0,) * 8)
LEVEL_SGX_COMPONENTS = (6, 6, 2, 2, 3, 1, 0, 5, *(0,) * 8)


def key_number(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(0x5A17 + number, ec.SECP256R1())


ROOT, CA, PCK, SIGNER, ATTESTATION, STRANGER = map(key_number, range(6))


@dataclass
class CertificateSpec:
    name: str
    key: ec.EllipticCurvePrivateKey
    serial: int
    issuer: str
    issuer_key: ec.EllipticCurvePrivateKey
    sgx: bytes | None = None
    issued: datetime = YEAR_2025
    expires: datetime = YEAR_2030
    digest: type[SHA256 | SHA384] = SHA256


@dataclass
class CrlSpec:
    issuer: str
    key: ec.EllipticCurvePrivateKey
    number: int | None
    revoked: list[int] = field(default_factory=list)
    key_identifier: bool = True
    issued: datetime = YEAR_2025
    expires: datetime = YEAR_2030


@dataclass
class SgxFields:
    components: tuple[int, ...] = SGX_COMPONENTS
    pcesvn: int = 13
    pceid: bytes = b"\x00\x00"
    fmspc: bytes = FMSPC


# --- defaults ------------------------------------------------------------------------------------------------------
def quote_body(**changes: bytes) -> QuoteBody:
    sizes = (16, 48, 48, 8, 8, 8, 48, 48, 48, 48, 48, 48, 48, 48, 64)
    names = list(QuoteBody.__dataclass_fields__)
    values = {name: bytes((index + 1,)) * size for index, (name, size) in enumerate(zip(names, sizes, strict=False))}
    fixed = {
        "tee_tcb_svn": TEE_TCB_SVN,
        "mrsignerseam": bytes(48),
        "seam_attributes": bytes(8),
        "td_attributes": (0x10000000).to_bytes(8, "little"),
    }
    return QuoteBody(**values | fixed | changes)


def qe_report() -> QeReport:
    return QeReport(
        cpusvn=bytes(range(16)),
        miscselect=0xA0000001,
        attributes=bytes.fromhex("15000000000000000700000000000000"),
        mrenclave=b"\xe1" * 32,
        mrsigner=b"\xe2" * 32,
        isvprodid=2,
        isvsvn=6,
        report_data=bytes(64),
    )


def certificate_specs() -> dict[str, CertificateSpec]:
    return {
        "root": CertificateSpec("Lab SGX Root CA", ROOT, 1, "Lab SGX Root CA", ROOT),
        "ca": CertificateSpec("Lab SGX PCK Platform CA", CA, 2, "Lab SGX Root CA", ROOT),
        "pck": CertificateSpec("Lab SGX PCK Certificate", PCK, 3, "Lab SGX PCK Platform CA", CA),
        "signer": CertificateSpec("Lab SGX TCB Signing", SIGNER, 4, "Lab SGX Root CA", ROOT),
    }


def tcb_info() -> dict[str, Any]:
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": "2025-06-01T00:00:00Z",
        "nextUpdate": "2029-06-01T00:00:00Z",
        "fmspc": FMSPC.hex().upper(),
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 17,
        "tdxModule": {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8},
        "tdxModuleIdentities": [
            {
                "id": f"TDX_{major:02X}",
                "mrsigner": "00" * 48,
                "attributes": "00" * 8,
                "attributesMask": "FF" * 8,
                "tcbLevels": [svn_level(2, date="2023-01-01T00:00:00Z"), svn_level(5)],
            }
            for major in (1, 3)
        ],
        "tcbLevels": [platform_level()],
    }


def qe_identity() -> dict[str, Any]:
    return {
        "id": "TD_QE",
        "version": 2,
        "issueDate": "2025-07-01T00:00:00Z",
        "nextUpdate": "2029-07-01T00:00:00Z",
        "tcbEvaluationDataNumber": 16,
        "miscselect": "01000000",
        "miscselectMask": "FFFFFF0F",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": "E2" * 32,
        "isvprodid": 2,
        "tcbLevels": [svn_level(4, advisories=["INTEL-SA-00003"])],
    }


def platform_level(
    status: str = "UpToDate",
    *,
    sgx: tuple[int, ...] = LEVEL_SGX_COMPONENTS,
    pcesvn: int = 13,
    tdx: tuple[int, ...] = TDX_COMPONENTS,
    date: str = "2024-11-13T00:00:00Z",
    advisories: list[str] | None = None,
) -> dict[str, Any]:
    level = {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn} for svn in sgx],
            "pcesvn": pcesvn,
            "tdxtcbcomponents": [{"svn": svn} for svn in tdx],
        },
        "tcbDate": date,
        "tcbStatus": status,
    }
    return level if advisories is None else level | {"advisoryIDs": advisories}


def svn_level(
    isvsvn: int, status: str = "UpToDate", *, date: str = "2024-03-13T00:00:00Z", advisories: list[str] | None = None
) -> dict[str, Any]:
    level = {"tcb": {"isvsvn": isvsvn}, "tcbDate": date, "tcbStatus": status}
    return level if advisories is None else level | {"advisoryIDs": advisories}


# --- the world -------------------------------------------------------------------------------------------------------
@dataclass
class World:
    """The default verifies. Change a field, then take `quote()`, `collateral()` and `root_key()`."""

    header: QuoteHeader = field(default_factory=lambda: QuoteHeader(4))
    body_type: BodyType = BodyType.TDX_1_0
    body: QuoteBody = field(default_factory=quote_body)
    qe_report: QeReport = field(default_factory=qe_report)
    qe_auth_data: bytes = bytes(range(32))
    qe_report_data: bytes | None = None
    qe_report_key: ec.EllipticCurvePrivateKey = PCK
    quote_key: ec.EllipticCurvePrivateKey = ATTESTATION
    attestation_point: bytes | None = None
    trusted_key: ec.EllipticCurvePrivateKey = ROOT

    sgx: SgxFields = field(default_factory=SgxFields)
    certificates: dict[str, CertificateSpec] = field(default_factory=certificate_specs)
    pck_chain: list[str] = field(default_factory=lambda: ["pck", "ca", "root"])
    crl_chain: list[str] = field(default_factory=lambda: ["ca", "root"])
    tcb_chain: list[str] = field(default_factory=lambda: ["signer", "root"])
    qe_chain: list[str] = field(default_factory=lambda: ["signer", "root"])
    root_crl: CrlSpec = field(default_factory=lambda: CrlSpec("Lab SGX Root CA", ROOT, 3))
    pck_crl: CrlSpec = field(default_factory=lambda: CrlSpec("Lab SGX PCK Platform CA", CA, 8))

    version: tuple[int, int] = (3, 1)
    tcb_info: dict[str, Any] = field(default_factory=tcb_info)
    qe_identity: dict[str, Any] = field(default_factory=qe_identity)
    tcb_info_key: ec.EllipticCurvePrivateKey = SIGNER
    qe_identity_key: ec.EllipticCurvePrivateKey = SIGNER

    def root_key(self) -> bytes:
        return point(self.trusted_key)

    def quote(self) -> bytes:
        signed = push_signed_part(self.header, self.body_type, self.body)
        attestation = self.attestation_point or point(ATTESTATION)[1:]
        bound = self.qe_report_data or hashlib.sha256(attestation + self.qe_auth_data).digest() + bytes(32)
        report = push_qe_report(replace(self.qe_report, report_data=bound))
        return push_quote(
            signed,
            SignatureData(
                sign(self.quote_key, signed),
                attestation,
                report,
                sign(self.qe_report_key, report),
                self.qe_auth_data,
                self.chain(self.pck_chain),
            ),
        )

    def collateral(self) -> CollateralSet:
        return CollateralSet(
            *self.version,
            0x81,
            self.chain(self.crl_chain),
            self.crl(self.root_crl),
            self.crl(self.pck_crl),
            self.chain(self.tcb_chain),
            signed_document("tcbInfo", self.tcb_info, self.tcb_info_key),
            self.chain(self.qe_chain),
            signed_document("enclaveIdentity", self.qe_identity, self.qe_identity_key),
        )

    def certificate(self, name: str) -> x509.Certificate:
        spec = self.certificates[name]
        sgx = (sgx_extension(self.sgx) if spec.sgx is None else spec.sgx) if name == "pck" else None
        return make_certificate(**vars(spec) | {"sgx": sgx, "is_ca": name in ("root", "ca")})

    def chain(self, names: list[str]) -> bytes:
        return b"".join(self.certificate(name).public_bytes(Encoding.PEM) for name in names)

    def crl(self, spec: CrlSpec) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(x509_name(spec.issuer))
            .last_update(spec.issued)
            .next_update(spec.expires)
        )
        if spec.number is not None:
            builder = builder.add_extension(x509.CRLNumber(spec.number), critical=False)
        if spec.key_identifier:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(spec.key.public_key()), critical=False
            )
        for serial in spec.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(YEAR_2025).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(spec.key, SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.PEM)


def with_part(collateral: CollateralSet, part: str, value: bytes) -> CollateralSet:
    """The set with another value in one of its seven parts."""
    return replace(collateral, **{part: value})  # type: ignore[arg-type]


# --- making --------------------------------------------------------------------------------------------------------
def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@functools.cache
def make_certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    sgx: bytes | None,
    issued: datetime,
    expires: datetime,
    digest: type[SHA256 | SHA384],
    *,
    is_ca: bool,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509_name(name))
        .issuer_name(x509_name(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(issued)
        .not_valid_after(expires)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(key_usage(is_ca=is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if sgx is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX), sgx)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, digest(), ecdsa_deterministic=True)


@functools.cache
def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def signed_document(name: str, value: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    text = json.dumps(value, separators=(",", ":"))
    return f'{{"{name}":{text},"signature":"{sign(key, text.encode()).hex()}"}}'.encode()


def x509_name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Test"),
        ]
    )


def key_usage(*, is_ca: bool) -> x509.KeyUsage:
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


class _Item(core.Sequence):  # type: ignore[misc]
    _fields = [("id", core.ObjectIdentifier), ("value", core.Any)]  # noqa: RUF012


class _Items(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Item


def items(fields: dict[str, core.Asn1Value]) -> core.Asn1Value:
    return _Items([_Item({"id": oid, "value": value}) for oid, value in fields.items()])


def sgx_extension(sgx: SgxFields, *, twice: bool = False, **changes: Any) -> bytes:
    """`changes`: `tcb_N`, `pceid` or `fmspc` -> another value, or None to leave the field out; `twice`: FMSPC again."""
    tcb = {f"{SGX}.2.{number}": core.Integer(svn) for number, svn in enumerate(sgx.components, start=1)}
    tcb |= {f"{SGX}.2.17": core.Integer(sgx.pcesvn), f"{SGX}.2.18": core.OctetString(bytes(sgx.components))}
    for name, value in changes.items():
        if name.startswith("tcb_"):
            tcb[f"{SGX}.2.{name.removeprefix('tcb_')}"] = value
    fields = {
        f"{SGX}.1": core.OctetString(bytes(16)),
        f"{SGX}.2": items({oid: value for oid, value in tcb.items() if value is not None}),
        f"{SGX}.3": changes.get("pceid", core.OctetString(sgx.pceid)),
        f"{SGX}.4": changes.get("fmspc", core.OctetString(sgx.fmspc)),
        f"{SGX}.5": core.Enumerated.load(b"\x0a\x01\x01"),
    }
    encoded_items = items({oid: value for oid, value in fields.items() if value is not None})
    if twice:
        encoded_items.append(_Item({"id": f"{SGX}.4", "value": core.OctetString(sgx.fmspc)}))
    encoded: bytes = encoded_items.dump()
    return encoded

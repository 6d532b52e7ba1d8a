# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A tolerant reader of peer certificates (ghci-ratls.md 5).

The reference writes `critical FALSE` out, which is BER but not DER, and strict readers refuse it. This one walks the
elements with asn1crypto's parser, all at once and within bounds, instead of through its lazy objects, whose errors
would come up wherever a field is first looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from asn1crypto import core, parser
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384

from migtd import failures
from migtd.errors import SecureSessionError
from migtd.ratls.certificate import (
    OID_EC_PUBLIC_KEY,
    OID_ECDSA_WITH_SHA384,
    OID_EXT_KEY_USAGE,
    OID_SECP384R1,
    PUBLIC_POINT_SIZE,
)

MAX_CERTIFICATE: Final = 102_400
"""Most bytes of a certificate: also the TLS library's limit for the whole list."""
_MAX_ELEMENTS: Final = 64
"""Most elements of one SEQUENCE: extensions, key usages. Keeps hostile input from costing more than its size."""
_MAX_OID: Final = 64

_UNIVERSAL: Final = 0
_CONTEXT: Final = 2
_BOOLEAN: Final = 1
_INTEGER: Final = 2
_BIT_STRING: Final = 3
_OCTET_STRING: Final = 4
_OBJECT_IDENTIFIER: Final = 6
_SEQUENCE: Final = 16
_EXTENSIONS: Final = 3
"""Context tags of the TBS: 0 version, 1 and 2 unique identifiers, 3 extensions."""
_VERSION_3: Final = b"\x02"
_HIGH_TAG: Final = 0x1F
_INDEFINITE: Final = b"\x80"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a session needs of the peer's certificate.

    `tbs` is the signed part as sent, `public_point` the 97-byte P-384 point (on the curve), OIDs are dotted.
    `extensions` maps each OID to the content of its OCTET STRING: the raw bytes for the private ones.
    """

    tbs: bytes = field(repr=False)
    signature_algorithm: str
    signature: bytes = field(repr=False)
    public_point: bytes = field(repr=False)
    extended_key_usage: tuple[str, ...]
    extensions: Mapping[str, bytes] = field(repr=False)


def pull_certificate(der: bytes) -> PeerCertificate:
    """Read a version 3 certificate with a P-384 key; an explicit `critical FALSE` is accepted.

    Raises SecureSessionError (MIGTD-CERTIFICATE-MALFORMED) for everything else. Nothing is verified here.
    """
    try:
        return _certificate(der)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise SecureSessionError(failures.CERTIFICATE_MALFORMED, str(error)) from error


def verify_self_signature(certificate: PeerCertificate) -> None:
    """Verify the ecdsa-with-SHA384 signature over the raw TBS bytes by the certificate's own key.

    Raises SecureSessionError (MIGTD-CERTIFICATE-SIGNATURE).
    """
    if certificate.signature_algorithm != OID_ECDSA_WITH_SHA384:
        raise SecureSessionError(failures.CERTIFICATE_SIGNATURE, f"algorithm {certificate.signature_algorithm}")
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), certificate.public_point)
    try:
        key.verify(certificate.signature, certificate.tbs, ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise SecureSessionError(failures.CERTIFICATE_SIGNATURE) from error


@dataclass(frozen=True, slots=True)
class _Element:
    """One element: class, whether it is constructed, tag number, whole encoding and content."""

    tag_class: int
    constructed: bool
    tag: int
    encoding: bytes
    content: bytes

    def expect(self, tag: int, what: str) -> bytes:
        """The content of a universal element of type `tag`."""
        if self.tag_class != _UNIVERSAL or self.tag != tag or self.constructed != (tag == _SEQUENCE):
            raise ValueError(f"{what} has class {self.tag_class} tag {self.tag}")
        return self.content

    def children(self, what: str) -> list[_Element]:
        """The elements of a SEQUENCE."""
        return list(_elements(self.expect(_SEQUENCE, what), what))


def _certificate(der: bytes) -> PeerCertificate:
    if len(der) > MAX_CERTIFICATE:
        raise ValueError(f"{len(der)} bytes are more than {MAX_CERTIFICATE}")
    tbs, algorithm, signature = _only(der, "certificate").children("certificate")
    version, _serial, inner_algorithm, _issuer, _validity, _subject, key_info, *optional = tbs.children("TBS")
    _expect_version_3(version)
    if inner_algorithm.encoding != algorithm.encoding:
        raise ValueError("the two signature algorithms differ")
    extensions = _extensions(optional)
    return PeerCertificate(
        tbs=tbs.encoding,
        signature_algorithm=_oid(algorithm.children("signature algorithm")[0]),
        signature=_bit_string(signature, "signature"),
        public_point=_public_point(key_info),
        extended_key_usage=_extended_key_usage(extensions),
        extensions=MappingProxyType(extensions),
    )


def _expect_version_3(element: _Element) -> None:
    if (element.tag_class, element.tag) != (_CONTEXT, 0):
        raise ValueError("no version: this is version 1")
    if _only(element.content, "version").expect(_INTEGER, "version") != _VERSION_3:
        raise ValueError("the version is not 3")


def _public_point(key_info: _Element) -> bytes:
    algorithm, key = key_info.children("public key")
    oids = [_oid(each) for each in algorithm.children("public key algorithm")]
    if oids != [OID_EC_PUBLIC_KEY, OID_SECP384R1]:
        raise ValueError(f"the public key is no P-384 key but {' '.join(oids)}")
    point = _bit_string(key, "public key")
    if len(point) != PUBLIC_POINT_SIZE:
        raise ValueError(f"the public point has {len(point)} bytes instead of {PUBLIC_POINT_SIZE}")
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)  # raises ValueError off the curve
    return point


def _extensions(optional: list[_Element]) -> dict[str, bytes]:
    tags = [element.tag for element in optional if element.tag_class == _CONTEXT]
    if len(tags) != len(optional) or tags != sorted(set(tags)) or not {1, 2, _EXTENSIONS}.issuperset(tags):
        raise ValueError("unknown elements behind the public key")
    found: dict[str, bytes] = {}
    if _EXTENSIONS not in tags:
        return found
    for element in _only(optional[-1].content, "extensions").children("extensions"):
        oid_element, *critical, value = element.children("extension")
        oid = _oid(oid_element)
        for flag in critical:
            flag.expect(_BOOLEAN, f"critical of {oid}")
        if len(critical) > 1 or any(len(flag.content) != 1 for flag in critical):
            raise ValueError(f"extension {oid} has a malformed critical flag")
        if oid in found:
            raise ValueError(f"extension {oid} appears twice")
        found[oid] = value.expect(_OCTET_STRING, f"value of {oid}")
    return found


def _extended_key_usage(extensions: dict[str, bytes]) -> tuple[str, ...]:
    value = extensions.get(OID_EXT_KEY_USAGE)
    if value is None:
        return ()
    return tuple(_oid(each) for each in _only(value, "extKeyUsage").children("extKeyUsage"))


def _oid(element: _Element) -> str:
    content = element.expect(_OBJECT_IDENTIFIER, "object identifier")
    if not 0 < len(content) <= _MAX_OID or content[-1] & 0x80:
        raise ValueError(f"an object identifier of {len(content)} bytes is malformed")
    dotted: str = core.ObjectIdentifier.load(element.encoding).dotted
    return dotted


def _bit_string(element: _Element, what: str) -> bytes:
    content = element.expect(_BIT_STRING, what)
    if content[:1] != b"\0":
        raise ValueError(f"{what} is no whole number of bytes")
    return content[1:]


def _only(data: bytes, what: str) -> _Element:
    (element,) = _elements(data, what)
    return element


def _elements(data: bytes, what: str) -> Iterator[_Element]:
    """The elements that `data` consists of, at most _MAX_ELEMENTS; no indefinite length, no tag above 30.

    Those two are refused before the parser sees them: no certificate has them, and each makes it work harder than the
    size of its input warrants.
    """
    for _ in range(_MAX_ELEMENTS):
        if not data:
            return
        if data[0] & _HIGH_TAG == _HIGH_TAG or data[1:2] == _INDEFINITE:
            raise ValueError(f"{what} holds a high tag number or an indefinite length")
        tag_class, constructed, tag, header, content, _trailer = parser.parse(data)
        encoding = header + content
        yield _Element(tag_class, bool(constructed), tag, encoding, content)
        data = data[len(encoding) :]
    if data:
        raise ValueError(f"{what} has more than {_MAX_ELEMENTS} elements")

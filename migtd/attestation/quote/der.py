# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Fields of certificates and CRLs as their exact bytes, read before a library sees them.

Names are compared encoded, and what the library would warn of (odd serial numbers, algorithm parameters) is refused
here. What comes in may be anything; every function raises ValueError where the layout does not hold. The signature
algorithm must be ecdsa-with-SHA256.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_OCTET_STRING: Final = 0x04
_UTF8_STRING: Final = 0x0C
_PRINTABLE_STRING: Final = 0x13
_SEQUENCE: Final = 0x30
_EXTENSIONS: Final = 0xA3
_LONG_FORM: Final = 0x80
_COMMON_NAME: Final = bytes.fromhex("550403")

ECDSA_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
"""AlgorithmIdentifier ecdsa-with-SHA256, encoded."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag byte, its content, and its whole encoding."""

    tag: int
    content: bytes
    encoded: bytes


def pull_elements(data: bytes) -> Iterator[Element]:
    """The elements that fill `data`, one after the other."""
    offset = 0
    while offset < len(data):
        start, size = _pull_head(data, offset)
        end = start + size
        if end > len(data):
            raise ValueError("an element is longer than what holds it")
        yield Element(data[offset], data[start:end], data[offset:end])
        offset = end


def pull_signed(der: bytes) -> tuple[bytes, bytes]:
    """The signed part of a certificate or CRL and the signature over it, nothing else being left to chance."""
    parts = list(pull_elements(_only(der).content))
    if len(parts) != 3 or parts[2].tag != _BIT_STRING or not parts[2].content:  # noqa: PLR2004 - the three parts
        raise ValueError("not a signed part, an algorithm and a signature")
    signed, signature = parts[0].encoded, parts[2].content[1:]
    if der != push_element(_SEQUENCE, signed, ECDSA_SHA256, push_element(_BIT_STRING, b"\0", signature)):
        raise ValueError("not signed with ecdsa-with-SHA256")
    return signed, signature


def pull_names(tbs_certificate: bytes) -> tuple[bytes, bytes]:
    """Issuer and subject of a certificate's signed part, encoded; its serial number must be positive."""
    fields = list(_fields_of(tbs_certificate))
    serial = next((field.content for field in fields if field.tag == _INTEGER), b"")
    if int.from_bytes(serial, "big", signed=True) <= 0:
        raise ValueError("a serial number that is not positive")
    # signature algorithm, issuer, validity, subject, public key
    parts = [field.encoded for field in fields if field.tag == _SEQUENCE]
    if len(parts) < 5 or parts[0] != ECDSA_SHA256:  # noqa: PLR2004 - counted in the line above
        raise ValueError("a signed part without algorithm and names")
    return parts[1], parts[3]


def pull_crl_issuer(tbs_crl: bytes) -> bytes:
    """Issuer of a CRL's signed part, encoded."""
    # signature algorithm, issuer
    parts = [field.encoded for field in _fields_of(tbs_crl) if field.tag == _SEQUENCE]
    if len(parts) < 2 or parts[0] != ECDSA_SHA256:  # noqa: PLR2004 - counted in the line above
        raise ValueError("a signed part without algorithm and issuer")
    return parts[1]


def pull_common_name(name: bytes) -> str:
    """The text of the only common name in an encoded name; empty where there is none or more than one."""
    found = [
        value
        for relative in pull_elements(_only(name).content)
        for attribute in pull_elements(relative.content)
        for oid, value in [_pair(attribute.content)]
        if oid.content == _COMMON_NAME and value.tag in (_UTF8_STRING, _PRINTABLE_STRING)
    ]
    return found[0].content.decode() if len(found) == 1 else ""


def pull_extension_value(tbs_certificate: bytes, oid: bytes) -> bytes | None:
    """The value of the extension with the encoded `oid` in a certificate's signed part; None where there is none."""
    for field in _fields_of(tbs_certificate):
        if field.tag != _EXTENSIONS:
            continue
        for extension in pull_elements(_only(field.content).content):
            parts = list(pull_elements(extension.content))
            if parts and parts[0].encoded == oid and parts[-1].tag == _OCTET_STRING:
                return parts[-1].content
    return None


def push_element(tag: int, *parts: bytes) -> bytes:
    """Encode one element of these contents."""
    content = b"".join(parts)
    size = len(content)
    if size < _LONG_FORM:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(octets))) + octets + content


def _fields_of(signed_part: bytes) -> Iterator[Element]:
    return pull_elements(_only(signed_part).content)


def _only(data: bytes) -> Element:
    elements = list(pull_elements(data))
    if len(elements) != 1 or elements[0].tag != _SEQUENCE:
        raise ValueError("not one SEQUENCE")
    return elements[0]


def _pair(data: bytes) -> tuple[Element, Element]:
    elements = list(pull_elements(data))
    if len(elements) != 2:  # noqa: PLR2004 - a pair
        raise ValueError("not a pair")
    return elements[0], elements[1]


def _pull_head(data: bytes, offset: int) -> tuple[int, int]:
    """Where the content of the element at `offset` starts, and its size."""
    if offset + 1 >= len(data):
        raise ValueError("an element ends in its head")
    size = data[offset + 1]
    start = offset + 2
    if size >= _LONG_FORM:
        count = size - _LONG_FORM
        size = int.from_bytes(data[start : start + count], "big")
        start += count
    return start, size

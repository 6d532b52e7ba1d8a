# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A collateral set and the two forms in which it comes (policy.md 4.1, 4.6, 2.3).

Packed: `major u16 | minor u16 | seven sizes u32 | seven blobs`, each blob NUL-terminated and its size counting the NUL.
JSON: the document of a collateral generator, with many platforms and its own root CA.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import Final

from migtd.attestation.quote import failures
from migtd.attestation.quote.documents import Reader, parse_json
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import TEE_TYPE_TDX
from migtd.attestation.quote.pem import CERTIFICATE, pull_pem

MAX_PART_SIZE: Final = 4 << 20
"""Bytes of one part of a set; a PCK CRL is the largest in practice, some hundred KiB."""
MAX_DOCUMENT_SIZE: Final = 16 << 20
"""Bytes of a collateral document in JSON."""

_PARTS: Final = 7
_HEAD: Final = struct.Struct(f"<HH{_PARTS}I")


@dataclass(frozen=True, slots=True)
class CollateralSet:
    """What a quote of one FMSPC is judged by: PEM chains and CRLs, JSON documents, without trailing NULs.

    `major` and `minor` u16, `tee_type` u32 (0x81; nothing looks at it).
    """

    major: int
    minor: int
    tee_type: int
    pck_crl_issuer_chain: bytes
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: bytes
    tcb_info: bytes
    qe_identity_issuer_chain: bytes
    qe_identity: bytes


def pull_packed(data: bytes) -> CollateralSet:
    """Decode the packed form (policy.md 4.6); it has no TEE type, so that is TDX.

    Raises QuoteError (MIGTD-COLLATERAL-MALFORMED) unless the sizes fill the data exactly and each blob ends in a NUL.
    """
    if len(data) < _HEAD.size:
        raise _malformed(f"{len(data)} bytes, the sizes alone need {_HEAD.size}")
    major, minor, *sizes = _HEAD.unpack_from(data)
    if sum(sizes) != len(data) - _HEAD.size:
        raise _malformed(f"blobs of {sum(sizes)} bytes in {len(data) - _HEAD.size}")
    blobs, offset = [], _HEAD.size
    for size in sizes:
        blob = data[offset : offset + size]
        if not blob.endswith(b"\0"):
            raise _malformed(f"the blob at {offset} does not end in a NUL")
        blobs.append(bytes(blob.rstrip(b"\0")))
        offset += size
    return CollateralSet(major, minor, TEE_TYPE_TDX, *blobs)


def push_packed(collateral: CollateralSet) -> bytes:
    """Encode the packed form; `tee_type` is not part of it. Each blob gets one NUL."""
    major, minor, _tee_type, *blobs = astuple(collateral)
    return _HEAD.pack(major, minor, *(len(blob) + 1 for blob in blobs)) + b"".join(blob + b"\0" for blob in blobs)


def pull_collaterals_json(data: bytes, fmspc: str) -> tuple[CollateralSet, bytes]:
    """The set of one platform from a collaterals document, and the document's root CA as DER.

    `fmspc` is 12 hex digits in either case; a platform is found by the upper-case text (policy.md 2.3). Raises
    QuoteError: MIGTD-COLLATERAL-MALFORMED, MIGTD-COLLATERAL-PLATFORM-MISSING (the FMSPC is not listed).
    """
    document = parse_json(data, failures.COLLATERAL_MALFORMED, limit=MAX_DOCUMENT_SIZE)
    top = Reader(document, failures.COLLATERAL_MALFORMED, "collaterals")
    wanted = fmspc.upper()
    platform = next((item for item in top.structures("platforms") if item.text("fmspc") == wanted), None)
    if platform is None:
        raise QuoteError(failures.COLLATERAL_PLATFORM_MISSING, f"FMSPC {wanted}")
    root_ca = pull_pem(_blob(top, "rootCa"), CERTIFICATE, failures.COLLATERAL_MALFORMED)
    if len(root_ca) != 1:
        raise _malformed(f"rootCa holds {len(root_ca)} certificates")
    collateral = CollateralSet(
        top.integer("majorVersion", 0xFFFF),
        top.integer("minorVersion", 0xFFFF),
        top.integer("teeType", 0xFFFF_FFFF),
        _blob(top, "pckCrlIssuerChain"),
        _blob(top, "rootCaCrl"),
        _blob(top, "pckCrl"),
        _blob(platform, "tcbInfoIssuerChain"),
        _blob(platform, "tcbInfo"),
        _blob(top, "qeIdentityIssuerChain"),
        _blob(top, "qeIdentity"),
    )
    return collateral, root_ca[0]


def _blob(reader: Reader, name: str) -> bytes:
    try:
        blob = reader.text(name).encode()
    except UnicodeEncodeError as error:
        raise _malformed(f"{name} holds a lone surrogate") from error
    if b"\0" in blob:
        raise _malformed(f"{name} holds a NUL")
    return blob


def _malformed(detail: str) -> QuoteError:
    return QuoteError(failures.COLLATERAL_MALFORMED, detail)

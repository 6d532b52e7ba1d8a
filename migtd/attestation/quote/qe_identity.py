# SPDX-License-Identifier: BSD-2-Clause-Patent
"""QE identity: what Intel says of the TD quoting enclave (policy.md 4.3, 4.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from migtd.attestation.quote import failures
from migtd.attestation.quote.certificates import raw_signed_by
from migtd.attestation.quote.documents import Reader, parse_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import QeReport
from migtd.attestation.quote.tcb_level import SvnLevel, read_svn_levels

MAX_SIZE: Final = 1 << 18
"""Bytes of a document; real ones have some 20,000."""
QE_IDENTITY_ID: Final = "TD_QE"
QE_IDENTITY_VERSION: Final = 2

_KIND: Final = failures.COLLATERAL_QE_IDENTITY_MALFORMED


@dataclass(frozen=True, slots=True)
class QeIdentity:
    """A verified QE identity; dates in seconds since 1970.

    `miscselect` and its mask are 4 bytes as written, ATTRIBUTES and their mask 16, `mrsigner` 32; `levels` in the
    order of the document, as they are matched.
    """

    issue_date: int
    next_update: int
    evaluation_number: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[SvnLevel, ...]


def verify_qe_identity(data: bytes, signer: ec.EllipticCurvePublicKey) -> QeIdentity:
    """Check the signature of a QE identity and read it.

    Raises QuoteError: MIGTD-COLLATERAL-QE-IDENTITY-MALFORMED, MIGTD-COLLATERAL-QE-IDENTITY-SIGNATURE.
    """
    document = parse_signed(data, "enclaveIdentity", _KIND, limit=MAX_SIZE)
    if not raw_signed_by(signer, document.signature, document.message):
        raise QuoteError(failures.COLLATERAL_QE_IDENTITY_SIGNATURE)
    identity = Reader(document.value, _KIND, "enclaveIdentity")
    kind = identity.text("id"), identity.integer("version", 0xFFFF)
    if kind != (QE_IDENTITY_ID, QE_IDENTITY_VERSION):
        raise QuoteError(_KIND, f"id and version are {kind}")
    return QeIdentity(
        identity.date("issueDate"),
        identity.date("nextUpdate"),
        identity.integer("tcbEvaluationDataNumber", 0xFFFF_FFFF),
        identity.hex("miscselect", 4),
        identity.hex("miscselectMask", 4),
        identity.hex("attributes", 16),
        identity.hex("attributesMask", 16),
        identity.hex("mrsigner", 32),
        identity.integer("isvprodid", 0xFFFF),
        read_svn_levels(identity),
    )


def expect_qe(identity: QeIdentity, report: QeReport) -> None:
    """Refuse another quoting enclave; raises QuoteError (MIGTD-QUOTE-QE-MISMATCH)."""
    miscselect = report.miscselect.to_bytes(4, "little")
    comparisons = (
        ("MISCSELECT", masked(miscselect, identity.miscselect_mask), identity.miscselect),
        ("ATTRIBUTES", masked(report.attributes, identity.attributes_mask), identity.attributes),
        ("MRSIGNER", report.mrsigner, identity.mrsigner),
    )
    for name, found, wanted in comparisons:
        if found != wanted:
            raise QuoteError(failures.QUOTE_QE_MISMATCH, f"{name} {found.hex()} in the place of {wanted.hex()}")
    if report.isvprodid != identity.isvprodid:
        detail = f"ISVPRODID {report.isvprodid} in the place of {identity.isvprodid}"
        raise QuoteError(failures.QUOTE_QE_MISMATCH, detail)


def masked(value: bytes, mask: bytes) -> bytes:
    """`value` AND `mask`, byte by byte; both of one size."""
    return bytes(a & b for a, b in zip(value, mask, strict=True))

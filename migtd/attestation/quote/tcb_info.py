# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TCB info: what Intel says of one platform model and its TDX modules (policy.md 4.3, 4.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from migtd.attestation.quote import failures
from migtd.attestation.quote.certificates import raw_signed_by
from migtd.attestation.quote.documents import Reader, parse_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import QuoteBody
from migtd.attestation.quote.pck import FMSPC_SIZE, PCEID_SIZE, PckExtension
from migtd.attestation.quote.tcb_level import PlatformLevel, SvnLevel, read_platform_levels, read_svn_levels

MAX_SIZE: Final = 1 << 18
"""Bytes of a document; real ones have some 20,000."""
TCB_INFO_ID: Final = "TDX"
TCB_INFO_VERSION: Final = 3
TCB_TYPE: Final = 0

_KIND: Final = failures.COLLATERAL_TCB_INFO_MALFORMED


@dataclass(frozen=True, slots=True)
class ModuleIdentity:
    """A TDX module: `mrsigner` 48 bytes, SEAM `attributes` 8; `levels` highest first, none for `tdxModule`."""

    id: str
    mrsigner: bytes
    attributes: bytes
    levels: tuple[SvnLevel, ...] = ()


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """A verified TCB info; dates in seconds since 1970; `module` is the one of quotes whose TEE_TCB_SVN[1] is 0."""

    issue_date: int
    next_update: int
    fmspc: bytes
    pceid: bytes
    evaluation_number: int
    module: ModuleIdentity
    module_identities: tuple[ModuleIdentity, ...]
    levels: tuple[PlatformLevel, ...]


def verify_tcb_info(data: bytes, signer: ec.EllipticCurvePublicKey) -> TcbInfo:
    """Check the signature of a TCB info and read it.

    Raises QuoteError: MIGTD-COLLATERAL-TCB-INFO-MALFORMED, MIGTD-COLLATERAL-TCB-INFO-SIGNATURE,
    MIGTD-COLLATERAL-TCB-LEVELS-REPEATED.
    """
    document = parse_signed(data, "tcbInfo", _KIND, limit=MAX_SIZE)
    if not raw_signed_by(signer, document.signature, document.message):
        raise QuoteError(failures.COLLATERAL_TCB_INFO_SIGNATURE)
    info = Reader(document.value, _KIND, "tcbInfo")
    kind = info.text("id"), info.integer("version", 0xFFFF), info.integer("tcbType", 0xFFFF)
    if kind != (TCB_INFO_ID, TCB_INFO_VERSION, TCB_TYPE):
        raise QuoteError(_KIND, f"id, version and tcbType are {kind}")
    module = info.structure("tdxModule")
    return TcbInfo(
        info.date("issueDate"),
        info.date("nextUpdate"),
        info.hex("fmspc", FMSPC_SIZE),
        info.hex("pceId", PCEID_SIZE),
        info.integer("tcbEvaluationDataNumber", 0xFFFF_FFFF),
        ModuleIdentity("", module.hex("mrsigner", 48), module.hex("attributes", 8)),
        tuple(map(_module_identity, info.optional_structures("tdxModuleIdentities"))),
        read_platform_levels(info),
    )


def expect_platform(info: TcbInfo, pck: PckExtension) -> None:
    """Refuse a TCB info of another platform model.

    Raises QuoteError: MIGTD-QUOTE-FMSPC-MISMATCH, MIGTD-QUOTE-PCEID-MISMATCH.
    """
    if pck.fmspc != info.fmspc:
        detail = f"FMSPC {pck.fmspc.hex().upper()} in the quote, {info.fmspc.hex().upper()} in the TCB info"
        raise QuoteError(failures.QUOTE_FMSPC_MISMATCH, detail)
    if pck.pceid != info.pceid:
        detail = f"PCEID {pck.pceid.hex()} in the quote, {info.pceid.hex()} in the TCB info"
        raise QuoteError(failures.QUOTE_PCEID_MISMATCH, detail)


def expect_module(info: TcbInfo, body: QuoteBody) -> ModuleIdentity:
    """The identity of the TDX module that a quote was made under.

    It is named by the major version, TEE_TCB_SVN[1]; with 0 it is `tdxModule`. Raises QuoteError:
    MIGTD-QUOTE-TDX-MODULE-UNKNOWN, MIGTD-QUOTE-TDX-MODULE-MISMATCH (MRSIGNERSEAM or SEAM attributes differ, or the
    attributes are not zero).
    """
    major = body.tee_tcb_svn[1]
    name = f"TDX_{major:02X}"
    identities = [each for each in info.module_identities if each.id.upper() == name] if major else [info.module]
    if not identities:
        raise QuoteError(failures.QUOTE_TDX_MODULE_UNKNOWN, f"there is no identity {name}")
    identity = identities[0]
    if body.mrsignerseam != identity.mrsigner:
        raise QuoteError(failures.QUOTE_TDX_MODULE_MISMATCH, f"MRSIGNERSEAM {body.mrsignerseam.hex()}")
    if body.seam_attributes != identity.attributes or any(body.seam_attributes):
        raise QuoteError(failures.QUOTE_TDX_MODULE_MISMATCH, f"SEAM attributes {body.seam_attributes.hex()}")
    return identity


def _module_identity(identity: Reader) -> ModuleIdentity:
    levels = sorted(read_svn_levels(identity), key=lambda level: level.isvsvn, reverse=True)
    return ModuleIdentity(
        identity.text("id"), identity.hex("mrsigner", 48), identity.hex("attributes", 8), tuple(levels)
    )

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The quote verifier: bytes in, record and data out; no clock, network or file (policy.md 4.3, 4.9).

    verify_quote(quote, root_key, collateral)          one quote
    verify_prepared(quote, prepare(collateral, root_key))    several quotes under one set

The checks run in the order of 4.3, those of the collateral alone before those of the quote. Time plays no part: see
`Verified.collateral_expired`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from migtd.attestation.quote import failures
from migtd.attestation.quote.certificates import Certificate, raw_signed_by, root_key_of
from migtd.attestation.quote.chain import PckChain, verify_pck_chain
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.crl import expect_crl_of
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import BODY_SIZE, QeReport, Quote, SignatureData, pull_qe_report, pull_quote
from migtd.attestation.quote.pck import pull_extension
from migtd.attestation.quote.prepare import PreparedCollateral, narrowest, prepare, window_of
from migtd.attestation.quote.qe_identity import QeIdentity, expect_qe, masked
from migtd.attestation.quote.record import SupplementalRecord, push_record
from migtd.attestation.quote.result import Verified
from migtd.attestation.quote.tcb_info import ModuleIdentity, expect_module, expect_platform
from migtd.attestation.quote.tcb_level import (
    ENCLAVE_STATUSES,
    PLATFORM_STATUSES,
    PlatformLevel,
    SvnLevel,
    expect_not_revoked,
    match_platform,
    match_svn,
)

__all__ = ["Verified", "prepare", "root_key_of", "verify_prepared", "verify_quote"]

_KEY_HASH_SIZE: Final = 32


def verify_quote(quote: bytes, root_key: bytes, collateral: CollateralSet) -> Verified:
    """Verify a quote against the trusted root, a 65-byte P-256 point, and the collateral of its platform model.

    Zeros may follow the quote. Raises QuoteError; failures.py lists the kinds in the order of the checks.
    """
    pulled = pull_quote(quote)
    return _judge(pulled, prepare(collateral, root_key))


def verify_prepared(quote: bytes, collateral: PreparedCollateral) -> Verified:
    """The same with collateral that was verified before."""
    return _judge(pull_quote(quote), collateral)


def _judge(quote: Quote, collateral: PreparedCollateral) -> Verified:
    chain = _verify_chain(quote, collateral)
    pck = pull_extension(chain.pck.signed)
    expect_platform(collateral.tcb_info, pck)
    module_identity = expect_module(collateral.tcb_info, quote.body)
    report = _verify_qe(quote.signature_data, chain.pck, collateral.qe_identity)
    _verify_signature(quote)
    platform = match_platform(collateral.tcb_info.levels, pck, quote.body.tee_tcb_svn)
    module = _match_module(module_identity, quote.body.tee_tcb_svn)
    qe = match_svn(collateral.qe_identity.levels, report.isvsvn, failures.QUOTE_QE_LEVEL_MISSING)
    expect_not_revoked(platform, PLATFORM_STATUSES, failures.QUOTE_TCB_REVOKED)
    if module is not None:
        expect_not_revoked(module, ENCLAVE_STATUSES, failures.QUOTE_TDX_MODULE_REVOKED)
    expect_not_revoked(qe, ENCLAVE_STATUSES, failures.QUOTE_QE_REVOKED)
    window = narrowest(collateral.window, *map(window_of, (chain.root, chain.intermediate, chain.pck)))
    return Verified(
        push_record(_record(quote, pck.fmspc, platform, module, qe, report, collateral.qe_identity)),
        pck.fmspc,
        platform,
        module,
        qe,
        collateral.tcb_info.evaluation_number,
        collateral.qe_identity.evaluation_number,
        collateral.root_ca_crl.number,
        collateral.pck_crl.number,
        window.issued,
        window.expires,
    )


def _verify_chain(quote: Quote, collateral: PreparedCollateral) -> PckChain:
    """The PCK chain, under the same root certificate as the collateral, with nothing in it revoked."""
    chain = verify_pck_chain(quote.signature_data.pck_chain, collateral.root_key, collateral.trusted)
    if chain.root.der != collateral.root.der:
        detail = "the collateral ends in another certificate of the same key"
        raise QuoteError(failures.QUOTE_ROOT_UNTRUSTED, detail)
    if chain.intermediate.der != collateral.pck_ca.der:
        expect_crl_of(collateral.pck_crl, chain.intermediate)
    if collateral.root_ca_crl.revokes(chain.intermediate):
        raise QuoteError(failures.QUOTE_PCK_CA_REVOKED, f"{chain.intermediate.common_name!r}")
    if collateral.pck_crl.revokes(chain.pck):
        raise QuoteError(failures.QUOTE_PCK_REVOKED, f"serial number {chain.pck.serial_number:x}")
    return chain


def _verify_qe(data: SignatureData, pck: Certificate, identity: QeIdentity) -> QeReport:
    """The QE report: signed by the PCK key, vouching for the attestation key, of the known quoting enclave."""
    if not raw_signed_by(pck.key, data.qe_report_signature, data.qe_report):
        raise QuoteError(failures.QUOTE_QE_SIGNATURE)
    report = pull_qe_report(data.qe_report)
    key_hash = hashlib.sha256(data.attestation_key + data.qe_auth_data).digest()
    if report.report_data[:_KEY_HASH_SIZE] != key_hash:
        raise QuoteError(failures.QUOTE_QE_BINDING)
    expect_qe(identity, report)
    return report


def _verify_signature(quote: Quote) -> None:
    data = quote.signature_data
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + data.attestation_key)
    except ValueError as error:
        raise QuoteError(failures.QUOTE_SIGNATURE, "the attestation key is no point of P-256") from error
    if not raw_signed_by(key, data.signature, quote.signed):
        raise QuoteError(failures.QUOTE_SIGNATURE)


def _match_module(identity: ModuleIdentity, tee_tcb_svn: bytes) -> SvnLevel | None:
    """The level of a TDX module that has an identity of its own, else None."""
    if not tee_tcb_svn[1]:
        return None
    return match_svn(identity.levels, tee_tcb_svn[0], failures.QUOTE_TDX_MODULE_LEVEL_MISSING)


def _record(
    quote: Quote,
    fmspc: bytes,
    platform: PlatformLevel,
    module: SvnLevel | None,
    qe: SvnLevel,
    report: QeReport,
    identity: QeIdentity,
) -> SupplementalRecord:
    return SupplementalRecord(
        body=quote.body_bytes[:BODY_SIZE],
        fmspc=fmspc,
        tdx_components=platform.tdx_components,
        pcesvn=platform.pcesvn,
        sgx_components=platform.sgx_components,
        module_major=quote.body.tee_tcb_svn[1],
        module_svn=0 if module is None else module.isvsvn,
        qe_miscselect=masked(report.miscselect.to_bytes(4, "little"), identity.miscselect_mask),
        qe_miscselect_mask=identity.miscselect_mask,
        qe_attributes=masked(report.attributes, identity.attributes_mask),
        qe_attributes_mask=identity.attributes_mask,
        qe_mrenclave=report.mrenclave,
        qe_mrsigner=report.mrsigner,
        qe_isvprodid=report.isvprodid,
        qe_isvsvn=qe.isvsvn,
        tcb_date=min(platform.date, qe.date),
        platform_status=platform.status,
        platform_tcb_date=platform.date,
        qe_tcb_date=qe.date,
        qe_status=qe.status,
    )

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A collateral set, verified once for all the quotes that it serves (policy.md 4.3: CRLs, chains, documents)."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

from migtd.attestation.quote import failures
from migtd.attestation.quote.certificates import Certificate
from migtd.attestation.quote.chain import CA_NAME, SIGNER_NAME, IssuerChain, verify_issuer_chain
from migtd.attestation.quote.collateral import MAX_PART_SIZE, CollateralSet
from migtd.attestation.quote.crl import Crl, verify_crl
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.qe_identity import QeIdentity, verify_qe_identity
from migtd.attestation.quote.result import Window
from migtd.attestation.quote.tcb_info import TcbInfo, verify_tcb_info

VERSIONS: Final = ((1, 0), (3, 0), (3, 1), (4, 0))
"""Collateral versions, major and minor."""


@dataclass(frozen=True, slots=True)
class PreparedCollateral:
    """A set whose every part verifies under `root_key`, the 65-byte point; `trusted` are its certificates by DER."""

    root_key: bytes
    root: Certificate
    pck_ca: Certificate
    root_ca_crl: Crl
    pck_crl: Crl
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    trusted: frozenset[bytes]
    window: Window


def prepare(collateral: CollateralSet, root_key: bytes) -> PreparedCollateral:
    """Verify a collateral set; a pure function, worth keeping for every quote of the same platform model.

    Raises QuoteError with a kind `MIGTD-COLLATERAL-…` (failures.py).
    """
    _expect_version(collateral)
    tcb_chain = verify_issuer_chain(collateral.tcb_info_issuer_chain, SIGNER_NAME, root_key, ())
    trusted = {tcb_chain.root.der, tcb_chain.signer.der}
    qe_chain = verify_issuer_chain(collateral.qe_identity_issuer_chain, SIGNER_NAME, root_key, trusted)
    crl_chain = verify_issuer_chain(collateral.pck_crl_issuer_chain, CA_NAME, root_key, trusted)
    for chain in (qe_chain, crl_chain):
        if chain.root.der != tcb_chain.root.der:
            raise QuoteError(failures.COLLATERAL_ROOT_UNTRUSTED, "the chains end in two certificates of the same key")
    root_ca_crl = verify_crl(collateral.root_ca_crl, tcb_chain.root)
    pck_crl = verify_crl(collateral.pck_crl, crl_chain.signer)
    for signer in (tcb_chain.signer, qe_chain.signer):
        if root_ca_crl.revokes(signer):
            raise QuoteError(failures.COLLATERAL_SIGNER_REVOKED, f"{signer.common_name!r}")
    tcb_info = verify_tcb_info(collateral.tcb_info, tcb_chain.signer.key)
    qe_identity = verify_qe_identity(collateral.qe_identity, qe_chain.signer.key)
    windows = [
        Window(root_ca_crl.this_update, root_ca_crl.next_update),
        Window(pck_crl.this_update, pck_crl.next_update),
        Window(tcb_info.issue_date, tcb_info.next_update),
        Window(qe_identity.issue_date, qe_identity.next_update),
        *(window_of(each) for chain in (crl_chain, tcb_chain, qe_chain) for each in _certificates(chain)),
    ]
    return PreparedCollateral(
        root_key,
        tcb_chain.root,
        crl_chain.signer,
        root_ca_crl,
        pck_crl,
        tcb_info,
        qe_identity,
        frozenset({*trusted, crl_chain.signer.der, qe_chain.signer.der}),
        narrowest(*windows),
    )


def window_of(certificate: Certificate) -> Window:
    """The validity of a certificate."""
    return Window(certificate.not_before, certificate.not_after)


def narrowest(*windows: Window) -> Window:
    """From the latest issue to the earliest expiry; it may hold no instant at all."""
    return Window(max(each.issued for each in windows), min(each.expires for each in windows))


def _certificates(chain: IssuerChain) -> tuple[Certificate, Certificate]:
    return chain.root, chain.signer


def _expect_version(collateral: CollateralSet) -> None:
    if (collateral.major, collateral.minor) not in VERSIONS:
        raise QuoteError(failures.COLLATERAL_VERSION, f"{collateral.major}.{collateral.minor}")
    for part in astuple(collateral):
        if isinstance(part, bytes) and len(part) > MAX_PART_SIZE:
            raise QuoteError(failures.COLLATERAL_MALFORMED, f"a part of {len(part)} bytes, at most {MAX_PART_SIZE}")

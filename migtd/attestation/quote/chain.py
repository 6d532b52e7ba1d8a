# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Certificate chains: the quote's PCK chain and the issuer chains of the collateral (policy.md 4.3).

A root is the self-issued certificate of its chain, whatever the order in the PEM text. `trusted` are certificates that
were found good under the same root before (by DER); their signatures are not worked out again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from migtd.attestation.quote import failures
from migtd.attestation.quote.certificates import Certificate, expect_issued_by, point_of, pull_certificates
from migtd.attestation.quote.errors import QuoteError
from migtd.errors import FailureKind

ROOT_NAME: Final = "SGX Root CA"
PCK_NAME: Final = "SGX PCK Certificate"
SIGNER_NAME: Final = "SGX TCB Signing"
CA_NAME: Final = "CA"
CA_KINDS: Final = ("Platform", "Processor")


@dataclass(frozen=True, slots=True)
class PckChain:
    """The three certificates of a quote, verified up to the trusted root."""

    root: Certificate
    intermediate: Certificate
    pck: Certificate


@dataclass(frozen=True, slots=True)
class IssuerChain:
    """The two certificates of an issuer chain, verified up to the trusted root."""

    root: Certificate
    signer: Certificate


def verify_pck_chain(chain: bytes, root_key: bytes, trusted: Collection[bytes]) -> PckChain:
    """The PCK chain of a quote.

    Raises QuoteError: MIGTD-QUOTE-PCK-CHAIN-INVALID, MIGTD-QUOTE-ROOT-UNTRUSTED (the root's key is not `root_key`).
    """
    kind = failures.QUOTE_PCK_CHAIN_INVALID
    root, others = _split(pull_certificates(chain, 3, kind), kind)
    _expect_root(root, root_key, trusted, kind, failures.QUOTE_ROOT_UNTRUSTED)
    pck = next((each for each in others if PCK_NAME in each.common_name), None)
    intermediate = next((each for each in others if each is not pck), None)
    if pck is None or intermediate is None:
        raise QuoteError(kind, f"no certificate is named {PCK_NAME!r}")
    _expect_name(intermediate, CA_NAME, kind)
    if not any(name in intermediate.common_name for name in CA_KINDS):
        raise QuoteError(kind, f"{intermediate.common_name!r} is neither a Platform nor a Processor CA")
    if intermediate.der not in trusted:
        expect_issued_by(intermediate, root, kind)
    expect_issued_by(pck, intermediate, kind)
    return PckChain(root, intermediate, pck)


def verify_issuer_chain(chain: bytes, name: str, root_key: bytes, trusted: Collection[bytes]) -> IssuerChain:
    """An issuer chain of the collateral: a certificate named `name` and the root.

    Raises QuoteError: MIGTD-COLLATERAL-CHAIN-INVALID, MIGTD-COLLATERAL-ROOT-UNTRUSTED.
    """
    kind = failures.COLLATERAL_CHAIN_INVALID
    root, (signer,) = _split(pull_certificates(chain, 2, kind), kind)
    _expect_root(root, root_key, trusted, kind, failures.COLLATERAL_ROOT_UNTRUSTED)
    _expect_name(signer, name, kind)
    if signer.der not in trusted:
        expect_issued_by(signer, root, kind)
    return IssuerChain(root, signer)


def _split(certificates: list[Certificate], kind: FailureKind) -> tuple[Certificate, list[Certificate]]:
    """The root, and the others in the order of the text."""
    roots = [each for each in certificates if each.self_issued]
    if len(roots) != 1:
        raise QuoteError(kind, f"{len(roots)} self-issued certificates")
    return roots[0], [each for each in certificates if each is not roots[0]]


def _expect_root(
    root: Certificate, root_key: bytes, trusted: Collection[bytes], kind: FailureKind, untrusted: FailureKind
) -> None:
    if root.der in trusted:
        return
    _expect_name(root, ROOT_NAME, kind)
    if point_of(root.key) != root_key:
        raise QuoteError(untrusted, f"{root.common_name!r} has another key")
    expect_issued_by(root, root, kind)


def _expect_name(certificate: Certificate, name: str, kind: FailureKind) -> None:
    if name not in certificate.common_name:
        raise QuoteError(kind, f"the common name {certificate.common_name!r} does not contain {name!r}")

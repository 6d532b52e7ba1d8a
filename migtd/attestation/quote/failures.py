# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Failures of the quote verifier (policy.md 4.3): one for each reason that a person would act on differently."""

from __future__ import annotations

from typing import Final

from migtd.errors import FailureKind

_OTHER_EVIDENCE: Final = "the evidence was changed on its way or its maker is broken; get a new quote"
_OTHER_COLLATERAL: Final = "fetch the collateral again; if it stays so, whoever makes it is at fault"

# --- quote ---------------------------------------------------------------------------------------------------------
QUOTE_MALFORMED: Final = FailureKind(
    "MIGTD-QUOTE-MALFORMED",
    "a quote breaks its layout",
    "policy.md 4.7 gives the layout of versions 4 and 5; a file must hold the raw quote and nothing else",
)
QUOTE_TRAILING_DATA: Final = FailureKind(
    "MIGTD-QUOTE-TRAILING-DATA",
    "bytes behind a quote are not zero",
    "cut the quote at the end of its signature data or pad it with zeros; nothing signs what follows",
)
QUOTE_UNSUPPORTED: Final = FailureKind(
    "MIGTD-QUOTE-UNSUPPORTED",
    "a quote is of a kind that is not judged here",
    "give a TDX quote of version 4, or 5 with body type 2 or 3, made by Intel's quoting enclave with a P-256 key",
)
QUOTE_PCK_CHAIN_INVALID: Final = FailureKind(
    "MIGTD-QUOTE-PCK-CHAIN-INVALID",
    "the PCK certificate chain inside a quote does not verify",
    "a quote needs exactly three certificates, each signed by the next: PCK, PCK CA, root",
)
QUOTE_ROOT_UNTRUSTED: Final = FailureKind(
    "MIGTD-QUOTE-ROOT-UNTRUSTED",
    "a quote ends in another root than the trusted one",
    "both sides must come from the same PKI, and the configured root CA must be the one of that PKI",
)
QUOTE_PCK_EXTENSION_INVALID: Final = FailureKind(
    "MIGTD-QUOTE-PCK-EXTENSION-INVALID",
    "the SGX extension of a PCK certificate is missing or cannot be read",
    "the certificate is not one of a platform; policy.md 4.8 lists what the extension holds",
)
QUOTE_PCK_CA_REVOKED: Final = FailureKind(
    "MIGTD-QUOTE-PCK-CA-REVOKED",
    "the CA of the PCK certificate is revoked",
    "provision the platform with a certificate of another CA",
)
QUOTE_PCK_REVOKED: Final = FailureKind(
    "MIGTD-QUOTE-PCK-REVOKED",
    "the PCK certificate of the platform is revoked",
    "the platform is not trusted any more; migrate to or from another one",
)
QUOTE_FMSPC_MISMATCH: Final = FailureKind(
    "MIGTD-QUOTE-FMSPC-MISMATCH",
    "the TCB info is of another platform model than the quote",
    "give the collateral of the FMSPC named here; one set serves one FMSPC",
)
QUOTE_PCEID_MISMATCH: Final = FailureKind(
    "MIGTD-QUOTE-PCEID-MISMATCH",
    "the TCB info is of another PCE than the quote",
    "give the collateral of the PCEID named here",
)
QUOTE_TDX_MODULE_UNKNOWN: Final = FailureKind(
    "MIGTD-QUOTE-TDX-MODULE-UNKNOWN",
    "the TCB info does not know the TDX module of a quote",
    "fetch newer collateral, or check which TDX module the host has loaded",
)
QUOTE_TDX_MODULE_MISMATCH: Final = FailureKind(
    "MIGTD-QUOTE-TDX-MODULE-MISMATCH",
    "the TDX module of a quote has another signer or other attributes than the TCB info says",
    "check which TDX module the host has loaded; a debug module has attributes that are not zero",
)
QUOTE_QE_SIGNATURE: Final = FailureKind(
    "MIGTD-QUOTE-QE-SIGNATURE",
    "the QE report is not signed by the PCK key",
    _OTHER_EVIDENCE,
)
QUOTE_QE_BINDING: Final = FailureKind(
    "MIGTD-QUOTE-QE-BINDING",
    "the QE report does not vouch for the attestation key of the quote",
    _OTHER_EVIDENCE,
)
QUOTE_QE_MISMATCH: Final = FailureKind(
    "MIGTD-QUOTE-QE-MISMATCH",
    "the quoting enclave is not the one that the QE identity describes",
    "the host must run Intel's TD quoting enclave, and the collateral must describe it",
)
QUOTE_SIGNATURE: Final = FailureKind(
    "MIGTD-QUOTE-SIGNATURE",
    "the signature of a quote does not verify",
    _OTHER_EVIDENCE,
)
QUOTE_TCB_LEVEL_MISSING: Final = FailureKind(
    "MIGTD-QUOTE-TCB-LEVEL-MISSING",
    "the platform is older than every TCB level",
    "update the platform's microcode and TDX module, then provision it again",
)
QUOTE_TCB_REVOKED: Final = FailureKind(
    "MIGTD-QUOTE-TCB-REVOKED",
    "the TCB level of the platform is revoked",
    "update the platform's microcode and TDX module, then provision it again",
)
QUOTE_TDX_MODULE_LEVEL_MISSING: Final = FailureKind(
    "MIGTD-QUOTE-TDX-MODULE-LEVEL-MISSING",
    "the TDX module is older than every level of its identity",
    "load a newer TDX module",
)
QUOTE_TDX_MODULE_REVOKED: Final = FailureKind(
    "MIGTD-QUOTE-TDX-MODULE-REVOKED",
    "the level of the TDX module is revoked",
    "load a newer TDX module",
)
QUOTE_QE_LEVEL_MISSING: Final = FailureKind(
    "MIGTD-QUOTE-QE-LEVEL-MISSING",
    "the quoting enclave is older than every level of its identity",
    "install a newer quoting enclave on the host",
)
QUOTE_QE_REVOKED: Final = FailureKind(
    "MIGTD-QUOTE-QE-REVOKED",
    "the level of the quoting enclave is revoked",
    "install a newer quoting enclave on the host",
)
QUOTE_STATUS_TOO_LONG: Final = FailureKind(
    "MIGTD-QUOTE-STATUS-TOO-LONG",
    "the status of a TCB level does not fit into the 31 bytes of a supplemental record",
    "of the known ones only ConfigurationAndSWHardeningNeeded is that long: configure the platform or apply the update",
)
QUOTE_RECORD_MALFORMED: Final = FailureKind(
    "MIGTD-QUOTE-RECORD-MALFORMED",
    "a supplemental record is not what policy.md 4.2 describes",
    "a record has exactly 822 bytes, and its status texts are at most 31 bytes of ASCII",
)

# --- collateral ----------------------------------------------------------------------------------------------------
COLLATERAL_ROOT_CA_INVALID: Final = FailureKind(
    "MIGTD-COLLATERAL-ROOT-CA-INVALID",
    "the configured root CA is not a certificate with a P-256 key",
    "give the root CA as one DER certificate",
)
COLLATERAL_MALFORMED: Final = FailureKind(
    "MIGTD-COLLATERAL-MALFORMED",
    "a collateral set or document breaks its layout",
    "policy.md 4.6 gives the binary layout, 2.3 the document that a collateral generator writes",
)
COLLATERAL_PLATFORM_MISSING: Final = FailureKind(
    "MIGTD-COLLATERAL-PLATFORM-MISSING",
    "the collateral does not know the platform model",
    "make the collateral with a TCB info for the FMSPC that is named here",
)
COLLATERAL_VERSION: Final = FailureKind(
    "MIGTD-COLLATERAL-VERSION",
    "a collateral set has a version that is not known",
    "use collateral of version 1.0, 3.0, 3.1 or 4.0",
)
COLLATERAL_CHAIN_INVALID: Final = FailureKind(
    "MIGTD-COLLATERAL-CHAIN-INVALID",
    "an issuer chain of the collateral does not verify",
    "each chain needs exactly two certificates, the signer and the root that signed it",
)
COLLATERAL_ROOT_UNTRUSTED: Final = FailureKind(
    "MIGTD-COLLATERAL-ROOT-UNTRUSTED",
    "an issuer chain of the collateral ends in another root than the trusted one",
    "the configured root CA, the quotes and the collateral must come from the same PKI",
)
COLLATERAL_CRL_INVALID: Final = FailureKind(
    "MIGTD-COLLATERAL-CRL-INVALID",
    "a CRL of the collateral does not verify",
    _OTHER_COLLATERAL,
)
COLLATERAL_SIGNER_REVOKED: Final = FailureKind(
    "MIGTD-COLLATERAL-SIGNER-REVOKED",
    "the certificate that signed a collateral document is revoked",
    "fetch collateral that was signed with the new certificate",
)
COLLATERAL_TCB_INFO_MALFORMED: Final = FailureKind(
    "MIGTD-COLLATERAL-TCB-INFO-MALFORMED",
    "the TCB info cannot be read",
    "give a TCB info of id TDX, version 3, as the provisioning service delivers it",
)
COLLATERAL_TCB_INFO_SIGNATURE: Final = FailureKind(
    "MIGTD-COLLATERAL-TCB-INFO-SIGNATURE",
    "the signature of the TCB info does not verify",
    _OTHER_COLLATERAL,
)
COLLATERAL_TCB_LEVELS_REPEATED: Final = FailureKind(
    "MIGTD-COLLATERAL-TCB-LEVELS-REPEATED",
    "two TCB levels of the TCB info stand for the same components",
    _OTHER_COLLATERAL,
)
COLLATERAL_QE_IDENTITY_MALFORMED: Final = FailureKind(
    "MIGTD-COLLATERAL-QE-IDENTITY-MALFORMED",
    "the QE identity cannot be read",
    "give a QE identity of id TD_QE, version 2, as the provisioning service delivers it",
)
COLLATERAL_QE_IDENTITY_SIGNATURE: Final = FailureKind(
    "MIGTD-COLLATERAL-QE-IDENTITY-SIGNATURE",
    "the signature of the QE identity does not verify",
    _OTHER_COLLATERAL,
)
COLLATERAL_STATUS_UNKNOWN: Final = FailureKind(
    "MIGTD-COLLATERAL-STATUS-UNKNOWN",
    "a level of the collateral has a status that is not known",
    "use a version of this program that knows the status, or collateral without it",
)
COLLATERAL_NOT_CURRENT: Final = FailureKind(
    "MIGTD-COLLATERAL-NOT-CURRENT",
    "collateral is expired or not yet valid, and this is set to be refused",
    "fetch newer collateral, or do not ask for expired collateral to be refused",
)


def catalogue() -> dict[str, FailureKind]:
    """Every kind of this module by its id, in the order of definition."""
    return {kind.id: kind for kind in globals().values() if isinstance(kind, FailureKind)}

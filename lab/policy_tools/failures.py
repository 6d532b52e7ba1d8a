# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The failure catalogue of the policy tools."""

from __future__ import annotations

from migtd.errors import FailureKind

# --- every tool ----------------------------------------------------------------------------------------------------
FILE_UNREADABLE = FailureKind(
    "LAB-TOOL-FILE-UNREADABLE",
    "a file that was named cannot be read",
    "name a file that exists, is yours to read and has no more bytes than the detail says",
)
FILE_UNWRITABLE = FailureKind(
    "LAB-TOOL-FILE-UNWRITABLE",
    "the output cannot be written",
    "name a file in a folder that exists and is yours; what was there before is unchanged",
)
OPTION_MISSING = FailureKind(
    "LAB-TOOL-OPTION-MISSING",
    "an option is missing that this use of the tool needs",
    "add what is named; --help shows every option",
)
JSON_INVALID = FailureKind(
    "LAB-TOOL-JSON-INVALID",
    "a file is not the JSON document that it should be",
    "correct the document at the place that is named",
)
TEXT_INVALID = FailureKind(
    "LAB-TOOL-TEXT-INVALID",
    "a chain is not text in UTF-8",
    "give the certificates as PEM",
)

# --- signer, in the order of the reference's names (policy.md 5.4) -------------------------------------------------
SIGNER_INVALID_JSON = FailureKind(
    "LAB-SIGNER-INVALID-JSON",
    "the input is no JSON document",
    "correct the document at the place that is named",
)
SIGNER_INVALID_KEY = FailureKind(
    "LAB-SIGNER-INVALID-KEY",
    "the key cannot be read",
    "give a P-384 key as PEM: PKCS#8 to sign, SubjectPublicKeyInfo to verify; `openssl pkey` converts others",
)
SIGNER_INVALID_STRING = FailureKind(
    "LAB-SIGNER-INVALID-STRING",
    "the signature in the document is no hex text",
    "sign the document again",
)
SIGNER_INVALID_SIGNED_JSON = FailureKind(
    "LAB-SIGNER-INVALID-SIGNED-JSON",
    "the input is not an object of exactly the named value and its signature",
    "check --name, and that the document is a signed one",
)
SIGNER_SIGN = FailureKind(
    "LAB-SIGNER-SIGN",
    "the key cannot sign",
    "give a P-384 private key as PKCS#8 PEM without a password; `openssl pkcs8 -topk8 -nocrypt` converts others",
)
SIGNER_VERIFY = FailureKind(
    "LAB-SIGNER-VERIFY",
    "the signature is not this key's over this text",
    "sign the document as it is now, or verify with the key that signed; any byte of the value counts",
)
SIGNER_NOT_CANONICAL = FailureKind(
    "LAB-SIGNER-NOT-CANONICAL",
    "the input is not in the compact form that is signed",
    "write it without white space and final newline, such as `jq -cj . FILE`; the detail says what is in the way",
)
SIGNER_NO_PUBLIC_KEY = FailureKind(
    "LAB-SIGNER-NO-PUBLIC-KEY",
    "there is no key in the public key file that could verify",
    "give a P-384 public key as SubjectPublicKeyInfo PEM",
)

# --- collateral ----------------------------------------------------------------------------------------------------
PROVIDER_UNKNOWN = FailureKind(
    "LAB-COLLATERAL-PROVIDER",
    "there is no such provider of collateral",
    "choose intel or azure-thim, or name a PCS-compatible service with --base-url",
)
PCS_UNREACHABLE = FailureKind(
    "LAB-PCS-UNREACHABLE",
    "a collateral service does not answer as it should",
    "try again later, check network and proxy (HTTPS_PROXY), or work offline with --from-files",
)
PCS_REFUSED = FailureKind(
    "LAB-PCS-REFUSED",
    "a collateral service refused a request",
    "check that the service is PCS-compatible, version 4; the detail names address and status",
)
PCS_ANSWER_INVALID = FailureKind(
    "LAB-PCS-ANSWER-INVALID",
    "a collateral service gave an answer that cannot be used",
    "check that the service is PCS-compatible, version 4; the detail names what is wrong",
)
COLLATERAL_INVALID = FailureKind(
    "LAB-COLLATERAL-INVALID",
    "collateral cannot be used for a policy",
    "fetch it anew; a policy v1 needs TCB info version 3 with TDX module identities",
)

# --- ServTD documents ----------------------------------------------------------------------------------------------
SERVTD_INVALID = FailureKind(
    "LAB-SERVTD-INVALID",
    "an identity, TCB mapping or measurement file has not the form that it should have",
    "compare it with policy.md 2.3; `./inv policy.from-quote` and `policy.hash` write measurement files",
)

# --- images --------------------------------------------------------------------------------------------------------
IMAGE_INVALID = FailureKind(
    "LAB-IMAGE-INVALID",
    "the file is no MigTD image whose measurements can be computed",
    "give the .bin or .igvm file as it was built; the detail says what is wrong with it",
)
IMAGE_FILE_MISSING = FailureKind(
    "LAB-IMAGE-FILE-MISSING",
    "the configuration volume of the image lacks a file that is measured",
    "enroll it, or choose the options of the image: --policy-v2, --test-disable-ra-and-accept-all",
)
MANIFEST_INVALID = FailureKind(
    "LAB-MANIFEST-INVALID",
    "the manifest does not give the fields of TDINFO",
    "give attributes and xfam (8 bytes), mrconfigid, mrowner and mrownerconfig (48 bytes), all as hex",
)
EVIDENCE_UNREADABLE = FailureKind(
    "LAB-TOOL-EVIDENCE-UNREADABLE",
    "the file is neither a TDX quote nor a TDREPORT",
    "give a quote of version 4 or 5, or a TDREPORT of 1024 bytes, as binary",
)


def catalogue() -> dict[str, FailureKind]:
    """Every kind of this module by its id, in the order of definition."""
    return {kind.id: kind for kind in globals().values() if isinstance(kind, FailureKind)}

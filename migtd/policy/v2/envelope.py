# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The envelope of a v2 policy and the signatures in it: over the text as it is, never a re-made one (policy.md 2.1)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from migtd.policy.chain import Certificate, verify_chain
from migtd.policy.errors import JsonError, PolicyError, PolicyErrorName
from migtd.policy.json_reader import Field, Reader, text_of
from migtd.policy.v2.decoding import Signed, decode, raw_text

MAX_POLICY: Final = 8 << 20
"""Bytes of a policy file; a longer one is refused unread. Collaterals of some thirty platforms have 150,000."""

_HEX_PAIRS: Final = re.compile(r"(?:[+0-9A-Fa-f][0-9A-Fa-f])++")


def parse_envelope(data: bytes) -> Signed:
    """The policyData of a policy file, undecoded, and its signature, unverified. Raises PolicyError (InvalidPolicy)."""
    try:
        text = text_of(data, MAX_POLICY)
    except JsonError as error:
        raise PolicyError(PolicyErrorName.InvalidPolicy, error.why) from None
    return decode(text, read_signed("policyData"), PolicyErrorName.InvalidPolicy)


def read_signed(name: str) -> Callable[[Reader], Signed]:
    """A decoder of `{NAME: any value, "signature": string}`."""
    fields = (Field(name, raw_text), Field("signature", Reader.string))

    def read(reader: Reader) -> Signed:
        values = reader.structure(*fields)
        return Signed(values[name], values["signature"])

    return read


def signature_bytes(text: str) -> bytes:
    """The bytes of a signature's text: pairs of hex digits, a plus sign taken for the first digit as a zero.

    Raises PolicyError (InvalidParameter).
    """
    if _HEX_PAIRS.fullmatch(text) is None:
        raise PolicyError(PolicyErrorName.InvalidParameter, "the text of a signature is not pairs of hex digits")
    return bytes.fromhex(text.replace("+", "0"))


def verify_signed(signed: Signed, chain: bytes) -> list[Certificate]:
    """The certificates of a chain, PEM and leaf first, whose leaf signed the value with ECDSA P-384 and SHA-384.

    Raises PolicyError: InvalidParameter (the signature's text), SignatureVerificationFailed.
    """
    signature = signature_bytes(signed.signature)
    certificates = verify_chain(chain)
    certificates[0].verify_document(signature, signed.value.encode())
    return certificates

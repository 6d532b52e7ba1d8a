# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Signing of JSON documents with ECDSA P-384 and SHA-384: sign, verify, finalize (policy.md 5.4, 2.1).

What is signed is the text, byte for byte: `{"NAME":TEXT,"signature":"HEX"}`, HEX the DER signature in upper case.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from lab.policy_tools.compact import difference, document_text, parse, push_json, push_string
from lab.policy_tools.errors import SignerError, SignerErrorName
from migtd.policy.errors import JsonError
from migtd.policy.json_reader import Kind, Raw, Reader

SIGNATURE: Final = "signature"
_ECDSA: Final = ec.ECDSA(SHA384())
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,60})-----([A-Za-z0-9+/=\s]+)-----END \1-----")
_PKCS8: Final = b"PRIVATE KEY"


def sign(name: str, data: bytes, private_key: bytes) -> bytes:
    """The signed document: the value under `name` and its signature. `private_key` is PKCS#8 PEM, P-384.

    Raises SignerError: InvalidJson, NotCanonical, InvalidKey, Sign.
    """
    return signed_document(name, data, sign_detached(data, private_key))


def sign_detached(data: bytes, private_key: bytes) -> bytes:
    """The signature alone, DER. Raises as `sign` does."""
    _expect_canonical(data)
    label, der = _pem(private_key)
    try:
        key = load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignerError(SignerErrorName.Sign, str(error)) from error
    if label != _PKCS8 or not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SignerError(SignerErrorName.Sign, "the key is none of P-384 in PKCS#8")
    return key.sign(data, _ECDSA)


def finalize(name: str, data: bytes, signature: bytes) -> bytes:
    """The signed document of a value, written compactly, and a signature made elsewhere; nothing is verified.

    Raises SignerError (InvalidJson).
    """
    try:
        value, _, _ = parse(data)
    except JsonError as error:
        raise _invalid_json(data, error) from error
    return signed_document(name, push_json(value), signature)


def signed_document(name: str, data: bytes, signature: bytes) -> bytes:
    """`{"NAME":DATA,"signature":"HEX"}` of data that is JSON already."""
    return f"{{{push_string(name)}:".encode() + data + f',"{SIGNATURE}":"{signature.hex().upper()}"}}'.encode()


def verify_signed(name: str, document: bytes, public_key: bytes) -> None:
    """Verify a signed document: the raw text of its value `name`. `public_key` is SubjectPublicKeyInfo PEM, P-384.

    Raises SignerError: InvalidKey, InvalidJson, InvalidSignedJson, InvalidString, Verify.
    """
    key = _public_key(public_key)
    try:
        text = document_text(document)
        reader = Reader(text)
        if reader.kind() is not Kind.OBJECT:
            raise reader.refusal("an object is expected here")
        parts = {each: reader.raw() for each in reader.members()}
        reader.end()
    except JsonError as error:
        raise _invalid_json(document, error) from error
    if set(parts) != {name, SIGNATURE}:
        shown = ", ".join(repr(each[:40]) for each in list(parts)[:4]) or "none"
        raise SignerError(SignerErrorName.InvalidSignedJson, f"the keys are {shown}")
    _verify(key, parts[name].text.encode(), _signature(parts[SIGNATURE]))


def verify_detached(data: bytes, public_key: bytes, signature: bytes) -> None:
    """Verify a DER signature over the whole of `data`. Raises SignerError: InvalidKey, Verify."""
    _verify(_public_key(public_key), data, signature)


def _verify(key: ec.EllipticCurvePublicKey, data: bytes, signature: bytes) -> None:
    try:
        key.verify(signature, data, _ECDSA)
    except (InvalidSignature, ValueError) as error:
        raise SignerError(SignerErrorName.Verify) from error


def _public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    _, der = _pem(pem)
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignerError(SignerErrorName.InvalidKey, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SignerError(SignerErrorName.Verify, "the key is none of P-384")
    return key


def _pem(data: bytes) -> tuple[bytes, bytes]:
    """Label and DER of the first PEM section."""
    found = _PEM.search(data)
    if found is None:
        raise SignerError(SignerErrorName.InvalidKey, "the file holds no PEM")
    try:
        return found[1], base64.b64decode(b"".join(found[2].split()), validate=True)
    except binascii.Error as error:
        raise SignerError(SignerErrorName.InvalidKey, str(error)) from error


def _signature(raw: Raw) -> bytes:
    """The bytes of a signature text, each pair a number in base 16 that may be written `+F`."""
    try:
        text = Reader(raw.text).string()
    except JsonError as error:
        raise SignerError(SignerErrorName.InvalidSignedJson, f"the signature is no text: {error}") from error
    if len(text) % 2 or not re.fullmatch(r"(?:[0-9A-Fa-f]{2}|\+[0-9A-Fa-f])*", text):
        raise SignerError(SignerErrorName.InvalidString)
    return bytes(int(text[at : at + 2], 16) for at in range(0, len(text), 2))


def _expect_canonical(data: bytes) -> None:
    try:
        value, text, repeated = parse(data)
    except JsonError as error:
        raise _invalid_json(data, error) from error
    compact = push_json(value)
    if compact != data:
        raise SignerError(SignerErrorName.NotCanonical, difference(text, compact.decode(), repeated))


def _invalid_json(data: bytes, error: JsonError) -> SignerError:
    return SignerError(SignerErrorName.InvalidJson, error.described(data.decode("utf-8", "replace")))

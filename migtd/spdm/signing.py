# SPDX-License-Identifier: BSD-2-Clause-Patent
"""P-384 keys of one session: raw public keys, raw signatures and shares (spdm.md 2, 4.4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from migtd.spdm.errors import FinishRefused, Malformed

PUBLIC_KEY_SIZE: Final = 120
_SPKI_PREFIX: Final = bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004")
"""DER of a SubjectPublicKeyInfo with an uncompressed P-384 point, up to the point's X."""
_COORDINATE: Final = 48
_UNCOMPRESSED: Final = b"\x04"

RESPONDER_CONTEXT: Final = b"responder-key_exchange_rsp signing"
REQUESTER_CONTEXT: Final = b"requester-finish signing"
_PREFIX: Final = b"dmtf-spdm-v1.2.*" * 4
_CONTEXT_SIZE: Final = 36


def signature_input(context: bytes, digest: bytes) -> bytes:
    """The 148 bytes that are signed for a transcript hash of 48 bytes."""
    return _PREFIX + context.rjust(_CONTEXT_SIZE, b"\0") + digest


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key for one session. `algorithm` is ECDSA with SHA-384; tests choose deterministic nonces."""

    key: ec.EllipticCurvePrivateKey
    algorithm: ec.ECDSA

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, 120 bytes."""
        return _SPKI_PREFIX + push_share(self.key.public_key())

    def sign(self, context: bytes, digest: bytes) -> bytes:
        """Sign `signature_input`: r and s, 48 bytes each."""
        r, s = decode_dss_signature(self.key.sign(signature_input(context, digest), self.algorithm))
        return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")


def pull_public_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """Read the one encoding of a P-384 key that is accepted. Raises Malformed."""
    if len(data) != PUBLIC_KEY_SIZE or not data.startswith(_SPKI_PREFIX):
        raise Malformed(f"a public key of {len(data)} bytes that is not the canonical form of P-384")
    return pull_share(data[len(_SPKI_PREFIX) :], "public key")


def push_share(key: ec.EllipticCurvePublicKey) -> bytes:
    """X and Y, 48 bytes each."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def pull_share(data: bytes, what: str) -> ec.EllipticCurvePublicKey:
    """Read X and Y, 96 bytes. Raises Malformed where that is no point of the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), _UNCOMPRESSED + data)
    except ValueError as error:
        raise Malformed(f"{what}: not a point of P-384") from error


def verify(key: ec.EllipticCurvePublicKey, signature: bytes, context: bytes, digest: bytes) -> None:
    """Verify r and s, 96 bytes. Raises FinishRefused."""
    r, s = (int.from_bytes(signature[at : at + _COORDINATE], "big") for at in (0, _COORDINATE))
    try:
        key.verify(encode_dss_signature(r, s), signature_input(context, digest), ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise FinishRefused(context.decode()) from error

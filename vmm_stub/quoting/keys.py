# SPDX-License-Identifier: BSD-2-Clause-Patent
"""P-256 keys and signatures of a lab: every key comes from one secret, so that what was lost can be made again."""

from __future__ import annotations

import functools
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET_SIZE: Final = 32
SCALAR_SIZE: Final = 32
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_WIDE: Final = 48
"""Bytes drawn for a scalar: reduced modulo the order, they are as good as even."""


def derive(secret: bytes, label: str, size: int) -> bytes:
    """`size` bytes (at most 8160) that only the holder of the 32-byte secret knows, the same for the same label."""
    return HKDFExpand(hashes.SHA256(), size, b"MigTD Lab " + label.encode()).derive(secret)


def derive_key(secret: bytes, label: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 key of that label."""
    wide = int.from_bytes(derive(secret, f"key {label}", _WIDE), "big")
    return ec.derive_private_key(wide % (_ORDER - 1) + 1, ec.SECP256R1())


def scalar_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private number, 32 bytes big-endian: a secret."""
    return key.private_numbers().private_value.to_bytes(SCALAR_SIZE, "big")


def key_of(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    """The key with that private number. Raises ValueError if it is none."""
    if len(scalar) != SCALAR_SIZE:
        raise ValueError(f"a private key of {len(scalar)} bytes")
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public point, 64 bytes `x ‖ y`."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def sign_raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA P-256/SHA-256 as 64 bytes `r ‖ s`."""
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=deterministic())
    r, s = decode_dss_signature(key.sign(message, algorithm))
    return r.to_bytes(SCALAR_SIZE, "big") + s.to_bytes(SCALAR_SIZE, "big")


@functools.cache
def deterministic() -> bool:
    """Whether the library at hand signs by RFC 6979; without that, signatures made from one seed differ."""
    try:
        ec.derive_private_key(1, ec.SECP256R1()).sign(b"", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        return False
    return True

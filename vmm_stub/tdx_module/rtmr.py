# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The four run-time measurement registers of a TD (policy.md 3.5)."""

from __future__ import annotations

import hashlib
from typing import Final

RTMR_COUNT: Final = 4
DIGEST_SIZE: Final = 48
"""SHA-384, in bytes."""


class Rtmrs:
    """RTMR0..RTMR3, 48 bytes each, zero when the TD starts. There is no way back but a new TD."""

    def __init__(self) -> None:
        self._values = [bytes(DIGEST_SIZE)] * RTMR_COUNT

    @property
    def values(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The four registers, by index."""
        first, second, third, fourth = self._values
        return first, second, third, fourth

    def extend(self, index: int, digest: bytes) -> None:
        """RTMR[index] = SHA-384(RTMR[index] ‖ digest).

        Raises ValueError unless `index` is 0..3 and `digest` has 48 bytes: the dispatcher has looked before.
        """
        if not 0 <= index < RTMR_COUNT or len(digest) != DIGEST_SIZE:
            raise ValueError(f"RTMR {index} and a digest of {len(digest)} bytes")
        self._values[index] = hashlib.sha384(self._values[index] + digest).digest()

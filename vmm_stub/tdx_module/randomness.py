# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Random bytes of the emulated TDX module: the source is passed in, and a broken one is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from vmm_stub import failures
from vmm_stub.tdx_module.errors import RandomSourceBroken

RandomSource: TypeAlias = Callable[[int], bytes]
"""Gives that many fresh random bytes, as os.urandom does."""


def draw(random: RandomSource, size: int) -> bytes:
    """`size` (at least 8) random bytes, never all zero.

    A sound source gives zeros alone once in 2**64 draws at most; a key of zeros would go unnoticed for long, so it is
    refused, not drawn again. Raises RandomSourceBroken (VMM-RANDOM-SOURCE-BROKEN).
    """
    drawn = random(size)
    if len(drawn) != size:
        raise RandomSourceBroken(failures.RANDOM_SOURCE_BROKEN, f"{len(drawn)} bytes instead of {size}")
    if not any(drawn):
        raise RandomSourceBroken(failures.RANDOM_SOURCE_BROKEN, f"{size} zero bytes")
    return drawn

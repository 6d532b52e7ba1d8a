# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Text from a guest, made fit for people and for JSON: a guest writes to no terminal and fills no memory."""

from __future__ import annotations

from typing import Final

from migtd.guest.events import MAX_TEXT

_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


def guest_text(text: str) -> str:
    """`text` as one line of at most MAX_TEXT characters, all of them printable: no controls, no lone surrogates."""
    line = text[:MAX_TEXT]
    return line if line.isprintable() else "".join(each if each.isprintable() else _UNPRINTABLE for each in line)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Text from a guest, made fit for people and for JSON: a guest writes to no terminal and fills no memory."""

from __future__ import annotations

from typing import Final

from migtd.guest.events import MAX_EXPLAIN, MAX_TEXT

MAX_LINES: Final = 200
"""Lines of one explanation; empty ones cost a guest nothing and people a screen each."""
_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


def guest_text(text: str) -> str:
    """`text` as one line of at most MAX_TEXT characters, all of them printable: no controls, no lone surrogates."""
    line = text[:MAX_TEXT]
    return line if line.isprintable() else "".join(each if each.isprintable() else _UNPRINTABLE for each in line)


def guest_lines(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Each of the lines as `guest_text`, the first that have MAX_EXPLAIN characters together, MAX_LINES at most."""
    kept, room = [], MAX_EXPLAIN
    for line in lines[:MAX_LINES]:
        room -= len(line)
        if room < 0:
            break
        kept.append(guest_text(line))
    return tuple(kept)

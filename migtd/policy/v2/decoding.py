# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How the documents of a v2 policy are decoded: each is a JSON text of its own, with an error name of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from migtd.policy.errors import JsonError, PolicyError, PolicyErrorName
from migtd.policy.json_reader import Reader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Signed:
    """A value as it is written, first character to last, and the text of the signature over exactly that."""

    value: str
    signature: str


def decode(text: str, read: Callable[[Reader], T], name: PolicyErrorName) -> T:
    """What `read` makes of the one value that `text` holds. Raises PolicyError (`name`) with the place."""
    try:
        reader = Reader(text)
        value = read(reader)
        reader.end()
    except JsonError as error:
        raise PolicyError(name, error.described(text)) from None
    return value


def u16(reader: Reader) -> int:
    """An integer literal of 16 bits."""
    return reader.unsigned(16)


def u32(reader: Reader) -> int:
    """An integer literal of 32 bits."""
    return reader.unsigned(32)


def raw_text(reader: Reader) -> str:
    """Any well-formed value as it is written."""
    return reader.raw().text

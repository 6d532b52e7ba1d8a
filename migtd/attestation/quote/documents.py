# SPDX-License-Identifier: BSD-2-Clause-Patent
"""JSON documents of the collateral: read within bounds, with the raw text of what is signed (policy.md 4.3, 4.8).

A document is UTF-8 JSON without byte-order mark. Refused in it: repeated keys, NaN and Infinity, containers nested
beyond what the interpreter takes, integers of more than 20 digits. Nothing here takes a fraction, so they are kept as
no value at all.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from migtd.attestation.quote.errors import QuoteError
from migtd.errors import FailureKind

_MAX_DIGITS: Final = 20

_SPACE: Final = re.compile(r"[ \t\n\r]")
# Applied to valid JSON only, where every string ends.
_STRING_OR_SPACE: Final = re.compile(r'("(?:[^"\\]|\\.)*+")|[ \t\n\r]+')
_HEX: Final = re.compile(r"[0-9A-Fa-f]*")
_DATE: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})Z", re.ASCII)


def parse_json(data: bytes, kind: FailureKind, *, limit: int) -> Any:
    """The value of a JSON document of at most `limit` bytes; raises QuoteError (`kind`)."""
    return _decode(_text(data, kind, limit), kind)


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """`{NAME: value, "signature": hex}`: the value, the text that is signed, and the signature r, s (64 bytes)."""

    value: Any
    message: bytes
    signature: bytes


def parse_signed(data: bytes, name: str, kind: FailureKind, *, limit: int) -> SignedDocument:
    """Read a signed document: an object with exactly the keys `name` and `signature`.

    The message is the text of the value, white space outside strings removed and key order kept (policy.md 4.3).
    Raises QuoteError (`kind`).
    """
    text = _text(data, kind, limit)
    whole = Reader(_decode(text, kind), kind, "document")
    whole.expect_keys({name, "signature"})
    compact = _STRING_OR_SPACE.sub(r"\1", text) if _SPACE.search(text) else text
    return SignedDocument(whole.value(name), _text_of(compact, name).encode(), whole.hex("signature", 64))


@dataclass(frozen=True, slots=True)
class Reader:
    """Typed access to the fields of one JSON object; every method raises QuoteError (`kind`) naming the place."""

    document: Any
    kind: FailureKind
    place: str

    def __post_init__(self) -> None:
        if not isinstance(self.document, dict):
            raise QuoteError(self.kind, f"{self.place} is no object")

    def value(self, name: str) -> Any:
        """The value of a field that must be there."""
        if name not in self.document:
            raise QuoteError(self.kind, f"{self.place} has no {name}")
        return self.document[name]

    def expect_keys(self, names: set[str]) -> None:
        """Refuse other fields than exactly these."""
        if set(self.document) != names:
            raise QuoteError(self.kind, f"{self.place} must hold {' and '.join(sorted(names))} only")

    def text(self, name: str) -> str:
        """A string."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def integer(self, name: str, maximum: int) -> int:
        """An integer literal from 0 to `maximum`."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
            raise self._wrong(name, f"an integer up to {maximum}")
        return value

    def hex(self, name: str, size: int) -> bytes:
        """Exactly `size` bytes as hex digits in either case."""
        value = self.text(name)
        if len(value) != 2 * size or not _HEX.fullmatch(value):
            raise self._wrong(name, f"{2 * size} hex digits")
        return bytes.fromhex(value)

    def date(self, name: str) -> int:
        """A date `YYYY-MM-DDTHH:MM:SSZ` as seconds since 1970, UTC."""
        match = _DATE.fullmatch(self.text(name))
        if match is None:
            raise self._wrong(name, "a date YYYY-MM-DDTHH:MM:SSZ")
        try:
            moment = dt.datetime(*map(int, match.groups()), tzinfo=dt.UTC)  # type: ignore[arg-type,misc]
        except ValueError as error:
            raise self._wrong(name, "a date of the calendar") from error
        return int(moment.timestamp())

    def structure(self, name: str) -> Reader:
        """An object."""
        return Reader(self.value(name), self.kind, f"{self.place}.{name}")

    def structures(self, name: str) -> list[Reader]:
        """A list of objects."""
        value = self.value(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return [Reader(item, self.kind, f"{self.place}.{name}[{index}]") for index, item in enumerate(value)]

    def optional_structures(self, name: str) -> list[Reader]:
        """A list of objects; empty where the field is absent."""
        return self.structures(name) if name in self.document else []

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; empty where the field is absent."""
        value = self.document.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of strings")
        return tuple(value)

    def _wrong(self, name: str, wanted: str) -> QuoteError:
        return QuoteError(self.kind, f"{self.place}.{name} is not {wanted}")


def _text_of(compact: str, name: str) -> str:
    """The text of the value of `name` in a valid JSON object without white space that has the key."""
    at = 1
    while True:
        key, colon = _DECODER.raw_decode(compact, at)
        _, end = _DECODER.raw_decode(compact, colon + 1)
        if key == name:
            return compact[colon + 1 : end]
        at = end + 1


def _text(data: bytes, kind: FailureKind, limit: int) -> str:
    if len(data) > limit:
        raise QuoteError(kind, f"{len(data)} bytes, at most {limit} are read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QuoteError(kind, f"not UTF-8 at byte {error.start}") from error


def _decode(text: str, kind: FailureKind) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise QuoteError(kind, "containers are nested too deep") from error
    except ValueError as error:
        raise QuoteError(kind, str(error)) from error


def _parse_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _no_fraction(_text: str) -> None:
    return None


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is repeated in an object")
    return document


_DECODER: Final = json.JSONDecoder(
    parse_int=_parse_int, parse_float=_no_fraction, parse_constant=_refuse_constant, object_pairs_hook=_object
)

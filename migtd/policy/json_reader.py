# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A strict JSON reader that decodes by pulling, as policies need it (policy.md 1.1, "JSON dialect").

A `Reader` stands before a value. Each method takes the next value and moves on, or raises JsonError:

    Reader(text_of(data)).structure(Field("id", Reader.string), Field("policy", Reader.raw))

The reader knows what ordinary ones lose: where a raw value begins and ends, that a known key comes twice, whether a
string was written with escapes, that a number is an integer literal. A structure may be given as an array of its
fields. Unknown keys are skipped: their values must be well-formed and nothing more.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from migtd.policy import json_scan
from migtd.policy.errors import JsonError

T = TypeVar("T")

MAX_DOCUMENT: Final = 1 << 20
"""Bytes of a document; a longer one is refused unread. The configuration volume of MigTD's own images has 640 KiB."""


class Kind(enum.Enum):
    """What a value is, seen from its first character."""

    OBJECT = enum.auto()
    ARRAY = enum.auto()
    STRING = enum.auto()
    NUMBER = enum.auto()
    WORD = enum.auto()
    """true, false, null."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string: its value, and whether it was written with any escape sequence."""

    value: str
    escaped: bool


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as it is written: `text`, found from character `start` to `end`, excluded."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a structure. An optional one may be absent or null; both give None."""

    name: str
    decode: Callable[[Reader], Any]
    optional: bool = False


def text_of(data: bytes, limit: int = MAX_DOCUMENT) -> str:
    """The characters of a document. Raises JsonError if it is not UTF-8 or has more than `limit` bytes."""
    if len(data) > limit:
        raise JsonError(f"{len(data)} bytes, the most are {limit}", 0)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start} is not UTF-8", 0) from None


class Reader:
    """Reads the values of one text, one after the other. `fork` gives a second reader at the same place."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0

    def fork(self) -> Reader:
        """A reader that stands where this one does and moves on its own: to try another shape."""
        other = Reader(self._text)
        other._position, other._depth = self._position, self._depth
        return other

    def follow(self, other: Reader) -> None:
        """Move to where a fork of this reader stands now."""
        self._position = other._position

    def refusal(self, why: str) -> JsonError:
        """The error that says why the value here does not decode; for checks that callers add."""
        return JsonError(why, json_scan.after_space(self._text, self._position))

    def end(self) -> None:
        """Make sure that nothing but white space is left."""
        if json_scan.after_space(self._text, self._position) != len(self._text):
            raise self.refusal("there is more after the document")

    def kind(self) -> Kind:
        """What the next value is, without taking it."""
        token = self._token()
        if token.kind == "open":
            return Kind.ARRAY if token.text == "[" else Kind.OBJECT
        return Kind[token.kind.upper()]

    # --- single values ---------------------------------------------------------------------------------------------
    def string_as_written(self) -> Text:
        """A string, with the knowledge of how it was written."""
        token = self._take("string", "a string")
        return Text(json_scan.string_value(token), "\\" in token.text)

    def string(self) -> str:
        """A string."""
        return self.string_as_written().value

    def unescaped_string(self) -> str:
        """A string that was written without any escape sequence."""
        token = self._take("string", "a string")
        if "\\" in token.text:
            raise JsonError("this string may hold no escape sequence", token.start)
        return token.text[1:-1]

    def unsigned(self, bits: int) -> int:
        """An integer literal from 0 to 2**bits - 1. `-0`, `1.0` and `1e0` are none."""
        token = self._take("number", f"an integer of {bits} bits")
        # The literal has no leading zeros, so its length bounds its value before it is converted.
        if not token.text.isdigit() or len(token.text) > bits or (value := int(token.text)) >> bits:
            raise JsonError(f"{token.text[:40]} is no integer of {bits} bits", token.start)
        return value

    def null(self) -> bool:
        """Take a null if the next value is one, and say so."""
        token = self._token()
        if token.text != "null" or token.kind != "word":
            return False
        self._position = token.end
        return True

    def optional(self, decode: Callable[[Reader], T]) -> T | None:
        """None for null, else what `decode` makes of the value."""
        return None if self.null() else decode(self)

    def raw(self) -> Raw:
        """Any well-formed value, kept as written."""
        start = json_scan.after_space(self._text, self._position)
        self.skip()
        return Raw(self._text[start : self._position], start, self._position)

    def skip(self) -> None:
        """Any well-formed value."""
        self._position = json_scan.walk(self._text, self._position, json_scan.SKIPPED)

    def skip_decodable(self) -> None:
        """Any value that could be decoded as a whole: no lone surrogate, no number beyond a double, not too deep."""
        self._position = json_scan.walk(self._text, self._position, json_scan.decoded(self._depth))

    # --- containers ------------------------------------------------------------------------------------------------
    def elements(self) -> Iterator[int]:
        """Stop before each element of an array, giving its index; the caller takes it."""
        index = 0
        self._enter("[", "an array")
        if not self._takes("]"):
            while True:
                yield index
                index += 1
                if not self._takes(","):
                    break
            self._expect("]")
        self._depth -= 1

    def members(self) -> Iterator[str]:
        """Stop behind each key of an object, giving the key; the caller takes the value. Keys may come repeatedly."""
        self._enter("{", "an object")
        if not self._takes("}"):
            while True:
                key = self.string()
                self._position = json_scan.behind_colon(self._text, self._position)
                yield key
                if not self._takes(","):
                    break
            self._expect("}")
        self._depth -= 1

    def sequence(self, decode: Callable[[Reader], T]) -> list[T]:
        """An array of values of one kind."""
        return [decode(self) for _ in self.elements()]

    def mapping(self, decode: Callable[[Reader], T]) -> dict[str, T]:
        """An object of any names with values of one kind; of a repeated name the last value counts."""
        return {name: decode(self) for name in self.members()}

    def structure(self, *fields: Field) -> dict[str, Any]:
        """An object with these fields, or an array of exactly them in this order; optional ones without value are None.

        In an object unknown keys are skipped, a known key may come once only, and required ones must be there.
        """
        if self.kind() is Kind.ARRAY:
            return self._fields_in_order(fields)
        known = {field.name: field for field in fields}
        values: dict[str, Any] = {}
        for key in self.members():
            field = known.get(key)
            if field is None:
                self.skip()
            elif key in values:
                raise self.refusal(f"the key {key!r} comes twice")
            else:
                values[key] = self._field(field)
        for field in fields:
            if field.name not in values:
                if not field.optional:
                    raise self.refusal(f"the key {field.name!r} is missing")
                values[field.name] = None
        return values

    def _fields_in_order(self, fields: tuple[Field, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for index in self.elements():
            if index == len(fields):
                raise self.refusal(f"a structure of {len(fields)} fields has more elements")
            values[fields[index].name] = self._field(fields[index])
        if len(values) != len(fields):
            raise self.refusal(f"a structure of {len(fields)} fields has {len(values)} elements")
        return values

    def _field(self, field: Field) -> Any:
        return self.optional(field.decode) if field.optional else field.decode(self)

    def _token(self) -> json_scan.Token:
        return json_scan.next_token(self._text, self._position)

    def _take(self, kind: str, expected: str) -> json_scan.Token:
        token = self._token()
        if token.kind != kind:
            raise JsonError(f"{expected} is expected here", token.start)
        self._position = token.end
        return token

    def _enter(self, opener: str, expected: str) -> None:
        token = self._token()
        if token.text != opener:
            raise JsonError(f"{expected} is expected here", token.start)
        self._depth += 1
        if self._depth > json_scan.MAX_DEPTH:
            raise JsonError(f"more than {json_scan.MAX_DEPTH} containers nested in each other", token.start)
        self._position = token.end

    def _takes(self, mark: str) -> bool:
        position = json_scan.after_space(self._text, self._position)
        if self._text[position : position + 1] != mark:
            return False
        self._position = position + 1
        return True

    def _expect(self, mark: str) -> None:
        if not self._takes(mark):
            raise self.refusal(f"a comma or {mark!r} is expected here")

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Tokens of the strict JSON dialect of policies, and the walk over a whole value (policy.md 1.1, "JSON dialect").

A walk needs no recursion and a byte of memory per open container, so that no nesting is too deep for it. It answers
where a value ends. What it asks of the value is a `Rules`: `SKIPPED` wants it well-formed only, `decoded(depth)` also
refuses what no decoded value may hold.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from migtd.policy.errors import JsonError

MAX_DEPTH: Final = 127
"""Containers nested in each other, over decoded values."""

_SPACE: Final = r"[ \t\n\r]*"
_PLAIN_STRING: Final = r'"[^"\\\x00-\x1f]*+"'
_NUMBER: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"

_SPACES: Final = re.compile(_SPACE)
_VALUE: Final = re.compile(
    rf'{_SPACE}(?:(?P<string>{_PLAIN_STRING})|(?P<number>{_NUMBER})|(?P<word>true|false|null)|(?P<open>[\[{{])|(?P<quote>"))'
)
"""White space and a token that a value begins with; `quote` alone: a string that has escapes or is broken."""
# What goes with a value that any rules allow is passed over in one go, up to a bounded number of them.
_SIMPLE: Final = rf"{_SPACE}(?:{_PLAIN_STRING}|-?(?:0|[1-9][0-9]{{0,99}})|true|false|null){_SPACE},"
_SIMPLE_ELEMENTS: Final = re.compile(rf"(?:{_SIMPLE}){{0,500}}")
_SIMPLE_MEMBERS: Final = re.compile(rf"(?:{_SPACE}{_PLAIN_STRING}{_SPACE}:{_SIMPLE}){{0,500}}")
_OPENING_ARRAYS: Final = re.compile(r"[\[ \t\n\r]*")
_CLOSING_ARRAYS: Final = re.compile(r"\]*")
_AFTER_VALUE: Final = re.compile(rf"{_SPACE}([,\]}}])")
_COLON: Final = re.compile(rf"{_SPACE}:")
_STRING_BODY: Final = re.compile(r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+')
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NUMBER_PARTS: Final = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)0*([0-9]*))?")

_OBJECT: Final = ord("{")
_ARRAY: Final = ord("[")
_OPENERS: Final = {"}": _OBJECT, "]": _ARRAY}

_DOUBLE_MAGNITUDE: Final = 309
"""The largest double is 0.17… * 10**309."""
_ENOUGH_DIGITS: Final = 800
_HUGE_EXPONENT_DIGITS: Final = 12
"""An exponent of more digits is larger than any text is long."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a walk asks of a value: depth that is left for its containers, None for any; and whether it is decoded."""

    depth: int | None
    strict: bool


SKIPPED: Final = Rules(depth=None, strict=False)
"""Well-formed; lone surrogates, numbers beyond a double and any nesting are fine."""


def decoded(depth: int) -> Rules:
    """Fit for decoding, below `depth` containers that are open already."""
    return Rules(depth=MAX_DEPTH - depth, strict=True)


class Token(NamedTuple):
    """A token: `kind` is one of string, number, word, open; `text` as written (strings with their quotes)."""

    kind: str
    text: str
    start: int
    end: int


def next_token(text: str, position: int) -> Token:
    """The token that a value at or behind `position` begins with. Raises JsonError."""
    found = _VALUE.match(text, position)
    if found is None:
        raise _refused(text, position, "a value is expected here")
    kind = str(found.lastgroup)
    start = found.start(kind)
    if kind == "quote":
        end = _string_end(text, start)
        return Token("string", text[start:end], start, end)
    return Token(kind, found[kind], start, found.end())


def walk(text: str, position: int, rules: Rules) -> int:
    """Where the value at or behind `position` ends. Raises JsonError if it is not well-formed or breaks `rules`."""
    opened = bytearray()
    while True:
        position, ended = _value(text, position, opened, rules)
        if ended:
            position = _behind_value(text, position, opened, rules)
            if not opened:
                return position


def check_scalar(token: Token) -> None:
    """Raise JsonError if a string has a lone surrogate or a number is beyond a double."""
    if token.kind == "string":
        if "\\u" in token.text:
            string_value(token)
    elif token.kind == "number" and beyond_double(token.text):
        raise JsonError("a number beyond a double", token.start)


def string_value(token: Token) -> str:
    """The text that a string stands for. Raises JsonError if it has a lone surrogate."""
    if "\\" not in token.text:
        return token.text[1:-1]
    value: str = json.loads(token.text)
    if "\\u" in token.text and _LONE_SURROGATE.search(value):
        raise JsonError("a lone surrogate in a string", token.start)
    return value


def beyond_double(number: str) -> bool:
    """Whether a JSON number has no finite double. Linear in its length."""
    parts = _NUMBER_PARTS.fullmatch(number)
    if parts is None:
        raise ValueError(f"{number[:40]!r} is no JSON number")
    whole, fraction, sign, exponent = parts[1], parts[2] or "", parts[3], parts[4] or "0"
    digits = (whole + fraction).lstrip("0")
    if not digits or (sign == "-" and len(exponent) > _HUGE_EXPONENT_DIGITS):
        return False
    if len(exponent) > _HUGE_EXPONENT_DIGITS:
        return True
    leading_zeros = len(whole) + len(fraction) - len(digits)
    magnitude = len(whole) - leading_zeros + int(f"{sign or ''}{exponent}")
    if magnitude != _DOUBLE_MAGNITUDE:
        return magnitude > _DOUBLE_MAGNITUDE
    return math.isinf(float(f"0.{digits[:_ENOUGH_DIGITS]}e{_DOUBLE_MAGNITUDE}"))


def after_space(text: str, position: int) -> int:
    """The first position from `position` on that holds no white space, or the end."""
    return _end(_SPACES, text, position)


def _value(text: str, position: int, opened: bytearray, rules: Rules) -> tuple[int, bool]:
    """Go over a scalar or an empty container, or into containers; tell where that leads and whether a value ended."""
    start = after_space(text, position)
    inside = _end(_OPENING_ARRAYS, text, start)
    if inside > start:
        opened += b"[" * text.count("[", start, inside)
        _check_depth(start, len(opened), rules)
        if not text.startswith("]", inside):
            return inside, False
        opened.pop()
        return inside + 1, True
    token = next_token(text, start)
    if token.kind != "open":
        if rules.strict:
            check_scalar(token)
        return token.end, True
    _check_depth(start, len(opened) + 1, rules)
    inside = after_space(text, token.end)
    if text.startswith("}", inside):
        return inside + 1, True
    opened.append(_OBJECT)
    return _key(text, inside, rules), False


def _behind_value(text: str, position: int, opened: bytearray, rules: Rules) -> int:
    """Where the next value is expected after one that ended at `position`; what closes there is taken off `opened`."""
    while opened:
        closers = _end(_CLOSING_ARRAYS, text, position) - position
        if closers and opened.endswith(b"[" * closers):
            del opened[-closers:]
            position += closers
            continue
        after = _AFTER_VALUE.match(text, position)
        if after is None:
            raise _refused(text, position, "a comma or the end of the container is expected here")
        position = after.end()
        if after[1] == ",":
            if opened[-1] == _ARRAY:
                return _end(_SIMPLE_ELEMENTS, text, position)
            return _key(text, _end(_SIMPLE_MEMBERS, text, position), rules)
        if opened.pop() != _OPENERS[after[1]]:
            raise JsonError(f"{after[1]!r} closes what it did not open", after.start(1))
    return position


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Where the match of a pattern that also matches nothing ends."""
    found = pattern.match(text, position)
    return found.end() if found else position


def _key(text: str, position: int, rules: Rules) -> int:
    """Behind the colon of the key at or behind `position`."""
    token = next_token(text, position)
    if token.kind != "string":
        raise JsonError("a key is expected here", token.start)
    if rules.strict:
        check_scalar(token)
    return behind_colon(text, token.end)


def behind_colon(text: str, position: int) -> int:
    """Behind the colon at or behind `position`. Raises JsonError if there is none."""
    colon = _COLON.match(text, position)
    if colon is None:
        raise _refused(text, position, "a colon is expected here")
    return colon.end()


def _check_depth(start: int, depth: int, rules: Rules) -> None:
    if rules.depth is not None and depth > rules.depth:
        raise JsonError(f"more than {MAX_DEPTH} containers nested in each other", start)


def _string_end(text: str, start: int) -> int:
    """Behind the closing quote of the string that opens at `start`."""
    position = _end(_STRING_BODY, text, start + 1)
    if text[position : position + 1] != '"':
        raise JsonError("a string that does not end, a control character in it, or an unknown escape", position)
    return position + 1


def _refused(text: str, position: int, what: str) -> JsonError:
    return JsonError(what, after_space(text, position))

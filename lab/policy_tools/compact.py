# SPDX-License-Identifier: BSD-2-Clause-Patent
"""JSON documents in and out as the reference's tools read and write them: order kept, compact (policy.md 5.4).

Reading refuses what its reader refuses: see migtd/policy/json_scan.py. A repeated key keeps its place and takes the
last value. Integers beyond 64 bits and `-0` become floats, as they do there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, Final

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError
from lab.policy_tools.files import MAX_DOCUMENT
from migtd.policy import json_scan
from migtd.policy.errors import JsonError

_U64_MAX: Final = 2**64 - 1
_I64_MIN: Final = -(2**63)
_MOST_INTEGER_DIGITS: Final = 20
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.0-9eE]+|\S')
_MOST_SHOWN: Final = 40


def pull_json(data: bytes, what: str) -> Any:
    """The value of a document. Raises ToolError (LAB-TOOL-JSON-INVALID); `what` names the document there."""
    try:
        return parse(data)[0]
    except JsonError as error:
        raise ToolError(failures.JSON_INVALID, f"{what}: {error.described(data.decode('utf-8', 'replace'))}") from error


def parse(data: bytes) -> tuple[Any, str, list[str]]:
    """Value, text, and the keys that come twice in one object. Raises JsonError."""
    text = document_text(data)
    end = json_scan.walk(text, 0, json_scan.decoded(0))
    if json_scan.after_space(text, end) != len(text):
        raise JsonError("there is more after the document", json_scan.after_space(text, end))
    repeated: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return found

    return json.loads(text, object_pairs_hook=members, parse_int=_integer, parse_float=float), text, repeated


def document_text(data: bytes) -> str:
    """The characters of a document. Raises JsonError if it is not UTF-8 or has more than 16 MiB."""
    if len(data) > MAX_DOCUMENT:
        raise JsonError(f"{len(data)} bytes, the most are {MAX_DOCUMENT}", 0)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start} is not UTF-8", 0) from None


def push_json(value: Any) -> bytes:
    """A value as one line without white space, keys in their order, every character that needs no escape as itself."""
    return "".join(_pieces(value)).encode("utf-8")


def push_string(text: str) -> str:
    """A string with its quotes and the shortest escapes."""
    return encode_basestring(text)


def difference(text: str, compact: str, repeated: list[str]) -> str:
    """Why a document's `text` is not its `compact` form: what stands in the way, and where."""
    if repeated:
        return f"the key {repeated[0]!r} comes twice"
    at = next((at for at, (one, other) in enumerate(zip(text, compact, strict=False)) if one != other), len(compact))
    if text[at : at + 1].isspace():
        return f"white space at character {at}"
    # Where a number ends too early, the difference is behind it.
    token = next((each for each in _TOKEN.finditer(text) if each.end() > at - each.group()[-1].isdigit()), None)
    written = token.group() if token else ""
    shown = written if len(written) <= _MOST_SHOWN else f"{written[:_MOST_SHOWN]}…"
    if written.startswith('"'):
        return f"an escape at character {at} that the compact form has not"
    return f"the number {shown} at character {token.start() if token else at} is not in its shortest form"


def _integer(literal: str) -> int | float:
    if len(literal) <= _MOST_INTEGER_DIGITS and literal != "-0" and _I64_MIN <= int(literal) <= _U64_MAX:
        return int(literal)
    return float(literal)


def _pieces(value: Any) -> Iterator[str]:
    match value:
        case dict():
            mark = "{"
            for key, member in value.items():
                yield f"{mark}{encode_basestring(key)}:"
                yield from _pieces(member)
                mark = ","
            yield "}" if value else "{}"
        case list():
            mark = "["
            for element in value:
                yield mark
                yield from _pieces(element)
                mark = ","
            yield "]" if value else "[]"
        case str():
            yield encode_basestring(value)
        case float():
            yield _shortest(value)
        case _:
            yield json.dumps(value)


def _shortest(value: float) -> str:
    """The shortest digits that give the value back, laid out as the reference's writer does."""
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    written = "".join(map(str, digits)).rstrip("0") or "0"
    minus = "-" if sign else ""
    if written == "0":
        return f"{minus}0.0"
    trailing = int(exponent) + len(digits) - len(written)
    point = len(written) + trailing
    if trailing >= 0 and point <= 16:  # noqa: PLR2004 - the longest that is written out
        return f"{minus}{written}{'0' * trailing}.0"
    if 0 < point <= 16:  # noqa: PLR2004 - as above
        return f"{minus}{written[:point]}.{written[point:]}"
    if -5 < point <= 0:  # noqa: PLR2004 - as above
        return f"{minus}0.{'0' * -point}{written}"
    fraction = f".{written[1:]}" if len(written) > 1 else ""
    return f"{minus}{written[0]}{fraction}e{point - 1}"

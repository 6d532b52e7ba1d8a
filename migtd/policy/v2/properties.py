# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A property of a v2 policy: an operation and a reference; its reading and its evaluation (policy.md 2.4, 2.5).

Each `…_holds` applies a property to a value of the peer. `relative` is the own value, which the references `self` and
`init` stand for; None where there is none. All raise PolicyError: InvalidReference, InvalidOperation, and those of
statuses also InvalidParameter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from migtd.policy.errors import JsonError, PolicyError, PolicyErrorName
from migtd.policy.explain import shown_name, shown_reference
from migtd.policy.json_reader import Field, Kind, Reader
from migtd.policy.v2.decoding import u32
from migtd.policy.v2.status import BEST, CONFIGURATION_NEEDED, PLATFORM_RANKS, SERVTD_RANKS, WORST, rank

T = TypeVar("T")

RELATIVE: Final = frozenset({"self", "init"})
"""References to the own value; the two mean the same."""
EQUAL: Final = "equal"
GREATER_OR_EQUAL: Final = "greater-or-equal"
SUBSET: Final = "subset"
ALLOW_LIST: Final = "allow-list"
DENY_LIST: Final = "deny-list"
RANGES: Final = frozenset({"in-range", "in-time-range"})

_U32_MAX: Final = 2**32 - 1
_U32_TEXT: Final = re.compile(r"\+?0*([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class IntegerList:
    """A list of u32. `[]` in a document is one too."""

    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StringList:
    """A list of strings."""

    values: tuple[str, ...]


Reference: TypeAlias = int | str | IntegerList | StringList


@dataclass(frozen=True, slots=True)
class Property:
    """An operation, any text, and a reference; `written` is the reference's text in the document, cut if it is long."""

    operation: str
    reference: Reference
    written: str


def read_property(reader: Reader) -> Property:
    """The next value as a property. Raises JsonError."""
    values = reader.structure(*_FIELDS)
    reference, written = values["reference"]
    return Property(values["operation"], reference, written)


def integer_holds(rule: Property, value: int, relative: int | None) -> bool:
    """Whether a rule on a u32 is met."""
    match rule.reference:
        case int(wanted):
            return _compared(rule, value, wanted)
        case str(text) if text in RELATIVE:
            return _compared(rule, value, _required(relative))
        case str(text) if rule.operation in RANGES:
            start, end = _range(text)
            return start <= value <= end
        case IntegerList(values) if rule.operation == SUBSET:
            return value in values
        case StringList():
            raise _wrong_reference("a list of strings where numbers are compared")
    raise _wrong_operation(rule)


def string_holds(rule: Property, value: str, relative: str | None) -> bool:
    """Whether a rule on a text is met: by its bytes, also where it is a date."""
    match rule.reference:
        case str(text):
            return _compared(rule, value, _required(relative) if text in RELATIVE else text)
        case StringList(values):
            return (value in values) is _allows(rule)
    raise _wrong_reference("a number where texts are compared")


def platform_status_holds(rule: Property, value: str, relative: str | None) -> bool:
    """Whether a rule on a platform's TCB status is met. The best and the worst rank decide without the rule."""
    found = rank(value, PLATFORM_RANKS)
    if found in (BEST, WORST):
        return found == BEST
    match rule.reference:
        case str(text):
            return _compared(rule, found, rank(_required(relative) if text in RELATIVE else text, PLATFORM_RANKS))
        case StringList(values):
            allows = _allows(rule)
            for each in values:
                rank(each, PLATFORM_RANKS)
            # What is left here is of the middle rank, which only this one name admits and nothing excepts from denial.
            return allows and CONFIGURATION_NEEDED in values
    raise _wrong_reference("a number where TCB statuses are compared")


def servtd_status_holds(_rule: Property, value: str) -> bool:
    """Whether a rule on a MigTD's TCB status is met; the rule says nothing to it, as in the reference."""
    return rank(value, SERVTD_RANKS) != WORST


def _compared(rule: Property, value: int | str, wanted: int | str) -> bool:
    """`equal` or `greater-or-equal`, of two numbers or two texts. Code points are in the order of UTF-8 bytes."""
    if rule.operation == EQUAL:
        return value == wanted
    if rule.operation == GREATER_OR_EQUAL:
        return value >= wanted  # type: ignore[operator] # both are of one type
    raise _wrong_operation(rule)


def _allows(rule: Property) -> bool:
    """Whether a list is one of what is allowed, not of what is denied."""
    if rule.operation not in (ALLOW_LIST, DENY_LIST):
        raise _wrong_operation(rule)
    return rule.operation == ALLOW_LIST


def _required(relative: T | None) -> T:
    if relative is None:
        raise _wrong_reference("there is no own value that self or init could stand for")
    return relative


def _range(text: str) -> tuple[int, int]:
    parts = text.split("..", 2)
    if len(parts) != len(("start", "end")):
        raise PolicyError(PolicyErrorName.InvalidOperation, f"{shown_reference(text)!r} is no range")
    return _limit(parts[0]), _limit(parts[1])


def _limit(text: str) -> int:
    """One end of a range: a decimal u32, a plus sign allowed."""
    found = _U32_TEXT.fullmatch(text)
    if found is None or (value := int(found[1])) > _U32_MAX:
        raise _wrong_reference(f"{shown_reference(text)!r} is no number of 32 bits")
    return value


def _wrong_operation(rule: Property) -> PolicyError:
    detail = f"{shown_name(rule.operation)!r} with {rule.written}"
    return PolicyError(PolicyErrorName.InvalidOperation, detail)


def _wrong_reference(why: str) -> PolicyError:
    return PolicyError(PolicyErrorName.InvalidReference, why)


def _read_reference(reader: Reader) -> tuple[Reference, str]:
    written = reader.fork().raw().text
    return _reference(reader), shown_reference(written)


def _reference(reader: Reader) -> Reference:
    match reader.kind():
        case Kind.NUMBER:
            return u32(reader)
        case Kind.STRING:
            return reader.string()
        case Kind.ARRAY:
            return _list(reader)
    raise reader.refusal("a reference is a number of 32 bits, a text, or a list of one of them")


def _list(reader: Reader) -> Reference:
    """Numbers if all are; else texts. Where it is neither, the attempt that got further tells why."""
    attempt = reader.fork()
    try:
        numbers = attempt.sequence(u32)
    except JsonError as no_numbers:
        try:
            return StringList(tuple(reader.sequence(Reader.string)))
        except JsonError as no_texts:
            raise max(no_numbers, no_texts, key=lambda error: error.offset) from None
    reader.follow(attempt)
    return IntegerList(tuple(numbers))


_FIELDS: Final = (Field("operation", Reader.string), Field("reference", _read_reference))

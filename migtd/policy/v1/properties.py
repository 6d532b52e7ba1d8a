# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A property of a v1 policy: an operation and a reference; its reading and its evaluation (policy.md 1.3, 1.4)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from migtd.policy.errors import JsonError
from migtd.policy.json_reader import Field, Kind, Reader

U64_MAX: Final = 2**64 - 1
_INTEGER_BYTES: Final = 8
_U64_DIGITS: Final = len(str(U64_MAX))


class Operation(enum.Enum):
    """The operations by their text."""

    EQUAL = "equal"
    GREATER_OR_EQUAL = "greater-or-equal"
    SUBSET = "subset"  # reads, and is never true
    IN_RANGE = "in-range"
    IN_TIME_RANGE = "in-time-range"
    ARRAY_EQUAL = "array-equal"
    ARRAY_GREATER_OR_EQUAL = "array-greater-or-equal"


@dataclass(frozen=True, slots=True)
class Compared:
    """What a property is applied to: the bytes of both sides, and whether the judging side is the source."""

    local: bytes
    peer: bytes
    is_source: bool


class Reference(Protocol):
    """One of the five kinds of reference. Whatever operation a kind does not know is false, never an error."""

    def holds(self, operation: Operation, values: Compared) -> bool:
        """Whether the property is true of the values."""


@dataclass(frozen=True, slots=True)
class IntegerReference:
    """A number, compared with the peer's bytes as a little-endian one of at most 8 bytes."""

    value: int

    def holds(self, operation: Operation, values: Compared) -> bool:
        """`equal`, `greater-or-equal`: of the peer."""
        peer = _integer(values.peer)
        if peer is None:
            return False
        if operation is Operation.GREATER_OR_EQUAL:
            return peer >= self.value
        return operation is Operation.EQUAL and peer == self.value


@dataclass(frozen=True, slots=True)
class TextReference:
    """A text, compared with the upper-case hex of the peer's bytes."""

    value: str

    def holds(self, operation: Operation, values: Compared) -> bool:
        """`equal` only."""
        return operation is Operation.EQUAL and values.peer.hex().upper() == self.value


@dataclass(frozen=True, slots=True)
class LocalReference:
    """`self`: the own bytes. The destination must never be worse than the source, whoever judges."""

    def holds(self, operation: Operation, values: Compared) -> bool:
        """Identity in either form; not less, as a number or byte by byte."""
        if len(values.local) != len(values.peer):
            return False
        source, destination = (values.local, values.peer) if values.is_source else (values.peer, values.local)
        match operation:
            case Operation.EQUAL | Operation.ARRAY_EQUAL:
                return source == destination
            case Operation.GREATER_OR_EQUAL:
                least, number = _integer(source), _integer(destination)
                return least is not None and number is not None and number >= least
            case Operation.ARRAY_GREATER_OR_EQUAL:
                return _each_not_less(destination, source)
        return False


@dataclass(frozen=True, slots=True)
class RangeReference:
    """Numbers from `start` to `end`, which is excluded."""

    start: int
    end: int

    def holds(self, operation: Operation, values: Compared) -> bool:
        """`in-range` and `in-time-range` are the same."""
        if operation not in (Operation.IN_RANGE, Operation.IN_TIME_RANGE):
            return False
        peer = _integer(values.peer)
        return peer is not None and self.start <= peer < self.end


@dataclass(frozen=True, slots=True)
class ArrayReference:
    """Bytes, compared with as many bytes of the peer."""

    value: bytes

    def holds(self, operation: Operation, values: Compared) -> bool:
        """Identity, or byte by byte not less."""
        if len(values.peer) != len(self.value):
            return False
        if operation is Operation.ARRAY_GREATER_OR_EQUAL:
            return _each_not_less(values.peer, self.value)
        return operation is Operation.ARRAY_EQUAL and values.peer == self.value


@dataclass(frozen=True, slots=True)
class Property:
    """An operation and a reference; `written` is the reference's text in the document."""

    operation: Operation
    reference: Reference
    written: str

    def holds(self, values: Compared) -> bool:
        """Whether it is true of the values."""
        return self.reference.holds(self.operation, values)


def read_property(reader: Reader) -> Property:
    """The next value as a property. Raises JsonError."""
    values = reader.structure(Field("operation", _read_operation), Field("reference", _read_reference))
    reference, written = values["reference"]
    return Property(values["operation"], reference, written)


def _read_operation(reader: Reader) -> Operation:
    refusal = reader.refusal("there is no such operation")
    try:
        return Operation(reader.unescaped_string())
    except ValueError as error:
        raise (error if isinstance(error, JsonError) else refusal) from None


def _read_reference(reader: Reader) -> tuple[Reference, str]:
    written = reader.fork().raw().text
    return _reference(reader), written


def _reference(reader: Reader) -> Reference:
    match reader.kind():
        case Kind.NUMBER:
            return IntegerReference(reader.unsigned(64))
        case Kind.ARRAY:
            return ArrayReference(bytes(reader.unsigned(8) for _ in reader.elements()))
        case Kind.STRING:
            return _text_reference(reader.string())
    raise reader.refusal("a reference is a number, a text or an array of bytes")


def _text_reference(text: str) -> Reference:
    if text == "self":
        return LocalReference()
    parts = text.split("..", 2)
    if len(parts) == len(("start", "end")):
        start = _limit(parts[0], 0)
        end = _limit(parts[1], U64_MAX)
        if start is not None and end is not None:
            return RangeReference(start, end)
    return TextReference(text)


def _limit(text: str, default: int) -> int | None:
    """One end of a range: a decimal u64, a plus sign allowed; None if it is not one."""
    if not text:
        return default
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return None
    significant = digits.lstrip("0")
    if len(significant) > _U64_DIGITS or (value := int(significant or "0")) > U64_MAX:
        return None
    return value


def _integer(value: bytes) -> int | None:
    return int.from_bytes(value, "little") if len(value) <= _INTEGER_BYTES else None


def _each_not_less(values: bytes, least: bytes) -> bool:
    return all(value >= bound for value, bound in zip(values, least, strict=True))

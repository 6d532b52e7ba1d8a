# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Metadata fields of the TDX module: which there are, how wide, who may read or write them (ghci-ratls.md 2).

A guest names a field by number and gets or sets one element of at most 64 bits; element i of a field is field + i.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from migtd.guest.abi import MSK_ELEMENTS, Field, TdCallLeaf
from migtd.guest.channel import Registers
from vmm_stub.tdx_module.errors import Operand, OperandInvalid

ALL_ONES: Final = (1 << 64) - 1


class Access(enum.Enum):
    """What a guest may do with a field. No field that this emulation serves is both."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """One metadata field: number and size of its elements (in bytes), access, and whether its value is a secret."""

    field: Field
    elements: int
    element_size: int
    access: Access
    secret: bool = False

    @property
    def mask(self) -> int:
        """All bits of one element."""
        return (1 << 8 * self.element_size) - 1


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a field, as a field identifier names it."""

    layout: FieldLayout
    index: int


FieldTable: TypeAlias = Mapping[int, Element]
"""Element by field identifier."""


def _table(layouts: Iterable[FieldLayout]) -> FieldTable:
    return {layout.field + i: Element(layout, i) for layout in layouts for i in range(layout.elements)}


TARGET_TD_FIELDS: Final = _table(
    (
        FieldLayout(Field.MIG_DEC_KEY, MSK_ELEMENTS, 8, Access.WRITE, secret=True),
        FieldLayout(Field.MIG_ENC_KEY, MSK_ELEMENTS, 8, Access.READ, secret=True),
        FieldLayout(Field.MIG_VERSION, 1, 2, Access.WRITE),
        FieldLayout(Field.SERVTD_INIT_SERVTD_INFO_HASH, 6, 8, Access.READ),
        FieldLayout(Field.SERVTD_INIT_ATTR, 1, 8, Access.READ),
        FieldLayout(Field.INIT_CPUSVN, 2, 8, Access.READ),
        FieldLayout(Field.INIT_TEE_TCB_SVN, 2, 8, Access.READ),
        FieldLayout(Field.INIT_TEE_MODEL, 3, 4, Access.READ),
        FieldLayout(Field.SERVTD_INFO_HASH, 6, 8, Access.READ),
        FieldLayout(Field.SERVTD_ATTR, 1, 8, Access.READ),
    )
)
"""Of a target TD, reached by the service TD bound to it: TDG.SERVTD.RD and WR."""

SERVICE_TD_FIELDS: Final = _table(
    (
        FieldLayout(Field.REBIND_ACCEPT_TOKEN, 4, 8, Access.WRITE, secret=True),
        FieldLayout(Field.REBIND_ATTR, 1, 8, Access.WRITE),
        FieldLayout(Field.ACCEPT_SERVTD_EXT_HASH, 6, 8, Access.WRITE),
    )
)
"""Of the calling TD itself: TDG.VM.WR."""

SECRET_FIELDS: Final = frozenset(
    identifier
    for table in (TARGET_TD_FIELDS, SERVICE_TD_FIELDS)
    for identifier, element in table.items()
    if element.layout.secret
)
"""Identifiers of all elements whose values must not be shown: MIG_ENC_KEY, MIG_DEC_KEY, REBIND_ACCEPT_TOKEN."""

_LEAVES_WITH_VALUES: Final = frozenset((TdCallLeaf.SERVTD_RD, TdCallLeaf.SERVTD_WR, TdCallLeaf.VM_WR))


def carries_secret_data(call: Registers) -> bool:
    """Whether the data that goes with this TDCALL is a secret: the token of a rebinding."""
    return call.rax == TdCallLeaf.SERVTD_REBIND_APPROVE


def carries_secret(call: Registers) -> bool:
    """Whether R8 of this TDCALL, or of what it returns, is an element of a secret.

    `call` is the registers as the guest set them. Whoever records calls leaves R8 out then, in both directions.
    """
    return call.rax in _LEAVES_WITH_VALUES and call.rdx in SECRET_FIELDS


def readable(table: FieldTable, field: int) -> Element:
    """The element that a guest wants to read. Raises OperandInvalid (RDX) if it is unknown or write only."""
    return _find(table, field, Access.READ)


def writable(table: FieldTable, field: int, value: int, mask: int) -> Element:
    """The element that a guest wants to write as a whole.

    Raises OperandInvalid: RDX if it is unknown or read only, R8 if `value` does not fit, R9 if `mask` leaves out a
    bit of the element (no field here can be written in part).
    """
    element = _find(table, field, Access.WRITE)
    if value > element.layout.mask:
        raise OperandInvalid(Operand.R8)
    if mask & element.layout.mask != element.layout.mask:
        raise OperandInvalid(Operand.R9)
    return element


class StagedField:
    """A field that a guest writes element by element; it takes effect when every element was written.

    `value` is None until then, and stays what it was while the next value is incomplete. The representation tells
    sizes and counts, never a value.
    """

    def __init__(self, elements: int, element_size: int) -> None:
        self._element_size = element_size
        self._staged: list[int | None] = [None] * elements
        self._value: bytes | None = None
        self._writes = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(writes={self._writes}, staged={sum(each is not None for each in self._staged)})"

    @property
    def value(self) -> bytes | None:
        """The field as last completed, elements little-endian, or None."""
        return self._value

    @property
    def writes(self) -> int:
        """How often the field was completed."""
        return self._writes

    def clear(self) -> None:
        """Forget the value, and what was written of a next one."""
        self._value = None
        self._staged = [None] * len(self._staged)

    def write(self, index: int, value: int) -> None:
        """Write one element. Writing it again before the field is complete replaces it."""
        self._staged[index] = value
        elements = [each for each in self._staged if each is not None]
        if len(elements) == len(self._staged):
            self._value = b"".join(each.to_bytes(self._element_size, "little") for each in elements)
            self._writes += 1
            self._staged = [None] * len(elements)


def staged_fields(table: FieldTable) -> dict[Field, StagedField]:
    """An unwritten StagedField for each writable field of the table."""
    layouts = {element.layout.field: element.layout for element in table.values()}
    return {
        field: StagedField(layout.elements, layout.element_size)
        for field, layout in layouts.items()
        if layout.access is Access.WRITE
    }


def _find(table: FieldTable, field: int, access: Access) -> Element:
    element = table.get(field)
    if element is None or element.layout.access is not access:
        raise OperandInvalid(Operand.RDX)
    return element

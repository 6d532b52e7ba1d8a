# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One side of one migration, as its host's history tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from lab.invariants.event import Recorded, hexadecimal, registers, text
from lab.invariants.records import RecordReader
from migtd.checks import ON_REQUEST, CheckName, CheckStatus
from migtd.guest.abi import MSK_ELEMENTS, Field
from migtd.observer import Phase

UNKNOWN: Final = "Unknown"
"""Result of a side that was lost."""
CHECKS: Final = tuple(name.value for name in CheckName if name not in ON_REQUEST)
PEER_CHECKS: Final = CHECKS[: CHECKS.index(CheckName.EXCHANGE_INFORMATION.value)]
"""Those that judge the peer, before anything may be told to it. What it tells then is checked by the rest."""
MIGRATION: Final = "migration"
_OF_QUOTES: Final = frozenset({CheckName.QUOTE_LOCAL, CheckName.QUOTE_PEER})
OLD_PEER_CHECKS: Final = (
    *(name for name in PEER_CHECKS if name not in _OF_QUOTES),
    *(name.value for name in (CheckName.PEER_DATA_HASH, CheckName.TDREPORT_MAC, CheckName.TDREPORT_HASHES)),
)
NEW_PEER_CHECKS: Final = (*OLD_PEER_CHECKS, CheckName.INITIAL_TDINFO.value, CheckName.SERVTD_EXT.value)
"""The same for the two MigTDs of a rebinding."""
_PHASES: Final = tuple(phase.value for phase in Phase)
_KEY_SENT: Final = _PHASES.index(Phase.EXCHANGE.value)
_SERVTD_WR: Final = "TDG.SERVTD.WR"
_KEPT: Final = 64 << 10
"""Bytes of each stream that are kept for the comparison with the other side's; a session has some thousand."""


class Stream:
    """The bytes that crossed the wire in one direction: the first of them, and how many there were."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.length = 0

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self.length += len(data)
        self.head += data[: max(_KEPT - len(self.head), 0)]

    def begins(self, other: Stream) -> bool:
        """Whether this may be the beginning of `other`, or all of it."""
        return self.length <= other.length and other.head.startswith(self.head)


@dataclass(frozen=True, slots=True)
class FieldWrite:
    """A TDG.SERVTD.WR: `target` is binding handle and UUID, `done` whether the TDX module took it."""

    target: tuple[int, ...]
    field: int
    done: bool

    @property
    def element(self) -> int | None:
        """Which element of MIG_DEC_KEY it is; None for another field."""
        element = self.field - Field.MIG_DEC_KEY
        return element if 0 <= element < MSK_ELEMENTS else None


@dataclass(frozen=True, slots=True)
class SideEnd:
    """How one side ended: `code` is None where it was lost."""

    result: str
    code: int | None
    key_written: bool


@dataclass(slots=True, eq=False)
class Run:
    """One request id on one MigTD from `preparing` to `ended`. `shared`: another run had the same target meanwhile."""

    host: str
    migtd: str
    request_id: int
    role: str
    operation: str
    target: tuple[int, ...] | None
    started: float
    seq: int
    ended: float = 0.0
    end: SideEnd | None = None
    shared: bool = False
    disturbed: bool = False
    """Something was staged: a cancellation, or a fault."""
    write_failed: bool = False
    reported: tuple[str, int | None] | None = None
    phase: int = -1
    checks: dict[str, str] = field(default_factory=dict)
    written: dict[int, bool] = field(default_factory=dict)
    sent: Stream = field(default_factory=Stream)
    received: Stream = field(default_factory=Stream)
    key_record_sent: bool = False
    told: set[str] = field(default_factory=set)
    """Violations that are told once per run."""
    _records: RecordReader = field(default_factory=RecordReader)

    @property
    def peer_checks(self) -> tuple[str, ...]:
        """Those that judge the peer, before anything may be told to it."""
        if self.operation == MIGRATION:
            return PEER_CHECKS
        return OLD_PEER_CHECKS if self.role == "source" else NEW_PEER_CHECKS

    @property
    def key_sent(self) -> bool:
        """Whether it sent its key, or may have."""
        return self.phase >= _KEY_SENT or self.key_record_sent

    @property
    def key_complete(self) -> bool:
        """Whether all elements of the peer's key were written."""
        return all(self.written.get(element) for element in range(MSK_ELEMENTS))

    @property
    def failed_checks(self) -> list[str]:
        """What this side refused its peer for."""
        return [name for name, status in self.checks.items() if status == CheckStatus.FAILED]

    def entered(self, phase: str) -> bool:
        """The MigTD entered a phase; whether its key may be sent from now on."""
        if phase in _PHASES:
            self.phase = max(self.phase, _PHASES.index(phase))
        return self.phase >= _KEY_SENT

    def sends(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Bytes went out: the invariants that this breaks, each with a sentence."""
        self.sent.feed(data)
        if self._records.feed(data):
            self.key_record_sent = True
            for sentence in self.unchecked(self.peer_checks, "the key was sent"):
                yield "I1", sentence
        if self._records.goes_on and self._once("goes on"):
            yield "I6", "its stream begins in the middle of a session"

    def unchecked(self, wanted: tuple[str, ...], done: str) -> Iterator[str]:
        """What speaks against something that is done only after these checks; told once."""
        failed = self.failed_checks
        missing = [name for name in wanted if name not in self.checks]
        if failed and self._once(f"{done}, failed"):
            yield f"{done} although {', '.join(failed)} failed"
        if missing and self._once(f"{done}, missing"):
            yield f"{done} before {', '.join(missing)}"

    def _once(self, what: str) -> bool:
        new = what not in self.told
        self.told.add(what)
        return new


def field_write_of(event: Recorded) -> FieldWrite | None:
    """The write into a target TD that a `call` event tells of; None for every other call."""
    if text(event.data, "leaf") != _SERVTD_WR:
        return None
    given, returned = registers(event.data, "in"), registers(event.data, "out")
    target = tuple(hexadecimal(given.get(name)) for name in ("rcx", "r10", "r11", "r12", "r13"))
    return FieldWrite(target, hexadecimal(given.get("rdx")), not hexadecimal(returned.get("rax")))

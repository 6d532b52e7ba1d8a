# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the two sides of one migration have in common: I4 and I5 of design.md."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from lab.invariants.event import Violation
from lab.invariants.run import MIGRATION, UNKNOWN, Run
from migtd.checks import CheckName
from migtd.errors import MigrationResult

_WAITING: Final = 1024
"""Sides that wait for their peer's end. The other side may be somebody else's, or its history lost with its host."""
_SUCCESS: Final = MigrationResult.Success.name
_LINK_LOST: Final = frozenset({MigrationResult.NetworkError.name, MigrationResult.VmmCanceled.name})
"""What a side ends with whose link was lost, or taken away by its host."""


class Pairs:
    """Finds the two sides of each migration: one request id and UUID, opposite roles, at the same time."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, Run] = OrderedDict()
        """In the order of their end, under numbers of their own."""
        self._by_name: dict[tuple[int, tuple[int, ...]], dict[int, Run]] = {}
        self._next = 0

    def ended(self, run: Run) -> Iterator[Violation]:
        """A side has ended: what it and its peer show to be wrong, once both have."""
        if run.end is not None and run.end.key_written and run.failed_checks:
            text = f"it refused its peer ({', '.join(run.failed_checks)}), and yet the peer's key is written"
            yield _violation("I4", run, text)
        writes = run.operation == MIGRATION
        if writes and run.end is not None and run.end.result == _SUCCESS and not run.end.key_written:
            yield _violation("I4", run, "Success, and the peer's key is not written")
        if run.target is None:
            return
        name = (run.request_id, run.target[1:])
        same = self._by_name.get(name, {})
        index = next((index for index, other in same.items() if _are_peers(run, other)), None)
        if index is None:
            self._wait(name, run)
            return
        other = same[index]
        self._drop(index, name)
        yield from _compare(run, other)
        yield from _compare(other, run)

    def _wait(self, name: tuple[int, tuple[int, ...]], run: Run) -> None:
        self._waiting[self._next] = run
        self._by_name.setdefault(name, {})[self._next] = run
        self._next += 1
        if len(self._waiting) > _WAITING:
            oldest, dropped = next(iter(self._waiting.items()))
            self._drop(oldest, (dropped.request_id, (dropped.target or ())[1:]))

    def _drop(self, index: int, name: tuple[int, tuple[int, ...]]) -> None:
        del self._waiting[index]
        del self._by_name[name][index]
        if not self._by_name[name]:
            del self._by_name[name]


def _are_peers(one: Run, other: Run) -> bool:
    opposite = {one.role, other.role} == {"source", "destination"}
    return opposite and one.started <= other.ended and other.started <= one.ended


def _compare(one: Run, other: Run) -> Iterator[Violation]:
    """What is wrong with `one` in the light of `other`."""
    staged = one.disturbed or other.disturbed
    if not staged and not one.received.begins(other.sent):
        yield _violation("I5", one, f"what came is not what {other.host}/{other.migtd} sent")
    if one.end is None or other.end is None or other.end.result != _SUCCESS:
        return
    if one.end.result == _SUCCESS:
        return
    # The other side has this side's key, and this side failed.
    # The old MigTD of a rebinding hears nothing of the new one, which may be lost as soon as the other is done.
    if not one.key_sent and one.operation == MIGRATION:
        yield _violation("I4", one, f"ended with {one.end.result} opposite a Success before its key was sent")
    elif not (staged or one.end.result in {UNKNOWN, *_LINK_LOST} or one.write_failed or _own_target_refused(one)):
        yield _violation("I4", one, f"ended with {one.end.result} opposite a Success although nothing was lost")


def _own_target_refused(run: Run) -> bool:
    """Whether its own target TD was wrong, which a side looks at only after the exchange (ghci-ratls.md 1)."""
    return CheckName.SERVTD_ATTR.value in run.failed_checks


def _violation(invariant: str, run: Run, text: str) -> Violation:
    return Violation(invariant, run.host, run.request_id, run.seq, text)

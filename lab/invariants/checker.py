# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The history checker: I1 to I6 of design.md on the events of all hosts, and what the outcomes say of them.

It takes any JSON, never raises, and costs time linear in the history. Its memory is that of the migrations under way.

A host holds a bounded part of its history (docs/events.md). A reader who follows while migrations run misses nothing;
one who comes late finds events missing. That is told (HISTORY), and the rest is checked as far as it can be: what
began among the missing events is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from lab.invariants.event import HISTORY, Recorded, Violation, pull_recorded
from lab.invariants.outcome import check_outcome
from lab.invariants.pair import Pairs
from lab.invariants.run import Run, SideEnd
from lab.invariants.side import MigTdSide, UnderWay

MOST: Final = 1000
"""Violations of one history that `check_history` gives; nobody reads more."""


class Checker:
    """Follows the histories of a lab's hosts, merged in any way that keeps each host's own order."""

    def __init__(self) -> None:
        self.events = 0
        """Events that were read."""
        self.runs = 0
        """Sides of migrations that have ended."""
        self._last: dict[str, int] = {}
        self._sides: dict[str, dict[str, MigTdSide]] = {}
        self._partial: set[str] = set()
        """Hosts of which events are missing."""
        self._pairs = Pairs()

    def feed(self, event: object) -> Iterator[Violation]:
        """The next event: what it shows to be wrong."""
        recorded = pull_recorded(event)
        self.events += 1
        if recorded is None:
            yield Violation(HISTORY, "", None, 0, "a line that is no event (docs/events.schema.json)")
            return
        yield from self._follow(recorded)
        if recorded.migtd is None:
            return
        sides = self._sides.setdefault(recorded.host, {})
        side = sides.get(recorded.migtd)
        if side is None:
            partial = recorded.host in self._partial
            side = sides[recorded.migtd] = MigTdSide(recorded.host, recorded.migtd, self._ended, partial=partial)
        yield from side.feed(recorded)

    def finish(self, under_way: UnderWay = ()) -> Iterator[Violation]:
        """The histories were read to their ends while hosts and MigTDs lived; `under_way` may still end."""
        for sides in self._sides.values():
            for side in sides.values():
                yield from side.finish(under_way)

    def _follow(self, event: Recorded) -> Iterator[Violation]:
        last = self._last.get(event.host, 0)
        self._last[event.host] = event.seq
        if event.seq == last + 1:
            return
        # Another life of the host, or a part of this one that is not known: what was under way stays unknown.
        self._sides.pop(event.host, None)
        self._partial.discard(event.host)
        if event.seq != 1:
            self._partial.add(event.host)
            text = f"events {last + 1} to {event.seq - 1} are missing" if event.seq > last else "events out of order"
            yield Violation(HISTORY, event.host, None, event.seq, text)

    def _ended(self, run: Run) -> Iterator[Violation]:
        self.runs += 1
        yield from self._pairs.ended(run)


class _RememberingChecker(Checker):
    """Also knows how each side ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[tuple[str, int], list[SideEnd]] = {}

    def _ended(self, run: Run) -> Iterator[Violation]:
        if run.end is not None:
            self.ends.setdefault((run.role, run.request_id), []).append(run.end)
        yield from super()._ended(run)


def check_history(
    events: Iterable[object],
    outcomes: Iterable[object] = (),
    *,
    under_way: UnderWay = (),
    alive: bool = True,
) -> list[Violation]:
    """Check the histories of a lab from their start, and the outcomes of its migrations; the first MOST violations.

    `events` are those of all hosts, each host's in its order (docs/events.schema.json); `outcomes` are documents
    (docs/outcome.schema.json) of one lab. `under_way` are migrations that had not ended when the history was read.
    `alive` is False if hosts or MigTDs were ended first: then what they had not reported is nobody's fault.
    """
    return list(islice(_check(events, outcomes, under_way, alive=alive), MOST))


def _check(
    events: Iterable[object], outcomes: Iterable[object], under_way: UnderWay, *, alive: bool
) -> Iterator[Violation]:
    checker = _RememberingChecker()
    for event in events:
        yield from checker.feed(event)
    if alive:
        yield from checker.finish(under_way)
    for document in outcomes:
        yield from check_outcome(document, checker.ends)

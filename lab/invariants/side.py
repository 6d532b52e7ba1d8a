# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What one MigTD does, seen from its host: I1, I2, I3 and I6 of design.md, event by event.

Requests are followed by their whole id (EnableLogArea and GetTDReport have bits of their own), migrations by the id
without these bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Final

from lab.invariants.event import (
    HISTORY,
    Recorded,
    Violation,
    hexadecimal,
    number,
    payload,
    registers,
    target_of,
    text,
)
from lab.invariants.run import CHECKS, MIGRATION, UNKNOWN, FieldWrite, Run, SideEnd, field_write_of
from migtd.checks import CheckStatus
from migtd.guest.ghci import LOG_AREA_REQUEST_BIT, REPORT_REQUEST_BIT
from migtd.observer import Phase

UnderWay = Collection[tuple[str, str, int]]
"""Host, MigTD and request id of migrations that had not ended when the history was read."""

_MARKS: Final = ~(LOG_AREA_REQUEST_BIT | REPORT_REQUEST_BIT)
_REPORT_REFUSED: Final = "VMM-REPORT-REFUSED"
_CANCELLED: Final = "cancelled by the VMM"
_SAME_TARGET: Final = 64
"""Migrations of one target TD at the same time among which the writer of a key is looked for."""
_STARTS: Final = frozenset({"StartMigration", "StartRebinding"})
_REBINDING_CALLS: Final = frozenset({"TDG.VM.WR", "TDG.SERVTD.REBIND.APPROVE"})
_STREAM_CALLS: Final = frozenset(
    {"TDG.VP.VMCALL<Service.MigTD.Send>", "TDG.VP.VMCALL<Service.MigTD.Receive>"},
)


class MigTdSide:
    """Follows one MigTD of one host. `ended` is told of every run that has ended, for what two sides have in common.

    `partial`: events before the first are missing; what began among them is left alone.
    """

    def __init__(self, host: str, migtd: str, ended: Callable[[Run], Iterator[Violation]], *, partial: bool) -> None:
        self._host = host
        self._migtd = migtd
        self._ended = ended
        self._seen: set[int] | None = set() if partial else None
        """Migrations whose beginning was seen, where there may be others."""
        self._open: dict[int, int] = {}
        """Requests that are being served: sequence number of their acceptance by id."""
        self._runs: dict[int, Run] = {}
        self._by_target: dict[tuple[int, ...], dict[int, Run]] = {}
        self._unknown: set[int] = set()
        """Migrations whose last run ended in Unknown: nobody knows whether their requests are still served."""
        self._steps: dict[str, Callable[[Recorded], Iterator[Violation]]] = {
            "state": self._state,
            "phase": self._phase,
            "check": self._check,
            "call": self._call,
            "frame": self._frame,
            "result": self._result,
            "note": self._note,
            "fault": self._fault,
        }

    def feed(self, event: Recorded) -> Iterator[Violation]:
        """The next event of this MigTD: what it shows to be wrong."""
        step = self._steps.get(event.kind)
        if step is not None and not self._is_older(event):
            yield from step(event)

    def finish(self, under_way: UnderWay) -> Iterator[Violation]:
        """The history was read to its end: what should have ended by then and has not."""
        for request_id, seq in self._open.items():
            migration = request_id & _MARKS
            if (self._host, self._migtd, migration) not in under_way and migration not in self._unknown:
                yield Violation("I3", self._host, request_id, seq, "accepted, and never reported")
        for run in self._runs.values():
            if (self._host, self._migtd, run.request_id) not in under_way:
                yield Violation("I3", self._host, run.request_id, run.seq, "the migration has not ended")

    # --- by kind -------------------------------------------------------------------------------------------------

    def _state(self, event: Recorded) -> Iterator[Violation]:
        state, request_id = text(event.data, "state"), event.request_id
        if request_id is None:
            if state in {"starting", "lost"}:
                # Whatever it served is gone with it; each of its migrations ends as Unknown.
                self._open.clear()
        elif state == "preparing":
            yield from self._begin(event, request_id)
        elif state == "ended":
            yield from self._end(event, request_id)

    def _begin(self, event: Recorded, request_id: int) -> Iterator[Violation]:
        if request_id in self._runs:
            yield _shown(event, "I6", "started again before it had ended")
            self._forget(self._runs[request_id])
        target = target_of(event.data)
        role, operation = text(event.data, "role"), text(event.data, "operation") or MIGRATION
        run = Run(self._host, self._migtd, request_id, role, operation, target, event.time, event.seq)
        if target is not None:
            same = self._by_target.setdefault(target, {})
            for other in islice(same.values(), 1):  # where there are more, they have been marked before
                run.shared = other.shared = True
            same[request_id] = run
        self._runs[request_id] = run
        self._unknown.discard(request_id)
        if self._seen is not None:
            self._seen.add(request_id)

    def _end(self, event: Recorded, request_id: int) -> Iterator[Violation]:
        run = self._runs.get(request_id)
        if run is None:
            yield _shown(event, "I3", "ended a second time, or without a start")
            return
        self._forget(run)
        result, code = text(event.data, "result"), number(event.data, "code")
        written = event.data.get("key_written") is True
        run.ended, run.end = event.time, SideEnd(result, code, written)
        if result == UNKNOWN:
            self._unknown.add(request_id)
        elif run.reported is None:
            yield _shown(event, "I3", f"ended with {result or 'no result'}, which nobody reported")
        if run.reported is not None and run.reported != (result, code):
            yield _shown(event, "I3", f"ended with {result}, but {run.reported[0]} was reported")
        if not run.shared and written != run.key_complete:
            said = "was written" if written else "was not written"
            yield _shown(event, "I2", f"the host says that the key {said}; the calls show otherwise")
        yield from self._ended(run)

    def _phase(self, event: Recorded) -> Iterator[Violation]:
        phase, request_id = text(event.data, "phase"), event.request_id
        if request_id is None:
            return
        run = self._runs.get(request_id)
        if phase == Phase.ACCEPTED:
            if request_id in self._open:
                yield _shown(event, "I3", "accepted again before it was reported")
            self._open[request_id] = event.seq
        elif request_id not in self._open:
            yield _shown(event, "I6", f"phase {phase} of a request that is not being served")
        if run is not None and run.entered(phase):
            for sentence in run.unchecked(run.peer_checks, "the key was sent"):
                yield _shown(event, "I1", sentence)

    def _check(self, event: Recorded) -> Iterator[Violation]:
        name, status = text(event.data, "name"), text(event.data, "status")
        if event.request_id is None:
            return
        if event.request_id not in self._open:
            yield _shown(event, "I6", f"check {name} of a request that is not being served")
        if status == CheckStatus.SKIPPED and not text(event.data, "detail"):
            yield _shown(event, "I1", f"check {name} was skipped without a reason")
        run = self._runs.get(event.request_id)
        # The first word on a check counts: nothing that failed is made good by a second try.
        if run is not None and run.checks.get(name) != CheckStatus.FAILED:
            run.checks[name] = status

    def _call(self, event: Recorded) -> Iterator[Violation]:
        write = field_write_of(event)
        if write is not None:
            yield from self._field_write(event, write)
        elif text(event.data, "leaf") in _REBINDING_CALLS:
            self._rebinding_call(event)
        elif event.request_id is not None and text(event.data, "leaf") in _STREAM_CALLS:
            refused = "r10" in registers(event.data, "out")
            if not refused and event.request_id not in self._runs:
                yield _shown(event, "I6", "a Send or Receive was taken although its migration is not under way")

    def _field_write(self, event: Recorded, write: FieldWrite) -> Iterator[Violation]:
        run = self._writer(write)
        if run is not None:
            run.write_failed |= not write.done
        if write.element is None:
            return
        if run is None:
            if self._seen is None:
                yield _shown(event, "I2", "a key was written for no migration that is under way")
            return
        for sentence in run.unchecked(CHECKS, "the peer's key was written"):
            yield _shown(event, "I1", sentence, run)
        if run.reported is not None:
            yield _shown(event, "I2", "a key was written after the report", run)
        if write.element in run.written:
            yield _shown(event, "I2", f"element {write.element} of the key was written a second time", run)
        run.written[write.element] = write.done or run.written.get(write.element, False)

    def _rebinding_call(self, event: Recorded) -> None:
        """What ends a rebinding with the TDX module names no request: if it fails, each that is under way may have."""
        if hexadecimal(registers(event.data, "out").get("rax")):
            for run in islice(self._runs.values(), _SAME_TARGET):
                run.write_failed |= run.operation != MIGRATION

    def _writer(self, write: FieldWrite) -> Run | None:
        """The migration that writes: the one of that target TD. If several have it, one that has not written this."""
        runs = list(islice(self._by_target.get(write.target, {}).values(), _SAME_TARGET))
        fresh = (run for run in runs if run.key_sent and write.element not in run.written)
        return next(fresh, None) or next(iter(runs), None)

    def _frame(self, event: Recorded) -> Iterator[Violation]:
        data = payload(event.data)
        run = None if event.request_id is None else self._runs.get(event.request_id)
        if data is None:
            yield _shown(event, HISTORY, "a frame whose bytes are not readable")
        elif run is None:
            yield _shown(event, "I6", "a frame of a migration that is not under way")
        elif text(event.data, "direction") == "sent":
            for invariant, sentence in run.sends(data):
                yield _shown(event, invariant, sentence)
        else:
            run.received.feed(data)

    def _result(self, event: Recorded) -> Iterator[Violation]:
        request_id = event.request_id
        if request_id is None:
            return
        if self._open.pop(request_id, None) is None:
            yield _shown(event, "I3", "reported although it is not being served: a second report, or none was due")
        run = self._runs.get(request_id)
        if run is not None and text(event.data, "operation") in _STARTS:
            run.reported = (text(event.data, "result"), number(event.data, "code"))

    def _note(self, event: Recorded) -> Iterator[Violation]:
        if text(event.data, "id") == _REPORT_REFUSED:
            yield _shown(event, "I3", "the host refused a ReportStatus")
        if text(event.data, "text") == _CANCELLED:
            yield from self._fault(event)

    def _fault(self, event: Recorded) -> Iterator[Violation]:
        run = None if event.request_id is None else self._runs.get(event.request_id)
        if run is not None:
            run.disturbed = True
        yield from ()

    # --- helpers -------------------------------------------------------------------------------------------------

    def _is_older(self, event: Recorded) -> bool:
        """Whether it belongs to a migration that began among the events that are missing."""
        if self._seen is None or event.request_id is None or text(event.data, "state") == "preparing":
            return False
        return event.request_id & _MARKS not in self._seen

    def _forget(self, run: Run) -> None:
        del self._runs[run.request_id]
        if run.target is not None:
            same = self._by_target[run.target]
            del same[run.request_id]
            if not same:
                del self._by_target[run.target]


def _shown(event: Recorded, invariant: str, sentence: str, run: Run | None = None) -> Violation:
    request_id = event.request_id if run is None else run.request_id
    return Violation(invariant, event.host, request_id, event.seq, sentence)

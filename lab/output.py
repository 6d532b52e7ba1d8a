# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How outcomes look on a terminal: one table per migration, one line each where there are many, and what to type next.

Rich decides on colour by itself: none where the output is no terminal or NO_COLOR is set.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from lab.outcome import Outcome
from migtd.checks import CheckStatus
from vmm_stub.vmm.control.models import ErrorModel, SideOutcome

if TYPE_CHECKING:  # loaded when something is shown
    from rich.console import Console
    from rich.table import Table

    from lab.plan import Job

FULL_TABLES: Final = 3
"""More migrations than this are shown as one line each."""
MAX_ROWS: Final = 40
"""Of more migrations than this only those that failed are listed, up to this number."""
MAX_IDS: Final = 8
"""Request ids that are named where many migrations failed for one reason."""
PLAIN_WIDTH: Final = 100
"""Columns where the output is no terminal."""
NARROW: Final = 72
"""Below this many columns tables do without lines, so that the names of checks stay whole."""

MIGRATION: Final = "migration"
FINALIZE: Final = "rebind-finalize"

BANNER: Final = (
    "attestation mode accept-all: NOTHING about the peer was verified. No quote, no measurement, no policy.",
    "Whoever answers on the wire gets the migration session key. Use it to try things out, never as evidence.",
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One outcome and what its sides are called, such as `host-a/source`.

    In a rebinding these are the old and the new MigTD. Its end has no sides: who is bound then is the destination.
    """

    outcome: Outcome
    source: str
    destination: str


def console() -> Console:
    """Standard output as rich writes to it; a fixed width where it is no terminal."""
    from rich.console import Console  # noqa: PLC0415 - as said above

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, soft_wrap=False)


def show_outcomes(out: Console, shown: Sequence[Shown], next_commands: Sequence[str]) -> None:
    """Everything that `up` and `migrate` end with."""
    show_results(out, shown)
    if shown:
        succeeded = sum(each.outcome.success for each in shown)
        colour = "green" if succeeded == len(shown) else "red"
        what = "migrations" if all(each.outcome.operation == MIGRATION for each in shown) else "operations"
        out.print(f"{succeeded} of {len(shown)} {what} succeeded.", style=colour)
    else:
        out.print("The lab is ready; no migration was asked for.")
    show_next(out, next_commands)


def show_results(out: Console, shown: Sequence[Shown]) -> None:
    """Tables, what went wrong with its advice, and the warning where nothing was verified."""
    if len(shown) <= FULL_TABLES:
        for each in shown:
            out.print(full_table(each, out.width))
    else:
        _show_many(out, shown)
    for side, error, ids in _errors(shown):
        more = f" and {len(ids) - MAX_IDS} more" if len(ids) > MAX_IDS else ""
        which = ", ".join(str(each) for each in ids[:MAX_IDS]) + more
        out.print(f"{which} {side}: {error.id}: {error.message}", style="red", markup=False)
        for line in error.explain:
            out.print(f"  {line}", markup=False)
        out.print(f"  advice: {error.advice}", markup=False)
    if any(each.outcome.attestation == "accept-all" for each in shown):
        out.print(banner())


def counted(jobs: Sequence[Job]) -> str:
    """How many migrations and rebindings these are, in words."""
    counts = Counter("migration" if job.operation == "migration" else "rebinding" for job in jobs)
    return " and ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items())


def show_next(out: Console, commands: Sequence[str]) -> None:
    """The commands to type next."""
    out.print("Next:")
    for command in commands:
        out.print(f"  {command}", markup=False)


def banner() -> object:
    """The warning that accept-all verifies nothing."""
    from rich.panel import Panel  # noqa: PLC0415 - as above

    return Panel("\n".join(BANNER), style="bold red", title="accept-all")


def one_line(shown: Shown) -> str:
    """One migration in a few plain words."""
    outcome = shown.outcome
    sides = [(shown.source, outcome.source), (shown.destination, outcome.destination)]
    if outcome.operation == FINALIZE:
        del sides[0]
    ends = ", ".join(f"{called} {side.result if side else 'not ours'}" for called, side in sides)
    return f"{outcome.operation} {outcome.request_id} {'succeeded' if outcome.success else 'FAILED'}: {ends}"


def full_table(shown: Shown, width: int = PLAIN_WIDTH) -> Table:
    """Both sides of one migration, side by side, in `width` columns."""
    from rich.box import HEAVY_HEAD  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above

    outcome = shown.outcome
    narrow = width < NARROW
    title = f"{outcome.operation} {outcome.request_id}"
    names = ("source", "destination") if outcome.operation == MIGRATION else ("old", "new")
    box = None if narrow else HEAVY_HEAD
    table = Table(title=title, title_justify="left", title_style="bold", box=box, pad_edge=not narrow)
    table.add_column("")
    table.add_column(f"{names[0]}\n{shown.source}", overflow="fold")
    table.add_column(f"{names[1]}\n{shown.destination}", overflow="fold")
    sides = (outcome.source, outcome.destination)
    if outcome.operation == FINALIZE:
        table.add_row("result", "bound until now", _result(outcome.destination))
        table.add_row("whole", "", f"{outcome.duration_ms:.1f} ms")
        return table
    table.add_row("result", *(_result(side) for side in sides))
    table.add_row("phase", *("" if side is None else side.phase.value for side in sides))
    if outcome.operation == MIGRATION:
        versions = ("" if side is None or side.version is None else str(side.version) for side in sides)
        table.add_row("version", *versions)
        for name, first, second in _fingerprints(outcome):
            table.add_row(name, first, second)
    for status in CheckStatus:
        table.add_row(f"checks {status.value}", *(_checks(side, status, "\n" if narrow else ", ") for side in sides))
    times = (outcome.phases_ms.source or {}, outcome.phases_ms.destination or {})
    for phase in dict.fromkeys([*times[0], *times[1]]):
        table.add_row(phase.value, *(f"{each[phase]:.1f} ms" if phase in each else "" for each in times))
    # Of the migration, not of a side: it stands where a side is ours.
    whole = f"{outcome.duration_ms:.1f} ms"
    table.add_row("whole", *((whole, "") if outcome.source is not None else ("", whole)))
    return table


def short_table(shown: Sequence[Shown]) -> Table:
    """Many migrations, one line each."""
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table()
    for column in ("id", "source", "destination", "keys", "whole"):
        table.add_column(column, justify="right" if column in {"id", "whole"} else "left")
    for each in shown:
        outcome = each.outcome
        table.add_row(
            str(outcome.request_id),
            each.source if outcome.operation == FINALIZE else f"{each.source} {_result(outcome.source)}",
            f"{each.destination} {_result(outcome.destination)}",
            _match(outcome) if outcome.operation == MIGRATION else outcome.operation,
            f"{outcome.duration_ms:.1f} ms",
        )
    return table


def _result(side: SideOutcome | None) -> str:
    if side is None:
        return "not ours"
    code = "" if side.code is None else f" ({side.code})"
    return f"[{'green' if side.code == 0 else 'red'}]{side.result}{code}[/]"


def _match(outcome: Outcome) -> str:
    return {True: "[green]equal[/]", False: "[red]DIFFER[/]", None: "unknown"}[outcome.msk_match]


def _fingerprints(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Each direction's key on both sides: green exactly if what one side sent is what the other received."""
    source, destination = outcome.source, outcome.destination
    rows = []
    for name, sender, receiver in (("key →", source, destination), ("key ←", destination, source)):
        sent = sender.fingerprints.sent if sender else None
        received = receiver.fingerprints.received if receiver else None
        known = sent is not None and received is not None
        colour = "yellow" if not known else "green" if sent == received else "red"
        first, second = (f"[{colour}]{text}[/]" if text else "" for text in (sent, received))
        rows.append((name, first, second) if sender is source else (name, second, first))
    match = _match(outcome)
    rows.append(("keys", match if source else "", match if destination else ""))
    return rows


def _checks(side: SideOutcome | None, status: CheckStatus, between: str) -> str:
    names = [check.name.value for check in side.checks if check.status is status] if side else []
    start = ":\n" if between == "\n" else ": "
    return f"{len(names)}{start}{between.join(names)}" if names else "0" if side else ""


def _show_many(out: Console, shown: Sequence[Shown]) -> None:
    """One line each, or where there are too many of them, one for each that failed and what the others took."""
    if len(shown) <= MAX_ROWS:
        out.print(short_table(shown))
        return
    failed = [each for each in shown if not each.outcome.success]
    if failed:
        out.print(short_table(failed[:MAX_ROWS]))
    if len(failed) > MAX_ROWS:
        out.print(f"{len(failed) - MAX_ROWS} more failed; --json lists all.")
    times = sorted(each.outcome.duration_ms for each in shown if each.outcome.success)
    if times:
        out.print(
            f"{len(times)} succeeded, in {times[0]:.1f} to {times[-1]:.1f} ms, median {median(times):.1f} ms; "
            "--json lists all."
        )


def _errors(shown: Sequence[Shown]) -> list[tuple[str, ErrorModel, list[int]]]:
    """Side, error and request ids: what fails in the same way is told once."""
    found: dict[tuple[str, str], tuple[str, ErrorModel, list[int]]] = {}
    for each in shown:
        for side, outcome in (("source", each.outcome.source), ("destination", each.outcome.destination)):
            if outcome is not None and outcome.error is not None:
                error = outcome.error
                _, _, ids = found.setdefault((side, error.model_dump_json()), (side, error, []))
                ids.append(each.outcome.request_id)
    return list(found.values())

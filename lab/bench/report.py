# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the bench found, as a table for people, as JSON, and as the table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lab.bench.rows import QUANTITIES, Row, Target, Verdict

if TYPE_CHECKING:  # loaded when something is shown
    from rich.table import Table

PAGE: Final = "docs/performance.md"
BEGIN: Final = "<!-- measured by ./inv bench --write -->"
END: Final = "<!-- end of measured text -->"
COLUMNS: Final = ("row", "what", "unit", "median", "p10 to p90", "n", "target", "", "note")

_DIGITS: Final = 3


def in_order(measured: Sequence[Row]) -> list[Row]:
    """The rows in the order of the table: by quantity, then by engine."""
    order = {quantity.id: index for index, quantity in enumerate(QUANTITIES)}
    return sorted(measured, key=lambda row: (order[row.quantity.id], row.engine))


def document(measured: Sequence[Row], machine: Mapping[str, str]) -> dict[str, Any]:
    """JSON document, schema 1: the machine, and per row its spread, target and verdict."""
    return {
        "schema": 1,
        "machine": dict(machine),
        "rows": [
            {
                "id": row.id,
                "quantity": row.quantity.id,
                "engine": row.engine or None,
                "unit": row.quantity.unit,
                "median": row.spread.median,
                "p10": row.spread.p10,
                "p90": row.spread.p90,
                "n": row.spread.n,
                "target": _target_document(row.target),
                "verdict": row.verdict.value,
                "note": row.note,
            }
            for row in in_order(measured)
        ],
    }


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table as texts, in the order of COLUMNS."""
    spread = row.spread
    what = f"{row.quantity.title}, {row.engine}" if row.engine else row.quantity.title
    between = f"{number(spread.p10)} to {number(spread.p90)}" if spread.n > 1 else ""
    verdict = "" if row.verdict is Verdict.NO_TARGET else row.verdict.value
    return (
        row.id,
        what,
        row.quantity.unit,
        number(spread.median),
        between,
        str(spread.n),
        target_text(row.target),
        verdict,
        row.note,
    )


def number(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    if value == 0:
        return "0"
    text = f"{float(f'{value:.{_DIGITS}g}'):.10f}".rstrip("0").rstrip(".")
    return text if text not in {"-0", ""} else "0"


def target_text(target: Target | None) -> str:
    """Such as `≤ 20`."""
    return "" if target is None else f"{'≥' if target.at_least else '≤'} {number(target.bound)}"


def table(measured: Sequence[Row]) -> Table:
    """For a terminal; the notes have no room there."""
    from rich.table import Table  # noqa: PLC0415 - as said above

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS[:-1]:
        shown.add_column(column, justify="right" if column in {"median", "p10 to p90", "n"} else "left")
    for row in in_order(measured):
        colour = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.NO_TARGET: ""}[row.verdict]
        texts = list(cells(row))[:-1]
        texts[-1] = f"[{colour}]{texts[-1]}[/]" if colour else ""
        shown.add_row(*texts)
    return shown


def markdown(measured: Sequence[Row], machine: Mapping[str, str]) -> str:
    """The measured part of docs/performance.md: the machine, then the table."""
    lines = [f"{name}: {value}  " for name, value in machine.items()]
    lines += ["", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(_escaped(cell) for cell in cells(row))} |" for row in in_order(measured)]
    return "\n".join(lines)


def replace_measured(page: str, text: str) -> str:
    """The page with its measured part replaced. Raises ValueError if it has no place for one."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no line {BEGIN} with {END} behind it")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _target_document(target: Target | None) -> dict[str, float] | None:
    if target is None:
        return None
    return {"at_least" if target.at_least else "at_most": target.bound}

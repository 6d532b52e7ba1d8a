# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs the rows of case files and compares what is got with what is expected, in type and value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab.conform.files import NOT_RUN, CaseFile, Row, RowError
from lab.conform.sections import SECTIONS, Section


class Missing:
    """Stands where a row or an answer has no value; equal to nothing, not to itself either."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class Difference:
    """A result field of a row that was not as expected; either side may be MISSING."""

    name: str
    expected: object
    got: object


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that failed: by differences, or because it could not be run (`trouble`)."""

    file: Path
    section: str
    id: str
    differences: tuple[Difference, ...] = ()
    trouble: str = ""


@dataclass(slots=True)
class Report:
    """What became of all rows; `not_run` counts those of sections that are never run here."""

    passed: int = 0
    failures: list[Failure] = field(default_factory=list)
    not_run: dict[str, int] = field(default_factory=dict)


def run(files: Sequence[CaseFile], only: Collection[str], sections: Mapping[str, Section] = SECTIONS) -> Report:
    """Run the rows of `only` these sections, of all if it is empty."""
    report = Report()
    for file in files:
        for name, rows in file.sections.items():
            if only and name not in only:
                continue
            if name in NOT_RUN:
                report.not_run[name] = report.not_run.get(name, 0) + len(rows)
                continue
            for row in rows:
                failure = _run_row(file, name, row, sections.get(name))
                if failure is None:
                    report.passed += 1
                else:
                    report.failures.append(failure)
    return report


def _run_row(file: CaseFile, name: str, row: Row, section: Section | None) -> Failure | None:
    identity = str(row.get("id", "row without id"))
    if section is None:
        return Failure(file.path, name, identity, (Difference("expected", _expected(row), MISSING),), "unknown section")
    try:
        got = section.run(row, file.data)
    except KeyError as error:
        return Failure(file.path, name, identity, trouble=f"the row has no field {error}")
    except RowError as error:
        return Failure(file.path, name, identity, trouble=str(error))
    except Exception as error:  # noqa: BLE001 - what is not a typed error is a failed row, and the run goes on
        return Failure(file.path, name, identity, trouble=f"{type(error).__name__}: {error}")
    differences = tuple(_differences(row, got, section))
    return Failure(file.path, name, identity, differences) if differences else None


def _expected(row: Row) -> object:
    return row.get("expected", MISSING)


def _differences(row: Row, got: Mapping[str, object], section: Section) -> Iterator[Difference]:
    compared = [*section.required, *(name for name in section.further if name in row)]
    for name in compared:
        expected, found = row.get(name, MISSING), got.get(name, MISSING)
        fold = name in section.hex
        if not same(_folded(expected) if fold else expected, _folded(found) if fold else found):
            yield Difference(name, expected, found)


def same(expected: object, got: object) -> bool:
    """Equal in type and value, containers element by element: True is not 1, and nothing is not missing."""
    if type(expected) is not type(got) or expected is MISSING:
        return False
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(same(expected[key], got[key]) for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(same, expected, got))
    return expected == got


def _folded(value: object) -> object:
    """The value with the hex in it, also within an object, in lower case."""
    if isinstance(value, dict):
        return {key: _folded(each) for key, each in value.items()}
    return value.lower() if isinstance(value, str) else value

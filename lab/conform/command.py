# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`conform`: run case files, show each failure with its id, what was expected and what was got, and count."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from lab import failures
from lab.conform.files import NOT_RUN, CaseFile, load
from lab.conform.runner import MISSING, Difference, Failure, Report, run
from lab.conform.sections import SECTIONS
from lab.errors import ExitStatus, UsageError
from lab.options import ConformOptions

LONGEST: Final = 400
"""Characters of a value that are shown."""


def conform(options: ConformOptions) -> ExitStatus:
    """Run the files; SUCCESS if no row failed, else NEGATIVE.

    Raises UsageError: LAB-USAGE-VALUE-MISSING without files, LAB-CONFORM-FILE for one that cannot be read,
    LAB-VALUE-UNKNOWN for a section that none of them has.
    """
    if not options.files:
        raise UsageError(failures.USAGE_VALUE_MISSING, "conform needs FILE...")
    files = [load(path) for path in options.files]
    _expect_sections(files, options.sections)
    report = run(files, frozenset(options.sections))
    if options.json:
        sys.stdout.write(json.dumps(_document(report), ensure_ascii=True) + "\n")
        _show(report, sys.stderr)
    else:
        _show(report, sys.stdout)
    return ExitStatus.NEGATIVE if report.failures else ExitStatus.SUCCESS


def _expect_sections(files: Sequence[CaseFile], wanted: Sequence[str]) -> None:
    there = {name for file in files for name in file.sections}
    unknown = [name for name in wanted if name not in there]
    if unknown:
        detail = f"section {', '.join(unknown)}; the files have {', '.join(sorted(there))}"
        raise UsageError(failures.VALUE_UNKNOWN, detail)


def _show(report: Report, stream: TextIO) -> None:
    stream.writelines(_lines(failure) for failure in report.failures)
    unknown = sorted({failure.section for failure in report.failures if failure.section not in SECTIONS})
    if unknown:
        stream.write(f"unknown sections: {', '.join(unknown)}; name the others with --section to leave these out\n")
    stream.writelines(f"{name}: {count} whole-program rows, not run here\n" for name, count in report.not_run.items())
    stream.write(f"{report.passed} passed, {len(report.failures)} failed\n")


def _lines(failure: Failure) -> str:
    trouble = f": {failure.trouble}" if failure.trouble else ""
    head = f"FAILED {failure.id} ({failure.section}){trouble}\n"
    rest = (f"  {each.name}: expected {_text(each.expected)}, got {_text(each.got)}\n" for each in failure.differences)
    return "".join([head, *rest])


def _document(report: Report) -> dict[str, object]:
    return {
        "schema": 1,
        "passed": report.passed,
        "failed": len(report.failures),
        "not_run": {name: report.not_run.get(name, 0) for name in sorted(NOT_RUN)},
        "failures": [_failure_document(failure) for failure in report.failures],
    }


def _failure_document(failure: Failure) -> dict[str, object]:
    return {
        "file": str(failure.file),
        "section": failure.section,
        "id": failure.id,
        "trouble": failure.trouble or None,
        "differences": [_difference_document(each) for each in failure.differences],
    }


def _difference_document(difference: Difference) -> dict[str, object]:
    """Name, and both values as far as there are any."""
    values = {"expected": difference.expected, "got": difference.got}
    return {"name": difference.name, **{name: value for name, value in values.items() if value is not MISSING}}


def _text(value: object) -> str:
    text = repr(value) if value is MISSING else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"

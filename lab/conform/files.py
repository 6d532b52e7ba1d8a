# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A case file of the format `policy-cases 1`, and the data files that its rows name by path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from lab import failures
from lab.errors import UsageError
from lab.names import checkout_path

Row: TypeAlias = Mapping[str, Any]

FORMAT: Final = "policy-cases 1"
NOT_RUN: Final = frozenset({"emulation_scenarios"})
"""Sections of whole-program runs: neither run nor counted."""

_MOST_DIGITS: Final = 4000


class RowError(Exception):
    """A row cannot be run: a data file is missing, or a field is missing or not understood."""


@dataclass(slots=True)
class Data:
    """The data files of one case file, each read once, and the layout of records that patches are given in."""

    root: Path
    layout: Mapping[str, Sequence[int]]
    _read: dict[str, bytes] = field(default_factory=dict)

    def file(self, path: str) -> bytes:
        """The content of a file by its path below the root. Raises RowError."""
        if path not in self._read:
            try:
                self._read[path] = (self.root / path).read_bytes()
            except (OSError, ValueError) as error:
                raise RowError(f"data file {path}: {getattr(error, 'strerror', None) or error}") from error
        return self._read[path]

    def record(self, source: str | Mapping[str, int], patches: Sequence[tuple[str, str]]) -> bytes:
        """A supplemental record: a file or `{"zeros": n}`, with named ranges overwritten by hex. Raises RowError."""
        record = bytearray(self.file(source) if isinstance(source, str) else bytes(source["zeros"]))
        for name, value in patches:
            if name not in self.layout:
                raise RowError(f"there is no {name!r} in meta.report_layout")
            start, end = self.layout[name]
            content = bytes.fromhex(value)
            if len(content) != end - start or end > len(record):
                raise RowError(f"a patch of {len(content)} bytes does not fit {name} of a record of {len(record)}")
            record[start:end] = content
        return bytes(record)


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A case file: its rows by section, and its data."""

    path: Path
    sections: Mapping[str, Sequence[Row]]
    data: Data


def load(path: Path) -> CaseFile:
    """Read a case file. Raises UsageError (LAB-CONFORM-FILE)."""
    try:
        document = json.loads(path.read_bytes(), parse_int=_integer)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(failures.CONFORM_FILE, f"{path}: {why}") from error
    meta = document.get("meta") if isinstance(document, dict) else None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise UsageError(failures.CONFORM_FILE, f"{path}: meta.format is not {FORMAT!r}")
    sections = {name: rows for name, rows in document.items() if name != "meta"}
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in sections.values()):
        raise UsageError(failures.CONFORM_FILE, f"{path}: a section is no list of rows")
    data = Data(_root(path, str(meta.get("root", "."))), meta.get("report_layout", {}))
    return CaseFile(path, sections, data)


def _root(path: Path, root: str) -> Path:
    """The folder of data files: beside the case file, or with the vectors beside the checkout."""
    beside = path.parent / root
    return beside if beside.is_dir() else checkout_path().parent / "shared" / "vectors" / "policy" / root


def _integer(text: str) -> int | float:
    """An integer of a row; what JSON tells from integers and Python does not, or is too large for it, as a float."""
    return float(text) if text == "-0" or len(text) > _MOST_DIGITS else int(text)

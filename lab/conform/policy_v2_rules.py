# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Sections on rules of policy v2 and what they judge: v2_global to v2_tcb_level, init_tdinfo_owner."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from lab.conform.files import Data, Row, RowError
from migtd.policy.errors import JsonError, PolicyError, PolicyErrorName
from migtd.policy.explain import Judge
from migtd.policy.json_reader import Reader
from migtd.policy.v2.blocks import Notes, evaluate_block, evaluate_global
from migtd.policy.v2.decoding import decode
from migtd.policy.v2.entries import read_entries, read_global
from migtd.policy.v2.owner import compare_engines, expect_owner, expect_owner_of_record
from migtd.policy.v2.properties import (
    Property,
    StringList,
    integer_holds,
    platform_status_holds,
    read_property,
    servtd_status_holds,
    string_holds,
)
from migtd.policy.v2.servtd import Measurements, parse_identity, parse_mapping
from migtd.policy.v2.status import PLATFORM_RANKS, SERVTD_RANKS
from migtd.policy.v2.values import Values

OK: Final = "OK"
REFUSED: Final = "REFUSED"

_INVALID: Final = PolicyErrorName.InvalidPolicy
_SCALES: Final = {"platform": PLATFORM_RANKS, "servtd": SERVTD_RANKS}
_MEASUREMENTS: Final = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")


def global_entry(row: Row, data: Data) -> Mapping[str, object]:
    """Evaluate what is in one `global` entry: OK or the error's name."""
    text = data.file(row["policy"]).decode() if "policy" in row else row["policy_text"]

    def run() -> None:
        entry = decode(text, read_global, _INVALID)
        values, relative = _values(row["value"]), _values(row["relative"])
        evaluate_global(entry, values, relative, part="global", number=1, notes=Notes(Judge.SOURCE))

    return _verdict(run)


def block(row: Row, _data: Data) -> Mapping[str, object]:
    """Evaluate a block with its mandatory checks: OK or the error's name."""

    def run() -> None:
        entries = decode(json.dumps(row["block"]), lambda reader: reader.optional(read_entries), _INVALID)
        values, relative = _values(row["value"]), _values(row["relative"])
        notes = Notes(Judge.SOURCE)
        evaluate_block(entries, values, relative, name="policy", skip_global=row["skip_global"], notes=notes)

    return _verdict(run)


def integer_property(row: Row, _data: Data) -> Mapping[str, object]:
    """Apply a property to a number: true, false, an error's name, or REFUSED."""
    return _applied(row, lambda rule: integer_holds(rule, row["value"], row.get("relative")))


def string_property(row: Row, _data: Data) -> Mapping[str, object]:
    """The same with a text."""
    return _applied(row, lambda rule: string_holds(rule, row["value"], row.get("relative")))


def platform_status_property(row: Row, _data: Data) -> Mapping[str, object]:
    """The same with a platform's TCB status."""
    return _applied(row, lambda rule: platform_status_holds(rule, row["value"], row.get("relative")))


def servtd_status_property(row: Row, _data: Data) -> Mapping[str, object]:
    """The same with a MigTD's TCB status."""
    return _applied(row, lambda rule: servtd_status_holds(rule, row["value"]))


def status_rank(row: Row, _data: Data) -> Mapping[str, object]:
    """The ranks of a scale: those of the row where names, order and equality are the same."""
    ranks, wanted = _SCALES.get(row["scale"]), row["rank"]
    if ranks is None:
        raise RowError(f"there is no scale {row['scale']!r}")
    same = ranks.keys() == wanted.keys() and all(
        _order(ranks[one], ranks[other]) == _order(wanted[one], wanted[other])
        for one, other in itertools.combinations(ranks, 2)
    )
    return {"rank": wanted if same else dict(ranks)}


def svn_mapping(row: Row, data: Data) -> Mapping[str, object]:
    """The SVN that measurements stand for, null for none; or the error's name."""
    text = data.file(row["mapping"]).decode()
    return _result(lambda: parse_mapping(text).svn(_measurements(row["measurements"])))


def engine_not_older(row: Row, _data: Data) -> Mapping[str, object]:
    """Compare two MigTDs by a mapping: OK or the error's name."""

    def run() -> None:
        compare_engines(parse_mapping(row["mapping_text"]), _measurements(row["peer"]), _measurements(row["init"]))

    return _verdict(run)


def tcb_level(row: Row, _data: Data) -> Mapping[str, object]:
    """The level of an SVN, null for none; or the error's name."""

    def run() -> object:
        level = parse_identity(row["identity_text"]).level(row["svn"])
        if level is None:
            return None
        return {"isvsvn": level.isvsvn, "tcbDate": level.tcb_date, "tcbStatus": level.tcb_status}

    return _result(run)


def init_tdinfo_owner(row: Row, _data: Data) -> Mapping[str, object]:
    """Check the owner of an initial TDINFO, against two fields or a record: OK or the error's name."""
    tdinfo = bytes.fromhex(row["init_tdinfo_hex"])
    if "peer_supplemental" in row:
        record = _record(row["peer_supplemental"])
        return _verdict(lambda: expect_owner_of_record(tdinfo, record))
    owner, config = (bytes.fromhex(row[f"peer_{name}_hex"]) for name in ("mrowner", "mrownerconfig"))
    return _verdict(lambda: expect_owner(tdinfo, owner, config))


def _verdict(run: Callable[[], None]) -> Mapping[str, object]:
    def done() -> str:
        run()
        return OK

    return _result(done)


def _result(run: Callable[[], object]) -> Mapping[str, object]:
    try:
        return {"expected": run()}
    except PolicyError as error:
        return {"expected": error.name.name}


def _applied(row: Row, holds: Callable[[Property], bool]) -> Mapping[str, object]:
    try:
        rule = _property(row)
    except JsonError:
        return {"expected": REFUSED}
    return _result(lambda: holds(rule))


def _property(row: Row) -> Property:
    match row.get("reference_kind"):
        case None:
            reader = Reader(f'{{"operation":{json.dumps(row["operation"])},"reference":{row["reference"]}}}')
            rule = read_property(reader)
            reader.end()
            return rule
        case "string-list":
            return Property(row["operation"], StringList(tuple(json.loads(row["reference"]))), row["reference"])
        case other:
            raise RowError(f"there is no reference_kind {other!r}")


def _values(given: Mapping[str, Any]) -> Values:
    """The values by their names; the FMSPC is compared in upper case."""
    unknown = given.keys() - set(Values.__slots__)
    if unknown:
        raise RowError(f"there is no value {', '.join(sorted(unknown))}")
    fmspc = given.get("fmspc")
    return Values(**{**given, "fmspc": None if fmspc is None else fmspc.upper()})


def _measurements(given: Mapping[str, str | None]) -> Measurements:
    values = (given.get(name) for name in _MEASUREMENTS)
    return Measurements(*(None if value is None else bytes.fromhex(value) for value in values))


def _record(given: Mapping[str, Any]) -> bytes:
    record = bytearray(given["zeros"])
    for offset, value in given.get("patch", []):
        content = bytes.fromhex(value)
        if offset + len(content) > len(record):
            raise RowError(f"a patch at {offset} does not fit a record of {len(record)} bytes")
        record[offset : offset + len(content)] = content
    return bytes(record)


def _order(one: int, other: int) -> int:
    return (one > other) - (one < other)

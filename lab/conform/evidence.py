# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Sections on evidence: event_log_parse, tdinfo_rtmrs, servtd_info_hash, unix_to_iso."""

from __future__ import annotations

from collections.abc import Mapping

from lab.conform.files import Data, Row
from migtd.errors import PolicyUnsatisfiedError
from migtd.event_log import parse_events
from migtd.policy.dates import unix_to_iso
from migtd.policy.errors import PolicyError
from migtd.policy.tdinfo import tdinfo_rtmrs, verify_servtd_info_hash


def event_log_parse(row: Row, _data: Data) -> Mapping[str, object]:
    """The kinds of events in a log, sorted; null if it does not parse."""
    try:
        events = parse_events(bytes.fromhex(row["log_hex"]))
    except PolicyUnsatisfiedError:
        return {"expected": None}
    return {"expected": sorted(event.name for event in events)}


def rtmrs_of_tdinfo(row: Row, _data: Data) -> Mapping[str, object]:
    """The RTMRs of a TDINFO by name."""
    values = tdinfo_rtmrs(bytes.fromhex(row["tdinfo_hex"]))
    return {"expected": {f"rtmr{index}": value.hex() for index, value in enumerate(values)}}


def servtd_info_hash(row: Row, _data: Data) -> Mapping[str, object]:
    """Whether a TDINFO, less what SERVTD_ATTR ignores, has the hash: OK or the error's name."""
    try:
        verify_servtd_info_hash(bytes.fromhex(row["tdinfo_hex"]), row["servtd_attr"], bytes.fromhex(row["hash"]))
    except PolicyError as error:
        return {"expected": error.name.name}
    return {"expected": "OK"}


def iso_date(row: Row, _data: Data) -> Mapping[str, object]:
    """Seconds since 1970 as text."""
    return {"expected": unix_to_iso(row["input"])}

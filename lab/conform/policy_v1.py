# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Sections of policy v1: v1_verify, v1_parse, v1_property, v1_masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lab.conform.files import Data, Row, RowError
from migtd.event_log import NamedEvent
from migtd.policy.errors import JsonError, PolicyError
from migtd.policy.json_reader import Reader
from migtd.policy.v1 import fields, parse_policy
from migtd.policy.v1.evaluation import Evidence, evaluate_evidence
from migtd.policy.v1.properties import Compared, read_property

OK = "OK"
REFUSED = "REFUSED"


def verify(row: Row, data: Data) -> Mapping[str, object]:
    """Evaluate a policy over two records and their events: OK or the error's name."""
    local = Evidence(data.record(row["local_report"], row.get("local_patch", [])), _events(row, "events_local"))
    peer = Evidence(data.record(row["peer_report"], row.get("peer_patch", [])), _events(row, "events_peer"))
    try:
        evaluate_evidence(_policy(row, data), local, peer, is_source=row["is_src"])
    except PolicyError as error:
        return {"expected": error.name.name}
    return {"expected": OK}


def parse(row: Row, data: Data) -> Mapping[str, object]:
    """Decode a policy: OK with the kinds of its blocks, or REFUSED."""
    try:
        policy = parse_policy(_policy(row, data))
    except PolicyError:
        return {"expected": REFUSED}
    return {"expected": OK, "blocks": [block.kind.value for block in policy.blocks]}


def apply_property(row: Row, _data: Data) -> Mapping[str, object]:
    """Apply one property to the bytes of both sides: true or false, or REFUSED where it does not decode."""
    text = json.dumps({"operation": row["operation"], "reference": row["reference"]})
    values = Compared(bytes.fromhex(row["local_hex"]), bytes.fromhex(row["peer_hex"]), row["is_src"])
    try:
        reader = Reader(text)
        reader.fork().skip_decodable()
        return {"expected": read_property(reader).holds(values)}
    except JsonError:
        return {"expected": REFUSED}


def mask(row: Row, _data: Data) -> Mapping[str, object]:
    """A TDINFO field as it is compared."""
    field = fields.TDINFO.get(row["field"])
    if field is None or field.mask is None:
        raise RowError(f"there is no mask for {row['field']!r}")
    return {"expected": fields.masked(bytes.fromhex(row["input"]), field.mask).hex()}


def _policy(row: Row, data: Data) -> bytes:
    if "policy" in row:
        return data.file(row["policy"])
    if "policy_text" in row:
        text: str = row["policy_text"]
        return text.encode("utf-8", "surrogatepass")
    return bytes.fromhex(row["policy_hex"])


def _events(row: Row, name: str) -> dict[str, NamedEvent]:
    events: Mapping[str, Any] = row.get(name, {})
    return {event: _event(found) for event, found in events.items()}


def _event(found: Mapping[str, str]) -> NamedEvent:
    data = found.get("data")
    return NamedEvent(bytes.fromhex(found["digest"]), None if data is None else bytes.fromhex(data))

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Records, events and policies for tests of policy v1: small changes of evidence that is the same on both sides."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from migtd.event_log import EventName, NamedEvent
from migtd.policy.errors import PolicyError
from migtd.policy.explain import Finding, explain_refusal
from migtd.policy.v1 import evaluate
from migtd.policy.v1.fields import RECORD_SIZE

GUID = "5B1E6A0C-93D4-4F7B-8A52-1C0D7E9F3A64"
SELF_PLATFORM: dict[str, Any] = {"fmspc": "self", "Platform": {"TcbInfo": {}}}
EQUAL_SELF = {"operation": "equal", "reference": "self"}
RECORD = bytes(index * 7 % 251 for index in range(RECORD_SIZE))
EVENTS = {name: NamedEvent(hashlib.sha384(name.name.encode()).digest()) for name in EventName}


def patched(start: int, value: str, record: bytes = RECORD) -> bytes:
    """The record with the hex `value` at `start`."""
    content = bytes.fromhex(value)
    return record[:start] + content + record[start + len(content) :]


def policy(*blocks: object) -> bytes:
    """A policy of these blocks."""
    return json.dumps({"id": GUID, "policy": list(blocks)}).encode()


def qe(**rules: object) -> dict[str, Any]:
    return {"QE": {"QeIdentity": rules}}


def tdx_module(**rules: object) -> dict[str, Any]:
    return {"TDXModule": {"TDXModule_Identity": rules}}


def migtd(tdinfo: object = None, events: object = None) -> dict[str, Any]:
    return {"MigTD": {"TDINFO": tdinfo or {}, "EventLog": events}}


@dataclass
class Evaluated:
    """The verdict, OK or the error's name, the error, and the trace."""

    verdict: str
    error: PolicyError | None
    trace: list[Finding] = field(default_factory=list)

    @property
    def explained(self) -> str:
        """What a person reads of the refusal."""
        assert self.error is not None
        return explain_refusal(self.error, self.trace)


def evaluated(
    document: bytes,
    *,
    is_source: bool = True,
    local: bytes = RECORD,
    peer: bytes = RECORD,
    local_events: dict[EventName, NamedEvent] | None = None,
    peer_events: dict[EventName, NamedEvent] | None = None,
) -> Evaluated:
    """Evaluate a policy; both sides show the same unless it is said otherwise."""
    trace: list[Finding] = []
    try:
        evaluate(
            document,
            is_source=is_source,
            local_record=local,
            local_events=EVENTS if local_events is None else local_events,
            peer_record=peer,
            peer_events=EVENTS if peer_events is None else peer_events,
            trace=trace,
        )
    except PolicyError as error:
        return Evaluated(error.name.name, error, trace)
    return Evaluated("OK", None, trace)

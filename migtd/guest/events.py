# SPDX-License-Identifier: BSD-2-Clause-Patent
"""EVENT messages of the vmcall channel: what the observer of a MigTD tells its emulated host, as JSON objects.

The host shows them and bases nothing on them: results come from ReportStatus, keys from the TDX module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from migtd import failures
from migtd.checks import Check, CheckName, CheckStatus
from migtd.errors import LabFailure, VmmInternalError
from migtd.guest.channel import MAX_DATA
from migtd.observer import Phase

MAX_TEXT: Final = 2000
"""Texts are cut to this many characters before they are sent."""
MAX_EXPLAIN: Final = 8000
"""Bytes of JSON that all lines of an explanation take; lines beyond that are left out."""
_MAX_REQUEST_ID: Final = 2**64 - 1
_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """A request entered a phase."""

    request_id: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """A check was made or left out."""

    request_id: int
    check: Check


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """A request will end in this failure."""

    request_id: int
    id: str
    message: str
    advice: str
    explain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoteEvent:
    """A remark for people."""

    request_id: int
    text: str


GuestEvent: TypeAlias = PhaseEvent | CheckEvent | FailedEvent | NoteEvent


def push_event(event: GuestEvent) -> bytes:
    """Encode one event as compact JSON, at most MAX_DATA bytes."""
    explain: tuple[str, ...] = ()
    match event:
        case PhaseEvent(request_id, phase):
            body: dict[str, Any] = {"event": "phase", "request_id": request_id, "phase": phase.value}
        case CheckEvent(request_id, check):
            explain = check.explain
            body = {
                "event": "check",
                "request_id": request_id,
                "name": check.name.value,
                "status": check.status.value,
                "detail": check.detail[:MAX_TEXT],
            }
        case FailedEvent(request_id, identity, message, advice, explain):
            body = {
                "event": "failed",
                "request_id": request_id,
                "id": identity,
                "message": message[:MAX_TEXT],
                "advice": advice[:MAX_TEXT],
            }
        case NoteEvent(request_id, text):
            body = {"event": "note", "request_id": request_id, "text": text[:MAX_TEXT]}
    if explain:
        room = MAX_DATA - len(_encoded(body)) - len(',"explain":[]')
        body |= _explanation(explain, min(room, MAX_EXPLAIN))
    return _encoded(body)


def pull_event(data: bytes) -> GuestEvent:
    """Decode one event. Raises VmmInternalError (MIGTD-CHANNEL-MALFORMED) on anything else."""
    try:
        body = json.loads(data)
        request_id = body["request_id"]
        # By its exact type: JSON's true is an int to isinstance.
        if type(request_id) is not int or not 0 <= request_id <= _MAX_REQUEST_ID or len(data) > MAX_DATA:
            raise ValueError("request_id is no u64")  # noqa: TRY301 - one error for every malformed event
        match body["event"]:
            case "phase":
                return PhaseEvent(request_id, Phase(body["phase"]))
            case "check":
                name, status = CheckName(body["name"]), CheckStatus(body["status"])
                return CheckEvent(request_id, Check(name, status, str(body["detail"]), _lines(body.get("explain"))))
            case "failed":
                identity, message, advice = (str(body[key]) for key in ("id", "message", "advice"))
                return FailedEvent(request_id, identity, message, advice, _lines(body.get("explain")))
            case "note":
                return NoteEvent(request_id, str(body["text"]))
            case other:
                raise ValueError(f"unknown event {other!r}")  # noqa: TRY301 - as above
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VmmInternalError(failures.CHANNEL_MALFORMED, f"EVENT: {error}") from error


def failed_event(request_id: int, error: LabFailure) -> FailedEvent:
    """The event that tells of an error."""
    return FailedEvent(request_id, error.kind.id, str(error), error.kind.advice, error.explain)


def _explanation(lines: tuple[str, ...], room: int) -> dict[str, list[str]]:
    """The first of the lines, as many as there is room for in bytes; nothing where that is none."""
    fitting = []
    for line in lines:
        text = line[:MAX_TEXT]
        room -= len(_encoded(text)) + 1
        if room < 0:
            break
        fitting.append(text)
    return {"explain": fitting} if fitting else {}


def _encoded(value: object) -> bytes:
    return _encode(value).encode("utf-8", "replace")


def _lines(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError("explain is no list")  # noqa: TRY004 - one error for every malformed event
    return tuple(str(line) for line in value)

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


@dataclass(frozen=True, slots=True)
class NoteEvent:
    """A remark for people."""

    request_id: int
    text: str


GuestEvent: TypeAlias = PhaseEvent | CheckEvent | FailedEvent | NoteEvent


def push_event(event: GuestEvent) -> bytes:
    """Encode one event as compact JSON, at most MAX_DATA bytes."""
    match event:
        case PhaseEvent(request_id, phase):
            body: dict[str, Any] = {"event": "phase", "request_id": request_id, "phase": phase.value}
        case CheckEvent(request_id, check):
            body = {
                "event": "check",
                "request_id": request_id,
                "name": check.name.value,
                "status": check.status.value,
                "detail": check.detail[:MAX_TEXT],
            }
        case FailedEvent(request_id, identity, message, advice):
            body = {
                "event": "failed",
                "request_id": request_id,
                "id": identity,
                "message": message[:MAX_TEXT],
                "advice": advice[:MAX_TEXT],
            }
        case NoteEvent(request_id, text):
            body = {"event": "note", "request_id": request_id, "text": text[:MAX_TEXT]}
    return _encode(body).encode("utf-8", "replace")


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
                check = Check(CheckName(body["name"]), CheckStatus(body["status"]), str(body["detail"]))
                return CheckEvent(request_id, check)
            case "failed":
                return FailedEvent(request_id, str(body["id"]), str(body["message"]), str(body["advice"]))
            case "note":
                return NoteEvent(request_id, str(body["text"]))
            case other:
                raise ValueError(f"unknown event {other!r}")  # noqa: TRY301 - as above
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VmmInternalError(failures.CHANNEL_MALFORMED, f"EVENT: {error}") from error


def failed_event(request_id: int, error: LabFailure) -> FailedEvent:
    """The event that tells of an error."""
    return FailedEvent(request_id, error.kind.id, str(error), error.kind.advice)

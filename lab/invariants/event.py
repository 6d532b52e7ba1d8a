# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Recorded events as the history checker reads them: whatever stands in a line, reading it never raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

HISTORY: Final = "history"
"""In place of an invariant: the record itself is not whole or not readable, so that nothing can be said."""


_TOO_LARGE: Final = 1 << 64
"""No number of a history is: sequence numbers, request ids and codes have 64 bits at most."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that a history breaks: `invariant` is `I1` to `I8` or HISTORY, `seq` the event that shows it.

    `host` is empty and `seq` 0 where it is an outcome document, or what is left of a lab, that shows it.
    """

    invariant: str
    host: str
    request_id: int | None
    seq: int
    text: str

    def __str__(self) -> str:
        where = f"{self.host}, event {self.seq}" if self.host else "outcome"
        request = "" if self.request_id is None else f", request {self.request_id:#x}"
        return f"{self.invariant} ({where}{request}): {self.text}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event with the types that docs/events.schema.json promises; `data` may hold anything."""

    seq: int
    time: float
    host: str
    migtd: str | None
    request_id: int | None
    kind: str
    data: Mapping[str, Any]


def pull_recorded(event: object) -> Recorded | None:
    """The event, or None if it is none."""
    if not isinstance(event, Mapping):
        return None
    seq, time, host = event.get("seq"), event.get("time"), event.get("host")
    migtd, request_id = event.get("migtd"), event.get("request_id")
    kind, data = event.get("kind"), event.get("data")
    right = (
        _is_whole(seq)
        and isinstance(time, float | int)
        and isinstance(host, str)
        and isinstance(migtd, str | None)
        and (request_id is None or _is_whole(request_id))
        and isinstance(kind, str)
        and isinstance(data, Mapping)
    )
    return Recorded(seq, time, host, migtd, request_id, str(kind), data) if right else None  # type: ignore[arg-type] # `right` says so


def text(data: Mapping[str, Any], key: str) -> str:
    """The text of that key; empty if there is none."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def number(data: Mapping[str, Any], key: str) -> int | None:
    """The whole number of that key; None if there is none."""
    value = data.get(key)
    return value if _is_whole(value) else None


def hexadecimal(value: object) -> int:
    """A number as the history writes registers; 0 for anything else, as for a register that is not shown."""
    try:
        return int(value, 16) if isinstance(value, str) else 0
    except ValueError:
        return 0


def registers(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The registers before (`in`) or after (`out`) a call; empty if there are none."""
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def payload(data: Mapping[str, Any]) -> bytes | None:
    """The bytes of a frame; None if they are not readable."""
    try:
        return bytes.fromhex(text(data, "payload"))
    except ValueError:
        return None


def target_of(data: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Binding handle and UUID of the target TD that a migration's first state names; None if it names none."""
    handle, uuid = data.get("binding_handle"), data.get("uuid")
    if not isinstance(handle, str) or not isinstance(uuid, list | tuple):
        return None
    return (hexadecimal(handle), *(hexadecimal(word) for word in uuid))


def _is_whole(value: object) -> bool:
    # By its exact type: JSON's true is an int to isinstance.
    return type(value) is int and 0 <= value < _TOO_LARGE

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The CCEL event log: reading, parsing, replaying and appending (policy.md 3). Sans-IO: bytes and callables in.

Layout of a log: a Spec ID record of 72 bytes, then CC events

    mr_index u32 | type u32 | count u32 = 1 | algorithm u16 = 0x000C | digest 48 | size u32 | data

with mr_index = RTMR index + 1, little-endian. Reading never looks at count and algorithm, nor at the Spec ID record.

Failures while reading are PolicyUnsatisfiedError (MIGTD-EVENT-LOG-MALFORMED): the peer's log is part of its evidence.
Failures while appending are InitializationError (MIGTD-EVENT-LOG-MISSING, MIGTD-EVENT-LOG-FULL): policy.md 3.3.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from migtd import failures
from migtd.errors import InitializationError, PolicyUnsatisfiedError, TdxModuleError
from migtd.guest.interfaces import EventLogArea

SPEC_ID_SIZE: Final = 72
DIGEST_SIZE: Final = 48
RTMR_COUNT: Final = 4

EV_NO_ACTION: Final = 3
EV_SEPARATOR: Final = 4
EV_EVENT_TAG: Final = 6
EV_PLATFORM_CONFIG_FLAGS: Final = 0x0000000A
EV_EFI_PLATFORM_FIRMWARE_BLOB2: Final = 0x8000000A

TAG_POLICY: Final = 1
TAG_SGX_ROOT_CA: Final = 2
TAG_POLICY_ISSUER_CHAIN: Final = 3
TAG_RA_DISABLED: Final = 0x32

RA_DISABLED_TEXT: Final = b"test_disable_ra_and_accept_all"
"""Hashed and logged instead of a policy when nothing is verified (policy.md 3.2)."""
POLICY_V2_VERSION: Final = b"2.0"

_SHA384: Final = 0x000C
_HEADER: Final = struct.Struct("<IIIH48sI")
_SPEC_ID_RECORD: Final = struct.Struct("<II20sI")
_SPEC_ID_EVENT: Final = struct.Struct("<16sIBBBBIHHB7s")
_TAGGED: Final = struct.Struct("<II")
_U32: Final = struct.Struct("<I")

Rtmrs: TypeAlias = tuple[bytes, bytes, bytes, bytes]
"""RTMR 0 to 3, 48 bytes each."""
Extend: TypeAlias = Callable[[int, bytes], None]
"""TDG.MR.RTMR.EXTEND: RTMR index 0..3 and a 48-byte digest; raises TdxModuleError."""


@dataclass(frozen=True, slots=True)
class Event:
    """One CC event: `mr_index` = RTMR index + 1, `digest` 48 bytes, `data` at least one byte."""

    mr_index: int
    type: int
    digest: bytes
    data: bytes


class EventName(enum.Enum):
    """The kinds of events that policies and the peer's check know (policy.md 3.4)."""

    MigTdCore = enum.auto()
    SecureBootKey = enum.auto()
    MigTdCoreSvn = enum.auto()
    MigTdPolicy = enum.auto()
    SgxRootKey = enum.auto()
    MigTdPolicySigner = enum.auto()


@dataclass(frozen=True, slots=True)
class NamedEvent:
    """What a policy compares: the digest, or `data` where the event carries it (MigTdCoreSvn only)."""

    digest: bytes
    data: bytes | None = None


_TAG_NAMES: Final = {
    TAG_POLICY: EventName.MigTdPolicy,
    TAG_SGX_ROOT_CA: EventName.SgxRootKey,
    TAG_POLICY_ISSUER_CHAIN: EventName.MigTdPolicySigner,
}


# --- reading -------------------------------------------------------------------------------------------------------
def read_events(log: bytes) -> list[Event]:
    """The events of a log or log area, in order (policy.md 3.1).

    An event is seen only if at least one byte follows it. Whatever comes after the last event that is seen is ignored.
    Raises PolicyUnsatisfiedError (MIGTD-EVENT-LOG-MALFORMED) on fewer than 72 bytes.
    """
    return list(_each_event(log))


def replay(log: bytes) -> Rtmrs:
    """The RTMR values that the events of `log` explain, from four registers of zeros (policy.md 3.5).

    Raises PolicyUnsatisfiedError (MIGTD-EVENT-LOG-MALFORMED) if the log is unreadable or an event names no RTMR.
    """
    registers = [bytes(DIGEST_SIZE)] * RTMR_COUNT
    for number, event in enumerate(_each_event(log)):
        if not 1 <= event.mr_index <= RTMR_COUNT:
            raise PolicyUnsatisfiedError(failures.EVENT_LOG_MALFORMED, f"event {number} has mr_index {event.mr_index}")
        index = event.mr_index - 1
        registers[index] = hashlib.sha384(registers[index] + event.digest).digest()
    return registers[0], registers[1], registers[2], registers[3]


def parse_events(log: bytes) -> dict[EventName, NamedEvent]:
    """The events that have a name; a later event of a kind replaces an earlier one (policy.md 3.4).

    Raises PolicyUnsatisfiedError (MIGTD-EVENT-LOG-MALFORMED) if the log is unreadable or an event of a known kind is
    too short for it.
    """
    named: dict[EventName, NamedEvent] = {}
    for event in _each_event(log):
        if event.type == EV_EFI_PLATFORM_FIRMWARE_BLOB2:
            end = 1 + event.data[0]
            _expect_data(event, end)
            if event.data[1:end] == b"td_payload\0":
                named[EventName.MigTdCore] = NamedEvent(event.digest)
        elif event.type == EV_PLATFORM_CONFIG_FLAGS:
            named.update(_parse_configuration(event))
        elif event.type == EV_EVENT_TAG:
            _expect_data(event, _U32.size)
            name = _TAG_NAMES.get(_U32.unpack_from(event.data)[0])
            if name is not None:
                named[name] = NamedEvent(event.digest)
    return named


def for_sending(area: EventLogArea) -> bytes:
    """The log as it is shown to a peer: up to the last event, and the one spare byte that makes it visible.

    Raises InitializationError (MIGTD-EVENT-LOG-MISSING) if there is no log in the area.
    """
    log = area.read()
    return log[: _end_of_events(log) + 1]


# --- appending -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TaggedEvent:
    """An EV_EVENT_TAG event before it is measured: the digest is of `hashed`, the log carries `payload`."""

    tag: int
    mr_index: int
    hashed: bytes
    payload: bytes


def policy_v1_event(policy: bytes) -> TaggedEvent:
    """The policy v1 file, whole."""
    return TaggedEvent(TAG_POLICY, 3, policy, policy)


def sgx_root_ca_event(certificate: bytes) -> TaggedEvent:
    """The SGX root CA certificate, DER (policy v1)."""
    return TaggedEvent(TAG_SGX_ROOT_CA, 3, certificate, certificate)


def policy_issuer_chain_event(chain: bytes) -> TaggedEvent:
    """The policy issuer chain, PEM (policy v2)."""
    return TaggedEvent(TAG_POLICY_ISSUER_CHAIN, 2, chain, chain)


def policy_v2_event(policy: bytes) -> TaggedEvent:
    """The policy v2 file: hashed whole, logged by its version."""
    return TaggedEvent(TAG_POLICY, 3, policy, POLICY_V2_VERSION)


def ra_disabled_event() -> TaggedEvent:
    """The marker of a MigTD that verifies nothing."""
    return TaggedEvent(TAG_RA_DISABLED, 3, RA_DISABLED_TEXT, RA_DISABLED_TEXT)


def measure(area: EventLogArea | None, event: TaggedEvent, extend: Extend) -> None:
    """Measure a tagged event: check that it fits, extend its RTMR, append it (policy.md 3.2).

    Raises InitializationError: MIGTD-EVENT-LOG-MISSING, MIGTD-EVENT-LOG-FULL (no RTMR was extended), or
    MIGTD-TDCALL-FAILED (nothing was appended).
    """
    if area is None:
        raise InitializationError(failures.EVENT_LOG_MISSING)
    data = _TAGGED.pack(event.tag, len(event.payload)) + event.payload
    append_event(area, Event(event.mr_index, EV_EVENT_TAG, hashlib.sha384(event.hashed).digest(), data), extend)


def append_event(area: EventLogArea, event: Event, extend: Extend) -> None:
    """Extend RTMR `mr_index - 1` with the event's digest and append the event; errors as in `measure`."""
    log = area.read()
    end = _end_of_events(log)
    encoded = push_event(event)
    # One byte must follow the event, or no reader would see it.
    if end + len(encoded) >= len(log):
        raise InitializationError(
            failures.EVENT_LOG_FULL, f"{len(encoded)} bytes do not fit behind {end} of {len(log)}"
        )
    try:
        extend(event.mr_index - 1, event.digest)
    except TdxModuleError as error:
        raise InitializationError(error.kind, error.detail) from error
    area.write(end, encoded)


def push_event(event: Event) -> bytes:
    """Encode one event: a header of 66 bytes, then the data."""
    return _HEADER.pack(event.mr_index, event.type, 1, _SHA384, event.digest, len(event.data)) + event.data


def push_spec_id() -> bytes:
    """The 72 bytes with which td-shim starts a log: TCG_EfiSpecIDEvent for SHA-384 alone (policy.md 3.1)."""
    spec_id = _SPEC_ID_EVENT.pack(b"Spec ID Event03", 0, 0, 2, 105, 2, 1, _SHA384, DIGEST_SIZE, 7, b"td-shim")
    return _SPEC_ID_RECORD.pack(0, EV_NO_ACTION, bytes(20), len(spec_id)) + spec_id


def separator_event(mr_index: int) -> Event:
    """EV_SEPARATOR: the firmware's last event in an RTMR (policy.md 3.6)."""
    data = bytes(4)
    return Event(mr_index, EV_SEPARATOR, hashlib.sha384(data).digest(), data)


def _each_event(log: bytes) -> Iterator[Event]:
    """The events of a log one by one: a hostile log may have a million."""
    if len(log) < SPEC_ID_SIZE:
        raise PolicyUnsatisfiedError(
            failures.EVENT_LOG_MALFORMED, f"{len(log)} bytes, the Spec ID event alone has {SPEC_ID_SIZE}"
        )
    for event, _ in _scan(log):
        yield event


def _scan(log: bytes) -> Iterator[tuple[Event, int]]:
    """Each event with the offset of its end."""
    offset = SPEC_ID_SIZE
    while len(log) - offset >= _HEADER.size:
        mr_index, kind, _count, _algorithm, digest, size = _HEADER.unpack_from(log, offset)
        start, offset = offset + _HEADER.size, offset + _HEADER.size + size
        if size == 0 or offset >= len(log):
            return
        yield Event(mr_index, kind, digest, log[start:offset]), offset


def _end_of_events(log: bytes) -> int:
    if len(log) < SPEC_ID_SIZE:
        raise InitializationError(failures.EVENT_LOG_MISSING, f"the log area has {len(log)} bytes")
    return max((end for _, end in _scan(log)), default=SPEC_ID_SIZE)


def _parse_configuration(event: Event) -> dict[EventName, NamedEvent]:
    if event.data.startswith(b"secure_authority"):
        return {EventName.SecureBootKey: NamedEvent(event.digest)}
    if event.data.startswith(b"td_payload_svn\0"):
        _expect_data(event, 20)
        (length,) = _U32.unpack_from(event.data, 16)
        _expect_data(event, 20 + length)
        return {EventName.MigTdCoreSvn: NamedEvent(event.digest, event.data[20 : 20 + length])}
    return {}


def _expect_data(event: Event, size: int) -> None:
    if len(event.data) < size:
        raise PolicyUnsatisfiedError(
            failures.EVENT_LOG_MALFORMED, f"event of type {event.type:#x}: {len(event.data)} data bytes, {size} needed"
        )

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The CCEL event log, policy.md 3."""

from __future__ import annotations

import hashlib
import struct

import pytest

from migtd import event_log, failures
from migtd.errors import InitializationError, PolicyUnsatisfiedError, TdxModuleError
from migtd.event_log import Event, EventName, NamedEvent
from migtd.guest.firmware import CcelArea

DIGEST = bytes(range(48))
HEADER = 66


def log_of(*events, tail=b"\0"):
    return event_log.push_spec_id() + b"".join(map(event_log.push_event, events)) + tail


def area_of(size, *events, fill=b"\xff"):
    area = CcelArea(size)
    area.write(0, fill * size)
    area.write(0, log_of(*events, tail=b""))
    return area


def event(data=b"data", *, mr_index=1, kind=6):
    return Event(mr_index, kind, DIGEST, data)


def sha384(data):
    return hashlib.sha384(data).digest()


class Registers:
    def __init__(self):
        self.values = [bytes(48)] * 4

    def extend(self, index, digest):
        self.values[index] = sha384(self.values[index] + digest)


# --- layout --------------------------------------------------------------------------------------------------------
def test_the_spec_id_record_has_its_published_bytes():
    record = event_log.push_spec_id()
    assert len(record) == 72
    assert record[:32] == struct.pack("<II20sI", 0, 3, bytes(20), 40)
    assert record[32:48] == b"Spec ID Event03\0"
    assert record[48:] == bytes.fromhex("00000000 00 02 69 02 01000000 0c00 3000 07") + b"td-shim"


def test_an_event_has_a_header_of_66_bytes():
    encoded = event_log.push_event(Event(3, 6, DIGEST, b"ab"))
    assert encoded == bytes.fromhex("03000000 06000000 01000000 0c00") + DIGEST + bytes.fromhex("02000000") + b"ab"


def test_the_separator_hashes_four_zero_bytes():
    registers = Registers()
    registers.extend(0, event_log.separator_event(1).digest)
    assert registers.values[0].hex().startswith("518923b0f955d08d")


# --- reading -------------------------------------------------------------------------------------------------------
def test_events_are_read_in_order():
    events = [event(b"a"), event(b"bb", mr_index=2), event(b"ccc", mr_index=9, kind=77)]
    assert event_log.read_events(log_of(*events)) == events


def test_the_last_event_is_seen_only_if_a_byte_follows_it():
    events = [event(b"a"), event(b"b")]
    assert event_log.read_events(log_of(*events, tail=b"")) == events[:1]
    assert event_log.read_events(log_of(*events, tail=b"\0")) == events


@pytest.mark.parametrize("length", [0, 1, 71])
def test_a_log_shorter_than_the_spec_id_record_is_unreadable(length):
    for read in (event_log.read_events, event_log.replay, event_log.parse_events):
        with pytest.raises(PolicyUnsatisfiedError) as caught:
            read(bytes(length))
        assert caught.value.kind is failures.EVENT_LOG_MALFORMED


@pytest.mark.parametrize("tail", [b"", b"\0", bytes(65), bytes(1000), b"\xff" * 65, b"\xff" * 1000])
def test_reading_stops_at_unused_bytes(tail):
    assert event_log.read_events(log_of(event(), tail=b"") + tail) == ([event()] if tail else [])


def test_the_contents_of_the_spec_id_record_do_not_matter():
    assert event_log.read_events(b"\xa5" * 72 + log_of(event())[72:]) == [event()]


def test_count_and_algorithm_do_not_matter():
    log = bytearray(log_of(event()))
    log[80:86] = b"\xff" * 6
    assert event_log.read_events(bytes(log)) == [event()]


# --- replay --------------------------------------------------------------------------------------------------------
def test_replay_extends_the_register_of_each_event():
    log = log_of(event(mr_index=1), event(mr_index=4), event(mr_index=1))
    once = sha384(bytes(48) + DIGEST)
    assert event_log.replay(log) == (sha384(once + DIGEST), bytes(48), bytes(48), once)


@pytest.mark.parametrize("mr_index", [0, 5, 0xFFFFFFFF])
def test_an_event_outside_the_four_registers_cannot_be_replayed(mr_index):
    with pytest.raises(PolicyUnsatisfiedError) as caught:
        event_log.replay(log_of(event(), event(mr_index=mr_index)))
    assert caught.value.kind is failures.EVENT_LOG_MALFORMED
    assert "event 1" in caught.value.detail


# --- parsing -------------------------------------------------------------------------------------------------------
PAYLOAD = b"\x0btd_payload\0" + bytes(16)
SVN = b"td_payload_svn\0\0" + struct.pack("<IQ", 8, 5)


@pytest.mark.parametrize(
    ("kind", "data", "name", "carried"),
    [
        (0x8000000A, PAYLOAD, EventName.MigTdCore, None),
        (0x8000000A, b"\x0btd_payload\0", EventName.MigTdCore, None),
        (0x0000000A, b"secure_authority" + bytes(9), EventName.SecureBootKey, None),
        (0x0000000A, SVN + b"rest", EventName.MigTdCoreSvn, struct.pack("<Q", 5)),
        (6, struct.pack("<II", 1, 0), EventName.MigTdPolicy, None),
        (6, struct.pack("<I", 2), EventName.SgxRootKey, None),
        (6, struct.pack("<I", 3), EventName.MigTdPolicySigner, None),
    ],
)
def test_known_events_get_their_names(kind, data, name, carried):
    assert event_log.parse_events(log_of(event(data, kind=kind))) == {name: NamedEvent(DIGEST, carried)}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (0x8000000A, b"\x0atd_payload\0"),
        (0x8000000A, b"\0"),
        (0x0000000A, b"secure_policy_db"),
        (0x0000000A, b"td_hob\0"),
        (0x0000000A, b"x"),
        (6, struct.pack("<I", 0x32)),
        (4, bytes(4)),
        (7, b"x"),
    ],
)
def test_other_events_are_ignored(kind, data):
    assert event_log.parse_events(log_of(event(data, kind=kind))) == {}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (0x8000000A, b"\x0btd_payload"),
        (0x8000000A, b"\xff"),
        (0x0000000A, b"td_payload_svn\0"),
        (0x0000000A, SVN[:19]),
        (0x0000000A, SVN[:-1]),
        (6, b"\1\0\0"),
    ],
)
def test_a_known_event_that_is_too_short_spoils_the_whole_parse(kind, data):
    good = event(struct.pack("<I", 1))
    with pytest.raises(PolicyUnsatisfiedError) as caught:
        event_log.parse_events(log_of(good, event(data, kind=kind)))
    assert caught.value.kind is failures.EVENT_LOG_MALFORMED


def test_a_later_event_of_a_kind_replaces_an_earlier_one():
    first, second = Event(3, 6, bytes(48), struct.pack("<I", 1)), event(struct.pack("<I", 1))
    assert event_log.parse_events(log_of(first, second)) == {EventName.MigTdPolicy: NamedEvent(DIGEST)}


# --- appending -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tagged", "mr_index", "tag", "hashed", "payload"),
    [
        (event_log.policy_v1_event(b"{policy}"), 3, 1, b"{policy}", b"{policy}"),
        (event_log.policy_v2_event(b"{policy}"), 3, 1, b"{policy}", b"2.0"),
        (event_log.sgx_root_ca_event(b"der"), 3, 2, b"der", b"der"),
        (event_log.policy_issuer_chain_event(b"pem"), 2, 3, b"pem", b"pem"),
        (event_log.ra_disabled_event(), 3, 0x32, b"test_disable_ra_and_accept_all", b"test_disable_ra_and_accept_all"),
    ],
)
@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_measured_event_is_logged_and_extended(tagged, mr_index, tag, hashed, payload, fill):
    area, registers = area_of(4096, event_log.separator_event(1), fill=fill), Registers()
    registers.extend(0, event_log.separator_event(1).digest)
    event_log.measure(area, tagged, registers.extend)
    logged = event_log.read_events(area.read())[-1]
    assert logged == Event(mr_index, 6, sha384(hashed), struct.pack("<II", tag, len(payload)) + payload)
    assert event_log.replay(area.read()) == tuple(registers.values)


def test_a_second_event_goes_behind_the_first():
    area, registers = area_of(4096), Registers()
    for text in (b"one", b"two"):
        event_log.measure(area, event_log.policy_v1_event(text), registers.extend)
    assert [each.data[8:] for each in event_log.read_events(area.read())] == [b"one", b"two"]


def test_the_event_that_just_leaves_the_spare_byte_fits():
    policy = b"p" * 10
    size = 72 + HEADER + 8 + len(policy)
    area = area_of(size + 1)
    event_log.measure(area, event_log.policy_v1_event(policy), Registers().extend)
    assert len(event_log.read_events(area.read())) == 1


def test_a_full_log_is_refused_before_any_register_is_extended():
    policy = b"p" * 10
    area, registers = area_of(72 + HEADER + 8 + len(policy)), Registers()
    before = area.read()
    with pytest.raises(InitializationError) as caught:
        event_log.measure(area, event_log.policy_v1_event(policy), registers.extend)
    assert caught.value.kind is failures.EVENT_LOG_FULL
    assert area.read() == before
    assert registers.values == [bytes(48)] * 4


def test_a_refused_extension_leaves_the_log_as_it_was():
    def refuse(_index, _digest):
        raise TdxModuleError(failures.TDCALL_FAILED, "status 1")

    area = area_of(4096)
    before = area.read()
    with pytest.raises(InitializationError) as caught:
        event_log.measure(area, event_log.ra_disabled_event(), refuse)
    assert (caught.value.kind, caught.value.detail) == (failures.TDCALL_FAILED, "status 1")
    assert area.read() == before


@pytest.mark.parametrize("area", [None, CcelArea(71)])
def test_without_a_log_nothing_can_be_measured(area):
    with pytest.raises(InitializationError) as caught:
        event_log.measure(area, event_log.ra_disabled_event(), Registers().extend)
    assert caught.value.kind is failures.EVENT_LOG_MISSING


# --- sending -------------------------------------------------------------------------------------------------------
def test_a_log_for_sending_ends_one_byte_behind_its_last_event():
    area = area_of(4096, event(b"a"), event(b"b"))
    sent = event_log.for_sending(area)
    assert len(sent) == 72 + 2 * (HEADER + 1) + 1
    assert event_log.read_events(sent) == [event(b"a"), event(b"b")]


def test_an_area_without_a_log_cannot_be_sent():
    with pytest.raises(InitializationError) as caught:
        event_log.for_sending(CcelArea(10))
    assert caught.value.kind is failures.EVENT_LOG_MISSING

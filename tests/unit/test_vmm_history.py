# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The history of a host, its log reader, and what they hold."""

import asyncio
import json

import pytest

from migtd.migration.logging import LogLevel
from vmm_stub.testing import ScriptedGuest, migration_request, quiet_vmm, target_td
from vmm_stub.vmm import history as history_module
from vmm_stub.vmm.history import History, HistoryFileError, HistoryKind
from vmm_stub.vmm.tail import Tail

TIME = 1_700_000_000.25


def clock():
    return TIME


def numbers(lines):
    return [json.loads(line)["seq"] for line in lines]


def test_an_event_is_one_json_line_with_everything_in_it():
    history = History("host", clock)
    history.record(HistoryKind.NOTE, {"text": 'a "quoted"\nline \udc80'}, migtd="m", request_id=2**63 + 1)
    (line,) = history.read()
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "seq": 1,
        "time": TIME,
        "host": "host",
        "migtd": "m",
        "request_id": 2**63 + 1,
        "kind": "note",
        "data": {"text": 'a "quoted"\nline \udc80'},
    }


def test_reading_goes_on_behind_a_sequence_number():
    history = History("host", clock)
    for _ in range(5):
        history.record(HistoryKind.NOTE, {})
    assert numbers(history.read(2)) == [3, 4, 5]
    assert numbers(history.read(2, limit=1)) == [3]
    assert history.read(5) == history.read(99) == []


def test_what_memory_no_longer_holds_is_said(monkeypatch):
    monkeypatch.setattr(history_module, "TAIL_LINES", 10)
    history = History("host", clock)
    for _ in range(100):
        history.record(HistoryKind.NOTE, {})
    gap, *rest = [json.loads(line) for line in history.read()]
    assert "no longer held" in gap["data"]["text"]
    assert gap["seq"] + 1 == rest[0]["seq"]
    assert rest[-1]["seq"] == 100


def test_the_file_serves_what_memory_no_longer_holds(monkeypatch, tmp_path):
    monkeypatch.setattr(history_module, "TAIL_LINES", 10)
    history = History("host", clock, tmp_path / "history")
    seen, after = [], 0
    for number in range(1000):
        history.record(HistoryKind.NOTE, {"text": "x" * (number % 50)})
        if number % 100 == 0:
            assert numbers(history.read(number))[-1:] == [number + 1]
    while lines := history.read(after, limit=100):
        seen += numbers(lines)
        after = seen[-1]
    assert seen == list(range(1, 1001))
    history.close()
    assert numbers((tmp_path / "history").read_bytes().splitlines()) == seen


async def test_the_file_has_everything_soon_though_writes_are_buffered(monkeypatch, tmp_path):
    monkeypatch.setattr(history_module, "_FLUSH_AFTER", 0.0)
    history = History("host", clock, tmp_path / "history")
    history.record(HistoryKind.NOTE, {})
    await asyncio.sleep(0.01)
    assert numbers((tmp_path / "history").read_bytes().splitlines()) == [1]
    history.close()


def test_a_file_that_cannot_be_made_has_an_id(tmp_path):
    with pytest.raises(HistoryFileError) as refused:
        History("host", clock, tmp_path / "no" / "folder")
    assert refused.value.kind.id == "VMM-HISTORY-FILE"


def test_a_full_disk_does_not_end_the_host(tmp_path, capsys):
    (tmp_path / "full").symlink_to("/dev/full")
    history = History("host", clock, tmp_path / "full")
    history.record(HistoryKind.NOTE, {})
    history.close()
    assert "VMM-HISTORY-FILE" in history.read()[-1].decode()
    assert "VMM-HISTORY-FILE" in capsys.readouterr().out


async def test_followers_get_what_comes_in_whole_lines():
    history = History("host", clock)
    history.record(HistoryKind.NOTE, {})
    following = history.follow(forever=True)
    assert numbers((await anext(following)).splitlines()) == [1]
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    assert not waiting.done()
    history.record(HistoryKind.NOTE, {})
    assert numbers((await waiting).splitlines()) == [2]
    await following.aclose()


async def test_without_following_the_history_ends_where_it_is():
    history = History("host", clock)
    for _ in range(1000):
        history.record(HistoryKind.NOTE, {})
    lines = b"".join([batch async for batch in history.follow(forever=False)]).splitlines()
    assert numbers(lines) == list(range(1, 1001))


def test_a_tail_is_bounded_in_bytes_and_keeps_the_youngest():
    tail = Tail(max_bytes=1000, max_lines=10_000)
    for number in range(500):
        tail.append(b"%05d\n" % number)
    held = tail.read(0, 1000)
    assert sum(map(len, held)) <= 1000
    assert held[-1] == b"00499\n"
    assert tail.next == 501


async def test_log_entries_appear_once_each_and_in_order():
    vmm = quiet_vmm(log_level=5)
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    guest.log.write(LogLevel.INFO, "before anybody asked")
    (await vmm.start_migration(migration_request(target))).cancel()
    await guest.start_migration()
    for number in range(300):
        guest.log.write(LogLevel.WARN, f"entry {number}", 1)
        if number % 20 == 0:
            guest.guest.tdcall.vp_info()
    guest.channel.close()
    entries = [json.loads(line) for line in vmm.logs.read(0, 10_000)]
    assert entries[0]["request_id"] is None
    assert [entry["text"] for entry in entries] == ["before anybody asked", *(f"entry {n}" for n in range(300))]
    assert {entry["level"] for entry in entries[1:]} == {"warn"}
    recorded = [json.loads(line) for line in vmm.history.read(limit=10_000)]
    assert sum(line["kind"] == "log" for line in recorded) == 301
    await vmm.stop()


async def test_log_pages_with_nonsense_in_them_are_ignored():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    (await vmm.start_migration(migration_request(target))).cancel()
    await guest.start_migration()
    guest.channel.shared_memory[:65536] = b"\xff" * 65536
    guest.guest.tdcall.vp_info()
    assert vmm.logs.read(0, 10) == []
    guest.channel.close()
    await vmm.stop()

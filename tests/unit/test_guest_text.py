# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a guest may say: no terminal, no JSON and no other MigTD suffers from it."""

import json

import pytest

from migtd.errors import MigrationResult, VmmInternalError
from migtd.guest.events import MAX_EXPLAIN, MAX_TEXT
from vmm_stub.testing import MIGTD, ScriptedGuest, migration_request, quiet_vmm, target_td
from vmm_stub.vmm.control.dispatch import dispatch
from vmm_stub.vmm.control.route import Json
from vmm_stub.vmm.guest_text import MAX_LINES, guest_lines, guest_text

HOSTILE = "\x1b]0;owned\x07 \ud800 \udfff line\nline \u2028 \u202e \x9b31m"


@pytest.mark.parametrize("text", ["", "plain", "naïve 漢字 🙂", "x" * MAX_TEXT])
def test_plain_text_stays_as_it_is(text):
    assert guest_text(text) == text


def test_hostile_text_becomes_one_printable_line():
    made = guest_text(HOSTILE * 1000)
    assert len(made) == MAX_TEXT
    made.encode()
    assert made.isprintable()
    assert len(made.splitlines()) == 1


def test_lines_are_few_short_and_printable():
    assert guest_lines(("one", "two\x1b[2J")) == ("one", "two\N{REPLACEMENT CHARACTER}[2J")
    assert guest_lines(("",) * 20_000) == ("",) * MAX_LINES
    assert sum(map(len, guest_lines(("x" * 1_000,) * 100))) == MAX_EXPLAIN


async def served(vmm, path):
    answer = await dispatch(vmm, "GET", path, b"")
    assert isinstance(answer, Json)
    assert answer.status == 200
    return answer.body.model_dump_json()


async def test_hostile_events_leave_outcome_and_history_readable():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    (await vmm.start_migration(migration_request(target))).cancel()
    await guest.start_migration()
    for body in (
        {"event": "failed", "id": HOSTILE, "message": HOSTILE, "advice": HOSTILE, "explain": [HOSTILE] * 9},
        {"event": "note", "text": HOSTILE * 100},
        {"event": "check", "name": "versions", "status": "failed", "detail": HOSTILE, "explain": [HOSTILE]},
    ):
        guest.channel.event(json.dumps({"request_id": 1, **body}).encode())
    await guest.report(1, MigrationResult.NetworkError)
    text = await served(vmm, "/v1/migrations")
    assert json.loads(text)[0]["outcome"]["error"]["id"].endswith("31m")
    text += b"".join(vmm.history.read(limit=1000)).decode()
    assert not {character for character in text if not character.isprintable()} - {"\n"}
    assert "\\u001b" not in text
    assert "\\ud800" not in text
    await vmm.stop()


async def test_a_hostile_last_word_leaves_health_readable():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    guest.guest.vmcall.report_fatal_error(1, HOSTILE.encode("utf-8", "replace").decode())
    text = await served(vmm, "/v1/health")
    assert "VMM-MIGTD-FATAL" in text
    assert "\\u001b" not in text
    guest.channel.close()
    await vmm.stop()


@pytest.mark.parametrize("request_id", [True, -1, 2**64, 1.0, "1", None, 10**400])
async def test_an_event_without_a_real_request_id_is_refused(request_id):
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    recorded = vmm.history.read(limit=1000)
    body = {"event": "note", "request_id": request_id, "text": "x"}
    with pytest.raises(VmmInternalError):
        guest.channel.event(json.dumps(body).encode())
    assert vmm.history.read(limit=1000) == recorded


async def test_data_that_answers_nothing_is_only_counted():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    (await vmm.start_migration(migration_request(target))).cancel()
    await guest.start_migration()
    await guest.services.report_status(1, MigrationResult.Success, b"a key, who knows")
    results = [json.loads(line) for line in vmm.history.read(limit=1000) if b'"kind":"result"' in line]
    assert [sorted(each["data"]) for each in results] == [
        ["code", "data", "operation", "result"],
        ["code", "data", "operation", "result"],
        ["code", "length", "operation", "result"],
    ]
    assert results[-1]["data"]["length"] == 16
    assert vmm.migration(MIGTD, 1).model().outcome is not None
    await vmm.stop()

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The history checker finds nothing in what a real pair recorded, and finds every invariant that is broken in it."""

import asyncio
import copy
import json
from functools import cache

import pytest

from lab.invariants import checker
from lab.invariants.checker import check_history
from lab.invariants.records import KEY_RECORD
from lab.testing_histories import live_pair, of
from migtd.guest.ghci import REPORT_REQUEST_BIT

N = 7


@cache
def recorded():
    """A good migration, one that both sides refuse, and one that is cancelled; history and outcomes as JSON."""

    async def record():
        async with live_pair() as pair:
            assert (await pair.migrate(N))["success"]
            assert not (await pair.migrate(N + 1, servtd_attr=1))["success"]
            sides = await pair.begin(N + 2)
            sides[0].cancel()
            await pair.ended(sides)
            assert (await pair.migrate(N + 2))["success"]
            return json.dumps([await pair.history(), pair.outcomes])

    return asyncio.run(record())


@pytest.fixture
def history():
    """The events, a test's own."""
    return json.loads(recorded())[0]


@pytest.fixture
def outcomes():
    """The outcome documents, a test's own."""
    return json.loads(recorded())[1]


def found(events, outcomes=(), **more):
    return {violation.invariant for violation in check_history(events, outcomes, **more)}


def renumbered(events):
    """With sequence numbers without a gap, as a host gives them."""
    last: dict[str, int] = {}
    for event in events:
        event["seq"] = last[event["host"]] = last.get(event["host"], 0) + 1
    return events


def without(events, indexes):
    return renumbered([event for index, event in enumerate(events) if index not in set(indexes)])


def moved(events, index, before):
    """With one event earlier than it was."""
    return renumbered([*events[:before], events[index], *events[before:index], *events[index + 1 :]])


def index_of(events, kind, host="source", request_id=N, **data):
    """The first event of that kind and data."""
    return next(
        i for i in of(events, kind, **data) if (events[i]["host"], events[i]["request_id"]) == (host, request_id)
    )


def key_writes(events, host="source"):
    return [
        i
        for i in of(events, "call", leaf="TDG.SERVTD.WR")
        if events[i]["host"] == host and events[i]["data"]["in"]["r8"] == "redacted"
    ]


def test_history_and_outcomes_of_a_real_pair_are_in_order(history, outcomes):
    assert check_history(history, outcomes) == []
    assert len(key_writes(history)) == 8, "two migrations of the source wrote a key"


def test_order_in_which_hosts_are_merged_makes_no_difference(history, outcomes):
    one_after_the_other = sorted(history, key=lambda event: (event["host"], event["seq"]))
    assert check_history(one_after_the_other, outcomes) == []


# --- I1 ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["certificate", "quote-peer", "policy", "exchange-information", "servtd-attr"])
@pytest.mark.parametrize("host", ["source", "destination"])
def test_key_that_is_sent_or_written_without_a_check_is_found(history, name, host):
    assert found(without(history, [index_of(history, "check", host, name=name)])) == {"I1"}


def test_key_that_is_sent_although_a_check_failed_is_found(history):
    history[index_of(history, "check", name="certificate")]["data"]["status"] = "failed"
    assert "I1" in found(history)


def test_check_that_is_skipped_without_a_reason_is_found(history):
    history[index_of(history, "check", name="policy")]["data"]["detail"] = ""
    assert found(history) == {"I1"}


def test_record_with_the_key_is_seen_in_the_frames_whatever_the_phases_say(history):
    # The MigTD that sends its key without telling a phase: the frame alone shows it.
    leave = [
        i
        for i in of(history, "phase")
        if history[i]["request_id"] == N and history[i]["data"]["phase"] in {"exchange", "commit", "done"}
    ]
    policy = [i for i in of(history, "check", name="policy") if history[i]["request_id"] == N]
    texts = [str(each) for each in check_history(without(history, [*leave, *policy]))]
    assert any("the key was sent before policy" in each for each in texts)


# --- I2 ------------------------------------------------------------------------------------------------------------
def test_key_that_is_written_twice_is_found(history):
    first = key_writes(history)[0]
    again = copy.deepcopy(history[first])
    assert found(renumbered([*history[: first + 1], again, *history[first + 1 :]])) == {"I2"}


def test_key_that_is_written_for_another_target_td_is_found(history):
    history[key_writes(history)[0]]["data"]["in"]["r10"] = "0x1"
    assert found(history) == {"I2"}


def test_host_that_says_a_key_was_written_which_was_not_is_found(history):
    assert "I2" in found(without(history, [key_writes(history)[3]]))


def test_key_that_is_written_after_the_report_is_found(history):
    last, report = key_writes(history)[3], index_of(history, "result")
    assert "I2" in found(moved(history, report, last))


# --- I3 ------------------------------------------------------------------------------------------------------------
def test_request_that_is_never_reported_is_found(history):
    assert found(without(history, [index_of(history, "result", request_id=N | REPORT_REQUEST_BIT)])) == {"I3"}


def test_migration_whose_end_nobody_reported_is_found(history):
    assert found(without(history, [index_of(history, "result")])) == {"I3"}


def test_second_report_is_found(history):
    report = index_of(history, "result")
    again = copy.deepcopy(history[report])
    assert found(renumbered([*history[: report + 1], again, *history[report + 1 :]])) == {"I3"}


def test_report_that_the_host_refused_is_found(history):
    report = index_of(history, "result")
    note = {**copy.deepcopy(history[report]), "kind": "note", "data": {"id": "VMM-REPORT-REFUSED", "text": "x"}}
    assert found(renumbered([*history[: report + 1], note, *history[report + 1 :]])) == {"I3"}


def test_result_that_is_not_the_reported_one_is_found(history):
    history[index_of(history, "state", state="ended")]["data"].update(result="NetworkError", code=5)
    assert "I3" in found(history)


def test_migration_that_never_ends_is_found_unless_it_is_under_way_or_its_host_was_ended(history):
    # Cut behind the first frame of the first migration: nothing of it has ended.
    cut = history[: index_of(history, "frame", "destination") + 1]
    assert found(cut) == {"I3"}
    assert found(cut, under_way={("source", "migtd", N), ("destination", "migtd", N)}) == set()
    assert found(cut, alive=False) == set()


def test_requests_of_a_lost_migtd_need_no_report(history):
    begun = index_of(history, "phase", phase="handshake")
    mine = [i for i, event in enumerate(history) if event["host"] == "source" and i > begun]
    lost = {**copy.deepcopy(history[begun]), "kind": "state", "request_id": None, "data": {"state": "lost"}}
    ended = {
        **copy.deepcopy(history[begun]),
        "kind": "state",
        "data": {"state": "ended", "result": "Unknown", "code": None, "key_written": False},
    }
    alone = [event for i, event in enumerate(history) if event["host"] == "source" and i not in mine]
    assert found(renumbered([*alone, lost, ended])) == set()


# --- I4 ------------------------------------------------------------------------------------------------------------
def failing(history, result, code, *, key_sent):
    """The first migration with a source that failed: with its key sent and nothing written, or long before."""
    for i in (index_of(history, "result"), index_of(history, "state", state="ended")):
        history[i]["data"].update(result=result, code=code)
    history[i]["data"]["key_written"] = False
    mine = [i for i, event in enumerate(history) if (event["host"], event["request_id"]) == ("source", N)]
    leave = [] if key_sent else [i for i in mine if history[i]["data"].get("phase") in {"exchange", "commit", "done"}]
    if not key_sent:
        leave += [i for i in mine if KEY_HEADER in history[i]["data"].get("payload", "")]
    return without(history, [*leave, *key_writes(history)[:4]])


KEY_HEADER = f"170303{KEY_RECORD:04x}"


def test_failure_opposite_a_success_is_found_unless_the_link_was_lost_after_the_key_was_sent(history):
    network = found(failing(copy.deepcopy(history), "NetworkError", 5, key_sent=True))
    policy = found(failing(copy.deepcopy(history), "PolicyUnsatisfiedError", 8, key_sent=True))
    assert (network, policy) == (set(), {"I4"})


def test_success_opposite_a_side_that_never_sent_its_key_is_found(history):
    # The peer received what was not sent, too.
    assert found(failing(history, "NetworkError", 5, key_sent=False)) == {"I4", "I5"}


def test_success_without_a_key_is_found(history):
    leave = key_writes(history)[:4]
    history[index_of(history, "state", state="ended")]["data"]["key_written"] = False
    assert found(without(history, leave)) == {"I4"}


def test_refusal_with_a_key_is_found(history):
    refused = index_of(history, "check", request_id=N + 1, status="failed")
    moved_here = {**copy.deepcopy(history[refused]), "request_id": N}
    commit = key_writes(history)[3] + 1
    assert "I4" in found(renumbered([*history[:commit], moved_here, *history[commit:]]))


# --- I5, I6 --------------------------------------------------------------------------------------------------------
def test_bytes_that_differ_from_those_that_were_sent_are_found(history):
    data = history[index_of(history, "frame", "destination", direction="received")]["data"]
    data["payload"] = data["payload"][:-1] + ("0" if data["payload"][-1] != "0" else "1")
    assert found(history) == {"I5"}


def test_frames_that_are_cut_and_joined_make_no_difference(history):
    cut = []
    for event in history:
        payload = event["data"].get("payload", "")
        parts = [payload[:2], payload[2:]] if event["host"] == "source" else [payload]
        data = [{**event["data"], "payload": part} for part in parts] if payload else [event["data"]]
        cut += [{**event, "data": each} for each in data]
    assert len(cut) > len(history)
    assert check_history(renumbered(cut)) == []


def test_retry_that_begins_before_the_end_of_the_first_is_found(history):
    begin = index_of(history, "state", state="preparing")
    again = copy.deepcopy(history[begin])
    assert "I6" in found(renumbered([*history[: begin + 1], again, *history[begin + 1 :]]))


def test_retry_that_goes_on_with_the_session_of_before_is_found(history):
    # What the source sends first in its retry is the protected rest of the first session.
    retry = index_of(history, "frame", request_id=N + 2, direction="sent")
    history[retry]["data"]["payload"] = "1703030020" + "00" * 32
    assert "I6" in found(history)


def test_check_of_a_request_that_is_not_being_served_is_found(history):
    check = copy.deepcopy(history[index_of(history, "check", name="policy")])
    assert found(renumbered([*history, check])) == {"I6"}


# --- the record itself ---------------------------------------------------------------------------------------------
def test_missing_events_are_told_and_what_began_after_them_is_still_checked(history):
    host = [event for event in history if event["host"] == "source"]
    middle = index_of(host, "phase", phase="exchange")
    assert found(host[middle:]) == {"history"}
    tail = host[middle:]
    del tail[index_of(tail, "result", request_id=N + 1)]
    for offset, event in enumerate(tail):
        event["seq"] = host[middle]["seq"] + offset
    assert found(tail) == {"history", "I3"}


def test_host_that_was_started_again_begins_a_history_of_its_own(history):
    first = [event for event in history if event["host"] == "source"]
    cut = first[: index_of(first, "phase", phase="handshake")]
    assert found([*cut, *first]) == set()


def test_line_that_is_no_event_is_told():
    assert found([{"seq": True}, 1, None, "x", []]) == {"history"}


def test_violations_are_bounded(monkeypatch):
    monkeypatch.setattr(checker, "MOST", 3)
    assert len(check_history([None] * 10)) == 3


def test_violation_says_where_to_look(history):
    policy = index_of(history, "check", name="policy")
    first, *_ = check_history(without(history, [policy]))
    assert str(first).startswith("I1 (source, event ")
    assert str(first).endswith("request 0x7): the key was sent before policy")


# --- outcomes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "invariant"),
    [
        ({"success": False}, "I4"),
        ({"msk_match": None}, "I4"),
        ({"source": {"key_written": False}}, "I4"),
        ({"source": {"result": "NetworkError", "code": 5}}, "I3"),
        ({"destination": {"result": "Unknown"}}, "I4"),
        ({"destination": {"checks": [{"name": "policy", "status": "failed", "detail": "x"}]}}, "I4"),
    ],
)
def test_outcome_that_contradicts_itself_or_the_history_is_found(history, outcomes, change, invariant):
    for key, value in change.items():
        if isinstance(value, dict):
            outcomes[0][key].update(value)
        else:
            outcomes[0][key] = value
    assert invariant in found(history, outcomes)


def test_host_that_the_lab_lost_may_know_more_than_the_outcome(history, outcomes):
    outcomes[0]["source"].update(result="Unknown", code=None, key_written=False)
    outcomes[0].update(success=False, msk_match=None)
    assert check_history(history, outcomes) == []

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The history checker takes whatever stands in a history or an outcome."""

import asyncio
import copy
import json
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.invariants.checker import check_history
from lab.testing_histories import live_pair
from migtd.guest.abi import Field

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
KINDS = ["state", "phase", "check", "call", "frame", "result", "note", "fault", "log", "interrupt", "x"]
WORDS = [
    *("preparing", "running", "ended", "lost", "starting", "accepted", "exchange", "done", "policy", "failed"),
    *("TDG.SERVTD.WR", "TDG.VP.VMCALL<Service.MigTD.Send>", hex(Field.MIG_DEC_KEY), "1703030039", "Success", "Unknown"),
    *("source", "destination", "sent", "received", "StartMigration"),
]
KEYS = [
    *("state", "phase", "name", "status", "leaf", "in", "out", "direction", "payload", "result", "code", "operation"),
    *("rdx", "rcx", "r10", "rax", "role", "uuid", "binding_handle", "key_written", "id", "text"),
]
VALUES = st.sampled_from(WORDS) | SCALARS
DATA = st.dictionaries(
    st.sampled_from(KEYS),
    VALUES | st.lists(VALUES, max_size=4) | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    max_size=6,
)
EVENT = st.fixed_dictionaries(
    {
        "seq": st.integers(0, 4),
        "time": st.floats() | st.integers(),
        "host": st.sampled_from(["a", "b"]),
        "migtd": st.sampled_from(["m", None]),
        "request_id": st.none() | st.sampled_from([0, 1, 1 << 62, 1 << 63]),
        "kind": st.sampled_from(KINDS),
        "data": DATA,
    }
)


@cache
def recorded():
    async def record():
        async with live_pair() as pair:
            await pair.migrate()
            return json.dumps([await pair.history(), pair.outcomes])

    return asyncio.run(record())


@settings(deadline=None)
@given(st.lists(JSON, max_size=20), st.lists(JSON, max_size=4))
def test_anything_gives_violations_and_raises_nothing(events, outcomes):
    assert all(map(str, check_history(events, outcomes)))


@settings(deadline=None)
@given(st.lists(EVENT, max_size=40), st.lists(DATA, max_size=2))
def test_events_in_any_order_raise_nothing(events, outcomes):
    documents = [{"source": each, "destination": each, "request_id": 1, "success": True} for each in outcomes]
    for number, event in enumerate(events, 1):
        event["seq"] = event["seq"] or number
    check_history(events, documents)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_real_history_with_anything_in_one_place_raises_nothing(data):
    events, outcomes = json.loads(recorded())
    for _ in range(data.draw(st.integers(1, 4))):
        event = copy.deepcopy(data.draw(st.sampled_from(events)))
        place = data.draw(st.sampled_from([*event, *(("data", key) for key in event["data"])]))
        target = event if isinstance(place, str) else event["data"]
        target[place if isinstance(place, str) else place[1]] = data.draw(JSON)
        events.insert(data.draw(st.integers(0, len(events))), event)
    side = data.draw(st.sampled_from(["source", "destination"]))
    outcomes[0][side][data.draw(st.sampled_from(sorted(outcomes[0][side])))] = data.draw(JSON)
    check_history(events, outcomes)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policy v1 over any input: a verdict or the typed error; and what holds of every property."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.policies import default_v1
from migtd.event_log import EventName, NamedEvent
from migtd.policy.errors import PolicyError
from migtd.policy.explain import Finding, explain_refusal, summarize
from migtd.policy.json_reader import Reader
from migtd.policy.v1 import evaluate, parse_policy
from migtd.policy.v1.fields import EVENTS, PLATFORM, QE, RECORD_SIZE, TDINFO, TDX_MODULE
from migtd.policy.v1.properties import Compared, Operation, read_property

DEFAULT = default_v1()
OPERATIONS = st.sampled_from([operation.value for operation in Operation])
RANGES = st.builds("{}..{}".format, st.integers(0, 300) | st.just(""), st.integers(0, 300) | st.just(""))
REFERENCES = (
    st.integers(0, 2**64 - 1)
    | st.integers(0, 3)
    | st.lists(st.integers(0, 255), max_size=20)
    | st.just("self")
    | RANGES
    | st.binary(max_size=8).map(lambda value: value.hex().upper())
    | st.text(max_size=5)
)
PROPERTIES = st.fixed_dictionaries({"operation": OPERATIONS, "reference": REFERENCES})
BYTES = st.binary(max_size=10) | st.sampled_from([b"", b"\x00", b"\x01", b"\xff" * 8, bytes(48)])


def rules(*tables):
    names = st.sampled_from([name for table in tables for name in table]) | st.sampled_from(["X", "MRENCLAVE"])
    return st.dictionaries(names, PROPERTIES, max_size=3)


BLOCKS = st.one_of(
    st.builds(
        lambda fmspc, body: {"fmspc": fmspc, "Platform": {"TcbInfo": body}},
        st.sampled_from(["self", "000000000000", "010101010101"]),
        rules(PLATFORM),
    ),
    rules(QE).map(lambda body: {"QE": {"QeIdentity": body}}),
    rules(TDX_MODULE).map(lambda body: {"TDXModule": {"TDXModule_Identity": body}}),
    st.builds(lambda tdinfo, events: {"MigTD": {"TDINFO": tdinfo, "EventLog": events}}, rules(TDINFO), rules(EVENTS)),
)
POLICIES = st.lists(BLOCKS, max_size=6).map(
    lambda blocks: json.dumps({"id": "00000000-0000-0000-0000-000000000000", "policy": blocks}).encode()
)
RECORDS = st.sampled_from([bytes(RECORD_SIZE), b"\x01" * RECORD_SIZE]) | st.binary(max_size=3)
NAMED = st.dictionaries(
    st.sampled_from(EventName),
    st.builds(NamedEvent, st.sampled_from([bytes(48), b"\x01" * 48]), st.none() | st.binary(max_size=9)),
)


@given(POLICIES | st.binary(max_size=40), st.booleans(), RECORDS, NAMED, RECORDS, NAMED)
def test_any_evaluation_ends_in_acceptance_or_the_typed_error_and_can_be_explained(
    policy, is_source, local, local_events, peer, peer_events
):
    trace: list[Finding] = []
    error = refusal_of(
        evaluate,
        policy,
        is_source=is_source,
        local_record=local,
        local_events=local_events,
        peer_record=peer,
        peer_events=peer_events,
        trace=trace,
    )
    if error is not None:
        assert explain_refusal(error, trace).startswith(error.kind.summary)
    json.dumps([each.document() for each in trace])
    assert all("\n" not in summarize(each) for each in trace)


@given(st.data())
def test_a_policy_with_any_bytes_changed_reads_or_is_refused(data):
    start = data.draw(st.integers(0, len(DEFAULT)))
    width = data.draw(st.integers(0, 4))
    changed = DEFAULT[:start] + data.draw(st.binary(max_size=4)) + DEFAULT[start + width :]
    error = refusal_of(parse_policy, changed)
    assert error is None or error.name.name == "InvalidPolicy"


def refusal_of(call, *arguments, **options):
    """The typed error, or None; any other is the test's failure."""
    try:
        call(*arguments, **options)
    except PolicyError as error:
        return error
    return None


def read(rule):
    return read_property(Reader(json.dumps(rule)))


@given(PROPERTIES, BYTES, BYTES, st.booleans())
def test_a_property_is_true_or_false_of_any_bytes(rule, local, peer, is_source):
    assert read(rule).holds(Compared(local, peer, is_source)) in (True, False)


@given(OPERATIONS, BYTES, BYTES)
def test_both_sides_judge_self_alike(operation, source, destination):
    rule = read({"operation": operation, "reference": "self"})
    at_source = rule.holds(Compared(source, destination, is_source=True))
    at_destination = rule.holds(Compared(destination, source, is_source=False))
    assert at_source == at_destination


@given(OPERATIONS, st.integers(0, 2**64 - 1) | RANGES | st.lists(st.integers(0, 255), max_size=9), BYTES, BYTES)
def test_only_self_looks_at_the_own_value_and_the_role(operation, reference, peer, local):
    rule = read({"operation": operation, "reference": reference})
    verdicts = {rule.holds(Compared(own, peer, is_source)) for own in (local, peer) for is_source in (True, False)}
    assert len(verdicts) == 1


@given(BYTES)
def test_every_side_meets_its_own_value(value):
    for operation in ("equal", "array-equal", "array-greater-or-equal"):
        assert read({"operation": operation, "reference": "self"}).holds(Compared(value, value, is_source=True))


@pytest.mark.parametrize("form", [lambda rule: rule, lambda rule: [rule["operation"], rule["reference"]]])
@given(rule=PROPERTIES, local=BYTES, peer=BYTES)
def test_the_array_form_means_the_same(form, rule, local, peer):
    values = Compared(local, peer, is_source=True)
    assert read(form(rule)).holds(values) == read(rule).holds(values)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a person reads when a policy refuses."""

from __future__ import annotations

import json

import pytest

from migtd.policy import failures
from migtd.policy.errors import PolicyErrorName
from migtd.policy.explain import describe, summarize, summarize_all
from tests.unit.policy_v1_evidence import (
    EQUAL_SELF,
    RECORD,
    SELF_PLATFORM,
    evaluated,
    migtd,
    patched,
    policy,
    qe,
    tdx_module,
)


def test_a_refusal_shows_rule_wanted_found_field_and_side():
    found = evaluated(
        policy(SELF_PLATFORM, qe(ISVSVN={"operation": "greater-or-equal", "reference": 9})),
        is_source=False,
        peer=patched(732, "0700"),
    )
    assert found.explained.splitlines() == [
        "the peer's quoting enclave does not meet the policy: block 2, QE.QeIdentity ISVSVN",
        "block 2, QE.QeIdentity ISVSVN: not met, judged by the destination",
        "  wanted: greater-or-equal 9",
        f"  local:  {RECORD[732:734].hex()} (record bytes 732 to 734)",
        "  peer:   0700",
    ]


def test_each_alternative_that_failed_is_shown_with_the_rule_that_it_failed_by():
    found = evaluated(
        policy(
            SELF_PLATFORM,
            tdx_module(TDXModuleMajorVersion={"operation": "equal", "reference": 1}, TDXModuleSVN=EQUAL_SELF),
            tdx_module(TDXModuleMajorVersion={"operation": "equal", "reference": 2}),
        ),
        peer=patched(624, "0300"),
    )
    shown = found.explained
    assert "block 2, TDXModule.TDXModule_Identity TDXModuleMajorVersion: not met" in shown
    assert "block 3, TDXModule.TDXModule_Identity TDXModuleMajorVersion: not met" in shown
    assert "TDXModuleSVN" not in shown


def test_masks_and_missing_events_are_told():
    found = evaluated(policy(SELF_PLATFORM, migtd({"XFAM": EQUAL_SELF})), peer=patched(128, "00" * 8))
    assert "record bytes 128 to 136 & 0318000000000000" in found.explained
    found = evaluated(policy(SELF_PLATFORM, migtd({}, {"Digest.MigTdPolicy": EQUAL_SELF})), peer_events={})
    shown = found.explained
    assert "  peer:   nothing" in shown
    assert "(event's digest)" in shown


def test_platforms_are_named():
    found = evaluated(policy(SELF_PLATFORM), peer=patched(584, "30806f000000"))
    shown = found.explained
    assert "peer's 30806F000000" in shown
    assert '  wanted: is "self"' in shown
    listed = [{"fmspc": f"{index:012X}", "Platform": {"TcbInfo": {}}} for index in range(30)]
    found = evaluated(policy(*listed), peer=patched(584, "30806f000000"))
    assert "and 22 more" in found.explained


def test_an_unknown_name_is_told():
    found = evaluated(policy(SELF_PLATFORM, qe(MRENCLAVE=EQUAL_SELF)))
    shown = found.explained
    assert "there is no MRENCLAVE" in shown
    assert "unknown name" in shown


def test_a_refusal_fits_one_screen_and_one_line_each_whatever_the_policy_holds():
    many = [tdx_module(MRSEAM={"operation": "equal", "reference": "0" * 1_000}) for _ in range(500)]
    found = evaluated(policy(SELF_PLATFORM, *many))
    lines = found.explained.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 220
    assert "495 more" in lines[-1]


def test_nothing_in_a_policy_steers_the_terminal():
    name, reference = "A\x1b[2J\n\x9b", "\x9b31m\x85"
    found = evaluated(policy(SELF_PLATFORM, qe(**{name: {"operation": "equal", "reference": reference}})))
    raw = policy(SELF_PLATFORM, qe(ISVSVN={"operation": "equal", "reference": 1})).decode()
    found_raw = evaluated(raw.replace('"reference": 1', f'"reference": "{reference}"').encode())
    for each in (found, found_raw):
        shown = [each.explained, *(summarize(finding) for finding in each.trace)]
        assert all(character.isprintable() or character == "\n" for text in shown for character in text)
        assert all("\n" not in summarize(finding) for finding in each.trace)


def test_a_summary_is_a_line_with_the_values_of_what_is_not_met():
    found = evaluated(policy(SELF_PLATFORM, qe(ISVPRODID=EQUAL_SELF, ISVSVN=EQUAL_SELF)), peer=patched(732, "0000"))
    own = RECORD[732:734].hex()
    assert [summarize(each) for each in found.trace] == [
        'met: block 1, Platform fmspc: is "self"',
        'met: block 2, QE.QeIdentity ISVPRODID: equal "self"',
        f'not met: block 2, QE.QeIdentity ISVSVN: equal "self"; local {own}, peer 0000 (record bytes 732 to 734)',
    ]


def test_all_findings_are_summarized_in_order_where_there_is_room():
    found = evaluated(policy(SELF_PLATFORM, qe(ISVPRODID=EQUAL_SELF, ISVSVN=EQUAL_SELF)), peer=patched(732, "0000"))
    assert summarize_all(found.trace) == tuple(map(summarize, found.trace))
    assert summarize_all([]) == ()


@pytest.mark.parametrize("room", [0, 100, 400, 2_000])
def test_without_room_the_rules_not_met_and_the_first_ones_are_kept_and_the_others_counted(room):
    found = evaluated(
        policy(SELF_PLATFORM, *[qe(ISVPRODID=EQUAL_SELF)] * 300, qe(ISVSVN=EQUAL_SELF)), peer=patched(732, "0000")
    )
    lines = summarize_all(found.trace, room)
    (left_out,) = (number for number, line in enumerate(lines) if line.startswith("… "))
    assert lines[left_out] == f"… {len(found.trace) - len(lines) + 1} more rules"
    assert list(lines[:left_out]) == [summarize(each) for each in found.trace[:left_out]]
    assert list(lines[left_out + 1 :]) == [summarize(found.trace[-1])] * (len(lines) - left_out - 1)
    assert sum(len(json.dumps(line)) for line in lines) <= room + 100
    assert (len(lines) > 1) is (room >= 400)


def test_an_error_without_a_trace_is_told_alone():
    found = evaluated(b"{")
    assert found.explained == str(found.error)


def test_findings_are_json():
    found = evaluated(policy(SELF_PLATFORM, qe(ISVSVN=EQUAL_SELF)))
    documents = json.loads(json.dumps([each.document() for each in found.trace]))
    assert documents[1] == {
        "block": 2,
        "part": "QE.QeIdentity",
        "name": "ISVSVN",
        "operation": "equal",
        "reference": '"self"',
        "local": RECORD[732:734].hex(),
        "peer": RECORD[732:734].hex(),
        "field": "record bytes 732 to 734",
        "judge": "source",
        "verdict": "met",
    }
    assert describe(found.trace[1]).count("\n") == 3


def test_every_name_has_an_id_and_advice():
    catalogue = failures.catalogue()
    assert len(catalogue) == len(PolicyErrorName)
    assert "MIGTD-POLICY-UNQUALIFIED-MIGTD-INFO" in catalogue
    assert "MIGTD-POLICY-UNQUALIFIED-QE-INFO" in catalogue
    for kind in catalogue.values():
        assert kind.advice
        assert not kind.summary.endswith(".")

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Rules of a v2 policy: properties, entries, blocks, and what people read of them (policy.md 2.5)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import Finding, Judge, Verdict, explain_refusal, summarize
from migtd.policy.json_reader import Reader
from migtd.policy.v2.blocks import Notes, evaluate_block
from migtd.policy.v2.decoding import decode
from migtd.policy.v2.entries import read_entries
from migtd.policy.v2.properties import (
    Property,
    StringList,
    integer_holds,
    platform_status_holds,
    read_property,
    servtd_status_holds,
    string_holds,
)
from migtd.policy.v2.status import PLATFORM_RANKS
from migtd.policy.v2.values import Values
from tests.unit.policy_v2_world import compact, platform_entry, rule, servtd_entry

DATE = "2025-03-01T00:00:00Z"
VALUES = Values(
    tcb_date=DATE,
    tcb_status="UpToDate",
    tcb_evaluation_number=17,
    fmspc="A0B1C2D3E4F5",
    pck_crl_num=8,
    root_ca_crl_num=3,
    migtd_isvsvn=3,
    migtd_tcb_date="2025-02-01T00:00:00Z",
    migtd_tcb_status="UpToDate",
)
NONE = Values()
MIDDLE = sorted(name for name, number in PLATFORM_RANKS.items() if number == 1)
BEST = sorted(name for name, number in PLATFORM_RANKS.items() if number == 2)
MISUSED = [rule("nonsense", 5), rule("equal", []), rule("allow-list", ["x"]), rule("equal", "Bogus")]


def property_of(operation, reference):
    return read_property(Reader(json.dumps(rule(operation, reference))))


def applied(holds, operation, reference, *values):
    try:
        return holds(property_of(operation, reference), *values)
    except PolicyError as error:
        return error.name.name


# --- numbers -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operation", "reference", "value", "relative", "expected"),
    [
        ("equal", 5, 5, None, True),
        ("equal", 5, 6, None, False),
        ("greater-or-equal", 5, 6, None, True),
        ("greater-or-equal", 5, 4, None, False),
        ("subset", 5, 5, None, "InvalidOperation"),
        ("equal", "self", 5, 5, True),
        ("greater-or-equal", "init", 4, 5, False),
        ("equal", "self", 5, None, "InvalidReference"),
        ("nonsense", "self", 5, None, "InvalidReference"),
        ("nonsense", "init", 5, 5, "InvalidOperation"),
        ("in-range", "self", 5, 5, "InvalidOperation"),
        ("in-range", "5..7", 5, None, True),
        ("in-time-range", "5..7", 7, None, True),
        ("in-range", "5..7", 8, None, False),
        ("in-range", "+5..+007", 6, None, True),
        ("in-range", "7..5", 6, None, False),
        ("in-range", "5", 5, None, "InvalidOperation"),
        ("in-range", "1..2..3", 5, None, "InvalidOperation"),
        ("in-range", "..", 5, None, "InvalidReference"),
        ("in-range", "5..", 5, None, "InvalidReference"),
        ("in-range", "5...", 5, None, "InvalidReference"),
        ("in-range", "-1..5", 5, None, "InvalidReference"),
        ("in-range", "0..4294967296", 5, None, "InvalidReference"),
        ("in-range", "0..4294967295", 2**32 - 1, None, True),
        ("in-range", "0..\u0665", 5, None, "InvalidReference"),
        ("in-range", "0..+", 5, None, "InvalidReference"),
        ("in-range", "0.." + "0" * 5000 + "6", 5, None, True),
        ("equal", "5", 5, None, "InvalidOperation"),
        ("subset", [1, 5], 5, None, True),
        ("subset", [1], 5, None, False),
        ("subset", [], 5, None, False),
        ("allow-list", [5], 5, None, "InvalidOperation"),
        ("subset", ["5"], 5, None, "InvalidReference"),
        ("nonsense", ["5"], 5, None, "InvalidReference"),
    ],
)
def test_integer_rules(operation, reference, value, relative, expected):
    assert applied(integer_holds, operation, reference, value, relative) == expected


# --- texts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operation", "reference", "value", "relative", "expected"),
    [
        ("equal", DATE, DATE, None, True),
        ("greater-or-equal", "2025", DATE, None, True),
        ("greater-or-equal", "2026", DATE, None, False),
        # Text order, not that of dates.
        ("greater-or-equal", "2025-03-01T00:00:00+14:00", DATE, None, True),
        ("greater-or-equal", "\U0001f600", "\ufffd", None, False),
        ("in-range", "a..z", "b", None, "InvalidOperation"),
        ("equal", "self", DATE, DATE, True),
        ("equal", "self", "self", None, "InvalidReference"),
        ("nonsense", "init", DATE, None, "InvalidReference"),
        ("allow-list", ["a", "b"], "b", None, True),
        ("allow-list", ["a", "b"], "B", None, False),
        ("allow-list", ["self"], "b", "b", False),
        ("deny-list", ["a", "b"], "b", None, False),
        ("deny-list", ["a"], "b", None, True),
        ("subset", ["b"], "b", None, "InvalidOperation"),
        ("allow-list", [], "b", None, "InvalidReference"),
        ("equal", 5, "5", None, "InvalidReference"),
        ("nonsense", [5], "5", None, "InvalidReference"),
    ],
)
def test_string_rules(operation, reference, value, relative, expected):
    assert applied(string_holds, operation, reference, value, relative) == expected


# --- statuses ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("misused", MISUSED)
def test_the_best_and_the_worst_platform_status_decide_before_the_rule_is_looked_at(misused):
    for status in BEST:
        assert applied(platform_status_holds, *misused.values(), status, None) is True
    assert applied(platform_status_holds, *misused.values(), "Revoked", None) is False
    assert applied(platform_status_holds, *misused.values(), "Bogus", None) == "InvalidParameter"


@pytest.mark.parametrize("status", MIDDLE)
@pytest.mark.parametrize(
    ("operation", "reference", "relative", "expected"),
    [
        ("equal", "UpToDate", None, False),
        ("equal", "OutOfDateConfigurationNeeded", None, True),
        ("greater-or-equal", "Revoked", None, True),
        ("greater-or-equal", "SWHardeningNeeded", None, False),
        ("equal", "self", "ConfigurationNeeded", True),
        ("greater-or-equal", "init", "UpToDate", False),
        ("nonsense", "self", None, "InvalidReference"),
        ("equal", "self", "Bogus", "InvalidParameter"),
        ("equal", "Bogus", None, "InvalidParameter"),
        ("nonsense", "UpToDate", None, "InvalidOperation"),
        ("allow-list", ["ConfigurationNeeded"], None, True),
        ("allow-list", ["UpToDate"], None, False),
        ("allow-list", ["ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"], None, False),
        ("allow-list", ["ConfigurationNeeded", "Bogus"], None, "InvalidParameter"),
        ("deny-list", ["ConfigurationNeeded"], None, False),
        ("deny-list", ["Revoked"], None, False),
        ("deny-list", ["Bogus"], None, "InvalidParameter"),
        ("equal", ["Bogus"], None, "InvalidOperation"),
        ("allow-list", [], None, "InvalidReference"),
        ("allow-list", [1], None, "InvalidReference"),
        ("equal", 1, None, "InvalidReference"),
    ],
)
def test_rules_on_the_middle_rank(status, operation, reference, relative, expected):
    assert applied(platform_status_holds, operation, reference, status, relative) == expected


@pytest.mark.parametrize(("operation", "expected"), [("allow-list", False), ("deny-list", False)])
def test_an_empty_list_of_strings_admits_nothing(operation, expected):
    empty = Property(operation, StringList(()), "[]")
    assert platform_status_holds(empty, "ConfigurationNeeded", None) is expected


@pytest.mark.parametrize("misused", [*MISUSED, rule("deny-list", ["UpToDate"])])
def test_a_servtd_status_is_what_it_is_whatever_the_rule_says(misused):
    results = [applied(servtd_status_holds, *misused.values(), name) for name in ("UpToDate", "OutOfDate", "Revoked")]
    assert results == [True, True, False]
    assert applied(servtd_status_holds, *misused.values(), "SWHardeningNeeded") == "InvalidParameter"


# --- blocks --------------------------------------------------------------------------------------------------------
class Evaluated:
    """The verdict, the error, and the trace of one block."""

    def __init__(self, block, values=VALUES, relative=VALUES, *, skip_global=False):
        self.trace: list[Finding] = []
        self.error: Any = None
        entries = None if block is None else decode(compact(block), read_entries, PolicyErrorName.InvalidPolicy)
        notes = Notes(Judge.DESTINATION, self.trace)
        try:
            evaluate_block(entries, values, relative, name="policy", skip_global=skip_global, notes=notes)
        except PolicyError as error:
            self.error = error
        self.verdict = self.error.name.name if self.error else "OK"


def verdict(block, values=VALUES, relative=VALUES, **options):
    return Evaluated(block, values, relative, **options).verdict


MISSED = {
    "tcb": [
        ("tcbEvaluationDataNumber", 99, "tcb_evaluation_number", "TcbEvaluation"),
        ("tcbDate", "2099", "tcb_date", "TcbEvaluation"),
    ],
    "platform": [("fmspc", "B", "fmspc", "TcbEvaluation")],
    "crl": [
        ("pckCrlNum", 99, "pck_crl_num", "CrlEvaluation"),
        ("rootCaCrlNum", 99, "root_ca_crl_num", "CrlEvaluation"),
    ],
}


@pytest.mark.parametrize(("part", "rules"), MISSED.items())
def test_a_missing_value_or_one_that_is_not_met_gives_the_error_of_its_part(part, rules):
    for name, reference, value, expected in rules:
        unmet = [platform_entry(**{part: {name: rule("greater-or-equal", reference)}})]
        assert verdict(unmet) == expected
        assert verdict(unmet, replace(VALUES, **{value: None})) == expected
        assert verdict([platform_entry(**{part: {name: rule("greater-or-equal", "self")}})]) == "OK"


def test_a_platform_status_in_an_entry():
    accepts = [platform_entry(tcb={"tcbStatusAccepted": rule("allow-list", ["ConfigurationNeeded"])})]
    denies = [platform_entry(tcb={"tcbStatusAccepted": rule("deny-list", ["ConfigurationNeeded"])})]
    middle = replace(VALUES, tcb_status="OutOfDateConfigurationNeeded")
    assert (verdict(accepts, middle), verdict(denies, middle)) == ("OK", "TcbEvaluation")
    # A name that is none is TcbEvaluation in an entry, InvalidParameter in what follows the entries.
    unknown = replace(VALUES, tcb_status="Bogus")
    assert (verdict(accepts, unknown), verdict([], unknown)) == ("TcbEvaluation", "InvalidParameter")
    assert verdict(accepts, replace(VALUES, tcb_status=None)) == "TcbEvaluation"


def test_the_order_within_a_global_entry():
    entry = {
        "crl": {"rootCaCrlNum": rule("equal", ["x"]), "pckCrlNum": rule("equal", 9)},
        "platform": {"fmspc": rule("nonsense", "A")},
        "tcb": {
            "tcbDate": rule("equal", 1),
            "tcbStatusAccepted": rule("equal", "UpToDate"),
            "tcbEvaluationDataNumber": rule("nonsense", 1),
        },
    }
    values = replace(VALUES, tcb_status="ConfigurationNeeded")
    order = [
        ("tcb", "tcbEvaluationDataNumber", "InvalidOperation"),
        ("tcb", "tcbStatusAccepted", "TcbEvaluation"),
        ("tcb", "tcbDate", "InvalidReference"),
        ("platform", "fmspc", "InvalidOperation"),
        ("crl", "pckCrlNum", "CrlEvaluation"),
        ("crl", "rootCaCrlNum", "InvalidReference"),
    ]
    for part, name, expected in order:
        assert verdict([{"global": entry}], values) == expected
        del entry[part][name]
    assert verdict([{"global": entry}], values) == "OK"


@pytest.mark.parametrize(
    ("rules", "change", "expected"),
    [
        ({"isvsvn": rule("greater-or-equal", 4)}, {}, "SvnMismatch"),
        ({"isvsvn": rule("greater-or-equal", 3)}, {"migtd_isvsvn": None}, "UnqualifiedMigTdInfo"),
        ({"tcbDate": rule("greater-or-equal", "2026")}, {}, "SvnMismatch"),
        ({"tcbDate": rule("nonsense", "2026")}, {"migtd_tcb_date": None}, "UnqualifiedMigTdInfo"),
        ({"tcbStatusAccepted": rule("deny-list", ["UpToDate"])}, {}, "OK"),
        ({"tcbStatusAccepted": rule("nonsense", 1)}, {"migtd_tcb_status": "Revoked"}, "SvnMismatch"),
        ({"tcbStatusAccepted": rule("nonsense", 1)}, {"migtd_tcb_status": "Bogus"}, "UnqualifiedMigTdInfo"),
        ({"tcbStatusAccepted": rule("equal", "x")}, {"migtd_tcb_status": None}, "UnqualifiedMigTdInfo"),
        ({"isvsvn": rule("equal", ["x"]), "tcbDate": rule("nonsense", "")}, {}, "InvalidReference"),
        ({"isvsvn": rule("equal", 3), "tcbDate": rule("nonsense", "")}, {}, "InvalidOperation"),
        ({}, {"migtd_isvsvn": None, "migtd_tcb_date": None}, "OK"),
    ],
)
def test_a_servtd_entry(rules, change, expected):
    assert verdict([servtd_entry(**rules)], replace(VALUES, **change)) == expected
    assert verdict([servtd_entry(**rules)], replace(VALUES, **change), skip_global=True) == expected


@pytest.mark.parametrize("block", [None, []])
@pytest.mark.parametrize(
    ("change", "expected", "skipped"),
    [
        ({}, "OK", "OK"),
        ({"tcb_status": None}, "OK", "OK"),
        ({"tcb_status": "Revoked"}, "TcbEvaluation", "OK"),
        ({"tcb_status": "Bogus"}, "InvalidParameter", "OK"),
        ({"migtd_tcb_status": None}, "UnqualifiedMigTdInfo", "UnqualifiedMigTdInfo"),
        ({"migtd_tcb_status": "Bogus"}, "InvalidParameter", "InvalidParameter"),
        ({"migtd_tcb_status": "Revoked"}, "SvnMismatch", "SvnMismatch"),
        ({"tcb_status": "Revoked", "migtd_tcb_status": None}, "TcbEvaluation", "UnqualifiedMigTdInfo"),
    ],
)
def test_even_an_empty_or_absent_block_refuses_what_is_revoked_or_unknown(block, change, expected, skipped):
    values = replace(VALUES, **change)
    assert verdict(block, values) == expected
    assert verdict(block, values, skip_global=True) == skipped


def test_entries_are_judged_in_order_and_global_ones_can_be_left_out():
    platform = platform_entry(tcb={"tcbDate": rule("greater-or-equal", "2099")})
    engine = servtd_entry(isvsvn=rule("greater-or-equal", 9))
    assert verdict([platform, engine]) == "TcbEvaluation"
    assert verdict([engine, platform]) == "SvnMismatch"
    assert verdict([platform, engine], skip_global=True) == "SvnMismatch"
    assert verdict([platform], skip_global=True) == "OK"


# --- what people read ----------------------------------------------------------------------------------------------
def test_a_refusal_shows_rule_wanted_found_and_source():
    block = [servtd_entry(), servtd_entry(isvsvn=rule("greater-or-equal", "self"))]
    found = Evaluated(block, replace(VALUES, migtd_isvsvn=2))
    assert explain_refusal(found.error, found.trace).splitlines() == [
        f"{found.error.kind.summary}: entry 2, policy.servtd.migtdIdentity.isvsvn",
        "block 2, policy.servtd migtdIdentity.isvsvn: not met, judged by the destination",
        '  wanted: greater-or-equal "self"',
        "  local:  3 (the peer's TCB mapping)",
        "  peer:   2",
    ]


def test_every_rule_and_the_mandatory_checks_are_in_the_trace():
    block = [
        platform_entry(
            tcb={"tcbDate": rule("greater-or-equal", "2024"), "tcbEvaluationDataNumber": rule("in-range", "1..99")},
            platform={"fmspc": rule("allow-list", ["A0B1C2D3E4F5"])},
        )
    ]
    assert [summarize(each) for each in Evaluated(block).trace] == [
        'met: block 1, policy.global tcb.tcbEvaluationDataNumber: in-range "1..99"',
        'met: block 1, policy.global tcb.tcbDate: greater-or-equal "2024"',
        'met: block 1, policy.global platform.fmspc: allow-list ["A0B1C2D3E4F5"]',
        'met: policy tcbStatus: is known, and not "Revoked"',
        'met: policy migtdTcbStatus: is known, and not "Revoked"',
    ]
    last = Evaluated([], replace(VALUES, migtd_tcb_status=None)).trace[-1]
    assert (last.name, last.peer, last.verdict) == ("migtdTcbStatus", None, Verdict.NOT_MET)


def test_a_rule_that_cannot_be_applied_is_told_from_one_that_is_not_met():
    found = Evaluated([platform_entry(tcb={"tcbDate": rule("subset", "x")})])
    assert (found.verdict, found.trace[-1].verdict) == ("InvalidOperation", Verdict.UNUSABLE)
    assert "entry 1, policy.global.tcb.tcbDate" in str(found.error)
    unknown = Evaluated([], replace(VALUES, migtd_tcb_status="Bogus"))
    assert unknown.trace[-1].verdict is Verdict.UNKNOWN_NAME


def test_nothing_of_a_peer_or_a_policy_steers_the_terminal():
    nasty = "\x1b[2J\n\x9b31m"
    changes: list[dict[str, Any]] = [{"migtd_tcb_status": nasty}, {"tcb_status": nasty}, {"migtd_tcb_date": nasty * 99}]
    for change in changes:
        block = [servtd_entry(tcbDate=rule("equal", nasty)), platform_entry(tcb={"tcbDate": rule(nasty, nasty)})]
        for each in (Evaluated(block, replace(VALUES, **change)), Evaluated(block[1:], replace(VALUES, **change))):
            shown = [explain_refusal(each.error, each.trace), *map(summarize, each.trace)]
            assert all(character.isprintable() or character == "\n" for text in shown for character in text)
            assert max(len(line) for text in shown for line in text.splitlines()) < 400

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The order and the verdicts of a v1 evaluation (policy.md 1.5 to 1.7)."""

from __future__ import annotations

import pytest

from migtd.attestation.quote.record import RANGES
from migtd.event_log import EventName, NamedEvent
from migtd.policy.v1 import fields
from tests.unit.policy_v1_evidence import (
    EQUAL_SELF,
    EVENTS,
    RECORD,
    SELF_PLATFORM,
    evaluated,
    migtd,
    patched,
    policy,
    qe,
    tdx_module,
)

FMSPC = RECORD[584:590].hex().upper()
NEVER = {"operation": "subset", "reference": "self"}
ALWAYS = {"operation": "equal", "reference": "self"}


def verdict(document, **evidence):
    return evaluated(document, **evidence).verdict


# --- names ---------------------------------------------------------------------------------------------------------
NAMED = {
    "Platform": ("fmspc", "tdxtcbcomponents", "pcesvn", "sgxtcbcomponents"),
    "QE": ("MISCSELECT", "ATTRIBUTES", "MRSIGNER", "ISVPRODID", "ISVSVN"),
    "TDXModule": ("TDXModuleMajorVersion", "TDXModuleSVN", "MRSEAM", "MRSIGNERSEAM", "ATTRIBUTES"),
    "MigTD": ("ATTRIBUTES", "XFAM", "MRTD", "MRCONFIGID", "MROWNER", "MROWNERCONFIG", *(f"RTMR{i}" for i in range(4))),
}
TABLES = {"Platform": fields.PLATFORM, "QE": fields.QE, "TDXModule": fields.TDX_MODULE, "MigTD": fields.TDINFO}
IN_RECORD = {
    "tdxtcbcomponents": "tdx_components",
    "sgxtcbcomponents": "sgx_components",
    "TDXModuleMajorVersion": "module_major",
    "TDXModuleSVN": "module_svn",
}


@pytest.mark.parametrize("kind", NAMED)
def test_names_stand_for_the_fields_of_the_record(kind):
    assert tuple(TABLES[kind]) == NAMED[kind]
    for name, place in TABLES[kind].items():
        prefix = {"QE": "qe_", "TDXModule": "seam_", "MigTD": "td_"}.get(kind, "") if name != "MRSEAM" else ""
        candidates = [IN_RECORD.get(name, ""), prefix + name.lower(), name.lower()]
        found = next(RANGES[each] for each in candidates if each in RANGES)
        assert (place.start, place.end) == (found.start, found.stop)


def test_a_policy_v1_that_names_the_mrenclave_of_the_qe_cannot_be_met():
    assert verdict(policy(SELF_PLATFORM, qe(MRENCLAVE=ALWAYS))) == "InvalidParameter"


def test_td_attributes_and_xfam_are_compared_masked_on_both_sides():
    document = policy(SELF_PLATFORM, migtd({"ATTRIBUTES": EQUAL_SELF, "XFAM": EQUAL_SELF}))
    local = patched(120, "000000000000000000000000000000 00".replace(" ", ""))
    assert verdict(document, local=local, peer=patched(120, "0000ffcfffffffbf" + "fce7ffffffffffff", local)) == "OK"
    for start, value in ((120, "01"), (121, "80"), (123, "10"), (123, "20"), (127, "40"), (128, "01"), (129, "10")):
        assert verdict(document, local=local, peer=patched(start, value, local)) == "UnqualifiedMigTdInfo"
    literal = policy(SELF_PLATFORM, migtd({"XFAM": {"operation": "equal", "reference": "0318000000000000"}}))
    assert verdict(literal, peer=patched(128, "ff" * 8)) == "OK"


# --- records -------------------------------------------------------------------------------------------------------
def test_records_are_measured_before_and_after_the_policy_is_read():
    for evidence in ({"local": RECORD[:-1]}, {"peer": RECORD[:-1]}):
        assert verdict(b"no policy", **evidence) == "InvalidParameter"
    longer = RECORD + b"\0"
    for evidence in ({"local": longer}, {"peer": longer}, {"local": longer, "peer": longer}):
        assert verdict(b"no policy", **evidence) == "InvalidPolicy"
        assert verdict(policy(SELF_PLATFORM), **evidence) == "InvalidParameter"


# --- platform ------------------------------------------------------------------------------------------------------
def platform(fmspc, **rules):
    return {"fmspc": fmspc, "Platform": {"TcbInfo": rules}}


def test_self_alone_wants_the_same_platform():
    assert verdict(policy(platform("self"))) == "OK"
    assert verdict(policy(platform("self")), peer=patched(584, "000000000001")) == "PlatformNotMatch"


def test_otherwise_the_first_block_with_the_peers_fmspc_counts():
    blocks = (platform("self"), platform(FMSPC), platform(FMSPC, pcesvn=NEVER))
    assert verdict(policy(*blocks)) == "OK"
    assert verdict(policy(*blocks), local=patched(584, "000000000001")) == "OK"
    assert verdict(policy(platform(FMSPC, pcesvn=NEVER), platform(FMSPC))) == "UnqualifiedPlatformInfo"


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (qe(),),
        (platform(FMSPC.lower()),),
        (platform("Self"),),
        (platform("self"), platform("self")),
        (platform(f"{FMSPC} "),),
    ],
)
def test_a_policy_without_a_block_for_the_peer_refuses_it(blocks):
    assert any(character.isalpha() for character in FMSPC)
    assert verdict(policy(*blocks)) == "PlatformNotFound"


# --- TDX module ----------------------------------------------------------------------------------------------------
def test_tdx_module_blocks_are_alternatives():
    assert verdict(policy(SELF_PLATFORM, tdx_module(MRSEAM=NEVER), tdx_module(MRSEAM=ALWAYS))) == "OK"
    assert verdict(policy(SELF_PLATFORM, tdx_module(MRSEAM=ALWAYS), tdx_module(X=NEVER))) == "OK"
    assert verdict(policy(SELF_PLATFORM, tdx_module(MRSEAM=NEVER))) == "UnqualifiedTdxModuleInfo"


def test_an_unknown_name_in_a_tdx_module_block_tells_when_met_or_when_no_alternative_is():
    met = tdx_module(ATTRIBUTES=ALWAYS, X=ALWAYS)
    assert verdict(policy(SELF_PLATFORM, met, tdx_module())) == "InvalidParameter"
    behind = tdx_module(ATTRIBUTES=NEVER, X=ALWAYS)
    assert verdict(policy(SELF_PLATFORM, behind, tdx_module())) == "OK"
    assert verdict(policy(SELF_PLATFORM, behind, tdx_module(MRSEAM=NEVER))) == "InvalidParameter"


# --- QE, MigTD, events ---------------------------------------------------------------------------------------------
def test_names_are_visited_in_byte_order_whatever_the_file_order():
    assert verdict(policy(SELF_PLATFORM, qe(Z=ALWAYS, ISVSVN=NEVER))) == "UnqualifiedQeInfo"
    assert verdict(policy(SELF_PLATFORM, qe(ISVSVN=NEVER, A=ALWAYS))) == "InvalidParameter"
    assert verdict(policy(SELF_PLATFORM, qe(ISVSVN=NEVER, a=ALWAYS))) == "UnqualifiedQeInfo"


def test_platform_and_tdx_module_come_first_then_the_rest_in_file_order():
    bad_qe, bad_migtd = qe(ISVSVN=NEVER), migtd({"MRTD": NEVER})
    assert verdict(policy(bad_migtd, bad_qe, tdx_module(MRSEAM=NEVER), platform("self", pcesvn=NEVER))) == (
        "UnqualifiedPlatformInfo"
    )
    assert verdict(policy(bad_migtd, bad_qe, tdx_module(MRSEAM=NEVER), SELF_PLATFORM)) == "UnqualifiedTdxModuleInfo"
    assert verdict(policy(bad_migtd, bad_qe, SELF_PLATFORM)) == "UnqualifiedMigTdInfo"
    assert verdict(policy(bad_qe, bad_migtd, SELF_PLATFORM)) == "UnqualifiedQeInfo"
    assert verdict(policy(qe(), bad_qe, SELF_PLATFORM)) == "UnqualifiedQeInfo"


def test_tdinfo_is_judged_before_events():
    events = {"Digest.Unknown": ALWAYS}
    assert verdict(policy(SELF_PLATFORM, migtd({"MRTD": NEVER}, events))) == "UnqualifiedMigTdInfo"
    assert verdict(policy(SELF_PLATFORM, migtd({"X": ALWAYS}, events))) == "InvalidParameter"
    assert verdict(policy(SELF_PLATFORM, migtd({}, events))) == "InvalidEventLog"


def test_events_are_visited_in_byte_order_too():
    assert verdict(policy(SELF_PLATFORM, migtd({}, {"Digest.Z": ALWAYS, "Digest.MigTdCore": NEVER}))) == (
        "UnqualifiedMigTdInfo"
    )
    assert (
        verdict(policy(SELF_PLATFORM, migtd({}, {"Digest.MigTdCore": NEVER, "Digest.A": ALWAYS}))) == "InvalidEventLog"
    )


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("Digest.SecureBootKey", EventName.SecureBootKey),
        ("Digest.MigTdCore", EventName.MigTdCore),
        ("Digest.MigTdPolicy", EventName.MigTdPolicy),
        ("Digest.MigTdSgxRootKey", EventName.SgxRootKey),
    ],
)
def test_an_event_must_be_there_on_both_sides_with_one_digest(name, event):
    document = policy(SELF_PLATFORM, migtd({}, {name: EQUAL_SELF}))
    without = {each: found for each, found in EVENTS.items() if each is not event}
    assert verdict(document) == "OK"
    assert verdict(document, local_events=without) == "UnqualifiedMigTdInfo"
    assert verdict(document, peer_events=without) == "UnqualifiedMigTdInfo"
    assert verdict(document, peer_events={**EVENTS, event: NamedEvent(bytes(48))}) == "UnqualifiedMigTdInfo"


def test_the_svn_event_is_compared_by_the_data_that_the_own_one_carries():
    document = policy(SELF_PLATFORM, migtd({}, {"Digest.MigTdCoreSvn": {"operation": "in-range", "reference": "13.."}}))

    def svn(data):
        return {EventName.MigTdCoreSvn: NamedEvent(bytes(48), data)}

    assert verdict(document, local_events=svn(b"\x0d"), peer_events=svn(b"\x0d" + bytes(7))) == "OK"
    assert verdict(document, local_events=svn(b"\x0d"), peer_events=svn(b"\x0c")) == "UnqualifiedMigTdInfo"
    assert verdict(document, local_events=svn(b"\x0d"), peer_events=svn(None)) == "UnqualifiedMigTdInfo"
    equal = policy(SELF_PLATFORM, migtd({}, {"Digest.MigTdCoreSvn": EQUAL_SELF}))
    assert verdict(equal, local_events=svn(None), peer_events=svn(b"\x0c")) == "OK"


@pytest.mark.parametrize("name", ["Digest.TdShim", "Digest.MigTdPolicySigner"])
def test_what_nothing_measures_for_a_policy_cannot_be_met(name):
    known = name == "Digest.TdShim"
    document = policy(SELF_PLATFORM, migtd({}, {name: EQUAL_SELF}))
    assert verdict(document) == ("UnqualifiedMigTdInfo" if known else "InvalidEventLog")


# --- trace ---------------------------------------------------------------------------------------------------------
def test_the_trace_has_every_rule_that_was_come_to_in_order():
    found = evaluated(
        policy(migtd({"XFAM": ALWAYS, "MRTD": NEVER}), qe(ISVSVN=ALWAYS), platform("self", pcesvn=ALWAYS))
    )
    assert [(each.block, each.part, each.name, each.verdict.value) for each in found.trace] == [
        (3, "Platform", "fmspc", "met"),
        (3, "Platform.TcbInfo", "pcesvn", "met"),
        (1, "MigTD.TDINFO", "MRTD", "not met"),
    ]


def test_role_decides_the_direction_of_self():
    document = policy(platform("self", pcesvn={"operation": "greater-or-equal", "reference": "self"}))
    old, new = patched(606, "0100"), patched(606, "0200")
    assert verdict(document, is_source=True, local=old, peer=new) == "OK"
    assert verdict(document, is_source=True, local=new, peer=old) == "UnqualifiedPlatformInfo"
    assert verdict(document, is_source=False, local=new, peer=old) == "OK"
    assert verdict(document, is_source=False, local=old, peer=new) == "UnqualifiedPlatformInfo"

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Rebindings with policy v2: two MigTDs of one platform in memory, what each checks, and how each refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from migtd import failures
from migtd.checks import CheckName, CheckStatus
from migtd.choices import REBINDING_SKIPS_OF
from migtd.errors import FailureKind
from migtd.migration.rebinding import own_tdinfo
from migtd.migration.session import TargetHistory
from migtd.policy.failures import KINDS, PolicyErrorName
from migtd.policy.v2.peer import push_peer_data
from tests.unit.policy_v1_sessions import flipped, passed
from tests.unit.policy_v2_sessions import (
    LAB_WORLD,
    OWN,
    TOKEN,
    End,
    captured_end,
    end,
    rebind,
    refused_rebinding,
    skipped,
)
from tests.unit.policy_v2_world import (
    Chain,
    World,
    key_number,
    level,
    rule,
    servtd_entry,
    servtd_ext,
    svn_config,
    svn_mapping,
)
from vmm_stub.quoting.interface import Answered
from vmm_stub.quoting.service import LabQuoting
from vmm_stub.testing_quoting import Machine

OLD_CHECKS = [
    CheckName.TLS_PARAMETERS,
    CheckName.CERTIFICATE,
    CheckName.CERTIFICATE_EKU,
    CheckName.EVIDENCE_PRESENT,
    CheckName.PEER_DATA_HASH,
    CheckName.OWN_TDINFO,
    CheckName.TDREPORT_MAC,
    CheckName.TDREPORT_HASHES,
    CheckName.EVENT_LOG_REPLAY,
    CheckName.RTMRS_EQUAL,
    CheckName.POLICY,
    CheckName.REPORTDATA,
    CheckName.CERTIFICATE_SIGNATURE,
]
"""Those that the old MigTD makes of the new, in the order of policy.md 2.9 and 4.4."""
NEW_CHECKS = [
    *OLD_CHECKS[: OLD_CHECKS.index(CheckName.POLICY)],
    CheckName.INITIAL_TDINFO,
    *OLD_CHECKS[OLD_CHECKS.index(CheckName.POLICY) :],
    CheckName.SERVTD_EXT,
]
SIDES = pytest.mark.parametrize("by_old", [True, False], ids=["by-old", "by-new"])
SESSION, UNSATISFIED, INVALID_POLICY = 6, 8, 9


def kind(name: PolicyErrorName) -> FailureKind:
    return KINDS[name]


def changed(**parts: Any) -> World:
    return replace(LAB_WORLD, **parts)


def other_platform() -> Machine:
    """The same model, another machine: its TDX module has a report key of its own."""
    return Machine(OWN.material, replace(OWN.platform, report_key=b"another machine's".ljust(32, b"k")))


def alter_report(change):
    return lambda evidence: replace(evidence, quote=change(evidence.quote))


# --- both are what they should be ------------------------------------------------------------------------------------
async def test_both_sides_pass_every_check_in_the_order_of_the_specification():
    old = end()
    pair = await rebind(old, end())

    for side, names in ((pair.source, OLD_CHECKS), (pair.destination, NEW_CHECKS)):
        assert side.error is None
        assert [(check.name, check.status) for check in side.checks] == [(name, CheckStatus.PASSED) for name in names]
        assert side.agreed is not None
        assert side.agreed.token == TOKEN
        assert side.agreed.servtd_ext == old.history().servtd_ext


async def test_what_the_new_side_does_not_ask_is_told():
    pair = await rebind(end(), end())

    [of_old] = [check for check in pair.source.checks if check.name is CheckName.POLICY]
    [of_new] = [check for check in pair.destination.checks if check.name is CheckName.POLICY]
    assert of_new.explain[-1] == "left out: common-block, which a new MigTD does not ask of the old one (policy.md 7.1)"
    assert not [line for line in of_old.explain if line.startswith("left out")]
    assert (of_old.detail, of_new.detail) == ("policy v2, 5 rules met", "policy v2, 1 rule met")


async def test_reports_made_from_captured_quotes_leave_out_four_named_checks_and_nothing_else():
    known = svn_mapping(3, mrtd=bytes(48), rtmr0=bytes(48), rtmr1=bytes(48))
    old, new = (captured_end(OWN.quote(), changed(mappings=[known])) for _ in range(2))

    pair = await rebind(old, new)

    for side, names in ((pair.source, OLD_CHECKS), (pair.destination, NEW_CHECKS)):
        assert side.error is None
        assert skipped(side) == REBINDING_SKIPS_OF["captured"]
        assert set(skipped(side)) == {
            CheckName.REPORTDATA,
            CheckName.RTMRS_EQUAL,
            CheckName.OWN_TDINFO,
            CheckName.TDREPORT_MAC,
        }
        assert passed(side) == [name for name in names if name not in skipped(side)]


def rotated_worlds() -> tuple[World, World]:
    """Two policy keys under one root; the chain is measured, so each mapping must know both MigTDs."""
    rotated = changed(policy_chain=Chain("Policy issuer", key_number(20)))
    mappings = [*LAB_WORLD.own_mapping(), *rotated.own_mapping()]
    return changed(mappings=mappings), replace(rotated, mappings=mappings)


async def test_a_rotated_policy_key_is_accepted_where_both_mappings_know_both():
    first, second = rotated_worlds()

    pair = await rebind(end(first), end(second))

    assert (pair.source.error, pair.destination.error) == (None, None)


async def test_a_rotated_key_with_a_mapping_that_does_not_know_the_old_migtd_is_refused_by_the_new():
    rotated = changed(policy_chain=Chain("Policy issuer", key_number(20)))

    refused = await refused_rebinding(end(rotated), end(), by_old=False)

    assert refused.code[0] == UNSATISFIED
    assert refused.failed.name is CheckName.INITIAL_TDINFO
    assert refused.error.kind is kind(PolicyErrorName.SvnMismatch)
    assert refused.failed.explain[-1] == "failed: engine"


# --- TDREPORTs -------------------------------------------------------------------------------------------------------
async def test_a_report_of_another_platform_is_refused():
    refused = await refused_rebinding(end(), end(own=other_platform()), by_old=True)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.TDREPORT_MAC
    assert refused.error.kind is kind(PolicyErrorName.TdReportVerification)


@SIDES
@pytest.mark.parametrize(
    ("change", "name", "error"),
    [
        (lambda report: flipped(report, 225), CheckName.TDREPORT_MAC, PolicyErrorName.TdReportVerification),
        (lambda report: flipped(report, 256), CheckName.TDREPORT_HASHES, PolicyErrorName.InvalidTdReport),
        (lambda report: flipped(report, 530), CheckName.TDREPORT_HASHES, PolicyErrorName.InvalidTdReport),
        (lambda report: report[:-1], CheckName.TDREPORT_HASHES, PolicyErrorName.InvalidTdReport),
    ],
    ids=["mac", "tcb-info", "tdinfo", "short"],
)
async def test_a_changed_report_is_refused(change, name, error, by_old):
    shown = replace(end(), alter=alter_report(change))

    refused = await refused_rebinding(end(), shown, by_old=by_old)

    assert refused.code[0] == UNSATISFIED
    assert refused.failed.name is name
    assert refused.error.kind is kind(error)


@SIDES
async def test_a_report_for_another_key_is_no_secure_session_and_comes_behind_the_policy(by_old):
    shown = replace(end(), bind=lambda report_data: flipped(report_data, 0))

    refused = await refused_rebinding(end(), shown, by_old=by_old)

    assert refused.code[0] == SESSION
    assert refused.failed.name is CheckName.REPORTDATA
    assert refused.error.kind is failures.REPORTDATA_MISMATCH
    assert CheckName.POLICY in passed(refused.judge)


@SIDES
async def test_a_log_that_does_not_explain_the_registers_is_refused(by_old):
    shown = replace(end(), alter=lambda evidence: replace(evidence, event_log=flipped(evidence.event_log, 72 + 14)))

    refused = await refused_rebinding(end(), shown, by_old=by_old)

    assert refused.code[0] == UNSATISFIED
    assert refused.failed.name is CheckName.RTMRS_EQUAL
    assert refused.error.kind is kind(PolicyErrorName.InvalidEventLog)


# --- policies --------------------------------------------------------------------------------------------------------
@SIDES
async def test_another_policy_than_the_certificate_names_is_an_invalid_policy(by_old):
    other = push_peer_data(changed(policy_svn=9).files())

    refused = await refused_rebinding(end(), replace(end(), arrives=other), by_old=by_old)

    assert refused.code[0] == INVALID_POLICY
    assert refused.failed.name is CheckName.PEER_DATA_HASH


async def test_a_new_migtd_with_a_lower_policy_svn_is_refused():
    refused = await refused_rebinding(end(), end(changed(policy_svn=3)), by_old=True)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(PolicyErrorName.SvnMismatch)


@SIDES
async def test_a_revoked_migtd_is_refused(by_old):
    revoked = changed(identity=LAB_WORLD.identity | {"tcbLevels": [level(3, status="Revoked")]})

    refused = await refused_rebinding(end(), end(revoked), by_old=by_old)

    assert refused.code[0] == UNSATISFIED
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(PolicyErrorName.SvnMismatch)


async def test_the_old_asks_the_common_block_and_the_new_does_not():
    strict = changed(blocks={"policy": [servtd_entry(isvsvn=rule("greater-or-equal", 9))]})
    lenient = changed(blocks={})

    refused = await refused_rebinding(end(strict), end(lenient), by_old=True)
    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.error.explain[0] == "block 1, policy.servtd migtdIdentity.isvsvn: not met, judged by the source"

    pair = await rebind(end(lenient), end(strict))
    assert (pair.source.error, pair.destination.error) == (None, None)


@SIDES
async def test_without_a_relative_reference_the_policy_refuses(by_old):
    class NoQuotes:
        def get_quote(self, request: bytes, answered: Answered) -> None:
            LabQuoting(OWN.material, lambda: OWN.platform).get_quote(request, lambda status, _: answered(status, b""))

    refused = await refused_rebinding(end(quoting=NoQuotes()), end(), by_old=by_old)

    assert refused.code[0] == UNSATISFIED
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(PolicyErrorName.QuoteGeneration)
    assert refused.failed.explain[-1] == "failed: relative"


# --- the MigTD that the target had first -----------------------------------------------------------------------------
def history_with(old: End, **parts: bytes) -> TargetHistory:
    """The history of a target TD whose first MigTD had other fields, by their place in TDINFO."""
    tdinfo = own_tdinfo(old.guest.tdcall)
    for name, value in parts.items():
        start = {"mrtd": 16, "mrowner": 112, "mrownerconfig": 160}[name]
        tdinfo = tdinfo[:start] + value + tdinfo[start + len(value) :]
    return TargetHistory(servtd_ext(tdinfo).push(), tdinfo)


@pytest.mark.parametrize(
    ("parts", "error", "step"),
    [
        ({"mrowner": b"\x01" * 48}, PolicyErrorName.PolicyHashMismatch, "owner"),
        ({"mrownerconfig": svn_config(5)}, PolicyErrorName.SvnMismatch, "owner"),
        ({"mrownerconfig": svn_config(4)[:-1] + b"\x01"}, PolicyErrorName.InvalidParameter, "owner"),
        ({"mrtd": b"\x01" * 48}, PolicyErrorName.SvnMismatch, "engine"),
    ],
    ids=["other-owner", "newer-policy", "more-than-an-svn", "unknown-engine"],
)
async def test_a_first_migtd_that_may_not_have_been_is_refused_by_the_new(parts, error, step):
    old = end()

    refused = await refused_rebinding(end(), old, by_old=False, history=history_with(old, **parts))

    assert refused.code[0] == UNSATISFIED
    assert refused.failed.name is CheckName.INITIAL_TDINFO
    assert refused.error.kind is kind(error)
    assert refused.failed.explain[-1] == f"failed: {step}"


async def test_an_older_first_migtd_is_accepted():
    old = end()

    pair = await rebind(old, end(), history_with(old, mrownerconfig=svn_config(1)))

    assert (pair.source.error, pair.destination.error) == (None, None)


async def test_an_initial_tdinfo_that_servtd_ext_does_not_approve_is_refused():
    old = end()
    told = TargetHistory(servtd_ext(bytes(512)).push(), own_tdinfo(old.guest.tdcall))

    refused = await refused_rebinding(end(), old, by_old=False, history=told)

    assert refused.code[0] == UNSATISFIED
    assert refused.failed.name is CheckName.INITIAL_TDINFO
    assert refused.error.kind is kind(PolicyErrorName.InvalidTdReport)
    assert refused.failed.explain[-1] == "failed: servtd-ext-hash"


async def test_a_cut_servtd_ext_is_refused():
    old = end()
    told = replace(old.history(), servtd_ext=old.history().servtd_ext[:271])

    refused = await refused_rebinding(end(), old, by_old=False, history=told)

    assert refused.code[0] == UNSATISFIED
    assert refused.error.kind is kind(PolicyErrorName.InvalidParameter)
    assert refused.failed.explain[-1] == "failed: servtd-ext"

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Migrations with policy v2: two MigTDs in memory, what each checks, and what each says when one refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from migtd import failures
from migtd.attestation import judging
from migtd.attestation.quote import failures as quote_failures
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.prepare import PreparedCollateral, prepare
from migtd.checks import CheckName, CheckStatus
from migtd.choices import SKIPS_OF, V2_SKIPS_OF
from migtd.errors import FailureKind, MigrationResult, PolicyUnsatisfiedError
from migtd.guest.quote_messages import QuoteRequest, pull_request
from migtd.migration.rebinding import own_tdinfo
from migtd.policy.failures import KINDS, PolicyErrorName
from migtd.policy.v2.peer import PolicyFiles, push_peer_data
from tests.unit.policy_v1_sessions import flipped, passed
from tests.unit.policy_v2_sessions import (
    EMULATED_MRTD,
    LAB_WORLD,
    OWN,
    End,
    captured_end,
    checks_by_destination,
    collaterals_of,
    end,
    judged_by_destination,
    migrate,
    refused_migration,
    skipped,
)
from tests.unit.policy_v2_world import (
    OTHER_ROOT,
    POLICY,
    Chain,
    World,
    key_number,
    level,
    platform_entry,
    rule,
    svn_config,
    svn_mapping,
)
from vmm_stub.quoting.interface import Answered, Quoting
from vmm_stub.quoting.material import material_for, platform_for
from vmm_stub.quoting.pki import LabPki
from vmm_stub.quoting.service import LabQuoting
from vmm_stub.quoting.settings import PlatformSettings
from vmm_stub.testing_quoting import Machine, machine

SESSION_CHECKS = [
    CheckName.TLS_PARAMETERS,
    CheckName.CERTIFICATE,
    CheckName.CERTIFICATE_EKU,
    CheckName.EVIDENCE_PRESENT,
    CheckName.PEER_DATA_HASH,
    CheckName.OWN_TDINFO,
    CheckName.QUOTE_PEER,
    CheckName.EVENT_LOG_REPLAY,
    CheckName.RTMRS_EQUAL,
    CheckName.QUOTE_LOCAL,
    CheckName.POLICY,
    CheckName.REPORTDATA,
    CheckName.CERTIFICATE_SIGNATURE,
    CheckName.EXCHANGE_INFORMATION,
]
"""Those of the protocol, in the order of policy.md 2.9 and 4.4; the driver adds two behind them."""
SIDES = pytest.mark.parametrize("by_source", [True, False], ids=["by-source", "by-destination"])
ATTESTATION, SESSION, UNSATISFIED, INVALID_POLICY = 7, 6, 8, 9
SEPTEMBER_2025, SEPTEMBER_2031 = 1_756_684_800.0, 1_946_000_000.0
ROTATED = key_number(20)


def kind(name: PolicyErrorName) -> FailureKind:
    return KINDS[name]


def changed(**parts: Any) -> World:
    return replace(LAB_WORLD, **parts)


def quotes_of(own: Machine = OWN) -> Quoting:
    return LabQuoting(own.material, lambda: own.platform)


# --- both are what they should be ------------------------------------------------------------------------------------
async def test_both_sides_pass_every_check_in_the_order_of_the_specification():
    pair = await migrate(end(), end())

    for side in (pair.source, pair.destination):
        assert side.error is None
        assert [(check.name, check.status) for check in side.checks] == [
            (name, CheckStatus.PASSED) for name in SESSION_CHECKS
        ]
    assert pair.source.information is not None
    assert pair.destination.information is not None


async def test_what_was_found_is_told_also_where_all_is_well():
    pair = await migrate(end(), end())

    details = {check.name: check for check in pair.source.checks}
    for name in (CheckName.QUOTE_PEER, CheckName.QUOTE_LOCAL):
        assert details[name].detail.startswith("UpToDate, FMSPC 4D4C41420000, TCB of 2025-05-14")
    assert details[CheckName.OWN_TDINFO].detail.endswith("MROWNERCONFIG is policySvn 4")
    policy = details[CheckName.POLICY]
    assert policy.detail == "policy v2, 9 rules met"
    assert [line for line in policy.explain if line.startswith("passed: ")] == [
        f"passed: {step}"
        for step in ("envelope", "own-policy", "peer-policy", "peer-chains", "events", "policy-event", "values")
    ]
    assert policy.explain[-1] == "met: policyData policySvn: greater-or-equal 4"
    assert sum(line.startswith("met: ") for line in policy.explain) == 9


async def test_a_mode_serves_one_session_after_the_other():
    source, destination = end(), end()

    for _ in range(3):
        pair = await migrate(source, destination)
        assert (pair.source.error, pair.destination.error) == (None, None)


async def test_captured_quotes_leave_out_three_named_checks_and_nothing_else():
    pair = await migrate(captured_of_emulated(), captured_of_emulated())

    for side in (pair.source, pair.destination):
        assert side.error is None
        assert skipped(side) == V2_SKIPS_OF["captured"]
        assert set(skipped(side)) == {CheckName.REPORTDATA, CheckName.RTMRS_EQUAL, CheckName.OWN_TDINFO}
        assert passed(side) == [name for name in SESSION_CHECKS if name not in skipped(side)]


def captured_of_emulated() -> End:
    """A quote of a TD without registers, which the policy's mapping knows."""
    quote = OWN.quote()
    known = svn_mapping(3, mrtd=bytes(48), rtmr0=bytes(48), rtmr1=bytes(48))
    return captured_end(quote, changed(mappings=[known]))


def test_with_policy_v1_nothing_is_skipped_for_policy_v2():
    assert CheckName.OWN_TDINFO not in SKIPS_OF["captured"]


async def test_a_rotated_policy_key_under_the_same_root_is_accepted_both_ways():
    rotated = changed(policy_chain=Chain("Policy issuer", ROTATED))

    for pair in (await migrate(end(), end(rotated)), await migrate(end(rotated), end())):
        assert (pair.source.error, pair.destination.error) == (None, None)


async def test_a_destination_may_have_a_newer_policy_than_the_source():
    newer = changed(policy_svn=5)

    pair = await migrate(end(), end(newer))
    assert (pair.source.error, pair.destination.error) == (None, None)


# --- policies and chains ---------------------------------------------------------------------------------------------
async def test_a_policy_under_another_root_is_refused_by_whoever_looks_first():
    foreign = changed(policy_chain=Chain("Policy issuer", POLICY, root=OTHER_ROOT))

    refused = await refused_migration(end(), end(foreign), by_source=True)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(PolicyErrorName.PeerCertChainValidation)
    assert refused.failed.explain[-1] == "failed: peer-chains"


async def test_a_destination_refuses_another_root_too():
    foreign = changed(policy_chain=Chain("Policy issuer", POLICY, root=OTHER_ROOT))

    error, check = await judged_by_destination(end(), end(foreign))

    assert (error.result, error.kind) == (UNSATISFIED, kind(PolicyErrorName.PeerCertChainValidation))
    assert (check.name, check.explain[-1]) == (CheckName.POLICY, "failed: peer-chains")


@SIDES
async def test_another_policy_than_the_certificate_names_is_an_invalid_policy(by_source):
    other = push_peer_data(changed(policy_svn=9).files())

    refused = await refused_migration(end(), replace(end(), arrives=other), by_source=by_source)

    assert refused.code == (INVALID_POLICY, SESSION)
    assert refused.failed.name is CheckName.PEER_DATA_HASH
    assert refused.error.kind is failures.PEER_DATA_MISMATCH


@SIDES
async def test_a_policy_that_is_not_the_one_in_the_event_log_is_refused(by_source):
    other = push_peer_data(changed(policy_svn=9).files())

    refused = await refused_migration(end(), replace(end(), announces=other), by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(PolicyErrorName.PolicyHashMismatch)
    assert refused.failed.explain[-1] == "failed: policy-event"


@SIDES
@pytest.mark.parametrize(
    ("spoil", "name", "code"),
    [
        (lambda _: b"{}", PolicyErrorName.InvalidPolicy, INVALID_POLICY),
        (lambda text: text.replace(b'"policySvn":4', b'"policySvn":5'), "signature", UNSATISFIED),
        (lambda text: text.replace(b'"policySvn":4', b'"policySvn": 4'), "signature", UNSATISFIED),
    ],
    ids=["no-policy", "changed", "white-space"],
)
async def test_a_policy_that_does_not_verify_is_refused(spoil, name, code, by_source):
    files = LAB_WORLD.files()
    announced = push_peer_data(PolicyFiles(spoil(files.policy), files.chain))
    expected = PolicyErrorName.SignatureVerificationFailed if name == "signature" else name

    refused = await refused_migration(end(), replace(end(), announces=announced), by_source=by_source)

    assert refused.code == (code, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(expected)


async def test_a_destination_with_a_lower_policy_svn_is_refused_and_the_rule_explained():
    refused = await refused_migration(end(), end(changed(policy_svn=3)), by_source=True)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(PolicyErrorName.SvnMismatch)
    assert refused.error.explain[0] == "policyData policySvn: not met, judged by the source"
    assert refused.failed.explain[-1].startswith("not met: policyData policySvn: greater-or-equal 4")


# --- what the policy says --------------------------------------------------------------------------------------------
@SIDES
async def test_a_revoked_migtd_is_refused(by_source):
    revoked = changed(identity=LAB_WORLD.identity | {"tcbLevels": [level(3, status="Revoked")]})

    refused = await refused_migration(end(), end(revoked), by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is kind(PolicyErrorName.SvnMismatch)
    judge = "source" if by_source else "destination"
    assert refused.error.explain[0].endswith(f"not met, judged by the {judge}")


@SIDES
async def test_a_migtd_that_its_own_mapping_does_not_know_is_refused(by_source):
    refused = await refused_migration(end(), end(changed(blocks={}), mrtd="ab" * 48), by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.error.kind is kind(PolicyErrorName.UnqualifiedMigTdInfo)


@SIDES
async def test_a_platform_that_does_not_meet_the_own_policy_is_refused(by_source):
    rules = [platform_entry(tcb={"tcbDate": rule("greater-or-equal", "2030-01-01T00:00:00Z")})]
    lenient, demanding = changed(blocks={}), changed(blocks={"policy": rules})

    refused = await refused_migration(end(demanding), end(lenient), by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.error.kind is kind(PolicyErrorName.TcbEvaluation)
    assert refused.error.explain[1].strip() == 'wanted: greater-or-equal "2030-01-01T00:00:00Z"'


@pytest.mark.parametrize(("block", "by_source"), [("forwardPolicy", True), ("backwardPolicy", False)])
async def test_each_side_asks_its_own_block(block, by_source):
    rules = [platform_entry(tcb={"tcbDate": rule("greater-or-equal", "2030-01-01T00:00:00Z")})]
    strict, lenient = changed(blocks={block: rules}), changed(blocks={})

    refused = await refused_migration(end(strict), end(lenient), by_source=by_source)
    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.explain[-1].startswith(f"not met: block 1, {block}.global tcb.tcbDate")

    other_way = await (migrate(end(lenient), end(strict)) if by_source else migrate(end(strict), end(lenient)))
    assert (other_way.source.error, other_way.destination.error) == (None, None)


# --- evidence --------------------------------------------------------------------------------------------------------
@SIDES
async def test_a_quote_for_another_key_is_no_secure_session_and_comes_behind_the_policy(by_source):
    shown = replace(end(), bind=lambda report_data: flipped(report_data, 0))

    refused = await refused_migration(end(), shown, by_source=by_source)

    assert refused.code == (SESSION, SESSION)
    assert refused.failed.name is CheckName.REPORTDATA
    assert refused.error.kind is failures.REPORTDATA_MISMATCH
    assert CheckName.POLICY in passed(refused.judge)


@SIDES
async def test_a_policy_that_refuses_decides_before_the_key(by_source):
    shown = replace(end(changed(blocks={}), mrtd="ab" * 48), bind=lambda report_data: flipped(report_data, 0))

    refused = await refused_migration(end(), shown, by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)


def of_another_lab() -> End:
    pki = LabPki.from_seed("another lab")
    material = material_for(pki, PlatformSettings())
    foreign = Machine(material, platform_for(material, b"foreign".ljust(32, b"k")))
    return end(changed(data={"collaterals": collaterals_of(foreign, root=pki.root_ca)}), foreign)


async def test_a_quote_under_another_root_than_the_policys_is_refused():
    refused = await refused_migration(end(), of_another_lab(), by_source=True)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.QUOTE_PEER
    assert refused.error.kind is kind(PolicyErrorName.QuoteVerification)
    assert quote_failures.QUOTE_ROOT_UNTRUSTED.summary in refused.error.detail


async def test_a_destination_refuses_such_a_quote_too():
    error, check = await judged_by_destination(end(), of_another_lab())

    assert (error.result, error.kind) == (UNSATISFIED, kind(PolicyErrorName.QuoteVerification))
    assert check.name is CheckName.QUOTE_PEER


@SIDES
@pytest.mark.parametrize(
    ("change", "name", "failure"),
    [
        (lambda log: log[:72] + bytes(4) + log[76:], CheckName.EVENT_LOG_REPLAY, "event 0 has mr_index 0"),
        (lambda log: flipped(log, 72 + 14), CheckName.RTMRS_EQUAL, "RTMR0: "),
        (lambda log: log[:-1], CheckName.RTMRS_EQUAL, "RTMR2: "),
    ],
    ids=["no-register", "other-digest", "cut"],
)
async def test_a_log_that_does_not_explain_the_registers_is_refused(change, name, failure, by_source):
    shown = replace(end(), alter=lambda evidence: replace(evidence, event_log=change(evidence.event_log)))

    refused = await refused_migration(end(), shown, by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is name
    assert refused.error.kind is kind(PolicyErrorName.InvalidEventLog)
    assert failure in refused.error.detail


# --- the own quotes --------------------------------------------------------------------------------------------------
class Failing:
    """Refuses the quote of that number, from 0."""

    def __init__(self, number: int, change: Callable[[bytes], bytes] | None = None) -> None:
        self._inner, self._number, self._change, self._calls = quotes_of(), number, change, 0

    def get_quote(self, request: bytes, answered: Answered) -> None:
        assert isinstance(pull_request(request), QuoteRequest)
        self._calls += 1
        if self._calls - 1 != self._number:
            self._inner.get_quote(request, answered)
        elif self._change is None:
            self._inner.get_quote(request, lambda status, _data: answered(status, b""))
        else:
            change = self._change
            self._inner.get_quote(request, lambda status, data: answered(status, change(data)))


@SIDES
async def test_without_a_quote_to_show_the_side_says_so_behind_the_peers_certificate(by_source):
    refused = await refused_migration(end(quoting=Failing(0)), end(), by_source=by_source)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.QUOTE_LOCAL
    assert refused.error.kind is failures.GET_QUOTE_MALFORMED
    # A destination hears of it before: the source saw that there is nothing.
    assert (CheckName.PEER_DATA_HASH in passed(refused.judge)) is by_source


@SIDES
async def test_without_a_relative_reference_the_policy_cannot_be_asked(by_source):
    refused = await refused_migration(end(quoting=Failing(1)), end(), by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.QUOTE_LOCAL
    assert refused.error.kind is kind(PolicyErrorName.QuoteGeneration)
    assert CheckName.RTMRS_EQUAL in passed(refused.judge)


@SIDES
async def test_a_relative_reference_that_does_not_verify_is_the_own_quote_that_fails(by_source):
    # Behind the size and the header of the answer, its two sizes, and the header of the quote.
    spoiled = Failing(1, lambda data: flipped(data, 4 + 24 + 48 + 200))

    refused = await refused_migration(end(quoting=spoiled), end(), by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.QUOTE_LOCAL
    assert refused.error.kind is kind(PolicyErrorName.QuoteVerification)


async def test_what_the_peer_did_decides_before_a_missing_reference():
    shown = replace(end(), alter=lambda evidence: replace(evidence, event_log=evidence.event_log[:-1]))

    refused = await refused_migration(end(quoting=Failing(1)), shown, by_source=True)

    assert refused.failed.name is CheckName.RTMRS_EQUAL


async def test_every_session_asks_for_a_fresh_reference():
    class Counting:
        def __init__(self) -> None:
            self.reports: list[bytes] = []

        def get_quote(self, request: bytes, answered: Answered) -> None:
            pulled = pull_request(request)
            assert isinstance(pulled, QuoteRequest)
            self.reports.append(pulled.report[128:192])
            quotes_of().get_quote(request, answered)

    counting = Counting()
    own = end(quoting=counting)
    for _ in range(2):
        await migrate(own, end())

    assert len(counting.reports) == 4
    assert [any(report_data) for report_data in counting.reports] == [True, False, True, False]
    assert counting.reports[0] != counting.reports[2]


# --- collateral ------------------------------------------------------------------------------------------------------
async def test_collateral_is_verified_once_for_many_sessions(monkeypatch):
    calls: list[CollateralSet] = []

    def counted(collateral: CollateralSet, root_key: bytes) -> PreparedCollateral:
        calls.append(collateral)
        return prepare(collateral, root_key)

    monkeypatch.setattr(judging, "prepare", counted)
    source, destination = end(), end()

    for _ in range(3):
        await migrate(source, destination)

    assert len(calls) == 2


OTHER_MODEL = PlatformSettings(machine="other", fmspc=b"FMSPC!")


async def test_two_platform_models_meet_if_both_policies_hold_both():
    other = machine(OTHER_MODEL)
    both = changed(data={"collaterals": collaterals_of(OWN, other)})

    pair = await migrate(end(both), end(both, other))

    assert (pair.source.error, pair.destination.error) == (None, None)
    assert passed(pair.source) == passed(pair.destination) == SESSION_CHECKS


@SIDES
async def test_a_model_without_collateral_in_the_policy_does_not_verify(by_source):
    other = machine(OTHER_MODEL)
    both = changed(data={"collaterals": collaterals_of(OWN, other)})

    refused = await refused_migration(end(), end(both, other), by_source=by_source)

    assert refused.code == (UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.QUOTE_PEER
    assert refused.error.kind is kind(PolicyErrorName.QuoteVerification)
    assert "464D53504321" in refused.error.detail


async def test_with_a_clock_current_collateral_is_a_check_behind_the_peers_quote():
    pair = await migrate(end(clock=lambda: SEPTEMBER_2025), end())

    expected = list(SESSION_CHECKS)
    expected.insert(SESSION_CHECKS.index(CheckName.QUOTE_PEER) + 1, CheckName.COLLATERAL_CURRENT)
    assert passed(pair.source) == expected
    assert passed(pair.destination) == SESSION_CHECKS


@SIDES
async def test_with_a_clock_expired_collateral_is_refused(by_source):
    refused = await refused_migration(end(clock=lambda: SEPTEMBER_2031), end(), by_source=by_source)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.COLLATERAL_CURRENT
    assert refused.error.kind is quote_failures.COLLATERAL_NOT_CURRENT


# --- init data of the VMM --------------------------------------------------------------------------------------------
def tdinfo_with(own: End, mrowner: bytes | None = None, mrownerconfig: bytes | None = None) -> bytes:
    tdinfo = own_tdinfo(own.guest.tdcall)
    return b"".join((tdinfo[:112], mrowner or tdinfo[112:160], mrownerconfig or tdinfo[160:208], tdinfo[208:]))


async def test_init_data_of_the_own_signer_and_no_newer_is_accepted():
    own = end()

    own.mode.check_initial_tdinfo(tdinfo_with(own))
    own.mode.check_initial_tdinfo(tdinfo_with(own, mrownerconfig=svn_config(0)))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"mrowner": b"\x01" * 48}, PolicyErrorName.PolicyHashMismatch),
        ({"mrownerconfig": svn_config(5)}, PolicyErrorName.SvnMismatch),
        ({"mrownerconfig": svn_config(4)[:-1] + b"\x01"}, PolicyErrorName.InvalidParameter),
    ],
    ids=["other-owner", "newer", "more-than-an-svn"],
)
async def test_other_init_data_is_not_satisfied_by_the_policy(changes, name):
    own = end()

    with pytest.raises(PolicyUnsatisfiedError) as refused:
        own.mode.check_initial_tdinfo(tdinfo_with(own, **changes))

    assert refused.value.kind is kind(name)
    assert refused.value.result is MigrationResult.PolicyUnsatisfiedError


# --- what SPDM shows besides -----------------------------------------------------------------------------------------
async def test_a_destination_that_is_shown_the_first_migtd_judges_it_too():
    source = end()

    assert await checks_by_destination(end(), source, source.history()) == [
        *SESSION_CHECKS[SESSION_CHECKS.index(CheckName.OWN_TDINFO) : SESSION_CHECKS.index(CheckName.REPORTDATA)],
        CheckName.INITIAL_TDINFO,
    ]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (lambda history: replace(history, initial_tdinfo=b""), PolicyErrorName.InvalidParameter),
        (lambda history: replace(history, servtd_ext=b""), PolicyErrorName.InvalidParameter),
        (lambda history: replace(history, servtd_ext=bytes(272)), PolicyErrorName.InvalidTdReport),
    ],
    ids=["no-tdinfo", "no-ext", "another-ext"],
)
async def test_a_history_that_does_not_fit_is_refused(told, name):
    source = end()

    error, check = await judged_by_destination(end(), source, told(source.history()))

    assert (error.result, error.kind) == (UNSATISFIED, kind(name))
    assert check.name is CheckName.INITIAL_TDINFO


# --- what a session may not do ---------------------------------------------------------------------------------------
async def test_a_session_with_policy_v1_is_a_defect():
    own = end()

    with pytest.raises(RuntimeError):
        own.mode.judge(None, is_source=True, checks=None)  # type: ignore[arg-type] # nothing looks at them


async def test_the_emulated_migtd_is_what_the_worlds_mapping_knows():
    own = end()

    assert own_tdinfo(own.guest.tdcall)[16:64] == EMULATED_MRTD

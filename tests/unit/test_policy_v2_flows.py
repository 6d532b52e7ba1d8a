# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Who checks whom with policy v2, what first, and with whose documents (policy.md 2.6, 2.9)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from migtd import event_log, failures
from migtd.attestation.quote import failures as quote_failures
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.record import RANGES
from migtd.errors import TdxModuleError, VmmInternalError
from migtd.policy.errors import PolicyError
from migtd.policy.explain import Finding, Judge, Verdict
from migtd.policy.v2.evidence import Peer, Tools
from migtd.policy.v2.flows import (
    FirstMigTd,
    destination_checks_source,
    new_checks_old,
    old_checks_new,
    source_checks_destination,
    spdm_destination_checks_source,
)
from migtd.policy.v2.peer import PolicyFiles
from migtd.policy.v2.steps import SKIPPABLE, Step
from migtd.policy.v2.values import QuoteFacts, Values, values_of_quote
from tests.unit.policy_v2_world import (
    OTHER_ROOT,
    POLICY,
    STRANGER,
    Chain,
    World,
    identity,
    level,
    log_of,
    platform_entry,
    point,
    report_of,
    rule,
    servtd_entry,
    servtd_ext,
    svn_config,
    svn_mapping,
)

NEVER = [servtd_entry(isvsvn=rule("equal", 65_000))]
OLD_PLATFORM = [platform_entry(tcb={"tcbDate": rule("greater-or-equal", "2099")})]
OWNED: dict[str, Any] = {"mrowner": hashlib.sha384(point(POLICY)).digest(), "mrownerconfig": svn_config(4)}
OWN = World(**OWNED)

MIGRATION = [Step.OWN_POLICY, Step.QUOTE, Step.ENVELOPE, Step.REPLAY, Step.RTMRS, Step.PEER_POLICY, Step.PEER_CHAINS,
             Step.EVENTS, Step.POLICY_EVENT, Step.VALUES]  # fmt: skip
REBINDING = [Step.OWN_POLICY, Step.REPORT, Step.REPORT_MAC, Step.REPORT_HASHES, *MIGRATION[2:]]
FIRST = [Step.OWNER, Step.SERVTD_EXT, Step.SERVTD_EXT_HASH, Step.ENGINE]
FORWARD = [Step.RELATIVE, Step.COMMON_BLOCK, Step.FORWARD_BLOCK, Step.POLICY_SVN]

FLOWS = {
    source_checks_destination: [*MIGRATION, *FORWARD],
    destination_checks_source: [*MIGRATION, Step.RELATIVE, Step.COMMON_BLOCK, Step.BACKWARD_BLOCK],
    spdm_destination_checks_source: [
        *MIGRATION, Step.RELATIVE, Step.COMMON_BLOCK, Step.BACKWARD_BLOCK, *FIRST,
    ],
    old_checks_new: [*REBINDING, *FORWARD],
    new_checks_old: [*REBINDING, *FIRST, Step.RELATIVE, Step.BACKWARD_BLOCK],
}  # fmt: skip
MIGRATIONS = [source_checks_destination, destination_checks_source, spdm_destination_checks_source]
REBINDINGS = [old_checks_new, new_checks_old]
WITH_FIRST = [spdm_destination_checks_source, new_checks_old]


class Checked:
    """A flow between two worlds; `shown` replaces what the peer shows, `tools` what the own side uses."""

    def __init__(self, flow, own=OWN, peer=OWN, *, shown=None, first=None, evidence=None, tools=None):
        self.steps: list[Step] = []
        self.trace: list[Finding] = []
        self.accepted: Any = None
        if evidence is None:
            evidence = peer.quote() if flow in MIGRATIONS else peer.report()
        given = [own and own.own(), shown or peer.peer(), evidence]
        if flow in WITH_FIRST:
            given.append(first or peer.first())
        try:
            self.accepted = flow(*given, tools or OWN.tools(run=self.run), self.trace)
            self.verdict = "OK"
        except PolicyError as error:
            self.error = error
            self.verdict = error.name.name

    def run(self, step, check):
        self.steps.append(step)
        check()


def verdict(flow, own=OWN, peer=OWN, **given):
    return Checked(flow, own, peer, **given).verdict


# --- the order -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flow", FLOWS)
def test_the_steps_of_each_flow(flow):
    checked = Checked(flow)
    assert (checked.verdict, checked.steps) == ("OK", FLOWS[flow])


@pytest.mark.parametrize("flow", FLOWS)
def test_a_mode_can_leave_out_exactly_what_is_skippable(flow):
    def without(left_out):
        def run(step, check):
            if step is not left_out:
                check()

        return OWN.tools(run=run)

    for step in FLOWS[flow]:
        if step in SKIPPABLE:
            assert verdict(flow, tools=without(step)) == "OK"
        else:
            with pytest.raises(ValueError, match="cannot be left out"):
                verdict(flow, tools=without(step))


@pytest.mark.parametrize("flow", FLOWS)
def test_without_an_own_policy_nothing_is_judged(flow):
    assert verdict(flow, None) == "InvalidParameter"


@pytest.mark.parametrize("flow", FLOWS)
def test_the_first_trouble_decides(flow):
    """A peer with whom everything is wrong, repaired one by one."""
    shown = Peer(PolicyFiles(b"{}", b"\xff"), b"")
    bad_evidence, bad_evidence_verdict = (b"", "QuoteVerification") if flow in MIGRATIONS else (b"", "InvalidTdReport")
    assert verdict(flow, shown=shown, evidence=bad_evidence) == bad_evidence_verdict
    assert verdict(flow, shown=shown) == "InvalidPolicy"
    shown = replace(shown, files=PolicyFiles(b'{"policyData":1,"signature":"x"}', b"\xff"))
    assert verdict(flow, shown=shown) == "InvalidEventLog"
    shown = replace(shown, event_log=OWN.log())
    assert verdict(flow, shown=shown) == "InvalidPolicy"
    shown = replace(shown, files=replace(shown.files, chain=OWN.policy_chain.pem()))
    assert verdict(flow, shown=shown) == "InvalidParameter"
    shown = replace(shown, files=replace(shown.files, policy=b'{"policyData":1,"signature":"00"}'))
    assert verdict(flow, shown=shown) == "SignatureVerificationFailed"
    shown = replace(shown, files=World(policy_chain=Chain("Policy issuer", STRANGER, OTHER_ROOT)).files())
    assert verdict(flow, shown=shown) == "PeerCertChainValidation"
    shown = replace(shown, files=World(policy_svn=5).files())
    assert verdict(flow, shown=shown) == "PolicyHashMismatch"
    assert verdict(flow, shown=OWN.peer()) == "OK"


# --- evidence ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flow", MIGRATIONS)
def test_whatever_is_wrong_with_a_peers_quote_is_quote_verification(flow):
    quote = OWN.quote()
    assert verdict(flow, evidence=b"") == "QuoteVerification"
    assert verdict(flow, evidence=quote[:-1]) == "QuoteVerification"
    assert verdict(flow, own=World(data={"collaterals": OWN.collaterals() | {"platforms": []}})) == "QuoteVerification"
    for record in (b"", bytes(821)):
        assert verdict(flow, tools=OWN.tools(verify_quote=lambda *_, record=record: record)) == "QuoteVerification"


@pytest.mark.parametrize("flow", FLOWS)
def test_a_log_must_replay_to_the_registers(flow):
    other = World(log_change=lambda log: log[:-1] + event_log.push_event(event_log.separator_event(4)) + b"\0", **OWNED)
    checked = Checked(flow, peer=other)
    assert (checked.verdict, checked.steps[-1]) == ("InvalidEventLog", Step.RTMRS)


@pytest.mark.parametrize("mr_index", [0, 5])
@pytest.mark.parametrize("flow", FLOWS)
def test_an_event_of_no_register_is_refused_also_where_registers_are_not_compared(flow, mr_index):
    def with_event(log):
        return log[:-1] + event_log.push_event(event_log.separator_event(mr_index)) + b"\0"

    def run(step, check):
        if step is not Step.RTMRS:
            check()

    other = World(log_change=with_event, **OWNED)
    assert verdict(flow, peer=other, tools=OWN.tools(run=run)) == "InvalidEventLog"


@pytest.mark.parametrize("flow", FLOWS)
def test_the_policy_event_must_be_there_and_of_this_policy_also_where_registers_are_not_compared(flow):
    def run(step, check):
        if step is not Step.RTMRS:
            check()

    tools = OWN.tools(run=run)
    # Without its spare byte a log loses its last event, which is the policy's.
    assert verdict(flow, peer=World(log_change=lambda log: log[:-1], **OWNED), tools=tools) == "PolicyHashMismatch"
    assert verdict(flow, peer=World(log_change=lambda _: log_of(), **OWNED), tools=tools) == "PolicyHashMismatch"
    assert verdict(flow, shown=replace(OWN.peer(), event_log=World(policy_svn=9).log()), tools=tools) == (
        "PolicyHashMismatch"
    )
    broken = log_of(event_log.Event(3, event_log.EV_EVENT_TAG, bytes(48), b"\1"))
    assert verdict(flow, shown=replace(OWN.peer(), event_log=broken), tools=tools) == "InvalidEventLog"


@pytest.mark.parametrize("flow", REBINDINGS)
def test_a_report_is_judged_by_size_then_mac_then_hashes(flow):
    forged = report_of(OWN.tdinfo(), tdinfo_hash=bytes(48))
    asked = []

    def refuse(mac_struct):
        asked.append(mac_struct)
        return False

    assert verdict(flow, evidence=forged[:-1], tools=OWN.tools(verify_report=refuse)) == "InvalidTdReport"
    assert asked == []
    assert verdict(flow, evidence=forged, tools=OWN.tools(verify_report=refuse)) == "TdReportVerification"
    assert asked == [forged[:256]]
    assert verdict(flow, evidence=forged) == "InvalidTdReport"
    assert verdict(flow, evidence=OWN.report() + b"more") == "OK"

    def fail(_mac_struct):
        raise TdxModuleError(failures.INTERNAL)

    assert verdict(flow, tools=OWN.tools(verify_report=fail)) == "TdReportVerification"
    made = OWN.tools()
    assert verdict(flow, tools=Tools(made.verify_quote, made.local_quote)) == "TdReportVerification"


def test_the_evidence_is_handed_on_for_its_reportdata():
    assert Checked(old_checks_new).accepted.evidence == OWN.report()
    record = Checked(source_checks_destination).accepted.evidence
    assert record[RANGES["mrtd"]] == OWN.mrtd


# --- the relative reference ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("flow", FLOWS)
def test_the_own_quote_is_made_anew_for_each_check_after_the_peer_and_before_the_blocks(flow):
    asked: list[int] = []

    def quote():
        asked.append(len(asked))
        return OWN.quote()

    tools = OWN.tools(local_quote=quote)
    for _ in range(2):
        assert verdict(flow, tools=tools) == "OK"
    assert asked == [0, 1]
    # Not for a peer that is refused before; but for one that is refused by a block, whatever the rules are.
    assert verdict(flow, shown=Peer(PolicyFiles(b"", b""), b""), tools=tools) == "InvalidPolicy"
    assert len(asked) == 2
    refusing = World(blocks=dict.fromkeys(("policy", "forwardPolicy", "backwardPolicy"), NEVER), **OWNED)
    assert verdict(flow, own=refusing, tools=tools) == "SvnMismatch"
    assert len(asked) == 3


def raising(error):
    def call(*_arguments):
        raise error

    return call


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (raising(TdxModuleError(failures.INTERNAL)), "GetTdxReport"),
        (raising(VmmInternalError(failures.INTERNAL)), "QuoteGeneration"),
        (lambda: b"no quote", "InvalidQuote"),
        (lambda: replace(OWN, platform=replace(OWN.platform, sgx=replace(OWN.platform.sgx, fmspc=b"\1" * 6))).quote(),
         "InvalidCollateral"),
        (lambda: OWN.quote()[:-1], "QuoteVerification"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flow", FLOWS)
def test_what_is_wrong_with_the_own_quote_keeps_its_name_and_comes_before_the_blocks(flow, tool, expected):
    refusing = World(blocks=dict.fromkeys(("policy", "forwardPolicy", "backwardPolicy"), NEVER), **OWNED)
    assert verdict(flow, own=refusing, tools=OWN.tools(local_quote=tool)) == expected


def test_self_is_the_own_engine_by_the_own_documents():
    own = World(blocks={"forwardPolicy": [servtd_entry(isvsvn=rule("greater-or-equal", "self"))]})
    rtmrs = event_log.replay(own.log())
    for svn, expected in ((2, "SvnMismatch"), (3, "OK"), (4, "OK")):
        # The same measurements are another SVN in the peer's mapping.
        theirs = [svn_mapping(svn, mrtd=own.mrtd, rtmr0=rtmrs[0], rtmr1=rtmrs[1])]
        assert verdict(source_checks_destination, own, replace(own, mappings=theirs)) == expected
    # Without a mapping of the own measurements self stands for nothing.
    assert verdict(source_checks_destination, replace(own, mappings=[]), own) == "InvalidReference"


# --- the blocks of each flow ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flow", "judged"),
    [
        (source_checks_destination, {"policy", "forwardPolicy"}),
        (destination_checks_source, {"policy", "backwardPolicy"}),
        (spdm_destination_checks_source, {"policy", "backwardPolicy"}),
        (old_checks_new, {"policy", "forwardPolicy"}),
        (new_checks_old, {"backwardPolicy"}),
    ],
)
def test_the_blocks_of_the_own_policy_that_each_flow_evaluates(flow, judged):
    for name in ("policy", "forwardPolicy", "backwardPolicy"):
        refusing = World(blocks={name: NEVER}, **OWNED)
        assert verdict(flow, own=refusing) == ("SvnMismatch" if name in judged else "OK")
        # What the peer's policy says of anybody counts for nothing.
        assert verdict(flow, peer=refusing) == "OK"
        old = World(blocks={name: OLD_PLATFORM}, **OWNED)
        skipped = flow in REBINDINGS or name not in judged
        assert verdict(flow, own=old) == ("OK" if skipped else "TcbEvaluation")


@pytest.mark.parametrize("flow", FLOWS)
def test_policies_without_blocks_still_refuse_an_unknown_engine(flow):
    bare = World(blocks={}, **OWNED)
    assert verdict(flow, own=bare, peer=bare) == "OK"
    unknown = World(blocks={}, mappings=[], **OWNED)
    assert verdict(flow, own=bare, peer=unknown) == "UnqualifiedMigTdInfo"
    revoked = World(blocks={}, identity=identity() | {"tcbLevels": [level(3, status="Revoked")]}, **OWNED)
    assert verdict(flow, own=bare, peer=revoked) == "SvnMismatch"
    # The own identity does not say what the peer is.
    assert verdict(flow, own=revoked, peer=bare) == "OK"


@pytest.mark.parametrize("flow", FLOWS)
def test_only_the_one_who_hands_over_wants_a_policy_that_is_not_older(flow):
    hands_over = flow in (source_checks_destination, old_checks_new)
    older, newer = World(policy_svn=3, **OWNED), World(policy_svn=5, **OWNED)
    assert verdict(flow, peer=older) == ("SvnMismatch" if hands_over else "OK")
    assert verdict(flow, peer=newer) == "OK"
    trace = Checked(flow, peer=older).trace
    assert (trace[-1].name == "policySvn") is hands_over
    if hands_over:
        assert (trace[-1].verdict, trace[-1].local, trace[-1].peer) == (Verdict.NOT_MET, "4", "3")


def test_the_trace_says_who_judges_and_by_which_block():
    judges = {flow: {each.judge for each in Checked(flow).trace} for flow in FLOWS}
    source = {source_checks_destination, old_checks_new}
    assert judges == {flow: {Judge.SOURCE if flow in source else Judge.DESTINATION} for flow in FLOWS}
    parts = {each.part.partition(".")[0] for each in Checked(source_checks_destination).trace}
    assert parts == {"policy", "forwardPolicy", "policyData"}


# --- rebinding looks at less ---------------------------------------------------------------------------------------
def test_a_mapping_that_pins_rtmr2_matches_a_quote_and_never_a_report():
    rtmrs = event_log.replay(OWN.log())
    pinned = [svn_mapping(3, mrtd=OWN.mrtd, rtmr0=rtmrs[0], rtmr1=rtmrs[1], rtmr3=rtmrs[3])]
    peer = World(mappings=pinned, **OWNED)
    assert verdict(source_checks_destination, peer=peer) == "OK"
    assert verdict(old_checks_new, peer=peer) == "UnqualifiedMigTdInfo"


# --- the first MigTD -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flow", WITH_FIRST)
def test_the_first_migtd_is_judged_by_owner_then_hash_then_engine(flow):
    tdinfo = OWN.tdinfo()
    stranger = tdinfo[:112] + bytes(48) + tdinfo[160:]
    newer = tdinfo[:160] + svn_config(5) + tdinfo[208:]
    ext = servtd_ext(tdinfo).push()
    assert verdict(flow, first=FirstMigTd(tdinfo[:-1], b"")) == "InvalidParameter"
    assert verdict(flow, first=FirstMigTd(stranger, b"")) == "PolicyHashMismatch"
    assert verdict(flow, first=FirstMigTd(newer, b"")) == "SvnMismatch"
    assert verdict(flow, first=FirstMigTd(tdinfo, ext[:-1])) == "InvalidParameter"
    assert verdict(flow, first=FirstMigTd(tdinfo, servtd_ext(stranger).push())) == "InvalidTdReport"
    assert verdict(flow, first=FirstMigTd(tdinfo, servtd_ext(tdinfo, init_attr=1 << 34).push())) == "InvalidTdReport"
    assert verdict(flow, first=FirstMigTd(tdinfo, ext + b"more")) == "OK"


@pytest.mark.parametrize("flow", WITH_FIRST)
def test_the_masked_tdinfo_is_what_the_engine_check_sees(flow):
    tdinfo, ignores_mrtd = OWN.tdinfo(), 1 << 34
    masked = tdinfo[:16] + bytes(48) + tdinfo[64:]
    first = FirstMigTd(tdinfo, servtd_ext(masked, ignores_mrtd).push())
    assert verdict(flow, first=first) == "SvnMismatch"
    rtmrs = event_log.replay(OWN.log())
    known = [*OWN.own_mapping(), svn_mapping(1, mrtd=bytes(48), rtmr0=rtmrs[0], rtmr1=rtmrs[1])]
    assert verdict(flow, own=replace(OWN, mappings=known), first=first) == "OK"


@pytest.mark.parametrize("flow", WITH_FIRST)
def test_engines_are_looked_up_in_the_own_mapping(flow):
    """The evaluation asks the peer's mapping, the engine check the own one."""
    rtmrs = event_log.replay(OWN.log())
    elsewhere = [svn_mapping(3, mrtd=b"\7" * 48, rtmr0=rtmrs[0], rtmr1=rtmrs[1])]
    assert verdict(flow, peer=replace(OWN, mappings=elsewhere)) == "UnqualifiedMigTdInfo"
    bare = replace(OWN, blocks={}, mappings=elsewhere)
    checked = Checked(flow, own=bare)
    assert (checked.verdict, checked.steps[-1]) == ("SvnMismatch", Step.ENGINE)


# --- values --------------------------------------------------------------------------------------------------------
RECORD = Checked(source_checks_destination).accepted.evidence


def values(record, fmspc="A0B1C2D3E4F5", **collaterals):
    own = World(data={"collaterals": OWN.collaterals() | collaterals}).own().policy
    try:
        return values_of_quote(QuoteFacts(record, fmspc), own.data.collaterals, own)
    except PolicyError as error:
        return error.name.name


def test_the_values_of_a_quote():
    assert values(RECORD) == Values(
        tcb_date="2024-03-13T00:00:00Z",
        tcb_status="UpToDate",
        tcb_evaluation_number=17,
        fmspc="A0B1C2D3E4F5",
        pck_crl_num=8,
        root_ca_crl_num=3,
        migtd_isvsvn=3,
        migtd_tcb_date="2025-02-01T00:00:00Z",
        migtd_tcb_status="UpToDate",
    )


def patched(name, value):
    place = RANGES[name]
    return RECORD[: place.start] + value.ljust(place.stop - place.start, b"\0") + RECORD[place.stop :]


def test_the_first_trouble_with_values_decides():
    broken = {"platforms": [], "pckCrl": "", "rootCaCrl": ""}
    platforms = OWN.collaterals()["platforms"]
    assert values(RECORD[:-1], **broken) == "InvalidParameter"
    assert values(patched("platform_status", b"\xff"), **broken) == "InvalidParameter"
    assert values(patched("tcb_date", b"\xff" * 7 + b"\x7f"), **broken) == "InvalidParameter"
    assert values(RECORD + b"\0", **broken) == "InvalidCollateral"
    assert values(RECORD + b"\0", platforms=platforms, pckCrl="") == "InvalidParameter"
    assert values(RECORD, pckCrl="") == "InvalidCollateral"
    assert values(RECORD, rootCaCrl="") == "InvalidCollateral"
    assert values(RECORD, platforms=[platforms[0] | {"tcbInfo": "{}"}]) == "InvalidCollateral"


def test_the_status_ends_at_the_first_nul_and_a_date_may_be_before_1970():
    assert values(patched("platform_status", b"Up\0ToDate\xff")).tcb_status == "Up"
    assert values(patched("platform_status", b"x" * 32)).tcb_status == "x" * 32
    assert values(patched("tcb_date", b"\xff" * 8)).tcb_date == "1969-12-31T23:59:59Z"


def test_collateral_numbers_of_the_peer_come_from_the_own_collaterals():
    newer = replace(OWN.platform, pck_crl=replace(OWN.platform.pck_crl, number=99))
    wants = World(blocks={"policy": [platform_entry(crl={"pckCrlNum": rule("greater-or-equal", 9)})]})
    assert verdict(source_checks_destination, own=wants, peer=replace(OWN, platform=newer)) == "CrlEvaluation"


def test_a_verifier_that_refuses_is_told_with_its_reason():
    error = QuoteError(quote_failures.QUOTE_TCB_REVOKED, "level 3")
    checked = Checked(source_checks_destination, tools=OWN.tools(verify_quote=raising(error)))
    assert checked.verdict == "QuoteVerification"
    assert "level 3" in str(checked.error)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Mutual attestation with policy v1: two MigTDs in memory, what each checks, and what each says when one refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from migtd import event_log, failures
from migtd.attestation import policy_v1
from migtd.attestation.mode import Evidence, PeerEvidence
from migtd.attestation.quote import failures as quote_failures
from migtd.checks import Check, CheckName, CheckRunner, CheckStatus
from migtd.choices import SKIPS_OF
from migtd.errors import InvalidPolicyError, MigTDError, SecureSessionError
from migtd.guest.events import MAX_EXPLAIN
from migtd.guest.quote_messages import QuoteRequest, pull_request
from migtd.policy.failures import KINDS, PolicyErrorName
from migtd.policy.v1.document import PolicyV1, parse_policy
from tests.unit.policy_v1_sessions import (
    OWN,
    POLICY,
    Showing,
    captured_end,
    end,
    flipped,
    judged,
    meet,
    passed,
    policy_with,
    refusal_by,
    showing_log,
    showing_quote,
)
from vmm_stub.quoting.material import material_for, platform_for
from vmm_stub.quoting.pki import LabPki
from vmm_stub.quoting.service import LabQuoting, StagedQuoting
from vmm_stub.quoting.settings import PlatformSettings
from vmm_stub.testing_quoting import Machine, machine

SESSION_CHECKS = [
    CheckName.TLS_PARAMETERS,
    CheckName.QUOTE_LOCAL,
    CheckName.CERTIFICATE,
    CheckName.CERTIFICATE_EKU,
    CheckName.EVIDENCE_PRESENT,
    CheckName.QUOTE_PEER,
    CheckName.REPORTDATA,
    CheckName.CERTIFICATE_SIGNATURE,
    CheckName.EVENT_LOG_REPLAY,
    CheckName.RTMRS_EQUAL,
    CheckName.POLICY,
    CheckName.EXCHANGE_INFORMATION,
]
"""Those of the protocol, in the order of ghci-ratls.md 5 for policy v1; the driver adds two behind them."""
SIDES = pytest.mark.parametrize("by_source", [True, False], ids=["by-source", "by-destination"])
ATTESTATION, SESSION, POLICY_UNSATISFIED, INVALID_POLICY = 7, 6, 8, 9
OTHER_MODEL = PlatformSettings(machine="other", fmspc=b"FMSPC!")
FOREIGN_PKI = LabPki.from_seed("another lab")
IN_TIME, LATER, EARLIER = (datetime(year, 9, 1, tzinfo=UTC).timestamp() for year in (2025, 2031, 2024))


def foreign_machine() -> Machine:
    material = material_for(FOREIGN_PKI, PlatformSettings())
    return Machine(material, platform_for(material, b"foreign".ljust(32, b"k")))


# --- both are what they should be ------------------------------------------------------------------------------------
async def test_both_sides_pass_every_check_in_the_order_of_the_specification():
    pair = await meet(end(), end())

    for side in (pair.source, pair.destination):
        assert side.error is None
        assert [(check.name, check.status) for check in side.checks] == [
            (name, CheckStatus.PASSED) for name in SESSION_CHECKS
        ]
    assert pair.source.information is not None
    assert pair.destination.information is not None


async def test_what_was_found_is_told_also_where_all_is_well():
    pair = await meet(end(), end())

    details = {check.name: check for check in pair.source.checks}
    assert details[CheckName.QUOTE_PEER].detail.startswith("UpToDate, FMSPC 4D4C41420000, TCB of 2025-05-14")
    assert details[CheckName.POLICY].detail == "policy v1, 25 rules met"
    assert len(details[CheckName.POLICY].explain) == 25
    assert all(line.startswith("met: ") for line in details[CheckName.POLICY].explain)


async def test_alternatives_that_are_not_met_are_no_met_rules():
    def add(blocks: list[dict[str, Any]]) -> None:
        rule = {"operation": "equal", "reference": 9}
        blocks.insert(1, {"TDXModule": {"TDXModule_Identity": {"TDXModuleMajorVersion": rule}}})

    pair = await meet(end(policy=policy_with(add)), end(policy=policy_with(add)))

    check = next(check for check in pair.source.checks if check.name is CheckName.POLICY)
    assert check.detail == "policy v1, 25 rules met"
    assert sum(line.startswith("not met: ") for line in check.explain) == 1


async def test_captured_quotes_leave_out_two_named_checks_and_nothing_else():
    pair = await meet(captured_end(OWN.quote()), captured_end(OWN.quote()))

    for side in (pair.source, pair.destination):
        skipped = {check.name: check.detail for check in side.checks if check.status is CheckStatus.SKIPPED}
        assert skipped == SKIPS_OF["captured"]
        assert set(skipped) == {CheckName.REPORTDATA, CheckName.RTMRS_EQUAL}
        assert passed(side) == [name for name in SESSION_CHECKS if name not in skipped]
        assert side.error is None


async def test_a_mode_serves_one_session_after_the_other():
    source, destination = end(), end()

    for _ in range(3):
        pair = await meet(source, destination)
        assert (pair.source.error, pair.destination.error) == (None, None)


async def test_the_policy_is_decoded_once(monkeypatch):
    calls: list[bytes] = []

    def counted(data: bytes) -> PolicyV1:
        calls.append(data)
        return parse_policy(data)

    monkeypatch.setattr(policy_v1, "parse_policy", counted)
    source, destination = end(), end()
    assert calls == []

    for _ in range(3):
        await meet(source, destination)

    assert calls == [POLICY, POLICY]


# --- quotes ----------------------------------------------------------------------------------------------------------
@SIDES
async def test_a_quote_under_a_foreign_root_is_no_mutual_attestation(by_source):
    refused = await judged(end(), showing_quote(end(), lambda _: foreign_machine().quote()), by_source=by_source)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.QUOTE_PEER
    assert refused.error.kind is quote_failures.QUOTE_ROOT_UNTRUSTED


async def test_hosts_of_two_labs_do_not_meet():
    foreign = end(foreign_machine(), root_ca=FOREIGN_PKI.root_ca)

    refused = await judged(end(), foreign, by_source=True)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.error.kind is quote_failures.QUOTE_ROOT_UNTRUSTED


@SIDES
async def test_a_side_whose_own_quote_does_not_verify_says_so_itself(by_source):
    # Its host's collateral ends in another root than its configuration names; its quote is good for the peer.
    broken = machine()
    material = replace(broken.material, collateral=foreign_machine().material.collateral)

    refused = await judged(end(Machine(material, broken.platform)), end(), by_source=by_source)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.QUOTE_LOCAL
    assert refused.error.kind is quote_failures.COLLATERAL_ROOT_UNTRUSTED


async def test_a_quote_that_its_own_host_spoiled_is_found_by_the_side_that_would_show_it():
    spoiled = end(quoting=Spoiling(LabQuoting(OWN.material, lambda: OWN.platform)))

    refused = await judged(spoiled, end(), by_source=True)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.QUOTE_LOCAL
    assert refused.error.kind is quote_failures.QUOTE_SIGNATURE


class Spoiling:
    """A quoting service with one bad bit in the body of its quotes."""

    def __init__(self, inner):
        self._inner = inner

    def get_quote(self, request, answered):
        def spoil(status, data):
            # Behind the size and the header of the answer, its two sizes, and the header of the quote.
            is_quote = isinstance(pull_request(request), QuoteRequest)
            answered(status, flipped(data, 4 + 24 + 48 + 200) if is_quote else data)

        self._inner.get_quote(request, spoil)


async def test_a_host_that_makes_no_quote_for_a_forged_report_ends_the_session_of_its_own_side():
    def forging(guest):
        return replace(guest, tdcall=Forging(guest.tdcall))

    pair = await meet(end(platform=forging), end())

    refused = refusal_by(pair.source, pair.destination)
    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.QUOTE_LOCAL
    assert refused.error.kind is failures.GET_QUOTE_REFUSED


class Forging:
    """A TDX module whose reports were changed on the way to the host."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def mr_report(self, report_data):
        return flipped(self._inner.mr_report(report_data), 600)


@SIDES
async def test_a_quote_for_another_key_is_no_secure_session(by_source):
    shown = Showing(end(), bind=lambda report_data: flipped(report_data, 0))

    refused = await judged(end(), shown, by_source=by_source)

    assert refused.code == (SESSION, SESSION)
    assert refused.failed.name is CheckName.REPORTDATA
    assert refused.error.kind is failures.REPORTDATA_MISMATCH


async def test_all_64_bytes_of_reportdata_count():
    mode, report_data = end(), bytes(range(64))
    own = await mode.local_evidence(report_data)
    judge = mode.judge(own, is_source=True, checks=CheckRunner({}, lambda _: None))
    judge.verify_quote(PeerEvidence(own.quote, own.event_log, report_data))

    for at in range(64):
        with pytest.raises(SecureSessionError) as refused:
            judge.verify_quote(PeerEvidence(own.quote, own.event_log, flipped(report_data, at)))
        assert refused.value.kind is failures.REPORTDATA_MISMATCH


# --- event log -------------------------------------------------------------------------------------------------------
def with_bad_register(log: bytes) -> bytes:
    """The first event names RTMR -1."""
    return log[:72] + bytes(4) + log[76:]


@SIDES
@pytest.mark.parametrize("change", [with_bad_register, lambda log: log[:71]], ids=["no-register", "cut"])
async def test_a_log_that_cannot_be_replayed_is_refused(change, by_source):
    refused = await judged(end(), showing_log(end(), change), by_source=by_source)

    assert refused.code == (POLICY_UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.EVENT_LOG_REPLAY
    assert refused.error.kind is failures.EVENT_LOG_MALFORMED


@SIDES
async def test_a_log_that_explains_other_registers_is_refused_and_both_values_are_told(by_source):
    def other_digest(log: bytes) -> bytes:
        return flipped(log, 72 + 14)

    refused = await judged(end(), showing_log(end(), other_digest), by_source=by_source)

    assert refused.code == (POLICY_UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.RTMRS_EQUAL
    assert refused.error.kind is failures.RTMRS_DIFFER
    own = await end().local_evidence(bytes(64))
    replayed, good = event_log.replay(other_digest(own.event_log)), event_log.replay(own.event_log)
    assert refused.error.detail == "RTMR0"
    assert refused.error.explain == (f"RTMR0: the log gives {replayed[0].hex()}, the quote has {good[0].hex()}",)


async def test_a_log_without_its_last_event_is_refused():
    refused = await judged(end(), showing_log(end(), lambda log: log[:-1]), by_source=True)

    assert refused.code == (POLICY_UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.RTMRS_EQUAL


async def test_captured_logs_must_have_their_structure_all_the_same():
    shown = showing_log(captured_end(OWN.quote()), with_bad_register)

    refused = await judged(captured_end(OWN.quote()), shown, by_source=True)

    assert refused.code == (POLICY_UNSATISFIED, SESSION)
    assert refused.error.kind is failures.EVENT_LOG_MALFORMED


# --- policy ----------------------------------------------------------------------------------------------------------
def with_anything_measured(blocks: list[dict[str, Any]]) -> None:
    """Two sides with different policies have different RTMRs: let that be."""
    del blocks[3]["MigTD"]["TDINFO"]["RTMR2"], blocks[3]["MigTD"]["EventLog"]["Digest.MigTdPolicy"]


def demanding(blocks: list[dict[str, Any]]) -> None:
    with_anything_measured(blocks)
    blocks[0]["Platform"]["TcbInfo"]["pcesvn"] = {"operation": "greater-or-equal", "reference": 99}


LENIENT = policy_with(with_anything_measured)
DEMANDING = policy_with(demanding)


@SIDES
async def test_a_peer_that_does_not_meet_the_policy_is_refused_and_the_rule_explained(by_source):
    refused = await judged(end(policy=DEMANDING), end(policy=LENIENT), by_source=by_source)

    assert refused.code == (POLICY_UNSATISFIED, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is KINDS[PolicyErrorName.UnqualifiedPlatformInfo]
    judge = "source" if by_source else "destination"
    assert refused.error.explain[0] == f"block 1, Platform.TcbInfo pcesvn: not met, judged by the {judge}"
    assert refused.error.explain[1:] == (
        "  wanted: greater-or-equal 99",
        "  local:  0d00 (record bytes 606 to 608)",
        "  peer:   0d00",
    )
    assert refused.failed.explain[-1].startswith("not met: block 1, Platform.TcbInfo pcesvn: greater-or-equal 99")


@SIDES
async def test_a_policy_that_is_none_is_an_invalid_policy_once_there_is_a_peer(by_source):
    refused = await judged(end(policy=b'{"id": 1'), end(policy=LENIENT), by_source=by_source)

    assert refused.code == (INVALID_POLICY, SESSION)
    assert refused.failed.name is CheckName.POLICY
    assert refused.error.kind is KINDS[PolicyErrorName.InvalidPolicy]
    assert "line 1, column" in refused.error.detail


async def test_what_comes_before_the_policy_decides_before_a_policy_that_is_none():
    broken = end(policy=b"{")

    quote = await judged(broken, showing_quote(end(), lambda quote: flipped(quote, 100)), by_source=True)
    log = await judged(broken, showing_log(end(), lambda log: flipped(log, 72 + 14)), by_source=True)

    assert (quote.code[0], log.code[0]) == (ATTESTATION, POLICY_UNSATISFIED)
    assert log.failed.name is CheckName.RTMRS_EQUAL


def test_a_policy_of_thousands_of_rules_ends_with_an_explanation_of_one_screen():
    names = ("MISCSELECT", "ATTRIBUTES", "MRSIGNER", "ISVPRODID", "ISVSVN")
    met = {"QE": {"QeIdentity": {name: {"operation": "equal", "reference": "self"} for name in names}}}
    unmet = {"QE": {"QeIdentity": {"ISVSVN": {"operation": "equal", "reference": 77}}}}
    document = json.loads(POLICY) | {"policy": [json.loads(POLICY)["policy"][0], *[met] * 3_000, unmet]}
    trust = policy_v1.Trust(json.dumps(document, separators=(",", ":")).encode(), b"")
    checks: list[Check] = []
    # What a session verified before: both sides are the same machine.
    record, log = bytes(822), event_log.push_spec_id() + b"\0"
    unused: Any = None
    mode = policy_v1.PolicyV1("lab", {}, tdcall=unused, quotes=unused, log=unused, trust=trust)
    judge: Any = mode.judge(Evidence(b"", log), is_source=True, checks=CheckRunner({}, checks.append))
    judge._peer = PeerEvidence(b"", log, bytes(64))
    judge._local_record = judge._peer_record = record[:328] + bytes(192) + record[520:]

    with pytest.raises(MigTDError) as refused:
        judge.evaluate_policy()

    lines = checks[-1].explain
    assert lines[-1].startswith("not met: block 3002, QE.QeIdentity ISVSVN")
    assert lines[-2].endswith("more rules")
    assert sum(len(line.encode()) + 5 for line in lines) <= MAX_EXPLAIN
    assert len(refused.value.explain) == 4


# --- start -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("policy", "root_ca", "missing"), [(b"", b"x", "policy"), (b"{}", b"", "root CA")])
async def test_without_policy_or_root_there_is_no_start(policy, root_ca, missing):
    with pytest.raises(InvalidPolicyError) as refused:
        end(policy=policy, root_ca=root_ca)

    assert (refused.value.kind, refused.value.detail) == (failures.CONFIGURATION_MISSING, missing)


async def test_a_root_that_is_no_certificate_is_no_start():
    with pytest.raises(InvalidPolicyError) as refused:
        end(root_ca=b"no certificate")

    assert refused.value.kind is quote_failures.COLLATERAL_ROOT_CA_INVALID


async def test_a_policy_that_no_certificate_can_carry_is_refused_at_start_and_a_large_one_is_served():
    def padded(size: int) -> bytes:
        return POLICY + b" " * (size - len(POLICY))

    large = end(policy=padded(53_000))
    pair = await meet(large, end(policy=padded(53_000)))
    assert (pair.source.error, pair.destination.error) == (None, None)

    with pytest.raises(InvalidPolicyError) as refused:
        end(policy=padded(55_000))
    assert refused.value.kind is failures.POLICY_TOO_LARGE


# --- time ------------------------------------------------------------------------------------------------------------
async def test_the_age_of_collateral_is_no_check_unless_there_is_a_clock():
    timeless = await meet(end(), end())
    assert CheckName.COLLATERAL_CURRENT not in passed(timeless.source)

    current = await meet(end(clock=lambda: IN_TIME), end())
    expected = list(SESSION_CHECKS)
    expected.insert(SESSION_CHECKS.index(CheckName.REPORTDATA), CheckName.COLLATERAL_CURRENT)
    assert passed(current.source) == expected
    assert passed(current.destination) == SESSION_CHECKS


@SIDES
@pytest.mark.parametrize(("now", "day"), [(LATER, "2031-09-01"), (EARLIER, "2024-09-01")], ids=["expired", "not-yet"])
async def test_with_a_clock_collateral_that_is_not_current_is_refused(now, day, by_source):
    refused = await judged(end(clock=lambda: now), end(), by_source=by_source)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.COLLATERAL_CURRENT
    assert refused.error.kind is quote_failures.COLLATERAL_NOT_CURRENT
    assert f"it is {day}" in refused.error.detail


# --- two platform models ---------------------------------------------------------------------------------------------
def own_knowing_the_other() -> Machine:
    return machine(others=[OTHER_MODEL])


def other_knowing_ours() -> Machine:
    return machine(OTHER_MODEL, others=[PlatformSettings()])


def for_both_models(blocks: list[dict[str, Any]]) -> None:
    with_anything_measured(blocks)
    (rules,) = [block["Platform"] for block in blocks if "Platform" in block]
    blocks[:1] = [
        {"fmspc": fmspc.hex().upper(), "Platform": rules} for fmspc in (bytes.fromhex("4D4C41420000"), b"FMSPC!")
    ]


async def test_two_models_meet_if_both_policies_name_both():
    policy = policy_with(for_both_models)

    pair = await meet(end(own_knowing_the_other(), policy=policy), end(other_knowing_ours(), policy=policy))

    assert (pair.source.error, pair.destination.error) == (None, None)
    assert passed(pair.source) == passed(pair.destination) == SESSION_CHECKS


@SIDES
async def test_a_policy_for_the_own_model_refuses_another(by_source):
    policy = policy_with(for_both_models)

    refused = await judged(
        end(own_knowing_the_other(), policy=LENIENT), end(other_knowing_ours(), policy=policy), by_source=by_source
    )

    assert refused.code == (POLICY_UNSATISFIED, SESSION)
    assert refused.error.kind is KINDS[PolicyErrorName.PlatformNotMatch]
    assert "own FMSPC 4D4C41420000, peer's 464D53504321" in refused.error.detail


async def test_without_collateral_for_the_peers_model_its_quote_does_not_verify():
    refused = await judged(end(machine()), end(other_knowing_ours()), by_source=True)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.error.kind is quote_failures.QUOTE_FMSPC_MISMATCH
    assert "464D53504321" in refused.error.detail


async def test_collateral_for_the_peers_model_is_not_waited_for():
    own = own_knowing_the_other()
    staged = Staged(LabQuoting(own.material, lambda: own.platform))

    refused = await judged(end(own, quoting=staged), end(other_knowing_ours()), by_source=True)

    assert refused.code == (ATTESTATION, SESSION)
    assert refused.failed.name is CheckName.QUOTE_PEER
    assert refused.error.kind is failures.DEADLINE_QUOTE


class Staged:
    """Quotes and the own model's collateral at once; what is asked for after these stays in flight."""

    def __init__(self, inner):
        self._calls = 0
        self._now, self._later = inner, StagedQuoting(inner, hold=True)

    def get_quote(self, request, answered):
        self._calls += 1
        (self._now if self._calls <= 2 else self._later).get_quote(request, answered)

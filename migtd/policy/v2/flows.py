# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Who checks whom with policy v2, in the reference's order: the first check that fails decides (policy.md 2.9).

    source_checks_destination, destination_checks_source    migration
    spdm_destination_checks_source                          over SPDM, with what is known of the first MigTD
    old_checks_new, new_checks_old                          rebinding

Nothing here has effects of its own: quotes and reports are given, and what verifies them or makes the own quote is
called at its place. Every check is a `Step` that goes through the caller's `Run`. All raise PolicyError.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import Finding, Judge, Verdict
from migtd.policy.tdinfo import masked_tdinfo, verify_servtd_info_hash
from migtd.policy.v2.blocks import BACKWARD, COMMON, FORWARD, Notes, ShownRule, evaluate_block
from migtd.policy.v2.document import VerifiedPolicy
from migtd.policy.v2.entries import Entry
from migtd.policy.v2.evidence import Peer, Tools, pull_own_values, verify_migration_peer, verify_rebinding_peer
from migtd.policy.v2.owner import expect_engine_not_older, expect_owner, expect_owner_of_record
from migtd.policy.v2.servtd import Measurements
from migtd.policy.v2.servtd_ext import pull_servtd_ext
from migtd.policy.v2.startup import OwnPolicy
from migtd.policy.v2.steps import Step, must
from migtd.policy.v2.tdreport import tdinfo_measurements, tdinfo_owner
from migtd.policy.v2.values import QuoteFacts, Values, measurements_of_record

_BLOCK_STEPS = {COMMON: Step.COMMON_BLOCK, FORWARD: Step.FORWARD_BLOCK, BACKWARD: Step.BACKWARD_BLOCK}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A peer that was accepted: its policy, what was judged, and the own values beside it.

    `evidence` is the verified quote's record, 822 bytes, or the TDREPORT: the session compares its REPORTDATA.
    """

    policy: VerifiedPolicy
    values: Values
    relative: Values
    evidence: bytes


@dataclass(frozen=True, slots=True)
class FirstMigTd:
    """What is told of the MigTD that a target TD was bound to first: its TDINFO, and SERVTD_EXT as bytes."""

    init_tdinfo: bytes
    servtd_ext: bytes


def source_checks_destination(
    own: OwnPolicy | None, peer: Peer, quote: bytes, tools: Tools, trace: list[Finding] | None = None
) -> Accepted:
    """Migration, on the source: common part, relative reference, `policy`, `forwardPolicy`, policySvn."""
    own = _present(own, tools)
    policy, facts, values = verify_migration_peer(own, peer, quote, tools)
    judging = _Judging(own, policy, values, tools, _notes(Judge.SOURCE, trace), skip_global=False)
    relative = judging.blocks(COMMON, FORWARD)
    judging.expect_policy_svn()
    return Accepted(policy, values, relative, facts.record)


def destination_checks_source(
    own: OwnPolicy | None, peer: Peer, quote: bytes, tools: Tools, trace: list[Finding] | None = None
) -> Accepted:
    """Migration, on the destination: common part, relative reference, `policy`, `backwardPolicy`."""
    return _check_source(_present(own, tools), peer, quote, tools, trace)[0]


def spdm_destination_checks_source(
    own: OwnPolicy | None,
    peer: Peer,
    quote: bytes,
    first: FirstMigTd,
    tools: Tools,
    trace: list[Finding] | None = None,
) -> Accepted:
    """The same, and then the owner in the quote, SERVTD_EXT, its hash and the engine."""
    own = _present(own, tools)
    accepted, facts = _check_source(own, peer, quote, tools, trace)
    tools.run(Step.OWNER, lambda: expect_owner_of_record(first.init_tdinfo, facts.record))
    _check_first(own, first, measurements_of_record(facts.record), tools)
    return accepted


def old_checks_new(
    own: OwnPolicy | None, peer: Peer, report: bytes, tools: Tools, trace: list[Finding] | None = None
) -> Accepted:
    """Rebinding, on the old MigTD: common part, relative reference, `policy`, `forwardPolicy`, policySvn."""
    own = _present(own, tools)
    policy, pulled, values = verify_rebinding_peer(own, peer, report, tools)
    judging = _Judging(own, policy, values, tools, _notes(Judge.SOURCE, trace), skip_global=True)
    relative = judging.blocks(COMMON, FORWARD)
    judging.expect_policy_svn()
    return Accepted(policy, values, relative, pulled.data)


def new_checks_old(
    own: OwnPolicy | None,
    peer: Peer,
    report: bytes,
    first: FirstMigTd,
    tools: Tools,
    trace: list[Finding] | None = None,
) -> Accepted:
    """Rebinding, on the new MigTD: common part, owner, SERVTD_EXT, engine, relative reference, `backwardPolicy`.

    The block `policy` is not evaluated here, as in the reference (policy.md 7.1).
    """
    own = _present(own, tools)
    policy, pulled, values = verify_rebinding_peer(own, peer, report, tools)
    tools.run(Step.OWNER, lambda: expect_owner(first.init_tdinfo, *tdinfo_owner(pulled.tdinfo)))
    _check_first(own, first, tdinfo_measurements(pulled.tdinfo), tools)
    judging = _Judging(own, policy, values, tools, _notes(Judge.DESTINATION, trace), skip_global=True)
    relative = judging.blocks(BACKWARD)
    return Accepted(policy, values, relative, pulled.data)


def _check_source(
    own: OwnPolicy, peer: Peer, quote: bytes, tools: Tools, trace: list[Finding] | None
) -> tuple[Accepted, QuoteFacts]:
    policy, facts, values = verify_migration_peer(own, peer, quote, tools)
    judging = _Judging(own, policy, values, tools, _notes(Judge.DESTINATION, trace), skip_global=False)
    relative = judging.blocks(COMMON, BACKWARD)
    return Accepted(policy, values, relative, facts.record), facts


def _check_first(own: OwnPolicy, first: FirstMigTd, peer: Measurements, tools: Tools) -> None:
    """SERVTD_EXT parses, approves the initial TDINFO, and what is left of that is no newer than the peer."""
    ext = must(tools.run, Step.SERVTD_EXT, lambda: pull_servtd_ext(first.servtd_ext))

    def check_hash() -> None:
        verify_servtd_info_hash(first.init_tdinfo, ext.init_attr, ext.init_servtd_info_hash)

    def check_engine() -> None:
        masked = masked_tdinfo(first.init_tdinfo, ext.init_attr)
        expect_engine_not_older(own.policy.mapping, peer, masked)

    tools.run(Step.SERVTD_EXT_HASH, check_hash)
    tools.run(Step.ENGINE, check_engine)


@dataclass(frozen=True, slots=True)
class _Judging:
    """The own policy applied to a peer whose evidence and policy are verified."""

    own: OwnPolicy
    peer: VerifiedPolicy
    values: Values
    tools: Tools
    notes: Notes
    skip_global: bool

    def blocks(self, *names: str) -> Values:
        """Obtain the relative reference, then evaluate blocks of the own policy; returns the reference."""
        relative = must(self.tools.run, Step.RELATIVE, lambda: pull_own_values(self.own, self.tools))
        for name in names:
            must(self.tools.run, _BLOCK_STEPS[name], partial(self._evaluate, name, relative))
        return relative

    def expect_policy_svn(self) -> None:
        """The peer's policySvn is not below the own one."""
        must(self.tools.run, Step.POLICY_SVN, self._expect_policy_svn)

    def _evaluate(self, name: str, relative: Values) -> None:
        block = _block(self.own.policy, name)
        evaluate_block(block, self.values, relative, name=name, skip_global=self.skip_global, notes=self.notes)

    def _expect_policy_svn(self) -> None:
        own, peer = self.own.policy.data.policy_svn, self.peer.data.policy_svn
        rule = ShownRule(0, "policyData", "policySvn", "greater-or-equal", str(own), "the policies")
        self.notes.add(rule, Verdict.MET if peer >= own else Verdict.NOT_MET, own, peer)
        if peer < own:
            raise PolicyError(PolicyErrorName.SvnMismatch, f"the peer's policySvn is {peer}, the own {own}")


def _block(policy: VerifiedPolicy, name: str) -> tuple[Entry, ...] | None:
    return {
        COMMON: policy.data.policy,
        FORWARD: policy.data.forward_policy,
        BACKWARD: policy.data.backward_policy,
    }[name]


def _present(own: OwnPolicy | None, tools: Tools) -> OwnPolicy:
    return must(tools.run, Step.OWN_POLICY, lambda: _expect_present(own))


def _expect_present(own: OwnPolicy | None) -> OwnPolicy:
    if own is None:
        raise PolicyError(PolicyErrorName.InvalidParameter, "there is no own policy to judge by")
    return own


def _notes(judge: Judge, trace: list[Finding] | None) -> Notes:
    return Notes(judge, [] if trace is None else trace)

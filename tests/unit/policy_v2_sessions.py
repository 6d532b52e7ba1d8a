# SPDX-License-Identifier: BSD-2-Clause-Patent
"""MigTDs with policy v2, each on a host of its own with quotes: migrations and rebindings between them in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from migtd.attestation.mode import Evidence, PeerEvidence
from migtd.attestation.policy_v2 import PolicyV2
from migtd.checks import Check, CheckName, CheckRunner, CheckStatus
from migtd.choices import attestation_choice
from migtd.errors import MigTDError
from migtd.guest.configuration import GivenConfiguration
from migtd.guest.emulated import emulated_guest
from migtd.guest.interfaces import Guest
from migtd.migration.data import ExchangeInformation
from migtd.migration.rebinding import own_tdinfo
from migtd.migration.session import (
    EvidenceNeeded,
    OldSide,
    RebindingContext,
    SessionContext,
    SessionProtocol,
    SwappedPeerData,
    TargetHistory,
)
from migtd.policy.v2.peer import PolicyFiles
from migtd.ratls.session import RaTls
from migtd.ratls.testing import ConnectionPair, Side
from tests.unit.policy_v1_sessions import Refusal, refusal_by
from tests.unit.policy_v2_world import World, point, servtd_ext, svn_config
from vmm_stub.quoting.captured import CapturedQuoting, mock_report
from vmm_stub.quoting.interface import Quoting
from vmm_stub.quoting.service import LabQuoting
from vmm_stub.tdx_module.service_td import emulated_mrtd
from vmm_stub.testing import MIGTD, SMALL_MEMORY, host_config
from vmm_stub.testing_quoting import PKI, Machine, machine
from vmm_stub.vmm import factory
from vmm_stub.vmm.control.models import MigTdConfig
from vmm_stub.vmm.in_process import InProcessChannel

SOURCE = ExchangeInformation(bytes(range(32)), 1, 2)
DESTINATION = ExchangeInformation(bytes(range(100, 132)), 0, 3)
TOKEN: Final = bytes(range(32))
OWN: Final = machine()
EMULATED_MRTD: Final = emulated_mrtd("MigTD")


def collaterals_of(*machines: Machine, root: bytes = PKI.root_ca) -> dict[str, Any]:
    """The collaterals of a policy: those of the machines' platforms, the first one's for all else."""
    made = [each.material.collateral for each in machines]
    return {
        "majorVersion": made[0].major,
        "minorVersion": made[0].minor,
        "teeType": made[0].tee_type,
        "rootCa": x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM).decode(),
        "pckCrlIssuerChain": made[0].pck_crl_issuer_chain.decode(),
        "rootCaCrl": made[0].root_ca_crl.decode(),
        "pckCrl": made[0].pck_crl.decode(),
        "platforms": [
            {
                "fmspc": json.loads(each.tcb_info)["tcbInfo"]["fmspc"],
                "tcbInfoIssuerChain": each.tcb_info_issuer_chain.decode(),
                "tcbInfo": each.tcb_info.decode(),
            }
            for each in made
        ],
        "qeIdentityIssuerChain": made[0].qe_identity_issuer_chain.decode(),
        "qeIdentity": made[0].qe_identity.decode(),
    }


LAB_WORLD: Final = World(mrtd=EMULATED_MRTD, data={"collaterals": collaterals_of(OWN)})
"""A policy of which a MigTD in the emulated TD, on the lab's machine, is a MigTD with SVN 3."""


def owner_of(world: World) -> dict[str, str]:
    """What a host provisions a MigTD with: MROWNER and MROWNERCONFIG, as MigTdConfig takes them."""
    mrowner = hashlib.sha384(point(world.policy_chain.key)).hexdigest()
    return {"mrowner": mrowner, "mrownerconfig": svn_config(world.policy_svn).hex()}


def configuration_of(files: PolicyFiles) -> GivenConfiguration:
    return GivenConfiguration(files.policy, given_policy_issuer_chain=files.chain)


def _honest(evidence: Evidence) -> Evidence:
    return evidence


def _own_key(report_data: bytes) -> bytes:
    return report_data


@dataclass(frozen=True)
class End:
    """A MigTD that has started. `alter` changes what it shows, `bind` the REPORTDATA that it asks for.

    `announces` is what it sends before the session, and certifies, in the place of its policy; `arrives` is what comes
    of that. It judges as if it were honest.
    """

    mode: PolicyV2
    guest: Guest
    alter: Callable[[Evidence], Evidence] = _honest
    bind: Callable[[bytes], bytes] = _own_key
    announces: bytes | None = None
    arrives: bytes | None = None

    @property
    def peer_data(self) -> bytes:
        return self.mode.peer_data if self.announces is None else self.announces

    def history(self) -> TargetHistory:
        """Of a target TD that was bound to this MigTD from the beginning."""
        tdinfo = own_tdinfo(self.guest.tdcall)
        return TargetHistory(servtd_ext(tdinfo).push(), tdinfo)


def end(
    world: World = LAB_WORLD,
    own: Machine = OWN,
    *,
    files: PolicyFiles | None = None,
    quoting: Quoting | None = None,
    clock: Callable[[], float] | None = None,
    platform: Callable[[Guest], Guest] = lambda guest: guest,
    **td: Any,
) -> End:
    """A MigTD in mode `lab` that has started with the policy of `world`, on its own host; `td` goes to MigTdConfig."""
    values = {"name": MIGTD, "channel": "", "shared_memory": SMALL_MEMORY, **owner_of(world), **td}
    service = quoting or LabQuoting(own.material, lambda: own.platform)
    vmm = factory.make_vmm(host_config(migtds=[MigTdConfig(**values)]), machine=factory.Machine(own.platform, service))
    guest = emulated_guest(InProcessChannel(vmm.migtd(MIGTD)), configuration_of(files or world.files()))
    return _started("lab", platform(guest), clock)


def captured_end(quote: bytes, world: World, own: Machine = OWN) -> End:
    """The same in mode `captured`, with a quote from elsewhere."""
    host = factory.Machine(own.platform, CapturedQuoting(quote), mock_report(quote))
    vmm = factory.make_vmm(host_config(), machine=host)
    return _started("captured", emulated_guest(InProcessChannel(vmm.migtd(MIGTD)), configuration_of(world.files())))


def _started(name: str, guest: Guest, clock: Callable[[], float] | None = None) -> End:
    mode = attestation_choice(name, clock)(guest)
    assert isinstance(mode, PolicyV2)
    return End(mode, guest)


async def migrate(source: End, destination: End) -> ConnectionPair:
    """One migration of the two, to its end."""

    def made(side: End, peer: End, local: ExchangeInformation, checks: list[Check]) -> SessionProtocol:
        runner = CheckRunner(side.mode.skips, checks.append)
        swapped = SwappedPeerData(side.peer_data, peer.peer_data if peer.arrives is None else peer.arrives)
        return RaTls()(SessionContext(side is source, local, side.mode, runner, swapped))

    return ConnectionPair(
        await _attested(source, lambda checks: made(source, destination, SOURCE, checks), source.mode.local_evidence),
        await _attested(
            destination, lambda checks: made(destination, source, DESTINATION, checks), destination.mode.local_evidence
        ),
    ).run()


async def rebind(old: End, new: End, shown: TargetHistory | None = None) -> ConnectionPair:
    """One rebinding from `old`, which shows its own history of the target TD or another, to `new`."""
    old_side = OldSide(shown or old.history(), TOKEN)

    def made(side: End, peer: End, checks: list[Check]) -> SessionProtocol:
        runner = CheckRunner(side.mode.rebinding_skips, checks.append)
        swapped = SwappedPeerData(side.peer_data, peer.peer_data if peer.arrives is None else peer.arrives)
        return RaTls().rebinding(RebindingContext(side.mode, runner, swapped, old_side if side is old else None))

    return ConnectionPair(
        await _attested(old, lambda checks: made(old, new, checks), old.mode.local_report),
        await _attested(new, lambda checks: made(new, old, checks), new.mode.local_report),
    ).run()


async def _attested(end: End, make: Callable[[list[Check]], SessionProtocol], evidence_for: Any) -> Side:
    checks: list[Check] = []
    session = make(checks)
    needed = session.next_event()
    assert isinstance(needed, EvidenceNeeded)
    try:
        evidence: Evidence | MigTDError = end.alter(await evidence_for(end.bind(needed.report_data)))
    except MigTDError as error:
        evidence = error
    side = Side(session, evidence, checks, [needed])
    side.answer()
    return side


async def refused_migration(judge: End, shown: End, *, by_source: bool) -> Refusal:
    """A migration that ends in a refusal by `judge`, which plays the source or the destination."""
    pair = await (migrate(judge, shown) if by_source else migrate(shown, judge))
    return refusal_by(pair.source, pair.destination) if by_source else refusal_by(pair.destination, pair.source)


_NOTHING: Final = TargetHistory(b"", b"")


async def judged_by_destination(judge: End, shown: End, history: TargetHistory = _NOTHING) -> tuple[MigTDError, Check]:
    """What a destination makes of a source that would refuse it first: its error, and the check that failed."""
    checks: list[Check] = []
    with pytest.raises(MigTDError) as refused:
        await _judge_source(judge, shown, history, checks)
    assert [check for check in checks if check.status is CheckStatus.FAILED] == checks[-1:]
    return refused.value, checks[-1]


async def checks_by_destination(judge: End, shown: End, history: TargetHistory) -> list[CheckName]:
    """The checks that a destination makes of a source which it accepts and which shows a history, as over SPDM."""
    checks: list[Check] = []
    await _judge_source(judge, shown, history, checks)
    assert {check.status for check in checks} == {CheckStatus.PASSED}
    return [check.name for check in checks]


async def _judge_source(judge: End, shown: End, history: TargetHistory, checks: list[Check]) -> None:
    local, peer = await judge.mode.local_evidence(bytes(64)), await shown.mode.local_evidence(bytes(64))
    judging = judge.mode.judge_migration(local, is_source=False, checks=CheckRunner({}, checks.append))
    judging.evaluate(
        PeerEvidence(peer.quote, peer.event_log, bytes(64), shown.peer_data, history.servtd_ext, history.initial_tdinfo)
    )


async def refused_rebinding(judge: End, shown: End, *, by_old: bool, history: TargetHistory | None = None) -> Refusal:
    """A rebinding that ends in a refusal by `judge`, which plays the old or the new MigTD."""
    pair = await (rebind(judge, shown, history) if by_old else rebind(shown, judge, history))
    judging, other = (pair.source, pair.destination) if by_old else (pair.destination, pair.source)
    assert judging.agreed is None
    return refusal_by(judging, other)


def skipped(side: Side) -> dict[CheckName, str]:
    return {check.name: check.detail for check in side.checks if check.status is CheckStatus.SKIPPED}

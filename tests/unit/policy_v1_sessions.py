# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Two MigTDs with policy v1, each on a host of its own with quotes: sessions between them in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from lab.policies import default_v1
from migtd.attestation.mode import AttestationMode, Evidence, Judge
from migtd.checks import Check, CheckName, CheckRunner, CheckStatus
from migtd.choices import attestation_choice
from migtd.errors import MigTDError
from migtd.guest.configuration import GivenConfiguration
from migtd.guest.emulated import emulated_guest
from migtd.guest.interfaces import Guest
from migtd.migration.data import ExchangeInformation
from migtd.ratls.session import RaTls
from migtd.ratls.testing import ConnectionPair, Side, attested_side
from vmm_stub.quoting.captured import CapturedQuoting, mock_report
from vmm_stub.quoting.interface import Quoting
from vmm_stub.testing import MIGTD, host_config
from vmm_stub.testing_quoting import PKI, Machine, machine, quoting_vmm
from vmm_stub.vmm import factory
from vmm_stub.vmm.in_process import InProcessChannel

POLICY = default_v1()
SOURCE = ExchangeInformation(bytes(range(32)), 1, 2)
DESTINATION = ExchangeInformation(bytes(range(100, 132)), 0, 3)
OWN = machine()


def end(
    own: Machine = OWN,
    *,
    policy: bytes = POLICY,
    root_ca: bytes = PKI.root_ca,
    quoting: Quoting | None = None,
    clock: Callable[[], float] | None = None,
    platform: Callable[[Guest], Guest] = lambda guest: guest,
) -> AttestationMode:
    """A MigTD in mode `lab` that has started on its own host; `platform` may replace parts of its guest."""
    channel = InProcessChannel(quoting_vmm(own, quoting).migtd(MIGTD))
    guest = platform(emulated_guest(channel, GivenConfiguration(policy, root_ca)))
    return attestation_choice("lab", clock)(guest)


def captured_end(quote: bytes, own: Machine = OWN, *, policy: bytes = POLICY) -> AttestationMode:
    """The same in mode `captured`, with a quote and the collateral of the machine."""
    service = CapturedQuoting(quote, own.material.collateral)
    vmm = factory.make_vmm(host_config(), machine=factory.Machine(own.platform, service, mock_report(quote)))
    guest = emulated_guest(InProcessChannel(vmm.migtd(MIGTD)), GivenConfiguration(policy, PKI.root_ca))
    return attestation_choice("captured")(guest)


class Showing:
    """A mode that shows something else than it has; it judges, itself too, as if it were honest.

    `alter` changes the evidence, `bind` the REPORTDATA that it asks a quote for.
    """

    v2: Final = None

    def __init__(
        self,
        mode: AttestationMode,
        alter: Callable[[Evidence], Evidence] = lambda evidence: evidence,
        bind: Callable[[bytes], bytes] = lambda report_data: report_data,
    ) -> None:
        self.name = mode.name
        self.skips: Mapping[CheckName, str] = mode.skips
        self._mode = mode
        self._alter = alter
        self._bind = bind
        self._honest: Evidence | None = None

    async def local_evidence(self, report_data: bytes) -> Evidence:
        self._honest = await self._mode.local_evidence(self._bind(report_data))
        return self._alter(self._honest)

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> Judge:
        return self._mode.judge(self._honest or local, is_source=is_source, checks=checks)


async def meet(source: AttestationMode, destination: AttestationMode) -> ConnectionPair:
    """One session of the two, to its end."""
    return ConnectionPair(
        await attested_side(RaTls(), source, SOURCE, is_source=True),
        await attested_side(RaTls(), destination, DESTINATION, is_source=False),
    ).run()


async def judged(judge: AttestationMode, shown: AttestationMode, *, by_source: bool) -> Refusal:
    """A session that ends in a refusal by `judge`, which plays the source or the destination."""
    pair = await (meet(judge, shown) if by_source else meet(shown, judge))
    if by_source:
        return refusal_by(pair.source, pair.destination)
    return refusal_by(pair.destination, pair.source)


@dataclass(frozen=True)
class Refusal:
    """What the side that judged made of it, and what the other heard."""

    judge: Side
    error: MigTDError
    other: MigTDError

    @property
    def failed(self) -> Check:
        """The check that failed: the last one that was made, and the only one."""
        failed = [check for check in self.judge.checks if check.status is CheckStatus.FAILED]
        assert failed == self.judge.checks[-1:]
        return failed[0]

    @property
    def code(self) -> tuple[int, int]:
        """MigrationResult of the judge and of the other side."""
        return int(self.error.result), int(self.other.result)


def refusal_by(side: Side, other: Side) -> Refusal:
    """Make sure that `side` refused, that no key came to it and that the other side ended too."""
    assert side.error is not None
    assert other.error is not None
    assert side.information is None
    assert other.information is None
    return Refusal(side, side.error, other.error)


def passed(side: Side) -> list[CheckName]:
    return [check.name for check in side.checks if check.status is CheckStatus.PASSED]


def policy_with(change: Callable[[list[dict[str, Any]]], None]) -> bytes:
    """The policy that labs start with, its blocks changed: platform, TDX module, QE, MigTD."""
    document = json.loads(POLICY)
    change(document["policy"])
    return json.dumps(document).encode()


def showing_quote(mode: AttestationMode, change: Callable[[bytes], bytes]) -> AttestationMode:
    return Showing(mode, lambda evidence: replace(evidence, quote=change(evidence.quote)))


def showing_log(mode: AttestationMode, change: Callable[[bytes], bytes]) -> AttestationMode:
    return Showing(mode, lambda evidence: replace(evidence, event_log=change(evidence.event_log)))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

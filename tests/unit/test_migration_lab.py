# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whole migrations in the lab's default mode: two hosts with quotes and two MigTDs in one process, over TCP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from migtd.checks import CheckName, CheckStatus
from migtd.choices import attestation_choice
from migtd.errors import MigrationResult
from migtd.guest.configuration import GivenConfiguration
from migtd.observer import Phase
from tests.unit.policy_v1_sessions import POLICY
from tests.unit.test_attestation_policy_v1 import DEMANDING, LENIENT, SESSION_CHECKS
from vmm_stub.quoting.material import push_material
from vmm_stub.testing_live import LiveSide, live_side, outcome_of
from vmm_stub.testing_quoting import PKI, machine
from vmm_stub.vmm.control.models import LabQuotingConfig, Role, SideOutcome

CHECKS = [*SESSION_CHECKS, CheckName.SERVTD_ATTR, CheckName.VERSIONS]


def lab_side(role: Role, policy: bytes) -> contextlib.AbstractAsyncContextManager[LiveSide]:
    """A host that quotes, with a MigTD that has this policy."""
    configuration = GivenConfiguration(policy, PKI.root_ca)
    return live_side(
        role,
        host={"quoting": LabQuotingConfig(material=push_material(machine().material))},
        attestation=attestation_choice("lab"),
        platform=lambda guest: replace(guest, configuration=configuration),
    )


@contextlib.asynccontextmanager
async def migrated(
    source_policy: bytes, destination_policy: bytes
) -> AsyncIterator[tuple[LiveSide, LiveSide, SideOutcome, SideOutcome]]:
    """One migration, ended on both sides."""
    async with (
        lab_side(Role.SOURCE, source_policy) as source,
        lab_side(Role.DESTINATION, destination_policy) as destination,
    ):
        there = await destination.begin()
        here = await source.begin(there.model().address)
        await asyncio.gather(here.ended.wait(), there.ended.wait())
        for side in (source, destination):
            side.expect_one_report()
            await side.expect_nothing_left()
        yield source, destination, outcome_of(here), outcome_of(there)


async def test_both_sides_pass_all_checks_and_have_each_others_key():
    async with migrated(POLICY, POLICY) as (source, destination, here, there):
        for side, outcome in ((source, here), (destination, there)):
            assert [(check.name, check.status) for check in outcome.checks] == [
                (name, CheckStatus.PASSED) for name in CHECKS
            ]
            assert len(outcome.checks) == 14
            assert outcome.phase is Phase.DONE
            side.expect_key(written=True)
        assert here.fingerprints.sent == there.fingerprints.received
        assert there.fingerprints.sent == here.fingerprints.received


async def test_a_refusal_by_policy_explains_itself_in_error_and_trace_and_writes_no_key():
    async with migrated(DEMANDING, LENIENT) as (source, destination, here, there):
        assert (here.code, there.code) == (MigrationResult.PolicyUnsatisfiedError, MigrationResult.SecureSessionError)
        for side in (source, destination):
            side.expect_key(written=False)
        assert here.error is not None
        assert here.error.id == "MIGTD-POLICY-UNQUALIFIED-PLATFORM-INFO"
        assert here.error.explain[0] == "block 1, Platform.TcbInfo pcesvn: not met, judged by the source"
        assert [line for line in here.trace if "not met: block 1, Platform.TcbInfo pcesvn" in line]
        assert there.error is not None
        assert there.error.id == "MIGTD-TLS-ALERT"
        assert not there.error.explain


async def test_a_refusal_by_the_destination_leaves_the_source_without_key_too():
    async with migrated(LENIENT, DEMANDING) as (source, destination, here, there):
        assert (here.code, there.code) == (MigrationResult.SecureSessionError, MigrationResult.PolicyUnsatisfiedError)
        for side in (source, destination):
            side.expect_key(written=False)
        assert there.error is not None
        assert there.error.explain[0].endswith("judged by the destination")

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whole migrations and rebindings with policy v2 in mode `lab`: hosts that quote, and MigTDs, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from lab.invariants.checker import check_history
from lab.testing_histories import live_pair
from migtd.attestation.quote.collateral import push_packed
from migtd.checks import CheckName, CheckStatus
from migtd.choices import REBINDING_SKIPS_OF, attestation_choice
from migtd.errors import MigrationResult
from migtd.guest.interfaces import Guest
from migtd.migration.rebinding import own_tdinfo
from migtd.observer import Phase
from tests.unit.policy_v2_sessions import LAB_WORLD, OWN, configuration_of, owner_of
from tests.unit.policy_v2_world import World, level, svn_config, svn_mapping
from tests.unit.test_attestation_policy_v2 import SESSION_CHECKS
from tests.unit.test_attestation_rebinding_v2 import NEW_CHECKS, OLD_CHECKS, rotated_worlds
from vmm_stub.quoting.material import push_material
from vmm_stub.testing import MIGTD, SMALL_MEMORY, migration_request
from vmm_stub.testing_live import LiveSide, live_side, outcome_of
from vmm_stub.testing_rebinding import NEW, OLD, RebindingHost, encoded, rebinding_host
from vmm_stub.vmm.control.models import CapturedQuotingConfig, LabQuotingConfig, MigTdConfig, Role, SideOutcome

CHECKS = [*SESSION_CHECKS, CheckName.SERVTD_ATTR, CheckName.VERSIONS]
OLD_PARTS = [CheckName.SERVTD_ATTR, *OLD_CHECKS]
"""What the old MigTD checks: first that the target TD's binding ignores nothing of it."""


def quoting() -> LabQuotingConfig:
    return LabQuotingConfig(material=push_material(OWN.material))


def migtd_config(name: str, world: World) -> MigTdConfig:
    return MigTdConfig.model_validate({"name": name, "channel": "", "shared_memory": SMALL_MEMORY, **owner_of(world)})


def with_files_of(world: World) -> Callable[[Guest], Guest]:
    return lambda guest: replace(guest, configuration=configuration_of(world.files()))


def lab_side(role: Role, world: World) -> contextlib.AbstractAsyncContextManager[LiveSide]:
    """A host that quotes, with a MigTD that has this world's policy and owner."""
    return live_side(
        role,
        host={"quoting": quoting(), "migtds": [migtd_config(MIGTD, world)]},
        attestation=attestation_choice("lab"),
        platform=with_files_of(world),
    )


@contextlib.asynccontextmanager
async def migrated(
    of_source: World, of_destination: World
) -> AsyncIterator[tuple[LiveSide, LiveSide, SideOutcome, SideOutcome]]:
    """One migration, ended on both sides."""
    async with lab_side(Role.SOURCE, of_source) as source, lab_side(Role.DESTINATION, of_destination) as destination:
        there = await destination.begin()
        here = await source.begin(there.model().address)
        await asyncio.gather(here.ended.wait(), there.ended.wait())
        for side in (source, destination):
            side.expect_one_report()
            await side.expect_nothing_left()
        yield source, destination, outcome_of(here), outcome_of(there)


def rebinding(of_old: World = LAB_WORLD, of_new: World = LAB_WORLD) -> Any:
    """A host whose two MigTDs have policies and owners of their own."""
    return rebinding_host(
        attestation=attestation_choice("lab"),
        old=with_files_of(of_old),
        new=with_files_of(of_new),
        quoting=quoting(),
        migtds=[migtd_config(OLD, of_old), migtd_config(NEW, of_new)],
    )


def of_another_owner(tdinfo: bytes) -> bytes:
    return tdinfo[:112] + b"\x01" * 48 + tdinfo[160:]


# --- migration -------------------------------------------------------------------------------------------------------
async def test_both_sides_pass_all_checks_and_have_each_others_key():
    async with migrated(LAB_WORLD, LAB_WORLD) as (source, destination, here, there):
        for side, outcome in ((source, here), (destination, there)):
            assert [(check.name, check.status) for check in outcome.checks] == [
                (name, CheckStatus.PASSED) for name in CHECKS
            ]
            assert len(outcome.checks) == 16
            assert outcome.phase is Phase.DONE
            side.expect_key(written=True)
        assert here.fingerprints.sent == there.fingerprints.received
        assert there.fingerprints.sent == here.fingerprints.received


async def test_a_refusal_by_policy_explains_itself_in_error_and_trace_and_writes_no_key():
    async with migrated(LAB_WORLD, replace(LAB_WORLD, policy_svn=3)) as (source, destination, here, there):
        assert (here.code, there.code) == (MigrationResult.PolicyUnsatisfiedError, MigrationResult.SecureSessionError)
        for side in (source, destination):
            side.expect_key(written=False)
        assert here.error is not None
        assert here.error.id == "MIGTD-POLICY-SVN-MISMATCH"
        assert here.error.explain[0] == "policyData policySvn: not met, judged by the source"
        assert [line for line in here.trace if "not met: policyData policySvn" in line]
        assert there.error is not None
        assert there.error.id == "MIGTD-TLS-ALERT"


async def test_a_refusal_by_the_destination_leaves_the_source_without_key_too():
    revoked = replace(LAB_WORLD, identity=LAB_WORLD.identity | {"tcbLevels": [level(3, status="Revoked")]})
    async with migrated(revoked, LAB_WORLD) as (source, destination, here, there):
        assert (here.code, there.code) == (MigrationResult.SecureSessionError, MigrationResult.PolicyUnsatisfiedError)
        for side in (source, destination):
            side.expect_key(written=False)
        assert there.error is not None
        assert there.error.explain[0].endswith("judged by the destination")


async def test_init_data_of_another_owner_is_refused_before_anything_is_said():
    async with lab_side(Role.SOURCE, LAB_WORLD) as source, lab_side(Role.DESTINATION, LAB_WORLD) as destination:
        there = await destination.begin()
        request = migration_request(source.target, peer=there.model().address)
        tdinfo = of_another_owner(own_tdinfo(source.td.guest.tdcall))
        here = await source.vmm.start_migration(request.model_copy(update={"initial_tdinfo": tdinfo}))
        await asyncio.gather(here.ended.wait(), there.ended.wait())

        outcome, other = outcome_of(here), outcome_of(there)
        assert (outcome.code, other.code) == (MigrationResult.PolicyUnsatisfiedError, MigrationResult.NetworkError)
        assert outcome.error is not None
        assert outcome.error.id == "MIGTD-POLICY-POLICY-HASH-MISMATCH"
        assert outcome.checks == other.checks == []
        source.expect_key(written=False)


async def test_init_data_of_the_own_signer_is_no_hindrance():
    async with lab_side(Role.SOURCE, LAB_WORLD) as source, lab_side(Role.DESTINATION, LAB_WORLD) as destination:
        there = await destination.begin()
        request = migration_request(source.target, peer=there.model().address)
        tdinfo = own_tdinfo(source.td.guest.tdcall)
        here = await source.vmm.start_migration(request.model_copy(update={"initial_tdinfo": tdinfo}))
        await asyncio.gather(here.ended.wait(), there.ended.wait())

        assert (outcome_of(here).code, outcome_of(there).code) == (0, 0)


async def test_the_history_of_a_migration_keeps_the_invariants():
    async with live_pair(
        host={"quoting": quoting(), "migtds": [migtd_config(MIGTD, LAB_WORLD)]},
        attestation=attestation_choice("lab"),
        platform=with_files_of(LAB_WORLD),
    ) as pair:
        outcome = await pair.migrate()
        history = await pair.history()

    assert (outcome["success"], outcome["msk_match"]) == (True, True)
    assert check_history(history, [outcome]) == []


# --- rebinding -------------------------------------------------------------------------------------------------------
def expect_refused(host: RebindingHost, refused: SideOutcome, error: str, check: CheckName) -> None:
    assert refused.code == MigrationResult.PolicyUnsatisfiedError
    assert refused.error is not None
    assert refused.error.id == error
    assert (refused.checks[-1].name, refused.checks[-1].status) == (check, CheckStatus.FAILED)
    assert host.bound_to() == OLD


async def test_a_rebinding_passes_all_checks_and_moves_the_target():
    async with rebinding() as host:
        old, new = await host.prepare()

        for outcome, names in ((old, OLD_PARTS), (new, NEW_CHECKS)):
            assert (outcome.code, outcome.error) == (0, None)
            assert [(check.name, check.status) for check in outcome.checks] == [
                (name, CheckStatus.PASSED) for name in names
            ]
        assert host.finalize().outcome.result == "Success"
        assert host.bound_to() == NEW


async def test_the_history_of_a_rebinding_keeps_the_invariants():
    async with rebinding() as host:
        await host.prepare()
        history = [json.loads(line) for line in host.vmm.history.read(limit=100_000)]

    assert check_history(history) == []


async def test_a_rebinding_to_a_migtd_with_a_rotated_policy_key_moves_the_target():
    first, second = rotated_worlds()
    async with rebinding(first, second) as host:
        old, new = await host.prepare()

        assert (old.code, new.code) == (0, 0)
        assert host.finalize().outcome.result == "Success"


async def test_a_new_migtd_with_an_older_policy_does_not_get_the_target():
    async with rebinding(LAB_WORLD, replace(LAB_WORLD, policy_svn=3)) as host:
        old, new = await host.prepare()

        expect_refused(host, old, "MIGTD-POLICY-SVN-MISMATCH", CheckName.POLICY)
        assert new.code == MigrationResult.SecureSessionError


async def test_init_data_of_the_vmm_that_the_tdx_module_did_not_see_is_refused_by_the_new():
    async with rebinding() as host:
        tdinfo = bytearray(host.vmm.tdx_module.service_td(OLD).tdinfo().push())
        tdinfo[160:208] = svn_config(1)
        old, new = await host.prepare(old={"initial_tdinfo": encoded(bytes(tdinfo))})

        expect_refused(host, new, "MIGTD-POLICY-INVALID-TD-REPORT", CheckName.INITIAL_TDINFO)
        assert old.code == MigrationResult.SecureSessionError


async def test_init_data_of_another_owner_is_refused_by_the_old_at_once():
    async with rebinding() as host:
        tdinfo = of_another_owner(host.vmm.tdx_module.service_td(OLD).tdinfo().push())
        old, new = await host.prepare(old={"initial_tdinfo": encoded(tdinfo)})

        assert (old.code, new.code) == (MigrationResult.PolicyUnsatisfiedError, MigrationResult.NetworkError)
        assert old.error is not None
        assert old.error.id == "MIGTD-POLICY-POLICY-HASH-MISMATCH"
        assert old.checks == new.checks == []
        assert host.bound_to() == OLD


async def test_a_rebinding_with_captured_quotes_passes_all_that_these_can_show():
    quote = OWN.quote()
    known = svn_mapping(3, mrtd=bytes(48), rtmr0=bytes(48), rtmr1=bytes(48))
    world = replace(LAB_WORLD, mappings=[known])
    captured = CapturedQuotingConfig(quote=encoded(quote), collateral=encoded(push_packed(OWN.material.collateral)))
    async with rebinding_host(
        attestation=attestation_choice("captured"), old=with_files_of(world), new=with_files_of(world), quoting=captured
    ) as host:
        old, new = await host.prepare()

        for outcome, names in ((old, OLD_PARTS), (new, NEW_CHECKS)):
            assert (outcome.code, outcome.error) == (0, None)
            assert [check.name for check in outcome.checks] == names
            found = {check.name: check.detail for check in outcome.checks if check.status is CheckStatus.SKIPPED}
            assert found == REBINDING_SKIPS_OF["captured"]
        assert host.finalize().outcome.result == "Success"

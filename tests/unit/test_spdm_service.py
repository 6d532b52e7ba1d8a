# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whole MigTDs that migrate over SPDM: the session behind the service, its guest, and the pre-session exchange."""

from __future__ import annotations

import os
from typing import Any

import pytest

from migtd.checks import CheckName, CheckStatus
from migtd.errors import MigrationResult
from migtd.observer import Phase
from migtd.spdm.session import Spdm
from vmm_stub.testing_pair import N, migrate, scripted_pair
from vmm_stub.testing_rebinding import with_policy_v2

SPDM = Spdm(os.urandom)


@pytest.mark.parametrize("settings", [{}, {"platform": with_policy_v2()}], ids=["policy-v1", "policy-v2"])
async def test_two_migtds_migrate(settings: dict[str, Any]) -> None:
    async with scripted_pair(session=SPDM, **settings) as (source, destination):
        assert await migrate(source, destination) == (MigrationResult.Success, MigrationResult.Success)
        for side in (source, destination):
            assert side.host.dec_key_writes == 4
            phases = side.observer.phases[N]
            assert phases[-3:-1] == [Phase.EXCHANGE, Phase.COMMIT]
            assert Phase.HANDSHAKE in phases
            passed = {check.name for check in side.observer.checks[N] if check.status is CheckStatus.PASSED}
            assert {CheckName.EVIDENCE_PRESENT, CheckName.EXCHANGE_INFORMATION, CheckName.VERSIONS} <= passed
            await side.at_rest()


async def test_one_migtd_with_spdm_and_one_with_ra_tls_do_not_migrate() -> None:
    async with scripted_pair() as (_, destination), scripted_pair(session=SPDM) as (source, _):
        source.host.peer, destination.host.peer = destination.host, source.host
        results = await migrate(source, destination)
        assert MigrationResult.Success not in results
        for side in (source, destination):
            side.expect_no_key()

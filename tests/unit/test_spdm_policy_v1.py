# SPDX-License-Identifier: BSD-2-Clause-Patent
"""SPDM between MigTDs with real quotes and policy v1: every check passes, and evidence of another session does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from migtd.attestation.mode import AttestationMode
from migtd.checks import Check, CheckName, CheckRunner, CheckStatus
from migtd.deadlines import Deadlines
from migtd.errors import MutualAttestationError, SecureSessionError
from migtd.failures import REPORTDATA_MISMATCH
from migtd.migration.driver import run_session
from migtd.migration.session import SessionContext
from migtd.spdm.session import make_session
from migtd.spdm.testing import KNOWN_REQUESTER, KNOWN_RESPONDER
from migtd.testing import ScriptedServices
from tests.unit.policy_v1_sessions import Showing, end
from tests.unit.spdm_pairs import DESTINATION, SOURCE

ID = 7


async def meet(source: AttestationMode, destination: AttestationMode) -> tuple[list[object], list[list[Check]]]:
    """One session of the two: what each ended in, and its checks."""
    services = ScriptedServices(), ScriptedServices()
    services[0].connect(services[1], ID)
    checks: list[list[Check]] = [[], []]

    async def side(number: int, mode: AttestationMode) -> object:
        is_source = number == 0
        local = SOURCE if is_source else DESTINATION
        context = SessionContext(is_source, local, mode, CheckRunner(mode.skips, checks[number].append))
        return await run_session(
            make_session(context, KNOWN_REQUESTER if is_source else KNOWN_RESPONDER),
            services[number],
            ID,
            mode=mode,
            deadlines=Deadlines().with_all(20.0),
            on_phase=lambda _: None,
        )

    async def to_its_end(number: int, mode: AttestationMode) -> object:
        try:
            return await side(number, mode)
        finally:
            # The end of a stream is what the peer sees of a side that leaves.
            services[1 - number].feed(ID, b"")

    ends = await asyncio.gather(to_its_end(0, source), to_its_end(1, destination), return_exceptions=True)
    return list(ends), checks


async def test_every_check_passes_on_both_sides() -> None:
    ends, checks = await meet(end(), end())
    assert ends == [DESTINATION, SOURCE]
    for made in checks:
        assert {check.status for check in made} == {CheckStatus.PASSED}
        assert [check.name for check in made if check.name is not CheckName.COLLATERAL_CURRENT] == [
            CheckName.QUOTE_LOCAL,
            CheckName.EVIDENCE_PRESENT,
            CheckName.QUOTE_PEER,
            CheckName.REPORTDATA,
            CheckName.EVENT_LOG_REPLAY,
            CheckName.RTMRS_EQUAL,
            CheckName.POLICY,
            CheckName.EXCHANGE_INFORMATION,
        ]


@pytest.mark.parametrize(
    "bind",
    [lambda _: bytes(64), lambda data: data[:48] + b"\1" + data[49:], lambda data: bytes((data[0] ^ 1,)) + data[1:]],
    ids=["zeros", "tail", "another"],
)
@pytest.mark.parametrize("by_source", [True, False])
async def test_a_quote_that_is_not_bound_to_the_session_is_refused(
    bind: Callable[[bytes], bytes],
    by_source: bool,  # noqa: FBT001
) -> None:
    showing = Showing(end(), bind=bind)
    ends, checks = await (meet(end(), showing) if by_source else meet(showing, end()))
    judge, peer = (0, 1) if by_source else (1, 0)
    refusal, told = ends[judge], ends[peer]
    assert isinstance(refusal, MutualAttestationError)
    assert refusal.kind is REPORTDATA_MISMATCH
    # A destination can say why; a source leaves.
    assert isinstance(told, SecureSessionError if by_source else MutualAttestationError)
    assert (checks[judge][-1].name, checks[judge][-1].status) == (CheckName.REPORTDATA, CheckStatus.FAILED)

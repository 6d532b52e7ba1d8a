# SPDX-License-Identifier: BSD-2-Clause-Patent
"""SPDM sessions driven like any other: over a transport, with a deadline, by whatever made them."""

from __future__ import annotations

import asyncio

import pytest

from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import AttestationMode
from migtd.checks import CheckRunner
from migtd.deadlines import Deadlines
from migtd.errors import MigTDError, NetworkError, PolicyUnsatisfiedError, SecureSessionError
from migtd.failures import DEADLINE_SESSION, INTERNAL
from migtd.migration.data import ExchangeInformation
from migtd.migration.driver import run_session
from migtd.migration.session import SessionContext
from migtd.observer import Phase
from migtd.spdm import failures
from migtd.spdm.session import Spdm
from migtd.spdm.testing import bodies
from migtd.testing import ScriptedServices
from migtd.testing_session import ScriptedMode
from tests.unit.spdm_pairs import DESTINATION, SOURCE

ID = 7
MODE = AcceptAll(lambda: b"log\0")


async def drive(
    services: ScriptedServices,
    *,
    is_source: bool,
    mode: AttestationMode = MODE,
    seconds: float = 5.0,
    phases: list[Phase] | None = None,
) -> ExchangeInformation:
    local = SOURCE if is_source else DESTINATION
    context = SessionContext(is_source, local, mode, CheckRunner(mode.skips, lambda _: None))
    return await run_session(
        Spdm(lambda size: bytes(size))(context),  # noqa: PLW0108 - bytes() has another signature
        services,
        ID,
        mode=mode,
        deadlines=Deadlines().with_all(seconds),
        on_phase=(phases if phases is not None else []).append,
    )


def connected() -> tuple[ScriptedServices, ScriptedServices]:
    one, other = ScriptedServices(), ScriptedServices()
    one.connect(other, ID)
    return one, other


async def test_two_sides_get_what_the_other_sent_and_enter_the_same_phases() -> None:
    source, destination = connected()
    phases: tuple[list[Phase], list[Phase]] = ([], [])
    results = await asyncio.gather(
        drive(source, is_source=True, phases=phases[0]), drive(destination, is_source=False, phases=phases[1])
    )
    assert list(results) == [DESTINATION, SOURCE]
    assert phases == ([Phase.HANDSHAKE, Phase.EXCHANGE], [Phase.HANDSHAKE, Phase.EXCHANGE])
    assert len(bodies(bytes(source.sent[ID]))) == len(bodies(bytes(destination.sent[ID]))) == 9


@pytest.mark.parametrize("is_source", [True, False])
async def test_silence_ends_in_a_network_error_and_in_silence(is_source: bool) -> None:  # noqa: FBT001
    services, _ = connected()
    with pytest.raises(NetworkError) as expired:
        await drive(services, is_source=is_source, seconds=0.05)
    assert expired.value.kind is DEADLINE_SESSION
    said = bodies(bytes(services.sent.get(ID, b"")))
    assert [body.hex() for _, body in said] == (["10840000"] if is_source else [])


@pytest.mark.parametrize("evidence_is_missing", [True, False])
async def test_the_reason_of_a_destination_reaches_the_source(evidence_is_missing: bool) -> None:  # noqa: FBT001
    error = PolicyUnsatisfiedError(INTERNAL, "test")
    mode = ScriptedMode(evidence_error=error) if evidence_is_missing else ScriptedMode(refusal=error)
    source, destination = connected()
    results = await asyncio.gather(
        drive(source, is_source=True),
        drive(destination, is_source=False, mode=mode),
        return_exceptions=True,
    )
    assert results[1] is error
    assert isinstance(results[0], PolicyUnsatisfiedError)
    assert results[0].kind is failures.SPDM_PEER_ERROR


async def test_a_peer_that_speaks_another_protocol_is_refused() -> None:
    services, peer = connected()
    await peer.send(ID, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00")
    with pytest.raises(SecureSessionError) as refusal:
        await drive(services, is_source=False)
    assert refusal.value.kind is failures.SPDM_TRANSPORT
    assert isinstance(refusal.value, MigTDError)
    assert not services.sent.get(ID)

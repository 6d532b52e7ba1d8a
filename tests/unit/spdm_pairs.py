# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Two sides of an SPDM migration for tests: known keys, filler evidence, and what each side committed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import AttestationMode, Evidence
from migtd.checks import Check, CheckRunner
from migtd.errors import MigTDError
from migtd.migration.data import ExchangeInformation
from migtd.migration.session import SessionContext, SwappedPeerData, TargetHistory
from migtd.spdm.core import SessionMaterial, SpdmEndpoint
from migtd.spdm.framing import BodyType, push_frame
from migtd.spdm.requester import Requester, RequesterState
from migtd.spdm.responder import Responder, ResponderState
from migtd.spdm.session import NO_HISTORY, make_session
from migtd.spdm.testing import KNOWN_REQUESTER, KNOWN_RESPONDER, Body, SpdmSide, bodies

SOURCE = ExchangeInformation(bytes(range(32)), 1, 2)
DESTINATION = ExchangeInformation(bytes(range(100, 132)), 0, 3)
SOURCE_EVIDENCE = Evidence(b"Q" * 822, b"E" * 300)
DESTINATION_EVIDENCE = Evidence(b"q" * 822, b"e" * 300)
POLICY = b"pol"
ACCEPT_ALL = AcceptAll(lambda: b"log\0")

PART_A = [
    "10840000",
    "10040000 00 01 0012",
    "12e10000 00 00 0000 c0830300 c00f0000 00000100",
    "12610000 00 00 0000 c0830300 c00f0000 00000100",
    "12e30400 3000 00 02 80000000 02000000 000000000000000000000000 0000 0000 02201000 03200200 04208000 05200100",
    "12630400 3400 00 02 0000000080000000 02000000 000000000000000000000000 00000000 02201000032002000420800005200100",
]
"""Part A of the transcript, as spdm.md 4.1 writes it."""


@dataclass
class Committed:
    """Stands for the TDCS of a target TD: the keys that were written; `error` refuses instead."""

    error: MigTDError | None = None
    keys: list[ExchangeInformation] = field(default_factory=list)
    servtd_ext: list[bytes] = field(default_factory=list)

    def __call__(self, peer: ExchangeInformation, servtd_ext: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.keys.append(peer)
        self.servtd_ext.append(servtd_ext)


@dataclass
class End:
    """One side, its checks and what it wrote."""

    side: SpdmSide
    checks: list[Check]
    committed: Committed


def make_end(
    *,
    is_source: bool,
    mode: AttestationMode = ACCEPT_ALL,
    evidence: Evidence | MigTDError | None = None,
    local: ExchangeInformation | None = None,
    material: SessionMaterial | None = None,
    commit: Committed | None = None,
    peer_data: SwappedPeerData | None = None,
    history: TargetHistory = NO_HISTORY,
    policy: bytes = POLICY,
) -> End:
    checks: list[Check] = []
    committed = commit or Committed()
    context = SessionContext(
        is_source,
        local or (SOURCE if is_source else DESTINATION),
        mode,
        CheckRunner(mode.skips, checks.append),
        peer_data,
    )
    session = make_session(
        context,
        material or (KNOWN_REQUESTER if is_source else KNOWN_RESPONDER),
        policy=policy,
        history=history,
        commit=committed,
    )
    shown = evidence or (SOURCE_EVIDENCE if is_source else DESTINATION_EVIDENCE)
    return End(SpdmSide(session, shown).start(), checks, committed)


def make_ends(**both: Any) -> tuple[End, End]:
    """A source and a destination with the same settings."""
    return make_end(is_source=True, **both), make_end(is_source=False, **both)


def at_responder(state: ResponderState, source: End, destination: End) -> Body:
    """Carry bodies until the destination is in `state`; the request that it would get next."""
    while True:
        for body in bodies(source.side.take()):
            if responder_state(destination) is state:
                return body
            destination.side.receive(push_frame(*body))
        carry(destination, source)


def at_requester(state: RequesterState, source: End, destination: End) -> Body:
    """Carry bodies until the source is in `state`; the response that it would get next."""
    while True:
        carry(source, destination)
        for body in bodies(destination.side.take()):
            if requester_state(source) is state:
                return body
            source.side.receive(push_frame(*body))


def carry(sender: End, receiver: End) -> None:
    """Carry what waits."""
    data = sender.side.take()
    if not data:
        raise RuntimeError(f"silence; errors: {sender.side.error!r}, {receiver.side.error!r}")
    receiver.side.receive(data)


def responder_state(end: End) -> ResponderState:
    assert isinstance(end.side.session, Responder)
    return end.side.session._state


def requester_state(end: End) -> RequesterState:
    assert isinstance(end.side.session, Requester)
    return end.side.session._state


def sealed(sender: End, message: bytes) -> Body:
    """A record of `message` under the keys of `sender`, one that was taken over."""
    session = sender.side.session
    assert isinstance(session, SpdmEndpoint)
    assert session._sealer is not None
    return BodyType.SECURED, session._sealer.seal(message)


def opened(receiver: End, record: bytes) -> bytes:
    """What the peer of `receiver` said in a record."""
    session = receiver.side.session
    assert isinstance(session, SpdmEndpoint)
    assert session._opener is not None
    return session._opener.open(record)


def told(end: End, body: Body) -> list[Body]:
    """Give one body to a side that must refuse it; what it answers. It must be silent ever after."""
    before = len(end.side.sent)
    end.side.receive(push_frame(*body))
    end.side.take()
    assert end.side.error is not None
    assert end.side.end is None
    answer = end.side.sent[before:]
    with pytest.raises(RuntimeError):
        end.side.session.receive_data(push_frame(*body))
    assert end.side.session.data_to_send() == b""
    assert end.side.session.next_event() is None
    return answer

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: sessions with known keys, two of them in memory, and what each of them said and learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384

from migtd.attestation.mode import Evidence
from migtd.errors import MigTDError
from migtd.migration.session import EvidenceNeeded, PeerInformation, RebindingAgreed, SessionEvent, SessionProtocol
from migtd.spdm.core import SessionMaterial
from migtd.spdm.framing import BodyType, FrameCutter, push_frame
from migtd.spdm.signing import Signer


def known_material(signing: int, ephemeral: int, random: bytes) -> SessionMaterial:
    """Keys from these scalars, and signatures with the nonces of RFC 6979."""
    key, share = (ec.derive_private_key(scalar, ec.SECP384R1()) for scalar in (signing, ephemeral))
    return SessionMaterial(Signer(key, ec.ECDSA(SHA384(), deterministic_signing=True)), share, random)


KNOWN_REQUESTER: Final = known_material(0x1111, 0x2222, bytes(range(32)))
KNOWN_RESPONDER: Final = known_material(0x3333, 0x4444, bytes(range(32, 64)))
"""The inputs of the known answers (spdm.md 6.3)."""


Body: TypeAlias = tuple[BodyType, bytes]


def bodies(data: bytes) -> list[Body]:
    """The bodies in whole frames."""
    cutter = FrameCutter()
    cutter.feed(data)
    found = []
    while (frame := cutter.next_frame()) is not None:
        found.append(frame)
    if cutter.waiting:
        raise ValueError(f"{cutter.waiting} bytes are no frame")
    return found


@dataclass(slots=True)
class SpdmSide:
    """One end. It answers EvidenceNeeded by itself and remembers what happened.

    `events` holds every event in order, `error` what ended the session if anything did, `sent` all bodies for the peer.
    """

    session: SessionProtocol
    evidence: Evidence | MigTDError
    events: list[SessionEvent] = field(default_factory=list)
    error: MigTDError | None = None
    sent: list[Body] = field(default_factory=list)

    @property
    def end(self) -> PeerInformation | RebindingAgreed | None:
        """The event that completed the session."""
        ends = [event for event in self.events if isinstance(event, PeerInformation | RebindingAgreed)]
        return ends[0] if ends else None

    @property
    def ended(self) -> bool:
        """Whether the session is complete or has failed."""
        return self.error is not None or self.end is not None

    def start(self) -> SpdmSide:
        """Take the first events; itself."""
        self._drain()
        return self

    def receive(self, data: bytes) -> None:
        """Hand over bytes, or `b""` for the end of the stream. A session that has failed gets nothing more."""
        if self.error is not None:
            return
        try:
            self.session.receive_data(data)
            self._drain()
        except MigTDError as error:
            self.error = error

    def take(self) -> bytes:
        """What waits to be sent."""
        data = self.session.data_to_send()
        self.sent += bodies(data)
        return data

    def _drain(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, EvidenceNeeded):
                if isinstance(self.evidence, MigTDError):
                    self.session.evidence_failed(self.evidence)
                else:
                    self.session.provide_evidence(self.evidence)


Change: TypeAlias = Callable[[int, BodyType, bytes], Iterable[Body]]
"""What becomes of one body on its way: it is given its number in its direction, from 0."""


def unchanged(number: int, kind: BodyType, body: bytes) -> Iterable[Body]:  # noqa: ARG001 - the shape of a change
    """The body."""
    return ((kind, body),)


def converse(
    requester: SpdmSide, responder: SpdmSide, to_responder: Change = unchanged, to_requester: Change = unchanged
) -> None:
    """Carry bodies until nobody has more to say, then end the stream for whoever still waits."""
    numbers = [0, 0]
    ways = ((requester, responder, to_responder), (responder, requester, to_requester))
    carried = True
    while carried:
        carried = False
        for way, (sender, receiver, change) in enumerate(ways):
            for kind, body in bodies(sender.take()):
                carried = True
                for changed in change(numbers[way], kind, body):
                    receiver.receive(push_frame(*changed))
                numbers[way] += 1
    for side in (requester, responder):
        if not side.ended:
            side.receive(b"")
        side.take()


def replay(side: SpdmSide, answers: Iterable[Body]) -> None:
    """Give `side` one body of a recording each time it has spoken."""
    side.take()
    for answer in answers:
        side.receive(push_frame(*answer))
        side.take()

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What requester and responder have in common: bodies in and out, events, evidence, and one end only (spdm.md 4.9).

A session ends once: complete, or with the first error. Nothing is taken or said after that, but the ERROR that a
responder answers with.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384

from migtd.attestation.mode import Evidence
from migtd.errors import MigTDError, SecureSessionError
from migtd.migration.session import EvidenceNeeded, PhaseEntered, SessionEvent
from migtd.observer import Phase
from migtd.spdm.agreement import Agreement
from migtd.spdm.errors import Malformed, SilentRefusal
from migtd.spdm.failures import SPDM_EARLY, SPDM_ENDED, SPDM_MESSAGE_TOO_LARGE
from migtd.spdm.framing import BodyType, FrameCutter, push_frame
from migtd.spdm.handshake import RANDOM_SIZE
from migtd.spdm.keys import DirectionKeys
from migtd.spdm.records import RecordOpener, RecordSealer
from migtd.spdm.signing import Signer
from migtd.spdm.transcript import MigTdBinding
from migtd.spdm.vendor_messages import EvidenceRequest, EvidenceResponse, Mode

MAX_EARLY: Final = 65_536
"""Most bytes kept from a peer that goes on while this side makes its evidence; it should wait."""


@dataclass(frozen=True, slots=True)
class SessionMaterial:
    """What must be fresh for each session: a signing key, an ephemeral key, and the 32 random bytes of KEY_EXCHANGE."""

    signer: Signer
    ephemeral: ec.EllipticCurvePrivateKey
    random: bytes


def fresh_material(random: Callable[[int], bytes]) -> SessionMaterial:
    """New keys from the cryptographic library, and random bytes from `random`."""
    signer = Signer(ec.generate_private_key(ec.SECP384R1()), ec.ECDSA(SHA384()))
    return SessionMaterial(signer, ec.generate_private_key(ec.SECP384R1()), random(RANDOM_SIZE))


class RequesterApplication(abc.ABC):
    """What a requester's session is for. Methods are called once each, in this order; each may raise a MigTDError."""

    mode: Mode

    @abc.abstractmethod
    def show(self, local: Evidence) -> EvidenceRequest:
        """R6 with the own evidence."""

    @abc.abstractmethod
    def judge(self, shown: EvidenceResponse, report_data: bytes) -> None:
        """Accept what the responder showed, bound to these 64 bytes, or raise."""

    @abc.abstractmethod
    def request(self) -> bytes:
        """R8."""

    @abc.abstractmethod
    def take(self, response: bytes) -> SessionEvent:
        """Act on r8; the event that completes the session when its end was seen."""

    @abc.abstractmethod
    def without_evidence(self, error: MigTDError) -> MigTDError:
        """What to report where there is no evidence of our own."""


class ResponderApplication(abc.ABC):
    """What a responder's session is for; as above."""

    mode: Mode

    @abc.abstractmethod
    def judge(self, local: Evidence, shown: EvidenceRequest, report_data: bytes) -> None:
        """Accept what the requester showed, bound to these 64 bytes, or raise."""

    @abc.abstractmethod
    def show(self, local: Evidence) -> EvidenceResponse:
        """r6 with the own evidence."""

    @abc.abstractmethod
    def take(self, request: bytes) -> tuple[bytes, SessionEvent]:
        """Act on R8; r8, and the event that completes the session when its end was seen."""

    @abc.abstractmethod
    def without_evidence(self, error: MigTDError) -> MigTDError:
        """What to report where there is no evidence of our own."""


class SpdmEndpoint(abc.ABC):
    """One side of one SPDM session (migtd.migration.session.SessionProtocol)."""

    def __init__(self, material: SessionMaterial) -> None:
        self._material = material
        self._binding = MigTdBinding()
        self._agreement = Agreement(self._binding)
        self._sealer: RecordSealer | None = None
        self._opener: RecordOpener | None = None
        self._events: deque[SessionEvent] = deque([PhaseEntered(Phase.HANDSHAKE)])
        self._cutter = FrameCutter()
        self._out = bytearray()
        self._waits_for_evidence = False
        self._complete = False
        self._failed = False

    # --- what the roles add ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _receive(self, kind: BodyType, body: bytes) -> None:
        """Act on one body."""

    @abc.abstractmethod
    def _show(self, evidence: Evidence) -> None:
        """Go on with the evidence that was asked for."""

    @abc.abstractmethod
    def _without_evidence(self, error: MigTDError) -> MigTDError:
        """What to report where there is none."""

    @abc.abstractmethod
    def _answer_failure(self, error: MigTDError) -> None:
        """Say what there is to say about the error that ends the session."""

    # --- SessionProtocol -------------------------------------------------------------------------------------------

    def next_event(self) -> SessionEvent | None:
        """The next event in order, or None: feed more."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """Bytes for the peer, at most once each."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, in any portions; `b""` is the end of the stream. Ignored once complete."""
        if self._complete:
            return
        with self._ending():
            if not data:
                raise SilentRefusal("the last message of the session did not come", SPDM_ENDED)
            self._cutter.feed(data)
            self._go_on()

    def provide_evidence(self, evidence: Evidence) -> None:
        """Answer to EvidenceNeeded. A responder judges its peer here: raises as `receive_data` does."""
        with self._ending():
            self._expect_wait()
            self._show(evidence)
            self._go_on()

    def evidence_failed(self, error: MigTDError) -> None:
        """Answer to EvidenceNeeded: raises `error`, after the responder told it to its peer."""
        with self._ending():
            self._expect_wait()
            raise self._without_evidence(error)

    # --- for the roles ---------------------------------------------------------------------------------------------

    def _ask_for_evidence(self, report_data: bytes) -> None:
        self._waits_for_evidence = True
        self._events.append(EvidenceNeeded(report_data))

    def _send(self, message: bytes) -> None:
        """Say an SPDM message of at most 4032 bytes in plain."""
        self._out += push_frame(BodyType.PLAIN, message)

    def _send_secured(self, message: bytes) -> None:
        if self._sealer is None:
            raise RuntimeError("a record before the keys are there")
        self._out += push_frame(BodyType.SECURED, self._sealer.seal(message))

    def _open(self, record: bytes) -> bytes:
        if self._opener is None:
            raise SilentRefusal("a record before FINISH")
        return self._opener.open(record)

    def _establish(self, sent: DirectionKeys, received: DirectionKeys) -> None:
        self._sealer, self._opener = RecordSealer(sent), RecordOpener(received)
        self._agreement.wipe()
        self._events.append(PhaseEntered(Phase.EXCHANGE))

    def _finish(self, event: SessionEvent) -> None:
        self._complete = True
        self._events.append(event)
        self._forget()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        while not (self._waits_for_evidence or self._complete):
            frame = self._cutter.next_frame()
            if frame is None:
                return
            self._receive(*frame)
        if self._waits_for_evidence and self._cutter.waiting > MAX_EARLY:
            raise SilentRefusal(f"more than {MAX_EARLY} bytes before this side has shown its evidence", SPDM_EARLY)

    def _expect_wait(self) -> None:
        if not self._waits_for_evidence:
            raise RuntimeError("no evidence was asked for, or it was given before")
        self._waits_for_evidence = False

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Whatever is raised inside ends the session."""
        if self._failed:
            raise RuntimeError("the session has failed")
        try:
            yield
        except MigTDError as error:
            self._failed = True
            self._answer_failure(error)
            self._forget()
            raise
        except BaseException:
            self._failed = True
            self._forget()
            raise

    def _forget(self) -> None:
        self._agreement.wipe()
        self._sealer = self._opener = None


def code_of(message: bytes) -> int:
    """The code of a message. Raises Malformed where it has none."""
    if len(message) <= 1:
        raise Malformed(f"a message of {len(message)} bytes")
    return message[1]


def push_evidence(message: EvidenceRequest | EvidenceResponse) -> bytes:
    """Encode. Raises SecureSessionError (MIGTD-SPDM-MESSAGE-TOO-LARGE)."""
    try:
        return message.push()
    except ValueError as error:
        raise SecureSessionError(SPDM_MESSAGE_TOO_LARGE, str(error)) from error

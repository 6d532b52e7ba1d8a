# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Fakes for tests that need a session: an attestation mode that obeys, and a session protocol that protects nothing."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping
from typing import Final, NoReturn

from migtd import failures
from migtd.attestation.mode import REPORT_DATA_SIZE, Evidence, PeerEvidence
from migtd.checks import CheckName, CheckRunner
from migtd.errors import MigTDError, NetworkError, SecureSessionError
from migtd.migration.data import EXCHANGE_SIZE, pull_exchange_information, push_exchange_information
from migtd.migration.session import (
    EvidenceNeeded,
    PeerInformation,
    PhaseEntered,
    RebindingContext,
    SessionContext,
    SessionEvent,
)
from migtd.observer import Phase


class ScriptedMode:
    """An attestation mode that does as it is told: it verifies nothing, `refusal` refuses every peer.

    It is its own judge of every peer.
    """

    name = "scripted"
    v2 = None

    def __init__(
        self,
        *,
        skips: Mapping[CheckName, str] | None = None,
        refusal: MigTDError | None = None,
        evidence_error: Exception | None = None,
    ) -> None:
        self.skips: Mapping[CheckName, str] = skips or {}
        self.refusal = refusal
        self.evidence_error = evidence_error
        self.judged: list[PeerEvidence] = []

    async def local_evidence(self, report_data: bytes) -> Evidence:
        """The report data as the quote, and a log of one byte."""
        if self.evidence_error is not None:
            raise self.evidence_error
        return Evidence(quote=report_data, event_log=b"\0")

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> ScriptedMode:  # noqa: ARG002 - the seam's shape
        """Itself."""
        return self

    def verify_local(self) -> None:
        """Believe it."""

    def verify_quote(self, peer: PeerEvidence) -> None:
        """Remember."""
        self.judged.append(peer)

    def evaluate_policy(self) -> None:
        """Refuse if so told."""
        if self.refusal is not None:
            raise self.refusal


_MESSAGE: Final = struct.Struct("<cI")
_EVIDENCE, _KEY, _REFUSED = b"E", b"K", b"R"


class InsecurePlainSession:
    """A session protocol without any protection: evidence, then keys, in plain text. To test what is around it.

    Messages are `kind u8 | length u32 | body`: E quote length u32, quote, event log; K the 40 bytes; R empty, refused.
    """

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._events: deque[SessionEvent] = deque(
            [PhaseEntered(Phase.HANDSHAKE), EvidenceNeeded(bytes(REPORT_DATA_SIZE))]
        )
        self._out = b""
        self._received = b""
        self._local = Evidence(b"", b"")
        self._shown = False
        self._peer_judged = False
        self._complete = False

    def next_event(self) -> SessionEvent | None:
        """The next event, or None."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """What is to be sent, once."""
        data, self._out = self._out, b""
        return data

    def provide_evidence(self, evidence: Evidence) -> None:
        """Show the evidence, and go on with what came early."""
        self._local = evidence
        quote_length = struct.pack("<I", len(evidence.quote))
        self._push(_EVIDENCE, quote_length + evidence.quote + evidence.event_log)
        self._shown = True
        self._process()

    def evidence_failed(self, error: MigTDError) -> None:
        """Refuse with the error."""
        self._push(_REFUSED, b"")
        raise error

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, in any portions."""
        if not data and not self._complete:
            raise NetworkError(failures.TRANSPORT_ENDED)
        self._received += data
        self._process()

    def _process(self) -> None:
        while self._shown and not self._complete and len(self._received) >= _MESSAGE.size:
            kind, length = _MESSAGE.unpack_from(self._received)
            end = _MESSAGE.size + length
            if len(self._received) < end:
                return
            body, self._received = self._received[_MESSAGE.size : end], self._received[end:]
            try:
                self._handle(kind, body)
            except MigTDError:
                self._push(_REFUSED, b"")
                raise

    def _handle(self, kind: bytes, body: bytes) -> None:
        if kind == _REFUSED:
            raise SecureSessionError(failures.TLS_ALERT)
        if kind == _EVIDENCE and not self._peer_judged and len(body) >= struct.calcsize("<I"):
            (quote_length,) = struct.unpack_from("<I", body)
            peer = PeerEvidence(body[4 : 4 + quote_length], body[4 + quote_length :], bytes(REPORT_DATA_SIZE))
            context = self._context
            judge = context.mode.judge(self._local, is_source=context.is_source, checks=context.checks)
            judge.verify_quote(peer)
            judge.evaluate_policy()
            self._peer_judged = True
            self._events.append(PhaseEntered(Phase.EXCHANGE))
            self._push(_KEY, push_exchange_information(context.local))
        elif kind == _KEY and self._peer_judged and len(body) == EXCHANGE_SIZE:
            information = self._context.checks.run(
                CheckName.EXCHANGE_INFORMATION, lambda: pull_exchange_information(body)
            )
            if information is not None:
                self._complete = True
                self._events.append(PeerInformation(information))
        else:
            raise SecureSessionError(failures.TLS_PROTOCOL, f"plain session: unexpected {kind!r}")

    def _push(self, kind: bytes, body: bytes) -> None:
        self._out += _MESSAGE.pack(kind, len(body)) + body


class InsecurePlainSessions:
    """Factory of InsecurePlainSession."""

    name = "insecure-plain"

    def __call__(self, context: SessionContext) -> InsecurePlainSession:
        """A new session."""
        return InsecurePlainSession(context)

    def rebinding(self, context: RebindingContext) -> NoReturn:
        """There is none."""
        raise NotImplementedError(context)

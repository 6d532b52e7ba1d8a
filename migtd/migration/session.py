# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The seam between a migration and the protocol that protects it: a session protocol, sans-IO (design.md).

RA-TLS and SPDM implement `SessionProtocol`: bytes and evidence in, bytes and events out. They know no socket, clock or
task. Whoever drives one (driver.py) moves the bytes, fetches what `EvidenceNeeded` asks for, and watches the
deadlines. Feeding the same bytes cut or joined differently gives the same events (design.md, I5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from migtd.attestation.mode import AttestationMode, Evidence, PolicyV2Mode
from migtd.checks import CheckRunner
from migtd.errors import MigTDError
from migtd.migration.data import ExchangeInformation
from migtd.observer import Phase


@dataclass(frozen=True, slots=True)
class EvidenceNeeded:
    """The session cannot go on until `provide_evidence` or `evidence_failed` is called, for these 64 bytes."""

    report_data: bytes


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The session went on to `phase`."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class PeerInformation:
    """Every check of the session passed, ours was sent, and this is what the peer sent. The session is complete."""

    information: ExchangeInformation


@dataclass(frozen=True, slots=True)
class RebindingAgreed:
    """Every check of a rebinding passed, and the token crossed. The session is complete.

    `token` is the 32 bytes that the old MigTD drew, `servtd_ext` what it showed of the target TD, as it came.
    """

    token: bytes = field(repr=False)
    servtd_ext: bytes


SessionEvent: TypeAlias = EvidenceNeeded | PhaseEntered | PeerInformation | RebindingAgreed


class SessionProtocol(Protocol):
    """One side of one secure session.

    Methods that take input raise a MigTDError when this side refuses or the peer did; `data_to_send` may then still
    hold the last words (an alert), and nothing else may be called.
    """

    def next_event(self) -> SessionEvent | None:
        """The next event in order, or None: feed more. Drain it after every input."""

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, in any portions. `b""` is the end of the stream."""

    def data_to_send(self) -> bytes:
        """Bytes for the peer, at most once each; `b""` if there is nothing."""

    def provide_evidence(self, evidence: Evidence) -> None:
        """Answer to EvidenceNeeded."""

    def evidence_failed(self, error: MigTDError) -> None:
        """Answer to EvidenceNeeded: there is none. The error takes effect at its place in the order of checks."""


@dataclass(frozen=True, slots=True)
class SwappedPeerData:
    """The blobs of the pre-session exchange: what this side sent, and what came."""

    local: bytes
    remote: bytes


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What every session of a migration is made from. `peer_data`: with policy v2, what was swapped before."""

    is_source: bool
    local: ExchangeInformation
    mode: AttestationMode
    checks: CheckRunner
    peer_data: SwappedPeerData | None = None


@dataclass(frozen=True, slots=True)
class TargetHistory:
    """What the old MigTD of a rebinding shows of the target TD: SERVTD_EXT (272 bytes) and initial TDINFO (512)."""

    servtd_ext: bytes
    initial_tdinfo: bytes


@dataclass(frozen=True, slots=True)
class OldSide:
    """What only the old MigTD of a rebinding has: the target TD's history, and the 32 random bytes of the token."""

    shown: TargetHistory
    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RebindingContext:
    """What every session of a rebinding is made from. `old` is None on the new MigTD's side."""

    mode: PolicyV2Mode
    checks: CheckRunner
    peer_data: SwappedPeerData
    old: OldSide | None


class SessionFactory(Protocol):
    """Makes one session per migration; chosen at start by `--session`."""

    @property
    def name(self) -> str:
        """The value of `--session`."""

    def __call__(self, context: SessionContext) -> SessionProtocol:
        """A new session for one side of a migration."""

    def rebinding(self, context: RebindingContext) -> SessionProtocol:
        """A new session for one side of a rebinding."""

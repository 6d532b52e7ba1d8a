# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What can be chosen when a MigTD starts: attestation modes and session protocols, one row each (design.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from migtd import event_log, failures
from migtd.attestation.accept_all import SKIPS, AcceptAll
from migtd.attestation.accept_all_v2 import AcceptAllV2
from migtd.attestation.mode import AttestationMode
from migtd.checks import CheckName
from migtd.errors import FailureKind, InitializationError, InvalidParameter
from migtd.guest.interfaces import EventLogArea, Guest
from migtd.migration.measurement import measure_without_attestation
from migtd.migration.pre_session import PeerData, push_peer_data
from migtd.migration.session import SessionFactory
from migtd.ratls.session import RaTls

T = TypeVar("T")

Clock: TypeAlias = Callable[[], float]
"""Seconds since 1970."""
StartAttestation: TypeAlias = Callable[[Guest], AttestationMode]
"""Measure what the mode measures at start (policy.md 3.3) and make the mode object for all sessions.

Raises the MigTDError that the start fails with.
"""


def attestation_choice(name: str, clock: Clock | None = None) -> StartAttestation:
    """How a MigTD starts with the mode of that name.

    With a clock, collateral that is not current is refused; without one its age is only reported (policy.md 0.5, D2).
    Raises InvalidParameter (MIGTD-ATTESTATION-UNKNOWN), which names the modes there are.
    """
    start = _choose(ATTESTATION_MODES, name, failures.ATTESTATION_UNKNOWN)
    return partial(start, clock)


def session_factory(name: str) -> SessionFactory:
    """The protocol of that name. Raises InvalidParameter (MIGTD-SESSION-UNKNOWN), which names those there are."""
    return _choose(SESSION_PROTOCOLS, name, failures.SESSION_UNKNOWN)()


def _start_accept_all(_clock: Clock | None, guest: Guest) -> AttestationMode:
    measure_without_attestation(guest)
    area = _log_of(guest)

    def log() -> bytes:
        return event_log.for_sending(area)

    policy, chain = guest.configuration.policy(), guest.configuration.policy_issuer_chain()
    if not policy or not chain:
        return AcceptAll(log)
    return AcceptAll(log, AcceptAllV2(push_peer_data(PeerData(policy, chain)), guest.tdcall.mr_report, log))


def _start_policy_v1(name: str, clock: Clock | None, guest: Guest) -> AttestationMode:
    # Loaded only by those who use it: the quote verifier and its libraries are no small part of a MigTD.
    from migtd.attestation.get_quote import QuoteClient  # noqa: PLC0415
    from migtd.attestation.policy_v1 import PolicyV1, Trust  # noqa: PLC0415
    from migtd.attestation.startup_v1 import measure_policy_v1  # noqa: PLC0415

    policy, root_key = measure_policy_v1(guest)
    trust = Trust(policy, root_key, clock)
    quotes = QuoteClient(guest)
    return PolicyV1(name, SKIPS_OF[name], tdcall=guest.tdcall, quotes=quotes, log=_log_of(guest), trust=trust)


def _log_of(guest: Guest) -> EventLogArea:
    if guest.event_log is None:
        raise InitializationError(failures.EVENT_LOG_MISSING)
    return guest.event_log


def _choose(table: Mapping[str, T], name: str, unknown: FailureKind) -> T:
    choice = table.get(name)
    if choice is None:
        raise InvalidParameter(unknown, f"{name!r}; there is: {', '.join(table)}")
    return choice


CAPTURED_SKIPS: Final[Mapping[CheckName, str]] = MappingProxyType(
    {
        CheckName.REPORTDATA: "captured: a captured quote's REPORTDATA is fixed, it cannot carry this session's key",
        CheckName.RTMRS_EQUAL: "captured: a captured quote's RTMRs are fixed, no log of this TD can explain them",
    }
)

SKIPS_OF: Final[Mapping[str, Mapping[CheckName, str]]] = MappingProxyType(
    {"lab": MappingProxyType({}), "captured": CAPTURED_SKIPS, "accept-all": SKIPS}
)
"""The checks that each mode cannot make, with the reason: what docs/emulation.md is generated from."""

ATTESTATION_MODES: Final[Mapping[str, Callable[[Clock | None, Guest], AttestationMode]]] = MappingProxyType(
    {
        "lab": partial(_start_policy_v1, "lab"),
        "captured": partial(_start_policy_v1, "captured"),
        "accept-all": _start_accept_all,
    }
)
"""By the value of `--attestation`, the default first."""

SESSION_PROTOCOLS: Final[Mapping[str, Callable[[], SessionFactory]]] = MappingProxyType({"ra-tls": RaTls})
"""By the value of `--session`."""

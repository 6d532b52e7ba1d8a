# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What can be chosen when a MigTD starts: attestation modes and session protocols, one row each (design.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from migtd import event_log, failures
from migtd.attestation.accept_all import SKIPS, AcceptAll
from migtd.attestation.accept_all import V2_SKIPS as ACCEPT_ALL_V2_SKIPS
from migtd.attestation.accept_all_v2 import REBINDING_SKIPS as ACCEPT_ALL_REBINDING_SKIPS
from migtd.attestation.accept_all_v2 import AcceptAllV2
from migtd.attestation.mode import AttestationMode
from migtd.checks import CheckName
from migtd.errors import FailureKind, InitializationError, InvalidParameter
from migtd.guest.interfaces import EventLogArea, Guest
from migtd.guest.quote_messages import QuoteForm
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


def attestation_choice(
    name: str, clock: Clock | None = None, quote_form: QuoteForm = QuoteForm.QGS
) -> StartAttestation:
    """How a MigTD starts with the mode of that name, and in which form it asks for quotes, where it needs any.

    With a clock, collateral that is not current is refused; without one its age is only reported (policy.md 0.5, D2).
    Raises InvalidParameter (MIGTD-ATTESTATION-UNKNOWN), which names the modes there are.
    """
    start = _choose(ATTESTATION_MODES, name, failures.ATTESTATION_UNKNOWN)
    return partial(start, clock, quote_form)


def session_factory(name: str) -> SessionFactory:
    """The protocol of that name. Raises InvalidParameter (MIGTD-SESSION-UNKNOWN), which names those there are."""
    return _choose(SESSION_PROTOCOLS, name, failures.SESSION_UNKNOWN)()


def _start_accept_all(_clock: Clock | None, _form: QuoteForm, guest: Guest) -> AttestationMode:
    measure_without_attestation(guest)
    area = _log_of(guest)

    def log() -> bytes:
        return event_log.for_sending(area)

    policy, chain = guest.configuration.policy(), guest.configuration.policy_issuer_chain()
    if not policy or not chain:
        return AcceptAll(log)
    return AcceptAll(log, AcceptAllV2(push_peer_data(PeerData(policy, chain)), guest.tdcall.mr_report, log))


def _start_with_quotes(name: str, clock: Clock | None, form: QuoteForm, guest: Guest) -> AttestationMode:
    """With policy v2 if the configuration volume has an issuer chain, which v1 knows nothing of (policy.md 0.1)."""
    start = _start_policy_v1 if guest.configuration.policy_issuer_chain() is None else _start_policy_v2
    return start(name, clock, form, guest)


def _start_policy_v1(name: str, clock: Clock | None, form: QuoteForm, guest: Guest) -> AttestationMode:
    # Loaded only by those who use it: the quote verifier and its libraries are no small part of a MigTD.
    from migtd.attestation.get_quote import QuoteClient  # noqa: PLC0415
    from migtd.attestation.policy_v1 import PolicyV1, Trust  # noqa: PLC0415
    from migtd.attestation.startup_v1 import measure_policy_v1  # noqa: PLC0415

    policy, root_key = measure_policy_v1(guest)
    trust = Trust(policy, root_key, clock)
    quotes = QuoteClient(guest, form=form)
    return PolicyV1(name, SKIPS_OF[name], tdcall=guest.tdcall, quotes=quotes, log=_log_of(guest), trust=trust)


def _start_policy_v2(name: str, clock: Clock | None, form: QuoteForm, guest: Guest) -> AttestationMode:
    # Loaded only by those who use it, as above.
    from migtd.attestation.get_quote import QuoteClient  # noqa: PLC0415
    from migtd.attestation.policy_v2 import PolicyV2, Skips  # noqa: PLC0415
    from migtd.attestation.startup_v2 import measure_policy_v2  # noqa: PLC0415

    skips = Skips(V2_SKIPS_OF[name], REBINDING_SKIPS_OF[name])
    measured = measure_policy_v2(guest, skips.migration)
    log, quotes = _log_of(guest), QuoteClient(guest, form=form)
    return PolicyV2(name, skips, tdcall=guest.tdcall, quotes=quotes, log=log, measured=measured, clock=clock)


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

CAPTURED_V2_SKIPS: Final[Mapping[CheckName, str]] = MappingProxyType(
    {
        **CAPTURED_SKIPS,
        CheckName.OWN_TDINFO: "captured: the captured MROWNER and MROWNERCONFIG are fixed, no policy was provisioned",
    }
)

CAPTURED_REBINDING_SKIPS: Final[Mapping[CheckName, str]] = MappingProxyType(
    {
        CheckName.REPORTDATA: "captured: a report made from a captured quote cannot carry this session's key",
        CheckName.RTMRS_EQUAL: CAPTURED_SKIPS[CheckName.RTMRS_EQUAL],
        CheckName.OWN_TDINFO: CAPTURED_V2_SKIPS[CheckName.OWN_TDINFO],
        CheckName.TDREPORT_MAC: "captured: the MAC of a report made from a captured quote is nobody's",
    }
)

SKIPS_OF: Final[Mapping[str, Mapping[CheckName, str]]] = MappingProxyType(
    {"lab": MappingProxyType({}), "captured": CAPTURED_SKIPS, "accept-all": SKIPS}
)
"""The checks that each mode cannot make, with the reason: what docs/emulation.md is generated from. With policy v1."""

V2_SKIPS_OF: Final[Mapping[str, Mapping[CheckName, str]]] = MappingProxyType(
    {"lab": MappingProxyType({}), "captured": CAPTURED_V2_SKIPS, "accept-all": ACCEPT_ALL_V2_SKIPS}
)
"""The same in migrations with policy v2."""

REBINDING_SKIPS_OF: Final[Mapping[str, Mapping[CheckName, str]]] = MappingProxyType(
    {"lab": MappingProxyType({}), "captured": CAPTURED_REBINDING_SKIPS, "accept-all": ACCEPT_ALL_REBINDING_SKIPS}
)
"""The same in rebindings."""

ATTESTATION_MODES: Final[Mapping[str, Callable[[Clock | None, QuoteForm, Guest], AttestationMode]]] = MappingProxyType(
    {
        "lab": partial(_start_with_quotes, "lab"),
        "captured": partial(_start_with_quotes, "captured"),
        "accept-all": _start_accept_all,
    }
)
"""By the value of `--attestation`, the default first."""

SESSION_PROTOCOLS: Final[Mapping[str, Callable[[], SessionFactory]]] = MappingProxyType({"ra-tls": RaTls})
"""By the value of `--session`."""

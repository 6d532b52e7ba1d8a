# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What can be chosen when a MigTD starts: attestation modes and session protocols, one row each (design.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

from migtd import event_log, failures
from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import AttestationMode
from migtd.errors import FailureKind, InitializationError, InvalidParameter
from migtd.guest.interfaces import Guest
from migtd.migration.measurement import measure_without_attestation
from migtd.migration.session import SessionFactory
from migtd.ratls.session import RaTls

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AttestationChoice:
    """One attestation mode: what it measures at start (policy.md 3.3), and how its mode object is made after that.

    Both raise the MigTDError that the start fails with.
    """

    measure: Callable[[Guest], None]
    make: Callable[[Guest], AttestationMode]


def attestation_choice(name: str) -> AttestationChoice:
    """The mode of that name. Raises InvalidParameter (MIGTD-ATTESTATION-UNKNOWN), which names those there are."""
    return _choose(ATTESTATION_MODES, name, failures.ATTESTATION_UNKNOWN)


def session_factory(name: str) -> SessionFactory:
    """The protocol of that name. Raises InvalidParameter (MIGTD-SESSION-UNKNOWN), which names those there are."""
    return _choose(SESSION_PROTOCOLS, name, failures.SESSION_UNKNOWN)()


def _make_accept_all(guest: Guest) -> AttestationMode:
    area = guest.event_log
    if area is None:
        raise InitializationError(failures.EVENT_LOG_MISSING)
    return AcceptAll(lambda: event_log.for_sending(area))


def _choose(table: Mapping[str, T], name: str, unknown: FailureKind) -> T:
    choice = table.get(name)
    if choice is None:
        raise InvalidParameter(unknown, f"{name!r}; there is: {', '.join(table)}")
    return choice


ATTESTATION_MODES: Final[Mapping[str, AttestationChoice]] = MappingProxyType(
    {"accept-all": AttestationChoice(measure_without_attestation, _make_accept_all)}
)
"""By the value of `--attestation`."""

SESSION_PROTOCOLS: Final[Mapping[str, Callable[[], SessionFactory]]] = MappingProxyType({"ra-tls": RaTls})
"""By the value of `--session`."""

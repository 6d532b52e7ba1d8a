# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TCB levels: how they are read and which one a platform, a TDX module or a QE reaches (policy.md 4.3, 4.8)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from migtd.attestation.quote import failures
from migtd.attestation.quote.documents import Reader
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pck import COMPONENTS, PckExtension
from migtd.errors import FailureKind

UP_TO_DATE: Final = "UpToDate"
OUT_OF_DATE: Final = "OutOfDate"
CONFIGURATION_NEEDED: Final = "ConfigurationNeeded"
OUT_OF_DATE_CONFIGURATION_NEEDED: Final = "OutOfDateConfigurationNeeded"
SW_HARDENING_NEEDED: Final = "SWHardeningNeeded"
CONFIGURATION_AND_SW_HARDENING_NEEDED: Final = "ConfigurationAndSWHardeningNeeded"
REVOKED: Final = "Revoked"

ENCLAVE_STATUSES: Final = (UP_TO_DATE, OUT_OF_DATE, REVOKED)
"""Statuses of a TDX module and of a QE."""
PLATFORM_STATUSES: Final = (
    *ENCLAVE_STATUSES,
    CONFIGURATION_NEEDED,
    OUT_OF_DATE_CONFIGURATION_NEEDED,
    SW_HARDENING_NEEDED,
    CONFIGURATION_AND_SW_HARDENING_NEEDED,
)

_LEADING_MODULE_BYTES: Final = 2
"""Bytes 0 and 1 of TEE_TCB_SVN are SVN and major version of a TDX module that has an identity of its own."""


@dataclass(frozen=True, slots=True)
class Level:
    """What a level says: status name, date in seconds since 1970, advisory ids."""

    status: str
    date: int
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SvnLevel(Level):
    """A level of a TDX module or a QE: reached from `isvsvn` on."""

    isvsvn: int


@dataclass(frozen=True, slots=True)
class PlatformLevel(Level):
    """A level of a platform: SGX and TDX components (16 bytes, one a component) and PCESVN that it asks for."""

    sgx_components: bytes
    pcesvn: int
    tdx_components: bytes

    @property
    def rank(self) -> tuple[bytes, int, bytes]:
        """What levels are ordered by."""
        return self.sgx_components, self.pcesvn, self.tdx_components


# --- reading -------------------------------------------------------------------------------------------------------
def read_platform_levels(document: Reader) -> tuple[PlatformLevel, ...]:
    """`tcbLevels` of a TCB info, highest first.

    Raises QuoteError: the document's kind, or MIGTD-COLLATERAL-TCB-LEVELS-REPEATED where two have the same components.
    """
    levels = sorted(map(_platform_level, document.structures("tcbLevels")), key=lambda level: level.rank, reverse=True)
    for higher, lower in itertools.pairwise(levels):
        if higher.rank == lower.rank:
            raise QuoteError(failures.COLLATERAL_TCB_LEVELS_REPEATED, f"PCESVN {lower.pcesvn}")
    return tuple(levels)


def read_svn_levels(document: Reader) -> tuple[SvnLevel, ...]:
    """`tcbLevels` of a module identity or a QE identity, in the order of the document."""
    return tuple(
        SvnLevel(
            level.text("tcbStatus"),
            level.date("tcbDate"),
            level.texts("advisoryIDs"),
            level.structure("tcb").integer("isvsvn", 0xFFFF),
        )
        for level in document.structures("tcbLevels")
    )


def _platform_level(level: Reader) -> PlatformLevel:
    tcb = level.structure("tcb")
    return PlatformLevel(
        level.text("tcbStatus"),
        level.date("tcbDate"),
        level.texts("advisoryIDs"),
        _components(tcb, "sgxtcbcomponents"),
        tcb.integer("pcesvn", 0xFFFF),
        _components(tcb, "tdxtcbcomponents"),
    )


def _components(tcb: Reader, name: str) -> bytes:
    components = tcb.structures(name)
    if len(components) != COMPONENTS:
        raise QuoteError(tcb.kind, f"{tcb.place}.{name} has {len(components)} components")
    return bytes(component.integer("svn", 0xFF) for component in components)


# --- matching ------------------------------------------------------------------------------------------------------
def match_platform(levels: Sequence[PlatformLevel], pck: PckExtension, tee_tcb_svn: bytes) -> PlatformLevel:
    """The first level that a platform reaches; `levels` highest first.

    Every SGX component and the PCESVN of the PCK certificate, and every byte of TEE_TCB_SVN must be at least the
    level's; bytes 0 and 1 of TEE_TCB_SVN do not count where byte 1 is not 0. Raises QuoteError
    (MIGTD-QUOTE-TCB-LEVEL-MISSING).
    """
    first = _LEADING_MODULE_BYTES if tee_tcb_svn[1] else 0
    for level in levels:
        if (
            _reaches(pck.components, level.sgx_components)
            and pck.pcesvn >= level.pcesvn
            and _reaches(tee_tcb_svn[first:], level.tdx_components[first:])
        ):
            return level
    found = f"components {bytes(pck.components).hex()}, PCESVN {pck.pcesvn}, TEE_TCB_SVN {tee_tcb_svn.hex()}"
    raise QuoteError(failures.QUOTE_TCB_LEVEL_MISSING, found)


def match_svn(levels: Sequence[SvnLevel], isvsvn: int, missing: FailureKind) -> SvnLevel:
    """The first level in the order given that `isvsvn` reaches; raises QuoteError (`missing`)."""
    for level in levels:
        if level.isvsvn <= isvsvn:
            return level
    raise QuoteError(missing, f"SVN {isvsvn}")


def expect_not_revoked(level: Level, known: Sequence[str], revoked: FailureKind) -> None:
    """Refuse a level that is Revoked (`revoked`) or of a status that is not `known`.

    Raises QuoteError: `revoked`, MIGTD-COLLATERAL-STATUS-UNKNOWN.
    """
    if level.status not in known:
        raise QuoteError(failures.COLLATERAL_STATUS_UNKNOWN, f"{level.status!r}")
    if level.status == REVOKED:
        raise QuoteError(revoked, f"advisories {', '.join(level.advisories)}" if level.advisories else "")


def _reaches(found: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(have >= need for have, need in zip(found, wanted, strict=True))

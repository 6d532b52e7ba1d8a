# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The entries of a policy block: objects with the one key `global` or `servtd` (policy.md 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from migtd.policy.json_reader import Field, Reader
from migtd.policy.v2.properties import Property, read_property


@dataclass(frozen=True, slots=True)
class GlobalEntry:
    """Rules on the platform; None where there is none."""

    tcb_date: Property | None = None
    tcb_status: Property | None = None
    tcb_evaluation_number: Property | None = None
    fmspc: Property | None = None
    pck_crl_num: Property | None = None
    root_ca_crl_num: Property | None = None


@dataclass(frozen=True, slots=True)
class ServtdEntry:
    """Rules on the MigTD; None where there is none."""

    isvsvn: Property | None = None
    tcb_date: Property | None = None
    tcb_status: Property | None = None


Entry: TypeAlias = GlobalEntry | ServtdEntry


def read_entries(reader: Reader) -> tuple[Entry, ...]:
    """The next value as a list of entries. Raises JsonError."""
    return tuple(reader.sequence(_entry))


def read_global(reader: Reader) -> GlobalEntry:
    """The next value as what is in a `global` entry. Raises JsonError."""
    parts = reader.structure(*_GLOBAL)
    tcb, platform, crl = (parts[each.name] or {} for each in _GLOBAL)
    return GlobalEntry(
        tcb_date=tcb.get("tcbDate"),
        tcb_status=tcb.get("tcbStatusAccepted"),
        tcb_evaluation_number=tcb.get("tcbEvaluationDataNumber"),
        fmspc=platform.get("fmspc"),
        pck_crl_num=crl.get("pckCrlNum"),
        root_ca_crl_num=crl.get("rootCaCrlNum"),
    )


def read_servtd(reader: Reader) -> ServtdEntry:
    """The next value as what is in a `servtd` entry. Raises JsonError."""
    rules = reader.structure(Field("migtdIdentity", _migtd_identity))["migtdIdentity"]
    return ServtdEntry(rules["isvsvn"], rules["tcbDate"], rules["tcbStatusAccepted"])


def _entry(reader: Reader) -> Entry:
    refusal = reader.refusal("an entry is an object with exactly the key global or servtd")
    entry: Entry | None = None
    for key in reader.members():
        if entry is not None or key not in ("global", "servtd"):
            raise refusal
        entry = read_global(reader) if key == "global" else read_servtd(reader)
    if entry is None:
        raise refusal
    return entry


def _tcb(reader: Reader) -> dict[str, Any]:
    return reader.structure(*map(_rule, ("tcbDate", "tcbStatusAccepted", "tcbEvaluationDataNumber")))


def _platform(reader: Reader) -> dict[str, Any]:
    return reader.structure(_rule("fmspc"))


def _crl(reader: Reader) -> dict[str, Any]:
    return reader.structure(*map(_rule, ("pckCrlNum", "rootCaCrlNum")))


def _migtd_identity(reader: Reader) -> dict[str, Any]:
    return reader.structure(*map(_rule, ("isvsvn", "tcbDate", "tcbStatusAccepted")))


def _rule(name: str) -> Field:
    return Field(name, read_property, optional=True)


_GLOBAL: Final = (
    Field("tcb", _tcb, optional=True),
    Field("platform", _platform, optional=True),
    Field("crl", _crl, optional=True),
)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a policy says of MigTDs: measurements to SVN, SVN to date and status (policy.md 2.3, 2.6).

The servtd collateral holds two signed documents, each with its own chain: the TCB mapping and the identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from migtd.policy.errors import PolicyErrorName
from migtd.policy.json_reader import Field, Reader
from migtd.policy.v2.decoding import Signed, decode, u16, u32
from migtd.policy.v2.envelope import read_signed


@dataclass(frozen=True, slots=True)
class ServtdCollateral:
    """Identity and mapping as signed texts, with their chains in PEM."""

    major_version: int
    minor_version: int
    identity_chain: str
    identity: Signed
    mapping_chain: str
    mapping: Signed


@dataclass(frozen=True, slots=True)
class TcbLevel:
    """A level of the identity: from this SVN on, this date and this status, both as text."""

    isvsvn: int
    tcb_date: str
    tcb_status: str


@dataclass(frozen=True, slots=True)
class TdIdentity:
    """The identity; of the rest of the document nothing is used."""

    id: str
    levels: tuple[TcbLevel, ...]

    def level(self, isvsvn: int | None) -> TcbLevel | None:
        """The highest level that is not above an SVN, the last one among equals."""
        found = None
        for level in self.levels:
            if isvsvn is not None and level.isvsvn <= isvsvn and (found is None or level.isvsvn >= found.isvsvn):
                found = level
        return found


@dataclass(frozen=True, slots=True)
class Measurements:
    """MRTD and RTMRs of a TD, 48 bytes each; None where one is not known, which equals nothing."""

    mrtd: bytes | None
    rtmr0: bytes | None
    rtmr1: bytes | None
    rtmr2: bytes | None = None
    rtmr3: bytes | None = None


@dataclass(frozen=True, slots=True)
class SvnMapping:
    """Measurements as hex text and the SVN that they stand for; rtmr2 and rtmr3 may be left open."""

    measurements: tuple[bytes | None, ...]
    """mrtd, rtmr0 to rtmr3: as written in the document, in lower case."""
    isvsvn: int


@dataclass(frozen=True, slots=True)
class TdTcbMapping:
    """The mapping; of the rest of the document nothing is used."""

    id: str
    mappings: tuple[SvnMapping, ...] = field(repr=False)

    def svn(self, found: Measurements) -> int | None:
        """The SVN of the first element that the measurements meet, None if there is none."""
        values = tuple(
            None if value is None else value.hex().encode()
            for value in (found.mrtd, found.rtmr0, found.rtmr1, found.rtmr2, found.rtmr3)
        )
        for mapping in self.mappings:
            if all(want is None or want == value for want, value in zip(mapping.measurements, values, strict=True)):
                return mapping.isvsvn
        return None


def parse_identity(text: str) -> TdIdentity:
    """Decode a tdIdentity. Raises PolicyError (InvalidServtdIdentity)."""
    return decode(text, _identity, PolicyErrorName.InvalidServtdIdentity)


def parse_mapping(text: str) -> TdTcbMapping:
    """Decode a tdTcbMapping. Raises PolicyError (InvalidServtdTcbMapping)."""
    return decode(text, _mapping, PolicyErrorName.InvalidServtdTcbMapping)


def read_servtd_collateral(reader: Reader) -> ServtdCollateral:
    """The next value as servtdCollateral; identity and mapping are not decoded. Raises JsonError."""
    values = reader.structure(*_COLLATERAL)
    return ServtdCollateral(
        values["majorVersion"],
        values["minorVersion"],
        values["servtdIdentityIssuerChain"],
        values["servtdIdentity"],
        values["servtdTcbMappingIssuerChain"],
        values["servtdTcbMapping"],
    )


def _identity(reader: Reader) -> TdIdentity:
    values = reader.structure(*_IDENTITY)
    return TdIdentity(values["id"], tuple(values["tcbLevels"]))


def _level(reader: Reader) -> TcbLevel:
    values = reader.structure(*_LEVEL)
    return TcbLevel(values["tcb"], values["tcbDate"], values["tcbStatus"])


def _tcb(reader: Reader) -> int:
    svn: int = reader.structure(Field("isvsvn", u16))["isvsvn"]
    return svn


def _mapping(reader: Reader) -> TdTcbMapping:
    values = reader.structure(*_MAPPING)
    return TdTcbMapping(values["id"], tuple(values["svnMappings"]))


def _svn_mapping(reader: Reader) -> SvnMapping:
    values = reader.structure(*_SVN_MAPPING)
    return SvnMapping(values["tdMeasurements"], values["isvsvn"])


def _measurements(reader: Reader) -> tuple[bytes | None, ...]:
    values = reader.structure(*_MEASUREMENTS)
    return tuple(values[each.name] for each in _MEASUREMENTS)


def _folded(reader: Reader) -> bytes:
    """A string as UTF-8, ASCII letters in lower case: other letters have no case here."""
    return reader.string().encode().lower()


_HEAD: Final = (
    Field("id", Reader.string),
    Field("version", u32),
    Field("issueDate", Reader.string),
    Field("nextUpdate", Reader.string),
)
_IDENTITY: Final = (
    *_HEAD,
    Field("tcbEvaluationNumber", u32),
    *(
        Field(name, Reader.string)
        for name in ("xfam", "attributes", "mrConfigId", "mrOwner", "mrOwnerConfig", "mrsigner")
    ),
    Field("isvProdId", u16),
    Field("tcbLevels", lambda reader: reader.sequence(_level)),
)
_LEVEL: Final = (Field("tcb", _tcb), Field("tcbDate", Reader.string), Field("tcbStatus", Reader.string))
_MAPPING: Final = (
    *_HEAD,
    Field("mrSigner", Reader.string),
    Field("isvProdId", u16),
    Field("svnMappings", lambda reader: reader.sequence(_svn_mapping)),
)
_SVN_MAPPING: Final = (Field("tdMeasurements", _measurements), Field("isvsvn", u16))
_MEASUREMENTS: Final = (
    Field("mrtd", _folded),
    Field("rtmr0", _folded),
    Field("rtmr1", _folded),
    Field("rtmr2", _folded, optional=True),
    Field("rtmr3", _folded, optional=True),
)
_COLLATERAL: Final = (
    Field("majorVersion", u32),
    Field("minorVersion", u32),
    Field("servtdIdentityIssuerChain", Reader.string),
    Field("servtdIdentity", read_signed("tdIdentity")),
    Field("servtdTcbMappingIssuerChain", Reader.string),
    Field("servtdTcbMapping", read_signed("tdTcbMapping")),
)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The collaterals in a v2 policy: what quotes are verified with, for many platforms (policy.md 2.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from migtd.attestation.quote.certificates import root_key_of
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, pull_pem
from migtd.policy.chain import crl_number
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import shown_name
from migtd.policy.failures import KINDS
from migtd.policy.json_reader import Field, Reader
from migtd.policy.v2.decoding import decode, u16, u32

_NAME: Final = PolicyErrorName.InvalidCollateral


@dataclass(frozen=True)
class Platform:
    """One platform model: its FMSPC as text, and Intel's TCB info, a JSON document as text, with its chain.

    No slots: the number in the TCB info is looked for when it is first needed, and kept.
    """

    fmspc: str
    tcb_info_issuer_chain: str = field(repr=False)
    tcb_info: str = field(repr=False)

    def tcb_evaluation_number(self) -> int:
        """`tcbInfo.tcbEvaluationDataNumber`, u32. Raises PolicyError (InvalidCollateral)."""
        return self._evaluation_number

    @cached_property
    def _evaluation_number(self) -> int:
        number: int = decode(self.tcb_info, _evaluation_number, _NAME)
        return number


@dataclass(frozen=True, slots=True)
class Collaterals:
    """The collaterals as they stand in the policy; PEM and JSON texts are looked at when they are needed."""

    major_version: int
    minor_version: int
    tee_type: int
    root_ca: str = field(repr=False)
    pck_crl_issuer_chain: str = field(repr=False)
    root_ca_crl: str = field(repr=False)
    pck_crl: str = field(repr=False)
    platforms: tuple[Platform, ...]
    qe_identity_issuer_chain: str = field(repr=False)
    qe_identity: str = field(repr=False)

    def platform(self, fmspc: str) -> Platform:
        """The first platform of exactly this text, upper-case hex. Raises PolicyError (InvalidCollateral)."""
        for platform in self.platforms:
            if platform.fmspc == fmspc:
                return platform
        raise PolicyError(_NAME, f"there is none for FMSPC {shown_name(fmspc)}")

    def root_key(self) -> bytes:
        """The key of the first certificate in `rootCa`, a P-256 point. Raises PolicyError (InvalidCollateral)."""
        try:
            certificates = pull_pem(self.root_ca.encode(), CERTIFICATE, KINDS[_NAME])
            if not certificates:
                raise PolicyError(_NAME, "rootCa holds no certificate")
            return root_key_of(certificates[0])
        except QuoteError as error:
            raise PolicyError(_NAME, f"rootCa: {error.detail or error}") from error

    def pck_crl_number(self) -> int:
        """The PCK CRL's number, u32. Raises PolicyError (InvalidCollateral)."""
        return crl_number(self.pck_crl.encode())

    def root_ca_crl_number(self) -> int:
        """The root CA CRL's number, u32. Raises PolicyError (InvalidCollateral)."""
        return crl_number(self.root_ca_crl.encode())

    def set_of(self, platform: Platform) -> CollateralSet:
        """What quotes of one platform are verified with. Raises PolicyError (InvalidCollateral) on a NUL in a text."""
        texts = (
            self.pck_crl_issuer_chain,
            self.root_ca_crl,
            self.pck_crl,
            platform.tcb_info_issuer_chain,
            platform.tcb_info,
            self.qe_identity_issuer_chain,
            self.qe_identity,
        )
        if any("\0" in text for text in texts):
            raise PolicyError(_NAME, "a text holds a NUL")
        return CollateralSet(self.major_version, self.minor_version, self.tee_type, *(text.encode() for text in texts))


def read_collaterals(reader: Reader) -> Collaterals:
    """The next value as collaterals. Raises JsonError."""
    values = reader.structure(*_COLLATERALS)
    return Collaterals(*(values[each.name] for each in _COLLATERALS))


def _platforms(reader: Reader) -> tuple[Platform, ...]:
    return tuple(reader.sequence(_platform))


def _platform(reader: Reader) -> Platform:
    values = reader.structure(*_PLATFORM)
    return Platform(*(values[each.name] for each in _PLATFORM))


def _evaluation_number(reader: Reader) -> int:
    number: int = reader.structure(Field("tcbInfo", _inner_evaluation_number))["tcbInfo"]
    return number


def _inner_evaluation_number(reader: Reader) -> int:
    number: int = reader.structure(Field("tcbEvaluationDataNumber", u32))["tcbEvaluationDataNumber"]
    return number


_PLATFORM: Final = tuple(Field(name, Reader.string) for name in ("fmspc", "tcbInfoIssuerChain", "tcbInfo"))
_COLLATERALS: Final = (
    Field("majorVersion", u16),
    Field("minorVersion", u16),
    Field("teeType", u32),
    Field("rootCa", Reader.string),
    Field("pckCrlIssuerChain", Reader.string),
    Field("rootCaCrl", Reader.string),
    Field("pckCrl", Reader.string),
    Field("platforms", _platforms),
    Field("qeIdentityIssuerChain", Reader.string),
    Field("qeIdentity", Reader.string),
)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The PKI of one lab: root CA, PCK Platform CA, TCB signing, and the PCK certificates of its machines.

Nothing outside a lab trusts it. One secret makes all keys and serial numbers, so the PKI of a lab is its secret, the
time it was made and four certificates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, ValidationError

from vmm_stub import failures
from vmm_stub.quoting.certificates import Authority, Profile, make_certificate, make_crl, sgx_extension
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.keys import SECRET_SIZE, derive, derive_key, point_of
from vmm_stub.quoting.settings import Date, HexBytes, PlatformSettings
from vmm_stub.tdx_module.randomness import RandomSource, draw

SEEDED_AT: Final = datetime(2025, 6, 1, tzinfo=UTC)
"""When a PKI from a seed was made, unless said otherwise: the same seed is to give the same bytes on any day."""
LIFETIME: Final = timedelta(days=20 * 365)
"""Of certificates."""
COLLATERAL_LIFETIME: Final = timedelta(days=365)
PCS_URL: Final = "http://127.0.0.1:8081"
"""Where certificates say that their CRLs are, unless said otherwise (pcs.py)."""
ROOT_CRL_PATH: Final = "/sgx/certification/v4/rootcacrl?encoding=der"
PCK_CRL_PATH: Final = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"

_ROOT: Final = "MigTD Lab SGX Root CA"
_PLATFORM_CA: Final = "MigTD Lab SGX PCK Platform CA"
_TCB_SIGNING: Final = "MigTD Lab SGX TCB Signing"
_PCK: Final = "MigTD Lab SGX PCK Certificate"
_SERIAL_SIZE: Final = 20


@dataclass(frozen=True, slots=True)
class LabPki:
    """Make it by `generate`, `from_seed` or `pull_pki`. `secret` (32 bytes) signs as everybody in it."""

    secret: bytes = field(repr=False)
    issued: datetime
    pcs_url: str
    root: x509.Certificate
    platform_ca: x509.Certificate
    tcb_signing: x509.Certificate

    @classmethod
    def generate(cls, random: RandomSource, issued: datetime, pcs_url: str = PCS_URL) -> LabPki:
        """A new PKI, made at `issued` (with a time zone). Raises RandomSourceBroken (VMM-RANDOM-SOURCE-BROKEN)."""
        return _make(draw(random, SECRET_SIZE), issued.astimezone(UTC).replace(microsecond=0), pcs_url)

    @classmethod
    def from_seed(cls, seed: str, issued: datetime = SEEDED_AT, pcs_url: str = PCS_URL) -> LabPki:
        """The PKI of a seed: whoever knows the seed has all its keys, so this is for tests only."""
        return _make(hashlib.sha256(b"MigTD Lab seed " + seed.encode()).digest(), issued, pcs_url)

    @property
    def root_ca(self) -> bytes:
        """The root certificate, DER: what a configuration volume carries as SGX root CA."""
        return self.root.public_bytes(Encoding.DER)

    @property
    def root_key(self) -> bytes:
        """The root's public point, 65 bytes."""
        return b"\x04" + point_of(derive_key(self.secret, _ROOT))

    @property
    def pck_crl_chain(self) -> bytes:
        """PCK Platform CA and root, PEM."""
        return _pem(self.platform_ca, self.root)

    @property
    def signing_chain(self) -> bytes:
        """TCB signing and root, PEM."""
        return _pem(self.tcb_signing, self.root)

    @property
    def tcb_signing_key(self) -> ec.EllipticCurvePrivateKey:
        """What signs TCB info and QE identity."""
        return derive_key(self.secret, _TCB_SIGNING)

    def root_ca_crl(self, issued: datetime, expires: datetime) -> bytes:
        """CRL of the root, PEM: nothing is revoked."""
        return make_crl(Authority(self.root, derive_key(self.secret, _ROOT)), [], issued, expires)

    def pck_crl(self, revoked: Sequence[PlatformSettings], issued: datetime, expires: datetime) -> bytes:
        """CRL of the PCK Platform CA over the PCK certificates of those machines, PEM."""
        return make_crl(self._platform_authority(), [self._pck_serial(each) for each in revoked], issued, expires)

    def pck_key(self, settings: PlatformSettings) -> ec.EllipticCurvePrivateKey:
        """What the machine's QE report is signed with."""
        return derive_key(self.secret, _pck_label(settings))

    def attestation_key(self, settings: PlatformSettings) -> ec.EllipticCurvePrivateKey:
        """What the machine's quotes are signed with."""
        return derive_key(self.secret, f"attestation key {settings.machine}")

    def pck_chain(self, settings: PlatformSettings) -> bytes:
        """PCK certificate of the machine, Platform CA, root: PEM."""
        label = _pck_label(settings)
        extension = sgx_extension(settings, derive(self.secret, f"PPID {settings.machine}", 16))
        profile = Profile(
            _PCK,
            self._pck_serial(settings),
            self.issued,
            self.issued + LIFETIME,
            self.pcs_url + PCK_CRL_PATH,
            sgx=extension,
        )
        pck = make_certificate(profile, derive_key(self.secret, label), self._platform_authority())
        return _pem(pck, self.platform_ca, self.root)

    def _platform_authority(self) -> Authority:
        return Authority(self.platform_ca, derive_key(self.secret, _PLATFORM_CA))

    def _pck_serial(self, settings: PlatformSettings) -> int:
        return _serial(self.secret, _pck_label(settings))


class _Document(BaseModel):
    """JSON of a PKI."""

    model_config = ConfigDict(extra="forbid")

    secret: Annotated[bytes, HexBytes(SECRET_SIZE)]
    issued: Date
    pcs_url: str
    root: str
    platform_ca: str
    tcb_signing: str


def push_pki(pki: LabPki) -> str:
    """JSON text of a PKI. It holds the secret: keep it in a file of mode 0600."""
    return _Document(
        secret=pki.secret,
        issued=pki.issued,
        pcs_url=pki.pcs_url,
        root=_pem(pki.root).decode(),
        platform_ca=_pem(pki.platform_ca).decode(),
        tcb_signing=_pem(pki.tcb_signing).decode(),
    ).model_dump_json()


def pull_pki(text: str) -> LabPki:
    """The PKI of such a text. Raises QuotingError (VMM-QUOTING-MATERIAL), which shows nothing of the text."""
    try:
        document = _Document.model_validate_json(text)
        certificates = [
            x509.load_pem_x509_certificate(each.encode())
            for each in (document.root, document.platform_ca, document.tcb_signing)
        ]
    except ValidationError as error:
        names = sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False)})
        raise QuotingError(failures.QUOTING_MATERIAL, f"PKI: {', '.join(names) or 'no JSON'}") from None
    except ValueError:
        raise QuotingError(failures.QUOTING_MATERIAL, "PKI: a certificate cannot be read") from None
    return LabPki(document.secret, document.issued, document.pcs_url, *certificates)


def _make(secret: bytes, issued: datetime, pcs_url: str) -> LabPki:
    def profile(common_name: str, path_length: int | None) -> Profile:
        return Profile(
            common_name,
            _serial(secret, common_name),
            issued,
            issued + LIFETIME,
            pcs_url + ROOT_CRL_PATH,
            path_length,
        )

    root_key = derive_key(secret, _ROOT)
    root = make_certificate(profile(_ROOT, 1), root_key)
    authority = Authority(root, root_key)
    platform_ca = make_certificate(profile(_PLATFORM_CA, 0), derive_key(secret, _PLATFORM_CA), authority)
    tcb_signing = make_certificate(profile(_TCB_SIGNING, None), derive_key(secret, _TCB_SIGNING), authority)
    return LabPki(secret, issued, pcs_url, root, platform_ca, tcb_signing)


def _pck_label(settings: PlatformSettings) -> str:
    """A PCK belongs to one machine at one TCB: other SVNs, other key and certificate."""
    return f"PCK {settings.machine} {settings.fmspc.hex()} {settings.sgx_components.hex()} {settings.pcesvn}"


def _serial(secret: bytes, label: str) -> int:
    # The top bit stays clear and one below is set: 20 bytes of DER, never zero, never negative.
    drawn = int.from_bytes(derive(secret, f"serial {label}", _SERIAL_SIZE), "big")
    return drawn & (1 << 8 * _SERIAL_SIZE - 2) - 1 | 1 << 8 * _SERIAL_SIZE - 2


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)

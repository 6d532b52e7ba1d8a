# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Collateral services: where each item is, and how it is asked for (policy.md 5.1, 5.2)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError
from lab.policy_tools.fetch import NOT_FOUND, OK, Answer, Fetcher
from lab.policy_tools.items import Chained, Items, tdx_platforms, utf8
from migtd.attestation.quote.certificates import UNREADABLE
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, pull_pem

INTEL: Final = "https://api.trustedservices.intel.com"
INTEL_PRE_PRODUCTION: Final = "https://sbx.api.trustedservices.intel.com"
ROOT_CA_FILE: Final = "Intel_SGX_Provisioning_Certification_RootCA.cer"
AT_A_TIME: Final = 8
"""Requests that run in parallel."""

_QE_CHAIN: Final = "SGX-Enclave-Identity-Issuer-Chain"
_PCK_CRL_CHAIN: Final = "SGX-PCK-CRL-Issuer-Chain"
_TCB_CHAIN: Final = "TCB-Info-Issuer-Chain"


@dataclass(frozen=True, slots=True)
class Service:
    """Base addresses: of collateral, and of the list of platforms; `root_ca` is the root's whole address.

    `root_ca_crl`: the whole address of its CRL; None: the one that the QE identity's chain names.
    """

    base: str
    platforms: str
    root_ca: str
    root_ca_crl: str | None = None


def intel(*, pre_production: bool = False) -> Service:
    """Intel's service; its base ends in a slash, so that addresses have two."""
    base = INTEL_PRE_PRODUCTION if pre_production else INTEL
    host = "sbx-certificates" if pre_production else "certificates"
    return Service(f"{base}/", f"{base}/", f"https://{host}.trustedservices.intel.com/{ROOT_CA_FILE}")


def intel_for_v1(*, pre_production: bool = False) -> Service:
    """The same without the slash at the end of the base: what the generator of policies v1 asks."""
    service = intel(pre_production=pre_production)
    return replace(service, base=service.base.rstrip("/"), platforms=service.platforms.rstrip("/"))


def azure_thim(region: str) -> Service:
    """The cache in an Azure region; the list of platforms and the root are Intel's. Raises ToolError on odd regions."""
    if not region.isascii() or not region.replace("-", "").isalnum():
        raise ToolError(failures.PROVIDER_UNKNOWN, f"{region[:60]!r} is no Azure region")
    production = intel()
    return Service(f"https://{region}.thim.azure.net", production.platforms, production.root_ca)


def compatible(base: str) -> Service:
    """Any PCS-compatible service, such as the one of a lab, for all items; the root stands where the lab has it."""
    base = base.rstrip("/")
    crl = f"{base}/sgx/certification/v4/rootcacrl?encoding=der"
    return Service(base, base, f"{base}/{ROOT_CA_FILE}", crl)


class PcsClient:
    """Asks one service, through one fetcher; `talk` takes a line about what is skipped."""

    def __init__(
        self,
        service: Service,
        fetcher: Fetcher,
        talk: Callable[[str], None] = lambda text: print(text, file=sys.stderr),  # noqa: T201 - a tool talks
    ) -> None:
        self._service = service
        self._fetcher = fetcher
        self._talk = talk

    def items(self) -> Items:
        """All items. Raises ToolError: LAB-PCS-UNREACHABLE, LAB-PCS-REFUSED, LAB-PCS-ANSWER-INVALID."""
        identity = self.qe_identity()
        crl_address = self._service.root_ca_crl or _crl_address(identity.chain)
        root_ca_crl = _der_of(self._require(crl_address).body)
        root_ca = self._require(self._service.root_ca).body
        pck_crl = self._chained("sgx/certification/v4/pckcrl?ca=platform&encoding=der", _PCK_CRL_CHAIN)
        return Items(self.tcb_infos(), identity, pck_crl, root_ca, root_ca_crl)

    def qe_identity(self) -> Chained:
        """The QE identity. Raises as `items` does."""
        return self._chained("tdx/certification/v4/qe/identity", _QE_CHAIN)

    def bodies_for_v1(self) -> tuple[dict[str, bytes], bytes]:
        """TCB infos by FMSPC and the QE identity, as a policy v1 needs them: without chains. Raises as `items` does."""
        identity = self._require(f"{self._service.base}/tdx/certification/v4/qe/identity?update=")
        return {fmspc: each.body for fmspc, each in self._tcb_answers().items()}, identity.body

    def tcb_infos(self) -> dict[str, Chained]:
        """The TCB info of each platform with TDX, in the order of the list. Raises as `items` does.

        A platform without one (404) is left out silently, one whose answer has another status with a line about it.
        """
        return {
            fmspc: Chained(answer.body, _header(f"TCB info of {fmspc}", answer, _TCB_CHAIN))
            for fmspc, answer in self._tcb_answers().items()
        }

    def _tcb_answers(self) -> dict[str, Answer]:
        platforms = tdx_platforms(self._require(f"{self._service.platforms}/sgx/certification/v4/fmspcs").body)
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            found = list(pool.map(self._tcb_answer, platforms))
        return {fmspc: each for fmspc, each in zip(platforms, found, strict=True) if each is not None}

    def _tcb_answer(self, fmspc: str) -> Answer | None:
        url = f"{self._service.base}/tdx/certification/v4/tcb?fmspc={fmspc}"
        answer = self._fetcher.get(url)
        if answer.status == OK:
            return answer
        if answer.status != NOT_FOUND:
            self._talk(f"{fmspc} is left out: {url} gave status {answer.status}")
        return None

    def _chained(self, path: str, header: str) -> Chained:
        url = f"{self._service.base}/{path}"
        answer = self._require(url)
        return Chained(answer.body, _header(url, answer, header))

    def _require(self, url: str) -> Answer:
        answer = self._fetcher.get(url)
        if answer.status != OK:
            raise ToolError(failures.PCS_REFUSED, f"{url}: status {answer.status}")
        return answer


def _header(url: str, answer: Answer, name: str) -> str:
    """A chain out of a header, percent-decoded."""
    value = answer.headers.get(name.lower())
    if value is None:
        raise ToolError(failures.PCS_ANSWER_INVALID, f"{url}: the header {name} is missing")
    return utf8(unquote_to_bytes(value), f"{url}: the header {name}")


def _crl_address(chain: str) -> str:
    """The first URI in the CRL distribution points of the second certificate of a chain."""
    try:
        ders = pull_pem(chain.encode(), CERTIFICATE, failures.PCS_ANSWER_INVALID)
        certificate = x509.load_der_x509_certificate(ders[1])
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.CRL_DISTRIBUTION_POINTS)
        return next(_uris(extension.value))
    except (QuoteError, IndexError, StopIteration, x509.ExtensionNotFound, *UNREADABLE) as error:
        detail = "the QE identity's issuer chain names no address for the root CA's CRL"
        raise ToolError(failures.PCS_ANSWER_INVALID, f"{detail}: {type(error).__name__}") from error


def _uris(value: x509.ExtensionType) -> Iterator[str]:
    points: Iterable[x509.DistributionPoint] = value if isinstance(value, x509.CRLDistributionPoints) else ()
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier):
                yield name.value


def _der_of(body: bytes) -> bytes:
    """Some services give the CRL as hex text."""
    try:
        return bytes.fromhex(body.decode("ascii"))
    except ValueError:
        return body

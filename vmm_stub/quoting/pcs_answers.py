# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the collateral service of a lab answers, without HTTP: the paths of the Intel PCS, version 4.

    /sgx/certification/v4/fmspcs                        JSON list of fmspc and platform (E5)
    /sgx/certification/v4/pckcrl?ca=platform            PCK CRL; DER with encoding=der, else PEM
    /sgx/certification/v4/rootcacrl                     root CA CRL; DER with encoding=der, else hex text
    /tdx/certification/v4/tcb?fmspc=F                   TCB info
    /tdx/certification/v4/qe/identity                   QE identity
    /Intel_SGX_Provisioning_Certification_RootCA.cer    root CA, DER

Issuer chains come in headers, percent-encoded, under the names that the PCS gives them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from vmm_stub.quoting.material import QuotingMaterial

ROOT_CA_PATH: Final = "/Intel_SGX_Provisioning_Certification_RootCA.cer"
_JSON: Final = "application/json"
_DER: Final = "application/pkix-crl"
_MAX_PARAMETERS: Final = 16


@dataclass(frozen=True, slots=True)
class PcsAnswer:
    """Status, headers and body of an answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Query: TypeAlias = Mapping[str, str]


def pcs_answer(material: QuotingMaterial, target: str) -> PcsAnswer:
    """Answer GET of a request target (path and query). 404 for what there is not, 400 for what is no such request.

    Slashes may be doubled at the start of the path: the reference's tools do that.
    """
    try:
        parts = urlsplit("/" + target.lstrip("/"))
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        return PcsAnswer(400)
    serve = _PATHS.get(parts.path)
    return PcsAnswer(404) if serve is None else serve(material, query)


def _fmspcs(material: QuotingMaterial, _: Query) -> PcsAnswer:
    listed = [{"fmspc": fmspc, "platform": "E5"} for fmspc in material.tcb_infos]
    return PcsAnswer(200, {"content-type": _JSON}, json.dumps(listed).encode())


def _pck_crl(material: QuotingMaterial, query: Query) -> PcsAnswer:
    if query.get("ca") != "platform":
        return PcsAnswer(404 if query.get("ca") == "processor" else 400)
    collateral = material.collateral
    chain = {"SGX-PCK-CRL-Issuer-Chain": _encoded(collateral.pck_crl_issuer_chain)}
    if query.get("encoding", "pem").lower() == "der":
        return PcsAnswer(200, {"content-type": _DER, **chain}, _der(collateral.pck_crl))
    return PcsAnswer(200, {"content-type": "application/x-pem-file", **chain}, collateral.pck_crl)


def _root_ca_crl(material: QuotingMaterial, query: Query) -> PcsAnswer:
    der = _der(material.collateral.root_ca_crl)
    if query.get("encoding", "hex").lower() == "der":
        return PcsAnswer(200, {"content-type": _DER}, der)
    return PcsAnswer(200, {"content-type": "text/plain"}, der.hex().encode())


def _tcb(material: QuotingMaterial, query: Query) -> PcsAnswer:
    fmspc = query.get("fmspc", "")
    document = material.tcb_infos.get(fmspc.upper())
    if document is None:
        return PcsAnswer(404 if fmspc else 400)
    chain = {"TCB-Info-Issuer-Chain": _encoded(material.collateral.tcb_info_issuer_chain)}
    return PcsAnswer(200, {"content-type": _JSON, **chain}, document)


def _qe_identity(material: QuotingMaterial, _: Query) -> PcsAnswer:
    chain = {"SGX-Enclave-Identity-Issuer-Chain": _encoded(material.collateral.qe_identity_issuer_chain)}
    return PcsAnswer(200, {"content-type": _JSON, **chain}, material.collateral.qe_identity)


def _root_ca(material: QuotingMaterial, _: Query) -> PcsAnswer:
    return PcsAnswer(200, {"content-type": "application/pkix-cert"}, material.root_ca)


_PATHS: Final[Mapping[str, Callable[[QuotingMaterial, Query], PcsAnswer]]] = {
    "/sgx/certification/v4/fmspcs": _fmspcs,
    "/sgx/certification/v4/pckcrl": _pck_crl,
    "/sgx/certification/v4/rootcacrl": _root_ca_crl,
    "/tdx/certification/v4/tcb": _tcb,
    "/tdx/certification/v4/qe/identity": _qe_identity,
    ROOT_CA_PATH: _root_ca,
}


def _encoded(chain: bytes) -> str:
    return quote(chain.decode(), safe="")


def _der(crl: bytes) -> bytes:
    return x509.load_pem_x509_crl(crl).public_bytes(Encoding.DER)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The items that collateral consists of, their files in a folder, and the collaterals document of them (policy.md 5.2).

    fmspcs.json                        list of fmspc and platform, in the service's order; may be absent
    tcb-info-FMSPC.json                TCB info of one platform
    tcb-info-FMSPC-issuer-chain.pem    its chain, or one for all: tcb-info-issuer-chain.pem
    qe-identity.json, qe-identity-issuer-chain.pem
    pck-crl.der or .pem, pck-crl-issuer-chain.pem
    root-ca.der or .pem, root-ca-crl.der or .pem

`pki.export` writes the folder of a host so; root-ca.der may stand in the folder above, as it does there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.policy_tools import failures
from lab.policy_tools.compact import pull_json, push_json
from lab.policy_tools.errors import ToolError
from lab.policy_tools.files import read_file, write_file
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, X509_CRL, pull_pem, push_pem

E5: Final = "E5"
"""The platforms with TDX."""
TEE_TYPE_TDX: Final = 0x81
MAX_PLATFORMS: Final = 1000
_FMSPC: Final = re.compile(r"[0-9A-Fa-f]{12}")
_TCB_INFO: Final = re.compile(r"tcb-info-([0-9A-Fa-f]{12})\.json")


@dataclass(frozen=True, slots=True)
class Chained:
    """A document as it was delivered, and its issuer chain, PEM."""

    body: bytes
    chain: str


@dataclass(frozen=True, slots=True)
class Items:
    """Collateral as delivered. `tcb_infos` by FMSPC, in the order of the service; certificates and CRLs DER or PEM."""

    tcb_infos: Mapping[str, Chained]
    qe_identity: Chained
    pck_crl: Chained
    root_ca: bytes
    root_ca_crl: bytes


def collaterals_document(items: Items) -> bytes:
    """The collaterals document that policies v2 embed: compact JSON.

    Raises ToolError (LAB-PCS-ANSWER-INVALID) where a document is not UTF-8 or a certificate or CRL is none.
    """
    document = {
        "majorVersion": 1,
        "minorVersion": 0,
        "teeType": TEE_TYPE_TDX,
        "rootCa": _as_pem(items.root_ca, CERTIFICATE, "root CA"),
        "pckCrlIssuerChain": items.pck_crl.chain,
        "rootCaCrl": _as_pem(items.root_ca_crl, X509_CRL, "root CA CRL"),
        "pckCrl": _pck_crl(items.pck_crl.body),
        "platforms": [
            {
                "fmspc": fmspc,
                "tcbInfoIssuerChain": tcb_info.chain,
                "tcbInfo": utf8(tcb_info.body, f"TCB info of {fmspc}"),
            }
            for fmspc, tcb_info in items.tcb_infos.items()
        ],
        "qeIdentityIssuerChain": items.qe_identity.chain,
        "qeIdentity": utf8(items.qe_identity.body, "QE identity"),
    }
    return push_json(document)


def tdx_platforms(body: bytes) -> list[str]:
    """The FMSPCs with TDX of a list of platforms, in its order. Raises ToolError (LAB-PCS-ANSWER-INVALID)."""
    try:
        listed = pull_json(body, "FMSPC list")
        found = [each["fmspc"] for each in listed if each["platform"] == E5]
        sound = isinstance(listed, list) and all(isinstance(fmspc, str) and _FMSPC.fullmatch(fmspc) for fmspc in found)
    except (ToolError, TypeError, KeyError) as error:
        raise ToolError(failures.PCS_ANSWER_INVALID, f"FMSPC list: {error}") from error
    if not sound or len(found) > MAX_PLATFORMS:
        raise ToolError(failures.PCS_ANSWER_INVALID, f"FMSPC list of {len(found)} platforms, or one that is no FMSPC")
    return list(dict.fromkeys(found))


def utf8(body: bytes, what: str) -> str:
    """Text of a document. Raises ToolError (LAB-PCS-ANSWER-INVALID)."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ToolError(failures.PCS_ANSWER_INVALID, f"{what} is not UTF-8") from error


def read_items(folder: Path) -> Items:
    """Collateral from the files of a folder. Raises ToolError (LAB-TOOL-FILE-UNREADABLE, LAB-PCS-ANSWER-INVALID)."""
    return Items(
        read_tcb_infos(folder),
        read_qe_identity(folder),
        Chained(_either(folder, "pck-crl"), _text(folder / "pck-crl-issuer-chain.pem")),
        _either(folder, "root-ca", folder.absolute().parent),
        _either(folder, "root-ca-crl"),
    )


def read_tcb_infos(folder: Path) -> dict[str, Chained]:
    """The TCB infos of a folder by FMSPC: in the order of fmspcs.json, else sorted. Raises as `read_items` does."""
    try:
        files = {found[1].upper(): each for each in folder.iterdir() if (found := _TCB_INFO.fullmatch(each.name))}
    except OSError as error:
        raise ToolError(failures.FILE_UNREADABLE, f"{folder}: {error.strerror}") from error
    listed = folder / "fmspcs.json"
    order = tdx_platforms(read_file(listed)) if listed.exists() else sorted(files)
    present = [fmspc for fmspc in order if fmspc.upper() in files]
    return {fmspc: Chained(read_file(files[fmspc.upper()]), _tcb_chain(folder, fmspc)) for fmspc in present}


def read_qe_identity(folder: Path) -> Chained:
    """The QE identity of a folder. Raises as `read_items` does."""
    return Chained(read_file(folder / "qe-identity.json"), _text(folder / "qe-identity-issuer-chain.pem"))


def write_items(items: Items, folder: Path) -> None:
    """Write the files that `read_items` reads. Raises ToolError (LAB-TOOL-FILE-UNWRITABLE)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(failures.FILE_UNWRITABLE, f"{folder}: {error.strerror}") from error
    listed = json.dumps([{"fmspc": fmspc, "platform": E5} for fmspc in items.tcb_infos])
    files = {
        "qe-identity.json": items.qe_identity.body,
        "qe-identity-issuer-chain.pem": items.qe_identity.chain.encode(),
        f"pck-crl.{_ending(items.pck_crl.body)}": items.pck_crl.body,
        "pck-crl-issuer-chain.pem": items.pck_crl.chain.encode(),
        f"root-ca.{_ending(items.root_ca)}": items.root_ca,
        f"root-ca-crl.{_ending(items.root_ca_crl)}": items.root_ca_crl,
        "fmspcs.json": listed.encode(),
    }
    for fmspc, tcb_info in items.tcb_infos.items():
        files[f"tcb-info-{fmspc}.json"] = tcb_info.body
        files[f"tcb-info-{fmspc}-issuer-chain.pem"] = tcb_info.chain.encode()
    for name, content in files.items():
        write_file(folder / name, content)


def _tcb_chain(folder: Path, fmspc: str) -> str:
    own = folder / f"tcb-info-{fmspc}-issuer-chain.pem"
    return _text(own if own.exists() else folder / "tcb-info-issuer-chain.pem")


def _either(folder: Path, name: str, *more: Path) -> bytes:
    """The file `name` as DER or PEM, from the first folder that has one."""
    candidates = [each / f"{name}.{ending}" for each in (folder, *more) for ending in ("der", "pem")]
    return read_file(next((each for each in candidates if each.exists()), candidates[0]))


def _text(path: Path) -> str:
    return utf8(read_file(path), str(path))


def _ending(content: bytes) -> str:
    return "pem" if _is_pem(content) else "der"


def _is_pem(content: bytes) -> bool:
    return content.lstrip().startswith(b"-----BEGIN ")


def _pck_crl(body: bytes) -> str:
    """PEM is kept as it came."""
    return utf8(body, "PCK CRL") if _is_pem(body) else _as_pem(body, X509_CRL, "PCK CRL")


def _as_pem(content: bytes, label: str, what: str) -> str:
    """One PEM section without a final newline."""
    try:
        ders = pull_pem(content, label, failures.PCS_ANSWER_INVALID) if _is_pem(content) else [content]
    except QuoteError as error:
        raise ToolError(failures.PCS_ANSWER_INVALID, f"{what}: {error.detail}") from error
    # The outermost SEQUENCE of a certificate or CRL; all else is up to whoever verifies it.
    if len(ders) != 1 or not ders[0].startswith(b"\x30"):
        raise ToolError(failures.PCS_ANSWER_INVALID, f"{what} is none")
    return push_pem(ders[0], label).decode().removesuffix("\n")

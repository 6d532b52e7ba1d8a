# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TCB info and QE identity of a lab, as JSON and signed (policy.md 4.8).

There is one TCB level for each distinct set of SVNs among the machines of an FMSPC. A machine always meets its own
level first: any level that it meets is at most its own in every component, so it sorts behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from migtd.attestation.quote.layout import QeReport
from vmm_stub import failures
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.keys import sign_raw
from vmm_stub.quoting.settings import PlatformSettings

QE_MISCSELECT: Final = 0
QE_ATTRIBUTES: Final = bytes.fromhex("1100000000000000e700000000000000")
QE_MRENCLAVE: Final = hashlib.sha256(b"MigTD Lab TD quoting enclave").digest()
QE_MRSIGNER: Final = hashlib.sha256(b"MigTD Lab signer of enclaves").digest()
QE_ISVPRODID: Final = 2

_QE_ATTRIBUTES_MASK: Final = bytes.fromhex("fbffffffffffffff0000000000000000")
_SEAM_ATTRIBUTES: Final = {"attributes": "0" * 16, "attributesMask": "F" * 16}
_SGX_CATEGORIES: Final = (
    {"category": "BIOS", "type": "Early Microcode Update"},
    {"category": "OS/VMM", "type": "SGX Late Microcode Update"},
    {"category": "OS/VMM", "type": "TXT SINIT"},
)
_TDX_CATEGORIES: Final = (
    {"category": "OS/VMM", "type": "TDX Module"},
    {"category": "OS/VMM", "type": "TDX Module"},
    {"category": "OS/VMM", "type": "TDX Late Microcode Update"},
)
_Json = dict[str, Any]


def qe_report(settings: PlatformSettings) -> QeReport:
    """What the machine's quoting enclave reports of itself, its REPORTDATA left zero."""
    return QeReport(
        cpusvn=settings.sgx_components,
        miscselect=QE_MISCSELECT,
        attributes=QE_ATTRIBUTES,
        mrenclave=QE_MRENCLAVE,
        mrsigner=QE_MRSIGNER,
        isvprodid=QE_ISVPRODID,
        isvsvn=settings.qe_isvsvn,
        report_data=bytes(64),
    )


def tcb_info(
    machines: Sequence[PlatformSettings], issued: datetime, expires: datetime, key: ec.EllipticCurvePrivateKey
) -> bytes:
    """Signed TCB info (TDX, version 3) over machines of one FMSPC, at least one.

    Raises QuotingError (VMM-QUOTING-CONFLICT) where two of them cannot share a document.
    """
    first = machines[0]
    _agree(machines, lambda _: 0, lambda each: each.pceid, "pceid")
    _agree(machines, lambda _: 0, lambda each: each.mrsignerseam, "mrsignerseam")
    signer = first.mrsignerseam.hex().upper()
    document = {
        "id": "TDX",
        "version": 3,
        "issueDate": _date(issued),
        "nextUpdate": _date(expires),
        "fmspc": first.fmspc.hex().upper(),
        "pceId": first.pceid.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": max(each.tcb_evaluation_number for each in machines),
        "tdxModule": {"mrsigner": signer, **_SEAM_ATTRIBUTES},
        "tdxModuleIdentities": _module_identities(machines, signer),
        "tcbLevels": _tcb_levels(machines),
    }
    return _signed("tcbInfo", document, key)


def qe_identity(
    machines: Sequence[PlatformSettings], issued: datetime, expires: datetime, key: ec.EllipticCurvePrivateKey
) -> bytes:
    """Signed identity of the lab's quoting enclave (TD_QE, version 2) over all machines.

    Raises QuotingError (VMM-QUOTING-CONFLICT).
    """
    document = {
        "id": "TD_QE",
        "version": 2,
        "issueDate": _date(issued),
        "nextUpdate": _date(expires),
        "tcbEvaluationDataNumber": max(each.tcb_evaluation_number for each in machines),
        "miscselect": "0" * 8,
        "miscselectMask": "F" * 8,
        "attributes": _masked(QE_ATTRIBUTES, _QE_ATTRIBUTES_MASK).hex().upper(),
        "attributesMask": _QE_ATTRIBUTES_MASK.hex().upper(),
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": QE_ISVPRODID,
        "tcbLevels": _svn_levels(
            machines, lambda each: each.qe_isvsvn, lambda each: (each.qe_status, each.qe_date), "qe_status or qe_date"
        ),
    }
    return _signed("enclaveIdentity", document, key)


def _tcb_levels(machines: Sequence[PlatformSettings]) -> list[_Json]:
    levels = _agree(
        machines,
        lambda each: (each.sgx_components, each.pcesvn, _tdx_components(each)),
        lambda each: (each.tcb_status, each.tcb_date, each.advisory_ids),
        "tcb_status, tcb_date or advisory_ids",
    )
    return [
        {
            "tcb": {
                "sgxtcbcomponents": _components(sgx, _SGX_CATEGORIES),
                "pcesvn": pcesvn,
                "tdxtcbcomponents": _components(tdx, _TDX_CATEGORIES),
            },
            "tcbDate": _date(date),
            "tcbStatus": status.value,
            **({"advisoryIDs": list(advisories)} if advisories else {}),
        }
        for (sgx, pcesvn, tdx), (status, date, advisories) in sorted(levels.items(), reverse=True)
    ]


def _tdx_components(settings: PlatformSettings) -> bytes:
    """With a module identity, bytes 0 and 1 are judged there and not by the level."""
    svn = settings.module_svn
    return bytes(2) + svn[2:] if svn[1] else svn


def _module_identities(machines: Sequence[PlatformSettings], signer: str) -> list[_Json]:
    majors = sorted({each.module_svn[1] for each in machines} - {0})
    return [
        {
            "id": f"TDX_{major:02X}",
            "mrsigner": signer,
            **_SEAM_ATTRIBUTES,
            "tcbLevels": _svn_levels(
                [each for each in machines if each.module_svn[1] == major],
                lambda each: each.module_svn[0],
                lambda each: (each.module_status, each.module_date),
                "module_status or module_date",
            ),
        }
        for major in majors
    ]


def _svn_levels(
    machines: Sequence[PlatformSettings],
    svn: Callable[[PlatformSettings], int],
    verdict: Callable[[PlatformSettings], tuple[Any, datetime]],
    what: str,
) -> list[_Json]:
    levels = _agree(machines, svn, verdict, what)
    return [
        {"tcb": {"isvsvn": isvsvn}, "tcbDate": _date(date), "tcbStatus": status.value}
        for isvsvn, (status, date) in sorted(levels.items(), reverse=True)
    ]


def _agree(
    machines: Sequence[PlatformSettings],
    key: Callable[[PlatformSettings], Any],
    value: Callable[[PlatformSettings], Hashable],
    what: str,
) -> dict[Any, Any]:
    """The value for each key; machines of one key must have one value."""
    found: dict[Any, Any] = {}
    owner: dict[Any, str] = {}
    for each in machines:
        at = key(each)
        if found.setdefault(at, value(each)) != value(each):
            raise QuotingError(failures.QUOTING_CONFLICT, f"{what} of {owner[at]} and {each.machine}")
        owner.setdefault(at, each.machine)
    return found


def _components(svns: bytes, categories: Sequence[Mapping[str, str]]) -> list[_Json]:
    named = [*categories, *({} for _ in range(len(svns) - len(categories)))]
    return [{"svn": svn, **more} for svn, more in zip(svns, named, strict=True)]


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(byte & bits for byte, bits in zip(value, mask, strict=True))


def _date(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def _signed(name: str, document: _Json, key: ec.EllipticCurvePrivateKey) -> bytes:
    text = json.dumps(document, separators=(",", ":"))
    signature = sign_raw(key, text.encode()).hex()
    return f'{{"{name}":{text},"signature":"{signature}"}}'.encode()

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""From a TDREPORT to a quote: what the quoting enclave does (policy.md 4.7, 6.1)."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from migtd.attestation.quote.layout import (
    BodyType,
    QuoteBody,
    QuoteHeader,
    SignatureData,
    pull_qe_report,
    push_qe_report,
    push_quote,
    push_signed_part,
)
from vmm_stub import failures
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.keys import key_of, point_of, sign_raw
from vmm_stub.quoting.material import QuotingMaterial
from vmm_stub.tdx_module.errors import ReportMalformed
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.report import REPORT_MAC_STRUCT_SIZE, TdReport, verify_report_mac

QE_AUTH_DATA: Final = bytes(range(32))
"""QE authentication data; the enclave may put anything there."""
_REPORT_DATA_SIZE: Final = 64
_U64: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class QuoteFormat:
    """Version and body of the quotes that are made; version 4 has the TDX 1.0 body only."""

    version: int = 4
    body_type: BodyType = BodyType.TDX_1_0

    def __post_init__(self) -> None:
        """Raises ValueError on another version, or a body that the version cannot carry."""
        if self.version not in (4, 5) or (self.version == 4 and self.body_type is not BodyType.TDX_1_0):  # noqa: PLR2004 - the two versions
            raise ValueError(f"a quote of version {self.version} with a body of {self.body_type.name}")


V4: Final = QuoteFormat()
V5_TDX_1_0: Final = QuoteFormat(5)
V5_TDX_1_5: Final = QuoteFormat(5, BodyType.TDX_1_5)
FORMATS: Final[Mapping[str, QuoteFormat]] = {"v4": V4, "v5": V5_TDX_1_0, "v5-tdx-1.5": V5_TDX_1_5}
"""By the names that a lab file uses."""


def make_quote(material: QuotingMaterial, platform: Platform, report: bytes, shape: QuoteFormat = V4) -> bytes:
    """A fresh quote over the 1024-byte TDREPORT, which the TDX module of `platform` must have made.

    Raises QuotingError: VMM-QUOTING-REPORT-FOREIGN on any other report, whatever is wrong with it.
    """
    body = quote_body(_own_report(platform, report), shape.body_type)
    signed = push_signed_part(QuoteHeader(shape.version), shape.body_type, body)
    attestation_key = key_of(material.attestation_scalar)
    point = point_of(attestation_key)
    bound = hashlib.sha256(point + QE_AUTH_DATA).digest().ljust(_REPORT_DATA_SIZE, b"\0")
    qe_report = push_qe_report(replace(pull_qe_report(material.qe_report), report_data=bound))
    signature_data = SignatureData(
        signature=sign_raw(attestation_key, signed),
        attestation_key=point,
        qe_report=qe_report,
        qe_report_signature=sign_raw(key_of(material.pck_scalar), qe_report),
        qe_auth_data=QE_AUTH_DATA,
        pck_chain=material.pck_chain,
    )
    return push_quote(signed, signature_data)


def quote_body(report: TdReport, body_type: BodyType) -> QuoteBody:
    """The TD report body of a quote: fields of the TDREPORT as they are."""
    tcb, tdinfo = report.tee_tcb_info, report.tdinfo
    is_1_5 = body_type is BodyType.TDX_1_5
    return QuoteBody(
        tee_tcb_svn=tcb.tee_tcb_svn,
        mrseam=tcb.mrseam,
        mrsignerseam=tcb.mrsignerseam,
        seam_attributes=_U64.pack(tcb.attributes),
        td_attributes=_U64.pack(tdinfo.attributes),
        xfam=_U64.pack(tdinfo.xfam),
        mrtd=tdinfo.mrtd,
        mrconfigid=tdinfo.mrconfigid,
        mrowner=tdinfo.mrowner,
        mrownerconfig=tdinfo.mrownerconfig,
        rtmr0=tdinfo.rtmr0,
        rtmr1=tdinfo.rtmr1,
        rtmr2=tdinfo.rtmr2,
        rtmr3=tdinfo.rtmr3,
        report_data=report.report_mac_struct.report_data,
        tee_tcb_svn2=tcb.tee_tcb_svn2 if is_1_5 else b"",
        mrservicetd=tdinfo.servtd_hash if is_1_5 else b"",
    )


def _own_report(platform: Platform, data: bytes) -> TdReport:
    """MAC first, as it covers the two hashes that cover the rest."""
    try:
        if not verify_report_mac(platform, data[:REPORT_MAC_STRUCT_SIZE]):
            raise QuotingError(failures.QUOTING_REPORT_FOREIGN, "its MAC is not this platform's")
        report = TdReport.pull(data)
    except ReportMalformed as error:
        raise QuotingError(failures.QUOTING_REPORT_FOREIGN, str(error)) from error
    mac_struct = report.report_mac_struct
    for name, content, stated in (
        ("TEE_TCB_INFO", report.tee_tcb_info.push(), mac_struct.tee_tcb_info_hash),
        ("TDINFO", report.tdinfo.push(), mac_struct.tdinfo_hash),
    ):
        if not hmac.compare_digest(hashlib.sha384(content).digest(), stated):
            raise QuotingError(failures.QUOTING_REPORT_FOREIGN, f"the hash of {name} differs")
    return report

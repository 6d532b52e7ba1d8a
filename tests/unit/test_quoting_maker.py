# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A quote is made over a TDREPORT of this very machine, and over nothing else."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migtd.attestation.quote.layout import BodyType, pull_qe_report, pull_quote
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.maker import V4, V5_TDX_1_0, V5_TDX_1_5, QuoteFormat
from vmm_stub.tdx_module.report import TdInfo
from vmm_stub.testing_quoting import REPORT_DATA, machine

OWN = machine()
TDINFO = TdInfo(
    attributes=0x10000000,
    xfam=0x618E7,
    **{
        name: bytes([number]) * 48
        for number, name in enumerate(
            ("mrtd", "mrconfigid", "mrowner", "mrownerconfig", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "servtd_hash"), 1
        )
    },
)


def refused(report):
    with pytest.raises(QuotingError) as error:
        OWN.quote(report=report)
    assert error.value.kind.id == "VMM-QUOTING-REPORT-FOREIGN"
    return error.value.detail


@pytest.mark.parametrize("shape", [V4, V5_TDX_1_0, V5_TDX_1_5], ids=["v4", "v5-1.0", "v5-1.5"])
def test_the_body_is_what_the_report_says(shape):
    report = OWN.report(tdinfo=TDINFO)
    quote = OWN.quote(shape, report)
    pulled = pull_quote(quote)
    assert (pulled.header.version, pulled.body_type) == (shape.version, shape.body_type)
    # TEE_TCB_INFO behind its VALID, then TDINFO up to RTMR3: a plain copy (policy.md 4.7, 6.1)
    assert pulled.body_bytes[:584] == report[264:384] + report[512:912] + REPORT_DATA
    rest = OWN.platform.tee_tcb_svn + b"\x09" * 48 if shape is V5_TDX_1_5 else b""
    assert pulled.body_bytes[584:] == rest
    assert len(quote) <= 8192


def test_the_qe_report_binds_the_attestation_key_and_runs_on_the_machine():
    data = pull_quote(OWN.quote()).signature_data
    qe_report = pull_qe_report(data.qe_report)
    assert qe_report.report_data[:32] == hashlib.sha256(data.attestation_key + data.qe_auth_data).digest()
    assert qe_report.cpusvn == OWN.platform.cpusvn


def test_version_4_has_no_body_of_tdx_1_5():
    with pytest.raises(ValueError, match="version 4"):
        QuoteFormat(4, BodyType.TDX_1_5)
    with pytest.raises(ValueError, match="version 3"):
        QuoteFormat(3)


@given(at=st.integers(0, 1023), flip=st.integers(1, 255))
def test_a_report_with_any_byte_changed_gets_no_quote(at, flip):
    report = bytearray(OWN.report(tdinfo=TDINFO))
    report[at] ^= flip
    refused(bytes(report))


def test_a_report_of_another_machine_gets_no_quote():
    other = machine(machine="other")
    assert "MAC" in refused(other.report())
    assert other.quote(report=other.report())


@pytest.mark.parametrize("size", [0, 255, 256, 1023, 1025])
def test_a_report_of_another_size_gets_no_quote(size):
    refused((OWN.report() + b"\0")[:size])


@pytest.mark.parametrize(("at", "part"), [(264, "TEE_TCB_INFO"), (560, "TDINFO")])
def test_a_true_mac_over_hashes_of_something_else_is_not_enough(at, part):
    report = bytearray(OWN.report())
    report[at] ^= 1
    report[224:256] = hmac.digest(OWN.platform.report_key, bytes(report[:224]), "sha256")
    assert part in refused(bytes(report))


RESERVED = [*range(4, 16), *range(192, 224), *range(400, 495), *range(495, 512), *range(960, 1024)]
"""Bytes of a TDREPORT that are zero: of REPORTMACSTRUCT twice, TEE_TCB_INFO, the gap, TDINFO."""


def resealed(report):
    """The report with hashes and MAC that a TDX module would put over what is in it."""
    report[32:80] = hashlib.sha384(report[256:495]).digest()
    report[80:128] = hashlib.sha384(report[512:]).digest()
    report[224:256] = hmac.digest(OWN.platform.report_key, bytes(report[:224]), "sha256")
    return bytes(report)


def test_a_resealed_report_is_the_same():
    report = OWN.report(tdinfo=TDINFO)
    assert resealed(bytearray(report)) == report
    assert len(RESERVED) == 12 + 32 + 95 + 17 + 64


@pytest.mark.parametrize("at", RESERVED)
def test_a_reserved_byte_must_be_zero_whoever_sealed_the_report(at):
    report = bytearray(OWN.report(tdinfo=TDINFO))
    assert report[at] == 0
    report[at] = 1
    assert "reserved" in refused(resealed(report))

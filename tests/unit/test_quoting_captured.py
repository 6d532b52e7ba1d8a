# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A quote from elsewhere, and the TDREPORT that is derived from it (policy.md 6.4)."""

import hashlib

import pytest

from migtd.attestation.quote.collateral import pull_packed
from migtd.guest.quote_messages import (
    BareReport,
    CollateralRequest,
    QuoteRequest,
    QuoteStatus,
    pull_collateral_answer,
    pull_quote_answer,
    push_request,
)
from vmm_stub.quoting.captured import CapturedQuoting, mock_report
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.maker import V4, V5_TDX_1_0, V5_TDX_1_5
from vmm_stub.tdx_module.report import TdInfo
from vmm_stub.testing_quoting import REPORT_DATA, machine

OWN = machine()
TDINFO = TdInfo(attributes=0x10000000, xfam=0x618E7, mrtd=b"\1" * 48, rtmr3=b"\2" * 48, servtd_hash=b"\3" * 48)
REPORT = OWN.report(tdinfo=TDINFO)


@pytest.mark.parametrize(
    ("shape", "version", "servtd_hash"),
    [(V4, 4, bytes(48)), (V5_TDX_1_0, 5, bytes(48)), (V5_TDX_1_5, 5, b"\3" * 48)],
    ids=["v4", "v5-1.0", "v5-1.5"],
)
def test_a_mock_report_says_what_the_quote_says(shape, version, servtd_hash):
    report = mock_report(OWN.quote(shape, REPORT))
    assert len(report) == 1024
    assert report[:16] == bytes([0x81, 0, version, 0]) + bytes(12)
    assert report[16:32] == OWN.platform.tee_tcb_svn
    assert report[32:80] == hashlib.sha384(report[256:495]).digest()
    assert report[80:128] == hashlib.sha384(report[512:]).digest()
    assert report[128:192] == REPORT_DATA
    assert report[192:256] == bytes(32) + b"\xbb" * 32
    assert report[256:264] == b"\1" + bytes(7)
    assert report[264:384] == REPORT[264:384]
    assert report[384:512] == bytes(128)
    assert report[512:912] == REPORT[512:912]
    assert report[912:] == servtd_hash + bytes(64)


@pytest.mark.parametrize(
    "quote",
    [
        b"",
        b"\4",
        b"\3" + OWN.quote()[1:],
        OWN.quote()[: 48 + 584 + 3],
        OWN.quote(V5_TDX_1_0)[:48] + b"\4" + OWN.quote(V5_TDX_1_0)[49:],
        OWN.quote(V5_TDX_1_5)[: 48 + 6 + 648 + 3],
    ],
    ids=["empty", "one-byte", "version-3", "v4-short", "body-type-4", "v5-short"],
)
def test_what_holds_no_body_is_refused(quote):
    for use in (mock_report, CapturedQuoting):
        with pytest.raises(QuotingError) as refused:
            use(quote)
        assert refused.value.kind.id == "VMM-QUOTING-QUOTE-FILE"


def test_a_body_is_enough_for_a_mock_report():
    assert mock_report(OWN.quote()[: 48 + 584 + 4]) == mock_report(OWN.quote())


def answers(service, request):
    given = []
    service.get_quote(push_request(request), lambda status, data: given.append((status, data)))
    ((status, data),) = given
    assert status is QuoteStatus.SUCCESS
    return data


def test_every_request_gets_the_same_quote():
    service = CapturedQuoting(OWN.quote(), OWN.material.collateral)
    for report in (bytes(1024), REPORT):
        assert answers(service, BareReport(report)) == OWN.quote()
        assert pull_quote_answer(answers(service, QuoteRequest(report))) == OWN.quote()
    packed = pull_collateral_answer(answers(service, CollateralRequest()))
    assert pull_packed(packed) == OWN.material.collateral


def test_without_collateral_there_is_none():
    with pytest.raises(QuotingError) as refused:
        CapturedQuoting(OWN.quote()).get_quote(push_request(CollateralRequest()), lambda *_: None)
    assert "no collateral" in refused.value.detail


def test_a_request_that_is_none_is_refused():
    with pytest.raises(QuotingError) as refused:
        CapturedQuoting(OWN.quote()).get_quote(bytes(1023), lambda *_: None)
    assert refused.value.kind.id == "VMM-QUOTING-REQUEST"

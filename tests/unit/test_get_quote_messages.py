# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The messages in a GetQuote buffer, byte by byte (policy.md 4.6), and what is none of them."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migtd.guest.quote_messages import (
    BareReport,
    CollateralRequest,
    MessageMalformed,
    QgsError,
    QgsRefused,
    QuoteRequest,
    pull_collateral_answer,
    pull_quote_answer,
    pull_request,
    push_collateral_answer,
    push_quote_answer,
    push_quote_refusal,
    push_request,
)

REPORT = bytes(range(256)) * 4
QUOTE = b"a quote" * 100
PACKED = struct.pack("<HH7I", 1, 0, 1, 2, 3, 4, 5, 6, 7) + bytes(range(1, 29))
QUOTE_REQUEST = struct.pack(">I", 1048) + struct.pack("<HHIII", 1, 1, 0, 1048, 0) + struct.pack("<II", 1024, 0) + REPORT
QUOTE_ANSWER = struct.pack(">I", 724) + struct.pack("<HHIII", 1, 1, 1, 724, 0) + struct.pack("<II", 0, 700) + QUOTE
COLLATERAL_ANSWER = struct.pack(">I", 80) + struct.pack("<HHIII", 1, 0, 3, 80, 0) + PACKED + bytes(4)


def test_requests_have_the_layout_of_the_specification():
    assert push_request(BareReport(REPORT)) == REPORT
    assert push_request(QuoteRequest(REPORT)) == QUOTE_REQUEST
    assert push_request(CollateralRequest()) == struct.pack(">I", 24) + struct.pack("<HHIII", 1, 1, 2, 24, 0) + bytes(8)


def test_answers_have_the_layout_of_the_specification():
    assert push_quote_answer(QUOTE) == QUOTE_ANSWER
    # 52 and the blobs: 4 more than there is
    assert push_collateral_answer(PACKED) == COLLATERAL_ANSWER
    assert len(COLLATERAL_ANSWER) == 4 + 52 + 28
    assert pull_quote_answer(QUOTE_ANSWER) == QUOTE
    assert pull_collateral_answer(COLLATERAL_ANSWER) == PACKED


@pytest.mark.parametrize(
    "request_", [BareReport(REPORT), QuoteRequest(REPORT), CollateralRequest(), CollateralRequest(b"FMSPC!")]
)
def test_what_is_asked_is_what_arrives(request_):
    assert pull_request(push_request(request_)) == request_


@pytest.mark.parametrize(
    "data",
    [
        push_request(CollateralRequest())[:12],
        push_request(CollateralRequest())[:20] + b"\xff" * 30,
        struct.pack(">I", 1) + struct.pack("<HHIII", 1, 1, 2, 9, 9),
    ],
)
def test_the_content_of_a_collateral_request_does_not_matter(data):
    assert pull_request(data) == CollateralRequest(None)


def test_a_report_that_looks_like_no_message_is_a_bare_one():
    assert pull_request(bytes(1024)) == BareReport(bytes(1024))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(1023),
        bytes(1025),
        QUOTE_REQUEST[:-1],
        QUOTE_REQUEST + b"\0",
        QUOTE_REQUEST[:12],
        QUOTE_REQUEST[:24],
        struct.pack(">I", 1047) + QUOTE_REQUEST[4:],
        QUOTE_REQUEST[:20] + struct.pack("<II", 1023, 1) + REPORT,
        QUOTE_REQUEST[:20] + struct.pack("<II", 1024, 1) + REPORT,
    ],
)
def test_what_is_no_request_is_malformed(data):
    # the short ones may still announce a collateral request, whose content nobody looks at
    with pytest.raises(MessageMalformed):
        pull_request(data)


@pytest.mark.parametrize(
    ("pull", "data"),
    [
        (pull_quote_answer, b""),
        (pull_quote_answer, QUOTE_ANSWER[:-1]),
        (pull_quote_answer, QUOTE_ANSWER + b"\0"),
        (pull_quote_answer, COLLATERAL_ANSWER),
        (pull_quote_answer, QUOTE_REQUEST),
        (pull_quote_answer, QUOTE_ANSWER[:20] + struct.pack("<II", 0, 699) + QUOTE),
        (pull_quote_answer, struct.pack(">I", 16) + struct.pack("<HHIII", 1, 1, 1, 16, 0)),
        (pull_collateral_answer, b""),
        (pull_collateral_answer, QUOTE_ANSWER),
        (pull_collateral_answer, COLLATERAL_ANSWER[:-1]),
        (pull_collateral_answer, COLLATERAL_ANSWER[:-1] + b"\1"),
        (pull_collateral_answer, COLLATERAL_ANSWER[:24] + b"\xff\xff\xff\xff" + COLLATERAL_ANSWER[28:]),
        (pull_collateral_answer, struct.pack(">I", 16) + struct.pack("<HHIII", 1, 0, 3, 16, 0)),
    ],
)
def test_what_is_no_answer_is_malformed(pull, data):
    with pytest.raises(MessageMalformed):
        pull(data)


def test_a_collateral_answer_without_the_four_bytes_is_taken_too():
    exact = struct.pack(">I", 76) + struct.pack("<HHIII", 1, 0, 3, 76, 0) + PACKED
    assert pull_collateral_answer(exact) == PACKED


def test_an_error_in_an_answer_is_told_with_its_number():
    with pytest.raises(QgsRefused) as refused:
        pull_quote_answer(push_quote_refusal(QgsError.INVALID_PARAMETER))
    assert refused.value.code == 0x12003


@pytest.mark.parametrize("request_", [BareReport(b""), QuoteRequest(REPORT + b"\0"), CollateralRequest(b"FMSPC")])
def test_a_caller_with_fields_of_another_size_is_told(request_):
    with pytest.raises(ValueError, match="bytes"):
        push_request(request_)


@given(st.binary(max_size=1100) | st.binary(max_size=60).map(lambda tail: QUOTE_ANSWER[:16] + tail))
def test_no_bytes_of_a_peer_raise_anything_else(data):
    for pull in (pull_request, pull_quote_answer, pull_collateral_answer):
        with contextlib.suppress(MessageMalformed, QgsRefused):
            pull(data)

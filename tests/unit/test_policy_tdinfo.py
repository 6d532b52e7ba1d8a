# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDINFO and dates as policies use them (policy.md 2.6, 2.9, 6.1, 6.2)."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from migtd.policy.dates import unix_to_iso
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.tdinfo import masked_tdinfo, tdinfo_rtmrs, verify_servtd_info_hash
from vmm_stub.tdx_module.report import TdInfo, servtd_info_hash

RTMRS = tuple(bytes([7 + index]) * 48 for index in range(4))
TDINFO = TdInfo(
    attributes=0x0101010101010101,
    xfam=0x0202020202020202,
    mrtd=b"\x03" * 48,
    mrconfigid=b"\x04" * 48,
    mrowner=b"\x05" * 48,
    mrownerconfig=b"\x06" * 48,
    rtmr0=RTMRS[0],
    rtmr1=RTMRS[1],
    rtmr2=RTMRS[2],
    rtmr3=RTMRS[3],
    servtd_hash=b"\x0b" * 48,
)
ENCODED = TDINFO.push()
BITS = [0, *(1 << bit for bit in range(32, 42)), (1 << 42) - (1 << 32), 0xFFFF, 1 << 63, 2**64 - 1]


@pytest.mark.parametrize("attr", BITS)
def test_the_hash_is_that_of_the_tdx_module(attr):
    masked = verify_servtd_info_hash(ENCODED + b"ignored", attr, servtd_info_hash(TDINFO, attr))
    assert len(masked) == 512
    assert masked == masked_tdinfo(ENCODED, attr)


def test_each_ignore_bit_zeroes_its_field():
    starts = [0, 8, 16, 64, 112, 160, 208, 256, 304, 352, 400]
    for bit, (start, end) in enumerate(itertools.pairwise(starts), 32):
        masked = masked_tdinfo(ENCODED, 1 << bit)
        assert masked[start:end] == bytes(end - start)
        assert masked[:start] + masked[end:] == ENCODED[:start] + ENCODED[end:]


def test_another_hash_and_a_short_tdinfo_are_told_apart():
    with pytest.raises(PolicyError) as wrong:
        verify_servtd_info_hash(ENCODED, 0, hashlib.sha384(b"").digest())
    assert wrong.value.name is PolicyErrorName.InvalidTdReport
    for read in (tdinfo_rtmrs, lambda data: masked_tdinfo(data, 0)):
        with pytest.raises(PolicyError) as short:
            read(ENCODED[:511])
        assert short.value.name is PolicyErrorName.InvalidParameter


def test_rtmrs_are_taken_in_order():
    assert tdinfo_rtmrs(ENCODED) == RTMRS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (951827696, "2000-02-29T12:34:56Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (253402300799, "9999-12-31T23:59:59Z"),
        (-62135596800, "0001-01-01T00:00:00Z"),
    ],
)
def test_dates_are_text_of_one_length(seconds, text):
    assert unix_to_iso(seconds) == text


@pytest.mark.parametrize("seconds", [253402300800, 2**63 - 1, -(2**63)])
def test_a_date_beyond_the_calendar_is_refused(seconds):
    with pytest.raises(PolicyError):
        unix_to_iso(seconds)

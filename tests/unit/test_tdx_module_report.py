# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import replace

import pytest

from vmm_stub.tdx_module.errors import RandomSourceBroken, ReportMalformed
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.report import (
    ReportMacStruct,
    TdInfo,
    TdReport,
    TeeTcbInfo,
    make_report,
    servtd_hash,
    servtd_info_hash,
    verify_report_mac,
)

PLATFORM = Platform(bytes(range(32)), seam_attributes=0x1122334455667788)
TDINFO = TdInfo(
    attributes=0x10000000,
    xfam=0x618E7,
    mrtd=b"\x01" * 48,
    mrconfigid=b"\x02" * 48,
    mrowner=b"\x03" * 48,
    mrownerconfig=b"\x04" * 48,
    rtmr0=b"\x05" * 48,
    rtmr1=b"\x06" * 48,
    rtmr2=b"\x07" * 48,
    rtmr3=b"\x08" * 48,
    servtd_hash=b"\x09" * 48,
)
REPORT_DATA = bytes(range(64))
REPORT = make_report(PLATFORM, TDINFO, REPORT_DATA).push()


def test_report_lies_as_the_layout_says():
    assert len(REPORT) == 1024
    assert REPORT[0:4] == b"\x81\0\0\0"
    assert REPORT[4:16] == bytes(12)
    assert REPORT[16:32] == PLATFORM.cpusvn
    assert REPORT[32:80] == hashlib.sha384(REPORT[256:495]).digest()
    assert REPORT[80:128] == hashlib.sha384(REPORT[512:1024]).digest()
    assert REPORT[128:192] == REPORT_DATA
    assert REPORT[192:224] == bytes(32)
    assert REPORT[224:256] == hmac.new(PLATFORM.report_key, REPORT[:224], "sha256").digest()
    assert REPORT[495:512] == bytes(17)


def test_tee_tcb_info_lies_as_the_layout_says():
    info = REPORT[256:495]
    assert info[0:8] == bytes.fromhex("ff01030000000000")
    assert info[8:24] == PLATFORM.tee_tcb_svn
    assert info[24:72] == PLATFORM.mrseam
    assert info[72:120] == PLATFORM.mrsignerseam
    assert info[120:128] == bytes.fromhex("8877665544332211")
    assert info[128:144] == PLATFORM.tee_tcb_svn
    assert info[144:] == bytes(95)


def test_tdinfo_lies_as_the_layout_says():
    info = REPORT[512:]
    assert info[0:8] == bytes.fromhex("0000001000000000")
    assert info[8:16] == bytes.fromhex("e718060000000000")
    assert info[16:448] == b"".join(bytes([i]) * 48 for i in range(1, 10))
    assert info[448:] == bytes(64)


def test_every_part_pulls_back_to_what_was_pushed():
    report = TdReport.pull(REPORT)
    assert report == make_report(PLATFORM, TDINFO, REPORT_DATA)
    assert report.push() == REPORT
    assert TdInfo.pull(REPORT[512:]) == TDINFO
    assert TeeTcbInfo.pull(REPORT[256:495]).mrseam == PLATFORM.mrseam
    assert ReportMacStruct.pull(REPORT[:256]).report_data == REPORT_DATA


@pytest.mark.parametrize("size", [0, 1, 1023, 1025])
def test_a_report_of_another_size_is_refused(size):
    with pytest.raises(ReportMalformed):
        TdReport.pull(REPORT.ljust(1025, b"\0")[:size])


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 15, 192, 223, 400, 494, 495, 511, 960, 1023])
def test_a_wrong_type_or_a_reserved_byte_is_refused(offset):
    broken = bytearray(REPORT)
    broken[offset] ^= 0x10
    with pytest.raises(ReportMalformed) as caught:
        TdReport.pull(bytes(broken))
    assert caught.value.kind.id == "VMM-REPORT-MALFORMED"


@pytest.mark.parametrize("part", [TdInfo, TeeTcbInfo, ReportMacStruct])
def test_a_part_of_another_size_is_refused(part):
    with pytest.raises(ReportMalformed):
        part.pull(bytes(100))


@pytest.mark.parametrize(
    "wrong", [replace(TDINFO, mrtd=bytes(47)), replace(TDINFO, rtmr3=bytes(49)), replace(TDINFO, attributes=1 << 64)]
)
def test_a_field_of_the_wrong_size_is_not_packed(wrong):
    with pytest.raises(ValueError, match="TdInfo"):
        wrong.push()


def test_report_data_must_have_64_bytes():
    with pytest.raises(ValueError, match="63"):
        make_report(PLATFORM, TDINFO, bytes(63))


def test_only_the_platform_that_made_a_report_verifies_it():
    other = Platform.generate(os.urandom)
    assert verify_report_mac(PLATFORM, REPORT[:256])
    assert not verify_report_mac(other, REPORT[:256])
    with pytest.raises(ReportMalformed):
        verify_report_mac(PLATFORM, REPORT[:255])


def test_first_level_hash_without_ignored_fields_is_that_of_tdinfo():
    assert servtd_info_hash(TDINFO, 0) == hashlib.sha384(TDINFO.push()).digest()


@pytest.mark.parametrize(
    ("bit", "span"),
    [(32, (0, 8)), (33, (8, 16))] + [(34 + i, (16 + 48 * i, 64 + 48 * i)) for i in range(8)],
)
def test_each_ignore_bit_zeroes_its_field(bit, span):
    masked = bytearray(TDINFO.push())
    masked[span[0] : span[1]] = bytes(span[1] - span[0])
    assert servtd_info_hash(TDINFO, 1 << bit) == hashlib.sha384(masked).digest()


def test_servtd_hash_is_never_ignored():
    assert servtd_info_hash(TDINFO, 1 << 42) == servtd_info_hash(TDINFO, 0)


def test_second_level_hash_covers_info_hash_type_and_attribute():
    info_hash = servtd_info_hash(TDINFO, 0)
    expected = hashlib.sha384(info_hash + b"\0\0" + (0x1_0000_0000).to_bytes(8, "little")).digest()
    assert servtd_hash(info_hash, 1 << 32) == expected


def test_generated_platforms_have_keys_of_their_own_and_hide_them():
    first, second = Platform.generate(os.urandom), Platform.generate(os.urandom)
    assert len(first.report_key) == 32
    assert first.report_key != second.report_key
    assert repr(first.report_key)[2:-1] not in repr(first)
    assert first.report_key.hex() not in repr(first)


def test_a_broken_random_source_is_noticed():
    with pytest.raises(RandomSourceBroken):
        Platform.generate(bytes)
    with pytest.raises(RandomSourceBroken):
        Platform.generate(lambda size: b"\1" * (size - 1))


@pytest.mark.parametrize(
    "wrong", [{"cpusvn": b""}, {"tee_tcb_svn": bytes(17)}, {"mrseam": bytes(32)}, {"seam_attributes": -1}]
)
def test_a_platform_with_values_of_the_wrong_size_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(PLATFORM, **wrong)

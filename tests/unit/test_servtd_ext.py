# SPDX-License-Identifier: BSD-2-Clause-Patent
"""SERVTD_EXT, policy.md 6.2 and ghci-ratls.md 6."""

from __future__ import annotations

import hashlib

import pytest

from migtd import failures
from migtd.errors import InvalidParameter
from migtd.guest.abi import Field
from migtd.guest.interfaces import TargetTd
from migtd.migration.servtd_ext import ServtdExt, approved_hash, pull_servtd_ext, read_servtd_ext
from migtd.testing import FakeTdCall

TARGET = TargetTd(1, (2, 3, 4, 5))
EXT = ServtdExt(
    init_info_hash=bytes(range(48)),
    init_attr=0x0102030405060708,
    init_cpusvn=bytes(range(100, 116)),
    init_tee_tcb_svn=bytes(range(120, 136)),
    init_tee_model=bytes(range(200, 212)),
    current_info_hash=bytes(range(48, 96)),
    current_attr=0x1112131415161718,
)


def test_the_layout_is_that_of_the_specification():
    data = EXT.push()

    assert len(data) == 272
    assert data[:48] == EXT.init_info_hash
    assert data[48:56] == EXT.init_attr.to_bytes(8, "little")
    assert data[64:80] == EXT.init_cpusvn
    assert data[80:96] == EXT.init_tee_tcb_svn
    assert data[96:108] == EXT.init_tee_model
    assert data[112:160] == EXT.current_info_hash
    assert data[160:168] == EXT.current_attr.to_bytes(8, "little")
    assert not any(data[56:64] + data[108:112] + data[168:])


def test_longer_input_is_taken_and_the_rest_ignored():
    assert pull_servtd_ext(EXT.push() + b"more") == EXT
    assert approved_hash(EXT.push() + b"more") == approved_hash(EXT.push())


@pytest.mark.parametrize("size", [0, 1, 271])
def test_shorter_input_is_refused(size: int):
    for read in (pull_servtd_ext, approved_hash):
        with pytest.raises(InvalidParameter) as refused:
            read(bytes(size))
        assert refused.value.kind is failures.SERVTD_EXT_MALFORMED


def test_the_approved_hash_of_zeros_is_the_known_answer():
    expected = "4fee3ec856232a9230944cd7f46884c2ff06542eb7c096cd9e25cbc5e2a4e6235e058c114b43e30c63709eb25304cecd"
    assert approved_hash(bytes(272)).hex() == expected


def test_only_the_two_current_fields_are_left_out_of_the_approved_hash():
    data = EXT.push()
    assert approved_hash(data) == hashlib.sha384(data[:112] + bytes(56) + data[168:]).digest()
    for at in range(272):
        changed = bytearray(data)
        changed[at] ^= 1
        assert (approved_hash(bytes(changed)) == approved_hash(data)) is (112 <= at < 168)


def test_it_is_read_element_by_element():
    def elements(field: Field, data: bytes, size: int = 8) -> dict[int, int]:
        return {field + at // size: int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)}

    fields = {
        **elements(Field.SERVTD_INIT_SERVTD_INFO_HASH, EXT.init_info_hash),
        Field.SERVTD_INIT_ATTR: EXT.init_attr,
        **elements(Field.INIT_CPUSVN, EXT.init_cpusvn),
        **elements(Field.INIT_TEE_TCB_SVN, EXT.init_tee_tcb_svn),
        **elements(Field.INIT_TEE_MODEL, EXT.init_tee_model, 4),
        **elements(Field.SERVTD_INFO_HASH, EXT.current_info_hash),
        Field.SERVTD_ATTR: EXT.current_attr,
    }
    assert read_servtd_ext(FakeTdCall(fields), TARGET) == EXT

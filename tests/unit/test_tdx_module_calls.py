# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from itertools import count

import pytest

from migtd.guest.abi import Field
from migtd.guest.channel import Registers
from migtd.guest.interfaces import TargetTd, Uuid
from migtd.migration.data import VersionRange
from vmm_stub.tdx_module.calls import TdCallFilter, TdCalls
from vmm_stub.tdx_module.errors import (
    RandomSourceBroken,
    ServiceTdExists,
    ServiceTdUnknown,
    TargetTdExists,
    TargetTdUnknown,
)
from vmm_stub.tdx_module.metadata import SECRET_FIELDS, carries_secret
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.report import TdInfo, TdReport, servtd_info_hash
from vmm_stub.tdx_module.service_td import ServiceTdParams, emulated_mrtd
from vmm_stub.tdx_module.tdcs import key_fingerprint

OPERAND_INVALID = 0xC0000100_00000000
RAX, RCX, RDX, R8, R9, R10 = 0, 1, 2, 8, 9, 10
VP_INFO, RTMR_EXTEND, MR_REPORT, VM_WR, SYS_RD, SERVTD_RD, SERVTD_WR, VERIFYREPORT = 1, 2, 4, 8, 11, 18, 20, 22
UUID = (1, 2, 3, 4)
HANDLE = 0x1234
ALL_ONES = 2**64 - 1


class Guest:
    """One MigTD and its host's TDX module, as a test drives them."""

    def __init__(
        self,
        versions: tuple[int, int] = (1, 1),
        call_filter: TdCallFilter | None = None,
        params: ServiceTdParams | None = None,
    ) -> None:
        self.module = TdxModule(Platform.generate(os.urandom), VersionRange(*versions), os.urandom)
        self.calls = TdCalls(self.module, call_filter)
        self.td = self.module.create_service_td("migtd", params or ServiceTdParams())
        self.tdcs = self.module.create_target("migtd", uuid=UUID, binding_handle=HANDLE)

    def call(self, leaf: int, data: bytes = b"", **registers: int) -> tuple[Registers, bytes]:
        return self.calls.tdcall(self.td, Registers(rax=leaf, **registers), data)

    def servtd(self, leaf: int, field: int, handle: int = HANDLE, uuid: Uuid = UUID, **registers: int) -> Registers:
        r10, r11, r12, r13 = uuid
        return self.call(leaf, b"", rcx=handle, rdx=field, r10=r10, r11=r11, r12=r12, r13=r13, **registers)[0]

    def read(self, field: int, elements: int = 1, size: int = 8) -> bytes:
        answers = [self.servtd(SERVTD_RD, field + i) for i in range(elements)]
        assert [each.rax for each in answers] == [0] * elements
        return b"".join(each.r8.to_bytes(size, "little") for each in answers)

    def write_key(self, key: bytes, elements: Iterable[int] = range(4)) -> None:
        for i in elements:
            value = int.from_bytes(key[8 * i : 8 * i + 8], "little")
            assert self.servtd(SERVTD_WR, Field.MIG_DEC_KEY + i, r8=value, r9=ALL_ONES).rax == 0


@pytest.fixture
def guest():
    return Guest()


def test_vp_info_tells_width_attributes_and_vcpus():
    guest = Guest(params=ServiceTdParams(TdInfo(attributes=0x10000000), vcpus=4))
    registers, data = guest.call(VP_INFO, rcx=7, r9=7, r15=7)
    assert registers == Registers(rcx=48, rdx=0x10000000, r8=4 << 32 | 4)
    assert data == b""


@pytest.mark.parametrize("leaf", [0, 3, 5, 23, ALL_ONES])
def test_an_unknown_leaf_is_refused(guest, leaf):
    assert guest.call(leaf, rcx=1) == (Registers(rax=OPERAND_INVALID | RAX), b"")


def test_extended_rtmr_shows_in_the_report_and_the_others_stay_zero(guest):
    digest = hashlib.sha384(b"marker").digest()
    assert guest.call(RTMR_EXTEND, digest, rdx=2) == (Registers(), b"")
    registers, report = guest.call(MR_REPORT, bytes(64))
    assert registers == Registers()
    tdinfo = TdReport.pull(report).tdinfo
    assert tdinfo.rtmr2 == hashlib.sha384(bytes(48) + digest).digest()
    assert tdinfo.rtmr0 == tdinfo.rtmr1 == tdinfo.rtmr3 == bytes(48)


@pytest.mark.parametrize(
    ("index", "size", "operand"), [(4, 48, RDX), (ALL_ONES, 48, RDX), (0, 47, RCX), (0, 0, RCX), (4, 49, RCX)]
)
def test_rtmr_extension_with_wrong_operands_changes_nothing(guest, index, size, operand):
    assert guest.call(RTMR_EXTEND, bytes(size), rdx=index)[0].rax == OPERAND_INVALID | operand
    assert set(guest.td.rtmrs.values) == {bytes(48)}


def test_report_carries_report_data_and_what_the_td_was_built_as():
    guest = Guest(params=ServiceTdParams(TdInfo(xfam=3, mrtd=emulated_mrtd("a MigTD"), mrowner=b"o" * 48)))
    report = TdReport.pull(guest.call(MR_REPORT, b"d" * 64)[1])
    assert report.report_mac_struct.report_data == b"d" * 64
    assert report.tdinfo == TdInfo(xfam=3, mrtd=hashlib.sha384(b"a MigTD").digest(), mrowner=b"o" * 48)


def test_report_with_wrong_operands_is_refused(guest):
    assert guest.call(MR_REPORT, bytes(63)) == (Registers(rax=OPERAND_INVALID | RCX), b"")
    assert guest.call(MR_REPORT, bytes(64), r8=1) == (Registers(rax=OPERAND_INVALID | R8), b"")


def test_verifyreport_knows_the_reports_of_its_own_platform(guest):
    report = guest.call(MR_REPORT, bytes(64))[1]
    assert guest.call(VERIFYREPORT, report[:256]) == (Registers(), b"")
    assert Guest().call(VERIFYREPORT, report[:256])[0].rax == 0xC0001001_00000000
    assert guest.call(VERIFYREPORT, report)[0].rax == OPERAND_INVALID | RCX


def test_encryption_key_reads_as_four_elements_and_matches_its_fingerprint(guest):
    key = guest.read(Field.MIG_ENC_KEY, 4)
    assert key != bytes(32)
    assert key == guest.read(Field.MIG_ENC_KEY, 4)
    assert guest.tdcs.state().enc_key_fingerprint == hashlib.sha256(b"MigTD Lab MSK" + key).hexdigest()[:16]


def test_each_target_td_has_a_key_of_its_own(guest):
    states = [guest.module.create_target("migtd").state() for _ in range(8)]
    assert len({state.enc_key_fingerprint for state in states}) == 8
    assert len({state.target for state in states}) == 8


def test_reading_answers_the_uuid_and_clears_all_other_registers(guest):
    answer = guest.servtd(SERVTD_RD, Field.SERVTD_ATTR, rbx=9, r9=9, r14=9)
    assert answer == Registers(r10=1, r11=2, r12=3, r13=4)


def test_decryption_key_counts_once_all_four_elements_are_written(guest):
    key = os.urandom(32)
    guest.write_key(key, [0, 1, 2])
    assert guest.tdcs.state().dec_key_fingerprint is None
    assert guest.tdcs.state().dec_key_writes == 0
    guest.write_key(key, [3])
    assert guest.tdcs.state().dec_key_fingerprint == key_fingerprint(key)
    assert guest.tdcs.state().dec_key_writes == 1


def test_an_incomplete_second_write_leaves_the_decryption_key_untouched(guest):
    first, second = os.urandom(32), os.urandom(32)
    guest.write_key(first)
    guest.write_key(second, [0, 1, 1, 3])
    assert guest.tdcs.state().dec_key_fingerprint == key_fingerprint(first)
    guest.write_key(second, [2])
    assert guest.tdcs.state().dec_key_fingerprint == key_fingerprint(second)
    assert guest.tdcs.state().dec_key_writes == 2


def test_migration_version_is_recorded(guest):
    assert guest.tdcs.state().mig_version is None
    assert guest.servtd(SERVTD_WR, Field.MIG_VERSION, r8=0, r9=ALL_ONES) == Registers(r10=1, r11=2, r12=3, r13=4)
    assert (guest.tdcs.state().mig_version, guest.tdcs.state().mig_version_writes) == (0, 1)


@pytest.mark.parametrize(
    ("leaf", "field", "value", "mask", "operand"),
    [
        (SERVTD_RD, Field.MIG_DEC_KEY, 0, 0, RDX),
        (SERVTD_RD, Field.MIG_VERSION, 0, 0, RDX),
        (SERVTD_RD, Field.MIG_ENC_KEY + 4, 0, 0, RDX),
        (SERVTD_RD, Field.REBIND_ACCEPT_TOKEN, 0, 0, RDX),
        (SERVTD_RD, 0, 0, 0, RDX),
        (SERVTD_WR, Field.MIG_ENC_KEY, 1, ALL_ONES, RDX),
        (SERVTD_WR, Field.SERVTD_ATTR, 1, ALL_ONES, RDX),
        (SERVTD_WR, Field.MIG_DEC_KEY + 4, 1, ALL_ONES, RDX),
        (SERVTD_WR, Field.MIG_VERSION, 0x10000, ALL_ONES, R8),
        (SERVTD_WR, Field.MIG_VERSION, 1, 0x7FFF, R9),
        (SERVTD_WR, Field.MIG_DEC_KEY, 1, ALL_ONES >> 1, R9),
    ],
)
def test_a_wrong_field_direction_value_or_mask_is_refused(guest, leaf, field, value, mask, operand):
    before = guest.tdcs.state()
    assert guest.servtd(leaf, field, r8=value, r9=mask) == Registers(rax=OPERAND_INVALID | operand)
    assert guest.tdcs.state() == before


def test_a_mask_of_the_elements_own_width_is_enough(guest):
    assert guest.servtd(SERVTD_WR, Field.MIG_VERSION, r8=7, r9=0xFFFF).rax == 0
    assert guest.tdcs.state().mig_version == 7


def test_only_handle_and_uuid_together_reach_a_target(guest):
    other = guest.module.create_target("migtd").target
    for handle, uuid, operand in [(1, UUID, RCX), (HANDLE, (1, 2, 3, 5), R10), (HANDLE, other.uuid, R10)]:
        answer = guest.servtd(SERVTD_RD, Field.MIG_ENC_KEY, handle, uuid)
        assert answer == Registers(rax=OPERAND_INVALID | operand)


def test_a_service_td_does_not_reach_the_targets_of_another(guest):
    foreign = guest.module.create_target("other", uuid=(5, 6, 7, 8))
    answer = guest.servtd(SERVTD_RD, Field.MIG_ENC_KEY, foreign.target.binding_handle, foreign.target.uuid)
    assert answer == Registers(rax=OPERAND_INVALID | RCX)
    same_handle = guest.module.create_target("other", uuid=(9, 9, 9, 9), binding_handle=HANDLE)
    answer = guest.servtd(SERVTD_WR, Field.MIG_VERSION, HANDLE, same_handle.target.uuid, r8=1, r9=ALL_ONES)
    assert answer == Registers(rax=OPERAND_INVALID | R10)
    assert same_handle.state().mig_version is None


def test_servtd_fields_describe_the_measured_migtd_and_its_platform(guest):
    guest.call(RTMR_EXTEND, hashlib.sha384(b"policy").digest(), rdx=2)
    expected = hashlib.sha384(guest.call(MR_REPORT, bytes(64))[1][512:]).digest()
    assert guest.read(Field.SERVTD_INFO_HASH, 6) == expected
    assert guest.read(Field.SERVTD_INIT_SERVTD_INFO_HASH, 6) == expected
    assert guest.read(Field.INIT_CPUSVN, 2) == guest.module.platform.cpusvn
    assert guest.read(Field.INIT_TEE_TCB_SVN, 2) == guest.module.platform.tee_tcb_svn
    assert guest.read(Field.INIT_TEE_MODEL, 3, 4) == bytes(12)
    assert guest.read(Field.SERVTD_ATTR) == guest.read(Field.SERVTD_INIT_ATTR) == bytes(8)


def test_servtd_attr_is_told_and_masks_the_hash(guest):
    ignore_rtmr2 = 1 << 40
    target = guest.module.create_target("migtd", servtd_attr=ignore_rtmr2).target
    guest.call(RTMR_EXTEND, bytes(48), rdx=2)
    attr = guest.servtd(SERVTD_RD, Field.SERVTD_ATTR, target.binding_handle, target.uuid)
    assert attr.r8 == ignore_rtmr2
    word = guest.servtd(SERVTD_RD, Field.SERVTD_INFO_HASH, target.binding_handle, target.uuid).r8
    expected = servtd_info_hash(ServiceTdParams().tdinfo, 0)
    assert word.to_bytes(8, "little") == expected[:8]


def test_a_restarted_migtd_starts_with_fresh_rtmrs_and_keeps_its_target_and_the_initial_binding(guest):
    key = guest.read(Field.MIG_ENC_KEY, 4)
    first = guest.read(Field.SERVTD_INFO_HASH, 6)
    guest.module.remove_service_td("migtd")
    guest.td = guest.module.create_service_td("migtd", ServiceTdParams())
    assert set(guest.td.rtmrs.values) == {bytes(48)}
    guest.call(RTMR_EXTEND, bytes(48), rdx=0)
    assert guest.read(Field.MIG_ENC_KEY, 4) == key
    assert guest.read(Field.SERVTD_INFO_HASH, 6) != first
    assert guest.read(Field.SERVTD_INIT_SERVTD_INFO_HASH, 6) == first


@pytest.mark.parametrize("versions", [(1, 1), (0, 0), (2, 7)])
def test_global_fields_are_the_hosts_version_range(versions):
    guest = Guest(versions)
    fields = (
        Field.MIN_EXPORT_VERSION,
        Field.MAX_EXPORT_VERSION,
        Field.MIN_IMPORT_VERSION,
        Field.MAX_IMPORT_VERSION,
    )
    assert [guest.call(SYS_RD, rdx=field)[0] for field in fields] == [Registers(r8=each) for each in versions * 2]


@pytest.mark.parametrize("field", [0, Field.MIG_ENC_KEY, Field.MAX_IMPORT_VERSION + 1])
def test_an_unknown_global_field_is_refused(guest, field):
    assert guest.call(SYS_RD, rdx=field)[0] == Registers(rax=OPERAND_INVALID | RDX)


def test_a_td_writes_its_own_rebinding_fields(guest):
    for i in range(4):
        assert guest.call(VM_WR, rdx=Field.REBIND_ACCEPT_TOKEN + i, r8=i + 1, r9=ALL_ONES) == (Registers(), b"")
    assert guest.call(VM_WR, rdx=Field.REBIND_ATTR, r8=5, r9=ALL_ONES)[0].rax == 0
    assert guest.call(VM_WR, rdx=Field.MIG_DEC_KEY, r8=5, r9=ALL_ONES)[0].rax == OPERAND_INVALID | RDX
    token = b"".join(i.to_bytes(8, "little") for i in range(1, 5))
    assert guest.td.metadata(Field.REBIND_ACCEPT_TOKEN).value == token
    assert guest.td.metadata(Field.REBIND_ATTR).value == (5).to_bytes(8, "little")
    assert guest.td.metadata(Field.ACCEPT_SERVTD_EXT_HASH).value is None
    assert "0x4" not in repr(guest.td)


def test_a_filter_may_fail_a_call_which_then_changes_nothing():
    busy = 0x80000200_00000000
    calls = count(1)
    guest = Guest(call_filter=lambda _td, call: busy if call.rax == SERVTD_WR and next(calls) == 1 else None)
    assert guest.servtd(SERVTD_WR, Field.MIG_VERSION, r8=1, r9=ALL_ONES) == Registers(rax=busy)
    assert guest.tdcs.state().mig_version is None
    assert guest.servtd(SERVTD_WR, Field.MIG_VERSION, r8=1, r9=ALL_ONES).rax == 0
    assert guest.tdcs.state().mig_version == 1


def test_calls_with_secrets_are_told_apart():
    secrets = [Field.MIG_ENC_KEY, Field.MIG_DEC_KEY, Field.REBIND_ACCEPT_TOKEN]
    assert frozenset(field + i for field in secrets for i in range(4)) == SECRET_FIELDS
    assert carries_secret(Registers(rax=SERVTD_RD, rdx=Field.MIG_ENC_KEY + 3))
    assert carries_secret(Registers(rax=SERVTD_WR, rdx=Field.MIG_DEC_KEY))
    assert carries_secret(Registers(rax=VM_WR, rdx=Field.REBIND_ACCEPT_TOKEN))
    assert not carries_secret(Registers(rax=SERVTD_WR, rdx=Field.MIG_VERSION))
    assert not carries_secret(Registers(rax=SYS_RD, rdx=Field.MIG_ENC_KEY))


def test_names_and_targets_are_unique_and_unknown_ones_are_refused(guest):
    module = guest.module
    with pytest.raises(ServiceTdExists):
        module.create_service_td("migtd", ServiceTdParams())
    with pytest.raises(ServiceTdUnknown):
        module.service_td("nobody")
    with pytest.raises(ServiceTdUnknown):
        module.remove_service_td("nobody")
    with pytest.raises(TargetTdExists, match="0x1234"):
        module.create_target("other", uuid=UUID, binding_handle=HANDLE)
    with pytest.raises(TargetTdUnknown):
        module.target(TargetTd(HANDLE, (0, 0, 0, 0)))
    with pytest.raises(ValueError, match="TdInfo"):
        module.create_service_td("wrong", ServiceTdParams(TdInfo(mrtd=b"short")))
    assert [each.name for each in module.service_tds()] == ["migtd"]


def test_targets_are_listed_per_migtd_and_gone_once_removed(guest):
    module = guest.module
    other = module.create_target("other")
    assert module.targets() == [guest.tdcs, other]
    assert module.targets("other") == [other]
    assert module.target(other.target) is other
    module.remove_target(guest.tdcs.target)
    assert guest.servtd(SERVTD_RD, Field.SERVTD_ATTR).rax == OPERAND_INVALID | RCX
    with pytest.raises(TargetTdUnknown):
        module.remove_target(guest.tdcs.target)


def test_a_key_of_zeros_is_never_made(guest):
    module = TdxModule(guest.module.platform, VersionRange(1, 1), bytes)
    with pytest.raises(RandomSourceBroken):
        module.create_target("migtd", uuid=UUID, binding_handle=HANDLE)
    assert module.targets() == []

# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import hashlib
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.guest.abi import Field, TdCallLeaf
from migtd.guest.channel import REGISTER_NAMES, Registers
from migtd.migration.data import VersionRange
from vmm_stub.tdx_module.calls import TdCalls
from vmm_stub.tdx_module.errors import ReportMalformed
from vmm_stub.tdx_module.metadata import SERVICE_TD_FIELDS, TARGET_TD_FIELDS
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.report import TdInfo, TdReport, make_report, verify_report_mac
from vmm_stub.tdx_module.rtmr import Rtmrs
from vmm_stub.tdx_module.service_td import ServiceTd, ServiceTdParams
from vmm_stub.tdx_module.tdcs import Tdcs

U64 = st.integers(0, 2**64 - 1)
ALL_ONES = 2**64 - 1
STATUSES = {0, 0xC0001001_00000000} | {0xC0000100_00000000 | operand for operand in (0, 1, 2, 8, 9, 10)}
UUIDS = [(1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12)]
HANDLES = [0x1234, 0x5678]
PLATFORM = Platform.generate(os.urandom)
REPORT = make_report(PLATFORM, TdInfo(), bytes(range(64))).push()


def new_module() -> tuple[TdxModule, ServiceTd, ServiceTd, Tdcs, list[Tdcs]]:
    """A module with two MigTDs; the first has one target TD, the second two, of which one shares the handle."""
    module = TdxModule(PLATFORM, VersionRange(1, 1), os.urandom)
    first, second = (module.create_service_td(name, ServiceTdParams()) for name in ("first", "second"))
    own = module.create_target("first", uuid=UUIDS[0], binding_handle=HANDLES[0])
    foreign = [
        module.create_target("second", uuid=UUIDS[1], binding_handle=HANDLES[1]),
        module.create_target("second", uuid=UUIDS[2], binding_handle=HANDLES[0]),
    ]
    return module, first, second, own, foreign


# Registers that often mean something: known leaves, fields, handles and UUIDs, so that calls get past the first check.
FIELDS = st.sampled_from([*TARGET_TD_FIELDS, *SERVICE_TD_FIELDS, Field.MIN_EXPORT_VERSION, 0, 1, 2, 3, 4]) | U64
LIKELY = st.builds(
    lambda leaf, handle, field, value, mask, uuid: Registers(
        rax=leaf, rcx=handle, rdx=field, r8=value, r9=mask, r10=uuid[0], r11=uuid[1], r12=uuid[2], r13=uuid[3]
    ),
    st.sampled_from(list(TdCallLeaf)),
    st.sampled_from(HANDLES) | U64,
    FIELDS,
    U64,
    st.just(ALL_ONES) | U64,
    st.sampled_from(UUIDS),
)
ANY = st.builds(Registers, **dict.fromkeys(REGISTER_NAMES, U64))
DATA = st.sampled_from([b"", bytes(48), bytes(64), bytes(256), REPORT[:256]]) | st.binary(max_size=300)


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=48, max_size=48)), max_size=20))
def test_rtmrs_equal_the_replay_of_the_extensions(extensions):
    rtmrs = Rtmrs()
    expected = [bytes(48)] * 4
    for index, digest in extensions:
        rtmrs.extend(index, digest)
        expected[index] = hashlib.sha384(expected[index] + digest).digest()
    assert list(rtmrs.values) == expected


@given(st.integers(0, 255), st.integers(1, 255))
def test_any_changed_byte_of_a_report_mac_struct_fails_verification(offset, change):
    broken = bytearray(REPORT[:256])
    broken[offset] ^= change
    assert not verify_report_mac(PLATFORM, bytes(broken))


@given(st.integers(0, 1023), st.integers(1, 255))
def test_any_changed_byte_of_a_report_is_noticed(offset, change):
    broken = bytearray(REPORT)
    broken[offset] ^= change
    try:
        report = TdReport.pull(bytes(broken))
    except ReportMalformed:
        return
    assert report.push() == bytes(broken)
    sealed = report.report_mac_struct
    assert not (
        verify_report_mac(PLATFORM, sealed.push())
        and sealed.tee_tcb_info_hash == hashlib.sha384(report.tee_tcb_info.push()).digest()
        and sealed.tdinfo_hash == hashlib.sha384(report.tdinfo.push()).digest()
    )


@given(st.binary(max_size=1100) | st.binary(min_size=1024, max_size=1024))
def test_any_bytes_are_a_report_or_a_typed_error(data):
    try:
        report = TdReport.pull(data)
    except ReportMalformed:
        return
    assert report.push() == data


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(st.tuples(LIKELY | ANY, DATA), max_size=12))
def test_any_calls_give_a_status_and_touch_no_other_td(calls):
    module, caller, bystander, _, foreign = new_module()
    before = (
        [each.state() for each in foreign],
        [each.binding for each in foreign],
        bystander.tdinfo(),
        repr(bystander),
    )
    served = TdCalls(module)
    foreign_keys = {each.state().enc_key_fingerprint for each in foreign}
    for registers, data in calls:
        given_registers = registers.values()
        answer, _ = served.tdcall(caller, registers, data)
        assert answer.rax in STATUSES
        assert all(0 <= value <= ALL_ONES for value in answer.values())
        assert registers.values() == given_registers
        if answer.rax:
            assert answer == Registers(rax=answer.rax)
    after = (
        [each.state() for each in foreign],
        [each.binding for each in foreign],
        bystander.tdinfo(),
        repr(bystander),
    )
    assert after == before
    assert {each.state().enc_key_fingerprint for each in foreign} == foreign_keys


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.binary(min_size=32, max_size=32))
def test_keys_never_show_in_a_representation(order, key):
    module, caller, _, own, _ = new_module()
    served = TdCalls(module)
    secrets = set()
    for i in order:
        word = key[8 * i : 8 * i + 8]
        value = int.from_bytes(word, "little") | 1 << 63  # large enough not to meet a count or handle by chance
        at = {"rcx": HANDLES[0], "r10": 1, "r11": 2, "r12": 3, "r13": 4}
        served.tdcall(caller, Registers(rax=20, rdx=Field.MIG_DEC_KEY + i, r8=value, r9=ALL_ONES, **at))
        served.tdcall(caller, Registers(rax=8, rdx=Field.REBIND_ACCEPT_TOKEN + i, r8=value, r9=ALL_ONES))
        read, _ = served.tdcall(caller, Registers(rax=18, rdx=Field.MIG_ENC_KEY + i, **at))
        secrets |= {value, read.r8}
    shown = "".join(str(each) + repr(each) for each in (own, own.state(), caller, module, module.platform, served))
    for secret in secrets:
        raw = secret.to_bytes(8, "little")
        for form in (str(secret), f"{secret:x}", f"{secret:X}", raw.hex(), repr(raw)[2:-1]):
            assert form not in shown

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Rebinding as the emulated TDX module sees it: ghci-ratls.md 2 and 6, policy.md 6.7."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import pytest

from migtd.errors import TdxModuleError
from migtd.guest.abi import REBIND_TOKEN_SIZE, Field
from migtd.guest.calls import ChannelTdCall
from migtd.guest.interfaces import TargetTd
from migtd.migration.data import VersionRange
from migtd.migration.servtd_ext import ServtdExt, approved_hash, read_servtd_ext
from vmm_stub.tdx_module.calls import TdCalls
from vmm_stub.tdx_module.errors import RebindRefused, ServiceTdUnknown, TargetTdUnknown
from vmm_stub.tdx_module.metadata import SECRET_FIELDS
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.report import TdInfo, make_report
from vmm_stub.tdx_module.service_td import ServiceTdParams
from vmm_stub.vmm.call_record import describe_call

TOKEN = bytes(range(1, 33))
OLD, NEW = "old", "new"


@dataclass
class Host:
    """A TDX module with two MigTDs of different measurements, and a target TD of the old one."""

    fixed_report: bytes | None = None
    servtd_attr: int = 0
    recorded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        platform = Platform.generate(os.urandom)
        self.module = TdxModule(platform, VersionRange(1, 1), os.urandom, fixed_report=self.fixed_report)
        self.target = self.module.create_target(OLD, servtd_attr=self.servtd_attr).target
        self.old, self.new = self.start(OLD), self.start(NEW)

    def start(self, name: str) -> ChannelTdCall:
        """A MigTD's way into the TDX module; the MigTD starts."""
        td = self.module.create_service_td(name, ServiceTdParams(TdInfo(mrtd=hashlib.sha384(name.encode()).digest())))
        calls = TdCalls(self.module)

        def leave(registers, data):
            after, answer = calls.tdcall(td, registers, data)
            self.recorded.append(repr(describe_call(registers, data, after, answer)))
            return after, answer

        return ChannelTdCall(leave)

    def accept(self, token: bytes = TOKEN, servtd_ext: bytes | None = None, attr: int | None = 0) -> None:
        """What a new MigTD writes of itself."""
        shown = read_servtd_ext(self.old, self.target).push() if servtd_ext is None else servtd_ext
        for index in range(4):
            element = int.from_bytes(token[8 * index : 8 * index + 8], "little")
            self.new.vm_wr(Field.REBIND_ACCEPT_TOKEN + index, element)
        if attr is not None:
            self.new.vm_wr(Field.REBIND_ATTR, attr)
        accepted = approved_hash(shown)
        for index in range(6):
            element = int.from_bytes(accepted[8 * index : 8 * index + 8], "little")
            self.new.vm_wr(Field.ACCEPT_SERVTD_EXT_HASH + index, element)

    def finalize(self) -> None:
        self.module.finalize_rebinding(self.target, NEW)

    @property
    def bound_to(self) -> str:
        return self.module.target(self.target).service_td


def info_hash(name: str) -> bytes:
    return hashlib.sha384(TdInfo(mrtd=hashlib.sha384(name.encode()).digest()).push()).digest()


def test_servtd_ext_tells_of_the_first_and_the_present_binding():
    host = Host()

    platform = host.module.platform
    expected = ServtdExt(info_hash(OLD), 0, platform.cpusvn, platform.tee_tcb_svn, bytes(12), info_hash(OLD), 0)
    assert read_servtd_ext(host.old, host.target) == expected


def test_equal_tokens_move_the_binding_and_the_history_stays():
    host = Host()
    before = read_servtd_ext(host.old, host.target)
    host.accept()
    host.old.servtd_rebind_approve(host.target, TOKEN)
    host.finalize()

    assert host.bound_to == NEW
    after = read_servtd_ext(host.new, host.target)
    assert (after.init_info_hash, after.current_info_hash) == (info_hash(OLD), info_hash(NEW))
    assert approved_hash(after.push()) == approved_hash(before.push())
    with pytest.raises(TdxModuleError):
        read_servtd_ext(host.old, host.target)


def test_the_order_of_approval_and_acceptance_makes_no_difference():
    host = Host()
    host.old.servtd_rebind_approve(host.target, TOKEN)
    host.accept()
    host.finalize()

    assert host.bound_to == NEW


def test_a_token_works_once():
    host = Host()
    host.accept()
    host.old.servtd_rebind_approve(host.target, TOKEN)
    host.finalize()

    with pytest.raises(RebindRefused):
        host.finalize()
    assert host.module.service_td(NEW).metadata(Field.REBIND_ACCEPT_TOKEN).value is None
    assert host.module.service_td(NEW).metadata(Field.REBIND_ATTR).value is None


def test_nothing_moves_while_one_side_has_not_spoken():
    host = Host()
    with pytest.raises(RebindRefused, match="approved none"):
        host.finalize()
    host.old.servtd_rebind_approve(host.target, TOKEN)
    with pytest.raises(RebindRefused, match="accepted none"):
        host.finalize()
    assert host.bound_to == OLD


def test_tokens_that_differ_move_nothing_and_a_later_approval_mends_it():
    host = Host()
    host.accept()
    host.old.servtd_rebind_approve(host.target, bytes(REBIND_TOKEN_SIZE))
    with pytest.raises(RebindRefused, match="not the approved one"):
        host.finalize()
    assert host.bound_to == OLD

    host.old.servtd_rebind_approve(host.target, TOKEN)
    host.finalize()
    assert host.bound_to == NEW


def test_the_history_of_another_target_is_not_accepted():
    host = Host()
    host.accept(servtd_ext=bytes(272))
    host.old.servtd_rebind_approve(host.target, TOKEN)

    with pytest.raises(RebindRefused, match="another SERVTD_EXT"):
        host.finalize()
    assert host.bound_to == OLD


def test_without_rebind_attr_nothing_moves():
    host = Host()
    host.accept(attr=None)
    host.old.servtd_rebind_approve(host.target, TOKEN)

    with pytest.raises(RebindRefused, match="REBIND_ATTR"):
        host.finalize()


def test_a_new_migtd_that_starts_again_has_accepted_nothing():
    host = Host()
    host.accept()
    host.old.servtd_rebind_approve(host.target, TOKEN)
    host.module.remove_service_td(NEW)
    with pytest.raises(ServiceTdUnknown):
        host.finalize()
    host.start(NEW)

    with pytest.raises(RebindRefused, match="accepted none"):
        host.finalize()


def test_only_the_bound_migtd_may_approve():
    host = Host()
    host.accept()
    for target in (host.target, TargetTd(host.target.binding_handle, (1, 2, 3, 4)), TargetTd(1, (1, 2, 3, 4))):
        with pytest.raises(TdxModuleError):
            host.new.servtd_rebind_approve(target, TOKEN)
    with pytest.raises(RebindRefused, match="approved none"):
        host.finalize()


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_token_of_another_size_is_no_operand(size: int):
    host = Host()
    with pytest.raises(ValueError, match="token"):
        host.old.servtd_rebind_approve(host.target, bytes(size))


def test_an_unknown_target_is_told_apart():
    host = Host()
    with pytest.raises(TargetTdUnknown):
        host.module.finalize_rebinding(TargetTd(1, (1, 2, 3, 4)), NEW)


def test_the_rebound_target_has_the_attributes_that_were_accepted():
    host = Host(servtd_attr=1 << 34)
    host.accept(attr=0)
    host.old.servtd_rebind_approve(host.target, TOKEN)
    host.finalize()

    after = read_servtd_ext(host.new, host.target)
    assert (after.init_attr, after.current_attr) == (1 << 34, 0)
    assert after.current_info_hash == info_hash(NEW)


def test_with_one_fixed_report_the_history_is_that_reports():
    tdinfo = TdInfo(xfam=7, mrtd=b"m" * 48)
    platform = Platform(bytes(32), cpusvn=b"c" * 16, tee_tcb_svn=b"t" * 16)
    host = Host(fixed_report=make_report(platform, tdinfo, bytes(64)).push())
    found = read_servtd_ext(host.old, host.target)

    assert found.init_info_hash == found.current_info_hash == hashlib.sha384(tdinfo.push()).digest()
    assert (found.init_cpusvn, found.init_tee_tcb_svn) == (b"c" * 16, b"t" * 16)


def test_no_record_of_a_call_shows_the_token():
    host = Host()
    host.accept()
    host.old.servtd_rebind_approve(host.target, TOKEN)

    text = "\n".join(host.recorded)
    assert "TDG.SERVTD.REBIND.APPROVE" in text
    assert TOKEN.hex() not in text
    for index in range(4):
        assert f"{int.from_bytes(TOKEN[8 * index : 8 * index + 8], 'little'):x}" not in text
        assert Field.REBIND_ACCEPT_TOKEN + index in SECRET_FIELDS

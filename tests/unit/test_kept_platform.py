# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The platform that stand-alone sides of a rebinding share: what is kept in its folder, and what its end needs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.kept_platform import KeptPlatform
from migtd.guest.abi import Field
from migtd.guest.interfaces import TargetTd
from migtd.migration.data import VersionRange
from migtd.migration.servtd_ext import approved_hash
from vmm_stub.tdx_module.errors import RebindRefused, TargetTdUnknown
from vmm_stub.tdx_module.metadata import ALL_ONES
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.service_td import ServiceTd, ServiceTdParams
from vmm_stub.tdx_module.tdcs import Tdcs

TARGET = TargetTd(0x1234, (1, 2, 3, 4))
TOKEN = bytes(range(32))


def module() -> TdxModule:
    """That of a process of its own, with its MigTD running."""
    made = TdxModule(Platform.generate(os.urandom), VersionRange(1, 1), os.urandom)
    made.create_service_td("migtd", ServiceTdParams())
    return made


def kept_in(folder: Path, mode: str = "lab") -> KeptPlatform:
    return KeptPlatform(folder, mode, os.urandom)


def old_prepares(folder: Path, token: bytes = TOKEN) -> Tdcs:
    own, kept = module(), kept_in(folder)
    if not kept.restore(own, TARGET, "migtd"):
        own.create_target("migtd", uuid=TARGET.uuid, binding_handle=TARGET.binding_handle)
    running = own.service_td("migtd")
    tdcs = own.bound_target(running, TARGET)
    tdcs.approve(token)
    kept.keep_target(tdcs, own.measured(running).tdinfo.push())
    return tdcs


def new_prepares(folder: Path, old: Tdcs, token: bytes = TOKEN) -> None:
    own = module()
    new = own.service_td("migtd")
    _write(new, Field.REBIND_ACCEPT_TOKEN, token)
    _write(new, Field.REBIND_ATTR, bytes(8))
    _write(new, Field.ACCEPT_SERVTD_EXT_HASH, approved_hash(old.servtd_ext.push()))
    kept_in(folder).keep_accepted(own, TARGET, "migtd")


def _write(new: ServiceTd, field: Field, value: bytes) -> None:
    for at in range(0, len(value), 8):
        new.write(field + at // 8, int.from_bytes(value[at : at + 8], "little"), ALL_ONES)


def test_a_prepared_rebinding_ends_once_and_can_be_prepared_again(tmp_path: Path):
    new_prepares(tmp_path, old_prepares(tmp_path))

    kept_in(tmp_path).finalize(TARGET)
    with pytest.raises(RebindRefused):
        kept_in(tmp_path).finalize(TARGET)

    new_prepares(tmp_path, old_prepares(tmp_path))
    kept_in(tmp_path).finalize(TARGET)


def test_a_target_td_keeps_its_key_and_its_first_migtd_over_all_of_them(tmp_path: Path):
    first = old_prepares(tmp_path)
    tdinfo = kept_in(tmp_path).initial_tdinfo(TARGET)
    new_prepares(tmp_path, first)
    kept_in(tmp_path).finalize(TARGET)
    later = old_prepares(tmp_path, bytes(32))

    assert later.keep().enc_key == first.keep().enc_key
    assert later.initial_binding == first.initial_binding
    assert tdinfo is not None
    assert kept_in(tmp_path).initial_tdinfo(TARGET) == tdinfo


@pytest.mark.parametrize("accepted", [None, bytes(32)], ids=["nothing", "another-token"])
def test_what_the_new_migtd_did_not_accept_is_not_moved(tmp_path: Path, accepted: bytes | None):
    old = old_prepares(tmp_path)
    if accepted is not None:
        new_prepares(tmp_path, old, accepted)

    with pytest.raises(RebindRefused):
        kept_in(tmp_path).finalize(TARGET)


def test_a_target_td_that_nobody_prepared_is_unknown(tmp_path: Path):
    with pytest.raises(TargetTdUnknown):
        kept_in(tmp_path).finalize(TARGET)


def test_two_processes_share_one_report_key_of_their_mode_and_nobody_else_reads_it(tmp_path: Path):
    first, again, other = (kept_in(tmp_path, mode).report_key() for mode in ("lab", "lab", "captured"))

    assert first == again != other
    for file in tmp_path.glob("platform-*.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["{}", "[", '{"schema": 1, "report_key": "00"}', '{"schema": 2}'])
def test_a_file_that_is_no_platform_is_named_without_its_secrets(tmp_path: Path, content: str):
    (tmp_path / "platform-lab.json").write_text(content)

    with pytest.raises(UsageError) as refused:
        kept_in(tmp_path).report_key()

    assert refused.value.kind.id == "LAB-EVIDENCE-INVALID"
    assert "platform-lab.json" in str(refused.value)

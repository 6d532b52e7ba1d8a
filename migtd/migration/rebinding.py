# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a rebinding reads and writes through the TDX module, before and after its session (ghci-ratls.md 6)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from migtd import failures
from migtd.checks import CheckName, CheckRunner
from migtd.errors import InvalidParameter
from migtd.guest.abi import REBIND_TOKEN_ELEMENTS, REBIND_TOKEN_SIZE, Field
from migtd.guest.ghci import TDINFO_SIZE
from migtd.guest.interfaces import TargetTd, TdCall
from migtd.migration.servtd_ext import approved_hash, pull_servtd_ext, read_servtd_ext
from migtd.migration.session import OldSide, RebindingAgreed, TargetHistory

_TOKEN: Final = struct.Struct(f"<{REBIND_TOKEN_ELEMENTS}Q")
_HASH: Final = struct.Struct("<6Q")
_REPORT_DATA_SIZE: Final = 64


def own_tdinfo(tdcall: TdCall) -> bytes:
    """This TD's TDINFO, 512 bytes: the end of its TDREPORT. Raises TdxModuleError."""
    return tdcall.mr_report(bytes(_REPORT_DATA_SIZE))[-TDINFO_SIZE:]


def read_old_side(
    tdcall: TdCall,
    target: TargetTd,
    initial_tdinfo: bytes | None,
    *,
    random: Callable[[int], bytes],
    checks: CheckRunner,
) -> OldSide:
    """What the old MigTD shows of the target TD, and a fresh token. The own TDINFO stands in for a missing initial one.

    Raises InvalidParameter (MIGTD-SERVTD-ATTR: the current attributes are not 0) or TdxModuleError.
    """
    extended = read_servtd_ext(tdcall, target)
    checks.run(CheckName.SERVTD_ATTR, lambda: _attributes_are_zero(extended.current_attr))
    shown = TargetHistory(extended.push(), initial_tdinfo or own_tdinfo(tdcall))
    return OldSide(shown, random(REBIND_TOKEN_SIZE))


def approve(tdcall: TdCall, target: TargetTd, agreed: RebindingAgreed) -> None:
    """The old MigTD: approve the token that crossed. Raises TdxModuleError."""
    tdcall.servtd_rebind_approve(target, agreed.token)


def accept(tdcall: TdCall, agreed: RebindingAgreed) -> None:
    """The new MigTD: write the token, then the attributes, then the hash of what it approved. In this order.

    Raises TdxModuleError.
    """
    for index, element in enumerate(_TOKEN.unpack(agreed.token)):
        tdcall.vm_wr(Field.REBIND_ACCEPT_TOKEN + index, element)
    tdcall.vm_wr(Field.REBIND_ATTR, pull_servtd_ext(agreed.servtd_ext).current_attr)
    for index, element in enumerate(_HASH.unpack(approved_hash(agreed.servtd_ext))):
        tdcall.vm_wr(Field.ACCEPT_SERVTD_EXT_HASH + index, element)


def _attributes_are_zero(attributes: int) -> None:
    if attributes:
        raise InvalidParameter(failures.SERVTD_ATTR, f"SERVTD_ATTR is {attributes:#x}")

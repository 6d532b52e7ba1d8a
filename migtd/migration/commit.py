# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a migration reads from and writes into the target TD's TDCS (ghci-ratls.md 1 step 4, 2 and 5).

Nothing is written before both checks passed; the key is written last, so a MIG_DEC_KEY that is there always has its
MIG_VERSION.
"""

from __future__ import annotations

import struct
from typing import Final

from migtd import failures
from migtd.checks import CheckName, CheckRunner
from migtd.errors import InvalidParameter, TdxModuleError
from migtd.guest.abi import MSK_ELEMENTS, Field
from migtd.guest.interfaces import TargetTd, TdCall
from migtd.migration.data import ExchangeInformation, VersionRange, negotiate_version

_MSK: Final = struct.Struct(f"<{MSK_ELEMENTS}Q")
_MAX_VERSION: Final = 0xFFFF

_RANGE_FIELDS: Final = {
    True: (Field.MIN_EXPORT_VERSION, Field.MAX_EXPORT_VERSION),
    False: (Field.MIN_IMPORT_VERSION, Field.MAX_IMPORT_VERSION),
}
"""By is_source: the source reads what it can export, the destination what it can import."""


def local_information(tdcall: TdCall, target: TargetTd, *, is_source: bool) -> ExchangeInformation:
    """What this side will send: the target TD's MIG_ENC_KEY and the version range of its side.

    Raises InvalidParameter (MIGTD-VERSION-FIELD) if a version is above 0xFFFF, or TdxModuleError.
    """
    minimum, maximum = (_version(tdcall, field) for field in _RANGE_FIELDS[is_source])
    elements = [tdcall.servtd_rd(target, Field.MIG_ENC_KEY + index) for index in range(MSK_ELEMENTS)]
    return ExchangeInformation(_MSK.pack(*elements), minimum, maximum)


def check_and_commit(
    tdcall: TdCall,
    target: TargetTd,
    *,
    is_source: bool,
    local: ExchangeInformation,
    peer: ExchangeInformation,
    checks: CheckRunner,
) -> int:
    """Check SERVTD_ATTR, agree on the version, write MIG_VERSION and then the peer's key; returns the version.

    Raises InvalidParameter (MIGTD-SERVTD-ATTR, MIGTD-VERSION-RANGE), nothing being written then, or TdxModuleError;
    MIGTD-KEY-WRITE-FAILED if it is the key that could not be written: then the target TD may hold a part of it.
    """
    checks.run(CheckName.SERVTD_ATTR, lambda: _servtd_attr_is_zero(tdcall, target))
    ours = VersionRange(local.min_version, local.max_version)
    theirs = VersionRange(peer.min_version, peer.max_version)
    export, imported = (ours, theirs) if is_source else (theirs, ours)
    version = checks.run(
        CheckName.VERSIONS, lambda: negotiate_version(export, imported), detail=lambda v: f"version {v}"
    )
    if version is None:
        raise RuntimeError("an attestation mode left out the check of versions, which needs no evidence")
    tdcall.servtd_wr(target, Field.MIG_VERSION, version)
    _write_key(tdcall, target, peer.msk)
    return version


def _servtd_attr_is_zero(tdcall: TdCall, target: TargetTd) -> None:
    attributes = tdcall.servtd_rd(target, Field.SERVTD_ATTR)
    if attributes:
        raise InvalidParameter(failures.SERVTD_ATTR, f"SERVTD_ATTR is {attributes:#x}")


def _write_key(tdcall: TdCall, target: TargetTd, msk: bytes) -> None:
    for index, element in enumerate(_MSK.unpack(msk)):
        try:
            tdcall.servtd_wr(target, Field.MIG_DEC_KEY + index, element)
        except TdxModuleError as error:
            raise TdxModuleError(
                failures.KEY_WRITE_FAILED, f"{index} of {MSK_ELEMENTS} elements were written; {error}"
            ) from error


def _version(tdcall: TdCall, field: Field) -> int:
    value = tdcall.sys_rd(field)
    if value > _MAX_VERSION:
        raise InvalidParameter(failures.VERSION_FIELD, f"{field.name} is {value:#x}")
    return value

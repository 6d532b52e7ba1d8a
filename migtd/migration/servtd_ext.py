# SPDX-License-Identifier: BSD-2-Clause-Patent
"""SERVTD_EXT, 272 bytes: the history of a target TD's binding, and what a new MigTD accepts of it (ghci-ratls.md 6)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from migtd import failures
from migtd.errors import InvalidParameter
from migtd.guest.abi import Field
from migtd.guest.interfaces import TargetTd, TdCall

SERVTD_EXT_SIZE: Final = 272

_LAYOUT: Final = struct.Struct("<48sQ8s16s16s12s4s48sQ104s")
_CURRENT: Final = slice(112, 168)
"""The two current fields, hash and attributes."""

_HASH: Final = (6, 8)
_ATTR: Final = (1, 8)
_SVN: Final = (2, 8)
_MODEL: Final = (3, 4)
"""Number of elements and bytes of each, of the fields that SERVTD_EXT is made of."""


@dataclass(frozen=True, slots=True)
class ServtdExt:
    """The fields that mean something. Hashes have 48 bytes, SVNs 16, the model 12; attributes are u64."""

    init_info_hash: bytes
    init_attr: int
    init_cpusvn: bytes
    init_tee_tcb_svn: bytes
    init_tee_model: bytes
    current_info_hash: bytes
    current_attr: int

    def push(self) -> bytes:
        """Encode to 272 bytes, reserved bytes zero."""
        return _LAYOUT.pack(
            self.init_info_hash,
            self.init_attr,
            bytes(8),
            self.init_cpusvn,
            self.init_tee_tcb_svn,
            self.init_tee_model,
            bytes(4),
            self.current_info_hash,
            self.current_attr,
            bytes(104),
        )


def pull_servtd_ext(data: bytes) -> ServtdExt:
    """Decode the first 272 bytes; reserved bytes are not looked at.

    Raises InvalidParameter (MIGTD-SERVTD-EXT-MALFORMED) if there are fewer.
    """
    if len(data) < SERVTD_EXT_SIZE:
        raise InvalidParameter(failures.SERVTD_EXT_MALFORMED, f"{len(data)} of {SERVTD_EXT_SIZE} bytes")
    init_hash, init_attr, _, cpusvn, tcb_svn, model, _, hash_now, attr_now, _ = _LAYOUT.unpack_from(data)
    return ServtdExt(init_hash, init_attr, cpusvn, tcb_svn, model, hash_now, attr_now)


def read_servtd_ext(tdcall: TdCall, target: TargetTd) -> ServtdExt:
    """Read the fields of a target TD through TDG.SERVTD.RD. Raises TdxModuleError (MIGTD-TDCALL-FAILED)."""

    def read(field: Field, shape: tuple[int, int]) -> bytes:
        elements, size = shape
        return b"".join(tdcall.servtd_rd(target, field + i).to_bytes(8, "little")[:size] for i in range(elements))

    return ServtdExt(
        init_info_hash=read(Field.SERVTD_INIT_SERVTD_INFO_HASH, _HASH),
        init_attr=int.from_bytes(read(Field.SERVTD_INIT_ATTR, _ATTR), "little"),
        init_cpusvn=read(Field.INIT_CPUSVN, _SVN),
        init_tee_tcb_svn=read(Field.INIT_TEE_TCB_SVN, _SVN),
        init_tee_model=read(Field.INIT_TEE_MODEL, _MODEL),
        current_info_hash=read(Field.SERVTD_INFO_HASH, _HASH),
        current_attr=int.from_bytes(read(Field.SERVTD_ATTR, _ATTR), "little"),
    )


def approved_hash(servtd_ext: bytes) -> bytes:
    """ACCEPT_SERVTD_EXT_HASH, 48 bytes: SHA-384 of the 272 bytes as they came, the two current fields zeroed.

    Raises InvalidParameter (MIGTD-SERVTD-EXT-MALFORMED) if there are fewer bytes.
    """
    pull_servtd_ext(servtd_ext)
    kept = bytearray(servtd_ext[:SERVTD_EXT_SIZE])
    kept[_CURRENT] = bytes(_CURRENT.stop - _CURRENT.start)
    return hashlib.sha384(kept).digest()

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""SERVTD_EXT: what the TDX module keeps of a target TD's service TD (policy.md 6.2).

    init_servtd_info_hash 48 | init_attr u64 | reserved 8 | init_cpusvn 16 | init_tee_tcb_svn 16 | init_tee_model 12
    | reserved 4 | cur_servtd_info_hash 48 | cur_servtd_attr u64 | reserved 104

272 bytes, little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import Final

from migtd.policy.errors import PolicyError, PolicyErrorName

SERVTD_EXT_SIZE: Final = 272
HASH_SIZE: Final = 48

_LAYOUT: Final = struct.Struct("<48sQ8s16s16s12s4s48sQ104s")


@dataclass(frozen=True, slots=True)
class ServtdExt:
    """The fields, reserved ones as they came. Hashes are first-level servtd_info_hash values."""

    init_servtd_info_hash: bytes
    init_attr: int
    reserved_56: bytes
    init_cpusvn: bytes
    init_tee_tcb_svn: bytes
    init_tee_model: bytes
    reserved_108: bytes
    cur_servtd_info_hash: bytes
    cur_servtd_attr: int
    reserved_168: bytes

    def push(self) -> bytes:
        """Encode it, 272 bytes."""
        return _LAYOUT.pack(
            self.init_servtd_info_hash,
            self.init_attr,
            self.reserved_56,
            self.init_cpusvn,
            self.init_tee_tcb_svn,
            self.init_tee_model,
            self.reserved_108,
            self.cur_servtd_info_hash,
            self.cur_servtd_attr,
            self.reserved_168,
        )

    def approved_hash(self) -> bytes:
        """What a rebinding approves: SHA-384 of the 272 bytes with the two current fields zeroed."""
        cleared = replace(self, cur_servtd_info_hash=bytes(HASH_SIZE), cur_servtd_attr=0)
        return hashlib.sha384(cleared.push()).digest()


def pull_servtd_ext(data: bytes) -> ServtdExt:
    """Decode it; what follows 272 bytes is ignored. Raises PolicyError (InvalidParameter) on fewer."""
    if len(data) < SERVTD_EXT_SIZE:
        detail = f"a SERVTD_EXT has {SERVTD_EXT_SIZE} bytes, not {len(data)}"
        raise PolicyError(PolicyErrorName.InvalidParameter, detail)
    return ServtdExt(*_LAYOUT.unpack_from(data))

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The machine under an emulated host: what its TDREPORTs say of CPU and TDX module, and the key they are MACed with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from vmm_stub.tdx_module.randomness import RandomSource, draw

SVN_SIZE: Final = 16
MEASUREMENT_SIZE: Final = 48
REPORT_KEY_SIZE: Final = 32

_CPUSVN: Final = bytes.fromhex("0606131503ff00030000000000000000")
_TEE_TCB_SVN: Final = bytes.fromhex("07010300000000000000000000000000")
_MRSEAM: Final = hashlib.sha384(b"MigTD Lab TDX module").digest()
_U64: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Platform:
    """One emulated machine (policy.md 6.1). Make it by `generate`, change it by dataclasses.replace.

    `report_key` is the key of the report MAC, 32 bytes: a secret that no two platforms share. `cpusvn` and
    `tee_tcb_svn` are 16 bytes (TEE_TCB_SVN: byte 0 SVN and byte 1 major version of the TDX module), `mrseam` and
    `mrsignerseam` 48 (a module signed by Intel has zeros there), `seam_attributes` a u64. The SVNs' defaults have the
    shape seen on real machines. Raises ValueError on other sizes.
    """

    report_key: bytes = field(repr=False)
    cpusvn: bytes = _CPUSVN
    tee_tcb_svn: bytes = _TEE_TCB_SVN
    mrseam: bytes = _MRSEAM
    mrsignerseam: bytes = bytes(MEASUREMENT_SIZE)
    seam_attributes: int = 0

    def __post_init__(self) -> None:
        sizes = {
            "report_key": REPORT_KEY_SIZE,
            "cpusvn": SVN_SIZE,
            "tee_tcb_svn": SVN_SIZE,
            "mrseam": MEASUREMENT_SIZE,
            "mrsignerseam": MEASUREMENT_SIZE,
        }
        for name, size in sizes.items():
            if len(getattr(self, name)) != size:
                raise ValueError(f"{name} has {len(getattr(self, name))} bytes, {size} needed")
        if not 0 <= self.seam_attributes < _U64:
            raise ValueError("seam_attributes is no u64")

    @classmethod
    def generate(cls, random: RandomSource) -> Platform:
        """A new machine with a report key of its own. Raises RandomSourceBroken (VMM-RANDOM-SOURCE-BROKEN)."""
        return cls(draw(random, REPORT_KEY_SIZE))

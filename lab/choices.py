# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The named choices of a lab (design.md): which values there are, and which of them come later.

A value that is known but not built yet is refused with an id of its own, so that nobody looks for a typing mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab import failures
from lab.errors import UsageError


@dataclass(frozen=True, slots=True)
class Choice:
    """One option with a closed list of values. `served` can be used now, `later` are known and refused."""

    option: str
    served: tuple[str, ...]
    later: tuple[str, ...] = ()

    def require(self, value: str) -> str:
        """The value itself if it is served.

        Raises UsageError: LAB-COMES-LATER for one that is known and not built yet, LAB-VALUE-UNKNOWN otherwise.
        """
        if value in self.served:
            return value
        served = ", ".join(self.served)
        if value in self.later:
            raise UsageError(failures.COMES_LATER, f"{self.option} {value}; today: {served}")
        raise UsageError(failures.VALUE_UNKNOWN, f"{self.option} {value[:40]!r}; known: {served}")


ATTESTATION: Final = Choice("attestation", ("lab", "captured", "accept-all"), ("azure-emulated", "azure-cvm"))
SESSION: Final = Choice("session", ("ra-tls",), ("spdm",))
TRANSPORT: Final = Choice("transport", ("vmcall-raw",), ("vmcall-vsock",))
ENGINE: Final = Choice("engine", ("docker", "process"), ("swarm",))

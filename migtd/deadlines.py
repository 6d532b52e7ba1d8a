# SPDX-License-Identifier: BSD-2-Clause-Patent
"""All waiting times of a MigTD, in one object (design.md, Time). Defaults are the specifications'."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds after which a wait ends in a NetworkError, unless a line says otherwise.

    `pre_session`, `session`, `read`, `write`: ghci-ratls.md 5. `call`: the host must answer a TDCALL or TDVMCALL on the
    channel, else the channel counts as lost. `report`: the host must acknowledge a ReportStatus; after it the MigTD
    goes on without the acknowledgement. `connect`: the host's, for opening the transport (ghci-ratls.md 4), else
    InvalidParameter.
    """

    pre_session: float = 60.0
    session: float = 60.0
    read: float = 60.0
    write: float = 60.0
    call: float = 30.0
    report: float = 60.0
    connect: float = 60.0

    def with_all(self, seconds: float) -> Deadlines:
        """The same object with every peer-facing wait set to `seconds` (what `--deadline` does); `call` stays."""
        return replace(self, **{field.name: seconds for field in fields(self) if field.name != "call"})

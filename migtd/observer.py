# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a MigTD lets people see while it works: phases and checks of a request, and the reason of its end.

The host of a real MigTD learns the result code and the log area, no more. In the lab the same core also tells an
observer, which the emulated guest sends to its host as EVENT messages (channel.py); a payload on hardware would pass
`SilentObserver`. Nothing secret is ever an argument here.
"""

from __future__ import annotations

import enum
from typing import Protocol

from migtd.checks import Check
from migtd.errors import LabFailure


class Phase(enum.StrEnum):
    """Closed list of the phases of a request, in the order in which they are entered; `done` is only ever the last."""

    ACCEPTED = "accepted"
    PRE_SESSION = "pre-session"
    HANDSHAKE = "handshake"
    EXCHANGE = "exchange"
    COMMIT = "commit"
    DONE = "done"


class Observer(Protocol):
    """Told of each step of a request. Implementations must not raise and must not wait."""

    def phase(self, request_id: int, phase: Phase) -> None:
        """The request entered `phase`."""

    def check(self, request_id: int, check: Check) -> None:
        """A check was made, or left out with its reason."""

    def failed(self, request_id: int, error: LabFailure) -> None:
        """The request will end in this error; the phase last entered is where it failed."""

    def note(self, request_id: int, text: str) -> None:
        """Something worth a line in the history, such as a mode that verifies nothing."""


class SilentObserver:
    """An observer that nobody listens to."""

    def phase(self, request_id: int, phase: Phase) -> None:
        """Ignore."""

    def check(self, request_id: int, check: Check) -> None:
        """Ignore."""

    def failed(self, request_id: int, error: LabFailure) -> None:
        """Ignore."""

    def note(self, request_id: int, text: str) -> None:
        """Ignore."""

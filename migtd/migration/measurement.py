# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a MigTD measures of itself before it serves anybody (policy.md 3.2 and 3.3). One function per way to start."""

from __future__ import annotations

from migtd import event_log
from migtd.guest.interfaces import Guest


def measure_without_attestation(guest: Guest) -> None:
    """Start-up of a MigTD that verifies nothing: the marker event alone, RTMR 2, no policy.

    Raises InitializationError (MIGTD-EVENT-LOG-MISSING, MIGTD-EVENT-LOG-FULL, MIGTD-TDCALL-FAILED).
    """
    event_log.measure(guest.event_log, event_log.ra_disabled_event(), guest.tdcall.mr_rtmr_extend)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The seam between a VMM and whoever makes its quotes. A VMM imports no more: a host without quotes stays small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from migtd.guest.quote_messages import QuoteStatus

Answered: TypeAlias = Callable[[QuoteStatus, bytes], None]
"""Takes the final status (never IN_FLIGHT) and the data of a GetQuote, once."""


class Quoting(Protocol):
    """A quoting service. The same object serves all TDs of a host."""

    def get_quote(self, request: bytes, answered: Answered) -> None:
        """Take one request (the in_len bytes of its buffer); call `answered` exactly once, now or later.

        Raises QuotingError instead of calling it where the request is refused; its `answer` goes to the guest.
        """

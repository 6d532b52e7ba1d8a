# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a MigTD or a host prints for people: it must never stop either, whatever becomes of where it goes."""

from __future__ import annotations

import contextlib
from typing import TextIO


class LossyStream:
    """A stream that may fail: a full disk or a closed pipe behind it loses lines and disturbs nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or lose it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or lose what was to be flushed."""
        with contextlib.suppress(OSError):
            self._stream.flush()

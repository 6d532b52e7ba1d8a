# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a MigTD or a host prints for people: it must never stop either, whatever becomes of where it goes."""

from __future__ import annotations

import contextlib
import io
from typing import TextIO


class LossyStream:
    """A stream that may fail: a full disk or a closed pipe behind it loses lines and disturbs nothing else.

    A line that cannot be written is not kept either: Python would try it again at exit, and end with status 120.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        self._raw = raw if isinstance(raw, io.RawIOBase) else None

    def write(self, text: str) -> None:
        """Write, or lose it."""
        with contextlib.suppress(OSError):
            if self._raw is None:
                self._stream.write(text)
            else:
                self._raw.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Flush, or lose what was to be flushed."""
        with contextlib.suppress(OSError):
            self._stream.flush()

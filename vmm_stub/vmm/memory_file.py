# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Shared memory of a TD as the host sees it: read and written through the file, never mapped.

The guest has the same file mapped, and may cut it short. On a mapping that would end the host, and with it every other
MigTD, by SIGBUS; here what was cut off reads as zero, and comes back when it is written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class HostMemory(Protocol):
    """What a VMM does with a TD's shared memory: slices with start and stop, both inside. A memoryview is one."""

    def __len__(self) -> int:
        """Size in bytes."""

    def __getitem__(self, where: slice, /) -> bytes | memoryview:
        """The bytes of a slice."""

    def __setitem__(self, where: slice, data: bytes, /) -> None:
        """Replace the bytes of a slice by as many."""


class MemoryFile:
    """A new file of `size` zero bytes at `path`, mode 0600. Implements `HostMemory`. Raises OSError when it is made.

    `on_failure` is told when a write finds no room on the file system, which the guest may have filled.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.on_failure: Callable[[OSError], None] = lambda _: None
        self._size = size
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(self._descriptor, size)
        except OSError:
            self.close()
            raise

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice, /) -> bytes:
        size = where.stop - where.start
        data = os.pread(self._descriptor, size, where.start)
        return data if len(data) == size else data.ljust(size, b"\0")

    def __setitem__(self, where: slice, data: bytes, /) -> None:
        try:
            written = os.pwrite(self._descriptor, data, where.start)
        except OSError as error:
            self.on_failure(error)
        else:
            if written < len(data):
                self.on_failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def close(self) -> None:
        """Let the file go; it must not be used afterwards."""
        os.close(self._descriptor)

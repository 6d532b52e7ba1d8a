# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reading and writing of the policy tools: bounded, and nothing is ever left half-written."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError

MAX_DOCUMENT: Final = 16 << 20
"""Bytes of a document, key, chain or signature."""
MAX_IMAGE: Final = 64 << 20
"""Bytes of an image; MigTD's own have 16 MiB."""


def read_file(path: Path | str, limit: int = MAX_DOCUMENT) -> bytes:
    """The content of a file of at most `limit` bytes. Raises ToolError (LAB-TOOL-FILE-UNREADABLE)."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ToolError(failures.FILE_UNREADABLE, f"{path}: {reason}") from error
    if len(content) > limit:
        raise ToolError(failures.FILE_UNREADABLE, f"{path}: more than {limit} bytes")
    return content


def write_file(path: Path | str, content: bytes) -> None:
    """Write a file or replace it, whole or not at all. Raises ToolError (LAB-TOOL-FILE-UNWRITABLE).

    A file that was there keeps its mode; a symbolic link stays one; what is no regular file (/dev/stdout, a pipe) is
    written to.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = _mode_of(target)
        if mode is None:
            # A device, pipe or socket is written to as it is.
            with target.open("wb", buffering=0) as stream:
                _write_all(stream.fileno(), content)
            return
        descriptor, fresh = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                os.fchmod(stream.fileno(), mode)
            Path(fresh).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(fresh).unlink()
            raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ToolError(failures.FILE_UNWRITABLE, f"{path}: {reason}") from error


def _mode_of(target: Path) -> int | None:
    """The mode that a file is to have: its own, or that of a new one; None where it is no regular file."""
    try:
        found = target.stat()
    except FileNotFoundError:
        mask = os.umask(0o077)
        os.umask(mask)
        return 0o666 & ~mask
    return stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else None


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]

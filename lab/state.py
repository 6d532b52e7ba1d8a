# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where labs keep files: a private folder per user, one sub-folder per lab, a lock per lab name.

The process engine keeps everything there. For other engines only the lab file that `up` was given is remembered, so
that `migrate` need not be told again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from lab import failures
from lab.errors import EngineError, TaskError

UNIX_PATH_MAX: Final = 107
"""Bytes of a unix socket's path: 108 with the closing zero (unix(7))."""


def state_roots(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders in which labs of this user can be: the first is for new ones, the rest are looked at too.

    `$XDG_RUNTIME_DIR/migtd-lab` where that exists, and `migtd-lab-<uid>` in the system's temporary folder.
    """
    roots = []
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and os.access(runtime, os.W_OK | os.X_OK):
        roots.append(Path(runtime) / "migtd-lab")
    roots.append(Path(tempfile.gettempdir()) / f"migtd-lab-{os.getuid()}")
    return tuple(roots)


def make_private(folder: Path) -> Path:
    """Make a folder with mode 0700, or check that it is one of ours. Raises EngineError (LAB-STATE-UNSAFE)."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise EngineError(failures.STATE_UNSAFE, f"{folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EngineError(failures.STATE_UNSAFE, f"{folder} is no folder of this user with mode 0700")
    return folder


def require_socket_path(path: Path) -> Path:
    """The path itself if a unix socket can be there. Raises EngineError (LAB-SOCKET-PATH-TOO-LONG)."""
    size = len(os.fsencode(path))
    if size > UNIX_PATH_MAX:
        raise EngineError(failures.SOCKET_PATH_TOO_LONG, f"{path} has {size} bytes")
    return path


@contextlib.contextmanager
def lab_lock(root: Path, lab: str) -> Iterator[None]:
    """Hold the name of a lab while it is started or removed. Raises EngineError (LAB-BUSY) if another command does.

    The lock file goes away with the holder's last use; the kernel frees the lock of a holder that died.
    """
    make_private(root)
    path = root / f"{lab}.lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise TaskError(failures.BUSY, lab) from error
        if _is_still(path, descriptor):
            break
        # The last holder removed the file between our opening and locking it.
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def remember_lab_file(root: Path, lab: str, text: str) -> None:
    """Keep the resolved lab file of a lab until `forget_lab_file`."""
    make_private(root)
    path = root / f"{lab}.lab"
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def remembered_lab_file(root: Path, lab: str) -> bytes | None:
    """What `remember_lab_file` kept, or None."""
    try:
        return (root / f"{lab}.lab").read_bytes()
    except OSError:
        return None


def forget_lab_file(root: Path, lab: str) -> None:
    """Remove what `remember_lab_file` kept, if anything."""
    (root / f"{lab}.lab").unlink(missing_ok=True)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` names the open file."""
    ours = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

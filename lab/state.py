# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where labs keep files: a private folder per user, one sub-folder per lab, a lock per lab name.

The process engine keeps everything there. For other engines only the lab file that `up` was given is remembered, so
that `migrate` need not be told again:

    ROOT/LAB.lock           held while a command starts or removes the lab; says for which checkout
    ROOT/LAB.ENGINE.lab     the resolved lab that `up` started there, below the checkout's path

Both tell a later command what one that was killed had begun, before anything else of the lab exists.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import failures
from lab.errors import EngineError, TaskError
from lab.names import checkout_path

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


def trouble_with(folder: Path) -> str:
    """Why a folder, or the place where it is to be, cannot hold the state of labs; empty if it can."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        parent = folder.parent
        return "" if os.access(parent, os.W_OK | os.X_OK) else f"{parent} cannot be written"
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        return f"{folder} is no folder of this user with mode 0700"
    return ""


def make_private(folder: Path) -> Path:
    """Make a folder with mode 0700, or check that it is one of ours. Raises EngineError (LAB-STATE-UNSAFE)."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise EngineError(failures.STATE_UNSAFE, f"{folder}: {error.strerror}") from error
    if trouble := trouble_with(folder):
        raise EngineError(failures.STATE_UNSAFE, trouble)
    return folder


def require_socket_path(path: Path) -> Path:
    """The path itself if a unix socket can be there. Raises EngineError (LAB-SOCKET-PATH-TOO-LONG)."""
    size = len(os.fsencode(path))
    if size > UNIX_PATH_MAX:
        raise EngineError(failures.SOCKET_PATH_TOO_LONG, f"{path} has {size} bytes")
    return path


@dataclass(slots=True)
class LabLock:
    """The name of a lab, held. `resumed`: the last holder was cut off in the middle and may have left anything behind.

    A holder that is cut off and still gets to say so sets `settled` to False: the next one then resumes.
    """

    lab: str
    resumed: bool
    settled: bool = True


@contextlib.contextmanager
def lab_lock(root: Path, lab: str) -> Iterator[LabLock]:
    """Hold the name of a lab while it is started or removed. Raises EngineError (LAB-BUSY) if another command does.

    The lock file goes away with the holder's last use if all is settled then; the kernel frees the lock of a holder
    that died, and of the programs that it gave `held_locks` to.
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
    resumed = os.fstat(descriptor).st_size > 0
    os.ftruncate(descriptor, 0)
    os.write(descriptor, os.fsencode(checkout_path()))
    token = _HELD.set((*_HELD.get(), descriptor))
    lock = LabLock(lab, resumed)
    try:
        yield lock
    finally:
        _HELD.reset(token)
        if lock.settled:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def held_locks() -> tuple[int, ...]:
    """Descriptors of the locks that this task holds.

    A program that keeps them open keeps the name held until it has ended, also if this process is killed.
    """
    return _HELD.get()


def unfinished(roots: tuple[Path, ...]) -> dict[str, str]:
    """Checkouts of labs by name: of those that a command starts or removes now, or was killed while it did so.

    Lock files that tell no checkout are removed: their holder died before it did anything else.
    """
    found = {}
    for root in roots:
        for path in sorted(root.glob("*.lock")):
            with contextlib.suppress(OSError):
                if checkout := os.fsdecode(path.read_bytes()):
                    found[path.stem] = checkout
                else:
                    _remove_unheld(path)
    return found


def remember_lab_file(root: Path, lab: str, engine: str, text: str) -> None:
    """Keep the resolved lab file of a lab on an engine until `forget_lab_file`."""
    make_private(root)
    path = root / f"{lab}.{engine}.lab"
    fresh = path.with_suffix(".new")
    fresh.write_bytes(os.fsencode(checkout_path()) + b"\n" + text.encode())
    fresh.replace(path)


def remembered_lab_file(root: Path, lab: str, engine: str) -> bytes | None:
    """What `remember_lab_file` kept, or None."""
    try:
        return (root / f"{lab}.{engine}.lab").read_bytes().partition(b"\n")[2]
    except OSError:
        return None


def remembered(roots: tuple[Path, ...], engine: str) -> dict[str, str]:
    """Checkouts of the labs, by name, whose lab file is remembered for an engine: `up` began to start them there."""
    found = {}
    for root in roots:
        for path in sorted(root.glob(f"*.{engine}.lab")):
            with contextlib.suppress(OSError):
                found[path.name.removesuffix(f".{engine}.lab")] = os.fsdecode(path.read_bytes().partition(b"\n")[0])
    return found


def forget_lab_file(root: Path, lab: str, engine: str) -> None:
    """Remove what `remember_lab_file` kept, if anything, and what it had begun to write."""
    for suffix in ("lab", "new"):
        (root / f"{lab}.{engine}.{suffix}").unlink(missing_ok=True)


_HELD: Final[ContextVar[tuple[int, ...]]] = ContextVar("_HELD", default=())


def _remove_unheld(path: Path) -> None:
    """Remove a lock file that nobody holds. Raises BlockingIOError where somebody does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_still(path, descriptor) and os.fstat(descriptor).st_size == 0:
            path.unlink()
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` names the open file."""
    ours = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

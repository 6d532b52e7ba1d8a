# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Folders that hold a PKI: made once, reused by labs and by stand-alone sides (`./inv pki.*`, `--lab-dir`).

DIR/pki.json       everything, with the secret that signs as everybody; mode 0600
DIR/root-ca.der    the root: what a MigTD's configuration volume carries as SGX root CA
DIR/root-ca.pem    the same for other tools
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab import failures
from lab.errors import TaskError, UsageError
from lab.evidence import PKI_FILE, new_pki, pull_pki_text, read_file
from lab.state import make_private
from vmm_stub.tdx_module.randomness import RandomSource

if TYPE_CHECKING:
    from vmm_stub.quoting.pki import LabPki

ROOT_DER: Final = "root-ca.der"
ROOT_PEM: Final = "root-ca.pem"
_LOCK: Final = "pki.lock"


def shared_pki(folder: Path, random: RandomSource, now: float) -> str:
    """The PKI of a folder as JSON, made if there is none yet; two processes that come at once get the same.

    Raises EngineError (LAB-STATE-UNSAFE) and UsageError (LAB-FILE-MISSING, LAB-FILE-UNWRITABLE, LAB-EVIDENCE-INVALID).
    """
    make_private(folder)
    with locked(folder):
        if not (folder / PKI_FILE).exists():
            write_pki(folder, new_pki(random, now))
        return read_pki(folder)


def make_pki(folder: Path, text: str) -> None:
    """Put a PKI into a folder, made if need be with mode 0700.

    Raises EngineError (LAB-STATE-UNSAFE) and UsageError (LAB-FILE-EXISTS, LAB-FILE-UNWRITABLE, LAB-EVIDENCE-INVALID).
    """
    make_private(folder)
    with locked(folder):
        write_pki(folder, text)


def root_files(pki: LabPki) -> tuple[tuple[str, bytes], ...]:
    """The root of a PKI in its files, which are for everybody: name and content."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - only here

    return (ROOT_DER, pki.root_ca), (ROOT_PEM, pki.root.public_bytes(Encoding.PEM))


def read_pki(folder: Path) -> str:
    """The PKI of a folder as JSON. Raises UsageError (LAB-FILE-MISSING, LAB-EVIDENCE-INVALID)."""
    text = read_file(str(folder / PKI_FILE)).decode("utf-8", "replace")
    pull_pki_text(text)
    return text


def write_pki(folder: Path, text: str) -> None:
    """Write the files of a PKI, the one with the secret last. Raises UsageError (LAB-FILE-EXISTS, LAB-FILE-UNWRITABLE).

    Nothing is left half-written, and no PKI is ever replaced: what was signed with it would verify nowhere.
    """
    pki = pull_pki_text(text)
    if os.path.lexists(folder / PKI_FILE):
        raise UsageError(failures.FILE_EXISTS, str(folder / PKI_FILE))
    files = (*((name, content, 0o644) for name, content in root_files(pki)), (PKI_FILE, text.encode(), 0o600))
    for name, content, mode in files:
        fresh = folder / f"{name}.new"
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            fresh.replace(folder / name)
        except OSError as error:
            raise UsageError(failures.FILE_UNWRITABLE, f"{folder / name}: {error.strerror}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder that holds a PKI. What is done meanwhile takes milliseconds, so a second comer waits."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise TaskError(failures.FILE_UNWRITABLE, f"{folder / _LOCK}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

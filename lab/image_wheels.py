# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The Python packages of the images: fetched on the host for the image's Python, so that a build needs no network.

Wheels are unpacked here as well. Neither base image then needs pip, and no layer carries the wheels themselves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab import docker_cli, failures
from lab.bootstrap import WHEELS_VARIABLE
from lab.engines.base import Progress
from lab.errors import EngineError

REQUIREMENTS: Final = Path("images/requirements.txt")
"""Exported from the lock: every package of the images, with hashes."""

_GLIBC: Final = (34, 28, 17, 12, 5)
"""Minor versions of the manylinux platforms that are asked for. Both bases have glibc 2.36 or newer."""
_OLD_NAMES: Final = ("manylinux2014", "manylinux2010", "manylinux1")


def wheels_identity(root: Path, python: str, machine: str) -> str:
    """12 hex digits that stand for the packages: the requirements are hashed, so they and the platform tell all."""
    described = (root / REQUIREMENTS).read_bytes() + f"\0{python}\0{machine}".encode()
    return hashlib.sha256(described).hexdigest()[:12]


def ensure_dependencies(
    root: Path, python: str, machine: str, progress: Progress, environ: Mapping[str, str] = os.environ
) -> Path:
    """Folder with the unpacked packages, fetched if `.cache` lacks it.

    MIGTD_LAB_WHEELS names a folder of wheels that serves without a network. Raises EngineError
    (LAB-IMAGE-WHEELS-FAILED).
    """
    folder = root / ".cache" / f"dependencies-{wheels_identity(root, python, machine)}"
    if folder.is_dir():
        return folder
    progress(f"fetching the images' packages for Python {python} on {machine}")
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="dependencies-") as temporary:
        wheels, unpacked = Path(temporary) / "wheels", Path(temporary) / "unpacked"
        docker_cli.run(
            download_command(root, python, machine, wheels, environ.get(WHEELS_VARIABLE, "")),
            otherwise=failures.IMAGE_WHEELS_FAILED,
        )
        for wheel in sorted(wheels.glob("*.whl")):
            unpack(wheel, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            # Another build made the same folder meanwhile: it holds the same, the requirements are hashed.
            if not folder.is_dir():
                raise
    return folder


def download_command(root: Path, python: str, machine: str, into: Path, wheels: str) -> list[str]:
    """Command line of pip: wheels only, hashes required, for another Python than the one that runs it."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [f"{name}_{machine}" for name in _OLD_NAMES]
    source = ["--no-index", "--find-links", str(Path(wheels).absolute())] if wheels else []
    return [
        sys.executable,
        *("-I", "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", python),
        *(part for platform in platforms for part in ("--platform", platform)),
        *source,
        *("--dest", str(into)),
        *("-r", str(root / REQUIREMENTS)),
    ]


def unpack(wheel: Path, into: Path) -> None:
    """Unpack a wheel as an installer would, scripts and headers left out (roles are started by `python -m`).

    Raises EngineError (LAB-IMAGE-WHEELS-FAILED) for a file that is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)
    except zipfile.BadZipFile as error:
        raise EngineError(failures.IMAGE_WHEELS_FAILED, f"{wheel.name}: {error}") from error
    for data in into.glob("*.data"):
        for kind in ("purelib", "platlib"):
            if (data / kind).is_dir():
                shutil.copytree(data / kind, into, dirs_exist_ok=True)
        shutil.rmtree(data)

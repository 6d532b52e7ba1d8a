# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`clean`: remove what the project made and can make again. `.venv` stays: the task runs from it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import failures
from lab.engines.base import Engine, Progress
from lab.engines.docker import DockerEngine
from lab.engines.process import ProcessEngine
from lab.errors import ExitStatus, UsageError
from lab.images import remove_images
from lab.names import checkout_path
from lab.progress import steps

MADE_HERE = (".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build", "dist")
"""Folders of the checkout that hold nothing but what a task can make again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanOptions:
    """`clean`."""

    force: bool = False
    """Even while labs of this checkout run: they keep what they use, and the next `up` makes the rest anew."""


def clean(options: CleanOptions) -> ExitStatus:
    """Remove caches and the images of the lab, saying which. Images that a container uses stay.

    Raises UsageError (LAB-CLEAN-LABS-RUNNING) while labs of this checkout run, unless forced.
    """
    engines: tuple[Engine, ...] = (DockerEngine(), ProcessEngine())
    with steps("looking for labs") as progress:
        removed = clean_checkout(checkout_path(), engines, progress, options)
    for name in removed or ["nothing"]:
        sys.stderr.write(f"removed {name}\n")
    return ExitStatus.SUCCESS


def clean_checkout(
    checkout: Path, engines: Sequence[Engine], progress: Progress, options: CleanOptions
) -> tuple[str, ...]:
    """What `clean` does, for a checkout and the engines that may run its labs; the names of what was removed."""
    usable = [engine for engine in engines if engine.available().usable]
    running = {lab.lab for engine in usable for lab in engine.labs() if lab.checkout == str(checkout)}
    if running and not options.force:
        raise UsageError(failures.CLEAN_LABS_RUNNING, ", ".join(sorted(running)))
    removed = _remove_folders(checkout)
    if any(engine.name == "docker" for engine in usable):
        removed += remove_images(progress).names
    return removed


def _remove_folders(checkout: Path) -> tuple[str, ...]:
    there = [name for name in MADE_HERE if (checkout / name).is_dir() and not (checkout / name).is_symlink()]
    for name in there:
        shutil.rmtree(checkout / name)
    return tuple(there)

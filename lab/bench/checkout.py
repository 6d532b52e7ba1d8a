# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A fresh checkout with nothing cached, as on a machine that the lab has never run on.

It is a copy of this one without byte code and `.cache`, and its recipe of the base image is marked: so the engine finds
neither base nor images, and what other checkouts built is neither used nor touched. `discard` removes what it built.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lab import docker_cli
from lab.base_image import DEBIAN_REPOSITORY, debian_recipe
from lab.images import TARGETS

_COPIED: Final = ("compose", "images", "lab", "migtd", "tasks.py", "vmm_stub")
_NOT_COPIED: Final = shutil.ignore_patterns("__pycache__")


@contextlib.contextmanager
def fresh_checkout(checkout: Path) -> Iterator[Path]:
    """The copy, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="migtd-lab-bench-") as folder:
        copy = Path(folder) / "checkout"
        copy.mkdir()
        for name in _COPIED:
            if (checkout / name).is_dir():
                shutil.copytree(checkout / name, copy / name, ignore=_NOT_COPIED)
            else:
                shutil.copy2(checkout / name, copy / name)
        with (copy / "images/base.sh").open("a", encoding="utf-8") as recipe:
            recipe.write(f"# {secrets.token_hex(8)}\n")
        yield copy


@contextlib.contextmanager
def images_of(copy: Path) -> Iterator[None]:
    """The images that are built from a fresh checkout within the block are removed at its end.

    The tags `latest`, which every build moves, are put back where they were.
    """
    latest = {target: _id(f"migtd-lab/{target}:latest") for target in TARGETS}
    try:
        yield
    finally:
        for target, identity in latest.items():
            reference = f"migtd-lab/{target}:latest"
            if identity is not None:
                docker_cli.docker("tag", identity, reference)
            elif _id(reference) is not None:
                docker_cli.docker("image", "rm", reference)
        for reference in [*_built(copy), f"{DEBIAN_REPOSITORY}:{debian_recipe(copy)}"]:
            # What was not built, because something failed before, is not there.
            docker_cli.attempt([docker_cli.CLIENT, "image", "rm", reference])


def remember_images(copy: Path, printed: str) -> None:
    """Keep what `./inv images --json` of the copy printed, so that `images_of` knows what was built."""
    document = json.loads(printed)
    references = [image["reference"] for image in document["images"] if image["target"] != "base"]
    (copy / _LIST).write_text(json.dumps(references), encoding="utf-8")


_LIST: Final = "built.json"


def _built(copy: Path) -> list[str]:
    try:
        references: list[str] = json.loads((copy / _LIST).read_bytes())
    except FileNotFoundError:
        return []
    return references


def _id(reference: str) -> str | None:
    done = docker_cli.attempt([docker_cli.CLIENT, "image", "inspect", "--format", "{{.Id}}", reference])
    return done.stdout.strip() if done.status == 0 else None

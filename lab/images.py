# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The lab's images: built when their content asks for it, and found by it otherwise.

The tag of an image is a hash over everything that goes into it: Dockerfile, base image, packages, sources. A tag that
is there needs no build; a source that changed gives another tag.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import docker_cli, failures
from lab.base_image import IMAGES_LABEL, BaseImage, Origin, ensure_base
from lab.engines.base import Progress, Removed
from lab.image_wheels import ensure_dependencies, wheels_identity
from lab.names import checkout_path

DOCKERFILE: Final = Path("images/Dockerfile")
TARGETS: Final = {"source": ("migtd",), "destination": ("migtd",), "vmm-stub": ("migtd", "vmm_stub")}
"""Each target of the Dockerfile with the packages that it carries."""

_PACKAGE_FILES: Final = {".py", ".json", ".yaml", ".typed"}
_EPOCH: Final = 0


@dataclass(frozen=True, slots=True)
class Image:
    """One image in the engine. Sizes in bytes; `own_size` is what its layers add to the base image."""

    target: str
    reference: str
    id: str
    size: int
    own_size: int


@dataclass(frozen=True, slots=True)
class Images:
    """References of the three images of this checkout, all of them in the engine."""

    base: BaseImage
    references: dict[str, str]
    """By target."""


def ensure_images(progress: Progress, *, wanted: Origin | None = None, root: Path | None = None) -> Images:
    """The three images, built as far as the engine lacks them.

    `wanted` is the base image's origin (base_image.ensure_base), `root` the checkout. Raises EngineError:
    LAB-IMAGE-BUILD-FAILED, LAB-IMAGE-WHEELS-FAILED, LAB-BASE-… and those of docker_cli.run.
    """
    root = root or checkout_path()
    base = ensure_base(root, progress, wanted)
    # Read once: what the tag says is what is built, whoever edits the files meanwhile.
    recipe = read_recipe(root)
    packages = wheels_identity(root, base.python, base.machine)
    references = {target: f"migtd-lab/{target}:{recipe.tag(target, base.id, packages)}" for target in TARGETS}
    missing = sorted(set(references.values()) - _present(references))
    if missing:
        dependencies = ensure_dependencies(root, base.python, base.machine, progress)
        context = recipe.context(dependencies)
        for target, reference in references.items():
            if reference in missing:
                progress(f"building the image {reference}")
                _build(target, reference, base, context)
    return Images(base, references)


def describe(images: Images) -> list[Image]:
    """Ids and sizes of the images, in the order of TARGETS, the base image before them."""
    base_id, base_size = _inspect(images.base.reference)
    described = [Image("base", images.base.reference, base_id, base_size, base_size)]
    for target, reference in images.references.items():
        identity, size = _inspect(reference)
        described.append(Image(target, reference, identity, size, size - base_size))
    return described


def remove_images(progress: Progress) -> Removed:
    """Remove every image that a lab made, of all checkouts, those aside that a container still uses."""
    listed = docker_cli.docker(
        "image", "ls", "--filter", f"label={IMAGES_LABEL}", "--format", "{{.Repository}}:{{.Tag}}"
    ).split()
    names = []
    for reference in listed:
        done = docker_cli.attempt([docker_cli.CLIENT, "image", "rm", reference])
        if done.status == 0:
            names.append(reference)
        elif "No such image" not in done.stderr:
            progress(f"keeping {reference}: {done.stderr.strip().splitlines()[-1]}")
    return Removed(tuple(names))


@dataclass(frozen=True, slots=True)
class Recipe:
    """The files of a checkout that images are made from."""

    dockerfile: bytes
    sources: dict[str, bytes]
    """Content of all packages' files by path, in a fixed order."""

    def tag(self, target: str, base: str, packages: str) -> str:
        """16 hex digits over all that goes into a target; `base` is an image id, `packages` the wheels' identity."""
        digest = hashlib.sha256()
        for part in (target.encode(), base.encode(), packages.encode(), self.dockerfile):
            digest.update(b"%d\0" % len(part) + part)
        for path, content in self.sources.items():
            if path.partition("/")[0] in TARGETS[target]:
                digest.update(f"{path}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:16]

    def context(self, dependencies: Path) -> bytes:
        """A tar archive with what the Dockerfile copies, and nothing else; the same files give the same bytes.

        Owners, modes and times are set here: neither the user's umask nor the times of a checkout get into an image.
        """
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            _add(archive, "Dockerfile", self.dockerfile)
            for path in sorted(path for path in dependencies.rglob("*") if path.is_file()):
                _add(archive, f"dependencies/{path.relative_to(dependencies).as_posix()}", path.read_bytes())
            for name, content in self.sources.items():
                _add(archive, name, content)
        return buffer.getvalue()


def read_recipe(root: Path) -> Recipe:
    """Read the Dockerfile and the packages of a checkout, without what Python and its tools leave behind."""
    packages = sorted({package for packages in TARGETS.values() for package in packages})
    files = (path for package in packages for path in sorted((root / package).rglob("*")))
    sources = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in files
        if path.suffix in _PACKAGE_FILES and path.is_file()
    }
    return Recipe((root / DOCKERFILE).read_bytes(), sources)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o644, _EPOCH
    archive.addfile(entry, io.BytesIO(content))


def _build(target: str, reference: str, base: BaseImage, context: bytes) -> None:
    docker_cli.run(
        [
            docker_cli.CLIENT,
            *("build", "--target", target, "--tag", reference, "--tag", f"{reference.partition(':')[0]}:latest"),
            *("--build-arg", f"BASE={base.reference}", "--label", f"{IMAGES_LABEL}={target}", "-"),
        ],
        stdin=context,
        otherwise=failures.IMAGE_BUILD_FAILED,
    )


def _present(references: dict[str, str]) -> set[str]:
    """Which of the references the engine has, all asked for at once: this is on the way of every `up`."""
    command = [docker_cli.CLIENT, "image", "inspect", "--format", "{{json .RepoTags}}", *references.values()]
    done = docker_cli.attempt(command, limit=docker_cli.ANSWER_LIMIT)
    if done.status and "No such image" not in done.stderr:
        raise docker_cli.refusal(done.stderr, failures.ENGINE_REFUSED)
    return {tag for line in done.stdout.splitlines() if line.startswith("[") for tag in json.loads(line)}


def _inspect(reference: str) -> tuple[str, int]:
    identity, size = docker_cli.docker("image", "inspect", "--format", "{{.Id}} {{.Size}}", reference).split()
    return identity, int(size)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The image that all images of the lab stand on: a Python, and as little else as possible.

From a registry where one answers; else made here from Debian packages, by mmdebstrap and images/base.sh. Whichever it
was, `.cache/base-image.json` records it, with the digest of what was pulled first, and the next build takes the same.
Removing that file (`./inv clean`) asks anew.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lab import docker_cli, failures
from lab.engines.base import Progress
from lab.errors import EngineError

REGISTRY_IMAGE: Final = "python:3.13-slim"
DEBIAN_REPOSITORY: Final = "migtd-lab/base"
DEBIAN_SUITE: Final = "trixie"
"""Its Python is 3.13 too, so that one set of wheels serves both."""
DEBIAN_PACKAGES: Final = ("base-files", "busybox", "python3")
IMAGES_LABEL: Final = "migtd-lab.images"
"""On every image that the lab makes; its value is the image's part. Labs have a label of their own (compose.py)."""

_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
_RECORD: Final = "base-image.json"
_PROBE: Final = "import platform; print(*platform.python_version_tuple()[:2], platform.machine())"


class Origin(enum.StrEnum):
    """Where a base image comes from."""

    REGISTRY = "registry"
    DEBIAN = "debian"


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base image that is in the engine. `reference` is what FROM names, `recipe` what a Debian one was made by."""

    reference: str
    id: str
    origin: Origin
    python: str
    """Major and minor version, `3.13`."""
    machine: str
    """As uname names it, `x86_64`."""
    recipe: str = ""


def ensure_base(root: Path, progress: Progress, wanted: Origin | None) -> BaseImage:
    """The base image, pulled or made if the engine lacks it. `wanted` None: a registry's, or Debian's if none answers.

    `root` is the checkout. Raises EngineError: LAB-BASE-TOOL-MISSING, LAB-BASE-FAILED and those of docker_cli.run.
    """
    recorded = _read_record(root)
    recipe = debian_recipe(root)
    if recorded is not None and _serves(recorded, wanted, recipe) and image_id(recorded.reference) == recorded.id:
        return recorded
    base = None
    if wanted is not Origin.DEBIAN:
        digest = recorded.reference if recorded is not None and recorded.origin is Origin.REGISTRY else None
        base = _pull(digest or REGISTRY_IMAGE, progress)
    if base is None and wanted is not Origin.REGISTRY:
        base = _ensure_debian(root, recipe, progress)
    if base is None:
        raise EngineError(failures.BASE_FAILED, f"no registry gave {REGISTRY_IMAGE}")
    _write_record(root, base)
    return base


def debian_recipe(root: Path) -> str:
    """12 hex digits that change with anything that a Debian base is made by, its packages' versions aside."""
    recipe = json.dumps([DEBIAN_SUITE, DEBIAN_PACKAGES, _LEFT_OUT]).encode() + _hook(root).read_bytes()
    return hashlib.sha256(recipe).hexdigest()[:12]


def image_id(reference: str) -> str | None:
    """Id of an image that the engine has, else None. Raises EngineError if the engine itself fails."""
    command = [docker_cli.CLIENT, "image", "inspect", "--format", "{{.Id}}", reference]
    done = docker_cli.attempt(command, limit=docker_cli.ANSWER_LIMIT)
    if done.status == 0:
        return done.stdout.strip()
    if "No such image" in done.stderr:
        return None
    raise docker_cli.refusal(done.stderr, failures.ENGINE_REFUSED)


def _serves(recorded: BaseImage, wanted: Origin | None, recipe: str) -> bool:
    if wanted is not None and recorded.origin is not wanted:
        return False
    return recorded.origin is Origin.REGISTRY or recorded.recipe == recipe


def _pull(reference: str, progress: Progress) -> BaseImage | None:
    progress(f"pulling the base image {reference}")
    done = docker_cli.attempt([docker_cli.CLIENT, "pull", "--quiet", reference])
    if done.status:
        failure = docker_cli.refusal(done.stderr, failures.ENGINE_REFUSED)
        if failure.kind is not failures.ENGINE_REFUSED:
            raise failure
        progress(f"no registry gives it ({failure.detail.splitlines()[-1]})")
        return None
    digest = docker_cli.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", reference).strip()
    return _probe(digest, Origin.REGISTRY, "")


def _ensure_debian(root: Path, recipe: str, progress: Progress) -> BaseImage:
    reference = f"{DEBIAN_REPOSITORY}:{recipe}"
    if image_id(reference) is None:
        _build_debian(root, reference, progress)
    return _probe(reference, Origin.DEBIAN, recipe)


def _build_debian(root: Path, reference: str, progress: Progress) -> None:
    if shutil.which("mmdebstrap") is None:
        raise EngineError(failures.BASE_TOOL_MISSING)
    progress(f"building the base image from packages of Debian {DEBIAN_SUITE}")
    with tempfile.TemporaryDirectory(prefix="migtd-lab-base-") as folder:
        archive = Path(folder) / "base.tar"
        docker_cli.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=extract",
                f"--include={','.join(DEBIAN_PACKAGES)}",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
                f'--extract-hook=sh {_quoted(_hook(root))} "$1"',
                DEBIAN_SUITE,
                str(archive),
            ],
            otherwise=failures.BASE_FAILED,
            # The archive's times, and so the image, follow from the packages alone.
            environment={**os.environ, "SOURCE_DATE_EPOCH": "0"},
        )
        labels = (f"{IMAGES_LABEL}=base", f"org.opencontainers.image.title=MigTD Lab base (Debian {DEBIAN_SUITE})")
        changes = [part for label in labels for part in ("--change", f"LABEL {label.partition('=')[0]}={_json(label)}")]
        docker_cli.run([docker_cli.CLIENT, "import", *changes, "--change", 'CMD ["python3"]', str(archive), reference])


def _probe(reference: str, origin: Origin, recipe: str) -> BaseImage:
    found = image_id(reference)
    printed = docker_cli.docker("run", "--rm", "--network", "none", reference, "python3", "-c", _PROBE).split()
    if found is None or len(printed) != len(("major", "minor", "machine")):
        raise EngineError(failures.BASE_FAILED, f"{reference} has no Python that answers")
    major, minor, machine = printed
    return BaseImage(reference, found, origin, f"{major}.{minor}", machine, recipe)


def _hook(root: Path) -> Path:
    return root / "images" / "base.sh"


def _quoted(path: Path) -> str:
    """For the shell that runs mmdebstrap's hooks."""
    return "'" + str(path).replace("'", "'\\''") + "'"


def _json(label: str) -> str:
    return json.dumps(label.partition("=")[2])


def _read_record(root: Path) -> BaseImage | None:
    """What was used last; a record that cannot be read is as good as none."""
    try:
        data = json.loads((root / ".cache" / _RECORD).read_bytes())
        return BaseImage(**{**data, "origin": Origin(data["origin"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write_record(root: Path, base: BaseImage) -> None:
    cache = root / ".cache"
    cache.mkdir(exist_ok=True)
    fresh = cache / f"{_RECORD}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(base), indent=2) + "\n", encoding="utf-8")
    fresh.replace(cache / _RECORD)

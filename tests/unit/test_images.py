# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What images are made from, when they are built, and what happens where a registry, a tool or a wheel is missing."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lab import base_image, docker_cli, failures, image_commands, image_wheels, images
from lab.base_image import BaseImage, Origin
from lab.errors import EngineError
from lab.images import TARGETS, ensure_images, read_recipe, remove_images
from lab.programs import Completed

BASE = "sha256:base"
ABSENT = Completed(1, "", "Error response from daemon: No such image: whatever")
UNREACHABLE = Completed(1, "", "Error response from daemon: no such host")


class FakeEngine:
    """Answers docker's and other programs' command lines, and remembers them."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}
        self.registry: str | None = None
        self.commands: list[list[str]] = []
        self.build_output: Completed | None = None

    def attempt(self, command: list[str], **_: object) -> Completed:
        self.commands.append(command)
        answer = Completed(0, "", "")
        match command[1:]:
            case ["image", "inspect", "--format", form, *references]:
                answer = self._inspect(form, references)
            case ["pull", "--quiet", reference] if self.registry:
                self.images[reference] = self.images["python@sha256:1"] = self.registry
            case ["pull", *_]:
                answer = UNREACHABLE
            case ["import", *_, reference]:
                self.images[reference] = BASE
            case ["run", *_]:
                answer = Completed(0, "3 13 x86_64\n", "")
            case ["build", *_] if self.build_output:
                answer = self.build_output
            case ["build", *arguments]:
                self.images[arguments[arguments.index("--tag") + 1]] = f"sha256:{len(self.images)}"
        return answer

    def _inspect(self, form: str, references: list[str]) -> Completed:
        there = [each for each in references if each in self.images]
        answers = {
            "{{.Id}}": lambda each: self.images[each],
            "{{.Id}} {{.Size}}": lambda each: f"{self.images[each]} 1000",
            "{{json .RepoTags}}": lambda each: json.dumps([each]),
            "{{index .RepoDigests 0}}": lambda _: "python@sha256:1",
        }
        return Completed(
            0 if there == references else 1,
            "".join(answers[form](each) + "\n" for each in there),
            "" if there == references else ABSENT.stderr,
        )

    def ran(self, word: str) -> list[list[str]]:
        return [each for each in self.commands if word in each[:2]]


@pytest.fixture
def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setattr(docker_cli, "attempt", fake.attempt)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return fake


@pytest.fixture
def root(tmp_path):
    """A small checkout whose packages of the images are fetched already."""
    for path, text in {
        "images/Dockerfile": "FROM x\n",
        "images/base.sh": "true\n",
        "images/requirements.txt": "h11==1 --hash=sha256:00\n",
        "migtd/__init__.py": "",
        "migtd/td.py": "print(1)\n",
        "migtd/py.typed": "",
        "vmm_stub/__init__.py": "",
        "vmm_stub/__main__.py": "print(2)\n",
        "migtd/__pycache__/td.cpython-311.pyc": "stale",
        "lab/secret.py": "not for images",
        "lab.yaml": "not for images",
    }.items():
        _write(tmp_path / path, text)
    identity = image_wheels.wheels_identity(tmp_path, "3.13", "x86_64")
    _write(tmp_path / f".cache/dependencies-{identity}/h11/__init__.py", "")
    return tmp_path


def test_second_run_with_the_same_content_builds_nothing(engine, root):
    first = ensure_images(lambda _: None, root=root)
    built = len(engine.ran("build"))
    assert built == len(TARGETS)
    second = ensure_images(lambda _: None, root=root)
    assert second.references == first.references
    assert len(engine.ran("build")) == built


def test_edit_of_the_host_rebuilds_the_host_image_alone(engine, root):
    first = ensure_images(lambda _: None, root=root)
    _write(root / "vmm_stub/__main__.py", "print(3)\n")
    second = ensure_images(lambda _: None, root=root)
    changed = {target for target in TARGETS if first.references[target] != second.references[target]}
    assert changed == {"vmm-stub"}
    assert [each[each.index("--target") + 1] for each in engine.ran("build")[len(TARGETS) :]] == ["vmm-stub"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("images/Dockerfile", "FROM y\n"),
        ("images/requirements.txt", "h11==2 --hash=sha256:11\n"),
        ("migtd/td.py", "print(4)\n"),
        ("migtd/schema.json", "{}"),
    ],
)
def test_every_ingredient_of_a_migtd_image_changes_its_tag(root, path, text):
    before = _tags(root)
    _write(root / path, text)
    assert all(before[target] != tag for target, tag in _tags(root).items())


def test_another_base_image_changes_every_tag(root):
    recipe = read_recipe(root)
    assert all(recipe.tag(target, "a", "p") != recipe.tag(target, "b", "p") for target in TARGETS)


def test_what_tools_leave_behind_changes_no_tag(root):
    before = _tags(root)
    _write(root / "migtd/__pycache__/new.pyc", "x")
    _write(root / "migtd/.td.py.swp", "x")
    assert _tags(root) == before


def test_context_holds_only_what_the_dockerfile_copies(root):
    names = _names(read_recipe(root).context(_dependencies(root)))
    assert names == {
        "Dockerfile",
        "dependencies/h11/__init__.py",
        "migtd/__init__.py",
        "migtd/td.py",
        "migtd/py.typed",
        "vmm_stub/__init__.py",
        "vmm_stub/__main__.py",
    }


def test_context_depends_on_no_mode_or_time_of_the_checkout(root):
    before = read_recipe(root).context(_dependencies(root))
    (root / "migtd/td.py").chmod(0o600)
    os.utime(root / "migtd/td.py", (1, 1))
    after = read_recipe(root).context(_dependencies(root))
    assert before == after
    with tarfile.open(fileobj=io.BytesIO(after)) as archive:
        assert {entry.mode for entry in archive} == {0o644}


@pytest.mark.usefixtures("engine")
def test_without_a_registry_the_base_is_built_from_debian_packages_and_said_so(root):
    said: list[str] = []
    built = ensure_images(said.append, root=root)
    assert built.base.origin is Origin.DEBIAN
    assert any("no registry" in each for each in said)
    assert any("Debian" in each for each in said)


def test_base_image_is_asked_for_once_only(engine, root):
    ensure_images(lambda _: None, root=root)
    ensure_images(lambda _: None, root=root)
    assert len(engine.ran("pull")) == 1
    assert len(engine.ran("mmdebstrap")) == 1


def test_digest_of_the_first_pull_is_what_later_pulls_ask_for(engine, root):
    engine.registry = "sha256:slim"
    first = ensure_images(lambda _: None, root=root)
    assert first.base == BaseImage("python@sha256:1", "sha256:slim", Origin.REGISTRY, "3.13", "x86_64")
    engine.images.clear()
    ensure_images(lambda _: None, root=root)
    assert [each[-1] for each in engine.ran("pull")] == [base_image.REGISTRY_IMAGE, "python@sha256:1"]


def test_offline_builds_from_packages_even_if_a_registry_answers(engine, root):
    engine.registry = "sha256:slim"
    assert ensure_images(lambda _: None, root=root, wanted=Origin.DEBIAN).base.origin is Origin.DEBIAN
    assert not engine.ran("pull")


@pytest.mark.usefixtures("engine")
def test_record_that_cannot_be_read_is_made_anew(root):
    _write(root / ".cache/base-image.json", '{"origin": "the moon"}')
    ensure_images(lambda _: None, root=root)
    assert json.loads((root / ".cache/base-image.json").read_text())["origin"] == "debian"


@pytest.mark.usefixtures("engine")
def test_missing_mmdebstrap_has_an_id(root, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(EngineError) as raised:
        ensure_images(lambda _: None, root=root)
    assert raised.value.kind.id == "LAB-BASE-TOOL-MISSING"
    assert "mmdebstrap" in raised.value.kind.advice


def test_failed_build_shows_the_builders_last_lines(engine, root):
    engine.build_output = Completed(1, "", "Step 3\nno space left on device\n")
    with pytest.raises(EngineError, match="no space left on device") as raised:
        ensure_images(lambda _: None, root=root)
    assert raised.value.kind.id == "LAB-IMAGE-BUILD-FAILED"


@pytest.mark.usefixtures("engine")
def test_engine_that_went_away_is_not_taken_for_a_silent_registry(root, monkeypatch):
    lost = Completed(1, "", "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?")
    monkeypatch.setattr(docker_cli, "attempt", lambda *_, **__: lost)
    with pytest.raises(EngineError) as raised:
        ensure_images(lambda _: None, root=root)
    assert raised.value.kind.id == "LAB-ENGINE-LOST"


def test_images_in_use_are_kept_and_named(monkeypatch):
    def attempt(command: list[str], **_: object) -> Completed:
        if command[2] == "ls":
            return Completed(0, "migtd-lab/source:1\nmigtd-lab/base:2\n", "")
        return Completed(1, "", "conflict: image is in use") if command[-1].endswith(":1") else Completed(0, "", "")

    monkeypatch.setattr(docker_cli, "attempt", attempt)
    said: list[str] = []
    assert remove_images(said.append).names == ("migtd-lab/base:2",)
    assert "migtd-lab/source:1" in said[0]


@pytest.mark.usefixtures("engine")
def test_list_tells_sizes_and_what_the_lab_adds(root):
    listed = images.describe(ensure_images(lambda _: None, root=root))
    document = image_commands.document(listed, Origin.DEBIAN, "3.13")
    assert [each.target for each in listed] == ["base", *TARGETS]
    assert json.loads(json.dumps(document))["images"][1] == {
        "target": "source",
        "reference": listed[1].reference,
        "id": listed[1].id,
        "bytes": 1000,
        "own_bytes": 0,
    }


def test_wheels_are_fetched_for_the_images_python_with_hashes(root):
    command = image_wheels.download_command(root, "3.13", "aarch64", root / "out", "")
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.13"
    assert "manylinux_2_28_aarch64" in command
    assert "--no-index" not in command


def test_folder_of_wheels_replaces_the_index(root):
    command = image_wheels.download_command(root, "3.13", "x86_64", root / "out", str(root))
    assert command[command.index("--no-index") + 1 :][:2] == ["--find-links", str(root)]


def test_wheel_is_unpacked_as_installed_without_its_scripts(tmp_path):
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/__init__.py", "")
        archive.writestr("x-1.data/purelib/x/more.py", "")
        archive.writestr("x-1.data/scripts/x", "")
    image_wheels.unpack(wheel, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"x/__init__.py", "x/more.py"}


def test_broken_wheel_has_an_id(tmp_path):
    wheel = tmp_path / "x-1-py3-none-any.whl"
    wheel.write_bytes(b"no zip")
    with pytest.raises(EngineError) as raised:
        image_wheels.unpack(wheel, tmp_path / "out")
    assert raised.value.kind.id == "LAB-IMAGE-WHEELS-FAILED"


@pytest.mark.usefixtures("engine")
def test_failed_download_leaves_no_folder_that_looks_complete(root, monkeypatch):
    _write(root / "images/requirements.txt", "h11==3 --hash=sha256:22\n")
    monkeypatch.setattr(docker_cli, "attempt", lambda *_, **__: Completed(1, "", "ERROR: No matching distribution"))
    before = set((root / ".cache").iterdir())
    with pytest.raises(EngineError, match="No matching distribution") as raised:
        image_wheels.ensure_dependencies(root, "3.13", "x86_64", lambda _: None, {})
    assert raised.value.kind.id == "LAB-IMAGE-WHEELS-FAILED"
    assert set((root / ".cache").iterdir()) == before


def test_dockerfile_is_legal_for_the_classic_builder(checkout):
    text = (checkout / "images/Dockerfile").read_text()
    assert not re.search(r"^#\s*syntax|<<|--mount|--chmod|--link", text, re.MULTILINE)
    assert set(re.findall(r"AS (\S+)", text)) >= set(TARGETS)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("Got permission denied while trying to connect to the Docker daemon socket", "LAB-ENGINE-DENIED"),
        ("Cannot connect to the Docker daemon at tcp://x. Is the docker daemon running?", "LAB-ENGINE-LOST"),
        ("error during connect: Get http://x: EOF", "LAB-ENGINE-LOST"),
        ("Bind for 0.0.0.0:8001 failed: port is already allocated", "LAB-PORT-IN-USE"),
        ("listen tcp4 127.0.0.1:8001: bind: address already in use", "LAB-PORT-IN-USE"),
        ("failed to bind host port for 127.0.0.1:8001:172.18.0.2:8001/tcp: address already in use", "LAB-PORT-IN-USE"),
        ("anything else", "LAB-ENGINE-REFUSED"),
        ("", "LAB-ENGINE-REFUSED"),
    ],
)
def test_refusals_of_the_engine_have_ids(output, kind):
    failure = docker_cli.refusal(output, failures.ENGINE_REFUSED)
    assert failure.kind.id == kind
    if kind == "LAB-PORT-IN-USE":
        assert failure.detail == "port 8001"


def test_missing_client_has_an_id():
    with pytest.raises(EngineError) as raised:
        docker_cli.attempt(["no-such-client-of-an-engine", "version"])
    assert raised.value.kind.id == "LAB-ENGINE-MISSING"


def test_stand_alone_compose_serves_where_there_is_no_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(docker_cli, "attempt", lambda *_, **__: Completed(1, "", "unknown command"))
    with pytest.raises(EngineError) as raised:
        docker_cli.compose_command()
    assert raised.value.kind.id == "LAB-COMPOSE-MISSING"
    _write(tmp_path / "docker-compose", "")
    assert docker_cli.compose_command() == [str(tmp_path / "docker-compose")]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _tags(root: Path) -> dict[str, str]:
    packages = image_wheels.wheels_identity(root, "3.13", "x86_64")
    return {target: read_recipe(root).tag(target, BASE, packages) for target in TARGETS}


def _dependencies(root: Path) -> Path:
    return next((root / ".cache").glob("dependencies-*"))


def _names(context: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        return set(archive.getnames())

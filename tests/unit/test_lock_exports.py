# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The exported requirements say what the lock says: `./inv` and the images install from the exports, not from uv."""

import re
import tomllib
from urllib.parse import urlsplit

import pytest

REQUIREMENT = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+?))? \\$")
HASH = re.compile(r"^    --hash=(?P<hash>sha256:[0-9a-f]{64})(?: \\)?$")


@pytest.fixture(scope="module")
def lock(checkout):
    return tomllib.loads((checkout / "uv.lock").read_text())


@pytest.fixture(scope="module")
def packages(lock):
    named = {}
    for package in lock["package"]:
        assert package["name"] not in named, f"{package['name']} is locked twice: the exports cannot be compared"
        named[package["name"]] = package
    return named


def read_export(path):
    """Name -> (version, marker, hashes)."""
    found = {}
    hashes: set[str] = set()
    for line in path.read_text().splitlines():
        if line.lstrip().startswith("#"):
            continue
        if match := REQUIREMENT.match(line):
            hashes = set()
            found[match["name"]] = (match["version"], match["marker"], hashes)
        elif match := HASH.match(line):
            hashes.add(match["hash"])
        else:
            pytest.fail(f"{path.name}: {line!r} is no exact requirement with hashes")
    return found


def closure(packages, dependencies):
    """Names of all packages that the dependencies bring, whatever their markers."""
    found = set()
    waiting = list(dependencies)
    while waiting:
        name = waiting.pop()["name"]
        if name not in found:
            found.add(name)
            waiting += packages[name].get("dependencies", [])
    return found


def test_requirements_are_all_that_is_locked(checkout, packages):
    assert set(read_export(checkout / "requirements.txt")) == set(packages) - {"migtd-lab"}


def test_requirements_of_images_are_the_runtime_dependencies_alone(checkout, packages):
    wanted = closure(packages, packages["migtd-lab"]["dependencies"])
    assert set(read_export(checkout / "images/requirements.txt")) == wanted
    assert wanted.isdisjoint({"invoke", "pytest", "ruff", "mypy", "docker", "rich"})


@pytest.mark.parametrize("name", ["requirements.txt", "images/requirements.txt"])
def test_exports_have_the_versions_and_hashes_of_the_lock(name, checkout, packages):
    for package, (version, _, hashes) in read_export(checkout / name).items():
        locked = packages[package]
        files = [*locked.get("wheels", []), *([locked["sdist"]] if "sdist" in locked else [])]
        assert version == locked["version"], package
        assert hashes == {file["hash"] for file in files}, package


def test_lock_is_of_the_project_as_it_is(checkout, packages):
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    about = packages["migtd-lab"]["metadata"]
    asked = [
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *(each for group in project["dependency-groups"].values() for each in group),
    ]
    locked = [*about["requires-dist"], *(each for group in about["requires-dev"].values() for each in group)]
    assert {requirement(text) for text in asked} == {(each["name"], each.get("specifier", "")) for each in locked}


def requirement(text):
    match = re.match(r"^(?P<name>[A-Za-z0-9.-]+)(?P<specifier>[^;\s]*)", text)
    assert match is not None
    return match["name"].lower(), match["specifier"]


def test_lock_serves_every_python_that_the_project_runs_on(checkout, lock):
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    assert lock["requires-python"] == project["project"]["requires-python"] == ">=3.11"


def test_every_locked_package_has_a_wheel(packages):
    for name, package in packages.items():
        assert name == "migtd-lab" or package["wheels"], f"{name}: .venv is made from wheels only"


def test_lock_comes_from_one_public_registry(packages):
    sources = {package["source"]["registry"] for name, package in packages.items() if name != "migtd-lab"}
    assert len(sources) == 1
    files = [file["url"] for package in packages.values() for file in package.get("wheels", [])]
    for url in [*sources, *files]:
        parts = urlsplit(url)
        assert (parts.scheme, parts.port, parts.username) == ("https", None, None), url
        assert re.fullmatch(r"[a-z]+(\.[a-z]+)*\.org", parts.hostname or ""), url


@pytest.mark.parametrize("name", ["requirements.txt", "images/requirements.txt"])
def test_exports_leave_the_choice_of_a_registry_to_pip(name, checkout):
    assert "://" not in (checkout / name).read_text()

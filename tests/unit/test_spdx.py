# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every file of ours names its licence, and none names the machine or the registry that it was made with."""

import re
import subprocess

import pytest

SPDX = "SPDX-License-Identifier: BSD-2-Clause-Patent"
LICENSED = {".py", ".sh", ".toml", ".yml", ".yaml", ".c", ".rs", ".h"}
LICENSED_BY_NAME = {"inv", "run", "Dockerfile"}
GENERATED = {"uv.lock", "requirements.txt"}
HOME = re.compile(r"(?:/home|/Users)/[a-z]+|/root/|/work/|/tmp/w/|/opt/(?:pypi|wheels)")  # spdx: allow
REGISTRY = re.compile(
    r"--(?:extra-)?index-url|index-url *=|[A-Z_]+INDEX_URL=|https?://[^\s\"']+/simple\b"
)  # spdx: allow
ALLOWED = "# spdx: allow"


def ours(checkout):
    """Tracked files and those that would be added; generated and binary ones aside."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=checkout,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        path = checkout / name
        if not name or not path.is_file() or path.name in GENERATED:
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            yield path, content.decode()


@pytest.fixture(scope="module")
def files(checkout):
    found = dict(ours(checkout))
    assert checkout / "lab/program.py" in found
    return found


def is_source(path):
    return path.suffix in LICENSED or path.name in LICENSED_BY_NAME


def test_every_source_file_names_its_licence_at_its_top(files):
    without = [str(path) for path, text in files.items() if is_source(path) and text and SPDX not in head(text)]
    assert without == []


def head(text):
    """The first line, or the second below a #! line."""
    return "\n".join(text.splitlines()[:2]) if text.startswith("#!") else text.partition("\n")[0]


@pytest.mark.parametrize("pattern", [HOME, REGISTRY], ids=["folder of a machine", "registry"])
def test_no_file_names_the_machine_or_registry_that_it_was_made_with(files, pattern):
    named = [
        f"{path}:{number}: {line.strip()}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line) and ALLOWED not in line
    ]
    assert named == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# SPDX-License-Identifier: BSD-2-Clause-Patent\ncode", True),
        ("#!/bin/sh\n# SPDX-License-Identifier: BSD-2-Clause-Patent\n", True),
        ("code\n# SPDX-License-Identifier: BSD-2-Clause-Patent\n", False),
        ("# SPDX-License-Identifier: MIT\n", False),
    ],
)
def test_licence_counts_only_at_the_top(text, found):
    assert (SPDX in head(text)) is found

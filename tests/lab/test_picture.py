# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The picture in the README is what a new user sees: a run now prints the same lines, measured values aside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import lifecycle
from lab.options import DownOptions
from lab.picture import PICTURE, lines_of, on_terminal, shown

ROOT = Path(__file__).parents[2]
NAME = "test-picture"
VALUES = re.compile(r"[0-9a-f]{16}|\d+(\.\d+)?")
ONLY_ONCE = re.compile(r"building the|base image|wheels")
"""Steps that a machine takes once; the picture shows the runs after that."""


def pattern(line: str) -> str:
    """A line without its values and blanks: those depend on the run and on how a picture is drawn."""
    return re.sub(r"\s+", "", VALUES.sub("#", line))


@pytest.mark.engine
@pytest.mark.docker
def test_picture_in_the_readme_is_what_a_user_sees():
    try:
        text = on_terminal(("./inv", "up", "--name", NAME))
    finally:
        lifecycle.down(DownOptions(name=NAME, engine="docker"))
    seen = [pattern(line) for line in shown(text.replace(f" --name {NAME}", "")) if not ONLY_ONCE.search(line)]
    drawn = [pattern(line) for line in lines_of((ROOT / PICTURE).read_text(encoding="utf-8"))]
    assert [line for line in seen if line] == [line for line in drawn[2:] if line]

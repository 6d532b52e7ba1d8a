# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What is left of a lab after `down` is found: what an engine lists, folders, and processes that nobody lists."""

import os
import subprocess
import sys

import pytest

from lab.engines.base import LabStatus, RoleState, RoleStatus
from lab.engines.process import FOLDER_VARIABLE
from lab.invariants.leftovers import check_leftovers


class EngineOf:
    """An engine with given labs."""

    def __init__(self, *labs, name="process"):
        self.name = name
        self._labs = list(labs)

    def labs(self):
        return self._labs


def lab_of(name, *roles):
    return LabStatus(name, "process", "/checkout", "", roles)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    root = tmp_path / "migtd-lab"
    root.mkdir(mode=0o700)
    return root


def texts(engine, lab="mine"):
    found = list(check_leftovers(engine, lab))
    assert all(each.invariant == "I8" for each in found)
    return [each.text for each in found]


@pytest.mark.usefixtures("root")
def test_nothing_is_found_where_only_other_labs_are():
    assert texts(EngineOf(lab_of("other"))) == []


@pytest.mark.usefixtures("root")
def test_role_or_network_that_an_engine_still_lists_is_found():
    host = RoleStatus("host", "host-a", "host-a", RoleState.EXITED, "1")
    assert texts(EngineOf(lab_of("mine", host))) == ["process still has of mine: host-a"]
    assert "a network" in texts(EngineOf(lab_of("mine"), name="docker"))[0]


def test_folder_of_the_lab_is_found(root):
    (root / "mine").mkdir()
    assert [text.split()[1] for text in texts(EngineOf())] == ["folder"]


def test_process_that_no_record_names_is_found(root):
    with subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={**os.environ, FOLDER_VARIABLE: str(root / "mine")},
    ) as stray:
        found = texts(EngineOf(name="docker"))
        stray.communicate(b"\n")
    assert found == [f"process {stray.pid} of mine still runs"]

# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import TaskError
from lab.state import (
    forget_lab_file,
    lab_lock,
    remember_lab_file,
    remembered_lab_file,
    require_socket_path,
    state_roots,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_runtime_folder_comes_first_and_the_temporary_one_is_looked_at_too(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    temporary = tmp_path / "tmp" / f"migtd-lab-{os.getuid()}"

    assert state_roots({"XDG_RUNTIME_DIR": str(tmp_path)}) == (tmp_path / "migtd-lab", temporary)
    assert state_roots({}) == (temporary,)
    assert state_roots({"XDG_RUNTIME_DIR": str(tmp_path / "absent")}) == (temporary,)
    assert state_roots({"XDG_RUNTIME_DIR": "relative"}) == (temporary,)


def test_a_held_name_is_busy_and_other_names_are_not(root: Path):
    with lab_lock(root, "one"):
        with pytest.raises(TaskError) as caught, lab_lock(root, "one"):
            pass
        with lab_lock(root, "two"):
            pass

    assert caught.value.kind.id == "LAB-BUSY"
    with lab_lock(root, "one"):
        pass


def test_a_lock_leaves_no_file(root: Path):
    with lab_lock(root, "one"):
        assert [each.name for each in root.iterdir()] == ["one.lock"]

    assert list(root.iterdir()) == []


def test_a_holder_that_died_holds_nothing(root: Path):
    program = (
        "import os, sys, pathlib; from lab.state import lab_lock\n"
        "with lab_lock(pathlib.Path(sys.argv[1]), 'one'): os.kill(os.getpid(), 9)"
    )

    done = subprocess.run([sys.executable, "-c", program, str(root)], check=False)

    assert done.returncode == -9
    assert (root / "one.lock").exists()
    with lab_lock(root, "one"):
        pass


def test_lab_file_is_remembered_until_it_is_forgotten(root: Path):
    assert remembered_lab_file(root, "one") is None

    remember_lab_file(root, "one", "schema: 1\n")
    assert remembered_lab_file(root, "one") == b"schema: 1\n"
    forget_lab_file(root, "one")
    forget_lab_file(root, "one")

    assert remembered_lab_file(root, "one") is None
    assert list(root.iterdir()) == []


def test_socket_path_of_107_bytes_is_the_longest():
    assert require_socket_path(Path("/" + "x" * 106)).name == "x" * 106
    with pytest.raises(TaskError) as caught:
        require_socket_path(Path("/" + "ü" * 54))

    assert caught.value.kind.id == "LAB-SOCKET-PATH-TOO-LONG"

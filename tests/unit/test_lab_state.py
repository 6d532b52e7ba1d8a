# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import fcntl
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
    remembered,
    remembered_lab_file,
    require_socket_path,
    state_roots,
    unfinished,
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


def test_lab_file_is_remembered_per_engine_until_it_is_forgotten(root: Path, checkout: Path):
    assert remembered_lab_file(root, "one", "docker") is None

    remember_lab_file(root, "one", "docker", "schema: 1\n")
    remember_lab_file(root, "one", "process", "other\n")
    assert remembered_lab_file(root, "one", "docker") == b"schema: 1\n"
    assert remembered_lab_file(root, "one", "process") == b"other\n"
    assert remembered((root,), "docker") == {"one": str(checkout)}
    for engine in ("docker", "process", "process"):
        forget_lab_file(root, "one", engine)

    assert remembered_lab_file(root, "one", "docker") is None
    assert list(root.iterdir()) == []


def test_name_that_a_killed_command_held_is_told_with_its_checkout_and_resumed(root: Path, checkout: Path):
    program = (
        "import os, sys, pathlib; from lab.state import lab_lock\n"
        "with lab_lock(pathlib.Path(sys.argv[1]), 'one'): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(root)], check=False)

    assert unfinished((root,)) == {"one": str(checkout)}
    with lab_lock(root, "one") as lock:
        assert lock.resumed
    with lab_lock(root, "one") as lock:
        assert not lock.resumed
    assert unfinished((root,)) == {}


def test_name_whose_holder_could_not_settle_is_told_and_resumed(root: Path, checkout: Path):
    with lab_lock(root, "one") as lock:
        lock.settled = False

    assert unfinished((root,)) == {"one": str(checkout)}
    with lab_lock(root, "one") as lock:
        assert lock.resumed
    assert unfinished((root,)) == {}


def test_lock_file_of_a_command_that_was_killed_at_once_is_swept_away_unless_held(root: Path):
    root.mkdir(mode=0o700)
    (root / "dead.lock").touch()
    (root / "held.lock").touch()
    with (root / "held.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert unfinished((root,)) == {}

    assert [each.name for each in root.iterdir()] == ["held.lock"]


def test_program_that_keeps_a_lock_open_holds_the_name_after_its_parent_was_killed(root: Path):
    program = (
        "import os, subprocess, sys, pathlib; from lab.state import held_locks, lab_lock\n"
        "with lab_lock(pathlib.Path(sys.argv[1]), 'one'):\n"
        "    subprocess.Popen(['cat'], pass_fds=held_locks(), stdout=subprocess.DEVNULL)\n"
        "    os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(root)], stdin=subprocess.PIPE) as parent:
        assert parent.wait() == -9
        with pytest.raises(TaskError) as caught, lab_lock(root, "one"):
            pass
        assert caught.value.kind.id == "LAB-BUSY"
        assert parent.stdin is not None
        parent.stdin.close()
        _wait_until_free(root)


def _wait_until_free(root: Path) -> None:
    """`cat` ends when its input does; a lock that stays held blocks here until the test run's own limit."""
    with (root / "one.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_socket_path_of_107_bytes_is_the_longest():
    assert require_socket_path(Path("/" + "x" * 106)).name == "x" * 106
    with pytest.raises(TaskError) as caught:
        require_socket_path(Path("/" + "ü" * 54))

    assert caught.value.kind.id == "LAB-SOCKET-PATH-TOO-LONG"

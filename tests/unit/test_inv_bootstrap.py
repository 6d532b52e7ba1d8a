# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv` in a copy of the checkout: no network, and no package but one that the test makes itself."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from lab import bootstrap, failures
from lab.errors import EngineError, ExitStatus

TOOLS = ("cmp", "dirname", "readlink")
BOOTSTRAP_PARTS = (
    "inv",
    *(f"lab/{name}.py" for name in ("__init__", "bootstrap", "errors", "failures", "failure_text")),
    *(f"migtd/{name}.py" for name in ("__init__", "errors")),
)
PYTHON = os.path.realpath(sys.executable)


class Copy:
    """A checkout with the parts that the bootstrap needs, and a folder of programs that is all of PATH."""

    def __init__(self, checkout, folder):
        self.root = folder / "check out"
        self.programs = folder / "programs"
        self.programs.mkdir()
        for part in BOOTSTRAP_PARTS:
            (self.root / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / part, self.root / part)
        (self.root / "lab/start.py").write_text(
            "import sys, demo\nprint('program', demo.__file__, sys.path[0] != '', *sys.argv[1:])\n"
        )
        (self.root / "requirements.txt").write_text("nothing==1\n")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.programs / tool).symlink_to(found)

    def program(self, name, text):
        """Put a shell script on PATH; `python3` and the like are what `inv` looks for."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def python(self, name, *, new_enough=True, venv=True, bootstrap_status=0):
        """A Python that answers the questions of `inv` and notes that it was asked to make .venv."""
        return self.program(
            name,
            'case "$*" in\n'
            f"  *version_info*) exit {0 if new_enough else 1} ;;\n"
            f"  *ensurepip*) exit {0 if venv else 1} ;;\n"
            f'  *lab.bootstrap*) echo "{name} $*"; exit {bootstrap_status} ;;\n'
            "esac",
        )

    def venv(self, *, made_with=""):
        """A finished .venv whose Python shows its arguments and answers 5."""
        python = self.root / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\necho "venv $*"\nexit 5\n')
        python.chmod(0o755)
        shutil.copy(self.root / "requirements.txt", self.root / ".venv/requirements.txt")
        (self.root / ".venv/made-with").write_text(f"{made_with}\n")

    def environ(self, **variables):
        return {"PATH": str(self.programs), "HOME": "/nonexistent", **variables}

    def run(self, *arguments, command=None, cwd=None, **variables):
        return subprocess.run(
            [*(command or [self.root / "inv"]), *arguments],
            cwd=cwd,
            env=self.environ(**variables),
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def copy(checkout, tmp_path):
    return Copy(checkout, tmp_path)


def test_finished_venv_is_used_without_asking_any_python(copy):
    copy.venv()
    copy.program("python3", "echo asked >&2; exit 1")
    done = copy.run("up", "--name", "a b")
    assert (done.stdout, done.stderr, done.returncode) == ("venv -P -m lab.start up --name a b\n", "", 5)


def test_inv_is_found_from_anywhere(copy, tmp_path):
    copy.venv()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "direct").symlink_to(copy.root / "inv")
    (elsewhere / "twice").symlink_to("direct")
    for command, cwd in (
        (["./inv"], copy.root),
        (["/bin/sh", "inv"], copy.root),
        ([elsewhere / "direct"], tmp_path),
        (["./twice"], elsewhere),
        (["elsewhere/../check out/inv"], tmp_path),
    ):
        done = copy.run("up", command=command, cwd=cwd)
        assert (done.stdout, done.stderr) == ("venv -P -m lab.start up\n", ""), command


def test_missing_python_has_the_words_of_the_catalogue(copy):
    done = copy.run("up")
    kind = failures.PYTHON_MISSING
    assert done.returncode == ExitStatus.LAB
    assert done.stderr == f"{kind.id}: {kind.summary}\n  advice: {kind.advice}\n"
    assert done.stdout == ""
    assert not (copy.root / ".venv").exists()


def test_missing_python_is_a_document_for_programs(copy):
    done = copy.run("up", "--json")
    kind = failures.PYTHON_MISSING
    assert json.loads(done.stdout) == {
        "schema": 1,
        "error": {"id": kind.id, "message": kind.summary, "advice": kind.advice},
    }


def test_old_python_does_not_count(copy):
    copy.python("python3", new_enough=False)
    assert copy.run().stderr.startswith("LAB-PYTHON-MISSING: ")


def test_first_python_that_can_make_environments_is_taken(copy):
    copy.python("python3", venv=False)
    copy.python("python3.13", new_enough=False)
    copy.python("python3.12", bootstrap_status=3)
    copy.python("python3.11")
    done = copy.run("up", "--json")
    assert (done.stdout, done.returncode) == ("python3.12 -P -m lab.bootstrap up --json\n", 3)


def test_python_that_cannot_make_environments_is_taken_for_want_of_a_better_one(copy):
    copy.python("python3", venv=False, bootstrap_status=3)
    assert copy.run("up").stdout == "python3 -P -m lab.bootstrap up\n"


def test_named_python_is_the_only_one_considered(copy):
    copy.python("python3", bootstrap_status=3)
    mine = copy.python("my python", bootstrap_status=3)
    assert copy.run(MIGTD_LAB_PYTHON=str(mine)).stdout == "my python -P -m lab.bootstrap\n"
    assert copy.run(MIGTD_LAB_PYTHON="/no/such/python").stderr.startswith("LAB-PYTHON-MISSING: ")


@pytest.mark.parametrize(
    "damage",
    [
        lambda copy: (copy.root / "requirements.txt").write_text("something==2\n"),
        lambda copy: (copy.root / ".venv/requirements.txt").unlink(),
        lambda copy: (copy.root / ".venv/bin/python").unlink(),
    ],
    ids=["the lock changed", "an installation was interrupted", "its Python went away"],
)
def test_venv_is_made_again_when_out_of_date(copy, damage):
    copy.venv()
    copy.python("python3", bootstrap_status=3)
    damage(copy)
    assert copy.run("up").stdout == "python3 -P -m lab.bootstrap up\n"


def test_venv_is_made_again_for_another_named_python(copy):
    one, other = copy.python("one", bootstrap_status=3), copy.python("other", bootstrap_status=3)
    copy.venv(made_with=one)
    assert copy.run(MIGTD_LAB_PYTHON=str(one)).stdout == "venv -P -m lab.start\n"
    assert copy.run().stdout == "venv -P -m lab.start\n"
    assert copy.run(MIGTD_LAB_PYTHON=str(other)).stdout == "other -P -m lab.bootstrap\n"


def test_python_without_venv_module_is_told_with_the_package_to_install(copy):
    (copy.root / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    done = copy.run("up", "--json", MIGTD_LAB_PYTHON=PYTHON)
    assert done.returncode == ExitStatus.LAB
    assert done.stderr.startswith("LAB-VENV-MISSING: ")
    assert "apt install python3-venv" in done.stderr
    assert json.loads(done.stdout)["error"]["id"] == "LAB-VENV-MISSING"
    assert not (copy.root / ".venv").exists()


def test_wheel_folder_that_is_not_there_is_told(copy, tmp_path):
    done = copy.run("up", MIGTD_LAB_PYTHON=PYTHON, MIGTD_LAB_WHEELS=str(tmp_path))
    assert (done.returncode, done.stdout) == (ExitStatus.LAB, "")
    assert done.stderr.startswith(f"LAB-WHEELS-MISSING: {failures.WHEELS_MISSING.summary}: {tmp_path}\n")


def make_wheel(folder, version):
    """A wheel of one module, and the line that locks it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"demo-{version}-py3-none-any.whl"
    about = f"demo-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("demo.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", f"demo.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return f"demo=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_two_first_starts_at_once_share_one_installation_and_a_moved_checkout_needs_no_other(copy, tmp_path):
    locked = make_wheel(tmp_path / "wheels", "1")
    (copy.root / "requirements.txt").write_text(locked)
    environ = copy.environ(MIGTD_LAB_PYTHON=PYTHON, MIGTD_LAB_WHEELS=str(tmp_path / "wheels"))
    starts = [
        subprocess.Popen(
            [copy.root / "inv", "up", name], env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in "ab"
    ]
    ends = [start.communicate() for start in starts]
    assert [start.returncode for start in starts] == [0, 0]
    assert [out.split()[-2:] for out, _ in ends] == [["up", "a"], ["up", "b"]]
    assert sum(err.count("inv: making .venv") for _, err in ends) == 1

    copy.root = copy.root.rename(tmp_path / "moved")
    done = copy.run("up", "c", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"program {next((copy.root / '.venv').glob('lib/*/site-packages'))}/demo.py True up c\n"


def test_package_that_is_not_the_locked_one_is_refused_and_nothing_half_made_is_left(copy, tmp_path):
    make_wheel(tmp_path / "wheels", "1")
    (copy.root / "requirements.txt").write_text(f"demo==1 --hash=sha256:{'0' * 64}\n")
    variables = {"MIGTD_LAB_PYTHON": PYTHON, "MIGTD_LAB_WHEELS": str(tmp_path / "wheels")}
    done = copy.run("up", "--json", **variables)
    assert done.returncode == ExitStatus.LAB
    assert "LAB-INSTALL-FAILED: " in done.stderr
    assert "MIGTD_LAB_WHEELS" in done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["id"] == "LAB-INSTALL-FAILED"
    assert "DO NOT MATCH THE HASHES" in error["message"]
    assert not (copy.root / ".venv").exists()


def test_command_that_fails_shows_its_last_lines_and_names_its_error(capsys):
    script = "for n in range(99): print('line', n)\nprint('ERROR: no such package')\nraise SystemExit(1)"
    with pytest.raises(EngineError) as caught:
        bootstrap._run([sys.executable, "-c", script], {})
    assert caught.value.kind is failures.INSTALL_FAILED
    assert caught.value.detail == "ERROR: no such package"
    shown = capsys.readouterr().err
    assert "line 98" in shown
    assert "line 80\n" not in shown


def test_folder_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / ".cache").write_text("in the way")
    (tmp_path / "requirements.txt").write_text("")
    assert bootstrap.main(["--json"], tmp_path, {}) == ExitStatus.LAB
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "LAB-INSTALL-FAILED"


def test_link_in_place_of_the_venv_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / ".venv").symlink_to("precious")
    bootstrap._remove(tmp_path / ".venv")
    assert not (tmp_path / ".venv").is_symlink()
    assert (tmp_path / "precious").is_dir()

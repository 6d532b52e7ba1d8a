# SPDX-License-Identifier: BSD-2-Clause-Patent
import sys
from pathlib import Path

import pytest

from lab import cleaning, developer, failures
from lab.cleaning import CleanOptions, clean_checkout
from lab.developer import PytestOptions, pytest_command
from lab.engines.base import Availability, LabStatus, Removed
from lab.errors import ExitStatus, TaskError, UsageError


class EngineOf:
    """An engine with given labs."""

    def __init__(self, *labs, name="process", usable=True):
        self.name = name
        self._labs = list(labs)
        self._usable = usable

    def available(self):
        return Availability(usable=self._usable, detail="")

    def labs(self):
        assert self._usable, "an engine that cannot be used was asked for its labs"
        return self._labs


def quietly(_step):
    """Take the place of progress."""


def lab_of(checkout):
    return LabStatus("lab-1", "process", str(checkout), "", ())


def clean(checkout, *engines, **options):
    return clean_checkout(checkout, engines, quietly, CleanOptions(**options))


def make_caches(folder):
    for name in (".cache", ".mypy_cache", ".venv", "migtd"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")


def test_clean_removes_what_can_be_made_again_and_nothing_else(tmp_path):
    make_caches(tmp_path)
    removed = clean(tmp_path, EngineOf())
    assert removed == (".cache", ".mypy_cache")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".venv", "migtd"]


def test_clean_twice_is_fine(tmp_path):
    assert clean(tmp_path, EngineOf()) == ()


def test_clean_is_refused_while_a_lab_of_the_checkout_runs(tmp_path):
    make_caches(tmp_path)
    with pytest.raises(UsageError) as caught:
        clean(tmp_path, EngineOf(lab_of(tmp_path)))
    assert caught.value.kind is failures.CLEAN_LABS_RUNNING
    assert caught.value.detail == "lab-1"
    assert (tmp_path / ".cache").is_dir()


def test_clean_goes_ahead_when_forced_and_ignores_labs_of_other_checkouts(tmp_path):
    make_caches(tmp_path)
    other = tmp_path.with_name("other")
    assert clean(tmp_path, EngineOf(lab_of(other)))
    (tmp_path / ".cache").mkdir()
    assert clean(tmp_path, EngineOf(lab_of(tmp_path)), force=True) == (".cache",)


def test_clean_removes_images_only_where_there_is_a_container_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "remove_images", lambda _progress: Removed(("migtd-lab/source:1",)))
    assert clean(tmp_path, EngineOf(name="docker", usable=False)) == ()
    assert clean(tmp_path, EngineOf(name="docker")) == ("migtd-lab/source:1",)


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        (PytestOptions(), {}, []),
        (PytestOptions(junit=Path("junit.xml")), {}, [f"--junit-xml={Path.cwd() / 'junit.xml'}"]),
        (PytestOptions(select="ratls and not tls"), {}, ["-k", "ratls and not tls"]),
        (PytestOptions(unit=True), {}, ["-m", "not docker and not engine"]),
        (PytestOptions(soak=True), {}, ["-m", "soak", "--capture=no"]),
        (PytestOptions(exhaustive=True), {}, ["-m", "exhaustive", "--capture=no"]),
        (PytestOptions(parity=True), {}, ["-m", "parity"]),
        (PytestOptions(require_engines=True), {}, ["--require-engines"]),
        (PytestOptions(), {"CI": "true"}, ["--require-engines"]),
        (PytestOptions(), {"CI": "false"}, []),
    ],
)
def test_options_of_test_become_those_of_pytest(options, environ, expected):
    assert pytest_command(options, environ) == [sys.executable, "-m", "pytest", *expected]


@pytest.mark.parametrize("others", [{"soak": True}, {"exhaustive": True}, {"parity": True}])
def test_long_tests_without_engines_are_refused(others):
    with pytest.raises(UsageError) as caught:
        pytest_command(PytestOptions(unit=True, **others), {})
    assert caught.value.kind is failures.USAGE_VALUE_INVALID


@pytest.mark.parametrize(
    ("select", "text", "status"),
    [
        ("passes", "def test_passes(): pass", ExitStatus.SUCCESS),
        ("fails", "def test_fails(): assert False", ExitStatus.NEGATIVE),
        ("other", "def test_passes(): pass", ExitStatus.NEGATIVE),
        ("broken", "import no_such_module", ExitStatus.NEGATIVE),
        ("not an expression", "def test_passes(): pass", ExitStatus.USAGE),
    ],
)
def test_status_of_test_is_a_verdict(select, text, status, tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(tmp_path), "-k"]
    monkeypatch.setattr(developer, "pytest_command", lambda options, _environ: [*command, options.select])
    assert developer.run_tests(PytestOptions(select=select), {}) is status


def test_checks_are_shown_by_name_and_a_failed_one_with_its_output(monkeypatch, capsys):
    monkeypatch.setattr(developer, "CHECKS", {"format": ("platform",), "lint": ("json.tool", "no-such-file")})
    assert developer.run_checks() is ExitStatus.NEGATIVE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines[:2]] == [["format", "ok"], ["lint", "FAILED"]]
    assert any("'no-such-file'" in line for line in lines)
    assert lines[-1] == ["failed:", "lint"]


def test_missing_tool_is_told(monkeypatch):
    monkeypatch.setattr(developer, "CHECKS", {"lint": ("no_such_module",)})
    with pytest.raises(TaskError) as caught:
        developer.run_checks()
    assert caught.value.kind is failures.TOOL_MISSING


SKIPPING = """
import pytest

def test_skips():
    pytest.skip("no engine here")

@pytest.mark.shared
def test_needs_shared(shared):
    assert shared.is_dir()
"""


@pytest.mark.parametrize(
    ("options", "there", "outcome"),
    [
        ([], False, {"skipped": 2}),
        (["--require-engines"], False, {"failed": 1, "skipped": 1}),
        (["--require-engines"], True, {"failed": 1, "passed": 1}),
    ],
)
def test_skipped_test_fails_where_engines_are_required_unless_shared_is_absent(
    pytester, checkout, options, there, outcome
):
    make_checkout(pytester, checkout, SKIPPING)
    if there:
        (pytester.path / "shared").mkdir()
    result = pytester.runpytest_subprocess(
        "--rootdir", "project", "-c", "project/pytest.ini", *options, "project/tests"
    )
    result.assert_outcomes(**outcome)
    assert ("no engine here" in result.stdout.str()) is bool(options)


def test_skipped_module_fails_where_engines_are_required(pytester, checkout):
    make_checkout(pytester, checkout, "import pytest\npytest.importorskip('no_such_module')\n")
    result = pytester.runpytest_subprocess("-c", "project/pytest.ini", "--require-engines", "project/tests")
    result.assert_outcomes(errors=1)


def test_docker_test_is_skipped_where_no_engine_answers(pytester, checkout, monkeypatch):
    make_checkout(pytester, checkout, "import pytest\n@pytest.mark.docker\ndef test_engine(): pass\n")
    monkeypatch.setenv("PATH", "/nonexistent")
    result = pytester.runpytest_subprocess("-c", "project/pytest.ini", "-rs", "project/tests")
    result.assert_outcomes(skipped=1)
    assert "no docker client" in result.stdout.str()


LONG_TESTS = """
import pytest

def test_short():
    pass

@pytest.mark.soak
def test_soaks(request):
    assert request.config.getoption("--soak-seconds") == 600

@pytest.mark.exhaustive
def test_all():
    pass
"""


@pytest.mark.parametrize(
    ("options", "run"),
    [
        ([], "test_short"),
        (["-m", "soak"], "test_soaks"),
        (["-m", "exhaustive"], "test_all"),
        (["-m", "not shared", "--require-engines"], "test_short"),
    ],
)
def test_what_takes_minutes_is_left_out_and_no_skip_unless_it_is_asked_for(pytester, checkout, options, run):
    make_checkout(pytester, checkout, LONG_TESTS)
    result = pytester.runpytest_subprocess("-c", "project/pytest.ini", "-v", *options, "project/tests")
    result.assert_outcomes(passed=1, deselected=2)
    assert f"{run} PASSED" in result.stdout.str()


def make_checkout(pytester, checkout, test):
    folder = pytester.mkdir("project")
    (folder / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  docker: x\n  shared: x\n  soak: x\n  exhaustive: x\naddopts = --import-mode=importlib\n"
    )
    (folder / "tests").mkdir()
    (folder / "tests/conftest.py").write_text((checkout / "tests/conftest.py").read_text())
    (folder / "tests/test_it.py").write_text(test)

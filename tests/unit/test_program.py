# SPDX-License-Identifier: BSD-2-Clause-Patent
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from invoke.collection import Collection

import tasks
from lab import failures, program
from lab.errors import EngineError, ExitStatus, UsageError
from lab.program import LabProgram
from lab.task import seconds, task, whole_number


def say(text):
    sys.stdout.write(text + "\n")


@task(
    help={"name": "name of the lab", "migrations": "how many", "keep": "keep it running", "json": "data on stdout"},
    short={"name": "n"},
    kinds={"migrations": whole_number, "deadline": seconds},
)
def up(_context, name=None, migrations=None, deadline=None, keep=True, json=False, dry_run=False):  # noqa: FBT002 - flags
    """Start a lab."""
    say(f"up name={name} migrations={migrations} deadline={deadline} keep={keep} json={json} dry_run={dry_run}")


@task(short={"follow": "f"})
def logs(_context, follow=False):  # noqa: FBT002 - a flag
    """Show logs."""
    say(f"logs follow={follow}")


@task()
def negative(_context):
    """End with a negative verdict."""
    return ExitStatus.NEGATIVE


@task(help={"json": "data on stdout"})
def breaks(_context, json=False):  # noqa: FBT002, ARG001 - a flag
    """Fail as a lab does."""
    raise EngineError(failures.TOOL_MISSING, "gone")


@task()
def misused(_context):
    """Refuse the user's input."""
    raise UsageError(failures.USAGE_VALUE_INVALID, "seven")


@task(help={"json": "data on stdout"})
def bug(_context, json=False):  # noqa: FBT002, ARG001 - a flag
    """Show a mistake of ours."""
    raise RuntimeError("not thought of")


@task()
def interrupted(_context):
    """Be interrupted."""
    raise KeyboardInterrupt


@task()
def doctor(_context):
    """Run everywhere."""
    say("doctor ran")


@task(help={"files": "case files", "section": "a section"}, trailing="files", iterable=["section"])
def conform(_context, files=None, section=None, json=False):  # noqa: FBT002 - a flag
    """Run case files."""
    say(f"conform files={files} section={section} json={json}")


@task()
def init(_context):
    """Write a lab file."""
    say("lab.init ran")


TASKS = Collection(up, logs, negative, breaks, misused, bug, interrupted, doctor, conform, Collection("lab", init))


def run(*arguments, platform="linux"):
    return LabProgram(TASKS, platform=platform).main(arguments)


def failure_of(capsys):
    out, err = capsys.readouterr()
    identity, _, rest = err.partition(": ")
    return identity, rest, out


@pytest.fixture(autouse=True)
def _tracebacks_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "TRACEBACKS", tmp_path / "tracebacks")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["up"], "up name=None migrations=None deadline=None keep=True json=False dry_run=False"),
        (
            ["up", "--name", "a", "--migrations=3", "--deadline", "0.5"],
            "up name=a migrations=3 deadline=0.5 keep=True json=False dry_run=False",
        ),
        (["up", "-n", "up"], "up name=up migrations=None deadline=None keep=True json=False dry_run=False"),
        (["up", "--no-keep"], "up name=None migrations=None deadline=None keep=False json=False dry_run=False"),
        (["up", "--keep", "--json"], "up name=None migrations=None deadline=None keep=True json=True dry_run=False"),
        (["up", "--dry-run"], "up name=None migrations=None deadline=None keep=True json=False dry_run=True"),
        (["logs", "-f"], "logs follow=True"),
        (["logs", "doctor"], "logs follow=False\ndoctor ran"),
        (["lab.init"], "lab.init ran"),
        (["conform", "a.json", "b.json"], "conform files=['a.json', 'b.json'] section=[] json=False"),
        (["conform", "up"], "conform files=['up'] section=[] json=False"),
        (
            ["conform", "a", "--section", "x", "b", "--section=y", "--json", "c"],
            "conform files=['a', 'b', 'c'] section=['x', 'y'] json=True",
        ),
        (["conform"], "conform files=[] section=[] json=False"),
    ],
)
def test_task_gets_what_the_command_line_says(arguments, printed, capsys):
    assert run(*arguments) == ExitStatus.SUCCESS
    assert capsys.readouterr().out.strip() == printed


@pytest.mark.parametrize(
    ("arguments", "identity", "text"),
    [
        (["upp"], "LAB-USAGE-UNKNOWN-TASK", "did you mean up?"),
        (["lab.initt"], "LAB-USAGE-UNKNOWN-TASK", "did you mean lab.init?"),
        (["up", "extra"], "LAB-USAGE-UNKNOWN-TASK", "extra (after up, which takes no such argument)"),
        (["up", "--json=1"], "LAB-USAGE-UNKNOWN-TASK", "1 (after up"),
        (["up", "--migration", "3"], "LAB-USAGE-UNKNOWN-FLAG", "up --migration; did you mean --migrations"),
        (["up", "--no-kepp"], "LAB-USAGE-UNKNOWN-FLAG", "did you mean --no-keep"),
        (["up", "-x"], "LAB-USAGE-UNKNOWN-FLAG", "up -x"),
        (["--frobnicate"], "LAB-USAGE-UNKNOWN-FLAG", "--frobnicate"),
        (["conform", "a", "--sections", "x"], "LAB-USAGE-UNKNOWN-FLAG", "did you mean --section"),
        (["up", "--name"], "LAB-USAGE-VALUE-MISSING", "up --name"),
        (["up", "--name", "--json"], "LAB-USAGE-VALUE-MISSING", "up --name"),
        (["up", "--migrations", "many"], "LAB-USAGE-VALUE-INVALID", "'many' is no whole number"),
        (["up", "--migrations", "-1"], "LAB-USAGE-VALUE-INVALID", "'-1' is no whole number"),
        (["up", "--deadline", "0"], "LAB-USAGE-VALUE-INVALID", "'0' is no number of seconds"),
        (["up", "--deadline=nan"], "LAB-USAGE-VALUE-INVALID", "'nan' is no number of seconds"),
        (["up", "--deadline=soon"], "LAB-USAGE-VALUE-INVALID", "'soon' is no number of seconds"),
        (["up", "--", "more"], "LAB-USAGE-UNREADABLE", "more"),
        (["--help", "upp"], "LAB-USAGE-UNKNOWN-TASK", "upp"),
        (["--list=nothing"], "LAB-USAGE-UNREADABLE", "nothing"),
        (["--print-completion-script", "vax"], "LAB-USAGE-UNREADABLE", "vax"),
        (["misused"], "LAB-USAGE-VALUE-INVALID", "seven"),
    ],
)
def test_wrong_command_line_has_an_id_and_status_2(arguments, identity, text, capsys):
    assert run(*arguments) == ExitStatus.USAGE
    shown, rest, out = failure_of(capsys)
    assert shown == identity
    assert text in rest
    assert "\n  advice: " in rest
    assert (out == "") is ("--json" not in arguments)


def test_wrong_command_line_with_json_is_a_document_too(capsys):
    assert run("up", "--json", "--frobnicate") == ExitStatus.USAGE
    out = capsys.readouterr().out
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["error"]["id"] == "LAB-USAGE-UNKNOWN-FLAG"
    assert "--frobnicate" in document["error"]["message"]
    assert document["error"]["advice"] == failures.USAGE_UNKNOWN_FLAG.advice


def test_failure_of_a_task_is_told_with_its_own_status(capsys):
    assert run("breaks", "--json") == ExitStatus.LAB
    out, err = capsys.readouterr()
    assert err.startswith("LAB-TOOL-MISSING: a development tool is not in .venv: gone\n  advice: ")
    assert json.loads(out)["error"]["id"] == "LAB-TOOL-MISSING"


def test_negative_verdict_is_status_1_and_ends_the_chain(capsys):
    assert run("negative", "doctor") == ExitStatus.NEGATIVE
    assert capsys.readouterr() == ("", "")


def test_interrupt_is_status_130(capsys):
    assert run("interrupted") == ExitStatus.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_mistake_of_ours_has_an_id_and_keeps_the_traceback_in_a_file(capsys):
    assert run("bug", "--json") == ExitStatus.LAB
    out, err = capsys.readouterr()
    assert err.startswith("LAB-INTERNAL: ")
    assert "RuntimeError: not thought of" in err
    assert "Traceback" not in err
    assert json.loads(out)["error"]["id"] == "LAB-INTERNAL"
    (kept,) = program.TRACEBACKS.iterdir()
    assert str(kept) in err
    assert "in bug" in kept.read_text()


def test_mistake_of_ours_shows_the_traceback_when_asked(monkeypatch, capsys):
    monkeypatch.setenv("MIGTD_LAB_TRACEBACK", "1")
    assert run("bug") == ExitStatus.LAB
    assert "in bug" in capsys.readouterr().err
    assert not program.TRACEBACKS.exists()


def test_traceback_goes_to_the_temporary_folder_where_the_checkout_cannot_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(program, "TRACEBACKS", tmp_path / "file" / "tracebacks")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("bug") == ExitStatus.LAB
    assert f"traceback in {tmp_path}" in capsys.readouterr().err


def test_only_the_doctor_runs_elsewhere_than_on_linux(capsys):
    assert run("up", platform="darwin") == ExitStatus.LAB
    assert failure_of(capsys)[0] == "LAB-PLATFORM-UNSUPPORTED"
    assert run("doctor", "up", platform="darwin") == ExitStatus.LAB
    assert "doctor ran" not in capsys.readouterr().out
    assert run("doctor", platform="darwin") == ExitStatus.SUCCESS
    assert run("--list", platform="darwin") == ExitStatus.SUCCESS


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["--list"]])
def test_help_lists_every_task_with_its_sentence(arguments, capsys):
    assert run(*arguments) == ExitStatus.SUCCESS
    out = capsys.readouterr().out
    for name, sentence in (("up", "Start a lab."), ("lab.init", "Write a lab file."), ("conform", "Run case files.")):
        assert any(line.split() == [name, *sentence.split()] for line in out.splitlines())


@pytest.mark.parametrize("arguments", [["up", "--help"], ["--help", "up"], ["up", "-h"]])
def test_help_of_a_task_shows_its_flags(arguments, capsys):
    assert run(*arguments) == ExitStatus.SUCCESS
    out = capsys.readouterr().out
    assert "Usage: ./inv up [--flags]" in out
    assert "Start a lab." in out
    for part in ("-n STRING, --name=STRING", "name of the lab", "--[no-]keep", "--migrations=NUMBER", "how many"):
        assert part in out


def test_help_of_a_task_with_trailing_arguments_names_them(capsys):
    assert run("conform", "--help") == ExitStatus.SUCCESS
    out = capsys.readouterr().out
    assert "Usage: ./inv conform [--flags] FILES..." in out
    assert "--files" not in out
    assert "a section" in out


def test_version_is_that_of_the_project(capsys, checkout):
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    assert run("--version") == ExitStatus.SUCCESS
    assert capsys.readouterr().out == f"MigTD Lab {project['version']}\n"


def test_completion_script_completes_tasks(capsys):
    assert run("--complete", "--", "./inv", "") == ExitStatus.SUCCESS
    assert "lab.init" in capsys.readouterr().out.split()


def test_configuration_of_invoke_itself_changes_nothing(monkeypatch, tmp_path, capsys):
    (tmp_path / ".invoke.yaml").write_text("tasks: {executor_class: no.such.Thing}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INVOKE_TASKS_EXECUTOR_CLASS", "no.such.Thing")
    assert run("doctor") == ExitStatus.SUCCESS
    assert "doctor ran" in capsys.readouterr().out


def test_byte_code_files_stay_as_the_user_wants_them(monkeypatch):
    for value in (False, True):
        monkeypatch.setattr(sys, "dont_write_bytecode", value)
        assert run("doctor") == ExitStatus.SUCCESS
        assert sys.dont_write_bytecode is value


def test_reader_that_goes_away_ends_the_task_quietly(checkout, tmp_path):
    script = tmp_path / "chatty.py"
    script.write_text(
        "import sys\n"
        "from invoke.collection import Collection\n"
        "from lab.program import LabProgram\n"
        "from lab.task import task\n"
        "@task()\n"
        "def chat(_context):\n"
        "    for number in range(100000):\n"
        "        print(number)\n"
        "sys.exit(LabProgram(Collection(chat)).main(['chat']))\n"
    )
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        os.close(writing)
        assert os.read(reading, 1) == b"0"
        os.close(reading)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == program.BROKEN_PIPE


def test_broken_pipe_elsewhere_is_a_mistake_of_ours(capsys):
    @task()
    def broken(_context):
        raise BrokenPipeError("some socket")

    assert LabProgram(Collection(broken)).main(["broken"]) == ExitStatus.LAB
    assert failure_of(capsys)[0] == "LAB-INTERNAL"


def test_every_task_of_the_project_has_a_sentence_and_a_help_text_for_every_flag():
    for name in tasks.namespace.task_names:
        each = tasks.namespace[name]
        assert (each.__doc__ or "").strip().endswith("."), name
        for argument in each.get_arguments():
            assert argument.help, f"{name} --{argument.names[0]}"


def test_tasks_of_the_contract_are_there():
    wanted = "up migrate status logs events shell down clean doctor check test images lab.init lab.validate"
    assert set(wanted.split()) <= set(tasks.namespace.task_names)


def test_start_loads_nothing_slow(checkout):
    slow = "pydantic rich docker cryptography OpenSSL structlog"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, lab.program, tasks; print(*(set({slow.split()!r}) & sys.modules.keys()))"],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_project_folder_is_found_from_anywhere():
    assert (program.ROOT / "pyproject.toml").is_file()
    assert Path(program.__file__).is_relative_to(program.ROOT)

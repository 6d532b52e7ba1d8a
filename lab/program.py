# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The command line of `./inv`: invoke's parser, our failures and exit statuses (design.md, contract 1)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import shutil
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.config import Config
from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.program import Program

from lab import failures, usage
from lab.errors import EngineError, ExitStatus, TaskError, UsageError
from lab.failure_text import document, lines
from lab.task import LabTask
from migtd import __version__
from migtd.errors import LabFailure

ROOT = Path(__file__).resolve().parents[1]
TRACEBACKS = ROOT / ".cache" / "tracebacks"
TRACEBACK_VARIABLE = "MIGTD_LAB_TRACEBACK"
BROKEN_PIPE = 141
"""What shells report for a program whose reader went away: 128 and SIGPIPE."""

PORTABLE_TASKS = frozenset({"doctor"})
"""These run on every platform, all others on Linux only."""

_SHOWN_FLAGS = ("--help", "--list", "--version", "--print-completion-script")
_KEPT_FLAGS = frozenset(
    {
        *(flag.removeprefix("--") for flag in _SHOWN_FLAGS),
        *("complete", "debug", "list-depth", "list-format", "write-pyc"),  # invoke itself reads these
    }
)


class LabProgram(Program):
    """`./inv TASK...`: `main` parses, runs and returns the exit status, and tells every failure in the same form."""

    def __init__(self, namespace: Collection, *, platform: str = sys.platform) -> None:
        super().__init__(
            version=__version__,
            namespace=namespace,
            name="MigTD Lab",
            binary="./inv",
            binary_names=["./inv", "inv"],
            config_class=_NoConfigFiles,
        )
        self.platform = platform
        self.tasks_known = namespace

    def main(self, arguments: Sequence[str]) -> int:
        """Run the tasks that `arguments` ask for and return the exit status.

        Failures go to standard error, and as a document to standard output if `--json` is among the arguments.
        """
        try:
            status = self._run_steps(["./inv", *arguments])
            sys.stdout.flush()
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return ExitStatus.INTERRUPTED
        except BrokenPipeError as error:
            return BROKEN_PIPE if _reader_is_gone() else _report_unexpected(error, arguments)
        except LabFailure as failure:
            return _report(failure, arguments)
        except Exception as error:  # noqa: BLE001 - the last line of defence: told with its traceback, not swallowed
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return _report(EngineError(failures.DISK_FULL, str(error.filename or error.strerror)), arguments)
            return _report_unexpected(error, arguments)
        return status

    def core_args(self) -> list[Argument]:
        """Leave out what invoke offers for running shell commands: no task here does that."""
        return [argument for argument in super().core_args() if argument.names[0] in _KEPT_FLAGS]

    def update_config(self, merge: bool = True) -> None:  # noqa: FBT001, FBT002 - invoke's signature
        """Take nothing over from the core flags: none of those kept is configuration."""
        if merge:
            self.config.merge()

    def parse_core(self, argv: list[str] | None) -> None:
        """Parse the core flags. Invoke would switch off byte code files, and each start would compile the lab anew."""
        without_byte_code = sys.dont_write_bytecode
        try:
            super().parse_core(argv)
        finally:
            sys.dont_write_bytecode = without_byte_code

    def parse_tasks(self) -> None:
        """Set trailing arguments aside, let invoke parse the rest, and give them to their task."""
        if self.core.remainder and not self.args.complete.value:
            raise UsageError(failures.USAGE_UNREADABLE, f"nothing takes arguments after --: {self.core.remainder}")
        self.core.unparsed, trailing = usage.split_trailing(self.core.unparsed, self.collection)
        try:
            super().parse_tasks()
        except ValueError as error:  # invoke lets the error of a value's conversion through
            raise UsageError(failures.USAGE_VALUE_INVALID, str(error)) from error
        for argument in trailing:
            task = self.collection[self.tasks[0].name]
            self.tasks[0].args[task.trailing].value = argument

    def execute(self) -> None:
        """Run the tasks; elsewhere than on Linux only those that say what is missing there."""
        if self.platform != "linux" and not {context.name for context in self.tasks} <= PORTABLE_TASKS:
            raise EngineError(failures.PLATFORM_UNSUPPORTED, self.platform)
        super().execute()

    def print_help(self) -> None:
        """Show the form of the command line, the tasks, and the flags that stand before a task."""
        sys.stdout.write("Usage: ./inv TASK [--flags] [TASK [--flags]]...\n\n")
        self.list_tasks()
        sys.stdout.write("Flags before a task:\n\n")
        self.print_columns([self.initial_context.help_for(flag) for flag in _SHOWN_FLAGS])

    def task_list_opener(self, extra: str = "") -> str:
        """Head the list of tasks."""
        return f"Tasks{f' ({extra})' if extra else ''}; `./inv TASK --help` tells more"

    def print_task_help(self, name: str) -> None:
        """Show a task's sentence and its flags."""
        task = self.collection[name]
        trailing = task.trailing if isinstance(task, LabTask) else None
        context = self.parser.contexts[name]
        flags = [_flag_help(context, flag) for flag in context.flags if flag != f"--{trailing}"]
        form = [
            name,
            *(["[--flags]"] if flags else []),
            *([task.form] if isinstance(task, LabTask) and trailing else []),
        ]
        told = textwrap.fill((task.__doc__ or "").strip(), shutil.get_terminal_size().columns)
        sys.stdout.write(f"Usage: ./inv {' '.join(form)}\n\n{told}\n\n")
        if flags:
            sys.stdout.write("Flags:\n\n")
            self.print_columns(flags)

    def _run_steps(self, argv: list[str]) -> int:
        """Invoke's own steps, in its order; what it would print and exit with is raised or returned instead."""
        try:
            self.create_config()
            self.parse_core(argv)
            self.parse_collection()
            self.parse_tasks()
            self.parse_cleanup()
            self.update_config()
            self.execute()
        except ParseError as error:
            raise usage.explain(error, self.tasks_known) from error
        except Exit as ended:
            if ended.message:
                raise UsageError(failures.USAGE_UNREADABLE, ended.message) from ended
            return ended.code
        return ExitStatus.SUCCESS


class _NoConfigFiles(Config):
    """Invoke's configuration without its files and variables: what `./inv` does depends on its flags alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "lazy": True})

    def load_shell_env(self) -> None:
        self.merge()


def _flag_help(context: ParserContext, flag: str) -> tuple[str, str]:
    """A flag's form and its help text. Invoke knows how to show a value only for its own kinds."""
    form, text = context.help_for(flag)
    argument = context.flags[flag]
    value = "STRING" if argument.kind is list else "NUMBER"
    return f"{form}={value}" if argument.takes_value and "=" not in form else form, text


def _report(failure: LabFailure, arguments: Sequence[str]) -> int:
    with _quiet_reader():
        sys.stderr.write(lines(failure) + "\n")
        if "--json" in arguments:
            sys.stdout.write(document(failure) + "\n")
            sys.stdout.flush()
    return failure.status if isinstance(failure, TaskError) else ExitStatus.LAB


def _report_unexpected(error: Exception, arguments: Sequence[str]) -> int:
    text = "".join(traceback.format_exception(error))
    detail = f"{type(error).__name__}: {error}"
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        sys.stderr.write(text)
    else:
        detail += f" (traceback in {_keep_traceback(text)})"
    return _report(TaskError(failures.INTERNAL, detail), arguments)


def _keep_traceback(text: str) -> str:
    """Write a traceback to a file of its own, in the checkout or, if that cannot be written, in the system's folder."""
    try:
        TRACEBACKS.mkdir(parents=True, exist_ok=True)
        folder: Path | None = TRACEBACKS
    except OSError:
        folder = None
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, suffix=".txt", delete=False) as file:
        file.write(text)
    return file.name


@contextlib.contextmanager
def _quiet_reader() -> Iterator[None]:
    """Let a failure be told to whoever still listens, as far as there is room for it."""
    try:
        yield
    except OSError:
        if not _reader_is_gone():
            _discard_output(sys.stdout.fileno())


def _reader_is_gone() -> bool:
    """Tell a closed standard output (`./inv events | head`) from a broken pipe elsewhere."""
    try:
        output = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return False
    poll = select.poll()
    poll.register(output, 0)
    if not any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll(0)):
        return False
    _discard_output(output)
    return True


def _discard_output(output: int) -> None:
    """What is still buffered cannot be written: without this, Python would complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)


def main() -> int:
    """Run `./inv`'s arguments against the tasks of the checkout."""
    import tasks  # noqa: PLC0415 - tasks.py is made of this package's parts: it must not be imported while they load

    return LabProgram(tasks.namespace).main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the command lines of the policy tools share: parsing, exit status, and how a failure is told (policy.md 5).

Status 0: done, or verified. 1: anything that fails or does not verify. 2: wrong or missing options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lab import failure_text
from lab.errors import ExitStatus
from lab.policy_tools import failures
from lab.policy_tools.errors import SignerError, ToolError
from migtd import __version__
from migtd.errors import LabFailure
from migtd.policy.errors import PolicyError


class ToolParser(argparse.ArgumentParser):
    """A parser with whole option names only, each given once, and `--version`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.register("action", None, _Once)
        self.register("action", "store", _Once)
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong with the options, and exit with 2."""
        self.exit(int(ExitStatus.USAGE), f"{self.prog}: {message}\nTry: {self.prog} --help\n")


class _Once(argparse.Action):
    """Takes a value, and refuses a second one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given: set[str] = namespace.__dict__.setdefault("_given", set())
        if self.dest in given:
            parser.error(f"{option_string} is given twice")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def run(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    body: Callable[[argparse.Namespace], None],
    purpose: str,
) -> int:
    """Parse and run a tool; its exit status. `purpose` completes `Failed to …`."""
    try:
        options = parser.parse_args(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    try:
        body(options)
        sys.stdout.flush()
    except SystemExit as ended:  # a combination of options that the parser alone does not refuse
        return int(ended.code or 0)
    except LabFailure as failure:
        sys.stderr.write(failure_lines(purpose, failure))
        return int(ExitStatus.NEGATIVE)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return int(ExitStatus.INTERRUPTED)
    return int(ExitStatus.SUCCESS)


def failure_lines(purpose: str, failure: LabFailure) -> str:
    """`Failed to PURPOSE: NAME`, NAME the reference's if it has one, then id, sentence and advice."""
    name = failure.name.name if isinstance(failure, SignerError | PolicyError) else failure.kind.id
    return f"Failed to {purpose}: {name}\n{failure_text.lines(failure)}\n"


def required(value: str | None, option: str) -> str:
    """An option that this use of a tool needs. Raises ToolError (LAB-TOOL-OPTION-MISSING): exit status 1."""
    if value is None:
        raise ToolError(failures.OPTION_MISSING, option)
    return value


def say(text: str) -> None:
    """A line on standard error: what a tool tells besides its output."""
    sys.stderr.write(f"{text}\n")

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A task of the lab: invoke's, with short flags chosen by hand, trailing arguments, and exit statuses.

A task function is typed, returns an `ExitStatus` (or None for success) and raises `TaskError` when it cannot go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from lab import failures
from lab.errors import ExitStatus, UsageError


class LabTask(Task[Callable[..., Any]]):
    """One task.

    `kinds` gives a flag a conversion from its text, which raises ValueError saying what is wrong. `short` gives single
    letters to flags; invoke's own choice would move letters whenever a flag is added. `trailing` names the parameter
    that takes every argument which is no flag, as in `./inv conform FILE...`; `form` is how help shows these arguments
    where it is not just the name.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *,
        kinds: Mapping[str, Callable[[str], Any]] | None = None,
        short: Mapping[str, str] | None = None,
        trailing: str | None = None,
        form: str | None = None,
        **options: Any,
    ) -> None:
        iterable = [*options.pop("iterable", ()), *([trailing] if trailing else [])]
        super().__init__(body, auto_shortflags=False, iterable=iterable, **options)
        self.kinds = dict(kinds or {})
        self.short = dict(short or {})
        self.trailing = trailing
        self.form = form or f"{trailing.upper()}..." if trailing else ""

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        """Add the short name and the conversion, if they were chosen."""
        options = super().arg_opts(name, default, taken_names)
        if name in self.kinds:
            options["kind"] = self.kinds[name]
        if name in self.short:
            options["names"].append(self.short[name])
        return options

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:  # noqa: FBT001 - invoke's
        """Keep the help texts: invoke hands them out once only."""
        texts = dict(self.help)
        try:
            return super().get_arguments(ignore_unknown_help)
        finally:
            self.help = texts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it. A status other than success ends the program with it: tasks named after this one do not run."""
        status: Any = super().__call__(*args, **kwargs)
        if isinstance(status, ExitStatus) and status is not ExitStatus.SUCCESS:
            raise Exit(code=int(status))
        return status


def task(**options: Any) -> Callable[[Callable[..., Any]], LabTask]:
    """Make a `LabTask` of a function; the options are `LabTask`'s and invoke's."""

    def make(body: Callable[..., Any]) -> LabTask:
        return LabTask(body, **options)

    return make


def whole_number(text: str) -> int:
    """A count: 0 to 999999, in decimal digits. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"{text[:40]!r} is no whole number from 0 to 999999")
    return int(text)


def policy_version_number(text: str) -> int:
    """A version of migration policies: 1 or 2. Raises ValueError."""
    if text not in {"1", "2"}:
        raise ValueError(f"{text[:40]!r} is no policy version; there are 1 and 2")
    return int(text)


def seconds(text: str) -> float:
    """A waiting time: more than 0, up to a day. Raises ValueError."""
    trouble = ValueError(f"{text[:40]!r} is no number of seconds between 0 and {_DAY}")
    try:
        value = float(text)
    except ValueError:
        raise trouble from None
    if not 0 < value <= _DAY:
        raise trouble
    return value


def at_most_one(values: Sequence[str] | None, name: str) -> str | None:
    """The only trailing argument of a task that takes one, or None. Raises UsageError (LAB-USAGE-VALUE-INVALID)."""
    if values and len(values) > 1:
        raise UsageError(failures.USAGE_VALUE_INVALID, f"one {name.upper()} at most, not {' and '.join(values)}")
    return values[0] if values else None


def exactly_one(values: Sequence[str] | None, name: str) -> str:
    """The only trailing argument of a task. Raises UsageError (LAB-USAGE-VALUE-MISSING, LAB-USAGE-VALUE-INVALID)."""
    value = at_most_one(values, name)
    if not value:
        raise UsageError(failures.USAGE_VALUE_MISSING, name.upper())
    return value


_MOST_DIGITS = 6
_DAY = 86400

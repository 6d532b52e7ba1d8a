# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What is wrong with a command line, in our words: invoke's parse errors become failures with ids.

Invoke tells its errors apart by their text alone. The texts are matched here and pinned by tests; one that is not
known still becomes a usage failure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser.context import ParserContext

from lab import failures
from lab.errors import UsageError
from lab.task import LabTask

_UNKNOWN = re.compile(r"No idea what '(?P<token>.*)' is!", re.DOTALL)
_FLAG_WITHOUT_VALUE = re.compile(r"Flag <Argument: (?P<flag>\S+).*> needed value and was not given one!")
_POSITIONAL = re.compile(r"'(?P<task>.+)' did not receive required positional arguments: (?P<names>.+)")


def explain(error: ParseError, collection: Collection) -> UsageError:
    """Say which id an invoke parse error is, with the nearest task or flag that exists."""
    text = str(error)
    task = error.context.name if error.context else None
    if unknown := _UNKNOWN.fullmatch(text):
        return _unknown_token(unknown["token"], error.context, collection)
    if flag := _FLAG_WITHOUT_VALUE.fullmatch(text):
        where = f"{task} " if task else ""
        return UsageError(failures.USAGE_VALUE_MISSING, f"{where}--{flag['flag'].rstrip(',').replace('_', '-')}")
    if positional := _POSITIONAL.fullmatch(text):
        return UsageError(failures.USAGE_VALUE_MISSING, f"{positional['task']} needs {positional['names']}")
    return UsageError(failures.USAGE_UNREADABLE, text)


def split_trailing(tokens: Sequence[str], collection: Collection) -> tuple[list[str], list[str]]:
    """Separate the trailing arguments of the first task, if it takes such, from what invoke can parse.

    The value of a flag stays with its flag. Tasks cannot be chained behind one with trailing arguments.
    """
    task = collection[tokens[0]] if tokens and tokens[0] in collection.task_names else None
    if not (isinstance(task, LabTask) and task.trailing):
        return list(tokens), []
    flags = ParserContext(args=task.get_arguments()).flags
    kept, trailing = [tokens[0]], []
    rest = iter(tokens[1:])
    for token in rest:
        if token.startswith("-"):
            kept.append(token)
            if token in flags and flags[token].takes_value:
                kept.extend(value for value in [next(rest, None)] if value is not None)
        else:
            trailing.append(token)
    return kept, trailing


def _unknown_token(token: str, context: ParserContext | None, collection: Collection) -> UsageError:
    task = context.name if context else None
    if token.startswith("-"):
        known = [*context.flags, *context.inverse_flags] if context else []
        where = f"{task} {token}" if task else token
        return UsageError(failures.USAGE_UNKNOWN_FLAG, where + _nearest(token, known))
    names = list(collection.task_names)
    after = f" (after {task}, which takes no such argument)" if task else ""
    return UsageError(failures.USAGE_UNKNOWN_TASK, token + after + _nearest(token, names))


def _nearest(token: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(token, list(known), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""

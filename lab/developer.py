# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`check` and `test`: what a contributor and CI run. The tools are those of the lock, in `.venv`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import failures
from lab.errors import ExitStatus, TaskError, UsageError
from lab.names import checkout_path

CHECKS: Mapping[str, tuple[str, ...]] = {
    "format": ("ruff", "format", "--check", "--quiet", "."),
    "lint": ("ruff", "check", "--quiet", "."),
    "types": ("mypy",),
}
"""Name of each check and its module with arguments, run in the checkout's folder."""

_PYTEST_STATUS = {0: ExitStatus.SUCCESS, 1: ExitStatus.NEGATIVE, 2: ExitStatus.NEGATIVE, 4: ExitStatus.USAGE}
"""2 is what pytest answers when test files cannot be collected; 3 and others are troubles of pytest itself."""
_PYTEST_NO_TESTS = 5
_ALONE = ("soak", "exhaustive", "parity")
"""Markers whose tests can be run by themselves."""
_SHOWN = ("soak", "exhaustive")
"""Those that are not captured: people see how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PytestOptions:
    """`test`: which tests, and what to make of them."""

    junit: Path | None = None
    """File for JUnit XML, relative to the user's folder."""
    select: str | None = None
    """pytest's -k."""
    unit: bool = False
    """Leave out the tests that start MigTDs, hosts or containers."""
    soak: bool = False
    """Run the tests that take minutes, and only these; all others leave them out (marker `soak`)."""
    exhaustive: bool = False
    """Run the tests that try all of what others sample, and only these (marker `exhaustive`)."""
    parity: bool = False
    """Run what the reference runs in its CI, and only this, and show a table (marker `parity`; also in a whole run)."""
    require_engines: bool = False
    """A skipped test is a failure, except where ../shared is absent."""


def run_checks() -> ExitStatus:
    """Run every check, each told by name with its time; negative if one failed. Raises TaskError (LAB-TOOL-MISSING)."""
    failed = []
    for name, (module, *arguments) in CHECKS.items():
        started = time.monotonic()
        done = subprocess.run(
            _command(module, arguments), cwd=checkout_path(), check=False, capture_output=True, text=True
        )
        passed = done.returncode == 0
        print(f"{name:8} {'ok' if passed else 'FAILED':6} {time.monotonic() - started:6.1f} s", flush=True)  # noqa: T201
        if not passed:
            failed.append(name)
            print((done.stdout + done.stderr).rstrip(), flush=True)  # noqa: T201 - as above: a task talks
    if failed:
        print(f"failed: {', '.join(failed)}")  # noqa: T201 - as above
        return ExitStatus.NEGATIVE
    return ExitStatus.SUCCESS


def run_tests(options: PytestOptions, environ: Mapping[str, str]) -> ExitStatus:
    """Run pytest; its output is the task's. `CI=true` in `environ` requires the engines, as the option does.

    Negative if a test failed or none ran. Raises TaskError (LAB-TOOL-MISSING) and what `pytest_command` raises.
    """
    done = subprocess.run(pytest_command(options, environ), cwd=checkout_path(), check=False)
    if done.returncode == _PYTEST_NO_TESTS:
        return ExitStatus.NEGATIVE
    return _PYTEST_STATUS.get(done.returncode, ExitStatus.LAB)


def pytest_command(options: PytestOptions, environ: Mapping[str, str]) -> list[str]:
    """The command that `run_tests` runs.

    Raises UsageError (LAB-USAGE-VALUE-INVALID) for more than one of `unit`, `soak`, `exhaustive` and `parity`.
    """
    arguments = []
    if options.junit:
        arguments.append(f"--junit-xml={os.path.abspath(options.junit)}")  # noqa: PTH100 - the user's folder, links kept
    if options.select:
        arguments += ["-k", options.select]
    asked = [name for name in ("unit", *_ALONE) if getattr(options, name)]
    if len(asked) > 1:
        flags = " and ".join(f"--{name}" for name in asked)
        raise UsageError(failures.USAGE_VALUE_INVALID, f"{flags}; each chooses tests by itself")
    if options.unit:
        arguments += ["-m", "not docker and not engine"]
    for name in _ALONE:
        if name in asked:
            arguments += ["-m", name, *(("--capture=no",) if name in _SHOWN else ())]
    if options.require_engines or environ.get("CI") == "true":
        arguments.append("--require-engines")
    return _command("pytest", arguments)


def _command(module: str, arguments: list[str]) -> list[str]:
    if importlib.util.find_spec(module) is None:
        raise TaskError(failures.TOOL_MISSING, module)
    return [sys.executable, "-m", module, *arguments]

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Make `.venv` from the lock: what `./inv` runs when there is none or when it is out of date (design.md, contract 1).

Standard library only, run by the user's own Python. The lock file is copied into `.venv` last: an installation that
was interrupted lacks it and is made again. Several starts at once wait for the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lab import failures
from lab.errors import EngineError, ExitStatus
from lab.failure_text import document, lines
from migtd.errors import LabFailure

PYTHON_VARIABLE = "MIGTD_LAB_PYTHON"
WHEELS_VARIABLE = "MIGTD_LAB_WHEELS"
SHOWN_LINES_OF_PIP = 15
_STAMP = "requirements.txt"
_MADE_WITH = "made-with"


def is_current(root: Path, chosen_python: str) -> bool:
    """Whether the checkout's `.venv` is complete, matches the lock, and was made with the Python asked for, if any.

    `inv` asks the same in the shell, to save starting Python twice.
    """
    venv = root / ".venv"
    try:
        fits = (venv / _STAMP).read_bytes() == (root / _STAMP).read_bytes()
        made_with = (venv / _MADE_WITH).read_text(encoding="utf-8").rstrip("\n")
    except FileNotFoundError:
        return False
    return fits and (venv / "bin/python").exists() and chosen_python in ("", made_with)


def make(root: Path, environ: Mapping[str, str]) -> None:
    """Make `.venv` anew, unless another start did so while this one waited.

    Raises EngineError with LAB-VENV-MISSING, LAB-WHEELS-MISSING or LAB-INSTALL-FAILED; then there is no `.venv`.
    """
    with _only_one(root / ".cache" / "bootstrap.lock"):
        chosen_python = environ.get(PYTHON_VARIABLE, "")
        if is_current(root, chosen_python):
            return
        source = _package_source(environ.get(WHEELS_VARIABLE, ""))
        if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
            raise EngineError(failures.VENV_MISSING, sys.executable)
        venv = root / ".venv"
        started = time.monotonic()
        _say(f"making .venv with Python {sys.version.split()[0]} (once per lock; about 200 MB)")
        try:
            _remove(venv)
            _run([_interpreter(), "-m", "venv", str(venv)], environ)
            _install(root, source, environ)
            _link_checkout(venv)
            (venv / _MADE_WITH).write_text(f"{chosen_python}\n", encoding="utf-8")
            _copy_last(root / _STAMP, venv / _STAMP)
        except BaseException:
            _remove(venv)
            raise
        _say(f".venv is ready after {time.monotonic() - started:.1f} s")


def main(arguments: Sequence[str], root: Path, environ: Mapping[str, str]) -> int:
    """Make `.venv` and tell a failure as every task does; `arguments` are those of `./inv`, read for `--json` only."""
    try:
        make(root, environ)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except LabFailure as failure:
        return _report(failure, arguments)
    except OSError as error:
        return _report(EngineError(failures.INSTALL_FAILED, str(error)), arguments)
    return ExitStatus.SUCCESS


def _report(failure: LabFailure, arguments: Sequence[str]) -> int:
    sys.stderr.write(lines(failure) + "\n")
    if "--json" in arguments:
        sys.stdout.write(document(failure) + "\n")
    return ExitStatus.LAB


def _say(text: str) -> None:
    sys.stderr.write(f"inv: {text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another start is making .venv; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _package_source(wheels: str) -> list[str]:
    if not wheels:
        return []
    folder = Path(wheels).absolute()
    if not folder.is_dir() or not any(folder.glob("*.whl")):
        raise EngineError(failures.WHEELS_MISSING, str(folder))
    return ["--no-index", "--find-links", str(folder)]


def _interpreter() -> str:
    """The real interpreter below shims, other virtual environments and links without a version.

    `.venv` then breaks visibly, and is made again, when that version of Python goes away.
    """
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def _install(root: Path, source: list[str], environ: Mapping[str, str]) -> None:
    # The lock is complete and hashed: no resolving, no building from source. Where packages come from is pip's own
    # configuration, unless a folder is named.
    _run(
        [
            str(root / ".venv/bin/python"),
            *("-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "--only-binary=:all:"),
            *source,
            *("-r", str(root / _STAMP)),
        ],
        environ,
    )


def _run(command: list[str], environ: Mapping[str, str]) -> None:
    own = {key: value for key, value in environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, env=own, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode:
        told = (done.stdout + done.stderr).strip().splitlines()
        for line in told[-SHOWN_LINES_OF_PIP:]:
            sys.stderr.write(f"  {line}\n")
        errors = [line for line in told if line.startswith("ERROR")]
        reason = errors[0] if errors else f"exit status {done.returncode}"
        raise EngineError(failures.INSTALL_FAILED, reason)


def _link_checkout(venv: Path) -> None:
    """Put the checkout on the path of `.venv`; relative, so that the checkout can be moved."""
    (packages,) = venv.glob("lib/python3*/site-packages")
    relative = os.path.relpath(venv.parent, packages)
    (packages / "migtd_lab_checkout.pth").write_text(f"{relative}\n", encoding="utf-8")


def _copy_last(source: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _remove(venv: Path) -> None:
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        shutil.rmtree(venv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parents[1], os.environ))

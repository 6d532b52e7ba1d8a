# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Names of labs. A lab is found by its name alone: in labels, in folder names and on the command line."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from lab import failures
from lab.errors import UsageError

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def checkout_path() -> Path:
    """The folder of the checkout that this code runs from."""
    return Path(__file__).resolve().parent.parent


def default_lab_name(checkout: Path) -> str:
    """`lab-` and the first 6 hex digits of the SHA-256 of the checkout's absolute path (design.md, contract 1)."""
    return f"lab-{hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:6]}"


def require_lab_name(name: str) -> str:
    """The name itself if it is 1 to 32 of a-z, 0-9 and inner dashes. Raises UsageError (LAB-NAME-INVALID)."""
    if _NAME.fullmatch(name) is None:
        raise UsageError(failures.NAME_INVALID, repr(name[:60]))
    return name


def resolve_lab_name(*candidates: str | None) -> str:
    """The first name that is given, checked; this checkout's default if none is."""
    for name in candidates:
        if name is not None:
            return require_lab_name(name)
    return default_lab_name(checkout_path())

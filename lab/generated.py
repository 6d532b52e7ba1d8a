# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Everything in docs/ that is made from the code. `python -m lab.generated` writes it; a test compares."""

from __future__ import annotations

import sys

from lab.documents import documents
from lab.names import checkout_path
from lab.schemas import schemas


def generated() -> dict[str, str]:
    """The text of each generated file by its path in the checkout."""
    return {**schemas(), **documents()}


def main() -> int:
    """Write every file that differs, saying so."""
    for path, text in generated().items():
        file = checkout_path() / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            sys.stderr.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How a failure is shown: two lines for people, one document for programs (design.md, contract 2).

Standard library only: the bootstrap uses this before anything is installed.
"""

from __future__ import annotations

import json

from migtd.errors import LabFailure


def lines(failure: LabFailure) -> str:
    """`ID: sentence` and, indented below it, the advice. No newline at the end."""
    return f"{failure.kind.id}: {failure}\n  advice: {failure.kind.advice}"


def document(failure: LabFailure) -> str:
    """The failure as one line of JSON: what a task with `--json` prints when there is no outcome."""
    error = {"id": failure.kind.id, "message": str(failure), "advice": failure.kind.advice}
    return json.dumps({"schema": 1, "error": error}, ensure_ascii=False)

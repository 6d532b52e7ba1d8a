# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Generated text in docs/: the table of modes and checks, and the failure catalogue. Tests compare docs with code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lab import failures as lab_failures
from lab.names import checkout_path
from lab.policy_tools import failures as policy_tool_failures
from migtd import failures as migtd_failures
from migtd.attestation.quote import failures as quote_failures
from migtd.checks import ON_REQUEST, POLICY_V2, REBINDING, CheckName
from migtd.choices import REBINDING_SKIPS_OF, SKIPS_OF, V2_SKIPS_OF
from migtd.errors import FailureKind
from migtd.policy import failures as policy_failures
from vmm_stub import failures as vmm_failures

MODES: Final[Mapping[str, Mapping[CheckName, str]]] = SKIPS_OF
"""Each attestation mode of this version with the checks that it cannot make."""

_CATALOGUES: Final = (
    ("The MigTD", migtd_failures.catalogue()),
    ("Quotes and collateral", quote_failures.catalogue()),
    ("Policies", policy_failures.catalogue()),
    ("The emulated host", vmm_failures.catalogue()),
    ("The lab and its tasks", lab_failures.catalogue()),
    ("The policy tools", policy_tool_failures.catalogue()),
)
_BEGIN: Final = "<!-- generated: checks -->"
_END: Final = "<!-- end of generated text -->"


def documents() -> dict[str, str]:
    """The text of each file with generated parts, by its path in the checkout."""
    emulation = "docs/emulation.md"
    present = (checkout_path() / emulation).read_text(encoding="utf-8")
    return {"docs/failures.md": _catalogue(), emulation: _replace(present, _checks())}


def _checks() -> str:
    head = ["check", *MODES]
    rows = [[f"`{check.value}`", *(_cell(check, mode) for mode in MODES)] for check in CheckName]
    return _table(head, rows)


def _cell(check: CheckName, mode: str) -> str:
    skips = MODES[mode]
    if check in POLICY_V2 | REBINDING:
        return _v2_cell(check, mode)
    if check in ON_REQUEST:
        return "made with `--refuse-expired`" if CheckName.QUOTE_PEER not in skips else "there is no collateral"
    return _made_or_skipped(skips.get(check), "made")


def _v2_cell(check: CheckName, mode: str) -> str:
    if check in REBINDING:
        return _made_or_skipped(REBINDING_SKIPS_OF[mode].get(check), "made in a rebinding")
    return _made_or_skipped(V2_SKIPS_OF[mode].get(check), "made with policy v2")


def _made_or_skipped(reason: str | None, made: str) -> str:
    return made if reason is None else f"skipped: {reason.partition(': ')[2] or reason}"


def _catalogue() -> str:
    parts = [
        "# Failures",
        "Every failure has a stable id. This page is generated from the `failures.py` of each package.",
    ]
    for title, kinds in _CATALOGUES:
        parts.append(f"## {title}")
        parts.append(_table(["id", "what is wrong", "what to do"], (_row(kind) for kind in kinds.values())))
    return "\n\n".join(parts) + "\n"


def _row(kind: FailureKind) -> list[str]:
    return [f"`{kind.id}`", kind.summary, kind.advice]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines.extend([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _replace(text: str, generated: str) -> str:
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{generated}\n{_END}{after}"

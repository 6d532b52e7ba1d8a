# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the tasks `policy.*` do beyond the reference's tools: verdicts as JSON, traces, measurement files, documents."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Final

from lab import failures as lab_failures
from lab.errors import ExitStatus, UsageError
from lab.policy_tools import explainer, measurements, servtd, verifier
from lab.policy_tools.explainer import Explained, Side
from lab.policy_tools.files import read_file, write_file
from migtd.policy.errors import PolicyError
from migtd.policy.explain import summarize_all
from migtd.policy.v2.peer import PolicyFiles

SOURCE: Final = "source"
DESTINATION: Final = "destination"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """`policy.explain`: files by name; an issuer chain makes it policy v2. `role` is that of the local side."""

    policy: str
    local: str
    peer: str
    role: str = SOURCE
    local_log: str | None = None
    peer_log: str | None = None
    collateral: str | None = None
    root_ca: str | None = None
    issuer_chain: str | None = None
    peer_policy: str | None = None
    peer_issuer_chain: str | None = None
    json: bool = False


def explain(options: ExplainOptions) -> ExitStatus:
    """Print verdict and trace; NEGATIVE where the peer is refused.

    Raises ToolError (LAB-TOOL-FILE-UNREADABLE, LAB-TOOL-OPTION-MISSING), UsageError (LAB-VALUE-UNKNOWN).
    """
    if options.role not in (SOURCE, DESTINATION):
        raise UsageError(lab_failures.VALUE_UNKNOWN, f"role {options.role[:40]!r}; choose {SOURCE} or {DESTINATION}")
    is_source = options.role == SOURCE
    local, peer = _side(options.local, options.local_log), _side(options.peer, options.peer_log)
    if options.issuer_chain is None:
        explained = explainer.explain_v1(
            read_file(options.policy),
            local,
            peer,
            is_source=is_source,
            collateral=_content(options.collateral),
            root_ca=_content(options.root_ca),
        )
    else:
        own = PolicyFiles(read_file(options.policy), read_file(options.issuer_chain))
        other = PolicyFiles(
            _content(options.peer_policy) or own.policy, _content(options.peer_issuer_chain) or own.chain
        )
        explained = explainer.explain_v2(own, other, local, peer, is_source=is_source)
    _show(explained, as_json=options.json)
    return ExitStatus.SUCCESS if explained.error is None else ExitStatus.NEGATIVE


def verify(policy: str, chain: str) -> ExitStatus:
    """Print the verdict of a MigTD on a signed policy, as JSON. Raises ToolError (LAB-TOOL-FILE-UNREADABLE)."""
    files = read_file(policy), read_file(chain)
    try:
        data = verifier.verify(*files).data
    except PolicyError as error:
        told = {"id": error.kind.id, "message": str(error), "advice": error.kind.advice}
        _print({"schema": 1, "verdict": error.name.name, "error": told})
        return ExitStatus.NEGATIVE
    _print({"schema": 1, "verdict": "OK", "error": None, "id": data.id, "policySvn": data.policy_svn})
    return ExitStatus.SUCCESS


def from_quote(file: str, output: str | None) -> ExitStatus:
    """Write the measurements in a quote or TDREPORT. Raises ToolError (LAB-TOOL-…)."""
    document = measurements.push_measurements(measurements.pull_measurements(read_file(file)))
    if output is None:
        sys.stdout.write(document.decode() + "\n")
    else:
        write_file(output, document)
    return ExitStatus.SUCCESS


def make_servtd(what: str, measured: str, template: str | None, isvsvn: int | None, output: str) -> ExitStatus:
    """Write an identity or a mapping. Raises ToolError (LAB-TOOL-…, LAB-SERVTD-INVALID), UsageError."""
    makers = {"identity": servtd.identity, "mapping": servtd.mapping}
    if what not in makers:
        detail = f"{what[:40]!r}; choose {', '.join(makers)} or bundle"
        raise UsageError(lab_failures.VALUE_UNKNOWN, detail)
    made = makers[what](read_file(measured), None if template is None else read_file(template), isvsvn)
    write_file(output, made)
    return ExitStatus.SUCCESS


def _show(explained: Explained, *, as_json: bool) -> None:
    if as_json:
        _print(explained.document())
        return
    lines = [*summarize_all(explained.trace), *(f"skipped: {n}: {why}" for n, why in explained.skipped.items())]
    error = explained.error
    if error is not None:
        lines += [f"{error.kind.id}: {error}", f"  advice: {error.kind.advice}"]
    sys.stdout.writelines(f"{line}\n" for line in (*lines, f"verdict: {explained.verdict}"))


def _print(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


def _side(quote: str, log: str | None) -> Side:
    return Side(read_file(quote), _content(log))


def _content(path: str | None) -> bytes:
    return b"" if path is None else read_file(path)

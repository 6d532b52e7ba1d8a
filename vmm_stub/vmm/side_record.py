# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a host learns of one side of a migration while it runs, and the outcome that this makes (design.md, contract 2).

Sans-IO. Phases, checks and reasons come from the guest and are for people; the result comes from ReportStatus, keys and
version from the TDX module. Where they disagree, what the guest says loses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from migtd.checks import Check
from migtd.errors import LabFailure, MigrationResult
from migtd.observer import Phase
from vmm_stub import failures
from vmm_stub.tdx_module.tdcs import TdcsState
from vmm_stub.vmm.control.models import CheckModel, ErrorModel, Fingerprints, SideOutcome
from vmm_stub.vmm.errors import VmmError, error_model

UNKNOWN: Final = "Unknown"
"""Result of a side that was lost."""

_MAX_CHECKS: Final = 64
_MAX_TRACE: Final = 200
_MAX_TEXT: Final = 64 << 10
"""Characters of trace and checks together: a host remembers many migrations, and the guest chooses the texts."""
_PHASES: Final = tuple(Phase)


def finalize_outcome(refusal: LabFailure | None) -> SideOutcome:
    """The outcome of a finalized rebinding, in which no MigTD takes part: `refusal` is the TDX module's, if any."""
    result = MigrationResult.Success if refusal is None else MigrationResult.TdxModuleError
    return SideOutcome(
        result=result.name,
        code=result,
        phase=Phase.DONE if refusal is None else Phase.COMMIT,
        error=None if refusal is None else error_model(refusal),
        key_written=False,
        version=None,
        fingerprints=Fingerprints(),
        checks=[],
        trace=[],
    )


class SideRecord:
    """Collects one side. `monotonic` is in seconds; the record starts when it is made."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._started = self._entered = monotonic()
        self._phase: Phase | None = None
        self._failed_in: Phase | None = None
        self._reached: set[Phase] = set()
        self._phases_ms: dict[Phase, float] = {}
        self._checks: list[CheckModel] = []
        self._guest_failure: ErrorModel | None = None
        self._host_failure: LabFailure | None = None
        self._trace: list[str] = []
        self._room = _MAX_TEXT
        self._duration: float | None = None

    @property
    def phases_ms(self) -> dict[Phase, float]:
        """Milliseconds spent in each phase that was left."""
        return {phase: round(spent, 3) for phase, spent in self._phases_ms.items()}

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds from start to end, None until it ended."""
        return self._duration

    def trace(self, text: str) -> None:
        """Add one line for people, while there is room."""
        if len(self._trace) < _MAX_TRACE:
            line = self._fitting(f"+{self._monotonic() - self._started:.3f} s  {text}")
            if line:
                self._trace.append(line)

    def phase(self, phase: Phase) -> None:
        """The guest entered a phase."""
        self._leave()
        self._phase = phase
        self._reached.add(phase)
        self.trace(f"phase {phase.value}")

    def check(self, check: Check) -> None:
        """The guest made a check, or left it out."""
        if len(self._checks) < _MAX_CHECKS:
            detail = self._fitting(check.detail)
            self._checks.append(CheckModel(name=check.name, status=check.status, detail=detail))
        detail = f": {check.detail}" if check.detail else ""
        self.trace(f"check {check.name.value} {check.status.value}{detail}")
        for line in check.explain:
            self.trace(f"  {line}")

    def guest_failed(self, error: ErrorModel) -> None:
        """The guest says why the request will fail. The first reason is kept."""
        self._failed_in = self._failed_in or self._phase
        self._guest_failure = self._guest_failure or error
        self.trace(f"{error.id}: {error.message}")

    def host_failed(self, error: LabFailure) -> None:
        """The host knows a cause of its own, such as a transport that could not be opened. The first is kept."""
        self._host_failure = self._host_failure or error
        self.trace(f"{error.kind.id}: {error}")

    def reported(self, result: MigrationResult, before: TdcsState | None, after: TdcsState | None) -> SideOutcome:
        """The outcome of a request that its MigTD reported; `before` and `after` are looks at the target TD."""
        self.trace(f"ReportStatus {result.name}")
        self._stop()
        if result is MigrationResult.Success:
            return self._outcome(result.name, result, Phase.DONE, None, before, after)
        error = self._guest_failure
        if self._host_failure is not None:
            error = error_model(self._host_failure)
        elif error is None:
            error = error_model(VmmError(failures.REPORTED_WITHOUT_REASON, result.name))
        return self._outcome(result.name, result, self._last_phase(), error, before, after)

    def lost(self, error: LabFailure, before: TdcsState | None, after: TdcsState | None) -> SideOutcome:
        """The outcome of a request whose end nobody reported."""
        self.trace(f"{error.kind.id}: {error}")
        self._stop()
        return self._outcome(UNKNOWN, None, self._last_phase(), error_model(error), before, after)

    def _last_phase(self) -> Phase:
        """Where a request that was no success ended: never DONE, whatever the guest says."""
        last = self._failed_in or self._phase
        if last is Phase.DONE:
            last = max(self._reached - {Phase.DONE}, key=_PHASES.index, default=None)
        return last or Phase.ACCEPTED

    def _fitting(self, text: str) -> str:
        """As much of `text` as there is room for."""
        fitting = text[: self._room]
        self._room -= len(fitting)
        return fitting

    def _leave(self) -> None:
        now = self._monotonic()
        if self._phase is not None:
            self._phases_ms[self._phase] = self._phases_ms.get(self._phase, 0.0) + (now - self._entered) * 1000
        self._entered = now

    def _stop(self) -> None:
        if self._phase is not Phase.DONE:
            self._leave()
        self._duration = round((self._monotonic() - self._started) * 1000, 3)

    def _outcome(
        self,
        result: str,
        code: int | None,
        phase: Phase,
        error: ErrorModel | None,
        before: TdcsState | None,
        after: TdcsState | None,
    ) -> SideOutcome:
        key_written = version_written = False
        fingerprints = Fingerprints()
        if before is not None and after is not None:
            key_written = after.dec_key_writes > before.dec_key_writes
            version_written = after.mig_version_writes > before.mig_version_writes
            sent = key_written or code == 0 or bool(self._reached & {Phase.EXCHANGE, Phase.COMMIT, Phase.DONE})
            fingerprints = Fingerprints(
                sent=after.enc_key_fingerprint if sent else None,
                received=after.dec_key_fingerprint if key_written else None,
            )
        return SideOutcome(
            result=result,
            code=code,
            phase=phase,
            error=error,
            key_written=key_written,
            version=after.mig_version if version_written and after is not None else None,
            fingerprints=fingerprints,
            checks=self._checks,
            trace=self._trace,
        )

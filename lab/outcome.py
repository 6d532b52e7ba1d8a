# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The outcome of one migration as a document (design.md, contract 2). Stable and versioned; schema in docs/."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from migtd.errors import LabFailure
from migtd.observer import Phase
from vmm_stub.vmm.control.models import (
    ErrorModel,
    Fingerprints,
    MigrationModel,
    Model,
    RebindFinalizeModel,
    SessionOperation,
    SideOutcome,
)


class SidePhases(Model):
    """Milliseconds per phase of each side; null for a side that is not ours."""

    source: dict[Phase, float] | None = None
    destination: dict[Phase, float] | None = None


class Outcome(Model):
    """Both sides of one migration. `source` or `destination` is null where that side is not ours.

    In `rebind-prepare` the source is the old MigTD, the destination the new one; no key crosses, `msk_match` is null.
    `rebind-finalize` has only a destination: the new MigTD, which has no part in it.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    lab: str
    engine: str
    attestation: str
    session: str
    transport: str
    request_id: int
    operation: Literal["migration", "rebind-prepare", "rebind-finalize"] = "migration"
    duration_ms: float
    success: bool
    msk_match: bool | None
    policy_version: int
    phases_ms: SidePhases
    source: SideOutcome | None
    destination: SideOutcome | None


class Failure(Model):
    """What is printed instead when no migration was started."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    error: ErrorModel


def msk_match(source: SideOutcome | None, destination: SideOutcome | None) -> bool | None:
    """Whether each side received what the other sent; None unless both sides are ours and both wrote a key."""
    if source is None or destination is None or not (source.key_written and destination.key_written):
        return None
    forward = source.fingerprints.sent == destination.fingerprints.received
    backward = destination.fingerprints.sent == source.fingerprints.received
    return forward and backward


def succeeded(*sides: SideOutcome | None, match: bool | None) -> bool:
    """Success: every side that is ours reported code 0, there is one at all, and the keys do not differ."""
    ours = [side for side in sides if side is not None]
    return bool(ours) and all(side.code == 0 for side in ours) and match is not False


def lost_side(failure: LabFailure) -> SideOutcome:
    """A side of which nothing more can be learnt, and why."""
    return SideOutcome(
        result="Unknown",
        code=None,
        phase=Phase.ACCEPTED,
        error=ErrorModel(id=failure.kind.id, message=str(failure), advice=failure.kind.advice),
        key_written=False,
        version=None,
        fingerprints=Fingerprints(),
        checks=[],
        trace=[f"{failure.kind.id}: {failure}"],
    )


def join(
    source: MigrationModel | None, destination: MigrationModel | None, *, duration_ms: float, **labels: str | int
) -> Outcome:
    """Join what two hosts say of one migration. A side whose host was lost is given with result `Unknown`.

    `labels` are the document's lab, engine, attestation, session, transport, request_id and policy_version.
    """
    ours = source.outcome if source else None
    theirs = destination.outcome if destination else None
    match = msk_match(ours, theirs)
    return Outcome.model_validate(
        {
            **labels,
            "operation": next((side.operation for side in (source, destination) if side), SessionOperation.MIGRATION),
            "duration_ms": round(duration_ms, 3),
            "success": succeeded(ours, theirs, match=match),
            "msk_match": match,
            "phases_ms": SidePhases(
                source=source.phases_ms if source else None,
                destination=destination.phases_ms if destination else None,
            ),
            "source": ours,
            "destination": theirs,
        }
    )


def finalized(rebinding: RebindFinalizeModel, *, duration_ms: float, **labels: str | int) -> Outcome:
    """The outcome of a finalized rebinding; `labels` as for `join`."""
    return Outcome.model_validate(
        {
            **labels,
            "operation": "rebind-finalize",
            "duration_ms": round(duration_ms, 3),
            "success": succeeded(rebinding.outcome, match=None),
            "msk_match": None,
            "phases_ms": SidePhases(),
            "source": None,
            "destination": rebinding.outcome,
        }
    )

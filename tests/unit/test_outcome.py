# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import json

import pytest

from lab.outcome import Outcome, join, msk_match, succeeded
from migtd.observer import Phase
from vmm_stub.vmm.control.models import Fingerprints, MigrationModel, MigrationState, Role, SideOutcome

LABELS: dict[str, str | int] = {
    "lab": "lab-1a2b3c",
    "engine": "process",
    "attestation": "accept-all",
    "session": "ra-tls",
    "transport": "vmcall-raw",
    "request_id": 7,
    "policy_version": 1,
}


def side(sent: str | None = None, received: str | None = None, *, code: int | None = 0) -> SideOutcome:
    return SideOutcome(
        result="Success" if code == 0 else "Unknown" if code is None else "NetworkError",
        code=code,
        phase=Phase.DONE,
        error=None,
        key_written=received is not None,
        version=1,
        fingerprints=Fingerprints(sent=sent, received=received),
        checks=[],
        trace=[],
    )


def model(role: Role, outcome: SideOutcome | None) -> MigrationModel:
    return MigrationModel(
        migtd="m",
        request_id=7,
        role=role,
        state=MigrationState.ENDED,
        address=None,
        started=0.0,
        duration_ms=1.0,
        phases_ms={Phase.COMMIT: 0.5},
        outcome=outcome,
    )


@pytest.mark.parametrize(
    ("source", "destination", "match"),
    [
        (side("a", "b"), side("b", "a"), True),
        (side("a", "b"), side("b", "x"), False),
        (side("a", "x"), side("b", "a"), False),
        (side("a", None), side("b", "a"), None),
        (side("a", "b"), side("b", None), None),
        (None, side("b", "a"), None),
        (side("a", "b"), None, None),
    ],
)
def test_keys_match_only_if_each_side_has_what_the_other_sent(source, destination, match):
    assert msk_match(source, destination) is match


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (side("a", "b"), side("b", "a"), True),
        (side("a", "b"), side("b", "x"), False),
        (side("a", "b"), side("b", "a", code=5), False),
        (side("a", "b", code=None), side("b", "a"), False),
        (None, side("b", "a"), True),
        (side("a", code=5), None, False),
        (None, None, False),
    ],
)
def test_success_needs_code_zero_of_every_side_that_is_ours(source, destination, expected):
    assert succeeded(source, destination, match=msk_match(source, destination)) is expected


def test_document_has_the_keys_of_the_contract_in_its_order():
    outcome = join(
        model(Role.SOURCE, side("a", "b")), model(Role.DESTINATION, side("b", "a")), duration_ms=12.34567, **LABELS
    )

    document = json.loads(outcome.model_dump_json(by_alias=True))

    assert list(document) == [
        *("schema", "lab", "engine", "attestation", "session", "transport", "request_id", "operation", "duration_ms"),
        *("success", "msk_match", "policy_version", "phases_ms", "source", "destination"),
    ]
    assert list(document["source"]) == [
        *("result", "code", "phase", "error", "key_written", "version", "fingerprints", "checks", "trace"),
    ]
    assert document["schema"] == 1
    assert document["duration_ms"] == 12.346
    assert document["phases_ms"] == {"source": {"commit": 0.5}, "destination": {"commit": 0.5}}
    assert Outcome.model_validate(document) == outcome


def test_side_that_is_not_ours_is_null():
    outcome = join(None, model(Role.DESTINATION, side("b", "a")), duration_ms=1, **LABELS)

    assert outcome.source is None
    assert outcome.phases_ms.source is None
    assert outcome.success
    assert outcome.msk_match is None

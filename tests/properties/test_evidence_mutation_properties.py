# SPDX-License-Identifier: BSD-2-Clause-Patent
"""No change of a byte of evidence makes a judge believe something else: a few changes each run, all by request.

What may be accepted, and why, is written in `evidence_mutations.py`. `./inv test --exhaustive` takes some minutes.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.attestation.mode import AttestationMode
from migtd.errors import MigrationResult
from migtd.ratls.testing import ConnectionPair
from tests.properties.evidence_mutations import IN_PLACE, SUBJECTS, Mutation, Subject, subjects
from tests.unit.policy_v1_sessions import end, meet, showing_log, showing_quote

Change = Callable[[bytes], bytes]


@functools.cache
def subject_of(name: str) -> Subject:
    return subjects()[name]


@pytest.mark.parametrize("name", SUBJECTS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_refused_with_its_code_or_changes_no_decoded_value(name: str, data: st.DataObject):
    subject = subject_of(name)
    kind, value = data.draw(st.sampled_from(subject.ways))

    subject.refused(Mutation(kind, data.draw(st.integers(0, len(subject.original) - 1)), value))


@pytest.mark.parametrize("name", SUBJECTS)
def test_unchanged_evidence_is_accepted(name: str):
    subject = subject_of(name)

    assert subject.judge(subject.original)


CHANGED: dict[str, tuple[Callable[[AttestationMode, Change], AttestationMode], int]] = {
    "quote": (showing_quote, MigrationResult.MutualAttestationError),
    "event log": (showing_log, MigrationResult.PolicyUnsatisfiedError),
}


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("by_source", [True, False], ids=["by-source", "by-destination"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_session_with_a_changed_byte_ends_without_a_key_or_as_if_nothing_were_changed(
    name: str, *, by_source: bool, data: st.DataObject
):
    showing, result = CHANGED[name]
    kind, value = data.draw(st.sampled_from(IN_PLACE))
    at = data.draw(st.integers(0, len(subject_of(name).original) - 1))

    async def session() -> ConnectionPair:
        shown = showing(end(), lambda evidence: Mutation(kind, at % len(evidence), value).apply(evidence))
        return await (meet(end(), shown) if by_source else meet(shown, end()))

    pair = asyncio.run(session())
    judge, other = (pair.source, pair.destination) if by_source else (pair.destination, pair.source)
    if judge.error is None:
        assert other.error is None
        assert judge.information is not None
        return
    assert other.error is not None
    assert (judge.error.result, other.error.result) == (result, MigrationResult.SecureSessionError)
    assert (judge.information, other.information) == (None, None)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_changed_byte_is_refused_with_its_code_or_changes_no_decoded_value(name: str):
    subject = subject_of(name)
    made, accepted = 0, []
    for mutation in subject.mutations():
        made += 1
        if not subject.refused(mutation):
            accepted.append(mutation)
    for mutation in subject.more(accepted):
        made += 1
        if not subject.refused(mutation):
            accepted.append(mutation)

    ways = ", ".join(f"{kind.name.lower()} {count}" for kind, count in Counter(each.kind for each in accepted).items())
    bytes_changed = len({each.at for each in accepted})
    sys.stdout.write(f"exhaustive: {name}: {made} changes of {len(subject.original)} bytes, accepted {len(accepted)}")
    sys.stdout.write(f" at {bytes_changed} bytes ({ways or 'none'})\n")
    assert made >= 12 * len(subject.original)

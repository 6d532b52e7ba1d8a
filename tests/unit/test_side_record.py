# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The record of one side: whom it believes, what it measures, and that it stays small."""

import pytest

from migtd.checks import Check, CheckName, CheckStatus
from migtd.errors import LabFailure, MigrationResult
from migtd.guest.interfaces import TargetTd
from migtd.observer import Phase
from vmm_stub import failures
from vmm_stub.tdx_module.tdcs import TdcsState
from vmm_stub.vmm.control.models import ErrorModel
from vmm_stub.vmm.side_record import SideRecord

REASON = ErrorModel(id="MIGTD-DEADLINE-READ", message="nothing came", advice="look at the peer")


class Clock:
    """Seconds that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def record(clock):
    return SideRecord(clock)


def look(dec_key_writes=0, version_writes=0):
    return TdcsState(
        target=TargetTd(1, (2, 3, 4, 5)),
        service_td="migtd",
        servtd_attr=0,
        enc_key_fingerprint="e" * 16,
        dec_key_fingerprint="d" * 16 if dec_key_writes else None,
        dec_key_writes=dec_key_writes,
        mig_version=7 if version_writes else None,
        mig_version_writes=version_writes,
    )


def enter(record, clock, *steps):
    for phase, seconds in steps:
        record.phase(phase)
        clock.now += seconds


def test_phases_and_duration_are_measured_in_milliseconds(record, clock):
    clock.now += 0.5
    enter(record, clock, (Phase.ACCEPTED, 0.001), (Phase.HANDSHAKE, 0.02), (Phase.EXCHANGE, 0.003), (Phase.COMMIT, 1.0))
    assert record.duration_ms is None
    record.phase(Phase.DONE)
    clock.now += 0.25
    record.reported(MigrationResult.Success, look(), look(1, 1))
    assert record.phases_ms == {
        Phase.ACCEPTED: 1.0,
        Phase.HANDSHAKE: 20.0,
        Phase.EXCHANGE: 3.0,
        Phase.COMMIT: 1000.0,
    }
    assert record.duration_ms == 1774.0


def test_the_phase_in_which_a_side_ended_counts_up_to_the_end(record, clock):
    enter(record, clock, (Phase.ACCEPTED, 0.001), (Phase.HANDSHAKE, 0.5))
    record.lost(LabFailure(failures.MIGTD_GONE), None, None)
    assert record.phases_ms == {Phase.ACCEPTED: 1.0, Phase.HANDSHAKE: 500.0}


def test_a_phase_that_is_entered_twice_is_summed(record, clock):
    enter(record, clock, (Phase.HANDSHAKE, 0.1), (Phase.EXCHANGE, 0.2), (Phase.HANDSHAKE, 0.3), (Phase.COMMIT, 0.0))
    assert record.phases_ms[Phase.HANDSHAKE] == 400.0


def test_success_wins_over_a_failure_that_the_guest_told(record):
    record.phase(Phase.HANDSHAKE)
    record.guest_failed(REASON)
    outcome = record.reported(MigrationResult.Success, look(), look(1, 1))
    assert (outcome.result, outcome.code, outcome.phase, outcome.error) == ("Success", 0, Phase.DONE, None)


def test_failure_wins_over_a_guest_that_says_done(record, clock):
    enter(record, clock, (Phase.ACCEPTED, 0), (Phase.HANDSHAKE, 0), (Phase.EXCHANGE, 0), (Phase.DONE, 0))
    outcome = record.reported(MigrationResult.PolicyUnsatisfiedError, look(), look())
    assert (outcome.result, outcome.code, outcome.phase) == ("PolicyUnsatisfiedError", 8, Phase.EXCHANGE)
    assert outcome.error is not None
    assert outcome.error.id == "VMM-REPORTED-WITHOUT-REASON"


def test_a_guest_that_only_says_done_was_never_further_than_accepted(record):
    record.phase(Phase.DONE)
    assert record.lost(LabFailure(failures.MIGTD_GONE), None, None).phase is Phase.ACCEPTED


def test_the_first_reason_and_its_phase_stand(record):
    record.phase(Phase.HANDSHAKE)
    record.guest_failed(REASON)
    record.phase(Phase.COMMIT)
    record.guest_failed(REASON.model_copy(update={"id": "MIGTD-OTHER"}))
    outcome = record.reported(MigrationResult.NetworkError, look(), look())
    assert (outcome.phase, outcome.error) == (Phase.HANDSHAKE, REASON)


def test_what_the_host_knows_itself_wins_over_the_guests_reason(record):
    record.guest_failed(REASON)
    record.host_failed(LabFailure(failures.WIRE_CONNECT, "127.0.0.1:1"))
    outcome = record.reported(MigrationResult.InvalidParameter, look(), look())
    assert outcome.error is not None
    assert outcome.error.id == "VMM-WIRE-CONNECT"
    assert "127.0.0.1:1" in outcome.error.message


def test_a_lost_side_has_no_code_and_the_loss_as_its_reason(record):
    record.phase(Phase.EXCHANGE)
    record.guest_failed(REASON)
    outcome = record.lost(LabFailure(failures.MIGTD_SILENT, "185 s"), look(), look(1))
    assert (outcome.result, outcome.code, outcome.phase) == ("Unknown", None, Phase.EXCHANGE)
    assert outcome.error is not None
    assert outcome.error.id == "VMM-MIGTD-SILENT"
    # the keys had been sent: it tells what was written
    assert (outcome.key_written, outcome.fingerprints.sent, outcome.fingerprints.received) == (True, "e" * 16, "d" * 16)


@pytest.mark.parametrize(
    ("before", "after", "written", "version", "received"),
    [
        (look(), look(1, 1), True, 7, "d" * 16),
        (look(1, 1), look(2, 2), True, 7, "d" * 16),
        (look(1, 1), look(1, 1), False, None, None),
        (look(), look(1, 0), True, None, "d" * 16),
        (None, None, False, None, None),
        (look(), None, False, None, None),
    ],
    ids=["first", "again", "not-this-time", "key-only", "no-target", "target-gone"],
)
def test_keys_and_version_come_from_two_looks_at_the_target_td(record, before, after, written, version, received):
    outcome = record.reported(MigrationResult.NetworkError, before, after)
    assert (outcome.key_written, outcome.version, outcome.fingerprints.received) == (written, version, received)


@pytest.mark.parametrize(
    ("phase", "sent"), [(Phase.HANDSHAKE, None), (Phase.EXCHANGE, "e" * 16), (Phase.COMMIT, "e" * 16)]
)
def test_a_key_counts_as_sent_once_the_exchange_began(record, phase, sent):
    record.phase(phase)
    assert record.reported(MigrationResult.NetworkError, look(), look()).fingerprints.sent == sent


def test_trace_lines_carry_the_time_since_the_start(record, clock):
    clock.now += 1.5
    record.trace("something")
    outcome = record.reported(MigrationResult.Success, None, None)
    assert outcome.trace == ["+1.500 s  something", "+1.500 s  ReportStatus Success"]


def test_the_parts_of_a_check_are_lines_of_the_trace(record):
    record.check(Check(CheckName.POLICY, CheckStatus.FAILED, "not met", ("met: one", "not met: two")))
    outcome = record.reported(MigrationResult.PolicyUnsatisfiedError, None, None)
    assert [line.partition("s  ")[2] for line in outcome.trace[:3]] == [
        "check policy failed: not met",
        "  met: one",
        "  not met: two",
    ]


def test_a_guest_that_talks_without_end_fills_no_memory(record):
    for number in range(5000):
        record.check(Check(CheckName.VERSIONS, CheckStatus.PASSED, f"{number} " + "x" * 2000))
        record.trace("y" * 2000)
        record.phase(Phase.HANDSHAKE)
    outcome = record.reported(MigrationResult.Success, None, None)
    assert len(outcome.model_dump_json()) < 100_000
    assert outcome.checks[0].detail.startswith("0 x")

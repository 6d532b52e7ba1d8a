# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How a MigTD with policy v2 starts: what it measures, what it verifies, and why it does not start (policy.md 3.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from migtd import event_log, failures
from migtd.attestation.policy_v1 import PolicyV1
from migtd.attestation.policy_v2 import PolicyV2
from migtd.errors import InitializationError, InvalidPolicyError, TdxModuleError
from migtd.event_log import EventName
from migtd.guest.configuration import GivenConfiguration
from migtd.guest.interfaces import Guest
from migtd.migration.rebinding import own_tdinfo
from migtd.policy.failures import KINDS, PolicyErrorName
from migtd.policy.v2.peer import PolicyFiles, push_peer_data
from tests.unit import policy_v1_sessions
from tests.unit.policy_v2_sessions import LAB_WORLD, captured_end, end
from vmm_stub.testing_quoting import PKI, machine

FILES = LAB_WORLD.files()


class Kept:
    """Keeps the guest of a start that may fail; `configuration` replaces its volume."""

    guest: Guest

    def __init__(self, configuration: GivenConfiguration | None = None) -> None:
        self._configuration = configuration

    def __call__(self, guest: Guest) -> Guest:
        self.guest = replace(guest, configuration=self._configuration or guest.configuration)
        return self.guest


def measured(guest: Guest) -> list[tuple[int, int]]:
    """Tag and register of each event that MigTD itself logged."""
    assert guest.event_log is not None
    return [
        (int.from_bytes(each.data[:4], "little"), each.mr_index)
        for each in event_log.read_events(event_log.for_sending(guest.event_log))
        if each.type == event_log.EV_EVENT_TAG
    ]


async def test_issuer_chain_then_policy_are_measured_and_the_log_explains_the_registers():
    kept = Kept()
    started = end(platform=kept)

    assert measured(kept.guest) == [(3, 2), (1, 3)]
    assert kept.guest.event_log is not None
    log = event_log.for_sending(kept.guest.event_log)
    tdinfo = own_tdinfo(kept.guest.tdcall)
    assert b"".join(event_log.replay(log)) == tdinfo[208:400]
    assert EventName.MigTdPolicySigner in event_log.parse_events(log)
    assert FILES.chain in log
    assert FILES.policy not in log
    assert started.mode.peer_data == push_peer_data(FILES)


async def test_the_issuer_chain_chooses_the_policy_version():
    assert isinstance(end().mode, PolicyV2)
    assert isinstance(policy_v1_sessions.end(), PolicyV1)


def started_with(configuration: GivenConfiguration) -> Kept:
    kept = Kept(configuration)
    with pytest.raises(InvalidPolicyError) as refused:
        end(platform=kept)
    kept.error = refused.value  # type: ignore[attr-defined] # for the test that reads it
    return kept


@pytest.mark.parametrize(
    ("policy", "chain", "missing"), [(b"", FILES.chain, "policy"), (FILES.policy, b"", "policy issuer chain")]
)
async def test_without_policy_or_chain_there_is_no_start(policy, chain, missing):
    kept: Any = started_with(GivenConfiguration(policy, PKI.root_ca, chain))

    assert (kept.error.kind, kept.error.detail) == (failures.CONFIGURATION_MISSING, missing)
    assert measured(kept.guest) == []


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda text: text[:-1], PolicyErrorName.InvalidPolicy),
        (lambda text: text.replace(b'"policySvn":4', b'"policySvn":5'), PolicyErrorName.SignatureVerificationFailed),
    ],
    ids=["cut", "changed"],
)
async def test_a_policy_that_does_not_verify_is_no_start_and_is_not_measured(spoil, name):
    kept: Any = started_with(GivenConfiguration(spoil(FILES.policy), given_policy_issuer_chain=FILES.chain))

    assert kept.error.kind is KINDS[name]
    assert measured(kept.guest) == [(3, 2)]


async def test_a_policy_that_no_peer_would_take_is_no_start():
    large = FILES.policy + b" " * (1 << 20)

    kept: Any = started_with(GivenConfiguration(large, given_policy_issuer_chain=FILES.chain))

    assert kept.error.kind is failures.PEER_DATA_TOO_LARGE


async def test_a_large_policy_starts_for_only_its_version_is_logged():
    large = PolicyFiles(FILES.policy + b" " * 900_000, FILES.chain)

    assert end(files=large).mode.peer_data == push_peer_data(large)


async def test_a_chain_that_no_certificate_can_carry_is_no_start():
    chain = FILES.chain + b"\n# " + b"x" * 60_000

    kept: Any = started_with(GivenConfiguration(FILES.policy, given_policy_issuer_chain=chain))

    assert kept.error.kind is failures.POLICY_TOO_LARGE


@pytest.mark.parametrize(
    ("td", "name"),
    [
        ({"mrowner": "00" * 48}, PolicyErrorName.PolicyHashMismatch),
        ({"mrownerconfig": "00" * 48}, PolicyErrorName.SvnMismatch),
        ({"mrownerconfig": "04" + "00" * 46 + "01"}, PolicyErrorName.SvnMismatch),
    ],
    ids=["owner", "svn", "more-than-an-svn"],
)
async def test_a_td_that_was_not_built_for_its_policy_does_not_start(td, name):
    kept = Kept()

    with pytest.raises(InvalidPolicyError) as refused:
        end(platform=kept, **td)

    assert refused.value.kind is KINDS[name]
    assert measured(kept.guest) == [(3, 2)]


async def test_a_captured_td_starts_whatever_its_owner_is():
    assert captured_end(machine().quote(), LAB_WORLD).mode.name == "captured"


async def test_without_an_event_log_there_is_no_start():
    with pytest.raises(InitializationError) as refused:
        end(platform=lambda guest: replace(guest, event_log=None))

    assert refused.value.kind is failures.EVENT_LOG_MISSING


async def test_a_tdx_module_that_makes_no_report_is_no_start():
    def without_reports(guest: Guest) -> Guest:
        return replace(guest, tdcall=NoReports(guest.tdcall))

    with pytest.raises(InitializationError) as refused:
        end(platform=without_reports)

    assert refused.value.kind is failures.TDCALL_FAILED


class NoReports:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def mr_report(self, report_data):  # noqa: ARG002 - whatever it is for
        raise TdxModuleError(failures.TDCALL_FAILED, "TDG.MR.REPORT")

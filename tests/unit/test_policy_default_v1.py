# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The default policy v1 of the lab: equal MigTDs on equal platforms meet it, and what it refuses."""

from __future__ import annotations

import pytest

from lab.policies import default_v1
from migtd.event_log import EventName, NamedEvent
from migtd.policy.v1 import parse_policy
from tests.unit.policy_v1_evidence import EVENTS, RECORD, evaluated, patched

POLICY = default_v1()
OTHER = NamedEvent(bytes(48))


def flipped(offset):
    return patched(offset, f"{RECORD[offset] ^ 1:02x}")


@pytest.mark.parametrize("is_source", [True, False])
def test_two_equal_migtds_meet_it(is_source):
    assert evaluated(POLICY, is_source=is_source).verdict == "OK"


@pytest.mark.parametrize("is_source", [True, False])
@pytest.mark.parametrize(
    ("offset", "verdict"),
    [
        (584, "PlatformNotMatch"),
        (64, "UnqualifiedTdxModuleInfo"),  # MRSIGNERSEAM
        (112, "UnqualifiedTdxModuleInfo"),  # SEAM attributes
        (624, "UnqualifiedTdxModuleInfo"),  # module major
        (626, "UnqualifiedQeInfo"),  # MISCSELECT
        (634, "UnqualifiedQeInfo"),  # ATTRIBUTES
        (698, "UnqualifiedQeInfo"),  # MRSIGNER
        (730, "UnqualifiedQeInfo"),  # ISVPRODID
        (120, "UnqualifiedMigTdInfo"),  # debug bit of the TD attributes
        (128, "UnqualifiedMigTdInfo"),  # XFAM
        (136, "UnqualifiedMigTdInfo"),  # MRTD
        (184, "UnqualifiedMigTdInfo"),  # MRCONFIGID
        (232, "UnqualifiedMigTdInfo"),  # MROWNER
        (280, "UnqualifiedMigTdInfo"),  # MROWNERCONFIG
        (328, "UnqualifiedMigTdInfo"),
        (376, "UnqualifiedMigTdInfo"),
        (424, "UnqualifiedMigTdInfo"),
        (472, "UnqualifiedMigTdInfo"),
    ],
)
def test_another_platform_module_enclave_or_migtd_is_refused(offset, verdict, is_source):
    assert evaluated(POLICY, is_source=is_source, peer=flipped(offset)).verdict == verdict


@pytest.mark.parametrize(
    ("start", "size", "verdict"),
    [
        (608, 16, "UnqualifiedPlatformInfo"),  # SGX components
        (606, 2, "UnqualifiedPlatformInfo"),  # PCESVN
        (590, 16, "UnqualifiedPlatformInfo"),  # TDX components
        (625, 1, "UnqualifiedTdxModuleInfo"),  # module SVN
        (732, 2, "UnqualifiedQeInfo"),  # QE ISVSVN
    ],
)
def test_a_migration_may_go_to_a_newer_platform_and_never_to_an_older_one(start, size, verdict):
    old, new = patched(start, "01" * size), patched(start, "02" * size)
    assert evaluated(POLICY, is_source=True, local=old, peer=new).verdict == "OK"
    assert evaluated(POLICY, is_source=False, local=new, peer=old).verdict == "OK"
    assert evaluated(POLICY, is_source=True, local=new, peer=old).verdict == verdict
    assert evaluated(POLICY, is_source=False, local=old, peer=new).verdict == verdict


@pytest.mark.parametrize("event", [EventName.MigTdPolicy, EventName.SgxRootKey])
def test_another_policy_or_root_is_refused(event):
    without = {name: found for name, found in EVENTS.items() if name is not event}
    assert evaluated(POLICY, peer_events={**EVENTS, event: OTHER}).verdict == "UnqualifiedMigTdInfo"
    assert evaluated(POLICY, peer_events=without).verdict == "UnqualifiedMigTdInfo"


def test_it_needs_no_event_but_those_of_policy_and_root():
    events = {name: EVENTS[name] for name in (EventName.MigTdPolicy, EventName.SgxRootKey)}
    assert evaluated(POLICY, local_events=events, peer_events=events).verdict == "OK"


def test_report_data_and_the_module_build_may_differ():
    assert evaluated(POLICY, peer=patched(520, "00" * 64)).verdict == "OK"
    assert evaluated(POLICY, peer=patched(16, "00" * 48)).verdict == "OK"


def test_it_has_one_block_of_each_kind():
    assert sorted(block.kind.value for block in parse_policy(POLICY).blocks) == ["MigTD", "Platform", "QE", "TDXModule"]

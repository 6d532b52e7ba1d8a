# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The scenarios of the reference's CI (ghci-ratls.md 10), on our own pair: all end in success on both sides.

The reference runs most of them with a mock report, which is our mode `captured`; they run in mode `lab` too, where
nothing is left out. Each has exactly the checks skipped that its mode says it cannot make. `./inv test --parity` runs
these alone and shows them as a table. The labs run in this process: all else is what an engine would start.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from lab.evidence import new_pki
from lab.labfile import LabFile
from lab.outcome import Outcome
from lab.plan import ResolvedLab, resolve
from lab.testing_lab import outcomes_in_process
from migtd.attestation.quote.collateral import push_packed
from migtd.checks import CheckName, CheckStatus
from migtd.choices import REBINDING_SKIPS_OF, SKIPS_OF, V2_SKIPS_OF
from migtd.guest.quote_messages import BareReport, CollateralRequest, QuoteRequest, pull_request
from vmm_stub.quoting.captured import CapturedQuoting
from vmm_stub.quoting.interface import Answered
from vmm_stub.quoting.service import LabQuoting
from vmm_stub.testing_quoting import PKI, machine
from vmm_stub.vmm.control.models import SideOutcome

pytestmark = [pytest.mark.engine, pytest.mark.parity]

LAB, CAPTURED, ACCEPT_ALL = "lab", "captured", "accept-all"
BOTH: Final = (LAB, CAPTURED)
SECOND: Final = "second"
"""A key other than the first of its kind; the certificates have the same subject."""
OF_NEW_MIGTD: Final = (CheckName.INITIAL_TDINFO, CheckName.SERVTD_EXT)
"""Checks of a rebinding that the old MigTD does not have."""
COLUMNS: Final = "{:>2}  {:46} {:10}  {:12} {:12} {}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario under the reference's number. `migtd` are keys of both MigTDs, `rotated` signs one side's policy."""

    number: int
    title: str
    modes: tuple[str, ...] = ()
    policy_version: int = 2
    rebinding: bool = False
    migtd: Mapping[str, Any] = field(default_factory=dict)
    fail_first: int = 0
    rotated: Mapping[str, Any] | None = None

    def lab(self) -> LabFile:
        """The lab of the scenario: two hosts and a migration each way, or one host and a rebinding each way."""
        first: dict[str, Any] = dict(self.migtd)
        second = first if self.rotated is None else {**first, "policy_v2": self.rotated}
        lab: dict[str, Any] = {"schema": 1, "policy_version": self.policy_version}
        if self.rebinding:
            lab["hosts"] = {"host-a": {"migtds": {"first": first, "second": second}}}
            pairs = (("first", "second"), ("second", "first"))
            lab["rebindings"] = [{"host": "host-a", "old": old, "new": new} for old, new in pairs]
        else:
            quoting = {"fail_first": self.fail_first}
            lab["hosts"] = {
                host: {"quoting": quoting, "migtds": {"migtd": keys}}
                for host, keys in (("host-a", first), ("host-b", second))
            }
            ends = [{"host": host, "migtd": "migtd"} for host in lab["hosts"]]
            # Hosts count GetQuote calls: those that fail shall all be of one migration.
            ways = (ends,) if self.fail_first else (ends, reversed(ends))
            lab["migrations"] = [{"source": a, "destination": b} for a, b in ways]
        return LabFile.model_validate(lab)

    def skips(self, mode: str, side: str) -> Mapping[CheckName, str]:
        """The checks that the mode says a side cannot make here, with the reason."""
        if self.rebinding:
            told = REBINDING_SKIPS_OF[mode]
            return told if side == "destination" else {name: told[name] for name in told if name not in OF_NEW_MIGTD}
        return (SKIPS_OF if self.policy_version == 1 else V2_SKIPS_OF)[mode]


BARE: Final = {"quote_form": "bare"}
POLICY_KEY: Final = {"policy_key": SECOND}
LEAVES: Final = {"policy_key": SECOND, "mapping_key": SECOND}
CHAINS: Final = {"policy_key": SECOND, "identity_key": SECOND, "mapping_key": SECOND, "intermediate": True}

SCENARIOS: Final = (
    Scenario(1, "attestation disabled", (ACCEPT_ALL,), policy_version=1),
    Scenario(2, "policy v2", BOTH),
    Scenario(3, "policy v2, IGVM GetQuote form", BOTH, migtd=BARE),
    Scenario(4, "rebinding, attestation disabled", (ACCEPT_ALL,), rebinding=True),
    Scenario(5, "rebinding", BOTH, rebinding=True),
    Scenario(6, "SPDM, attestation disabled"),
    Scenario(7, "SPDM, policy v2"),
    Scenario(8, "SPDM rebinding, attestation disabled"),
    # The five are the reference's mock report's; here they are the quoting service's, which only `lab` lets fail.
    Scenario(9, "GetQuote fails five times, then succeeds", (LAB,), fail_first=5),
    Scenario(10, "policy signing key rotated", BOTH, rotated=POLICY_KEY),
    Scenario(11, "policy signing key rotated, IGVM GetQuote form", BOTH, migtd=BARE, rotated=POLICY_KEY),
    Scenario(12, "SPDM, policy signing key rotated"),
    Scenario(13, "policy and TCB-mapping leaf certs rotated", BOTH, rotated=LEAVES),
    Scenario(14, "all three chains rotated", BOTH, rotated=CHAINS),
    Scenario(15, "policy v1", BOTH, policy_version=1),
)
RUNS: Final = [(each, mode) for each in SCENARIOS for mode in each.modes]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[tuple[int, str], tuple[str, str, str]]]:
    """Results of both sides and the checks skipped, by number and mode. Shown at the end with `-m parity`."""
    rows: dict[tuple[int, str], tuple[str, str, str]] = {}
    yield rows
    if "parity" not in request.config.getoption("-m"):
        return
    lines = ["", COLUMNS.format("", "scenario", "mode", "source", "destination", "checks skipped")]
    for scenario in SCENARIOS:
        for mode in scenario.modes:
            told = rows.get((scenario.number, mode), ("not run", "", ""))
            lines.append(COLUMNS.format(scenario.number, scenario.title, mode, *told))
        if not scenario.modes:
            lines.append(COLUMNS.format(scenario.number, scenario.title, "-", "SPDM, not yet", "", ""))
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        sys.stdout.write("\n".join(line.rstrip() for line in lines) + "\n")


@pytest.fixture
def captured(tmp_path: Path) -> dict[str, str]:
    """Lab file keys for a quote of some machine, its collateral, and the root that both end in."""
    own = machine()
    contents = {
        "quote_file": own.quote(),
        "collateral_file": push_packed(own.material.collateral),
        "root_ca_file": PKI.root_ca,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What hosts were asked by GetQuote."""
    seen: list[bytes] = []
    for service in (LabQuoting, CapturedQuoting):

        def get_quote(self: Any, request: bytes, answered: Answered, asked: Any = service.get_quote) -> None:
            seen.append(request)
            asked(self, request, answered)

        monkeypatch.setattr(service, "get_quote", get_quote)
    return seen


def settled(scenario: Scenario, mode: str, files: dict[str, str]) -> ResolvedLab:
    lab = resolve(scenario.lab(), name="parity", attestation=mode, files=files if mode == CAPTURED else {})
    return lab.with_pki(new_pki(os.urandom, time.time()))


def skipped(side: SideOutcome) -> dict[CheckName, str]:
    return {check.name: check.detail for check in side.checks if check.status is CheckStatus.SKIPPED}


def results(outcomes: list[Outcome], side: str) -> str:
    """What a side reported, in words: once where it is the same in all operations that it had part in."""
    sides = [getattr(each, side) for each in outcomes]
    return "/".join(dict.fromkeys(each.result for each in sides if each is not None))


@pytest.mark.parametrize(("scenario", "mode"), RUNS, ids=[f"{each.number}-{mode}" for each, mode in RUNS])
async def test_a_scenario_of_the_reference_ends_in_success_on_both_sides(
    scenario: Scenario,
    mode: str,
    captured: dict[str, str],
    requests: list[bytes],
    table: dict[tuple[int, str], tuple[str, str, str]],
):
    outcomes = await outcomes_in_process(settled(scenario, mode, captured))
    sessions = [each for each in outcomes if each.operation != "rebind-finalize"]
    sides = [(each.source, "source") for each in sessions] + [(each.destination, "destination") for each in sessions]
    left_out = [(skipped(side), name) for side, name in sides if side is not None]
    names = dict.fromkeys(check.value for checks, _ in left_out for check in checks)
    table[scenario.number, mode] = results(outcomes, "source"), results(outcomes, "destination"), ", ".join(names)

    for each in outcomes:
        assert each.success, each
        assert each.destination is not None
        assert each.msk_match is (None if scenario.rebinding else True)
    assert len(outcomes) == len(scenario.lab().migrations) + 2 * len(scenario.lab().rebindings)
    forms = {type(pull_request(request)) for request in requests} - {CollateralRequest}
    quoted = BareReport if scenario.migtd == BARE else QuoteRequest
    assert forms == (set() if mode == ACCEPT_ALL else {quoted})
    for checks, side_name in left_out:
        assert checks == scenario.skips(mode, side_name)


def test_all_numbers_of_the_list_are_there_and_only_spdm_does_not_run():
    assert [each.number for each in SCENARIOS] == list(range(1, 16))
    assert [each.number for each in SCENARIOS if not each.modes] == [6, 7, 8, 12]


async def test_a_scenario_with_one_failure_more_than_a_migtd_takes_does_not_succeed():
    (scenario,) = (each for each in SCENARIOS if each.fail_first)
    once_more = dataclasses.replace(scenario, fail_first=scenario.fail_first + 1)
    refused, *_ = await outcomes_in_process(settled(once_more, LAB, {}))

    assert not refused.success
    errors = [side.error.id for side in (refused.source, refused.destination) if side and side.error]
    # Who sees the peer's certificate first ends with what that lacks.
    assert set(errors) <= {"MIGTD-GET-QUOTE-BUSY", "MIGTD-CERTIFICATE-NO-EVIDENCE"}
    assert "MIGTD-GET-QUOTE-BUSY" in errors

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The arithmetic of the bench: spreads, targets, and what is read out of histories and /proc."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from lab.bench import footprint, quotes, rows
from lab.bench.footprint import Footprint, MemoryPlan, footprint_rows
from lab.bench.primitives import (
    Primitive,
    bare_handshake,
    milliseconds,
    peer_data_primitives,
    primitive_sum,
    primitives,
    quote_primitives,
)
from lab.bench.resident import session_milliseconds
from lab.bench.roles import Memory, cpu_seconds, memory
from lab.bench.rows import Target, Verdict, wanted
from lab.bench.sessions import ATTESTED, BARE, KINDS, POLICY_V2, self_signatures_verified
from lab.bench.spread import Spread
from lab.errors import UsageError


def test_spread_is_the_median_between_the_tenth_and_ninetieth_percentile():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.2, 2.8, 3)
    assert Spread.of(float(value) for value in range(101)) == Spread(50.0, 10.0, 90.0, 101)


def test_one_sample_is_its_own_spread():
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_no_spread_is_made_of_nothing_or_of_no_number(samples: list[float]):
    with pytest.raises(ValueError, match="no spread"):
        Spread.of(samples)


@pytest.mark.parametrize(
    ("target", "median", "verdict"),
    [
        (Target(20), 20.0, Verdict.MET),
        (Target(20), 20.1, Verdict.MISSED),
        (Target(60, at_least=True), 60.0, Verdict.MET),
        (Target(60, at_least=True), 59.9, Verdict.MISSED),
    ],
)
def test_a_median_may_reach_its_target_and_not_pass_it(target: Target, median: float, verdict: Verdict):
    assert target.verdict(median) is verdict


def test_a_target_can_be_of_one_engine_only():
    assert rows.WARM.target("docker") == Target(5)
    assert rows.WARM.target("process") == Target(1.5)
    assert rows.HUNDRED.target("docker") is None
    assert rows.LATENCY.target("docker") == Target(20)


def test_rows_are_chosen_by_id_in_the_order_of_the_table():
    assert wanted([]) == list(rows.QUANTITIES)
    assert wanted(["up-warm", "session-latency"]) == [rows.LATENCY, rows.WARM]


def test_an_unknown_row_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match="session-latency") as caught:
        wanted(["speed"])
    assert caught.value.kind.id == "LAB-VALUE-UNKNOWN"


def test_row_ids_are_unique():
    assert len({quantity.id for quantity in rows.QUANTITIES}) == len(rows.QUANTITIES)


# --- primitives ----------------------------------------------------------------------------------------------------
def test_time_of_a_primitive_is_the_average_after_one_run_that_does_not_count():
    ran: list[int] = []
    readings = iter([5_000_000, 11_000_000])

    assert milliseconds(lambda: ran.append(1), 3, lambda: next(readings)) == 2.0
    assert len(ran) == 4


def test_sum_counts_each_primitive_as_often_as_a_session_needs_it():
    table = (Primitive("slow", 4, lambda: None), Primitive("fast", 2, lambda: None))
    readings = iter([0, 6_000_000, 0, 1_000_000])

    assert primitive_sum(table, 1, lambda: next(readings)) == 4 * 6 + 2 * 1


def test_primitives_of_a_session_are_those_of_the_profile():
    assert {each.name: each.times for each in primitives(self_signatures_verified=0)} == {
        "key generation": 4,
        "ECDH": 2,
        "ECDSA signature": 4,
        "ECDSA verification": 2,
        "AES-256-GCM": 12,
        "HKDF expansion": 24,
    }
    assert {each.name: each.times for each in primitives(self_signatures_verified=2)}["ECDSA verification"] == 4
    for each in primitives(self_signatures_verified=2):
        each.run()


def test_accept_all_verifies_no_self_signature_and_lab_both():
    assert self_signatures_verified("accept-all") == 0
    assert self_signatures_verified("lab") == 2


def test_sessions_with_quotes_need_their_signatures_besides():
    bare, attested, v2 = ({each.name: each.times for each in kind.table()} for kind in (BARE, ATTESTED, POLICY_V2))
    assert attested == bare | {"ECDSA verification": 4, "P-256 signature": 2, "P-256 verification": 12}
    assert v2 == attested | {"P-256 signature": 4, "SHA-384 of peer data": 2}
    for each in (*quote_primitives(quotes=2), *peer_data_primitives()):
        each.run()


def test_every_row_of_sessions_is_measured_by_the_kind_of_its_part():
    for part, kind in KINDS.items():
        measured = {kind.primitives, kind.latency, kind.cpu, kind.ratio, *kind.rates.values()}
        assert {each for each in rows.QUANTITIES if each.part is part} - measured <= {rows.HANDSHAKE}
    assert (rows.V2_LATENCY.target("process"), rows.V2_RATIO.target("docker")) == (Target(50), Target(1.5))


def test_a_quote_is_verified_here_and_by_dcap_qvl_where_that_is_installed(monkeypatch: pytest.MonkeyPatch):
    measured = quotes.measure(2)
    assert [row.quantity for row in measured] == [rows.QUOTE, rows.QUOTE_PREPARED, rows.QUOTE_DCAP]
    assert [row.spread.n for row in measured] == [2, 2, 2]

    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    assert [row.quantity for row in quotes.measure(1)] == [rows.QUOTE, rows.QUOTE_PREPARED]


def test_a_bare_handshake_comes_to_its_end():
    assert bare_handshake(1).n == 1


# --- histories -----------------------------------------------------------------------------------------------------
def phase(time: float, request_id: int, name: str = "accepted") -> dict[str, Any]:
    return {"time": time, "request_id": request_id, "kind": "phase", "data": {"phase": name}}


def report(time: float, request_id: int, operation: str = "StartMigration", code: int = 0) -> dict[str, Any]:
    data = {"operation": operation, "result": "", "code": code}
    return {"time": time, "request_id": request_id, "kind": "result", "data": data}


def test_session_lasts_from_the_later_acceptance_to_the_later_report():
    events = [phase(10.000, 7), report(10.020, 7), phase(10.005, 7), phase(10.006, 7, "handshake"), report(10.021, 7)]

    assert session_milliseconds(events) == {7: pytest.approx(16.0)}


@pytest.mark.parametrize(
    "events",
    [
        [phase(1, 7), phase(1, 7), report(2, 7)],
        [phase(1, 7), report(2, 7), report(2, 7)],
        [phase(1, 7), phase(1, 7), report(2, 7), report(2, 7, code=6)],
        [phase(1, 7), phase(1, 7), report(2, 7, "GetTDReport"), report(2, 7)],
    ],
    ids=["one report", "one acceptance", "one failure", "another operation"],
)
def test_a_session_that_is_not_whole_has_no_time(events: list[dict[str, Any]]):
    assert session_milliseconds(events) == {}


# --- /proc ---------------------------------------------------------------------------------------------------------
def process(proc: Path, pid: int, parent: int, times: tuple[int, int, int, int], kib: int = 0) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    fields = ["S", str(parent), *["0"] * 9, *map(str, times), "0", "0"]
    (folder / "stat").write_text(f"{pid} (a name) with) {' '.join(fields)}\n")
    (folder / "smaps_rollup").write_text(f"5500-7fff ---p 0 00:00 0 [rollup]\nRss: {kib} kB\nPss: {kib // 2} kB\n")
    (folder / "status").write_text(f"Name:\ta name\nVmHWM:\t{2 * kib} kB\n")


def test_cpu_of_a_role_counts_its_descendants_living_and_waited_for(tmp_path: Path):
    process(tmp_path, 10, 1, (100, 10, 1000, 100))
    process(tmp_path, 11, 10, (1, 0, 0, 0))
    process(tmp_path, 12, 11, (2, 0, 0, 0))
    process(tmp_path, 20, 1, (5000, 0, 0, 0))

    ticks_per_second = 1213 / cpu_seconds([10], tmp_path)

    assert cpu_seconds([10, 20], tmp_path) == pytest.approx((1213 + 5000) / ticks_per_second)


def test_memory_of_a_role_is_that_of_its_tree_in_megabytes(tmp_path: Path):
    process(tmp_path, 10, 1, (0, 0, 0, 0), kib=1000)
    process(tmp_path, 11, 10, (0, 0, 0, 0), kib=500)
    process(tmp_path, 20, 1, (0, 0, 0, 0), kib=9999)

    assert memory(10, tmp_path) == Memory(rss=1.536, pss=0.768, peak=3.072)


def test_a_role_that_is_gone_is_said(tmp_path: Path):
    with pytest.raises(ProcessLookupError, match="31"):
        cpu_seconds([31], tmp_path)


def test_extra_memory_is_the_peak_of_the_first_burst_and_growth_that_of_the_third():
    plan = MemoryPlan(at_once=10, warm_up=0)
    role = Footprint(
        ready=Memory(40, 30, 40),
        warm=Memory(50, 35, 50),
        first=Memory(55, 37, 60),
        second=Memory(59, 38, 62),
        third=Memory(60, 39, 63),
    )

    found = {row.quantity: row.spread.median for row in footprint_rows([role], [role], "process", plan)}

    assert found[rows.MIGTD_MEMORY] == 50
    assert found[rows.MIGTD_SHARE] == 35
    assert found[rows.MIGTD_EXTRA] == found[rows.HOST_EXTRA] == 1
    assert found[rows.MIGTD_GROWTH] == pytest.approx(0.1)
    assert footprint.FULL.at_once == 256

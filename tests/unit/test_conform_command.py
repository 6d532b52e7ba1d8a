# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv conform`: what passes, what fails, what is printed, and with which status."""

from __future__ import annotations

import json
import sys

import pytest

from lab.conform import files
from lab.conform.command import conform
from lab.conform.sections import SECTIONS
from lab.errors import ExitStatus, UsageError
from lab.options import ConformOptions
from lab.program import LabProgram
from migtd.policy.v1.fields import RECORD_SIZE
from tasks import namespace

GUID = "00000000-0000-0000-0000-000000000000"
LAYOUT = {"FMSPC": [584, 590], "PCESVN": [606, 608], "MRTD": [136, 184]}
PASSING = {
    "id": "p-1",
    "operation": "equal",
    "reference": 1,
    "local_hex": "",
    "peer_hex": "01",
    "is_src": True,
    "expected": True,
}
ISO = {"id": "iso-1", "input": 0, "expected": "1970-01-01T00:00:00Z"}


@pytest.fixture
def case_file(tmp_path):
    def write(name="cases.json", root="data", text=None, **sections):
        path = tmp_path / name
        meta = {"format": "policy-cases 1", "root": root, "report_layout": LAYOUT}
        path.write_text(text or json.dumps({"meta": meta, **sections}))
        return path

    (tmp_path / "data").mkdir()
    return write


@pytest.fixture
def ran(capsys):
    def run(*paths, **options):
        status = conform(ConformOptions(files=paths, **options))
        return status, capsys.readouterr()

    return run


def last_line(captured):
    return captured.out.splitlines()[-1]


# --- counting and status -------------------------------------------------------------------------------------------
def test_success_is_one_closing_line_and_status_0(case_file, ran):
    status, captured = ran(case_file(v1_property=[PASSING], unix_to_iso=[ISO]))
    assert (status, captured.out) == (ExitStatus.SUCCESS, "2 passed, 0 failed\n")


def test_a_failure_is_shown_with_id_expected_and_got(case_file, ran):
    status, captured = ran(case_file(v1_property=[PASSING, {**PASSING, "id": "p-2", "expected": False}]))
    assert status is ExitStatus.NEGATIVE
    assert captured.out.splitlines() == [
        "FAILED p-2 (v1_property)",
        "  expected: expected false, got true",
        "1 passed, 1 failed",
    ]


def test_several_files_close_with_one_line(case_file, ran):
    first = case_file("a.json", unix_to_iso=[ISO])
    status, captured = ran(first, case_file("b.json", unix_to_iso=[ISO, {**ISO, "input": 1}]))
    assert status is ExitStatus.NEGATIVE
    assert captured.out.count(" passed, ") == 1
    assert last_line(captured) == "2 passed, 1 failed"


@pytest.mark.parametrize("wrong", ["true", "OK", 1, 1.0, None, [True], {"x": True}])
def test_results_are_compared_in_type_and_value(case_file, ran, wrong):
    status, captured = ran(case_file(v1_property=[{**PASSING, "expected": wrong}]))
    assert (status, last_line(captured)) == (ExitStatus.NEGATIVE, "0 passed, 1 failed")


def test_a_row_without_its_verdict_fails(case_file, ran):
    row = {name: value for name, value in PASSING.items() if name != "expected"}
    log = {"id": "e-1", "log_hex": ""}
    _, captured = ran(case_file(v1_property=[row], event_log_parse=[log, {**log, "expected": None}]))
    assert "FAILED e-1" in captured.out
    assert "expected nothing, got true" in captured.out
    assert last_line(captured) == "1 passed, 2 failed"


def test_rows_of_unknown_sections_fail_unless_left_out(case_file, ran):
    path = case_file(v1_property=[PASSING], v9_future=[{"id": "f-1", "expected": "OK"}, {"x": 1}])
    status, captured = ran(path)
    assert status is ExitStatus.NEGATIVE
    assert "FAILED f-1 (v9_future): unknown section" in captured.out
    assert '  expected: expected "OK", got nothing' in captured.out
    assert "unknown sections: v9_future" in captured.out
    assert last_line(captured) == "1 passed, 2 failed"
    status, captured = ran(path, sections=("v1_property",))
    assert (status, last_line(captured)) == (ExitStatus.SUCCESS, "1 passed, 0 failed")


def test_whole_program_rows_are_neither_run_nor_counted_and_told(case_file, ran):
    status, captured = ran(case_file(unix_to_iso=[ISO], emulation_scenarios=[{"id": "emu-1"}, {"id": "emu-2"}]))
    assert status is ExitStatus.SUCCESS
    assert captured.out.splitlines() == [
        "emulation_scenarios: 2 whole-program rows, not run here",
        "1 passed, 0 failed",
    ]


def test_json_is_one_document_and_talk_goes_to_standard_error(case_file, ran):
    path = case_file(
        v1_property=[PASSING, {**PASSING, "id": "p-2", "expected": 1}, {"id": "p-3"}], emulation_scenarios=[{}]
    )
    status, captured = ran(path, json=True)
    assert status is ExitStatus.NEGATIVE
    assert json.loads(captured.out) == {
        "schema": 1,
        "passed": 1,
        "failed": 2,
        "not_run": {"emulation_scenarios": 1},
        "failures": [
            {
                "file": str(path),
                "section": "v1_property",
                "id": "p-2",
                "trouble": None,
                "differences": [{"name": "expected", "expected": 1, "got": True}],
            },
            {
                "file": str(path),
                "section": "v1_property",
                "id": "p-3",
                "trouble": "the row has no field 'operation'",
                "differences": [],
            },
        ],
    }
    assert captured.err.endswith("1 passed, 2 failed\n")


# --- rows that cannot be run ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("section", "row", "trouble"),
    [
        ("v1_parse", {"policy": "absent.json"}, "data file absent.json: No such file"),
        ("v1_parse", {"policy": "a\0b"}, "data file"),
        ("v1_parse", {}, "the row has no field 'policy_hex'"),
        ("v1_parse", {"policy_hex": "xyz"}, "ValueError"),
        ("v1_masks", {"field": "MRTD", "input": "00"}, "there is no mask for 'MRTD'"),
        ("cert_chain", {"op": "guess", "peer": "chain.pem"}, "there is no op 'guess'"),
        ("mock_quote_supplemental", {"quote": "chain.pem", "supplemental_file": "chain.pem", "collateral": "chain.pem",
         "collateral_format": "xml"}, "there is no collateral format 'xml'"),
        ("v1_verify", {"policy_text": "", "local_report": {"zeros": 1}, "peer_report": {"zeros": 1},
         "local_patch": [["X", "00"]], "is_src": True}, "there is no 'X' in meta.report_layout"),
        ("v1_verify", {"policy_text": "", "local_report": {"zeros": 822}, "peer_report": {"zeros": 822},
         "peer_patch": [["PCESVN", "00"]], "is_src": True}, "a patch of 1 bytes does not fit PCESVN"),
        ("unix_to_iso", {"input": "0"}, "TypeError"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_run_is_a_failed_row_and_the_run_goes_on(case_file, ran, tmp_path, section, row, trouble):
    (tmp_path / "data/chain.pem").write_bytes(b"")
    rows = [{"id": "x-1", **row, "expected": "OK"}]
    sections = {section: rows, "v1_property": [PASSING]}
    status, captured = ran(case_file(**sections))
    assert status is ExitStatus.NEGATIVE
    assert f"FAILED x-1 ({section}): {trouble}" in captured.out
    assert last_line(captured) == "1 passed, 1 failed"


# --- usage ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"meta": {"format": "policy-cases 2"}}',
        '{"meta": {"format": "policy-cases 1"}, "x": 1}',
        '{"meta": {"format": "policy-cases 1"}, "x": [1]}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_case_file_is_refused(case_file, ran, text):
    with pytest.raises(UsageError) as error:
        ran(case_file(text=text or " "))
    assert error.value.kind.id == "LAB-CONFORM-FILE"


def test_an_absent_file_no_file_and_an_unknown_section_are_refused(case_file, ran, tmp_path):
    for call, identity in (
        (lambda: ran(tmp_path / "absent.json"), "LAB-CONFORM-FILE"),
        (ran, "LAB-USAGE-VALUE-MISSING"),
        (lambda: ran(case_file(unix_to_iso=[ISO]), sections=("v1_vreify",)), "LAB-VALUE-UNKNOWN"),
    ):
        with pytest.raises(UsageError) as error:
            call()
        assert error.value.kind.id == identity


def test_the_task_takes_files_and_repeated_sections(case_file, capsys):
    path = case_file(unix_to_iso=[ISO], v1_property=[PASSING], is_ca=[{"id": "c"}])
    program = LabProgram(namespace, platform=sys.platform)
    assert (
        program.main(["conform", str(path), "--section", "unix_to_iso", "--section=v1_property"]) == ExitStatus.SUCCESS
    )
    assert last_line(capsys.readouterr()) == "2 passed, 0 failed"
    assert program.main(["conform", str(path)]) == ExitStatus.NEGATIVE
    assert program.main(["conform"]) == ExitStatus.USAGE


# --- data ----------------------------------------------------------------------------------------------------------
def test_data_is_found_beside_the_file_or_with_the_vectors_beside_the_checkout(case_file, ran, tmp_path, monkeypatch):
    vectors = tmp_path / "somewhere/shared/vectors/policy/elsewhere"
    vectors.mkdir(parents=True)
    (vectors / "p.json").write_text(f'{{"id": "{GUID}", "policy": []}}')
    (tmp_path / "data/p.json").write_text(f'{{"id": "{GUID}"}}')
    monkeypatch.setattr(files, "checkout_path", lambda: tmp_path / "somewhere/checkout")
    row = {"id": "x", "policy": "p.json"}
    assert ran(case_file(root="elsewhere", v1_parse=[{**row, "expected": "OK"}]))[0] is ExitStatus.SUCCESS
    assert ran(case_file(root="data", v1_parse=[{**row, "expected": "REFUSED"}]))[0] is ExitStatus.SUCCESS


def test_patches_roles_and_events_reach_the_evaluation(case_file, ran):
    rule = {"operation": "greater-or-equal", "reference": "self"}
    document = {
        "id": GUID,
        "policy": [
            {"fmspc": "self", "Platform": {"TcbInfo": {"pcesvn": rule}}},
            {"MigTD": {"TDINFO": {}, "EventLog": {"Digest.TdShim": {"operation": "equal", "reference": "self"}}}},
        ],
    }
    event = {"Digest.TdShim": {"digest": "00" * 48}}
    row = {
        "id": "v-1",
        "policy_text": json.dumps(document),
        "local_report": {"zeros": RECORD_SIZE},
        "peer_report": {"zeros": RECORD_SIZE},
        "peer_patch": [["PCESVN", "0100"]],
        "events_local": event,
        "events_peer": event,
        "is_src": True,
        "expected": "OK",
    }
    rows = [
        row,
        {**row, "is_src": False, "expected": "UnqualifiedPlatformInfo"},
        {**row, "events_peer": {}, "expected": "UnqualifiedMigTdInfo"},
        {**row, "peer_patch": [["FMSPC", "000000000001"]], "expected": "PlatformNotMatch"},
        {**row, "peer_report": {"zeros": 821}, "peer_patch": [], "expected": "InvalidParameter"},
    ]
    assert last_line(ran(case_file(v1_verify=rows))[1]) == "5 passed, 0 failed"


def test_kinds_of_blocks_are_compared_as_a_list(case_file, ran):
    row = {"id": "x", "policy_text": f'{{"id": "{GUID}", "policy": [{{"QE": [{{}}]}}]}}\0', "expected": "OK"}
    bad = {"id": "y", "policy_hex": "7bff", "expected": "REFUSED"}
    rows = [{**row, "blocks": ["QE"]}, row, bad, {**row, "blocks": []}, {**bad, "blocks": []}]
    status, captured = ran(case_file(v1_parse=rows))
    assert status is ExitStatus.NEGATIVE
    assert '  blocks: expected [], got ["QE"]' in captured.out
    assert last_line(captured) == "3 passed, 2 failed"


@pytest.mark.parametrize(
    "reference", ["-0", "1e0", "1.0", "1e400", "-1", "18446744073709551616", "9" * 5000, '"\\ud800"', "{}", "[[1]]"]
)
def test_a_property_has_the_reference_that_the_row_writes(case_file, ran, reference):
    row = json.dumps({**PASSING, "reference": "HERE", "expected": "REFUSED"}).replace('"HERE"', reference)
    text = '{"meta": {"format": "policy-cases 1"}, "v1_property": [' + row + "]}"
    assert last_line(ran(case_file(text=text))[1]) == "1 passed, 0 failed"


def test_the_case_of_hex_does_not_count(case_file, ran):
    row = {"id": "m", "field": "XFAM", "input": "F" * 16, "expected": "0318000000000000"}
    tdinfo = {"id": "t", "tdinfo_hex": "AB" * 512, "expected": {f"rtmr{index}": "AB" * 48 for index in range(4)}}
    assert last_line(ran(case_file(v1_masks=[row], tdinfo_rtmrs=[tdinfo]))[1]) == "2 passed, 0 failed"


@pytest.mark.shared
def test_every_row_of_the_shared_case_table_passes(shared, ran):
    path = shared / "vectors/policy/cases.json"
    there = json.loads(path.read_bytes())
    status, captured = ran(path)
    counted = sum(len(rows) for name, rows in there.items() if name not in ("meta", *files.NOT_RUN))
    assert (status, last_line(captured)) == (ExitStatus.SUCCESS, f"{counted} passed, 0 failed")
    assert set(there) == {"meta", *files.NOT_RUN, *SECTIONS}

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The reference's built-in quote under three collateral sets: records byte for byte (policy.md 6.5)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migtd.attestation.quote.collateral import CollateralSet, pull_collaterals_json, pull_packed, push_packed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import pull_quote
from migtd.attestation.quote.pck import quote_fmspc
from migtd.attestation.quote.record import RANGES, pull_record, push_record
from migtd.attestation.quote.verify import root_key_of, verify_quote

pytestmark = pytest.mark.shared

ROWS = ["mqs-0001", "mqs-0002", "mqs-0003"]


@dataclass(frozen=True)
class Case:
    row: dict[str, Any]
    quote: bytes
    root_key: bytes
    collateral: CollateralSet
    record: bytes


def read_case(shared: Path, row_id: str) -> Case:
    folder = shared / "vectors" / "policy"
    data = folder / "upstream"
    cases = json.loads((folder / "cases.json").read_text())
    (row,) = (each for each in cases["mock_quote_supplemental"] if each["id"] == row_id)
    quote = (data / row["quote"]).read_bytes()
    text = (data / row["collateral"]).read_bytes()
    if row["collateral_format"] == "json":
        collateral, root_ca = pull_collaterals_json(text, quote_fmspc(quote))
    else:
        collateral, root_ca = pull_packed(text), (data / row["root_ca"]).read_bytes()
    return Case(row, quote, root_key_of(root_ca), collateral, (data / row["supplemental_file"]).read_bytes())


@pytest.fixture(params=ROWS)
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    return read_case(shared, request.param)


def test_record_is_the_one_that_was_computed(case: Case):
    verified = verify_quote(case.quote, case.root_key, case.collateral)

    assert verified.record == case.record
    assert hashlib.sha256(verified.record).hexdigest() == case.row["sha256"]


def test_fields_are_those_of_the_row(case: Case):
    verified = verify_quote(case.quote, case.root_key, case.collateral)
    record, row = pull_record(verified.record), case.row

    assert record.fmspc.hex() == row["fmspc"]
    assert record.tdx_components.hex() == row["tdx_components"]
    assert record.sgx_components.hex() == row["sgx_components"]
    numbers = ("pcesvn", "module_major", "module_svn", "qe_isvprodid", "qe_isvsvn", "platform_tcb_date", "qe_tcb_date")
    assert {name: getattr(record, name) for name in numbers} == {name: row[name] for name in numbers}
    assert (record.tcb_date, record.platform_status) == (row["tcb_date_unix"], row["tcb_status"])
    assert record.qe_status == row["qe_status"]
    assert verified.tcb_evaluation_number == row["tcb_evaluation_data_number"]
    assert verified.latest_issue == row["latest_issue_unix"]
    assert verified.earliest_expiration == row["earliest_expiration_unix"]
    assert verified.converged_status == "UpToDate"


def test_record_survives_pull_and_push(case: Case):
    assert push_record(pull_record(case.record)) == case.record


def test_ranges_are_those_of_the_case_file(shared: Path):
    layout = json.loads((shared / "vectors/policy/cases.json").read_text())["meta"]["report_layout"]
    ours = {
        "TDXCOMP": "tdx_components",
        "SGXCOMP": "sgx_components",
        "MAJOR": "module_major",
        "MODSVN": "module_svn",
        "SEAMATTR": "seam_attributes",
        "TDATTR": "td_attributes",
    }

    for name, (start, end) in layout.items():
        assert RANGES[ours.get(name, name.lower())] == slice(start, end), name


def test_built_in_set_is_valid_at_no_instant_and_says_so(shared: Path):
    case = read_case(shared, "mqs-0001")
    verified = verify_quote(case.quote, case.root_key, case.collateral)
    between = (verified.latest_issue + verified.earliest_expiration) // 2

    assert verified.latest_issue > verified.earliest_expiration
    assert verified.collateral_expired(between)
    assert verified.not_yet_valid(between)


def test_built_in_set_and_quote_survive_pull_and_push(shared: Path):
    case = read_case(shared, "mqs-0001")
    packed = (shared / "vectors/policy/upstream" / case.row["collateral"]).read_bytes()
    quote = pull_quote(case.quote)

    assert push_packed(case.collateral) == packed
    assert len(quote.signature_data.pck_chain) < 4300
    assert case.quote[636 + 4300 :] == bytes(70)


def test_another_root_is_refused(shared: Path):
    case = read_case(shared, "mqs-0003")
    other = bytes((*case.root_key[:-1], case.root_key[-1] ^ 1))

    with pytest.raises(QuoteError) as caught:
        verify_quote(case.quote, other, case.collateral)

    assert caught.value.kind.id == "MIGTD-COLLATERAL-ROOT-UNTRUSTED"


def test_platform_that_a_collaterals_document_lacks_is_named(shared: Path):
    text = (shared / "vectors/policy/upstream/config/collateral_production_fmspc.json").read_bytes()

    with pytest.raises(QuoteError, match="30806F000000"):
        pull_collaterals_json(text, "30806f000000")

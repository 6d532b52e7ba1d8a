# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv conform` on the sections of policy v2: every kind, op and form of input that the format has."""

from __future__ import annotations

import json

import pytest

from lab.conform.command import conform
from lab.options import ConformOptions
from tests.unit.policy_v2_world import (
    MAPPING,
    POLICY,
    Chain,
    World,
    compact,
    identity,
    level,
    mapping,
    signed,
    svn_mapping,
)

A, B = b"\xaa" * 48, b"\xbb" * 48
FOUND = {"mrtd": A.hex(), "rtmr0": B.hex(), "rtmr1": B.hex().upper()}
VALUES = {"migtd_isvsvn": 3, "migtd_tcb_status": "UpToDate", "tcb_status": "UpToDate", "fmspc": "a0b1c2d3e4f5"}
OWNER, CONFIG = "ab" * 48, "03000000" + "00" * 44
TDINFO = "00" * 112 + OWNER + CONFIG + "00" * 304
ONE_KEY = Chain("Issuer", MAPPING)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data files that the rows below name."""
    folder = tmp_path_factory.mktemp("cases") / "data"
    folder.mkdir()
    world = World()
    both = World(identity_chain=ONE_KEY, mapping_chain=ONE_KEY)
    contents = {
        "policy.json": world.policy(),
        "data.json": world.policy_data_text().encode(),
        "chain.pem": world.policy_chain.pem(),
        "other.pem": Chain("Issuer", POLICY).pem(),
        "servtd.json": both.servtd_collateral_text().encode(),
        "crossed.json": world.servtd_collateral_text().encode(),
        "collaterals.json": compact(world.collaterals()).encode(),
        "mapping.json": compact(mapping(svn_mapping(7, mrtd=A, rtmr0=B, rtmr1=B))).encode(),
        "global.json": b'{"crl":{"pckCrlNum":{"operation":"equal","reference":8}}}',
        "latin.json": b'{"id":"\xe9"}',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def run(data, tmp_path, capsys):
    def run_row(section, row):
        path = data.parent / f"{tmp_path.name}.json"
        meta = {"format": "policy-cases 1", "root": "data", "report_layout": {}}
        path.write_text(row if isinstance(row, str) else json.dumps({"meta": meta, section: [{"id": "x-1", **row}]}))
        conform(ConformOptions(files=(path,)))
        return capsys.readouterr().out

    return run_row


PARSE = [
    ({"kind": "raw_policy", "file": "policy.json"}, {"expected": "OK"}),
    ({"kind": "raw_policy", "text": '{"policyData": "\u00e9" ,"signature":"\\u00e9"}'},
     {"expected": "OK", "raw_length": 4, "signature_length": 2}),
    ({"kind": "raw_policy", "text": "\ufeff{}"}, {"expected": "REFUSED"}),
    ({"kind": "raw_policy", "hex": "ff"}, {"expected": "REFUSED"}),
    ({"kind": "policy_types", "text": '[{"global":{}},{"servtd":{"migtdIdentity":{}}}]'},
     {"expected": "OK", "entries": 2}),
    ({"kind": "policy_types", "text": "[{}]"}, {"expected": "REFUSED"}),
    ({"kind": "policy_types", "file": "latin.json"}, {"expected": "REFUSED"}),
    ({"kind": "policy_data", "file": "data.json"}, {"expected": "OK", "validate": True}),
    ({"kind": "policy_data", "base": "data.json", "change": {"set": {"id": ""}}},
     {"expected": "OK", "validate": False}),
    ({"kind": "policy_data", "base": "data.json", "change": {"set": {"zz": [1.0, "\ud800"]}}}, {"expected": "OK"}),
    ({"kind": "policy_data", "base": "data.json", "change": {"remove": ["policy"]}}, {"expected": "OK"}),
    ({"kind": "policy_data", "base": "data.json", "change": {"remove": ["id"]}}, {"expected": "REFUSED"}),
    ({"kind": "policy_data", "base": "data.json", "change": {"set": {"policySvn": 1.0}}}, {"expected": "REFUSED"}),
    ({"kind": "collaterals", "file": "collaterals.json"}, {"expected": "OK"}),
    ({"kind": "collaterals", "text": "[]"}, {"expected": "REFUSED"}),
]  # fmt: skip
SIGNATURE = [
    ({"kind": "policy", "policy": "policy.json", "issuer_chain": "chain.pem"}, "OK"),
    ({"kind": "policy", "policy": "policy.json", "issuer_chain": "other.pem"}, "OK"),
    ({"kind": "policy", "policy": "servtd.json", "issuer_chain": "chain.pem"}, "InvalidPolicy"),
    ({"kind": "servtd_collateral", "servtd_collateral": "servtd.json", "chain_field": "servtdTcbMappingIssuerChain"},
     "OK"),
    ({"kind": "servtd_collateral", "servtd_collateral": "crossed.json", "chain_field": "servtdTcbMappingIssuerChain"},
     "SignatureVerificationFailed"),
]  # fmt: skip
EQUAL = {"operation": "equal"}
RULES = [
    ("v2_collateral_lookup", {"collaterals": "collaterals.json", "fmspc": "A0B1C2D3E4F5", "op": "find"}, True),
    ("v2_collateral_lookup", {"collaterals": "collaterals.json", "fmspc": "a0b1c2d3e4f5", "op": "find"}, False),
    ("v2_collateral_lookup",
     {"collaterals": "collaterals.json", "fmspc": "A0B1C2D3E4F5", "op": "tcb_evaluation_number"}, 17),
    ("v2_collateral_lookup",
     {"collaterals": "collaterals.json", "fmspc": "", "op": "tcb_evaluation_number"}, "InvalidCollateral"),
    ("v2_global", {"policy": "global.json", "value": {"pck_crl_num": 8}, "relative": {}}, "OK"),
    ("v2_global", {"policy": "global.json", "value": {}, "relative": {}}, "CrlEvaluation"),
    ("v2_global", {"policy_text": '{"platform":{"fmspc":{"operation":"equal","reference":"A0B1C2D3E4F5"}}}',
                   "value": VALUES, "relative": {}}, "OK"),
    ("v2_block", {"block": None, "value": VALUES, "relative": {}, "skip_global": False}, "OK"),
    ("v2_block", {"block": [], "value": VALUES | {"tcb_status": "Revoked"}, "relative": {}, "skip_global": False},
     "TcbEvaluation"),
    ("v2_block", {"block": [], "value": VALUES | {"tcb_status": "Revoked"}, "relative": {}, "skip_global": True}, "OK"),
    ("v2_prop_int", {**EQUAL, "reference": "5", "value": 5, "relative": None}, True),
    ("v2_prop_int", {**EQUAL, "reference": "-0", "value": 0, "relative": None}, "REFUSED"),
    ("v2_prop_int", {**EQUAL, "reference": '"self"', "value": 5}, "InvalidReference"),
    ("v2_prop_str", {**EQUAL, "reference": '"self"', "value": "x", "relative": "y"}, False),
    ("v2_prop_tcb_status", {**EQUAL, "reference": "5", "value": "UpToDate", "relative": None}, True),
    ("v2_prop_tcb_status", {**EQUAL, "reference": "5", "value": "x", "relative": None}, "InvalidParameter"),
    ("v2_prop_tcb_status", {"operation": "allow-list", "reference": "[]", "value": "ConfigurationNeeded"},
     "InvalidReference"),
    ("v2_prop_tcb_status", {"operation": "allow-list", "reference": "[]", "value": "ConfigurationNeeded",
                            "reference_kind": "string-list"}, False),
    ("v2_prop_servtd_status", {**EQUAL, "reference": "5", "value": "Revoked"}, False),
    ("v2_hex", {"input": "+Fab"}, "0FAB"),
    ("v2_hex", {"input": ""}, "InvalidParameter"),
    ("v2_svn_mapping", {"mapping": "mapping.json", "measurements": FOUND}, 7),
    ("v2_svn_mapping", {"mapping": "mapping.json", "measurements": FOUND | {"mrtd": None}}, None),
    ("v2_engine_not_older", {"mapping_text": compact(mapping(svn_mapping(1, mrtd=A, rtmr0=B, rtmr1=B))),
                             "peer": FOUND, "init": FOUND}, "OK"),
    ("v2_engine_not_older", {"mapping_text": compact(mapping()), "peer": FOUND, "init": FOUND}, "SvnMismatch"),
    ("v2_engine_not_older", {"mapping_text": "{}", "peer": FOUND, "init": FOUND}, "InvalidServtdTcbMapping"),
    ("v2_tcb_level", {"identity_text": compact(identity() | {"tcbLevels": [level(2, "d", "s")]}), "svn": 3},
     {"isvsvn": 2, "tcbDate": "d", "tcbStatus": "s"}),
    ("v2_tcb_level", {"identity_text": compact(identity()), "svn": 0}, None),
    ("init_tdinfo_owner", {"init_tdinfo_hex": TDINFO, "peer_mrowner_hex": OWNER, "peer_mrownerconfig_hex": CONFIG},
     "OK"),
    ("init_tdinfo_owner", {"init_tdinfo_hex": TDINFO,
                           "peer_supplemental": {"zeros": 822, "patch": [[232, OWNER], [280, CONFIG]]}}, "OK"),
    ("init_tdinfo_owner", {"init_tdinfo_hex": TDINFO, "peer_supplemental": {"zeros": 821}}, "InvalidParameter"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "results"), PARSE)
def test_documents(run, row, results):
    assert run("v2_parse", row | results) == "1 passed, 0 failed\n"


@pytest.mark.parametrize(("row", "expected"), SIGNATURE)
def test_signatures(run, row, expected):
    assert run("v2_signature", row | {"expected": expected}) == "1 passed, 0 failed\n"


@pytest.mark.parametrize(("section", "row", "expected"), RULES)
def test_rules(run, section, row, expected):
    assert run(section, row | {"expected": expected}) == "1 passed, 0 failed\n"
    assert run(section, row | {"expected": [expected]}).endswith("0 passed, 1 failed\n")


PLATFORM = {"UpToDate": 9, "SWHardeningNeeded": 9, "OutOfDate": 9, "ConfigurationNeeded": 5,
            "ConfigurationAndSWHardeningNeeded": 5, "OutOfDateConfigurationNeeded": 5, "Revoked": -1}  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "rank", "passes"),
    [
        ("platform", PLATFORM, True),
        ("platform", PLATFORM | {"Revoked": 5}, False),
        ("platform", PLATFORM | {"OutOfDate": 8}, False),
        ("platform", PLATFORM | {"More": 1}, False),
        ("servtd", {"UpToDate": 4, "OutOfDate": 4, "Revoked": 3}, True),
        ("servtd", {"UpToDate": 4, "Revoked": 3}, False),
    ],
)
def test_ranks_are_compared_by_order_and_names(run, scale, rank, passes):
    assert run("v2_status_rank", {"scale": scale, "rank": rank}).endswith(
        f"{int(passes)} passed, {1 - passes} failed\n"
    )


@pytest.mark.parametrize(
    ("section", "row", "trouble"),
    [
        ("v2_parse", {"kind": "x", "text": ""}, "there is no kind 'x'"),
        ("v2_parse", {"kind": "collaterals"}, "the row has no field 'base'"),
        ("v2_signature", {"kind": "x"}, "there is no kind 'x'"),
        ("v2_collateral_lookup", {"collaterals": "collaterals.json", "fmspc": "", "op": "x"}, "there is no op 'x'"),
        ("v2_status_rank", {"scale": "x", "rank": {}}, "there is no scale 'x'"),
        ("v2_block", {"block": [], "value": {"x": 1}, "relative": {}, "skip_global": True}, "there is no value x"),
        ("v2_prop_int", {**EQUAL, "reference": "5", "reference_kind": "x", "value": 5}, "there is no reference_kind"),
        ("init_tdinfo_owner",
         {"init_tdinfo_hex": TDINFO, "peer_supplemental": {"zeros": 8, "patch": [[8, "00"]]}}, "a patch at 8"),
        ("v2_svn_mapping", {"mapping": "absent.json", "measurements": {}}, "data file absent.json"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_run_is_a_failed_row(run, section, row, trouble):
    shown = run(section, row | {"expected": "OK"})
    assert f"FAILED x-1 ({section}): {trouble}" in shown
    assert shown.endswith("0 passed, 1 failed\n")


def test_numbers_of_a_change_are_written_as_the_row_has_them(run):
    for number, expected in (("1", "OK"), ("1.0", "REFUSED"), ("-0", "REFUSED"), ("1e0", "REFUSED")):
        row = f'{{"id":"n","kind":"policy_data","base":"data.json","expected":"{expected}",'
        row += f'"change":{{"set":{{"policySvn":{number}}}}}}}'
        text = f'{{"meta":{{"format":"policy-cases 1","root":"data"}},"v2_parse":[{row}]}}'
        assert run("v2_parse", text) == "1 passed, 0 failed\n"


def test_a_signed_document_of_another_name_is_no_policy(run):
    text = signed("tdIdentity", "1", POLICY)
    assert run("v2_parse", {"kind": "raw_policy", "text": text, "expected": "REFUSED"}) == "1 passed, 0 failed\n"

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policies of collateral, collaterals documents, ServTD documents: byte for byte those of the reference's tools."""

from __future__ import annotations

import json

import pytest

from lab.policy_tools import cli_policy_generator, cli_servtd_generator, generate, measurements, servtd
from lab.policy_tools.errors import ToolError
from lab.policy_tools.items import Chained, Items, collaterals_document
from migtd.attestation.quote import failures as quote_failures
from migtd.attestation.quote.pem import CERTIFICATE, X509_CRL, pull_pem
from vmm_stub.quoting.maker import V4, V5_TDX_1_0, V5_TDX_1_5
from vmm_stub.testing_quoting import machine

MACHINE = machine()
MATERIAL = MACHINE.material
TCB_INFOS = dict(MATERIAL.tcb_infos)
IDENTITY = MATERIAL.collateral.qe_identity


def kind_of(call, *arguments, **named):
    with pytest.raises(ToolError) as caught:
        call(*arguments, **named)
    assert caught.value.status == 1
    return caught.value.kind.id


def changed(body, change):
    document = json.loads(body)
    change(document)
    return json.dumps(document).encode()


# --- policies ------------------------------------------------------------------------------------------------------
def test_policy_v1_takes_the_first_level_of_everything_and_ends_without_a_newline():
    text = generate.policy_v1(TCB_INFOS, IDENTITY)
    policy = json.loads(text)
    assert text.startswith(b'{\n    "id": "F65CD566-4D67-45EF-88E3-79963901B292",\n    "policy": [\n')
    assert text.endswith(b"\n    ]\n}")
    assert [next(iter(block)) for block in policy["policy"]][-1] == "MigTD"
    fmspc, body = next(iter(TCB_INFOS.items()))
    first = json.loads(body)["tcbInfo"]["tcbLevels"][0]["tcb"]
    block = policy["policy"][0]
    assert block["fmspc"] == fmspc
    assert block["Platform"]["TcbInfo"]["pcesvn"] == {"operation": "greater-or-equal", "reference": first["pcesvn"]}
    components = block["Platform"]["TcbInfo"]["tdxtcbcomponents"]["reference"]
    assert components == [each["svn"] for each in first["tdxtcbcomponents"]]


def test_pre_production_policies_have_their_own_id():
    policy = json.loads(generate.policy_v1(TCB_INFOS, IDENTITY, pre_production=True))
    assert policy["id"] == "B87BFE45-9CC7-46F9-8F2C-A6CB55BF7101"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["tcbInfo"].pop("tdxModuleIdentities"),
        lambda d: d["tcbInfo"].pop("tcbLevels"),
        lambda d: d["tcbInfo"].update(tcbLevels=[]),
        lambda d: d["tcbInfo"]["tcbLevels"][0]["tcb"].update(pcesvn=-1),
        lambda d: d["tcbInfo"]["tcbLevels"][0]["tcb"].update(pcesvn=True),
        lambda d: d["tcbInfo"]["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop(),
        lambda d: d["tcbInfo"]["tdxModuleIdentities"][0].update(id="TDX_04"),
        lambda d: d["tcbInfo"]["tdxModuleIdentities"].append("TDX_01"),
        lambda d: d.update(tcbInfo=[]),
    ],
)
def test_tcb_info_of_another_form_makes_no_policy(change):
    fmspc, body = next(iter(TCB_INFOS.items()))
    assert kind_of(generate.policy_v1, {fmspc: changed(body, change)}, IDENTITY) == "LAB-COLLATERAL-INVALID"


def test_documents_that_are_no_json_make_no_policy():
    assert kind_of(generate.policy_v1, {"00": b"{"}, IDENTITY) == "LAB-COLLATERAL-INVALID"
    assert kind_of(generate.policy_v1, TCB_INFOS, b"\xff") == "LAB-COLLATERAL-INVALID"
    assert kind_of(generate.policy_v1_of_collaterals, b"[]") == "LAB-COLLATERAL-INVALID"
    assert kind_of(generate.policy_v2, b"[]", b"{}", b"{}") == "LAB-TOOL-JSON-INVALID"
    assert kind_of(generate.policy_v2, b"{}", b"{", b"{}") == "LAB-TOOL-JSON-INVALID"


def test_policy_v2_keeps_the_order_and_replaces_in_place():
    base = b'{ "servtdCollateral": 1, "id": "x", "n": 1.50 }\n'
    assert generate.policy_v2(base, b"[ 1 ]", b'{"b":2}') == (
        b'{"servtdCollateral":{"b":2},"id":"x","n":1.5,"collaterals":[1]}'
    )


# --- ServTD documents ----------------------------------------------------------------------------------------------
def test_bundle_embeds_raw_text_between_compact_keys():
    made = servtd.bundle(b' { "a" : 1 }\n', "zä\n".encode(), b"[1.0]", b'"')
    assert (
        made
        == (
            '{"majorVersion":1,"minorVersion":0,"servtdIdentity":{ "a" : 1 },"servtdIdentityIssuerChain":"zä\\n",'
            '"servtdTcbMapping":[1.0],"servtdTcbMappingIssuerChain":"\\""}'
        ).encode()
    )


def test_bundle_refuses_what_is_no_json_or_no_text():
    assert kind_of(servtd.bundle, b"{", b"", b"{}", b"") == "LAB-TOOL-JSON-INVALID"
    assert kind_of(servtd.bundle, b"{} {}", b"", b"{}", b"") == "LAB-TOOL-JSON-INVALID"
    assert kind_of(servtd.bundle, b"{}", b"\xff", b"{}", b"") == "LAB-TOOL-TEXT-INVALID"


@pytest.mark.parametrize("shape", [V4, V5_TDX_1_0, V5_TDX_1_5])
def test_measurements_of_a_quote_and_of_its_report_are_the_same(shape):
    report = MACHINE.report()
    from_quote = measurements.pull_measurements(MACHINE.quote(shape, report))
    from_report = measurements.pull_measurements(report)
    assert from_quote == from_report
    document = json.loads(measurements.push_measurements(from_quote))
    assert list(document)[:7] == ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "xfam", "attributes"]
    assert document["xfam"] == "E718060000000000"
    assert (document["isvProdId"], document["isvsvn"], document["servtdHash"]) == (0, 1, "00" * 48)


def test_files_that_are_no_evidence_are_refused():
    quote = MACHINE.quote()
    for data in (b"", bytes(1024), b"\x81" + bytes(1022), quote[:600], b"\3" + quote[1:], bytes(5000)):
        assert kind_of(measurements.pull_measurements, data) == "LAB-TOOL-EVIDENCE-UNREADABLE"
    v5 = bytearray(MACHINE.quote(V5_TDX_1_0))
    v5[48] = 9
    assert kind_of(measurements.pull_measurements, bytes(v5)) == "LAB-TOOL-EVIDENCE-UNREADABLE"


def test_identity_and_mapping_take_over_measurements():
    measured = measurements.push_measurements(measurements.pull_measurements(MACHINE.quote()))
    values = json.loads(measured)
    identity = json.loads(servtd.identity(measured, isvsvn=5))
    assert identity["xfam"] == values["xfam"]
    assert identity["tcbLevels"][0]["tcb"] == {"isvsvn": 5}
    template = b'{"z":1,"svnMappings":[{"isvsvn":9,"tdMeasurements":{"rtmr3":"00"}},{"isvsvn":8}]}'
    made = servtd.mapping(measured, template)
    assert made.startswith(b'{"z":1,"svnMappings":[{"isvsvn":1,"tdMeasurements":{"rtmr3":"00","mrtd":"')
    assert json.loads(made)["svnMappings"][1] == {"isvsvn": 8}
    assert json.loads(servtd.mapping(measured))["svnMappings"][0]["tdMeasurements"]["mrtd"] == values["mrtd"]


@pytest.mark.parametrize(
    ("measured", "template", "isvsvn"),
    [
        (b"[]", None, 1),
        (b'{"mrtd":"00"}', None, 1),
        (None, b'{"svnMappings":[]}', 1),
        (None, b'{"svnMappings":{}}', 1),
        (None, b"[]", 1),
        (None, None, 65536),
    ],
)
def test_documents_that_do_not_fit_make_no_mapping(measured, template, isvsvn):
    given = measured or measurements.push_measurements(measurements.pull_measurements(MACHINE.quote()))
    assert kind_of(servtd.mapping, given, template, isvsvn) == "LAB-SERVTD-INVALID"


# --- console scripts -----------------------------------------------------------------------------------------------
@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {"base": b'{"id":"x"}', "c": b"{}", "s": b'{"t":1}', "bad": b"{"}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["v2", "--policy-data", "base", "--collaterals", "c", "--servtd-collateral", "s", "-o", "out"], 0),
        (["v2", "--policy-data", "base", "--servtd-collateral", "s", "-o", "out"], 1),
        (["v2", "--policy-data", "base", "--collaterals", "c", "-o", "out"], 1),
        (["v2", "--policy-data", "bad", "--collaterals", "c", "--servtd-collateral", "s", "-o", "out"], 1),
        (["v2", "--collaterals", "c", "--servtd-collateral", "s", "-o", "out"], 2),
        (["v2", "--policy-data", "base", "--collaterals", "c", "--servtd-collateral", "s"], 2),
        (["--collaterals", "c"], 2),
        (["--collaterals", "bad", "-o", "out"], 1),
        (["--collaterals", "c", "--from-files", ".", "-o", "out"], 2),
        (["v3"], 2),
    ],
)
def test_policy_generator_statuses(files, arguments, status):
    assert cli_policy_generator.main(arguments) == status
    assert (files / "out").exists() == (status == 0)
    if status == 0:
        assert (files / "out").read_bytes() == b'{"id":"x","collaterals":{},"servtdCollateral":{"t":1}}'


def test_servtd_generator_statuses(files):
    whole = ["--identity", "s", "--identity-chain", "base", "--mapping", "c", "--mapping-chain", "base", "-o", "out"]
    assert cli_servtd_generator.main(whole) == 0
    assert json.loads((files / "out").read_bytes())["servtdIdentity"] == {"t": 1}
    assert cli_servtd_generator.main([*whole[:-1], "no/out"]) == 1
    assert cli_servtd_generator.main(["--identity", "bad", *whole[2:]]) == 1
    assert cli_servtd_generator.main(whole[2:]) == 2


# --- vectors -------------------------------------------------------------------------------------------------------
COLLATERALS = (
    ("config/collateral_production_fmspc.json", "config/policy_production_fmspc.json"),
    ("src/policy/test/policy_v2/collaterals.json", "config/policy_pre_production_fmspc.json"),
    ("config/AzCVMEmu/collateral_azure_thim.json", None),
)


@pytest.mark.shared
@pytest.mark.parametrize(("collaterals", "policy"), COLLATERALS)
def test_generated_policies_of_the_vectors_come_out_byte_for_byte(shared, collaterals, policy):
    upstream = shared / "vectors/policy/upstream"
    if policy:
        made = generate.policy_v1_of_collaterals(
            (upstream / collaterals).read_bytes(), pre_production="pre_production" in policy
        )
        assert made == (upstream / policy).read_bytes()


@pytest.mark.shared
@pytest.mark.parametrize("name", [name for name, _ in COLLATERALS])
def test_collaterals_of_the_vectors_come_out_byte_for_byte(shared, name):
    document = (shared / "vectors/policy/upstream" / name).read_bytes()
    parts = json.loads(document)

    def der(text, label):
        return pull_pem(text.encode(), label, quote_failures.COLLATERAL_MALFORMED)[0]

    pck_crl = parts["pckCrl"]
    items = Items(
        {each["fmspc"]: Chained(each["tcbInfo"].encode(), each["tcbInfoIssuerChain"]) for each in parts["platforms"]},
        Chained(parts["qeIdentity"].encode(), parts["qeIdentityIssuerChain"]),
        # With a final newline it came as PEM and was kept.
        Chained(pck_crl.encode() if pck_crl.endswith("\n") else der(pck_crl, X509_CRL), parts["pckCrlIssuerChain"]),
        der(parts["rootCa"], CERTIFICATE),
        der(parts["rootCaCrl"], X509_CRL),
    )
    assert collaterals_document(items) == document


@pytest.mark.shared
def test_policy_data_of_the_vectors_comes_out_byte_for_byte(shared):
    folder = shared / "vectors/policy/upstream/src/policy/test/policy_v2"
    data = (folder / "policy_data.json").read_bytes()
    base = {key: value for key, value in json.loads(data).items() if not key.lower().endswith(("terals", "teral"))}
    parts = ((folder / name).read_bytes() for name in ("collaterals.json", "servtd_collateral.json"))
    assert generate.policy_v2(json.dumps(base, indent=1).encode(), *parts) == data


@pytest.mark.shared
def test_captured_quote_of_the_vectors_has_the_measurements_of_its_description(shared):
    quote = (shared / "vectors/policy/upstream/extracted/mock_quote.bin").read_bytes()
    document = measurements.pull_measurements(quote).document()
    assert str(document["mrtd"]).startswith("556FD5FC")
    assert str(document["rtmr2"]).startswith("114A31AF")
    assert document["xfam"] == "E718060000000000"

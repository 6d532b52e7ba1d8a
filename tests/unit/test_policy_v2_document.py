# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What is decoded of a v2 policy: policyData, collaterals, identity, mapping, entries (policy.md 2.3, 2.4, 2.6)."""

from __future__ import annotations

import json

import pytest

from migtd.attestation.quote.pem import push_pem
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.v2.collaterals import read_collaterals
from migtd.policy.v2.decoding import decode
from migtd.policy.v2.document import parse_policy_data
from migtd.policy.v2.entries import GlobalEntry, ServtdEntry, read_entries
from migtd.policy.v2.properties import IntegerList, StringList
from migtd.policy.v2.servtd import Measurements, TcbLevel, parse_identity, parse_mapping
from tests.unit.policy_v2_world import World, compact, identity, level, mapping, svn_mapping

INVALID = PolicyErrorName.InvalidPolicy
A, B, C, D, E = (bytes((number,)) * 48 for number in b"\xa1\xb2\xc3\xd4\xe5")


def verdict(call, *arguments):
    try:
        call(*arguments)
    except PolicyError as error:
        return error.name.name
    return "OK"


@pytest.fixture(scope="module")
def data():
    return json.loads(World().policy_data_text())


def read_data(document):
    return parse_policy_data(compact(document))


def entries(text):
    return decode(text, read_entries, INVALID)


# --- policyData ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "OK"),
        ({"zzz": {"a": 1}}, "OK"),
        ({"policy": None, "forwardPolicy": None, "backwardPolicy": None}, "OK"),
        ({"policySvn": 2**32 - 1}, "OK"),
        ({"policySvn": 2**32}, "InvalidPolicy"),
        ({"policySvn": -1}, "InvalidPolicy"),
        ({"policySvn": 1.0}, "InvalidPolicy"),
        ({"policySvn": True}, "InvalidPolicy"),
        ({"policySvn": None}, "InvalidPolicy"),
        ({"policySvn": "1"}, "InvalidPolicy"),
        ({"id": None}, "InvalidPolicy"),
        ({"id": "", "version": "x"}, "OK"),
        ({"policy": {}}, "InvalidPolicy"),
        ({"collaterals": None}, "InvalidPolicy"),
        ({"servtdCollateral": {}}, "InvalidPolicy"),
    ],
)
def test_policy_data(data, change, expected):
    assert verdict(read_data, data | change) == expected


@pytest.mark.parametrize(
    "name",
    ["id", "version", "policySvn", "policy", "forwardPolicy", "backwardPolicy", "collaterals", "servtdCollateral"],
)
def test_only_blocks_may_be_absent(data, name):
    rest = {key: value for key, value in data.items() if key != name}
    assert verdict(read_data, rest) == ("OK" if name.lower().endswith("policy") else "InvalidPolicy")


def test_all_structures_may_be_given_as_arrays_of_their_fields_in_order(data):
    names = (
        "id",
        "version",
        "policySvn",
        "policy",
        "forwardPolicy",
        "backwardPolicy",
        "collaterals",
        "servtdCollateral",
    )
    collaterals = list(data["collaterals"].values())
    collaterals[7] = [list(platform.values()) for platform in data["collaterals"]["platforms"]]
    servtd = data["servtdCollateral"]
    parts = [servtd[name] for name in ("majorVersion", "minorVersion", "servtdIdentityIssuerChain")]
    parts += [list(servtd["servtdIdentity"].values()), servtd["servtdTcbMappingIssuerChain"]]
    parts += [list(servtd["servtdTcbMapping"].values())]
    document = data | {"collaterals": collaterals, "servtdCollateral": parts}
    as_array = [document.get(name) for name in names]
    assert read_data(as_array) == read_data(data | {"backwardPolicy": None})
    assert verdict(read_data, as_array[:-1]) == "InvalidPolicy"
    assert verdict(read_data, [*as_array, None]) == "InvalidPolicy"


def test_a_known_key_twice_is_refused_and_an_unknown_one_is_not(data):
    text = compact(data)
    assert verdict(parse_policy_data, text[:-1] + ',"zz":1,"zz":2}') == "OK"
    assert verdict(parse_policy_data, text[:-1] + ',"policySvn":4}') == "InvalidPolicy"


def test_values_that_are_not_decoded_may_be_odd_and_decoded_ones_may_not(data):
    text = compact(data)
    for odd in ('"\\ud800"', "1e999", "[" * 200 + "]" * 200):
        assert verdict(parse_policy_data, f'{text[:-1]},"zz":{odd}}}') == "OK"
        assert verdict(parse_policy_data, text.replace('"test policy"', odd, 1)) == "InvalidPolicy"
        raw = text.replace('"tdIdentity":{', f'"tdIdentity":{{"odd":{odd},', 1)
        assert verdict(parse_policy_data, raw) == "OK"


# --- collaterals ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"majorVersion": 65536}, "InvalidPolicy"),
        ({"teeType": 2**32 - 1}, "OK"),
        ({"teeType": 2**32}, "InvalidPolicy"),
        ({"platforms": []}, "OK"),
        ({"platforms": [{"fmspc": "x", "tcbInfoIssuerChain": ""}]}, "InvalidPolicy"),
        ({"rootCa": None}, "InvalidPolicy"),
        ({"qeIdentity": {}}, "InvalidPolicy"),
    ],
)
def test_collaterals(change, expected):
    text = compact(World().collaterals() | change)
    assert verdict(decode, text, read_collaterals, INVALID) == expected


def collaterals(**change):
    return decode(compact(World().collaterals() | change), read_collaterals, INVALID)


def platform(fmspc, tcb_info="{}"):
    return {"fmspc": fmspc, "tcbInfoIssuerChain": "", "tcbInfo": tcb_info}


def test_a_platform_is_the_first_of_exactly_the_upper_case_text():
    made = collaterals(
        platforms=[platform("a0b1c2d3e4f5", "1"), platform("A0B1C2D3E4F5", "2"), platform("A0B1C2D3E4F5")]
    )
    assert made.platform("A0B1C2D3E4F5").tcb_info == "2"
    assert verdict(made.platform, "B0B1C2D3E4F5") == "InvalidCollateral"


@pytest.mark.parametrize(
    ("tcb_info", "expected"),
    [
        ('{"tcbInfo":{"tcbEvaluationDataNumber":18,"x":[]},"signature":"00"}', 18),
        ('{"tcbInfo":{"tcbEvaluationDataNumber":4294967296}}', "InvalidCollateral"),
        ('{"tcbInfo":{"tcbEvaluationDataNumber":"18"}}', "InvalidCollateral"),
        ('{"tcbInfo":{}}', "InvalidCollateral"),
        ("{}", "InvalidCollateral"),
        ("", "InvalidCollateral"),
        ("[" * 100_000, "InvalidCollateral"),
    ],
)
def test_the_evaluation_number_is_in_the_tcb_info(tcb_info, expected):
    made = collaterals(platforms=[platform("A", tcb_info)]).platform("A")
    if isinstance(expected, int):
        assert made.tcb_evaluation_number() == expected
    else:
        assert verdict(made.tcb_evaluation_number) == expected


def test_the_set_of_a_platform_is_what_its_quotes_are_verified_with():
    world = World()
    made = collaterals()
    assert made.set_of(made.platforms[0]) == world.platform.collateral()
    assert made.root_key() == world.platform.root_key()
    assert (made.pck_crl_number(), made.root_ca_crl_number()) == (8, 3)
    with_nul = collaterals(qeIdentity="{}\0")
    assert verdict(with_nul.set_of, with_nul.platforms[0]) == "InvalidCollateral"


@pytest.mark.parametrize(
    "root", ["", "no PEM", push_pem(b"\x30\x00", "CERTIFICATE").decode(), "-----BEGIN CERTIFICATE-----"]
)
def test_a_root_that_cannot_be_read_is_invalid_collateral(root):
    assert verdict(collaterals(rootCa=root).root_key) == "InvalidCollateral"


def test_the_first_certificate_of_the_root_counts():
    world = World()
    made = collaterals(rootCa=world.platform.chain(["root", "ca"]).decode())
    assert made.root_key() == world.platform.root_key()


# --- identity and mapping ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "OK"),
        ({"version": 99, "issueDate": "never", "nextUpdate": "", "xfam": "zz"}, "OK"),
        ({"tcbLevels": []}, "OK"),
        ({"tcbLevels": [level(65536)]}, "InvalidServtdIdentity"),
        ({"mrOwner": None}, "InvalidServtdIdentity"),
        ({"isvProdId": 65536}, "InvalidServtdIdentity"),
    ],
)
def test_identity(change, expected):
    assert verdict(parse_identity, compact(identity() | change)) == expected


def test_names_differ_in_a_capital_letter_between_identity_and_mapping():
    other = {name.replace("mrsigner", "mrSigner"): value for name, value in identity().items()}
    assert verdict(parse_identity, compact(other)) == "InvalidServtdIdentity"
    renamed = {name.replace("mrSigner", "mrsigner"): value for name, value in mapping().items()}
    assert verdict(parse_mapping, compact(renamed)) == "InvalidServtdTcbMapping"
    assert verdict(parse_mapping, compact(mapping())) == "OK"


@pytest.mark.parametrize(
    ("svns", "wanted", "found"),
    [
        ([3, 1], 3, 0),
        ([3, 1], 2, 1),
        ([3, 1], 9, 0),
        ([3, 1], 0, None),
        ([1, 3], 3, 1),
        ([2, 2, 1], 2, 1),
        ([], 5, None),
        ([3], None, None),
    ],
)
def test_a_level_is_the_highest_that_is_not_above_and_the_last_of_equals(svns, wanted, found):
    levels = [level(svn, f"date {index}") for index, svn in enumerate(svns)]
    parsed = parse_identity(compact(identity() | {"tcbLevels": levels}))
    expected = None if found is None else TcbLevel(svns[found], f"date {found}", "UpToDate")
    assert parsed.level(wanted) == expected


def svn(mappings, *found):
    return parse_mapping(compact(mapping(*mappings))).svn(Measurements(*found))


def test_the_first_mapping_that_the_measurements_meet_counts():
    first, second = svn_mapping(1, mrtd=A, rtmr0=B, rtmr1=C), svn_mapping(2, mrtd=A, rtmr0=B, rtmr1=C)
    assert svn([first, second], A, B, C, D, E) == 1
    assert svn([second, first], A, B, C) == 2
    assert svn([first], A, B, D) is None
    assert svn([first], A, D, C) is None
    assert svn([first], D, B, C) is None
    assert svn([first], None, B, C) is None
    assert svn([], A, B, C) is None


def test_rtmr2_and_rtmr3_are_open_unless_they_are_pinned_and_then_must_be_known():
    pinned = svn_mapping(5, mrtd=A, rtmr0=B, rtmr1=C, rtmr3=E)
    assert svn([pinned], A, B, C, D, E) == 5
    assert svn([pinned], A, B, C, None, E) == 5
    assert svn([pinned], A, B, C, D, D) is None
    assert svn([pinned], A, B, C) is None
    null = {"tdMeasurements": pinned["tdMeasurements"] | {"rtmr3": None}, "isvsvn": 6}
    assert svn([null], A, B, C) == 6


def test_the_case_of_hex_does_not_count_and_nothing_else_is_folded():
    lower = {"tdMeasurements": {"mrtd": A.hex(), "rtmr0": B.hex().upper(), "rtmr1": C.hex()}, "isvsvn": 7}
    assert svn([lower], A, B, C) == 7
    spaced = {"tdMeasurements": {"mrtd": f" {A.hex()}", "rtmr0": B.hex(), "rtmr1": C.hex()}, "isvsvn": 7}
    assert svn([spaced], A, B, C) is None


# --- entries -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("[]", []),
        ('[{"global":{}}]', [GlobalEntry]),
        ('[{"global":[null,null,null]}]', [GlobalEntry]),
        ('[{"global":{"tcb":{},"platform":null,"x":1}},{"servtd":{"migtdIdentity":{}}}]', [GlobalEntry, ServtdEntry]),
        ('[{"servtd":[[null,null,null]]}]', [ServtdEntry]),
        ('[{"gl\\u006fbal":{"platform":[{"operation":"","reference":""}]}}]', [GlobalEntry]),
    ],
)
def test_entries_have_one_key_of_two(text, kinds):
    assert [type(entry) for entry in entries(text)] == kinds


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "{}",
        "[null]",
        "[{}]",
        '["global"]',
        '[["global",{}]]',
        '[{"Global":{}}]',
        '[{"global":{},"servtd":{"migtdIdentity":{}}}]',
        '[{"global":{},"x":1}]',
        '[{"global":{},"global":{}}]',
        '[{"global":null}]',
        '[{"servtd":{}}]',
        '[{"servtd":{"migtdIdentity":null}}]',
        '[{"global":{"tcb":{"tcbDate":{"operation":"equal"}}}}]',
        '[{"global":{"tcb":{"tcbDate":{"reference":1}}}}]',
        '[{"global":{"tcb":{"tcbDate":{"operation":1,"reference":1}}}}]',
    ],
)
def test_other_entries_refuse_the_policy(text):
    assert verdict(entries, text) == "InvalidPolicy"


def reference(text):
    entry = f'[{{"global":{{"crl":{{"pckCrlNum":{{"operation":"anyth\\u0069ng","reference":{text}}}}}}}}}]'
    rule = entries(entry)[0].pck_crl_num
    assert rule.operation == "anything"
    return rule.reference


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4294967295", 4294967295),
        ('"s\\u0065lf"', "self"),
        ("[1,2]", IntegerList((1, 2))),
        ("[]", IntegerList(())),
        ('["a","\\u0062"]', StringList(("a", "b"))),
    ],
)
def test_references_and_the_empty_list_is_one_of_numbers(text, value):
    assert reference(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-0",
        "1.0",
        "1e0",
        "4294967296",
        "true",
        "null",
        "{}",
        '[1,"a"]',
        '["a",1]',
        "[[]]",
        "[1,-1]",
        '["\\ud800"]',
    ],
)
def test_other_references_refuse_the_policy(text):
    with pytest.raises(PolicyError) as error:
        reference(text)
    assert error.value.name is INVALID


# --- sizes ---------------------------------------------------------------------------------------------------------
def test_ten_thousand_mappings_are_read_and_searched_to_the_last():
    many = [svn_mapping(1, mrtd=number.to_bytes(48, "big"), rtmr0=B, rtmr1=C) for number in range(10_000)]
    last = svn_mapping(9, mrtd=A, rtmr0=B, rtmr1=C)
    assert svn([*many, last], A, B, C) == 9
    assert svn(many, A, B, C) is None


def test_one_megabyte_of_entries_is_read(data):
    entry = {"global": {"platform": {"fmspc": {"operation": "deny-list", "reference": ["A0B1C2D3E4F5"] * 20}}}}
    document = data | {"policy": [entry] * 4_000}
    assert len(compact(document)) > 1_000_000
    assert len(read_data(document).policy) == 4_000


@pytest.mark.parametrize("depth", [127, 128, 200_000])
def test_any_nesting_is_fine_where_nothing_is_decoded_and_refused_where_something_is(data, depth):
    deep = "[" * depth + "]" * depth
    text = compact(data | {"zz": "@"})
    assert verdict(parse_policy_data, text.replace('"@"', deep)) == "OK"
    assert verdict(parse_policy_data, text.replace('"@"', '{"a":' * depth + "1" + "}" * depth)) == "OK"
    nested = f'[{{"global":{{"tcb":{{"tcbDate":{{"operation":"equal","reference":{deep}}}}}}}}}]'
    assert verdict(entries, nested) == "InvalidPolicy"

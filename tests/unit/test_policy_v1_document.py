# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The document of a v1 policy (policy.md 1.1, 1.2)."""

from __future__ import annotations

import json
import re

import pytest

from migtd.errors import MigrationResult
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.json_reader import MAX_DOCUMENT
from migtd.policy.v1 import BlockKind, parse_policy
from migtd.policy.v1.properties import IntegerReference

GUID = "5b1E6A0C-93D4-4F7B-8A52-1C0D7E9F3A64"
QE = '{"QE": {"QeIdentity": {}}}'


def with_blocks(*blocks):
    return f'{{"id": "{GUID}", "policy": [{", ".join(blocks)}]}}'.encode()


def kinds(*blocks):
    return [block.kind.value for block in parse_policy(with_blocks(*blocks)).blocks]


def refused(data):
    with pytest.raises(PolicyError) as error:
        parse_policy(data)
    assert error.value.name is PolicyErrorName.InvalidPolicy
    return str(error.value)


# --- around the document -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("before", ["", "\0", "\0\0\n "])
@pytest.mark.parametrize("after", ["", "\0", " \n\0\0"])
def test_nuls_around_the_document_and_space_within_them_are_dropped(before, after):
    assert parse_policy(before.encode() + with_blocks() + after.encode()).id == GUID


@pytest.mark.parametrize("around", [" \0{}", "{}\0 ", "\ufeff{}", "{} x", "{}{}", "{}\0x"])
def test_anything_else_around_it_is_refused(around):
    refused(around.replace("{}", with_blocks().decode()).encode())


@pytest.mark.parametrize("data", [b"", b"\0\0", b"null", b"[]", b'"x"', b"{}", with_blocks()[:-1], b"\xff\xfe{}"])
def test_what_is_no_policy_is_refused(data):
    refused(data)


def test_bytes_that_are_not_utf8_are_refused_even_where_nothing_is_read():
    refused(f'{{"id": "{GUID}", "policy": [], "x": "'.encode() + b'\xff"}')


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"[" * 100_000_000,
        bytes(100_000_000),
        with_blocks("[" * 100_000 + "]" * 100_000),
        with_blocks('{"QE": {"QeIdentity": {}}, "x": ' + "[" * 126 + "]" * 126 + "}"),
        with_blocks('{"QE": {"QeIdentity": {"ISVSVN": ["equal", ' + "9" * 500_000 + "]}}}"),
        with_blocks('{"QE": {"QeIdentity": {}}, "x": 1e' + "9" * 500_000 + "}"),
    ],
    ids=["deep", "deep and long", "100 MB of NULs", "deep block", "too deep by one", "huge integer", "huge exponent"],
)
def test_hostile_sizes_end_in_the_typed_error(data):
    refused(data)


def test_a_document_of_the_largest_size_is_read():
    start = with_blocks()[:-1] + b', "x": "'
    assert parse_policy(start + b"x" * (MAX_DOCUMENT - len(start) - 2) + b'"}').blocks == ()


# --- top -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "identity",
    [
        f'"{{{GUID}}}"',
        f'"{GUID[:-1]}"',
        f'"{GUID}0"',
        f'"{GUID} "',
        f'"{GUID[:-1]}g"',
        f'"{GUID.replace("-", "")}"',
        f'"{GUID[:-1]}\\u0034"',
        "null",
        "1",
    ],
)
def test_the_id_is_a_plain_guid_without_escapes(identity):
    refused(f'{{"id": {identity}, "policy": []}}'.encode())


def test_keys_may_be_escaped_and_unknown_ones_hold_anything_well_formed():
    text = f'{{"\\u0069d": "{GUID}", "x": "\\ud800", "policy": [], "x": [1e999, {"[" * 500}{"]" * 500}]}}'
    assert parse_policy(text.encode()).blocks == ()


@pytest.mark.parametrize("more", [f', "id": "{GUID}"', ', "policy": []', ', "\\ud800": 1', ', "x": 01', ', "x": "\t"'])
def test_repeated_known_keys_and_malformed_unknown_ones_are_refused(more):
    refused(with_blocks()[:-1] + f"{more}}}".encode())


def test_the_document_may_be_an_array_of_its_fields():
    assert parse_policy(f'["{GUID}", [[[{{}}]]]]'.encode()).blocks[0].kind is BlockKind.QE
    refused(f'["{GUID}"]'.encode())
    refused(f'["{GUID}", [], null]'.encode())


# --- blocks --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ('{"fmspc": "self", "Platform": {"TcbInfo": {}}}', "Platform"),
        ('{"QE": {"QeIdentity": {}}}', "QE"),
        ('{"TDXModule": {"TDXModule_Identity": {}}}', "TDXModule"),
        ('{"MigTD": {"TDINFO": {}}}', "MigTD"),
        ('{"MigTD": {"TDINFO": {}, "EventLog": null}}', "MigTD"),
        ('{"MigTD": {"EventLog": {}, "TDINFO": {}}}', "MigTD"),
        ('["x", {"TcbInfo": {}}]', "Platform"),
        ('["x", [{}]]', "Platform"),
        ("[[{}]]", "QE"),
        ('[{"TDXModule_Identity": {}}]', "TDXModule"),
        ('[{"TDINFO": {}}]', "MigTD"),
        ("[[{}, null]]", "MigTD"),
        ("[[{}, {}]]", "MigTD"),
        ('{"MigTD": {"TDINFO": {}}, "QE": {"QeIdentity": {}}}', "QE"),
        ('{"MigTD": [], "QE": {"QeIdentity": {}}}', "QE"),
        ('{"QE": 5, "MigTD": {"TDINFO": {}}}', "MigTD"),
        ('{"QE": {"QeIdentity": {}}, "QE": {"QeIdentity": {}}, "MigTD": {"TDINFO": {}}}', "MigTD"),
        ('{"fmspc": 5, "Platform": {"TcbInfo": {}}, "TDXModule": {"TDXModule_Identity": {}}}', "TDXModule"),
        ('{"fmspc": "x", "Platform": {"TcbInfo": {}}, "x": [1.5, -1, null, {"y": true}]}', "Platform"),
    ],
)
def test_the_first_shape_that_fits_is_the_block(block, kind):
    assert kinds(block) == [kind]


@pytest.mark.parametrize(
    "block",
    [
        "{}",
        "null",
        "[]",
        '"QE"',
        '{"Platform": {"TcbInfo": {}}}',
        '{"fmspc": null, "Platform": {"TcbInfo": {}}}',
        '{"QE": {}}',
        '{"QE": {"QeIdentity": []}}',
        '{"QE": {"QeIdentity": {}, "QeIdentity": {}}}',
        '{"QE": {"QeIdentity": {}}, "QE": {"QeIdentity": {}}}',
        '{"MigTD": {"EventLog": {}}}',
        '{"MigTD": {"TDINFO": {}, "EventLog": []}}',
        "[[{}, null, null]]",
        "[{}]",
        '{"QE": {"QeIdentity": {"X": {"operation": "equal"}}}}',
        '{"QE": {"QeIdentity": {"X": {"reference": 1}}}}',
        '{"QE": {"QeIdentity": {"X": {"operation": "equal", "reference": 1, "reference": 1}}}}',
        '{"QE": {"QeIdentity": {"X": ["equal", 1, 1]}}}',
        '{"QE": {"QeIdentity": {"X": {"operation": "equal", "reference": -1}, "X": ["equal", 1]}}}',
        '{"QE": {"QeIdentity": {}}, "x": "\\ud800"}',
        '{"QE": {"QeIdentity": {}}, "x": {"\\udc00": 1}}',
        '{"QE": {"QeIdentity": {}}, "x": 1e400}',
    ],
)
def test_a_block_that_fits_no_shape_or_cannot_be_decoded_refuses_the_policy(block):
    refused(with_blocks(QE, block))


def test_a_block_may_be_nested_up_to_the_limit_of_the_whole_document():
    assert kinds('{"QE": {"QeIdentity": {}}, "x": ' + "[" * 124 + "]" * 124 + "}") == ["QE"]
    refused(with_blocks('{"QE": {"QeIdentity": {}}, "x": ' + "[" * 125 + "]" * 125 + "}"))


def test_of_a_repeated_property_name_the_last_one_counts():
    rules = '"ISVSVN": {"operation": "equal", "reference": 1}, "\\u0049SVSVN": {"reference": 2, "operation": "equal"}'
    (block,) = parse_policy(with_blocks(f'{{"QE": {{"QeIdentity": {{{rules}}}}}}}')).blocks
    assert block.properties["ISVSVN"].reference == IntegerReference(2)


def test_blocks_keep_their_order():
    blocks = ('{"MigTD": {"TDINFO": {}}}', '{"QE": {"QeIdentity": {}}}', '{"fmspc": "A", "Platform": {"TcbInfo": {}}}')
    assert kinds(*blocks) == ["MigTD", "QE", "Platform"]


# --- errors --------------------------------------------------------------------------------------------------------
def test_a_refusal_says_where_and_why():
    text = json.dumps({"id": GUID, "policy": [{"QE": {"QeIdentity": {"X": ["same", 1]}}}]}, indent=1)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "same" in each)
    assert re.search(
        rf"line {line}, column \d+: this fits no kind of block: there is no such operation", refused(text.encode())
    )


def test_an_invalid_policy_leaves_as_invalid_policy_error():
    with pytest.raises(PolicyError) as error:
        parse_policy(b"")
    outside = error.value.as_migtd_error()
    assert outside.result is MigrationResult.InvalidPolicyError
    assert outside.kind.id == "MIGTD-POLICY-INVALID-POLICY"
    unqualified = PolicyError(PolicyErrorName.UnqualifiedQeInfo).as_migtd_error()
    assert unqualified.result is MigrationResult.PolicyUnsatisfiedError

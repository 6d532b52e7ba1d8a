# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reading and applying a property of a v1 policy (policy.md 1.3, 1.4)."""

from __future__ import annotations

import json

import pytest

from migtd.policy.errors import JsonError
from migtd.policy.json_reader import Reader
from migtd.policy.v1.properties import (
    U64_MAX,
    ArrayReference,
    Compared,
    IntegerReference,
    LocalReference,
    Operation,
    RangeReference,
    TextReference,
    read_property,
)


def property_of(reference, operation="equal"):
    return read_property(Reader(f'{{"operation": "{operation}", "reference": {reference}}}'))


def holds(operation, reference, peer, local=b"", *, is_source=True):
    return property_of(json.dumps(reference), operation).holds(Compared(local, peer, is_source))


@pytest.mark.parametrize(
    ("written", "reference"),
    [
        ("0", IntegerReference(0)),
        (str(U64_MAX), IntegerReference(U64_MAX)),
        ("[]", ArrayReference(b"")),
        ("[0, 255]", ArrayReference(b"\x00\xff")),
        ('"self"', LocalReference()),
        ('"s\\u0065lf"', LocalReference()),
        ('"Self"', TextReference("Self")),
        ('""', TextReference("")),
        ('".."', RangeReference(0, U64_MAX)),
        ('"1..2"', RangeReference(1, 2)),
        ('"1.\\u002e2"', RangeReference(1, 2)),
        ('"+1..+2"', RangeReference(1, 2)),
        ('"007.."', RangeReference(7, U64_MAX)),
        ('"..18446744073709551615"', RangeReference(0, U64_MAX)),
        ('"10..5"', RangeReference(10, 5)),
        ('"5..."', TextReference("5...")),
        ('"1..2..3"', TextReference("1..2..3")),
        ('"...."', TextReference("....")),
        ('"-5..10"', TextReference("-5..10")),
        ('" 5..10"', TextReference(" 5..10")),
        ('"+..1"', TextReference("+..1")),
        ('"++1..2"', TextReference("++1..2")),
        ('"\u0661..2"', TextReference("\u0661..2")),
        ('"1_0..20"', TextReference("1_0..20")),
        ('"18446744073709551616.."', TextReference("18446744073709551616..")),
        ('"self..self"', TextReference("self..self")),
    ],
)
def test_the_json_value_decides_the_kind_of_reference(written, reference):
    assert property_of(written).reference == reference
    assert property_of(written).written == written


def test_a_range_may_be_written_with_any_number_of_zeros():
    assert property_of(f'"{"0" * 10_000}1..2"').reference == RangeReference(1, 2)
    huge = "9" * 10_000
    assert property_of(f'"1..{huge}"').reference == TextReference(f"1..{huge}")


@pytest.mark.parametrize(
    "written",
    ["-0", "-1", "1.0", "1e0", "1e3", "18446744073709551616", "9" * 100_000, "true", "null", "{}", "[[]]", "[256]",
     "[-1]", "[-0]", "[1.0]", '["1"]', '"\\ud800"'],
)  # fmt: skip
def test_other_json_values_are_refused(written):
    with pytest.raises(JsonError):
        property_of(written)


@pytest.mark.parametrize("operation", ["Equal", "equal ", "", "eq\\u0075al", "not-equal", "allow-list"])
def test_operations_are_few_and_written_without_escapes(operation):
    with pytest.raises(JsonError):
        property_of("1", operation)


def test_a_property_may_be_an_array_of_operation_and_reference():
    found = read_property(Reader('["subset", [1]]'))
    assert (found.operation, found.reference) == (Operation.SUBSET, ArrayReference(b"\x01"))


def test_an_integer_is_compared_with_up_to_eight_little_endian_bytes():
    assert holds("equal", 0x0201, b"\x01\x02")
    assert holds("equal", 0, b"")
    assert holds("greater-or-equal", U64_MAX, b"\xff" * 8)
    assert not holds("greater-or-equal", 0, bytes(9))
    assert not holds("greater-or-equal", 2, b"\x01")


def test_a_text_is_upper_case_hex():
    assert holds("equal", "AB01", b"\xab\x01")
    assert not holds("equal", "ab01", b"\xab\x01")
    assert holds("equal", "", b"")
    assert not holds("array-equal", "AB01", b"\xab\x01")


def test_a_range_excludes_its_end_and_only_its_end():
    for operation in ("in-range", "in-time-range"):
        assert [holds(operation, "3..5", bytes([peer])) for peer in range(2, 7)] == [False, True, True, False, False]
    assert not holds("in-range", "..", b"\xff" * 8)
    assert not holds("in-range", "10..5", b"\x07")
    assert not holds("equal", "5..6", b"\x05")


def test_an_array_is_compared_with_as_many_bytes_and_has_no_direction():
    for is_source in (True, False):
        assert holds("array-greater-or-equal", [1, 2], b"\x01\x03", is_source=is_source)
        assert not holds("array-greater-or-equal", [2, 2], b"\x01\x03", is_source=is_source)
    assert not holds("array-equal", [1, 2], b"\x01")
    assert holds("array-equal", [], b"")
    assert not holds("equal", [1], b"\x01")


@pytest.mark.parametrize("operation", ["greater-or-equal", "array-greater-or-equal"])
def test_the_destination_must_not_be_worse_than_the_source(operation):
    better, worse = b"\x02\x02", b"\x01\x02"
    assert holds(operation, "self", local=worse, peer=better, is_source=True)
    assert not holds(operation, "self", local=better, peer=worse, is_source=True)
    assert holds(operation, "self", local=better, peer=worse, is_source=False)
    assert not holds(operation, "self", local=worse, peer=better, is_source=False)


def test_the_own_value_is_compared_only_with_one_of_its_length():
    for operation in ("equal", "array-equal", "greater-or-equal", "array-greater-or-equal"):
        assert holds(operation, "self", b"\x05", b"\x05")
        assert not holds(operation, "self", b"\x05\x00", b"\x05")
    assert not holds("greater-or-equal", "self", bytes(9), bytes(9))
    assert holds("array-greater-or-equal", "self", bytes(9), bytes(9))


@pytest.mark.parametrize("reference", [1, [1], "01", "self", "0..9"])
def test_subset_is_never_true(reference):
    assert not holds("subset", reference, b"\x01", b"\x01")

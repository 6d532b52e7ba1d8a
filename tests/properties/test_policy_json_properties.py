# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The strict JSON reader beside the standard library's: the same values, and the same texts refused."""

from __future__ import annotations

import json
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from migtd.policy.errors import JsonError
from migtd.policy.json_reader import Kind, Reader, text_of
from migtd.policy.json_scan import beyond_double

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6), max_leaves=30
)
LAYOUTS = st.fixed_dictionaries({"indent": st.sampled_from([None, 0, 3]), "ensure_ascii": st.booleans()})
MARKS = ['"', "\\", "\\u", "\\ud800", "\\udc00", "\\n", *"{}[],:01-.e", "E+", "9" * 20, "true", "false", "null", '"a":']
OTHERS = ["NaN", "Infinity", *" \t\n\x00\x1f\x7fa", "\u00a0", "\ufeff"]
FRAGMENTS = st.sampled_from([*MARKS, *OTHERS])
TEXTS = st.lists(FRAGMENTS, max_size=14).map("".join) | st.text(max_size=20)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def written(layouts=LAYOUTS):
    return st.builds(lambda value, layout: json.dumps(value, **layout), VALUES, layouts)


def mutated():
    def change(text, place, replacement, width):
        start = place % (len(text) + 1)
        return text[:start] + replacement + text[start + width :]

    return st.builds(change, written(), st.integers(0, 10_000), FRAGMENTS | st.just(""), st.integers(0, 3))


def pulled(reader):
    """The value that the reader stands before, by its typed methods."""
    match reader.kind():
        case Kind.OBJECT:
            return reader.mapping(pulled)
        case Kind.ARRAY:
            return reader.sequence(pulled)
        case Kind.STRING:
            return reader.string()
    return json.loads(reader.raw().text)


def standard(text):
    """What the standard library makes of it; None and False if it refuses."""

    def refuse(constant):
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse), True
    except ValueError:
        return None, False


def accepted(text, take):
    reader = Reader(text)
    try:
        take(reader)
        reader.end()
    except JsonError as error:
        refusal = error
    else:
        return True
    assert 0 <= refusal.offset <= len(text)
    assert refusal.described(text).startswith("line ")
    return False


@given(VALUES, LAYOUTS, st.text(" \t\r\n", max_size=4))
def test_well_formed_documents_have_the_standard_value(value, layout, space):
    text = space + json.dumps(value, **layout) + space
    reader = Reader(text_of(text.encode()))
    assert pulled(reader) == json.loads(text)
    reader.end()


@given(TEXTS | mutated())
def test_the_same_texts_are_json_as_for_the_standard_library(text):
    assert accepted(text, Reader.skip) is standard(text)[1]


@given(TEXTS | mutated())
def test_what_can_be_decoded_is_what_is_well_formed_less_lone_surrogates_and_huge_numbers(text):
    value, well_formed = standard(text)
    fit = well_formed and not LONE_SURROGATE.search(repr_of(value)) and not math.isinf(largest(value))
    assert accepted(text, Reader.skip_decodable) is fit


def repr_of(value):
    """Every key and string in a value, joined, as they are."""
    if isinstance(value, dict):
        return "".join([*value, *map(repr_of, value.values())])
    if isinstance(value, list):
        return "".join(map(repr_of, value))
    return value if isinstance(value, str) else ""


def largest(value):
    """The largest magnitude of a number in a value."""
    if isinstance(value, dict):
        return max(map(largest, value.values()), default=0.0)
    if isinstance(value, list):
        return max(map(largest, value), default=0.0)
    return abs(value) if isinstance(value, float) else 0.0


@given(st.lists(VALUES, max_size=5), LAYOUTS)
def test_raw_values_are_the_spans_of_the_text(values, layout):
    text = json.dumps(values, **layout)
    reader = Reader(text)
    raws = [reader.raw() for _ in reader.elements()]
    assert [json.loads(raw.text) for raw in raws] == values
    assert all(text[raw.start : raw.end] == raw.text == raw.text.strip() for raw in raws)


@given(st.text(), st.booleans())
def test_the_escaped_flag_tells_the_backslash(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    found = Reader(text).string_as_written()
    assert (found.value, found.escaped) == (value, "\\" in text)


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,330})(\.[0-9]{1,330})?([eE][+-]?[0-9]{1,4})?", fullmatch=True))
def test_numbers_beyond_a_double_are_those_that_it_makes_infinite(number):
    assert beyond_double(number) is math.isinf(float(number))


@given(st.binary(max_size=60))
def test_bytes_are_text_exactly_if_they_are_utf8(data):
    try:
        expected = data.decode("utf-8")
    except UnicodeDecodeError:
        expected = None
    try:
        found = text_of(data)
    except JsonError:
        found = None
    assert found == expected

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The strict JSON dialect of policies (policy.md 1.1)."""

from __future__ import annotations

import pytest

from migtd.policy.errors import JsonError
from migtd.policy.json_reader import MAX_DOCUMENT, Field, Kind, Raw, Reader, Text, text_of
from migtd.policy.json_scan import beyond_double

NAMES = (Field("a", Reader.string), Field("b", Reader.raw), Field("c", Reader.string, optional=True))


def structure(text):
    reader = Reader(text)
    values = reader.structure(*NAMES)
    reader.end()
    return values


def skips(text):
    reader = Reader(text)
    reader.skip()
    reader.end()


# --- grammar -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "null",
        " \t\r\n[ ] ",
        "{}",
        '{ "" : [ ] , "" : { } }',
        "-0",
        "0.5e+1",
        "1E400",
        '"\\ud800"',
        '"\\u0000\\/\\b"',
        '"\x7f\u2028"',
        '{"\\udc00": 1e999}',
        "[" * 100_000 + "]" * 100_000,
        '{"a":[' * 50_000 + "]}" * 50_000,
        "[1,2,3,[4,5],6]",
        '{"a":1,"b":2,"c":{"d":3},"e":4}',
        "[[],[[]],[[],[]]]",
    ],
)
def test_skipped_values_need_only_be_well_formed(text):
    skips(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\ufeff1",
        "NaN",
        "Infinity",
        "-",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "+1",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,2,3,]",
        "[1,01]",
        "[1,2.]",
        '{"a":1,}',
        '{"a":1,"b":2,}',
        "{1:2}",
        '{"a"}',
        '{"a":1,"b"}',
        '{"a" 1}',
        "{,}",
        "[}",
        "{]",
        "[[1}]",
        '{"a":1]',
        "1 2",
        "[] x",
        "]",
        "'a'",
        '"a',
        '"\\',
        '"\\x"',
        '"\\u12g4"',
        '"\\U0041"',
        '"tab\there"',
        '"nul\x00"',
        "nul",
        "True",
        "\u00a01",
        "[1,\u00a02]",
        "/**/1",
        "[" * 100_000,
        "[" * 100_000 + "]" * 99_999,
        "[" * 100_000 + "}" * 100_000,
    ],
)
def test_what_is_not_json_is_refused_even_where_it_is_skipped(text):
    with pytest.raises(JsonError):
        skips(text)


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '"\\udc00\\ud800"', '"\\ud800\\u0041"', "1e400", '{"\\ud800": 1}', "[1,-1e400]"]
)
def test_what_is_decoded_holds_no_lone_surrogate_and_no_number_beyond_a_double(text):
    skips(text)
    with pytest.raises(JsonError):
        Reader(text).skip_decodable()


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', "1e308", "[0e400, 1e-400, 0.001e310]", "9" * 309 + "e-1"])
def test_what_is_decoded_may_hold_pairs_and_any_finite_number(text):
    Reader(text).skip_decodable()


@pytest.mark.parametrize(
    ("number", "beyond"),
    [
        ("1.7976931348623157e308", False),
        ("1.7976931348623159e308", True),
        ("9" * 308, False),
        ("9" * 309, True),
        ("0." + "0" * 400 + "1e401", False),
        ("0." + "0" * 400 + "1e710", True),
        ("-1e309", True),
        ("0e" + "9" * 5000, False),
        ("1e" + "9" * 5000, True),
        ("1e-" + "9" * 5000, False),
        ("1e+" + "0" * 5000 + "8", False),
        ("1" + "0" * 5000, True),
        ("1" + "0" * 5000 + "e-5000", False),
    ],
)
def test_the_largest_double_is_the_limit_however_a_number_is_written(number, beyond):
    assert beyond_double(number) is beyond


@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_decoded_values_are_nested_up_to_127_deep(opener, closer):
    width = opener.count("[") + opener.count("{")
    for containers, fits in ((127, True), (128, False)):
        times, rest = divmod(containers, width)
        text = "[" * rest + opener * times + "1" + closer * times + "]" * rest
        if fits:
            Reader(text).skip_decodable()
        else:
            with pytest.raises(JsonError, match="127"):
                Reader(text).skip_decodable()


def test_depth_counts_from_the_outermost_container():
    def first_element(text):
        reader = Reader(text)
        for _ in reader.elements():
            for _ in reader.elements():
                reader.skip_decodable()
        reader.end()

    first_element("[[" + "[" * 125 + "]" * 125 + "]]")
    with pytest.raises(JsonError, match="127"):
        first_element("[[" + "[" * 126 + "]" * 126 + "]]")


def test_containers_that_are_entered_count_for_depth():
    def deep(reader):
        for _ in reader.elements():
            deep(reader)

    deep(Reader("[" * 127 + "]" * 127))
    with pytest.raises(JsonError, match="127"):
        deep(Reader("[" * 128 + "]" * 128))


# --- single values -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("bits", "most"), [(8, 255), (16, 65535), (32, 2**32 - 1), (64, 2**64 - 1)])
def test_integers_are_literals_of_their_width(bits, most):
    for value in (0, 1, most):
        assert Reader(f" {value} ").unsigned(bits) == value
    for text in (str(most + 1), "-0", "-1", "1.0", "1e0", "9" * 100_000, '"1"', "[1]", "null"):
        with pytest.raises(JsonError):
            Reader(text).unsigned(bits)


def test_a_string_tells_whether_it_was_written_with_escapes():
    assert Reader('"A"').string_as_written() == Text("A", escaped=False)
    assert Reader('"\\u0041"').string_as_written() == Text("A", escaped=True)
    assert Reader('"\\ud83d\\ude00"').string() == "\N{GRINNING FACE}"
    assert Reader('"\u00e4"').unescaped_string() == "\u00e4"
    with pytest.raises(JsonError):
        Reader('"\\u0041"').unescaped_string()


def test_a_raw_value_is_kept_as_written():
    text = ' [ {"a": "\\u0041\\ud800", "a": 1e999 } ] '
    reader = Reader(text)
    assert [reader.raw() for _ in reader.elements()] == [Raw(text[3:-3], 3, len(text) - 3)]
    reader.end()


def test_kinds_are_seen_without_taking_the_value():
    for text, kind in (
        ("{}", Kind.OBJECT),
        ("[]", Kind.ARRAY),
        ('""', Kind.STRING),
        ("-1", Kind.NUMBER),
        ("null", Kind.WORD),
        ("true", Kind.WORD),
    ):
        reader = Reader(f" {text}")
        assert reader.kind() is kind
        assert reader.raw().text == text


# --- structures ----------------------------------------------------------------------------------------------------
def test_a_structure_skips_unknown_keys_even_repeated_ones():
    values = structure('{"x": [1], "a": "1", "x": {"y": "\\ud800"}, "\\u0062": [ 2 ]}')
    assert (values["a"], values["b"].text, values["c"]) == ("1", "[ 2 ]", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": "1", "b": 2, "a": "1"}', "twice"),
        ('{"a": "1", "b": 2, "c": null, "\\u0063": null}', "twice"),
        ('{"a": "1"}', "missing"),
        ('{"a": null, "b": 2}', "a string is expected"),
        ('{"a": "1", "b": 2, "\\ud800": 1}', "surrogate"),
        ('["1", 2]', "2 elements"),
        ('["1", 2, null, 4]', "more elements"),
        ("[]", "0 elements"),
        ('"a"', "an object is expected"),
        ("null", "an object is expected"),
    ],
)
def test_a_structure_refuses_repeated_missing_and_surplus_fields(text, why):
    with pytest.raises(JsonError, match=why):
        structure(text)


def test_a_structure_may_be_an_array_of_its_fields():
    values = structure(' [ "1" , {} , null ] ')
    assert (values["a"], values["b"].text, values["c"]) == ("1", "{}", None)
    assert structure('["1", 2, "3"]')["c"] == "3"


def test_of_a_repeated_name_in_a_map_the_last_value_counts():
    assert Reader('{"a": "1", "b": "2", "\\u0061": "3"}').mapping(Reader.string) == {"a": "3", "b": "2"}
    with pytest.raises(JsonError):
        Reader("[]").mapping(Reader.string)


def test_a_fork_moves_on_its_own():
    reader = Reader("[1, 2]")
    first = reader.fork().sequence(lambda each: each.unsigned(8))
    assert first == reader.sequence(lambda each: each.unsigned(8)) == [1, 2]


# --- documents -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("data", [b"\xff", b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"'])
def test_a_document_is_utf8(data):
    with pytest.raises(JsonError, match="UTF-8"):
        text_of(data)


def test_a_document_is_bounded():
    assert len(text_of(b" " * MAX_DOCUMENT)) == MAX_DOCUMENT
    assert len(text_of(b" " * (MAX_DOCUMENT + 1), MAX_DOCUMENT + 1)) == MAX_DOCUMENT + 1
    with pytest.raises(JsonError, match="the most are"):
        text_of(b"[" * 100_000_000)


def test_an_error_names_line_and_column():
    text = '{\n  "a": 01\n}'
    with pytest.raises(JsonError) as refused:
        skips(text)
    assert refused.value.described(text).startswith("line 2, column 9: ")

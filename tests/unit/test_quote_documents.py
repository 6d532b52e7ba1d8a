# SPDX-License-Identifier: BSD-2-Clause-Patent
"""JSON documents and PEM text of the collateral: hostile ones end in a typed error, within bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migtd.attestation.quote import failures
from migtd.attestation.quote.der import (
    pull_common_name,
    pull_crl_issuer,
    pull_elements,
    pull_names,
    pull_signed,
    push_element,
)
from migtd.attestation.quote.documents import Reader, parse_json, parse_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, X509_CRL, pull_pem, push_pem

KIND = failures.COLLATERAL_TCB_INFO_MALFORMED
SIGNATURE = '"signature":"' + "0a" * 64 + '"'
LIMIT = 1 << 22


def parse(text: str | bytes):
    return parse_json(text.encode() if isinstance(text, str) else text, KIND, limit=LIMIT)


def signed(text: str):
    return parse_signed(text.encode(), "tcbInfo", KIND, limit=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "{} {}",
        "[1,]",
        "nan",
        "[NaN]",
        "[Infinity]",
        "[-Infinity]",
        "[01]",
        "[1 2]",
        '{"a":1,"a":1}',
        '{"b":{"a":1,"a":2}}',
        '"a\nb"',
        '"\\x"',
        "[" + "9" * 21 + "]",
        "[" + "9" * 5_000 + "]",
        "\ufeff{}",
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        "[" * 200_000 + "]" * 200_000,
        "[" * 100_000,
        '{"a":' * 100_000,
        '["' + "[" * 10,
        "\0{}",
        "{}\0",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_json_document_is_refused(data: str | bytes):
    with pytest.raises(QuoteError) as caught:
        parse(data)

    assert caught.value.kind is KIND


def test_brackets_inside_strings_are_not_nesting():
    text = '["' + "[{" * 1000 + '","\\"[[' + "[" * 100 + '"]'

    assert parse(text) == ["[{" * 1000, '"[[' + "[" * 100]


@pytest.mark.parametrize(
    "text",
    [
        '"' * LIMIT,
        '"' + '\\"' * (LIMIT // 2 - 1),
        "\\" * LIMIT,
        '{"a":"' + "\\" * (LIMIT - 10),
        " " * LIMIT,
        '{"tcbInfo":{"a":[' + '"",' * (LIMIT // 3 - 100) + "1]}," + SIGNATURE + "} x",
    ],
    ids=["quotes", "escaped quotes", "backslashes", "escapes", "spaces", "strings"],
)
def test_long_hostile_texts_are_refused_in_one_pass(text: str):
    with pytest.raises(QuoteError):
        signed(text)


def test_documents_beyond_the_limit_are_not_looked_at():
    with pytest.raises(QuoteError, match="at most 10 are read"):
        parse_json(b'"123456789"', KIND, limit=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tcbInfo":{"a":[1,"x"]},' + SIGNATURE + "}", '{"a":[1,"x"]}'),
        ("{" + SIGNATURE + ',"tcbInfo":{"a":1}}', '{"a":1}'),
        (' { "tcbInfo" :\n{ "a" : [ 1 ,\t"x y" ] } , ' + SIGNATURE + "\r\n}\n", '{"a":[1,"x y"]}'),
        ('{"tcbInfo":{"tcbInfo":{},"signature":"00"},' + SIGNATURE + "}", '{"tcbInfo":{},"signature":"00"}'),
        ('{"tcbInfo":{"a":"\\" \\\\"},' + SIGNATURE + "}", '{"a":"\\" \\\\"}'),
        ('{"tcbInfo":{"a":"\u00e4 \U0001f511"},' + SIGNATURE + "}", '{"a":"\u00e4 \U0001f511"}'),
        ('{"tcb\\u0049nfo":{"a": 1},' + SIGNATURE + "}", '{"a":1}'),
    ],
)
def test_message_is_the_text_of_the_value_without_white_space(text: str, message: str):
    document = signed(text)

    assert document.message == message.encode()
    assert document.value == parse(message)
    assert document.signature == b"\x0a" * 64


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"tcbInfo":{}}',
        "{" + SIGNATURE + "}",
        '{"tcbInfo":{},"extra":1,' + SIGNATURE + "}",
        '{"tcbInfo":{},"tcbInfo":{},' + SIGNATURE + "}",
        '{"tcbInfo":{},' + SIGNATURE + "," + SIGNATURE + "}",
        '{"tcbInfo":{},"signature":"00"}',
        '{"tcbInfo":{},"signature":null}',
        '{"tcbInfo":{},"signature":"' + "0g" * 64 + '"}',
        '{"tcbInfo":{},"signature":"' + "0a" * 64 + ' "}',
        '{"tcbInfo":{"a":1 2},' + SIGNATURE + "}",
        '{"tcbInfo":{"a":tr ue},' + SIGNATURE + "}",
        '{"tcbInfo":{},' + SIGNATURE + "}}",
        '{"tcbInfo":{},' + SIGNATURE + "}x",
    ],
)
def test_signed_document_of_another_shape_is_refused(text: str):
    with pytest.raises(QuoteError) as caught:
        signed(text)

    assert caught.value.kind is KIND


def test_messages_name_the_place():
    reader = Reader({"levels": [{"svn": 1}, {"svn": "x"}]}, KIND, "top")

    with pytest.raises(QuoteError, match=r"top\.levels\[1\]\.svn is not an integer up to 255"):
        [level.integer("svn", 255) for level in reader.structures("levels")]
    with pytest.raises(QuoteError, match="top has no name"):
        reader.text("name")


# --- PEM -----------------------------------------------------------------------------------------------------------
def test_pem_survives_push_and_pull():
    parts = [bytes(range(200)), b"", b"\x30\x00"]
    text = b"".join(push_pem(part, CERTIFICATE) for part in parts)

    assert pull_pem(text, CERTIFICATE, KIND) == parts
    assert pull_pem(text.replace(b"\n", b"\r\n"), CERTIFICATE, KIND) == parts
    assert pull_pem(text.replace(b"\n", b""), CERTIFICATE, KIND) == parts
    assert max(map(len, text.splitlines())) == 64


def test_text_and_sections_of_other_labels_are_skipped():
    text = b"talk\n" + push_pem(b"crl", X509_CRL) + b"more\n" + push_pem(b"certificate", CERTIFICATE)

    assert pull_pem(text, CERTIFICATE, KIND) == [b"certificate"]
    assert pull_pem(b"talk", CERTIFICATE, KIND) == []


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN CERTIFICATE-----\nAAAA",
        b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nAA*A\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nAAAA\0\n-----END CERTIFICATE-----",
    ],
)
def test_broken_pem_section_is_refused(text: bytes):
    with pytest.raises(QuoteError) as caught:
        pull_pem(text, CERTIFICATE, KIND)

    assert caught.value.kind is KIND


# --- DER -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 70_000])
def test_elements_survive_push_and_pull(size: int):
    encoded = push_element(0x04, bytes(size))

    (element,) = pull_elements(encoded)

    assert (element.tag, len(element.content), element.encoded) == (0x04, size, encoded)
    assert len(list(pull_elements(encoded * 3))) == 3


@pytest.mark.parametrize(
    "data", [b"\x04", b"\x04\x01", b"\x04\x05abcd", b"\x04\x82\x01", b"\x04\x84\xff\xff\xff\xff", b"\x04\xff"]
)
def test_element_that_is_cut_off_is_refused(data: bytes):
    with pytest.raises(ValueError, match="an element"):
        list(pull_elements(data))


def test_common_name_is_the_only_one():
    def name(*texts: bytes, tag: int = 0x0C) -> bytes:
        pairs = (push_element(0x30, bytes.fromhex("0603550403"), push_element(tag, text)) for text in texts)
        return push_element(0x30, *(push_element(0x31, pair) for pair in pairs))

    assert pull_common_name(name(b"one")) == "one"
    assert pull_common_name(name(b"one", tag=0x13)) == "one"
    assert pull_common_name(name(b"one", tag=0x1E)) == ""
    assert pull_common_name(name(b"one", b"two")) == ""
    assert pull_common_name(name()) == ""


@pytest.mark.parametrize("parse", [pull_signed, pull_names, pull_crl_issuer, pull_common_name])
@pytest.mark.parametrize("data", [b"", b"\x30\x00\x30\x00", b"\x31\x00", b"\x30\x02\x30\x05"])
def test_what_is_not_one_sequence_of_that_kind_is_refused(parse: Callable[[bytes], object], data: bytes):
    with pytest.raises(ValueError, match=r"\S"):
        parse(data)


@pytest.mark.parametrize("serial", [b"\x00", b"\xff", b"\x80\x00"])
def test_serial_numbers_that_are_not_positive_are_refused(serial: bytes):
    algorithm, empty = bytes.fromhex("300a06082a8648ce3d040302"), b"\x30\x00"

    def signed_part(number: bytes) -> bytes:
        return push_element(0x30, push_element(0x02, number), algorithm, empty, empty, empty, empty)

    assert pull_names(signed_part(b"\x01")) == (empty, empty)
    with pytest.raises(ValueError, match="serial"):
        pull_names(signed_part(serial))


def test_nothing_outside_the_signed_part_is_left_to_chance():
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signed, signature = push_element(0x30, b"\x02\x01\x01"), b"\x30\x03\x02\x01\x05"
    good = push_element(0x30, signed, algorithm, push_element(0x03, b"\0", signature))
    variants = [
        good.replace(algorithm, bytes.fromhex("300a06082a8648ce3d040303")),
        good.replace(algorithm, bytes.fromhex("300c06082a8648ce3d0403020500")),
        push_element(0x30, signed, algorithm, push_element(0x03, b"\1", signature)),
        push_element(0x30, signed, algorithm, push_element(0x03, b"\0", signature), b"\x05\x00"),
        b"\x30\x81" + good[1:],
        good + b"\0",
    ]

    assert pull_signed(good) == (signed, signature)
    for variant in variants:
        with pytest.raises(ValueError, match=r"\S"):
            pull_signed(variant)

# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import contextlib
import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.labfile import default_lab, parse_lab_file
from lab.labfile_commands import DEFAULT_TEXT

DEFAULT: dict[str, Any] = default_lab().model_dump(mode="json", by_alias=True, exclude_none=True)
KEYS = st.sampled_from(
    [
        *("schema", "name", "hosts", "migtds", "versions", "vcpus", "migrations", "source", "destination", "external"),
        "x",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | SCALARS, inner, max_size=3),
    max_leaves=12,
)


def result(raw: bytes) -> None:
    """Read a lab file. Anything but a lab or a typed error with a place fails the test."""
    try:
        parse_lab_file(raw, "lab.yaml")
    except UsageError as error:
        if error.kind.id not in {"LAB-FILE-INVALID", "LAB-COMES-LATER"} or "lab.yaml:" not in str(error):
            raise


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_lab_or_a_typed_error(raw: bytes):
    result(raw)


@given(st.data())
@settings(deadline=None)
def test_default_file_with_any_piece_changed_is_a_lab_or_a_typed_error(data: st.DataObject):
    start = data.draw(st.integers(0, len(DEFAULT_TEXT)))
    end = data.draw(st.integers(start, min(start + 30, len(DEFAULT_TEXT))))
    piece = data.draw(st.text(alphabet=" \n\t:-{}[]&*!#'\"|>%@`.09azA<=?,", max_size=6))

    result((DEFAULT_TEXT[:start] + piece + DEFAULT_TEXT[end:]).encode())


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(deadline=None)
def test_any_yaml_values_under_known_keys_are_a_lab_or_a_typed_error(changes: dict[str, Any]):
    with contextlib.suppress(yaml.YAMLError, UnicodeError, ValueError, TypeError):
        result(yaml.safe_dump({**DEFAULT, **changes}).encode("utf-8", "surrogatepass"))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True),
        st.fixed_dictionaries(
            {
                "migtds": st.dictionaries(
                    st.from_regex(r"[a-z]{1,6}", fullmatch=True),
                    st.fixed_dictionaries(
                        {
                            "vcpus": st.integers(1, 64),
                            "shared_memory_mib": st.integers(1, 1024),
                            "quote_form": st.sampled_from(["qgs", "bare"]),
                        }
                    ),
                    min_size=1,
                    max_size=3,
                )
            }
        ),
        min_size=1,
        max_size=4,
    )
)
def test_every_well_formed_lab_is_read_as_it_was_written(hosts: dict[str, Any]):
    lab = parse_lab_file(json.dumps({"schema": 1, "hosts": hosts}).encode(), "lab.yaml")

    shown = lab.model_dump(mode="json", by_alias=True, exclude_none=True)["hosts"]
    assert {name: {"migtds": host["migtds"]} for name, host in shown.items()} == hosts

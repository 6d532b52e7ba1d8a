# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The policy tools on anything: a result or a ToolError, never another exception; compact JSON reads back the same."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.policy_tools import compact, firmware_volume, generate, image_hash, items, measurements, servtd, signer
from lab.policy_tools.errors import ToolError
from lab.policy_tools.image_hash import ImageFormat, Variant
from migtd.policy.errors import JsonError
from tests.unit.policy_tool_world import MANIFEST, bin_image, igvm_image, make_signer, volume

BIN = bin_image([(0xA0000, 4096, 0x1000, 0x2000, 0, 1), (0, 0xA0000, 0xFF000000, 0xA0000, 1, 0)], bytes(4096))
IGVM = igvm_image([(0x1000, bytes(4096), 0), (0x2000, b"", 0)])
VOLUME = volume()
SIGNER = make_signer()

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
MUTATIONS = st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=4)


def mutated(data: bytes, changes: list[tuple[int, int]], start: int) -> bytes:
    made = bytearray(data)
    for at, value in changes:
        made[start + at % (len(made) - start)] = value
    return bytes(made)


@given(JSON)
def test_compact_form_is_a_fixed_point_and_reads_back_the_same(value):
    text = compact.push_json(value)
    assert json.loads(text) == value
    assert compact.push_json(compact.pull_json(text, "it")) == text


@given(JSON)
@settings(max_examples=30)
def test_whatever_is_compact_is_signed_and_verifies(value):
    text = compact.push_json(value)
    document = signer.sign("x", text, SIGNER.private)
    assert document.startswith(b'{"x":' + text)
    signer.verify_signed("x", document, SIGNER.public)


@given(st.text(alphabet='{}[]",:0123456789.eE+-\\u trufalsn', max_size=60))
def test_any_text_is_compact_or_refused(text):
    with contextlib.suppress(JsonError):
        value, _, _ = compact.parse(text.encode())
        again = compact.push_json(value)
        assert compact.push_json(compact.parse(again)[0]) == again


@given(MUTATIONS)
@settings(max_examples=60, deadline=None)
def test_changed_metadata_of_an_image_ends_in_a_hash_or_an_id(changes):
    image = mutated(BIN, changes, 0xA1000)
    with contextlib.suppress(ToolError):
        assert len(image_hash.tdinfo_of_image(image, ImageFormat.BIN, MANIFEST, Variant())) == 512


@given(MUTATIONS)
@settings(max_examples=60, deadline=None)
def test_changed_igvm_ends_in_a_hash_or_an_id(changes):
    image = mutated(IGVM, changes, 0)
    with contextlib.suppress(ToolError):
        assert len(image_hash.tdinfo_of_image(image, ImageFormat.IGVM, MANIFEST, Variant())) == 512


@given(MUTATIONS)
@settings(max_examples=60, deadline=None)
def test_changed_volume_gives_a_file_or_none(changes):
    found = firmware_volume.find_raw_file(mutated(VOLUME[:400], changes, 0) + VOLUME[400:], firmware_volume.ROOT_CA)
    assert found is None or len(found) < len(VOLUME)


@given(st.binary(max_size=1100))
def test_any_bytes_are_measurements_or_refused(data):
    with contextlib.suppress(ToolError):
        assert len(measurements.pull_measurements(data).fields["mrtd"]) == 48


@given(JSON)
def test_any_document_in_the_place_of_another_is_refused_or_taken(value):
    text = compact.push_json(value)
    for call in (
        lambda: generate.policy_v1({"0" * 12: text}, text),
        lambda: generate.policy_v1_of_collaterals(text),
        lambda: servtd.identity(text, text),
        lambda: servtd.mapping(text, text),
        lambda: items.tdx_platforms(text),
    ):
        with contextlib.suppress(ToolError):
            call()

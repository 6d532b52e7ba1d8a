# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What people type for a MigTD or a host: any of it is understood or refused with an id."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from migtd.errors import InvalidParameter
from migtd.td_options import pull_deadlines, pull_options
from vmm_stub.vmm.address import format_address, parse_address
from vmm_stub.vmm.control.models import HostConfig

WORDS = st.one_of(
    st.sampled_from(
        [
            "--channel",
            "d",
            "--deadline",
            "--deadlines",
            "--debug",
            "--session",
            "spdm",
            "--attestation",
            "--",
            "-1",
            "=",
        ]
    ),
    st.sampled_from(
        ["nan", "inf", "1e999", "0", "1", "{", "[]", '{"read":1}', '{"read":true}', "[" * 5000, "9" * 5000]
    ),
    st.text(st.characters(exclude_characters="\0"), max_size=12).filter(lambda text: not text.startswith("-")),
)


@given(st.lists(WORDS, max_size=8))
def test_any_command_line_of_a_migtd_gives_options_or_the_typed_error(words: list[str]) -> None:
    try:
        options = pull_options(words)
    except InvalidParameter as error:
        assert error.kind.id == "MIGTD-USAGE"  # noqa: PT017 - options are as good as an error here
    else:
        assert all(0 < seconds < math.inf for seconds in asdict(options.deadlines).values())


@given(
    st.one_of(
        st.text(max_size=40),
        st.dictionaries(
            st.sampled_from(["session", "read", "write", "x"]),
            st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3)),
        ).map(json.dumps),
    )
)
def test_any_deadlines_are_all_above_zero_or_the_typed_error(text: str) -> None:
    with contextlib.suppress(InvalidParameter):
        assert all(0 < seconds < math.inf for seconds in asdict(pull_deadlines(text)).values())


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
MIGTDS = st.lists(
    st.fixed_dictionaries(
        {"name": st.one_of(st.sampled_from(["a", "b"]), JSON), "channel": st.one_of(st.sampled_from(["", "c"]), JSON)},
        optional={"vcpus": JSON, "shared_memory": JSON},
    ),
    max_size=2,
)
CONFIGS = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("host"), JSON),
        "migtds": st.one_of(MIGTDS, JSON),
        "control": st.one_of(st.just(""), JSON),
    },
    optional=dict.fromkeys(["control_tcp", "wire_address", "versions", "deadlines", "log_level", "history", "x"], JSON),
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(CONFIGS.map(json.dumps), st.text(max_size=40), st.sampled_from(["[" * 100_000, "9" * 5000])))
def test_any_configuration_of_a_host_is_one_or_names_its_mistakes(text: str) -> None:
    try:
        config = HostConfig.model_validate_json(text)
    except ValidationError as error:
        assert error.error_count() > 0  # noqa: PT017 - a configuration is as good as an error here
    else:
        assert HostConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("key", ["control", "history", "channel"])
def test_a_path_with_a_zero_byte_is_no_configuration(key: str) -> None:
    migtd = {"name": "a", "channel": "c"}
    config = {"name": "host", "migtds": [migtd], "control": "s", "history": "h"}
    HostConfig.model_validate(config)
    (migtd if key == "channel" else config)[key] = "a\0b"
    with pytest.raises(ValidationError) as refused:
        HostConfig.model_validate(config)
    assert refused.value.errors()[0]["loc"][-1] == key


ADDRESSES = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda host, port: f"{host}:{port}",
        st.one_of(
            st.text(max_size=70), st.sampled_from(["[::1]", "[", "]", "[]", "a..b", "h", "10.0.0.1", "[::1%lo]"])
        ),
        st.one_of(st.integers(-1, 70_000), st.sampled_from(["9" * 5000, "٣", "0x1", "1 ", "+1"])),
    ),
)


@given(ADDRESSES)
def test_any_text_is_an_address_that_is_written_as_it_was_read_or_a_value_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ValueError:
        return
    assert 0 < port <= 65535
    assert parse_address(format_address(host, port)) == (host, port)

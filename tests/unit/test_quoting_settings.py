# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What can be said of a machine, and which SVNs follow from it."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from vmm_stub.quoting.settings import ComponentStatus, PlatformSettings, TcbStatus


def test_settings_are_read_from_text_and_written_back_as_such():
    written = {"machine": "b", "fmspc": "00806f050000", "cpusvn": "000102030405060708090A0B0C0D0E0F"}
    settings = PlatformSettings.model_validate_json(json.dumps({**written, "tcb_status": "OutOfDate"}))
    assert settings.fmspc == bytes.fromhex("00806f050000")
    assert settings.sgx_components == bytes(range(16))
    assert settings.tcb_status is TcbStatus.OutOfDate
    assert PlatformSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fmspc", "00806f05000"),
        ("fmspc", "00806f05000g"),
        ("fmspc", "00 80 6f 05 00 00"),
        ("fmspc", 806050000),
        ("cpusvn", "00"),
        ("pcesvn", -1),
        ("pcesvn", 65536),
        ("tcb_status", "uptodate"),
        ("module_status", "ConfigurationNeeded"),
        ("tcb_date", "1999-12-31T00:00:00Z"),
        ("tcb_date", "2024-01-01T00:00:00.5Z"),
        ("machine", ""),
        ("color", "blue"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(name, value):
    with pytest.raises(ValidationError) as refused:
        PlatformSettings.model_validate({name: value})
    assert refused.value.errors()[0]["loc"][0] == name


def test_a_date_without_a_zone_is_utc():
    settings = PlatformSettings.model_validate({"tcb_date": "2024-03-01T12:00:00"})
    assert settings.tcb_date == datetime(2024, 3, 1, 12, tzinfo=UTC)


def test_the_schema_for_the_lab_file_says_how_hex_is_written():
    properties = PlatformSettings.model_json_schema()["properties"]
    assert properties["fmspc"]["pattern"] == "^[0-9A-Fa-f]{12}$"
    json.dumps(properties)


def test_a_worse_status_means_lower_svns():
    components = [PlatformSettings(tcb_status=status).sgx_components for status in TcbStatus]
    assert components == sorted(components, reverse=True)
    assert len(set(components)) == len(TcbStatus)
    for worse, better in zip(components[1:], components, strict=False):
        assert all(low <= high for low, high in zip(worse, better, strict=True))
    assert [PlatformSettings(module_status=status).module_svn[0] for status in ComponentStatus] == [7, 6, 5]
    assert [PlatformSettings(qe_status=status).qe_isvsvn for status in ComponentStatus] == [6, 5, 4]


def test_an_older_date_means_lower_svns():
    older = PlatformSettings(tcb_date=datetime(2023, 8, 9, tzinfo=UTC)).sgx_components
    newer = PlatformSettings().sgx_components
    # SVNs are compared byte by byte.
    assert older != newer
    assert all(low <= high for low, high in zip(older, newer, strict=True))

# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import pytest

from migtd import failures
from migtd.errors import InvalidPolicyError, MigrationResult
from migtd.guest.configuration import FileConfiguration


def test_named_files_are_given_as_they_are(tmp_path):
    names = ("policy", "root-ca", "chain")
    for name in names:
        (tmp_path / name).write_bytes(name.encode() + b"\0\xff")
    volume = FileConfiguration(*(tmp_path / name for name in names))
    assert volume.policy() == b"policy\0\xff"
    assert volume.root_ca() == b"root-ca\0\xff"
    assert volume.policy_issuer_chain() == b"chain\0\xff"


def test_files_that_are_not_named_are_not_in_the_volume():
    volume = FileConfiguration()
    assert (volume.policy(), volume.root_ca(), volume.policy_issuer_chain()) == (None, None, None)


def test_the_volume_keeps_what_it_read_at_start(tmp_path):
    file = tmp_path / "policy"
    file.write_bytes(b"before")
    volume = FileConfiguration(file)
    file.write_bytes(b"after")
    assert volume.policy() == b"before"


@pytest.mark.parametrize("option", ["policy_file", "root_ca_file", "policy_issuer_chain_file"])
@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path, option, name):
    with pytest.raises(InvalidPolicyError) as caught:
        FileConfiguration(**{option: tmp_path / name})
    assert caught.value.kind is failures.CONFIGURATION_MISSING
    assert caught.value.result is MigrationResult.InvalidPolicyError
    assert str(tmp_path) in caught.value.detail

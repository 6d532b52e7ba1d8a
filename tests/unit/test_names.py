# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.names import checkout_path, default_lab_name, require_lab_name, resolve_lab_name


def test_default_name_is_of_the_checkouts_path(tmp_path: Path):
    digest = hashlib.sha256(str(tmp_path.resolve()).encode()).hexdigest()

    assert default_lab_name(tmp_path) == f"lab-{digest[:6]}"
    assert default_lab_name(tmp_path) != default_lab_name(tmp_path / "other")


def test_checkout_is_the_folder_of_the_packages():
    assert (checkout_path() / "lab" / "names.py").is_file()


def test_first_given_name_wins():
    assert resolve_lab_name("a", "b") == "a"
    assert resolve_lab_name(None, "b") == "b"
    assert resolve_lab_name(None, None) == default_lab_name(checkout_path())


@pytest.mark.parametrize("name", ["a", "0", "lab-1a2b3c", "a" * 32, "a--b"])
def test_good_names_pass(name: str):
    assert require_lab_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "../x", "a" * 33, "a\n", "ä", "a b", ".", "\x00", "٣"]
)
def test_other_names_are_refused(name: str):
    with pytest.raises(UsageError) as caught:
        require_lab_name(name)

    assert caught.value.kind.id == "LAB-NAME-INVALID"

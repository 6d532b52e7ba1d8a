# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The policies that come with the lab; they are its own."""

from __future__ import annotations

from importlib.resources import files


def default_v1() -> bytes:
    """The default policy v1: the same platform, and the same MigTD with the same policy and root on both hosts."""
    return files(__name__).joinpath("default_v1.json").read_bytes()


def default_v2() -> bytes:
    """The default policy v2 before it is signed, without collaterals: what two equal MigTDs on equal platforms meet.

    A newer platform or MigTD is fine, on the way to a host a newer MigTD only.
    """
    return files(__name__).joinpath("default_v2.json").read_bytes()

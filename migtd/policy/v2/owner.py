# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whose MigTD it was that a target TD was bound to first, and with which SVN (policy.md 2.9).

MROWNER is the hash of a policy signer's key, MROWNERCONFIG its policySvn as 4 bytes and 44 zeros.
"""

from __future__ import annotations

from typing import Final

from migtd.attestation.quote.record import RANGES, RECORD_SIZE
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.tdinfo import TDINFO_SIZE
from migtd.policy.v2.document import VerifiedPolicy
from migtd.policy.v2.servtd import Measurements, TdTcbMapping
from migtd.policy.v2.tdreport import tdinfo_measurements, tdinfo_owner

OWNER_SIZE: Final = 48
_SVN_SIZE: Final = 4


def expect_owner(init_tdinfo: bytes, mrowner: bytes, mrownerconfig: bytes) -> None:
    """Accept an initial TDINFO, 512 bytes, beside the peer's authenticated MROWNER and MROWNERCONFIG, 48 each.

    Raises PolicyError: InvalidParameter (a length, or more than an SVN in an MROWNERCONFIG), PolicyHashMismatch
    (another owner), SvnMismatch (the initial SVN is above the peer's).
    """
    for name, data, size in (
        ("init TDINFO", init_tdinfo, TDINFO_SIZE),
        ("MROWNER", mrowner, OWNER_SIZE),
        ("MROWNERCONFIG", mrownerconfig, OWNER_SIZE),
    ):
        _expect_size(name, data, size)
    init_owner, init_config = tdinfo_owner(init_tdinfo)
    _expect_same_owner(init_owner, mrowner, "the peer's")
    init_svn, peer_svn = _svn(init_config, "init"), _svn(mrownerconfig, "the peer's")
    if init_svn > peer_svn:
        raise PolicyError(PolicyErrorName.SvnMismatch, f"the init policySvn is {init_svn}, the peer's {peer_svn}")


def expect_owner_of_record(init_tdinfo: bytes, record: bytes) -> None:
    """The same with the owner in a verified quote's record. Raises as `expect_owner`, on a short record too."""
    if len(record) < RECORD_SIZE:
        detail = f"a supplemental record has {RECORD_SIZE} bytes, not {len(record)}"
        raise PolicyError(PolicyErrorName.InvalidParameter, detail)
    expect_owner(init_tdinfo, record[RANGES["mrowner"]], record[RANGES["mrownerconfig"]])


def expect_init_data(own: VerifiedPolicy, init_tdinfo: bytes) -> None:
    """Accept the initial TDINFO that a VMM gives with a start request: of the own signer, no newer than the own policy.

    Raises PolicyError: InvalidParameter, PolicyHashMismatch, SvnMismatch.
    """
    _expect_size("init TDINFO", init_tdinfo, TDINFO_SIZE)
    owner, config = tdinfo_owner(init_tdinfo)
    _expect_same_owner(owner, own.signer_hash, "the own policy signer's")
    svn = _svn(config, "init")
    if svn > own.data.policy_svn:
        detail = f"the init policySvn is {svn}, the own {own.data.policy_svn}"
        raise PolicyError(PolicyErrorName.SvnMismatch, detail)


def expect_own_tdinfo(own: VerifiedPolicy, tdinfo: bytes) -> None:
    """Make sure at start that the own TD was built for the own policy: MROWNERCONFIG, then MROWNER.

    Raises PolicyError: InvalidParameter (the length), SvnMismatch, PolicyHashMismatch.
    """
    _expect_size("own TDINFO", tdinfo, TDINFO_SIZE)
    owner, config = tdinfo_owner(tdinfo)
    if config != own.data.policy_svn.to_bytes(_SVN_SIZE, "little").ljust(OWNER_SIZE, b"\0"):
        detail = f"MROWNERCONFIG is {config.hex()}, the policySvn {own.data.policy_svn}"
        raise PolicyError(PolicyErrorName.SvnMismatch, detail)
    _expect_same_owner(owner, own.signer_hash, "the policy signer's")


def expect_engine_not_older(mapping: TdTcbMapping, peer: Measurements, init_tdinfo: bytes) -> None:
    """Both the peer's and the initial MigTD are in the own mapping, and the peer's SVN is not below.

    Of the measurements MRTD, RTMR0 and RTMR1 count. Raises PolicyError: SvnMismatch, InvalidParameter (the length).
    """
    compare_engines(mapping, peer, tdinfo_measurements(init_tdinfo))


def compare_engines(mapping: TdTcbMapping, peer: Measurements, init: Measurements) -> None:
    """As `expect_engine_not_older`, of measurements."""
    peer_svn, init_svn = _engine_svn(mapping, peer, "the peer's"), _engine_svn(mapping, init, "the initial")
    if peer_svn < init_svn:
        detail = f"the peer's MigTD has SVN {peer_svn}, the initial one {init_svn}"
        raise PolicyError(PolicyErrorName.SvnMismatch, detail)


def _engine_svn(mapping: TdTcbMapping, found: Measurements, whose: str) -> int:
    svn = mapping.svn(Measurements(found.mrtd, found.rtmr0, found.rtmr1))
    if svn is None:
        raise PolicyError(PolicyErrorName.SvnMismatch, f"{whose} MigTD is not in the own TCB mapping")
    return svn


def _expect_same_owner(found: bytes, wanted: bytes, whose: str) -> None:
    if found != wanted:
        detail = f"MROWNER is {found.hex()}, {whose} {wanted.hex()}"
        raise PolicyError(PolicyErrorName.PolicyHashMismatch, detail)


def _svn(config: bytes, whose: str) -> int:
    if any(config[_SVN_SIZE:]):
        detail = f"{whose} MROWNERCONFIG holds more than an SVN: {config.hex()}"
        raise PolicyError(PolicyErrorName.InvalidParameter, detail)
    return int.from_bytes(config[:_SVN_SIZE], "little")


def _expect_size(name: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise PolicyError(PolicyErrorName.InvalidParameter, f"{name} has {size} bytes, not {len(data)}")

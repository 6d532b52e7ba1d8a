# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A peer's policy beside the own one, the first MigTD of a target, the own start (policy.md 2.7 - 2.9, 6)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from migtd.attestation.quote.record import RANGES, RECORD_SIZE
from migtd.errors import InvalidPolicyError, PolicyUnsatisfiedError
from migtd.event_log import EventName, NamedEvent
from migtd.policy.errors import PolicyError
from migtd.policy.v2.owner import (
    compare_engines,
    expect_init_data,
    expect_own_tdinfo,
    expect_owner,
    expect_owner_of_record,
)
from migtd.policy.v2.peer import (
    PolicyFiles,
    expect_peer_data,
    expect_policy_event,
    pull_peer_data,
    push_peer_data,
    validate_peer_chains,
)
from migtd.policy.v2.servtd import Measurements, parse_mapping
from migtd.policy.v2.servtd_ext import SERVTD_EXT_SIZE, pull_servtd_ext
from migtd.policy.v2.startup import init_policy
from migtd.policy.v2.tdreport import pull_report, tdinfo_measurements
from tests.unit.policy_v2_world import (
    CA,
    IDENTITY,
    MAPPING,
    OTHER_ROOT,
    POLICY,
    STRANGER,
    Chain,
    World,
    compact,
    issued,
    mapping,
    point,
    report_of,
    servtd_ext,
    svn_config,
    svn_mapping,
)

OWNER = b"\xab" * 48
A, B, C = (bytes((number,)) * 48 for number in b"\x0a\x0b\x0c")


def verdict(call, *arguments):
    try:
        call(*arguments)
    except PolicyError as error:
        return error.name.name
    return "OK"


def tdinfo(owner=OWNER, config=None, mrtd=bytes(48)):
    parts = (bytes(16), mrtd, bytes(48), owner, svn_config(3) if config is None else config, bytes(4 * 48), bytes(112))
    return b"".join(parts)


# --- peer data -----------------------------------------------------------------------------------------------------
def test_the_blob_is_two_parts_with_their_lengths():
    files = PolicyFiles(b"policy", b"chain!!")
    blob = b"\6\0\0\0policy\7\0\0\0chain!!"
    assert (push_peer_data(files), pull_peer_data(blob)) == (blob, files)
    assert pull_peer_data(bytes(8)) == PolicyFiles(b"", b"")


@pytest.mark.parametrize(
    "blob",
    [b"", b"\0\0\0", bytes(4), bytes(7), bytes(9), b"\xff\xff\xff\xff" + bytes(60), b"\1\0\0\0p\xff\xff\xff\xff"],
)
def test_a_blob_that_does_not_end_with_its_chain_is_an_invalid_parameter(blob):
    assert verdict(pull_peer_data, blob) == "InvalidParameter"


def test_the_blob_must_be_the_one_that_was_authenticated():
    blob = push_peer_data(PolicyFiles(b"p", b"c"))
    expect_peer_data(blob, hashlib.sha384(blob).digest())
    with pytest.raises(PolicyError) as error:
        expect_peer_data(blob + b"x", hashlib.sha384(blob).digest())
    assert isinstance(error.value.as_migtd_error(), InvalidPolicyError)
    assert verdict(expect_peer_data, blob, b"") == "InvalidPolicy"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ({EventName.MigTdPolicy: NamedEvent(hashlib.sha384(b"policy").digest())}, "OK"),
        ({EventName.MigTdPolicy: NamedEvent(hashlib.sha384(b"2.0").digest())}, "PolicyHashMismatch"),
        ({EventName.MigTdPolicySigner: NamedEvent(hashlib.sha384(b"policy").digest())}, "PolicyHashMismatch"),
        ({}, "PolicyHashMismatch"),
    ],
)
def test_the_log_must_measure_the_policy_file(events, expected):
    assert verdict(expect_policy_event, events, b"policy") == expected


# --- chains --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "OK"),
        ({"policy_chain": Chain("Policy issuer", STRANGER)}, "OK"),
        ({"mapping_chain": Chain("Mapping issuer", STRANGER)}, "OK"),
        ({"identity_chain": Chain("Identity issuer", IDENTITY, intermediate=STRANGER)}, "OK"),
        ({"policy_chain": Chain("Another issuer", POLICY)}, "PeerCertChainValidation"),
        ({"identity_chain": Chain("Another issuer", IDENTITY)}, "PeerCertChainValidation"),
        ({"mapping_chain": Chain("Another issuer", MAPPING)}, "PeerCertChainValidation"),
        ({"policy_chain": Chain("Policy issuer", POLICY, OTHER_ROOT)}, "PeerCertChainValidation"),
        ({"identity_chain": Chain("Identity issuer", IDENTITY, OTHER_ROOT)}, "PeerCertChainValidation"),
        ({"mapping_chain": Chain("Mapping issuer", MAPPING, OTHER_ROOT)}, "PeerCertChainValidation"),
        ({"policy_chain": Chain("Policy issuer", POLICY, intermediate_is_ca=False)}, "PeerCertChainValidation"),
        ({"mapping_chain": Chain("Mapping issuer", MAPPING, intermediate_is_ca=False)}, "PeerCertChainValidation"),
        ({"policy_chain": Chain("Policy issuer", POLICY, intermediate_is_ca=b"\x01")}, "PeerCertChainValidation"),
    ],
)
def test_keys_may_rotate_under_one_root_and_subject(change, expected):
    own, peer = World().own(), World(**change).own()
    assert verdict(validate_peer_chains, own.policy, peer.policy) == expected


def test_a_stolen_leaf_key_signs_no_further_leaf():
    """The chain verifies and root and subject agree; only the missing CA flag tells."""
    stolen = issued("Policy issuer", STRANGER, "Policy issuer", POLICY) + Chain("Policy issuer", POLICY).pem()

    class Stolen(Chain):
        def pem(self):
            return stolen

    world = World(policy_chain=Stolen("Policy issuer", STRANGER))
    assert verdict(validate_peer_chains, World().own().policy, world.own().policy) == "PeerCertChainValidation"


# --- the owner -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("init", "owner", "config", "expected"),
    [
        (tdinfo(), OWNER, svn_config(3), "OK"),
        (tdinfo(), OWNER, svn_config(2**32 - 1), "OK"),
        (tdinfo(), OWNER, svn_config(2), "SvnMismatch"),
        (tdinfo(config=svn_config(256)), OWNER, svn_config(255), "SvnMismatch"),
        (tdinfo(), bytes(48), svn_config(3), "PolicyHashMismatch"),
        (tdinfo(config=bytes(47) + b"\1"), OWNER, svn_config(3), "InvalidParameter"),
        (tdinfo(config=bytes(4) + b"\1" + bytes(43)), OWNER, svn_config(3), "InvalidParameter"),
        (tdinfo(), OWNER, bytes(47) + b"\1", "InvalidParameter"),
        # The owner is looked at before its configuration.
        (tdinfo(config=bytes(47) + b"\1"), bytes(48), svn_config(3), "PolicyHashMismatch"),
        (tdinfo()[:-1], OWNER, svn_config(3), "InvalidParameter"),
        (tdinfo() + b"\0", OWNER, svn_config(3), "InvalidParameter"),
        (tdinfo(), OWNER[:-1], svn_config(3), "InvalidParameter"),
        (tdinfo(), OWNER, svn_config(3) + b"\0", "InvalidParameter"),
    ],
)
def test_the_owner_of_the_first_migtd(init, owner, config, expected):
    assert verdict(expect_owner, init, owner, config) == expected


def test_the_owner_is_taken_from_a_record():
    record = bytearray(RECORD_SIZE)
    record[RANGES["mrowner"]], record[RANGES["mrownerconfig"]] = OWNER, svn_config(3)
    assert verdict(expect_owner_of_record, tdinfo(), bytes(record)) == "OK"
    assert verdict(expect_owner_of_record, tdinfo(), bytes(record[:-1])) == "InvalidParameter"
    record[RANGES["mrowner"]] = bytes(48)
    assert verdict(expect_owner_of_record, tdinfo(), bytes(record)) == "PolicyHashMismatch"


SIGNER = hashlib.sha384(point(POLICY)).digest()


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        (tdinfo(SIGNER, svn_config(4)), "OK"),
        (tdinfo(SIGNER, svn_config(0)), "OK"),
        (tdinfo(SIGNER, svn_config(5)), "SvnMismatch"),
        (tdinfo(SIGNER, bytes(47) + b"\1"), "InvalidParameter"),
        (tdinfo(OWNER, bytes(47) + b"\1"), "PolicyHashMismatch"),
        (tdinfo(SIGNER)[:-1], "InvalidParameter"),
    ],
)
def test_init_data_of_a_vmm_must_be_of_the_own_signer_and_no_newer(init, expected):
    assert verdict(expect_init_data, World().own().policy, init) == expected


def test_refused_init_data_is_policy_unsatisfied():
    with pytest.raises(PolicyError) as error:
        expect_init_data(World().own().policy, tdinfo())
    assert isinstance(error.value.as_migtd_error(), PolicyUnsatisfiedError)


@pytest.mark.parametrize(
    ("owner", "config", "expected"),
    [
        (SIGNER, svn_config(4), "OK"),
        (SIGNER, svn_config(3), "SvnMismatch"),
        (SIGNER, svn_config(5), "SvnMismatch"),
        (SIGNER, svn_config(4)[:-1] + b"\1", "SvnMismatch"),
        (OWNER, svn_config(4), "PolicyHashMismatch"),
        (OWNER, svn_config(5), "SvnMismatch"),
    ],
)
def test_the_own_td_must_be_built_for_the_own_policy(owner, config, expected):
    assert verdict(expect_own_tdinfo, World().own().policy, tdinfo(owner, config)) == expected


# --- engines -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("peer", "init", "expected"),
    [
        ((A, B, C), (A, B, C), "OK"),
        ((A, B, C), (B, B, C), "OK"),
        ((B, B, C), (A, B, C), "SvnMismatch"),
        ((C, B, C), (A, B, C), "SvnMismatch"),
        ((A, B, C), (C, B, C), "SvnMismatch"),
    ],
)
def test_engines_are_both_in_the_mapping_and_the_peer_is_not_older(peer, init, expected):
    known = [svn_mapping(2, mrtd=A, rtmr0=B, rtmr1=C), svn_mapping(1, mrtd=B, rtmr0=B, rtmr1=C)]
    found = parse_mapping(compact(mapping(*known)))
    assert (
        verdict(compare_engines, found, replace(Measurements(*peer), rtmr2=A, rtmr3=A), Measurements(*init)) == expected
    )


def test_rtmr2_and_rtmr3_never_count_for_engines():
    pinned = parse_mapping(compact(mapping(svn_mapping(1, mrtd=A, rtmr0=B, rtmr1=C, rtmr2=A))))
    found = Measurements(A, B, C, A, A)
    assert pinned.svn(found) == 1
    assert verdict(compare_engines, pinned, found, found) == "SvnMismatch"


# --- SERVTD_EXT and TDREPORT ---------------------------------------------------------------------------------------
def test_servtd_ext_is_272_bytes_and_what_follows_is_ignored():
    data = bytes(index % 251 for index in range(SERVTD_EXT_SIZE))
    ext = pull_servtd_ext(data + b"more")
    assert ext.push() == data
    assert (ext.init_servtd_info_hash, ext.init_attr) == (data[:48], int.from_bytes(data[48:56], "little"))
    assert (ext.init_cpusvn, ext.init_tee_tcb_svn, ext.init_tee_model) == (data[64:80], data[80:96], data[96:108])
    assert (ext.cur_servtd_info_hash, ext.cur_servtd_attr) == (data[112:160], int.from_bytes(data[160:168], "little"))
    assert verdict(pull_servtd_ext, data[:-1]) == "InvalidParameter"


def test_the_approved_hash_leaves_out_what_is_current():
    ext = servtd_ext(tdinfo())
    cleared = ext.push()[:112] + bytes(56) + bytes(104)
    assert ext.approved_hash() == hashlib.sha384(cleared).digest()
    assert replace(ext, cur_servtd_attr=9, cur_servtd_info_hash=A).approved_hash() == ext.approved_hash()
    assert replace(ext, init_attr=9).approved_hash() != ext.approved_hash()


def test_a_report_is_cut_and_its_hashes_are_checked():
    good = report_of(tdinfo(mrtd=A))
    pulled = pull_report(good + b"more")
    pulled.verify_hashes()
    assert (pulled.data, len(pulled.mac_struct), pulled.tdinfo) == (good, 256, tdinfo(mrtd=A))
    assert tdinfo_measurements(pulled.tdinfo) == Measurements(A, bytes(48), bytes(48))
    assert verdict(pull_report, good[:-1]) == "InvalidTdReport"


@pytest.mark.parametrize("changes", [{"tdinfo_hash": A}, {"tcb_hash": A}, {"tdinfo_hash": bytes(48)}])
def test_a_report_whose_hashes_are_of_something_else_is_refused(changes):
    assert verdict(pull_report(report_of(tdinfo(), **changes)).verify_hashes) == "InvalidTdReport"


@pytest.mark.parametrize("place", [256, 494, 512, 1023])
def test_what_the_report_vouches_for_must_not_change(place):
    changed = bytearray(report_of(tdinfo()))
    changed[place] ^= 1
    assert verdict(pull_report(bytes(changed)).verify_hashes) == "InvalidTdReport"


# --- the start -----------------------------------------------------------------------------------------------------
def test_the_own_policy_is_verified_and_gives_the_root_key():
    world = World()
    own = world.own()
    assert own.root_key == world.platform.root_key()
    assert own.policy.signer_hash == SIGNER
    assert own.files == world.files()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (replace(World().files(), policy=b"{}"), "InvalidPolicy"),
        (replace(World().files(), chain=b"\xff"), "InvalidPolicy"),
        (replace(World().files(), chain=issued("Policy issuer", STRANGER, "x", CA)), "SignatureVerificationFailed"),
        (World(policy_chain=Chain("Policy issuer", POLICY, leaf_digest=SHA256)).files(), "SignatureVerificationFailed"),
        (World(data={"collaterals": World().collaterals() | {"rootCa": "x"}}).files(), "InvalidCollateral"),
        (World(data={"version": "1.0"}).files(), "InvalidParameter"),
    ],
)
def test_an_own_policy_that_cannot_be_used_stops_the_start(files, expected):
    assert verdict(init_policy, files) == expected

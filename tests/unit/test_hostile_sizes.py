# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Evidence of hostile size and shape: each ends in a typed error, or in what it says, without costing more than it has.

JSON of policies is in test_policy_v1_document.py and test_policy_json_reader.py.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import failures as lab_failures
from lab.errors import UsageError
from lab.evidence import MAX_FILE, read_collateral, read_file
from migtd import event_log, failures
from migtd.attestation.quote import failures as quote_failures
from migtd.attestation.quote.collateral import MAX_PART_SIZE, pull_collaterals_json, pull_packed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import pull_quote, push_quote
from migtd.attestation.quote.verify import prepare, verify_prepared, verify_quote
from migtd.errors import FailureKind, PolicyUnsatisfiedError
from tests.unit.policy_v1_sessions import end, judged, showing_log, showing_quote
from tests.unit.quote_world import CA, STRANGER, CertificateSpec, World, with_part

LARGE = 100_000_000
ROOM = 4_000_000
"""Bytes that reading may take beside the input; the input itself is not counted."""
WORLD = World()
QUOTE, COLLATERAL, ROOT_KEY = WORLD.quote(), WORLD.collateral(), WORLD.root_key()
PREPARED = prepare(COLLATERAL, ROOT_KEY)


@pytest.fixture
def memory():
    """`memory()` is the most that was taken since the test began, in bytes."""
    started: list[int] = []

    def taken() -> int:
        if not started:
            tracemalloc.start()
            started.append(tracemalloc.get_traced_memory()[0])
            return 0
        return tracemalloc.get_traced_memory()[1] - started[0]

    yield taken
    tracemalloc.stop()


# --- event logs ------------------------------------------------------------------------------------------------------
def tiny_event(mr_index: int) -> bytes:
    return event_log.push_event(event_log.Event(mr_index, 6, bytes(48), b"\0"))


LOGS = {
    "zeros": bytes(LARGE),
    "ones": b"\xff" * LARGE,
    "an event beyond the end": event_log.push_spec_id() + struct.pack("<IIIH48sI", 1, 6, 1, 12, bytes(48), LARGE),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_of_100_mb_without_events_explains_nothing(name, memory):
    log = LOGS[name].ljust(LARGE, b"\0")
    memory()

    assert event_log.replay(log) == (bytes(48),) * 4
    assert event_log.parse_events(log) == {}
    assert memory() < ROOM


def test_a_log_of_100_mb_is_read_no_further_than_to_its_first_wrong_event(memory):
    log = event_log.push_spec_id() + tiny_event(5) * (LARGE // 67)
    memory()

    with pytest.raises(PolicyUnsatisfiedError) as refused:
        event_log.replay(log)

    assert refused.value.kind is failures.EVENT_LOG_MALFORMED
    assert memory() < ROOM


def test_a_log_of_very_many_events_is_read_one_by_one(memory):
    log = event_log.push_spec_id() + tiny_event(1) * 200_000 + b"\0"
    memory()

    assert event_log.replay(log)[1:] == (bytes(48),) * 3
    with pytest.raises(PolicyUnsatisfiedError):
        event_log.parse_events(log)
    assert memory() < ROOM


@pytest.mark.parametrize("by_source", [True, False])
async def test_as_many_events_as_a_certificate_carries_are_refused_like_any_others(by_source):
    shown = showing_log(end(), lambda log: log[:-1] + tiny_event(1) * 1_200 + b"\0")

    refused = await judged(end(), shown, by_source=by_source)

    assert refused.error.kind is failures.RTMRS_DIFFER


# --- chains ----------------------------------------------------------------------------------------------------------
def quote_with_chain(chain: bytes) -> bytes:
    quote = pull_quote(QUOTE)
    return push_quote(quote.signed, replace(quote.signature_data, pck_chain=chain))


def circular(*names: str) -> bytes:
    """A chain in which root and CA issue each other."""
    world = World()
    world.certificates["ca"] = CertificateSpec("Lab SGX PCK Platform CA", CA, 2, "Lab SGX Root CA", STRANGER)
    world.certificates["root"] = CertificateSpec("Lab SGX Root CA", STRANGER, 1, "Lab SGX PCK Platform CA", CA)
    return world.chain(list(names))


def section(content: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + content + b"\n-----END CERTIFICATE-----\n"


CHAINS = {
    "circular": circular("pck", "ca", "root"),
    "three roots": WORLD.chain(["root"] * 3),
    "ten thousand": WORLD.chain(["pck", "ca"]) + WORLD.chain(["root"]) * 5_000,
    "ten thousand empty": section(b"") * 10_000,
    "no end": b"-----BEGIN CERTIFICATE-----\n" * 50_000,
    "one of 8 MB": section(b"MIIB" + b"A" * 8_000_000),
    "lengths within lengths": section(b"MIAwgDCA" * 100_000),
    "only line ends": section(b"\n" * 4_000_000),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_pck_chain_of_any_size_and_shape_is_refused(name):
    with pytest.raises(QuoteError) as refused:
        verify_prepared(quote_with_chain(CHAINS[name]), PREPARED)

    assert refused.value.kind is quote_failures.QUOTE_PCK_CHAIN_INVALID


@pytest.mark.parametrize("part", ["pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain"])
@pytest.mark.parametrize("name", [*CHAINS, "circular two"])
def test_an_issuer_chain_of_any_size_and_shape_is_refused(part, name):
    chain = circular("ca", "root") if name == "circular two" else CHAINS[name]
    with pytest.raises(QuoteError) as refused:
        verify_quote(QUOTE, ROOT_KEY, with_part(COLLATERAL, part, chain))

    expected = (quote_failures.COLLATERAL_CHAIN_INVALID, quote_failures.COLLATERAL_MALFORMED)
    assert refused.value.kind is expected[len(chain) > MAX_PART_SIZE]


@pytest.mark.parametrize("by_source", [True, False])
@pytest.mark.parametrize("name", ["circular", "three roots", "no end"])
async def test_a_peer_with_such_a_chain_is_refused(name, by_source):
    chain = CHAINS[name][:80_000]

    refused = await judged(end(), showing_quote(end(), lambda _: quote_with_chain(chain)), by_source=by_source)

    assert refused.error.kind is quote_failures.QUOTE_PCK_CHAIN_INVALID
    assert refused.code[0] == 7


# --- collateral ------------------------------------------------------------------------------------------------------
def documents(name: str) -> dict[str, bytes]:
    signature = b'"signature":"' + b"0" * 128 + b'"}'
    return {
        "deep": b'{"' + name.encode() + b'":' + b"[" * 100_000 + b"]" * 100_000 + b"," + signature,
        "deep objects": b'{"a":' * 50_000,
        "a huge number": b'{"' + name.encode() + b'":' + b"9" * 200_000 + b"," + signature,
        "a huge exponent": b'{"' + name.encode() + b'":1e' + b"9" * 200_000 + b"," + signature,
        "white space": b" " * 250_000,
        "a string without end": b'{"' + b"\\\\" * 120_000,
        "too large": b" " * (1 << 22),
    }


@pytest.mark.parametrize(
    ("part", "name", "malformed", "signature"),
    [
        (
            "tcb_info",
            "tcbInfo",
            quote_failures.COLLATERAL_TCB_INFO_MALFORMED,
            quote_failures.COLLATERAL_TCB_INFO_SIGNATURE,
        ),
        (
            "qe_identity",
            "enclaveIdentity",
            quote_failures.COLLATERAL_QE_IDENTITY_MALFORMED,
            quote_failures.COLLATERAL_QE_IDENTITY_SIGNATURE,
        ),
    ],
)
@pytest.mark.parametrize("shape", documents(""))
def test_a_document_of_any_size_and_shape_is_refused(
    part: str, name: str, malformed: FailureKind, signature: FailureKind, shape: str
):
    with pytest.raises(QuoteError) as refused:
        verify_quote(QUOTE, ROOT_KEY, with_part(COLLATERAL, part, documents(name)[shape]))

    # A number that is only signed wrongly is found to be no structure later.
    assert refused.value.kind in (malformed, signature)


@pytest.mark.parametrize("part", ["root_ca_crl", "pck_crl"])
@pytest.mark.parametrize(
    "crl",
    [
        b"0" * (MAX_PART_SIZE - 2),
        b"\x30\x84\xff\xff\xff\xff" + bytes(1_000_000),
        b"-----BEGIN X509 CRL-----\n" * 100_000,
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n" * 50_000,
        b"\x30\x80" * 500_000,
    ],
    ids=["hex", "length", "no end", "many", "lengths within lengths"],
)
def test_a_crl_of_any_size_and_shape_is_refused(part, crl):
    with pytest.raises(QuoteError) as refused:
        verify_quote(QUOTE, ROOT_KEY, with_part(COLLATERAL, part, crl))

    assert refused.value.kind is quote_failures.COLLATERAL_CRL_INVALID


@pytest.mark.parametrize(
    ("pull", "data"),
    [
        (pull_packed, struct.pack("<HH7I", 1, 0, *(0xFFFFFFFF,) * 7) + bytes(100)),
        (pull_packed, bytes(LARGE)),
        (lambda data: pull_collaterals_json(data, "A0B1C2D3E4F5"), b"[" * LARGE),
        (lambda data: pull_collaterals_json(data, "A0B1C2D3E4F5"), b'{"a":' * 3_000_000),
        (lambda data: pull_collaterals_json(data, "A0B1C2D3E4F5"), b'{"platforms":[' + b"9" * 1_000_000 + b"]}"),
    ],
    ids=["packed sizes", "packed zeros", "json 100 MB", "json deep", "json number"],
)
def test_a_set_of_any_size_and_shape_is_refused(pull: Callable[[bytes], object], data: bytes):
    with pytest.raises(QuoteError) as refused:
        pull(data)

    assert refused.value.kind is quote_failures.COLLATERAL_MALFORMED


def test_files_of_a_lab_are_read_up_to_a_bound(tmp_path: Path, memory):
    large, deep = tmp_path / "large", tmp_path / "deep"
    with large.open("wb") as stream:
        stream.truncate(1 << 40)
    deep.write_bytes(b'{"a":' * 1_000_000)
    memory()

    for read in (lambda: read_file(str(large)), lambda: read_collateral(str(deep), QUOTE)):
        with pytest.raises(UsageError) as refused:
            read()
        assert refused.value.kind is lab_failures.EVIDENCE_INVALID
    assert memory() < 4 * MAX_FILE
    with pytest.raises(UsageError) as refused:
        read_file("a name\0with a NUL")
    assert refused.value.kind is lab_failures.FILE_MISSING

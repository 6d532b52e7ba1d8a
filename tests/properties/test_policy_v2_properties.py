# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policy v2 over any bytes: parsers end in a value or their typed error, nothing changed is taken for signed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import Judge, explain_refusal, summarize
from migtd.policy.json_reader import Reader
from migtd.policy.v2.blocks import Notes, evaluate_block
from migtd.policy.v2.collaterals import Platform, read_collaterals
from migtd.policy.v2.decoding import decode
from migtd.policy.v2.document import VerifiedPolicy, parse_policy_data, verify_policy
from migtd.policy.v2.entries import read_entries
from migtd.policy.v2.envelope import parse_envelope, signature_bytes
from migtd.policy.v2.flows import old_checks_new
from migtd.policy.v2.peer import PolicyFiles, pull_peer_data, push_peer_data
from migtd.policy.v2.properties import integer_holds, read_property, string_holds
from migtd.policy.v2.servtd import parse_identity, parse_mapping
from migtd.policy.v2.servtd_ext import SERVTD_EXT_SIZE, pull_servtd_ext
from migtd.policy.v2.status import PLATFORM_RANKS, SERVTD_RANKS
from migtd.policy.v2.tdreport import pull_report
from migtd.policy.v2.values import Values
from tests.unit.policy_v2_world import World, compact, identity, level, mapping, rule, svn_mapping

OWN = World()
FILES = OWN.files()
VERIFIED = verify_policy(parse_envelope(FILES.policy), FILES.chain)
U32 = st.integers(0, 2**32 - 1)
BLANK = st.text(" \t\r\n", max_size=3)


def refused(call: Callable[..., object], *arguments: object) -> PolicyError | None:
    """The typed error with which a call ends; any other is the test's failure."""
    try:
        call(*arguments)
    except PolicyError as error:
        return error
    return None


def read_text(name: PolicyErrorName, read: Callable[[Reader], object]) -> Callable[[bytes], object]:
    return lambda data: decode(data.decode("utf-8", "replace"), read, name)


def texts(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "replace"))


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "envelope": (parse_envelope, FILES.policy),
    "signature": (texts(signature_bytes), b"30+f"),
    "policyData": (texts(parse_policy_data), OWN.policy_data_text().encode()),
    "collaterals": (read_text(PolicyErrorName.InvalidPolicy, read_collaterals), compact(OWN.collaterals()).encode()),
    "entries": (read_text(PolicyErrorName.InvalidPolicy, read_entries), compact(OWN.blocks["policy"]).encode()),
    "identity": (texts(parse_identity), compact(identity()).encode()),
    "mapping": (texts(parse_mapping), compact(mapping(svn_mapping(1, mrtd=b"", rtmr0=b"", rtmr1=b""))).encode()),
    "tcb info": (
        texts(lambda text: Platform("", "", text).tcb_evaluation_number()),
        b'{"tcbInfo":{"tcbEvaluationDataNumber":1}}',
    ),
    "peer data": (pull_peer_data, push_peer_data(PolicyFiles(b"policy", b"chain"))),
    "SERVTD_EXT": (pull_servtd_ext, bytes(SERVTD_EXT_SIZE)),
    "TDREPORT": (pull_report, OWN.report()),
}
"""Each parser of what a peer or a host gives, with something that it takes."""


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None)
@given(data=st.binary(max_size=600))
@example(data=b"[" * 100_000)
@example(data=b'{"a":' * 50_000)
@example(data=b'"' + b"\\" * 100_001)
@example(data=b"\xff" * 64)
def test_any_bytes_give_a_value_or_the_typed_error(name: str, data: bytes):
    refusal = refused(PARSERS[name][0], data)
    assert refusal is None or refusal.kind.id.startswith("MIGTD-POLICY-")


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None)
@given(data=st.data())
def test_damaged_input_gives_a_value_or_the_typed_error(name: str, data: st.DataObject):
    parse, good = PARSERS[name]
    parse(good)
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    refusal = refused(parse, good[:start] + data.draw(st.binary(max_size=6)) + good[end:])
    assert refusal is None or str(refusal)


# --- signatures ----------------------------------------------------------------------------------------------------
def meaning(policy: VerifiedPolicy) -> tuple[object, ...]:
    return policy.data, policy.identity, policy.mapping, policy.signer_point


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_changed_policy_is_refused_or_says_the_same(data: st.DataObject):
    at = data.draw(st.integers(0, len(FILES.policy) - 1))
    changed = bytearray(FILES.policy)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        policy = verify_policy(parse_envelope(bytes(changed)), FILES.chain)
    except PolicyError:
        return
    assert meaning(policy) == meaning(VERIFIED)
    # A hex digit of the signature, in the other case or a plus for a zero, is all that can change and still verify.
    assert at > FILES.policy.rindex(b',"signature"')


@settings(deadline=None, max_examples=30)
@given(blanks=st.lists(BLANK, min_size=10, max_size=10))
def test_white_space_around_the_signed_value_never_counts(blanks: list[str]):
    envelope = parse_envelope(FILES.policy)
    tokens = ["{", '"policyData"', ":", envelope.value, ",", '"signature"', ":", f'"{envelope.signature}"', "}"]
    text = "".join(blank + token for blank, token in zip(blanks, tokens, strict=False)) + blanks[-1]
    assert meaning(verify_policy(parse_envelope(text.encode()), FILES.chain)) == meaning(VERIFIED)


@given(st.binary(min_size=1, max_size=120))
def test_signature_text_is_read_in_either_case_and_with_a_plus_for_a_zero(raw: bytes):
    assert signature_bytes(raw.hex()) == signature_bytes(raw.hex().upper()) == raw
    plus = "".join(f"+{pair[1]}" if pair[0] == "0" else pair for pair in (f"{each:02x}" for each in raw))
    assert signature_bytes(plus) == raw


# --- layouts -------------------------------------------------------------------------------------------------------
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_peer_data_comes_back(policy: bytes, chain: bytes):
    files = PolicyFiles(policy, chain)
    blob = push_peer_data(files)
    assert pull_peer_data(blob) == files
    for cut in range(len(blob)):
        with pytest.raises(PolicyError):
            pull_peer_data(blob[:cut])


@given(st.binary(min_size=SERVTD_EXT_SIZE, max_size=SERVTD_EXT_SIZE))
def test_servtd_ext_comes_back_byte_for_byte(data: bytes):
    assert pull_servtd_ext(data).push() == data


REPORT = OWN.report()
UNCOVERED = range(495, 512)
"""Between TEE_TCB_INFO and TDINFO: reserved, of no hash, read by nobody."""


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(REPORT) - 1), st.integers(1, 255))
def test_no_byte_of_a_report_that_counts_may_change(at: int, change: int):
    changed = bytearray(REPORT)
    changed[at] ^= change
    tools = OWN.tools(verify_report=lambda mac_struct: mac_struct == REPORT[:256])
    refusal = refused(old_checks_new, OWN.own(), OWN.peer(), bytes(changed), tools)
    names = {PolicyErrorName.TdReportVerification, PolicyErrorName.InvalidTdReport}
    assert (refusal is None) if at in UNCOVERED else (refusal is not None and refusal.name in names)


# --- rules ---------------------------------------------------------------------------------------------------------
def property_of(operation: str, reference: object):
    return read_property(Reader(json.dumps(rule(operation, reference))))


@given(U32, U32, U32)
def test_numbers_compare_as_numbers_and_ranges_include_both_ends(value: int, one: int, other: int):
    assert integer_holds(property_of("equal", one), value, None) == (value == one)
    assert integer_holds(property_of("greater-or-equal", "self"), value, one) == (value >= one)
    assert integer_holds(property_of("in-range", f"{one}..{other}"), value, None) == (one <= value <= other)
    assert integer_holds(property_of("subset", [one, other]), value, None) == (value in (one, other))
    assert integer_holds(property_of("in-time-range", f"{value}..+{value}"), value, None)


@given(st.text(), st.text())
def test_texts_compare_by_their_utf_8_bytes(value: str, other: str):
    if other not in ("self", "init"):
        expected = value.encode() >= other.encode()
        assert string_holds(property_of("greater-or-equal", other), value, None) == expected
    assert string_holds(property_of("greater-or-equal", "init"), value, other) == (value.encode() >= other.encode())
    assert string_holds(property_of("allow-list", [other]), value, None) != string_holds(
        property_of("deny-list", [other]), value, None
    )


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(0, 9))
def test_the_level_of_an_svn_is_its_floor(svns: list[int], wanted: int):
    levels = [level(svn, str(index)) for index, svn in enumerate(svns)]
    found = parse_identity(compact(identity() | {"tcbLevels": levels})).level(wanted)
    below = [(svn, index) for index, svn in enumerate(svns) if svn <= wanted]
    assert (found and (found.isvsvn, int(found.tcb_date))) == (max(below) if below else None)


REFERENCES = st.one_of(
    U32, st.sampled_from(["self", "init", "1..5", "UpToDate", "Revoked", "x"]), st.lists(U32, max_size=3),
    st.lists(st.sampled_from([*PLATFORM_RANKS, "x"]), min_size=1, max_size=3),
)  # fmt: skip
OPERATIONS = ["equal", "greater-or-equal", "subset", "in-range", "in-time-range", "allow-list", "deny-list", "x"]
RULES = st.builds(rule, st.sampled_from(OPERATIONS), REFERENCES)
MAYBE = st.none() | RULES
ENTRIES = st.one_of(
    st.builds(
        lambda tcb, platform, crl: {"global": {"tcb": tcb, "platform": platform, "crl": crl}},
        st.none()
        | st.fixed_dictionaries({"tcbDate": MAYBE, "tcbStatusAccepted": MAYBE, "tcbEvaluationDataNumber": MAYBE}),
        st.none() | st.fixed_dictionaries({"fmspc": MAYBE}),
        st.none() | st.fixed_dictionaries({"pckCrlNum": MAYBE, "rootCaCrlNum": MAYBE}),
    ),
    st.builds(
        lambda rules: {"servtd": {"migtdIdentity": rules}},
        st.fixed_dictionaries({"isvsvn": MAYBE, "tcbDate": MAYBE, "tcbStatusAccepted": MAYBE}),
    ),
)
TEXT, NUMBER = st.none() | st.sampled_from(["x", "y"]), st.none() | U32
SIDES = st.builds(
    Values,
    TEXT,
    st.none() | st.sampled_from([*PLATFORM_RANKS, "x"]),
    NUMBER,
    TEXT,
    NUMBER,
    NUMBER,
    NUMBER,
    TEXT,
    st.none() | st.sampled_from([*SERVTD_RANKS, "x"]),
)
VERDICTS = {"TcbEvaluation", "CrlEvaluation", "UnqualifiedMigTdInfo", "SvnMismatch", "InvalidReference",
            "InvalidOperation", "InvalidParameter"}  # fmt: skip


@pytest.mark.parametrize("skip_global", [True, False])
@settings(deadline=None)
@given(block=st.lists(ENTRIES, max_size=4), values=SIDES, relative=SIDES)
def test_any_block_over_any_values_ends_in_a_verdict_with_its_trace(
    *, skip_global: bool, block: list[object], values: Values, relative: Values
):
    notes = Notes(Judge.SOURCE)
    entries = decode(compact(block), read_entries, PolicyErrorName.InvalidPolicy)

    def evaluate() -> None:
        evaluate_block(entries, values, relative, name="policy", skip_global=skip_global, notes=notes)

    refusal = refused(evaluate)
    if refusal:
        assert refusal.name.name in VERDICTS
        assert "\n" in explain_refusal(refusal, notes.trace)
    else:
        # Whatever the rules are, what is accepted is neither revoked nor unknown.
        assert values.migtd_tcb_status in ("UpToDate", "OutOfDate")
        assert skip_global or values.tcb_status is None or PLATFORM_RANKS[values.tcb_status] > 0
    assert all(summarize(each) for each in notes.trace)

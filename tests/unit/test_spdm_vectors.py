# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Known sessions byte for byte: both of our roles, and the reference's recorded with one of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migtd.attestation.mode import Evidence
from migtd.errors import MigTDError
from migtd.migration.data import ExchangeInformation
from migtd.migration.session import PeerInformation
from migtd.spdm.agreement import Agreement
from migtd.spdm.errors import FinishRefused
from migtd.spdm.keys import ApplicationSecrets
from migtd.spdm.recording import plain_messages, pull_recording, replay_recording, verify_recording
from migtd.spdm.testing import converse
from migtd.spdm.vendor_messages import Mode, pull_evidence_request, pull_evidence_response
from tests.unit.spdm_pairs import End, make_end

NAMES = ["kat_self_822", "kat_self_5006", "rec_pysrc_migtd_small", "rec_migtd_pydst_chunk"]
NO_KEY = ExchangeInformation(bytes(32), 0, 0)
OUR_KEY = ExchangeInformation(bytes(range(32)), 0, 0)


def load(shared: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((shared / "vectors/spdm" / f"{name}.json").read_text())
    return document


def assert_complete(end: End) -> None:
    assert end.side.error is None
    assert end.side.end == PeerInformation(NO_KEY)
    assert end.committed.keys == [NO_KEY]


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_a_recorded_session_is_computed_again(shared: Path, name: str) -> None:
    found = verify_recording(pull_recording(load(shared, name)))
    assert found.source == (OUR_KEY if name == "rec_pysrc_migtd_small" else NO_KEY)
    assert found.destination == (OUR_KEY if name == "rec_migtd_pydst_chunk" else NO_KEY)


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_the_evidence_of_a_recorded_session_reads_and_writes_back(shared: Path, name: str) -> None:
    messages = plain_messages(pull_recording(load(shared, name)))
    assert pull_evidence_request(messages[10], Mode.MIGRATION).push() == messages[10]
    assert pull_evidence_response(messages[11], Mode.MIGRATION).push() == messages[11]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "as_source"),
    [
        ("kat_self_822", True),
        ("kat_self_822", False),
        ("kat_self_5006", True),
        ("kat_self_5006", False),
        ("rec_pysrc_migtd_small", True),
        ("rec_migtd_pydst_chunk", False),
    ],
)
def test_our_side_says_every_byte_of_a_recorded_session(shared: Path, name: str, as_source: bool) -> None:  # noqa: FBT001
    recording = pull_recording(load(shared, name))
    assert as_source in recording.replayed_as_source
    side = replay_recording(recording, as_source=as_source)
    assert side.end == PeerInformation(NO_KEY)
    assert side.sent == recording.said(to_responder=as_source)


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES[:2])
def test_both_our_sides_together_say_a_known_session(shared: Path, name: str) -> None:
    recording = pull_recording(load(shared, name))
    messages = plain_messages(recording)
    request = pull_evidence_request(messages[10], Mode.MIGRATION)
    response = pull_evidence_response(messages[11], Mode.MIGRATION)
    shown = Evidence(request.quote, request.event_log), Evidence(response.quote, response.event_log)
    source = make_end(is_source=True, evidence=shown[0], local=NO_KEY)
    destination = make_end(is_source=False, evidence=shown[1], local=NO_KEY)
    converse(source.side, destination.side)
    assert source.side.sent == recording.said(to_responder=True)
    assert destination.side.sent == recording.said(to_responder=False)
    assert_complete(source)
    assert_complete(destination)


def flip_last(value: str) -> str:
    return value[:-1] + ("0" if value[-1] != "0" else "1")


SECRETS = ["random", "shared_x", "th1", "th2", "handshake", "master", "req_fin", "rsp_app", "req_key", "rsp_iv"]


@pytest.mark.shared
@pytest.mark.parametrize("name", [*SECRETS, "reportdata_req", "reportdata_rsp"])
def test_a_recording_with_another_value_does_not_verify(shared: Path, name: str) -> None:
    document = load(shared, "rec_pysrc_migtd_small")
    with pytest.raises(ValueError, match=name):
        verify_recording(pull_recording({**document, name: flip_last(document[name])}))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["sign_scalar", "eph_scalar"])
def test_a_recording_with_another_scalar_does_not_verify(shared: Path, name: str) -> None:
    document = load(shared, "rec_pysrc_migtd_small")
    with pytest.raises(ValueError, match="scalars"):
        verify_recording(pull_recording({**document, name: document[name] + 1}))


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_a_recording_with_another_message_does_not_verify(shared: Path, name: str) -> None:
    document = load(shared, name)
    for number, message in enumerate(document["messages"]):
        code = message["bytes"][2:4]
        if code in ("86", "7f") or (code == "05" and len(message["bytes"]) == 12):
            continue  # what only moves chunks is judged by the replay
        messages = [dict(each) for each in document["messages"]]
        messages[number]["bytes"] = flip_last(message["bytes"])
        with pytest.raises((MigTDError, ValueError)):
            verify_recording(pull_recording({**document, "messages": messages}))


@pytest.mark.shared
@pytest.mark.parametrize(("number", "offset"), [(9, -2), (12, 10), (12, -2), (13, -2)])
def test_signatures_and_macs_of_a_recording_are_checked_themselves(shared: Path, number: int, offset: int) -> None:
    document = load(shared, "kat_self_822")
    body = bytearray.fromhex(document["messages"][number]["bytes"])
    body[offset] ^= 1
    document["messages"][number]["bytes"] = body.hex()
    with pytest.raises(FinishRefused):
        verify_recording(pull_recording(document))


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change", [lambda messages: messages[:-1], lambda messages: messages[2:], lambda messages: messages[:-2]]
)
def test_a_recording_that_is_not_whole_does_not_verify(shared: Path, name: str, change: Callable[[Any], Any]) -> None:
    document = load(shared, name)
    with pytest.raises((MigTDError, ValueError)):
        verify_recording(pull_recording({**document, "messages": change(document["messages"])}))


@pytest.mark.shared
def test_a_replay_compares_what_only_moves_chunks_too(shared: Path) -> None:
    document = load(shared, "kat_self_5006")
    for number, message in enumerate(document["messages"]):
        if message["bytes"][2:4] not in ("86", "7f"):
            continue
        messages = [dict(each) for each in document["messages"]]
        messages[number]["bytes"] = flip_last(message["bytes"])
        recording = pull_recording({**document, "messages": messages})
        for as_source in recording.replayed_as_source:
            with pytest.raises((MigTDError, ValueError)):
                replay_recording(recording, as_source=as_source)


@pytest.mark.parametrize("document", [{}, {"role": 1}, {"role": "requester", "sign_scalar": "x"}])
def test_something_else_is_no_recording(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a recorded|invalid literal"):
        pull_recording(document)


@pytest.mark.parametrize(
    ("size", "th1", "th2", "lengths"),
    [
        (
            822,
            "55f62cb0d5a5579f175fcb835bb2c501",
            "4a52fcdcc3a57448dc016cc317bd7130",
            ([4, 20, 48, 143, 154, 2001, 148, 97, 36], [8, 20, 52, 143, 246, 1205, 52, 97, 36]),
        ),
        (
            5006,
            "55f62cb0d5a5579f175fcb835bb2c501",
            "2d8b908982e592c70af8868fa98a6fb0",
            ([4, 20, 48, 143, 154, 4032, 2181, 6, 6, 148, 97, 36], [8, 20, 52, 143, 246, 6, 5, 4032, 1385, 52, 97, 36]),
        ),
    ],
)
def test_the_known_answers_of_the_specification_hold(
    size: int, th1: str, th2: str, lengths: tuple[list[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    finish = Agreement.finish

    def watched(self: Agreement, verify_data: bytes) -> ApplicationSecrets:
        secrets = finish(self, verify_data)
        found.append((self.th1.hex()[:32], self.th2.hex()[:32]))
        return secrets

    monkeypatch.setattr(Agreement, "finish", watched)
    source, destination = (
        make_end(is_source=is_source, evidence=Evidence(letter * size, log * 300), local=NO_KEY)
        for is_source, letter, log in ((True, b"Q", b"E"), (False, b"q", b"e"))
    )
    converse(source.side, destination.side)
    assert found == [(th1, th2)] * 2
    assert [len(body) for _, body in source.side.sent] == lengths[0]
    assert [len(body) for _, body in destination.side.sent] == lengths[1]
    assert_complete(source)
    assert_complete(destination)

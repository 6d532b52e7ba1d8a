# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whatever a host answers on its control API: the client gives what the API describes or a ControlError."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm_stub.vmm.control import client as module
from vmm_stub.vmm.control.client import AnswerMalformed, ControlClient, ControlError


async def events(client: ControlClient) -> list[dict[str, Any]]:
    return [line async for line in client.events()]


async def outcome(client: ControlClient) -> object:
    return await client.outcome("migtd", 1, 0.0)


CALLS: list[Callable[[ControlClient], Awaitable[object]]] = [
    ControlClient.openapi,
    ControlClient.health,
    ControlClient.target_tds,
    ControlClient.migrations,
    outcome,
    events,
]


async def answered(call: Callable[[ControlClient], Awaitable[object]], answer: bytes) -> object:
    """What the call gives, or its ControlError, where the host says these bytes and ends the connection."""
    ours, theirs = socket.socketpair()
    client = ControlClient(*await asyncio.open_unix_connection(sock=ours))
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    writer.write(answer)
    writer.write_eof()
    try:
        return await call(client)
    except ControlError as error:
        return error
    finally:
        await client.close()
        # A client that gave up reads no more: this end sees a reset.
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def whole(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


json_bytes = st.recursive(
    st.sampled_from([b"null", b"1", b'"x"', b"1e999", b"9" * 5000, b"{", b"[", b"\xff", b'"\\ud800"', b"{}", b"[]"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: b"[" + b",".join(parts) + b"]"),
        inner.map(lambda part: b'{"error":' + part + b',"status":' + part + b',"host":"h"}'),
    ),
    max_leaves=6,
)
heads = st.builds(
    lambda version, status, header: b"%s %s X\r\n%s\r\n" % (version, status, header),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b""]),
    st.sampled_from([b"100", b"101", b"200", b"204", b"304", b"404", b"500", b"999", b"-1", b""]),
    st.sampled_from(
        [
            b"",
            b"content-length: 2\r\n",
            b"content-length: -1\r\n",
            b"content-length: 99999999999999999999\r\n",
            b"transfer-encoding: chunked\r\n",
            b"connection: close\r\n",
            b"upgrade: x\r\n",
        ]
    ),
)
answers = st.one_of(
    st.builds(whole, json_bytes.map(lambda body: body + b"\n"), st.sampled_from([200, 201, 400, 500])),
    st.builds(lambda head, body: head + body, heads, st.one_of(json_bytes, st.binary(max_size=60))),
    st.lists(heads, max_size=4).map(b"".join),
    st.binary(max_size=200),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CALLS), answers)
def test_any_answer_gives_what_the_api_describes_or_a_control_error(
    call: Callable[[ControlClient], Awaitable[object]], answer: bytes
) -> None:
    asyncio.run(answered(call, answer))  # any other error is the test's


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xff\xfe", b"{", b"null", b"7"],
    ids=["deep-list", "deep-object", "long-number", "no-text", "cut", "null", "number"],
)  # fmt: skip
async def test_json_of_the_worst_kind_is_an_answer_that_is_malformed(
    call: Callable[[ControlClient], Awaitable[object]], body: bytes
) -> None:
    for status in (200, 500):
        assert isinstance(await answered(call, whole(body + b"\n", status)), AnswerMalformed)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_an_answer_without_end_is_given_up(
    call: Callable[[ControlClient], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 100_000)
    monkeypatch.setattr(module, "MAX_LINE", 100_000)
    for status in (b"200", b"500"):
        found = await answered(call, b"HTTP/1.1 " + status + b" X\r\n\r\n" + b"x" * 300_000)
        assert isinstance(found, AnswerMalformed)
        assert "more than 100000 bytes" in str(found)

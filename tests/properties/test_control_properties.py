# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whatever bytes come to the control socket: an answer or a close, and the host serves on."""

import asyncio
import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm_stub.testing import MIGTD, quiet_vmm
from vmm_stub.vmm.control.dispatch import dispatch
from vmm_stub.vmm.control.route import Json
from vmm_stub.vmm.control.routes import ROUTES
from vmm_stub.vmm.control.server import ControlServer

HEALTH = b"GET /v1/health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"

methods = st.sampled_from(["GET", "POST", "HEAD", "PUT", "CONNECT", "OPTIONS", "get", "X"])
paths = st.sampled_from(
    [
        *(route.path.replace("{migtd}", MIGTD).replace("{request_id}", "1") for route in ROUTES),
        "/",
        "*",
        "//[",
        "/v1/%00",
        "/v1/migrations/%ff/-1",
        "http://h/v1/health",
    ]
)
queries = st.sampled_from(
    ["", "?", "?wait=0", "?after=1", "?after=x&follow=", "?%zz=%ff", "?timeout=0", "?a=1&a=2", "?;"]
)
versions = st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", ""])
headers = st.sampled_from(
    [
        "host: h\r\n",
        "host: h\r\ncontent-length: 2\r\n",
        "host: h\r\ncontent-length: -1\r\n",
        "host: h\r\ncontent-length: 99999999999999999999\r\n",
        "host: h\r\ntransfer-encoding: chunked\r\n",
        "host: h\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n",
        "host: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n",
        "host: h\r\nconnection: upgrade\r\nupgrade: x\r\n",
        "host: h\r\nconnection: close\r\n",
        "",
        "host\r\n",
    ]
)
bodies = st.sampled_from([b"", b"{}", b"[]", b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n", b"2\r\n{", b"\xff\xfe"])
requests = st.builds(
    lambda method, path, query, version, header, body: (
        f"{method} {path}{query} {version}\r\n{header}\r\n".encode() + body
    ),
    methods,
    paths,
    queries,
    versions,
    headers,
    bodies,
)
streams = st.lists(st.one_of(requests, st.binary(max_size=100)), max_size=4).map(b"".join)


async def exchange(path, portions):
    """All that a client gets that sends these portions and then ends its half."""
    reader, writer = await asyncio.open_unix_connection(path)
    for portion in portions:
        writer.write(portion)
        await asyncio.sleep(0)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def serve(streams_):
    """The answers to some clients, and the answer to an honest one behind them."""
    unraised = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unraised.append(context))
    vmm = quiet_vmm()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        server = ControlServer(vmm, path)
        await server.start()
        answers = await asyncio.gather(*(exchange(str(path), portions) for portions in streams_))
        honest = await exchange(str(path), [HEALTH])
        await server.stop()
    await vmm.stop()
    assert unraised == []
    return answers, honest


def cut(stream, ends):
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


@settings(max_examples=150, deadline=None)
@given(st.lists(streams, min_size=1, max_size=3))
def test_arbitrary_bytes_get_an_answer_or_a_close_and_the_host_serves_on(clients):
    # An exception inside a connection would come to the loop's handler.
    answers, honest = asyncio.run(asyncio.wait_for(serve([[stream] for stream in clients]), 30))
    for answer in answers:
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert honest.startswith(b"HTTP/1.1 200 ")


@settings(max_examples=60, deadline=None)
@given(streams, st.data())
def test_answers_do_not_depend_on_how_the_request_is_cut(stream, data):
    ends = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    answers, _ = asyncio.run(asyncio.wait_for(serve([[stream], cut(stream, ends)]), 30))
    # Of what is malformed the text may differ: it is found out earlier or later.
    whole, portions = (re.findall(rb"^HTTP/1.1 (\d+)", answer, re.MULTILINE) for answer in answers)
    assert whole == portions


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12), st.text(max_size=60), st.binary(max_size=120))
def test_any_method_target_and_body_make_an_answer_with_an_id(method, target, body):
    answer = asyncio.run(dispatch(quiet_vmm(), method, target, body))
    assert isinstance(answer, Json)
    assert answer.status in {400, 404, 405}
    assert json.loads(answer.body.model_dump_json())["error"]["id"].startswith("VMM-API-")


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), st.just(MIGTD)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
KEYS = ("migtd", "uuid", "binding_handle", "servtd_attr", "role", "request_id", "peer", "listen_port")


@pytest.mark.parametrize("path", ["/v1/target-tds", "/v1/migrations"])
@settings(max_examples=100, deadline=None)
@given(body=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=8))
def test_any_json_body_is_served_or_refused_with_an_id(path, body):
    answer = asyncio.run(dispatch(quiet_vmm(), "POST", path, json.dumps(body).encode()))
    assert isinstance(answer, Json)
    assert answer.status in {201, 400, 404, 409}
    answer.body.model_dump_json()

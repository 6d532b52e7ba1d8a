# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Collateral from services and from files: addresses, retries, bounds, and hostile answers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from urllib.parse import quote

import pytest

from lab.policy_tools import cli_collateral_generator, cli_policy_generator, fetch, generate, pcs
from lab.policy_tools.errors import ToolError
from lab.policy_tools.fetch import Answer, HttpFetcher
from migtd.attestation.quote.collateral import pull_collaterals_json
from migtd.attestation.quote.verify import root_key_of, verify_quote
from vmm_stub.quoting.pcs import PcsServer
from vmm_stub.quoting.pcs_answers import pcs_answer
from vmm_stub.testing_quoting import machine

MACHINE = machine()
MATERIAL = MACHINE.material
FMSPC = next(iter(MATERIAL.tcb_infos))


class Memory:
    """A fetcher that answers as the lab's service does, whatever the host, and remembers the addresses."""

    def __init__(self, **changes):
        self.urls = []
        self.changes = changes

    def get(self, url):
        self.urls.append(url)
        for part, answer in self.changes.items():
            if part in url:
                return answer
        target = "/" + url.split("//", 1)[1].partition("/")[2]
        found = pcs_answer(MATERIAL, target)
        return Answer(found.status, {name.lower(): value for name, value in found.headers.items()}, found.body)


def test_intel_is_asked_at_the_documented_addresses():
    fetcher = Memory()
    items = pcs.PcsClient(pcs.intel(), fetcher, talk=pytest.fail).items()
    base = "https://api.trustedservices.intel.com//"
    assert fetcher.urls[0] == f"{base}tdx/certification/v4/qe/identity"
    # Where the second certificate of the chain says that its CRL is.
    assert fetcher.urls[1].endswith("/sgx/certification/v4/rootcacrl?encoding=der")
    assert not fetcher.urls[1].startswith(base)
    assert fetcher.urls[2].startswith("https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning")
    assert f"{base}sgx/certification/v4/pckcrl?ca=platform&encoding=der" in fetcher.urls
    assert f"{base}sgx/certification/v4/fmspcs" in fetcher.urls
    assert f"{base}tdx/certification/v4/tcb?fmspc={FMSPC}" in fetcher.urls
    assert items.root_ca == MATERIAL.root_ca


def test_azure_takes_list_and_root_from_intel():
    fetcher = Memory()
    pcs.PcsClient(pcs.azure_thim("westeurope"), fetcher).items()
    assert "https://westeurope.thim.azure.net/tdx/certification/v4/qe/identity" in fetcher.urls
    assert any("api.trustedservices.intel.com" in url and "fmspcs" in url for url in fetcher.urls)
    with pytest.raises(ToolError):
        pcs.azure_thim("evil.example/")


def test_policy_v1_asks_once_for_everything_with_the_empty_value(tmp_path):
    fetcher = Memory()
    out = tmp_path / "policy.json"
    assert cli_policy_generator.main(["-o", str(out)], fetcher) == 0
    assert "https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity?update=" in fetcher.urls
    assert out.read_bytes() == generate.policy_v1(dict(MATERIAL.tcb_infos), MATERIAL.collateral.qe_identity)
    assert len(fetcher.urls) == len(set(fetcher.urls)) == 2 + len(MATERIAL.tcb_infos)


def test_document_verifies_a_quote_of_the_machine(tmp_path):
    out = tmp_path / "collaterals.json"
    assert cli_collateral_generator.main(["-o", str(out), "--base-url", "http://pcs"], Memory()) == 0
    collateral, root = pull_collaterals_json(out.read_bytes(), FMSPC)
    assert verify_quote(MACHINE.quote(), root_key_of(root), collateral).fmspc.hex().upper() == FMSPC
    text = json.loads(out.read_bytes())
    assert text["rootCa"].endswith("-----END CERTIFICATE-----")
    assert text["platforms"][0]["tcbInfo"].encode() == MATERIAL.tcb_infos[FMSPC]
    assert list(text)[:4] == ["majorVersion", "minorVersion", "teeType", "rootCa"]


def test_saved_files_give_the_same_document_and_policy_without_a_service(tmp_path):
    first, second, folder = tmp_path / "1", tmp_path / "2", tmp_path / "files"
    arguments = ["-o", str(first), "--base-url", "http://pcs", "--save-files", str(folder)]
    assert cli_collateral_generator.main(arguments, Memory()) == 0
    nobody = Memory(http=Answer(500, {}, b""))
    assert cli_collateral_generator.main(["-o", str(second), "--from-files", str(folder)], nobody) == 0
    assert second.read_bytes() == first.read_bytes()
    v1 = tmp_path / "v1"
    assert cli_policy_generator.main(["-o", str(v1), "--from-files", str(folder)], nobody) == 0
    assert nobody.urls == []
    assert v1.read_bytes() == generate.policy_v1_of_collaterals(first.read_bytes())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"tcb?": Answer(404, {}, b"")}, 0),
        ({"tcb?": Answer(403, {}, b"")}, 0),
        ({"tcb?": Answer(200, {}, b"{}")}, 1),
        ({"fmspcs": Answer(404, {}, b"")}, 1),
        ({"fmspcs": Answer(200, {}, b"{}")}, 1),
        ({"fmspcs": Answer(200, {}, b'[{"fmspc":"../../x","platform":"E5"}]')}, 1),
        ({"fmspcs": Answer(200, {}, b'[{"fmspc":1,"platform":"E5"}]')}, 1),
        ({"fmspcs": Answer(200, {}, b'[{"fmspc":"00A06D080000","platform":"E3"}]')}, 0),
        ({"qe/identity": Answer(200, {}, b"{}")}, 1),
        ({"qe/identity": Answer(200, {"sgx-enclave-identity-issuer-chain": "%FF"}, b"{}")}, 1),
        ({"qe/identity": Answer(200, {"sgx-enclave-identity-issuer-chain": quote("no chain")}, b"{}")}, 1),
        ({"qe/identity": Answer(401, {}, b"")}, 1),
        ({"pckcrl": Answer(200, {"sgx-pck-crl-issuer-chain": ""}, b"no CRL")}, 1),
        ({"RootCA.cer": Answer(200, {}, b"<html>")}, 1),
        ({"rootcacrl": Answer(404, {}, b"")}, 1),
    ],
)
def test_answers_that_cannot_be_used_end_in_status_1_and_leave_no_file(tmp_path, capsys, change, status):
    out = tmp_path / "out"
    assert cli_collateral_generator.main(["-o", str(out)], Memory(**change)) == status
    assert out.exists() == (status == 0)
    told = capsys.readouterr().err
    assert ("left out" in told) == (change.get("tcb?", Answer(0, {}, b"")).status == 403)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--provider", "AZURE-thim"], 0),
        (["--provider", "Intel", "--pre-production"], 0),
        (["--provider", "other"], 1),
        (["--provider", "thim", "--azure-region", "a/b"], 1),
        (["--base-url", "http://x", "--from-files", "y"], 2),
        (["--from-files", "/no/such/folder"], 1),
        (["--retries", "1"], 2),
    ],
)
def test_collateral_generator_statuses(tmp_path, arguments, status):
    assert cli_collateral_generator.main(["-o", str(tmp_path / "out"), *arguments], Memory()) == status
    assert cli_collateral_generator.main([]) == 2


# --- over the network ----------------------------------------------------------------------------------------------
class Server:
    """Answers each connection with the next of some raw bytes, then with the last one again."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(4096))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer == b"silence":
                    connection.recv(1)
                try:
                    connection.sendall(answer)
                except OSError:
                    continue


@pytest.fixture
def serve():
    servers = []

    def start(*answers):
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.socket.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


OK = b"HTTP/1.1 200 OK\r\nX-Chain: a%0Ab\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize("status", [b"500 x", b"503 x", b"429 x", b"408 x"])
def test_what_may_pass_is_tried_again_after_the_documented_delays(serve, status):
    slept: list[float] = []
    told: list[str] = []
    server = serve(*[b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n"] * 5, OK)
    answer = HttpFetcher(sleep=slept.append, talk=told.append).get(server.url + "/x")
    assert (answer.status, answer.body, answer.headers["x-chain"]) == (200, b"ok", "a%0Ab")
    assert slept == [10, 20, 40, 80, 160]
    assert len(told) == 5


def test_after_the_last_delay_it_fails(serve):
    slept: list[float] = []
    server = serve(b"")
    with pytest.raises(ToolError) as caught:
        HttpFetcher(sleep=slept.append, talk=lambda _: None).get(server.url)
    assert caught.value.kind.id == "LAB-PCS-UNREACHABLE"
    assert len(slept) == 5
    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [400, 401, 404])
def test_other_statuses_are_answers(serve, status):
    server = serve(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n".encode())
    assert HttpFetcher(sleep=lambda _: pytest.fail("a retry")).get(server.url).status == status


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"silence", "LAB-PCS-UNREACHABLE"),
        (b"nonsense\r\n\r\n", "LAB-PCS-UNREACHABLE"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "LAB-PCS-UNREACHABLE"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "LAB-PCS-UNREACHABLE"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000), "LAB-PCS-ANSWER-INVALID"),
    ],
)
def test_hostile_services_end_in_an_id(serve, monkeypatch, answer, kind):
    monkeypatch.setattr(fetch, "MAX_BODY", 4000)
    with pytest.raises(ToolError) as caught:
        HttpFetcher(delays=(), silence=0.5).get(serve(answer).url)
    assert caught.value.kind.id == kind


def test_an_answer_that_takes_too_long_altogether_is_given_up(serve):
    with pytest.raises(ToolError) as caught:
        HttpFetcher(delays=(), silence=30, whole=0.3).get(serve(b"silence").url)
    assert caught.value.kind.id == "LAB-PCS-UNREACHABLE"


def test_other_schemes_are_refused_also_by_redirect(serve, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with pytest.raises(ToolError):
        HttpFetcher(delays=()).get(secret.as_uri())
    server = serve(f"HTTP/1.1 302 x\r\nlocation: {secret.as_uri()}\r\ncontent-length: 0\r\n\r\n".encode())
    try:
        body = HttpFetcher(delays=()).get(server.url).body
    except ToolError:
        body = b""
    assert b"secret" not in body


async def test_the_labs_own_service_serves_the_whole_tool(tmp_path):
    server = PcsServer(MATERIAL)
    await server.start()
    try:
        out = tmp_path / "out"
        arguments = ["-o", str(out), "--base-url", server.url]
        assert await asyncio.to_thread(cli_collateral_generator.main, arguments) == 0
        memory = tmp_path / "memory"
        assert cli_collateral_generator.main(["-o", str(memory), "--base-url", "http://x"], Memory()) == 0
        assert out.read_bytes() == memory.read_bytes()
    finally:
        await server.stop()

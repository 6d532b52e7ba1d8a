# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The collateral of a lab, fetched over HTTP as from a PCS: what comes makes a set that verifies quotes."""

import asyncio
import json
from urllib.parse import unquote

import h11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.verify import verify_quote
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.pcs import PcsServer
from vmm_stub.quoting.pcs_answers import ROOT_CA_PATH, pcs_answer
from vmm_stub.quoting.settings import PlatformSettings
from vmm_stub.testing_quoting import PKI, machine

OWN = machine(others=[PlatformSettings(machine="other", fmspc=bytes.fromhex("00806F050000"), pck_revoked=True)])
MATERIAL = OWN.material


def get(target):
    answer = pcs_answer(MATERIAL, target)
    assert answer.status == 200
    return answer


def pem_of(der):
    return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)


def chain_in(answer, name):
    return unquote(answer.headers[name]).encode()


def test_what_is_fetched_is_collateral():
    pck_crl = get("/sgx/certification/v4/pckcrl?ca=platform&encoding=der")
    tcb = get("/tdx/certification/v4/tcb?fmspc=4d4c41420000")
    qe = get("/tdx/certification/v4/qe/identity?update=standard")
    fetched = CollateralSet(
        1,
        0,
        0x81,
        chain_in(pck_crl, "SGX-PCK-CRL-Issuer-Chain"),
        pem_of(bytes.fromhex(get("/sgx/certification/v4/rootcacrl").body.decode())),
        pem_of(pck_crl.body),
        chain_in(tcb, "TCB-Info-Issuer-Chain"),
        tcb.body,
        chain_in(qe, "SGX-Enclave-Identity-Issuer-Chain"),
        qe.body,
    )
    assert fetched == MATERIAL.collateral
    assert verify_quote(OWN.quote(), PKI.root_key, fetched).converged_status == "UpToDate"


def test_crls_come_in_the_encoding_that_is_asked_for():
    assert get("/sgx/certification/v4/pckcrl?ca=platform&encoding=pem").body == MATERIAL.collateral.pck_crl
    assert pem_of(get("/sgx/certification/v4/rootcacrl?encoding=der").body) == MATERIAL.collateral.root_ca_crl


def test_the_distribution_points_of_the_certificates_are_served():
    for certificate in x509.load_pem_x509_certificates(MATERIAL.pck_chain):
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        url = points[0].full_name[0].value
        assert url.startswith(PKI.pcs_url)
        crl = x509.load_der_x509_crl(get(url.removeprefix(PKI.pcs_url)).body)
        assert crl.issuer == certificate.issuer


def test_every_fmspc_of_the_lab_is_listed_and_has_its_tcb_info():
    listed = json.loads(get("/sgx/certification/v4/fmspcs").body)
    assert listed == [{"fmspc": "4D4C41420000", "platform": "E5"}, {"fmspc": "00806F050000", "platform": "E5"}]
    for each in listed:
        info = json.loads(get(f"/tdx/certification/v4/tcb?fmspc={each['fmspc']}").body)["tcbInfo"]
        assert info["fmspc"] == each["fmspc"]


def test_slashes_may_be_doubled_and_the_root_ca_is_there():
    assert get("//tdx/certification/v4/qe/identity?update=").body == MATERIAL.collateral.qe_identity
    assert get(ROOT_CA_PATH).body == PKI.root_ca


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/sgx/certification/v4/nothing", 404),
        ("/tdx/certification/v4/tcb?fmspc=000000000000", 404),
        ("/tdx/certification/v4/tcb", 400),
        ("/sgx/certification/v4/pckcrl?ca=processor", 404),
        ("/sgx/certification/v4/pckcrl?ca=other", 400),
        ("/sgx/certification/v4/pckcrl", 400),
        ("/tdx/certification/v4/tcb?" + "&".join(f"a{n}=" for n in range(20)), 400),
        ("//[", 404),
    ],
)
def test_what_is_not_there_has_a_status(target, status):
    assert pcs_answer(MATERIAL, target).status == status


class Client:
    """One HTTP connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.CLIENT)

    async def get(self, target, method="GET"):
        request = h11.Request(method=method, target=target, headers=[("host", "pcs")])
        self.writer.write(self.http.send(request) + self.http.send(h11.EndOfMessage()))
        body = b""
        while not isinstance(event := self.http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.reader.read(4096))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return head.status_code, dict(head.headers), body


@pytest.fixture
async def server():
    served = PcsServer(MATERIAL)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def connect(server):
    clients = []

    async def connected():
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        clients.append(Client(*await asyncio.open_connection(host, int(port))))
        return clients[-1]

    yield connected
    for client in clients:
        client.writer.close()
        await client.writer.wait_closed()


async def test_one_connection_serves_one_request_after_the_other(connect):
    client = await connect()
    assert (await client.get("/tdx/certification/v4/qe/identity"))[::2] == (200, MATERIAL.collateral.qe_identity)
    assert (await client.get("/nothing"))[0] == 404
    status, headers, body = await client.get("/tdx/certification/v4/qe/identity", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers[b"content-length"]) == len(MATERIAL.collateral.qe_identity)
    status, headers, _ = await client.get("/tdx/certification/v4/qe/identity", "DELETE")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")
    assert (await client.get("/" + "a" * 3000))[0] == 414


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"no http\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 20_000, b"431"),
        (b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", b"404"),
        (b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\nhello", b"404"),
    ],
)
async def test_a_request_that_is_none_ends_the_connection(connect, data, status):
    client = await connect()
    client.writer.write(data)
    client.writer.write_eof()
    assert (await client.reader.read()).split(b" ")[1] == status


async def test_a_client_that_leaves_early_harms_nobody(connect):
    for data in (b"", b"GET / HT"):
        client = await connect()
        client.writer.write(data)
        client.writer.close()
    assert (await (await connect()).get(ROOT_CA_PATH))[2] == PKI.root_ca


async def test_a_stopped_service_has_no_clients(server, connect):
    client = await connect()
    await client.get(ROOT_CA_PATH)
    await server.stop()
    assert await client.reader.read() == b""


async def test_an_address_of_another_machine_is_refused():
    with pytest.raises(QuotingError) as refused:
        await PcsServer(MATERIAL, "192.0.2.1").start()
    assert refused.value.kind.id == "VMM-PCS-ADDRESS"


async def test_a_port_in_use_is_said_so(server):
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(QuotingError) as refused:
        await PcsServer(MATERIAL, port=port).start()
    assert str(port) in refused.value.detail

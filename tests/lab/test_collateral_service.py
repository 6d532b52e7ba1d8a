# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A lab on the engine `process` that serves its collateral: what is fetched verifies quotes, and is exported."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import unquote

import dcap_qvl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lab import run
from lab.engines.process import ProcessEngine
from lab.errors import EngineError, ExitStatus
from lab.labfile import load_lab_file
from lab.options import PkiExportOptions, PkiMakeOptions, UpOptions
from lab.pki import ROOT_DER
from lab.pki_commands import export, make
from lab.plan import resolve
from migtd.attestation.quote.collateral import CollateralSet, pull_packed
from migtd.attestation.quote.verify import root_key_of, verify_quote
from vmm_stub.quoting.material import platform_for
from vmm_stub.quoting.pcs_answers import ROOT_CA_PATH
from vmm_stub.tdx_module.report import TdInfo
from vmm_stub.testing_quoting import Machine

pytestmark = pytest.mark.engine

NAME = "test-pcs"
SEPT_VE_DISABLE = 1 << 28
"""TD attribute without which dcap-qvl takes no quote."""
LAB = """\
schema: 1
pki: pki
policy_file: {policy}
hosts:
  host-a: {{pcs: "127.0.0.1:{port}", migtds: {{m: {{}}}}}}
  host-b: {{platform: {{fmspc: "00806F050000"}}, migtds: {{m: {{}}}}}}
migrations:
  - {{source: {{host: host-a, migtd: m}}, destination: {{host: host-b, migtd: m}}}}
"""


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A state folder of this test's own; whatever runs there is ended afterwards."""
    tmp_path_factory.getbasetemp()
    # Not tmp_path: a unix socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield
        engine = ProcessEngine([Path(folder) / "migtd-lab"])
        for lab in engine.labs():
            asyncio.run(engine.down(lab.lab, lambda _: None))


def lab_file(folder: Path, checkout: Path, port: int) -> Path:
    file = folder / "lab.yaml"
    file.write_text(LAB.format(port=port, policy=checkout / "examples" / "policies" / "two-platforms.json"))
    make(PkiMakeOptions(folder=folder / "pki"))
    return file


def up(file: Path, migrations: int | None = None) -> ExitStatus:
    return run.up(UpOptions(name=NAME, engine="process", json=True, lab_file=file, migrations=migrations))


def fetched(port: int, fmspc: str) -> tuple[bytes, CollateralSet]:
    """Root and collateral, as a tool fetches them: HTTP/1.1 on one connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)

    def get(path: str, chain: str = "") -> tuple[bytes, bytes]:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, path
        return answer.read(), unquote(answer.headers.get(chain, "")).encode()

    def pem(crl: bytes) -> bytes:
        return x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM)

    pck_crl, pck_chain = get("/sgx/certification/v4/pckcrl?ca=platform&encoding=der", "SGX-PCK-CRL-Issuer-Chain")
    root_crl, _ = get("/sgx/certification/v4/rootcacrl?encoding=der")
    tcb_info, tcb_chain = get(f"/tdx/certification/v4/tcb?fmspc={fmspc}", "TCB-Info-Issuer-Chain")
    identity, identity_chain = get("/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain")
    root, _ = get(ROOT_CA_PATH)
    connection.close()
    collateral = CollateralSet(
        1, 0, 0x81, pck_chain, pem(root_crl), pem(pck_crl), tcb_chain, tcb_info, identity_chain, identity
    )
    return root, collateral


def seen_by_another_verifier(port: int, quote: bytes, root: bytes) -> str:
    """Status by dcap-qvl, which fetches what it needs by itself."""

    async def verify() -> str:
        collateral = await dcap_qvl.get_collateral(f"http://127.0.0.1:{port}", quote)
        return str(dcap_qvl.verify_with_root_ca(quote, collateral, root, int(time.time()) + 1).status)

    return asyncio.run(verify())


def test_fetched_collateral_verifies_the_quotes_of_every_host_and_is_what_is_exported(
    tmp_path: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    file = lab_file(tmp_path, checkout, port)
    assert up(file) is ExitStatus.SUCCESS
    assert json.loads(capsys.readouterr().out)["msk_match"] is True

    assert export(PkiExportOptions(folder=tmp_path / "out", name=NAME, engine="process")) is ExitStatus.SUCCESS

    lab = resolve(load_lab_file(file), name=NAME)
    assert lab.evidence is not None
    for host in ("host-a", "host-b"):
        material = lab.evidence.material(lab.lab, host)
        machine = Machine(material, platform_for(material, bytes(32)))
        quote = machine.quote(report=machine.report(tdinfo=TdInfo(attributes=SEPT_VE_DISABLE, xfam=0x618E7)))
        root, collateral = fetched(port, material.fmspc)
        assert verify_quote(quote, root_key_of(root), collateral).converged_status == "UpToDate"
        assert pull_packed((tmp_path / "out" / host / "collateral.bin").read_bytes()) == collateral
        assert (tmp_path / "out" / ROOT_DER).read_bytes() == root
        assert seen_by_another_verifier(port, quote, root) == "UpToDate"
    # Nothing that runs already has to be started again for it.
    assert up(file, migrations=0) is ExitStatus.SUCCESS


def test_a_port_in_use_is_named_before_the_host_is_started(tmp_path: Path, checkout: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"127.0.0.1:{port}") as refused:
            up(lab_file(tmp_path, checkout, port))

    assert refused.value.kind.id == "LAB-PORT-IN-USE"
    # Once it is free, the same lab starts.
    assert up(tmp_path / "lab.yaml", migrations=0) is ExitStatus.SUCCESS

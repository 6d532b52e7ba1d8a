# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a lab file says of PKI, quoting and collateral service, and what becomes of it in the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.engines.base import PublishedPort, Service
from lab.engines.process import migtd_arguments
from lab.errors import UsageError
from lab.evidence import PKI_FILE
from lab.labfile import default_lab, load_lab_file, parse_lab_file
from lab.options import PkiMakeOptions
from lab.pki_commands import make
from lab.plan import ResolvedLab, resolve
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.verify import root_key_of, verify_quote
from migtd.guest.quote_messages import QuoteForm
from migtd.td_options import pull_options
from vmm_stub.quoting.material import platform_for
from vmm_stub.testing_quoting import Machine
from vmm_stub.vmm.control.models import LabQuotingConfig

TEXT = """\
schema: 1
{top}
hosts:
  host-a: {{{a}migtds: {{m: {{}}}}}}
  host-b: {{{b}migtds: {{m: {{}}}}}}
"""


def text(top: str = "", a: str = "", b: str = "") -> str:
    return TEXT.format(top=top, a=a and a + ", ", b=b and b + ", ")


def lab_in(folder: Path, **said: str) -> ResolvedLab:
    folder.mkdir()
    (folder / "lab.yaml").write_text(text(**said))
    return resolve(load_lab_file(folder / "lab.yaml"), name=folder.name)


def fault(content: str) -> str:
    with pytest.raises(UsageError) as refused:
        parse_lab_file(content.encode(), "lab.yaml")
    assert refused.value.kind.id == "LAB-FILE-INVALID"
    return refused.value.detail


def kind_of(content: str, attestation: str | None = None) -> str:
    with pytest.raises(UsageError) as refused:
        resolve(parse_lab_file(content.encode(), "lab.yaml"), attestation=attestation)
    return refused.value.kind.id


# --- pki ---


def test_labs_that_share_a_pki_trust_each_others_quotes_and_others_do_not(tmp_path: Path):
    make(PkiMakeOptions(folder=tmp_path / "shared"))
    make(PkiMakeOptions(folder=tmp_path / "own"))
    first = lab_in(tmp_path / "lab-1", top="pki: ../shared")
    second = lab_in(tmp_path / "lab-2", top="pki: ../shared")
    third = lab_in(tmp_path / "lab-3", top="pki: ../own")

    assert not any(lab.lacks_pki for lab in (first, second, third))
    assert root_of(first) == root_of(second) != root_of(third)
    assert judged(quote_of(first), second) == "UpToDate"
    with pytest.raises(QuoteError):
        judged(quote_of(third), second)


def test_a_pki_that_cannot_be_read_is_told_before_anything_starts(tmp_path: Path):
    for number, (content, kind) in enumerate(((None, "LAB-FILE-MISSING"), ("{}", "LAB-EVIDENCE-INVALID"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        if content is not None:
            (folder / PKI_FILE).write_text(content)
        assert kind_of(text(top=f"pki: {folder}")) == kind


def test_a_shared_pki_is_kept_with_the_lab(tmp_path: Path):
    make(PkiMakeOptions(folder=tmp_path / "shared"))
    lab = lab_in(tmp_path / "lab-1", top="pki: ../shared")

    again = ResolvedLab.from_text(lab.to_text().encode())

    assert again is not None
    assert root_of(again) == root_of(lab)
    assert again.plan().fingerprint == lab.plan().fingerprint


# --- quoting and pcs ---


def test_quoting_and_collateral_service_reach_the_host_that_they_are_of(tmp_path: Path):
    make(PkiMakeOptions(folder=tmp_path / "shared"))
    lab = lab_in(tmp_path / "lab-1", top="pki: ../shared", a="quoting: {fail_first: 5}", b='pcs: "127.0.0.1:8081"')
    host_a, host_b = lab.plan().hosts

    assert isinstance(host_a.config.quoting, LabQuotingConfig)
    assert isinstance(host_b.config.quoting, LabQuotingConfig)
    assert (host_a.config.quoting.fail_first, host_b.config.quoting.fail_first) == (5, 0)
    assert host_a.published == ()
    assert host_b.published == (PublishedPort(Service.PCS, "127.0.0.1", 8081),)


@pytest.mark.parametrize("said", ["quoting: {fail_first: 5}", 'pcs: "127.0.0.1:8081"'])
def test_what_hosts_are_started_with_is_in_the_fingerprint(said: str):
    plain, other = (resolve(parse_lab_file(text(a=a).encode(), "lab.yaml"), name="lab-1") for a in ("", said))

    assert plain.plan().fingerprint != other.plan().fingerprint


@pytest.mark.parametrize("said", ["quoting: {fail_first: 5}", 'pcs: "127.0.0.1:8081"'])
def test_a_mode_without_quoting_service_refuses_what_it_would_not_look_at(said: str):
    assert kind_of(text(a=said), attestation="accept-all") == "LAB-EVIDENCE-UNUSED"
    assert kind_of(text(a=said, top="attestation: captured")) == "LAB-EVIDENCE-UNUSED"


def test_the_form_in_which_a_migtd_asks_for_quotes_reaches_it_and_is_refused_where_it_asks_for_none():
    lab = default_lab()
    lab.hosts["host-b"].migtds["destination"].quote_form = "bare"
    plans = [migtd for host in resolve(lab, name="lab-1").plan().hosts for migtd in host.migtds]

    forms = [pull_options(migtd_arguments(each, Path("channel"))).quote_form for each in plans]
    assert forms == [QuoteForm.QGS, QuoteForm.BARE]
    assert resolve(lab, name="lab-1").plan().fingerprint != resolve(default_lab(), name="lab-1").plan().fingerprint
    with pytest.raises(UsageError) as refused:
        resolve(lab, attestation="accept-all")
    assert refused.value.kind.id == "LAB-EVIDENCE-UNUSED"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('pcs: "8081"', "HOST:PORT"),
        ('pcs: "127.0.0.1:0"', "HOST:PORT"),
        ("pcs: 8081", "string"),
        ("quoting: {fail_first: -1}", "greater than or equal to 0"),
        ("quoting: {fail_frist: 1}", "did you mean 'fail_first'?"),
    ],
)
def test_senseless_values_are_told_with_their_place(said: str, words: str):
    found = fault(text(a=said))

    assert "lab.yaml:4: hosts.host-a." in found
    assert words in found


def test_a_port_has_one_user():
    migrations = 'migrations: [{source: {external: "127.0.0.1:8081"}, destination: {host: host-b, migtd: m}}]\n'
    two_services = text(a='pcs: "127.0.0.1:8081"', b='pcs: "0.0.0.0:8081"')
    service_and_wire = text(a='pcs: "127.0.0.1:8081"') + migrations

    assert "hosts.host-b.pcs: port 8081 is where `pcs` of host 'host-a' is" in fault(two_services)
    assert "migrations[0].source.external: port 8081 is where `pcs` of host 'host-a' is" in fault(service_and_wire)


def root_of(lab: ResolvedLab) -> bytes:
    config = lab.plan().hosts[0].config.configuration
    assert config is not None
    assert config.root_ca is not None
    return config.root_ca


def quote_of(lab: ResolvedLab) -> bytes:
    assert lab.evidence is not None
    material = lab.evidence.material(lab.lab, "host-a")
    return Machine(material, platform_for(material, bytes(32))).quote()


def judged(quote: bytes, lab: ResolvedLab) -> str:
    assert lab.evidence is not None
    collateral = lab.evidence.material(lab.lab, "host-b").collateral
    return verify_quote(quote, root_key_of(root_of(lab)), collateral).converged_status

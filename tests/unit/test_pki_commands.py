# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`pki.make`, `pki.show`, `pki.export`, and the folders that hold a PKI."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509

import tasks
from lab import engines
from lab.engines.base import LabStatus
from lab.errors import EngineError, ExitStatus, TaskError, UsageError
from lab.evidence import PKI_FILE, new_pki, pull_pki_text, read_collateral
from lab.labfile import parse_lab_file
from lab.options import PkiExportOptions, PkiMakeOptions, PkiShowOptions
from lab.pki import ROOT_DER, ROOT_PEM, make_pki, read_pki, shared_pki
from lab.pki_commands import export, make, show
from lab.plan import ResolvedLab, resolve
from lab.program import LabProgram
from lab.state import remember_lab_file
from migtd.attestation.quote.collateral import pull_packed
from migtd.attestation.quote.verify import root_key_of, verify_quote
from vmm_stub.quoting.material import platform_for
from vmm_stub.testing_quoting import Machine

AT_ONCE = 8
LAB = b"""
schema: 1
hosts:
  host-a: {migtds: {m: {}}}
  host-b: {platform: {fmspc: "00806F050000"}, migtds: {m: {}}}
"""
Command = Callable[[], object]


def kind_of(command: Command) -> str:
    with pytest.raises(TaskError) as refused:
        command()
    return refused.value.kind.id


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pki"


# --- pki.make ---


def test_a_made_pki_has_one_secret_file_and_a_root_for_everybody(folder: Path):
    assert make(PkiMakeOptions(folder=folder)) is ExitStatus.SUCCESS

    pki = pull_pki_text(read_pki(folder))
    assert mode_of(folder) == 0o700
    assert mode_of(folder / PKI_FILE) == 0o600
    assert (folder / ROOT_DER).read_bytes() == pki.root_ca
    assert x509.load_pem_x509_certificate((folder / ROOT_PEM).read_bytes()) == pki.root
    for name in (ROOT_DER, ROOT_PEM):
        assert pki.secret not in (folder / name).read_bytes()


def test_two_made_pkis_have_nothing_in_common_unless_a_seed_says_so(tmp_path: Path):
    first, second, seeded, again, other = (tmp_path / name for name in ("a", "b", "c", "d", "e"))
    for each in (first, second):
        make(PkiMakeOptions(folder=each))
    for each, seed in ((seeded, "x"), (again, "x"), (other, "y")):
        make(PkiMakeOptions(folder=each, seed=seed))

    roots = [(each / ROOT_DER).read_bytes() for each in (first, second, seeded, other)]
    assert len(set(roots)) == len(roots)
    assert contents(seeded) == contents(again)


def test_a_pki_is_never_replaced(folder: Path):
    make(PkiMakeOptions(folder=folder))
    before = contents(folder)

    assert kind_of(lambda: make(PkiMakeOptions(folder=folder, seed="x"))) == "LAB-FILE-EXISTS"
    assert contents(folder) == before


def test_a_pki_whose_making_was_cut_off_is_made_anew(folder: Path):
    folder.mkdir(mode=0o700)
    for name in (ROOT_DER, ROOT_PEM, f"{ROOT_PEM}.new", f"{PKI_FILE}.new"):
        (folder / name).write_bytes(b"of the first attempt")

    make(PkiMakeOptions(folder=folder))

    assert (folder / ROOT_DER).read_bytes() == pull_pki_text(read_pki(folder)).root_ca
    assert not [name for name in contents(folder) if name.endswith(".new")]


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_may_enter_holds_no_pki(folder: Path, mode: int):
    folder.mkdir()
    folder.chmod(mode)

    assert kind_of(lambda: make(PkiMakeOptions(folder=folder))) == "LAB-STATE-UNSAFE"
    assert contents(folder) == {}
    assert mode_of(folder) == mode


def test_a_link_or_a_file_is_no_folder_for_a_pki(tmp_path: Path, folder: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    file = tmp_path / "file"
    file.write_text("mine")

    for each in (folder, file, tmp_path / "absent" / "pki"):
        assert kind_of(partial(make, PkiMakeOptions(folder=each))) == "LAB-STATE-UNSAFE"
    assert contents(elsewhere) == {}
    assert file.read_text() == "mine"


def test_of_several_that_make_a_pki_at_once_one_does(folder: Path):
    texts = [new_pki(os.urandom, time.time()) for _ in range(AT_ONCE)]

    def attempt(text: str) -> str:
        try:
            make_pki(folder, text)
        except UsageError as refused:
            return refused.kind.id
        return text

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(attempt, texts))

    assert ended.count("LAB-FILE-EXISTS") == AT_ONCE - 1
    assert read_pki(folder) in ended
    assert (folder / ROOT_DER).read_bytes() == pull_pki_text(read_pki(folder)).root_ca


def test_sides_that_come_at_once_share_one_pki(folder: Path):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        texts = set(pool.map(lambda _: shared_pki(folder, os.urandom, time.time()), range(AT_ONCE)))

    assert texts == {read_pki(folder)}


# --- pki.show ---


def test_shown_certificates_are_those_of_the_folder_and_the_secret_is_not_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    make(PkiMakeOptions(folder=folder, seed="x"))
    pki = pull_pki_text(read_pki(folder))
    capsys.readouterr()

    assert show(PkiShowOptions(folder=folder, json=True)) is ExitStatus.SUCCESS
    as_json = capsys.readouterr().out
    assert show(PkiShowOptions(folder=folder)) is ExitStatus.SUCCESS
    as_text = capsys.readouterr().out

    facts = json.loads(as_json)
    assert facts["root_key"] == root_key_of((folder / ROOT_DER).read_bytes()).hex()
    assert facts["issued"] == "2025-06-01T00:00:00+00:00"
    assert [each["role"] for each in facts["certificates"]] == ["root", "pck-platform-ca", "tcb-signing"]
    for each in facts["certificates"]:
        assert each["sha256"] in as_text
    for shown in (as_json, as_text):
        assert pki.secret.hex() not in shown.lower()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"secret": "5ec7e75ec7e75ec7e75ec7e75ec7e75ec7e7"}'])
def test_what_is_no_pki_is_refused_without_showing_it(folder: Path, text: str):
    assert kind_of(lambda: show(PkiShowOptions(folder=folder))) == "LAB-FILE-MISSING"
    folder.mkdir(mode=0o700)
    (folder / PKI_FILE).write_text(text)

    with pytest.raises(UsageError) as refused:
        show(PkiShowOptions(folder=folder))

    assert refused.value.kind.id == "LAB-EVIDENCE-INVALID"
    assert "5ec7e7" not in str(refused.value)


# --- pki.export ---


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedLab:
    """A lab that an engine says is running, as `up` left it behind."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    resolved = resolve(parse_lab_file(LAB, "lab.yaml"), name="lab-1").with_pki(new_pki(os.urandom, time.time()))
    start(resolved, tmp_path, monkeypatch)
    return resolved


def start(resolved: ResolvedLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fingerprint: str = "") -> None:
    remember_lab_file(tmp_path / "migtd-lab", resolved.name, "process", resolved.to_text())
    status = LabStatus(resolved.name, "process", "", fingerprint or resolved.plan().fingerprint, ())
    monkeypatch.setattr(engines, "find", lambda *_: (SimpleNamespace(name="process"), status))


def test_exported_collateral_verifies_quotes_of_its_host_and_nothing_exported_is_secret(
    running: ResolvedLab, tmp_path: Path
):
    target = tmp_path / "out"
    assert export(PkiExportOptions(folder=target, name="lab-1")) is ExitStatus.SUCCESS

    files = contents(target)
    evidence = running.evidence
    assert evidence is not None
    pki = pull_pki_text(evidence.pki)
    for host in running.lab.hosts:
        material = evidence.material(running.lab, host)
        quote = Machine(material, platform_for(material, bytes(32))).quote()
        packed, _ = read_collateral(str(target / host / "collateral.bin"), quote)
        collateral = pull_packed(packed)
        verified = verify_quote(quote, root_key_of(files[ROOT_DER]), collateral)
        assert verified.converged_status == "UpToDate"
        assert files[f"{host}/pck-chain.pem"] == material.pck_chain
        assert files[f"{host}/tcb-info-{material.fmspc}.json"] == collateral.tcb_info
        for name, part in (
            ("pck-crl-issuer-chain.pem", collateral.pck_crl_issuer_chain),
            ("root-ca-crl.pem", collateral.root_ca_crl),
            ("pck-crl.pem", collateral.pck_crl),
            ("tcb-info-issuer-chain.pem", collateral.tcb_info_issuer_chain),
            ("qe-identity-issuer-chain.pem", collateral.qe_identity_issuer_chain),
            ("qe-identity.json", collateral.qe_identity),
        ):
            assert files[f"{host}/{name}"] == part
        secrets = (pki.secret, material.pck_scalar, material.attestation_scalar)
        for name, content in files.items():
            assert b"PRIVATE KEY" not in content, name
            for secret in secrets:
                assert secret not in content, name
                assert secret.hex().encode() not in content.lower(), name
    assert mode_of(target) == 0o755


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("taken", ["file", "full", "link"])
def test_export_replaces_nothing_and_leaves_nothing_half_written(tmp_path: Path, taken: str):
    target = tmp_path / "there" / "out"
    target.parent.mkdir()
    if taken == "file":
        target.write_text("mine")
    elif taken == "link":
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.mkdir()
        (target / "notes").write_text("mine")
    before = contents(tmp_path / "there")

    assert kind_of(lambda: export(PkiExportOptions(folder=target, name="lab-1"))) == "LAB-FILE-EXISTS"

    assert contents(tmp_path / "there") == before
    assert [each.name for each in target.parent.iterdir()] == ["out"]


@pytest.mark.usefixtures("running")
def test_export_into_an_empty_folder_is_fine_and_into_none_is_told(tmp_path: Path):
    (tmp_path / "empty").mkdir()

    assert export(PkiExportOptions(folder=tmp_path / "empty", name="lab-1")) is ExitStatus.SUCCESS
    absent = PkiExportOptions(folder=tmp_path / "absent" / "out", name="lab-1")
    assert kind_of(lambda: export(absent)) == "LAB-FILE-UNWRITABLE"


def test_a_lab_without_pki_or_from_elsewhere_exports_nothing(
    running: ResolvedLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = PkiExportOptions(folder=tmp_path / "out", name="lab-1")
    start(running, tmp_path, monkeypatch, fingerprint="of another lab")
    with pytest.raises(EngineError) as differs:
        export(options)
    start(replace(running, evidence=None, lab=_accept_all(running)), tmp_path, monkeypatch)
    with pytest.raises(EngineError) as absent:
        export(options)

    assert differs.value.kind.id == "LAB-DIFFERS"
    assert absent.value.kind.id == "LAB-PKI-ABSENT"
    assert not (tmp_path / "out").exists()


def _accept_all(resolved: ResolvedLab) -> Any:
    return resolved.lab.model_copy(update={"attestation": "accept-all"})


# --- the command line ---


@pytest.mark.parametrize("task", ["pki.make", "pki.show", "pki.export"])
def test_each_task_wants_exactly_one_folder(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    program = LabProgram(tasks.namespace)

    assert program.main([task]) == ExitStatus.USAGE
    assert "LAB-USAGE-VALUE-MISSING" in capsys.readouterr().err
    assert program.main([task, "a", "b"]) == ExitStatus.USAGE
    assert "LAB-USAGE-VALUE-INVALID" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_a_seed_is_for(capsys: pytest.CaptureFixture[str]):
    assert LabProgram(tasks.namespace).main(["--help", "pki.make"]) == ExitStatus.SUCCESS

    shown = " ".join(capsys.readouterr().out.split())
    assert "Usage: ./inv pki.make [--flags] DIR" in shown
    assert "in tests only" in shown


def test_made_and_shown_by_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]):
    program = LabProgram(tasks.namespace)

    assert program.main(["pki.make", str(folder), "--seed", "x"]) == ExitStatus.SUCCESS
    assert program.main(["pki.show", "--json", str(folder)]) == ExitStatus.SUCCESS

    assert json.loads(capsys.readouterr().out)["folder"] == str(folder)

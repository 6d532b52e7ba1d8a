# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The tasks policy.*: a whole policy v2 made with them, what verify and explain say of it, and the page about them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lab.policy_tools import (
    cli_collateral_generator,
    cli_image_hash,
    cli_policy_generator,
    cli_policy_verifier,
    cli_servtd_generator,
    cli_signer,
)
from lab.policy_tools.items import Chained, Items, write_items
from lab.policy_tools.tasks import policy as collection
from lab.program import LabProgram
from migtd.event_log import push_spec_id
from tasks import namespace
from tests.unit.policy_tool_world import make_signer
from vmm_stub.testing_quoting import machine

ROOT = Path(__file__).parents[2]
MACHINE = machine()
TOOLS = {
    "json-signer": cli_signer,
    "migtd-collateral-generator": cli_collateral_generator,
    "migtd-hash": cli_image_hash,
    "migtd-policy-generator": cli_policy_generator,
    "migtd-policy-verifier": cli_policy_verifier,
    "servtd-collateral-generator": cli_servtd_generator,
}
BASE = {
    "id": "x",
    "version": "2.0",
    "policySvn": 3,
    "policy": [
        {"global": {"tcb": {"tcbDate": {"operation": "greater-or-equal", "reference": "self"}}}},
        {"servtd": {"migtdIdentity": {"isvsvn": {"operation": "greater-or-equal", "reference": 2}}}},
    ],
}


def inv(*arguments: str) -> int:
    return LabProgram(namespace).main(arguments)


def write_collateral(folder: Path) -> None:
    material = MACHINE.material
    own = material.collateral
    write_items(
        Items(
            {name: Chained(body, own.tcb_info_issuer_chain.decode()) for name, body in material.tcb_infos.items()},
            Chained(own.qe_identity, own.qe_identity_issuer_chain.decode()),
            Chained(own.pck_crl, own.pck_crl_issuer_chain.decode()),
            material.root_ca,
            own.root_ca_crl,
        ),
        folder,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a quote, keys, and a signed policy of SVN 2 that came of the documented commands."""
    folder = tmp_path_factory.mktemp("policy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("identity", "mapping", "policy"):
            signer = make_signer(f"{name} issuer")
            Path(f"{name}.key").write_bytes(signer.private)
            Path(f"{name}.pub").write_bytes(signer.public)
            Path(f"{name}.pem").write_bytes(signer.chain)
        Path("QUOTE").write_bytes(MACHINE.quote())
        Path("base.json").write_text(json.dumps(BASE))
        write_collateral(Path("files"))
        page = (ROOT / "docs/policy-tools.md").read_text()
        for line in re.findall(r"^\./inv (policy\..*)$", page.partition("```\n")[2].partition("```")[0], re.MULTILINE):
            words = line.replace("--base-url http://127.0.0.1:8081", "--from-files files").split()
            more = ["--isvsvn", "2"] if "identity.json" in words[-1] or "mapping.json" in words[-1] else []
            assert inv(*words, *more) == 0, line
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


@pytest.mark.usefixtures("here")
def test_documented_commands_make_a_policy_that_verifies(capsys):
    assert inv("policy.verify", "-p", "policy.json", "-c", "policy.pem", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1, "verdict": "OK", "error": None, "id": "x", "policySvn": 3
    }  # fmt: skip
    assert inv("policy.sign", "-n", "policyData", "-i", "policy.json", "--verify", "--public-key", "policy.pub") == 0


def test_verify_refuses_by_the_references_names(here, capsys):
    text = (here / "policy.json").read_text()
    for number, (changed, chain, name) in enumerate(
        (
            (text.replace('"policySvn":3', '"policySvn":4'), "policy.pem", "SignatureVerificationFailed"),
            (text.replace('"policyData":{', '"policyData":{ '), "policy.pem", "SignatureVerificationFailed"),
            (text, "mapping.pem", "SignatureVerificationFailed"),
            (text + "\0", "policy.pem", "InvalidPolicy"),
            (re.sub('"signature":"3', '"signature":"g', text), "policy.pem", "InvalidParameter"),
        )
    ):
        (here / f"changed{number}").write_text(changed)
        arguments = ["-p", f"changed{number}", "-c", chain]
        assert inv("policy.verify", *arguments) == 1
        assert capsys.readouterr().err.splitlines()[0] == f"Failed to verify policy: {name}"
        assert inv("policy.verify", *arguments, "--json") == 1
        assert json.loads(capsys.readouterr().out)["verdict"] == name
    (here / "spaced").write_text(f" {text} \n")
    assert cli_policy_verifier.main(["-p", "spaced", "-c", "policy.pem"]) == 0


@pytest.mark.usefixtures("here")
def test_explain_v2_accepts_the_same_machine_and_tells_every_rule(capsys):
    common = ["-p", "policy.json", "--issuer-chain", "policy.pem", "--local", "QUOTE", "--peer", "QUOTE"]
    for role in ("source", "destination"):
        assert inv("policy.explain", *common, "--role", role, "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["verdict"] == "OK"
        assert {rule["name"].rpartition(".")[2] for rule in document["rules"]} >= {"tcbDate", "isvsvn"}
        assert document["skipped"] == {"rtmrs": "no event log of the peer was given"}
    assert inv("policy.explain", *common) == 0
    assert capsys.readouterr().out.endswith("verdict: OK\n")


def test_explain_v2_names_what_refuses(here, capsys):
    (here / "forged").write_bytes(MACHINE.quote()[:-200] + bytes(200))
    common = ["-p", "policy.json", "--issuer-chain", "policy.pem", "--local", "QUOTE"]
    assert inv("policy.explain", *common, "--peer", "forged", "--json") == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "QuoteVerification"
    (here / "log").write_bytes(push_spec_id() + b"\0")
    assert inv("policy.explain", *common, "--peer", "QUOTE", "--peer-log", "log", "--json") == 1
    assert json.loads(capsys.readouterr().out)["verdict"] in ("InvalidEventLog", "PolicyHashMismatch")
    mixed = ["--peer-policy", "policy.json", "--peer-issuer-chain", "mapping.pem"]
    assert inv("policy.explain", *common, "--peer", "QUOTE", *mixed) == 1
    assert "SignatureVerificationFailed" in capsys.readouterr().out


def test_explain_v1_takes_quotes_with_collateral(here, capsys):
    assert inv("policy.generate", "--from-files", "files", "-o", "v1.json") == 0
    common = ["-p", "v1.json", "--local", "QUOTE", "--peer", "QUOTE", "--collateral", "collaterals.json"]
    # A generated policy wants events that a peer without a log does not have.
    assert inv("policy.explain", *common, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "UnqualifiedMigTdInfo"
    assert document["rules"][-1]["name"].startswith("Digest.")
    relaxed = json.loads((here / "v1.json").read_text())
    relaxed["policy"][-1]["MigTD"]["EventLog"] = None
    (here / "v1.json").write_text(json.dumps(relaxed))
    assert inv("policy.explain", *common) == 0
    assert inv("policy.explain", *common[:-2]) == 1
    assert "LAB-TOOL-OPTION-MISSING" in capsys.readouterr().err
    (here / "bad-log").write_bytes(push_spec_id()[:50])
    assert inv("policy.explain", *common, "--peer-log", "bad-log", "--json") == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "InvalidEventLog"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["policy.generate", "--policy-data", "base.json", "--from-files", "files", "-o", "x"], 2),
        (["policy.generate"], 2),
        (["policy.sign", "-n", "x"], 2),
        (["policy.servtd", "identity"], 2),
        (["policy.servtd", "other", "--measurements", "QUOTE", "-o", "x"], 2),
        (["policy.servtd", "identity", "--measurements", "QUOTE", "-o", "x"], 1),
        (["policy.verify", "--json"], 2),
        (["policy.explain", "-p", "x"], 2),
        (["policy.explain", "-p", "policy.json", "--local", "QUOTE", "--peer", "QUOTE", "--role", "x"], 2),
        (["policy.from-quote"], 2),
        (["policy.from-quote", "policy.json"], 1),
        (["policy.hash", "-i", "none.bin", "-m", "none"], 1),
        (["policy.collateral"], 2),
    ],
)
@pytest.mark.usefixtures("here")
def test_task_statuses_are_those_of_the_tools(arguments, status):
    assert inv(*arguments) == status


# --- the page ------------------------------------------------------------------------------------------------------
def options_of(parser):
    return {
        option
        for action in parser._actions
        for option in action.option_strings
        if option not in ("-h", "--help", "--version")
    }


def sections():
    page = (ROOT / "docs/policy-tools.md").read_text(encoding="utf-8")
    parts = re.split(r"^## `(.+)`$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def options_in(table):
    cells = re.findall(r"^\| (`-.+?) \|", table, re.MULTILINE)
    return {option for cell in cells for option in re.findall(r"`(-[^`]+)`", cell)}


@pytest.mark.parametrize("name", TOOLS)
def test_page_has_exactly_the_options_of_each_tool(name):
    section = sections()[name]
    made = TOOLS[name].parser()
    assert made.prog == name
    first, _, second = section.partition("| option of `v2` |")
    assert options_in(first) == options_of(made)
    subparsers = [action for action in made._actions if action.choices and "v2" in action.choices]
    assert options_in(second) == (options_of(subparsers[0].choices["v2"]) if subparsers else set())


def test_page_and_package_have_the_same_scripts_and_tasks():
    page = (ROOT / "docs/policy-tools.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`([a-z-]+)`|none) \| `(policy\.[a-z-]+)` \|.*\| 0, 1, 2 \|$", page, re.MULTILINE)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    ours = {name: target for name, target in scripts.items() if "policy_tools" in target}
    assert {script for script, _ in rows if script} == set(ours) == set(TOOLS)
    assert set(ours.values()) == {f"{module.__name__}:main" for module in TOOLS.values()}
    assert {task for _, task in rows} == {f"policy.{name}" for name in collection.task_names}


def test_tools_load_nothing_that_only_the_lab_needs():
    modules = ", ".join(module.__name__ for module in TOOLS.values())
    code = f"import sys, {modules}; print(sorted({{'invoke', 'rich', 'docker', 'yaml'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n"

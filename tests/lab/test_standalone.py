# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`python -m migtd` as a user meets it: two processes over TCP, and everything that can be typed wrongly."""

import asyncio
import json
import os
import socket
import struct
import sys
from pathlib import Path

import pytest

from migtd.attestation.quote.collateral import push_packed
from migtd.choices import SKIPS_OF
from vmm_stub.testing_quoting import PKI, machine

ROOT = Path(__file__).parents[2]
ACCEPT_ALL = ("--attestation", "accept-all")


@pytest.fixture(autouse=True)
def private_state(monkeypatch, tmp_path):
    """The folder that two sides share if they name none."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(state))
    return state


async def start(*arguments, **environment):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "migtd",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


async def run(*arguments, **environment):
    process = await start(*arguments, **environment)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def pair(source=(), destination=()):
    port = str(free_port())
    return await asyncio.gather(
        run("--role", "source", "-t", port, "--deadline", "15", "--json", *source),
        run("--role", "destination", "-t", port, "--deadline", "15", "--json", *destination),
    )


@pytest.mark.engine
async def test_two_processes_meet_and_each_receives_the_key_that_the_other_sent():
    (source_status, source_out, source_err), (status, out, err) = await pair()
    assert (source_status, status) == (0, 0), source_err + err
    source, destination = json.loads(source_out)["source"], json.loads(out)["destination"]
    assert source["fingerprints"]["sent"] == destination["fingerprints"]["received"]
    assert destination["fingerprints"]["sent"] == source["fingerprints"]["received"]
    assert source["key_written"]
    assert source["version"] == destination["version"] == 1


@pytest.mark.engine
async def test_the_side_that_is_not_ours_is_null_and_the_keys_are_not_compared():
    (_, source_out, _), (_, out, _) = await pair()
    assert json.loads(source_out)["destination"] is None
    assert json.loads(out)["source"] is None
    assert json.loads(out)["msk_match"] is None


def checks_of(out, side):
    """Status of each check of one side, after a migration in which all went well."""
    outcome = json.loads(out)[side]
    assert outcome["result"] == "Success", outcome["error"]
    return {check["name"]: check["status"] for check in outcome["checks"]}


@pytest.mark.engine
async def test_two_sides_that_share_a_state_folder_pass_every_check_by_default(private_state):
    results = await pair()
    for (status, out, _), side in zip(results, ("source", "destination"), strict=True):
        assert status == 0
        assert json.loads(out)["attestation"] == "lab"
        checks = checks_of(out, side)
        assert set(checks.values()) == {"passed"}
        assert len(checks) == 14
    folder = private_state / "migtd-lab" / "stand-alone"
    assert (folder.stat().st_mode & 0o777, (folder / "pki.json").stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.engine
async def test_two_sides_of_different_labs_refuse_each_other(tmp_path):
    (source_status, source_out, _), (status, _, _) = await pair(
        source=("--lab-dir", str(tmp_path / "one")), destination=("--lab-dir", str(tmp_path / "two"))
    )
    assert (source_status, status) == (7, 6)
    assert json.loads(source_out)["source"]["error"]["id"] == "MIGTD-QUOTE-ROOT-UNTRUSTED"


@pytest.mark.engine
async def test_a_refusal_shows_the_rule_and_both_values(tmp_path):
    policy = json.loads((ROOT / "lab/policies/default_v1.json").read_text())
    policy["policy"][0]["Platform"]["TcbInfo"]["pcesvn"] = {"operation": "greater-or-equal", "reference": 99}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    port, options = str(free_port()), ("--policy-file", str(tmp_path / "policy.json"), "--deadline", "15")
    (status, out, _), (other, _, _) = await asyncio.gather(
        run("--role", "source", "-t", port, *options), run("--role", "destination", "-t", port, *options)
    )
    assert (status, other) == (8, 6)
    for shown in ("MIGTD-POLICY-UNQUALIFIED-PLATFORM-INFO", "wanted: greater-or-equal 99", "peer:   0d00", "advice:"):
        assert shown in out
    assert len(out.splitlines()) < 60


def captured(quote, collateral, root_ca):
    return (
        *("--attestation", "captured", "--quote-file", str(quote), "--collateral-file", str(collateral)),
        *(("--root-ca-file", str(root_ca)) if root_ca else ()),
    )


def expect_captured(results):
    """Success on both sides, and the two checks left out that a captured quote cannot carry."""
    for (status, out, err), side in zip(results, ("source", "destination"), strict=True):
        assert status == 0, err
        checks = checks_of(out, side)
        assert {name for name, found in checks.items() if found != "passed"} == set(SKIPS_OF["captured"])
        assert {checks[name] for name in SKIPS_OF["captured"]} == {"skipped"}
        assert json.loads(out)["msk_match"] is None


@pytest.mark.engine
async def test_two_sides_meet_with_a_captured_quote_and_name_what_it_cannot_show(tmp_path):
    own = machine()
    (tmp_path / "quote").write_bytes(own.quote())
    (tmp_path / "collateral").write_bytes(push_packed(own.material.collateral))
    (tmp_path / "root").write_bytes(PKI.root_ca)
    options = captured(tmp_path / "quote", tmp_path / "collateral", tmp_path / "root")
    expect_captured(await pair(source=options, destination=options))


@pytest.mark.engine
@pytest.mark.shared
@pytest.mark.parametrize("row_id", ["mqs-0001", "mqs-0002", "mqs-0003"])
async def test_the_references_quote_meets_under_each_of_its_collateral_sets(shared, row_id):
    folder = shared / "vectors" / "policy"
    rows = json.loads((folder / "cases.json").read_text())["mock_quote_supplemental"]
    (row,) = (row for row in rows if row["id"] == row_id)
    root_ca = folder / "upstream" / row["root_ca"] if row["collateral_format"] != "json" else None
    options = captured(folder / "upstream" / row["quote"], folder / "upstream" / row["collateral"], root_ca)
    expect_captured(await pair(source=options, destination=options))


@pytest.mark.engine
async def test_accept_all_is_loud_about_verifying_nothing():
    (_, source_out, source_err), _ = await pair(source=ACCEPT_ALL, destination=ACCEPT_ALL)
    assert "verifies NOTHING" in source_err
    checks = {check["name"]: check["status"] for check in json.loads(source_out)["source"]["checks"]}
    assert checks["quote-peer"] == checks["policy"] == checks["certificate-signature"] == "skipped"
    assert checks["certificate-eku"] == checks["evidence-present"] == "passed"


@pytest.mark.engine
async def test_version_ranges_without_common_version_end_in_invalid_parameter_and_no_key():
    results = await pair(source=("--versions", "2..3"), destination=("--versions", "0..1"))
    for (status, out, _), side in zip(results, ("source", "destination"), strict=True):
        assert status == 1
        outcome = json.loads(out)[side]
        assert outcome["error"]["id"] == "MIGTD-VERSION-RANGE"
        assert not outcome["key_written"]


@pytest.mark.engine
async def test_a_peer_that_says_nothing_ends_in_network_error_within_the_deadline():
    async def silent(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    status, out, _ = await run("--role", "source", "-t", port, "--deadline", "1", "--json")
    server.close()
    assert status == 5
    outcome = json.loads(out)["source"]
    assert outcome["error"]["id"] in {"MIGTD-DEADLINE-READ", "MIGTD-DEADLINE-SESSION"}
    assert not outcome["key_written"]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 5),
        (struct.pack("<I", 0), 5),
        (struct.pack("<I", 0xFFFFFFFF), 5),
        (struct.pack("<I", 7) + b"garbage", 6),
    ],
    ids=["closes", "zero-frame", "4-gib-frame", "garbage"],
)
async def test_a_hostile_peer_gets_its_migration_result(sent, code):
    async def hostile(reader, writer):
        await reader.readexactly(4)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hostile, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    status, out, _ = await run("--role", "source", "-t", port, "--deadline", "10", "--json")
    server.close()
    assert status == code, out
    assert not json.loads(out)["source"]["key_written"]


@pytest.mark.engine
async def test_a_port_in_use_on_the_destination_is_invalid_parameter_and_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, out, _ = await run("--role", "destination", "-t", port, "--deadline", "5", "--json")
    assert status == 1
    assert json.loads(out)["destination"]["error"]["id"] == "VMM-WIRE-PORT-IN-USE"


@pytest.mark.engine
async def test_a_source_without_a_destination_gives_up_after_its_deadline():
    status, out, _ = await run("--role", "source", "-t", str(free_port()), "--deadline", "1", "--json")
    assert status == 1
    assert json.loads(out)["source"]["error"]["id"] == "VMM-WIRE-CONNECT"


@pytest.mark.engine
async def test_the_log_goes_to_the_file_that_the_environment_names(tmp_path):
    log = tmp_path / "migtd.log"
    status, _, err = await run(
        "--role", "source", "-t", str(free_port()), "--deadline", "1", MIGTD_LOG_FILE=str(log)
    )  # fmt: skip
    assert status == 1
    assert "StartMigration" in log.read_text()
    assert "StartMigration" not in err


@pytest.mark.engine
async def test_sigint_cancels_as_a_vmm_does():
    process = await start("--role", "destination", "-t", str(free_port()), "--json")
    seen = b""
    while b"listening" not in seen:
        seen += await asyncio.wait_for(process.stderr.readline(), 30)
    process.send_signal(2)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 10
    assert json.loads(out)["destination"]["result"] == "VmmCanceled"


@pytest.mark.parametrize(
    ("arguments", "identity"),
    [
        ((), "LAB-STANDALONE-USAGE"),
        (("--role", "middle"), "LAB-STANDALONE-USAGE"),
        (("--role", "source", "--frobnicate"), "LAB-STANDALONE-USAGE"),
        (("--role", "source", "--versions", "3..1"), "LAB-STANDALONE-USAGE"),
        (("--role", "source", "--uuid", "1", "2", "3", "x"), "LAB-STANDALONE-USAGE"),
        (("--role", "source", "--operation", "rebind-prepare", "--policy-version", "1"), "LAB-STANDALONE-USAGE"),
        (("--role", "source", "--azure-binding", "required"), "LAB-STANDALONE-LATER"),
        (("--role", "source", "--quote-file", "q"), "LAB-EVIDENCE-UNUSED"),
        (("--role", "source", "--attestation", "captured"), "LAB-EVIDENCE-INCOMPLETE"),
        (
            ("--role", "source", "--attestation", "captured", "--quote-file", "/no", "--collateral-file", "/no"),
            "LAB-FILE-MISSING",
        ),
        (
            ("--role", "source", "--policy-version", "2", "--policy-file", str(ROOT / "pyproject.toml")),
            "LAB-EVIDENCE-INCOMPLETE",
        ),
        (("--role", "source", "--attestation", "trust-me"), "MIGTD-ATTESTATION-UNKNOWN"),
        (("--role", "source", "--session", "plain"), "MIGTD-SESSION-UNKNOWN"),
    ],
)
async def test_wrong_usage_has_an_id_advice_and_status_1(arguments, identity):
    status, out, err = await run(*arguments, "--json")
    assert status == 1
    assert identity in err
    assert "advice:" in err
    assert json.loads(out)["error"]["id"] == identity


async def test_a_missing_policy_file_is_an_invalid_policy():
    status, _, err = await run("--role", "source", MIGTD_POLICY_FILE="/nowhere/policy.json")
    assert status == 9
    assert "MIGTD-CONFIGURATION-MISSING" in err


async def test_help_names_every_flag_of_the_reference():
    status, out, _ = await run("--help")
    assert status == 0
    for flag in ("--role", "--request-id", "--operation", "--uuid", "--binding", "--dest-ip", "--dest-port"):
        assert flag in out

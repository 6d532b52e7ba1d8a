# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`vmm-stub` as a process: configuration, signals, and the bridge to the control socket."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from vmm_stub.__main__ import main
from vmm_stub.failures import catalogue
from vmm_stub.vmm.control.client import ControlClient
from vmm_stub.vmm.control.models import HostConfig
from vmm_stub.vmm.host import Host

VMM_STUB = (sys.executable, "-m", "vmm_stub")


def run(*arguments):
    return subprocess.run([*VMM_STUB, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)


def config(tmp_path):
    return {
        "name": "host",
        "migtds": [{"name": "migtd", "channel": str(tmp_path / "channel"), "shared_memory": 1 << 20}],
        "control": str(tmp_path / "control.sock"),
        "history": str(tmp_path / "history"),
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "configuration"),
        ("{}", "name"),
        ('{"name": "h", "migtds": [], "control": "c", "extra": 1}', "extra"),
        ('{"name": "h", "migtds": [{"name": "UPPER", "channel": "c"}], "control": "c"}', "migtds.0.name"),
    ],
)
def test_a_bad_configuration_names_its_keys_and_ends_with_2(text, named, capsys, monkeypatch):
    monkeypatch.setenv("CONFIG", text)
    assert main(["serve", "--config-env", "CONFIG"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("VMM-CONFIG-INVALID: ")
    assert named in said


@pytest.mark.parametrize("flag", ["--config", "--config-env"])
def test_a_configuration_that_is_not_there_ends_with_2(flag, tmp_path, capsys):
    assert main(["serve", flag, str(tmp_path / "none")]) == 2
    assert "VMM-CONFIG-INVALID" in capsys.readouterr().err


def test_a_configuration_in_the_environment_is_not_left_there(monkeypatch):
    monkeypatch.setenv("CONFIG", "{")
    assert main(["serve", "--config-env", "CONFIG"]) == 2
    assert "CONFIG" not in os.environ


def test_a_control_socket_that_nobody_serves_ends_with_1(tmp_path):
    ended = run("control-stdio", "--control", str(tmp_path / "none"))
    assert ended.returncode == 1
    assert b"VMM-CONTROL-LOST" in ended.stderr


def test_an_address_that_cannot_be_used_ends_with_1(tmp_path):
    unusable = {**config(tmp_path), "control": str(tmp_path / ("x" * 120))}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(unusable))
    ended = run("serve", "--config", str(file))
    assert ended.returncode == 1
    assert b"VMM-CONTROL-ADDRESS" in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert not (tmp_path / "channel" / "vmcall.sock").exists()


def test_two_migtds_of_one_name_are_refused(tmp_path, capsys, monkeypatch):
    twice = config(tmp_path)
    twice["migtds"] *= 2
    monkeypatch.setenv("CONFIG", json.dumps(twice))
    assert main(["serve", "--config-env", "CONFIG"]) == 2
    assert "the same name" in capsys.readouterr().err


async def start(*arguments, **pipes):
    return await asyncio.create_subprocess_exec(*VMM_STUB, *arguments, **pipes)


async def test_a_host_serves_through_the_bridge_and_leaves_nothing_behind(tmp_path):
    host = await start("serve", "--config", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    host.stdin.write(json.dumps(config(tmp_path)).encode())
    host.stdin.close()
    up = json.loads(await host.stderr.readline())
    assert (up["event"], up["host"]) == ("the host is up", "host")
    bridge = await start(
        "control-stdio",
        "--control",
        str(tmp_path / "control.sock"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    client = ControlClient(bridge.stdout, bridge.stdin)
    assert (await client.health()).host == "host"
    assert len((await client.openapi())["paths"]) > 5
    await client.close()
    assert await bridge.wait() == 0
    host.send_signal(signal.SIGTERM)
    await host.stderr.read()
    assert await host.wait() == 0
    assert {each.name for each in tmp_path.iterdir()} == {"channel", "history"}
    assert list((tmp_path / "channel").iterdir()) == []


async def test_the_bridge_ends_when_the_host_does(tmp_path):
    host = Host(HostConfig.model_validate(config(tmp_path)))
    await host.start()
    bridge = await start(
        "control-stdio", "--control", host.config.control, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    client = ControlClient(bridge.stdout, bridge.stdin)
    await client.health()
    await host.stop()
    assert await bridge.wait() == 0
    await client.close()


def test_the_bridge_answers_a_request_from_a_pipe(tmp_path):
    async def serve_one():
        host = Host(HostConfig.model_validate(config(tmp_path)))
        await host.start()
        asked = await asyncio.to_thread(
            subprocess.run,
            [*VMM_STUB, "control-stdio", "--control", host.config.control],
            input=b"GET /v1/health HTTP/1.1\r\nhost: h\r\n\r\n",
            capture_output=True,
            check=True,
        )
        await host.stop()
        return asked.stdout

    assert asyncio.run(serve_one()).startswith(b"HTTP/1.1 200")


def test_every_failure_has_an_id_a_sentence_and_advice():
    for identity, kind in catalogue().items():
        assert identity == kind.id
        assert identity.startswith("VMM-")
        assert kind.summary
        assert not kind.summary.endswith(".")
        assert kind.advice
    assert len(catalogue()) == len({kind.id for kind in catalogue().values()})


def test_the_bridge_needs_none_of_the_heavy_libraries():
    code = "import sys, vmm_stub.__main__, vmm_stub.vmm.control.stdio; print('pydantic' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ})
    assert found.stdout.strip() == b"False"

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whole labs on the engine `process`, through the functions behind the tasks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import lifecycle, observe, run, status
from lab.engines.process import ProcessEngine
from lab.errors import EngineError, ExitStatus, TaskError, UsageError
from lab.hosts import connected
from lab.labfile_commands import DEFAULT_TEXT
from lab.options import DownOptions, EventsOptions, LogsOptions, MigrateOptions, StatusOptions, UpOptions
from lab.outcome import Outcome
from lab.pki import shared_pki
from lab.schemas import HistoryEvent
from lab.state import lab_lock
from migtd.checks import ON_REQUEST, CheckName
from vmm_stub.vmm.history import HistoryKind

pytestmark = pytest.mark.engine

NAME = "test-lab"
HOSTS = "schema: 1\nhosts: {here: {migtds: {m: {}}}}\nmigrations:\n"


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of this test's own; whatever runs there is ended afterwards."""
    tmp_path_factory.getbasetemp()  # of the whole run: it must not come to be in this test's temporary folder
    # Not tmp_path: a unix socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        # The temporary folder is looked at too, and labs of this very checkout may run there.
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        root = Path(folder) / "migtd-lab"
        yield root
        engine = ProcessEngine([root])
        for lab in engine.labs():
            asyncio.run(engine.down(lab.lab, lambda _: None))


def up(**more: Any) -> ExitStatus:
    return run.up(UpOptions(**{"name": NAME, "engine": "process", "json": True, **more}))


def migrate(**more: Any) -> ExitStatus:
    return run.migrate(MigrateOptions(**{"name": NAME, "engine": "process", "json": True, **more}))


def documents(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for each in found:
        Outcome.model_validate(each)
    return found


def pids() -> dict[str, int]:
    [lab] = [lab for lab in ProcessEngine().labs() if lab.lab == NAME]
    return {role.path: int(role.id) for role in lab.roles}


def down() -> ExitStatus:
    return lifecycle.down(DownOptions(name=NAME, engine="process"))


def test_up_ends_in_success_with_equal_keys_and_down_leaves_nothing(root: Path, capsys: pytest.CaptureFixture[str]):
    status = up()

    [document] = documents(capsys)
    assert status is ExitStatus.SUCCESS
    assert document["success"] is True
    assert document["msk_match"] is True
    assert (document["lab"], document["engine"], document["attestation"]) == (NAME, "process", "lab")
    for side in (document["source"], document["destination"]):
        assert (side["result"], side["code"], side["phase"], side["key_written"]) == ("Success", 0, "done", True)
        assert {check["status"] for check in side["checks"]} == {"passed"}
        assert [check["name"] for check in side["checks"]] == [
            name.value for name in CheckName if name not in ON_REQUEST
        ]
    assert document["source"]["fingerprints"]["sent"] == document["destination"]["fingerprints"]["received"]
    before = pids()

    assert down() is ExitStatus.SUCCESS

    assert "removed process host-a/source" in capsys.readouterr().out
    assert not any(Path(f"/proc/{pid}").exists() for pid in before.values())
    assert list(root.iterdir()) == []
    assert down() is ExitStatus.SUCCESS
    assert "nothing was there" in capsys.readouterr().out


@pytest.mark.usefixtures("root")
def test_every_migration_has_a_document_and_a_second_up_runs_them_again_on_the_same_processes(
    capsys: pytest.CaptureFixture[str],
):
    assert up(migrations=3) is ExitStatus.SUCCESS
    first = documents(capsys)
    before = pids()
    assert up() is ExitStatus.SUCCESS
    second = documents(capsys)

    assert sorted(document["request_id"] for document in first) == [1, 2, 3]
    assert [document["request_id"] for document in second] == [4]
    assert pids() == before
    assert len({document["source"]["fingerprints"]["sent"] for document in [*first, *second]}) == 4


@pytest.mark.usefixtures("root")
def test_without_json_people_get_tables_the_warning_and_what_to_type_next(capsys: pytest.CaptureFixture[str]):
    assert up(json=False, attestation="accept-all") is ExitStatus.SUCCESS

    out = capsys.readouterr().out
    assert "migration 1" in out
    assert "NOTHING about the peer was verified" in out
    assert "1 of 1 migrations succeeded." in out
    assert f"./inv migrate --name {NAME}" in out


@pytest.mark.usefixtures("root")
def test_status_shows_roles_and_migrations(capsys: pytest.CaptureFixture[str]):
    up()
    capsys.readouterr()

    assert status.status(StatusOptions(name=NAME, engine="process", json=True)) is ExitStatus.SUCCESS
    [lab] = json.loads(capsys.readouterr().out)["labs"]
    assert status.status(StatusOptions(name=NAME, engine="process")) is ExitStatus.SUCCESS
    shown = capsys.readouterr().out

    assert [f"{role['host']}/{role['name']} {role['state']}" for role in lab["roles"]] == [
        *("host-a/host-a running", "host-a/source running", "host-b/host-b running", "host-b/destination running")
    ]
    assert [(each["host"], each["role"], each["result"]) for each in lab["migrations"]] == [
        ("host-a", "source", "Success"),
        ("host-b", "destination", "Success"),
    ]
    assert "host-b/destination" in shown
    assert "Success" in shown


@pytest.mark.usefixtures("root")
def test_events_of_both_hosts_are_one_history_in_order(capsys: pytest.CaptureFixture[str]):
    up()
    capsys.readouterr()

    assert observe.events(EventsOptions(name=NAME, engine="process")) is ExitStatus.SUCCESS

    found = [HistoryEvent.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    kinds = {event.kind for event in found}
    assert {HistoryKind.CALL, HistoryKind.INTERRUPT, HistoryKind.FRAME, HistoryKind.STATE, HistoryKind.RESULT} <= kinds
    assert [event.time for event in found] == sorted(event.time for event in found)
    for host in ("host-a", "host-b"):
        sequence = [event.seq for event in found if event.host == host]
        assert sequence == list(range(1, len(sequence) + 1)), "the history is whole, from the start"
        assert any(event.kind is HistoryKind.PHASE and event.host == host for event in found)


@pytest.mark.usefixtures("root")
def test_logs_show_every_role_and_no_key(capsys: pytest.CaptureFixture[str]):
    up()
    capsys.readouterr()

    assert observe.logs(LogsOptions(name=NAME, engine="process")) is ExitStatus.SUCCESS

    lines = capsys.readouterr().out.splitlines()
    assert {line.split(" | ")[0] for line in lines} == {"host-a", "host-a/source", "host-b", "host-b/destination"}


@pytest.mark.usefixtures("root")
def test_killed_migtd_is_unknown_and_the_outcome_is_still_told(capsys: pytest.CaptureFixture[str]):
    # The source is stopped, so that the destination is in the middle of its session when it is killed.
    up(migrations=0)
    roles = pids()
    os.kill(roles["host-a/source"], signal.SIGSTOP)
    command = [sys.executable, "-c", _MIGRATE, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        asyncio.run(_phase_on("host-b", "handshake"))
        os.kill(roles["host-b/destination"], signal.SIGKILL)
        os.kill(roles["host-a/source"], signal.SIGCONT)
        out, err = running.communicate(timeout=60)

    assert running.returncode == ExitStatus.NEGATIVE, err
    document = json.loads(out)
    assert document["success"] is False
    assert document["msk_match"] is None
    assert (document["destination"]["result"], document["destination"]["code"]) == ("Unknown", None)
    assert document["destination"]["error"]["id"] == "VMM-MIGTD-GONE"
    assert document["source"]["result"] == "NetworkError"
    capsys.readouterr()

    assert up() is ExitStatus.SUCCESS, "what ended is started again"
    assert documents(capsys)[0]["msk_match"] is True
    assert pids()["host-b/destination"] != roles["host-b/destination"]
    assert pids()["host-a/source"] == roles["host-a/source"]


@pytest.mark.usefixtures("root")
def test_killed_host_makes_its_side_unknown(capsys: pytest.CaptureFixture[str]):
    up(migrations=0)
    roles = pids()
    os.kill(roles["host-a/source"], signal.SIGSTOP)
    command = [sys.executable, "-c", _MIGRATE, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        asyncio.run(_phase_on("host-b", "handshake"))
        os.kill(roles["host-b"], signal.SIGKILL)
        os.kill(roles["host-a/source"], signal.SIGCONT)
        out, err = running.communicate(timeout=60)

    assert running.returncode == ExitStatus.NEGATIVE, err
    document = json.loads(out)
    assert document["destination"]["result"] == "Unknown"
    assert document["destination"]["error"]["id"] == "LAB-HOST-LOST"
    assert document["source"]["result"] == "NetworkError"
    capsys.readouterr()

    with pytest.raises(EngineError) as caught:
        migrate()
    assert caught.value.kind.id == "LAB-ROLE-ENDED"
    assert up() is ExitStatus.SUCCESS


@pytest.mark.usefixtures("root")
def test_target_td_with_a_forbidden_attribute_fails_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "lab.yaml"
    file.write_text(
        DEFAULT_TEXT.replace("\nmigrations:\n", "\ntarget_tds:\n  td-1: {servtd_attr: 1}\n\nmigrations:\n").replace(
            "    count: 1\n", "    count: 2\n    target_td: td-1\n"
        )
    )

    assert up(lab_file=file) is ExitStatus.NEGATIVE

    found = documents(capsys)
    assert len(found) == 2
    for document in found:
        assert document["success"] is False
        assert document["source"]["error"]["id"] == "MIGTD-SERVTD-ATTR"
        assert document["source"]["key_written"] is document["destination"]["key_written"] is False


@pytest.mark.usefixtures("root")
def test_migrate_remembers_the_lab_file_that_up_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "lab.yaml"
    file.write_text(DEFAULT_TEXT.replace("versions: 1..1", "versions: 0..3").replace("count: 1", "count: 2"))
    up(lab_file=file, deadline=20.0)
    capsys.readouterr()

    assert migrate() is ExitStatus.SUCCESS
    assert [document["source"]["version"] for document in documents(capsys)] == [3, 3]
    assert migrate(lab_file=file, migrations=1) is ExitStatus.SUCCESS
    assert len(documents(capsys)) == 1
    other = tmp_path / "other.yaml"
    other.write_text(DEFAULT_TEXT)
    with pytest.raises(EngineError) as caught:
        migrate(lab_file=other)
    assert caught.value.kind.id == "LAB-DIFFERS"


def test_lab_without_keep_is_gone_afterwards_also_if_it_failed(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert up(keep=False) is ExitStatus.SUCCESS
    assert list(root.iterdir()) == []
    assert documents(capsys)[0]["success"] is True

    monkeypatch.setattr("lab.hosts.READY_LIMIT", 0.0)
    with pytest.raises(EngineError) as caught:
        up(keep=False)
    assert caught.value.kind.id == "LAB-HOST-NOT-READY"
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_takes_a_lab_down_that_is_not_kept(root: Path, tmp_path: Path, number: signal.Signals):
    file = external_source(tmp_path, free_port())
    command = [sys.executable, "-c", _UP, NAME, str(file), "not kept"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "waiting for the external source" in line:
                break
        running.send_signal(number)
        running.communicate(timeout=60)

    assert running.returncode == ExitStatus.INTERRUPTED
    assert list(root.iterdir()) == []


@pytest.mark.usefixtures("root")
def test_external_peers_meet_at_the_published_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # One lab is the external source of the other, which is its external destination. They trust one PKI.
    port = free_port()
    shared_pki(tmp_path / "pki", os.urandom, time.time())
    ours, theirs = external_source(tmp_path, port), tmp_path / "theirs.yaml"
    theirs.write_text(
        f'{HOSTS}  - {{source: {{host: here, migtd: m}}, destination: {{external: "127.0.0.1:{port}"}}}}\n'
    )
    for file in (ours, theirs):
        file.write_text(file.read_text() + "pki: pki\n")
    up(lab_file=theirs, name="theirs", migrations=0)
    command = [sys.executable, "-c", _UP, NAME, str(ours)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        capsys.readouterr()
        assert run.migrate(MigrateOptions(name="theirs", engine="process", json=True)) is ExitStatus.SUCCESS
        out, err = running.communicate(timeout=60)

    assert running.returncode == ExitStatus.SUCCESS, err
    destination = json.loads(out)
    [source] = documents(capsys)
    assert destination["source"] is None
    assert source["destination"] is None
    assert source["msk_match"] is destination["msk_match"] is None
    sent, received = source["source"]["fingerprints"], destination["destination"]["fingerprints"]
    assert (sent["sent"], sent["received"]) == (received["received"], received["sent"])


@pytest.mark.usefixtures("root")
def test_port_in_use_is_told_and_the_source_is_not_sent_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert up(lab_file=external_source(tmp_path, port)) is ExitStatus.NEGATIVE

    [document] = documents(capsys)
    assert document["destination"]["result"] == "InvalidParameter"
    assert document["destination"]["error"]["id"] == "VMM-WIRE-PORT-IN-USE"


def test_nothing_runs_after_a_wrong_lab_file_or_flag(root: Path, tmp_path: Path):
    file = tmp_path / "lab.yaml"
    file.write_text("schema: 2\n")

    with pytest.raises(UsageError) as wrong_file:
        up(lab_file=file)
    with pytest.raises(UsageError) as wrong_name:
        up(name="No Name")
    with pytest.raises(UsageError) as later:
        up(attestation="azure-cvm")
    with pytest.raises(UsageError) as engine:
        up(engine="swarm")
    with pytest.raises(EngineError) as nothing:
        migrate()

    assert wrong_file.value.kind.id == "LAB-FILE-INVALID"
    assert wrong_name.value.kind.id == "LAB-NAME-INVALID"
    assert later.value.kind.id == engine.value.kind.id == "LAB-COMES-LATER"
    assert nothing.value.kind.id == "LAB-NOT-RUNNING"
    assert not root.exists()


def test_second_command_on_a_name_that_is_being_started_is_told_so(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lifecycle, "BUSY_LIMIT", 0.3)
    with lab_lock(root, NAME):
        with pytest.raises(TaskError) as starting:
            up()
        with pytest.raises(TaskError) as removing:
            down()

    assert starting.value.kind.id == removing.value.kind.id == "LAB-BUSY"


def test_two_labs_run_at_once_and_all_of_the_checkout_go_together(root: Path, capsys: pytest.CaptureFixture[str]):
    assert up(name="first") is ExitStatus.SUCCESS
    assert up(name="second") is ExitStatus.SUCCESS
    capsys.readouterr()

    assert lifecycle.down(DownOptions(engine="process", all=True, json=True)) is ExitStatus.SUCCESS

    removed = json.loads(capsys.readouterr().out)["removed"]
    assert sorted(removed) == ["first", "second"]
    assert all(len(names) == 5 for names in removed.values())
    assert list(root.iterdir()) == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def external_source(folder: Path, port: int) -> Path:
    """A lab file whose only migration waits for somebody's source at a port."""
    file = folder / "external-source.yaml"
    file.write_text(f'{HOSTS}  - {{source: {{external: "127.0.0.1:{port}"}}, destination: {{host: here, migtd: m}}}}\n')
    return file


async def _phase_on(host: str, phase: str) -> None:
    """Wait until a MigTD of a host enters a phase."""
    async with connected(ProcessEngine(), NAME, [host]) as hosts, asyncio.timeout(30):
        async for event in hosts[host].events(follow=True):
            if event["kind"] == "phase" and event["data"]["phase"] == phase:
                return


_MIGRATE = """
import sys
from lab import run
from lab.options import MigrateOptions
sys.exit(run.migrate(MigrateOptions(name=sys.argv[1], engine="process", json=True)))
"""
_UP = """
import sys
from pathlib import Path
from lab import run
from lab.options import UpOptions
try:
    keep = len(sys.argv) < 4
    sys.exit(run.up(UpOptions(name=sys.argv[1], engine="process", json=True, lab_file=Path(sys.argv[2]), keep=keep)))
except KeyboardInterrupt:
    sys.exit(130)
"""

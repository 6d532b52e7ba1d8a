# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.engines import local_process
from lab.engines.base import LabPlan, RoleState
from lab.engines.local_process import ProcessId, boot_id, is_running, start_detached
from lab.engines.process import ProcessEngine, Programs
from lab.errors import EngineError, UsageError
from lab.labfile import default_lab
from lab.plan import resolve

HOST = """
import json, socket, sys
config = json.load(open(sys.argv[sys.argv.index("--config") + 1]))
server = socket.socket(socket.AF_UNIX)
server.bind(config["control"])
server.listen()
print("host", config["name"], "listens", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(config["name"].encode() + b"\\n")
    connection.close()
"""
MIGTD = """
import signal, sys
print("migtd", *sys.argv[1:], flush=True)
while True:
    signal.pause()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
# A role that ends by itself.
SHORT = "print('done', flush=True)"


@pytest.fixture
def root() -> Iterator[Path]:
    # Not tmp_path: a unix socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        yield Path(folder) / "labs"


@pytest.fixture
def engine(root: Path) -> Iterator[ProcessEngine]:
    made = ProcessEngine([root], programs())
    yield made
    for lab in made.labs():
        asyncio.run(made.down(lab.lab, lambda _: None))


def programs(host: str = HOST, migtd: str = MIGTD) -> Programs:
    return Programs(host=(sys.executable, "-c", host), migtd=(sys.executable, "-c", migtd))


def plan(lab: str = "one", *, debug: bool = False) -> LabPlan:
    return resolve(default_lab(), name=lab, debug=debug).plan()


def pids(engine: ProcessEngine, lab: str = "one") -> dict[str, int]:
    status = next(each for each in engine.labs() if each.lab == lab)
    return {f"{role.host}/{role.name}": int(role.id) for role in status.roles}


def silent(_: str) -> None:
    pass


async def lines(engine: ProcessEngine, count: int) -> list[tuple[str, str]]:
    """The first lines that the roles print."""
    found: list[tuple[str, str]] = []
    async for role, line in engine.logs("one", follow=True):
        found.append((role, line))
        if len(found) == count:
            break
    return found


async def test_up_starts_every_role_and_the_control_socket_answers(engine: ProcessEngine, root: Path):
    await engine.up(plan(), silent)

    reader, writer = await engine.control("one", "host-b")
    assert await reader.readline() == b"host-b\n"
    writer.close()
    [status] = engine.labs()
    assert [(role.role, role.host, role.name, role.state) for role in status.roles] == [
        ("host", "host-a", "host-a", RoleState.RUNNING),
        ("migtd", "host-a", "source", RoleState.RUNNING),
        ("host", "host-b", "host-b", RoleState.RUNNING),
        ("migtd", "host-b", "destination", RoleState.RUNNING),
    ]
    assert status.fingerprint == plan().fingerprint
    assert stat.S_IMODE((root / "one").stat().st_mode) == 0o700


async def test_a_migtd_is_given_its_channel_folder_and_modes_and_nothing_else(engine: ProcessEngine, root: Path):
    await engine.up(plan(debug=True), silent)

    said = dict(await lines(engine, 4))

    words = said["host-a/source"].split()
    assert words[:6] == [
        "migtd",
        "--channel",
        str(root / "one/host-a/source"),
        "--attestation",
        "lab",
        "--session",
    ]
    assert json.loads(said["host-a/source"].split("--deadlines ")[1].split(" --debug")[0])["session"] == 60.0
    channel = root / "one/host-a/source"
    volume = ["--policy-file", str(channel / "policy"), "--root-ca-file", str(channel / "root-ca")]
    assert words[-5:] == ["--debug", *volume]
    assert environment_of(pids(engine)["host-a/source"]) <= {
        "PATH",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "PYTHONPATH",
        "PYTHONUNBUFFERED",
        "MIGTD_LAB_FOLDER",
    }


async def test_up_twice_leaves_what_runs(engine: ProcessEngine):
    await engine.up(plan(), silent)
    before = pids(engine)
    said: list[str] = []

    await engine.up(plan(), said.append)

    assert pids(engine) == before
    assert said == []


async def test_only_the_migtd_that_differs_is_recreated(engine: ProcessEngine):
    await engine.up(plan(), silent)
    before = pids(engine)
    said: list[str] = []

    await engine.up(plan(debug=True), said.append)

    after = pids(engine)
    assert {name for name in before if before[name] != after[name]} == {"host-a/source", "host-b/destination"}
    assert "host-a/source differs, ending it" in said


async def test_a_host_that_ended_is_started_again_with_its_migtds(engine: ProcessEngine):
    await engine.up(plan(), silent)
    before = pids(engine)
    os.kill(before["host-b/host-b"], signal.SIGKILL)
    await gone(before["host-b/host-b"])
    said: list[str] = []

    await engine.up(plan(), said.append)

    after = pids(engine)
    assert {name for name in before if before[name] != after[name]} == {"host-b/host-b", "host-b/destination"}
    assert "host-b has ended, starting it again" in said


async def test_ended_role_is_shown_as_exited(root: Path):
    engine = ProcessEngine([root], programs(migtd=SHORT))
    await engine.up(plan(), silent)
    await gone(pids(engine)["host-a/source"])

    [status] = engine.labs()

    assert {role.name: role.state for role in status.roles}["source"] is RoleState.EXITED
    await engine.down("one", silent)


async def test_down_leaves_no_process_and_no_folder_and_twice_is_fine(engine: ProcessEngine, root: Path):
    await engine.up(plan(), silent)
    before = pids(engine)

    removed = await engine.down("one", silent)

    assert sorted(removed.names) == sorted(
        [
            "process host-a",
            "process host-a/source",
            "process host-b",
            "process host-b/destination",
            f"folder {root / 'one'}",
        ]
    )
    assert not any(exists(pid) for pid in before.values())
    assert os.listdir(root) == []  # noqa: PTH208 - names are compared
    assert (await engine.down("one", silent)).names == ()


async def test_down_touches_its_own_lab_only(engine: ProcessEngine):
    await engine.up(plan("one"), silent)
    await engine.up(plan("two"), silent)

    await engine.down("one", silent)

    assert [lab.lab for lab in engine.labs()] == ["two"]
    assert all(role.state is RoleState.RUNNING for lab in engine.labs() for role in lab.roles)


async def test_a_role_deaf_to_sigterm_is_killed(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lab.engines.process.GRACE", 0.1)
    engine = ProcessEngine([root], programs(host=STUBBORN, migtd=STUBBORN))
    await engine.up(plan(), silent)
    before = pids(engine)
    await lines(engine, 4)

    await engine.down("one", silent)

    assert not any(exists(pid) for pid in before.values())


async def test_a_number_given_to_another_process_is_never_signalled(tmp_path: Path):
    process = start_detached([sys.executable, "-c", MIGTD], {}, tmp_path / "log")
    recycled = ProcessId(process.pid, process.start - 1, process.boot)
    other_boot = ProcessId(process.pid, process.start, "another boot")

    assert await local_process.end([recycled, other_boot], 0.1) == []
    assert is_running(process)
    assert not is_running(recycled)
    assert await local_process.end([process], 5.0) == [process]
    assert not is_running(process)
    assert process.boot == boot_id()


async def test_control_of_an_ended_host_says_that_it_is_lost(root: Path):
    engine = ProcessEngine([root], programs(host=SHORT))
    await engine.up(plan(), silent)

    with pytest.raises(EngineError) as caught:
        await engine.control("one", "host-a")

    assert caught.value.kind.id == "LAB-HOST-LOST"
    await engine.down("one", silent)


async def test_unknown_labs_and_roles_have_ids(engine: ProcessEngine):
    await engine.up(plan(), silent)

    with pytest.raises(EngineError) as no_lab:
        await engine.control("none", "host-a")
    with pytest.raises(UsageError) as no_host:
        await engine.control("one", "host-z")
    with pytest.raises(UsageError) as no_role:
        engine.shell_command("one", "host-z")

    assert no_lab.value.kind.id == "LAB-NOT-RUNNING"
    assert no_host.value.kind.id == no_role.value.kind.id == "LAB-ROLE-UNKNOWN"


async def test_shell_starts_in_the_folder_of_the_role(engine: ProcessEngine, root: Path):
    await engine.up(plan(), silent)
    command = engine.shell_command("one", "destination")
    environ = {"SHELL": "/bin/sh", "PATH": os.environ["PATH"]}

    shell = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    )
    out, _ = await shell.communicate(b"pwd\n")

    assert out.decode().strip() == str(root / "one/host-b/destination")


async def test_program_that_does_not_exist_is_a_start_failure(root: Path):
    engine = ProcessEngine([root], Programs(host=("/nonexistent/program",), migtd=("/nonexistent/program",)))

    with pytest.raises(EngineError) as caught:
        await engine.up(plan(), silent)

    assert caught.value.kind.id == "LAB-ROLE-START-FAILED"
    assert (await engine.down("one", silent)).names == (f"folder {root / 'one'}",)


async def test_socket_path_beyond_107_bytes_is_refused(root: Path):
    engine = ProcessEngine([root / ("x" * 60)], programs())
    (root / ("x" * 60)).parent.mkdir(mode=0o700)

    with pytest.raises(EngineError) as caught:
        await engine.up(resolve(default_lab(), name="l" * 32).plan(), silent)

    assert caught.value.kind.id == "LAB-SOCKET-PATH-TOO-LONG"


@pytest.mark.parametrize(
    "spoil",
    [lambda root: root.mkdir(mode=0o755), lambda root: root.symlink_to("/tmp")],  # noqa: S108 - the attack
)
async def test_state_folder_open_to_others_is_refused(root: Path, spoil: Callable[[Path], object]):
    spoil(root)

    with pytest.raises(EngineError) as caught:
        await ProcessEngine([root], programs()).up(plan(), silent)

    assert caught.value.kind.id == "LAB-STATE-UNSAFE"


async def test_logs_without_follow_end_and_keep_the_order_of_each_role(engine: ProcessEngine):
    await engine.up(plan(), silent)
    await lines(engine, 4)

    found = [(role, line) async for role, line in engine.logs("one", follow=False)]

    assert [line for role, line in found if role == "host-a"] == ["host host-a listens"]
    assert {role for role, _ in found} == {"host-a", "host-a/source", "host-b", "host-b/destination"}


async def test_unreadable_record_is_no_lab(root: Path):
    (root / "odd").mkdir(parents=True)
    (root / "odd" / "lab.json").write_text('{"roles": [1]}')

    assert ProcessEngine([root], programs()).labs() == []
    assert (await ProcessEngine([root], programs()).down("odd", silent)).names == (f"folder {root / 'odd'}",)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def environment_of(pid: int) -> set[str]:
    """Names of the variables that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {entry.split(b"=")[0].decode() for entry in entries if entry}


async def gone(pid: int) -> None:
    """Wait until a child has ended, without collecting it."""
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)

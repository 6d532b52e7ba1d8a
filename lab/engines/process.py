# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The engine `process`: every role of a lab is a local process (design.md, engines).

A lab is a folder; `lab.json` in it is what labels are to containers:

    ROOT/LAB/lab.json                    checkout, fingerprint of the plan, roles with their processes
    ROOT/LAB/logs/HOST[.MIGTD].log       what a role printed
    ROOT/LAB/HOST/config.json            configuration of a host
    ROOT/LAB/HOST/control.sock           its control API
    ROOT/LAB/HOST/MIGTD/                 the channel: all that a MigTD is given
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lab import failures
from lab.engines import process_state
from lab.engines.base import (
    Availability,
    ControlStream,
    HostPlan,
    LabPlan,
    LabStatus,
    MigTdPlan,
    Progress,
    Removed,
    RoleState,
    RoleStatus,
    Service,
)
from lab.engines.local_process import ProcessId, end, is_running, processes_with, start_detached
from lab.engines.process_state import LabRecord, RoleRecord
from lab.errors import EngineError, UsageError
from lab.names import checkout_path
from lab.state import make_private, require_socket_path, state_roots
from migtd.guest.channel import POLICY_ISSUER_CHAIN_NAME, POLICY_NAME, ROOT_CA_NAME, SOCKET_NAME
from migtd.guest.quote_messages import QuoteForm
from vmm_stub.vmm.address import format_address

GRACE: Final = 5.0
"""Seconds that a role has to end after SIGTERM."""
CONNECT_LIMIT: Final = 15.0
"""Seconds that a host has to open its control socket."""
CONTROL_SOCKET: Final = "control.sock"
FOLDER_VARIABLE: Final = "MIGTD_LAB_FOLDER"
"""In the environment of every role: the lab's folder. It tells a role that no record names from all other processes."""
_POLL: Final = 0.02
_FOLLOW_POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Programs:
    """The first words of the roles' command lines. Tests put their own in."""

    host: tuple[str, ...] = (sys.executable, "-P", "-m", "vmm_stub", "serve")
    migtd: tuple[str, ...] = (sys.executable, "-P", "-m", "migtd.td")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A role as the plan wants it. `digest` is of all that it is started from, its source code included."""

    role: str
    host: str
    name: str
    command: tuple[str, ...]
    digest: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.role, self.host, self.name


class ProcessEngine:
    """Roles as local processes, under `roots` (state_roots by default; the first is for new labs)."""

    def __init__(self, roots: Sequence[Path] | None = None, programs: Programs | None = None) -> None:
        self._roots = tuple(roots if roots is not None else state_roots(os.environ))
        self._programs = programs or Programs()

    @property
    def name(self) -> str:
        """`process`."""
        return "process"

    def available(self) -> Availability:
        """Wherever Linux gives handles on processes."""
        if hasattr(os, "pidfd_open"):
            return Availability(usable=True, detail=f"local processes, state in {self._roots[0]}")
        return Availability(usable=False, detail="no pidfd_open(2)", advice="use Linux 5.3 or newer")

    async def up(self, plan: LabPlan, progress: Progress) -> None:
        """Start what is not running, recreate what differs, leave the rest (Engine.up)."""
        folder = self._folder(plan.lab) or make_private(self._roots[0]) / plan.lab
        _require_socket_paths(folder, plan)
        make_private(folder)
        record = process_state.read(folder)
        if record is None:
            # Before anything else: from here on every command sees the lab, whatever becomes of this one.
            record = LabRecord(plan.lab, str(checkout_path()), "")
            process_state.write(folder, record)
        await end(_strays(folder, record), GRACE)
        make_private(folder / "logs")
        wanted = [role for host in plan.hosts for role in self._wanted(folder, host)]
        keep, leave = _compare(record, wanted)
        for each in leave:
            if is_running(each.process):
                progress(f"{each.path} differs, ending it")
            elif each.key in {role.key for role in wanted}:
                progress(f"{each.path} has ended, starting it again")
        await end([each.process for each in leave], GRACE)
        record = LabRecord(plan.lab, str(checkout_path()), plan.fingerprint, tuple(keep))
        process_state.write(folder, record)
        kept_hosts = {each.host for each in keep if each.role == "host"}
        _require_free_ports(host for host in plan.hosts if host.name not in kept_hosts)
        for role in wanted:
            if role.key in {each.key for each in keep}:
                continue
            progress(f"starting {role.host if role.role == 'host' else f'{role.host}/{role.name}'}")
            process = start_detached(role.command, _environ(folder), _log(folder, role.host, role.name))
            record = record.with_role(RoleRecord(role.role, role.host, role.name, role.digest, process))
            process_state.write(folder, record)

    async def control(self, lab: str, host: str) -> ControlStream:
        """Connect to a host's control socket, which a host that was just started has still to open."""
        folder, record = self._require(lab)
        role = next((each for each in record.roles if each.role == "host" and each.host == host), None)
        if role is None:
            raise UsageError(failures.ROLE_UNKNOWN, f"{host} in {lab}")
        limit = asyncio.get_running_loop().time() + CONNECT_LIMIT
        while True:
            try:
                return await asyncio.open_unix_connection(folder / host / CONTROL_SOCKET)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if not is_running(role.process):
                    raise EngineError(failures.HOST_LOST, f"{host} of {lab} has ended") from error
                if asyncio.get_running_loop().time() > limit:
                    raise EngineError(failures.HOST_NOT_READY, f"{host} of {lab} opens no control socket") from error
            # The file system offers no event for "somebody listens here now" that costs less than asking again.
            await asyncio.sleep(_POLL)

    async def down(self, lab: str, progress: Progress) -> Removed:
        """End all processes of a lab and remove its folders."""
        names: list[str] = []
        for root in self._roots:
            folder = root / lab
            if not folder.is_dir() or folder.is_symlink():
                continue
            record = process_state.read(folder)
            roles = record.roles if record else ()
            if roles:
                progress(f"ending {len(roles)} processes of {lab}")
            # MigTDs first: a MigTD whose host goes away under it would log a failure that is none.
            for kind in ("migtd", "host"):
                ended = await end([each.process for each in roles if each.role == kind], GRACE)
                names += [f"process {each.path}" for each in roles if each.role == kind and each.process in ended]
            strays = await end(_strays(folder, record), GRACE)
            names += [f"process {each.pid}, which a command that was killed had started" for each in strays]
            shutil.rmtree(folder)
            names.append(f"folder {folder}")
        return Removed(tuple(names))

    def labs(self) -> list[LabStatus]:
        """Every lab that has a folder under the roots."""
        found = ((folder, process_state.read(folder)) for root in self._roots for folder in _subfolders(root))
        return [
            LabStatus(
                record.lab,
                self.name,
                record.checkout,
                record.fingerprint,
                tuple(_role_status(folder, role) for role in record.roles),
            )
            for folder, record in found
            if record is not None
        ]

    async def logs(self, lab: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """Lines of the log files, role by role; `follow` goes on with what is appended."""
        folder, record = self._require(lab)
        positions = dict.fromkeys(((each.path, _log(folder, each.host, each.name)) for each in record.roles), 0)
        while True:
            for (path, file), position in list(positions.items()):
                lines, positions[path, file] = _complete_lines(file, position, rest=not follow)
                for line in lines:
                    yield path, line
            if not follow or not folder.exists():
                return
            await asyncio.sleep(_FOLLOW_POLL)

    def shell_command(self, lab: str, name: str) -> list[str]:
        """The user's shell in the folder of a role (`HOST` or `HOST/MIGTD`)."""
        folder, record = self._require(lab)
        role = next((each for each in record.roles if name in (each.path, each.name)), None)
        if role is None:
            raise UsageError(failures.ROLE_UNKNOWN, f"{name} in {lab}")
        where = folder / role.path
        return ["/bin/sh", "-c", 'cd "$1" && exec "${SHELL:-/bin/sh}" -i', "sh", str(where)]

    def _folder(self, lab: str) -> Path | None:
        return next((root / lab for root in self._roots if (root / lab / process_state.FILE).is_file()), None)

    def _require(self, lab: str) -> tuple[Path, LabRecord]:
        folder = self._folder(lab)
        record = process_state.read(folder) if folder else None
        if folder is None or record is None:
            raise EngineError(failures.NOT_RUNNING, lab)
        return folder, record

    def _wanted(self, folder: Path, host: HostPlan) -> Iterator[_Wanted]:
        """A host and its MigTDs, with folders and configuration in place."""
        home = make_private(folder / host.name)
        config = host.config.model_copy(deep=True)
        config.control = str(home / CONTROL_SOCKET)
        for each in config.migtds:
            each.channel = str(make_private(home / each.name))
        for address in {each.address for each in host.published_by(Service.WIRE)}:
            config.wire_address = address
            local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - asked for by the lab file
            config.wire_name = f"[{local}]" if ":" in local else local
        for published in host.published_by(Service.PCS):
            config.pcs = format_address(published.address, published.port)
        text = config.model_dump_json()
        file = home / "config.json"
        # In one step: a host that was started just now may not have read it yet. It may hold the platform's keys.
        fresh = file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(file)
        command = (*self._programs.host, "--config", str(file))
        yield _Wanted("host", host.name, host.name, command, _digest(*command, text, _sources("migtd", "vmm_stub")))
        for migtd in host.migtds:
            command = (*self._programs.migtd, *migtd_arguments(migtd, home / migtd.name))
            yield _Wanted("migtd", host.name, migtd.name, command, _digest(*command, _sources("migtd")))


def migtd_arguments(migtd: MigTdPlan, channel: Path) -> tuple[str, ...]:
    """Command line of `migtd-td` for one MigTD whose channel is in the folder `channel`."""
    anchor = (
        ("--root-ca-file", str(channel / ROOT_CA_NAME))
        if migtd.policy_version == 1
        else ("--policy-issuer-chain-file", str(channel / POLICY_ISSUER_CHAIN_NAME))
    )
    return (
        "--channel",
        str(channel),
        "--attestation",
        migtd.attestation,
        "--session",
        migtd.session,
        "--deadlines",
        json.dumps(asdict(migtd.deadlines)),
        *(("--debug",) if migtd.debug else ()),
        *(("--refuse-expired",) if migtd.refuse_expired else ()),
        *(("--quote-form", migtd.quote_form.value) if migtd.quote_form is not QuoteForm.QGS else ()),
        *(("--policy-file", str(channel / POLICY_NAME)) if migtd.configured else ()),
        *(anchor if migtd.configured else ()),
    )


def _compare(record: LabRecord, wanted: list[_Wanted]) -> tuple[list[RoleRecord], list[RoleRecord]]:
    """Roles that can stay and roles that must go. A host that goes takes its MigTDs along: their channel ends."""
    digests = {role.key: role.digest for role in wanted}
    good = {each.key for each in record.roles if digests.get(each.key) == each.digest and is_running(each.process)}
    keep = [each for each in record.roles if each.key in good and ("host", each.host, each.host) in good]
    return keep, [each for each in record.roles if each not in keep]


def _role_status(folder: Path, role: RoleRecord) -> RoleStatus:
    running = is_running(role.process)
    return RoleStatus(
        role.role,
        role.host,
        role.name,
        RoleState.RUNNING if running else RoleState.EXITED,
        str(role.process.pid),
        "" if running else "see ./inv logs",
        str(folder / role.host / CONTROL_SOCKET) if role.role == "host" else "",
    )


def _require_socket_paths(folder: Path, plan: LabPlan) -> None:
    """Raise EngineError (LAB-SOCKET-PATH-TOO-LONG) before anything is made that would be in the way later."""
    for host in plan.hosts:
        require_socket_path(folder / host.name / CONTROL_SOCKET)
        for migtd in host.migtds:
            require_socket_path(folder / host.name / migtd.name / SOCKET_NAME)


def _require_free_ports(hosts: Iterable[HostPlan]) -> None:
    """Raise EngineError (LAB-PORT-IN-USE, LAB-ENGINE-REFUSED) where a host that is started now could not listen.

    The host itself would end with that, and say it in its log only. Ports of the wire are opened by each migration.
    """
    for each in (port for host in hosts for port in host.published_by(Service.PCS)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(each.address, each.port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            reason = failures.PORT_IN_USE if error.errno == errno.EADDRINUSE else failures.ENGINE_REFUSED
            raise EngineError(reason, f"{each.address}:{each.port}: {error.strerror}") from error


def _strays(folder: Path, record: LabRecord | None) -> list[ProcessId]:
    """Roles of a lab that its record does not name: the command that started them was killed before it noted them."""
    known = {each.process for each in record.roles} if record else set()
    return [each for each in processes_with(FOLDER_VARIABLE, str(folder)) if each not in known]


def _environ(folder: Path) -> dict[str, str]:
    """What a role inherits: nothing of the user's but the path and the language."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    return {**kept, "PYTHONPATH": str(checkout_path()), "PYTHONUNBUFFERED": "1", FOLDER_VARIABLE: str(folder)}


def _log(folder: Path, host: str, name: str) -> Path:
    return folder / "logs" / (f"{host}.log" if name == host else f"{host}.{name}.log")


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _sources(*packages: str) -> str:
    """Digest of the packages' code, so that `up` after an edit starts the new code."""
    digest = hashlib.sha256()
    for package in packages:
        for file in sorted((checkout_path() / package).rglob("*.py")):
            digest.update(f"{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(each for each in root.iterdir() if each.is_dir() and not each.is_symlink())
    except FileNotFoundError:
        return []


def _complete_lines(file: Path, position: int, *, rest: bool) -> tuple[list[str], int]:
    """Lines of a file from a position on, and where the next ones start. `rest` takes a last line without its end."""
    try:
        with file.open("rb") as stream:
            stream.seek(position)
            data = stream.read()
    except FileNotFoundError:
        return [], position
    if not rest:
        data = data[: data.rfind(b"\n") + 1]
    return data.decode(errors="replace").splitlines(), position + len(data)

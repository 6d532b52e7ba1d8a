# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`doctor`: what this machine can and cannot do, with advice.

`look` gathers facts without starting or changing anything; `diagnose` turns them into findings. Only the first touches
the machine.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import docker_cli
from lab.engines.base import Availability
from lab.errors import ExitStatus, TaskError
from lab.names import checkout_path
from lab.state import UNIX_PATH_MAX, state_roots
from migtd.errors import LabFailure

GIB = 2**30
NEEDED_MEMORY = 1 * GIB
NEEDED_DISK = 2 * GIB
"""Base image, wheels and the three images, built once."""

SOCKET_ROOM = 60
"""Bytes that a lab's own folders and socket names take below the state folder (names of 16 bytes)."""

TPM_DEVICE = Path("/dev/tpmrm0")

GNUTLS_LIBRARY = "libgnutls.so.30"


class Verdict(enum.StrEnum):
    """What a finding means for the lab."""

    OK = "ok"
    LIMITED = "limited"
    """Works, with less comfort or speed."""
    MISSING = "missing"
    """What needs this does not work."""
    INFORMATION = "information"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table; `advice` is empty where there is nothing to do."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about a machine. Sizes in bytes; a failure stands where a tool gave no version."""

    platform: str
    kernel: str
    python: str
    cores: int
    memory: int
    free_disk: int
    state_folder: Path | None
    """Where the sockets of labs go; None where that is not known."""
    processes: Availability
    engine: str | LabFailure
    compose: str | LabFailure
    mmdebstrap: str | None
    tpm: bool
    gnutls: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and which engines can be used."""

    findings: tuple[Finding, ...]
    engines: Mapping[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """`doctor`."""

    json: bool = False


def doctor(options: DoctorOptions) -> ExitStatus:
    """Print the diagnosis on standard output. Negative if no engine can be used here."""
    diagnosis = diagnose(look(os.environ))
    if options.json:
        sys.stdout.write(json.dumps(document(diagnosis)) + "\n")
    else:
        _print_table(diagnosis)
    return ExitStatus.SUCCESS if any(diagnosis.engines.values()) else ExitStatus.NEGATIVE


def document(diagnosis: Diagnosis) -> dict[str, object]:
    """The diagnosis as a JSON document, schema 1: `engines` by name, `findings` with name, verdict, detail, advice."""
    return {
        "schema": 1,
        "engines": dict(diagnosis.engines),
        "findings": [asdict(finding) for finding in diagnosis.findings],
    }


def diagnose(machine: Machine) -> Diagnosis:
    """What the facts mean."""
    linux = machine.platform == "linux"
    engine, compose = _engine(machine.engine), _compose(machine.compose)
    sockets = _sockets(machine.state_folder)
    docker = linux and Verdict.MISSING not in (engine.verdict, compose.verdict)
    process = linux and machine.processes.usable and sockets.verdict is not Verdict.MISSING
    findings = (
        _platform(machine),
        Finding("python", Verdict.OK, machine.python),
        _size("cores", machine.cores, 2, "", "the pair and its hosts share one core: everything works, slowly"),
        _size("memory", machine.memory / GIB, NEEDED_MEMORY / GIB, " GiB", "a lab of two hosts needs about 1 GiB"),
        _size("disk", machine.free_disk / GIB, NEEDED_DISK / GIB, " GiB free", "the images need about 2 GiB once"),
        sockets,
        engine,
        compose,
        _base_image(machine),
        Finding(
            "vTPM",
            Verdict.INFORMATION,
            f"{TPM_DEVICE} is there"
            if machine.tpm
            else f"no {TPM_DEVICE}: this is no Azure TDX machine; nothing needs it",
        ),
        _gnutls(machine),
        _usable("docker", docker, "see the engine and Compose above; `--engine process` needs neither"),
        _usable("process", process, machine.processes.advice or "see the platform and the sockets' folder above"),
    )
    return Diagnosis(findings, {"docker": docker, "process": process})


def look(environ: Mapping[str, str]) -> Machine:
    """Gather the facts of this machine."""
    from lab.engines.process import ProcessEngine  # noqa: PLC0415 - slow to import, and of no use elsewhere than here

    linux = sys.platform == "linux"
    return Machine(
        platform=sys.platform,
        kernel=platform.release(),
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        free_disk=shutil.disk_usage(checkout_path()).free,
        state_folder=state_roots(environ)[0],
        processes=ProcessEngine().available(),
        engine=_version_of_engine(),
        compose=_version_of_compose(),
        mmdebstrap=shutil.which("mmdebstrap"),
        tpm=TPM_DEVICE.exists(),
        gnutls=_is_library(GNUTLS_LIBRARY),
    )


def _is_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _version_of_engine() -> str | LabFailure:
    try:
        return docker_cli.server_version()
    except TaskError as failure:
        return failure


def _version_of_compose() -> str | LabFailure:
    try:
        command = docker_cli.compose_command()
        version = docker_cli.run([*command, "version", "--short"]).strip()
    except TaskError as failure:
        return failure
    return f"{version} ({'plugin' if len(command) > 1 else 'from .venv'})"


def _platform(machine: Machine) -> Finding:
    detail = f"{machine.platform} {machine.kernel}"
    if machine.platform == "linux":
        return Finding("platform", Verdict.OK, detail)
    return Finding("platform", Verdict.MISSING, detail, "the lab runs on Linux only: use a Linux virtual machine")


def _size(name: str, found: float, needed: float, unit: str, advice: str) -> Finding:
    detail = f"{found:.1f}{unit}" if unit else f"{found:.0f}"
    if found < needed:
        return Finding(name, Verdict.LIMITED, detail, advice)
    return Finding(name, Verdict.OK, detail)


def _sockets(folder: Path | None) -> Finding:
    name = "sockets"
    if folder is None:
        return Finding(
            name, Verdict.MISSING, "no folder for sockets is known", "set XDG_RUNTIME_DIR to a private folder"
        )
    length = len(os.fsencode(folder))
    detail = f"{folder} ({length} of the {UNIX_PATH_MAX} bytes of a socket's path)"
    if length + SOCKET_ROOM > UNIX_PATH_MAX:
        return Finding(name, Verdict.MISSING, detail, "set XDG_RUNTIME_DIR or TMPDIR to a folder with a shorter path")
    return Finding(name, Verdict.OK, detail)


def _engine(found: str | LabFailure) -> Finding:
    if isinstance(found, LabFailure):
        return Finding("container engine", Verdict.MISSING, str(found), found.kind.advice)
    return Finding("container engine", Verdict.OK, found)


def _compose(found: str | LabFailure) -> Finding:
    if isinstance(found, LabFailure):
        return Finding("compose", Verdict.MISSING, str(found), found.kind.advice)
    return Finding("compose", Verdict.OK, found)


def _base_image(machine: Machine) -> Finding:
    if machine.mmdebstrap:
        return Finding("offline base image", Verdict.OK, machine.mmdebstrap)
    return Finding(
        "offline base image",
        Verdict.LIMITED,
        "mmdebstrap is not installed",
        "needed only where no image registry answers (Debian, Ubuntu: apt install mmdebstrap)",
    )


def _gnutls(machine: Machine) -> Finding:
    if machine.gnutls:
        return Finding("GnuTLS", Verdict.OK, f"{GNUTLS_LIBRARY}: a peer in the project's own tests")
    return Finding(
        "GnuTLS",
        Verdict.INFORMATION,
        f"no {GNUTLS_LIBRARY}: only the project's own tests need it, and skip those with it as a peer",
        "to run these too: install GnuTLS (Debian, Ubuntu: apt install gnutls-bin)",
    )


def _usable(engine: str, usable: bool, advice: str) -> Finding:  # noqa: FBT001 - the fact that is told
    if usable:
        return Finding(f"--engine {engine}", Verdict.OK, "can be used")
    return Finding(f"--engine {engine}", Verdict.MISSING, "cannot be used", advice)


def _print_table(diagnosis: Diagnosis) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and not needed for --json
    from rich.table import Table  # noqa: PLC0415 - as above

    colours = {Verdict.OK: "green", Verdict.LIMITED: "yellow", Verdict.MISSING: "red", Verdict.INFORMATION: "dim"}
    table = Table("", "what", "found", "advice", box=None, pad_edge=False, header_style="bold")
    for finding in diagnosis.findings:
        colour = colours[finding.verdict]
        table.add_row(f"[{colour}]{finding.verdict}[/]", finding.name, _plain(finding.detail), _plain(finding.advice))
    Console().print(table)


def _plain(text: str) -> str:
    """Text of others in a rich table: brackets are no markup."""
    return text.replace("[", "\\[")

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What each task of the lab can be asked for: one frozen dataclass a task, with the task's defaults.

`tasks.py` fills these from flags; the functions that take them are in `lab.run`, `lab.lifecycle`, `lab.observe` and
`lab.labfile_commands`. Nothing heavy is imported here, so that `./inv --help` stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """`up` and `rebind`: start or refresh a lab and run what it has. None: the lab file's value, else the default."""

    name: str | None = None
    engine: str | None = None
    lab_file: Path | None = None
    """None: the default lab."""
    json: bool = False
    migrations: int | None = None
    """Run each migration or rebinding of the lab this many times; 0 starts the lab only."""
    keep: bool = True
    attestation: str | None = None
    session: str | None = None
    transport: str | None = None
    deadline: float | None = None
    """Seconds for every peer-facing wait."""
    debug: bool = False
    """MigTDs may log above info."""
    files: Mapping[str, str | bool | int | None] = field(default_factory=dict)
    """The lab file's keys of evidence, as flags gave them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateOptions:
    """`migrate`: run the migrations of a running lab again."""

    name: str | None = None
    engine: str | None = None
    lab_file: Path | None = None
    """None: the lab file that the lab was started with."""
    json: bool = False
    migrations: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions:
    """`status`: labs, their roles and migrations."""

    name: str | None = None
    engine: str | None = None
    json: bool = False
    all_checkouts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsOptions:
    """`logs`: what the roles printed."""

    name: str | None = None
    engine: str | None = None
    follow: bool = False
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsOptions:
    """`events`: the history of all hosts as JSON lines."""

    name: str | None = None
    engine: str | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellOptions:
    """`shell`: a shell inside a role. None: the first host."""

    role: str | None = None
    name: str | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DownOptions:
    """`down`: remove labs by name alone."""

    name: str | None = None
    engine: str | None = None
    all: bool = False
    """Every lab of this checkout."""
    all_checkouts: bool = False
    """Every lab of every checkout."""
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesOptions:
    """`images`: build the lab's images as far as they are not there, and list them."""

    json: bool = False
    offline: bool = False
    """Make the base image from Debian packages even if a registry answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """`bench`: measure speed and footprint."""

    json: bool = False
    quick: bool = False
    """Few repetitions, nothing cold: to see that it works, not how fast it is."""
    only: tuple[str, ...] = ()
    """Ids of quantities (lab.bench.rows); none: all."""
    engine: str | None = None
    """None: every engine that answers."""
    write: bool = False
    """Put the table into docs/performance.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformOptions:
    """`conform`: run case files."""

    files: tuple[Path, ...] = ()
    sections: tuple[str, ...] = ()
    """Run the rows of these only; none: all."""
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiMakeOptions:
    """`pki.make`: make a PKI in a folder."""

    folder: Path
    seed: str | None = None
    """None: random. Whoever knows a seed has every key that comes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiShowOptions:
    """`pki.show`: print the certificates of a folder's PKI."""

    folder: Path
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiExportOptions:
    """`pki.export`: write what of a running lab's PKI is public into a new folder."""

    folder: Path
    name: str | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """`lab.init`: write a commented default lab file."""

    file: Path = Path("lab.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateOptions:
    """`lab.validate`: check a lab file and print what it means."""

    file: Path = Path("lab.yaml")
    json: bool = False

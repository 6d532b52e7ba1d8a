# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The tasks of `./inv`: a thin index. What each does is in the package `lab`, which is loaded when a task runs."""

from __future__ import annotations

import os
from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context

from lab import options as asked
from lab.errors import ExitStatus
from lab.policy_tools.tasks import policy
from lab.task import at_most_one, exactly_one, policy_version_number, seconds, task, whole_number

LAB = {"name": "lab's name; default: lab- and 6 hex digits of this checkout's path", "engine": "docker or process"}
LAB_FILE = "lab.yaml"
DATA = {"json": "data on standard output, as JSON; talk stays on standard error"}


@task(
    help={
        "name": LAB["name"],
        "engine": "docker or process; default: docker if an engine and Compose answer, else process",
        "lab": "lab file; default: two hosts, one MigTD each, one migration",
        "json": "one outcome document per migration on standard output, a line each",
        "migrations": "run each migration this many times; 0 only starts the lab",
        "keep": "leave the lab running afterwards (default), or take it down",
        "attestation": "lab (default), captured, accept-all",
        "session": "ra-tls; spdm comes later",
        "transport": "vmcall-raw; vmcall-vsock comes later",
        "deadline": "seconds that a side waits for its peer",
        "policy-version": "1 (default) or 2",
        "policy-file": "migration policy of all MigTDs; default: one that comes with the lab, or is made for it (v2)",
        "policy-issuer-chain-file": "issuer chain of a policy v2, PEM, leaf first",
        "root-ca-file": "root CA that MigTDs trust, DER; default: the lab's own, or the one in the collateral",
        "quote-file": "captured: the quote that every MigTD shows",
        "collateral-file": "captured: collateral for it, JSON of a collateral generator or packed",
        "refuse-expired": "refuse collateral that is not current; by default its age is only told",
        "debug": "let MigTDs log debug and trace messages",
    },
    short={"name": "n", "engine": "e", "lab": "l"},
    kinds={"migrations": whole_number, "deadline": seconds, "policy_version": policy_version_number},
)
def up(
    _context: Context,
    *,
    name: str | None = None,
    engine: str | None = None,
    lab: str | None = None,
    json: bool = False,
    migrations: int | None = None,
    keep: bool = True,
    attestation: str | None = None,
    session: str | None = None,
    transport: str | None = None,
    deadline: float | None = None,
    policy_version: int | None = None,
    policy_file: str | None = None,
    policy_issuer_chain_file: str | None = None,
    root_ca_file: str | None = None,
    quote_file: str | None = None,
    collateral_file: str | None = None,
    refuse_expired: bool = False,
    debug: bool = False,
) -> ExitStatus:
    """Start the lab, or what differs of it, and run its migrations."""
    from lab import run

    return run.up(
        asked.UpOptions(
            name=name,
            engine=engine,
            lab_file=_path(lab),
            json=json,
            migrations=migrations,
            keep=keep,
            attestation=attestation,
            session=session,
            transport=transport,
            deadline=deadline,
            debug=debug,
            files={
                "policy_version": policy_version,
                "policy_file": policy_file,
                "policy_issuer_chain_file": policy_issuer_chain_file,
                "root_ca_file": root_ca_file,
                "quote_file": quote_file,
                "collateral_file": collateral_file,
                "refuse_expired": refuse_expired,
            },
        )
    )


@task(
    help={
        **LAB,
        "lab": "lab file; default: the one that the lab was started with",
        "json": "one outcome document per migration on standard output, a line each",
        "migrations": "run each migration this many times",
    },
    short={"name": "n", "engine": "e", "lab": "l"},
    kinds={"migrations": whole_number},
)
def migrate(
    _context: Context,
    *,
    name: str | None = None,
    engine: str | None = None,
    lab: str | None = None,
    json: bool = False,
    migrations: int | None = None,
) -> ExitStatus:
    """Run the migrations of a running lab again."""
    from lab import run

    return run.migrate(
        asked.MigrateOptions(
            name=name,
            engine=engine,
            lab_file=_path(lab),
            json=json,
            migrations=migrations,
        )
    )


@task(
    help={
        **LAB,
        "lab": "lab file with `rebindings`; default: the lab of that name as it was started last, else one host",
        "json": "outcome documents on standard output, a line each: rebind-prepare, then rebind-finalize",
        "rebindings": "run each rebinding this many times; 0 only starts the lab",
        "keep": "leave the lab running afterwards (default), or take it down",
        "attestation": "lab (default), captured, accept-all",
        "session": "ra-tls; spdm comes later",
        "deadline": "seconds that a side waits for its peer",
        "policy-file": "policy v2 of all MigTDs; default: one that is made for the lab",
        "policy-issuer-chain-file": "its issuer chain, PEM, leaf first",
        "quote-file": "captured: the quote that every MigTD shows",
        "collateral-file": "captured: collateral for it, JSON of a collateral generator or packed",
        "debug": "let MigTDs log debug and trace messages",
    },
    short={"name": "n", "engine": "e", "lab": "l"},
    kinds={"rebindings": whole_number, "deadline": seconds},
)
def rebind(
    _context: Context,
    *,
    name: str | None = None,
    engine: str | None = None,
    lab: str | None = None,
    json: bool = False,
    rebindings: int | None = None,
    keep: bool = True,
    attestation: str | None = None,
    session: str | None = None,
    deadline: float | None = None,
    policy_file: str | None = None,
    policy_issuer_chain_file: str | None = None,
    quote_file: str | None = None,
    collateral_file: str | None = None,
    debug: bool = False,
) -> ExitStatus:
    """Start a lab with two MigTDs on a host, or what differs of it, and move target TDs from one to the other."""
    from lab import run

    return run.rebind(
        asked.UpOptions(
            name=name,
            engine=engine,
            lab_file=_path(lab),
            json=json,
            migrations=rebindings,
            keep=keep,
            attestation=attestation,
            session=session,
            deadline=deadline,
            debug=debug,
            files={
                "policy_file": policy_file,
                "policy_issuer_chain_file": policy_issuer_chain_file,
                "quote_file": quote_file,
                "collateral_file": collateral_file,
            },
        )
    )


@task(help={**LAB, **DATA, "all-checkouts": "labs of other checkouts too"}, short={"name": "n", "engine": "e"})
def status(
    _context: Context,
    *,
    name: str | None = None,
    engine: str | None = None,
    json: bool = False,
    all_checkouts: bool = False,
) -> ExitStatus:
    """Show labs, their hosts and MigTDs, and their migrations."""
    from lab import status as labs

    return labs.status(asked.StatusOptions(name=name, engine=engine, json=json, all_checkouts=all_checkouts))


@task(
    help={**LAB, "follow": "go on until interrupted", "json": "one JSON object a line, with the role that printed it"},
    short={"name": "n", "engine": "e", "follow": "f"},
)
def logs(
    _context: Context,
    *,
    name: str | None = None,
    engine: str | None = None,
    follow: bool = False,
    json: bool = False,
) -> ExitStatus:
    """Show what the MigTDs and hosts of a lab printed."""
    from lab import observe

    return observe.logs(asked.LogsOptions(name=name, engine=engine, follow=follow, json=json))


@task(
    help={**LAB, "follow": "go on until interrupted", "json": "events always are; a failure is then JSON too"},
    short={"name": "n", "engine": "e", "follow": "f"},
)
def events(
    _context: Context,
    *,
    name: str | None = None,
    engine: str | None = None,
    follow: bool = False,
    json: bool = False,  # noqa: ARG001 - read where failures are told
) -> ExitStatus:
    """Print the history of a lab as JSON lines: calls, interrupts, frames, phases, results."""
    from lab import observe

    return observe.events(asked.EventsOptions(name=name, engine=engine, follow=follow))


@task(
    help={**LAB, "role": "HOST or HOST/MIGTD"},
    short={"name": "n", "engine": "e"},
    trailing="role",
    form="[ROLE]",
)
def shell(
    _context: Context, *, role: list[str] | None = None, name: str | None = None, engine: str | None = None
) -> ExitStatus:
    """Open a shell where a host or MigTD runs: HOST or HOST/MIGTD as `./inv status` shows them, or the first host."""
    from lab import observe

    return observe.shell(asked.ShellOptions(role=at_most_one(role, "role"), name=name, engine=engine))


@task(
    help={**LAB, **DATA, "all": "every lab of this checkout", "all-checkouts": "every lab of every checkout"},
    short={"name": "n", "engine": "e"},
)
def down(
    _context: Context,
    *,
    name: str | None = None,
    engine: str | None = None,
    all: bool = False,  # noqa: A002 - the flag is --all
    all_checkouts: bool = False,
    json: bool = False,
) -> ExitStatus:
    """Remove a lab and everything that carries its name; twice is fine."""
    from lab import lifecycle

    return lifecycle.down(asked.DownOptions(name=name, engine=engine, all=all, all_checkouts=all_checkouts, json=json))


@task(help={**DATA, "offline": "make the base image from Debian packages, even if a registry answers"})
def images(_context: Context, *, json: bool = False, offline: bool = False) -> ExitStatus:
    """Build the lab's images, as far as they are not there, and list them."""
    from lab import image_commands

    return image_commands.images(asked.ImagesOptions(json=json, offline=offline))


@task(
    help={
        **DATA,
        "engine": "docker or process; default: every engine that answers",
        "only": "this row only; may be given several times",
        "quick": "few repetitions and nothing cold: to see that it works, not how fast it is",
        "write": "put the table into docs/performance.md",
    },
    iterable=["only"],
    short={"engine": "e"},
)
def bench(
    _context: Context,
    *,
    engine: str | None = None,
    only: list[str] | None = None,
    quick: bool = False,
    write: bool = False,
    json: bool = False,
) -> ExitStatus:
    """Measure sessions, starts, memory and images against their targets."""
    from lab.bench import command

    return command.bench(asked.BenchOptions(engine=engine, only=tuple(only or ()), quick=quick, write=write, json=json))


@task(help={"force": "even while labs of this checkout run"})
def clean(_context: Context, *, force: bool = False) -> ExitStatus:
    """Remove caches and images, all that the lab made and can make again."""
    from lab import cleaning

    return cleaning.clean(cleaning.CleanOptions(force=force))


@task(help=DATA)
def doctor(_context: Context, *, json: bool = False) -> ExitStatus:
    """Tell what this machine can and cannot do, with advice."""
    from lab import doctor as machine

    return machine.doctor(machine.DoctorOptions(json=json))


@task()
def check(_context: Context) -> ExitStatus:
    """Check format, lint and types."""
    from lab import developer

    return developer.run_checks()


@task(
    name="test",
    help={
        "junit": "also write JUnit XML to this file",
        "k": "only tests whose names match this expression",
        "unit": "leave out the tests that start MigTDs, hosts or containers",
        "soak": "instead of all others: migrations for 10 minutes on one pair, with history and memory checked",
        "exhaustive": "instead of all others: every changed byte of evidence, for some minutes",
        "parity": "instead of all others: the scenarios of the reference's CI on our own pair, with a table",
        "require-engines": "a skipped test is a failure, as in CI",
    },
)
def run_tests(
    _context: Context,
    *,
    k: str | None = None,
    junit: str | None = None,
    unit: bool = False,
    soak: bool = False,
    exhaustive: bool = False,
    parity: bool = False,
    require_engines: bool = False,
) -> ExitStatus:
    """Run the tests: all of them, with both engines."""
    from lab import developer

    selection = developer.PytestOptions(
        junit=_path(junit),
        select=k,
        unit=unit,
        soak=soak,
        exhaustive=exhaustive,
        parity=parity,
        require_engines=require_engines,
    )
    return developer.run_tests(selection, os.environ)


@task(
    help={**DATA, "file": "case file", "section": "run the rows of this section only; may be given several times"},
    trailing="file",
    iterable=["section"],
)
def conform(
    _context: Context, *, file: list[str] | None = None, section: list[str] | None = None, json: bool = False
) -> ExitStatus:
    """Run case files: inputs, and the verdicts that they must give."""
    from lab.conform import command

    files = tuple(Path(each) for each in file or ())
    return command.conform(asked.ConformOptions(files=files, sections=tuple(section or ()), json=json))


@task(
    help={
        "folder": "folder for the PKI; made with mode 0700 if it is not there",
        "seed": "for reproducible labs in tests only: the same PKI each time, its collateral dated 2025-06-01",
    },
    trailing="folder",
    form="DIR",
)
def make(_context: Context, *, folder: list[str] | None = None, seed: str | None = None) -> ExitStatus:
    """Make a PKI that several labs can share: the lab file key `pki` takes DIR. It holds a secret."""
    from lab import pki_commands

    return pki_commands.make(asked.PkiMakeOptions(folder=_folder(folder), seed=seed))


@task(help={**DATA, "folder": "folder that pki.make made"}, trailing="folder", form="DIR")
def show(_context: Context, *, folder: list[str] | None = None, json: bool = False) -> ExitStatus:
    """Show the certificates of a PKI that pki.make made; never its secret."""
    from lab import pki_commands

    return pki_commands.show(asked.PkiShowOptions(folder=_folder(folder), json=json))


@task(
    help={**LAB, "folder": "folder to write; what is there already is never replaced"},
    short={"name": "n", "engine": "e"},
    trailing="folder",
    form="DIR",
)
def export(
    _context: Context, *, folder: list[str] | None = None, name: str | None = None, engine: str | None = None
) -> ExitStatus:
    """Write what of a running lab's PKI is public to DIR: root CA, and each host's PCK chain and collateral."""
    from lab import pki_commands

    return pki_commands.export(asked.PkiExportOptions(folder=_folder(folder), name=name, engine=engine))


@task(help={"file": "lab file"}, trailing="file", form="[FILE]")
def init(_context: Context, *, file: list[str] | None = None) -> ExitStatus:
    """Write a commented lab file to start from; lab.yaml if no FILE is named."""
    from lab import labfile_commands

    return labfile_commands.init(asked.InitOptions(file=Path(at_most_one(file, "file") or LAB_FILE)))


@task(help={**DATA, "file": "lab file"}, trailing="file", form="[FILE]")
def validate(_context: Context, *, file: list[str] | None = None, json: bool = False) -> ExitStatus:
    """Check a lab file, lab.yaml if no FILE is named, and print the lab that it describes."""
    from lab import labfile_commands

    options = asked.ValidateOptions(file=Path(at_most_one(file, "file") or LAB_FILE), json=json)
    return labfile_commands.validate(options)


def _folder(values: list[str] | None) -> Path:
    return Path(exactly_one(values, "dir"))


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


namespace = Collection(
    up,
    migrate,
    rebind,
    status,
    logs,
    events,
    shell,
    down,
    images,
    bench,
    conform,
    clean,
    doctor,
    check,
    run_tests,
    Collection("lab", init, validate),
    Collection("pki", make, show, export),
    policy,
)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The lab file: which hosts and MigTDs there are, and which migrations run between them (docs/lab-file.md).

Every fault of a file is found at once, each with file, line and key path, in one UsageError (LAB-FILE-INVALID).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from lab import choices, failures
from lab.errors import TaskError, UsageError
from lab.labfile_lines import Document, Fault, KeyPath, read_document
from lab.labfile_platform import PlatformEntry, QuotingEntry
from lab.labfile_policy import PolicySigningEntry
from vmm_stub.vmm.control.models import U64, DeadlinesModel, Model, Name, VersionRangeModel

MAX_HOSTS: Final = 16
MAX_MIGTDS: Final = 64
MAX_MIGRATIONS: Final = 256
MAX_COUNT: Final = 1000
MAX_U16: Final = 0xFFFF
FILE_KEYS: Final = ("policy_file", "policy_issuer_chain_file", "root_ca_file", "quote_file", "collateral_file", "pki")
"""Keys whose values are paths."""


def _versions(text: str) -> str:
    parse_versions(text)
    return text


def _address(text: str) -> str:
    split_address(text)
    return text


Versions = Annotated[str, AfterValidator(_versions), Field(description="MIN..MAX, each 0 to 65535")]
File = Annotated[str, Field(min_length=1, max_length=4096, description="path, from the lab file's folder")]
Address = Annotated[str, AfterValidator(_address), Field(description="HOST:PORT; an IPv6 host in brackets")]


class MigTdEntry(Model):
    """One MigTD of a host. `policy_v2` is in place of the host's; `quote_form` is how it asks for quotes."""

    vcpus: Annotated[int, Field(ge=1, le=64)] = 1
    shared_memory_mib: Annotated[int, Field(ge=1, le=1024)] = 64
    policy_v2: PolicySigningEntry | None = None
    quote_form: Literal["qgs", "bare"] = "qgs"


class HostEntry(Model):
    """One emulated host: its MigTDs by name, its platform, and the migration versions that its TDX module offers.

    `quote` is the form of the quotes that its quoting service makes, `quoting` what goes wrong there, `pcs` an address
    of this machine where its collateral is served. A `policy_file` is for this host's MigTDs alone; `policy_v2` is how
    the lab signs the policy v2 that it makes for them.
    """

    migtds: dict[Name, MigTdEntry] = Field(min_length=1, max_length=MAX_MIGTDS)
    versions: Versions = "1..1"
    platform: PlatformEntry = PlatformEntry()
    quote: Literal["v4", "v5", "v5-tdx-1.5"] = "v4"
    quoting: QuotingEntry = QuotingEntry()
    pcs: Address | None = None
    policy_file: File | None = None
    policy_issuer_chain_file: File | None = None
    policy_v2: PolicySigningEntry | None = None


class TargetTdEntry(Model):
    """A target TD that several migrations may name. What is left out is drawn at random for each run."""

    uuid: Annotated[list[U64], Field(min_length=4, max_length=4)] | None = None
    binding_handle: U64 | None = None
    servtd_attr: U64 = 0


class Endpoint(Model):
    """One side of a migration: a MigTD of this lab, or somebody else's (`external`).

    `external` of a destination is where it listens: our source connects there. `external` of a source is the address
    of this machine on which our destination waits for it: this port is published, and only this.
    """

    host: Name | None = None
    migtd: Name | None = None
    external: Address | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Endpoint:
        ours = (self.host is not None, self.migtd is not None)
        if self.external is not None and any(ours):
            raise ValueError("give `external` alone, or `host` and `migtd`")
        if self.external is None and not all(ours):
            raise ValueError("give `host` and `migtd`, or `external`")
        return self


class MigrationEntry(Model):
    """One migration, run `count` times. Without a target TD each run takes a fresh one."""

    source: Endpoint
    destination: Endpoint
    target_td: Name | None = None
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1

    @model_validator(mode="after")
    def _one_is_ours(self) -> MigrationEntry:
        if self.source.external is not None and self.destination.external is not None:
            raise ValueError("source and destination are both external: one side must be a MigTD of this lab")
        if self.source == self.destination:
            raise ValueError("source and destination are the same MigTD")
        return self


class RebindingEntry(Model):
    """One rebinding, run `count` times: a target TD goes from one MigTD to another of the same host."""

    host: Name
    old: Name
    new: Name
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1

    @model_validator(mode="after")
    def _two_of_them(self) -> RebindingEntry:
        if self.old == self.new:
            raise ValueError("old and new are the same MigTD")
        return self


class LabFile(Model):
    """A whole lab file."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Name | None = None
    engine: str | None = None
    attestation: str = choices.ATTESTATION.served[0]
    session: str = choices.SESSION.served[0]
    transport: str = choices.TRANSPORT.served[0]
    policy_version: Literal[1, 2] = 1
    policy_file: File | None = None
    """Policy of every MigTD; None: the policy v1 that comes with the lab, or a policy v2 that it makes and signs."""
    policy_issuer_chain_file: File | None = None
    """Issuer chain of a policy v2, PEM, leaf first: goes with `policy_file`."""
    root_ca_file: File | None = None
    """`captured` only: the root that captured quotes end in, DER; None: the one in the collateral document."""
    quote_file: File | None = None
    collateral_file: File | None = None
    refuse_expired: bool = False
    """Refuse collateral that is not current; else its age is only told."""
    pki: File | None = None
    """Folder that `./inv pki.make` made; None: a PKI of the lab's own, made at its first start."""
    deadlines: DeadlinesModel = DeadlinesModel()
    hosts: dict[Name, HostEntry] = Field(min_length=1, max_length=MAX_HOSTS)
    target_tds: dict[Name, TargetTdEntry] = Field(default={}, max_length=MAX_MIGRATIONS)
    migrations: list[MigrationEntry] = Field(default=[], max_length=MAX_MIGRATIONS)
    rebindings: list[RebindingEntry] = Field(default=[], max_length=MAX_MIGRATIONS)


def default_lab() -> LabFile:
    """The lab that is used without a file: two hosts with a MigTD each, and one migration between them."""
    return LabFile(
        schema=1,
        hosts={
            "host-a": HostEntry(migtds={"source": MigTdEntry()}),
            "host-b": HostEntry(migtds={"destination": MigTdEntry()}),
        },
        migrations=[
            MigrationEntry(
                source=Endpoint(host="host-a", migtd="source"),
                destination=Endpoint(host="host-b", migtd="destination"),
            )
        ],
    )


def default_rebinding_lab() -> LabFile:
    """The lab of `rebind` without a file: one host with two MigTDs, and a rebinding from one to the other."""
    return LabFile(
        schema=1,
        policy_version=2,
        hosts={"host-a": HostEntry(migtds={"old": MigTdEntry(), "new": MigTdEntry()})},
        rebindings=[RebindingEntry(host="host-a", old="old", new="new")],
    )


def load_lab_file(path: Path) -> LabFile:
    """Read and check a lab file. Raises UsageError: LAB-FILE-MISSING, LAB-FILE-INVALID, LAB-COMES-LATER."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(4 * 1024 * 1024)
    except OSError as error:
        raise UsageError(failures.FILE_MISSING, f"{path}: {error.strerror}") from error
    return _anchored(parse_lab_file(raw, str(path)), path.parent)


def parse_lab_file(raw: bytes, name: str) -> LabFile:
    """Check the bytes of a lab file; `name` is what the messages call it. Raises UsageError as load_lab_file does."""
    try:
        document = read_document(raw.decode())
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(failures.FILE_INVALID, f"{name}:{line}: not UTF-8") from error
    if document.faults:
        raise _invalid(name, document.faults)
    try:
        lab = LabFile.model_validate(document.data, strict=True)
    except ValidationError as error:
        raise _invalid(name, [_fault(document, each) for each in error.errors(include_url=False)]) from error
    faults = [
        Fault(document.line(path), path, message)
        for path, message in (*_unknown_names(lab), *_contradicting_ports(lab))
    ]
    later: TaskError | None = None
    for key, choice in _CHOICES.items():
        value = getattr(lab, key)
        try:
            if value is not None:
                choice.require(value)
        except UsageError as error:
            faults.append(Fault(document.line((key,)), (key,), str(error)))
            later = UsageError(error.kind, f"{name}:{faults[-1].line}: {error.detail}")
    if later is not None and len(faults) == 1 and later.kind is failures.COMES_LATER:
        raise later
    if faults:
        raise _invalid(name, faults)
    return lab


def _anchored(lab: LabFile, folder: Path) -> LabFile:
    """The lab with its files found from the folder of the lab file, wherever the command was started."""

    def anchored(model: LabFile | HostEntry) -> dict[str, str]:
        files = {key: getattr(model, key, None) for key in FILE_KEYS}
        return {key: str(folder / name) for key, name in files.items() if name is not None}

    hosts = {name: entry.model_copy(update=anchored(entry)) for name, entry in lab.hosts.items()}
    return lab.model_copy(update={**anchored(lab), "hosts": hosts})


def parse_versions(text: str) -> VersionRangeModel:
    """`MIN..MAX` as a range. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,5})\.\.(\d{1,5})", text, re.ASCII)
    if match is None:
        raise ValueError("write a range as MIN..MAX, for example 1..1")
    low, high = int(match[1]), int(match[2])
    if not low <= high <= MAX_U16:
        raise ValueError("MIN must not be above MAX, and MAX not above 65535")
    return VersionRangeModel(minimum=low, maximum=high)


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` as host and port, brackets of an IPv6 host removed. Raises ValueError."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):(\d{1,5})", text, re.ASCII)
    if match is None or not 0 < int(match[2]) <= MAX_U16:
        raise ValueError("write an address as HOST:PORT, with a port of 1 to 65535")
    return match[1].strip("[]"), int(match[2])


_CHOICES: Final = {
    "engine": choices.ENGINE,
    "attestation": choices.ATTESTATION,
    "session": choices.SESSION,
    "transport": choices.TRANSPORT,
}


def _unknown_names(lab: LabFile) -> Iterator[tuple[KeyPath, str]]:
    """Names in `migrations` and `rebindings` that stand for nothing."""
    for index, rebinding in enumerate(lab.rebindings):
        yield from _unknown_migtds(lab, ("rebindings", index), rebinding)
    for index, migration in enumerate(lab.migrations):
        path: KeyPath = ("migrations", index)
        if migration.target_td is not None and migration.target_td not in lab.target_tds:
            yield (*path, "target_td"), f"there is no target TD {migration.target_td!r}"
        for key, end in (("source", migration.source), ("destination", migration.destination)):
            if end.host is None:
                continue
            host = lab.hosts.get(end.host)
            if host is None:
                yield (*path, key, "host"), f"there is no host {end.host!r}{_meant(end.host, lab.hosts)}"
            elif end.migtd not in host.migtds:
                yield (*path, key, "migtd"), f"host {end.host!r} has no MigTD {end.migtd!r}"


def _unknown_migtds(lab: LabFile, path: KeyPath, rebinding: RebindingEntry) -> Iterator[tuple[KeyPath, str]]:
    host = lab.hosts.get(rebinding.host)
    if host is None:
        yield (*path, "host"), f"there is no host {rebinding.host!r}{_meant(rebinding.host, lab.hosts)}"
        return
    for key, name in (("old", rebinding.old), ("new", rebinding.new)):
        if name not in host.migtds:
            yield (*path, key), f"host {rebinding.host!r} has no MigTD {name!r}"


def _contradicting_ports(lab: LabFile) -> Iterator[tuple[KeyPath, str]]:
    """Addresses of this machine that hosts cannot all be reached at."""
    taken: dict[int, str] = {}
    for name, entry in lab.hosts.items():
        if entry.pcs is not None:
            port = split_address(entry.pcs)[1]
            if (owner := taken.setdefault(port, name)) != name:
                yield ("hosts", name, "pcs"), f"port {port} is where `pcs` of host {owner!r} is"
    published: dict[str | None, str] = {}
    for index, migration in enumerate(lab.migrations):
        if migration.source.external is None:
            continue
        path: KeyPath = ("migrations", index, "source", "external")
        address, port = split_address(migration.source.external)
        if published.setdefault(migration.destination.host, address) != address:
            yield path, "the ports of one host are published on one address only"
        if port in taken:
            yield path, f"port {port} is where `pcs` of host {taken[port]!r} is"


def _fault(document: Document, error: Any) -> Fault:
    """One of pydantic's errors in our words. A key's own error stands at the key."""
    path: KeyPath = tuple(part for part in error["loc"] if part != "[key]")
    match error["type"]:
        case "extra_forbidden":
            message = f"unknown key{_meant(str(path[-1]), _KEYS)}"
        case "missing":
            message = "this key is missing"
        case "value_error":
            message = str(error["ctx"]["error"])
        case "string_pattern_mismatch":
            message = "a name is 1 to 32 of a-z, 0-9 and inner dashes"
        case "model_type" | "dict_type":
            message = "keys with values are expected here; `{}` where there is nothing to say"
        case "too_short":
            message = f"at least {error['ctx']['min_length']} expected here, not {error['ctx']['actual_length']}"
        case "too_long":
            message = f"at most {error['ctx']['max_length']} expected here"
        case _:
            message = str(error["msg"]).replace("Input should", "the value should")
    return Fault(document.line(path), path, message)


_KEYS: Final = sorted(
    {
        field.alias or name
        for model in (
            *(LabFile, HostEntry, PlatformEntry, QuotingEntry, MigTdEntry, TargetTdEntry, MigrationEntry, Endpoint),
            *(RebindingEntry, PolicySigningEntry, DeadlinesModel),
        )
        for name, field in model.model_fields.items()
    }
)


def _meant(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word[:64], known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _invalid(name: str, faults: list[Fault]) -> UsageError:
    ordered = sorted(faults, key=lambda fault: fault.line)[:50]
    return UsageError(failures.FILE_INVALID, "\n  ".join(["", *(f"{name}:{fault}" for fault in ordered)]).rstrip())

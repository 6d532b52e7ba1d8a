# SPDX-License-Identifier: BSD-2-Clause-Patent
"""From a lab file and the flags of a task to what an engine starts and which migrations run.

The engine sees hosts and MigTDs only (LabPlan); the migrations are Jobs, one for each time that one runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from lab import choices, failures
from lab.engines.base import HostPlan, LabPlan, MigTdPlan, PublishedPort, Service
from lab.errors import UsageError
from lab.evidence import LAB, V2, Evidence, read_evidence
from lab.labfile import (
    Endpoint,
    HostEntry,
    LabFile,
    MigrationEntry,
    RebindingEntry,
    TargetTdEntry,
    parse_versions,
    split_address,
)
from lab.names import require_lab_name, resolve_lab_name
from lab.volumes import configure
from migtd.deadlines import Deadlines
from migtd.guest.quote_messages import QuoteForm
from vmm_stub.vmm.control.models import DeadlinesModel, HostConfig, MigTdConfig, SessionOperation

MAX_DEADLINE: Final = 86_400.0
"""Seconds."""

_MIB: Final = 1 << 20
_OF_PKI: Final[Any] = {
    "quoting": True,
    "configuration": True,
    "migtds": {"__all__": {"configuration", "mrowner", "mrownerconfig"}},
}
"""What of a host's configuration comes of the PKI."""


@dataclass(frozen=True, slots=True)
class Party:
    """A MigTD of this lab as one side of a migration."""

    host: str
    migtd: str


@dataclass(frozen=True, slots=True)
class Job:
    """One migration to run, or one rebinding: then `source` is the old MigTD, and `destination` the new one.

    A side that is None is somebody else's.

    `peer` is where our source finds an external destination; `listen_port` where our destination waits for an external
    source (0: any free port). Jobs that share `exclusive` run one after another: they use the same target TD or port.
    `target_td` is the lab file's name for it; None: a fresh one.
    """

    source: Party | None
    destination: Party | None
    peer: str | None = None
    listen_port: int = 0
    target_td: str | None = None
    exclusive: frozenset[str] = frozenset()
    operation: SessionOperation = SessionOperation.MIGRATION


@dataclass(frozen=True, slots=True)
class ResolvedLab:
    """A lab file with name, modes and deadlines settled."""

    lab: LabFile
    name: str
    deadlines: Deadlines
    debug: bool = False
    evidence: Evidence | None = None

    def plan(self) -> LabPlan:
        """What an engine is asked to run.

        Raises UsageError (LAB-EVIDENCE-INVALID). Before `with_pki`, a lab that needs a PKI can only be compared with
        others: its hosts would have no quoting service.
        """
        hosts = tuple(self._host(name, entry) for name, entry in self.lab.hosts.items())
        return LabPlan(self.name, hosts, _fingerprint(hosts, self._facts()))

    @property
    def lacks_pki(self) -> bool:
        """Whether it needs a PKI and has none yet."""
        wanted = self.lab.attestation == LAB or self.lab.policy_version == V2
        return self.evidence is not None and wanted and not self.evidence.pki

    def with_pki(self, pki: str) -> ResolvedLab:
        """The same lab with a PKI."""
        return self if self.evidence is None else replace(self, evidence=replace(self.evidence, pki=pki))

    def jobs(self, count: int | None = None) -> tuple[Job, ...]:
        """Every migration as often as it is to run; `count` overrides the file's counts."""
        return tuple(
            _job(migration)
            for migration in self.lab.migrations
            for _ in range(migration.count if count is None else count)
        )

    def rebindings(self, count: int | None = None) -> tuple[Job, ...]:
        """Every rebinding as often as it is to run; `count` as in `jobs`."""
        return tuple(
            _rebinding(each) for each in self.lab.rebindings for _ in range(each.count if count is None else count)
        )

    def target_td(self, name: str) -> TargetTdEntry:
        """A target TD of the lab file by its name."""
        return self.lab.target_tds[name]

    def labels(self, engine: str) -> dict[str, str | int]:
        """The labels of an outcome document (lab.outcome.join), but for the request id."""
        return {
            "lab": self.name,
            "engine": engine,
            "attestation": self.lab.attestation,
            "session": self.lab.session,
            "transport": self.lab.transport,
            "policy_version": self.lab.policy_version,
        }

    def with_migrations_of(self, lab: LabFile) -> ResolvedLab:
        """The same lab with the hosts and migrations of another file: what flags settled stays."""
        update = {"hosts": lab.hosts, "migrations": lab.migrations, "target_tds": lab.target_tds}
        update["rebindings"] = lab.rebindings
        return replace(self, lab=self.lab.model_copy(update=update))

    def to_text(self) -> str:
        """The whole of it as JSON, for `from_text`."""
        facts = {"name": self.name, "deadlines": asdict(self.deadlines), "debug": self.debug}
        evidence = None if self.evidence is None else self.evidence.to_facts()
        lab = self.lab.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps({**facts, "evidence": evidence, "lab": lab})

    @classmethod
    def from_text(cls, text: bytes) -> ResolvedLab | None:
        """What `to_text` wrote; None for anything else, such as what another version of the lab wrote."""
        try:
            facts = json.loads(text)
            lab = LabFile.model_validate(facts["lab"])
            evidence = None if facts["evidence"] is None else Evidence.from_facts(facts["evidence"])
            deadlines = Deadlines(**facts["deadlines"])
            return cls(lab, require_lab_name(facts["name"]), deadlines, facts["debug"], evidence)
        except (ValueError, KeyError, TypeError, UsageError):
            return None

    def _facts(self) -> dict[str, Any]:
        """What the evidence adds to the fingerprint."""
        if self.evidence is None:
            return {}
        hosts = {
            name: [each.platform.model_dump(), each.quote, each.quoting.model_dump()]
            for name, each in self.lab.hosts.items()
        }
        signing = {
            name: [each.model_dump(include={"policy_v2"}) for each in (entry, *entry.migtds.values())]
            for name, entry in self.lab.hosts.items()
        }
        return {**self.evidence.fingerprint(), " platforms": hosts, " signing": signing}

    def _host(self, name: str, entry: HostEntry) -> HostPlan:
        config = HostConfig(
            name=name,
            # Paths and wire addresses are the engine's to fill in.
            control="",
            migtds=[
                MigTdConfig(name=each, channel="", vcpus=migtd.vcpus, shared_memory=migtd.shared_memory_mib * _MIB)
                for each, migtd in entry.migtds.items()
            ],
            versions=parse_versions(entry.versions),
            deadlines=DeadlinesModel(**asdict(self.deadlines)),
        )
        if self.evidence is not None and not self.lacks_pki:
            config.quoting = self.evidence.quoting(self.lab, name)
            configure(config, self.evidence, self.lab)
        migtds = tuple(
            MigTdPlan(
                each,
                name,
                self.lab.attestation,
                self.lab.session,
                self.deadlines,
                self.debug,
                configured=self.evidence is not None,
                refuse_expired=self.lab.refuse_expired,
                policy_version=self.lab.policy_version,
                quote_form=QuoteForm(migtd.quote_form),
            )
            for each, migtd in entry.migtds.items()
        )
        published = {*_external_sources(self.lab.migrations, name), *_collateral_service(entry)}
        reaches = any(
            migration.source.host == name and migration.destination.external for migration in self.lab.migrations
        )
        return HostPlan(
            name,
            config,
            migtds,
            published=tuple(sorted(published)),
            reaches_outside=reaches,
        )


def resolve(
    lab: LabFile,
    *,
    name: str | None = None,
    attestation: str | None = None,
    session: str | None = None,
    transport: str | None = None,
    deadline: float | None = None,
    debug: bool = False,
    files: Mapping[str, Any] | None = None,
) -> ResolvedLab:
    """Settle a lab: flags win over the file, the file over the defaults. `files` are the lab file's keys of evidence.

    Raises UsageError (LAB-NAME-INVALID, LAB-VALUE-UNKNOWN, LAB-COMES-LATER, LAB-USAGE-VALUE-INVALID, and as
    `read_evidence` does).
    """
    settled = lab.model_copy(
        update={
            "attestation": choices.ATTESTATION.require(lab.attestation if attestation is None else attestation),
            "session": choices.SESSION.require(lab.session if session is None else session),
            "transport": choices.TRANSPORT.require(lab.transport if transport is None else transport),
            **{key: value for key, value in (files or {}).items() if value},
        }
    )
    if settled.rebindings and settled.policy_version != V2:
        raise UsageError(failures.USAGE_VALUE_INVALID, "rebindings with policy_version 1; they need policy v2")
    deadlines = Deadlines(**lab.deadlines.model_dump())
    if deadline is not None:
        if not 0 < deadline <= MAX_DEADLINE:
            raise UsageError(failures.USAGE_VALUE_INVALID, f"--deadline {deadline:g}; more than 0, at most a day")
        deadlines = deadlines.with_all(deadline)
    return ResolvedLab(settled, resolve_lab_name(name, lab.name), deadlines, debug, read_evidence(settled))


def _external_sources(migrations: list[MigrationEntry], host: str) -> Iterator[PublishedPort]:
    for migration in migrations:
        if migration.source.external is not None and migration.destination.host == host:
            yield PublishedPort(Service.WIRE, *split_address(migration.source.external))


def _collateral_service(entry: HostEntry) -> Iterator[PublishedPort]:
    if entry.pcs is not None:
        yield PublishedPort(Service.PCS, *split_address(entry.pcs))


def _job(migration: MigrationEntry) -> Job:
    exclusive = set()
    if migration.target_td is not None:
        exclusive.add(f"target-td:{migration.target_td}")
    port = 0
    if migration.source.external is not None:
        port = split_address(migration.source.external)[1]
        exclusive.add(f"port:{migration.destination.host}:{port}")
    return Job(
        source=_party(migration.source),
        destination=_party(migration.destination),
        peer=migration.destination.external,
        listen_port=port,
        target_td=migration.target_td,
        exclusive=frozenset(exclusive),
    )


def _rebinding(entry: RebindingEntry) -> Job:
    return Job(
        source=Party(entry.host, entry.old),
        destination=Party(entry.host, entry.new),
        # A MigTD has one token to accept at a time: two preparations at once would take each other's.
        exclusive=frozenset({f"rebinding:{entry.host}:{entry.new}"}),
        operation=SessionOperation.REBIND_PREPARE,
    )


def _party(end: Endpoint) -> Party | None:
    return Party(end.host, end.migtd) if end.host is not None and end.migtd is not None else None


def _fingerprint(hosts: tuple[HostPlan, ...], evidence: dict[str, Any]) -> str:
    """Of all that a running lab was started from, its PKI aside; what its migrations are is no part of it."""
    facts: list[dict[str, Any]] = [
        {
            "config": host.config.model_dump(mode="json", exclude=_OF_PKI),
            "migtds": [{**asdict(migtd), "quote_form": migtd.quote_form.value} for migtd in host.migtds],
            "published": [asdict(each) for each in host.published],
            "reaches_outside": host.reaches_outside,
        }
        for host in hosts
    ]
    return hashlib.sha256(json.dumps([*facts, evidence], sort_keys=True).encode()).hexdigest()[:16]

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Command line and environment of the stand-alone mode (design.md, contract 3; ghci-ratls.md 9).

Flags and variables of the reference's emulation mode keep their names, short forms and defaults; the others are ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from lab import failures
from lab.errors import UsageError
from lab.evidence import CAPTURED
from lab.state import state_roots
from migtd.deadlines import Deadlines
from migtd.guest.interfaces import TargetTd, Uuid
from migtd.migration.data import VersionRange
from vmm_stub.vmm.control.models import Role

_ROLES: Final = {
    "source": Role.SOURCE,
    "src": Role.SOURCE,
    "destination": Role.DESTINATION,
    "dst": Role.DESTINATION,
    "target": Role.DESTINATION,
}
MIGRATION: Final = "migration"
PREPARE: Final = "rebind-prepare"
FINALIZE: Final = "rebind-finalize"
SHARED: Final = "stand-alone"
"""Folder of the user's state that two sides on one machine share if they name none."""
_ROOT_CA: Final = "MIGTD_ROOT_CA_FILE"
_CHAIN: Final = "MIGTD_POLICY_ISSUER_CHAIN_FILE"
_U64: Final = 1 << 64
_U16: Final = 1 << 16
_LATER: Final = ("azure_binding",)
"""Flags of contract 3 that mean something only to modes which are not there yet."""


@dataclass(frozen=True, slots=True)
class EvidenceFiles:
    """What the attestation mode is given: names of files, as the lab file's keys have them, and the shared folder."""

    policy_file: str | None
    root_ca_file: str | None
    policy_issuer_chain_file: str | None
    quote_file: str | None
    collateral_file: str | None
    refuse_expired: bool
    lab_dir: Path


@dataclass(frozen=True, slots=True)
class StandaloneOptions:
    """One side of one migration in one process, or of the preparation of a rebinding, or the end of one."""

    operation: str
    role: Role
    request_id: int
    target: TargetTd
    peer_address: str
    port: int
    attestation: str
    session: str
    policy_version: int
    versions: VersionRange
    deadlines: Deadlines
    evidence: EvidenceFiles
    log_file: Path | None
    json: bool


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving, so that a wrong flag ends like every other wrong input."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(failures.STANDALONE_USAGE, message)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> StandaloneOptions:
    """Read the command line, and the environment for what it leaves out.

    Raises UsageError with an id; `--help` prints and leaves with status 0, as argparse does.
    """
    given = _parser().parse_args(arguments)
    for name in _LATER:
        if getattr(given, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(failures.STANDALONE_LATER, f"{flag} with --attestation {given.attestation}")
    version = _policy_version(given, environment)
    log_file = environment.get("MIGTD_LOG_FILE")
    deadlines = Deadlines()
    return StandaloneOptions(
        operation=given.operation,
        role=_ROLES[given.role],
        request_id=given.request_id,
        target=TargetTd(given.binding, given.uuid),
        peer_address=given.dest_ip,
        port=given.dest_port,
        attestation=given.attestation,
        session=given.session,
        policy_version=version,
        versions=given.versions,
        deadlines=deadlines if given.deadline is None else deadlines.with_all(given.deadline),
        evidence=_evidence(given, environment, version),
        log_file=Path(log_file) if log_file else None,
        json=given.json,
    )


def _policy_version(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """As asked for; else 2 if there is an issuer chain, or what is done needs policy v2. Raises UsageError."""
    if given.operation != MIGRATION:
        if given.policy_version == 1:
            raise UsageError(failures.STANDALONE_USAGE, f"--operation {given.operation} needs policy version 2")
        return 2
    chain = _file(given.policy_issuer_chain_file, environment, _CHAIN)
    return int(given.policy_version or (2 if chain else 1))


def _evidence(given: argparse.Namespace, environment: Mapping[str, str], version: int) -> EvidenceFiles:
    # What is set for runs with the other version is not meant: the reference reads either variable in one build only.
    unused = _CHAIN if version == 1 else _ROOT_CA
    environment = {name: value for name, value in environment.items() if name != unused}
    # The reference reads this variable in its mock build only, so it may well be set for other runs.
    quote = environment.get("MOCK_QUOTE_FILE") if given.attestation == CAPTURED else None
    return EvidenceFiles(
        policy_file=_file(given.policy_file, environment, "MIGTD_POLICY_FILE"),
        root_ca_file=_file(given.root_ca_file, environment, _ROOT_CA),
        policy_issuer_chain_file=_file(given.policy_issuer_chain_file, environment, _CHAIN),
        quote_file=given.quote_file or quote or None,
        collateral_file=given.collateral_file,
        refuse_expired=given.refuse_expired,
        lab_dir=Path(given.lab_dir) if given.lab_dir else state_roots(environment)[0] / SHARED,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="migtd",
        description="One MigTD and its host in one process: one side of a migration over TCP.",
        epilog="Exit status: the MigrationResult (0 Success … 255 InitializationError); 1 also for wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument("--role", "-m", required=True, choices=sorted(_ROLES), help="side of the migration")
    parser.add_argument("--request-id", "-r", type=_request_id, default=1, metavar="N", help="migration request id (1)")
    parser.add_argument(
        "--operation", "-o", default=MIGRATION, choices=[MIGRATION, PREPARE, FINALIZE],
        help="migration, or a rebinding: its preparation, source the old MigTD, or its end (migration)",
    )  # fmt: skip
    parser.add_argument(
        "--uuid", "-u", nargs=4, type=_u64, action=_UuidAction, default=(1, 2, 3, 4), metavar=("U1", "U2", "U3", "U4"),
        help="UUID of the target TD as 4 x u64 (1 2 3 4)",
    )  # fmt: skip
    parser.add_argument("--binding", "-b", type=_u64, default=0x1234, metavar="HANDLE", help="binding handle (0x1234)")
    parser.add_argument("--dest-ip", "-d", default="127.0.0.1", metavar="HOST", help="destination's address")
    parser.add_argument("--dest-port", "-t", type=_port, default=8001, metavar="PORT", help="its port (8001)")
    parser.add_argument("--attestation", default="lab", metavar="MODE", help="lab, captured or accept-all (lab)")
    parser.add_argument("--session", default="ra-tls", metavar="PROTOCOL", help="session protocol (ra-tls)")
    parser.add_argument("--policy-file", metavar="FILE", help="policy (environment: MIGTD_POLICY_FILE)")
    parser.add_argument("--root-ca-file", metavar="FILE", help="SGX root CA, DER (MIGTD_ROOT_CA_FILE)")
    parser.add_argument("--policy-issuer-chain-file", metavar="FILE", help="PEM (MIGTD_POLICY_ISSUER_CHAIN_FILE)")
    parser.add_argument(
        "--policy-version", type=int, choices=[1, 2], help="2 if an issuer chain is given or in a rebinding, else 1"
    )
    parser.add_argument("--quote-file", metavar="FILE", help="captured quote (MOCK_QUOTE_FILE)")
    parser.add_argument("--collateral-file", metavar="FILE", help="collateral for it: JSON, or packed")
    parser.add_argument(
        "--versions", type=_versions, default=VersionRange(0, 1), metavar="MIN..MAX",
        help="migration versions of this platform (0..1: meets a peer with 1..1, and one with 0..0)",
    )  # fmt: skip
    parser.add_argument("--deadline", type=_seconds, metavar="SECONDS", help="for every wait for the peer (60)")
    parser.add_argument("--azure-binding", choices=["required", "if-present"], help="for the Azure modes")
    parser.add_argument("--lab-dir", metavar="DIR", help="what two processes share: PKI, platform (made at first use)")
    parser.add_argument("--refuse-expired", action="store_true", help="refuse collateral that is not current")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON document")
    return parser


class _UuidAction(argparse.Action):
    """Keeps the four numbers as a tuple."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's signature
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002 - argparse's signature
    ) -> None:
        if not isinstance(values, list):
            raise argparse.ArgumentError(self, "four numbers expected")
        first, second, third, fourth = values
        uuid: Uuid = (first, second, third, fourth)
        setattr(namespace, self.dest, uuid)


def _file(flag: str | None, environment: Mapping[str, str], variable: str) -> str | None:
    return flag or environment.get(variable) or None


def _number(text: str, limit: int) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= value < limit:
        raise argparse.ArgumentTypeError(f"{text} is out of range")
    return value


def _u64(text: str) -> int:
    return _number(text, _U64)


def _request_id(text: str) -> int:
    return _number(text, 1 << 62)


def _port(text: str) -> int:
    return _number(text, _U16)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0 < value <= 86400:  # noqa: PLR2004 - a day
        raise argparse.ArgumentTypeError(f"{text} is out of range")
    return value


def _versions(text: str) -> VersionRange:
    low, dots, high = text.partition("..")
    if not dots:
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN..MAX")
    versions = VersionRange(_number(low, _U16), _number(high, _U16))
    if versions.minimum > versions.maximum:
        raise argparse.ArgumentTypeError(f"{text} is not ordered")
    return versions

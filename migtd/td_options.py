# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Command line of `migtd-td`. Whatever is wrong with it is an InvalidParameter (MIGTD-USAGE)."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from migtd import __version__, failures
from migtd.choices import ATTESTATION_MODES, SESSION_PROTOCOLS
from migtd.deadlines import Deadlines
from migtd.errors import InvalidParameter
from migtd.guest.quote_messages import QuoteForm
from migtd.migration.logging import LogLevel


@dataclass(frozen=True, slots=True)
class TdOptions:
    """What `migtd-td` was asked for. Modes are names, not yet looked up; times are in seconds.

    `connect_timeout` is how long to wait for the host to listen; None: as long as for a call.
    """

    channel: Path
    attestation: str
    session: str
    deadlines: Deadlines
    ceiling: LogLevel
    connect_timeout: float | None
    policy_file: Path | None
    root_ca_file: Path | None
    policy_issuer_chain_file: Path | None
    refuse_expired: bool
    quote_form: QuoteForm


def pull_options(arguments: Sequence[str]) -> TdOptions:
    """Read a command line. Raises InvalidParameter (MIGTD-USAGE); `--help` and `--version` end the program."""
    given = _parser().parse_args(arguments)
    return TdOptions(
        channel=given.channel,
        attestation=given.attestation,
        session=given.session,
        deadlines=given.deadlines,
        ceiling=LogLevel.TRACE if given.debug else LogLevel.INFO,
        connect_timeout=given.connect_timeout,
        policy_file=given.policy_file,
        root_ca_file=given.root_ca_file,
        policy_issuer_chain_file=given.policy_issuer_chain_file,
        refuse_expired=given.refuse_expired,
        quote_form=QuoteForm(given.quote_form),
    )


def pull_deadlines(text: str) -> Deadlines:
    """Deadlines from a JSON object of seconds by name; what is left out keeps its default.

    Raises InvalidParameter (MIGTD-USAGE) on anything but known names and times above 0.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _usage(f"--deadlines: {error}") from error
    if not isinstance(given, dict):
        raise _usage("--deadlines: not a JSON object")
    known = [field.name for field in fields(Deadlines)]
    for name, value in given.items():
        if name not in known:
            raise _usage(f"--deadlines: {name!r} is none of {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _usage(f"--deadlines: {name} is no number")
    return Deadlines(**{name: _seconds(value) for name, value in given.items()})


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise _usage(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="migtd-td",
        description="Run a MigTD in an emulated TD, behind the vmcall channel of its host.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"migtd-td {__version__}")
    parser.add_argument(
        "--channel", required=True, type=Path, metavar="DIR", help="folder of the channel's socket and shared memory"
    )
    parser.add_argument(
        "--attestation",
        default="accept-all",
        metavar="MODE",
        help=f"what is verified of the peer: {', '.join(ATTESTATION_MODES)} (default: %(default)s)",
    )
    parser.add_argument(
        "--session",
        default="ra-tls",
        metavar="PROTOCOL",
        help=f"the secure session: {', '.join(SESSION_PROTOCOLS)} (default: %(default)s)",
    )
    times = parser.add_mutually_exclusive_group()
    times.add_argument(
        "--deadline",
        dest="deadlines",
        type=lambda text: Deadlines().with_all(_seconds(text)),
        metavar="S",
        help="seconds for every wait on the peer (default: 60)",
    )
    times.add_argument(
        "--deadlines",
        dest="deadlines",
        type=pull_deadlines,
        metavar="JSON",
        help="seconds for each wait by its name, as a JSON object",
    )
    parser.set_defaults(deadlines=Deadlines())
    parser.add_argument(
        "--connect-timeout", type=_seconds, metavar="S", help="seconds to wait for the host to listen (default: 30)"
    )
    parser.add_argument("--debug", action="store_true", help="let the host ask for debug and trace entries")
    parser.add_argument("--policy-file", type=Path, metavar="FILE", help="the migration policy")
    parser.add_argument("--root-ca-file", type=Path, metavar="FILE", help="SGX root CA certificate, DER (policy v1)")
    parser.add_argument(
        "--policy-issuer-chain-file", type=Path, metavar="FILE", help="policy issuer chain, PEM (policy v2)"
    )
    parser.add_argument(
        "--refuse-expired", action="store_true", help="refuse collateral that is not current, by this machine's clock"
    )
    parser.add_argument(
        "--quote-form",
        choices=[form.value for form in QuoteForm],
        default=QuoteForm.QGS.value,
        help="how quotes are asked for: by QGS message, or by bare TDREPORT as IGVM MigTDs do (default: %(default)s)",
    )
    return parser


def _seconds(value: str | float) -> float:
    try:
        seconds = float(value)
    except (ValueError, OverflowError) as error:
        raise _usage(f"{value!r} is no time in seconds") from error
    if not (math.isfinite(seconds) and seconds > 0):
        raise _usage(f"{value!r} is no time above 0 seconds")
    return seconds


def _usage(detail: str) -> InvalidParameter:
    return InvalidParameter(failures.USAGE, detail)

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The MigTD as the payload of an emulated TD: `migtd-td`, one process for one TD, behind one vmcall channel.

Exit status: 0 when the host went away or on SIGTERM, otherwise the MigrationResult of what ended it (a wrong command
line is InvalidParameter, 1). A MigTD that cannot start tells its host by ReportFatalError first (policy.md 3.3).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Final, NoReturn, TextIO, cast

import structlog

from migtd import __version__, failures
from migtd.choices import StartAttestation, attestation_choice, session_factory
from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult, MigTDError
from migtd.guest.channel import Channel
from migtd.guest.configuration import FileConfiguration
from migtd.guest.emulated import ChannelObserver, emulated_guest
from migtd.guest.interfaces import Guest
from migtd.guest.services import GhciServices
from migtd.guest.socket_channel import connect_channel
from migtd.migration.logging import LogEntry, LogLevel, MigTdLog
from migtd.migration.service import MigTd
from migtd.migration.session import SessionFactory
from migtd.observer import Observer
from migtd.output import LossyStream
from migtd.td_options import TdOptions, pull_options

_output = structlog.get_logger("migtd")

_NAMES: Final = {
    LogLevel.ERROR: "error",
    LogLevel.WARN: "warning",
    LogLevel.INFO: "info",
    LogLevel.DEBUG: "debug",
    LogLevel.TRACE: "debug",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `migtd-td` and return its exit status; `arguments` without the program's name (None: the process's own)."""
    print_to_stderr()
    try:
        options = pull_options(sys.argv[1:] if arguments is None else arguments)
        clock = time.time if options.refuse_expired else None
        attestation = attestation_choice(options.attestation, clock, options.quote_form)
        session = session_factory(options.session)
        # As the first process of a container this one would ignore SIGTERM while it waits for its host.
        signal.signal(signal.SIGTERM, _exit_cleanly)
        channel = connect_channel(options.channel, options.deadlines, connect_timeout=options.connect_timeout)
        try:
            asyncio.run(_run(channel, options, attestation, session))
        finally:
            channel.close()
    except MigTDError as error:
        _output.error(f"{error.kind.id}: {error}", advice=error.kind.advice)
        return int(error.result)
    return int(MigrationResult.Success)


async def serve(
    guest: Guest,
    attestation: StartAttestation,
    session: SessionFactory,
    deadlines: Deadlines,
    observer: Observer,
    *,
    ceiling: LogLevel = LogLevel.INFO,
    mirror: Callable[[LogEntry], None] = lambda _: None,
) -> None:
    """Start a MigTD on `guest` and serve its host until that is gone.

    `ceiling` is the highest level of the log areas, above info only for debugging; `mirror` is told of each log entry.
    Raises the MigTDError that ended the MigTD before that: it could not start, or the host refuses to hand over
    requests. The host was told by ReportFatalError then.
    """
    try:
        mode = attestation(guest)
        log = MigTdLog(guest.memory, guest.tdcall.vp_info().num_vcpus, ceiling=ceiling, mirror=mirror)
        modes = f"attestation {mode.name}, policy v{1 if mode.v2 is None else 2}, session {session.name}"
        log.write(LogLevel.INFO, f"MigTD {__version__}: {modes}")
        services = GhciServices(guest, deadlines, observer)
        await MigTd(
            guest.tdcall,
            services,
            log=log,
            mode=mode,
            session_factory=session,
            deadlines=deadlines,
            observer=observer,
            random=os.urandom,
        ).serve()
    except MigTDError as error:
        if error.kind is failures.CHANNEL_LOST:
            _output.info("the host is gone", detail=error.detail)
            return
        report_fatal(guest, error)
        raise


def report_fatal(guest: Guest, error: MigTDError) -> None:
    """Tell the host why this MigTD ends: the MigrationResult as the code, id and sentence as the message."""
    try:
        guest.vmcall.report_fatal_error(error.result, f"{error.kind.id}: {error}")
    except MigTDError as later:
        # The error itself is on its way to the exit status; that the host did not hear of it is worth a line.
        _output.warning("the host could not be told", reason=f"{later.kind.id}: {later}")


def print_to_stderr() -> None:
    """Let structlog write plain lines to standard error; tracebacks without local variables, for these hold keys."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", LossyStream(sys.stderr))),
    )


def print_entry(entry: LogEntry) -> None:
    """Show an entry of the log areas on this process's own output, for people.

    It looks like the other lines there. Written without a logger: an entry passes several times per migration, and to
    render it by way of structlog's console took a MigTD as long as its certificate.
    """
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    output = LossyStream(sys.stderr)
    output.write(f"{moment} [{_NAMES[entry.level]:9}] {entry.text:30} request_id={entry.request_id:#x}\n")


async def _run(channel: Channel, options: TdOptions, attestation: StartAttestation, session: SessionFactory) -> None:
    """Boot the TD and serve until the host is gone or a signal asks for the end."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        guest = _boot(channel, options)
        await serve(
            guest,
            attestation,
            session,
            options.deadlines,
            ChannelObserver(channel),
            ceiling=options.ceiling,
            mirror=print_entry,
        )
    except asyncio.CancelledError:
        # Only the signals cancel this task, and it is the outermost: nobody else waits for it to be cancelled.
        _output.info("ended by a signal")


def _boot(channel: Channel, options: TdOptions) -> Guest:
    try:
        configuration = FileConfiguration(options.policy_file, options.root_ca_file, options.policy_issuer_chain_file)
    except MigTDError as error:
        report_fatal(emulated_guest(channel, FileConfiguration()), error)
        raise
    return emulated_guest(channel, configuration)


def _exit_cleanly(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())

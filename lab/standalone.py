# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The stand-alone mode: a MigTD and its host in one process, one side of one operation (design.md, contract 3).

The same core and the same VMM as in a lab, joined by an in-process channel instead of a socket; the wire is TCP as in
ghci-ratls.md 4. The other side may be a second such process, a lab's external peer, or the reference's binary.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final, TextIO

import structlog

from lab import failure_text
from lab.evidence import ACCEPT_ALL
from lab.kept_platform import KeptPlatform
from lab.outcome import Outcome, finalized, join
from lab.output import Shown, console, show_results
from lab.standalone_evidence import evidence_of, shared_folder
from lab.standalone_options import FINALIZE, PREPARE, StandaloneOptions, parse
from migtd.choices import attestation_choice, session_factory
from migtd.errors import LabFailure, MigrationResult, MigTDError
from migtd.guest.emulated import ChannelObserver, emulated_guest
from migtd.td import serve
from vmm_stub.tdx_module.errors import RebindRefused, TargetTdUnknown
from vmm_stub.vmm.control.models import (
    DeadlinesModel,
    HostConfig,
    MigrationModel,
    MigrationRequest,
    MigTdConfig,
    RebindFinalizeModel,
    Role,
    SessionOperation,
    TargetTdRequest,
    VersionRangeModel,
)
from vmm_stub.vmm.factory import make_machine, make_vmm
from vmm_stub.vmm.in_process import InProcessChannel
from vmm_stub.vmm.side_record import finalize_outcome
from vmm_stub.vmm.vmm import Vmm

NAME: Final = "stand-alone"
"""Lab and engine in the outcome of this mode."""
_log: Final = structlog.get_logger()


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one side and return the exit status: the MigrationResult, 1 for wrong usage.

    The outcome goes to standard output (a table, or one JSON document with `--json`), the log to standard error or to
    the file that MIGTD_LOG_FILE names.
    """
    as_json = "--json" in arguments
    try:
        options = parse(arguments, environment)
        with _log_output(options) as output:
            _log_to(output)
            outcome = _finalize(options) if options.operation == FINALIZE else asyncio.run(_migrate(options))
    except LabFailure as error:
        if as_json:
            print(failure_text.document(error))  # noqa: T201 - this is the answer
        sys.stderr.write(failure_text.lines(error) + "\n")
        # Of a usage error nothing but the status 1 is known: MigrationResult InvalidParameter.
        return int(error.result if isinstance(error, MigTDError) else MigrationResult.InvalidParameter)
    _show(outcome, as_json=as_json)
    side = outcome.source or outcome.destination
    # A MigTD that died without a report has no code; it could not do its work.
    return int(MigrationResult.InitializationError) if side is None or side.code is None else side.code


async def _migrate(options: StandaloneOptions) -> Outcome:
    """Start host and MigTD, run the migration, and give the outcome of this side."""
    clock = time.time if options.evidence.refuse_expired else None
    attestation, session = attestation_choice(options.attestation, clock), session_factory(options.session)
    evidence = evidence_of(options)
    config = _host_config(options)
    config.quoting = evidence.quoting
    config.migtds[0].mrowner, config.migtds[0].mrownerconfig = evidence.mrowner, evidence.mrownerconfig
    kept = _kept_platform(options) if options.operation == PREPARE else None
    key = None if kept is None else kept.report_key()
    vmm = make_vmm(config, machine=make_machine(config.quoting, os.urandom if key is None else lambda _size: key))
    migtd = config.migtds[0].name
    channel = InProcessChannel(vmm.migtd(migtd))
    guest = emulated_guest(channel, evidence.configuration)
    serving = asyncio.create_task(
        serve(guest, attestation, session, options.deadlines, ChannelObserver(channel)), name="migtd"
    )
    try:
        model = await _run_one(vmm, migtd, options, serving, kept)
        if kept is not None and model.outcome is not None and model.outcome.code == 0:
            _keep(kept, vmm, migtd, options)
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        channel.close()
        await vmm.stop()
        vmm.history.close()
    source, destination = (model, None) if options.role is Role.SOURCE else (None, model)
    return join(source, destination, duration_ms=model.duration_ms or 0.0, **_labels(options))


def _finalize(options: StandaloneOptions) -> Outcome:
    """Move the binding of the target TD on the shared platform. No MigTD has a part in it."""
    started = time.monotonic()
    refusal: LabFailure | None = None
    try:
        _kept_platform(options).finalize(options.target)
    except (TargetTdUnknown, RebindRefused) as error:
        refusal = error
    moved = RebindFinalizeModel(
        migtd=None,
        uuid=options.target.uuid,
        binding_handle=options.target.binding_handle,
        outcome=finalize_outcome(refusal),
    )
    return finalized(moved, duration_ms=(time.monotonic() - started) * 1000, **_labels(options))


def _kept_platform(options: StandaloneOptions) -> KeptPlatform:
    return KeptPlatform(shared_folder(options.evidence.lab_dir), options.attestation, os.urandom)


def _keep(kept: KeptPlatform, vmm: Vmm, migtd: str, options: StandaloneOptions) -> None:
    """Keep what this side of a prepared rebinding did: the end of it comes when both processes are gone."""
    module = vmm.tdx_module
    if options.role is Role.SOURCE:
        kept.keep_target(module.target(options.target), module.measured(module.service_td(migtd)).tdinfo.push())
    else:
        kept.keep_accepted(module, options.target, migtd)


def _initial_tdinfo(kept: KeptPlatform | None, options: StandaloneOptions) -> bytes | None:
    """What the host hands to the old MigTD; nothing to one that verified no policy, for it could not judge that."""
    if kept is None or options.role is not Role.SOURCE or options.attestation == ACCEPT_ALL:
        return None
    tdinfo = kept.initial_tdinfo(options.target)
    # The model takes text and holds bytes.
    return None if tdinfo is None else base64.b64encode(tdinfo)


def _labels(options: StandaloneOptions) -> dict[str, str | int]:
    """The labels of an outcome document."""
    return {
        "lab": NAME,
        "engine": NAME,
        "attestation": options.attestation,
        "session": options.session,
        "transport": "vmcall-raw",
        "request_id": options.request_id,
        "policy_version": options.policy_version,
    }


async def _run_one(
    vmm: Vmm, migtd: str, options: StandaloneOptions, serving: asyncio.Task[None], kept: KeptPlatform | None
) -> MigrationModel:
    """The one run of this process, once it ended. Raises what the MigTD's start failed with."""
    ready = asyncio.create_task(vmm.ready(options.deadlines.call))
    await asyncio.wait({ready, serving}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if serving.done():
        serving.result()
    target = options.target
    is_source = options.role is Role.SOURCE
    # In a rebinding the new MigTD has no target TD yet, and the old one's may be there from an earlier run.
    if kept is None or (is_source and not kept.restore(vmm.tdx_module, target, migtd)):
        vmm.create_target_td(TargetTdRequest(migtd=migtd, uuid=target.uuid, binding_handle=target.binding_handle))
    migration = await vmm.start_migration(
        MigrationRequest(
            migtd=migtd,
            role=options.role,
            request_id=options.request_id,
            uuid=target.uuid,
            binding_handle=target.binding_handle,
            peer=f"{options.peer_address}:{options.port}" if is_source else None,
            listen_port=0 if is_source else options.port,
            operation=SessionOperation(options.operation),
            initial_tdinfo=_initial_tdinfo(kept, options),
        )
    )
    loop = asyncio.get_running_loop()
    # Before anybody can read that it runs.
    for number in (signal.SIGINT, signal.SIGTERM):
        # Cancelled as a VMM cancels: the MigTD reports VmmCanceled, and the peer sees the end of the stream.
        loop.add_signal_handler(number, migration.cancel)
    if is_source:
        _log.info("connecting", address=f"{options.peer_address}:{options.port}")
    elif (address := migration.model().address) is not None:
        _log.info("listening", address=address)
    await migration.ended.wait()
    return migration.model()


def _host_config(options: StandaloneOptions) -> HostConfig:
    """A host that nobody reaches but over the wire."""
    return HostConfig(
        name=NAME,
        migtds=[MigTdConfig(name=options.role.value, channel="")],
        control="",
        wire_address=options.peer_address if options.role is Role.DESTINATION else "127.0.0.1",
        wire_name=options.peer_address,
        versions=VersionRangeModel(minimum=options.versions.minimum, maximum=options.versions.maximum),
        deadlines=DeadlinesModel(**asdict(options.deadlines)),
    )


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(outcome.model_dump_json(by_alias=True))  # noqa: T201 - this is the answer
    else:
        show_results(console(), [Shown(outcome, "this side", "this side")])


@contextlib.contextmanager
def _log_output(options: StandaloneOptions) -> Iterator[TextIO]:
    if options.log_file is None:
        yield sys.stderr
        return
    with options.log_file.open("a", encoding="utf-8") as file:
        yield file


def _log_to(output: TextIO) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.PrintLoggerFactory(output),
    )

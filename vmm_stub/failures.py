# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The failure catalogue of the emulated host: every id it can report, in the order in which they can occur."""

from __future__ import annotations

from migtd.errors import FailureKind

# --- start of a host ------------------------------------------------------------------------------------------------
CONFIG_INVALID = FailureKind(
    "VMM-CONFIG-INVALID",
    "the host's configuration is not valid",
    "correct the keys that are named; docs/lab-file.md describes them",
)
CONTROL_ADDRESS = FailureKind(
    "VMM-CONTROL-ADDRESS",
    "the control API cannot listen on its address",
    "give a path of at most 107 bytes in a writable folder, and a loopback address for TCP; no other host may use them",
)
CONTROL_LOST = FailureKind(
    "VMM-CONTROL-LOST",
    "the connection to the host's control API ended",
    "check with `./inv status` that the host runs; its log says why it ended",
)
CHANNEL_ADDRESS = FailureKind(
    "VMM-CHANNEL-ADDRESS",
    "the vmcall channel of a MigTD cannot be set up",
    "give a folder that is writable and whose socket name stays within 107 bytes",
)
HISTORY_FILE = FailureKind(
    "VMM-HISTORY-FILE",
    "the history file cannot be written",
    "give a writable path with free space; the last events are still served by the control API",
)

# --- MigTDs ---------------------------------------------------------------------------------------------------------
MIGTD_UNKNOWN = FailureKind(
    "VMM-MIGTD-UNKNOWN",
    "this host has no MigTD of that name",
    "`./inv status` lists the MigTDs of each host",
)
MIGTD_ABSENT = FailureKind(
    "VMM-MIGTD-ABSENT",
    "the MigTD is not connected to its host",
    "wait for it with GET /v1/health?wait=SECONDS, or start it again",
)
MIGTD_GONE = FailureKind(
    "VMM-MIGTD-GONE",
    "the MigTD ended or closed its channel",
    "see its last words with `./inv logs` and start it again with `./inv up`",
)
MIGTD_FATAL = FailureKind(
    "VMM-MIGTD-FATAL",
    "the MigTD reported a fatal error and was ended",
    "the message is the MigTD's own; `./inv events` shows the calls before it",
)
MIGTD_SILENT = FailureKind(
    "VMM-MIGTD-SILENT",
    "the MigTD did not report the end of the request within the host's deadline",
    "see `./inv events` for its last call; restart it with `./inv up`",
)
CHANNEL_BROKEN = FailureKind(
    "VMM-CHANNEL-BROKEN",
    "the MigTD broke the rules of the vmcall channel and was ended",
    "both ends of the channel must come from the same version of the lab",
)
REPORT_REFUSED = FailureKind(
    "VMM-REPORT-REFUSED",
    "the MigTD's ReportStatus was refused",
    "ghci-ratls.md 3.2 gives the register and the sizes; every request is reported once",
)
REPORTED_WITHOUT_REASON = FailureKind(
    "VMM-REPORTED-WITHOUT-REASON",
    "the MigTD reported a failure and gave no reason besides its code",
    "look at its log with `./inv logs`; a MigTD from elsewhere tells its host only the code",
)
HOST_STOPPED = FailureKind(
    "VMM-HOST-STOPPED",
    "the host was stopped while the migration was under way",
    "start the lab again with `./inv up`",
)

# --- wire -----------------------------------------------------------------------------------------------------------
WIRE_PORT_IN_USE = FailureKind(
    "VMM-WIRE-PORT-IN-USE",
    "the port for the other host is already in use",
    "choose another port, or 0 for any that is free",
)
WIRE_LISTEN = FailureKind(
    "VMM-WIRE-LISTEN",
    "the host cannot listen for the other host",
    "wire_address must be an address of this machine",
)
WIRE_CONNECT = FailureKind(
    "VMM-WIRE-CONNECT",
    "the two hosts did not connect within the deadline",
    "check that the other side was started and that its address is right; `deadlines.connect` is how long both try",
)
WIRE_FRAME_LENGTH = FailureKind(
    "VMM-WIRE-FRAME-LENGTH",
    "the other host sent a frame of an impossible length",
    "a frame is `u32 length | payload` with 1 to 65,536 bytes (ghci-ratls.md 4)",
)
WIRE_TRUNCATED = FailureKind(
    "VMM-WIRE-TRUNCATED",
    "the other host ended the stream inside a frame",
    "the other host or the link failed; see its history with `./inv events`",
)
WIRE_LOST = FailureKind(
    "VMM-WIRE-LOST",
    "the connection between the hosts broke",
    "the other host or the link failed; see its history with `./inv events`",
)

# --- control API ----------------------------------------------------------------------------------------------------
API_MALFORMED = FailureKind(
    "VMM-API-MALFORMED",
    "the control API got something that is no HTTP/1.1 request",
    "GET /openapi.json describes every request",
)
API_INVALID = FailureKind(
    "VMM-API-INVALID",
    "a request to the control API has an invalid body, query or path",
    "correct the keys that are named; GET /openapi.json describes them",
)
API_TOO_LARGE = FailureKind(
    "VMM-API-TOO-LARGE",
    "a request to the control API is too large",
    "bodies end at 64 KiB and headers at 16 KiB",
)
API_TIMEOUT = FailureKind(
    "VMM-API-TIMEOUT",
    "a request to the control API did not arrive in time",
    "send header and body within 30 s",
)
API_NOT_FOUND = FailureKind(
    "VMM-API-NOT-FOUND",
    "the control API has no such path",
    "GET /openapi.json lists all paths",
)
API_METHOD = FailureKind(
    "VMM-API-METHOD",
    "the control API does not serve this method on this path",
    "GET /openapi.json lists all paths with their methods",
)
API_INTERNAL = FailureKind(
    "VMM-API-INTERNAL",
    "the host met a state that its authors thought impossible",
    "please report it with the host's log",
)
API_ANSWER = FailureKind(
    "VMM-API-ANSWER",
    "the control API answered with something that its description does not have",
    "host and lab must come from the same version",
)
MIGRATION_UNKNOWN = FailureKind(
    "VMM-MIGRATION-UNKNOWN",
    "this host knows no migration with that MigTD and request id",
    "GET /v1/migrations lists them",
)
MIGRATION_EXISTS = FailureKind(
    "VMM-MIGRATION-EXISTS",
    "a migration with that request id is under way on this MigTD",
    "wait for its outcome, cancel it, or use another request id",
)

# --- TDX module -----------------------------------------------------------------------------------------------------
SERVICE_TD_EXISTS = FailureKind(
    "VMM-SERVICE-TD-EXISTS",
    "a service TD of that name is running already",
    "end it first: the name of a MigTD stands for one TD at a time",
)
SERVICE_TD_UNKNOWN = FailureKind(
    "VMM-SERVICE-TD-UNKNOWN",
    "no service TD of that name is running",
    "`./inv status` shows which MigTDs of the host run",
)
TARGET_TD_EXISTS = FailureKind(
    "VMM-TARGET-TD-EXISTS",
    "a target TD with that binding handle and UUID exists already",
    "choose another UUID or binding handle, or leave them out for random ones",
)
TARGET_TD_UNKNOWN = FailureKind(
    "VMM-TARGET-TD-UNKNOWN",
    "no target TD has that binding handle and UUID",
    "create it first with POST /v1/target-tds; GET lists those that exist",
)
REBIND_REFUSED = FailureKind(
    "VMM-REBIND-REFUSED",
    "the TDX module does not move the binding of the target TD",
    "prepare the rebinding first, with success on both sides: the old MigTD approves what the new one accepts",
)
RANDOM_SOURCE_BROKEN = FailureKind(
    "VMM-RANDOM-SOURCE-BROKEN",
    "the random source of the emulated TDX module gives no usable bytes",
    "let the host take its random bytes from the operating system",
)
REPORT_MALFORMED = FailureKind(
    "VMM-REPORT-MALFORMED",
    "a TDREPORT breaks its layout",
    "policy.md 6.1 gives the sizes, the type and the bytes that must be zero",
)

# --- quoting --------------------------------------------------------------------------------------------------------
QUOTING_CONFLICT = FailureKind(
    "VMM-QUOTING-CONFLICT",
    "the machines of a lab contradict each other, so no collateral fits them all",
    "give machines with different verdicts different SVNs (cpusvn, tee_tcb_svn), or leave the SVNs out",
)
QUOTING_MATERIAL = FailureKind(
    "VMM-QUOTING-MATERIAL",
    "the quoting material cannot be read",
    "let the lab make it anew: remove the file, or send what `material_for` made",
)
QUOTING_REPORT_FOREIGN = FailureKind(
    "VMM-QUOTING-REPORT-FOREIGN",
    "the TDREPORT was not made by the TDX module of this host, so it gets no quote",
    "a TD can only have its own machine quote it; see `./inv events` for the report",
)
QUOTING_REQUEST = FailureKind(
    "VMM-QUOTING-REQUEST",
    "a GetQuote buffer holds no request that the quoting service knows",
    "policy.md 4.6 gives the three forms",
)
QUOTING_ANSWER_TOO_LARGE = FailureKind(
    "VMM-QUOTING-ANSWER-TOO-LARGE",
    "the answer to a GetQuote does not fit the buffer that the guest gave",
    "a MigTD takes quotes of 8,192 bytes and collateral of 128 KiB: use shorter chains and CRLs",
)
QUOTING_QUOTE_FILE = FailureKind(
    "VMM-QUOTING-QUOTE-FILE",
    "the captured quote cannot be used",
    "give a TDX quote of version 4, or of version 5 with body type 2 or 3",
)
PCS_ADDRESS = FailureKind(
    "VMM-PCS-ADDRESS",
    "the collateral service cannot listen on its address",
    "give a free port on an address of this machine",
)


def catalogue() -> dict[str, FailureKind]:
    """Every kind of this module by its id, in the order of definition."""
    return {kind.id: kind for kind in globals().values() if isinstance(kind, FailureKind)}

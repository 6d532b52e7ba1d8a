# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The failure catalogue of the MigTD: every id it can report, in the order of the phases in which they occur."""

from __future__ import annotations

from migtd.errors import FailureKind

# --- start ---------------------------------------------------------------------------------------------------------
EVENT_LOG_MISSING = FailureKind(
    "MIGTD-EVENT-LOG-MISSING",
    "there is no CCEL event log to measure into",
    "give the TD a log area of at least 72 bytes with a Spec ID event; the emulated one has 1 MiB",
)
EVENT_LOG_FULL = FailureKind(
    "MIGTD-EVENT-LOG-FULL",
    "the event does not fit into the rest of the CCEL log area",
    "measure a smaller file or give the TD a larger log area; no RTMR was extended",
)
EVENT_LOG_MALFORMED = FailureKind(
    "MIGTD-EVENT-LOG-MALFORMED",
    "an event log cannot be read or replayed",
    "look at the log with `./inv events`; policy.md 3 gives its layout",
)
CONFIGURATION_MISSING = FailureKind(
    "MIGTD-CONFIGURATION-MISSING",
    "a file that this mode needs is not in the configuration volume",
    "name it with --policy-file, --root-ca-file or --policy-issuer-chain-file",
)
CHANNEL_LOST = FailureKind(
    "MIGTD-CHANNEL-LOST",
    "the host no longer answers on the vmcall channel",
    "see the host's log with `./inv logs`; the MigTD cannot go on without its host",
)
CHANNEL_MALFORMED = FailureKind(
    "MIGTD-CHANNEL-MALFORMED",
    "a message on the vmcall channel breaks its layout",
    "both ends of the channel must come from the same version of the lab",
)

USAGE = FailureKind(
    "MIGTD-USAGE",
    "the command line is wrong",
    "run the command with --help",
)
ATTESTATION_UNKNOWN = FailureKind(
    "MIGTD-ATTESTATION-UNKNOWN",
    "there is no such attestation mode",
    "choose one of those that are named with this message",
)
SESSION_UNKNOWN = FailureKind(
    "MIGTD-SESSION-UNKNOWN",
    "there is no such session protocol",
    "choose one of those that are named with this message",
)

# --- requests ------------------------------------------------------------------------------------------------------
REQUEST_MALFORMED = FailureKind(
    "MIGTD-REQUEST-MALFORMED",
    "a GHCI request breaks its layout",
    "ghci-ratls.md 3.1 lists the sizes and the bytes that must be zero",
)
REQUEST_OPERATION_UNKNOWN = FailureKind(
    "MIGTD-REQUEST-OPERATION-UNKNOWN",
    "the VMM asked for an operation that this MigTD does not serve",
    "operations 1, 3 and 4 are served with policy v1; 2 and 5 need policy v2",
)
REQUEST_STATUS_UNKNOWN = FailureKind(
    "MIGTD-REQUEST-STATUS-UNKNOWN",
    "the VMM completed WaitForRequest with a status that the interface does not know",
    "status byte 0 must be 1 and byte 1 the operation",
)
LOG_LEVEL_INVALID = FailureKind(
    "MIGTD-LOG-LEVEL-INVALID",
    "EnableLogArea asks for a log level outside 1..5",
    "1 error, 2 warn, 3 info, 4 debug, 5 trace",
)
SHARED_MEMORY_EXHAUSTED = FailureKind(
    "MIGTD-SHARED-MEMORY-EXHAUSTED",
    "no shared memory is left for a buffer",
    "each concurrent session takes two buffers of 64 KiB: raise the TD's shared memory or run fewer at once",
)
TDCALL_FAILED = FailureKind(
    "MIGTD-TDCALL-FAILED",
    "the TDX module refused a TDCALL",
    "check that the target TD exists on this host with that binding handle and UUID: `./inv status`",
)
VMCALL_REFUSED = FailureKind(
    "MIGTD-VMCALL-REFUSED",
    "the VMM refused a TDVMCALL",
    "see the host's log with `./inv logs`",
)

# --- transport -----------------------------------------------------------------------------------------------------
TRANSPORT_SETUP_FAILED = FailureKind(
    "MIGTD-TRANSPORT-SETUP-FAILED",
    "the VMM could not open the transport for this request",
    "check that the destination listens and that the port is free; the host's log names the cause",
)
TRANSPORT_ENDED = FailureKind(
    "MIGTD-TRANSPORT-ENDED",
    "the peer ended the transport before the session was complete",
    "look at the other side's outcome: it may have refused, or its host may be gone",
)
TRANSPORT_MALFORMED = FailureKind(
    "MIGTD-TRANSPORT-MALFORMED",
    "the VMM completed a Send or Receive with an impossible length or status",
    "ghci-ratls.md 3 gives the buffer's layout",
)
DEADLINE_PRE_SESSION = FailureKind(
    "MIGTD-DEADLINE-PRE-SESSION",
    "the pre-session exchange did not end within its deadline",
    "the peer connected and stayed silent; raise `deadlines` only if it is merely slow",
)
PRE_SESSION_MALFORMED = FailureKind(
    "MIGTD-PRE-SESSION-MALFORMED",
    "a message of the pre-session exchange breaks its layout",
    "both sides must work with policy v2; with policy v1 there is no such exchange (spdm.md 3.3)",
)
PRE_SESSION_VERSION = FailureKind(
    "MIGTD-PRE-SESSION-VERSION",
    "the two sides have no version of the pre-session exchange in common",
    "this MigTD speaks version 0x0100",
)
PEER_DATA_TOO_LARGE = FailureKind(
    "MIGTD-PEER-DATA-TOO-LARGE",
    "policy and issuer chain are more than is taken before a session",
    "policy and chain together have at most 1 MiB",
)
DEADLINE_SESSION = FailureKind(
    "MIGTD-DEADLINE-SESSION",
    "the secure session did not end within its deadline",
    "the peer is connected but does not make progress; see its outcome and `./inv events`",
)
DEADLINE_READ = FailureKind(
    "MIGTD-DEADLINE-READ",
    "no data came from the peer within the read deadline",
    "the peer is connected and silent, or its packets are lost; see `./inv events`",
)
DEADLINE_WRITE = FailureKind(
    "MIGTD-DEADLINE-WRITE",
    "data could not be handed to the peer within the write deadline",
    "the link is stalled; see `./inv events`",
)
CANCELED = FailureKind(
    "MIGTD-CANCELED",
    "the VMM cancelled the request",
    "start the migration again if that was not meant",
)

# --- evidence ------------------------------------------------------------------------------------------------------
GET_QUOTE_BUSY = FailureKind(
    "MIGTD-GET-QUOTE-BUSY",
    "the host's quoting service gave nothing but errors, however often it was asked",
    "a host without quoting, or one that never made this TDREPORT, answers so; its history (`./inv events`) says why",
)
GET_QUOTE_REFUSED = FailureKind(
    "MIGTD-GET-QUOTE-REFUSED",
    "the host's quoting service refused the request",
    "the TDREPORT must come from the TDX module of that very host; its history (`./inv events`) says more",
)
GET_QUOTE_MALFORMED = FailureKind(
    "MIGTD-GET-QUOTE-MALFORMED",
    "the host's quoting service answered with something that is no answer",
    "policy.md 4.6 gives the layouts of the GetQuote buffer",
)
GET_QUOTE_TOO_LARGE = FailureKind(
    "MIGTD-GET-QUOTE-TOO-LARGE",
    "the quote of the host's quoting service is longer than a MigTD takes",
    "a quote must fit 8,192 bytes: use a shorter PCK certificate chain",
)
DEADLINE_QUOTE = FailureKind(
    "MIGTD-DEADLINE-QUOTE",
    "the host's quoting service did not answer within its deadline",
    "the request is still in flight at the host; see `./inv logs` there",
)
REPORTDATA_MISMATCH = FailureKind(
    "MIGTD-REPORTDATA-MISMATCH",
    "the peer's quote was made for another key than the one of this session",
    "somebody stands between the two sides or replays a quote; a captured quote needs --attestation captured",
)
RTMRS_DIFFER = FailureKind(
    "MIGTD-RTMRS-DIFFER",
    "the peer's event log does not explain the RTMRs in its quote",
    "the log was changed or is of another TD; compare the RTMRs that are shown",
)
POLICY_TOO_LARGE = FailureKind(
    "MIGTD-POLICY-TOO-LARGE",
    "with this policy v1, or issuer chain, in its event log, the certificate of a session would be too large for TLS",
    "shorten it: certificate, event log and quote together have at most 64,000 bytes",
)

# --- secure session ------------------------------------------------------------------------------------------------
TLS_PROTOCOL = FailureKind(
    "MIGTD-TLS-PROTOCOL",
    "the TLS handshake failed on this side",
    "the peer must speak TLS 1.3 with TLS_AES_256_GCM_SHA384, secp384r1 and one P-384 certificate",
)
TLS_ALERT = FailureKind(
    "MIGTD-TLS-ALERT",
    "the peer refused the TLS session with an alert",
    "the peer's outcome names the check that failed there",
)
TLS_PARAMETERS = FailureKind(
    "MIGTD-TLS-PARAMETERS",
    "the TLS session was negotiated with another version, suite or group than the profile allows",
    "only TLS 1.3, TLS_AES_256_GCM_SHA384 and secp384r1 are accepted",
)
CERTIFICATE_COUNT = FailureKind(
    "MIGTD-CERTIFICATE-COUNT",
    "the peer must present exactly one certificate",
    "send the self-signed MigTD certificate alone",
)
CERTIFICATE_UNASKED = FailureKind(
    "MIGTD-CERTIFICATE-UNASKED",
    "the peer does not want to see this side's certificate",
    "attestation is mutual: the destination's TLS server must require a client certificate that may be signed with"
    " ecdsa_secp384r1_sha384",
)
CERTIFICATE_MALFORMED = FailureKind(
    "MIGTD-CERTIFICATE-MALFORMED",
    "the peer's certificate cannot be read",
    "ghci-ratls.md 5 gives its fields and extensions",
)
CERTIFICATE_NO_EKU = FailureKind(
    "MIGTD-CERTIFICATE-NO-EKU",
    "the peer's certificate lacks the MigTD extended key usage",
    "extKeyUsage must list 1.2.840.113741.1.5.5.1.1",
)
CERTIFICATE_NO_EVIDENCE = FailureKind(
    "MIGTD-CERTIFICATE-NO-EVIDENCE",
    "the peer's certificate lacks its quote or its event log",
    "extensions 1.2.840.113741.1.5.5.1.2 and .3 must both be present",
)
CERTIFICATE_SIGNATURE = FailureKind(
    "MIGTD-CERTIFICATE-SIGNATURE",
    "the self-signature of the peer's certificate is wrong",
    "it must be ecdsa-with-SHA384 over the TBS bytes as sent, by the key in the certificate",
)

PEER_DATA_MISMATCH = FailureKind(
    "MIGTD-PEER-DATA-MISMATCH",
    "the peer's certificate was made with another policy than the one that came before the session",
    "somebody changed the pre-session exchange on its way; extension .1.4 is the SHA-384 of what the peer sent",
)

# --- rebinding -----------------------------------------------------------------------------------------------------
SERVTD_EXT_MALFORMED = FailureKind(
    "MIGTD-SERVTD-EXT-MALFORMED",
    "the SERVTD_EXT of the target TD is missing or too short",
    "the old MigTD's certificate must have extension 1.2.840.113741.1.5.5.1.6 with 272 bytes",
)
INITIAL_TDINFO_UNVERIFIED = FailureKind(
    "MIGTD-INITIAL-TDINFO-UNVERIFIED",
    "this attestation mode has no policy that could judge the initial TDINFO of the VMM",
    "start without init data, or with a mode that verifies policy v2",
)

# --- exchange and commit -------------------------------------------------------------------------------------------
EXCHANGE_RESERVED = FailureKind(
    "MIGTD-EXCHANGE-RESERVED",
    "the reserved bytes of the peer's exchange information are not zero",
    "the 40 bytes are MSK 32, min version 2, max version 2, reserved 4",
)
VERSION_RANGE = FailureKind(
    "MIGTD-VERSION-RANGE",
    "the two version ranges have no common migration version",
    "set `versions` of the two hosts so that min <= min(max export, max import) on both sides",
)
VERSION_FIELD = FailureKind(
    "MIGTD-VERSION-FIELD",
    "a migration version field of the TDX module is above 0xFFFF",
    "versions are 16 bits on the wire",
)
SERVTD_ATTR = FailureKind(
    "MIGTD-SERVTD-ATTR",
    "the target TD's SERVTD_ATTR is not zero",
    "bind the MigTD with attribute 0: no field of its TDINFO may be ignored",
)
KEY_WRITE_FAILED = FailureKind(
    "MIGTD-KEY-WRITE-FAILED",
    "the peer's key could not be written completely into MIG_DEC_KEY",
    "the target TD may hold a part of the key: discard it and start again with a new target TD",
)
INTERNAL = FailureKind(
    "MIGTD-INTERNAL",
    "the MigTD met a state that its authors thought impossible",
    "please report it with the output of `./inv events`",
)


def catalogue() -> dict[str, FailureKind]:
    """Every kind of this module by its id, in the order of definition."""
    return {kind.id: kind for kind in globals().values() if isinstance(kind, FailureKind)}

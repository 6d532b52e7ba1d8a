# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What SPDM sessions can fail with, beside the catalogue of the MigTD."""

from __future__ import annotations

from migtd.errors import FailureKind

SPDM_TRANSPORT = FailureKind(
    "MIGTD-SPDM-TRANSPORT",
    "the 12-byte header before an SPDM message is wrong",
    "both sides must be started with --session spdm and the same policy version (spdm.md 3.2)",
)
SPDM_ENDED = FailureKind(
    "MIGTD-SPDM-ENDED",
    "the peer ended the stream before the SPDM session was complete",
    "look at the peer's outcome: a side that refuses often only closes (spdm.md 9.3)",
)
SPDM_VERSION = FailureKind(
    "MIGTD-SPDM-VERSION",
    "an SPDM message has another version than 1.2",
    "the session speaks SPDM 1.2 only; GET_VERSION and VERSION carry 1.0 (spdm.md 4.1)",
)
SPDM_MALFORMED = FailureKind(
    "MIGTD-SPDM-MALFORMED",
    "an SPDM message breaks its layout or its constants",
    "compare the bytes with spdm.md 4; lengths, reserved bytes and constants must be exact",
)
SPDM_UNEXPECTED = FailureKind(
    "MIGTD-SPDM-UNEXPECTED",
    "an SPDM message came where another one belongs",
    "each side may say only what the state tables allow (spdm.md 4.9)",
)
SPDM_UNSUPPORTED = FailureKind(
    "MIGTD-SPDM-UNSUPPORTED",
    "the peer sent a request that is not part of the profile",
    "certificates, measurements, PSK, heartbeat and key update are not served (spdm.md 2)",
)
SPDM_VENDOR = FailureKind(
    "MIGTD-SPDM-VENDOR",
    "a vendor-defined message has a wrong opcode or a wrong element",
    "both sides must do the same operation, and the elements must be those of spdm.md 4.3 in their order",
)
SPDM_SIGNATURE = FailureKind(
    "MIGTD-SPDM-SIGNATURE",
    "a handshake signature or MAC of the peer is wrong",
    "something between the sides changed a message, or they hash it differently (spdm.md 5)",
)
SPDM_RECORD = FailureKind(
    "MIGTD-SPDM-RECORD",
    "a secured record cannot be opened",
    "its session id, sequence number, length or tag is wrong: something between the sides changed it (spdm.md 6.2)",
)
SPDM_PEER_ERROR = FailureKind(
    "MIGTD-SPDM-PEER-ERROR",
    "the peer refused with an SPDM ERROR",
    "its code is the reason: look at the peer's outcome (spdm.md 9.1)",
)
SPDM_MESSAGE_TOO_LARGE = FailureKind(
    "MIGTD-SPDM-MESSAGE-TOO-LARGE",
    "own evidence does not fit into its SPDM message",
    "a message has at most 65,536 bytes, and TDREPORT, SERVTD_EXT and TDINFO their fixed sizes (spdm.md 3.4 and 4.3)",
)
SPDM_EARLY = FailureKind(
    "MIGTD-SPDM-EARLY",
    "the peer goes on while it should wait for an answer",
    "requests and responses alternate strictly (spdm.md 4)",
)


def catalogue() -> dict[str, FailureKind]:
    """Every kind of this module by its id, in the order of definition."""
    return {kind.id: kind for kind in globals().values() if isinstance(kind, FailureKind)}

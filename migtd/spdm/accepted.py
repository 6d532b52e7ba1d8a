# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Which GET_CAPABILITIES and NEGOTIATE_ALGORITHMS a responder takes (spdm.md 4.1 and 12.5).

Between MigTDs there is one of each. `StandardRequests` is for conformance with the standard: any requester that offers
what the profile needs, and is consistent in itself.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

from migtd.spdm.errors import Malformed
from migtd.spdm.negotiation import (
    PROFILE_GET_CAPABILITIES,
    PROFILE_NEGOTIATE,
    VERSION_12,
    Code,
    pull_algorithms,
    pull_capabilities,
)
from migtd.spdm.reader import Reader


class AcceptedRequests(Protocol):
    """What a responder takes. Both raise Malformed for anything else."""

    def expect_capabilities(self, message: bytes) -> None:
        """A GET_CAPABILITIES of version 1.2."""

    def expect_algorithms(self, message: bytes) -> None:
        """A NEGOTIATE_ALGORITHMS of version 1.2."""


class ExactRequests:
    """The profile's bytes."""

    def expect_capabilities(self, message: bytes) -> None:
        """R2."""
        if pull_capabilities(message, Code.GET_CAPABILITIES) != PROFILE_GET_CAPABILITIES:
            raise Malformed("GET_CAPABILITIES: other capabilities than the profile's")

    def expect_algorithms(self, message: bytes) -> None:
        """R3."""
        if pull_algorithms(message, Code.NEGOTIATE_ALGORITHMS) != PROFILE_NEGOTIATE:
            raise Malformed("NEGOTIATE_ALGORITHMS: other algorithms than the profile's")


class StandardRequests:
    """Whatever the standard allows and the profile can answer.

    Messages larger than the peer takes are not adapted to its DataTransferSize: use it for negotiations only.
    """

    def expect_capabilities(self, message: bytes) -> None:
        """Flags and sizes are consistent with each other."""
        found = pull_capabilities(message, Code.GET_CAPABILITIES)
        flags, size, most = Flags(found.flags), found.data_transfer_size, found.max_message_size
        protected = bool(flags & Flags.ENCRYPT), bool(flags & Flags.MAC)
        agrees = bool(flags & (Flags.KEY_EX | Flags.PSK))
        if agrees and not all(protected):
            raise Malformed(f"GET_CAPABILITIES: keys without protection in {found.flags:#x}")
        if any(protected) and not agrees:
            raise Malformed(f"GET_CAPABILITIES: protection without keys in {found.flags:#x}")
        if not _SMALLEST_TRANSFER <= size <= most:
            raise Malformed(f"GET_CAPABILITIES: DataTransferSize {size}, MaxSPDMmsgSize {most}")
        if not flags & Flags.CHUNK and size != most:
            raise Malformed(f"GET_CAPABILITIES: no chunks, but DataTransferSize {size}, MaxSPDMmsgSize {most}")

    def expect_algorithms(self, message: bytes) -> None:
        """Counts and lengths are right, and the profile's algorithms are among those offered."""
        reader = Reader(message, Code.NEGOTIATE_ALGORITHMS.name)
        reader.expect(bytes((VERSION_12, Code.NEGOTIATE_ALGORITHMS)), "header")
        count = reader.integer(1, "number of algorithm structures")
        reader.expect(b"\0", "param2")
        reader.expect(len(message).to_bytes(2, "little"), "length")
        reader.integer(1, "measurement specification")
        other = reader.integer(1, "OtherParams")
        asymmetric, base_hash = reader.integer(4, "base asymmetric"), reader.integer(4, "base hash")
        reader.expect(bytes(12), "reserved")
        external = reader.integer(1, "ExtAsymCount") + reader.integer(1, "ExtHashCount")
        reader.expect(bytes(2), "reserved")
        _skip_external(reader, external)
        offered = _structures(reader, count)
        reader.end()
        wanted = PROFILE_NEGOTIATE
        pairs = [
            (other, wanted.other_params),
            (asymmetric, wanted.base_asym),
            (base_hash, wanted.base_hash),
            *zip((offered.get(kind, 0) for kind in _KINDS), wanted.structures, strict=True),
        ]
        if not all(have & want for have, want in pairs):
            raise reader.wrong("the profile's algorithms are not offered")


class Flags(enum.IntFlag):
    """Those capabilities of a requester that depend on each other; PSK is two bits."""

    ENCRYPT = 1 << 6
    MAC = 1 << 7
    KEY_EX = 1 << 9
    PSK = 3 << 10
    CHUNK = 1 << 17


EXACT: Final = ExactRequests()
_SMALLEST_TRANSFER: Final = 42
_KINDS: Final = (2, 3, 4, 5)
_FIXED_BYTES: Final = 2
_MOST_EXTERNAL: Final = 20
"""Most extended algorithms of a whole request, 4 bytes each."""
_EXTERNAL_SIZE: Final = 4


def _skip_external(reader: Reader, count: int) -> None:
    if count > _MOST_EXTERNAL:
        raise reader.wrong(f"{count} extended algorithms")
    reader.take(_EXTERNAL_SIZE * count, "extended algorithms")


def _structures(reader: Reader, count: int) -> dict[int, int]:
    """The algorithms offered, by type; types rise."""
    offered: dict[int, int] = {}
    for _ in range(count):
        kind, counts = reader.integer(1, "algorithm type"), reader.integer(1, "AlgCount")
        if kind not in _KINDS or kind <= max(offered, default=0):
            raise reader.wrong(f"algorithm type {kind} after {sorted(offered)}")
        if counts >> 4 != _FIXED_BYTES:
            raise reader.wrong(f"{counts >> 4} bytes of fixed algorithms")
        offered[kind] = reader.integer(_FIXED_BYTES, "algorithms")
        _skip_external(reader, counts & 0xF)
    return offered

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The TDINFO that an image and its manifest give, and the ServTD hashes of it (policy.md 5.6, 6.2, 6.3)."""

from __future__ import annotations

import enum
import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from lab.policy_tools import failures, firmware_volume
from lab.policy_tools.compact import pull_json
from lab.policy_tools.errors import ToolError
from lab.policy_tools.igvm import configuration_volume, mrtd_of_igvm, pull_igvm
from lab.policy_tools.tdvf import mrtd_of_sections, pull_sections
from migtd.event_log import RA_DISABLED_TEXT, separator_event
from migtd.policy.tdinfo import TDINFO_SIZE, masked_tdinfo

CONFIGURATION_BASE: Final = 0xFF00_0000
CONFIGURATION_SIZE: Final = 0xA_0000
"""Bytes of the configuration volume: the first part of a `.bin` image."""
SERVTD_TYPE_MIGTD: Final = 0

_ZERO: Final = bytes(48)
_MANIFEST: Final = (("attributes", 8), ("xfam", 8), ("mrconfigid", 48), ("mrowner", 48), ("mrownerconfig", 48))
_HEX: Final = re.compile(r"[0-9A-Fa-f]*")
_SERVTD_HASH: Final = struct.Struct("<48sHQ")
_MEASURED: Final = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_MEASURED_AT: Final = (16, 208, 256, 304, 352)


class ImageFormat(enum.Enum):
    """How an image is laid out."""

    BIN = ".bin"
    IGVM = ".igvm"

    @classmethod
    def of_name(cls, name: str) -> ImageFormat:
        """By what a file's name contains; `.igvm` wins. Raises ToolError (LAB-IMAGE-INVALID)."""
        for each in (cls.IGVM, cls.BIN):
            if each.value in name:
                return each
        raise ToolError(failures.IMAGE_INVALID, f"{name}: the name contains neither .igvm nor .bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What kind of MigTD an image is: with policy v2, and without remote attestation."""

    policy_v2: bool = False
    ra_disabled: bool = False


def tdinfo_of_image(image: bytes, form: ImageFormat, manifest: bytes, variant: Variant) -> bytes:
    """The TDINFO, 512 bytes, nothing masked; servtd_hash is zero.

    Raises ToolError: LAB-IMAGE-INVALID, LAB-IMAGE-FILE-MISSING, LAB-MANIFEST-INVALID.
    """
    fields = _pull_manifest(manifest)
    if form is ImageFormat.IGVM:
        igvm = pull_igvm(image)
        mrtd = mrtd_of_igvm(igvm)
        volume = configuration_volume(igvm, CONFIGURATION_BASE, CONFIGURATION_SIZE)
    else:
        mrtd = mrtd_of_sections(image, pull_sections(image))
        if len(image) < CONFIGURATION_SIZE:
            raise ToolError(failures.IMAGE_INVALID, f"{len(image)} bytes hold no configuration volume")
        volume = image[:CONFIGURATION_SIZE]
    rtmrs = _rtmrs(volume, variant)
    attributes, xfam, *owner = fields
    return b"".join((attributes, xfam, mrtd, *owner, *rtmrs)).ljust(TDINFO_SIZE, b"\0")


def servtd_info_hash(tdinfo: bytes, servtd_attr: int) -> bytes:
    """The first level: SHA-384 of the masked TDINFO."""
    return hashlib.sha384(masked_tdinfo(tdinfo, servtd_attr)).digest()


def servtd_hash(info_hash: bytes, servtd_attr: int) -> bytes:
    """The second level: SHA-384 over the first, the type (MigTD) and SERVTD_ATTR."""
    return hashlib.sha384(_SERVTD_HASH.pack(info_hash, SERVTD_TYPE_MIGTD, servtd_attr)).digest()


def measured_fields(tdinfo: bytes) -> dict[str, bytes]:
    """MRTD and RTMR 0 to 3 of a TDINFO, 48 bytes each, by the names of measurement files."""
    return {name: tdinfo[at : at + 48] for name, at in zip(_MEASURED, _MEASURED_AT, strict=True)}


def _rtmrs(volume: bytes, variant: Variant) -> Sequence[bytes]:
    separator = _extended(_ZERO, separator_event(1).digest)
    rtmr1, rtmr2 = separator, _ZERO
    if variant.policy_v2:
        # The reference's tool does so without remote attestation too, where the program measures no chain.
        chain = _volume_file(volume, firmware_volume.POLICY_ISSUER_CHAIN, "policy issuer chain")
        rtmr1 = _extended(rtmr1, _sha384(chain))
    if variant.ra_disabled:
        rtmr2 = _extended(rtmr2, _sha384(RA_DISABLED_TEXT))
    else:
        rtmr2 = _extended(rtmr2, _sha384(_volume_file(volume, firmware_volume.POLICY, "policy")))
        if not variant.policy_v2:
            rtmr2 = _extended(rtmr2, _sha384(_volume_file(volume, firmware_volume.ROOT_CA, "root CA")))
    return separator, rtmr1, rtmr2, _ZERO


def _volume_file(volume: bytes, name: UUID, what: str) -> bytes:
    content = firmware_volume.find_raw_file(volume, name)
    if content is None:
        raise ToolError(failures.IMAGE_FILE_MISSING, what)
    return content


def _pull_manifest(manifest: bytes) -> list[bytes]:
    try:
        document = pull_json(manifest, "manifest")
    except ToolError as error:
        raise ToolError(failures.MANIFEST_INVALID, error.detail) from error
    found = []
    for name, size in _MANIFEST:
        value = document.get(name) if isinstance(document, dict) else None
        if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
            raise ToolError(failures.MANIFEST_INVALID, f"{name} is missing or no {size} bytes as hex")
        found.append(bytes.fromhex(value))
    return found


def _extended(register: bytes, digest: bytes) -> bytes:
    return _sha384(register + digest)


def _sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a policy v2 says of MigTDs: identity, TCB mapping, and both with their chains (policy.md 5.3, 5.8).

Measurements come as JSON of `measurements.py` (a quote or TDREPORT) or of the image hash: `mrtd`, `rtmr0` … as hex.
"""

from __future__ import annotations

import re
from typing import Any, Final

from lab.policy_tools import failures
from lab.policy_tools.compact import document_text, pull_json, push_json, push_string
from lab.policy_tools.errors import ToolError
from migtd.policy.errors import JsonError
from migtd.policy.json_reader import Reader

IDENTITY: Final = "tdIdentity"
"""The name under which an identity is signed."""
MAPPING: Final = "tdTcbMapping"

_ZERO_48: Final = "0" * 96
_IDENTITY_FIELDS: Final = {
    "xfam": 8,
    "attributes": 8,
    "mrConfigId": 48,
    "mrOwner": 48,
    "mrOwnerConfig": 48,
}
"""Of measurement files, with their sizes in bytes: what an identity takes over."""
_MAPPED: Final = ("mrtd", "rtmr0", "rtmr1")
"""What a mapping pins; one that pinned RTMR2 could never match in rebinding (policy.md 2.6)."""
_U16_MAX: Final = 0xFFFF
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_ISSUED: Final = "2025-01-01T00:00:00Z"
_NEXT: Final = "2035-01-01T00:00:00Z"

IDENTITY_TEMPLATE: Final[dict[str, Any]] = {
    "id": "5D2B0A5E-53B5-4E46-8C6B-9A4A4B1B8F01",
    "version": 1,
    "issueDate": _ISSUED,
    "nextUpdate": _NEXT,
    "tcbEvaluationNumber": 1,
    "xfam": "0" * 16,
    "attributes": "0" * 16,
    "mrConfigId": _ZERO_48,
    "mrOwner": _ZERO_48,
    "mrOwnerConfig": _ZERO_48,
    "mrsigner": _ZERO_48,
    "isvProdId": 0,
    "tcbLevels": [{"tcb": {"isvsvn": 1}, "tcbDate": _ISSUED, "tcbStatus": "UpToDate"}],
}
"""An identity of one level; nobody compares its dates with a clock (policy.md 2.3)."""
MAPPING_TEMPLATE: Final[dict[str, Any]] = {
    "id": "5D2B0A5E-53B5-4E46-8C6B-9A4A4B1B8F02",
    "version": 1,
    "issueDate": _ISSUED,
    "nextUpdate": _NEXT,
    "mrSigner": _ZERO_48,
    "isvProdId": 0,
    "svnMappings": [{"tdMeasurements": {"mrtd": _ZERO_48, "rtmr0": _ZERO_48, "rtmr1": _ZERO_48}, "isvsvn": 1}],
}
"""A mapping of one entry."""


def bundle(identity: bytes, identity_chain: bytes, mapping: bytes, mapping_chain: bytes) -> bytes:
    """The servtd collateral of a policy: both signed documents as they are written, and their chains, PEM.

    No signature is verified. Raises ToolError (LAB-TOOL-JSON-INVALID, LAB-TOOL-TEXT-INVALID).
    """
    parts = (
        '"majorVersion":1',
        '"minorVersion":0',
        f'"servtdIdentity":{_raw(identity, "identity")}',
        f'"servtdIdentityIssuerChain":{push_string(_chain(identity_chain, "identity chain"))}',
        f'"servtdTcbMapping":{_raw(mapping, "mapping")}',
        f'"servtdTcbMappingIssuerChain":{push_string(_chain(mapping_chain, "mapping chain"))}',
    )
    return f"{{{','.join(parts)}}}".encode()


def identity(measurements: bytes, template: bytes | None = None, isvsvn: int | None = None) -> bytes:
    """An identity, ready to be signed as `tdIdentity`: a template with the fields of a measurement file.

    `isvsvn`: the first level's; None: the measurement file's. Raises ToolError (LAB-TOOL-JSON-INVALID,
    LAB-SERVTD-INVALID).
    """
    measured = _object(measurements, "measurements")
    document = dict(IDENTITY_TEMPLATE) if template is None else _object(template, "identity")
    document |= {name: _hex(measured, name, size) for name, size in _IDENTITY_FIELDS.items()}
    document["isvProdId"] = _number(measured, "isvProdId", 0)
    svn = _checked_svn(isvsvn if isvsvn is not None else _number(measured, "isvsvn", 1))
    try:
        first, *others = document["tcbLevels"]
        document["tcbLevels"] = [{**first, "tcb": {**first["tcb"], "isvsvn": svn}}, *others]
    except (KeyError, TypeError, ValueError) as error:
        raise ToolError(failures.SERVTD_INVALID, "identity: there is no first TCB level with a tcb") from error
    return push_json(document)


def mapping(measurements: bytes, template: bytes | None = None, isvsvn: int | None = None) -> bytes:
    """A TCB mapping, ready to be signed as `tdTcbMapping`: its first entry gets MRTD, RTMR0, RTMR1 and SVN.

    Raises as `identity` does.
    """
    measured = _object(measurements, "measurements")
    document = dict(MAPPING_TEMPLATE) if template is None else _object(template, "mapping")
    svn = _checked_svn(isvsvn if isvsvn is not None else _number(measured, "isvsvn", 1))
    updated, _ = with_measurements(document, {name: _hex(measured, name, 48) for name in _MAPPED})
    updated["svnMappings"][0]["isvsvn"] = svn
    return push_json(updated)


def updated_mapping(document: bytes, measured: dict[str, bytes]) -> tuple[bytes, list[str]]:
    """A mapping with `mrtd`, `rtmr0` and `rtmr1` (48 bytes each) in its first entry, compact, keys in their order (C4).

    Second: which of them the entry had not. Raises ToolError (LAB-TOOL-JSON-INVALID, LAB-SERVTD-INVALID).
    """
    values = {name: measured[name].hex().upper() for name in _MAPPED}
    updated, absent = with_measurements(_object(document, "mapping"), values)
    return push_json(updated), absent


def with_measurements(document: dict[str, Any], values: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A mapping with those texts as measurements of its first entry, and the keys that it had not."""
    try:
        first, *others = document["svnMappings"]
        known = dict(first["tdMeasurements"])
        entry = {**first, "tdMeasurements": {**known, **values}}
    except (KeyError, TypeError, ValueError) as error:
        raise ToolError(failures.SERVTD_INVALID, "mapping: there is no svnMappings[0].tdMeasurements") from error
    return {**document, "svnMappings": [entry, *others]}, [name for name in values if name not in known]


def _raw(document: bytes, what: str) -> str:
    try:
        reader = Reader(document_text(document))
        raw = reader.raw()
        reader.end()
    except JsonError as error:
        detail = error.described(document.decode("utf-8", "replace"))
        raise ToolError(failures.JSON_INVALID, f"{what}: {detail}") from error
    return raw.text


def _chain(pem: bytes, what: str) -> str:
    try:
        return pem.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ToolError(failures.TEXT_INVALID, f"{what}: byte {error.start}") from error


def _object(document: bytes, what: str) -> dict[str, Any]:
    value = pull_json(document, what)
    if not isinstance(value, dict):
        raise ToolError(failures.SERVTD_INVALID, f"{what}: an object is expected")
    return value


def _hex(measured: dict[str, Any], name: str, size: int) -> str:
    value = measured.get(name)
    if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
        raise ToolError(failures.SERVTD_INVALID, f"measurements: {name} is missing or no {size} bytes as hex")
    return value.upper()


def _number(measured: dict[str, Any], name: str, default: int) -> int:
    value = measured.get(name, default)
    if type(value) is not int:
        raise ToolError(failures.SERVTD_INVALID, f"measurements: {name} is no integer")
    return _checked_svn(value)


def _checked_svn(value: int) -> int:
    if not 0 <= value <= _U16_MAX:
        raise ToolError(failures.SERVTD_INVALID, f"{value} does not fit 16 bits")
    return value

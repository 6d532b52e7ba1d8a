# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policies from collateral: v1 by the first TCB level of everything, v2 from its three parts (policy.md 5.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lab.policy_tools import failures
from lab.policy_tools.compact import pull_json, push_json
from lab.policy_tools.errors import ToolError

PRODUCTION_ID: Final = "F65CD566-4D67-45EF-88E3-79963901B292"
PRE_PRODUCTION_ID: Final = "B87BFE45-9CC7-46F9-8F2C-A6CB55BF7101"
COMPONENTS: Final = 16

_MODULE_MAJORS: Final = {"TDX_01": 1, "TDX_02": 2, "TDX_03": 3, "TDX_05": 5}
_TDINFO: Final = (
    "ATTRIBUTES",
    "MRCONFIGID",
    "MROWNER",
    "MROWNERCONFIG",
    "MRTD",
    "RTMR0",
    "RTMR1",
    "RTMR2",
    "RTMR3",
    "XFAM",
)
_EVENTS: Final = ("Digest.MigTdPolicy", "Digest.MigTdSgxRootKey")
_SELF: Final = {"operation": "equal", "reference": "self"}


def policy_v1(tcb_infos: Mapping[str, bytes], qe_identity: bytes, *, pre_production: bool = False) -> bytes:
    """A v1 policy, indented by 4 spaces, without a final newline.

    `tcb_infos` are the documents of a collateral service by FMSPC, in the order in which their blocks come. Raises
    ToolError (LAB-COLLATERAL-INVALID) where one is not of the expected form or names an unknown TDX module.
    """
    infos = {fmspc: _inner(body, "tcbInfo", f"TCB info of {fmspc}") for fmspc, body in tcb_infos.items()}
    blocks = [_platform(fmspc, info) for fmspc, info in infos.items()]
    blocks.append(_qe(_inner(qe_identity, "enclaveIdentity", "QE identity")))
    modules: dict[str, dict[str, Any]] = {}
    for fmspc, info in infos.items():
        for identity in _list(info, "tdxModuleIdentities", f"TCB info of {fmspc}"):
            name = _get(identity, "id", str, "TDX module identity")
            if name not in modules:
                modules[name] = _tdx_module(name, identity)
    blocks.extend(modules.values())
    blocks.append({"MigTD": {"TDINFO": dict.fromkeys(_TDINFO, _SELF), "EventLog": dict.fromkeys(_EVENTS, _SELF)}})
    document = {"id": PRE_PRODUCTION_ID if pre_production else PRODUCTION_ID, "policy": blocks}
    return json.dumps(document, indent=4, ensure_ascii=False).encode("utf-8")


def policy_v1_of_collaterals(collaterals: bytes, *, pre_production: bool = False) -> bytes:
    """A v1 policy of what a collaterals document has. Raises ToolError (LAB-TOOL-JSON-INVALID, LAB-COLLATERAL-INVALID).

    The same policy as a service gives that had the document's collateral.
    """
    document = pull_json(collaterals, "collaterals")
    listed = _list(document, "platforms", "collaterals")
    infos = {
        _get(each, "fmspc", str, "platform"): _get(each, "tcbInfo", str, "platform").encode("utf-8") for each in listed
    }
    identity = _get(document, "qeIdentity", str, "collaterals")
    return policy_v1(infos, identity.encode("utf-8"), pre_production=pre_production)


def policy_v2(base: bytes, collaterals: bytes, servtd_collateral: bytes) -> bytes:
    """The policyData of a v2 policy, ready to be signed: the base object with the two collaterals in it, compact.

    What the base has already under their keys is replaced where it stands. Nothing but JSON is checked. Raises
    ToolError (LAB-TOOL-JSON-INVALID).
    """
    document = pull_json(base, "policy data")
    if not isinstance(document, dict):
        raise ToolError(failures.JSON_INVALID, "policy data: an object is expected")
    document["collaterals"] = pull_json(collaterals, "collaterals")
    document["servtdCollateral"] = pull_json(servtd_collateral, "servtd collateral")
    return push_json(document)


def _platform(fmspc: str, info: dict[str, Any]) -> dict[str, Any]:
    what = f"TCB info of {fmspc}"
    tcb = _first_tcb(info, what)
    properties = {
        "sgxtcbcomponents": _rule("array-greater-or-equal", _components(tcb, "sgxtcbcomponents", what)),
        "pcesvn": _rule("greater-or-equal", _get(tcb, "pcesvn", int, what)),
        "tdxtcbcomponents": _rule("array-greater-or-equal", _components(tcb, "tdxtcbcomponents", what)),
    }
    return {"fmspc": fmspc, "Platform": {"TcbInfo": properties}}


def _qe(identity: dict[str, Any]) -> dict[str, Any]:
    what = "QE identity"
    properties = {
        "MISCSELECT": _rule("equal", _get(identity, "miscselect", str, what)),
        "ATTRIBUTES": _rule("equal", _get(identity, "attributes", str, what)),
        "MRSIGNER": _rule("equal", _get(identity, "mrsigner", str, what)),
        "ISVPRODID": _rule("equal", _get(identity, "isvprodid", int, what)),
        "ISVSVN": _rule("greater-or-equal", _get(_first_tcb(identity, what), "isvsvn", int, what)),
    }
    return {"QE": {"QeIdentity": properties}}


def _tdx_module(name: str, identity: Any) -> dict[str, Any]:
    what = f"TDX module identity {name[:20]!r}"
    if name not in _MODULE_MAJORS:
        raise ToolError(failures.COLLATERAL_INVALID, f"{what} is not known")
    properties = {
        "TDXModuleMajorVersion": _rule("equal", _MODULE_MAJORS[name]),
        "TDXModuleSVN": _rule("greater-or-equal", _get(_first_tcb(identity, what), "isvsvn", int, what)),
        "MRSIGNERSEAM": _rule("equal", _get(identity, "mrsigner", str, what)),
        "ATTRIBUTES": _rule("equal", _get(identity, "attributes", str, what)),
    }
    return {"TDXModule": {"TDXModule_Identity": properties}}


def _rule(operation: str, reference: object) -> dict[str, Any]:
    return {"operation": operation, "reference": reference}


def _inner(body: bytes, key: str, what: str) -> dict[str, Any]:
    """The object under `key` of a signed document of a service."""
    try:
        document = pull_json(body, what)
    except ToolError as error:
        raise ToolError(failures.COLLATERAL_INVALID, error.detail) from error
    inner: dict[str, Any] = _get(document, key, dict, what)
    return inner


def _first_tcb(holder: Any, what: str) -> dict[str, Any]:
    levels = _list(holder, "tcbLevels", what)
    if not levels:
        raise ToolError(failures.COLLATERAL_INVALID, f"{what}: there is no TCB level")
    tcb: dict[str, Any] = _get(levels[0], "tcb", dict, what)
    return tcb


def _components(tcb: dict[str, Any], key: str, what: str) -> list[int]:
    listed = _list(tcb, key, what)
    if len(listed) != COMPONENTS:
        raise ToolError(failures.COLLATERAL_INVALID, f"{what}: {key} has {len(listed)} elements, not {COMPONENTS}")
    return [_get(each, "svn", int, f"{what}: {key}") for each in listed]


def _list(holder: Any, key: str, what: str) -> Sequence[Any]:
    listed: Sequence[Any] = _get(holder, key, list, what)
    return listed


def _get(holder: Any, key: str, kind: type, what: str) -> Any:
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise ToolError(failures.COLLATERAL_INVALID, f"{what}: {key} is missing or no {kind.__name__}")
    return value

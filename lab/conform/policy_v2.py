# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Sections on documents of policy v2: v2_parse, v2_signature, v2_collateral_lookup, v2_hex."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from lab.conform.files import Data, Row, RowError
from migtd.policy.errors import JsonError, PolicyError, PolicyErrorName
from migtd.policy.json_reader import Field, Reader, text_of
from migtd.policy.v2.collaterals import Collaterals, read_collaterals
from migtd.policy.v2.decoding import decode, raw_text
from migtd.policy.v2.document import parse_policy_data, verify_policy, verify_servtd_collateral
from migtd.policy.v2.entries import read_entries
from migtd.policy.v2.envelope import MAX_POLICY, parse_envelope, signature_bytes
from migtd.policy.v2.servtd import read_servtd_collateral

OK: Final = "OK"
REFUSED: Final = "REFUSED"


def parse(row: Row, data: Data) -> Mapping[str, object]:
    """Decode a document: OK with what the kind has to tell of it, or REFUSED."""
    content = _content(row, data)
    try:
        match row["kind"]:
            case "raw_policy":
                envelope = parse_envelope(content)
                value, text = envelope.value.encode(), envelope.signature.encode()
                return {"expected": OK, "raw_length": len(value), "signature_length": len(text)}
            case "policy_types":
                entries = decode(_text(content), read_entries, PolicyErrorName.InvalidPolicy)
                return {"expected": OK, "entries": len(entries)}
            case "policy_data":
                return {"expected": OK, "validate": _validates(_text(content))}
            case "collaterals":
                decode(_text(content), read_collaterals, PolicyErrorName.InvalidPolicy)
                return {"expected": OK}
            case other:
                raise RowError(f"there is no kind {other!r}")
    except PolicyError:
        return {"expected": REFUSED}


def signature(row: Row, data: Data) -> Mapping[str, object]:
    """Verify a policy, or both documents of a servtd collateral with one chain: OK or the error's name."""
    try:
        match row["kind"]:
            case "policy":
                verify_policy(parse_envelope(data.file(row["policy"])), data.file(row["issuer_chain"]))
            case "servtd_collateral":
                _verify_servtd_collateral(_text(data.file(row["servtd_collateral"])), row["chain_field"])
            case other:
                raise RowError(f"there is no kind {other!r}")
    except PolicyError as error:
        return {"expected": error.name.name}
    return {"expected": OK}


def collateral_lookup(row: Row, data: Data) -> Mapping[str, object]:
    """Whether there is a platform, or its evaluation number; or the error's name."""
    try:
        text = _text(data.file(row["collaterals"]))
        collaterals = decode(text, read_collaterals, PolicyErrorName.InvalidPolicy)
        match row["op"]:
            case "find":
                return {"expected": _finds(collaterals, row["fmspc"])}
            case "tcb_evaluation_number":
                return {"expected": collaterals.platform(row["fmspc"]).tcb_evaluation_number()}
            case other:
                raise RowError(f"there is no op {other!r}")
    except PolicyError as error:
        return {"expected": error.name.name}


def signature_text(row: Row, _data: Data) -> Mapping[str, object]:
    """The bytes of a signature's text as hex, or the error's name."""
    try:
        return {"expected": signature_bytes(row["input"]).hex()}
    except PolicyError as error:
        return {"expected": error.name.name}


def _finds(collaterals: Collaterals, fmspc: str) -> bool:
    try:
        collaterals.platform(fmspc)
    except PolicyError:
        return False
    return True


def _validates(text: str) -> bool:
    document = parse_policy_data(text)
    try:
        document.validate()
    except PolicyError:
        return False
    return True


def _verify_servtd_collateral(text: str, chain_field: str) -> None:
    name = PolicyErrorName.InvalidPolicy
    chain: str = decode(text, lambda reader: reader.structure(Field(chain_field, Reader.string))[chain_field], name)
    collateral = decode(text, read_servtd_collateral, name)
    verify_servtd_collateral(replace(collateral, identity_chain=chain, mapping_chain=chain))


def _content(row: Row, data: Data) -> bytes:
    if "file" in row:
        return data.file(row["file"])
    if "text" in row:
        text: str = row["text"]
        return text.encode("utf-8", "surrogatepass")
    if "hex" in row:
        return bytes.fromhex(row["hex"])
    return _changed(data.file(row["base"]), row["change"])


def _changed(base: bytes, change: Mapping[str, Any]) -> bytes:
    """A document with some top-level members replaced or appended and some removed, numbers as they are written."""
    members: dict[str, str] = {}
    reader = Reader(_text(base))
    for name in reader.members():
        members[name] = raw_text(reader)
    members |= {name: json.dumps(value, separators=(",", ":")) for name, value in change.get("set", {}).items()}
    kept = (f"{json.dumps(name)}:{text}" for name, text in members.items() if name not in change.get("remove", ()))
    return f"{{{','.join(kept)}}}".encode()


def _text(content: bytes) -> str:
    try:
        return text_of(content, MAX_POLICY)
    except JsonError as error:
        raise PolicyError(PolicyErrorName.InvalidPolicy, str(error)) from None

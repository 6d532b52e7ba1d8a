# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Sections on certificates: cert_chain, is_ca, crl_number."""

from __future__ import annotations

from collections.abc import Mapping

from lab.conform.files import Data, Row, RowError
from migtd.policy.chain import crl_number, pull_chain, validate_peer_chain, verify_chain
from migtd.policy.errors import PolicyError


def chain(row: Row, data: Data) -> Mapping[str, object]:
    """Verify a chain, or accept it beside the own one: OK or the error's name."""
    peer = data.file(row["peer"])
    verdict = _verdict_of_chain(peer)
    verifies = verdict == "OK"
    match row["op"]:
        case "verify_chain":
            pass
        case "validate_peer":
            try:
                validate_peer_chain(data.file(row["local"]), peer)
                verdict = "OK"
            except PolicyError as error:
                verdict = error.name.name
        case other:
            raise RowError(f"there is no op {other!r}")
    return {"expected": verdict, "chain_verifies": verifies}


def is_ca(row: Row, data: Data) -> Mapping[str, object]:
    """Whether one certificate of a chain is that of a CA; or the error's name."""
    try:
        return {"expected": pull_chain(data.file(row["pem"]))[row["index"]].is_ca}
    except PolicyError as error:
        return {"expected": error.name.name}


def crl_numbers(row: Row, data: Data) -> Mapping[str, object]:
    """The number of each CRL; or the error's name."""
    try:
        return {"expected": [crl_number(data.file(path)) for path in row["pem"]]}
    except PolicyError as error:
        return {"expected": error.name.name}


def _verdict_of_chain(pem: bytes) -> str:
    try:
        verify_chain(pem)
    except PolicyError as error:
        return error.name.name
    return "OK"

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The document of a v1 policy: an id and a list of blocks (policy.md 1.1, 1.2)."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from migtd.policy.errors import JsonError, PolicyError, PolicyErrorName
from migtd.policy.json_reader import Field, Kind, Reader, text_of
from migtd.policy.v1.properties import Property, read_property

Properties: TypeAlias = Mapping[str, Property]

_GUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class BlockKind(enum.Enum):
    """What a block is about; the values are its keys in the document."""

    PLATFORM = "Platform"
    QE = "QE"
    TDX_MODULE = "TDXModule"
    MIGTD = "MigTD"


@dataclass(frozen=True, slots=True)
class Block:
    """A block: its rules by name, and what only some kinds have.

    `fmspc` is a Platform block's text, `events` are the EventLog rules of a MigTD block.
    """

    kind: BlockKind
    properties: Properties
    fmspc: str | None = None
    events: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyV1:
    """A v1 policy: its GUID, which nothing uses, and its blocks in file order."""

    id: str
    blocks: tuple[Block, ...]


def parse_policy(data: bytes) -> PolicyV1:
    """The policy that `data` holds, NULs around it stripped. Raises PolicyError (InvalidPolicy)."""
    text = ""
    try:
        text = text_of(data).strip("\0")
        reader = Reader(text)
        values = reader.structure(Field("id", _guid), Field("policy", lambda each: each.sequence(_block)))
        reader.end()
    except JsonError as error:
        raise PolicyError(PolicyErrorName.InvalidPolicy, error.described(text)) from None
    return PolicyV1(values["id"], tuple(values["policy"]))


def _guid(reader: Reader) -> str:
    refusal = reader.refusal("this is no GUID")
    text = reader.unescaped_string()
    if _GUID.fullmatch(text) is None:
        raise refusal
    return text


def _block(reader: Reader) -> Block:
    """The first shape that fits. What is in the block must be decodable as a whole before any shape is tried."""
    keys = _keys(reader.fork())
    refused = reader.refusal("this fits no kind of block")
    for shape, required in _SHAPES.items():
        if keys is not None and not required <= keys:
            continue
        attempt = reader.fork()
        try:
            block = shape(attempt)
        except JsonError as error:
            # The shape that got furthest is the one that was meant.
            if error.offset > refused.offset:
                refused = JsonError(f"this fits no kind of block: {error.why}", error.offset)
        else:
            reader.follow(attempt)
            return block
    raise refused


def _keys(reader: Reader) -> set[str] | None:
    """Take a value that can be decoded as a whole; the keys of an object, None for anything else."""
    if reader.kind() is not Kind.OBJECT:
        reader.skip_decodable()
        return None
    keys = set()
    for key in reader.members():
        keys.add(key)
        reader.skip_decodable()
    return keys


def _rules(name: str) -> Callable[[Reader], Properties]:
    """What is in a block's only part: {name: {property name: property}}."""

    def read(reader: Reader) -> Properties:
        rules: Properties = reader.structure(Field(name, _properties))[name]
        return rules

    return read


def _properties(reader: Reader) -> Properties:
    return reader.mapping(read_property)


def _platform(reader: Reader) -> Block:
    values = reader.structure(Field("fmspc", Reader.string), Field("Platform", _rules("TcbInfo")))
    return Block(BlockKind.PLATFORM, values["Platform"], fmspc=values["fmspc"])


def _qe(reader: Reader) -> Block:
    return Block(BlockKind.QE, reader.structure(Field("QE", _rules("QeIdentity")))["QE"])


def _tdx_module(reader: Reader) -> Block:
    values = reader.structure(Field("TDXModule", _rules("TDXModule_Identity")))
    return Block(BlockKind.TDX_MODULE, values["TDXModule"])


def _migtd(reader: Reader) -> Block:
    parts = reader.structure(Field("MigTD", _migtd_parts))["MigTD"]
    return Block(BlockKind.MIGTD, parts["TDINFO"], events=parts["EventLog"] or {})


def _migtd_parts(reader: Reader) -> Mapping[str, Properties | None]:
    return reader.structure(Field("TDINFO", _properties), Field("EventLog", _properties, optional=True))


_SHAPES: Final = {
    _platform: {"fmspc", "Platform"},
    _qe: {"QE"},
    _tdx_module: {"TDXModule"},
    _migtd: {"MigTD"},
}
"""What reads each shape, in the order in which they are tried, and the keys without which it cannot fit."""

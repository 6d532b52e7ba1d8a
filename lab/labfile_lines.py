# SPDX-License-Identifier: BSD-2-Clause-Patent
"""YAML text to plain data that remembers its lines, for files of any origin.

The text is judged before anything is built from it: size, depth, number of nodes, no tags, anchors or aliases, one
document. So hostile text costs no more than reading it, and every fault has a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

MAX_SIZE: Final = 128 * 1024
"""Most characters of a file."""
MAX_DEPTH: Final = 16
MAX_EVENTS: Final = 20_000

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a file. `line` counts from 1; `path` is the key path, empty for the file as a whole."""

    line: int
    path: KeyPath
    message: str

    def __str__(self) -> str:
        where = dotted(self.path)
        return f"{self.line}: {where}: {self.message}" if where else f"{self.line}: {self.message}"


@dataclass(slots=True)
class Document:
    """What a text says: `data` of dicts, lists and scalars, the line of each key path, and the faults found."""

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, path: Sequence[str | int]) -> int:
        """Line of a key path, or of the nearest part of it that the text has."""
        for end in range(len(path), -1, -1):
            found = self.lines.get(tuple(path[:end]))
            if found is not None:
                return found
        return 1


def dotted(path: Sequence[str | int]) -> str:
    """A key path as people write it: `migrations[0].source`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_document(text: str) -> Document:
    """Read one YAML document. Never raises: what is wrong is in `faults`, and `data` is then not to be used."""
    document = Document()
    try:
        _judge(text)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise _RefusedError(1, "the file is empty")
            document.data = _Builder(loader, document).build(node, ())
        finally:
            loader.dispose()
    except _RefusedError as error:
        document.faults.append(Fault(error.line, (), error.message))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        document.faults.append(Fault(mark.line + 1 if mark else 1, (), problem))
    except yaml.YAMLError as error:
        document.faults.append(Fault(1, (), str(error).splitlines()[0]))
    return document


class _RefusedError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


def _judge(text: str) -> None:
    """Refuse what could cost more than its size, from the flat stream of events (its parser does not recurse)."""
    if len(text) > MAX_SIZE:
        raise _RefusedError(1, f"{len(text)} characters; a lab file has at most {MAX_SIZE}")
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if count > MAX_EVENTS:
            raise _RefusedError(line, f"more than {MAX_EVENTS} keys and values")
        _judge_node(event, line)
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            raise _RefusedError(line, "a lab file is one YAML document")
        if depth > MAX_DEPTH:
            raise _RefusedError(line, f"nested deeper than {MAX_DEPTH} levels")


def _judge_node(event: yaml.Event, line: int) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise _RefusedError(line, "anchors and aliases are not used in lab files")
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise _RefusedError(line, f"the tag {str(tag)[:40]!r} is not used in lab files")


class _Builder:
    """Builds data from nodes and notes lines; scalars are the safe loader's."""

    def __init__(self, loader: yaml.SafeLoader, document: Document) -> None:
        self._loader = loader
        self._document = document

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                self._document.faults.append(Fault(line, path, "a key must be text; put it in quotes"))
                continue
            if key in data:
                self._document.faults.append(Fault(line, (*path, key), "this key stands here twice"))
                continue
            self._document.lines[(*path, key)] = line
            data[key] = self.build(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError as error:
            # A timestamp with a 13th month or a number with more digits than Python reads looks right to the resolver.
            self._document.faults.append(Fault(node.start_mark.line + 1, path, str(error)[:200]))
            return None

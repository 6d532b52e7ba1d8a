# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The evaluation of a v1 policy: rules in the reference's order, the first that fails decides (policy.md 1.4 - 1.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from migtd.event_log import EventName, NamedEvent
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import Finding, Judge, Verdict, shown_name, shown_reference, shown_value
from migtd.policy.v1 import fields
from migtd.policy.v1.document import Block, BlockKind, PolicyV1, parse_policy
from migtd.policy.v1.properties import Compared, Property

SELF: Final = "self"
_Values: TypeAlias = tuple[bytes | None, bytes | None]
"""What the own side and the peer have, None where that is nothing."""
_PARTS: Final[Mapping[BlockKind, str]] = {
    BlockKind.PLATFORM: "Platform.TcbInfo",
    BlockKind.QE: "QE.QeIdentity",
    BlockKind.TDX_MODULE: "TDXModule.TDXModule_Identity",
    BlockKind.MIGTD: "MigTD.TDINFO",
}
_MOST_LISTED: Final = 8
"""FMSPCs of a policy that are named where none is the peer's."""
_EVENTS_PART: Final = "MigTD.EventLog"
_FIELDS: Final = {
    BlockKind.PLATFORM: fields.PLATFORM,
    BlockKind.QE: fields.QE,
    BlockKind.TDX_MODULE: fields.TDX_MODULE,
    BlockKind.MIGTD: fields.TDINFO,
}
_FAILURES: Final = {
    BlockKind.PLATFORM: PolicyErrorName.UnqualifiedPlatformInfo,
    BlockKind.QE: PolicyErrorName.UnqualifiedQeInfo,
    BlockKind.TDX_MODULE: PolicyErrorName.UnqualifiedTdxModuleInfo,
    BlockKind.MIGTD: PolicyErrorName.UnqualifiedMigTdInfo,
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one side shows: its record, 822 bytes, and its events by the names that policies give them."""

    record: bytes
    events: Mapping[str, NamedEvent]


def evaluate(
    policy: bytes | PolicyV1,
    *,
    is_source: bool,
    local_record: bytes,
    local_events: Mapping[EventName, NamedEvent],
    peer_record: bytes,
    peer_events: Mapping[EventName, NamedEvent],
    trace: list[Finding] | None = None,
) -> None:
    """Decide whether the peer meets the own policy; to return is to accept.

    `policy` is the file, or what `parse_policy` made of it; records are those of verified quotes (policy.md 4.2),
    events those of `parse_events`. The rules that were come to are appended to `trace`, also when the peer is refused.
    Raises PolicyError: InvalidParameter, InvalidPolicy, InvalidEventLog, PlatformNotFound, PlatformNotMatch,
    Unqualified….
    """
    local = Evidence(local_record, by_policy_name(local_events))
    peer = Evidence(peer_record, by_policy_name(peer_events))
    evaluate_evidence(policy, local, peer, is_source=is_source, trace=trace)


def by_policy_name(events: Mapping[EventName, NamedEvent]) -> dict[str, NamedEvent]:
    """The events that a policy can name, by its names."""
    return {name: events[event] for name, event in fields.EVENTS.items() if event and event in events}


def evaluate_evidence(
    policy: bytes | PolicyV1, local: Evidence, peer: Evidence, *, is_source: bool, trace: list[Finding] | None = None
) -> None:
    """As `evaluate`, with events by the names of policies."""
    lengths = {len(local.record), len(peer.record)}
    if min(lengths) < fields.RECORD_SIZE:
        raise _wrong_length(min(lengths))
    parsed = parse_policy(policy) if isinstance(policy, bytes) else policy
    if max(lengths) != fields.RECORD_SIZE:
        raise _wrong_length(max(lengths))
    _Evaluation(local, peer, is_source, [] if trace is None else trace).run(parsed)


@dataclass(frozen=True, slots=True)
class _Evaluation:
    local: Evidence
    peer: Evidence
    is_source: bool
    trace: list[Finding] = field(default_factory=list)

    def run(self, policy: PolicyV1) -> None:
        """Platform, TDX module, then the other blocks in file order."""
        numbered = list(enumerate(policy.blocks, 1))
        platform = self._choose_platform([each for each in numbered if each[1].kind is BlockKind.PLATFORM])
        self._require_block(*platform)
        self._require_tdx_module([each for each in numbered if each[1].kind is BlockKind.TDX_MODULE])
        for number, block in numbered:
            if block.kind in (BlockKind.QE, BlockKind.MIGTD):
                self._require_block(number, block)

    def _choose_platform(self, blocks: Sequence[tuple[int, Block]]) -> tuple[int, Block]:
        """The block of the peer's FMSPC, or the only one if it is `self` and both platforms are the same."""
        if len(blocks) == 1 and blocks[0][1].fmspc == SELF:
            agree = fields.FMSPC.value(self.local.record) == fields.FMSPC.value(self.peer.record)
            self._note_fmspc(blocks[0][0], f'"{SELF}"', met=agree)
            if not agree:
                fmspcs = f"own FMSPC {_fmspc(self.local)}, peer's {_fmspc(self.peer)}"
                raise PolicyError(PolicyErrorName.PlatformNotMatch, fmspcs)
            return blocks[0]
        wanted = _fmspc(self.peer)
        for number, block in blocks:
            if block.fmspc == wanted:
                self._note_fmspc(number, f'"{wanted}"', met=True)
                return number, block
        listed = ", ".join(str(block.fmspc) for _, block in blocks[:_MOST_LISTED]) or "none"
        more = f" and {len(blocks) - _MOST_LISTED} more" if len(blocks) > _MOST_LISTED else ""
        self._note_fmspc(0, shown_reference(f"one of: {listed}{more}"), met=False)
        raise PolicyError(PolicyErrorName.PlatformNotFound, f"peer's FMSPC {wanted}")

    def _require_tdx_module(self, blocks: Sequence[tuple[int, Block]]) -> None:
        """One of the alternatives must be met. A name that is unknown in any of them tells, if none is."""
        if not blocks or any(self._is_met(number, block) for number, block in blocks):
            return
        for number, block in blocks:
            for name in sorted(block.properties):
                if name not in fields.TDX_MODULE:
                    raise self._unknown(number, _PARTS[block.kind], name, block.properties[name])
        tried = f"{len(blocks)} alternatives" if len(blocks) > 1 else "the only alternative"
        raise PolicyError(PolicyErrorName.UnqualifiedTdxModuleInfo, tried)

    def _require_block(self, number: int, block: Block) -> None:
        if not self._is_met(number, block) or not self._are_events_met(number, block):
            last = self.trace[-1]
            raise PolicyError(_FAILURES[block.kind], f"block {number}, {last.part} {last.name}")

    def _is_met(self, number: int, block: Block) -> bool:
        """Whether the rules on the record are all met, names in byte order."""
        part, known = _PARTS[block.kind], _FIELDS[block.kind]
        for name in sorted(block.properties):
            rule, place = block.properties[name], known.get(name)
            if place is None:
                raise self._unknown(number, part, name, rule)
            values = (place.value(self.local.record), place.value(self.peer.record))
            if not self._holds(number, part, name, rule, values, str(place)):
                return False
        return True

    def _are_events_met(self, number: int, block: Block) -> bool:
        """Whether the rules on events are all met; one that a side does not have fails."""
        for name in sorted(block.events):
            rule = block.events[name]
            if name not in fields.EVENTS:
                raise self._unknown(number, _EVENTS_PART, name, rule, PolicyErrorName.InvalidEventLog)
            local, peer = self.local.events.get(name), self.peer.events.get(name)
            compared = "digest" if local is None or local.data is None else "data"
            values = (_compared(local, compared), _compared(peer, compared))
            if not self._holds(number, _EVENTS_PART, name, rule, values, f"event's {compared}"):
                return False
        return True

    def _holds(self, number: int, part: str, name: str, rule: Property, values: _Values, place: str) -> bool:
        local, peer = values
        met = local is not None and peer is not None and rule.holds(Compared(local, peer, self.is_source))
        self._note(number, part, name, rule, values, place, Verdict.MET if met else Verdict.NOT_MET)
        return met

    def _unknown(
        self,
        number: int,
        part: str,
        name: str,
        rule: Property,
        error: PolicyErrorName = PolicyErrorName.InvalidParameter,
    ) -> PolicyError:
        self._note(number, part, name, rule, (None, None), "no field of this name", Verdict.UNKNOWN_NAME)
        return PolicyError(error, f"block {number}, {part}: there is no {shown_name(name)}")

    def _note(
        self,
        number: int,
        part: str,
        name: str,
        rule: Property,
        values: _Values,
        place: str,
        verdict: Verdict,
    ) -> None:
        self.trace.append(
            Finding(
                block=number,
                part=part,
                name=shown_name(name),
                operation=rule.operation.value,
                reference=shown_reference(rule.written),
                local=shown_value(values[0]),
                peer=shown_value(values[1]),
                field=place,
                judge=Judge.SOURCE if self.is_source else Judge.DESTINATION,
                verdict=verdict,
            )
        )

    def _note_fmspc(self, number: int, reference: str, *, met: bool) -> None:
        self.trace.append(
            Finding(
                block=number,
                part="Platform",
                name="fmspc",
                operation="is",
                reference=reference,
                local=fields.FMSPC.value(self.local.record).hex(),
                peer=fields.FMSPC.value(self.peer.record).hex(),
                field=str(fields.FMSPC),
                judge=Judge.SOURCE if self.is_source else Judge.DESTINATION,
                verdict=Verdict.MET if met else Verdict.NOT_MET,
            )
        )


def _compared(event: NamedEvent | None, what: str) -> bytes | None:
    return None if event is None else event.data if what == "data" else event.digest


def _fmspc(side: Evidence) -> str:
    return fields.FMSPC.value(side.record).hex().upper()


def _wrong_length(length: int) -> PolicyError:
    detail = f"a supplemental record has {fields.RECORD_SIZE} bytes, not {length}"
    return PolicyError(PolicyErrorName.InvalidParameter, detail)

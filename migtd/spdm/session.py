# SPDX-License-Identifier: BSD-2-Clause-Patent
"""SPDM as a session protocol of migrations (spdm.md): the source is the requester, the destination the responder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from migtd.guest.ghci import TDINFO_SIZE
from migtd.migration.data import ExchangeInformation
from migtd.migration.servtd_ext import SERVTD_EXT_SIZE
from migtd.migration.session import RebindingContext, SessionContext, TargetHistory
from migtd.spdm.core import SessionMaterial, SpdmEndpoint, fresh_material
from migtd.spdm.migration import Commit, DestinationOfMigration, PolicySteps, SourceOfMigration, StepsV1, StepsV2
from migtd.spdm.requester import Requester
from migtd.spdm.responder import Responder

NO_HISTORY: Final = TargetHistory(bytes(SERVTD_EXT_SIZE), bytes(TDINFO_SIZE))
"""What a source shows of a target TD whose history it does not know. With policy v1 nobody looks at it."""


def commit_later(peer: ExchangeInformation, servtd_ext: bytes) -> None:
    """Leave it to the caller, after the session: a destination that fails then can no longer tell its peer."""


def make_session(
    context: SessionContext,
    material: SessionMaterial,
    *,
    policy: bytes = b"",
    history: TargetHistory = NO_HISTORY,
    commit: Commit = commit_later,
) -> SpdmEndpoint:
    """One side of one migration (migtd.migration.session.SessionProtocol).

    `policy` is the policy v1 file, whose hash is shown; with peer data in the context it is policy v2, and that is
    shown instead. A source shows `history`. `commit` acts on the peer's key inside the session.
    """
    peer_data = context.peer_data
    steps: PolicySteps = StepsV1(context, policy) if peer_data is None else StepsV2(context, peer_data)
    if context.is_source:
        return Requester(material, SourceOfMigration(context, steps, history, commit))
    return Responder(material, DestinationOfMigration(context, steps, commit))


class Spdm:
    """Makes SPDM sessions (migtd.migration.session.SessionFactory). `random` gives random bytes; `policy` as above."""

    name: Final = "spdm"

    def __init__(self, random: Callable[[int], bytes], policy: bytes = b"") -> None:
        self._random = random
        self._policy = policy

    def __call__(self, context: SessionContext) -> SpdmEndpoint:
        """A new session with fresh keys."""
        return make_session(context, fresh_material(self._random), policy=self._policy)

    def rebinding(self, context: RebindingContext) -> SpdmEndpoint:
        """A new session of a rebinding, as above."""
        # Loaded by those who rebind only.
        from migtd.spdm.rebinding import make_rebinding  # noqa: PLC0415

        return make_rebinding(context, fresh_material(self._random))

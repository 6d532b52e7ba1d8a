# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Who signs the policies v2 that a lab makes itself, in a lab file: one entry for a host, or for one of its MigTDs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vmm_stub.vmm.control.models import Model, Name

U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
FIRST_KEY = "first"
"""The key that signs where nothing else is said."""


class PolicySigningEntry(Model):
    """How the policy of a MigTD is signed. Keys and roots are names: the same name is the same key in the whole lab.

    `policy_key`, `identity_key` and `mapping_key` are the leaf keys of policy, servtd identity and servtd TCB mapping:
    another name is a rotated key, whose certificate has the same subject. `root` is what all three chains end in, with
    `intermediate` there is a CA in between. `policy_svn` is the policy's own SVN.
    """

    policy_key: Name = FIRST_KEY
    identity_key: Name = FIRST_KEY
    mapping_key: Name = FIRST_KEY
    root: Name = FIRST_KEY
    intermediate: bool = False
    policy_svn: U32 = 1

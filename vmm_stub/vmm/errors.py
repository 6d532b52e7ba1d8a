# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a VMM refuses its users, and how a failure is told to people.

VmmError              carries a FailureKind; never raised itself
 +-- NotKnown         there is nothing of that name (HTTP 404)
 +-- Invalid          a value cannot be used (400)
 +-- Conflict         not in this state (409)
 +-- AddressInvalid   an address or path cannot be used; the host does not start
 +-- MigTdLost        why a MigTD, and with it its migrations, was lost
"""

from __future__ import annotations

from migtd.errors import LabFailure
from vmm_stub.vmm.control.models import ErrorModel


class VmmError(LabFailure):
    """A failure of the VMM; the class says what kind of answer it makes."""


class NotKnown(VmmError):
    """There is no MigTD or migration of that name."""


class Invalid(VmmError):
    """A value is well-formed but cannot be used."""


class Conflict(VmmError):
    """The request is right, but not in the state that the host is in."""


class AddressInvalid(VmmError):
    """The host cannot listen or write where its configuration says."""


class MigTdLost(VmmError):
    """The MigTD is gone, or as good as gone."""


def error_model(failure: LabFailure) -> ErrorModel:
    """A failure as people read it: id, sentence with detail, advice, and what a sentence cannot hold."""
    return ErrorModel(
        id=failure.kind.id, message=str(failure), advice=failure.kind.advice, explain=list(failure.explain)
    )

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the emulated TDX module refuses.

The host's own mistakes (a target TD that does not exist, a report that breaks its layout) are failures with a stable
id. What a guest passes in registers never is: it gets a completion status, and OperandInvalid carries the operand's
number to the dispatcher (calls.py).
"""

from __future__ import annotations

import enum

from migtd.errors import LabFailure


class Operand(enum.IntEnum):
    """Low 32 bits of TDX_OPERAND_INVALID: the register that was wrong (TDX Module ABI, operand ids)."""

    RAX = 0
    RCX = 1
    RDX = 2
    R8 = 8
    R9 = 9
    R10 = 10


class OperandInvalid(Exception):
    """A guest's operand is wrong; ends in TDX_OPERAND_INVALID with this number and never leaves the module."""

    def __init__(self, operand: Operand) -> None:
        super().__init__(operand)
        self.operand = operand


class TdxModuleFailure(LabFailure):
    """The host asked the TDX module for something that it cannot do; never raised itself."""


class ServiceTdExists(TdxModuleFailure):
    """A service TD of that name is running (VMM-SERVICE-TD-EXISTS)."""


class ServiceTdUnknown(TdxModuleFailure):
    """No service TD of that name is running (VMM-SERVICE-TD-UNKNOWN)."""


class TargetTdExists(TdxModuleFailure):
    """A target TD with that binding handle and UUID exists (VMM-TARGET-TD-EXISTS)."""


class TargetTdUnknown(TdxModuleFailure):
    """No target TD has that binding handle and UUID (VMM-TARGET-TD-UNKNOWN)."""


class RebindRefused(TdxModuleFailure):
    """The binding of a target TD stays where it is (VMM-REBIND-REFUSED)."""


class RandomSourceBroken(TdxModuleFailure):
    """The random source gave too few bytes, or nothing but zeros (VMM-RANDOM-SOURCE-BROKEN)."""


class ReportMalformed(TdxModuleFailure):
    """A TDREPORT or a part of one breaks its layout (VMM-REPORT-MALFORMED)."""

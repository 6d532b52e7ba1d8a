# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a TD sees of the world: one Protocol per interface (ghci-ratls.md 2).

The MigTD core is written against these. `migtd.guest.emulated` implements them over the vmcall channel; a payload on
hardware would implement them with the instruction. Calls are synchronous, as TDCALL is; only interrupts are awaited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

Uuid = tuple[int, int, int, int]
"""UUID of a target TD as GHCI passes it: 4 x u64."""


@dataclass(frozen=True, slots=True)
class TargetTd:
    """What names a target TD in TDG.SERVTD.RD and WR: the binding handle (u64) and the UUID."""

    binding_handle: int
    uuid: Uuid


@dataclass(frozen=True, slots=True)
class VpInfo:
    """TDG.VP.INFO: GPA width in bits, TD attributes, number of vCPUs."""

    gpaw: int
    attributes: int
    num_vcpus: int


class TdCall(Protocol):
    """Guest-side calls into the TDX module. Each raises TdxModuleError (MIGTD-TDCALL-FAILED) on a completion status."""

    def vp_info(self) -> VpInfo:
        """TDG.VP.INFO."""

    def mr_report(self, report_data: bytes) -> bytes:
        """TDG.MR.REPORT: 64 bytes REPORTDATA in, 1024-byte TDREPORT out."""

    def mr_verify_report(self, report_mac_struct: bytes) -> bool:
        """TDG.MR.VERIFYREPORT: 256-byte REPORTMACSTRUCT in; True if this platform's TDX module made it."""

    def mr_rtmr_extend(self, index: int, digest: bytes) -> None:
        """TDG.MR.RTMR.EXTEND: RTMR 0..3, 48-byte digest."""

    def servtd_rd(self, target: TargetTd, field: int) -> int:
        """TDG.SERVTD.RD: one 64-bit element of a metadata field of the target TD."""

    def servtd_wr(self, target: TargetTd, field: int, value: int) -> None:
        """TDG.SERVTD.WR: one 64-bit element."""

    def sys_rd(self, field: int) -> int:
        """TDG.SYS.RD: one 64-bit global-scope metadata field."""

    def vm_wr(self, field: int, value: int) -> None:
        """TDG.VM.WR: one 64-bit element of this TD's own metadata."""

    def servtd_rebind_approve(self, target: TargetTd, token: bytes) -> None:
        """TDG.SERVTD.REBIND.APPROVE: the target TD may be bound to whoever accepted the 32-byte token."""


class SharedBuffer(Protocol):
    """Page-aligned memory that the host can read and change at any time. `gpa` has the shared bit set.

    Nothing is ever used in place: `read` copies once into private memory, and only the copy is looked at.
    """

    @property
    def gpa(self) -> int:
        """Guest physical address, shared bit included."""

    @property
    def size(self) -> int:
        """Size in bytes, a multiple of 4096."""

    def read(self, offset: int, length: int) -> bytes:
        """Copy `length` bytes from `offset` into private memory."""

    def write(self, offset: int, data: bytes) -> None:
        """Copy `data` to `offset`."""

    def free(self) -> None:
        """Give the pages back. The buffer must not be used afterwards."""


class SharedMemory(Protocol):
    """Allocator of shared pages."""

    def allocate(self, size: int) -> SharedBuffer:
        """Zeroed shared memory of `size` bytes, rounded up to pages.

        Raises OutOfResource (MIGTD-SHARED-MEMORY-EXHAUSTED) when none is left.
        """


class TdVmCall(Protocol):
    """Calls to the VMM (GHCI 1.5).

    Each returns once the VMM accepted the call; the answer comes in the buffer, announced by an interrupt on `vector`.
    Each raises InvalidParameter (MIGTD-VMCALL-REFUSED; MIGTD-TRANSPORT-SETUP-FAILED for Send and Receive) when the VMM
    refuses an operand. A refused Send or Receive is how a VMM says that the request's transport could not be opened.
    """

    def migtd_wait_for_request(self, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.WaitForRequest."""

    def migtd_report_status(self, request_id: int, status: int, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.ReportStatus; `status` is the register value of ghci-ratls.md 3.2."""

    def migtd_send(self, request_id: int, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.Send: the VMM takes what the buffer's header announces."""

    def migtd_receive(self, request_id: int, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.Receive: the VMM fills the buffer when data is there."""

    def get_quote(self, buffer: SharedBuffer) -> None:
        """GetQuote (ghci-ratls.md 8)."""

    def setup_event_notify_interrupt(self, vector: int) -> None:
        """SetupEventNotifyInterrupt: the vector that announces completed quotes."""

    def report_fatal_error(self, code: int, message: str) -> None:
        """ReportFatalError: `code` in bits 0..31, the message in shared memory. The VMM ends the TD."""


class Interrupts(Protocol):
    """Interrupt delivery, as a count for each vector.

    Take `count`, then make the call or look at the buffer, then `wait` for more than was counted: an interrupt that
    arrives between the look and the wait is never lost, however many wait on the same vector.
    """

    def count(self, vector: int) -> int:
        """How often `vector` fired so far."""

    async def wait(self, vector: int, seen: int) -> int:
        """Return the count of `vector` once it is above `seen`. Every waiter of a vector is woken.

        Interrupts carry no data and may be spurious: look at the buffer, then wait again. Raises VmmInternalError
        (MIGTD-CHANNEL-LOST) when the host is gone.
        """


class ConfigurationVolume(Protocol):
    """The files that the host gave the TD at build time (policy.md 0.3). They are measured, never trusted."""

    def policy(self) -> bytes | None:
        """The policy file (v1 or v2), or None."""

    def root_ca(self) -> bytes | None:
        """The SGX root CA certificate, DER (policy v1), or None."""

    def policy_issuer_chain(self) -> bytes | None:
        """The policy issuer chain, PEM (policy v2), or None."""


class EventLogArea(Protocol):
    """The CCEL area: private memory that the firmware set up and the MigTD appends to (policy.md 3.1)."""

    def read(self) -> bytes:
        """The whole area."""

    def write(self, offset: int, data: bytes) -> None:
        """Copy `data` to `offset`; the caller keeps within the area."""


@dataclass(frozen=True, slots=True)
class Guest:
    """Everything a MigTD gets from the platform it runs on."""

    tdcall: TdCall
    vmcall: TdVmCall
    memory: SharedMemory
    interrupts: Interrupts
    configuration: ConfigurationVolume
    event_log: EventLogArea | None

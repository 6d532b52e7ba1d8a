# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The values that a v2 policy judges, from a verified quote or from a TDREPORT (policy.md 2.6).

What the platform is said to be always comes from the own policy's collaterals; what the MigTD is said to be comes from
the mapping and the identity of the side that is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from migtd.attestation.quote.record import RANGES, RECORD_SIZE
from migtd.policy.dates import unix_to_iso
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.v2.collaterals import Collaterals
from migtd.policy.v2.document import VerifiedPolicy
from migtd.policy.v2.servtd import Measurements
from migtd.policy.v2.tdreport import tdinfo_measurements

_RECORD_MEASUREMENTS: Final = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")


@dataclass(frozen=True, slots=True)
class QuoteFacts:
    """What a verified quote says: its record, 822 bytes, and the FMSPC of its PCK certificate, upper-case hex."""

    record: bytes
    fmspc: str


@dataclass(frozen=True, slots=True)
class Values:
    """What is known of one side; None where it is not. Dates and statuses are texts, `fmspc` is upper-case hex."""

    tcb_date: str | None = None
    tcb_status: str | None = None
    tcb_evaluation_number: int | None = None
    fmspc: str | None = None
    pck_crl_num: int | None = None
    root_ca_crl_num: int | None = None
    migtd_isvsvn: int | None = None
    migtd_tcb_date: str | None = None
    migtd_tcb_status: str | None = None


def values_of_quote(facts: QuoteFacts, collaterals: Collaterals, side: VerifiedPolicy) -> Values:
    """The values of one side: `collaterals` are the own ones, `side` is the judged side's policy.

    Raises PolicyError: InvalidParameter (the record), InvalidCollateral; in the order of policy.md 2.6.
    """
    record = facts.record
    if len(record) < RECORD_SIZE:
        raise _wrong_record(record)
    tcb_date = unix_to_iso(int.from_bytes(record[RANGES["tcb_date"]], "little", signed=True))
    tcb_status = _text(record[RANGES["platform_status"]])
    evaluation_number = collaterals.platform(facts.fmspc).tcb_evaluation_number()
    if len(record) != RECORD_SIZE:
        raise _wrong_record(record)
    pck_crl_num, root_ca_crl_num = collaterals.pck_crl_number(), collaterals.root_ca_crl_number()
    isvsvn, migtd_tcb_date, migtd_tcb_status = _engine(measurements_of_record(record), side)
    return Values(
        tcb_date,
        tcb_status,
        evaluation_number,
        facts.fmspc,
        pck_crl_num,
        root_ca_crl_num,
        isvsvn,
        migtd_tcb_date,
        migtd_tcb_status,
    )


def values_of_tdinfo(tdinfo: bytes, side: VerifiedPolicy) -> Values:
    """The values of one side in rebinding: of its MigTD only, looked up without RTMR2 and RTMR3."""
    isvsvn, tcb_date, tcb_status = _engine(tdinfo_measurements(tdinfo), side)
    return Values(migtd_isvsvn=isvsvn, migtd_tcb_date=tcb_date, migtd_tcb_status=tcb_status)


def measurements_of_record(record: bytes) -> Measurements:
    """All measurements of a record of at least 822 bytes."""
    return Measurements(*(record[RANGES[name]] for name in _RECORD_MEASUREMENTS))


def _engine(measurements: Measurements, side: VerifiedPolicy) -> tuple[int | None, str | None, str | None]:
    """SVN, date and status of a MigTD, None where they are not known."""
    isvsvn = side.mapping.svn(measurements)
    level = side.identity.level(isvsvn)
    return isvsvn, None if level is None else level.tcb_date, None if level is None else level.tcb_status


def _text(field: bytes) -> str:
    try:
        return field.partition(b"\0")[0].decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyError(PolicyErrorName.InvalidParameter, "the record's TCB status is not UTF-8") from None


def _wrong_record(record: bytes) -> PolicyError:
    detail = f"a supplemental record has {RECORD_SIZE} bytes, not {len(record)}"
    return PolicyError(PolicyErrorName.InvalidParameter, detail)

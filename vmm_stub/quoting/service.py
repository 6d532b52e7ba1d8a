# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The quoting service behind GetQuote, sans-IO: the request in a buffer goes in, status and answer come out.

`vmm/quote_calls.py` owns buffer and interrupt. A service answers at once or later: until then the buffer is in flight.
"""

from __future__ import annotations

from collections.abc import Callable

from migtd.attestation.quote.collateral import push_packed
from migtd.guest.quote_messages import (
    BareReport,
    CollateralRequest,
    MessageMalformed,
    QgsError,
    QuoteRequest,
    QuoteStatus,
    pull_request,
    push_collateral_answer,
    push_quote_answer,
    push_quote_refusal,
)
from vmm_stub import failures
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.interface import Answered, Quoting
from vmm_stub.quoting.maker import V4, QuoteFormat, make_quote
from vmm_stub.quoting.material import QuotingMaterial
from vmm_stub.tdx_module.platform import Platform


class LabQuoting:
    """Fresh quotes and collateral from a lab's material, for TDREPORTs of one platform; answers at once.

    `platform` is asked anew each time: a host may get its platform after its service. A guest that names an FMSPC
    gets the collateral of that platform if the lab has it, else, like one that names none, the machine's own.
    """

    def __init__(self, material: QuotingMaterial, platform: Callable[[], Platform], shape: QuoteFormat = V4) -> None:
        self._material = material
        self._platform = platform
        self._shape = shape

    def get_quote(self, request: bytes, answered: Answered) -> None:
        """Answer one request. A TDREPORT that the platform did not make is refused (VMM-QUOTING-REPORT-FOREIGN).

        In form 3 the guest learns of that by a QGS error: it is final, and no reason to ask again.
        """
        match _pull(request):
            case BareReport(report):
                answered(QuoteStatus.SUCCESS, self._quote(report))
            case QuoteRequest(report):
                try:
                    answer = push_quote_answer(self._quote(report))
                except QuotingError as error:
                    refusal = push_quote_refusal(QgsError.INVALID_PARAMETER)
                    raise QuotingError(error.kind, error.detail, answer=refusal) from error
                answered(QuoteStatus.SUCCESS, answer)
            case CollateralRequest(fmspc):
                named = self._material.collateral_for(fmspc.hex().upper()) if fmspc is not None else None
                packed = push_packed(named or self._material.collateral)
                answered(QuoteStatus.SUCCESS, push_collateral_answer(packed))

    def _quote(self, report: bytes) -> bytes:
        return make_quote(self._material, self._platform(), report, self._shape)


class StagedQuoting:
    """Another service, made to fail or to wait.

    The first `failures` calls end in the error status, which guests take as busy (the reference's mock_quote_retry: 5).
    While `hold` is on, answers stay in flight until `release`.
    """

    def __init__(self, inner: Quoting, *, failures: int = 0, hold: bool = False) -> None:
        self.calls = 0
        self._inner = inner
        self._failures = failures
        self._hold = hold
        self._held: list[Callable[[], None]] = []

    def get_quote(self, request: bytes, answered: Answered) -> None:
        """Fail, keep back or pass on."""
        self.calls += 1
        if self.calls <= self._failures:
            answered(QuoteStatus.ERROR, b"")
        elif self._hold:
            self._inner.get_quote(request, lambda status, data: self._held.append(lambda: answered(status, data)))
        else:
            self._inner.get_quote(request, answered)

    def release(self) -> None:
        """Give all answers that were kept back, oldest first, and keep back no more."""
        self._hold = False
        while self._held:
            self._held.pop(0)()


def _pull(request: bytes) -> BareReport | CollateralRequest | QuoteRequest:
    try:
        return pull_request(request)
    except MessageMalformed as error:
        raise QuotingError(failures.QUOTING_REQUEST, str(error)) from error

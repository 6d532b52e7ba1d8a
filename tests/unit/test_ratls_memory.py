# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A session's keys and OpenSSL's memory go with it, and do not wait for Python's collector of cycles."""

import gc
import weakref
from typing import Any

import pytest

from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import Evidence
from migtd.migration.data import ExchangeInformation
from migtd.ratls.session import RaTls
from migtd.ratls.testing import ConnectionPair, make_side


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def ends(evidence):
    mode, exchange = AcceptAll(lambda: b"log\0"), ExchangeInformation(bytes(32), 1, 1)
    return [make_side(RaTls(), mode, evidence, exchange, is_source=is_source) for is_source in (True, False)]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("quote", [bytes(822), b""], ids=["complete", "refused"])
def test_session_is_gone_once_nobody_uses_it(quote):
    pair = ConnectionPair(*ends(Evidence(quote, b"log\0")))
    pair.run()
    sessions: list[Any] = [pair.source.session, pair.destination.session]
    held = [weakref.ref(each) for session in sessions for each in (session, session._tls, session._tls._connection)]
    # A MigTD lets go of the error, too, when it has reported it.
    errors = [pair.source.error, pair.destination.error]
    pair.source.error = pair.destination.error = None
    assert (errors == [None, None]) is bool(quote)
    del sessions, pair, errors

    assert [ref() for ref in held] == [None] * 6
